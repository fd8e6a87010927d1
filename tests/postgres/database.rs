//! A whole PostgreSQL database for one test alone, gone with the value.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

use rolecall::crypto::Rng;
use sqlx::{Connection, PgConnection};
use url::Url;

use crate::schema::{on_a_thread, server};

/// Of the role; servers that trust this machine ask for none.
const PASSWORD: &str = "of-a-test";

/// An empty database, for what a schema does not have, and a role of its name that owns it.
pub struct Database {
    server: String,
    name: String,
}

impl Database {
    /// None where no server is named.
    pub async fn new() -> Option<Self> {
        let server = server()?;
        let name = format!("test_{:032x}", u128::from_le_bytes(Rng::system().bytes()));
        let database = Self { server, name };
        database
            .run(&format!("create role {{}} login password '{PASSWORD}'"))
            .await;
        database.run("create database {} owner {}").await;
        Some(database)
    }

    /// The url of a store in here.
    pub fn url(&self) -> String {
        let mut url: Url = self.server.parse().unwrap();
        url.set_path(&self.name);
        url.set_username(&self.name).unwrap();
        url.set_password(Some(PASSWORD)).unwrap();
        url.query_pairs_mut()
            .append_pair("application_name", &self.name);
        url.to_string()
    }

    /// The same, at another address.
    pub fn url_at(&self, address: SocketAddr) -> String {
        let mut url: Url = self.url().parse().unwrap();
        url.set_host(Some(&match address.ip() {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        }))
        .unwrap();
        url.set_port(Some(address.port())).unwrap();
        url.query_pairs_mut().append_pair("sslmode", "disable");
        url.to_string()
    }

    /// Where its server is.
    pub fn address(&self) -> SocketAddr {
        let url: Url = self.server.parse().unwrap();
        let host = url.host_str().unwrap().trim_matches(['[', ']']).to_owned();
        let address = (host, url.port().unwrap_or(5432));
        address.to_socket_addrs().unwrap().next().unwrap()
    }

    /// Has sessions that begin from now on take writes, or refuse them as those of a standby do.
    /// Sessions that have begun go on as they are.
    pub async fn set_read_only(&self, is_read_only: bool) {
        self.run(match is_read_only {
            true => "alter database {} set default_transaction_read_only = on",
            false => "alter database {} reset default_transaction_read_only",
        })
        .await;
    }

    /// Ends every session, as a server that stops does.
    pub async fn end_sessions(&self) {
        self.run("select pg_terminate_backend(pid) from pg_stat_activity where datname = '{}'")
            .await;
    }

    /// Runs a statement beside it, with its name in the place of `{}`.
    pub async fn run(&self, statement: &str) {
        let statement = statement.replace("{}", &self.name);
        let mut connection = PgConnection::connect(&self.server).await.unwrap();
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement))
            .execute(&mut connection)
            .await
            .unwrap();
        connection.close().await.unwrap();
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        on_a_thread(async || {
            self.run("drop database {} with (force)").await;
            self.run("drop role {}").await;
        });
    }
}
