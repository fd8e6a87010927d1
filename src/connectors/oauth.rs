//! OAuth 2.0 in its standard words (RFC 6749, and RFC 7636 for PKCE), as connectors speak it to
//! their providers. What is asked, what is answered, and what an error means; who may ask, and
//! when, is the gateway's.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use crate::model::{accounts::Endpoint, connector_profiles::OAuthApp};

/// What the customer is sent to the provider with (RFC 6749, 4.1.1).
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
    /// The challenge of its verifier, by S256 (RFC 7636, 4.2).
    pub fn challenge(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(self.verifier.expose_secret()))
    }
}

/// What the token endpoint is asked for.
#[derive(Debug, Clone, Copy)]
pub struct TokenRequest<'a> {
    pub endpoint: &'a Endpoint,
    pub app: &'a OAuthApp,
    pub grant: TokenGrant<'a>,
}

/// What is redeemed: good once, whatever becomes of the reply.
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

/// What a token reply brought (RFC 6749, 5.1): an access token, a refresh token, or both. A field
/// that is absent or cannot be read is None, and costs the others nothing.
#[derive(Debug, Clone)]
pub struct IssuedTokens {
    pub access_token: Option<SecretString>,
    /// None: a refresh token that was redeemed for this stays good (RFC 6749, 6).
    pub refresh_token: Option<SecretString>,
    /// How long the access token lives; None if that is not said.
    pub expires_in: Option<Duration>,
}

/// Why there are no new tokens.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{kind:?}: {detail}")]
pub struct TokenError {
    pub kind: TokenErrorKind,
    /// For the log: never a body or a token.
    pub detail: String,
    pub status: Option<u16>,
    /// The provider's own code.
    pub code: Option<i64>,
    /// An access token that was issued all the same, and cannot be used: to be revoked.
    pub unusable: Option<SecretString>,
}

/// What an error means for what was to be redeemed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TokenErrorKind {
    /// Nothing was sent: it is good still.
    Unsent,
    /// Whether it was spent nobody knows: a lost reply, one that says nothing, a 5xx.
    Doubtful,
    /// It is no good: spent, revoked, or never issued to this app.
    InvalidGrant,
    /// It was good once, and too old now.
    GrantExpired,
    /// The provider knows no such app.
    UnknownApp,
    /// The app is known, and its proof of itself is wrong.
    AppRefused,
    /// The redirect URL is not the registered one.
    RedirectMismatch,
    /// The provider's limit is spent.
    Throttled,
    /// Another refusal: it is good still.
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
