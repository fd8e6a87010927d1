//! The Smartsheet API 2.0.
//!
//! * `api`: base URLs, headers, error codes.
//! * `wire`: its JSON, unmapped; `fields`: single fields of a reply that may be anything.
//! * `map`: from wire records to unified records; `roles`: the role catalog.
//! * `oauth`: authorization and tokens; `token_reply`: replies of the token endpoint.
//!
//! Smartsheet's quirks, and how the connector handles them:
//!
//! * There is no list of roles. Roles are four flags and a seat type on each user.
//! * Only a system admin's token sees flags, status, seat and last login. For other tokens the same
//!   call omits these fields without an error. The connector first reads whether the token is an
//!   admin's; that decides the meaning of a missing field.
//! * The list shows seats only if the request names a plan, so the connector first reads a system
//!   admin's plans. Guests of the plan, too, are listed only then.
//! * `lastLogin` is sent only on pages of at most 100 users, so that is the page size.
//! * The list of groups has no members: each group costs one call.
//! * Members may be external to the organization and are then in no list of users.
//! * `includeAll` is never used: its reply has no size limit.

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

/// The fields that are served. Smartsheet has no user names, second factors, policies or nested
/// groups, and no creation or activity times of users.
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

/// The most pages of a user's plans that are read; a longer list is taken for endless.
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
        roles::catalog()
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

/// The query of a user page, with the parameters that the token permits.
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

/// Checks that the reply is about the requested record.
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

/// Finds the plan from which a system admin's token reads seats. If there is no plan, or if
/// Smartsheet itself refuses the list of plans (403 or 404 with its own code), seats are not
/// supported. Any other failure is an error.
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

/// The plan to read seats from: the first plan to which the token's owner is internal, since this
/// directory is that organization's; else the first plan. A page may be short or empty although
/// more follow: the list ends where `lastKey` is absent.
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

/// Maps a list page row by row and reads its totals.
fn list<'a, W, T>(
    answer: &'a ProviderResponse,
    map: impl Fn(&wire::WireRow<'a, W>) -> Result<T, QuarantinedRow>,
) -> Result<ListPage<T>, CallError> {
    let page: wire::WireListPage<'a, W> = api::envelope(answer)?;
    // Without totals a complete list looks like the beginning of one, so a missing total is an
    // error.
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
