//! Where a directory keeps its text: one string, and spans into it.
//!
//! A hundred thousand people have six hundred thousand small strings. Held apart, each costs an
//! allocation and three words beside its bytes; held here, eight bytes, and a text that comes
//! back (a domain, a first name) is held once.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

/// A text in the arena, or none. `start` is `u32::MAX` for none.
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

    /// The text of this span; None for no text, and for a span that does not lie in `arena`,
    /// which decoding rules out.
    pub(super) fn text(self, arena: &str) -> Option<&str> {
        let start = usize::try_from(self.start).ok()?;
        let end = start.checked_add(usize::try_from(self.len).ok()?)?;
        arena.get(start..end)
    }

    /// Whether this is a span that [`Arena`] could have made for `arena`.
    pub(super) fn is_sound(self, arena: &str) -> bool {
        self == TextSpan::NONE || self.text(arena).is_some()
    }
}

/// Lays texts down, each once.
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

    /// Keeps a text that is met once, such as an id: it need not be remembered.
    pub(super) fn append(&mut self, text: &str) -> TextSpan {
        let start = size(self.text.len());
        self.text.push_str(text);
        TextSpan {
            start,
            len: size(text.len()),
        }
    }

    /// Keeps `part` as a piece of `whole`, which lies at `span`, where it begins or ends it:
    /// most first and last names are written out in the name already.
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

/// A count as a directory holds it.
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
