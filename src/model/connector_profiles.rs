//! A connector profile: an OAuth app that is registered at a provider, as an integrator uses it to
//! have customers sign in.

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

/// An OAuth app at a provider, without its secret.
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
    /// What the customer is asked to consent to.
    pub scopes: Vec<String>,
    /// Exactly as it is registered at the provider.
    pub redirect_url: String,
    pub actions: ActionSet,
    /// While it is not, its accounts are inactive and nobody links under it.
    pub is_enabled: bool,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// What is to change of a profile; None leaves it as it is.
#[derive(Debug, Clone, Default)]
pub struct ProfileChange {
    /// `Some(None)` takes it away.
    pub label: Option<Option<String>>,
    pub client_secret: Option<SecretString>,
    pub proof: Option<ClientProof>,
    pub scopes: Option<Vec<String>>,
    pub redirect_url: Option<String>,
    pub actions: Option<ActionSet>,
    pub is_enabled: Option<bool>,
}

impl ProfileChange {
    /// The names of what changes, but for whether it is enabled.
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

    /// Whether the secret changes, or where and how it may be sent.
    pub fn is_of_secret(&self) -> bool {
        self.client_secret.is_some() || self.proof.is_some() || self.redirect_url.is_some()
    }

    /// Changes `profile`, all but its secret.
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

/// How the app proves itself to the provider's token endpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientProof {
    /// By its secret (RFC 6749, 2.3.1).
    #[default]
    ClientSecret,
    /// By a hash of its secret with the code or the refresh token, where the provider has that
    /// (Smartsheet): the secret itself is never sent.
    Hash,
}

/// What an OAuth app is and proves itself with. Redacts itself.
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

/// Which resources the accounts of a profile serve: at least one.
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

    /// None if there is nothing in it.
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

/// As it is stored: the words, with spaces between.
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
