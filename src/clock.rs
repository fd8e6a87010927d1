//! Time as a value. Everything that asks what time it is, or waits, does so through a [`Clock`],
//! so that a test can stop time, move it, let it run faster, or let waits pass at once.
//!
//! [`Clock::now`] never goes back while the process lives: when the machine's date is set back, it
//! goes on by the monotonic clock. So ages, deadlines and schedules that are computed from stored
//! moments stay right, and walk ids stay in order. [`Clock::date`] is the date as the machine has
//! it, for comparison with moments that came from outside.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use jiff::Timestamp;

/// Tells the time and waits.
#[derive(Debug, Clone, Default)]
pub struct Clock(ClockSource);

#[derive(Debug, Clone, Default)]
enum ClockSource {
    #[default]
    System,
    /// Milliseconds since the epoch. A wait moves it on at once.
    Skipping(Arc<AtomicI64>),
    /// From `start` on so many times as fast as the machine's clock, and so many milliseconds
    /// ahead of that.
    Driven {
        start: Timestamp,
        began_at: Instant,
        times: u32,
        ahead: Arc<AtomicI64>,
        /// How far the date is ahead of all that, in milliseconds; negative: it was set back.
        date_ahead: Arc<AtomicI64>,
        steady: Arc<Steady>,
    },
}

/// A date that never goes back: the furthest that the date was ever ahead of the monotonic clock.
#[derive(Debug)]
struct Steady {
    furthest: AtomicI64,
}

impl Steady {
    const fn new() -> Self {
        Self {
            furthest: AtomicI64::new(i64::MIN),
        }
    }

    /// The date in milliseconds, given what the machine has for it at this reading of the
    /// monotonic clock.
    fn millis(&self, date: i64, monotonic: i64) -> i64 {
        let ahead = date.saturating_sub(monotonic);
        let furthest = self.furthest.fetch_max(ahead, Ordering::Relaxed).max(ahead);
        monotonic.saturating_add(furthest)
    }
}

/// Of the machine's clock.
static STEADY: Steady = Steady::new();

impl Clock {
    /// The machine's clock.
    pub const fn system() -> Self {
        Self(ClockSource::System)
    }

    /// A clock that stands still at `start` until it is moved, and that skips every wait by
    /// moving itself to the wait's end. Clones share the time.
    pub fn skipping(start: Timestamp) -> Self {
        Self(ClockSource::Skipping(Arc::new(AtomicI64::new(
            start.as_millisecond(),
        ))))
    }

    /// The machine's clock until it is moved, from then on ahead of it. Waits are true waits, so
    /// that what works in the background does not spin. Clones share the time.
    pub fn movable() -> Self {
        Self::racing(Self::system().now(), 1)
    }

    /// A clock that begins at `start` and runs so many times as fast as the machine's. It can be
    /// moved too. Clones share the time.
    ///
    /// # Panics
    /// If `times` is 0.
    pub fn racing(start: Timestamp, times: u32) -> Self {
        assert!(times > 0, "a clock that stands still cannot be waited for");
        Self(ClockSource::Driven {
            start,
            began_at: Instant::now(),
            times,
            ahead: Arc::default(),
            date_ahead: Arc::default(),
            steady: Arc::new(Steady::new()),
        })
    }

    /// Now, in whole milliseconds: as it is stored. It never goes back while the process lives,
    /// whatever is done to the machine's date.
    pub fn now(&self) -> Timestamp {
        let date = self.date_millis();
        let millis = match &self.0 {
            ClockSource::System => {
                STEADY.millis(date, duration_millis(since_origin(Instant::now())))
            }
            ClockSource::Skipping(_) => date,
            ClockSource::Driven { steady, .. } => {
                steady.millis(date, duration_millis(self.monotonic()))
            }
        };
        timestamp(millis)
    }

    /// The date as the machine has it, in whole milliseconds. It may be set back at any time.
    pub fn date(&self) -> Timestamp {
        timestamp(self.date_millis())
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "this is the place where time comes in"
    )]
    fn date_millis(&self) -> i64 {
        match &self.0 {
            ClockSource::System => Timestamp::now().as_millisecond(),
            ClockSource::Skipping(millis) => millis.load(Ordering::SeqCst),
            ClockSource::Driven {
                start, date_ahead, ..
            } => {
                let ahead = date_ahead.load(Ordering::SeqCst);
                start.as_millisecond() + duration_millis(self.monotonic()) + ahead
            }
        }
    }

    /// Sets the date of a driven clock back; the monotonic clock goes on. With any other it does
    /// nothing.
    pub fn set_date_back(&self, by: Duration) {
        if let ClockSource::Driven { date_ahead, .. } = &self.0 {
            // What the date was before is what it may not fall behind.
            self.now();
            date_ahead.fetch_sub(duration_millis(by), Ordering::SeqCst);
        }
    }

    /// A reading that never steps back, whatever is done to the machine's date. Only the
    /// difference of two readings means anything: it is what limits and pauses are measured by.
    /// It is the runtime's time, which waits are made by too.
    pub fn monotonic(&self) -> Duration {
        let millis = |millis: &AtomicI64| {
            Duration::from_millis(u64::try_from(millis.load(Ordering::SeqCst)).unwrap_or(0))
        };
        match &self.0 {
            ClockSource::System => since_origin(tokio::time::Instant::now().into_std()),
            ClockSource::Skipping(now) => millis(now),
            ClockSource::Driven {
                began_at,
                times,
                ahead,
                ..
            } => began_at.elapsed() * *times + millis(ahead),
        }
    }

    /// Waits for `wait` as this clock has it; a skipping one only moves the time on and lets
    /// others run.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the place where waits are made"
    )]
    pub async fn sleep(&self, wait: Duration) {
        match &self.0 {
            ClockSource::System => tokio::time::sleep(wait).await,
            ClockSource::Driven { times, .. } => tokio::time::sleep(wait / *times).await,
            ClockSource::Skipping(_) => {
                let target = self.now().as_millisecond() + duration_millis(wait);
                tokio::task::yield_now().await;
                if let ClockSource::Skipping(millis) = &self.0 {
                    millis.fetch_max(target, Ordering::SeqCst);
                }
            }
        }
    }

    /// Moves a clock that can be moved on. With the machine's own it does nothing.
    pub fn advance(&self, by: Duration) {
        if let ClockSource::Skipping(millis) | ClockSource::Driven { ahead: millis, .. } = &self.0 {
            millis.fetch_add(duration_millis(by), Ordering::SeqCst);
        }
    }
}

/// How long `now` is after a moment that stays the same while the process lives.
fn since_origin(now: Instant) -> Duration {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    // Well before now: a runtime whose time stands still may have begun to before anybody asked.
    let origin = *ORIGIN.get_or_init(|| {
        let now = Instant::now();
        now.checked_sub(Duration::from_secs(3600)).unwrap_or(now)
    });
    now.saturating_duration_since(origin)
}

fn timestamp(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(millis).expect("every clock stays within jiff's range")
}

fn duration_millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 4)
}

/// How long ago `then` was at `now`; zero if it lies ahead.
pub fn since(now: Timestamp, then: Timestamp) -> Duration {
    let millis = now.as_millisecond().saturating_sub(then.as_millisecond());
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_date_that_is_set_back_is_not_followed_and_one_that_is_set_ahead_is() {
        let steady = Steady::new();
        // The date, the monotonic clock, and what comes of both.
        for (date, monotonic, expected) in [
            (1_000_000, 0, 1_000_000),
            (1_000_500, 500, 1_000_500),
            (400_000, 1_000, 1_001_000),
            (400_500, 1_500, 1_001_500),
            (2_000_000, 2_000, 2_000_000),
            (1_002_500, 2_500, 2_000_500),
        ] {
            assert_eq!(steady.millis(date, monotonic), expected);
        }
    }

    #[test]
    fn a_clock_goes_on_when_its_date_is_set_back() {
        let clock = Clock::movable();
        let before = clock.now();
        clock.set_date_back(HOUR * 24);
        clock.advance(HOUR);
        assert!(since(clock.now(), before) >= HOUR);
        assert!(clock.date() < before);
    }
}
