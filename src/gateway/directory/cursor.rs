//! Cursors: a position in a list, in a form that clients cannot forge.
//!
//! A cursor contains the directory version of the first page and the key of the last record served.
//! A MAC binds it to project, account, list and filter, so it is invalid anywhere else. The MAC key
//! is derived from the project's data key, not from the key ring
//! ([ADR 12](../../../docs/adr/0012-the-database-says-which-key-wraps.md)), so no change of the
//! ring invalidates a cursor. Cursors are deterministic: the same page has the same `next` on every
//! replica, so pages can be cached ([ADR 4](../../../docs/adr/0004-cursors-are-keys.md)).

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use super::DirectoryReader;
use crate::gateway::auth::{Caller, OwnAccount};
use crate::{
    crypto::MacKey,
    directory::{Filter, Resource},
    error::{Error, Kind, Result},
    model::{accounts::Account, id::RemoteId},
};

/// The maximum length of a cursor. A longer text is invalid.
const LONGEST: usize = 1024;

/// A position in a list: after the record `after`, in `version` while that is available.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    pub version: u64,
    pub after: RemoteId,
}

/// The list that a cursor belongs to. The cursor is invalid for any other list.
#[derive(Clone, Copy)]
pub struct List<'a> {
    pub account: &'a Account,
    pub key: &'a MacKey,
    pub resource: Resource,
    pub filter: &'a Filter,
}

/// The encoded form: the position and its MAC.
#[derive(Serialize, Deserialize)]
struct Envelope {
    cursor: Cursor,
    tag: [u8; 32],
}

impl Cursor {
    pub fn to_text(&self, list: List<'_>) -> String {
        let envelope = Envelope {
            cursor: self.clone(),
            tag: list.key.tag(&list.context(), &self.in_list(list)),
        };
        BASE64_URL_SAFE_NO_PAD.encode(encode(&envelope))
    }

    /// Decodes a cursor that this installation issued for this list.
    ///
    /// # Errors
    /// `invalid_cursor` for any other text, without the reason.
    pub fn from_text(text: &str, list: List<'_>) -> Result<Self> {
        Self::open(text, list).ok_or_else(not_a_cursor)
    }

    fn open(text: &str, list: List<'_>) -> Option<Self> {
        if text.len() > LONGEST {
            return None;
        }
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
        let (envelope, rest): (Envelope, _) = postcard::take_from_bytes(&bytes).ok()?;
        let signed = envelope.cursor.in_list(list);
        let is_genuine =
            rest.is_empty() && list.key.verify(&list.context(), &signed, &envelope.tag);
        is_genuine.then_some(envelope.cursor)
    }

    /// The input of the MAC. It includes the filter, which the client sends with every page and the
    /// cursor does not contain.
    fn in_list(&self, list: List<'_>) -> Vec<u8> {
        encode(&(self, list.filter))
    }
}

impl List<'_> {
    fn context(&self) -> String {
        format!(
            "cursor/{}/{}/{}",
            self.account.project,
            self.account.id,
            self.resource.as_str()
        )
    }
}

/// Encodes and decodes the cursors of lists that are read from the store: API keys, the audit log,
/// walks, suspects. Such a cursor is a position with a MAC that binds it to project, list and
/// filters.
pub struct ListCursors {
    key: MacKey,
    context: String,
}

impl ListCursors {
    pub fn to_text(&self, place: &str) -> String {
        let tag = self.key.tag(&self.context, place.as_bytes());
        BASE64_URL_SAFE_NO_PAD.encode(encode(&(place, tag)))
    }

    /// The position in a cursor that this installation issued for this list.
    ///
    /// # Errors
    /// `invalid_cursor` for any other text, without the reason.
    pub fn from_text(&self, text: &str) -> Result<String> {
        self.open(text).ok_or_else(not_a_cursor)
    }

    fn open(&self, text: &str) -> Option<String> {
        if text.len() > LONGEST {
            return None;
        }
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
        let ((place, tag), rest): ((String, [u8; 32]), _) =
            postcard::take_from_bytes(&bytes).ok()?;
        let is_genuine = rest.is_empty() && self.key.verify(&self.context, place.as_bytes(), &tag);
        is_genuine.then_some(place)
    }
}

impl DirectoryReader<'_> {
    /// The cursors of a list of this project. `list` identifies the list with its account and
    /// filters.
    ///
    /// # Errors
    /// `store_unavailable`, `credential_locked`.
    pub async fn list_cursors(self, caller: &Caller, list: &str) -> Result<ListCursors> {
        let project = caller.project();
        let key = self.gateway.store_of(project).mac_key(project).await?;
        Ok(ListCursors {
            key,
            context: format!("list/{project}/{list}"),
        })
    }
}

impl OwnAccount {
    /// The cursors of a list of this account. `list` identifies the list.
    pub fn list_cursors(&self, list: &str) -> ListCursors {
        let Account { project, id, .. } = self.account.as_ref();
        ListCursors {
            key: self.mac_key.clone(),
            context: format!("list/{project}/{id}/{list}"),
        }
    }
}

fn not_a_cursor() -> Error {
    Error::new(Kind::InvalidCursor, "`next` is not a cursor of this list")
}

fn encode(value: &impl Serialize) -> Vec<u8> {
    postcard::to_stdvec(value).expect("plain values encode into memory")
}
