//! A linked account: one customer's connection to one provider.

use std::fmt;

use jiff::Timestamp;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    id::{AccountId, ProjectId},
    observed::Identity,
};

/// A linked account, without its credential.
#[derive(Debug, Clone, PartialEq)]
pub struct Account {
    pub id: AccountId,
    pub project: ProjectId,
    /// The connector's key, such as `smartsheet`.
    pub provider: String,
    pub origin_owner_id: String,
    pub origin_owner_name: String,
    pub origin_username: Option<String>,
    pub label: Option<String>,
    pub kind: AccountKind,
    pub status: AccountStatus,
    /// Why the status is not `active`; empty while it is.
    pub status_reasons: Vec<StatusReason>,
    pub endpoint: Endpoint,
    /// Whose credential this is, as the provider said at the last walk or at linking.
    pub identity: Identity,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

impl Account {
    /// The code of the status reason of a credential that the provider no longer takes.
    pub const REAUTH_REQUIRED: &'static str = "reauth_required";

    /// Whether the provider no longer takes this account's credential.
    pub fn needs_reauth(&self) -> bool {
        self.status_reasons
            .iter()
            .any(|reason| reason.code == Self::REAUTH_REQUIRED)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AccountKind {
    Production,
    Test,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AccountStatus {
    Active,
    Inactive,
    Error,
}

impl AccountStatus {
    pub const ALL: [Self; 3] = [Self::Active, Self::Inactive, Self::Error];

    pub const fn as_str(self) -> &'static str {
        match self {
            AccountStatus::Active => "active",
            AccountStatus::Inactive => "inactive",
            AccountStatus::Error => "error",
        }
    }
}

/// What is to change of an account's description; None leaves it as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccountChange {
    pub origin_owner_id: Option<String>,
    pub origin_owner_name: Option<String>,
    /// `Some(None)` takes it away.
    pub origin_username: Option<Option<String>>,
    /// `Some(None)` takes it away.
    pub label: Option<Option<String>>,
}

impl AccountChange {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Changes `account`.
    pub fn apply(&self, account: &mut Account) {
        fn set<T: Clone>(field: &mut T, new: &Option<T>) {
            if let Some(new) = new {
                field.clone_from(new);
            }
        }
        set(&mut account.origin_owner_id, &self.origin_owner_id);
        set(&mut account.origin_owner_name, &self.origin_owner_name);
        set(&mut account.origin_username, &self.origin_username);
        set(&mut account.label, &self.label);
    }
}

/// Why an account is not healthy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StatusReason {
    /// A stable word, such as `reauth_required`.
    pub code: String,
    pub description: String,
    pub timestamp: Timestamp,
}

/// Where a provider's API is: one of its regions, or a base URL that the operator allows.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Endpoint {
    Region(Region),
    BaseUrl(String),
}

/// Where a customer's data lives. Tokens of one region are unknown in the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Region {
    Us,
    Eu,
    Au,
    Gov,
}

impl Region {
    pub const ALL: [Region; 4] = [Region::Us, Region::Eu, Region::Au, Region::Gov];

    pub const fn as_str(self) -> &'static str {
        match self {
            Region::Us => "us",
            Region::Eu => "eu",
            Region::Au => "au",
            Region::Gov => "gov",
        }
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What an account authenticates with at its provider. Redacts itself; has no `Serialize`.
#[derive(Debug, Clone)]
pub enum Credential {
    /// A personal access token: long-lived, no refresh.
    AccessToken(SecretString),
}
