use std::{sync::Arc, time::Duration};

use distkit::{
    DistkitError, RedisKey,
    backend::{
        Backend, BackendError, Instance, Member, Space,
        memory::{LinkFault, MemoryBackend, MemoryLink},
    },
    counter::{CounterOptions, CounterTrait, LaxCounter},
    icounter::{
        InstanceAwareCounterTrait, LaxInstanceAwareCounter, LaxInstanceAwareCounterOptions,
    },
};
use tokio::time::{Instant, sleep};

use super::{
    history::{Ask, Step},
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

enum Counter {
    Plain(Arc<LaxCounter>),
    Shared(Arc<LaxInstanceAwareCounter>),
}

struct Process {
    counter: Counter,
    link: MemoryLink,
    /// The last answer for each key.
    seen: [i64; Key::ALL.len()],
    /// Whether its link was ever in trouble.
    trouble: bool,
    /// Whether the answer to a batch may have been lost since all that it wrote was known to have arrived.
    unheard: bool,
    last_write: u64,
}

impl Process {
    fn new(family: Family, store: &MemoryBackend, space: &Space) -> Self {
        let link = store.link();
        let prefix = space.prefix().clone();
        let counter = match family {
            Family::Plain => {
                Counter::Plain(LaxCounter::new(CounterOptions::new(prefix, link.clone())))
            }
            Family::Shared => Counter::Shared(LaxInstanceAwareCounter::new(
                LaxInstanceAwareCounterOptions::new(prefix, link.clone()),
            )),
        };
        Self {
            counter,
            link,
            seen: [i64::MIN; Key::ALL.len()],
            trouble: false,
            unheard: false,
            last_write: 0,
        }
    }
}

/// Who looks at the store past all links.
struct Auditor {
    store: MemoryBackend,
    space: Space,
    member: Option<Member>,
}

impl Auditor {
    /// Each key's total, and its slices by id.
    async fn look(&mut self, family: Family) -> Vec<(i64, Vec<(String, i64)>)> {
        let keys: Vec<_> = Key::ALL.iter().map(|key| key.redis()).collect();
        if family == Family::Plain {
            let totals = self.store.read(&self.space, &keys).await.unwrap();
            return totals.into_iter().map(|total| (total.unwrap(), Vec::new())).collect();
        }
        loop {
            match self.try_look(&keys).await {
                Ok(looks) => return looks,
                Err(BackendError::NotJoined) => self.join().await,
                Err(error) => panic!("the memory store fails: {error}"),
            }
        }
    }

    async fn try_look(
        &self,
        keys: &[RedisKey],
    ) -> Result<Vec<(i64, Vec<(String, i64)>)>, BackendError> {
        let member = self.member.as_ref().ok_or(BackendError::NotJoined)?;
        let standings = self.store.read_on(&self.space, member, keys).await?.answer;
        let mut looks = Vec::new();
        for (key, standing) in keys.iter().zip(standings) {
            let slices = self.store.slices_on(&self.space, member, key).await?;
            let slices = slices.into_iter().map(|slice| (slice.instance_id, slice.value));
            looks.push((standing.unwrap().total, slices.collect()));
        }
        Ok(looks)
    }

    async fn join(&mut self) {
        let lease = Duration::from_secs(86_400);
        let instance = Instance { id: "auditor".into(), name: None, lease, first_joined: None };
        let joined = self.store.join(&self.space, &instance, &[]).await.unwrap();
        self.member = Some(Member { incarnation: joined.incarnation, lease });
    }
}

/// Plays a history, and gives the transcript.
pub(crate) async fn play(
    family: Family,
    all_add: bool,
    history: &[Step],
) -> Result<Vec<String>, String> {
    let mut player = Player::new(family, all_add);
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
    space: Space,
    auditor: Auditor,
    processes: Vec<Process>,
    truth: Truth,
    start: Instant,
    story: Story,
}

impl Player {
    fn new(family: Family, all_add: bool) -> Self {
        let store = MemoryBackend::new();
        let space = Space::new(RedisKey::try_from("shop").unwrap());
        let processes = PROCESSES.map(|_| Process::new(family, &store, &space)).into();
        let auditor = Auditor { store: store.clone(), space: space.clone(), member: None };
        Self {
            family,
            all_add,
            store,
            space,
            auditor,
            processes,
            truth: Truth::default(),
            start: Instant::now(),
            story: Story::default(),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap()
    }

    async fn step(&mut self, step: Step) -> Result<(), String> {
        match step {
            Step::Call(who, ask) => return self.call(who, ask).await,
            Step::LosesData if self.family == Family::Plain => return Ok(()),
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
                    Fault::Restored => process.link.restore(),
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
                self.processes[who as usize] = Process::new(self.family, &self.store, &self.space);
            }
            Step::LosesData => {
                self.processes.iter_mut().for_each(|process| process.trouble = true);
                self.store.wipe();
                self.truth.lost_data();
            }
            Step::Call(..) => unreachable!("done above"),
        }
        self.look().await
    }

    /// Time passes with a look at short intervals, or at its end where much of it passes.
    async fn wait(&mut self, ms: u64) -> Result<(), String> {
        const INTERVAL: u64 = 5;
        let watched = ms.min(LAG + 2 * ROUND_TRIP + 2 * INTERVAL);
        sleep(Duration::from_millis(ms - watched)).await;
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
                    let Counter::Shared(counter) = &self.processes[who as usize].counter else {
                        unreachable!("all processes are of one family")
                    };
                    let own = slices.iter().find(|(id, _)| id == counter.instance_id());
                    own.map(|(_, value)| parts(*value)[who as usize])
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

    async fn call(&mut self, who: Who, ask: Ask) -> Result<(), String> {
        let plain = self.family == Family::Plain;
        if plain && matches!(ask, Ask::SetOnInstance(..) | Ask::DelOnInstance(_)) {
            return Ok(());
        }
        self.look().await?;
        let sent = self.now();
        let answer = {
            let counter = &self.processes[who as usize].counter;
            // What another task of the process is in the middle of is waited for.
            tokio::time::timeout(Duration::from_secs(300), counter.ask(who, ask)).await
        };
        let answer = answer.map_err(|_| format!("{who}: {ask} is pending for ever"))?;
        let shown = match &answer {
            Ok((total, Some(own))) => format!("({:?}, {own})", parts(*total)),
            Ok((total, None)) => format!("{:?}", parts(*total)),
            Err(error) => error.to_string(),
        };
        let took = format!("(from {} to {})", time(sent), time(self.now()));
        self.story.tell(format!("{who}: {ask} -> {shown} {took}"));
        match answer {
            Ok(answer) => self.answered(who, ask, sent, answer).await,
            Err(DistkitError::NotApplied(_)) => self.look().await,
            Err(DistkitError::OutcomeUnknown(error)) => {
                let watched = self.now() == sent;
                self.unknown(who, ask, &error, watched).await
            }
            Err(error) => Err(format!("the counter fails: {error}")),
        }
    }

    async fn answered(
        &mut self,
        who: Who,
        ask: Ask,
        sent: u64,
        answer: (i64, Option<i64>),
    ) -> Result<(), String> {
        let now = self.now();
        let took = now - sent;
        match ask {
            Ask::Inc(key, count) => {
                self.truth.added(who, key, count);
                self.processes[who as usize].last_write = now;
                self.look().await?;
                self.truth.may_answer(now, None, who, key, answer)?;
                self.never_back(who, key, answer.0)
            }
            Ask::Get(key) => {
                self.look().await?;
                self.truth.may_answer(now, Some(LAG + took + 1), who, key, answer)?;
                self.never_back(who, key, answer.0)
            }
            Ask::SetOnInstance(key, count) => {
                self.truth.replaced(who, key, count);
                self.processes[who as usize].last_write = now;
                self.look().await?;
                self.truth.may_answer(now, None, who, key, answer)
            }
            Ask::Set(key, count) => {
                self.set(now, who, key, count, took == 0);
                self.look().await?;
                if answer.0 == in_digits(who, count) {
                    Ok(())
                } else {
                    Err(format!("the total was set to {count}"))
                }
            }
            Ask::Del(key) => {
                let verdict = self.held(who, key, took, answer);
                self.set(now, who, key, 0, took == 0);
                self.look().await?;
                verdict
            }
            Ask::DelOnInstance(key) => {
                let due = self.truth.due(who, key);
                let doubtful = self.truth.is_doubtful(who, key);
                self.truth.removed(now, who, key);
                self.look().await?;
                match answer.1 {
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
            Ask::Flush => {
                self.truth.arrived(who);
                self.processes[who as usize].unheard = false;
                self.look().await?;
                for key in Key::ALL {
                    let owed = self.truth.owed(who, key);
                    if owed != 0 {
                        return Err(format!("{owed} of {who}'s {key} were not flushed"));
                    }
                }
                Ok(())
            }
        }
    }

    /// What `del` answers, where nothing else can have happened meanwhile.
    fn held(
        &mut self,
        who: Who,
        key: Key,
        took: u64,
        (total, own): (i64, Option<i64>),
    ) -> Result<(), String> {
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
                Ask::Set(key, count) => self.set(now, who, key, count, watched),
                Ask::Del(key) => self.set(now, who, key, 0, watched),
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
                    Ask::Set(key, _) | Ask::Del(key) | Ask::DelOnInstance(key) => {
                        self.truth.unheard(who, key);
                    }
                    _ => Key::ALL.iter().for_each(|key| self.truth.unheard(who, *key)),
                }
            }
        }
        self.look().await
    }

    /// Whether the store did what was asked, for the lost reply may have been that the instance is not joined.
    async fn happened(&mut self, who: Who, ask: Ask) -> bool {
        let Counter::Shared(counter) = &self.processes[who as usize].counter else { return true };
        let id = counter.instance_id().to_owned();
        let looks = self.auditor.look(self.family).await;
        match ask {
            Ask::Set(key, count) => looks[key as usize].1 == [(id, in_digits(who, count))],
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

impl Counter {
    /// The total, and the own slice where there is one.
    async fn ask(&self, who: Who, ask: Ask) -> Result<(i64, Option<i64>), DistkitError> {
        match self {
            Self::Plain(counter) => {
                let total = match ask {
                    Ask::Inc(key, n) => counter.inc(&key.redis(), in_digits(who, n)).await?,
                    Ask::Get(key) => counter.get(&key.redis()).await?,
                    Ask::Set(key, n) => counter.set(&key.redis(), in_digits(who, n)).await?,
                    Ask::Del(key) => counter.del(&key.redis()).await?,
                    Ask::Clear => counter.clear().await.map(|()| 0)?,
                    Ask::Flush => counter.flush().await.map(|()| 0)?,
                    Ask::SetOnInstance(..) | Ask::DelOnInstance(_) => {
                        unreachable!("plain counters have no slices")
                    }
                };
                Ok((total, None))
            }
            Self::Shared(counter) => {
                let (total, own) = match ask {
                    Ask::Inc(key, n) => counter.inc(&key.redis(), in_digits(who, n)).await?,
                    Ask::Get(key) => counter.get(&key.redis()).await?,
                    Ask::Set(key, n) => counter.set(&key.redis(), in_digits(who, n)).await?,
                    Ask::Del(key) => counter.del(&key.redis()).await?,
                    Ask::SetOnInstance(key, n) => {
                        counter.set_on_instance(&key.redis(), in_digits(who, n)).await?
                    }
                    Ask::DelOnInstance(key) => counter.del_on_instance(&key.redis()).await?,
                    Ask::Clear => counter.clear().await.map(|()| (0, 0))?,
                    Ask::Flush => counter.flush().await.map(|()| (0, 0))?,
                };
                Ok((total, Some(own)))
            }
        }
    }
}
