//! The contract that every connector keeps. Each function takes any connector and the provider's
//! true data, and panics where the two differ.

use std::collections::{BTreeMap, BTreeSet};

use super::{Connector, ListPage, Presence, Session};
use crate::{
    model::{
        id::RemoteId,
        observed::{ObservedGroup, ObservedUser},
        schema::{UserField, UserStatus},
    },
    outbound::{CallError, CallErrorKind},
};

/// The provider's true data, as one of its tokens may see it.
pub(crate) struct Truth {
    /// The ids in the list of users.
    pub(crate) users: BTreeSet<RemoteId>,
    /// The ids of all groups, each with the ids of its members.
    pub(crate) groups: BTreeMap<RemoteId, BTreeSet<RemoteId>>,
    /// Ids of no user and of no group.
    pub(crate) absent_user: RemoteId,
    pub(crate) absent_group: RemoteId,
}

/// Checks the whole contract with one token.
pub(crate) async fn keeps_the_contract(
    connector: &dyn Connector,
    session: &Session,
    truth: &Truth,
) {
    roles_are_distinct_words(connector);
    let users = users_are_listed_once_each(connector, session, truth).await;
    for user in &users {
        nulls_are_explained(user);
        roles_are_of_the_catalog(connector, user);
    }
    groups_are_listed_once_each(connector, session, truth).await;
    groups_hold_their_members(connector, session, truth).await;
    presence_is_proven(connector, session, truth).await;
}

fn roles_are_distinct_words(connector: &dyn Connector) {
    let roles = connector.roles();
    let words: BTreeSet<_> = roles.iter().map(|role| &role.remote_id).collect();
    assert_eq!(words.len(), roles.len());
    for word in words {
        let is_word = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
        assert!(word.as_str().bytes().all(is_word), "{word}");
    }
}

async fn users_are_listed_once_each(
    connector: &dyn Connector,
    session: &Session,
    truth: &Truth,
) -> Vec<ObservedUser> {
    let identity = connector.identify(session).await.unwrap();
    let mut users = Vec::new();
    let mut number = 1;
    loop {
        let page = connector.users(session, &identity, number).await.unwrap();
        check_page(connector, &page, number, truth.users.len());
        users.extend(page.records);
        if number >= page.total_pages.unwrap() {
            break;
        }
        number += 1;
    }
    let ids: BTreeSet<_> = users.iter().map(|user| user.remote_id.clone()).collect();
    assert_eq!(ids.len(), users.len(), "nobody is listed twice");
    assert_eq!(ids, truth.users);
    users
}

async fn groups_are_listed_once_each(
    connector: &dyn Connector,
    session: &Session,
    truth: &Truth,
) -> Vec<ObservedGroup> {
    let mut groups = Vec::new();
    let mut number = 1;
    loop {
        let page = connector.groups(session, number).await.unwrap();
        check_page(connector, &page, number, truth.groups.len());
        groups.extend(page.records);
        if number >= page.total_pages.unwrap() {
            break;
        }
        number += 1;
    }
    let ids: Vec<_> = groups.iter().map(|group| &group.remote_id).collect();
    assert_eq!(
        ids.iter().copied().collect::<BTreeSet<_>>(),
        truth.groups.keys().collect()
    );
    assert_eq!(ids.len(), truth.groups.len(), "no group is listed twice");
    groups
}

fn check_page<T>(connector: &dyn Connector, page: &ListPage<T>, number: u64, total: usize) {
    assert_eq!(page.number, Some(number));
    assert_eq!(page.total, Some(total as u64));
    assert!(page.records.len() as u64 <= connector.page_size());
    assert_eq!(page.quarantined, []);
}

async fn groups_hold_their_members(connector: &dyn Connector, session: &Session, truth: &Truth) {
    for (id, members) in &truth.groups {
        let Presence::Found((group, observed)) = connector.group(session, id).await.unwrap() else {
            panic!("group {id} is there");
        };
        assert_eq!(&group.remote_id, id);
        let observed: BTreeSet<_> = observed
            .into_iter()
            .map(|member| member.remote_id)
            .collect();
        assert_eq!(&observed, members, "members of {id}");
    }
}

/// A lookup finds an existing record and reports a missing one as departed. Neither is an error.
async fn presence_is_proven(connector: &dyn Connector, session: &Session, truth: &Truth) {
    for id in truth.users.iter().take(5) {
        let Presence::Found(user) = connector.user(session, id).await.unwrap() else {
            panic!("user {id} is there");
        };
        assert_eq!(&user.remote_id, id);
        nulls_are_explained(&user);
    }
    let gone = connector.user(session, &truth.absent_user).await.unwrap();
    assert_eq!(gone, Presence::Departed);
    let gone = connector.group(session, &truth.absent_group).await.unwrap();
    assert_eq!(gone, Presence::Departed);
}

/// A field that can be null for a reason has a warning exactly when it is null. Some fields may be
/// null without a warning: no last login, no picture, an empty text. An unknown status keeps its
/// value. A seat may lack one of its times, with a warning.
pub(crate) fn nulls_are_explained(user: &ObservedUser) {
    let fields: Vec<_> = user.warnings.iter().map(|warning| warning.field).collect();
    assert!(fields.is_sorted() && fields.windows(2).all(|pair| pair[0] != pair[1]));
    let is_warned = |field| fields.contains(&field);
    assert!(
        is_warned(UserField::Roles) == user.roles.is_none()
            && is_warned(UserField::IsExternal) == user.is_external.is_none()
            && (is_warned(UserField::Seat) || user.seat.is_some())
            && (!is_warned(UserField::LastLoginAt) || user.last_login_at.is_none())
            && (!is_warned(UserField::PrimaryEmailAddress) || user.email.is_none())
            && (!is_warned(UserField::Name) || user.name.is_none())
            && (!is_warned(UserField::FirstName) || user.first_name.is_none())
            && (!is_warned(UserField::LastName) || user.last_name.is_none())
            && (!is_warned(UserField::Avatar) || user.avatar.is_none()),
        "{user:?}"
    );
    match &user.status {
        None => assert!(is_warned(UserField::Status)),
        Some(status) => assert_eq!(
            is_warned(UserField::Status),
            status.value == UserStatus::UnmappedValue && status.source.is_none()
        ),
    }
}

fn roles_are_of_the_catalog(connector: &dyn Connector, user: &ObservedUser) {
    let catalog = connector.roles();
    for role in user.roles.iter().flatten() {
        assert!(
            catalog
                .iter()
                .any(|known| known.remote_id.as_str() == &**role)
        );
    }
}

/// A refused credential has an error kind of its own.
pub(crate) async fn refuses_a_dead_credential(connector: &dyn Connector, session: &Session) {
    let error: CallError = connector.identify(session).await.unwrap_err();
    assert_eq!(error.kind, CallErrorKind::Unauthorized);
}
