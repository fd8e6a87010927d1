//! The store, from outside: what every backend must do (`contract`), what SQLite and
//! PostgreSQL must do besides (`sqlite`, `postgres`), and from one to the other (`copy`).

#![expect(
    clippy::unwrap_used,
    reason = "in a test, an error that was not expected is a failure"
)]

mod budgets;
mod contract;
mod copy;
mod credentials;
mod postgres;
#[path = "../postgres/mod.rs"]
mod schema;
mod sqlite;
mod world;
