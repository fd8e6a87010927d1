//! Turns errors into responses: one table maps kinds to status codes, and all errors share one
//! body.
//!
//! StackOne's SDK requires `statusCode` (a number), `message` (a string) and `timestamp` (with an
//! offset) under `application/json`. Without them, its caller gets a validation error in place of
//! this one. `code`, `hint`, `request_id`, `progress` and `provider_errors` are Rolecall's own.

use std::{fmt, time::Duration};

use actix_web::{
    HttpResponse, ResponseError,
    http::{StatusCode, header},
};
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    error::{Error, Kind},
    model::timestamp,
};

/// The status code of each kind of error. StackOne's SDK has an error class for each of these
/// codes, except for 405 and 503, which are used as HTTP defines them (RFC 9110).
pub const fn status(kind: Kind) -> u16 {
    match kind {
        Kind::InvalidParameter
        | Kind::InvalidBody
        | Kind::InvalidCursor
        | Kind::AccountRequired
        | Kind::AuthorizationInvalid
        | Kind::BaseUrlNotAllowed => 400,
        Kind::Unauthorized => 401,
        Kind::KeyScopeMissing
        | Kind::AdminNotPermitted
        | Kind::GroupsNotPermitted
        | Kind::FieldNotPermitted
        | Kind::ActionNotEnabled
        | Kind::ConnectSessionInvalid => 403,
        Kind::NotFound | Kind::AccountNotFound | Kind::WalkNotFound | Kind::RouteNotFound => 404,
        Kind::MethodNotAllowed => 405,
        Kind::DirectoryNotReady | Kind::RefreshInProgress | Kind::BodyTimeout => 408,
        Kind::WalkSuperseded
        | Kind::WalkNotHeld
        | Kind::NothingToRefresh
        | Kind::TooManyKeys
        | Kind::PublicUrlMissing => 409,
        Kind::AccountInactive => 412,
        Kind::CredentialRefused
        | Kind::ScopeMissing
        | Kind::OrganizationMismatch
        | Kind::AuthorizationRefused
        | Kind::AppRefused
        | Kind::AssumeUserRefused => 422,
        Kind::RateLimited | Kind::ProviderThrottled => 429,
        Kind::Internal | Kind::CredentialLocked => 500,
        Kind::ProxyNotOffered | Kind::PoliciesNotOffered | Kind::WritesNotOffered => 501,
        Kind::ProviderUnavailable => 502,
        Kind::StoreUnavailable => 503,
    }
}

/// A wait in whole seconds for a header, rounded up and never 0: on 0 or a fraction, StackOne's SDK
/// falls back to its own backoff.
pub const fn whole_seconds(wait: Duration) -> u128 {
    let seconds = wait.as_millis().div_ceil(1000);
    if seconds == 0 { 1 } else { seconds }
}

/// The body of every error.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Error)]
pub struct ErrorBody {
    #[serde(rename = "statusCode")]
    pub status_code: u16,
    /// Describes the fault in a sentence.
    pub message: String,
    #[serde(serialize_with = "timestamp::serialize")]
    pub timestamp: Timestamp,
    /// A stable code for programs.
    #[schema(example = "account_not_found")]
    pub code: &'static str,
    /// Suggests a remedy.
    pub hint: String,
    /// The same as in the header x-request-id.
    #[schema(format = Uuid)]
    pub request_id: String,
    /// The provider's error answer, if there was one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub provider_errors: Vec<ProviderErrorBody>,
    /// How far the first walk is, if the request waited for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<ProgressBody>,
}

/// A provider's refusal, without its text.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ProviderError)]
pub struct ProviderErrorBody {
    pub status: Option<u16>,
    /// The provider's own error code.
    pub code: Option<i64>,
    /// The provider's reference, for its support.
    pub reference: Option<String>,
}

/// How far a walk is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Progress)]
pub struct ProgressBody {
    pub pages: u64,
    pub pages_total: Option<u64>,
    pub records: u64,
    pub eta_seconds: Option<u64>,
}

/// An [`Error`] as a handler returns it. `middleware` turns it into a response, once the request id
/// is known.
#[derive(Debug)]
pub struct ApiError(pub Error);

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(status(self.0.kind())).expect("the table holds valid status codes")
    }

    /// The status alone. [`ApiError::answer`] builds the whole response once the request id is
    /// known.
    fn error_response(&self) -> HttpResponse {
        HttpResponse::new(self.status_code())
    }
}

impl ApiError {
    /// Builds the response, with its headers and body.
    pub fn answer(&self, request_id: &str, now: Timestamp) -> HttpResponse {
        let error = &self.0;
        let body = ErrorBody {
            status_code: status(error.kind()),
            message: error.message().to_owned(),
            timestamp: now,
            code: error.kind().code(),
            hint: error.hint().to_owned(),
            request_id: request_id.to_owned(),
            provider_errors: error
                .provider()
                .map(|fault| ProviderErrorBody {
                    status: fault.status,
                    code: fault.code,
                    reference: fault.reference.clone(),
                })
                .into_iter()
                .collect(),
            progress: error.progress().map(|progress| ProgressBody {
                pages: progress.pages,
                pages_total: progress.pages_total,
                records: progress.records,
                eta_seconds: progress.eta_seconds,
            }),
        };
        let mut answer = HttpResponse::build(self.status_code());
        if error.kind() == Kind::Unauthorized {
            answer.insert_header((header::WWW_AUTHENTICATE, r#"Bearer realm="rolecall""#));
        }
        if let Some(wait) = error.retry_after() {
            answer.insert_header((header::RETRY_AFTER, whole_seconds(wait).to_string()));
        }
        answer
            .insert_header((header::CACHE_CONTROL, "no-store"))
            .insert_header(("x-request-id", request_id))
            .json(body)
    }
}
