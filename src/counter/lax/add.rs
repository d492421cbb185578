//! Additions to a key, which most often need nothing but the key's cell.

use std::sync::Arc;

use super::Plain;
use crate::{DistkitError, RedisKey, backend::Backend, lax::Engine};

impl<B: Backend + ?Sized> Engine<Plain<B>> {
    /// Adds to a key with which nothing else is to be done. The whole total is this counter's own.
    #[inline]
    pub(super) fn add_to_key_quickly(self: &Arc<Self>, key: &RedisKey, count: i64) -> Option<i64> {
        self.with_known(key, |cell| self.add_quickly(cell, count)).flatten()
    }

    /// Adds to a key, whatever must be done besides; reads its total first when it is not known.
    #[cold]
    pub(super) async fn add_to_key(
        self: &Arc<Self>,
        key: &RedisKey,
        count: i64,
    ) -> Result<i64, DistkitError> {
        // Before the map is locked: another window needs another cell.
        self.use_clock();
        match self.with_known(key, |cell| self.add_to(cell, count)) {
            Some(added) => added,
            None => self.known_in_a_box(key).await.and_then(|cell| self.add_to(&cell, count)),
        }
    }
}
