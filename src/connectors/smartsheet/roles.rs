//! The role catalog. Smartsheet has no list of roles, so this one is ours: four flags of a user,
//! and four seat types.

use crate::model::{
    observed::{ObservedRole, Sourced},
    schema::{RoleType, SeatType},
};

/// A role of the catalog. `source` is Smartsheet's name of the flag or seat that gives it.
pub(super) struct CatalogRole {
    pub(super) key: &'static str,
    name: &'static str,
    description: &'static str,
    kind: RoleType,
    source: &'static str,
}

pub(super) const SYSTEM_ADMIN: CatalogRole = CatalogRole {
    key: "system_admin",
    name: "System Admin",
    description: "Manages users, settings and security of the organization.",
    kind: RoleType::Admin,
    source: "admin",
};
pub(super) const GROUP_ADMIN: CatalogRole = CatalogRole {
    key: "group_admin",
    name: "Group Admin",
    description: "Creates groups and manages those they own.",
    kind: RoleType::Restricted,
    source: "groupAdmin",
};
pub(super) const LICENSED_USER: CatalogRole = CatalogRole {
    key: "licensed_user",
    name: "Licensed User",
    description: "Creates and owns sheets.",
    kind: RoleType::Editor,
    source: "licensedSheetCreator",
};
pub(super) const RESOURCE_VIEWER: CatalogRole = CatalogRole {
    key: "resource_viewer",
    name: "Resource Viewer",
    description: "Sees the resource views of the organization.",
    kind: RoleType::Viewer,
    source: "resourceViewer",
};
pub(super) const SEAT_MEMBER: CatalogRole = CatalogRole {
    key: "seat_member",
    name: "Member",
    description: "Has a paid seat.",
    kind: RoleType::Editor,
    source: "MEMBER",
};
pub(super) const SEAT_PROVISIONAL_MEMBER: CatalogRole = CatalogRole {
    key: "seat_provisional_member",
    name: "Provisional Member",
    description: "Has full access for a limited time.",
    kind: RoleType::Basic,
    source: "PROVISIONAL_MEMBER",
};
pub(super) const SEAT_GUEST: CatalogRole = CatalogRole {
    key: "seat_guest",
    name: "Guest",
    description: "Works with the organization from outside of it.",
    kind: RoleType::Guest,
    source: "GUEST",
};
pub(super) const SEAT_CONTRIBUTOR: CatalogRole = CatalogRole {
    key: "seat_contributor",
    name: "Contributor",
    description: "Comments and attaches, without a paid seat. Formerly called Viewer.",
    kind: RoleType::Viewer,
    source: "CONTRIBUTOR",
};

/// All roles, as unified records.
pub(super) fn catalog() -> Vec<ObservedRole> {
    [
        SYSTEM_ADMIN,
        GROUP_ADMIN,
        LICENSED_USER,
        RESOURCE_VIEWER,
        SEAT_MEMBER,
        SEAT_PROVISIONAL_MEMBER,
        SEAT_GUEST,
        SEAT_CONTRIBUTOR,
    ]
    .into_iter()
    .map(|role| ObservedRole {
        remote_id: role.key.into(),
        name: role.name.into(),
        description: Some(role.description.into()),
        kind: Sourced {
            value: role.kind,
            source: Some(role.source.into()),
        },
    })
    .collect()
}

/// The role that a seat gives; None for an unknown seat type.
pub(super) fn of_seat(seat: SeatType) -> Option<CatalogRole> {
    match seat {
        SeatType::Member => Some(SEAT_MEMBER),
        SeatType::ProvisionalMember => Some(SEAT_PROVISIONAL_MEMBER),
        SeatType::Guest => Some(SEAT_GUEST),
        SeatType::Contributor => Some(SEAT_CONTRIBUTOR),
        SeatType::UnmappedValue => None,
    }
}
