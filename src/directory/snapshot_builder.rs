//! A snapshot builder: the users and groups that a directory has under given decisions about absent
//! records.
//!
//! Judging a walk builds one in which every record that was not seen is gone. It shows which losses
//! the walk would cause, and becomes the release candidate if the walk is held. Sealing builds the
//! one that is published.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap, HashSet},
    iter::Peekable,
};

use crate::model::{
    id::RemoteId,
    observed::ObservedRole,
    schema::{Reason, UserField},
};

use super::{
    Directory, Evidence, FetchedDirectory, GroupRead, ListItem, MemberList, MergedList, Resource,
    Visibility,
    record::{Certainty, GroupView, Millis, UserView, external_profile},
    text::size,
};

/// Decisions about records that the fetched data does not show, or shows with a loss that is not
/// confirmed. An absent record without a decision is gone.
#[derive(Default)]
pub(super) struct Decisions {
    pub(super) users: BTreeMap<RemoteId, Certainty>,
    pub(super) groups: BTreeMap<RemoteId, Certainty>,
    /// Users with an unconfirmed loss: they keep their previous record and their previous groups.
    pub(super) disputed: HashSet<RemoteId>,
    /// The users in `users` that the credential cannot list.
    pub(super) unlistable: HashSet<RemoteId>,
}

pub(super) struct SnapshotBuilder<'a> {
    pub(super) organization: RemoteId,
    pub(super) visibility: Visibility,
    /// In order of remote id.
    pub(super) roles: Vec<ObservedRole>,
    pub(super) users: Vec<UserDraft<'a>>,
    pub(super) groups: Vec<GroupDraft<'a>>,
    /// Whether users, groups, memberships, roles or visibility differ from the previous directory.
    /// A later `members_read_at` or another page of the provider's list does not count.
    pub(super) is_changed: bool,
    /// For each user of the previous directory, the row in this one, or `NO_ROW`.
    place_now: Vec<u32>,
}

pub(super) struct UserDraft<'a> {
    pub(super) view: UserView<'a>,
    /// The page of the provider's list that the record was on; 0 if none.
    pub(super) page: u32,
    pub(super) first_seen_at: Millis,
    pub(super) updated_at: Millis,
}

pub(super) struct GroupDraft<'a> {
    pub(super) view: GroupView<'a>,
    /// The page of the provider's list that the record was on; 0 if none.
    pub(super) page: u32,
    /// Rows of the builder's users, ascending.
    pub(super) members: Vec<u32>,
    pub(super) members_read_at: Millis,
    pub(super) first_seen_at: Millis,
    pub(super) updated_at: Millis,
}

/// The source of a group's members.
#[derive(Clone, Copy)]
enum MemberSource<'a> {
    Read(&'a MemberList),
    /// From the previous directory, where the group has this row.
    Carried(usize),
    /// The members were never read.
    Unknown,
}

/// The input of a [`SnapshotBuilder`].
#[derive(Clone, Copy)]
pub(super) struct Sources<'a> {
    pub(super) prev: Option<&'a Directory>,
    pub(super) reading: &'a FetchedDirectory,
    pub(super) evidence: &'a Evidence,
    pub(super) now: Millis,
}

/// Marks a missing row.
const NO_ROW: u32 = u32::MAX;

impl<'a> SnapshotBuilder<'a> {
    /// Builds a snapshot; None if a new group is listed and its members were not requested.
    pub(super) fn build(from: Sources<'a>, decisions: &Decisions) -> Option<Self> {
        let Sources { prev, reading, .. } = from;
        let visibility = reading.visibility();
        let groups = group_views(from, decisions)?;
        let present = present_users(from, decisions, visibility);
        let (users, members) = all_users(from, decisions, present, &groups);

        let mut roles = reading.roles.clone();
        roles.sort_by(|a, b| a.remote_id.cmp(&b.remote_id));
        roles.dedup_by(|a, b| a.remote_id == b.remote_id);
        let is_changed =
            prev.is_none_or(|prev| prev.visibility() != visibility || prev.columns.roles != roles);
        let mut user_pages = PagesOf::new(Some(&reading.users));
        let mut group_pages = PagesOf::new(reading.groups.as_ref());
        let mut world = SnapshotBuilder {
            organization: reading.identity.organization.clone(),
            visibility,
            roles,
            users: users
                .into_iter()
                .map(|view| UserDraft {
                    page: user_pages.of(view.id),
                    view,
                    first_seen_at: from.now,
                    updated_at: from.now,
                })
                .collect(),
            groups: groups
                .into_iter()
                .zip(members)
                .map(|((view, source), members)| GroupDraft {
                    members_read_at: from.read_at(view.id, source),
                    page: group_pages.of(view.id),
                    view,
                    members,
                    first_seen_at: from.now,
                    updated_at: from.now,
                })
                .collect(),
            is_changed,
            place_now: Vec::new(),
        };
        if let Some(prev) = prev {
            world.date_from(prev);
        }
        Some(world)
    }

    /// Takes `first_seen_at` from the previous directory, and `updated_at` for records that did not
    /// change. A user who joins or leaves a group has changed; a member of a renamed group has not.
    fn date_from(&mut self, prev: &Directory) {
        let mut place_now = vec![NO_ROW; prev.len(Resource::Users)];
        let mut former_place = vec![None; self.users.len()];
        // Both lists are sorted by id, so one pass finds the users that are in both.
        let mut former = 0;
        for (place, user) in self.users.iter().enumerate() {
            while former < place_now.len() && prev.user(former).id < user.view.id {
                former += 1;
            }
            if former < place_now.len() && prev.user(former).id == user.view.id {
                place_now[former] = size(place);
                former_place[place] = Some(former);
            }
        }
        self.is_changed |= place_now.contains(&NO_ROW);

        let mut has_moved = vec![false; self.users.len()];
        let mut move_all = |places: &mut dyn Iterator<Item = u32>| {
            for place in places.filter(|place| *place != NO_ROW) {
                has_moved[place as usize] = true;
            }
        };
        let mut groups_kept = 0;
        for group in &mut self.groups {
            let Some(former) = prev.find(Resource::Groups, group.view.id) else {
                self.is_changed = true;
                move_all(&mut group.members.iter().copied());
                continue;
            };
            groups_kept += 1;
            let row = &prev.columns.groups[former];
            group.first_seen_at = row.first_seen_at;
            if group.page == 0 {
                group.page = prev.pages.of_group(former);
            }
            let members_before = prev.members(former);
            let were_members = || members_before.iter().map(|user| place_now[*user as usize]);
            let has_same_members = were_members().eq(group.members.iter().copied());
            if has_same_members && prev.group(former) == group.view {
                group.updated_at = row.updated_at;
                continue;
            }
            self.is_changed = true;
            let before: HashSet<u32> = were_members().collect();
            let after: HashSet<u32> = group.members.iter().copied().collect();
            move_all(&mut before.symmetric_difference(&after).copied());
        }
        if groups_kept < prev.len(Resource::Groups) {
            self.is_changed = true;
            for former in 0..prev.len(Resource::Groups) {
                let id = prev.group(former).id;
                if !self.has_group(id) {
                    let members = prev.members(former).iter();
                    move_all(&mut members.map(|user| place_now[*user as usize]));
                }
            }
        }

        for (place, user) in self.users.iter_mut().enumerate() {
            let Some(former) = former_place[place] else {
                self.is_changed = true;
                continue;
            };
            let row = &prev.columns.users[former];
            user.first_seen_at = row.first_seen_at;
            if user.page == 0 {
                user.page = prev.pages.of_user(former);
            }
            if !has_moved[place] && prev.user(former) == user.view {
                user.updated_at = row.updated_at;
            } else {
                self.is_changed = true;
            }
        }
        self.place_now = place_now;
    }

    /// The row of the user that has row `former` in the previous directory; None if the user is
    /// gone.
    pub(super) fn place_now(&self, former: usize) -> Option<usize> {
        let place = self.place_now.get(former).copied();
        place
            .filter(|place| *place != NO_ROW)
            .map(|place| place as usize)
    }

    pub(super) fn has_group(&self, id: &str) -> bool {
        self.group(id).is_some()
    }

    pub(super) fn group(&self, id: &str) -> Option<&GroupView<'a>> {
        let place = self.groups.binary_search_by(|group| group.view.id.cmp(id));
        place.ok().map(|place| &self.groups[place].view)
    }

    /// The time at which each group's members were read.
    pub(super) fn read_times(&self) -> impl Iterator<Item = (&str, Millis)> {
        self.groups
            .iter()
            .map(|group| (group.view.id, group.members_read_at))
    }

    /// The number of groups of each user.
    pub(super) fn group_counts(&self) -> Vec<u32> {
        let mut counts = vec![0; self.users.len()];
        for member in self.groups.iter().flat_map(|group| &group.members) {
            counts[*member as usize] += 1;
        }
        counts
    }
}

impl<'a> Sources<'a> {
    /// Whether the members of the group at row `place` of the previous directory were ever read.
    fn was_ever_read(&self, place: usize) -> bool {
        self.prev.is_some_and(|prev| {
            let id = prev.id_at(Resource::Groups, place);
            self.evidence
                .members_read_at(id)
                .max(prev.columns.groups[place].members_read_at)
                != Millis::NONE
        })
    }

    fn read_at(&self, group: &str, members: MemberSource<'_>) -> Millis {
        match (members, self.prev) {
            (MemberSource::Read(list), _) => Millis::at(list.read_at),
            (MemberSource::Carried(place), Some(prev)) => self
                .evidence
                .members_read_at(group)
                .max(prev.columns.groups[place].members_read_at),
            (MemberSource::Carried(_), None) | (MemberSource::Unknown, _) => Millis::NONE,
        }
    }
}

/// Finds the page of a list that each record was on. Ids must be requested in ascending order.
struct PagesOf<'a>(Peekable<Box<dyn Iterator<Item = (&'a str, u32)> + 'a>>);

impl<'a> PagesOf<'a> {
    fn new<T: ListItem>(listing: Option<&'a MergedList<T>>) -> Self {
        let pages = listing.into_iter().flat_map(MergedList::pages);
        Self((Box::new(pages) as Box<dyn Iterator<Item = _>>).peekable())
    }

    /// The page that `id` was on; 0 if none. Each id must be above the one before.
    fn of(&mut self, id: &str) -> u32 {
        while self.0.next_if(|(listed, _)| *listed < id).is_some() {}
        let found = self.0.next_if(|(listed, _)| *listed == id);
        found.map_or(0, |(_, page)| page)
    }
}

/// The groups of the snapshot in order of id, each with the source of its members. A group that no
/// longer exists when its members are requested is proven gone, even if the list still shows it.
/// None if a new group was not read.
fn group_views<'a>(
    from: Sources<'a>,
    decisions: &Decisions,
) -> Option<Vec<(GroupView<'a>, MemberSource<'a>)>> {
    let Sources { prev, reading, .. } = from;
    let Some(listing) = &reading.groups else {
        return Some(Vec::new());
    };
    let former = |id: &str| prev?.find(Resource::Groups, id);
    let mut shown: Vec<(GroupView<'a>, Option<Certainty>)> = Vec::new();
    for (group, in_last_pass) in listing.records() {
        let kept = decisions.groups.get(&group.remote_id).copied();
        let standing = if in_last_pass {
            Some(Certainty::SEEN)
        } else {
            kept
        };
        shown.push((GroupView::listed(group), standing));
    }
    for group in prev.iter().flat_map(|prev| prev.all_groups()) {
        if listing.is_unreadable(group.id) {
            shown.push((group, Some(Certainty::SEEN)));
        } else if !listing.has_record(group.id) {
            let kept = decisions.groups.get(group.id).copied();
            shown.push((group, kept));
        }
    }
    let mut views = Vec::new();
    for (group, standing) in shown {
        let Some(standing) = standing else {
            continue;
        };
        let carried = || match former(group.id) {
            Some(place) if from.was_ever_read(place) => Some(MemberSource::Carried(place)),
            Some(_) => Some(MemberSource::Unknown),
            None => None,
        };
        let (members, unread) = match reading.group_reads.get(group.id) {
            Some(GroupRead::Departed) => continue,
            Some(GroupRead::Members(list)) => (MemberSource::Read(list), None),
            Some(GroupRead::Unread(reason)) => {
                (carried().unwrap_or(MemberSource::Unknown), Some(*reason))
            }
            None => {
                let unread = former(group.id).and_then(|place| prev?.group(place).members_unread());
                (carried()?, unread)
            }
        };
        let group = group.with_certainty(standing).with_members_unread(unread);
        views.push((group, members));
    }
    views.sort_unstable_by(|(a, _), (b, _)| a.id.cmp(b.id));
    Some(views)
}

/// All users but external members, in order of id: the listed users and those that a decision
/// keeps.
fn present_users<'a>(
    from: Sources<'a>,
    decisions: &Decisions,
    visibility: Visibility,
) -> Vec<UserView<'a>> {
    let Sources { prev, reading, .. } = from;
    let listing = &reading.users;
    let former = |id: &str| Some(prev?.user(prev?.find(Resource::Users, id)?));
    let mut users = Vec::new();
    for (user, in_last_pass) in listing.records() {
        let id = user.remote_id.as_str();
        let standing = match decisions.users.get(id) {
            _ if in_last_pass => Certainty::SEEN,
            Some(standing) => *standing,
            None => continue,
        };
        // While a loss is not confirmed, the previous record is served, with `suspected: true`.
        let disputed = decisions
            .disputed
            .contains(id)
            .then(|| former(id))
            .flatten();
        users.push(match disputed {
            Some(former) => former
                .with_certainty(Certainty::DISPUTED)
                .with_warning(UserField::Listed, None),
            None => UserView::listed(user).with_certainty(standing),
        });
    }
    let kept = (0..prev.map_or(0, |prev| prev.len(Resource::Users)))
        .filter_map(|place| Some(prev?.user(place)))
        .filter(|user| !listing.has_record(user.id))
        .filter_map(|user| {
            let standing = if listing.is_unreadable(user.id) {
                Certainty::SEEN
            } else if decisions.disputed.contains(user.id) {
                Certainty::DISPUTED
            } else {
                *decisions.users.get(user.id)?
            };
            let unlistable = decisions.unlistable.contains(user.id);
            let user = user.with_certainty(standing).within(visibility);
            Some(user.with_warning(
                UserField::Listed,
                unlistable.then_some(Reason::NotPermitted),
            ))
        });
    users.extend(kept);
    users.sort_unstable_by(|a, b| a.id.cmp(b.id));
    users
}

/// All users in order of id, and the members of each group as rows of that list.
///
/// External members are added to the users in `present`: members of a group that are in no list
/// of users. A departed user is not added: one who leaves in this walk, or one whose proof of
/// departure is not older than the member list. So an old member list cannot bring them back.
fn all_users<'a>(
    from: Sources<'a>,
    decisions: &Decisions,
    present: Vec<UserView<'a>>,
    groups: &[(GroupView<'a>, MemberSource<'a>)],
) -> (Vec<UserView<'a>>, Vec<Vec<u32>>) {
    let Sources {
        prev,
        reading,
        evidence,
        now,
    } = from;
    let visibility = reading.visibility();
    let is_gone = |id: &str, read_at: Millis| {
        evidence
            .users
            .departed_at(id, now)
            .is_some_and(|departed_at| departed_at >= read_at)
            || prev
                .and_then(|prev| Some(prev.user(prev.find(Resource::Users, id)?)))
                .is_some_and(|former| !former.profile.is_external_member)
    };
    let insiders = size(present.len());
    let mut users = present;
    let mut places: HashMap<&str, u32> = users
        .iter()
        .zip(0..)
        .map(|(user, place)| (user.id, place))
        .collect();
    let mut lists = vec![Vec::new(); groups.len()];

    // Lists read in this walk come first: they have newer names and addresses than carried ones.
    for (places_of, (_, members)) in lists.iter_mut().zip(groups) {
        let MemberSource::Read(list) = members else {
            continue;
        };
        let read_at = Millis::at(list.read_at);
        for member in &list.members {
            let id = member.remote_id.as_str();
            let place = match places.get(id) {
                Some(place) if *place < insiders => *place,
                _ if is_gone(id, read_at) => continue,
                Some(place) => *place,
                None => {
                    users.push(UserView::external_member(member, visibility));
                    *places.entry(id).insert_entry(size(users.len() - 1)).get()
                }
            };
            places_of.push(place);
        }
    }
    if let Some(prev) = prev {
        // Most users are in many groups, so each is looked up once.
        let mut found = vec![NO_ROW; prev.len(Resource::Users)];
        for (places_of, (_, members)) in lists.iter_mut().zip(groups) {
            let MemberSource::Carried(group) = members else {
                continue;
            };
            for user in prev.members(*group) {
                let user = *user as usize;
                if found[user] == NO_ROW {
                    let former = prev.user(user);
                    found[user] = match places.get(former.id) {
                        Some(place) => *place,
                        None if former.profile.is_external_member => {
                            let id = former.id;
                            let profile = external_profile(visibility, &former.profile.warnings);
                            users.push(UserView {
                                profile: Cow::Owned(profile),
                                ..former
                            });
                            *places.entry(id).insert_entry(size(users.len() - 1)).get()
                        }
                        None => continue,
                    };
                }
                places_of.push(found[user]);
            }
        }
        // Without permission to read groups, no group names an external member. That does not prove
        // that they left, so the previous ones are kept.
        if !visibility.groups {
            for former in (0..prev.len(Resource::Users)).map(|place| prev.user(place)) {
                if former.profile.is_external_member && !places.contains_key(former.id) {
                    let profile = external_profile(visibility, &former.profile.warnings);
                    let former = UserView {
                        profile: Cow::Owned(profile),
                        ..former
                    };
                    users.push(
                        former
                            .with_certainty(Certainty::UNLISTABLE)
                            .with_warning(UserField::Listed, Some(Reason::NotPermitted)),
                    );
                }
            }
        }
        // A user with an unconfirmed loss stays in the groups of the previous directory.
        for id in &decisions.disputed {
            let former = prev.find(Resource::Users, id.as_str());
            let (Some(former), Some(place)) = (former, places.get(id.as_str())) else {
                continue;
            };
            for group in prev.groups_of(former) {
                let group = prev.group(*group as usize).id;
                if let Ok(group) = groups.binary_search_by(|(view, _)| view.id.cmp(group)) {
                    lists[group].push(*place);
                }
            }
        }
    }

    let has_unknown_groups = groups
        .iter()
        .any(|(_, members)| matches!(members, MemberSource::Unknown));
    let groups_unseen = match (visibility.groups, has_unknown_groups) {
        (false, _) => Some(Reason::NotPermitted),
        // A group with unknown members may contain any user.
        (true, true) => Some(Reason::Unknown),
        (true, false) => None,
    };
    let mut users: Vec<_> = users
        .into_iter()
        .map(|user| user.with_warning(UserField::Groups, groups_unseen))
        .collect();

    // Member lists refer to rows before the sort by id, so they are renumbered afterwards.
    let mut order: Vec<u32> = (0..size(users.len())).collect();
    order.sort_by(|a, b| users[*a as usize].id.cmp(users[*b as usize].id));
    let mut rank = vec![0; users.len()];
    for (place, was) in (0..).zip(&order) {
        rank[*was as usize] = place;
    }
    users.sort_by(|a, b| a.id.cmp(b.id));
    for list in &mut lists {
        for place in list.iter_mut() {
            *place = rank[*place as usize];
        }
        list.sort_unstable();
        list.dedup();
    }
    (users, lists)
}
