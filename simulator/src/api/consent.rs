//! The authorization page, on which a user consents or denies.
//!
//! The page has one form: the user selects or types an address, and allows or denies. The result
//! goes to the redirect URL of the requesting app. An unknown app gets an error page, and so does
//! every invalid request if the switch for that is set; an unknown address shows the form again.

use serde::Serialize;

use super::oauth::parameters;
use crate::call::{Call, Query, Reply};
use crate::clients::OauthClient;
use crate::state::State;
use crate::switches::{AuthorizeErrors, Pkce};
use crate::tokens::{CODE_LIFE_MS, Consented};

/// All scopes.
pub const SCOPES: &[&str] = &[
    "ADMIN_SHEETS",
    "ADMIN_SIGHTS",
    "ADMIN_USERS",
    "ADMIN_WEBHOOKS",
    "ADMIN_WORKSPACES",
    "CREATE_SHEETS",
    "CREATE_SIGHTS",
    "DELETE_SHEETS",
    "DELETE_SIGHTS",
    "READ_CONTACTS",
    "READ_EVENTS",
    "READ_SHEETS",
    "READ_SIGHTS",
    "READ_USERS",
    "SHARE_SHEETS",
    "SHARE_SIGHTS",
    "WRITE_SHEETS",
];

/// The most people that the page lists; other addresses are typed.
const LISTED: usize = 200;

/// A valid authorization request.
#[derive(Clone, Debug)]
struct Consent {
    client: OauthClient,
    scopes: Vec<String>,
    state: Option<String>,
    challenge: Option<String>,
}

/// `GET` and `POST /b/authorize`: shows the page, or handles its form
pub fn authorize(state: &mut State, call: &Call) -> Reply {
    let parameters = parameters(call);
    let client = parameters
        .get("client_id")
        .and_then(|id| state.clients.find(id));
    let Some(client) = client.cloned() else {
        return error_page(
            400,
            "invalid_client",
            "No app is registered under this client_id.",
        );
    };
    let consent = match consent_of(state, &client, &parameters) {
        Ok(consent) => consent,
        Err(error) => return authorize_error(state, &client, error, parameters.get("state")),
    };
    let decision = parameters.get("decision").filter(|_| call.method == "POST");
    match decision {
        None => page(state, &consent, None),
        Some("allow") => allow(
            state,
            &consent,
            parameters.get("login").or(parameters.get("email")),
        ),
        Some("deny") => redirect(
            &client,
            &[("error", "access_denied")],
            consent.state.as_deref(),
        ),
        Some(_) => authorize_error(state, &client, "invalid_request", consent.state.as_deref()),
    }
}

fn consent_of(
    state: &State,
    client: &OauthClient,
    parameters: &Query,
) -> Result<Consent, &'static str> {
    match parameters.get("response_type") {
        Some("code") => {}
        Some(_) => return Err("unsupported_response_type"),
        None => return Err("invalid_request"),
    }
    for name in ["redirect_uri", "redirect_url"] {
        if parameters
            .get(name)
            .is_some_and(|url| url != client.redirect_url)
        {
            return Err("invalid_request");
        }
    }
    let scopes: Vec<String> = parameters
        .get("scope")
        .unwrap_or_default()
        .split(' ')
        .filter(|scope| !scope.is_empty())
        .map(str::to_owned)
        .collect();
    if scopes.iter().any(|scope| !SCOPES.contains(&scope.as_str())) {
        return Err("invalid_scope");
    }
    let challenge = match state.switches.pkce {
        Pkce::Ignored => None,
        Pkce::Enforced => challenge(parameters)?,
    };
    Ok(Consent {
        client: client.clone(),
        scopes,
        state: parameters.get("state").map(str::to_owned),
        challenge: challenge.map(str::to_owned),
    })
}

/// The PKCE challenge, with S256 or none. RFC 7636 has a server refuse an unsupported method, and a
/// challenge without a method has the method `plain`.
fn challenge(parameters: &Query) -> Result<Option<&str>, &'static str> {
    let is_sha256 = |text: &str| {
        text.len() == 43
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    match (
        parameters.get("code_challenge"),
        parameters.get("code_challenge_method"),
    ) {
        (None, None) => Ok(None),
        (Some(challenge), Some("S256")) if is_sha256(challenge) => Ok(Some(challenge)),
        _ => Err("invalid_request"),
    }
}

fn allow(state: &mut State, consent: &Consent, login: Option<&str>) -> Reply {
    let Some(login) = login else {
        return page(state, consent, Some("Say who you are."));
    };
    let Some(person) = state
        .world
        .people
        .by_email(login.trim())
        .map(|person| person.id)
    else {
        return page(state, consent, Some("Nobody here has this address."));
    };
    let now = state.now();
    let consented = Consented {
        client_id: consent.client.client_id.clone(),
        person,
        scopes: consent.scopes.clone(),
        challenge: consent.challenge.clone(),
    };
    let code = state.tokens.issue_code(consented, now);
    redirect(
        &consent.client,
        &[("code", &code), ("expires_in", &CODE_LIFE_MS.to_string())],
        consent.state.as_deref(),
    )
}

fn authorize_error(
    state: &State,
    client: &OauthClient,
    error: &str,
    client_state: Option<&str>,
) -> Reply {
    match state.switches.authorize_errors {
        AuthorizeErrors::Redirect => redirect(client, &[("error", error)], client_state),
        AuthorizeErrors::Page => error_page(
            400,
            error,
            "The request for authorization cannot be served.",
        ),
    }
}

/// Redirects the browser to the app.
fn redirect(
    client: &OauthClient,
    parameters: &[(&str, &str)],
    client_state: Option<&str>,
) -> Reply {
    let registered = &client.redirect_url;
    let mut url = registered.clone();
    let mut separator = if registered.contains('?') { '&' } else { '?' };
    for (name, value) in parameters
        .iter()
        .copied()
        .chain(client_state.map(|value| ("state", value)))
    {
        url.push(separator);
        url.push_str(name);
        url.push('=');
        url.push_str(&percent_encoded(value));
        separator = '&';
    }
    Reply {
        headers: vec![("location", url)],
        ..Reply::empty(302)
    }
}

fn percent_encoded(text: &str) -> String {
    use std::fmt::Write;
    text.bytes()
        .fold(String::with_capacity(text.len()), |mut encoded, byte| {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                encoded.push(char::from(byte));
            } else {
                write!(encoded, "%{byte:02X}").expect("a string takes all");
            }
            encoded
        })
}

/// The consent form.
fn page(state: &State, consent: &Consent, complaint: Option<&str>) -> Reply {
    let people = &state.world.people;
    let client = &consent.client;
    let app = escaped(client.name.as_ref().unwrap_or(&client.client_id));
    let options: String = people
        .iter()
        .take(LISTED)
        .map(|person| format!("<option value=\"{}\">", escaped(&person.email)))
        .collect();
    let hidden: String = [
        ("response_type", Some("code")),
        ("client_id", Some(client.client_id.as_str())),
        ("scope", Some(consent.scopes.join(" ").as_str())),
        ("state", consent.state.as_deref()),
        ("code_challenge", consent.challenge.as_deref()),
        (
            "code_challenge_method",
            consent.challenge.as_deref().map(|_| "S256"),
        ),
    ]
    .into_iter()
    .filter_map(|(name, value)| {
        Some(format!(
            "<input type=\"hidden\" name=\"{name}\" value=\"{}\">",
            escaped(value?)
        ))
    })
    .collect();
    let asks = if consent.scopes.is_empty() {
        "<li>to know that you have an account</li>".to_owned()
    } else {
        consent
            .scopes
            .iter()
            .map(|scope| format!("<li><code>{scope}</code></li>"))
            .collect()
    };
    let complaint = complaint
        .map(|text| format!("<p role=\"alert\">{text}</p>"))
        .unwrap_or_default();
    let first = people
        .get(state.world.cast.system_admin)
        .map(|person| escaped(&person.email))
        .unwrap_or_default();
    let body = format!(
        "<h1>Allow access?</h1>{complaint}<p>The app <strong>{app}</strong> asks:</p><ul>{asks}</ul>\
         <form method=\"post\" action=\"/b/authorize\">{hidden}\
         <p><label>Who are you? <input name=\"login\" type=\"email\" list=\"people\" value=\"{first}\" required></label>\
         <datalist id=\"people\">{options}</datalist></p>\
         <p><button name=\"decision\" value=\"allow\">Allow</button> \
         <button name=\"decision\" value=\"deny\" formnovalidate>Deny</button></p></form>"
    );
    html(if complaint.is_empty() { 200 } else { 400 }, &body)
}

fn error_page(status: u16, error: &str, text: &str) -> Reply {
    html(status, &format!("<h1>{}</h1><p>{text}</p>", escaped(error)))
}

/// `GET /b/callback`: the redirect target if the options name no redirect URL
pub fn landing(call: &Call) -> Reply {
    #[derive(Serialize)]
    struct Landed<'a> {
        code: Option<&'a str>,
        error: Option<&'a str>,
        state: Option<&'a str>,
    }
    let landed = Landed {
        code: call.query.get("code"),
        error: call.query.get("error"),
        state: call.query.get("state"),
    };
    Reply::json(200, &landed)
}

fn html(status: u16, body: &str) -> Reply {
    Reply::html(
        status,
        format!(
            "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>Smartsheet simulator</title>\
             <style>body{{font:16px/1.5 system-ui;max-width:34rem;margin:4rem auto;padding:0 1rem}}\
             input{{font:inherit;width:100%}}button{{font:inherit;padding:.4rem 1.2rem}}</style></head><body>{body}</body></html>"
        ),
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_into_a_url_or_a_page_is_encoded() {
        assert_eq!(percent_encoded("a b&ü"), "a%20b%26%C3%BC");
        assert_eq!(
            escaped("<a href=\"x\">&"),
            "&lt;a href=&quot;x&quot;&gt;&amp;"
        );
    }
}
