//! A copy of a SQLite database while others use it. PostgreSQL has its own tools for that.

use std::path::Path;

use sqlx::{ConnectOptions, Connection, sqlite::SqliteConnectOptions};

use super::{Store, open::OpenError, sqlite::SqliteFile};
use crate::crypto::KeyRing;

impl Store {
    /// Copies the database at `url` into the empty file `into`: all that was committed before, and
    /// of what is committed meanwhile nothing. Writers neither wait for it nor are waited for, and
    /// the database is opened for reading only. The copy was tried with `ring`.
    ///
    /// # Errors
    /// As [`Store::inspect`], what the file system says, and `Url` for any other database.
    pub async fn backup(url: &str, ring: &KeyRing, into: &Path) -> Result<(), OpenError> {
        let path = url.strip_prefix("sqlite://").ok_or(OpenError::Url)?;
        let file = SqliteFile::new(path)?;
        file.look(ring).await?;
        let database = |source| file.database(source);
        let mut connection = SqliteConnectOptions::new()
            .filename(&file.path)
            .read_only(true)
            .connect()
            .await
            .map_err(database)?;
        // As text, which is what SQLite takes; a path that is none was refused before.
        let path = into.to_string_lossy();
        let copied = sqlx::query("vacuum into $1")
            .bind(path.as_ref())
            .execute(&mut connection)
            .await;
        connection.close().await.map_err(database)?;
        let copy = SqliteFile::at(into.to_owned());
        copied.map_err(|source| copy.database(source))?;
        copy.look(ring).await.map(drop)
    }
}
