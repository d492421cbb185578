//! Requests of copies of instance-aware counters.

use super::SpaceStore;
use crate::{
    KeyFilter, RedisKey,
    backend::{
        Backend, BackendError, Cursor, Epoch, Incarnation, Page, missing,
        transfer::{Export, Held, Life, Part, Registered, SliceTransfer, unasked},
    },
    counts::Kind,
};

/// How many counters are asked for at once.
const PORTION: usize = 50;

impl<B: Backend + ?Sized> SpaceStore<B> {
    /// Whether the store can copy instance-aware counters.
    pub(crate) fn can_transfer(&self) -> bool {
        let store = self.store.capabilities();
        store.transfer.is_some() && store.slice_enumeration.is_some()
    }

    /// Whether it has windows that are not closed.
    pub(crate) async fn any_window_open(&self) -> Result<bool, BackendError> {
        match self.store.capabilities().windows {
            Some(store) => self.sent(Kind::Read, store.any_open(&self.space)).await,
            None => Ok(false),
        }
    }

    /// How many instance-aware counters it has, as far as the store can tell.
    pub(crate) async fn slices_to_transfer(&self) -> Result<u64, BackendError> {
        match self.store.capabilities().slice_enumeration {
            Some(store) => self.sent(Kind::Read, store.count_on(&self.space)).await,
            None => Ok(0),
        }
    }

    pub(crate) async fn life(&self) -> Result<Option<Life>, BackendError> {
        match self.export(Export::Life).await? {
            Part::Life(life) => Ok(life),
            _ => Err(unasked()),
        }
    }

    /// All who are registered, and who expired and are not swept yet.
    pub(crate) async fn registered(&self) -> Result<Vec<Registered>, BackendError> {
        let (mut all, mut from) = (Vec::new(), None);
        loop {
            let Part::Members(page) = self.export(Export::Members(from.as_ref())).await? else {
                return Err(unasked());
            };
            all.extend(page.entries);
            from = page.next;
            if from.is_none() {
                return Ok(all);
            }
        }
    }

    pub(crate) async fn gone(
        &self,
        from: Option<&Cursor>,
    ) -> Result<Page<(String, u64)>, BackendError> {
        match self.export(Export::Gone(from)).await? {
            Part::Gone(page) => Ok(page),
            _ => Err(unasked()),
        }
    }

    pub(crate) async fn bare_epochs(
        &self,
        old: bool,
        from: Option<&Cursor>,
    ) -> Result<Page<(RedisKey, Epoch)>, BackendError> {
        match self.export(Export::Epochs { old, from }).await? {
            Part::Epochs { page, .. } => Ok(page),
            _ => Err(unasked()),
        }
    }

    /// Some counters that somebody has a slice of. A name that is none cannot be copied.
    pub(crate) async fn held_page(
        &self,
        from: Option<&Cursor>,
    ) -> Result<Page<Held>, BackendError> {
        let capabilities = self.store.capabilities();
        let store = capabilities.slice_enumeration.ok_or_else(|| missing("listing"))?;
        let all = KeyFilter::all();
        let request = store.page_on(&self.space, from, &all, PORTION);
        let page = self.sent(Kind::Read, request).await?;
        match page.foreign.first() {
            None => Ok(Page::new(self.held(&page.entries).await?, page.next)),
            Some(name) => Err(BackendError::Corrupt(format!("{name:?} is no counter's name"))),
        }
    }

    /// How these counters stand, in order.
    pub(crate) async fn held(&self, keys: &[RedisKey]) -> Result<Vec<Held>, BackendError> {
        let mut all = Vec::with_capacity(keys.len());
        while all.len() < keys.len() {
            let rest = &keys[all.len()..];
            let part = self.export(Export::Counters(&rest[..rest.len().min(PORTION)])).await?;
            match part {
                Part::Counters(some) if !some.is_empty() && some.len() <= rest.len() => {
                    all.extend(some);
                }
                _ => return Err(unasked()),
            }
        }
        Ok(all)
    }

    pub(crate) async fn import(&self, part: &Part) -> Result<Vec<Incarnation>, BackendError> {
        self.sent(Kind::Write, self.transfer()?.import(&self.space, part)).await
    }

    async fn export(&self, what: Export<'_>) -> Result<Part, BackendError> {
        self.sent(Kind::Read, self.transfer()?.export(&self.space, what)).await
    }

    fn transfer(&self) -> Result<&dyn SliceTransfer, BackendError> {
        let capabilities = self.store.capabilities();
        capabilities.transfer.ok_or_else(|| missing("copies of instance-aware counters"))
    }
}
