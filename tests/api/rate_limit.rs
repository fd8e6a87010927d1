//! How often a key may ask, and what every answer tells about it.

use std::time::Duration;

use reqwest::Method;
use rolecall::model::api_keys::Scope;
use serde_json::json;

use crate::{
    openapi::operations,
    world::{Plan, Reply, World},
};

async fn limited(per_minute: &'static str) -> World {
    World::with(Plan {
        settings: vec![("server.requests_per_minute_per_key", per_minute)],
        ..Plan::default()
    })
    .await
}

async fn ask(world: &World, key: &str, method: Method, path: &str) -> Reply {
    let bearer = format!("Bearer {key}");
    let headers = [("authorization", bearer.as_str())];
    world.send(method, path, &headers, None).await
}

/// What an answer tells is left.
#[track_caller]
fn left(reply: &Reply) -> u32 {
    let told = reply.header("ratelimit").unwrap();
    let left = told.strip_prefix("\"key\";r=").unwrap();
    left.split(';').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_thousand_a_minute_by_default() {
    let world = limited("1000").await;
    let reply = world.get("/accounts").await;
    assert_eq!(
        reply.header("ratelimit-policy"),
        Some("\"key\";q=1000;w=60")
    );
    assert_eq!(reply.header("ratelimit"), Some("\"key\";r=999;t=1"));
    let default = rolecall::config::Config::with(&[]).unwrap();
    assert_eq!(default.server.requests_per_minute_per_key, 1000);
}

#[tokio::test]
async fn beyond_its_quota_a_key_is_told_when_to_come_back_and_is_served_then() {
    // One a minute, so that no machine is slow enough for one more to come back unasked.
    let world = limited("1").await;
    let other = world.key_of("one", &[Scope::AccountsRead]).await;
    let reply = world.get("/accounts").await;
    reply.expect(200);
    assert_eq!(left(&reply), 0);
    let reply = world.get("/accounts").await;
    reply.refused(429, "rate_limited");
    let wait: u64 = reply.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    let told = format!("\"key\";r=0;t={wait}");
    assert_eq!(reply.header("ratelimit"), Some(told.as_str()));
    assert_eq!(reply.header("ratelimit-policy"), Some("\"key\";q=1;w=60"));

    // Another key, of the same project even, has all of its own.
    let reply = ask(&world, &other, Method::GET, "/accounts").await;
    reply.expect(200);

    world.clock.advance(Duration::from_secs(wait));
    world.get("/accounts").await.expect(200);
    world.get("/accounts").await.refused(429, "rate_limited");
    world.clock.advance(Duration::from_secs(60));
    world.get("/accounts").await.expect(200);
}

#[tokio::test]
async fn who_does_not_prove_a_key_spends_nothing_of_it_and_is_told_nothing() {
    let world = limited("2").await;
    let (id, secret) = world.key.rsplit_once('_').unwrap();
    let backwards: String = secret.chars().rev().collect();
    let strangers = World::new().await.key;
    for _ in 0..10 {
        for guess in [&format!("{id}_{backwards}"), id, "x", strangers.as_str()] {
            let reply = ask(&world, guess, Method::GET, "/accounts").await;
            reply.refused(401, "unauthorized");
            assert_eq!(reply.header("ratelimit"), None);
            assert_eq!(reply.header("ratelimit-policy"), None);
        }
    }
    assert_eq!(left(&world.get("/accounts").await), 1);
    // Nor does it cost anything to ask what needs no key.
    for path in ["/health/live", "/openapi.json", "/nowhere"] {
        assert_eq!(world.get(path).await.header("ratelimit"), None, "{path}");
    }
    assert_eq!(left(&world.get("/accounts").await), 0);
}

#[tokio::test]
async fn every_answer_to_a_key_tells_what_is_left_whatever_the_answer() {
    const QUOTA: u32 = 30;
    let world = limited("30").await;
    let began_at = world.clock.now();
    // Linking it, and the read that waits for its first walk.
    let account = world.link_admin().await;
    let mut spent = 2;
    let page = world.read(&account, "/iam/users").await;
    let etag = page.header("etag").unwrap().to_owned();
    let known = [("if-none-match", etag.as_str())];
    let walks = format!("/accounts/{account}/walks");
    let no_object = json!([]);
    let replies = [
        (page, 200),
        (world.read_with(&account, "/iam/users", &known).await, 304),
        (world.get("/iam/users").await, 400),
        (world.get("/accounts?x=1").await, 400),
        (world.get("/accounts/absent").await, 404),
        (world.read(&account, "/iam/policies").await, 501),
        (world.call(Method::HEAD, "/accounts", None).await, 200),
        (
            world
                .call(Method::POST, "/accounts", Some(&no_object))
                .await,
            400,
        ),
        (world.post(&walks).await, 202),
    ];
    // What has come back in the meantime, at most.
    let passed = world.clock.now().duration_since(began_at).as_millis();
    let back = u32::try_from(passed).unwrap() * QUOTA / 60_000 + 1;
    for (reply, status) in replies {
        assert_eq!(reply.status.as_u16(), status);
        assert_eq!(reply.header("ratelimit-policy"), Some("\"key\";q=30;w=60"));
        spent += 1;
        let least = QUOTA - spent;
        let left = left(&reply);
        assert!((least..=least + back).contains(&left), "{status}: {left}");
    }
    // A key without the scope has proven itself all the same.
    let plain = world.key_of("one", &[]).await;
    let reply = ask(&world, &plain, Method::GET, "/accounts").await;
    reply.refused(403, "key_scope_missing");
    assert_eq!(left(&reply), QUOTA - 1);
}

#[tokio::test]
async fn the_keys_of_a_project_share_its_quota() {
    let world = World::with(Plan {
        settings: vec![
            ("server.requests_per_minute_per_key", "2"),
            ("server.requests_per_minute_per_project", "5"),
        ],
        ..Plan::default()
    })
    .await;
    let reply = world.get("/accounts").await;
    assert_eq!(
        reply.header("ratelimit-policy"),
        Some("\"key\";q=2;w=60, \"project\";q=5;w=60")
    );
    assert_eq!(
        reply.header("ratelimit"),
        Some("\"key\";r=1;t=30, \"project\";r=4;t=12")
    );
    world.get("/accounts").await.expect(200);
    // A key without requests left costs its project nothing.
    for _ in 0..10 {
        let reply = world.get("/accounts").await;
        reply.refused(429, "rate_limited");
        let told = reply.header("ratelimit").unwrap();
        assert!(
            told.starts_with("\"key\";r=0;") && !told.contains("project"),
            "{told}"
        );
    }
    let second = world.key_of("one", &[Scope::AccountsRead]).await;
    for _ in 0..2 {
        ask(&world, &second, Method::GET, "/accounts")
            .await
            .expect(200);
    }
    let third = world.key_of("one", &[Scope::AccountsRead]).await;
    ask(&world, &third, Method::GET, "/accounts")
        .await
        .expect(200);
    let spent = ask(&world, &third, Method::GET, "/accounts").await;
    let refused = spent.refused(429, "rate_limited");
    assert!(
        refused["message"].as_str().unwrap().contains("project"),
        "{refused}"
    );
    assert!(spent.header("retry-after").is_some());
    // Another project has all of its own.
    let neighbor = world.project("two", &[Scope::AccountsRead]).await;
    ask(&world, &neighbor, Method::GET, "/accounts")
        .await
        .expect(200);
}

#[tokio::test]
async fn without_a_limit_nothing_is_told() {
    let world = limited("0").await;
    let reply = world.get("/accounts").await;
    reply.expect(200);
    assert_eq!(reply.header("ratelimit"), None);
    assert_eq!(reply.header("ratelimit-policy"), None);
}

#[test]
fn the_document_has_the_fields_on_every_answer_to_a_proven_key_and_on_no_other() {
    for operation in operations() {
        let responses = operation.said["responses"].as_object().unwrap();
        for (status, response) in responses {
            let wanted = operation.needs_key() && status != "401";
            for field in ["RateLimit", "RateLimit-Policy"] {
                let there = format!("#/components/headers/{field}");
                assert_eq!(
                    response["headers"][field]["$ref"] == json!(there),
                    wanted,
                    "{} {} {status}",
                    operation.method,
                    operation.path
                );
            }
        }
    }
}
