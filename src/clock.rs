//! The clock. Code that needs the time or waits uses a [`Clock`], so that a test can stop time,
//! move it, speed it up, or skip waits.
//!
//! [`Clock::now`] never goes back while the process runs: if the machine's date is set back, it
//! continues by the monotonic clock. Ages, deadlines and schedules that are computed from stored
//! times therefore stay right, and walk ids stay in order. [`Clock::date`] is the machine's date,
//! for comparison with times that came from outside.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use jiff::Timestamp;

/// A source of time and of waits.
#[derive(Debug, Clone, Default)]
pub struct Clock(ClockSource);

#[derive(Debug, Clone, Default)]
enum ClockSource {
    #[default]
    System,
    /// Milliseconds since the epoch. A wait advances it at once.
    Skipping(Arc<AtomicI64>),
    /// Runs from `start` at `times` times the speed of the machine's clock, plus `ahead`
    /// milliseconds.
    Driven {
        start: Timestamp,
        began_at: Instant,
        times: u32,
        ahead: Arc<AtomicI64>,
        /// Milliseconds that the date is ahead of the monotonic time; negative after it was set
        /// back.
        date_ahead: Arc<AtomicI64>,
        steady: Arc<Steady>,
    },
}

/// A date that never goes back: it keeps the largest lead that the date ever had over the monotonic
/// clock.
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

    /// The steady date in milliseconds, from a date and a monotonic time that were read together.
    fn millis(&self, date: i64, monotonic: i64) -> i64 {
        let ahead = date.saturating_sub(monotonic);
        let furthest = self.furthest.fetch_max(ahead, Ordering::Relaxed).max(ahead);
        monotonic.saturating_add(furthest)
    }
}

/// For the machine's clock.
static STEADY: Steady = Steady::new();

impl Clock {
    /// The machine's clock.
    pub const fn system() -> Self {
        Self(ClockSource::System)
    }

    /// A clock that stands still at `start` until it is advanced. It skips each wait by advancing
    /// itself to the wait's end. Clones share the time.
    pub fn skipping(start: Timestamp) -> Self {
        Self(ClockSource::Skipping(Arc::new(AtomicI64::new(
            start.as_millisecond(),
        ))))
    }

    /// The machine's clock, ahead of it after [`Clock::advance`]. Waits take real time, so that
    /// background loops do not spin. Clones share the time.
    pub fn movable() -> Self {
        Self::racing(Self::system().now(), 1)
    }

    /// A clock that begins at `start` and runs at `times` times the speed of the machine's. It can
    /// be advanced. Clones share the time.
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

    /// The time in whole milliseconds, as it is stored. It never goes back while the process runs,
    /// even if the machine's date is set back.
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

    /// The machine's date, in whole milliseconds. It may go back at any time.
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

    /// Sets the date of a driven clock back; its monotonic time goes on. On other clocks this does
    /// nothing.
    pub fn set_date_back(&self, by: Duration) {
        if let ClockSource::Driven { date_ahead, .. } = &self.0 {
            // Reading the time records the date from before the change; `now` must not fall behind
            // it.
            self.now();
            date_ahead.fetch_sub(duration_millis(by), Ordering::SeqCst);
        }
    }

    /// A monotonic time, unaffected by changes of the machine's date. Only the difference of two
    /// values has a meaning. Rate limits and pauses are measured with it. The system clock takes it
    /// from the runtime, as waits do.
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

    /// Waits for `wait` in this clock's time. A skipping clock only advances and yields to other
    /// tasks.
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
                // Other tasks may run before the time advances.
                tokio::task::yield_now().await;
                if let ClockSource::Skipping(millis) = &self.0 {
                    millis.fetch_max(target, Ordering::SeqCst);
                }
            }
        }
    }

    /// Advances the clock. On the machine's clock this does nothing.
    pub fn advance(&self, by: Duration) {
        if let ClockSource::Skipping(millis) | ClockSource::Driven { ahead: millis, .. } = &self.0 {
            millis.fetch_add(duration_millis(by), Ordering::SeqCst);
        }
    }
}

/// The time from a fixed origin to `now`. The origin stays the same while the process runs.
fn since_origin(now: Instant) -> Duration {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    // An hour back: a runtime with paused time may have stopped before the first call of this
    // function.
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

/// The time from `then` to `now`; zero if `then` is later.
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
        // (date, monotonic time, expected date)
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
