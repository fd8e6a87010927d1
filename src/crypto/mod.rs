//! Cryptography: random bytes, keys, encryption and message authentication. This is the only module
//! that reads the system's random source, holds keys and encrypts. Apart from the random source and
//! the key file, it does no I/O.
//!
//! There are three layers of keys. Each layer can change without touching the layers below it:
//!
//! 1. The **key ring** ([`KeyRing`]) belongs to the operator and is stored outside the database.
//!    Its first key encrypts, all of its keys decrypt. A running process can replace its ring
//!    ([`LiveRing`]). A command changes the key file ([`RingFile`]).
//! 2. Each project has one **data key** ([`DataKey`]). Rolecall generates it and stores it wrapped
//!    by a ring key. Rotating the ring re-wraps the data keys and leaves the encrypted data as it
//!    is.
//! 3. A data key seals **fields**. Each field is bound to its [`SealContext`]: a ciphertext that
//!    was moved to another row, field, generation or project does not decrypt.
//!
//! Two more keys are derived from each data key. [`ChainKey`] chains the project's audit log.
//! [`MacKey`] authenticates page cursors, API key rows and access-token digests. Neither changes
//! when the ring rotates.
//!
//! A credential that is exported to another installation is sealed with a passphrase
//! (`passphrase`). [`Exposure`] reports whether other users can read or write a key file. API keys
//! do not depend on the ring: they are 256 random bits, so [`ApiKeySecret`] stores their plain
//! SHA-256.
//!
//! Not here: which rows exist, and how the store treats a row that does not decrypt
//! ([`crate::store`]). Read next: `seal` for the sealed format, `key_ring` for the key file.

mod api_key;
mod chain;
mod exposure;
mod key_ring;
mod live_ring;
mod mac;
mod passphrase;
mod ring_file;
mod rng;
mod seal;

pub use api_key::{ApiKeySecret, MalformedKey};
pub use chain::{ChainKey, TaggedRecord};
pub use exposure::Exposure;
pub use key_ring::{KeyRing, KeyRingError};
pub use live_ring::LiveRing;
pub use mac::MacKey;
pub use passphrase::{PassphraseFault, open_with_passphrase, seal_with_passphrase};
pub use ring_file::RingFile;
pub use rng::Rng;
pub use seal::{DataKey, OpenFault, SealContext};
