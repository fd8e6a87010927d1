//! Renders a page as a response. The headers forbid caching and limit the page's rights in a
//! browser.

use actix_web::{
    HttpResponse,
    http::{StatusCode, header},
};
use askama::Template;

use crate::error::Error;

/// A page of the hub, with the properties that its response headers depend on.
pub trait HubPage: Template {
    fn status(&self) -> StatusCode {
        StatusCode::OK
    }

    /// Other origins that a form of this page may lead to. A sign-in form is posted to the hub,
    /// which redirects to the provider, and browsers apply `form-action` to that redirect too.
    fn form_origins(&self) -> Vec<&str> {
        Vec::new()
    }

    /// Whether the page's script polls the hub.
    fn polls(&self) -> bool {
        false
    }
}

/// Renders the page.
///
/// # Errors
/// `internal`, if the template fails.
pub fn answer(page: &impl HubPage) -> Result<HttpResponse, Error> {
    let html = page.render().map_err(Error::internal)?;
    Ok(HttpResponse::build(page.status())
        .content_type("text/html; charset=utf-8")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header((header::CONTENT_SECURITY_POLICY, policy(page)))
        .insert_header((header::REFERRER_POLICY, "no-referrer"))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((header::X_FRAME_OPTIONS, "DENY"))
        .body(html))
}

/// The content security policy, which forbids everything that it does not list.
fn policy(page: &impl HubPage) -> String {
    let mut forms = vec!["'self'"];
    for origin in page.form_origins() {
        if !forms.contains(&origin) {
            forms.push(origin);
        }
    }
    let forms = forms.join(" ");
    let polling = if page.polls() {
        "connect-src 'self'; "
    } else {
        ""
    };
    format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
         {polling}form-action {forms}; frame-ancestors 'none'; base-uri 'none'"
    )
}
