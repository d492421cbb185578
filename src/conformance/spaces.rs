use super::fixture::{Fixture, check_values, key};
use crate::{
    RedisKey,
    backend::{ReplayGuard, Write},
};

/// Names that mean something to a shell, a pattern, a hash tag, a protocol, a script or a key layout.
const NAMES: [&str; 51] = [
    "a\0",
    "a\0b",
    "a\n",
    "a",
    "aa",
    "ab",
    "A",
    "0",
    "1",
    "-1",
    "01",
    "{",
    "}",
    "{}",
    "}{",
    "{a}",
    "{a",
    "a}",
    "a{b}c",
    "{a}{b}",
    "{{a}}",
    "%",
    "%%",
    "%7B",
    "%25",
    "%s",
    "%3A",
    " ",
    "  ",
    "a b",
    "\t",
    "\r\n",
    "\0",
    "*",
    "?",
    "[a]",
    "[^a]",
    "\\",
    "\"",
    "'",
    "$1",
    "/",
    ".",
    ",",
    "#",
    "\u{fc}",
    "u\u{308}",
    "\u{65e5}\u{672c}",
    "\u{1f980}",
    "\u{feff}",
    "nil",
];

/// Keys that are easily mistaken for one another, the longest ones included.
pub(super) fn awkward_keys() -> Vec<RedisKey> {
    let mut all: Vec<_> = NAMES.iter().map(|name| key(name)).collect();
    for name in ["plain", "counter", "counters", "guard", "guards", "writer", "replay", "total"] {
        all.push(key(name));
    }
    for character in ["x", "{", "%", "\u{fc}", "\u{1f980}"] {
        all.push(key(&character.repeat(RedisKey::MAX_CHARS)));
        all.push(key(&character.repeat(RedisKey::MAX_CHARS - 1)));
    }
    all
}

/// Prefixes that are easily mistaken for one another. All contain `id`, so that nobody else uses them.
fn awkward_prefixes(id: &str) -> Vec<String> {
    let mut all = vec![id.to_owned(), format!("{id}{id}")];
    for name in NAMES {
        all.extend([format!("{id}{name}"), format!("{name}{id}")]);
    }
    all.push(format!("{{{id}}}"));
    all.push(format!("a{{{id}}}c"));
    for character in ["x", "{", "%", "\u{fc}", "\u{1f980}"] {
        let room = RedisKey::MAX_CHARS - id.chars().count();
        all.push(format!("{id}{}", character.repeat(room)));
        all.push(format!("{id}{}", character.repeat(room - 1)));
    }
    all
}

/// Rule 9: any valid key works, and no key is taken for another.
pub async fn any_key_works(fixture: &Fixture) {
    let probe = fixture.fresh();
    let all = awkward_keys();
    let values: Vec<i64> = (1..).take(all.len()).collect();
    let adds: Vec<_> =
        all.iter().zip(&values).map(|(key, value)| Write::add(key.clone(), *value)).collect();
    probe.apply(&adds).await;
    check_values("read", &all, &probe.read(&all).await, &values);

    // Each alone, which a store may do in another way, and under a guard.
    let mut guard = probe.guard(0);
    for (key, value) in all.iter().zip(&values) {
        let written = probe.write(Write::add(key.clone(), 1000)).await;
        assert_eq!((written.old, written.new), (*value, value + 1000), "addition to {key:?}");
        guard.sequence += 1;
        let guarded = probe.send(&[Write::add(key.clone(), 1000)], Some(&guard)).await;
        assert_eq!(guarded.outcomes[0].as_ref().map(|w| w.new), Ok(value + 2000), "{key:?}");
    }
    for (i, key) in all.iter().enumerate() {
        let held = probe.remove(std::slice::from_ref(key)).await;
        assert_eq!(held, [values[i] + 2000], "removal of {key:?}");
        let left = probe.read(&all[i + 1..]).await;
        let expected: Vec<_> = values[i + 1..].iter().map(|value| value + 2000).collect();
        let what = format!("a removal of {key:?} reached");
        check_values(&what, &all[i + 1..], &left, &expected);
    }
}

/// Rule 9: any valid prefix works, with every kind of call, and none reaches into another.
pub async fn any_prefix_works_and_none_reaches_into_another(fixture: &Fixture) {
    let id = fixture.fresh_name();
    let probes: Vec<_> = awkward_prefixes(&id).iter().map(|prefix| fixture.probe(prefix)).collect();
    // The keys are such that prefix and key joined with nothing in between would collide.
    let mut all = vec![key("a"), key("aa"), key("{a}"), key("%"), key(&id)];
    all.push(key(&"z".repeat(RedisKey::MAX_CHARS)));
    let values = |space: usize| -> Vec<i64> {
        (0..all.len()).map(|i| (space * 100 + i + 1) as i64).collect()
    };
    for (space, probe) in probes.iter().enumerate() {
        let prefix = probe.space.prefix();
        let adds: Vec<_> = all
            .iter()
            .zip(values(space))
            .map(|(key, value)| Write::add(key.clone(), value))
            .collect();
        let guard = ReplayGuard { writer: probe.backend.fresh_id(), sequence: 1, resent: false };
        let applied = probe.send(&adds, Some(&guard)).await;
        for (outcome, value) in applied.outcomes.iter().zip(values(space)) {
            let new = outcome.as_ref().map(|w| (w.old, w.new));
            assert_eq!(new, Ok((0, value)), "under the prefix {prefix:?}");
        }
        assert!(
            probe.send(&adds, Some(&guard)).await.replayed,
            "under the prefix {prefix:?} a guard was not recognised"
        );
        let written = probe.write(Write::add(all[0].clone(), 0)).await;
        assert_eq!(written.new, values(space)[0], "under the prefix {prefix:?}");
    }
    for (space, probe) in probes.iter().enumerate() {
        let what = format!("read under the prefix {:?}", probe.space.prefix());
        check_values(&what, &all, &probe.read(&all).await, &values(space));
    }
    for (space, probe) in probes.iter().enumerate() {
        let prefix = probe.space.prefix();
        let held = probe.remove(std::slice::from_ref(&all[0])).await;
        assert_eq!(held, [values(space)[0]], "removal under the prefix {prefix:?}");
        probe.clear().await;
        assert_eq!(probe.read(&all).await, vec![0; all.len()], "after a clear of {prefix:?}");
        if let Some(next) = probes.get(space + 1) {
            let what = format!("a clear of {prefix:?} reached into {:?}", next.space.prefix());
            check_values(&what, &all, &next.read(&all).await, &values(space + 1));
        }
    }
}
