//! Whether the database answers and takes writes, as its last answers say.
//!
//! Every statement reports its outcome here ([`Condition::read`], [`Condition::wrote`], …), and each
//! replica writes a heartbeat. So the state is known without asking, and follows the database within
//! seconds. `Writable` is only ever concluded from a write that was committed.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{clock::Clock, model::availability::Availability};

/// What a failed statement says about the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StatementFault {
    /// It takes no writes.
    ReadOnly,
    /// It does not answer, or is about to stop.
    Unreachable,
    /// Nothing that lasts: a lock that another holds, a deadlock, a full queue.
    Passing,
    /// Nothing: the statement was wrong.
    Ours,
}

/// An answer this recent shows that the database can be reached.
const RECENT: Duration = Duration::from_secs(5);

/// Connections are not dropped again sooner than this: where the new ones lead to the same
/// database, nothing is gained.
const RENEWED_EVERY: Duration = Duration::from_secs(1);

/// The condition of one database. Clones are the same one.
#[derive(Debug, Clone)]
pub(super) struct Condition(Arc<ConditionInner>);

#[derive(Debug)]
struct ConditionInner {
    state: AtomicU8,
    /// When the database last answered, in milliseconds of the monotonic clock.
    answered_at: AtomicU64,
    /// Connections that were opened before this are not used again.
    renewed_at: Mutex<Option<Instant>>,
    clock: Clock,
}

impl Condition {
    /// Of a database that was just opened, which took a write.
    pub(super) fn new(clock: Clock) -> Self {
        let condition = Self(Arc::new(ConditionInner {
            state: AtomicU8::new(Availability::Writable as u8),
            answered_at: AtomicU64::new(0),
            renewed_at: Mutex::default(),
            clock,
        }));
        condition.answered();
        condition
    }

    pub(super) fn get(&self) -> Availability {
        Availability::ALL[usize::from(self.0.state.load(Ordering::Relaxed))]
    }

    /// How long ago the database last answered.
    pub(super) fn silent_for(&self) -> Duration {
        let answered_at = Duration::from_millis(self.0.answered_at.load(Ordering::Relaxed));
        self.0.clock.monotonic().saturating_sub(answered_at)
    }

    pub(super) fn has_answered_recently(&self) -> bool {
        self.silent_for() < RECENT
    }

    /// It answered, which says nothing about writes.
    pub(super) fn answered(&self) {
        let now = self.0.clock.monotonic().as_millis();
        let now = u64::try_from(now).unwrap_or(u64::MAX);
        self.0.answered_at.fetch_max(now, Ordering::Relaxed);
        if self.get() == Availability::Unreachable {
            self.set(Availability::ReadOnly, None);
        }
    }

    /// It committed a write.
    pub(super) fn wrote(&self) {
        self.answered();
        self.set(Availability::Writable, None);
    }

    /// A statement failed.
    pub(super) fn failed(&self, fault: StatementFault, error: &sqlx::Error) {
        match fault {
            StatementFault::ReadOnly => {
                self.answered();
                self.set(Availability::ReadOnly, Some(error));
            }
            StatementFault::Unreachable => self.set(Availability::Unreachable, Some(error)),
            StatementFault::Passing | StatementFault::Ours => {}
        }
    }

    /// The store was closed.
    pub(super) fn closed(&self) {
        self.0
            .state
            .store(Availability::Unreachable as u8, Ordering::Relaxed);
        self.0.answered_at.store(0, Ordering::Relaxed);
    }

    fn set(&self, state: Availability, error: Option<&sqlx::Error>) {
        let before = self.0.state.swap(state as u8, Ordering::Relaxed);
        if before == state as u8 {
            return;
        }
        let store = state.as_str();
        match error {
            Some(error) => tracing::warn!(store, %error, "store not available for writes"),
            None => tracing::info!(store, "store available again"),
        }
    }

    /// Has every connection that is open now dropped instead of used again: they lead to a database
    /// that has stopped, or is no longer the primary.
    pub(super) fn renew_connections(&self) {
        let mut renewed_at = self
            .0
            .renewed_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let is_due = |then: Instant| now.saturating_duration_since(then) >= RENEWED_EVERY;
        if renewed_at.is_none_or(is_due) {
            *renewed_at = Some(now);
        }
    }

    /// Whether a connection of this age may be used.
    pub(super) fn is_current(&self, age: Duration) -> bool {
        let renewed_at = self
            .0
            .renewed_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        renewed_at.is_none_or(|then| then.elapsed() > age)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_committed_write_shows_that_writes_are_taken() {
        let condition = Condition::new(Clock::system());
        assert_eq!(condition.get(), Availability::Writable);
        let error = sqlx::Error::PoolClosed;
        condition.failed(StatementFault::Unreachable, &error);
        assert_eq!(condition.get(), Availability::Unreachable);
        condition.answered();
        assert_eq!(condition.get(), Availability::ReadOnly);
        condition.failed(StatementFault::Passing, &error);
        condition.answered();
        assert_eq!(condition.get(), Availability::ReadOnly);
        condition.wrote();
        assert_eq!(condition.get(), Availability::Writable);
        condition.failed(StatementFault::ReadOnly, &error);
        assert_eq!(condition.get(), Availability::ReadOnly);
    }

    #[test]
    fn connections_that_were_open_when_they_were_renewed_are_not_used_again() {
        let condition = Condition::new(Clock::system());
        assert!(condition.is_current(Duration::from_secs(60)));
        condition.renew_connections();
        assert!(!condition.is_current(Duration::from_secs(60)));
        assert!(condition.is_current(Duration::ZERO));
    }
}
