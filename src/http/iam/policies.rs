//! `/iam/policies`: part of StackOne's API. No provider here has policies, so it answers 501.

use actix_web::{get, web::Data};

use super::{ListParams, RecordParams};
use crate::{
    error::{Error, Kind, Result},
    gateway::Gateway,
    http::{
        caller::{IamRead, NamedAccount},
        error::ApiError,
        errors::PolicyErrors,
    },
};

/// List policies
///
/// Not offered: the linked provider has no policies. `GET /iam/roles` lists its roles.
#[utoipa::path(
    tag = "policies",
    operation_id = "list_policies",
    params(ListParams),
    responses(PolicyErrors)
)]
#[get("/iam/policies")]
pub async fn list_policies(
    account: NamedAccount<IamRead>,
    gateway: Data<Gateway>,
) -> Result<&'static str, ApiError> {
    Err(not_offered(&account, &gateway).into())
}

/// Get a policy
///
/// Not offered: the linked provider has no policies. `GET /iam/roles` lists its roles.
#[utoipa::path(
    tag = "policies",
    operation_id = "get_policy",
    params(("record" = String, Path, description = "Unified or remote id"), RecordParams),
    responses(PolicyErrors),
)]
#[get("/iam/policies/{record}")]
pub async fn get_policy(
    account: NamedAccount<IamRead>,
    gateway: Data<Gateway>,
) -> Result<&'static str, ApiError> {
    Err(not_offered(&account, &gateway).into())
}

fn not_offered(account: &NamedAccount<IamRead>, gateway: &Gateway) -> Error {
    let provider = &account.0.account.provider;
    let name = gateway.provider_name(provider).unwrap_or(provider);
    Error::new(Kind::PoliciesNotOffered, format!("{name} has no policies"))
}
