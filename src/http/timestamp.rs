//! Parses timestamps of parameters and bodies.

use jiff::Timestamp;

use crate::model::timestamp::cut;

/// Parses `YYYY-MM-DDTHH:MM:SS[.frac](Z|±hh:mm)`: RFC 3339 without its optional spellings. A
/// fraction is truncated to milliseconds, as they are stored and served.
pub fn moment(text: &str) -> Option<Timestamp> {
    let (date_and_time, rest) = text.split_at_checked("YYYY-MM-DDTHH:MM:SS".len())?;
    let offset = match rest.strip_prefix('.') {
        None => rest,
        Some(fraction) => Some(fraction.trim_start_matches(|c: char| c.is_ascii_digit()))
            .filter(|offset| offset.len() < fraction.len())?,
    };
    let is_offset = offset == "Z" || has_form(offset, "+00:00") || has_form(offset, "-00:00");
    (has_form(date_and_time, "0000-00-00T00:00:00") && is_offset)
        .then(|| text.parse().ok().map(cut))
        .flatten()
}

/// Whether `text` equals `form`, where a zero in `form` stands for any digit.
fn has_form(text: &str, form: &str) -> bool {
    text.len() == form.len()
        && text.bytes().zip(form.bytes()).all(|(byte, form)| {
            if form == b'0' {
                byte.is_ascii_digit()
            } else {
                byte == form
            }
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_moment_is_taken_in_the_contracts_form_alone() {
        let at = |text: &str| moment(text).map(|moment| moment.to_string());
        for (text, meant) in [
            ("2020-01-01T00:00:00Z", "2020-01-01T00:00:00Z"),
            ("2020-01-01T00:00:00.000Z", "2020-01-01T00:00:00Z"),
            ("2020-02-29T23:59:59.123999999Z", "2020-02-29T23:59:59.123Z"),
            ("2020-01-01T02:00:00+02:00", "2020-01-01T00:00:00Z"),
            ("2019-12-31T18:30:00.5-05:30", "2020-01-01T00:00:00.5Z"),
        ] {
            assert_eq!(at(text).as_deref(), Some(meant), "{text}");
        }
        for text in [
            "",
            "2020-01-01",
            "2020-01-01T00:00:00",
            "2020-01-01 00:00:00Z",
            "2020-01-01t00:00:00Z",
            "2020-01-01T00:00:00z",
            "2020-01-01T00:00:00.Z",
            "2020-01-01T00:00:00,5Z",
            "2020-01-01T00:00:00 02:00",
            "2020-01-01T00:00:00+0200",
            "2020-01-01T00:00:00+02",
            "2020-01-01T00:00:00Z[UTC]",
            "2020-01-01T00:00Z",
            "2020-02-30T00:00:00Z",
            "2020-13-01T00:00:00Z",
            "2020-01-01T25:00:00Z",
            "20200101T000000Z",
            "+002020-01-01T00:00:00Z",
            "1577836800",
            "2020-01-01T00:00:0é",
            " 2020-01-01T00:00:00Z",
        ] {
            assert_eq!(at(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_moment_that_we_show_is_one_that_we_take(millis in -62_000_000_000_000_i64..250_000_000_000_000) {
            let shown = Timestamp::from_millisecond(millis).unwrap();
            prop_assert_eq!(moment(&shown.to_string()), Some(shown));
        }

        #[test]
        fn no_text_panics(text in ".*") {
            let _ = moment(&text);
        }
    }
}
