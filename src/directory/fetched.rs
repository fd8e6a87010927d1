//! What goes into sealing: everything that one walk read, and the answers to its look-ups.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::model::{
    id::RemoteId,
    observed::{Identity, ObservedGroup, ObservedMember, ObservedRole, ObservedUser},
    schema::Reason,
};

use super::{Directory, Evidence, MergedList, Resource, Visibility, assess::limit, record::Millis};

/// Everything that one walk read, not yet judged.
#[derive(Debug)]
pub struct FetchedDirectory {
    pub identity: Identity,
    /// Every role that the connector may give a user.
    pub roles: Vec<ObservedRole>,
    pub users: MergedList<ObservedUser>,
    /// None where the credential may not read groups.
    pub groups: Option<MergedList<ObservedGroup>>,
    /// The groups of [`plan_group_reads`], by id.
    pub group_reads: BTreeMap<RemoteId, GroupRead>,
    pub started_at: Timestamp,
}

impl FetchedDirectory {
    /// What the credential of this walk may see.
    pub(super) fn visibility(&self) -> Visibility {
        Visibility::of(
            self.identity.is_admin,
            &self.identity.seats,
            self.groups.is_some(),
        )
    }
}

/// What came of reading one group by its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupRead {
    Members(MemberList),
    /// The provider says with its own code that there is no such group: a proof.
    Departed,
    /// The members could not be read, for this reason.
    Unread(Reason),
}

/// All members of a group, as one reply told them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberList {
    pub members: Vec<ObservedMember>,
    pub read_at: Timestamp,
}

/// Whom to ask the provider for by id.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lookups {
    pub users: Vec<RemoteId>,
    pub groups: Vec<RemoteId>,
}

/// What the provider said. Who is not in here was not asked, or gave no answer.
#[derive(Debug, Default)]
pub struct Answers {
    pub users: BTreeMap<RemoteId, UserAnswer>,
    pub groups: BTreeMap<RemoteId, GroupAnswer>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupAnswer {
    /// It is there. Its members, should the reply name them, are not taken from it: the walk
    /// has been judged by then, and they might be gone. The next walk reads them.
    Found,
    /// The provider says with its own code that there is no such group: a proof.
    Departed,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserAnswer {
    Found(Box<ObservedUser>),
    /// The provider says with its own code that there is no such user: a proof.
    Departed,
}

/// The groups whose members this walk must read, most urgent first (rule 8): those that are new
/// or whose `modified_at` moved, those whose last reading failed, those that a held walk turned on,
/// those that are missing from the list, and then the longest unread, as many as `cap`; all of them
/// where there is no cap or the walk is to be `full`. A missing group is read before the walk is
/// judged, since whoever has no other group would seem to have lost all of theirs with it; but not
/// where so many are missing that the walk will be held.
pub fn plan_group_reads(
    prev: Option<&Directory>,
    listed: &MergedList<ObservedGroup>,
    evidence: &Evidence,
    cap: Option<usize>,
    full: bool,
) -> Vec<RemoteId> {
    let implicated = prev.map_or_else(Default::default, |prev| evidence.implicated_groups(prev));
    let mut due = Vec::new();
    let mut others = Vec::new();
    for (group, _) in listed.records() {
        let id = &group.remote_id;
        let former = prev.and_then(|prev| Some((prev, prev.find(Resource::Groups, id.as_str())?)));
        match former {
            Some((prev, place))
                if prev.group(place).modified_at == Millis::maybe(group.modified_at)
                    && prev.group(place).members_unread().is_none()
                    && !implicated.contains(id.as_str()) =>
            {
                let read_at = evidence
                    .members_read_at(id.as_str())
                    .max(prev.columns.groups[place].members_read_at);
                others.push((read_at, id));
            }
            _ => due.push(id.clone()),
        }
    }
    let unlisted: Vec<&str> = prev
        .iter()
        .flat_map(|prev| (0..prev.len(Resource::Groups)).map(|place| prev.group(place).id))
        .filter(|id| !listed.has_record(id))
        .collect();
    let are_few = prev.is_some_and(|prev| unlisted.len() <= limit(prev.len(Resource::Groups)));
    let unlisted = unlisted
        .into_iter()
        .filter(|id| are_few || evidence.groups.is_known(id));
    due.extend(unlisted.map(RemoteId::from));
    others.sort_unstable();
    let room = if full { None } else { cap }.unwrap_or(others.len());
    due.extend(others.into_iter().take(room).map(|(_, id)| id.clone()));
    due
}
