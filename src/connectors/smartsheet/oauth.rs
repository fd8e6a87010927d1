//! Smartsheet's OAuth 2.0: where people consent, and the token endpoint with its own error codes.
//!
//! * An app proves itself by its secret, or by the lowercase hex SHA-256 of secret, `|` and what
//!   is redeemed.
//! * A refresh gives a new pair and ends the old one at once, both tokens of it.
//! * The error body has the words of RFC 6749 (`error`) beside Smartsheet's `errorCode`; either
//!   may be missing. Where both are there the code decides: of a wrong hash Smartsheet says
//!   `invalid_grant`, which the grant is not.

use std::{fmt::Write, time::Duration};

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use url::{Url, form_urlencoded};
use zeroize::Zeroizing;

use super::api;
use crate::{
    connectors::oauth::{
        AuthorizeRequest, IssuedPair, TokenError, TokenErrorKind, TokenGrant, TokenRequest,
    },
    model::{
        account::{Endpoint, Region},
        profile::ClientProof,
    },
    outbound::{Answer, Once, OnceError, Outbound},
};

/// What reading users and groups needs, and no more.
pub(super) const READ_SCOPES: &[&str] = &["READ_USERS"];

const SCOPES: [&str; 17] = [
    "ADMIN_SHEETS",
    "ADMIN_SIGHTS",
    "ADMIN_USERS",
    "ADMIN_WEBHOOKS",
    "ADMIN_WORKSPACES",
    "CREATE_SHEETS",
    "CREATE_SIGHTS",
    "DELETE_SHEETS",
    "DELETE_SIGHTS",
    "READ_CONTACTS",
    "READ_EVENTS",
    "READ_SHEETS",
    "READ_SIGHTS",
    "READ_USERS",
    "SHARE_SHEETS",
    "SHARE_SIGHTS",
    "WRITE_SHEETS",
];

pub(super) fn knows_scope(scope: &str) -> bool {
    SCOPES.contains(&scope)
}

/// The page of consent, which is not where the API is. Beside a base URL that the operator allows
/// it is at the same origin.
fn authorize_page(endpoint: &Endpoint) -> Option<Url> {
    let page = match endpoint {
        Endpoint::Region(Region::Us) => "https://app.smartsheet.com/b/authorize",
        Endpoint::Region(Region::Eu) => "https://app.smartsheet.eu/b/authorize",
        Endpoint::Region(Region::Au) => "https://app.smartsheet.au/b/authorize",
        Endpoint::Region(Region::Gov) => "https://app.smartsheetgov.com/b/authorize",
        Endpoint::BaseUrl(base) => return Url::parse(base).ok()?.join("/b/authorize").ok(),
    };
    Url::parse(page).ok()
}

pub(super) fn authorize_url(request: &AuthorizeRequest<'_>) -> Option<Url> {
    let mut url = authorize_page(request.endpoint)?;
    let query = form_urlencoded::Serializer::new(String::new())
        .append_pair("response_type", "code")
        .append_pair("client_id", request.client_id)
        .append_pair("scope", &request.scopes.join(" "))
        .append_pair("redirect_uri", request.redirect_url)
        .append_pair("state", request.state)
        .append_pair("code_challenge", &request.challenge())
        .append_pair("code_challenge_method", "S256")
        .finish();
    // Smartsheet's documents have %20 between scopes.
    url.set_query(Some(&query.replace('+', "%20")));
    Some(url)
}

pub(super) async fn issue_tokens(
    outbound: &Outbound,
    request: TokenRequest<'_>,
) -> Result<IssuedPair, TokenError> {
    let url = api::url(request.endpoint, &["token"], &[]).ok_or_else(|| {
        let detail = "the account's base URL cannot be called";
        TokenError::new(TokenErrorKind::Unsent, detail)
    })?;
    let once = Once {
        provider: "smartsheet",
        url,
        template: "/token",
        form: &form(&request),
    };
    match outbound.post_once(once).await {
        Ok(answer) => read(&answer),
        Err(OnceError::Unsent(error)) => Err(TokenError {
            status: error.status,
            ..TokenError::new(TokenErrorKind::Unsent, error.detail)
        }),
        Err(OnceError::Doubtful(error)) => Err(TokenError {
            status: error.status,
            ..TokenError::new(TokenErrorKind::Doubtful, error.detail)
        }),
    }
}

fn form(request: &TokenRequest<'_>) -> Zeroizing<String> {
    let app = request.app;
    let mut form = form_urlencoded::Serializer::new(String::with_capacity(1024));
    let redeemed = match &request.grant {
        TokenGrant::Code { code, verifier } => {
            form.append_pair("grant_type", "authorization_code")
                .append_pair("code", code.expose_secret())
                .append_pair("code_verifier", verifier.expose_secret())
                .append_pair("redirect_uri", &app.redirect_url);
            code
        }
        TokenGrant::RefreshToken(token) => {
            form.append_pair("grant_type", "refresh_token")
                .append_pair("refresh_token", token.expose_secret());
            token
        }
    };
    form.append_pair("client_id", &app.client_id);
    match app.proof {
        ClientProof::ClientSecret => {
            form.append_pair("client_secret", app.client_secret.expose_secret())
        }
        ClientProof::Hash => form.append_pair("hash", &hash(&app.client_secret, redeemed)),
    };
    Zeroizing::new(form.finish())
}

fn hash(secret: &SecretString, redeemed: &SecretString) -> String {
    let digest = Sha256::new()
        .chain_update(secret.expose_secret())
        .chain_update("|")
        .chain_update(redeemed.expose_secret())
        .finalize();
    digest
        .iter()
        .fold(String::with_capacity(64), |mut hex, byte| {
            write!(hex, "{byte:02x}").expect("a string takes all");
            hex
        })
}

#[derive(Deserialize)]
struct PairBody {
    access_token: SecretString,
    refresh_token: SecretString,
    expires_in: u64,
    token_type: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ErrorBody {
    #[serde(rename = "errorCode")]
    error_code: Option<i64>,
    error: Option<String>,
}

/// Longer than any access token lives: what says so is read wrong.
const LONGEST_LIFE: Duration = Duration::from_secs(10 * 365 * 86_400);

fn read(answer: &Answer) -> Result<IssuedPair, TokenError> {
    let status = answer.status();
    if (200..=299).contains(&status) {
        // Whatever this is, the grant is spent now.
        let unreadable = || TokenError {
            status: Some(status),
            ..TokenError::new(TokenErrorKind::Doubtful, "the reply is no pair of tokens")
        };
        let pair: PairBody = answer.json().map_err(|_| unreadable())?;
        let is_sendable = |token: &SecretString| {
            let text = token.expose_secret();
            !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
        };
        let expires_in = Duration::from_secs(pair.expires_in).min(LONGEST_LIFE);
        // One of another type is not to be used by who does not know it (RFC 6749, 7.1).
        let token_type = pair.token_type.as_deref().unwrap_or("bearer");
        if !token_type.eq_ignore_ascii_case("bearer") {
            return Err(unreadable());
        }
        if !is_sendable(&pair.access_token) || !is_sendable(&pair.refresh_token) {
            return Err(unreadable());
        }
        return Ok(IssuedPair {
            access_token: pair.access_token,
            refresh_token: pair.refresh_token,
            expires_in,
        });
    }
    let body: ErrorBody = serde_json::from_slice(answer.body()).unwrap_or_default();
    let kind = kind(status, body.error_code, body.error.as_deref());
    let detail = match body.error_code {
        Some(code) => format!("the provider answered {status} with code {code}"),
        None => format!("the provider answered {status}"),
    };
    Err(TokenError {
        status: Some(status),
        code: body.error_code,
        ..TokenError::new(kind, detail)
    })
}

fn kind(status: u16, code: Option<i64>, error: Option<&str>) -> TokenErrorKind {
    match (status, code, error) {
        (429, _, _) | (_, Some(4003), _) => TokenErrorKind::Throttled,
        (400..=499, Some(1067), _) => TokenErrorKind::UnknownApp,
        (400..=499, Some(1072 | 1238), _) => TokenErrorKind::AppRefused,
        (400..=499, Some(1069), _) => TokenErrorKind::GrantExpired,
        (400..=499, Some(1073), _) => TokenErrorKind::RedirectMismatch,
        (400..=499, Some(1071 | 1132), _) => TokenErrorKind::InvalidGrant,
        (400..=499, None, Some("invalid_grant")) => TokenErrorKind::InvalidGrant,
        (400..=499, None, Some("invalid_client")) => TokenErrorKind::AppRefused,
        (400..=499, _, _) => TokenErrorKind::Refused,
        // A 5xx, or a redirect: who knows how far it came.
        _ => TokenErrorKind::Doubtful,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::profile::OAuthApp;

    fn app(proof: ClientProof) -> OAuthApp {
        OAuthApp {
            client_id: "the id".to_owned(),
            client_secret: "secret".into(),
            proof,
            redirect_url: "http://localhost:3000/callback".to_owned(),
        }
    }

    #[test]
    fn people_consent_where_their_region_is() {
        let scopes = ["READ_USERS".to_owned(), "READ_EVENTS".to_owned()];
        let url = |endpoint: Endpoint| {
            let request = AuthorizeRequest {
                endpoint: &endpoint,
                client_id: "the id",
                redirect_url: "https://gateway.example.org/cb?x=1",
                scopes: &scopes,
                state: "a&b",
                verifier: &"dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk".into(),
            };
            authorize_url(&request).unwrap()
        };
        assert_eq!(
            url(Endpoint::Region(Region::Eu)).as_str(),
            "https://app.smartsheet.eu/b/authorize?response_type=code&client_id=the%20id\
             &scope=READ_USERS%20READ_EVENTS\
             &redirect_uri=https%3A%2F%2Fgateway.example.org%2Fcb%3Fx%3D1&state=a%26b\
             &code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM\
             &code_challenge_method=S256"
        );
        let base = Endpoint::BaseUrl("http://127.0.0.1:7070/2.0".to_owned());
        assert!(
            url(base)
                .as_str()
                .starts_with("http://127.0.0.1:7070/b/authorize?")
        );
    }

    #[test]
    fn an_app_proves_itself_in_exactly_one_way() {
        let endpoint = Endpoint::Region(Region::Us);
        let code = "the code".into();
        let verifier = "the verifier".into();
        let refresh = "the refresh token".into();
        let form_of = |proof, grant| {
            form(&TokenRequest {
                endpoint: &endpoint,
                app: &app(proof),
                grant,
            })
        };
        assert_eq!(
            *form_of(
                ClientProof::ClientSecret,
                TokenGrant::Code {
                    code: &code,
                    verifier: &verifier
                }
            ),
            "grant_type=authorization_code&code=the+code&code_verifier=the+verifier\
             &redirect_uri=http%3A%2F%2Flocalhost%3A3000%2Fcallback&client_id=the+id\
             &client_secret=secret"
        );
        // printf 'secret|the refresh token' | sha256sum
        assert_eq!(
            *form_of(ClientProof::Hash, TokenGrant::RefreshToken(&refresh)),
            "grant_type=refresh_token&refresh_token=the+refresh+token&client_id=the+id\
             &hash=e5e0022577d7b5c18ab9e949bc72089157096138138f3c0b321f3e03f79db615"
        );
    }

    #[test]
    fn only_what_says_so_means_that_a_grant_is_dead() {
        use TokenErrorKind::*;
        for (status, code, error, means) in [
            (400, Some(1071), Some("invalid_grant"), InvalidGrant),
            (400, Some(1132), Some("invalid_grant"), InvalidGrant),
            (400, None, Some("invalid_grant"), InvalidGrant),
            (400, Some(1069), Some("invalid_grant"), GrantExpired),
            // Of a wrong hash too: the secret is wrong, and not the grant.
            (400, Some(1072), Some("invalid_grant"), AppRefused),
            (400, Some(1238), Some("invalid_client"), AppRefused),
            (401, None, Some("invalid_client"), AppRefused),
            (401, Some(1067), Some("invalid_client"), UnknownApp),
            (400, Some(1073), Some("invalid_request"), RedirectMismatch),
            (400, Some(1068), Some("unsupported_grant_type"), Refused),
            (400, Some(9999), Some("invalid_grant"), Refused),
            (404, None, None, Refused),
            (429, None, None, Throttled),
            (429, Some(4003), None, Throttled),
            (500, Some(4000), None, Doubtful),
            (503, None, Some("invalid_grant"), Doubtful),
            (302, None, None, Doubtful),
        ] {
            assert_eq!(
                kind(status, code, error),
                means,
                "{status} {code:?} {error:?}"
            );
        }
    }
}
