//! The access log: one line per request, with the key and the account of the request.
//!
//! Health probes and metrics scrapes are logged at debug level, unless they fail with a 5xx.
//! Requests refused with 429 are collapsed by key: one line in ten seconds, then a line with the
//! number of the other refusals.

use std::{cell::RefCell, collections::HashMap, mem, time::Duration};

use super::middleware::LoggedCaller;
use crate::model::id::KeyId;

/// How long the refusals of one key are counted instead of logged, after the one that is logged.
const COLLAPSED_FOR: Duration = Duration::from_secs(10);

/// A request that was answered.
pub struct AccessLogLine<'a> {
    pub request_id: &'a str,
    pub method: &'static str,
    /// The route's path template, if a route matched. Never the path or the query of the request.
    pub route: Option<&'a str>,
    pub status: u16,
    pub caller: LoggedCaller,
    pub took: Duration,
}

/// The access log of one worker thread.
#[derive(Default)]
pub struct AccessLog(RefCell<Refusals>);

impl AccessLog {
    /// Logs an answered request. `now` is a time of the monotonic clock.
    pub fn write(&self, line: &AccessLogLine<'_>, now: Duration) {
        let mut refusals = self.0.borrow_mut();
        for (key, more) in refusals.due(now) {
            let key = key.map(|key| key.to_string());
            tracing::info!(target: "rolecall::access", key, more, "more requests refused with 429");
        }
        if line.status != 429 || refusals.is_first(line.caller.key, now) {
            tell(line);
        }
    }
}

fn tell(line: &AccessLogLine<'_>) {
    let is_probe = matches!(
        line.route,
        Some("/health/live" | "/health/ready" | "/metrics")
    );
    let key = line.caller.key.map(|key| key.to_string());
    let account = line.caller.account.map(|account| account.to_string());
    let route = line.route.unwrap_or("-");
    let ms = u64::try_from(line.took.as_millis()).unwrap_or(u64::MAX);
    let AccessLogLine {
        request_id,
        method,
        status,
        ..
    } = *line;
    if is_probe && status < 500 {
        tracing::debug!(target: "rolecall::access", request_id, method, route, status, ms, "request");
        return;
    }
    tracing::info!(
        target: "rolecall::access",
        request_id, method, route, status, key, account, ms, "request",
    );
}

/// Requests refused with 429, by key.
#[derive(Default)]
struct Refusals {
    keys: HashMap<Option<KeyId>, Collapsed>,
    /// When [`Refusals::due`] last went through the keys.
    looked_at: Duration,
}

struct Collapsed {
    since: Duration,
    more: u64,
}

impl Refusals {
    /// Whether this refusal is logged by itself. If not, it is counted.
    fn is_first(&mut self, key: Option<KeyId>, now: Duration) -> bool {
        let mut is_first = false;
        let collapsed = self.keys.entry(key).or_insert_with(|| {
            is_first = true;
            Collapsed {
                since: now,
                more: 0,
            }
        });
        if !is_first {
            collapsed.more += 1;
        }
        is_first
    }

    /// The keys whose ten seconds are over, each with the number of refusals counted since. Keys
    /// without any are forgotten.
    fn due(&mut self, now: Duration) -> Vec<(Option<KeyId>, u64)> {
        if self.keys.is_empty() || now.saturating_sub(self.looked_at) < COLLAPSED_FOR / 10 {
            return Vec::new();
        }
        self.looked_at = now;
        let mut due = Vec::new();
        self.keys.retain(|key, collapsed| {
            if now.saturating_sub(collapsed.since) < COLLAPSED_FOR {
                return true;
            }
            collapsed.since = now;
            let more = mem::take(&mut collapsed.more);
            if more > 0 {
                due.push((*key, more));
            }
            more > 0
        });
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refusals_is_one_line_and_a_count_every_ten_seconds() {
        let key = |n: u8| {
            Some(
                format!("{n:08}-0000-7000-8000-000000000000")
                    .parse()
                    .unwrap(),
            )
        };
        let (flooding, other): (Option<KeyId>, Option<KeyId>) = (key(1), key(2));
        let mut refusals = Refusals::default();
        let began_at = Duration::from_secs(100);
        let mut lines = 0;
        for _ in 0..1000 {
            lines += u64::from(refusals.is_first(flooding, began_at));
        }
        assert_eq!(lines, 1);
        assert!(refusals.is_first(other, began_at));
        let soon = began_at + Duration::from_secs(9);
        assert_eq!(refusals.due(soon), []);
        let later = began_at + Duration::from_secs(11);
        assert_eq!(refusals.due(later), [(flooding, 999)]);
        // The flooding key goes on and stays collapsed; the other one starts again.
        assert!(!refusals.is_first(flooding, later));
        assert!(refusals.is_first(other, later));
        let end = later + COLLAPSED_FOR;
        assert_eq!(refusals.due(end), [(flooding, 1)]);
        assert_eq!(refusals.due(end + COLLAPSED_FOR), []);
        assert!(refusals.keys.is_empty());
    }
}
