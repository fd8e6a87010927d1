//! `/health` and `/metrics`, which need no key: whether this process is alive, whether it is ready
//! for requests, and its metrics.

use actix_web::{HttpResponse, get, http::header, web::Data};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_actix_web::service_config::ServiceConfig;

use super::{error::ApiError, errors::HealthErrors};
use crate::{gateway::Gateway, model::availability::Availability};

pub fn routes(config: &mut ServiceConfig<'_>) {
    config.service(live).service(ready).service(metrics);
}

/// The health of a process.
#[derive(Serialize, ToSchema)]
pub struct Health {
    /// `ok`, or `degraded` while reads are served but the store is not fully available.
    #[schema(example = "ok")]
    pub status: &'static str,
    /// Why it is degraded: `read_only` if the store answers but accepts no writes, `unreachable` if
    /// the store does not answer and reads are served from memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "read_only")]
    pub store: Option<&'static str>,
}

const OK: Health = Health {
    status: "ok",
    store: None,
};

/// Alive
///
/// Answers 200 as long as the process can answer at all.
#[utoipa::path(
    tag = "health",
    operation_id = "health_live",
    security(()),
    responses((status = 200, description = "The process is alive", body = Health)),
)]
#[get("/health/live")]
pub async fn live() -> HttpResponse {
    HttpResponse::Ok().json(OK)
}

/// Ready
///
/// Answers 200 while the process is ready for requests. It is ready even if the store accepts no
/// writes or does not answer, as long as it can serve reads: `status` is then `degraded`. Answers
/// 503 before the first successful start, once shutdown has begun, and when neither the store nor
/// memory can serve reads.
#[utoipa::path(
    tag = "health",
    operation_id = "health_ready",
    security(()),
    responses((status = 200, description = "Requests may be sent here", body = Health), HealthErrors),
)]
#[get("/health/ready")]
pub async fn ready(gateway: Data<Gateway>) -> Result<HttpResponse, ApiError> {
    let health = match gateway.ready().await? {
        Availability::Writable => OK,
        state => Health {
            status: "degraded",
            store: Some(state.as_str()),
        },
    };
    Ok(HttpResponse::Ok().json(health))
}

/// Metrics
///
/// Returns the metrics of this process in the text format of Prometheus. They contain no personal
/// data and need no key. The operator can switch this route off; it then answers 404
/// `route_not_found`.
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
    gateway.require_metrics_enabled()?;
    Ok(metrics_page(&gateway).await)
}

/// The same metrics, for the separate metrics listener.
#[get("/metrics")]
pub async fn metrics_apart(gateway: Data<Gateway>) -> HttpResponse {
    metrics_page(&gateway).await
}

async fn metrics_page(gateway: &Gateway) -> HttpResponse {
    let page = gateway.metrics_page().await;
    HttpResponse::Ok()
        .content_type("text/plain; version=0.0.4; charset=utf-8")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .body(page)
}
