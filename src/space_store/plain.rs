//! Requests for plain counters, in windows and under tokens too.

use std::{borrow::Cow, future::Future, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{SpaceStore, counted};
use crate::{
    KeyFilter, RedisKey, Token, Window, Windows,
    backend::{
        AddedOnce, Applied, Backend, BackendError, Cursor, Enumeration, Outcome, Page, ReplayGuard,
        Resolved, Space, TokenAdd, Tokens, Windowing, Write, missing, takes_tokens,
    },
    counts::Kind,
    stats::Count,
    strict::{Answered, Sender, send_again},
    window_clock::WindowClock,
};

/// How often a request that was sent to a window that is over is sent to the next one.
const MOVES: usize = 8;

/// For how long the estimate of the store's clock will do where the store does not check it.
const CLOCK_LASTS: Duration = Duration::from_secs(10);

/// The window that a request is for, also when it is sent again.
struct Chosen<'s>(Option<(&'s WindowClock, Mutex<Window>)>);

impl<B: Backend + ?Sized> SpaceStore<B> {
    pub(crate) fn space(&self) -> &Space {
        &self.space
    }

    /// The same space in windows.
    pub(crate) fn in_windows(&self, windows: Windows) -> Self {
        Self { clock: Some(Arc::new(WindowClock::new(windows))), ..self.clone() }
    }

    /// The same space, which expires.
    pub(crate) fn expiring_after(&self, idle: Duration) -> Self {
        Self {
            space: self.space.expiring_after(idle),
            expiry: Some(Arc::default()),
            ..self.clone()
        }
    }

    pub(crate) fn clock(&self) -> Option<&Arc<WindowClock>> {
        self.clock.as_ref()
    }

    /// The same space, not in windows.
    pub(crate) fn whole(&self) -> Self {
        Self { clock: None, ..self.clone() }
    }

    /// What the counters of one window are in, on a store that keeps them apart and lets them expire as they should.
    fn within(&self, window: Option<Window>) -> Result<Cow<'_, Space>, BackendError> {
        if window.is_some() || self.space.idle().is_some() {
            self.windowing()?;
        }
        Ok(match window {
            Some(window) => Cow::Owned(self.space.in_window(window)),
            None => Cow::Borrowed(&self.space),
        })
    }

    fn windowing(&self) -> Result<&dyn Windowing, BackendError> {
        self.store.capabilities().windows.ok_or_else(|| missing("windows"))
    }

    /// Asks the store for its time.
    pub(crate) async fn ask_time(&self) -> Result<(), BackendError> {
        if let Some(clock) = &self.clock {
            let sent = Instant::now();
            let time = self.sent(Kind::Read, self.windowing()?.time(&self.space)).await?;
            clock.note(sent, time);
        }
        Ok(())
    }

    /// The window that is current; `None` where there are no windows. No I/O, if the store has told its time of late.
    pub(crate) async fn window(&self) -> Result<Option<Window>, BackendError> {
        let Some(clock) = &self.clock else { return Ok(None) };
        if clock.age().is_none_or(|age| age > CLOCK_LASTS) {
            self.ask_time().await.map_err(BackendError::with_nothing_applied)?;
        }
        Ok(clock.current())
    }

    /// The window that is current as far as this process knows. Where it knows nothing yet, any other: then the store
    /// turns the request down and tells its time, safe from lost answers as everything that is sent.
    fn choose(&self) -> Result<Chosen<'_>, BackendError> {
        let Some(clock) = self.clock.as_deref() else { return Ok(Chosen(None)) };
        self.windowing()?;
        let window = clock.current().unwrap_or_else(|| clock.windows().at(Duration::ZERO));
        Ok(Chosen(Some((clock, Mutex::new(window)))))
    }

    /// Sends a request to the window that was chosen, and where that is not the current one, to the one that is.
    async fn in_current<'s, T, F>(
        &'s self,
        chosen: &Chosen<'_>,
        request: impl Fn(Cow<'s, Space>) -> F,
    ) -> Result<T, BackendError>
    where
        F: Future<Output = Result<T, BackendError>>,
    {
        let Some((clock, chosen)) = &chosen.0 else {
            return request(self.within(None)?).await;
        };
        let mut moves = 0;
        loop {
            let window = *chosen.lock();
            let sent = Instant::now();
            match request(self.within(Some(window))?).await {
                Err(BackendError::NotCurrent { now }) if moves < MOVES => {
                    moves += 1;
                    clock.note(sent, now);
                    *chosen.lock() = clock.windows().at(now);
                }
                answer => return answer,
            }
        }
    }

    /// [`Backend::apply`] in that window, `None` for the whole space.
    pub(crate) async fn apply_in(
        &self,
        window: Option<Window>,
        writes: &[Write],
        guard: Option<&ReplayGuard>,
    ) -> Result<Applied, BackendError> {
        let space = self.within(window)?;
        let sent = Instant::now();
        let applied = self.sent(Kind::Write, self.store.apply(&space, writes, guard)).await;
        match (&applied, guard) {
            (Ok(applied), Some(guard)) => {
                self.lost(self.losses.of_writer(guard, sent, applied.record.as_ref()));
            }
            (Err(BackendError::Forgotten), _) => self.lost(self.losses.forgotten()),
            _ => {}
        }
        let applied = applied?;
        counted(writes.len(), &applied.outcomes)?;
        Ok(applied)
    }

    /// Applies the writes in one attempt, and not safe from being applied twice.
    async fn apply(&self, writes: &[Write]) -> Result<Applied, BackendError> {
        let chosen = self.choose()?;
        self.in_current(&chosen, |space| self.apply_in(space.window(), writes, None)).await
    }

    /// Applies the writes once: sent again until they are answered, or the deadline. On a store that keeps no answers
    /// they are sent one time. With windows they are for the one that is current when the store applies them.
    pub(crate) async fn apply_once(
        &self,
        writes: &[Write],
        sender: &Sender,
        deadline: Option<Instant>,
    ) -> Result<Applied, BackendError> {
        let (Some(deadline), Some(store)) = (deadline, self.store.capabilities().recorded) else {
            return self.apply(writes).await;
        };
        let sent = self.once_in_current(sender, deadline, |space, lane| async move {
            store.apply_recorded(&space, writes, &lane).await
        });
        let Answered { answer: applied, before } = sent.await?;
        self.lost(self.losses.in_lane(applied.record.as_ref(), before));
        counted(writes.len(), &applied.outcomes)?;
        Ok(applied)
    }

    /// Clears once, as [`apply_once`](Self::apply_once) applies.
    pub(crate) async fn clear_once(
        &self,
        sender: &Sender,
        deadline: Option<Instant>,
    ) -> Result<(), BackendError> {
        let (Some(deadline), Some(store)) = (deadline, self.store.capabilities().recorded) else {
            return self.clear_in(self.window().await?).await;
        };
        let sent = self.once_in_current(sender, deadline, |space, lane| async move {
            store.clear_recorded(&space, &lane).await
        });
        sent.await.map(drop)
    }

    /// Sends a request in a lane to the window that is current. It is known by its lane, whatever window it names: so
    /// one that is sent to another is applied once.
    async fn once_in_current<'s, T, F>(
        &'s self,
        sender: &Sender,
        deadline: Instant,
        request: impl Fn(Cow<'s, Space>, ReplayGuard) -> F,
    ) -> Result<Answered<T>, BackendError>
    where
        F: Future<Output = Result<T, BackendError>>,
    {
        let chosen = self.choose()?;
        let (chosen, request) = (&chosen, &request);
        let in_lane = |lane: ReplayGuard| async move {
            let lane = &lane;
            let attempt = |space| self.sent_in(lane, request(space, lane.clone()));
            self.in_current(chosen, attempt).await
        };
        self.send_in_lane(sender, deadline, in_lane).await
    }

    /// Reads what the keys hold, in the window that is current when the store answers.
    pub(crate) async fn read(&self, keys: &[RedisKey]) -> Result<Vec<Outcome<i64>>, BackendError> {
        if self.clock.is_none() {
            return self.read_in(None, keys).await;
        }
        let (chosen, store) = (self.choose()?, self.windowing()?);
        let read = self.in_current(&chosen, |space| async move {
            self.sent(Kind::Read, store.read_current(&space, keys)).await
        });
        let totals = read.await?;
        counted(keys.len(), &totals).map_err(BackendError::with_nothing_applied)?;
        Ok(totals)
    }

    pub(crate) async fn read_in(
        &self,
        window: Option<Window>,
        keys: &[RedisKey],
    ) -> Result<Vec<Outcome<i64>>, BackendError> {
        let space = self.within(window)?;
        let totals = self.sent(Kind::Read, self.store.read(&space, keys)).await?;
        counted(keys.len(), &totals).map_err(BackendError::with_nothing_applied)?;
        Ok(totals)
    }

    /// Some counters of a window: see [`Enumeration`].
    pub(crate) async fn page_in(
        &self,
        window: Option<Window>,
        from: Option<&Cursor>,
        filter: &KeyFilter,
        count: usize,
    ) -> Result<Page<(RedisKey, Outcome<i64>)>, BackendError> {
        let space = self.within(window)?;
        let request = self.enumeration()?.page(&space, from, filter, count);
        let mut page = self.sent(Kind::Read, request).await?;
        page.entries.retain(|(key, _)| filter.matches(key));
        Ok(page)
    }

    /// Some counters of the whole space.
    pub(crate) async fn page(
        &self,
        from: Option<&Cursor>,
        filter: &KeyFilter,
        count: usize,
    ) -> Result<Page<(RedisKey, Outcome<i64>)>, BackendError> {
        self.page_in(None, from, filter, count).await
    }

    /// How many counters the current window holds.
    pub(crate) async fn count(&self) -> Result<u64, BackendError> {
        let space = self.within(self.window().await?)?;
        self.sent(Kind::Read, self.enumeration()?.count(&space)).await
    }

    fn enumeration(&self) -> Result<&dyn Enumeration, BackendError> {
        self.store.capabilities().enumeration.ok_or_else(|| missing("listing"))
    }

    /// Adds under tokens, in one attempt. It may be repeated.
    pub(crate) async fn add_tokens(
        &self,
        items: &[TokenAdd],
        keep: Duration,
        resent: bool,
    ) -> Result<Vec<Outcome<AddedOnce>>, BackendError> {
        self.counts.add(Count::Resent, usize::from(resent));
        let added =
            self.sent(Kind::Write, self.tokens()?.add_once(&self.space, items, keep)).await?;
        counted(items.len(), &added)?;
        if !resent {
            // Else it may be an earlier attempt of this request.
            let replayed = added.iter().filter(|one| one.as_ref().is_ok_and(|one| one.replayed));
            self.counts.add(Count::Replayed, replayed.count());
        }
        Ok(added)
    }

    /// The same, sent again until it is answered, or the deadline. Without one it is sent one time.
    pub(crate) async fn add_tokens_once(
        &self,
        items: &[TokenAdd],
        keep: Duration,
        deadline: Option<Instant>,
    ) -> Result<Vec<Outcome<AddedOnce>>, BackendError> {
        self.again(deadline, |resent| self.add_tokens(items, keep, resent)).await
    }

    /// Sends a request that may be repeated until it is answered, or the deadline. Without one it is sent one time.
    async fn again<T, F>(
        &self,
        deadline: Option<Instant>,
        request: impl Fn(bool) -> F,
    ) -> Result<T, BackendError>
    where
        F: Future<Output = Result<T, BackendError>>,
    {
        match deadline {
            Some(deadline) => self.ended(send_again(deadline, request)).await,
            None => request(false).await,
        }
    }

    pub(crate) async fn resolve_tokens(
        &self,
        tokens: &[(RedisKey, Token)],
        keep: Duration,
    ) -> Result<Vec<Outcome<Resolved>>, BackendError> {
        let known =
            self.sent(Kind::Read, self.tokens()?.resolve(&self.space, tokens, keep)).await?;
        counted(tokens.len(), &known).map_err(BackendError::with_nothing_applied)?;
        Ok(known)
    }

    /// Resolves or forbids, sent again as [`add_tokens_once`](Self::add_tokens_once).
    pub(crate) async fn forbid_tokens(
        &self,
        tokens: &[(RedisKey, Token)],
        keep: Duration,
        deadline: Option<Instant>,
    ) -> Result<Vec<Outcome<Resolved>>, BackendError> {
        let store = self.tokens()?;
        let request = |resent| {
            self.counts.add(Count::Resent, usize::from(resent));
            self.sent(Kind::Write, store.forbid(&self.space, tokens, keep))
        };
        let known = self.again(deadline, request).await?;
        counted(tokens.len(), &known)?;
        Ok(known)
    }

    /// Whether additions under tokens can be taken here. No I/O.
    pub(crate) fn takes_tokens(&self) -> Result<(), BackendError> {
        self.tokens().map(drop)
    }

    fn tokens(&self) -> Result<&dyn Tokens, BackendError> {
        match &self.clock {
            Some(clock) => takes_tokens(&self.space.in_window(clock.windows().at(Duration::ZERO)))?,
            None => takes_tokens(&self.space)?,
        }
        self.store.capabilities().tokens.ok_or_else(|| missing("tokens"))
    }

    pub(crate) async fn clear_in(&self, window: Option<Window>) -> Result<(), BackendError> {
        let space = self.within(window)?;
        self.sent(Kind::Write, self.store.clear(&space)).await
    }
}
