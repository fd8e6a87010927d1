//! Whether to retry, and when. No other layer retries: an error from [`super::AccountClient::get`]
//! is final.

use std::{
    sync::Mutex,
    time::{Duration, SystemTime},
};

use jiff::Timestamp;

use super::token_limiter::RetryAfter;
use crate::clock::Clock;

/// Backoff bounds: the first applies before attempt 2 and doubles with each further attempt, up to
/// the second.
const SHORT: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(20));
const LONG: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(240));

/// Retries that are always allowed, so that an account with few calls can retry at all.
const FREE_RETRIES: u32 = 10;

/// The period over which calls and retries are counted.
const PERIOD: Duration = Duration::from_secs(60);

/// The expected duration of an outage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outage {
    Seconds,
    Minutes,
}

/// The maximum wait before attempt `number`. The actual wait is random up to it (full jitter), so
/// that calls that failed together are not retried together.
pub(super) fn backoff_bound(trouble: Outage, number: u32) -> Duration {
    let (first, most) = match trouble {
        Outage::Seconds => SHORT,
        Outage::Minutes => LONG,
    };
    let doublings = number.saturating_sub(2).min(16);
    (first * 2_u32.pow(doublings)).min(most)
}

/// Limits the retries of one account to a share of its calls: during an outage, retrying everything
/// makes it worse.
pub(super) struct RetryBudget {
    clock: Clock,
    percent: u32,
    counts: Mutex<PeriodCounts>,
}

/// Counts of the current period and the previous one.
#[derive(Default)]
struct PeriodCounts {
    period: u64,
    calls: [u32; 2],
    retries: [u32; 2],
}

impl RetryBudget {
    pub(super) fn new(clock: Clock, percent: u32) -> Self {
        Self {
            clock,
            percent,
            counts: Mutex::default(),
        }
    }

    /// Counts the first attempt of a call.
    pub(super) fn count_call(&self) {
        self.with_counts(|counts| counts.calls[0] += 1);
    }

    /// Uses one retry, if the budget has one left.
    pub(super) fn take(&self) -> bool {
        self.with_counts(|counts| {
            let calls = u64::from(counts.calls[0]) + u64::from(counts.calls[1]);
            let retries = u64::from(counts.retries[0]) + u64::from(counts.retries[1]);
            let allowed = u64::from(FREE_RETRIES) + calls * u64::from(self.percent) / 100;
            let is_left = retries < allowed;
            if is_left {
                counts.retries[0] += 1;
            }
            is_left
        })
    }

    fn with_counts<T>(&self, use_counts: impl FnOnce(&mut PeriodCounts) -> T) -> T {
        let period = self.clock.monotonic().as_secs() / PERIOD.as_secs();
        let mut counts = self
            .counts
            .lock()
            .expect("nothing panics while it holds the counts");
        match period.saturating_sub(counts.period) {
            0 => {}
            1 => {
                counts.calls = [0, counts.calls[0]];
                counts.retries = [0, counts.retries[0]];
            }
            _ => *counts = PeriodCounts::default(),
        }
        counts.period = period;
        use_counts(&mut counts)
    }
}

/// Parses `Retry-After`: seconds, with a fraction rounded up, or an HTTP date. A date is measured
/// against the provider's own `Date` header if it sent one, so that neither clock has to be right.
/// An empty value counts as absent.
pub(super) fn parse_retry_after(
    retry_after: Option<&[u8]>,
    date: Option<&[u8]>,
    now: Timestamp,
) -> RetryAfter {
    let Some(value) = retry_after else {
        return RetryAfter::Unsaid;
    };
    let Ok(text) = std::str::from_utf8(value).map(str::trim) else {
        return RetryAfter::Unreadable;
    };
    if text.is_empty() {
        return RetryAfter::Unsaid;
    }
    if let Some(seconds) = seconds(text) {
        return RetryAfter::After(Duration::from_secs(seconds));
    }
    let Ok(then) = httpdate::parse_http_date(text) else {
        return RetryAfter::Unreadable;
    };
    let now = date
        .and_then(|date| std::str::from_utf8(date).ok())
        .and_then(|date| httpdate::parse_http_date(date.trim()).ok())
        .unwrap_or_else(|| SystemTime::from(now));
    RetryAfter::After(then.duration_since(now).unwrap_or(Duration::ZERO))
}

/// Parses decimal digits with an optional fraction, rounded up to whole seconds. A number that
/// overflows becomes the maximum, which is beyond every obeyed wait.
fn seconds(text: &str) -> Option<u64> {
    let text = text.strip_prefix('+').unwrap_or(text);
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_decimal = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
    if !is_decimal(whole) || !is_decimal(fraction) || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    let seconds = match whole {
        "" => 0,
        whole => whole.parse().unwrap_or(u64::MAX),
    };
    let is_more = fraction.bytes().any(|digit| digit != b'0');
    Some(seconds.saturating_add(u64::from(is_more)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &str) -> RetryAfter {
        parse_retry_after(Some(value.as_bytes()), None, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn retry_after_is_read_in_every_form() {
        let after = |seconds| RetryAfter::After(Duration::from_secs(seconds));
        assert_eq!(read("7"), after(7));
        assert_eq!(read(" 0 "), after(0));
        assert_eq!(read("99999999999999999999999999"), after(u64::MAX));
        assert_eq!(read("Thu, 01 Jan 1970 00:02:00 GMT"), after(120));
        assert_eq!(read("Thursday, 01-Jan-70 00:02:00 GMT"), after(120));
        assert_eq!(
            parse_retry_after(
                Some(b"Sat, 10 Oct 2026 10:00:30 GMT"),
                Some(b"Sat, 10 Oct 2026 10:00:00 GMT"),
                Timestamp::UNIX_EPOCH
            ),
            after(30)
        );
        let past = parse_retry_after(
            Some(b"Thu, 01 Jan 1970 00:00:00 GMT"),
            None,
            Timestamp::from_second(60).unwrap(),
        );
        assert_eq!(past, after(0));
        for (fraction, rounded) in [
            ("1.5", 2),
            ("0.2", 1),
            ("30.0", 30),
            ("30.", 30),
            (".5", 1),
            ("+7", 7),
            (" 59.001\t", 60),
            ("99999999999999999999999999.9", u64::MAX),
        ] {
            assert_eq!(read(fraction), after(rounded), "{fraction:?}");
        }
        assert_eq!(read("Thu Jan  1 00:02:00 1970"), after(120));
        for empty in ["", " ", "\t"] {
            assert_eq!(read(empty), RetryAfter::Unsaid, "{empty:?}");
        }
        for unreadable in [
            "-5", "-0.5", "soon", "1.5.2", "1,5", ".", "1e3", "0x10", "7s", "\u{7}",
        ] {
            assert_eq!(read(unreadable), RetryAfter::Unreadable, "{unreadable:?}");
        }
        assert_eq!(
            parse_retry_after(Some(&[0xff]), None, Timestamp::UNIX_EPOCH),
            RetryAfter::Unreadable
        );
        assert_eq!(
            parse_retry_after(None, None, Timestamp::UNIX_EPOCH),
            RetryAfter::Unsaid
        );
    }

    #[test]
    fn the_bound_of_the_wait_doubles() {
        let bounds = |trouble| [2, 3, 4, 40].map(|number| backoff_bound(trouble, number));
        let millis = Duration::from_millis;
        assert_eq!(
            bounds(Outage::Seconds),
            [500, 1_000, 2_000, 20_000].map(millis)
        );
        assert_eq!(
            bounds(Outage::Minutes),
            [60_000, 120_000, 240_000, 240_000].map(millis)
        );
    }

    #[test]
    fn retries_are_a_fifth_of_the_calls_and_a_few() {
        let clock = Clock::skipping(Timestamp::UNIX_EPOCH);
        let budget = RetryBudget::new(clock.clone(), 20);
        for _ in 0..100 {
            budget.count_call();
        }
        assert_eq!((0..100).filter(|_| budget.take()).count(), 30);
        clock.advance(Duration::from_secs(60));
        assert!(!budget.take());
        clock.advance(Duration::from_secs(60));
        assert_eq!((0..100).filter(|_| budget.take()).count(), 10);
    }
}
