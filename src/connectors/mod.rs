//! Connectors: the code that speaks to providers. One folder per provider behind one trait.
//!
//! A connector knows a provider's paths, JSON, words and quirks, and nothing else: it holds no
//! state between calls, decides nothing about completeness or absence, retries nothing (that is
//! [`crate::outbound`]'s), and knows neither store nor gateway. What it returns is already in
//! the unified words of [`crate::model::observed`].

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
    /// The records that could be read, in the provider's order.
    pub records: Vec<T>,
    /// Rows without a readable id, which are left out of `records`: each with its index among the
    /// rows of the page.
    pub quarantined: Vec<(usize, QuarantinedRow)>,
    /// The page number that the provider says this is.
    pub number: Option<u64>,
    /// How many records there are in all; None where the provider does not say (Smartsheet: -1).
    pub total: Option<u64>,
    pub total_pages: Option<u64>,
    /// How many rows a full page has by the reply's own word, whatever was asked for.
    pub page_size: Option<u64>,
}

/// A row that could not be read: its id, as far as that could.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuarantinedRow {
    pub remote_id: Option<RemoteId>,
    /// What was wrong, without any value of the record.
    pub fault: String,
}

/// The answer to "is this one still there?".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presence<T> {
    Found(T),
    /// The provider says 404 with its own code for "no such user", or group: a proof.
    Departed,
}

/// A provider that Rolecall can read a directory from.
///
/// Errors are [`CallError`]s whose kind says what the provider's answer means: a 403 with the
/// provider's own code is `Forbidden`, a reply off its shape is `InvalidReply`, and so on.
#[async_trait]
pub trait Connector: Send + Sync {
    /// The word in `provider`, such as `smartsheet`.
    fn key(&self) -> &'static str;

    /// The name for people.
    fn name(&self) -> &'static str;

    /// How many records a list page holds.
    fn page_size(&self) -> u64;

    /// What it serves, field by field.
    fn models(&self) -> Models;

    /// Every role that this connector may give a user.
    fn roles(&self) -> Vec<ObservedRole>;

    /// Where the API of this endpoint begins; None where it cannot be called.
    fn api_url(&self, endpoint: &Endpoint) -> Option<Url>;

    /// The url of a read that records came from, without anything secret; None where the endpoint
    /// cannot be called.
    fn url_of(&self, endpoint: &Endpoint, identity: &Identity, origin: &Origin) -> Option<Url>;

    /// Who the credential belongs to, and what it may see. The cheapest proof that it works.
    async fn identify(&self, session: &Session) -> Result<Identity, CallError>;

    /// Page `number`, from 1, of the users.
    async fn users(
        &self,
        session: &Session,
        identity: &Identity,
        number: u64,
    ) -> Result<ListPage<ObservedUser>, CallError>;

    /// Page `number`, from 1, of the groups, without members.
    async fn groups(
        &self,
        session: &Session,
        number: u64,
    ) -> Result<ListPage<ObservedGroup>, CallError>;

    /// One group with all its members, or the proof that it is gone.
    async fn group(
        &self,
        session: &Session,
        id: &RemoteId,
    ) -> Result<Presence<(ObservedGroup, Vec<ObservedMember>)>, CallError>;

    /// One user by id, or the proof that they are gone. What a single read does not show
    /// (Smartsheet: the seat, and so the role that it gives) is left out.
    async fn user(
        &self,
        session: &Session,
        id: &RemoteId,
    ) -> Result<Presence<ObservedUser>, CallError>;

    /// The scopes that reading a directory needs, and no others.
    fn read_scopes(&self) -> &'static [&'static str];

    /// Whether the provider knows a scope of this name.
    fn knows_scope(&self, scope: &str) -> bool;

    /// Where the customer consents (RFC 6749, 4.1.1); None where the endpoint has no such page.
    fn authorize_url(&self, request: &AuthorizeRequest<'_>) -> Option<Url>;

    /// Redeems a code or a refresh token (RFC 6749, 4.1.3 and 6): sent once, whatever comes.
    async fn issue_tokens(
        &self,
        outbound: &Outbound,
        request: TokenRequest<'_>,
    ) -> Result<IssuedTokens, TokenError>;

    /// Whether a refusal of an access token (`Unauthorized`) says no more than that its time is over.
    fn is_expired(&self, refusal: &CallError) -> bool;

    /// Revokes the session's token at the provider, and with it the pair that it is of. That one is
    /// not taken any more (`Unauthorized`) says nothing of the others of its grant: whoever spent
    /// its refresh token has a pair that is good.
    async fn revoke(&self, session: &Session) -> Result<(), CallError>;
}

/// Every connector there is, by key.
pub fn registry() -> Vec<Arc<dyn Connector>> {
    vec![Arc::new(smartsheet::Smartsheet)]
}
