//! An installation with a project, and a provider to link accounts at.

use reqwest::Method;
use serde_json::{Value, json};
use smartsheet_simulator::{Options, Simulator};
use sqlx::{Connection, SqliteConnection};

use crate::bench::{Bench, Outcome, Running, client};

pub const CONFIG: [&str; 2] = ["--config", "rolecall.toml"];

pub struct Office {
    pub bench: Bench,
    pub simulator: Simulator,
    pub key: String,
}

impl Office {
    /// Writes to the database past everything.
    pub async fn tamper(&self, statement: &'static str) {
        let path = self.bench.path("rolecall.db");
        let url = format!("sqlite://{}", path.display());
        let mut raw = SqliteConnection::connect(&url).await.unwrap();
        sqlx::raw_sql(statement).execute(&mut raw).await.unwrap();
        raw.close().await.unwrap();
    }

    pub async fn new() -> Self {
        Self::of(40, 5).await
    }

    pub async fn of(users: usize, groups: usize) -> Self {
        Self::with_settings(users, groups, "").await
    }

    /// One whose store is the PostgreSQL database at `url`.
    pub async fn at(url: &str) -> Self {
        Self::with_settings(40, 5, &format!("\n[store]\nurl = {url:?}\n"))
            .await
            .with_journal()
    }

    /// With PostgreSQL it must be named in full.
    fn with_journal(self) -> Self {
        let settings = std::fs::read_to_string(self.bench.path("rolecall.toml")).unwrap();
        let journal = self.bench.path("journal");
        let settings = settings.replace("[store]\n", &format!("[store]\njournal = {journal:?}\n"));
        self.bench.write("rolecall.toml", &settings);
        self
    }

    async fn with_settings(users: usize, groups: usize, settings: &str) -> Self {
        let simulator = Simulator::start(Options {
            port: 0,
            users,
            groups,
            rate_limit: 0,
            ..Options::default()
        });
        let mut office = Self {
            bench: Bench::new(),
            simulator: simulator.await.unwrap(),
            key: String::new(),
        };
        office.bench.furnish().await;
        let before = std::fs::read_to_string(office.bench.path("rolecall.toml")).unwrap();
        let bench = &office.bench;
        bench.write("rolecall.toml", &format!("{before}{settings}"));
        office.run(&["projects", "create", "acme"]).await.expect(0);
        let key = ["keys", "create", "--project", "acme", "--json"];
        let key = office.run(&key).await.expect(0).json();
        office.key = key["api_key"].as_str().unwrap().to_owned();
        office
    }

    pub async fn run(&self, arguments: &[&str]) -> Outcome {
        self.bench.run(&[arguments, &CONFIG].concat()).await
    }

    pub fn admin_token(&self) -> &str {
        &self.simulator.announcement().tokens.system_admin
    }

    /// `accounts link` with this on standard input.
    pub async fn link_with(&self, token: &[u8], more: &[&str]) -> Outcome {
        let base = self.simulator.announcement().api_base.as_str();
        let arguments = [
            &["accounts", "link", "--project", "acme", "--token-stdin"][..],
            &["--base-url", base, "--owner-id", "customer-1"],
            &["--owner-name", "Customer One"],
            more,
            &CONFIG,
        ];
        self.bench.run_with(&arguments.concat(), token).await
    }

    /// Links an account by the system admin's token, and gives its id.
    pub async fn link(&self) -> String {
        let token = format!("{}\n", self.admin_token());
        let linked = self.link_with(token.as_bytes(), &["--json"]).await;
        linked.expect(0).json()["id"].as_str().unwrap().to_owned()
    }

    /// A profile of the project's for an app that is registered with this redirect URL.
    pub async fn profile(&self, redirect_url: &str) -> String {
        let app = self.simulator.register_client(redirect_url);
        let base = self.simulator.announcement().api_base.as_str();
        let arguments = [
            &["profiles", "create", "--project", "acme", "--json"][..],
            &["--client-id", &app.client_id, "--secret-stdin"],
            &["--base-url", base, "--redirect-url", redirect_url],
            &CONFIG,
        ];
        let secret = format!("{}\n", app.client_secret);
        let arguments = arguments.concat();
        let made = self.bench.run_with(&arguments, secret.as_bytes());
        let made = made.await.expect(0);
        assert!(!made.out.contains(&app.client_secret));
        made.json()["id"].as_str().unwrap().to_owned()
    }

    pub async fn serve(&self) -> (Running, String) {
        self.bench.serve().await
    }

    /// What a server answers, if that is JSON.
    pub async fn get(&self, base: &str, account: &str, path: &str) -> Value {
        let request = client().get(format!("{base}{path}"));
        let request = request.bearer_auth(&self.key);
        let reply = request.header("x-account-id", account).send().await;
        reply.unwrap().json().await.unwrap()
    }

    /// Who the system admin is, as the provider says.
    pub async fn admin_email(&self) -> String {
        let url = format!("{}/users/me", self.simulator.announcement().api_base);
        let request = client().get(url).bearer_auth(self.admin_token());
        let me: Value = request.send().await.unwrap().json().await.unwrap();
        me["email"].as_str().unwrap().to_owned()
    }

    /// A word to the simulator.
    pub async fn control(&self, method: Method, path: &str, body: &Value) -> Value {
        let url = format!("{}{path}", self.simulator.announcement().control_url);
        let reply = client().request(method, url).json(body).send().await;
        reply.unwrap().json().await.unwrap_or(Value::Null)
    }

    /// Adds a user of this name.
    pub async fn add_user(&self, email: &str, first_name: &str) {
        let change = json!([{ "op": "add_user", "email": email, "first_name": first_name }]);
        let done = self.control(Method::POST, "/mutate", &change).await;
        assert!(done.get("error").is_none(), "{done}");
    }
}

/// A port that nobody listens on.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// A person's browser, as far as a page of consent needs one.
pub struct Browser(reqwest::Client);

impl Browser {
    pub fn new() -> Self {
        // The first test to ask sets it for all.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
        Self(client.build().unwrap())
    }

    /// Has the system admin decide on the page at `address`, and gives where the browser is sent.
    pub async fn consents(&self, office: &Office, address: &str, decision: &str) -> String {
        let url = url::Url::parse(address).unwrap();
        let mut form: Vec<(String, String)> = url.query_pairs().into_owned().collect();
        form.push(("login".to_owned(), office.admin_email().await));
        form.push(("decision".to_owned(), decision.to_owned()));
        let mut page = url.clone();
        page.set_query(None);
        let reply = self.0.post(page).form(&form).send().await.unwrap();
        assert_eq!(reply.status(), 302, "{}", reply.text().await.unwrap());
        reply.headers()["location"].to_str().unwrap().to_owned()
    }
}
