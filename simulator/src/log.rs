//! The request log, in order of arrival.
//!
//! A request is logged when it arrives, so that the log contains requests whose client gave up; the
//! status is added when it is answered. The log has names of tokens, never their values.

use std::collections::VecDeque;

use serde::Serialize;

/// The most entries; beyond this, the oldest are dropped.
const MOST: usize = 1_000_000;

#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    pub seq: u64,
    pub at_ms: i64,
    pub method: String,
    pub path: String,
    pub query: String,
    /// The token's name; `unknown` for a value that was never issued, null for none.
    pub token: Option<String>,
    pub assume_user: Option<String>,
    /// Null while the request is being served, and for one that was never answered.
    pub status: Option<u16>,
    pub error_code: Option<u32>,
}

#[derive(Clone, Debug, Default)]
pub struct Log {
    entries: VecDeque<Entry>,
    last: u64,
}

impl Log {
    /// Adds an entry under the next number and returns that number.
    pub fn note(&mut self, mut entry: Entry) -> u64 {
        self.last += 1;
        entry.seq = self.last;
        if self.entries.len() == MOST {
            self.entries.pop_front();
        }
        self.entries.push_back(entry);
        self.last
    }

    pub fn answered(&mut self, seq: u64, status: Option<u16>, error_code: Option<u32>) {
        if let Some(entry) = self
            .place(seq)
            .and_then(|place| self.entries.get_mut(place))
        {
            entry.status = status;
            entry.error_code = error_code;
        }
    }

    /// The entries with a higher number.
    pub fn since(&self, seq: u64) -> impl Iterator<Item = &Entry> {
        let first = self
            .place(seq.saturating_add(1))
            .unwrap_or(0)
            .min(self.entries.len());
        self.entries.range(first..)
    }

    fn place(&self, seq: u64) -> Option<usize> {
        let oldest = self.entries.front()?.seq;
        usize::try_from(seq.checked_sub(oldest)?).ok()
    }
}
