//! What outlives the process: projects, API keys, accounts with their credentials, walks and
//! directories. The only place that knows SQL.
//!
//! * **Whose is it?** Everything that hangs on an account is asked for by project *and*
//!   account; the row of another project is simply not found. Only the scheduler's list of all
//!   accounts and the operator's look-up of one cross projects, and they give the project.
//! * **Nothing secret or personal lies open.** Credentials, names, e-mail addresses and all that
//!   a walk brought are sealed in here, under the project's data key and bound to their row
//!   ([`crate::crypto`]); callers pass and get plain values. What does not open answers
//!   [`Kind::CredentialLocked`] and is left as it is, never overwritten and never deleted. A secret
//!   that is sent is bound to its destination as well (`destinations`), and an API key's row is
//!   signed (`key_macs`).
//! * **Whole or not at all.** Each method that writes is one transaction; on return it survives
//!   a power cut. A finished walk, its directory and the account's new state are one of them
//!   ([`Store::commit_walk`]).
//! * **One after the other.** What changes an account, or anything that hangs on it, locks the
//!   account's row first. So a transaction that reads and then writes is right with any number of
//!   processes on one database.
//! * **One refresh token, one redeemer** ([`Store::begin_refresh`], in `refresh`).
//! * **What was done is told.** Whoever uses a secret, or changes an account or a key, says so in
//!   the project's audit log, in the same transaction (`audit_log`).
//! * **When the database is away**, methods answer [`Kind::StoreUnavailable`] with a time to
//!   come back; that another process holds a lock is waited out in here.
//!
//! Not here: when to walk, what to keep in memory, who may ask. Read next: `db` for what
//! differs between databases, `open` (with `sqlite` and `postgres`) for what happens before the
//! first query.

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
    ASKED_AGAIN_AFTER, BeginRefreshResult, CommitPairResult, DOUBT_LASTS, Recovered,
    RefreshFailure, RefreshLease, TAKEN_OVER_AFTER, Trigger,
};
pub use replicas::DEAD_AFTER;
pub use transfer::CredentialExport;
pub use walks::{
    BeginWalkResult, CommitWalkResult, HeldWalk, Hold, NewDirectory, Retention, WalkCommit,
};

/// API keys of a project that may be valid at the same time, unless the settings have another number.
const MAX_LIVE_KEYS: u32 = 200;

/// The database. Clones share its connections.
#[derive(Clone)]
pub struct Store {
    db: Db,
    /// None for a database that many processes may serve.
    file: Option<SqliteFile>,
    /// This process among those that serve the database.
    replica: ReplicaId,
    ring: LiveRing,
    /// Replicas whose last sign of life lies in the future, and since when that one is known, by
    /// the monotonic clock.
    signs_ahead: Arc<Mutex<HashMap<String, (i64, Duration)>>>,
    /// Held while the key file is looked at.
    reloading: Arc<tokio::sync::Mutex<()>>,
    clock: Clock,
    rng: Rng,
    retention: Retention,
    max_live_keys: u32,
    journal_path: Option<PathBuf>,
    /// Where pairs wait that the database does not take; None until this process serves, or where
    /// another has it.
    journal: Arc<OnceLock<Journal>>,
}

impl Store {
    /// Opens the database at `url`: `sqlite://PATH`, a file that is made if there is none, or
    /// `postgres://USER@HOST/DATABASE`, which must be there.
    ///
    /// `ring` must be able to open what is stored: otherwise [`OpenError::WrongKeys`], and
    /// nothing was written. A database of the version before is brought up to date, unless a process
    /// serves it.
    pub async fn open(
        url: &str,
        ring: impl Into<LiveRing>,
        clock: Clock,
    ) -> Result<Self, OpenError> {
        let rng = Rng::system();
        let ring = ring.into();
        let (db, file, format) = match connect(url, &ring, &clock, &rng).await {
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

    /// The same store, for the requests of a project: they use a part of its connections.
    #[must_use]
    pub fn for_project(&self, project: &ProjectId) -> Self {
        self.with_db(self.db.for_project(project))
    }

    /// The same store, for looking up API keys and accounts, which has connections of its own.
    #[must_use]
    pub fn for_lookups(&self) -> Self {
        self.with_db(self.db.for_workload(Workload::Lookup))
    }

    /// The same store, for callers who have not proven anything, and health checks: they read through a
    /// part of the connections for look-ups, and write one after the other.
    #[must_use]
    pub fn for_unproven(&self) -> Self {
        self.with_db(self.db.for_workload(Workload::Unproven))
    }

    fn with_db(&self, db: Db) -> Self {
        Self { db, ..self.clone() }
    }

    /// Has pairs of tokens that the database does not take wait in this folder.
    #[must_use]
    pub fn with_journal(mut self, path: PathBuf) -> Self {
        self.journal_path = Some(path);
        self
    }

    /// What this process and its earlier runs are known by to others on the same database. A
    /// SQLite file has one node.
    fn node(&self) -> &str {
        match self.journal.get() {
            Some(journal) if self.is_shared() => journal.node(),
            _ => "",
        }
    }

    /// Keeps a pair that the database does not take. On return it survives a power cut.
    ///
    /// # Errors
    /// Where there is no journal, or the disk does not take it either.
    pub fn journal_pair(&self, pair: &PendingPair) -> Result<()> {
        let journal = self.journal.get();
        let journal = journal.ok_or_else(|| Error::internal("this process has no journal"))?;
        journal.put(pair).map_err(Error::internal)
    }

    /// Takes a pair out of the journal that need not wait there any more.
    pub fn unjournal_pair(&self, pair: &PendingPair) {
        if let Some(journal) = self.journal.get()
            && let Err(error) = journal.remove(pair)
        {
            // It is found superseded with the next start.
            tracing::warn!(%error, "a pair of tokens could not be taken out of the journal");
        }
    }

    /// The pairs that wait.
    ///
    /// # Errors
    /// What the file system says.
    pub fn journaled_pairs(&self) -> Result<Vec<PendingPair>> {
        match self.journal.get() {
            None => Ok(Vec::new()),
            Some(journal) => journal.pairs().map_err(Error::internal),
        }
    }

    /// Keeps other than the default amount of what is past.
    #[must_use]
    pub fn with_retention(mut self, retention: Retention) -> Self {
        self.retention = retention;
        self
    }

    /// Has a project have other than the default number of valid API keys at most.
    #[must_use]
    pub fn with_max_live_keys(mut self, keys: u32) -> Self {
        self.max_live_keys = keys;
        self
    }

    /// Makes this the one process that serves a SQLite file: [`OpenError::InUse`] if there is
    /// another. Opening it beside a server, as the command line does, needs no claim, and neither
    /// does PostgreSQL.
    pub fn claim(&self) -> Result<(), OpenError> {
        self.file.as_ref().map_or(Ok(()), SqliteFile::claim)
    }

    /// Lets writes under way end and closes all connections. Afterwards every method answers
    /// [`Kind::StoreUnavailable`].
    pub async fn close(&self) {
        self.db.close().await;
        if let Some(file) = &self.file {
            file.release();
        }
    }

    /// What the database can be used for, as its last answers say; nothing is asked for this.
    pub fn availability(&self) -> Availability {
        self.db.condition().get()
    }

    /// Whether the database has answered within the last few seconds.
    pub fn has_answered_recently(&self) -> bool {
        self.db.condition().has_answered_recently()
    }

    /// Has connections that are open now dropped instead of used again, since they may lead to a
    /// database that is gone.
    pub fn renew_connections(&self) {
        self.db.condition().renew_connections();
    }

    /// Answers if the database does.
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
            Err(error) if self.may_have_missed_a_key(&error).await => key().await,
            outcome => outcome,
        }
    }

    /// The key that authenticates cursors for the callers of a project.
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

/// Of a project that was not deleted.
const DATA_KEY: &str = "select data_key_id, sealed_data_key from projects
                        where id = $1 and deleted_at is null";

/// Opens what is at `url` with the ring of this moment.
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

/// What is sealed, each by the name that binds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SealedColumn {
    Credential,
    /// What is left of a credential that was destroyed.
    Destroyed,
    /// The customer's own app.
    App,
    /// The secret of a connector profile's app.
    ClientSecret,
    /// What is said of a connect session in words.
    Details,
    /// What a customer brought that is not saved yet.
    Draft,
    /// A sign-in under way.
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

/// An account's fields on their way into the database and out of it.
struct FieldSealer<'a> {
    key: DataKey,
    rng: &'a Rng,
    project: &'a ProjectId,
    account: String,
}

impl<'a> FieldSealer<'a> {
    /// None if there is no such project; whether there is such an account is not asked.
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

    /// Seals a secret for one destination (`destinations`).
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

    /// Opens a secret that was sealed for this destination.
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

/// Two rows that name different destinations, though each is sealed for its own.
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

/// Makes whoever else would change this account, or what hangs on it, wait until the transaction
/// has ended; false if the project has no such account. By a write that changes nothing, which
/// every database understands.
async fn lock_account(tx: &mut Tx, project: &ProjectId, account: AccountId) -> Result<bool> {
    let locked = tx
        .execute(
            "update accounts set walked_at = walked_at where project = $1 and id = $2",
            [project.into(), account.into()],
        )
        .await?;
    Ok(locked > 0)
}

/// How far stored moments may be ahead of the clock: as much as the clocks of two replicas differ.
/// What is further ahead was stored before the date was set back.
pub const CLOCK_TOLERANCE: Duration = Duration::from_secs(5);

fn plausible_until(now: Timestamp) -> Result<Timestamp> {
    now.saturating_add(CLOCK_TOLERANCE).map_err(Error::internal)
}

// A column that does not read back was not written by us: our fault, whatever the cause.

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

/// A word of the model as it is spelled everywhere else, without the quotes.
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
