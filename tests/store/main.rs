//! The store, from outside: what every backend must do (`contract`, with `budgets`, `projects`,
//! `rotation` and `tampering`), what SQLite and PostgreSQL must do besides (`sqlite`, `postgres`), from one to the
//! other (`copy`), and what is told of all that (`audit`).

#![expect(
    clippy::unwrap_used,
    reason = "in a test, an error that was not expected is a failure"
)]

mod audit_log;
mod budgets;
mod contract;
mod copy;
mod credentials;
#[path = "../postgres/database.rs"]
mod database;
#[path = "../postgres/pooler.rs"]
mod pooler;
mod postgres;
mod projects;
#[path = "../postgres/relay.rs"]
mod relay;
mod rotation;
#[path = "../postgres/mod.rs"]
mod schema;
mod sqlite;
mod tampering;
mod upgrade;
mod world;
