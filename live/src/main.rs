//! A service that counts its open connections, and shows those of all processes on a live page.
#![forbid(unsafe_code)]

mod app;
mod args;
mod connections;
mod error;
mod history;
mod load;
mod member;
mod roster;
mod stats;
mod watcher;

use std::{
    error::Error,
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use clap::Parser;
use distkit::{DistkitError, RedisKey, backend};
use tokio::{net::TcpListener, sync::watch};
use url::Url;

use app::App;
use args::Args;
use error::chain;
use member::{Identity, Member};
use watcher::Watcher;

/// How long requests in flight may take once this process is shutting down.
const DRAIN: Duration = Duration::from_secs(5);

/// How long leaving may take. Together with [`DRAIN`] less than orchestrators grant (Kubernetes: 30 s).
const LEAVE: Duration = Duration::from_secs(10);

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args = Args::parse();
    let colored = io::stderr().is_terminal();
    tracing_subscriber::fmt().with_writer(io::stderr).with_ansi(colored).init();
    match run(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", chain(&*error));
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<(), Box<dyn Error>> {
    let signal = Signal::new()?;
    // Before the store is touched: a process that cannot serve must not take over a name.
    let listener = TcpListener::bind(args.listen)
        .await
        .map_err(|error| format!("cannot listen on {}: {error}", args.listen))?;
    let address = listener.local_addr()?;

    let store = backend::connect(&args.url).await?;
    let name = match args.name {
        Some(name) => name,
        None => RedisKey::new(format!("pid {}", std::process::id()))?,
    };
    let stamp = i64::try_from(watcher::unix_ms())?;
    let identity = Identity { prefix: args.prefix, name, lease: args.lease, stamp };
    let (member, connections) = Member::join(identity, store).await?;
    let (member, connections) = (Arc::new(member), Arc::new(connections));
    let watcher = Watcher::new(Arc::clone(&member), args.poll);
    let (stop, stopping) = watch::channel(false);
    let app = App {
        member: Arc::clone(&member),
        connections: Arc::clone(&connections),
        history: watcher.history(),
        stopping: stopping.clone(),
        store: without_secrets(&args.url),
        poll: args.poll,
    };
    let mut drained = stopping;
    let server = axum::serve(listener, app::router(Arc::new(app)))
        .with_graceful_shutdown(async move {
            // An error means that the sender was dropped: the process is shutting down, too.
            let _ = drained.wait_for(|stop| *stop).await;
        })
        .into_future();
    let mut server = tokio::spawn(server);
    writeln!(io::stdout(), "listening on http://{address}")?;

    let load = async {
        match args.load {
            0 => std::future::pending().await,
            about => load::run(connections, about).await,
        }
    };
    let end = tokio::select! {
        () = signal.received() => End::Signal,
        ended = watcher.run() => End::Replaced(ended),
        Err(refused) = load => End::Failed(refused.into()),
        served = &mut server => End::Failed(format!("the server ended: {served:?}").into()),
    };
    tracing::info!("stopping");
    stop.send_replace(true);
    if !server.is_finished() && tokio::time::timeout(DRAIN, server).await.is_err() {
        tracing::warn!("some requests are still in flight and are cut off");
    }
    let failure: Option<Box<dyn Error>> = match end {
        // There is nothing to leave, and a record of its successor must not be overwritten.
        End::Replaced(why) => return Err(why.into()),
        End::Signal => None,
        End::Failed(why) => Some(why),
    };
    match (failure, member.leave(LEAVE).await) {
        (Some(why), _) => Err(why),
        (None, Err(left)) => Err(format!("did not leave in good order: {}", chain(&left)).into()),
        (None, Ok(())) => Ok(()),
    }
}

/// Why a process ends.
enum End {
    /// A signal.
    Signal,
    /// Another process took its name.
    Replaced(DistkitError),
    Failed(Box<dyn Error>),
}

/// The store's address without user, password and parameters.
fn without_secrets(url: &str) -> String {
    let Ok(mut parsed) = Url::parse(url) else {
        let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
        return format!("{scheme}://");
    };
    // They fail for a URL without a host, which has neither.
    let _ = parsed.set_username("");
    let _ = parsed.set_password(None);
    parsed.set_query(None);
    parsed.set_fragment(None);
    if parsed.path() == "/" {
        parsed.set_path("");
    }
    parsed.into()
}

/// Ctrl-C everywhere, and SIGTERM where there is such a thing. Listens from the moment it is made.
struct Signal {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

impl Signal {
    #[cfg(unix)]
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let interrupt = signal(SignalKind::interrupt())?;
        Ok(Self { interrupt, terminate: signal(SignalKind::terminate())? })
    }

    #[cfg(unix)]
    async fn received(mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    #[cfg(not(unix))]
    fn new() -> io::Result<Self> {
        Ok(Self {})
    }

    #[cfg(not(unix))]
    async fn received(self) {
        if let Err(error) = tokio::signal::ctrl_c().await {
            tracing::error!(%error, "no handler for Ctrl-C");
            std::future::pending().await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::without_secrets;

    #[test]
    fn the_address_that_is_shown_has_no_secrets() {
        for (url, shown) in [
            ("memory://", "memory://"),
            ("redis://127.0.0.1:6400/2", "redis://127.0.0.1:6400/2"),
            ("redis://127.0.0.1/", "redis://127.0.0.1"),
            ("rediss://app:s3cret@db:6379?key=/etc/key", "rediss://db:6379"),
            ("redis+unix:///run/redis.sock?user=app&pass=s3cret", "redis+unix:///run/redis.sock"),
            ("redis://app:s3cret@db:port", "redis://"),
        ] {
            assert_eq!(without_secrets(url), shown);
        }
    }
}
