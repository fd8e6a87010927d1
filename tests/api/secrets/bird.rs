//! Somebody who links, and keeps a note of all that is secret in it.

use reqwest::Method;
use serde_json::{Value, json};

use super::cage::{Cage, Process};
use crate::{
    attacks::{
        server::{Answer, Hostile},
        sign_in::parameter,
    },
    browser::Browser,
    world::{Reply, World},
};

/// Somebody who links, and everything that they should keep to themselves.
pub struct Bird {
    /// What is behind the hostile one.
    _provider: World,
    pub hostile: Hostile,
    /// While it is served.
    pub process: Option<Process>,
    pub base: String,
    pub key: String,
    pub secrets: Vec<(&'static str, String)>,
    /// Whatever was answered that holds no secret on purpose.
    pub answers: Vec<Reply>,
    pub pages: Vec<Vec<u8>>,
    pub stored: Vec<(String, Vec<u8>)>,
    made: u32,
}

/// An invitation that somebody opened.
pub struct Visit {
    pub browser: Browser,
    pub token: String,
}

impl Bird {
    pub async fn new(cage: &Cage, environment: &[(&str, String)]) -> Self {
        let world = World::new().await;
        let process = cage.start(environment).await;
        Self {
            hostile: Hostile::before(&world).await,
            _provider: world,
            base: process.base.clone(),
            process: Some(process),
            key: cage.key.clone(),
            secrets: vec![
                ("the API key", cage.key.clone()),
                ("the key ring", cage.ring_key.clone()),
            ],
            answers: Vec::new(),
            pages: Vec::new(),
            stored: Vec::new(),
            made: 0,
        }
    }

    /// A text that is nowhere else.
    pub fn canary(&mut self, what: &'static str) -> String {
        self.made += 1;
        let text = format!("Canary/{:02}+5d1e9b77c0Zz~{}", self.made, what.len());
        self.secrets.push((what, text.clone()));
        text
    }

    pub async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Reply {
        let bearer = format!("Bearer {}", self.key);
        let headers = [("authorization", bearer.as_str())];
        let process = self.process.as_ref().unwrap();
        process.ask(method, path, &headers, body).await
    }

    /// Asks, and keeps what is answered to be searched.
    pub async fn hears(&mut self, method: Method, path: &str, body: Option<&Value>) -> Value {
        let reply = self.ask(method, path, body).await;
        let said = serde_json::from_slice(&reply.bytes).unwrap_or_default();
        self.answers.push(reply);
        said
    }

    pub async fn post(&mut self, path: &str, body: &Value) -> Value {
        self.hears(Method::POST, path, Some(body)).await
    }

    /// From now on the token endpoint gives out a pair of canaries.
    pub fn new_pair(&mut self) {
        let pair = json!({
            "access_token": self.canary("an access token"),
            "refresh_token": self.canary("a refresh token"),
            "token_type": "bearer",
            "expires_in": 604_799,
        });
        self.hostile.issues(Answer::json(pair));
    }

    pub async fn invited(&mut self, more: &Value) -> Visit {
        let mut body = json!({ "origin_owner_id": "c", "origin_owner_name": "C" });
        let more = more.as_object().unwrap().clone();
        body.as_object_mut().unwrap().extend(more);
        let made = self
            .ask(Method::POST, "/connect_sessions", Some(&body))
            .await;
        let link = made.expect(201)["auth_link_url"]
            .as_str()
            .unwrap()
            .to_owned();
        let mut browser = Browser::at(&self.base);
        browser.get(&link).await.leads();
        let cookie = browser.cookie.clone().unwrap();
        let (_, kept) = cookie.split_once('=').unwrap();
        let (token, browser_secret) = kept.split_once('.').unwrap();
        self.secrets.push(("a link token", token.to_owned()));
        self.secrets
            .push(("a browser's secret", browser_secret.to_owned()));
        let token = token.to_owned();
        Visit { browser, token }
    }

    /// A new state, and where a browser comes back to with it and this code.
    pub fn back(&mut self, way: &str, code: &str) -> String {
        let state = parameter(way, "state");
        self.secrets.push(("a state", state.clone()));
        let mut back = url::Url::parse(&parameter(way, "redirect_uri")).unwrap();
        let mut pairs = back.query_pairs_mut();
        pairs.append_pair("code", code).append_pair("state", &state);
        drop(pairs);
        back.into()
    }

    /// Looks at everything that is stored now.
    pub async fn look(&mut self, cage: &Cage) {
        self.stored.extend(cage.stored().await);
    }

    pub fn leaves(&mut self, visit: Visit) {
        self.pages.extend(visit.browser.seen);
    }
}
