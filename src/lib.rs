//! Rolecall, a self-hosted identity gateway.

pub mod clock;
pub mod connectors;
pub mod directory;
pub mod error;
pub mod model;
pub mod outbound;
