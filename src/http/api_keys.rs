//! `/api_keys`: creates, lists, reads, changes and revokes API keys.

use std::borrow::Cow;

use actix_web::{
    HttpRequest, HttpResponse, delete, get,
    http::header,
    patch, post,
    web::{Data, Payload},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_actix_web::service_config::ServiceConfig;

use super::{
    body::{self, Text},
    caller::{Admin, Allowed, PathKey},
    error::ApiError,
    errors::{IssueKeyErrors, KeyErrors, KeysErrors, UpdateKeyErrors},
    query::{PageParams, Query},
    timestamp::moment,
};
use crate::{
    error::{Error, Kind, Result},
    gateway::Gateway,
    model::{
        api_keys::{ApiKey, KeyChange, KeyLabel, KeyStatus, NewKey, Scope},
        timestamp,
    },
};

pub fn routes(config: &mut ServiceConfig<'_>) {
    config
        .service(create_api_key)
        .service(list_api_keys)
        .service(get_api_key)
        .service(update_api_key)
        .service(revoke_api_key);
}

/// An API key to create.
#[derive(Deserialize, ToSchema)]
#[schema(as = NewApiKey)]
#[serde(deny_unknown_fields)]
pub struct ApiKeyIn {
    /// A label for the key, for your own use.
    #[schema(value_type = Option<Text>)]
    label: Option<String>,
    /// The key's scopes, each once. `admin` cannot be granted here.
    #[schema(value_type = BTreeSet<Scope>, min_items = 1)]
    scopes: Vec<String>,
    /// When the key expires, in the future: `YYYY-MM-DDTHH:MM:SS`, optionally with a fraction, and
    /// `Z` or an offset. By default, the key is valid until it is revoked.
    #[schema(value_type = Option<Timestamp>)]
    expires_at: Option<String>,
}

/// Changes to an API key. An absent key changes nothing.
#[derive(Deserialize, ToSchema)]
#[schema(as = ApiKeyChange)]
#[serde(deny_unknown_fields)]
pub struct ApiKeyPatch {
    /// Null removes it.
    #[serde(default, deserialize_with = "body::present")]
    #[schema(value_type = Option<Text>)]
    label: Option<Option<String>>,
    /// When the key expires: in the future, and no later than the expiry that it has.
    #[serde(default, deserialize_with = "body::present")]
    #[schema(value_type = Timestamp, required = false)]
    expires_at: Option<Option<String>>,
}

/// An API key, without the key itself.
#[derive(Serialize, ToSchema)]
#[schema(as = ApiKey)]
pub struct ApiKeyOut {
    /// The public part of the key. The key contains it between `rc_` and the next `_`, without
    /// hyphens.
    #[schema(format = Uuid)]
    pub id: String,
    pub label: Option<String>,
    pub scopes: Vec<Scope>,
    /// Only an `active` key is accepted.
    pub status: KeyStatus,
    #[serde(serialize_with = "timestamp::serialize")]
    pub created_at: Timestamp,
    #[serde(serialize_with = "timestamp::serialize")]
    pub expires_at: Option<Timestamp>,
    #[serde(serialize_with = "timestamp::serialize")]
    pub revoked_at: Option<Timestamp>,
    /// The id of the key that created this one; null if the operator did.
    #[schema(format = Uuid)]
    pub created_by: Option<String>,
}

/// A revoked API key.
#[derive(Serialize, ToSchema)]
#[schema(as = RevokedApiKey)]
pub struct RevokedKeyOut {
    #[serde(flatten)]
    pub api_key: ApiKeyOut,
    /// With `with_created=true`: the keys that this key created, the keys that those created, and
    /// so on, including those revoked before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<Vec<ApiKeyOut>>,
}

/// A new API key.
#[derive(Serialize, ToSchema)]
#[schema(as = IssuedApiKey)]
pub struct NewApiKeyOut {
    #[serde(flatten)]
    pub api_key: ApiKeyOut,
    /// The key itself. It is shown only in this answer: Rolecall stores only its digest.
    pub key: String,
}

/// API keys, newest first.
#[derive(Serialize, ToSchema)]
pub struct ApiKeyPage {
    pub data: Vec<ApiKeyOut>,
    pub next: Option<String>,
}

impl ApiKeyOut {
    /// The key with its status at `now`.
    pub fn at(now: Timestamp, key: ApiKey) -> Self {
        Self {
            id: key.id.to_string(),
            status: key.status_at(now),
            label: Some(key.label).filter(|label| !label.is_empty()),
            scopes: key.scopes,
            created_at: key.created_at,
            expires_at: key.expires_at,
            revoked_at: key.revoked_at,
            created_by: key.created_by.map(|id| id.to_string()),
        }
    }
}

impl RevokedKeyOut {
    /// The revoked key at `now`; `created` are the keys revoked along with it.
    pub fn at(now: Timestamp, key: ApiKey, created: Option<Vec<ApiKey>>) -> Self {
        let created = created.map(|created| {
            let created = created.into_iter();
            created.map(|key| ApiKeyOut::at(now, key)).collect()
        });
        let api_key = ApiKeyOut::at(now, key);
        Self { api_key, created }
    }
}

impl ApiKeyIn {
    /// Validates every field; error messages use the names of the API document.
    fn into_new_key(self) -> Result<NewKey> {
        Ok(NewKey {
            label: self.label.as_deref().map(label).transpose()?,
            scopes: scopes(&self.scopes)?,
            expires_at: self.expires_at.as_deref().map(end).transpose()?,
        })
    }
}

impl ApiKeyPatch {
    fn into_change(self) -> Result<KeyChange> {
        let label = self
            .label
            .map(|given| given.as_deref().map(label).transpose())
            .transpose()?;
        let expires_at = match self.expires_at {
            None => None,
            Some(None) => {
                return Err(invalid(
                    "`expires_at` cannot be null: an end is never taken away",
                ));
            }
            Some(Some(text)) => Some(end(&text)?),
        };
        Ok(KeyChange { label, expires_at })
    }
}

fn invalid(message: impl Into<Cow<'static, str>>) -> Error {
    Error::new(Kind::InvalidBody, message)
}

fn label(text: &str) -> Result<KeyLabel> {
    let label = text.parse::<KeyLabel>();
    label.map_err(|error| invalid(format!("`label` is refused: {error}")))
}

fn scopes(words: &[String]) -> Result<Vec<Scope>> {
    let mut scopes = Vec::new();
    for word in words {
        let scope = word
            .parse()
            .map_err(|error| invalid(format!("`scopes` has an {error}")))?;
        if scopes.contains(&scope) {
            return Err(invalid(format!("`scopes` has {scope} more than once")));
        }
        scopes.push(scope);
    }
    if scopes.is_empty() {
        return Err(invalid("`scopes` must name at least one scope"));
    }
    Ok(scopes)
}

fn end(text: &str) -> Result<Timestamp> {
    moment(text).ok_or_else(|| {
        invalid(
            "`expires_at` must be a moment as YYYY-MM-DDTHH:MM:SS, with a fraction or without, \
                 and then Z or an offset as +HH:MM",
        )
    })
}

/// Create an API key
///
/// Only this answer contains the key itself. The scope `admin` cannot be granted: the operator
/// creates such keys.
#[utoipa::path(
    tag = "api_keys",
    operation_id = "create_api_key",
    request_body = ApiKeyIn,
    responses((status = 201, description = "The key is made", body = NewApiKeyOut), IssueKeyErrors),
)]
#[post("/api_keys")]
pub async fn create_api_key(
    caller: Allowed<Admin>,
    request: HttpRequest,
    payload: Payload,
    gateway: Data<Gateway>,
) -> Result<HttpResponse, ApiError> {
    Query::parse(request.query_string())?.finish()?;
    let new = body::read::<ApiKeyIn>(&request, payload)
        .await?
        .into_new_key()?;
    let (text, key) = gateway.api_keys().issue_key(&caller.0, &new).await?;
    Ok(HttpResponse::Created()
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .json(NewApiKeyOut {
            api_key: ApiKeyOut::at(key.created_at, key),
            key: text.expose().to_owned(),
        }))
}

/// List API keys
///
/// Returns the keys of this key's project, newest first, including expired and revoked ones.
#[utoipa::path(
    tag = "api_keys",
    operation_id = "list_api_keys",
    params(
        ("page_size" = Option<u64>, Query, minimum = 1, maximum = 100, description = "Keys per page, 25 by default."),
        ("next" = Option<String>, Query, max_length = 1024, description = "`next` of the page before."),
    ),
    responses((status = 200, description = "Keys, newest first", body = ApiKeyPage), KeysErrors),
)]
#[get("/api_keys")]
pub async fn list_api_keys(
    caller: Allowed<Admin>,
    request: HttpRequest,
    gateway: Data<Gateway>,
) -> Result<HttpResponse, ApiError> {
    let page = PageParams::parse(request.query_string())?;
    let cursors = gateway
        .directory()
        .list_cursors(&caller.0, "api_keys")
        .await?;
    let before = page.after(&cursors)?;
    let keys = gateway
        .api_keys()
        .keys(&caller.0, before, page.reach())
        .await?;
    let (keys, next) = page.cut(keys, &cursors, |key| key.id.to_string());
    let now = gateway.clock().now();
    let data = keys.into_iter().map(|key| ApiKeyOut::at(now, key));
    Ok(HttpResponse::Ok().json(ApiKeyPage {
        data: data.collect(),
        next,
    }))
}

/// Get an API key
///
/// Returns the key's current state, without the key itself.
#[utoipa::path(
    tag = "api_keys",
    operation_id = "get_api_key",
    params(("id" = Uuid, Path, description = "The key's id")),
    responses((status = 200, description = "The key", body = ApiKeyOut), KeyErrors),
)]
#[get("/api_keys/{id}")]
pub async fn get_api_key(
    key: PathKey<Admin>,
    request: HttpRequest,
    gateway: Data<Gateway>,
) -> Result<HttpResponse, ApiError> {
    Query::parse(request.query_string())?.finish()?;
    Ok(HttpResponse::Ok().json(ApiKeyOut::at(gateway.clock().now(), key.0.key)))
}

/// Change an API key
///
/// Changes the label or the expiry. An expiry can be set or brought forward, never postponed or
/// removed. Scopes never change. If anything is refused, nothing changes.
#[utoipa::path(
    tag = "api_keys",
    operation_id = "update_api_key",
    params(("id" = Uuid, Path, description = "The key's id")),
    request_body = ApiKeyPatch,
    responses((status = 200, description = "The key as it is now", body = ApiKeyOut), UpdateKeyErrors),
)]
#[patch("/api_keys/{id}")]
pub async fn update_api_key(
    key: PathKey<Admin>,
    request: HttpRequest,
    payload: Payload,
    gateway: Data<Gateway>,
) -> Result<HttpResponse, ApiError> {
    Query::parse(request.query_string())?.finish()?;
    let change = body::read::<ApiKeyPatch>(&request, payload)
        .await?
        .into_change()?;
    let updated = gateway.api_keys().update_key(&key.0, change).await?;
    Ok(HttpResponse::Ok().json(ApiKeyOut::at(gateway.clock().now(), updated)))
}

/// Revoke an API key
///
/// The process that answers refuses the key from the next request on. Every other process refuses
/// it within a second plus the store's response time, and within 5 seconds as long as the store
/// answers. A key may revoke itself. Revoking a key again changes nothing.
///
/// With `with_created=true`, the same transaction revokes all keys that this key created, the keys
/// that those created, and so on.
#[utoipa::path(
    tag = "api_keys",
    operation_id = "revoke_api_key",
    params(
        ("id" = Uuid, Path, description = "The key's id"),
        ("with_created" = Option<bool>, Query, description = "Revoke the keys that it made, too"),
    ),
    responses((status = 200, description = "The key, now revoked", body = RevokedKeyOut), KeyErrors),
)]
#[delete("/api_keys/{id}")]
pub async fn revoke_api_key(
    key: PathKey<Admin>,
    request: HttpRequest,
    gateway: Data<Gateway>,
) -> Result<HttpResponse, ApiError> {
    let mut query = Query::parse(request.query_string())?;
    let with_created = query.take_bool("with_created")?.unwrap_or(false);
    query.finish()?;
    let (revoked, created) = gateway.api_keys().revoke_key(&key.0, with_created).await?;
    let created = with_created.then_some(created);
    let now = gateway.clock().now();
    Ok(HttpResponse::Ok().json(RevokedKeyOut::at(now, revoked, created)))
}
