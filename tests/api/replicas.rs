//! Two processes on one PostgreSQL database: one of them for whoever asks, whichever answers.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use reqwest::Method;
use rolecall::{crypto::ApiKeySecret, model::api_keys::Scope};
use serde_json::{Value, json};

use crate::world::{HANG, Plan, Replica, Reply, World};

/// How long a change may take to be seen by another process: a second if the database answers at once,
/// five if it takes its time, as one does that serves every test of this file.
const SOON: Duration = Duration::from_secs(5);

struct Pair {
    /// The first of the two, and all that they share.
    world: World,
    second: Replica,
}

impl Pair {
    async fn new() -> Option<Self> {
        Self::with(Plan::default()).await
    }

    async fn with(plan: Plan) -> Option<Self> {
        let world = World::shared(plan).await?;
        let second = world.another().await;
        Some(Self { world, second })
    }

    /// Asks the second.
    async fn ask(&self, method: Method, path: &str, account: &str) -> Reply {
        let bearer = format!("Bearer {}", self.world.key);
        let headers = [
            ("authorization", bearer.as_str()),
            ("x-account-id", account),
        ];
        self.world
            .send_to(&self.second.base, method, path, &headers, None)
            .await
    }

    async fn read(&self, path: &str, account: &str) -> Reply {
        self.ask(Method::GET, path, account).await
    }

    async fn walk(&self, account: &str) -> Reply {
        let path = format!("/accounts/{account}/walks?wait=60");
        self.ask(Method::POST, &path, account).await
    }

    async fn add_user(&self, email: &str) {
        let add = json!([{"op": "add_user", "email": email}]);
        self.world.mutate(&add).await;
    }

    /// An account's walks, oldest first; no two of them may have run at once.
    async fn walks(&self, account: &str) -> Vec<Value> {
        let path = format!("/accounts/{account}/walks?page_size=100");
        let page = self.world.get(&path).await.expect(200);
        let mut walks = page["data"].as_array().unwrap().clone();
        let at = |walk: &Value, field: &str| {
            let text = walk[field].as_str().unwrap();
            text.parse::<Timestamp>().unwrap()
        };
        walks.sort_by_key(|walk| at(walk, "started_at"));
        for pair in walks.windows(2) {
            let (ended_at, started_at) = (at(&pair[0], "ended_at"), at(&pair[1], "started_at"));
            assert!(ended_at <= started_at, "{pair:?}");
        }
        walks
    }
}

fn total(reply: &Reply) -> u64 {
    reply.expect(200)["total"].as_u64().unwrap()
}

#[tokio::test]
async fn each_serves_what_the_other_sealed_seconds_later() {
    let Some(pair) = Pair::new().await else {
        return;
    };
    let world = &pair.world;
    let account = world.link_admin().await;
    let path = "/iam/users?page_size=7";
    let (here, there) = (
        world.read(&account, path).await,
        pair.read(path, &account).await,
    );
    assert_eq!(here.expect(200), there.expect(200));
    assert_eq!(here.header("etag"), there.header("etag"));

    pair.add_user("newcomer@example.org").await;
    let walk = world.walk(&account).await;
    assert_eq!(walk["directory_version"], "2");
    world.clock.advance(SOON);
    let there = pair.read(path, &account).await;
    assert_eq!(there.header("x-directory-version"), Some("2"));
    assert_eq!(total(&there), total(&here) + 1);

    // And the other way round; what was found unchanged is as young on both.
    pair.add_user("another@example.org").await;
    assert_eq!(
        pair.walk(&account).await.expect(200)["directory_version"],
        "3"
    );
    world.clock.advance(Duration::from_secs(100));
    assert_eq!(total(&world.read(&account, path).await), total(&here) + 2);
    pair.walk(&account).await.expect(200);
    world.clock.advance(SOON);
    let here = world.read(&account, path).await;
    let age: u64 = here.header("age").unwrap().parse().unwrap();
    assert!(age < 60, "{age}");

    // A cursor of one is a cursor of the other.
    let next = here.expect(200)["next"].as_str().unwrap().to_owned();
    let path = format!("{path}&next={next}");
    assert_eq!(
        world.read(&account, &path).await.expect(200),
        pair.read(&path, &account).await.expect(200)
    );
}

#[tokio::test]
async fn one_walk_runs_at_a_time_and_each_is_younger_than_its_question() {
    let Some(pair) = Pair::new().await else {
        return;
    };
    let account = pair.world.link_admin().await;
    for round in 0..3 {
        let before = pair.walks(&account).await.len();
        pair.world.provider_takes(Duration::from_millis(20)).await;
        let asked_at = pair.world.clock.now();
        let (here, there) = tokio::join!(pair.world.walk(&account), pair.walk(&account));
        pair.world.no_faults().await;
        for walk in [here, there.expect(200)] {
            assert_eq!(walk["state"], "sealed", "round {round}: {walk}");
            let started_at = walk["started_at"].as_str().unwrap().parse();
            assert!(asked_at <= started_at.unwrap(), "{walk}");
        }
        assert_eq!(pair.walks(&account).await.len(), before + 2);
    }
}

#[tokio::test]
async fn a_reader_waits_for_the_first_walk_of_the_other() {
    let Some(pair) = Pair::new().await else {
        return;
    };
    let world = &pair.world;
    world.provider_takes(Duration::from_millis(50)).await;
    let account = world.link(&world.admin_token()).await;
    let calls = world.provider_calls().await;
    world.provider_is_called_after(calls).await;
    let (here, there) = tokio::join!(
        world.read(&account, "/iam/users"),
        pair.read("/iam/users", &account)
    );
    assert_eq!(total(&here), total(&there));
    assert_eq!(pair.walks(&account).await.len(), 1);
}

#[tokio::test]
async fn an_account_that_the_other_unlinks_is_walked_no_further() {
    let Some(pair) = Pair::new().await else {
        return;
    };
    let world = &pair.world;
    let account = world.link_admin().await;
    world.provider_takes(Duration::from_secs(30)).await;
    let calls = world.provider_calls().await;
    let walked = world.walk_with(&account, "");
    let unlinked = async {
        world.provider_is_called_after(calls).await;
        let path = format!("/accounts/{account}");
        pair.ask(Method::DELETE, &path, &account).await.expect(200);
    };
    // Far sooner than the provider answers.
    let both = async { tokio::join!(walked, unlinked) };
    let (walk, ()) = tokio::time::timeout(HANG / 3, both).await.unwrap();
    assert_eq!(walk["reason"], "interrupted");
    world.clock.advance(SOON);
    for reply in [
        world.read(&account, "/iam/users").await,
        pair.read("/iam/users", &account).await,
    ] {
        reply.refused(412, "account_inactive");
    }
}

#[tokio::test]
async fn a_walk_of_one_that_stops_is_over_for_the_other_at_once() {
    let Some(pair) = Pair::new().await else {
        return;
    };
    let world = &pair.world;
    let account = world.link_admin().await;
    world.provider_takes(Duration::from_secs(30)).await;
    let calls = world.provider_calls().await;
    let path = format!("/accounts/{account}/walks");
    pair.ask(Method::POST, &path, &account).await.expect(202);
    world.provider_is_called_after(calls).await;
    world.no_faults().await;
    let walks = world.get(&path).await.expect(200);
    assert_eq!(walks["data"][0]["state"], "running");
    pair.second.stop().await;
    let walk = world.walk(&account).await;
    assert_eq!(walk["state"], "sealed");
    let walks = world.get(&path).await.expect(200);
    assert_eq!(walks["data"][0]["id"], walk["id"]);
    assert_eq!(walks["data"][1]["reason"], "interrupted");
}

#[tokio::test]
async fn a_held_walk_is_decided_once_through_either() {
    let Some(pair) = Pair::with(Plan {
        users: 60,
        ..Plan::default()
    })
    .await
    else {
        return;
    };
    let world = &pair.world;
    let account = world.link_admin().await;
    let leavers = world.somebody(|user| user["status"] == "ACTIVE").await;
    let remove = |id: &String| json!({"op": "remove_user", "id": id.parse::<u64>().unwrap()});
    let removals: Vec<_> = leavers.iter().skip(1).take(20).map(remove).collect();
    world.mutate(&json!(removals)).await;
    let held = world.walk(&account).await;
    assert_eq!(held["state"], "held", "{held}");
    world.clock.advance(SOON);
    let there = pair.read("/iam/users", &account).await;
    assert_eq!(there.header("x-directory-stale"), Some("walk_held"));
    let there = pair.read("/iam", &account).await.expect(200);
    assert_eq!(there["data"]["held_walk"]["id"], held["id"]);
    assert_eq!(there["data"]["held_walk"]["suspects"], 20);

    let path = format!(
        "/accounts/{account}/walks/{}/release",
        held["id"].as_str().unwrap()
    );
    let (here, there) = tokio::join!(world.post(&path), pair.ask(Method::POST, &path, &account));
    let mut statuses = [here.status.as_u16(), there.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409], "{here:?} {there:?}");
    world.clock.advance(SOON);
    for reply in [
        world.read(&account, "/iam/users").await,
        pair.read("/iam/users", &account).await,
    ] {
        assert_eq!(reply.header("x-directory-version"), Some("2"));
        assert_eq!(reply.header("x-directory-stale"), None);
    }
    for reply in [
        world.read(&account, "/iam").await,
        pair.read("/iam", &account).await,
    ] {
        assert_eq!(reply.expect(200)["data"]["held_walk"], Value::Null);
    }
}

#[tokio::test]
async fn a_key_that_one_revokes_is_refused_by_the_other_seconds_later() {
    let Some(pair) = Pair::new().await else {
        return;
    };
    let world = &pair.world;
    let key = world.key_of("one", &[Scope::AccountsRead]).await;
    let bearer = format!("Bearer {key}");
    let ask = || {
        let headers = [("authorization", bearer.as_str())];
        let base = &pair.second.base;
        async move {
            world
                .send_to(base, Method::GET, "/accounts", &headers, None)
                .await
        }
    };
    ask().await.expect(200);
    let id = ApiKeySecret::parse(&key).unwrap().id();
    let path = format!("/api_keys/{id}");
    world.call(Method::DELETE, &path, None).await.expect(200);
    world.clock.advance(SOON);
    ask().await.refused(401, "unauthorized");
}

#[tokio::test]
async fn a_wait_that_the_provider_asks_of_one_is_kept_by_the_other() {
    let Some(pair) = Pair::with(Plan {
        settings: vec![("provider.rate_limit", "6000")],
        ..Plan::default()
    })
    .await
    else {
        return;
    };
    let world = &pair.world;
    let token = world.admin_token();
    let there = async || {
        let body = world.account_body(&token);
        let bearer = format!("Bearer {}", world.key);
        let headers = [("authorization", bearer.as_str())];
        let base = &pair.second.base;
        world
            .send_to(base, Method::POST, "/accounts", &headers, Some(&body))
            .await
    };
    world.link_admin().await;
    let throttled = json!({
        "kind": "status", "status": 429, "error_code": 4003, "retry_after": "120",
    });
    world
        .faults(&json!([{"match": {}, "times": 1, "fault": throttled}]))
        .await;
    world
        .try_link(&token)
        .await
        .refused(429, "provider_throttled");

    // The other is told of it by nobody but this one.
    let refused = async {
        while there().await.status.as_u16() != 429 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(HANG, refused).await.unwrap();
    let calls = world.provider_calls().await;
    let refusal = there().await;
    refusal.refused(429, "provider_throttled");
    let wait: u64 = refusal.header("retry-after").unwrap().parse().unwrap();
    assert!((100..=120).contains(&wait), "{wait}");
    assert_eq!(world.provider_calls().await, calls);
}

/// A revocation elsewhere is seen although each answer of the store takes longer than a request waits
/// for it.
#[tokio::test]
async fn a_revoked_key_does_not_outlive_a_slow_store() {
    let Some(world) = World::with_remote_store(Plan::default()).await else {
        return;
    };
    let other = world.another().await;
    let key = world.key_of("one", &[Scope::AccountsRead]).await;
    let bearer = format!("Bearer {key}");
    let authorization = [("authorization", bearer.as_str())];
    let ask = async || {
        world
            .send(Method::GET, "/connectors/meta", &authorization, None)
            .await
    };
    ask().await.expect(200);
    world.remote().relay.delay(Duration::from_millis(400));
    let id = key.split('_').nth(1).unwrap();
    let path = format!("/api_keys/{}", uuid::Uuid::parse_str(id).unwrap());
    let own = format!("Bearer {}", world.key);
    let revoked = world
        .send_to(
            &other.base,
            Method::DELETE,
            &path,
            &[("authorization", &own)],
            None,
        )
        .await;
    revoked.expect(200);
    let revoked_at = Instant::now();
    // Without a pause, so that a look-up is always under way.
    while ask().await.status == 200 {
        let accepted_for = revoked_at.elapsed();
        assert!(accepted_for < Duration::from_secs(10), "{accepted_for:?}");
    }
    for _ in 0..20 {
        ask().await.refused(401, "unauthorized");
    }
}
