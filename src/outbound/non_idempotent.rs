//! What must not be sent again: a code and a refresh token are good once, and one that was spent
//! on a reply which never came is spent.
//!
//! So it passes no retry, no breaker and no lane (the token endpoint counts no access token), has
//! a minute to be answered, and what came of it is told in three ways: an answer, nothing left, or
//! nobody knows.

use std::time::Duration;

use tokio::time::Instant;
use url::Url;

use super::{
    CallError, CallErrorKind, Outbound, ProviderResponse, Timeouts,
    exchange::{Outgoing, TransportError},
};

/// A shorter wait loses accounts by itself: the provider may have spent the token and be about to
/// say so.
const ANSWERED_WITHIN: Duration = Duration::from_secs(60);

/// A form to be posted once.
#[derive(Debug)]
pub struct NonIdempotent<'a> {
    pub provider: &'static str,
    pub url: Url,
    /// The path without its values, for the log.
    pub template: &'static str,
    /// Encoded; never logged.
    pub form: &'a str,
}

/// Why there is no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OnceError {
    /// Nothing left: it may be sent again.
    #[error("{0}")]
    Unsent(CallError),
    /// It may have arrived.
    #[error("{0}")]
    Doubtful(CallError),
}

impl Outbound {
    /// Sends a form once and gives whatever is answered, refusals too. To be called in a task
    /// that nobody's disconnect ends: who drops this does not know what became of it.
    pub async fn post_once(&self, once: NonIdempotent<'_>) -> Result<ProviderResponse, OnceError> {
        let shared = &*self.0;
        let settings = &shared.settings;
        if let Err(fault) = settings.reach().check(&once.url) {
            let error = CallError::new(CallErrorKind::Refused, fault.to_string());
            return Err(OnceError::Unsent(error));
        }
        let timeouts = Timeouts {
            first_byte: ANSWERED_WITHIN,
            whole: ANSWERED_WITHIN,
            ..settings.timeouts.clone()
        };
        let sent_at = Instant::now();
        let outcome = Outgoing::form(once.url, once.form)
            .send(&shared.once_client, &settings.caps, &timeouts)
            .await;
        let (status, fault) = match &outcome {
            Ok(answer) => (Some(answer.status()), None),
            Err(broken) => (broken.status, Some(broken.detail.as_str())),
        };
        tracing::info!(
            provider = once.provider,
            path = once.template,
            status,
            ms = u64::try_from(sent_at.elapsed().as_millis()).unwrap_or(u64::MAX),
            fault,
            "token request"
        );
        outcome.map_err(|broken| {
            let TransportError {
                kind,
                detail,
                status,
                is_unsent,
                ..
            } = broken;
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
