//! The proofs by fire: faults, churn and kills against the simulator's truth.
//!
//! A seeded slice runs with every `cargo test`; `make soak` sets ROLECALL_SOAK and runs the full
//! size. ROLECALL_SOAK_SEED=n runs that one seed of [`faults`] again. A seed fixes the world, the
//! faults, the changes and what a person decides; where reads go side by side (one seed in four)
//! the order in which they arrive is the machine's, so such a seed may need more than one try.
//!
//! * [`faults`]: no false leaver, no partial directory, no mixed versions, no panic.
//! * [`odd_records`]: one odd field in any row costs that field and nothing else.
//! * [`truth`]: the sealed directory equals the truth at 100,000 users.
//! * [`kill`]: `kill -9` at any moment loses nothing that was acknowledged.
//! * [`export`]: writing a directory out takes its memory and no more.
//! * [`crowd`]: a provider's limit is never passed and its wait is obeyed.
//! * [`rotation`]: the key ring changes again and again under load, whatever is killed meanwhile.
//! * [`replicas`]: two processes on one PostgreSQL database are one, whichever is killed.
//! * [`refresh`]: tokens that are good once are refreshed once, and none is lost but in a kill's
//!   window, or silently.
//! * [`java`]: the default HTTP client of a JDK loses no call.
//! * [`deployment`]: a Prometheus, an nginx and another project beside a process.
//! * [`stores`]: PostgreSQL fails over, PgBouncer pools transactions, and the date is set back.
//! * [`judge`]: what was served against what was true; [`world`]: what they run in.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so")]
#![expect(
    clippy::disallowed_methods,
    reason = "a test is its own client and reads its own switches"
)]

mod cluster;
mod crowd;
mod deployment;
mod export;
mod faults;
mod java;
mod judge;
mod kill;
mod odd_records;
mod process;
mod refresh;
#[path = "../postgres/relay.rs"]
mod relay;
mod replicas;
mod rotation;
#[path = "../postgres/mod.rs"]
mod schema;
mod stores;
mod truth;
mod world;

/// Whether the full size was asked for.
fn is_full() -> bool {
    std::env::var_os("ROLECALL_SOAK").is_some()
}

/// The one seed to run, if one was named.
fn only_seed() -> Option<u64> {
    let text = std::env::var("ROLECALL_SOAK_SEED").ok()?;
    Some(text.parse().expect("ROLECALL_SOAK_SEED is a number"))
}
