//! `rolecall serve`: runs the gateway until a signal stops it.

use clap::Args;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{
    ConfigFile, Failure, block_on, key_ring, must_be_unexposed, shutdown_signal,
    survive_file_limits,
};
use crate::{app::App, clock::Clock, config::Config, crypto::Rng, gateway::Gateway, telemetry};

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    file: ConfigFile,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut config = Config::load(arguments.file.config.as_deref())?;
    let _guard = telemetry::start(&config.log);
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    let ring = key_ring(&config)?;
    must_be_unexposed(&config, &ring)?;
    let files = raise_file_limit();
    // 0 derives the limit from the limit of open files.
    if config.server.max_connections == 0 {
        config.server.max_connections = connections_beside(files);
    }
    let max_connections = config.server.max_connections;
    block_on(async move {
        survive_file_limits();
        let app = App::build(&config, ring.clone(), Clock::system(), Rng::system()).await?;
        let hangup = signal(SignalKind::hangup())?;
        let hangups = tokio::spawn(handle_signals(
            hangup,
            app.gateway().clone(),
            ring.has_file(),
        ));
        tracing::info!(max_connections, "connections limited");
        if let Some(port) = app.metrics_port() {
            tracing::info!(port, "metrics served apart");
        }
        tracing::info!(port = app.port(), "listening");
        app.run(shutdown_signal()).await?;
        hangups.abort();
        tracing::info!("stopped");
        Ok(())
    })
}

/// Reloads the key file on each SIGHUP.
async fn handle_signals(mut hangup: Signal, gateway: Gateway, has_key_file: bool) {
    while hangup.recv().await.is_some() {
        if has_key_file {
            gateway.background().reload_now();
        } else {
            tracing::warn!("the key ring came with the settings; start again to change it");
        }
    }
}

/// The number of open files reserved for the database, calls to providers and the log.
const OTHER_FILES: usize = 512;

/// With a lower limit, `serve` logs a warning: a few slow clients can use up all open files.
const FEW_FILES: usize = 8192;

/// Raises the soft limit of open files to the hard limit, and returns the current one.
fn raise_file_limit() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "soft limit of open files not raised");
    }
    let current = getrlimit(Resource::Nofile).current;
    let files = current.map_or(usize::MAX, |files| {
        usize::try_from(files).unwrap_or(usize::MAX)
    });
    if files < FEW_FILES {
        tracing::warn!(
            files,
            "few open files allowed: raise the hard limit to at least {FEW_FILES} (ulimit -Hn, LimitNOFILE)",
        );
    }
    files
}

/// The connection limit for a limit of open files; always below that limit.
const fn connections_beside(files: usize) -> usize {
    if files < 2 * OTHER_FILES {
        files / 2
    } else {
        files - OTHER_FILES
    }
}

#[cfg(test)]
mod tests {
    use super::connections_beside;

    #[test]
    fn connections_leave_files_for_everything_else() {
        assert_eq!(connections_beside(8192), 7680);
        assert_eq!(connections_beside(1024), 512);
        assert_eq!(connections_beside(1023), 511);
        assert_eq!(connections_beside(64), 32);
    }
}
