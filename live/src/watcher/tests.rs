use distkit::backend::memory::{MemoryBackend, MemoryLink};

use super::*;
use crate::{connections::Connections, member::Identity, roster::Event};

const LEASE: Duration = Duration::from_secs(3);

fn key(name: &str) -> distkit::RedisKey {
    distkit::RedisKey::try_from(name).unwrap()
}

struct Process {
    link: MemoryLink,
    member: Arc<Member>,
    connections: Arc<Connections>,
}

impl Process {
    async fn start(store: &MemoryBackend, name: &str, stamp: i64) -> Self {
        let link = store.link();
        let identity = Identity { prefix: key("live"), name: key(name), lease: LEASE, stamp };
        let (member, connections) = Member::join(identity, link.clone()).await.unwrap();
        Self { link, member: Arc::new(member), connections: Arc::new(connections) }
    }

    async fn opens(&self, n: u32) {
        self.connections.simulate(n).unwrap();
        settle().await;
    }

    fn watcher(&self) -> Watcher {
        Watcher::new(Arc::clone(&self.member), Duration::from_millis(500))
    }
}

/// Longer than it takes to flush, shorter than a third of a lease.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(100)).await;
}

async fn past_the_lease() {
    // In steps, so that heartbeats run in between.
    tokio::time::sleep(LEASE + Duration::from_millis(100)).await;
}

/// The events of one poll, and the total.
async fn poll(watcher: &mut Watcher) -> (Vec<String>, Option<i64>) {
    watcher.poll().await.unwrap();
    let history = watcher.history.borrow();
    let latest = history.latest().unwrap();
    let text = |Event { kind, instance }: &Event| format!("{instance} {kind:?}");
    (latest.events.iter().map(text).collect(), latest.total)
}

fn events(texts: &[&str]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}

#[tokio::test(start_paused = true)]
async fn a_crash_is_an_expiry_and_a_new_process_of_the_name_a_return() {
    let store = MemoryBackend::new();
    let (a, b) = (Process::start(&store, "a", 1).await, Process::start(&store, "b", 2).await);
    a.opens(10).await;
    b.opens(20).await;
    let mut watcher = a.watcher();
    assert_eq!(poll(&mut watcher).await, (vec![], Some(30)));

    // A killed process does nothing from now on.
    b.link.cut();
    settle().await;
    assert_eq!(poll(&mut watcher).await, (vec![], Some(30)), "its lease still runs");
    past_the_lease().await;
    assert_eq!(poll(&mut watcher).await, (events(&["b Expired"]), Some(10)));
    assert_eq!(poll(&mut watcher).await, (vec![], Some(10)), "it is reported once");

    let b = Process::start(&store, "b", 3).await;
    assert_eq!(poll(&mut watcher).await, (events(&["b Returned"]), Some(10)));
    b.opens(5).await;
    assert_eq!(poll(&mut watcher).await, (vec![], Some(15)));
}

#[tokio::test(start_paused = true)]
async fn a_process_that_was_cut_off_returns_with_its_connections() {
    let store = MemoryBackend::new();
    let (a, b) = (Process::start(&store, "a", 1).await, Process::start(&store, "b", 2).await);
    b.opens(20).await;
    let mut watcher = a.watcher();
    poll(&mut watcher).await;
    b.link.cut();
    past_the_lease().await;
    assert_eq!(poll(&mut watcher).await, (events(&["b Expired"]), Some(0)));
    b.link.restore();
    past_the_lease().await;
    assert_eq!(poll(&mut watcher).await, (events(&["b Returned"]), Some(20)));
}

#[tokio::test(start_paused = true)]
async fn a_process_that_stops_in_good_order_has_left() {
    let store = MemoryBackend::new();
    let (a, b) = (Process::start(&store, "a", 1).await, Process::start(&store, "b", 2).await);
    b.opens(20).await;
    let mut watcher = a.watcher();
    assert_eq!(poll(&mut watcher).await, (vec![], Some(20)));
    b.member.leave(Duration::from_secs(1)).await.unwrap();
    assert_eq!(poll(&mut watcher).await, (events(&["b Left"]), Some(0)));

    // The record of that departure does not apply to its successor.
    let b = Process::start(&store, "b", 3).await;
    assert_eq!(poll(&mut watcher).await, (events(&["b Returned"]), Some(0)));
    b.link.cut();
    past_the_lease().await;
    assert_eq!(poll(&mut watcher).await, (events(&["b Expired"]), Some(0)));
}

#[tokio::test(start_paused = true)]
async fn an_instance_without_connections_is_alive() {
    let store = MemoryBackend::new();
    let (a, b) = (Process::start(&store, "a", 1).await, Process::start(&store, "b", 2).await);
    b.opens(20).await;
    let mut watcher = a.watcher();
    poll(&mut watcher).await;
    b.connections.close_simulated(u32::MAX).unwrap();
    settle().await;
    assert_eq!(poll(&mut watcher).await, (vec![], Some(0)));
    let history = watcher.history.borrow();
    assert_eq!(history.latest().unwrap().slices, [("a".into(), 0), ("b".into(), 0)].into());
}

#[tokio::test(start_paused = true)]
async fn a_successor_within_the_lease_is_a_restart() {
    let store = MemoryBackend::new();
    let (a, old) = (Process::start(&store, "a", 1).await, Process::start(&store, "b", 2).await);
    old.opens(20).await;
    let mut watcher = a.watcher();
    poll(&mut watcher).await;
    let new = Process::start(&store, "b", 3).await;
    new.opens(1).await;
    assert_eq!(poll(&mut watcher).await, (events(&["b Restarted"]), Some(1)));

    // If the old process is still alive, its watcher ends.
    let ended = old.watcher().poll().await.unwrap_err();
    assert!(matches!(ended, DistkitError::InstanceReplaced), "{ended}");
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_a_gap_and_expires_no_instance() {
    let store = MemoryBackend::new();
    let (a, b) = (Process::start(&store, "a", 1).await, Process::start(&store, "b", 2).await);
    b.opens(20).await;
    let mut watcher = a.watcher();
    poll(&mut watcher).await;
    a.link.cut();
    assert_eq!(poll(&mut watcher).await, (vec![], None));
    let error = watcher.history.borrow().latest().unwrap().error.clone();
    assert_eq!(
        error.as_deref(),
        Some("not applied: the store did not apply the request: the link is cut")
    );
    a.link.restore();
    assert_eq!(poll(&mut watcher).await, (vec![], Some(20)));
}

#[tokio::test(start_paused = true)]
async fn a_poll_of_a_store_that_hangs_times_out() {
    let store = MemoryBackend::new();
    let a = Process::start(&store, "a", 1).await;
    let mut watcher = a.watcher();
    a.link.set_latency(Duration::from_secs(3600));
    assert_eq!(poll(&mut watcher).await, (vec![], None));
    let error = watcher.history.borrow().latest().unwrap().error.clone();
    assert_eq!(error.as_deref(), Some("no answer within 2s"));
}

#[tokio::test(start_paused = true)]
async fn streams_are_counted_until_their_guards_are_dropped() {
    let store = MemoryBackend::new();
    let a = Process::start(&store, "a", 1).await;
    let mut watcher = a.watcher();
    let (one, two) = (a.connections.open().unwrap(), a.connections.open().unwrap());
    a.opens(3).await;
    assert_eq!(poll(&mut watcher).await.1, Some(5));
    drop(one);
    assert_eq!(a.connections.held().streams, 1);
    settle().await;
    assert_eq!(poll(&mut watcher).await.1, Some(4));
    // After the counter has left, closing a stream is fine and opening one is refused.
    a.member.leave(Duration::from_secs(1)).await.unwrap();
    drop(two);
    assert!(matches!(a.connections.open().unwrap_err(), DistkitError::ShutDown));
    assert_eq!(a.connections.held().streams, 0);
}
