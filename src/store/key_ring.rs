//! Which key of the ring wraps the projects' data keys, and the rotation of that key.
//!
//! The database decides this for all processes: the key with the latest known answer is *active*,
//! and every process wraps with it
//! ([ADR 12](../../../docs/adr/0012-the-database-says-which-key-wraps.md)). The first key of a ring
//! becomes active once every serving process has it. A key that was active before never becomes
//! active again, so processes with different rings cannot switch back and forth. A key that wraps
//! nothing can be *retired*: its known answer is deleted, and it never wraps again.
//!
//! Every change to this state, and every use of it, happens under one lock ([`Tx::lock_ring`]).
//!
//! Not here: when to reload the key file and when to re-wrap ([`crate::gateway`]); how a command
//! changes the file ([`crate::crypto::RingFile`]).

use std::error::Error as _;

use jiff::Timestamp;

use super::{
    OpenError, Store,
    db::Tx,
    decode_count, locked,
    open::{KeyChecks, known_answer, prove_keys},
    parse_project,
    replicas::HEARTBEAT_TIMEOUT,
};
use crate::{
    crypto::{DataKey, Exposure, KeyRing, KeyRingError, OpenFault},
    error::{Error, Result},
    model::{
        audit_log::{Actor, AuditAction, Event, Subject, SubjectKind},
        id::ProjectId,
    },
};

/// Project id, data key id, wrapped data key, id of the wrapping key, and time of the project's
/// deletion.
type WrappedRow = (String, String, Vec<u8>, String, Option<i64>);

/// How many data keys one transaction re-wraps at most.
const REWRAPPED_AT_ONCE: u64 = 50;

/// The state of a ring's first key in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstKey {
    Active,
    /// It becomes active once all serving processes have it. `processes` is the number that lack
    /// it.
    Awaited {
        processes: usize,
    },
    /// It was active earlier. Another key is active now.
    Former,
    Retired,
}

/// The result of one batch of re-wrapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewrapped {
    /// The id of the active key.
    pub active: String,
    pub first: FirstKey,
    /// How many data keys were re-wrapped.
    pub count: u64,
    /// How many data keys are still wrapped by other keys.
    pub left: u64,
    /// Projects whose data key does not decrypt. It was left as it is.
    pub locked: Vec<(ProjectId, OpenFault)>,
    /// The next batch starts after this project. None after the last batch.
    pub next: Option<ProjectId>,
}

/// The result of retiring a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retirement {
    Done,
    /// The key was retired earlier.
    Before,
    /// Refused: the key is active.
    Active,
    /// Refused: the key still wraps this many data keys.
    Wraps(u64),
}

/// The state of the key ring in the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RingStanding {
    /// The id of the active key.
    pub active: String,
    /// Every key that the database requires, in the order of activation, with the number of data
    /// keys that it wraps.
    pub usage: Vec<(String, u64)>,
    pub retired: Vec<String>,
    /// The key ids of each other serving process.
    pub processes: Vec<Vec<String>>,
}

/// Why a changed key file was not loaded. The ring stayed as it was.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    #[error("it cannot be read: {0}")]
    File(#[from] KeyRingError),
    #[error("it does not fit the database, which asks for key `{key_id}`: {fault}")]
    DoesNotFit { key_id: String, fault: OpenFault },
    #[error(transparent)]
    Store(#[from] Error),
}

/// The active key as one transaction found or set it, and the ring that contains it.
pub(super) struct Wrapping {
    pub active: String,
    pub first: FirstKey,
    pub ring: KeyRing,
}

impl Store {
    /// The current ring of this process.
    pub fn ring(&self) -> KeyRing {
        self.ring.current()
    }

    /// Whether other users can access the key file.
    pub fn ring_exposure(&self) -> Option<Exposure> {
        self.ring.exposure()
    }

    /// Reloads the key file if it has changed. Operations that begin later use the new ring.
    ///
    /// # Errors
    /// The file cannot be read, or it lacks a key that the database requires. The ring stays as it
    /// is.
    pub async fn reload_ring(&self) -> Result<(), ReloadError> {
        // One reload at a time, so that the latest read of the file wins.
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

    /// True if an operation that failed for a missing ring key may succeed on a retry. Reloads the
    /// key file first. Another process may also have re-wrapped the data key since it was read.
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

    /// Publishes the ids of this process's keys in its replica row, if it has one.
    pub async fn tell_ring(&self) -> Result<()> {
        let mut tx = self.db.begin().await?;
        tx.execute(
            "update replicas set key_ids = $2 where id = $1",
            [self.replica.into(), self.key_ids().into()],
        )
        .await?;
        tx.commit().await
    }

    /// How many data keys each ring key wraps, in the order of activation. The database opens only
    /// with a ring that has all of these keys. Any other key can leave the ring.
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

    /// Reads the state of the key ring. Changes nothing.
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

    /// Re-wraps one batch of data keys with the active key, from the projects after `after`. First
    /// activates the ring's first key, if that is possible now. The data sealed with the data keys
    /// is not changed, and a data key that is already unwrapped in memory stays valid. Several
    /// processes may call this at the same time.
    ///
    /// The remaining keys of deleted projects are re-wrapped too, without an entry in an audit log.
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

    /// Retires a key that wraps nothing: the database no longer requires it, and it never wraps
    /// again.
    pub async fn retire_key(&self, id: &str, now: Timestamp) -> Result<Retirement> {
        let mut tx = self.db.begin().await?;
        tx.lock_ring().await?;
        if active_key(&mut tx).await?.0 == id {
            return Ok(Retirement::Active);
        }
        let rows: Vec<(String, Vec<u8>)> = tx
            .fetch("select wrapped_by, sealed_data_key from projects", [])
            .await?;
        // Retirement cannot be undone, so check the wrapped form of each data key too, not only the
        // column.
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

    /// Locks the ring until the end of the transaction and returns the active key. Activates the
    /// ring's first key if it is new and every other serving process has it.
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

    /// The state of the ring's first key. `Awaited` with 0 processes means that it can become
    /// active.
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

    /// Makes the ring's first key active: stores its known answer. From then on the database opens
    /// only with a ring that has this key.
    async fn activate(&self, tx: &mut Tx, ring: &KeyRing, since: i64) -> Result<()> {
        let now = self.clock.now().as_millisecond();
        // Later than the former key's time, even if the machines' clocks differ.
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

    /// The key ids of each other serving process.
    async fn processes(&self, tx: &mut Tx) -> Result<Vec<Vec<String>>> {
        // Only one process serves a SQLite file, so its row counts without a recent heartbeat.
        let alive_after = match &self.file {
            None => {
                let now = tx.now(&self.clock).await?;
                now.saturating_sub(HEARTBEAT_TIMEOUT)
                    .map_err(Error::internal)?
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

    /// The ids of this process's keys, as stored in its replica row.
    pub(super) fn key_ids(&self) -> String {
        let ring = self.ring.current();
        ring.ids().collect::<Vec<_>>().join(" ")
    }

    /// Checks the ring against the known answers again, once this process has registered as a
    /// replica. Another process may have activated a key after this process opened the database and
    /// before it registered. From now on the others wait for this process.
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

/// The id of the active key, and when it became active.
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
