//! What this process tells of its work: lines in a log, and [`metrics`].
//!
//! What is logged, and how: one line per request and one per provider call, on standard error.
//!
//! `lines`: lines are gathered in memory, and a thread of its own writes many at once: no request
//! waits for a write, and few wake that thread. When it falls behind by a whole buffer, lines are
//! dropped rather than requests delayed. `json`: how a line looks where machines read it. No line
//! holds a token, a body, an e-mail address, a query or a path with ids in it.

mod json;
mod lines;
pub mod metrics;

use tracing_subscriber::EnvFilter;

use crate::config::{LogConfig, LogFormat};
pub use lines::LogGuard;
pub use metrics::{
    CallOutcome, CredentialStateLabel, HttpMethod, Metrics, RefreshOutcome, RouteMeter,
};

/// Starts logging for the life of the process; the guard writes what is left when dropped.
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
