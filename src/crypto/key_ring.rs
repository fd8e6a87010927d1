//! The operator's keys, in a text file with one line `id: base64 of 32 random bytes` for each key.
//!
//! The first key encrypts, all keys decrypt. To rotate, the operator puts a new key first, and
//! removes the old key once it wraps no data key. [`crate::store`] decides which key wraps in a
//! database that several processes share.
//!
//! A ring is an immutable value. A running process holds a [`LiveRing`], and a command changes the
//! file through a [`RingFile`].
//!
//! A ring key encrypts nothing itself: the wrapping key is derived from it. This leaves room for
//! other derived keys that do not weaken the wrapping key.
//!
//! [`LiveRing`]: super::LiveRing
//! [`RingFile`]: super::RingFile

use std::{
    fmt, fs,
    io::{self, Read, Write},
    path::Path,
    sync::Arc,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{
    OpenFault, Rng, SealContext,
    mac::derive,
    seal::{Sealed, seal},
};

const KEY_LEN: usize = 32;
const MAX_ID_LEN: usize = 32;

/// An ordered list of keys. Clones are cheap and share the keys. The keys are wiped from memory
/// when the last clone is dropped.
#[derive(Clone)]
pub struct KeyRing(Arc<[RingKey]>);

#[derive(Clone)]
struct RingKey {
    id: String,
    key: Zeroizing<[u8; KEY_LEN]>,
    wrapping: Zeroizing<[u8; KEY_LEN]>,
}

/// Why a key ring could not be read or created. Contains no key material.
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
    #[error("there is a key `{id}` in it already")]
    Taken { id: String },
    #[error("there is no key in it")]
    Empty,
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl KeyRing {
    /// A ring with one new key.
    pub fn generate(id: &str, rng: &Rng) -> Result<Self, KeyRingError> {
        let mut key = Zeroizing::new([0; KEY_LEN]);
        rng.fill(&mut *key);
        if !is_key_id(id) {
            return Err(KeyRingError::Id { line: 1 });
        }
        Ok(Self([RingKey::new(id, key)].into()))
    }

    /// Parses the text format. Skips blank lines and lines that begin with `#`.
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
            // Discard the decoder's error: it quotes a character of the key.
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

    /// Reads and parses a key file.
    pub fn read_file(path: &Path) -> Result<Self, KeyRingError> {
        Self::read(fs::File::open(path)?)
    }

    pub(super) fn read(mut from: impl Read) -> Result<Self, KeyRingError> {
        let mut text = Zeroizing::new(String::new());
        from.read_to_string(&mut text)?;
        Self::parse(&text)
    }

    /// The text format, with a comment at its head.
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

    /// Creates a key file with mode 0600 and syncs it to disk.
    ///
    /// # Errors
    /// There is a file at `path` already. It is never overwritten, since a lost ring is lost data.
    pub fn create_file(&self, path: &Path) -> Result<(), KeyRingError> {
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(path)?;
        file.write_all(self.to_text().as_bytes())?;
        file.sync_all()?;
        Ok(sync_folder_of(path)?)
    }

    /// A ring with this ring's keys, followed by those of `rest`.
    ///
    /// # Errors
    /// `Taken`: both rings have a key with the same id.
    pub fn then(&self, rest: &Self) -> Result<Self, KeyRingError> {
        if let Some(key) = rest.0.iter().find(|key| self.has(&key.id)) {
            let id = key.id.clone();
            return Err(KeyRingError::Taken { id });
        }
        Ok(Self(self.0.iter().chain(&*rest.0).cloned().collect()))
    }

    /// The same keys with the key `id` first. None if there is no such key.
    pub fn promote(&self, id: &str) -> Option<Self> {
        let (first, rest): (Vec<_>, Vec<_>) = self.0.iter().partition(|key| key.id == id);
        let is_there = !first.is_empty();
        is_there.then(|| Self(first.into_iter().chain(rest).cloned().collect()))
    }

    /// All keys except `id`.
    ///
    /// # Errors
    /// `Empty`: no key is left.
    pub fn without(&self, id: &str) -> Result<Self, KeyRingError> {
        let keys: Arc<[RingKey]> = self.0.iter().filter(|key| key.id != id).cloned().collect();
        if keys.is_empty() {
            return Err(KeyRingError::Empty);
        }
        Ok(Self(keys))
    }

    pub fn has(&self, id: &str) -> bool {
        self.find(id).is_some()
    }

    /// The ids of all keys, the encrypting key first.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|key| key.id.as_str())
    }

    pub fn encrypting_id(&self) -> &str {
        &self.encrypting().id
    }

    /// Seals `text` with the key `key_id`. None if the ring has no such key.
    pub(crate) fn seal(
        &self,
        key_id: &str,
        place: SealContext<'_>,
        text: &[u8],
        rng: &Rng,
    ) -> Option<Vec<u8>> {
        let key = self.find(key_id)?;
        Some(seal((&key.id, &key.wrapping), place, text, rng))
    }

    /// Decrypts `sealed` with the key that it names.
    pub(crate) fn open(
        &self,
        place: SealContext<'_>,
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

/// True if both rings have the same keys in the same order. Compares keys in constant time.
impl PartialEq for KeyRing {
    fn eq(&self, other: &Self) -> bool {
        let is_same = |(one, other): (&RingKey, &RingKey)| {
            one.id == other.id && bool::from(one.key.ct_eq(&*other.key))
        };
        self.0.len() == other.0.len() && self.0.iter().zip(&*other.0).all(is_same)
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
            key,
        }
    }
}

/// Syncs the folder of `path`, so that a new or renamed file survives a power loss.
pub(super) fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::File::open(folder)?.sync_all()
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

    use crate::crypto::Rng;

    use super::*;

    const PLACE: SealContext<'static> = SealContext {
        project: "p",
        account: "",
        field: "f",
        generation: "",
        destination: None,
    };

    fn line(id: &str, byte: u8) -> String {
        format!("{id}: {}", BASE64_STANDARD.encode([byte; 32]))
    }

    fn ring(lines: &[String]) -> KeyRing {
        KeyRing::parse(&lines.join("\n")).unwrap()
    }

    #[test]
    fn one_key_encrypts_and_all_decrypt() {
        let rng = Rng::system();
        let old = ring(&[line("old", 1)]);
        let both = ring(&[
            "# rotated".into(),
            line("new", 2),
            String::new(),
            line("old", 1),
        ]);
        let new = ring(&[line("new", 2)]);
        let sealed = old.seal("old", PLACE, b"text", &rng).unwrap();
        assert_eq!(&**both.open(PLACE, &sealed).unwrap(), b"text");
        assert_eq!(
            new.open(PLACE, &sealed),
            Err(OpenFault::UnknownKey("old".into()))
        );
        let sealed = both.seal("new", PLACE, b"text", &rng).unwrap();
        assert_eq!(&**new.open(PLACE, &sealed).unwrap(), b"text");
        assert_eq!(
            ring(&[line("new", 3)]).open(PLACE, &sealed),
            Err(OpenFault::Refused("new".into()))
        );
        assert_eq!(old.seal("new", PLACE, b"text", &rng), None);
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
    fn keys_are_added_put_first_and_taken_away() {
        let ids = |ring: &KeyRing| ring.ids().map(str::to_owned).collect::<Vec<_>>();
        let (a, b) = (ring(&[line("a", 1)]), ring(&[line("b", 2)]));
        let both = b.then(&a).unwrap();
        assert_eq!(ids(&both), ["b", "a"]);
        assert_eq!(both, ring(&[line("b", 2), line("a", 1)]));
        assert!(matches!(
            both.then(&ring(&[line("a", 3)])),
            Err(KeyRingError::Taken { id }) if id == "a"
        ));
        let all = both.then(&ring(&[line("c", 3)])).unwrap();
        assert_eq!(ids(&all.promote("a").unwrap()), ["a", "b", "c"]);
        assert_eq!(all.promote("b").unwrap(), all);
        assert_eq!(all.promote("d"), None);
        assert_eq!(ids(&all.without("b").unwrap()), ["a", "c"]);
        assert_eq!(all.without("d").unwrap(), all);
        assert!(matches!(a.without("a"), Err(KeyRingError::Empty)));
        assert!(all.has("c") && !all.has("d"));
    }

    #[test]
    fn two_rings_are_the_same_only_with_the_same_keys_in_the_same_order() {
        let one = ring(&[line("a", 1), line("b", 2)]);
        assert_eq!(one, ring(&[line("a", 1), line("b", 2)]));
        for other in [
            ring(&[line("b", 2), line("a", 1)]),
            ring(&[line("a", 1), line("b", 3)]),
            ring(&[line("a", 1), line("c", 2)]),
            ring(&[line("a", 1)]),
        ] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn a_new_file_is_its_owners_alone_and_is_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        let ring = KeyRing::generate("a", &Rng::system()).unwrap();
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

        let other = KeyRing::generate("b", &Rng::system()).unwrap();
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
