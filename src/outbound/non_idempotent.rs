//! Requests that must not be repeated. An authorization code and a refresh token work once, and the
//! provider may have spent one even if its response was lost.
//!
//! Such a request has no retry, no breaker and no rate limiter (the token endpoint counts no access
//! token). It has a minute to be answered, and its outcome is one of three: a response, not sent,
//! or unknown.

use std::time::Duration;

use tokio::time::Instant;
use url::Url;

use super::{
    CallError, CallErrorKind, Outbound, ProviderResponse, Timeouts,
    exchange::{Outgoing, TransportError},
};

/// A shorter timeout would lose accounts: the provider may have spent the token and be about to
/// respond.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);

/// A form to post exactly once.
#[derive(Debug)]
pub struct NonIdempotent<'a> {
    pub provider: &'static str,
    pub url: Url,
    /// The path with placeholders, for the log.
    pub template: &'static str,
    /// URL-encoded; never logged.
    pub form: &'a str,
}

/// Why there is no response.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OnceError {
    /// Nothing was sent: the request may be repeated.
    #[error("{0}")]
    Unsent(CallError),
    /// The request may have arrived: the outcome is unknown.
    #[error("{0}")]
    Doubtful(CallError),
}

impl Outbound {
    /// Posts a form once and returns any response, including refusals.
    ///
    /// Call it in a task that a client's disconnect does not cancel: if the future is dropped, the
    /// outcome is unknown.
    pub async fn post_once(&self, once: NonIdempotent<'_>) -> Result<ProviderResponse, OnceError> {
        let shared = &*self.0;
        let settings = &shared.settings;
        if let Err(fault) = settings.reach().check(&once.url) {
            let error = CallError::new(CallErrorKind::Refused, fault.to_string());
            return Err(OnceError::Unsent(error));
        }
        let timeouts = Timeouts {
            first_byte: RESPONSE_TIMEOUT,
            whole: RESPONSE_TIMEOUT,
            ..settings.timeouts.clone()
        };
        let sent_at = Instant::now();
        let outcome = Outgoing::form(once.url, once.form)
            .send(&shared.once_client, &settings.caps, &timeouts)
            .await;
        let (status, fault) = match &outcome {
            Ok(answer) => (Some(answer.status()), None),
            Err(transport_error) => (
                transport_error.status,
                Some(transport_error.detail.as_str()),
            ),
        };
        tracing::info!(
            provider = once.provider,
            path = once.template,
            status,
            ms = u64::try_from(sent_at.elapsed().as_millis()).unwrap_or(u64::MAX),
            fault,
            "token request"
        );
        outcome.map_err(|transport_error| {
            let TransportError {
                kind,
                detail,
                status,
                is_unsent,
                ..
            } = transport_error;
            let error = CallError {
                status,
                ..CallError::new(kind, detail)
            };
            if is_unsent {
                OnceError::Unsent(error)
            } else {
                OnceError::Doubtful(error)
            }
        })
    }
}
