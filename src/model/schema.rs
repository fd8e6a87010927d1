//! The unified IAM schema, as served. Every key is always present; what is unknown is null, and
//! a field that this connector does serve but could not see for this record has a [`Warning`].
//!
//! Types are exact because StackOne's SDK drops a whole page over one wrong type: ids are
//! strings, moments are RFC 3339 in UTC with `Z`, a word is always an object.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    timestamp,
    walks::{HeldWalk, Quarantined},
};

/// A word of ours beside the word that the provider used.
///
/// `value` is `unmapped_value` where the provider's word fits none of ours; `source_value` is
/// then that word, or null where the provider sent none.
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

/// How far a role reaches.
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

/// What a group stands for.
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

/// The kind of licence that a user occupies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SeatType {
    Member,
    ProvisionalMember,
    Guest,
    Contributor,
    UnmappedValue,
}

/// A person, or a guest of the organisation, or an outsider whom one of its groups names. Every
/// key is there, and null where nothing is known, unless `fields` leaves it out.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct User {
    /// `usr_` and the remote id: the same on every replica and after linking again.
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
    /// Null where roles may not be seen, with a warning; `[]` where the user holds none.
    /// Of each only `id`, `remote_id` and `name`, without `expand=roles`.
    #[schema(value_type = Option<Vec<Role>>)]
    pub roles: Option<Vec<RoleEntry>>,
    /// Null where groups may not be seen, with a warning; `[]` where the user is in none.
    /// Of each only `id`, `remote_id` and `name`, without `expand=groups`.
    #[schema(value_type = Option<Vec<Group>>)]
    pub groups: Option<Vec<GroupEntry>>,
    pub avatar: Option<File>,
    pub multi_factor_enabled: Option<Vec<EnumValue<String>>>,
    #[serde(serialize_with = "timestamp::serialize")]
    pub last_active_at: Option<Timestamp>,
    #[serde(serialize_with = "timestamp::serialize")]
    pub last_login_at: Option<Timestamp>,
    /// Null unless the provider says so; see `first_seen_at`.
    #[serde(serialize_with = "timestamp::serialize")]
    pub created_at: Option<Timestamp>,
    /// When Rolecall last saw a field of this user change.
    #[serde(serialize_with = "timestamp::serialize")]
    pub updated_at: Option<Timestamp>,
    pub unified_custom_fields: Option<std::collections::BTreeMap<String, String>>,
    pub seat: Option<Seat>,
    /// True for a guest and for a group member who is in no user list.
    pub is_external: Option<bool>,
    /// When Rolecall first saw this user.
    #[serde(serialize_with = "timestamp::serialize")]
    pub first_seen_at: Option<Timestamp>,
    /// False for somebody whom the provider confirms by id but has left out of its list in
    /// three complete walks.
    #[schema(required = false)]
    pub listed: bool,
    /// True for somebody who is missing from the list and not yet proven gone.
    #[schema(required = false)]
    pub suspected: bool,
    /// Why a field is null here. Empty if every field that can be served is.
    #[schema(required = false)]
    pub warnings: Vec<Warning>,
}

/// The licence that a user occupies.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Seat {
    pub value: SeatType,
    pub source_value: Option<String>,
    /// Since when the user has had this seat.
    #[serde(serialize_with = "timestamp::serialize")]
    pub since: Option<Timestamp>,
    /// When a provisional seat ends.
    #[serde(serialize_with = "timestamp::serialize")]
    pub provisional_until: Option<Timestamp>,
}

/// What a user may do in the organisation. Every key is there, and null where nothing is known,
/// unless `fields` leaves it out.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Role {
    /// `rol_` and the remote id.
    #[schema(required = false)]
    pub id: String,
    /// The role's word, such as `system_admin`.
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
    /// How many users hold the role; null where roles may not be seen.
    pub holder_count: Option<u64>,
}

/// A group of users. Every key but `members` is there, and null where nothing is known, unless
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
    /// Always empty for a provider whose groups hold no roles.
    #[schema(value_type = Vec<Role>, required = false)]
    pub roles: Vec<RoleEntry>,
    pub parent_id: Option<String>,
    pub remote_parent_id: Option<String>,
    #[serde(serialize_with = "timestamp::serialize")]
    pub created_at: Option<Timestamp>,
    /// The later of the provider's own time and when Rolecall last saw a change.
    #[serde(serialize_with = "timestamp::serialize")]
    pub updated_at: Option<Timestamp>,
    /// Null where the members are not known, with a warning on `members`.
    pub member_count: Option<u64>,
    pub owner: Option<GroupOwner>,
    /// Only with `expand=members`; null where they are not known, with a warning.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<GroupMember>>)]
    pub members: Option<Option<Vec<GroupMember>>>,
    /// When this member list was last read from the provider.
    #[serde(serialize_with = "timestamp::serialize")]
    pub members_read_at: Option<Timestamp>,
    /// When Rolecall first saw this group.
    #[serde(serialize_with = "timestamp::serialize")]
    pub first_seen_at: Option<Timestamp>,
    /// False for a group that the provider confirms by id but has left out of its list in
    /// three complete walks.
    #[schema(required = false)]
    pub listed: bool,
    /// True for a group that is missing from the list and not yet proven gone.
    #[schema(required = false)]
    pub suspected: bool,
    /// Why a field is null here. Empty if every field that can be served is.
    #[schema(required = false)]
    pub warnings: Vec<GroupWarning>,
}

/// Who owns a group.
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

/// A directory as a whole.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Summary {
    pub counts: RecordCounts,
    /// As in the header x-directory-version.
    pub directory_version: String,
    /// When this version was sealed.
    #[serde(serialize_with = "timestamp::serialize")]
    pub sealed_at: Timestamp,
    /// When the provider was last found to agree with it.
    #[serde(serialize_with = "timestamp::serialize")]
    pub verified_at: Timestamp,
    /// Whole seconds since then, as in the header Age.
    pub age_seconds: u64,
    /// Why it may no longer be what the provider would say, as in the header x-directory-stale;
    /// null where the last attempt to renew it succeeded.
    #[schema(value_type = Option<String>)]
    pub stale: Option<&'static str>,
    /// The fields that are null for everybody, and why.
    pub warnings: Vec<Warning>,
    /// How many rows of the provider's lists are left out, because they had no usable id.
    pub quarantined: Quarantined,
    /// The held walk that keeps the directory as it is; null if none does.
    pub held_walk: Option<HeldWalk>,
}

/// How many records the lists have.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct RecordCounts {
    pub users: u64,
    pub roles: u64,
    /// Null where groups may not be seen.
    pub groups: Option<u64>,
}

/// A record by its ids and name.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Reference {
    pub id: String,
    pub remote_id: String,
    pub name: Option<String>,
}

/// A role as a user carries it: whole with `expand=roles`, else by reference.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum RoleEntry {
    Whole(Box<Role>),
    Reference(Reference),
}

/// A group as a user carries it: whole with `expand=groups`, else by reference.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum GroupEntry {
    Whole(Box<Group>),
    Reference(Reference),
}

/// A picture, named but not fetched.
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
    /// The word of the field, as its key in a user.
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
    /// The provider's part of it: `updated_at` is then the time at which Rolecall saw a change.
    UpdatedAt,
    /// With `member_count` and `members_read_at`. Where these are not null, the latest reading
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
    /// It can be had, but was not asked for.
    NotFetched,
    /// The provider, or this plan of it, has no such thing.
    NotSupported,
    /// It was asked for and the answer did not say.
    Unknown,
    /// The provider sent a value that cannot be read as this field.
    Unreadable,
}

/// A read of the provider that records came from, without header, body or secret.
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
