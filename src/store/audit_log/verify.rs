//! Verifies that an audit log is as it was written. It reads every row once, a page at a time, and
//! locks nothing: rows are only added at the end, so a verified row stays verified.
//!
//! The database alone cannot show that its newest entries were cut off, since a copy of an earlier
//! head fits the log of that time. An [`AuditHead`] that was noted outside of the database can show
//! it.

use std::{fmt, str::FromStr};

use super::{AuditLog, AuditRow, BREAK, Last, StoredRow};
use crate::{
    crypto::ChainKey,
    error::{Error, Result},
    model::id::ProjectId,
    store::{
        Store,
        db::{Arg, is_unreadable},
        decode_count, no_such_project,
    },
};

/// The last entry of a log at one moment, to be stored out of reach of the database's
/// administrator. Its text form is `SEQ:TAG`, with the tag in hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditHead {
    /// 0 before the first entry.
    pub seq: u64,
    tag: [u8; 32],
}

impl fmt::Display for AuditHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.seq)?;
        self.tag.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for AuditHead {
    type Err = InvalidAuditHead;

    fn from_str(text: &str) -> Result<Self, InvalidAuditHead> {
        let (seq, hex) = text.split_once(':').ok_or(InvalidAuditHead)?;
        let seq = seq.parse().map_err(|_| InvalidAuditHead)?;
        let is_hex = hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_hex || i64::try_from(seq).is_err() {
            return Err(InvalidAuditHead);
        }
        let mut tag = [0; 32];
        for (byte, at) in tag.iter_mut().zip((0..64).step_by(2)) {
            let digits = &hex[at..at + 2];
            *byte = u8::from_str_radix(digits, 16).map_err(|_| InvalidAuditHead)?;
        }
        Ok(Self { seq, tag })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a head is SEQ:TAG, as `rolecall audit verify` prints it: a number and 64 hexadecimal digits"
)]
pub struct InvalidAuditHead;

/// The result for a project's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verified {
    /// The log is as it was written, up to its head. Only a head that was noted outside shows
    /// whether later entries were cut off.
    Whole { entries: u64 },
    /// The first entry with a fault.
    Broken { entry: u64, fault: AuditFault },
}

/// The result, with the head of a log that is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditReport {
    pub verified: Verified,
    /// None if the log is not whole.
    pub head: Option<AuditHead>,
}

impl From<Verified> for AuditReport {
    fn from(verified: Verified) -> Self {
        let head = None;
        Self { verified, head }
    }
}

/// The fault of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditFault {
    /// It is missing, and later entries are present.
    Missing,
    /// It was changed or moved.
    Changed,
    /// It and all later entries are missing.
    CutOff,
    /// It was not written by Rolecall.
    Added,
    /// The head is missing or was changed. The entry is the one after the last present entry;
    /// whether it was cut off is unknown.
    HeadLost,
    /// It was written after the head was lost, or after another row had taken its number. Whether
    /// entries are missing before it is unknown.
    Continued,
    /// The head that was noted earlier is not on this chain: the log ends before it, or differs
    /// from it.
    NotOnChain,
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
            AuditFault::NotOnChain => "not_on_chain",
        }
    }
}

/// The number of rows that are read at a time.
const PAGE: u64 = 500;

fn broken(seq: i64, fault: AuditFault) -> Verified {
    // The number of an added row may be negative, which no entry of ours has.
    let entry = u64::try_from(seq).unwrap_or(0);
    Verified::Broken { entry, fault }
}

impl Store {
    /// Verifies the whole audit log of a project while others may write to it. The project may be
    /// deleted. `since` is an earlier head, which must be on the chain.
    ///
    /// # Errors
    /// `not_found` if there is no such project; `credential_locked` if its data key cannot be
    /// unwrapped.
    pub async fn verify_audit(
        &self,
        project: &ProjectId,
        since: Option<AuditHead>,
    ) -> Result<AuditReport> {
        let chain = self.chain_key(project).await?.ok_or_else(no_such_project)?;
        let log = AuditLog::new(project.as_str(), chain);
        let mut last = Last::beginning();
        let noted = since.map(|since| -> Result<_> {
            let seq = i64::try_from(since.seq).map_err(Error::internal)?;
            Ok((seq, since.tag))
        });
        let noted = noted.transpose()?;
        if noted.is_some_and(|(seq, tag)| seq == 0 && last.tag != tag) {
            return Ok(broken(0, AuditFault::NotOnChain).into());
        }
        loop {
            let head = self.audit_head(&log).await?;
            let end = head.as_ref().map_or(i64::MAX, |head| head.seq);
            if let Some(broken) = self.follow(&log, &mut last, end, noted).await? {
                return Ok(broken.into());
            }
            let Some(head) = head else {
                return Ok(broken(last.seq + 1, AuditFault::HeadLost).into());
            };
            if last.seq < head.seq {
                return Ok(broken(last.seq + 1, AuditFault::CutOff).into());
            }
            if last.tag != head.tag {
                return Ok(broken(last.seq, AuditFault::Changed).into());
            }
            let Some(after) = self.first_after(&log, head.seq).await? else {
                if let Some((seq, _)) = noted.filter(|(seq, _)| *seq > head.seq) {
                    return Ok(broken(seq, AuditFault::NotOnChain).into());
                }
                let unlike = |_| Error::internal("an audit tag is not 32 bytes long");
                let head = AuditHead {
                    seq: decode_count(head.seq)?,
                    tag: head.tag.try_into().map_err(unlike)?,
                };
                return Ok(AuditReport {
                    verified: Verified::Whole { entries: head.seq },
                    head: Some(head),
                });
            };
            // If the row was written since the head was read, there is a later head by now.
            // Otherwise it is not ours.
            let later = self.audit_head(&log).await?;
            if later.is_some_and(|later| later.seq < after) {
                return Ok(broken(after, AuditFault::Added).into());
            }
        }
    }

    async fn chain_key(&self, project: &ProjectId) -> Result<Option<ChainKey>> {
        if let Some(key) = self.data_key(project).await? {
            return Ok(Some(key.chain_key()));
        }
        // A deleted project keeps only the chain key of its log, in place of its data key.
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

    /// Verifies the rows after `last` up to `end`, and moves `last` to the last valid row. Returns
    /// the first fault.
    async fn follow(
        &self,
        log: &AuditLog<'_>,
        last: &mut Last,
        end: i64,
        noted: Option<(i64, [u8; 32])>,
    ) -> Result<Option<Verified>> {
        let mut at_once = PAGE;
        loop {
            // Nothing may come before the first entry, so this starts at the smallest number.
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
                // Read the rows one by one to find the unreadable one.
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
                let (row, tag) = (AuditRow::of(&stored), &stored.8);
                if !log.entry(&row, &last.tag).has_tag(tag) {
                    let fault = match log.entry(&row, BREAK).has_tag(tag) {
                        true => AuditFault::Continued,
                        false => AuditFault::Changed,
                    };
                    return Ok(Some(broken(seq, fault)));
                }
                if noted.is_some_and(|(at, noted)| at == seq && *tag != noted) {
                    return Ok(Some(broken(seq, AuditFault::NotOnChain)));
                }
                let tag = stored.8;
                *last = Last { seq, tag };
            }
        }
    }

    /// The number of the first row after this one, if there is one.
    async fn first_after(&self, log: &AuditLog<'_>, seq: i64) -> Result<Option<i64>> {
        let row: Result<Option<(Option<i64>,)>> = self
            .db
            .fetch_one(
                "select min(seq) from audit_log where project = $1 and seq > $2",
                [log.project.into(), Arg::Int(Some(seq))],
            )
            .await;
        match row {
            // The stored number is not an integer.
            Err(error) if is_unreadable(&error) => Ok(Some(seq + 1)),
            row => Ok(row?.and_then(|(first,)| first)),
        }
    }

    /// The last entry that the head names; None if the head is lost.
    async fn audit_head(&self, log: &AuditLog<'_>) -> Result<Option<Last>> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_reads_back_as_it_is_printed() {
        let mut tag = [0xa0; 32];
        tag[31] = 7;
        for seq in [0, 1, i64::MAX.unsigned_abs()] {
            let head = AuditHead { seq, tag };
            assert_eq!(head.to_string().parse(), Ok(head));
        }
        let printed = AuditHead { seq: 12, tag }.to_string();
        assert!(printed.starts_with("12:a0a0") && printed.ends_with("07"));
        for bad in [
            "",
            "12",
            ":",
            "12:",
            "12:a0",
            &printed[1..].replace("a0a0", "a0zz"),
            &printed.replace("12:", "-1:"),
            &printed.replace("12:", "18446744073709551615:"),
            &format!("{printed}00"),
        ] {
            assert_eq!(bad.parse::<AuditHead>(), Err(InvalidAuditHead), "{bad}");
        }
    }
}
