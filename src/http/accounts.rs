//! `/accounts`: links, lists, reads, changes and disconnects accounts, and refreshes their tokens.

use std::borrow::Cow;

use actix_web::{
    HttpRequest, HttpResponse, delete, get, patch, post,
    web::{Data, Payload},
};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde::{
    Deserialize, Serialize,
    de::{self, IgnoredAny, IntoDeserializer, value::StrDeserializer},
};
use utoipa::{IntoParams, ToSchema};
use utoipa_actix_web::service_config::ServiceConfig;

use super::{
    body::{self, Text},
    caller::{AccountsRead, AccountsWrite, Allowed, PathAccount},
    connectors::{CATEGORY, ModelsOut},
    error::ApiError,
    errors::{AccountErrors, AccountsErrors, LinkErrors, RefreshErrors, UpdateErrors},
    iam::me::Organization,
    query::{Filled, Query, invalid as invalid_parameter},
};
use crate::{
    error::{Error, Kind, Result, quoted},
    gateway::{
        Gateway,
        accounts::{Disconnect, Revocation},
        linking::{AccountDetails, NewLink},
    },
    model::{
        accounts::{
            Account, AccountChange, AccountField, AccountKind, AccountStatus, CredentialKind,
            CredentialState, CredentialStatus, Endpoint, OffsetPage, OneOf, Region, StatusReason,
        },
        api_keys::Scope,
        id::AccountId,
        timestamp,
        walks::HeldWalk,
    },
};

pub fn routes(config: &mut ServiceConfig<'_>) {
    config
        .service(link_account)
        .service(list_accounts)
        .service(get_account)
        .service(get_account_meta)
        .service(update_account)
        .service(refresh_account)
        .service(delete_account);
}

/// An account to link. Exactly one of `region` and `base_url` is required.
#[derive(Deserialize, ToSchema)]
#[schema(as = NewAccount)]
#[serde(deny_unknown_fields)]
pub struct AccountIn {
    /// The connector, such as `smartsheet`; `GET /connectors/meta` lists them.
    provider: String,
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
    #[serde(deserialize_with = "body::object")]
    credential: CredentialIn,
    /// The provider's region that holds the customer's data.
    region: Option<Region>,
    /// An API base such as `https://api.smartsheet.com/2.0`. The operator must allow it.
    base_url: Option<String>,
    /// E-mail address of the user to act as (Smartsheet: `Assume-User`, with a system admin's
    /// personal token). Needs the scope `accounts:assume`.
    #[schema(value_type = Option<String>, format = Email)]
    assume_user: Option<String>,
}

/// The credential with which the account calls the provider.
#[derive(Deserialize, ToSchema)]
#[schema(as = Credential)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum CredentialIn {
    /// A personal access token.
    AccessToken {
        #[schema(
            value_type = String, format = Password, write_only,
            min_length = 1, max_length = 4096, pattern = "^[!-~]+$"
        )]
        access_token: SecretString,
    },
}

/// Changes to an account. An absent key changes nothing. StackOne's SDK sends further keys, with
/// their contents reduced to `{}`; those are ignored.
#[derive(Deserialize, ToSchema)]
#[schema(as = AccountChange)]
#[serde(deny_unknown_fields)]
pub struct AccountPatch {
    /// Your own id for the customer.
    #[serde(default, deserialize_with = "body::present")]
    #[schema(value_type = Text, required = false)]
    origin_owner_id: Option<String>,
    /// Your own name for the customer.
    #[serde(default, deserialize_with = "body::present")]
    #[schema(value_type = Text, required = false)]
    origin_owner_name: Option<String>,
    /// Null removes it.
    #[serde(default, deserialize_with = "body::present")]
    #[schema(value_type = Option<Text>)]
    origin_username: Option<Option<String>>,
    /// Null removes it, `{}` leaves it unchanged.
    #[serde(default, deserialize_with = "body::present")]
    #[schema(value_type = Option<LabelIn>)]
    label: Option<Option<LabelIn>>,
    /// Replaces the account's credential. Rolecall first verifies it with the provider. It must
    /// belong to the same organization.
    #[serde(default, deserialize_with = "body::present_object")]
    #[schema(value_type = CredentialIn, required = false)]
    credential: Option<CredentialIn>,
    /// Ignored: it is set when the account is linked. StackOne's SDK always sends it.
    #[serde(default, rename = "type")]
    #[schema(value_type = Value, required = false)]
    _kind: IgnoredAny,
    /// Ignored: an account stays at its provider.
    #[serde(default, rename = "provider")]
    #[schema(value_type = Value, required = false)]
    _provider: IgnoredAny,
    /// Ignored.
    #[serde(default, rename = "authentication_config_key")]
    #[schema(value_type = Value, required = false)]
    _authentication_config_key: IgnoredAny,
    /// Ignored.
    #[serde(default, rename = "environment")]
    #[schema(value_type = Value, required = false)]
    _environment: IgnoredAny,
    /// Ignored.
    #[serde(default, rename = "setup_information")]
    #[schema(value_type = Value, required = false)]
    _setup_information: IgnoredAny,
    /// Ignored.
    #[serde(default, rename = "metadata")]
    #[schema(value_type = Value, required = false)]
    _metadata: IgnoredAny,
    /// Ignored. Use `credential` to replace a token.
    #[serde(default, rename = "credentials")]
    #[schema(value_type = Value, required = false)]
    _credentials: IgnoredAny,
    /// Ignored. Use `credential` to replace a token.
    #[serde(default, rename = "secrets")]
    #[schema(value_type = Value, required = false)]
    _secrets: IgnoredAny,
}

/// A label, or the `{}` that StackOne's SDK makes of a label.
#[derive(Deserialize, ToSchema)]
#[schema(as = LabelChange)]
#[serde(untagged)]
pub enum LabelIn {
    Text(Text),
    #[serde(deserialize_with = "body::object")]
    Stripped(Stripped),
}

/// An object without keys.
#[derive(Deserialize, ToSchema)]
#[schema(as = EmptyObject)]
#[serde(deny_unknown_fields)]
pub struct Stripped {}

impl AccountPatch {
    /// Validates every field; error messages use the names of the API document.
    fn into_change(self) -> Result<(AccountChange, Option<SecretString>)> {
        let checked = |name, value: Option<String>| value.map(|it| text(name, it)).transpose();
        let label = match self.label {
            None | Some(Some(LabelIn::Stripped(_))) => None,
            Some(None) => Some(None),
            Some(Some(LabelIn::Text(Text(label)))) => Some(Some(text("label", label)?)),
        };
        let change = AccountChange {
            origin_owner_id: checked("origin_owner_id", self.origin_owner_id)?,
            origin_owner_name: checked("origin_owner_name", self.origin_owner_name)?,
            origin_username: self
                .origin_username
                .map(|it| checked("origin_username", it))
                .transpose()?,
            label,
        };
        let token = self.credential.map(CredentialIn::into_token).transpose()?;
        Ok((change, token))
    }
}

impl CredentialIn {
    fn into_token(self) -> Result<SecretString> {
        let CredentialIn::AccessToken { access_token: it } = self;
        access_token("`credential.access_token`", it)
    }
}

/// Checks that a token can be sent in a header. `name` is its name in the error message.
pub fn access_token(name: &str, token: SecretString) -> Result<SecretString> {
    let text = token.expose_secret();
    if (1..=4096).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic()) {
        return Ok(token);
    }
    Err(invalid(format!(
        "{name} must be 1 to 4096 visible ASCII characters, without spaces"
    )))
}

/// A linked account. Its credential is never shown.
#[derive(Serialize, ToSchema)]
#[schema(as = Account)]
pub struct AccountOut {
    #[schema(format = Uuid)]
    pub id: String,
    pub provider: String,
    pub provider_name: Option<String>,
    pub status: AccountStatus,
    /// Why the status is not `active`, and notes on the credential: `refreshing`, `refresh_failed`,
    /// `uncertain`, `degraded`, `reauth_required`, `locked`, `disconnected`, `moved`,
    /// `profile_disabled`, `scope_missing`, `organisation_changed`, `assume_user_refused`,
    /// `base_url_not_allowed`.
    pub status_reasons: Vec<StatusReason>,
    pub origin_owner_id: String,
    pub origin_owner_name: String,
    pub origin_username: Option<String>,
    pub label: Option<String>,
    #[serde(rename = "type")]
    pub kind: AccountKind,
    pub region: Option<Region>,
    pub base_url: Option<String>,
    /// The organization that the token belongs to.
    pub organization: Organization,
    /// Whether the token's user sees at the provider the fields that only an administrator sees.
    pub is_admin: bool,
    /// E-mail address of the user that the token acts as.
    pub assume_user: Option<String>,
    /// The state of its credential; null once the account is disconnected.
    pub credential: Option<CredentialOut>,
    /// The held walk that keeps the directory unchanged; null if there is none.
    pub held_walk: Option<HeldWalk>,
    #[serde(serialize_with = "timestamp::serialize")]
    pub created_at: Timestamp,
    #[serde(serialize_with = "timestamp::serialize")]
    pub updated_at: Timestamp,
}

/// The state of a credential, without the credential.
#[derive(Serialize, ToSchema)]
#[schema(as = CredentialStatus)]
pub struct CredentialOut {
    #[serde(rename = "type")]
    pub kind: CredentialKind,
    pub state: CredentialState,
    /// When it entered that state.
    #[serde(serialize_with = "timestamp::serialize")]
    pub since: Timestamp,
    /// When its access token expires. Rolecall refreshes it before, if it has a refresh token. Null
    /// if it does not expire.
    #[serde(serialize_with = "timestamp::serialize")]
    pub expires_at: Option<Timestamp>,
    /// The connector profile whose app the token was issued to.
    #[schema(format = Uuid)]
    pub connector_profile_id: Option<String>,
}

impl CredentialOut {
    fn of(status: &CredentialStatus) -> Self {
        Self {
            kind: status.kind,
            state: status.state,
            since: status.since,
            expires_at: status.expires_at,
            connector_profile_id: status.profile.map(|id| id.to_string()),
        }
    }
}

/// A disconnected account.
#[derive(Serialize, ToSchema)]
#[schema(as = DisconnectedAccount)]
pub struct DisconnectedOut {
    #[serde(flatten)]
    pub account: AccountOut,
    /// The result of revoking its token at the provider.
    pub revocation: Revocation,
}

impl AccountOut {
    pub fn of(account: &Account, gateway: &Gateway) -> Self {
        let (region, base_url) = match &account.endpoint {
            Endpoint::Region(region) => (Some(*region), None),
            Endpoint::BaseUrl(base) => (None, Some(base.clone())),
        };
        Self {
            id: account.id.to_string(),
            provider: account.provider.clone(),
            provider_name: gateway.provider_name(&account.provider).map(str::to_owned),
            status: account.status,
            status_reasons: account.status_reasons.clone(),
            origin_owner_id: account.origin_owner_id.clone(),
            origin_owner_name: account.origin_owner_name.clone(),
            origin_username: account.origin_username.clone(),
            label: account.label.clone(),
            kind: account.kind,
            region,
            base_url,
            organization: Organization {
                remote_id: account.identity.organization.to_string(),
                name: account.identity.organization_name.clone(),
            },
            is_admin: account.identity.is_admin,
            assume_user: account.assume_user.clone(),
            credential: account.credential.as_ref().map(CredentialOut::of),
            held_walk: account.held_walk,
            created_at: account.created_at,
            updated_at: account.updated_at,
        }
    }
}

impl AccountIn {
    /// Validates every field; error messages use the names of the API document.
    fn into_link(self) -> Result<NewLink> {
        let endpoint = endpoint(self.region, self.base_url)?;
        Ok(NewLink {
            provider: self.provider,
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
            endpoint,
            assume_user: self
                .assume_user
                .map(|it| address("assume_user", it))
                .transpose()?,
            token: self.credential.into_token()?,
        })
    }
}

/// The endpoint of an account or an app: either the region or the base URL, never both.
pub fn endpoint(region: Option<Region>, base_url: Option<String>) -> Result<Endpoint> {
    match (region, base_url) {
        (Some(region), None) => Ok(Endpoint::Region(region)),
        (None, Some(base)) => Ok(Endpoint::BaseUrl(base)),
        (None, None) => Err(invalid("`region` or `base_url` is required")),
        (Some(_), Some(_)) => Err(invalid("`region` and `base_url` exclude each other")),
    }
}

fn invalid(message: impl Into<Cow<'static, str>>) -> Error {
    Error::new(Kind::InvalidBody, message)
}

/// Checks a text for people, such as a name. `name` is the field's name in the error message.
pub fn text(name: &'static str, value: String) -> Result<String> {
    let is_fitting = !value.trim().is_empty()
        && value.chars().count() <= 255
        && !value.chars().any(char::is_control);
    if is_fitting {
        return Ok(value);
    }
    Err(invalid(format!(
        "`{name}` must be 1 to 255 characters, not all of them spaces, and without control characters"
    )))
}

/// Checks an e-mail address. `name` is the field's name in the error message. The check is loose on
/// purpose: the provider decides whether the address belongs to one of its users.
pub fn address(name: &'static str, value: String) -> Result<String> {
    let is_fitting = (3..=254).contains(&value.len())
        && value.contains('@')
        && !value.chars().any(|c| c.is_control() || c.is_whitespace());
    if is_fitting {
        return Ok(value);
    }
    Err(invalid(format!(
        "`{name}` must be an e-mail address of at most 254 bytes"
    )))
}

/// Link an account
///
/// Verifies the token with the provider first. Nothing is stored if the provider refuses the token
/// or does not answer, or if the token may not read users. The first walk starts at once, and the
/// answer does not wait for it.
#[utoipa::path(
    tag = "accounts",
    operation_id = "link_account",
    request_body = AccountIn,
    responses((status = 201, description = "The account is linked", body = AccountOut), LinkErrors),
)]
#[post("/accounts")]
pub async fn link_account(
    caller: Allowed<AccountsWrite>,
    request: HttpRequest,
    payload: Payload,
    gateway: Data<Gateway>,
) -> Result<HttpResponse, ApiError> {
    Query::parse(request.query_string())?.finish()?;
    let link = body::read::<AccountIn>(&request, payload)
        .await?
        .into_link()?;
    if link.assume_user.is_some() {
        caller.0.require(Scope::AccountsAssume)?;
    }
    let account = gateway.linking().link(&caller.0, link).await?;
    Ok(HttpResponse::Created().json(AccountOut::of(&account, &gateway)))
}

/// The parameters of the list that may be repeated.
const LISTS: [&str; 4] = ["account_ids", "providers", "status", "origin_owner_ids"];

/// The statuses of StackOne's API. An account of Rolecall only ever has one of the first three.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StatusWord {
    Active,
    Inactive,
    Error,
    Suspended,
    Archived,
    Expired,
}

impl StatusWord {
    fn is_one(word: &str) -> bool {
        let word: StrDeserializer<'_, de::value::Error> = word.into_deserializer();
        Self::deserialize(word).is_ok()
    }
}

/// Parameters of the list of accounts.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct AccountListParams {
    /// Counted from 1. A page past the end is an empty array.
    #[param(minimum = 1, maximum = 1_000_000, default = 1, required = false)]
    pub page: Option<u32>,
    /// Accounts per page.
    #[param(minimum = 1, maximum = 100, default = 25, required = false)]
    pub page_size: Option<u32>,
    /// Only these accounts. Repeat the parameter for each.
    #[param(inline, required = false, min_items = 1)]
    pub account_ids: Option<Vec<Filled>>,
    /// Only accounts at this provider.
    #[param(min_length = 1, required = false)]
    pub provider: Option<String>,
    /// Only accounts at one of these providers. Repeat the parameter for each.
    #[param(inline, required = false, min_items = 1)]
    pub providers: Option<Vec<Filled>>,
    /// Only accounts with one of these statuses. Repeat the parameter for each. `suspended`,
    /// `archived` and `expired` are accepted, but no account has them.
    #[param(inline, value_type = Vec<StatusWord>, required = false, min_items = 1)]
    pub status: Option<Vec<String>>,
    /// Only accounts of this customer.
    #[param(min_length = 1, required = false)]
    pub origin_owner_id: Option<String>,
    /// Only accounts of one of these customers. Repeat the parameter for each.
    #[param(inline, required = false, min_items = 1)]
    pub origin_owner_ids: Option<Vec<Filled>>,
}

/// An account id as it is stored: a UUID in lower case. A text that is no UUID stays as it is and
/// matches no account.
fn as_stored(id: &str) -> String {
    id.parse::<AccountId>()
        .map_or_else(|_| id.to_owned(), |id| id.to_string())
}

/// Takes the filters of the list from the query string.
fn conditions(query: &mut Query<'_>) -> Result<Vec<OneOf>> {
    let mut conditions = Vec::new();
    for (name, field) in [
        ("account_ids", AccountField::Id),
        ("provider", AccountField::Provider),
        ("providers", AccountField::Provider),
        ("status", AccountField::Status),
        ("origin_owner_id", AccountField::OriginOwnerId),
        ("origin_owner_ids", AccountField::OriginOwnerId),
    ] {
        let values = query.take_list(name)?;
        if values.is_empty() {
            continue;
        }
        let values = values.into_iter().map(|value| match field {
            AccountField::Id => as_stored(&value),
            _ => value.into_owned(),
        });
        let values: Vec<_> = values.collect();
        if field == AccountField::Status
            && let Some(other) = values.iter().find(|value| !StatusWord::is_one(value))
        {
            return Err(invalid_parameter(format!(
                "{} is not a value of `status`",
                quoted(other)
            )));
        }
        conditions.push(OneOf { field, values });
    }
    Ok(conditions)
}

/// List accounts
///
/// Returns the accounts of this key's project, oldest first, as a bare array. An account must pass
/// every filter given. It passes a repeated filter if it matches one of the values.
#[utoipa::path(
    tag = "accounts",
    operation_id = "list_accounts",
    params(AccountListParams),
    responses((status = 200, description = "The accounts", body = Vec<AccountOut>), AccountsErrors),
)]
#[get("/accounts")]
pub async fn list_accounts(
    caller: Allowed<AccountsRead>,
    request: HttpRequest,
    gateway: Data<Gateway>,
) -> Result<HttpResponse, ApiError> {
    let mut query = Query::with_lists(request.query_string(), &LISTS)?;
    let page = query.take_number("page", 1..=1_000_000)?.unwrap_or(1);
    let page_size = query.take_number("page_size", 1..=100)?.unwrap_or(25);
    let conditions = conditions(&mut query)?;
    query.finish()?;
    let page = OffsetPage {
        offset: (page - 1) * page_size,
        limit: page_size,
    };
    let accounts = gateway
        .accounts()
        .list(&caller.0, &conditions, page)
        .await?;
    let accounts = accounts
        .iter()
        .map(|account| AccountOut::of(account, &gateway));
    Ok(HttpResponse::Ok().json(accounts.collect::<Vec<_>>()))
}

/// An account's meta information, with the three keys of StackOne's API.
#[derive(Serialize, ToSchema)]
#[schema(as = AccountMeta)]
pub struct AccountMetaOut {
    provider: String,
    #[schema(example = "iam")]
    category: &'static str,
    models: ModelsOut,
}

/// Get an account's meta information
///
/// Lists the fields that are served for this account's provider. `GET /iam/me` lists those that the
/// account's token may not see.
#[utoipa::path(
    tag = "accounts",
    operation_id = "get_account_meta",
    params(("id" = Uuid, Path, description = "The account's id")),
    responses((status = 200, description = "What is served", body = AccountMetaOut), AccountErrors),
)]
#[get("/accounts/{id}/meta")]
pub async fn get_account_meta(
    account: PathAccount<AccountsRead>,
    request: HttpRequest,
    gateway: Data<Gateway>,
) -> Result<HttpResponse, ApiError> {
    Query::parse(request.query_string())?.finish()?;
    let provider = account.0.account.provider.clone();
    let models = gateway.connector_meta(&provider)?.models.into();
    Ok(HttpResponse::Ok().json(AccountMetaOut {
        provider,
        category: CATEGORY,
        models,
    }))
}

/// Get an account
///
/// Returns the account's current state. Its status says whether the provider still accepts its
/// credential.
#[utoipa::path(
    tag = "accounts",
    operation_id = "get_account",
    params(("id" = Uuid, Path, description = "The account's id")),
    responses((status = 200, description = "The account", body = AccountOut), AccountErrors),
)]
#[get("/accounts/{id}")]
pub async fn get_account(
    account: PathAccount<AccountsRead>,
    request: HttpRequest,
    gateway: Data<Gateway>,
) -> Result<HttpResponse, ApiError> {
    Query::parse(request.query_string())?.finish()?;
    Ok(HttpResponse::Ok().json(AccountOut::of(&account.0.account, &gateway)))
}

/// Change an account
///
/// Changes the keys in the body and leaves the rest. A `credential` replaces the account's
/// credential: Rolecall verifies it with the provider, as in linking, and it must belong to the
/// same organization. The account then becomes active again and a walk starts; the answer does not
/// wait for it. If anything is refused, nothing changes. `type`, `provider`,
/// `authentication_config_key`, `environment`, `setup_information`, `metadata`, `credentials` and
/// `secrets` are accepted and ignored, because StackOne's clients send them.
#[utoipa::path(
    tag = "accounts",
    operation_id = "update_account",
    params(("id" = Uuid, Path, description = "The account's id")),
    request_body = AccountPatch,
    responses((status = 200, description = "The account as it is now", body = AccountOut), UpdateErrors),
)]
#[patch("/accounts/{id}")]
pub async fn update_account(
    account: PathAccount<AccountsWrite>,
    request: HttpRequest,
    payload: Payload,
    gateway: Data<Gateway>,
) -> Result<HttpResponse, ApiError> {
    Query::parse(request.query_string())?.finish()?;
    let (change, token) = body::read::<AccountPatch>(&request, payload)
        .await?
        .into_change()?;
    let updated = gateway.accounts().update(&account.0, change, token).await?;
    Ok(HttpResponse::Ok().json(AccountOut::of(&updated, &gateway)))
}

/// Refresh an account's tokens
///
/// Refreshes now, whether or not the tokens are due, and returns the account as it is afterwards. A
/// refresh that brings no new tokens is not an error; `credential.state` and `status_reasons` show
/// it. A refresh token that the provider refused for good is tried once more.
#[utoipa::path(
    tag = "accounts",
    operation_id = "refresh_account",
    params(("id" = Uuid, Path, description = "The account's id")),
    responses((status = 200, description = "The account as it is now", body = AccountOut), RefreshErrors),
)]
#[post("/accounts/{id}/refresh")]
pub async fn refresh_account(
    account: PathAccount<AccountsWrite>,
    request: HttpRequest,
    gateway: Data<Gateway>,
) -> Result<HttpResponse, ApiError> {
    Query::parse(request.query_string())?.finish()?;
    let refreshed = gateway.credentials().refresh_now(&account.0).await?;
    Ok(HttpResponse::Ok().json(AccountOut::of(&refreshed, &gateway)))
}

/// Disconnect an account
///
/// Destroys the account's credential; nothing of the account is served from the next request on.
/// Rolecall revokes OAuth tokens at the provider. It revokes a personal access token only with
/// `revoke=true`, and never while another account here uses the same token. `revocation` is the
/// result. Without `purge=true` the account stays, `inactive` and `disconnected`, with its past
/// walks, and a connect session with its `account_id` can link it again. With `purge=true`, every
/// stored byte of the account is destroyed, and the answer shows the account as it was.
#[utoipa::path(
    tag = "accounts",
    operation_id = "delete_account",
    params(
        ("id" = Uuid, Path, description = "The account's id"),
        ("revoke" = Option<bool>, Query, description = "Revoke a personal access token, too"),
        ("purge" = Option<bool>, Query, description = "Destroy all that is stored of the account"),
    ),
    responses((status = 200, description = "The account, disconnected", body = DisconnectedOut), AccountErrors),
)]
#[delete("/accounts/{id}")]
pub async fn delete_account(
    account: PathAccount<AccountsWrite>,
    request: HttpRequest,
    gateway: Data<Gateway>,
) -> Result<HttpResponse, ApiError> {
    let mut query = Query::parse(request.query_string())?;
    let how = Disconnect {
        revoke: query.take_bool("revoke")?.unwrap_or(false),
        purge: query.take_bool("purge")?.unwrap_or(false),
    };
    query.finish()?;
    let disconnected = gateway.accounts().disconnect(&account.0, how).await?;
    Ok(HttpResponse::Ok().json(DisconnectedOut {
        account: AccountOut::of(&disconnected.account, &gateway),
        revocation: disconnected.revocation,
    }))
}
