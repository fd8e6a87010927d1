//! `/accounts/{id}/walks`: starts and lists walks, and releases or discards held ones.

use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, get, post, web::Data};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_actix_web::service_config::ServiceConfig;

use super::{
    caller::{AccountsRead, PathAccount, WalksWrite},
    error::ApiError,
    errors::{DecisionErrors, SuspectsErrors, WalkErrors, WalkNowErrors, WalksErrors},
    query::{PageParams, Query, not_a_cursor},
};
use crate::{
    gateway::Gateway,
    model::walks::{Suspect, Walk, WalkState},
};

pub fn routes(config: &mut ServiceConfig<'_>) {
    config
        .service(walk_now)
        .service(list_walks)
        .service(get_walk)
        .service(list_suspects)
        .service(release_walk)
        .service(discard_walk);
}

/// Walks, newest first.
#[derive(Serialize, ToSchema)]
pub struct WalkPage {
    pub data: Vec<Walk>,
    pub next: Option<String>,
}

/// The users and groups for which a walk was held.
#[derive(Serialize, ToSchema)]
pub struct SuspectPage {
    pub data: Vec<Suspect>,
    pub next: Option<String>,
}

/// Walk now
///
/// Joins a waiting walk that has not called the provider yet, or requests another one, so the
/// result is never older than the request. A body is ignored.
#[utoipa::path(
    tag = "walks",
    operation_id = "walk_now",
    params(
        ("id" = Uuid, Path, description = "The account's id"),
        ("wait" = Option<u64>, Query, minimum = 0, maximum = 60, description = "Seconds to wait for the walk's end, 0 by default."),
        ("full" = Option<bool>, Query, description = "Read the members of every group again."),
    ),
    responses(
        (status = 200, description = "The walk has ended", body = Walk),
        (status = 202, description = "The walk is still running", body = Walk),
        WalkNowErrors,
    ),
)]
#[post("/accounts/{id}/walks")]
pub async fn walk_now(
    account: PathAccount<WalksWrite>,
    request: HttpRequest,
    gateway: Data<Gateway>,
) -> Result<HttpResponse, ApiError> {
    let mut query = Query::parse(request.query_string())?;
    let wait = query.take_number("wait", 0..=60)?.unwrap_or(0);
    let full = query.take_bool("full")?.unwrap_or(false);
    query.finish()?;
    let walk = gateway
        .walks()
        .walk_now(&account.0, full, Duration::from_secs(wait))
        .await?;
    let mut answer = match walk.state {
        WalkState::Running => HttpResponse::Accepted(),
        WalkState::Sealed | WalkState::Held | WalkState::Failed => HttpResponse::Ok(),
    };
    Ok(answer.json(walk))
}

/// List walks
///
/// Lists the recent walks of an account, newest first, with their results.
#[utoipa::path(
    tag = "walks",
    operation_id = "list_walks",
    params(
        ("id" = Uuid, Path, description = "The account's id"),
        ("page_size" = Option<u64>, Query, minimum = 1, maximum = 100, description = "Walks per page, 25 by default."),
        ("next" = Option<String>, Query, max_length = 1024, description = "`next` of the page before."),
    ),
    responses((status = 200, description = "Walks, newest first", body = WalkPage), WalksErrors),
)]
#[get("/accounts/{id}/walks")]
pub async fn list_walks(
    account: PathAccount<AccountsRead>,
    request: HttpRequest,
    gateway: Data<Gateway>,
) -> Result<HttpResponse, ApiError> {
    let page = PageParams::parse(request.query_string())?;
    let cursors = account.0.list_cursors("walks");
    let walks = gateway
        .walks()
        .list(&account.0, page.after(&cursors)?, page.reach())
        .await?;
    let (data, next) = page.cut(walks, &cursors, |walk| walk.id.to_string());
    Ok(HttpResponse::Ok().json(WalkPage { data, next }))
}

/// Get a walk
///
/// Returns a walk in any state, also one that is waiting or running.
#[utoipa::path(
    tag = "walks",
    operation_id = "get_walk",
    params(
        ("id" = Uuid, Path, description = "The account's id"),
        ("walk" = Uuid, Path, description = "The walk's id"),
    ),
    responses((status = 200, description = "The walk", body = Walk), WalkErrors),
)]
#[get("/accounts/{id}/walks/{walk}")]
pub async fn get_walk(
    account: PathAccount<AccountsRead>,
    request: HttpRequest,
    gateway: Data<Gateway>,
) -> Result<HttpResponse, ApiError> {
    Query::parse(request.query_string())?.finish()?;
    Ok(HttpResponse::Ok().json(gateway.walks().walk(&account.0, walk_id(&request)).await?))
}

/// List suspects
///
/// Lists the users and groups for which a held walk was held, each with the reason.
#[utoipa::path(
    tag = "walks",
    operation_id = "list_suspects",
    params(
        ("id" = Uuid, Path, description = "The account's id"),
        ("walk" = Uuid, Path, description = "The walk's id"),
        ("page_size" = Option<u64>, Query, minimum = 1, maximum = 100, description = "Suspects per page, 25 by default."),
        ("next" = Option<String>, Query, max_length = 1024, description = "`next` of the page before."),
    ),
    responses((status = 200, description = "Suspects", body = SuspectPage), SuspectsErrors),
)]
#[get("/accounts/{id}/walks/{walk}/suspects")]
pub async fn list_suspects(
    account: PathAccount<AccountsRead>,
    request: HttpRequest,
    gateway: Data<Gateway>,
) -> Result<HttpResponse, ApiError> {
    let page = PageParams::parse(request.query_string())?;
    // The same UUID in upper case names the same list.
    let list = format!("walks/{}/suspects", walk_id(&request).to_ascii_lowercase());
    let cursors = account.0.list_cursors(&list);
    let from: usize = page.after(&cursors)?.unwrap_or(0);
    let suspects = gateway
        .walks()
        .suspects(&account.0, walk_id(&request))
        .await?;
    let end = from.saturating_add(page.size()).min(suspects.len());
    let data = suspects.get(from..end).ok_or_else(not_a_cursor)?.to_vec();
    let next = (end < suspects.len()).then(|| cursors.to_text(&end.to_string()));
    Ok(HttpResponse::Ok().json(SuspectPage { data, next }))
}

/// Release a held walk
///
/// Accepts the result of the walk: it becomes the account's current directory.
#[utoipa::path(
    tag = "walks",
    operation_id = "release_walk",
    params(
        ("id" = Uuid, Path, description = "The account's id"),
        ("walk" = Uuid, Path, description = "The walk's id"),
    ),
    responses((status = 200, description = "The walk, now sealed", body = Walk), DecisionErrors),
)]
#[post("/accounts/{id}/walks/{walk}/release")]
pub async fn release_walk(
    account: PathAccount<WalksWrite>,
    request: HttpRequest,
    gateway: Data<Gateway>,
) -> Result<HttpResponse, ApiError> {
    Query::parse(request.query_string())?.finish()?;
    Ok(HttpResponse::Ok().json(
        gateway
            .walks()
            .release(&account.0, walk_id(&request))
            .await?,
    ))
}

/// Discard a held walk
///
/// Rejects the result of the walk: the current directory stays.
#[utoipa::path(
    tag = "walks",
    operation_id = "discard_walk",
    params(
        ("id" = Uuid, Path, description = "The account's id"),
        ("walk" = Uuid, Path, description = "The walk's id"),
    ),
    responses((status = 200, description = "The walk, now failed with reason `discarded`", body = Walk), DecisionErrors),
)]
#[post("/accounts/{id}/walks/{walk}/discard")]
pub async fn discard_walk(
    account: PathAccount<WalksWrite>,
    request: HttpRequest,
    gateway: Data<Gateway>,
) -> Result<HttpResponse, ApiError> {
    Query::parse(request.query_string())?.finish()?;
    Ok(HttpResponse::Ok().json(
        gateway
            .walks()
            .discard(&account.0, walk_id(&request))
            .await?,
    ))
}

fn walk_id(request: &HttpRequest) -> &str {
    request.match_info().get("walk").unwrap_or_default()
}
