//! The audit log: one chain of entries per project.
//!
//! Each row has a tag over the tag of the previous row and all columns of its own. Each project has
//! one head row, with a tag over the number and the tag of the last entry. The key of both is
//! derived from the project's data key. [`Store::verify_audit`] (`verify`) therefore detects every
//! row that a database writer without the key ring changed, moved, added, or removed from the
//! middle. Such a writer can still cut off the newest rows and restore an earlier head; only a head
//! that was noted outside of the database shows that.
//!
//! [`Store::audit`] writes an entry in the transaction of the change that it records, so both are
//! stored or neither is. A head that was tampered with does not block changes, because a key that
//! must be revoked must be revoked. The next entry then records the break for good: its tag follows
//! on no other tag.

use jiff::Timestamp;

use super::{
    Store,
    db::{Arg, Tx, is_unreadable},
    decode_count, decode_json, decode_timestamp, json, no_such_project, parse_project, parse_word,
};
use crate::{
    crypto::{ChainKey, DataKey, TaggedRecord},
    error::{Error, Kind, Result},
    model::{
        audit_log::{Actor, AuditEntry, AuditFilter, Event, Subject},
        id::ProjectId,
    },
};

mod verify;

pub use verify::{AuditFault, AuditHead, AuditReport, InvalidAuditHead, Verified};

const ENTRY_FORM: &str = "rolecall audit entry 1";
const HEAD_FORM: &str = "rolecall audit head 1";

/// Stands for the previous tag in the first entry.
const BEGINNING: [u8; 32] = [0; 32];
/// Stands for the previous tag in an entry after a break. It is shorter than a tag, so it cannot be
/// one.
const BREAK: &[u8] = b"broken off";

type StoredRow = (
    i64,
    i64,
    String,
    String,
    String,
    String,
    String,
    String,
    Vec<u8>,
);

pub(super) type StoredHead = (i64, Vec<u8>, Vec<u8>);

impl Store {
    /// Adds the events of the caller's transaction to the project's audit log. `key` is the
    /// project's data key; if it is None, it is read here.
    ///
    /// This must be the last step before the commit, since it locks the log. To avoid deadlocks, an
    /// account is locked before the log and never after it, and a transaction that writes to the
    /// logs of several projects does so in the order of their ids.
    pub(super) async fn audit(
        &self,
        tx: &mut Tx,
        project: &ProjectId,
        key: Option<&DataKey>,
        events: &[Event],
    ) -> Result<()> {
        if events.is_empty() {
            return Ok(());
        }
        let log = match key {
            Some(key) => AuditLog::new(project.as_str(), key.chain_key()),
            None => {
                let key = self.data_key_in(tx, project).await?;
                let key = key.ok_or_else(no_such_project)?;
                AuditLog::new(project.as_str(), key.chain_key())
            }
        };
        let at = self.clock.now();
        let mut last = match log.lock(tx).await? {
            Some(last) => last,
            None => log.break_off(tx).await?,
        };
        for event in events {
            last = match log.append(tx, &last, event, at).await? {
                Some(next) => next,
                // A row has this number already, so the head did not name the last entry.
                None => {
                    let last = log.break_off(tx).await?;
                    let next = log.append(tx, &last, event, at).await?;
                    next.ok_or_else(no_end)?
                }
            };
        }
        log.write_head(tx, &last).await
    }

    /// Creates the empty log of a project, in the transaction that creates the project.
    pub(super) async fn begin_audit_log(
        &self,
        tx: &mut Tx,
        project: &ProjectId,
        key: &DataKey,
    ) -> Result<()> {
        let log = AuditLog::new(project.as_str(), key.chain_key());
        log.write_head(tx, &Last::beginning()).await
    }

    /// Adds one event to a project's audit log in a transaction of its own, for an event that
    /// changes no other stored data.
    ///
    /// # Errors
    /// `not_found` if there is no such project.
    pub async fn note(&self, project: &ProjectId, event: Event) -> Result<()> {
        let mut tx = self.db.begin().await?;
        self.audit(&mut tx, project, None, &[event]).await?;
        tx.commit().await
    }

    /// Every project that has an audit log, by id, including deleted projects.
    pub async fn audited_projects(&self) -> Result<Vec<ProjectId>> {
        let rows: Vec<(String,)> = self
            .db
            .fetch("select id from projects order by id", [])
            .await?;
        rows.iter().map(|(id,)| parse_project(id)).collect()
    }

    /// At most `limit` entries of a project's audit log with a number below `before`, newest first.
    pub async fn audit_log(
        &self,
        project: &ProjectId,
        filter: &AuditFilter,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<AuditEntry>> {
        let rows = match self.audit_rows(project, filter, before, limit).await {
            Err(error) if is_unreadable(&error) => return Err(damaged_entry(error)),
            rows => rows?,
        };
        let entries: Result<Vec<_>> = rows.into_iter().map(decode_entry).collect();
        entries.map_err(damaged_entry)
    }

    /// Uses one statement per index: a condition that may be absent would prevent the use of any
    /// index.
    async fn audit_rows(
        &self,
        project: &ProjectId,
        filter: &AuditFilter,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<StoredRow>> {
        let (project, before) = (project.into(), before.unwrap_or(u64::MAX).into());
        let limit = u64::from(limit).into();
        let action = filter.action.map(|action| action.as_str().to_owned());
        let subject = filter.subject_id.as_deref();
        if let Some(subject) = subject {
            let sql = "select seq, at, actor, actor_id, action, subject, subject_id, detail, tag
                       from audit_log where project = $1 and seq < $2
                           and subject_id = $4 and ($5 is null or action = $5)
                       order by seq desc limit $3";
            let args = [project, before, limit, subject.into(), action.into()];
            return self.db.fetch(sql, args).await;
        }
        if action.is_some() {
            let sql = "select seq, at, actor, actor_id, action, subject, subject_id, detail, tag
                       from audit_log where project = $1 and seq < $2 and action = $4
                       order by seq desc limit $3";
            let args = [project, before, limit, action.into()];
            return self.db.fetch(sql, args).await;
        }
        let sql = "select seq, at, actor, actor_id, action, subject, subject_id, detail, tag
                   from audit_log where project = $1 and seq < $2
                   order by seq desc limit $3";
        self.db.fetch(sql, [project, before, limit]).await
    }
}

/// The row of `audit_heads` for an empty log.
pub(super) fn empty_head(project: &str, key: &DataKey) -> StoredHead {
    let last = Last::beginning();
    let seal = AuditLog::new(project, key.chain_key()).head(&last).tag();
    (last.seq, last.tag, seal.to_vec())
}

/// The last entry of a log.
struct Last {
    /// 0 before the first entry.
    seq: i64,
    tag: Vec<u8>,
}

impl Last {
    fn beginning() -> Self {
        Self {
            seq: 0,
            tag: BEGINNING.to_vec(),
        }
    }
}

/// The columns of an entry, without its tag.
struct AuditRow<'a> {
    seq: i64,
    at: i64,
    /// In the order of the columns.
    texts: [&'a str; 6],
}

impl<'a> AuditRow<'a> {
    fn of(stored: &'a StoredRow) -> Self {
        let (seq, at, actor, actor_id, action, subject, subject_id, detail, _) = stored;
        Self {
            seq: *seq,
            at: *at,
            texts: [actor, actor_id, action, subject, subject_id, detail],
        }
    }
}

/// A project's log, and the key of its chain.
struct AuditLog<'a> {
    project: &'a str,
    chain: ChainKey,
}

impl<'a> AuditLog<'a> {
    const fn new(project: &'a str, chain: ChainKey) -> Self {
        Self { project, chain }
    }

    fn entry(&self, row: &AuditRow<'_>, before: &[u8]) -> TaggedRecord {
        let record = self.chain.record(ENTRY_FORM);
        let record = record.bytes(before).text(self.project);
        let record = record.number(row.seq).number(row.at);
        row.texts
            .iter()
            .fold(record, |record, text| record.text(text))
    }

    fn head(&self, last: &Last) -> TaggedRecord {
        let record = self.chain.record(HEAD_FORM);
        let record = record.text(self.project);
        record.number(last.seq).bytes(&last.tag)
    }

    /// The last entry that a stored head names; None if the head is missing or was not written by
    /// Rolecall.
    fn proven(&self, stored: Result<Option<StoredHead>>) -> Result<Option<Last>> {
        let stored = match stored {
            Err(error) if is_unreadable(&error) => None,
            stored => stored?,
        };
        Ok(stored.and_then(|(seq, tag, seal)| {
            let last = Last { seq, tag };
            self.head(&last).has_tag(&seal).then_some(last)
        }))
    }

    /// Locks the log until the transaction ends, and returns the last entry; None if the head is
    /// lost.
    async fn lock(&self, tx: &mut Tx) -> Result<Option<Last>> {
        let stored = tx
            .fetch_one(
                "update audit_heads set seq = seq where project = $1 returning seq, tag, seal",
                [self.project.into()],
            )
            .await;
        self.proven(stored)
    }

    /// The position to continue from if the last entry is unknown: after the highest number, with a
    /// tag that marks the break.
    async fn break_off(&self, tx: &mut Tx) -> Result<Last> {
        tracing::error!(
            project = self.project,
            "the audit log is not as it was written; `rolecall audit verify` says where"
        );
        let row: Option<(i64,)> = tx
            .fetch_one(
                "select coalesce(max(seq), 0) from audit_log where project = $1",
                [self.project.into()],
            )
            .await?;
        Ok(Last {
            seq: row.map_or(0, |(seq,)| seq.max(0)),
            tag: BREAK.to_vec(),
        })
    }

    /// Writes an entry after `last` and returns it as the last one; None if a row already has its
    /// number.
    async fn append(
        &self,
        tx: &mut Tx,
        last: &Last,
        event: &Event,
        at: Timestamp,
    ) -> Result<Option<Last>> {
        let seq = last.seq.checked_add(1).ok_or_else(no_end)?;
        let actor_id = event.actor.id().unwrap_or_default();
        let detail = json(&event.detail)?;
        let row = AuditRow {
            seq,
            at: at.as_millisecond(),
            texts: [
                event.actor.kind().as_str(),
                &actor_id,
                event.action.as_str(),
                event.subject.kind.as_str(),
                &event.subject.id,
                &detail,
            ],
        };
        let tag = self.entry(&row, &last.tag).tag().to_vec();
        let [actor, actor_id, action, subject, subject_id, detail] = row.texts.map(Arg::from);
        let written = tx
            .execute(
                "insert into audit_log
                     (project, seq, at, actor, actor_id, action, subject, subject_id, detail, tag)
                 values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
                 on conflict (project, seq) do nothing",
                [
                    self.project.into(),
                    Arg::Int(Some(seq)),
                    at.into(),
                    actor,
                    actor_id,
                    action,
                    subject,
                    subject_id,
                    detail,
                    tag.clone().into(),
                ],
            )
            .await?;
        Ok((written > 0).then_some(Last { seq, tag }))
    }

    async fn write_head(&self, tx: &mut Tx, last: &Last) -> Result<()> {
        tx.execute(
            "insert into audit_heads (project, seq, tag, seal) values ($1, $2, $3, $4)
             on conflict (project) do update
                 set seq = excluded.seq, tag = excluded.tag, seal = excluded.seal",
            [
                self.project.into(),
                Arg::Int(Some(last.seq)),
                last.tag.clone().into(),
                self.head(last).tag().to_vec().into(),
            ],
        )
        .await
        .map(drop)
    }
}

fn no_end() -> Error {
    Error::internal("there is no room at the end of the audit log")
}

/// The error for a reader of the log. The reader has done nothing wrong, and may know that an entry
/// is damaged.
fn damaged_entry(source: Error) -> Error {
    let message = "an entry of the audit log is not as it was written";
    Error::new(Kind::Internal, message)
        .with_hint("`rolecall audit verify` says which; the operator can run it at any time.")
        .with_source(source)
}

fn decode_entry(row: StoredRow) -> Result<AuditEntry> {
    let (seq, at, actor, actor_id, action, subject, subject_id, detail, _) = row;
    let actor_id = Some(actor_id).filter(|id| !id.is_empty());
    let actor = Actor::of(parse_word(actor)?, actor_id.as_deref());
    Ok(AuditEntry {
        seq: decode_count(seq)?,
        at: decode_timestamp(at)?,
        event: Event {
            actor: actor.ok_or_else(|| Error::internal("there is no such actor"))?,
            action: parse_word(action)?,
            subject: Subject {
                kind: parse_word(subject)?,
                id: subject_id,
            },
            detail: decode_json(detail.as_bytes())?,
        },
    })
}
