//! Judging a reading before anything is asked about it (a walk's rules 3 to 5): is it whole, who
//! is missing from it, what would it take from whom, and is that likely enough to go on?
//!
//! Three ways lead on from here. The reading has *failed*; or it is *held*, because it would
//! take too much from too many at once, or sees less than the last one did; or it is *open*: the
//! absent are few, or missed for the third time, and are now asked for by id. Only then, in
//! [`super::seal`], does anybody leave.

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

/// In how many walks in a row the same people must be missed before a held walk may go on. They
/// must also be [`Policy::held_confirmed_after`] apart.
const WALKS_UNTIL_BELIEVED: u32 = 3;

/// What an operator may set about sealing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Policy {
    /// After how many complete walks somebody who is found by id, but in no list, departs all
    /// the same. None: never.
    pub unlisted_departs_after: Option<u32>,
    /// A walk that misses the same people as held walks before it goes on only if it began so long
    /// after the first of them was judged. However many are asked for sooner settle nothing.
    pub held_confirmed_after: Duration,
}

/// A reading, judged as far as it can be without asking the provider more.
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
        /// Whether an earlier held walk would have taken some of the same.
        is_repeated: bool,
    },
    Open(Open),
}

/// Who must be accounted for before the reading can be sealed.
#[derive(Debug, Default)]
pub(super) struct Open {
    /// Known or met in this walk, but not in the list at its end.
    pub(super) users: Vec<RemoteId>,
    pub(super) groups: Vec<RemoteId>,
    /// What the reading would take, and in how many walks in a row it would have.
    pub(super) losses: BTreeMap<LostField, Missed>,
    /// Of `losses`, those that enough walks in a row would have taken, over a long enough time.
    ripe: BTreeSet<LostField>,
    /// Whether that is so much that the walk would be held but for its being the third. Each
    /// loss then needs a proof of its own.
    pub(super) is_disputed: bool,
}

impl Open {
    /// Whether nothing is to be concluded about this one in this walk: it is among too many,
    /// and has not been missed for long enough.
    pub(super) fn is_unripe(&self, loss: &LostField) -> bool {
        self.is_disputed && self.losses.contains_key(loss) && !self.ripe.contains(loss)
    }

    /// The losses that need a proof of their own.
    pub(super) fn disputes(&self) -> impl Iterator<Item = (&LostField, Missed)> {
        self.losses
            .iter()
            .filter(|_| self.is_disputed)
            .map(|(loss, missed)| (loss, *missed))
    }
}

/// Judges what a walk read against the directory in force and what earlier walks remember.
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
        if prev.is_some_and(|prev| *prev.organisation() != reading.identity.organisation) {
            return Err(WalkReason::OrganisationChanged);
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
            // For as long as the token sees too little, it is one hold.
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
                // As many of the missing may be in the list, with rows that do not tell whose
                // they are.
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

    /// Whether enough walks in a row say so, over a long enough time. This one's word is as old as
    /// its first call; the first one's may be as young as its judgement.
    fn is_ripe(&self, missed: &Missed) -> bool {
        let apart = Millis::at(self.reading.started_at).since(missed.since);
        let needed = self.policy.held_confirmed_after.as_millis();
        let needed = i64::try_from(needed).unwrap_or(i64::MAX);
        missed.walks >= WALKS_UNTIL_BELIEVED && (needed == 0 || apart >= needed)
    }

    /// The reading taken at its word: whom it does not show is gone. Only who was missing before
    /// this walk, and was kept then, is not gone "at once" now. A group that was read by its id is
    /// there, and those whom the credential cannot list are kept: their absence says nothing.
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

    /// How many rows of a list do not tell whose they are.
    fn nameless(&self, of: Resource) -> usize {
        let rows = match of {
            Resource::Users => self.reading.users.nameless(),
            Resource::Groups => self.reading.groups.as_ref().map_or(0, MergedList::nameless),
            Resource::Roles => 0,
        };
        usize::try_from(rows).unwrap_or(usize::MAX)
    }

    /// Whether fewer were seen than the provider's own totals say.
    fn falls_short(&self) -> bool {
        let groups = self.reading.groups.as_ref();
        self.reading.users.falls_short_by(0) || groups.is_some_and(|list| list.falls_short_by(0))
    }

    /// Whom to ask the provider for by id before sealing: at most `cap`, the longest missing
    /// first; and with what is then left of it those who were found of late, since they may have
    /// left too, the longest unasked first. Nobody where the walk failed or is held.
    pub fn lookups(&self, cap: usize) -> Lookups {
        let now = self.now;
        let ChangeKind::Open(open) = &self.finding else {
            return Lookups::default();
        };
        let mut asked = BTreeSet::new();
        let users = open.users.iter().map(|id| (SuspectKind::User, id));
        // A group that was read by id in this walk has answered already.
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
            let found_at = absences.found_of_late_at(id.as_str(), now);
            // Those whom earlier walks kept are read with the other groups, and so before a walk
            // is judged: a look-up must not find one emptied when it is too late to hold.
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

/// A list that by its totals has fewer rows than this is not believed to end there: it is the
/// first that is read, or so many are missing that its walk would be held.
pub fn plausible_rows(prev: Option<&Directory>, of: Resource) -> u64 {
    let Some(prev) = prev.filter(|prev| of != Resource::Groups || prev.visibility().groups) else {
        return u64::MAX;
    };
    let listed = (0..prev.len(of))
        .filter(|place| of != Resource::Users || !prev.user(*place).profile.is_outsider)
        .count();
    listed.saturating_sub(limit(prev.len(of))) as u64
}

/// How many may lose something at once, of `former`.
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

/// Whether the credential of a walk can no longer list the user at `place`, be they there or not:
/// without seats, a list shows nobody who may be a guest. That they are kept for this reason is
/// told by a warning, and holds for as long as seats are hidden.
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

/// Who was in a list before, or in its first pass, and was not in it at the end.
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
            .filter(|place| resource != Resource::Users || !prev.user(*place).profile.is_outsider)
            .map(|place| prev.id_at(resource, place))
            .filter(|id| !listing.shows(id));
        absent.extend(former.map(RemoteId::from));
    }
    absent.into_iter().collect()
}

/// Fails where the total could not be reached even if every absent one proved gone.
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

/// What `after` takes from those who are in `prev`: one loss a person.
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

/// Everybody who would go, and everybody else of whom something would no longer be said.
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

/// Everybody who would lose a field that too many lose at once, and with them whoever would lose
/// anything else, since a release accepts all of it. Empty if no field is lost by too many.
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
