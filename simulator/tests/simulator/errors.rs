//! Requests that are refused: by whom, in what words.

use reqwest::Method;
use serde_json::json;

use crate::house::{reply, start};

#[tokio::test]
async fn tokens_that_are_missing_wrong_dead_or_expired_are_told_apart() {
    let house = start().await;
    let missing = reply(house.http.get(format!("{}/users", house.is().api_base))).await;
    assert_eq!(missing.refusal(), (401, 1001));
    assert_eq!(
        house.get_as("never-issued", "/users").await.refusal(),
        (401, 1002)
    );
    assert_eq!(
        house
            .get_as(&house.is().tokens.revoked, "/users")
            .await
            .refusal(),
        (401, 1002)
    );
    house
        .control("mutate", json!([{"op": "expire_token", "token": "member"}]))
        .await;
    assert_eq!(
        house
            .get_as(&house.is().tokens.member, "/users")
            .await
            .refusal(),
        (401, 1003)
    );
}

#[tokio::test]
async fn a_token_without_the_scope_reads_nothing_but_its_own_profile() {
    let house = start().await;
    let token = &house.is().tokens.no_read_users;
    for path in [
        "/users",
        "/users/1",
        "/groups",
        "/groups/1",
        "/users?includeAll=true",
    ] {
        assert_eq!(
            house.get_as(token, path).await.refusal(),
            (403, 1004),
            "{path}"
        );
    }
    assert_eq!(house.get_as(token, "/users/me").await.status, 200);
}

#[tokio::test]
async fn a_refusal_has_code_message_and_reference() {
    let house = start().await;
    let (one, two) = (
        house.get("/users/1").await.body,
        house.get("/users/1").await.body,
    );
    assert!(one["message"].as_str().is_some_and(|text| !text.is_empty()));
    assert_eq!(one.as_object().unwrap().len(), 3);
    assert_ne!(one["refId"], two["refId"]);
}

#[tokio::test]
async fn what_is_not_there_is_said_by_its_own_code() {
    let house = start().await;
    for (path, refusal) in [
        ("/users/1", (404, 1020)),
        ("/users/1/plans", (404, 1020)),
        ("/users/1/alternateemails", (404, 1020)),
        ("/groups/1", (404, 1106)),
        ("/users/nobody", (404, 1006)),
        ("/contacts", (404, 1006)),
        ("/", (404, 1006)),
    ] {
        assert_eq!(house.get(path).await.refusal(), refusal, "{path}");
    }
    let base = house.is().api_base.replace("/2.0", "/1.1");
    let old = reply(house.http.get(format!("{base}/users"))).await;
    assert_eq!(old.refusal(), (404, 1007));
}

#[tokio::test]
async fn bad_parameters_are_refused_and_unknown_ones_ignored() {
    let house = start().await;
    for query in [
        "page=0",
        "page=x",
        "pageSize=-1",
        "pageSize=0",
        "includeAll=yes",
        "include=all",
        "numericDates=1",
        "planId=x",
        "seatType=KING",
    ] {
        assert_eq!(
            house.get(&format!("/users?{query}")).await.refusal(),
            (400, 1018),
            "{query}"
        );
    }
    assert_eq!(
        house
            .get("/users?includeall=x&tomorrow=y&Page=0")
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn methods_and_media_types_are_checked() {
    let house = start().await;
    let token = &house.is().tokens.system_admin;
    assert_eq!(
        house
            .send(Method::PATCH, "/users", json!({}))
            .await
            .refusal(),
        (405, 1010)
    );
    assert_eq!(
        house
            .send(Method::PUT, "/groups", json!({}))
            .await
            .refusal(),
        (405, 1010)
    );
    assert_eq!(
        house.send(Method::PUT, "/token", json!({})).await.refusal(),
        (405, 1010)
    );
    let text = house
        .request(Method::POST, "/groups", token)
        .header("content-type", "text/plain")
        .body("{}");
    assert_eq!(reply(text).await.refusal(), (415, 1124));
    let html = house
        .request(Method::GET, "/users", token)
        .header("accept", "text/html");
    assert_eq!(reply(html).await.refusal(), (406, 1052));
    let post = |body: &'static str| {
        house
            .request(Method::POST, "/groups", token)
            .header("content-type", "application/json")
            .body(body)
    };
    for (body, refusal) in [
        ("", (400, 1024)),
        ("{", (400, 1282)),
        ("{}", (400, 1012)),
        (r#"{"name":1}"#, (400, 1031)),
        (r#"{"name":"a","king":1}"#, (400, 1283)),
    ] {
        assert_eq!(reply(post(body)).await.refusal(), refusal, "{body}");
    }
}

#[tokio::test]
async fn outsiders_with_a_token_read_their_own_profile_only() {
    let house = start().await;
    let minted = house
        .control(
            "mutate",
            json!([{"op": "mint_token", "login": "kim.gast@partner.example"}]),
        )
        .await;
    let token = minted[0]["value"].as_str().unwrap();
    assert_eq!(
        house.get_as(token, "/users/me").await.body["account"]["name"],
        "Partner Inc"
    );
    assert_eq!(house.get_as(token, "/users").await.refusal(), (403, 1004));
}
