//! The hub's cookie. It holds the link token, which leaves the URL with the first request, and a
//! secret that identifies the browser.

use actix_web::{
    HttpRequest,
    cookie::{Cookie, SameSite, time::Duration},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// The length of 256 bits in base64url.
const LENGTH: usize = 43;

/// The content of the hub's cookie.
pub struct SessionCookie {
    pub token: SecretString,
    pub browser: SecretString,
}

/// Over TLS, the prefix `__Host-` limits the cookie to this host (RFC 6265bis, 4.1.3.2), so that a
/// neighboring host cannot set the browser's secret.
fn name(is_secure: bool) -> &'static str {
    if is_secure {
        "__Host-rolecall-connect"
    } else {
        "rolecall-connect"
    }
}

/// Whether a text has the form of our link tokens and browser secrets.
pub fn is_secret(text: &str) -> bool {
    text.len() == LENGTH
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

impl SessionCookie {
    /// The cookie of a request. None if it is missing or not in our form.
    pub fn of(request: &HttpRequest, is_secure: bool) -> Option<Self> {
        let cookie = request.cookie(name(is_secure))?;
        let (token, browser) = cookie.value().split_once('.')?;
        (is_secret(token) && is_secret(browser)).then(|| Self {
            token: token.into(),
            browser: browser.into(),
        })
    }

    /// The cookie to set, with `seconds` as its maximum age.
    pub fn cookie(&self, is_secure: bool, seconds: i64) -> Cookie<'static> {
        let value = format!(
            "{}.{}",
            self.token.expose_secret(),
            self.browser.expose_secret()
        );
        Cookie::build(name(is_secure), value)
            .path("/")
            .http_only(true)
            .secure(is_secure)
            .same_site(SameSite::Lax)
            .max_age(Duration::seconds(seconds))
            .finish()
    }

    /// The CSRF token for forms of this browser and this connect session.
    pub fn form_token(&self) -> String {
        let digest = Sha256::new()
            .chain_update("rolecall form\0")
            .chain_update(self.token.expose_secret())
            .chain_update(".")
            .chain_update(self.browser.expose_secret())
            .finalize();
        BASE64_URL_SAFE_NO_PAD.encode(digest)
    }

    /// Whether a CSRF token belongs to this browser and this connect session.
    pub fn made(&self, form_token: &str) -> bool {
        let own = self.form_token();
        own.as_bytes().ct_eq(form_token.as_bytes()).into()
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn kept(token: char, browser: char) -> SessionCookie {
        let secret = |letter: char| SecretString::from(letter.to_string().repeat(LENGTH));
        SessionCookie {
            token: secret(token),
            browser: secret(browser),
        }
    }

    #[test]
    fn over_tls_the_cookie_is_for_tls_alone() {
        let cookie = |is_secure| kept('t', 'b').cookie(is_secure, 60).to_string();
        let value = format!("{}.{}", "t".repeat(LENGTH), "b".repeat(LENGTH));
        assert_eq!(
            cookie(true),
            format!(
                "__Host-rolecall-connect={value}; HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age=60"
            )
        );
        assert!(!cookie(false).contains("Secure"));
    }

    #[test]
    fn what_we_did_not_set_is_nothing() {
        let read = |value: &str| {
            let request = TestRequest::default().insert_header(("cookie", value));
            SessionCookie::of(&request.to_http_request(), false)
        };
        let good = kept('t', 'b').cookie(false, 60);
        let good = format!("{}={}", good.name(), good.value());
        let found = read(&good).unwrap();
        assert_eq!(found.form_token(), kept('t', 'b').form_token());
        for bad in [
            "",
            "rolecall-connect=",
            "rolecall-connect=.",
            &good[..good.len() - 1],
            &good.replace('.', ""),
            &good.replace("tt", "t%"),
            &format!("__Host-{good}"),
        ] {
            assert!(read(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_form_is_of_one_browser_and_one_invitation() {
        let own = kept('t', 'b');
        assert!(own.made(&own.form_token()));
        for other in [kept('u', 'b'), kept('t', 'c'), kept('b', 't')] {
            assert!(!own.made(&other.form_token()));
        }
        assert!(!own.made(""));
    }
}
