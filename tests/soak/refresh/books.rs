//! The database and the journals as they lie there, beside the gateway: what a process left when it
//! was killed is seen before another looks after it.

use std::{
    collections::{HashMap, HashSet},
    fs,
};

use sqlx::{Connection, PgConnection, SqliteConnection, sqlite::SqliteConnectOptions};

use crate::{process::House, schema::Schema};

/// The database of a proof.
pub enum Books {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

/// Says the same to either database.
macro_rules! on_either {
    ($connection:ident => $body:expr, $of:expr) => {
        match $of {
            Books::Sqlite($connection) => $body.unwrap(),
            Books::Postgres($connection) => $body.unwrap(),
        }
    };
}

/// A credential's row.
#[derive(Debug, Clone)]
pub struct Row {
    pub generation: u64,
    pub told: Told,
    /// Since when it is in this state, in milliseconds; of a refresh, when its intent was made.
    pub since_ms: i64,
    /// The node that redeems, if one does.
    pub node: Option<String>,
}

/// What the API says of a credential in this state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Told {
    Healthy,
    Refreshing,
    Uncertain,
    ReauthRequired,
}

type Columns = (String, i64, String, i64, i64, Option<String>);

impl Books {
    pub async fn open(house: &House, schema: Option<&Schema>) -> Self {
        match schema {
            Some(schema) => Self::Postgres(schema.connect().await),
            None => {
                let options = SqliteConnectOptions::new().filename(house.path("rolecall.db"));
                Self::Sqlite(SqliteConnection::connect_with(&options).await.unwrap())
            }
        }
    }

    /// Every credential, by account.
    pub async fn rows(&mut self) -> HashMap<String, Row> {
        let sql = "select account, generation, state, is_doubtful, state_since, intent_node
                   from credentials";
        let rows: Vec<Columns> =
            on_either!(connection => sqlx::query_as(sql).fetch_all(connection).await, self);
        rows.into_iter()
            .map(
                |(account, generation, state, is_doubtful, since_ms, node)| {
                    let told = match state.as_str() {
                        "idle" => Told::Healthy,
                        "in_flight" if is_doubtful == 0 => Told::Refreshing,
                        "in_flight" | "uncertain" => Told::Uncertain,
                        "reauth" => Told::ReauthRequired,
                        other => panic!("{other} is no state of these accounts"),
                    };
                    let row = Row {
                        generation: generation.try_into().unwrap(),
                        told,
                        since_ms,
                        node,
                    };
                    (account, row)
                },
            )
            .collect()
    }

    /// Keeps every write of a credential waiting, until [`release`](Self::release).
    pub async fn lock(&mut self) {
        let sql = match self {
            Self::Sqlite(_) => "begin immediate",
            Self::Postgres(_) => "begin; lock table credentials in exclusive mode",
        };
        on_either!(connection => sqlx::raw_sql(sql).execute(connection).await.map(drop), self);
    }

    pub async fn release(&mut self) {
        on_either!(connection => sqlx::raw_sql("rollback").execute(connection).await.map(drop), self);
    }

    /// As if a minute and a half had passed for what is in doubt, for what `dead` left in flight,
    /// and for processes that are silent. Of what is in order nothing moves.
    pub async fn later(&mut self, dead: &str) {
        let in_doubt = "update credentials
                        set due_at = due_at - 91000, refused_at = refused_at - 91000
                        where state = 'uncertain' or intent_node = $1";
        on_either!(
            connection => sqlx::query(in_doubt).bind(dead).execute(connection).await.map(drop), self
        );
        let silent = "update replicas set seen_at = seen_at - 91000
                      where seen_at < (select max(seen_at) from replicas) - 4000";
        on_either!(connection => sqlx::raw_sql(silent).execute(connection).await.map(drop), self);
    }
}

/// What a process's node is called in the rows. A SQLite file has one node, without a name.
pub fn node(house: &House, books: &Books) -> String {
    match books {
        Books::Sqlite(_) => String::new(),
        Books::Postgres(_) => {
            let name = fs::read_to_string(house.journal().join("node"));
            name.unwrap_or_default().trim().to_owned()
        }
    }
}

/// The pairs that wait in a process's journal: of which account, and the generation that was
/// redeemed for each.
pub fn journaled(house: &House) -> HashSet<(String, u64)> {
    let Ok(files) = fs::read_dir(house.journal()) else {
        return HashSet::new();
    };
    files
        .filter_map(|file| {
            let name = file.ok()?.file_name().into_string().ok()?;
            let (account, generation) = name.strip_suffix(".pair")?.rsplit_once('-')?;
            Some((account.to_owned(), generation.parse().ok()?))
        })
        .collect()
}
