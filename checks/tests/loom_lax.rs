//! Every interleaving of callers and committer on one key's numbers.
//!
//! loom knows nothing of sequential consistency beyond read-modify-write operations, which it lets see
//! the latest value. The tally does everything with `SeqCst`, so here a load is such an operation, too:
//! that is the same order as the real one.
#![allow(dead_code, reason = "the included file has more than the model needs")]

mod atomic {
    pub(crate) use loom::sync::atomic::Ordering;

    pub(crate) struct AtomicI64(loom::sync::atomic::AtomicI64);

    impl AtomicI64 {
        pub(crate) fn new(n: i64) -> Self {
            Self(loom::sync::atomic::AtomicI64::new(n))
        }
        pub(crate) fn load(&self, order: Ordering) -> i64 {
            self.0.fetch_add(0, order)
        }
        pub(crate) fn store(&self, n: i64, order: Ordering) {
            self.0.swap(n, order);
        }
        pub(crate) fn fetch_add(&self, n: i64, order: Ordering) -> i64 {
            self.0.fetch_add(n, order)
        }
        pub(crate) fn fetch_sub(&self, n: i64, order: Ordering) -> i64 {
            self.0.fetch_sub(n, order)
        }
        pub(crate) fn compare_exchange(
            &self,
            current: i64,
            new: i64,
            success: Ordering,
            failure: Ordering,
        ) -> Result<i64, i64> {
            self.0.compare_exchange(current, new, success, failure)
        }
    }

    pub(crate) struct AtomicBool(loom::sync::atomic::AtomicBool);

    impl AtomicBool {
        pub(crate) fn new(b: bool) -> Self {
            Self(loom::sync::atomic::AtomicBool::new(b))
        }
        pub(crate) fn load(&self, order: Ordering) -> bool {
            self.0.fetch_or(false, order)
        }
        pub(crate) fn swap(&self, b: bool, order: Ordering) -> bool {
            self.0.swap(b, order)
        }
    }
}

#[path = "../../src/lax/tally.rs"]
mod tally;

use loom::{
    sync::{Arc, Mutex},
    thread,
};

use tally::Tally;

struct Model {
    tally: Tally,
    /// How often the tally is on the list of what to commit.
    listed: Mutex<u32>,
}

impl Model {
    fn new() -> Arc<Self> {
        Arc::new(Self { tally: Tally::new(()), listed: Mutex::new(0) })
    }

    fn inc(&self, count: i64) -> i64 {
        let sum = self.tally.add_fast(count).unwrap();
        if self.tally.mark() {
            *self.listed.lock().unwrap() += 1;
        }
        sum
    }

    /// A flush, if there is something on the list. `store` is what the store holds.
    fn flush(&self, store: &mut i64) {
        let listed = std::mem::take(&mut *self.listed.lock().unwrap());
        if listed > 0 {
            let taken = self.tally.take();
            *store += taken;
            self.tally.settle(taken, *store);
        }
    }
}

#[test]
fn nothing_is_lost_or_counted_twice() {
    // Three threads: bounded, or it takes most of a minute unoptimized. Unbounded it passes, too.
    let mut bounded = loom::model::Builder::new();
    bounded.preemption_bound = Some(3);
    bounded.check(|| {
        let model = Model::new();
        let adders: Vec<_> = [1, 2]
            .map(|count| {
                let model = Arc::clone(&model);
                thread::spawn(move || model.inc(count))
            })
            .into();
        let mut store = 0;
        model.flush(&mut store);
        for adder in adders {
            assert!(adder.join().unwrap() > 0);
        }
        model.flush(&mut store);
        assert_eq!(store, 3);
        assert_eq!((model.tally.estimate(), model.tally.pending()), (3, 0));
    });
}

#[test]
fn reads_do_not_go_back_while_others_add() {
    loom::model(|| {
        let model = Model::new();
        let caller = {
            let model = Arc::clone(&model);
            thread::spawn(move || {
                let first = model.inc(1);
                let second = model.tally.estimate();
                let third = model.tally.estimate();
                assert!(
                    1 <= first && first <= second && second <= third,
                    "{first} {second} {third}"
                );
            })
        };
        // Another process had added before this one's flush.
        let mut store = 10;
        model.flush(&mut store);
        caller.join().unwrap();
        model.flush(&mut store);
        assert_eq!((store, model.tally.estimate()), (11, 11));
    });
}

#[test]
fn a_refresh_keeps_what_is_pending() {
    loom::model(|| {
        let model = Model::new();
        let caller = {
            let model = Arc::clone(&model);
            thread::spawn(move || model.inc(1))
        };
        model.tally.settle(0, 10);
        caller.join().unwrap();
        let mut store = 10;
        model.flush(&mut store);
        assert_eq!((store, model.tally.estimate(), model.tally.pending()), (11, 11, 0));
    });
}

#[test]
fn a_set_leaves_what_comes_after_it() {
    loom::model(|| {
        let model = Model::new();
        model.inc(5);
        let caller = {
            let model = Arc::clone(&model);
            thread::spawn(move || model.inc(1))
        };
        let absorbed = model.tally.pending();
        let mut store = 100;
        model.tally.settle(absorbed, store);
        caller.join().unwrap();
        model.flush(&mut store);
        assert_eq!(store, 106 - absorbed, "the racing addition comes before or after");
        assert_eq!(model.tally.pending(), 0);
    });
}

#[test]
fn only_one_caller_hands_a_tally_to_the_committer() {
    loom::model(|| {
        let model = Model::new();
        let other = {
            let model = Arc::clone(&model);
            thread::spawn(move || model.tally.mark())
        };
        let handed = [model.tally.mark(), other.join().unwrap()];
        assert_ne!(handed[0], handed[1]);
    });
}
