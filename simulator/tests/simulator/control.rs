//! The control plane: changes, churn, the clock, the log, the tokens and the reset.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};
use smartsheet_simulator::Options;

use crate::house::{House, ids, reply, small, start, start_with};

async fn mutate(house: &House, op: Value) -> Value {
    house.control("mutate", json!([op])).await[0].clone()
}

#[tokio::test]
async fn every_change_of_users_shows_in_the_truth() {
    let house = start().await;
    let added = mutate(
        &house,
        json!({"op": "add_user", "email": "new@example.org", "lastName": "New", "title": "Cook"}),
    )
    .await;
    let id = added["id"].as_u64().unwrap();
    let user = house.person("new@example.org").await;
    assert_eq!(
        (&user["id"], &user["isInternal"], &user["name"]),
        (&id.into(), &true.into(), &"New".into())
    );
    for field in [
        "admin",
        "groupAdmin",
        "licensedSheetCreator",
        "resourceViewer",
    ] {
        assert!(user[field].is_boolean(), "{field}");
    }
    assert!(user["status"].is_string() && user["seatType"].is_string());
    let change = json!({"op": "update_user", "id": id, "firstName": "Very", "status": "DEACTIVATED", "admin": true, "seatType": "VIEWER", "email": "newer@example.org"});
    mutate(&house, change).await;
    let user = house.person("newer@example.org").await;
    assert_eq!(
        (&user["name"], &user["status"]),
        (&"Very New".into(), &"DEACTIVATED".into())
    );
    assert_eq!(
        (&user["admin"], &user["seatType"]),
        (&true.into(), &"VIEWER".into())
    );
    mutate(
        &house,
        json!({"op": "update_user", "id": id, "firstName": null, "last_name": ""}),
    )
    .await;
    assert!(
        house
            .person("newer@example.org")
            .await
            .get("name")
            .is_none()
    );
    mutate(&house, json!({"op": "remove_user", "id": id})).await;
    assert_eq!(house.person("newer@example.org").await, Value::Null);
}

#[tokio::test]
async fn whoever_owns_groups_can_be_removed_while_a_system_admin_is_left_to_get_them() {
    let six = Options {
        users: 6,
        ..small()
    };
    let house = start_with(six).await;
    let (ana, farah) = (
        house.id("ana.ruiz@example.org").await,
        house.id("farah.haddad@example.org").await,
    );
    let owners = async || -> BTreeSet<u64> {
        let truth = house.truth().await;
        truth["groups"]
            .as_array()
            .unwrap()
            .iter()
            .map(|group| group["ownerId"].as_u64().unwrap())
            .collect()
    };
    assert!(owners().await.contains(&farah));
    mutate(&house, json!({"op": "remove_user", "id": farah})).await;
    assert!(!owners().await.contains(&farah));
    let last = house
        .try_control("mutate", json!([{"op": "remove_user", "id": ana}]))
        .await;
    assert_eq!(
        (last.status, &last.body[0]["error"]),
        (422, &"owns groups".into())
    );
}

#[tokio::test]
async fn outsiders_are_guests_unless_it_is_said_otherwise() {
    let house = start().await;
    for (email, is_internal, told) in [
        ("a@elsewhere.example", Value::Null, false),
        ("b@elsewhere.example", true.into(), true),
        ("c@example.org", Value::Null, true),
        ("d@example.org", false.into(), false),
    ] {
        mutate(
            &house,
            json!({"op": "add_user", "email": email, "isInternal": is_internal}),
        )
        .await;
        assert_eq!(house.person(email).await["isInternal"], told, "{email}");
    }
}

#[tokio::test]
async fn every_change_of_groups_shows_in_the_truth() {
    let house = start().await;
    let id = mutate(&house, json!({"op": "add_group", "name": "Made"})).await["id"].clone();
    let user = house.id("zoe@example.org").await;
    mutate(
        &house,
        json!({"op": "add_member", "group_id": id, "user_id": user}),
    )
    .await;
    mutate(
        &house,
        json!({"op": "update_group", "id": id, "name": "Remade"}),
    )
    .await;
    let group = house.get(&format!("/groups/{id}")).await.body;
    assert_eq!(
        (&group["name"], ids(group["members"].as_array().unwrap())),
        (&"Remade".into(), vec![user])
    );
    mutate(
        &house,
        json!({"op": "remove_member", "group_id": id, "user_id": user}),
    )
    .await;
    assert_eq!(
        house.get(&format!("/groups/{id}")).await.body["members"],
        json!([])
    );
    mutate(
        &house,
        json!({"op": "add_member", "group_id": id, "user_id": user}),
    )
    .await;
    mutate(&house, json!({"op": "remove_user", "id": user})).await;
    assert_eq!(
        house.get(&format!("/groups/{id}")).await.body["members"],
        json!([]),
        "who goes leaves all groups"
    );
    mutate(&house, json!({"op": "remove_group", "id": id})).await;
    assert_eq!(
        house.get(&format!("/groups/{id}")).await.refusal(),
        (404, 1106)
    );
}

#[tokio::test]
async fn what_cannot_be_done_is_said_for_each_and_what_cannot_be_meant_refuses_all() {
    let house = start().await;
    let ops = json!([
        {"op": "remove_user", "id": 1},
        {"op": "add_group", "name": "Still"},
        {"op": "add_user", "email": "ana.ruiz@example.org"},
        {"op": "revoke_token", "token": "nobody"},
    ]);
    let some = house.try_control("mutate", ops).await;
    let done: Vec<bool> = some
        .body
        .as_array()
        .unwrap()
        .iter()
        .map(|result| result["ok"].as_bool().unwrap())
        .collect();
    assert_eq!((some.status, done), (422, vec![false, true, false, false]));
    for bad in [
        json!([{"op": "add_group", "name": "Not"}, {"op": "explode"}]),
        json!([{"op": "add_group", "name": "Not"}, {"op": "add_user", "email": "x"}]),
        json!([{"op": "add_group", "name": "Not"}, {"op": "update_user", "id": 1, "color": "red"}]),
        json!([{"op": "add_group", "name": ""}]),
        json!({"op": "add_group", "name": "Not"}),
    ] {
        assert_eq!(
            house.try_control("mutate", bad.clone()).await.status,
            400,
            "{bad}"
        );
    }
    let truth = house.truth().await.to_string();
    assert!(truth.contains("\"Still\"") && !truth.contains("\"Not\""));
}

#[tokio::test]
async fn tokens_are_demoted_expired_revoked_and_minted_by_name() {
    let house = start().await;
    let tokens = &house.is().tokens;
    let minted = mutate(
        &house,
        json!({"op": "mint_token", "login": "farah.haddad@example.org"}),
    )
    .await;
    let (name, value) = (
        minted["token"].as_str().unwrap(),
        minted["value"].as_str().unwrap(),
    );
    assert!(house.get_as(value, "/users").await.rows()[0]["status"].is_string());
    assert_eq!(house.log().await.pop().unwrap()["token"], name);
    mutate(
        &house,
        json!({"op": "demote_token", "token": "system_admin"}),
    )
    .await;
    assert!(house.get("/users").await.rows()[0].get("status").is_none());
    mutate(&house, json!({"op": "expire_token", "token": "member"})).await;
    assert_eq!(
        house.get_as(&tokens.member, "/users").await.refusal(),
        (401, 1003)
    );
    mutate(&house, json!({"op": "revoke_token", "token": name})).await;
    assert_eq!(house.get_as(value, "/users").await.refusal(), (401, 1002));
    let rows = house.ask("tokens").await;
    let live = |token: &str| {
        rows.as_array()
            .unwrap()
            .iter()
            .find(|row| row["token"] == token)
            .unwrap()["live"]
            == true
    };
    assert_eq!(
        [
            live("system_admin"),
            live("member"),
            live(name),
            live("revoked")
        ],
        [true, false, false, false]
    );
}

#[tokio::test]
async fn an_expired_oauth_token_can_still_be_refreshed() {
    let house = start().await;
    let pair = crate::oauth::grant(&house, "ana.ruiz@example.org", "READ_USERS").await;
    let token = pair["access_token"].as_str().unwrap();
    mutate(&house, json!({"op": "expire_token", "token": "oauth-1"})).await;
    assert_eq!(house.get_as(token, "/users").await.refusal(), (401, 1003));
    let row = house
        .ask("tokens")
        .await
        .as_array()
        .unwrap()
        .last()
        .unwrap()
        .clone();
    assert_eq!(
        (&row["token"], &row["live"]),
        (&"oauth-1".into(), &true.into())
    );
}

#[tokio::test]
async fn the_log_has_every_request_by_number_and_no_token_by_value() {
    let house = start().await;
    house.get("/users?page=1&pageSize=5").await;
    house.get_as("secret-value", "/users/1").await;
    house
        .fault(json!({"kind": "status", "status": 503, "error_code": 4001}))
        .await;
    house.get("/groups").await;
    let log = house.log().await;
    assert_eq!(
        log.iter()
            .map(|entry| entry["seq"].as_u64().unwrap())
            .collect::<Vec<_>>(),
        [1, 2, 3]
    );
    let told = |entry: &Value| {
        (
            entry["path"].clone(),
            entry["query"].clone(),
            entry["token"].clone(),
            entry["status"].clone(),
            entry["error_code"].clone(),
        )
    };
    assert_eq!(
        told(&log[0]),
        (
            "/2.0/users".into(),
            "page=1&pageSize=5".into(),
            "system_admin".into(),
            200.into(),
            Value::Null
        )
    );
    assert_eq!(
        told(&log[1]),
        (
            "/2.0/users/1".into(),
            "".into(),
            "unknown".into(),
            401.into(),
            1002.into()
        )
    );
    assert_eq!(
        told(&log[2]),
        (
            "/2.0/groups".into(),
            "".into(),
            "system_admin".into(),
            503.into(),
            4001.into()
        )
    );
    assert_eq!(log[0]["method"], "GET");
    assert!(log[0]["at_ms"].as_i64().unwrap() > 1_700_000_000_000);
    assert_eq!(house.ask("log?since=2").await.as_array().unwrap().len(), 1);
    assert_eq!(house.ask("log?since=3").await, json!([]));
    assert_eq!(house.ask("log?since=99").await, json!([]));
    assert!(!house.ask("log").await.to_string().contains("secret-value"));
}

#[tokio::test]
async fn the_same_churn_over_the_same_requests_makes_the_same_world() {
    let run = async |seed: u64| {
        let house = start().await;
        let before = house.truth().await;
        house
            .control("churn", json!({"per_request": 0.7, "seed": seed}))
            .await;
        for page in 1..=60 {
            house.get(&format!("/users?page={page}&pageSize=10")).await;
        }
        let after = house.truth().await;
        assert_ne!(before, after);
        after.to_string()
    };
    // Dates of changes are those of the clock: compare all else.
    let undated = |truth: String| -> Value {
        let mut truth: Value = serde_json::from_str(&truth).unwrap();
        for row in ["users", "groups"]
            .iter()
            .flat_map(|key| truth[key].as_array().unwrap().clone())
        {
            assert!(row.is_object());
        }
        for key in ["users", "groups"] {
            for row in truth[key].as_array_mut().unwrap() {
                for date in ["createdAt", "modifiedAt", "seatTypeLastChangedAt"] {
                    row.as_object_mut().unwrap().remove(date);
                }
            }
        }
        truth
    };
    let one = undated(run(1).await);
    assert_eq!(one, undated(run(1).await));
    assert_ne!(one, undated(run(2).await));
}

#[tokio::test]
async fn churn_makes_only_what_it_is_told_and_spares_people_behind_tokens_and_owners() {
    let house = start().await;
    let before = house.truth().await;
    let spared: BTreeSet<u64> = {
        let owners = before["groups"]
            .as_array()
            .unwrap()
            .iter()
            .map(|group| group["ownerId"].as_u64().unwrap());
        owners
            .chain(ids(before["users"].as_array().unwrap()).into_iter().take(5))
            .collect()
    };
    house
        .control(
            "churn",
            json!({"per_request": 1.0, "ops": ["remove_user"], "seed": 3}),
        )
        .await;
    for _ in 0..200 {
        house.get("/users?pageSize=1").await;
    }
    let left: BTreeSet<u64> = ids(house.truth().await["users"].as_array().unwrap())
        .into_iter()
        .collect();
    assert_eq!(
        left,
        spared.into_iter().filter(|id| left.contains(id)).collect()
    );
    assert!(house.get("/users").await.status == 200 && left.len() >= 5);
    house.control("churn", json!({"per_request": 0.0})).await;
    let quiet = house.truth().await;
    house.get("/users").await;
    assert_eq!(house.truth().await, quiet);
    for bad in [
        json!({"per_request": 2.0}),
        json!({"per_request": 0.5, "ops": []}),
        json!({"per_request": 0.5, "ops": ["mint_token"]}),
    ] {
        assert_eq!(
            house.try_control("churn", bad.clone()).await.status,
            400,
            "{bad}"
        );
    }
}

#[tokio::test]
async fn after_much_churn_every_list_still_agrees_with_the_truth() {
    let house = start().await;
    let plan = house.plan().await;
    house
        .control("churn", json!({"per_request": 1.0, "seed": 11}))
        .await;
    for _ in 0..400 {
        house.get("/users?pageSize=1").await;
    }
    house.control("churn", json!({"per_request": 0.0})).await;
    let truth = house.truth().await;
    let users = truth["users"].as_array().unwrap();
    let of = |field: &str, value: Value| -> Vec<u64> {
        let matching: Vec<Value> = users
            .iter()
            .filter(|user| user[field] == value)
            .cloned()
            .collect();
        ids(&matching)
    };
    let listed = async |query: &str| {
        ids(house
            .get(&format!("/users?includeAll=true{query}"))
            .await
            .rows())
    };
    assert_eq!(listed("").await, of("isInternal", true.into()));
    assert_eq!(listed(&format!("&planId={plan}")).await, ids(users));
    for seat in ["MEMBER", "PROVISIONAL_MEMBER", "GUEST"] {
        assert_eq!(
            listed(&format!("&seatType={seat}")).await,
            of("seatType", seat.into()),
            "{seat}"
        );
    }
    for group in truth["groups"].as_array().unwrap() {
        assert_eq!(
            &house.get(&format!("/groups/{}", group["id"])).await.body,
            group
        );
    }
    for user in users.iter().step_by(9) {
        assert_eq!(
            listed(&format!(
                "&planId={plan}&email={}",
                user["email"].as_str().unwrap()
            ))
            .await,
            ids(std::slice::from_ref(user))
        );
    }
}

#[tokio::test]
async fn the_clock_ends_provisional_seats() {
    let house = start().await;
    let ivo = house.person("ivo.petrov@example.org").await;
    assert!(ivo["provisionalExpirationDate"].is_string());
    house.advance(20 * 366 * 86_400).await;
    let after = house.person("ivo.petrov@example.org").await;
    assert_eq!(after["seatType"], "CONTRIBUTOR");
    assert_eq!(
        after["seatTypeLastChangedAt"],
        ivo["provisionalExpirationDate"]
    );
    assert_eq!(
        house.person("jana.ilves@example.org").await["seatType"],
        "PROVISIONAL_MEMBER",
        "no end, no expiry"
    );
    assert_eq!(
        house.get("/users/me").await.status,
        200,
        "personal tokens do not end"
    );
    assert_eq!(
        house
            .try_control("clock", json!({"advance_s": u64::MAX}))
            .await
            .status,
        400
    );
    assert_eq!(
        house
            .try_control("clock", json!({"advance_s": -1}))
            .await
            .status,
        400
    );
}

#[tokio::test]
async fn tokens_are_listed_all_or_only_those_that_are_good_still() {
    let house = start().await;
    let all = house.ask("tokens").await;
    let mut good = all.as_array().unwrap().clone();
    good.retain(|row| row["live"] == true);
    assert!(good.len() < all.as_array().unwrap().len());
    assert_eq!(house.ask("tokens?live=true").await, json!(good));
}

#[tokio::test]
async fn a_reset_brings_all_back_but_the_log_goes_on() {
    let house = start().await;
    // They are issued anew, at another time.
    let tokens_but_when = async || {
        let mut tokens = house.ask("tokens").await;
        for row in tokens.as_array_mut().unwrap() {
            row.as_object_mut().unwrap().remove("issued_at_ms").unwrap();
        }
        tokens
    };
    let (truth, tokens) = (house.truth().await, tokens_but_when().await);
    let switches = house.control("switches", json!({})).await;
    house.get("/users").await;
    house
        .control(
            "mutate",
            json!([{"op": "add_group", "name": "x"}, {"op": "revoke_token", "token": "member"}]),
        )
        .await;
    house
        .control(
            "mutate",
            json!([{"op": "mint_token", "login": "zoe@example.org"}]),
        )
        .await;
    house.switch(json!({"totals": "unknown"})).await;
    house.fault(json!({"kind": "reset"})).await;
    house.control("churn", json!({"per_request": 1.0})).await;
    house.advance(1_000_000).await;
    house.control("reset", json!({})).await;
    assert_eq!(
        (house.truth().await, tokens_but_when().await),
        (truth.clone(), tokens)
    );
    assert_eq!(house.control("switches", json!({})).await, switches);
    assert_eq!(
        house
            .get_as(&house.is().tokens.member, "/users")
            .await
            .status,
        200
    );
    assert_eq!(house.truth().await, truth, "no churn, no fault");
    assert_eq!(house.log().await.len(), 2);
}

#[tokio::test]
async fn what_is_no_control_is_said_so() {
    let house = start().await;
    let url = |call: &str| format!("{}/{call}", house.is().control_url);
    assert_eq!(reply(house.http.get(url("nothing"))).await.status, 404);
    assert_eq!(reply(house.http.delete(url("truth"))).await.status, 405);
    assert_eq!(
        reply(house.http.request(Method::GET, url("log?since=x")))
            .await
            .status,
        400
    );
}

#[tokio::test]
async fn a_stopped_simulator_frees_its_port() {
    let house = start().await;
    let port: u16 = reqwest::Url::parse(&house.is().api_base)
        .unwrap()
        .port()
        .unwrap();
    house.get("/users/me").await;
    house.simulator.stop().await;
    assert!(std::net::TcpListener::bind(("127.0.0.1", port)).is_ok());
}

#[tokio::test]
async fn a_dropped_simulator_ends_too() {
    let house = start().await;
    let port: u16 = reqwest::Url::parse(&house.is().api_base)
        .unwrap()
        .port()
        .unwrap();
    drop(house);
    let freed = async {
        while std::net::TcpListener::bind(("127.0.0.1", port)).is_err() {
            tokio::task::yield_now().await;
        }
    };
    assert!(
        tokio::time::timeout(std::time::Duration::from_secs(5), freed)
            .await
            .is_ok()
    );
}
