//! The processes that serve one database, and what becomes of the walks of one that died.
//!
//! A replica is one run of one process. It says that it lives every so often, in the database's
//! time; who is silent for [`DEAD_AFTER`] is taken for dead by whoever notices first, and its
//! walks have failed. One that was only slow finds its walks ended by others, and can commit
//! none of them ([`Committed::Overtaken`](super::Committed)).
//!
//! A SQLite file is served by one process, so whoever comes after it knows that it has ended.

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

/// How long a replica may be silent.
pub const DEAD_AFTER: Duration = Duration::from_secs(10);

impl Store {
    /// True where several processes may serve one database.
    pub fn is_shared(&self) -> bool {
        self.file.is_none()
    }

    /// Begins to serve. Gives how many walks were ended whose replicas are dead.
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
            // A row that somebody else's end still holds keeps nobody from serving.
            Err(error) if self.is_shared() && error.kind() == Kind::StoreUnavailable => Ok(0),
            buried => buried,
        }
    }

    /// Takes the journal for this process, which must have one.
    ///
    /// # Errors
    /// It cannot be relied on: another process has it, it cannot be written, or with PostgreSQL its
    /// path is relative.
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

    /// Takes the journal, unless there is to be none. Whether it is had, or nobody needs it.
    /// Without it this serves too: a pair that the database does not take is then kept in memory
    /// alone.
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

    /// A sign of life, due well within [`DEAD_AFTER`] where the store is shared. Gives the walks
    /// that are this replica's and run. It waits for nobody, since it touches no row of another's.
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

    /// Ends the walks of replicas that are dead, and gives how many. Where one of them still holds
    /// a row, this is refused and tried again with the next sign.
    pub async fn reap_expired(&self) -> Result<u64> {
        let mut tx = self.db.begin().await?;
        tx.wait_for_locks_briefly().await?;
        let now = tx.now(&self.clock).await?;
        if self.is_shared() {
            let dead_before = now.saturating_sub(DEAD_AFTER).map_err(Error::internal)?;
            tx.execute(
                "delete from replicas where seen_at < $1 and id <> $2",
                [dead_before.into(), self.replica.into()],
            )
            .await?;
            self.reap_signs_ahead(&mut tx, now).await?;
        }
        let interrupted = self.end_walks_of_the_dead(&mut tx).await?;
        tx.commit().await?;
        Ok(interrupted)
    }

    /// Deletes the replicas that died before the database's date was set back: their last sign of
    /// life lies in the future. One that lives gives another sign.
    async fn reap_signs_ahead(&self, tx: &mut Tx, now: Timestamp) -> Result<()> {
        let ahead = now.saturating_add(DEAD_AFTER).map_err(Error::internal)?;
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
            known.retain(|id, (seen_at, _)| signs.contains(&(id.clone(), *seen_at)));
            for (id, seen_at) in signs {
                known.entry(id).or_insert((seen_at, monotonic));
            }
            let is_dead = |since: Duration| monotonic.saturating_sub(since) > DEAD_AFTER;
            let dead = known.iter().filter(|(_, (_, since))| is_dead(*since));
            dead.map(|(id, _)| id.clone()).collect()
        };
        for id in dead {
            tx.execute("delete from replicas where id = $1", [id.into()])
                .await?;
        }
        Ok(())
    }

    /// Ends walks of this replica that nobody in it runs any more, because their end could not be
    /// stored.
    pub async fn end_orphans(&self, walks: &[WalkId]) -> Result<()> {
        let mut tx = self.db.begin().await?;
        for walk in walks {
            interrupt(&mut tx, *walk, self.clock.now()).await?;
        }
        tx.commit().await
    }

    /// Ends to serve: what this replica still walks has failed, and the others need not wait.
    pub async fn leave(&self) -> Result<()> {
        let mut tx = self.db.begin().await?;
        tx.execute("delete from replicas where id = $1", [self.replica.into()])
            .await?;
        self.end_walks_of_the_dead(&mut tx).await?;
        tx.commit().await
    }

    async fn end_walks_of_the_dead(&self, tx: &mut Tx) -> Result<u64> {
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
