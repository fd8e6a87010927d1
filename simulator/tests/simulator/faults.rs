//! Every kind of fault, as a client meets it.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::house::{House, ids, reply, start};

/// Asks for the caller, and gives what the client library makes of it.
async fn try_me(house: &House) -> Result<Value, reqwest::Error> {
    let request = house.request(Method::GET, "/users/me", &house.is().tokens.system_admin);
    request.send().await?.json().await
}

/// A reply to the last request of the log: its status.
async fn last_status(house: &House) -> Value {
    house.log().await.pop().unwrap()["status"].clone()
}

#[tokio::test]
async fn a_status_comes_with_the_code_and_the_header_that_were_ordered() {
    let house = start().await;
    house
        .fault(json!({"kind": "status", "status": 429, "error_code": 4003, "retry_after": "7"}))
        .await;
    let limited = house.get("/users").await;
    assert_eq!(
        (limited.refusal(), limited.header("retry-after")),
        ((429, 4003), Some("7"))
    );
    assert_eq!(limited.body["message"], "Rate limit exceeded.");
    house
        .fault(json!({"kind": "status", "status": 503, "error_code": 4001}))
        .await;
    let down = house.get("/users").await;
    assert_eq!(
        (down.refusal(), down.header("retry-after")),
        ((503, 4001), None)
    );
    house.fault(json!({"kind": "status", "status": 502})).await;
    assert_eq!(house.get("/users").await.body, "");
    assert_eq!(last_status(&house).await, 502);
}

#[tokio::test]
async fn a_delay_delays_and_then_serves() {
    let house = start().await;
    house.fault(json!({"kind": "delay", "ms": 150})).await;
    let began = Instant::now();
    assert!(try_me(&house).await.is_ok());
    assert!(began.elapsed() >= Duration::from_millis(150));
}

#[tokio::test]
async fn a_trickle_brings_all_but_slowly() {
    let house = start().await;
    house
        .fault(json!({"kind": "trickle", "bytes_per_s": 2000}))
        .await;
    let began = Instant::now();
    let body = try_me(&house).await.unwrap();
    assert_eq!(body["email"], "ana.ruiz@example.org");
    assert!(
        began.elapsed() >= Duration::from_millis(150),
        "some 450 bytes at 2000 a second"
    );
}

#[tokio::test]
async fn a_reset_is_a_reset_before_any_reply_and_nothing_is_done() {
    let house = start().await;
    house.fault(json!({"kind": "reset"})).await;
    let error = try_me(&house).await.unwrap_err();
    assert!(error.is_request() && error.status().is_none(), "{error:?}");
    assert!(
        format!("{error:?}").contains("ConnectionReset"),
        "{error:?}"
    );
    let post = house.request(Method::POST, "/groups", &house.is().tokens.system_admin);
    assert!(post.json(&json!({"name": "Lost"})).send().await.is_err());
    assert_eq!(last_status(&house).await, Value::Null);
    assert!(!house.truth().await.to_string().contains("Lost"));
}

#[tokio::test]
async fn a_dropped_reply_leaves_the_work_done() {
    let house = start().await;
    house.fault(json!({"kind": "drop_reply"})).await;
    let post = house.request(Method::POST, "/groups", &house.is().tokens.system_admin);
    let error = post
        .json(&json!({"name": "Kept"}))
        .send()
        .await
        .unwrap_err();
    assert!(
        error.status().is_none() && !format!("{error:?}").contains("ConnectionReset"),
        "{error:?}"
    );
    assert_eq!(last_status(&house).await, Value::Null);
    assert!(house.truth().await.to_string().contains("Kept"));
}

#[tokio::test]
async fn a_truncated_reply_declares_its_full_length_and_breaks_off() {
    let house = start().await;
    house.fault(json!({"kind": "truncate", "bytes": 40})).await;
    let request = house.request(Method::GET, "/users/me", &house.is().tokens.system_admin);
    let mut response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(response.content_length().unwrap() > 400);
    assert_eq!(response.chunk().await.unwrap().unwrap().len(), 40);
    assert!(response.chunk().await.is_err());
}

#[tokio::test]
async fn a_body_is_sent_as_ordered() {
    let house = start().await;
    house.fault(json!({"kind": "body", "status": 200, "content_type": "text/html", "body": "<p>Sorry</p>"})).await;
    let page = house.get("/users").await;
    assert_eq!(
        (page.status, page.header("content-type")),
        (200, Some("text/html"))
    );
    assert_eq!(page.body, "<p>Sorry</p>");
}

#[tokio::test]
async fn a_field_is_left_out_or_of_an_unknown_value_in_rows_objects_and_members() {
    let house = start().await;
    let id = house.id("bela.kovacs@example.org").await;
    house
        .fault(json!({"kind": "omit_field", "field": "status"}))
        .await;
    assert!(
        house
            .get("/users")
            .await
            .rows()
            .iter()
            .all(|user| user.get("status").is_none())
    );
    assert!(
        house
            .get(&format!("/users/{id}"))
            .await
            .body
            .get("status")
            .is_none()
    );
    house
        .fault(json!({"kind": "unknown_enum", "field": "status"}))
        .await;
    assert!(
        house
            .get("/users")
            .await
            .rows()
            .iter()
            .all(|user| user["status"] == "SOMETHING_NEW")
    );
    assert_eq!(
        house.get(&format!("/users/{id}")).await.body["status"],
        "SOMETHING_NEW"
    );
    let group = house.truth().await["groups"][0]["id"].clone();
    house
        .fault(json!({"kind": "omit_field", "field": "email"}))
        .await;
    let members = house.get(&format!("/groups/{group}")).await.body["members"].clone();
    assert!(
        members
            .as_array()
            .unwrap()
            .iter()
            .all(|member| member.get("email").is_none() && member["id"].is_u64())
    );
    house
        .fault(json!({"kind": "omit_field", "field": "totalCount"}))
        .await;
    let page = house.get("/users").await;
    assert!(page.body.get("totalCount").is_none() && page.rows()[0]["id"].is_u64());
}

#[tokio::test]
async fn large_ids_survive_the_faults_that_edit() {
    let house = start().await;
    let before = ids(house.get("/users").await.rows());
    house
        .fault(json!({"kind": "omit_field", "field": "status"}))
        .await;
    assert_eq!(ids(house.get("/users").await.rows()), before);
}

#[tokio::test]
async fn lists_come_empty_capped_repeated_and_with_duplicates() {
    let house = start().await;
    let all = house.get("/users?pageSize=20").await;
    let total = all.body["totalCount"].clone();
    house.fault(json!({"kind": "empty_page"})).await;
    let empty = house.get("/users?page=2&pageSize=20").await;
    assert!(empty.rows().is_empty());
    assert_eq!(
        (&empty.body["totalCount"], &empty.body["totalPages"]),
        (&0.into(), &0.into())
    );
    house.fault(json!({"kind": "cap_rows", "rows": 30})).await;
    let capped = house.get("/users?page=2&pageSize=20").await;
    assert_eq!(
        (
            capped.rows().len(),
            &capped.body["totalCount"],
            &capped.body["totalPages"]
        ),
        (10, &30.into(), &2.into())
    );
    house.fault(json!({"kind": "repeat_page"})).await;
    let repeated = house.get("/users?page=2&pageSize=20").await;
    assert_eq!(
        (ids(repeated.rows()), &repeated.body["pageNumber"]),
        (ids(all.rows()), &2.into())
    );
    house
        .fault(json!({"kind": "duplicate_rows", "ratio": 0.1}))
        .await;
    let doubled = house.get("/users?pageSize=20").await;
    assert_eq!(
        (doubled.rows().len(), &doubled.body["totalCount"]),
        (22, &total)
    );
    assert_eq!(doubled.rows()[20..], all.rows()[..2]);
    assert_eq!(
        house.get("/users/me").await.status,
        200,
        "not a list: not hit"
    );
}

#[tokio::test]
async fn rules_match_by_method_path_token_and_page_and_count_what_they_match() {
    let house = start().await;
    let teapot = json!({"kind": "status", "status": 418});
    let hits = async |rule: Value| -> Vec<usize> {
        let mut rule = rule;
        rule["fault"] = teapot.clone();
        house.control("faults", json!([rule])).await;
        let tokens = &house.is().tokens;
        let mut hits = Vec::new();
        let requests = [
            house.request(Method::GET, "/users", &tokens.system_admin),
            house.request(Method::GET, "/users?page=2", &tokens.system_admin),
            house.request(Method::GET, "/users?page=2", &tokens.member),
            house.request(Method::GET, "/groups", &tokens.member),
            house.request(Method::POST, "/groups", &tokens.member),
        ];
        for (index, request) in requests.into_iter().enumerate() {
            if reply(request).await.status == 418 {
                hits.push(index);
            }
        }
        hits
    };
    assert_eq!(hits(json!({})).await, [0, 1, 2, 3, 4]);
    assert_eq!(hits(json!({"match": {"method": "POST"}})).await, [4]);
    assert_eq!(
        hits(json!({"match": {"path_prefix": "/2.0/users"}})).await,
        [0, 1, 2]
    );
    assert_eq!(
        hits(json!({"match": {"path_prefix": "/groups"}})).await,
        [3, 4]
    );
    assert_eq!(hits(json!({"match": {"token": "member"}})).await, [2, 3, 4]);
    assert_eq!(hits(json!({"match": {"page": 1}})).await, [0, 3]);
    assert_eq!(
        hits(json!({"match": {"page": 2, "token": "member"}})).await,
        [2]
    );
    assert_eq!(hits(json!({"after": 1, "times": 2})).await, [1, 2]);
    assert_eq!(
        hits(json!({"match": {"path_prefix": "/users"}, "times": 1})).await,
        [0]
    );
}

#[tokio::test]
async fn the_list_before_is_replaced_and_deleted_and_a_bad_one_changes_nothing() {
    let house = start().await;
    house.fault(json!({"kind": "status", "status": 500})).await;
    for bad in [
        json!([{"fault": {"kind": "explode"}}]),
        json!([{"fault": {"kind": "status", "status": 99}}]),
        json!([{"fault": {"kind": "delay", "ms": 1}, "afer": 1}]),
        json!([{"fault": {"kind": "duplicate_rows", "ratio": 2.0}}]),
        json!([{"fault": {"kind": "trickle", "bytes_per_s": 0}}]),
        json!({}),
    ] {
        assert_eq!(
            house.try_control("faults", bad.clone()).await.status,
            400,
            "{bad}"
        );
    }
    assert_eq!(house.get("/users").await.status, 500);
    let url = format!("{}/faults", house.is().control_url);
    assert_eq!(reply(house.http.delete(url)).await.status, 200);
    assert_eq!(house.get("/users").await.status, 200);
}
