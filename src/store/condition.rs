//! The condition of the database: whether it answers and takes writes, by the outcome of the latest
//! statements.
//!
//! Every statement reports its outcome here ([`Condition::answered`], [`Condition::wrote`],
//! [`Condition::failed`]), and each replica writes a heartbeat. The condition is therefore known
//! without a query, and is at most a few seconds old. Only a committed write sets it to `Writable`.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{clock::Clock, model::availability::Availability};

/// The meaning of a failed statement for the condition of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StatementFault {
    /// The database takes no writes.
    ReadOnly,
    /// The database does not answer, or is about to stop.
    Unreachable,
    /// A temporary fault that changes nothing: another transaction's lock, a deadlock, a full
    /// queue.
    Passing,
    /// The statement was wrong, which means nothing for the condition.
    Ours,
}

/// The database counts as reachable for this long after an answer.
const RECENT: Duration = Duration::from_secs(5);

/// The shortest time between two renewals of the connections. If the new connections lead to the
/// same database, another renewal gains nothing.
const RENEWED_EVERY: Duration = Duration::from_secs(1);

/// The condition of one database. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Condition(Arc<ConditionInner>);

#[derive(Debug)]
struct ConditionInner {
    state: AtomicU8,
    /// The time of the last answer, in milliseconds of the monotonic clock.
    answered_at: AtomicU64,
    /// Connections that were opened before this are not reused.
    renewed_at: Mutex<Option<Instant>>,
    clock: Clock,
}

impl Condition {
    /// The condition of a database that was just opened, which included a write.
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

    /// The time since the last answer.
    pub(super) fn silent_for(&self) -> Duration {
        let answered_at = Duration::from_millis(self.0.answered_at.load(Ordering::Relaxed));
        self.0.clock.monotonic().saturating_sub(answered_at)
    }

    pub(super) fn has_answered_recently(&self) -> bool {
        self.silent_for() < RECENT
    }

    /// Records an answer, which proves nothing about writes.
    pub(super) fn answered(&self) {
        let now = self.0.clock.monotonic().as_millis();
        let now = u64::try_from(now).unwrap_or(u64::MAX);
        self.0.answered_at.fetch_max(now, Ordering::Relaxed);
        if self.get() == Availability::Unreachable {
            self.set(Availability::ReadOnly, None);
        }
    }

    /// Records a committed write.
    pub(super) fn wrote(&self) {
        self.answered();
        self.set(Availability::Writable, None);
    }

    /// Records a failed statement.
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

    /// Records that the store was closed.
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

    /// Marks every open connection as not to be reused, since it leads to a database that has
    /// stopped or is no longer the primary.
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

    /// True if a connection of this age may be reused.
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
