//! The unified IAM schema, as the API serves it.
//!
//! Every key is always present, and an unknown value is null. A [`Warning`] marks a field that the
//! connector supports but could not read for this record.
//!
//! Types are exact, because StackOne's SDK drops a whole page if one type is wrong: ids are
//! strings, timestamps are RFC 3339 in UTC with `Z`, and an enumerated value is always an object.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    timestamp,
    walks::{HeldWalk, Quarantined},
};

/// A value of the unified schema beside the provider's value.
///
/// `value` is `unmapped_value` if the provider's value has no equivalent; `source_value` is then
/// the provider's value, or null if it sent none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct EnumValue<T> {
    pub value: T,
    pub source_value: Option<String>,
}

/// Whether a user may sign in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum UserStatus {
    Enabled,
    Disabled,
    Pending,
    UnmappedValue,
}

/// The access level of a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RoleType {
    Admin,
    Viewer,
    Editor,
    Basic,
    Guest,
    Unassigned,
    Restricted,
    UnmappedValue,
}

/// The kind of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum GroupType {
    Workspace,
    Team,
    Department,
    Group,
    Organization,
    CostCenter,
    UnmappedValue,
}

/// The kind of license that a user occupies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SeatType {
    Member,
    ProvisionalMember,
    Guest,
    Contributor,
    UnmappedValue,
}

/// A member or guest of the organization, or an external member of one of its groups. Every key is
/// present, and null if the value is unknown, unless `fields` leaves it out.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct User {
    /// `usr_` and the remote id: the same on every replica and after the account is linked again.
    #[schema(required = false)]
    pub id: String,
    /// The provider's id, as text.
    #[schema(required = false)]
    pub remote_id: String,
    pub name: Option<String>,
    pub first_name: Option<String>,
    pub last_name: Option<String>,
    pub primary_email_address: Option<String>,
    pub username: Option<String>,
    pub is_bot_user: Option<bool>,
    pub status: Option<EnumValue<UserStatus>>,
    /// Null, with a warning, if the token may not see roles; `[]` if the user has none. Without
    /// `expand=roles`, each role has only `id`, `remote_id` and `name`.
    #[schema(value_type = Option<Vec<Role>>)]
    pub roles: Option<Vec<RoleEntry>>,
    /// Null, with a warning, if the token may not see groups; `[]` if the user is in none. Without
    /// `expand=groups`, each group has only `id`, `remote_id` and `name`.
    #[schema(value_type = Option<Vec<Group>>)]
    pub groups: Option<Vec<GroupEntry>>,
    pub avatar: Option<File>,
    pub multi_factor_enabled: Option<Vec<EnumValue<String>>>,
    #[serde(serialize_with = "timestamp::serialize")]
    pub last_active_at: Option<Timestamp>,
    #[serde(serialize_with = "timestamp::serialize")]
    pub last_login_at: Option<Timestamp>,
    /// Null unless the provider states it; see `first_seen_at`.
    #[serde(serialize_with = "timestamp::serialize")]
    pub created_at: Option<Timestamp>,
    /// When Rolecall last saw a field of this user change.
    #[serde(serialize_with = "timestamp::serialize")]
    pub updated_at: Option<Timestamp>,
    pub unified_custom_fields: Option<std::collections::BTreeMap<String, String>>,
    pub seat: Option<Seat>,
    /// True for a guest, and for a group member that no user list contains.
    pub is_external: Option<bool>,
    /// When Rolecall first saw this user.
    #[serde(serialize_with = "timestamp::serialize")]
    pub first_seen_at: Option<Timestamp>,
    /// False for a user whom the provider confirms by id but has left out of its list in three
    /// complete walks.
    #[schema(required = false)]
    pub listed: bool,
    /// True for a user that the list lacks and that is not yet confirmed as deleted.
    #[schema(required = false)]
    pub suspected: bool,
    /// Why a field is null here. Empty if every supported field could be read.
    #[schema(required = false)]
    pub warnings: Vec<Warning>,
}

/// The license that a user occupies.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Seat {
    pub value: SeatType,
    pub source_value: Option<String>,
    /// When the user got this seat.
    #[serde(serialize_with = "timestamp::serialize")]
    pub since: Option<Timestamp>,
    /// When a provisional seat ends.
    #[serde(serialize_with = "timestamp::serialize")]
    pub provisional_until: Option<Timestamp>,
}

/// A role in the organization. Every key is present, and null if the value is unknown, unless
/// `fields` leaves it out.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Role {
    /// `rol_` and the remote id.
    #[schema(required = false)]
    pub id: String,
    /// The role's key, such as `system_admin`.
    #[schema(required = false)]
    pub remote_id: String,
    pub name: Option<String>,
    pub description: Option<String>,
    #[serde(rename = "type")]
    pub kind: Option<EnumValue<RoleType>>,
    /// Null: this provider has no policies.
    pub policies: Option<Vec<String>>,
    #[serde(serialize_with = "timestamp::serialize")]
    pub created_at: Option<Timestamp>,
    #[serde(serialize_with = "timestamp::serialize")]
    pub updated_at: Option<Timestamp>,
    /// How many users have the role; null if the token may not see roles.
    pub holder_count: Option<u64>,
}

/// A group of users. Every key but `members` is present, and null if the value is unknown, unless
/// `fields` leaves it out.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Group {
    /// `grp_` and the remote id.
    #[schema(required = false)]
    pub id: String,
    /// The provider's id, as text.
    #[schema(required = false)]
    pub remote_id: String,
    pub name: Option<String>,
    pub description: Option<String>,
    #[serde(rename = "type")]
    pub kind: Option<EnumValue<GroupType>>,
    /// Always empty for a provider whose groups have no roles.
    #[schema(value_type = Vec<Role>, required = false)]
    pub roles: Vec<RoleEntry>,
    pub parent_id: Option<String>,
    pub remote_parent_id: Option<String>,
    #[serde(serialize_with = "timestamp::serialize")]
    pub created_at: Option<Timestamp>,
    /// The later of the provider's own time and the time at which Rolecall last saw a change.
    #[serde(serialize_with = "timestamp::serialize")]
    pub updated_at: Option<Timestamp>,
    /// Null if the members are unknown, with a warning on `members`.
    pub member_count: Option<u64>,
    pub owner: Option<GroupOwner>,
    /// Only with `expand=members`; null if the members are unknown, with a warning.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<GroupMember>>)]
    pub members: Option<Option<Vec<GroupMember>>>,
    /// When this member list was last read from the provider.
    #[serde(serialize_with = "timestamp::serialize")]
    pub members_read_at: Option<Timestamp>,
    /// When Rolecall first saw this group.
    #[serde(serialize_with = "timestamp::serialize")]
    pub first_seen_at: Option<Timestamp>,
    /// False for a group that the provider confirms by id but has left out of its list in three
    /// complete walks.
    #[schema(required = false)]
    pub listed: bool,
    /// True for a group that the list lacks and that is not yet confirmed as deleted.
    #[schema(required = false)]
    pub suspected: bool,
    /// Why a field is null here. Empty if every supported field could be read.
    #[schema(required = false)]
    pub warnings: Vec<GroupWarning>,
}

/// The owner of a group.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct GroupOwner {
    pub id: String,
    pub remote_id: String,
    pub email: Option<String>,
}

/// One member in a group's member list.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct GroupMember {
    pub id: String,
    pub remote_id: String,
    pub name: Option<String>,
    pub email: Option<String>,
}

/// A summary of the directory.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Summary {
    pub counts: RecordCounts,
    /// The value of the header x-directory-version.
    pub directory_version: String,
    /// When this version was sealed.
    #[serde(serialize_with = "timestamp::serialize")]
    pub sealed_at: Timestamp,
    /// When a walk last confirmed this version with the provider.
    #[serde(serialize_with = "timestamp::serialize")]
    pub verified_at: Timestamp,
    /// Whole seconds since `verified_at`, as in the header Age.
    pub age_seconds: u64,
    /// Why the directory may no longer match the provider, as in the header x-directory-stale; null
    /// if the last attempt to update it succeeded.
    #[schema(value_type = Option<String>)]
    pub stale: Option<&'static str>,
    /// The fields that are null for every user, and why.
    pub warnings: Vec<Warning>,
    /// How many rows of the provider's lists were left out, because they had no usable id.
    pub quarantined: Quarantined,
    /// The held walk that keeps the directory unchanged; null if there is none.
    pub held_walk: Option<HeldWalk>,
}

/// How many records each list has.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct RecordCounts {
    pub users: u64,
    pub roles: u64,
    /// Null if the token may not see groups.
    pub groups: Option<u64>,
}

/// A record by its ids and name.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Reference {
    pub id: String,
    pub remote_id: String,
    pub name: Option<String>,
}

/// A role of a user: complete with `expand=roles`, otherwise a reference.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum RoleEntry {
    Whole(Box<Role>),
    Reference(Reference),
}

/// A group of a user: complete with `expand=groups`, otherwise a reference.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum GroupEntry {
    Whole(Box<Group>),
    Reference(Reference),
}

/// A reference to a picture; Rolecall does not fetch it.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct File {
    pub id: Option<String>,
    pub remote_id: Option<String>,
    pub name: Option<String>,
    pub remote_url: Option<String>,
}

/// A field that is null on this record, and why.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
pub struct Warning {
    pub field: UserField,
    pub reason: Reason,
}

/// The fields of a user that may be null for a reason.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum UserField {
    Status,
    Roles,
    Groups,
    Seat,
    IsExternal,
    LastLoginAt,
    PrimaryEmailAddress,
    Name,
    FirstName,
    LastName,
    Avatar,
    /// The user is in no list that the account's token may read.
    Listed,
}

impl UserField {
    /// The field's key in a user.
    pub const fn as_str(self) -> &'static str {
        match self {
            UserField::Status => "status",
            UserField::Roles => "roles",
            UserField::Groups => "groups",
            UserField::Seat => "seat",
            UserField::IsExternal => "is_external",
            UserField::LastLoginAt => "last_login_at",
            UserField::PrimaryEmailAddress => "primary_email_address",
            UserField::Name => "name",
            UserField::FirstName => "first_name",
            UserField::LastName => "last_name",
            UserField::Avatar => "avatar",
            UserField::Listed => "listed",
        }
    }
}

/// A field of a group that is null, and why.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
pub struct GroupWarning {
    pub field: GroupField,
    pub reason: Reason,
}

/// The fields of a group that may be null for a reason.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum GroupField {
    Name,
    Description,
    Owner,
    CreatedAt,
    /// The provider's time is null: `updated_at` is then the time at which Rolecall saw a change.
    UpdatedAt,
    /// Applies to `member_count` and `members_read_at` too. If these are not null, the latest read
    /// failed and the members are those of an earlier one.
    Members,
}

/// Why a field is null.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The account's token may not see it.
    NotPermitted,
    /// It is available, but was not requested.
    NotFetched,
    /// The provider, or the customer's plan, does not have it.
    NotSupported,
    /// It was requested, but the reply did not include it.
    Unknown,
    /// The provider sent a value that cannot be read as this field.
    Unreadable,
}

/// The provider request that returned a record, without headers, body or secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ProviderRead {
    #[schema(value_type = String, example = "GET")]
    pub method: &'static str,
    #[schema(
        format = "uri",
        example = "https://api.smartsheet.eu/2.0/users?page=1&pageSize=100&include=lastLogin"
    )]
    pub url: String,
}
