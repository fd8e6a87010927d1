//! The HTTP server on loopback. It also breaks connections when a fault demands it.
//!
//! Only this module uses the web framework and sockets. It never holds the state's lock while it
//! waits.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::TcpListener;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actix_web::dev::{Server, ServerHandle};
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderMap};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt};

use crate::api;
use crate::call::{Call, Query, Reply};
use crate::control;
use crate::state::{Delivery, Outcome, State};

/// The state, shared by the server's threads.
#[derive(Clone)]
pub struct Shared(Arc<Mutex<State>>);

impl fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Shared {
    pub fn new(state: State) -> Self {
        Self(Arc::new(Mutex::new(state)))
    }

    /// Ignores poisoning: a panic in one request must not break the others.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The largest request body; a long list of mutations fits.
const MOST_BODY: usize = 64 << 20;
const PAGE_OF_CONSENT: &str = "/b/authorize";
const LANDING: &str = "/b/callback";

/// Serves on a bound socket. The caller must await the server in a task.
pub fn serve(listener: TcpListener, shared: Shared) -> io::Result<(Server, ServerHandle)> {
    let server = HttpServer::new(move || {
        App::new()
            .app_data(web::Data::new(shared.clone()))
            .app_data(web::PayloadConfig::new(MOST_BODY))
            .route(PAGE_OF_CONSENT, web::route().to(authorize))
            .route(LANDING, web::get().to(landing))
            .route(
                &format!("{}/{{call}}", control::BASE),
                web::route().to(control_plane),
            )
            .default_service(web::route().to(api_call))
    })
    .workers(2)
    .keep_alive(Duration::from_secs(75))
    .disable_signals()
    .on_connect(|connection, extensions| {
        if let Some(stream) = connection.downcast_ref::<actix_web::rt::net::TcpStream>()
            && let Ok(socket) = socket2::SockRef::from(stream).try_clone()
        {
            extensions.insert(Connection(socket));
        }
    })
    .listen(listener)?
    .run();
    let handle = server.handle();
    Ok((server, handle))
}

/// A second handle to a connection's socket, with which the connection can be reset.
struct Connection(socket2::Socket);

async fn api_call(request: HttpRequest, body: Bytes, shared: web::Data<Shared>) -> HttpResponse {
    let call = call_of(&request, body);
    let arrival = shared.lock().arrive(&call);
    let outcome = if arrival.wait.is_zero() {
        shared.lock().answer(arrival, &call)
    } else {
        // In a task, since the framework drops a handler whose connection is closed, and a request
        // must be served even if its client disconnects.
        let late = async move {
            tokio::time::sleep(arrival.wait).await;
            shared.lock().answer(arrival, &call)
        };
        match tokio::spawn(late).await {
            Ok(outcome) => outcome,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    };
    deliver(&request, outcome)
}

async fn authorize(request: HttpRequest, body: Bytes, shared: web::Data<Shared>) -> HttpResponse {
    let call = call_of(&request, body);
    let reply = if matches!(call.method.as_str(), "GET" | "POST") {
        api::consent::authorize(&mut shared.lock(), &call)
    } else {
        Reply::empty(405)
    };
    deliver(&request, reply.into())
}

async fn landing(request: HttpRequest) -> HttpResponse {
    let reply = api::consent::landing(&call_of(&request, Bytes::new()));
    deliver(&request, reply.into())
}

async fn control_plane(
    request: HttpRequest,
    path: web::Path<String>,
    body: Bytes,
    shared: web::Data<Shared>,
) -> HttpResponse {
    let is_near = request
        .peer_addr()
        .is_some_and(|peer| peer.ip().is_loopback());
    let reply = if is_near {
        control::serve(&mut shared.lock(), &path, &call_of(&request, body))
    } else {
        Reply::empty(403)
    };
    deliver(&request, reply.into())
}

fn call_of(request: &HttpRequest, body: Bytes) -> Call {
    let header = |name| header_text(request.headers(), name);
    Call {
        method: request.method().as_str().to_owned(),
        path: request.path().to_owned(),
        raw_query: request.query_string().to_owned(),
        query: Query::parse(request.query_string().as_bytes()),
        authorization: header("authorization"),
        assume_user: header("assume-user"),
        accept: header("accept"),
        content_type: header("content-type"),
        body,
    }
}

/// The text of a header. Invalid UTF-8 is replaced, so that an unreadable header does not count as
/// absent.
fn header_text(headers: &HeaderMap, name: &str) -> Option<String> {
    let value = headers.get(name)?;
    Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
}

/// Sends a reply, or breaks the connection.
fn deliver(request: &HttpRequest, Outcome { reply, delivery }: Outcome) -> HttpResponse {
    let status = StatusCode::from_u16(reply.status)
        .expect("codes are constants, and faults are checked when ordered");
    let mut response = HttpResponse::build(status);
    response.insert_header((header::CONTENT_TYPE, reply.content_type.as_ref()));
    for (name, value) in &reply.headers {
        response.insert_header((*name, value.as_str()));
    }
    let length = reply.body.len() as u64;
    match delivery {
        Delivery::Whole => response.body(reply.body),
        Delivery::Trickle { bytes_per_s } => response
            .no_chunking(length)
            .streaming(trickle(reply.body, bytes_per_s)),
        Delivery::Truncated { bytes } => response
            .no_chunking(length)
            .streaming(truncated(reply.body, bytes)),
        Delivery::Dropped => response.streaming(broken()),
        Delivery::Reset => {
            if let Some(Connection(socket)) = request.conn_data::<Connection>() {
                // With a linger time of zero, closing the connection sends a reset. If the option
                // fails, the client still sees the connection end without a reply.
                let _ = socket.set_linger(Some(Duration::ZERO));
            }
            response.streaming(broken())
        }
    }
}

/// A body that fails before its first byte. The framework then closes the connection without
/// sending the reply's head.
fn broken() -> impl Stream<Item = Result<Bytes, io::Error>> {
    stream::once(async { Err(io::Error::from(io::ErrorKind::ConnectionAborted)) })
}

/// The first bytes of a body, then the end of the connection.
fn truncated(body: Bytes, bytes: usize) -> impl Stream<Item = Result<Bytes, io::Error>> {
    let sent = body.slice(..bytes.min(body.len()));
    let cut = async {
        // The framework drops its write buffer when a body fails; the pause lets the bytes leave
        // first.
        tokio::time::sleep(Duration::from_millis(50)).await;
        Err(io::Error::from(io::ErrorKind::ConnectionAborted))
    };
    stream::iter([Ok(sent)]).chain(stream::once(cut))
}

/// A body in small chunks at the given rate, fewer than forty chunks per second.
fn trickle(body: Bytes, bytes_per_s: u64) -> impl Stream<Item = Result<Bytes, Infallible>> {
    let drop_size = usize::try_from((bytes_per_s / 20).max(1)).unwrap_or(usize::MAX);
    let pause = Duration::from_secs_f64(drop_size as f64 / bytes_per_s as f64);
    stream::unfold(body, move |mut rest| async move {
        if rest.is_empty() {
            return None;
        }
        tokio::time::sleep(pause).await;
        let drop = rest.split_to(drop_size.min(rest.len()));
        Some((Ok(drop), rest))
    })
}
