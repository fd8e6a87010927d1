//! The log and the [`metrics`] of this process.
//!
//! The log has one line per request and one per provider call, on standard error. No line contains
//! a token, a body, an e-mail address, a query, or a path with ids in it.
//!
//! `lines` collects lines in memory, and its own thread writes many at once: no request waits for a
//! write, and few lines wake that thread. If the buffer is full, lines are dropped so that requests
//! are not delayed. `json` formats a line as JSON.

mod json;
mod lines;
pub mod metrics;

use tracing_subscriber::EnvFilter;

use crate::config::{LogConfig, LogFormat};
pub use lines::LogGuard;
pub use metrics::{
    CallOutcome, CredentialStateLabel, HttpMethod, Metrics, RefreshOutcome, RouteMeter,
};

/// Starts logging for the life of the process. The guard writes the remaining lines when it is
/// dropped.
///
/// # Panics
/// If called twice.
pub fn start(log: &LogConfig) -> LogGuard {
    let (lines, guard) = lines::gather(std::io::stderr());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(&log.level))
        .with_writer(lines)
        .with_ansi(false);
    match log.format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.event_format(json::Json).init(),
    }
    guard
}
