//! Records that a connector read at a provider, already in the unified vocabulary but not yet
//! checked. [`crate::directory`] decides which of them become part of a directory.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    id::RemoteId,
    schema::{GroupWarning, Reason, RoleType, SeatType, UserStatus, Warning},
};

/// The owner of a credential, and the data that it may see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub user: RemoteId,
    pub email: Option<String>,
    pub name: Option<String>,
    #[serde(rename = "organisation")]
    pub organization: RemoteId,
    #[serde(rename = "organisation_name")]
    pub organization_name: Option<String>,
    /// Whether the provider shows this user the fields that are reserved for administrators.
    pub is_admin: bool,
    /// The plan that seats are read from, if they can be read.
    pub seats: Seats,
}

/// Whether a credential may see seats.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seats {
    /// Seats are read from this plan.
    Readable { plan: RemoteId },
    /// Seats cannot be read, for this reason.
    Hidden(Reason),
}

/// A value of the unified schema, with the provider's value that it was mapped from.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Sourced<T> {
    pub value: T,
    /// The provider's value, if it sent one.
    pub source: Option<Box<str>>,
}

/// One user in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedUser {
    pub remote_id: RemoteId,
    pub email: Option<Box<str>>,
    pub name: Option<Box<str>>,
    pub first_name: Option<Box<str>>,
    pub last_name: Option<Box<str>>,
    /// None if the credential may not see it; `unmapped_value` with a warning if it was missing.
    pub status: Option<Sourced<UserStatus>>,
    /// Keys of the connector's role catalog; None if the credential may not see roles.
    pub roles: Option<Vec<Box<str>>>,
    pub seat: Option<ObservedSeat>,
    pub is_external: Option<bool>,
    /// The provider's id of the profile picture.
    pub avatar: Option<Box<str>>,
    pub last_login_at: Option<Timestamp>,
    /// Sorted by field, at most one per field.
    pub warnings: Vec<Warning>,
}

/// A user's seat at the provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedSeat {
    pub kind: Sourced<SeatType>,
    pub since: Option<Timestamp>,
    pub provisional_until: Option<Timestamp>,
}

/// One group in a list, without its members.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedGroup {
    pub remote_id: RemoteId,
    pub name: Option<Box<str>>,
    pub description: Option<Box<str>>,
    pub owner: Option<ObservedOwner>,
    pub created_at: Option<Timestamp>,
    pub modified_at: Option<Timestamp>,
    /// Sorted by field, at most one per field.
    pub warnings: Vec<GroupWarning>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedOwner {
    pub remote_id: RemoteId,
    pub email: Option<Box<str>>,
}

/// A member in a group's member list. For an external member, this is all that the provider
/// returns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedMember {
    pub remote_id: RemoteId,
    pub email: Option<Box<str>>,
    pub name: Option<Box<str>>,
    pub first_name: Option<Box<str>>,
    pub last_name: Option<Box<str>>,
    /// Sorted by field, at most one per field.
    pub warnings: Vec<Warning>,
}

/// A role in a connector's catalog.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedRole {
    /// The role's key; [`ObservedUser::roles`] refers to roles by it.
    pub remote_id: RemoteId,
    pub name: Box<str>,
    pub description: Option<Box<str>>,
    pub kind: Sourced<RoleType>,
}

/// The provider request that returned a record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// A page of the list of users.
    Users { page: u32 },
    /// A page of the list of groups.
    Groups { page: u32 },
    /// One group with its members.
    Group(RemoteId),
}
