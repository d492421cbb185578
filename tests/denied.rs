//! Servers that deny one command: "not applied" must be true, and what is sent again must count once.
#![cfg(all(
    feature = "counter",
    feature = "instance-aware-counter",
    feature = "redis-rs",
    feature = "fred"
))]
#![allow(clippy::unwrap_used)] // Clippy takes only the functions marked as tests for tests.

use std::time::Duration;

use distkit::{
    CounterComparator, DistkitError, RedisKey,
    backend::connect,
    counter::{CounterOptions, CounterTrait, LaxCounter, StrictCounter},
    icounter::{
        InstanceAwareCounterTrait, LaxInstanceAwareCounter, LaxInstanceAwareCounterOptions,
        StrictInstanceAwareCounter, StrictInstanceAwareCounterOptions,
    },
};
use distkit_testkit::Server;
use tokio::time::{Instant, sleep, timeout};

const DEADLINE: Duration = Duration::from_secs(20);

/// Every command that a script or a store of ours uses.
const COMMANDS: [&str; 37] = [
    "eval",
    "evalsha",
    "hget",
    "hmget",
    "hset",
    "hdel",
    "hincrby",
    "hgetall",
    "hkeys",
    "hlen",
    "hexists",
    "hrandfield",
    "exists",
    "unlink",
    "del",
    "time",
    "get",
    "set",
    "pttl",
    "pexpire",
    "incr",
    "sadd",
    "srem",
    "spop",
    "zadd",
    "zrem",
    "zscore",
    "zrange",
    "zrangebyscore",
    "zcard",
    "rename",
    "client",
    "hscan",
    "hsetnx",
    "sismember",
    "scard",
    OOM,
];

/// Not a command: the server has no memory left.
const OOM: &str = "(out of memory)";

fn key(name: &str) -> RedisKey {
    RedisKey::try_from(name).unwrap()
}

/// Calls that change a counter by a known amount, or set it.
#[derive(Debug, Clone, Copy)]
enum Call {
    Inc,
    IncIf,
    Set,
    SetIf,
    IncAll,
    SetAll,
    Del,
}

const CALLS: [Call; 7] =
    [Call::Inc, Call::IncIf, Call::Set, Call::SetIf, Call::IncAll, Call::SetAll, Call::Del];

type Item<K, T> = (K, Result<T, DistkitError>);

/// The outcomes of a batch, item by item where it has them.
fn each<K, T>(answer: Result<Vec<Item<K, T>>, DistkitError>) -> Vec<Result<(), DistkitError>> {
    match answer {
        Ok(items) => items.into_iter().map(|(_, outcome)| outcome.map(drop)).collect(),
        Err(error) => vec![Err(error)],
    }
}

impl Call {
    /// What the counters `a` and `b` hold after it, of what they held before.
    fn after(self, [a, b]: [i64; 2]) -> [i64; 2] {
        match self {
            Self::Inc | Self::IncIf => [a + 3, b],
            Self::Set | Self::SetIf => [50, b],
            Self::IncAll => [a + 3, b + 4],
            Self::SetAll => [50, 60],
            Self::Del => [0, b],
        }
    }

    /// The outcomes, as far as they are about something.
    async fn plain(self, counter: &StrictCounter) -> Vec<Result<(), DistkitError>> {
        let (a, b) = (key("a"), key("b"));
        let always = CounterComparator::Gt(-1);
        match self {
            Self::Inc => vec![counter.inc(&a, 3).await.map(drop)],
            Self::IncIf => vec![counter.inc_if(&a, always, 3).await.map(drop)],
            Self::Set => vec![counter.set(&a, 50).await.map(drop)],
            Self::SetIf => vec![counter.set_if(&a, always, 50).await.map(drop)],
            Self::IncAll => each(counter.inc_all(&[(&a, 3), (&b, 4)]).await),
            Self::SetAll => each(counter.set_all(&[(&a, 50), (&b, 60)]).await),
            Self::Del => vec![counter.del(&a).await.map(drop)],
        }
    }

    async fn shared(self, counter: &StrictInstanceAwareCounter) -> Vec<Result<(), DistkitError>> {
        let (a, b) = (key("a"), key("b"));
        let always = CounterComparator::Gt(-1);
        match self {
            Self::Inc => vec![counter.inc(&a, 3).await.map(drop)],
            Self::IncIf => vec![counter.inc_if(&a, always, 3).await.map(drop)],
            Self::Set => vec![counter.set(&a, 50).await.map(drop)],
            Self::SetIf => vec![counter.set_if(&a, always, 50).await.map(drop)],
            Self::IncAll => each(counter.inc_all(&[(&a, 3), (&b, 4)]).await),
            Self::SetAll => each(counter.set_all(&[(&a, 50), (&b, 60)]).await),
            Self::Del => vec![counter.del(&a).await.map(drop)],
        }
    }
}

/// A server, and counters on it of a user whose rights change while they run.
struct Bed {
    server: Server,
    url: String,
}

impl Bed {
    fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for start in [Server::redis, Server::valkey] {
            for client in ["redis", "redis+fred"] {
                let server = start().start();
                server.cli(&["ACL", "SETUSER", "app", "on", ">pass", "~*", "+@all"]);
                let url = format!("{client}://app:pass@127.0.0.1:{}", server.port());
                all.push(Self { server, url });
            }
        }
        all
    }

    fn allow(&self, command: &str, allowed: bool) {
        if command == OOM {
            let limit = if allowed { "0" } else { "1" };
            assert_eq!(self.server.cli(&["CONFIG", "SET", "maxmemory", limit]), "OK");
            return;
        }
        let rule = format!("{}{command}", if allowed { '+' } else { '-' });
        assert_eq!(self.server.cli(&["ACL", "SETUSER", "app", &rule]), "OK");
    }
}

fn judge(
    what: &str,
    call: Call,
    before: [i64; 2],
    after: [i64; 2],
    told: &[Result<(), DistkitError>],
) {
    let unknown = told.iter().any(|told| told.as_ref().is_err_and(DistkitError::may_have_happened));
    if told.iter().all(Result::is_ok) {
        assert_eq!(after, call.after(before), "{what}: {call:?} was acknowledged");
    } else if !unknown && told.iter().all(Result::is_err) {
        assert_eq!(after, before, "{what}: {call:?} was told {told:?}");
    }
}

#[tokio::test]
async fn strict_counters_tell_the_truth() {
    for bed in Bed::all() {
        let options = CounterOptions::new(key("plain"), connect(&bed.url).await.unwrap());
        let counter = StrictCounter::new(options);
        let values = async || {
            let (a, b) = (key("a"), key("b"));
            [counter.get(&a).await.unwrap(), counter.get(&b).await.unwrap()]
        };
        for denied in COMMANDS {
            for call in CALLS {
                for start in [[10, 20], [1 << 60, 20]] {
                    let (a, b) = (key("a"), key("b"));
                    counter.set(&a, start[0]).await.unwrap();
                    counter.set(&b, start[1]).await.unwrap();
                    bed.allow(denied, false);
                    let told = call.plain(&counter).await;
                    bed.allow(denied, true);
                    let what = format!("{} without {denied}", bed.url);
                    judge(&what, call, start, values().await, &told);
                }
            }
        }
    }
}

#[tokio::test]
async fn strict_instance_aware_counters_tell_the_truth() {
    for bed in Bed::all() {
        let store = connect(&bed.url).await.unwrap();
        let counters = [0, 1].map(|_| {
            let options = StrictInstanceAwareCounterOptions::new(key("shared"), store.clone());
            StrictInstanceAwareCounter::new(options)
        });
        let [counter, other] = &counters;
        for denied in COMMANDS {
            for call in CALLS {
                for start in [[10, 20], [1 << 52, 20]] {
                    let (a, b) = (key("a"), key("b"));
                    counter.set(&a, start[0] - 2).await.unwrap();
                    counter.del(&b).await.unwrap();
                    counter.inc(&b, start[1] - 2).await.unwrap();
                    other.inc(&a, 2).await.unwrap();
                    other.inc(&b, 2).await.unwrap();
                    bed.allow(denied, false);
                    let told = call.shared(counter).await;
                    bed.allow(denied, true);
                    let after = [other.get(&a).await.unwrap().0, other.get(&b).await.unwrap().0];
                    let what = format!("{} without {denied}", bed.url);
                    judge(&what, call, start, after, &told);
                    let mut sum = [0; 2];
                    for (sum, k) in sum.iter_mut().zip([&a, &b]) {
                        let slices = other.slices(k).await.unwrap();
                        *sum = slices.iter().map(|slice| slice.value).sum();
                    }
                    assert_eq!(sum, after, "{what}: {call:?}: the slices make up the total");
                }
            }
        }
    }
}

#[tokio::test]
async fn lax_counters_count_once() {
    for bed in Bed::all() {
        let store = connect(&bed.url).await.unwrap();
        for denied in COMMANDS {
            let prefix = key(&format!("lax {denied}"));
            let plain = LaxCounter::new(CounterOptions::new(prefix.clone(), store.clone()));
            let shared = LaxInstanceAwareCounter::new(LaxInstanceAwareCounterOptions::new(
                prefix.clone(),
                store.clone(),
            ));
            let exact = StrictCounter::new(CounterOptions::new(prefix.clone(), store.clone()));
            let other = StrictInstanceAwareCounter::new(StrictInstanceAwareCounterOptions::new(
                prefix,
                store.clone(),
            ));
            let (a, b) = (key("a"), key("b"));
            // One is known to the store, and one is new.
            plain.inc(&a, 1).await.unwrap();
            plain.inc(&b, 0).await.unwrap();
            shared.inc(&a, 1).await.unwrap();
            shared.inc(&b, 0).await.unwrap();
            plain.flush().await.unwrap();
            shared.flush().await.unwrap();
            bed.allow(denied, false);
            for k in [&a, &b] {
                plain.inc(k, 2).await.unwrap();
                shared.inc(k, 2).await.unwrap();
            }
            for _ in 0..3 {
                let _ = plain.flush().await;
                let _ = shared.flush().await;
            }
            bed.allow(denied, true);
            let deadline = Instant::now() + DEADLINE;
            while plain.flush().await.is_err() || shared.flush().await.is_err() {
                assert!(Instant::now() < deadline, "no flush after {denied} was denied");
                sleep(Duration::from_millis(20)).await;
            }
            let what = format!("{}, {denied} was denied", bed.url);
            for (k, total) in [(&a, 3), (&b, 2)] {
                assert_eq!(exact.get(k).await.unwrap(), total, "{what}, plain {k:?}");
                assert_eq!(other.get(k).await.unwrap().0, total, "{what}, shared {k:?}");
            }
        }
    }
}

/// What the page about production lists is enough for everything, on keys of the crate alone.
#[tokio::test]
async fn the_documented_rights_suffice() {
    let page = include_str!("../docs/production.md");
    let start = page.find("ACL SETUSER").expect("a list of rights");
    let line = page[start..].lines().next().unwrap();
    let rights: Vec<&str> = line.split_whitespace().skip(3).collect();
    for start in [Server::redis, Server::valkey] {
        for client in ["redis", "redis+fred"] {
            let server = start().start();
            let rule = [&["ACL", "SETUSER", "app"][..], &rights].concat();
            assert_eq!(server.cli(&rule), "OK", "{rule:?}");
            assert_eq!(server.cli(&["ACL", "SETUSER", "app", ">pass"]), "OK");
            let url = format!("{client}://app:pass@127.0.0.1:{}", server.port());
            let store = connect(&url).await.unwrap();
            let options = CounterOptions::new(key("p"), store.clone());
            let (strict, lax) = (StrictCounter::new(options.clone()), LaxCounter::new(options));
            let shared = StrictInstanceAwareCounter::new(StrictInstanceAwareCounterOptions::new(
                key("p"),
                store.clone(),
            ));
            let shared_lax = LaxInstanceAwareCounter::new(LaxInstanceAwareCounterOptions::new(
                key("p"),
                store.clone(),
            ));
            let k = key("k");
            for call in CALLS {
                let told = [call.plain(&strict).await, call.shared(&shared).await].concat_all();
                told.into_iter().for_each(|told| told.unwrap());
            }
            lax.inc(&k, 1).await.unwrap();
            lax.flush().await.unwrap();
            shared_lax.inc(&k, 1).await.unwrap();
            shared_lax.flush().await.unwrap();
            shared.inc(&k, 5).await.unwrap();
            shared.slices(&k).await.unwrap();
            shared.set_on_instance(&k, 0).await.unwrap();
            shared.clear_on_instance().await.unwrap();
            shared.clear().await.unwrap();
            strict.clear().await.unwrap();
            shared.leave().await.unwrap();
            assert_eq!(strict.get_all(&[&k]).await.unwrap()[0].1.as_ref().unwrap(), &0);
            // Which version of which client this is may stay unsaid, and the eviction policy unasked.
            let optional = ["client|setinfo", "config|get"];
            let log = server.cli(&["ACL", "LOG"]);
            let lines: Vec<&str> = log.lines().collect();
            let objects = lines.windows(2).filter(|pair| pair[0] == "object").map(|pair| pair[1]);
            let denied: Vec<&str> = objects.filter(|object| !optional.contains(object)).collect();
            assert!(denied.is_empty(), "{url}: {denied:?}");
        }
    }
}

trait ConcatAll<T> {
    fn concat_all(self) -> Vec<T>;
}

impl<T> ConcatAll<T> for [Vec<T>; 2] {
    fn concat_all(self) -> Vec<T> {
        self.into_iter().flatten().collect()
    }
}

/// A total that a number of Lua's cannot hold exactly is read back, and this user may not: the server never has an
/// answer, so the call does not wait for one.
#[tokio::test]
async fn an_answer_that_the_server_cannot_give_is_not_waited_for() {
    for bed in Bed::all() {
        let options = CounterOptions::new(key("soon"), connect(&bed.url).await.unwrap());
        let counter = StrictCounter::new(options.unknown_after(Duration::from_secs(1800)));
        let big = key("big");
        counter.set(&big, 1 << 60).await.unwrap();
        bed.allow("hget", false);
        let error = timeout(DEADLINE, counter.inc(&big, 1)).await.unwrap().unwrap_err();
        bed.allow("hget", true);
        assert!(error.may_have_happened(), "{error:?}");
        assert_eq!(counter.get(&big).await.unwrap(), (1 << 60) + 1);
    }
}
