//! The only place that knows actix-web: every route once, who may call it, and how answers and
//! errors travel.
//!
//! The lists in [`configure`] are the table of contents. The OpenAPI document is collected from
//! the same lists, so nothing is served undocumented.
//!
//! * [`caller`]: who calls and on which account; [`query`], [`body`], [`moment`]: what they ask, read
//!   strictly.
//! * [`iam`], [`accounts`], [`connectors`], [`walks`], [`api_keys`], [`health`]: the routes.
//! * [`error`], [`errors`], [`answer`], [`quota`]: the error table, its place in the document, and
//!   what every answer has in common.

use actix_web::{HttpResponse, get, web, web::Data};
use utoipa::{
    OpenApi,
    openapi::{
        OpenApi as Document,
        path::Operation,
        security::{
            ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityRequirement, SecurityScheme,
        },
    },
};
use utoipa_actix_web::{AppExt, scope, service_config::ServiceConfig};
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::error::{Error, Kind};

pub mod accounts;
pub mod answer;
pub mod api_keys;
pub mod body;
pub mod caller;
pub mod connectors;
pub mod error;
pub mod errors;
pub mod health;
pub mod iam;
pub mod moment;
pub mod query;
pub mod quota;
pub mod routes;
pub mod walks;

use error::ApiError;
use routes::RouteTable;

/// Everything that is served, but for the document itself and its pages.
pub fn configure(config: &mut ServiceConfig<'_>) {
    config
        .configure(iam::routes)
        .configure(accounts::routes)
        .configure(connectors::routes)
        .configure(walks::routes)
        .configure(api_keys::routes)
        .configure(health::routes);
}

/// The same `/iam` routes once more, where StackOne's clients look for them.
fn unified(config: &mut ServiceConfig<'_>) {
    config.service(scope::scope("/unified").configure(iam::routes));
}

/// What is not under a scope of its own: the document, its pages, and the answer to any other path.
pub fn mount(config: &mut web::ServiceConfig, document: &Document) {
    let routes = RouteTable::of(document);
    config
        .app_data(Data::new(routes))
        .app_data(Data::new(DocumentText::of(document)));
    config.service(openapi_json);
    configure(&mut ServiceConfig::new(config));
    unified(&mut ServiceConfig::new(config));
    let pages = Config::from("/openapi.json")
        .persist_authorization(true)
        .try_it_out_enabled(true)
        .default_models_expand_depth(0);
    config.service(SwaggerUi::new("/swagger-ui/{_:.*}").config(pages));
    config.service(web::redirect("/swagger-ui", "/swagger-ui/"));
    config.default_service(web::to(nothing_here));
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Rolecall",
        description = "A self-hosted identity gateway: the users, roles and groups of linked \
            accounts, as one clean directory that never shows a partial reading.\n\n\
            Every route under `/iam` is served under `/unified/iam` too, for clients of StackOne's \
            Unified IAM API."
    ),
    servers((url = "/", description = "This server")),
    security(("api_key" = [])),
    tags(
        (name = "summary", description = "The directory as a whole"),
        (name = "users", description = "People, guests, and outsiders in groups"),
        (name = "roles", description = "What people may do"),
        (name = "groups", description = "Who belongs together"),
        (name = "policies", description = "Asked for by StackOne's clients; no provider here has them"),
        (name = "me", description = "Whose token an account works with"),
        (name = "accounts", description = "Linked accounts"),
        (name = "connectors", description = "Providers that accounts can be linked at"),
        (name = "walks", description = "Whole reads of a provider's directory"),
        (name = "api_keys", description = "What downstream systems call with"),
        (name = "health", description = "The process itself"),
    )
)]
struct Base;

/// The OpenAPI document of everything that is served.
pub fn document() -> Document {
    let (_, mut document) = actix_web::App::new()
        .into_utoipa_app()
        .openapi(Base::openapi())
        .configure(configure)
        .split_for_parts();
    let components = document.components.get_or_insert_default();
    components.schemas.extend(errors::error_schemas());
    components.add_security_scheme(
        "api_key",
        SecurityScheme::Http(
            Http::builder()
                .scheme(HttpAuthScheme::Bearer)
                .description(Some("An API key, such as `rolecall demo` prints."))
                .build(),
        ),
    );
    components.add_security_scheme(
        "linked_account",
        SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::with_description(
            "x-account-id",
            "The id of a linked account, as `GET /accounts` lists them. Routes under `/iam` need \
             it; the query parameter `account_id` does the same.",
        ))),
    );
    for (path, item) in &mut document.paths.paths {
        if path.starts_with("/iam") {
            let operations = [&mut item.get, &mut item.patch, &mut item.delete];
            operations.into_iter().flatten().for_each(names_an_account);
        }
    }
    quota::document(&mut document);
    document
}

/// A key and an account; or a key alone, where the account is in the query.
fn names_an_account(operation: &mut Operation) {
    let key = || SecurityRequirement::new("api_key", [""; 0]);
    operation.security = Some(vec![key().add("linked_account", [""; 0]), key()]);
}

/// The document as it is sent.
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
                query::shown(request.method().as_str())
            ),
        )
    };
    Err(error.into())
}
