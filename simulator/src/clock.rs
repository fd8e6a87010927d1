//! The time in the world: the machine's clock, moved on by `POST /__control/clock`.
//!
//! It keeps to real time because clients compare what we say (`modifiedAt`) with their own clocks.
//! It is the only place of this package that asks the machine what time it is.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;

/// The world's clock.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    advanced: Duration,
}

impl Clock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one door through which time comes in"
    )]
    pub fn now(&self) -> Timestamp {
        Timestamp::try_from(SystemTime::now() + self.advanced)
            .expect("advance() refuses to leave the calendar")
    }

    /// Moves the world on. False, and nothing moves, if that would leave the calendar.
    pub fn advance(&mut self, by: Duration) -> bool {
        let Some(advanced) = self.advanced.checked_add(by) else {
            return false;
        };
        // A hundred years are enough for every expiry and far from the calendar's end.
        if advanced > Duration::from_secs(100 * 366 * 86_400) {
            return false;
        }
        self.advanced = advanced;
        true
    }
}
