//! Accounts whose token stands for another user of the organization (Smartsheet's `Assume-User`).

use reqwest::Method;
use rolecall::model::api_keys::Scope;
use serde_json::{Value, json};

use crate::world::{Reply, World};

/// A plain member, and how the provider is told so: letters that mean something there are encoded.
const ASSUMED: [&str; 2] = ["chidi.okafor@example.org", "chidi.okafor%40example.org"];

async fn try_link(world: &World, token: &str, user: &str) -> Reply {
    let mut body = world.account_body(token);
    body["assume_user"] = json!(user);
    world.call(Method::POST, "/accounts", Some(&body)).await
}

async fn link(world: &World) -> String {
    let linked = try_link(world, &world.admin_token(), ASSUMED[0]).await;
    let account = linked.expect(201);
    assert_eq!(account["assume_user"], ASSUMED[0]);
    account["id"].as_str().unwrap().to_owned()
}

fn assert_refused(reply: &Reply, code: i64, message: &str) {
    let body = reply.refused(422, "assume_user_refused");
    assert!(
        body["message"].as_str().unwrap().contains(message),
        "{body}"
    );
    assert_eq!(body["provider_errors"][0]["code"], code, "{body}");
    assert!(!reply.text().contains("okafor"), "{body}");
}

#[tokio::test]
async fn every_call_is_made_for_the_assumed_user_and_serves_what_that_one_sees() {
    let world = World::new().await;
    let account = link(&world).await;
    let user = world
        .read(&account, "/iam/users?page_size=1")
        .await
        .expect(200);
    // The member may not know it, whatever the token's owner may.
    assert_eq!(user["data"][0]["is_active"], Value::Null);
    let log = world.provider_log(0).await;
    assert!(log.len() > 2);
    for call in log {
        assert_eq!(call["assume_user"], ASSUMED[1], "{call}");
        assert_eq!(call["status"], 200, "{call}");
    }
    let seen = world.get(&format!("/accounts/{account}")).await.expect(200);
    assert_eq!(seen["is_admin"], false);
    let told = format!("/audit?action=account.linked&subject_id={account}");
    let told = world.get(&told).await.expect(200);
    assert_eq!(
        told["data"][0]["detail"],
        json!({"provider": "smartsheet", "assumes": "user"})
    );
}

#[tokio::test]
async fn whom_the_provider_lets_nobody_stand_for_is_told_when_linking() {
    let world = World::new().await;
    let tokens = &world.simulator.announcement().tokens;
    let admins = world.somebody(|user| user["admin"] == true).await;
    assert!(admins.len() > 1);
    let truth = world.truth().await;
    let users = truth["users"].as_array().unwrap();
    let other_admin = users
        .iter()
        .find(|user| user["admin"] == true && user["email"] != "ana.ruiz@example.org")
        .unwrap();
    for (token, user) in [
        (&tokens.system_admin, other_admin["email"].as_str().unwrap()),
        (&tokens.system_admin, "kim.gast@partner.example"),
        (&tokens.system_admin, "nobody@example.org"),
        (&tokens.member, "bela.kovacs@example.org"),
    ] {
        let refused = try_link(&world, token, user).await;
        assert_refused(&refused, 1030, "stand for that user");
    }
    // One by OAuth, whose person may.
    let minted =
        json!([{"op": "mint_oauth", "login": "ana.ruiz@example.org", "scopes": ["READ_USERS"]}]);
    let minted = world.mutate(&minted).await;
    let refused = try_link(
        &world,
        minted[0]["access_token"].as_str().unwrap(),
        ASSUMED[0],
    )
    .await;
    assert_refused(&refused, 1030, "stand for that user");
    // One that is good for nothing but this.
    let fault = json!({"kind": "status", "status": 400, "error_code": 1044});
    world.faults(&json!([{"match": {}, "fault": fault}])).await;
    assert_refused(
        &world.try_link(&tokens.system_admin).await,
        1044,
        "names none",
    );
    let accounts = world.get("/accounts").await.expect(200);
    assert_eq!(accounts, json!([]));
}

#[tokio::test]
async fn assuming_a_user_needs_a_scope_of_its_own() {
    let world = World::new().await;
    let mut body = world.account_body(&world.admin_token());
    body["assume_user"] = json!(ASSUMED[0]);
    for (scopes, status) in [
        (&[Scope::AccountsWrite][..], 403),
        (&[Scope::AccountsAssume][..], 403),
        (&[Scope::AccountsWrite, Scope::AccountsAssume][..], 201),
    ] {
        let key = world.key_of("one", scopes).await;
        let bearer = format!("Bearer {key}");
        let headers = [("authorization", bearer.as_str())];
        let reply = world
            .send(Method::POST, "/accounts", &headers, Some(&body))
            .await;
        assert_eq!(reply.status.as_u16(), status, "{scopes:?}: {reply:?}");
    }
}

#[tokio::test]
async fn who_may_not_be_assumed_any_more_is_told_and_the_last_directory_is_served_on() {
    let world = World::new().await;
    let account = link(&world).await;
    let before = world.all(&account, "users", "").await;
    let demoted = json!([{"op": "demote_token", "token": "system_admin"}]);
    world.mutate(&demoted).await;
    let walk = world.walk(&account).await;
    assert_eq!(walk["state"], "failed");
    assert_eq!(walk["reason"], "assume_user_refused");
    let seen = world.get(&format!("/accounts/{account}")).await.expect(200);
    assert_eq!(seen["status_reasons"][0]["code"], "assume_user_refused");
    assert_eq!(world.all(&account, "users", "").await, before);
}
