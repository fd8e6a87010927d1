//! Classifies a provider's response: a success, or an error with its retry policy.
//!
//! The status decides, unless the connector knows the provider's error code. A 4xx is final, with
//! two exceptions: a rate limit, and a 401 or 403 that is no authorization decision. The latter has
//! no provider code (a proxy or load balancer sent it), or its code reports an outage; it is
//! handled like an outage.

use bytes::Bytes;
use jiff::Timestamp;
use serde::Deserialize;

use super::{
    CallError, CallErrorKind,
    breaker::BreakerPermit,
    exchange::TransportError,
    retry::{self, Outage},
    token_limiter::{Permit, RetryAfter},
};

/// A provider's response, read completely.
#[derive(Debug)]
pub struct ProviderResponse {
    pub(super) status: u16,
    pub(super) body: Bytes,
    pub(super) retry_after: Option<Vec<u8>>,
    pub(super) date: Option<Vec<u8>>,
}

impl ProviderResponse {
    pub fn status(&self) -> u16 {
        self.status
    }

    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Parses the body. The error states the position of the fault in the body, never its content.
    pub fn json<'a, T: Deserialize<'a>>(&'a self) -> Result<T, CallError> {
        serde_json::from_slice(&self.body).map_err(|error| CallError {
            status: Some(self.status),
            ..CallError::invalid_reply(format!(
                "the reply is not what was asked for ({:?}, line {}, column {})",
                error.classify(),
                error.line(),
                error.column()
            ))
        })
    }
}

/// A connector's reading of an unsuccessful response.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ErrorReply {
    /// The provider's own error code.
    pub code: Option<i64>,
    /// A reference to quote to the provider's support team.
    pub reference: Option<String>,
    pub nature: Classification,
}

/// The kind of failure that an error code reports, beyond the status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Classification {
    /// Nothing beyond the status: 502, 503 and 504 are retried, 500 is not.
    #[default]
    ByStatus,
    /// A rate limit, even if the status is not 429.
    Throttled,
    /// An outage of seconds.
    Passing,
    /// An outage of minutes, such as maintenance.
    PassingSlowly,
    /// A failure that a retry does not fix.
    Lasting,
    /// The provider does not accept the credential, with either a 401 or a 403.
    CredentialRefused,
    /// The provider accepts the credential, but not for this request: 401 or 403.
    NotPermitted,
}

/// An attempt that failed.
pub(super) struct FailedAttempt {
    pub(super) error: CallError,
    pub(super) retry_policy: RetryPolicy,
    /// Whether there was a response.
    is_answer: bool,
    /// How long every client of this token must wait: set by a rate limit, and by an outage whose
    /// response has a usable `Retry-After`.
    pub(super) pause: Option<RetryAfter>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RetryPolicy {
    None,
    TryAgain(Outage),
    /// Retry after the pause, which applies to every client of the token.
    WaitOut,
}

/// Classifies the outcome of one attempt.
pub(super) fn classify(
    outcome: Result<ProviderResponse, TransportError>,
    error_reply: impl Fn(&ProviderResponse) -> ErrorReply,
    now: Timestamp,
) -> Result<ProviderResponse, FailedAttempt> {
    match outcome {
        Ok(answer) if (200..=299).contains(&answer.status) => Ok(answer),
        Ok(answer) => {
            let error_reply = error_reply(&answer);
            Err(FailedAttempt::refusal(&answer, error_reply, now))
        }
        Err(transport_error) => Err(FailedAttempt::transport_error(transport_error)),
    }
}

impl FailedAttempt {
    fn transport_error(transport_error: TransportError) -> Self {
        Self {
            error: CallError {
                status: transport_error.status,
                ..CallError::new(transport_error.kind, transport_error.detail)
            },
            retry_policy: if transport_error.is_passing {
                RetryPolicy::TryAgain(Outage::Seconds)
            } else {
                RetryPolicy::None
            },
            is_answer: false,
            pause: None,
        }
    }

    fn refusal(answer: &ProviderResponse, error_reply: ErrorReply, now: Timestamp) -> Self {
        let status = answer.status;
        let is_throttled = status == 429 || error_reply.nature == Classification::Throttled;
        let (kind, retry_policy) = match (status, error_reply.nature) {
            _ if is_throttled => (CallErrorKind::Throttled, RetryPolicy::WaitOut),
            (401 | 403, Classification::PassingSlowly) => (
                CallErrorKind::Unavailable,
                RetryPolicy::TryAgain(Outage::Minutes),
            ),
            (401 | 403, Classification::Lasting) => (CallErrorKind::Unavailable, RetryPolicy::None),
            (401 | 403, nature)
                if nature == Classification::Passing || error_reply.code.is_none() =>
            {
                (
                    CallErrorKind::Unavailable,
                    RetryPolicy::TryAgain(Outage::Seconds),
                )
            }
            (401 | 403, Classification::CredentialRefused) => {
                (CallErrorKind::Unauthorized, RetryPolicy::None)
            }
            (401 | 403, Classification::NotPermitted) => {
                (CallErrorKind::Forbidden, RetryPolicy::None)
            }
            (401, _) => (CallErrorKind::Unauthorized, RetryPolicy::None),
            (403, _) => (CallErrorKind::Forbidden, RetryPolicy::None),
            (404, _) => (CallErrorKind::NotFound, RetryPolicy::None),
            (400..=499, _) => (CallErrorKind::Refused, RetryPolicy::None),
            (500..=599, Classification::PassingSlowly) => (
                CallErrorKind::Unavailable,
                RetryPolicy::TryAgain(Outage::Minutes),
            ),
            (500..=599, Classification::Passing) | (502..=504, Classification::ByStatus) => (
                CallErrorKind::Unavailable,
                RetryPolicy::TryAgain(Outage::Seconds),
            ),
            (500..=599, _) => (CallErrorKind::Unavailable, RetryPolicy::None),
            // Includes redirects, which are never followed.
            _ => (CallErrorKind::InvalidReply, RetryPolicy::None),
        };
        let retry_after_header =
            retry::parse_retry_after(answer.retry_after.as_deref(), answer.date.as_deref(), now);
        let pause = match retry_after_header {
            retry_after_header if is_throttled => Some(retry_after_header),
            RetryAfter::After(_) if kind == CallErrorKind::Unavailable => Some(retry_after_header),
            _ => None,
        };
        let detail = match error_reply.code {
            Some(code) => format!("the provider answered {status} with code {code}"),
            None if matches!(status, 401 | 403) => {
                format!("{status} without a code of the provider: a proxy's, it may be")
            }
            None => format!("the provider answered {status}"),
        };
        Self {
            error: CallError {
                kind,
                detail,
                status: Some(status),
                code: error_reply.code,
                reference: error_reply.reference.filter(|text| is_reference(text)),
                retry_after: pause.map(RetryAfter::pause),
            },
            retry_policy,
            is_answer: true,
            pause,
        }
    }

    /// Reports the outcome to the rate limiter and the breaker.
    pub(super) fn settle(&self, permit: Permit, pass: BreakerPermit) {
        match self.pause {
            Some(retry_after_header) => permit.throttled(retry_after_header),
            None if self.is_answer => permit.answered(),
            None => permit.unanswered(),
        }
        match self.error.kind {
            CallErrorKind::Unavailable | CallErrorKind::InvalidReply => pass.failed(),
            // A refusal or a rate limit proves that the provider works.
            _ => pass.succeeded(),
        }
    }
}

/// Whether the text looks like a reference; anything else might contain personal data.
fn is_reference(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}
