//! The paths of the hub's pages. The pages are for people and not part of the API, so the OpenAPI
//! document leaves them out.

use actix_web::{
    HttpResponse, get,
    http::header,
    middleware::from_fn,
    web::{self, Data, ServiceConfig},
};

use super::{
    callback,
    context::{self, HubContext, see_other},
    cookie::{SessionCookie, is_secret},
    error_page::Problem,
    link_methods,
    refusal::Refusal,
    result_pages,
    theme::Theme,
};
use crate::error::Error;

/// Every path, for the label `route` of the metrics.
pub const PAGES: [&str; 11] = [
    "/connect",
    "/connect/{token}",
    "/connect/sign-in",
    "/connect/app",
    "/connect/token",
    "/connect/oauth2/{callback}/callback",
    "/connect/review",
    "/connect/progress",
    "/connect/progress.json",
    "/connect/done",
    "/connect/assets/{name}",
];

pub fn pages(config: &mut ServiceConfig) {
    let scope = web::scope("/connect")
        .wrap(from_fn(context::finish))
        .service(link_methods::start_page)
        .service(link_methods::begin_sign_in)
        .service(link_methods::token_page)
        .service(link_methods::bring_token)
        .service(link_methods::own_app_page)
        .service(link_methods::begin_own_app)
        .service(callback::came_back)
        .service(result_pages::review_page)
        .service(result_pages::decide)
        .service(result_pages::progress_page)
        .service(result_pages::progress_json)
        .service(result_pages::done_page)
        .service(asset)
        .service(open)
        .default_service(web::to(nothing_here));
    config.service(scope);
}

/// `GET /connect/{token}`: opens a connect session without changing it. Moves the link token from
/// the URL into the cookie and redirects to `/connect`.
#[get("/{token}")]
async fn open(context: HubContext) -> Result<HttpResponse, Refusal> {
    let token = context
        .request
        .match_info()
        .get("token")
        .unwrap_or_default();
    if !is_secret(token) {
        return Err(Problem::InvitationUnknown.into());
    }
    let token = token.into();
    let session = context
        .gateway
        .connect_sessions()
        .connect_session(&token)
        .await?;
    context.check_open(&session)?;
    // A browser that has a secret keeps it: its draft is bound to that secret.
    let browser = context.kept().map(|kept| kept.browser);
    let browser = browser.unwrap_or_else(|| context.gateway.connect_sessions().new_browser());
    let left = session
        .expires_at
        .duration_since(context.gateway.clock().now());
    let cookie = SessionCookie { token, browser }.cookie(context.is_secure(), left.as_secs());
    let mut answer = see_other("/connect");
    answer.add_cookie(&cookie).map_err(Error::internal)?;
    Ok(answer)
}

/// `GET /connect/assets/{name}`: a static file. Its name contains a hash of its content, so
/// browsers may cache it for a year. The policy `sandbox` stops scripts in an SVG logo that is
/// opened on its own.
#[get("/assets/{name}")]
async fn asset(context: HubContext, theme: Data<Theme>) -> Result<HttpResponse, Refusal> {
    let name = context.request.match_info().get("name").unwrap_or_default();
    let asset = theme.asset(name).ok_or(Problem::InvitationUnknown)?;
    Ok(HttpResponse::Ok()
        .content_type(asset.media_type)
        .insert_header((header::CACHE_CONTROL, "public, max-age=31536000, immutable"))
        .insert_header((
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; sandbox",
        ))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .body(asset.bytes.clone()))
}

async fn nothing_here() -> Result<HttpResponse, Refusal> {
    Err(Problem::InvitationUnknown.into())
}
