//! Walks, and the one transaction that ends one.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    FieldSealer, SealedColumn, Store,
    accounts::{AccountState, write_state},
    credentials::is_lineage,
    db::Tx,
    decode_count, decode_timestamp,
    directories::{SealedBlob, decode_quarantined},
    lock_account, no_such_account, parse_id, parse_word, plausible_until, word,
};
use crate::{
    error::{Error, Result},
    model::{
        audit_log::{Actor, AuditAction, Event},
        id::{AccountId, ProjectId, WalkId},
        walks::{Walk, WalkCounts, WalkReason, WalkState},
    },
};

/// What a finished walk changes. All of it or, on an error, nothing.
#[derive(Debug, Clone, Copy)]
pub struct WalkCommit<'a> {
    pub project: &'a ProjectId,
    /// The lineage of the credential that the walk read with: what that one saw counts only while
    /// it is the account's. None where what is written does not hang on it.
    pub lineage: Option<u64>,
    /// As it ended. Its row may be one that this process has running, one that is held, or not
    /// there at all.
    pub walk: &'a Walk,
    /// The version in force that the walk was judged against, 0 for none: what was found counts
    /// only while that is in force. None where nothing was judged.
    pub judged_against: Option<u64>,
    /// A new version, if anything changed.
    pub directory: Option<NewDirectory<'a>>,
    /// Of a sealed walk, changed or not: the directory in force is true as of this moment.
    pub verified_at: Option<Timestamp>,
    /// Replaces the account's former evidence.
    pub evidence: Option<&'a [u8]>,
    /// Of a held walk: what to seal if a person releases it.
    pub candidate: Option<&'a [u8]>,
    /// Of a held walk: for whose sake it was held.
    pub suspects: Option<&'a [u8]>,
    /// Of a held walk: what is told of it with its account.
    pub hold: Option<Hold>,
    /// Of a sealed walk: the candidates of all earlier walks are dropped.
    pub supersedes_held: bool,
    pub account_state: Option<AccountState<'a>>,
    /// Who decided on a held walk, and how.
    pub decision: Option<&'a Event>,
}

/// What is told of a held walk with its account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hold {
    /// How many it was held for.
    pub suspects: u64,
    /// Whether an earlier held walk was held for some of the same, so that the hold began with it
    /// if it was held for the same reason.
    pub is_repeated: bool,
}

/// What became of a [`WalkCommit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitWalkResult {
    Whole,
    /// The credential was replaced since the walk began, and nothing was written.
    CredentialReplaced,
    /// Somebody else ended this walk, decided on it, or put another version in force since it was
    /// judged; nothing was written.
    Overtaken,
}

/// What became of a walk that was to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BeginWalkResult {
    /// Here, and since then: whatever was waited for is over.
    Here { started_at: Timestamp },
    /// This one of the same account runs already.
    Elsewhere(WalkId),
}

/// A directory to be stored: exactly one version after the latest.
#[derive(Debug, Clone, Copy)]
pub struct NewDirectory<'a> {
    pub version: u64,
    pub encoded: &'a [u8],
    pub sealed_at: Timestamp,
}

/// A held walk that can still be released.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldWalk {
    pub candidate: Vec<u8>,
    pub suspects: Vec<u8>,
}

/// How much of what is past is kept for each account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// How long a directory stays after a newer one, for cursors that still read it.
    pub superseded_directories: Duration,
    /// The last so many walks.
    pub walks: u32,
    /// The last so many held walks that can be released.
    pub candidates: u32,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            superseded_directories: Duration::from_secs(20 * 60),
            walks: 200,
            candidates: 10,
        }
    }
}

type WalkRow = (
    String,
    String,
    String,
    Option<String>,
    Option<String>,
    Option<i64>,
    Option<i64>,
    Option<i64>,
    i64,
    i64,
    i64,
    i64,
    Option<i64>,
);

impl Store {
    /// Stores a walk that begins now and in this process, unless another of the same account runs.
    /// It will use the account's credential, on behalf of `by`.
    pub async fn begin_walk(
        &self,
        project: &ProjectId,
        walk: &Walk,
        by: Actor,
    ) -> Result<BeginWalkResult> {
        let mut tx = self.db.begin().await?;
        if !lock_account(&mut tx, project, walk.account).await? {
            return Err(no_such_account());
        }
        let running: Option<(String, String)> = tx
            .fetch_one(
                "select id, replica from walks where project = $1 and account = $2 and state = 'running'",
                [project.into(), walk.account.into()],
            )
            .await?;
        match running {
            // This process walks an account once at a time: what it began before has ended, and
            // only that could not be stored.
            Some((id, replica)) if replica == self.replica.to_string() => {
                interrupt(&mut tx, parse_id(&id)?, self.clock.now()).await?;
            }
            Some((id, _)) => return Ok(BeginWalkResult::Elsewhere(parse_id(&id)?)),
            None => {}
        }
        let started_at = self.clock.now();
        let walk = Walk {
            started_at,
            ..walk.clone()
        };
        self.write_walk(&mut tx, project, &walk).await?;
        let used = Event::new(by, AuditAction::CredentialUsed, walk.account).with("walk", walk.id);
        self.audit(&mut tx, project, None, &[used]).await?;
        tx.commit().await?;
        Ok(BeginWalkResult::Here { started_at })
    }

    /// Ends a walk. `AccountNotFound` if the account was deleted meanwhile, and then nothing
    /// is written.
    pub async fn commit_walk(&self, commit: WalkCommit<'_>) -> Result<CommitWalkResult> {
        let WalkCommit { project, walk, .. } = commit;
        let account = walk.account;
        let sealer = FieldSealer::of(self, project, account)
            .await?
            .ok_or_else(no_such_account)?;
        let walk_name = || walk.id.to_string();
        let blob = |field, name, text: Option<&[u8]>| {
            text.map(|text| SealedBlob::new(&sealer, field, name, text))
        };
        let directory = commit.directory.map(|new| {
            let name = new.version.to_string();
            (
                new,
                SealedBlob::new(&sealer, SealedColumn::Directory, name, new.encoded),
            )
        });
        let others = [
            blob(SealedColumn::Evidence, String::new(), commit.evidence),
            blob(SealedColumn::Candidate, walk_name(), commit.candidate),
            blob(SealedColumn::Suspects, walk_name(), commit.suspects),
        ];
        let now = self.clock.now();

        let mut tx = self.db.begin().await?;
        if !lock_account(&mut tx, project, account).await? {
            return Err(no_such_account());
        }
        if let Some(lineage) = commit.lineage
            && !is_lineage(&mut tx, project, account, lineage).await?
        {
            return Ok(CommitWalkResult::CredentialReplaced);
        }
        if !self.may_end(&mut tx, project, walk).await?
            || !is_in_force(&mut tx, project, account, commit.judged_against).await?
        {
            return Ok(CommitWalkResult::Overtaken);
        }
        self.write_walk(&mut tx, project, walk).await?;
        if let Some((new, blob)) = directory {
            supersede(&mut tx, project, account, new).await?;
            blob.write(&mut tx, project, account).await?;
        }
        if let Some(verified_at) = commit.verified_at {
            verify(&mut tx, project, walk, verified_at).await?;
        }
        for blob in others.into_iter().flatten() {
            blob.write(&mut tx, project, account).await?;
        }
        if commit.supersedes_held {
            drop_other_candidates(&mut tx, project, walk).await?;
        }
        match commit.hold {
            Some(hold) => hold_back(&mut tx, project, walk, hold).await?,
            None => cancel_walk(&mut tx, project, walk, commit.supersedes_held).await?,
        }
        if walk.state != WalkState::Held {
            drop_candidate_of(&mut tx, project, walk).await?;
        }
        let mut events = Vec::from_iter(commit.decision.cloned());
        if let Some(state) = commit.account_state {
            events.extend(write_state(&mut tx, &sealer, account, state, now).await?);
        }
        self.forget(&mut tx, project, walk, now).await?;
        self.audit(&mut tx, project, Some(&sealer.key), &events)
            .await?;
        tx.commit().await?;
        Ok(CommitWalkResult::Whole)
    }

    pub async fn walk(
        &self,
        project: &ProjectId,
        account: AccountId,
        id: WalkId,
    ) -> Result<Option<Walk>> {
        let row = self
            .db
            .fetch_one(
                "select id, account, state, reason, directory_version, user_count, group_count,
                        role_count, quarantined_users, quarantined_groups, upstream_calls,
                        started_at, ended_at
                 from walks where project = $1 and account = $2 and id = $3",
                [project.into(), account.into(), id.into()],
            )
            .await?;
        row.map(decode_walk).transpose()
    }

    /// An account's walks, the newest first: at most `limit`, older than `before`.
    pub async fn walks(
        &self,
        project: &ProjectId,
        account: AccountId,
        before: Option<WalkId>,
        limit: u32,
    ) -> Result<Vec<Walk>> {
        let before = before.unwrap_or(WalkId::from_uuid(uuid::Uuid::max()));
        let rows = self
            .db
            .fetch(
                "select id, account, state, reason, directory_version, user_count, group_count,
                        role_count, quarantined_users, quarantined_groups, upstream_calls,
                        started_at, ended_at
                 from walks where project = $1 and account = $2 and id < $3
                 order by id desc limit $4",
                [
                    project.into(),
                    account.into(),
                    before.into(),
                    u64::from(limit).into(),
                ],
            )
            .await?;
        rows.into_iter().map(decode_walk).collect()
    }

    /// What a held walk would seal; None if it was not held, or is decided, superseded or
    /// forgotten.
    pub async fn held(
        &self,
        project: &ProjectId,
        account: AccountId,
        walk: WalkId,
    ) -> Result<Option<HeldWalk>> {
        let name = walk.to_string();
        let Some(candidate) = self
            .blob(project, account, SealedColumn::Candidate, &name)
            .await?
        else {
            return Ok(None);
        };
        let suspects = self.suspects(project, account, walk).await?;
        Ok(Some(HeldWalk {
            candidate,
            suspects: suspects.unwrap_or_default(),
        }))
    }

    /// True if this process may say how the walk ended: it runs here, it is held, or nobody has
    /// stored it yet.
    async fn may_end(&self, tx: &mut Tx, project: &ProjectId, walk: &Walk) -> Result<bool> {
        let row: Option<(String, String)> = tx
            .fetch_one(
                "select state, replica from walks
                 where project = $1 and account = $2 and id = $3",
                [project.into(), walk.account.into(), walk.id.into()],
            )
            .await?;
        let Some((state, replica)) = row else {
            return Ok(true);
        };
        Ok(match parse_word(state)? {
            WalkState::Running => replica == self.replica.to_string(),
            // Once a later walk has sealed there is nothing left to decide.
            WalkState::Held => has_candidate(tx, project, walk).await?,
            WalkState::Sealed | WalkState::Failed => false,
        })
    }

    /// Inserts a walk's row, or brings it up to date.
    async fn write_walk(&self, tx: &mut Tx, project: &ProjectId, walk: &Walk) -> Result<()> {
        let counts = walk.counts;
        let written = tx
            .execute(
                "insert into walks
                     (id, project, account, state, reason, directory_version, user_count,
                      group_count, role_count, quarantined_users, quarantined_groups,
                      upstream_calls, started_at, ended_at, replica)
                 values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
                 on conflict (id) do update set
                     state = excluded.state, reason = excluded.reason,
                     directory_version = excluded.directory_version,
                     user_count = excluded.user_count, group_count = excluded.group_count,
                     role_count = excluded.role_count,
                     quarantined_users = excluded.quarantined_users,
                     quarantined_groups = excluded.quarantined_groups,
                     upstream_calls = excluded.upstream_calls,
                     started_at = excluded.started_at, ended_at = excluded.ended_at
                 where walks.project = excluded.project and walks.account = excluded.account",
                [
                    walk.id.into(),
                    project.into(),
                    walk.account.into(),
                    word(&walk.state)?.into(),
                    walk.reason.as_ref().map(word).transpose()?.into(),
                    walk.directory_version.clone().into(),
                    counts.map(|counts| counts.users).into(),
                    counts.map(|counts| counts.groups).into(),
                    counts.map(|counts| counts.roles).into(),
                    walk.quarantined.users.into(),
                    walk.quarantined.groups.into(),
                    walk.upstream_calls.into(),
                    walk.started_at.into(),
                    walk.ended_at.into(),
                    self.replica.into(),
                ],
            )
            .await?;
        if written == 0 {
            return Err(Error::internal("a walk's id is that of another account's"));
        }
        tx.execute(
            "update accounts set walked_at = $3
             where project = $1 and id = $2 and (walked_at < $3 or walked_at > $4)",
            [
                project.into(),
                walk.account.into(),
                walk.started_at.into(),
                plausible_until(self.clock.now())?.into(),
            ],
        )
        .await?;
        Ok(())
    }

    /// Drops what is past and no longer kept.
    async fn forget(
        &self,
        tx: &mut Tx,
        project: &ProjectId,
        walk: &Walk,
        now: Timestamp,
    ) -> Result<()> {
        let account = walk.account;
        let Retention {
            superseded_directories,
            walks,
            candidates,
        } = self.retention;
        let versions: Vec<(i64,)> = tx
            .fetch(
                "delete from directories
                 where project = $1 and account = $2 and superseded_at < $3
                 returning version",
                [
                    project.into(),
                    account.into(),
                    now.saturating_sub(superseded_directories)
                        .map_err(Error::internal)?
                        .into(),
                ],
            )
            .await?;
        for (version,) in versions {
            tx.execute(
                "delete from blobs
                 where project = $1 and account = $2 and field = 'directory' and name = $3",
                [project.into(), account.into(), version.to_string().into()],
            )
            .await?;
        }
        let walks: Vec<(String,)> = tx
            .fetch(
                // This one is the last, whatever the date was when the others were made.
                "delete from walks
                 where project = $1 and account = $2 and id <> $4 and id not in (
                     select id from walks where project = $1 and account = $2
                     order by id desc limit $3)
                 returning id",
                [
                    project.into(),
                    account.into(),
                    u64::from(walks).into(),
                    walk.id.into(),
                ],
            )
            .await?;
        for (walk,) in walks {
            tx.execute(
                "delete from blobs
                 where project = $1 and account = $2 and name = $3
                   and field in ('candidate', 'suspects')",
                [project.into(), account.into(), walk.into()],
            )
            .await?;
        }
        tx.execute(
            "delete from blobs
             where project = $1 and account = $2 and field = 'candidate' and name <> $4
                 and name not in (
                     select name from blobs
                     where project = $1 and account = $2 and field = 'candidate'
                     order by name desc limit $3)",
            [
                project.into(),
                account.into(),
                u64::from(candidates).into(),
                walk.id.into(),
            ],
        )
        .await
        .map(drop)
    }
}

/// True if this is the version in force, or if it does not matter.
async fn is_in_force(
    tx: &mut Tx,
    project: &ProjectId,
    account: AccountId,
    version: Option<u64>,
) -> Result<bool> {
    let Some(version) = version else {
        return Ok(true);
    };
    let row: Option<(i64,)> = tx
        .fetch_one(
            "select version from directories
             where project = $1 and account = $2 and superseded_at is null",
            [project.into(), account.into()],
        )
        .await?;
    let in_force = row.map_or(Ok(0), |(version,)| decode_count(version))?;
    Ok(in_force == version)
}

/// Puts a new version in force. The version must follow the latest: two walks that both grew
/// out of version 6 must not both become 7, and none may be skipped.
async fn supersede(
    tx: &mut Tx,
    project: &ProjectId,
    account: AccountId,
    new: NewDirectory<'_>,
) -> Result<()> {
    let latest: Option<(i64,)> = tx
        .fetch_one(
            "update directories set superseded_at = $3
             where project = $1 and account = $2 and superseded_at is null
             returning version",
            [project.into(), account.into(), new.sealed_at.into()],
        )
        .await?;
    let latest = latest.map_or(Ok(0), |(version,)| decode_count(version))?;
    if latest.checked_add(1) != Some(new.version) {
        return Err(Error::internal(format!(
            "directory version {} does not follow version {latest}",
            new.version
        )));
    }
    tx.execute(
        "insert into directories (project, account, version, sealed_at, verified_at)
         values ($1, $2, $3, $4, $4)",
        [
            project.into(),
            account.into(),
            new.version.into(),
            new.sealed_at.into(),
        ],
    )
    .await
    .map(drop)
}

async fn verify(
    tx: &mut Tx,
    project: &ProjectId,
    walk: &Walk,
    verified_at: Timestamp,
) -> Result<()> {
    let verified = tx
        .execute(
            "update directories
             set verified_at = $3, quarantined_users = $4, quarantined_groups = $5
             where project = $1 and account = $2 and superseded_at is null",
            [
                project.into(),
                walk.account.into(),
                verified_at.into(),
                walk.quarantined.users.into(),
                walk.quarantined.groups.into(),
            ],
        )
        .await?;
    match verified {
        0 => Err(Error::internal("there is no directory to be verified")),
        _ => Ok(()),
    }
}

/// Notes that this walk keeps its account's directory as it is, and since when it is kept so.
async fn hold_back(tx: &mut Tx, project: &ProjectId, walk: &Walk, hold: Hold) -> Result<()> {
    let former: Option<(Option<i64>, Option<String>)> = tx
        .fetch_one(
            "select w.held_since, w.reason from accounts a
             join walks w on w.project = a.project and w.account = a.id and w.id = a.held_walk
             where a.project = $1 and a.id = $2",
            [project.into(), walk.account.into()],
        )
        .await?;
    let reason = walk.reason.as_ref().map(word).transpose()?;
    let since = match former {
        Some((Some(since), of)) if hold.is_repeated && of == reason => decode_timestamp(since)?,
        _ => walk.ended_at.unwrap_or(walk.started_at),
    };
    tx.execute(
        "update walks set suspect_count = $4, held_since = $5
         where project = $1 and account = $2 and id = $3",
        [
            project.into(),
            walk.account.into(),
            walk.id.into(),
            hold.suspects.into(),
            since.into(),
        ],
    )
    .await?;
    tx.execute(
        "update accounts set held_walk = $3 where project = $1 and id = $2",
        [project.into(), walk.account.into(), walk.id.into()],
    )
    .await
    .map(drop)
}

/// Notes that this walk keeps the directory as it is no more; where it was sealed, that none does.
async fn cancel_walk(tx: &mut Tx, project: &ProjectId, walk: &Walk, is_sealed: bool) -> Result<()> {
    tx.execute(
        "update accounts set held_walk = null
         where project = $1 and id = $2 and held_walk is not null
             and (held_walk = $3 or $4 = 1)",
        [
            project.into(),
            walk.account.into(),
            walk.id.into(),
            u64::from(is_sealed).into(),
        ],
    )
    .await
    .map(drop)
}

/// Whatever else is held was judged against what is in force no more, or was not confirmed.
async fn drop_other_candidates(tx: &mut Tx, project: &ProjectId, walk: &Walk) -> Result<()> {
    tx.execute(
        "delete from blobs
         where project = $1 and account = $2 and field = 'candidate' and name <> $3",
        [project.into(), walk.account.into(), walk.id.into()],
    )
    .await
    .map(drop)
}

async fn has_candidate(tx: &mut Tx, project: &ProjectId, walk: &Walk) -> Result<bool> {
    let row: Option<(String,)> = tx
        .fetch_one(
            "select name from blobs
             where project = $1 and account = $2 and field = 'candidate' and name = $3",
            [project.into(), walk.account.into(), walk.id.into()],
        )
        .await?;
    Ok(row.is_some())
}

/// Ends the row of a walk that nobody runs any more.
pub(super) async fn interrupt(tx: &mut Tx, walk: WalkId, now: Timestamp) -> Result<()> {
    tx.execute(
        "update walks set state = $2, reason = $3, ended_at = $4
         where id = $1 and state = 'running'",
        [
            walk.into(),
            word(&WalkState::Failed)?.into(),
            word(&WalkReason::Interrupted)?.into(),
            now.into(),
        ],
    )
    .await
    .map(drop)
}

/// Ends the rows of an account's walks, whoever runs them.
pub(super) async fn end_walks_of(
    tx: &mut Tx,
    project: &ProjectId,
    account: AccountId,
    now: Timestamp,
) -> Result<()> {
    tx.execute(
        "update walks set state = $3, reason = $4, ended_at = $5
         where project = $1 and account = $2 and state = 'running'",
        [
            project.into(),
            account.into(),
            word(&WalkState::Failed)?.into(),
            word(&WalkReason::Interrupted)?.into(),
            now.into(),
        ],
    )
    .await
    .map(drop)
}

/// A walk that is decided has nothing left to be released.
async fn drop_candidate_of(tx: &mut Tx, project: &ProjectId, walk: &Walk) -> Result<()> {
    tx.execute(
        "delete from blobs
         where project = $1 and account = $2 and field = 'candidate' and name = $3",
        [project.into(), walk.account.into(), walk.id.into()],
    )
    .await
    .map(drop)
}

fn decode_walk(row: WalkRow) -> Result<Walk> {
    let (
        id,
        account,
        state,
        reason,
        directory_version,
        users,
        groups,
        roles,
        quarantined_users,
        quarantined_groups,
        upstream_calls,
        started_at,
        ended_at,
    ) = row;
    let counts = match (users, groups, roles) {
        (Some(users), Some(groups), Some(roles)) => Some(WalkCounts {
            users: decode_count(users)?,
            groups: decode_count(groups)?,
            roles: decode_count(roles)?,
        }),
        _ => None,
    };
    Ok(Walk {
        id: parse_id(&id)?,
        account: parse_id(&account)?,
        state: parse_word(state)?,
        reason: reason.map(parse_word).transpose()?,
        directory_version,
        counts,
        quarantined: decode_quarantined(quarantined_users, quarantined_groups)?,
        upstream_calls: decode_count(upstream_calls)?,
        started_at: decode_timestamp(started_at)?,
        ended_at: ended_at.map(decode_timestamp).transpose()?,
    })
}
