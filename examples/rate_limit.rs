//! Rate limiting with each provider and strategy.
//!
//!     cargo run --features trypema --example rate_limit
//!     cargo run --features trypema --example rate_limit -- redis://127.0.0.1/
//!
//! The second also runs what needs a server: Redis 7.2 or newer, or Valkey 8.

use std::error::Error;

use distkit::trypema::{
    HardLimitFactor, RateLimit, RateLimitDecision, RateLimiterBuilder, WindowSize,
    hybrid::HybridRateLimiterProvider,
    local::LocalRateLimiterProvider,
    redis::{RedisKey, RedisRateLimiterProvider},
};

/// What fits in the window of each limiter below: ten a second over ten seconds.
const CAPACITY: u64 = 100;
const CALLS: u64 = 2 * CAPACITY;

#[derive(Default)]
struct Tally {
    allowed: u64,
    turned_down: u64,
}

impl Tally {
    fn count(&mut self, decision: &RateLimitDecision) {
        match decision {
            RateLimitDecision::Allowed | RateLimitDecision::Suppressed { is_allowed: true, .. } => {
                self.allowed += 1
            }
            RateLimitDecision::Rejected { .. }
            | RateLimitDecision::Suppressed { is_allowed: false, .. } => self.turned_down += 1,
        }
    }

    fn print(&self, name: &str) {
        println!("{name:<20} {:>4} allowed, {:>4} turned down", self.allowed, self.turned_down);
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let rate = RateLimit::per_second(10.0)?;
    let window = WindowSize::seconds(10)?;
    // Beyond the limit, the suppressed strategy lets some through, up to half as much again.
    let hard = HardLimitFactor::try_from(1.5)?;
    println!("{CALLS} calls at once, where {CAPACITY} fit in the window:");

    let local =
        LocalRateLimiterProvider::builder().window_size(window).hard_limit_factor(hard).build()?;
    let (mut absolute, mut suppressed) = (Tally::default(), Tally::default());
    for _ in 0..CALLS {
        absolute.count(&local.absolute().inc("alice", &rate, 1));
        suppressed.count(&local.suppressed().inc("alice", &rate, 1));
    }
    absolute.print("local, absolute");
    suppressed.print("local, suppressed");

    let Some(url) = std::env::args().nth(1) else {
        println!("Give the URL of a server to see the limits that processes share.");
        return Ok(());
    };
    let connection = redis::Client::open(url)?.get_connection_manager().await?;
    // The server's counts outlive the process: start afresh, so that what is printed is this run's.
    let prefix = RedisKey::try_from("distkit_example_rate_limit")?;
    let alice = RedisKey::try_from("alice")?;

    let shared = RedisRateLimiterProvider::builder(connection.clone())
        .prefix(prefix.clone())
        .window_size(window)
        .hard_limit_factor(hard)
        .build()?;
    shared.absolute().clear().await?;
    shared.suppressed().clear().await?;
    let (mut absolute, mut suppressed) = (Tally::default(), Tally::default());
    for _ in 0..CALLS {
        absolute.count(&shared.absolute().inc(&alice, &rate, 1).await?);
        suppressed.count(&shared.suppressed().inc(&alice, &rate, 1).await?);
    }
    absolute.print("Redis, absolute");
    suppressed.print("Redis, suppressed");

    let hybrid = HybridRateLimiterProvider::builder(connection)
        .prefix(prefix)
        .window_size(window)
        .hard_limit_factor(hard)
        .build()?;
    hybrid.absolute().clear().await?;
    hybrid.suppressed().clear().await?;
    let (mut absolute, mut suppressed) = (Tally::default(), Tally::default());
    for _ in 0..CALLS {
        absolute.count(&hybrid.absolute().inc(&alice, &rate, 1).await?);
        suppressed.count(&hybrid.suppressed().inc(&alice, &rate, 1).await?);
    }
    absolute.print("hybrid, absolute");
    suppressed.print("hybrid, suppressed");
    Ok(())
}
