//! A service with its own unit tests, which need neither a server nor patience.
//!
//!     cargo run --example testing_without_redis
//!     cargo test --example testing_without_redis
//!
//! The service takes whatever store it is given. Its tests give it a [`MemoryBackend`], which is a whole store,
//! through a link that they can break, and let hours pass under tokio's paused time.

use std::{sync::Arc, time::Duration};

use distkit::{
    CounterComparator, DistkitError, RedisKey,
    backend::{Backend, memory::MemoryBackend},
    counter::{CounterOptions, CounterTrait, StrictCounter},
};

/// How many calls each customer has in an hour, over all processes of the service.
struct Quota {
    used: Arc<StrictCounter>,
    limit: i64,
}

#[derive(Debug, PartialEq)]
enum Decision {
    Allowed,
    Exhausted,
    /// The store gave no answer. The call may have been counted.
    Unavailable,
}

impl Quota {
    fn new(store: Arc<dyn Backend>, limit: i64) -> Result<Self, DistkitError> {
        let options = CounterOptions::new(RedisKey::try_from("quota")?, store);
        // A customer who waits for the answer does not wait for longer than this.
        let options = options.unknown_after(Duration::from_secs(1));
        Ok(Self { used: StrictCounter::new(options), limit })
    }

    async fn take(&self, customer: &RedisKey) -> Decision {
        // One step in the store: two processes never give the last call away twice.
        match self.used.inc_if(customer, CounterComparator::Lt(self.limit), 1).await {
            Ok((now, before)) if now > before => Decision::Allowed,
            Ok(_) => Decision::Exhausted,
            Err(_) => Decision::Unavailable,
        }
    }

    /// Gives everybody a new quota each hour. Runs in one process of the service.
    async fn renew_hourly(&self) {
        loop {
            tokio::time::sleep(Duration::from_secs(3600)).await;
            if let Err(error) = self.used.clear().await {
                eprintln!("no new quota this hour: {error}");
            }
        }
    }
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<(), DistkitError> {
    let quota = Quota::new(Arc::new(MemoryBackend::new()), 2)?;
    let alice = RedisKey::try_from("alice")?;
    let three = async {
        for call in 1..=3 {
            println!("call {call}: {:?}", quota.take(&alice).await);
        }
        // Under paused time this hour takes no time.
        tokio::time::sleep(Duration::from_secs(3601)).await;
        println!("an hour later: {:?}", quota.take(&alice).await);
    };
    tokio::select! {
        () = three => {}
        () = quota.renew_hourly() => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alice() -> RedisKey {
        RedisKey::try_from("alice").unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn processes_share_a_quota() {
        let store = MemoryBackend::new();
        // Each process has its own link to the store.
        let here = Quota::new(Arc::new(store.link()), 3).unwrap();
        let there = Quota::new(Arc::new(store.link()), 3).unwrap();
        assert_eq!(here.take(&alice()).await, Decision::Allowed);
        assert_eq!(there.take(&alice()).await, Decision::Allowed);
        assert_eq!(here.take(&alice()).await, Decision::Allowed);
        assert_eq!(there.take(&alice()).await, Decision::Exhausted);
    }

    #[tokio::test(start_paused = true)]
    async fn an_exhausted_quota_is_renewed_by_the_hour() {
        let quota = Arc::new(Quota::new(Arc::new(MemoryBackend::new()), 1).unwrap());
        let renewing = quota.clone();
        let task = tokio::spawn(async move { renewing.renew_hourly().await });
        // Whenever all tasks wait, paused time jumps to the next timer: this test takes milliseconds.
        for _ in 0..24 {
            assert_eq!(quota.take(&alice()).await, Decision::Allowed);
            tokio::time::sleep(Duration::from_secs(1800)).await;
            assert_eq!(quota.take(&alice()).await, Decision::Exhausted);
            tokio::time::sleep(Duration::from_secs(1801)).await;
        }
        task.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_reply_costs_no_second_call() {
        let link = MemoryBackend::new().link();
        let quota = Quota::new(Arc::new(link.clone()), 2).unwrap();
        link.lose_next_replies(3);
        assert_eq!(quota.take(&alice()).await, Decision::Allowed);
        assert_eq!(quota.used.get(&alice()).await.unwrap(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_longer_than_a_second_for_an_unreachable_store() {
        let link = MemoryBackend::new().link();
        let quota = Quota::new(Arc::new(link.clone()), 2).unwrap();
        let began = tokio::time::Instant::now();
        // Sent, and never answered.
        link.lose_next_replies(usize::MAX);
        assert_eq!(quota.take(&alice()).await, Decision::Unavailable);
        assert!(began.elapsed() < Duration::from_millis(1100));

        link.lose_next_replies(0);
        link.cut();
        assert_eq!(quota.take(&alice()).await, Decision::Unavailable);
        link.restore();
        assert_eq!(quota.used.get(&alice()).await.unwrap(), 1, "the first one was counted");
    }
}
