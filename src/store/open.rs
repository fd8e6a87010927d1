//! Opening a database of either kind. The keys are checked before anything is written, and a new
//! database gets all of its tables or none.
//!
//! A *known answer* is a fixed text, sealed with a ring key and stored in `key_checks`. A ring that
//! decrypts every known answer has the keys that the database requires.
//!
//! `sqlite` and `postgres` contain the steps that differ between the databases.

use std::{io, path::PathBuf};

use sqlx::{
    PgConnection, SqlSafeStr, SqliteConnection,
    migrate::{MigrateError, Migration, MigrationType, Migrator},
};

use super::{audit_log::empty_head, db::SqliteCode};
use crate::{
    clock::Clock,
    crypto::{DataKey, Exposure, KeyRing, LiveRing, OpenFault, Rng, SealContext},
};

/// Why a store could not be opened. The messages are for the operator: they name files and key ids.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(
        "the store's url must be sqlite:// and the path of a file, \
         or postgres:// and user@host:port/database"
    )]
    Url,
    #[error("`pool_mode` in the store's url must be `session` or `transaction`")]
    PoolMode,
    /// Exit code 78. Nothing was written.
    #[error(
        "the key ring does not fit this database, which is sealed with key `{key_id}`: {}. \
         Nothing was changed; start again with the ring that it was sealed with",
        in_plain_words(fault)
    )]
    WrongKeys { key_id: String, fault: OpenFault },
    #[error("{place} is not a database of Rolecall's; nothing was changed")]
    Foreign { place: String },
    #[error(
        "{place} was written by a newer version of Rolecall; use that one, or restore a backup of \
         this one's"
    )]
    Newer { place: String },
    #[error("{place} was written by another version of Rolecall: {source}")]
    OtherVersion { place: String, source: MigrateError },
    /// Exit code 78. Nothing was changed.
    #[error(
        "the known answers in the table `key_checks` {fault}: the table was tampered with or damaged. \
         Nothing was changed; restore the database from a backup"
    )]
    KeyChecks { fault: &'static str },
    #[error(
        "a process of an earlier version of Rolecall serves the database; stop it first, so that this \
         version can bring the database up to date"
    )]
    Served,
    #[error(transparent)]
    Store(#[from] crate::error::Error),
    #[error("another process serves {} already", path.display())]
    InUse { path: PathBuf },
    #[error("{} cannot be opened: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{place} cannot be opened: {source}")]
    Database { place: String, source: sqlx::Error },
    #[error("{} {exposure}", path.display())]
    Exposed { path: PathBuf, exposure: Exposure },
    /// The database can be read, but accepts no writes.
    #[error("{place} cannot be written: {reason}")]
    Unwritable { place: String, reason: String },
}

fn in_plain_words(fault: &OpenFault) -> &'static str {
    match fault {
        OpenFault::UnknownKey(_) => "the ring has no key of that name",
        OpenFault::Refused(_) | OpenFault::Malformed => "the ring's key of that name is another",
    }
}

/// The format of the secrets and API keys in a database.
///
/// The known answers record it: each is sealed in a context that names the format. A writer without
/// the key ring cannot set the format back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RowFormat {
    /// Secrets are sealed without their destination, and API keys have no MAC.
    Before,
    /// Secrets are bound to their destination, and API keys have a MAC.
    Bound,
}

impl RowFormat {
    const fn place(self) -> SealContext<'static> {
        SealContext {
            project: "",
            account: "",
            field: "key_check",
            generation: match self {
                Self::Before => "",
                Self::Bound => "2",
            },
            destination: None,
        }
    }
}

const KNOWN_ANSWER: &[u8] = b"the known answer of a rolecall key ring";

/// Seals the known answer with the ring's first key, for the table `key_checks`.
pub(super) fn known_answer(ring: &KeyRing, rng: &Rng) -> Vec<u8> {
    known_answer_of(ring, ring.encrypting_id(), rng).expect("a ring has its first key")
}

/// Seals the known answer with the key `id`. None if the ring has no such key.
pub(super) fn known_answer_of(ring: &KeyRing, id: &str, rng: &Rng) -> Option<Vec<u8>> {
    ring.seal(id, RowFormat::Bound.place(), KNOWN_ANSWER, rng)
}

/// Key ids and known answers, for each key that the database requires.
pub(super) type KeyChecks = Vec<(String, Vec<u8>)>;

/// Checks the ring against the known answers. Returns the format that they record. All of them must
/// record the same one.
pub(super) fn prove_keys(ring: &KeyRing, checks: &KeyChecks) -> Result<RowFormat, OpenError> {
    let mut format = None;
    for (key_id, sealed) in checks {
        let found = proven_format(ring, sealed).map_err(|fault| OpenError::WrongKeys {
            key_id: key_id.clone(),
            fault,
        })?;
        if format.is_some_and(|format| format != found) {
            let fault = "are of two formats";
            return Err(OpenError::KeyChecks { fault });
        }
        format = Some(found);
    }
    let fault = "are gone, though the database has tables";
    format.ok_or(OpenError::KeyChecks { fault })
}

fn proven_format(ring: &KeyRing, sealed: &[u8]) -> Result<RowFormat, OpenFault> {
    let mut fault = OpenFault::Malformed;
    for format in [RowFormat::Bound, RowFormat::Before] {
        match ring.open(format.place(), sealed) {
            Ok(answer) if *answer == KNOWN_ANSWER => return Ok(format),
            Ok(_) => return Err(OpenFault::Malformed),
            Err(refused) => fault = refused,
        }
    }
    Err(fault)
}

fn migrations() -> Migrator {
    let migration = |version, description: &'static str, sql: &'static str| {
        Migration::new(
            version,
            description.into(),
            MigrationType::Simple,
            sql.into_sql_str(),
            false,
        )
    };
    let mut migrator = Migrator::with_migrations(vec![
        migration(1, "init", include_str!("migrations/0001_init.sql")),
        migration(2, "replicas", include_str!("migrations/0002_replicas.sql")),
        migration(3, "budgets", include_str!("migrations/0003_budgets.sql")),
        migration(
            AUDIT_MIGRATION,
            "audit",
            include_str!("migrations/0004_audit.sql"),
        ),
        migration(5, "linking", include_str!("migrations/0005_linking.sql")),
        migration(6, "retired", include_str!("migrations/0006_retired.sql")),
        migration(
            7,
            "held_walks",
            include_str!("migrations/0007_held_walks.sql"),
        ),
        migration(
            8,
            "bound_secrets",
            include_str!("migrations/0008_bound_secrets.sql"),
        ),
        migration(
            9,
            "connect_browsers",
            include_str!("migrations/0009_connect_browsers.sql"),
        ),
    ]);
    // The caller holds a lock already.
    migrator.set_locking(false);
    migrator
}

/// The migration that created the audit log.
const AUDIT_MIGRATION: i64 = 4;

/// The newest migration that this version has.
pub(super) fn newest_migration() -> i64 {
    let versions = migrations().iter().map(|each| each.version).max();
    versions.expect("there are migrations")
}

/// A connection to a database that is being opened. No statement on it is prepared under a name,
/// since there may be a connection pooler in between.
pub(super) struct Opening<'a> {
    pub connection: OpeningConnection<'a>,
    /// The database's name in messages to the operator.
    pub place: &'a str,
}

pub(super) enum OpeningConnection<'a> {
    Sqlite(&'a mut SqliteConnection),
    Postgres(&'a mut PgConnection),
}

/// Repeats an expression for each database.
macro_rules! each_connection {
    ($connection:ident => $body:expr, $of:expr) => {
        match &mut $of.connection {
            OpeningConnection::Sqlite($connection) => $body,
            OpeningConnection::Postgres($connection) => $body,
        }
    };
}

impl Opening<'_> {
    /// Checks the keys without writing. Returns the newest migration that has run; 0 for an empty
    /// database. While the rows still have the earlier format, the result is at most the migration
    /// before the newest one.
    pub(super) async fn inspect(&mut self, ring: &KeyRing) -> Result<i64, OpenError> {
        let Some(checks) = self.checks().await? else {
            return Ok(0);
        };
        let format = prove_keys(ring, &checks)?;
        let migration = self.migration().await?;
        if migration > newest_migration() {
            let place = self.place.to_owned();
            return Err(OpenError::Newer { place });
        }
        Ok(match format {
            RowFormat::Before => migration.min(newest_migration() - 1),
            RowFormat::Bound => migration,
        })
    }

    /// Checks the keys again, since another process may have been first. Then runs the migrations
    /// and stores the known answer of a new database. Returns the format of the rows. The caller's
    /// transaction must exclude all others.
    pub(super) async fn prepare(
        &mut self,
        ring: &KeyRing,
        clock: &Clock,
        rng: &Rng,
    ) -> Result<RowFormat, OpenError> {
        let checks = self.checks().await?;
        let is_new = checks.is_none();
        let format = match checks {
            Some(checks) => prove_keys(ring, &checks)?,
            None => RowFormat::Bound,
        };
        let is_before_audit = !is_new && self.migration().await? < AUDIT_MIGRATION;
        // A future that holds `run` is not `Send`, so this calls `run_direct`.
        each_connection!(connection => {
            migrations().run_direct(None, &mut **connection, false).await
        }, self)
        .map_err(|source| match source {
            MigrateError::Execute(source) => self.fault(source),
            source => OpenError::OtherVersion {
                place: self.place.to_owned(),
                source,
            },
        })?;
        if is_before_audit {
            self.begin_audit_logs(ring).await?;
        }
        // Only the first key's answer is stored here. Any other key gets its answer when it becomes
        // active, so that an operator can try a new key and remove it again.
        if is_new {
            let insert = "insert into key_checks (key_id, sealed, created_at) values ($1, $2, $3)";
            each_connection!(connection => {
                sqlx::query(insert)
                    .persistent(false)
                    .bind(ring.encrypting_id())
                    .bind(known_answer(ring, rng))
                    .bind(clock.now().as_millisecond())
                    .execute(&mut **connection)
                    .await
                    .map(drop)
            }, self)
            .map_err(|source| self.fault(source))?;
        }
        Ok(format)
    }

    /// The newest migration that has run.
    async fn migration(&mut self) -> Result<i64, OpenError> {
        let migration = "select coalesce(max(version), 0) from _sqlx_migrations";
        each_connection!(connection => {
            sqlx::query_scalar(migration).persistent(false).fetch_one(&mut **connection).await
        }, self)
        .map_err(|source| self.fault(source))
    }

    /// Creates the empty audit log of each project that is older than the audit log. This happens
    /// only once: if a log is missing later, somebody has deleted it. A project whose data key does
    /// not decrypt gets no log, and can do nothing that would need an entry.
    async fn begin_audit_logs(&mut self, ring: &KeyRing) -> Result<(), OpenError> {
        let projects = "select id, data_key_id, sealed_data_key from projects order by id";
        let projects: Vec<(String, String, Vec<u8>)> = each_connection!(connection => {
            sqlx::query_as(projects).persistent(false).fetch_all(&mut **connection).await
        }, self)
        .map_err(|source| self.fault(source))?;
        for (project, id, wrapped) in projects {
            let Ok(key) = DataKey::unwrap(ring, &project, &id, &wrapped) else {
                continue;
            };
            let (seq, tag, seal) = empty_head(&project, &key);
            let insert =
                "insert into audit_heads (project, seq, tag, seal) values ($1, $2, $3, $4)";
            each_connection!(connection => {
                sqlx::query(insert)
                    .persistent(false)
                    .bind(&project)
                    .bind(seq)
                    .bind(&tag)
                    .bind(&seal)
                    .execute(&mut **connection)
                    .await
                    .map(drop)
            }, self)
            .map_err(|source| self.fault(source))?;
        }
        Ok(())
    }

    /// The known answers. None if the database is empty.
    async fn checks(&mut self) -> Result<Option<KeyChecks>, OpenError> {
        let tables = match &self.connection {
            OpeningConnection::Sqlite(_) => "select name from sqlite_master where type = 'table'",
            OpeningConnection::Postgres(_) => {
                "select cast(table_name as text) from information_schema.tables
                 where table_schema = current_schema() and table_type = 'BASE TABLE'"
            }
        };
        let tables: Vec<(String,)> = each_connection!(connection => {
            sqlx::query_as(tables).persistent(false).fetch_all(&mut **connection).await
        }, self)
        .map_err(|source| self.fault(source))?;
        if tables.is_empty() {
            return Ok(None);
        }
        if !tables.iter().any(|(name,)| name == "key_checks") {
            return Err(OpenError::Foreign {
                place: self.place.to_owned(),
            });
        }
        let checks = "select key_id, sealed from key_checks order by created_at, key_id";
        each_connection!(connection => {
            sqlx::query_as(checks).persistent(false).fetch_all(&mut **connection).await
        }, self)
        .map(Some)
        .map_err(|source| self.fault(source))
    }

    fn fault(&self, source: sqlx::Error) -> OpenError {
        OpenError::database(self.place, source)
    }
}

impl OpenError {
    /// True if the ring does not fit because its file has changed since it was read. Installs the
    /// changed ring, so that the caller can retry.
    pub(super) fn is_outdated(&self, ring: &LiveRing) -> bool {
        if !matches!(self, Self::WrongKeys { .. }) {
            return false;
        }
        match ring.changed() {
            Ok(Some(changed)) => {
                ring.exchange(changed);
                true
            }
            Ok(None) | Err(_) => false,
        }
    }

    pub(super) fn database(place: &str, source: sqlx::Error) -> Self {
        let place = place.to_owned();
        match SqliteCode::of(&source) {
            Some(SqliteCode::NOT_A_DATABASE) => Self::Foreign { place },
            _ => Self::Database { place, source },
        }
    }
}
