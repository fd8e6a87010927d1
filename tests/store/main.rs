//! The store, from outside: what every backend must do (`contract`), what SQLite and
//! PostgreSQL must do besides (`sqlite`, `postgres`), from one to the other (`copy`),
//! and what is told of all that (`audit`).

#![expect(
    clippy::unwrap_used,
    reason = "in a test, an error that was not expected is a failure"
)]

mod audit;
mod budgets;
mod contract;
mod copy;
mod credentials;
mod postgres;
#[path = "../postgres/mod.rs"]
mod schema;
mod sqlite;
mod world;
