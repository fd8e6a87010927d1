//! What stands between Rolecall and its provider refuses calls too, with a page of its own and
//! without the provider's code. That is no word about a token or its rights.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    browser::Browser,
    world::{Plan, World},
};

fn page(status: u16) -> Value {
    json!({"kind": "body", "status": status, "content_type": "text/html",
        "body": "<html><h1>Access denied</h1></html>"})
}

fn without_code(status: u16) -> Value {
    json!({"kind": "body", "status": status, "content_type": "application/json",
        "body": r#"{"message":"Forbidden","errorCode":"forbidden"}"#})
}

async fn everywhere(world: &World, fault: &Value) {
    world.faults(&json!([{"match": {}, "fault": fault}])).await;
}

#[tokio::test]
async fn a_token_is_not_refused_by_a_proxy() {
    let world = World::new().await;
    for fault in [page(401), without_code(403)] {
        everywhere(&world, &fault).await;
        let refused = world.try_link(&world.admin_token()).await;
        assert!(refused.header("retry-after").is_some());
        let body = refused.refused(502, "provider_unavailable");
        assert_eq!(body["provider_errors"][0]["status"], fault["status"]);
    }
    world.no_faults().await;
    assert_eq!(world.get("/accounts").await.expect(200), json!([]));
}

#[tokio::test]
async fn the_hub_says_that_the_provider_does_not_answer_where_a_proxy_refuses() {
    let world = World::new().await;
    world.hub_profile().await;
    let link = world.invite(&json!({})).await;
    let mut browser = Browser::open(&world, &link).await;
    // Whether groups may be read is asked last: a proxy's word hides none.
    for matches in [json!({}), json!({"path_prefix": "/groups"})] {
        world
            .faults(&json!([{"match": matches, "fault": page(403)}]))
            .await;
        browser
            .bring(&world, &world.admin_token())
            .await
            .says(502, "does not answer");
    }
    world.no_faults().await;
    browser.bring(&world, &world.admin_token()).await.leads();
}

#[tokio::test]
async fn a_walk_that_a_proxy_refuses_says_nothing_of_the_account() {
    let world = World::with(Plan {
        settings: vec![("walk.every_seconds", "86400")],
        ..Plan::default()
    })
    .await;
    let account = world.link_admin().await;
    let path = format!("/accounts/{account}");
    let shown = world.get(&path).await.expect(200);
    let groups = world.all(&account, "groups", "").await;
    let me = world.read(&account, "/iam/me").await.expect(200);
    for (matches, fault) in [
        (json!({}), page(401)),
        (json!({}), without_code(403)),
        (json!({"path_prefix": "/users", "page": 1}), page(403)),
        (json!({"path_prefix": "/groups", "page": 1}), page(403)),
        (
            json!({"path_prefix": "/groups", "page": 1}),
            without_code(401),
        ),
    ] {
        world
            .faults(&json!([{"match": matches, "fault": fault}]))
            .await;
        let walk = world.walk(&account).await;
        assert_eq!(walk["state"], "failed", "{walk}");
        assert_eq!(walk["reason"], "provider_unavailable", "{walk}");
        let now = world.get(&path).await.expect(200);
        for field in ["status", "status_reasons", "credential"] {
            assert_eq!(now[field], shown[field], "{field}");
        }
        assert_eq!(world.all(&account, "groups", "").await, groups);
        let still = world.read(&account, "/iam/me").await.expect(200);
        assert_eq!(
            still["data"]["unavailable_fields"],
            me["data"]["unavailable_fields"]
        );
        world.no_faults().await;
        assert_eq!(world.walk(&account).await["state"], "sealed");
    }
}

#[tokio::test]
async fn a_code_that_is_sent_as_text_is_heard() {
    let world = World::new().await;
    let account = world.link_admin().await;
    let refused = json!({"kind": "body", "status": 401, "content_type": "application/json",
        "body": r#"{"errorCode":"1002","message":"Your Access Token is invalid."}"#});
    everywhere(&world, &refused).await;
    let body = world.try_link(&world.admin_token()).await;
    let body = body.refused(422, "credential_refused");
    assert_eq!(body["provider_errors"][0]["code"], 1002);
    assert_eq!(world.walk(&account).await["reason"], "credential_refused");
    let path = format!("/accounts/{account}");
    let shown = world.call(Method::GET, &path, None).await.expect(200);
    assert_eq!(shown["status"], "error");
}
