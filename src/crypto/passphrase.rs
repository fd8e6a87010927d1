//! Encryption with a passphrase, for credentials that are exported to another installation, which
//! has none of our keys. Argon2id (RFC 9106) derives the key from the passphrase, and
//! XChaCha20-Poly1305 encrypts.
//!
//! The format is a line that names it, the three Argon2 costs (32 bits each, big-endian), the salt,
//! the nonce and the ciphertext. Everything before the ciphertext is associated data.

use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::{
    Key, KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use super::Rng;

const FORM: &[u8] = b"rolecall credential 1\n";
const SALT: usize = 16;
const NONCE: usize = 24;
const HEAD: usize = FORM.len() + 3 * 4 + SALT + NONCE;

/// Memory in KiB, passes, lanes: the second recommended option of RFC 9106, section 4.
const COSTS: [u32; 3] = [64 * 1024, 3, 4];

/// The highest costs that are accepted from a file. They limit the memory and the time that a
/// hostile file can demand.
const MOST: [u32; 3] = [1024 * 1024, 16, 16];

/// Why decryption failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PassphraseFault {
    #[error("it is not what was sealed with a passphrase here")]
    Form,
    #[error("the passphrase is another one, or it was changed since")]
    Refused,
}

/// Encrypts `text` with a key derived from `passphrase`.
pub fn seal_with_passphrase(passphrase: &SecretString, text: &[u8], rng: &Rng) -> Vec<u8> {
    let salt: [u8; SALT] = rng.bytes();
    let nonce: [u8; NONCE] = rng.bytes();
    let mut sealed = FORM.to_vec();
    for cost in COSTS {
        sealed.extend_from_slice(&cost.to_be_bytes());
    }
    sealed.extend_from_slice(&salt);
    sealed.extend_from_slice(&nonce);
    let key = key(passphrase, COSTS, &salt).expect("our costs are within Argon2's bounds");
    let payload = Payload {
        msg: text,
        aad: &sealed,
    };
    let ciphertext = XChaCha20Poly1305::new(&Key::from(*key))
        .encrypt(&XNonce::from(nonce), payload)
        .expect("a text that fits in memory is not too long");
    sealed.extend_from_slice(&ciphertext);
    sealed
}

/// Decrypts the output of [`seal_with_passphrase`].
///
/// # Errors
/// `Form`: the format is wrong, or a cost is above its limit. `Refused`: the passphrase is wrong,
/// or the data was changed.
pub fn open_with_passphrase(
    passphrase: &SecretString,
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, PassphraseFault> {
    let (head, ciphertext) = sealed.split_at_checked(HEAD).ok_or(PassphraseFault::Form)?;
    let rest = head.strip_prefix(FORM).ok_or(PassphraseFault::Form)?;
    let (costs, rest) = rest.split_at(3 * 4);
    let (salt, nonce) = rest.split_at(SALT);
    let mut cost = costs.chunks_exact(4).map(|bytes| {
        let bytes = bytes.try_into().expect("a chunk is of four");
        u32::from_be_bytes(bytes)
    });
    let costs = [(); 3].map(|()| cost.next().expect("there are three"));
    // Before the derivation, which would use that much memory and time.
    if costs.iter().zip(MOST).any(|(cost, most)| *cost > most) {
        return Err(PassphraseFault::Form);
    }
    let key = key(passphrase, costs, salt).ok_or(PassphraseFault::Form)?;
    let nonce: [u8; NONCE] = nonce.try_into().expect("the rest of the head is the nonce");
    let payload = Payload {
        msg: ciphertext,
        aad: head,
    };
    XChaCha20Poly1305::new(&Key::from(*key))
        .decrypt(&XNonce::from(nonce), payload)
        .map(Zeroizing::new)
        .map_err(|_| PassphraseFault::Refused)
}

/// Derives the key. None if the costs are outside Argon2's bounds.
fn key(
    passphrase: &SecretString,
    [memory, passes, lanes]: [u32; 3],
    salt: &[u8],
) -> Option<Zeroizing<[u8; 32]>> {
    let params = Params::new(memory, passes, lanes, Some(32)).ok()?;
    let mut key = Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(passphrase.expose_secret().as_bytes(), salt, key.as_mut())
        .ok()?;
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_with_its_passphrase_and_as_it_was_written() {
        let sealed = seal_with_passphrase(&"correct horse".into(), b"text", &Rng::seeded(1));
        let opened = open_with_passphrase(&"correct horse".into(), &sealed).unwrap();
        assert_eq!(opened.as_slice(), b"text");
        let refused = open_with_passphrase(&"another".into(), &sealed);
        assert_eq!(refused.unwrap_err(), PassphraseFault::Refused);
        for at in [
            0,
            FORM.len(),
            FORM.len() + 12,
            HEAD - 1,
            HEAD,
            sealed.len() - 1,
        ] {
            let mut changed = sealed.clone();
            changed[at] ^= 0x80;
            assert!(
                open_with_passphrase(&"correct horse".into(), &changed).is_err(),
                "{at}"
            );
        }
        for short in [&b""[..], &sealed[..HEAD - 1], &sealed[..HEAD]] {
            assert!(open_with_passphrase(&"correct horse".into(), short).is_err());
        }
    }
}
