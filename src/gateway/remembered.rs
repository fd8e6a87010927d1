//! What the store says, remembered for a moment.
//!
//! Every request proves its key and its account, and no request may wait for the database on the
//! hot path. So both are remembered for less than a second: that is how long a revocation made
//! elsewhere (another replica, the command line) may take to be seen; what this process changes
//! itself it forgets at once. When the store does not answer, the last known value is used and
//! the caller is told so: reads go on from memory while the store is down.

use std::{
    hash::Hash,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use moka::{ops::compute::Op, sync::Cache};

use crate::{
    clock::since,
    error::{Error, Kind, Result},
};

/// Below the second that G10 promises, with room for the read itself.
const FRESH_FOR: Duration = Duration::from_millis(500);

pub struct Remembered<K, V> {
    entries: Cache<K, Entry<V>>,
    /// Reads and changes, in the order in which they began and ended.
    turns: AtomicU64,
}

struct Entry<V> {
    /// None: changed by this process and not read since, or gone.
    value: Option<Arc<V>>,
    read_at: Timestamp,
    turn: u64,
}

impl<V> Entry<V> {
    /// Marks from which turn on a read may be remembered.
    const fn unread(turn: u64) -> Self {
        Self {
            value: None,
            read_at: Timestamp::UNIX_EPOCH,
            turn,
        }
    }
}

impl<V> Clone for Entry<V> {
    fn clone(&self) -> Self {
        Self {
            value: self.value.clone(),
            ..*self
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
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    pub fn new(capacity: u64) -> Self {
        Self {
            entries: Cache::new(capacity),
            turns: AtomicU64::new(0),
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
        let known = known.and_then(|entry| Some((entry.value?, entry.read_at)));
        if let Some((value, read_at)) = &known
            && since(now, *read_at) < FRESH_FOR
        {
            return Ok(Some(Recalled {
                value: Arc::clone(value),
                is_store_down: false,
            }));
        }
        let turn = self.turn();
        match read().await {
            Ok(Some(value)) => {
                let value = Arc::new(value);
                let entry = Entry {
                    value: Some(Arc::clone(&value)),
                    read_at: now,
                    turn,
                };
                self.put(key, entry);
                Ok(Some(Recalled {
                    value,
                    is_store_down: false,
                }))
            }
            Ok(None) => {
                // What was never there leaves no trace, or a flood of it would push out the rest.
                if self.entries.contains_key(&key) {
                    self.put(key, Entry::unread(turn));
                }
                Ok(None)
            }
            Err(error) if error.kind() == Kind::StoreUnavailable => match known {
                Some((value, _)) => Ok(Some(Recalled {
                    value,
                    is_store_down: true,
                })),
                None => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    /// Forgets `key`, because this process has just changed it. A read that began before that
    /// may have found it as it was: it is not remembered either.
    pub fn forget(&self, key: &K) {
        self.put(key.clone(), Entry::unread(self.turn()));
    }

    fn turn(&self) -> u64 {
        self.turns.fetch_add(1, Ordering::SeqCst)
    }

    /// Remembers an entry, unless what is remembered is of a later turn.
    fn put(&self, key: K, entry: Entry<V>) {
        self.entries.entry(key).and_compute_with(|known| {
            if known.is_some_and(|known| known.into_value().turn > entry.turn) {
                Op::Nop
            } else {
                Op::Put(entry)
            }
        });
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
                .get(1, at(400), || read(Some(8)))
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

    #[tokio::test]
    async fn a_read_that_a_change_overtook_is_not_remembered() {
        let memory = Remembered::new(8);
        let overtaken = memory.get(1, at(0), || async {
            let found = read(Some(7)).await;
            memory.forget(&1);
            found
        });
        assert_eq!(*overtaken.await.unwrap().unwrap().value, 7);
        let next = memory.get(1, at(1), || read(Some(8))).await;
        assert_eq!(*next.unwrap().unwrap().value, 8);

        // Nor where others have seen by then that it is gone.
        let overtaken = memory.get(1, at(2000), || async {
            memory.forget(&1);
            let gone = memory.get(1, at(2000), || read(None)).await;
            assert!(gone.unwrap().is_none());
            read(Some(8)).await
        });
        assert!(overtaken.await.unwrap().is_some());
        let next = memory.get(1, at(2001), || read(None)).await;
        assert!(next.unwrap().is_none());
    }
}
