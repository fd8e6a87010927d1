//! Random bytes and ids as a value that is passed in, as [`crate::clock::Clock`] does for time. A
//! test passes a seeded generator and gets the same bytes on each run.

use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::model::id::Id;

/// A random number generator that also makes ids. Clones share the source.
#[derive(Debug, Clone, Default)]
pub struct Rng {
    source: RngSource,
    last_id: Arc<Mutex<LastId>>,
}

#[derive(Debug, Clone, Default)]
enum RngSource {
    #[default]
    System,
    Seeded(Arc<Mutex<Seeded>>),
}

#[derive(Debug)]
struct Seeded {
    seed: u64,
    drawn: u64,
}

/// State for the next id: the millisecond and the other 74 random bits of the latest id, and random
/// bytes drawn ahead for the following ones.
#[derive(Debug, Default)]
struct LastId {
    millis: u64,
    tail: u128,
    drawn: Vec<[u8; 16]>,
}

/// How many ids get their random bytes in one system call. Each request needs an id, and the system
/// call costs more than the rest of making one. Only ids use bytes drawn ahead, never secrets.
const DRAWN_AHEAD: usize = 64;

const TAIL_BITS: u32 = 74;
const LOW_BITS: u32 = 62;

impl Rng {
    /// The operating system's random source. Secrets must come from this one.
    pub fn system() -> Self {
        Self::default()
    }

    /// A deterministic source: the same seed gives the same bytes. For tests and examples only,
    /// since the seed reveals every secret drawn from it.
    pub fn seeded(seed: u64) -> Self {
        let seeded = Seeded { seed, drawn: 0 };
        Self {
            source: RngSource::Seeded(Arc::new(Mutex::new(seeded))),
            last_id: Arc::default(),
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "this is the place where chance comes in"
    )]
    pub fn fill(&self, bytes: &mut [u8]) {
        match &self.source {
            // Panics on purpose: without random bytes nothing can be sealed, and there must be no
            // fallback to a weaker source. The kernel's source does not fail once the machine has
            // booted.
            RngSource::System => getrandom::fill(bytes).expect("the system has random bytes"),
            RngSource::Seeded(seeded) => {
                let mut seeded = seeded.lock().unwrap_or_else(PoisonError::into_inner);
                for chunk in bytes.chunks_mut(32) {
                    let block = Sha256::new()
                        .chain_update(seeded.seed.to_be_bytes())
                        .chain_update(seeded.drawn.to_be_bytes())
                        .finalize();
                    chunk.copy_from_slice(&block[..chunk.len()]);
                    seeded.drawn += 1;
                }
            }
        }
    }

    /// `N` random bytes.
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill(&mut bytes);
        bytes
    }

    /// A new id with the timestamp `now`.
    pub fn id<T>(&self, now: Timestamp) -> Id<T> {
        Id::from_uuid(self.uuid(now))
    }

    /// A new UUIDv7 with the timestamp `now` (RFC 9562, section 5.7).
    ///
    /// Ids of the same millisecond ascend by a random step (section 6.2, method 2). Lists are
    /// ordered by id, so the ids of two walks in one millisecond must keep their order.
    pub fn uuid(&self, now: Timestamp) -> Uuid {
        let millis = u64::try_from(now.as_millisecond()).unwrap_or(0);
        let mut last = self.last_id.lock().unwrap_or_else(PoisonError::into_inner);
        if last.drawn.is_empty() {
            last.drawn.resize(DRAWN_AHEAD, [0; 16]);
            self.fill(last.drawn.as_flattened_mut());
        }
        let drawn = last.drawn.pop().map_or(0, u128::from_be_bytes);
        last.tail = if last.millis == millis {
            // The highest of the 74 bits starts at 0. This leaves room for 2^41 steps of at most
            // 2^32 each.
            last.tail + 1 + (drawn & u128::from(u32::MAX))
        } else {
            drawn & ((1 << (TAIL_BITS - 1)) - 1)
        };
        last.millis = millis;

        let high = u16::try_from(last.tail >> LOW_BITS).unwrap_or(u16::MAX);
        let low = u64::try_from(last.tail & ((1 << LOW_BITS) - 1)).unwrap_or(u64::MAX);
        let mut tail = [0; 10];
        tail[..2].copy_from_slice(&high.to_be_bytes());
        tail[2..].copy_from_slice(&low.to_be_bytes());
        uuid::Builder::from_unix_timestamp_millis(millis, &tail).into_uuid()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_draws_and_another_seed_gives_others() {
        let draw = |seed| Rng::seeded(seed).bytes::<40>();
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        assert_ne!(Rng::system().bytes::<32>(), Rng::system().bytes::<32>());
    }

    #[test]
    fn ids_are_version_7_carry_their_time_and_ascend_within_a_millisecond() {
        let rng = Rng::system();
        let now = Timestamp::from_millisecond(1_763_800_000_123).unwrap();
        let ids: Vec<Uuid> = (0..10_000).map(|_| rng.uuid(now)).collect();
        assert!(ids.is_sorted_by(|a, b| a < b));
        for id in ids {
            assert_eq!(id.get_version_num(), 7);
            assert_eq!(id.get_variant(), uuid::Variant::RFC4122);
            assert_eq!(
                id.as_u128() >> 80,
                u128::from(now.as_millisecond().unsigned_abs())
            );
        }
    }
}
