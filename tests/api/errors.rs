//! Every error has the one body, whoever made it: a handler, an extractor, or actix itself.

use base64::{Engine, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use reqwest::Method;
use rolecall::model::api_keys::Scope;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::world::{Reply, World};

/// The shape that StackOne's SDK needs, and what is ours.
#[track_caller]
pub fn is_an_error(reply: &Reply, status: u16, code: &str) -> Value {
    let body = reply.refused(status, code);
    assert_eq!(body["statusCode"], status);
    assert!(!body["message"].as_str().unwrap().is_empty());
    assert!(!body["hint"].as_str().unwrap().is_empty());
    let timestamp = body["timestamp"].as_str().unwrap();
    assert!(timestamp.ends_with('Z') && timestamp.parse::<Timestamp>().is_ok());
    assert_eq!(
        body["request_id"].as_str(),
        Some(reply.header("x-request-id").unwrap())
    );
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    body
}

fn basic(text: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(text))
}

#[tokio::test]
async fn every_answer_has_a_request_id_of_its_own() {
    let world = World::new().await;
    let mut ids = std::collections::BTreeSet::new();
    for path in ["/health/live", "/accounts", "/nowhere", "/iam/users"] {
        let reply = world.get(path).await;
        assert!(ids.insert(reply.header("x-request-id").unwrap().to_owned()));
    }
}

#[tokio::test]
async fn a_path_that_nobody_serves_is_not_found() {
    let world = World::new().await;
    for path in [
        "/",
        "/iam/",
        "/iam/users/",
        "/iam/users/a/b",
        "/iam/nobody",
        "/accounts/",
        "/unified",
        "/unified/accounts",
        "/unified/unified/iam/users",
        "/iamx/users",
        "/unifiedx/iam/users",
        "/IAM/users",
        "/accounts/x/walks/y/z",
        "//iam/users",
        "/swagger-ui/nothing.js",
    ] {
        let reply = world.get(path).await;
        assert_eq!(reply.status.as_u16(), 404, "{path}");
        is_an_error(&reply, 404, "route_not_found");
    }
}

#[tokio::test]
async fn a_method_that_a_path_does_not_have_is_told_which_it_has() {
    let world = World::new().await;
    for (method, path, allow) in [
        (Method::PUT, "/accounts", "GET, HEAD, POST"),
        (Method::OPTIONS, "/accounts", "GET, HEAD, POST"),
        (Method::POST, "/accounts/x", "DELETE, GET, HEAD, PATCH"),
        (Method::DELETE, "/iam/users", "GET, HEAD"),
        (Method::POST, "/unified/iam/users", "GET, HEAD"),
        (Method::PUT, "/iam/users/x", "DELETE, GET, HEAD, PATCH"),
        (Method::GET, "/accounts/x/walks/y/release", "POST"),
        (Method::HEAD, "/accounts/x/walks/y/release", "POST"),
        (Method::TRACE, "/health/live", "GET, HEAD"),
        ("BREW".parse().unwrap(), "/openapi.json", "GET, HEAD"),
    ] {
        let reply = world.call(method.clone(), path, None).await;
        assert_eq!(reply.status.as_u16(), 405, "{method} {path}");
        assert_eq!(reply.header("allow"), Some(allow), "{method} {path}");
        if method != Method::HEAD {
            is_an_error(&reply, 405, "method_not_allowed");
        }
    }
}

#[tokio::test]
async fn a_head_has_the_headers_of_a_get_and_no_body() {
    let world = World::new().await;
    let account = world.link_admin().await;
    let bearer = format!("Bearer {}", world.key);
    let headers = [
        ("authorization", bearer.as_str()),
        ("x-account-id", account.as_str()),
    ];
    for path in ["/iam/users?page_size=3", "/iam/users/absent", "/accounts"] {
        let head = world.send(Method::HEAD, path, &headers, None).await;
        let get = world.send(Method::GET, path, &headers, None).await;
        assert_eq!(head.status, get.status, "{path}");
        assert!(head.bytes.is_empty());
        for name in ["etag", "content-type", "content-length", "vary"] {
            let is_timed = name == "content-length" && get.status.is_client_error();
            if !is_timed {
                assert_eq!(head.header(name), get.header(name), "{path} {name}");
            }
        }
    }
}

#[tokio::test]
async fn no_key_a_wrong_one_a_revoked_one_and_a_malformed_one_get_the_same_401() {
    let world = World::new().await;
    let revoked = world.key_of("one", &Scope::ALL).await;
    let id = rolecall::crypto::ApiKeySecret::parse(&revoked)
        .unwrap()
        .id();
    let bearer = |key: &str| format!("Bearer {key}");
    // Good until it is revoked, and not one request longer.
    let headers = [("authorization", bearer(&revoked))];
    let headers = [(headers[0].0, headers[0].1.as_str())];
    let reply = world.send(Method::GET, "/accounts", &headers, None).await;
    reply.expect(200);
    let path = format!("/api_keys/{id}");
    world.call(Method::DELETE, &path, None).await.expect(200);

    let mut last = world.key.clone();
    let other = if last.pop() == Some('A') { 'B' } else { 'A' };
    let misspelt = format!("{last}{other}");
    let elsewhere = World::new().await;
    let presented = [
        bearer(&revoked),
        bearer(&misspelt),
        bearer(&elsewhere.key),
        bearer(""),
        bearer("not-a-key"),
        world.key.clone(),
        "Bearer".to_owned(),
        format!("Digest {}", world.key),
        format!("Bearer {} {}", world.key, world.key),
        "Basic not-base64!".to_owned(),
        basic(&format!(":{}", world.key)),
        basic(&format!("{}:password", world.key)),
        basic(&revoked),
        format!("Bearer {}", "x".repeat(5000)),
    ];
    let mut answers = Vec::new();
    answers.push(world.send(Method::GET, "/accounts", &[], None).await);
    for value in &presented {
        let headers = [("authorization", value.as_str())];
        answers.push(world.send(Method::GET, "/accounts", &headers, None).await);
    }
    let twice = bearer(&world.key);
    let twice = [("authorization", twice.as_str()); 2];
    answers.push(world.send(Method::GET, "/accounts", &twice, None).await);

    let mut bodies = std::collections::BTreeSet::new();
    for answer in &answers {
        let mut body = is_an_error(answer, 401, "unauthorized");
        assert_eq!(
            answer.header("www-authenticate"),
            Some(r#"Bearer realm="rolecall""#)
        );
        for own in ["timestamp", "request_id"] {
            body.as_object_mut().unwrap().remove(own);
        }
        bodies.insert(body.to_string());
    }
    assert_eq!(bodies.len(), 1, "{bodies:?}");
}

#[tokio::test]
async fn a_key_is_taken_as_bearer_and_in_both_forms_of_basic() {
    let world = World::new().await;
    let key = &world.key;
    for value in [
        format!("Bearer {key}"),
        format!("bearer {key}"),
        format!("BASIC {}", BASE64_STANDARD.encode(format!("{key}:"))),
        basic(&format!("{key}:")),
        basic(key),
    ] {
        // As StackOne's SDK sends it, with an empty cookie beside it.
        let headers = [("authorization", value.as_str()), ("cookie", "")];
        let reply = world.send(Method::GET, "/accounts", &headers, None).await;
        assert_eq!(reply.status.as_u16(), 200, "{value}");
    }
}

#[tokio::test]
async fn a_key_does_only_what_its_scopes_allow_and_the_missing_one_is_named() {
    let world = World::new().await;
    let account = world.link_admin().await;
    let walk = world.walk(&account).await["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let calls = [
        (Method::GET, "/iam/users".to_owned(), Scope::IamRead),
        (
            Method::GET,
            "/unified/iam/users/1".to_owned(),
            Scope::IamRead,
        ),
        (Method::GET, "/iam".to_owned(), Scope::IamRead),
        (Method::GET, "/iam/me".to_owned(), Scope::IamRead),
        (Method::GET, "/iam/policies".to_owned(), Scope::IamRead),
        (Method::PATCH, "/iam/users/1".to_owned(), Scope::IamRead),
        (Method::GET, "/accounts".to_owned(), Scope::AccountsRead),
        (
            Method::GET,
            format!("/accounts/{account}"),
            Scope::AccountsRead,
        ),
        (
            Method::GET,
            format!("/accounts/{account}/meta"),
            Scope::AccountsRead,
        ),
        (
            Method::GET,
            "/connectors/meta".to_owned(),
            Scope::AccountsRead,
        ),
        (
            Method::GET,
            "/connectors/meta/smartsheet".to_owned(),
            Scope::AccountsRead,
        ),
        (
            Method::GET,
            format!("/accounts/{account}/walks"),
            Scope::AccountsRead,
        ),
        (
            Method::GET,
            format!("/accounts/{account}/walks/{walk}"),
            Scope::AccountsRead,
        ),
        (
            Method::GET,
            format!("/accounts/{account}/walks/{walk}/suspects"),
            Scope::AccountsRead,
        ),
        (
            Method::POST,
            format!("/accounts/{account}/walks/{walk}/release"),
            Scope::WalksWrite,
        ),
        (
            Method::POST,
            format!("/accounts/{account}/walks/{walk}/discard"),
            Scope::WalksWrite,
        ),
        (
            Method::POST,
            format!("/accounts/{account}/walks"),
            Scope::WalksWrite,
        ),
        (Method::POST, "/api_keys".to_owned(), Scope::Admin),
        (Method::GET, "/api_keys".to_owned(), Scope::Admin),
        (Method::GET, "/api_keys/x".to_owned(), Scope::Admin),
        (Method::PATCH, "/api_keys/x".to_owned(), Scope::Admin),
        (Method::DELETE, "/api_keys/x".to_owned(), Scope::Admin),
        (Method::GET, "/audit".to_owned(), Scope::Admin),
        (Method::POST, "/accounts".to_owned(), Scope::AccountsWrite),
        (
            Method::PATCH,
            format!("/accounts/{account}"),
            Scope::AccountsWrite,
        ),
        (
            Method::DELETE,
            format!("/accounts/{account}"),
            Scope::AccountsWrite,
        ),
    ];
    for (method, path, needed) in &calls {
        let others: Vec<_> = Scope::ALL
            .into_iter()
            .filter(|scope| scope != needed)
            .collect();
        for scopes in [&others[..], &[]] {
            let bearer = format!("Bearer {}", world.key_of("one", scopes).await);
            let headers = [
                ("authorization", bearer.as_str()),
                ("x-account-id", &account),
            ];
            let reply = world.send(method.clone(), path, &headers, None).await;
            let body = is_an_error(&reply, 403, "key_scope_missing");
            let message = body["message"].as_str().unwrap();
            assert!(
                message.contains(needed.as_str()),
                "{method} {path}: {message}"
            );
        }
        let bearer = format!("Bearer {}", world.key_of("one", &[*needed]).await);
        let headers = [
            ("authorization", bearer.as_str()),
            ("x-account-id", &account),
        ];
        let reply = world.send(method.clone(), path, &headers, None).await;
        assert!(
            ![401, 403].contains(&reply.status.as_u16()),
            "{method} {path}"
        );
    }
}

#[tokio::test]
async fn an_account_is_named_once_in_the_header_or_in_the_query() {
    let world = World::new().await;
    let account = world.link_admin().await;
    let other = world.link(&world.admin_token()).await;
    let bearer = format!("Bearer {}", world.key);
    let key = ("authorization", bearer.as_str());
    for mount in ["", "/unified"] {
        for list in ["users", "roles", "groups", "policies", "me", "users/1"] {
            let path = format!("{mount}/iam/{list}");
            let ask = async |query: String, headers: &[(&str, &str)]| {
                let headers = [&[key], headers].concat();
                world
                    .send(Method::GET, &format!("{path}{query}"), &headers, None)
                    .await
            };
            let named = ("x-account-id", account.as_str());
            let is_named = |reply: &Reply| ![400, 401].contains(&reply.status.as_u16());
            assert!(is_named(&ask(String::new(), &[named]).await), "{path}");
            let query = format!("?account_id={account}");
            assert!(is_named(&ask(query.clone(), &[]).await), "{path}");
            assert!(is_named(&ask(query, &[named]).await), "{path}");

            for refused in [
                ask(String::new(), &[]).await,
                ask(format!("?account_id={other}"), &[named]).await,
                ask(String::new(), &[named, ("x-account-id", &other)]).await,
                ask(String::new(), &[named, named]).await,
            ] {
                is_an_error(&refused, 400, "account_required");
            }
            let unknown = ask("?account_id=nobody".to_owned(), &[]).await;
            let body = is_an_error(&unknown, 404, "account_not_found");
            assert!(!body.to_string().contains("nobody"));
        }
    }
}

#[tokio::test]
async fn what_is_not_offered_says_so() {
    let world = World::new().await;
    let account = world.link_admin().await;
    let headers = [("x-account-id", account.as_str())];
    let bearer = format!("Bearer {}", world.key);
    let headers = [&[("authorization", bearer.as_str())], &headers[..]].concat();
    for mount in ["", "/unified"] {
        for (method, path, code) in [
            (Method::GET, "/iam/policies", "policies_not_offered"),
            (Method::GET, "/iam/policies/x", "policies_not_offered"),
            (Method::PATCH, "/iam/users/x", "writes_not_offered"),
            (Method::DELETE, "/iam/users/x", "writes_not_offered"),
            (
                Method::GET,
                "/iam/users?proxy%5Ba%5D%5Bb%5D=1",
                "proxy_not_offered",
            ),
            (
                Method::GET,
                "/iam/roles/x?proxy[page]=1",
                "proxy_not_offered",
            ),
            (Method::GET, "/iam/groups?proxy=1", "proxy_not_offered"),
        ] {
            let path = format!("{mount}{path}");
            let body = json!({"status": {"value": "disabled", "source_value": null}});
            let body = (method == Method::PATCH).then_some(&body);
            let reply = world.send(method, &path, &headers, body).await;
            is_an_error(&reply, 501, code);
        }
    }
}

#[tokio::test]
async fn no_parameter_is_repeated_in_full_nor_with_what_could_break_a_line() {
    let world = World::new().await;
    let account = world.link_admin().await;
    let long = "x".repeat(500);
    for path in [
        format!("/iam/users?{long}=1"),
        "/iam/users?a%0d%0ab=1".to_owned(),
        format!("/iam/users?fields={long}"),
    ] {
        let body = is_an_error(&world.read(&account, &path).await, 400, "invalid_parameter");
        let message = body["message"].as_str().unwrap();
        assert!(
            message.len() < 200 && !message.contains(['\r', '\n']),
            "{message}"
        );
    }
}

/// Sends bytes as they are and gives status line, headers and body of the answer.
async fn raw(world: &World, request: &[u8]) -> (u16, String, String) {
    let address = world.base.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    // A server that refuses early may close before it has read everything.
    let _ = stream.write_all(request).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|text| text.parse().ok());
    (
        status.unwrap_or_else(|| panic!("no answer: {answer:?}")),
        head.to_lowercase(),
        body.to_owned(),
    )
}

#[tokio::test]
async fn malformed_percent_encoding_is_an_answer_and_no_crash() {
    let world = World::new().await;
    let account = world.link_admin().await;
    for (path, status) in [
        ("/iam/users/%ff", 404),
        ("/iam/users/%zz", 404),
        ("/iam/users/%", 404),
        ("/iam/users/a%2Fb%20c", 404),
        ("/iam/users/%00", 404),
        ("/iam/users?fields=%ff", 400),
        ("/iam/users?%ff=1", 400),
        ("/iam/users?next=%ff", 400),
        ("/accounts/%ff", 404),
        ("/accounts/%00/walks", 404),
        ("/iam/users/..%2f..%2faccounts", 404),
        ("/iam/%75sers", 200),
    ] {
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
             authorization: Bearer {}\r\nx-account-id: {account}\r\n\r\n",
            world.key
        );
        let (got, head, body) = raw(&world, request.as_bytes()).await;
        assert_eq!(got, status, "{path}: {body}");
        assert!(head.contains("content-type: application/json"), "{path}");
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body.get("code").is_some(), status != 200, "{path}");
    }
    world.read(&account, "/iam/users").await.expect(200);
}

#[tokio::test]
async fn absurd_requests_are_refused_and_the_next_one_is_served() {
    let world = World::new().await;
    let account = world.link_admin().await;
    let long = "x".repeat(200_000);
    let many = (0..500).fold(String::new(), |all, n| format!("{all}x-{n}: 1\r\n"));
    let auth = format!(
        "authorization: Bearer {}\r\nx-account-id: {account}\r\nconnection: close\r\n",
        world.key
    );
    for request in [
        format!("GET /iam/users HTTP/1.1\r\nhost: x\r\n{auth}x-long: {long}\r\n\r\n"),
        format!("GET /iam/users HTTP/1.1\r\nhost: x\r\n{auth}{many}\r\n"),
        format!("GET /iam/users?{long} HTTP/1.1\r\nhost: x\r\n{auth}\r\n"),
        format!("GET /iam/users HTTP/1.1\r\nhost: x\r\n{auth}cache-control: max-age=9x\r\n\r\n"),
        format!("GET /iam/users HTTP/1.1\r\nhost: x\r\nx-account-id: \u{e9}\r\n{auth}\r\n"),
        "GET /iam/users\r\n\r\n".to_owned(),
        "\u{0}\u{1}\u{2} / HTTP/1.1\r\n\r\n".to_owned(),
        "POST /accounts HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab"
            .to_owned(),
    ] {
        let (status, ..) = raw(&world, request.as_bytes()).await;
        let start: String = request.chars().take(60).collect();
        assert!((400..500).contains(&status), "{status} {start:?}");
    }
    world.read(&account, "/iam/users").await.expect(200);
}

#[tokio::test]
async fn the_readiness_is_told_without_a_key() {
    let world = World::new().await;
    for path in ["/health/live", "/health/ready"] {
        let health = world.send(Method::GET, path, &[], None).await.expect(200);
        assert_eq!(health, json!({"status": "ok"}));
    }
    world.gateway.stop();
    let reply = world.send(Method::GET, "/health/ready", &[], None).await;
    is_an_error(&reply, 503, "store_unavailable");
    assert!(reply.header("retry-after").is_some());
    let reply = world.send(Method::GET, "/health/live", &[], None).await;
    reply.expect(200);
}
