//! A session: one account's access token at one endpoint, behind the rate limit, circuit breaker
//! and retries of [`crate::outbound`].
//!
//! An access token may expire in the middle of a walk. A renewable session then gets the next
//! token, once per call, and repeats the call.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use crate::{
    model::accounts::Endpoint,
    outbound::{
        AccountClient, CallError, CallErrorKind, ErrorReply, ProviderRequest, ProviderResponse,
        TokenKey,
    },
};

/// An account's session with its provider. Clones share the current access token.
#[derive(Clone)]
pub struct Session {
    pub endpoint: Endpoint,
    access: Arc<ArcSwap<Access>>,
    renewal: Option<Arc<dyn Renewal>>,
    /// Percent-encoded, as it is sent.
    assume_user: Option<Arc<str>>,
}

/// An access token, and the client that applies its rate limit.
struct Access {
    token: SecretString,
    caller: AccountClient,
}

/// A source of new access tokens.
#[async_trait]
pub trait Renewal: Send + Sync {
    /// Returns an access token other than `refused`; None if there is none.
    async fn renew(&self, refused: &SecretString) -> Option<SecretString>;
}

/// Characters that stay unencoded in `Assume-User`, as in JavaScript's `encodeURIComponent`.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'!')
    .remove(b'~')
    .remove(b'*')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')');

impl Session {
    pub fn new(endpoint: Endpoint, token: SecretString, caller: AccountClient) -> Self {
        Self {
            endpoint,
            access: Arc::new(ArcSwap::from_pointee(Access { token, caller })),
            renewal: None,
            assume_user: None,
        }
    }

    /// Makes the session renewable: it asks `renewal` for a new token when its own is refused.
    #[must_use]
    pub fn renewed_by(mut self, renewal: Arc<dyn Renewal>) -> Self {
        self.renewal = Some(renewal);
        self
    }

    /// Makes the session act as the user with this e-mail address (the header Assume-User).
    #[must_use]
    pub fn assuming(mut self, user: Option<&str>) -> Self {
        self.assume_user =
            user.map(|user| utf8_percent_encode(user, UNRESERVED).to_string().into());
        self
    }

    /// The client for the current access token.
    pub fn caller(&self) -> AccountClient {
        self.access.load().caller.clone()
    }

    pub(super) async fn get(
        &self,
        url: Url,
        template: &'static str,
        headers: &[(&'static str, &str)],
        error_reply: impl Fn(&ProviderResponse) -> ErrorReply + Send + Sync,
    ) -> Result<ProviderResponse, CallError> {
        let access = self.access.load_full();
        let headers = self.headers(headers);
        let request = |access| request(&url, template, access, &headers);
        let refused = match access.caller.get(request(&access), &error_reply).await {
            Err(error) if error.kind == CallErrorKind::Unauthorized => error,
            answer => return answer,
        };
        // The token may have expired: one renewal and one repetition per call.
        let Some(access) = self.renew(&access).await else {
            return Err(refused);
        };
        access.caller.get(request(&access), &error_reply).await
    }

    /// Never repeated with a new token: a token that is refused here has nothing left to delete.
    pub(super) async fn delete(
        &self,
        url: Url,
        template: &'static str,
        headers: &[(&'static str, &str)],
        error_reply: impl Fn(&ProviderResponse) -> ErrorReply + Send + Sync,
    ) -> Result<ProviderResponse, CallError> {
        let access = self.access.load_full();
        let headers = self.headers(headers);
        let request = request(&url, template, &access, &headers);
        access.caller.delete(request, &error_reply).await
    }

    fn headers<'a>(&'a self, own: &[(&'static str, &'a str)]) -> Vec<(&'static str, &'a str)> {
        let assumed = self.assume_user.as_deref();
        let assumed = assumed.map(|user| ("assume-user", user));
        own.iter().copied().chain(assumed).collect()
    }

    /// Gets the next token, unless another call of this session already has.
    async fn renew(&self, refused: &Access) -> Option<Arc<Access>> {
        let renewal = self.renewal.as_ref()?;
        let now = self.access.load_full();
        if now.token.expose_secret() != refused.token.expose_secret() {
            return Some(now);
        }
        let token = renewal.renew(&refused.token).await?;
        let next = Arc::new(Access {
            caller: refused.caller.with_token(TokenKey::of(&token)),
            token,
        });
        self.access.store(Arc::clone(&next));
        Some(next)
    }
}

fn request<'a>(
    url: &Url,
    template: &'static str,
    access: &'a Access,
    headers: &'a [(&'static str, &'a str)],
) -> ProviderRequest<'a> {
    ProviderRequest {
        url: url.clone(),
        template,
        token: &access.token,
        headers,
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}
