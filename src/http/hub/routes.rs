//! Where the hub's pages are. They are for people and no part of the API, so its document does not
//! have them.

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

/// Every path, for the metrics.
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

/// `GET /connect/{token}`: an invitation is opened, which changes nothing of it. The token goes into
/// a cookie, and out of the address.
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

/// `GET /connect/assets/{name}`: named by its content, and so good for ever. A picture that is
/// opened by itself may do nothing.
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
