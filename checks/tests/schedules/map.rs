use std::{borrow::Borrow, collections::BTreeMap, marker::PhantomData, sync::Arc};

use shuttle::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// The keys are shared so that a guard can show its own.
type Entries<K, V> = BTreeMap<String, (Arc<K>, V)>;

/// `dashmap`'s map with one shard: whoever holds an entry keeps out those who change the map.
pub struct DashMap<K, V, S> {
    entries: RwLock<Entries<K, V>>,
    hasher: PhantomData<S>,
}

pub struct Entry<G, K> {
    _guard: G,
    key: Arc<K>,
}

pub struct Vacant<'m, K, V> {
    entries: RwLockWriteGuard<'m, Entries<K, V>>,
    key: K,
}

impl<G, K> Entry<G, K> {
    pub fn key(&self) -> &K {
        &self.key
    }
}

impl<K: Borrow<str>, V: Default, S> DashMap<K, V, S> {
    pub fn with_hasher(_: S) -> Self {
        Self { entries: RwLock::default(), hasher: PhantomData }
    }

    pub fn get(&self, key: &str) -> Option<Entry<RwLockReadGuard<'_, Entries<K, V>>, K>> {
        let guard = self.entries.read().unwrap();
        let key = Arc::clone(&guard.get(key)?.0);
        Some(Entry { _guard: guard, key })
    }

    pub fn entry(&self, key: K) -> Vacant<'_, K, V> {
        Vacant { entries: self.entries.write().unwrap(), key }
    }

    pub fn iter(&self) -> impl Iterator<Item = Entry<(), K>> {
        let keys: Vec<_> =
            self.entries.read().unwrap().values().map(|(key, _)| Arc::clone(key)).collect();
        keys.into_iter().map(|key| Entry { _guard: (), key })
    }

    pub fn retain(&self, mut keep: impl FnMut(&K, &mut V) -> bool) {
        self.entries.write().unwrap().retain(|_, (key, value)| keep(key, value));
    }

    pub fn remove_if(&self, key: &str, remove: impl FnOnce(&K, &V) -> bool) {
        let mut entries = self.entries.write().unwrap();
        if entries.get(key).is_some_and(|(key, value)| remove(key, value)) {
            entries.remove(key);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.entries.read().unwrap().is_empty()
    }

    pub fn shrink_to_fit(&self) {}
}

impl<'m, K: Borrow<str>, V: Default> Vacant<'m, K, V> {
    pub fn or_default(mut self) -> Entry<RwLockWriteGuard<'m, Entries<K, V>>, K> {
        let name = self.key.borrow().to_owned();
        let (key, _) =
            self.entries.entry(name).or_insert_with(|| (Arc::new(self.key), V::default()));
        let key = Arc::clone(key);
        Entry { _guard: self.entries, key }
    }
}
