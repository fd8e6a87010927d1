//! Looking at a database without changing it: what a check tells, and what a command that works
//! on an installation makes sure of first. Opening makes a database where there is none, and
//! brings an older one up to date, which an older server beside it does not expect.

use super::{
    Store,
    open::{OpenError, newest_migration},
    postgres,
    sqlite::SqliteFile,
};
use crate::crypto::LiveRing;

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

async fn migration(url: &str, ring: &LiveRing) -> Result<i64, OpenError> {
    let ring = ring.current();
    match url.split_once("://") {
        Some(("sqlite", path)) => SqliteFile::new(path)?.look(&ring).await,
        Some(("postgres" | "postgresql", _)) => postgres::inspect(url, &ring).await,
        _ => Err(OpenError::Url),
    }
}
