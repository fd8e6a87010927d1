//! The memory layout of a directory: rows in order of remote id, text in one arena, memberships as
//! two adjacency lists. Data that can be derived is not stored: it is computed when a directory is
//! built or decoded, so it cannot disagree with its source.

use std::{borrow::Cow, collections::HashMap, mem::size_of};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::model::{id::RemoteId, observed::ObservedRole, schema::GroupWarning, walks::WalkCounts};

use super::{
    origin::Pages,
    page::Resource,
    record::{Email, GroupView, Millis, OwnerView, SharedFields, UserView, Visibility},
    snapshot_builder::SnapshotBuilder,
    text::{Arena, TextSpan, size},
};

/// The sealed result of a walk: the users, groups and roles of an organization, at one version.
/// Immutable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory {
    pub(super) columns: Columns,
    pub(super) pages: Pages,
    pub(super) group_warnings: GroupWarnings,
    /// The groups of each user: `columns.members` reversed.
    groups_of: Adjacency,
    /// The number of users that hold each role of the catalog.
    holders: Vec<u32>,
}

/// The stored data of a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Columns {
    pub(super) version: u64,
    pub(super) sealed_at: Millis,
    pub(super) organization: RemoteId,
    pub(super) visibility: Visibility,
    text: String,
    pub(super) profiles: Vec<SharedFields>,
    pub(super) users: Vec<UserRow>,
    pub(super) groups: Vec<GroupRow>,
    pub(super) roles: Vec<ObservedRole>,
    /// The members of each group, as rows of `users`, ascending.
    members: Adjacency,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct UserRow {
    id: TextSpan,
    email_local: TextSpan,
    email_domain: TextSpan,
    name: TextSpan,
    first_name: TextSpan,
    last_name: TextSpan,
    avatar: TextSpan,
    pub(super) profile: u32,
    seat_since: Millis,
    seat_until: Millis,
    last_login_at: Millis,
    pub(super) first_seen_at: Millis,
    pub(super) updated_at: Millis,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct GroupRow {
    id: TextSpan,
    name: TextSpan,
    description: TextSpan,
    owner: TextSpan,
    owner_email_local: TextSpan,
    owner_email_domain: TextSpan,
    created_at: Millis,
    modified_at: Millis,
    listed: bool,
    suspected: bool,
    pub(super) members_read_at: Millis,
    pub(super) first_seen_at: Millis,
    pub(super) updated_at: Millis,
}

/// The reasons why fields of groups are null: pairs of a group's row and its warnings, ascending by
/// row. They are stored after the columns, because directories that were stored earlier do not have
/// them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct GroupWarnings(Vec<(u32, Vec<GroupWarning>)>);

impl GroupWarnings {
    fn of(&self, group: usize) -> &[GroupWarning] {
        let at = self
            .0
            .binary_search_by_key(&group, |(place, _)| *place as usize);
        at.map_or(&[], |at| &self.0[at].1)
    }

    fn is_sound(&self, groups: usize) -> bool {
        self.0.is_sorted_by(|(a, _), (b, _)| a < b)
            && self.0.iter().all(|(place, warnings)| {
                (*place as usize) < groups && warnings.is_sorted_by(|a, b| a.field < b.field)
            })
    }

    fn bytes(&self) -> usize {
        let entry = size_of::<(u32, Vec<GroupWarning>)>();
        let warnings: usize = self.0.iter().map(|(_, list)| list.capacity()).sum();
        self.0.capacity() * entry + warnings * size_of::<GroupWarning>()
    }
}

/// The targets of each of n sources: `targets[starts[i]..starts[i + 1]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Adjacency {
    starts: Vec<u32>,
    targets: Vec<u32>,
}

impl Adjacency {
    fn of<'a>(lists: impl ExactSizeIterator<Item = &'a [u32]>) -> Self {
        let mut starts = Vec::with_capacity(lists.len() + 1);
        let mut targets = Vec::new();
        starts.push(0);
        for list in lists {
            targets.extend_from_slice(list);
            starts.push(size(targets.len()));
        }
        targets.shrink_to_fit();
        Self { starts, targets }
    }

    fn at(&self, source: u32) -> &[u32] {
        let source = source as usize;
        &self.targets[self.starts[source] as usize..self.starts[source + 1] as usize]
    }

    /// The sources of each of `n` targets. Requires that [`Self::is_sound`] holds.
    fn reversed(&self, n: usize) -> Self {
        // Counting sort: `starts` first counts the sources of each target, then becomes the running
        // sum.
        let mut starts = vec![0_u32; n + 1];
        for target in &self.targets {
            starts[*target as usize + 1] += 1;
        }
        for i in 0..n {
            starts[i + 1] += starts[i];
        }
        let mut free = starts.clone();
        let mut targets = vec![0; self.targets.len()];
        for source in 0..self.starts.len() - 1 {
            for target in self.at(size(source)) {
                let slot = &mut free[*target as usize];
                targets[*slot as usize] = size(source);
                *slot += 1;
            }
        }
        Self { starts, targets }
    }

    /// Whether there are `sources` lists, each ascending and below `targets`.
    fn is_sound(&self, sources: usize, targets: usize) -> bool {
        self.starts.len() == sources + 1
            && self.starts.first() == Some(&0)
            && self.starts.is_sorted()
            && self.starts.last().map(|end| *end as usize) == Some(self.targets.len())
            && self
                .targets
                .iter()
                .all(|target| (*target as usize) < targets)
            && (0..sources).all(|source| self.at(size(source)).is_sorted_by(|a, b| a < b))
    }

    fn bytes(&self) -> usize {
        (self.starts.capacity() + self.targets.capacity()) * size_of::<u32>()
    }
}

impl Directory {
    /// Builds a directory. The users, groups and roles of the snapshot must be in order of id.
    pub(super) fn build(world: &SnapshotBuilder<'_>, version: u64, sealed_at: Millis) -> Self {
        let mut arena = Arena::default();
        let mut profiles = Vec::new();
        let mut known: HashMap<&SharedFields, u32> = HashMap::new();
        let users = world
            .users
            .iter()
            .map(|user| {
                let view = &user.view;
                let profile = *known.entry(view.profile.as_ref()).or_insert_with(|| {
                    profiles.push(view.profile.as_ref().clone());
                    size(profiles.len() - 1)
                });
                let name = arena.keep_some(view.name);
                let first_name = arena.keep_within(view.first_name, view.name, name);
                let last_name = arena.keep_within(view.last_name, view.name, name);
                let (email_local, email_domain) = keep_email(&mut arena, view.email);
                UserRow {
                    id: arena.append(view.id),
                    email_local,
                    email_domain,
                    name,
                    first_name,
                    last_name,
                    avatar: arena.keep_some(view.avatar),
                    profile,
                    seat_since: view.seat_since,
                    seat_until: view.seat_until,
                    last_login_at: view.last_login_at,
                    first_seen_at: user.first_seen_at,
                    updated_at: user.updated_at,
                }
            })
            .collect();
        let groups = world
            .groups
            .iter()
            .map(|group| {
                let view = &group.view;
                let (owner_email_local, owner_email_domain) =
                    keep_email(&mut arena, view.owner.and_then(|owner| owner.email));
                GroupRow {
                    id: arena.append(view.id),
                    name: arena.keep_some(view.name),
                    description: arena.keep_some(view.description),
                    owner: arena.keep_some(view.owner.map(|owner| owner.id)),
                    owner_email_local,
                    owner_email_domain,
                    created_at: view.created_at,
                    modified_at: view.modified_at,
                    listed: view.listed,
                    suspected: view.suspected,
                    members_read_at: group.members_read_at,
                    first_seen_at: group.first_seen_at,
                    updated_at: group.updated_at,
                }
            })
            .collect();
        profiles.shrink_to_fit();
        let pages = Pages {
            users: world.users.iter().map(|user| user.page).collect(),
            groups: world.groups.iter().map(|group| group.page).collect(),
        };
        let group_warnings = (0..)
            .zip(&world.groups)
            .filter(|(_, group)| !group.view.warnings.is_empty())
            .map(|(place, group)| (place, group.view.warnings.to_vec()))
            .collect();
        let members = Adjacency::of(world.groups.iter().map(|group| &group.members[..]));
        let columns = Columns {
            version,
            sealed_at,
            organization: world.organization.clone(),
            visibility: world.visibility,
            text: arena.finish(),
            profiles,
            users,
            groups,
            roles: world.roles.to_vec(),
            members,
        };
        Self::derive(columns, pages, GroupWarnings(group_warnings))
    }

    fn derive(columns: Columns, pages: Pages, group_warnings: GroupWarnings) -> Self {
        let groups_of = columns.members.reversed(columns.users.len());
        let mut users_with = vec![0_u32; columns.profiles.len()];
        for user in &columns.users {
            users_with[user.profile as usize] += 1;
        }
        let mut holders = vec![0_u32; columns.roles.len()];
        for (profile, users) in columns.profiles.iter().zip(users_with) {
            for word in profile.roles.iter().flatten() {
                if let Ok(role) = columns
                    .roles
                    .binary_search_by(|role| role.remote_id.as_str().cmp(word))
                {
                    holders[role] += users;
                }
            }
        }
        Self {
            columns,
            pages,
            group_warnings,
            groups_of,
            holders,
        }
    }

    /// Returns the directory as `version`, sealed at `now`. Records that changed with it get `now`
    /// as `updated_at`, because no reader could see the change earlier.
    pub(super) fn with_version(mut self, version: u64, now: Millis) -> Self {
        let columns = &mut self.columns;
        let built_at = std::mem::replace(&mut columns.sealed_at, now);
        columns.version = version;
        let users = columns.users.iter_mut().map(|row| &mut row.updated_at);
        let groups = columns.groups.iter_mut().map(|row| &mut row.updated_at);
        for updated_at in users.chain(groups).filter(|at| **at == built_at) {
            *updated_at = now;
        }
        self
    }

    /// Builds a directory from stored columns; None if they are inconsistent.
    pub(super) fn from_columns(
        columns: Columns,
        pages: Pages,
        group_warnings: GroupWarnings,
    ) -> Option<Self> {
        (columns.is_sound() && group_warnings.is_sound(columns.groups.len()))
            .then(|| Self::derive(columns, pages, group_warnings))
    }

    pub const fn version(&self) -> u64 {
        self.columns.version
    }

    /// The time at which this version was sealed.
    pub fn sealed_at(&self) -> Timestamp {
        self.columns.sealed_at.timestamp().unwrap_or_default()
    }

    /// The provider's organization.
    pub const fn organization(&self) -> &RemoteId {
        &self.columns.organization
    }

    pub const fn visibility(&self) -> Visibility {
        self.columns.visibility
    }

    pub fn total(&self, resource: Resource) -> u64 {
        self.len(resource) as u64
    }

    pub fn counts(&self) -> WalkCounts {
        WalkCounts {
            users: self.total(Resource::Users),
            groups: self.total(Resource::Groups),
            roles: self.total(Resource::Roles),
        }
    }

    /// The approximate size in bytes, for a cache that is bounded by size.
    pub fn approximate_size(&self) -> usize {
        let columns = &self.columns;
        let profiles: usize = columns
            .profiles
            .iter()
            .map(|profile| {
                let words = profile.roles.iter().flatten();
                size_of::<SharedFields>()
                    + profile.warnings.len() * 2
                    + words
                        .map(|word| word.len() + size_of::<Box<str>>())
                        .sum::<usize>()
            })
            .sum();
        size_of::<Self>()
            + columns.text.capacity()
            + columns.users.capacity() * size_of::<UserRow>()
            + columns.groups.capacity() * size_of::<GroupRow>()
            + columns.roles.capacity() * size_of::<ObservedRole>()
            + profiles
            + columns.members.bytes()
            + self.groups_of.bytes()
            + self.pages.bytes()
            + self.group_warnings.bytes()
    }

    pub(super) fn len(&self, resource: Resource) -> usize {
        match resource {
            Resource::Users => self.columns.users.len(),
            Resource::Roles => self.columns.roles.len(),
            Resource::Groups => self.columns.groups.len(),
        }
    }

    pub(super) fn id_at(&self, resource: Resource, place: usize) -> &str {
        let columns = &self.columns;
        match resource {
            Resource::Users => columns.id_text(columns.users[place].id),
            Resource::Roles => columns.roles[place].remote_id.as_str(),
            Resource::Groups => columns.id_text(columns.groups[place].id),
        }
    }

    /// The row of the first record whose id is above `id`.
    pub(super) fn after(&self, resource: Resource, id: &str) -> usize {
        self.first_place(resource, |at| at > id)
    }

    /// The row of the record with this remote id.
    pub(super) fn find(&self, resource: Resource, id: &str) -> Option<usize> {
        let place = self.first_place(resource, |at| at >= id);
        (place < self.len(resource) && self.id_at(resource, place) == id).then_some(place)
    }

    /// The row of the record with this remote or unified id.
    pub(super) fn place(&self, resource: Resource, id: &str) -> Option<usize> {
        self.find(resource, id).or_else(|| {
            let remote = id.strip_prefix(resource.prefix())?;
            self.find(resource, remote)
        })
    }

    fn first_place(&self, resource: Resource, is_past: impl Fn(&str) -> bool) -> usize {
        let (mut low, mut high) = (0, self.len(resource));
        while low < high {
            let middle = low.midpoint(high);
            if is_past(self.id_at(resource, middle)) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        low
    }

    pub(super) fn user(&self, place: usize) -> UserView<'_> {
        let columns = &self.columns;
        let row = &columns.users[place];
        UserView {
            id: columns.id_text(row.id),
            email: columns.email_of(row),
            name: columns.text_of(row.name),
            first_name: columns.text_of(row.first_name),
            last_name: columns.text_of(row.last_name),
            avatar: columns.text_of(row.avatar),
            seat_since: row.seat_since,
            seat_until: row.seat_until,
            last_login_at: row.last_login_at,
            profile: Cow::Borrowed(&columns.profiles[row.profile as usize]),
        }
    }

    pub(super) fn group(&self, place: usize) -> GroupView<'_> {
        let columns = &self.columns;
        let row = &columns.groups[place];
        GroupView {
            id: columns.id_text(row.id),
            name: columns.text_of(row.name),
            description: columns.text_of(row.description),
            owner: columns.text_of(row.owner).map(|id| OwnerView {
                id,
                email: columns.email(row.owner_email_local, row.owner_email_domain),
            }),
            created_at: row.created_at,
            modified_at: row.modified_at,
            listed: row.listed,
            suspected: row.suspected,
            warnings: Cow::Borrowed(self.group_warnings.of(place)),
        }
    }

    pub(super) fn all_groups(&self) -> impl Iterator<Item = GroupView<'_>> {
        (0..self.columns.groups.len()).map(|place| self.group(place))
    }

    /// The later of the provider's modification time and the last change that a walk saw.
    pub(super) fn group_updated_at(&self, place: usize) -> Millis {
        let row = &self.columns.groups[place];
        row.updated_at.max(row.modified_at)
    }

    /// The role at row `place`, and the number of users that hold it; None if roles are not
    /// visible.
    pub(super) fn role(&self, place: usize) -> (&ObservedRole, Option<u32>) {
        let holders = self.columns.visibility.roles.then(|| self.holders[place]);
        (&self.columns.roles[place], holders)
    }

    /// The members of a group, as rows of users.
    pub(super) fn members(&self, group: usize) -> &[u32] {
        self.columns.members.at(size(group))
    }

    /// The groups of a user, as rows of groups.
    pub(super) fn groups_of(&self, user: usize) -> &[u32] {
        self.groups_of.at(size(user))
    }
}

fn keep_email<'a>(arena: &mut Arena<'a>, email: Option<Email<'a>>) -> (TextSpan, TextSpan) {
    (
        arena.keep_some(email.map(|email| email.local)),
        arena.keep_some(email.and_then(|email| email.domain)),
    )
}

impl Columns {
    fn text_of(&self, span: TextSpan) -> Option<&str> {
        span.text(&self.text)
    }

    fn id_text(&self, id: TextSpan) -> &str {
        self.text_of(id).expect("every row has an id")
    }

    pub(super) fn email_of(&self, user: &UserRow) -> Option<Email<'_>> {
        self.email(user.email_local, user.email_domain)
    }

    fn email(&self, local: TextSpan, domain: TextSpan) -> Option<Email<'_>> {
        Some(Email {
            local: self.text_of(local)?,
            domain: self.text_of(domain),
        })
    }

    /// Whether every row number, span and time is in range, and all rows are in strict order of id.
    fn is_sound(&self) -> bool {
        let text = &self.text;
        let spans = |spans: &[TextSpan]| spans.iter().all(|span| span.is_sound(text));
        let moments = |moments: &[Millis]| moments.iter().all(|moment| moment.is_sound());
        let are_users_valid = self.users.iter().all(|row| {
            row.id.text(text).is_some()
                && spans(&[row.email_local, row.email_domain, row.name])
                && spans(&[row.first_name, row.last_name, row.avatar])
                && moments(&[row.seat_since, row.seat_until, row.last_login_at])
                && moments(&[row.first_seen_at, row.updated_at])
                && (row.profile as usize) < self.profiles.len()
        });
        let groups_lie_well = self.groups.iter().all(|row| {
            row.id.text(text).is_some()
                && spans(&[row.name, row.description, row.owner])
                && spans(&[row.owner_email_local, row.owner_email_domain])
                && moments(&[row.created_at, row.modified_at, row.members_read_at])
                && moments(&[row.first_seen_at, row.updated_at])
        });
        are_users_valid
            && groups_lie_well
            && self.sealed_at.timestamp().is_some()
            && self.users.len() < u32::MAX as usize
            && self
                .users
                .is_sorted_by(|a, b| a.id.text(text) < b.id.text(text))
            && self
                .groups
                .is_sorted_by(|a, b| a.id.text(text) < b.id.text(text))
            && self.roles.is_sorted_by(|a, b| a.remote_id < b.remote_id)
            && self.members.is_sound(self.groups.len(), self.users.len())
    }
}
