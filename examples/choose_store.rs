//! One binary for a laptop, a test stage and production: configuration names the store.
//!
//!     cargo run --example choose_store
//!     DISTKIT_URL=redis://127.0.0.1/ cargo run --example choose_store
//!     cargo run --all-features --example choose_store -- 'rediss-cluster://10.0.0.1:6379?cacert=/etc/redis/ca.crt'
//!
//! Everything behind [`backend::connect`] is an `Arc<dyn Store>`: no counter is generic, and no code below
//! `main` knows which store it is.

use std::{error::Error, process::ExitCode, sync::Arc};

use distkit::{
    RedisKey,
    backend::{self, Store},
    counter::{CounterOptions, CounterTrait, LaxCounter, StrictCounter},
    icounter::{
        InstanceAwareCounterTrait, StrictInstanceAwareCounter, StrictInstanceAwareCounterOptions,
    },
};

type Failure = Box<dyn Error + Send + Sync>;

/// What the rest of the service is given.
struct Counters {
    stock: Arc<StrictCounter>,
    visits: Arc<LaxCounter>,
    sessions: Arc<StrictInstanceAwareCounter>,
}

impl Counters {
    /// All of them share the connection.
    fn new(prefix: RedisKey, store: Arc<dyn Store>) -> Self {
        let options = CounterOptions::new(prefix.clone(), store.clone());
        Self {
            stock: StrictCounter::new(options.clone()),
            visits: LaxCounter::new(options),
            sessions: StrictInstanceAwareCounter::new(StrictInstanceAwareCounterOptions::new(
                prefix, store,
            )),
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let url = std::env::args().nth(1).or_else(|| std::env::var("DISTKIT_URL").ok());
    match run(url).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The whole chain: the last link says why.
            eprint!("error: {error}");
            let mut source = error.source();
            while let Some(cause) = source {
                eprint!(": {cause}");
                source = cause.source();
            }
            eprintln!();
            ExitCode::FAILURE
        }
    }
}

async fn run(url: Option<String>) -> Result<(), Failure> {
    // A service that must not count in memory by mistake makes the URL mandatory instead.
    let url = url.unwrap_or_else(|| "memory://".to_owned());
    // Only the scheme: what follows may contain a password.
    let scheme = url.split("://").next().unwrap_or_default();
    println!("store: {scheme}");

    // A wrong URL, password or certificate ends the program here, not at the first request.
    let store = backend::connect(&url).await?;
    let counters = Counters::new(RedisKey::try_from("distkit_example_choose_store")?, store);
    serve(&counters).await
}

async fn serve(counters: &Counters) -> Result<(), Failure> {
    let [apples, page, open] = ["apples", "page", "open"].map(RedisKey::try_from);
    let (apples, page, open) = (apples?, page?, open?);
    counters.stock.clear().await?;

    counters.stock.set(&apples, 10).await?;
    assert_eq!(counters.stock.dec(&apples, 3).await?, 7);

    for _ in 0..100 {
        counters.visits.inc(&page, 1).await?;
    }
    counters.visits.flush().await?;
    assert_eq!(counters.stock.get(&page).await?, 100);

    assert_eq!(counters.sessions.inc(&open, 2).await?, (2, 2));
    counters.sessions.leave().await?;

    println!("7 apples, 100 visits, and no session is left");
    counters.stock.clear().await?;
    Ok(())
}
