//! OAuth 2.0 (RFC 6749) with PKCE (RFC 7636), as connectors speak it to their providers: requests,
//! responses, and the meaning of errors. The gateway decides which caller may start a flow, and
//! when.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use crate::model::{accounts::Endpoint, connector_profiles::OAuthApp};

/// The authorization request (RFC 6749, 4.1.1).
#[derive(Debug, Clone, Copy)]
pub struct AuthorizeRequest<'a> {
    pub endpoint: &'a Endpoint,
    pub client_id: &'a str,
    pub redirect_url: &'a str,
    pub scopes: &'a [String],
    pub state: &'a str,
    pub verifier: &'a SecretString,
}

impl AuthorizeRequest<'_> {
    /// The S256 code challenge of the verifier (RFC 7636, 4.2).
    pub fn challenge(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(self.verifier.expose_secret()))
    }
}

/// A request to the token endpoint.
#[derive(Debug, Clone, Copy)]
pub struct TokenRequest<'a> {
    pub endpoint: &'a Endpoint,
    pub app: &'a OAuthApp,
    pub grant: TokenGrant<'a>,
}

/// The grant to redeem. It may be spent even if no reply arrives.
#[derive(Debug, Clone, Copy)]
pub enum TokenGrant<'a> {
    /// RFC 6749, 4.1.3.
    Code {
        code: &'a SecretString,
        verifier: &'a SecretString,
    },
    /// RFC 6749, 6.
    RefreshToken(&'a SecretString),
}

/// A token response (RFC 6749, 5.1): an access token, a refresh token, or both. A field that is
/// absent or unreadable is None and does not affect the others.
#[derive(Debug, Clone)]
pub struct IssuedTokens {
    pub access_token: Option<SecretString>,
    /// None: the redeemed refresh token stays valid (RFC 6749, 6).
    pub refresh_token: Option<SecretString>,
    /// The lifetime of the access token; None if the response does not state it.
    pub expires_in: Option<Duration>,
}

/// A token request that gave no usable tokens.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{kind:?}: {detail}")]
pub struct TokenError {
    pub kind: TokenErrorKind,
    /// For the log. Never contains a body or a token.
    pub detail: String,
    pub status: Option<u16>,
    /// The provider's own code.
    pub code: Option<i64>,
    /// An access token that was issued but cannot be used. The caller must revoke it.
    pub unusable: Option<SecretString>,
}

/// The meaning of an error for the grant that was to be redeemed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TokenErrorKind {
    /// Nothing was sent: the grant is still valid.
    Unsent,
    /// The grant may have been spent: a lost reply, a reply without tokens or error, or a 5xx.
    Doubtful,
    /// The grant is invalid: spent, revoked, or never issued to this client.
    InvalidGrant,
    /// The grant has expired.
    GrantExpired,
    /// The client id is unknown to the provider.
    UnknownApp,
    /// The client is known, but its secret or hash is wrong.
    AppRefused,
    /// The redirect URL differs from the registered one.
    RedirectMismatch,
    /// The provider's rate limit is exceeded.
    Throttled,
    /// Another refusal: the grant is still valid.
    Refused,
}

impl TokenError {
    pub fn new(kind: TokenErrorKind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
            status: None,
            code: None,
            unusable: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::accounts::Region;

    #[test]
    fn the_challenge_is_the_one_of_the_standard() {
        // RFC 7636, appendix B.
        let request = AuthorizeRequest {
            endpoint: &Endpoint::Region(Region::Us),
            client_id: "",
            redirect_url: "",
            scopes: &[],
            state: "",
            verifier: &"dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk".into(),
        };
        assert_eq!(
            request.challenge(),
            "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
        );
    }
}
