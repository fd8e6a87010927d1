//! Tags (HMAC-SHA256) of records. The audit log is chained with them, and the row of an API key is
//! authenticated with one. A tag covers the name of the record's format and all parts of the
//! record. Each part is preceded by its length, so two different records never have the same
//! encoding.

use std::fmt;

use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::{
    DataKey, Rng,
    mac::{derive, hmac},
};

/// The key that tags one project's audit log.
///
/// It is derived from the project's data key with HKDF: tags reveal nothing about sealed fields,
/// and sealed fields do not help to forge a tag.
pub struct ChainKey(Zeroizing<[u8; 32]>);

/// A record while its tag is computed.
pub struct TaggedRecord(Hmac<Sha256>);

impl ChainKey {
    pub(super) fn of(data_key: &[u8; 32]) -> Self {
        Self(derive(data_key, "rolecall data key: audit chain"))
    }

    /// Starts a record: its tag covers `form`, the name of the record's format, and every part
    /// added.
    pub fn record(&self, form: &str) -> TaggedRecord {
        TaggedRecord::under(&self.0, form)
    }
}

impl TaggedRecord {
    pub(super) fn under(key: &[u8; 32], form: &str) -> Self {
        Self(hmac(key)).text(form)
    }

    #[must_use]
    pub fn bytes(self, part: &[u8]) -> Self {
        let length = (part.len() as u64).to_be_bytes();
        Self(self.0.chain_update(length).chain_update(part))
    }

    #[must_use]
    pub fn text(self, part: &str) -> Self {
        self.bytes(part.as_bytes())
    }

    #[must_use]
    pub fn number(self, part: i64) -> Self {
        self.bytes(&part.to_be_bytes())
    }

    pub fn tag(self) -> [u8; 32] {
        self.0.finalize().into_bytes().into()
    }

    /// True if `tag` is the tag of this record. Compares in constant time.
    pub fn has_tag(self, tag: &[u8]) -> bool {
        self.0.verify_slice(tag).is_ok()
    }
}

impl DataKey {
    pub fn chain_key(&self) -> ChainKey {
        ChainKey::of(self.bytes())
    }

    /// Converts the data key of a deleted project: keeps the chain key, under a new id, and drops
    /// the rest. The result verifies the project's audit log and decrypts none of its fields.
    pub fn to_audit_key(&self, rng: &Rng) -> Self {
        Self::of_bytes(self.chain_key().0, rng)
    }

    /// The chain key of a data key that [`to_audit_key`](Self::to_audit_key) returned.
    pub fn as_chain_key(&self) -> ChainKey {
        ChainKey(Zeroizing::new(*self.bytes()))
    }
}

impl fmt::Debug for ChainKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChainKey([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::crypto::Rng;

    fn key(seed: u64) -> ChainKey {
        DataKey::generate(&Rng::seeded(seed)).chain_key()
    }

    fn record(key: u64, form: &str, parts: &[&str]) -> TaggedRecord {
        let record = self::key(key).record(form);
        parts.iter().fold(record, |record, part| record.text(part))
    }

    #[test]
    fn a_tag_holds_for_its_key_form_and_parts_alone() {
        let tag = record(1, "entry", &["a", "bc"]).tag();
        assert!(record(1, "entry", &["a", "bc"]).has_tag(&tag));
        assert!(!record(1, "entry", &["a", "bc"]).has_tag(&tag[..16]));
        for (key, form, parts) in [
            (2, "entry", ["a", "bc"].as_slice()),
            (1, "entrya", &["bc"]),
            (1, "entry", &["ab", "c"]),
            (1, "entry", &["a", "bc", ""]),
        ] {
            assert!(
                !record(key, form, parts).has_tag(&tag),
                "{key} {form} {parts:?}"
            );
        }
        let number = key(1).record("entry").number(7).tag();
        assert!(!key(1).record("entry").number(-7).has_tag(&number));
    }

    #[test]
    fn a_chain_key_shows_nothing() {
        assert_eq!(format!("{:?}", key(1)), "ChainKey([redacted])");
    }

    proptest! {
        #[test]
        fn no_two_records_have_one_tag(
            one in prop::collection::vec("[ab]{0,3}", 0..4),
            two in prop::collection::vec("[ab]{0,3}", 0..4),
        ) {
            fn of(parts: &[String]) -> TaggedRecord {
                let parts: Vec<_> = parts.iter().map(String::as_str).collect();
                record(1, "entry", &parts)
            }
            prop_assert_eq!(of(&two).has_tag(&of(&one).tag()), one == two);
        }
    }
}
