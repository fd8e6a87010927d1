//! `/iam/me`: the user behind the account's token, and the fields that the token may not see.

use actix_web::{HttpRequest, HttpResponse, get, web::Data};
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    gateway::Gateway,
    http::{
        caller::{IamRead, NamedAccount},
        error::ApiError,
        errors::MeErrors,
        query::Query,
    },
    model::{
        schema::{EnumValue, Warning},
        timestamp,
    },
};

/// The answer of `GET /iam/me`.
#[derive(Serialize, ToSchema)]
pub struct MeRecord {
    pub data: Me,
}

/// The user behind the account's token, and the fields that the token may not see.
#[derive(Serialize, ToSchema)]
pub struct Me {
    pub name: Option<String>,
    pub primary_email_address: Option<String>,
    /// The unified id of this user in `/iam/users`.
    pub user_id: String,
    pub remote_user_id: String,
    /// Always `api_key`.
    pub auth_type: EnumValue<String>,
    /// Always null.
    pub scopes: Option<Vec<String>>,
    /// Whether this user sees at the provider the fields that only an administrator sees.
    pub is_admin: bool,
    pub organization: Organization,
    /// The fields that are null for every user because of this token, with the reasons.
    pub unavailable_fields: Vec<Warning>,
    /// The account's `updated_at`.
    #[serde(serialize_with = "timestamp::serialize")]
    pub last_accessed_at: Timestamp,
}

/// The organization that the account belongs to.
#[derive(Serialize, ToSchema)]
pub struct Organization {
    pub remote_id: String,
    pub name: Option<String>,
}

/// Get the token's user
///
/// Returns the user behind the account's token, whether this user is an administrator, and the
/// fields that are null for every user because of the token.
#[utoipa::path(
    tag = "me",
    operation_id = "get_me",
    params(("account_id" = Option<Uuid>, Query, description = "The linked account; the header x-account-id does the same.")),
    responses((status = 200, description = "The token's person", body = MeRecord), MeErrors),
)]
#[get("/iam/me")]
pub async fn get_me(
    account: NamedAccount<IamRead>,
    request: HttpRequest,
    gateway: Data<Gateway>,
) -> Result<HttpResponse, ApiError> {
    let mut query = Query::parse(request.query_string())?;
    query.take("account_id");
    query.finish()?;
    let account = account.0.account;
    let identity = &account.identity;
    let data = Me {
        name: identity.name.clone(),
        primary_email_address: identity.email.clone(),
        user_id: format!("usr_{}", identity.user),
        remote_user_id: identity.user.to_string(),
        auth_type: EnumValue {
            value: "api_key".to_owned(),
            source_value: Some("access_token".to_owned()),
        },
        scopes: None,
        is_admin: identity.is_admin,
        organization: Organization {
            remote_id: identity.organization.to_string(),
            name: identity.organization_name.clone(),
        },
        unavailable_fields: gateway.accounts().unavailable_fields(&account).await?,
        last_accessed_at: account.updated_at,
    };
    Ok(HttpResponse::Ok().json(MeRecord { data }))
}
