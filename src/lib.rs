//! Rolecall, a self-hosted identity gateway.

pub mod clock;
pub mod config;
pub mod connectors;
pub mod error;
pub mod model;
pub mod outbound;
pub mod telemetry;
