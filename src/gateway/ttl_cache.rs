//! What the store says, remembered for a moment.
//!
//! Every request proves its key and its account, and no request may wait for the database on the
//! hot path. So both are remembered for less than a second: that is how long a revocation made
//! elsewhere (another replica, the command line) may take to be seen. When the store does not
//! answer, the last known value is used and the caller is told so: reads go on from memory while
//! the store is down.
//!
//! A change that this process makes *invalidates* a value: the store must be asked before the value is
//! used again, and the value is kept for when it does not answer. A value is *removed* only when it
//! must not be used again whatever the store says: a revoked key, a disconnected account.

use std::{
    hash::Hash,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use moka::{ops::compute::Op, sync::Cache};
use tokio::sync::watch;

use crate::error::{Error, Kind, Result};

/// What was read so long ago is read again: below the second that G10 promises.
const FRESH_FOR: Duration = Duration::from_millis(500);

/// While one request reads it again, others go on with what is known for as long as this.
const USABLE_FOR: Duration = Duration::from_millis(800);

/// A store that has not answered after this much is taken for down by whoever knows a value.
const PATIENCE: Duration = Duration::from_millis(200);

/// How long it is waited for where the known value was invalidated, and so is known to be outdated.
const PATIENCE_OUTDATED: Duration = Duration::from_secs(2);

pub struct Remembered<K, V>(Arc<Memory<K, V>>);

struct Memory<K, V> {
    entries: Cache<K, Entry<V>>,
    /// Reads and changes, in the order in which they began and ended.
    turns: AtomicU64,
    /// What was read in an earlier turn than this is outdated.
    outdated_before: AtomicU64,
}

struct Entry<V> {
    /// None: removed by this process and not read since, or gone.
    value: Option<Arc<V>>,
    /// When the store was last asked, and answered or not, by the monotonic clock; None: it must
    /// be asked before the value is used.
    read_at: Option<Duration>,
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
            read_at: None,
            turn,
            reading: None,
            is_store_down: false,
        }
    }

    fn is_usable(&self, now: Duration) -> bool {
        let age = self.read_at.map(|read_at| now.saturating_sub(read_at));
        let bound = match self.reading {
            Some(_) => USABLE_FOR,
            None => FRESH_FOR,
        };
        self.value.is_some() && age.is_some_and(|age| age < bound)
    }

    const fn patience(&self) -> Duration {
        match self.read_at {
            Some(_) => PATIENCE,
            None => PATIENCE_OUTDATED,
        }
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
            outdated_before: AtomicU64::new(0),
        }))
    }

    /// The value of `key`: remembered if that was read just now, else what `read` finds. One
    /// request reads what many ask for; and whoever knows a value waits for the store no longer
    /// than a moment. `now` is of the monotonic clock.
    pub async fn get<F>(
        &self,
        key: K,
        now: Duration,
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
            let _ = tokio::time::timeout(entry.patience(), reading.changed()).await;
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
        let patience = known.as_ref().map_or(PATIENCE, Entry::patience);
        let Some(value) = known.and_then(|entry| entry.value) else {
            let found = reading.await.map_err(Error::internal)??;
            return Ok(found.map(|value| Recalled {
                value,
                is_store_down: false,
            }));
        };
        match tokio::time::timeout(patience, reading).await {
            Ok(Ok(Ok(found))) => Ok(found.map(|value| Recalled {
                value,
                is_store_down: false,
            })),
            Ok(Ok(Err(error))) if error.kind() != Kind::StoreUnavailable => Err(error),
            Ok(Err(failure)) => Err(Error::internal(failure)),
            Ok(Ok(Err(_))) | Err(_) => {
                let down = Entry {
                    value: Some(Arc::clone(&value)),
                    read_at: Some(now),
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

    /// Has the store asked before any value is used again, because this process has changed
    /// something that many entries depend on. Reads that began before that may have missed it.
    pub fn invalidate_all(&self) {
        let turn = self.0.turn();
        self.0.outdated_before.fetch_max(turn, Ordering::SeqCst);
    }

    /// Has the store asked before the value of `key` is used again, because this process has just
    /// changed it. A read that began before that may have found it as it was: it is not remembered
    /// either. Until the store answers, the former value is what there is.
    pub fn invalidate(&self, key: &K) {
        let value = self.0.known(key).and_then(|entry| entry.value);
        self.put_outdated(key, value);
    }

    /// As [`invalidate`](Self::invalidate), where it is known what the value has become.
    pub fn replace(&self, key: &K, value: V) {
        self.put_outdated(key, Some(Arc::new(value)));
    }

    /// Forgets `key`, because its value must not be used again. A read that began before that is
    /// not remembered either.
    pub fn remove(&self, key: &K) {
        self.put_outdated(key, None);
    }

    /// Removes every value for which this is true.
    pub fn remove_where(&self, is_gone: impl Fn(&V) -> bool) {
        for (key, entry) in &self.0.entries {
            if entry.value.is_some_and(|value| is_gone(&value)) {
                self.remove(&key);
            }
        }
    }

    /// Whether any value is known.
    pub fn has_any(&self) -> bool {
        let mut entries = self.0.entries.iter();
        entries.any(|(_, entry)| entry.value.is_some())
    }

    fn put_outdated(&self, key: &K, value: Option<Arc<V>>) {
        let memory = &self.0;
        let entry = Entry {
            value,
            ..Entry::unread(memory.turn())
        };
        memory.put(key.clone(), entry);
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
        now: Duration,
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
            read_at: Some(now),
            turn,
            reading: None,
            is_store_down: false,
        };
        self.put(key, entry);
        Ok(Some(value))
    }

    /// What is remembered of `key`, where that is a value.
    fn known(&self, key: &K) -> Option<Entry<V>> {
        let mut entry = self
            .entries
            .get(key)
            .filter(|entry| entry.value.is_some())?;
        if entry.turn < self.outdated_before.load(Ordering::SeqCst) {
            entry.read_at = None;
        }
        Some(entry)
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

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    async fn no_answer() -> Result<Option<u8>> {
        Err(store_down())
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
    async fn a_changed_value_is_asked_for_again_and_kept_for_when_the_store_does_not_answer() {
        let memory = Remembered::new(8);
        for key in [1, 2] {
            memory.get(key, at(0), || read(Some(7))).await.unwrap();
        }
        memory.invalidate(&1);
        let next = memory.get(1, at(1), || read(Some(8))).await.unwrap();
        assert_eq!(*next.unwrap().value, 8);
        memory.invalidate(&1);
        memory.invalidate_all();
        for (key, last) in [(1, 8), (2, 7)] {
            let recalled = memory.get(key, at(2), no_answer).await.unwrap().unwrap();
            assert_eq!((*recalled.value, recalled.is_store_down), (last, true));
        }
        let next = memory.get(2, at(600), || read(Some(9))).await.unwrap();
        assert_eq!(*next.unwrap().value, 9);
        memory.replace(&2, 10);
        let recalled = memory.get(2, at(601), no_answer).await.unwrap().unwrap();
        assert_eq!(*recalled.value, 10);
    }

    #[tokio::test]
    async fn a_removed_value_does_not_come_back_when_the_store_does_not_answer() {
        let memory = Arc::new(Remembered::new(8));
        for key in [1, 2, 3] {
            memory.get(key, at(0), || read(Some(key))).await.unwrap();
        }
        memory.remove(&1);
        memory.remove_where(|value| *value == 2);
        // A value that the store no longer has is not kept either.
        assert!(
            memory
                .get(3, at(600), || read(None))
                .await
                .unwrap()
                .is_none()
        );
        // Nor does a read bring one back that began before it was removed.
        let overtaken = memory.get(1, at(1), || {
            let memory = Arc::clone(&memory);
            async move {
                memory.remove(&1);
                Ok(Some(1))
            }
        });
        assert!(overtaken.await.unwrap().is_some());
        for key in [1, 2, 3] {
            memory.invalidate(&key);
            memory.invalidate_all();
            assert!(memory.get(key, at(700), no_answer).await.is_err());
        }
        assert!(!memory.has_any());
    }

    #[tokio::test]
    async fn a_read_that_a_change_overtook_is_not_remembered() {
        let memory = Arc::new(Remembered::new(8));
        let overtaken = memory.get(1, at(0), || {
            let memory = Arc::clone(&memory);
            async move {
                let found = read(Some(7)).await;
                memory.invalidate(&1);
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
                memory.invalidate(&1);
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
}
