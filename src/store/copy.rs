//! Moves everything from one database into another that is empty, whichever they are.
//!
//! What is stored is bound to a project, an account and a field, and not to a database; so rows
//! move as they are, and nothing is opened or sealed on the way. Each side is one transaction: the
//! source as it is at one moment, the target whole or not at all. Before that is committed, what
//! the target has is read back and compared, by number and by content.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::{
    OpenError, Store,
    db::{Arg, ArgType, Tx},
    replicas::DEAD_AFTER,
};
use crate::error::{Error, Result};

/// What is copied, in an order in which each row finds what it refers to.
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

/// What matters only to the processes that serve a database, while they do.
const LEFT_BEHIND: [&str; 4] = [
    "_sqlx_migrations",
    "replicas",
    "token_budgets",
    "budget_slices",
];

/// Why nothing was copied.
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

/// How many rows of one table were copied, and found equal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    pub table: &'static str,
    pub rows: u64,
}

/// What a table holds: the same for the same rows in whatever order.
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
        self.digest = self.digest.wrapping_add(hasher.finish());
    }
}

impl Store {
    /// Copies everything that is stored into `target`, which must be empty and whose keys must be
    /// the same. Nobody may serve either meanwhile.
    pub async fn copy_to(&self, target: &Store) -> Result<Vec<Copied>, CopyError> {
        self.claim()?;
        target.claim()?;
        let mut from = self.db.begin().await?;
        let mut to = target.db.begin().await?;
        from.freeze().await?;
        from.lift_time_outs().await?;
        to.lift_time_outs().await?;
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
        // The target's own known answer goes: the source's prove the same keys.
        to.execute("delete from key_checks", []).await?;
        know_every_table(&mut from).await?;

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
        // Whoever began meanwhile may have written what was not copied.
        if self.is_shared() && self.is_served(&mut self.db.begin().await?).await? {
            return Err(CopyError::Served("source"));
        }
        if target.is_served(&mut to).await? {
            return Err(CopyError::Served("target"));
        }
        to.commit().await?;
        Ok(copied)
    }

    /// Whether a process that serves this database gave a sign of life of late. Of a SQLite file
    /// the claim has told already.
    pub(super) async fn is_served(&self, tx: &mut Tx) -> Result<bool> {
        if !self.is_shared() {
            return Ok(false);
        }
        let now = tx.now(&self.clock).await?;
        let alive_after = now.saturating_sub(DEAD_AFTER).map_err(Error::internal)?;
        let alive: Option<(String,)> = tx
            .fetch_one(
                "select id from replicas where seen_at >= $1 limit 1",
                [alive_after.into()],
            )
            .await?;
        Ok(alive.is_some())
    }
}

/// A table that nobody has thought of here would be lost without a word.
async fn know_every_table(tx: &mut Tx) -> Result<()> {
    let sql = match tx.is_sqlite() {
        true => "select name from sqlite_master where type = 'table'",
        false => {
            "select cast(table_name as text) from information_schema.tables
             where table_schema = current_schema() and table_type = 'BASE TABLE'"
        }
    };
    let tables: Vec<(String,)> = tx.fetch(sql, []).await?;
    for (table,) in &tables {
        if !TABLES.contains(&table.as_str()) && !LEFT_BEHIND.contains(&table.as_str()) {
            return Err(Error::internal(format!(
                "`{table}` is neither copied nor left behind"
            )));
        }
    }
    Ok(())
}

/// A table's columns, by the types that the migrations give them.
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

/// Copies the rows of a table one by one, and gives what they came to.
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
