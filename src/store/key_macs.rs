//! Authentication of the rows of API keys.
//!
//! Each row carries a MAC over all of its columns, under a key derived from the project's data key
//! ([ADR 19](../../../docs/adr/0019-an-api-key-s-row-carries-a-mac.md)). An attacker with write
//! access to the database but without the key ring can neither create a key, nor add scopes to one,
//! nor undo a revocation. A row with a missing or wrong MAC is not a key: the store neither accepts
//! nor lists it, and never signs it again.

use sqlx::{ColumnIndex, Decode, FromRow, Row, Type};

use crate::crypto::{DataKey, TaggedRecord};

const FORM: &str = "rolecall api key 1";

/// The columns of an API key, in the order of [`key_columns`].
#[derive(Debug, Clone)]
pub(super) struct KeyRow {
    pub(super) id: String,
    pub(super) project: String,
    pub(super) label: String,
    pub(super) scopes: String,
    pub(super) digest: Vec<u8>,
    pub(super) created_at: i64,
    pub(super) expires_at: Option<i64>,
    pub(super) revoked_at: Option<i64>,
    pub(super) created_by: Option<String>,
    pub(super) mac: Option<Vec<u8>>,
}

impl<'r, R: Row> FromRow<'r, R> for KeyRow
where
    usize: ColumnIndex<R>,
    String: Decode<'r, R::Database> + Type<R::Database>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
    Vec<u8>: Decode<'r, R::Database> + Type<R::Database>,
{
    fn from_row(row: &'r R) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.try_get(0)?,
            project: row.try_get(1)?,
            label: row.try_get(2)?,
            scopes: row.try_get(3)?,
            digest: row.try_get(4)?,
            created_at: row.try_get(5)?,
            expires_at: row.try_get(6)?,
            revoked_at: row.try_get(7)?,
            created_by: row.try_get(8)?,
            mac: row.try_get(9)?,
        })
    }
}

/// The columns of a [`KeyRow`], for SQL.
macro_rules! key_columns {
    () => {
        "id, project, label, scopes, digest, created_at, expires_at, revoked_at, created_by, mac"
    };
}
pub(super) use key_columns;

/// Computes the MAC of a row. Ignores its `mac` column.
pub(super) fn mac(key: &DataKey, row: &KeyRow) -> Vec<u8> {
    record(key, row).tag().to_vec()
}

/// True if the row carries its correct MAC. Logs an error otherwise.
pub(super) fn is_signed(key: &DataKey, row: &KeyRow) -> bool {
    let mac = row.mac.as_ref();
    let is_signed = mac.is_some_and(|mac| record(key, row).has_tag(mac));
    if !is_signed {
        tracing::error!(
            key = row.id,
            "api key refused: its row is not as it was written"
        );
    }
    is_signed
}

fn record(key: &DataKey, row: &KeyRow) -> TaggedRecord {
    let record = key.mac_key().record(FORM);
    let record = record.text(&row.id).text(&row.project);
    let record = record.text(&row.label).text(&row.scopes);
    let record = record.bytes(&row.digest).number(row.created_at);
    // An empty part encodes `None`. It differs from every value, since numbers take eight bytes.
    let record = [row.expires_at, row.revoked_at]
        .into_iter()
        .fold(record, |record, moment| match moment {
            Some(moment) => record.number(moment),
            None => record.bytes(b""),
        });
    record.text(row.created_by.as_deref().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::Rng;

    fn row() -> KeyRow {
        KeyRow {
            id: "id".to_owned(),
            project: "project".to_owned(),
            label: "label".to_owned(),
            scopes: "iam:read".to_owned(),
            digest: vec![7; 32],
            created_at: 1,
            expires_at: Some(2),
            revoked_at: None,
            created_by: None,
            mac: None,
        }
    }

    #[test]
    fn every_column_of_a_row_counts() {
        let [key, other] = [1, 2].map(|seed| DataKey::generate(&Rng::seeded(seed)));
        let tag = mac(&key, &row());
        let is_signed_by = |key: &DataKey, row: KeyRow| {
            let mac = Some(tag.clone());
            is_signed(key, &KeyRow { mac, ..row })
        };
        assert!(is_signed_by(&key, row()));
        assert!(!is_signed_by(&other, row()));
        assert!(!is_signed(&key, &row()), "without a MAC");
        let changes: [fn(&mut KeyRow); 12] = [
            |row| row.id = "i".to_owned(),
            |row| row.project = "projec".to_owned(),
            |row| row.label = String::new(),
            |row| row.scopes = "iam:read admin".to_owned(),
            |row| (row.label, row.scopes) = ("labe".to_owned(), "liam:read".to_owned()),
            |row| row.digest = vec![8; 32],
            |row| row.created_at = 2,
            |row| row.expires_at = None,
            |row| row.expires_at = Some(3),
            |row| (row.expires_at, row.revoked_at) = (None, Some(2)),
            |row| row.revoked_at = Some(0),
            |row| row.created_by = Some("id".to_owned()),
        ];
        for change in changes {
            let mut changed = row();
            change(&mut changed);
            assert!(!is_signed_by(&key, changed.clone()), "{changed:?}");
        }
    }
}
