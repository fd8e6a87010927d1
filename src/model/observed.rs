//! What a connector observed at a provider: records already in the unified words, not yet
//! judged. [`crate::directory`] decides what of it becomes a directory.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    id::RemoteId,
    schema::{GroupWarning, Reason, RoleType, SeatType, UserStatus, Warning},
};

/// Who a credential belongs to, and what it may see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub user: RemoteId,
    pub email: Option<String>,
    pub name: Option<String>,
    pub organisation: RemoteId,
    pub organisation_name: Option<String>,
    /// Whether the provider shows this user the fields that only an administrator sees.
    pub is_admin: bool,
    /// Where seats are read from, as far as that is readable.
    pub seats: Seats,
}

/// Whether seats can be seen with a credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seats {
    /// They are read from this plan.
    Readable { plan: RemoteId },
    /// They are not, for this reason.
    Hidden(Reason),
}

/// A provider's word in our words.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Sourced<T> {
    pub value: T,
    /// The provider's own word, where it sent one.
    pub source: Option<Box<str>>,
}

/// One user as a list showed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedUser {
    pub remote_id: RemoteId,
    pub email: Option<Box<str>>,
    pub name: Option<Box<str>>,
    pub first_name: Option<Box<str>>,
    pub last_name: Option<Box<str>>,
    /// None where it may not be seen; `unmapped_value` with a warning where it was missing.
    pub status: Option<Sourced<UserStatus>>,
    /// Keys of the connector's role catalogue; None where roles may not be seen.
    pub roles: Option<Vec<Box<str>>>,
    pub seat: Option<ObservedSeat>,
    pub is_external: Option<bool>,
    /// The provider's id of the profile picture.
    pub avatar: Option<Box<str>>,
    pub last_login_at: Option<Timestamp>,
    /// Sorted by field, one per field.
    pub warnings: Vec<Warning>,
}

/// A user's seat as the provider gave it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedSeat {
    pub kind: Sourced<SeatType>,
    pub since: Option<Timestamp>,
    pub provisional_until: Option<Timestamp>,
}

/// One group as a list showed it: without its members.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedGroup {
    pub remote_id: RemoteId,
    pub name: Option<Box<str>>,
    pub description: Option<Box<str>>,
    pub owner: Option<ObservedOwner>,
    pub created_at: Option<Timestamp>,
    pub modified_at: Option<Timestamp>,
    /// Sorted by field, one per field.
    pub warnings: Vec<GroupWarning>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedOwner {
    pub remote_id: RemoteId,
    pub email: Option<Box<str>>,
}

/// A member in a group's member list: all that a group says about an outsider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedMember {
    pub remote_id: RemoteId,
    pub email: Option<Box<str>>,
    pub name: Option<Box<str>>,
    pub first_name: Option<Box<str>>,
    pub last_name: Option<Box<str>>,
    /// Sorted by field, one per field.
    pub warnings: Vec<Warning>,
}

/// A role that a connector knows of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedRole {
    /// The role's word; [`ObservedUser::roles`] names roles by it.
    pub remote_id: RemoteId,
    pub name: Box<str>,
    pub description: Option<Box<str>>,
    pub kind: Sourced<RoleType>,
}

/// A read of the provider that records came from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// A page of the list of users.
    Users { page: u32 },
    /// A page of the list of groups.
    Groups { page: u32 },
    /// One group with its members.
    Group(RemoteId),
}
