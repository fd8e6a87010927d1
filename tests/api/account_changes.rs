//! `PATCH /accounts/{id}`: what it changes, what it leaves, and how a token is replaced.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::world::{HANG, Reply, World};

async fn patch(world: &World, account: &str, body: &Value) -> Reply {
    let path = format!("/accounts/{account}");
    world.call(Method::PATCH, &path, Some(body)).await
}

async fn shown(world: &World, account: &str) -> Value {
    world.get(&format!("/accounts/{account}")).await.expect(200)
}

fn with_token(token: &str) -> Value {
    json!({"credential": {"type": "access_token", "access_token": token}})
}

/// A second token of the system admin, by its name at the provider and its text.
async fn another_token(world: &World) -> (String, String) {
    let minted = world
        .mutate(&json!([{"op": "mint_token", "login": "ana.ruiz@example.org"}]))
        .await;
    let text = |key: &str| minted[0][key].as_str().unwrap().to_owned();
    (text("token"), text("value"))
}

#[tokio::test]
async fn what_is_named_changes_and_the_rest_stays() {
    let world = World::new().await;
    let account = world.link_admin().await;
    let mut expected = shown(&world, &account).await;
    for change in [
        json!({"origin_owner_id": "customer-2"}),
        json!({"origin_owner_name": "Ünïcode 東京 🦊"}),
        json!({"label": "a", "origin_username": "ana@example.org"}),
        json!({"label": "b"}),
        json!({"label": null}),
        json!({"origin_username": null, "origin_owner_id": "customer-3"}),
    ] {
        let changed = patch(&world, &account, &change).await.expect(200);
        for (field, value) in change.as_object().unwrap() {
            expected[field] = value.clone();
        }
        expected["updated_at"] = changed["updated_at"].clone();
        assert_eq!(changed, expected, "{change}");
        assert_eq!(shown(&world, &account).await, expected, "{change}");
    }
    // Found by its new owner, and by that alone.
    for (owner, found) in [("customer-3", 1), ("customer-1", 0)] {
        let list = world
            .get(&format!("/accounts?origin_owner_id={owner}"))
            .await;
        assert_eq!(list.expect(200).as_array().unwrap().len(), found);
    }
}

#[tokio::test]
async fn what_stackones_sdk_sends_unasked_changes_nothing() {
    let world = World::new().await;
    let mut body = world.account_body(&world.admin_token());
    body["type"] = json!("test");
    body["label"] = json!("kept");
    let linked = world
        .call(Method::POST, "/accounts", Some(&body))
        .await
        .expect(201);
    let account = linked["id"].as_str().unwrap();
    world.read(account, "/iam/users").await.expect(200);
    let before = shown(&world, account).await;
    let seq = world.provider_calls().await;
    for change in [
        json!({}),
        json!({"type": "production"}),
        json!({"label": {}, "metadata": {}, "secrets": {}, "credentials": {},
            "setup_information": {}, "type": "production"}),
        json!({"provider": "hubspot", "authentication_config_key": "x", "environment": null,
            "setup_information": {"a": 1}, "metadata": [1], "credentials": {"token": "x"},
            "secrets": "x", "type": 7}),
    ] {
        let answer = patch(&world, account, &change).await.expect(200);
        assert_eq!(answer, before, "{change}");
        assert_eq!(shown(&world, account).await, before, "{change}");
    }
    assert_eq!(world.provider_calls().await, seq);
}

#[tokio::test]
async fn a_change_that_is_malformed_is_refused_whole() {
    let world = World::new().await;
    let account = world.link_admin().await;
    let before = shown(&world, &account).await;
    let seq = world.provider_calls().await;
    let credential = |value: Value| ("credential", value);
    for (field, value) in [
        ("origin_owner_id", json!("")),
        ("origin_owner_id", Value::Null),
        ("origin_owner_id", json!(17)),
        ("origin_owner_name", json!("a\nb")),
        ("origin_owner_name", json!({})),
        ("origin_username", json!(" ")),
        ("origin_username", json!(["a"])),
        ("label", json!("")),
        ("label", json!("x".repeat(256))),
        ("label", json!({"text": "x"})),
        ("label", json!(1)),
        ("status", json!("active")),
        ("id", json!(account)),
        ("project", json!("two")),
        ("region", json!("us")),
        ("base_url", json!("http://127.0.0.1:1/2.0")),
        ("is_admin", json!(true)),
        credential(Value::Null),
        credential(json!({})),
        credential(json!("token")),
        credential(json!({"type": "access_token"})),
        credential(json!({"type": "access_token", "access_token": ""})),
        credential(json!({"type": "access_token", "access_token": "a b"})),
        credential(json!({"type": "access_token", "access_token": "x".repeat(4097)})),
        credential(json!({"type": "oauth", "access_token": "x"})),
    ] {
        let mut body = json!({"origin_username": "new"});
        body[field] = value;
        patch(&world, &account, &body)
            .await
            .refused(400, "invalid_body");
        assert_eq!(shown(&world, &account).await, before, "{body}");
    }
    let path = format!("/accounts/{account}?dry_run=true");
    let reply = world
        .call(Method::PATCH, &path, Some(&json!({"label": "x"})))
        .await;
    reply.refused(400, "invalid_parameter");
    assert_eq!(shown(&world, &account).await, before);
    assert_eq!(world.provider_calls().await, seq, "the provider was asked");
}

#[tokio::test]
async fn a_dead_token_that_is_replaced_makes_the_account_active_and_is_walked_with() {
    let mut world = World::new().await;
    let account = world.link_admin().await;
    let (name, token) = another_token(&world).await;
    world
        .mutate(&json!([{"op": "revoke_token", "token": "system_admin"}]))
        .await;
    assert_eq!(world.walk(&account).await["reason"], "credential_refused");
    assert_eq!(shown(&world, &account).await["status"], "error");
    let seq = world.provider_calls().await;

    let mut body = with_token(&token);
    body["label"] = json!("renewed");
    let answer = patch(&world, &account, &body).await.expect(200);
    assert_eq!(answer["status"], "active");
    assert_eq!(answer["status_reasons"], json!([]));
    assert_eq!(answer["label"], "renewed");
    let text = answer.to_string();
    assert!(!text.contains(&token) && !text.contains("access_token\":"));
    assert_eq!(shown(&world, &account).await["status"], "active");

    // A walk was asked for, and once it has ended nothing is stale. That is an event and no time.
    let renewed = async {
        loop {
            let reply = world.read(&account, "/iam/users?page_size=1").await;
            if reply.header("x-directory-stale").is_none() {
                return;
            }
        }
    };
    tokio::time::timeout(HANG, renewed).await.unwrap();
    for call in world.provider_log(seq).await {
        assert_eq!(call["token"], name, "{call}");
    }

    // It is the stored one: a new process works with it, too.
    world.restart().await;
    assert_eq!(world.walk(&account).await["state"], "sealed");
}

#[tokio::test]
async fn a_token_that_the_provider_does_not_take_replaces_nothing() {
    let world = World::new().await;
    let account = world.link_admin().await;
    let before = shown(&world, &account).await;
    let tokens = world.simulator.announcement().tokens.clone();
    let (_, good) = another_token(&world).await;
    let status = |status: u16, code: u16| json!({"kind": "status", "status": status, "error_code": code, "retry_after": "120"});
    let elsewhere = json!({"kind": "body", "status": 200, "content_type": "application/json",
        "body": json!({"id": 5, "email": "ana@else.example", "admin": false,
            "account": {"id": 6, "name": "Else"}}).to_string()});
    for (token, fault, path, code, answer) in [
        ("not-a-token", None, "", "credential_refused", 422),
        (&tokens.revoked, None, "", "credential_refused", 422),
        (&tokens.no_read_users, None, "", "scope_missing", 422),
        (
            &good,
            Some(elsewhere),
            "/users/me",
            "organisation_mismatch",
            422,
        ),
        (
            &good,
            Some(status(503, 4001)),
            "",
            "provider_unavailable",
            502,
        ),
        // Last, since the token waits from then on.
        (
            &good,
            Some(status(429, 4003)),
            "",
            "provider_throttled",
            429,
        ),
    ] {
        if let Some(fault) = fault {
            world
                .faults(&json!([{"match": {"path_prefix": path}, "fault": fault}]))
                .await;
        }
        let mut body = with_token(token);
        body["label"] = json!("not to be seen");
        let reply = patch(&world, &account, &body).await;
        let refusal = reply.refused(answer, code);
        assert!(!refusal.to_string().contains(token), "{refusal}");
        assert_eq!(
            reply.header("retry-after").is_some(),
            [429, 502].contains(&answer),
            "{code}"
        );
        assert_eq!(shown(&world, &account).await, before, "{code}");
        world.no_faults().await;
    }
    // The former one is still there, and is the one that is worked with.
    let seq = world.provider_calls().await;
    assert_eq!(world.walk(&account).await["state"], "sealed");
    for call in world.provider_log(seq).await {
        assert_eq!(call["token"], "system_admin", "{call}");
    }
}

#[tokio::test]
async fn a_walk_that_began_with_the_former_token_is_not_sealed() {
    let world = World::new().await;
    let account = world.link_admin().await;
    let version = world.read(&account, "/iam/users").await;
    let version = version.header("x-directory-version").unwrap().to_owned();
    let (name, token) = another_token(&world).await;
    // The former token reads slowly, and what it reads has changed.
    world
        .mutate(&json!([{"op": "add_user", "email": "new@example.org"}]))
        .await;
    let slow = json!({"kind": "delay", "ms": 400});
    world
        .faults(&json!([{"match": {"token": "system_admin"}, "fault": slow}]))
        .await;
    let seq = world.provider_calls().await;
    let path = format!("/accounts/{account}/walks");
    let running = world.post(&path).await.expect(202);
    world.provider_is_called_after(seq).await;
    patch(&world, &account, &with_token(&token))
        .await
        .expect(200);

    let next = world.walk(&account).await;
    assert_eq!(next["state"], "sealed");
    assert_ne!(next["id"], running["id"]);
    assert_ne!(next["directory_version"], json!(version));
    let id = running["id"].as_str().unwrap();
    let former = world.get(&format!("{path}/{id}")).await.expect(200);
    assert_eq!(former["state"], "failed");
    assert_eq!(former["reason"], "interrupted");
    assert_eq!(former["directory_version"], json!(version));
    let log = world.provider_log(seq).await;
    assert_eq!(log.last().unwrap()["token"], json!(name));
}

#[tokio::test]
async fn that_the_former_token_is_refused_says_nothing_of_the_new_one() {
    let world = World::new().await;
    let account = world.link_admin().await;
    let (_, token) = another_token(&world).await;
    let slow = json!({"kind": "delay", "ms": 400});
    world
        .faults(&json!([{"match": {"token": "system_admin"}, "fault": slow}]))
        .await;
    let seq = world.provider_calls().await;
    let path = format!("/accounts/{account}/walks");
    let running = world.post(&path).await.expect(202);
    world.provider_is_called_after(seq).await;
    patch(&world, &account, &with_token(&token))
        .await
        .expect(200);
    // As whoever rotates a token does: the new one is stored, so the old one goes.
    world
        .mutate(&json!([{"op": "revoke_token", "token": "system_admin"}]))
        .await;
    assert_eq!(world.walk(&account).await["state"], "sealed");
    let id = running["id"].as_str().unwrap();
    let former = world.get(&format!("{path}/{id}")).await.expect(200);
    assert_eq!(former["reason"], "interrupted");
    assert_eq!(shown(&world, &account).await["status"], "active");
}

#[tokio::test]
async fn a_first_read_waits_for_the_walk_after_the_one_that_a_new_token_interrupts() {
    let world = World::new().await;
    let (_, token) = another_token(&world).await;
    let slow = json!({"kind": "delay", "ms": 200});
    world
        .faults(&json!([{"match": {"token": "system_admin"}, "fault": slow}]))
        .await;
    let account = world.link(&world.admin_token()).await;
    let replace = async {
        let seq = world.provider_calls().await;
        world.provider_is_called_after(seq).await;
        patch(&world, &account, &with_token(&token))
            .await
            .expect(200);
    };
    let (reply, ()) = futures_util::future::join(world.read(&account, "/iam/users"), replace).await;
    assert_eq!(reply.expect(200)["data"].as_array().unwrap().len(), 25);
    let walks = world.get(&format!("/accounts/{account}/walks")).await;
    let reasons: Vec<_> = walks.expect(200)["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|walk| walk["reason"].clone())
        .collect();
    assert_eq!(reasons, [Value::Null, json!("interrupted")]);
}

#[tokio::test]
async fn a_caller_that_hangs_up_leaves_a_whole_account() {
    let world = World::new().await;
    let account = world.link_admin().await;
    let (_, token) = another_token(&world).await;
    world.provider_takes(Duration::from_millis(100)).await;
    let seq = world.provider_calls().await;
    let body = with_token(&token);
    let asked = patch(&world, &account, &body);
    let hung_up = async { world.provider_is_called_after(seq).await };
    futures_util::future::select(Box::pin(asked), Box::pin(hung_up)).await;
    world.no_faults().await;
    // Replaced or not, it works; a walk that the replacement interrupts is followed by another.
    let mut walk = world.walk(&account).await;
    if walk["reason"] == "interrupted" {
        walk = world.walk(&account).await;
    }
    assert_eq!(walk["state"], "sealed");
    assert_eq!(shown(&world, &account).await["status"], "active");
}
