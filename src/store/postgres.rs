//! Opening a PostgreSQL database. Several processes may serve it at the same time.
//!
//! The database must exist and must be empty or contain Rolecall's tables. Only the first schema of
//! the search path counts. Nothing is written before the keys are checked. The first process
//! creates the tables while the others wait.
//!
//! A connection pooler that lends a server connection for one transaction (PgBouncer's
//! `pool_mode = transaction`) is supported. The url names that mode, or the first connection
//! detects it: such a pooler rejects or drops our session settings.

use std::{str::FromStr, time::Duration};

use sqlx::{
    ConnectOptions, Connection, PgConnection, Postgres, Row, Transaction,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use url::{Host, Url};

use super::{
    condition::Condition,
    db::{BEGIN_IN_TRANSACTION_MODE, Db, PoolMode, PostgresPools},
    open::{OpenError, Opening, OpeningConnection, RowFormat},
    workload::LOOKUP_CONNECTIONS,
};
use crate::{
    clock::Clock,
    crypto::{KeyRing, Rng},
};

const CONNECTIONS: u32 = 10;
/// Timeout for a free connection, and so also for a server that does not respond.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// The advisory lock held during migrations. Other applications are unlikely to use this number.
const MIGRATION_LOCK: i64 = 0x726f_6c65_6361_6c6c;

/// Settings of each session. A process that hangs inside a transaction must not block the others
/// forever. The settings do not rely on the server's defaults, since a committed transaction must
/// be on disk.
const SESSION: [(&str, &str); 5] = [
    ("default_transaction_isolation", "read committed"),
    ("idle_in_transaction_session_timeout", "10s"),
    ("lock_timeout", "10s"),
    ("statement_timeout", "60s"),
    ("synchronous_commit", "on"),
];

/// How to connect to a database.
struct Target {
    options: PgConnectOptions,
    mode: PoolMode,
    /// The database's name in messages to the operator, without the password.
    place: String,
}

impl Target {
    /// # Errors
    /// [`OpenError::Url`], without a reason: the reason might quote the url, and so the password.
    fn parse(url: &str) -> Result<Self, OpenError> {
        let mut url = Url::parse(url).map_err(|_| OpenError::Url)?;
        let mut mode = PoolMode::Session;
        let mut parameters: Vec<(String, String)> = url.query_pairs().into_owned().collect();
        for (name, value) in &parameters {
            mode = match (name.as_str(), value.as_str()) {
                ("pool_mode", "session") => PoolMode::Session,
                ("pool_mode", "transaction") | ("statement-cache-capacity", "0") => {
                    PoolMode::Transaction
                }
                ("pool_mode", _) => return Err(OpenError::PoolMode),
                _ => mode,
            };
        }
        parameters.retain(|(name, _)| name != "pool_mode");
        // sqlx would resolve an IPv6 address in brackets as a host name.
        if let Some(Host::Ipv6(address)) = url.host()
            && !parameters.iter().any(|(name, _)| name.starts_with("host"))
        {
            parameters.push(("host".to_owned(), address.to_string()));
        }
        url.query_pairs_mut().clear().extend_pairs(&parameters);
        let options = PgConnectOptions::from_str(url.as_str()).map_err(|_| OpenError::Url)?;
        let options = match options.get_application_name() {
            Some(_) => options,
            None => options.application_name("rolecall"),
        };
        Ok(Self {
            place: place(&options),
            // Poolers reject this setting for the digits of floats, and no table has a float.
            options: options.extra_float_digits(None),
            mode,
        })
    }

    fn options(&self) -> PgConnectOptions {
        match self.mode {
            PoolMode::Session => self.options.clone().options(SESSION),
            PoolMode::Transaction => self.options.clone(),
        }
    }

    fn fault(&self, source: sqlx::Error) -> OpenError {
        OpenError::database(&self.place, source)
    }

    /// Opens the first connection, and detects a pooler.
    async fn connect(&mut self) -> Result<PgConnection, OpenError> {
        // Bypass the pool: it would report only its own timeout, not the server's error.
        let connected = self.options().connect().await;
        if self.mode == PoolMode::Transaction {
            return connected.map_err(|source| self.fault(source));
        }
        match connected {
            Ok(mut connection) => {
                if has_session(&mut connection).await {
                    return Ok(connection);
                }
                drop(connection.close().await);
            }
            Err(error) if is_refused_parameter(&error) => {}
            Err(error) => return Err(self.fault(error)),
        }
        tracing::warn!(
            "a pooler stands before the database; add pool_mode=transaction to `store.url`"
        );
        self.mode = PoolMode::Transaction;
        let connected = self.options().connect().await;
        connected.map_err(|source| self.fault(source))
    }

    async fn begin<'c>(
        &self,
        connection: &'c mut PgConnection,
    ) -> Result<Transaction<'c, Postgres>, OpenError> {
        let begun = match self.mode {
            PoolMode::Session => connection.begin().await,
            PoolMode::Transaction => connection.begin_with(BEGIN_IN_TRANSACTION_MODE).await,
        };
        begun.map_err(|source| self.fault(source))
    }
}

/// True if the session has our settings. Queries without a prepared statement, which might be lost
/// behind a pooler.
async fn has_session(connection: &mut PgConnection) -> bool {
    let found = sqlx::raw_sql("select current_setting('lock_timeout')")
        .fetch_one(connection)
        .await;
    let found = found.and_then(|row| row.try_get::<String, _>(0));
    found.is_ok_and(|found| SESSION.contains(&("lock_timeout", found.as_str())))
}

/// True for PgBouncer's error about an unsupported startup parameter.
fn is_refused_parameter(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| {
        error.code().as_deref() == Some("08P01") && error.message().contains("startup parameter")
    })
}

/// Opens the database at `url`. Creates the tables if they are missing.
pub(super) async fn open(
    url: &str,
    ring: &KeyRing,
    clock: &Clock,
    rng: &Rng,
) -> Result<(Db, RowFormat), OpenError> {
    let mut target = Target::parse(url)?;
    let mut connection = target.connect().await?;
    let format = prepare(&target, &mut connection, ring, clock, rng).await?;
    let closed = connection.close().await;
    closed.map_err(|source| target.fault(source))?;
    let condition = Condition::new(clock.clone());
    let pool = |connections| {
        let (before, after) = (condition.clone(), condition.clone());
        PgPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            // `before_acquire` does this test, after it has discarded outdated connections: a
            // connection to a lost server does not answer.
            .test_before_acquire(false)
            .before_acquire(move |connection, meta| {
                let is_current = before.is_current(meta.age);
                Box::pin(async move { Ok(is_current && connection.ping().await.is_ok()) })
            })
            .after_release(move |_, meta| {
                let is_current = after.is_current(meta.age);
                Box::pin(async move { Ok(is_current) })
            })
            .connect_lazy_with(target.options())
    };
    let pools = PostgresPools::new(pool(CONNECTIONS), pool(LOOKUP_CONNECTIONS), target.mode);
    Ok((Db::postgres(pools, condition), format))
}

/// Runs [`Opening::inspect`] on the database at `url`.
pub(super) async fn inspect(url: &str, ring: &KeyRing) -> Result<i64, OpenError> {
    let mut target = Target::parse(url)?;
    let mut connection = target.connect().await?;
    let mut tx = target.begin(&mut connection).await?;
    let found = Opening {
        connection: OpeningConnection::Postgres(&mut tx),
        place: &target.place,
    }
    .inspect(ring)
    .await;
    drop(tx);
    let closed = connection.close().await;
    closed.map_err(|source| target.fault(source))?;
    found
}

/// Checks that the database accepts writes: makes one and rolls it back.
pub(super) async fn try_write(url: &str) -> Result<(), OpenError> {
    let mut target = Target::parse(url)?;
    let mut connection = target.connect().await?;
    let mut tx = target.begin(&mut connection).await?;
    let tables = "select cast(count(*) as text) from information_schema.tables
                  where table_schema = current_schema() and table_name = 'key_checks'";
    let found = sqlx::raw_sql(tables).fetch_one(&mut *tx).await;
    let found = found.and_then(|row| row.try_get::<String, _>(0));
    let write = match found.map_err(|source| target.fault(source))?.as_str() {
        "0" => "create table key_checks (key_id text)",
        _ => "update key_checks set created_at = created_at",
    };
    let tried = sqlx::raw_sql(write).execute(&mut *tx).await;
    let taken_back = tx.rollback().await;
    let closed = connection.close().await;
    let tried = tried.map(drop).and(taken_back).and(closed);
    tried.map_err(|source| target.fault(source))
}

async fn prepare(
    target: &Target,
    connection: &mut PgConnection,
    ring: &KeyRing,
    clock: &Clock,
    rng: &Rng,
) -> Result<RowFormat, OpenError> {
    let database = |source| target.fault(source);
    let place = target.place.as_str();
    let mut tx = target.begin(connection).await?;
    Opening {
        connection: OpeningConnection::Postgres(&mut tx),
        place,
    }
    .inspect(ring)
    .await?;
    tx.rollback().await.map_err(database)?;
    let mut tx = target.begin(connection).await?;
    forget_statements(target, &mut tx).await?;
    sqlx::query("select pg_advisory_xact_lock($1)")
        .persistent(false)
        .bind(MIGRATION_LOCK)
        .execute(&mut *tx)
        .await
        .map_err(database)?;
    let format = Opening {
        connection: OpeningConnection::Postgres(&mut tx),
        place,
    }
    .prepare(ring, clock, rng)
    .await?;
    forget_statements(target, &mut tx).await?;
    tx.commit().await.map_err(database)?;
    Ok(format)
}

/// Deallocates named prepared statements. Migrations prepare statements by name. In transaction
/// pooling mode they stay on the server connection and would clash with those of its next user.
/// Those of an interrupted start would clash with ours.
async fn forget_statements(
    target: &Target,
    tx: &mut Transaction<'_, Postgres>,
) -> Result<(), OpenError> {
    if target.mode == PoolMode::Session {
        return Ok(());
    }
    let forgotten = sqlx::raw_sql("deallocate all").execute(&mut **tx).await;
    forgotten.map(drop).map_err(|source| target.fault(source))
}

/// The database's name in messages to the operator, without the password.
fn place(options: &PgConnectOptions) -> String {
    let name = options.get_database().unwrap_or(options.get_username());
    match options.get_socket() {
        Some(socket) => format!("the PostgreSQL database {name} at {}", socket.display()),
        None => {
            let (host, port) = (options.get_host(), options.get_port());
            let host = match host.contains(':') {
                true => format!("[{host}]"),
                false => host.to_owned(),
            };
            format!("the PostgreSQL database {name} at {host}:{port}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_address_is_written_in_brackets_in_a_url_and_nowhere_else() {
        for (url, host, port) in [
            ("postgres://user@[::1]:5432/db", "::1", 5432),
            (
                "postgres://user:p%40ss@[2001:db8::7]/db?sslmode=disable",
                "2001:db8::7",
                5432,
            ),
            (
                "postgresql://user@[::ffff:127.0.0.1]:6543/db",
                "::ffff:127.0.0.1",
                6543,
            ),
            ("postgres://user@127.0.0.1:5432/db", "127.0.0.1", 5432),
            ("postgres://user@db.example.com/db", "db.example.com", 5432),
            ("postgres://user@[::1]:5432/db?host=other", "other", 5432),
        ] {
            let target = Target::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"));
            assert_eq!(target.options.get_host(), host, "{url}");
            assert_eq!(target.options.get_port(), port, "{url}");
            assert_eq!(target.options.get_database(), Some("db"), "{url}");
        }
        let target = Target::parse("postgres://user@[::1]:5432/db").ok().unwrap();
        assert_eq!(target.place, "the PostgreSQL database db at [::1]:5432");
    }

    #[test]
    fn the_url_says_how_connections_are_pooled() {
        for (url, mode) in [
            ("postgres://h/db", PoolMode::Session),
            ("postgres://h/db?pool_mode=session", PoolMode::Session),
            (
                "postgres://h/db?sslmode=disable&pool_mode=transaction",
                PoolMode::Transaction,
            ),
            (
                "postgres://h/db?statement-cache-capacity=0",
                PoolMode::Transaction,
            ),
        ] {
            assert_eq!(Target::parse(url).ok().unwrap().mode, mode, "{url}");
        }
        let refused = Target::parse("postgres://h/db?pool_mode=statement");
        assert!(matches!(refused, Err(OpenError::PoolMode)));
    }
}
