//! The binary as people and their scripts run it: arguments in, output and an exit code out.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so")]
#![expect(clippy::disallowed_methods, reason = "a test is its own client")]

mod arguments;
mod bench;
mod demo;
mod keyring;
mod keys;
#[path = "../postgres/mod.rs"]
mod schema;
mod serve;
mod store;
