//! A running simulator and a client that knows how to talk to it.

use std::sync::Once;

use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder, redirect};
use serde_json::Value;
use smartsheet_simulator::{Announcement, Options, Simulator};

pub struct House {
    pub simulator: Simulator,
    pub http: reqwest::Client,
}

/// What came back.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Reply {
    /// Status and error code.
    pub fn refusal(&self) -> (u16, u64) {
        (
            self.status,
            self.body["errorCode"].as_u64().unwrap_or_default(),
        )
    }

    pub fn rows(&self) -> &Vec<Value> {
        assert_eq!(self.status, 200, "{}", self.body);
        self.body["data"].as_array().unwrap()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// The options that most tests want: a small world, a free port, no limit.
pub fn small() -> Options {
    Options {
        port: 0,
        users: 120,
        groups: 12,
        rate_limit: 0,
        ..Options::default()
    }
}

pub async fn start() -> House {
    start_with(small()).await
}

pub async fn start_with(options: Options) -> House {
    static TLS: Once = Once::new();
    TLS.call_once(|| {
        rustls::crypto::ring::default_provider()
            .install_default()
            .unwrap();
    });
    let http = reqwest::Client::builder()
        .redirect(redirect::Policy::none())
        .build()
        .unwrap();
    House {
        simulator: Simulator::start(options).await.unwrap(),
        http,
    }
}

pub async fn reply(request: RequestBuilder) -> Reply {
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let text = response.text().await.unwrap();
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Reply {
        status,
        headers,
        body,
    }
}

impl House {
    pub fn is(&self) -> &Announcement {
        self.simulator.announcement()
    }

    /// A request to the API with a token.
    pub fn request(&self, method: Method, path: &str, token: &str) -> RequestBuilder {
        self.http
            .request(method, format!("{}{path}", self.is().api_base))
            .bearer_auth(token)
    }

    /// A read as the system admin.
    pub async fn get(&self, path: &str) -> Reply {
        self.get_as(&self.is().tokens.system_admin, path).await
    }

    pub async fn get_as(&self, token: &str, path: &str) -> Reply {
        reply(self.request(Method::GET, path, token)).await
    }

    /// A write as the system admin.
    pub async fn send(&self, method: Method, path: &str, body: Value) -> Reply {
        self.send_as(&self.is().tokens.system_admin, method, path, body)
            .await
    }

    pub async fn send_as(&self, token: &str, method: Method, path: &str, body: Value) -> Reply {
        let request = self.request(method, path, token);
        reply(if body.is_null() {
            request
        } else {
            request.json(&body)
        })
        .await
    }

    /// A call to the control plane that is taken.
    pub async fn control(&self, call: &str, body: Value) -> Value {
        let reply = self.try_control(call, body).await;
        assert_eq!(reply.status, 200, "{}", reply.body);
        reply.body
    }

    pub async fn try_control(&self, call: &str, body: Value) -> Reply {
        reply(
            self.http
                .post(format!("{}/{call}", self.is().control_url))
                .json(&body),
        )
        .await
    }

    pub async fn ask(&self, call: &str) -> Value {
        let reply = reply(self.http.get(format!("{}/{call}", self.is().control_url))).await;
        assert_eq!(reply.status, 200, "{}", reply.body);
        reply.body
    }

    pub async fn truth(&self) -> Value {
        self.ask("truth").await
    }

    /// The user of the truth with this address.
    pub async fn person(&self, email: &str) -> Value {
        let truth = self.truth().await;
        let mut users = truth["users"].as_array().unwrap().iter();
        users
            .find(|user| user["email"] == email)
            .cloned()
            .unwrap_or_default()
    }

    pub async fn id(&self, email: &str) -> u64 {
        self.person(email).await["id"].as_u64().unwrap()
    }

    /// The plan that the system admin is at home in.
    pub async fn plan(&self) -> u64 {
        let me = self.get("/users/me").await.body["id"].as_u64().unwrap();
        let page = self
            .get(&format!("/users/{me}/plans?lastKey=after-1"))
            .await;
        page.rows()[0]["planId"].as_u64().unwrap()
    }

    pub async fn switch(&self, switches: Value) {
        self.control("switches", switches).await;
    }

    pub async fn fault(&self, fault: Value) {
        self.control("faults", serde_json::json!([{"fault": fault}]))
            .await;
    }

    pub async fn advance(&self, seconds: u64) {
        self.control("clock", serde_json::json!({"advance_s": seconds}))
            .await;
    }

    /// The API's requests so far.
    pub async fn log(&self) -> Vec<Value> {
        self.ask("log").await.as_array().unwrap().clone()
    }
}

pub fn ids(rows: &[Value]) -> Vec<u64> {
    rows.iter().map(|row| row["id"].as_u64().unwrap()).collect()
}
