//! Figures over the accounts of all projects.

use jiff::Timestamp;

use super::{Store, decode_timestamp};
use crate::error::{Error, Result};

/// Figures about the directories of all accounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirectoriesStanding {
    /// Accounts with a held walk that is not decided yet.
    pub held_walks: u64,
    /// The oldest `verified_at` of all current directories. Skips inactive accounts.
    pub oldest_verified_at: Option<Timestamp>,
}

impl Store {
    pub async fn directories_standing(&self) -> Result<DirectoriesStanding> {
        let held: Option<(i64,)> = self
            .db
            .fetch_one(
                "select count(*) from accounts where held_walk is not null",
                [],
            )
            .await?;
        let oldest: Option<(Option<i64>,)> = self
            .db
            .fetch_one(
                "select min(d.verified_at) from directories d
                 join accounts a on a.project = d.project and a.id = d.account
                 where d.superseded_at is null and a.status <> 'inactive'",
                [],
            )
            .await?;
        let held = held.map_or(0, |(held,)| held);
        Ok(DirectoriesStanding {
            held_walks: u64::try_from(held).map_err(Error::internal)?,
            oldest_verified_at: oldest
                .and_then(|(at,)| at)
                .map(decode_timestamp)
                .transpose()?,
        })
    }

    /// True if the journal is empty and this process has locked it, or has none configured.
    pub fn is_journal_in_order(&self) -> bool {
        let is_had = self.journal.get().is_some() || self.journal_path.is_none();
        is_had && self.journaled_pairs().is_ok_and(|pairs| pairs.is_empty())
    }
}
