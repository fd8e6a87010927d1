//! What the provider knows: which pair of a grant it takes, since when, and who came when for
//! another.

use std::collections::HashMap;

use reqwest::Method;
use serde_json::{Value, json};

use crate::process::House;

/// The pair of a grant that the provider takes.
#[derive(Debug, Clone, Copy)]
pub struct Live {
    pub generation: u64,
    pub issued_at_ms: i64,
}

/// A request for a new pair.
#[derive(Debug, Clone)]
pub struct Call {
    pub at_ms: i64,
    /// None while it is being served, and for one that got no reply.
    pub status: Option<u64>,
}

/// What was asked of the token endpoint so far, by grant, in order.
pub struct Provider {
    house: House,
    calls: HashMap<String, Vec<Call>>,
    /// The last number of the log that is in `calls`, and answered.
    seen: u64,
}

impl Provider {
    pub fn new(house: House) -> Self {
        Self {
            house,
            calls: HashMap::new(),
            seen: 0,
        }
    }

    /// The pair that is good of each grant.
    pub async fn live(&self) -> HashMap<String, Live> {
        let rows = self.ask("/tokens?live=true").await;
        let rows = rows.as_array().unwrap().iter();
        rows.filter(|row| row["kind"] == "oauth")
            .map(|row| {
                let live = Live {
                    generation: row["generation"].as_u64().unwrap(),
                    issued_at_ms: row["issued_at_ms"].as_i64().unwrap(),
                };
                (row["token"].as_str().unwrap().to_owned(), live)
            })
            .collect()
    }

    /// How many pairs of this grant were issued, and how often a refresh token of it came a second
    /// time.
    pub async fn counts(&self) -> HashMap<String, (u64, u64)> {
        let mut counts: HashMap<String, (u64, u64)> = HashMap::new();
        for row in self.ask("/tokens").await.as_array().unwrap() {
            assert!(row["redeemed"].as_u64() <= Some(1), "{row}");
            let of = row["token"].as_str().unwrap().to_owned();
            let (issued, replays) = counts.entry(of).or_default();
            *issued += 1;
            *replays += row["replays_refused"].as_u64().unwrap();
        }
        counts
    }

    /// Reads on in the log. Gives how many pairs came for refresh tokens since the last time, as
    /// far as somebody was sent one.
    pub async fn read_on(&mut self) -> usize {
        let log = self.ask(&format!("/log?since={}", self.seen)).await;
        let mut issued = 0;
        for entry in log.as_array().unwrap() {
            self.seen = entry["seq"].as_u64().unwrap();
            let is_refresh = entry["method"] == "POST" && entry["path"] == "/2.0/token";
            let Some(grant) = entry["token"].as_str().filter(|_| is_refresh) else {
                continue;
            };
            let call = Call {
                at_ms: entry["at_ms"].as_i64().unwrap(),
                status: entry["status"].as_u64(),
            };
            issued += usize::from(call.status == Some(200));
            self.calls.entry(grant.to_owned()).or_default().push(call);
        }
        issued
    }

    /// The last call for this grant that came by then.
    pub fn last_call(&self, grant: &str, by_ms: i64) -> Option<&Call> {
        let calls = self.calls.get(grant)?;
        calls.iter().rev().find(|call| call.at_ms <= by_ms)
    }

    /// The call that brought the pair of this moment: the last one that came by then and was not
    /// refused.
    pub fn redeemer(&self, grant: &str, issued_at_ms: i64) -> Option<&Call> {
        let calls = self.calls.get(grant)?;
        let is_refused = |call: &Call| call.status.is_some_and(|status| status >= 400);
        calls
            .iter()
            .rev()
            .find(|call| call.at_ms <= issued_at_ms && !is_refused(call))
    }

    /// What strikes calls for new pairs, in place of what did before: by grant, after how many
    /// calls of it, and what. Each strikes once.
    pub async fn strike(&self, faults: &[(&str, u64, Value)]) {
        let rules: Vec<_> = faults
            .iter()
            .map(|(grant, after, fault)| {
                let matches = json!({"method": "POST", "path_prefix": "/token", "token": grant});
                json!({"match": matches, "after": after, "times": 1, "fault": fault})
            })
            .collect();
        let answer = self
            .house
            .control(Method::POST, "/faults", &json!(rules))
            .await;
        assert_eq!(answer["faults"], rules.len(), "{answer}");
    }

    async fn ask(&self, path: &str) -> Value {
        self.house.control(Method::GET, path, &json!(null)).await
    }
}
