//! Records that are not as they should be: what they cost, and what they do not.

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::{Value, json};

use crate::world::{Plan, World};

async fn by_id(world: &World, account: &str, list: &str, query: &str) -> BTreeMap<String, Value> {
    let records = world.all(account, list, query).await;
    let id = |record: &Value| record["remote_id"].as_str().unwrap().to_owned();
    records
        .into_iter()
        .map(|record| (id(&record), record))
        .collect()
}

async fn groups(world: &World, account: &str) -> BTreeMap<String, Value> {
    by_id(world, account, "groups", "&expand=members").await
}

/// A reply in the place of what the provider says of one group.
fn at_group(id: &str, fault: &Value) -> Value {
    json!([{"match": {"path_prefix": format!("/groups/{id}")}, "fault": fault}])
}

#[tokio::test]
async fn an_organization_that_sends_no_address_and_no_name_is_served_with_the_reasons() {
    for users in [3, 130] {
        let world = World::with(Plan {
            users,
            ..Plan::default()
        })
        .await;
        let omit =
            |field: &str| json!({"match": {}, "fault": {"kind": "omit_field", "field": field}});
        for (field, name) in [("email", "primary_email_address"), ("name", "name")] {
            world.faults(&json!([omit(field)])).await;
            let account = world.link_admin().await;
            let walk = world.walk(&account).await;
            assert_eq!(walk["state"], "sealed", "{users}, {field}: {walk}");
            let reason = json!({"field": name, "reason": "unknown"});
            let users = world.all(&account, "users", "").await;
            // Outsiders are no rows of a list.
            for user in users.iter().filter(|user| !user["status"].is_null()) {
                assert_eq!(user[name], Value::Null);
                let warnings = user["warnings"].as_array().unwrap();
                assert!(warnings.contains(&reason), "{user}");
            }
            if field == "name" {
                for group in groups(&world, &account).await.values() {
                    assert_eq!(group["name"], Value::Null);
                    assert_eq!(group["warnings"], json!([reason]));
                }
            }
            world.no_faults().await;
        }
    }
}

#[tokio::test]
async fn somebody_with_an_unreadable_field_is_followed_in_everything_else() {
    let world = World::new().await;
    let account = world.link_admin().await;
    world.walk(&account).await;
    let [id] = &world
        .somebody(|user| user["status"] == "ACTIVE" && user["admin"] == false)
        .await[..1]
    else {
        panic!("somebody is active");
    };
    let number: u64 = id.parse().unwrap();
    let deactivate = json!([{"op": "update_user", "id": number, "status": "DEACTIVATED"}]);
    world.mutate(&deactivate).await;
    let truth = world.truth().await;
    let rows = truth["users"].as_array().unwrap();
    let rows: Vec<Value> = rows
        .iter()
        .map(|row| {
            let mut row = row.clone();
            if row["id"].as_u64() == Some(number) {
                row["lastLogin"] = json!("Never");
                row["profileImage"] = json!("u!1");
            }
            row
        })
        .collect();
    let page = json!({
        "pageNumber": 1, "pageSize": 100, "totalPages": 1, "totalCount": rows.len(), "data": rows,
    });
    let fault = json!({
        "kind": "body", "status": 200, "content_type": "application/json",
        "body": page.to_string(),
    });
    let users = json!({"path_prefix": "/users", "page": 1});
    world
        .faults(&json!([{"match": users, "fault": fault}]))
        .await;
    let walk = world.walk(&account).await;
    assert_eq!(walk["state"], "sealed", "{walk}");
    let user = &by_id(&world, &account, "users", "").await[id];
    assert_eq!(user["status"]["value"], "disabled");
    assert_eq!(
        (&user["last_login_at"], &user["avatar"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(
        user["warnings"],
        json!([
            {"field": "last_login_at", "reason": "unreadable"},
            {"field": "avatar", "reason": "unreadable"},
        ])
    );
}

#[tokio::test]
async fn a_provider_that_suddenly_leaves_out_a_field_holds_the_walk() {
    let world = World::new().await;
    let account = world.link_admin().await;
    world.walk(&account).await;
    let before = by_id(&world, &account, "users", "").await;
    let fault = json!({"kind": "omit_field", "field": "email"});
    let users = json!({"path_prefix": "/users", "page": 1});
    world
        .faults(&json!([{"match": users, "fault": fault}]))
        .await;
    let held = world.walk(&account).await;
    assert_eq!(
        (&held["state"], &held["reason"]),
        (&json!("held"), &json!("degraded"))
    );
    assert_eq!(by_id(&world, &account, "users", "").await, before);
    let suspects = format!(
        "/accounts/{account}/walks/{}/suspects",
        held["id"].as_str().unwrap()
    );
    let suspects = world.get(&suspects).await.expect(200);
    let suspects = suspects["data"].as_array().unwrap();
    assert!(suspects.len() > 3 && suspects.iter().all(|one| one["why"] == "degraded"));
    world.no_faults().await;
    assert_eq!(world.walk(&account).await["state"], "sealed");
    assert_eq!(by_id(&world, &account, "users", "").await, before);
}

#[tokio::test]
async fn one_group_that_cannot_be_read_stops_no_walk_and_is_served_as_it_was() {
    let world = World::new().await;
    let account = world.link_admin().await;
    world.walk(&account).await;
    let before = groups(&world, &account).await;
    let (id, was) = before
        .iter()
        .find(|(_, group)| group["member_count"].as_u64() > Some(1))
        .unwrap();
    let body = |body: &Value| {
        json!({
            "kind": "body", "status": 200, "content_type": "application/json",
            "body": body.to_string(),
        })
    };
    let number: u64 = id.parse().unwrap();
    let odd_member = json!({"id": number, "name": "x", "members": [{"id": "?"}]});
    for (fault, reason) in [
        (
            json!({"kind": "status", "status": 403, "error_code": 1004}),
            "not_permitted",
        ),
        (
            json!({"kind": "status", "status": 404, "error_code": 1006}),
            "not_fetched",
        ),
        (
            json!({"kind": "status", "status": 500, "error_code": 4000}),
            "not_fetched",
        ),
        (
            json!({"kind": "omit_field", "field": "members"}),
            "not_fetched",
        ),
        (body(&odd_member), "not_fetched"),
        (
            body(&json!({"id": number + 1, "members": []})),
            "not_fetched",
        ),
    ] {
        let about = fault.to_string();
        world.faults(&at_group(id, &fault)).await;
        let walk = world.walk_with(&account, "&full=true").await;
        assert_eq!(walk["state"], "sealed", "{about}: {walk}");
        let now = groups(&world, &account).await;
        let group = &now[id];
        for field in ["members", "member_count"] {
            assert_eq!(group[field], was[field], "{field}: {about}");
        }
        assert!(group["members_read_at"].is_string(), "{about}");
        let warnings = json!([{"field": "members", "reason": reason}]);
        assert_eq!(group["warnings"], warnings, "{about}");

        let new = world.link_admin().await;
        let walk = world.walk(&new).await;
        assert_eq!(walk["state"], "sealed", "a first walk, {about}: {walk}");
        let group = &groups(&world, &new).await[id];
        for field in ["members", "member_count", "members_read_at"] {
            assert_eq!(group[field], Value::Null, "{field}: {about}");
        }
        assert_eq!(group["warnings"], warnings, "{about}");
        let unknown = json!({"field": "groups", "reason": "unknown"});
        for user in world.all(&new, "users", "").await {
            assert!(
                user["warnings"].as_array().unwrap().contains(&unknown),
                "{user}"
            );
        }
        world.no_faults().await;
        for account in [&account, &new] {
            world.walk_with(account, "&full=true").await;
            let now = groups(&world, account).await;
            assert_eq!(
                (&now[id]["members"], &now[id]["warnings"]),
                (&was["members"], &json!([]))
            );
        }
    }
}

#[tokio::test]
async fn many_groups_that_cannot_be_read_hold_a_later_walk_and_fail_no_first_one() {
    let world = World::with(Plan {
        groups: 12,
        ..Plan::default()
    })
    .await;
    let account = world.link_admin().await;
    world.walk(&account).await;
    let before = groups(&world, &account).await;
    let refused = json!({"kind": "status", "status": 403, "error_code": 1004});
    let every_group = json!([{"match": {"path_prefix": "/groups/"}, "fault": refused}]);
    world.faults(&every_group).await;
    let walk = world.walk_with(&account, "&full=true").await;
    assert_eq!(
        (&walk["state"], &walk["reason"]),
        (&json!("held"), &json!("degraded"))
    );
    assert_eq!(groups(&world, &account).await, before);

    let new = world.link_admin().await;
    assert_eq!(world.walk(&new).await["state"], "sealed");
    for group in groups(&world, &new).await.values() {
        assert_eq!(group["members"], Value::Null);
    }

    // A provider that has no answer at all says nothing of its groups.
    let down = json!({"kind": "status", "status": 500, "error_code": 4000});
    let every_group = json!([{"match": {"path_prefix": "/groups/"}, "fault": down}]);
    world.faults(&every_group).await;
    let new = world.try_link(&world.admin_token()).await.expect(201);
    let walk = world.walk(new["id"].as_str().unwrap()).await;
    assert_eq!(
        (&walk["state"], &walk["reason"]),
        (&json!("failed"), &json!("provider_unavailable"))
    );
}

#[tokio::test]
async fn releasing_a_walk_of_a_demoted_token_makes_no_leaver() {
    let world = World::new().await;
    let account = world.link_admin().await;
    world.walk(&account).await;
    let before = by_id(&world, &account, "users", "").await;
    let guests: Vec<_> = before
        .iter()
        .filter(|(_, user)| user["is_external"] == true && !user["status"].is_null())
        .map(|(id, _)| id.clone())
        .collect();
    assert!(!guests.is_empty());
    let demote = json!([{"op": "demote_token", "token": "system_admin"}]);
    world.mutate(&demote).await;
    let held = world.walk(&account).await;
    assert_eq!(held["reason"], "degraded");
    let release = format!(
        "/accounts/{account}/walks/{}/release",
        held["id"].as_str().unwrap()
    );
    world.post(&release).await.expect(200);
    for _ in 0..4 {
        let now = by_id(&world, &account, "users", "").await;
        let ids: Vec<_> = now.keys().collect();
        assert_eq!(ids, before.keys().collect::<Vec<_>>());
        let unlistable = json!({"field": "listed", "reason": "not_permitted"});
        for (id, user) in &now {
            assert_eq!(user["listed"], !guests.contains(id), "{user}");
            assert_eq!(user["suspected"], false, "{user}");
            let warnings = user["warnings"].as_array().unwrap();
            assert_eq!(
                warnings.contains(&unlistable),
                guests.contains(id),
                "{user}"
            );
        }
        assert_eq!(world.walk(&account).await["state"], "sealed");
    }

    // A guest who leaves now is proven gone by id.
    let gone: u64 = guests[0].parse().unwrap();
    world
        .mutate(&json!([{"op": "remove_user", "id": gone}]))
        .await;
    world
        .control(reqwest::Method::POST, "/clock", &json!({"advance_s": 1}))
        .await;
    world
        .clock
        .advance(std::time::Duration::from_secs(25 * 3600));
    world.walk(&account).await;
    assert!(
        !by_id(&world, &account, "users", "")
            .await
            .contains_key(&guests[0])
    );
}

/// A proxy that mixes up replies.
#[tokio::test]
async fn another_group_than_was_asked_for_is_no_answer() {
    let world = World::new().await;
    let account = world.link_admin().await;
    let known = groups(&world, &account).await;
    let has_members = |group: &Value| {
        group["members"]
            .as_array()
            .is_some_and(|all| !all.is_empty())
    };
    let (asked, group) = known.iter().find(|(_, group)| has_members(group)).unwrap();
    let (other, _) = known.iter().find(|(id, _)| *id != asked).unwrap();
    let base = &world.simulator.announcement().api_base;
    let bearer = format!("Bearer {}", world.admin_token());
    let headers = [("authorization", bearer.as_str())];
    let path = format!("/groups/{other}");
    let others = world
        .send_to(base, Method::GET, &path, &headers, None)
        .await;
    let fault = json!({
        "kind": "body",
        "status": 200,
        "content_type": "application/json",
        "body": others.expect(200).to_string(),
    });
    world.faults(&at_group(asked, &fault)).await;
    world.walk_with(&account, "&full=true").await;
    let after = groups(&world, &account).await;
    assert_eq!(after[asked]["members"], group["members"]);
    let warning = json!([{"field": "members", "reason": "not_fetched"}]);
    assert_eq!(after[asked]["warnings"], warning);
}
