//! The store, from outside: what every backend must do (`contract`), and what SQLite must do
//! besides (`sqlite`).

#![expect(
    clippy::unwrap_used,
    reason = "in a test, an error that was not expected is a failure"
)]

mod contract;
mod sqlite;
mod world;
