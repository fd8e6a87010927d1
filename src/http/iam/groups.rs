//! `/iam/groups`: lists groups and reads single ones.

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
        errors::{GroupErrors, GroupListErrors},
    },
    model::schema::{Group, ProviderRead},
};

/// A page of groups.
#[derive(Serialize, ToSchema)]
pub struct GroupPage {
    /// Pass this on as `next` to get the next page; null on the last page.
    pub next: Option<String>,
    pub data: Vec<Group>,
    /// The number of groups that pass the filters, over all pages.
    pub total: u64,
    /// With `raw=true`: the requests to the provider that the records came from.
    #[schema(required = false)]
    pub raw: Option<Vec<ProviderRead>>,
}

/// One group.
#[derive(Serialize, ToSchema)]
pub struct GroupRecord {
    pub data: Group,
    /// With `raw=true`: the requests to the provider that the record came from.
    #[schema(required = false)]
    pub raw: Option<Vec<ProviderRead>>,
}

/// List groups
///
/// Lists every group of the organization. `expand=members` includes their members.
#[utoipa::path(
    tag = "groups",
    operation_id = "list_groups",
    params(ListParams, ListFilters, ReadHeaders),
    responses(
        (status = 200, description = "A page of one sealed directory version", body = GroupPage),
        (status = 304, description = "The caller has this page already"),
        GroupListErrors,
    ),
)]
#[get("/iam/groups")]
pub async fn list_groups(
    account: NamedAccount<IamRead>,
    request: HttpRequest,
    gateway: Data<Gateway>,
) -> Result<HttpResponse, ApiError> {
    super::list(Resource::Groups, account, &request, &gateway).await
}

/// Get a group
///
/// Finds the group by its unified or its remote id.
#[utoipa::path(
    tag = "groups",
    operation_id = "get_group",
    params(("record" = String, Path, description = "Unified or remote id"), RecordParams, ReadHeaders),
    responses(
        (status = 200, description = "The group", body = GroupRecord),
        (status = 304, description = "The caller has this record already"),
        GroupErrors,
    ),
)]
#[get("/iam/groups/{record}")]
pub async fn get_group(
    account: NamedAccount<IamRead>,
    request: HttpRequest,
    gateway: Data<Gateway>,
) -> Result<HttpResponse, ApiError> {
    super::record(Resource::Groups, account, &request, &gateway).await
}
