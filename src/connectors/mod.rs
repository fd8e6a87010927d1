//! Connectors: one folder per provider behind one trait.
//!
//! A connector knows its provider's paths, JSON, terms and quirks. It keeps no state between calls,
//! does not retry ([`crate::outbound`] does), does not decide whether a list is complete or a
//! record absent, and uses neither store nor gateway. It returns the unified types of
//! [`crate::model::observed`].

use std::sync::Arc;

use async_trait::async_trait;
use url::Url;

use crate::{
    model::{
        accounts::Endpoint,
        connectors::Models,
        id::RemoteId,
        observed::{Identity, ObservedGroup, ObservedMember, ObservedRole, ObservedUser, Origin},
    },
    outbound::{CallError, Outbound},
};

#[cfg(test)]
mod contract;
pub mod oauth;
mod session;
pub mod smartsheet;

use oauth::{AuthorizeRequest, IssuedTokens, TokenError, TokenRequest};
pub use session::{Renewal, Session};

/// One page of a provider's list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListPage<T> {
    /// The readable records, in the provider's order.
    pub records: Vec<T>,
    /// Rows without a readable id, each with its index among the rows of the page. They are not in
    /// `records`.
    pub quarantined: Vec<(usize, QuarantinedRow)>,
    /// The page number in the reply.
    pub number: Option<u64>,
    /// The number of records on all pages; None if the provider does not state it.
    pub total: Option<u64>,
    pub total_pages: Option<u64>,
    /// The number of rows of a full page, as stated in the reply; it may differ from the requested
    /// size.
    pub page_size: Option<u64>,
}

/// A row that cannot be mapped to a record, with its id if that is readable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuarantinedRow {
    pub remote_id: Option<RemoteId>,
    /// The reason, without any value of the record.
    pub fault: String,
}

/// The result of a lookup by id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presence<T> {
    Found(T),
    /// Proven absent: the provider answered 404 with its own code for "no such user" or "no such
    /// group".
    Departed,
}

/// A provider that Rolecall can read a directory from.
///
/// The kind of a [`CallError`] is the meaning of the provider's reply: a refusal of the token is
/// `Unauthorized`, a missing permission is `Forbidden`, a reply of an unexpected shape is
/// `InvalidReply`.
#[async_trait]
pub trait Connector: Send + Sync {
    /// The value of `provider` in the API.
    fn key(&self) -> &'static str;

    /// The display name.
    fn name(&self) -> &'static str;

    /// The most records on a list page.
    fn page_size(&self) -> u64;

    /// The fields that the connector serves, per resource.
    fn models(&self) -> Models;

    /// Every role that this connector can give a user.
    fn roles(&self) -> Vec<ObservedRole>;

    /// The base URL of the API; None if the endpoint cannot be called.
    fn api_url(&self, endpoint: &Endpoint) -> Option<Url>;

    /// The URL from which records were read, without secrets; None if the endpoint cannot be
    /// called.
    fn url_of(&self, endpoint: &Endpoint, identity: &Identity, origin: &Origin) -> Option<Url>;

    /// Reads the credential's owner and its permissions. This is the cheapest check that it works.
    async fn identify(&self, session: &Session) -> Result<Identity, CallError>;

    /// Reads a page of users. The first page is 1.
    async fn users(
        &self,
        session: &Session,
        identity: &Identity,
        number: u64,
    ) -> Result<ListPage<ObservedUser>, CallError>;

    /// Reads a page of groups, without members. The first page is 1.
    async fn groups(
        &self,
        session: &Session,
        number: u64,
    ) -> Result<ListPage<ObservedGroup>, CallError>;

    /// Looks up one group by id, with all its members.
    async fn group(
        &self,
        session: &Session,
        id: &RemoteId,
    ) -> Result<Presence<(ObservedGroup, Vec<ObservedMember>)>, CallError>;

    /// Looks up one user by id. Fields that only the list shows, such as a seat and the role that
    /// it gives, are left out.
    async fn user(
        &self,
        session: &Session,
        id: &RemoteId,
    ) -> Result<Presence<ObservedUser>, CallError>;

    /// The scopes that are needed to read a directory, and no others.
    fn read_scopes(&self) -> &'static [&'static str];

    /// Whether the provider knows a scope of this name.
    fn knows_scope(&self, scope: &str) -> bool;

    /// The authorization URL (RFC 6749, 4.1.1); None if the endpoint has none.
    fn authorize_url(&self, request: &AuthorizeRequest<'_>) -> Option<Url>;

    /// Redeems a code or a refresh token (RFC 6749, 4.1.3 and 6). The request is sent at most once.
    async fn issue_tokens(
        &self,
        outbound: &Outbound,
        request: TokenRequest<'_>,
    ) -> Result<IssuedTokens, TokenError>;

    /// Whether a refused access token (`Unauthorized`) has merely expired.
    fn is_expired(&self, refusal: &CallError) -> bool;

    /// Revokes the session's token pair at the provider. The error `Unauthorized` is no proof that
    /// the grant has ended: another client may have spent the pair's refresh token and hold a valid
    /// pair.
    async fn revoke(&self, session: &Session) -> Result<(), CallError>;
}

/// All connectors.
pub fn registry() -> Vec<Arc<dyn Connector>> {
    vec![Arc::new(smartsheet::Smartsheet)]
}
