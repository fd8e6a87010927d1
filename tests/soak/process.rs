//! The gateway as it runs in production: `rolecall serve` in a process of its own, on a store and a
//! port that outlive it. The simulator lives in the test's process, so that it outlives it too.

use std::{
    fs::{self, File},
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use reqwest::Method;
use rolecall::clock::Clock;
use serde_json::{Value, json};
use smartsheet_simulator::{Options, Simulator};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::{
    judge::Picture,
    world::{Reply, Run, watch_for_panics},
};

const ROLECALL: &str = env!("CARGO_BIN_EXE_rolecall");

/// How often it is looked whether a process has come up.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// By when one must have come up, at the very latest.
const NEVER: Duration = Duration::from_secs(60);

#[derive(Clone)]
pub struct House {
    pub simulator: Arc<Simulator>,
    directory: Arc<TempDir>,
    store_url: String,
    rate_limit: u32,
    port: u16,
    pub key: String,
    client: reqwest::Client,
}

/// A running `rolecall serve`.
pub struct Served {
    child: Child,
}

impl House {
    pub async fn new(users: usize, groups: usize, seed: u64) -> Self {
        Self::on(None, 0, users, groups, seed).await
    }

    /// With another store than a SQLite file, and a limit of requests a minute and token.
    pub async fn on(
        store_url: Option<String>,
        rate_limit: u32,
        users: usize,
        groups: usize,
        seed: u64,
    ) -> Self {
        watch_for_panics();
        let simulator = Simulator::start(Options {
            port: 0,
            users,
            groups,
            seed,
            rate_limit: 0,
            ..Options::default()
        })
        .await
        .unwrap();
        let directory = tempfile::tempdir().unwrap();
        let file = || {
            format!(
                "sqlite://{}",
                directory.path().join("rolecall.db").display()
            )
        };
        let house = Self {
            simulator: Arc::new(simulator),
            store_url: store_url.unwrap_or_else(file),
            directory: Arc::new(directory),
            rate_limit,
            port: free_port(),
            key: String::new(),
            client: client(),
        };
        let keys = house.path("rolecall.keys");
        house.cli(&["keyring", "init", &keys]).await;
        house.with_project("one").await
    }

    /// The same house as another process serves it, at a port of its own.
    pub fn beside(&self) -> Self {
        Self {
            port: free_port(),
            ..self.clone()
        }
    }

    pub fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    /// The folder of this process's own, which outlives it.
    pub fn journal(&self) -> PathBuf {
        self.directory.path().join(format!("{}.journal", self.port))
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new(ROLECALL);
        command
            .env_clear()
            .env("ROLECALL_KEYS_FILE", self.path("rolecall.keys"))
            .env("ROLECALL_STORE__URL", &self.store_url)
            .env("ROLECALL_STORE__JOURNAL", self.journal())
            .env(
                "ROLECALL_SERVER__LISTEN",
                format!("127.0.0.1:{}", self.port),
            )
            .env("ROLECALL_SERVER__REQUESTS_PER_MINUTE_PER_KEY", "0")
            .env("ROLECALL_SERVER__REQUESTS_PER_MINUTE_PER_PROJECT", "0")
            .env("ROLECALL_SERVER__MAX_KEYS_PER_PROJECT", "100000")
            .env("ROLECALL_SERVER__LAME_DUCK_SECONDS", "0")
            .env("ROLECALL_PROVIDER__RATE_LIMIT", self.rate_limit.to_string())
            .env("ROLECALL_PROVIDER__LOOPBACK_BASE_URLS", "true")
            // Three walks in a row settle a hold at once.
            .env("ROLECALL_WALK__HELD_CONFIRMED_AFTER_SECONDS", "0")
            .env("ROLECALL_LOG__LEVEL", "info")
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Runs a command to its end and gives what it printed.
    pub async fn cli(&self, arguments: &[&str]) -> String {
        let output = self.command().args(arguments).output().await.unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The same house as one of another project sees it, which is made.
    pub async fn with_project(&self, name: &str) -> Self {
        self.cli(&["projects", "create", name]).await;
        let key = ["keys", "create", "--project", name, "--json"];
        let key: Value = serde_json::from_str(&self.cli(&key).await).unwrap();
        Self {
            key: key["api_key"].as_str().unwrap().to_owned(),
            ..self.clone()
        }
    }

    /// Starts `rolecall serve`, without waiting for it.
    pub fn serve(&self) -> Served {
        self.serve_with(&[])
    }

    /// The same with this in its environment, too.
    pub fn serve_with(&self, environment: &[(&str, &str)]) -> Served {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.path("log"))
            .unwrap();
        let child = self
            .command()
            .envs(environment.iter().copied())
            .arg("serve")
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Served { child }
    }

    /// Starts `rolecall serve` where it may have so many files open.
    pub fn serve_with_files(&self, files: u32) -> Served {
        let rolecall = self.command();
        let script = format!("ulimit -n {files} && exec \"$0\" serve");
        let mut command = Command::new("sh");
        let environment = rolecall.as_std().get_envs();
        command
            .args(["-c", &script, ROLECALL])
            .env_clear()
            .envs(environment.filter_map(|(name, value)| Some((name, value?))))
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(self.path("log")).unwrap())
            .kill_on_drop(true);
        let child = command.spawn().unwrap();
        Served { child }
    }

    /// Where the process listens.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// What the processes logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Asks, and asks again until somebody answers; how long that took beside the answer.
    pub async fn first_answer(
        &self,
        served: &mut Served,
        path: &str,
        account: &str,
    ) -> (Reply, Duration) {
        let clock = Clock::system();
        let began_at = clock.monotonic();
        loop {
            if let Some(reply) = self.ask(Method::GET, path, Some(account), None).await {
                return (reply, clock.monotonic() - began_at);
            }
            if let Some(status) = served.child.try_wait().unwrap() {
                panic!("rolecall serve ended with {status}:\n{}", self.log());
            }
            let waited = clock.monotonic() - began_at;
            assert!(
                waited < NEVER,
                "rolecall serve does not answer:\n{}",
                self.log()
            );
            clock.sleep(LOOK_EVERY).await;
        }
    }

    /// Where the process is reached.
    pub fn base(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Links an account, and gives its id once its first walk is sealed.
    pub async fn linked(&self, served: &mut Served) -> String {
        self.up(served).await;
        let body = self.account_body();
        let account = self.ask(Method::POST, "/accounts", None, Some(&body)).await;
        let account: Value = serde_json::from_slice(&account.unwrap().bytes).unwrap();
        let id = account["id"].as_str().unwrap().to_owned();
        let (read, _) = self.first_answer(served, "/iam/users", &id).await;
        assert_eq!(read.status, 200);
        id
    }

    /// Waits until the process answers at all.
    pub async fn up(&self, served: &mut Served) {
        self.first_answer(served, "/health/live", "").await;
    }

    /// A request, if anybody is there to answer it to the end.
    pub async fn ask(
        &self,
        method: Method,
        path: &str,
        account: Option<&str>,
        body: Option<&Value>,
    ) -> Option<Reply> {
        let url = format!("http://127.0.0.1:{}{path}", self.port);
        let mut request = self.client.request(method, url).bearer_auth(&self.key);
        if let Some(account) = account {
            request = request.header("x-account-id", account);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        read_whole(request).await
    }

    /// A read with another key than the first.
    pub async fn ask_with(&self, key: &str, path: &str) -> Option<Reply> {
        let url = format!("http://127.0.0.1:{}{path}", self.port);
        read_whole(self.client.get(url).bearer_auth(key)).await
    }

    /// The provider's world as it is.
    pub async fn truth(&self) -> Picture {
        Picture::of_truth(&self.control(Method::GET, "/truth", &json!(null)).await)
    }

    /// A list from its first page to its last. None if there is no directory, or nobody to ask.
    pub async fn run(&self, account: &str, list: &str) -> Option<Run> {
        let mut run = Run::default();
        let mut next = String::new();
        loop {
            let path = format!("{list}{next}");
            let page = self.ask(Method::GET, &path, Some(account), None).await?;
            if page.status != 200 {
                return None;
            }
            match run.take(&page) {
                Some(cursor) => next = format!("&next={cursor}"),
                None => return Some(run),
            }
        }
    }

    /// The directory in force, whole.
    pub async fn picture(&self, account: &str) -> Option<Picture> {
        let users = self.run(account, "/iam/users?page_size=100").await?;
        let groups = self
            .run(account, "/iam/groups?page_size=100&expand=members")
            .await;
        Some(Picture::served(&users, groups.as_ref()))
    }

    pub fn account_body(&self) -> Value {
        let announcement = self.simulator.announcement();
        json!({
            "provider": "smartsheet",
            "origin_owner_id": "customer-1",
            "origin_owner_name": "Customer One",
            "credential": {
                "type": "access_token", "access_token": announcement.tokens.system_admin,
            },
            "base_url": announcement.api_base,
        })
    }

    pub async fn control(&self, method: Method, path: &str, body: &Value) -> Value {
        let url = format!("{}{path}", self.simulator.announcement().control_url);
        let reply = self
            .client
            .request(method, url)
            .json(body)
            .send()
            .await
            .unwrap();
        reply.json().await.unwrap_or(Value::Null)
    }
}

/// A port that nobody has at the moment. It is below those that are given to connections, of which
/// one may be made while its process is down.
fn free_port() -> u16 {
    loop {
        let port = fastrand::u16(16_000..32_000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

async fn read_whole(request: reqwest::RequestBuilder) -> Option<Reply> {
    let reply = request.send().await.ok()?;
    Some(Reply {
        status: reply.status().as_u16(),
        headers: reply.headers().clone(),
        bytes: reply.bytes().await.ok()?.to_vec(),
    })
}

/// One that keeps no connection: the other end dies often.
fn client() -> reqwest::Client {
    // Only the first in a process takes effect; a gateway in this one may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .pool_max_idle_per_host(0)
        .timeout(NEVER)
        .build()
        .unwrap()
}

impl Served {
    /// The process's id.
    pub fn id(&self) -> u32 {
        self.child.id().expect("the process runs")
    }

    /// SIGTERM, and its end.
    pub async fn end(mut self) {
        let id = i32::try_from(self.id()).unwrap();
        let id = rustix::process::Pid::from_raw(id).unwrap();
        rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
        self.child.wait().await.unwrap();
    }

    /// SIGKILL, to this process and no other.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// The most memory that the process ever had, in MiB.
    pub fn peak_mib(&self) -> u64 {
        peak_kib(self.id()).expect("the process runs") / 1024
    }
}

/// The most memory that a process ever had, in KiB; None once it has ended.
pub fn peak_kib(id: u32) -> Option<u64> {
    let status = Path::new("/proc").join(id.to_string()).join("status");
    let status = fs::read_to_string(status).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
