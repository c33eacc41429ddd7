//! Counts of connections by key. Touched when a connection begins and when it ends.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;

/// Counts by key. A key without a connection is not in it.
#[derive(Debug)]
pub(super) struct Permits<K> {
    /// 0 for no bound: then nothing is counted.
    limit: usize,
    taken: Mutex<HashMap<K, usize>>,
}

/// One connection that is counted, until it is dropped.
#[derive(Debug)]
pub(super) struct Permit<K: Eq + Hash> {
    permits: Arc<Permits<K>>,
    key: K,
}

impl<K: Eq + Hash + Clone> Permits<K> {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            taken: Mutex::default(),
        })
    }

    /// Counts one more; `Err` when there is no room for it. Without a bound nothing is counted.
    pub(super) fn take(
        self: &Arc<Self>,
        key: Option<K>,
        may_exceed: bool,
    ) -> Result<Option<Permit<K>>, NoRoom> {
        let Some(key) = key.filter(|_| self.limit > 0) else {
            return Ok(None);
        };
        let mut taken = self.taken.lock();
        match taken.entry(key.clone()) {
            Entry::Occupied(count) if *count.get() >= self.limit && !may_exceed => return Err(NoRoom),
            entry => *entry.or_insert(0) += 1,
        }
        Ok(Some(Permit {
            permits: Arc::clone(self),
            key,
        }))
    }
}

/// There is no room.
#[derive(Debug)]
pub(super) struct NoRoom;

impl<K: Eq + Hash> Drop for Permit<K> {
    fn drop(&mut self) {
        let mut taken = self.permits.taken.lock();
        if let Some(count) = taken.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.key);
            }
        }
        if taken.capacity() > 1024 && taken.len() < taken.capacity() / 4 {
            taken.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_has_more_than_the_limit_and_nothing_is_left_of_who_has_gone() {
        let permits = Permits::new(2);
        let first = permits.take(Some("a"), false).unwrap();
        let second = permits.take(Some("a"), false).unwrap();
        assert!(permits.take(Some("a"), false).is_err());
        let other = permits.take(Some("b"), false).unwrap();
        drop(first);
        let third = permits.take(Some("a"), false).unwrap();
        let beyond = permits.take(Some("a"), true).unwrap();
        drop((second, third));
        let again = permits.take(Some("a"), false).unwrap();
        drop((other, beyond, again));
        assert!(permits.taken.lock().is_empty());
    }

    #[test]
    fn without_a_limit_or_a_key_nobody_is_counted() {
        let permits = Permits::new(0);
        assert!(permits.take(Some("a"), false).unwrap().is_none());
        assert!(Permits::<&str>::new(1).take(None, false).unwrap().is_none());
        assert!(permits.taken.lock().is_empty());
    }
}
