//! Servers whose clock steps, back or forward.
#![cfg(all(feature = "instance-aware-counter", feature = "redis-rs", feature = "fred"))]
#![allow(clippy::unwrap_used)] // Clippy takes only the functions marked as tests for tests.

use std::{sync::Arc, time::Duration};

use distkit::{
    CounterComparator, RedisKey,
    backend::{
        Instance, Joined, Member, Slice, SliceChange, SliceWrite, Space, Standing, Store, connect,
    },
};
use distkit_testkit::Server;

const LEASE: Duration = Duration::from_secs(10);
const HOUR: Duration = Duration::from_secs(3600);

fn key(name: &str) -> RedisKey {
    RedisKey::try_from(name).unwrap()
}

struct Bed {
    server: Server,
    store: Arc<dyn Store>,
    space: Space,
}

impl Bed {
    async fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for start in [Server::redis, Server::valkey] {
            for client in ["redis", "redis+fred"] {
                let server = start().manual_clock().start();
                let url = server.url().replacen("redis", client, 1);
                let store = connect(&url).await.unwrap();
                all.push(Self { server, store, space: Space::new(key("rooms")) });
            }
        }
        all
    }

    async fn join(&self, claims: &[Slice]) -> (Member, Joined) {
        let id = self.store.fresh_id();
        let instance = Instance::new(id, LEASE);
        let joined = self.store.join(&self.space, &instance, claims).await.unwrap();
        (Member { incarnation: joined.incarnation, lease: LEASE }, joined)
    }

    async fn add(&self, member: &Member, count: i64) -> Standing {
        let change = SliceChange::Add(count);
        let write = SliceWrite { key: key("k"), change, condition: CounterComparator::Nil };
        let answer = self.store.apply_on(&self.space, member, &[write], None).await.unwrap();
        answer.answer.outcomes[0].clone().unwrap().new
    }
}

#[tokio::test]
async fn a_step_back_keeps_no_slice_for_longer_than_a_lease() {
    for bed in Bed::all().await {
        let (crashed, _) = bed.join(&[]).await;
        let (living, _) = bed.join(&[]).await;
        bed.add(&crashed, 5).await;
        bed.add(&living, 1).await;
        bed.server.go_back(HOUR);
        // Within a third of a lease a living instance sends a heartbeat.
        bed.store.heartbeat(&bed.space, &living).await.unwrap();
        bed.server.advance(LEASE / 2);
        bed.store.heartbeat(&bed.space, &living).await.unwrap();
        assert_eq!(bed.add(&living, 0).await.total, 6, "its lease runs");
        bed.server.advance(LEASE / 2);
        bed.store.heartbeat(&bed.space, &living).await.unwrap();
        assert_eq!(bed.add(&living, 0).await.total, 1, "its lease is over");
    }
}

#[tokio::test]
async fn a_step_back_is_found_by_a_join_alone() {
    for bed in Bed::all().await {
        let (crashed, _) = bed.join(&[]).await;
        bed.add(&crashed, 5).await;
        bed.server.go_back(HOUR);
        let (late, _) = bed.join(&[]).await;
        bed.server.advance(LEASE / 2);
        bed.store.heartbeat(&bed.space, &late).await.unwrap();
        bed.server.advance(LEASE / 2);
        bed.store.heartbeat(&bed.space, &late).await.unwrap();
        assert_eq!(bed.add(&late, 1).await.total, 1);
    }
}

#[tokio::test]
async fn after_a_step_forward_instances_join_anew_with_their_slices() {
    for bed in Bed::all().await {
        let (first, _) = bed.join(&[]).await;
        let (second, _) = bed.join(&[]).await;
        let standing = bed.add(&first, 5).await;
        bed.add(&second, 1).await;
        bed.server.advance(HOUR);
        assert_eq!(
            bed.add(&second, 0).await.total,
            1,
            "the first to operate takes the other for expired"
        );
        assert!(bed.store.heartbeat(&bed.space, &first).await.is_err());
        let claim = Slice { key: key("k"), epoch: standing.epoch, value: 5 };
        let (again, joined) = bed.join(&[claim]).await;
        assert_eq!(joined.standings[0].as_ref().unwrap().total, 6);
        assert_eq!(bed.add(&again, 0).await.total, 6);
    }
}
