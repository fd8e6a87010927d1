//! Copies a whole database into an empty one. Each may be SQLite or PostgreSQL.
//!
//! Sealed fields are bound to a project, an account and a field, not to a database, so rows are
//! copied as they are and nothing is decrypted. Each side is one transaction: the source is read at
//! one moment, and the target is written completely or not at all. Before the target commits, its
//! rows are read back and compared with the source by number and by content.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::{
    OpenError, Store,
    db::{Arg, ArgType, Tx},
    replicas::HEARTBEAT_TIMEOUT,
};
use crate::error::{Error, Result};

/// The copied tables, ordered so that each row comes after the rows that it references.
const TABLES: [&str; 15] = [
    "key_checks",
    "retired_keys",
    "projects",
    "audit_log",
    "audit_heads",
    "api_keys",
    "connector_profiles",
    "accounts",
    "credentials",
    "connect_sessions",
    "connect_browsers",
    "authorizations",
    "walks",
    "directories",
    "blobs",
];

/// Tables that matter only to the processes that serve a database, while they serve it.
const SKIPPED_TABLES: [&str; 4] = [
    "_sqlx_migrations",
    "replicas",
    "token_budgets",
    "budget_slices",
];

/// The reason why nothing was copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    #[error(transparent)]
    InUse(#[from] OpenError),
    #[error(
        "a process serves the {0} database; stop it first, so that nothing is written meanwhile"
    )]
    Served(&'static str),
    #[error("the target has projects already; it must be empty")]
    NotEmpty,
    #[error("what was written to `{0}` does not read back as it was; nothing was kept")]
    Differs(String),
    #[error(transparent)]
    Store(#[from] Error),
}

/// The number of rows of one table that were copied and compared equal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    pub table: &'static str,
    pub rows: u64,
}

/// The number of a table's rows, and a digest of them that does not depend on their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct TableContent {
    rows: u64,
    digest: u64,
}

impl TableContent {
    fn add(&mut self, row: &[Arg]) {
        let mut hasher = DefaultHasher::new();
        row.hash(&mut hasher);
        self.rows += 1;
        // A sum does not depend on the order of the rows.
        self.digest = self.digest.wrapping_add(hasher.finish());
    }
}

impl Store {
    /// Copies all data into `target`, which must be empty and have the same keys. No process may
    /// serve either database meanwhile.
    pub async fn copy_to(&self, target: &Store) -> Result<Vec<Copied>, CopyError> {
        self.claim()?;
        target.claim()?;
        let mut from = self.db.begin().await?;
        let mut to = target.db.begin().await?;
        from.freeze().await?;
        from.disable_timeouts().await?;
        to.disable_timeouts().await?;
        if self.is_served(&mut from).await? {
            return Err(CopyError::Served("source"));
        }
        if target.is_served(&mut to).await? {
            return Err(CopyError::Served("target"));
        }
        let any: Option<(String,)> = to.fetch_one("select id from projects limit 1", []).await?;
        if any.is_some() {
            return Err(CopyError::NotEmpty);
        }
        // Replaces the target's known answers by the source's, which prove the same keys.
        to.execute("delete from key_checks", []).await?;
        check_tables(&mut from).await?;

        let mut copied = Vec::new();
        for table in TABLES {
            let columns = columns(&mut from, table).await?;
            let content = copy(&mut from, &mut to, table, &columns).await?;
            if read(&mut to, table, &columns).await? != content {
                return Err(CopyError::Differs(table.to_owned()));
            }
            let rows = content.rows;
            copied.push(Copied { table, rows });
        }
        // A process that has started meanwhile may have written rows that were not copied.
        if self.is_shared() && self.is_served(&mut self.db.begin().await?).await? {
            return Err(CopyError::Served("source"));
        }
        if target.is_served(&mut to).await? {
            return Err(CopyError::Served("target"));
        }
        to.commit().await?;
        Ok(copied)
    }

    /// True if a process that serves this database has written a heartbeat recently. Always false
    /// for a SQLite file, where the claim has excluded other processes.
    pub(super) async fn is_served(&self, tx: &mut Tx) -> Result<bool> {
        if !self.is_shared() {
            return Ok(false);
        }
        let now = tx.now(&self.clock).await?;
        let alive_after = now
            .saturating_sub(HEARTBEAT_TIMEOUT)
            .map_err(Error::internal)?;
        let alive: Option<(String,)> = tx
            .fetch_one(
                "select id from replicas where seen_at >= $1 limit 1",
                [alive_after.into()],
            )
            .await?;
        Ok(alive.is_some())
    }
}

/// Fails if a table is in neither list, since its rows would be lost without an error.
async fn check_tables(tx: &mut Tx) -> Result<()> {
    let sql = match tx.is_sqlite() {
        true => "select name from sqlite_master where type = 'table'",
        false => {
            "select cast(table_name as text) from information_schema.tables
             where table_schema = current_schema() and table_type = 'BASE TABLE'"
        }
    };
    let tables: Vec<(String,)> = tx.fetch(sql, []).await?;
    for (table,) in &tables {
        if !TABLES.contains(&table.as_str()) && !SKIPPED_TABLES.contains(&table.as_str()) {
            return Err(Error::internal(format!(
                "`{table}` is neither copied nor left behind"
            )));
        }
    }
    Ok(())
}

/// A table's columns, with the types that the migrations give them.
async fn columns(tx: &mut Tx, table: &'static str) -> Result<Vec<(String, ArgType)>> {
    let sql = match tx.is_sqlite() {
        true => "select name, lower(type) from pragma_table_info($1) order by cid",
        false => {
            "select cast(column_name as text), cast(data_type as text)
             from information_schema.columns
             where table_schema = current_schema() and table_name = $1 order by ordinal_position"
        }
    };
    let columns: Vec<(String, String)> = tx.fetch(sql, [table.into()]).await?;
    columns
        .into_iter()
        .map(|(name, declared)| {
            let of = match declared.as_str() {
                "text" => ArgType::Text,
                "bigint" => ArgType::Int,
                "bytea" => ArgType::Bytes,
                other => {
                    let message =
                        format!("`{table}.{name}` is of a type that is not copied: {other}");
                    return Err(Error::internal(message));
                }
            };
            Ok((name, of))
        })
        .collect()
}

fn names(columns: &[(String, ArgType)]) -> String {
    let names: Vec<_> = columns.iter().map(|(name, _)| name.as_str()).collect();
    names.join(", ")
}

fn types(columns: &[(String, ArgType)]) -> Vec<ArgType> {
    columns.iter().map(|(_, of)| *of).collect()
}

fn select(table: &'static str, columns: &[(String, ArgType)]) -> String {
    format!("select {} from {table}", names(columns))
}

/// Copies a table row by row, and returns the content of the source.
async fn copy(
    from: &mut Tx,
    to: &mut Tx,
    table: &'static str,
    columns: &[(String, ArgType)],
) -> Result<TableContent> {
    let names = names(columns);
    let marks: Vec<_> = (1..=columns.len()).map(|n| format!("${n}")).collect();
    let insert = format!(
        "insert into {table} ({names}) values ({})",
        marks.join(", ")
    );
    let mut content = TableContent::default();
    from.each_row(select(table, columns), &types(columns), async |row| {
        content.add(&row);
        to.execute_any(insert.clone(), row).await
    })
    .await?;
    Ok(content)
}

async fn read(
    tx: &mut Tx,
    table: &'static str,
    columns: &[(String, ArgType)],
) -> Result<TableContent> {
    let mut content = TableContent::default();
    tx.each_row(select(table, columns), &types(columns), async |row| {
        content.add(&row);
        Ok(())
    })
    .await?;
    Ok(content)
}
