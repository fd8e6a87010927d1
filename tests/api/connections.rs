//! Connections that a client would hold: each ends by itself, with or without a key, and there is an
//! end to how many there are.

use std::time::Duration;

use futures_util::future::join_all;
use reqwest::Method;
use rolecall::clock::Clock;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::world::{HANG, Plan, World};

/// How many times faster the gateway's clock is, so that nobody waits for its limits.
const TIMES: u32 = 40;

/// A world whose time flies.
async fn hasty() -> World {
    let mut world = World::new().await;
    world
        .restart_on(Clock::racing(world.clock.now(), TIMES))
        .await;
    world
}

async fn connected(world: &World) -> TcpStream {
    let address = world.base.strip_prefix("http://").unwrap();
    TcpStream::connect(address).await.unwrap()
}

/// Everything that comes until the other side ends the connection.
async fn until_it_ends(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    let reading = async {
        let mut piece = [0; 4096];
        // A reset is an end, too.
        while let Ok(read @ 1..) = stream.read(&mut piece).await {
            all.extend_from_slice(&piece[..read]);
        }
    };
    timeout(HANG, reading).await.expect("the connection ends");
    String::from_utf8_lossy(&all).to_lowercase()
}

/// Reads one answer that has a body, and leaves the connection open.
async fn answer(stream: &mut TcpStream) -> String {
    let reading = async {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("an answer"));
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.unwrap().parse().unwrap()];
        stream.read_exact(&mut body).await.unwrap();
        head
    };
    timeout(HANG, reading).await.unwrap()
}

const BODIES: [&str; 3] = [
    "transfer-encoding: chunked\r\n",
    "content-length: 50000\r\n",
    "content-type: application/json\r\nexpect: 100-continue\r\ntransfer-encoding: chunked\r\n",
];

#[tokio::test]
async fn an_answered_request_whose_body_does_not_come_ends_its_connection() {
    let world = World::new().await;
    let keys = [
        String::new(),
        "authorization: Bearer nobody\r\n".to_owned(),
        format!("authorization: Bearer {}\r\n", world.key),
    ];
    let mut cases = Vec::new();
    for line in [
        "POST /accounts/x/walks",
        "GET /accounts",
        "DELETE /accounts/x",
        "POST /nowhere",
        "GET /health/live",
        "HEAD /health/live",
        "POST /connect/nobody",
    ] {
        for body in BODIES {
            for key in &keys {
                for drips in [false, true] {
                    cases.push((
                        format!("{line} HTTP/1.1\r\nhost: x\r\n{key}{body}\r\n"),
                        drips,
                    ));
                }
            }
        }
    }
    join_all(cases.iter().map(async |(head, drips)| {
        let mut stream = connected(&world).await;
        stream.write_all(head.as_bytes()).await.unwrap();
        let (mut read, mut write) = stream.into_split();
        let drip = async {
            // For as long as the other side takes it.
            while *drips && write.write_all(b"1\r\nx\r\n").await.is_ok() {
                tokio::task::yield_now().await;
            }
        };
        let mut all = Vec::new();
        let reading = async {
            let mut piece = [0; 4096];
            while let Ok(count @ 1..) = read.read(&mut piece).await {
                all.extend_from_slice(&piece[..count]);
            }
        };
        let (ended, ()) = tokio::join!(timeout(HANG, reading), drip);
        assert!(ended.is_ok(), "{head} {drips}");
        let said = String::from_utf8_lossy(&all).to_lowercase();
        assert!(said.contains("http/1.1 "), "{head} {drips}: {said}");
        assert!(said.contains("connection: close"), "{head} {drips}: {said}");
    }))
    .await;
}

#[tokio::test]
async fn a_chunked_body_that_came_whole_keeps_its_connection() {
    let world = World::new().await;
    let mut stream = connected(&world).await;
    let head = format!(
        "POST /connect_sessions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n",
        world.key
    );
    for _ in 0..2 {
        let request = format!("{head}2\r\n{{}}\r\n0\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let head = answer(&mut stream).await;
        assert!(head.starts_with("http/1.1 400"), "{head}");
        assert!(!head.contains("connection: close"), "{head}");
    }
}

#[tokio::test]
async fn an_authenticated_body_that_is_late_is_408_and_ends_its_connection() {
    let world = hasty().await;
    let heads = [
        "/accounts",
        "/connect_sessions",
        "/api_keys",
        "/oauth/authorization_url",
    ]
    .into_iter()
    .flat_map(|path| BODIES.map(|body| (path, body)));
    join_all(heads.map(async |(path, body)| {
        for drips in [false, true] {
            let mut stream = connected(&world).await;
            let head = format!(
                "POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\
                 content-type: application/json\r\n{body}\r\n",
                world.key
            )
            .replacen(
                "content-type: application/json\r\ncontent-type",
                "content-type",
                1,
            );
            stream.write_all(head.as_bytes()).await.unwrap();
            if drips {
                stream.write_all(b"1\r\n{\r\n").await.unwrap();
            }
            let said = until_it_ends(&mut stream).await;
            assert!(said.contains("http/1.1 408"), "{head}: {said}");
            assert!(said.contains("\"code\":\"body_timeout\""), "{head}: {said}");
            assert!(said.contains("connection: close"), "{head}: {said}");
        }
    }))
    .await;
}

#[tokio::test]
async fn a_request_that_stops_half_way_ends_its_connection_also_behind_others() {
    let world = hasty().await;
    let whole = "GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n";
    for part in ["", "G", "GET /health/live HTTP/1.1\r\nhost: x\r\nx: "] {
        for before in [1, 3] {
            let mut stream = connected(&world).await;
            for _ in 0..before {
                stream.write_all(whole.as_bytes()).await.unwrap();
                answer(&mut stream).await;
            }
            stream.write_all(part.as_bytes()).await.unwrap();
            assert_eq!(until_it_ends(&mut stream).await, "", "{part} {before}");
        }
    }
}

#[tokio::test]
async fn a_client_that_takes_no_answer_loses_its_connection() {
    let world = hasty().await;
    let mut stream = connected(&world).await;
    let asks = b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n".repeat(50);
    // Nothing is read; in the end nothing can be written either, until the other side has gone.
    let asking = async { while stream.write_all(&asks).await.is_ok() {} };
    timeout(HANG, asking).await.expect("the connection ends");
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_until_another_ends() {
    let plan = Plan {
        settings: vec![("server.max_connections", "4")],
        ..Plan::default()
    };
    let world = World::with(plan).await;
    let ask = b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut open = Vec::new();
    for _ in 0..4 {
        let mut stream = connected(&world).await;
        stream.write_all(ask).await.unwrap();
        answer(&mut stream).await;
        open.push(stream);
    }
    let mut waiting = connected(&world).await;
    waiting.write_all(ask).await.unwrap();
    for stream in &mut open {
        stream.write_all(ask).await.unwrap();
        answer(stream).await;
    }
    let mut byte = [0];
    assert!(
        waiting.try_read(&mut byte).is_err(),
        "nobody answers it yet"
    );
    open.pop();
    answer(&mut waiting).await;
}

#[tokio::test]
async fn an_address_may_be_limited_to_some_connections() {
    let plan = Plan {
        settings: vec![("server.max_connections_per_address", "2")],
        ..Plan::default()
    };
    let world = World::with(plan).await;
    let ask = b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut first = connected(&world).await;
    first.write_all(ask).await.unwrap();
    answer(&mut first).await;
    let mut second = connected(&world).await;
    second.write_all(ask).await.unwrap();
    answer(&mut second).await;
    let mut third = connected(&world).await;
    assert_eq!(until_it_ends(&mut third).await, "");
}

#[tokio::test]
async fn a_stop_does_not_wait_for_connections_that_are_held() {
    let plan = Plan {
        // Longer than a test waits.
        settings: vec![("server.drain_seconds", "600")],
        ..Plan::default()
    };
    let mut world = World::with(plan).await;
    let mut open = Vec::new();
    for key in ["", &format!("authorization: Bearer {}\r\n", world.key)] {
        for body in BODIES {
            for _ in 0..7 {
                let mut stream = connected(&world).await;
                let head = format!(
                    "POST /connect_sessions HTTP/1.1\r\nhost: x\r\n{key}\
                     content-type: application/json\r\n{body}expect: 100-continue\r\n\r\n"
                )
                .replacen("expect: 100-continue\r\ntransfer", "transfer", 1);
                stream.write_all(head.as_bytes()).await.unwrap();
                // So the request is under way.
                let mut go_on = [0; 25];
                stream.read_exact(&mut go_on).await.unwrap();
                assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
                open.push(stream);
            }
        }
    }
    for part in ["", "G"] {
        let mut stream = connected(&world).await;
        stream.write_all(part.as_bytes()).await.unwrap();
        open.push(stream);
    }
    timeout(Duration::from_secs(30), world.stop())
        .await
        .expect("the stop ends");
}

#[tokio::test]
async fn a_process_that_is_to_stop_says_so_before_it_takes_no_more_connections() {
    let plan = Plan {
        settings: vec![("server.lame_duck_seconds", "600")],
        ..Plan::default()
    };
    let mut world = World::with(plan).await;
    let mut kept = connected(&world).await;
    let ask = b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n";
    kept.write_all(ask).await.unwrap();
    assert!(!answer(&mut kept).await.contains("connection: close"));
    world.begin_to_stop().await;

    kept.write_all(ask).await.unwrap();
    assert!(answer(&mut kept).await.contains("connection: close"));
    let mut new = connected(&world).await;
    new.write_all(b"GET /health/ready HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let said = answer(&mut new).await;
    assert!(said.starts_with("http/1.1 503"), "{said}");
    assert!(said.contains("connection: close"), "{said}");
    // Requests are answered all the while.
    for path in ["/accounts", "/nowhere"] {
        let reply = world.send(Method::GET, path, &[], None).await;
        assert_ne!(reply.status, 503);
        assert_eq!(reply.header("connection"), Some("close"), "{path}");
    }
}
