//! What the API promises, asked through a real socket of a real gateway, over the real simulator.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so")]
#![expect(clippy::disallowed_methods, reason = "a test is its own client")]

mod account_changes;
mod accounts;
mod api_keys;
mod assume_user;
mod attacks;
mod audit_log;
mod browser;
mod clients;
mod connections;
mod connectors;
#[path = "../postgres/database.rs"]
mod database;
mod errors;
mod examples;
mod expected;
mod filters;
mod freshness;
mod hostile;
mod hub;
mod iam;
mod isolation;
mod metrics;
mod odd_pages;
mod odd_records;
mod openapi;
mod outage;
mod paging;
mod proxies;
mod rate_limit;
mod raw;
mod refresh;
#[path = "../postgres/refusing.rs"]
mod refusing;
#[path = "../postgres/relay.rs"]
mod relay;
mod replicas;
#[path = "../postgres/mod.rs"]
mod schema;
mod secrets;
mod tampering;
mod token_replies;
mod truth;
mod walks;
mod world;
