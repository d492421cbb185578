//! A box office: visits are counted by a lax counter, tickets sold by a strict one.
//!
//!     cargo run --example quickstart
//!     cargo run --example quickstart -- redis://127.0.0.1/
//!
//! The first runs in memory, the second (or `DISTKIT_URL` in the environment) on a Redis or Valkey server,
//! with the same code and the same totals.

use std::{error::Error, sync::Arc, time::Duration};

use distkit::{
    CounterComparator, RedisKey,
    backend::{self, Store, memory::MemoryBackend},
    counter::{CounterOptions, CounterTrait, LaxCounter, StrictCounter},
};

type Failure = Box<dyn Error + Send + Sync>;

const TILLS: usize = 4;
const VISITS_PER_TILL: usize = 1_000;
const TICKETS: i64 = 250;
/// One visitor in ten wants a ticket: more visitors than there are tickets.
const BUYS_EVERY: usize = 10;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let url = std::env::args().nth(1).or_else(|| std::env::var("DISTKIT_URL").ok());
    let store: Arc<dyn Store> = match &url {
        Some(url) => backend::connect(url).await?,
        None => Arc::new(MemoryBackend::new()),
    };
    println!("Store: {}", url.as_deref().unwrap_or("memory (give the URL of a server to use it)"));

    let prefix = RedisKey::try_from("distkit_example_quickstart")?;
    let options = CounterOptions::new(prefix, store);
    let (visits, tickets) = (RedisKey::try_from("visits")?, RedisKey::try_from("tickets")?);

    let office = StrictCounter::new(options.clone());
    office.clear().await?;
    office.set(&tickets, TICKETS).await?;

    // Each till has counters of its own, as if it were another process.
    let tills: Vec<_> = (1..=TILLS)
        .map(|number| {
            let (options, visits, tickets) = (options.clone(), visits.clone(), tickets.clone());
            tokio::spawn(async move { till(number, options, &visits, &tickets).await })
        })
        .collect();
    let mut sold = 0;
    for till in tills {
        sold += till.await??;
    }

    println!("Sold {sold} of {TICKETS} tickets, {} left.", office.get(&tickets).await?);
    println!("Counted {} visits at {TILLS} tills.", office.get(&visits).await?);
    office.clear().await?;
    Ok(())
}

/// Counts its visitors and sells tickets as long as there are any; gives how many it sold.
async fn till(
    number: usize,
    options: CounterOptions,
    visits: &RedisKey,
    tickets: &RedisKey,
) -> Result<i64, Failure> {
    let counted = LaxCounter::new(options.clone());
    let stock = StrictCounter::new(options);
    let (mut sold, mut turned_away) = (0, 0);
    for visitor in 1..=VISITS_PER_TILL {
        // Answered from memory; the store learns of it within 20 ms, together with the others.
        counted.inc(visits, 1).await?;
        if visitor % BUYS_EVERY == 0 {
            // One round trip that cannot sell the same ticket twice.
            let (left, before) = stock.inc_if(tickets, CounterComparator::Gt(0), -1).await?;
            if left < before {
                sold += 1;
            } else {
                turned_away += 1;
            }
        }
    }
    // What is counted so far is in the store when this returns.
    counted.flush().await?;
    println!(
        "Till {number}: {VISITS_PER_TILL} visits, sold {sold}, turned {turned_away} away; \
         it knows of {} visits in all.",
        counted.get(visits).await?
    );
    counted.shutdown(Duration::from_secs(5)).await?;
    Ok(sold)
}
