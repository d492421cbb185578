//! Rules 40 to 45: plain counters in windows of time.

use std::time::Duration;

use tokio::task::JoinSet;

use super::{
    fixture::{Fixture, Probe, check, check_values, kept, key, wrote},
    guest::ok,
};
use crate::{
    CounterComparator::{Ge, Lt},
    KeyFilter, RedisKey, Window, Windows,
    backend::{
        Applied, BackendError, Enumeration, RecordedAnswers, Refusal, ReplayGuard, Space,
        Windowing, Write,
    },
};

const HOUR: Duration = Duration::from_secs(3600);

fn windowing(probe: &Probe) -> &dyn Windowing {
    probe.backend.capabilities().windows.expect("the store has the capability `windows`")
}

fn recorded(probe: &Probe) -> &dyn RecordedAnswers {
    probe.backend.capabilities().recorded.expect("the store has the capability `recorded`")
}

fn enumeration(probe: &Probe) -> &dyn Enumeration {
    probe.backend.capabilities().enumeration.expect("the store has the capability `enumeration`")
}

async fn now(probe: &Probe) -> Duration {
    ok("time", windowing(probe).time(&probe.space).await)
}

/// Windows of an hour in whose middle the store is, so that no test is overtaken by the end of one.
async fn hours(probe: &Probe) -> Windows {
    Windows::every(HOUR).offset(now(probe).await + HOUR / 2)
}

/// The probe's space in the window.
fn within(probe: &Probe, window: Window) -> Probe {
    Probe { space: probe.space.in_window(window), ..probe.clone() }
}

/// In the current one of these windows.
async fn current(probe: &Probe, windows: Windows) -> Probe {
    within(probe, windows.at(now(probe).await))
}

fn window(probe: &Probe) -> Window {
    probe.space.window().expect("a probe of a window")
}

async fn add(probe: &Probe, name: &str, count: i64) -> i64 {
    probe.write(Write::add(key(name), count)).await.new
}

async fn total(probe: &Probe, name: &str) -> i64 {
    probe.total(&key(name)).await
}

async fn names(probe: &Probe) -> Vec<String> {
    let page = enumeration(probe).page(&probe.space, None, &KeyFilter::all(), 500).await;
    let page = ok("page", page);
    assert_eq!((page.next, page.foreign), (None, vec![]), "the page of a small window");
    let mut names: Vec<_> = page.entries.iter().map(|(key, _)| key.to_string()).collect();
    names.sort();
    let count = ok("count", enumeration(probe).count(&probe.space).await);
    assert_eq!(count, names.len() as u64, "the number of counters");
    names
}

async fn late(probe: &Probe, count: i64) -> Result<Applied, BackendError> {
    late_under(probe, count, &probe.guard(1)).await
}

async fn late_under(
    probe: &Probe,
    count: i64,
    guard: &ReplayGuard,
) -> Result<Applied, BackendError> {
    probe.backend.apply(&probe.space, &[Write::add(key("hits"), count)], Some(guard)).await
}

#[track_caller]
fn closed<T: std::fmt::Debug>(what: &str, answer: Result<T, BackendError>) {
    assert!(matches!(answer, Err(BackendError::WindowClosed)), "{what}: {answer:?}");
}

#[track_caller]
fn lost<T: std::fmt::Debug>(what: &str, answer: Result<T, BackendError>) {
    assert!(matches!(answer, Err(BackendError::WindowLost)), "{what}: {answer:?}");
}

/// Rule 40: windows, windows of another length or offset, and the whole space hold counters of their own.
pub async fn windows_are_apart(fixture: &Fixture) {
    let probe = fixture.fresh();
    let hours = hours(&probe).await;
    let here = current(&probe, hours).await;
    let before = within(&probe, window(&here).previous().expect("hours have passed"));
    let quarter = Windows::every(HOUR / 4).offset(now(&probe).await + HOUR / 8);
    let shifted = Windows::every(HOUR).offset(now(&probe).await + HOUR / 3);
    let all = [
        probe.clone(),
        here.clone(),
        current(&probe, quarter).await,
        current(&probe, shifted).await,
    ];
    ok("a late batch", late(&before, 100).await);
    for (place, probe) in (1..).zip(&all) {
        assert_eq!(add(probe, "hits", place).await, place, "in {:?}", probe.space);
    }
    for (place, probe) in (1..).zip(&all) {
        assert_eq!(total(probe, "hits").await, place, "in {:?}", probe.space);
        assert_eq!(names(probe).await, ["hits"]);
    }
    assert_eq!(total(&before, "hits").await, 100);
    here.clear().await;
    assert_eq!(total(&here, "hits").await, 0, "after a clear of the window");
    probe.clear().await;
    let others: Vec<i64> = vec![total(&before, "hits").await, total(&all[2], "hits").await];
    assert_eq!(others, [100, 3], "other windows, after clears");
    assert_eq!(add(&here, "hits", 5).await, 5, "a cleared window is open");
}

/// Rule 40: shards have windows of their own.
pub async fn windows_of_shards_are_apart(fixture: &Fixture) {
    let probe = fixture.fresh();
    let shards = Space::shards_of(probe.space.prefix().clone(), 3);
    let first = Probe { space: shards[0].clone(), ..probe.clone() };
    let hours = hours(&first).await;
    for (count, space) in (1..).zip(&shards) {
        let shard = Probe { space: space.clone(), ..probe.clone() };
        assert_eq!(add(&current(&shard, hours).await, "hits", count).await, count);
    }
    for (count, space) in (1..).zip(&shards) {
        let shard = Probe { space: space.clone(), ..probe.clone() };
        assert_eq!(total(&current(&shard, hours).await, "hits").await, count);
    }
}

/// Rules 1 to 6 hold in a window.
pub async fn a_window_does_what_a_space_does(fixture: &Fixture) {
    let probe = fixture.fresh();
    let here = current(&probe, hours(&probe).await).await;
    let (hits, top, gone) = (key("hits"), key("top"), key("gone"));
    let writes = [
        Write::add(hits.clone(), 5),
        Write::add(hits.clone(), 2).only_if(Lt(5)),
        Write::add(hits.clone(), 2).only_if(Ge(5)),
        Write::set(top.clone(), i64::MAX),
        Write::add(top.clone(), 1),
        Write::add_within(hits.clone(), 10, 0..=9),
        Write::set(gone.clone(), 3),
        Write::remove(gone.clone()),
    ];
    let expected = [
        wrote(0, 5),
        kept(5),
        wrote(5, 7),
        wrote(0, i64::MAX),
        Err(Refusal::Overflow),
        wrote(7, 9),
        wrote(0, 3),
        wrote(3, 0),
    ];
    check(&writes, &here.apply(&writes).await, &expected);
    let keys = [hits.clone(), top.clone(), gone.clone()];
    check_values("read", &keys, &here.read(&keys).await, &[9, i64::MAX, 0]);
    let read = ok("read_current", windowing(&here).read_current(&here.space, &keys).await);
    assert_eq!(read, [Ok(9), Ok(i64::MAX), Ok(0)]);
    assert_eq!(names(&here).await, ["hits", "top"]);
    let many: Vec<_> = (0..2500).map(|n| Write::add(key(&format!("k{n}")), n)).collect();
    let outcomes = here.apply(&many).await;
    assert!(outcomes.iter().zip(0..).all(|(o, n)| *o == wrote(0, n)), "a batch of 2500");
    let keys: Vec<RedisKey> = many.iter().map(|write| write.key.clone()).collect();
    let expected: Vec<i64> = (0..2500).collect();
    check_values("read", &keys, &here.read(&keys).await, &expected);
}

/// Rules 1, 21 and 40: writers that open a window at the same time lose nothing to each other.
pub async fn concurrent_writes_open_a_window_once(fixture: &Fixture) {
    let probe = fixture.fresh();
    let here = current(&probe, hours(&probe).await).await;
    let mut writers = JoinSet::new();
    for _ in 0..8 {
        let here = here.clone();
        writers.spawn(async move {
            let mut lane = here.guard(0);
            for _ in 0..20 {
                lane.sequence += 1;
                let write = [Write::add(key("hits"), 1)];
                let applied = recorded(&here).apply_recorded(&here.space, &write, &lane).await;
                ok("apply_recorded", applied);
                add(&here, "hits", 1).await;
            }
        });
    }
    while let Some(done) = writers.join_next().await {
        if let Err(error) = done {
            std::panic::resume_unwind(error.into_panic());
        }
    }
    assert_eq!(total(&here, "hits").await, 8 * 40);
}

/// Rule 41: a window that is not the current one takes no write in a lane or without a guard.
pub async fn only_the_current_window_takes_writes(fixture: &Fixture) {
    let probe = fixture.fresh();
    let here = current(&probe, hours(&probe).await).await;
    add(&here, "hits", 1).await;
    let (earlier, later) = (window(&here).previous(), window(&here).next());
    for other in [earlier.expect("hours have passed"), later] {
        let other = within(&probe, other);
        let (space, write) = (&other.space, [Write::add(key("hits"), 1)]);
        let mut lane = other.guard(1);
        let refused = [
            other.backend.apply(space, &write, None).await.map(drop),
            other.backend.apply(space, &[Write::set(key("hits"), 1)], None).await.map(drop),
            recorded(&other).apply_recorded(space, &write, &lane).await.map(drop),
            recorded(&other).clear_recorded(space, &lane).await,
            windowing(&other).read_current(space, &[key("hits")]).await.map(drop),
        ];
        for refused in refused {
            let Err(BackendError::NotCurrent { now }) = refused else {
                panic!("in another window: {refused:?}");
            };
            assert!(window(&here).contains(now), "the time of the refusal is the store's: {now:?}");
        }
        assert_eq!(total(&other, "hits").await, 0, "nothing was written to another window");
        assert_eq!(names(&other).await, [""; 0]);
        // As an attempt whose answer was lost would be sent.
        lane.resent = true;
        let applied = recorded(&here).apply_recorded(&here.space, &write, &lane).await;
        let applied = ok("apply_recorded with a sequence that was refused before", applied);
        let before = total(&here, "hits").await - 1;
        assert_eq!(applied.outcomes, [wrote(before, before + 1)]);
        let late = recorded(&other).apply_recorded(space, &write, &lane).await;
        assert_eq!(ok("the first attempt, which comes late", late), applied);
    }
    assert_eq!(total(&here, "hits").await, 3);
}

/// Rule 42: a batch of a writer takes effect in its window, which it may be the first to use.
pub async fn late_batches_take_effect_in_their_window(fixture: &Fixture) {
    let probe = fixture.fresh();
    let here = current(&probe, hours(&probe).await).await;
    let before = within(&probe, window(&here).previous().expect("hours have passed"));
    let guard = before.guard(1);
    for resent in [false, true] {
        let guard = ReplayGuard { resent, ..guard.clone() };
        let applied = ok("a late batch", late_under(&before, 5, &guard).await);
        assert_eq!(applied.replayed, resent);
        // The same batch is known in other windows, too.
        let elsewhere = ok("a replay", late_under(&here, 5, &guard).await);
        assert!(elsewhere.replayed);
    }
    assert_eq!((total(&before, "hits").await, total(&here, "hits").await), (5, 0));
    let next =
        ok("a late batch", late_under(&before, 2, &ReplayGuard { sequence: 2, ..guard }).await);
    assert_eq!(next.outcomes, [wrote(5, 7)]);
    assert_eq!(names(&before).await, ["hits"]);
    before.clear().await;
    assert_eq!(total(&before, "hits").await, 0, "after a clear of an earlier window");
}

/// Rule 43: to the millisecond, by the longest time for which it is kept.
pub async fn a_window_closes_when_it_is_no_longer_kept(fixture: &Fixture) {
    if !fixture.has_clock() {
        return;
    }
    let probe = fixture.fresh();
    let windows = hours(&probe).await;
    let (long, short) = (windows.keep(3), windows);
    let here = current(&probe, long).await;
    let kept_shorter = within(&probe, short.at(window(&here).start()));
    let guard = here.guard(1);
    ok("a batch", late_under(&here, 5, &guard).await);
    ok("one that keeps it for less long", late(&kept_shorter, 1).await);
    let until = window(&here).kept_until();
    assert_eq!(until, window(&here).end() + 3 * HOUR);
    fixture.pass(until - Duration::from_millis(1) - now(&probe).await);
    for probe in [&here, &kept_shorter] {
        assert_eq!(total(probe, "hits").await, 6, "just before the end");
        assert_eq!(names(probe).await, ["hits"]);
    }
    ok("a late batch, just before the end", late(&kept_shorter, 1).await);
    fixture.pass(Duration::from_millis(1));
    let other = current(&probe, long).await;
    for round in ["at the end", "once a later window is open", "hours later"] {
        for probe in [&here, &kept_shorter] {
            assert_eq!(total(probe, "hits").await, 0, "{round}");
            assert_eq!(names(probe).await, [""; 0], "{round}");
            closed(round, late(probe, 1).await);
            closed(round, probe.backend.clear(&probe.space).await);
        }
        if round == "at the end" {
            add(&other, "hits", 1).await;
        } else {
            fixture.pass(HOUR);
        }
    }
    let replay = ReplayGuard { resent: true, ..guard };
    let replayed = ok("a batch that was applied", late_under(&here, 5, &replay).await).replayed;
    assert!(replayed, "whatever became of its window");
}

/// Rule 43: processes that disagree on how long windows are kept, of which the shortest writes first.
pub async fn the_longest_keep_before_the_closing_holds(fixture: &Fixture) {
    if !fixture.has_clock() {
        return;
    }
    let probe = fixture.fresh();
    let windows = hours(&probe).await;
    let one = current(&probe, windows).await;
    let kept = |keep| within(&probe, windows.keep(keep).at(window(&one).start()));
    let (two, three, four) = (kept(2), kept(3), kept(4));
    let ends = window(&one).end();
    let almost = Duration::from_millis(1);
    let until = async |time: Duration| fixture.pass(time.saturating_sub(now(&probe).await));

    assert_eq!(add(&one, "hits", 1).await, 1);
    until(ends + HOUR - almost).await;
    // At the last moment, and late, also in the process of the shorter one.
    ok("a batch that keeps it for longer", late(&two, 2).await);
    until(ends + HOUR).await;
    ok("a batch of the process that keeps it for less long", late(&one, 4).await);
    until(ends + 2 * HOUR - almost).await;
    ok("a clear does not shorten it", late(&three, 0).await);
    one.clear().await;
    ok("a batch that keeps it for longer", late(&one, 8).await);
    until(ends + 3 * HOUR - almost).await;
    for probe in [&one, &two, &three, &four] {
        assert_eq!(total(probe, "hits").await, 8, "just before the end of the longest");
        assert_eq!(names(probe).await, ["hits"]);
    }
    // Whether or not a later window is open by then.
    let unrelated = within(&probe, windows.keep(9).at(window(&one).end()));
    for round in ["at the end", "once a later window is open"] {
        until(ends + 3 * HOUR).await;
        for probe in [&one, &two, &three, &four] {
            assert_eq!(total(probe, "hits").await, 0, "{round}");
            closed(round, late(probe, 1).await);
            closed(round, probe.backend.clear(&probe.space).await);
            assert_eq!(total(probe, "hits").await, 0, "{round}, after a write that came late");
        }
        ok("a batch in another window", late(&unrelated, 1).await);
    }
    assert_eq!(total(&unrelated, "hits").await, 2);
}

/// Rule 43: a step of the clock back, past the closing, opens nothing again.
pub async fn a_step_of_the_clock_opens_no_window(fixture: &Fixture) {
    if !(fixture.can_step_back() && fixture.has_clock()) {
        return;
    }
    let probe = fixture.fresh();
    let windows = hours(&probe).await;
    let here = current(&probe, windows).await;
    let unused = within(&probe, window(&here).previous().expect("hours have passed"));
    add(&here, "hits", 5).await;
    fixture.pass(5 * HOUR);
    add(&current(&probe, windows).await, "hits", 1).await;
    fixture.step_back(5 * HOUR);
    for closed_one in [&here, &unused] {
        closed("after a step back", late(closed_one, 1).await);
        assert_eq!(total(closed_one, "hits").await, 0);
    }
    closed("in a lane", recorded(&here).clear_recorded(&here.space, &here.guard(1)).await);
    let write = [Write::add(key("hits"), 1)];
    closed("without a guard", here.backend.apply(&here.space, &write, None).await);
    // The next one was never used.
    fixture.pass(HOUR);
    assert_eq!(add(&current(&probe, windows).await, "hits", 1).await, 1);
}

/// Rules 22 and 40: what was answered is answered again, whatever has become of the window.
pub async fn answers_outlive_their_window(fixture: &Fixture) {
    if !fixture.has_clock() {
        return;
    }
    let probe = fixture.fresh();
    let windows = Windows::every(Duration::from_secs(10)).offset(now(&probe).await);
    let here = current(&probe, windows).await;
    let lane = here.guard(1);
    let write = [Write::add(key("hits"), 5), Write::add(key("hits"), 2)];
    let first = recorded(&here).apply_recorded(&here.space, &write, &lane).await;
    let first = ok("apply_recorded", first);
    for _ in 0..5 {
        fixture.pass(Duration::from_secs(10));
        let next = current(&probe, windows).await;
        add(&next, "hits", 1).await;
        for probe in [&here, &next] {
            let again = ReplayGuard { resent: true, ..lane.clone() };
            let again = recorded(probe).apply_recorded(&probe.space, &write, &again).await;
            assert_eq!(ok("apply_recorded, sent again", again), first);
        }
        assert_eq!(total(&next, "hits").await, 1);
    }
}

/// Rule 44.
pub async fn a_lost_window_is_named(fixture: &Fixture) {
    if !fixture.can_lose_windows() {
        return;
    }
    let probe = fixture.fresh();
    let here = current(&probe, hours(&probe).await).await;
    let before = within(&probe, window(&here).previous().expect("hours have passed"));
    let others = Windows::every(2 * HOUR).offset(now(&probe).await + HOUR / 2);
    let (hits, empty) = ([key("hits")], current(&probe, others).await);
    for probe in [&probe, &here, &before, &empty] {
        ok("a batch", late(probe, 5).await);
    }
    empty.remove(&hits).await;
    ok("an empty window", late(&empty, 0).await);
    empty.clear().await;
    assert_eq!(add(&empty, "hits", 2).await, 2, "an empty window is not lost");

    fixture.lose_window(&here.space).await;
    let (space, write) = (&here.space, [Write::add(key("hits"), 1)]);
    for _ in 0..2 {
        lost("apply", here.backend.apply(space, &write, None).await);
        lost("a late batch", late(&here, 1).await);
        let lane = here.guard(1);
        lost("apply_recorded", recorded(&here).apply_recorded(space, &write, &lane).await);
        lost("clear_recorded", recorded(&here).clear_recorded(space, &lane).await);
        lost("clear", here.backend.clear(space).await);
        lost("read", here.backend.read(space, &hits).await);
        lost("read_current", windowing(&here).read_current(space, &hits).await);
        let page = enumeration(&here).page(space, None, &KeyFilter::all(), 10).await;
        lost("page", page);
        lost("count", enumeration(&here).count(space).await);
    }
    for probe in [&probe, &before] {
        assert_eq!(add_late(probe).await, 6, "in {:?}", probe.space);
    }
}

async fn add_late(probe: &Probe) -> i64 {
    match &ok("a late batch", late(probe, 1).await).outcomes[0] {
        Ok(written) => written.new,
        Err(refusal) => panic!("refused: {refusal}"),
    }
}

/// Rule 45.
pub async fn the_time_is_that_of_the_windows(fixture: &Fixture) {
    let probe = fixture.fresh();
    let first = now(&probe).await;
    let again = now(&probe).await;
    assert!(again >= first && again - first < HOUR, "{first:?}, then {again:?}");
    if !fixture.has_clock() {
        return;
    }
    for step in [1, 17, 3_599_983, 86_400_000].map(Duration::from_millis) {
        let before = now(&probe).await;
        fixture.pass(step);
        assert_eq!(now(&probe).await, before + step);
    }
    // The boundary is where the time says.
    let windows = Windows::every(HOUR).offset(now(&probe).await + Duration::from_millis(5));
    let (here, next) = (windows.at(now(&probe).await), windows.at(now(&probe).await).next());
    fixture.pass(Duration::from_millis(4));
    add(&within(&probe, here), "hits", 1).await;
    fixture.pass(Duration::from_millis(1));
    add(&within(&probe, next), "hits", 1).await;
    let write = [Write::add(key("hits"), 1)];
    let late = probe.backend.apply(&probe.space.in_window(here), &write, None).await;
    assert!(matches!(late, Err(BackendError::NotCurrent { .. })), "{late:?}");
}

/// Rule 46: nothing is left but what was written since, and nobody's record.
pub async fn an_idle_space_expires_whole(fixture: &Fixture) {
    if !fixture.has_clock() {
        return;
    }
    let probe = fixture.fresh();
    let probe = Probe { space: probe.space.expiring_after(HOUR), ..probe };
    // How late it may be.
    let late_by = Duration::from_secs(5);
    let almost = HOUR - Duration::from_millis(1);
    let (guard, lane) = (probe.guard(1), probe.guard(1));
    ok("a batch", late_under(&probe, 5, &guard).await);
    let subtraction = [Write::add(key("hits"), -1)];
    for round in 0..4 {
        fixture.pass(almost);
        assert_eq!(total(&probe, "hits").await, 5, "not idle for long enough, round {round}");
        // Each of them renews it.
        match round {
            0 => _ = probe.apply(&[Write::add(key("hits"), 1).only_if(Lt(0))]).await,
            1 => _ = late(&probe, 0).await,
            2 => {
                probe.write(Write::remove(key("hits"))).await;
                let added = [Write::add(key("hits"), 5)];
                let applied = recorded(&probe).apply_recorded(&probe.space, &added, &lane).await;
                ok("apply_recorded", applied);
            }
            _ => {}
        }
    }
    fixture.pass(late_by);
    assert_eq!(total(&probe, "hits").await, 0, "it was idle for long enough");
    assert_eq!(names(&probe).await, [""; 0]);
    // What was applied before is gone, so it counts anew, and is not in doubt.
    let again = ReplayGuard { resent: true, ..guard };
    let again = ok("a batch of before, sent again", late_under(&probe, 5, &again).await);
    assert_eq!((again.replayed, &*again.outcomes), (false, &[wrote(0, 5)][..]));
    let again = ReplayGuard { resent: true, ..lane };
    let again = recorded(&probe).apply_recorded(&probe.space, &subtraction, &again).await;
    assert_eq!(ok("a request of before", again).outcomes, [wrote(5, 4)]);
    // A subtraction that comes late leaves nothing for ever.
    fixture.pass(HOUR + late_by);
    assert_eq!(probe.write(subtraction[0].clone()).await.new, -1);
    fixture.pass(HOUR + late_by);
    assert_eq!(total(&probe, "hits").await, 0, "what a late subtraction left");
    // Nor does one right after the last counter was deleted.
    let lane = probe.guard(1);
    for (sequence, write) in [(1, Write::remove(key("hits"))), (2, subtraction[0].clone())] {
        let lane = ReplayGuard { sequence, ..lane.clone() };
        ok("apply_recorded", recorded(&probe).apply_recorded(&probe.space, &[write], &lane).await);
    }
    fixture.pass(HOUR + late_by);
    assert_eq!(total(&probe, "hits").await, 0, "what a subtraction after a removal left");
    probe.clear().await;
}

/// Rule 46: asking for it lets nothing expire too early, and nothing twice.
pub async fn only_what_is_idle_expires_when_asked_to(fixture: &Fixture) {
    let fresh = fixture.fresh();
    let probe = Probe { space: fresh.space.expiring_after(HOUR), ..fresh };
    let windowed = fixture.fresh();
    let windowed = Probe { space: windowed.space.expiring_after(HOUR), ..windowed };
    let ask =
        async |probe: &Probe| ok("expire_idle", windowing(probe).expire_idle(&probe.space).await);
    assert_eq!(ask(&probe).await, None, "of nothing");
    let here = current(&windowed, hours(&probe).await.keep(9)).await;
    add(&windowed, "hits", 2).await;
    ok("a batch in a window", late(&here, 3).await);
    let lasting = fixture.fresh();
    add(&lasting, "hits", 7).await;
    let guard = probe.guard(1);
    ok("a batch", late_under(&probe, 5, &guard).await);
    ask(&probe).await;
    assert_eq!(total(&probe, "hits").await, 5, "right after a write");
    if !fixture.has_clock() {
        return;
    }
    let almost = HOUR - Duration::from_millis(1);
    for round in 0..3 {
        fixture.pass(almost);
        ask(&probe).await;
        assert_eq!(total(&probe, "hits").await, 5 + round, "not idle for long enough");
        add(&probe, "hits", 1).await;
    }
    // Nobody writes any more. The store says when to ask, or does it by itself.
    let mut waited = Duration::ZERO;
    while let Some(left) = ask(&probe).await {
        assert!(!left.is_zero(), "asked to ask again at once");
        assert_eq!(total(&probe, "hits").await, 8, "before it may expire");
        fixture.pass(left);
        waited += left;
    }
    if waited.is_zero() {
        fixture.pass(HOUR + Duration::from_secs(5));
    } else {
        assert!(waited >= HOUR, "it may expire after {waited:?}");
    }
    assert_eq!(total(&probe, "hits").await, 0, "idle for long enough");
    assert_eq!(names(&probe).await, [""; 0]);
    assert_eq!(ask(&probe).await, None, "of what has expired");
    // A batch of before is known, or all of it is forgotten.
    let again = ReplayGuard { resent: true, ..guard };
    let again = ok("a batch of before, sent again", late_under(&probe, 5, &again).await);
    let total_now = total(&probe, "hits").await;
    assert_eq!(total_now, if again.replayed { 0 } else { 5 });
    assert_eq!(add(&probe, "hits", 1).await, total_now + 1, "a write begins it anew");
    ask(&probe).await;
    assert_eq!(total(&probe, "hits").await, total_now + 1);
    for asked in [&windowed, &here, &lasting] {
        ask(asked).await;
    }
    assert_eq!(total(&here, "hits").await, 3, "a window goes by its own time");
    assert_eq!(total(&lasting, "hits").await, 7, "a space that does not expire");
    probe.clear().await;
}

/// Rules 9 and 46: a prefix has one idle time, or none.
pub async fn another_idle_time_is_refused(fixture: &Fixture) {
    for shards in [1, 3] {
        let fresh = fixture.fresh();
        let own = Space::shards_of(fresh.space.prefix().clone(), shards)[0].clone();
        let spaces = [own.expiring_after(HOUR), own.expiring_after(2 * HOUR), own.clone()];
        let probes = spaces.map(|space| Probe { space, ..fresh.clone() });
        add(&probes[0], "hits", 5).await;
        for probe in &probes[1..] {
            let write = [Write::add(key("hits"), 1)];
            for error in [
                probe.backend.apply(&probe.space, &write, None).await.map(drop),
                late(probe, 1).await.map(drop),
                probe.backend.read(&probe.space, &[key("hits")]).await.map(drop),
                probe.backend.clear(&probe.space).await,
            ] {
                let Err(BackendError::ShapeMismatch { ours, stored }) = &error else {
                    panic!("another idle time: {error:?}");
                };
                assert!(stored.contains("3600000"), "the idle time of the prefix: {stored}");
                let own = if probe.space.idle().is_some() { "7200000" } else { "not expiring" };
                assert!(ours.contains(own), "the idle time of the request: {ours}");
            }
        }
        assert_eq!(total(&probes[0], "hits").await, 5);
    }
}
