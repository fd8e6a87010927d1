//! What an answer comes to: what was asked for, or a fault and what may be done about it.
//!
//! The status decides, and where the connector knows more by the provider's own code, that. A
//! 4xx is final whatever its code says, with two exceptions: a rate limit, and a 401 or 403 in
//! which the provider's code says nothing about rights. Proxies and load balancers answer so too;
//! it is a failure on the way, and is tried again like one.

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

/// A provider's reply, read whole.
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

    /// The body as what it should be. The error names the place in the body, not what is there.
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

/// What a connector can tell about an answer that is not a success.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ErrorReply {
    /// The provider's own error code.
    pub code: Option<i64>,
    /// The provider's reference for its support.
    pub reference: Option<String>,
    pub nature: Classification,
}

/// What a provider's error code says about trying again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Classification {
    /// Nothing that the status does not say: 502, 503 and 504 pass, 500 does not.
    #[default]
    ByStatus,
    /// Too many requests, even if the status is not 429.
    Throttled,
    /// Gone in seconds.
    Passing,
    /// Gone in minutes: maintenance.
    PassingSlowly,
    /// Asking again will not help.
    Lasting,
    /// The provider does not take the credential, whether it says so with a 401 or a 403.
    CredentialRefused,
    /// The provider takes the credential, but not for this: 401 or 403.
    NotPermitted,
}

/// A try that came to nothing.
pub(super) struct FailedAttempt {
    pub(super) error: CallError,
    pub(super) remedy: RetryPolicy,
    /// Whether an answer came at all.
    is_answer: bool,
    /// When nobody with this token is to call: told by a throttled answer, and by a failed one
    /// that says when to come back.
    pub(super) pause: Option<RetryAfter>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RetryPolicy {
    None,
    TryAgain(Outage),
    /// To be tried again when the pause is over, which every caller of the token keeps.
    WaitOut,
}

/// Judges what came back: a success, or why not.
pub(super) fn classify(
    outcome: Result<ProviderResponse, TransportError>,
    complaint: impl Fn(&ProviderResponse) -> ErrorReply,
    now: Timestamp,
) -> Result<ProviderResponse, FailedAttempt> {
    match outcome {
        Ok(answer) if (200..=299).contains(&answer.status) => Ok(answer),
        Ok(answer) => {
            let complaint = complaint(&answer);
            Err(FailedAttempt::refusal(&answer, complaint, now))
        }
        Err(broken) => Err(FailedAttempt::broken(broken)),
    }
}

impl FailedAttempt {
    fn broken(broken: TransportError) -> Self {
        Self {
            error: CallError {
                status: broken.status,
                ..CallError::new(broken.kind, broken.detail)
            },
            remedy: if broken.is_passing {
                RetryPolicy::TryAgain(Outage::Seconds)
            } else {
                RetryPolicy::None
            },
            is_answer: false,
            pause: None,
        }
    }

    fn refusal(answer: &ProviderResponse, complaint: ErrorReply, now: Timestamp) -> Self {
        let status = answer.status;
        let is_throttled = status == 429 || complaint.nature == Classification::Throttled;
        let (kind, remedy) = match (status, complaint.nature) {
            _ if is_throttled => (CallErrorKind::Throttled, RetryPolicy::WaitOut),
            (401 | 403, Classification::PassingSlowly) => (
                CallErrorKind::Unavailable,
                RetryPolicy::TryAgain(Outage::Minutes),
            ),
            (401 | 403, Classification::Lasting) => (CallErrorKind::Unavailable, RetryPolicy::None),
            (401 | 403, nature)
                if nature == Classification::Passing || complaint.code.is_none() =>
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
            // A redirect among them: none is followed.
            _ => (CallErrorKind::InvalidReply, RetryPolicy::None),
        };
        let retry_after_header =
            retry::parse_retry_after(answer.retry_after.as_deref(), answer.date.as_deref(), now);
        let pause = match retry_after_header {
            retry_after_header if is_throttled => Some(retry_after_header),
            RetryAfter::After(_) if kind == CallErrorKind::Unavailable => Some(retry_after_header),
            _ => None,
        };
        let detail = match complaint.code {
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
                code: complaint.code,
                reference: complaint.reference.filter(|text| is_reference(text)),
                retry_after: pause.map(RetryAfter::pause),
            },
            remedy,
            is_answer: true,
            pause,
        }
    }

    /// Tells lane and breaker how the request ended.
    pub(super) fn settle(&self, permit: Permit, pass: BreakerPermit) {
        match self.pause {
            Some(retry_after_header) => permit.throttled(retry_after_header),
            None if self.is_answer => permit.answered(),
            None => permit.unanswered(),
        }
        match self.error.kind {
            CallErrorKind::Unavailable | CallErrorKind::InvalidReply => pass.failed(),
            _ => pass.succeeded(),
        }
    }
}

/// A provider's reference is a short plain word. Anything else could be anything.
fn is_reference(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}
