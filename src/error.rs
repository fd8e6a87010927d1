//! The application's error type. A [`Kind`] is the stable code, the message is for the caller, and
//! the source is for the log only. This module knows no HTTP: `http/error.rs` has the table from
//! kinds to status codes.
//!
//! A message leaves the system: it never contains a secret, an e-mail address, an upstream body or
//! a path of the machine.

use std::{borrow::Cow, fmt, sync::Arc, time::Duration};

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The application's error. One pointer wide, so that a [`Result`] stays small.
#[derive(Debug, Clone)]
pub struct Error(Box<ErrorContent>);

#[derive(Debug, Clone)]
struct ErrorContent {
    kind: Kind,
    message: Cow<'static, str>,
    hint: Option<Cow<'static, str>>,
    retry_after: Option<Duration>,
    provider: Option<ProviderReply>,
    progress: Option<WalkProgress>,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

/// The provider's error response without its body, which is never safe to repeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderReply {
    /// The HTTP status; None if no response came.
    pub status: Option<u16>,
    /// The provider's own error code, such as `1002`.
    pub code: Option<i64>,
    /// The reference that the provider's support asks for.
    pub reference: Option<String>,
}

/// Progress of a first walk, for the clients that wait for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WalkProgress {
    pub pages: u64,
    pub pages_total: Option<u64>,
    pub records: u64,
    pub eta_seconds: Option<u64>,
}

/// The kinds of error. Each has one stable code and one hint that says how to correct the error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    InvalidParameter,
    InvalidBody,
    InvalidCursor,
    AccountRequired,
    BaseUrlNotAllowed,
    Unauthorized,
    KeyScopeMissing,
    AdminNotPermitted,
    NotFound,
    AccountNotFound,
    WalkNotFound,
    RouteNotFound,
    MethodNotAllowed,
    DirectoryNotReady,
    WalkSuperseded,
    WalkNotHeld,
    AccountInactive,
    GroupsNotPermitted,
    FieldNotPermitted,
    CredentialRefused,
    CredentialLocked,
    ScopeMissing,
    OrganizationMismatch,
    NothingToRefresh,
    TooManyKeys,
    RefreshInProgress,
    BodyTimeout,
    PublicUrlMissing,
    ActionNotEnabled,
    AuthorizationInvalid,
    AuthorizationRefused,
    AppRefused,
    ConnectSessionInvalid,
    AssumeUserRefused,
    RateLimited,
    Internal,
    ProxyNotOffered,
    PoliciesNotOffered,
    WritesNotOffered,
    ProviderUnavailable,
    ProviderThrottled,
    StoreUnavailable,
}

impl Kind {
    pub const ALL: [Kind; 42] = [
        Kind::InvalidParameter,
        Kind::InvalidBody,
        Kind::InvalidCursor,
        Kind::AccountRequired,
        Kind::BaseUrlNotAllowed,
        Kind::Unauthorized,
        Kind::KeyScopeMissing,
        Kind::AdminNotPermitted,
        Kind::NotFound,
        Kind::AccountNotFound,
        Kind::WalkNotFound,
        Kind::RouteNotFound,
        Kind::MethodNotAllowed,
        Kind::DirectoryNotReady,
        Kind::WalkSuperseded,
        Kind::WalkNotHeld,
        Kind::AccountInactive,
        Kind::GroupsNotPermitted,
        Kind::FieldNotPermitted,
        Kind::CredentialRefused,
        Kind::CredentialLocked,
        Kind::ScopeMissing,
        Kind::OrganizationMismatch,
        Kind::NothingToRefresh,
        Kind::TooManyKeys,
        Kind::RefreshInProgress,
        Kind::BodyTimeout,
        Kind::PublicUrlMissing,
        Kind::ActionNotEnabled,
        Kind::AuthorizationInvalid,
        Kind::AuthorizationRefused,
        Kind::AppRefused,
        Kind::ConnectSessionInvalid,
        Kind::AssumeUserRefused,
        Kind::RateLimited,
        Kind::Internal,
        Kind::ProxyNotOffered,
        Kind::PoliciesNotOffered,
        Kind::WritesNotOffered,
        Kind::ProviderUnavailable,
        Kind::ProviderThrottled,
        Kind::StoreUnavailable,
    ];

    /// The `code` of an error body, and the default hint.
    const fn entry(self) -> (&'static str, &'static str) {
        match self {
            Kind::InvalidParameter => (
                "invalid_parameter",
                "Correct the parameter that the message names and send the request again.",
            ),
            Kind::InvalidBody => (
                "invalid_body",
                "Send a JSON object as the API document describes it, with content-type application/json.",
            ),
            Kind::InvalidCursor => (
                "invalid_cursor",
                "Start again without `next`; pass on cursors unchanged, with the same other parameters.",
            ),
            Kind::AccountRequired => (
                "account_required",
                "Name the linked account once, in the header x-account-id or the query parameter account_id.",
            ),
            Kind::BaseUrlNotAllowed => (
                "base_url_not_allowed",
                "Name a region instead, or have the operator allow this base URL.",
            ),
            Kind::Unauthorized => (
                "unauthorized",
                "Send a valid API key as `Authorization: Bearer KEY`, or as the user name of Basic authentication.",
            ),
            Kind::KeyScopeMissing => (
                "key_scope_missing",
                "Use a key that has the scope which the message names.",
            ),
            Kind::AdminNotPermitted => (
                "admin_not_permitted",
                "Leave the scope admin out; the operator makes such a key with `rolecall keys create --scopes admin`.",
            ),
            Kind::NotFound => (
                "not_found",
                "Check the id; both the unified id and the provider's own are taken.",
            ),
            Kind::AccountNotFound => (
                "account_not_found",
                "Check the account id; GET /accounts lists the accounts of this key's project.",
            ),
            Kind::WalkNotFound => (
                "walk_not_found",
                "Check the walk id; GET /accounts/{id}/walks lists the walks of an account.",
            ),
            Kind::RouteNotFound => (
                "route_not_found",
                "Check the path; GET /openapi.json lists every route.",
            ),
            Kind::MethodNotAllowed => (
                "method_not_allowed",
                "Use one of the methods in the Allow header.",
            ),
            Kind::DirectoryNotReady => (
                "directory_not_ready",
                "The first walk of this account is still running; try again after Retry-After.",
            ),
            Kind::WalkSuperseded => (
                "walk_superseded",
                "The directory was sealed anew since that walk; there is nothing left to decide.",
            ),
            Kind::WalkNotHeld => (
                "walk_not_held",
                "Only a held walk has suspects, and can be released or discarded.",
            ),
            Kind::AccountInactive => (
                "account_inactive",
                "Have the account linked again, with POST /connect_sessions and its account_id, or replace a personal token with PATCH /accounts/{id}; GET /accounts/{id} says why.",
            ),
            Kind::GroupsNotPermitted => (
                "groups_not_permitted",
                "Link the account with a token that may read groups.",
            ),
            Kind::FieldNotPermitted => (
                "field_not_permitted",
                "Leave this filter out, or link the account with a token that may see the field; GET /iam/me lists those that it may not.",
            ),
            Kind::CredentialRefused => (
                "credential_refused",
                "Check the token and its region: a token of one region is unknown in the others.",
            ),
            Kind::CredentialLocked => (
                "credential_locked",
                "Restore the key ring and the database that this was stored with; nothing was changed or deleted.",
            ),
            Kind::ScopeMissing => (
                "scope_missing",
                "Use a token that may read users (Smartsheet: READ_USERS).",
            ),
            Kind::OrganizationMismatch => (
                "organisation_mismatch",
                "Use a token of the organization that the account was linked to, or link a new account for the other one.",
            ),
            Kind::TooManyKeys => (
                "too_many_keys",
                "Revoke keys that are no longer used: GET /api_keys lists them. The operator can allow more with server.max_keys_per_project.",
            ),
            Kind::NothingToRefresh => (
                "nothing_to_refresh",
                "There is no refresh token. Replace a personal access token with PATCH /accounts/{id}; have the owner of an OAuth token sign in again.",
            ),
            Kind::RefreshInProgress => (
                "refresh_in_progress",
                "Try again after Retry-After; the credential is neither lost nor refused.",
            ),
            Kind::BodyTimeout => (
                "body_timeout",
                "Send the request again on a new connection, with its whole body within 10 seconds.",
            ),
            Kind::PublicUrlMissing => (
                "public_url_missing",
                "Have the operator set `server.public_url` to where browsers reach this server, and ask again.",
            ),
            Kind::ActionNotEnabled => (
                "action_not_enabled",
                "Read what the account's connector profile allows, or have the profile's `actions` extended.",
            ),
            Kind::AuthorizationInvalid => (
                "authorization_invalid",
                "Begin again with POST /oauth/authorization_url; a state is good once, for 10 minutes, and in the project that it was made in.",
            ),
            Kind::AuthorizationRefused => (
                "authorization_refused",
                "Begin again with POST /oauth/authorization_url, and bring the new code within 10 minutes.",
            ),
            Kind::AppRefused => (
                "app_refused",
                "Compare client id, client secret and redirect URL of the connector profile with the app at the provider.",
            ),
            Kind::ConnectSessionInvalid => (
                "connect_session_invalid",
                "Make a new connect session: this one has ended or was used, or never was.",
            ),
            Kind::AssumeUserRefused => (
                "assume_user_refused",
                "Name a user of the organization who is no system admin, and link with a system admin's personal access token.",
            ),
            Kind::RateLimited => (
                "rate_limited",
                "The quota that the message names is spent for now; try again after Retry-After.",
            ),
            Kind::Internal => (
                "internal",
                "This is a fault of ours; report the request id.",
            ),
            Kind::ProxyNotOffered => (
                "proxy_not_offered",
                "Leave out proxy[...] parameters; Rolecall passes nothing through to the provider.",
            ),
            Kind::PoliciesNotOffered => (
                "policies_not_offered",
                "This provider has no policies; read roles instead.",
            ),
            Kind::WritesNotOffered => (
                "writes_not_offered",
                "Change users at the provider; Rolecall only reads.",
            ),
            Kind::ProviderUnavailable => (
                "provider_unavailable",
                "The provider did not give a usable answer; try again later.",
            ),
            Kind::ProviderThrottled => (
                "provider_throttled",
                "The provider's rate limit is spent; try again after Retry-After.",
            ),
            Kind::StoreUnavailable => (
                "store_unavailable",
                "Nothing was changed; try again after Retry-After.",
            ),
        }
    }

    pub const fn code(self) -> &'static str {
        self.entry().0
    }

    pub const fn hint(self) -> &'static str {
        self.entry().1
    }
}

impl Error {
    pub fn new(kind: Kind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(ErrorContent {
            kind,
            message: message.into(),
            hint: None,
            retry_after: None,
            provider: None,
            progress: None,
            source: None,
        }))
    }

    /// An internal fault. The caller gets no details; the log gets the source.
    pub fn internal(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::new(Kind::Internal, "something went wrong inside Rolecall").with_source(source)
    }

    #[must_use]
    pub fn with_source(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.0.source = Some(Arc::from(source.into()));
        self
    }

    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    #[must_use]
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(wait);
        self
    }

    #[must_use]
    pub fn with_provider(mut self, fault: ProviderReply) -> Self {
        self.0.provider = Some(fault);
        self
    }

    #[must_use]
    pub fn with_progress(mut self, progress: WalkProgress) -> Self {
        self.0.progress = Some(progress);
        self
    }

    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    pub fn message(&self) -> &str {
        &self.0.message
    }

    pub fn hint(&self) -> &str {
        self.0.hint.as_deref().unwrap_or(self.0.kind.hint())
    }

    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    pub fn provider(&self) -> Option<&ProviderReply> {
        self.0.provider.as_ref()
    }

    pub fn progress(&self) -> Option<WalkProgress> {
        self.0.progress
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

/// Quotes a caller's text for a message: in backticks, cut at 64 characters, without characters
/// that end a line, control a terminal or change the text's direction.
pub fn quoted(word: &str) -> String {
    const LONGEST: usize = 64;
    let is_hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    let shown = word.chars().filter(|c| !is_hidden(*c)).take(LONGEST);
    format!("`{}`", shown.collect::<String>())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_word_is_repeated_up_to_64_characters_and_never_with_a_control_character() {
        assert_eq!(quoted("pagesize"), "`pagesize`");
        assert_eq!(quoted(&"é".repeat(64)), format!("`{}`", "é".repeat(64)));
        assert_eq!(quoted(&"é".repeat(65)), format!("`{}`", "é".repeat(64)));
        let steering = "a\r\nb\u{1b}[31m\u{7f}\u{85}\u{202e}c\u{2028}\0";
        assert_eq!(quoted(steering), "`ab[31mc`");
    }

    #[test]
    fn every_kind_has_a_code_of_its_own_and_a_hint() {
        let codes: HashSet<_> = Kind::ALL.iter().map(|kind| kind.code()).collect();
        assert_eq!(codes.len(), Kind::ALL.len());
        for kind in Kind::ALL {
            assert!(kind.hint().ends_with('.'), "{kind:?}");
            assert!(
                kind.code()
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b == b'_')
            );
        }
    }
}
