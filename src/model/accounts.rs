//! A linked account: one customer's connection to one provider.
//!
//! An [`Account`] holds no secret; a [`Credential`] does, has no `Serialize` and redacts itself in
//! `Debug`. [`ServingState::with_credential`] merges the status that walks found with the state of
//! the credential, so that the two never contradict each other.

use std::fmt;

use jiff::Timestamp;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    connector_profiles::{ActionSet, ProfileId},
    id::{AccountId, ProjectId},
    observed::Identity,
    timestamp,
    walks::HeldWalk,
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
    /// The owner of the credential, as the provider reported it at linking or at the last walk.
    pub identity: Identity,
    /// E-mail address of the user to impersonate (Smartsheet's Assume-User).
    pub assume_user: Option<String>,
    /// None once the account is disconnected.
    pub credential: Option<CredentialStatus>,
    /// The held walk that keeps the account's directory unchanged.
    pub held_walk: Option<HeldWalk>,
    /// The resources that the account may serve: all of them, or those its profile allows.
    pub actions: ActionSet,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

impl Account {
    /// Status reason code: the provider no longer accepts the credential.
    pub const REAUTH_REQUIRED: &'static str = "reauth_required";
    /// Status reason code: the credential is still valid, but the last refresh failed.
    pub const REFRESH_FAILED: &'static str = "refresh_failed";
    /// Status reason code: the credential was destroyed.
    pub const DISCONNECTED: &'static str = "disconnected";
    /// Status reason code: the credential was exported to another installation.
    pub const MOVED: &'static str = "moved";
    /// Status reason code: the account's connector profile is disabled.
    pub const PROFILE_DISABLED: &'static str = "profile_disabled";

    /// Why the account may not be read or walked, independent of the provider; None if it may.
    pub fn inactive_reason(&self) -> Option<Inactive> {
        match &self.credential {
            None => Some(Inactive::Disconnected),
            Some(credential) if credential.is_profile_disabled => Some(Inactive::ProfileDisabled),
            Some(credential) if credential.state == CredentialState::Moved => Some(Inactive::Moved),
            Some(_) => None,
        }
    }

    /// Whether the provider no longer accepts the credential that this installation holds.
    ///
    /// True for a moved credential too: the other installation may have rotated it.
    pub fn needs_reauth(&self) -> bool {
        self.status_reasons
            .iter()
            .any(|reason| [Self::REAUTH_REQUIRED, Self::MOVED].contains(&reason.code.as_str()))
    }
}

/// The part of an account that decides whether it can be served.
#[derive(Debug, Clone)]
pub struct ServingState {
    pub status: AccountStatus,
    pub reasons: Vec<StatusReason>,
    pub credential: Option<CredentialStatus>,
}

impl ServingState {
    /// Merges the account's status with the state of its credential.
    ///
    /// Status and reasons get the credential's own state. A refusal that a walk found becomes the
    /// credential's state, unless a newer token pair has replaced the refused one.
    #[must_use]
    pub fn with_credential(mut self, id: AccountId) -> Self {
        let Some(credential) = &mut self.credential else {
            return self;
        };
        let is_refusal = |reason: &StatusReason| reason.code == Account::REAUTH_REQUIRED;
        let refused_at = self
            .reasons
            .iter()
            .find(|reason| is_refusal(reason))
            .map(|reason| reason.timestamp);
        match (refused_at, credential.state) {
            // A refresh after the refusal replaced the refused pair, and nothing is wrong with the
            // new one.
            (Some(refused_at), CredentialState::Healthy)
                if credential.kind != CredentialKind::AccessToken
                    && credential.fault.is_none()
                    && credential.since > refused_at =>
            {
                self.reasons.retain(|reason| !is_refusal(reason));
                if self.reasons.is_empty() {
                    self.status = AccountStatus::Active;
                }
            }
            // A walk found the refusal before any refresh did.
            (Some(refused_at), CredentialState::Healthy | CredentialState::Refreshing) => {
                credential.state = CredentialState::ReauthRequired;
                credential.since = refused_at;
            }
            _ => {}
        }
        let (status, code, description) = match credential.state {
            _ if credential.is_profile_disabled => (
                AccountStatus::Inactive,
                Account::PROFILE_DISABLED,
                "The connector profile that the account was linked under is disabled.".to_owned(),
            ),
            CredentialState::Healthy => match credential.fault {
                None => return self,
                Some(fault) => (
                    self.status,
                    Account::REFRESH_FAILED,
                    fault.told().to_owned(),
                ),
            },
            CredentialState::Refreshing => (
                self.status,
                "refreshing",
                "The access token is being refreshed.".to_owned(),
            ),
            CredentialState::Uncertain => (
                self.status,
                "uncertain",
                match credential.fault {
                    Some(RefreshFault::InvalidGrant) => {
                        "The provider refused the refresh token once. It is asked again before \
                         that is believed."
                    }
                    _ => {
                        "The provider's answer to a refresh was lost. Whether it still takes the \
                         refresh token is not known yet, and it is asked again."
                    }
                }
                .to_owned(),
            ),
            CredentialState::ReauthRequired => (
                AccountStatus::Error,
                Account::REAUTH_REQUIRED,
                format!(
                    "{} Somebody must sign in again: POST /connect_sessions with the account_id {} and its \
                     origin_owner_id and origin_owner_name gives the link for that.",
                    match credential.fault {
                        Some(RefreshFault::TokenRefused) => {
                            "The provider no longer takes the access token, and for long has given \
                             no usable answer to a refresh."
                        }
                        _ => {
                            "The provider no longer takes the refresh token: it refused it twice."
                        }
                    },
                    id
                ),
            ),
            CredentialState::Moved => (
                AccountStatus::Inactive,
                Account::MOVED,
                "The credential was exported to another installation, which refreshes it from \
                 now on."
                    .to_owned(),
            ),
        };
        self.status = status;
        if self.reasons.iter().all(|reason| reason.code != code) {
            self.reasons.push(StatusReason {
                code: code.to_owned(),
                description,
                timestamp: credential.since,
            });
        }
        self
    }
}

/// The fields by which a list of accounts can be filtered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccountField {
    Id,
    Provider,
    Status,
    OriginOwnerId,
}

/// One page of an offset-paged list: at most `limit` records after the first `offset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OffsetPage {
    pub offset: u64,
    pub limit: u64,
}

/// A filter of accounts: the field equals one of these values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OneOf {
    pub field: AccountField,
    pub values: Vec<String>,
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

/// Why an account serves nothing, whether or not the provider accepts its credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inactive {
    /// The credential was destroyed.
    Disconnected,
    /// The account's connector profile is disabled.
    ProfileDisabled,
    /// The credential was exported to another installation.
    Moved,
}

/// The status of an account's credential, without the credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialStatus {
    pub kind: CredentialKind,
    pub state: CredentialState,
    /// When the credential entered this state.
    pub since: Timestamp,
    /// When the access token expires; None if it does not.
    pub expires_at: Option<Timestamp>,
    /// The connector profile whose OAuth app got the credential; None for a personal access token
    /// and for the customer's own app.
    pub profile: Option<ProfileId>,
    pub is_profile_disabled: bool,
    /// Why the last refresh returned no new tokens; None if it did.
    pub fault: Option<RefreshFault>,
}

/// Why a refresh returned no new tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RefreshFault {
    #[serde(rename = "provider_unreachable")]
    Unreachable,
    #[serde(rename = "provider_refused")]
    Refused,
    #[serde(rename = "app_refused")]
    AppRefused,
    #[serde(rename = "reply_lost")]
    ReplyLost,
    #[serde(rename = "invalid_grant")]
    InvalidGrant,
    #[serde(rename = "access_token_refused")]
    TokenRefused,
}

impl RefreshFault {
    /// The description of the `refresh_failed` reason, for a credential that is still valid: the
    /// failure and the next step.
    const fn told(self) -> &'static str {
        match self {
            Self::AppRefused => {
                "The last refresh brought no new tokens: the provider does not take the OAuth app's \
                 client id or secret. Correct the secret with PATCH /connector_profiles/{id}; for an \
                 app of the customer's own, link the account again."
            }
            Self::Unreachable => {
                "The last refresh brought no new tokens: the provider could not be reached. It is \
                 tried again."
            }
            Self::ReplyLost => {
                "The last refreshes brought no new tokens: the provider gave no answer to them \
                 that could be used. The access token is used for as long as the provider takes \
                 it, and the refresh is tried again."
            }
            Self::Refused | Self::InvalidGrant | Self::TokenRefused => {
                "The last refresh brought no new tokens: the provider refused it, though not for \
                 the refresh token. It is tried again."
            }
        }
    }
}

/// The kind of credential that an account authenticates with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CredentialKind {
    /// A personal access token.
    AccessToken,
    /// An OAuth token pair, issued to a connector profile's app.
    #[serde(rename = "oauth2")]
    OAuth,
    /// An OAuth token pair, issued to the customer's own app.
    #[serde(rename = "oauth2_own_app")]
    OAuthOwnApp,
}

/// The state of a credential at its provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CredentialState {
    /// No fault is known.
    Healthy,
    /// A refresh is in progress.
    Refreshing,
    /// It is not known whether the provider still accepts the refresh token: the reply was lost, or
    /// the provider refused it once. The refresh is retried.
    Uncertain,
    /// The provider no longer accepts the credential: a person must sign in again.
    ReauthRequired,
    /// The credential was exported to another installation, which refreshes it from then on.
    Moved,
}

impl CredentialState {
    pub const ALL: [CredentialState; 5] = [
        CredentialState::Healthy,
        CredentialState::Refreshing,
        CredentialState::Uncertain,
        CredentialState::ReauthRequired,
        CredentialState::Moved,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            CredentialState::Healthy => "healthy",
            CredentialState::Refreshing => "refreshing",
            CredentialState::Uncertain => "uncertain",
            CredentialState::ReauthRequired => "reauth_required",
            CredentialState::Moved => "moved",
        }
    }
}

/// A change to an account's description; None leaves a field unchanged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccountChange {
    pub origin_owner_id: Option<String>,
    pub origin_owner_name: Option<String>,
    /// `Some(None)` removes it.
    pub origin_username: Option<Option<String>>,
    /// `Some(None)` removes it.
    pub label: Option<Option<String>>,
}

impl AccountChange {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The names of the changed fields.
    pub fn fields(&self) -> Vec<&'static str> {
        [
            ("origin_owner_id", self.origin_owner_id.is_some()),
            ("origin_owner_name", self.origin_owner_name.is_some()),
            ("origin_username", self.origin_username.is_some()),
            ("label", self.label.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, is_given)| is_given.then_some(name))
        .collect()
    }

    /// Applies the change to `account`.
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
    /// A stable code, such as `reauth_required`.
    pub code: String,
    pub description: String,
    #[serde(serialize_with = "timestamp::serialize")]
    pub timestamp: Timestamp,
}

/// The endpoint of a provider's API: one of its regions, or a base URL that the operator allows.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Endpoint {
    Region(Region),
    BaseUrl(String),
}

/// The region that stores a customer's data. Tokens of one region are unknown in the others.
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

/// The secret that an account authenticates with. Redacts itself in `Debug`; has no `Serialize`.
#[derive(Debug, Clone)]
pub enum Credential {
    /// A personal access token: long-lived, never refreshed.
    AccessToken(SecretString),
    /// An OAuth token pair: short-lived, refreshed.
    OAuth(TokenPair),
}

impl Credential {
    /// The token that calls are made with.
    pub const fn access_token(&self) -> &SecretString {
        match self {
            Credential::AccessToken(token) => token,
            Credential::OAuth(pair) => &pair.access_token,
        }
    }

    /// The token that gets the next pair; None if there is none.
    pub const fn refresh_token(&self) -> Option<&SecretString> {
        match self {
            Credential::AccessToken(_) => None,
            Credential::OAuth(pair) => pair.refresh_token.as_ref(),
        }
    }

    /// When the access token expires; None if it does not.
    pub const fn expires_at(&self) -> Option<Timestamp> {
        match self {
            Credential::AccessToken(_) => None,
            Credential::OAuth(pair) => Some(pair.expires_at),
        }
    }
}

/// An access token with the refresh token that gets the next pair (RFC 6749, 1.5).
#[derive(Debug, Clone)]
pub struct TokenPair {
    pub access_token: SecretString,
    /// None if the sign-in returned none: the account then works until the access token expires.
    pub refresh_token: Option<SecretString>,
    pub issued_at: Timestamp,
    /// The time that the provider stated, or an assumed one.
    pub expires_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::observed::Seats;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// An account that a walk found refused at second 10; its credential has been in `state` since
    /// `since`.
    fn refused(kind: CredentialKind, state: CredentialState, since: i64) -> Account {
        let id = "019ab5c2-7a3e-7000-8000-000000000003";
        let mut account = Account {
            id: id.parse().unwrap(),
            project: "one".parse().unwrap(),
            provider: "smartsheet".to_owned(),
            origin_owner_id: "1".to_owned(),
            origin_owner_name: "One".to_owned(),
            origin_username: None,
            label: None,
            kind: AccountKind::Test,
            status: AccountStatus::Error,
            status_reasons: vec![StatusReason {
                code: Account::REAUTH_REQUIRED.to_owned(),
                description: "refused".to_owned(),
                timestamp: at(10),
            }],
            endpoint: Endpoint::Region(Region::Us),
            identity: Identity {
                user: "1".into(),
                email: None,
                name: None,
                organization: "2".into(),
                organization_name: None,
                is_admin: false,
                seats: Seats::Hidden(crate::model::schema::Reason::NotPermitted),
            },
            assume_user: None,
            credential: Some(CredentialStatus {
                kind,
                state,
                since: at(since),
                expires_at: None,
                profile: None,
                is_profile_disabled: false,
                fault: None,
            }),
            held_walk: None,
            actions: ActionSet::ALL,
            created_at: at(0),
            updated_at: at(0),
        };
        let standing = ServingState {
            status: account.status,
            reasons: std::mem::take(&mut account.status_reasons),
            credential: account.credential.take(),
        };
        let standing = standing.with_credential(account.id);
        account.status = standing.status;
        account.status_reasons = standing.reasons;
        account.credential = standing.credential;
        account
    }

    #[test]
    fn account_and_credential_say_the_same_of_a_refusal() {
        use CredentialKind::{AccessToken, OAuth};
        for (kind, state, since) in [
            (AccessToken, CredentialState::Healthy, 5),
            (AccessToken, CredentialState::ReauthRequired, 10),
            (OAuth, CredentialState::Healthy, 5),
            (OAuth, CredentialState::Refreshing, 15),
        ] {
            let account = refused(kind, state, since);
            let credential = account.credential.as_ref().unwrap();
            assert_eq!(credential.state, CredentialState::ReauthRequired);
            assert_eq!(credential.since, at(10));
            assert!(account.needs_reauth() && account.status == AccountStatus::Error);
            assert_eq!(account.status_reasons.len(), 1);
        }
        // A token pair that was issued after the refusal is a different one.
        let account = refused(OAuth, CredentialState::Healthy, 15);
        assert_eq!(account.credential.unwrap().state, CredentialState::Healthy);
        assert_eq!(account.status, AccountStatus::Active);
        assert_eq!(account.status_reasons, []);
    }
}
