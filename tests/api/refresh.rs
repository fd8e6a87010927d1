//! OAuth tokens are refreshed once, ahead of time and on a 401; what becomes of a refresh is never
//! silent, and never an account lost that could be kept (G4).

use futures_util::future::join_all;
use reqwest::{Method, redirect::Policy};
use rolecall::gateway::admin::Operator;
use serde_json::{Value, json};
use smartsheet_simulator::OauthClient;
use sqlx::SqliteConnection;
use url::Url;

use crate::world::{HANG, Plan, Reply, World, reply};

/// The redirect URL of the app; nobody listens there, and nobody need.
const CALLBACK: &str = "http://127.0.0.1:1/callback";

/// A world with an OAuth app, and a connector profile of it.
pub struct Signed {
    pub world: World,
    profile: String,
    client: OauthClient,
}

/// An account that somebody signed in for.
pub struct Account {
    pub id: String,
    /// The provider's name of what was granted.
    grant: String,
    /// How many people its directory has.
    people: u64,
}

impl Account {
    pub fn grant(&self) -> &str {
        &self.grant
    }
}

impl Signed {
    pub async fn new() -> Self {
        Self::with(Plan::default(), &json!({})).await
    }

    pub async fn with(plan: Plan, more: &Value) -> Self {
        let world = World::with(plan).await;
        let client = world.simulator.register_client(CALLBACK);
        let mut body = json!({
            "provider": "smartsheet",
            "client_id": client.client_id,
            "client_secret": client.client_secret,
            "base_url": world.simulator.announcement().api_base,
            "redirect_url": CALLBACK,
        });
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        let made = world.call(Method::POST, "/connector_profiles", Some(&body));
        let profile = made.await.expect(201)["id"].as_str().unwrap().to_owned();
        Self {
            world,
            profile,
            client,
        }
    }

    async fn change_profile(&self, change: &Value) {
        let path = format!("/connector_profiles/{}", self.profile);
        let changed = self.world.call(Method::PATCH, &path, Some(change)).await;
        changed.expect(200);
    }

    /// What comes of a sign-in of the system admin.
    pub async fn sign_in(&self) -> Reply {
        let world = &self.world;
        let body = json!({
            "profile": self.profile,
            "callback_url": CALLBACK,
            "origin_owner_id": "customer-1",
            "origin_owner_name": "Customer One",
        });
        let begun = world.call(Method::POST, "/oauth/authorization_url", Some(&body));
        let url: Url = begun.await.expect(200)["url"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap();
        let body = json!({ "code": consent(world, &url).await, "state": parameter(&url, "state") });
        let linked = world.call(Method::POST, "/oauth/token_exchange", Some(&body));
        let linked = linked.await;
        assert_eq!(token_like(&linked), None);
        linked
    }

    /// The account of a sign-in that was the last.
    pub async fn account_of(&self, linked: &Reply) -> Account {
        let account = linked.expect(201);
        assert_eq!(account["credential"]["state"], "healthy");
        assert_eq!(account["credential"]["connector_profile_id"], self.profile);
        Account {
            id: account["id"].as_str().unwrap().to_owned(),
            grant: self.last_grant().await,
            people: 0,
        }
    }

    /// The provider's name of what it granted last.
    pub async fn last_grant(&self) -> String {
        let rows = tokens(&self.world).await;
        rows.last().unwrap()["token"].as_str().unwrap().to_owned()
    }

    /// How many generations of a grant the provider still takes.
    pub async fn live_of(&self, grant: &str) -> usize {
        let rows = tokens(&self.world).await;
        let is_live = |row: &&Value| row["token"] == grant && row["live"] == true;
        rows.iter().filter(is_live).count()
    }

    /// Links an account by a sign-in of the system admin.
    pub async fn link(&self) -> Account {
        self.account_of(&self.sign_in().await).await
    }

    /// The same, with a directory in force.
    pub async fn link_and_walk(&self) -> Account {
        let account = self.link().await;
        let walk = self.world.walk(&account.id).await;
        assert_eq!(walk["state"], "sealed", "{walk}");
        let people = walk["counts"]["users"].as_u64().unwrap();
        Account { people, ..account }
    }

    pub async fn refresh(&self, account: &Account) -> Reply {
        let path = format!("/accounts/{}/refresh", account.id);
        let reply = self.world.post(&path).await;
        assert_eq!(token_like(&reply), None);
        reply
    }

    /// The state that a refresh leaves the credential in.
    pub async fn refreshed(&self, account: &Account) -> Value {
        self.refresh(account).await.expect(200)["credential"]["state"].clone()
    }

    pub async fn state(&self, account: &Account) -> Value {
        self.account(account).await["credential"]["state"].clone()
    }

    pub async fn account(&self, account: &Account) -> Value {
        let path = format!("/accounts/{}", account.id);
        self.world.get(&path).await.expect(200)
    }

    /// Each generation of what was granted, oldest first.
    async fn generations(&self, account: &Account) -> Vec<Value> {
        let mut rows = tokens(&self.world).await;
        rows.retain(|row| row["token"] == account.grant);
        rows
    }

    /// Whether each generation is live, oldest first.
    pub async fn lives(&self, account: &Account) -> Vec<bool> {
        let rows = self.generations(account).await;
        rows.iter()
            .map(|row| row["live"].as_bool().unwrap())
            .collect()
    }

    /// Waits until this holds: that is an event, but one that only asking again shows.
    pub async fn until(&self, what: &str, holds: impl AsyncFn() -> bool) {
        let came = async {
            while !holds().await {
                // What it waits for may run on this very thread.
                tokio::task::yield_now().await;
            }
        };
        if tokio::time::timeout(HANG, came).await.is_err() {
            panic!("{what} did not come about");
        }
    }

    pub async fn faults_of_tokens(&self, fault: &Value) {
        let rule = json!({"match": {"method": "POST", "path_prefix": "/token"}, "fault": fault});
        self.world.faults(&json!([rule])).await;
    }

    pub async fn next_token_call(&self, fault: &Value) {
        let matches = json!({"method": "POST", "path_prefix": "/token"});
        let rule = json!({"match": matches, "times": 1, "fault": fault});
        self.world.faults(&json!([rule])).await;
    }

    /// What the audit log tells of the account's credential by itself, oldest first.
    pub async fn told(&self, account: &Account) -> Vec<String> {
        let page = self.world.get("/audit?page_size=100").await;
        assert_eq!(token_like(&page), None);
        let page = page.expect(200);
        let of = |entry: &&Value| {
            entry["subject"]["id"] == account.id.as_str() && entry["actor"]["kind"] == "system"
        };
        let mut told: Vec<_> = page["data"]
            .as_array()
            .unwrap()
            .iter()
            .filter(of)
            .map(|entry| entry["action"].as_str().unwrap().to_owned())
            .filter(|action| action != "credential.used")
            .collect();
        told.reverse();
        told
    }

    /// The last directory is still served, whole.
    async fn expect_served(&self, account: &Account, stale: Option<&str>) {
        let reply = self.world.read(&account.id, "/iam/users?page_size=1").await;
        assert_eq!(reply.expect(200)["total"], account.people);
        assert_eq!(reply.header("x-directory-stale"), stale);
    }
}

/// As if so much time had passed for everything that waits for a moment. With PostgreSQL the
/// moments are the database's, which nobody moves.
pub const NINETY_SECONDS_LATER: &str =
    "update credentials set due_at = due_at - 91000, refused_at = refused_at - 91000";

async fn tokens(world: &World) -> Vec<Value> {
    let rows = world.control(Method::GET, "/tokens", &json!(null)).await;
    rows.as_array().unwrap().clone()
}

fn parameter(url: &Url, name: &str) -> String {
    let mut pairs = url.query_pairs();
    let (_, value) = pairs.find(|(key, _)| key == name).unwrap();
    value.into_owned()
}

/// Allows what the page of consent asks, and gives the code that came back.
async fn consent(world: &World, page: &Url) -> String {
    let mut form: Vec<(String, String)> = page.query_pairs().into_owned().collect();
    let truth = world.truth().await;
    let users = truth["users"].as_array().unwrap();
    let admin = users.iter().find(|user| user["admin"] == true);
    let login = admin.unwrap()["email"].as_str().unwrap().to_owned();
    form.push(("login".to_owned(), login));
    form.push(("decision".to_owned(), "allow".to_owned()));
    let form = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(form)
        .finish();
    let mut action = page.clone();
    action.set_query(None);
    let browser = reqwest::Client::builder()
        .redirect(Policy::none())
        .build()
        .unwrap();
    let answer = reply(
        browser
            .post(action)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form),
    )
    .await;
    assert_eq!(answer.status.as_u16(), 302, "{answer:?}");
    let back: Url = answer.header("location").unwrap().parse().unwrap();
    parameter(&back, "code")
}

/// What looks like one of the provider's tokens: 37 letters and digits in a row.
fn token_like(reply: &Reply) -> Option<String> {
    let text = String::from_utf8_lossy(&reply.bytes).into_owned();
    text.split(|letter: char| !letter.is_ascii_alphanumeric())
        .find(|word| word.len() == 37)
        .map(str::to_owned)
}

#[tokio::test]
async fn a_refresh_brings_a_new_pair_and_ends_the_former() {
    let signed = Signed::new().await;
    let account = signed.link_and_walk().await;
    assert_eq!(signed.lives(&account).await, [true]);
    let reply = signed.refresh(&account).await.expect(200);
    assert_eq!(reply["status"], "active");
    assert_eq!(reply["status_reasons"], json!([]));
    assert_eq!(reply["credential"]["state"], "healthy");
    assert!(reply["credential"]["expires_at"].is_string());
    assert_eq!(signed.lives(&account).await, [false, true]);
    assert_eq!(signed.generations(&account).await[0]["redeemed"], 1);
    signed.expect_served(&account, None).await;
    assert_eq!(signed.world.walk(&account.id).await["state"], "sealed");
    assert_eq!(signed.told(&account).await, ["credential.refreshed"]);
    let world = &signed.world;
    for path in ["/accounts", "/connector_profiles", "/audit?page_size=100"] {
        assert_eq!(token_like(&world.get(path).await), None, "{path}");
    }
}

#[test]
fn a_token_would_be_found_in_a_reply() {
    let reply = Reply {
        status: reqwest::StatusCode::OK,
        headers: Default::default(),
        bytes: format!(r#"{{"x": "{}"}}"#, "aB3".repeat(12) + "z").into_bytes(),
    };
    assert!(token_like(&reply).is_some());
}

#[tokio::test]
async fn callers_side_by_side_spend_one_refresh_token() {
    let signed = Signed::new().await;
    let account = signed.link().await;
    signed.world.walk(&account.id).await;
    signed
        .next_token_call(&json!({"kind": "delay", "ms": 2000}))
        .await;
    let callers = (0..32).map(|_| signed.refresh(&account));
    for reply in join_all(callers).await {
        assert_eq!(reply.expect(200)["credential"]["state"], "healthy");
    }
    let rows = signed.generations(&account).await;
    assert_eq!(signed.lives(&account).await, [false, true]);
    assert_eq!(rows[0]["redeemed"], 1);
    assert_eq!(rows[0]["replays_refused"], 0);
}

#[tokio::test]
async fn tokens_are_refreshed_ahead_of_time() {
    let signed = Signed::new().await;
    let account = signed.link().await;
    // Between 50 and 80 % of seven days.
    signed
        .world
        .rewrite("update credentials set due_at = due_at - 302000000")
        .await;
    let seen = signed.world.walk(&account.id).await;
    assert_eq!(seen["state"], "sealed");
    assert_eq!(signed.lives(&account).await, [true]);
    signed
        .world
        .rewrite("update credentials set due_at = due_at - 182000000")
        .await;
    signed
        .until("a refresh", async || {
            signed.lives(&account).await.len() == 2
        })
        .await;
    signed
        .until("its end", async || {
            signed.state(&account).await == "healthy"
        })
        .await;
    // And not again at once.
    assert_eq!(signed.lives(&account).await, [false, true]);
}

#[tokio::test]
async fn a_token_that_ends_in_the_middle_of_a_walk_is_refreshed_once() {
    let signed = Signed::with(
        Plan {
            users: 40,
            groups: 12,
            ..Plan::default()
        },
        &json!({}),
    )
    .await;
    let account = signed.link_and_walk().await;
    // The third read of a group is refused for its token, and so is every other call of it.
    let page = json!({
        "match": {"path_prefix": "/groups/"}, "after": 2, "times": 1,
        "fault": {"kind": "status", "status": 401, "error_code": 1003},
    });
    signed.world.faults(&json!([page])).await;
    let walk = signed.world.walk_with(&account.id, "&full=true").await;
    assert_eq!(walk["state"], "sealed", "{walk}");
    assert_eq!(signed.lives(&account).await, [false, true]);

    // The same from the walk's first call on.
    signed.world.no_faults().await;
    let expire = json!([{"op": "expire_token", "token": account.grant}]);
    signed.world.mutate(&expire).await;
    let walk = signed.world.walk_with(&account.id, "&full=true").await;
    assert_eq!(walk["state"], "sealed", "{walk}");
    assert_eq!(signed.lives(&account).await, [false, false, true]);
    signed.expect_served(&account, None).await;
    assert_eq!(signed.told(&account).await, ["credential.refreshed"; 2]);
}

#[tokio::test]
async fn a_refresh_token_is_dead_after_the_second_no() {
    let signed = Signed::new().await;
    let account = signed.link_and_walk().await;
    let revoke = json!([{"op": "revoke_token", "token": account.grant}]);
    signed.world.mutate(&revoke).await;
    assert_eq!(signed.refreshed(&account).await, "uncertain");
    let seen = signed.account(&account).await;
    assert_eq!(seen["status"], "active");
    assert_eq!(seen["status_reasons"][0]["code"], "uncertain");
    signed.expect_served(&account, None).await;

    signed.world.rewrite(NINETY_SECONDS_LATER).await;
    signed
        .until("the second no", async || {
            signed.state(&account).await == "reauth_required"
        })
        .await;
    let seen = signed.account(&account).await;
    assert_eq!(seen["status"], "error");
    let reason = &seen["status_reasons"][0];
    assert_eq!(reason["code"], "reauth_required");
    let what = reason["description"].as_str().unwrap();
    let way = format!("POST /connect_sessions with the account_id {}", account.id);
    assert!(
        what.contains("refused it twice") && what.contains(&way),
        "{what}"
    );
    assert_eq!(reason["timestamp"], seen["credential"]["since"]);
    signed
        .expect_served(&account, Some("reauth_required"))
        .await;
    assert_eq!(
        signed.told(&account).await,
        ["credential.uncertain", "credential.reauth_required"]
    );
}

#[tokio::test]
async fn a_wrong_client_secret_says_nothing_of_the_refresh_token() {
    let signed = Signed::new().await;
    let account = signed.link_and_walk().await;
    signed
        .change_profile(&json!({"client_secret": "another"}))
        .await;
    let seen = signed.refresh(&account).await.expect(200);
    assert_eq!(seen["status"], "active");
    assert_eq!(seen["credential"]["state"], "healthy");
    let reason = &seen["status_reasons"][0];
    assert_eq!(reason["code"], "refresh_failed");
    let what = reason["description"].as_str().unwrap();
    assert!(what.contains("PATCH /connector_profiles/{id}"), "{what}");
    assert_eq!(signed.lives(&account).await, [true]);
    assert_eq!(signed.told(&account).await, ["credential.refresh_refused"]);
    signed
        .change_profile(&json!({"client_secret": signed.client.client_secret}))
        .await;
    let seen = signed.refresh(&account).await.expect(200);
    assert_eq!(seen["credential"]["state"], "healthy");
    assert_eq!(seen["status_reasons"], json!([]));
    assert_eq!(signed.lives(&account).await, [false, true]);
}

/// The access token has ended, and for want of an answer to who we are there is no other: nobody
/// need sign in again for that.
#[tokio::test]
async fn an_access_token_that_cannot_be_renewed_yet_is_no_reason_to_sign_in_again() {
    let signed = Signed::new().await;
    let account = signed.link_and_walk().await;
    let expire = json!([{"op": "expire_token", "token": account.grant}]);
    for (why, heal) in [
        (json!({"client_secret": "another"}), true),
        (json!({}), false),
    ] {
        signed.change_profile(&why).await;
        if !heal {
            signed
                .faults_of_tokens(&json!({"kind": "status", "status": 503}))
                .await;
        }
        signed.world.mutate(&expire).await;
        let walk = signed.world.walk(&account.id).await;
        assert_eq!(walk["state"], "failed", "{walk}");
        assert_eq!(walk["reason"], "credential_uncertain", "{walk}");
        let seen = signed.account(&account).await;
        assert_eq!(seen["status"], "active", "{seen}");
        assert_ne!(seen["credential"]["state"], "reauth_required", "{seen}");
        signed.expect_served(&account, Some("walk_failed")).await;

        signed
            .change_profile(&json!({"client_secret": signed.client.client_secret}))
            .await;
        signed.world.no_faults().await;
        let walk = signed.world.walk(&account.id).await;
        assert_eq!(walk["state"], "sealed", "{walk}");
        signed.expect_served(&account, None).await;
    }
}

#[tokio::test]
async fn a_proxy_that_refuses_says_nothing_of_either_token() {
    let signed = Signed::new().await;
    let account = signed.link_and_walk().await;
    for status in [401, 403] {
        let page = json!({"kind": "body", "status": status, "content_type": "text/html",
            "body": "<html>invalid_grant</html>"});
        signed.faults_of_tokens(&page).await;
        let seen = signed.refresh(&account).await.expect(200);
        assert_eq!(seen["credential"]["state"], "healthy", "{seen}");
        assert_eq!(seen["status"], "active");
        assert_eq!(seen["status_reasons"][0]["code"], "refresh_failed");
        // Nor is a token refreshed for a proxy's word about it.
        let me = json!({"match": {"path_prefix": "/users/me"}, "fault": page});
        signed.world.faults(&json!([me])).await;
        let walk = signed.world.walk(&account.id).await;
        assert_eq!(walk["reason"], "provider_unavailable", "{walk}");
        signed.world.no_faults().await;
        assert_eq!(signed.world.walk(&account.id).await["state"], "sealed");
        assert_eq!(signed.lives(&account).await, [true]);
    }
}

#[tokio::test]
async fn a_provider_that_is_down_costs_nothing() {
    let signed = Signed::new().await;
    let account = signed.link_and_walk().await;
    for fault in [
        json!({"kind": "status", "status": 503}),
        json!({"kind": "status", "status": 500, "error_code": 4000}),
        json!({"kind": "reset"}),
    ] {
        signed.faults_of_tokens(&fault).await;
        assert_eq!(signed.refreshed(&account).await, "uncertain", "{fault}");
        signed.expect_served(&account, None).await;
        signed.world.no_faults().await;
        signed.world.rewrite(NINETY_SECONDS_LATER).await;
        signed
            .until("a refresh", async || {
                signed.state(&account).await == "healthy"
            })
            .await;
    }
    let throttled = json!({"kind": "status", "status": 429, "error_code": 4003});
    signed.faults_of_tokens(&throttled).await;
    assert_eq!(signed.refreshed(&account).await, "healthy");
    assert_eq!(
        signed.lives(&account).await,
        [false, false, false, true],
        "each was refreshed once, in the end"
    );
}

#[tokio::test]
async fn a_reply_that_was_lost_is_told_at_once() {
    let signed = Signed::new().await;
    let account = signed.link_and_walk().await;
    signed.next_token_call(&json!({"kind": "drop_reply"})).await;
    assert_eq!(signed.refreshed(&account).await, "uncertain");
    assert_eq!(signed.lives(&account).await, [false, true]);
    // Asked again, and again no sooner than the second no may count.
    signed.world.rewrite(NINETY_SECONDS_LATER).await;
    signed
        .until("the first no", async || {
            signed.generations(&account).await[0]["replays_refused"] == 1
        })
        .await;
    signed
        .until("its note", async || signed.told(&account).await.len() == 2)
        .await;
    assert_eq!(signed.state(&account).await, "uncertain");
    signed.world.rewrite(NINETY_SECONDS_LATER).await;
    signed
        .until("the second no", async || {
            signed.state(&account).await == "reauth_required"
        })
        .await;
    signed
        .expect_served(&account, Some("reauth_required"))
        .await;
    assert_eq!(
        signed.told(&account).await,
        [
            "credential.uncertain",
            "credential.uncertain",
            "credential.reauth_required"
        ]
    );
}

#[tokio::test]
async fn a_slow_reply_is_waited_for_whoever_hangs_up() {
    let signed = Signed::new().await;
    let account = signed.link_and_walk().await;
    signed
        .next_token_call(&json!({"kind": "delay", "ms": 2000}))
        .await;
    {
        let caller = signed.refresh(&account);
        let asked = signed.until("the refresh to begin", async || {
            signed.state(&account).await == "refreshing"
        });
        futures_util::pin_mut!(caller, asked);
        // Whoever is not first is dropped, and the caller's connection with it.
        let first = futures_util::future::select(caller, asked).await;
        assert!(matches!(first, futures_util::future::Either::Right(_)));
    }
    assert_eq!(signed.state(&account).await, "refreshing");
    signed.expect_served(&account, None).await;
    signed
        .until("the refresh", async || {
            signed.state(&account).await == "healthy"
        })
        .await;
    assert_eq!(signed.lives(&account).await, [false, true]);
}

#[tokio::test]
async fn who_waits_longer_than_a_caller_should_is_told_to_come_back() {
    let signed = Signed::new().await;
    let account = signed.link_and_walk().await;
    signed
        .next_token_call(&json!({"kind": "delay", "ms": 7000}))
        .await;
    let reply = signed.refresh(&account).await;
    reply.refused(408, "refresh_in_progress");
    assert_eq!(reply.header("retry-after"), Some("5"));
    signed.expect_served(&account, None).await;
    assert_eq!(signed.refreshed(&account).await, "healthy");
    assert_eq!(signed.lives(&account).await, [false, true]);
}

#[tokio::test]
async fn a_stop_waits_for_a_refresh_that_is_in_flight() {
    let mut signed = Signed::new().await;
    let account = signed.link_and_walk().await;
    signed
        .next_token_call(&json!({"kind": "delay", "ms": 3000}))
        .await;
    // Of nobody's asking: what a caller waits for is drained anyway.
    let seq = signed.world.provider_calls().await;
    signed
        .world
        .rewrite("update credentials set due_at = 0")
        .await;
    signed.world.provider_is_called_after(seq).await;
    signed.world.restart().await;
    assert_eq!(signed.lives(&account).await, [false, true]);
    assert_eq!(signed.state(&account).await, "healthy");
    assert_eq!(signed.refreshed(&account).await, "healthy");
    assert_eq!(signed.told(&account).await, ["credential.refreshed"; 2]);
}

/// Has a new pair of an account's wait in the journal, and its gateway end. The store is away until
/// what this gives is dropped; None where it cannot be taken away.
async fn journal_a_pair(signed: &mut Signed, account: &Account) -> Option<SqliteConnection> {
    // The reply has begun to arrive when the store is taken away.
    signed
        .next_token_call(&json!({"kind": "trickle", "bytes_per_s": 100}))
        .await;
    let world = &signed.world;
    let path = format!("/accounts/{}/refresh", account.id);
    let bearer = format!("Bearer {}", world.key);
    let asked = world
        .client
        .post(format!("{}{path}", world.base))
        .header("authorization", bearer);
    let asked = tokio::spawn(asked.send());
    signed
        .until("the redemption", async || {
            signed.lives(account).await == [false, true]
        })
        .await;
    let lock = signed.world.lock_store().await?;
    signed
        .until("a file", async || signed.world.journaled() == 1)
        .await;
    let reply = asked.await.unwrap().unwrap();
    assert!(
        [200, 408, 503].contains(&reply.status().as_u16()),
        "{reply:?}"
    );
    signed.world.stop().await;
    Some(lock)
}

#[tokio::test]
async fn a_pair_that_the_store_does_not_take_waits_beside_it() {
    let mut signed = Signed::new().await;
    let account = signed.link_and_walk().await;
    let Some(lock) = journal_a_pair(&mut signed, &account).await else {
        return;
    };
    drop(lock);
    signed.world.restart().await;
    // Whoever has the folder: the former gateway may store its pair yet, before it has closed.
    signed
        .until("the pair in its place", async || {
            signed.world.journaled() == 0
        })
        .await;
    assert_eq!(signed.state(&account).await, "healthy");
    assert_eq!(signed.refreshed(&account).await, "healthy");
    assert_eq!(signed.lives(&account).await, [false, false, true]);
    assert_eq!(signed.told(&account).await, ["credential.refreshed"; 2]);
}

#[tokio::test]
async fn a_pair_that_waited_while_its_account_was_disconnected_is_revoked() {
    let mut signed = Signed::new().await;
    let account = signed.link_and_walk().await;
    let Some(mut store) = journal_a_pair(&mut signed, &account).await else {
        return;
    };
    // As another process does it.
    sqlx::raw_sql(
        "update credentials set generation = generation + 1, lineage = lineage + 1, sealed = x'',
             sealed_app = null, profile = null, state = 'destroyed', expires_at = null,
             due_at = null, intent = null; commit",
    )
    .execute(&mut store)
    .await
    .unwrap();
    drop(store);
    assert_eq!(signed.lives(&account).await, [false, true]);
    signed.world.restart().await;
    signed
        .until("a revocation", async || {
            signed.world.journaled() == 0 && signed.lives(&account).await == [false, false]
        })
        .await;
    assert!(
        signed
            .told(&account)
            .await
            .contains(&"credential.revoked".to_owned())
    );
}

#[tokio::test]
async fn a_disabled_profile_serves_and_refreshes_nothing() {
    let signed = Signed::new().await;
    let account = signed.link_and_walk().await;
    signed.change_profile(&json!({"enabled": false})).await;
    let refused = signed.refresh(&account).await;
    refused.refused(412, "account_inactive");
    let read = signed.world.read(&account.id, "/iam/users").await;
    read.refused(412, "account_inactive");
    let seen = signed.account(&account).await;
    assert_eq!(seen["status"], "inactive");
    assert_eq!(seen["status_reasons"][0]["code"], "profile_disabled");
    assert_eq!(signed.lives(&account).await, [true]);
    signed.change_profile(&json!({"enabled": true})).await;
    assert_eq!(signed.refreshed(&account).await, "healthy");
    signed.expect_served(&account, None).await;
}

#[tokio::test]
async fn what_a_profile_does_not_enable_is_not_served() {
    let signed = Signed::with(Plan::default(), &json!({"actions": ["users"]})).await;
    let account = signed.link_and_walk().await;
    signed.expect_served(&account, None).await;
    for path in [
        "/iam/groups",
        "/iam/users?expand=roles",
        "/iam/users?expand=groups",
    ] {
        let refused = signed.world.read(&account.id, path).await;
        refused.refused(403, "action_not_enabled");
    }
    signed
        .change_profile(&json!({"actions": ["users", "groups"]}))
        .await;
    for path in ["/iam/groups", "/iam/users?expand=groups"] {
        signed.world.read(&account.id, path).await.expect(200);
    }
}

#[tokio::test]
async fn there_is_nothing_to_refresh_of_a_token_of_ones_own_making() {
    let world = World::new().await;
    let account = world.link_admin().await;
    let reply = world.post(&format!("/accounts/{account}/refresh")).await;
    assert_eq!(reply.json()["code"], "nothing_to_refresh");
}

#[tokio::test]
async fn a_disconnect_revokes_what_was_granted() {
    let signed = Signed::new().await;
    let world = &signed.world;
    let account = signed.link_and_walk().await;
    signed.refresh(&account).await.expect(200);
    let path = format!("/accounts/{}", account.id);
    let gone = world.call(Method::DELETE, &path, None).await;
    assert_eq!(token_like(&gone), None);
    let gone = gone.expect(200);
    assert_eq!(gone["revocation"], "revoked");
    assert_eq!(gone["status_reasons"][0]["code"], "disconnected");
    assert_eq!(signed.lives(&account).await, [false, false]);
    let refused = signed.refresh(&account).await;
    refused.refused(412, "account_inactive");
    let read = world.read(&account.id, "/iam/users").await;
    read.refused(412, "account_inactive");

    let account = signed.link().await;
    let path = format!("/accounts/{}?purge=true", account.id);
    let gone = world.call(Method::DELETE, &path, None).await.expect(200);
    assert_eq!(gone["revocation"], "revoked");
    assert_eq!(signed.lives(&account).await, [false]);
    world
        .get(&format!("/accounts/{}", account.id))
        .await
        .refused(404, "account_not_found");
}

#[tokio::test]
async fn a_token_of_ones_own_making_is_revoked_when_asked_and_never_while_it_is_shared() {
    let world = World::new().await;
    let (first, second, third) = (
        world.link_admin().await,
        world.link_admin().await,
        world.link_admin().await,
    );
    let is_live = async || {
        let rows = tokens(&world).await;
        let row = rows.into_iter().find(|row| row["token"] == "system_admin");
        row.unwrap()["live"] == true
    };
    for (account, query, revocation, lives) in [
        (first, "?revoke=true", "shared", true),
        (second, "", "not_asked", true),
        (third, "?revoke=true", "revoked", false),
    ] {
        let path = format!("/accounts/{account}{query}");
        let gone = world.call(Method::DELETE, &path, None).await.expect(200);
        assert_eq!(gone["revocation"], revocation);
        assert_eq!(is_live().await, lives, "{revocation}");
    }
}

#[tokio::test]
async fn a_pair_that_somebody_else_has_is_not_said_to_be_revoked() {
    let signed = Signed::new().await;
    let account = signed.link_and_walk().await;
    signed.next_token_call(&json!({"kind": "drop_reply"})).await;
    assert_eq!(signed.refreshed(&account).await, "uncertain");
    let path = format!("/accounts/{}", account.id);
    let gone = signed.world.call(Method::DELETE, &path, None).await;
    assert_eq!(gone.expect(200)["revocation"], "failed");
    assert_eq!(signed.lives(&account).await, [false, true]);
    let page = signed.world.get("/audit?page_size=100").await.expect(200);
    let told = page["data"].as_array().unwrap().iter();
    assert_eq!(
        told.filter(|entry| entry["action"] == "credential.revoke_refused")
            .count(),
        1
    );
}

#[tokio::test]
async fn a_credential_that_cannot_be_read_keeps_no_other_from_being_refreshed() {
    let signed = Signed::new().await;
    let account = signed.link_and_walk().await;
    // What is sealed is bound to its generation.
    signed
        .world
        .rewrite("update credentials set generation = generation + 1, due_at = 0")
        .await;
    signed
        .until("another time", async || {
            let later = "select count(*) from credentials where due_at > 0";
            signed.world.number(later).await == 1
        })
        .await;
    assert_eq!(signed.lives(&account).await, [true]);
}

#[tokio::test]
async fn a_pair_that_comes_after_a_disconnect_is_revoked() {
    let signed = Signed::new().await;
    let account = signed.link_and_walk().await;
    signed
        .next_token_call(&json!({"kind": "trickle", "bytes_per_s": 100}))
        .await;
    let disconnect = async {
        signed
            .until("the redemption", async || {
                signed.lives(&account).await == [false, true]
            })
            .await;
        let path = format!("/accounts/{}", account.id);
        signed.world.call(Method::DELETE, &path, None).await
    };
    let (refreshed, gone) = tokio::join!(signed.refresh(&account), disconnect);
    gone.expect(200);
    assert_ne!(refreshed.json()["credential"]["state"], "healthy");
    signed
        .until("a revocation", async || {
            signed.lives(&account).await == [false, false]
        })
        .await;
    let seen = signed.account(&account).await;
    assert_eq!(seen["credential"], json!(null));
    assert_eq!(seen["status_reasons"][0]["code"], "disconnected");
    signed
        .until("an audit row", async || {
            signed.told(&account).await == ["credential.revoked"]
        })
        .await;
}

/// The other installation lives on what was exported.
#[tokio::test]
async fn a_disconnect_leaves_what_was_exported_alive() {
    let signed = Signed::new().await;
    let operator = Operator::new(signed.world.gateway.clone());
    for query in ["", "?revoke=true", "?purge=true"] {
        let account = signed.link_and_walk().await;
        let own = operator.account(&account.id).await.unwrap();
        assert!(operator.export(&own).await.unwrap().is_moved);
        let path = format!("/accounts/{}{query}", account.id);
        let gone = signed.world.call(Method::DELETE, &path, None).await;
        assert_eq!(gone.expect(200)["revocation"], "not_asked", "{query}");
        assert_eq!(signed.lives(&account).await, [true], "{query}");
    }
}

#[tokio::test]
async fn a_code_exchange_that_is_refused_leaves_no_live_token() {
    let signed = Signed::new().await;
    for (status, code, refused) in [
        (403, 1004, (422, "scope_missing")),
        (500, 4000, (502, "provider_unavailable")),
    ] {
        let before = tokens(&signed.world).await.len();
        let matches = json!({"method": "GET", "path_prefix": "/users"});
        let fault = json!({"kind": "status", "status": status, "error_code": code});
        let rule = json!({"match": matches, "fault": fault});
        signed.world.faults(&json!([rule])).await;
        let linked = signed.sign_in().await;
        linked.refused(refused.0, refused.1);
        signed.world.no_faults().await;
        let issued = tokens(&signed.world).await.split_off(before);
        assert!(!issued.is_empty(), "a code was redeemed");
        let live = issued.iter().filter(|row| row["live"] == true).count();
        assert_eq!(live, 0, "{status}");
        let accounts = signed.world.get("/accounts").await.json();
        let accounts = accounts.as_array().or(accounts["data"].as_array()).cloned();
        assert_eq!(accounts.map(|all| all.len()), Some(0));
    }
}
