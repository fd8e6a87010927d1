//! What the tests store: small records with a canary in every field that must be sealed.

use std::time::Duration;

use jiff::Timestamp;
use rolecall::{
    clock::Clock,
    crypto::{ApiKeyText, Chance, KeyRing},
    model::{
        access::{ApiKey, Scope},
        account::{Account, AccountKind, AccountStatus, Credential, Endpoint, Region},
        id::{AccountId, ProjectId, RemoteId},
        observed::{Identity, Seats},
        schema::Reason,
        walk::{Counts, Walk, WalkState},
    },
    store::{NewDirectory, Store, WalkCommit},
};
use secrecy::{ExposeSecret, SecretString};

pub const TOKEN: &str = "canary-token-7fQ2";
pub const EMAIL: &str = "canary.ada@example.com";
pub const NAME: &str = "Canary Lovelace";

/// A store with the clock that it runs on, and what to make records with.
#[derive(Clone)]
pub struct World {
    pub store: Store,
    pub clock: Clock,
    pub chance: Chance,
}

pub fn start() -> Timestamp {
    "2026-11-22T12:00:00Z".parse().unwrap()
}

pub fn ring(id: &str) -> KeyRing {
    KeyRing::generate(id, &Chance::system()).unwrap()
}

pub fn project(name: &str) -> ProjectId {
    name.parse().unwrap()
}

pub fn identity(name: &str) -> Identity {
    Identity {
        user: RemoteId::from("user-1"),
        email: Some(EMAIL.into()),
        name: Some(name.into()),
        organisation: RemoteId::from("org-1"),
        organisation_name: Some("Canary Organisation".into()),
        is_admin: true,
        seats: Seats::Hidden(Reason::NotPermitted),
    }
}

pub fn credential() -> Credential {
    Credential::AccessToken(SecretString::from(TOKEN))
}

pub fn exposed(credential: &Credential) -> &str {
    let Credential::AccessToken(token) = credential;
    token.expose_secret()
}

impl World {
    pub fn tick(&self) {
        self.clock.advance(Duration::from_millis(1));
    }

    pub async fn project(&self, name: &str) -> ProjectId {
        let project = project(name);
        self.store
            .create_project(&project, self.clock.now())
            .await
            .unwrap();
        project
    }

    pub fn new_key(&self, project: &ProjectId) -> (ApiKeyText, ApiKey) {
        let now = self.clock.now();
        let text = ApiKeyText::generate(self.chance.id(now), &self.chance);
        let key = ApiKey {
            id: text.id(),
            project: project.clone(),
            label: "nightly export".into(),
            scopes: vec![Scope::IamRead, Scope::Admin],
            digest: text.digest(),
            created_at: now,
            expires_at: Some(now + Duration::from_secs(60)),
            revoked_at: None,
        };
        (text, key)
    }

    pub fn new_account(&self, project: &ProjectId) -> Account {
        let now = self.clock.now();
        Account {
            id: self.chance.id(now),
            project: project.clone(),
            provider: "smartsheet".into(),
            origin_owner_id: "customer-1".into(),
            origin_owner_name: NAME.into(),
            origin_username: Some(EMAIL.into()),
            label: Some(NAME.into()),
            kind: AccountKind::Production,
            status: AccountStatus::Active,
            status_reasons: Vec::new(),
            endpoint: Endpoint::Region(Region::Eu),
            identity: identity(NAME),
            created_at: now,
            updated_at: now,
        }
    }

    pub async fn account(&self, project: &ProjectId) -> Account {
        let account = self.new_account(project);
        self.store
            .insert_account(&account, &credential())
            .await
            .unwrap();
        account
    }

    pub fn new_walk(&self, account: AccountId, state: WalkState) -> Walk {
        self.tick();
        let now = self.clock.now();
        Walk {
            id: self.chance.id(now),
            account,
            state,
            reason: None,
            directory_version: None,
            counts: Some(Counts {
                users: 3,
                groups: 2,
                roles: 1,
            }),
            upstream_calls: 9,
            started_at: now,
            ended_at: (state != WalkState::Running).then_some(now),
        }
    }

    /// Seals `version` with a walk of its own.
    pub async fn seal(&self, account: &Account, version: u64, encoded: &[u8]) -> Walk {
        let walk = self.new_walk(account.id, WalkState::Sealed);
        let directory = NewDirectory {
            version,
            encoded,
            sealed_at: self.clock.now(),
        };
        self.store
            .commit_walk(WalkCommit {
                directory: Some(directory),
                verified_at: Some(self.clock.now()),
                supersedes_held: true,
                ..ends(&account.project, &walk)
            })
            .await
            .unwrap();
        walk
    }

    /// Holds a walk that could be released.
    pub async fn hold(&self, account: &Account, candidate: &[u8]) -> Walk {
        let walk = self.new_walk(account.id, WalkState::Held);
        self.store
            .commit_walk(WalkCommit {
                candidate: Some(candidate),
                suspects: Some(b"suspects"),
                ..ends(&account.project, &walk)
            })
            .await
            .unwrap();
        walk
    }
}

/// A commit that changes nothing but the walk.
pub fn ends<'a>(project: &'a ProjectId, walk: &'a Walk) -> WalkCommit<'a> {
    WalkCommit {
        project,
        generation: None,
        walk,
        directory: None,
        verified_at: None,
        evidence: None,
        candidate: None,
        suspects: None,
        supersedes_held: false,
        account_state: None,
    }
}
