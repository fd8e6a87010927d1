//! A SQLite file: made for its owner alone, opened by whoever has its keys, served by one process.
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

use sqlx::{ConnectOptions, Connection, sqlite::SqliteConnectOptions};

use super::{
    condition::Condition,
    db::{Db, SqliteCode, SqlitePools},
    inspect::try_folder,
    open::{OpenError, Opening, OpeningConnection, RowFormat},
};
use crate::{
    clock::Clock,
    crypto::{Exposure, KeyRing, Rng},
};

const ATTEMPTS: u32 = 50;
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(100);

/// A SQLite file that is being opened or served.
#[derive(Debug, Clone)]
pub(super) struct SqliteFile {
    pub(super) path: PathBuf,
    claim: Arc<Mutex<Option<fs::File>>>,
}

impl SqliteFile {
    pub(super) fn new(path: &str) -> Result<Self, OpenError> {
        // What SQLite, or a reader of the url, would take for something else than a path.
        let is_special = path.starts_with(':') || path.starts_with("file:");
        if path.is_empty() || is_special || path.contains(['?', '\0']) {
            return Err(OpenError::Url);
        }
        Ok(Self::at(path.into()))
    }

    pub(super) fn at(path: PathBuf) -> Self {
        Self {
            path,
            claim: Arc::default(),
        }
    }

    pub(super) async fn open(
        &self,
        ring: &KeyRing,
        clock: &Clock,
        rng: &Rng,
    ) -> Result<(Db, RowFormat), OpenError> {
        // SQLite waits for locks, except for the one that it takes when a new file gets its
        // write-ahead log: whoever comes second is told at once.
        for _ in 0..ATTEMPTS {
            match self.attempt(ring, clock, rng).await {
                Err(OpenError::Database { source, .. }) if is_busy(&source) => {
                    clock.sleep(BETWEEN_ATTEMPTS).await;
                }
                outcome => return outcome,
            }
        }
        self.attempt(ring, clock, rng).await
    }

    async fn attempt(
        &self,
        ring: &KeyRing,
        clock: &Clock,
        rng: &Rng,
    ) -> Result<(Db, RowFormat), OpenError> {
        if self.is_written().map_err(|source| self.io(source))? {
            self.inspect(ring).await?;
        } else {
            self.create().map_err(|source| self.io(source))?;
        }
        let pools = SqlitePools::connect(&self.path)
            .await
            .map_err(|source| self.database(source))?;
        let db = |pools| Db::sqlite(pools, Condition::new(clock.clone()));
        match self.prepare(&pools, ring, clock, rng).await {
            Ok(format) => Ok((db(pools), format)),
            Err(error) => {
                db(pools).close().await;
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

    /// Whether another process has marked the file as served.
    pub(super) fn is_served_by_another(&self) -> io::Result<bool> {
        let claim = self.claim.lock().unwrap_or_else(PoisonError::into_inner);
        if claim.is_some() {
            return Ok(false);
        }
        let file = match fs::File::open(beside(&self.path, ".lock")) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        // Shared, so that two who look do not take each other for one who serves. For this moment
        // nobody can begin to: whoever would tries again.
        match file.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(fs::TryLockError::WouldBlock) => Ok(true),
            Err(fs::TryLockError::Error(error)) => Err(error),
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
        fs::File::open(self.folder())?.sync_all()
    }

    fn folder(&self) -> &Path {
        match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        }
    }

    /// What [`Opening::inspect`] finds, through a connection that cannot write; 0 where there is no
    /// file either, and could be one.
    pub(super) async fn look(&self, ring: &KeyRing) -> Result<i64, OpenError> {
        if self.is_written().map_err(|source| self.io(source))? {
            return self.inspect(ring).await;
        }
        if self.folder().is_dir() {
            return Ok(0);
        }
        let source = io::Error::new(io::ErrorKind::NotFound, "there is no such folder");
        Err(self.io(source))
    }

    /// Whether this process may write what it would have to write, and has room for it. The file
    /// is opened and not written.
    pub(super) fn try_write(&self) -> Result<(), OpenError> {
        let unwritable = |path: &Path, reason: String| OpenError::Unwritable {
            place: path.display().to_string(),
            reason,
        };
        for suffix in ["", "-wal", "-shm", ".lock"] {
            let path = beside(&self.path, suffix);
            match fs::OpenOptions::new().write(true).open(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(unwritable(&path, error.to_string()));
                }
                _ => {}
            }
        }
        if let Ok(Some(exposure)) = Exposure::of(&self.path) {
            return Err(OpenError::Exposed {
                path: self.path.clone(),
                exposure,
            });
        }
        let folder = self.folder();
        try_folder(folder).map_err(|error| unwritable(folder, error.to_string()))
    }

    async fn inspect(&self, ring: &KeyRing) -> Result<i64, OpenError> {
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

    async fn inspect_as(&self, ring: &KeyRing, is_quiet: bool) -> Result<i64, OpenError> {
        let mut connection = SqliteConnectOptions::new()
            .filename(&self.path)
            .read_only(true)
            .immutable(is_quiet)
            .connect()
            .await
            .map_err(|source| self.database(source))?;
        let outcome = Opening {
            connection: OpeningConnection::Sqlite(&mut connection),
            place: &self.place(),
        }
        .inspect(ring)
        .await;
        connection
            .close()
            .await
            .map_err(|source| self.database(source))?;
        outcome
    }

    fn has_log(&self) -> bool {
        fs::metadata(beside(&self.path, "-wal")).is_ok_and(|log| log.len() > 0)
    }

    async fn prepare(
        &self,
        pools: &SqlitePools,
        ring: &KeyRing,
        clock: &Clock,
        rng: &Rng,
    ) -> Result<RowFormat, OpenError> {
        let database = |source| self.database(source);
        let mut tx = pools
            .writer
            .begin_with("begin immediate")
            .await
            .map_err(database)?;
        let format = Opening {
            connection: OpeningConnection::Sqlite(&mut tx),
            place: &self.place(),
        }
        .prepare(ring, clock, rng)
        .await?;
        tx.commit().await.map_err(database)?;
        Ok(format)
    }

    fn io(&self, source: io::Error) -> OpenError {
        OpenError::Io {
            path: self.path.clone(),
            source,
        }
    }

    fn place(&self) -> String {
        self.path.display().to_string()
    }

    pub(super) fn database(&self, source: sqlx::Error) -> OpenError {
        OpenError::database(&self.place(), source)
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
