//! `/connectors/meta`: lists the providers and the fields that are served for each.

use actix_web::{HttpRequest, HttpResponse, get, web::Data};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_actix_web::service_config::ServiceConfig;

use super::{
    caller::{AccountsRead, Allowed},
    error::ApiError,
    errors::{ConnectorErrors, ConnectorsErrors},
    query::{Query, invalid},
};
use crate::{
    error::{Result, quoted},
    gateway::Gateway,
    model::connectors::{ConnectorMeta, Models},
};

/// StackOne's name for this unified API.
pub const CATEGORY: &str = "iam";

/// StackOne's values of `include`. They are accepted and have no effect.
pub const INCLUDES: [&str; 6] = [
    "field_path",
    "unmapped_fields",
    "resources",
    "inactive",
    "webhooks",
    "static_fields",
];

pub fn routes(config: &mut ServiceConfig<'_>) {
    config.service(list_connectors).service(get_connector);
}

/// A provider at which accounts can be linked.
#[derive(Serialize, ToSchema)]
#[schema(as = Connector)]
pub struct ConnectorOut {
    /// The provider's key, as in `provider` of an account.
    #[schema(example = "smartsheet")]
    provider: &'static str,
    #[schema(example = "Smartsheet")]
    provider_name: &'static str,
    #[schema(example = "iam")]
    category: &'static str,
    models: ModelsOut,
    /// Whether accounts can be linked.
    active: bool,
    resources: ConnectorResources,
}

/// The fields that are served for a provider, by kind of record.
#[derive(Serialize, ToSchema)]
#[schema(as = Models)]
pub struct ModelsOut {
    users: ModelOut,
    roles: ModelOut,
    groups: ModelOut,
}

/// The fields that are served for one kind of record.
#[derive(Serialize, ToSchema)]
#[schema(as = Model)]
pub struct ModelOut {
    /// The fields that can have a value. Every other field is always null or empty.
    fields: &'static [&'static str],
}

/// Resources for pages about this provider.
#[derive(Serialize, ToSchema)]
pub struct ConnectorResources {
    /// Always null: Rolecall has no logos.
    images: Option<ConnectorImages>,
}

/// URLs of a provider's logos.
#[derive(Serialize, ToSchema)]
pub struct ConnectorImages {
    logo_url: Option<String>,
    original_logo_horizontal_url: Option<String>,
}

impl From<Models> for ModelsOut {
    fn from(models: Models) -> Self {
        Self {
            users: ModelOut {
                fields: models.users,
            },
            roles: ModelOut {
                fields: models.roles,
            },
            groups: ModelOut {
                fields: models.groups,
            },
        }
    }
}

impl From<ConnectorMeta> for ConnectorOut {
    fn from(meta: ConnectorMeta) -> Self {
        Self {
            provider: meta.provider,
            provider_name: meta.name,
            category: CATEGORY,
            models: meta.models.into(),
            active: true,
            resources: ConnectorResources { images: None },
        }
    }
}

/// List connectors
///
/// Lists every provider at which accounts can be linked, with the fields that are served for it.
#[utoipa::path(
    tag = "connectors",
    operation_id = "list_connectors",
    params(("include" = Option<Vec<String>>, Query, style = Form, explode = false, description = "StackOne's words, separated by commas; taken without effect, since no connector has any of them.")),
    responses((status = 200, description = "The connectors", body = Vec<ConnectorOut>), ConnectorsErrors),
)]
#[get("/connectors/meta")]
pub async fn list_connectors(
    _caller: Allowed<AccountsRead>,
    request: HttpRequest,
    gateway: Data<Gateway>,
) -> Result<HttpResponse, ApiError> {
    check_include(&request)?;
    let connectors = gateway.connectors().into_iter().map(ConnectorOut::from);
    Ok(HttpResponse::Ok().json(connectors.collect::<Vec<_>>()))
}

/// Get a connector
///
/// Returns one provider, with the fields that are served for it.
#[utoipa::path(
    tag = "connectors",
    operation_id = "get_connector",
    params(
        ("provider" = String, Path, description = "The provider's key, such as `smartsheet`"),
        ("include" = Option<Vec<String>>, Query, style = Form, explode = false, description = "As in the list."),
    ),
    responses((status = 200, description = "The connector", body = ConnectorOut), ConnectorErrors),
)]
#[get("/connectors/meta/{provider}")]
pub async fn get_connector(
    _caller: Allowed<AccountsRead>,
    request: HttpRequest,
    gateway: Data<Gateway>,
) -> Result<HttpResponse, ApiError> {
    check_include(&request)?;
    let meta = gateway.connector_meta(request.match_info().query("provider"))?;
    Ok(HttpResponse::Ok().json(ConnectorOut::from(meta)))
}

/// Refuses a value of `include` that StackOne does not have, and any other parameter.
fn check_include(request: &HttpRequest) -> Result<()> {
    let mut query = Query::parse(request.query_string())?;
    let include = query.take("include").unwrap_or_default();
    query.finish()?;
    let mut words = include.split(',').filter(|_| !include.is_empty());
    match words.find(|word| !INCLUDES.contains(word)) {
        None => Ok(()),
        Some(word) => Err(invalid(format!(
            "{} is not a value of `include`",
            quoted(word)
        ))),
    }
}
