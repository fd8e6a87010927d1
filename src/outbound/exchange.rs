//! One HTTP exchange: sends a request once and reads the whole response, within the timeouts and
//! size limits.

use std::error::Error as _;

use bytes::Bytes;
use reqwest::{
    Client, Method,
    header::{
        ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, DATE, HeaderMap, HeaderName,
        HeaderValue, RETRY_AFTER,
    },
};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::timeout;
use url::Url;

use super::{
    CallErrorKind, Caps, ProviderRequest, ProviderResponse, Timeouts, address::ForbiddenAddress,
    body, unicode,
};

/// A request that can be sent repeatedly.
pub(super) struct Outgoing {
    method: Method,
    url: Url,
    headers: HeaderMap,
    body: Option<Bytes>,
}

/// Why an exchange has no usable response.
pub(super) struct TransportError {
    pub(super) kind: CallErrorKind,
    pub(super) detail: String,
    /// The response's status, if it arrived.
    pub(super) status: Option<u16>,
    /// Whether a retry may succeed.
    pub(super) is_passing: bool,
    /// Whether it is certain that no part of the request was sent.
    pub(super) is_unsent: bool,
}

impl TransportError {
    pub(super) fn passing(kind: CallErrorKind, detail: String) -> Self {
        Self {
            kind,
            detail,
            status: None,
            is_passing: true,
            is_unsent: false,
        }
    }

    pub(super) fn lasting(kind: CallErrorKind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
            status: None,
            is_passing: false,
            is_unsent: false,
        }
    }

    pub(super) fn timeout(detail: &str) -> Self {
        Self::passing(CallErrorKind::Unavailable, detail.to_owned())
    }

    /// The body ended early: the connection broke, or fewer bytes arrived than declared.
    pub(super) fn cut_short(error: &reqwest::Error) -> Self {
        Self::passing(
            CallErrorKind::InvalidReply,
            format!("the reply was cut short: {}", causes(error)),
        )
    }

    fn unanswered(error: &reqwest::Error) -> Self {
        if chain(error).any(|cause| cause.is::<ForbiddenAddress>()) {
            let detail = ForbiddenAddress::NotPublic.to_string();
            return Self {
                is_unsent: true,
                ..Self::lasting(CallErrorKind::Refused, detail)
            };
        }
        let detail = format!("no answer: {}", causes(error));
        Self {
            // The connection was never established.
            is_unsent: error.is_connect(),
            ..Self::passing(CallErrorKind::Unavailable, detail)
        }
    }
}

impl Outgoing {
    /// None if the token or a header value is not a valid HTTP header value.
    pub(super) fn new(method: Method, request: &ProviderRequest<'_>) -> Option<Self> {
        let mut headers = headers();
        headers.insert(AUTHORIZATION, bearer(request.token)?);
        for (name, value) in request.headers {
            let mut sent = HeaderValue::from_str(value).ok()?;
            // The value may be an e-mail address.
            sent.set_sensitive(true);
            headers.insert(HeaderName::from_static(name), sent);
        }
        Some(Self {
            method,
            url: request.url.clone(),
            headers,
            body: None,
        })
    }

    /// A POST with a form body.
    pub(super) fn form(url: Url, form: &str) -> Self {
        let mut headers = headers();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/x-www-form-urlencoded"),
        );
        Self {
            method: Method::POST,
            url,
            headers,
            body: Some(Bytes::copy_from_slice(form.as_bytes())),
        }
    }

    pub(super) async fn send(
        &self,
        client: &Client,
        caps: &Caps,
        timeouts: &Timeouts,
    ) -> Result<ProviderResponse, TransportError> {
        timeout(timeouts.whole, self.exchange(client, caps, timeouts))
            .await
            .unwrap_or_else(|_| Err(TransportError::timeout("the whole exchange took too long")))
    }

    async fn exchange(
        &self,
        client: &Client,
        caps: &Caps,
        timeouts: &Timeouts,
    ) -> Result<ProviderResponse, TransportError> {
        let mut sending = client
            .request(self.method.clone(), self.url.clone())
            .headers(self.headers.clone());
        if let Some(body) = &self.body {
            sending = sending.body(body.clone());
        }
        let response = match timeout(timeouts.first_byte, sending.send()).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(TransportError::unanswered(&error.without_url())),
            Err(_) => return Err(TransportError::timeout("no answer in time")),
        };
        let status = response.status();
        let header = |name| {
            let value: Option<&HeaderValue> = response.headers().get(name);
            value.map(|value| value.as_bytes().to_vec())
        };
        let (retry_after, date) = (header(RETRY_AFTER), header(DATE));
        let body = match body::read(response, caps, timeouts).await {
            Ok(body) if status.is_success() && body::is_deeper_than(&body, caps.depth) => {
                Err(TransportError::lasting(
                    CallErrorKind::InvalidReply,
                    "the reply nests deeper than the cap",
                ))
            }
            // The status alone makes it a refusal, even if its body cannot be read.
            Err(_) if !status.is_success() => Ok(Bytes::new()),
            body => body,
        };
        let body = body.map_err(|transport_error| TransportError {
            status: Some(status.as_u16()),
            ..transport_error
        })?;
        Ok(ProviderResponse {
            status: status.as_u16(),
            body: unicode::repaired(body),
            retry_after,
            date,
        })
    }
}

fn headers() -> HeaderMap {
    HeaderMap::from_iter([
        (ACCEPT, HeaderValue::from_static("application/json")),
        (ACCEPT_ENCODING, HeaderValue::from_static("gzip")),
    ])
}

/// The `Authorization` value of a token, marked sensitive so that `Debug` output of headers omits
/// it.
fn bearer(token: &SecretString) -> Option<HeaderValue> {
    let text = zeroize::Zeroizing::new(format!("Bearer {}", token.expose_secret()));
    let mut value = HeaderValue::from_str(&text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn chain<'a>(
    error: &'a reqwest::Error,
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(error.source(), |&error| error.source())
}

/// The causes of a client error; the error's own message is always the same.
fn causes(error: &reqwest::Error) -> String {
    let causes: Vec<_> = chain(error).map(ToString::to_string).collect();
    if causes.is_empty() {
        error.to_string()
    } else {
        causes.join(": ")
    }
}
