//! The command line.

use std::{net::SocketAddr, time::Duration};

use clap::Parser;
use distkit::{DistkitError, RedisKey};

/// Counts its open connections, and shows those of all processes that count in the same store.
#[derive(Debug, Parser)]
#[command(name = "distkit-live", version, about, args_override_self = true)]
pub(crate) struct Args {
    /// The address to serve on. Port 0 takes a free port; the address is printed.
    #[arg(long, default_value = "127.0.0.1:8080")]
    pub(crate) listen: SocketAddr,
    /// The store, as `distkit::backend::connect` takes it. The default is shared with no other process.
    #[arg(long, env = "DISTKIT_URL", hide_env_values = true, default_value = "memory://")]
    pub(crate) url: String,
    /// The instance's name. A restarted process of the same name takes its predecessor's place.
    /// Default: derived from the process id.
    #[arg(long, value_parser = key)]
    pub(crate) name: Option<RedisKey>,
    /// The prefix of the counters.
    #[arg(long, default_value = "live", value_parser = key)]
    pub(crate) prefix: RedisKey,
    /// How long a process that crashed is still counted, from 100ms to 1h.
    #[arg(long, default_value = "3s", value_parser = lease)]
    pub(crate) lease: Duration,
    /// How often to read what all instances hold, from 50ms to 1m.
    #[arg(long, default_value = "500ms", value_parser = poll)]
    pub(crate) poll: Duration,
    /// Hold roughly this many simulated connections, which come and go.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=100_000))]
    pub(crate) load: u32,
}

fn key(text: &str) -> Result<RedisKey, DistkitError> {
    RedisKey::try_from(text)
}

fn lease(text: &str) -> Result<Duration, String> {
    duration(text, Duration::from_millis(100), Duration::from_secs(3600))
}

fn poll(text: &str) -> Result<Duration, String> {
    duration(text, Duration::from_millis(50), Duration::from_secs(60))
}

fn duration(text: &str, least: Duration, most: Duration) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if (least..=most).contains(&duration) {
        return Ok(duration);
    }
    let [least, most] = [least, most].map(humantime::format_duration);
    Err(format!("not between {least} and {most}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(args: &[&str]) -> String {
        let args = ["distkit-live"].iter().chain(args);
        Args::try_parse_from(args).unwrap_err().to_string()
    }

    #[test]
    fn durations_have_units_and_bounds() {
        let args = Args::try_parse_from(["distkit-live", "--lease", "250ms", "--poll", "1s"]);
        let args = args.unwrap();
        assert_eq!((args.lease, args.poll), (Duration::from_millis(250), Duration::from_secs(1)));
        assert!(refused(&["--lease", "0s"]).contains("not between 100ms and 1h"));
        assert!(refused(&["--poll", "2m"]).contains("not between 50ms and 1m"));
        assert!(refused(&["--lease", "3"]).contains("time unit needed"));
    }

    #[test]
    fn names_and_prefixes_that_no_counter_can_have_are_refused() {
        assert!(refused(&["--name", "a:b"]).contains("invalid key"));
        assert!(refused(&["--prefix", ""]).contains("invalid key"));
    }
}
