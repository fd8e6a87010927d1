//! Tests against a provider of raw sockets, which can violate HTTP in ways that no real server
//! does. Budgets and waits use a skipping clock, and the provider records its times.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use secrecy::SecretString;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
};

use super::*;

mod limits;
mod processes;
mod replies;
mod retries;
mod shares;

/// A wait that ends only if the test fails.
const HANG: Duration = Duration::from_secs(30);

/// The provider's reaction to one request.
enum Act {
    /// Sends these bytes and closes the connection.
    Send(Vec<u8>),
    /// Sends the bytes, and then nothing more.
    Hang(Vec<u8>),
    /// Sends the first bytes, and then repeats the second ones without end.
    Forever(Vec<u8>, Vec<u8>),
    /// Sends one of these bytes every ten milliseconds.
    Trickle(Vec<u8>),
    /// Resets the connection.
    Reset,
    /// Sends the response after a notification.
    Hold(Arc<Notify>, Vec<u8>),
}

/// A complete response.
fn answer(status: u16, headers: &str, body: impl AsRef<[u8]>) -> Act {
    Act::Send(reply(status, headers, body))
}

fn reply(status: u16, headers: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let head = format!(
        "HTTP/1.1 {status} -\r\ncontent-length: {}\r\nconnection: close\r\n{headers}\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn good() -> Act {
    answer(200, "", "{}")
}

/// A request that the provider received.
#[derive(Clone, Debug)]
struct NotedRequest {
    at: Duration,
    head: String,
}

/// A provider that follows a script, request by request.
struct ScriptedProvider {
    address: SocketAddr,
    clock: Clock,
    noted: Arc<Mutex<Vec<NotedRequest>>>,
}

impl ScriptedProvider {
    async fn start(act: impl Fn(usize) -> Act + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let clock = Clock::skipping("2026-11-22T12:00:00Z".parse().unwrap());
        let noted: Arc<Mutex<Vec<NotedRequest>>> = Arc::default();
        let (act, log, time) = (Arc::new(act), Arc::clone(&noted), clock.clone());
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (act, log, time) = (Arc::clone(&act), Arc::clone(&log), time.clone());
                tokio::spawn(async move {
                    let (head, stream) = request(stream).await;
                    let number = {
                        let mut log = log.lock().unwrap();
                        log.push(NotedRequest {
                            at: time.monotonic(),
                            head,
                        });
                        log.len()
                    };
                    perform(act(number), stream).await;
                });
            }
        });
        Self {
            address,
            clock,
            noted,
        }
    }

    /// Gives these responses in turn, then good ones.
    async fn scripted(script: Vec<Act>) -> Self {
        let script = Mutex::new(script.into_iter());
        Self::start(move |_| script.lock().unwrap().next().unwrap_or_else(good)).await
    }

    fn outbound(&self) -> Outbound {
        self.outbound_with(|_| {})
    }

    fn outbound_with(&self, adjust: impl FnOnce(&mut OutboundSettings)) -> Outbound {
        let mut settings = OutboundSettings {
            allow_private_addresses: true,
            ..OutboundSettings::default()
        };
        adjust(&mut settings);
        Outbound::new(settings, self.clock.clone(), 7, None).unwrap()
    }

    fn caller(&self) -> AccountClient {
        self.outbound().caller(route("token"))
    }

    async fn get(&self, caller: &AccountClient) -> Result<ProviderResponse, CallError> {
        self.get_with(caller, |_| ErrorReply::default()).await
    }

    async fn get_with(
        &self,
        caller: &AccountClient,
        error_reply: fn(&ProviderResponse) -> ErrorReply,
    ) -> Result<ProviderResponse, CallError> {
        let request = ProviderRequest {
            url: format!("http://{}/2.0/users?page=1", self.address)
                .parse()
                .unwrap(),
            template: "/users",
            token: &SecretString::from("secret-token"),
            headers: &[(
                "smartsheet-integration-source",
                "APPLICATION,Rolecall,Rolecall",
            )],
        };
        caller.get(request, error_reply).await
    }

    fn noted(&self) -> Vec<NotedRequest> {
        self.noted.lock().unwrap().clone()
    }

    /// The arrival times of the requests, relative to the first.
    fn times(&self) -> Vec<Duration> {
        let noted = self.noted();
        noted.iter().map(|note| note.at - noted[0].at).collect()
    }
}

fn route(token: &str) -> ClientScope {
    ClientScope {
        provider: "test",
        account: "account".to_owned(),
        token: TokenKey::of(&SecretString::from(token)),
        priority: Priority::Background,
        is_newly_linked: true,
    }
}

async fn request(mut stream: TcpStream) -> (String, TcpStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    (String::from_utf8(head).unwrap(), stream)
}

/// Write errors are ignored: many tests make the client disconnect.
async fn perform(act: Act, mut stream: TcpStream) {
    match act {
        Act::Send(bytes) => {
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
        }
        Act::Hang(bytes) => {
            let _ = stream.write_all(&bytes).await;
            let _ = stream.read_u8().await;
        }
        Act::Forever(first, others) => {
            let _ = stream.write_all(&first).await;
            while stream.write_all(&others).await.is_ok() {}
        }
        Act::Trickle(bytes) => {
            let mut every = tokio::time::interval(Duration::from_millis(10));
            for byte in bytes {
                every.tick().await;
                if stream.write_all(&[byte]).await.is_err() {
                    break;
                }
            }
        }
        Act::Reset => stream.set_zero_linger().unwrap(),
        Act::Hold(waker, bytes) => {
            waker.notified().await;
            let _ = stream.write_all(&bytes).await;
        }
    }
}

#[tokio::test]
async fn a_request_says_who_we_are_and_carries_the_token() {
    let provider = ScriptedProvider::scripted(vec![]).await;
    let caller = provider.caller();
    let answer = provider.get(&caller).await.unwrap();
    assert_eq!((answer.status(), answer.body()), (200, b"{}".as_slice()));
    assert_eq!(caller.calls(), 1);
    let head = provider.noted()[0].head.to_ascii_lowercase();
    assert!(head.starts_with("get /2.0/users?page=1 http/1.1\r\n"));
    for line in [
        "authorization: bearer secret-token\r\n",
        concat!("user-agent: rolecall/", env!("CARGO_PKG_VERSION"), "\r\n"),
        "accept-encoding: gzip\r\n",
        "smartsheet-integration-source: application,rolecall,rolecall\r\n",
    ] {
        assert!(head.contains(line), "{line} in {head}");
    }
}

#[tokio::test]
async fn clones_of_a_caller_count_together() {
    let provider = ScriptedProvider::scripted(vec![]).await;
    let caller = provider.caller();
    let other = caller.with_priority(Priority::Interactive);
    provider.get(&caller).await.unwrap();
    provider.get(&other).await.unwrap();
    assert_eq!((caller.calls(), other.calls()), (2, 2));
}

#[tokio::test]
async fn what_is_not_public_is_not_called() {
    let provider = ScriptedProvider::scripted(vec![]).await;
    let outbound = provider.outbound_with(|settings| settings.allow_private_addresses = false);
    let caller = outbound.caller(route("token"));
    let error = provider.get(&caller).await.unwrap_err();
    assert_eq!(error.kind, CallErrorKind::Refused);

    let token = SecretString::from("secret-token");
    let request = ProviderRequest {
        url: format!("https://localhost:{}/", provider.address.port())
            .parse()
            .unwrap(),
        template: "/",
        token: &token,
        headers: &[],
    };
    let refused = caller.get(request, |_| ErrorReply::default()).await;
    assert_eq!(refused.unwrap_err().kind, CallErrorKind::Refused);
    assert!(provider.noted().is_empty());
}

#[tokio::test]
async fn a_token_that_is_no_header_value_is_a_refused_credential() {
    let provider = ScriptedProvider::scripted(vec![]).await;
    let caller = provider.caller();
    let token = SecretString::from("line\nbreak");
    let request = ProviderRequest {
        url: format!("http://{}/", provider.address).parse().unwrap(),
        template: "/",
        token: &token,
        headers: &[],
    };
    let refused = caller.get(request, |_| ErrorReply::default()).await;
    assert_eq!(refused.unwrap_err().kind, CallErrorKind::Unauthorized);
    assert_eq!(caller.calls(), 0);
}

/// A writer that captures the log of a test.
#[derive(Clone, Default)]
struct CapturedLog(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for CapturedLog {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn each_request_is_one_log_line_that_tells_nothing_private() {
    let log = CapturedLog::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let _logging = tracing::subscriber::set_default(subscriber);
    // With a single subscriber, tracing caches whether a log line is enabled from the first thread
    // that reaches it. A parallel test without a subscriber would disable it.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());

    let body = r#"{"errorCode":4002,"refId":"abc1","message":"ana.ruiz@example.org is slow"}"#;
    let provider = ScriptedProvider::scripted(vec![answer(500, "", body)]).await;
    let error_reply = |_: &ProviderResponse| ErrorReply {
        code: Some(4002),
        reference: Some("abc1".to_owned()),
        nature: Classification::Passing,
    };
    provider
        .get_with(&provider.caller(), error_reply)
        .await
        .unwrap();

    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    for private in ["secret-token", "ana.ruiz", "page=1"] {
        assert!(!log.contains(private), "{private} in {log}");
    }
    let calls: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|line: &serde_json::Value| line["fields"]["message"] == "provider call")
        .collect();
    let [first, second] = calls.as_slice() else {
        panic!("one line for each request: {log}");
    };
    let fields = &first["fields"];
    assert_eq!(
        (
            &fields["status"],
            &fields["code"],
            &fields["ref_id"],
            &fields["try"]
        ),
        (&500.into(), &4002.into(), &"abc1".into(), &1.into())
    );
    assert_eq!(
        (&fields["provider"], &fields["account"], &fields["path"]),
        (&"test".into(), &"account".into(), &"/users".into())
    );
    let fields = &second["fields"];
    assert_eq!(
        (&fields["status"], &fields["try"]),
        (&200.into(), &2.into())
    );
}
