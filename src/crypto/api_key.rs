//! The text format of an API key:
//!
//! ```text
//! rc_<public id: 32 hex digits>_<secret: 43 of 0-9A-Za-z><checksum: 6 of 0-9A-Za-z>
//! ```
//!
//! A double click selects the whole key, since it contains only letters, digits and `_`. The prefix
//! lets secret scanners find leaked keys. The public id finds the row without a search by secret.
//! The checksum detects typing errors before any database query; it adds no security. The secret is
//! 256 random bits, so its plain SHA-256 is stored.

use std::fmt;

use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use uuid::Uuid;

use super::Rng;
use crate::model::{
    api_keys::{ApiKey, KeyLabel, NewKey},
    id::{KeyId, ProjectId},
};

const PREFIX: &str = "rc_";
const ID_LEN: usize = 32;
/// 43 characters suffice for 256 random bits: 62^43 > 2^256.
const SECRET_LEN: usize = 43;
const CHECKSUM_LEN: usize = 6;
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A complete API key. It is shown once, when it is created. `Debug` redacts it.
#[derive(Clone)]
pub struct ApiKeySecret {
    id: KeyId,
    text: SecretString,
}

/// The text is not a well-formed API key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not an API key: part of it is missing or mistyped")]
pub struct MalformedKey;

impl ApiKeySecret {
    /// Creates a key of `project`: the secret for its owner, and the record to store.
    pub fn issue(project: &ProjectId, new: &NewKey, now: Timestamp, rng: &Rng) -> (Self, ApiKey) {
        let text = Self::generate(rng.id(now), rng);
        let label = new.label.as_ref().map_or("", KeyLabel::as_str);
        let key = ApiKey {
            id: text.id(),
            project: project.clone(),
            label: label.to_owned(),
            scopes: new.scopes.clone(),
            digest: text.digest(),
            created_at: now,
            expires_at: new.expires_at,
            revoked_at: None,
            created_by: None,
        };
        (text, key)
    }

    /// A new key with the given public id.
    pub fn generate(id: KeyId, rng: &Rng) -> Self {
        let mut text = String::with_capacity(PREFIX.len() + ID_LEN + 1 + SECRET_LEN + CHECKSUM_LEN);
        text.push_str(PREFIX);
        text.push_str(id.as_uuid().simple().encode_lower(&mut [0; ID_LEN]));
        text.push('_');
        let secret_end = text.len() + SECRET_LEN;
        while text.len() < secret_end {
            // Rejection sampling: discard 62 and 63, so that all 62 characters stay equally likely.
            let [byte] = rng.bytes();
            if let Some(&letter) = ALPHABET.get(usize::from(byte >> 2)) {
                text.push(char::from(letter));
            }
        }
        let checksum = checksum(&text);
        text.extend(checksum.iter().copied().map(char::from));
        Self {
            id,
            text: text.into(),
        }
    }

    /// Parses a key and verifies its checksum. Does not check whether the key exists.
    pub fn parse(text: &str) -> Result<Self, MalformedKey> {
        let id = Self::id_in(text).ok_or(MalformedKey)?;
        let secret = text.get(PREFIX.len() + ID_LEN + 1..).ok_or(MalformedKey)?;
        let well_formed = secret.len() == SECRET_LEN + CHECKSUM_LEN
            && secret.bytes().all(|b| b.is_ascii_alphanumeric());
        if !well_formed {
            return Err(MalformedKey);
        }
        let (body, sum) = text.split_at(text.len() - CHECKSUM_LEN);
        if checksum(body) != sum.as_bytes() {
            return Err(MalformedKey);
        }
        Ok(Self {
            id,
            text: text.into(),
        })
    }

    /// The public id in a complete key or in the beginning of one, such as `rc_<public id>`. This
    /// is enough to revoke a leaked key.
    pub fn id_in(text: &str) -> Option<KeyId> {
        let rest = text.strip_prefix(PREFIX)?;
        let id = rest.split_once('_').map_or(rest, |(id, _)| id);
        let well_formed =
            id.len() == ID_LEN && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let id = well_formed.then(|| Uuid::try_parse(id).ok()).flatten()?;
        Some(KeyId::from_uuid(id))
    }

    /// The public id.
    pub const fn id(&self) -> KeyId {
        self.id
    }

    /// The stored form: SHA-256 of the whole text.
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.text.expose_secret()).into()
    }

    /// True if `digest` is the digest of this key. Compares in constant time.
    pub fn matches(&self, digest: &[u8; 32]) -> bool {
        self.digest().ct_eq(digest).into()
    }

    /// The secret text, for the one response that shows it.
    pub fn expose(&self) -> &str {
        self.text.expose_secret()
    }
}

impl fmt::Debug for ApiKeySecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKeyText({}, [redacted])", self.id)
    }
}

fn checksum(body: &str) -> [u8; CHECKSUM_LEN] {
    let [a, b, c, d, ..] = <[u8; 32]>::from(Sha256::digest(body));
    let mut rest = u32::from_be_bytes([a, b, c, d]);
    [(); CHECKSUM_LEN].map(|()| {
        let letter = ALPHABET[(rest % 62) as usize];
        rest /= 62;
        letter
    })
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use proptest::prelude::*;

    use crate::crypto::Rng;

    use super::*;

    fn key(seed: u64) -> ApiKeySecret {
        let rng = Rng::seeded(seed);
        ApiKeySecret::generate(rng.id(Timestamp::UNIX_EPOCH), &rng)
    }

    #[test]
    fn a_key_reads_back_and_matches_its_own_digest_alone() {
        let (one, two) = (key(1), key(2));
        let again = ApiKeySecret::parse(one.expose()).unwrap();
        assert_eq!(again.id(), one.id());
        assert!(again.matches(&one.digest()));
        assert!(!again.matches(&two.digest()));
        assert_eq!(one.expose().len(), 85);
    }

    #[test]
    fn a_key_shows_its_public_id_and_nothing_else() {
        let key = key(1);
        assert_eq!(
            format!("{key:?}"),
            format!("ApiKeyText({}, [redacted])", key.id())
        );
    }

    #[test]
    fn the_beginning_of_a_key_tells_which_it_is() {
        let key = key(1);
        let (id, _) = key.expose().rsplit_once('_').unwrap();
        for text in [key.expose(), &key.expose()[..60], &format!("{id}_"), id] {
            assert_eq!(ApiKeySecret::id_in(text), Some(key.id()), "{text}");
        }
        for text in [
            "",
            "rc_",
            &id[..34],
            &id[3..],
            &id.to_uppercase(),
            &format!("{id}0"),
        ] {
            assert_eq!(ApiKeySecret::id_in(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_changed_character_is_noticed_offline(at in 0_usize..85, to in "[0-9A-Za-z_-]", seed: u64) {
            let key = key(seed);
            let mut text = key.expose().to_owned();
            prop_assume!(text[at..=at] != to);
            text.replace_range(at..=at, &to);
            prop_assert_eq!(ApiKeySecret::parse(&text).unwrap_err(), MalformedKey);
        }

        #[test]
        fn no_text_makes_the_parser_fall_over(text: String) {
            prop_assert!(ApiKeySecret::parse(&text).is_err());
        }
    }
}
