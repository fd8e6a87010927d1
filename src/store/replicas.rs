//! The processes that serve one database, and recovery after the failure of one.
//!
//! A replica is one run of one process. It writes a heartbeat regularly, in the database's time.
//! When the last heartbeat is older than [`HEARTBEAT_TIMEOUT`], the next replica that notices marks its
//! walks as failed. A replica that was only slow finds that others ended its walks, and can commit
//! none of them ([`CommitWalkResult::Overtaken`](super::CommitWalkResult::Overtaken)).
//!
//! Only one process serves a SQLite file, so a new process knows that all earlier ones have ended.

use std::{io, sync::PoisonError, time::Duration};

use jiff::Timestamp;

use super::{
    JournalFault, Store, db::Tx, inspect::must_be_absolute, journal::Journal, parse_id,
    walks::interrupt, word,
};
use crate::{
    error::{Error, Kind, Result},
    model::{
        id::WalkId,
        walks::{WalkReason, WalkState},
    },
};

/// A replica without a heartbeat for this long counts as failed.
pub const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(10);

impl Store {
    /// True if several processes may serve the database.
    pub fn is_shared(&self) -> bool {
        self.file.is_none()
    }

    /// Registers this replica. Returns how many walks of failed replicas were ended.
    pub async fn join(&self) -> Result<u64> {
        if !self.is_shared() {
            let mut tx = self.db.begin().await?;
            tx.execute("delete from replicas", []).await?;
            tx.commit().await?;
        }
        match self.claim_journal() {
            Ok(true) => {}
            Ok(false) => tracing::warn!("another process has the journal of token pairs"),
            Err(error) => tracing::error!(%error, "the journal of token pairs cannot be used"),
        }
        self.write_heartbeat().await?;
        if self.is_shared() {
            self.confirm_ring().await?;
        }
        match self.reap_expired().await {
            // A lock that another transaction holds must not prevent the start.
            Err(error) if self.is_shared() && error.kind() == Kind::StoreUnavailable => Ok(0),
            buried => buried,
        }
    }

    /// Locks the journal for this process, which needs it.
    ///
    /// # Errors
    /// Another process has locked it, it cannot be written, or its path is relative with
    /// PostgreSQL.
    pub fn require_journal(&self) -> Result<(), JournalFault> {
        let Some(path) = self.journal_path.clone() else {
            return Ok(());
        };
        must_be_absolute(self.is_shared(), &path)?;
        match self.claim_journal() {
            Ok(true) => Ok(()),
            Ok(false) => Err(JournalFault::InUse { path }),
            Err(source) => Err(JournalFault::Unwritable { path, source }),
        }
    }

    /// Locks the journal, if one is configured. True if this process has it or none is configured.
    /// A process can serve without a journal: a token pair that the database does not accept is
    /// then kept in memory only.
    pub(super) fn claim_journal(&self) -> io::Result<bool> {
        let Some(path) = &self.journal_path else {
            return Ok(true);
        };
        if self.journal.get().is_some() {
            return Ok(true);
        }
        let claimed = Journal::claim(path, &self.rng)?;
        Ok(claimed.is_some_and(|journal| self.journal.set(journal).is_ok()))
    }

    /// Writes a heartbeat. In a shared store it is due well within [`HEARTBEAT_TIMEOUT`]. Returns the
    /// running walks of this replica. It touches no row of another replica, so it does not wait for
    /// their locks.
    pub async fn write_heartbeat(&self) -> Result<Vec<WalkId>> {
        let mut tx = self.db.begin().await?;
        let now = tx.now(&self.clock).await?;
        tx.execute(
            "insert into replicas (id, seen_at, key_ids) values ($1, $2, $3)
             on conflict (id) do update set
                 seen_at = excluded.seen_at, key_ids = excluded.key_ids",
            [self.replica.into(), now.into(), self.key_ids().into()],
        )
        .await?;
        let running: Vec<(String,)> = tx
            .fetch(
                "select id from walks where state = 'running' and replica = $1",
                [self.replica.into()],
            )
            .await?;
        tx.commit().await?;
        running.iter().map(|(id,)| parse_id(id)).collect()
    }

    /// Ends the walks of failed replicas and returns how many. Fails if a failed replica still
    /// holds a row lock; the next heartbeat tries again.
    pub async fn reap_expired(&self) -> Result<u64> {
        let mut tx = self.db.begin().await?;
        tx.wait_for_locks_briefly().await?;
        let now = tx.now(&self.clock).await?;
        if self.is_shared() {
            let dead_before = now
                .saturating_sub(HEARTBEAT_TIMEOUT)
                .map_err(Error::internal)?;
            tx.execute(
                "delete from replicas where seen_at < $1 and id <> $2",
                [dead_before.into(), self.replica.into()],
            )
            .await?;
            self.reap_future_heartbeats(&mut tx, now).await?;
        }
        let interrupted = self.fail_orphaned_walks(&mut tx).await?;
        tx.commit().await?;
        Ok(interrupted)
    }

    /// Deletes failed replicas whose last heartbeat is in the future, because the database's clock
    /// was set back since. A running replica soon writes another heartbeat. So a row is deleted
    /// only after it has stayed the same for [`HEARTBEAT_TIMEOUT`], measured by this process's monotonic
    /// clock.
    async fn reap_future_heartbeats(&self, tx: &mut Tx, now: Timestamp) -> Result<()> {
        let ahead = now
            .saturating_add(HEARTBEAT_TIMEOUT)
            .map_err(Error::internal)?;
        let signs: Vec<(String, i64)> = tx
            .fetch(
                "select id, seen_at from replicas where seen_at > $1 and id <> $2",
                [ahead.into(), self.replica.into()],
            )
            .await?;
        let monotonic = self.clock.monotonic();
        let dead: Vec<String> = {
            let mut known = self
                .signs_ahead
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            // Forget the replicas that have written another heartbeat.
            known.retain(|id, (seen_at, _)| signs.contains(&(id.clone(), *seen_at)));
            for (id, seen_at) in signs {
                known.entry(id).or_insert((seen_at, monotonic));
            }
            let is_dead = |since: Duration| monotonic.saturating_sub(since) > HEARTBEAT_TIMEOUT;
            let dead = known.iter().filter(|(_, (_, since))| is_dead(*since));
            dead.map(|(id, _)| id.clone()).collect()
        };
        for id in dead {
            tx.execute("delete from replicas where id = $1", [id.into()])
                .await?;
        }
        Ok(())
    }

    /// Ends walks of this replica that run no longer, but are stored as running because their end
    /// could not be stored.
    pub async fn end_orphans(&self, walks: &[WalkId]) -> Result<()> {
        let mut tx = self.db.begin().await?;
        for walk in walks {
            interrupt(&mut tx, *walk, self.clock.now()).await?;
        }
        tx.commit().await
    }

    /// Unregisters this replica. Its remaining walks fail at once, so other replicas need not wait.
    pub async fn leave(&self) -> Result<()> {
        let mut tx = self.db.begin().await?;
        tx.execute("delete from replicas where id = $1", [self.replica.into()])
            .await?;
        self.fail_orphaned_walks(&mut tx).await?;
        tx.commit().await
    }

    async fn fail_orphaned_walks(&self, tx: &mut Tx) -> Result<u64> {
        tx.execute(
            "update walks set state = $1, reason = $2, ended_at = $3
             where state = 'running' and replica not in (select id from replicas)",
            [
                word(&WalkState::Failed)?.into(),
                word(&WalkReason::Interrupted)?.into(),
                self.clock.now().into(),
            ],
        )
        .await
    }
}
