//! Switches for behavior of Smartsheet that is not certain. The default is the behavior that is
//! harder for clients. `README.md` has a table of them.

use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OverCap {
    Clamp,
    #[serde(rename = "refuse_1018")]
    Refuse1018,
    #[serde(rename = "refuse_1229")]
    Refuse1229,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PastEnd {
    RepeatLast,
    Empty,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Totals {
    Counted,
    /// `totalCount` and `totalPages` are -1.
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModifiedSince {
    Ignored,
    Honoured,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Window {
    /// A minute that begins with a token's first request.
    Fixed,
    /// Any sixty seconds.
    Sliding,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenErrorBody {
    AllKeys,
    /// `errorCode`, `error`, `error_description`.
    Oauth,
    /// `errorCode`, `message`, `refId`.
    Plain,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthorizeErrors {
    Redirect,
    Page,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pkce {
    /// A code that was requested with a challenge needs its verifier.
    Enforced,
    Ignored,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PutUserReply {
    Result,
    Data,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OmittedFlag {
    /// VIEWER and CONTRIBUTOR, as each user has it.
    AsStored,
    Viewer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlanPages {
    /// First an empty page, then one plan per page.
    Sparse,
    Dense,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Switches {
    /// The maximum `pageSize`; None for no maximum.
    pub page_size_cap: Option<u64>,
    /// The reply to a larger `pageSize`.
    pub page_size_over_cap: OverCap,
    /// The reply for a page after the last.
    pub page_past_end: PastEnd,
    /// Whether lists state their totals.
    pub totals: Totals,
    /// Whether a change of members updates the group's `modifiedAt`.
    pub membership_moves_modified_at: bool,
    /// Whether `modifiedSince` filters users.
    pub users_modified_since: ModifiedSince,
    /// Requests per minute for each access token; 0 is no limit.
    pub rate_limit: u32,
    /// The kind of rate limit window.
    pub rate_window: Window,
    /// The cost of a list call, in requests.
    pub list_cost: u32,
    /// The `Retry-After` value of a 429; None omits the header.
    pub retry_after: Option<String>,
    /// Whether replies carry `X-RateLimit-*`.
    pub rate_limit_headers: bool,
    /// Whether error bodies carry a `refId`.
    pub ref_id: bool,
    /// The lifetime of a refresh token in seconds; None if it never expires.
    pub refresh_life_s: Option<i64>,
    /// Seconds during which a spent refresh token gets the same new pair again.
    pub refresh_grace_s: i64,
    /// The keys in errors of the token endpoint.
    pub token_error_body: TokenErrorBody,
    /// Where errors of the consent page are reported.
    pub authorize_errors: AuthorizeErrors,
    /// Whether PKCE is enforced.
    pub pkce: Pkce,
    /// The key under which `PUT /users/{id}` returns the user.
    pub put_user_reply: PutUserReply,
    /// Whether Assume-User works with an OAuth token.
    pub oauth_may_assume_user: bool,
    /// Whether the address in Assume-User may be sent without URL encoding.
    pub assume_user_unencoded: bool,
    /// Whether the list of users contains deactivated users.
    pub list_deactivated: bool,
    /// Whether the list of users contains users who declined the invitation.
    pub list_declined: bool,
    /// Whether the list of users contains guests if the request asks for no seats.
    pub list_guests_without_plan_id: bool,
    /// The error code for an unknown user: 1020 or 1006.
    pub unknown_user_code: u32,
    /// The error code for an unknown group: 1106 or 1006.
    pub unknown_group_code: u32,
    /// The status of error 1004 for a missing scope: 403 or 401.
    pub missing_scope_status: u16,
    /// Whether users who are not admins may read groups.
    pub non_admin_reads_groups: bool,
    /// Whether the list of users shows seats without a `planId`.
    pub seats_without_plan_id: bool,
    /// The name of contributor seats if the request does not choose it.
    pub contributor_flag_omitted: OmittedFlag,
    /// The paging of a user's plans.
    pub plan_pages: PlanPages,
    /// The most members in a group's reply; None for all.
    pub group_members_cap: Option<usize>,
    /// Whether `GET /users/{id}` still returns removed users.
    pub removed_user_answers: bool,
}

impl Switches {
    pub fn new(rate_limit: u32) -> Self {
        Self {
            page_size_cap: Some(1000),
            page_size_over_cap: OverCap::Clamp,
            page_past_end: PastEnd::RepeatLast,
            totals: Totals::Counted,
            membership_moves_modified_at: false,
            users_modified_since: ModifiedSince::Ignored,
            rate_limit,
            rate_window: Window::Fixed,
            list_cost: 1,
            retry_after: None,
            rate_limit_headers: false,
            ref_id: true,
            refresh_life_s: None,
            refresh_grace_s: 0,
            token_error_body: TokenErrorBody::AllKeys,
            authorize_errors: AuthorizeErrors::Redirect,
            pkce: Pkce::Enforced,
            put_user_reply: PutUserReply::Result,
            oauth_may_assume_user: false,
            assume_user_unencoded: false,
            list_deactivated: true,
            list_declined: true,
            list_guests_without_plan_id: false,
            unknown_user_code: 1020,
            unknown_group_code: 1106,
            missing_scope_status: 403,
            non_admin_reads_groups: true,
            seats_without_plan_id: false,
            contributor_flag_omitted: OmittedFlag::AsStored,
            plan_pages: PlanPages::Sparse,
            group_members_cap: None,
            removed_user_answers: false,
        }
    }

    /// Sets the named switches and leaves the others. An unknown name or an invalid value is an
    /// error and changes nothing.
    pub fn turn(&mut self, named: &Value) -> Result<(), String> {
        let named = named
            .as_object()
            .ok_or("an object of switches is expected")?;
        let mut all = serde_json::to_value(&*self).map_err(|error| error.to_string())?;
        for (name, value) in named {
            *all.get_mut(name)
                .ok_or_else(|| format!("there is no switch {name:?}"))? = value.clone();
        }
        let turned: Self = serde_json::from_value(all).map_err(|error| error.to_string())?;
        turned.check()?;
        *self = turned;
        Ok(())
    }

    fn check(&self) -> Result<(), String> {
        let code_is = |code: u32, of: &[u32]| of.contains(&code);
        if self.page_size_cap == Some(0) {
            return Err("page_size_cap is at least 1, or null".into());
        }
        if !code_is(self.unknown_user_code, &[1020, 1006]) {
            return Err("unknown_user_code is 1020 or 1006".into());
        }
        if !code_is(self.unknown_group_code, &[1106, 1006]) {
            return Err("unknown_group_code is 1106 or 1006".into());
        }
        if ![401, 403].contains(&self.missing_scope_status) {
            return Err("missing_scope_status is 403 or 401".into());
        }
        if self.refresh_grace_s < 0 || self.refresh_life_s.is_some_and(|life| life < 0) {
            return Err("seconds are not negative".into());
        }
        if self
            .retry_after
            .as_ref()
            .is_some_and(|value| !value.bytes().all(|byte| (0x20..0x7f).contains(&byte)))
        {
            return Err("retry_after is a header: printable ASCII".into());
        }
        Ok(())
    }
}
