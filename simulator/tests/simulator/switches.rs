//! Every switch: what the default is, and what turning it does.

use reqwest::Method;
use serde_json::{Value, json};

use crate::house::{ids, small, start, start_with};

#[tokio::test]
async fn the_page_size_has_a_cap_that_clamps_refuses_or_is_not_there() {
    let house = start().await;
    assert_eq!(
        house.get("/users?pageSize=5000").await.body["pageSize"],
        1000
    );
    house.switch(json!({"page_size_cap": 7})).await;
    let clamped = house.get("/users?pageSize=50").await;
    assert_eq!(
        (clamped.rows().len(), &clamped.body["pageSize"]),
        (7, &7.into())
    );
    house
        .switch(json!({"page_size_over_cap": "refuse_1018"}))
        .await;
    assert_eq!(house.get("/users?pageSize=50").await.refusal(), (400, 1018));
    house
        .switch(json!({"page_size_over_cap": "refuse_1229"}))
        .await;
    assert_eq!(
        house.get("/groups?pageSize=50").await.refusal(),
        (400, 1229)
    );
    house.switch(json!({"page_size_cap": null})).await;
    assert_eq!(
        house.get("/users?pageSize=5000").await.body["pageSize"],
        5000
    );
}

#[tokio::test]
async fn a_page_past_the_end_repeats_the_last_or_is_empty() {
    let house = start().await;
    let pages = house.get("/users?pageSize=50").await.body["totalPages"]
        .as_u64()
        .unwrap();
    let last = house.get(&format!("/users?pageSize=50&page={pages}")).await;
    let past = format!("/users?pageSize=50&page={}", pages + 5);
    assert_eq!(house.get(&past).await.body, last.body);
    house.switch(json!({"page_past_end": "empty"})).await;
    assert!(house.get(&past).await.rows().is_empty());
}

#[tokio::test]
async fn totals_are_counted_or_unknown() {
    let house = start().await;
    house.switch(json!({"totals": "unknown"})).await;
    for path in ["/users", "/groups"] {
        let list = house.get(path).await;
        assert_eq!(
            (&list.body["totalCount"], &list.body["totalPages"]),
            (&(-1).into(), &(-1).into())
        );
        assert!(!list.rows().is_empty());
    }
}

#[tokio::test]
async fn membership_moves_modified_at_only_if_it_is_made_to() {
    let house = start().await;
    let group = house.truth().await["groups"][1].clone();
    let (path, id) = (
        format!("/groups/{}", group["id"]),
        house.id("bela.kovacs@example.org").await,
    );
    let member = json!({"group_id": group["id"], "user_id": id});
    let change = async |op: &str| {
        let mut op = json!({"op": op});
        op.as_object_mut()
            .unwrap()
            .extend(member.as_object().unwrap().clone());
        house.control("mutate", json!([op])).await;
        house.get(&path).await.body["modifiedAt"] != group["modifiedAt"]
    };
    assert!(!change("add_member").await);
    house
        .switch(json!({"membership_moves_modified_at": true}))
        .await;
    assert!(change("remove_member").await);
}

#[tokio::test]
async fn users_modified_since_is_ignored_or_honoured() {
    let house = start().await;
    let all = house.get("/users").await.body["totalCount"].clone();
    let path = "/users?modifiedSince=2026-07-01T00:00:00Z";
    assert_eq!(house.get(path).await.body["totalCount"], all);
    house
        .switch(json!({"users_modified_since": "honoured"}))
        .await;
    assert_eq!(house.get(path).await.body["totalCount"], 0);
    let id = house.id("bela.kovacs@example.org").await;
    house
        .control(
            "mutate",
            json!([{"op": "update_user", "id": id, "title": "New"}]),
        )
        .await;
    assert_eq!(ids(house.get(path).await.rows()), [id]);
}

#[tokio::test]
async fn a_429_says_when_and_how_much_only_if_it_is_made_to() {
    let house = start().await;
    house.switch(json!({"rate_limit": 1})).await;
    house.get("/users/me").await;
    let silent = house.get("/users/me").await;
    assert_eq!(silent.refusal(), (429, 4003));
    assert!(silent.header("retry-after").is_none() && silent.header("x-ratelimit-limit").is_none());
    house
        .switch(json!({"retry_after": "60", "rate_limit_headers": true}))
        .await;
    let telling = house.get("/users/me").await;
    assert_eq!(telling.header("retry-after"), Some("60"));
    assert_eq!(
        (
            telling.header("x-ratelimit-limit"),
            telling.header("x-ratelimit-remaining")
        ),
        (Some("1"), Some("0"))
    );
    assert!(telling.header("x-ratelimit-reset").is_some());
}

#[tokio::test]
async fn lists_may_cost_more() {
    let house = start().await;
    house
        .switch(json!({"rate_limit": 10, "list_cost": 4}))
        .await;
    let mut statuses = Vec::new();
    for path in [
        "/users",
        "/groups",
        "/users",
        "/users/me",
        "/users/me",
        "/users/me",
    ] {
        statuses.push(house.get(path).await.status);
    }
    assert_eq!(statuses, [200, 200, 429, 200, 200, 429]);
}

#[tokio::test]
async fn errors_may_come_without_a_reference() {
    let house = start().await;
    house.switch(json!({"ref_id": false})).await;
    assert_eq!(
        house.get("/users/1").await.body.as_object().unwrap().len(),
        2
    );
}

#[tokio::test]
async fn an_updated_user_is_under_result_or_under_data() {
    let house = start().await;
    let path = format!("/users/{}", house.id("chidi.okafor@example.org").await);
    let body = json!({"admin": false, "licensedSheetCreator": true, "firstName": "C"});
    assert_eq!(
        house.send(Method::PUT, &path, body.clone()).await.body["result"]["firstName"],
        "C"
    );
    house.switch(json!({"put_user_reply": "data"})).await;
    let reply = house.send(Method::PUT, &path, body).await.body;
    assert_eq!(reply["data"][0]["firstName"], "C");
    assert!(reply.get("result").is_none());
}

#[tokio::test]
async fn lists_leave_out_whom_they_are_made_to() {
    let house = start().await;
    let has = async |field: &str, value: Value| {
        house
            .get("/users?includeAll=true")
            .await
            .rows()
            .iter()
            .any(|user| user[field] == value)
    };
    assert!(has("status", "DEACTIVATED".into()).await && has("status", "DECLINED".into()).await);
    assert!(!has("isInternal", false.into()).await);
    house.switch(json!({"list_deactivated": false})).await;
    assert!(!has("status", "DEACTIVATED".into()).await && has("status", "DECLINED".into()).await);
    house
        .switch(json!({"list_declined": false, "list_guests_without_plan_id": true}))
        .await;
    assert!(!has("status", "DECLINED".into()).await && has("isInternal", false.into()).await);
}

#[tokio::test]
async fn the_unknown_have_the_code_that_is_set() {
    let house = start().await;
    house
        .switch(json!({"unknown_user_code": 1006, "unknown_group_code": 1006}))
        .await;
    assert_eq!(house.get("/users/1").await.refusal(), (404, 1006));
    assert_eq!(house.get("/groups/1").await.refusal(), (404, 1006));
}

#[tokio::test]
async fn a_missing_scope_has_the_status_that_is_set_and_a_missing_right_has_not() {
    let house = start().await;
    house.switch(json!({"missing_scope_status": 401})).await;
    assert_eq!(
        house
            .get_as(&house.is().tokens.no_read_users, "/users")
            .await
            .refusal(),
        (401, 1004)
    );
    assert_eq!(
        house
            .get_as(&house.is().tokens.member, "/users/1/plans")
            .await
            .refusal(),
        (403, 1004)
    );
}

#[tokio::test]
async fn groups_may_be_for_admins_only() {
    let house = start().await;
    house.switch(json!({"non_admin_reads_groups": false})).await;
    assert_eq!(
        house
            .get_as(&house.is().tokens.member, "/groups")
            .await
            .refusal(),
        (403, 1004)
    );
    assert_eq!(
        house
            .get_as(&house.is().tokens.group_admin, "/groups")
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn seats_may_come_unasked_and_under_the_old_name() {
    let house = start().await;
    house
        .switch(json!({"seats_without_plan_id": true, "contributor_flag_omitted": "viewer"}))
        .await;
    let list = house.get("/users?includeAll=true").await;
    assert!(
        list.rows()
            .iter()
            .all(|user| user["seatType"].is_string() && user["seatType"] != "CONTRIBUTOR")
    );
}

#[tokio::test]
async fn plans_may_come_at_once() {
    let house = start().await;
    house.switch(json!({"plan_pages": "dense"})).await;
    let me = house.get("/users/me").await.body["id"].clone();
    let page = house.get(&format!("/users/{me}/plans")).await;
    assert!(page.rows().len() == 2 && page.body.get("lastKey").is_none());
}

#[tokio::test]
async fn members_may_be_cut_off() {
    let house = start_with(smartsheet_simulator::Options {
        users: 500,
        ..small()
    })
    .await;
    house.switch(json!({"group_members_cap": 9})).await;
    let group = house.truth().await["groups"][0].clone();
    assert_eq!(
        group["members"].as_array().unwrap().len(),
        50,
        "the truth stays"
    );
    let told = house.get(&format!("/groups/{}", group["id"])).await.body;
    assert_eq!(told["members"].as_array().unwrap().len(), 9);
}

#[tokio::test]
async fn the_removed_may_still_be_answered_for() {
    let house = start().await;
    let id = house.id("zoe@example.org").await;
    house
        .control("mutate", json!([{"op": "remove_user", "id": id}]))
        .await;
    let path = format!("/users/{id}");
    assert_eq!(house.get(&path).await.refusal(), (404, 1020));
    house.switch(json!({"removed_user_answers": true})).await;
    assert_eq!(house.get(&path).await.body["email"], "zoe@example.org");
    assert!(!house.truth().await.to_string().contains("zoe@example.org"));
}

#[tokio::test]
async fn a_switch_that_is_not_there_or_a_value_that_is_none_changes_nothing() {
    let house = start().await;
    let before = house.control("switches", json!({})).await;
    for bad in [
        json!({"ref_id": false, "page_sise_cap": 1}),
        json!({"ref_id": false, "totals": "maybe"}),
        json!({"page_size_cap": 0}),
        json!({"unknown_user_code": 1}),
        json!({"missing_scope_status": 500}),
        json!({"refresh_grace_s": -1}),
        json!([]),
    ] {
        assert_eq!(
            house.try_control("switches", bad.clone()).await.status,
            400,
            "{bad}"
        );
    }
    assert_eq!(house.control("switches", json!({})).await, before);
}

/// The names that tests of this binary turn; a new switch without a test shows here.
#[tokio::test]
async fn every_switch_is_known_to_these_tests_and_to_the_readme() {
    let house = start().await;
    let switches = house.control("switches", json!({})).await;
    let readme = include_str!("../../README.md");
    let tests = concat!(
        include_str!("switches.rs"),
        include_str!("assume_user.rs"),
        include_str!("clients.rs"),
        include_str!("oauth.rs"),
        include_str!("limits.rs")
    );
    for name in switches.as_object().unwrap().keys() {
        assert!(
            readme.contains(&format!("| `{name}` |")),
            "{name} is not in README.md"
        );
        assert!(
            tests.contains(&format!("\"{name}\"")),
            "{name} is not tested"
        );
    }
}
