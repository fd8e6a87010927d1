//! Events of the audit log, and their entries.
//!
//! An [`Event`] is one action of one actor on one subject; an [`AuditEntry`] is that event with its
//! position in a project's log. Neither holds a secret, a name or an e-mail address: only ids and
//! codes.

use std::{collections::BTreeMap, fmt, str::FromStr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    id::{AccountId, KeyId, ProjectId},
    timestamp,
};

/// An event with its position in the log of its project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// From 1, without gaps.
    pub seq: u64,
    /// By the clock of the process that wrote it; `seq` gives the order.
    pub at: Timestamp,
    pub event: Event,
}

/// One action of one actor on one subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub actor: Actor,
    pub action: AuditAction,
    pub subject: Subject,
    pub detail: Detail,
}

impl Event {
    pub fn new(actor: Actor, action: AuditAction, subject: impl Into<Subject>) -> Self {
        Self {
            actor,
            action,
            subject: subject.into(),
            detail: Detail::default(),
        }
    }

    /// Adds a value to the detail. A value that is not plain (see [`Detail`]) becomes `other`: a
    /// provider's code may be any text, and refusing it would lose the event.
    #[must_use]
    pub fn with(mut self, name: &'static str, word: impl fmt::Display) -> Self {
        let word = word.to_string();
        let word = if is_plain(&word) {
            word
        } else {
            Detail::OTHER.to_owned()
        };
        self.detail.0.insert(name.to_owned(), word);
        self
    }
}

/// Selects entries; None matches all.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    pub action: Option<AuditAction>,
    pub subject_id: Option<String>,
}

/// The actor of an event. A request carries it from authentication to the write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Actor {
    ApiKey(KeyId),
    /// The command line.
    Operator,
    /// A customer, by the number of the connect session; below 2^53.
    ConnectSession(u64),
    /// Rolecall itself.
    System,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = AuditActorKind)]
pub enum ActorKind {
    ApiKey,
    Operator,
    ConnectSession,
    System,
}

impl ActorKind {
    pub const fn as_str(self) -> &'static str {
        match self {
            ActorKind::ApiKey => "api_key",
            ActorKind::Operator => "operator",
            ActorKind::ConnectSession => "connect_session",
            ActorKind::System => "system",
        }
    }
}

impl Actor {
    pub const fn kind(self) -> ActorKind {
        match self {
            Actor::ApiKey(_) => ActorKind::ApiKey,
            Actor::Operator => ActorKind::Operator,
            Actor::ConnectSession(_) => ActorKind::ConnectSession,
            Actor::System => ActorKind::System,
        }
    }

    /// The id of the actor, for a kind that has several.
    pub fn id(self) -> Option<String> {
        match self {
            Actor::ApiKey(key) => Some(key.to_string()),
            Actor::ConnectSession(number) => Some(number.to_string()),
            Actor::Operator | Actor::System => None,
        }
    }

    /// The actor of this kind and id; None if the pair is invalid.
    pub fn of(kind: ActorKind, id: Option<&str>) -> Option<Self> {
        match (kind, id) {
            (ActorKind::ApiKey, Some(id)) => id.parse().ok().map(Actor::ApiKey),
            (ActorKind::ConnectSession, Some(id)) => id.parse().ok().map(Actor::ConnectSession),
            (ActorKind::Operator, None) => Some(Actor::Operator),
            (ActorKind::System, None) => Some(Actor::System),
            _ => None,
        }
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind().as_str())?;
        match self.id() {
            Some(id) => write!(f, ":{id}"),
            None => Ok(()),
        }
    }
}

/// The action of an audit event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub enum AuditAction {
    #[serde(rename = "account.linked")]
    AccountLinked,
    #[serde(rename = "account.updated")]
    AccountUpdated,
    #[serde(rename = "account.disconnected")]
    AccountDisconnected,
    #[serde(rename = "account.purged")]
    AccountPurged,
    /// The stored credential was decrypted to call the provider.
    #[serde(rename = "credential.used")]
    CredentialUsed,
    #[serde(rename = "credential.replaced")]
    CredentialReplaced,
    #[serde(rename = "credential.refreshed")]
    CredentialRefreshed,
    #[serde(rename = "credential.refresh_refused")]
    CredentialRefreshRefused,
    #[serde(rename = "credential.uncertain")]
    CredentialUncertain,
    #[serde(rename = "credential.reauth_required")]
    CredentialReauthRequired,
    #[serde(rename = "credential.exported")]
    CredentialExported,
    #[serde(rename = "credential.imported")]
    CredentialImported,
    #[serde(rename = "credential.taken_back")]
    CredentialTakenBack,
    #[serde(rename = "credential.revoked")]
    CredentialRevoked,
    #[serde(rename = "credential.revoke_refused")]
    CredentialRevokeRefused,
    #[serde(rename = "walk.released")]
    WalkReleased,
    #[serde(rename = "walk.discarded")]
    WalkDiscarded,
    #[serde(rename = "profile.created")]
    ProfileCreated,
    #[serde(rename = "profile.updated")]
    ProfileUpdated,
    #[serde(rename = "profile.disabled")]
    ProfileDisabled,
    #[serde(rename = "profile.enabled")]
    ProfileEnabled,
    #[serde(rename = "api_key.created")]
    ApiKeyCreated,
    #[serde(rename = "api_key.updated")]
    ApiKeyUpdated,
    #[serde(rename = "api_key.revoked")]
    ApiKeyRevoked,
    #[serde(rename = "connect_session.created")]
    ConnectSessionCreated,
    #[serde(rename = "connect_session.linked")]
    ConnectSessionLinked,
    #[serde(rename = "project.created")]
    ProjectCreated,
    #[serde(rename = "project.updated")]
    ProjectUpdated,
    #[serde(rename = "project.deleted")]
    ProjectDeleted,
    /// The project's secrets were bound to their destinations and its API keys were signed, by the
    /// first process of a version that does so.
    #[serde(rename = "project.upgraded")]
    ProjectUpgraded,
    #[serde(rename = "data_key.rewrapped")]
    DataKeyRewrapped,
}

impl AuditAction {
    pub const ALL: [AuditAction; 31] = [
        AuditAction::AccountLinked,
        AuditAction::AccountUpdated,
        AuditAction::AccountDisconnected,
        AuditAction::AccountPurged,
        AuditAction::CredentialUsed,
        AuditAction::CredentialReplaced,
        AuditAction::CredentialRefreshed,
        AuditAction::CredentialRefreshRefused,
        AuditAction::CredentialUncertain,
        AuditAction::CredentialReauthRequired,
        AuditAction::CredentialExported,
        AuditAction::CredentialImported,
        AuditAction::CredentialTakenBack,
        AuditAction::CredentialRevoked,
        AuditAction::CredentialRevokeRefused,
        AuditAction::WalkReleased,
        AuditAction::WalkDiscarded,
        AuditAction::ProfileCreated,
        AuditAction::ProfileUpdated,
        AuditAction::ProfileDisabled,
        AuditAction::ProfileEnabled,
        AuditAction::ApiKeyCreated,
        AuditAction::ApiKeyUpdated,
        AuditAction::ApiKeyRevoked,
        AuditAction::ConnectSessionCreated,
        AuditAction::ConnectSessionLinked,
        AuditAction::ProjectCreated,
        AuditAction::ProjectUpdated,
        AuditAction::ProjectDeleted,
        AuditAction::ProjectUpgraded,
        AuditAction::DataKeyRewrapped,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            AuditAction::AccountLinked => "account.linked",
            AuditAction::AccountUpdated => "account.updated",
            AuditAction::AccountDisconnected => "account.disconnected",
            AuditAction::AccountPurged => "account.purged",
            AuditAction::CredentialUsed => "credential.used",
            AuditAction::CredentialReplaced => "credential.replaced",
            AuditAction::CredentialRefreshed => "credential.refreshed",
            AuditAction::CredentialRefreshRefused => "credential.refresh_refused",
            AuditAction::CredentialUncertain => "credential.uncertain",
            AuditAction::CredentialReauthRequired => "credential.reauth_required",
            AuditAction::CredentialExported => "credential.exported",
            AuditAction::CredentialImported => "credential.imported",
            AuditAction::CredentialTakenBack => "credential.taken_back",
            AuditAction::CredentialRevoked => "credential.revoked",
            AuditAction::CredentialRevokeRefused => "credential.revoke_refused",
            AuditAction::WalkReleased => "walk.released",
            AuditAction::WalkDiscarded => "walk.discarded",
            AuditAction::ProfileCreated => "profile.created",
            AuditAction::ProfileUpdated => "profile.updated",
            AuditAction::ProfileDisabled => "profile.disabled",
            AuditAction::ProfileEnabled => "profile.enabled",
            AuditAction::ApiKeyCreated => "api_key.created",
            AuditAction::ApiKeyUpdated => "api_key.updated",
            AuditAction::ApiKeyRevoked => "api_key.revoked",
            AuditAction::ConnectSessionCreated => "connect_session.created",
            AuditAction::ConnectSessionLinked => "connect_session.linked",
            AuditAction::ProjectCreated => "project.created",
            AuditAction::ProjectUpdated => "project.updated",
            AuditAction::ProjectDeleted => "project.deleted",
            AuditAction::ProjectUpgraded => "project.upgraded",
            AuditAction::DataKeyRewrapped => "data_key.rewrapped",
        }
    }
}

impl fmt::Display for AuditAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for AuditAction {
    type Err = UnknownAuditAction;

    fn from_str(text: &str) -> Result<Self, UnknownAuditAction> {
        let mut all = AuditAction::ALL.into_iter();
        all.find(|action| action.as_str() == text)
            .ok_or(UnknownAuditAction)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown action")]
pub struct UnknownAuditAction;

/// The object of an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    pub kind: SubjectKind,
    pub id: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = AuditSubjectKind)]
pub enum SubjectKind {
    Account,
    /// A connector profile.
    Profile,
    ApiKey,
    ConnectSession,
    Project,
    DataKey,
}

impl SubjectKind {
    pub const fn as_str(self) -> &'static str {
        match self {
            SubjectKind::Account => "account",
            SubjectKind::Profile => "profile",
            SubjectKind::ApiKey => "api_key",
            SubjectKind::ConnectSession => "connect_session",
            SubjectKind::Project => "project",
            SubjectKind::DataKey => "data_key",
        }
    }
}

impl Subject {
    pub fn new(kind: SubjectKind, id: impl fmt::Display) -> Self {
        let id = id.to_string();
        Self { kind, id }
    }
}

impl From<AccountId> for Subject {
    fn from(id: AccountId) -> Self {
        Self::new(SubjectKind::Account, id)
    }
}

impl From<KeyId> for Subject {
    fn from(id: KeyId) -> Self {
        Self::new(SubjectKind::ApiKey, id)
    }
}

impl From<&ProjectId> for Subject {
    fn from(id: &ProjectId) -> Self {
        Self::new(SubjectKind::Project, id)
    }
}

/// Additional values of an event, by name. A value is 1 to 100 ASCII letters, digits and `_.:,-`,
/// so that neither an e-mail address nor a sentence fits. Never a secret or a name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Detail(BTreeMap<String, String>);

impl Detail {
    /// Replaces a value that is not plain.
    const OTHER: &str = "other";

    /// The values, ordered by name.
    pub fn words(&self) -> &BTreeMap<String, String> {
        &self.0
    }

    /// The values as the API serves them: a value named `…_at` gets the format of every served
    /// timestamp. The stored entry keeps its original form, because entries are never rewritten.
    pub fn served(mut self) -> BTreeMap<String, String> {
        for (name, word) in &mut self.0 {
            if name.ends_with("_at")
                && let Ok(time) = word.parse()
            {
                *word = timestamp::display(time).to_string();
            }
        }
        self.0
    }
}

fn is_plain(word: &str) -> bool {
    (1..=100).contains(&word.len())
        && word
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_.:,-".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::Id;

    #[test]
    fn every_action_has_one_spelling_of_its_own() {
        for action in AuditAction::ALL {
            let json = serde_json::to_value(action).unwrap();
            assert_eq!(json, action.as_str());
            assert_eq!(action.as_str().parse(), Ok(action));
        }
        assert_eq!(
            "account.Linked".parse::<AuditAction>(),
            Err(UnknownAuditAction)
        );
    }

    #[test]
    fn a_time_in_the_detail_is_served_in_the_form_of_all() {
        let subject = Subject::new(SubjectKind::ApiKey, "k");
        let at: Timestamp = "2026-11-22T12:01:00Z".parse().unwrap();
        let event = Event::new(Actor::Operator, AuditAction::ApiKeyCreated, subject)
            .with("expires_at", at)
            .with("scopes", "admin");
        let served = event.detail.served();
        assert_eq!(served["expires_at"], "2026-11-22T12:01:00.000Z");
        assert_eq!(served["scopes"], "admin");
    }

    #[test]
    fn an_actor_reads_back_from_its_kind_and_id() {
        let key = Id::from_uuid(uuid::Uuid::from_u128(7));
        for actor in [
            Actor::ApiKey(key),
            Actor::Operator,
            Actor::ConnectSession((1 << 53) - 1),
            Actor::System,
        ] {
            let id = actor.id();
            assert_eq!(Actor::of(actor.kind(), id.as_deref()), Some(actor));
            let json = serde_json::to_value(actor.kind()).unwrap();
            assert_eq!(json, actor.kind().as_str());
        }
        assert_eq!(Actor::of(ActorKind::ApiKey, None), None);
        assert_eq!(Actor::of(ActorKind::System, Some("7")), None);
    }

    #[test]
    fn every_kind_of_subject_is_spelled_as_in_json() {
        for kind in [
            SubjectKind::Account,
            SubjectKind::Profile,
            SubjectKind::ApiKey,
            SubjectKind::ConnectSession,
            SubjectKind::Project,
            SubjectKind::DataKey,
        ] {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
    }

    #[test]
    fn a_detail_holds_plain_words_alone() {
        let noted = |word: &str| {
            let project: ProjectId = "own".parse().unwrap();
            let event = Event::new(Actor::System, AuditAction::AccountUpdated, &project);
            event.with("reason", word).detail.words()["reason"].clone()
        };
        for word in [
            "invalid_grant",
            "iam:read,admin",
            "2026-11-22",
            &"a".repeat(100),
        ] {
            assert_eq!(noted(word), word);
        }
        for word in [
            "",
            "ada@example.com",
            "Ada Lovelace",
            "Žofie",
            "a\nb",
            &"a".repeat(101),
        ] {
            assert_eq!(noted(word), "other", "{word}");
        }
    }
}
