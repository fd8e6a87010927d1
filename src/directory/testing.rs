//! Users, groups and fetched data for the tests of this folder.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::model::{
    id::RemoteId,
    observed::{
        Identity, ObservedGroup, ObservedMember, ObservedOwner, ObservedRole, ObservedSeat,
        ObservedUser, Seats, Sourced,
    },
    schema::{Reason, RoleType, SeatType, UserStatus},
};

use super::{
    Answers, Directory, Evidence, FetchedDirectory, GroupRead, ListScan, ListedPage, MemberList,
    MergedList, Policy, SealResult, assess,
};

pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + seconds).unwrap()
}

pub(super) fn id(text: &str) -> RemoteId {
    RemoteId::from(text)
}

pub(super) fn identity() -> Identity {
    Identity {
        user: id("u0"),
        email: Some("admin@example.org".to_owned()),
        name: None,
        organization: id("org"),
        organization_name: None,
        is_admin: true,
        seats: Seats::Readable { plan: id("plan") },
    }
}

/// The identity of a token without administrator permissions, whose seats are hidden.
pub(super) fn plain_identity() -> Identity {
    Identity {
        is_admin: false,
        seats: Seats::Hidden(Reason::NotPermitted),
        ..identity()
    }
}

pub(super) fn roles() -> Vec<ObservedRole> {
    [
        ("system_admin", RoleType::Admin),
        ("licensed_user", RoleType::Editor),
    ]
    .map(|(word, kind)| ObservedRole {
        remote_id: id(word),
        name: word.replace('_', " ").into(),
        description: None,
        kind: Sourced {
            value: kind,
            source: None,
        },
    })
    .to_vec()
}

pub(super) fn user(remote_id: &str) -> ObservedUser {
    ObservedUser {
        remote_id: id(remote_id),
        email: Some(format!("{remote_id}@example.org").into()),
        name: Some(format!("Ana {remote_id}").into()),
        first_name: Some("Ana".into()),
        last_name: Some(remote_id.into()),
        status: Some(Sourced {
            value: UserStatus::Enabled,
            source: Some("ACTIVE".into()),
        }),
        roles: Some(vec!["licensed_user".into()]),
        seat: Some(ObservedSeat {
            kind: Sourced {
                value: SeatType::Member,
                source: Some("MEMBER".into()),
            },
            since: Some(at(-1000)),
            provisional_until: None,
        }),
        is_external: Some(false),
        avatar: None,
        last_login_at: None,
        warnings: Vec::new(),
    }
}

pub(super) fn disabled(mut user: ObservedUser) -> ObservedUser {
    user.status = Some(Sourced {
        value: UserStatus::Disabled,
        source: Some("DEACTIVATED".into()),
    });
    user
}

pub(super) fn group(remote_id: &str) -> ObservedGroup {
    ObservedGroup {
        remote_id: id(remote_id),
        name: Some(format!("Group {remote_id}").into()),
        description: None,
        owner: Some(ObservedOwner {
            remote_id: id("u0"),
            email: Some("u0@example.org".into()),
        }),
        created_at: Some(at(-5000)),
        modified_at: Some(at(-4000)),
        warnings: Vec::new(),
    }
}

pub(super) fn member(remote_id: &str) -> ObservedMember {
    let user = user(remote_id);
    ObservedMember {
        remote_id: user.remote_id,
        email: user.email,
        name: user.name,
        first_name: user.first_name,
        last_name: user.last_name,
        warnings: Vec::new(),
    }
}

pub(super) fn members(ids: &[&str], read_at: Timestamp) -> GroupRead {
    GroupRead::Members(MemberList {
        members: ids.iter().map(|id| member(id)).collect(),
        read_at,
    })
}

/// A page of a provider whose totals are correct.
pub(super) fn listed_page<T: Clone>(all: &[T], page_size: usize, number: u64) -> ListedPage<T> {
    let start = (number as usize - 1) * page_size;
    let end = (start + page_size).min(all.len());
    ListedPage {
        records: all.get(start..end).unwrap_or_default().to_vec(),
        quarantined: Vec::new(),
        number: Some(number),
        total: Some(all.len() as u64),
        total_pages: Some(all.len().div_ceil(page_size) as u64),
        page_size: Some(page_size as u64),
    }
}

/// The result of scanning a list that does not change, with a second scan if one is needed.
pub(super) fn listing<T: super::ListItem + Clone>(all: &[T]) -> MergedList<T> {
    let pass = || {
        let mut pass = ListScan::new(100);
        while let Some(page) = pass.wanted().first().copied() {
            pass.take(page, listed_page(all, 100, page)).unwrap();
        }
        pass
    };
    let listing = MergedList::of(pass()).unwrap();
    if listing.needs_second_pass() {
        listing.join(pass()).unwrap()
    } else {
        listing
    }
}

/// The fetched data of an organization that does not change, with every group read at `seconds`.
pub(super) fn reading(
    users: &[&str],
    groups: &[(&str, &[&str])],
    seconds: i64,
) -> FetchedDirectory {
    let users: Vec<_> = users.iter().map(|id| user(id)).collect();
    reading_of(&users, groups, seconds)
}

pub(super) fn reading_of(
    users: &[ObservedUser],
    groups: &[(&str, &[&str])],
    seconds: i64,
) -> FetchedDirectory {
    let listed: Vec<_> = groups.iter().map(|(id, _)| group(id)).collect();
    FetchedDirectory {
        identity: identity(),
        roles: roles(),
        users: listing(users),
        groups: Some(listing(&listed)),
        group_reads: groups
            .iter()
            .map(|(group, ids)| (id(group), members(ids, at(seconds))))
            .collect::<BTreeMap<_, _>>(),
        started_at: at(seconds),
    }
}

/// The directory that a first walk seals from the fetched data.
pub(super) fn first(reading: FetchedDirectory) -> (Directory, Evidence) {
    let now = reading.started_at;
    let verdict = assess(None, reading, Evidence::default(), Policy::default(), now).seal(
        Answers::default(),
        1,
        now,
    );
    match verdict {
        SealResult::Sealed {
            directory,
            evidence,
        } => (*directory, evidence),
        other => panic!("{other:?}"),
    }
}
