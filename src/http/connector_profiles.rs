//! `/connector_profiles`: creates, lists, reads and changes connector profiles, the OAuth apps that
//! a project's customers sign in under.

use std::borrow::Cow;

use actix_web::{
    HttpRequest, HttpResponse, get, patch, post,
    web::{Data, Payload},
};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_actix_web::service_config::ServiceConfig;

use super::{
    accounts::{endpoint, text},
    body::{self, Text},
    caller::{AccountsRead, Allowed, PathProfile, ProfilesWrite},
    error::ApiError,
    errors::{NewProfileErrors, ProfileErrors, ProfilesErrors, UpdateProfileErrors},
    query::Query,
};
use crate::{
    error::{Error, Kind, Result},
    gateway::{Gateway, connector_profiles::NewProfile},
    model::{
        accounts::{Endpoint, Region},
        connector_profiles::{
            ActionSet, ClientProof, ConnectorProfile, ProfileAction, ProfileChange,
        },
        timestamp,
    },
};

pub fn routes(config: &mut ServiceConfig<'_>) {
    config
        .service(create_connector_profile)
        .service(list_connector_profiles)
        .service(get_connector_profile)
        .service(update_connector_profile);
}

/// An OAuth app that is registered at the provider. Exactly one of `region` and `base_url` is
/// required.
#[derive(Deserialize, ToSchema)]
#[schema(as = NewConnectorProfile)]
#[serde(deny_unknown_fields)]
pub struct ConnectorProfileIn {
    /// The connector, such as `smartsheet`.
    provider: String,
    /// A label for the profile, for your own use.
    #[schema(value_type = Option<Text>)]
    label: Option<String>,
    /// The app's client id (RFC 6749, 2.2).
    #[schema(value_type = Text)]
    client_id: String,
    /// The app's client secret. Rolecall seals it and never shows it again.
    #[schema(value_type = String, format = Password, write_only, min_length = 1, max_length = 4096, pattern = "^[!-~]+$")]
    client_secret: SecretString,
    /// How the app authenticates to the provider; `client_secret` by default.
    client_auth: Option<ClientProof>,
    /// The region in which the app is registered. An app is unknown in all other regions.
    region: Option<Region>,
    /// An API base. The operator must allow it.
    base_url: Option<String>,
    /// The OAuth scopes that customers consent to. The default is the scopes that reading a
    /// directory needs (Smartsheet: READ_USERS).
    #[schema(min_items = 1)]
    scopes: Option<Vec<String>>,
    /// The redirect URL as registered at the provider; the hub's callback by default.
    redirect_url: Option<String>,
    /// The resources that accounts of this profile serve; all by default. The others answer 403
    /// `action_not_enabled`.
    #[schema(min_items = 1)]
    actions: Option<Vec<ProfileAction>>,
}

/// Changes to a connector profile. An absent key changes nothing.
#[derive(Deserialize, ToSchema)]
#[schema(as = ConnectorProfileChange)]
#[serde(deny_unknown_fields)]
pub struct ConnectorProfilePatch {
    /// Null removes it.
    #[serde(default, deserialize_with = "body::present")]
    #[schema(value_type = Option<Text>)]
    label: Option<Option<String>>,
    /// Replaces the app's client secret. Accounts stay linked.
    #[serde(default, deserialize_with = "body::present")]
    #[schema(value_type = String, required = false, format = Password, write_only, min_length = 1, max_length = 4096, pattern = "^[!-~]+$")]
    client_secret: Option<SecretString>,
    #[serde(default, deserialize_with = "body::present")]
    #[schema(value_type = ClientProof, required = false)]
    client_auth: Option<ClientProof>,
    #[serde(default, deserialize_with = "body::present")]
    #[schema(value_type = Vec<String>, required = false, min_items = 1)]
    scopes: Option<Vec<String>>,
    #[serde(default, deserialize_with = "body::present")]
    #[schema(value_type = String, required = false)]
    redirect_url: Option<String>,
    #[serde(default, deserialize_with = "body::present")]
    #[schema(value_type = Vec<ProfileAction>, required = false, min_items = 1)]
    actions: Option<Vec<ProfileAction>>,
    /// While false, the profile's accounts are inactive (412) and none can be linked under it.
    #[serde(default, deserialize_with = "body::present")]
    #[schema(value_type = bool, required = false)]
    enabled: Option<bool>,
}

/// A connector profile. Its client secret is never shown.
#[derive(Serialize, ToSchema)]
#[schema(as = ConnectorProfile)]
pub struct ConnectorProfileOut {
    #[schema(format = Uuid)]
    pub id: String,
    pub provider: String,
    pub label: Option<String>,
    pub client_id: String,
    pub client_auth: ClientProof,
    pub region: Option<Region>,
    pub base_url: Option<String>,
    pub scopes: Vec<String>,
    /// Register this at the provider, exactly as it is.
    pub redirect_url: String,
    pub actions: Vec<ProfileAction>,
    pub enabled: bool,
    #[serde(serialize_with = "timestamp::serialize")]
    pub created_at: Timestamp,
    #[serde(serialize_with = "timestamp::serialize")]
    pub updated_at: Timestamp,
}

/// The connector profiles of a project.
#[derive(Serialize, ToSchema)]
pub struct ConnectorProfileList {
    pub data: Vec<ConnectorProfileOut>,
}

impl From<ConnectorProfile> for ConnectorProfileOut {
    fn from(profile: ConnectorProfile) -> Self {
        let (region, base_url) = match profile.endpoint {
            Endpoint::Region(region) => (Some(region), None),
            Endpoint::BaseUrl(base) => (None, Some(base)),
        };
        Self {
            id: profile.id.to_string(),
            provider: profile.provider,
            label: profile.label,
            client_id: profile.client_id,
            client_auth: profile.proof,
            region,
            base_url,
            scopes: profile.scopes,
            redirect_url: profile.redirect_url,
            actions: profile.actions.iter().collect(),
            enabled: profile.is_enabled,
            created_at: profile.created_at,
            updated_at: profile.updated_at,
        }
    }
}

fn invalid(message: impl Into<Cow<'static, str>>) -> Error {
    Error::new(Kind::InvalidBody, message)
}

/// Checks that a client secret can be sent. `name` is its name in the error message.
pub fn client_secret(name: &str, secret: SecretString) -> Result<SecretString> {
    let text = secret.expose_secret();
    if (1..=4096).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic()) {
        return Ok(secret);
    }
    Err(invalid(format!(
        "{name} must be 1 to 4096 visible ASCII characters, without spaces"
    )))
}

fn actions(actions: &[ProfileAction]) -> Result<ActionSet> {
    ActionSet::of(actions).ok_or_else(|| invalid("`actions` must name at least one action"))
}

impl ConnectorProfileIn {
    fn into_new(self) -> Result<NewProfile> {
        Ok(NewProfile {
            endpoint: endpoint(self.region, self.base_url)?,
            provider: self.provider,
            label: self.label.map(|it| text("label", it)).transpose()?,
            client_id: text("client_id", self.client_id)?,
            client_secret: client_secret("`client_secret`", self.client_secret)?,
            proof: self.client_auth.unwrap_or_default(),
            scopes: self.scopes,
            redirect_url: self.redirect_url,
            actions: match &self.actions {
                None => ActionSet::ALL,
                Some(named) => actions(named)?,
            },
        })
    }
}

impl ConnectorProfilePatch {
    fn into_change(self) -> Result<ProfileChange> {
        Ok(ProfileChange {
            label: self
                .label
                .map(|label| label.map(|it| text("label", it)).transpose())
                .transpose()?,
            client_secret: self
                .client_secret
                .map(|it| client_secret("`client_secret`", it))
                .transpose()?,
            proof: self.client_auth,
            scopes: self.scopes,
            redirect_url: self.redirect_url,
            actions: self.actions.as_deref().map(actions).transpose()?,
            is_enabled: self.enabled,
        })
    }
}

/// Create a connector profile
///
/// A connector profile is an OAuth app that is registered at the provider, for customers to sign in
/// under. Register the `redirect_url` of the answer with the app.
#[utoipa::path(
    tag = "connector_profiles",
    operation_id = "create_connector_profile",
    request_body = ConnectorProfileIn,
    responses((status = 201, description = "The profile is made", body = ConnectorProfileOut), NewProfileErrors),
)]
#[post("/connector_profiles")]
pub async fn create_connector_profile(
    caller: Allowed<ProfilesWrite>,
    request: HttpRequest,
    payload: Payload,
    gateway: Data<Gateway>,
) -> Result<HttpResponse, ApiError> {
    Query::parse(request.query_string())?.finish()?;
    let new = body::read::<ConnectorProfileIn>(&request, payload)
        .await?
        .into_new()?;
    let profile = gateway
        .connector_profiles()
        .create_profile(&caller.0, new)
        .await?;
    Ok(HttpResponse::Created().json(ConnectorProfileOut::from(profile)))
}

/// List connector profiles
///
/// Returns the profiles of this key's project, oldest first, including disabled ones.
#[utoipa::path(
    tag = "connector_profiles",
    operation_id = "list_connector_profiles",
    responses((status = 200, description = "The profiles", body = ConnectorProfileList), ProfilesErrors),
)]
#[get("/connector_profiles")]
pub async fn list_connector_profiles(
    caller: Allowed<AccountsRead>,
    request: HttpRequest,
    gateway: Data<Gateway>,
) -> Result<HttpResponse, ApiError> {
    Query::parse(request.query_string())?.finish()?;
    let profiles = gateway.connector_profiles().profiles(&caller.0).await?;
    Ok(HttpResponse::Ok().json(ConnectorProfileList {
        data: profiles
            .into_iter()
            .map(ConnectorProfileOut::from)
            .collect(),
    }))
}

/// Get a connector profile
///
/// Returns the profile's current state, without its client secret.
#[utoipa::path(
    tag = "connector_profiles",
    operation_id = "get_connector_profile",
    params(("id" = Uuid, Path, description = "The profile's id")),
    responses((status = 200, description = "The profile", body = ConnectorProfileOut), ProfileErrors),
)]
#[get("/connector_profiles/{id}")]
pub async fn get_connector_profile(
    profile: PathProfile<AccountsRead>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    Query::parse(request.query_string())?.finish()?;
    Ok(HttpResponse::Ok().json(ConnectorProfileOut::from(profile.0.profile)))
}

/// Change a connector profile
///
/// Changes the keys in the body and leaves the rest. If anything is refused, nothing changes. A new
/// client secret is used from the next token request on, and accounts stay linked. `enabled: false`
/// disables a profile. A profile is never deleted, because its accounts depend on it.
#[utoipa::path(
    tag = "connector_profiles",
    operation_id = "update_connector_profile",
    params(("id" = Uuid, Path, description = "The profile's id")),
    request_body = ConnectorProfilePatch,
    responses((status = 200, description = "The profile as it is now", body = ConnectorProfileOut), UpdateProfileErrors),
)]
#[patch("/connector_profiles/{id}")]
pub async fn update_connector_profile(
    profile: PathProfile<ProfilesWrite>,
    request: HttpRequest,
    payload: Payload,
    gateway: Data<Gateway>,
) -> Result<HttpResponse, ApiError> {
    Query::parse(request.query_string())?.finish()?;
    let change = body::read::<ConnectorProfilePatch>(&request, payload)
        .await?
        .into_change()?;
    let updated = gateway
        .connector_profiles()
        .update_profile(&profile.0, change)
        .await?;
    Ok(HttpResponse::Ok().json(ConnectorProfileOut::from(updated)))
}
