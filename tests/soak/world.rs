//! What a proof runs in: the simulator, and a gateway whose clock skips every wait, so that
//! fifteen minutes of an absurd Retry-After pass at once, or runs many times as fast.
//!
//! The gateway is served without its schedule: on a clock that skips waits, "every five seconds"
//! is always. All else is as `App::run` has it.

use std::{
    sync::{
        Mutex, Once,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use actix_web::{App as ActixApp, HttpServer, dev::ServerHandle, middleware::from_fn, web::Data};
use reqwest::{Method, header::HeaderMap};
use rolecall::{
    app::{App, BuildError},
    clock::Clock,
    config::Config,
    crypto::{KeyRing, Rng},
    gateway::Gateway,
    http,
    model::api_keys::{NewKey, Scope},
    store::OpenError,
};
use serde_json::{Value, json};
use smartsheet_simulator::{Options, Simulator};
use tempfile::TempDir;

use crate::judge::{Picture, Told};

/// What a world is made with.
#[derive(Debug, Clone)]
pub struct Plan {
    pub users: usize,
    pub groups: usize,
    pub seed: u64,
    /// The gateway's budget, and how fresh it wants a directory to be: together they say how many
    /// unchanged groups a walk reads again. 0 is no limit, and all of them.
    pub rate_limit: u32,
    pub fresh_seconds: u64,
    pub parallel_reads: usize,
    pub pace: Pace,
}

/// How time passes for the gateway.
#[derive(Debug, Clone, Copy)]
pub enum Pace {
    /// Waits pass at once.
    Skipping,
    /// So many times as fast as for the simulator.
    Racing(u32),
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            users: 300,
            groups: 10,
            seed: 1,
            rate_limit: 0,
            fresh_seconds: 300,
            parallel_reads: 1,
            pace: Pace::Skipping,
        }
    }
}

pub struct World {
    pub simulator: Simulator,
    plan: Plan,
    clock: Clock,
    ring: KeyRing,
    directory: TempDir,
    server: ServerHandle,
    base: String,
    key: String,
    client: reqwest::Client,
    last_logged: AtomicU64,
}

impl Drop for World {
    fn drop(&mut self) {
        // The order is given by the call; the future would only wait for it to be carried out.
        drop(self.server.stop(false));
    }
}

/// A reply, read whole.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub bytes: Vec<u8>,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.bytes)))
    }

    #[track_caller]
    pub fn expect(&self, status: u16) -> Value {
        assert_eq!(
            self.status,
            status,
            "{}",
            String::from_utf8_lossy(&self.bytes)
        );
        self.json()
    }

    pub fn version(&self) -> u64 {
        let version = &self.headers["x-directory-version"];
        version.to_str().unwrap().parse().unwrap()
    }
}

/// Every page of a list, read by its cursors.
#[derive(Debug, Default)]
pub struct Run {
    pub records: Vec<Value>,
    pub versions: Vec<u64>,
    pub totals: Vec<u64>,
}

impl Run {
    /// Takes one page more, and gives the cursor of the next.
    pub fn take(&mut self, page: &Reply) -> Option<String> {
        let body = page.expect(200);
        self.versions.push(page.version());
        self.totals.push(body["total"].as_u64().unwrap());
        self.records
            .extend(body["data"].as_array().unwrap().iter().cloned());
        body["next"].as_str().map(str::to_owned)
    }
}

impl World {
    pub async fn new(plan: &Plan) -> Self {
        watch_for_panics();
        let simulator = Simulator::start(Options {
            port: 0,
            users: plan.users,
            groups: plan.groups,
            seed: plan.seed,
            rate_limit: 0,
            ..Options::default()
        })
        .await
        .unwrap();
        let directory = tempfile::tempdir().unwrap();
        // The machine's own date to begin with: the simulator dates its changes by that.
        let start = Clock::system().now();
        let clock = match plan.pace {
            Pace::Skipping => Clock::skipping(start),
            Pace::Racing(times) => Clock::racing(start, times),
        };
        let ring = KeyRing::generate("k1", &Rng::system()).unwrap();
        let gateway = gateway(plan, &directory, &ring, &clock).await;
        let project = "one".parse().unwrap();
        gateway.create_project(&project).await.unwrap();
        let (key, _) = gateway
            .api_keys()
            .create_key(&project, &NewKey::with_scopes(&Scope::ALL))
            .await
            .unwrap();
        let (server, base) = serve(gateway);
        Self {
            simulator,
            plan: plan.clone(),
            clock,
            ring,
            directory,
            server,
            base,
            key: key.expose().to_owned(),
            client: reqwest::Client::new(),
            last_logged: AtomicU64::new(0),
        }
    }

    /// Ends the gateway, which walks nothing any more, and starts another on the same store.
    pub async fn restart(&mut self) {
        self.server.stop(false).await;
        let gateway = gateway(&self.plan, &self.directory, &self.ring, &self.clock).await;
        (self.server, self.base) = serve(gateway);
    }

    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Reply {
        let request = self.client.request(method, format!("{}{path}", self.base));
        self.send(request, body).await
    }

    async fn send(&self, request: reqwest::RequestBuilder, body: Option<&Value>) -> Reply {
        let mut request = request.bearer_auth(&self.key);
        if let Some(body) = body {
            request = request.json(body);
        }
        let reply = request.send().await.unwrap();
        Reply {
            status: reply.status().as_u16(),
            headers: reply.headers().clone(),
            bytes: reply.bytes().await.unwrap().to_vec(),
        }
    }

    /// Links the system admin's account and gives its id. Its first walk has then begun.
    pub async fn link_admin(&self) -> String {
        self.link(&self.simulator.announcement().tokens.system_admin)
            .await
    }

    /// Links an account with this token.
    pub async fn link(&self, token: &str) -> String {
        let body = json!({
            "provider": "smartsheet",
            "origin_owner_id": "customer-1",
            "origin_owner_name": "Customer One",
            "credential": {
                "type": "access_token", "access_token": token,
            },
            "base_url": self.simulator.announcement().api_base,
        });
        let account = self.call(Method::POST, "/accounts", Some(&body)).await;
        account.expect(201)["id"].as_str().unwrap().to_owned()
    }

    pub async fn read(&self, account: &str, path: &str) -> Reply {
        let request = self
            .client
            .get(format!("{}{path}", self.base))
            .header("x-account-id", account);
        self.send(request, None).await
    }

    /// A list from its first page to its last. None if there is no directory to read.
    pub async fn run(&self, account: &str, list: &str) -> Option<Run> {
        let mut run = Run::default();
        let mut next = String::new();
        loop {
            let page = self.read(account, &format!("{list}{next}")).await;
            if page.status != 200 && next.is_empty() {
                return None;
            }
            match run.take(&page) {
                Some(cursor) => next = format!("&next={cursor}"),
                None => return Some(run),
            }
        }
    }

    /// The directory in force, whole. None if there is none.
    pub async fn picture(&self, account: &str) -> Option<Picture> {
        let users = self.run(account, "/iam/users?page_size=100").await?;
        let groups = self
            .run(account, "/iam/groups?page_size=100&expand=members")
            .await;
        Some(Picture::served(&users, groups.as_ref()))
    }

    /// The simulator's control plane.
    pub async fn control(&self, method: Method, path: &str, body: &Value) -> Value {
        let url = format!("{}{path}", self.simulator.announcement().control_url);
        let reply = self
            .client
            .request(method, url)
            .json(body)
            .send()
            .await
            .unwrap();
        let status = reply.status();
        let text = reply.text().await.unwrap();
        assert!(status.is_success(), "{path}: {status} {text} to {body}");
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    pub async fn mutate(&self, ops: &[Value]) {
        if !ops.is_empty() {
            self.control(Method::POST, "/mutate", &json!(ops)).await;
        }
    }

    pub async fn truth(&self) -> Picture {
        Picture::of_truth(&self.control(Method::GET, "/truth", &json!(null)).await)
    }

    /// Whom the provider has said since the last question not to have.
    pub async fn told(&self) -> Told {
        let since = self.last_logged.load(Ordering::Relaxed);
        let path = format!("/log?since={since}");
        let log = self.control(Method::GET, &path, &json!(null)).await;
        let log = log.as_array().unwrap();
        if let Some(last) = log.last() {
            let seq = last["seq"].as_u64().unwrap();
            self.last_logged.store(seq, Ordering::Relaxed);
        }
        Told::of_log(log)
    }

    /// Time passes between walks.
    pub fn pass(&self, by: Duration) {
        self.clock.advance(by);
    }
}

async fn gateway(plan: &Plan, directory: &TempDir, ring: &KeyRing, clock: &Clock) -> Gateway {
    let url = format!(
        "\"sqlite://{}\"",
        directory.path().join("rolecall.db").display()
    );
    let rate_limit = plan.rate_limit.to_string();
    let fresh_seconds = plan.fresh_seconds.to_string();
    let parallel_reads = plan.parallel_reads.to_string();
    let config = Config::with(&[
        ("server.listen", "\"127.0.0.1:0\""),
        ("store.url", url.as_str()),
        ("walk.fresh_seconds", fresh_seconds.as_str()),
        ("walk.parallel_reads", parallel_reads.as_str()),
        ("walk.held_confirmed_after_seconds", "0"),
        // The gateway before may have its journal for a moment longer.
        ("store.journal_required", "false"),
        ("directory.keep_superseded_seconds", "86400"),
        ("server.requests_per_minute_per_key", "0"),
        ("server.requests_per_minute_per_project", "0"),
        ("provider.rate_limit", rate_limit.as_str()),
        ("provider.loopback_base_urls", "true"),
        // These pass in real time.
        ("provider.first_byte_timeout_seconds", "0.5"),
        ("provider.read_gap_timeout_seconds", "0.5"),
        ("provider.whole_timeout_seconds", "1.5"),
    ])
    .unwrap();
    // Whoever had the store before lets it go once its last thread has ended.
    for _ in 0..200 {
        let rng = Rng::seeded(plan.seed);
        match App::build(&config, ring.clone(), clock.clone(), rng).await {
            Ok(app) => return app.gateway().clone(),
            Err(BuildError::Store(OpenError::InUse { .. })) => {
                Clock::system().sleep(Duration::from_millis(10)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
    panic!("the store is not let go")
}

/// As `App` serves, but for the schedule.
fn serve(gateway: Gateway) -> (ServerHandle, String) {
    let document = http::document();
    let metrics = gateway.metrics().clone();
    let brand = Config::with(&[]).unwrap().hub.brand().unwrap();
    let look = Data::new(http::hub::theme::Theme::new(&brand));
    let gateway = Data::new(gateway);
    let server = HttpServer::new(move || {
        ActixApp::new()
            .app_data(gateway.clone())
            .configure(|config| http::mount(config, &document, &metrics, &look))
            .wrap(from_fn(http::middleware::finish))
    })
    .workers(1)
    .disable_signals()
    .bind(("127.0.0.1", 0))
    .unwrap();
    let port = server.addrs()[0].port();
    let server = server.run();
    let handle = server.handle();
    tokio::spawn(server);
    (handle, format!("http://127.0.0.1:{port}"))
}

static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Notes every panic of this process that is not one of the proofs' own.
pub fn watch_for_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let is_ours = panic
                .location()
                .is_some_and(|at| at.file().starts_with("tests/"));
            if !is_ours {
                PANICS.lock().unwrap().push(panic.to_string());
            }
            usual(panic);
        }));
    });
}

/// The panics of gateway and simulator so far.
pub fn panics() -> Vec<String> {
    PANICS.lock().unwrap().clone()
}
