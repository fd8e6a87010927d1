//! A customer's browser: it opens an invitation, fills the hub's forms, and consents at the provider.

use reqwest::{Method, RequestBuilder, redirect::Policy};
use serde_json::{Value, json};
use url::Url;

use crate::world::{HANG, Reply, World, client, reply};

/// A browser that keeps cookies and shows where it is led.
pub struct Browser {
    pub client: reqwest::Client,
    base: String,
    pub cookie: Option<String>,
    /// What pages were shown, with the header fields that nothing but a browser reads.
    pub seen: Vec<Vec<u8>>,
}

impl Reply {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.bytes).unwrap()
    }

    /// The page, if it has this status and says this.
    #[track_caller]
    pub fn says(&self, status: u16, words: &str) -> &str {
        let text = self.text();
        assert_eq!(self.status.as_u16(), status, "{text}");
        assert!(text.contains(words), "{words}: {text}");
        text
    }

    /// Where a 303 leads.
    #[track_caller]
    pub fn leads(&self) -> &str {
        assert_eq!(self.status.as_u16(), 303, "{}", self.text());
        self.header("location").unwrap()
    }

    /// The value of the input of this name.
    #[track_caller]
    pub fn input(&self, name: &str) -> String {
        let start = format!("name=\"{name}\" value=\"");
        let (_, rest) = self.text().split_once(&start).unwrap_or_else(|| {
            panic!("no {name}: {}", self.text());
        });
        rest.split('"').next().unwrap().to_owned()
    }
}

impl Browser {
    pub fn new(world: &World) -> Self {
        Self::at(&world.base)
    }

    pub fn at(base: &str) -> Self {
        let client = client().redirect(Policy::none());
        Self {
            client: client.build().unwrap(),
            base: base.to_owned(),
            cookie: None,
            seen: Vec::new(),
        }
    }

    pub fn url(&self, place: &str) -> String {
        match place.strip_prefix('/') {
            Some(_) => format!("{}{place}", self.base),
            None => place.to_owned(),
        }
    }

    pub async fn send(&mut self, mut request: RequestBuilder) -> Reply {
        if let Some(cookie) = &self.cookie {
            request = request.header("cookie", cookie);
        }
        let reply = reply(request).await;
        if let Some(set) = reply.header("set-cookie") {
            self.cookie = Some(set.split(';').next().unwrap().to_owned());
        }
        let mut headers = reply.headers.clone();
        for kept in ["set-cookie", "location"] {
            headers.remove(kept);
        }
        let head = format!("{:?} {headers:?}\n", reply.status);
        self.seen.push([head.as_bytes(), &reply.bytes].concat());
        reply
    }

    pub async fn get(&mut self, place: &str) -> Reply {
        let request = self.client.get(self.url(place));
        self.send(request).await
    }

    /// As a page of the hub's posts.
    pub async fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Reply {
        let request = self
            .client
            .post(self.url(path))
            .header("origin", "null")
            .header("sec-fetch-site", "same-origin")
            .form(fields);
        self.send(request).await
    }

    /// The form on the page at `path`, filled in.
    pub async fn fill(&mut self, page: &str, action: &str, fields: &[(&str, &str)]) -> Reply {
        let page = self.get(page).await;
        let token = page.input("form_token");
        let mut all = vec![("form_token", token.as_str())];
        all.extend_from_slice(fields);
        self.post(action, &all).await
    }

    pub async fn open(world: &World, link: &str) -> Self {
        let mut browser = Self::new(world);
        assert_eq!(browser.get(link).await.leads(), "/connect");
        browser
    }

    pub async fn bring(&mut self, world: &World, token: &str) -> Reply {
        let region = world.simulator.announcement().api_base.clone();
        self.bring_to(&region, token).await
    }

    pub async fn bring_to(&mut self, region: &str, token: &str) -> Reply {
        let fields = [("region", region), ("token", token)];
        self.fill("/connect/token", "/connect/token", &fields).await
    }

    pub async fn sign_in(&mut self, profile: &str) -> String {
        let fields = [("profile", profile)];
        let reply = self.fill("/connect", "/connect/sign-in", &fields).await;
        reply.leads().to_owned()
    }

    pub async fn own_app(&mut self, world: &World, id: &str, secret: &str) -> Reply {
        let region = world.simulator.announcement().api_base.clone();
        self.own_app_at(&region, id, secret).await
    }

    pub async fn own_app_at(&mut self, region: &str, id: &str, secret: &str) -> Reply {
        let fields = [
            ("region", region),
            ("client_id", id),
            ("client_secret", secret),
        ];
        self.fill("/connect/app", "/connect/app", &fields).await
    }

    /// What a person decides on the provider's page, and where that sends the browser.
    pub async fn consent(&self, authorize: &str, decision: &str) -> String {
        let page = reply(self.client.get(authorize)).await;
        let (_, login) = page.text().split_once("list=\"people\" value=\"").unwrap();
        let login = login.split('"').next().unwrap().to_owned();
        let url = Url::parse(authorize).unwrap();
        let mut fields: Vec<(String, String)> = url.query_pairs().into_owned().collect();
        fields.push(("login".to_owned(), login));
        fields.push(("decision".to_owned(), decision.to_owned()));
        let page = format!("{}/b/authorize", url.origin().ascii_serialization());
        let answer = reply(self.client.post(page).form(&fields)).await;
        assert_eq!(answer.status.as_u16(), 302, "{}", answer.text());
        answer.header("location").unwrap().to_owned()
    }

    /// From the review to the end.
    pub async fn save(&mut self) -> Reply {
        let page = self.get("/connect/review").await;
        let draft = page.input("draft");
        let token = page.input("form_token");
        let fields = [
            ("form_token", token.as_str()),
            ("draft", draft.as_str()),
            ("decision", "save"),
        ];
        self.post("/connect/review", &fields).await
    }

    /// Waits for the first walk, as the page does.
    pub async fn await_sealed(&mut self) -> Reply {
        let sealed = async {
            loop {
                let now = self.get("/connect/progress.json").await.expect(200);
                if now["state"] == "sealed" {
                    break;
                }
                assert_ne!(now["state"], "failed", "{now}");
            }
        };
        tokio::time::timeout(HANG, sealed).await.unwrap();
        assert_eq!(self.get("/connect/progress").await.leads(), "/connect/done");
        self.get("/connect/done").await
    }
}

impl World {
    pub fn callback(&self, of: &str) -> String {
        format!("{}/connect/oauth2/{of}/callback", self.base)
    }

    /// A profile of an app that is registered at the simulator.
    pub async fn hub_profile(&self) -> String {
        let client = self.simulator.register_client(&self.callback("smartsheet"));
        self.hub_profile_with(&client.client_id, &client.client_secret)
            .await
    }

    pub async fn hub_profile_with(&self, id: &str, secret: &str) -> String {
        let body = json!({
            "provider": "smartsheet",
            "client_id": id,
            "client_secret": secret,
            "base_url": self.simulator.announcement().api_base,
        });
        let profile = self
            .call(Method::POST, "/connector_profiles", Some(&body))
            .await;
        profile.expect(201)["id"].as_str().unwrap().to_owned()
    }

    /// The link of an invitation.
    pub async fn invite(&self, more: &Value) -> String {
        let mut body = json!({
            "origin_owner_id": "customer-1",
            "origin_owner_name": "Customer One",
        });
        let more = more.as_object().unwrap().clone();
        body.as_object_mut().unwrap().extend(more);
        let session = self
            .call(Method::POST, "/connect_sessions", Some(&body))
            .await
            .expect(201);
        session["auth_link_url"].as_str().unwrap().to_owned()
    }

    pub async fn accounts(&self) -> Vec<Value> {
        let all = self.get("/accounts").await.expect(200);
        all.as_array().unwrap().clone()
    }
}
