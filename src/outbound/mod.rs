//! The only HTTP client, and what every provider call passes: budget, retry, breaker, timeouts,
//! size limits and waits, in this order and in this one place.

/// What a provider call came to, when not to an answer.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{kind:?}: {detail}")]
pub struct CallError {
    pub kind: CallErrorKind,
    /// For the log: never a body, a token, an e-mail address.
    pub detail: String,
    /// The provider's answer, where there was one.
    pub status: Option<u16>,
    /// The provider's own error code.
    pub code: Option<i64>,
    /// The provider's reference for its support.
    pub reference: Option<String>,
    /// How long the provider, or our own budget, wants us to wait.
    pub retry_after: Option<std::time::Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CallErrorKind {
    /// The provider does not take this credential (401).
    Unauthorized,
    /// The provider takes it, but not for this (403).
    Forbidden,
    /// No such thing (404), whatever the provider's code.
    NotFound,
    /// Another refusal of the request itself (4xx).
    Refused,
    /// 429, and the retries that the budget allows are used up.
    Throttled,
    /// No answer, or a 5xx, after the retries; or the breaker is open.
    Unavailable,
    /// An answer that is no answer: not JSON, cut short, too large, too deep, off its shape.
    InvalidReply,
}

/// One account's way out.
#[derive(Clone)]
pub struct Caller;
