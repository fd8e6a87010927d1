//! Identifiers. Rolecall's own are UUIDv7, which sort by time of creation. A provider's id is kept
//! as text, even a number, because a JSON number above 2^53 does not survive a JavaScript client.

use std::{borrow::Borrow, fmt, marker::PhantomData, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The id of a `T`: a UUIDv7, printed hyphenated in lowercase.
pub struct Id<T>(Uuid, PhantomData<fn() -> T>);

/// Type parameter of [`KeyId`].
pub enum Key {}

/// Type parameter of [`ReplicaId`].
pub enum Replica {}

pub type AccountId = Id<super::accounts::Account>;
pub type WalkId = Id<super::walks::Walk>;
pub type KeyId = Id<Key>;
/// The id of one run of one process that serves a store.
pub type ReplicaId = Id<Replica>;

impl<T> Id<T> {
    pub const fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid, PhantomData)
    }

    pub const fn as_uuid(&self) -> &Uuid {
        &self.0
    }
}

impl<T> Clone for Id<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Id<T> {}
impl<T> PartialEq for Id<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
impl<T> Eq for Id<T> {}
impl<T> PartialOrd for Id<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<T> Ord for Id<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}
impl<T> std::hash::Hash for Id<T> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}
impl<T> fmt::Display for Id<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}
impl<T> fmt::Debug for Id<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
impl<T> Serialize for Id<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Parses the hyphenated form in either case (RFC 9562, 4) and no other. Ids are always printed in
/// lowercase, so cache keys, log lines and replies agree.
impl<T> FromStr for Id<T> {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        // `try_parse` also accepts braced, URN and unhyphenated forms; the comparison rejects them.
        let uuid = Uuid::try_parse(text).map_err(|_| InvalidId)?;
        let id = Self::from_uuid(uuid);
        if id.to_string().eq_ignore_ascii_case(text) {
            Ok(id)
        } else {
            Err(InvalidId)
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an id of ours")]
pub struct InvalidId;

/// A project's id, chosen by the operator: 1 to 63 of `a-z`, `0-9` and `-`, starting with a letter.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ProjectId(Arc<str>);

impl ProjectId {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ProjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ProjectId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let well_formed = (1..=63).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if well_formed {
            Ok(Self(text.into()))
        } else {
            Err(InvalidId)
        }
    }
}

/// A record's id at its provider, as text. A directory sorts its records by it (bytewise).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RemoteId(Box<str>);

impl RemoteId {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<S: Into<Box<str>>> From<S> for RemoteId {
    fn from(text: S) -> Self {
        Self(text.into())
    }
}

impl Borrow<str> for RemoteId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RemoteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_in_either_case_and_in_one_form_and_printed_in_lower_case() {
        let text = "01998ad6-3f35-7c58-9d37-9d27a1b1b8f0";
        for given in [text.to_owned(), text.to_uppercase(), text.replace('f', "F")] {
            assert_eq!(given.parse::<AccountId>().unwrap().to_string(), text);
        }
        for other in [
            text.replace('-', ""),
            format!("{{{text}}}"),
            format!("urn:uuid:{text}"),
            format!(" {text}"),
            format!("{}g", &text[1..]),
        ] {
            assert_eq!(other.parse::<AccountId>(), Err(InvalidId));
        }
    }

    #[test]
    fn a_project_id_is_a_short_plain_word() {
        assert!("demo".parse::<ProjectId>().is_ok());
        for bad in ["", "Demo", "1a", "a b", "a/b", &"a".repeat(64)] {
            assert!(bad.parse::<ProjectId>().is_err(), "{bad}");
        }
    }
}
