//! A token endpoint that redirects, bombs and lies: nothing of that is followed, unpacked or kept.

use std::io::Write;

use flate2::{Compression, write::GzEncoder};
use reqwest::Method;
use serde_json::{Value, json};

use super::{
    server::{Answer, Hostile, pair},
    sign_in::parameter,
};
use crate::{
    browser::Browser,
    errors::is_an_error,
    world::{Plan, Reply, World},
};

/// A world with a provider that is hostile, and a profile of an app there.
struct Bait {
    world: World,
    hostile: Hostile,
    profile: String,
}

const CALLBACK: &str = "https://app.example.org/callback";

impl Bait {
    async fn new() -> Self {
        let world = World::new().await;
        let hostile = Hostile::before(&world).await;
        let profile = world.profile_at(&hostile, None).await;
        Self {
            world,
            hostile,
            profile,
        }
    }

    /// Sets out in this browser and comes back with a code.
    async fn comes_back(&self, browser: &mut Browser) -> Reply {
        let way = browser.sign_in(&self.profile).await;
        let state = parameter(&way, "state");
        let callback = self.world.callback("smartsheet");
        browser
            .get(&format!("{callback}?code=c&state={state}"))
            .await
    }

    /// The same through the API, with a profile for that.
    async fn exchange(&self, profile: &str) -> Reply {
        let world = &self.world;
        let body = json!({
            "profile": profile,
            "callback_url": CALLBACK,
            "origin_owner_id": "customer-1",
            "origin_owner_name": "Customer One",
        });
        let begun = world.call(Method::POST, "/oauth/authorization_url", Some(&body));
        let begun = begun.await.expect(200);
        let body = json!({ "state": begun["state"], "code": "c" });
        world
            .call(Method::POST, "/oauth/token_exchange", Some(&body))
            .await
    }

    /// Links an account by a sign-in, and gives its id.
    async fn link(&self) -> String {
        self.hostile.issues(Answer::json(pair()));
        let profile = self.world.profile_at(&self.hostile, Some(CALLBACK)).await;
        let linked = self.exchange(&profile).await.expect(201);
        linked["id"].as_str().unwrap().to_owned()
    }

    async fn account(&self, id: &str) -> Value {
        self.world.get(&format!("/accounts/{id}")).await.expect(200)
    }

    async fn refresh(&self, id: &str) -> Value {
        let path = format!("/accounts/{id}/refresh");
        self.world.post(&path).await.expect(200)["credential"]["state"].clone()
    }

    /// None of these answers links, keeps or spends anything but the code.
    async fn refuses(&self, answers: Vec<(&str, Answer)>) {
        let mut browser = self.world.guest().await;
        let in_api = self.world.profile_at(&self.hostile, Some(CALLBACK)).await;
        for (what, answer) in &answers {
            self.hostile.issues(answer.clone());
            let page = self.comes_back(&mut browser).await;
            assert_eq!(page.status.as_u16(), 502, "{what}: {}", page.text());
            assert!(page.text().contains("does not answer"), "{what}");
            let refused = self.exchange(&in_api).await;
            is_an_error(&refused, 502, "provider_unavailable");
        }
        assert_eq!(self.hostile.redemptions().len(), 2 * answers.len());
        self.world.has_nothing_of(&mut browser).await;

        // A refresh: whether the token is spent nobody knows, and that is what is said. Nothing
        // that was read before is lost by it.
        for (what, answer) in &answers {
            let id = self.link().await;
            let walk = self.world.walk(&id).await;
            assert_eq!(walk["state"], "sealed", "{what}: {walk}");
            self.hostile.issues(answer.clone());
            assert_eq!(self.refresh(&id).await, "uncertain", "{what}");
            let read = self.world.read(&id, "/iam/users?page_size=1").await;
            assert_eq!(read.expect(200)["total"], walk["counts"]["users"], "{what}");
        }
    }
}

/// A secret goes where it was meant to go, and not where that points.
#[tokio::test]
async fn a_redirect_of_a_token_endpoint_is_not_followed() {
    let bait = Bait::new().await;
    let trap = Hostile::before(&bait.world).await;
    let redirects = [301, 302, 303, 307, 308].map(|status| {
        let to = format!("location: {}/token\r\n", trap.api_base());
        ("a redirect", Answer::raw(status, &to, ""))
    });
    bait.refuses(redirects.into()).await;
    assert!(trap.noted().is_empty(), "{:?}", trap.noted());
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn a_bomb_of_a_token_endpoint_does_not_go_off() {
    let bait = Bait::new().await;
    let json_head =
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{\"access_token\":\"";
    let spaces = vec![b' '; 20 << 20];
    let padded = [&spaces[..], pair().to_string().as_bytes()].concat();
    let mut deep = pair();
    deep["deep"] = json!("here");
    let nest = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let deep = deep.to_string().replace("\"here\"", &nest);
    let gzip = "content-encoding: gzip\r\n";
    let bombs = vec![
        ("packed", Answer::raw(200, gzip, packed(&padded))),
        (
            "packed twice",
            Answer::raw(200, gzip, packed(&packed(&padded))),
        ),
        ("deep", Answer::json(deep)),
        ("large", Answer::raw(200, "", &padded)),
        ("endless", Answer::endless(json_head, &[b'x'; 1 << 16])),
        (
            "of endless headers",
            Answer::endless(b"HTTP/1.1 200 OK\r\n", &b"x-y: z\r\n".repeat(1 << 10)),
        ),
        (
            "of a length that nobody has",
            Answer::endless(
                b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n",
                b" ",
            ),
        ),
        (
            "packed as nobody asked",
            Answer::raw(200, "content-encoding: zstd\r\n", pair().to_string()),
        ),
    ];
    bait.refuses(bombs).await;
}

fn without(key: &str) -> Answer {
    let mut pair = pair();
    pair.as_object_mut().unwrap().remove(key);
    Answer::json(pair)
}

fn lie(key: &str, value: Value) -> Answer {
    let mut pair = pair();
    pair[key] = value;
    Answer::json(pair)
}

#[tokio::test]
async fn what_is_no_pair_of_tokens_is_not_taken_for_one() {
    let bait = Bait::new().await;
    let html = "content-type: text/html\r\n";
    let twice = r#"{"access_token":"a","access_token":"b","refresh_token":"c","expires_in":9}"#;
    let huge = pair().to_string().replace("604799", "1e400");
    bait.refuses(vec![
        ("no refresh token", without("refresh_token")),
        ("no access token", without("access_token")),
        ("no life", without("expires_in")),
        ("a negative life", lie("expires_in", json!(-1))),
        ("a life in words", lie("expires_in", json!("soon"))),
        ("a life beyond numbers", Answer::json(huge)),
        ("a token of another type", lie("token_type", json!("mac"))),
        (
            "a type that is none",
            lie("token_type", json!({"bearer": true})),
        ),
        (
            "a header in a token",
            lie("access_token", json!("a\r\nassume-user: x")),
        ),
        ("a token of two words", lie("refresh_token", json!("a b"))),
        ("an empty token", lie("access_token", json!(""))),
        ("a token that is a list", lie("access_token", json!(["a"]))),
        ("a list", Answer::json(json!(["a", "b", "c", 9]))),
        ("two tokens of one name", Answer::json(twice)),
        ("a page", Answer::raw(200, html, "<html>signed in</html>")),
        ("nothing", Answer::raw(200, "", "")),
        ("no content", Answer::raw(204, "", "")),
    ])
    .await;
}

#[tokio::test]
async fn an_absurd_life_of_a_token_is_cut() {
    let bait = Bait::new().await;
    let world = &bait.world;
    let profile = world.profile_at(&bait.hostile, Some(CALLBACK)).await;
    bait.hostile.issues(lie("expires_in", json!(u64::MAX)));
    let linked = bait.exchange(&profile).await.expect(201);
    let end: jiff::Timestamp = linked["credential"]["expires_at"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    let days = end.duration_since(world.clock.now()).as_hours() / 24;
    assert!((3640..=3650).contains(&days), "{days}");

    // One that has ended before it came is refreshed now and then, and not for ever at once.
    bait.hostile.issues(lie("expires_in", json!(0)));
    let before = world.clock.now().as_millisecond();
    bait.exchange(&profile).await.expect(201);
    let due = world.number("select min(due_at) from credentials").await;
    assert!(due >= before + 60_000, "due after {} ms", due - before);
}

#[tokio::test]
async fn a_token_of_another_organisation_takes_nobody_s_place() {
    let bait = Bait::new().await;
    let (world, hostile) = (&bait.world, &bait.hostile);
    let other = World::with(Plan {
        seed: 7,
        users: 12,
        ..Plan::default()
    })
    .await;

    // In the hub, for an account that is linked again.
    let mut body = world.account_body(&world.admin_token());
    body["base_url"] = json!(hostile.api_base());
    let linked = world.call(Method::POST, "/accounts", Some(&body)).await;
    let linked = linked.expect(201);
    let id = linked["id"].as_str().unwrap();
    let link = world.invite(&json!({ "account_id": id })).await;
    let mut browser = Browser::open(world, &link).await;
    hostile.stands_before(&other);
    let page = bait.comes_back(&mut browser).await;
    page.says(422, "another organisation");
    assert_eq!(browser.get("/connect/review").await.leads(), "/connect");
    assert_eq!(bait.account(id).await["credential"], linked["credential"]);
    // What it brought is revoked.
    assert_eq!(hostile.revoked(), ["Bearer an-access-token-of-the-hostile"]);

    // By a refresh: the walk says so, and what was read before stays.
    hostile.stands_before(world);
    let id = bait.link().await;
    let sealed = world.walk(&id).await;
    assert_eq!(sealed["state"], "sealed", "{sealed}");
    hostile.stands_before(&other);
    assert_eq!(bait.refresh(&id).await, "healthy");
    let walk = world.walk(&id).await;
    assert_eq!(walk["reason"], "organisation_changed", "{walk}");
    let read = world.read(&id, "/iam/users?page_size=1").await;
    assert_eq!(read.header("x-directory-stale"), Some("walk_failed"));
    assert_eq!(read.expect(200)["total"], sealed["counts"]["users"]);

    // By a refresh before the first walk has sealed: nobody of the other's is ever served.
    hostile.stands_before(world);
    let fault = json!({"kind": "status", "status": 500, "error_code": 4000});
    let rule = json!({"match": {"path_prefix": "/groups"}, "fault": fault});
    world.faults(&json!([rule])).await;
    let id = bait.link().await;
    assert_eq!(world.walk(&id).await["state"], "failed");
    hostile.stands_before(&other);
    assert_eq!(bait.refresh(&id).await, "healthy");
    let walk = world.walk(&id).await;
    assert_eq!(walk["reason"], "organisation_changed", "{walk}");
}

#[tokio::test]
async fn nothing_that_a_token_endpoint_says_is_said_again() {
    let bait = Bait::new().await;
    let mut browser = bait.world.guest().await;
    let in_api = bait.world.profile_at(&bait.hostile, Some(CALLBACK)).await;
    let hostile = "<script>alert(17)</script>";
    let words = json!({
        "error": hostile, "error_description": hostile, "error_uri": hostile,
        "errorCode": 9999, "message": hostile, "refId": hostile,
    });
    for status in [400, 401, 403, 429, 500] {
        let json = "content-type: application/json\r\nretry-after: alert(17)\r\n";
        let answer = Answer::raw(status, json, words.to_string());
        bait.hostile.issues(answer);
        let page = bait.comes_back(&mut browser).await;
        let refused = bait.exchange(&in_api).await;
        for reply in [page, refused] {
            assert!(!reply.status.is_success());
            let said = format!("{:?} {}", reply.headers, reply.text());
            assert!(!said.contains("alert(17)"), "{status}: {said}");
        }
    }
    bait.world.has_nothing_of(&mut browser).await;
}
