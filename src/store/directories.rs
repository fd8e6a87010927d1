//! Directories, and the other large things that a walk leaves: evidence, candidates, suspects.
//!
//! They are opaque bytes here. Each lies sealed in `blobs`, bound to its account, field and name,
//! beside small rows that may change often.

use jiff::Timestamp;

use super::{
    FieldSealer, SealedColumn, Store, db::Tx, decode_count, decode_timestamp, parse_id, parse_word,
};
use crate::{
    error::Result,
    model::{
        id::{AccountId, ProjectId, WalkId},
        walks::{Quarantined, WalkReason, WalkState},
    },
};

/// A directory as it was committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredDirectory {
    pub version: u64,
    pub encoded: Vec<u8>,
    pub sealed_at: Timestamp,
    /// When a walk last found that this was still true.
    pub verified_at: Timestamp,
    /// What that walk left out.
    pub quarantined: Quarantined,
}

/// A directory without its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirectoryHead {
    pub version: u64,
    pub sealed_at: Timestamp,
    pub verified_at: Timestamp,
    /// What the walk that last found it true left out.
    pub quarantined: Quarantined,
}

/// How an account's directory stands, as the store has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Latest {
    /// None before the first seal.
    pub directory: Option<DirectoryHead>,
    /// The last walk that ended.
    pub walk: Option<(WalkId, WalkState, Option<WalkReason>)>,
}

type LatestRow = (
    Option<i64>,
    Option<i64>,
    Option<i64>,
    Option<i64>,
    Option<i64>,
    Option<String>,
    Option<String>,
    Option<String>,
);

type DirectoryRow = (i64, i64, i64, i64, i64, Vec<u8>);

impl Store {
    /// The directory in force; None before the first seal.
    pub async fn latest_directory(
        &self,
        project: &ProjectId,
        account: AccountId,
    ) -> Result<Option<StoredDirectory>> {
        // The version of the number 7 is named "7": joined by text, as blobs have other names too.
        let row = self
            .db
            .fetch_one(
                "select d.version, d.sealed_at, d.verified_at, d.quarantined_users,
                        d.quarantined_groups, b.sealed
                 from directories d join blobs b
                   on b.project = d.project and b.account = d.account
                  and b.field = 'directory' and b.name = cast(d.version as text)
                 where d.project = $1 and d.account = $2 and d.superseded_at is null",
                [project.into(), account.into()],
            )
            .await?;
        self.decode_directory(project, account, row).await
    }

    /// One version, as long as it is kept.
    pub async fn directory(
        &self,
        project: &ProjectId,
        account: AccountId,
        version: u64,
    ) -> Result<Option<StoredDirectory>> {
        let row = self
            .db
            .fetch_one(
                "select d.version, d.sealed_at, d.verified_at, d.quarantined_users,
                        d.quarantined_groups, b.sealed
                 from directories d join blobs b
                   on b.project = d.project and b.account = d.account
                  and b.field = 'directory' and b.name = cast(d.version as text)
                 where d.project = $1 and d.account = $2 and d.version = $3",
                [project.into(), account.into(), version.into()],
            )
            .await?;
        self.decode_directory(project, account, row).await
    }

    /// Which version is in force, how old it is and how the last walk ended, without reading the
    /// directory; None if the project has no such account.
    pub async fn latest(&self, project: &ProjectId, account: AccountId) -> Result<Option<Latest>> {
        let row: Option<LatestRow> = self
            .db
            .fetch_one(
                "select d.version, d.sealed_at, d.verified_at, d.quarantined_users,
                        d.quarantined_groups, w.id, w.state, w.reason
                 from accounts a
                 left join directories d
                   on d.project = a.project and d.account = a.id and d.superseded_at is null
                 left join walks w on w.id = (
                     select id from walks
                     where project = a.project and account = a.id and state <> 'running'
                     order by ended_at desc, id desc limit 1)
                 where a.project = $1 and a.id = $2",
                [project.into(), account.into()],
            )
            .await?;
        let Some((version, sealed_at, verified_at, users, groups, walk, state, reason)) = row
        else {
            return Ok(None);
        };
        let directory = match (version, sealed_at, verified_at) {
            (Some(version), Some(sealed_at), Some(verified_at)) => Some(DirectoryHead {
                version: decode_count(version)?,
                sealed_at: decode_timestamp(sealed_at)?,
                verified_at: decode_timestamp(verified_at)?,
                quarantined: decode_quarantined(users.unwrap_or(0), groups.unwrap_or(0))?,
            }),
            _ => None,
        };
        let walk = match (walk, state) {
            (Some(id), Some(state)) => Some((
                parse_id(&id)?,
                parse_word(state)?,
                reason.map(parse_word).transpose()?,
            )),
            _ => None,
        };
        Ok(Some(Latest { directory, walk }))
    }

    /// What the last walks knew about who is missing.
    pub async fn evidence(
        &self,
        project: &ProjectId,
        account: AccountId,
    ) -> Result<Option<Vec<u8>>> {
        self.blob(project, account, SealedColumn::Evidence, "")
            .await
    }

    /// For whose sake a walk was held. Kept as long as the walk itself.
    pub async fn suspects(
        &self,
        project: &ProjectId,
        account: AccountId,
        walk: WalkId,
    ) -> Result<Option<Vec<u8>>> {
        self.blob(project, account, SealedColumn::Suspects, &walk.to_string())
            .await
    }

    pub(super) async fn blob(
        &self,
        project: &ProjectId,
        account: AccountId,
        field: SealedColumn,
        name: &str,
    ) -> Result<Option<Vec<u8>>> {
        let row: Option<(Vec<u8>,)> = self
            .db
            .fetch_one(
                "select sealed from blobs
                 where project = $1 and account = $2 and field = $3 and name = $4",
                [
                    project.into(),
                    account.into(),
                    field.as_str().into(),
                    name.into(),
                ],
            )
            .await?;
        let Some((sealed,)) = row else {
            return Ok(None);
        };
        let Some(sealer) = FieldSealer::of(self, project, account).await? else {
            return Ok(None);
        };
        let mut text = sealer.open(field, name, &sealed)?;
        Ok(Some(std::mem::take(&mut *text)))
    }

    async fn decode_directory(
        &self,
        project: &ProjectId,
        account: AccountId,
        row: Option<DirectoryRow>,
    ) -> Result<Option<StoredDirectory>> {
        let Some((version, sealed_at, verified_at, users, groups, sealed)) = row else {
            return Ok(None);
        };
        let Some(sealer) = FieldSealer::of(self, project, account).await? else {
            return Ok(None);
        };
        let mut encoded = sealer.open(SealedColumn::Directory, &version.to_string(), &sealed)?;
        Ok(Some(StoredDirectory {
            version: decode_count(version)?,
            encoded: std::mem::take(&mut *encoded),
            sealed_at: decode_timestamp(sealed_at)?,
            verified_at: decode_timestamp(verified_at)?,
            quarantined: decode_quarantined(users, groups)?,
        }))
    }
}

pub(super) fn decode_quarantined(users: i64, groups: i64) -> Result<Quarantined> {
    Ok(Quarantined {
        users: decode_count(users)?,
        groups: decode_count(groups)?,
    })
}

/// A blob on its way into a transaction, sealed beforehand so that the one writer does not
/// wait for a cipher.
pub(super) struct SealedBlob {
    field: SealedColumn,
    name: String,
    sealed: Vec<u8>,
}

impl SealedBlob {
    pub(super) fn new(
        sealer: &FieldSealer<'_>,
        field: SealedColumn,
        name: String,
        text: &[u8],
    ) -> Self {
        let sealed = sealer.seal(field, &name, text);
        Self {
            field,
            name,
            sealed,
        }
    }

    /// Puts it in the place of what was there.
    pub(super) async fn write(
        self,
        tx: &mut Tx,
        project: &ProjectId,
        account: AccountId,
    ) -> Result<()> {
        tx.execute(
            "insert into blobs (project, account, field, name, sealed)
             values ($1, $2, $3, $4, $5)
             on conflict (project, account, field, name) do update set sealed = excluded.sealed",
            [
                project.into(),
                account.into(),
                self.field.as_str().into(),
                self.name.into(),
                self.sealed.into(),
            ],
        )
        .await
        .map(drop)
    }
}
