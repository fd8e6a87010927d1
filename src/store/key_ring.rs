//! Which key of the ring wraps the projects' data keys.
//!
//! That is for the database to say, and not for each process: the key whose known answer came last
//! is the *active* one, and wraps whatever is wrapped, whoever does it
//! ([ADR 12](../../../docs/adr/0012-the-database-says-which-key-wraps.md)). The first key of a ring
//! becomes active once every process that serves has it, and when it is active no more it never is
//! again: so processes whose rings differ cannot pull in two directions. A key that wraps nothing
//! may be *retired*. Its known answer goes, and it never wraps again.
//!
//! Whatever changes this, or relies on it, does so under one lock ([`Tx::lock_ring`]), and finds
//! what the one before has left.
//!
//! Not here: when to look at the file again and when to wrap anew ([`crate::gateway`]); how the file
//! is changed ([`crate::crypto::RingFile`]).

use std::error::Error as _;

use jiff::Timestamp;

use super::{
    OpenError, Store,
    db::Tx,
    decode_count, locked,
    open::{KeyChecks, known_answer, prove_keys},
    parse_project,
    replicas::DEAD_AFTER,
};
use crate::{
    crypto::{DataKey, Exposure, KeyRing, KeyRingError, OpenFault},
    error::{Error, Result},
    model::{
        audit_log::{Actor, AuditAction, Event, Subject, SubjectKind},
        id::ProjectId,
    },
};

/// A project's id, its data key's id and wrapped form, by which key, and when it was deleted.
type WrappedRow = (String, String, Vec<u8>, String, Option<i64>);

/// So many data keys are wrapped anew in one transaction.
const REWRAPPED_AT_ONCE: u64 = 50;

/// How the first key of a ring stands to the active one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstKey {
    /// It is the active one.
    Active,
    /// It will be, once so many processes that serve without it have it too.
    Awaited { processes: usize },
    /// It was, before another that the ring has as well or lacks.
    Former,
    /// It was taken out of use.
    Retired,
}

/// What one turn of wrapping data keys anew came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewrapped {
    /// The id of the active key.
    pub active: String,
    pub first: FirstKey,
    /// How many data keys were wrapped anew.
    pub count: u64,
    /// How many other keys still wrap.
    pub left: u64,
    /// Projects whose data key does not open, and so was left as it is.
    pub locked: Vec<(ProjectId, OpenFault)>,
    /// Behind which project the next turn goes on; None if this was the last.
    pub next: Option<ProjectId>,
}

/// What became of a key that was to be retired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retirement {
    Done,
    /// It was retired before.
    Before,
    /// It is the active key.
    Active,
    /// It still wraps so many data keys.
    Wraps(u64),
}

/// How the ring's keys stand in the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RingStanding {
    /// The id of the key that wraps.
    pub active: String,
    /// Every key that the database asks for, in the order in which they became active, and how many
    /// data keys each wraps.
    pub usage: Vec<(String, u64)>,
    pub retired: Vec<String>,
    /// The keys that each process has that serves.
    pub processes: Vec<Vec<String>>,
}

/// Why a changed key file was not taken, and the ring stayed as it was.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    #[error("it cannot be read: {0}")]
    File(#[from] KeyRingError),
    #[error("it does not fit the database, which asks for key `{key_id}`: {fault}")]
    DoesNotFit { key_id: String, fault: OpenFault },
    #[error(transparent)]
    Store(#[from] Error),
}

/// Which key wraps, as a transaction found it or made it so, and the ring that it is in.
pub(super) struct Wrapping {
    pub active: String,
    pub first: FirstKey,
    pub ring: KeyRing,
}

impl Store {
    /// The ring that this process works with.
    pub fn ring(&self) -> KeyRing {
        self.ring.current()
    }

    /// Who else can get at the key file.
    pub fn ring_exposure(&self) -> Option<Exposure> {
        self.ring.exposure()
    }

    /// Takes what is in the key file, if that has changed: all that begins from then on is done with
    /// the new ring.
    ///
    /// # Errors
    /// When it cannot be read, or lacks a key that the database asks for; the ring stays.
    pub async fn reload_ring(&self) -> Result<(), ReloadError> {
        // One at a time: whoever read the file later also has the last word.
        let _reloading = self.reloading.lock().await;
        let ring = self.ring.clone();
        let found = tokio::task::spawn_blocking(move || ring.changed()).await;
        let Some(found) = found.map_err(Error::internal)?? else {
            return Ok(());
        };
        let checks: KeyChecks = self
            .db
            .fetch(
                "select key_id, sealed from key_checks order by created_at, key_id",
                [],
            )
            .await?;
        match prove_keys(&found, &checks) {
            Err(OpenError::WrongKeys { key_id, fault }) => {
                return Err(ReloadError::DoesNotFit { key_id, fault });
            }
            Err(other) => return Err(Error::internal(other).into()),
            Ok(_) => {}
        }
        self.ring.exchange(found);
        Ok(())
    }

    /// True if what failed may do so no more, because it lacked a ring key: either the file has that,
    /// and it was not looked at since, or the key left the ring meanwhile, and by then nothing was
    /// wrapped by it any more.
    pub(super) async fn may_have_missed_a_key(&self, error: &Error) -> bool {
        let fault = error.source().and_then(|source| source.downcast_ref());
        if !matches!(fault, Some(OpenFault::UnknownKey(_))) || !self.ring.has_file() {
            return false;
        }
        if let Err(error) = self.reload_ring().await {
            tracing::debug!(%error, "the key file is not taken");
        }
        true
    }

    /// Tells the others which keys this process has by now, if it serves.
    pub async fn tell_ring(&self) -> Result<()> {
        let mut tx = self.db.begin().await?;
        tx.execute(
            "update replicas set key_ids = $2 where id = $1",
            [self.replica.into(), self.key_ids().into()],
        )
        .await?;
        tx.commit().await
    }

    /// How many data keys each ring key wraps, in the order in which the keys became active. The
    /// database opens only with a ring that has all of them; a key that is not named may leave the
    /// ring.
    pub async fn key_usage(&self) -> Result<Vec<(String, u64)>> {
        let rows: Vec<(String, i64)> = self
            .db
            .fetch(
                "select key_checks.key_id, count(projects.id)
                 from key_checks left join projects on projects.wrapped_by = key_checks.key_id
                 group by key_checks.key_id, key_checks.created_at
                 order by key_checks.created_at, key_checks.key_id",
                [],
            )
            .await?;
        rows.into_iter()
            .map(|(key, count)| Ok((key, decode_count(count)?)))
            .collect()
    }

    /// How the ring's keys stand, without changing anything.
    pub async fn ring_standing(&self) -> Result<RingStanding> {
        let usage = self.key_usage().await?;
        let (active, _) = usage.last().ok_or_else(no_known_answer)?;
        let retired: Vec<(String,)> = self
            .db
            .fetch(
                "select key_id from retired_keys order by retired_at, key_id",
                [],
            )
            .await?;
        let mut tx = self.db.begin().await?;
        let processes = self.processes(&mut tx).await?;
        Ok(RingStanding {
            active: active.clone(),
            usage,
            retired: retired.into_iter().map(|(id,)| id).collect(),
            processes,
        })
    }

    /// Wraps a few data keys anew with the active key, those of projects behind `after`; before that
    /// the ring's first key becomes active, if it may. What the data keys sealed is not touched, and
    /// whoever has one open goes on with it. Any number of processes may do this at once.
    ///
    /// What is left of the data keys of deleted projects is wrapped anew with the others, and told
    /// nobody.
    ///
    /// # Errors
    /// `credential_locked` if the ring lacks the active key.
    pub async fn rewrap(&self, after: Option<&ProjectId>, by: Actor) -> Result<Rewrapped> {
        match self.try_rewrap(after, by).await {
            Err(error) if self.may_have_missed_a_key(&error).await => {
                self.try_rewrap(after, by).await
            }
            outcome => outcome,
        }
    }

    async fn try_rewrap(&self, after: Option<&ProjectId>, by: Actor) -> Result<Rewrapped> {
        let mut tx = self.db.begin().await?;
        let Wrapping {
            active,
            first,
            ring,
        } = self.wrapping(&mut tx).await?;
        let rows: Vec<WrappedRow> = tx
            .fetch(
                "select id, data_key_id, sealed_data_key, wrapped_by, deleted_at from projects
                 where wrapped_by <> $1 and id > $2 order by id limit $3",
                [
                    active.as_str().into(),
                    after.map_or("", ProjectId::as_str).into(),
                    REWRAPPED_AT_ONCE.into(),
                ],
            )
            .await?;
        let next = match rows.last() {
            Some((id, ..)) if rows.len() as u64 == REWRAPPED_AT_ONCE => Some(parse_project(id)?),
            _ => None,
        };
        let (mut rewrapped, mut locked_ones) = (Vec::new(), Vec::new());
        for (id, data_key_id, wrapped, former, deleted_at) in rows {
            let project = parse_project(&id)?;
            let key = match DataKey::unwrap(&ring, &id, &data_key_id, &wrapped) {
                Ok(key) => key,
                Err(fault) => {
                    locked_ones.push((project, fault));
                    continue;
                }
            };
            let wrapped = key
                .wrap(&ring, &active, &id, &self.rng)
                .expect("the ring has the active key");
            tx.execute(
                "update projects set sealed_data_key = $1, wrapped_by = $2 where id = $3",
                [wrapped.into(), active.as_str().into(), id.into()],
            )
            .await?;
            rewrapped.push((project, key, former, deleted_at));
        }
        for (project, key, former, deleted_at) in &rewrapped {
            if deleted_at.is_none() {
                let subject = Subject::new(SubjectKind::DataKey, key.id());
                let event = Event::new(by, AuditAction::DataKeyRewrapped, subject)
                    .with("from", former)
                    .with("to", &active);
                self.audit(&mut tx, project, Some(key), &[event]).await?;
            }
        }
        let left: Option<(i64,)> = tx
            .fetch_one(
                "select count(*) from projects where wrapped_by <> $1",
                [active.as_str().into()],
            )
            .await?;
        tx.commit().await?;
        Ok(Rewrapped {
            active,
            first,
            count: rewrapped.len() as u64,
            left: decode_count(left.map_or(0, |(left,)| left))?,
            locked: locked_ones,
            next,
        })
    }

    /// Takes a key out of use, if it wraps nothing: the database no longer asks for it, and it never
    /// wraps again.
    pub async fn retire_key(&self, id: &str, now: Timestamp) -> Result<Retirement> {
        let mut tx = self.db.begin().await?;
        tx.lock_ring().await?;
        if active_key(&mut tx).await?.0 == id {
            return Ok(Retirement::Active);
        }
        let rows: Vec<(String, Vec<u8>)> = tx
            .fetch("select wrapped_by, sealed_data_key from projects", [])
            .await?;
        // Not only by the column: what cannot be taken back is worth a look at the thing itself.
        let mut wraps = 0;
        for (column, wrapped) in &rows {
            wraps += u64::from(column == id || DataKey::wrapped_by(wrapped) == Ok(id));
        }
        if wraps > 0 {
            return Ok(Retirement::Wraps(wraps));
        }
        tx.execute("delete from key_checks where key_id = $1", [id.into()])
            .await?;
        let retired = tx
            .execute(
                "insert into retired_keys (key_id, retired_at) values ($1, $2)
                 on conflict (key_id) do nothing",
                [id.into(), now.into()],
            )
            .await?;
        tx.commit().await?;
        self.db.wipe().await;
        Ok(match retired {
            0 => Retirement::Before,
            _ => Retirement::Done,
        })
    }

    /// Which key wraps, until the transaction has ended. The ring's first key becomes the one if it
    /// is new and every other process that serves has it.
    ///
    /// # Errors
    /// `credential_locked` if the ring lacks the active key.
    pub(super) async fn wrapping(&self, tx: &mut Tx) -> Result<Wrapping> {
        tx.lock_ring().await?;
        let ring = self.ring.current();
        let (active, since) = active_key(tx).await?;
        if !ring.has(&active) {
            return Err(locked("data key", OpenFault::UnknownKey(active)));
        }
        let first = self.first_key(tx, &ring, &active).await?;
        let is_new = first == (FirstKey::Awaited { processes: 0 });
        if is_new {
            self.activate(tx, &ring, since).await?;
            return Ok(Wrapping {
                active: ring.encrypting_id().to_owned(),
                first: FirstKey::Active,
                ring,
            });
        }
        Ok(Wrapping {
            active,
            first,
            ring,
        })
    }

    /// How the ring's first key stands to the active one; awaited by nobody, it may become that.
    async fn first_key(&self, tx: &mut Tx, ring: &KeyRing, active: &str) -> Result<FirstKey> {
        let first = ring.encrypting_id();
        if active == first {
            return Ok(FirstKey::Active);
        }
        let former: Option<(i64,)> = tx
            .fetch_one(
                "select created_at from key_checks where key_id = $1",
                [first.into()],
            )
            .await?;
        let retired: Option<(i64,)> = tx
            .fetch_one(
                "select retired_at from retired_keys where key_id = $1",
                [first.into()],
            )
            .await?;
        if former.is_some() {
            return Ok(FirstKey::Former);
        }
        if retired.is_some() {
            return Ok(FirstKey::Retired);
        }
        let others = self.processes(tx).await?;
        let lacks = |keys: &&Vec<String>| !keys.iter().any(|key| key == first);
        let processes = others.iter().filter(lacks).count();
        Ok(FirstKey::Awaited { processes })
    }

    /// Leaves the known answer of the ring's first key: from now on a ring without that key does not
    /// open the database, and this one wraps.
    async fn activate(&self, tx: &mut Tx, ring: &KeyRing, since: i64) -> Result<()> {
        let now = self.clock.now().as_millisecond();
        // Later than the one before, whatever the clocks of several machines say.
        let now = now.max(since + 1);
        tx.execute(
            "insert into key_checks (key_id, sealed, created_at) values ($1, $2, $3)",
            [
                ring.encrypting_id().into(),
                known_answer(ring, &self.rng).into(),
                super::decode_timestamp(now)?.into(),
            ],
        )
        .await
        .map(drop)
    }

    /// The keys of each other process that serves.
    async fn processes(&self, tx: &mut Tx) -> Result<Vec<Vec<String>>> {
        // A SQLite file is served by one, and who that is has no need to give signs of life.
        let alive_after = match &self.file {
            None => {
                let now = tx.now(&self.clock).await?;
                now.saturating_sub(DEAD_AFTER).map_err(Error::internal)?
            }
            Some(file) if !file.is_served_by_another().map_err(Error::internal)? => {
                return Ok(Vec::new());
            }
            Some(_) => Timestamp::UNIX_EPOCH,
        };
        let rows: Vec<(String,)> = tx
            .fetch(
                "select key_ids from replicas where id <> $1 and seen_at >= $2 order by id",
                [self.replica.into(), alive_after.into()],
            )
            .await?;
        let words = |text: String| text.split(' ').map(str::to_owned).collect();
        Ok(rows.into_iter().map(|(keys,)| words(keys)).collect())
    }

    /// The ids of this process's keys, as others see them.
    pub(super) fn key_ids(&self) -> String {
        let ring = self.ring.current();
        ring.ids().collect::<Vec<_>>().join(" ")
    }

    /// Proves the ring once more, now that others wait for this process before they make another key
    /// active: it may have come between a look at who serves and what followed from that.
    pub(super) async fn confirm_ring(&self) -> Result<()> {
        let mut tx = self.db.begin().await?;
        tx.lock_ring().await?;
        let checks: KeyChecks = tx
            .fetch(
                "select key_id, sealed from key_checks order by created_at, key_id",
                [],
            )
            .await?;
        match prove_keys(&self.ring.current(), &checks) {
            Ok(_) => Ok(()),
            Err(OpenError::WrongKeys { fault, .. }) => Err(locked("known answer", fault)),
            Err(other) => Err(Error::internal(other)),
        }
    }
}

/// The key that wraps, and since when.
async fn active_key(tx: &mut Tx) -> Result<(String, i64)> {
    let row = tx
        .fetch_one(
            "select key_id, created_at from key_checks
             order by created_at desc, key_id desc limit 1",
            [],
        )
        .await?;
    row.ok_or_else(no_known_answer)
}

fn no_known_answer() -> Error {
    Error::internal("the database has no known answer")
}
