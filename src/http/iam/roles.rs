//! `/iam/roles`: lists roles and reads single ones.

use actix_web::{HttpRequest, HttpResponse, get, web::Data};
use serde::Serialize;
use utoipa::ToSchema;

use super::{ListParams, ReadHeaders, RecordParams, filter::ListFilters};
use crate::{
    directory::Resource,
    gateway::Gateway,
    http::{
        caller::{IamRead, NamedAccount},
        error::ApiError,
        errors::{RecordErrors, RoleListErrors},
    },
    model::schema::{ProviderRead, Role},
};

/// A page of roles.
#[derive(Serialize, ToSchema)]
pub struct RolePage {
    /// Pass this on as `next` to get the next page; null on the last page.
    pub next: Option<String>,
    pub data: Vec<Role>,
    /// The number of roles that pass the filters, over all pages.
    pub total: u64,
    /// With `raw=true`: the requests to the provider that the records came from.
    #[schema(required = false)]
    pub raw: Option<Vec<ProviderRead>>,
}

/// One role.
#[derive(Serialize, ToSchema)]
pub struct RoleRecord {
    pub data: Role,
    /// With `raw=true`: the requests to the provider that the record came from.
    #[schema(required = false)]
    pub raw: Option<Vec<ProviderRead>>,
}

/// List roles
///
/// Lists every role that the provider has, whether or not any user has it.
#[utoipa::path(
    tag = "roles",
    operation_id = "list_roles",
    params(ListParams, ListFilters, ReadHeaders),
    responses(
        (status = 200, description = "A page of one sealed directory version", body = RolePage),
        (status = 304, description = "The caller has this page already"),
        RoleListErrors,
    ),
)]
#[get("/iam/roles")]
pub async fn list_roles(
    account: NamedAccount<IamRead>,
    request: HttpRequest,
    gateway: Data<Gateway>,
) -> Result<HttpResponse, ApiError> {
    super::list(Resource::Roles, account, &request, &gateway).await
}

/// Get a role
///
/// Finds the role by its unified or its remote id.
#[utoipa::path(
    tag = "roles",
    operation_id = "get_role",
    params(("record" = String, Path, description = "Unified or remote id"), RecordParams, ReadHeaders),
    responses(
        (status = 200, description = "The role", body = RoleRecord),
        (status = 304, description = "The caller has this record already"),
        RecordErrors,
    ),
)]
#[get("/iam/roles/{record}")]
pub async fn get_role(
    account: NamedAccount<IamRead>,
    request: HttpRequest,
    gateway: Data<Gateway>,
) -> Result<HttpResponse, ApiError> {
    super::record(Resource::Roles, account, &request, &gateway).await
}
