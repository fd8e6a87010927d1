//! Clients as they are: what they put into a request line and its header fields, how they spell what
//! they mean, and what they may rely on in every answer.

use reqwest::Method;
use rolecall::model::api_keys::Scope;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    browser::Browser,
    errors::is_an_error,
    openapi::operations,
    world::{HANG, World},
};

/// What Java's HTTP client sends with every request, unless it is told not to.
const OFFERS_H2C: &str = "connection: Upgrade, HTTP2-Settings\r\n\
    http2-settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\nupgrade: h2c\r\n";

/// An answer as it came over the wire.
#[derive(Debug)]
struct Raw {
    status: u16,
    /// In lower case.
    head: String,
    body: Vec<u8>,
}

impl Raw {
    fn code(&self) -> String {
        let body: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        body["code"].as_str().unwrap_or_default().to_owned()
    }

    fn has(&self, field: &str) -> bool {
        self.head.lines().any(|line| line == field)
    }
}

async fn connected(world: &World) -> TcpStream {
    let address = world.base.strip_prefix("http://").unwrap();
    TcpStream::connect(address).await.unwrap()
}

/// Reads one answer with a `content-length`, and leaves the connection open.
async fn answer(stream: &mut TcpStream) -> Raw {
    let reading = async {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("an answer"));
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        stream.read_exact(&mut body).await.unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Raw { status, head, body }
    };
    timeout(HANG, reading).await.unwrap()
}

/// Sends bytes on a connection of their own, and reads one answer.
async fn sent(world: &World, bytes: &[u8]) -> Raw {
    let mut stream = connected(world).await;
    // A server that refuses early may close before it has read everything.
    let _ = stream.write_all(bytes).await;
    answer(&mut stream).await
}

/// Whether the other side ends the connection.
async fn has_ended(stream: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    let read = timeout(HANG, stream.read_to_end(&mut rest)).await;
    read.is_ok() && rest.is_empty()
}

fn request(world: &World, line: &str, fields: &str, body: &str) -> String {
    format!(
        "{line} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n{fields}\r\n{body}",
        world.key
    )
}

#[tokio::test]
async fn an_offered_upgrade_is_ignored_and_the_answer_says_that_the_connection_ends() {
    let world = World::new().await;
    let body = json!({"origin_owner_id": "c", "origin_owner_name": "C"}).to_string();
    let json = format!(
        "content-type: application/json\r\ncontent-length: {}\r\n",
        body.len()
    );
    for offer in [
        OFFERS_H2C,
        "connection: upgrade\r\nupgrade: h2c\r\n",
        "connection: keep-alive, UPGRADE\r\nupgrade: foo/2\r\n",
        "connection: upgrade\r\n",
        "connection: upgrade\r\nupgrade: websocket\r\n",
    ] {
        for (line, fields, body, status) in [
            ("GET /accounts", "", "", 200),
            ("GET /nowhere", "", "", 404),
            ("GET /connect/nobody", "", "", 404),
            ("POST /connect_sessions", json.as_str(), body.as_str(), 201),
            (
                "POST /connect_sessions",
                "content-type: application/json\r\n",
                "",
                400,
            ),
        ] {
            let mut stream = connected(&world).await;
            let request = request(&world, line, &format!("{fields}{offer}"), body);
            stream.write_all(request.as_bytes()).await.unwrap();
            let answer = answer(&mut stream).await;
            assert_eq!(answer.status, status, "{line} {offer}: {answer:?}");
            // Nothing is lost if the client knows.
            assert!(
                answer.has("connection: close"),
                "{line} {offer}: {answer:?}"
            );
            assert!(!answer.head.contains("upgrade"), "{answer:?}");
            assert!(answer.head.contains("x-request-id: "), "{answer:?}");
            stream.shutdown().await.unwrap();
            assert!(has_ended(&mut stream).await, "{line} {offer}");
        }
    }
    // An `Upgrade` that is not named in `Connection` is none (RFC 9110, 7.8).
    let mut stream = connected(&world).await;
    for _ in 0..3 {
        let request = request(&world, "GET /accounts", "upgrade: h2c\r\n", "");
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = answer(&mut stream).await;
        assert_eq!(answer.status, 200);
        assert!(!answer.head.contains("connection:"), "{answer:?}");
    }
}

#[tokio::test]
async fn a_body_beside_an_offer_of_websockets_is_as_long_as_its_head_says() {
    let world = World::new().await;
    let body = json!({"origin_owner_id": "c", "origin_owner_name": "C"}).to_string();
    let json = "content-type: application/json\r\nconnection: upgrade\r\nupgrade: websocket\r\n";
    let length = format!("{json}content-length: {}\r\n", body.len());
    let line = "POST /connect_sessions";
    // Whatever follows is no part of it.
    for rest in ["", "GET /accounts HTTP/1.1\r\n\r\n"] {
        let request = request(&world, line, &length, &format!("{body}{rest}"));
        assert_eq!(sent(&world, request.as_bytes()).await.status, 201, "{rest}");
    }
    // In two pieces, as a network has it.
    let mut stream = connected(&world).await;
    let (first, second) = body.split_at(9);
    let head = request(&world, line, &length, first);
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    stream.write_all(second.as_bytes()).await.unwrap();
    assert_eq!(answer(&mut stream).await.status, 201);
    // In chunks.
    let chunked = format!("{json}transfer-encoding: chunked\r\n");
    let chunks = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let request = request(&world, line, &chunked, &chunks);
    assert_eq!(sent(&world, request.as_bytes()).await.status, 201);
}

/// Also where the handler waits for the store at the time, as with a key that was not seen before.
#[tokio::test]
async fn malformed_chunks_are_answered_whatever_the_handler_is_busy_with() {
    let world = World::new().await;
    let chunked = "content-type: application/json\r\ntransfer-encoding: chunked\r\n";
    for line in [
        "POST /connect_sessions",
        "GET /accounts",
        "DELETE /accounts/x",
        "GET /nowhere",
    ] {
        for chunks in [
            "zz\r\n{}\r\n0\r\n\r\n",
            "-2\r\n{}\r\n0\r\n\r\n",
            "\r\n{}\r\n0\r\n\r\n",
            "2\n{}\n0\n\n",
            "2\r\n{}0\r\n\r\n",
            "fffffffffffffffffff\r\n{}\r\n0\r\n\r\n",
            "2\r\n{}\r\nzz\r\n",
        ] {
            let key = world.key_of("one", &Scope::ALL).await;
            let head = format!(
                "{line} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n{chunked}\r\n"
            );
            // In one piece, and with the chunks behind the head.
            for is_late in [false, true] {
                let mut stream = connected(&world).await;
                let first = if is_late {
                    head.clone()
                } else {
                    format!("{head}{chunks}")
                };
                stream.write_all(first.as_bytes()).await.unwrap();
                if is_late {
                    let _ = stream.write_all(chunks.as_bytes()).await;
                }
                let answer = answer(&mut stream).await;
                assert!(answer.head.contains("x-request-id: "), "{line} {chunks:?}");
                let is_early = ["", "route_not_found", "account_not_found"];
                let code = answer.code();
                let is_meant = code == "invalid_body"
                    || line != "POST /connect_sessions" && is_early.contains(&code.as_str());
                assert!(is_meant, "{line} {chunks:?}: {answer:?}");
            }
        }
    }
    // Sound ones are read whole, however large.
    let body = json!({"origin_owner_id": "c", "origin_owner_name": "C"}).to_string();
    let body = format!("{}{body}", " ".repeat(200_000));
    let pieces = body
        .as_bytes()
        .chunks(7_001)
        .fold(String::new(), |all, piece| {
            let text = std::str::from_utf8(piece).unwrap();
            format!("{all}{:x}\r\n{text}\r\n", piece.len())
        });
    let whole = request(
        &world,
        "POST /connect_sessions",
        chunked,
        &format!("{pieces}0\r\n\r\n"),
    );
    assert_eq!(sent(&world, whole.as_bytes()).await.status, 201);
}

/// What the parser refuses, as API.md has it: status, words, and requests of that kind.
fn refused_unread() -> Vec<(u16, &'static str, Vec<Vec<u8>>)> {
    let get = |line: &str, fields: &str| format!("{line}\r\n{fields}\r\n").into_bytes();
    let host = "host: x\r\n";
    let lines = |lines: &[&str]| lines.iter().map(|line| get(line, host)).collect::<Vec<_>>();
    let fields = |fields: &[&str]| {
        let all = fields
            .iter()
            .map(|field| get("GET /accounts HTTP/1.1", &format!("{host}{field}\r\n")));
        all.collect::<Vec<_>>()
    };
    let bodies = |fields: &[&str]| {
        let all = fields.iter().map(|field| {
            let mut request = get("POST /accounts HTTP/1.1", &format!("{host}{field}\r\n"));
            request.extend_from_slice(b"2\r\n{}\r\n0\r\n\r\n");
            request
        });
        all.collect::<Vec<_>>()
    };
    let with = |byte: u8, line: [&[u8]; 2], fields: &[u8]| {
        [
            line[0],
            &[byte],
            line[1],
            b"\r\nhost: x\r\n",
            fields,
            b"\r\n",
        ]
        .concat()
    };
    let is_control = |byte: &u8| *byte < b' ' || *byte == 0x7f;
    let any = || 0..=255_u8;
    let method = any()
        .filter(|byte| !byte.is_ascii_alphanumeric() && !b"!*+-.^_`|~ \r\n".contains(byte))
        .map(|byte| with(byte, [b"G", b"T /accounts HTTP/1.1"], b""));
    let path = any()
        .filter(|byte| is_control(byte) || *byte >= 0x80 || b" <>`".contains(byte))
        .map(|byte| with(byte, [b"GET /acc", b"ounts HTTP/1.1"], b""));
    let query = any()
        .filter(|byte| is_control(byte) || *byte >= 0x80 || b" <>\"".contains(byte))
        .map(|byte| with(byte, [b"GET /accounts?a=", b"b HTTP/1.1"], b""));
    let name = any()
        .filter(|byte| !byte.is_ascii_alphanumeric() && !b"!#$%&'*+-.^_`|~:\n".contains(byte))
        .map(|byte| {
            [
                b"GET /accounts HTTP/1.1\r\nhost: x\r\nx",
                &[byte][..],
                b"y: 1\r\n\r\n",
            ]
            .concat()
        });
    let value = any()
        .filter(|byte| is_control(byte) && !b"\t\n".contains(byte))
        .map(|byte| {
            [
                b"GET /accounts HTTP/1.1\r\nhost: x\r\nx: a",
                &[byte][..],
                b"b\r\n\r\n",
            ]
            .concat()
        });
    let long = "a".repeat(200_000);
    let many = |count: usize| (0..count).fold(String::new(), |all, n| format!("{all}x{n}: 1\r\n"));
    vec![
        (
            400,
            "A request line that is not a method, a target and `HTTP/1.1` or `HTTP/1.0`, with one space between them: another version or none, the beginning of HTTP/2 or of TLS",
            [
                lines(&[
                    "GET /accounts",
                    "GET /accounts HTTP/0.9",
                    "GET /accounts HTTP/1.2",
                    "GET /accounts HTTP/2",
                    "GET /accounts HTTP/3.0",
                    "GET /accounts http/1.1",
                    "GET  /accounts HTTP/1.1",
                    "GET /acc ounts HTTP/1.1",
                    " GET /accounts HTTP/1.1",
                    "GET HTTP/1.1",
                ]),
                vec![
                    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
                    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
                ],
            ]
            .concat(),
        ),
        (
            400,
            "A method with other characters than letters, digits and `` !*+-.^_`\\|~ ``",
            method.collect(),
        ),
        (
            400,
            "A target with a control character, a space, `<`, `>` or a byte above 127, with a `` ` `` in the path or a `\"` in the query, or of more than 65,534 bytes",
            path.chain(query)
                .chain([get(&format!("GET /{} HTTP/1.1", &long[..65_534]), host)])
                .collect(),
        ),
        (
            400,
            "No `Host` in HTTP/1.1, or more than one",
            vec![
                get("GET /accounts HTTP/1.1", ""),
                get("GET /accounts HTTP/1.1", "host: x\r\nhost: x\r\n"),
            ],
        ),
        (
            400,
            "A header field without a colon, without a name, with another character than those of a token (RFC 9110, 5.6.2) in its name, folded over lines, or with a control character other than the tab in its value",
            name.chain(value)
                .chain(fields(&["nocolon", "x : 1", ": 1", "x: 1\r\n 2"]))
                .collect(),
        ),
        (
            400,
            "A `Content-Length` that is no number or above 2^64-1, or more than one",
            bodies(&[
                "content-length: -1",
                "content-length: +2",
                "content-length: 2x",
                "content-length:",
                "content-length: 0x2",
                "content-length: 2, 2",
                "content-length: 18446744073709551616",
                "content-length: 2\r\ncontent-length: 2",
            ]),
        ),
        (
            400,
            "A `Transfer-Encoding` other than `chunked`, beside a `Content-Length`, more than one, or any in HTTP/1.0",
            [
                bodies(&[
                    "transfer-encoding: gzip",
                    "transfer-encoding: gzip, chunked",
                    "transfer-encoding: chunked, chunked",
                    "transfer-encoding: identity",
                    "transfer-encoding: xchunked",
                    "transfer-encoding:",
                    "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
                    "content-length: 2\r\ntransfer-encoding: chunked",
                    "transfer-encoding: chunked\r\ncontent-length: 0",
                ]),
                vec![get(
                    "POST /accounts HTTP/1.0",
                    "transfer-encoding: chunked\r\n",
                )],
            ]
            .concat(),
        ),
        (
            400,
            "A `POST` in HTTP/1.0 without a `Content-Length`",
            vec![get("POST /accounts HTTP/1.0", host)],
        ),
        (
            431,
            "More than 96 header fields, or a head of more than 128 KiB",
            vec![
                get("GET /accounts HTTP/1.1", &format!("{host}{}", many(96))),
                get("GET /accounts HTTP/1.1", &format!("{host}x: {long}\r\n")),
                get(&format!("GET /{long} HTTP/1.1"), host),
            ],
        ),
        (
            408,
            "A first request on a connection whose head is not there five seconds after it was opened",
            vec![b"GET /accounts HTTP/1.1\r\nhost: x\r\n".to_vec()],
        ),
    ]
}

#[tokio::test]
async fn what_the_parser_refuses_unread_is_what_the_document_lists() {
    let world = World::new().await;
    let paper = include_str!("../../docs/API.md");
    let (_, section) = paper
        .split_once("## Requests that are refused unread\n")
        .unwrap();
    let section = section.split("\n## ").next().unwrap();
    let listed: Vec<_> = section
        .lines()
        .filter(|line| line.starts_with("| 4"))
        .collect();
    let held = refused_unread();
    let expected: Vec<_> = held
        .iter()
        .map(|(status, words, _)| format!("| {status} | {words} |"))
        .collect();
    assert_eq!(listed, expected);

    for (status, words, requests) in held {
        for bytes in requests {
            let answer = sent(&world, &bytes).await;
            let start: String = String::from_utf8_lossy(&bytes).chars().take(80).collect();
            assert_eq!(answer.status, status, "{words}: {start:?}");
            assert!(answer.has("connection: close"), "{start:?}: {answer:?}");
            assert!(answer.body.is_empty(), "{start:?}: {answer:?}");
            assert!(!answer.head.contains("x-request-id"), "{start:?}");
        }
    }
}

#[tokio::test]
async fn everything_else_is_answered_in_the_form_of_the_contract() {
    let world = World::new().await;
    let many = (0..90).fold(String::new(), |all, n| format!("{all}x{n}: 1\r\n"));
    let long = "a".repeat(100_000);
    let get = "GET /accounts HTTP/1.1\r\nhost: x\r\n";
    let post = "POST /accounts HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
    let (none, head) = ("unauthorized", "\r\n");
    for (line, fields, code) in [
        ("BREW /accounts HTTP/1.1", "", "method_not_allowed"),
        ("get /accounts HTTP/1.1", "", "method_not_allowed"),
        ("OPTIONS * HTTP/1.1", "", "route_not_found"),
        ("GET * HTTP/1.1", "", "route_not_found"),
        ("GET accounts HTTP/1.1", "", "route_not_found"),
        ("GET x:80 HTTP/1.1", "", "route_not_found"),
        ("CONNECT x:80 HTTP/1.1", "", "route_not_found"),
        ("GET http://x/accounts HTTP/1.1", "", none),
        ("GET /accounts#part HTTP/1.1", "", none),
        ("GET /acc\"{}ounts HTTP/1.1", "", "route_not_found"),
        ("GET /accounts?[]{}|^`\\ HTTP/1.1", "", none),
        (
            &format!("GET /{} HTTP/1.1", &long[..60_000]),
            "",
            "route_not_found",
        ),
        ("GET /accounts HTTP/1.0", "", none),
        ("GET /accounts HTTP/1.1", &many, none),
        ("GET /accounts HTTP/1.1", &format!("x: {long}\r\n"), none),
        ("GET /accounts HTTP/1.1", "host:\r\n", none),
        ("GET /accounts HTTP/1.1", "expect: nonsense\r\n", none),
    ] {
        let host = if fields.starts_with("host") {
            ""
        } else {
            "host: x\r\n"
        };
        let answer = sent(&world, format!("{line}\r\n{host}{fields}\r\n").as_bytes()).await;
        let start: String = line.chars().take(60).collect();
        assert_eq!(answer.code(), code, "{start}: {answer:?}");
        assert!(answer.head.contains("x-request-id: "), "{start}");
    }
    // Lines may end with LF alone, and empty ones may stand before the first.
    for bytes in [
        format!("\r\n\r\n{get}{head}"),
        format!("{get}{head}").replace('\r', ""),
        format!("{get}x: a\tb\u{e9}\r\n{head}"),
        format!("{post}{head}"),
        format!("{post}content-length: 2\r\n{head}{{}}"),
        format!("{post}transfer-encoding: Chunked\r\n{head}2;a=b\r\n{{}}\r\n0\r\nx: y\r\n\r\n"),
    ] {
        assert_eq!(
            sent(&world, bytes.as_bytes()).await.code(),
            none,
            "{bytes:?}"
        );
    }
}

#[tokio::test]
async fn an_id_is_taken_in_either_case_wherever_one_is_asked_for() {
    let world = World::new().await;
    let account = world.link_admin().await;
    let walk = world.walk(&account).await;
    let walk = walk["id"].as_str().unwrap();
    let (profile, _) = world.profile().await;
    let key = world.key_of("one", &[Scope::IamRead]).await;
    let key = rolecall::crypto::ApiKeySecret::parse(&key)
        .unwrap()
        .id()
        .to_string();
    let upper = account.to_uppercase();
    let mixed: String = account
        .char_indices()
        .map(|(at, c)| {
            if at % 2 == 0 {
                c.to_ascii_uppercase()
            } else {
                c
            }
        })
        .collect();
    for id in [&upper, &mixed] {
        let page = world.read(id, "/iam/users?page_size=1").await;
        let plain = world.read(&account, "/iam/users?page_size=1").await;
        assert_eq!(page.header("etag"), plain.header("etag"));
        assert_eq!(page.expect(200), plain.json());
        // The header and the parameter may differ in it.
        let both = format!("/iam/users?page_size=1&account_id={id}");
        world.read(&account, &both).await.expect(200);
        let cursor = page.json()["next"].as_str().unwrap().to_owned();
        let next = format!("/iam/users?page_size=1&next={cursor}");
        world.read(&account, &next).await.expect(200);

        let listed = world.get(&format!("/accounts?account_ids={id}")).await;
        assert_eq!(listed.expect(200)[0]["id"], account.as_str());
        let entries = world
            .get(&format!("/audit?subject_id={id}"))
            .await
            .expect(200);
        assert!(!entries["data"].as_array().unwrap().is_empty());
        let body = json!({
            "origin_owner_id": "c", "origin_owner_name": "C", "account_id": id,
        });
        let made = world
            .call(Method::POST, "/connect_sessions", Some(&body))
            .await
            .expect(201);
        assert_eq!(made["account_id"], account.as_str());
    }
    for path in [
        format!("/accounts/{account}"),
        format!("/accounts/{account}/meta"),
        format!("/accounts/{account}/walks"),
        format!("/accounts/{account}/walks/{walk}"),
        format!("/connector_profiles/{profile}"),
        format!("/api_keys/{key}"),
    ] {
        let plain = world.get(&path).await.expect(200);
        let id = path.split('/').nth(2).unwrap();
        let upper = path
            .replace(id, &id.to_uppercase())
            .replace(walk, &walk.to_uppercase());
        assert_eq!(world.get(&upper).await.expect(200), plain, "{upper}");
    }
    let body = json!({
        "origin_owner_id": "c", "origin_owner_name": "C",
        "connector_profile_id": profile.to_uppercase(),
    });
    let made = world
        .call(Method::POST, "/connect_sessions", Some(&body))
        .await
        .expect(201);
    assert_eq!(made["connector_profile_id"], profile.as_str());
    // Of another project's account it is still 404.
    let other = world.project("two", &Scope::ALL).await;
    let bearer = format!("Bearer {other}");
    let headers = [("authorization", bearer.as_str()), ("x-account-id", &upper)];
    let reply = world.send(Method::GET, "/iam/users", &headers, None).await;
    is_an_error(&reply, 404, "account_not_found");
}

#[tokio::test]
async fn an_unencoded_plus_sign_or_a_space_in_a_filter_is_refused_with_how_to_write_it() {
    let world = World::new().await;
    let account = world.link_admin().await;
    let added = json!([{"op": "add_user", "email": "ana+hr@example.org"}]);
    world.mutate(&added).await;
    world.walk(&account).await;
    for name in [
        "filter[email]",
        "filter%5Bemail%5D",
        "filter[role]",
        "filter[group]",
    ] {
        for value in [
            "ana+hr@example.org",
            "ana hr@example.org".replace(' ', "%20").as_str(),
            "%20ana@example.org",
            "ana@example.org%20",
            "ana@example.org%0A",
            "ana@example.org%09",
            "ana%C2%A0hr@example.org",
            "+",
        ] {
            let reply = world
                .read(&account, &format!("/iam/users?{name}={value}"))
                .await;
            let body = is_an_error(&reply, 400, "invalid_parameter");
            let message = body["message"].as_str().unwrap();
            assert!(
                message.contains("%2B") && message.contains("space"),
                "{message}"
            );
            let asked = name.replace("%5B", "[").replace("%5D", "]");
            assert!(message.contains(&asked), "{message}");
        }
    }
    for mount in ["", "/unified"] {
        let path = format!("{mount}/iam/users?filter[email]=ana%2Bhr@example.org");
        assert_eq!(world.read(&account, &path).await.expect(200)["total"], 1);
    }
    for list in ["users", "roles", "groups"] {
        for name in ["filter[updated_after]", "updated_after"] {
            let path = format!("/iam/{list}?{name}=2020-01-01T00:00:00+02:00");
            let body = is_an_error(&world.read(&account, &path).await, 400, "invalid_parameter");
            let message = body["message"].as_str().unwrap();
            assert!(
                message.contains("%2B") && message.contains("space"),
                "{message}"
            );
        }
    }
}

#[tokio::test]
async fn the_updated_at_that_was_served_never_brings_its_record_again_and_loses_none_after_it() {
    let world = World::new().await;
    let account = world.link_admin().await;
    for list in ["users", "groups"] {
        let all = world.all(&account, list, "").await;
        let mut served: Vec<_> = all
            .iter()
            .map(|record| record["updated_at"].as_str().unwrap().to_owned())
            .collect();
        served.sort_unstable();
        served.dedup();
        for moment in &served {
            let later = all
                .iter()
                .filter(|record| record["updated_at"].as_str().unwrap() > moment.as_str())
                .count();
            let digits = moment.strip_suffix('Z').unwrap();
            // As it was served, and between it and the next that can be.
            for given in [
                moment.clone(),
                format!("{digits}001Z"),
                format!("{digits}999999Z"),
            ] {
                let filter = format!("&filter[updated_after]={given}");
                assert_eq!(
                    world.all(&account, list, &filter).await.len(),
                    later,
                    "{given}"
                );
            }
        }
        let newest = served.pop().unwrap();
        let filter = format!("&filter[updated_after]={newest}");
        assert!(world.all(&account, list, &filter).await.is_empty());
    }
}

#[tokio::test]
async fn a_word_that_a_message_repeats_is_cut_at_64_characters() {
    let world = World::new().await;
    let account = world.link_admin().await;
    let word = format!("{}é{}", "x".repeat(63), "y".repeat(1000));
    let cut = format!("`{}é`", "x".repeat(63));
    let escaped = word.replace('é', "%C3%A9");
    for path in [
        format!("/iam/users?{escaped}=1"),
        format!("/iam/users?{escaped}=1&{escaped}=2"),
        format!("/iam/users?fields={escaped}"),
        format!("/iam/users?expand={escaped}"),
        format!("/iam/users?fields=a%0d%0a%1b%7f%C2%85%E2%80%AE,{escaped}"),
        format!("/accounts?status={escaped}"),
        format!("/connectors/meta?include={escaped}"),
    ] {
        let reply = world.read(&account, &path).await;
        let body = is_an_error(&reply, 400, "invalid_parameter");
        let message = body["message"].as_str().unwrap();
        assert!(message.contains(&cut) || path.contains("%0a"), "{message}");
        assert!(message.chars().all(|c| !c.is_control() && c != '\u{202e}'));
        assert!(message.len() < 200, "{message}");
    }
    let mut body = world.account_body("t");
    body[&word] = json!(1);
    let reply = world.call(Method::POST, "/accounts", Some(&body)).await;
    let message = is_an_error(&reply, 400, "invalid_body")["message"].to_string();
    assert!(
        message.contains(&cut) && !message.contains("yy"),
        "{message}"
    );
    assert!(message.contains("origin_owner_id"), "{message}");
    let body = json!({"label": "x", "scopes": ["iam:read"], "a\u{0}b\u{1b}[31m\n": 1});
    let reply = world.call(Method::POST, "/api_keys", Some(&body)).await;
    let body = is_an_error(&reply, 400, "invalid_body");
    let message = body["message"].as_str().unwrap();
    assert!(message.contains("`ab[31m`"), "{message}");
    let method: Method = "M".repeat(200).parse().unwrap();
    let reply = world.call(method, "/accounts", None).await;
    let body = is_an_error(&reply, 405, "method_not_allowed");
    let message = body["message"].as_str().unwrap();
    assert!(
        message.contains(&format!("`{}`", "M".repeat(64))),
        "{message}"
    );
}

#[tokio::test]
async fn whatever_is_no_read_of_a_directory_is_kept_by_no_cache_and_guessed_at_by_no_browser() {
    let world = World::new().await;
    let account = world.link_admin().await;
    let mut paths: Vec<_> = operations()
        .into_iter()
        .filter(|operation| operation.method == Method::GET)
        .flat_map(|operation| {
            let own = operation.path.replace("{id}", &account);
            [operation.absent_path(), own]
        })
        .collect();
    for path in [
        "/openapi.json",
        "/swagger-ui",
        "/swagger-ui/",
        "/swagger-ui/index.html",
        "/swagger-ui/swagger-ui.css",
        "/swagger-ui/nothing.js",
        "/nowhere",
        "/",
        "/connect",
        "/connect/nobody",
        "/connect/progress.json",
        "/connect/oauth2/smartsheet/callback",
    ] {
        paths.push(path.to_owned());
    }
    for method in [Method::GET, Method::HEAD, Method::POST, Method::OPTIONS] {
        for path in &paths {
            let reply = world.read_with_method(&method, &account, path).await;
            let what = format!("{method} {path} {}", reply.status);
            assert_eq!(
                reply.header("x-content-type-options"),
                Some("nosniff"),
                "{what}"
            );
            assert!(reply.header("x-request-id").is_some(), "{what}");
            let is_directory = reply.header("x-directory-version").is_some();
            let expected = if is_directory {
                "private, no-cache"
            } else {
                "no-store"
            };
            assert_eq!(reply.header("cache-control"), Some(expected), "{what}");
        }
    }
    // The hub's own files are named by their content.
    let mut browser = Browser::new(&world);
    let page = browser.get("/connect/nobody").await;
    let (_, rest) = page.text().split_once("href=\"/connect/assets/").unwrap();
    let sheet = format!("/connect/assets/{}", rest.split('"').next().unwrap());
    let sheet = browser.get(&sheet).await;
    assert_eq!(
        sheet.header("cache-control"),
        Some("public, max-age=31536000, immutable")
    );
    assert_eq!(sheet.header("x-content-type-options"), Some("nosniff"));
}
