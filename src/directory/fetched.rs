//! The input of sealing: the data that one walk fetched, and the answers to its look-ups by id.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::model::{
    id::RemoteId,
    observed::{Identity, ObservedGroup, ObservedMember, ObservedRole, ObservedUser},
    schema::Reason,
};

use super::{Directory, Evidence, MergedList, Resource, Visibility, assess::limit, record::Millis};

/// All data that one walk fetched, before it is judged.
#[derive(Debug)]
pub struct FetchedDirectory {
    pub identity: Identity,
    /// Every role that the connector can assign to a user.
    pub roles: Vec<ObservedRole>,
    pub users: MergedList<ObservedUser>,
    /// None if the credential may not read groups.
    pub groups: Option<MergedList<ObservedGroup>>,
    /// The groups that [`plan_group_reads`] selected, by id.
    pub group_reads: BTreeMap<RemoteId, GroupRead>,
    pub started_at: Timestamp,
}

impl FetchedDirectory {
    /// The fields that the credential of this walk may see.
    pub(super) fn visibility(&self) -> Visibility {
        Visibility::of(
            self.identity.is_admin,
            &self.identity.seats,
            self.groups.is_some(),
        )
    }
}

/// The result of reading one group by its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupRead {
    Members(MemberList),
    /// The provider's own code says that no such group exists: a proof of departure.
    Departed,
    /// The members could not be read, for this reason.
    Unread(Reason),
}

/// All members of a group, from one response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberList {
    pub members: Vec<ObservedMember>,
    pub read_at: Timestamp,
}

/// The users and groups to look up by id.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lookups {
    pub users: Vec<RemoteId>,
    pub groups: Vec<RemoteId>,
}

/// The answers to the look-ups. An id without an entry was not looked up, or got no answer.
#[derive(Debug, Default)]
pub struct Answers {
    pub users: BTreeMap<RemoteId, UserAnswer>,
    pub groups: BTreeMap<RemoteId, GroupAnswer>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupAnswer {
    /// The group exists. Members in the response are ignored: the walk has been judged already, and
    /// a group that was emptied could no longer hold it. The next walk reads the members.
    Found,
    /// The provider's own code says that no such group exists: a proof of departure.
    Departed,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserAnswer {
    Found(Box<ObservedUser>),
    /// The provider's own code says that no such user exists: a proof of departure.
    Departed,
}

/// The groups whose members this walk must read, most urgent first:
/// * new groups, groups with another `modified_at`, groups whose last read failed, and groups of
///   users that a held walk would have affected;
/// * groups that are missing from the list, if they are at most as many as may disappear at once,
///   or if an earlier walk missed them too;
/// * all others, the longest unread first: at most `cap` of them, or all if there is no cap or the
///   walk is `full`.
///
/// A missing group is read before the walk is judged. Otherwise its members without another group
/// would seem to lose all of their groups.
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
