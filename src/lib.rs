//! Rolecall, a self-hosted identity gateway.

pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod connectors;
pub mod crypto;
pub mod directory;
pub mod error;
pub mod gateway;
pub mod http;
pub mod model;
pub mod outbound;
pub mod store;
pub mod telemetry;
