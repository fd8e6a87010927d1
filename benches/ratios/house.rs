//! A gateway as an operator runs it: a folder with a key ring, a database and an API key, and
//! `rolecall serve` in its own process, with its log in a file.

use std::{
    fs::File,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use rolecall::clock::Clock;
use serde_json::{Value, json};
use smartsheet_simulator::{Options, Simulator};
use tempfile::TempDir;

use crate::{
    Outcome,
    load::{Reply, Request},
    process::{Core, Running, on_core},
    read_file,
};

const ROLECALL: &str = env!("CARGO_BIN_EXE_rolecall");

/// Requests are rate-limited per key and per project as usual; these maximum limits are high enough
/// for a measurement.
const QUOTAS: [(&str, &str); 2] = [
    ("ROLECALL_SERVER__REQUESTS_PER_MINUTE_PER_KEY", "1000000"),
    (
        "ROLECALL_SERVER__REQUESTS_PER_MINUTE_PER_PROJECT",
        "10000000",
    ),
];

/// Timeout for a start or a walk.
const NEVER: Duration = Duration::from_secs(120);

/// The interval between two polls.
const LOOK_EVERY: Duration = Duration::from_millis(1);

pub struct House {
    folder: TempDir,
    address: SocketAddr,
    /// The provider's limit of calls per minute; 0 is no limit.
    rate_limit: u32,
    key: String,
    client: reqwest::Client,
}

/// Starts a simulator with this number of users and groups, and this limit of calls per minute.
pub async fn organization(users: usize, groups: usize, rate_limit: u32) -> Outcome<Simulator> {
    let options = Options {
        port: 0,
        users,
        groups,
        rate_limit,
        ..Options::default()
    };
    Ok(Simulator::start(options).await?)
}

impl House {
    pub fn new(rate_limit: u32) -> Outcome<Self> {
        // Sets the TLS implementation of the process. An error means that it is already set.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // Finds a free port for `serve`. The listener is closed when this function returns.
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let mut house = Self {
            folder: tempfile::tempdir()?,
            address: free.local_addr()?,
            rate_limit,
            key: String::new(),
            client: reqwest::Client::builder().timeout(NEVER).build()?,
        };
        house.run(&["keyring", "init", "rolecall.keys"])?;
        house.run(&["projects", "create", "bench"])?;
        house.key = house.new_key()?;
        Ok(house)
    }

    /// Creates an API key, which has its own rate limit.
    pub fn new_key(&self) -> Outcome<String> {
        let made = self.run(&["keys", "create", "--project", "bench", "--json"])?;
        let made: Value = serde_json::from_str(&made)?;
        Ok(text(&made["api_key"])?.to_owned())
    }

    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(ROLECALL);
        command
            .args(arguments)
            .env_clear()
            .env("ROLECALL_SERVER__LISTEN", self.address.to_string())
            .env("ROLECALL_SERVER__WORKERS", "1")
            .env("ROLECALL_SERVER__LAME_DUCK_SECONDS", "0")
            .envs(QUOTAS)
            .env("ROLECALL_PROVIDER__RATE_LIMIT", self.rate_limit.to_string())
            .env("ROLECALL_PROVIDER__LOOPBACK_BASE_URLS", "true")
            .env("ROLECALL_LOG__LEVEL", "info")
            .env("ROLECALL_LOG__FORMAT", "json")
            .current_dir(self.folder.path())
            .stdin(Stdio::null());
        command
    }

    /// Runs a command to its end and returns its standard output.
    fn run(&self, arguments: &[&str]) -> Outcome<String> {
        let output = self.command(arguments).output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(format!("rolecall {}: {said}", arguments.join(" ")).into());
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// Counts the requests logged since the last call, and empties the log.
    pub fn take_logged(&self) -> Outcome<u64> {
        let log = read_file(&self.log_path())?;
        let lines = log.split(|&byte| byte == b'\n');
        let told = lines.filter(|line| {
            let target = b"\"target\":\"rolecall::access\"";
            line.windows(target.len()).any(|part| part == target)
        });
        let told = told.count() as u64;
        // The server opened the log in append mode, so it continues at the new end.
        File::options()
            .write(true)
            .open(self.log_path())?
            .set_len(0)?;
        Ok(told)
    }

    /// Starts `rolecall serve` on the servers' core, without waiting for it.
    pub fn start(&self) -> Outcome<Running> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_path())?;
        let mut command = self.command(&["serve"]);
        command.stdout(Stdio::null()).stderr(log);
        on_core(Core::Servers, || Running::start(&mut command))
    }

    /// Starts the server, and waits until it is ready.
    pub async fn serve(&self) -> Outcome<Running> {
        let mut running = self.start()?;
        self.until_answered(&mut running, &self.request("/health/ready", ""))
            .await?;
        Ok(running)
    }

    /// Repeats the request until its status is 200.
    pub async fn until_answered(&self, running: &mut Running, request: &Request) -> Outcome<Reply> {
        let began_at = Instant::now();
        while began_at.elapsed() < NEVER {
            if let Ok(reply) = request.once(self.address).await
                && reply.status == 200
            {
                return Ok(reply);
            }
            if let Some(status) = running.child().try_wait()? {
                return Err(format!("rolecall serve ended with {status}").into());
            }
            Clock::system().sleep(LOOK_EVERY).await;
        }
        Err("rolecall serve does not answer".into())
    }

    /// Builds a read request for an account.
    pub fn request(&self, path: &str, account: &str) -> Request {
        let bearer = format!("Bearer {}", self.key);
        let headers = [
            ("authorization", bearer.as_str()),
            ("x-account-id", account),
        ];
        Request::get(path, &headers)
    }

    /// Links an account to the simulated organization, which starts its first walk.
    pub async fn link(&self, simulator: &Simulator, owner: &str) -> Outcome<String> {
        let announcement = simulator.announcement();
        let body = json!({
            "provider": "smartsheet",
            "origin_owner_id": owner,
            "origin_owner_name": owner,
            "credential": {
                "type": "access_token", "access_token": announcement.tokens.system_admin,
            },
            "base_url": announcement.api_base,
        });
        let url = format!("http://{}/accounts", self.address);
        let request = self.client.post(url).bearer_auth(&self.key).json(&body);
        let account: Value = request.send().await?.error_for_status()?.json().await?;
        Ok(text(&account["id"])?.to_owned())
    }

    /// Waits until an account has a directory.
    pub async fn until_walked(&self, account: &str) -> Outcome<()> {
        let began_at = Instant::now();
        let request = self.request("/iam/users?page_size=1", account);
        while began_at.elapsed() < NEVER {
            let reply = request.once(self.address).await?;
            match reply.status {
                200 => return Ok(()),
                // No directory yet: the read waited for its maximum time.
                408 => {}
                status => {
                    let said = String::from_utf8_lossy(&reply.body);
                    return Err(format!("{status}: {said}").into());
                }
            }
        }
        Err("an account's first walk does not end".into())
    }

    /// The walks of an account, newest first.
    pub async fn walks(&self, account: &str) -> Outcome<Vec<Value>> {
        let url = format!("http://{}/accounts/{account}/walks", self.address);
        let request = self.client.get(url).bearer_auth(&self.key);
        let mut page: Value = request.send().await?.error_for_status()?.json().await?;
        match page["data"].take() {
            Value::Array(walks) => Ok(walks),
            _ => Err("a list of walks without walks".into()),
        }
    }

    /// Walks an account now, and reads every group again.
    pub async fn walk(&self, account: &str) -> Outcome<Value> {
        let path = format!("/accounts/{account}/walks?full=true&wait=60");
        let url = format!("http://{}{path}", self.address);
        let request = self.client.post(url).bearer_auth(&self.key);
        Ok(request.send().await?.error_for_status()?.json().await?)
    }

    /// Calls the simulator's control interface.
    pub async fn control(&self, simulator: &Simulator, path: &str) -> Outcome<Value> {
        let url = format!("{}{path}", simulator.announcement().control_url);
        Ok(self.client.get(url).send().await?.json().await?)
    }
}

pub fn text(value: &Value) -> Outcome<&str> {
    value
        .as_str()
        .ok_or_else(|| format!("expected a text, got {value}").into())
}
