//! Storage of walks. One transaction stores everything that a finished walk changes
//! ([`Store::commit_walk`]). At most one walk of an account runs at a time ([`Store::begin_walk`]).
//!
//! Not here: the content of directories, evidence and candidates (`directories`), and the decision
//! whether a walk is sealed, held or failed ([`crate::gateway`]).

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

/// All changes of a finished walk. They are stored together or not at all.
#[derive(Debug, Clone, Copy)]
pub struct WalkCommit<'a> {
    pub project: &'a ProjectId,
    /// The number of the credential that the walk read with. The commit succeeds only while the
    /// account has that credential. None if the result does not depend on a credential.
    pub lineage: Option<u64>,
    /// The finished walk. The store may have it as running or held, or not at all.
    pub walk: &'a Walk,
    /// The version of the current directory that the walk was judged against; 0 for none. The
    /// commit succeeds only while that version is current. None if nothing was judged.
    pub judged_against: Option<u64>,
    /// A new version, if the walk changed anything.
    pub directory: Option<NewDirectory<'a>>,
    /// For a sealed walk, with or without changes: when the walk confirmed the current directory.
    pub verified_at: Option<Timestamp>,
    /// Replaces the account's former evidence.
    pub evidence: Option<&'a [u8]>,
    /// For a held walk: the directory to publish if a person releases it.
    pub candidate: Option<&'a [u8]>,
    /// For a held walk: its suspects.
    pub suspects: Option<&'a [u8]>,
    /// For a held walk: the details that are shown with the account.
    pub hold: Option<Hold>,
    /// For a sealed walk: deletes the candidates of all other walks.
    pub supersedes_held: bool,
    pub account_state: Option<AccountState<'a>>,
    /// The audit event of the decision about a held walk.
    pub decision: Option<&'a Event>,
}

/// Details of a held walk that are shown with its account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hold {
    /// How many users and groups are suspects.
    pub suspects: u64,
    /// True if the preceding held walk has some of the same suspects. If its reason is the same
    /// too, the hold began with that walk.
    pub is_repeated: bool,
}

/// The result of a [`WalkCommit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitWalkResult {
    Whole,
    /// The credential was replaced since the walk began. Nothing was written.
    CredentialReplaced,
    /// Another process ended this walk or decided on it, or published another version since the
    /// walk was judged. Nothing was written.
    Overtaken,
}

/// The result of starting a walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BeginWalkResult {
    /// The walk runs in this process. `started_at` is read after the account is locked, so any wait
    /// for the lock is over by then.
    Here { started_at: Timestamp },
    /// Another process runs a walk of this account: the one with this id.
    Elsewhere(WalkId),
}

/// A directory to be stored. Its version must follow the latest version directly.
#[derive(Debug, Clone, Copy)]
pub struct NewDirectory<'a> {
    pub version: u64,
    pub encoded: &'a [u8],
    pub sealed_at: Timestamp,
}

/// A held walk that can still be released.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleasableWalk {
    pub candidate: Vec<u8>,
    pub suspects: Vec<u8>,
}

/// How much history the store retains for each account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// How long a superseded directory is retained for cursors that still read it.
    pub superseded_directories: Duration,
    /// How many walks are retained.
    pub walks: u32,
    /// How many releasable held walks are retained.
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
    /// Stores a walk that begins now in this process, unless another walk of the same account is
    /// running. Records in the audit log that the walk uses the account's credential on behalf of
    /// `by`.
    ///
    /// # Errors
    /// `account_not_found` if the project has no such account.
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
            // This process runs one walk of an account at a time. So this walk has ended, and only
            // its end could not be stored.
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

    /// Stores the end of a walk and everything that it changes.
    ///
    /// # Errors
    /// `account_not_found` if the account was deleted meanwhile. Nothing is written then.
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
        // Encrypt before the transaction begins, since it holds a lock.
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
            None => clear_held_walk(&mut tx, project, walk, commit.supersedes_held).await?,
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

    /// The candidate and the suspects of a held walk. None if the walk was not held, is decided or
    /// superseded, or is no longer retained.
    pub async fn held(
        &self,
        project: &ProjectId,
        account: AccountId,
        walk: WalkId,
    ) -> Result<Option<ReleasableWalk>> {
        let name = walk.to_string();
        let Some(candidate) = self
            .blob(project, account, SealedColumn::Candidate, &name)
            .await?
        else {
            return Ok(None);
        };
        let suspects = self.suspects(project, account, walk).await?;
        Ok(Some(ReleasableWalk {
            candidate,
            suspects: suspects.unwrap_or_default(),
        }))
    }

    /// True if this process may store the end of the walk: it runs here, it is held and undecided,
    /// or it has no row yet.
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
            // A later sealed walk deletes the candidate. Then there is nothing left to decide.
            WalkState::Held => has_candidate(tx, project, walk).await?,
            WalkState::Sealed | WalkState::Failed => false,
        })
    }

    /// Inserts or updates a walk's row.
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
            // Also corrects a time in the future, stored before the clock was set back.
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

    /// Deletes history that is no longer retained.
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
                // Keep this walk in any case: after the clock was set back, older walks may have
                // higher ids.
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

/// True if `version` is the current version, or is None.
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

/// Publishes a new version. It must follow the latest version directly: of two walks that both
/// started from version 6 only one may create version 7, and no version may be skipped.
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

/// Records that this walk holds the account's directory, and since when the directory has been
/// held.
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

/// Clears the account's held walk if it is this one. A sealed walk clears it in any case.
async fn clear_held_walk(
    tx: &mut Tx,
    project: &ProjectId,
    walk: &Walk,
    is_sealed: bool,
) -> Result<()> {
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

/// Deletes the candidates of all other held walks: they were judged against an earlier version, or
/// this walk did not confirm them.
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

/// Marks a running walk as failed, because no process runs it any more.
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

/// Marks all running walks of an account as failed, in whichever process they run.
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

/// Deletes the candidate of a decided walk.
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
