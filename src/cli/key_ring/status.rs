//! `rolecall keyring status`: shows the state of each key in the ring and in the database.

use serde::Serialize;
use serde_json::json;

use super::{Installation, InstallationArguments, without};
use crate::{
    cli::{
        Failure,
        output::{json_line, table},
        ring_origin,
    },
    crypto::KeyRing,
    store::RingStanding,
};

#[derive(Serialize)]
struct RingKeyLine<'a> {
    id: &'a str,
    /// `added`: not used yet; `active`: wraps data keys; `former`: was active before; `retired`:
    /// never used again.
    state: &'static str,
    in_ring: bool,
    is_first: bool,
    encrypts: bool,
    known_answer: bool,
    data_keys: u64,
    /// The number of serving processes that have the key.
    processes: usize,
}

impl<'a> RingKeyLine<'a> {
    fn of(id: &'a str, ring: &KeyRing, standing: &RingStanding) -> Self {
        let used = standing.usage.iter().find(|(key, _)| key == id);
        let encrypts = standing.active == id;
        let state = match used {
            Some(_) if encrypts => "active",
            Some(_) => "former",
            None if standing.retired.iter().any(|key| key == id) => "retired",
            None => "added",
        };
        Self {
            id,
            state,
            in_ring: ring.has(id),
            is_first: ring.encrypting_id() == id,
            encrypts,
            known_answer: used.is_some(),
            data_keys: used.map_or(0, |(_, count)| *count),
            processes: standing.processes.len() - without(id, standing),
        }
    }
}

pub(super) async fn run(shared: &InstallationArguments) -> Result<(), Failure> {
    let installation = Installation::open(&shared.file).await?;
    let standing = installation.store.ring_standing().await?;
    installation.store.close().await;
    let ring = installation.ring.current();
    // Only retired keys can be absent: opening the store checked that the ring has all the others.
    let gone = standing.retired.iter().map(String::as_str);
    let gone = gone.filter(|id| !ring.has(id));
    let keys: Vec<_> = ring
        .ids()
        .chain(gone)
        .map(|id| RingKeyLine::of(id, &ring, &standing))
        .collect();
    let serving = standing.processes.len();
    if shared.json {
        let others = keys.iter().filter(|key| !key.encrypts);
        let left: u64 = others.map(|key| key.data_keys).sum();
        return json_line(&json!({
            "ring": ring_origin(&installation.config), "keys": keys, "left": left,
            "processes": serving,
        }));
    }
    let yes = |is: bool| if is { "yes" } else { "no" };
    let rows = keys.iter().map(|key| {
        let in_ring = if key.is_first {
            "first"
        } else {
            yes(key.in_ring)
        };
        [
            key.id.to_owned(),
            key.state.to_owned(),
            in_ring.to_owned(),
            yes(key.encrypts).to_owned(),
            yes(key.known_answer).to_owned(),
            key.data_keys.to_string(),
            format!("{} of {serving}", key.processes),
        ]
    });
    table(
        [
            "KEY",
            "STATE",
            "IN RING",
            "ENCRYPTS",
            "KNOWN ANSWER",
            "DATA KEYS",
            "PROCESSES",
        ],
        rows,
    )
}
