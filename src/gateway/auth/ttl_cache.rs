//! A cache of the rows that every request needs: API keys and accounts.
//!
//! Every request authenticates its key and its account without waiting for the database. Both are
//! therefore cached for less than a second, which bounds how late this process notices a revocation
//! made elsewhere (by another replica or the command line). While a slow look-up is in flight,
//! requests use the cached value, up to [`MAX_AGE`] after it was last read. Beyond that age they
//! wait for the look-up. Only while the store does not answer do requests use older values, and
//! [`Cached::is_store_down`] reports it.
//!
//! A change made by this process *invalidates* a value: the store must be read before the value is
//! used again, and the value is kept in case the store does not answer. A value is *removed* if it
//! must not be used again, whatever the store answers: a revoked key, a disconnected account. Only
//! these two cancel a look-up in flight, so that its result is not cached.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use moka::{ops::compute::Op, sync::Cache};
use tokio::{sync::watch, time::Instant};

use crate::error::{Error, Kind, Result};

/// A value is used without reading the store for this long.
const FRESH_FOR: Duration = Duration::from_millis(500);

/// While a look-up refreshes a value of up to this age, requests use the value without waiting. It
/// is below the second within which a change made elsewhere must take effect.
const USABLE_FOR: Duration = Duration::from_millis(800);

/// A request that has a usable value waits for a look-up no longer than this.
const LOOKUP_TIMEOUT: Duration = Duration::from_millis(200);

/// While the store answers, no request uses a value that was read longer ago than this.
const MAX_AGE: Duration = Duration::from_secs(5);

/// After a look-up has had no answer for this long, the store counts as silent.
const STORE_TIMEOUT: Duration = Duration::from_secs(5);

/// After a failed look-up, requests use the value without another look-up for this long.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// Whether the store leaves look-ups unanswered. Clones share the state.
#[derive(Debug, Clone, Default)]
pub struct StoreSilence(Arc<AtomicBool>);

impl StoreSilence {
    fn is_silent(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, is_silent: bool) {
        self.0.store(is_silent, Ordering::Relaxed);
    }
}

pub struct TtlCache<K, V>(Arc<CacheInner<K, V>>);

struct CacheInner<K, V> {
    entries: Cache<K, CacheEntry<V>>,
    /// The look-ups in flight, at most one for each key. A canceled look-up is not here.
    lookups: Mutex<HashMap<K, Lookup<V>>>,
    /// Numbers look-ups and changes in the order in which they began.
    generations: AtomicU64,
    /// Values of an earlier generation are invalidated.
    valid_from: AtomicU64,
    silence: StoreSilence,
    /// The maximum age of a value while the store does not answer.
    max_stale: Duration,
}

struct CacheEntry<V> {
    /// None if this process removed it and has not read it since, or if the store no longer has it.
    value: Option<Arc<V>>,
    /// When the look-up that found the value began, on the monotonic clock.
    read_at: Duration,
    is_invalidated: bool,
    generation: u64,
    /// When the last look-up failed, if none has succeeded since.
    failed_at: Option<Duration>,
}

struct Lookup<V> {
    generation: u64,
    began_at: Instant,
    outcome: watch::Receiver<Option<LookupOutcome<V>>>,
}

/// The value that a look-up found; None if the store has none.
type LookupOutcome<V> = Result<Option<Arc<V>>>;

/// A cached value, and whether it is used because the store does not answer.
pub struct Cached<V> {
    pub value: Arc<V>,
    pub is_store_down: bool,
}

impl<K, V> Clone for TtlCache<K, V> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<V> Clone for CacheEntry<V> {
    fn clone(&self) -> Self {
        Self {
            value: self.value.clone(),
            ..*self
        }
    }
}

impl<V> Clone for Lookup<V> {
    fn clone(&self) -> Self {
        Self {
            outcome: self.outcome.clone(),
            ..*self
        }
    }
}

impl<V> CacheEntry<V> {
    fn age(&self, now: Duration) -> Duration {
        now.saturating_sub(self.read_at)
    }

    fn is_younger_than(&self, age: Duration, now: Duration) -> bool {
        !self.is_invalidated && self.age(now) < age
    }

    fn has_just_failed(&self, now: Duration) -> bool {
        self.failed_at
            .is_some_and(|failed_at| now.saturating_sub(failed_at) < RETRY_AFTER)
    }
}

impl<V> Lookup<V> {
    /// Waits for the result.
    async fn outcome(mut self) -> LookupOutcome<V> {
        match self.outcome.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or(Ok(None)),
            Err(_) => Err(Error::internal("a look-up ended without a result")),
        }
    }
}

impl<K, V> TtlCache<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// A cache of at most `capacity` values. No value older than `max_stale` is used. Caches over
    /// one store share its `silence`.
    pub fn new(capacity: u64, max_stale: Duration, silence: StoreSilence) -> Self {
        Self(Arc::new(CacheInner {
            entries: Cache::new(capacity),
            lookups: Mutex::default(),
            generations: AtomicU64::new(0),
            valid_from: AtomicU64::new(0),
            silence,
            max_stale,
        }))
    }

    /// The value of `key`: cached, or found by `read`. None if the store has none. `now` is a time
    /// of the monotonic clock.
    ///
    /// # Errors
    /// The error of `read`; `store_unavailable` if the store does not answer and no value is
    /// cached, or only one that is older than `max_stale`.
    pub async fn get<F>(
        &self,
        key: K,
        now: Duration,
        read: impl FnOnce() -> F,
    ) -> Result<Option<Cached<V>>>
    where
        F: Future<Output = Result<Option<V>>> + Send + 'static,
    {
        let found = |value| Cached {
            value,
            is_store_down: false,
        };
        let Some((entry, value)) = self.0.known(&key) else {
            let outcome = self.0.lookup(&key, now, read).outcome().await?;
            return Ok(outcome.map(found));
        };
        if entry.is_younger_than(FRESH_FOR, now) {
            return Ok(Some(found(value)));
        }
        if entry.has_just_failed(now) {
            return self.0.stale(&entry, value, now);
        }
        let lookup = self.0.lookup(&key, now, read);
        if entry.is_younger_than(USABLE_FOR, now) {
            return Ok(Some(found(value)));
        }
        // Leave time for the wait: at its end the value must still be younger than `MAX_AGE`.
        let is_usable = entry.is_younger_than(MAX_AGE.saturating_sub(LOOKUP_TIMEOUT), now);
        let began_at = lookup.began_at;
        let deadline = if is_usable {
            Instant::now() + LOOKUP_TIMEOUT
        } else if self.0.silence.is_silent() {
            began_at + LOOKUP_TIMEOUT
        } else {
            began_at + STORE_TIMEOUT
        };
        match tokio::time::timeout_at(deadline, lookup.outcome()).await {
            Ok(Ok(outcome)) => Ok(outcome.map(found)),
            Ok(Err(error)) if error.kind() != Kind::StoreUnavailable => Err(error),
            Ok(Err(_)) => {
                self.0.silence.set(true);
                self.0.stale(&entry, value, now)
            }
            Err(_) => {
                let is_silent = began_at.elapsed() >= STORE_TIMEOUT;
                if is_silent {
                    self.0.silence.set(true);
                }
                if is_usable && !self.0.silence.is_silent() {
                    return Ok(Some(found(value)));
                }
                self.0.stale(&entry, value, now)
            }
        }
    }

    /// Invalidates every value, after this process has changed something that many of them depend
    /// on. Cancels look-ups in flight, which may have missed the change.
    pub fn invalidate_all(&self) {
        let generation = self.0.next_generation();
        let mut lookups = self.0.lookups();
        self.0.valid_from.fetch_max(generation, Ordering::SeqCst);
        lookups.retain(|_, lookup| lookup.generation > generation);
    }

    /// Invalidates the value of `key`, after this process has changed it.
    pub fn invalidate(&self, key: &K) {
        let known = self.0.known(key);
        self.change(key, known.map(|(entry, value)| (value, entry.read_at)));
    }

    /// As [`invalidate`](Self::invalidate), with the changed value. `now` is a time of the
    /// monotonic clock.
    pub fn replace(&self, key: &K, value: V, now: Duration) {
        self.change(key, Some((Arc::new(value), now)));
    }

    /// Removes the value of `key`, which must not be used again.
    pub fn remove(&self, key: &K) {
        self.change(key, None);
    }

    /// Removes every value for which `is_gone` is true.
    pub fn remove_where(&self, is_gone: impl Fn(&V) -> bool) {
        for (key, entry) in &self.0.entries {
            if entry.value.is_some_and(|value| is_gone(&value)) {
                self.remove(&key);
            }
        }
    }

    /// Whether a value of `key` is cached.
    pub fn contains(&self, key: &K) -> bool {
        self.0.known(key).is_some()
    }

    /// Whether any value is cached.
    pub fn has_any(&self) -> bool {
        let mut entries = self.0.entries.iter();
        entries.any(|(_, entry)| entry.value.is_some())
    }

    fn change(&self, key: &K, value: Option<(Arc<V>, Duration)>) {
        let (value, read_at) = value.map_or((None, Duration::ZERO), |(value, read_at)| {
            (Some(value), read_at)
        });
        let generation = self.0.next_generation();
        let entry = CacheEntry {
            value,
            read_at,
            is_invalidated: true,
            generation,
            failed_at: None,
        };
        self.0.lookups().remove(key);
        self.0.put(key, generation, |_| Some(entry));
    }
}

impl<K, V> CacheInner<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// The cached value of `key`, if there is one.
    fn known(&self, key: &K) -> Option<(CacheEntry<V>, Arc<V>)> {
        let mut entry = self.entries.get(key)?;
        let value = entry.value.clone()?;
        if entry.generation < self.valid_from.load(Ordering::SeqCst) {
            entry.is_invalidated = true;
        }
        Some((entry, value))
    }

    /// A value that is used because the store does not answer.
    fn stale(
        &self,
        entry: &CacheEntry<V>,
        value: Arc<V>,
        now: Duration,
    ) -> Result<Option<Cached<V>>> {
        if entry.age(now) > self.max_stale {
            return Err(store_down());
        }
        Ok(Some(Cached {
            value,
            is_store_down: true,
        }))
    }

    /// Joins the look-up of `key` in flight, or begins one. The look-up runs in its own task, so
    /// that its result is cached even if no request waits for it any more.
    fn lookup<F>(self: &Arc<Self>, key: &K, now: Duration, read: impl FnOnce() -> F) -> Lookup<V>
    where
        F: Future<Output = Result<Option<V>>> + Send + 'static,
    {
        let mut lookups = self.lookups();
        if let Some(lookup) = lookups.get(key) {
            return lookup.clone();
        }
        let (ends, outcome) = watch::channel(None);
        let lookup = Lookup {
            generation: self.next_generation(),
            began_at: Instant::now(),
            outcome,
        };
        lookups.insert(key.clone(), lookup.clone());
        drop(lookups);
        let read = read();
        // The task captures this, and dropping it removes the look-up from the list: also if `read`
        // panics, or if the task is dropped before it ran.
        let in_flight = InFlight {
            inner: Arc::clone(self),
            key: key.clone(),
            generation: lookup.generation,
        };
        tokio::spawn(async move {
            let outcome = read.await.map(|value| value.map(Arc::new));
            let InFlight {
                inner,
                key,
                generation,
            } = &in_flight;
            inner.record(key, *generation, now, &outcome);
            ends.send_replace(Some(outcome));
        });
        lookup
    }

    /// Caches the result of a look-up.
    fn record(&self, key: &K, generation: u64, now: Duration, outcome: &LookupOutcome<V>) {
        if outcome.is_ok() {
            self.silence.set(false);
        }
        self.put(key, generation, |known| match outcome {
            Ok(Some(value)) => Some(CacheEntry {
                value: Some(Arc::clone(value)),
                read_at: now,
                is_invalidated: false,
                generation,
                failed_at: None,
            }),
            // An unknown key is not cached, or a flood of unknown keys would evict the others.
            Ok(None) => known.map(|known| CacheEntry {
                value: None,
                generation,
                ..known
            }),
            Err(_) => known.map(|known| CacheEntry {
                failed_at: Some(now),
                ..known
            }),
        });
    }

    fn lookups(&self) -> MutexGuard<'_, HashMap<K, Lookup<V>>> {
        self.lookups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_generation(&self) -> u64 {
        self.generations.fetch_add(1, Ordering::SeqCst)
    }

    /// Replaces the entry of `key` by one of `generation`, unless the current one is of a later
    /// generation.
    fn put(
        &self,
        key: &K,
        generation: u64,
        entry: impl FnOnce(Option<CacheEntry<V>>) -> Option<CacheEntry<V>>,
    ) {
        self.entries.entry(key.clone()).and_compute_with(|known| {
            let known = known.map(moka::Entry::into_value);
            if known
                .as_ref()
                .is_some_and(|known| known.generation > generation)
            {
                return Op::Nop;
            }
            entry(known).map_or(Op::Nop, Op::Put)
        });
    }
}

/// A look-up in flight. Dropping it removes the look-up from the list.
struct InFlight<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    inner: Arc<CacheInner<K, V>>,
    key: K,
    generation: u64,
}

impl<K, V> Drop for InFlight<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    fn drop(&mut self) {
        let mut lookups = self.inner.lookups();
        let lookup = lookups.get(&self.key);
        if lookup.is_some_and(|lookup| lookup.generation == self.generation) {
            lookups.remove(&self.key);
        }
    }
}

/// The error for a store that does not answer while no usable value is cached.
pub fn store_down() -> Error {
    Error::new(Kind::StoreUnavailable, "the store does not answer")
        .with_retry_after(Duration::from_secs(5))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    type Numbers = TtlCache<u8, u8>;

    const DAY: Duration = Duration::from_secs(86_400);

    fn cache() -> Numbers {
        TtlCache::new(8, DAY, StoreSilence::default())
    }

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    async fn no_answer() -> Result<Option<u8>> {
        Err(store_down())
    }

    async fn read(value: Option<u8>) -> Result<Option<u8>> {
        Ok(value)
    }

    /// Lets this much of the paused time pass.
    async fn pass(time: Duration) {
        Clock::system().sleep(time).await;
    }

    /// A store that answers after this time.
    async fn slow(answers_in: Duration, value: Option<u8>) -> Result<Option<u8>> {
        pass(answers_in).await;
        Ok(value)
    }

    fn unwrap(cached: Result<Option<Cached<u8>>>) -> (u8, bool) {
        let cached = cached.unwrap().unwrap();
        (*cached.value, cached.is_store_down)
    }

    #[tokio::test]
    async fn a_change_made_elsewhere_is_seen_within_a_second() {
        let cache = cache();
        assert_eq!(unwrap(cache.get(1, at(0), || read(Some(7))).await).0, 7);
        assert_eq!(unwrap(cache.get(1, at(400), || read(Some(8))).await).0, 7);
        assert_eq!(unwrap(cache.get(1, at(999), || read(Some(8))).await).0, 8);
        let gone = cache.get(1, at(1999), || read(None)).await;
        assert!(gone.unwrap().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn no_proof_is_older_than_five_seconds_however_slow_the_store() {
        for latency in [at(50), at(300), at(400), at(1_000), at(2_400), at(4_900)] {
            let cache = cache();
            let began = Instant::now();
            cache.get(1, at(0), || read(Some(0))).await.unwrap();
            let is_revoked = |now: Duration| now > at(2_000);
            let mut last_use = at(0);
            // A request every 20 ms, concurrently. Some of them read the store.
            let mut requests = tokio::task::JoinSet::new();
            for _ in 0..1_000 {
                pass(at(20)).await;
                let cache = Numbers::clone(&cache);
                requests.spawn(async move {
                    let now = began.elapsed();
                    let found = if is_revoked(now) { None } else { Some(0) };
                    let found = cache.get(1, now, || slow(latency, found)).await;
                    found.unwrap().map(|cached| {
                        assert!(!cached.is_store_down);
                        began.elapsed()
                    })
                });
            }
            while let Some(used_at) = requests.join_next().await {
                last_use = last_use.max(used_at.unwrap().unwrap_or_default());
            }
            let bound = at(2_000) + (at(1_000) + latency * 2).min(MAX_AGE + at(20));
            assert!(last_use <= bound, "{latency:?}: {last_use:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_lookup_of_a_key_is_in_flight_at_a_time() {
        let cache = cache();
        cache.get(1, at(0), || read(Some(7))).await.unwrap();
        let asked = Arc::new(AtomicU64::new(0));
        let began = Instant::now();
        while began.elapsed() < at(4_000) {
            let asked = Arc::clone(&asked);
            let found = cache.get(1, began.elapsed(), || async move {
                asked.fetch_add(1, Ordering::SeqCst);
                slow(at(400), Some(7)).await
            });
            assert_eq!(unwrap(found.await), (7, false));
            pass(at(10)).await;
        }
        // The first at 500 ms, and each further one once the value is 500 ms old again.
        let asked = asked.load(Ordering::SeqCst);
        assert!((6..=8).contains(&asked), "{asked}");
    }

    #[tokio::test]
    async fn the_last_value_is_used_while_the_store_does_not_answer_and_no_longer_than_allowed() {
        let cache = cache();
        cache.get(1, at(0), || read(Some(7))).await.unwrap();
        assert_eq!(unwrap(cache.get(1, at(5000), no_answer).await), (7, true));
        assert!(cache.get(2, at(5000), no_answer).await.is_err());
        assert_eq!(unwrap(cache.get(1, DAY, no_answer).await), (7, true));
        let too_old = cache.get(1, DAY + at(1), no_answer).await;
        assert_eq!(too_old.err().unwrap().kind(), Kind::StoreUnavailable);
    }

    #[tokio::test]
    async fn a_changed_value_is_asked_for_again_and_kept_for_when_the_store_does_not_answer() {
        let cache = cache();
        for key in [1, 2] {
            cache.get(key, at(0), || read(Some(7))).await.unwrap();
        }
        cache.invalidate(&1);
        assert_eq!(unwrap(cache.get(1, at(1), || read(Some(8))).await).0, 8);
        cache.invalidate(&1);
        cache.invalidate_all();
        for (key, last) in [(1, 8), (2, 7)] {
            assert_eq!(unwrap(cache.get(key, at(2), no_answer).await), (last, true));
        }
        assert_eq!(unwrap(cache.get(2, at(600), || read(Some(9))).await).0, 9);
        cache.replace(&2, 10, at(600));
        assert_eq!(unwrap(cache.get(2, at(601), no_answer).await), (10, true));
    }

    #[tokio::test]
    async fn a_removed_value_does_not_come_back_when_the_store_does_not_answer() {
        let cache = cache();
        for key in [1, 2, 3] {
            cache.get(key, at(0), || read(Some(key))).await.unwrap();
        }
        cache.remove(&1);
        cache.remove_where(|value| *value == 2);
        // A value that the store no longer has is not kept either.
        let gone = cache.get(3, at(900), || read(None)).await;
        assert!(gone.unwrap().is_none());
        // A look-up that began before the removal does not bring the value back.
        let canceled = cache.get(1, at(1), || {
            let cache = Numbers::clone(&cache);
            async move {
                cache.remove(&1);
                Ok(Some(1))
            }
        });
        assert!(canceled.await.unwrap().is_some());
        for key in [1, 2, 3] {
            cache.invalidate(&key);
            cache.invalidate_all();
            assert!(cache.get(key, at(901), no_answer).await.is_err());
        }
        assert!(!cache.has_any());
    }

    #[tokio::test]
    async fn a_lookup_that_a_change_overtook_is_not_cached() {
        let cache = cache();
        let overtaken = cache.get(1, at(0), || {
            let cache = Numbers::clone(&cache);
            async move {
                let found = read(Some(7)).await;
                cache.invalidate(&1);
                found
            }
        });
        assert_eq!(unwrap(overtaken.await).0, 7);
        assert_eq!(unwrap(cache.get(1, at(1), || read(Some(8))).await).0, 8);

        // The same if another look-up has found meanwhile that the store has no value.
        let overtaken = cache.get(1, at(2000), || {
            let cache = Numbers::clone(&cache);
            async move {
                cache.invalidate(&1);
                let gone = cache.get(1, at(2000), || read(None)).await;
                assert!(gone.unwrap().is_none());
                read(Some(8)).await
            }
        });
        assert!(overtaken.await.unwrap().is_some());
        let next = cache.get(1, at(2001), || read(None)).await;
        assert!(next.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_failure_that_a_change_overtook_does_not_keep_the_store_from_being_asked() {
        let cache = cache();
        cache.get(1, at(0), || read(Some(7))).await.unwrap();
        let overtaken = cache.get(1, at(900), || {
            let cache = Numbers::clone(&cache);
            async move {
                cache.invalidate(&1);
                no_answer().await
            }
        });
        assert_eq!(unwrap(overtaken.await), (7, true));
        assert_eq!(
            unwrap(cache.get(1, at(901), || read(Some(8))).await),
            (8, false)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn requests_wait_once_for_a_store_that_has_stopped_answering() {
        let cache = cache();
        cache.get(1, at(0), || read(Some(7))).await.unwrap();
        cache.get(2, at(0), || read(Some(8))).await.unwrap();
        let silent = || std::future::pending::<Result<Option<u8>>>();
        // Young enough to be used.
        let began = Instant::now();
        assert_eq!(unwrap(cache.get(1, at(1_000), silent).await), (7, false));
        assert_eq!(began.elapsed(), LOOKUP_TIMEOUT);
        // Too old to be used while the store answers. The look-up began 200 ms ago.
        assert_eq!(unwrap(cache.get(1, at(6_000), silent).await), (7, true));
        assert!(began.elapsed() <= STORE_TIMEOUT + at(1));
        let known_silent = Instant::now();
        assert_eq!(unwrap(cache.get(1, at(6_100), silent).await), (7, true));
        assert_eq!(known_silent.elapsed(), Duration::ZERO);
        // Other keys wait only for a short time.
        assert_eq!(unwrap(cache.get(2, at(6_200), silent).await), (8, true));
        assert!(known_silent.elapsed() <= LOOKUP_TIMEOUT + at(1));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_waited_for_counts() {
        let cache = cache();
        cache.get(1, at(0), || read(Some(7))).await.unwrap();
        let late = cache.get(1, at(1_000), || slow(at(7_000), None)).await;
        assert_eq!(unwrap(late), (7, false));
        pass(at(7_000)).await;
        let gone = cache.get(1, at(8_200), || read(None)).await;
        assert!(gone.unwrap().is_none());
    }

    #[tokio::test]
    async fn requests_share_a_lookup() {
        let cache = cache();
        let (answer, answered) = tokio::sync::oneshot::channel();
        let first = cache.get(1, at(0), || async { Ok(answered.await.ok()) });
        let second = cache.get(1, at(1), || read(Some(9)));
        let store = async { answer.send(8).unwrap() };
        let (first, second, ()) = tokio::join!(first, second, store);
        assert_eq!((unwrap(first).0, unwrap(second).0), (8, 8));
    }

    /// The runtime of a worker ends with its thread, and so do look-ups that it has just begun.
    #[test]
    fn a_lookup_whose_runtime_ended_is_not_waited_for() {
        let cache = cache();
        let runtime = || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap()
        };
        let worker = runtime();
        worker.block_on(async {
            cache.get(1, at(0), || read(Some(7))).await.unwrap();
            // Young enough to be returned at once, so that the look-up has not run yet.
            let answered = cache.get(1, at(600), || read(Some(8))).await;
            assert_eq!(unwrap(answered).0, 7);
        });
        drop(worker);
        let other = runtime();
        let next = other.block_on(cache.get(1, at(900), || read(Some(9))));
        assert_eq!(unwrap(next), (9, false));
    }

    #[tokio::test]
    async fn a_lookup_that_panics_ends() {
        let cache = cache();
        let failed = cache.get(1, at(0), || async { panic!("on purpose") });
        assert_eq!(failed.await.err().unwrap().kind(), Kind::Internal);
        assert_eq!(unwrap(cache.get(1, at(1), || read(Some(8))).await).0, 8);
    }
}
