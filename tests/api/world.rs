//! A test's world: the simulator, a real gateway on a free port with a fresh store, and a
//! client. Everything of one test's own, so tests run side by side.

use std::{path::PathBuf, time::Duration};

use reqwest::{Method, StatusCode};
use rolecall::{
    app::{App, BuildError},
    clock::Clock,
    config::Config,
    crypto::{KeyRing, Rng},
    gateway::Gateway,
    model::api_keys::{NewKey, Scope},
    store::OpenError,
};
use serde_json::{Value, json};
use smartsheet_simulator::{Options, Simulator};
use sqlx::{ConnectOptions, Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use tempfile::TempDir;
use tokio::{sync::oneshot, task::JoinHandle};

use crate::{
    database::Database,
    relay::{Open, Relay},
    schema::Schema,
};

/// What a world is made with.
pub struct Plan {
    pub users: usize,
    pub groups: usize,
    pub seed: u64,
    /// Settings over the defaults: path and TOML value. There are no rate limits by default.
    pub settings: Vec<(&'static str, &'static str)>,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            users: 40,
            groups: 5,
            seed: 1,
            settings: Vec::new(),
        }
    }
}

pub struct World {
    pub simulator: Simulator,
    pub gateway: Gateway,
    /// The gateway's time: the machine's, until a test moves it.
    pub clock: Clock,
    pub base: String,
    /// A key of the project `one` with every scope.
    pub key: String,
    pub client: reqwest::Client,
    settings: Vec<(&'static str, &'static str)>,
    running: Option<Running>,
    place: Place,
}

/// Where a world's store and key ring are: a SQLite file, or with `ROLECALL_TEST_STORE=postgres` a
/// schema on the server that `ROLECALL_TEST_POSTGRES_URL` names.
struct Place {
    folder: TempDir,
    schema: Option<Schema>,
    remote: Option<Remote>,
}

/// A database whose server can be cut off, or take no writes.
pub struct Remote {
    pub relay: Relay,
    pub database: Database,
}

impl Remote {
    async fn new() -> Option<Self> {
        let database = Database::new().await?;
        let relay = Relay::to(database.address());
        Some(Self { relay, database })
    }

    /// The server no longer answers.
    pub fn cut(&self) {
        self.relay.lead_to(None, Open::End);
    }

    pub fn mend(&self) {
        let server = Some(self.database.address());
        self.relay.lead_to(server, Open::Stay);
    }
}

impl Place {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let schema = match std::env::var("ROLECALL_TEST_STORE").as_deref() {
            Ok("postgres") => Some(Schema::new().await.expect("a server is named")),
            Ok(other) => panic!("there is no store {other} to be tested"),
            Err(_) => None,
        };
        Self {
            folder,
            schema,
            remote: None,
        }
    }

    async fn remote() -> Option<Self> {
        Some(Self {
            folder: tempfile::tempdir().unwrap(),
            schema: None,
            remote: Some(Remote::new().await?),
        })
    }

    async fn shared() -> Option<Self> {
        Some(Self {
            folder: tempfile::tempdir().unwrap(),
            schema: Some(Schema::new().await?),
            remote: None,
        })
    }

    /// Of whichever gateway here is first.
    fn journal(&self) -> PathBuf {
        self.folder.path().join("rolecall.db.journal")
    }

    fn store_url(&self) -> String {
        if let Some(Remote { relay, database }) = &self.remote {
            return database.url_at(relay.address());
        }
        match &self.schema {
            Some(schema) => schema.url(),
            None => format!(
                "sqlite://{}",
                self.folder.path().join("rolecall.db").display()
            ),
        }
    }

    fn key_ring(&self) -> PathBuf {
        self.folder.path().join("rolecall.keys")
    }

    /// A connection to the SQLite file, beside the gateway's own.
    async fn file(&self) -> SqliteConnection {
        let options = SqliteConnectOptions::new().filename(self.folder.path().join("rolecall.db"));
        options.connect().await.unwrap()
    }
}

/// A second gateway on a world's store.
pub struct Replica {
    pub base: String,
    running: Running,
}

impl Replica {
    /// Ends it, as SIGTERM does, and waits until it has let go of the store.
    pub async fn stop(self) {
        let _ = self.running.stop.send(());
        self.running.served.await.unwrap();
    }
}

/// A gateway that is being served.
struct Running {
    stop: oneshot::Sender<()>,
    served: JoinHandle<()>,
}

/// A reply, read whole.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: reqwest::header::HeaderMap,
    pub bytes: Vec<u8>,
}

impl Reply {
    #[track_caller]
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

    /// The body of an error with this status and code; the message is the caller's to look at.
    #[track_caller]
    pub fn refused(&self, status: u16, code: &str) -> Value {
        let body = self.expect(status);
        assert_eq!(body["code"], code, "{body}");
        body
    }
}

impl World {
    pub async fn new() -> Self {
        Self::with(Plan::default()).await
    }

    pub async fn with(plan: Plan) -> Self {
        Self::at(Place::new().await, plan).await
    }

    /// With a store that several processes may serve; None where there is no server for it.
    pub async fn shared(plan: Plan) -> Option<Self> {
        Some(Self::at(Place::shared().await?, plan).await)
    }

    /// With a store that can be cut off; None where there is no server for it.
    pub async fn with_remote_store(plan: Plan) -> Option<Self> {
        Some(Self::at(Place::remote().await?, plan).await)
    }

    pub fn remote(&self) -> &Remote {
        self.place.remote.as_ref().expect("its store is remote")
    }

    async fn at(place: Place, plan: Plan) -> Self {
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
        let ring = KeyRing::generate("k1", &Rng::system()).unwrap();
        ring.create_file(&place.key_ring()).unwrap();
        let clock = Clock::movable();
        let (gateway, base, running) = serve(&place, &plan.settings, &clock).await;
        let project = "one".parse().unwrap();
        gateway.create_project(&project).await.unwrap();
        let (key, _) = gateway
            .api_keys()
            .create_key(&project, &NewKey::with_scopes(&Scope::ALL))
            .await
            .unwrap();
        Self {
            simulator,
            gateway,
            clock,
            base,
            key: key.expose().to_owned(),
            client: client().build().unwrap(),
            settings: plan.settings,
            running: Some(running),
            place,
        }
    }

    /// Ends the gateway, as SIGTERM does, and waits until it has let go of its store.
    pub async fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            let _ = running.stop.send(());
            running.served.await.unwrap();
        }
    }

    /// Ends the gateway and starts another on the same store.
    pub async fn restart(&mut self) {
        self.stop().await;
        // No connection to the old one is used again.
        self.client = client().build().unwrap();
        let (gateway, base, running) = serve(&self.place, &self.settings, &self.clock).await;
        self.gateway = gateway;
        self.base = base;
        self.running = Some(running);
    }

    /// Starts again with other settings than these.
    pub async fn restart_with(&mut self, settings: &[(&'static str, &'static str)]) {
        self.settings.extend_from_slice(settings);
        self.restart().await;
    }

    /// Starts again on a machine whose date is this much behind.
    pub async fn restart_with_date_back(&mut self, by: Duration) {
        self.restart_on(Clock::racing(self.clock.now() - by, 1))
            .await;
    }

    /// Starts again with another clock.
    pub async fn restart_on(&mut self, clock: Clock) {
        self.clock = clock;
        self.restart().await;
    }

    /// Has the gateway stop, and does not wait until it has.
    pub async fn begin_to_stop(&mut self) {
        if let Some(running) = self.running.take() {
            let _ = running.stop.send(());
        }
        self.gateway.stopped().await;
    }

    /// A gateway on an empty store that serves nobody yet.
    pub async fn not_serving() -> (TempDir, Gateway) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rolecall.db");
        let url = format!("\"sqlite://{}\"", path.display());
        let config = Config::with(&[("store.url", &url)]).unwrap();
        let ring = KeyRing::generate("k1", &Rng::system()).unwrap();
        let gateway = rolecall::app::gateway(&config, ring, Clock::system(), Rng::system());
        (folder, gateway.await.unwrap())
    }

    /// Another gateway on the same store, with the same clock.
    pub async fn another(&self) -> Replica {
        let (_, base, running) = serve(&self.place, &self.settings, &self.clock).await;
        Replica { base, running }
    }

    /// Changes what is stored behind the gateway's back.
    pub async fn rewrite(&self, statement: &str) {
        let statement = sqlx::AssertSqlSafe(statement.to_owned());
        if let Some(schema) = &self.place.schema {
            let mut connection = schema.connect().await;
            sqlx::raw_sql(statement)
                .execute(&mut connection)
                .await
                .unwrap();
            connection.close().await.unwrap();
        } else {
            let mut connection = self.place.file().await;
            sqlx::raw_sql(statement)
                .execute(&mut connection)
                .await
                .unwrap();
            connection.close().await.unwrap();
        }
    }

    /// As if so much time had passed for every credential. With PostgreSQL the moments are the
    /// database's, which nobody moves.
    pub async fn credentials_age(&self, time: Duration) {
        let Some(schema) = &self.place.schema else {
            self.clock.advance(time);
            return;
        };
        let millis = time.as_millis();
        let statement = format!(
            "update credentials set due_at = due_at - {millis}, refused_at = refused_at - {millis},
                 state_since = state_since - {millis}"
        );
        let mut connection = schema.connect().await;
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement))
            .execute(&mut connection)
            .await
            .unwrap();
        connection.close().await.unwrap();
    }

    /// A number that is stored.
    pub async fn number(&self, query: &'static str) -> i64 {
        if let Some(schema) = &self.place.schema {
            let mut connection = schema.connect().await;
            let number = sqlx::query_scalar(query).fetch_one(&mut connection).await;
            connection.close().await.unwrap();
            number.unwrap()
        } else {
            let mut connection = self.place.file().await;
            let number = sqlx::query_scalar(query).fetch_one(&mut connection).await;
            connection.close().await.unwrap();
            number.unwrap()
        }
    }

    /// Takes the store away from every writer until what this gives is dropped; None where the
    /// store is not a SQLite file.
    pub async fn lock_store(&self) -> Option<SqliteConnection> {
        if self.place.schema.is_some() {
            return None;
        }
        let mut connection = self.place.file().await;
        sqlx::raw_sql("begin immediate")
            .execute(&mut connection)
            .await
            .unwrap();
        Some(connection)
    }

    /// How many pairs of tokens wait beside the store.
    pub fn journaled(&self) -> usize {
        let folder = self.place.journal();
        let files = std::fs::read_dir(folder).unwrap();
        files
            .filter(|file| {
                let path = file.as_ref().unwrap().path();
                path.extension()
                    .is_some_and(|extension| extension == "pair")
            })
            .count()
    }

    /// A project and a key of its own with these scopes.
    pub async fn project(&self, name: &str, scopes: &[Scope]) -> String {
        let project = name.parse().unwrap();
        self.gateway.create_project(&project).await.unwrap();
        self.key_of(name, scopes).await
    }

    /// One key more for a project.
    pub async fn key_of(&self, project: &str, scopes: &[Scope]) -> String {
        let (key, _) = self
            .gateway
            .api_keys()
            .create_key(&project.parse().unwrap(), &NewKey::with_scopes(scopes))
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
        self.send_to(&self.base, method, path, headers, body).await
    }

    pub async fn send_to(
        &self,
        base: &str,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Reply {
        let mut request = self.client.request(method, format!("{base}{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        reply(request).await
    }

    /// With the world's own key.
    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Reply {
        let bearer = format!("Bearer {}", self.key);
        self.send(method, path, &[("authorization", &bearer)], body)
            .await
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.call(Method::GET, path, None).await
    }

    pub async fn post(&self, path: &str) -> Reply {
        self.call(Method::POST, path, None).await
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

    pub async fn read_with_method(&self, method: &Method, account: &str, path: &str) -> Reply {
        let bearer = format!("Bearer {}", self.key);
        let headers = [
            ("authorization", bearer.as_str()),
            ("x-account-id", account),
        ];
        self.send(method.clone(), path, &headers, None).await
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

    /// Tries to link an account with this token.
    pub async fn try_link(&self, token: &str) -> Reply {
        let body = self.account_body(token);
        self.call(Method::POST, "/accounts", Some(&body)).await
    }

    /// Links an account with this token and gives its id.
    pub async fn link(&self, token: &str) -> String {
        let account = self.try_link(token).await.expect(201);
        account["id"].as_str().unwrap().to_owned()
    }

    /// Links an account with the system admin's token, and waits for its first walk.
    pub async fn link_admin(&self) -> String {
        let account = self.link(&self.admin_token()).await;
        self.read(&account, "/iam/users?page_size=1")
            .await
            .expect(200);
        account
    }

    /// The person behind the system admin's token, by e-mail address.
    pub async fn admin_email(&self) -> String {
        let truth = self.truth().await;
        truth["users"][0]["email"].as_str().unwrap().to_owned()
    }

    /// Consents at the provider, as `login`, to what its page of consent at `url` asks; gives
    /// where the browser is sent then.
    pub async fn consent(&self, url: &str, login: &str) -> url::Url {
        self.decide(url, login, "allow").await
    }

    /// Allows or denies at the provider what its page of consent at `url` asks.
    pub async fn decide(&self, url: &str, login: &str, decision: &str) -> url::Url {
        let mut page: url::Url = url.parse().unwrap();
        let mut form: Vec<_> = page.query_pairs().into_owned().collect();
        form.push(("login".to_owned(), login.to_owned()));
        form.push(("decision".to_owned(), decision.to_owned()));
        page.set_query(None);
        let browser = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .unwrap();
        let reply = browser.post(page).form(&form).send().await.unwrap();
        assert_eq!(reply.status(), StatusCode::FOUND, "{reply:?}");
        let location = reply.headers()["location"].to_str().unwrap();
        location.parse().unwrap()
    }

    /// A connector profile for an app that is registered at the provider, as its id; and where its
    /// browser is sent back to.
    pub async fn profile(&self) -> (String, String) {
        let callback = "https://app.example.org/callback";
        let client = self.simulator.register_client(callback);
        let body = json!({
            "provider": "smartsheet",
            "client_id": client.client_id,
            "client_secret": client.client_secret,
            "base_url": self.simulator.announcement().api_base,
            "redirect_url": callback,
        });
        let made = self
            .call(Method::POST, "/connector_profiles", Some(&body))
            .await
            .expect(201);
        (made["id"].as_str().unwrap().to_owned(), callback.to_owned())
    }

    pub fn admin_token(&self) -> String {
        self.simulator.announcement().tokens.system_admin.clone()
    }

    /// Walks now and gives the walk once it has ended.
    pub async fn walk(&self, account: &str) -> Value {
        self.walk_with(account, "").await
    }

    pub async fn walk_with(&self, account: &str, query: &str) -> Value {
        let path = format!("/accounts/{account}/walks?wait=60{query}");
        self.post(&path).await.expect(200)
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
                None => {
                    assert_eq!(page["total"], records.len());
                    return records;
                }
            }
        }
    }

    /// The simulator's control plane.
    pub async fn control(&self, method: Method, path: &str, body: &Value) -> Value {
        let url = format!("{}{path}", self.simulator.announcement().control_url);
        let reply = reply(self.client.request(method, url).json(body)).await;
        assert!(
            reply.status.is_success(),
            "{path}: {}",
            String::from_utf8_lossy(&reply.bytes)
        );
        serde_json::from_slice(&reply.bytes).unwrap_or(Value::Null)
    }

    /// Changes the provider's world; every operation must have been done.
    pub async fn mutate(&self, ops: &Value) -> Vec<Value> {
        let results = self.control(Method::POST, "/mutate", ops).await;
        let results = results.as_array().unwrap().clone();
        assert!(
            results.iter().all(|result| result.get("error").is_none()),
            "{results:?}"
        );
        results
    }

    pub async fn faults(&self, faults: &Value) {
        self.control(Method::POST, "/faults", faults).await;
    }

    pub async fn no_faults(&self) {
        self.control(Method::DELETE, "/faults", &json!(null)).await;
    }

    /// From now on the provider answers nothing but this status.
    pub async fn provider_answers(&self, status: u16) {
        let code = match status {
            401 => 1002,
            403 => 1004,
            _ => 4000,
        };
        let fault = json!({"kind": "status", "status": status, "error_code": code});
        self.faults(&json!([{"match": {}, "fault": fault}])).await;
    }

    /// From now on every answer of the provider takes so long.
    pub async fn provider_takes(&self, wait: Duration) {
        let fault = json!({"kind": "delay", "ms": u64::try_from(wait.as_millis()).unwrap()});
        self.faults(&json!([{"match": {}, "fault": fault}])).await;
    }

    pub async fn switches(&self, switches: &Value) {
        self.control(Method::POST, "/switches", switches).await;
    }

    /// The provider's world as it is.
    pub async fn truth(&self) -> Value {
        self.control(Method::GET, "/truth", &json!(null)).await
    }

    /// Every call that the provider has had since `seq`, oldest first.
    pub async fn provider_log(&self, seq: u64) -> Vec<Value> {
        let log = self
            .control(Method::GET, &format!("/log?since={seq}"), &json!(null))
            .await;
        log.as_array().unwrap().clone()
    }

    /// The number of the last call that the provider has had; 0 before the first.
    pub async fn provider_calls(&self) -> u64 {
        self.provider_log(0)
            .await
            .last()
            .map_or(0, |entry| entry["seq"].as_u64().unwrap())
    }

    /// Waits until the provider has had a call after `seq`. That is an event and no time, but
    /// one that only asking again and again shows.
    pub async fn provider_is_called_after(&self, seq: u64) {
        let called = async { while self.provider_calls().await <= seq {} };
        tokio::time::timeout(HANG, called).await.unwrap();
    }

    /// An account of the truth's users by what holds for it, as its id.
    pub async fn somebody(&self, holds: impl Fn(&Value) -> bool) -> Vec<String> {
        let truth = self.truth().await;
        let users = truth["users"].as_array().unwrap();
        users
            .iter()
            .filter(|user| holds(user))
            .map(|user| user["id"].to_string())
            .collect()
    }
}

/// Serves a gateway on the store at `place`.
async fn serve(
    place: &Place,
    over: &[(&'static str, &'static str)],
    clock: &Clock,
) -> (Gateway, String, Running) {
    let url = format!("{:?}", place.store_url());
    let journal = format!("{:?}", place.journal());
    let mut settings = vec![
        ("server.listen", "\"127.0.0.1:0\""),
        ("server.workers", "1"),
        ("server.lame_duck_seconds", "0"),
        ("server.drain_seconds", "1"),
        ("store.url", url.as_str()),
        ("store.journal", journal.as_str()),
        // Of several gateways on one store the first has it.
        ("store.journal_required", "false"),
        ("server.requests_per_minute_per_key", "0"),
        ("server.requests_per_minute_per_project", "0"),
        ("provider.rate_limit", "0"),
        ("walk.held_confirmed_after_seconds", "0"),
        ("provider.loopback_base_urls", "true"),
    ];
    settings.extend_from_slice(over);
    let config = Config::with(&settings).unwrap();
    let ring = KeyRing::read_file(&place.key_ring()).unwrap();
    let app = build(&config, &ring, clock).await;
    let base = format!("http://127.0.0.1:{}", app.port());
    let gateway = app.gateway().clone();
    let (stop, stopped) = oneshot::channel();
    let served = tokio::spawn(async move {
        let shutdown = async {
            let _ = stopped.await;
        };
        app.run(shutdown).await.unwrap();
    });
    (gateway, base, Running { stop, served })
}

/// Builds as soon as the gateway before has let the store go: a write that waits for a lock may keep
/// it for some seconds after it has stopped to serve.
async fn build(config: &Config, ring: &KeyRing, clock: &Clock) -> App {
    for _ in 0..3_000 {
        match App::build(config, ring.clone(), clock.clone(), Rng::system()).await {
            Err(BuildError::Store(OpenError::InUse { .. })) => {
                Clock::system().sleep(Duration::from_millis(5)).await;
            }
            built => return built.unwrap(),
        }
    }
    panic!("the store is not let go");
}

/// A client that leaves a connection before its server does, which closes an idle one after five
/// seconds: a request that meets a closing door is lost.
pub fn client() -> reqwest::ClientBuilder {
    reqwest::Client::builder().pool_idle_timeout(Duration::from_secs(2))
}

pub async fn reply(request: reqwest::RequestBuilder) -> Reply {
    let reply = request.send().await.unwrap();
    let (status, headers) = (reply.status(), reply.headers().clone());
    let reply = Reply {
        status,
        headers,
        bytes: reply.bytes().await.unwrap().to_vec(),
    };
    if reply.header("x-request-id").is_some()
        && let Ok(body) = serde_json::from_slice(&reply.bytes)
    {
        check_timestamps(&body);
    }
    reply
}

/// Every timestamp that Rolecall serves is in one form, in whichever answer of whichever test.
#[track_caller]
pub fn check_timestamps(body: &Value) {
    match body {
        Value::Array(items) => items.iter().for_each(check_timestamps),
        Value::Object(fields) => fields.values().for_each(check_timestamps),
        Value::String(text) if text.parse::<jiff::Timestamp>().is_ok() => {
            let fraction = text.as_bytes().get(19..);
            let is_in_form = fraction.is_some_and(|fraction| {
                fraction.len() == 5
                    && fraction[0] == b'.'
                    && fraction[1..4].iter().all(u8::is_ascii_digit)
                    && fraction[4] == b'Z'
            });
            assert!(is_in_form, "{text}");
        }
        _ => {}
    }
}

/// A time-out that only a hang can reach.
pub const HANG: Duration = Duration::from_secs(60);
