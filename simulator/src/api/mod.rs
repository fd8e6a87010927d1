//! The API: authentication, rate limits and routes.
//!
//! [`serve`] handles every request in this order: version, token, rate limit, impersonated user,
//! route. [`oauth`] is the token endpoint and [`consent`] the authorization page.

mod alternate_emails;
pub mod consent;
mod group_changes;
pub mod groups;
pub mod oauth;
mod page;
mod plans;
mod user_changes;
pub mod users;

use serde::Serialize;
use serde_json::json;

use crate::call::{Call, Reply};
use crate::faults::Fault;
use crate::limits::Price;
use crate::refusal::{self, Refusal};
use crate::state::State;
use crate::tokens::{Kind, Scopes, Unusable};
use crate::world::Id;
use crate::world::people::{Person, Status};

/// A handler's result.
pub type Answer = Result<Reply, Refusal>;

/// The calling user, with the scopes of the token.
#[derive(Clone, Debug)]
pub struct Caller {
    pub id: Id,
    pub is_system_admin: bool,
    pub is_group_admin: bool,
    is_insider: bool,
    scopes: Scopes,
}

impl Caller {
    fn new(person: &Person, scopes: Scopes) -> Self {
        Self {
            id: person.id,
            is_system_admin: person.is_system_admin(),
            is_group_admin: person.is_group_admin(),
            is_insider: person.is_insider(),
            scopes,
        }
    }

    /// Requires the scope READ_USERS and an internal user.
    fn need_read(&self) -> Result<(), Refusal> {
        self.need_scope("READ_USERS")?;
        if self.is_insider {
            Ok(())
        } else {
            Err(refusal::NOT_AUTHORIZED.into())
        }
    }

    fn need_scope(&self, scope: &str) -> Result<(), Refusal> {
        if self.scopes.has(scope) {
            Ok(())
        } else {
            Err(refusal::SCOPE_MISSING.into())
        }
    }

    fn need_write_scope(&self) -> Result<(), Refusal> {
        self.need_scope("ADMIN_USERS")
    }

    /// Requires the scope ADMIN_USERS and a system admin.
    fn need_write(&self) -> Result<(), Refusal> {
        self.need_write_scope()?;
        self.need_system_admin()
    }

    fn need_system_admin(&self) -> Result<(), Refusal> {
        if self.is_system_admin {
            Ok(())
        } else {
            Err(refusal::NOT_AUTHORIZED.into())
        }
    }
}

/// An authenticated request.
pub struct Ask<'a> {
    pub call: &'a Call,
    pub caller: Caller,
    /// The fault for this request, which the lists apply themselves.
    pub fault: Option<&'a Fault>,
}

pub fn serve(state: &mut State, call: &Call, fault: Option<&Fault>) -> Reply {
    if call.is_token_call() {
        return oauth::token(state, call);
    }
    let mut budget_headers = Vec::new();
    let answer = match call.segments()[..] {
        _ if call.resource().is_none() => Err(refusal::VERSION_UNSUPPORTED.into()),
        ["serverinfo"] if call.method == "GET" => Ok(server_info()),
        ["serverinfo"] => Err(refusal::METHOD_NOT_ALLOWED.into()),
        _ => admit(state, call, &mut budget_headers).and_then(|caller| {
            route(
                state,
                &Ask {
                    call,
                    caller,
                    fault,
                },
            )
        }),
    };
    let mut reply = answer.unwrap_or_else(|refusal| state.refused(refusal));
    reply.headers.append(&mut budget_headers);
    reply
}

/// Authenticates a request and applies the rate limit.
fn admit(
    state: &mut State,
    call: &Call,
    headers: &mut Vec<(&'static str, String)>,
) -> Result<Caller, Refusal> {
    let now = state.now();
    let bearer = call.bearer().ok_or(refusal::TOKEN_REQUIRED)?;
    let token = state.tokens.usable(bearer, now).map_err(|why| match why {
        Unusable::Unknown | Unusable::Revoked => refusal::TOKEN_INVALID,
        Unusable::Expired => refusal::TOKEN_EXPIRED,
    })?;
    if !state.world.may_call(token.grant.person) {
        return Err(refusal::TOKEN_INVALID.into());
    }
    let (person, kind, scopes) = (
        token.grant.person,
        token.grant.kind(),
        token.grant.scopes.clone(),
    );
    spend(state, call, bearer, headers)?;
    if let Some(accept) = &call.accept
        && !["*/*", "application/*", "application/json"]
            .iter()
            .any(|kind| accept.contains(kind))
    {
        return Err(refusal::ACCEPT_UNSUPPORTED.into());
    }
    state.churn();
    let person = state
        .world
        .people
        .get(person)
        .ok_or(refusal::TOKEN_INVALID)?;
    let caller = Caller::new(person, scopes);
    match &call.assume_user {
        Some(email) => assume(state, &caller, kind, email),
        None => Ok(caller),
    }
}

/// Takes the cost of a request from the token's quota.
fn spend(
    state: &mut State,
    call: &Call,
    bearer: &str,
    headers: &mut Vec<(&'static str, String)>,
) -> Result<(), Refusal> {
    let now = state.now();
    let switches = &state.switches;
    if switches.rate_limit == 0 {
        return Ok(());
    }
    let cost = if call.is_list() {
        switches.list_cost
    } else {
        1
    };
    let price = Price {
        cost,
        limit: switches.rate_limit,
        window: switches.rate_window,
    };
    let standing = state.limits.spend(bearer, price, now);
    if switches.rate_limit_headers {
        headers.push(("x-ratelimit-limit", switches.rate_limit.to_string()));
        headers.push(("x-ratelimit-remaining", standing.left.to_string()));
        headers.push((
            "x-ratelimit-reset",
            (now.as_second() + standing.resets_in_s).to_string(),
        ));
    }
    if standing.is_over {
        headers.extend(
            switches
                .retry_after
                .clone()
                .map(|value| ("retry-after", value)),
        );
        return Err(refusal::RATE_LIMITED.into());
    }
    Ok(())
}

/// Impersonates a user (Assume-User). A system admin may act as any active internal user except
/// another system admin, with the permissions of that user. This needs a personal token, unless a
/// switch permits OAuth tokens.
fn assume(state: &State, caller: &Caller, kind: Kind, header: &str) -> Result<Caller, Refusal> {
    let email = Some(header)
        .filter(|header| state.switches.assume_user_unencoded || is_url_encoded(header))
        .and_then(percent_decoded)
        .ok_or_else(|| refusal::HEADER_INVALID.because("Assume-User is not URL-encoded."))?;
    let is_allowed =
        caller.is_system_admin && (kind == Kind::Personal || state.switches.oauth_may_assume_user);
    let assumed = state
        .world
        .people
        .by_email(&email)
        .filter(|person| person.is_insider() && person.status == Status::Active)
        .filter(|person| person.id == caller.id || !person.is_system_admin());
    match assumed {
        Some(person) if is_allowed => Ok(Caller::new(person, caller.scopes.clone())),
        _ => Err(refusal::CANNOT_ASSUME.into()),
    }
}

/// Whether the text contains no character that JavaScript's `encodeURIComponent` or Python's
/// `quote`, which Smartsheet's SDKs use, would have encoded.
fn is_url_encoded(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"%-_.~!*'()/".contains(&byte))
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte == b'%' {
            let (digits, tail) = rest.split_at_checked(2)?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            rest = tail;
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

/// The route table.
fn route(state: &mut State, ask: &Ask<'_>) -> Answer {
    let segments = ask.call.segments();
    match (ask.call.method.as_str(), &segments[..]) {
        ("GET", ["users"]) => users::list(state, ask),
        ("POST", ["users"]) => user_changes::add(state, ask),
        ("GET", ["users", "me"]) => users::me(state, ask),
        ("GET", ["users", "sheets"]) => users::sheets(state, ask),
        ("GET", ["users", user]) => users::get(state, ask, id(user)?),
        ("PUT", ["users", user]) => user_changes::update(state, ask, id(user)?),
        ("DELETE", ["users", user]) => user_changes::remove(state, ask, id(user)?),
        ("POST", ["users", user, "deactivate"]) => user_changes::deactivate(state, ask, id(user)?),
        ("POST", ["users", user, "reactivate"]) => user_changes::reactivate(state, ask, id(user)?),
        ("POST", ["users", user, "profileimage"]) => user_changes::set_image(state, ask, id(user)?),
        ("GET", ["users", user, "plans"]) => plans::list(state, ask, id(user)?),
        ("DELETE", ["users", user, "plans", plan]) => {
            plans::leave(state, ask, id(user)?, id(plan)?)
        }
        ("POST", ["users", user, "plans", plan, "upgrade"]) => {
            plans::upgrade(state, ask, id(user)?, id(plan)?)
        }
        ("POST", ["users", user, "plans", plan, "downgrade"]) => {
            plans::downgrade(state, ask, id(user)?, id(plan)?)
        }
        ("GET", ["users", user, "alternateemails"]) => {
            alternate_emails::list(state, ask, id(user)?)
        }
        ("POST", ["users", user, "alternateemails"]) => {
            alternate_emails::add(state, ask, id(user)?)
        }
        ("GET", ["users", user, "alternateemails", email]) => {
            alternate_emails::get(state, ask, id(user)?, id(email)?)
        }
        ("DELETE", ["users", user, "alternateemails", email]) => {
            alternate_emails::remove(state, ask, id(user)?, id(email)?)
        }
        ("POST", ["users", user, "alternateemails", email, "makeprimary"]) => {
            alternate_emails::make_primary(state, ask, id(user)?, id(email)?)
        }
        ("GET", ["groups"]) => groups::list(state, ask),
        ("POST", ["groups"]) => group_changes::add(state, ask),
        ("GET", ["groups", group]) => groups::get(state, ask, id(group)?),
        ("PUT", ["groups", group]) => group_changes::update(state, ask, id(group)?),
        ("DELETE", ["groups", group]) => group_changes::remove(state, ask, id(group)?),
        ("POST", ["groups", group, "members"]) => {
            group_changes::add_members(state, ask, id(group)?)
        }
        ("DELETE", ["groups", group, "members", member]) => {
            group_changes::remove_member(state, ask, id(group)?, id(member)?)
        }
        _ if is_path(&segments) => Err(refusal::METHOD_NOT_ALLOWED.into()),
        _ => Err(refusal::NOT_FOUND.into()),
    }
}

/// Whether the path exists, with any method.
fn is_path(segments: &[&str]) -> bool {
    matches!(
        segments,
        ["users"]
            | ["users", _]
            | [
                "users",
                _,
                "deactivate" | "reactivate" | "profileimage" | "plans" | "alternateemails"
            ]
            | ["users", _, "plans" | "alternateemails", _]
            | ["users", _, "plans", _, "upgrade" | "downgrade"]
            | ["users", _, "alternateemails", _, "makeprimary"]
            | ["groups"]
            | ["groups", _]
            | ["groups", _, "members"]
            | ["groups", _, "members", _]
    )
}

/// The reply to a successful write, with its result.
fn done(result: impl Serialize) -> Reply {
    let result = serde_json::to_value(result).expect("what we write is always JSON");
    let mut body = json!({"message": "SUCCESS", "resultCode": 0});
    if !result.is_null() {
        body["result"] = result;
    }
    Reply::json(200, &body)
}

/// Parses an id in a path; other text is "not found".
fn id(text: &str) -> Result<Id, Refusal> {
    text.parse().map_err(|_| refusal::NOT_FOUND.into())
}

/// A user of the plan, or the error that a switch selects.
fn user(state: &State, id: Id) -> Result<&Person, Refusal> {
    state
        .world
        .people
        .get(id)
        .filter(|person| person.is_user())
        .ok_or_else(|| unknown_user(state))
}

fn unknown_user(state: &State) -> Refusal {
    if state.switches.unknown_user_code == refusal::NOT_FOUND.number {
        refusal::NOT_FOUND
    } else {
        refusal::USER_NOT_FOUND
    }
    .into()
}

fn unknown_group(state: &State) -> Refusal {
    if state.switches.unknown_group_code == refusal::NOT_FOUND.number {
        refusal::NOT_FOUND
    } else {
        refusal::GROUP_NOT_FOUND
    }
    .into()
}

fn server_info() -> Reply {
    Reply::json(
        200,
        &json!({
            "supportedLocales": ["en_US", "en_GB", "de_DE", "ja_JP", "pt_BR"],
            "formats": {"defaults": "0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0", "bold": ["none", "on"], "italic": ["none", "on"]},
        }),
    )
}

#[cfg(test)]
mod tests {
    use super::{is_url_encoded, percent_decoded};

    #[test]
    fn assumed_addresses_come_url_encoded() {
        assert!(is_url_encoded("o'neil.b%2Bc%40example.org"));
        for bare in [
            "ana@example.org",
            "a+b%40example.org",
            "a b",
            "ü%40example.org",
        ] {
            assert!(!is_url_encoded(bare), "{bare}");
        }
        assert_eq!(
            percent_decoded("ana.ruiz%40example.org").as_deref(),
            Some("ana.ruiz@example.org")
        );
        assert_eq!(percent_decoded("a+b@c").as_deref(), Some("a+b@c"));
        assert_eq!(percent_decoded("a%4"), None);
        assert_eq!(percent_decoded("a%zz"), None);
    }
}
