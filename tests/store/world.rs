//! What the tests store: small records with a canary in every field that must be sealed.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_STANDARD_NO_PAD, prelude::BASE64_URL_SAFE_NO_PAD};
use jiff::Timestamp;
use rolecall::{
    clock::Clock,
    crypto::{ApiKeySecret, KeyRing, LiveRing, Rng},
    model::{
        accounts::{Account, AccountKind, AccountStatus, Credential, Endpoint, Region},
        api_keys::{ApiKey, Scope},
        audit_log::Actor,
        connector_profiles::ActionSet,
        id::{AccountId, ProjectId, RemoteId},
        observed::{Identity, Seats},
        schema::Reason,
        walks::{Quarantined, Walk, WalkCounts, WalkState},
    },
    store::{CredentialRecord, Hold, NewDirectory, OpenError, Store, WalkCommit},
};
use secrecy::{ExposeSecret, SecretString};
use sqlx::{
    ConnectOptions, Connection, PgConnection, SqliteConnection, sqlite::SqliteConnectOptions,
};

pub const TOKEN: &str = "canary-token-7fQ2";
pub const EMAIL: &str = "canary.ada@example.com";
pub const NAME: &str = "Canary Lovelace";

/// A store with the clock that it runs on, and what to make records with.
#[derive(Clone)]
pub struct World {
    pub store: Store,
    pub clock: Clock,
    pub rng: Rng,
    url: String,
    ring: LiveRing,
}

pub fn start() -> Timestamp {
    "2026-11-22T12:00:00Z".parse().unwrap()
}

pub fn ring(id: &str) -> KeyRing {
    KeyRing::generate(id, &Rng::system()).unwrap()
}

pub fn project(name: &str) -> ProjectId {
    name.parse().unwrap()
}

pub fn identity(name: &str) -> Identity {
    Identity {
        user: RemoteId::from("user-1"),
        email: Some(EMAIL.into()),
        name: Some(name.into()),
        organization: RemoteId::from("org-1"),
        organization_name: Some("Canary Organization".into()),
        is_admin: true,
        seats: Seats::Hidden(Reason::NotPermitted),
    }
}

pub fn credential() -> Credential {
    Credential::AccessToken(SecretString::from(TOKEN))
}

pub fn exposed(credential: &Credential) -> &str {
    credential.access_token().expose_secret()
}

/// What is stored of a credential, as its access token and generation.
pub async fn credential_of(store: &Store, project: &ProjectId, id: AccountId) -> (String, u64) {
    let stored = store.credential(project, id).await.unwrap().unwrap();
    (exposed(&stored.credential).to_owned(), stored.generation)
}

/// A writer behind the store's back that has not committed yet.
pub enum RawWriter {
    Sqlite(SqliteConnection),
    Postgres(PgConnection, String),
}

impl RawWriter {
    /// Commits once the store waits for what was written. PostgreSQL tells of that; with SQLite, whose
    /// writers wait without a word, it is given many turns.
    pub async fn commit_once_awaited(self) {
        match self {
            Self::Sqlite(mut connection) => {
                for _ in 0..20_000 {
                    tokio::task::yield_now().await;
                }
                let done = sqlx::raw_sql("commit").execute(&mut connection).await;
                done.unwrap();
                connection.close().await.unwrap();
            }
            Self::Postgres(mut connection, url) => {
                let mut other = PgConnection::connect(&url).await.unwrap();
                let own: i32 = sqlx::query_scalar("select pg_backend_pid()")
                    .fetch_one(&mut connection)
                    .await
                    .unwrap();
                let waits = "select count(*) from pg_stat_activity
                             where $1 = any(pg_blocking_pids(pid))";
                while sqlx::query_scalar::<_, i64>(waits)
                    .bind(own)
                    .fetch_one(&mut other)
                    .await
                    .unwrap()
                    == 0
                {
                    tokio::task::yield_now().await;
                }
                let done = sqlx::raw_sql("commit").execute(&mut connection).await;
                done.unwrap();
                connection.close().await.unwrap();
                other.close().await.unwrap();
            }
        }
    }
}

impl World {
    /// Begins a write behind the store's back.
    pub async fn begin_raw(&self, statement: &str) -> RawWriter {
        let statement = sqlx::AssertSqlSafe(statement.to_owned());
        if let Some(path) = self.url.strip_prefix("sqlite://") {
            let options = SqliteConnectOptions::new().filename(path);
            let mut connection = options.connect().await.unwrap();
            let begun = sqlx::raw_sql("begin immediate").execute(&mut connection);
            begun.await.unwrap();
            let done = sqlx::raw_sql(statement).execute(&mut connection).await;
            done.unwrap();
            RawWriter::Sqlite(connection)
        } else {
            let mut connection = PgConnection::connect(&self.url).await.unwrap();
            let begun = sqlx::raw_sql("begin").execute(&mut connection);
            begun.await.unwrap();
            let done = sqlx::raw_sql(statement).execute(&mut connection).await;
            done.unwrap();
            RawWriter::Postgres(connection, self.url.clone())
        }
    }

    pub async fn open(url: &str, ring: &KeyRing) -> Result<Self, OpenError> {
        Self::open_live(url, ring.clone().into()).await
    }

    pub async fn open_live(url: &str, ring: LiveRing) -> Result<Self, OpenError> {
        let clock = Clock::skipping(start());
        Ok(Self {
            store: Store::open(url, ring.clone(), clock.clone()).await?,
            clock,
            rng: Rng::system(),
            url: url.to_owned(),
            ring,
        })
    }

    /// The same database as another process has it open.
    pub async fn another(&self) -> Self {
        let store = Store::open(&self.url, self.ring.clone(), self.clock.clone()).await;
        Self {
            store: store.unwrap(),
            ..self.clone()
        }
    }

    /// Sets a moment of an account's credential behind the store's back.
    pub async fn set(&self, account: &Account, column: &str, moment: Timestamp) {
        self.run(&format!(
            "update credentials set {column} = {} where account = '{}'",
            moment.as_millisecond(),
            account.id
        ))
        .await;
    }

    /// Runs statements behind the store's back.
    pub async fn run(&self, statements: &str) {
        let statements = sqlx::AssertSqlSafe(statements.to_owned());
        if let Some(path) = self.url.strip_prefix("sqlite://") {
            let options = SqliteConnectOptions::new().filename(path);
            let mut connection = options.foreign_keys(false).connect().await.unwrap();
            let done = sqlx::raw_sql(statements).execute(&mut connection).await;
            done.unwrap();
            connection.close().await.unwrap();
        } else {
            let mut connection = PgConnection::connect(&self.url).await.unwrap();
            let done = sqlx::raw_sql(statements).execute(&mut connection).await;
            done.unwrap();
            connection.close().await.unwrap();
        }
    }

    /// A text that is stored. `hex_of` stands for each database's own function for bytes.
    pub async fn text(&self, query: &str) -> String {
        if let Some(path) = self.url.strip_prefix("sqlite://") {
            let query = sqlx::AssertSqlSafe(query.replace("hex_of(", "hex("));
            let options = SqliteConnectOptions::new().filename(path);
            let mut connection = options.connect().await.unwrap();
            let text = sqlx::query_scalar(query).fetch_one(&mut connection).await;
            connection.close().await.unwrap();
            text.unwrap()
        } else {
            let query = query.replace("hex_of(sealed)", "encode(sealed, 'hex')");
            let query = sqlx::AssertSqlSafe(query);
            let mut connection = PgConnection::connect(&self.url).await.unwrap();
            let text = sqlx::query_scalar(query).fetch_one(&mut connection).await;
            connection.close().await.unwrap();
            text.unwrap()
        }
    }

    /// A number that is stored.
    pub async fn number(&self, query: &str) -> i64 {
        let query = sqlx::AssertSqlSafe(query.to_owned());
        if let Some(path) = self.url.strip_prefix("sqlite://") {
            let options = SqliteConnectOptions::new().filename(path);
            let mut connection = options.connect().await.unwrap();
            let number = sqlx::query_scalar(query).fetch_one(&mut connection).await;
            connection.close().await.unwrap();
            number.unwrap()
        } else {
            let mut connection = PgConnection::connect(&self.url).await.unwrap();
            let number = sqlx::query_scalar(query).fetch_one(&mut connection).await;
            connection.close().await.unwrap();
            number.unwrap()
        }
    }

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

    pub fn new_key(&self, project: &ProjectId) -> (ApiKeySecret, ApiKey) {
        let now = self.clock.now();
        let text = ApiKeySecret::generate(self.rng.id(now), &self.rng);
        let key = ApiKey {
            id: text.id(),
            project: project.clone(),
            label: "nightly export".into(),
            scopes: vec![Scope::IamRead, Scope::Admin],
            digest: text.digest(),
            created_at: now,
            expires_at: Some(now + Duration::from_secs(60)),
            revoked_at: None,
            created_by: None,
        };
        (text, key)
    }

    pub fn new_account(&self, project: &ProjectId) -> Account {
        let now = self.clock.now();
        Account {
            id: self.rng.id(now),
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
            assume_user: None,
            held_walk: None,
            credential: None,
            actions: ActionSet::ALL,
            created_at: now,
            updated_at: now,
        }
    }

    pub async fn account(&self, project: &ProjectId) -> Account {
        let account = self.new_account(project);
        self.store
            .insert_account(
                &account,
                &CredentialRecord::personal(&credential()),
                Actor::Operator,
            )
            .await
            .unwrap();
        // As it is read: with what is to be known of its credential.
        let stored = self.store.account(project, account.id).await.unwrap();
        stored.unwrap()
    }

    pub fn new_walk(&self, account: AccountId, state: WalkState) -> Walk {
        self.tick();
        let now = self.clock.now();
        Walk {
            id: self.rng.id(now),
            account,
            state,
            reason: None,
            directory_version: None,
            counts: Some(WalkCounts {
                users: 3,
                groups: 2,
                roles: 1,
            }),
            quarantined: Quarantined {
                users: 2,
                groups: 1,
            },
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
                hold: Some(Hold {
                    suspects: 7,
                    is_repeated: false,
                }),
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
        lineage: None,
        walk,
        judged_against: None,
        directory: None,
        verified_at: None,
        evidence: None,
        candidate: None,
        suspects: None,
        hold: None,
        supersedes_held: false,
        account_state: None,
        decision: None,
    }
}

/// A project with an account of which everything is stored that can be.
pub async fn furnish(world: &World, project: &str) -> Account {
    let project = world.project(project).await;
    let account = world.account(&project).await;
    let content = format!("[{EMAIL}] and [{NAME}]").repeat(50);
    world.seal(&account, 1, content.as_bytes()).await;
    world.seal(&account, 2, content.as_bytes()).await;
    let walk = world.new_walk(account.id, WalkState::Held);
    world
        .store
        .commit_walk(WalkCommit {
            evidence: Some(content.as_bytes()),
            candidate: Some(content.as_bytes()),
            suspects: Some(content.as_bytes()),
            ..ends(&project, &walk)
        })
        .await
        .unwrap();
    account
}

pub fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|at| at == text.as_bytes())
}

/// A text as it is, in hex, and in base64 at each of the three offsets it may have there.
pub fn spellings(text: &str) -> Vec<String> {
    let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
    let mut all = vec![text.to_owned(), hex.to_uppercase(), hex];
    for offset in 0..3 {
        let shifted = [&vec![0; offset], text.as_bytes()].concat();
        let inside = (offset * 8).div_ceil(6)..shifted.len() * 8 / 6;
        all.push(BASE64_STANDARD_NO_PAD.encode(&shifted)[inside.clone()].to_owned());
        all.push(BASE64_URL_SAFE_NO_PAD.encode(&shifted)[inside].to_owned());
    }
    all
}
