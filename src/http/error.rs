//! Errors as answers: the one table from kinds to status codes, and the one body.
//!
//! StackOne's SDK needs `statusCode` (a number), `message` (a text) and `timestamp` (with an
//! offset) under `application/json`, or its caller gets a validation error in place of the
//! error; `code`, `hint`, `request_id`, `progress` and `provider_errors` are ours.

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

/// The status that each kind of error answers with. Codes that StackOne's SDK has a class for
/// come first; 405 and 503 have none there and mean what HTTP says (RFC 9110).
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
        | Kind::OrganisationMismatch
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

/// A wait as a header says it: never 0, since StackOne's SDK falls back to its own backoff on 0 or a
/// fraction.
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
    /// What is wrong, in a sentence.
    pub message: String,
    #[serde(serialize_with = "timestamp::serialize")]
    pub timestamp: Timestamp,
    /// A stable word for programs.
    #[schema(example = "account_not_found")]
    pub code: &'static str,
    /// What to do about it.
    pub hint: String,
    /// As in the header x-request-id.
    #[schema(format = Uuid)]
    pub request_id: String,
    /// What the provider answered, where it spoke.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub provider_errors: Vec<ProviderErrorBody>,
    /// How far the first walk is, where that is what the caller waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<ProgressBody>,
}

/// A provider's refusal, without its body.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ProviderError)]
pub struct ProviderErrorBody {
    pub status: Option<u16>,
    /// The provider's own error code.
    pub code: Option<i64>,
    /// The provider's reference for its support.
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

/// An [`Error`] on its way out. `middleware` gives it the request's id and the body.
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

    /// The bare status; [`ApiError::answer`] makes the whole of it once the request is known.
    fn error_response(&self) -> HttpResponse {
        HttpResponse::new(self.status_code())
    }
}

impl ApiError {
    /// The whole answer.
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
