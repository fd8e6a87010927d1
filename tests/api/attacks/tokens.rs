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
    let mut unreadable = pair();
    unreadable["access_token"] = json!(["a"]);
    unreadable["refresh_token"] = json!("a\r\nassume-user: x");
    bait.refuses(vec![
        ("a token of another type", lie("token_type", json!("mac"))),
        ("tokens that cannot be sent", Answer::json(unreadable)),
        ("a list", Answer::json(json!(["a", "b", "c", 9]))),
        ("a page", Answer::raw(200, html, "<html>signed in</html>")),
        ("nothing", Answer::raw(200, "", "")),
        ("no content", Answer::raw(204, "", "")),
    ])
    .await;
    // What was issued and is not kept is revoked: by the hub, the API and a refresh.
    let revoked = bait.hostile.revoked();
    assert_eq!(revoked, ["Bearer an-access-token-of-the-hostile"; 3]);
}

/// Who issues tokens has spent what was redeemed for them.
#[tokio::test]
async fn an_odd_field_of_a_pair_costs_that_field_alone() {
    let bait = Bait::new().await;
    let profile = bait.world.profile_at(&bait.hostile, Some(CALLBACK)).await;
    let twice = r#"{"access_token":"a","access_token":"b","refresh_token":"c","expires_in":9000}"#;
    let huge = pair().to_string().replace("604799", "1e400");
    for (what, answer) in [
        ("no refresh token", without("refresh_token")),
        ("no life", without("expires_in")),
        ("no type", without("token_type")),
        ("a negative life", lie("expires_in", json!(-1))),
        ("a life in words", lie("expires_in", json!("soon"))),
        ("a life as text", lie("expires_in", json!("604799"))),
        ("a life beyond numbers", Answer::json(huge)),
        ("a type in capitals", lie("token_type", json!("BEARER"))),
        (
            "a type that is none",
            lie("token_type", json!({"bearer": true})),
        ),
        ("a token of two words", lie("refresh_token", json!("a b"))),
        ("two tokens of one name", Answer::json(twice)),
        ("wrapped", Answer::json(json!({ "token": pair() }))),
        (
            "of another status",
            Answer::raw(500, "", pair().to_string()),
        ),
    ] {
        bait.hostile.issues(answer.clone());
        let linked = bait.exchange(&profile).await.expect(201);
        assert_eq!(linked["credential"]["state"], "healthy", "{what}");
        let end = linked["credential"]["expires_at"].as_str().unwrap();
        let end: jiff::Timestamp = end.parse().unwrap();
        let left = end.duration_since(bait.world.clock.now()).as_secs();
        assert!(left > 3500, "{what}: {left}");

        let id = bait.link().await;
        bait.hostile.issues(answer);
        assert_eq!(bait.refresh(&id).await, "healthy", "{what}");
    }
    assert!(bait.hostile.revoked().is_empty());
}

/// RFC 6749, 6.
#[tokio::test]
async fn a_refresh_that_brings_no_refresh_token_keeps_the_former_one() {
    let bait = Bait::new().await;
    let id = bait.link().await;
    for none in [json!(null), json!(""), json!(7)] {
        let mut reply = pair();
        reply["access_token"] = json!("the-next-access-token");
        reply["refresh_token"] = none;
        bait.hostile.issues(Answer::json(reply));
        assert_eq!(bait.refresh(&id).await, "healthy");
        assert_eq!(bait.world.walk(&id).await["state"], "sealed");
        let spent = bait.hostile.redemptions();
        let last = spent.last().unwrap().field("refresh_token");
        assert_eq!(last, "a-refresh-token-of-the-hostile");
    }
}

/// The refresh token alone is good for the next pair.
#[tokio::test]
async fn a_refresh_token_without_an_access_token_is_kept_and_redeemed() {
    let bait = Bait::new().await;
    let mut alone = pair();
    alone["access_token"] = json!("");
    alone["refresh_token"] = json!("the-next-refresh-token");
    let id = bait.link().await;
    bait.hostile.issues(Answer::json(alone.clone()));
    assert_eq!(bait.refresh(&id).await, "healthy");
    bait.hostile.issues(Answer::json(pair()));
    assert_eq!(bait.world.walk(&id).await["state"], "sealed");
    let spent = bait.hostile.redemptions();
    let last = spent.last().unwrap();
    assert_eq!(last.field("refresh_token"), "the-next-refresh-token");

    // At a sign-in it is redeemed at once; if that brings no more, nothing is linked.
    bait.hostile.issues(Answer::json(alone));
    let profile = bait.world.profile_at(&bait.hostile, Some(CALLBACK)).await;
    let before = bait.hostile.redemptions().len();
    let refused = bait.exchange(&profile).await;
    is_an_error(&refused, 502, "provider_unavailable");
    let spent = bait.hostile.redemptions();
    assert_eq!(spent.len(), before + 2);
    assert_eq!(spent[before].field("grant_type"), "authorization_code");
    assert_eq!(
        spent[before + 1].field("refresh_token"),
        "the-next-refresh-token"
    );
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
async fn a_token_of_another_organization_takes_nobody_s_place() {
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
    page.says(422, "another organization");
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
