//! The data that one walk leaves for the next, besides the directory: when each group was last
//! read, which records are missing since when, which are proven gone, and which losses held walks
//! would have caused.
//!
//! Evidence is stored apart from the [`Directory`] because it changes in every walk. A walk that
//! finds no change must not change the directory, its version or its ETags.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::model::{
    id::RemoteId,
    walks::{SuspectKind, SuspectReason},
};

use super::{DecodeError, Directory, Resource, codec, record::Millis};

/// The lifetime of a look-up's answer.
const PROOF_KEEPS_MILLIS: i64 = 24 * 60 * 60 * 1000;

/// The number of complete walks that must find a missing record by id before it counts as unlisted.
pub(super) const WALKS_UNTIL_UNLISTED: u32 = 3;

/// The evidence of one account. Empty before the first walk.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Evidence {
    groups_read: BTreeMap<RemoteId, Millis>,
    pub(super) users: Absences,
    pub(super) groups: Absences,
    /// The losses that consecutive held walks would have caused. An older stored form has counts
    /// without times here. So this field is stored as an empty map, the real map follows after the
    /// struct, and decoding drops old counts.
    #[serde(serialize_with = "nothing", deserialize_with = "dropped")]
    pub(super) held: BTreeMap<LostField, Missed>,
}

/// The number of consecutive walks that would have caused a loss, and the start of that series.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Missed {
    pub(super) walks: u32,
    /// The time at which the first of these walks was judged.
    pub(super) since: Millis,
}

impl Missed {
    /// Adds one walk, judged at `now`, to the series.
    pub(super) fn again(before: Option<&Self>, now: Millis) -> Self {
        Self {
            walks: before.map_or(0, |before| before.walks).saturating_add(1),
            // If the clock was set back, `since` would be in the future.
            since: before.map_or(now, |before| before.since.min(now)),
        }
    }
}

fn nothing<S: Serializer>(
    _: &BTreeMap<LostField, Missed>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    BTreeMap::<LostField, u32>::new().serialize(serializer)
}

fn dropped<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<LostField, Missed>, D::Error> {
    BTreeMap::<LostField, u32>::deserialize(deserializer).map(|_| BTreeMap::new())
}

/// A loss that a walk would cause for one user or group.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct LostField {
    pub(super) kind: SuspectKind,
    pub(super) id: RemoteId,
    pub(super) why: SuspectReason,
}

/// The missing and the departed records of one list.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Absences {
    missing: BTreeMap<RemoteId, AbsentRecord>,
    departed: BTreeMap<RemoteId, Millis>,
}

/// A record that is kept although it is missing from the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct AbsentRecord {
    since: Millis,
    /// The number of complete walks that found the record by id.
    found_in_walks: u32,
    last_found_at: Millis,
}

impl Absences {
    /// The start of the absence; `now` if the record was not missing before.
    pub(super) fn since(&self, id: &str, now: Millis) -> Millis {
        self.missing.get(id).map_or(now, |missing| missing.since)
    }

    pub(super) fn is_known(&self, id: &str) -> bool {
        self.missing.contains_key(id)
    }

    /// The time of the last look-up that found the record, if at least three walks found it and the
    /// last one less than 24 hours ago. Then the record is not `suspected` if this walk cannot look
    /// it up again.
    pub(super) fn recently_found_at(&self, id: &str, now: Millis) -> Option<Millis> {
        self.missing
            .get(id)
            .filter(|missing| {
                missing.found_in_walks >= WALKS_UNTIL_UNLISTED && keeps(missing.last_found_at, now)
            })
            .map(|missing| missing.last_found_at)
    }

    /// The time of the proof of departure, if it is less than 24 hours old. It removes the record
    /// from older member lists. It is no proof for a second departure, since the user may have
    /// returned.
    pub(super) fn departed_at(&self, id: &str, now: Millis) -> Option<Millis> {
        self.departed.get(id).copied().filter(|at| keeps(*at, now))
    }

    pub(super) fn found_in_walks(&self, id: &str) -> u32 {
        self.missing
            .get(id)
            .map_or(0, |missing| missing.found_in_walks)
    }

    /// Records that the list does not show the record, and whether a look-up in this walk found it.
    pub(super) fn note_missing(&mut self, id: &str, now: Millis, is_found: bool) {
        let missing = self
            .missing
            .entry(RemoteId::from(id))
            .or_insert(AbsentRecord {
                since: now,
                found_in_walks: 0,
                last_found_at: Millis::NONE,
            });
        if is_found {
            missing.found_in_walks = missing.found_in_walks.saturating_add(1);
            missing.last_found_at = now;
        }
    }

    pub(super) fn note_departed(&mut self, id: &str, at: Millis) {
        self.missing.remove(id);
        self.departed.insert(RemoteId::from(id), at);
    }

    /// Deletes the entries of records that are not missing any more, and proofs that expired or
    /// that the list contradicts.
    pub(super) fn tidy(
        &mut self,
        now: Millis,
        is_listed: impl Fn(&str) -> bool,
        is_missing: impl Fn(&str) -> bool,
    ) {
        self.missing.retain(|id, _| is_missing(id.as_str()));
        self.departed
            .retain(|id, at| keeps(*at, now) && !is_listed(id.as_str()));
    }
}

/// Whether an answer from `at` is still valid.
fn keeps(at: Millis, now: Millis) -> bool {
    at != Millis::NONE && now.since(at) < PROOF_KEEPS_MILLIS
}

impl Evidence {
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(&(self, &self.held))
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let Ok((mut evidence, held)) = codec::decode::<(Self, _)>(bytes) else {
            return codec::decode(bytes);
        };
        evidence.held = held;
        Ok(evidence)
    }

    /// The time at which a group's members were last read; [`Millis::NONE`] if never.
    pub(super) fn members_read_at(&self, group: &str) -> Millis {
        self.groups_read.get(group).copied().unwrap_or(Millis::NONE)
    }

    /// Replaces the read times with those of the groups that exist now.
    pub(super) fn note_reads<'a>(&mut self, groups: impl Iterator<Item = (&'a str, Millis)>) {
        self.groups_read = groups.map(|(id, at)| (RemoteId::from(id), at)).collect();
    }

    /// The groups of the users that held walks would have affected. Every walk reads them, since
    /// only a third read with the same result confirms a loss.
    pub(super) fn implicated_groups<'a>(&self, prev: &'a Directory) -> BTreeSet<&'a str> {
        self.held
            .keys()
            .filter(|loss| loss.kind == SuspectKind::User)
            .filter_map(|loss| prev.find(Resource::Users, loss.id.as_str()))
            .flat_map(|user| prev.groups_of(user))
            .map(|group| prev.group(*group as usize).id)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loss() -> LostField {
        LostField {
            kind: SuspectKind::User,
            id: RemoteId::from("u1"),
            why: SuspectReason::Missing,
        }
    }

    /// The stored form before holds had a time.
    #[derive(Serialize)]
    struct Former {
        groups_read: BTreeMap<RemoteId, Millis>,
        users: Absences,
        groups: Absences,
        held: BTreeMap<LostField, u32>,
    }

    #[test]
    fn a_hold_without_a_time_is_dropped_and_the_rest_is_read() {
        let mut users = Absences::default();
        users.note_missing("u1", Millis::NONE, true);
        let groups_read = BTreeMap::from([(RemoteId::from("g1"), Millis::NONE)]);
        let former = codec::encode(&Former {
            groups_read: groups_read.clone(),
            users: users.clone(),
            groups: Absences::default(),
            held: BTreeMap::from([(loss(), 2)]),
        });
        let evidence = Evidence {
            groups_read,
            users,
            ..Evidence::default()
        };
        assert_eq!(Evidence::decode(&former).unwrap(), evidence);
    }

    #[test]
    fn a_hold_is_read_back_with_its_time() {
        let missed = Missed::again(None, Millis::NONE);
        let evidence = Evidence {
            held: BTreeMap::from([(loss(), missed)]),
            ..Evidence::default()
        };
        assert_eq!(Evidence::decode(&evidence.encode()).unwrap(), evidence);
    }
}
