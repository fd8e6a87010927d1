//! Accounts that are linked by a token, keys, and who is in a directory.

use reqwest::Method;
use serde_json::{Value, json};

use super::{Search, cage::Cage};
use crate::world::{Reply, World};

/// The person behind the token, and somebody in the directory, with names that stand out.
const OWNER_NAME: &str = "Quilla \"Owner\" Zéphyr-Canary";
const PERSON_NAME: &str = "Wändelgard <Canary> O'Person";
const PERSON_EMAIL: &str = "person.canary.7f3a@example.org";
const MEMBER_EMAIL: &str = "outsider.canary.91bc@contractor.example";

#[tokio::test]
async fn canaries_in_every_place_of_a_secret_are_found_nowhere() {
    let world = World::new().await;
    let truth = world.truth().await;
    let owner = &truth["users"][0];
    let (owner_id, owner_email) = (&owner["id"], owner["email"].as_str().unwrap());
    let added = world
        .mutate(&json!([
            {"op": "update_user", "id": owner_id, "lastName": OWNER_NAME},
            {"op": "add_user", "email": PERSON_EMAIL, "lastName": PERSON_NAME},
            {"op": "add_user", "email": MEMBER_EMAIL, "lastName": PERSON_NAME},
            {"op": "mint_token", "login": owner_email},
        ]))
        .await;
    let token = added[3]["value"].as_str().unwrap();
    let group = &truth["groups"][0]["id"];
    world
        .mutate(&json!([{"op": "add_member", "group_id": group, "user_id": added[1]["id"]}]))
        .await;

    let cage = Cage::new(None).await;
    let key = cage.key.as_str();
    let refused_token = "refused-token-canary-5d1e9b77c0";
    let wrong_key = format!("{}x", &key[..key.len() - 1]);
    let mut secrets = vec![
        ("the provider's token", token.to_owned()),
        ("a refused token", refused_token.to_owned()),
        ("the API key", key.to_owned()),
        ("a wrong API key", wrong_key.clone()),
        ("the key ring", cage.ring_key.clone()),
    ];
    let people = [
        ("the token's owner's name", OWNER_NAME),
        ("the token's owner's address", owner_email),
        ("a person's name", PERSON_NAME),
        ("a person's address", PERSON_EMAIL),
        ("an outsider's address", MEMBER_EMAIL),
    ];
    let whispers = [
        ("the customer's name", "Customer Canary 66ab"),
        ("the customer's user", "user.canary.d00d@customer.example"),
    ];

    let process = cage.start(&[]).await;
    let ask = async |method: Method, path: &str, headers: &[(&str, &str)], body: Option<Value>| {
        process.ask(method, path, headers, body.as_ref()).await
    };
    let bearer = format!("Bearer {key}");
    let auth = ("authorization", bearer.as_str());
    let body_with = |token: &str| {
        let mut body = world.account_body(token);
        body["origin_owner_name"] = json!("Customer Canary 66ab");
        body["origin_username"] = json!("user.canary.d00d@customer.example");
        body
    };
    let mut errors: Vec<Reply> = Vec::new();

    // A key made through the API, used, looked at, mistaken for an id, and revoked.
    let made = json!({"scopes": ["accounts:read"], "label": "a feed"});
    let made = ask(Method::POST, "/api_keys", &[auth], Some(made)).await;
    let made = made.expect(201);
    let (made_id, made_key) = (made["id"].as_str().unwrap(), made["key"].as_str().unwrap());
    secrets.push(("an API key made through the API", made_key.to_owned()));
    let made_bearer = format!("Bearer {made_key}");
    let made_auth = ("authorization", made_bearer.as_str());
    let listed = ask(Method::GET, "/accounts", &[made_auth], None).await;
    listed.expect(200);
    errors.push(ask(Method::GET, "/api_keys", &[auth], None).await);
    errors.push(ask(Method::POST, "/api_keys", &[made_auth], None).await);
    errors.push(
        ask(
            Method::DELETE,
            &format!("/api_keys/{made_key}"),
            &[auth],
            None,
        )
        .await,
    );
    for mistaken in [
        json!({"scopes": [made_key]}),
        json!({"scopes": made_key}),
        json!({"scopes": ["iam:read"], "expires_at": made_key}),
    ] {
        errors.push(ask(Method::POST, "/api_keys", &[auth], Some(mistaken)).await);
    }
    let one = format!("/api_keys/{made_id}");
    let relabelled = json!({"label": "a former feed"});
    errors.push(ask(Method::PATCH, &one, &[auth], Some(relabelled)).await);
    errors.push(ask(Method::DELETE, &one, &[auth], None).await);
    errors.push(ask(Method::GET, "/accounts", &[made_auth], None).await);

    // Linked, and refused in every way.
    let linked = ask(Method::POST, "/accounts", &[auth], Some(body_with(token))).await;
    let account = linked.expect(201)["id"].as_str().unwrap().to_owned();
    let named = ("x-account-id", account.as_str());
    let mut misplaced = body_with(token);
    misplaced["credential"]["type"] = json!(token);
    let mut mistyped = body_with(token);
    mistyped["credential"] = json!(token);
    let mut unknown = body_with(token);
    unknown["credential"]["token"] = json!(token);
    let own = format!("/accounts/{account}");
    for body in [body_with(refused_token), misplaced, mistyped, unknown] {
        let change = json!({"credential": body["credential"], "secrets": {"token": token}});
        errors.push(ask(Method::PATCH, &own, &[auth], Some(change)).await);
        errors.push(ask(Method::POST, "/accounts", &[auth], Some(body)).await);
    }
    let change = json!({"credential": body_with(token)["credential"]});
    let replaced = ask(Method::PATCH, &own, &[auth], Some(change)).await;
    replaced.expect(200);
    for wrong in [format!("Bearer {wrong_key}"), format!("Basic {wrong_key}")] {
        let wrong = ("authorization", wrong.as_str());
        errors.push(ask(Method::GET, "/accounts", &[wrong], None).await);
    }

    // Read whole, so that the directory is in memory, in pages and in the store.
    let users = ask(
        Method::GET,
        "/iam/users?page_size=100",
        &[auth, named],
        None,
    )
    .await;
    let users = users.expect(200).to_string();
    for shown in [PERSON_EMAIL, MEMBER_EMAIL, owner_email] {
        assert!(
            users.contains(shown),
            "the canary {shown} is not in the cage"
        );
    }

    // Asked for by names and secrets, as people do by mistake.
    for path in [
        format!("/iam/users/{PERSON_EMAIL}"),
        format!("/iam/users?filter%5Bemail%5D={PERSON_EMAIL}"),
        format!("/accounts/{key}"),
        format!("/{key}"),
        format!("/iam/users?next={key}"),
        format!("/accounts/{account}/walks/{token}"),
        format!("/accounts?api_key={key}&x={PERSON_EMAIL}"),
    ] {
        errors.push(ask(Method::GET, &path, &[auth, named], None).await);
    }
    errors.push(
        ask(
            Method::GET,
            "/iam/users",
            &[auth, ("x-account-id", key)],
            None,
        )
        .await,
    );

    // And a provider that breaks in every way, and repeats what it was told.
    let echo = format!("{token} {PERSON_EMAIL} {PERSON_NAME}");
    let echoed = json!({"errorCode": 4000, "message": echo, "refId": echo}).to_string();
    let walks = format!("/accounts/{account}/walks?wait=60");
    for fault in [
        json!({"kind": "status", "status": 500, "error_code": 4000}),
        json!({"kind": "body", "status": 500, "content_type": "application/json", "body": echoed}),
        json!({"kind": "body", "status": 403, "content_type": "application/json", "body": echoed}),
        json!({"kind": "body", "status": 200, "content_type": "text/html", "body": echo}),
        json!({"kind": "body", "status": 200, "content_type": "application/json",
            "body": json!({"id": echo, "email": [echo], "account": echo}).to_string()}),
        json!({"kind": "truncate", "bytes": 300}),
        json!({"kind": "omit_field", "field": "email"}),
        json!({"kind": "unknown_enum", "field": "status"}),
        json!({"kind": "empty_page"}),
        json!({"kind": "repeat_page"}),
        json!({"kind": "reset"}),
        json!({"kind": "status", "status": 401, "error_code": 1002}),
    ] {
        let times = if fault["kind"] == "reset" {
            json!(2)
        } else {
            Value::Null
        };
        let mut rule = json!({"match": {}, "fault": fault});
        if !times.is_null() {
            rule["times"] = times;
        }
        world.faults(&json!([rule])).await;
        let walk = ask(Method::POST, &walks, &[auth], None).await;
        assert!([200, 412].contains(&walk.status.as_u16()), "{fault}");
        errors.push(walk);
        errors.push(ask(Method::POST, "/accounts", &[auth], Some(body_with(token))).await);
        world.no_faults().await;
        let shown = ask(
            Method::GET,
            &format!("/accounts/{account}/walks"),
            &[auth],
            None,
        )
        .await;
        shown.expect(200);
        errors.push(shown);
    }
    // What was told of all this holds ids and plain words.
    let audit = ask(Method::GET, "/audit?page_size=100", &[auth], None).await;
    let audited = audit.expect(200).to_string();
    for action in ["credential.used", "credential.replaced", "api_key.revoked"] {
        assert!(audited.contains(action), "{audited}");
    }
    let printed = cage
        .told(&["audit", "list", "--limit", "1000", "--json"])
        .await;
    // What is counted of all this.
    let metrics = ask(Method::GET, "/metrics", &[], None).await;
    assert_eq!(metrics.status, 200);
    let counted = String::from_utf8(metrics.bytes).unwrap();
    for part in [
        "outcome=\"invalid_reply\"",
        "route=\"/iam/users/{record}\"",
        "state=\"failed\"",
        "rolecall_accounts{state=\"error\"}",
    ] {
        assert!(counted.contains(part), "{part} is not counted: {counted}");
    }
    let mut stored = cage.stored().await;
    let names: Vec<_> = stored.iter().map(|(name, _)| name).collect();
    assert!(names.iter().any(|name| name.ends_with("-wal")), "{names:?}");
    let log = process.stop().await;

    // The cage was in order: the log is one of TRACE, and has a line of what was done.
    let text = String::from_utf8_lossy(&log);
    for part in [
        "TRACE",
        "API key made",
        "API key changed",
        "API key revoked",
        "account linked",
        "provider call",
        "walk failed",
    ] {
        assert!(text.contains(part), "the log has no {part}");
    }

    stored.extend(cage.stored().await);
    let secrets = secrets.iter().map(|(what, text)| (*what, text.as_str()));
    let mut secret = Search::new(secrets.clone());
    let mut personal = Search::new(secrets.clone().chain(people));
    let mut anything = Search::new(secrets.chain(people).chain(whispers));
    anything.look("the log", &log);
    anything.look("the metrics", counted.as_bytes());
    anything.look("the audit log", audited.as_bytes());
    anything.look("the audit log as printed", printed.out.as_bytes());
    anything.look("what was said beside it", printed.err.as_bytes());
    for reply in &errors {
        let headers = format!("{:?}", reply.headers);
        if reply.status.is_success() {
            secret.look("an answer", &reply.bytes);
        } else {
            anything.look("an error", &reply.bytes);
            anything.look("an error's headers", headers.as_bytes());
        }
    }
    for (name, bytes) in &stored {
        personal.look(name, bytes);
    }
    for search in [secret, personal, anything] {
        assert!(search.found.is_empty(), "{:#?}", search.found);
    }
}
