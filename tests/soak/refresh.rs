//! Refresh under fire: refresh tokens that are good once, processes that race for them, replies
//! that are slow or lost, and `kill -9` at every step of the protocol (G4).
//!
//! * [`race`]: several processes, many tasks, the same accounts. The simulator sees no refresh
//!   token twice, and no account is lost.
//! * [`kills`]: one process on SQLite, three on PostgreSQL, killed at named points and at random
//!   moments. No account is lost but in the window that the guarantee names, and none silently.
//!
//! The judge is the simulator: it says which pair of a grant it takes, and since when. What a
//! killed process left is read from its database and its journal before another sees to it.

mod books;
mod kills;
mod points;
mod provider;
mod race;
mod signed;

use std::time::Duration;

use crate::schema::Schema;

/// How often what is waited for is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// By when nothing is in doubt any more, at the very latest: what a dead process left is taken over
/// after 75 seconds, and the provider's second no comes 90 seconds after its first.
const SETTLED_WITHIN: Duration = Duration::from_secs(420);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_token_is_spent_once_whoever_races_for_it() {
    race::run().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_at_any_step_of_a_refresh_loses_no_account_silently() {
    kills::run(None, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_of_any_of_three_processes_loses_no_account_silently() {
    if let Some(schema) = Schema::new().await {
        kills::run(Some(&schema), 3).await;
    }
}
