//! A connector profile: an OAuth app that an integrator registered at a provider, so that customers
//! can sign in through it.

use std::{fmt, str::FromStr};

use jiff::Timestamp;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    accounts::Endpoint,
    id::{Id, ProjectId},
};

pub type ProfileId = Id<ConnectorProfile>;

/// An OAuth app at a provider, without its client secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectorProfile {
    pub id: ProfileId,
    pub project: ProjectId,
    /// The connector's key, such as `smartsheet`.
    pub provider: String,
    pub label: Option<String>,
    pub client_id: String,
    pub proof: ClientProof,
    pub endpoint: Endpoint,
    /// The scopes that the customer is asked to consent to.
    pub scopes: Vec<String>,
    /// Exactly as registered at the provider.
    pub redirect_url: String,
    pub actions: ActionSet,
    /// While false, the profile's accounts are inactive and no account can be linked with it.
    pub is_enabled: bool,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// A change to a profile; None leaves a field unchanged.
#[derive(Debug, Clone, Default)]
pub struct ProfileChange {
    /// `Some(None)` removes it.
    pub label: Option<Option<String>>,
    pub client_secret: Option<SecretString>,
    pub proof: Option<ClientProof>,
    pub scopes: Option<Vec<String>>,
    pub redirect_url: Option<String>,
    pub actions: Option<ActionSet>,
    pub is_enabled: Option<bool>,
}

impl ProfileChange {
    /// The names of the changed fields, except `is_enabled`.
    pub fn fields(&self) -> Vec<&'static str> {
        [
            ("label", self.label.is_some()),
            ("client_secret", self.client_secret.is_some()),
            ("client_auth", self.proof.is_some()),
            ("scopes", self.scopes.is_some()),
            ("redirect_url", self.redirect_url.is_some()),
            ("actions", self.actions.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, is_changed)| is_changed.then_some(name))
        .collect()
    }

    /// Whether the change affects the client secret, its destination or how it is sent.
    pub fn is_of_secret(&self) -> bool {
        self.client_secret.is_some() || self.proof.is_some() || self.redirect_url.is_some()
    }

    /// Applies the change to `profile`, except for the client secret.
    pub fn apply(&self, profile: &mut ConnectorProfile) {
        fn set<T: Clone>(field: &mut T, new: &Option<T>) {
            if let Some(new) = new {
                field.clone_from(new);
            }
        }
        set(&mut profile.label, &self.label);
        set(&mut profile.proof, &self.proof);
        set(&mut profile.scopes, &self.scopes);
        set(&mut profile.redirect_url, &self.redirect_url);
        set(&mut profile.actions, &self.actions);
        set(&mut profile.is_enabled, &self.is_enabled);
    }
}

/// How the app authenticates at the provider's token endpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientProof {
    /// With its client secret (RFC 6749, 2.3.1).
    #[default]
    ClientSecret,
    /// With a hash of the client secret and the code or refresh token, where the provider supports
    /// it (Smartsheet): the secret itself is never sent.
    Hash,
}

/// An OAuth app with its client secret, which `Debug` redacts.
#[derive(Debug, Clone)]
pub struct OAuthApp {
    pub client_id: String,
    pub client_secret: SecretString,
    pub proof: ClientProof,
    pub redirect_url: String,
}

/// One resource that an account may serve.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
#[schema(as = Action)]
pub enum ProfileAction {
    Users,
    Roles,
    Groups,
}

impl ProfileAction {
    pub const ALL: [ProfileAction; 3] = [
        ProfileAction::Users,
        ProfileAction::Roles,
        ProfileAction::Groups,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            ProfileAction::Users => "users",
            ProfileAction::Roles => "roles",
            ProfileAction::Groups => "groups",
        }
    }
}

impl fmt::Display for ProfileAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The resources that the accounts of a profile serve: at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActionSet {
    users: bool,
    roles: bool,
    groups: bool,
}

impl ActionSet {
    pub const ALL: Self = Self {
        users: true,
        roles: true,
        groups: true,
    };

    /// None if `actions` is empty.
    pub fn of(actions: &[ProfileAction]) -> Option<Self> {
        let has = |action| actions.contains(&action);
        (!actions.is_empty()).then(|| Self {
            users: has(ProfileAction::Users),
            roles: has(ProfileAction::Roles),
            groups: has(ProfileAction::Groups),
        })
    }

    pub const fn has(self, action: ProfileAction) -> bool {
        match action {
            ProfileAction::Users => self.users,
            ProfileAction::Roles => self.roles,
            ProfileAction::Groups => self.groups,
        }
    }

    pub fn iter(self) -> impl Iterator<Item = ProfileAction> {
        ProfileAction::ALL
            .into_iter()
            .filter(move |action| self.has(*action))
    }
}

/// The stored form: the names, separated by spaces.
impl fmt::Display for ActionSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<_> = self.iter().map(ProfileAction::as_str).collect();
        f.write_str(&words.join(" "))
    }
}

impl FromStr for ActionSet {
    type Err = UnknownProfileAction;

    fn from_str(text: &str) -> Result<Self, UnknownProfileAction> {
        let actions: Option<Vec<_>> = text
            .split_whitespace()
            .map(|word| {
                ProfileAction::ALL
                    .into_iter()
                    .find(|action| action.as_str() == word)
            })
            .collect();
        actions
            .as_deref()
            .and_then(Self::of)
            .ok_or(UnknownProfileAction)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the actions are users, roles and groups, one of them at the least")]
pub struct UnknownProfileAction;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_of_actions_reads_back_and_is_never_empty() {
        for words in ["users", "users roles", "users roles groups", "groups"] {
            let set: ActionSet = words.parse().unwrap();
            assert_eq!(set.to_string(), words);
        }
        assert_eq!(
            "groups users".parse::<ActionSet>().unwrap().to_string(),
            "users groups"
        );
        for bad in ["", " ", "policies", "users policies"] {
            assert_eq!(bad.parse::<ActionSet>(), Err(UnknownProfileAction), "{bad}");
        }
    }
}
