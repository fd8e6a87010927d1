//! Rates: so much a minute for each access token.

use serde_json::json;
use smartsheet_simulator::Options;

use crate::house::{House, reply, small, start_with};

async fn limited(limit: u32) -> House {
    start_with(Options {
        rate_limit: limit,
        ..small()
    })
    .await
}

/// How many of so many requests are served.
async fn served(house: &House, requests: usize) -> usize {
    let mut served = 0;
    for _ in 0..requests {
        served += usize::from(house.get("/users/me").await.status == 200);
    }
    served
}

#[tokio::test]
async fn a_token_has_its_requests_a_minute_and_other_tokens_theirs() {
    let house = limited(5).await;
    assert_eq!(served(&house, 8).await, 5);
    let over = house.get("/users").await;
    assert_eq!(over.refusal(), (429, 4003));
    assert_eq!(over.body["message"], "Rate limit exceeded.");
    assert_eq!(
        house
            .get_as(&house.is().tokens.member, "/users")
            .await
            .status,
        200
    );
    let refused = house
        .log()
        .await
        .into_iter()
        .filter(|entry| entry["error_code"] == 4003)
        .count();
    assert_eq!(refused, 4, "429s are in the log");
}

#[tokio::test]
async fn a_fixed_window_opens_again_after_a_minute() {
    let house = limited(4).await;
    assert_eq!(served(&house, 2).await, 2);
    house.advance(45).await;
    assert_eq!(served(&house, 5).await, 2);
    house.advance(20).await;
    assert_eq!(served(&house, 6).await, 4);
}

#[tokio::test]
async fn a_sliding_window_opens_by_and_by() {
    let house = limited(4).await;
    house.switch(json!({"rate_window": "sliding"})).await;
    assert_eq!(served(&house, 2).await, 2);
    house.advance(45).await;
    assert_eq!(served(&house, 5).await, 2);
    house.advance(20).await;
    assert_eq!(served(&house, 6).await, 2);
    let log = house.log().await;
    let at = |index: usize| log[index]["at_ms"].as_i64().unwrap();
    assert!(
        (45_000..60_000).contains(&(at(2) - at(1))),
        "the log keeps the world's time"
    );
}

#[tokio::test]
async fn no_limit_is_no_limit_and_the_control_plane_has_none() {
    let house = limited(0).await;
    assert_eq!(served(&house, 400).await, 400);
    let house = limited(1).await;
    for _ in 0..5 {
        house.truth().await;
        let token = house.http.post(format!("{}/token", house.is().api_base));
        assert_eq!(
            reply(token).await.refusal().1,
            1070,
            "token calls are not limited"
        );
    }
    assert_eq!(served(&house, 2).await, 1);
}
