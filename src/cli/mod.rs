//! The command line of Rolecall.
//!
//! Exit codes: 0, done; 1, the work could not be done, or (`check`, `health`, `accounts walk`,
//! `audit verify`) the result is not as it should be; 2, the command line is wrong (clap); 78, the
//! configuration or the key ring is wrong (`EX_CONFIG` of sysexits.h), and nothing was written. A
//! closed pipe on standard output ends a command quietly, with 0.
//!
//! Commands that only read work beside a running server; `accounts` describes those that do not.
//! Most commands check first that the database exists and has the current schema, because opening
//! it would create or migrate it. Secrets come on standard input (`token`); output files are
//! written atomically (`file`).

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
    /// Start the Smartsheet simulator and a gateway, link two accounts, and print requests to try
    Demo(demo::Arguments),
    /// Run the gateway server
    Serve(serve::Arguments),
    /// Create, list, change and delete projects; each API key and account belongs to one
    #[command(subcommand)]
    Projects(projects::Command),
    /// Create, list and change connector profiles, the OAuth apps that customers sign in with
    #[command(subcommand)]
    Profiles(connector_profiles::Command),
    /// Create, list, expire and revoke API keys
    #[command(subcommand)]
    Keys(api_keys::Command),
    /// List, show, link, walk, remove and export linked accounts
    #[command(subcommand)]
    Accounts(accounts::Command),
    /// Link an account by signing in at the provider, in a browser on this machine or another
    Link(link::Arguments),
    /// Move an account's credential to another installation
    #[command(subcommand)]
    Credentials(credentials::Command),
    /// After a breach: revoke every credential at its provider, and every API key
    RevokeAll(revoke_all::Arguments),
    /// List the entries of the audit log, and verify that none was changed
    #[command(subcommand)]
    Audit(audit_log::Command),
    /// Check this installation and, if asked, an access token
    Check(check::Arguments),
    /// Ask the server on this machine whether it is ready
    Health(health::Arguments),
    /// Copy the SQLite database while the server runs; the key ring is not in the copy
    Backup(backup::Arguments),
    /// Create, rotate and inspect the key ring that seals everything stored
    #[command(subcommand)]
    Keyring(key_ring::Command),
    /// Copy everything stored to another database
    #[command(subcommand)]
    Store(store::Command),
    /// Print the OpenAPI document
    Openapi,
}

/// The configuration file.
#[derive(Args, Clone)]
struct ConfigFile {
    /// A TOML file that overrides the defaults; `config/default.toml` lists every key. Without this
    /// option, /etc/rolecall/rolecall.toml is read if it exists
    #[arg(long, value_name = "FILE", env = "ROLECALL_CONFIG")]
    config: Option<PathBuf>,
}

/// Runs a command and returns its exit code.
pub fn run(arguments: Arguments) -> ExitCode {
    // The TLS implementation of this process. An error means that one is already installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // This comes before any secret is read.
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

/// Disables core dumps, and debuggers without `CAP_SYS_PTRACE`: most commands have keys and tokens
/// in memory.
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

/// The reason why a command did not finish.
enum Failure {
    /// The reader of standard output has closed the pipe. Exit code 0.
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
        // The hint of `invalid_body` addresses HTTP clients.
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

/// Writes a line to standard output. Characters that control a terminal are replaced.
fn say(line: impl std::fmt::Display) -> Result<(), Failure> {
    let line = line.to_string();
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", output::printable_lines(&line))?;
    Ok(out.flush()?)
}

/// Explains why a field is null for every user.
const fn why(reason: Reason) -> &'static str {
    match reason {
        Reason::NotPermitted => "the token may not see it",
        Reason::NotFetched => "it is not asked for",
        Reason::NotSupported => "the provider, or this plan of it, has no such thing",
        Reason::Unknown => "the provider did not say",
        Reason::Unreadable => "the provider's value cannot be read",
    }
}

/// Writes a line to standard error, and ignores a closed one.
fn note(line: impl std::fmt::Display) {
    let line = line.to_string();
    let line = output::printable_lines(&line);
    let _ = writeln!(std::io::stderr(), "rolecall: {line}");
}

/// Loads the configured key ring: the setting `keys` if it is not empty, otherwise the file
/// `keys_file`.
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

/// Refuses a key file that others can read or write, or that the group can write.
fn must_be_unexposed(config: &Config, ring: &LiveRing) -> Result<(), Failure> {
    match ring.exposure() {
        None => Ok(()),
        Some(exposure) => Err(Failure::Config(format!(
            "{} {exposure} (or, for a mounted secret, set its mode to 0440)",
            ring_origin(config)
        ))),
    }
}

/// Makes a write beyond the process's limit on file sizes fail, as it does on a full disk. Without
/// a handler, SIGXFSZ would end the process.
fn survive_file_limits() {
    let exceeded = SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw());
    // Tokio keeps its handler installed after the `Signal` is dropped.
    if let Err(error) = signal(exceeded) {
        tracing::warn!(%error, "a limit on the size of files would end this process");
    }
}

/// Refuses a database that does not exist, has an older schema, or belongs to another key ring.
/// Opening it would create it, or migrate it while a server runs.
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

/// Names the configured source of the key ring, for messages.
fn ring_origin(config: &Config) -> String {
    if config.keys.expose_secret().is_empty() {
        format!("the key ring {}", config.keys_file.display())
    } else {
        "the key ring in `keys`".to_owned()
    }
}

/// Completes on SIGTERM or Ctrl-C.
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
