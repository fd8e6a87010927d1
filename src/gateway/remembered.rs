//! What the store says, remembered for a moment.
//!
//! Every request proves its key and its account, and no request may wait for the database on the
//! hot path. So both are remembered for less than a second: that is how long a revocation made
//! elsewhere (another replica, the command line) may take to be seen; what this process changes
//! itself it forgets at once. When the store does not answer, the last known value is used and
//! the caller is told so: reads go on from memory while the store is down.

use std::{hash::Hash, sync::Arc, time::Duration};

use jiff::Timestamp;
use moka::sync::Cache;

use crate::{
    clock::since,
    error::{Error, Kind, Result},
};

/// Below the second that G10 promises, with room for the read itself.
const FRESH_FOR: Duration = Duration::from_millis(800);

pub struct Remembered<K, V> {
    entries: Cache<K, Entry<V>>,
}

struct Entry<V> {
    value: Arc<V>,
    read_at: Timestamp,
}

impl<V> Clone for Entry<V> {
    fn clone(&self) -> Self {
        Self {
            value: Arc::clone(&self.value),
            read_at: self.read_at,
        }
    }
}

/// A value, and whether the store could be asked about it.
pub struct Recalled<V> {
    pub value: Arc<V>,
    pub is_store_down: bool,
}

impl<K, V> Remembered<K, V>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    pub fn new(capacity: u64) -> Self {
        Self {
            entries: Cache::new(capacity),
        }
    }

    /// The value of `key`: remembered if that was read just now, else what `read` finds.
    pub async fn get<F>(
        &self,
        key: K,
        now: Timestamp,
        read: impl FnOnce() -> F,
    ) -> Result<Option<Recalled<V>>>
    where
        F: Future<Output = Result<Option<V>>>,
    {
        let known = self.entries.get(&key);
        if let Some(entry) = &known
            && since(now, entry.read_at) < FRESH_FOR
        {
            return Ok(Some(Recalled {
                value: Arc::clone(&entry.value),
                is_store_down: false,
            }));
        }
        match read().await {
            Ok(Some(value)) => {
                let value = Arc::new(value);
                self.entries.insert(
                    key,
                    Entry {
                        value: Arc::clone(&value),
                        read_at: now,
                    },
                );
                Ok(Some(Recalled {
                    value,
                    is_store_down: false,
                }))
            }
            Ok(None) => {
                self.entries.invalidate(&key);
                Ok(None)
            }
            Err(error) if error.kind() == Kind::StoreUnavailable => match known {
                Some(entry) => Ok(Some(Recalled {
                    value: entry.value,
                    is_store_down: true,
                })),
                None => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    /// Forgets `key`, because this process has just changed it.
    pub fn forget(&self, key: &K) {
        self.entries.invalidate(key);
    }
}

/// The error for when nothing is known and the store does not answer.
pub fn store_down() -> Error {
    Error::new(Kind::StoreUnavailable, "the store does not answer")
        .with_retry_after(Duration::from_secs(5))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(millis).unwrap()
    }

    async fn read(value: Option<u8>) -> Result<Option<u8>> {
        Ok(value)
    }

    #[tokio::test]
    async fn a_change_made_elsewhere_is_seen_within_a_second() {
        let memory = Remembered::new(8);
        assert_eq!(
            *memory
                .get(1, at(0), || read(Some(7)))
                .await
                .unwrap()
                .unwrap()
                .value,
            7
        );
        assert_eq!(
            *memory
                .get(1, at(700), || read(Some(8)))
                .await
                .unwrap()
                .unwrap()
                .value,
            7
        );
        assert_eq!(
            *memory
                .get(1, at(999), || read(Some(8)))
                .await
                .unwrap()
                .unwrap()
                .value,
            8
        );
        assert!(
            memory
                .get(1, at(1999), || read(None))
                .await
                .unwrap()
                .is_none()
        );
    }

    #[tokio::test]
    async fn the_last_known_value_outlives_the_store() {
        let memory = Remembered::new(8);
        memory.get(1, at(0), || read(Some(7))).await.unwrap();
        let recalled = memory
            .get(1, at(5000), || async { Err(store_down()) })
            .await
            .unwrap()
            .unwrap();
        assert_eq!((*recalled.value, recalled.is_store_down), (7, true));
        assert!(
            memory
                .get(2, at(5000), || async { Err(store_down()) })
                .await
                .is_err()
        );
    }

    #[tokio::test]
    async fn what_this_process_changed_is_forgotten_at_once() {
        let memory = Remembered::new(8);
        memory.get(1, at(0), || read(Some(7))).await.unwrap();
        memory.forget(&1);
        assert!(memory.get(1, at(1), || read(None)).await.unwrap().is_none());
    }
}
