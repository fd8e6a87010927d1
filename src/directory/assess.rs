//! Judges fetched data before any look-up by id: is it complete, which records are missing, and
//! which losses would it cause?
//!
//! There are three results. *Failed*: the data is incomplete or belongs to another organization.
//! *Held*: it would cause too many losses at once, or the credential sees less than before. *Open*:
//! the absent records are few, or were missing in enough walks before, and are now looked up by id.
//! [`super::seal`] then decides about each of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;

use crate::model::{
    id::RemoteId,
    schema::{Reason, SeatType, UserField},
    walks::{Suspect, SuspectKind, SuspectReason, WalkReason},
};

use super::{
    Directory, Evidence, FetchedDirectory, GroupRead, Lookups, MergedList, Resource,
    evidence::{LostField, Missed},
    field_loss::field_losses,
    list_scan::ListItem,
    record::{Certainty, Millis, UserView, Visibility},
    seal::ReleaseCandidate,
    serve::unified,
    snapshot_builder::{Decisions, SnapshotBuilder, Sources},
};

/// The number of consecutive walks that must report a loss before it is confirmed. The walks must
/// also span [`Policy::held_confirmed_after`].
const WALKS_UNTIL_BELIEVED: u32 = 3;

/// The settings for sealing that an operator can change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Policy {
    /// The number of complete walks that find a user or group by id but in no list, after which it
    /// departs. None: never.
    pub unlisted_departs_after: Option<u32>,
    /// The minimum time from the judgment of the first held walk to the start of the walk that
    /// confirms its losses. Walks that start sooner confirm nothing, however many there are.
    pub held_confirmed_after: Duration,
}

/// Fetched data, judged as far as possible without further requests.
#[derive(Debug)]
pub struct Assessment<'a> {
    pub(super) prev: Option<&'a Directory>,
    pub(super) reading: FetchedDirectory,
    pub(super) evidence: Evidence,
    pub(super) policy: Policy,
    now: Millis,
    pub(super) finding: ChangeKind,
}

#[derive(Debug)]
pub(super) enum ChangeKind {
    Failed(WalkReason),
    Held {
        reason: WalkReason,
        suspects: Vec<Suspect>,
        candidate: Box<ReleaseCandidate>,
        /// Whether an earlier held walk would have caused some of the same losses. Always true for
        /// a degraded walk.
        is_repeated: bool,
    },
    Open(Open),
}

/// The records to decide about before the data can be sealed.
#[derive(Debug, Default)]
pub(super) struct Open {
    /// Records of the previous directory or of a first scan that are not in the list at its end.
    pub(super) users: Vec<RemoteId>,
    pub(super) groups: Vec<RemoteId>,
    /// The losses that the data would cause, each with the series of walks that reported it.
    pub(super) losses: BTreeMap<LostField, Missed>,
    /// The confirmed part of `losses`: reported by enough consecutive walks, over a long enough
    /// time.
    ripe: BTreeSet<LostField>,
    /// Whether the losses exceed the limit, so that the walk goes on only because enough of them
    /// are confirmed. Each loss then needs its own proof.
    pub(super) is_disputed: bool,
}

impl Open {
    /// Whether this walk must not apply the loss: it is one of too many, and it is not confirmed.
    pub(super) fn is_unripe(&self, loss: &LostField) -> bool {
        self.is_disputed && self.losses.contains_key(loss) && !self.ripe.contains(loss)
    }

    /// The losses that need their own proof.
    pub(super) fn disputes(&self) -> impl Iterator<Item = (&LostField, Missed)> {
        self.losses
            .iter()
            .filter(|_| self.is_disputed)
            .map(|(loss, missed)| (loss, *missed))
    }
}

/// Judges fetched data against the current directory and the evidence of earlier walks.
pub fn assess(
    prev: Option<&Directory>,
    reading: FetchedDirectory,
    evidence: Evidence,
    policy: Policy,
    now: Timestamp,
) -> Assessment<'_> {
    let mut assessment = Assessment {
        prev,
        reading,
        evidence,
        policy,
        now: Millis::at(now),
        finding: ChangeKind::Open(Open::default()),
    };
    assessment.finding = assessment.judge().unwrap_or_else(ChangeKind::Failed);
    assessment
}

impl Assessment<'_> {
    fn judge(&mut self) -> Result<ChangeKind, WalkReason> {
        let Self {
            prev, reading, now, ..
        } = &*self;
        let now = *now;
        if prev.is_some_and(|prev| *prev.organization() != reading.identity.organization) {
            return Err(WalkReason::OrganizationChanged);
        }
        let users = absent(*prev, Resource::Users, &reading.users);
        let groups = reading
            .groups
            .as_ref()
            .map(|groups| absent(*prev, Resource::Groups, groups))
            .unwrap_or_default();
        can_be_whole(&reading.users, &users)?;
        if let Some(listing) = &reading.groups {
            can_be_whole(listing, &groups)?;
        }

        let mut open = Open {
            users,
            groups,
            ..Open::default()
        };
        let Some(prev) = *prev else {
            return Ok(ChangeKind::Open(open));
        };
        let as_seen = self.as_seen(prev, &open);
        let world =
            SnapshotBuilder::build(self.sources(now), &as_seen).ok_or(WalkReason::Incomplete)?;
        let losses = losses(prev, &world);
        let hold = |reason, suspects, is_repeated| {
            // An incomplete list fails the walk, since a release would publish it.
            if self.falls_short() {
                return Err(WalkReason::Incomplete);
            }
            Ok(ChangeKind::Held {
                reason,
                suspects,
                candidate: Box::new(ReleaseCandidate::of(&world, &as_seen, &self.evidence, now)),
                is_repeated,
            })
        };
        let degraded = if reading.visibility().is_less_than(prev.visibility()) {
            degraded_suspects(prev, &losses)
        } else {
            field_loss_suspects(prev, &world, &losses)
        };
        if !degraded.is_empty() {
            // All consecutive degraded walks belong to one hold.
            let finding = hold(WalkReason::Degraded, degraded, true)?;
            self.evidence.held.clear();
            return Ok(finding);
        }

        open.losses = losses
            .into_iter()
            .map(|loss| {
                let missed = Missed::again(self.evidence.held.get(&loss), now);
                (loss, missed)
            })
            .collect();
        open.ripe = open
            .losses
            .iter()
            .filter(|(_, missed)| self.is_ripe(missed))
            .map(|(loss, _)| loss.clone())
            .collect();
        let is_too_much = |is_counted: &dyn Fn(&LostField) -> bool| {
            [Resource::Users, Resource::Groups].into_iter().any(|of| {
                let lost = open
                    .losses
                    .keys()
                    .filter(|loss| resource_of(loss.kind) == of && is_counted(loss));
                let (missing, others): (Vec<_>, Vec<_>) =
                    lost.partition(|loss| loss.why == SuspectReason::Missing);
                // A row without a readable id may belong to a missing record, so that many missing
                // records do not count.
                let missing = missing.len().saturating_sub(self.nameless(of));
                missing + others.len() > limit(prev.len(of))
            })
        };
        let is_disputed = is_too_much(&|_| true);
        if is_too_much(&|loss| !open.ripe.contains(loss)) {
            let suspects = open.losses.keys().map(|loss| suspect(prev, loss)).collect();
            let is_repeated = open.losses.values().any(|missed| missed.walks > 1);
            let finding = hold(WalkReason::MassDisappearance, suspects, is_repeated)?;
            self.evidence.held = open.losses;
            return Ok(finding);
        }
        open.is_disputed = is_disputed;
        Ok(ChangeKind::Open(open))
    }

    /// Whether the loss was reported by enough consecutive walks, over a long enough time. The time
    /// is measured from the judgment of the first walk to the start of this one: the two
    /// observations are at least that far apart.
    fn is_ripe(&self, missed: &Missed) -> bool {
        let apart = Millis::at(self.reading.started_at).since(missed.since);
        let needed = self.policy.held_confirmed_after.as_millis();
        let needed = i64::try_from(needed).unwrap_or(i64::MAX);
        missed.walks >= WALKS_UNTIL_BELIEVED && (needed == 0 || apart >= needed)
    }

    /// The decisions if every missing record is gone, to find the losses that this would cause.
    /// Exceptions: a record that was missing before and was kept is not a new loss, a group that
    /// was read by its id exists, and the absence of a user that the credential cannot list proves
    /// nothing.
    fn as_seen(&self, prev: &Directory, open: &Open) -> Decisions {
        let mut decisions = Decisions::default();
        for id in &open.users {
            let Some(place) = prev.find(Resource::Users, id.as_str()) else {
                continue;
            };
            if is_unlistable(prev, place, self.reading.visibility()) {
                decisions.users.insert(id.clone(), Certainty::UNLISTABLE);
                decisions.unlistable.insert(id.clone());
            } else if self.evidence.users.is_known(id.as_str()) {
                let profile = prev.user(place).profile;
                let standing = Certainty {
                    listed: profile.listed,
                    suspected: profile.suspected,
                };
                decisions.users.insert(id.clone(), standing);
            }
        }
        for id in &open.groups {
            let is_read = matches!(
                self.reading.group_reads.get(id),
                Some(GroupRead::Members(_))
            );
            if (is_read || self.evidence.groups.is_known(id.as_str()))
                && let Some(place) = prev.find(Resource::Groups, id.as_str())
            {
                let group = prev.group(place);
                let standing = Certainty {
                    listed: group.listed,
                    suspected: group.suspected,
                };
                decisions.groups.insert(id.clone(), standing);
            }
        }
        decisions
    }

    pub(super) fn sources(&self, now: Millis) -> Sources<'_> {
        Sources {
            prev: self.prev,
            reading: &self.reading,
            evidence: &self.evidence,
            now,
        }
    }

    /// The number of rows without a readable id in a list.
    fn nameless(&self, of: Resource) -> usize {
        let rows = match of {
            Resource::Users => self.reading.users.nameless(),
            Resource::Groups => self.reading.groups.as_ref().map_or(0, MergedList::nameless),
            Resource::Roles => 0,
        };
        usize::try_from(rows).unwrap_or(usize::MAX)
    }

    /// Whether a list has fewer records than the provider's total.
    fn falls_short(&self) -> bool {
        let groups = self.reading.groups.as_ref();
        self.reading.users.falls_short_by(0) || groups.is_some_and(|list| list.falls_short_by(0))
    }

    /// The users and groups to look up by id before sealing, at most `cap`: first the longest
    /// missing, then records that an earlier look-up found recently, the oldest answer first. Empty
    /// if the walk failed or is held.
    pub fn lookups(&self, cap: usize) -> Lookups {
        let now = self.now;
        let ChangeKind::Open(open) = &self.finding else {
            return Lookups::default();
        };
        let mut asked = BTreeSet::new();
        let users = open.users.iter().map(|id| (SuspectKind::User, id));
        // A group that was read by its id in this walk needs no look-up.
        let groups = open
            .groups
            .iter()
            .filter(|id| !self.reading.group_reads.contains_key(*id))
            .map(|id| (SuspectKind::Group, id));
        for (kind, id) in users.chain(groups) {
            let absences = match kind {
                SuspectKind::User => &self.evidence.users,
                SuspectKind::Group => &self.evidence.groups,
            };
            let found_at = absences.recently_found_at(id.as_str(), now);
            // A group that was missing before is read with the other groups, before the walk is
            // judged. A look-up could find it empty when it is too late to hold the walk.
            let is_planned = kind == SuspectKind::Group && absences.is_known(id.as_str());
            if !is_planned && !open.is_unripe(&missing(kind, id)) {
                let waits_since = found_at.unwrap_or_else(|| absences.since(id.as_str(), now));
                asked.insert((found_at.is_some(), waits_since, kind, id));
            }
        }
        for (loss, _) in open.disputes() {
            let can_be_shown = [SuspectReason::Disabled, SuspectReason::RolesLost];
            if can_be_shown.contains(&loss.why) && !open.is_unripe(loss) {
                asked.insert((false, now, loss.kind, &loss.id));
            }
        }
        let mut lookups = Lookups::default();
        for (_, _, kind, id) in asked.into_iter().take(cap) {
            match kind {
                SuspectKind::User => lookups.users.push(id.clone()),
                SuspectKind::Group => lookups.groups.push(id.clone()),
            }
        }
        lookups
    }
}

/// The smallest number of rows at which a list's total is trusted. Below it, so many records are
/// missing that the walk would be held. On a first read of a list, no total is trusted.
pub fn plausible_rows(prev: Option<&Directory>, of: Resource) -> u64 {
    let Some(prev) = prev.filter(|prev| of != Resource::Groups || prev.visibility().groups) else {
        return u64::MAX;
    };
    let listed = (0..prev.len(of))
        .filter(|place| of != Resource::Users || !prev.user(*place).profile.is_external_member)
        .count();
    listed.saturating_sub(limit(prev.len(of))) as u64
}

/// The number of records, of `former`, that may have a loss at once: a tenth, but at least 5 and at
/// most 50.
pub(super) const fn limit(former: usize) -> usize {
    let tenth = former / 10;
    if tenth < 5 {
        5
    } else if tenth > 50 {
        50
    } else {
        tenth
    }
}

const fn resource_of(kind: SuspectKind) -> Resource {
    match kind {
        SuspectKind::User => Resource::Users,
        SuspectKind::Group => Resource::Groups,
    }
}

pub(super) fn missing(kind: SuspectKind, id: &RemoteId) -> LostField {
    LostField {
        kind,
        id: id.clone(),
        why: SuspectReason::Missing,
    }
}

/// Whether the credential can no longer list the user at row `place`. While seats are hidden, a
/// list does not show users that may be guests, whether they exist or not. A user that was kept for
/// this reason has a warning on `listed`, and is kept for as long as seats are hidden.
pub(super) fn is_unlistable(prev: &Directory, place: usize, sees: Visibility) -> bool {
    let UserView { profile, .. } = prev.user(place);
    let is_warned = profile.warnings.iter().any(|warning| {
        (warning.field, warning.reason) == (UserField::Listed, Reason::NotPermitted)
    });
    let may_be_guest = profile.is_external != Some(false)
        || (profile.seat.as_ref()).is_some_and(|seat| seat.value == SeatType::Guest);
    sees.seats_hidden.is_some()
        && (is_warned || (prev.visibility().seats_hidden.is_none() && may_be_guest))
}

/// Records of the previous directory or of a first scan that the list does not show at its end.
fn absent<T: ListItem>(
    prev: Option<&Directory>,
    resource: Resource,
    listing: &MergedList<T>,
) -> Vec<RemoteId> {
    let mut absent: BTreeSet<RemoteId> = listing
        .records()
        .filter(|(_, in_last_pass)| !in_last_pass)
        .map(|(record, _)| record.remote_id().clone())
        .collect();
    if let Some(prev) = prev {
        let former = (0..prev.len(resource))
            .filter(|place| {
                resource != Resource::Users || !prev.user(*place).profile.is_external_member
            })
            .map(|place| prev.id_at(resource, place))
            .filter(|id| !listing.shows(id));
        absent.extend(former.map(RemoteId::from));
    }
    absent.into_iter().collect()
}

/// Fails if the list is incomplete even if every absent record is proven gone.
fn can_be_whole<T: ListItem>(
    listing: &MergedList<T>,
    absent: &[RemoteId],
) -> Result<(), WalkReason> {
    let unseen = absent.iter().filter(|id| !listing.has_record(id.as_str()));
    if listing.needs_second_pass() || listing.falls_short_by(unseen.count() as u64) {
        return Err(WalkReason::Incomplete);
    }
    Ok(())
}

/// The losses in `after` for records of `prev`, at most one each.
fn losses(prev: &Directory, after: &SnapshotBuilder<'_>) -> BTreeSet<LostField> {
    let loss = |kind, id: &str, why| LostField {
        kind,
        id: RemoteId::from(id),
        why,
    };
    let mut losses = BTreeSet::new();
    for place in 0..prev.len(Resource::Groups) {
        let id = prev.group(place).id;
        if after.visibility.groups && !after.has_group(id) {
            losses.insert(loss(SuspectKind::Group, id, SuspectReason::Missing));
        }
    }
    let group_counts = after.group_counts();
    for place in 0..prev.len(Resource::Users) {
        let before = prev.user(place);
        let why = match after.place_now(place) {
            None => SuspectReason::Missing,
            Some(now) => {
                let user = &after.users[now].view;
                if before.profile.status.is_some() && !before.is_disabled() && user.is_disabled() {
                    SuspectReason::Disabled
                } else if before.holds_a_role() && user.is_without_roles() {
                    SuspectReason::RolesLost
                } else if group_counts[now] == 0 && !prev.groups_of(place).is_empty() {
                    SuspectReason::GroupsLost
                } else {
                    continue;
                }
            }
        };
        losses.insert(loss(SuspectKind::User, before.id, why));
    }
    losses
}

fn suspect(prev: &Directory, loss: &LostField) -> Suspect {
    let of = resource_of(loss.kind);
    let id = loss.id.as_str();
    let name = prev.find(of, id).and_then(|place| match of {
        Resource::Groups => prev.group(place).name,
        _ => prev.user(place).name,
    });
    Suspect {
        kind: loss.kind,
        id: unified(of, id),
        remote_id: id.to_owned(),
        name: name.map(str::to_owned),
        why: loss.why,
    }
}

/// Suspects of a walk whose credential sees less: missing records as such, and all other users as
/// degraded.
fn degraded_suspects(prev: &Directory, losses: &BTreeSet<LostField>) -> Vec<Suspect> {
    let gone: BTreeSet<LostField> = losses
        .iter()
        .filter(|loss| loss.why == SuspectReason::Missing)
        .cloned()
        .collect();
    let degraded = (0..prev.len(Resource::Users))
        .map(|place| LostField {
            kind: SuspectKind::User,
            id: RemoteId::from(prev.user(place).id),
            why: SuspectReason::Degraded,
        })
        .filter(|loss| !gone.contains(&missing(loss.kind, &loss.id)));
    gone.iter()
        .cloned()
        .chain(degraded)
        .map(|loss| suspect(prev, &loss))
        .collect()
}

/// Suspects of a walk in which too many records lose the same field: these records, and all other
/// losses, since a release accepts them too. Empty if no field is lost by too many.
fn field_loss_suspects(
    prev: &Directory,
    after: &SnapshotBuilder<'_>,
    losses: &BTreeSet<LostField>,
) -> Vec<Suspect> {
    let fields = field_losses(prev, after);
    if fields.is_empty() {
        return Vec::new();
    }
    let others = losses
        .iter()
        .filter(|loss| !fields.contains(&(loss.kind, loss.id.clone())));
    let fields = fields.iter().map(|(kind, id)| LostField {
        kind: *kind,
        id: id.clone(),
        why: SuspectReason::Degraded,
    });
    let all: BTreeSet<LostField> = others.cloned().chain(fields).collect();
    all.iter().map(|loss| suspect(prev, loss)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        directory::{
            Answers, SealResult,
            testing::{at, disabled, first, reading_of, user},
        },
        model::observed::ObservedUser,
    };

    #[test]
    fn more_than_five_and_a_tenth_or_more_than_fifty_are_too_many() {
        for (former, most) in [
            (0, 5),
            (1, 5),
            (59, 5),
            (60, 6),
            (99, 9),
            (100, 10),
            (499, 49),
            (500, 50),
            (510, 50),
            (100_000, 50),
        ] {
            assert_eq!(limit(former), most, "{former}");
        }
    }

    fn people(n: usize) -> Vec<ObservedUser> {
        (0..n).map(|i| user(&format!("u{i}"))).collect()
    }

    fn judge(prev: &Directory, evidence: Evidence, users: &[ObservedUser]) -> SealResult {
        assess(
            Some(prev),
            reading_of(users, &[], 60),
            evidence,
            Policy::default(),
            at(60),
        )
        .seal(Answers::default(), 2, at(60))
    }

    #[test]
    fn five_may_be_disabled_at_once_and_six_of_a_few_may_not() {
        let mut people = people(20);
        let (prev, evidence) = first(reading_of(&people, &[], 0));
        for user in &mut people[..5] {
            *user = disabled(user.clone());
        }
        let verdict = judge(&prev, evidence.clone(), &people);
        assert!(matches!(verdict, SealResult::Sealed { .. }), "{verdict:?}");
        people[5] = disabled(people[5].clone());
        match judge(&prev, evidence, &people) {
            SealResult::Held {
                reason, suspects, ..
            } => {
                assert_eq!(reason, WalkReason::MassDisappearance);
                assert_eq!(suspects.len(), 6);
                assert_eq!(suspects[0].why, SuspectReason::Disabled);
                assert_eq!(suspects[0].id, "usr_u0");
            }
            other => panic!("{other:?}"),
        }
    }
}
