//! A test's world: the simulator, a real gateway on a free port with a fresh SQLite file, and a
//! client. Everything of one test's own, so tests run side by side.

use std::{sync::Arc, time::Duration};

use reqwest::{Method, StatusCode};
use rolecall::{
    app::App,
    clock::Clock,
    config::Config,
    crypto::{Chance, KeyRing},
    gateway::Gateway,
    model::access::Scope,
};
use serde_json::{Value, json};
use smartsheet_simulator::{Options, Simulator};
use tempfile::TempDir;

/// What a world is made with.
pub struct Plan {
    pub users: usize,
    pub groups: usize,
    pub seed: u64,
    /// The simulator's limit and the gateway's budget; 0 is none.
    pub rate_limit: u32,
    /// Settings over the defaults: path and TOML value.
    pub settings: Vec<(&'static str, &'static str)>,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            users: 40,
            groups: 5,
            seed: 1,
            rate_limit: 0,
            settings: Vec::new(),
        }
    }
}

pub struct World {
    pub simulator: Simulator,
    pub gateway: Gateway,
    pub base: String,
    /// A key of the project `one` with every scope.
    pub key: String,
    pub directory: Arc<TempDir>,
    pub client: reqwest::Client,
    running: Running,
}

/// A served gateway, ended when dropped.
struct Running {
    stop: Option<tokio::sync::oneshot::Sender<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }
}

/// A reply, read whole.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: reqwest::header::HeaderMap,
    pub bytes: Vec<u8>,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.bytes)))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The body, if the status is the expected one.
    #[track_caller]
    pub fn expect(&self, status: u16) -> Value {
        assert_eq!(
            self.status.as_u16(),
            status,
            "{}",
            String::from_utf8_lossy(&self.bytes)
        );
        self.json()
    }
}

impl World {
    pub async fn new() -> Self {
        Self::with(Plan::default()).await
    }

    pub async fn with(plan: Plan) -> Self {
        let simulator = Simulator::start(Options {
            port: 0,
            users: plan.users,
            groups: plan.groups,
            seed: plan.seed,
            rate_limit: plan.rate_limit,
            ..Options::default()
        })
        .await
        .unwrap();
        let directory = Arc::new(tempfile::tempdir().unwrap());
        let ring = KeyRing::generate("k1", &Chance::system()).unwrap();
        ring.create_file(&directory.path().join("rolecall.keys"))
            .unwrap();
        let (gateway, base, running) = serve(&directory, &plan).await;
        let project = "one".parse().unwrap();
        gateway.create_project(&project).await.unwrap();
        let key = gateway
            .create_key(&project, "test", &Scope::ALL)
            .await
            .unwrap();
        Self {
            simulator,
            gateway,
            base,
            key: key.expose().to_owned(),
            directory,
            client: reqwest::Client::new(),
            running,
        }
    }

    /// Ends the gateway and starts another on the same store.
    pub async fn restart(&mut self, plan: &Plan) {
        let (gone, done) = tokio::sync::oneshot::channel::<()>();
        drop(gone);
        let _ = done.await;
        self.running = Running { stop: None };
        self.gateway.close().await;
        let (gateway, base, running) = serve(&self.directory, plan).await;
        self.gateway = gateway;
        self.base = base;
        self.running = running;
    }

    /// A project and a key of its own with these scopes.
    pub async fn project(&self, name: &str, scopes: &[Scope]) -> String {
        let project = name.parse().unwrap();
        self.gateway.create_project(&project).await.unwrap();
        let key = self
            .gateway
            .create_key(&project, "test", scopes)
            .await
            .unwrap();
        key.expose().to_owned()
    }

    pub async fn send(
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
        let reply = request.send().await.unwrap();
        let (status, headers) = (reply.status(), reply.headers().clone());
        Reply {
            status,
            headers,
            bytes: reply.bytes().await.unwrap().to_vec(),
        }
    }

    /// With the world's own key.
    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Reply {
        let bearer = format!("Bearer {}", self.key);
        self.send(method, path, &[("authorization", &bearer)], body)
            .await
    }

    /// A read under `/iam` of this account.
    pub async fn read(&self, account: &str, path: &str) -> Reply {
        self.read_with(account, path, &[]).await
    }

    pub async fn read_with(&self, account: &str, path: &str, headers: &[(&str, &str)]) -> Reply {
        let bearer = format!("Bearer {}", self.key);
        let mut all = vec![
            ("authorization", bearer.as_str()),
            ("x-account-id", account),
        ];
        all.extend_from_slice(headers);
        self.send(Method::GET, path, &all, None).await
    }

    pub fn account_body(&self, token: &str) -> Value {
        json!({
            "provider": "smartsheet",
            "origin_owner_id": "customer-1",
            "origin_owner_name": "Customer One",
            "credential": { "type": "access_token", "access_token": token },
            "base_url": self.simulator.announcement().api_base,
        })
    }

    /// Links an account with this token and gives its id.
    pub async fn link(&self, token: &str) -> String {
        let body = self.account_body(token);
        let account = self
            .call(Method::POST, "/accounts", Some(&body))
            .await
            .expect(201);
        account["id"].as_str().unwrap().to_owned()
    }

    pub async fn link_admin(&self) -> String {
        self.link(&self.simulator.announcement().tokens.system_admin.clone())
            .await
    }

    /// Walks now and gives the walk once it has ended.
    pub async fn walk(&self, account: &str) -> Value {
        self.walk_with(account, "").await
    }

    pub async fn walk_with(&self, account: &str, query: &str) -> Value {
        let path = format!("/accounts/{account}/walks?wait=60{query}");
        self.call(Method::POST, &path, None).await.expect(200)
    }

    /// All records of a list, by walking its pages.
    pub async fn all(&self, account: &str, list: &str, query: &str) -> Vec<Value> {
        let mut records = Vec::new();
        let mut next = String::new();
        loop {
            let path = format!("/iam/{list}?page_size=100{query}{next}");
            let page = self.read(account, &path).await.expect(200);
            records.extend(page["data"].as_array().unwrap().iter().cloned());
            match page["next"].as_str() {
                Some(cursor) => next = format!("&next={cursor}"),
                None => return records,
            }
        }
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
        assert!(reply.status().is_success(), "{path}: {}", reply.status());
        let text = reply.text().await.unwrap();
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    pub async fn mutate(&self, ops: &Value) -> Value {
        self.control(Method::POST, "/mutate", ops).await
    }

    pub async fn faults(&self, faults: &Value) {
        self.control(Method::POST, "/faults", faults).await;
    }

    pub async fn no_faults(&self) {
        self.control(Method::DELETE, "/faults", &json!(null)).await;
    }

    /// The provider's world as it is.
    pub async fn truth(&self) -> Value {
        self.control(Method::GET, "/truth", &json!(null)).await
    }
}

async fn serve(directory: &Arc<TempDir>, plan: &Plan) -> (Gateway, String, Running) {
    let url = format!(
        "\"sqlite://{}\"",
        directory.path().join("rolecall.db").display()
    );
    let rate_limit = plan.rate_limit.to_string();
    let mut settings = vec![
        ("server.listen", "\"127.0.0.1:0\""),
        ("server.workers", "1"),
        ("server.drain_seconds", "1"),
        ("store.url", url.as_str()),
        ("provider.rate_limit", rate_limit.as_str()),
        ("provider.loopback_base_urls", "true"),
    ];
    settings.extend(plan.settings.iter().copied());
    let config = Config::with(&settings).unwrap();
    let ring = KeyRing::read_file(&directory.path().join("rolecall.keys")).unwrap();
    let app = App::build(&config, ring, Clock::system(), Chance::system())
        .await
        .unwrap();
    let base = format!("http://127.0.0.1:{}", app.port());
    let gateway = app.gateway().clone();
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let kept = Arc::clone(directory);
    tokio::spawn(async move {
        let _ = app
            .run(async {
                let _ = stopped.await;
            })
            .await;
        drop(kept);
    });
    (gateway, base, Running { stop: Some(stop) })
}

/// A time-out that only a hang can reach.
pub const HANG: Duration = Duration::from_secs(30);
