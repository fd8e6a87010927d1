//! Accounts that somebody signed in for at the simulator, served by one process or several.

use reqwest::{Method, redirect::Policy};
use serde_json::{Value, json};
use url::Url;

use crate::{
    process::{House, Served},
    schema::Schema,
    world::Reply,
};

use super::provider::Provider;

/// The redirect URL of the app; nobody listens there, and nobody need.
const CALLBACK: &str = "http://127.0.0.1:1/callback";

/// Processes that serve one store, and a connector profile in it.
pub struct Signed {
    /// The house as each process serves it.
    pub houses: Vec<House>,
    profile: String,
    /// Who signs in.
    login: String,
    browser: reqwest::Client,
}

/// An account, and what the provider calls that which was granted for it. Both count generations
/// alike.
#[derive(Debug, Clone)]
pub struct Seat {
    pub account: String,
    pub grant: String,
    /// Whether a directory was sealed.
    pub is_served: bool,
}

impl Signed {
    /// With all of its processes up.
    pub async fn new(
        schema: Option<&Schema>,
        processes: usize,
        seed: u64,
    ) -> (Self, Vec<Option<Served>>) {
        let mut first = House::on(schema.map(Schema::url), 0, 20, 2, seed).await;
        let scopes = "iam:read,accounts:read,accounts:write,walks:write,profiles:write";
        let key = [
            "keys",
            "create",
            "--project",
            "one",
            "--scopes",
            scopes,
            "--json",
        ];
        let key: Value = serde_json::from_str(&first.cli(&key).await).unwrap();
        first.key = text(&key, "api_key");
        let mut houses = vec![first.clone()];
        houses.extend((1..processes).map(|_| first.beside()));
        let mut served = Vec::new();
        for house in &houses {
            let mut process = house.serve();
            house.up(&mut process).await;
            served.push(Some(process));
        }
        let client = first.simulator.register_client(CALLBACK);
        let body = json!({
            "provider": "smartsheet",
            "client_id": client.client_id,
            "client_secret": client.client_secret,
            "base_url": first.simulator.announcement().api_base,
            "redirect_url": CALLBACK,
        });
        let made = first.ask(Method::POST, "/connector_profiles", None, Some(&body));
        let profile = made.await.unwrap().expect(201);
        let truth = first.control(Method::GET, "/truth", &json!(null)).await;
        let users = truth["users"].as_array().unwrap();
        let admin = users.iter().find(|user| user["admin"] == true).unwrap();
        let signed = Self {
            profile: text(&profile, "id"),
            login: text(admin, "email"),
            browser: reqwest::Client::builder()
                .redirect(Policy::none())
                .build()
                .unwrap(),
            houses,
        };
        (signed, served)
    }

    /// Signs in and links an account. One at a time, since only so is it known which grant is
    /// whose.
    pub async fn sign_in(&self, at: usize) -> Seat {
        let house = &self.houses[at];
        let body = json!({
            "profile": self.profile,
            "callback_url": CALLBACK,
            "origin_owner_id": "customer-1",
            "origin_owner_name": "Customer One",
        });
        let path = "/oauth/authorization_url";
        let begun = house.ask(Method::POST, path, None, Some(&body)).await;
        let page: Url = text(&begun.unwrap().expect(200), "url").parse().unwrap();
        let body = json!({"code": self.consent(&page).await, "state": parameter(&page, "state")});
        let path = "/oauth/token_exchange";
        let linked = house.ask(Method::POST, path, None, Some(&body)).await;
        let linked = linked.unwrap().expect(201);
        let live = Provider::new(house.clone()).live().await;
        let number = |grant: &&String| -> u64 {
            let number = grant.rsplit('-').next().unwrap();
            number.parse().unwrap_or_default()
        };
        Seat {
            account: text(&linked, "id"),
            grant: live.keys().max_by_key(number).unwrap().clone(),
            is_served: false,
        }
    }

    /// The same, and a directory is sealed.
    pub async fn sign_in_and_walk(&self, at: usize) -> Seat {
        let seat = self.sign_in(at).await;
        let path = format!("/accounts/{}/walks?wait=60", seat.account);
        let walk = self.houses[at].ask(Method::POST, &path, None, None).await;
        let walk = walk.unwrap().expect(200);
        assert_eq!(walk["state"], "sealed", "{walk}");
        Seat {
            is_served: true,
            ..seat
        }
    }

    /// Allows what the page of consent asks, and gives the code that came back.
    async fn consent(&self, page: &Url) -> String {
        let mut form: Vec<(String, String)> = page.query_pairs().into_owned().collect();
        form.push(("login".to_owned(), self.login.clone()));
        form.push(("decision".to_owned(), "allow".to_owned()));
        let mut action = page.clone();
        action.set_query(None);
        let answer = self.browser.post(action).form(&form).send().await.unwrap();
        let back = answer.headers()["location"].to_str().unwrap();
        parameter(&back.parse().unwrap(), "code")
    }

    /// Asks a process for a refresh; None if it was killed meanwhile.
    pub async fn refresh(&self, at: usize, seat: &Seat) -> Option<Reply> {
        let path = format!("/accounts/{}/refresh", seat.account);
        self.houses[at].ask(Method::POST, &path, None, None).await
    }

    /// A directory that was sealed is served, whatever became of the credential. Asks nothing where
    /// there was none, or nobody to answer.
    pub async fn expect_served(&self, at: usize, seat: &Seat) {
        if !seat.is_served {
            return;
        }
        let path = "/iam/users?page_size=1";
        let account = Some(seat.account.as_str());
        if let Some(page) = self.houses[at].ask(Method::GET, path, account, None).await {
            page.expect(200);
        }
    }
}

/// The state of the credential that an account's answer tells.
pub fn state_in(account: &Value) -> &str {
    account["credential"]["state"].as_str().unwrap()
}

fn text(object: &Value, field: &str) -> String {
    object[field].as_str().unwrap().to_owned()
}

fn parameter(url: &Url, name: &str) -> String {
    let mut pairs = url.query_pairs();
    pairs.find(|(key, _)| key == name).unwrap().1.into_owned()
}
