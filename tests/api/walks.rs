//! `/accounts/{id}/walks`: walk now, hold what is unlikely, and let a person decide.

use std::{collections::BTreeSet, time::Duration};

use futures_util::future::join;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::world::{Plan, World};

/// Somebody who is behind no token, and of whom there are enough for a mass.
async fn plain_people(world: &World) -> Vec<String> {
    world
        .somebody(|user| user["admin"] == false && user["groupAdmin"] == false)
        .await
        .split_off(6)
}

async fn remove(world: &World, ids: &[String]) {
    let ops: Value = ids
        .iter()
        .map(|id| json!({"op": "remove_user", "id": id.parse::<u64>().unwrap()}))
        .collect();
    world.mutate(&ops).await;
}

async fn update(world: &World, id: &str, fields: Value) {
    let mut op = fields;
    op["op"] = json!("update_user");
    op["id"] = json!(id.parse::<u64>().unwrap());
    world.mutate(&json!([op])).await;
}

async fn served_ids(world: &World, account: &str) -> BTreeSet<String> {
    let users = world.all(account, "users", "&fields=remote_id").await;
    users
        .iter()
        .map(|user| user["remote_id"].as_str().unwrap().to_owned())
        .collect()
}

async fn user(world: &World, account: &str, id: &str) -> Value {
    let reply = world.read(account, &format!("/iam/users/{id}")).await;
    reply.expect(200)["data"].clone()
}

async fn staleness(world: &World, account: &str) -> Option<String> {
    let reply = world.read(account, "/iam/users?page_size=1").await;
    reply.expect(200);
    reply.header("x-directory-stale").map(str::to_owned)
}

fn path(account: &str, walk: &Value, rest: &str) -> String {
    format!(
        "/accounts/{account}/walks/{}{rest}",
        walk["id"].as_str().unwrap()
    )
}

async fn suspects(world: &World, account: &str, walk: &Value) -> Vec<Value> {
    let page = world
        .get(&path(account, walk, "/suspects?page_size=100"))
        .await
        .expect(200);
    assert_eq!(page["next"], Value::Null);
    page["data"].as_array().unwrap().clone()
}

#[tokio::test]
async fn a_walk_tells_what_came_of_it() {
    let world = World::new().await;
    let account = world.link_admin().await;
    let seq = world.provider_calls().await;
    let walk = world.walk(&account).await;

    let mut keys: Vec<_> = walk.as_object().unwrap().keys().collect();
    keys.sort_unstable();
    assert_eq!(
        keys,
        [
            "counts",
            "directory_version",
            "ended_at",
            "id",
            "quarantined",
            "reason",
            "started_at",
            "state",
            "upstream_calls"
        ]
    );
    assert_eq!(walk["state"], "sealed");
    assert_eq!(walk["reason"], Value::Null);
    let version = walk["directory_version"].as_str().unwrap();
    let moment = |field: &str| walk[field].as_str().unwrap().parse::<Timestamp>().unwrap();
    assert!(moment("started_at") <= moment("ended_at"));
    for list in ["users", "groups", "roles"] {
        let page = world.read(&account, &format!("/iam/{list}")).await;
        assert_eq!(page.header("x-directory-version"), Some(version));
        assert_eq!(page.expect(200)["total"], walk["counts"][list]);
    }
    let log = world.provider_log(seq).await;
    assert!(log.iter().all(|call| call["token"] == "system_admin"));
    assert_eq!(walk["upstream_calls"], log.len());

    // It was never held, so there is nobody for whose sake.
    let suspects = world.get(&path(&account, &walk, "/suspects")).await;
    suspects.refused(409, "walk_not_held");

    // And the same later, by itself and in the list.
    let got = world.get(&path(&account, &walk, "")).await.expect(200);
    assert_eq!(got, walk);
    let list = world.get(&format!("/accounts/{account}/walks")).await;
    assert_eq!(list.expect(200)["data"][0], walk);
}

#[tokio::test]
async fn a_first_walk_asks_nothing_twice_and_only_what_it_must() {
    let world = World::with(Plan {
        users: 250,
        groups: 20,
        ..Plan::default()
    })
    .await;
    world.switches(&json!({"plan_pages": "dense"})).await;
    let account = world.link_admin().await;
    let walks = world.get(&format!("/accounts/{account}/walks")).await;
    let calls = walks.expect(200)["data"][0]["upstream_calls"]
        .as_u64()
        .unwrap();
    // Who the token is, its plan, three pages of users, one of groups, and each group.
    assert_eq!(calls, 1 + 1 + 3 + 1 + 20);
    let log = world.provider_log(0).await;
    let walked = &log[log.len() - usize::try_from(calls).unwrap()..];
    let asked: BTreeSet<_> = walked
        .iter()
        .map(|call| format!("{}?{}", call["path"], call["query"]))
        .collect();
    assert_eq!(asked.len(), walked.len());
}

#[tokio::test]
async fn retries_and_look_ups_count_as_calls() {
    let world = World::new().await;
    let account = world.link_admin().await;
    let gone = plain_people(&world).await[..2].to_vec();
    remove(&world, &gone).await;
    let fault = json!({"kind": "status", "status": 503, "error_code": 4002});
    let groups = json!({"path_prefix": "/groups"});
    world
        .faults(&json!([{"match": groups, "times": 1, "fault": fault}]))
        .await;
    let seq = world.provider_calls().await;
    let walk = world.walk(&account).await;
    assert_eq!(walk["state"], "sealed");
    let log = world.provider_log(seq).await;
    assert_eq!(walk["upstream_calls"], log.len());
    assert!(log.iter().any(|call| call["status"] == 503));
    for id in gone {
        let is_look_up = |call: &&Value| call["path"].as_str().unwrap().ends_with(&id);
        assert_eq!(log.iter().filter(is_look_up).count(), 1, "{id}");
    }
}

#[tokio::test]
async fn a_walk_that_is_not_waited_for_is_202_and_can_be_followed() {
    let world = World::new().await;
    let account = world.link_admin().await;
    world.provider_takes(Duration::from_millis(100)).await;
    let walks = format!("/accounts/{account}/walks");
    for path in [walks.clone(), format!("{walks}?wait=0&full=false")] {
        let walk = world.post(&path).await.expect(202);
        assert_eq!(walk["state"], "running");
        for unknown in ["reason", "directory_version", "counts", "ended_at"] {
            assert_eq!(walk[unknown], Value::Null, "{unknown}");
        }
        let followed = world.get(&self::path(&account, &walk, "")).await;
        assert_eq!(followed.expect(200)["id"], walk["id"]);
        world.no_faults().await;
        world.walk(&account).await;
        let followed = world.get(&self::path(&account, &walk, "")).await;
        assert_eq!(followed.expect(200)["state"], "sealed");
    }
}

#[tokio::test]
async fn the_body_and_its_type_are_ignored_and_the_parameters_are_not() {
    let world = World::new().await;
    let account = world.link_admin().await;
    let bearer = format!("Bearer {}", world.key);
    let walks = format!("{}/accounts/{account}/walks", world.base);
    for (media_type, body) in [
        ("application/json", "{\"wait\": 0"),
        ("application/json", "{\"unknown\": true}"),
        ("text/plain", "hello"),
        ("application/x-www-form-urlencoded", "wait=61"),
    ] {
        let request = world
            .client
            .post(format!("{walks}?wait=60"))
            .header("authorization", &bearer)
            .header("content-type", media_type)
            .body(body);
        crate::world::reply(request).await.expect(200);
    }
    for (query, named) in [
        ("wait=61", "0 to 60"),
        ("wait=-1", "0 to 60"),
        ("wait=soon", "0 to 60"),
        ("full=yes", "full"),
        ("full=1", "full"),
        ("force=true", "force"),
        ("wait=1&wait=1", "wait"),
    ] {
        let reply = world
            .post(&format!("/accounts/{account}/walks?{query}"))
            .await;
        let body = reply.refused(400, "invalid_parameter");
        assert!(body["message"].as_str().unwrap().contains(named), "{body}");
    }
}

#[tokio::test]
async fn whoever_asks_while_a_walk_is_calling_gets_the_next_one_and_all_of_them_the_same() {
    let world = World::new().await;
    let account = world.link_admin().await;
    world.provider_takes(Duration::from_millis(30)).await;
    let seq = world.provider_calls().await;
    let first = world
        .post(&format!("/accounts/{account}/walks"))
        .await
        .expect(202);
    world.provider_is_called_after(seq).await;
    // What happens now is told by the walk that is asked for now.
    let email = "new.one@example.org";
    let added = world
        .mutate(&json!([{"op": "add_user", "email": email}]))
        .await;
    let (second, third) = join(world.walk(&account), world.walk(&account)).await;
    assert_eq!(second, third);
    assert_ne!(second["id"], first["id"]);
    let id = added[0]["id"].to_string();
    assert!(served_ids(&world, &account).await.contains(&id));
    let list = world
        .get(&format!("/accounts/{account}/walks"))
        .await
        .expect(200);
    let in_order: Vec<_> = list["data"].as_array().unwrap()[..2]
        .iter()
        .map(|walk| &walk["id"])
        .collect();
    assert_eq!(in_order, [&second["id"], &first["id"]]);
}

#[tokio::test]
async fn walks_are_listed_newest_first_in_pages() {
    let world = World::new().await;
    let account = world.link_admin().await;
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.insert(0, world.walk(&account).await["id"].clone());
    }
    let mut listed = Vec::new();
    let mut query = "page_size=2".to_owned();
    loop {
        let page = world
            .get(&format!("/accounts/{account}/walks?{query}"))
            .await
            .expect(200);
        let data = page["data"].as_array().unwrap();
        assert!(!data.is_empty() && data.len() <= 2);
        listed.extend(data.iter().map(|walk| walk["id"].clone()));
        match page["next"].as_str() {
            Some(next) => query = format!("page_size=2&next={next}"),
            None => break,
        }
    }
    // And the one of linking, the oldest.
    assert_eq!(listed.len(), 5);
    assert_eq!(listed[..4], ids);
    for absent in ["x", "0198c3f0-0000-7000-8000-000000000000"] {
        let reply = world
            .get(&format!("/accounts/{account}/walks/{absent}"))
            .await;
        reply.refused(404, "walk_not_found");
    }
}

#[tokio::test]
async fn a_full_walk_reads_every_group_again() {
    let world = World::with(Plan {
        groups: 40,
        // A fifth of a second's budget pays for ten groups; 25 are read in any case.
        settings: vec![("provider.rate_limit", "3000"), ("walk.fresh_seconds", "1")],
        ..Plan::default()
    })
    .await;
    let account = world.link_admin().await;
    for (query, wanted) in [("&full=false", 25), ("&full=true", 40), ("", 25)] {
        let seq = world.provider_calls().await;
        let walk = world.walk_with(&account, query).await;
        assert_eq!(walk["state"], "sealed");
        let log = world.provider_log(seq).await;
        let is_group = |call: &&Value| call["path"].as_str().unwrap().contains("/groups/");
        assert_eq!(log.iter().filter(is_group).count(), wanted, "{query}");
    }
}

#[tokio::test]
async fn a_few_leavers_are_out_after_the_very_next_walk_by_proof() {
    let world = World::new().await;
    let account = world.link_admin().await;
    let gone = plain_people(&world).await[..3].to_vec();
    let before = served_ids(&world, &account).await;
    remove(&world, &gone).await;
    let seq = world.provider_calls().await;
    let walk = world.walk(&account).await;
    assert_eq!(walk["state"], "sealed");
    let log = world.provider_log(seq).await;
    for id in &gone {
        let proof = log.iter().any(|call| {
            call["path"].as_str().unwrap().ends_with(id)
                && call["status"] == 404
                && call["error_code"] == 1020
        });
        assert!(proof, "{id}");
    }
    let after = served_ids(&world, &account).await;
    let left: BTreeSet<_> = before.difference(&after).cloned().collect();
    assert_eq!(left, gone.into_iter().collect());
}

#[tokio::test]
async fn a_leaver_without_proof_is_kept_and_suspected() {
    let world = World::new().await;
    let account = world.link_admin().await;
    let gone = plain_people(&world).await[..1].to_vec();
    remove(&world, &gone).await;
    // A 404 of somebody else's making proves nothing.
    let page = json!({
        "kind": "body", "status": 404, "content_type": "text/html", "body": "<h1>Not found</h1>",
    });
    let look_up = json!({"path_prefix": format!("/users/{}", gone[0])});
    world
        .faults(&json!([{"match": look_up, "fault": page}]))
        .await;
    for _ in 0..4 {
        assert_eq!(world.walk(&account).await["state"], "sealed");
        let kept = user(&world, &account, &gone[0]).await;
        assert_eq!(kept["suspected"], true);
    }
    world.no_faults().await;
    world.walk(&account).await;
    assert!(!served_ids(&world, &account).await.contains(&gone[0]));
}

#[tokio::test]
async fn who_is_new_appears_with_the_next_walk_and_what_changes_moves_updated_at_alone() {
    let world = World::new().await;
    let account = world.link_admin().await;
    let people = plain_people(&world).await;
    let (changed, same) = (&people[0], &people[1]);
    let before = (
        user(&world, &account, changed).await,
        user(&world, &account, same).await,
    );
    world.clock.advance(Duration::from_secs(60));
    update(&world, changed, json!({"firstName": "Renamed"})).await;
    let group = world.truth().await["groups"][0]["id"].clone();
    let added = world
        .mutate(&json!([{"op": "add_user", "email": "new.one@example.org"}]))
        .await;
    let new = added[0]["id"].clone();
    world
        .mutate(&json!([{"op": "add_member", "group_id": group, "user_id": new}]))
        .await;
    let asked_at = world.clock.now();
    world.walk(&account).await;

    let now = user(&world, &account, changed).await;
    assert_eq!(now["first_name"], "Renamed");
    assert_eq!(now["first_seen_at"], before.0["first_seen_at"]);
    let updated_at: Timestamp = now["updated_at"].as_str().unwrap().parse().unwrap();
    assert!(updated_at >= asked_at);
    assert_eq!(user(&world, &account, same).await, before.1);

    let new = user(&world, &account, &new.to_string()).await;
    assert_eq!(new["primary_email_address"], "new.one@example.org");
    assert_eq!(new["first_seen_at"], new["updated_at"]);
    let joined = new["groups"].as_array().unwrap();
    assert_eq!(joined[0]["remote_id"], group.to_string());
}

#[tokio::test]
async fn a_mass_disappearance_is_held_before_anybody_is_looked_up() {
    let world = World::new().await;
    let account = world.link_admin().await;
    let gone = plain_people(&world).await[..10].to_vec();
    let before = world.read(&account, "/iam/users?page_size=100").await;
    let names = world.all(&account, "users", "&fields=remote_id,name").await;
    remove(&world, &gone).await;
    world
        .mutate(&json!([{"op": "add_user", "email": "new.one@example.org"}]))
        .await;
    let seq = world.provider_calls().await;
    let walk = world.walk(&account).await;
    assert_eq!(walk["state"], "held");
    assert_eq!(walk["reason"], "mass_disappearance");
    assert_eq!(
        walk["directory_version"].as_str(),
        before.header("x-directory-version")
    );
    assert_eq!(walk["counts"]["users"], before.json()["total"]);
    let log = world.provider_log(seq).await;
    for id in &gone {
        let is_look_up = |call: &Value| call["path"].as_str().unwrap().ends_with(id);
        assert!(!log.iter().any(is_look_up), "{id} was looked up");
    }

    let held = world.read(&account, "/iam/users?page_size=100").await;
    assert_eq!(held.header("x-directory-stale"), Some("walk_held"));
    assert_eq!(held.header("etag"), before.header("etag"));
    assert_eq!(held.expect(200), before.expect(200));

    let suspects = suspects(&world, &account, &walk).await;
    let missing: BTreeSet<_> = suspects
        .iter()
        .filter(|suspect| suspect["why"] == "missing")
        .map(|suspect| {
            let remote_id = suspect["remote_id"].as_str().unwrap();
            assert_eq!(suspect["kind"], "user");
            assert_eq!(suspect["id"], format!("usr_{remote_id}"));
            let known = names.iter().find(|user| user["remote_id"] == remote_id);
            assert_eq!(suspect["name"], known.unwrap()["name"]);
            remote_id.to_owned()
        })
        .collect();
    assert_eq!(missing, gone.into_iter().collect());
}

#[tokio::test]
async fn suspects_are_given_in_pages() {
    let world = World::new().await;
    let account = world.link_admin().await;
    remove(&world, &plain_people(&world).await[..10]).await;
    let walk = world.walk(&account).await;
    let all = suspects(&world, &account, &walk).await;
    let mut paged = Vec::new();
    let mut query = "page_size=4".to_owned();
    loop {
        let page = world
            .get(&path(&account, &walk, &format!("/suspects?{query}")))
            .await
            .expect(200);
        paged.extend(page["data"].as_array().unwrap().iter().cloned());
        match page["next"].as_str() {
            Some(next) => query = format!("page_size=4&next={next}"),
            None => break,
        }
    }
    assert_eq!(paged, all);
}

/// Who decided is in the audit log.
async fn told_once(world: &World, action: &str, account: &str, walk: &Value) {
    let audit = format!("/audit?action={action}&subject_id={account}");
    let entries = world.get(&audit).await.expect(200);
    let [entry] = entries["data"].as_array().unwrap().as_slice() else {
        panic!("{entries}");
    };
    assert_eq!(entry["actor"]["kind"], "api_key");
    assert_eq!(entry["detail"], json!({"walk": walk["id"]}));
}

#[tokio::test]
async fn a_held_walk_that_is_released_is_the_directory_in_force() {
    let mut world = World::new().await;
    let account = world.link_admin().await;
    let gone = plain_people(&world).await[..10].to_vec();
    let before = served_ids(&world, &account).await;
    remove(&world, &gone).await;
    let held = world.walk(&account).await;
    // A decision may wait for longer than the process lives.
    world.restart().await;
    assert_eq!(staleness(&world, &account).await.unwrap(), "walk_held");
    let seq = world.provider_calls().await;
    let released = world
        .post(&path(&account, &held, "/release"))
        .await
        .expect(200);
    assert_eq!(released["id"], held["id"]);
    assert_eq!(released["state"], "sealed");
    assert_eq!(released["reason"], Value::Null);
    assert_ne!(released["directory_version"], held["directory_version"]);
    assert_eq!(world.provider_calls().await, seq);

    let after = served_ids(&world, &account).await;
    let left: BTreeSet<_> = before.difference(&after).cloned().collect();
    assert_eq!(left, gone.into_iter().collect());
    assert_eq!(released["counts"]["users"], after.len());
    assert_eq!(staleness(&world, &account).await, None);
    // The next walk finds it true.
    let next = world.walk(&account).await;
    assert_eq!(next["directory_version"], released["directory_version"]);
    told_once(&world, "walk.released", &account, &held).await;
    for decision in ["/release", "/discard"] {
        let reply = world.post(&path(&account, &released, decision)).await;
        reply.refused(409, "walk_not_held");
    }
    // For whose sake it was held can be looked up later, too.
    assert_eq!(suspects(&world, &account, &released).await.len(), 10);
}

#[tokio::test]
async fn a_held_walk_that_is_discarded_changes_nothing() {
    let world = World::new().await;
    let account = world.link_admin().await;
    let before = served_ids(&world, &account).await;
    remove(&world, &plain_people(&world).await[..10]).await;
    let held = world.walk(&account).await;
    let discarded = world
        .post(&path(&account, &held, "/discard"))
        .await
        .expect(200);
    assert_eq!(discarded["state"], "failed");
    assert_eq!(discarded["reason"], "discarded");
    assert_eq!(served_ids(&world, &account).await, before);
    assert!(staleness(&world, &account).await.is_some());
    told_once(&world, "walk.discarded", &account, &held).await;
    for decision in ["/release", "/discard"] {
        let reply = world.post(&path(&account, &discarded, decision)).await;
        reply.refused(409, "walk_not_held");
    }
}

#[tokio::test]
async fn a_held_walk_that_a_later_one_has_overtaken_cannot_be_decided_any_more() {
    let world = World::new().await;
    let account = world.link_admin().await;
    let before = served_ids(&world, &account).await;
    // A list that stops early, with totals to match.
    let fault = json!({"kind": "cap_rows", "rows": 20});
    let users = json!({"path_prefix": "/users"});
    world
        .faults(&json!([{"match": users, "fault": fault}]))
        .await;
    let held = world.walk(&account).await;
    assert_eq!(held["state"], "held");
    world.no_faults().await;
    assert_eq!(world.walk(&account).await["state"], "sealed");
    assert_eq!(served_ids(&world, &account).await, before);
    assert_eq!(staleness(&world, &account).await, None);
    for decision in ["/release", "/discard"] {
        let reply = world.post(&path(&account, &held, decision)).await;
        reply.refused(409, "walk_superseded");
    }
    assert_eq!(suspects(&world, &account, &held).await.len(), 20);
}

#[tokio::test]
async fn the_third_walk_in_a_row_that_misses_the_same_people_seals_by_proof() {
    let world = World::new().await;
    let account = world.link_admin().await;
    let gone = plain_people(&world).await[..10].to_vec();
    let before = served_ids(&world, &account).await;
    remove(&world, &gone).await;
    for _ in 0..2 {
        assert_eq!(world.walk(&account).await["state"], "held");
        assert_eq!(served_ids(&world, &account).await, before);
    }
    let seq = world.provider_calls().await;
    assert_eq!(world.walk(&account).await["state"], "sealed");
    let log = world.provider_log(seq).await;
    for id in &gone {
        let is_proof = |call: &Value| {
            call["path"].as_str().unwrap().ends_with(id) && call["error_code"] == 1020
        };
        assert!(log.iter().any(is_proof), "{id}");
    }
    let after = served_ids(&world, &account).await;
    let left: BTreeSet<_> = before.difference(&after).cloned().collect();
    assert_eq!(left, gone.into_iter().collect());
    assert_eq!(staleness(&world, &account).await, None);
}

#[tokio::test]
async fn walks_that_are_asked_for_one_after_the_other_settle_no_hold() {
    let world = World::with(Plan {
        settings: vec![("walk.held_confirmed_after_seconds", "3600")],
        ..Plan::default()
    })
    .await;
    let account = world.link_admin().await;
    let gone = plain_people(&world).await[..10].to_vec();
    let before = served_ids(&world, &account).await;
    remove(&world, &gone).await;
    let first = world.walk(&account).await;
    for seconds in [5, 10, 1800, 1700] {
        assert_eq!(world.walk(&account).await["state"], "held");
        world.clock.advance(Duration::from_secs(seconds));
    }
    let held = world.walk_with(&account, "&full=true").await;
    assert_eq!(held["state"], "held");
    assert_eq!(served_ids(&world, &account).await, before);
    let named = &world.read(&account, "/iam").await.expect(200)["data"]["held_walk"];
    assert_eq!(named["id"], held["id"]);
    assert_eq!(named["since"], first["ended_at"]);

    world.clock.advance(Duration::from_secs(85));
    assert_eq!(world.walk(&account).await["state"], "sealed");
    let after = served_ids(&world, &account).await;
    let left: BTreeSet<_> = before.difference(&after).cloned().collect();
    assert_eq!(left, gone.into_iter().collect());
}

#[tokio::test]
async fn a_hold_is_confirmed_after_an_hour_unless_the_operator_says_otherwise() {
    let default = rolecall::config::Config::with(&[]).unwrap();
    assert_eq!(default.walk.held_confirmed_after_seconds, 3600);
    let key = "walk.held_confirmed_after_seconds";
    assert!(rolecall::config::Config::with(&[(key, "604801")]).is_err());
    assert!(rolecall::config::Config::with(&[(key, "0")]).is_ok());
}

/// The held walk that the summary and the account name, wherever the account is shown.
async fn held_walk(world: &World, account: &str) -> Value {
    let summary = world.read(account, "/iam").await.expect(200);
    let shown = world.get(&format!("/accounts/{account}")).await.expect(200);
    let listed = world.get("/accounts").await.expect(200);
    let held = summary["data"]["held_walk"].clone();
    assert_eq!(shown["held_walk"], held);
    assert_eq!(listed[0]["held_walk"], held);
    held
}

#[tokio::test]
async fn the_held_walk_is_named_until_it_is_decided_or_one_is_sealed() {
    let mut world = World::new().await;
    let account = world.link_admin().await;
    assert_eq!(held_walk(&world, &account).await, Value::Null);
    let etag = world.read(&account, "/iam").await;
    let etag = etag.header("etag").unwrap().to_owned();
    let gone = plain_people(&world).await[..10].to_vec();
    remove(&world, &gone).await;
    let first = world.walk(&account).await;
    let named = json!({"id": first["id"], "suspects": 10, "since": first["ended_at"]});
    let summary = world
        .read_with(&account, "/iam", &[("if-none-match", &etag)])
        .await;
    assert_eq!(summary.expect(200)["data"]["held_walk"], named);
    assert_eq!(held_walk(&world, &account).await, named);

    // The next one takes its name and goes on with its time.
    world.clock.advance(Duration::from_secs(60));
    let second = world.walk(&account).await;
    let named = json!({"id": second["id"], "suspects": 10, "since": first["ended_at"]});
    assert_eq!(held_walk(&world, &account).await, named);
    world.provider_answers(500).await;
    assert_eq!(world.walk(&account).await["state"], "failed");
    world.no_faults().await;
    assert_eq!(held_walk(&world, &account).await, named);
    world.restart().await;
    assert_eq!(held_walk(&world, &account).await, named);

    // Of two, the last counts.
    world
        .post(&path(&account, &first, "/discard"))
        .await
        .expect(200);
    assert_eq!(held_walk(&world, &account).await, named);
    world
        .post(&path(&account, &second, "/discard"))
        .await
        .expect(200);
    assert_eq!(held_walk(&world, &account).await, Value::Null);

    assert_eq!(world.walk(&account).await["state"], "sealed");
    assert_eq!(held_walk(&world, &account).await, Value::Null);
}

#[tokio::test]
async fn a_walk_that_is_released_is_held_no_more() {
    let world = World::new().await;
    let account = world.link_admin().await;
    let gone = plain_people(&world).await[..10].to_vec();
    remove(&world, &gone).await;
    let first = world.walk(&account).await;
    world.walk(&account).await;
    // Also where that was not the last.
    world
        .post(&path(&account, &first, "/release"))
        .await
        .expect(200);
    assert_eq!(held_walk(&world, &account).await, Value::Null);
}

#[tokio::test]
async fn another_hold_has_another_beginning() {
    let world = World::new().await;
    let account = world.link_admin().await;
    let people = plain_people(&world).await;
    let users = json!({"path_prefix": "/users"});
    // A list that stops early, with totals to match.
    let fault = json!({"kind": "cap_rows", "rows": 20});
    world
        .faults(&json!([{"match": users, "fault": fault}]))
        .await;
    let first = world.walk(&account).await;
    assert_eq!(first["state"], "held");
    world.no_faults().await;
    assert_eq!(world.walk(&account).await["state"], "sealed");
    for id in &people[..10] {
        update(&world, id, json!({"status": "DEACTIVATED"})).await;
    }
    world.clock.advance(Duration::from_secs(60));
    let second = world.walk(&account).await;
    assert_eq!(second["state"], "held");
    let named = held_walk(&world, &account).await;
    assert_eq!(named["since"], second["ended_at"]);

    // What it is held for is not the same either.
    world
        .mutate(&json!([{"op": "demote_token", "token": "system_admin"}]))
        .await;
    world.clock.advance(Duration::from_secs(60));
    let third = world.walk(&account).await;
    assert_eq!(third["reason"], "degraded");
    let named = held_walk(&world, &account).await;
    assert_eq!(named["since"], third["ended_at"]);
    let before = world.walk(&account).await;
    let named = held_walk(&world, &account).await;
    assert_eq!(named["id"], before["id"]);
    assert_eq!(named["since"], third["ended_at"]);
}

#[tokio::test]
async fn too_many_disabled_at_once_are_held_too() {
    let world = World::new().await;
    let account = world.link_admin().await;
    let active = world
        .somebody(|user| {
            user["status"] == "ACTIVE" && user["admin"] == false && user["groupAdmin"] == false
        })
        .await;
    for id in &active[..8] {
        update(&world, id, json!({"status": "DEACTIVATED"})).await;
    }
    let held = world.walk(&account).await;
    assert_eq!(held["reason"], "mass_disappearance");
    let suspects = suspects(&world, &account, &held).await;
    assert_eq!(suspects.len(), 8);
    assert!(suspects.iter().all(|suspect| suspect["why"] == "disabled"));
    let kept = user(&world, &account, &active[0]).await;
    assert_eq!(kept["status"]["value"], "enabled");
}

#[tokio::test]
async fn a_token_that_lost_admin_holds_the_walk_until_a_person_accepts_the_nulls() {
    let world = World::new().await;
    let account = world.link_admin().await;
    let before = world.read(&account, "/iam/users?page_size=100").await;
    world
        .mutate(&json!([{"op": "demote_token", "token": "system_admin"}]))
        .await;
    let held = world.walk(&account).await;
    assert_eq!(held["state"], "held");
    assert_eq!(held["reason"], "degraded");
    let stale = world.read(&account, "/iam/users?page_size=100").await;
    assert_eq!(stale.header("x-directory-stale"), Some("degraded"));
    assert_eq!(stale.expect(200), before.expect(200));
    let suspects = suspects(&world, &account, &held).await;
    let whys: BTreeSet<_> = suspects
        .iter()
        .map(|suspect| suspect["why"].as_str().unwrap())
        .collect();
    assert!(whys.contains("degraded"), "{whys:?}");

    world
        .post(&path(&account, &held, "/release"))
        .await
        .expect(200);
    assert_eq!(staleness(&world, &account).await, None);
    for user in world.all(&account, "users", "").await {
        for hidden in ["status", "roles", "seat", "last_login_at"] {
            assert_eq!(user[hidden], Value::Null, "{user}");
            let warns = |warning: &Value| warning["field"] == hidden;
            assert!(user["warnings"].as_array().unwrap().iter().any(warns));
        }
    }
    assert_eq!(world.walk(&account).await["state"], "sealed");
    let me = world.read(&account, "/iam/me").await.expect(200);
    assert_eq!(me["data"]["is_admin"], false);
}

#[tokio::test]
async fn a_dead_credential_is_told_everywhere_and_reads_go_on() {
    for op in ["revoke_token", "expire_token"] {
        let world = World::new().await;
        let account = world.link_admin().await;
        let before = world.read(&account, "/iam/users").await;
        world
            .mutate(&json!([{"op": op, "token": "system_admin"}]))
            .await;
        let walk = world.walk(&account).await;
        assert_eq!(walk["state"], "failed");
        assert_eq!(walk["reason"], "credential_refused");
        assert_eq!(
            walk["directory_version"].as_str(),
            before.header("x-directory-version")
        );

        let shown = world.get(&format!("/accounts/{account}")).await.expect(200);
        assert_eq!(shown["status"], "error");
        let reason = &shown["status_reasons"][0];
        assert_eq!(shown["credential"]["state"], "reauth_required");
        assert_eq!(shown["credential"]["since"], reason["timestamp"]);
        let listed = world.get("/accounts").await.expect(200);
        assert_eq!(listed[0]["credential"], shown["credential"]);
        assert_eq!(reason["code"], "reauth_required");
        assert!(!reason["description"].as_str().unwrap().is_empty());
        reason["timestamp"]
            .as_str()
            .unwrap()
            .parse::<Timestamp>()
            .unwrap();

        for headers in [&[][..], &[("cache-control", "no-cache")]] {
            let reply = world.read_with(&account, "/iam/users", headers).await;
            assert_eq!(reply.header("x-directory-stale"), Some("reauth_required"));
            assert_eq!(reply.expect(200), before.expect(200));
        }
        let reply = world.post(&format!("/accounts/{account}/walks")).await;
        let body = reply.refused(412, "account_inactive");
        assert_eq!(body["provider_errors"][0]["status"], 401);
    }
}

#[tokio::test]
async fn a_dead_account_is_served_for_a_week_and_then_no_more() {
    let world = World::new().await;
    let account = world.link_admin().await;
    world
        .mutate(&json!([{"op": "revoke_token", "token": "system_admin"}]))
        .await;
    world.walk(&account).await;
    world.clock.advance(Duration::from_secs(7 * 86_400 - 600));
    assert_eq!(
        staleness(&world, &account).await.unwrap(),
        "reauth_required"
    );
    world.clock.advance(Duration::from_secs(1200));
    let reply = world.read(&account, "/iam/users").await;
    reply.refused(412, "account_inactive");
}

#[tokio::test]
async fn an_account_whose_token_answers_again_is_active_again() {
    let world = World::new().await;
    let account = world.link_admin().await;
    let refused = json!({"kind": "status", "status": 401, "error_code": 1002});
    world
        .faults(&json!([{"match": {}, "fault": refused}]))
        .await;
    assert_eq!(world.walk(&account).await["reason"], "credential_refused");
    let walks = format!("/accounts/{account}/walks?wait=60");
    world.post(&walks).await.refused(412, "account_inactive");
    let credential = async || {
        let shown = world.get(&format!("/accounts/{account}")).await.expect(200);
        let moment = shown["credential"]["since"].as_str().unwrap();
        let since: Timestamp = moment.parse().unwrap();
        (shown["credential"]["state"].clone(), since)
    };
    let (state, refused_at) = credential().await;
    assert_eq!(state, "reauth_required");
    world.no_faults().await;
    world.clock.advance(Duration::from_secs(60));

    assert_eq!(world.walk(&account).await["state"], "sealed");
    let (state, taken_at) = credential().await;
    assert_eq!(state, "healthy");
    assert!(taken_at > refused_at);
    let shown = world.get(&format!("/accounts/{account}")).await.expect(200);
    assert_eq!(shown["status"], "active");
    assert_eq!(shown["status_reasons"], json!([]));
    assert_eq!(staleness(&world, &account).await, None);
}

#[tokio::test]
async fn one_refusal_in_the_middle_of_a_walk_is_no_dead_credential() {
    let world = World::new().await;
    let account = world.link_admin().await;
    let refused = json!({"kind": "status", "status": 401, "error_code": 1002});
    let groups = json!({"path_prefix": "/groups"});
    world
        .faults(&json!([{"match": groups, "fault": refused}]))
        .await;
    let walk = world.walk(&account).await;
    assert_eq!(walk["state"], "failed");
    assert_ne!(walk["reason"], "credential_refused");
    let shown = world.get(&format!("/accounts/{account}")).await.expect(200);
    assert_eq!(shown["status"], "active");
    assert_eq!(staleness(&world, &account).await.unwrap(), "walk_failed");
}

#[tokio::test]
async fn accounts_are_walked_without_anybody_asking_dead_ones_too() {
    let world = World::with(Plan {
        settings: vec![("walk.every_seconds", "1")],
        ..Plan::default()
    })
    .await;
    let account = world.link_admin().await;
    let seq = world.provider_calls().await;
    world.provider_is_called_after(seq).await;
    let refused = json!({"kind": "status", "status": 401, "error_code": 1002});
    world
        .faults(&json!([{"match": {}, "fault": refused}]))
        .await;
    let becomes = async |status: &str| {
        let path = format!("/accounts/{account}");
        while world.get(&path).await.expect(200)["status"] != status {}
    };
    let hang = crate::world::HANG;
    tokio::time::timeout(hang, becomes("error")).await.unwrap();
    world.no_faults().await;
    tokio::time::timeout(hang, becomes("active")).await.unwrap();
}

#[tokio::test]
async fn a_walk_that_the_process_did_not_live_to_end_is_told_as_failed() {
    let mut world = World::new().await;
    let account = world.link_admin().await;
    let seq = world.provider_calls().await;
    world.provider_takes(Duration::from_secs(30)).await;
    let walk = world
        .post(&format!("/accounts/{account}/walks"))
        .await
        .expect(202);
    world.provider_is_called_after(seq).await;
    world.restart().await;
    world.no_faults().await;
    let ended = world.get(&path(&account, &walk, "")).await.expect(200);
    assert_eq!(ended["state"], "failed");
    assert_eq!(ended["reason"], "interrupted");
}
