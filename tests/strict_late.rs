//! Strict writes after their deadline.
#![cfg(feature = "counter")]
#![allow(clippy::unwrap_used)] // Clippy takes only the functions marked as tests for tests.

use std::{future::Future, sync::Arc, time::Duration};

use distkit::{
    RedisKey,
    backend::{Write, memory::MemoryBackend},
    counter::{CounterOptions, CounterTrait, StrictCounter},
};
use tokio::time::Instant;

fn key(name: &str) -> RedisKey {
    RedisKey::try_from(name).unwrap()
}

/// A call with a short deadline does not wait for one with a long one.
#[tokio::test(start_paused = true)]
async fn clones_with_other_deadlines_do_not_wait_for_each_other() {
    let link = MemoryBackend::new().link();
    let options = CounterOptions::with_store(key("p"), Arc::new(link.clone()));
    let long = StrictCounter::new(options.clone().unknown_after(Duration::from_secs(600)));
    let short = StrictCounter::new(options.unknown_after(Duration::from_secs(1)));
    link.lose_next_replies(usize::MAX);
    for _ in 0..20 {
        let long = long.clone();
        tokio::spawn(async move { long.inc(&key("k"), 1).await });
    }
    tokio::task::yield_now().await;
    let began = Instant::now();
    assert!(short.inc(&key("k"), 1).await.is_err());
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}

/// The store's record may be gone by then.
#[tokio::test(start_paused = true)]
async fn nothing_is_sent_after_the_deadline() {
    let link = MemoryBackend::new().link();
    let options = CounterOptions::with_store(key("p"), Arc::new(link.clone()));
    let (counter, k) = (StrictCounter::new(options), key("k"));
    link.lose_next_replies(1);
    let mut call = Box::pin(counter.inc(&k, 1));
    // Up to the pause before the second attempt; then it is not polled for long.
    let polled = std::future::poll_fn(|context| {
        std::task::Poll::Ready(call.as_mut().poll(context).is_pending())
    });
    assert!(polled.await);
    tokio::time::advance(Duration::from_secs(600)).await;
    assert!(call.await.unwrap_err().may_have_happened());
    assert_eq!(link.requests(), 1);
}

/// A batch goes on for as long as its requests are answered, and ends with the first one that is not.
#[tokio::test(start_paused = true)]
async fn each_part_of_a_batch_has_a_deadline_of_its_own() {
    let link = MemoryBackend::new().link();
    let options = CounterOptions::with_store(key("p"), Arc::new(link.clone()));
    let counter = StrictCounter::new(options.unknown_after(Duration::from_secs(5)));
    let writes: Vec<_> = (0..2000).map(|n| Write::add(key(&format!("k{n}")), 1)).collect();
    link.set_latency(Duration::from_secs(3));
    let began = Instant::now();
    let slower = async {
        tokio::time::sleep(Duration::from_secs(7)).await;
        link.set_latency(Duration::from_secs(30));
    };
    let (answers, ()) = tokio::join!(counter.write_all(&writes), slower);
    let answers = answers.unwrap();
    assert_eq!(began.elapsed(), Duration::from_secs(14), "3 s, 3 s, 3 s, and 5 s");
    assert!(answers[..1500].iter().all(Result::is_ok));
    assert!(answers[1500..].iter().all(|a| a.as_ref().unwrap_err().may_have_happened()));
}
