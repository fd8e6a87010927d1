//! `/audit`: what was done in a project, told with who did it (G10).

use std::time::Duration;

use reqwest::Method;
use rolecall::{crypto::ApiKeySecret, model::api_keys::Scope};
use serde_json::{Value, json};

use crate::world::{Plan, Reply, World};

async fn with_key(world: &World, key: &str, path: &str) -> Reply {
    let bearer = format!("Bearer {key}");
    let headers = [("authorization", bearer.as_str())];
    world.send(Method::GET, path, &headers, None).await
}

/// Every entry of a list, oldest first, by walking its pages.
async fn entries(world: &World, query: &str) -> Vec<Value> {
    let (mut all, mut next) = (Vec::new(), String::new());
    loop {
        let path = format!("/audit?page_size=3&{query}{next}");
        let page = world.get(&path).await.expect(200);
        all.extend(page["data"].as_array().unwrap().iter().cloned());
        match page["next"].as_str() {
            Some(cursor) => next = format!("&next={cursor}"),
            None => break,
        }
    }
    all.reverse();
    all
}

/// Who did what to what.
fn told(entries: &[Value]) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let in_words = |entry: &Value| {
        format!(
            "{}:{} {} {}:{}",
            text(&entry["actor"]["kind"]),
            text(&entry["actor"]["id"]),
            text(&entry["action"]),
            text(&entry["subject"]["kind"]),
            text(&entry["subject"]["id"]),
        )
    };
    entries.iter().map(in_words).collect()
}

fn id_of(key: &str) -> String {
    ApiKeySecret::parse(key).unwrap().id().to_string()
}

#[tokio::test]
async fn what_is_done_through_the_api_is_told_with_the_key_that_did_it() {
    let world = World::new().await;
    let root = id_of(&world.key);
    let token = world.admin_token();
    let account = world.link(&token).await;
    world.read(&account, "/iam").await.expect(200);
    let own = format!("/accounts/{account}");
    let change = json!({"label": "Customer One", "credential": {"type": "access_token", "access_token": token}});
    let changed = world.call(Method::PATCH, &own, Some(&change)).await;
    changed.expect(200);
    // The walk that this makes has ended, so that nobody joins it.
    let walks = format!("{own}/walks");
    let second = async {
        loop {
            let walks = world.get(&walks).await.expect(200);
            let walks = walks["data"].as_array().unwrap();
            if walks.len() == 2 && walks[0]["state"] != "running" {
                break;
            }
        }
    };
    tokio::time::timeout(crate::world::HANG, second)
        .await
        .unwrap();
    let walk = world.walk(&account).await;
    assert_eq!(walk["state"], "sealed");

    let scopes = json!({"scopes": ["iam:read"], "label": "Ada Lovelace"});
    let made = world.call(Method::POST, "/api_keys", Some(&scopes)).await;
    let key = made.expect(201)["id"].as_str().unwrap().to_owned();
    let of_key = format!("/api_keys/{key}");
    let label = json!({"label": "Grace Hopper"});
    let relabelled = world.call(Method::PATCH, &of_key, Some(&label)).await;
    relabelled.expect(200);
    for _ in 0..2 {
        world.call(Method::DELETE, &of_key, None).await.expect(200);
    }
    world.call(Method::DELETE, &own, None).await.expect(200);

    let all = entries(&world, "").await;
    for (entry, sequence) in all.iter().zip(1..) {
        assert_eq!(entry["sequence"], sequence);
    }
    let by = |what: &str| format!("api_key:{root} {what}");
    let used = by(&format!("credential.used account:{account}"));
    assert_eq!(
        told(&all),
        [
            "operator: project.created project:one".to_owned(),
            format!("operator: api_key.created api_key:{root}"),
            by(&format!("account.linked account:{account}")),
            // The first walk, that of the new token, and the one that was asked for.
            used.clone(),
            by(&format!("account.updated account:{account}")),
            by(&format!("credential.replaced account:{account}")),
            used.clone(),
            used,
            by(&format!("api_key.created api_key:{key}")),
            by(&format!("api_key.updated api_key:{key}")),
            by(&format!("api_key.revoked api_key:{key}")),
            by(&format!("account.disconnected account:{account}")),
        ]
    );
    assert_eq!(all[2]["detail"], json!({"provider": "smartsheet"}));
    assert_eq!(all[4]["detail"], json!({"changed": "label"}));
    assert_eq!(all[7]["detail"], json!({"walk": walk["id"]}));
    assert_eq!(all[8]["detail"], json!({"scopes": "iam:read"}));
    let all = json!(all).to_string();
    for canary in [token.as_str(), "Ada", "Grace", "Customer"] {
        assert!(!all.contains(canary), "{all}");
    }

    let of_account = entries(&world, &format!("subject_id={account}")).await;
    assert_eq!(of_account.len(), 7);
    let used = entries(&world, "action=credential.used").await;
    assert_eq!(used.len(), 3);
    let both = format!("action=account.disconnected&subject_id={account}");
    assert_eq!(entries(&world, &both).await.len(), 1);
    let neither = format!("action=api_key.revoked&subject_id={account}");
    assert!(entries(&world, &neither).await.is_empty());
    assert!(entries(&world, "subject_id=nobody").await.is_empty());
    assert!(entries(&world, "action=profile.created").await.is_empty());
}

#[tokio::test]
async fn walks_are_told_with_who_had_them_made_and_once_each() {
    let world = World::with(Plan {
        settings: vec![("walk.every_seconds", "60"), ("walk.fresh_seconds", "60")],
        ..Plan::default()
    })
    .await;
    let account = world.link_admin().await;
    let used = async || told(&entries(&world, "action=credential.used").await);
    let root = format!(
        "api_key:{} credential.used account:{account}",
        id_of(&world.key)
    );
    assert_eq!(used().await, std::slice::from_ref(&root));

    // Reads of what is fresh use nothing.
    for _ in 0..3 {
        world.read(&account, "/iam/users").await.expect(200);
    }
    assert_eq!(used().await.len(), 1);
    // What another key wants to have newer, that key asks for.
    let reader = world.key_of("one", &[Scope::IamRead]).await;
    let bearer = format!("Bearer {reader}");
    let headers = [
        ("authorization", bearer.as_str()),
        ("x-account-id", account.as_str()),
        ("cache-control", "no-cache"),
    ];
    let read = world.send(Method::GET, "/iam/users", &headers, None).await;
    read.expect(200);
    let reader = format!(
        "api_key:{} credential.used account:{account}",
        id_of(&reader)
    );
    assert_eq!(used().await, [root.clone(), reader.clone()]);
    // What is on the schedule, or behind a read of what is old, is nobody's.
    world.clock.advance(Duration::from_secs(3600));
    let system = format!("system: credential.used account:{account}");
    let scheduled = async { while used().await.len() < 3 {} };
    tokio::time::timeout(crate::world::HANG, scheduled)
        .await
        .unwrap();
    assert_eq!(used().await[..3], [root, reader, system]);
}

#[tokio::test]
async fn a_dead_credential_is_told_once_and_so_is_every_try_of_it() {
    let world = World::new().await;
    let account = world.link_admin().await;
    world
        .mutate(&json!([{"op": "revoke_token", "token": "system_admin"}]))
        .await;
    assert_eq!(world.walk(&account).await["reason"], "credential_refused");
    let walks = format!("/accounts/{account}/walks?wait=60");
    for _ in 0..2 {
        world.post(&walks).await.refused(412, "account_inactive");
    }
    let of_account = entries(&world, &format!("subject_id={account}")).await;
    let actions: Vec<_> = of_account.iter().map(|entry| &entry["action"]).collect();
    assert_eq!(
        actions,
        [
            "account.linked",
            "credential.used",
            "credential.used",
            "credential.reauth_required",
            "credential.used",
            "credential.used",
        ]
    );
    assert_eq!(
        of_account[3]["actor"],
        json!({"kind": "system", "id": null})
    );
    for tried in &of_account[4..] {
        assert_eq!(tried["detail"], json!({"for": "reactivation"}));
        assert_eq!(tried["actor"]["id"], id_of(&world.key));
    }
}

#[tokio::test]
async fn what_is_refused_leaves_no_entry() {
    let world = World::new().await;
    let account = world.link_admin().await;
    let before = entries(&world, "").await;
    world
        .try_link("nobody-s-token")
        .await
        .refused(422, "credential_refused");
    world.provider_answers(503).await;
    let token = world.admin_token();
    world
        .try_link(&token)
        .await
        .refused(502, "provider_unavailable");
    let change =
        json!({"label": "x", "credential": {"type": "access_token", "access_token": token}});
    let own = format!("/accounts/{account}");
    let change = world.call(Method::PATCH, &own, Some(&change)).await;
    change.refused(502, "provider_unavailable");
    world.no_faults().await;
    let admin = json!({"scopes": ["admin"]});
    let admin = world.call(Method::POST, "/api_keys", Some(&admin)).await;
    admin.refused(403, "admin_not_permitted");
    for path in ["/api_keys/x", "/accounts/x"] {
        let absent = world.call(Method::DELETE, path, None).await;
        assert_eq!(absent.status.as_u16(), 404);
    }
    for nothing in ["{}", r#"{"type": "production"}"#] {
        let nothing: Value = serde_json::from_str(nothing).unwrap();
        world.call(Method::PATCH, &own, Some(&nothing)).await;
    }
    assert_eq!(entries(&world, "").await, before);
}

#[tokio::test]
async fn each_project_reads_its_own_log_and_nobody_without_the_scope() {
    let world = World::new().await;
    world.link_admin().await;
    let mine = world.get("/audit?page_size=100").await.expect(200);
    let stranger = world.project("two", &Scope::ALL).await;
    let theirs = with_key(&world, &stranger, "/audit").await.expect(200);
    let theirs: Vec<Value> = theirs["data"].as_array().unwrap().clone();
    assert_eq!(
        told(&theirs),
        [
            format!("operator: api_key.created api_key:{}", id_of(&stranger)),
            "operator: project.created project:two".to_owned(),
        ]
    );
    // Not by naming what is another's either.
    for entry in mine["data"].as_array().unwrap() {
        let id = entry["subject"]["id"].as_str().unwrap();
        let path = format!("/audit?subject_id={id}");
        let found = with_key(&world, &stranger, &path).await.expect(200);
        assert_eq!(found, json!({"data": [], "next": null}));
    }

    let answer = world.send(Method::GET, "/audit", &[], None).await;
    answer.refused(401, "unauthorized");
    let others: Vec<_> = Scope::ALL
        .into_iter()
        .filter(|scope| *scope != Scope::Admin)
        .collect();
    let reader = world.key_of("one", &others).await;
    let answer = with_key(&world, &reader, "/audit").await;
    answer.refused(403, "key_scope_missing");
}

#[tokio::test]
async fn a_question_that_cannot_be_meant_is_refused() {
    let world = World::new().await;
    for (query, code) in [
        ("action=account.Linked", "invalid_parameter"),
        ("action=", "invalid_parameter"),
        ("action=used", "invalid_parameter"),
        (
            "action=account.linked&action=account.updated",
            "invalid_parameter",
        ),
        ("subject_id=", "invalid_parameter"),
        ("subject_id=a%20b", "invalid_parameter"),
        ("subject_id=%00", "invalid_parameter"),
        ("actor=system", "invalid_parameter"),
        ("page_size=0", "invalid_parameter"),
        ("page_size=101", "invalid_parameter"),
        ("next=x", "invalid_cursor"),
        ("next=-1", "invalid_cursor"),
        ("next=%2B1", "invalid_cursor"),
        ("next=01", "invalid_cursor"),
        ("next=1", "invalid_cursor"),
    ] {
        let answer = world.get(&format!("/audit?{query}")).await;
        answer.refused(400, code);
    }
    let long = "a".repeat(65);
    let answer = world.get(&format!("/audit?subject_id={long}")).await;
    answer.refused(400, "invalid_parameter");
}

#[tokio::test]
async fn the_log_is_there_after_a_restart_and_goes_on() {
    let mut world = World::new().await;
    world.link_admin().await;
    let before = entries(&world, "").await;
    world.restart().await;
    assert_eq!(entries(&world, "").await, before);
    world.key_of("one", &[Scope::IamRead]).await;
    let after = entries(&world, "").await;
    assert_eq!(after[..before.len()], before);
    assert_eq!(after.len(), before.len() + 1);
    assert_eq!(after[before.len()]["sequence"], before.len() + 1);
}
