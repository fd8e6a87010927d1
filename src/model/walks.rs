//! A walk: one complete read of a provider's directory, and its result.
//!
//! A walk ends sealed (its directory is current), held (a person must decide) or failed. A
//! [`WalkReason`] states why it was held or failed.

use jiff::Timestamp;
use serde::{Deserialize, Serialize, Serializer};
use utoipa::ToSchema;

use super::{
    id::{AccountId, WalkId},
    timestamp,
};

/// One walk of an account.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Walk {
    #[schema(value_type = String, format = Uuid)]
    pub id: WalkId,
    #[serde(skip)]
    pub account: AccountId,
    pub state: WalkState,
    /// Why the walk was held or failed; null otherwise.
    pub reason: Option<WalkReason>,
    /// The current directory version after this walk; null if there is none.
    pub directory_version: Option<String>,
    /// The `total`s of the three lists in the current directory after this walk.
    pub counts: Option<WalkCounts>,
    /// How many rows of the provider's lists this walk left out, because they had no usable id.
    #[serde(serialize_with = "in_all")]
    #[schema(value_type = u64)]
    pub quarantined: Quarantined,
    /// Every request sent to the provider for this walk, including retries and lookups by id.
    pub upstream_calls: u64,
    #[serde(serialize_with = "timestamp::serialize")]
    pub started_at: Timestamp,
    #[serde(serialize_with = "timestamp::serialize")]
    pub ended_at: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[schema(as = Counts)]
pub struct WalkCounts {
    pub users: u64,
    pub groups: u64,
    pub roles: u64,
}

/// A provider list that a walk reads page by page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListName {
    Users,
    Groups,
}

impl ListName {
    pub const ALL: [Self; 2] = [Self::Users, Self::Groups];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Users => "users",
            Self::Groups => "groups",
        }
    }
}

/// How many rows of each list were left out, because they had no usable id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, ToSchema)]
pub struct Quarantined {
    pub users: u64,
    pub groups: u64,
}

fn in_all<S: Serializer>(rows: &Quarantined, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(rows.users.saturating_add(rows.groups))
}

/// The held walk that keeps an account's directory unchanged until a walk is sealed or a person
/// decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, ToSchema)]
pub struct HeldWalk {
    #[schema(value_type = String, format = Uuid)]
    pub id: WalkId,
    /// How many users and groups the walk was held for.
    pub suspects: u64,
    /// When the first of the consecutive walks ended that were held for the same reason and for
    /// some of the same users or groups.
    #[serde(serialize_with = "timestamp::serialize")]
    pub since: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WalkState {
    Running,
    /// The directory is complete and current (or nothing had changed).
    Sealed,
    /// The walk was complete, but its result is so unlikely that a person must review it.
    Held,
    Failed,
}

impl WalkState {
    pub const ALL: [Self; 4] = [Self::Running, Self::Sealed, Self::Held, Self::Failed];

    /// The value in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Sealed => "sealed",
            Self::Held => "held",
            Self::Failed => "failed",
        }
    }
}

/// Why a walk was held or failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WalkReason {
    /// Held: unusually many users are missing, disabled, or without their roles or groups.
    MassDisappearance,
    /// Held: the token sees fewer fields than it did for the last sealed walk.
    Degraded,
    /// Failed: a person discarded a held walk.
    Discarded,
    /// Failed: two scans of a list fell short of the provider's own total, or group members were
    /// not read.
    Incomplete,
    /// Failed: the provider served the same page twice, or endless pages.
    RepeatedPage,
    /// Failed: the provider refused a request for another reason, or its reply could not be parsed.
    InvalidReply,
    /// Failed: more records were unreadable than may be left out.
    TooManyInvalidRecords,
    /// Failed: the provider did not answer, or answered with a server error.
    ProviderUnavailable,
    /// Failed: the provider's rate limit left no requests in time.
    ProviderThrottled,
    /// Failed: the provider no longer accepts this credential, or the account is inactive.
    CredentialRefused,
    /// Failed: the access token has expired, and it is not yet known whether it can be refreshed.
    CredentialUncertain,
    /// Failed: the stored credential cannot be decrypted with the key ring, or its row names
    /// another destination than the one it was sealed for.
    CredentialLocked,
    /// Failed: the operator no longer allows calls to the account's base URL.
    BaseUrlNotAllowed,
    /// Failed: the credential lacks a permission that a walk needs.
    ScopeMissing,
    /// Failed: the provider no longer lets the token impersonate the configured user.
    AssumeUserRefused,
    /// Failed: the credential belongs to another organization than the account.
    #[serde(rename = "organisation_changed")]
    OrganizationChanged,
    /// Failed: the walk was stopped: the process ended, the walk was canceled, or the account was
    /// unlinked or got another credential.
    Interrupted,
    /// Failed: the store did not answer, or did not accept the result.
    StoreUnavailable,
    /// Failed: an internal error; the log has details.
    Internal,
}

impl WalkReason {
    pub const ALL: [Self; 19] = [
        Self::MassDisappearance,
        Self::Degraded,
        Self::Discarded,
        Self::Incomplete,
        Self::RepeatedPage,
        Self::InvalidReply,
        Self::TooManyInvalidRecords,
        Self::ProviderUnavailable,
        Self::ProviderThrottled,
        Self::CredentialRefused,
        Self::CredentialUncertain,
        Self::CredentialLocked,
        Self::BaseUrlNotAllowed,
        Self::ScopeMissing,
        Self::AssumeUserRefused,
        Self::OrganizationChanged,
        Self::Interrupted,
        Self::StoreUnavailable,
        Self::Internal,
    ];

    /// The value in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MassDisappearance => "mass_disappearance",
            Self::Degraded => "degraded",
            Self::Discarded => "discarded",
            Self::Incomplete => "incomplete",
            Self::RepeatedPage => "repeated_page",
            Self::InvalidReply => "invalid_reply",
            Self::TooManyInvalidRecords => "too_many_invalid_records",
            Self::ProviderUnavailable => "provider_unavailable",
            Self::ProviderThrottled => "provider_throttled",
            Self::CredentialRefused => "credential_refused",
            Self::CredentialUncertain => "credential_uncertain",
            Self::CredentialLocked => "credential_locked",
            Self::BaseUrlNotAllowed => "base_url_not_allowed",
            Self::ScopeMissing => "scope_missing",
            Self::AssumeUserRefused => "assume_user_refused",
            Self::OrganizationChanged => "organisation_changed",
            Self::Interrupted => "interrupted",
            Self::StoreUnavailable => "store_unavailable",
            Self::Internal => "internal",
        }
    }
}

/// A user or group that a walk was held for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Suspect {
    pub kind: SuspectKind,
    pub id: String,
    pub remote_id: String,
    pub name: Option<String>,
    pub why: SuspectReason,
}

#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum SuspectKind {
    User,
    Group,
}

#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum SuspectReason {
    Missing,
    Disabled,
    RolesLost,
    GroupsLost,
    Degraded,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use utoipa::{PartialSchema, openapi::RefOr, openapi::Schema};

    use super::*;

    /// The values that the OpenAPI document lists for a type.
    fn listed<T: PartialSchema>() -> BTreeSet<String> {
        let RefOr::T(Schema::Object(object)) = T::schema() else {
            panic!("a plain enum has a plain schema");
        };
        let words = object.enum_values.unwrap_or_default();
        words
            .iter()
            .map(|word| word.as_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn every_state_and_reason_is_listed_and_spelt_as_it_is_served() {
        let states: BTreeSet<_> = WalkState::ALL.map(|it| it.as_str().to_owned()).into();
        assert_eq!(states, listed::<WalkState>());
        for state in WalkState::ALL {
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
        }
        let reasons: BTreeSet<_> = WalkReason::ALL.map(|it| it.as_str().to_owned()).into();
        assert_eq!(reasons, listed::<WalkReason>());
        for reason in WalkReason::ALL {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
        }
    }
}
