//! `/iam/me`: whose token the account works with, and what that costs.

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

/// Who the account's token is.
#[derive(Serialize, ToSchema)]
pub struct MeRecord {
    pub data: Me,
}

/// The person behind the account's token, and what the token may see.
#[derive(Serialize, ToSchema)]
pub struct Me {
    pub name: Option<String>,
    pub primary_email_address: Option<String>,
    /// The unified id of this person in `/iam/users`.
    pub user_id: String,
    pub remote_user_id: String,
    /// `api_key`: a personal access token.
    pub auth_type: EnumValue<String>,
    /// The scopes of an OAuth token; null for a personal token, which has all rights of its user.
    pub scopes: Option<Vec<String>>,
    /// Whether the provider shows this person what only an administrator sees.
    pub is_admin: bool,
    pub organization: Organization,
    /// The fields that are null for everybody because of this token, and why.
    pub unavailable_fields: Vec<Warning>,
    /// When the provider last said so.
    #[serde(serialize_with = "timestamp::serialize")]
    pub last_accessed_at: Timestamp,
}

/// The organisation that the account belongs to.
#[derive(Serialize, ToSchema)]
pub struct Organization {
    pub remote_id: String,
    pub name: Option<String>,
}

/// Get the token's person
///
/// Tells whose token the account works with, whether it is an administrator's, and which fields
/// are null for everybody if it is not.
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
            remote_id: identity.organisation.to_string(),
            name: identity.organisation_name.clone(),
        },
        unavailable_fields: gateway.accounts().unavailable_fields(&account).await?,
        last_accessed_at: account.updated_at,
    };
    Ok(HttpResponse::Ok().json(MeRecord { data }))
}
