//! `/health`: is the process alive, and may it be sent requests.

use actix_web::{HttpResponse, get, web::Data};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_actix_web::service_config::ServiceConfig;

use super::{error::ApiError, errors::HealthErrors};
use crate::gateway::Gateway;

pub fn routes(config: &mut ServiceConfig<'_>) {
    config.service(live).service(ready);
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
