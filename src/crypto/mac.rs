//! Message authentication (HMAC-SHA256) and key derivation (HKDF-Expand).

use std::{fmt, sync::Arc};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::{DataKey, TaggedRecord};

/// A key for HMAC-SHA256, derived from a project's data key.
///
/// Clones are cheap and share the key. The key is wiped from memory when the last clone is dropped.
#[derive(Clone)]
pub struct MacKey(Arc<Zeroizing<[u8; 32]>>);

impl MacKey {
    /// The tag of `bytes`. `context` separates the purposes of one key.
    pub fn tag(&self, context: &str, bytes: &[u8]) -> [u8; 32] {
        self.mac(context, bytes).finalize().into_bytes().into()
    }

    /// True if `tag` is the tag of these bytes in this context. Compares in constant time.
    pub fn verify(&self, context: &str, bytes: &[u8], tag: &[u8]) -> bool {
        self.mac(context, bytes).verify_slice(tag).is_ok()
    }

    /// Starts a record: its tag covers `form`, the name of the record's format, and every part
    /// added.
    pub fn record(&self, form: &str) -> TaggedRecord {
        TaggedRecord::under(&self.0, form)
    }

    fn mac(&self, context: &str, bytes: &[u8]) -> Hmac<Sha256> {
        hmac(&self.0)
            // The length keeps the boundary between `context` and `bytes` unambiguous.
            .chain_update((context.len() as u64).to_be_bytes())
            .chain_update(context)
            .chain_update(bytes)
    }
}

impl DataKey {
    /// Derives the key that authenticates page cursors, access-token digests and API key rows.
    ///
    /// It depends on the data key only. It stays the same when the ring rotates, and it is deleted
    /// with the project.
    pub fn mac_key(&self) -> MacKey {
        let key = derive(self.bytes(), "rolecall data key: authenticating");
        MacKey(Arc::new(key))
    }
}

impl fmt::Debug for MacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MacKey([redacted])")
    }
}

/// One block of HKDF-Expand (RFC 5869, section 2.3). The input keys are uniformly random, so
/// HKDF-Extract is not needed.
pub(super) fn derive(key: &[u8; 32], purpose: &str) -> Zeroizing<[u8; 32]> {
    let block = hmac(key).chain_update(purpose).chain_update([1]).finalize();
    Zeroizing::new(block.into_bytes().into())
}

pub(super) fn hmac(key: &[u8; 32]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::Rng;

    #[test]
    fn a_tag_holds_for_its_key_context_and_bytes_alone() {
        let [one, two] = [1, 2].map(|seed| DataKey::generate(&Rng::seeded(seed)).mac_key());
        let tag = one.tag("cursor", b"bytes");
        assert!(one.verify("cursor", b"bytes", &tag));
        assert!(!two.verify("cursor", b"bytes", &tag));
        assert!(!one.verify("cursorb", b"ytes", &tag));
        assert!(!one.verify("cursor", b"byte", &tag));
        assert!(!one.verify("cursor", b"bytes", &tag[..16]));
    }

    #[test]
    fn a_key_shows_nothing() {
        let key = DataKey::generate(&Rng::seeded(1)).mac_key();
        assert_eq!(format!("{key:?}"), "MacKey([redacted])");
    }
}
