//! Codes and states in hands that they are not for.

use std::collections::BTreeSet;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use reqwest::Method;
use rolecall::model::api_keys::Scope;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use url::Url;

use super::server::Hostile;
use crate::{
    browser::Browser,
    world::{Reply, World, reply},
};

/// The parameter of this name.
pub fn parameter(url: &str, name: &str) -> String {
    let url = Url::parse(url).unwrap();
    let found = url.query_pairs().find(|(key, _)| key == name);
    found.unwrap_or_else(|| panic!("no {name}: {url}")).1.into()
}

/// The same URL with another value of this parameter, which it has.
fn with(url: &str, name: &str, value: &str) -> String {
    let mut changed = Url::parse(url).unwrap();
    let pairs: Vec<(String, String)> = changed
        .query_pairs()
        .map(|(key, old)| match key == name {
            true => (key.into_owned(), value.to_owned()),
            false => (key.into_owned(), old.into_owned()),
        })
        .collect();
    changed.query_pairs_mut().clear().extend_pairs(pairs);
    changed.into()
}

impl World {
    /// A profile of an app at that server, which knows only what it is told.
    pub async fn profile_at(&self, server: &Hostile, redirect_url: Option<&str>) -> String {
        let mut body = json!({
            "provider": "smartsheet",
            "client_id": "an-app-at-the-hostile",
            "client_secret": "a-secret-at-the-hostile",
            "base_url": server.api_base(),
        });
        if let Some(url) = redirect_url {
            body["redirect_url"] = json!(url);
        }
        let made = self.call(Method::POST, "/connector_profiles", Some(&body));
        made.await.expect(201)["id"].as_str().unwrap().to_owned()
    }

    /// A browser with an invitation of its own.
    pub async fn guest(&self) -> Browser {
        let link = self.invite(&json!({})).await;
        Browser::open(self, &link).await
    }

    /// How many calls of its token endpoint the provider has had.
    async fn token_calls(&self) -> usize {
        let log = self.provider_log(0).await;
        log.iter()
            .filter(|call| call["path"].as_str().unwrap().ends_with("/token"))
            .count()
    }

    async fn call_as(&self, key: &str, path: &str, body: &Value) -> Reply {
        let bearer = format!("Bearer {key}");
        let headers = [("authorization", bearer.as_str())];
        self.send(Method::POST, path, &headers, Some(body)).await
    }

    /// A sign-in under this profile through the API: where it leads.
    async fn begin(&self, key: &str, profile: &str, callback: &str) -> Reply {
        let body = json!({
            "profile": profile,
            "callback_url": callback,
            "origin_owner_id": "customer-1",
            "origin_owner_name": "Customer One",
        });
        self.call_as(key, "/oauth/authorization_url", &body).await
    }

    /// Nothing was linked, and nothing waits to be saved in this browser.
    pub async fn has_nothing_of(&self, browser: &mut Browser) {
        assert!(self.accounts().await.is_empty());
        assert_eq!(browser.get("/connect/review").await.leads(), "/connect");
        let told = self.get("/audit?action=account.linked").await.expect(200);
        assert_eq!(told["data"], json!([]));
    }
}

/// Somebody's code is bound to the sign-in that it was consented to in, also where client, redirect
/// URL and provider are the same.
#[tokio::test]
async fn a_code_is_worth_nothing_in_another_sign_in() {
    let world = World::new().await;
    let profile = world.hub_profile().await;
    let (mut mine, mut theirs) = (world.guest().await, world.guest().await);
    let my_way = mine.sign_in(&profile).await;
    let their_way = theirs.sign_in(&profile).await;
    let my_return = mine.consent(&my_way, "allow").await;
    let their_return = theirs.consent(&their_way, "allow").await;
    let (my_code, their_code) = (
        parameter(&my_return, "code"),
        parameter(&their_return, "code"),
    );

    // Their code, with my state, in my browser; my code, with their state, in theirs; and all that
    // is mine in theirs.
    let stolen = with(&my_return, "code", &their_code);
    mine.get(&stolen).await.says(400, "took too long");
    let injected = with(&their_return, "code", &my_code);
    theirs.get(&injected).await.says(400, "took too long");
    theirs.get(&my_return).await.says(403, "another browser");
    world.has_nothing_of(&mut mine).await;
    world.has_nothing_of(&mut theirs).await;

    // The same through the API.
    let (profile, callback) = world.profile().await;
    let mut ways = Vec::new();
    for _ in 0..2 {
        let begun = world.begin(&world.key, &profile, &callback).await;
        let way = begun.expect(200)["url"].as_str().unwrap().to_owned();
        let back = world.consent(&way, &world.admin_email().await).await;
        ways.push((parameter(&way, "state"), parameter(back.as_str(), "code")));
    }
    let (mine, theirs) = (&ways[0], &ways[1]);
    let body = json!({ "state": mine.0, "code": theirs.1 });
    let refused = world.call_as(&world.key, "/oauth/token_exchange", &body);
    let refused = refused.await;
    let code = refused.json()["code"].clone();
    assert_eq!(code, "authorization_refused", "{refused:?}");
    assert!(refused.status.is_client_error());
    assert!(world.accounts().await.is_empty());
}

#[tokio::test]
async fn every_sign_in_has_a_challenge_of_its_own() {
    let world = World::new().await;
    let hostile = Hostile::before(&world).await;
    let in_hub = world.profile_at(&hostile, None).await;
    let callback = "https://app.example.org/callback";
    let in_api = world.profile_at(&hostile, Some(callback)).await;

    let mut ways = Vec::new();
    for _ in 0..2 {
        let mut browser = world.guest().await;
        let way = browser.sign_in(&in_hub).await;
        let back = format!(
            "{}?code=c&state={}",
            world.callback("smartsheet"),
            parameter(&way, "state")
        );
        assert_eq!(browser.get(&back).await.leads(), "/connect/review");
        ways.push((way, world.callback("smartsheet")));
    }
    let mut browser = world.guest().await;
    let fields = [
        ("region", hostile.api_base()),
        ("client_id", "customer's-own".to_owned()),
        ("client_secret", "secret-of-their-own".to_owned()),
    ];
    let fields = fields
        .each_ref()
        .map(|(name, value)| (*name, value.as_str()));
    let way = browser.fill("/connect/app", "/connect/app", &fields).await;
    let way = way.leads().to_owned();
    let back = format!(
        "{}?code=c&state={}",
        world.callback("smartsheet_iam"),
        parameter(&way, "state")
    );
    assert_eq!(browser.get(&back).await.leads(), "/connect/review");
    ways.push((way, world.callback("smartsheet_iam")));
    let begun = world.begin(&world.key, &in_api, callback).await.expect(200);
    let way = begun["url"].as_str().unwrap().to_owned();
    let body = json!({ "state": parameter(&way, "state"), "code": "c" });
    let linked = world.call_as(&world.key, "/oauth/token_exchange", &body);
    linked.await.expect(201);
    ways.push((way, callback.to_owned()));

    let redemptions = hostile.redemptions();
    assert_eq!(redemptions.len(), ways.len());
    let mut seen = BTreeSet::new();
    for ((way, callback), redemption) in ways.iter().zip(&redemptions) {
        assert_eq!(parameter(way, "code_challenge_method"), "S256");
        let verifier = redemption.field("code_verifier");
        let challenge = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(&verifier));
        assert_eq!(parameter(way, "code_challenge"), challenge);
        assert!(verifier.len() >= 43 && !way.contains(&verifier));
        assert!(!way.contains(&redemption.field("client_secret")));
        // One redirect URL, at both ends.
        assert_eq!(parameter(way, "redirect_uri"), *callback);
        assert_eq!(redemption.field("redirect_uri"), *callback);
        for once in [verifier, parameter(way, "state")] {
            assert!(seen.insert(once), "given out twice");
        }
    }
}

/// Mix-up: whoever sent the browser back, code, verifier and secret go where the profile says.
#[tokio::test]
async fn a_code_goes_to_the_server_of_its_sign_in_alone() {
    let world = World::new().await;
    let hostile = Hostile::before(&world).await;
    world.profile_at(&hostile, None).await;
    let honest = world.hub_profile().await;
    let mut browser = world.guest().await;
    let way = browser.sign_in(&honest).await;
    let state = parameter(&way, "state");
    let back = format!(
        "{}?code=of-the-hostile&state={state}",
        world.callback("smartsheet")
    );
    browser.get(&back).await.says(400, "took too long");
    assert_eq!(world.token_calls().await, 1);
    assert!(hostile.noted().is_empty(), "{:?}", hostile.noted());
    world.has_nothing_of(&mut browser).await;
}

/// The other way round: the sign-in is at the hostile server, which sends the browser on to the
/// honest one, with the state and the challenge that it was given. The code that comes back is then
/// the honest one's.
#[tokio::test]
async fn what_another_server_sends_back_is_not_redeemed() {
    let world = World::new().await;
    let hostile = Hostile::before(&world).await;
    let (bad, honest) = (
        world.profile_at(&hostile, None).await,
        world.hub_profile().await,
    );
    // What anybody can see of the honest app.
    let client = parameter(&world.guest().await.sign_in(&honest).await, "client_id");
    let forwarded = async |browser: &mut Browser| {
        let way = browser.sign_in(&bad).await;
        assert!(way.starts_with(&hostile.origin()));
        let honest = world.simulator.announcement().authorize_url.clone();
        let way = way.replace(&format!("{}/b/authorize", hostile.origin()), &honest);
        browser
            .consent(&with(&way, "client_id", &client), "allow")
            .await
    };

    // A server that says who it is, is heard.
    let mut victim = world.guest().await;
    let back = forwarded(&mut victim).await;
    let honest_origin = Url::parse(&world.simulator.announcement().api_base).unwrap();
    for issuer in [
        honest_origin.origin().ascii_serialization(),
        hostile.origin().replace("http:", "https:"),
        format!("{}.example.org", hostile.origin()),
        "nobody".to_owned(),
        String::new(),
    ] {
        let way = victim.sign_in(&bad).await;
        let mut back = Url::parse(&with(&back, "state", &parameter(&way, "state"))).unwrap();
        back.query_pairs_mut().append_pair("iss", &issuer);
        victim.get(back.as_str()).await.says(403, "another browser");
    }
    assert!(hostile.noted().is_empty(), "{:?}", hostile.noted());
    world.has_nothing_of(&mut victim).await;

    // One that does not, is not; but what the hostile server then has of the sign-in is worth
    // nothing at the honest one, not even to us.
    let back = forwarded(&mut victim).await;
    let code = parameter(&back, "code");
    victim.get(&back).await.leads();
    let redemption = &hostile.redemptions()[0];
    assert_eq!(redemption.field("code"), code);
    assert_eq!(redemption.field("client_secret"), "a-secret-at-the-hostile");
    let token = format!("{}/token", world.simulator.announcement().api_base);
    let mut form: Vec<(String, String)> = url::form_urlencoded::parse(redemption.body.as_bytes())
        .into_owned()
        .filter(|(name, _)| name != "client_id")
        .collect();
    form.push(("client_id".to_owned(), client));
    let refused = reply(world.client.post(token).form(&form)).await;
    assert!(refused.status.is_client_error(), "{refused:?}");
    let mut attacker = world.guest().await;
    let way = attacker.sign_in(&honest).await;
    let injected = with(&back, "state", &parameter(&way, "state"));
    attacker.get(&injected).await.says(400, "took too long");
    world.has_nothing_of(&mut attacker).await;
}

#[tokio::test]
async fn a_sign_in_comes_back_to_where_its_app_is_registered() {
    let world = World::new().await;
    let hostile = Hostile::before(&world).await;
    let profile = world.profile_at(&hostile, None).await;
    let elsewhere = world
        .profile_at(&hostile, Some("https://app.example.org/callback"))
        .await;
    let mut browser = world.guest().await;
    let own_app = [
        ("region", hostile.api_base()),
        ("client_id", "x".to_owned()),
        ("client_secret", "y".to_owned()),
    ];
    let own_app = own_app
        .each_ref()
        .map(|(name, value)| (*name, value.as_str()));
    let encoded = world.callback("smartsheet").replace("oauth2", "oauth%32");
    for (app, callback) in [
        (Some(&profile), world.callback("smartsheet_iam")),
        (None, world.callback("smartsheet")),
        (Some(&elsewhere), world.callback("smartsheet")),
        (Some(&profile), encoded),
    ] {
        let way = match app {
            Some(profile) => browser.sign_in(profile).await,
            None => {
                let sent = browser.fill("/connect/app", "/connect/app", &own_app);
                sent.await.leads().to_owned()
            }
        };
        let state = parameter(&way, "state");
        let back = format!("{callback}?code=c&state={state}");
        let page = browser.get(&back).await;
        assert!([403, 404].contains(&page.status.as_u16()), "{callback}");
    }
    // What is said twice is not said.
    for twice in [
        "code=c&code=d&state={}",
        "code=c&state={}&state={}",
        "code=c&state={}&iss=a&iss=b",
    ] {
        let way = browser.sign_in(&profile).await;
        let query = twice.replace("{}", &parameter(&way, "state"));
        let back = format!("{}?{query}", world.callback("smartsheet"));
        browser.get(&back).await.says(403, "another browser");
    }
    assert!(hostile.noted().is_empty(), "{:?}", hostile.noted());
    world.has_nothing_of(&mut browser).await;

    // What is said by its own server is.
    let way = browser.sign_in(&profile).await;
    let state = parameter(&way, "state");
    let back = format!(
        "{}?iss={}&code=c&expires_in=9&state={state}",
        world.callback("smartsheet"),
        hostile.origin()
    );
    assert_eq!(browser.get(&back).await.leads(), "/connect/review");
}

#[tokio::test]
async fn a_state_is_of_whoever_set_out_with_it() {
    let world = World::new().await;
    let other = world.project("two", &Scope::ALL).await;
    let hostile = Hostile::before(&world).await;
    let callback = "https://app.example.org/callback";
    let profile = world.profile_at(&hostile, Some(callback)).await;
    let begun = world
        .begin(&world.key, &profile, callback)
        .await
        .expect(200);
    let state = begun["state"].as_str().unwrap();
    let exchange = async |key: &str, state: &str| {
        let body = json!({ "state": state, "code": "c" });
        world.call_as(key, "/oauth/token_exchange", &body).await
    };
    // Another project, though it begins sign-ins of its own, and a browser of the hub's.
    let refused = exchange(&other, state).await;
    assert_eq!(refused.json()["code"], "authorization_invalid");
    let mut browser = world.guest().await;
    let back = format!("{}?code=c&state={state}", world.callback("smartsheet"));
    browser.get(&back).await.says(403, "another browser");
    // A sign-in of the hub's is no project's to end, either.
    let hub = world.profile_at(&hostile, None).await;
    let way = browser.sign_in(&hub).await;
    let hub_state = parameter(&way, "state");
    for key in [&world.key, &other] {
        let refused = exchange(key, &hub_state).await;
        assert_eq!(refused.json()["code"], "authorization_invalid");
    }
    assert!(hostile.noted().is_empty());
    // And none of them has spent it.
    exchange(&world.key, state).await.expect(201);
    let back = format!("{}?code=c&state={hub_state}", world.callback("smartsheet"));
    assert_eq!(browser.get(&back).await.leads(), "/connect/review");
    // Once.
    for key in [&world.key, &other] {
        let refused = exchange(key, state).await;
        assert_eq!(refused.json()["code"], "authorization_invalid");
    }
    assert_eq!(hostile.redemptions().len(), 2);
}

#[tokio::test]
async fn a_state_that_comes_back_many_times_at_once_is_taken_once() {
    let world = World::new().await;
    let hostile = Hostile::before(&world).await;
    let profile = world.profile_at(&hostile, None).await;
    let mut browser = world.guest().await;
    let way = browser.sign_in(&profile).await;
    let state = parameter(&way, "state");
    let back = format!("{}?code=c&state={state}", world.callback("smartsheet"));
    let cookie = browser.cookie.as_deref().unwrap();
    let arrivals = (0..8).map(|_| reply(browser.client.get(&back).header("cookie", cookie)));
    let pages = futures_util::future::join_all(arrivals).await;
    let (good, late): (Vec<_>, Vec<_>) =
        pages.iter().partition(|page| page.status.is_redirection());
    assert_eq!((good.len(), late.len()), (1, 7));
    for page in late {
        page.says(400, "took too long");
    }
    assert_eq!(hostile.redemptions().len(), 1);
}

/// What a sign-in was for may be gone when it comes back.
#[tokio::test]
async fn a_sign_in_for_what_is_gone_redeems_nothing() {
    let world = World::new().await;
    let hostile = Hostile::before(&world).await;
    let profile = world.profile_at(&hostile, None).await;
    let callback = world.callback("smartsheet");

    // The account that was to be linked again, before and after the sign-in came back.
    let mut body = world.account_body(&world.admin_token());
    body["base_url"] = json!(hostile.api_base());
    for is_back in [false, true] {
        let account = world.call(Method::POST, "/accounts", Some(&body)).await;
        let account = account.expect(201)["id"].as_str().unwrap().to_owned();
        let invited = json!({ "account_id": account });
        let mut browser = Browser::open(&world, &world.invite(&invited).await).await;
        let way = browser.sign_in(&profile).await;
        let back = format!("{callback}?code=c&state={}", parameter(&way, "state"));
        if is_back {
            assert_eq!(browser.get(&back).await.leads(), "/connect/review");
        }
        let fields = ["form_token", "draft"];
        let page = browser.get("/connect/review").await;
        let fields = fields.map(|name| match is_back {
            true => (name, page.input(name)),
            false => (name, String::new()),
        });
        let purged = format!("/accounts/{account}?purge=true");
        world.call(Method::DELETE, &purged, None).await.expect(200);
        let before = hostile.redemptions().len();
        if is_back {
            let mut fields: Vec<_> = fields
                .iter()
                .map(|(name, it)| (*name, it.as_str()))
                .collect();
            fields.push(("decision", "save"));
            let page = browser.post("/connect/review", &fields).await;
            page.says(404, "is not open");
        } else {
            browser.get(&back).await.says(404, "is not open");
        }
        for path in ["/connect", "/connect/token", "/connect/app"] {
            browser.get(path).await.says(404, "is not open");
        }
        assert_eq!(hostile.redemptions().len(), before);
        assert!(world.accounts().await.is_empty());
    }

    // The invitation.
    let mut browser = world.guest().await;
    let way = browser.sign_in(&profile).await;
    let back = format!("{callback}?code=c&state={}", parameter(&way, "state"));
    let before = hostile.redemptions().len();
    world.clock.advance(std::time::Duration::from_secs(1801));
    browser.get(&back).await.says(404, "is not open");
    assert_eq!(hostile.redemptions().len(), before);
}
