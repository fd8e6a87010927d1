//! The database layer: projects, API keys, accounts with their credentials, walks and directories.
//! It is the only module that contains SQL.
//!
//! * **Projects are isolated.** A row that belongs to an account is looked up by project *and*
//!   account, so the row of another project is not found. Only methods for background jobs, the
//!   operator, metrics and the look-up of a secret (API key, link token, `state`, personal access
//!   token) read across projects. One that returns accounts also returns their projects.
//! * **Secrets and personal data are sealed.** Credentials, names, e-mail addresses and all data
//!   from a walk are sealed in this module, under the project's data key and bound to their row
//!   ([`crate::crypto`]); callers pass and get plain values. A field that cannot be decrypted
//!   returns [`Kind::CredentialLocked`]; it is never overwritten and never deleted. A secret that
//!   is sent to a provider is also bound to its destination (`destinations`), and an API key's row
//!   carries a MAC (`key_macs`).
//! * **Writes are atomic.** Each method that writes is one transaction; once it returns, the write
//!   survives a power cut. [`Store::commit_walk`] stores the finished walk, its directory and the
//!   account's new state in one transaction.
//! * **Changes are serialized.** A transaction that changes an account or its walks locks the
//!   account's row first; a refresh locks the credential's row. A transaction that reads and then
//!   writes is therefore correct with any number of processes on one database.
//! * **Only one process redeems a refresh token** ([`Store::begin_refresh`], in `refresh`).
//! * **Changes are audited.** A change of an account, a credential, a connector profile or a key,
//!   and the start of a walk, which uses the credential, add an entry to the project's audit log in
//!   the same transaction (`audit_log`).
//! * **When the database is unavailable**, methods return [`Kind::StoreUnavailable`] with a time
//!   after which to retry. A wait for another process's lock happens inside this module.
//!
//! Scheduling, caching and authorization are elsewhere. Read next: `db` for the differences between
//! the databases, then `open` (with `sqlite` and `postgres`) for the steps before the first query.

use std::{
    collections::HashMap,
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use jiff::Timestamp;
use serde::{Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

use self::{
    db::{Db, Tx},
    journal::Journal,
    open::RowFormat,
    sqlite::SqliteFile,
    workload::Workload,
};
use crate::{
    clock::Clock,
    crypto::{DataKey, LiveRing, MacKey, OpenFault, Rng, SealContext},
    error::{Error, Kind, Result},
    model::{
        availability::Availability,
        id::{AccountId, Id, ProjectId, ReplicaId},
    },
};

mod accounts;
mod audit_log;
mod backup;
mod budgets;
mod condition;
mod connect_sessions;
mod connector_profiles;
mod copy;
mod credentials;
mod db;
mod destinations;
mod directories;
mod inspect;
mod journal;
mod key_macs;
mod key_ring;
mod metrics;
mod open;
mod postgres;
mod projects;
mod refresh;
mod replicas;
mod secrets;
mod sqlite;
mod transfer;
mod upgrade;
mod walks;
mod workload;

pub use self::open::OpenError;
pub use accounts::{AccountState, AccountUpdate, NewCredential};
pub use audit_log::{AuditFault, AuditHead, AuditReport, InvalidAuditHead, Verified};
pub use connect_sessions::{
    Authorization, EndedDraft, NewAuthorization, StateError, StateOwner, StoredDraft,
};
pub use connector_profiles::ProfileApp;
pub use copy::{Copied, CopyError};
pub use credentials::{CountedState, CredentialRecord, HeldElsewhere, IssuedTo, StoredCredential};
pub use destinations::{Client, Destination};
pub use directories::{DirectoryHead, Latest, StoredDirectory};
pub use inspect::{Inspection, JournalFault, JournalFolder};
pub use journal::PendingPair;
pub use key_ring::{FirstKey, ReloadError, Retirement, Rewrapped, RingStanding};
pub use projects::{DeletedProject, HubTargets};
pub use refresh::{
    BeginRefreshResult, CommitPairResult, MAX_UNCERTAIN, REFRESH_LEASE_TIMEOUT, Recovered,
    RefreshFailure, RefreshLease, SECOND_REFUSAL_AFTER, Trigger,
};
pub use replicas::HEARTBEAT_TIMEOUT;
pub use transfer::CredentialExport;
pub use walks::{
    BeginWalkResult, CommitWalkResult, Hold, NewDirectory, ReleasableWalk, Retention, WalkCommit,
};

/// Default limit of valid API keys per project.
const MAX_LIVE_KEYS: u32 = 200;

/// The database. Clones share its connections.
#[derive(Clone)]
pub struct Store {
    db: Db,
    /// The SQLite file; None for PostgreSQL, which many processes may serve.
    file: Option<SqliteFile>,
    /// The id of this process among the replicas that serve the database.
    replica: ReplicaId,
    ring: LiveRing,
    /// Replicas whose last heartbeat lies in the future: the time of that heartbeat, and the
    /// monotonic time at which this process first saw it.
    signs_ahead: Arc<Mutex<HashMap<String, (i64, Duration)>>>,
    /// Serializes reloads of the key file.
    reloading: Arc<tokio::sync::Mutex<()>>,
    clock: Clock,
    rng: Rng,
    retention: Retention,
    max_live_keys: u32,
    journal_path: Option<PathBuf>,
    /// Token pairs that the database could not store. None until this process serves, or while
    /// another process holds the folder.
    journal: Arc<OnceLock<Journal>>,
}

impl Store {
    /// Opens the database at `url`: `sqlite://PATH`, a file that is created if it does not exist,
    /// or `postgres://USER@HOST/DATABASE`, which must exist.
    ///
    /// `ring` must be able to decrypt the stored data: otherwise this returns
    /// [`OpenError::WrongKeys`] and writes nothing. A database of the previous version is upgraded,
    /// unless a process serves it.
    pub async fn open(
        url: &str,
        ring: impl Into<LiveRing>,
        clock: Clock,
    ) -> Result<Self, OpenError> {
        let rng = Rng::system();
        let ring = ring.into();
        let (db, file, format) = match connect(url, &ring, &clock, &rng).await {
            // The key file has changed since it was read. `ring` holds the new keys by now.
            Err(error) if error.is_outdated(&ring) => connect(url, &ring, &clock, &rng).await?,
            outcome => outcome?,
        };
        let store = Self {
            db,
            file,
            replica: rng.id(clock.now()),
            ring,
            signs_ahead: Arc::default(),
            reloading: Arc::default(),
            clock,
            rng,
            retention: Retention::default(),
            max_live_keys: MAX_LIVE_KEYS,
            journal_path: None,
            journal: Arc::default(),
        };
        if format == RowFormat::Before
            && let Err(error) = store.upgrade().await
        {
            store.close().await;
            return Err(error);
        }
        Ok(store)
    }

    /// The same store for the requests of a project, which may use only a part of its connections.
    #[must_use]
    pub fn for_project(&self, project: &ProjectId) -> Self {
        self.with_db(self.db.for_project(project))
    }

    /// The same store for looking up API keys and accounts, which has connections of its own.
    #[must_use]
    pub fn for_lookups(&self) -> Self {
        self.with_db(self.db.for_workload(Workload::Lookup))
    }

    /// The same store for unauthenticated callers and health checks. They read through a part of
    /// the look-up connections, and write one at a time.
    #[must_use]
    pub fn for_unauthenticated(&self) -> Self {
        self.with_db(self.db.for_workload(Workload::Unproven))
    }

    fn with_db(&self, db: Db) -> Self {
        Self { db, ..self.clone() }
    }

    /// Sets the folder of the journal, which keeps token pairs that the database could not store.
    #[must_use]
    pub fn with_journal(mut self, path: PathBuf) -> Self {
        self.journal_path = Some(path);
        self
    }

    /// Names this process and its earlier runs to the other processes on the same database. Empty
    /// for a SQLite file, which has one node.
    fn node(&self) -> &str {
        match self.journal.get() {
            Some(journal) if self.is_shared() => journal.node(),
            _ => "",
        }
    }

    /// Stores a token pair in the journal, for when the database cannot store it. On return it
    /// survives a power cut.
    ///
    /// # Errors
    /// `internal` if this process has no journal, or the disk cannot store the pair either.
    pub fn journal_pair(&self, pair: &PendingPair) -> Result<()> {
        let journal = self.journal.get();
        let journal = journal.ok_or_else(|| Error::internal("this process has no journal"))?;
        journal.put(pair).map_err(Error::internal)
    }

    /// Removes a token pair from the journal.
    pub fn unjournal_pair(&self, pair: &PendingPair) {
        if let Some(journal) = self.journal.get()
            && let Err(error) = journal.remove(pair)
        {
            // The next start finds that the pair is superseded.
            tracing::warn!(%error, "a pair of tokens could not be taken out of the journal");
        }
    }

    /// The token pairs in the journal.
    ///
    /// # Errors
    /// `internal` if the folder cannot be read.
    pub fn journaled_pairs(&self) -> Result<Vec<PendingPair>> {
        match self.journal.get() {
            None => Ok(Vec::new()),
            Some(journal) => journal.pairs().map_err(Error::internal),
        }
    }

    /// Replaces the default retention of superseded directories, walks and candidates.
    #[must_use]
    pub fn with_retention(mut self, retention: Retention) -> Self {
        self.retention = retention;
        self
    }

    /// Replaces the default limit of valid API keys per project.
    #[must_use]
    pub fn with_max_live_keys(mut self, keys: u32) -> Self {
        self.max_live_keys = keys;
        self
    }

    /// Makes this the only process that serves a SQLite file: [`OpenError::InUse`] if another
    /// process serves it. Opening the file beside a server, as the command line does, needs no
    /// claim. PostgreSQL needs none either.
    pub fn claim(&self) -> Result<(), OpenError> {
        self.file.as_ref().map_or(Ok(()), SqliteFile::claim)
    }

    /// Waits for writes in progress, then closes all connections. Afterwards every method returns
    /// [`Kind::StoreUnavailable`].
    pub async fn close(&self) {
        self.db.close().await;
        if let Some(file) = &self.file {
            file.release();
        }
    }

    /// Whether the database can be read and written, by the outcome of the latest statements. This
    /// sends no query.
    pub fn availability(&self) -> Availability {
        self.db.condition().get()
    }

    /// True if the database has answered within the last five seconds.
    pub fn has_answered_recently(&self) -> bool {
        self.db.condition().has_answered_recently()
    }

    /// Makes the pools drop the connections that are open now instead of reusing them, since they
    /// may lead to a database that has stopped.
    pub fn renew_connections(&self) {
        self.db.condition().renew_connections();
    }

    /// Succeeds if the database answers a query.
    pub async fn ping(&self) -> Result<()> {
        self.db
            .fetch::<(i64,), 0>("select cast(1 as bigint)", [])
            .await
            .map(drop)
    }

    /// The key that seals a project's fields; None if there is no such project.
    async fn data_key(&self, project: &ProjectId) -> Result<Option<DataKey>> {
        let key = async || {
            let row = self.db.fetch_one(DATA_KEY, [project.into()]).await?;
            self.unwrapped(project, row)
        };
        match key().await {
            // The ring was reloaded: another replica may have added the key that wraps this one.
            Err(error) if self.may_have_missed_a_key(&error).await => key().await,
            outcome => outcome,
        }
    }

    /// The key that authenticates a project's cursors.
    ///
    /// # Errors
    /// `not_found` if there is no such project.
    pub async fn mac_key(&self, project: &ProjectId) -> Result<MacKey> {
        let key = self.data_key(project).await?;
        key.map(|key| key.mac_key()).ok_or_else(no_such_project)
    }

    /// As [`data_key`](Self::data_key), inside a transaction.
    async fn data_key_in(&self, tx: &mut Tx, project: &ProjectId) -> Result<Option<DataKey>> {
        let row = tx.fetch_one(DATA_KEY, [project.into()]).await?;
        match self.unwrapped(project, row) {
            Err(error) if self.may_have_missed_a_key(&error).await => {
                let row = tx.fetch_one(DATA_KEY, [project.into()]).await?;
                self.unwrapped(project, row)
            }
            outcome => outcome,
        }
    }

    fn unwrapped(
        &self,
        project: &ProjectId,
        row: Option<(String, Vec<u8>)>,
    ) -> Result<Option<DataKey>> {
        let ring = self.ring.current();
        row.map(|(id, wrapped)| {
            DataKey::unwrap(&ring, project.as_str(), &id, &wrapped)
                .map_err(|fault| locked("data key", fault))
        })
        .transpose()
    }
}

/// Excludes deleted projects.
const DATA_KEY: &str = "select data_key_id, sealed_data_key from projects
                        where id = $1 and deleted_at is null";

/// Opens the database at `url` with the current ring.
async fn connect(
    url: &str,
    ring: &LiveRing,
    clock: &Clock,
    rng: &Rng,
) -> Result<(Db, Option<SqliteFile>, RowFormat), OpenError> {
    let ring = ring.current();
    match url.split_once("://") {
        Some(("sqlite", path)) => {
            let file = SqliteFile::new(path)?;
            let (db, format) = file.open(&ring, clock, rng).await?;
            Ok((db, Some(file), format))
        }
        Some(("postgres" | "postgresql", _)) => {
            let (db, format) = postgres::open(url, &ring, clock, rng).await?;
            Ok((db, None, format))
        }
        _ => Err(OpenError::Url),
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("db", &self.db).finish()
    }
}

/// The sealed columns. The name of each is part of the associated data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SealedColumn {
    Credential,
    /// An empty text in place of a destroyed credential; it proves the account's destination.
    Destroyed,
    /// The customer's own OAuth app.
    App,
    /// The client secret of a connector profile's OAuth app.
    ClientSecret,
    /// The `ConnectDetails` of a connect session.
    Details,
    /// A credential that a customer brought to a connect session and has not saved yet.
    Draft,
    /// A pending authorization.
    Authorization,
    Profile,
    Identity,
    Directory,
    Evidence,
    Candidate,
    Suspects,
}

impl SealedColumn {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Credential => "credential",
            Self::Destroyed => "destroyed",
            Self::App => "app",
            Self::ClientSecret => "client_secret",
            Self::Details => "details",
            Self::Draft => "draft",
            Self::Authorization => "authorization",
            Self::Profile => "profile",
            Self::Identity => "identity",
            Self::Directory => "directory",
            Self::Evidence => "evidence",
            Self::Candidate => "candidate",
            Self::Suspects => "suspects",
        }
    }
}

/// Seals and opens the fields of one row. `account` holds the account's id, or the name of another
/// owner such as a connector profile or a connect session.
struct FieldSealer<'a> {
    key: DataKey,
    rng: &'a Rng,
    project: &'a ProjectId,
    account: String,
}

impl<'a> FieldSealer<'a> {
    /// None if there is no such project. It does not check that the account exists.
    async fn of(
        store: &'a Store,
        project: &'a ProjectId,
        account: AccountId,
    ) -> Result<Option<Self>> {
        Ok(store.data_key(project).await?.map(|key| Self {
            key,
            rng: &store.rng,
            project,
            account: account.to_string(),
        }))
    }

    fn seal(&self, field: SealedColumn, generation: &str, text: &[u8]) -> Vec<u8> {
        let place = self.place(field, generation, None);
        self.key.seal(place, text, self.rng)
    }

    fn open(
        &self,
        field: SealedColumn,
        generation: &str,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>> {
        let place = self.place(field, generation, None);
        let opened = self.key.open(place, sealed);
        opened.map_err(|fault| locked(field.as_str(), fault))
    }

    /// Seals a secret and binds it to one destination (`destinations`).
    fn seal_for(
        &self,
        destination: [u8; 32],
        field: SealedColumn,
        generation: &str,
        text: &[u8],
    ) -> Vec<u8> {
        let place = self.place(field, generation, Some(destination));
        self.key.seal(place, text, self.rng)
    }

    /// Opens a secret that is bound to this destination.
    fn open_for(
        &self,
        destination: [u8; 32],
        field: SealedColumn,
        generation: &str,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>> {
        let place = self.place(field, generation, Some(destination));
        let opened = self.key.open(place, sealed);
        opened.map_err(|fault| locked(field.as_str(), fault))
    }

    fn place<'b>(
        &'b self,
        field: SealedColumn,
        generation: &'b str,
        destination: Option<[u8; 32]>,
    ) -> SealContext<'b> {
        SealContext {
            project: self.project.as_str(),
            account: &self.account,
            field: field.as_str(),
            generation,
            destination,
        }
    }
}

fn locked(field: &'static str, fault: OpenFault) -> Error {
    Error::new(
        Kind::CredentialLocked,
        format!("the stored {field} does not open with the present keys"),
    )
    .with_source(fault)
}

/// For a destination that differs from the one that a secret is sealed for.
fn elsewhere(what: &'static str) -> Error {
    Error::new(
        Kind::CredentialLocked,
        format!("the stored {what} is bound to another destination than it would be sent to"),
    )
}

fn no_such_project() -> Error {
    Error::new(Kind::NotFound, "there is no such project")
}

fn no_such_account() -> Error {
    Error::new(Kind::AccountNotFound, "there is no such account")
}

/// Locks the account's row until the transaction ends, so that other changes of the account and its
/// walks wait; false if the project has no such account. The lock is an update that changes
/// nothing, which works in both databases.
async fn lock_account(tx: &mut Tx, project: &ProjectId, account: AccountId) -> Result<bool> {
    let locked = tx
        .execute(
            "update accounts set walked_at = walked_at where project = $1 and id = $2",
            [project.into(), account.into()],
        )
        .await?;
    Ok(locked > 0)
}

/// How far stored times may be ahead of the clock, to allow for the difference between the clocks
/// of two replicas. A time further ahead was stored before the clock was set back.
pub const CLOCK_TOLERANCE: Duration = Duration::from_secs(5);

fn plausible_until(now: Timestamp) -> Result<Timestamp> {
    now.saturating_add(CLOCK_TOLERANCE).map_err(Error::internal)
}

// A column that does not parse was not written by Rolecall. These functions return `internal`.

fn parse_id<T>(text: &str) -> Result<Id<T>> {
    text.parse().map_err(Error::internal)
}

fn parse_project(text: &str) -> Result<ProjectId> {
    text.parse().map_err(Error::internal)
}

fn decode_timestamp(millis: i64) -> Result<Timestamp> {
    Timestamp::from_millisecond(millis).map_err(Error::internal)
}

fn decode_count(count: i64) -> Result<u64> {
    u64::try_from(count).map_err(Error::internal)
}

/// The serialized name of an enum variant, without quotes.
fn word<T: Serialize>(value: &T) -> Result<String> {
    match serde_json::to_value(value).map_err(Error::internal)? {
        serde_json::Value::String(word) => Ok(word),
        other => Err(Error::internal(format!("{other} is no word"))),
    }
}

fn parse_word<T: DeserializeOwned>(word: String) -> Result<T> {
    serde_json::from_value(serde_json::Value::String(word)).map_err(Error::internal)
}

fn json<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(Error::internal)
}

fn decode_json<T: DeserializeOwned>(text: &[u8]) -> Result<T> {
    serde_json::from_slice(text).map_err(Error::internal)
}
