//! OAuth 2.0 as Smartsheet speaks it: the page of consent, and the token endpoint.
//!
//! A code and a refresh token are good once. Whoever asks for a token proves to be the app either
//! by its secret or by a hash of it; the error bodies carry both families of keys.

use serde::Serialize;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::call::{Call, Query, Reply};
use crate::refusal::{self, Code, Refusal};
use crate::state::State;
use crate::switches::AuthorizeErrors;
use crate::tokens::{CODE_LIFE_MS, NotRedeemable, Pair, RefreshRules};

const SCOPES: &[&str] = &[
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

/// How many people the page lists; anybody else is typed.
const LISTED: usize = 200;

/// `POST /token` and `DELETE /token`
pub fn token(state: &mut State, call: &Call) -> Reply {
    match call.method.as_str() {
        "POST" => match issue(state, call) {
            Ok(pair) => Reply::json(200, &pair),
            Err(refusal) => state.token_refused(refusal),
        },
        "DELETE" => revoke(state, call).unwrap_or_else(|refusal| state.refused(refusal)),
        _ => state.refused(refusal::METHOD_NOT_ALLOWED.into()),
    }
}

/// The parameters of a token call: a form, the query, or both.
fn parameters(call: &Call) -> Query {
    let mut parameters = call.query.clone();
    let content_type = call.content_type.as_deref().unwrap_or_default();
    if content_type.starts_with("application/x-www-form-urlencoded") {
        parameters.0.extend(decode_form(&call.body));
    }
    parameters
}

fn decode_form(body: &[u8]) -> Vec<(String, String)> {
    let text = String::from_utf8_lossy(body);
    actix_web::web::Query::<Vec<(String, String)>>::from_query(&text)
        .map(|query| query.into_inner())
        .unwrap_or_default()
}

/// The refresh token that a call to the token endpoint brings.
pub fn refresh_token_of(call: &Call) -> Option<String> {
    parameters(call).get("refresh_token").map(str::to_owned)
}

fn issue(state: &mut State, call: &Call) -> Result<Pair, Refusal> {
    let parameters = parameters(call);
    let need = |name: &str| {
        parameters.get(name).ok_or_else(|| {
            refusal::TOKEN_PARAMETER_MISSING.because(format!("The parameter {name} is missing."))
        })
    };
    let client_id = need("client_id")?;
    if client_id != state.client.id {
        return Err(refusal::CLIENT_UNKNOWN.into());
    }
    let grant_type = need("grant_type")?;
    let (mine, other) = match grant_type {
        "authorization_code" => ("code", "refresh_token"),
        "refresh_token" => ("refresh_token", "code"),
        _ => return Err(refusal::GRANT_TYPE_UNSUPPORTED.into()),
    };
    if parameters.get(mine).is_none() && parameters.get(other).is_some() {
        return Err(refusal::GRANT_TYPE_INCONSISTENT.into());
    }
    let grant = need(mine)?;
    let proof = Proof::of(&parameters)?;
    if let Proof::Secret(secret) = proof
        && secret != state.client.secret
    {
        return Err(refusal::CLIENT_SECRET_WRONG.into());
    }
    for name in ["redirect_uri", "redirect_url"] {
        if parameters
            .get(name)
            .is_some_and(|url| url != state.client.redirect_url)
        {
            return Err(refusal::REDIRECT_MISMATCH.into());
        }
    }
    if let Proof::Hash(hash) = proof
        && hash != hash_of(&state.client.secret, grant)
    {
        return Err(refusal::HASH_MISMATCH.into());
    }
    let now = state.now();
    let pair = if mine == "code" {
        state.tokens.redeem_code(grant, now)
    } else {
        let rules = RefreshRules {
            life_s: state.switches.refresh_life_s,
            grace_s: state.switches.refresh_grace_s,
        };
        state.tokens.refresh(grant, now, rules)
    };
    pair.map_err(|why| Refusal::from(code_of(why)))
}

fn code_of(why: NotRedeemable) -> Code {
    match why {
        NotRedeemable::Invalid => refusal::GRANT_INVALID,
        NotRedeemable::Expired => refusal::CODE_EXPIRED,
        NotRedeemable::Revoked => refusal::TOKEN_REVOKED,
    }
}

/// How the app proves to be itself: in exactly one way.
#[derive(Clone, Copy)]
enum Proof<'a> {
    Secret(&'a str),
    Hash(&'a str),
}

impl<'a> Proof<'a> {
    fn of(parameters: &'a Query) -> Result<Self, Refusal> {
        match (parameters.get("client_secret"), parameters.get("hash")) {
            (Some(secret), None) => Ok(Proof::Secret(secret)),
            (None, Some(hash)) => Ok(Proof::Hash(hash)),
            (None, None) => Err(refusal::CLIENT_PROOF_MISSING.into()),
            (Some(_), Some(_)) => Err(refusal::CLIENT_PROOF_TWICE.into()),
        }
    }
}

/// Lowercase hex of SHA-256 over secret, pipe, and the code or the refresh token.
fn hash_of(secret: &str, grant: &str) -> String {
    use std::fmt::Write;
    let digest = Sha256::digest(format!("{secret}|{grant}").as_bytes());
    digest
        .iter()
        .fold(String::with_capacity(64), |mut hex, byte| {
            write!(hex, "{byte:02x}").expect("a string takes all");
            hex
        })
}

fn revoke(state: &mut State, call: &Call) -> Result<Reply, Refusal> {
    let bearer = call.bearer().ok_or(refusal::TOKEN_REQUIRED)?;
    // An expired token may still be revoked, a dead one not again.
    match state.tokens.usable(bearer, state.now()) {
        Ok(_) | Err(crate::tokens::Unusable::Expired) => {}
        Err(_) => return Err(refusal::TOKEN_INVALID.into()),
    }
    let all = call.query.flag("deleteAllForApiClient")?.unwrap_or(false);
    state.tokens.revoke(bearer, all);
    Ok(Reply::json(
        200,
        &json!({"message": "SUCCESS", "resultCode": 0}),
    ))
}

/// What the page of consent is asked with.
#[derive(Clone, Debug)]
struct Consent {
    client_id: String,
    scopes: Vec<String>,
    state: Option<String>,
}

/// `GET` and `POST /b/authorize`: shows the page, or takes the decision that its form sends.
pub fn authorize(state: &mut State, call: &Call) -> Reply {
    let mut parameters = call.query.clone();
    parameters.0.extend(decode_form(&call.body));
    if parameters.get("client_id") != Some(&state.client.id) {
        return error_page(
            400,
            "invalid_client",
            "No app is registered under this client_id.",
        );
    }
    let consent = match consent_of(state, &parameters) {
        Ok(consent) => consent,
        Err(error) => return authorize_error(state, error, parameters.get("state")),
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
            state,
            &[("error", "access_denied")],
            consent.state.as_deref(),
        ),
        Some(_) => authorize_error(state, "invalid_request", consent.state.as_deref()),
    }
}

fn consent_of(state: &State, parameters: &Query) -> Result<Consent, &'static str> {
    match parameters.get("response_type") {
        Some("code") => {}
        Some(_) => return Err("unsupported_response_type"),
        None => return Err("invalid_request"),
    }
    for name in ["redirect_uri", "redirect_url"] {
        if parameters
            .get(name)
            .is_some_and(|url| url != state.client.redirect_url)
        {
            return Err("invalid_request");
        }
    }
    let scopes: Vec<String> = parameters
        .get("scope")
        .unwrap_or_default()
        .split([' ', ','])
        .filter(|scope| !scope.is_empty())
        .map(str::to_owned)
        .collect();
    if scopes.iter().any(|scope| !SCOPES.contains(&scope.as_str())) {
        return Err("invalid_scope");
    }
    Ok(Consent {
        client_id: state.client.id.clone(),
        scopes,
        state: parameters.get("state").map(str::to_owned),
    })
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
    let code = state.tokens.issue_code(person, consent.scopes.clone(), now);
    redirect(
        state,
        &[("code", &code), ("expires_in", &CODE_LIFE_MS.to_string())],
        consent.state.as_deref(),
    )
}

fn authorize_error(state: &State, error: &str, client_state: Option<&str>) -> Reply {
    match state.switches.authorize_errors {
        AuthorizeErrors::Redirect => redirect(state, &[("error", error)], client_state),
        AuthorizeErrors::Page => error_page(
            400,
            error,
            "The request for authorization cannot be served.",
        ),
    }
}

/// Sends the browser back to the app.
fn redirect(state: &State, parameters: &[(&str, &str)], client_state: Option<&str>) -> Reply {
    let registered = &state.client.redirect_url;
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

/// The page: who are you, and do you allow it.
fn page(state: &State, consent: &Consent, complaint: Option<&str>) -> Reply {
    let people = &state.world.people;
    let options: String = people
        .iter()
        .take(LISTED)
        .map(|person| format!("<option value=\"{}\">", escaped(&person.email)))
        .collect();
    let hidden: String = [
        ("response_type", Some("code")),
        ("client_id", Some(consent.client_id.as_str())),
        ("scope", Some(consent.scopes.join(" ").as_str())),
        ("state", consent.state.as_deref()),
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
        "<h1>Allow access?</h1>{complaint}<p>An app asks:</p><ul>{asks}</ul>\
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

/// `GET /b/callback`: where the browser lands if nobody gave a redirect URL.
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
    fn the_hash_is_sha256_of_secret_pipe_grant_in_lowercase_hex() {
        assert_eq!(
            hash_of("secret", "code"),
            "875ccbea123ce4cf3682ad9f52be303c7a92c2eddf00e24bbeb583c3bf28765a"
        );
    }

    #[test]
    fn what_goes_into_a_url_or_a_page_is_encoded() {
        assert_eq!(percent_encoded("a b&ü"), "a%20b%26%C3%BC");
        assert_eq!(
            escaped("<a href=\"x\">&"),
            "&lt;a href=&quot;x&quot;&gt;&amp;"
        );
    }
}
