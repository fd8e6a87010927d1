//! All differences between the databases: connections, the start of a transaction, the binding of a
//! value, the meaning of an error code. The rest of the store writes one SQL text with `$1`
//! placeholders and never names a backend.

use std::{path::Path, time::Duration};

use futures_util::TryStreamExt;
use jiff::Timestamp;
use sqlx::{
    AssertSqlSafe, Connection, Encode, FromRow, PgPool, Postgres, Row, SqlSafeStr, SqlStr, Sqlite,
    SqlitePool, Transaction, Type,
    encode::IsNull,
    error::{BoxDynError, DatabaseError},
    postgres::{PgArgumentBuffer, PgDatabaseError, PgRow, PgSeverity, PgTypeInfo},
    sqlite::{
        SqliteArgumentsBuffer, SqliteConnectOptions, SqliteError, SqlitePoolOptions, SqliteRow,
        SqliteSynchronous, SqliteTypeInfo,
    },
};
use tokio::runtime::Handle;

use super::{
    condition::{Condition, StatementFault},
    workload::{LOOKUP_CONNECTIONS, StatementPermit, Workload, Workloads},
};
use crate::{
    clock::Clock,
    error::{Error, Kind, Result},
    model::id::{Id, ProjectId},
};

/// The time after which a caller may retry when the store is unavailable.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// How long SQLite waits for a lock that another process holds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
const READERS: u32 = 4;
/// How long PostgreSQL may take to answer a read before its connection is dropped. Longer than the
/// server's own limit, `statement_timeout`.
const ANSWER_WITHIN: Duration = Duration::from_secs(70);
/// The same for a look-up, which waits for no other statement.
const LOOKUP_ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// The advisory lock for a transaction that changes or uses the wrapping ring key. Another
/// application is unlikely to lock this number.
const RING_LOCK: i64 = 0x726f_6c65_7269_6e67;
/// The size in bytes that SQLite truncates the write-ahead log to after a checkpoint.
const WAL_KEPT: &str = "67108864";

/// Repeats an expression once per backend.
macro_rules! each_backend {
    ($inner:ident => $body:expr, $of:expr) => {
        match $of {
            Backend::Sqlite($inner) => $body,
            Backend::Postgres($inner) => $body,
        }
    };
}

#[derive(Debug, Clone)]
enum Backend<S, P> {
    Sqlite(S),
    Postgres(P),
}

/// The pools of one database, its condition and its workloads.
#[derive(Debug, Clone)]
pub(super) struct Db {
    pools: Backend<SqlitePools, PostgresPools>,
    condition: Condition,
    workloads: Workloads,
    workload: Workload,
}

/// The connections to PostgreSQL, all opened on one runtime. A socket lives only as long as the
/// runtime that opened it, and each thread of a server has a runtime of its own, which ends before
/// the last write.
#[derive(Debug, Clone)]
pub(super) struct PostgresPools {
    general: PgPool,
    lookups: PgPool,
    runtime: Handle,
    mode: PoolMode,
}

/// Whether a connection keeps the same server session between transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PoolMode {
    /// Yes, as without a pooler.
    Session,
    /// No, only within one, as with PgBouncer's `pool_mode = transaction`. Every statement
    /// therefore runs in a transaction, which sets the session settings for itself and leaves
    /// nothing in the session, such as a named prepared statement.
    Transaction,
}

impl PoolMode {
    /// True if a later statement can find a prepared statement by its name.
    pub(super) fn keeps_statements(self) -> bool {
        self == Self::Session
    }
}

/// Begins a transaction with the settings that [`super::postgres`] otherwise gives the session.
pub(super) const BEGIN_IN_TRANSACTION_MODE: &str = "begin isolation level read committed; \
     set local idle_in_transaction_session_timeout = '10s'; set local lock_timeout = '10s'; \
     set local statement_timeout = '60s'; set local synchronous_commit = on";

impl PostgresPools {
    /// Takes pools whose connections are opened on the current runtime.
    pub(super) fn new(general: PgPool, lookups: PgPool, mode: PoolMode) -> Self {
        Self {
            general,
            lookups,
            runtime: Handle::current(),
            mode,
        }
    }

    async fn begin(&self) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
        match self.mode {
            PoolMode::Session => self.general.begin().await,
            PoolMode::Transaction => self.general.begin_with(BEGIN_IN_TRANSACTION_MODE).await,
        }
    }

    async fn fetch_all<T: DbRow>(
        &self,
        sql: Sql,
        args: Vec<Arg>,
        workload: &Workload,
    ) -> Result<Vec<T>, sqlx::Error> {
        let (pool, answer_within) = if workload.is_lookup() {
            (&self.lookups, LOOKUP_ANSWER_WITHIN)
        } else {
            (&self.general, ANSWER_WITHIN)
        };
        let mut connection = pool.acquire().await?;
        let persistent = sql.is_fixed() && self.mode.keeps_statements();
        let query = args
            .into_iter()
            .fold(sqlx::query_as(sql), |query, arg| query.bind(arg));
        let answer = async {
            if self.mode.keeps_statements() {
                return query
                    .persistent(persistent)
                    .fetch_all(&mut *connection)
                    .await;
            }
            let mut tx = connection.begin_with(BEGIN_IN_TRANSACTION_MODE).await?;
            let rows = query.persistent(false).fetch_all(&mut *tx).await?;
            tx.commit().await?;
            Ok(rows)
        };
        if let Ok(found) = tokio::time::timeout(answer_within, answer).await {
            return found;
        }
        // Closes the socket, so that the pool does not reuse a connection in the middle of a
        // statement.
        drop(connection.detach());
        let message = "the database does not answer";
        Err(sqlx::Error::Io(std::io::Error::new(
            std::io::ErrorKind::TimedOut,
            message,
        )))
    }
}

/// SQLite allows one writer at a time. There is therefore one writing connection, and transactions
/// wait for it in the pool's fair queue instead of SQLite's busy loop.
#[derive(Debug, Clone)]
pub(super) struct SqlitePools {
    pub(super) writer: SqlitePool,
    pub(super) readers: SqlitePool,
    lookups: SqlitePool,
}

/// A transaction that may write. Dropped without [`commit`](Self::commit), it changes nothing.
pub(super) struct Tx {
    inner: Backend<Transaction<'static, Sqlite>, Transaction<'static, Postgres>>,
    condition: Condition,
    keeps_statements: bool,
    has_written: bool,
    _place: StatementPermit,
}

/// The text of a statement.
enum Sql {
    Fixed(&'static str),
    /// Built at run time from our own names. It is not kept as a prepared statement.
    Built(String),
}

impl Sql {
    const fn is_fixed(&self) -> bool {
        matches!(self, Self::Fixed(_))
    }
}

impl SqlSafeStr for Sql {
    fn into_sql_str(self) -> SqlStr {
        match self {
            Self::Fixed(sql) => sql.into_sql_str(),
            Self::Built(sql) => AssertSqlSafe(sql).into_sql_str(),
        }
    }
}

/// A row of a query: a tuple of text, integers and bytes.
pub(super) trait DbRow:
    for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin + 'static
{
}
impl<T> DbRow for T where
    T: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin + 'static
{
}

impl Db {
    pub(super) fn sqlite(pools: SqlitePools, condition: Condition) -> Self {
        Self {
            pools: Backend::Sqlite(pools),
            condition,
            // Half of the readers, and one transaction that waits for the writer.
            workloads: Workloads::new(2, 1),
            workload: Workload::default(),
        }
    }

    pub(super) fn postgres(pools: PostgresPools, condition: Condition) -> Self {
        Self {
            pools: Backend::Postgres(pools),
            condition,
            // Half of the connections, which reads and writes share.
            workloads: Workloads::new(3, 2),
            workload: Workload::default(),
        }
    }

    /// The same database for the requests of a project.
    #[must_use]
    pub(super) fn for_project(&self, project: &ProjectId) -> Self {
        self.for_workload(self.workloads.of_project(project))
    }

    /// The same database for other work.
    #[must_use]
    pub(super) fn for_workload(&self, workload: Workload) -> Self {
        Self {
            workload,
            ..self.clone()
        }
    }

    pub(super) const fn condition(&self) -> &Condition {
        &self.condition
    }

    /// Begins a transaction that may write.
    ///
    /// It runs in a task of its own, because a caller may be dropped at any await (a client that
    /// hangs up drops its future), and an abandoned `BEGIN` would leave its connection in a state
    /// that the pool does not see. For the same reason, no timeout and no `select!` may ever wrap
    /// the inside of this.
    pub(super) async fn begin(&self) -> Result<Tx> {
        let place = self.workloads.acquire_write(&self.workload).await?;
        let mut keeps_statements = true;
        let begun = match self.pools.clone() {
            // IMMEDIATE, because SQLite refuses a deferred transaction that reads first and then
            // writes if another connection has written in between. The busy timeout does not help
            // there.
            Backend::Sqlite(pools) => tokio::spawn(async move {
                let begun = pools.writer.begin_with("begin immediate").await;
                begun.map(Backend::Sqlite)
            }),
            Backend::Postgres(pools) => {
                keeps_statements = pools.mode.keeps_statements();
                let runtime = pools.runtime.clone();
                runtime.spawn(async move { pools.begin().await.map(Backend::Postgres) })
            }
        }
        .await
        .map_err(Error::internal)?;
        Ok(Tx {
            inner: record_outcome(&self.condition, begun, StatementKind::ToBegin)?,
            condition: self.condition.clone(),
            keeps_statements,
            has_written: false,
            _place: place,
        })
    }

    /// All rows of a read outside of a transaction.
    pub(super) async fn fetch<T: DbRow, const N: usize>(
        &self,
        sql: &'static str,
        args: [Arg; N],
    ) -> Result<Vec<T>> {
        self.fetch_all(Sql::Fixed(sql), args.into()).await
    }

    async fn fetch_all<T: DbRow>(&self, sql: Sql, args: Vec<Arg>) -> Result<Vec<T>> {
        let _place = self.workloads.acquire_read(&self.workload).await?;
        let found = match self.pools.clone() {
            Backend::Sqlite(pools) => {
                let pool = if self.workload.is_lookup() {
                    &pools.lookups
                } else {
                    &pools.readers
                };
                let persistent = sql.is_fixed();
                args.into_iter()
                    .fold(sqlx::query_as(sql), |query, arg| query.bind(arg))
                    .persistent(persistent)
                    .fetch_all(pool)
                    .await
            }
            Backend::Postgres(pools) => {
                let (runtime, workload) = (pools.runtime.clone(), self.workload.clone());
                runtime
                    .spawn(async move { pools.fetch_all(sql, args, &workload).await })
                    .await
                    .map_err(Error::internal)?
            }
        };
        record_outcome(&self.condition, found, StatementKind::ToRead)
    }

    /// As [`fetch`](Self::fetch), for a statement that was built from our own names.
    pub(super) async fn fetch_any<T: DbRow>(&self, sql: String, args: Vec<Arg>) -> Result<Vec<T>> {
        self.fetch_all(Sql::Built(sql), args).await
    }

    /// The row of a read that returns at most one.
    pub(super) async fn fetch_one<T: DbRow, const N: usize>(
        &self,
        sql: &'static str,
        args: [Arg; N],
    ) -> Result<Option<T>> {
        Ok(self.fetch(sql, args).await?.pop())
    }

    /// Removes overwritten data from SQLite's write-ahead log, as far as no reader still needs it.
    /// PostgreSQL removes it by itself later.
    pub(super) async fn wipe(&self) {
        if let Backend::Sqlite(pools) = &self.pools {
            let wiped = sqlx::query("pragma wal_checkpoint(truncate)")
                .execute(&pools.writer)
                .await;
            if let Err(error) = wiped {
                tracing::debug!(%error, "the write-ahead log is emptied later");
            }
        }
    }

    /// Waits for transactions in progress, then closes every connection.
    pub(super) async fn close(&self) {
        match &self.pools {
            Backend::Sqlite(pools) => {
                // The writer closes last: the last connection to close copies the write-ahead log
                // into the file, which a read-only connection cannot do.
                pools.lookups.close().await;
                pools.readers.close().await;
                pools.writer.close().await;
            }
            Backend::Postgres(pools) => {
                tokio::join!(pools.general.close(), pools.lookups.close());
            }
        }
        self.condition.closed();
    }
}

impl Tx {
    pub(super) async fn fetch<T: DbRow, const N: usize>(
        &mut self,
        sql: &'static str,
        args: [Arg; N],
    ) -> Result<Vec<T>> {
        let persistent = self.keeps_statements;
        let found = each_backend!(tx => {
            args.into_iter()
                .fold(sqlx::query_as(sql), |query, arg| query.bind(arg))
                .persistent(persistent)
                .fetch_all(&mut **tx)
                .await
        }, &mut self.inner);
        record_outcome(&self.condition, found, StatementKind::InTransaction)
    }

    pub(super) async fn fetch_one<T: DbRow, const N: usize>(
        &mut self,
        sql: &'static str,
        args: [Arg; N],
    ) -> Result<Option<T>> {
        Ok(self.fetch(sql, args).await?.pop())
    }

    /// The number of rows that the statement changed.
    pub(super) async fn execute<const N: usize>(
        &mut self,
        sql: &'static str,
        args: [Arg; N],
    ) -> Result<u64> {
        let persistent = self.keeps_statements;
        let done = each_backend!(tx => {
            args.into_iter()
                .fold(sqlx::query(sql), |query, arg| query.bind(arg))
                .persistent(persistent)
                .execute(&mut **tx)
                .await
                .map(|done| done.rows_affected())
        }, &mut self.inner);
        let changed = record_outcome(&self.condition, done, StatementKind::InTransaction)?;
        self.has_written |= changed > 0;
        Ok(changed)
    }

    /// Makes the transaction read-only and gives it one snapshot. It must be the first call in it.
    pub(super) async fn freeze(&mut self) -> Result<()> {
        match &self.inner {
            // An immediate transaction keeps all other writers out.
            Backend::Sqlite(_) => Ok(()),
            Backend::Postgres(_) => {
                let sql = "set transaction isolation level repeatable read, read only";
                self.execute(sql, []).await.map(drop)
            }
        }
    }

    /// Waits for other transactions that change or use the wrapping ring key, and blocks them until
    /// this transaction ends.
    pub(super) async fn lock_ring(&mut self) -> Result<()> {
        match &self.inner {
            // An immediate transaction keeps all other writers out.
            Backend::Sqlite(_) => Ok(()),
            Backend::Postgres(_) => {
                let sql = "select cast(pg_advisory_xact_lock($1) as text)";
                self.fetch::<(String,), 1>(sql, [Arg::Int(Some(RING_LOCK))])
                    .await
                    .map(drop)
            }
        }
    }

    /// Blocks inserts that reference this project until the transaction ends; false if there is no
    /// such project.
    pub(super) async fn lock_project(&mut self, project: &ProjectId) -> Result<bool> {
        let sql = match &self.inner {
            Backend::Sqlite(_) => "select id from projects where id = $1 and deleted_at is null",
            // An update of the row would not block an insert that references it.
            Backend::Postgres(_) => {
                "select id from projects where id = $1 and deleted_at is null for update"
            }
        };
        let row: Option<(String,)> = self.fetch_one(sql, [project.into()]).await?;
        Ok(row.is_some())
    }

    /// Blocks the deletion of this project until the transaction ends; false if it is deleted
    /// already.
    pub(super) async fn hold_project(&mut self, project: &ProjectId) -> Result<bool> {
        let sql = match &self.inner {
            Backend::Sqlite(_) => "select id from projects where id = $1 and deleted_at is null",
            Backend::Postgres(_) => {
                "select id from projects where id = $1 and deleted_at is null for key share"
            }
        };
        let row: Option<(String,)> = self.fetch_one(sql, [project.into()]).await?;
        Ok(row.is_some())
    }

    /// Blocks other changes of this project's keys until the transaction ends; false if there is no
    /// such project. Inserts that reference the project are not blocked: their transaction may hold
    /// the lock on the audit log, which this one needs later.
    pub(super) async fn lock_keys(&mut self, project: &ProjectId) -> Result<bool> {
        let sql = match &self.inner {
            Backend::Sqlite(_) => "select id from projects where id = $1 and deleted_at is null",
            Backend::Postgres(_) => {
                "select id from projects where id = $1 and deleted_at is null for no key update"
            }
        };
        let row: Option<(String,)> = self.fetch_one(sql, [project.into()]).await?;
        Ok(row.is_some())
    }

    /// Limits each wait for a lock to 200 ms, for a transaction that can be retried later.
    pub(super) async fn wait_for_locks_briefly(&mut self) -> Result<()> {
        match &self.inner {
            Backend::Sqlite(_) => Ok(()),
            Backend::Postgres(_) => {
                let sql = "set local lock_timeout = '200ms'";
                self.execute(sql, []).await.map(drop)
            }
        }
    }

    /// Removes the statement and idle timeouts, for a transaction that may take long.
    pub(super) async fn disable_timeouts(&mut self) -> Result<()> {
        match &self.inner {
            Backend::Sqlite(_) => Ok(()),
            Backend::Postgres(_) => {
                self.execute("set local statement_timeout = 0", []).await?;
                let sql = "set local idle_in_transaction_session_timeout = 0";
                self.execute(sql, []).await.map(drop)
            }
        }
    }

    /// Passes each row of a query to `with`. The columns have the types in `of`.
    pub(super) async fn each_row(
        &mut self,
        sql: String,
        of: &[ArgType],
        mut with: impl AsyncFnMut(Vec<Arg>) -> Result<()>,
    ) -> Result<()> {
        let (persistent, condition) = (self.keeps_statements, self.condition.clone());
        let fault = |error| record_error(&condition, error, StatementKind::InTransaction);
        each_backend!(tx => {
            let query = sqlx::query(AssertSqlSafe(sql)).persistent(persistent);
            let mut rows = query.fetch(&mut **tx);
            while let Some(row) = rows.try_next().await.map_err(fault)? {
                let column = |(index, of): (usize, &ArgType)| match of {
                    ArgType::Text => row.try_get(index).map(Arg::Text),
                    ArgType::Int => row.try_get(index).map(Arg::Int),
                    ArgType::Bytes => row.try_get(index).map(Arg::Bytes),
                };
                let values: Result<Vec<_>, _> = of.iter().enumerate().map(column).collect();
                with(values.map_err(fault)?).await?;
            }
            Ok(())
        }, &mut self.inner)
    }

    /// Executes a statement that was built from our own names.
    pub(super) async fn execute_any(&mut self, sql: String, args: Vec<Arg>) -> Result<()> {
        let persistent = self.keeps_statements;
        let done = each_backend!(tx => {
            args.into_iter()
                .fold(sqlx::query(AssertSqlSafe(sql)), |query, arg| query.bind(arg))
                .persistent(persistent)
                .execute(&mut **tx)
                .await
                .map(drop)
        }, &mut self.inner);
        record_outcome(&self.condition, done, StatementKind::InTransaction)
    }

    /// The time that all processes of one database share: PostgreSQL's clock, or for a SQLite file
    /// the clock of the one process that serves it.
    pub(super) async fn now(&mut self, clock: &Clock) -> Result<Timestamp> {
        match &self.inner {
            Backend::Sqlite(_) => Ok(clock.now()),
            Backend::Postgres(_) => {
                let sql = "select cast(extract(epoch from clock_timestamp()) * 1000 as bigint)";
                let (millis,) = self
                    .fetch_one::<(i64,), 0>(sql, [])
                    .await?
                    .ok_or_else(|| Error::internal("the database does not tell the time"))?;
                Timestamp::from_millisecond(millis).map_err(Error::internal)
            }
        }
    }

    /// Commits. On return, the writes survive a power cut.
    pub(super) async fn commit(self) -> Result<()> {
        let committed = each_backend!(tx => tx.commit().await, self.inner);
        record_outcome(&self.condition, committed, StatementKind::InTransaction)?;
        if self.has_written {
            self.condition.wrote();
        }
        Ok(())
    }

    pub(super) const fn is_sqlite(&self) -> bool {
        matches!(self.inner, Backend::Sqlite(_))
    }
}

impl SqlitePools {
    /// Connects to a file that exists. This writes nothing, unless the file is new and empty.
    pub(super) async fn connect(path: &Path) -> Result<Self, sqlx::Error> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT);
        let pool = || {
            // A replaced connection would lose its cache and its part of the write-ahead log's
            // bookkeeping for nothing.
            SqlitePoolOptions::new()
                .idle_timeout(None)
                .max_lifetime(None)
        };
        let writer = pool()
            .max_connections(1)
            // A full disk or an I/O error makes SQLite roll back by itself. sqlx then still counts
            // a transaction that no longer exists, and every later BEGIN on the connection fails,
            // so such a connection is replaced. (The rollback of a dropped `Tx` has run by now: the
            // pool pings first, and the ping waits behind it.)
            .before_acquire(|connection, _| {
                Box::pin(async move { Ok(!connection.is_in_transaction()) })
            })
            .connect_with(
                options
                    .clone()
                    .journal_mode(sqlx::sqlite::SqliteJournalMode::Wal)
                    .synchronous(SqliteSynchronous::Full)
                    .pragma("journal_size_limit", WAL_KEPT)
                    // Overwrites a deleted credential in its page, although it is sealed.
                    .pragma("secure_delete", "fast"),
            )
            .await?;
        let options = options.read_only(true);
        let lookups = pool()
            .max_connections(LOOKUP_CONNECTIONS)
            .connect_lazy_with(options.clone());
        let readers = pool()
            .max_connections(READERS)
            .connect_with(options)
            .await?;
        Ok(Self {
            writer,
            readers,
            lookups,
        })
    }
}

/// The type of an [`Arg`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ArgType {
    Text,
    Int,
    Bytes,
}

/// A value for a `$1` placeholder.
#[derive(Debug, Hash)]
pub(super) enum Arg {
    Text(Option<String>),
    Int(Option<i64>),
    Bytes(Option<Vec<u8>>),
}

impl Encode<'_, Sqlite> for Arg {
    fn encode(self, buffer: &mut SqliteArgumentsBuffer) -> Result<IsNull, BoxDynError> {
        match self {
            Self::Text(text) => Encode::<Sqlite>::encode(text, buffer),
            Self::Int(int) => Encode::<Sqlite>::encode(int, buffer),
            Self::Bytes(bytes) => Encode::<Sqlite>::encode(bytes, buffer),
        }
    }

    fn encode_by_ref(&self, buffer: &mut SqliteArgumentsBuffer) -> Result<IsNull, BoxDynError> {
        match self {
            Self::Text(text) => Encode::<Sqlite>::encode_by_ref(text, buffer),
            Self::Int(int) => Encode::<Sqlite>::encode_by_ref(int, buffer),
            Self::Bytes(bytes) => Encode::<Sqlite>::encode_by_ref(bytes, buffer),
        }
    }
}

impl Type<Sqlite> for Arg {
    /// Never used: SQLite's values carry their own type.
    fn type_info() -> SqliteTypeInfo {
        <[u8] as Type<Sqlite>>::type_info()
    }
}

impl Encode<'_, Postgres> for Arg {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        match self {
            Self::Text(text) => Encode::<Postgres>::encode_by_ref(text, buffer),
            Self::Int(int) => Encode::<Postgres>::encode_by_ref(int, buffer),
            Self::Bytes(bytes) => Encode::<Postgres>::encode_by_ref(bytes, buffer),
        }
    }

    fn produces(&self) -> Option<PgTypeInfo> {
        Some(match self {
            Self::Text(_) => <str as Type<Postgres>>::type_info(),
            Self::Int(_) => <i64 as Type<Postgres>>::type_info(),
            Self::Bytes(_) => <[u8] as Type<Postgres>>::type_info(),
        })
    }
}

impl Type<Postgres> for Arg {
    /// Never used: each value returns its own type from `produces`.
    fn type_info() -> PgTypeInfo {
        <[u8] as Type<Postgres>>::type_info()
    }
}

impl From<String> for Arg {
    fn from(text: String) -> Self {
        Self::Text(Some(text))
    }
}
impl From<&str> for Arg {
    fn from(text: &str) -> Self {
        Self::Text(Some(text.to_owned()))
    }
}
impl From<Option<String>> for Arg {
    fn from(text: Option<String>) -> Self {
        Self::Text(text)
    }
}
impl From<&ProjectId> for Arg {
    fn from(id: &ProjectId) -> Self {
        id.as_str().into()
    }
}
impl<T> From<Id<T>> for Arg {
    fn from(id: Id<T>) -> Self {
        id.to_string().into()
    }
}
impl From<Timestamp> for Arg {
    fn from(moment: Timestamp) -> Self {
        Self::Int(Some(moment.as_millisecond()))
    }
}
impl From<Option<Timestamp>> for Arg {
    fn from(moment: Option<Timestamp>) -> Self {
        Self::Int(moment.map(Timestamp::as_millisecond))
    }
}
/// Counts and versions, which stay far below 2^63. A larger value would become `i64::MAX`.
impl From<u64> for Arg {
    fn from(count: u64) -> Self {
        Some(count).into()
    }
}
impl From<Option<u64>> for Arg {
    fn from(count: Option<u64>) -> Self {
        Self::Int(count.map(|count| i64::try_from(count).unwrap_or(i64::MAX)))
    }
}
impl From<Vec<u8>> for Arg {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(Some(bytes))
    }
}
impl From<Option<Vec<u8>>> for Arg {
    fn from(bytes: Option<Vec<u8>>) -> Self {
        Self::Bytes(bytes)
    }
}

/// The kind of request that a statement belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StatementKind {
    ToRead,
    ToBegin,
    InTransaction,
}

/// Records an outcome in the condition of the database, and converts it for the caller.
fn record_outcome<T>(
    condition: &Condition,
    outcome: Result<T, sqlx::Error>,
    asked: StatementKind,
) -> Result<T> {
    match outcome {
        Ok(done) => {
            condition.answered();
            Ok(done)
        }
        Err(error) => Err(record_error(condition, error, asked)),
    }
}

/// Records the error of a statement and converts it. A fault that may pass by itself becomes
/// `StoreUnavailable`, any other fault becomes `Internal`.
fn record_error(condition: &Condition, error: sqlx::Error, asked: StatementKind) -> Error {
    let fault = match fault_of(&error, asked) {
        // The pool timed out, but other statements are answered: the queue is full.
        StatementFault::Unreachable
            if matches!(error, sqlx::Error::PoolTimedOut) && condition.has_answered_recently() =>
        {
            StatementFault::Passing
        }
        fault => fault,
    };
    condition.failed(fault, &error);
    if is_stale_server(&error) {
        condition.renew_connections();
    }
    let message = match fault {
        StatementFault::Ours => return Error::internal(error),
        StatementFault::ReadOnly => "the store takes no writes at the moment",
        StatementFault::Unreachable | StatementFault::Passing => {
            "the store cannot be reached at the moment"
        }
    };
    Error::new(Kind::StoreUnavailable, message)
        .with_retry_after(RETRY_AFTER)
        .with_source(error)
}

fn fault_of(error: &sqlx::Error, asked: StatementKind) -> StatementFault {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        // Both occur while a connection is opened: settings that cannot be used, and a server that
        // does not speak PostgreSQL's protocol.
        | sqlx::Error::Configuration(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => StatementFault::Unreachable,
        error => match (SqliteCode::of(error), SqlState::of(error)) {
            (Some(code), _) => code.fault(asked),
            (None, Some(state)) => state.fault(),
            (None, None) => StatementFault::Ours,
        },
    }
}

/// True if the other open connections probably lead to the same database, which has stopped or is
/// no longer the primary.
fn is_stale_server(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Io(_))
        || SqlState::of(error).is_some_and(SqlState::is_stale_server)
}

/// True if a stored value has another type than we write. SQLite accepts any type in any column.
pub(super) fn is_unreadable(error: &Error) -> bool {
    let source = std::error::Error::source(error);
    source
        .and_then(|source| source.downcast_ref::<sqlx::Error>())
        .is_some_and(|error| matches!(error, sqlx::Error::ColumnDecode { .. }))
}

/// SQLite's primary result code (<https://sqlite.org/rescode.html>).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SqliteCode(i32);

impl SqliteCode {
    pub(super) const BUSY: Self = Self(5);
    const LOCKED: Self = Self(6);
    const NO_MEMORY: Self = Self(7);
    const READ_ONLY: Self = Self(8);
    const IO: Self = Self(10);
    const FULL: Self = Self(13);
    const CANNOT_OPEN: Self = Self(14);
    pub(super) const NOT_A_DATABASE: Self = Self(26);

    pub(super) fn of(error: &sqlx::Error) -> Option<Self> {
        let error = error
            .as_database_error()?
            .try_downcast_ref::<SqliteError>()?;
        let extended: i32 = error.code()?.parse().ok()?;
        Some(Self(extended & 0xff))
    }

    /// A fault of the machine or the file may pass, so it is never `Ours`.
    fn fault(self, asked: StatementKind) -> StatementFault {
        match self {
            // Another process held the lock for longer than a statement waits, so nothing can be
            // written.
            Self::BUSY if asked == StatementKind::ToBegin => StatementFault::ReadOnly,
            Self::BUSY | Self::LOCKED => StatementFault::Passing,
            Self::NO_MEMORY | Self::READ_ONLY | Self::IO | Self::FULL | Self::CANNOT_OPEN => {
                match asked {
                    StatementKind::ToRead => StatementFault::Unreachable,
                    StatementKind::ToBegin | StatementKind::InTransaction => {
                        StatementFault::ReadOnly
                    }
                }
            }
            _ => StatementFault::Ours,
        }
    }
}

/// PostgreSQL's error code (<https://www.postgresql.org/docs/current/errcodes-appendix.html>).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SqlState<'a> {
    code: &'a str,
    /// True if the error ended the session or refused the connection.
    is_fatal: bool,
}

impl<'a> SqlState<'a> {
    fn of(error: &'a sqlx::Error) -> Option<Self> {
        let error = error
            .as_database_error()?
            .try_downcast_ref::<PgDatabaseError>()?;
        let ends = [PgSeverity::Fatal, PgSeverity::Panic];
        Some(Self {
            code: error.code(),
            is_fatal: ends.contains(&error.severity()),
        })
    }

    const READ_ONLY: &'static str = "25006";
    const DISK_FULL: &'static str = "53100";
    const IO_ERROR: &'static str = "58030";

    /// A fault of the server, its machine, its operator or its load may pass, so it is never
    /// `Ours`.
    fn fault(self) -> StatementFault {
        const NOT_IN_PREREQUISITE_STATE: &str = "55000";
        const LOCK_NOT_AVAILABLE: &str = "55P03";
        const IDLE_FOR_TOO_LONG: &str = "25P03";
        const CANCELED: &str = "57014";
        match self.code {
            Self::READ_ONLY | Self::DISK_FULL | Self::IO_ERROR => StatementFault::ReadOnly,
            LOCK_NOT_AVAILABLE | IDLE_FOR_TOO_LONG | CANCELED => StatementFault::Passing,
            NOT_IN_PREREQUISITE_STATE => StatementFault::Unreachable,
            state => match &state.get(..2) {
                // Deadlock or serialization failure; out of memory, too many connections.
                Some("40" | "53") => StatementFault::Passing,
                // Connection, login, database name, shutdown or start-up, system error of the
                // server.
                Some("08" | "28" | "3D" | "57" | "58") => StatementFault::Unreachable,
                _ if self.is_fatal => StatementFault::Unreachable,
                _ => StatementFault::Ours,
            },
        }
    }

    /// True if the server is no longer the primary, or is stopping.
    fn is_stale_server(self) -> bool {
        const STOPS: [&str; 3] = ["57P01", "57P02", "57P03"];
        self.code == Self::READ_ONLY || STOPS.contains(&self.code) || self.code.starts_with("08")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        crypto::{KeyRing, Rng},
        model::availability::Availability,
        store::Store,
    };

    #[tokio::test]
    async fn a_full_disk_is_told_as_such_and_writes_come_back_with_the_room() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/store.db", folder.path().display());
        let ring = KeyRing::generate("a", &Rng::system()).unwrap();
        let clock = Clock::system();
        let store = Store::open(&url, ring, clock.clone()).await.unwrap();
        let Backend::Sqlite(pools) = &store.db.pools else {
            panic!("a file is SQLite's");
        };
        // SQLite raises this to the number of pages that the file has now.
        sqlx::query("pragma max_page_count = 1")
            .execute(&pools.writer)
            .await
            .unwrap();

        let mut made = Vec::new();
        let error = loop {
            let project: ProjectId = format!("p{}", made.len()).parse().unwrap();
            match store.create_project(&project, clock.now()).await {
                Ok(_) => made.push(project),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), Kind::StoreUnavailable);
        assert_eq!(error.retry_after(), Some(RETRY_AFTER));
        assert_eq!(store.availability(), Availability::ReadOnly);
        assert_eq!(store.projects().await.unwrap().len(), made.len());

        // The writer is a new connection, which does not have that limit.
        let next: ProjectId = "next".parse().unwrap();
        assert!(store.create_project(&next, clock.now()).await.unwrap());
        assert_eq!(store.availability(), Availability::Writable);
    }

    #[test]
    fn each_error_code_says_what_the_database_can_be_used_for() {
        for (state, fault, is_stale_server) in [
            ("25006", StatementFault::ReadOnly, true),
            ("53100", StatementFault::ReadOnly, false),
            ("58030", StatementFault::ReadOnly, false),
            ("57P01", StatementFault::Unreachable, true),
            ("57P02", StatementFault::Unreachable, true),
            ("57P03", StatementFault::Unreachable, true),
            ("08006", StatementFault::Unreachable, true),
            ("08P01", StatementFault::Unreachable, true),
            ("57014", StatementFault::Passing, false),
            ("53300", StatementFault::Passing, false),
            ("53200", StatementFault::Passing, false),
            ("53400", StatementFault::Passing, false),
            ("40P01", StatementFault::Passing, false),
            ("55P03", StatementFault::Passing, false),
            ("55000", StatementFault::Unreachable, false),
            ("28P01", StatementFault::Unreachable, false),
            ("28000", StatementFault::Unreachable, false),
            ("3D000", StatementFault::Unreachable, false),
            ("08000", StatementFault::Unreachable, true),
            ("08003", StatementFault::Unreachable, true),
            ("57P04", StatementFault::Unreachable, false),
            ("57P05", StatementFault::Unreachable, false),
            ("58000", StatementFault::Unreachable, false),
            ("58P01", StatementFault::Unreachable, false),
            ("42601", StatementFault::Ours, false),
            ("23505", StatementFault::Ours, false),
            ("42501", StatementFault::Ours, false),
            ("55006", StatementFault::Ours, false),
        ] {
            let open = SqlState {
                code: state,
                is_fatal: false,
            };
            assert_eq!(open.fault(), fault, "{state}");
            assert_eq!(open.is_stale_server(), is_stale_server, "{state}");
            // A refused connection is never the fault of a statement.
            let refused = SqlState {
                code: state,
                is_fatal: true,
            };
            let expected = match fault {
                StatementFault::Ours => StatementFault::Unreachable,
                fault => fault,
            };
            assert_eq!(refused.fault(), expected, "{state}");
        }
        for (code, reads, writes) in [
            (
                SqliteCode::FULL,
                StatementFault::Unreachable,
                StatementFault::ReadOnly,
            ),
            (
                SqliteCode::READ_ONLY,
                StatementFault::Unreachable,
                StatementFault::ReadOnly,
            ),
            (
                SqliteCode::IO,
                StatementFault::Unreachable,
                StatementFault::ReadOnly,
            ),
            (
                SqliteCode::BUSY,
                StatementFault::Passing,
                StatementFault::Passing,
            ),
            (SqliteCode(1), StatementFault::Ours, StatementFault::Ours),
        ] {
            assert_eq!(code.fault(StatementKind::ToRead), reads, "{code:?}");
            assert_eq!(code.fault(StatementKind::InTransaction), writes, "{code:?}");
        }
        assert_eq!(
            SqliteCode::BUSY.fault(StatementKind::ToBegin),
            StatementFault::ReadOnly
        );
    }

    #[test]
    fn only_what_may_pass_is_worth_another_try() {
        for error in [
            sqlx::Error::PoolTimedOut,
            sqlx::Error::PoolClosed,
            sqlx::Error::WorkerCrashed,
            sqlx::Error::Configuration("no such certificate".into()),
            sqlx::Error::Protocol("not PostgreSQL".into()),
            sqlx::Error::Io(std::io::ErrorKind::StorageFull.into()),
        ] {
            let condition = Condition::new(Clock::system());
            let error = record_error(&condition, error, StatementKind::ToRead);
            assert_eq!(error.kind(), Kind::StoreUnavailable);
        }
        for error in [
            sqlx::Error::RowNotFound,
            sqlx::Error::ColumnNotFound("a".into()),
        ] {
            let condition = Condition::new(Clock::system());
            let error = record_error(&condition, error, StatementKind::ToRead);
            assert_eq!(error.kind(), Kind::Internal);
            assert_eq!(error.retry_after(), None);
        }
    }
}
