//! A live instance never expires, however little it does: under simulated time, which has hours to
//! spare.

use std::time::Duration;

use distkit::{DistkitError, backend::memory::MemoryBackend};

use crate::world::{Place, World, key};

const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;

async fn never_flaps(lax: bool) {
    for threshold_ms in [300, 1000, 30_000, 10 * MINUTE_MS, HOUR_MS, 24 * HOUR_MS] {
        let world = World { place: Place::Memory(MemoryBackend::new()), lax };
        let quiet = world.process_with(threshold_ms, None).await;
        let watching = world.process_with(threshold_ms, None).await;
        quiet.inc(&key("k"), 3).await.unwrap();
        let step = Duration::from_millis(threshold_ms / 50 + 1);
        for _ in 0..500 {
            tokio::time::sleep(step).await;
            assert_eq!(watching.get(&key("k")).await.unwrap(), (3, 0), "{threshold_ms} ms");
        }
        // And it does not take longer than that to find out that it has gone.
        drop(quiet);
        tokio::time::sleep(Duration::from_millis(threshold_ms)).await;
        assert_eq!(watching.get(&key("k")).await.unwrap(), (0, 0), "{threshold_ms} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn strict_never_flaps() {
    never_flaps(false).await;
}

#[tokio::test(start_paused = true)]
async fn lax_never_flaps() {
    never_flaps(true).await;
}

fn survives_the_runtime_of_its_first_operation(lax: bool) {
    let world = World { place: Place::Memory(MemoryBackend::new()), lax };
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().start_paused(true).build().unwrap()
    };
    let process = runtime().block_on(async {
        let process = world.process_with(1000, None).await;
        process.inc(&key("k"), 3).await.unwrap();
        process
    });
    runtime().block_on(async {
        let watching = world.process_with(1000, None).await;
        assert_eq!(process.inc(&key("k"), 1).await.unwrap(), (4, 4));
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!(watching.get(&key("k")).await.unwrap(), (4, 0));
        }
        process.leave().await.unwrap();
    });
    runtime().block_on(async {
        assert!(matches!(process.inc(&key("k"), 1).await, Err(DistkitError::ShutDown)));
        let watching = world.process_with(1000, None).await;
        assert_eq!(watching.get(&key("k")).await.unwrap(), (0, 0));
    });
}

#[test]
fn strict_survives_the_runtime_of_its_first_operation() {
    survives_the_runtime_of_its_first_operation(false);
}

#[test]
fn lax_survives_the_runtime_of_its_first_operation() {
    survives_the_runtime_of_its_first_operation(true);
}
