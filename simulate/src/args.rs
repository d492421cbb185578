use std::{path::PathBuf, str::FromStr};

use crate::engine::{Config, Sabotage};

const USAGE: &str = "\
Runs a cluster of processes with distkit's counters on a simulated store: they die, hang, are cut off, lose
messages and come back, the store restarts with and without its data, and what must hold is checked
throughout. The same arguments give the same run.

Usage: cargo run --release -p distkit-simulate -- [OPTIONS]

Options:
  --seed N         which run [default: 1]
  --instances N    how many processes, 1 to 99 [default: 5]
  --hours H        simulated time with faults, 0.02 to 1000 [default: 0.25]
  --shards N       how many shards the prefixes have, 1 to 64, on a cluster of three nodes of which one is
                   unreachable at times [default: 1, on a single server]
  --out FILE       where the picture goes [default: simulation-<seed>.svg in the build directory]
  --trace FILE     write each event to FILE, one a line
  --sabotage WHAT  break the store, to see that the checks notice: double-replay, stale-claims,
                   mute-heartbeats, eternal-leases
  --help           this text";

pub(crate) struct Args {
    pub(crate) config: Config,
    pub(crate) out: Option<PathBuf>,
    pub(crate) trace: Option<PathBuf>,
}

impl Args {
    /// `None` when the user was given the help that was asked for.
    pub(crate) fn parse(words: impl IntoIterator<Item = String>) -> Result<Option<Self>, String> {
        let config = Config { seed: 1, instances: 5, hours: 0.25, shards: 1, sabotage: None };
        let mut args = Self { config, out: None, trace: None };
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            if word == "--help" || word == "-h" {
                println!("{USAGE}");
                return Ok(None);
            }
            let (option, value) = match word.split_once('=') {
                Some((option, value)) => (option.to_owned(), Some(value.to_owned())),
                None => (word, None),
            };
            let config = &mut args.config;
            let mut value = || value.clone().or_else(|| words.next());
            match &*option {
                "--seed" => config.seed = parsed(&option, value(), |_| true)?,
                "--instances" => {
                    config.instances = parsed(&option, value(), |n| (1..=99).contains(n))?;
                }
                "--hours" => {
                    config.hours = parsed(&option, value(), |h| (0.02..=1000.0).contains(h))?
                }
                "--shards" => config.shards = parsed(&option, value(), |n| (1..=64).contains(n))?,
                "--sabotage" => {
                    config.sabotage = Some(parsed(&option, value(), |_: &Sabotage| true)?)
                }
                "--out" => args.out = Some(parsed(&option, value(), |_| true)?),
                "--trace" => args.trace = Some(parsed(&option, value(), |_| true)?),
                _ => return Err(format!("there is no option {option}; --help lists them")),
            }
        }
        Ok(Some(args))
    }
}

fn parsed<T: FromStr<Err: std::fmt::Display>>(
    option: &str,
    value: Option<String>,
    allowed: impl Fn(&T) -> bool,
) -> Result<T, String> {
    let text = value.ok_or_else(|| format!("{option} needs a value; see --help"))?;
    let value = text.parse().map_err(|error| format!("{option} {text}: {error}"))?;
    if allowed(&value) {
        Ok(value)
    } else {
        Err(format!("{option} {text} is out of range; see --help"))
    }
}
