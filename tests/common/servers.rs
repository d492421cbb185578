//! Servers that the tests of one binary share.

use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use distkit::{
    backend::{InstanceBackend, IntoBackend, Space},
    conformance::Fixture,
};
use distkit_testkit::{Cluster, Sentinels, Server, ServerBuilder};

/// A server that runs while a test holds it: a `static` of the server itself would never be dropped.
pub(crate) struct Shared<T>(Mutex<Weak<T>>);

impl<T> Shared<T> {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(Weak::new()))
    }

    /// The one that runs, or else a new one.
    pub(crate) fn get(&self, start: fn() -> T) -> Arc<T> {
        // A test that failed to start a server must not be what the others complain about.
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        running.upgrade().unwrap_or_else(|| {
            let started = Arc::new(start());
            *running = Arc::downgrade(&started);
            started
        })
    }
}

/// Something whose data a stranger can change.
pub(crate) trait Cli: Send + Sync + 'static {
    fn run(&self, args: &[&str]) -> String;
}

impl Cli for Server {
    fn run(&self, args: &[&str]) -> String {
        self.cli(args)
    }
}

impl Cli for Cluster {
    fn run(&self, args: &[&str]) -> String {
        self.cli(args)
    }
}

impl Cli for Sentinels {
    fn run(&self, args: &[&str]) -> String {
        // Who asks for it fails over nothing.
        self.servers()[0].cli(args)
    }
}

/// Deletes all names that begin with ARGV[1]. They share the slot of KEYS[1], and so its node.
const WIPE: &str = "for _, key in ipairs(redis.call('KEYS', '*')) do \
    if string.sub(key, 1, #ARGV[1]) == ARGV[1] then redis.call('DEL', key) end end return 'wiped'";

/// Tests `backend`, which `server` is behind.
pub(crate) fn fixture<S: Cli>(
    server: Arc<S>,
    backend: impl IntoBackend<dyn InstanceBackend>,
) -> Fixture {
    let (wiped, forgetful, tokenless, evicting) =
        (server.clone(), server.clone(), server.clone(), server.clone());
    let fixture = Fixture::new(backend).keep(server.clone()).wipe_with(move |space| {
        wipe(&*wiped, &space);
        async {}
    });
    fixture
        .lose_records_with(move |space| {
            forget(&*forgetful, &space);
            async {}
        })
        .lose_tokens_with(move |space| {
            let names = format!("distkit:{{{}}}:tok", space.prefix());
            assert_eq!(tokenless.run(&["EVAL", WIPE, "1", &names, &names]), "wiped");
            async {}
        })
        .plant_with(move |space, key, text| {
            let answer = server.run(&["HSET", &totals(&space), &key, &text]);
            assert!(matches!(&*answer, "0" | "1"), "planting {text:?}: {answer}");
            async {}
        })
        .lose_window_with(move |space| {
            let window = space.window().unwrap();
            let length = window.windows().length().as_millis();
            let start = window.start().as_millis();
            // The documented name, with any offset.
            let offset = start % length;
            let name = format!("distkit:{{{}}}:w:{length}.{offset}:{start}", space.prefix());
            assert_eq!(evicting.run(&["DEL", &name]), "1", "{name}");
            async {}
        })
        .without_a_clock()
        .without_stepping_back()
}

/// A server of one test's own, whose clock the suite may move: it lets a day pass, which no other test
/// beside it would survive.
pub(crate) fn clocked(builder: ServerBuilder) -> Arc<Server> {
    Arc::new(builder.manual_clock().start())
}

/// As [`fixture`], with the hand on the server's clock.
pub(crate) fn clocked_fixture(
    server: Arc<Server>,
    backend: impl IntoBackend<dyn InstanceBackend>,
) -> Fixture {
    let (clock, wiped, forgetful, tokenless) =
        (server.clone(), server.clone(), server.clone(), server.clone());
    let stepping = server.clone();
    let fixture = fixture(server, backend)
        .advance_with(move |step| clock.advance(step))
        .step_back_with(move |step| stepping.go_back(step));
    // A hash that is made again is told from the one before by the time.
    let fixture = fixture.lose_records_with(move |space| {
        forget(&*forgetful, &space);
        forgetful.advance(Duration::from_secs(1));
        async {}
    });
    let fixture = fixture.lose_tokens_with(move |space| {
        let names = format!("distkit:{{{}}}:tok", space.prefix());
        assert_eq!(tokenless.run(&["EVAL", WIPE, "1", &names, &names]), "wiped");
        tokenless.advance(Duration::from_secs(1));
        async {}
    });
    fixture.wipe_with(move |space| {
        wipe(&*wiped, &space);
        // As a restart does. That time has passed is all that an empty server knows of what was before.
        wiped.advance(Duration::from_secs(1));
        async {}
    })
}

fn wipe(server: &impl Cli, space: &Space) {
    let names = instances(space);
    assert_eq!(server.run(&["EVAL", WIPE, "1", &names, &names]), "wiped");
}

/// Loses the records of the space's writers.
fn forget(server: &impl Cli, space: &Space) {
    server.run(&["DEL", &format!("distkit:{{{}}}:writers", space.prefix())]);
}

/// What all names of a space's instance-aware counters begin with.
fn instances(space: &Space) -> String {
    format!("distkit:{{{}}}:i:", space.prefix())
}

/// The documented name of the hash of a space's plain counters. The suite plants under prefixes of
/// which nothing needs to be encoded.
fn totals(space: &Space) -> String {
    format!("distkit:{{{}}}:totals", space.prefix())
}
