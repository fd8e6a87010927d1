//! A PostgreSQL database: many processes may serve it at once.
//!
//! It must be there and either be empty or be ours; what is looked at is the first schema of the
//! search path. Nothing is written before the keys are proven, and whoever comes first makes the
//! tables while the others wait.

use std::{str::FromStr, time::Duration};

use sqlx::{
    ConnectOptions, Connection, PgConnection,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use super::{
    db::{Db, PostgresPool},
    open::{OpenError, Opening, OpeningConnection},
};
use crate::{
    clock::Clock,
    crypto::{Chance, KeyRing},
};

const CONNECTIONS: u32 = 10;
/// How long a caller waits for a connection, and so for a server that is away.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// Held while tables are made: a number that no other application is likely to lock.
const MIGRATION_LOCK: i64 = 0x726f_6c65_6361_6c6c;

/// For each connection. A process that hangs in the middle of a transaction must not hold up the
/// others for ever; and the server's own defaults are not to be relied on for what keeps our
/// promises (an answered commit is on disk).
const SESSION: [(&str, &str); 5] = [
    ("default_transaction_isolation", "read committed"),
    ("idle_in_transaction_session_timeout", "10s"),
    ("lock_timeout", "10s"),
    ("statement_timeout", "60s"),
    ("synchronous_commit", "on"),
];

/// Opens the database at `url`.
pub(super) async fn open(
    url: &str,
    ring: &KeyRing,
    clock: &Clock,
    chance: &Chance,
) -> Result<Db, OpenError> {
    // Not the reason: it might repeat a part of the url, and so the password.
    let options = PgConnectOptions::from_str(url).map_err(|_| OpenError::Url)?;
    let place = place(&options);
    let database = |source| OpenError::database(&place, source);
    let options = match options.get_application_name() {
        Some(_) => options,
        None => options.application_name("rolecall"),
    }
    .options(SESSION);
    // Not through the pool, which would only say that it waited in vain.
    let mut connection = options.connect().await.map_err(database)?;
    prepare(&mut connection, &place, ring, clock, chance).await?;
    connection.close().await.map_err(database)?;
    let pool = PgPoolOptions::new()
        .max_connections(CONNECTIONS)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .connect_lazy_with(options);
    Ok(Db::Postgres(PostgresPool::new(pool)))
}

/// What [`Opening::inspect`] finds.
pub(super) async fn inspect(url: &str, ring: &KeyRing) -> Result<i64, OpenError> {
    let options = PgConnectOptions::from_str(url).map_err(|_| OpenError::Url)?;
    let place = place(&options);
    let database = |source| OpenError::database(&place, source);
    let mut connection = options.connect().await.map_err(database)?;
    let found = Opening {
        connection: OpeningConnection::Postgres(&mut connection),
        place: &place,
    }
    .inspect(ring)
    .await;
    connection.close().await.map_err(database)?;
    found
}

async fn prepare(
    connection: &mut PgConnection,
    place: &str,
    ring: &KeyRing,
    clock: &Clock,
    chance: &Chance,
) -> Result<(), OpenError> {
    let database = |source| OpenError::database(place, source);
    Opening {
        connection: OpeningConnection::Postgres(connection),
        place,
    }
    .inspect(ring)
    .await?;
    let mut tx = connection.begin().await.map_err(database)?;
    sqlx::query("select pg_advisory_xact_lock($1)")
        .bind(MIGRATION_LOCK)
        .execute(&mut *tx)
        .await
        .map_err(database)?;
    Opening {
        connection: OpeningConnection::Postgres(&mut tx),
        place,
    }
    .prepare(ring, clock, chance)
    .await?;
    tx.commit().await.map_err(database)
}

/// What an operator knows the database by, and no password.
fn place(options: &PgConnectOptions) -> String {
    let name = options.get_database().unwrap_or(options.get_username());
    match options.get_socket() {
        Some(socket) => format!("the PostgreSQL database {name} at {}", socket.display()),
        None => format!(
            "the PostgreSQL database {name} at {}:{}",
            options.get_host(),
            options.get_port()
        ),
    }
}
