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
use tokio::sync::watch;

use crate::{
    clock::since,
    error::{Error, Kind, Result},
};

/// What was read so long ago is read again: below the second that G10 promises.
const FRESH_FOR: Duration = Duration::from_millis(500);

/// While one request reads it again, others go on with what is known for as long as this.
const USABLE_FOR: Duration = Duration::from_millis(800);

/// A store that has not answered after this much is taken for down by whoever knows a value.
const PATIENCE: Duration = Duration::from_millis(200);

pub struct Remembered<K, V>(Arc<Memory<K, V>>);

struct Memory<K, V> {
    entries: Cache<K, Entry<V>>,
    /// Reads and changes, in the order in which they began and ended.
    turns: AtomicU64,
}

struct Entry<V> {
    /// None: changed by this process and not read since, or gone.
    value: Option<Arc<V>>,
    /// When the store was last asked, and answered or not.
    read_at: Timestamp,
    turn: u64,
    /// Ends with the request that reads it again, if one does.
    reading: Option<watch::Receiver<()>>,
    is_store_down: bool,
}

impl<V> Entry<V> {
    /// Marks from which turn on a read may be remembered.
    const fn unread(turn: u64) -> Self {
        Self {
            value: None,
            read_at: Timestamp::UNIX_EPOCH,
            turn,
            reading: None,
            is_store_down: false,
        }
    }

    fn is_usable(&self, now: Timestamp) -> bool {
        // A clock that was set back makes nothing fresh.
        let age = (now >= self.read_at).then(|| since(now, self.read_at));
        let bound = match self.reading {
            Some(_) => USABLE_FOR,
            None => FRESH_FOR,
        };
        self.value.is_some() && age.is_some_and(|age| age < bound)
    }

    fn recalled(&self) -> Option<Recalled<V>> {
        Some(Recalled {
            value: self.value.clone()?,
            is_store_down: self.is_store_down,
        })
    }
}

impl<V> Clone for Entry<V> {
    fn clone(&self) -> Self {
        Self {
            value: self.value.clone(),
            reading: self.reading.clone(),
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
        Self(Arc::new(Memory {
            entries: Cache::new(capacity),
            turns: AtomicU64::new(0),
        }))
    }

    /// The value of `key`: remembered if that was read just now, else what `read` finds. One
    /// request reads what many ask for; and whoever knows a value waits for the store no longer
    /// than a moment.
    pub async fn get<F>(
        &self,
        key: K,
        now: Timestamp,
        read: impl FnOnce() -> F,
    ) -> Result<Option<Recalled<V>>>
    where
        F: Future<Output = Result<Option<V>>> + Send + 'static,
    {
        let memory = &self.0;
        let mut known = memory.known(&key);
        if let Some(entry) = &known
            && !entry.is_usable(now)
            && let Some(mut reading) = entry.reading.clone()
        {
            // As many as ask after a quiet time would be too many for the store.
            let _ = tokio::time::timeout(PATIENCE, reading.changed()).await;
            known = memory.known(&key);
        }
        if let Some(entry) = &known
            && entry.is_usable(now)
        {
            return Ok(entry.recalled());
        }
        let turn = memory.turn();
        let (ends, reading) = watch::channel(());
        if let Some(entry) = &known {
            let being_read = Entry {
                turn,
                reading: Some(reading),
                ..entry.clone()
            };
            memory.put(key.clone(), being_read);
        }
        let reading = {
            let (memory, key, read) = (Arc::clone(memory), key.clone(), read());
            // In a task of its own: it is worth remembering whoever still waits for it.
            tokio::spawn(async move {
                let found = memory.note(key, turn, now, read.await);
                drop(ends);
                found
            })
        };
        let Some(value) = known.and_then(|entry| entry.value) else {
            let found = reading.await.map_err(Error::internal)??;
            return Ok(found.map(|value| Recalled {
                value,
                is_store_down: false,
            }));
        };
        match tokio::time::timeout(PATIENCE, reading).await {
            Ok(Ok(Ok(found))) => Ok(found.map(|value| Recalled {
                value,
                is_store_down: false,
            })),
            Ok(Ok(Err(error))) if error.kind() != Kind::StoreUnavailable => Err(error),
            Ok(Err(failure)) => Err(Error::internal(failure)),
            Ok(Ok(Err(_))) | Err(_) => {
                let down = Entry {
                    value: Some(Arc::clone(&value)),
                    read_at: now,
                    turn,
                    reading: None,
                    is_store_down: true,
                };
                memory.put(key, down);
                Ok(Some(Recalled {
                    value,
                    is_store_down: true,
                }))
            }
        }
    }

    /// Forgets everything, because this process has changed what many entries hang on. What is
    /// being read meanwhile may be remembered as it was, for as long as anything is.
    pub fn forget_all(&self) {
        self.0.entries.invalidate_all();
    }

    /// Forgets `key`, because this process has just changed it. A read that began before that
    /// may have found it as it was: it is not remembered either.
    pub fn forget(&self, key: &K) {
        let memory = &self.0;
        memory.put(key.clone(), Entry::unread(memory.turn()));
    }
}

impl<K, V> Memory<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Takes note of what the store said.
    fn note(
        &self,
        key: K,
        turn: u64,
        now: Timestamp,
        found: Result<Option<V>>,
    ) -> Result<Option<Arc<V>>> {
        let Some(value) = found? else {
            // What was never there leaves no trace, or a flood of it would push out the rest.
            if self.entries.contains_key(&key) {
                self.put(key, Entry::unread(turn));
            }
            return Ok(None);
        };
        let value = Arc::new(value);
        let entry = Entry {
            value: Some(Arc::clone(&value)),
            read_at: now,
            turn,
            reading: None,
            is_store_down: false,
        };
        self.put(key, entry);
        Ok(Some(value))
    }

    /// What is remembered of `key`, where that is a value.
    fn known(&self, key: &K) -> Option<Entry<V>> {
        self.entries.get(key).filter(|entry| entry.value.is_some())
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
        let memory = Arc::new(Remembered::new(8));
        let overtaken = memory.get(1, at(0), || {
            let memory = Arc::clone(&memory);
            async move {
                let found = read(Some(7)).await;
                memory.forget(&1);
                found
            }
        });
        assert_eq!(*overtaken.await.unwrap().unwrap().value, 7);
        let next = memory.get(1, at(1), || read(Some(8))).await;
        assert_eq!(*next.unwrap().unwrap().value, 8);

        // Nor where others have seen by then that it is gone.
        let overtaken = memory.get(1, at(2000), || {
            let memory = Arc::clone(&memory);
            async move {
                memory.forget(&1);
                let gone = memory.get(1, at(2000), || read(None)).await;
                assert!(gone.unwrap().is_none());
                read(Some(8)).await
            }
        });
        assert!(overtaken.await.unwrap().is_some());
        let next = memory.get(1, at(2001), || read(None)).await;
        assert!(next.unwrap().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_knows_a_value_waits_for_a_silent_store_a_moment_and_once() {
        let memory = Remembered::new(8);
        memory.get(1, at(0), || read(Some(7))).await.unwrap();
        let silent = || std::future::pending::<Result<Option<u8>>>();
        let began_at = tokio::time::Instant::now();
        let recalled = memory.get(1, at(1000), silent).await.unwrap().unwrap();
        assert_eq!((*recalled.value, recalled.is_store_down), (7, true));
        let waited = began_at.elapsed();
        assert!(waited <= PATIENCE + Duration::from_millis(1), "{waited:?}");
        let recalled = memory.get(1, at(1100), silent).await.unwrap().unwrap();
        assert!(recalled.is_store_down);
        assert_eq!(began_at.elapsed(), waited);
    }

    #[tokio::test]
    async fn one_request_reads_what_many_ask_for() {
        let memory = Arc::new(Remembered::new(8));
        memory.get(1, at(0), || read(Some(7))).await.unwrap();
        let recalled = memory.get(1, at(600), || {
            let memory = Arc::clone(&memory);
            async move {
                let beside = memory.get(1, at(700), || read(Some(9))).await;
                assert_eq!(*beside.unwrap().unwrap().value, 7);
                read(Some(8)).await
            }
        });
        assert_eq!(*recalled.await.unwrap().unwrap().value, 8);
    }

    #[tokio::test]
    async fn one_request_reads_what_many_ask_for_after_a_quiet_time() {
        let memory = Remembered::new(8);
        memory.get(1, at(0), || read(Some(7))).await.unwrap();
        let (answer, answered) = tokio::sync::oneshot::channel();
        let first = memory.get(1, at(5000), || async { Ok(answered.await.ok()) });
        let second = memory.get(1, at(5001), || read(Some(9)));
        let store = async { answer.send(8).unwrap() };
        let (first, second, ()) = tokio::join!(first, second, store);
        assert_eq!(*first.unwrap().unwrap().value, 8);
        assert_eq!(*second.unwrap().unwrap().value, 8);
    }

    #[tokio::test]
    async fn a_clock_that_is_set_back_keeps_nothing_alive() {
        let memory = Remembered::new(8);
        memory.get(1, at(5000), || read(Some(7))).await.unwrap();
        assert!(memory.get(1, at(1), || read(None)).await.unwrap().is_none());
    }
}
