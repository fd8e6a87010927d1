//! The load generator: requests are prepared in advance, connections are kept alive, and replies
//! are parsed only as far as needed to check them.
//!
//! It must cost less than any server under test, since it has one core, as the servers do.

use std::{net::SocketAddr, time::Duration, time::Instant};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

use crate::{
    Outcome,
    process::{Core, Watch, on_core},
};

/// The number of concurrent connections.
const CONNECTIONS: usize = 32;

/// A complete reply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers.find_map(|(known, value)| (known == name).then_some(value.as_str()))
    }
}

/// A serialized request.
#[derive(Debug, Clone)]
pub struct Request(Vec<u8>);

impl Request {
    pub fn get(path: &str, headers: &[(&str, &str)]) -> Self {
        let mut text = format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n");
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        Self(text.into_bytes())
    }

    /// The same request at another path.
    pub fn at(&self, path: &str) -> Self {
        let after_path = self.0.windows(9).position(|nine| nine == b" HTTP/1.1");
        let rest = &self.0[after_path.unwrap_or(self.0.len())..];
        Self([b"GET ", path.as_bytes(), rest].concat())
    }

    /// Sends the request once, on a new connection.
    pub async fn once(&self, server: SocketAddr) -> Outcome<Reply> {
        Connection::to(server).await?.ask(self).await
    }
}

/// The result of one round.
#[derive(Debug, Clone, Copy)]
pub struct Round {
    pub requests: u64,
    pub took: Duration,
    pub cpu: Duration,
    pub p50: Duration,
    pub p99: Duration,
}

impl Round {
    /// The server's processor time per request, in microseconds.
    pub fn cpu_micros(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.requests as f64
    }

    pub fn per_second(&self) -> f64 {
        self.requests as f64 / self.took.as_secs_f64()
    }
}

/// Sends requests to `server` for the time `lasting`. Every reply must have the status and the
/// length of `expected`; the first one on each connection must also have its body.
pub fn run(
    server: SocketAddr,
    watch: Watch,
    request: &Request,
    expected: &Reply,
    lasting: Duration,
) -> Outcome<Round> {
    let asking = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .event_interval(CONNECTIONS as u32)
            .build()?;
        runtime.block_on(round(server, watch, request, expected, lasting))
    };
    // Runs in a new thread, since the bench's runtime occupies this one.
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| on_core(Core::Load, asking));
        thread.join().map_err(|_| "the load broke off")?
    })
}

async fn round(
    server: SocketAddr,
    watch: Watch,
    request: &Request,
    expected: &Reply,
    lasting: Duration,
) -> Outcome<Round> {
    let mut connections = Vec::with_capacity(CONNECTIONS);
    for _ in 0..CONNECTIONS {
        let mut connection = Connection::to(server).await?;
        let reply = connection.ask(request).await?;
        if (reply.status, &reply.body) != (expected.status, &expected.body) {
            return Err(format!("expected {expected:?}, got {reply:?}").into());
        }
        connections.push(connection);
    }
    let cpu_before = watch.cpu()?;
    let began_at = Instant::now();
    let mut asking = JoinSet::new();
    for connection in connections {
        let (request, status, length) = (request.clone(), expected.status, expected.body.len());
        asking.spawn(keep_asking(
            connection,
            request,
            status,
            length,
            began_at + lasting,
        ));
    }
    // Keeps this thread busy: if the load slept, the server would spend processor time on waking
    // it.
    let awake = tokio::spawn(async {
        loop {
            tokio::task::yield_now().await;
        }
    });
    let mut waits = Vec::new();
    while let Some(asked) = asking.join_next().await {
        waits.extend(asked??);
    }
    awake.abort();
    let took = began_at.elapsed();
    let cpu = watch.cpu()? - cpu_before;
    waits.sort_unstable();
    let part = |of_hundred: usize| {
        waits
            .get(waits.len() * of_hundred / 100)
            .map_or(Duration::ZERO, |&micros| {
                Duration::from_micros(micros.into())
            })
    };
    Ok(Round {
        requests: waits.len() as u64,
        took,
        cpu,
        p50: part(50),
        p99: part(99),
    })
}

/// Sends requests until `end`; returns the time that each reply took, in microseconds.
async fn keep_asking(
    mut connection: Connection,
    request: Request,
    status: u16,
    length: usize,
    end: Instant,
) -> Outcome<Vec<u32>> {
    let mut waits = Vec::with_capacity(1 << 12);
    let mut asked_at = Instant::now();
    while asked_at < end {
        let head = connection.exchange(&request).await?;
        if (head.status, head.body_length) != (status, length) {
            return Err(format!("a reply of {} bytes: {}", head.body_length, head.status).into());
        }
        let now = Instant::now();
        waits.push(u32::try_from((now - asked_at).as_micros()).unwrap_or(u32::MAX));
        asked_at = now;
    }
    Ok(waits)
}

struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// The head of the reply in the buffer.
struct Head {
    status: u16,
    /// The length of the head, which is the offset of the body.
    length: usize,
    body_length: usize,
}

impl Connection {
    async fn to(server: SocketAddr) -> Outcome<Self> {
        let stream = TcpStream::connect(server).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: vec![0; 1 << 18],
        })
    }

    async fn ask(&mut self, request: &Request) -> Outcome<Reply> {
        let head = self.exchange(request).await?;
        let text = std::str::from_utf8(&self.buffer[..head.length])?;
        let headers = text.lines().skip(1).filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_ascii_lowercase(), value.trim().to_owned()))
        });
        Ok(Reply {
            status: head.status,
            headers: headers.collect(),
            body: self.buffer[head.length..][..head.body_length].to_vec(),
        })
    }

    /// Writes the request and reads the reply into the buffer.
    async fn exchange(&mut self, request: &Request) -> Outcome<Head> {
        self.stream.write_all(&request.0).await?;
        let mut filled = 0;
        let mut head: Option<Head> = None;
        loop {
            let read = self.stream.read(&mut self.buffer[filled..]).await?;
            if read == 0 {
                return Err("the server closed the connection, or its reply is too long".into());
            }
            filled += read;
            let known = match head.take() {
                Some(known) => known,
                None => match Head::in_(&self.buffer[..filled])? {
                    Some(found) => found,
                    None => continue,
                },
            };
            if filled >= known.length + known.body_length {
                return Ok(known);
            }
            head = Some(known);
        }
    }
}

impl Head {
    /// Parses the head at the beginning of `bytes`; None if it is incomplete.
    fn in_(bytes: &[u8]) -> Outcome<Option<Self>> {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        let Some(end) = end else {
            return Ok(None);
        };
        let status = bytes
            .get(9..12)
            .and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok())
            .ok_or("a reply without a status")?;
        const LENGTH: &[u8] = b"\r\ncontent-length: ";
        let head = &bytes[..end + 2];
        let body_length = match head.windows(LENGTH.len()).position(|name| name == LENGTH) {
            None => 0,
            Some(at) => head[at + LENGTH.len()..]
                .iter()
                .take_while(|byte| byte.is_ascii_digit())
                .fold(0, |length, digit| length * 10 + usize::from(digit - b'0')),
        };
        Ok(Some(Self {
            status,
            length: end + 4,
            body_length,
        }))
    }
}
