//! API keys: the credentials of downstream systems that call Rolecall.

use std::{fmt, str::FromStr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::id::{KeyId, ProjectId};

/// A permission of an API key.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
pub enum Scope {
    #[serde(rename = "iam:read")]
    IamRead,
    #[serde(rename = "accounts:read")]
    AccountsRead,
    #[serde(rename = "accounts:write")]
    AccountsWrite,
    #[serde(rename = "accounts:assume")]
    AccountsAssume,
    #[serde(rename = "profiles:write")]
    ProfilesWrite,
    #[serde(rename = "walks:write")]
    WalksWrite,
    #[serde(rename = "admin")]
    Admin,
}

impl Scope {
    pub const ALL: [Scope; 7] = [
        Scope::IamRead,
        Scope::AccountsRead,
        Scope::AccountsWrite,
        Scope::AccountsAssume,
        Scope::ProfilesWrite,
        Scope::WalksWrite,
        Scope::Admin,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Scope::IamRead => "iam:read",
            Scope::AccountsRead => "accounts:read",
            Scope::AccountsWrite => "accounts:write",
            Scope::AccountsAssume => "accounts:assume",
            Scope::ProfilesWrite => "profiles:write",
            Scope::WalksWrite => "walks:write",
            Scope::Admin => "admin",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        Scope::ALL
            .into_iter()
            .find(|scope| scope.as_str() == text)
            .ok_or(UnknownScope)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown scope; the scopes are {}", Scope::ALL.map(Scope::as_str).join(", "))]
pub struct UnknownScope;

/// The label of a key: 1 to 255 characters, not all of them spaces, without control characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyLabel(String);

impl KeyLabel {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for KeyLabel {
    type Err = InvalidLabel;

    fn from_str(text: &str) -> Result<Self, InvalidLabel> {
        let is_fitting = !text.trim().is_empty()
            && text.chars().count() <= 255
            && !text.chars().any(char::is_control);
        if is_fitting {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidLabel)
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a label is 1 to 255 characters, not all of them spaces, and without control characters")]
pub struct InvalidLabel;

/// The attributes of a key to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewKey {
    pub label: Option<KeyLabel>,
    pub scopes: Vec<Scope>,
    /// When the key expires; None is never.
    pub expires_at: Option<Timestamp>,
}

impl NewKey {
    /// A key without a label that does not expire.
    pub fn with_scopes(scopes: &[Scope]) -> Self {
        Self {
            label: None,
            scopes: scopes.to_vec(),
            expires_at: None,
        }
    }
}

/// A change to a key; None leaves a field unchanged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyChange {
    /// `Some(None)` removes the label.
    pub label: Option<Option<KeyLabel>>,
    /// The new expiry. An existing expiry can only be brought forward.
    pub expires_at: Option<Timestamp>,
}

/// Whether a key is accepted, and if not, why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeyStatus {
    Active,
    Expired,
    Revoked,
}

impl KeyStatus {
    pub const fn as_str(self) -> &'static str {
        match self {
            KeyStatus::Active => "active",
            KeyStatus::Expired => "expired",
            KeyStatus::Revoked => "revoked",
        }
    }
}

/// An API key as stored, without the key itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    pub id: KeyId,
    pub project: ProjectId,
    /// Empty if the key has no label.
    pub label: String,
    pub scopes: Vec<Scope>,
    /// SHA-256 of the whole key.
    pub digest: [u8; 32],
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
    pub revoked_at: Option<Timestamp>,
    /// The key that created this one; None if the command line did.
    pub created_by: Option<KeyId>,
}

impl ApiKey {
    pub fn status_at(&self, now: Timestamp) -> KeyStatus {
        if self.revoked_at.is_some() {
            KeyStatus::Revoked
        } else if self.expires_at.is_some_and(|end| end <= now) {
            KeyStatus::Expired
        } else {
            KeyStatus::Active
        }
    }

    pub fn allows(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_words_for_people() {
        let longest = "é".repeat(255);
        for good in ["HR feed", "ключ №1", " a", &longest] {
            assert_eq!(good.parse::<KeyLabel>().unwrap().as_str(), good);
        }
        let too_long = "é".repeat(256);
        for bad in [
            "",
            "  ",
            "\u{a0}\u{2003}",
            "a\nb",
            "a\0",
            "\u{1b}[2J",
            "\u{9b}",
            &too_long,
        ] {
            assert_eq!(bad.parse::<KeyLabel>(), Err(InvalidLabel), "{bad:?}");
        }
    }
}
