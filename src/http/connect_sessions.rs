//! `/connect_sessions`: creates and authenticates connect sessions, in the shape of StackOne's API.
//!
//! StackOne's SDK expects `organization_id` as a number up to 4.33.x and as a string from 4.34.0
//! on, and fails to parse the other kind. Only its user agent tells the versions apart.

use std::time::Duration;

use actix_web::{
    HttpRequest, HttpResponse,
    http::header,
    post,
    web::{Data, Payload},
};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, de::IgnoredAny};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa_actix_web::service_config::ServiceConfig;

use super::{
    accounts::text,
    body::{self, Text},
    caller::{AccountsWrite, Allowed},
    error::ApiError,
    errors::{AuthenticateSessionErrors, NewSessionErrors},
    query::Query,
};
use crate::{
    error::{Error, Kind, Result},
    gateway::{
        Gateway,
        linking::connect_sessions::{DEFAULT_LIFE, LONGEST_LIFE, NewConnectSession},
    },
    model::{
        accounts::AccountKind,
        connect_sessions::{ConnectDetails, ConnectSession},
        timestamp,
    },
};

pub fn routes(config: &mut ServiceConfig<'_>) {
    config
        .service(create_connect_session)
        .service(authenticate_connect_session);
}

/// The organization id in answers. To StackOne's clients, an installation is one organization.
const ORGANIZATION: u64 = 1;

/// The largest `metadata`, in bytes of JSON.
const LARGEST_METADATA: usize = 16 * 1024;

/// A connect session to create.
#[derive(Deserialize, ToSchema)]
#[schema(as = NewConnectSession)]
#[serde(deny_unknown_fields)]
pub struct ConnectSessionIn {
    /// Your own id for the customer.
    #[schema(value_type = Text)]
    origin_owner_id: String,
    /// Your own name for the customer. The hub shows it to them.
    #[schema(value_type = Text)]
    origin_owner_name: String,
    /// Your own name for the person that links the account.
    #[schema(value_type = Option<Text>)]
    origin_username: Option<String>,
    /// The connector. Without it the customer chooses.
    provider: Option<String>,
    /// Ignored: a connector has one version.
    #[serde(default, rename = "provider_version")]
    #[schema(value_type = Value, required = false)]
    _provider_version: IgnoredAny,
    /// The connector profile to sign in under. The customer is then offered no other way to link.
    #[schema(value_type = Option<Uuid>)]
    connector_profile_id: Option<String>,
    /// The account to link again. Without it a new account is linked.
    #[schema(value_type = Option<Uuid>)]
    account_id: Option<String>,
    /// Stored and returned unchanged.
    categories: Option<Vec<String>>,
    /// How long the session is valid, in seconds.
    #[schema(minimum = 60, maximum = 2_592_000, default = 1800)]
    expires_in: Option<f64>,
    /// Whether the session may link more than one account.
    multiple: Option<bool>,
    /// A label for the account, for your own use.
    #[schema(value_type = Option<Text>)]
    label: Option<String>,
    /// `production` by default.
    #[serde(rename = "type")]
    kind: Option<AccountKind>,
    /// Stored and returned unchanged.
    #[schema(value_type = Option<Object>)]
    metadata: Option<Map<String, Value>>,
    /// Where the hub sends the customer after linking: one of the URLs that the operator registered
    /// for this project. If only one is registered, it is the default.
    return_url: Option<String>,
    /// The origin of the page that opens the hub. The hub notifies that page of the link by
    /// `postMessage`. It must be one of the origins that the operator registered for this project.
    opener_origin: Option<String>,
    /// Ignored: StackOne's name for a connector profile.
    #[serde(default, rename = "integration_id")]
    #[schema(value_type = Value, required = false)]
    _integration_id: IgnoredAny,
}

/// The token of a connect session.
#[derive(Deserialize, ToSchema)]
#[schema(as = ConnectSessionToken)]
#[serde(deny_unknown_fields)]
pub struct AuthenticateIn {
    #[schema(value_type = String, format = Password, write_only, min_length = 1, max_length = 256)]
    token: SecretString,
}

/// A number, or the same number as a string for clients that expect one.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub enum OrganizationId {
    Number(u64),
    Text(String),
}

/// A connect session.
#[derive(Serialize, ToSchema)]
#[schema(as = ConnectSession)]
pub struct ConnectSessionOut {
    pub id: u64,
    /// A string; a number for StackOne's SDK up to 4.33.
    pub organization_id: OrganizationId,
    pub project_id: String,
    pub origin_owner_id: String,
    pub origin_owner_name: String,
    pub origin_username: Option<String>,
    pub provider: Option<String>,
    #[schema(format = Uuid)]
    pub connector_profile_id: Option<String>,
    #[schema(format = Uuid)]
    pub account_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub categories: Option<Vec<String>>,
    pub label: Option<String>,
    #[serde(rename = "type")]
    pub kind: AccountKind,
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<Map<String, Value>>,
    pub multiple: bool,
    pub return_url: Option<String>,
    pub opener_origin: Option<String>,
    #[serde(serialize_with = "timestamp::serialize")]
    pub created_at: Timestamp,
    #[serde(serialize_with = "timestamp::serialize")]
    pub expires_at: Timestamp,
}

/// A new connect session, with its token.
#[derive(Serialize, ToSchema)]
#[schema(as = NewConnectSessionOut)]
pub struct InvitedOut {
    #[serde(flatten)]
    pub session: ConnectSessionOut,
    /// The link token. It authorizes its bearer to link an account, and is shown only in this
    /// answer.
    pub token: String,
    /// The URL to send the customer to. It contains the token.
    pub auth_link_url: String,
}

impl ConnectSessionOut {
    fn of(session: ConnectSession, request: &HttpRequest) -> Self {
        let ConnectDetails {
            origin_owner_name,
            origin_username,
            label,
            categories,
            metadata,
            return_url,
            opener_origin,
        } = session.details;
        Self {
            id: session.number,
            organization_id: organization(request),
            project_id: session.project.to_string(),
            origin_owner_id: session.origin_owner_id,
            origin_owner_name,
            origin_username,
            provider: session.provider,
            connector_profile_id: session.profile.map(|id| id.to_string()),
            account_id: session.account.map(|id| id.to_string()),
            categories,
            label,
            kind: session.kind,
            metadata,
            multiple: session.is_multiple,
            return_url,
            opener_origin,
            created_at: session.created_at,
            expires_at: session.expires_at,
        }
    }
}

fn organization(request: &HttpRequest) -> OrganizationId {
    let agent = request.headers().get(header::USER_AGENT);
    let agent = agent
        .and_then(|agent| agent.to_str().ok())
        .unwrap_or_default();
    if wants_number(agent) {
        OrganizationId::Number(ORGANIZATION)
    } else {
        OrganizationId::Text(ORGANIZATION.to_string())
    }
}

/// Whether the user agent is a version of StackOne's SDK that expects a number.
fn wants_number(agent: &str) -> bool {
    let version = || {
        let version = agent.strip_prefix("speakeasy-sdk/typescript ")?;
        let version = version.split(' ').next()?;
        let mut parts = version.split('.').map(|part| part.parse::<u32>().ok());
        Some((parts.next()??, parts.next()??))
    };
    agent.contains("@stackone/") && version().is_some_and(|version| version < (4, 34))
}

fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(Kind::InvalidBody, message)
}

impl ConnectSessionIn {
    fn into_new(self) -> Result<NewConnectSession> {
        let life = self.expires_in.unwrap_or(DEFAULT_LIFE.as_secs_f64());
        if !(60.0..=LONGEST_LIFE.as_secs_f64()).contains(&life) {
            return Err(invalid(format!(
                "`expires_in` must be 60 to {} seconds",
                LONGEST_LIFE.as_secs()
            )));
        }
        if let Some(categories) = &self.categories
            && (categories.len() > 50 || categories.iter().any(|it| it.len() > 64))
        {
            return Err(invalid(
                "`categories` may be at most 50 words of at most 64 bytes",
            ));
        }
        if let Some(metadata) = &self.metadata {
            let size = serde_json::to_vec(metadata).map_err(Error::internal)?.len();
            if size > LARGEST_METADATA {
                return Err(invalid("`metadata` is larger than 16 KiB"));
            }
        }
        Ok(NewConnectSession {
            provider: self.provider,
            profile: self.connector_profile_id,
            account: self.account_id,
            kind: self.kind.unwrap_or(AccountKind::Production),
            is_multiple: self.multiple.unwrap_or(false),
            origin_owner_id: text("origin_owner_id", self.origin_owner_id)?,
            details: ConnectDetails {
                origin_owner_name: text("origin_owner_name", self.origin_owner_name)?,
                origin_username: self
                    .origin_username
                    .map(|it| text("origin_username", it))
                    .transpose()?,
                label: self.label.map(|it| text("label", it)).transpose()?,
                categories: self.categories,
                metadata: self.metadata,
                return_url: self.return_url,
                opener_origin: self.opener_origin,
            },
            expires_in: Duration::from_secs_f64(life),
        })
    }
}

/// Create a connect session
///
/// A connect session lets a customer link an account by themselves, in the hub. Send the customer
/// to `auth_link_url`, for example by mail. Linking uses the session up; opening the link does not.
#[utoipa::path(
    tag = "connect_sessions",
    operation_id = "create_connect_session",
    request_body = ConnectSessionIn,
    responses((status = 201, description = "The session is made", body = InvitedOut), NewSessionErrors),
)]
#[post("/connect_sessions")]
pub async fn create_connect_session(
    caller: Allowed<AccountsWrite>,
    request: HttpRequest,
    payload: Payload,
    gateway: Data<Gateway>,
) -> Result<HttpResponse, ApiError> {
    Query::parse(request.query_string())?.finish()?;
    let new = body::read::<ConnectSessionIn>(&request, payload)
        .await?
        .into_new()?;
    let invited = gateway
        .connect_sessions()
        .create_connect_session(&caller.0, new)
        .await?;
    Ok(HttpResponse::Created()
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .json(InvitedOut {
            auth_link_url: gateway.connect_sessions().auth_link_url(&invited.token),
            token: invited.token.expose_secret().to_owned(),
            session: ConnectSessionOut::of(invited.session, &request),
        }))
}

/// Authenticate a connect session
///
/// Checks that a token belongs to this project and is still valid, and returns its session. This
/// does not use the session up.
#[utoipa::path(
    tag = "connect_sessions",
    operation_id = "authenticate_connect_session",
    request_body = AuthenticateIn,
    responses((status = 201, description = "The session", body = ConnectSessionOut), AuthenticateSessionErrors),
)]
#[post("/connect_sessions/authenticate")]
pub async fn authenticate_connect_session(
    caller: Allowed<AccountsWrite>,
    request: HttpRequest,
    payload: Payload,
    gateway: Data<Gateway>,
) -> Result<HttpResponse, ApiError> {
    Query::parse(request.query_string())?.finish()?;
    let AuthenticateIn { token } = body::read(&request, payload).await?;
    let session = gateway
        .connect_sessions()
        .authenticate_connect_session(&caller.0, &token)
        .await?;
    Ok(HttpResponse::Created().json(ConnectSessionOut::of(session, &request)))
}

#[cfg(test)]
mod tests {
    use super::wants_number;

    #[test]
    fn stackones_sdk_is_given_a_number_up_to_4_33() {
        let agent = |version| {
            format!("speakeasy-sdk/typescript {version} 2.727.9 1.0.0 @stackone/stackone-client-ts")
        };
        assert!(wants_number(&agent("4.28.0")));
        assert!(wants_number(&agent("4.33.9")));
        assert!(!wants_number(&agent("4.34.0")));
        assert!(!wants_number(&agent("5.0.0")));
        for other in [
            "",
            "curl/8.0",
            "speakeasy-sdk/typescript 4.28.0 1 1 @other/client",
        ] {
            assert!(!wants_number(other), "{other}");
        }
    }
}
