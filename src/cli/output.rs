//! What commands print: a table for people, one line of JSON for machines.

use comfy_table::{Table, presets::NOTHING};
use serde::Serialize;

use super::{Failure, say};

/// Prints a row to a line under its headers, in columns two spaces apart. A row is never wrapped,
/// so that it can be searched for, and nothing in a cell can steer the terminal.
pub(super) fn table<const COLUMNS: usize>(
    headers: [&str; COLUMNS],
    rows: impl IntoIterator<Item = [String; COLUMNS]>,
) -> Result<(), Failure> {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(headers);
    for row in rows {
        table.add_row(row.map(|cell| cell.replace(char::is_control, "\u{fffd}")));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    say(table.trim_fmt())
}

/// Prints one line of JSON.
pub(super) fn json_line(value: &impl Serialize) -> Result<(), Failure> {
    say(serde_json::to_string(value).map_err(Failure::other)?)
}
