//! Reads a form of the hub. It must come from a page of the hub, have at most 16 KiB, and carry the
//! CSRF token of this browser. Unknown fields are ignored.

use actix_web::{
    HttpRequest,
    http::header::{self, HeaderName},
    web::Payload,
};
use secrecy::{ExposeSecret, SecretString};
use url::form_urlencoded;

use super::cookie::SessionCookie;
use crate::http::body::whole;

const LARGEST: usize = 16 * 1024;

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The fields of a form. Any value may be secret.
pub struct Form(Vec<(String, SecretString)>);

impl Form {
    /// None unless a page of `origin` posted the form and its CSRF token belongs to the cookie
    /// `kept`.
    pub async fn read(
        request: &HttpRequest,
        payload: Payload,
        origin: &str,
        kept: &SessionCookie,
    ) -> Option<Self> {
        if !is_from(request, origin) || !is_form(request) {
            return None;
        }
        let body = whole(request, payload, LARGEST).await.ok()?;
        let fields = form_urlencoded::parse(&body)
            .map(|(name, value)| (name.into_owned(), value.into_owned().into()));
        let form = Self(fields.collect());
        kept.made(form.text("form_token")).then_some(form)
    }

    /// The field's value without surrounding white space, which pasting adds. Empty if the field is
    /// missing.
    pub fn text(&self, name: &str) -> &str {
        let found = self.0.iter().find(|(each, _)| each == name);
        found.map_or("", |(_, value)| value.expose_secret().trim())
    }

    pub fn secret(&self, name: &str) -> SecretString {
        self.text(name).into()
    }
}

/// Whether a page of the hub sent the request. Browsers set `Sec-Fetch-Site` and `Origin`, and a
/// page cannot change them. `Origin` is `null` from a page that sends no referrer. A request with
/// neither header passes, since the CSRF token is checked too.
fn is_from(request: &HttpRequest, origin: &str) -> bool {
    let said = |name| {
        let value = request.headers().get(name)?;
        Some(value.to_str().unwrap_or("unreadable"))
    };
    match (said(FETCH_SITE), said(header::ORIGIN)) {
        (Some("same-origin"), None | Some("null")) | (None, None) => true,
        (None | Some("same-origin"), Some(said)) => said == origin,
        (Some(_), _) => false,
    }
}

fn is_form(request: &HttpRequest) -> bool {
    let media_type = request.headers().get(header::CONTENT_TYPE);
    let media_type = media_type.and_then(|value| value.to_str().ok());
    let media_type = media_type.and_then(|value| value.split(';').next());
    media_type.is_some_and(|it| {
        it.trim()
            .eq_ignore_ascii_case("application/x-www-form-urlencoded")
    }) && !request.headers().contains_key(header::CONTENT_ENCODING)
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn a_form_is_sent_from_a_page_of_ours() {
        let is_ours = |site: Option<&str>, origin: Option<&str>| {
            let mut request = TestRequest::default();
            for (name, value) in [("sec-fetch-site", site), ("origin", origin)] {
                if let Some(value) = value {
                    request = request.insert_header((name, value));
                }
            }
            is_from(&request.to_http_request(), "https://link.example.com")
        };
        let own = Some("https://link.example.com");
        let same = Some("same-origin");
        for (site, origin) in [
            (same, own),
            (same, Some("null")),
            (same, None),
            (None, own),
            (None, None),
        ] {
            assert!(is_ours(site, origin), "{site:?} {origin:?}");
        }
        for (site, origin) in [
            (Some("cross-site"), own),
            (Some("same-site"), own),
            (Some("none"), None),
            (Some("cross-site"), None),
            (same, Some("https://evil.example")),
            (None, Some("null")),
            (None, Some("https://evil.example")),
            (None, Some("http://link.example.com")),
            (None, Some("https://link.example.com:8443")),
        ] {
            assert!(!is_ours(site, origin), "{site:?} {origin:?}");
        }
    }
}
