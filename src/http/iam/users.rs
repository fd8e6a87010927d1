//! `/iam/users`: lists users and reads single ones. Updating or deleting a user answers 501.

use actix_web::{HttpRequest, HttpResponse, delete, get, patch, web::Data};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    ListParams, ReadHeaders, RecordParams,
    filter::{ListFilters, UserFilters},
};
use crate::{
    directory::Resource,
    error::{Error, Kind},
    gateway::Gateway,
    http::{
        caller::{IamRead, NamedAccount},
        error::ApiError,
        errors::{RecordErrors, UserListErrors, WriteErrors},
    },
    model::schema::{ProviderRead, User},
};

/// A page of users.
#[derive(Serialize, ToSchema)]
pub struct UserPage {
    /// Pass this on as `next` to get the next page; null on the last page.
    pub next: Option<String>,
    pub data: Vec<User>,
    /// The number of users that pass the filters, over all pages.
    pub total: u64,
    /// With `raw=true`: the requests to the provider that the records came from.
    #[schema(required = false)]
    pub raw: Option<Vec<ProviderRead>>,
}

/// One user.
#[derive(Serialize, ToSchema)]
pub struct UserRecord {
    pub data: User,
    /// With `raw=true`: the requests to the provider that the record came from.
    #[schema(required = false)]
    pub raw: Option<Vec<ProviderRead>>,
}

/// List users
///
/// Lists every user that the account can see: the organization's users and guests, and the external
/// members of its groups.
#[utoipa::path(
    tag = "users",
    operation_id = "list_users",
    params(ListParams, ListFilters, UserFilters, ReadHeaders),
    responses(
        (status = 200, description = "A page of one sealed directory version", body = UserPage),
        (status = 304, description = "The caller has this page already"),
        UserListErrors,
    ),
)]
#[get("/iam/users")]
pub async fn list_users(
    account: NamedAccount<IamRead>,
    request: HttpRequest,
    gateway: Data<Gateway>,
) -> Result<HttpResponse, ApiError> {
    super::list(Resource::Users, account, &request, &gateway).await
}

/// Get a user
///
/// Finds the user by its unified or its remote id.
#[utoipa::path(
    tag = "users",
    operation_id = "get_user",
    params(("record" = String, Path, description = "Unified or remote id"), RecordParams, ReadHeaders),
    responses(
        (status = 200, description = "The user", body = UserRecord),
        (status = 304, description = "The caller has this record already"),
        RecordErrors,
    ),
)]
#[get("/iam/users/{record}")]
pub async fn get_user(
    account: NamedAccount<IamRead>,
    request: HttpRequest,
    gateway: Data<Gateway>,
) -> Result<HttpResponse, ApiError> {
    super::record(Resource::Users, account, &request, &gateway).await
}

/// Update a user
///
/// Not offered: Rolecall only reads. The body is ignored.
#[utoipa::path(
    tag = "users",
    operation_id = "update_user",
    params(
        ("record" = String, Path, description = "Unified or remote id"),
        ("account_id" = Option<Uuid>, Query, description = "The linked account; the header x-account-id does the same."),
    ),
    responses(WriteErrors),
)]
#[patch("/iam/users/{record}")]
pub async fn update_user(_account: NamedAccount<IamRead>) -> Result<&'static str, ApiError> {
    Err(not_offered().into())
}

/// Delete a user
///
/// Not offered: Rolecall only reads.
#[utoipa::path(
    tag = "users",
    operation_id = "delete_user",
    params(
        ("record" = String, Path, description = "Unified or remote id"),
        ("account_id" = Option<Uuid>, Query, description = "The linked account; the header x-account-id does the same."),
    ),
    responses(WriteErrors),
)]
#[delete("/iam/users/{record}")]
pub async fn delete_user(_account: NamedAccount<IamRead>) -> Result<&'static str, ApiError> {
    Err(not_offered().into())
}

fn not_offered() -> Error {
    Error::new(
        Kind::WritesNotOffered,
        "users are read here and not written",
    )
}
