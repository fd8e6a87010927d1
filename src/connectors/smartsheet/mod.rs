//! Smartsheet, API 2.0.
//!
//! * `api`: paths, paging, error codes.
//! * `wire`: its JSON as it comes; `fields`: single fields out of a reply that may be anything.
//! * `map`: from its words to ours; `roles`: what it has for roles.
//! * `oauth`: consent and tokens; `token_reply`: what the token endpoint answers.
//!
//! Its quirks, and what is made of them:
//!
//! * There is no list of roles: they are four flags and a seat type on each user.
//! * Only a system admin's token is shown flags, status, seat and last login. To any other the
//!   same call answers without them, and without an error. So whether the token is an admin's
//!   is asked first, and it decides what a missing field means.
//! * The seat comes only if a plan is named, so a system admin's plans are read first. A plan's
//!   guests are in the list only then, too.
//! * `lastLogin` comes only on pages of at most 100 users. That is the page size.
//! * A list of groups never carries members: each group costs one call.
//! * Members may come from outside the organisation and are then in no list of users.
//! * `includeAll` is never asked for: one reply of unbounded size.

use std::collections::HashSet;

use async_trait::async_trait;
use url::Url;

use crate::{
    connectors::{
        Connector, ListPage, Presence, QuarantinedRow, Session,
        oauth::{AuthorizeRequest, IssuedTokens, TokenError, TokenRequest},
    },
    model::{
        accounts::Endpoint,
        connectors::Models,
        id::RemoteId,
        observed::{
            Identity, ObservedGroup, ObservedMember, ObservedRole, ObservedUser, Origin, Seats,
        },
        schema::Reason,
    },
    outbound::{CallError, CallErrorKind, Outbound, ProviderResponse},
};

mod api;
mod fields;
mod map;
mod oauth;
mod roles;
#[cfg(test)]
mod tests;
mod token_reply;
mod wire;

use api::Path;

const PAGE_SIZE: u64 = 100;

/// What is served of Smartsheet. It has no user names, second factors, policies or nested groups,
/// and says of nobody when they were created or last active.
const MODELS: Models = Models {
    users: &[
        "id",
        "remote_id",
        "name",
        "first_name",
        "last_name",
        "primary_email_address",
        "status",
        "roles",
        "groups",
        "avatar",
        "last_login_at",
        "updated_at",
        "seat",
        "is_external",
        "first_seen_at",
        "listed",
        "suspected",
        "warnings",
    ],
    roles: &[
        "id",
        "remote_id",
        "name",
        "description",
        "type",
        "holder_count",
    ],
    groups: &[
        "id",
        "remote_id",
        "name",
        "description",
        "type",
        "created_at",
        "updated_at",
        "member_count",
        "owner",
        "members",
        "members_read_at",
        "first_seen_at",
        "listed",
        "suspected",
        "warnings",
    ],
};

/// More pages of one user's plans than anybody has: past this, a list does not end.
const MOST_PLAN_PAGES: usize = 100;

/// The connector for the Smartsheet API 2.0.
#[derive(Debug, Clone, Copy, Default)]
pub struct Smartsheet;

#[async_trait]
impl Connector for Smartsheet {
    fn key(&self) -> &'static str {
        "smartsheet"
    }

    fn name(&self) -> &'static str {
        "Smartsheet"
    }

    fn page_size(&self) -> u64 {
        PAGE_SIZE
    }

    fn models(&self) -> Models {
        MODELS
    }

    fn roles(&self) -> Vec<ObservedRole> {
        roles::catalogue()
    }

    fn api_url(&self, endpoint: &Endpoint) -> Option<Url> {
        api::url(endpoint, &[], &[])
    }

    fn url_of(&self, endpoint: &Endpoint, identity: &Identity, origin: &Origin) -> Option<Url> {
        match origin {
            Origin::Users { page } => {
                let query = users_query(identity, (*page).into());
                api::url(endpoint, USERS.segments, &borrowed(&query))
            }
            Origin::Groups { page } => {
                let query = page_query((*page).into());
                api::url(endpoint, GROUPS.segments, &borrowed(&query))
            }
            Origin::Group(id) => api::url(endpoint, &["groups", id.as_str()], &[]),
        }
    }

    async fn identify(&self, session: &Session) -> Result<Identity, CallError> {
        let path = Path {
            template: "/users/me",
            segments: &["users", "me"],
        };
        let answer = api::get(session, path, &[]).await?;
        let me: wire::WireUser = api::record(&answer)?;
        let is_admin = map::is_admin(&me);
        let mut identity = map::identity(me, Seats::Hidden(Reason::NotPermitted))
            .map_err(|fault| api::off_shape(&answer, fault))?;
        if is_admin {
            identity.seats = seats(session, &identity.user).await?;
        }
        Ok(identity)
    }

    async fn users(
        &self,
        session: &Session,
        identity: &Identity,
        number: u64,
    ) -> Result<ListPage<ObservedUser>, CallError> {
        let query = users_query(identity, number);
        let answer = api::get(session, USERS, &borrowed(&query)).await?;
        list(&answer, |row| map::listed_user(row, identity))
    }

    async fn groups(
        &self,
        session: &Session,
        number: u64,
    ) -> Result<ListPage<ObservedGroup>, CallError> {
        let query = page_query(number);
        let answer = api::get(session, GROUPS, &borrowed(&query)).await?;
        list(&answer, map::listed_group)
    }

    async fn group(
        &self,
        session: &Session,
        id: &RemoteId,
    ) -> Result<Presence<(ObservedGroup, Vec<ObservedMember>)>, CallError> {
        let path = Path {
            template: "/groups/{id}",
            segments: &["groups", id.as_str()],
        };
        let answer = match api::get(session, path, &[]).await {
            Err(error) if api::is_proof_of_absence(&error, &api::NO_SUCH_GROUP) => {
                return Ok(Presence::Departed);
            }
            answer => answer?,
        };
        let off_shape = |fault| api::off_shape(&answer, fault);
        let group = map::single_group(api::record(&answer)?).map_err(off_shape)?;
        let members = map::members(&api::envelope(&answer)?).map_err(off_shape)?;
        is_asked_for(&answer, id, &group.remote_id)?;
        Ok(Presence::Found((group, members)))
    }

    async fn user(
        &self,
        session: &Session,
        id: &RemoteId,
    ) -> Result<Presence<ObservedUser>, CallError> {
        let path = Path {
            template: "/users/{id}",
            segments: &["users", id.as_str()],
        };
        let answer = match api::get(session, path, &[]).await {
            Err(error) if api::is_proof_of_absence(&error, &api::NO_SUCH_USER) => {
                return Ok(Presence::Departed);
            }
            answer => answer?,
        };
        let user = map::single_user(api::record(&answer)?)
            .map_err(|fault| api::off_shape(&answer, fault))?;
        is_asked_for(&answer, id, &user.remote_id)?;
        Ok(Presence::Found(user))
    }

    fn read_scopes(&self) -> &'static [&'static str] {
        oauth::READ_SCOPES
    }

    fn knows_scope(&self, scope: &str) -> bool {
        oauth::knows_scope(scope)
    }

    fn authorize_url(&self, request: &AuthorizeRequest<'_>) -> Option<Url> {
        oauth::authorize_url(request)
    }

    async fn issue_tokens(
        &self,
        outbound: &Outbound,
        request: TokenRequest<'_>,
    ) -> Result<IssuedTokens, TokenError> {
        oauth::issue_tokens(outbound, request).await
    }

    fn is_expired(&self, refusal: &CallError) -> bool {
        refusal.code == Some(api::TOKEN_EXPIRED)
    }

    async fn revoke(&self, session: &Session) -> Result<(), CallError> {
        let path = Path {
            template: "/token",
            segments: &["token"],
        };
        api::delete(session, path).await.map(drop)
    }
}

const USERS: Path<'static> = Path {
    template: "/users",
    segments: &["users"],
};

const GROUPS: Path<'static> = Path {
    template: "/groups",
    segments: &["groups"],
};

type QueryPairs = Vec<(&'static str, String)>;

fn page_query(number: u64) -> QueryPairs {
    vec![
        ("page", number.to_string()),
        ("pageSize", PAGE_SIZE.to_string()),
    ]
}

/// What a token may ask for besides the page itself.
fn users_query(identity: &Identity, number: u64) -> QueryPairs {
    let mut query = page_query(number);
    if identity.is_admin {
        query.push(("include", "lastLogin".to_owned()));
    }
    if let Seats::Readable { plan } = &identity.seats {
        query.push(("planId", plan.to_string()));
    }
    query
}

fn borrowed(query: &QueryPairs) -> Vec<(&str, &str)> {
    let pairs = query.iter().map(|(name, value)| (*name, value.as_str()));
    pairs.collect()
}

/// A record of somebody else is no answer about this one.
fn is_asked_for(
    answer: &ProviderResponse,
    asked: &RemoteId,
    got: &RemoteId,
) -> Result<(), CallError> {
    if asked == got {
        Ok(())
    } else {
        Err(api::off_shape(answer, "the reply is about another record"))
    }
}

/// Where a system admin's token reads seats from. That there is no plan to read is an answer,
/// if Smartsheet itself gives it; that the list broke off is not.
async fn seats(session: &Session, user: &RemoteId) -> Result<Seats, CallError> {
    match plan(session, user).await {
        Ok(Some(plan)) => Ok(Seats::Readable { plan }),
        Ok(None) => Ok(Seats::Hidden(Reason::NotSupported)),
        Err(error)
            if matches!(
                error.kind,
                CallErrorKind::Forbidden | CallErrorKind::NotFound
            ) && error.code.is_some() =>
        {
            Ok(Seats::Hidden(Reason::NotSupported))
        }
        Err(error) => Err(error),
    }
}

/// The plan that seats are read from: the first that the token's owner belongs to, since that
/// is whose directory this is; else the first of all. A page may be short, or empty, and the
/// list still go on: it ends where no further key is given.
async fn plan(session: &Session, user: &RemoteId) -> Result<Option<RemoteId>, CallError> {
    let mut first = None;
    let mut is_whole = true;
    let mut keys = HashSet::new();
    let mut key: Option<String> = None;
    loop {
        let path = Path {
            template: "/users/{id}/plans",
            segments: &["users", user.as_str(), "plans"],
        };
        let mut query = vec![("maxItems", "100")];
        query.extend(key.as_deref().map(|key| ("lastKey", key)));
        let answer = api::get(session, path, &query).await?;
        let page: wire::PlanPage<'_> = api::envelope(&answer)?;
        for row in &page.data {
            match map::plan(row) {
                Some(plan) if plan.is_internal => return Ok(Some(plan.id)),
                Some(plan) => {
                    first.get_or_insert(plan.id);
                }
                None => is_whole = false,
            }
        }
        let Some(next) = page.last_key.filter(|key| !key.is_empty()) else {
            if first.is_none() && !is_whole {
                return Err(api::off_shape(&answer, "no plan can be read"));
            }
            return Ok(first);
        };
        if !keys.insert(next.clone()) || keys.len() >= MOST_PLAN_PAGES {
            return Err(api::off_shape(&answer, "the list of plans does not end"));
        }
        key = Some(next);
    }
}

/// A page of a list: its rows mapped one by one, its totals as far as they are known.
fn list<'a, W, T>(
    answer: &'a ProviderResponse,
    map: impl Fn(&wire::WireRow<'a, W>) -> Result<T, QuarantinedRow>,
) -> Result<ListPage<T>, CallError> {
    let page: wire::WireListPage<'a, W> = api::envelope(answer)?;
    // Without totals nobody can tell a list from the beginning of one.
    let total = |total: Option<i64>| match total {
        Some(-1) => Ok(None),
        Some(total @ 0..) => Ok(Some(total.unsigned_abs())),
        _ => Err(api::off_shape(answer, "a total is no count")),
    };
    let count = |count: Option<i64>| count.and_then(|count| u64::try_from(count).ok());
    let mut list = ListPage {
        records: Vec::with_capacity(page.data.len()),
        quarantined: Vec::new(),
        number: count(page.page_number),
        total: total(page.total_count)?,
        total_pages: total(page.total_pages)?,
        page_size: count(page.page_size),
    };
    for (index, row) in page.data.iter().enumerate() {
        match map(row) {
            Ok(record) => list.records.push(record),
            Err(row) => list.quarantined.push((index, row)),
        }
    }
    Ok(list)
}
