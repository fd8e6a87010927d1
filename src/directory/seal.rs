//! Seals fetched data with the answers to the look-ups: decides about each absent record, and
//! builds the next directory or reports that nothing changed.
//!
//! A missing user or group is removed only if the provider's own code says that it does not exist,
//! or after the number of walks that the operator set as [`Policy::unlisted_departs_after`]. A
//! record that is found stays unchanged. A record without an answer stays too, with `suspected:
//! true`. An external member is removed when groups are visible and none names them.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::model::{
    id::RemoteId,
    observed::ObservedUser,
    schema::UserStatus,
    walks::{Suspect, SuspectKind, SuspectReason, WalkReason},
};

use super::{
    Answers, Assessment, DecodeError, Directory, Evidence, GroupAnswer, GroupRead, MergedList,
    Policy, Resource, UserAnswer,
    assess::{ChangeKind, Open, is_unlistable, missing},
    codec,
    columns::Columns,
    evidence::{Absences, LostField, WALKS_UNTIL_UNLISTED},
    list_scan::ListItem,
    record::{Certainty, Millis},
    snapshot_builder::{Decisions, SnapshotBuilder},
};

/// The result of a walk. The evidence replaces the account's stored evidence.
#[derive(Debug)]
pub enum SealResult {
    Failed(WalkReason),
    /// Complete, but with too many losses or less visibility than before, so a person must review
    /// it. The current directory stays.
    Held {
        reason: WalkReason,
        suspects: Vec<Suspect>,
        candidate: Box<ReleaseCandidate>,
        /// Whether an earlier walk was held for some of the same losses. Always true for a degraded
        /// walk.
        is_repeated: bool,
        evidence: Evidence,
    },
    /// No record changed: the version and the ETags stay.
    Unchanged {
        evidence: Evidence,
    },
    Sealed {
        directory: Box<Directory>,
        evidence: Evidence,
    },
}

impl Assessment<'_> {
    /// Seals the data as `version`, if possible.
    pub fn seal(mut self, answers: Answers, version: u64, now: Timestamp) -> SealResult {
        let open = match self.finding {
            ChangeKind::Failed(reason) => return SealResult::Failed(reason),
            ChangeKind::Held {
                reason,
                suspects,
                candidate,
                is_repeated,
            } => {
                return SealResult::Held {
                    reason,
                    suspects,
                    candidate,
                    is_repeated,
                    evidence: self.evidence,
                };
            }
            ChangeKind::Open(ref mut open) => std::mem::take(open),
        };
        let now = Millis::at(now);
        let Some(decisions) = self.decide(&open, &answers, now) else {
            return SealResult::Failed(WalkReason::Incomplete);
        };
        let Some(world) = SnapshotBuilder::build(self.sources(now), &decisions) else {
            return SealResult::Failed(WalkReason::Incomplete);
        };
        let directory = world
            .is_changed
            .then(|| Box::new(Directory::build(&world, version, now)));
        let mut evidence = self.evidence.clone();
        evidence.note_reads(world.read_times());
        match directory {
            Some(directory) => SealResult::Sealed {
                directory,
                evidence,
            },
            None => SealResult::Unchanged { evidence },
        }
    }

    /// Decides about every absent record, and updates the evidence. None if a list does not add up
    /// to the provider's total after that.
    fn decide(&mut self, open: &Open, answers: &Answers, now: Millis) -> Option<Decisions> {
        let Self {
            reading,
            evidence,
            policy,
            ..
        } = self;
        let mut decisions = Decisions::default();
        let (prev, sees) = (self.prev, reading.visibility());
        let is_unlistable = |id: &RemoteId| {
            prev.and_then(|prev| Some((prev, prev.find(Resource::Users, id.as_str())?)))
                .is_some_and(|(prev, place)| is_unlistable(prev, place, sees))
        };

        let mut trial = AbsenceCheck {
            absences: &mut evidence.users,
            listing: &reading.users,
            policy: *policy,
            now,
            kept_missing: BTreeSet::new(),
            departed_unseen: 0,
        };
        for id in &open.users {
            let word = match answers.users.get(id) {
                _ if open.is_unripe(&missing(SuspectKind::User, id)) => LookupResult::None,
                Some(UserAnswer::Found(_)) => LookupResult::Found,
                Some(UserAnswer::Departed) => LookupResult::Departed,
                None => LookupResult::None,
            };
            if is_unlistable(id) && word != LookupResult::Departed {
                trial.keep_unlistable(id, word);
                decisions.users.insert(id.clone(), Certainty::UNLISTABLE);
                decisions.unlistable.insert(id.clone());
            } else if let Some(standing) = trial.hear(id, word) {
                decisions.users.insert(id.clone(), standing);
            }
        }
        trial.close()?;

        if let Some(listing) = &reading.groups {
            let mut trial = AbsenceCheck {
                absences: &mut evidence.groups,
                listing,
                policy: *policy,
                now,
                kept_missing: BTreeSet::new(),
                departed_unseen: 0,
            };
            for id in &open.groups {
                let word = match (reading.group_reads.get(id), answers.groups.get(id)) {
                    // The snapshot drops such a group, so the evidence must record that, too.
                    (Some(GroupRead::Departed), _) => LookupResult::Departed,
                    _ if open.is_unripe(&missing(SuspectKind::Group, id)) => LookupResult::None,
                    (Some(GroupRead::Members(_)), _) => LookupResult::Found,
                    (Some(GroupRead::Unread(_)), _) => LookupResult::None,
                    (None, Some(GroupAnswer::Found)) => LookupResult::Found,
                    (None, Some(GroupAnswer::Departed)) => LookupResult::Departed,
                    (None, None) => LookupResult::None,
                };
                if let Some(standing) = trial.hear(id, word) {
                    decisions.groups.insert(id.clone(), standing);
                }
            }
            trial.close()?;
        }

        // A loss without proof in this walk keeps its series, so the next walk can confirm it.
        evidence.held = open
            .disputes()
            .map(|(loss, missed)| (loss.clone(), missed))
            .collect();
        for (loss, _) in open.disputes() {
            let is_absent = open.users.binary_search(&loss.id).is_ok();
            if loss.kind == SuspectKind::User
                && !is_absent
                && (open.is_unripe(loss) || !is_confirmed(loss, answers.users.get(&loss.id)))
            {
                decisions.disputed.insert(loss.id.clone());
            }
        }
        Some(decisions)
    }
}

/// The provider's answer about one absent record in this walk.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LookupResult {
    Found,
    Departed,
    None,
}

/// Decides about the absent records of one list, one at a time.
struct AbsenceCheck<'a, T> {
    absences: &'a mut Absences,
    listing: &'a MergedList<T>,
    policy: Policy,
    now: Millis,
    kept_missing: BTreeSet<RemoteId>,
    /// The number of departed records that no scan saw. The provider's total may still count them.
    departed_unseen: u64,
}

impl<T: ListItem> AbsenceCheck<'_, T> {
    /// Records the answer and returns how certain the record is; None if it is gone.
    fn hear(&mut self, id: &RemoteId, word: LookupResult) -> Option<Certainty> {
        let text = id.as_str();
        let was_seen = self.listing.has_record(text);
        if word == LookupResult::Departed {
            self.absences.note_departed(text, self.now);
            self.departed_unseen += u64::from(!was_seen);
            return None;
        }
        // The first scan saw the record and the second did not, but it exists: the pages had
        // shifted.
        if was_seen && word == LookupResult::Found {
            return Some(Certainty::SEEN);
        }
        let is_found = word == LookupResult::Found
            || self.absences.recently_found_at(text, self.now).is_some();
        // A row without a readable id may belong to this record, so its absence from the list is
        // not certain.
        let is_absent = self.listing.nameless() == 0;
        self.absences
            .note_missing(text, self.now, word == LookupResult::Found && is_absent);
        let walks = self.absences.found_in_walks(text);
        if is_found
            && is_absent
            && self
                .policy
                .unlisted_departs_after
                .is_some_and(|after| walks >= after)
        {
            self.absences.note_departed(text, self.now);
            return None;
        }
        self.kept_missing.insert(id.clone());
        Some(Certainty {
            listed: walks < WALKS_UNTIL_UNLISTED,
            suspected: !is_found,
        })
    }

    /// Keeps a user that the credential cannot list. The caller has excluded a proof of departure.
    fn keep_unlistable(&mut self, id: &RemoteId, word: LookupResult) {
        let is_found = word == LookupResult::Found;
        self.absences.note_missing(id.as_str(), self.now, is_found);
        self.kept_missing.insert(id.clone());
    }

    /// Removes outdated evidence; None if the list is not complete.
    fn close(self) -> Option<()> {
        let Self {
            absences,
            listing,
            now,
            kept_missing,
            departed_unseen,
            ..
        } = self;
        absences.tidy(now, |id| listing.shows(id), |id| kept_missing.contains(id));
        (!listing.falls_short_by(departed_unseen)).then_some(())
    }
}

/// Whether a disputed loss is proven: a disabled user or a lost role by a look-up that shows the
/// same, lost groups by the third read in a row, which is this one.
fn is_confirmed(loss: &LostField, answer: Option<&UserAnswer>) -> bool {
    let shows = |holds: fn(&ObservedUser) -> bool| match answer {
        Some(UserAnswer::Found(user)) => holds(user),
        _ => false,
    };
    match loss.why {
        SuspectReason::Disabled => shows(|user| {
            user.status
                .as_ref()
                .is_some_and(|status| status.value == UserStatus::Disabled)
        }),
        SuspectReason::RolesLost => {
            shows(|user| user.roles.as_ref().is_some_and(|roles| roles.is_empty()))
        }
        SuspectReason::GroupsLost | SuspectReason::Missing | SuspectReason::Degraded => true,
    }
}

/// The directory that a held walk publishes if a person releases it: missing records are gone,
/// changes apply, and fields that are not visible any more are null.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleaseCandidate {
    directory: Directory,
    evidence: Evidence,
}

#[derive(Serialize, Deserialize)]
struct StoredCandidate<D> {
    columns: D,
    evidence: Evidence,
}

impl ReleaseCandidate {
    pub(super) fn of(
        as_seen: &SnapshotBuilder<'_>,
        decisions: &Decisions,
        evidence: &Evidence,
        now: Millis,
    ) -> Self {
        let mut evidence = evidence.clone();
        evidence.held = BTreeMap::new();
        for id in &decisions.unlistable {
            evidence.users.note_missing(id.as_str(), now, false);
        }
        evidence.note_reads(as_seen.read_times());
        Self {
            directory: Directory::build(as_seen, 0, now),
            evidence,
        }
    }

    /// Returns the directory of the held walk and its evidence. It may replace only the directory
    /// that the walk was judged against.
    pub fn release(self, version: u64, now: Timestamp) -> (Directory, Evidence) {
        let directory = self.directory.with_version(version, Millis::at(now));
        (directory, self.evidence)
    }

    pub fn encode(&self) -> Vec<u8> {
        let stored = StoredCandidate {
            columns: &self.directory.columns,
            evidence: self.evidence.clone(),
        };
        codec::encode(&(
            stored,
            &self.directory.pages,
            &self.directory.group_warnings,
        ))
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (stored, (pages, group_warnings)): (StoredCandidate<Columns>, _) =
            codec::decode_grown(bytes)?;
        let directory = Directory::from_columns(stored.columns, pages, group_warnings);
        Ok(Self {
            directory: directory.ok_or(DecodeError::Unsound)?,
            evidence: stored.evidence,
        })
    }
}
