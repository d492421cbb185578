use std::time::Duration;

use distkit::{
    DistkitError, RedisKey,
    backend::{
        BackendError, Space,
        memory::{LinkFault, MemoryBackend, MemoryLink},
    },
};
use tokio::time::{Instant, sleep};

use super::{
    auditor::Auditor,
    counter::{Answer, Counter, Numbers, done, only, show},
    history::{Ask, Compared, Step},
    truth::{Family, Look, PROCESSES, Truth, in_digits, parts},
};
use crate::{
    candidates::sum,
    cases::Story,
    cast::{Key, Who, time},
    world::Fault,
};

const LAG: u64 = 20;
/// The slowest link, there and back, and what paused timers round up.
const ROUND_TRIP: u64 = 30;
/// How long after the end of all trouble everything must have arrived: delays between attempts grow to a
/// second, and who was collected hears of it with a heartbeat.
const HEALED: u64 = 12_000;
/// How long a process whose link was never in trouble may owe something.
const PATIENCE: u64 = LAG + 2 * ROUND_TRIP + 10;

struct Process {
    counter: Counter,
    link: MemoryLink,
    /// The last answer for each key.
    seen: [i64; Key::ALL.len()],
    /// Whether its link was ever in trouble.
    trouble: bool,
    /// Whether the answer to a batch may have been lost since all that it wrote was known to have arrived.
    unheard: bool,
    denied: bool,
    last_write: u64,
}

impl Process {
    fn new(family: Family, store: &MemoryBackend, shards: u16) -> Self {
        let link = store.link();
        let counter = Counter::new(family, prefix(), shards, link.clone());
        Self {
            counter,
            link,
            seen: [0; Key::ALL.len()],
            trouble: false,
            unheard: false,
            denied: false,
            last_write: 0,
        }
    }
}

fn prefix() -> RedisKey {
    RedisKey::try_from("shop").unwrap()
}

/// Plays a history on a prefix of so many shards, and gives the transcript.
pub(crate) async fn play(
    family: Family,
    shards: u16,
    all_add: bool,
    history: &[Step],
) -> Result<Vec<String>, String> {
    let mut player = Player::new(family, shards, all_add);
    for step in history {
        if let Err(why) = player.step(*step).await {
            return Err(player.story.ends(why));
        }
    }
    match player.heal().await {
        Ok(()) => Ok(player.story.into_lines()),
        Err(why) => Err(player.story.ends(why)),
    }
}

struct Player {
    family: Family,
    all_add: bool,
    store: MemoryBackend,
    spaces: Vec<Space>,
    auditor: Auditor,
    processes: Vec<Process>,
    truth: Truth,
    start: Instant,
    story: Story,
}

impl Player {
    fn new(family: Family, shards: u16, all_add: bool) -> Self {
        let store = MemoryBackend::new();
        let spaces = Space::shards_of(prefix(), shards);
        let processes = PROCESSES.map(|_| Process::new(family, &store, shards)).into();
        let auditor = Auditor::new(store.clone(), &spaces);
        Self {
            family,
            all_add,
            store,
            spaces,
            auditor,
            processes,
            truth: Truth::default(),
            start: Instant::now(),
            story: Story::default(),
        }
    }

    fn shards(&self) -> u16 {
        u16::try_from(self.spaces.len()).unwrap()
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap()
    }

    async fn step(&mut self, step: Step) -> Result<(), String> {
        match step {
            Step::Call(who, ask) => return self.call(who, ask).await,
            Step::ShutsDown(who) => return self.shut_down(who).await,
            Step::LosesData | Step::LosesMembers if self.family == Family::Plain => return Ok(()),
            // While a call that acts at once is under way, the order of what others send is not seen.
            Step::Latency(..) if !self.all_add => return Ok(()),
            _ => self.story.tell(step),
        }
        match step {
            Step::Wait(ms) => return self.wait(ms).await,
            Step::Fault(who, fault) => {
                let process = &mut self.processes[who as usize];
                process.trouble = true;
                process.unheard |= matches!(fault, Fault::LosesReply | Fault::Cut);
                match fault {
                    Fault::Cut => process.link.cut(),
                    Fault::Denied => {
                        process.link.set_denied(true);
                        process.denied = true;
                    }
                    Fault::Restored => {
                        process.denied = false;
                        process.link.restore();
                        process.link.set_denied(false);
                    }
                    Fault::LosesRequest => process.link.lose_next_requests(1),
                    Fault::LosesReply => process.link.lose_next_replies(1),
                }
            }
            Step::Latency(who, ms) => {
                self.processes[who as usize].link.set_latency(Duration::from_millis(ms));
            }
            Step::Dies(who) => {
                self.processes[who as usize].link.cut();
                self.look().await?;
                self.truth.died(self.family, self.now(), who);
                self.processes[who as usize] =
                    Process::new(self.family, &self.store, self.shards());
            }
            Step::LosesData => {
                self.processes.iter_mut().for_each(|process| process.trouble = true);
                self.store.wipe();
                self.truth.lost_data();
            }
            Step::LosesMembers => {
                self.processes.iter_mut().for_each(|process| process.trouble = true);
                self.spaces.iter().for_each(|space| self.store.lose_members(space));
                self.truth.lost_members();
            }
            Step::Call(..) | Step::ShutsDown(_) => unreachable!("done above"),
        }
        self.look().await
    }

    /// Time passes with a look at short intervals, or at its end where much of it passes.
    async fn wait(&mut self, ms: u64) -> Result<(), String> {
        const INTERVAL: u64 = 5;
        let watched = ms.min(LAG + 2 * ROUND_TRIP + 2 * INTERVAL);
        if ms > watched {
            sleep(Duration::from_millis(ms - watched)).await;
            self.truth.see_arrivals(self.now());
        }
        let mut left = watched;
        while left > 0 {
            self.look().await?;
            let pause = left.min(INTERVAL);
            sleep(Duration::from_millis(pause)).await;
            left -= pause;
        }
        self.look().await
    }

    /// Takes in what is in the store, and checks what must hold at any time.
    async fn look(&mut self) -> Result<(), String> {
        let now = self.now();
        for who in PROCESSES {
            let process = &self.processes[who as usize];
            if !process.trouble && process.last_write + PATIENCE < now {
                self.truth.arrived(who);
                self.processes[who as usize].unheard = false;
            }
        }
        for (key, (total, slices)) in Key::ALL.into_iter().zip(self.auditor.look(self.family).await)
        {
            let slices = match self.family {
                Family::Plain => parts(total).map(Some),
                Family::Shared if total != sum(&slices) => {
                    return Err(format!("the total of {key} is {total}, of {slices:?}"));
                }
                Family::Shared => PROCESSES.map(|who| {
                    let id = self.processes[who as usize].counter.instance_id();
                    let own = slices.iter().find(|(of, _)| Some(&**of) == id);
                    // A living instance without a slice has one of 0.
                    let none = || id.filter(|id| self.auditor.lives(id, key)).map(|_| 0);
                    own.map(|(_, value)| parts(*value)[who as usize]).or_else(none)
                }),
            };
            self.truth.see(now, key, Look { total, slices });
            for who in PROCESSES {
                let owed = self.truth.owed(who, key);
                if self.all_add && owed < 0 {
                    return Err(format!("{} of {who}'s {key} were counted twice", -owed));
                }
                let process = &self.processes[who as usize];
                if owed != 0 && !process.trouble && process.last_write + PATIENCE < now {
                    return Err(format!("{owed} of {who}'s {key} never arrive"));
                }
            }
        }
        Ok(())
    }

    /// The key was set or deleted. Who has not heard of its last batch may send it again when it was taken for
    /// dead meanwhile, for the guard went with its slices.
    fn set(&mut self, now: u64, who: Who, key: Key, total: i64, watched: bool) {
        self.truth.set(now, who, key, total, watched);
        for other in PROCESSES.into_iter().filter(|other| *other != who) {
            if self.family == Family::Shared && self.processes[other as usize].unheard {
                self.truth.unheard(other, key);
            }
        }
    }

    fn set_unheard(&mut self, now: u64, who: Who, key: Key, total: i64, watched: bool) {
        match self.family {
            Family::Plain => self.truth.set_unheard(now, who, key, total, watched),
            // Which reads before it answers anything.
            Family::Shared => self.set(now, who, key, total, watched),
        }
    }

    async fn call(&mut self, who: Who, ask: Ask) -> Result<(), String> {
        if self.family == Family::Plain && ask.is_about_slices() {
            return Ok(());
        }
        self.look().await?;
        let sent = self.now();
        let answer = {
            let Process { counter, seen, .. } = &self.processes[who as usize];
            // What another task of the process is in the middle of is waited for.
            tokio::time::timeout(Duration::from_secs(300), counter.ask(who, ask, seen)).await
        };
        let answer = answer.map_err(|_| format!("{who}: {ask} is pending for ever"))?;
        let shown = match &answer {
            Ok(answers) => answers.iter().map(show).collect::<Vec<_>>().join(" and "),
            Err(error) => distkit_testkit::chain(error),
        };
        let took = format!("(from {} to {})", time(sent), time(self.now()));
        self.story.tell(format!("{who}: {ask} -> {shown} {took}"));
        match answer {
            Ok(answers) => self.answered(who, ask, sent, &answers).await,
            Err(DistkitError::NotApplied(_)) => self.look().await,
            Err(DistkitError::OutcomeUnknown(error)) => {
                let watched = self.now() == sent;
                self.unknown(who, ask, &error, watched).await
            }
            Err(DistkitError::InShards { failed, .. }) => {
                let watched = self.now() == sent;
                self.in_part(who, ask, &failed, watched).await
            }
            Err(error) => Err(format!("the counter fails: {error}")),
        }
    }

    /// What was asked of all shards failed in some. Each key is told apart.
    async fn in_part(
        &mut self,
        who: Who,
        ask: Ask,
        failed: &[(u16, DistkitError)],
        watched: bool,
    ) -> Result<(), String> {
        match ask {
            Ask::Flush => {}
            Ask::Clear => {
                for key in Key::ALL {
                    let shard = Space::shard_of(&key.redis(), self.shards());
                    let error = failed.iter().find(|(of, _)| *of == shard).map(|(_, error)| error);
                    self.replaced_or_not(who, key, None, error, watched).await?;
                }
            }
            Ask::ClearOnInstance => {
                for key in Key::ALL {
                    let shard = Space::shard_of(&key.redis(), self.shards());
                    let error = failed.iter().find(|(of, _)| *of == shard).map(|(_, error)| error);
                    self.removed_or_not(who, key, error, watched).await?;
                }
            }
            _ => return Err(format!("{ask} is no question to all shards")),
        }
        self.look().await
    }

    /// A key was set, or cleared, or the shard that it is in failed.
    async fn replaced_or_not(
        &mut self,
        who: Who,
        key: Key,
        count: Option<i64>,
        error: Option<&DistkitError>,
        watched: bool,
    ) -> Result<(), String> {
        let now = self.now();
        match error {
            None => self.set(now, who, key, count.unwrap_or(0), watched),
            Some(DistkitError::NotApplied(_)) => {}
            Some(DistkitError::OutcomeUnknown(BackendError::OutcomeUnknown(cause))) => {
                if self.family == Family::Shared && !watched {
                    self.truth.lose_track(key);
                } else if cause.downcast_ref() == Some(&LinkFault::ReplyLost)
                    && self.happened(who, Ask::Set(key, count.unwrap_or(0))).await
                {
                    match count {
                        None => self.truth.cleared_unknown(now, who, key, watched),
                        Some(count) => self.set_unheard(now, who, key, count, watched),
                    }
                    if self.family == Family::Shared {
                        self.truth.unheard(who, key);
                    }
                }
            }
            Some(error) => return Err(format!("a shard fails: {error}")),
        }
        Ok(())
    }

    /// The slice of a key was removed, or the shard that it is in failed.
    async fn removed_or_not(
        &mut self,
        who: Who,
        key: Key,
        error: Option<&DistkitError>,
        watched: bool,
    ) -> Result<(), String> {
        let now = self.now();
        match error {
            None => self.truth.removed(now, who, key),
            Some(DistkitError::NotApplied(_)) => {}
            Some(DistkitError::OutcomeUnknown(_)) if !watched => self.truth.lose_track(key),
            Some(DistkitError::OutcomeUnknown(BackendError::OutcomeUnknown(cause))) => {
                if cause.downcast_ref() == Some(&LinkFault::ReplyLost)
                    && self.happened(who, Ask::DelOnInstance(key)).await
                {
                    self.truth.removed(now, who, key);
                    self.truth.unheard(who, key);
                }
            }
            Some(error) => return Err(format!("a shard fails: {error}")),
        }
        Ok(())
    }

    async fn answered(
        &mut self,
        who: Who,
        ask: Ask,
        sent: u64,
        answers: &[Answer],
    ) -> Result<(), String> {
        let now = self.now();
        let took = now - sent;
        let age = Some(LAG + took + 1);
        match ask {
            Ask::Inc(key, count) => self.added(now, who, &[(key, count)], answers).await,
            Ask::IncAll(counts) => {
                let items: Vec<_> = Key::ALL.into_iter().zip(counts).collect();
                self.added(now, who, &items, answers).await
            }
            Ask::Get(key) => self.read(now, age, who, &[key], answers).await,
            Ask::GetAll => self.read(now, age, who, &Key::ALL, answers).await,
            Ask::SetOnInstance(key, count) => {
                self.truth.replaced(who, key, count);
                self.processes[who as usize].last_write = now;
                self.look().await?;
                self.truth.may_answer(now, None, who, key, only(answers)?)
            }
            Ask::Set(..) | Ask::SetAll(_) => {
                for ((key, count), answer) in ask.sets().into_iter().zip(answers) {
                    if self.shards() > 1 && answer.is_err() {
                        let error = answer.as_ref().err();
                        self.replaced_or_not(who, key, Some(count), error, took == 0).await?;
                        continue;
                    }
                    if done(answer)?.0 != in_digits(who, count) {
                        return Err(format!("{key} was set to {count}"));
                    }
                    self.set(now, who, key, count, took == 0);
                }
                self.look().await
            }
            Ask::IncIf(key, how, count) => {
                if self.held_and_made(who, ask, key, took, how, answers)? {
                    self.truth.added(who, key, count);
                }
                self.look().await
            }
            Ask::SetIf(key, how, count) => {
                if self.held_and_made(who, ask, key, took, how, answers)? {
                    self.set(now, who, key, count, took == 0);
                }
                self.look().await
            }
            Ask::Del(key) => {
                let verdict = self.held(who, key, took, only(answers)?);
                self.set(now, who, key, 0, took == 0);
                self.look().await?;
                verdict
            }
            Ask::DelOnInstance(key) => {
                let due = self.truth.due(who, key);
                let doubtful = self.truth.is_doubtful(who, key);
                self.truth.removed(now, who, key);
                self.look().await?;
                match only(answers)?.1 {
                    Some(removed)
                        if parts(removed)[who as usize] != due && took == 0 && !doubtful =>
                    {
                        Err(format!("the slice was {due}"))
                    }
                    _ => Ok(()),
                }
            }
            Ask::Clear => {
                for key in Key::ALL {
                    self.set(now, who, key, 0, took == 0);
                }
                self.look().await
            }
            Ask::ClearOnInstance => {
                Key::ALL.iter().for_each(|key| self.truth.removed(now, who, *key));
                self.look().await
            }
            Ask::Flush => {
                self.truth.arrived(who);
                self.processes[who as usize].unheard = false;
                self.look().await?;
                self.owes_nothing(who, "was not flushed")
            }
        }
    }

    /// Of a batch, each item has its own answer.
    async fn added(
        &mut self,
        now: u64,
        who: Who,
        items: &[(Key, i64)],
        answers: &[Answer],
    ) -> Result<(), String> {
        let mut taken = Vec::new();
        for ((key, count), answer) in items.iter().zip(answers) {
            match answer {
                Ok(answer) => {
                    self.truth.added(who, *key, *count);
                    self.processes[who as usize].last_write = now;
                    taken.push((*key, *answer));
                }
                Err(DistkitError::NotApplied(_)) => {}
                Err(error) => return Err(format!("{key} is refused: {error}")),
            }
        }
        self.look().await?;
        for (key, answer) in taken {
            self.truth.may_answer(now, None, who, key, answer)?;
            self.never_back(who, key, answer.0)?;
        }
        Ok(())
    }

    async fn read(
        &mut self,
        now: u64,
        age: Option<u64>,
        who: Who,
        keys: &[Key],
        answers: &[Answer],
    ) -> Result<(), String> {
        self.look().await?;
        for (key, answer) in keys.iter().zip(answers) {
            match answer {
                Ok(answer) => {
                    self.truth.may_answer(now, age, who, *key, *answer)?;
                    self.never_back(who, *key, answer.0)?;
                }
                Err(DistkitError::NotApplied(_)) => {}
                Err(error) => return Err(format!("{key} is not read: {error}")),
            }
        }
        Ok(())
    }

    /// Whether a conditional write found its condition true, by what it says that the key held; the rest of the
    /// answer must agree with that.
    fn held_and_made(
        &mut self,
        who: Who,
        ask: Ask,
        key: Key,
        took: u64,
        how: Compared,
        answers: &[Answer],
    ) -> Result<bool, String> {
        let [new, old] = answers else { return Err("it answers with two numbers".to_owned()) };
        let (new, old) = (done(new)?, done(old)?);
        self.held(who, key, took, old)?;
        let held = how.holds(old.0, self.processes[who as usize].seen[key as usize]);
        let made = match ask {
            _ if !held => old,
            Ask::IncIf(_, _, n) => {
                let n = in_digits(who, n);
                (old.0 + n, old.1.map(|own| own + n))
            }
            Ask::SetIf(_, _, n) => (in_digits(who, n), old.1.map(|_| in_digits(who, n))),
            _ => return Err("only conditional writes answer so".to_owned()),
        };
        if new == made { Ok(held) } else { Err(format!("that makes {made:?} of {old:?}")) }
    }

    fn owes_nothing(&mut self, who: Who, why: &str) -> Result<(), String> {
        for key in Key::ALL {
            let owed = self.truth.owed(who, key);
            if owed != 0 {
                return Err(format!("{owed} of {who}'s {key} {why}"));
            }
        }
        Ok(())
    }

    /// What has not arrived by the end of a shutdown is reported, and arrives no more.
    async fn shut_down(&mut self, who: Who) -> Result<(), String> {
        self.look().await?;
        let ended = self.processes[who as usize].counter.shutdown().await;
        if self.family == Family::Shared && ended.is_ok() {
            // What it owed may have been seen in the store for a moment.
            let now = self.now();
            Key::ALL.iter().for_each(|key| self.truth.removed(now, who, *key));
        }
        self.look().await?;
        let shown = match &ended {
            Ok(()) => "nothing is left".to_owned(),
            Err(report) => distkit_testkit::chain(report),
        };
        self.story.tell(format!("{} -> {shown}", Step::ShutsDown(who)));
        match (&ended, self.family) {
            (Ok(()), Family::Plain) => self.owes_nothing(who, "is not reported")?,
            (Ok(()), Family::Shared) => {
                for key in Key::ALL {
                    if self.truth.look(key).slices[who as usize].is_some_and(|slice| slice != 0) {
                        return Err(format!("{who} left, but not its slice of {key}"));
                    }
                }
            }
            (Err(report), Family::Plain) => {
                for key in Key::ALL {
                    let of = |sums: &[(RedisKey, i64)]| {
                        let found = sums.iter().find(|(of, _)| *of == key.redis());
                        found.map(|(_, sum)| parts(*sum)[who as usize])
                    };
                    let left = of(&report.pending).unwrap_or(0);
                    let owed = self.truth.owed(who, key);
                    let known = of(&report.unknown).is_none() && !self.truth.is_doubtful(who, key);
                    if known && owed != left {
                        return Err(format!("{owed} of {who}'s {key} are left"));
                    }
                }
            }
            // Its slices stay until its lease has run out.
            (Err(_), Family::Shared) => {}
        }
        self.truth.died(self.family, self.now(), who);
        let old = &self.processes[who as usize].link;
        old.restore();
        old.set_denied(false);
        old.lose_next_requests(0);
        old.lose_next_replies(0);
        self.processes[who as usize] = Process::new(self.family, &self.store, self.shards());
        self.look().await
    }

    /// What `del` answers, where nothing else can have happened meanwhile.
    fn held(&mut self, who: Who, key: Key, took: u64, (total, own): Numbers) -> Result<(), String> {
        let look = self.truth.look(key);
        let comes = self.truth.owed(who, key) + self.truth.away(who, key);
        if self.truth.is_doubtful(who, key) {
            return Ok(());
        }
        let expected = look.total + in_digits(who, comes);
        if took == 0 && total != expected {
            return Err(format!("the key held {:?}", parts(expected)));
        }
        match own {
            Some(own) if took == 0 && parts(own)[who as usize] != self.truth.due(who, key) => {
                Err(format!("the slice was {}", self.truth.due(who, key)))
            }
            _ => Ok(()),
        }
    }

    /// What was lost tells whether it happened. If not, it must not happen later.
    async fn unknown(
        &mut self,
        who: Who,
        ask: Ask,
        error: &BackendError,
        watched: bool,
    ) -> Result<(), String> {
        let BackendError::OutcomeUnknown(cause) = error else {
            return Err("the outcome is said to be unknown".to_owned());
        };
        let now = self.now();
        if self.family == Family::Shared && !watched {
            Key::ALL.iter().for_each(|key| self.truth.lose_track(*key));
        } else if cause.downcast_ref() == Some(&LinkFault::ReplyLost)
            && self.happened(who, ask).await
        {
            match ask {
                Ask::Set(..) | Ask::SetAll(_) => {
                    for (key, count) in ask.sets() {
                        self.set_unheard(now, who, key, count, watched);
                    }
                }
                Ask::IncIf(key, how, count) => match self.would_hold(who, key, how) {
                    Some(true) if watched => self.truth.added_unheard(now, who, key, count),
                    Some(false) if watched => {}
                    _ => self.truth.lose_track(key),
                },
                Ask::SetIf(key, how, count) => match self.would_hold(who, key, how) {
                    Some(true) if watched => {
                        self.set_unheard(now, who, key, count, watched);
                    }
                    Some(false) if watched => {}
                    _ => self.truth.lose_track(key),
                },
                Ask::ClearOnInstance => {
                    Key::ALL.iter().for_each(|key| self.truth.removed(now, who, *key));
                }
                Ask::Del(key) => self.set_unheard(now, who, key, 0, watched),
                Ask::DelOnInstance(key) => self.truth.removed(now, who, key),
                Ask::Clear => {
                    for key in Key::ALL {
                        self.truth.cleared_unknown(now, who, key, watched);
                    }
                }
                Ask::Flush => {}
                _ => return Err("only what acts at once can be in doubt".to_owned()),
            }
            if self.family == Family::Shared {
                match ask {
                    Ask::Set(key, _)
                    | Ask::Del(key)
                    | Ask::DelOnInstance(key)
                    | Ask::IncIf(key, ..)
                    | Ask::SetIf(key, ..) => self.truth.unheard(who, key),
                    _ => Key::ALL.iter().for_each(|key| self.truth.unheard(who, *key)),
                }
            }
        }
        self.look().await
    }

    /// Whether a condition held when the store looked. `None`: nobody can say.
    fn would_hold(&mut self, who: Who, key: Key, how: Compared) -> Option<bool> {
        if self.family == Family::Shared || self.truth.is_doubtful(who, key) {
            return None;
        }
        let total = self.truth.look(key).total + in_digits(who, self.truth.owed(who, key));
        Some(how.holds(total, self.processes[who as usize].seen[key as usize]))
    }

    /// Whether the store did what was asked, for the lost reply may have been that the instance is not joined.
    async fn happened(&mut self, who: Who, ask: Ask) -> bool {
        if self.processes[who as usize].denied {
            return false;
        }
        let Some(id) = self.processes[who as usize].counter.instance_id() else { return true };
        let id = id.to_owned();
        let looks = self.auditor.look(self.family).await;
        match ask {
            Ask::Set(..) | Ask::SetAll(_) => ask.sets().iter().all(|(key, count)| {
                let slices: Vec<_> = Some((id.clone(), in_digits(who, *count)))
                    .into_iter()
                    .filter(|(_, value)| *value != 0)
                    .collect();
                looks[*key as usize].1 == slices
            }),
            Ask::IncIf(..) | Ask::SetIf(..) => true,
            Ask::ClearOnInstance => {
                looks.iter().all(|(_, slices)| slices.iter().all(|(of, _)| *of != id))
            }
            Ask::Del(key) => looks[key as usize].1.is_empty(),
            Ask::DelOnInstance(key) => looks[key as usize].1.iter().all(|(of, _)| *of != id),
            _ => looks.iter().all(|(_, slices)| slices.is_empty()),
        }
    }

    fn never_back(&mut self, who: Who, key: Key, total: i64) -> Result<(), String> {
        let seen = &mut self.processes[who as usize].seen[key as usize];
        if self.all_add && total < *seen {
            return Err(format!("the total went back from {:?}", parts(*seen)));
        }
        *seen = total;
        Ok(())
    }

    /// After the end of all trouble everything has arrived, once.
    async fn heal(&mut self) -> Result<(), String> {
        for process in &self.processes {
            process.link.restore();
            process.link.set_denied(false);
            process.link.lose_next_requests(0);
            process.link.lose_next_replies(0);
        }
        self.wait(HEALED).await?;
        for key in Key::ALL {
            for who in PROCESSES {
                let owed = self.truth.owed(who, key);
                if owed != 0 {
                    let look = self.truth.look(key);
                    return Err(format!("{owed} of {who}'s {key} never arrived: {look:?}"));
                }
            }
        }
        Ok(())
    }
}
