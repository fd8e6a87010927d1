//! Storage of directories and of the other large results of a walk: evidence, candidates and
//! suspects.
//!
//! The store treats them as opaque bytes. Each is sealed in the table `blobs`, bound to its
//! account, field and name. The small rows that change often are in tables of their own.

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

/// A stored directory with its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredDirectory {
    pub version: u64,
    pub encoded: Vec<u8>,
    pub sealed_at: Timestamp,
    /// When a walk last confirmed this version.
    pub verified_at: Timestamp,
    /// The rows that this walk left out.
    pub quarantined: Quarantined,
}

/// A stored directory without its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirectoryHead {
    pub version: u64,
    pub sealed_at: Timestamp,
    pub verified_at: Timestamp,
    /// The rows that the walk at `verified_at` left out.
    pub quarantined: Quarantined,
}

/// The current directory and the last finished walk of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Latest {
    /// None before the first sealed walk.
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
    /// The current directory with its content. None before the first sealed walk.
    pub async fn latest_directory(
        &self,
        project: &ProjectId,
        account: AccountId,
    ) -> Result<Option<StoredDirectory>> {
        // Blob names are text, and other fields have names that are not numbers. So the version is
        // cast to text, not the name to a number.
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

    /// One version of the directory. None if it is no longer retained.
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

    /// The current version, its age and the result of the last finished walk, without the
    /// directory's content. None if the project has no such account.
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

    /// The evidence of absences that the last walks collected. None before the first.
    pub async fn evidence(
        &self,
        project: &ProjectId,
        account: AccountId,
    ) -> Result<Option<Vec<u8>>> {
        self.blob(project, account, SealedColumn::Evidence, "")
            .await
    }

    /// The suspects of a held walk. They are retained as long as the walk.
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

/// A blob to be written. It is sealed before the transaction begins, so that encryption does not
/// hold up the single SQLite writer.
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

    /// Inserts the blob or replaces the former one.
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
