//! An installation as an operator makes it, of the true binary, and all that it leaves behind.

use std::{path::PathBuf, process::Stdio};

use reqwest::Method;
use serde_json::Value;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, sqlite::SqliteConnectOptions};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, Command},
};

use super::sung;
use crate::{
    schema::Schema,
    world::{HANG, Reply, client, reply},
};

/// Keys here, store there.
pub struct Cage {
    place: TempDir,
    schema: Option<Schema>,
    pub key: String,
    /// The ring's first key, as it is in its file.
    pub ring_key: String,
}

/// What a command printed and said.
pub struct Printed {
    pub out: String,
    pub err: String,
}

/// `rolecall serve`, at TRACE, and what it writes to its log.
pub struct Process {
    child: Child,
    pub base: String,
    client: reqwest::Client,
    log: tokio::task::JoinHandle<Vec<u8>>,
}

pub const CONFIG: [&str; 2] = ["--config", "rolecall.toml"];

impl Cage {
    /// With its store in a file, or in there.
    pub async fn new(schema: Option<Schema>) -> Self {
        let place = tempfile::tempdir().unwrap();
        let store = place.path().join("store");
        std::fs::create_dir(&store).unwrap();
        let url = match &schema {
            Some(schema) => schema.url(),
            None => format!("sqlite://{}/rolecall.db", store.display()),
        };
        let journal = store.join("journal");
        let text = format!(
            "keys_file = \"rolecall.keys\"\n[server]\nlisten = \"127.0.0.1:0\"\nworkers = 1\nlame_duck_seconds = 0\n\
             read_wait_seconds = 10\n[store]\nurl = {url:?}\njournal = {journal:?}\n\
             [provider]\nrate_limit = 0\nloopback_base_urls = true\n[log]\nlevel = \"trace\"\n"
        );
        std::fs::write(place.path().join("rolecall.toml"), text).unwrap();
        let mut cage = Self {
            place,
            schema,
            key: String::new(),
            ring_key: String::new(),
        };
        cage.run(&["keyring", "init", "rolecall.keys"], b"").await;
        cage.told(&["projects", "create", "one"]).await;
        let scopes = "iam:read,accounts:read,accounts:write,accounts:assume,profiles:write,\
                      walks:write,admin";
        let key = ["keys", "create", "--project", "one", "--json", "--scopes"];
        let key = cage.told(&[&key[..], &[scopes]].concat()).await.out;
        let key: Value = serde_json::from_str(&key).unwrap();
        cage.key = key["api_key"].as_str().unwrap().to_owned();
        let ring = std::fs::read_to_string(cage.path("rolecall.keys")).unwrap();
        let mut lines = ring.lines().filter(|line| !line.starts_with('#'));
        let key = lines.find_map(|line| line.split_once(':'));
        cage.ring_key = key.unwrap().1.trim().to_owned();
        cage
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rolecall"));
        command
            .env_clear()
            .current_dir(self.place.path())
            .kill_on_drop(true);
        command
    }

    /// Runs a command of the binary to its end, whatever that is.
    pub async fn tried(&self, arguments: &[&str], input: &[u8]) -> (bool, Printed) {
        let mut child = self
            .command()
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // A command that wants no input may be gone before it was sent.
        let _ = stdin.write_all(input).await;
        drop(stdin);
        let output = tokio::time::timeout(HANG, child.wait_with_output());
        let output = output.await.unwrap().unwrap();
        let printed = Printed {
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        };
        (output.status.success(), printed)
    }

    /// The same for one that must succeed.
    pub async fn run(&self, arguments: &[&str], input: &[u8]) -> Printed {
        let (is_good, printed) = self.tried(arguments, input).await;
        assert!(is_good, "{arguments:?}: {}", printed.err);
        printed
    }

    /// The same for one that needs the settings and no input.
    pub async fn told(&self, arguments: &[&str]) -> Printed {
        self.run(&[arguments, &CONFIG].concat(), b"").await
    }

    pub async fn start(&self, environment: &[(&str, String)]) -> Process {
        let mut command = self.command();
        let mut child = command
            .arg("serve")
            .args(CONFIG)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let mut log = Vec::new();
        let port = async {
            loop {
                let start = log.len();
                assert_ne!(lines.read_until(b'\n', &mut log).await.unwrap(), 0);
                let line = String::from_utf8_lossy(&log[start..]);
                if let Some((_, port)) = line.split_once("listening port=") {
                    return port.trim().to_owned();
                }
            }
        };
        let port = tokio::time::timeout(HANG, port).await.unwrap();
        let log = tokio::spawn(async move {
            while lines.read_until(b'\n', &mut log).await.unwrap() > 0 {}
            log
        });
        Process {
            child,
            base: format!("http://127.0.0.1:{port}"),
            client: client().build().unwrap(),
            log,
        }
    }

    /// Every byte of the store, and where it is: its files, the journal's, and every value of every
    /// row of every table.
    pub async fn stored(&self) -> Vec<(String, Vec<u8>)> {
        let mut stored = files(self.path("store"));
        if let Some(schema) = &self.schema {
            stored.extend(rows(schema).await);
        }
        stored
    }

    /// How many pairs of tokens wait beside the store.
    pub fn journaled(&self) -> usize {
        let files = files(self.path("store/journal"));
        let pairs = files.iter().filter(|(name, _)| name.ends_with(".pair"));
        pairs.count()
    }

    /// Takes the store away from every writer until what this gives is dropped; None where the
    /// store is not a SQLite file.
    pub async fn lock_store(&self) -> Option<sqlx::SqliteConnection> {
        if self.schema.is_some() {
            return None;
        }
        let mut connection = self.file().await;
        let lock = sqlx::raw_sql("begin immediate");
        lock.execute(&mut connection).await.unwrap();
        Some(connection)
    }

    async fn file(&self) -> sqlx::SqliteConnection {
        let options = SqliteConnectOptions::new().filename(self.path("store/rolecall.db"));
        options.connect().await.unwrap()
    }

    /// Puts this text where it does not belong, in every encoding and in both kinds of column.
    pub async fn plant(&self, text: &str) {
        const TABLE: &str = "create table planted (words text, bytes bytea)";
        const ROW: &str = "insert into planted (words, bytes) values ($1, null), (null, $2)";
        for sung in sung(text) {
            let words = String::from_utf8(sung.clone()).unwrap();
            // The table is there from the second on.
            match &self.schema {
                Some(schema) => {
                    let mut connection = schema.connect().await;
                    let _ = sqlx::query(TABLE).execute(&mut connection).await;
                    let row = sqlx::query(ROW).bind(words).bind(sung);
                    row.execute(&mut connection).await.unwrap();
                    connection.close().await.unwrap();
                }
                None => {
                    let mut connection = self.file().await;
                    let _ = sqlx::query(TABLE).execute(&mut connection).await;
                    let row = sqlx::query(ROW).bind(words).bind(sung);
                    row.execute(&mut connection).await.unwrap();
                    connection.close().await.unwrap();
                }
            }
        }
    }
}

impl Process {
    pub async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Reply {
        let mut request = self.client.request(method, format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        reply(request).await
    }

    /// Ends it as an operator does, and gives all that it logged.
    pub async fn stop(mut self) -> Vec<u8> {
        let pid = self.child.id().unwrap().to_string();
        let stopped = Command::new("kill").arg(&pid).status().await.unwrap();
        assert!(stopped.success());
        assert!(self.child.wait().await.unwrap().success());
        self.log.await.unwrap()
    }
}

/// Every file of a directory: its name and its bytes.
fn files(directory: PathBuf) -> Vec<(String, Vec<u8>)> {
    std::fs::read_dir(directory)
        .unwrap()
        .flat_map(|entry| {
            let path = entry.unwrap().path();
            if path.is_dir() {
                return files(path);
            }
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            // What the journal held a moment ago may be gone.
            let bytes = std::fs::read(&path).unwrap_or_default();
            vec![(name, bytes)]
        })
        .collect()
}

/// Every value of every table, and the column that it is of.
async fn rows(schema: &Schema) -> Vec<(String, Vec<u8>)> {
    let mut connection = schema.connect().await;
    let columns: Vec<(String, String, String)> = sqlx::query_as(
        "select table_name::text, column_name::text, data_type::text
         from information_schema.columns where table_schema = current_schema()",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    let mut values = Vec::new();
    for (table, column, kind) in columns {
        let value = match kind.as_str() {
            "bytea" => format!("\"{column}\""),
            _ => format!("convert_to(\"{column}\"::text, 'UTF8')"),
        };
        let query = format!("select {value} from \"{table}\" where \"{column}\" is not null");
        let found: Vec<Vec<u8>> = sqlx::query_scalar(AssertSqlSafe(query))
            .fetch_all(&mut connection)
            .await
            .unwrap();
        let named = found.into_iter();
        values.extend(named.map(|value| (format!("{table}.{column}"), value)));
    }
    connection.close().await.unwrap();
    values
}
