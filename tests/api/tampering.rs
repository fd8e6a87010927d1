//! A writer to the database without the key ring, against a running gateway: no secret goes where they
//! want it, and no key of theirs is accepted.

use std::{io::ErrorKind, net::TcpListener};

use reqwest::Method;
use rolecall::{
    error::Kind,
    gateway::linking::connect_sessions::{DEFAULT_LIFE, NewConnectSession},
    model::{
        accounts::{AccountKind, Endpoint},
        api_keys::Scope,
        connect_sessions::ConnectDetails,
    },
};
use serde_json::{Value, json};

use crate::world::{Plan, World};

/// A host of the intruder's.
struct Trap(TcpListener);

impl Trap {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        Self(listener)
    }

    fn endpoint(&self) -> String {
        let address = self.0.local_addr().unwrap();
        format!(r#"{{"base_url":"http://{address}/2.0"}}"#)
    }

    #[track_caller]
    fn assert_unvisited(&self) {
        let visited = self.0.accept().map(drop);
        assert_eq!(visited.unwrap_err().kind(), ErrorKind::WouldBlock);
    }
}

/// An account that signed in under a connector profile of the project.
async fn signed_in(world: &World) -> (String, String) {
    let (profile, callback) = world.profile().await;
    let body = json!({
        "profile": profile,
        "callback_url": callback,
        "origin_owner_id": "customer-1",
        "origin_owner_name": "Customer One",
    });
    let begun = world
        .call(Method::POST, "/oauth/authorization_url", Some(&body))
        .await
        .expect(200);
    let url = begun["url"].as_str().unwrap();
    let back = world.consent(url, &world.admin_email().await).await;
    let find = |name: &str| {
        let mut pairs = back.query_pairs();
        pairs.find(|(key, _)| key == name).unwrap().1.into_owned()
    };
    let body = json!({ "code": find("code"), "state": find("state") });
    let linked = world
        .call(Method::POST, "/oauth/token_exchange", Some(&body))
        .await
        .expect(201);
    let account = linked["id"].as_str().unwrap().to_owned();
    // The calls of its first walk are over before anybody counts calls.
    world.read(&account, "/iam/users").await.expect(200);
    (account, profile)
}

#[tokio::test]
async fn a_changed_endpoint_has_no_secret_sent_anywhere() {
    let world = World::new().await;
    let trap = Trap::new();
    let personal = world.link_admin().await;
    let (paired, _) = signed_in(&world).await;
    world.walk(&paired).await;
    world
        .rewrite(&format!(
            "update accounts set endpoint = '{}'",
            trap.endpoint()
        ))
        .await;
    let calls = world.provider_calls().await;
    for account in [&personal, &paired] {
        let walk = world.walk(account).await;
        assert_eq!(walk["state"], "failed");
        assert_eq!(walk["reason"], "credential_locked");
        let path = format!("/accounts/{account}");
        let token = json!({"credential": {
            "type": "access_token", "access_token": world.admin_token() }});
        for (method, path, body) in [
            (Method::PATCH, path.clone(), Some(&token)),
            (Method::DELETE, format!("{path}?revoke=true"), None),
            (Method::DELETE, format!("{path}?purge=true"), None),
        ] {
            let reply = world.call(method, &path, body).await;
            reply.refused(500, "credential_locked");
        }
        let seen = world.get(&path).await.expect(200);
        assert_eq!(seen["status"], "error", "{seen}");
        assert_eq!(seen["status_reasons"][0]["code"], "locked", "{seen}");
    }
    let reply = world.post(&format!("/accounts/{paired}/refresh")).await;
    reply.refused(500, "credential_locked");
    trap.assert_unvisited();
    assert_eq!(world.provider_calls().await, calls);
    // Put back, the rows are as good as before.
    let base = &world.simulator.announcement().api_base;
    world
        .rewrite(&format!(
            r#"update accounts set endpoint = '{{"base_url":"{base}"}}'"#
        ))
        .await;
    for account in [&personal, &paired] {
        assert_eq!(world.walk(account).await["state"], "sealed");
    }
}

#[tokio::test]
async fn a_changed_endpoint_of_a_disconnected_account_gets_no_new_token() {
    let world = World::new().await;
    let trap = Trap::new();
    let account = world.link_admin().await;
    let path = format!("/accounts/{account}");
    world.call(Method::DELETE, &path, None).await.expect(200);
    world
        .rewrite(&format!(
            "update accounts set endpoint = '{}'",
            trap.endpoint()
        ))
        .await;
    let token = json!({"credential": {
        "type": "access_token", "access_token": world.admin_token() }});
    let reply = world.call(Method::PATCH, &path, Some(&token)).await;
    reply.refused(500, "credential_locked");
    trap.assert_unvisited();
}

#[tokio::test]
async fn a_changed_profile_has_no_secret_sent_and_nobody_sent_anywhere() {
    let world = World::new().await;
    let trap = Trap::new();
    let (account, profile) = signed_in(&world).await;
    let begin = json!({
        "profile": profile,
        "callback_url": "https://app.example.org/callback",
        "origin_owner_id": "customer-2",
        "origin_owner_name": "Customer Two",
    });
    let endpoint = trap.endpoint();
    for change in [
        format!("endpoint = '{endpoint}'"),
        "client_id = 'theirs'".to_owned(),
        "redirect_url = 'https://attacker.example/callback'".to_owned(),
    ] {
        world
            .rewrite(&format!(
                "create table kept as select * from connector_profiles;
                 update connector_profiles set {change}"
            ))
            .await;
        let callback = match change.starts_with("redirect_url") {
            true => "https://attacker.example/callback",
            false => "https://app.example.org/callback",
        };
        let mut begin = begin.clone();
        begin["callback_url"] = Value::from(callback);
        let reply = world
            .call(Method::POST, "/oauth/authorization_url", Some(&begin))
            .await;
        reply.refused(500, "credential_locked");
        let secret = json!({"client_secret": "canary-new-secret"});
        let path = format!("/connector_profiles/{profile}");
        let reply = world.call(Method::PATCH, &path, Some(&secret)).await;
        reply.refused(500, "credential_locked");
        let calls = world.provider_calls().await;
        let refreshed = world.post(&format!("/accounts/{account}/refresh")).await;
        assert_ne!(refreshed.status, 200, "{change}");
        assert_eq!(world.provider_calls().await, calls, "{change}");
        world
            .rewrite(
                "update connector_profiles set
                     endpoint = (select endpoint from kept),
                     client_id = (select client_id from kept),
                     redirect_url = (select redirect_url from kept);
                 drop table kept",
            )
            .await;
    }
    trap.assert_unvisited();
    world
        .call(Method::POST, "/oauth/authorization_url", Some(&begin))
        .await
        .expect(200);
}

#[tokio::test]
async fn a_base_url_that_the_operator_takes_off_the_list_is_called_no_more() {
    let mut world = World::new().await;
    let personal = world.link_admin().await;
    let (paired, _) = signed_in(&world).await;
    world
        .restart_with(&[("provider.loopback_base_urls", "false")])
        .await;
    let calls = world.provider_calls().await;
    for account in [&personal, &paired] {
        let walk = world.walk(account).await;
        assert_eq!(walk["state"], "failed");
        assert_eq!(walk["reason"], "base_url_not_allowed");
        let path = format!("/accounts/{account}");
        let seen = world.get(&path).await.expect(200);
        assert_eq!(seen["status_reasons"][0]["code"], "base_url_not_allowed");
        let token = json!({"credential": {
            "type": "access_token", "access_token": world.admin_token() }});
        let reply = world.call(Method::PATCH, &path, Some(&token)).await;
        reply.refused(400, "base_url_not_allowed");
    }
    world.post(&format!("/accounts/{paired}/refresh")).await;
    let removed = world
        .call(
            Method::DELETE,
            &format!("/accounts/{personal}?revoke=true"),
            None,
        )
        .await
        .expect(200);
    assert_eq!(removed["revocation"], "failed");
    assert_eq!(world.provider_calls().await, calls);
}

#[tokio::test]
async fn a_key_that_was_written_into_the_database_is_refused() {
    let world = World::new().await;
    let limited = world.key_of("one", &[Scope::IamRead]).await;
    let accounts = async |key: &str| {
        let authorization = [("authorization", format!("Bearer {key}"))];
        let headers: Vec<_> = authorization
            .iter()
            .map(|(n, v)| (*n, v.as_str()))
            .collect();
        world
            .send(Method::GET, "/accounts", &headers, None)
            .await
            .status
            .as_u16()
    };
    assert_eq!(accounts(&limited).await, 403);
    world
        .rewrite(
            "update api_keys set scopes = 'iam:read accounts:read accounts:write admin'
             where scopes = 'iam:read'",
        )
        .await;
    world.clock.advance(std::time::Duration::from_secs(2));
    assert_eq!(accounts(&limited).await, 401);
    world.rewrite("update api_keys set mac = null").await;
    world.clock.advance(std::time::Duration::from_secs(2));
    assert_eq!(accounts(&world.key).await, 401);
}

#[tokio::test]
async fn one_unreadable_credential_changes_no_other_account_s_revocation() {
    let world = World::new().await;
    let member = world.simulator.announcement().tokens.member.clone();
    let spoilt = world.link(&member).await;
    let account = world.link_admin().await;
    world
        .rewrite(&format!(
            "update credentials set sealed = token_digest where account = '{spoilt}'"
        ))
        .await;
    let path = format!("/accounts/{account}?revoke=true");
    let removed = world.call(Method::DELETE, &path, None).await.expect(200);
    assert_eq!(removed["revocation"], "revoked");
}

#[tokio::test]
async fn where_nobody_can_tell_the_revocation_is_unknown_and_not_shared() {
    let world = World::new().await;
    let account = world.link_admin().await;
    let other = world.project("two", &Scope::ALL).await;
    let body = world.account_body(&world.simulator.announcement().tokens.member);
    let headers = [("authorization", format!("Bearer {other}"))];
    let headers: Vec<_> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
    let linked = world
        .send(Method::POST, "/accounts", &headers, Some(&body))
        .await;
    linked.expect(201);
    world
        .rewrite("update projects set data_key_id = 'none' where id = 'two'")
        .await;
    let path = format!("/accounts/{account}?revoke=true");
    let removed = world.call(Method::DELETE, &path, None).await.expect(200);
    assert_eq!(removed["revocation"], "unknown");
}

/// Which account a connect session is to link again lies open beside the draft.
#[tokio::test]
async fn a_draft_becomes_no_credential_of_another_destination() {
    let world = World::new().await;
    let elsewhere = World::with(Plan {
        seed: 7,
        users: 12,
        ..Plan::default()
    })
    .await;
    let mut body = world.account_body(&elsewhere.admin_token());
    body["base_url"] = json!(elsewhere.simulator.announcement().api_base);
    let other = world.call(Method::POST, "/accounts", Some(&body)).await;
    let other = other.expect(201)["id"].as_str().unwrap().to_owned();

    let gateway = &world.gateway;
    let caller = gateway.auth().authenticate(&world.key).await.unwrap();
    let new = NewConnectSession {
        provider: Some("smartsheet".to_owned()),
        profile: None,
        account: None,
        kind: AccountKind::Test,
        is_multiple: false,
        origin_owner_id: "customer-1".to_owned(),
        details: ConnectDetails {
            origin_owner_name: "Customer One".to_owned(),
            ..ConnectDetails::default()
        },
        expires_in: DEFAULT_LIFE,
    };
    let invited = gateway
        .connect_sessions()
        .create_connect_session(&caller, new)
        .await
        .unwrap();
    let endpoint = Endpoint::BaseUrl(world.simulator.announcement().api_base.clone());
    let token = world.admin_token().into();
    let browser = gateway.connect_sessions().new_browser();
    let review =
        gateway
            .connect_sessions()
            .bring_token(&invited.session, &browser, endpoint, token);
    let review = review.await.unwrap();
    world
        .rewrite(&format!("update connect_sessions set account = '{other}'"))
        .await;
    let session = gateway
        .connect_sessions()
        .connect_session(&invited.token)
        .await
        .unwrap();
    let refused = gateway
        .connect_sessions()
        .save(&session, &browser, review.draft)
        .await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.kind(), Kind::OrganizationMismatch);
    assert_eq!(world.walk(&other).await["state"], "sealed");
}
