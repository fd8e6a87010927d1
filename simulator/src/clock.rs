//! The world's clock: the machine's clock plus the seconds from `POST /__control/clock`.
//!
//! It runs in real time because clients compare the times in replies (`modifiedAt`) with their own
//! clocks. No other module of this package reads the machine's clock.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;

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

    /// Advances the clock. Returns false, and changes nothing, if the result is out of range.
    pub fn advance(&mut self, by: Duration) -> bool {
        let Some(advanced) = self.advanced.checked_add(by) else {
            return false;
        };
        // A hundred years exceed every expiry and stay within the calendar's range.
        if advanced > Duration::from_secs(100 * 366 * 86_400) {
            return false;
        }
        self.advanced = advanced;
        true
    }
}
