//! Timestamps as they are stored and served: RFC 3339 in UTC with `Z`, with exactly three fraction
//! digits (whole milliseconds).
//!
//! A timestamp is truncated when it is received or created, and never rounded. The value that is
//! stored, compared and filtered is therefore the served one: a client that passes the newest
//! `updated_at` back as `filter[updated_after]` does not get that record again, and misses no later
//! one.

use std::fmt;

use jiff::Timestamp;
use serde::Serializer;

/// Truncates to the last whole millisecond that is not after `timestamp`.
pub fn cut(timestamp: Timestamp) -> Timestamp {
    // Euclidean division rounds down for times before 1970 too.
    let millis = timestamp.as_nanosecond().div_euclid(1_000_000);
    i64::try_from(millis)
        .ok()
        .and_then(|millis| Timestamp::from_millisecond(millis).ok())
        .unwrap_or(timestamp)
}

/// Formats as `2026-11-22T10:00:00.000Z`.
pub fn display(timestamp: Timestamp) -> impl fmt::Display {
    DisplayTimestamp(cut(timestamp))
}

struct DisplayTimestamp(Timestamp);

impl fmt::Display for DisplayTimestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}", self.0)
    }
}

/// A served field that is a timestamp or may be one.
pub trait MaybeTimestamp {
    fn timestamp(&self) -> Option<Timestamp>;
}

impl MaybeTimestamp for Timestamp {
    fn timestamp(&self) -> Option<Timestamp> {
        Some(*self)
    }
}

impl MaybeTimestamp for Option<Timestamp> {
    fn timestamp(&self) -> Option<Timestamp> {
        *self
    }
}

/// For `#[serde(serialize_with = "…")]` on every served timestamp.
///
/// # Errors
/// Those of `serializer`.
pub fn serialize<S: Serializer>(
    field: &impl MaybeTimestamp,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match field.timestamp() {
        Some(timestamp) => serializer.collect_str(&display(timestamp)),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_fraction_has_three_digits_and_is_cut_not_rounded() {
        for (text, meant) in [
            ("2026-11-22T10:00:00Z", "2026-11-22T10:00:00.000Z"),
            ("2026-11-22T10:00:00.1Z", "2026-11-22T10:00:00.100Z"),
            ("2026-11-22T10:00:00.1239999Z", "2026-11-22T10:00:00.123Z"),
            ("2026-11-22T10:00:59.999999999Z", "2026-11-22T10:00:59.999Z"),
            ("1969-12-31T23:59:59.9995Z", "1969-12-31T23:59:59.999Z"),
            ("1969-12-31T23:59:58.0001Z", "1969-12-31T23:59:58.000Z"),
            ("2026-11-22T12:00:00+02:00", "2026-11-22T10:00:00.000Z"),
        ] {
            let timestamp: Timestamp = text.parse().unwrap();
            assert_eq!(display(timestamp).to_string(), meant, "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_cut_value_is_the_last_millisecond_and_the_one_that_is_shown(
            seconds in -62_000_000_000_i64..250_000_000_000,
            nanos in 0_i32..1_000_000_000,
        ) {
            let timestamp = Timestamp::new(seconds, nanos).unwrap();
            let whole = cut(timestamp);
            let after = timestamp.as_nanosecond() - whole.as_nanosecond();
            prop_assert!((0..1_000_000).contains(&after));
            prop_assert_eq!(cut(whole), whole);
            prop_assert_eq!(display(timestamp).to_string().parse::<Timestamp>().unwrap(), whole);
        }
    }
}
