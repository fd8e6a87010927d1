//! What a process says of itself, to whoever asks: `/health`, is it alive, and may it be sent
//! requests; `/metrics`, its work in numbers.

use actix_web::{HttpResponse, get, http::header, web::Data};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_actix_web::service_config::ServiceConfig;

use super::{error::ApiError, errors::HealthErrors};
use crate::{gateway::Gateway, model::availability::Availability};

pub fn routes(config: &mut ServiceConfig<'_>) {
    config.service(live).service(ready).service(metrics);
}

/// A process's word about itself.
#[derive(Serialize, ToSchema)]
pub struct Health {
    /// `ok`; or `degraded` while reads are served and the store is not fully available.
    #[schema(example = "ok")]
    pub status: &'static str,
    /// Why it is degraded: `read_only` if the store answers and nothing can be written,
    /// `unreachable` if it does not answer and reads are served from memory.
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
/// Answers as long as the process can answer at all.
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
/// Answers 200 while requests should be sent here, also where the store takes no writes or does not
/// answer, as long as reads are served: `status` is `degraded` then. Answers 503 before the first
/// successful start, once a stop has begun, and when neither the store nor memory can serve.
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
    gateway.must_show_metrics()?;
    Ok(metrics_page(&gateway).await)
}

/// The same, on a listener of its own.
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
