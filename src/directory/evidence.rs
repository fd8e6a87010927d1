//! What walks remember from one to the next beside the directory: when each group was last
//! read, who is missing since when, whom the provider declared gone, and whom held walks missed.
//!
//! It is kept apart from the [`Directory`] because it changes with every walk, and a walk that
//! finds nothing changed must leave the directory, its version and its ETags alone.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::model::{
    id::RemoteId,
    walks::{SuspectKind, SuspectReason},
};

use super::{DecodeError, Directory, Resource, codec, record::Millis};

/// How long a proof keeps.
const PROOF_KEEPS_MILLIS: i64 = 24 * 60 * 60 * 1000;

/// After how many complete walks without them somebody who is found by id is no longer `listed`.
pub(super) const WALKS_UNTIL_UNLISTED: u32 = 3;

/// The memory that walks of one account hand on. Empty before the first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Evidence {
    groups_read: BTreeMap<RemoteId, Millis>,
    pub(super) users: Absences,
    pub(super) groups: Absences,
    /// What the walks in a row that were held would have taken. In the stored form this place has
    /// only counts, without their time; they are written behind it, and what has no time is dropped.
    #[serde(serialize_with = "nothing", deserialize_with = "dropped")]
    pub(super) held: BTreeMap<LostField, Missed>,
}

/// In how many walks in a row something would have been taken, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Missed {
    pub(super) walks: u32,
    /// When the first of them was judged.
    pub(super) since: Millis,
}

impl Missed {
    /// One walk more, judged at `now`, after those that are remembered.
    pub(super) fn again(before: Option<&Self>, now: Millis) -> Self {
        Self {
            walks: before.map_or(0, |before| before.walks).saturating_add(1),
            // A clock that was set back makes nothing older than it is.
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

/// Something that a walk would take from somebody, or from everybody in a group.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct LostField {
    pub(super) kind: SuspectKind,
    pub(super) id: RemoteId,
    pub(super) why: SuspectReason,
}

/// Who is missing from a list, and who is proven gone.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Absences {
    missing: BTreeMap<RemoteId, AbsentRecord>,
    departed: BTreeMap<RemoteId, Millis>,
}

/// Somebody who is kept although the list does not show them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct AbsentRecord {
    since: Millis,
    /// In how many complete walks they were found by id all the same.
    found_in_walks: u32,
    last_found_at: Millis,
}

impl Absences {
    /// Since when they have been missing; `now` for somebody new among the missing.
    pub(super) fn since(&self, id: &str, now: Millis) -> Millis {
        self.missing.get(id).map_or(now, |missing| missing.since)
    }

    pub(super) fn is_known(&self, id: &str) -> bool {
        self.missing.contains_key(id)
    }

    /// When they were last found by id, if we know well enough that they are still there: then
    /// nobody has to be asked in this walk, and no answer is none to worry about.
    /// Until three walks have found them we ask every time.
    pub(super) fn found_of_late_at(&self, id: &str, now: Millis) -> Option<Millis> {
        self.missing
            .get(id)
            .filter(|missing| {
                missing.found_in_walks >= WALKS_UNTIL_UNLISTED && keeps(missing.last_found_at, now)
            })
            .map(|missing| missing.last_found_at)
    }

    /// When they were proven gone, if that was less than a day ago. It strikes them from member
    /// lists of before; it never makes anybody leave a second time, since they may have returned.
    pub(super) fn departed_at(&self, id: &str, now: Millis) -> Option<Millis> {
        self.departed.get(id).copied().filter(|at| keeps(*at, now))
    }

    pub(super) fn found_in_walks(&self, id: &str) -> u32 {
        self.missing
            .get(id)
            .map_or(0, |missing| missing.found_in_walks)
    }

    /// They are missing, and the provider did (or did not) show them by id at `found_at`.
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

    /// Forgets whom the list shows again, whoever is no longer kept, and proofs that are old.
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

    /// When a group's members were last read; [`Millis::NONE`] if never.
    pub(super) fn members_read_at(&self, group: &str) -> Millis {
        self.groups_read.get(group).copied().unwrap_or(Millis::NONE)
    }

    /// Takes the read times of the groups that there are; others are forgotten.
    pub(super) fn note_reads<'a>(&mut self, groups: impl Iterator<Item = (&'a str, Millis)>) {
        self.groups_read = groups.map(|(id, at)| (RemoteId::from(id), at)).collect();
    }

    /// The groups that somebody whom held walks miss belongs to. They are read in every walk,
    /// since only a third reading that says the same can settle it.
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

    /// The stored form of before the time of a hold was remembered.
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
