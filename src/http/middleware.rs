//! The middleware around all routes. It adds a request id and the common headers to every response,
//! turns every error (also those of actix, and panics) into the API's error body, and records the
//! request in the access log and the metrics.

use std::{cell::Cell, panic::AssertUnwindSafe, pin::pin, rc::Rc};

use actix_web::{
    Error as ActixError, HttpMessage, HttpRequest, HttpResponse,
    body::{BoxBody, MessageBody},
    dev::{ResponseHead, ServiceRequest, ServiceResponse},
    error::InternalError,
    http::{ConnectionType, Method, StatusCode, header},
    middleware::Next,
    web::Data,
};
use futures_util::{
    FutureExt,
    future::{Either, select},
};

use super::{
    access_log::{AccessLog, AccessLogLine},
    chunked::Watched,
    connection::Activity,
    error::ApiError,
    guard_swagger_ui,
    metrics::{Meters, known},
    rate_limit,
    routes::RouteTable,
};
use crate::{
    error::{Error, Kind},
    gateway::{Gateway, auth::rate_limit::RemainingQuotas},
    model::id::{AccountId, KeyId},
    telemetry::metrics::LabelValue,
};

const NO_STORE: header::HeaderValue = header::HeaderValue::from_static("no-store");
const NOSNIFF: header::HeaderValue = header::HeaderValue::from_static("nosniff");
const REQUEST_ID: header::HeaderName = header::HeaderName::from_static("x-request-id");

/// Marker type of request ids.
enum RequestMarker {}

/// The authenticated key of a request and the account that it names, as far as both are known.
#[derive(Debug, Clone, Copy, Default)]
pub struct LoggedCaller {
    pub key: Option<KeyId>,
    pub account: Option<AccountId>,
}

/// Facts about a request that outlive it. After a panic in a handler, the request itself is gone.
#[derive(Clone)]
pub struct RequestExt(Rc<RequestNotes>);

struct RequestNotes {
    request_id: String,
    /// The quotas that are left; set once the key is authenticated.
    quotas: Cell<RemainingQuotas>,
    caller: Cell<LoggedCaller>,
}

impl RequestExt {
    fn beside(request: &ServiceRequest, request_id: String) -> Self {
        let noted = Self(Rc::new(RequestNotes {
            request_id,
            quotas: Cell::default(),
            caller: Cell::default(),
        }));
        request.extensions_mut().insert(noted.clone());
        noted
    }

    pub fn request_id(&self) -> &str {
        &self.0.request_id
    }

    /// Records the quotas that the caller has left.
    pub fn set_quota(request: &HttpRequest, quotas: RemainingQuotas) {
        if let Some(noted) = request.extensions().get::<Self>() {
            noted.0.quotas.set(quotas);
        }
    }

    /// Records the authenticated key.
    pub fn key(request: &HttpRequest, key: KeyId) {
        if let Some(noted) = request.extensions().get::<Self>() {
            let caller = noted.0.caller.get();
            let key = Some(key);
            noted.0.caller.set(LoggedCaller { key, ..caller });
        }
    }

    /// Records the account, which belongs to the caller's project.
    pub fn account(request: &HttpRequest, account: AccountId) {
        if let Some(noted) = request.extensions().get::<Self>() {
            let caller = noted.0.caller.get();
            let account = Some(account);
            noted.0.caller.set(LoggedCaller { account, ..caller });
        }
    }

    /// Adds the headers of every response. Without a `Cache-Control` of its own, it gets
    /// `no-store`.
    fn tell(&self, headers: &mut header::HeaderMap) {
        headers.insert(REQUEST_ID, header_value(self.request_id()));
        if !headers.contains_key(header::CACHE_CONTROL) {
            headers.insert(header::CACHE_CONTROL, NO_STORE);
        }
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, NOSNIFF);
        rate_limit::tell(self.0.quotas.get(), headers);
    }
}

/// Whether the connection closes after the response: after a malformed body, while this process is
/// stopping, and if the request offers another protocol, as Java's HTTP client does with every
/// request (`Upgrade: h2c`).
///
/// Rolecall ignores the offer (RFC 9110, 7.8). But actix marks the connection as `upgrade` before
/// any of our code runs. It would send `connection: upgrade` and then close the connection without
/// notice, and the client's next request would be lost. No response can make actix keep the
/// connection, so the response announces the close (ADR 17).
#[derive(Clone, Copy)]
struct EndsConnection(bool);

impl EndsConnection {
    fn after(request: &ServiceRequest) -> Self {
        Self(request.head().connection_type() == ConnectionType::Upgrade)
    }

    fn tell(self, answer: &mut ResponseHead) {
        if self.0 {
            answer.set_connection_type(ConnectionType::Close);
        }
    }
}

/// Marks a response that is complete although its status is an error, such as a page of the hub.
/// The middleware does not replace its body.
pub struct Rendered;

/// Wraps the whole app.
///
/// # Errors
/// Only where no request is left: an error of an inner service, a malformed body, or a panic. The
/// error carries its finished response.
pub async fn finish(
    mut request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, ActixError> {
    let gateway = request
        .app_data::<Data<Gateway>>()
        .expect("the app was built with a gateway")
        .clone();
    let meters = request
        .app_data::<Data<Meters>>()
        .expect("the app was built with its meters")
        .clone();
    let log = request
        .app_data::<Data<AccessLog>>()
        .expect("the app was built with its log")
        .clone();
    let clock = gateway.clock();
    let began_at = clock.monotonic();
    let method = request.method().clone();
    if method == Method::HEAD {
        // Handled as a GET; the encoder of the connection leaves the body out.
        request.head_mut().method = Method::GET;
    }
    let mut ends = EndsConnection::after(&request);
    let activity = request.request().conn_data::<Rc<Activity>>();
    // The request is in flight until this function returns.
    let _under_way = activity.map(Activity::request);
    let body = Watched::of(&mut request);
    let noted = RequestExt::beside(&request, gateway.new_id::<RequestMarker>().to_string());
    let id = noted.request_id();
    let note = |route: Option<&str>, status: StatusCode| {
        let now = clock.monotonic();
        let took = now.saturating_sub(began_at);
        meters.note(route, &method, status, took);
        let line = AccessLogLine {
            request_id: id,
            method: known(&method).word(),
            route,
            status: status.as_u16(),
            caller: noted.0.caller.get(),
            took,
        };
        log.write(&line, now);
    };
    let call = AssertUnwindSafe(next.call(request)).catch_unwind();
    let outcome = match body.clone() {
        None => call.await,
        // A malformed body must end the call here: actix would drop it without a response.
        Some(body) => match select(pin!(call), pin!(body.breaks())).await {
            Either::Left((outcome, _)) => outcome,
            Either::Right(_) => {
                ends = EndsConnection(true);
                let message = "the chunks that the body comes in are malformed";
                let error = Error::new(Kind::InvalidBody, message);
                Ok(Err(ApiError(error).into()))
            }
        },
    };
    ends.0 |= gateway.is_stopping();
    let mut response = match outcome {
        Ok(Ok(response)) => response,
        // The request is gone here, so the error itself carries the response.
        Ok(Err(error)) => {
            let mut answer = refusal(&error, id, clock);
            noted.tell(answer.headers_mut());
            ends.tell(answer.head_mut());
            note(None, answer.status());
            let answer = holding(body, answer);
            return Err(InternalError::from_response(error, answer).into());
        }
        Err(_panic) => {
            // The panic hook has logged it. The caller gets a response, and the worker goes on.
            let error = ApiError(Error::internal("a handler panicked"));
            let mut answer = error.answer(id, clock.now());
            noted.tell(answer.headers_mut());
            ends.tell(answer.head_mut());
            note(None, answer.status());
            let answer = holding(body, answer);
            return Err(InternalError::from_response(error, answer).into());
        }
    }
    .map_into_boxed_body();

    let status = response.status();
    let is_finished = response.response().extensions().contains::<Rendered>();
    if !is_finished && (status.is_client_error() || status.is_server_error()) {
        let mut answer = match response.response().error() {
            Some(error) => refusal(error, id, clock),
            None => bare(status, None).answer(id, clock.now()),
        };
        if status == StatusCode::METHOD_NOT_ALLOWED {
            answer
                .headers_mut()
                .insert(header::ALLOW, allowed(response.request()));
        }
        response = response.into_response(answer);
    }
    noted.tell(response.headers_mut());
    let path = response.request().path().to_owned();
    guard_swagger_ui(&path, response.headers_mut());
    ends.tell(response.response_mut().head_mut());
    let route = response.request().match_pattern();
    note(route.as_deref(), response.status());
    Ok(match body {
        Some(request) => response.map_body(|_, answer| request.held_by(answer)),
        None => response,
    })
}

/// Attaches the request body, if it is chunked, to the response.
fn holding(body: Option<Watched>, answer: HttpResponse) -> HttpResponse {
    match body {
        Some(request) => answer.map_body(|_, answer| request.held_by(answer)),
        None => answer,
    }
}

/// The methods of the request's path, for `Allow` (RFC 9110, 10.2.1).
fn allowed(request: &HttpRequest) -> header::HeaderValue {
    let routes = request
        .app_data::<Data<RouteTable>>()
        .expect("the app was built with its route table");
    header_value(&routes.methods(request.path()).join(", "))
}

fn header_value(text: &str) -> header::HeaderValue {
    header::HeaderValue::from_str(text).expect("ids and methods are plain ASCII")
}

fn refusal(error: &ActixError, id: &str, clock: &crate::clock::Clock) -> HttpResponse {
    match error.as_error::<ApiError>() {
        Some(known) => {
            log_cause(&known.0, id);
            known.answer(id, clock.now())
        }
        // An error that actix itself raised.
        None => {
            let status = error.as_response_error().status_code();
            bare(status, Some(error.to_string())).answer(id, clock.now())
        }
    }
}

/// Logs the cause of an error: at error level if it is ours, else at debug level.
pub fn log_cause(error: &Error, id: &str) {
    let Some(source) = std::error::Error::source(error) else {
        return;
    };
    match error.kind() {
        Kind::Internal | Kind::CredentialLocked => {
            tracing::error!(request_id = id, error = %source, "fault");
        }
        _ => tracing::debug!(request_id = id, error = %source, "refused"),
    }
}

/// Turns an error of actix into one of ours. The caller does not see its text.
fn bare(status: StatusCode, detail: Option<String>) -> ApiError {
    let kind = match status {
        StatusCode::NOT_FOUND => Kind::RouteNotFound,
        StatusCode::METHOD_NOT_ALLOWED => Kind::MethodNotAllowed,
        status if status.is_server_error() => Kind::Internal,
        _ => Kind::InvalidParameter,
    };
    let error = match (kind, detail) {
        (Kind::Internal, detail) => Error::internal(detail.unwrap_or_else(|| status.to_string())),
        (kind, Some(_)) => Error::new(kind, "the request could not be read"),
        (kind, None) => Error::new(kind, "the request was refused"),
    };
    ApiError(error)
}
