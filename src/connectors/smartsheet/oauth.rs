//! Smartsheet's OAuth 2.0: the authorization page and the token endpoint.
//!
//! * A client authenticates with its secret, or with the lowercase hex SHA-256 of the secret, `|`
//!   and the code or refresh token.
//! * A refresh issues a new pair and ends both tokens of the old pair at once.
//!
//! [`super::token_reply`] reads the replies.

use std::fmt::Write;

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use url::{Url, form_urlencoded};
use zeroize::Zeroizing;

use super::{api, token_reply};
use crate::{
    connectors::oauth::{
        AuthorizeRequest, IssuedTokens, TokenError, TokenErrorKind, TokenGrant, TokenRequest,
    },
    model::{
        accounts::{Endpoint, Region},
        connector_profiles::ClientProof,
    },
    outbound::{NonIdempotent, OnceError, Outbound},
};

/// The scopes that are needed to read users and groups.
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

/// The authorization page, which has another host than the API. For a base URL that the operator
/// allows, it is at the same origin.
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
    // Smartsheet's documentation separates scopes by %20.
    url.set_query(Some(&query.replace('+', "%20")));
    Some(url)
}

pub(super) async fn issue_tokens(
    outbound: &Outbound,
    request: TokenRequest<'_>,
) -> Result<IssuedTokens, TokenError> {
    let url = api::url(request.endpoint, &["token"], &[]).ok_or_else(|| {
        let detail = "the account's base URL cannot be called";
        TokenError::new(TokenErrorKind::Unsent, detail)
    })?;
    let once = NonIdempotent {
        provider: "smartsheet",
        url,
        template: "/token",
        form: &form(&request),
    };
    match outbound.post_once(once).await {
        Ok(answer) => token_reply::read(answer.status(), answer.body()),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::connector_profiles::OAuthApp;

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
}
