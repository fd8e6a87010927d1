//! Is the log as it was written? Every row is read once, a page at a time, and nothing is locked:
//! rows are only ever added at the end, so what was verified once stays so.

use super::{BREAK, Last, Log, Row, StoredRow};
use crate::{
    crypto::ChainKey,
    error::Result,
    model::id::ProjectId,
    store::{
        Store, count_in,
        db::{Arg, is_unreadable},
        no_such_project,
    },
};

/// What a project's log was found to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verified {
    /// As it was written, and as long. The number of entries never falls: where it did, the whole
    /// database is an older one.
    Whole { entries: u64 },
    /// This entry is the first at fault.
    Broken { entry: u64, fault: AuditFault },
}

/// What is wrong with an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditFault {
    /// It is gone, and later ones are there.
    Missing,
    /// It is not as it was written, or not where.
    Changed,
    /// It and all after it are gone.
    CutOff,
    /// It was not written by Rolecall.
    Added,
    /// The head is gone, or not as it was written. So nobody can tell whether this entry, the one
    /// after the last that is there, was cut off.
    HeadLost,
    /// It was written when the head was lost, or its own place was taken. Whether anything is
    /// missing before it cannot be told.
    Continued,
}

impl AuditFault {
    pub const fn as_str(self) -> &'static str {
        match self {
            AuditFault::Missing => "missing",
            AuditFault::Changed => "changed",
            AuditFault::CutOff => "cut_off",
            AuditFault::Added => "added",
            AuditFault::HeadLost => "head_lost",
            AuditFault::Continued => "continued",
        }
    }
}

/// How many rows are looked at together.
const PAGE: u64 = 500;

fn broken(seq: i64, fault: AuditFault) -> Verified {
    // One that was added may have a number that none of ours has.
    let entry = u64::try_from(seq).unwrap_or(0);
    Verified::Broken { entry, fault }
}

impl Store {
    /// Looks through the whole audit log of a project, beside whoever writes to it. Of one that was
    /// deleted, too.
    ///
    /// # Errors
    /// `not_found` if there is no such project; `credential_locked` if its data key does not open.
    pub async fn verify_audit(&self, project: &ProjectId) -> Result<Verified> {
        let chain = self.chain_key(project).await?.ok_or_else(no_such_project)?;
        let log = Log::new(project.as_str(), chain);
        let mut last = Last::beginning();
        loop {
            let head = self.audit_head(&log).await?;
            let end = head.as_ref().map_or(i64::MAX, |head| head.seq);
            if let Some(broken) = self.follow(&log, &mut last, end).await? {
                return Ok(broken);
            }
            let Some(head) = head else {
                return Ok(broken(last.seq + 1, AuditFault::HeadLost));
            };
            if last.seq < head.seq {
                return Ok(broken(last.seq + 1, AuditFault::CutOff));
            }
            if last.tag != head.tag {
                return Ok(broken(last.seq, AuditFault::Changed));
            }
            let Some(after) = self.first_after(&log, head.seq).await? else {
                let entries = count_in(head.seq)?;
                return Ok(Verified::Whole { entries });
            };
            // Written since the head was read, and then there is a later head; or not by us.
            let later = self.audit_head(&log).await?;
            if later.is_some_and(|later| later.seq < after) {
                return Ok(broken(after, AuditFault::Added));
            }
        }
    }

    async fn chain_key(&self, project: &ProjectId) -> Result<Option<ChainKey>> {
        if let Some(key) = self.data_key(project).await? {
            return Ok(Some(key.chain_key()));
        }
        let left = async || {
            let sql = "select data_key_id, sealed_data_key from projects
                       where id = $1 and deleted_at is not null";
            let row = self.db.fetch_one(sql, [project.into()]).await?;
            self.unwrapped(project, row)
        };
        let left = match left().await {
            Err(error) if self.may_have_missed_a_key(&error).await => left().await?,
            outcome => outcome?,
        };
        Ok(left.map(|left| left.as_chain_key()))
    }

    /// Verifies the rows after `last` up to `end`, and moves it to the last one that is right;
    /// gives the first that is not.
    async fn follow(&self, log: &Log<'_>, last: &mut Last, end: i64) -> Result<Option<Verified>> {
        let mut at_once = PAGE;
        loop {
            // Before the first there should be none, whatever its number.
            let from = match last.seq {
                0 => i64::MIN,
                seq => seq + 1,
            };
            let rows: Result<Vec<StoredRow>> = self
                .db
                .fetch(
                    "select seq, at, actor, actor_id, action, subject, subject_id, detail, tag
                     from audit_log where project = $1 and seq >= $2 and seq <= $3
                     order by seq limit $4",
                    [
                        log.project.into(),
                        Arg::Int(Some(from)),
                        Arg::Int(Some(end)),
                        at_once.into(),
                    ],
                )
                .await;
            let rows = match rows {
                // Which of them it is, is found one by one.
                Err(error) if is_unreadable(&error) && at_once > 1 => {
                    at_once = 1;
                    continue;
                }
                Err(error) if is_unreadable(&error) => {
                    return Ok(Some(broken(last.seq + 1, AuditFault::Changed)));
                }
                rows => rows?,
            };
            if rows.is_empty() {
                return Ok(None);
            }
            for stored in rows {
                let (seq, next) = (stored.0, last.seq + 1);
                if seq < next {
                    return Ok(Some(broken(seq, AuditFault::Added)));
                }
                if seq > next {
                    return Ok(Some(broken(next, AuditFault::Missing)));
                }
                let (row, tag) = (Row::of(&stored), &stored.8);
                if !log.entry(&row, &last.tag).has_tag(tag) {
                    let fault = match log.entry(&row, BREAK).has_tag(tag) {
                        true => AuditFault::Continued,
                        false => AuditFault::Changed,
                    };
                    return Ok(Some(broken(seq, fault)));
                }
                let tag = stored.8;
                *last = Last { seq, tag };
            }
        }
    }

    /// The number of the first row after this one, if there is any.
    async fn first_after(&self, log: &Log<'_>, seq: i64) -> Result<Option<i64>> {
        let row: Result<Option<(Option<i64>,)>> = self
            .db
            .fetch_one(
                "select min(seq) from audit_log where project = $1 and seq > $2",
                [log.project.into(), Arg::Int(Some(seq))],
            )
            .await;
        match row {
            // It is no number.
            Err(error) if is_unreadable(&error) => Ok(Some(seq + 1)),
            row => Ok(row?.and_then(|(first,)| first)),
        }
    }

    /// What the head says; None if it is lost.
    async fn audit_head(&self, log: &Log<'_>) -> Result<Option<Last>> {
        let stored = self
            .db
            .fetch_one(
                "select seq, tag, seal from audit_heads where project = $1",
                [log.project.into()],
            )
            .await;
        log.proven(stored)
    }
}
