//! The binary as people and their scripts run it: arguments in, output and an exit code out.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so")]
#![expect(clippy::disallowed_methods, reason = "a test is its own client")]

mod accounts;
mod api_keys;
mod arguments;
mod audit_log;
mod backup;
mod bench;
mod check;
mod credentials;
mod demo;
mod export;
mod health;
mod image;
mod key_ring;
mod link;
mod office;
mod projects;
mod rotation;
#[path = "../postgres/mod.rs"]
mod schema;
mod serve;
mod store;
