//! A PostgreSQL database for one test alone: a schema of its own on the server that
//! `ROLECALL_TEST_POSTGRES_URL` names, gone with the value.

use rolecall::crypto::Rng;
use sqlx::{Connection, PgConnection};

/// An empty schema.
pub struct Schema {
    server: String,
    name: String,
}

impl Schema {
    /// None where no server is named, and so nothing of PostgreSQL is tested.
    pub async fn new() -> Option<Self> {
        let server = server()?;
        let name = format!("test_{:032x}", u128::from_le_bytes(Rng::system().bytes()));
        let schema = Self { server, name };
        schema.run("create schema {}").await;
        Some(schema)
    }

    /// The url of a store in here.
    pub fn url(&self) -> String {
        let mark = if self.server.contains('?') { '&' } else { '?' };
        format!(
            "{}{mark}application_name={name}&options=-csearch_path%3D{name}",
            self.server,
            name = self.name
        )
    }

    /// A connection that sees what is in here.
    pub async fn connect(&self) -> PgConnection {
        PgConnection::connect(&self.url()).await.unwrap()
    }

    /// Runs a statement with the schema's name in the place of `{}`.
    async fn run(&self, statement: &str) {
        let statement = statement.replace("{}", &self.name);
        let mut connection = self.connect().await;
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement))
            .execute(&mut connection)
            .await
            .unwrap();
        connection.close().await.unwrap();
    }
}

/// For what is to be done while the test's runtime may be ending.
pub fn on_a_thread(work: impl AsyncFnOnce() + Send) {
    let run = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(work());
    };
    std::thread::scope(|scope| {
        let _ = scope.spawn(run).join();
    });
}

impl Drop for Schema {
    /// On a thread of its own, since the test's runtime may be ending. So may transactions in it
    /// that nobody drives any more, and what they have locked could not be dropped.
    fn drop(&mut self) {
        let end = "select pg_terminate_backend(pid) from pg_stat_activity
                   where application_name = '{}' and pid <> pg_backend_pid()";
        on_a_thread(async || {
            self.run(end).await;
            self.run("set client_min_messages = warning; drop schema {} cascade")
                .await;
        });
    }
}

/// The url of the server to test with.
#[expect(
    clippy::disallowed_methods,
    reason = "which server there is to test with is no setting of the product"
)]
pub fn server() -> Option<String> {
    std::env::var("ROLECALL_TEST_POSTGRES_URL").ok()
}
