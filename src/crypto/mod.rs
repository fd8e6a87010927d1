//! Chance and secrets: the one place where random bytes come in, where keys live and where
//! plaintext becomes ciphertext. Pure but for the system's random source and the key file.
//!
//! Three layers of keys, so that each can be changed without touching what lies below it:
//!
//! 1. The **key ring** ([`KeyRing`]) belongs to the operator and lives outside the database. Its
//!    first key encrypts, all of them decrypt. A process may exchange it while it works
//!    ([`LiveRing`]), a command changes its file ([`RingFile`]).
//! 2. One **data key** per project ([`DataKey`]) is made by us and stored wrapped by a ring key.
//!    Changing the ring re-wraps a few data keys, never the data.
//! 3. **Fields** are sealed by a data key, each bound to its [`SealContext`]: a ciphertext moved to
//!    another row, field, generation or project does not open.
//!
//! From a data key two more are derived: one chains the project's audit log ([`ChainKey`]), one
//! authenticates what callers hold for us ([`MacKey`]). Both stay as they are however often the ring
//! changes.
//!
//! What leaves for another installation is sealed with a passphrase (`passphrase`).
//!
//! Who else can get at the key file is told by its [`Exposure`].
//!
//! API keys are not in this tree: they are 256 random bits, so [`ApiKeySecret`] stores a plain
//! SHA-256 of them and the ring can change freely.
//!
//! What is not here: which rows exist, and what happens to one that does not open
//! ([`crate::store`]). Read next: `seal` for the sealed form, `key_ring` for the file.

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
