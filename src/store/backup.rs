//! Backs up a SQLite database that is in use. PostgreSQL has its own tools for this.

use std::path::Path;

use sqlx::{ConnectOptions, Connection, sqlite::SqliteConnectOptions};

use super::{Store, open::OpenError, sqlite::SqliteFile};
use crate::crypto::KeyRing;

impl Store {
    /// Copies the database at `url` into the empty file `into`. The copy contains every transaction
    /// that was committed before the copy began, and none that is committed meanwhile. Writers and
    /// the copy do not block each other, and the source is opened read-only. Before this returns,
    /// it proves the keys of `ring` on the copy.
    ///
    /// # Errors
    /// As [`Store::inspect`], an I/O error of either file, and `Url` for a database that is not
    /// SQLite.
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
        // SQLite takes the path as text. A path that is not UTF-8 was refused before.
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
