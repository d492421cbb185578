//! A rolling deploy: each new process takes the name of the one that it replaces, so that none is counted
//! twice, and no slice outlives its process.
//!
//!     cargo run --example rolling_deploy
//!
//! Three pods of a stateful set count their open connections. One is replaced in good order, one crashes, one is
//! still alive when its successor starts. Runs on the simulator, in no time.

use std::{sync::Arc, time::Duration};

use distkit::{
    DistkitError, RedisKey,
    backend::memory::{MemoryBackend, MemoryLink},
    icounter::{
        InstanceAwareCounterTrait, LaxInstanceAwareCounter, LaxInstanceAwareCounterOptions,
        StrictInstanceAwareCounter, StrictInstanceAwareCounterOptions,
    },
};

const PREFIX: &str = "gateways";
/// As long as a crashed pod without a successor is counted on.
const LEASE: Duration = Duration::from_secs(30);

/// A process of the set. Its connections come and go fast, so its counter is a lax one.
struct Pod {
    connections: Arc<LaxInstanceAwareCounter>,
    key: RedisKey,
    link: MemoryLink,
}

impl Pod {
    /// `name` is the pod's, which its successor has, too: the environment variable HOSTNAME in a stateful set.
    fn start(name: &str, store: &MemoryBackend) -> Result<Self, DistkitError> {
        let link = store.link();
        let options =
            LaxInstanceAwareCounterOptions::new(RedisKey::try_from(PREFIX)?, link.clone())
                .dead_instance_threshold_ms(LEASE.as_millis() as u64)
                .instance_name(RedisKey::try_from(name)?);
        let connections = LaxInstanceAwareCounter::new(options);
        Ok(Self { connections, key: RedisKey::try_from("connections")?, link })
    }

    async fn opens(&self, connections: i64) -> Result<(), DistkitError> {
        self.connections.inc(&self.key, connections).await?;
        self.connections.flush().await
    }

    /// In good order, after SIGTERM: flushes and leaves, so that its slice goes at once.
    async fn stop(self) {
        self.connections.shutdown(Duration::from_secs(5)).await.expect("a store that answers");
    }
}

impl Drop for Pod {
    /// What was not done until now, a crashed process does not do.
    fn drop(&mut self) {
        self.link.cut();
    }
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<(), DistkitError> {
    let store = MemoryBackend::new();
    let key = RedisKey::try_from("connections")?;
    // A dashboard reads the same total, exactly. It has no name, and adds nothing.
    let dashboard = StrictInstanceAwareCounter::new(
        StrictInstanceAwareCounterOptions::new(RedisKey::try_from(PREFIX)?, store.link())
            .dead_instance_threshold_ms(LEASE.as_millis() as u64),
    );
    let show = async |what: &str, expected: i64| -> Result<(), DistkitError> {
        let (total, _) = dashboard.get(&key).await?;
        assert_eq!(total, expected, "{what}");
        println!("{total:>4}  {what}");
        Ok(())
    };

    let old = [
        Pod::start("gateway-0", &store)?,
        Pod::start("gateway-1", &store)?,
        Pod::start("gateway-2", &store)?,
    ];
    for (pod, connections) in old.iter().zip([10, 20, 30]) {
        pod.opens(connections).await?;
    }
    show("three pods of the old version hold 10, 20 and 30 connections", 60).await?;
    let [orderly, crashing, lingering] = old;

    orderly.stop().await;
    show("gateway-0 was asked to stop, and has left", 50).await?;
    let first = Pod::start("gateway-0", &store)?;
    first.opens(1).await?;
    show("its successor opened 1", 51).await?;

    drop(crashing);
    show("gateway-1 crashed; its lease has not expired", 51).await?;
    let second = Pod::start("gateway-1", &store)?;
    second.opens(2).await?;
    show("its successor opened 2: the name is taken over, and no lease is waited for", 33).await?;

    let third = Pod::start("gateway-2", &store)?;
    third.opens(3).await?;
    show("gateway-2's successor opened 3 while the old process still runs", 6).await?;
    // The old one learns of it at its next exchange with the store. It counts no longer, and should end.
    let told = lingering.opens(1).await.expect_err("it was replaced");
    assert!(matches!(told, DistkitError::InstanceReplaced), "{told}");
    show(&format!("the old gateway-2 was told: {told}"), 6).await?;

    // Nothing else comes or goes with the leases of the old version.
    tokio::time::sleep(2 * LEASE).await;
    show("a minute later", 6).await?;
    for pod in [first, second, third] {
        pod.stop().await;
    }
    show("all have stopped", 0).await
}
