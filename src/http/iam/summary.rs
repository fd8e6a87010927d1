//! `GET /iam`: the summary of a directory.

use actix_web::{HttpRequest, HttpResponse, get, web::Data};
use serde::Serialize;
use utoipa::ToSchema;

use super::ReadHeaders;
use crate::{
    gateway::Gateway,
    http::{
        caller::{IamRead, NamedAccount},
        error::ApiError,
        errors::SummaryErrors,
        query::Query,
    },
    model::schema::Summary,
};

/// The answer of `GET /iam`.
#[derive(Serialize, ToSchema)]
pub struct SummaryRecord {
    pub data: Summary,
}

/// Get a summary
///
/// Returns the number of records in the account's directory, its age and state, and the fields that
/// are null for every user.
#[utoipa::path(
    tag = "summary",
    operation_id = "get_summary",
    params(
        ("account_id" = Option<Uuid>, Query, description = "The linked account; the header x-account-id does the same."),
        ReadHeaders,
    ),
    responses(
        (status = 200, description = "The directory as a whole", body = SummaryRecord),
        (status = 304, description = "The caller has this summary already, but for its age, which the header Age tells"),
        SummaryErrors,
    ),
)]
#[get("/iam")]
pub async fn get_summary(
    account: NamedAccount<IamRead>,
    request: HttpRequest,
    gateway: Data<Gateway>,
) -> Result<HttpResponse, ApiError> {
    let mut query = Query::parse(request.query_string())?;
    query.take("account_id");
    query.finish()?;
    let max_age = super::negotiation::max_age(&request)?;
    let known = super::known_etags(&request);
    let answer = gateway
        .directory()
        .summary(&account.0, max_age, |etag| super::is_known(&known, etag))
        .await?;
    Ok(super::respond(&request, &known, answer))
}
