//! Cursors: where a walk of pages stands, in a form that a caller can neither read nor make.
//!
//! A cursor says which directory version the pages began on and the key of the last record
//! served. A MAC binds it to project, account and route, so one moved elsewhere does not open,
//! and it names the ring key of that MAC, so a rotation breaks no walk of pages while the former
//! key is still in the ring. It is deterministic: the same page has the same `next` on every
//! replica, which is what lets pages be cached.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use crate::{
    crypto::KeyRing,
    directory::Resource,
    error::{Error, Kind, Result},
    model::{account::Account, id::RemoteId},
};

/// The longest cursor that is looked at.
const LONGEST: usize = 1024;

/// A place in a list: after the record `after`, in `version` for as long as that is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    pub version: u64,
    pub after: RemoteId,
}

/// What travels: the place, the ring key of the MAC, and the MAC.
#[derive(Serialize, Deserialize)]
struct Envelope {
    cursor: Cursor,
    key_id: String,
    tag: [u8; 32],
}

impl Cursor {
    pub fn to_text(&self, ring: &KeyRing, account: &Account, resource: Resource) -> String {
        let (key_id, tag) = ring.mac(&context(account, resource), &encode(self));
        let envelope = Envelope {
            cursor: self.clone(),
            key_id: key_id.to_owned(),
            tag,
        };
        BASE64_URL_SAFE_NO_PAD.encode(encode(&envelope))
    }

    /// Reads a cursor that this installation made for this very list.
    ///
    /// # Errors
    /// `invalid_cursor` for anything else, without saying what is wrong with it.
    pub fn from_text(
        text: &str,
        ring: &KeyRing,
        account: &Account,
        resource: Resource,
    ) -> Result<Self> {
        Self::open(text, ring, account, resource)
            .ok_or_else(|| Error::new(Kind::InvalidCursor, "`next` is not a cursor of this list"))
    }

    fn open(text: &str, ring: &KeyRing, account: &Account, resource: Resource) -> Option<Self> {
        if text.len() > LONGEST {
            return None;
        }
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
        let (envelope, rest): (Envelope, _) = postcard::take_from_bytes(&bytes).ok()?;
        let is_genuine = rest.is_empty()
            && ring.verify_mac(
                &envelope.key_id,
                &context(account, resource),
                &encode(&envelope.cursor),
                &envelope.tag,
            );
        is_genuine.then_some(envelope.cursor)
    }
}

fn context(account: &Account, resource: Resource) -> String {
    format!(
        "cursor/{}/{}/{}",
        account.project,
        account.id,
        resource.as_str()
    )
}

fn encode(value: &impl Serialize) -> Vec<u8> {
    postcard::to_stdvec(value).expect("plain values encode into memory")
}
