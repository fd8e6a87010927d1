//! The text of a directory: one string, and spans into it.
//!
//! A hundred thousand users have six hundred thousand small strings. Stored separately, each costs
//! an allocation and three words besides its bytes. Here each costs eight bytes, and a repeated
//! string (a domain, a first name) is stored once.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

/// A string in the arena, or none: then `start` is `u32::MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TextSpan {
    start: u32,
    len: u32,
}

impl TextSpan {
    pub(super) const NONE: TextSpan = TextSpan {
        start: u32::MAX,
        len: 0,
    };

    /// The string of this span; None for no string, or for a span outside of `arena`. Decoding
    /// rejects the latter.
    pub(super) fn text(self, arena: &str) -> Option<&str> {
        let start = usize::try_from(self.start).ok()?;
        let end = start.checked_add(usize::try_from(self.len).ok()?)?;
        arena.get(start..end)
    }

    /// Whether the span is none, or lies within `arena` on character boundaries.
    pub(super) fn is_sound(self, arena: &str) -> bool {
        self == TextSpan::NONE || self.text(arena).is_some()
    }
}

/// Collects strings, each once.
#[derive(Default)]
pub(super) struct Arena<'a> {
    text: String,
    known: HashMap<&'a str, TextSpan>,
}

impl<'a> Arena<'a> {
    pub(super) fn keep(&mut self, text: &'a str) -> TextSpan {
        if let Some(span) = self.known.get(text) {
            return *span;
        }
        let span = self.append(text);
        self.known.insert(text, span);
        span
    }

    pub(super) fn keep_some(&mut self, text: Option<&'a str>) -> TextSpan {
        text.map_or(TextSpan::NONE, |text| self.keep(text))
    }

    /// Adds a string that occurs once, such as an id, without a look-up.
    pub(super) fn append(&mut self, text: &str) -> TextSpan {
        let start = size(self.text.len());
        self.text.push_str(text);
        TextSpan {
            start,
            len: size(text.len()),
        }
    }

    /// Adds `part` as a slice of `whole`, which is stored at `span`, if `whole` starts or ends with
    /// it. Most first and last names are part of the full name.
    pub(super) fn keep_within(
        &mut self,
        part: Option<&'a str>,
        whole: Option<&str>,
        span: TextSpan,
    ) -> TextSpan {
        match (part, whole) {
            (Some(part), Some(whole)) if whole.starts_with(part) => TextSpan {
                start: span.start,
                len: size(part.len()),
            },
            (Some(part), Some(whole)) if whole.ends_with(part) => TextSpan {
                start: span.start + span.len - size(part.len()),
                len: size(part.len()),
            },
            _ => self.keep_some(part),
        }
    }

    pub(super) fn finish(mut self) -> String {
        self.text.shrink_to_fit();
        self.text
    }
}

/// A length as a directory stores it.
pub(super) fn size(n: usize) -> u32 {
    u32::try_from(n)
        .ok()
        .filter(|n| *n != u32::MAX)
        .expect("a walk is cut off long before four thousand million of anything")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_held_once_and_a_name_holds_its_parts() {
        let mut arena = Arena::default();
        let domain = arena.keep("example.org");
        assert_eq!(arena.keep("example.org"), domain);
        let name = arena.keep("Ana Ruiz");
        let first = arena.keep_within(Some("Ana"), Some("Ana Ruiz"), name);
        let last = arena.keep_within(Some("Ruiz"), Some("Ana Ruiz"), name);
        let other = arena.keep_within(Some("Anna"), Some("Ana Ruiz"), name);
        let text = arena.finish();
        assert_eq!(text, "example.orgAna RuizAnna");
        assert_eq!(first.text(&text), Some("Ana"));
        assert_eq!(last.text(&text), Some("Ruiz"));
        assert_eq!(other.text(&text), Some("Anna"));
        assert_eq!(TextSpan::NONE.text(&text), None);
    }
}
