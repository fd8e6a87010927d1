//! A store that is away, or takes no writes, and a date that is set back: what reads, walks and
//! `/health/ready` make of it.

use std::time::Duration;

use reqwest::Method;
use rolecall::{clock::Clock, error::Kind, model::api_keys::Scope};
use serde_json::{Value, json};

use crate::{
    refusing::refusing,
    relay::Open,
    world::{HANG, Plan, Reply, World},
};

const DAY: Duration = Duration::from_secs(86_400);

fn stale(reply: &Reply) -> Option<&str> {
    reply.header("x-directory-stale")
}

fn age(reply: &Reply) -> u64 {
    reply.header("age").unwrap().parse().unwrap()
}

async fn ready(world: &World) -> Reply {
    world.send(Method::GET, "/health/ready", &[], None).await
}

/// Asks whether it is ready until it says this with a 200, and gives how long that took.
async fn is_ready_as(world: &World, expected: &Value) -> Duration {
    let clock = Clock::system();
    let began_at = clock.monotonic();
    let asking = async {
        loop {
            let reply = ready(world).await;
            if reply.status == 200 && reply.json() == *expected {
                return;
            }
        }
    };
    let in_time = tokio::time::timeout(HANG, asking).await;
    in_time.unwrap_or_else(|_| panic!("never {expected}"));
    clock.monotonic() - began_at
}

async fn writable(world: &World) -> f64 {
    let page = world.send(Method::GET, "/metrics", &[], None).await;
    let page = String::from_utf8(page.bytes).unwrap();
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix("rolecall_store_writable "));
    line.unwrap().parse().unwrap()
}

#[tokio::test]
async fn an_outage_that_begins_right_after_a_change_costs_no_reads() {
    let revoked = "a key that this process revoked";
    for change in ["walk", "failed walk", "account", "profile", revoked] {
        let world = World::new().await;
        let account = world.link_admin().await;
        let before = world.read(&account, "/iam/users").await.expect(200);
        let other = world.key_of("one", &Scope::ALL).await;
        let bearer = format!("Bearer {other}");
        let by_other = [
            ("authorization", bearer.as_str()),
            ("x-account-id", &account),
        ];
        let read = || world.send(Method::GET, "/iam/users", &by_other, None);
        read().await.expect(200);
        match change {
            "walk" => drop(world.walk(&account).await),
            "failed walk" => {
                world.provider_answers(400).await;
                let walk = world.walk(&account).await;
                assert_eq!(walk["state"], "failed");
            }
            "account" => {
                let label = json!({"label": "another"});
                let path = format!("/accounts/{account}");
                let changed = world.call(Method::PATCH, &path, Some(&label)).await;
                changed.expect(200);
            }
            "profile" => {
                let (profile, _) = world.profile().await;
                let label = json!({"label": "another"});
                let path = format!("/connector_profiles/{profile}");
                let changed = world.call(Method::PATCH, &path, Some(&label)).await;
                changed.expect(200);
            }
            _ => {
                let keys = world.get("/api_keys").await.expect(200);
                let newest = keys["data"][0]["id"].as_str().unwrap();
                let path = format!("/api_keys/{newest}");
                let revoked = world.call(Method::DELETE, &path, None).await;
                assert!(revoked.status.is_success(), "{revoked:?}");
            }
        }
        world.gateway.background().close().await;
        let reply = world.read(&account, "/iam/users").await;
        if change != revoked {
            assert_eq!(stale(&reply), Some("store_unavailable"), "{change}");
        }
        assert_eq!(reply.expect(200)["total"], before["total"], "{change}");
        // What was revoked does not come back, also when it is asked for again and again.
        for _ in 0..3 {
            let reply = read().await;
            if change == revoked {
                reply.refused(503, "store_unavailable");
            } else {
                reply.expect(200);
            }
            world.clock.advance(Duration::from_secs(1));
        }
    }
}

#[tokio::test]
async fn a_key_that_is_to_end_sooner_ends_then_also_while_the_store_is_away() {
    let world = World::new().await;
    let account = world.link_admin().await;
    let other = world.key_of("one", &Scope::ALL).await;
    let bearer = format!("Bearer {other}");
    let by_other = [
        ("authorization", bearer.as_str()),
        ("x-account-id", &account),
    ];
    let read = || world.send(Method::GET, "/iam/users", &by_other, None);
    read().await.expect(200);
    let keys = world.get("/api_keys").await.expect(200);
    let path = format!("/api_keys/{}", keys["data"][0]["id"].as_str().unwrap());
    let ends_at = world.clock.now() + Duration::from_secs(60);
    let change = json!({"expires_at": ends_at});
    let changed = world.call(Method::PATCH, &path, Some(&change)).await;
    changed.expect(200);
    world.gateway.background().close().await;
    let reply = read().await;
    assert_eq!(stale(&reply), Some("store_unavailable"));
    reply.expect(200);
    world.clock.advance(Duration::from_secs(61));
    read().await.refused(401, "unauthorized");
}

#[tokio::test]
async fn an_account_that_was_disconnected_is_not_served_while_the_store_is_away() {
    let world = World::new().await;
    let account = world.link_admin().await;
    world.read(&account, "/iam/users").await.expect(200);
    let path = format!("/accounts/{account}");
    let gone = world.call(Method::DELETE, &path, None).await;
    assert!(gone.status.is_success(), "{gone:?}");
    world.gateway.background().close().await;
    let reply = world.read(&account, "/iam/users").await;
    reply.refused(503, "store_unavailable");
}

#[tokio::test]
async fn while_the_store_takes_no_writes_reads_go_on_and_say_so_once_they_are_due() {
    let Some(world) = World::with_remote_store(Plan::default()).await else {
        return;
    };
    let account = world.link_admin().await;
    is_ready_as(&world, &json!({"status": "ok"})).await;
    assert_eq!(writable(&world).await, 1.0);

    let database = &world.remote().database;
    database.set_read_only(true).await;
    database.end_sessions().await;
    let read_only = json!({"status": "degraded", "store": "read_only"});
    is_ready_as(&world, &read_only).await;
    assert_eq!(writable(&world).await, 0.0);
    let reply = world.read(&account, "/iam/users").await;
    assert_eq!(stale(&reply), None, "it is not due yet");
    // Who wants it newer learns why it is not, and so does whoever asks after them.
    let no_cache = [("cache-control", "no-cache")];
    let reply = world.read_with(&account, "/iam/users", &no_cache).await;
    assert_eq!(stale(&reply), Some("store_unavailable"));
    reply.expect(200);
    world.clock.advance(Duration::from_secs(2));
    let reply = world.read(&account, "/iam/users").await;
    assert_eq!(stale(&reply), Some("store_unavailable"));
    world.clock.advance(Duration::from_secs(301));
    for path in ["/iam/users", "/iam/groups", "/iam"] {
        let reply = world.read(&account, path).await;
        assert_eq!(stale(&reply), Some("store_unavailable"), "{path}");
        assert!(age(&reply) > 300, "{path}");
        reply.expect(200);
    }
    world
        .try_link(&world.admin_token())
        .await
        .refused(503, "store_unavailable");

    database.set_read_only(false).await;
    let took = is_ready_as(&world, &json!({"status": "ok"})).await;
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(writable(&world).await, 1.0);
    assert_eq!(world.walk(&account).await["state"], "sealed");
    let reply = world.read(&account, "/iam/users").await;
    assert_eq!(stale(&reply), None);
}

#[tokio::test]
async fn an_account_that_nobody_asks_to_be_newer_is_told_stale_once_its_walk_is_due() {
    let Some(world) = World::with_remote_store(Plan::default()).await else {
        return;
    };
    let account = world.link_admin().await;
    let database = &world.remote().database;
    database.set_read_only(true).await;
    database.end_sessions().await;
    is_ready_as(&world, &json!({"status": "degraded", "store": "read_only"})).await;
    world.clock.advance(Duration::from_secs(200));
    let reply = world.read(&account, "/iam/users").await;
    assert_eq!(stale(&reply), None);
    world.clock.advance(Duration::from_secs(102));
    let reply = world.read(&account, "/iam/users").await;
    assert_eq!(stale(&reply), Some("store_unavailable"));
}

#[tokio::test]
async fn a_process_is_ready_without_its_store_for_as_long_as_memory_serves() {
    let Some(world) = World::with_remote_store(Plan::default()).await else {
        return;
    };
    // Nothing is in memory yet.
    world.remote().cut();
    let unready = async { while ready(&world).await.status != 503 {} };
    tokio::time::timeout(HANG, unready).await.unwrap();
    ready(&world).await.refused(503, "store_unavailable");
    world.remote().mend();
    is_ready_as(&world, &json!({"status": "ok"})).await;

    let account = world.link_admin().await;
    let before = world.read(&account, "/iam/users").await.expect(200);
    world.remote().cut();
    let unreachable = json!({"status": "degraded", "store": "unreachable"});
    is_ready_as(&world, &unreachable).await;
    assert_eq!(writable(&world).await, 0.0);
    world.clock.advance(Duration::from_secs(2));
    let reply = world.read(&account, "/iam/users").await;
    assert_eq!(stale(&reply), Some("store_unavailable"));
    assert_eq!(reply.expect(200), before);

    world.remote().mend();
    is_ready_as(&world, &json!({"status": "ok"})).await;
    world.clock.advance(Duration::from_secs(2));
    let reply = world.read(&account, "/iam/users").await;
    assert_eq!(stale(&reply), None);
    world.gateway.stop();
    ready(&world).await.refused(503, "store_unavailable");
}

/// A rotated password is 28P01.
#[tokio::test]
async fn reads_go_on_whatever_a_new_connection_is_refused_with() {
    let Some(world) = World::with_remote_store(Plan::default()).await else {
        return;
    };
    let account = world.link_admin().await;
    let before = world.read(&account, "/iam/users").await.expect(200);
    let unreachable = json!({"status": "degraded", "store": "unreachable"});
    for state in [
        "28P01", "28000", "3D000", "55000", "53300", "57P03", "08004", "08P01", "42501", "XX000",
    ] {
        let relay = &world.remote().relay;
        relay.lead_to(Some(refusing(state)), Open::End);
        is_ready_as(&world, &unreachable).await;
        world.clock.advance(Duration::from_secs(2));
        let reply = world.read(&account, "/iam/users").await;
        assert_eq!(stale(&reply), Some("store_unavailable"), "{state}");
        assert_eq!(reply.expect(200), before, "{state}");
        let bearer = format!("Bearer {}", world.key);
        let path = format!("/accounts/{account}");
        let headers = [("authorization", bearer.as_str())];
        let label = json!({"label": state});
        let write = world
            .send(Method::PATCH, &path, &headers, Some(&label))
            .await;
        write.refused(503, "store_unavailable");
        relay.lead_to(Some(world.remote().database.address()), Open::End);
        is_ready_as(&world, &json!({"status": "ok"})).await;
    }
}

#[tokio::test]
async fn reads_go_on_while_the_server_lets_nobody_log_in() {
    let Some(world) = World::with_remote_store(Plan::default()).await else {
        return;
    };
    let account = world.link_admin().await;
    let before = world.read(&account, "/iam/users").await.expect(200);
    let database = &world.remote().database;
    let unreachable = json!({"status": "degraded", "store": "unreachable"});
    for (shut, open) in [
        ("alter role {} nologin", "alter role {} login"),
        (
            "alter database {} allow_connections false",
            "alter database {} allow_connections true",
        ),
        (
            "alter role {} connection limit 0",
            "alter role {} connection limit -1",
        ),
    ] {
        database.run(shut).await;
        database.end_sessions().await;
        is_ready_as(&world, &unreachable).await;
        world.clock.advance(Duration::from_secs(2));
        let reply = world.read(&account, "/iam/users").await;
        assert_eq!(stale(&reply), Some("store_unavailable"), "{shut}");
        assert_eq!(reply.expect(200), before, "{shut}");
        database.run(open).await;
        is_ready_as(&world, &json!({"status": "ok"})).await;
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_written_is_told_and_reads_go_on() {
    let world = World::new().await;
    let account = world.link_admin().await;
    let Some(lock) = world.lock_store().await else {
        return;
    };
    let read_only = json!({"status": "degraded", "store": "read_only"});
    is_ready_as(&world, &read_only).await;
    assert_eq!(writable(&world).await, 0.0);
    world.clock.advance(Duration::from_secs(301));
    let reply = world.read(&account, "/iam/users").await;
    assert_eq!(stale(&reply), Some("store_unavailable"));
    reply.expect(200);
    drop(lock);
    is_ready_as(&world, &json!({"status": "ok"})).await;
}

#[tokio::test]
async fn a_process_that_has_not_begun_to_serve_is_not_ready() {
    let (_folder, gateway) = World::not_serving().await;
    let error = gateway.ready().await.unwrap_err();
    assert_eq!(error.kind(), Kind::StoreUnavailable);
    gateway.background().join().await.unwrap();
    assert!(gateway.ready().await.is_ok());
    gateway.background().close().await;
}

#[tokio::test]
async fn a_date_that_is_set_back_stops_no_walks_and_makes_no_directory_younger() {
    let world = World::with(Plan {
        settings: vec![("walk.every_seconds", "1")],
        ..Plan::default()
    })
    .await;
    let account = world.link_admin().await;
    for back in [Duration::from_secs(3600), DAY] {
        world.clock.set_date_back(back);
        for _ in 0..2 {
            let seq = world.provider_calls().await;
            world.provider_is_called_after(seq).await;
        }
    }
    // A walk that is newer than another is found to be, whatever the date says.
    let walk = world.walk(&account).await;
    let walks = world.get(&format!("/accounts/{account}/walks")).await;
    let walks = walks.expect(200)["data"].as_array().unwrap().clone();
    let is_ended = |walk: &&Value| walk["state"] != "running";
    let newest = walks
        .iter()
        .filter(is_ended)
        .map(|walk| walk["id"].as_str());
    assert!(newest.max().flatten() >= walk["id"].as_str());
    let began = |walk: &Value| walk["started_at"].as_str().unwrap().to_owned();
    assert!(
        walks.is_sorted_by(|one, next| began(one) >= began(next)),
        "{walks:?}"
    );
}

#[tokio::test]
async fn an_age_is_never_less_than_the_truth_when_the_date_is_set_back() {
    let mut world = World::new().await;
    let account = world.link_admin().await;
    world.provider_answers(500).await;
    world.clock.advance(Duration::from_secs(100));
    for back in [Duration::from_secs(60), Duration::from_secs(3600), DAY] {
        world.clock.set_date_back(back);
        let reply = world.read(&account, "/iam/users").await;
        assert!(age(&reply) >= 100, "{}", age(&reply));
    }
    world.clock.advance(Duration::from_secs(50));
    let reply = world.read(&account, "/iam/users").await;
    assert!((150..250).contains(&age(&reply)), "{}", age(&reply));
    let summary = world.read(&account, "/iam").await.expect(200);
    assert!(
        summary["data"]["age_seconds"].as_u64().unwrap() >= 150,
        "{summary}"
    );

    // A process that starts then cannot know how old it is: old enough to be renewed.
    world.restart_with_date_back(DAY).await;
    let reply = world.read(&account, "/iam/users").await;
    assert!(age(&reply) >= 300, "{}", age(&reply));
    world.no_faults().await;
    assert_eq!(world.walk(&account).await["state"], "sealed");
    let reply = world.read(&account, "/iam/users").await;
    assert!(age(&reply) < 60, "{}", age(&reply));
    assert_eq!(stale(&reply), None);
}
