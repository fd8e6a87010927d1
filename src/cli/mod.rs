//! The command line: for the operator and for whoever tries Rolecall out.
//!
//! Exit codes: 0 done; 1 it could not be done, or (`check`, `health`, `accounts walk`, `audit
//! verify`) it is not as it should be; 2 the command line was wrong (clap); 78 the configuration or the key ring is wrong
//! (`EX_CONFIG` of sysexits.h), and nothing was written. A closed pipe on standard output is a
//! quiet end.
//!
//! What reads works beside a running server: `accounts` has what does not. A token comes on
//! standard input (`token`), a file is whole or not there (`file`), and an installation that a
//! command is to work on is looked at before it is opened, as opening makes or changes one.

use std::{io::Write, path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};
use secrecy::ExposeSecret;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    app::BuildError,
    config::{Config, ConfigErrors},
    crypto::{KeyRing, KeyRingError, LiveRing},
    error::{Error, Kind},
    model::schema::Reason,
    store::{Inspection, OpenError, Store},
};

mod accounts;
mod api_keys;
mod audit_log;
mod backup;
mod check;
mod connector_profiles;
mod credentials;
mod demo;
mod export;
mod file;
mod health;
mod key_ring;
mod link;
mod loopback;
mod openapi;
mod output;
mod pasted;
mod progress;
mod projects;
mod revoke_all;
mod serve;
mod store;
mod token;

/// A self-hosted identity gateway: the identity feed you may let delete things.
#[derive(Parser)]
#[command(name = "rolecall", version, about)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start the Smartsheet simulator and a gateway, link two accounts, and say what to try
    Demo(demo::Arguments),
    /// Serve
    Serve(serve::Arguments),
    /// Make, list, change and delete projects, the boundary that keys and accounts belong to
    #[command(subcommand)]
    Projects(projects::Command),
    /// Make, list and change connector profiles, the OAuth apps that customers sign in under
    #[command(subcommand)]
    Profiles(connector_profiles::Command),
    /// Make, list and end API keys
    #[command(subcommand)]
    Keys(api_keys::Command),
    /// List, show, link, walk, remove and export linked accounts
    #[command(subcommand)]
    Accounts(accounts::Command),
    /// Link an account by signing in at the provider, from this machine's browser or any other
    Link(link::Arguments),
    /// Move an account's credential to another installation
    #[command(subcommand)]
    Credentials(credentials::Command),
    /// After a breach: revoke every credential at its provider, and every API key
    RevokeAll(revoke_all::Arguments),
    /// List what was done and by whom, and verify that the entries are as they were written
    #[command(subcommand)]
    Audit(audit_log::Command),
    /// Say whether this installation is in order, and what a token would be worth
    Check(check::Arguments),
    /// Ask the server on this machine whether it is ready
    Health(health::Arguments),
    /// Copy the database while the server runs; the key ring is not in the copy
    Backup(backup::Arguments),
    /// Make, change and look at the key ring that everything stored is sealed with
    #[command(subcommand)]
    Keyring(key_ring::Command),
    /// Move everything stored to another database
    #[command(subcommand)]
    Store(store::Command),
    /// Print the API document
    Openapi,
}

/// Where the settings are.
#[derive(Args, Clone)]
struct ConfigFile {
    /// A TOML file over the defaults; `config/default.toml` names every key. Without it,
    /// /etc/rolecall/rolecall.toml is read if it is there
    #[arg(long, value_name = "FILE", env = "ROLECALL_CONFIG")]
    config: Option<PathBuf>,
}

/// Runs a command to its exit code.
pub fn run(arguments: Arguments) -> ExitCode {
    // The one TLS implementation of this process; a second call would find it there already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // Before anything secret is read.
    disable_core_dumps();
    let outcome = match arguments.command {
        Command::Demo(arguments) => block_on(demo::run(arguments)),
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Projects(command) => block_on(projects::run(command)),
        Command::Profiles(command) => block_on(connector_profiles::run(command)),
        Command::Keys(command) => block_on(api_keys::run(command)),
        Command::Accounts(command) => block_on(accounts::run(command)),
        Command::Link(arguments) => block_on(link::run(arguments)),
        Command::Credentials(command) => block_on(credentials::run(command)),
        Command::RevokeAll(arguments) => block_on(revoke_all::run(arguments)),
        Command::Audit(command) => block_on(audit_log::run(command)),
        Command::Check(arguments) => block_on(check::run(arguments)),
        Command::Health(arguments) => health::run(&arguments),
        Command::Backup(arguments) => block_on(backup::run(arguments)),
        Command::Keyring(command) => block_on(key_ring::run(command)),
        Command::Store(command) => block_on(store::run(command)),
        Command::Openapi => openapi::run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::ClosedPipe) => ExitCode::SUCCESS,
        Err(Failure::Config(message)) => {
            note(message);
            ExitCode::from(78)
        }
        Err(Failure::Other(message)) => {
            note(message);
            ExitCode::FAILURE
        }
    }
}

/// Keys and tokens are in the memory of most commands: no core file of any of them, and no debugger of
/// another user's.
fn disable_core_dumps() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    if let Err(error) = setrlimit(Resource::Core, none) {
        note(format!("core files could not be switched off: {error}"));
    }
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        note(format!("the process could not be made undumpable: {error}"));
    }
}

/// Why a command ended without having done its work.
enum Failure {
    /// Whoever reads our output has gone.
    ClosedPipe,
    /// Exit code 78.
    Config(String),
    /// Exit code 1.
    Other(String),
}

impl Failure {
    fn other(message: impl std::fmt::Display) -> Self {
        Self::Other(message.to_string())
    }

    fn into_message(self) -> String {
        match self {
            Self::Config(message) | Self::Other(message) => message,
            gone @ Self::ClosedPipe => gone.message().to_owned(),
        }
    }

    fn message(&self) -> &str {
        match self {
            Self::ClosedPipe => "nobody reads the output",
            Self::Config(message) | Self::Other(message) => message,
        }
    }
}

impl From<ConfigErrors> for Failure {
    fn from(faults: ConfigErrors) -> Self {
        Self::Config(faults.to_string())
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::WrongKeys { .. }
            | OpenError::KeyChecks { .. }
            | OpenError::Url
            | OpenError::PoolMode => Self::Config(error.to_string()),
            _ => Self::Other(error.to_string()),
        }
    }
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Self {
        match error {
            BuildError::Store(error) => error.into(),
            BuildError::Config(faults) => Self::Config(faults.to_string()),
            fault @ BuildError::Journal(_) => Self::Config(fault.to_string()),
            other => Self::Other(other.to_string()),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let wait = error.retry_after().map_or_else(String::new, |wait| {
            format!(" (Retry-After: {} s)", wait.as_secs())
        });
        // What the hint of a bad body says is for those who sent one.
        let hint = match error.hint() {
            hint if hint == Kind::InvalidBody.hint() => String::new(),
            hint => format!(". {hint}"),
        };
        Self::Other(format!("{error}{hint}{wait}"))
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Self::ClosedPipe,
            _ => Self::Other(error.to_string()),
        }
    }
}

fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Failure::other)?
        .block_on(work)
}

/// Writes a line to standard output, without anything that steers a terminal.
fn say(line: impl std::fmt::Display) -> Result<(), Failure> {
    let line = line.to_string();
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", output::printable_lines(&line))?;
    Ok(out.flush()?)
}

/// Why a field is null for everybody.
const fn why(reason: Reason) -> &'static str {
    match reason {
        Reason::NotPermitted => "the token may not see it",
        Reason::NotFetched => "it is not asked for",
        Reason::NotSupported => "the provider, or this plan of it, has no such thing",
        Reason::Unknown => "the provider did not say",
        Reason::Unreadable => "the provider's value cannot be read",
    }
}

/// Writes a line to standard error, where there need be nobody to read it.
fn note(line: impl std::fmt::Display) {
    let line = line.to_string();
    let line = output::printable_lines(&line);
    let _ = writeln!(std::io::stderr(), "rolecall: {line}");
}

/// The key ring that the settings name, and where to look for what it will be.
fn key_ring(config: &Config) -> Result<LiveRing, Failure> {
    let given = config.keys.expose_secret();
    let ring = if given.is_empty() {
        LiveRing::read_file(&config.keys_file)
    } else {
        KeyRing::parse(given).map(LiveRing::from)
    };
    ring.map_err(|error| {
        let hint = match &error {
            KeyRingError::Io(io) if io.kind() == std::io::ErrorKind::NotFound => {
                ". Name the settings file with --config or ROLECALL_CONFIG, if it names another ring; \
                 only a new installation gets one by `rolecall keyring init FILE`"
            }
            _ => "",
        };
        let origin = ring_origin(config);
        Failure::Config(format!("{origin} cannot be used: {error}{hint}"))
    })
}

/// Refuses a key file that others can read or write, or the group can write.
fn must_be_unexposed(config: &Config, ring: &LiveRing) -> Result<(), Failure> {
    match ring.exposure() {
        None => Ok(()),
        Some(exposure) => Err(Failure::Config(format!(
            "{} {exposure} (or, for a mounted secret, set its mode to 0440)",
            ring_origin(config)
        ))),
    }
}

/// Has a write beyond a limit of the process on the size of files fail, as it does on a full disk.
/// It would end the process otherwise.
fn survive_file_limits() {
    let exceeded = SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw());
    // Once there is a handler it stays, whoever listens.
    if let Err(error) = signal(exceeded) {
        tracing::warn!(%error, "a limit on the size of files would end this process");
    }
}

/// Refuses a database that is not there yet or of an older version, and a ring that is not its own:
/// opening would make it, or change it under the server that runs.
async fn must_be_current(config: &Config, ring: &LiveRing) -> Result<(), Failure> {
    let url = config.store.shown_url();
    match Store::inspect(&config.store.url, ring.clone()).await? {
        Inspection::Current { .. } => Ok(()),
        Inspection::Absent => Err(Failure::Other(format!(
            "nothing is at {url} yet; check --config, or start `rolecall serve`"
        ))),
        Inspection::Behind { .. } => Err(Failure::Other(format!(
            "{url} is of an older version of Rolecall; `rolecall serve` of this one brings it up \
             to date"
        ))),
    }
}

/// Where the settings say that the key ring is.
fn ring_origin(config: &Config) -> String {
    if config.keys.expose_secret().is_empty() {
        format!("the key ring {}", config.keys_file.display())
    } else {
        "the key ring in `keys`".to_owned()
    }
}

/// Ends when the process is asked to: SIGTERM or Ctrl-C.
async fn shutdown_signal() {
    let mut terminate = match signal(SignalKind::terminate()) {
        Ok(signal) => signal,
        Err(error) => {
            tracing::warn!(%error, "SIGTERM cannot be waited for");
            return std::future::pending().await;
        }
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
