//! The output of commands: a table for people, one line of JSON for machines. Text from providers
//! and customers can contain control characters; none of them reaches the terminal.

use std::{borrow::Cow, fmt::Write as _};

use comfy_table::{Table, presets::NOTHING};
use serde::Serialize;

use super::{Failure, say};

/// Whether a terminal interprets this character instead of showing it: the controls C0 and C1 of
/// ISO 6429, and the characters that change the direction of text (Unicode, UAX 9).
fn steers(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Replaces control characters in external text, line ends included.
pub(super) fn printable(text: &str) -> Cow<'_, str> {
    match text.contains(steers) {
        true => text.replace(steers, "\u{fffd}").into(),
        false => text.into(),
    }
}

/// Replaces control characters in a message, but keeps its line ends.
pub(super) fn printable_lines(text: &str) -> Cow<'_, str> {
    let steers = |c: char| c != '\n' && steers(c);
    match text.contains(steers) {
        true => text.replace(steers, "\u{fffd}").into(),
        false => text.into(),
    }
}

/// Prints one line for each row, under the headers, in columns two spaces apart. Rows are never
/// wrapped, so that `grep` finds them, and control characters in cells are replaced.
pub(super) fn table<const COLUMNS: usize>(
    headers: [&str; COLUMNS],
    rows: impl IntoIterator<Item = [String; COLUMNS]>,
) -> Result<(), Failure> {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(headers);
    for row in rows {
        table.add_row(row.map(|cell| printable(&cell).into_owned()));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    say(table.trim_fmt())
}

/// Prints one line of JSON. JSON itself requires escapes for C0 only; this escapes every character
/// that controls a terminal.
pub(super) fn json_line(value: &impl Serialize) -> Result<(), Failure> {
    let json = serde_json::to_string(value).map_err(Failure::other)?;
    say(escaped(&json))
}

/// Escapes control characters in JSON, where they occur in strings only.
fn escaped(json: &str) -> Cow<'_, str> {
    if !json.contains(steers) {
        return json.into();
    }
    let mut escaped = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        match steers(c) {
            // A JSON string allows a `\u` escape of any character.
            true => drop(write!(escaped, "\\u{:04x}", u32::from(c))),
            false => escaped.push(c),
        }
    }
    escaped.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "a\u{1b}]0;x\u{7}\u{9b}2J\u{7f}\r\nb\u{202e}c\u{2066}";

    #[test]
    fn nothing_that_steers_is_left_of_a_text() {
        assert_eq!(printable("Zoë \u{200f}ש 组织"), "Zoë \u{200f}ש 组织");
        for text in [printable(HOSTILE), printable_lines(HOSTILE)] {
            assert!(!text.replace('\n', "").contains(steers), "{text:?}");
        }
        assert!(!printable(HOSTILE).contains('\n'));
        assert_eq!(printable_lines("a\nb\u{1b}"), "a\nb\u{fffd}");
    }

    #[test]
    fn json_keeps_its_meaning_without_a_character_that_steers() {
        let json = serde_json::to_string(&[HOSTILE]).unwrap();
        let escaped = escaped(&json);
        assert!(!escaped.contains(steers), "{escaped}");
        let again: [String; 1] = serde_json::from_str(&escaped).unwrap();
        assert_eq!(again, [HOSTILE]);
    }
}
