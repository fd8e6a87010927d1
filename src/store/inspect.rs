//! Inspection of a database and a journal without changing them, for checks and for commands that
//! run against an installation. Opening a store is not suitable for this: it creates a missing
//! database, and it migrates an older one while a server of the older version may still use it.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

use super::{
    Store,
    open::{OpenError, newest_migration},
    postgres,
    sqlite::SqliteFile,
};
use crate::crypto::{Exposure, LiveRing};

/// The state of the database at a store's url.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inspection {
    /// There is no database yet. The first start creates it.
    Absent,
    /// The database has an older format. The next start migrates it.
    Behind { migration: i64, newest: i64 },
    /// The database has the format of this version.
    Current { migration: i64 },
}

impl Store {
    /// Inspects the database at `url` and checks the key ring against it. Writes nothing.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub async fn inspect(url: &str, ring: impl Into<LiveRing>) -> Result<Inspection, OpenError> {
        let ring = ring.into();
        let migration = match migration(url, &ring).await {
            Err(error) if error.is_outdated(&ring) => migration(url, &ring).await?,
            outcome => outcome?,
        };
        let newest = newest_migration();
        Ok(match migration {
            0 => Inspection::Absent,
            _ if migration < newest => Inspection::Behind { migration, newest },
            _ => Inspection::Current { migration },
        })
    }
}

/// The state of a journal folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JournalFolder {
    /// There is no folder yet. The first start creates it.
    Absent,
    Present,
}

/// Why a journal of token pairs cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalFault {
    #[error("{} {exposure}", path.display())]
    Exposed { path: PathBuf, exposure: Exposure },
    #[error("{} cannot be written: {source}", path.display())]
    Unwritable { path: PathBuf, source: io::Error },
    /// A relative path depends on the process's working directory.
    #[error(
        "{} is no absolute path, which PostgreSQL needs: set `store.journal` to a folder of this \
         process's own, on a disk that outlives it",
        path.display()
    )]
    Relative { path: PathBuf },
    #[error("{} is the journal of another process that serves", path.display())]
    InUse { path: PathBuf },
}

impl Store {
    /// Checks that the database at `url` accepts writes. PostgreSQL: makes a write and rolls it
    /// back. SQLite: writes a test file in the database's folder, and leaves the database file
    /// unchanged.
    ///
    /// # Errors
    /// [`OpenError::Unwritable`], and as [`Store::open`].
    pub async fn try_write(url: &str) -> Result<(), OpenError> {
        match url.split_once("://") {
            Some(("sqlite", path)) => SqliteFile::new(path)?.try_write(),
            Some(("postgres" | "postgresql", _)) => {
                postgres::try_write(url).await.map_err(|error| match error {
                    OpenError::Database { place, source } => OpenError::Unwritable {
                        place,
                        reason: source.to_string(),
                    },
                    error => error,
                })
            }
            _ => Err(OpenError::Url),
        }
    }

    /// Inspects the journal folder at `path`. `url` is the store's url.
    ///
    /// # Errors
    /// Other users can access the folder, or it cannot be written. With PostgreSQL also: the path
    /// is relative.
    pub fn inspect_journal(url: &str, path: &Path) -> Result<JournalFolder, JournalFault> {
        must_be_absolute(!url.starts_with("sqlite://"), path)?;
        let unwritable = |source| JournalFault::Unwritable {
            path: path.to_owned(),
            source,
        };
        match Exposure::of(path) {
            Ok(None) => {}
            Ok(Some(exposure)) => {
                let path = path.to_owned();
                return Err(JournalFault::Exposed { path, exposure });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // The first start creates the missing parent folders too, so test the nearest
                // existing one.
                let above = path.ancestors().skip(1).find(|above| above.is_dir());
                try_folder(above.unwrap_or(Path::new("."))).map_err(unwritable)?;
                return Ok(JournalFolder::Absent);
            }
            Err(error) => return Err(unwritable(error)),
        }
        try_folder(path).map_err(unwritable)?;
        Ok(JournalFolder::Present)
    }
}

/// Rejects a relative path for a shared database. Each of its processes may have another working
/// directory.
pub(super) fn must_be_absolute(is_shared: bool, path: &Path) -> Result<(), JournalFault> {
    if is_shared && path.is_relative() {
        let path = path.to_owned();
        return Err(JournalFault::Relative { path });
    }
    Ok(())
}

/// Size of the test file. Larger than the data that a file system stores inline in its metadata.
const TRIED_BYTES: usize = 64 * 1024;

/// Checks that files can be created and written in `folder`: writes one and removes it.
pub(super) fn try_folder(folder: &Path) -> io::Result<()> {
    // A temporary file has mode 0600 and is removed on drop.
    let mut file = tempfile::Builder::new()
        .prefix(".rolecall-check-")
        .tempfile_in(folder)?;
    file.write_all(&[0; TRIED_BYTES])?;
    file.as_file().sync_all()?;
    file.close()
}

async fn migration(url: &str, ring: &LiveRing) -> Result<i64, OpenError> {
    let ring = ring.current();
    match url.split_once("://") {
        Some(("sqlite", path)) => SqliteFile::new(path)?.look(&ring).await,
        Some(("postgres" | "postgresql", _)) => postgres::inspect(url, &ring).await,
        _ => Err(OpenError::Url),
    }
}
