//! Opening a database: the keys are proven before anything is written.
//!
//! 1. What is there is looked at through a connection that cannot write. If it was sealed by
//!    keys that the ring does not hold, we stop, and not a byte has changed.
//! 2. A file that is not there is created, for its owner alone.
//! 3. In one immediate transaction: the keys are proven again (another process may have been
//!    first), migrations run, and a new database gets its known answer. So it either has all
//!    of this or nothing, however many processes open it at once.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use sqlx::{
    ConnectOptions, Connection, SqlSafeStr, SqliteConnection,
    migrate::{MigrateError, Migration, MigrationType, Migrator},
    sqlite::SqliteConnectOptions,
};

use super::db::{Db, SqliteCode, SqlitePools};
use crate::{
    clock::Clock,
    crypto::{Chance, KeyRing, OpenFault, Place},
};

/// Why a store could not be opened. For the operator: messages name files and key ids.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the store's url must begin with sqlite:// and go on with the path of a file")]
    Url,
    #[error("PostgreSQL is not in this version; use a sqlite:// url")]
    NotInThisVersion,
    /// Exit code 78. Nothing was written.
    #[error(
        "the key ring does not fit this database, which is sealed with key `{key_id}`: {}. \
         Nothing was changed; start again with the ring that it was sealed with",
        in_plain_words(fault)
    )]
    WrongKeys { key_id: String, fault: OpenFault },
    #[error("{} is not a database of Rolecall's; nothing was changed", path.display())]
    Foreign { path: PathBuf },
    #[error(
        "{} was written by another version of Rolecall: {source}", path.display()
    )]
    OtherVersion { path: PathBuf, source: MigrateError },
    #[error("another process serves {} already", path.display())]
    InUse { path: PathBuf },
    #[error("{} cannot be opened: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{} cannot be opened: {source}", path.display())]
    Database { path: PathBuf, source: sqlx::Error },
}

fn in_plain_words(fault: &OpenFault) -> &'static str {
    match fault {
        OpenFault::UnknownKey(_) => "the ring has no key of that name",
        OpenFault::Refused(_) | OpenFault::Malformed => "the ring's key of that name is another",
    }
}

const ATTEMPTS: u32 = 50;
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(100);

const CHECK_PLACE: Place<'static> = Place {
    project: "",
    account: "",
    field: "key_check",
    generation: "",
};
const KNOWN_ANSWER: &[u8] = b"the known answer of a rolecall key ring";

/// The known answer under the ring's encrypting key, for `key_checks`.
pub(super) fn known_answer(ring: &KeyRing, chance: &Chance) -> Vec<u8> {
    ring.seal(CHECK_PLACE, KNOWN_ANSWER, chance)
}

fn prove_keys(ring: &KeyRing, checks: Vec<(String, Vec<u8>)>) -> Result<(), OpenError> {
    for (key_id, sealed) in checks {
        match ring.open(CHECK_PLACE, &sealed) {
            Ok(answer) if *answer == KNOWN_ANSWER => {}
            Ok(_) => {
                let fault = OpenFault::Malformed;
                return Err(OpenError::WrongKeys { key_id, fault });
            }
            Err(fault) => return Err(OpenError::WrongKeys { key_id, fault }),
        }
    }
    Ok(())
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
    Migrator::with_migrations(vec![migration(
        1,
        "init",
        include_str!("migrations/0001_init.sql"),
    )])
}

/// A SQLite file that is being opened or served.
#[derive(Debug, Clone)]
pub(super) struct SqliteFile {
    path: PathBuf,
    claim: Arc<Mutex<Option<fs::File>>>,
}

impl SqliteFile {
    pub(super) fn new(path: &str) -> Result<Self, OpenError> {
        // What SQLite, or a reader of the url, would take for something else than a path.
        let is_special = path.starts_with(':') || path.starts_with("file:");
        if path.is_empty() || is_special || path.contains(['?', '\0']) {
            return Err(OpenError::Url);
        }
        Ok(Self {
            path: path.into(),
            claim: Arc::default(),
        })
    }

    pub(super) async fn open(
        &self,
        ring: &KeyRing,
        clock: &Clock,
        chance: &Chance,
    ) -> Result<Db, OpenError> {
        // SQLite waits for locks, except for the one that it takes when a new file gets its
        // write-ahead log: whoever comes second is told at once.
        for _ in 0..ATTEMPTS {
            match self.attempt(ring, clock, chance).await {
                Err(OpenError::Database { source, .. }) if is_busy(&source) => {
                    clock.sleep(BETWEEN_ATTEMPTS).await;
                }
                outcome => return outcome,
            }
        }
        self.attempt(ring, clock, chance).await
    }

    async fn attempt(
        &self,
        ring: &KeyRing,
        clock: &Clock,
        chance: &Chance,
    ) -> Result<Db, OpenError> {
        if self.is_written().map_err(|source| self.io(source))? {
            self.inspect(ring).await?;
        } else {
            self.create().map_err(|source| self.io(source))?;
        }
        let pools = SqlitePools::connect(&self.path)
            .await
            .map_err(|source| self.database(source))?;
        match self.prepare(&pools, ring, clock, chance).await {
            Ok(()) => Ok(Db::Sqlite(pools)),
            Err(error) => {
                Db::Sqlite(pools).close().await;
                Err(error)
            }
        }
    }

    /// Marks the file as served by this process until it ends, or its store is closed or dropped.
    /// The kernel frees the mark with the process, however that dies.
    pub(super) fn claim(&self) -> Result<(), OpenError> {
        let mut claim = self.claim.lock().unwrap_or_else(PoisonError::into_inner);
        if claim.is_some() {
            return Ok(());
        }
        let path = beside(&self.path, ".lock");
        let file = owners_file()
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|source| OpenError::Io {
                path: path.clone(),
                source,
            })?;
        match file.try_lock() {
            Ok(()) => {
                *claim = Some(file);
                Ok(())
            }
            Err(fs::TryLockError::WouldBlock) => Err(OpenError::InUse {
                path: self.path.clone(),
            }),
            Err(fs::TryLockError::Error(source)) => Err(OpenError::Io { path, source }),
        }
    }

    /// Lets another process serve the file: nothing of this one writes to it any more.
    pub(super) fn release(&self) {
        self.claim
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
    }

    /// Whether there is anything to look at. Through metadata alone: opening and closing a
    /// database file beside SQLite drops the locks that this process holds on it.
    fn is_written(&self) -> io::Result<bool> {
        match fs::metadata(&self.path) {
            Ok(found) if found.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
            Ok(found) => Ok(found.len() > 0),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn create(&self) -> io::Result<()> {
        match owners_file().create_new(true).open(&self.path) {
            Ok(file) => file.sync_all()?,
            // Another process was first, or died before it wrote anything.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
            Err(error) => return Err(error),
        }
        let folder = match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        fs::File::open(folder)?.sync_all()
    }

    /// Proves the keys through a connection that cannot write.
    async fn inspect(&self, ring: &KeyRing) -> Result<(), OpenError> {
        loop {
            // Even a reader makes the log's side files, unless it is told that nobody writes;
            // and nobody does while there is no log.
            let is_quiet = !self.has_log();
            let answer = self.inspect_as(ring, is_quiet).await;
            if !is_quiet || !self.has_log() {
                return answer;
            }
            // Somebody began to write meanwhile, so what was read may be torn: again, the
            // careful way.
        }
    }

    async fn inspect_as(&self, ring: &KeyRing, is_quiet: bool) -> Result<(), OpenError> {
        let mut connection = SqliteConnectOptions::new()
            .filename(&self.path)
            .read_only(true)
            .immutable(is_quiet)
            .connect()
            .await
            .map_err(|source| self.database(source))?;
        let checks = self.checks(&mut connection).await;
        connection
            .close()
            .await
            .map_err(|source| self.database(source))?;
        prove_keys(ring, checks?)
    }

    fn has_log(&self) -> bool {
        fs::metadata(beside(&self.path, "-wal")).is_ok_and(|log| log.len() > 0)
    }

    /// The known answers; none if the database has nothing in it yet.
    async fn checks(
        &self,
        connection: &mut SqliteConnection,
    ) -> Result<Vec<(String, Vec<u8>)>, OpenError> {
        let tables: Vec<(String,)> =
            sqlx::query_as("select name from sqlite_master where type = 'table'")
                .fetch_all(&mut *connection)
                .await
                .map_err(|source| self.database(source))?;
        if tables.is_empty() {
            return Ok(Vec::new());
        }
        if !tables.iter().any(|(name,)| name == "key_checks") {
            return Err(OpenError::Foreign {
                path: self.path.clone(),
            });
        }
        sqlx::query_as("select key_id, sealed from key_checks order by created_at, key_id")
            .fetch_all(connection)
            .await
            .map_err(|source| self.database(source))
    }

    async fn prepare(
        &self,
        pools: &SqlitePools,
        ring: &KeyRing,
        clock: &Clock,
        chance: &Chance,
    ) -> Result<(), OpenError> {
        let database = |source| self.database(source);
        let mut tx = pools
            .writer
            .begin_with("begin immediate")
            .await
            .map_err(database)?;
        let checks = self.checks(&mut tx).await?;
        let is_new = checks.is_empty();
        prove_keys(ring, checks)?;
        // `run_direct`, since a future that holds `run` cannot be sent to another thread.
        migrations()
            .run_direct(None, &mut *tx, false)
            .await
            .map_err(|source| match source {
                MigrateError::Execute(source) => self.database(source),
                source => OpenError::OtherVersion {
                    path: self.path.clone(),
                    source,
                },
            })?;
        // Later keys leave theirs when they first wrap something, so that a new key can be
        // tried and taken back.
        if is_new {
            sqlx::query("insert into key_checks (key_id, sealed, created_at) values ($1, $2, $3)")
                .bind(ring.encrypting_id())
                .bind(known_answer(ring, chance))
                .bind(clock.now().as_millisecond())
                .execute(&mut *tx)
                .await
                .map_err(database)?;
        }
        tx.commit().await.map_err(database)
    }

    fn io(&self, source: io::Error) -> OpenError {
        OpenError::Io {
            path: self.path.clone(),
            source,
        }
    }

    fn database(&self, source: sqlx::Error) -> OpenError {
        let path = self.path.clone();
        match SqliteCode::of(&source) {
            Some(SqliteCode::NOT_A_DATABASE) => OpenError::Foreign { path },
            _ => OpenError::Database { path, source },
        }
    }
}

fn is_busy(error: &sqlx::Error) -> bool {
    SqliteCode::of(error) == Some(SqliteCode::BUSY)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// SQLite gives its side files the mode of the database.
fn owners_file() -> fs::OpenOptions {
    let mut options = fs::OpenOptions::new();
    options.write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}
