//! Looking at a database without changing it: what a check tells, and what a command that works
//! on an installation makes sure of first. Opening makes a database where there is none, and
//! brings an older one up to date, which an older server beside it does not expect.

use super::{
    Store,
    open::{OpenError, newest_migration},
    postgres,
    sqlite::SqliteFile,
};
use crate::crypto::KeyRing;

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
    pub async fn inspect(url: &str, ring: &KeyRing) -> Result<Inspection, OpenError> {
        let migration = match url.split_once("://") {
            Some(("sqlite", path)) => SqliteFile::new(path)?.look(ring).await?,
            Some(("postgres" | "postgresql", _)) => postgres::inspect(url, ring).await?,
            _ => return Err(OpenError::Url),
        };
        let newest = newest_migration();
        Ok(match migration {
            0 => Inspection::Absent,
            _ if migration < newest => Inspection::Behind { migration, newest },
            _ => Inspection::Current { migration },
        })
    }
}
