//! What a process says of itself, to whoever asks: `/health`, is it alive, and may it be sent
//! requests; `/metrics`, its work in numbers.

use actix_web::{HttpResponse, get, http::header, web::Data};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_actix_web::service_config::ServiceConfig;

use super::{error::ApiError, errors::HealthErrors};
use crate::gateway::Gateway;

pub fn routes(config: &mut ServiceConfig<'_>) {
    config.service(live).service(ready).service(metrics);
}

/// A process's word about itself.
#[derive(Serialize, ToSchema)]
pub struct Health {
    #[schema(example = "ok")]
    pub status: &'static str,
}

/// Alive
///
/// Answers as long as the process can answer at all.
#[utoipa::path(
    tag = "health",
    operation_id = "health_live",
    security(()),
    responses((status = 200, description = "The process is alive", body = Health)),
)]
#[get("/health/live")]
pub async fn live() -> HttpResponse {
    HttpResponse::Ok().json(Health { status: "ok" })
}

/// Ready
///
/// Answers 200 while requests should be sent here: the store answers, and no stop has begun.
#[utoipa::path(
    tag = "health",
    operation_id = "health_ready",
    security(()),
    responses((status = 200, description = "Requests may be sent here", body = Health), HealthErrors),
)]
#[get("/health/ready")]
pub async fn ready(gateway: Data<Gateway>) -> Result<HttpResponse, ApiError> {
    gateway.ready().await?;
    Ok(HttpResponse::Ok().json(Health { status: "ok" }))
}

/// Metrics
///
/// The work of this process in numbers, in the text format of Prometheus. They hold nobody's name
/// and need no key; an operator may switch them off, and then this is 404 `route_not_found`.
#[utoipa::path(
    tag = "health",
    operation_id = "metrics",
    security(()),
    responses((
        status = 200,
        description = "Every metric with its series",
        content_type = "text/plain",
        body = String,
        example = "# TYPE rolecall_accounts gauge\nrolecall_accounts{state=\"active\"} 2\n",
    )),
)]
#[get("/metrics")]
pub async fn metrics(gateway: Data<Gateway>) -> Result<HttpResponse, ApiError> {
    let page = gateway.metrics_page().await?;
    Ok(HttpResponse::Ok()
        .content_type("text/plain; version=0.0.4; charset=utf-8")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .body(page))
}
