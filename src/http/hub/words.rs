//! Numbers and durations as people write them.

/// `1,150` for 1150.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 person`, `1,150 people`.
pub fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

/// A duration in one unit, rounded up: minutes up to 90, hours up to 36, then days.
pub fn duration(seconds: u64) -> String {
    let (length, one, many) = match seconds {
        0..60 => return "under a minute".to_owned(),
        60..5_400 => (60, "minute", "minutes"),
        5_400..129_600 => (3_600, "hour", "hours"),
        _ => (86_400, "day", "days"),
    };
    counted(seconds.div_ceil(length), one, many)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (12_345, "12,345"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(count(number), text);
        }
        assert_eq!(counted(1, "person", "people"), "1 person");
        assert_eq!(counted(0, "person", "people"), "0 people");
    }

    #[test]
    fn a_length_of_time_has_one_unit() {
        for (seconds, text) in [
            (0, "under a minute"),
            (59, "under a minute"),
            (60, "1 minute"),
            (61, "2 minutes"),
            (5_399, "90 minutes"),
            (5_400, "2 hours"),
            (129_599, "36 hours"),
            (129_600, "2 days"),
            (2_592_000, "30 days"),
        ] {
            assert_eq!(duration(seconds), text, "{seconds}");
        }
    }
}
