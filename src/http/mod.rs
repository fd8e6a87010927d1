//! The HTTP layer: routes, extractors, responses and the server. Besides `app`, only this module
//! uses actix-web.
//!
//! [`configure`] lists every route of the API once. The OpenAPI document is collected from the same
//! lists, so every route of the API is documented. The hub's pages are for people and not in the
//! document ([`hub::routes`] lists them).
//!
//! * [`caller`], [`query`], [`body`], [`timestamp`]: extractors and strict parsers of requests.
//! * [`iam`], [`accounts`], [`connect_sessions`], [`connector_profiles`], [`authorizations`],
//!   [`connectors`], [`walks`], [`api_keys`], [`audit_log`], [`health`]: the routes.
//! * [`hub`]: the pages on which a customer links an account.
//! * [`error`], [`errors`]: the table of errors, and their place in the document.
//! * [`middleware`], [`rate_limit`], `access_log`, `metrics`: the parts that all responses share.
//! * [`server`], `connection`: listeners, workers and the limits of connections.
//! * [`document()`], [`routes`]: the OpenAPI document, and the methods of each path.

use actix_web::{
    HttpResponse, get,
    http::header::{self, HeaderMap, HeaderValue},
    web,
    web::Data,
};
use utoipa::openapi::OpenApi as Document;
use utoipa_actix_web::{scope, service_config::ServiceConfig};
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::{
    error::{Error, Kind, quoted},
    telemetry::Metrics,
};

mod access_log;
pub mod accounts;
pub mod api_keys;
pub mod audit_log;
pub mod authorizations;
pub mod body;
pub mod caller;
mod chunked;
pub mod connect_sessions;
mod connection;
pub mod connector_profiles;
pub mod connectors;
mod document;
pub mod error;
pub mod errors;
pub mod health;
pub mod hub;
pub mod iam;
mod metrics;
pub mod middleware;
pub mod query;
pub mod rate_limit;
pub mod routes;
pub mod server;
pub mod timestamp;
pub mod walks;

use self::metrics::Meters;
use access_log::AccessLog;
pub use document::document;
use error::ApiError;
use hub::theme::Theme;
use routes::RouteTable;

/// Every route of the API.
pub fn configure(config: &mut ServiceConfig<'_>) {
    config
        .configure(iam::routes)
        .configure(accounts::routes)
        .configure(connect_sessions::routes)
        .configure(connector_profiles::routes)
        .configure(authorizations::routes)
        .configure(connectors::routes)
        .configure(walks::routes)
        .configure(api_keys::routes)
        .configure(audit_log::routes)
        .configure(health::routes);
}

/// The `/iam` routes once more, under `/unified`, where StackOne's clients look for them.
fn unified(config: &mut ServiceConfig<'_>) {
    config.service(scope::scope("/unified").configure(iam::routes));
}

/// Mounts the whole server except for Swagger UI: the API, the hub's pages in the given `theme`,
/// the OpenAPI document, and the answer to any other path. Requests are counted in `metrics`.
pub fn mount(
    config: &mut web::ServiceConfig,
    document: &Document,
    metrics: &Metrics,
    theme: &Data<Theme>,
) {
    let routes = RouteTable::of(document);
    config
        .app_data(Data::new(routes))
        .app_data(Data::new(Meters::of(document, metrics)))
        .app_data(Data::new(AccessLog::default()))
        .app_data(Data::new(DocumentText::of(document)));
    config.service(openapi_json);
    config.app_data(theme.clone()).configure(hub::routes::pages);
    configure(&mut ServiceConfig::new(config));
    unified(&mut ServiceConfig::new(config));
    config.default_service(web::to(nothing_here));
}

/// Mounts Swagger UI, in which the API can be tried out.
pub fn mount_swagger_ui(config: &mut web::ServiceConfig) {
    let pages = Config::from("/openapi.json")
        // Swagger UI forgets a key when its page is closed.
        .persist_authorization(false)
        .try_it_out_enabled(true)
        .default_models_expand_depth(0);
    config.service(SwaggerUi::new("/swagger-ui/{_:.*}").config(pages));
    config.service(web::redirect("/swagger-ui", "/swagger-ui/"));
}

/// Adds the hub's security headers to the pages of Swagger UI: no other site may frame them, and
/// they load nothing from elsewhere.
fn guard_swagger_ui(path: &str, headers: &mut HeaderMap) {
    // Swagger UI sets inline styles, so they must be allowed.
    const POLICY: HeaderValue = HeaderValue::from_static(
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
         img-src 'self' data:; connect-src 'self'; form-action 'none'; frame-ancestors 'none'; \
         base-uri 'none'",
    );
    if path.starts_with("/swagger-ui") {
        headers.insert(header::CONTENT_SECURITY_POLICY, POLICY);
        headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
        headers.insert(
            header::REFERRER_POLICY,
            HeaderValue::from_static("no-referrer"),
        );
    }
}

/// Mounts the separate metrics listener: the metrics, and the answer to any other path.
pub fn mount_metrics(config: &mut web::ServiceConfig, document: &Document, metrics: &Metrics) {
    config
        .app_data(Data::new(RouteTable::of(document)))
        .app_data(Data::new(Meters::of(document, metrics)))
        .app_data(Data::new(AccessLog::default()))
        .service(health::metrics_apart)
        .default_service(web::to(not_served_apart));
}

async fn not_served_apart() -> Result<HttpResponse, ApiError> {
    let message = "only GET /metrics is served at this address";
    Err(Error::new(Kind::RouteNotFound, message).into())
}

/// The OpenAPI document, serialized once.
struct DocumentText(web::Bytes);

impl DocumentText {
    fn of(document: &Document) -> Self {
        let text = document.to_json().expect("the document is plain data");
        Self(text.into())
    }
}

#[get("/openapi.json")]
async fn openapi_json(text: Data<DocumentText>) -> HttpResponse {
    HttpResponse::Ok()
        .content_type("application/json")
        .body(text.0.clone())
}

async fn nothing_here(
    request: actix_web::HttpRequest,
    routes: Data<RouteTable>,
) -> Result<HttpResponse, ApiError> {
    let error = if routes.methods(request.path()).is_empty() {
        Error::new(Kind::RouteNotFound, "nothing is served at this path")
    } else {
        Error::new(
            Kind::MethodNotAllowed,
            format!(
                "{} is not served at this path",
                quoted(request.method().as_str())
            ),
        )
    };
    Err(error.into())
}
