//! A connect session: an invitation for a customer to link an account, short-lived and good for
//! one link.

use jiff::Timestamp;
use secrecy::SecretString;
use serde_json::{Map, Value};

use super::{
    accounts::AccountKind,
    connector_profiles::ProfileId,
    id::{AccountId, ProjectId},
};

/// The largest number of a session. StackOne's clients read a JSON number, which above 2^53 is not
/// exact.
pub const LARGEST_NUMBER: u64 = (1 << 53) - 1;

/// An invitation, without its token.
#[derive(Debug, Clone, PartialEq)]
pub struct ConnectSession {
    /// What the API calls its id.
    pub number: u64,
    pub project: ProjectId,
    /// None: the customer chooses among the connectors that there are.
    pub provider: Option<String>,
    /// The connector profile to sign in under; None: the customer chooses how to link.
    pub profile: Option<ProfileId>,
    /// The account that is to be linked again; None: a new one.
    pub account: Option<AccountId>,
    pub kind: AccountKind,
    /// Whether it may be used for more than one link.
    pub is_multiple: bool,
    pub origin_owner_id: String,
    pub details: ConnectDetails,
    /// How often what waits to be saved changed; 0 if nothing does.
    pub draft: u64,
    /// The account that was linked last.
    pub linked_account: Option<AccountId>,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    pub used_at: Option<Timestamp>,
}

/// What is said of an invitation in words.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ConnectDetails {
    pub origin_owner_name: String,
    pub origin_username: Option<String>,
    pub label: Option<String>,
    pub categories: Option<Vec<String>>,
    /// As it came; given back, and nothing else done with it.
    pub metadata: Option<Map<String, Value>>,
    /// Where the customer goes once linked: one of the project's registered URLs.
    pub return_url: Option<String>,
    /// The page that opened the hub and is told of the link: one of the project's registered
    /// origins.
    pub opener_origin: Option<String>,
}

impl ConnectSession {
    /// Whether it can still be used at `now`.
    pub fn is_open_at(&self, now: Timestamp) -> bool {
        now < self.expires_at && (self.is_multiple || self.used_at.is_none())
    }
}

/// The token of an invitation: whoever has it may link. Redacts itself.
pub type LinkToken = SecretString;
