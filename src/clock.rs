//! Time as a value. Everything that asks what time it is, or waits, does so through a [`Clock`],
//! so that a test can stop time, move it, let it run faster, or let waits pass at once.

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
pub struct Clock(Source);

#[derive(Debug, Clone, Default)]
enum Source {
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
    },
}

impl Clock {
    /// The machine's clock.
    pub const fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands still at `start` until it is moved, and that skips every wait by
    /// moving itself to the wait's end. Clones share the time.
    pub fn skipping(start: Timestamp) -> Self {
        Self(Source::Skipping(Arc::new(AtomicI64::new(
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
        Self(Source::Driven {
            start,
            began_at: Instant::now(),
            times,
            ahead: Arc::default(),
        })
    }

    /// Now, in whole milliseconds: as it is stored.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the place where time comes in"
    )]
    pub fn now(&self) -> Timestamp {
        let millis = match &self.0 {
            Source::System => Timestamp::now().as_millisecond(),
            Source::Skipping(millis) => millis.load(Ordering::SeqCst),
            Source::Driven { start, .. } => {
                start.as_millisecond() + duration_millis(self.monotonic())
            }
        };
        Timestamp::from_millisecond(millis).expect("every clock stays within jiff's range")
    }

    /// A reading that never steps back, whatever is done to the machine's date. Only the
    /// difference of two readings means anything: it is what limits and pauses are measured by.
    /// It is the runtime's time, which waits are made by too.
    pub fn monotonic(&self) -> Duration {
        static ORIGIN: OnceLock<Instant> = OnceLock::new();
        let millis = |millis: &AtomicI64| {
            Duration::from_millis(u64::try_from(millis.load(Ordering::SeqCst)).unwrap_or(0))
        };
        match &self.0 {
            Source::System => {
                // Well before now: a runtime whose time stands still may have begun to before
                // anybody asked.
                let origin = *ORIGIN.get_or_init(|| {
                    let now = Instant::now();
                    now.checked_sub(Duration::from_secs(3600)).unwrap_or(now)
                });
                tokio::time::Instant::now()
                    .into_std()
                    .saturating_duration_since(origin)
            }
            Source::Skipping(now) => millis(now),
            Source::Driven {
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
            Source::System => tokio::time::sleep(wait).await,
            Source::Driven { times, .. } => tokio::time::sleep(wait / *times).await,
            Source::Skipping(_) => {
                let target = self.now().as_millisecond() + duration_millis(wait);
                tokio::task::yield_now().await;
                if let Source::Skipping(millis) = &self.0 {
                    millis.fetch_max(target, Ordering::SeqCst);
                }
            }
        }
    }

    /// Moves a clock that can be moved on. With the machine's own it does nothing.
    pub fn advance(&self, by: Duration) {
        if let Source::Skipping(millis) | Source::Driven { ahead: millis, .. } = &self.0 {
            millis.fetch_add(duration_millis(by), Ordering::SeqCst);
        }
    }
}

fn duration_millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 4)
}

/// How long ago `then` was at `now`; zero if it lies ahead.
pub fn since(now: Timestamp, then: Timestamp) -> Duration {
    let millis = now.as_millisecond().saturating_sub(then.as_millisecond());
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}
