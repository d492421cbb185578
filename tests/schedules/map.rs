use std::{borrow::Borrow, collections::BTreeMap, marker::PhantomData, ops::Deref, sync::Arc};

use shuttle::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// The values are shared so that a guard can show its own.
type Entries<K, V> = BTreeMap<String, (K, Arc<V>)>;

/// `dashmap`'s map with one shard: whoever holds an entry keeps out those who change the map.
pub struct DashMap<K, V, S> {
    entries: RwLock<Entries<K, V>>,
    hasher: PhantomData<S>,
}

pub struct Entry<G, V> {
    _guard: G,
    value: Arc<V>,
}

pub struct Vacant<'m, K, V> {
    entries: RwLockWriteGuard<'m, Entries<K, V>>,
    key: K,
}

impl<G, V> Entry<G, V> {
    pub fn value(&self) -> &V {
        &self.value
    }
}

impl<G, V> Deref for Entry<G, V> {
    type Target = V;

    fn deref(&self) -> &V {
        &self.value
    }
}

impl<K: Borrow<str>, V, S> DashMap<K, V, S> {
    pub fn with_hasher(_: S) -> Self {
        Self { entries: RwLock::default(), hasher: PhantomData }
    }

    pub fn get(&self, key: &str) -> Option<Entry<RwLockReadGuard<'_, Entries<K, V>>, V>> {
        let guard = self.entries.read().unwrap();
        let value = Arc::clone(&guard.get(key)?.1);
        Some(Entry { _guard: guard, value })
    }

    pub fn entry(&self, key: K) -> Vacant<'_, K, V> {
        Vacant { entries: self.entries.write().unwrap(), key }
    }

    pub fn iter(&self) -> impl Iterator<Item = Entry<(), V>> {
        let values: Vec<_> =
            self.entries.read().unwrap().values().map(|(_, value)| Arc::clone(value)).collect();
        values.into_iter().map(|value| Entry { _guard: (), value })
    }

    pub fn retain(&self, mut keep: impl FnMut(&K, &mut V) -> bool) {
        self.entries.write().unwrap().retain(|_, (key, value)| {
            // Who iterates would keep the lock of the real map.
            Arc::get_mut(value).is_none_or(|value| keep(key, value))
        });
    }

    pub fn is_empty(&self) -> bool {
        self.entries.read().unwrap().is_empty()
    }

    pub fn shrink_to_fit(&self) {}
}

impl<'m, K: Borrow<str>, V> Vacant<'m, K, V> {
    pub fn or_insert_with(
        mut self,
        make: impl FnOnce() -> V,
    ) -> Entry<RwLockWriteGuard<'m, Entries<K, V>>, V> {
        let name = self.key.borrow().to_owned();
        let (_, value) = self.entries.entry(name).or_insert_with(|| (self.key, Arc::new(make())));
        let value = Arc::clone(value);
        Entry { _guard: self.entries, value }
    }
}
