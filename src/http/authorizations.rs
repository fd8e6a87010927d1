//! `/oauth`: OAuth sign-ins for integrators that have their own pages. The hub does the same steps
//! by itself.

use actix_web::{
    HttpRequest, HttpResponse,
    http::header,
    post,
    web::{Data, Payload},
};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_actix_web::service_config::ServiceConfig;

use super::{
    accounts::{AccountOut, text},
    body::{self, Text},
    caller::{AccountsWrite, Allowed},
    error::ApiError,
    errors::{AuthorizationUrlErrors, TokenExchangeErrors},
    query::Query,
};
use crate::{
    error::{Error, Kind, Result},
    gateway::{
        Gateway,
        connector_profiles::is_redirect_url,
        linking::{AccountDetails, authorizations::AuthorizationInput},
    },
    model::{accounts::AccountKind, timestamp},
};

pub fn routes(config: &mut ServiceConfig<'_>) {
    config.service(authorization_url).service(token_exchange);
}

/// A sign-in to start, and the details of the account that it will link.
#[derive(Deserialize, ToSchema)]
#[schema(as = NewAuthorization)]
#[serde(deny_unknown_fields)]
pub struct AuthorizationIn {
    /// The id of the connector profile.
    #[schema(value_type = Uuid)]
    profile: String,
    /// The profile's `redirect_url`, exactly as registered. The provider sends the browser there.
    callback_url: String,
    /// Your own id for the customer.
    #[schema(value_type = Text)]
    origin_owner_id: String,
    /// Your own name for the customer.
    #[schema(value_type = Text)]
    origin_owner_name: String,
    /// Your own name for the person that links the account.
    #[schema(value_type = Option<Text>)]
    origin_username: Option<String>,
    /// A label for the account, for your own use.
    #[schema(value_type = Option<Text>)]
    label: Option<String>,
    /// `production` by default.
    #[serde(rename = "type")]
    kind: Option<AccountKind>,
}

/// An authorization request for the customer's browser.
#[derive(Serialize, ToSchema)]
#[schema(as = Authorization)]
pub struct AuthorizationOut {
    /// The provider's authorization page, with all parameters. Send the browser there.
    pub url: String,
    /// The provider returns it with the code. Bind it to the browser that you send out, for example
    /// in a cookie, and compare the two.
    pub state: String,
    /// When the `state` expires. Exchange the code before then.
    #[serde(serialize_with = "timestamp::serialize")]
    pub expires_at: Timestamp,
}

/// The parameters of the provider's redirect.
#[derive(Deserialize, ToSchema)]
#[schema(as = TokenExchange)]
#[serde(deny_unknown_fields)]
pub struct ExchangeIn {
    /// The `state` from the redirect, unchanged.
    #[schema(min_length = 1, max_length = 256)]
    state: String,
    /// The `code` from the redirect, unchanged.
    #[schema(value_type = String, format = Password, write_only, min_length = 1, max_length = 4096)]
    code: SecretString,
}

impl AuthorizationIn {
    /// The sign-in and the details of the account. The provider is not in the body: the profile
    /// names it.
    fn into_description(self) -> Result<AuthorizationInput> {
        if !is_redirect_url(&self.callback_url) {
            return Err(Error::new(
                Kind::InvalidBody,
                "`callback_url` must be the redirect URL of the connector profile",
            ));
        }
        Ok(AuthorizationInput {
            profile: self.profile,
            callback_url: self.callback_url,
            description: AccountDetails {
                origin_owner_id: text("origin_owner_id", self.origin_owner_id)?,
                origin_owner_name: text("origin_owner_name", self.origin_owner_name)?,
                origin_username: self
                    .origin_username
                    .map(|it| text("origin_username", it))
                    .transpose()?,
                label: self.label.map(|it| text("label", it)).transpose()?,
                kind: self.kind.unwrap_or(AccountKind::Production),
            },
        })
    }
}

/// Start a sign-in
///
/// For your own pages; the hub does this by itself. Rolecall always sends a PKCE challenge (RFC
/// 7636, S256) and never reveals its verifier. The `state` is single-use and valid for ten minutes.
#[utoipa::path(
    tag = "oauth",
    operation_id = "authorization_url",
    request_body = AuthorizationIn,
    responses((status = 200, description = "Where to send the browser", body = AuthorizationOut), AuthorizationUrlErrors),
)]
#[post("/oauth/authorization_url")]
pub async fn authorization_url(
    caller: Allowed<AccountsWrite>,
    request: HttpRequest,
    payload: Payload,
    gateway: Data<Gateway>,
) -> Result<HttpResponse, ApiError> {
    Query::parse(request.query_string())?.finish()?;
    let new = body::read::<AuthorizationIn>(&request, payload)
        .await?
        .into_description()?;
    let sign_in = gateway
        .authorizations()
        .authorization_url(&caller.0, new)
        .await?;
    Ok(HttpResponse::Ok()
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .json(AuthorizationOut {
            url: sign_in.url.into(),
            state: sign_in.state.expose_secret().to_owned(),
            expires_at: sign_in.expires_at,
        }))
}

/// Finish a sign-in
///
/// Exchanges the code for tokens, checks with the provider which user they belong to and that they
/// may read users, and links the account. The first walk starts at once, and the answer does not
/// wait for it. The state and the code are used up in any case. If no account is linked, Rolecall
/// revokes the tokens.
#[utoipa::path(
    tag = "oauth",
    operation_id = "token_exchange",
    request_body = ExchangeIn,
    responses((status = 201, description = "The account is linked", body = AccountOut), TokenExchangeErrors),
)]
#[post("/oauth/token_exchange")]
pub async fn token_exchange(
    caller: Allowed<AccountsWrite>,
    request: HttpRequest,
    payload: Payload,
    gateway: Data<Gateway>,
) -> Result<HttpResponse, ApiError> {
    Query::parse(request.query_string())?.finish()?;
    let ExchangeIn { state, code } = body::read(&request, payload).await?;
    if state.is_empty() || state.len() > 256 {
        return Err(Error::new(Kind::InvalidBody, "`state` must be 1 to 256 bytes").into());
    }
    if !(1..=4096).contains(&code.expose_secret().len()) {
        return Err(Error::new(Kind::InvalidBody, "`code` must be 1 to 4096 bytes").into());
    }
    let account = gateway
        .authorizations()
        .exchange(&caller.0, &state, code)
        .await?;
    Ok(HttpResponse::Created().json(AccountOut::of(&account, &gateway)))
}
