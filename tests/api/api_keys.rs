//! `/api_keys`: make, list, look at, change, revoke. And what a revocation promises (G10).

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use reqwest::Method;
use rolecall::model::api_keys::Scope;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use crate::world::{Plan, Reply, World, reply};

/// A call with another key than the world's own.
async fn with_key(world: &World, key: &str, method: Method, path: &str) -> Reply {
    let bearer = format!("Bearer {key}");
    let headers = [("authorization", bearer.as_str())];
    world.send(method, path, &headers, None).await
}

async fn make(world: &World, body: &Value) -> Value {
    let made = world.call(Method::POST, "/api_keys", Some(body)).await;
    made.expect(201)
}

async fn patch(world: &World, id: &Value, body: &Value) -> Reply {
    let path = format!("/api_keys/{}", id.as_str().unwrap());
    world.call(Method::PATCH, &path, Some(body)).await
}

async fn get(world: &World, id: &Value) -> Value {
    let path = format!("/api_keys/{}", id.as_str().unwrap());
    world.get(&path).await.expect(200)
}

async fn revoke(world: &World, id: &Value) -> Reply {
    let path = format!("/api_keys/{}", id.as_str().unwrap());
    world.call(Method::DELETE, &path, None).await
}

async fn count(world: &World) -> usize {
    let list = world.get("/api_keys?page_size=100").await.expect(200);
    list["data"].as_array().unwrap().len()
}

/// A moment so many seconds from the world's now.
fn ahead(world: &World, seconds: u64) -> String {
    format!("{:.3}", world.clock.now() + Duration::from_secs(seconds))
}

fn id_of(key: &str) -> Value {
    json!(
        rolecall::crypto::ApiKeySecret::id_in(key)
            .unwrap()
            .to_string()
    )
}

#[tokio::test]
async fn a_key_that_is_made_works_and_is_shown_this_once() {
    let world = World::new().await;
    let end = ahead(&world, 3600);
    let body = json!({"label": "Ünïcode 東京", "scopes": ["accounts:read"], "expires_at": end});
    let reply = world.call(Method::POST, "/api_keys", Some(&body)).await;
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    let mut made = reply.expect(201);
    let key = made["key"].as_str().unwrap().to_owned();
    assert_eq!(id_of(&key), made["id"]);
    for field in ["label", "scopes", "expires_at"] {
        assert_eq!(made[field], body[field], "{field}");
    }
    assert_eq!(made["status"], "active");
    assert_eq!(made["revoked_at"], Value::Null);
    let created_at: Timestamp = made["created_at"].as_str().unwrap().parse().unwrap();
    assert!(created_at <= world.clock.now());

    with_key(&world, &key, Method::GET, "/accounts")
        .await
        .expect(200);
    with_key(&world, &key, Method::POST, "/accounts")
        .await
        .refused(403, "key_scope_missing");

    made.as_object_mut().unwrap().remove("key");
    assert_eq!(get(&world, &made["id"]).await, made);
    let list = world.get("/api_keys").await.expect(200);
    assert_eq!(list["data"][0], made);
    let (_, secret) = key.rsplit_once('_').unwrap();
    assert!(!list.to_string().contains(secret));
}

#[tokio::test]
async fn a_key_needs_neither_label_nor_end() {
    let world = World::new().await;
    for body in [
        json!({"scopes": ["iam:read"]}),
        json!({"scopes": ["iam:read"], "label": null, "expires_at": null}),
    ] {
        let made = make(&world, &body).await;
        assert_eq!(made["label"], Value::Null);
        assert_eq!(made["expires_at"], Value::Null);
        world.clock.advance(Duration::from_secs(100 * 365 * 86_400));
        assert_eq!(get(&world, &made["id"]).await["status"], "active");
    }
}

#[tokio::test]
async fn keys_are_listed_newest_first_in_pages() {
    let world = World::new().await;
    let mut made = vec![id_of(&world.key)];
    for n in 0..6 {
        // Of one millisecond they would be in any order.
        world.clock.advance(Duration::from_millis(2));
        let body = json!({"label": format!("key {n}"), "scopes": ["iam:read"]});
        made.push(make(&world, &body).await["id"].clone());
    }
    made.reverse();
    for page_size in [1, 3, 7, 100] {
        let mut listed = Vec::new();
        let mut next = String::new();
        loop {
            let path = format!("/api_keys?page_size={page_size}{next}");
            let page = world.get(&path).await.expect(200);
            let data = page["data"].as_array().unwrap();
            assert!(!data.is_empty() && data.len() <= page_size);
            listed.extend(data.iter().map(|key| key["id"].clone()));
            match page["next"].as_str() {
                Some(cursor) => next = format!("&next={cursor}"),
                None => break,
            }
        }
        assert_eq!(listed, made, "{page_size}");
    }
    for (query, code) in [
        ("page_size=0", "invalid_parameter"),
        ("page_size=101", "invalid_parameter"),
        ("page=2", "invalid_parameter"),
        ("next=nothing", "invalid_cursor"),
    ] {
        let reply = world.get(&format!("/api_keys?{query}")).await;
        reply.refused(400, code);
    }
}

#[tokio::test]
async fn no_key_is_made_or_widened_to_admin_through_the_api() {
    let world = World::new().await;
    for scopes in [json!(["admin"]), json!(["iam:read", "admin"])] {
        let body = json!({"scopes": scopes});
        let reply = world.call(Method::POST, "/api_keys", Some(&body)).await;
        let error = reply.refused(403, "admin_not_permitted");
        let hint = error["hint"].as_str().unwrap();
        assert!(hint.contains("rolecall keys create"), "{hint}");
    }
    let made = make(&world, &json!({"scopes": ["iam:read"]})).await;
    for scopes in [json!(["admin"]), json!(["iam:read"])] {
        let reply = patch(&world, &made["id"], &json!({"scopes": scopes})).await;
        let error = reply.refused(400, "invalid_body");
        assert!(error["message"].as_str().unwrap().contains("`scopes`"));
    }
    assert_eq!(get(&world, &made["id"]).await["scopes"], made["scopes"]);
    assert_eq!(count(&world).await, 2);
}

#[tokio::test]
async fn an_end_is_set_and_brought_forward_and_never_put_off() {
    let world = World::new().await;
    let made = make(&world, &json!({"label": "a", "scopes": ["iam:read"]})).await;
    let id = &made["id"];
    for seconds in [7200, 3600, 1800] {
        let (end, label) = (ahead(&world, seconds), format!("ends in {seconds}"));
        let body = json!({"expires_at": end, "label": label});
        let mut changed = patch(&world, id, &body).await.expect(200);
        assert_eq!(changed, get(&world, id).await);
        assert_eq!(patch(&world, id, &body).await.expect(200), changed);
        for field in ["expires_at", "label"] {
            assert_eq!(changed[field], body[field]);
            changed[field] = made[field].clone();
        }
        changed["key"] = made["key"].clone();
        assert_eq!(changed, made);
        // The clock goes on: the same words next time would be a later end.
        world.clock.advance(Duration::from_secs(60));
        let later = json!({"expires_at": ahead(&world, seconds), "label": "later"});
        let error = patch(&world, id, &later).await.refused(400, "invalid_body");
        assert!(error["message"].as_str().unwrap().contains(&end));
        assert_eq!(get(&world, id).await["label"], label);
    }
    for end in [
        json!(null),
        json!(ahead(&world, 0)),
        json!(ahead(&world, 9999)),
    ] {
        let body = json!({"expires_at": end, "label": null});
        patch(&world, id, &body).await.refused(400, "invalid_body");
    }
    let kept = get(&world, id).await;
    assert_eq!(kept["label"], "ends in 1800");
    assert_eq!(patch(&world, id, &json!({})).await.expect(200), kept);
    let bare = patch(&world, id, &json!({"label": null})).await.expect(200);
    assert_eq!(bare["label"], Value::Null);
    assert_eq!(bare["expires_at"], kept["expires_at"]);
}

#[tokio::test]
async fn a_key_is_refused_from_its_end_on() {
    let world = World::new().await;
    let end = ahead(&world, 3600);
    let body = json!({"scopes": ["accounts:read"], "expires_at": end});
    let made = make(&world, &body).await;
    let key = made["key"].as_str().unwrap();
    let end: Timestamp = end.parse().unwrap();
    let left = end.duration_since(world.clock.now()).unsigned_abs();
    world.clock.advance(left - Duration::from_secs(60));
    let reply = with_key(&world, key, Method::GET, "/accounts").await;
    reply.expect(200);
    world.clock.advance(Duration::from_secs(60));
    let reply = with_key(&world, key, Method::GET, "/accounts").await;
    reply.refused(401, "unauthorized");
    assert_eq!(get(&world, &made["id"]).await["status"], "expired");
}

#[tokio::test]
async fn a_body_that_is_no_key_is_refused_and_nothing_is_made() {
    let world = World::new().await;
    let existing = make(&world, &json!({"scopes": ["iam:read"]})).await;
    let good = json!({"label": "a", "scopes": ["iam:read"], "expires_at": ahead(&world, 60)});
    let long = "é".repeat(256);
    let labels = [
        json!(""),
        json!("  "),
        json!("a\nb"),
        json!("a\u{0}"),
        json!("\u{1b}[31mred"),
        json!("\u{9b}31m"),
        json!(long),
        json!(7),
        json!(["a"]),
    ];
    let ends = [
        json!(""),
        json!("tomorrow"),
        json!(0),
        json!(1_900_000_000),
        json!("1970-01-01T00:00:00Z"),
        json!("2020-01-01T00:00:00Z"),
        json!(ahead(&world, 0)),
        json!("2999-01-01"),
        json!("2999-01-01T00:00:00"),
        json!("2999-13-01T00:00:00Z"),
        json!("2999-01-01T00:00:00+99:00"),
        json!("9999-12-31T23:59:59Z"),
        json!("99999-01-01T00:00:00Z"),
        json!("-000001-01-01T00:00:00Z"),
        json!({"at": 1}),
    ];
    let scopes = [
        json!(null),
        json!([]),
        json!("iam:read"),
        json!(["iam:read", "iam:read"]),
        json!(["iam:write"]),
        json!(["IAM:READ"]),
        json!([" iam:read"]),
        json!([""]),
        json!(["*"]),
        json!([null]),
        json!([["iam:read"]]),
    ];
    let of = |field: &'static str, values: &[Value]| {
        let values = values.to_vec();
        values.into_iter().map(move |value| (field, value))
    };
    for (field, value) in of("label", &labels)
        .chain(of("expires_at", &ends))
        .chain(of("scopes", &scopes))
        .chain(of("id", &[json!("x")]))
        .chain(of("project", &[json!("two")]))
        .chain(of("revoked_at", &[json!(null)]))
        .chain(of("Label", &[json!("a")]))
    {
        let mut body = good.clone();
        body[field] = value.clone();
        let reply = world.call(Method::POST, "/api_keys", Some(&body)).await;
        let error = reply.refused(400, "invalid_body");
        assert!(!error.to_string().contains(&long), "{field}");
        if field != "scopes" {
            let body = json!({field: value, "label": "b"});
            let body = if field == "label" {
                json!({field: value})
            } else {
                body
            };
            let reply = patch(&world, &existing["id"], &body).await;
            reply.refused(400, "invalid_body");
        }
    }
    let mut without = good.clone();
    without.as_object_mut().unwrap().remove("scopes");
    world
        .call(Method::POST, "/api_keys", Some(&without))
        .await
        .refused(400, "invalid_body");

    for text in [
        "",
        "null",
        "[]",
        r#""iam:read""#,
        r#"{"scopes": ["iam:read"]"#,
        r#"{"scopes": ["iam:read"], "scopes": ["iam:read"]}"#,
        r#"{"scopes": ["iam:read"], "label": "a", "label": "b"}"#,
        r#"{"scopes": ["iam:read"], "expires_at": null, "expires_at": null}"#,
        r#"{"scopes": ["iam:read"]} {}"#,
    ] {
        let request = world.client.post(format!("{}/api_keys", world.base));
        let request = request
            .bearer_auth(&world.key)
            .header("content-type", "application/json")
            .body(text);
        reply(request).await.refused(400, "invalid_body");
    }
    assert_eq!(count(&world).await, 2);
    let mut kept = get(&world, &existing["id"]).await;
    kept["key"] = existing["key"].clone();
    assert_eq!(kept, existing);
}

#[tokio::test]
async fn revoking_answers_with_the_key_and_does_so_again() {
    let world = World::new().await;
    let made = make(&world, &json!({"scopes": ["accounts:read"]})).await;
    let key = made["key"].as_str().unwrap();
    with_key(&world, key, Method::GET, "/accounts")
        .await
        .expect(200);
    let revoked = revoke(&world, &made["id"]).await.expect(200);
    assert_eq!(revoked["status"], "revoked");
    assert!(revoked["revoked_at"].is_string());
    with_key(&world, key, Method::GET, "/accounts")
        .await
        .refused(401, "unauthorized");
    world.clock.advance(Duration::from_secs(5));
    assert_eq!(revoke(&world, &made["id"]).await.expect(200), revoked);
    assert_eq!(get(&world, &made["id"]).await, revoked);
}

#[tokio::test]
async fn an_admin_key_may_end_itself_and_then_ends_nothing_more() {
    let world = World::new().await;
    let other = make(&world, &json!({"scopes": ["accounts:read"]})).await;
    let revoked = revoke(&world, &id_of(&world.key)).await.expect(200);
    assert_eq!(revoked["id"], id_of(&world.key));
    assert_eq!(revoked["status"], "revoked");
    revoke(&world, &other["id"])
        .await
        .refused(401, "unauthorized");
    let other = other["key"].as_str().unwrap();
    let reply = with_key(&world, other, Method::GET, "/accounts").await;
    reply.expect(200);
}

#[tokio::test]
async fn only_admin_reaches_keys_and_only_its_own_project_s() {
    let world = World::new().await;
    let all_but_admin: Vec<_> = Scope::ALL
        .into_iter()
        .filter(|scope| *scope != Scope::Admin)
        .collect();
    let plain = world.key_of("one", &all_but_admin).await;
    let own = id_of(&world.key);
    let one = format!("/api_keys/{}", own.as_str().unwrap());
    let routes = [
        (Method::POST, "/api_keys"),
        (Method::GET, "/api_keys"),
        (Method::GET, &one),
        (Method::PATCH, &one),
        (Method::DELETE, &one),
    ];
    for (method, path) in routes.clone() {
        let reply = with_key(&world, &plain, method, path).await;
        let error = reply.refused(403, "key_scope_missing");
        assert!(error["message"].as_str().unwrap().contains("admin"));
    }
    let stranger = world.project("two", &[Scope::Admin]).await;
    for (method, path) in &routes[2..] {
        let reply = with_key(&world, &stranger, method.clone(), path).await;
        let error = reply.refused(404, "not_found");
        assert!(error["hint"].as_str().unwrap().contains("/api_keys"));
    }
    let list = with_key(&world, &stranger, Method::GET, "/api_keys").await;
    let list = list.expect(200);
    assert_eq!(list["data"].as_array().unwrap().len(), 1);
    assert_eq!(list["data"][0]["id"], id_of(&stranger));
    assert_eq!(get(&world, &own).await["status"], "active");
}

#[tokio::test]
async fn a_key_is_made_and_ended_while_the_store_answers_and_told_when_it_does_not() {
    let world = World::new().await;
    let made = make(&world, &json!({"scopes": ["iam:read"]})).await;
    world.gateway.background().close().await;
    let body = json!({"scopes": ["iam:read"]});
    for reply in [
        world.call(Method::POST, "/api_keys", Some(&body)).await,
        world.get("/api_keys").await,
        revoke(&world, &made["id"]).await,
        patch(&world, &made["id"], &json!({"label": "b"})).await,
    ] {
        reply.refused(503, "store_unavailable");
        assert!(reply.header("retry-after").is_some());
    }
}

/// A connection that is kept, and a request that is sent on it again and again.
struct Kept {
    stream: BufReader<TcpStream>,
    request: String,
}

impl Kept {
    async fn to(world: &World, key: &str) -> Self {
        let address = world.base.strip_prefix("http://").unwrap();
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream: BufReader::new(stream),
            request: format!(
                "GET /accounts HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n\r\n"
            ),
        }
    }

    /// Sends the request and gives the answer's status.
    async fn ask(&mut self) -> u16 {
        self.stream
            .write_all(self.request.as_bytes())
            .await
            .unwrap();
        let mut status = None;
        let mut length = 0;
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line).await.unwrap();
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if status.is_none() {
                status = line.split(' ').nth(1).and_then(|text| text.parse().ok());
            }
            if let Some(bytes) = line.strip_prefix("content-length: ") {
                length = bytes.parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await.unwrap();
        status.unwrap()
    }
}

/// Calls that are sent after a revocation has answered.
const CALLS_AFTER: usize = 10_000;
const CONNECTIONS: usize = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_ten_thousand_calls_after_a_revocation_none_is_accepted() {
    let world = World::new().await;
    let made = make(&world, &json!({"scopes": ["accounts:read"]})).await;
    let key = made["key"].as_str().unwrap();
    let is_revoked = Arc::new(AtomicBool::new(false));
    let mut callers = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut kept = Kept::to(&world, key).await;
        assert_eq!(kept.ask().await, 200);
        let is_revoked = Arc::clone(&is_revoked);
        // They call all the time, so that some are under way while it is revoked.
        callers.push(tokio::spawn(async move {
            let (mut sent, mut accepted) = (0, 0);
            while sent < CALLS_AFTER / CONNECTIONS {
                let is_after = is_revoked.load(Ordering::SeqCst);
                let status = kept.ask().await;
                assert!([200, 401].contains(&status), "{status}");
                if is_after {
                    sent += 1;
                    accepted += usize::from(status == 200);
                }
            }
            accepted
        }));
    }
    // Past the moment for which a key is remembered, so that it is being read again.
    world.clock.advance(Duration::from_secs(1));
    revoke(&world, &made["id"]).await.expect(200);
    is_revoked.store(true, Ordering::SeqCst);
    let mut accepted = 0;
    for caller in callers {
        accepted += caller.await.unwrap();
    }
    assert_eq!(accepted, 0);
}

#[tokio::test]
async fn a_project_has_so_many_valid_keys_and_no_more() {
    let world = World::with(Plan {
        settings: vec![("server.max_keys_per_project", "3")],
        ..Plan::default()
    })
    .await;
    let body = json!({"scopes": ["iam:read"]});
    let make = async || world.call(Method::POST, "/api_keys", Some(&body)).await;
    // One is the world's own.
    let made = make().await.expect(201);
    make().await.expect(201);
    make().await.refused(409, "too_many_keys");
    // A revoked one does not count, nor does one that has ended.
    let path = format!("/api_keys/{}", made["id"].as_str().unwrap());
    world.call(Method::DELETE, &path, None).await.expect(200);
    let ends = (world.clock.now() + Duration::from_secs(3600)).to_string();
    let short = json!({"scopes": ["iam:read"], "expires_at": ends});
    let short = world.call(Method::POST, "/api_keys", Some(&short)).await;
    short.expect(201);
    make().await.refused(409, "too_many_keys");
    world.clock.advance(Duration::from_secs(3601));
    // However many ask at once, one is made.
    let at_once = futures_util::future::join_all((0..8).map(|_| make())).await;
    let made = at_once.iter().filter(|reply| reply.status == 201);
    assert_eq!(made.count(), 1);
}

#[tokio::test]
async fn a_key_is_revoked_with_all_that_it_made() {
    let world = World::new().await;
    let admin = world.key_of("one", &[Scope::Admin]).await;
    let call = async |key: &str, method: Method, path: &str, body: Option<&Value>| {
        let bearer = format!("Bearer {key}");
        let headers = [("authorization", bearer.as_str())];
        world.send(method, path, &headers, body).await
    };
    let make = json!({"scopes": ["accounts:read"]});
    let mut made = Vec::new();
    for _ in 0..2 {
        let key = call(&admin, Method::POST, "/api_keys", Some(&make)).await;
        made.push(key.expect(201));
    }
    let own = call(&world.key, Method::POST, "/api_keys", Some(&make)).await;
    let own = own.expect(201);
    let id = |key: &str| {
        let hex = key.split('_').nth(1).unwrap();
        uuid::Uuid::parse_str(hex).unwrap().to_string()
    };
    for key in &made {
        assert_eq!(key["created_by"], id(&admin));
        let text = key["key"].as_str().unwrap();
        call(text, Method::GET, "/accounts", None).await.expect(200);
    }
    let path = format!("/api_keys/{}", id(&admin));
    let seen = call(&world.key, Method::GET, &path, None).await.expect(200);
    assert_eq!(seen["created_by"], json!(null));

    let odd = format!("{path}?with_created=2");
    let odd = call(&world.key, Method::DELETE, &odd, None).await;
    odd.refused(400, "invalid_parameter");
    let path = format!("{path}?with_created=true");
    let revoked = call(&world.key, Method::DELETE, &path, None)
        .await
        .expect(200);
    assert_eq!(
        (&revoked["id"], &revoked["status"]),
        (&json!(id(&admin)), &json!("revoked"))
    );
    let created = revoked["created"].as_array().unwrap();
    let mut ids: Vec<_> = created.iter().map(|key| key["id"].clone()).collect();
    ids.sort_by_key(Value::to_string);
    let mut expected: Vec<_> = made.iter().map(|key| key["id"].clone()).collect();
    expected.sort_by_key(Value::to_string);
    assert_eq!(ids, expected);
    assert!(created.iter().all(|key| key["status"] == "revoked"));
    for key in made
        .iter()
        .map(|key| key["key"].as_str().unwrap())
        .chain([admin.as_str()])
    {
        let reply = call(key, Method::GET, "/accounts", None).await;
        reply.refused(401, "unauthorized");
    }
    let spared = own["key"].as_str().unwrap();
    call(spared, Method::GET, "/accounts", None)
        .await
        .expect(200);
    // Without it, nothing else is revoked, and nothing else is said.
    let path = format!("/api_keys/{}", own["id"].as_str().unwrap());
    let alone = call(&world.key, Method::DELETE, &path, None)
        .await
        .expect(200);
    assert!(alone.get("created").is_none());
}
