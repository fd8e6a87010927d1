//! `rolecall serve`: the gateway, until it is told to stop.

use clap::Args;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{
    ConfigFile, Failure, block_on, key_ring, must_be_unexposed, shutdown_signal,
    survive_file_limits,
};
use crate::{app::App, clock::Clock, config::Config, crypto::Chance, gateway::Gateway, telemetry};

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    file: ConfigFile,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let config = Config::load(arguments.file.config.as_deref())?;
    let _guard = telemetry::start(&config.log);
    harden();
    let ring = key_ring(&config)?;
    must_be_unexposed(&config, &ring)?;
    block_on(async move {
        survive_file_limits();
        let app = App::build(&config, ring.clone(), Clock::system(), Chance::system()).await?;
        let hangup = signal(SignalKind::hangup())?;
        let hangups = tokio::spawn(heed(hangup, app.gateway().clone(), ring.has_file()));
        tracing::info!(port = app.port(), "listening");
        app.run(shutdown_signal()).await?;
        hangups.abort();
        tracing::info!("stopped");
        Ok(())
    })
}

/// Looks at the key file whenever SIGHUP asks for it.
async fn heed(mut hangup: Signal, gateway: Gateway, has_key_file: bool) {
    while hangup.recv().await.is_some() {
        if has_key_file {
            gateway.look_now();
        } else {
            tracing::warn!("the key ring came with the settings; start again to change it");
        }
    }
}

/// Keys and tokens are in this process's memory: no core file of it, and no debugger of another
/// user's.
fn harden() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    if let Err(error) = setrlimit(Resource::Core, none) {
        tracing::warn!(%error, "core files could not be switched off");
    }
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "the process could not be made undumpable");
    }
}
