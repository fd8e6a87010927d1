//! What is logged, and how: one line per request and one per provider call, on standard error.
//!
//! Lines are handed to a thread of their own, so that no request waits for a write. When that
//! thread falls behind by its whole buffer, lines are dropped rather than requests delayed.
//! No line holds a token, a body, an e-mail address, a query or a path with ids in it.

use tracing_appender::non_blocking::WorkerGuard;
use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};

/// Starts logging for the life of the process; the guard writes what is left when dropped.
///
/// # Panics
/// If called twice.
pub fn start(log: &Log) -> WorkerGuard {
    let (writer, guard) = tracing_appender::non_blocking(std::io::stderr());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(&log.level))
        .with_writer(writer)
        .with_ansi(false);
    match log.format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
    guard
}
