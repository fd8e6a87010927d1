//! Opening a SQLite file. Only its owner can access the file, and only one process serves it.
//!
//! 1. An existing file is inspected through a read-only connection. If its keys are not in the
//!    ring, opening fails without changing a byte.
//! 2. A missing file is created with mode 0600.
//! 3. One immediate transaction checks the keys again, since another process may have been first,
//!    runs the migrations and stores the known answer of a new database. So a database has all of
//!    this or nothing, however many processes open it at the same time.

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
        // SQLite or a url parser would not treat these as plain paths.
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
        // SQLite waits for locks with one exception: the lock that it takes when a new file gets
        // its write-ahead log. A second process fails at once there, so retry.
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

    /// Locks the file for this process as its server, until the store is closed or dropped. The
    /// kernel releases the lock when the process ends.
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

    /// True if another process has locked the file as its server.
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
        // A shared lock, so that two checks at the same time do not mistake each other for a
        // server. A server that starts at this moment cannot lock the file, and retries.
        match file.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(fs::TryLockError::WouldBlock) => Ok(true),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }

    /// Lets another process serve the file. This process must not write to it any more.
    pub(super) fn release(&self) {
        self.claim
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
    }

    /// True if the file has content. Reads only metadata: opening and closing a database file
    /// outside SQLite would drop the locks that this process holds on it.
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
            // Another process created it first, or failed before it wrote anything.
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

    /// Runs [`Opening::inspect`] through a read-only connection. Returns 0 if there is no file yet,
    /// and its folder exists.
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

    /// Checks that this process may write the file and its side files, and that the disk has room.
    /// Does not change the database file.
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
            // Even a reader creates the side files of the log, unless it opens the database as
            // immutable. That is safe only while nobody writes, and so while there is no log.
            let is_quiet = !self.has_log();
            let answer = self.inspect_as(ring, is_quiet).await;
            if !is_quiet || !self.has_log() {
                return answer;
            }
            // A log has appeared, so the data read may be inconsistent. Read again, not as
            // immutable.
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

/// Options that create files with mode 0600. SQLite gives its side files the same mode.
fn owners_file() -> fs::OpenOptions {
    let mut options = fs::OpenOptions::new();
    options.write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}
