//! A store in this process's memory: for tests without a server, and for simulations that repeat.
//!
//! [`MemoryBackend`] keeps the whole contract of [`Backend`]. Its time is tokio's, or that of a
//! [`ManualClock`]; each client can have its own [`MemoryLink`], which can be cut, slowed, or made to
//! lose messages. Nothing in here is random: on a current-thread runtime with paused time, the same
//! test runs the same way each time.

mod clock;
mod instance;
mod link;
mod named;
mod paging;
mod plain;
mod records;
mod state;
mod tokens;
mod value;
mod windows;

#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use parking_lot::Mutex;

use self::{clock::Clock, instance::Instances, plain::Plain, state::State, windows::Takes};
use super::{
    AddedOnce, Applied, Backend, BackendError, Capabilities, Cursor, Enumeration, Incarnation,
    Instance, InstanceSlice, Joined, Member, Ordered, Outcome, Page, RecordedAnswers,
    RecordedSliceAnswers, ReplayGuard, Resolved, Scope, Slice, SliceEnumeration, SliceWrite, Space,
    Standing, TokenAdd, Tokens, Windowing, Write,
    transfer::{Export, Part, SliceTransfer},
};
use crate::{KeyFilter, RedisKey, Token};

pub use self::{
    clock::ManualClock,
    link::{Line, LinkFault, MemoryLink},
};

/// A store in memory. A clone is the same store; the data lives as long as one of them, or a link.
///
/// Used directly it never fails; a [`link`](Self::link) can.
///
/// ```
/// use distkit::{RedisKey, backend::{Backend, Space, Write, memory::MemoryBackend}};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = MemoryBackend::new();
/// let space = Space::new(RedisKey::try_from("shop")?);
/// let hits = RedisKey::try_from("hits")?;
///
/// store.apply(&space, &[Write::add(hits.clone(), 2)], None).await?;
/// assert_eq!(store.clone().read(&space, &[hits]).await?, [Ok(2)]);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct MemoryBackend {
    shared: Arc<Shared>,
}

struct Shared {
    clock: Clock,
    state: Mutex<State>,
}

impl MemoryBackend {
    /// Creates an empty store whose time is tokio's: under paused time it moves together with the timers.
    /// Outside of a runtime it is the system's monotonic clock.
    pub fn new() -> Self {
        Self::at(Clock::tokio())
    }

    /// Creates an empty store whose time is `clock`'s. Timers stay tokio's.
    pub fn with_clock(clock: ManualClock) -> Self {
        Self::at(Clock::Manual(clock))
    }

    fn at(clock: Clock) -> Self {
        Self { shared: Arc::new(Shared { clock, state: Mutex::default() }) }
    }

    /// Creates a new link to this store, whole and without latency.
    pub fn link(&self) -> MemoryLink {
        MemoryLink::to(self.clone())
    }

    /// Returns the store's time: how long ago the store, or its [`ManualClock`], was made, and by how much it was set
    /// forward or back since.
    pub fn now(&self) -> Duration {
        self.locked(|_, now| now)
    }

    /// Loses all data, counters and writers alike, as a Redis without persistence does when it
    /// restarts. Links, time, and the numbering of ids stay.
    pub fn wipe(&self) {
        self.locked(|state, _| state.wipe());
    }

    /// Loses all data of one space, as a cluster does when a node without a replica restarts empty. How many shards
    /// the prefix has stays known.
    pub fn wipe_space(&self, space: &Space) {
        self.locked(|state, _| state.wipe_space(&space.home()));
    }

    /// Loses the counters of an open window, as a Redis does that evicts its hash under a `volatile-*` policy: reads
    /// and writes in it fail from then on. Does nothing to a space that is no open window.
    ///
    /// ```
    /// use std::time::Duration;
    /// use distkit::{RedisKey, Windows, backend::{Backend, BackendError, Space, Write, memory::MemoryBackend}};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let store = MemoryBackend::new();
    /// let hour = Windows::every(Duration::from_secs(3600)).at(store.now());
    /// let space = Space::new(RedisKey::try_from("shop")?).in_window(hour);
    /// let write = [Write::add(RedisKey::try_from("hits")?, 1)];
    /// store.apply(&space, &write, None).await?;
    /// store.lose_window(&space);
    /// let lost = store.apply(&space, &write, None).await;
    /// assert!(matches!(lost, Err(BackendError::WindowLost)));
    /// # Ok(()) }
    /// ```
    pub fn lose_window(&self, space: &Space) {
        self.locked(|state, _| state.plain.lose_window(space));
    }

    /// Returns the ids of the instances of the space that are joined and whose lease has not expired, in order. Renews
    /// no lease.
    pub fn living_instances(&self, space: &Space) -> Vec<Arc<str>> {
        self.locked(|state, now| {
            let ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
            state.instances.get(space).map(|members| members.living(ms)).unwrap_or_default()
        })
    }

    /// Loses the replay guards of the space, those of lanes too, and keeps its counters, as a Redis does that evicts
    /// their hashes under an `allkeys-*` policy.
    ///
    /// A lax counter whose batch was in doubt then reports it as unknown instead of counting it twice.
    pub fn lose_guards(&self, space: &Space) {
        let space = &*space.home();
        self.locked(|state, now| {
            state.plain.lose_writers(now, space);
            // On a server the lanes of both families are one record.
            let members = state.instances.get(space);
            if state.plain.has_lanes(space) || members.is_some_and(Instances::has_lanes) {
                state.plain.lose_lanes(now, space);
                state.instances.entry(space.clone()).or_default().lose_lanes(now);
            }
        });
    }

    /// Loses the plain counters of the space and nothing else, as a Redis does that evicts their hash under an
    /// `allkeys-*` policy.
    ///
    /// A counter that had written to them finds it with its next guarded write: see
    /// `Stats::losses`.
    pub fn lose_totals(&self, space: &Space) {
        self.locked(|state, _| state.plain.lose_totals(space));
    }

    /// Loses the records of the space's tokens and keeps its counters, as a Redis does that evicts them under an
    /// `allkeys-*` policy.
    ///
    /// Until they would have been forgotten anyway, additions under tokens that the store does not know are refused.
    pub fn lose_tokens(&self, space: &Space) {
        self.locked(|state, _| state.lose_tokens(space));
    }

    /// Returns how many tokens the space remembers, those that were forbidden included.
    pub fn remembered_tokens(&self, space: &Space) -> usize {
        self.locked(|state, _| state.remembered_tokens(space))
    }

    /// Loses the memberships of the space, as a Redis does that evicts the leases: every instance has to rejoin, and
    /// puts its slices back then.
    pub fn lose_members(&self, space: &Space) {
        self.members(space, |members, _| members.lose_members());
    }

    /// Sets the store's clock forward, as a time service does with a server's. Timers of counters do not move.
    ///
    /// ```
    /// use std::time::Duration;
    /// use distkit::backend::memory::{ManualClock, MemoryBackend};
    ///
    /// let store = MemoryBackend::with_clock(ManualClock::new());
    /// store.set_clock_forward(Duration::from_secs(60));
    /// store.set_clock_back(Duration::from_secs(10));
    /// assert_eq!(store.now(), Duration::from_secs(50));
    /// ```
    pub fn set_clock_forward(&self, step: Duration) {
        self.locked(|state, _| state.step_forward(step));
    }

    /// Sets the store's clock back, but not to before the store was made.
    pub fn set_clock_back(&self, step: Duration) {
        self.locked(|state, _| state.step_back(step));
    }

    /// Returns how many plain counters the space holds, also those that are 0.
    pub fn len(&self, space: &Space) -> usize {
        self.locked(|state, _| state.plain.len(space))
    }

    /// Returns how many writers' replay guards the store remembers, in all spaces.
    pub fn guarded_writers(&self) -> usize {
        self.locked(|state, _| state.plain.writers())
    }

    /// Puts `text` where the plain counter `key` is kept, as a stranger with access to a Redis could.
    /// Text that is the decimal form of an `i64` makes an ordinary counter.
    ///
    /// ```
    /// use distkit::{RedisKey, backend::{Backend, Refusal, Space, memory::MemoryBackend}};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let store = MemoryBackend::new();
    /// let space = Space::new(RedisKey::try_from("shop")?);
    /// let hits = RedisKey::try_from("hits")?;
    /// store.corrupt(&space, &hits, "abc");
    /// let found = "abc".to_owned();
    /// assert_eq!(store.read(&space, &[hits]).await?, [Err(Refusal::NotANumber { found })]);
    /// # Ok(()) }
    /// ```
    pub fn corrupt(&self, space: &Space, key: &RedisKey, text: &str) {
        self.locked(|state, _| state.plain.plant(space, key, text));
    }

    fn locked<T>(&self, work: impl FnOnce(&mut State, Duration) -> T) -> T {
        let mut state = self.shared.state.lock();
        let now = state.tick(self.shared.clock.now());
        work(&mut state, now)
    }

    /// A request that may write, of a number of shards that is checked.
    fn write<T>(
        &self,
        space: &Space,
        work: impl FnOnce(&mut Plain, Duration) -> Result<T, BackendError>,
    ) -> Result<T, BackendError> {
        self.locked(|state, now| {
            state.open(space)?;
            work(&mut state.plain, now)
        })
    }

    fn read_in(
        &self,
        space: &Space,
        keys: &[RedisKey],
        takes: Takes,
    ) -> Result<Vec<Outcome<i64>>, BackendError> {
        self.locked(|state, now| {
            state.check(space)?;
            state.plain.read(now, space, keys, takes)
        })
    }

    /// The same for a request of an instance.
    fn write_on<T>(
        &self,
        space: &Space,
        work: impl FnOnce(&mut Instances, u64) -> Result<T, BackendError>,
    ) -> Result<T, BackendError> {
        self.locked(|state, _| state.open(space))?;
        self.members(space, work)
    }

    /// A request of a caller that is no instance.
    fn look<T>(
        &self,
        space: &Space,
        work: impl FnOnce(&mut Instances, u64) -> T,
    ) -> Result<T, BackendError> {
        self.locked(|state, _| state.check(space))?;
        Ok(self.members(space, work))
    }

    fn members<T>(&self, space: &Space, work: impl FnOnce(&mut Instances, u64) -> T) -> T {
        self.locked(|state, now| {
            let ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
            work(state.instances.entry(space.clone()).or_default(), ms)
        })
    }
}

impl Default for MemoryBackend {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBackend")
            .field("clock", &self.shared.clock)
            .field("state", &*self.shared.state.lock())
            .finish()
    }
}

#[async_trait]
impl Backend for MemoryBackend {
    async fn apply(
        &self,
        space: &Space,
        writes: &[Write],
        guard: Option<&ReplayGuard>,
    ) -> Result<Applied, BackendError> {
        if guard.is_none() && writes.is_empty() {
            return Ok(Applied { replayed: false, record: None, outcomes: Vec::new() });
        }
        self.write(space, |plain, now| plain.apply(now, space, writes, guard))
    }

    async fn read(
        &self,
        space: &Space,
        keys: &[RedisKey],
    ) -> Result<Vec<Outcome<i64>>, BackendError> {
        self.read_in(space, keys, Takes::Open)
    }

    async fn clear(&self, space: &Space) -> Result<(), BackendError> {
        self.write(space, |plain, now| plain.clear(now, space))
    }

    fn capabilities(&self) -> Capabilities<'_> {
        Capabilities::none()
            .with_recorded(self)
            .with_recorded_slices(self)
            .with_enumeration(self)
            .with_slice_enumeration(self)
            .with_windows(self)
            .with_tokens(self)
            .with_transfer(self)
    }

    /// Not random: `id-1`, `id-2`, and so on, in the order of the calls.
    fn fresh_id(&self) -> Arc<str> {
        self.locked(|state, _| format!("id-{}", state.next_id()).into())
    }
}

#[async_trait]
impl crate::backend::InstanceBackend for MemoryBackend {
    async fn join(
        &self,
        space: &Space,
        instance: &Instance,
        slices: &[Slice],
    ) -> Result<Joined, BackendError> {
        self.write_on(space, |members, ms| members.join(ms, instance, slices))
    }

    async fn apply_on(
        &self,
        space: &Space,
        member: &Member,
        writes: &[SliceWrite],
        sequence: Option<u64>,
    ) -> Result<Ordered<Applied<Standing>>, BackendError> {
        self.write_on(space, |members, ms| members.apply(ms, member, writes, sequence))
    }

    async fn read_on(
        &self,
        space: &Space,
        member: &Member,
        keys: &[RedisKey],
    ) -> Result<Ordered<Vec<Outcome<Standing>>>, BackendError> {
        self.write_on(space, |members, ms| members.read(ms, member, keys))
    }

    async fn clear_on(
        &self,
        space: &Space,
        member: &Member,
        scope: Scope,
    ) -> Result<(), BackendError> {
        self.write_on(space, |members, ms| members.clear(ms, member, scope))
    }

    async fn heartbeat(&self, space: &Space, member: &Member) -> Result<(), BackendError> {
        self.write_on(space, |members, ms| members.heartbeat(ms, member))
    }

    async fn leave(&self, space: &Space, member: &Member) -> Result<(), BackendError> {
        self.write_on(space, |members, _| {
            members.leave(member);
            Ok(())
        })
    }

    async fn totals(
        &self,
        space: &Space,
        keys: &[RedisKey],
    ) -> Result<Vec<Outcome<i64>>, BackendError> {
        let total = |members: &mut Instances, ms, key| Ok(members.total(ms, key));
        self.look(space, |members, ms| keys.iter().map(|key| total(members, ms, key)).collect())
    }

    async fn slices(
        &self,
        space: &Space,
        key: &RedisKey,
    ) -> Result<Vec<InstanceSlice>, BackendError> {
        self.look(space, |members, ms| members.slices(ms, key))
    }
}

#[async_trait]
impl Enumeration for MemoryBackend {
    async fn page(
        &self,
        space: &Space,
        from: Option<&Cursor>,
        filter: &KeyFilter,
        count: usize,
    ) -> Result<Page<(RedisKey, Outcome<i64>)>, BackendError> {
        self.locked(|state, now| {
            state.check(space)?;
            state.plain.page(now, space, from, filter, count)
        })
    }

    async fn count(&self, space: &Space) -> Result<u64, BackendError> {
        self.locked(|state, now| {
            state.check(space)?;
            Ok(state.plain.count(now, space)? as u64)
        })
    }
}

#[async_trait]
impl SliceEnumeration for MemoryBackend {
    async fn page_on(
        &self,
        space: &Space,
        from: Option<&Cursor>,
        filter: &KeyFilter,
        count: usize,
    ) -> Result<Page<RedisKey>, BackendError> {
        self.look(space, |members, _| members.page(from, filter, count))
    }

    async fn count_on(&self, space: &Space) -> Result<u64, BackendError> {
        self.look(space, |members, _| members.len() as u64)
    }
}

#[async_trait]
impl RecordedAnswers for MemoryBackend {
    async fn apply_recorded(
        &self,
        space: &Space,
        writes: &[Write],
        lane: &ReplayGuard,
    ) -> Result<Applied, BackendError> {
        self.write(space, |plain, now| plain.apply_recorded(now, space, writes, lane))
    }

    async fn clear_recorded(&self, space: &Space, lane: &ReplayGuard) -> Result<(), BackendError> {
        self.write(space, |plain, now| plain.clear_recorded(now, space, lane))
    }
}

#[async_trait]
impl SliceTransfer for MemoryBackend {
    async fn export(&self, space: &Space, what: Export<'_>) -> Result<Part, BackendError> {
        self.look(space, |members, now| members.export(now, what))?
    }

    async fn import(&self, space: &Space, part: &Part) -> Result<Vec<Incarnation>, BackendError> {
        self.write_on(space, |members, now| members.import(now, part))
    }
}

#[async_trait]
impl Tokens for MemoryBackend {
    async fn add_once(
        &self,
        space: &Space,
        items: &[TokenAdd],
        keep: Duration,
    ) -> Result<Vec<Outcome<AddedOnce>>, BackendError> {
        self.locked(|state, now| {
            let (tokens, plain) = state.tokens(now, space, keep)?;
            Ok(items.iter().map(|item| tokens.add(plain, space, item)).collect())
        })
    }

    async fn resolve(
        &self,
        space: &Space,
        tokens: &[(RedisKey, Token)],
        keep: Duration,
    ) -> Result<Vec<Outcome<Resolved>>, BackendError> {
        self.locked(|state, now| state.resolve(now, space, tokens, keep))
    }

    async fn forbid(
        &self,
        space: &Space,
        tokens: &[(RedisKey, Token)],
        keep: Duration,
    ) -> Result<Vec<Outcome<Resolved>>, BackendError> {
        self.locked(|state, now| {
            let (known, _) = state.tokens(now, space, keep)?;
            Ok(tokens.iter().map(|(key, token)| known.forbid(key, token)).collect())
        })
    }
}

#[async_trait]
impl RecordedSliceAnswers for MemoryBackend {
    async fn apply_on_recorded(
        &self,
        space: &Space,
        member: &Member,
        writes: &[SliceWrite],
        lane: &ReplayGuard,
    ) -> Result<Ordered<Applied<Standing>>, BackendError> {
        self.write_on(space, |members, ms| members.apply_recorded(ms, member, writes, lane))
    }

    async fn clear_on_recorded(
        &self,
        space: &Space,
        member: &Member,
        lane: &ReplayGuard,
    ) -> Result<(), BackendError> {
        self.write_on(space, |members, ms| members.clear_recorded(ms, member, lane))
    }
}

#[async_trait]
impl Windowing for MemoryBackend {
    async fn time(&self, space: &Space) -> Result<Duration, BackendError> {
        self.locked(|state, now| {
            state.check(space)?;
            Ok(now)
        })
    }

    async fn read_current(
        &self,
        space: &Space,
        keys: &[RedisKey],
    ) -> Result<Vec<Outcome<i64>>, BackendError> {
        self.read_in(space, keys, Takes::Current)
    }

    async fn any_open(&self, space: &Space) -> Result<bool, BackendError> {
        self.locked(|state, now| {
            state.check(space)?;
            Ok(state.plain.any_open(now, space))
        })
    }
}
