//! Windows of time: which of them take a write, what each holds, and what a message says that comes late or twice.
//!
//! Processes disagree about how long windows are kept, clocks step, and windows, guards and all data get lost.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use distkit::{
    CounterComparator::{Ge, Lt},
    KeyFilter, RedisKey, Window, Windows,
    backend::{Applied, BackendError, InstanceBackend, ReplayGuard, Space, Write},
};

use crate::{
    cases::times,
    cast::Who,
    world::{Fault, Simulated, World, runtime},
};

/// Where the time of a history begins, so that it has a past.
const PAST: Duration = Duration::from_secs(100_000);
/// For how much longer than it is kept a server has the counters of a short window, in ms.
const GRACE: u64 = 60_000;
const SHARDS: u16 = 3;

/// How a request is known when it comes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Known {
    /// It is not.
    Never,
    ByGuard,
    ByLane,
}

#[derive(Debug, Clone, PartialEq)]
enum Answer {
    Wrote {
        replayed: bool,
        /// Before and after, and whether the condition was met.
        outcomes: Vec<(i64, i64, bool)>,
    },
    Read(Vec<i64>),
    Listed(BTreeMap<RedisKey, i64>),
    Cleared,
    /// The time, in ms since the history began.
    NotCurrent(i64),
    Closed,
    Lost,
    Forgotten,
    /// It may have happened, or its answer is gone.
    Unknown,
}

/// One of the kinds of windows of a history, and one of those windows.
#[derive(Debug, Clone, Copy)]
struct Place {
    shard: usize,
    kind: usize,
    window: Window,
}

#[derive(Default)]
struct Model {
    shards: [Shard; SHARDS as usize],
}

#[derive(Default)]
struct Shard {
    kinds: [Kind; 3],
    writers: BTreeMap<String, u64>,
    lanes: BTreeMap<String, (u64, Answer)>,
    lost_writers: bool,
    lost_lanes: bool,
}

#[derive(Default)]
struct Kind {
    /// By the start.
    open: BTreeMap<Duration, Open>,
    /// The newest end of a window that was over when another was opened: what ended by then stays closed.
    closed: Duration,
}

#[derive(Default)]
struct Open {
    until: Duration,
    end: Duration,
    lost: bool,
    totals: BTreeMap<RedisKey, i64>,
}

impl Kind {
    /// A write comes at this time.
    fn enter(&mut self, now: Duration, window: Window) -> Result<&mut Open, Answer> {
        let held = self.open.get(&window.start());
        let until = held.map_or(Duration::ZERO, |open| open.until);
        let until_then = until.max(window.kept_until());
        let closed = match held {
            Some(open) => now >= open.until,
            None => now >= until_then || window.end() <= self.closed,
        };
        if closed {
            return Err(Answer::Closed);
        }
        if held.is_some_and(|open| open.lost) {
            return Err(Answer::Lost);
        }
        if until_then > until {
            let over =
                |start: &Duration, open: &Open| *start != window.start() && open.until <= now;
            let ends = self.open.iter().filter(|(start, open)| over(start, open));
            self.closed = ends.map(|(_, open)| open.end).max().unwrap_or_default().max(self.closed);
            self.open.retain(|start, open| !over(start, open));
        }
        let open = self.open.entry(window.start()).or_default();
        (open.until, open.end) = (until_then, window.end());
        Ok(open)
    }

    /// What a read finds: nothing in a window that is closed.
    fn look(&self, now: Duration, window: Window) -> Result<BTreeMap<RedisKey, i64>, Answer> {
        match self.open.get(&window.start()).filter(|open| now < open.until) {
            Some(open) if open.lost => Err(Answer::Lost),
            Some(open) => Ok(open.totals.clone()),
            None => Ok(BTreeMap::new()),
        }
    }
}

fn write_all(totals: &mut BTreeMap<RedisKey, i64>, writes: &[Write]) -> Answer {
    let write = |write: &Write| {
        let old = totals.get(&write.key).copied().unwrap_or(0);
        if !write.condition.matches(old) {
            return (old, old, false);
        }
        let new = write.change.applied_to(old).unwrap();
        match write.change {
            distkit::backend::Change::Remove => drop(totals.remove(&write.key)),
            distkit::backend::Change::AddWithin { .. } if old == new => {}
            _ => drop(totals.insert(write.key.clone(), new)),
        }
        (old, new, true)
    };
    Answer::Wrote { replayed: false, outcomes: writes.iter().map(write).collect() }
}

/// A writer or a lane, as its process knows it.
#[derive(Default)]
struct Pen {
    lives: u32,
    /// The number of the next request, and whether one was refused under it.
    sequence: u64,
    refused: bool,
    latest: Vec<Write>,
}

struct Player<'w, W> {
    world: &'w W,
    dice: fastrand::Rng,
    spaces: Vec<Space>,
    kinds: [Windows; 3],
    began: Duration,
    now: Duration,
    pens: BTreeMap<(Who, usize, Known), Pen>,
    model: Model,
    story: Vec<String>,
}

fn key(name: &str) -> RedisKey {
    RedisKey::try_from(name).unwrap()
}

fn at<T>(applied: Result<T, BackendError>, began: Duration, of: impl Fn(T) -> Answer) -> Answer {
    match applied {
        Ok(applied) => of(applied),
        Err(BackendError::NotCurrent { now }) => Answer::NotCurrent(since(began, now)),
        Err(BackendError::WindowClosed) => Answer::Closed,
        Err(BackendError::WindowLost) => Answer::Lost,
        Err(BackendError::Forgotten) => Answer::Forgotten,
        Err(BackendError::OutcomeUnknown(_)) => Answer::Unknown,
        Err(other) => panic!("{other:?}"),
    }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap()
}

fn since(began: Duration, now: Duration) -> i64 {
    i64::try_from(ms(now)).unwrap() - i64::try_from(ms(began)).unwrap()
}

/// Up to the millisecond, as stores judge windows.
fn floored(time: Duration) -> Duration {
    Duration::from_millis(ms(time))
}

fn wrote(applied: Applied) -> Answer {
    let outcome = |outcome: &distkit::backend::Outcome<distkit::backend::Written>| {
        let written = outcome.as_ref().unwrap();
        (written.old, written.new, written.condition_met)
    };
    let Applied { replayed, outcomes, .. } = applied;
    Answer::Wrote { replayed, outcomes: outcomes.iter().map(outcome).collect() }
}

/// Plays a history, and gives what was answered in it.
pub(crate) async fn play(
    world: &impl World,
    prefix: &str,
    seed: u64,
) -> Result<Vec<String>, String> {
    let mut dice = fastrand::Rng::with_seed(seed);
    let spaces = match dice.usize(..3) {
        0 => Space::shards_of(key(&format!("{prefix} in shards")), SHARDS),
        _ => vec![Space::new(key(prefix))],
    };
    for who in Who::ALL {
        for space in &spaces {
            world.link(who).clear(space).await.unwrap();
        }
    }
    world.advance(PAST).await;
    let link = world.link(Who::Anna);
    let windowing = link.capabilities().windows.ok_or("no windows")?;
    let now = windowing.time(&spaces[0]).await.unwrap();
    let began = floored(now);
    let seconds = Duration::from_secs;
    let kinds = [
        Windows::every(seconds(10)).offset(began),
        Windows::every(seconds(10)).offset(began + seconds(3)),
        Windows::every(seconds(45)).offset(began),
    ];
    let mut player = Player {
        world,
        dice,
        spaces,
        kinds,
        began,
        now,
        pens: BTreeMap::new(),
        model: Model::default(),
        story: Vec::new(),
    };
    for step in 0..80 {
        if let Err(why) = player.step().await {
            return Err(format!("{}\n  ! step {step}: {why}", player.story.join("\n")));
        }
    }
    Ok(player.story)
}

impl<W: World> Player<'_, W> {
    async fn step(&mut self) -> Result<(), String> {
        let who = Who::ALL[self.dice.usize(..Who::ALL.len())];
        let place = self.place();
        match self.dice.u8(..28) {
            0..10 => {
                let (known, writes) = (self.known(), self.writes());
                self.write(who, place, known, writes).await
            }
            10 | 11 => self.again(who, place).await,
            12..14 => self.lose_a_message(who, place).await,
            14..17 => self.read(who, place).await,
            17 | 18 => self.list(who, place).await,
            19 => self.clear(who, place).await,
            20 if self.dice.u8(..3) == 0 => {
                self.world.lose_guards(&self.spaces[place.shard]);
                let shard = &mut self.model.shards[place.shard];
                shard.lost_writers |= !shard.writers.is_empty();
                shard.lost_lanes |= !shard.lanes.is_empty();
                (shard.writers, shard.lanes) = Default::default();
                self.story.push(format!("shard {} forgets its writers", place.shard));
                // A server tells two hashes of guards apart by when they were made.
                self.pass(1).await;
                Ok(())
            }
            21 => {
                self.world.lose_window(&self.spaces[place.shard].in_window(place.window));
                let kind = &mut self.model.shards[place.shard].kinds[place.kind];
                if let Some(open) = kind.open.get_mut(&place.window.start()) {
                    (open.lost, open.totals) = (true, BTreeMap::new());
                }
                self.story.push(format!("{} gets lost", self.name(place)));
                Ok(())
            }
            22 if self.dice.u8(..6) == 0 => {
                self.world.restart(false).await;
                self.now += Duration::from_millis(1);
                self.model = Model::default();
                self.story.push("all data is lost".to_owned());
                Ok(())
            }
            23 => {
                let step = [1, 997, 9_999, 30_011, 400_001][self.dice.usize(..5)];
                self.world.step_back(Duration::from_millis(step));
                self.now -= Duration::from_millis(step);
                self.story.push(format!("the clock steps back by {step} ms"));
                Ok(())
            }
            _ => {
                let step = [1, 9, 3_001, 4_999, 10_000, 45_000, 110_003];
                let step = step[self.dice.usize(..step.len())];
                self.pass(step).await;
                Ok(())
            }
        }
    }

    async fn pass(&mut self, step: u64) {
        self.world.advance(Duration::from_millis(step)).await;
        self.now += Duration::from_millis(step);
        self.story.push(format!("{step} ms pass"));
        // So long after their closing servers have dropped counters, or may have: after a step back they may be lost.
        for (space, shard) in self.spaces.iter().zip(&mut self.model.shards) {
            for (kind, windows) in shard.kinds.iter_mut().zip(self.kinds) {
                for (start, open) in &mut kind.open {
                    if self.now >= open.until + Duration::from_millis(GRACE) {
                        self.world.lose_window(&space.in_window(windows.at(*start)));
                        (open.lost, open.totals) = (true, BTreeMap::new());
                    }
                }
            }
        }
    }

    /// Any window around the current one, as one of the processes has them.
    fn place(&mut self) -> Place {
        let kind = self.dice.usize(..self.kinds.len());
        let windows = self.kinds[kind].keep([1, 1, 2, 4][self.dice.usize(..4)]);
        let mut window = windows.at(self.now);
        match self.dice.u8(..12) {
            0 => window = window.next(),
            1..4 => window = window.previous().unwrap(),
            4 => window = windows.at(self.now - 3 * windows.length()),
            _ => {}
        }
        Place { shard: self.dice.usize(..self.spaces.len()), kind, window }
    }

    fn known(&mut self) -> Known {
        [Known::Never, Known::ByGuard, Known::ByGuard, Known::ByLane][self.dice.usize(..4)]
    }

    fn writes(&mut self) -> Vec<Write> {
        let write = |dice: &mut fastrand::Rng| {
            let name = key(["hits", "sold", "left"][dice.usize(..3)]);
            match dice.u8(..8) {
                0 => Write::set(name, dice.i64(-9..9)),
                1 => Write::remove(name),
                2 => Write::add(name, 2).only_if(Ge(3)),
                3 => Write::add(name, 5).only_if(Lt(3)),
                4 => Write::add_within(name, 4, 0..=9),
                _ => Write::add(name, dice.i64(-3..9)),
            }
        };
        (0..self.dice.usize(1..4)).map(|_| write(&mut self.dice)).collect()
    }

    fn name(&self, place: Place) -> String {
        let (start, until) = (place.window.start(), place.window.kept_until());
        let since = |time: Duration| time.as_secs_f64() - self.began.as_secs_f64();
        format!(
            "window {}/{} from {:.0} s, kept until {:.0} s,",
            place.shard,
            place.kind,
            since(start),
            since(until)
        )
    }

    fn pen(&mut self, who: Who, place: Place, known: Known) -> (&mut Pen, ReplayGuard) {
        let pen = self.pens.entry((who, place.shard, known)).or_default();
        let sequence = pen.sequence + 1;
        let resent = pen.refused && self.dice.bool();
        let writer = format!("{who} {known:?} {}", pen.lives).into();
        (pen, ReplayGuard { writer, sequence, resent })
    }

    /// A batch with a number that was not used yet.
    async fn write(
        &mut self,
        who: Who,
        place: Place,
        known: Known,
        writes: Vec<Write>,
    ) -> Result<(), String> {
        let (_, guard) = self.pen(who, place, known);
        self.send(who, place, known, &guard, &writes, None).await.map(drop)
    }

    /// The latest batch once more, in whatever window.
    async fn again(&mut self, who: Who, place: Place) -> Result<(), String> {
        let known = if self.dice.bool() { Known::ByGuard } else { Known::ByLane };
        let (pen, guard) = self.pen(who, place, known);
        if pen.sequence == 0 {
            return Ok(());
        }
        let (writes, sequence) = (pen.latest.clone(), pen.sequence);
        let guard = ReplayGuard { sequence, resent: true, ..guard };
        self.send(who, place, known, &guard, &writes, None).await.map(drop)
    }

    /// A message gets lost, time may pass, and the request is sent again.
    async fn lose_a_message(&mut self, who: Who, place: Place) -> Result<(), String> {
        let known = self.known();
        // So that the window is open, and one request is all that there is to lose.
        let (_, guard) = self.pen(who, place, known);
        let warm = [Write::add(key("warm"), 0)];
        let warm = self.send(who, place, known, &guard, &warm, None).await?;
        if !matches!(warm, Answer::Wrote { .. }) {
            return Ok(());
        }
        let (_, guard) = self.pen(who, place, known);
        let writes = [Write::add(key("hits"), self.dice.i64(1..9))];
        let fault = if self.dice.bool() { Fault::LosesRequest } else { Fault::LosesReply };
        self.send(who, place, known, &guard, &writes, Some(fault)).await?;
        if self.dice.bool() {
            let step = [1, 3_000, 10_000, 30_000][self.dice.usize(..4)];
            self.pass(step).await;
        }
        if known == Known::Never {
            return self.read(who, place).await;
        }
        let guard = ReplayGuard { resent: true, ..guard };
        self.send(who, place, known, &guard, &writes, None).await.map(drop)
    }

    async fn send(
        &mut self,
        who: Who,
        place: Place,
        known: Known,
        guard: &ReplayGuard,
        writes: &[Write],
        fault: Option<Fault>,
    ) -> Result<Answer, String> {
        let link = self.world.link(who);
        let space = self.spaces[place.shard].in_window(place.window);
        if let Some(fault) = fault {
            self.world.fault(who, None, fault);
        }
        let applied = match known {
            Known::Never => link.apply(&space, writes, None).await,
            Known::ByGuard => link.apply(&space, writes, Some(guard)).await,
            Known::ByLane => {
                let recorded = link.capabilities().recorded.ok_or("no recorded answers")?;
                recorded.apply_recorded(&space, writes, guard).await
            }
        };
        if fault.is_some() {
            self.world.fault(who, None, Fault::Restored);
        }
        let answer = at(applied, self.began, wrote);
        let mark = if guard.resent { ", again" } else { "" };
        let number =
            (known != Known::Never).then(|| format!(" ({guard}{mark})", guard = guard.sequence));
        self.story.push(format!(
            "{who}: {} {known:?}{}: {writes:?}{} -> {answer:?}",
            self.name(place),
            number.unwrap_or_default(),
            fault.map_or(String::new(), |fault| format!(" {fault:?}")),
        ));
        let expected = match fault {
            Some(Fault::LosesRequest) => Answer::Unknown,
            Some(_) => {
                self.expected(place, known, guard, writes);
                Answer::Unknown
            }
            None => self.expected(place, known, guard, writes),
        };
        if known != Known::Never && fault.is_none() {
            let pen = self.pens.entry((who, place.shard, known)).or_default();
            match &answer {
                Answer::Forgotten => *pen = Pen { lives: pen.lives + 1, ..Pen::default() },
                Answer::Wrote { .. } if guard.sequence > pen.sequence => {
                    (pen.sequence, pen.refused, pen.latest) =
                        (guard.sequence, false, writes.to_vec());
                }
                _ if guard.sequence > pen.sequence => pen.refused = true,
                _ => {}
            }
        }
        self.same(&answer, &expected)?;
        Ok(answer)
    }

    /// What a batch is to be answered, once it is applied.
    fn expected(
        &mut self,
        place: Place,
        known: Known,
        guard: &ReplayGuard,
        writes: &[Write],
    ) -> Answer {
        let (now, writer) = (floored(self.now), &*guard.writer);
        let shard = &mut self.model.shards[place.shard];
        let kind = &mut shard.kinds[place.kind];
        let (forgets, knows) = match known {
            Known::Never => (false, false),
            Known::ByGuard => {
                let latest = shard.writers.get(writer).copied();
                if latest >= Some(guard.sequence) {
                    // As they stand, also in a window that is closed or lost.
                    let none = BTreeMap::new();
                    let open = kind.open.get(&place.window.start());
                    let totals = open.map_or(&none, |open| &open.totals);
                    let stands = |write: &Write| {
                        let value = totals.get(&write.key).copied().unwrap_or(0);
                        (value, value, true)
                    };
                    let outcomes = writes.iter().map(stands).collect();
                    return Answer::Wrote { replayed: true, outcomes };
                }
                (shard.lost_writers, latest.is_some())
            }
            Known::ByLane => {
                let latest = shard.lanes.get(writer);
                match latest {
                    Some((last, answer)) if *last == guard.sequence => return answer.clone(),
                    Some((last, _)) if *last > guard.sequence => return Answer::Unknown,
                    _ => (shard.lost_lanes, latest.is_some()),
                }
            }
        };
        if known != Known::ByGuard && !place.window.contains(now) {
            return Answer::NotCurrent(since(self.began, now));
        }
        let open = match kind.enter(now, place.window) {
            Ok(open) => open,
            Err(refused) => return refused,
        };
        if forgets && guard.resent && !knows {
            return Answer::Forgotten;
        }
        let answer = write_all(&mut open.totals, writes);
        match known {
            Known::Never => {}
            Known::ByGuard => drop(shard.writers.insert(writer.to_owned(), guard.sequence)),
            Known::ByLane => {
                let kept = (guard.sequence, answer.clone());
                shard.lanes.insert(writer.to_owned(), kept);
            }
        }
        answer
    }

    fn same(&self, answer: &Answer, expected: &Answer) -> Result<(), String> {
        if answer == expected { Ok(()) } else { Err(format!("expected {expected:?}")) }
    }

    async fn read(&mut self, who: Who, place: Place) -> Result<(), String> {
        let link = self.world.link(who);
        let space = self.spaces[place.shard].in_window(place.window);
        let keys = ["hits", "sold", "left", "warm"].map(key);
        let current = self.dice.u8(..3) == 0;
        let values = if current {
            let windowing = link.capabilities().windows.ok_or("no windows")?;
            windowing.read_current(&space, &keys).await
        } else {
            link.read(&space, &keys).await
        };
        let read = |values: Vec<distkit::backend::Outcome<i64>>| {
            Answer::Read(values.into_iter().map(Result::unwrap).collect())
        };
        let answer = at(values, self.began, read);
        let how = if current { "reads, as the current one" } else { "reads" };
        self.story.push(format!("{who} {how}: {} -> {answer:?}", self.name(place)));
        let now = floored(self.now);
        let expected =
            match self.model.shards[place.shard].kinds[place.kind].look(now, place.window) {
                _ if current && !place.window.contains(now) => {
                    Answer::NotCurrent(since(self.began, now))
                }
                Ok(totals) => Answer::Read(
                    keys.iter().map(|key| totals.get(key).copied().unwrap_or(0)).collect(),
                ),
                Err(lost) => lost,
            };
        self.same(&answer, &expected)
    }

    async fn list(&mut self, who: Who, place: Place) -> Result<(), String> {
        let link = self.world.link(who);
        let space = self.spaces[place.shard].in_window(place.window);
        let count = self.dice.usize(1..5);
        let answer = at(listed(&link, &space, count).await, self.began, Answer::Listed);
        self.story.push(format!("{who} lists {} -> {answer:?}", self.name(place)));
        let now = floored(self.now);
        let expected = self.model.shards[place.shard].kinds[place.kind]
            .look(now, place.window)
            .map_or_else(|lost| lost, Answer::Listed);
        self.same(&answer, &expected)
    }

    /// Without a guard, whatever the time is.
    async fn clear(&mut self, who: Who, place: Place) -> Result<(), String> {
        let space = self.spaces[place.shard].in_window(place.window);
        let cleared = self.world.link(who).clear(&space).await;
        let answer = at(cleared, self.began, |()| Answer::Cleared);
        self.story.push(format!("{who} clears {} -> {answer:?}", self.name(place)));
        let now = floored(self.now);
        let kind = &mut self.model.shards[place.shard].kinds[place.kind];
        let expected = match kind.enter(now, place.window) {
            Ok(open) => {
                open.totals.clear();
                Answer::Cleared
            }
            Err(refused) => refused,
        };
        self.same(&answer, &expected)
    }
}

/// All pages of a listing during which nothing happens, and the number of counters.
async fn listed(
    link: &Arc<dyn InstanceBackend>,
    space: &Space,
    count: usize,
) -> Result<BTreeMap<RedisKey, i64>, BackendError> {
    let enumeration = link.capabilities().enumeration.unwrap();
    let (mut all, mut from) = (BTreeMap::new(), None);
    loop {
        let page = enumeration.page(space, from.as_ref(), &KeyFilter::all(), count).await?;
        assert!(page.foreign.is_empty(), "names that nobody wrote: {:?}", page.foreign);
        all.extend(page.entries.into_iter().map(|(key, total)| (key, total.unwrap())));
        from = page.next;
        if from.is_none() {
            break;
        }
    }
    assert_eq!(enumeration.count(space).await?, all.len() as u64);
    Ok(all)
}

#[test]
fn the_simulator_keeps_windows_by_the_rules() {
    for seed in 0..2000 * u64::from(times()) {
        let played = runtime().block_on(play(&Simulated::new(), "shop", seed));
        played.unwrap_or_else(|why| panic!("seed {seed}: {why}"));
    }
}

/// That the histories come to what they are for.
#[test]
fn histories_of_windows_meet_every_answer() {
    let mut met = BTreeSet::new();
    for seed in 0..100 {
        for line in runtime().block_on(play(&Simulated::new(), "shop", seed)).unwrap_or_default() {
            for answer in ["NotCurrent", "Closed", "Lost", "Forgotten", "Unknown", "replayed: true"]
            {
                if line.split_once("->").is_some_and(|(_, answered)| answered.contains(answer)) {
                    met.insert(answer);
                }
            }
        }
    }
    assert_eq!(met.len(), 6, "{met:?}");
}
