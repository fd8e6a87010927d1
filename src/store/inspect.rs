//! Looking at a database without changing it: what a check tells, and what a command that works
//! on an installation makes sure of first. Opening makes a database where there is none, and
//! brings an older one up to date, which an older server beside it does not expect.

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

/// What is at a store's url.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inspection {
    /// Nothing yet; the first start makes it.
    Absent,
    /// A database of an older version; the next start brings it up to date.
    Behind { migration: i64, newest: i64 },
    /// A database of this version.
    Current { migration: i64 },
}

impl Store {
    /// Looks at the database at `url`, proves the keys on it, and writes nothing.
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

/// A folder of token pairs, as it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JournalFolder {
    /// Nothing yet; the first start makes it.
    Absent,
    Present,
}

/// Why a journal of token pairs cannot be relied on.
#[derive(Debug, thiserror::Error)]
pub enum JournalFault {
    #[error("{} {exposure}", path.display())]
    Exposed { path: PathBuf, exposure: Exposure },
    #[error("{} cannot be written: {source}", path.display())]
    Unwritable { path: PathBuf, source: io::Error },
    /// Where it is depends on where a process happens to be started.
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
    /// Whether the database at `url` takes writes: one is tried and taken back. Of a SQLite file
    /// it is its folder that is tried, since the file is not to be touched.
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

    /// Looks at the folder for pairs of tokens that the database at `url` does not take.
    ///
    /// # Errors
    /// Others can get at it, or it cannot be written; with PostgreSQL also if its path is relative.
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
                // It is made with all folders above it.
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

/// Of a database that many processes share, nothing says where each of them has its journal.
pub(super) fn must_be_absolute(is_shared: bool, path: &Path) -> Result<(), JournalFault> {
    if is_shared && path.is_relative() {
        let path = path.to_owned();
        return Err(JournalFault::Relative { path });
    }
    Ok(())
}

/// What is written to see whether something can be: more than a file system keeps beside its names.
const TRIED_BYTES: usize = 64 * 1024;

/// Whether files can be made and written in a folder: makes one, and removes it.
pub(super) fn try_folder(folder: &Path) -> io::Result<()> {
    // For its owner alone, and gone with the value.
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
