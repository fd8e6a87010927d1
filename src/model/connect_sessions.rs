//! A connect session: lets a customer link an account.
//!
//! A session is short-lived. It is good for one link, unless it is
//! [multiple](ConnectSession::is_multiple).

use jiff::Timestamp;
use secrecy::SecretString;
use serde_json::{Map, Value};

use super::{
    accounts::AccountKind,
    connector_profiles::ProfileId,
    id::{AccountId, ProjectId},
};

/// The largest number of a session. StackOne's clients read it as a JSON number, which is not exact
/// above 2^53.
pub const LARGEST_NUMBER: u64 = (1 << 53) - 1;

/// A connect session, without its token.
#[derive(Debug, Clone, PartialEq)]
pub struct ConnectSession {
    /// The `id` in the API.
    pub number: u64,
    pub project: ProjectId,
    /// None: the customer chooses among the available connectors.
    pub provider: Option<String>,
    /// The connector profile to sign in with; None: the customer chooses the method.
    pub profile: Option<ProfileId>,
    /// The account to link again; None: a new one.
    pub account: Option<AccountId>,
    pub kind: AccountKind,
    /// Whether the session may be used for more than one link.
    pub is_multiple: bool,
    pub origin_owner_id: String,
    pub details: ConnectDetails,
    /// How often the unsaved draft changed; 0 if there is no draft.
    pub draft: u64,
    /// The account that was linked last.
    pub linked_account: Option<AccountId>,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    pub used_at: Option<Timestamp>,
}

/// The descriptive fields of a connect session.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ConnectDetails {
    pub origin_owner_name: String,
    pub origin_username: Option<String>,
    pub label: Option<String>,
    pub categories: Option<Vec<String>>,
    /// Returned unchanged, and otherwise unused.
    pub metadata: Option<Map<String, Value>>,
    /// The URL that the customer is sent to after linking: one of the project's registered URLs.
    pub return_url: Option<String>,
    /// The origin of the page that opened the hub and gets a message about the link: one of the
    /// project's registered origins.
    pub opener_origin: Option<String>,
}

impl ConnectSession {
    /// Whether the session can be used at `now`.
    pub fn is_open_at(&self, now: Timestamp) -> bool {
        now < self.expires_at && (self.is_multiple || self.used_at.is_none())
    }
}

/// The token of a connect session. It authorizes its bearer to link. Redacts itself in `Debug`.
pub type LinkToken = SecretString;
