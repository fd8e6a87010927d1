//! `/accounts`: link, list, look at, and delete.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::world::{Reply, World, reply};

/// Sends a body as it is.
async fn post(world: &World, media_type: &str, body: impl Into<reqwest::Body>) -> Reply {
    let request = world
        .client
        .post(format!("{}/accounts", world.base))
        .bearer_auth(&world.key)
        .header("content-type", media_type)
        .body(body);
    reply(request).await
}

async fn count(world: &World) -> usize {
    let list = world.get("/accounts").await.expect(200);
    list.as_array().unwrap().len()
}

#[tokio::test]
async fn what_linking_answers_is_what_the_account_is() {
    let world = World::new().await;
    let mut body = world.account_body(&world.admin_token());
    body["origin_username"] = json!("ana@example.org");
    body["label"] = json!("Ünïcode 東京 🦊");
    body["type"] = json!("test");
    let linked = world
        .call(Method::POST, "/accounts", Some(&body))
        .await
        .expect(201);
    for field in [
        "provider",
        "origin_owner_id",
        "origin_owner_name",
        "base_url",
    ] {
        assert_eq!(linked[field], body[field], "{field}");
    }
    for field in ["origin_username", "label", "type"] {
        assert_eq!(linked[field], body[field], "{field}");
    }
    assert_eq!(linked["provider_name"], "Smartsheet");
    assert_eq!(linked["status"], "active");
    assert_eq!(linked["status_reasons"], json!([]));
    assert_eq!(linked["region"], Value::Null);
    assert_eq!(linked["is_admin"], true);
    assert_eq!(linked["organization"]["name"], "Example Ltd");
    for field in ["created_at", "updated_at"] {
        let at = linked[field].as_str().unwrap();
        at.parse::<jiff::Timestamp>().unwrap();
    }
    let text = linked.to_string();
    assert!(!text.contains(&world.admin_token()) && !text.contains("access_token\":"));

    let id = linked["id"].as_str().unwrap();
    let path = format!("/accounts/{id}");
    assert_eq!(world.get(&path).await.expect(200), linked);
    assert_eq!(world.get("/accounts").await.expect(200), json!([linked]));
    // The first walk changes nothing of it but when it was last looked at.
    world.read(id, "/iam/users").await.expect(200);
    let mut later = world.get(&path).await.expect(200);
    later["updated_at"] = linked["updated_at"].clone();
    assert_eq!(later, linked);
}

#[tokio::test]
async fn the_same_token_may_be_linked_twice_and_the_two_live_apart() {
    let world = World::new().await;
    let first = world.link_admin().await;
    let second = world.link_admin().await;
    assert_ne!(first, second);
    assert_eq!(count(&world).await, 2);
    world
        .call(
            Method::DELETE,
            &format!("/accounts/{first}?purge=true"),
            None,
        )
        .await
        .expect(200);
    assert_eq!(world.walk(&second).await["state"], "sealed");
    world.read(&second, "/iam/users").await.expect(200);
}

#[tokio::test]
async fn accounts_are_listed_oldest_first_as_a_bare_array_in_pages() {
    let world = World::new().await;
    let mut linked = Vec::new();
    for _ in 0..5 {
        linked.push(json!(world.link(&world.admin_token()).await));
    }
    let page = async |query: &str| -> Vec<Value> {
        let list = world.get(&format!("/accounts{query}")).await.expect(200);
        let list = list.as_array().unwrap();
        list.iter().map(|account| account["id"].clone()).collect()
    };
    assert_eq!(page("").await, linked);
    assert_eq!(page("?page_size=2").await, linked[..2]);
    assert_eq!(page("?page=2&page_size=2").await, linked[2..4]);
    assert_eq!(page("?page_size=2&page=3").await, linked[4..]);
    assert!(page("?page=4&page_size=2").await.is_empty());
    assert!(page("?page=1000000&page_size=100").await.is_empty());
    for query in ["page=0", "page=-1", "page=x", "page=18446744073709551616"] {
        let reply = world.get(&format!("/accounts?{query}")).await;
        let body = reply.refused(400, "invalid_parameter");
        assert!(body["message"].as_str().unwrap().contains("page"));
    }
}

#[tokio::test]
async fn accounts_are_chosen_by_filters_that_repeat_their_name() {
    let world = World::new().await;
    let mut ids = Vec::new();
    for owner in ["a", "b", "a, b"] {
        let mut body = world.account_body(&world.admin_token());
        body["origin_owner_id"] = json!(owner);
        let linked = world
            .call(Method::POST, "/accounts", Some(&body))
            .await
            .expect(201);
        ids.push(linked["id"].as_str().unwrap().to_owned());
    }
    let [a, b, both] = &ids[..] else {
        panic!("three were linked")
    };
    // Once they have been walked, two can be told apart by their status.
    for id in &ids {
        world.read(id, "/iam/users").await.expect(200);
    }
    let refused = json!({"kind": "status", "status": 401, "error_code": 1002});
    world
        .faults(&json!([{"match": {}, "fault": refused}]))
        .await;
    world.walk(b).await;

    for (query, expected) in [
        (format!("account_ids={a}"), vec![a]),
        (format!("account_ids={both}&account_ids={a}"), vec![a, both]),
        (format!("account_ids={a}&account_ids=nothing"), vec![a]),
        ("account_ids=nothing".to_owned(), vec![]),
        ("provider=smartsheet".to_owned(), vec![a, b, both]),
        (
            "providers=nobody&providers=smartsheet".to_owned(),
            vec![a, b, both],
        ),
        ("providers=nobody".to_owned(), vec![]),
        ("providers=smartsheet,nobody".to_owned(), vec![]),
        ("provider=nobody&providers=smartsheet".to_owned(), vec![]),
        ("status=active".to_owned(), vec![a, both]),
        ("status=error".to_owned(), vec![b]),
        ("status=error&status=active".to_owned(), vec![a, b, both]),
        ("status=inactive&status=expired".to_owned(), vec![]),
        ("origin_owner_id=a".to_owned(), vec![a]),
        ("origin_owner_id=A".to_owned(), vec![]),
        (
            "origin_owner_ids=b&origin_owner_ids=a".to_owned(),
            vec![a, b],
        ),
        ("origin_owner_ids=a%2C+b".to_owned(), vec![both]),
        ("origin_owner_id=a&origin_owner_ids=b".to_owned(), vec![]),
        (
            format!("status=active&account_ids={a}&account_ids={b}"),
            vec![a],
        ),
        ("status=active&page=2&page_size=1".to_owned(), vec![both]),
        ("status=active&page=3&page_size=1".to_owned(), vec![]),
    ] {
        let list = world.get(&format!("/accounts?{query}")).await.expect(200);
        let found: Vec<_> = list
            .as_array()
            .unwrap()
            .iter()
            .map(|account| account["id"].as_str().unwrap())
            .collect();
        assert_eq!(found, expected, "{query}");
    }

    for (query, named) in [
        ("provider=smartsheet&provider=smartsheet", "provider"),
        ("origin_owner_id=a&origin_owner_id=a", "origin_owner_id"),
        ("page=1&page=1", "page"),
        ("provider=", "provider"),
        ("providers=smartsheet&providers=", "providers"),
        ("account_ids", "account_ids"),
        ("origin_owner_ids=", "origin_owner_ids"),
        ("status=", "status"),
        ("status=actve", "actve"),
        ("status=active,error", "active,error"),
        ("statuses=active", "statuses"),
        ("providers%5B%5D=smartsheet", "providers[]"),
    ] {
        let reply = world.get(&format!("/accounts?{query}")).await;
        let body = reply.refused(400, "invalid_parameter");
        let message = body["message"].as_str().unwrap();
        assert!(message.contains(named), "{query}: {message}");
    }
}

#[tokio::test]
async fn no_filter_reaches_into_another_project() {
    let world = World::new().await;
    let theirs = world.link(&world.admin_token()).await;
    let key = world
        .project("two", &rolecall::model::api_keys::Scope::ALL)
        .await;
    let bearer = format!("Bearer {key}");
    for query in [
        String::new(),
        format!("?account_ids={theirs}"),
        "?origin_owner_id=customer-1".to_owned(),
        "?provider=smartsheet&status=active".to_owned(),
    ] {
        let path = format!("/accounts{query}");
        let headers = [("authorization", bearer.as_str())];
        let list = world.send(Method::GET, &path, &headers, None).await;
        assert_eq!(list.expect(200), json!([]), "{query}");
    }
}

#[tokio::test]
async fn an_account_that_is_deleted_is_gone_from_everywhere() {
    let world = World::new().await;
    let account = world.link_admin().await;
    let walk = world.walk(&account).await;
    let path = format!("/accounts/{account}");
    let shown = world.get(&path).await.expect(200);
    let purge = format!("{path}?purge=true");
    let mut deleted = world.call(Method::DELETE, &purge, None).await.expect(200);
    let revocation = deleted.as_object_mut().unwrap().remove("revocation");
    assert_eq!(revocation, Some(json!("not_asked")));
    assert_eq!(deleted, shown);

    assert_eq!(count(&world).await, 0);
    let walk = walk["id"].as_str().unwrap();
    for (method, path) in [
        (Method::GET, path.clone()),
        (Method::DELETE, path.clone()),
        (Method::GET, format!("{path}/walks")),
        (Method::POST, format!("{path}/walks")),
        (Method::GET, format!("{path}/walks/{walk}")),
        (Method::GET, format!("{path}/walks/{walk}/suspects")),
        (Method::POST, format!("{path}/walks/{walk}/release")),
    ] {
        let reply = world.call(method, &path, None).await;
        reply.refused(404, "account_not_found");
    }
    for path in [
        "/iam",
        "/iam/users",
        "/iam/roles/system_admin",
        "/iam/me",
        "/unified/iam/groups",
    ] {
        let reply = world.read(&account, path).await;
        reply.refused(404, "account_not_found");
    }
}

#[tokio::test]
async fn after_an_account_is_deleted_the_provider_is_not_called_for_it_again() {
    let world = World::new().await;
    let account = world.link_admin().await;
    world.provider_takes(Duration::from_millis(50)).await;
    let seq = world.provider_calls().await;
    // One walk that runs, and one that waits for its turn.
    let walks = format!("/accounts/{account}/walks");
    world.post(&walks).await.expect(202);
    world.provider_is_called_after(seq).await;
    world.post(&walks).await.expect(202);
    let deleted = world
        .call(Method::DELETE, &format!("/accounts/{account}"), None)
        .await;
    deleted.expect(200);
    let seq = world.provider_calls().await;
    // Another account is walked from beginning to end meanwhile: time enough for more calls.
    let member = &world.simulator.announcement().tokens.member;
    let other = world.link(member).await;
    assert_eq!(world.walk(&other).await["state"], "sealed");
    let log = world.provider_log(seq).await;
    let theirs: Vec<_> = log
        .iter()
        .filter(|call| call["token"] == "system_admin")
        .collect();
    assert!(theirs.is_empty(), "{theirs:?}");
}

#[tokio::test]
async fn whoever_waits_for_a_walk_of_a_deleted_account_is_told() {
    let world = World::new().await;
    let account = world.link_admin().await;
    let seq = world.provider_calls().await;
    world.provider_takes(Duration::from_secs(20)).await;
    let walks = format!("/accounts/{account}/walks?wait=60");
    let path = format!("/accounts/{account}");
    let delete = async {
        world.provider_is_called_after(seq).await;
        world.call(Method::DELETE, &path, None).await
    };
    let (walk, deleted) = futures_util::future::join(world.post(&walks), delete).await;
    deleted.expect(200);
    let walk = walk.expect(200);
    assert_eq!(walk["state"], "failed");
    assert_eq!(walk["reason"], "interrupted");
}

/// A body to link with, one field of it replaced.
fn with(world: &World, field: &str, value: Value) -> Value {
    let mut body = world.account_body(&world.admin_token());
    body[field] = value;
    body
}

#[tokio::test]
async fn a_field_that_is_missing_unknown_or_of_the_wrong_type_is_refused() {
    let world = World::new().await;
    let seq = world.provider_calls().await;
    let credential = |value: Value| ("credential", value);
    let long = "x".repeat(256);
    for (field, value) in [
        ("provider", json!("nobody")),
        ("provider", json!("")),
        ("provider", json!(1)),
        ("provider", Value::Null),
        ("origin_owner_id", json!("")),
        ("origin_owner_id", json!("   ")),
        ("origin_owner_id", json!(17)),
        ("origin_owner_id", json!(["a"])),
        ("origin_owner_id", json!("a\nb")),
        ("origin_owner_id", json!("a\u{0}b")),
        ("origin_owner_id", json!("a\u{85}b")),
        ("origin_owner_id", json!(long)),
        ("origin_owner_name", json!("\u{7f}")),
        ("origin_owner_name", json!(long)),
        ("origin_username", json!("a\tb")),
        ("origin_username", json!("")),
        ("label", json!("a\rb")),
        ("label", json!({})),
        ("type", json!("sandbox")),
        ("region", json!("us")),
        ("region", json!("mars")),
        ("base_url", Value::Null),
        ("base_url", json!(["http://127.0.0.1"])),
        ("surprise", json!(true)),
        ("id", json!("0198c3f0-0000-7000-8000-000000000000")),
        ("project", json!("two")),
        credential(Value::Null),
        credential(json!("token")),
        credential(json!({})),
        credential(json!({"type": "access_token"})),
        credential(json!({"type": "oauth", "access_token": "x"})),
        credential(json!({"access_token": "x"})),
        credential(json!({"type": "access_token", "access_token": ""})),
        credential(json!({"type": "access_token", "access_token": "a b"})),
        credential(json!({"type": "access_token", "access_token": "a\r\nx: y"})),
        credential(json!({"type": "access_token", "access_token": "é"})),
        credential(json!({"type": "access_token", "access_token": "x".repeat(4097)})),
        credential(json!({"type": "access_token", "access_token": 17})),
        credential(json!({"type": "access_token", "access_token": "x", "scope": "y"})),
    ] {
        let body = with(&world, field, value);
        let reply = world.call(Method::POST, "/accounts", Some(&body)).await;
        let what = format!("{field}: {}", body[field]);
        assert_eq!(reply.status.as_u16(), 400, "{what}");
        let refusal = reply.refused(400, "invalid_body");
        assert!(
            !refusal.to_string().contains(&world.admin_token()),
            "{what}"
        );
    }
    for missing in [
        "provider",
        "origin_owner_id",
        "origin_owner_name",
        "credential",
        "base_url",
    ] {
        let mut body = world.account_body(&world.admin_token());
        body.as_object_mut().unwrap().remove(missing);
        let reply = world.call(Method::POST, "/accounts", Some(&body)).await;
        let refusal = reply.refused(400, "invalid_body");
        let message = refusal["message"].as_str().unwrap();
        assert!(message.contains(missing), "{message}");
    }
    assert_eq!(count(&world).await, 0);
    assert_eq!(world.provider_calls().await, seq, "the provider was asked");
}

#[tokio::test]
async fn a_body_that_is_no_sound_json_object_is_refused() {
    let world = World::new().await;
    let sound = world.account_body(&world.admin_token()).to_string();
    let json = "application/json";
    let twice = sound.replacen('{', "{\"provider\":\"smartsheet\",", 1);
    let twice_inside = sound.replacen(
        "\"type\":\"access_token\"",
        "\"type\":\"access_token\",\"type\":\"access_token\"",
        1,
    );
    assert_ne!(sound, twice_inside);
    let nested = |depth: usize| {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        sound.replacen('{', &format!("{{\"deep\":{open}{close},"), 1)
    };
    let mut large = sound.replacen('{', "{\"label\":\"", 1);
    large.insert_str(
        "{\"label\":\"".len(),
        &format!("{}\",", "x".repeat(1 << 20)),
    );
    for body in [
        String::new(),
        " ".to_owned(),
        "null".to_owned(),
        "[]".to_owned(),
        format!("[{sound}]"),
        "\"text\"".to_owned(),
        sound[..sound.len() - 1].to_owned(),
        format!("{sound}{sound}"),
        format!("{sound},"),
        sound.replace('"', "'"),
        twice,
        twice_inside,
        nested(10),
        nested(64),
        nested(100_000),
        large,
    ] {
        let start: String = body.chars().take(80).collect();
        let reply = post(&world, json, body).await;
        assert_eq!(reply.status.as_u16(), 400, "{start}");
        let refusal = reply.refused(400, "invalid_body");
        assert!(
            !refusal.to_string().contains(&world.admin_token()),
            "{start}"
        );
    }
    let mut not_utf8 = sound.clone().into_bytes();
    let at = not_utf8.iter().position(|byte| *byte == b'C').unwrap();
    not_utf8[at] = 0xff;
    post(&world, json, not_utf8)
        .await
        .refused(400, "invalid_body");
    assert_eq!(count(&world).await, 0);
}

#[tokio::test]
async fn a_body_of_another_type_or_coding_is_refused() {
    let world = World::new().await;
    let sound = world.account_body(&world.admin_token()).to_string();
    for media_type in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/jsonx",
        "application/problem+json",
        "multipart/form-data; boundary=x",
    ] {
        let reply = post(&world, media_type, sound.clone()).await;
        let body = reply.refused(400, "invalid_body");
        assert!(
            body["message"]
                .as_str()
                .unwrap()
                .contains("application/json")
        );
    }
    let url = format!("{}/accounts", world.base);
    let request = || world.client.post(&url).bearer_auth(&world.key);
    let untyped = request().body(sound.clone());
    reply(untyped).await.refused(400, "invalid_body");
    for coding in ["gzip", "zstd", "identity", "x"] {
        let coded = request()
            .header("content-type", "application/json")
            .header("content-encoding", coding)
            .body(sound.clone());
        reply(coded).await.refused(400, "invalid_body");
    }
    assert_eq!(count(&world).await, 0);
    // Case and parameters of the type are no matter.
    let reply = post(&world, "Application/JSON; charset=utf-8", sound).await;
    reply.expect(201);
}

#[tokio::test]
async fn a_base_url_is_one_that_the_operator_allows() {
    let world = World::new().await;
    let seq = world.provider_calls().await;
    let allowed = world.simulator.announcement().api_base.clone();
    let port = allowed.split(':').nth(2).unwrap().to_owned();
    for base in [
        "https://api.smartsheet.com.evil.example/2.0".to_owned(),
        "https://169.254.169.254/latest".to_owned(),
        "http://10.0.0.1/2.0".to_owned(),
        "http://[::ffff:10.0.0.1]/2.0".to_owned(),
        "http://0.0.0.0/2.0".to_owned(),
        format!("http://localhost:{port}"),
        format!("http://user:secret@127.0.0.1:{port}"),
        format!("{allowed}/"),
        format!("{allowed}?x=1"),
        format!("{allowed}#x"),
        "file:///etc/passwd".to_owned(),
        "127.0.0.1".to_owned(),
        String::new(),
    ] {
        let body = with(&world, "base_url", json!(base));
        let reply = world.call(Method::POST, "/accounts", Some(&body)).await;
        let refusal = reply.refused(400, "base_url_not_allowed");
        let is_repeated = !base.is_empty() && refusal.to_string().contains(&base);
        assert!(!is_repeated, "{base}");
    }
    assert_eq!(count(&world).await, 0);
    assert_eq!(world.provider_calls().await, seq);
}

#[tokio::test]
async fn an_unknown_parameter_of_linking_is_named_before_anything_is_done() {
    let world = World::new().await;
    let body = world.account_body(&world.admin_token());
    let reply = world
        .call(Method::POST, "/accounts?dry_run=true", Some(&body))
        .await;
    let refusal = reply.refused(400, "invalid_parameter");
    assert!(refusal["message"].as_str().unwrap().contains("dry_run"));
    assert_eq!(count(&world).await, 0);
}

#[tokio::test]
async fn a_provider_that_throttles_is_told_with_its_own_wait_and_nothing_is_stored() {
    let world = World::new().await;
    let throttled = json!({
        "kind": "status", "status": 429, "error_code": 4003, "retry_after": "120",
    });
    world
        .faults(&json!([{"match": {}, "fault": throttled}]))
        .await;
    let reply = world.try_link(&world.admin_token()).await;
    let refusal = reply.refused(429, "provider_throttled");
    assert_eq!(refusal["provider_errors"][0]["status"], 429);
    assert_eq!(refusal["provider_errors"][0]["code"], 4003);
    let wait: u64 = reply.header("retry-after").unwrap().parse().unwrap();
    assert!((115..=120).contains(&wait), "{wait}");
    assert_eq!(count(&world).await, 0);
}

#[tokio::test]
async fn a_walk_of_a_throttled_token_waits_and_reads_go_on() {
    let world = World::new().await;
    let account = world.link_admin().await;
    let throttled = json!({
        "kind": "status", "status": 429, "error_code": 4003, "retry_after": "120",
    });
    world
        .faults(&json!([{"match": {}, "times": 1, "fault": throttled}]))
        .await;
    let seq = world.provider_calls().await;
    let walk = world
        .post(&format!("/accounts/{account}/walks?wait=1"))
        .await
        .expect(202);
    assert_eq!(walk["state"], "running");
    world.read(&account, "/iam/users").await.expect(200);
    let log = world.provider_log(seq).await;
    assert_eq!(log.len(), 1, "nothing is asked within the wait");
}
