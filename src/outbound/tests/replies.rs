//! Responses that are too large, too deep, too slow or incomplete.

use flate2::{Compression, write::GzEncoder};

use super::*;
use crate::outbound::non_idempotent::NonIdempotent;

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    std::io::Write::write_all(&mut encoder, body).unwrap();
    encoder.finish().unwrap()
}

const GZIP: &str = "content-encoding: gzip\r\n";

/// The error of a call whose provider always reacts like this, and the number of requests.
async fn outcome(act: fn() -> Act) -> (CallError, u64) {
    outcome_with(act, |_| {}).await
}

async fn outcome_with(act: fn() -> Act, adjust: fn(&mut OutboundSettings)) -> (CallError, u64) {
    let provider = ScriptedProvider::start(move |_| act()).await;
    let caller = provider.outbound_with(adjust).caller(route("token"));
    let error = provider.get(&caller).await.unwrap_err();
    (error, caller.calls())
}

#[tokio::test]
async fn a_packed_reply_is_unpacked() {
    let provider = ScriptedProvider::scripted(vec![answer(200, GZIP, gzip(b"{\"a\":1}"))]).await;
    let answer = provider.get(&provider.caller()).await.unwrap();
    assert_eq!(answer.body(), b"{\"a\":1}");
}

#[tokio::test]
async fn a_reply_beyond_the_cap_is_refused_unread() {
    let declared = || Act::Hang(b"HTTP/1.1 200 -\r\ncontent-length: 17000000\r\n\r\n{".to_vec());
    let (error, calls) = outcome(declared).await;
    assert_eq!((error.kind, calls), (CallErrorKind::InvalidReply, 1));
    assert_eq!(error.status, Some(200));
}

#[tokio::test]
async fn a_reply_without_end_is_cut_at_the_cap() {
    let endless = || {
        let head = b"HTTP/1.1 200 -\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
        let chunk = [b"1000\r\n".as_slice(), &[b' '; 0x1000], b"\r\n"].concat();
        Act::Forever(head, chunk)
    };
    let (error, calls) = outcome(endless).await;
    assert_eq!((error.kind, calls), (CallErrorKind::InvalidReply, 1));
    assert!(error.detail.contains("cap"), "{}", error.detail);
}

#[tokio::test]
async fn a_bomb_is_not_unpacked() {
    let bomb = || answer(200, GZIP, gzip(&vec![b' '; 15 << 20]));
    let (error, calls) = outcome(bomb).await;
    assert_eq!((error.kind, calls), (CallErrorKind::InvalidReply, 1));
    assert!(error.detail.contains("unfolds"), "{}", error.detail);

    // Within the ratio, but above the size limit.
    let large = || answer(200, GZIP, gzip(&vec![b' '; 1 << 20]));
    let (error, _) = outcome_with(large, |settings| {
        settings.caps.body_bytes = 1 << 19;
        settings.caps.ratio = 1_000_000;
    })
    .await;
    assert!(error.detail.contains("cap"), "{}", error.detail);
}

#[tokio::test]
async fn a_deep_reply_is_not_parsed() {
    let deep = || answer(200, "", "[".repeat(65) + &"]".repeat(65));
    let (error, calls) = outcome(deep).await;
    assert_eq!((error.kind, calls), (CallErrorKind::InvalidReply, 1));
    let provider =
        ScriptedProvider::scripted(vec![answer(200, "", "[".repeat(64) + &"]".repeat(64))]).await;
    provider.get(&provider.caller()).await.unwrap();
}

#[tokio::test]
async fn a_packing_that_was_not_asked_for_is_refused() {
    let odd = || answer(200, "content-encoding: br\r\n", "{}");
    let (error, calls) = outcome(odd).await;
    assert_eq!((error.kind, calls), (CallErrorKind::InvalidReply, 1));
}

#[tokio::test]
async fn a_reply_that_breaks_off_is_read_again() {
    let short = || Act::Send(b"HTTP/1.1 200 -\r\ncontent-length: 10\r\n\r\n{}".to_vec());
    let broken_chunk =
        || Act::Send(b"HTTP/1.1 200 -\r\ntransfer-encoding: chunked\r\n\r\n9\r\n{}".to_vec());
    let half_packed = || {
        let packed = gzip(b"{\"a\":1}");
        answer(200, GZIP, &packed[..packed.len() - 6])
    };
    for act in [short, broken_chunk, half_packed] {
        let (error, calls) = outcome(act).await;
        assert_eq!((error.kind, calls), (CallErrorKind::InvalidReply, 4));
        let provider = ScriptedProvider::scripted(vec![act()]).await;
        provider.get(&provider.caller()).await.unwrap();
    }
}

#[tokio::test]
async fn a_refusal_counts_by_its_status_whatever_became_of_its_words() {
    let cut = || Act::Send(b"HTTP/1.1 404 -\r\ncontent-length: 10\r\n\r\n{}".to_vec());
    let (error, calls) = outcome(cut).await;
    assert_eq!((error.kind, calls), (CallErrorKind::NotFound, 1));
}

#[tokio::test]
async fn silence_is_cut() {
    let (error, calls) = outcome_with(
        || Act::Hang(Vec::new()),
        |settings| settings.timeouts.first_byte = Duration::from_millis(20),
    )
    .await;
    assert_eq!((error.kind, calls), (CallErrorKind::Unavailable, 4));
    assert_eq!(error.status, None);

    let (error, calls) = outcome_with(
        || Act::Hang(b"HTTP/1.1 200 -\r\ncontent-length: 10\r\n\r\n{".to_vec()),
        |settings| settings.timeouts.read_gap = Duration::from_millis(20),
    )
    .await;
    assert_eq!((error.kind, calls), (CallErrorKind::Unavailable, 4));
    assert_eq!(error.status, Some(200));
}

#[tokio::test]
async fn a_trickle_is_cut() {
    let trickle = || Act::Trickle(reply(200, "", [b' '; 2_000]));
    let (error, calls) = outcome_with(trickle, |settings| {
        settings.timeouts.slow_for = Duration::from_millis(100);
        settings.retries.tries = 1;
        settings.timeouts.first_byte = Duration::from_secs(60);
    })
    .await;
    assert_eq!((error.kind, calls), (CallErrorKind::Unavailable, 1));
    assert!(error.detail.contains("slowly"), "{}", error.detail);

    let (error, _) = outcome_with(trickle, |settings| {
        settings.timeouts.whole = Duration::from_millis(30);
        settings.retries.tries = 1;
    })
    .await;
    assert!(error.detail.contains("whole"), "{}", error.detail);
}

#[tokio::test]
async fn what_is_no_json_is_named_by_place_and_not_by_content() {
    let body = r#"{"email":"ana.ruiz@example.org"}"#;
    let provider = ScriptedProvider::scripted(vec![answer(200, "", body)]).await;
    let answer = provider.get(&provider.caller()).await.unwrap();
    let error = answer.json::<u64>().unwrap_err();
    assert_eq!(
        (error.kind, error.status),
        (CallErrorKind::InvalidReply, Some(200))
    );
    assert!(!error.to_string().contains("ana"), "{error}");
}

#[tokio::test]
async fn a_redirect_of_a_read_is_not_followed() {
    let elsewhere = ScriptedProvider::start(|_| good()).await;
    let to = elsewhere.address;
    for status in [301, 302, 303, 307, 308] {
        let location = format!("location: http://{to}/2.0/users?page=1\r\n");
        let provider = ScriptedProvider::start(move |_| answer(status, &location, "")).await;
        let error = provider.get(&provider.caller()).await.unwrap_err();
        assert_eq!(error.status, Some(status));
    }
    assert!(elsewhere.noted().is_empty());
}

/// The provider may close an idle connection just when a request is sent on it. The request would
/// be lost, and it would be unknown whether the token was spent.
#[tokio::test]
async fn each_token_request_has_a_connection_of_its_own() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(Mutex::new(0));
    let accepted = Arc::clone(&connections);
    // Answers any number of requests on a connection and keeps it open.
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            *accepted.lock().unwrap() += 1;
            tokio::spawn(async move {
                let mut bytes = [0; 4096];
                while stream.read(&mut bytes).await.is_ok_and(|read| read > 0) {
                    let reply = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
                    if stream.write_all(reply).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    let provider = ScriptedProvider::start(|_| good()).await;
    let outbound = provider.outbound();
    for _ in 0..2 {
        let once = NonIdempotent {
            provider: "test",
            url: format!("http://{address}/token").parse().unwrap(),
            template: "/token",
            form: "grant_type=refresh_token",
        };
        let answer = outbound.post_once(once).await.unwrap();
        assert_eq!(answer.status(), 200);
    }
    assert_eq!(*connections.lock().unwrap(), 2);
}
