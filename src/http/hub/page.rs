//! How a page is sent: what it may do in a browser, and that nobody keeps it.

use actix_web::{
    HttpResponse,
    http::{StatusCode, header},
};
use askama::Template;

use crate::error::Error;

/// A page of the hub.
pub trait HubPage: Template {
    fn status(&self) -> StatusCode {
        StatusCode::OK
    }

    /// Origins beside our own that a form of this page may lead to: a sign-in at the provider begins
    /// with one of ours, and browsers hold the redirect to what the page says, too.
    fn form_origins(&self) -> Vec<&str> {
        Vec::new()
    }

    /// Whether its script asks us how things stand.
    fn polls(&self) -> bool {
        false
    }
}

/// The page as an answer.
///
/// # Errors
/// `internal`, if it could not be written out.
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

/// What the page may do: nothing but what is named.
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
