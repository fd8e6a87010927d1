//! The last word on a reading (a walk's rules 3 to 7): with the answers to the look-ups in hand,
//! decide about each absent one, and make the next directory, or find that nothing changed.
//!
//! Nobody leaves but by a proof: the provider's own "no such user". Somebody who is found is
//! kept as they were; somebody of whom nothing was heard is kept too, and `suspected`.

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

/// What became of a reading. Evidence, where there is some, is to be stored in place of the old.
#[derive(Debug)]
pub enum SealResult {
    Failed(WalkReason),
    /// Whole, but so unlikely that a person must look; the directory in force stays.
    Held {
        reason: WalkReason,
        suspects: Vec<Suspect>,
        candidate: Box<ReleaseCandidate>,
        /// Whether an earlier held walk was held for some of the same.
        is_repeated: bool,
        evidence: Evidence,
    },
    /// Nothing that is served changed: version and ETags stay.
    Unchanged {
        evidence: Evidence,
    },
    Sealed {
        directory: Box<Directory>,
        evidence: Evidence,
    },
}

impl Assessment<'_> {
    /// Seals the reading as `version`, if it can be.
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

    /// Decides about everybody who is to be accounted for, and remembers what led to it. None
    /// if, after that, the list does not add up to the provider's own total.
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

        // What was not proven in this walk counts on: the next may be the one that proves it.
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

/// What the provider said of an absent one in this walk.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LookupResult {
    Found,
    Departed,
    None,
}

/// The absent of one list, heard one by one.
struct AbsenceCheck<'a, T> {
    absences: &'a mut Absences,
    listing: &'a MergedList<T>,
    policy: Policy,
    now: Millis,
    kept_missing: BTreeSet<RemoteId>,
    /// Who is proven gone and was not seen by any pass, so that the total may count them.
    departed_unseen: u64,
}

impl<T: ListItem> AbsenceCheck<'_, T> {
    /// How somebody is kept; None if they are gone.
    fn hear(&mut self, id: &RemoteId, word: LookupResult) -> Option<Certainty> {
        let text = id.as_str();
        let was_seen = self.listing.has_record(text);
        if word == LookupResult::Departed {
            self.absences.note_departed(text, self.now);
            self.departed_unseen += u64::from(!was_seen);
            return None;
        }
        // A first pass saw them and the second did not, but they are there: pages had shifted.
        if was_seen && word == LookupResult::Found {
            return Some(Certainty::SEEN);
        }
        let is_found =
            word == LookupResult::Found || self.absences.found_of_late_at(text, self.now).is_some();
        // Theirs may be a row of the list that does not tell whose it is: then it says nothing of
        // whether they are listed.
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

    /// Somebody whom the credential cannot list is kept, whatever a look-up came to but a proof.
    fn keep_unlistable(&mut self, id: &RemoteId, word: LookupResult) {
        let is_found = word == LookupResult::Found;
        self.absences.note_missing(id.as_str(), self.now, is_found);
        self.kept_missing.insert(id.clone());
    }

    /// Tidies the memory; None if the list is not whole.
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

/// Whether a loss that too many had at once has been shown by a reading of its own: a single
/// read that says the same, or, of groups, the third full reading in a row, which this is.
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

/// The directory that a held walk would have made, if a person takes the reading at its word:
/// the missing gone, the changed changed, what is no longer seen null.
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

    /// The directory that takes the held walk at its word, and the memory to go with it. It
    /// replaces the directory that the walk was held against, and no other.
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
