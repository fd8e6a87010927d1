//! The API: who calls, what is asked, and the answer.
//!
//! [`serve`] is the way of every request: version, token, budget, assumed user, then the one table
//! of routes. [`users`] and [`groups`] read, [`user_changes`] and [`group_changes`] write,
//! [`oauth`] is the token endpoint and the page on which people give their consent.

mod group_changes;
pub mod groups;
pub mod oauth;
mod page;
mod user_changes;
pub mod users;

use serde::Serialize;
use serde_json::json;

use crate::call::{Call, Reply};
use crate::faults::Fault;
use crate::refusal::{self, Refusal};
use crate::state::State;
use crate::tokens::{Kind, Scopes, Unusable};
use crate::world::people::{Person, Status};
use crate::world::{Id, World};

/// What a handler gives.
pub type Answer = Result<Reply, Refusal>;

/// Who calls, and what this token allows of what they may.
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

    /// May read the organisation: it takes the scope, and belonging to it.
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

    /// May change users.
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

/// Serves a request.
pub fn serve(state: &mut State, call: &Call, fault: Option<&Fault>) -> Reply {
    if call.is_token_call() {
        return oauth::token(state, call);
    }
    let mut budget_headers = Vec::new();
    let mut reply = match admit(state, call, &mut budget_headers)
        .and_then(|caller| route(state, call, caller.as_ref(), fault))
    {
        Ok(reply) => reply,
        Err(refusal) => state.refused(refusal),
    };
    reply.headers.append(&mut budget_headers);
    reply
}

/// Lets a request in: none for a route that asks for no token.
fn admit(
    state: &mut State,
    call: &Call,
    headers: &mut Vec<(&'static str, String)>,
) -> Result<Option<Caller>, Refusal> {
    if call.resource().is_none() {
        return Err(refusal::VERSION_UNSUPPORTED.into());
    }
    if call.segments() == ["serverinfo"] {
        return Ok(None);
    }
    let now = state.now();
    let bearer = call.bearer().ok_or(refusal::TOKEN_REQUIRED)?;
    let token = state.tokens.usable(bearer, now).map_err(|why| match why {
        Unusable::Unknown | Unusable::Revoked => refusal::TOKEN_INVALID,
        Unusable::Expired => refusal::TOKEN_EXPIRED,
    })?;
    if !state.world.may_call(token.person) {
        return Err(refusal::TOKEN_INVALID.into());
    }
    let (person, kind, scopes) = (token.person, token.kind, token.scopes.clone());
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
        Some(email) => assume(state, &caller, kind, email).map(Some),
        None => Ok(Some(caller)),
    }
}

/// Takes the price of a request from the token's budget.
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
    let standing = state
        .limits
        .spend(bearer, cost, switches.rate_limit, switches.rate_window, now);
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

/// A system admin may act as somebody else of the organisation who is not one, with a personal
/// token.
fn assume(state: &State, caller: &Caller, kind: Kind, email: &str) -> Result<Caller, Refusal> {
    let email = percent_decoded(email)
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

/// Every route, once.
fn route(state: &mut State, call: &Call, caller: Option<&Caller>, fault: Option<&Fault>) -> Answer {
    let segments = call.segments();
    let Some(caller) = caller else {
        return if call.method == "GET" {
            Ok(server_info())
        } else {
            Err(refusal::METHOD_NOT_ALLOWED.into())
        };
    };
    match (call.method.as_str(), &segments[..]) {
        ("GET", ["users"]) => users::list(state, call, caller, fault),
        ("POST", ["users"]) => user_changes::add(state, call, caller),
        ("GET", ["users", "me"]) => users::me(state, call, caller),
        ("GET", ["users", "sheets"]) => users::sheets(state, call, caller, fault),
        ("GET", ["users", user]) => users::get(state, call, caller, id(user)?),
        ("PUT", ["users", user]) => user_changes::update(state, call, caller, id(user)?),
        ("DELETE", ["users", user]) => user_changes::remove(state, call, caller, id(user)?),
        ("POST", ["users", user, "deactivate"]) => {
            user_changes::deactivate(state, caller, id(user)?)
        }
        ("POST", ["users", user, "reactivate"]) => {
            user_changes::reactivate(state, caller, id(user)?)
        }
        ("POST", ["users", user, "profileimage"]) => {
            user_changes::set_image(state, call, caller, id(user)?)
        }
        ("GET", ["users", user, "plans"]) => users::plans(state, call, caller, id(user)?),
        ("DELETE", ["users", user, "plans", plan]) => {
            user_changes::leave_plan(state, caller, id(user)?, id(plan)?)
        }
        ("POST", ["users", user, "plans", plan, "upgrade"]) => {
            user_changes::upgrade(state, call, caller, id(user)?, id(plan)?)
        }
        ("POST", ["users", user, "plans", plan, "downgrade"]) => {
            user_changes::downgrade(state, call, caller, id(user)?, id(plan)?)
        }
        ("GET", ["users", user, "alternateemails"]) => {
            users::alternate_emails(state, call, caller, id(user)?, fault)
        }
        ("POST", ["users", user, "alternateemails"]) => {
            user_changes::add_alternate_emails(state, call, caller, id(user)?)
        }
        ("GET", ["users", user, "alternateemails", email]) => {
            users::alternate_email(state, caller, id(user)?, id(email)?)
        }
        ("DELETE", ["users", user, "alternateemails", email]) => {
            user_changes::remove_alternate_email(state, caller, id(user)?, id(email)?)
        }
        ("POST", ["users", user, "alternateemails", email, "makeprimary"]) => {
            user_changes::make_primary(state, caller, id(user)?, id(email)?)
        }
        ("GET", ["groups"]) => groups::list(state, call, caller, fault),
        ("POST", ["groups"]) => group_changes::add(state, call, caller),
        ("GET", ["groups", group]) => groups::get(state, call, caller, id(group)?),
        ("PUT", ["groups", group]) => group_changes::update(state, call, caller, id(group)?),
        ("DELETE", ["groups", group]) => group_changes::remove(state, caller, id(group)?),
        ("POST", ["groups", group, "members"]) => {
            group_changes::add_members(state, call, caller, id(group)?)
        }
        ("DELETE", ["groups", group, "members", member]) => {
            group_changes::remove_member(state, caller, id(group)?, id(member)?)
        }
        _ if is_path(&segments) => Err(refusal::METHOD_NOT_ALLOWED.into()),
        _ => Err(refusal::NOT_FOUND.into()),
    }
}

/// Whether the path exists, under whatever method.
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

/// The reply to a write that was done, with what came of it.
fn done(result: impl Serialize) -> Reply {
    let result = serde_json::to_value(result).expect("what we write is always JSON");
    let mut body = json!({"message": "SUCCESS", "resultCode": 0});
    if !result.is_null() {
        body["result"] = result;
    }
    Reply::json(200, &body)
}

/// An id in a path. Anything else leads nowhere.
fn id(text: &str) -> Result<Id, Refusal> {
    text.parse().map_err(|_| refusal::NOT_FOUND.into())
}

/// A user of the plan, or the error that the switch says.
fn user<'w>(state: &State, world: &'w World, id: Id) -> Result<&'w Person, Refusal> {
    world
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
    use super::percent_decoded;

    #[test]
    fn assumed_addresses_come_url_encoded() {
        assert_eq!(
            percent_decoded("ana.ruiz%40example.org").as_deref(),
            Some("ana.ruiz@example.org")
        );
        assert_eq!(percent_decoded("a+b@c").as_deref(), Some("a+b@c"));
        assert_eq!(percent_decoded("a%4"), None);
        assert_eq!(percent_decoded("a%zz"), None);
    }
}
