//! Message authentication (HMAC-SHA256), and keys that are made from others.

use std::{fmt, sync::Arc};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::{DataKey, TaggedRecord};

/// Authenticates what leaves and must come back unchanged. Cheap to clone; wiped from memory with
/// its last clone.
#[derive(Clone)]
pub struct MacKey(Arc<Zeroizing<[u8; 32]>>);

impl MacKey {
    /// Authenticates `bytes` for the purpose that `context` names.
    pub fn tag(&self, context: &str, bytes: &[u8]) -> [u8; 32] {
        self.mac(context, bytes).finalize().into_bytes().into()
    }

    /// True if `tag` is what [`tag`](Self::tag) gave for these very bytes and context. Compares in
    /// constant time.
    pub fn verify(&self, context: &str, bytes: &[u8], tag: &[u8]) -> bool {
        self.mac(context, bytes).verify_slice(tag).is_ok()
    }

    /// A record of the form that is so named, with no parts yet.
    pub fn record(&self, form: &str) -> TaggedRecord {
        TaggedRecord::under(&self.0, form)
    }

    fn mac(&self, context: &str, bytes: &[u8]) -> Hmac<Sha256> {
        hmac(&self.0)
            .chain_update((context.len() as u64).to_be_bytes())
            .chain_update(context)
            .chain_update(bytes)
    }
}

impl DataKey {
    /// The key that authenticates what callers hold for this project. Of the data key, and not of the
    /// ring: it stays as it is when the ring changes, and goes with the project.
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

/// One block of HKDF-Expand (RFC 5869); a key of ours is random already and needs no extracting.
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
