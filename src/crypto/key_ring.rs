//! The operator's keys: a text file with a line `id: base64 of 32 random bytes` for each.
//!
//! The first key encrypts, all decrypt. So a key is changed by putting a new one on top,
//! restarting, and taking the old one away once nothing is wrapped by it any more.
//!
//! A ring key itself encrypts nothing: from each, one key for wrapping and one for message
//! authentication are derived, so that neither use can weaken the other.

use std::{
    fmt, fs,
    io::{self, Read, Write},
    path::Path,
    sync::Arc,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::{
    Chance, OpenFault, Place,
    seal::{Sealed, seal},
};

const KEY_LEN: usize = 32;
const MAX_ID_LEN: usize = 32;

/// The keys that encrypt and decrypt. Cheap to clone; wiped from memory with its last clone.
#[derive(Clone)]
pub struct KeyRing(Arc<[RingKey]>);

struct RingKey {
    id: String,
    key: Zeroizing<[u8; KEY_LEN]>,
    wrapping: Zeroizing<[u8; KEY_LEN]>,
    authenticating: Zeroizing<[u8; KEY_LEN]>,
}

/// Why a key ring could not be read or made. Never shows key material.
#[derive(Debug, thiserror::Error)]
pub enum KeyRingError {
    #[error("line {line}: expected `id: key`, the key being base64 of 32 random bytes")]
    Shape { line: usize },
    #[error(
        "line {line}: a key's id is 1 to {MAX_ID_LEN} of the letters a-z, A-Z, the digits, `-` and `_`"
    )]
    Id { line: usize },
    #[error("line {line}: the key is not base64")]
    Base64 { line: usize },
    #[error("line {line}: the key is {bytes} bytes long, and must be {KEY_LEN}")]
    Length { line: usize, bytes: usize },
    #[error("line {line}: the id `{id}` was used before")]
    Duplicate { line: usize, id: String },
    #[error("there is no key in it")]
    Empty,
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl KeyRing {
    /// A ring of one new key.
    pub fn generate(id: &str, chance: &Chance) -> Result<Self, KeyRingError> {
        let mut key = Zeroizing::new([0; KEY_LEN]);
        chance.fill(&mut *key);
        if !is_key_id(id) {
            return Err(KeyRingError::Id { line: 1 });
        }
        Ok(Self([RingKey::new(id, key)].into()))
    }

    /// Reads the text form. Blank lines and lines that begin with `#` are skipped.
    pub fn parse(text: &str) -> Result<Self, KeyRingError> {
        let mut keys: Vec<RingKey> = Vec::new();
        for (line, content) in (1..).zip(text.lines().map(str::trim)) {
            if content.is_empty() || content.starts_with('#') {
                continue;
            }
            let (id, encoded) = content
                .split_once(':')
                .map(|(id, encoded)| (id.trim_end(), encoded.trim_start()))
                .ok_or(KeyRingError::Shape { line })?;
            if !is_key_id(id) {
                return Err(KeyRingError::Id { line });
            }
            if keys.iter().any(|key| key.id == id) {
                let id = id.to_owned();
                return Err(KeyRingError::Duplicate { line, id });
            }
            // The decoder's own error would repeat a character of the key.
            let decoded = BASE64_STANDARD
                .decode(encoded)
                .map(Zeroizing::new)
                .map_err(|_| KeyRingError::Base64 { line })?;
            let key = <[u8; KEY_LEN]>::try_from(decoded.as_slice()).map_err(|_| {
                KeyRingError::Length {
                    line,
                    bytes: decoded.len(),
                }
            })?;
            keys.push(RingKey::new(id, Zeroizing::new(key)));
        }
        if keys.is_empty() {
            return Err(KeyRingError::Empty);
        }
        Ok(Self(keys.into()))
    }

    /// Reads a file of the text form.
    pub fn read_file(path: &Path) -> Result<Self, KeyRingError> {
        let mut text = Zeroizing::new(String::new());
        fs::File::open(path)?.read_to_string(&mut text)?;
        Self::parse(&text)
    }

    /// The text form.
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(256 + self.0.len() * 96));
        text.push_str(
            "# Rolecall's key ring. Whoever has this file and the database has every credential.\n\
             # Keep a copy apart from the backups: without it nothing that is stored can be read.\n\
             # The first key encrypts, all decrypt.\n",
        );
        for key in &*self.0 {
            let encoded = Zeroizing::new(BASE64_STANDARD.encode(*key.key));
            for part in [&key.id, ": ", &encoded, "\n"] {
                text.push_str(part);
            }
        }
        text
    }

    /// Writes a new file of the text form that only its owner may read. Refuses to write over
    /// anything: an overwritten ring is lost data. On return the file survives a power cut.
    pub fn create_file(&self, path: &Path) -> Result<(), KeyRingError> {
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(path)?;
        file.write_all(self.to_text().as_bytes())?;
        file.sync_all()?;
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        fs::File::open(directory)?.sync_all()?;
        Ok(())
    }

    /// The ids of all keys, the encrypting one first.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|key| key.id.as_str())
    }

    /// The id of the key that encrypts.
    pub fn encrypting_id(&self) -> &str {
        &self.encrypting().id
    }

    /// Authenticates `bytes` for the purpose that `context` names; gives the key's id and the
    /// tag (HMAC-SHA256).
    pub fn mac(&self, context: &str, bytes: &[u8]) -> (&str, [u8; 32]) {
        let key = self.encrypting();
        let tag = key.mac(context, bytes).finalize().into_bytes().into();
        (&key.id, tag)
    }

    /// True if `tag` is what [`mac`](Self::mac) gave for these very bytes and context, under
    /// the ring's key of that id. Compares in constant time.
    pub fn verify_mac(&self, key_id: &str, context: &str, bytes: &[u8], tag: &[u8]) -> bool {
        self.find(key_id)
            .is_some_and(|key| key.mac(context, bytes).verify_slice(tag).is_ok())
    }

    /// Seals under the first key.
    pub(crate) fn seal(&self, place: Place<'_>, text: &[u8], chance: &Chance) -> Vec<u8> {
        let key = self.encrypting();
        seal((&key.id, &key.wrapping), place, text, chance)
    }

    /// Opens what any key of this ring sealed.
    pub(crate) fn open(
        &self,
        place: Place<'_>,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, OpenFault> {
        let sealed = Sealed::parse(sealed)?;
        let key = self
            .find(sealed.key_id)
            .ok_or_else(|| OpenFault::UnknownKey(sealed.key_id.to_owned()))?;
        sealed.open(&key.wrapping, place)
    }

    fn encrypting(&self) -> &RingKey {
        self.0.first().expect("a ring has at least one key")
    }

    fn find(&self, id: &str) -> Option<&RingKey> {
        self.0.iter().find(|key| key.id == id)
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyRing")?;
        f.debug_list().entries(self.ids()).finish()
    }
}

impl RingKey {
    fn new(id: &str, key: Zeroizing<[u8; KEY_LEN]>) -> Self {
        Self {
            id: id.to_owned(),
            wrapping: derive(&key, "rolecall ring key: wrapping"),
            authenticating: derive(&key, "rolecall ring key: authenticating"),
            key,
        }
    }

    fn mac(&self, context: &str, bytes: &[u8]) -> Hmac<Sha256> {
        hmac(&self.authenticating)
            .chain_update((context.len() as u64).to_be_bytes())
            .chain_update(context)
            .chain_update(bytes)
    }
}

/// One block of HKDF-Expand (RFC 5869); a key of ours is random already and needs no extracting.
pub(super) fn derive(key: &[u8; KEY_LEN], purpose: &str) -> Zeroizing<[u8; KEY_LEN]> {
    let block = hmac(key).chain_update(purpose).chain_update([1]).finalize();
    Zeroizing::new(block.into_bytes().into())
}

pub(super) fn hmac(key: &[u8; KEY_LEN]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
}

fn is_key_id(id: &str) -> bool {
    (1..=MAX_ID_LEN).contains(&id.len())
        && id
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PLACE: Place<'static> = Place {
        project: "p",
        account: "",
        field: "f",
        generation: "",
    };

    fn line(id: &str, byte: u8) -> String {
        format!("{id}: {}", BASE64_STANDARD.encode([byte; 32]))
    }

    fn ring(lines: &[String]) -> KeyRing {
        KeyRing::parse(&lines.join("\n")).unwrap()
    }

    #[test]
    fn the_first_key_encrypts_and_all_decrypt() {
        let chance = Chance::system();
        let old = ring(&[line("old", 1)]);
        let both = ring(&[
            "# rotated".into(),
            line("new", 2),
            String::new(),
            line("old", 1),
        ]);
        let new = ring(&[line("new", 2)]);
        let sealed = old.seal(PLACE, b"text", &chance);
        assert_eq!(&**both.open(PLACE, &sealed).unwrap(), b"text");
        assert_eq!(
            new.open(PLACE, &sealed),
            Err(OpenFault::UnknownKey("old".into()))
        );
        let sealed = both.seal(PLACE, b"text", &chance);
        assert_eq!(&**new.open(PLACE, &sealed).unwrap(), b"text");
        assert_eq!(
            ring(&[line("new", 3)]).open(PLACE, &sealed),
            Err(OpenFault::Refused("new".into()))
        );
    }

    #[test]
    fn a_fault_names_its_line_and_never_the_key() {
        let short = format!("b: {}", BASE64_STANDARD.encode([7; 31]));
        for (lines, says) in [
            (vec![line("a", 1), "b".into()], "line 2: expected"),
            (
                vec![line("a", 1), String::new(), line("a", 2)],
                "line 3: the id `a`",
            ),
            (
                vec![line("a", 1), short.clone()],
                "line 2: the key is 31 bytes",
            ),
            (vec![line("two words", 1)], "line 1: a key's id"),
            (vec![line("", 1)], "line 1: a key's id"),
            (
                vec!["a: BwcHBwcHBwcHBw-_".into()],
                "line 1: the key is not base64",
            ),
            (vec!["# nothing".into()], "there is no key"),
            (vec![], "there is no key"),
        ] {
            let fault = KeyRing::parse(&lines.join("\n")).unwrap_err();
            for shown in [fault.to_string(), format!("{fault:?}")] {
                assert!(!shown.contains("BwcH"), "{shown}");
            }
            assert!(fault.to_string().starts_with(says), "{fault}");
        }
    }

    #[test]
    fn a_ring_shows_its_ids_and_nothing_else() {
        assert_eq!(
            format!("{:?}", ring(&[line("b", 7), line("a", 8)])),
            r#"KeyRing["b", "a"]"#
        );
    }

    #[test]
    fn a_tag_holds_for_its_key_context_and_bytes_alone() {
        let ring = ring(&[line("a", 1), line("b", 2)]);
        let (id, tag) = ring.mac("cursor", b"bytes");
        assert_eq!(id, "a");
        assert!(ring.verify_mac("a", "cursor", b"bytes", &tag));
        assert!(!ring.verify_mac("b", "cursor", b"bytes", &tag));
        assert!(!ring.verify_mac("c", "cursor", b"bytes", &tag));
        assert!(!ring.verify_mac("a", "cursorb", b"ytes", &tag));
        assert!(!ring.verify_mac("a", "cursor", b"byte", &tag));
        assert!(!ring.verify_mac("a", "cursor", b"bytes", &tag[..16]));
    }

    #[test]
    fn a_new_file_is_its_owners_alone_and_is_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        let ring = KeyRing::generate("a", &Chance::system()).unwrap();
        ring.create_file(&path).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(
                fs::metadata(&path).unwrap().permissions().mode() & 0o777,
                0o600
            );
        }
        let again = KeyRing::read_file(&path).unwrap();
        assert_eq!(*again.to_text(), *ring.to_text());

        let other = KeyRing::generate("b", &Chance::system()).unwrap();
        assert!(matches!(other.create_file(&path), Err(KeyRingError::Io(_))));
        assert_eq!(
            *KeyRing::read_file(&path).unwrap().to_text(),
            *ring.to_text()
        );
    }

    proptest! {
        #[test]
        fn the_text_form_reads_back(keys in prop::collection::btree_map("[a-zA-Z0-9_-]{1,32}", any::<[u8; 32]>(), 1..5)) {
            let lines: Vec<String> = keys
                .iter()
                .map(|(id, key)| format!("  {id} :{}\r", BASE64_STANDARD.encode(key)))
                .collect();
            let read = ring(&lines);
            prop_assert!(read.ids().eq(keys.keys()));
            let again = KeyRing::parse(&read.to_text()).unwrap();
            for (was, is) in read.0.iter().zip(&*again.0) {
                prop_assert_eq!(&was.key, &is.key);
                prop_assert_eq!(&*was.key, &keys[&was.id]);
            }
        }

        #[test]
        fn no_text_makes_the_parser_fall_over(text: String) {
            let _ = KeyRing::parse(&text);
        }
    }
}
