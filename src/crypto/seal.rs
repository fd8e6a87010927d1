//! The sealed format, and the data keys that seal fields.
//!
//! ```text
//! version (1 byte) | length of key id (1 byte) | key id | nonce (24 bytes) | ciphertext and tag
//! ```
//!
//! The cipher is XChaCha20-Poly1305. Its nonce is long enough to be chosen at random. The
//! associated data is the format's name, the key id and the [`SealContext`]. Each part is preceded
//! by its length, so two different contexts never have the same encoding.
//!
//! The version is 2 for a secret that is bound to a destination ([`SealContext::destination`]), and
//! 1 for everything else. The context determines the expected version; a text of the other version
//! does not decrypt.

use std::fmt;

use chacha20poly1305::{
    AeadInOut, Key, KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use zeroize::{Zeroize, Zeroizing};

use super::{KeyRing, Rng};

const VERSION: u8 = 1;
const FORM: &str = "rolecall sealed 1";
/// The version of a text that is bound to a destination.
const BOUND_VERSION: u8 = 2;
const BOUND_FORM: &str = "rolecall sealed 2";
const NONCE_LEN: usize = 24;
const TAG_LEN: usize = 16;

/// The place of a sealed field (AEAD associated data). The field decrypts only with the same
/// context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealContext<'a> {
    pub project: &'a str,
    /// Empty for a field of the project as a whole.
    pub account: &'a str,
    pub field: &'a str,
    /// Distinguishes several values of one field: a credential's generation, a directory's version
    /// or a walk's id. Empty if there is only one.
    pub generation: &'a str,
    /// A digest of the only place where a secret may be sent. None if it is never sent.
    pub destination: Option<[u8; 32]>,
}

impl SealContext<'_> {
    const fn version(&self) -> u8 {
        match self.destination {
            None => VERSION,
            Some(_) => BOUND_VERSION,
        }
    }

    fn associated_data(&self, key_id: &str) -> Vec<u8> {
        let form = match self.destination {
            None => FORM,
            Some(_) => BOUND_FORM,
        };
        let texts = [
            form,
            key_id,
            self.project,
            self.account,
            self.field,
            self.generation,
        ];
        let destination = self.destination.as_ref().map(<[u8; 32]>::as_slice);
        let parts = || texts.iter().map(|text| text.as_bytes()).chain(destination);
        let mut bytes = Vec::with_capacity(parts().map(|part| 8 + part.len()).sum());
        for part in parts() {
            bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
            bytes.extend_from_slice(part);
        }
        bytes
    }
}

/// Why a sealed field did not decrypt. Contains nothing of its content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenFault {
    #[error("it is not in the sealed form")]
    Malformed,
    #[error("it was sealed by key `{0}`, which is not at hand")]
    UnknownKey(String),
    #[error("key `{0}` does not open it: another key of that name, or a moved or changed row")]
    Refused(String),
}

/// A parsed sealed text, not yet decrypted.
pub(super) struct Sealed<'a> {
    version: u8,
    pub(super) key_id: &'a str,
    nonce: [u8; NONCE_LEN],
    ciphertext: &'a [u8],
}

impl<'a> Sealed<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, OpenFault> {
        let parts = || {
            let (&version, rest) = bytes.split_first()?;
            let (&length, rest) = rest.split_first()?;
            let (key_id, rest) = rest.split_at_checked(usize::from(length))?;
            let (nonce, ciphertext) = rest.split_first_chunk::<NONCE_LEN>()?;
            let key_id = std::str::from_utf8(key_id).ok()?;
            let is_known = matches!(version, VERSION | BOUND_VERSION);
            (is_known && ciphertext.len() >= TAG_LEN).then_some(Self {
                version,
                key_id,
                nonce: *nonce,
                ciphertext,
            })
        };
        parts().ok_or(OpenFault::Malformed)
    }

    pub(super) fn open(
        &self,
        key: &[u8; 32],
        place: SealContext<'_>,
    ) -> Result<Zeroizing<Vec<u8>>, OpenFault> {
        // The version byte itself is not authenticated, so it must match the context.
        if self.version != place.version() {
            return Err(OpenFault::Refused(self.key_id.to_owned()));
        }
        let payload = Payload {
            msg: self.ciphertext,
            aad: &place.associated_data(self.key_id),
        };
        XChaCha20Poly1305::new(&Key::from(*key))
            .decrypt(&XNonce::from(self.nonce), payload)
            .map(Zeroizing::new)
            .map_err(|_| OpenFault::Refused(self.key_id.to_owned()))
    }
}

/// Encrypts `text`. The key id has at most 255 bytes.
pub(super) fn seal(
    (key_id, key): (&str, &[u8; 32]),
    place: SealContext<'_>,
    text: &[u8],
    rng: &Rng,
) -> Vec<u8> {
    let nonce: [u8; NONCE_LEN] = rng.bytes();
    let id_length = u8::try_from(key_id.len()).expect("a key id is a short word");
    let head = 2 + key_id.len() + NONCE_LEN;
    let mut sealed = Vec::with_capacity(head + text.len() + TAG_LEN);
    sealed.extend_from_slice(&[place.version(), id_length]);
    sealed.extend_from_slice(key_id.as_bytes());
    sealed.extend_from_slice(&nonce);
    sealed.extend_from_slice(text);
    let tag = XChaCha20Poly1305::new(&Key::from(*key))
        .encrypt_inout_detached(
            &XNonce::from(nonce),
            &place.associated_data(key_id),
            (&mut sealed[head..]).into(),
        )
        .expect("a text is shorter than the cipher's 256 GiB");
    sealed.extend_from_slice(&tag);
    sealed
}

/// The key that seals one project's fields. It is stored only in wrapped form.
#[derive(Clone)]
pub struct DataKey {
    id: String,
    key: Zeroizing<[u8; 32]>,
}

impl DataKey {
    const FIELD: &'static str = "data_key";

    pub fn generate(rng: &Rng) -> Self {
        let mut key = Zeroizing::new([0; 32]);
        rng.fill(&mut *key);
        Self::of_bytes(key, rng)
    }

    pub(super) fn of_bytes(key: Zeroizing<[u8; 32]>, rng: &Rng) -> Self {
        Self {
            id: format!("{:016x}", u64::from_be_bytes(rng.bytes())),
            key,
        }
    }

    /// The key's id, stored in every text that it seals. Not a secret.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Wraps the key for storage: encrypts it with the ring key `key_id`, bound to the project.
    /// None if the ring has no such key.
    pub fn wrap(&self, ring: &KeyRing, key_id: &str, project: &str, rng: &Rng) -> Option<Vec<u8>> {
        ring.seal(key_id, Self::place(project, &self.id), &*self.key, rng)
    }

    /// The id of the ring key that wrapped this data key.
    pub fn wrapped_by(wrapped: &[u8]) -> Result<&str, OpenFault> {
        Ok(Sealed::parse(wrapped)?.key_id)
    }

    /// Decrypts the output of [`wrap`](Self::wrap).
    pub fn unwrap(
        ring: &KeyRing,
        project: &str,
        id: &str,
        wrapped: &[u8],
    ) -> Result<Self, OpenFault> {
        let mut opened = ring.open(Self::place(project, id), wrapped)?;
        let key = <[u8; 32]>::try_from(opened.as_slice()).map_err(|_| OpenFault::Malformed)?;
        opened.zeroize();
        Ok(Self {
            id: id.to_owned(),
            key: Zeroizing::new(key),
        })
    }

    pub fn seal(&self, place: SealContext<'_>, text: &[u8], rng: &Rng) -> Vec<u8> {
        seal((&self.id, &self.key), place, text, rng)
    }

    pub fn open(
        &self,
        place: SealContext<'_>,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, OpenFault> {
        let sealed = Sealed::parse(sealed)?;
        if sealed.key_id != self.id {
            return Err(OpenFault::UnknownKey(sealed.key_id.to_owned()));
        }
        sealed.open(&self.key, place)
    }

    /// The key material, for key derivation.
    pub(super) fn bytes(&self) -> &[u8; 32] {
        &self.key
    }

    fn place<'a>(project: &'a str, id: &'a str) -> SealContext<'a> {
        SealContext {
            project,
            account: "",
            field: Self::FIELD,
            generation: id,
            destination: None,
        }
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DataKey({}, [redacted])", self.id)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::crypto::Rng;

    use super::*;

    fn key() -> DataKey {
        DataKey::generate(&Rng::seeded(7))
    }

    type Parts = (String, String, String, String, Option<u8>);

    fn place((project, account, field, generation, destination): &Parts) -> SealContext<'_> {
        SealContext {
            project,
            account,
            field,
            generation,
            destination: destination.map(|byte| [byte; 32]),
        }
    }

    fn parts() -> impl Strategy<Value = Parts> {
        // Few letters, so that the end of one part often equals the beginning of the next.
        let part = || "[ab]{0,3}";
        (part(), part(), part(), part(), prop::option::of(0..3_u8))
    }

    /// The same context with exactly one part changed.
    fn but_for_one(at: &Parts, part: usize, other: &str) -> Parts {
        let mut changed = at.clone();
        let text = match part {
            0 => &mut changed.0,
            1 => &mut changed.1,
            2 => &mut changed.2,
            3 => &mut changed.3,
            _ => {
                changed.4 = match changed.4 {
                    None => Some(0),
                    Some(0) => None,
                    Some(byte) => Some(byte - 1),
                };
                return changed;
            }
        };
        text.push_str(other);
        changed
    }

    proptest! {
        #[test]
        fn what_was_sealed_opens_in_its_place(text: Vec<u8>, at in parts()) {
            let sealed = key().seal(place(&at), &text, &Rng::system());
            prop_assert_eq!(&**key().open(place(&at), &sealed).unwrap(), &text[..]);
        }

        #[test]
        fn with_any_bit_flipped_it_does_not_open(text: Vec<u8>, at in parts(), bit: prop::sample::Index) {
            let mut sealed = key().seal(place(&at), &text, &Rng::system());
            let bit = bit.index(sealed.len() * 8);
            sealed[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(key().open(place(&at), &sealed).is_err());
        }

        #[test]
        fn cut_short_at_any_length_it_does_not_open(text: Vec<u8>, at in parts(), end: prop::sample::Index) {
            let sealed = key().seal(place(&at), &text, &Rng::system());
            prop_assert!(key().open(place(&at), &sealed[..end.index(sealed.len())]).is_err());
        }

        #[test]
        fn in_any_other_place_it_does_not_open(text: Vec<u8>, here in parts(), there in parts()) {
            prop_assume!(here != there);
            let sealed = key().seal(place(&here), &text, &Rng::system());
            prop_assert!(key().open(place(&there), &sealed).is_err());
        }

        #[test]
        fn with_one_part_of_its_place_changed_it_does_not_open(
            text: Vec<u8>, at in parts(), part in 0..5_usize, other in "[ab]{1,2}",
        ) {
            let sealed = key().seal(place(&at), &text, &Rng::system());
            let elsewhere = but_for_one(&at, part, &other);
            prop_assert!(key().open(place(&elsewhere), &sealed).is_err());
        }

        #[test]
        fn bytes_that_we_never_sealed_do_not_open(bytes: Vec<u8>, at in parts()) {
            prop_assert!(key().open(place(&at), &bytes).is_err());
        }
    }

    #[test]
    fn a_data_key_is_bound_to_its_project_and_its_id() {
        let rng = Rng::system();
        let ring = KeyRing::generate("a", &rng).unwrap();
        let key = DataKey::generate(&rng);
        let wrapped = key.wrap(&ring, "a", "one", &rng).unwrap();
        assert_eq!(DataKey::wrapped_by(&wrapped), Ok("a"));
        assert_eq!(key.wrap(&ring, "b", "one", &rng), None);
        let again = DataKey::unwrap(&ring, "one", key.id(), &wrapped).unwrap();
        assert_eq!(again.key, key.key);
        assert!(DataKey::unwrap(&ring, "two", key.id(), &wrapped).is_err());
        assert!(DataKey::unwrap(&ring, "one", "other", &wrapped).is_err());
    }

    #[test]
    fn two_seals_of_one_text_differ() {
        let at = Parts::default();
        let rng = Rng::system();
        assert_ne!(
            key().seal(place(&at), b"text", &rng),
            key().seal(place(&at), b"text", &rng)
        );
    }

    #[test]
    fn a_data_key_shows_its_id_and_nothing_else() {
        let key = key();
        assert_eq!(
            format!("{key:?}"),
            format!("DataKey({}, [redacted])", key.id())
        );
    }
}
