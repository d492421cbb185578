use super::fixture::{Fixture, Probe, key};
use crate::backend::{BackendError, ReplayGuard, Space, Write};

const SHARDS: u16 = 5;

fn shards(probe: &Probe, shards: u16) -> Vec<Probe> {
    let spaces = Space::shards_of(probe.space.prefix().clone(), shards);
    spaces.into_iter().map(|space| Probe { space, ..probe.clone() }).collect()
}

/// Rule 9: the shards of a prefix are spaces of their own, with guards of their own.
pub async fn shards_are_apart(fixture: &Fixture) {
    let shards = shards(&fixture.fresh(), SHARDS);
    let (hits, guard) = (key("hits"), shards[0].guard(1));
    for (probe, n) in shards.iter().zip(1..) {
        let applied = probe.send(&[Write::add(hits.clone(), n)], Some(&guard)).await;
        let written = applied.outcomes[0].as_ref().map(|written| (written.old, written.new));
        assert_eq!((applied.replayed, written), (false, Ok((0, n))), "{:?}", probe.space);
    }
    shards[2].clear().await;
    for (probe, n) in shards.iter().zip(1..) {
        let held = probe.read(std::slice::from_ref(&hits)).await;
        assert_eq!(held, [if n == 3 { 0 } else { n }], "{:?}", probe.space);
    }
}

/// Rule 9: a prefix has one number of shards, and what has another one writes nothing.
pub async fn another_number_of_shards_is_refused(fixture: &Fixture) {
    for (held, tried) in [(SHARDS, 1), (SHARDS, SHARDS + 2), (1, SHARDS)] {
        let fresh = fixture.fresh();
        let (hits, ours) = (key("hits"), shards(&fresh, held));
        for probe in &ours {
            probe.apply(&[Write::add(hits.clone(), 1)]).await;
        }
        for probe in shards(&fresh, tried) {
            let (backend, space) = (&probe.backend, &probe.space);
            let write = [Write::add(hits.clone(), 1)];
            let guard = ReplayGuard { writer: backend.fresh_id(), sequence: 1, resent: false };
            for refused in [
                backend.apply(space, &write, None).await.map(drop),
                backend.apply(space, &write, Some(&guard)).await.map(drop),
                backend.clear(space).await,
                backend.read(space, std::slice::from_ref(&hits)).await.map(drop),
            ] {
                let mismatch = matches!(refused, Err(BackendError::ShapeMismatch { .. }));
                assert!(mismatch, "{space:?} where there are {held} shards: {refused:?}");
            }
        }
        for probe in &ours {
            let held = probe.read(std::slice::from_ref(&hits)).await;
            assert_eq!(held, [1], "{:?} after others were refused", probe.space);
        }
    }
}
