//! `rolecall check`: checks this installation and, if asked, an access token. It changes nothing,
//! and reports all faults at once, each with a remedy.

use clap::Args;
use serde::Serialize;
use serde_json::json;

use super::{
    ConfigFile, Failure, key_ring, must_be_unexposed,
    output::{json_line, printable, table},
    ring_origin, survive_file_limits,
    token::{AtProvider, read_token},
    why,
};
use crate::{
    app,
    clock::Clock,
    config::Config,
    crypto::{LiveRing, Rng},
    gateway::linking::verify::{CheckResult, TokenToCheck},
    model::accounts::Endpoint,
    store::{Inspection, JournalFault, JournalFolder, OpenError, Store},
};

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    file: ConfigFile,
    #[command(flatten)]
    at: AtProvider,
    /// Read an access token from standard input and check it with the provider
    #[arg(long, requires = "EndpointArg")]
    token_stdin: bool,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

/// The result for one part.
#[derive(Serialize)]
struct CheckPart {
    name: &'static str,
    state: CheckState,
    detail: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum CheckState {
    Ok,
    /// It works, but is probably not intended.
    Warning,
    Fault,
    /// A part that it depends on has a fault.
    NotChecked,
}

impl CheckState {
    const fn as_str(self) -> &'static str {
        match self {
            CheckState::Ok => "ok",
            CheckState::Warning => "WARNING",
            CheckState::Fault => "FAULT",
            CheckState::NotChecked => "not checked",
        }
    }
}

/// The results for all parts, and whether a fault is one of the configuration (exit code 78).
struct CheckReport {
    parts: Vec<CheckPart>,
    is_config_wrong: bool,
}

impl CheckReport {
    /// Records the result for a part; None means that it was not checked. Returns the value that
    /// later parts need.
    fn note<T>(
        &mut self,
        name: &'static str,
        outcome: Option<Result<(T, String), Failure>>,
    ) -> Option<T> {
        let (state, detail, found) = match outcome {
            Some(Ok((found, detail))) => (CheckState::Ok, detail, Some(found)),
            Some(Err(failure)) => {
                self.is_config_wrong |= matches!(failure, Failure::Config(_));
                (CheckState::Fault, failure.into_message(), None)
            }
            None => (
                CheckState::NotChecked,
                "for what is wrong above".to_owned(),
                None,
            ),
        };
        self.parts.push(CheckPart {
            name,
            state,
            detail,
        });
        found
    }

    fn is_ok(&self) -> bool {
        let passes = [CheckState::Ok, CheckState::Warning];
        self.parts.iter().all(|part| passes.contains(&part.state))
    }
}

pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    survive_file_limits();
    let mut report = CheckReport {
        parts: Vec::new(),
        is_config_wrong: false,
    };
    let path = Config::file(arguments.file.config.as_deref());
    let origin = path.as_ref().map_or_else(
        || "the defaults and the environment".to_owned(),
        |path| format!("{} and the environment", path.display()),
    );
    let config = Config::load(path.as_deref()).map_err(Failure::from);
    let config = report.note("configuration", Some(config.map(|config| (config, origin))));
    for detail in config.iter().flat_map(Config::warnings) {
        report.parts.push(CheckPart {
            name: "public url",
            state: CheckState::Warning,
            detail,
        });
    }
    let ring = report.note("key ring", config.as_ref().map(read_ring));
    let store = match (&config, &ring) {
        (Some(config), Some(ring)) => Some(inspect(config, ring).await),
        _ => None,
    };
    report.note("store", store);
    report.note("journal", config.as_ref().map(inspect_journal));
    report.note("certificates", Some(find_certificates()));
    let mut findings = None;
    if arguments.token_stdin {
        let tried = match &config {
            Some(config) => Some(examine(config, &arguments.at).await),
            None => None,
        };
        findings = report.note("token", tried);
    }
    print(&report, findings.as_ref(), &arguments)?;
    match (report.is_ok(), report.is_config_wrong) {
        (true, _) => Ok(()),
        (false, true) => Err(Failure::Config(WRONG.to_owned())),
        (false, false) => Err(Failure::Other(WRONG.to_owned())),
    }
}

const WRONG: &str = "not everything is in order; standard output says what is not";

fn read_ring(config: &Config) -> Result<(LiveRing, String), Failure> {
    let live = key_ring(config)?;
    must_be_unexposed(config, &live)?;
    let ring = live.current();
    let ids: Vec<_> = ring.ids().skip(1).collect();
    let others = match ids.as_slice() {
        [] => String::new(),
        ids => format!(", to decrypt also `{}`", ids.join("`, `")),
    };
    let detail = format!(
        "{} encrypts with `{}`{others}",
        ring_origin(config),
        ring.encrypting_id()
    );
    Ok((live, detail))
}

async fn inspect(config: &Config, ring: &LiveRing) -> Result<((), String), Failure> {
    let url = config.store.shown_url();
    let detail = match Store::inspect(&config.store.url, ring.clone()).await {
        Ok(Inspection::Current { migration }) => {
            format!("{url} opens with these keys; its migration {migration} is this version's")
        }
        Ok(Inspection::Absent) => format!("nothing is at {url} yet; `rolecall serve` makes it"),
        Ok(Inspection::Behind { migration, newest }) => {
            return Err(Failure::Other(format!(
                "{url} is of an older version of Rolecall (migration {migration}, not {newest}); \
                 back it up, then `rolecall serve` brings it up to date"
            )));
        }
        Err(error @ (OpenError::Io { .. } | OpenError::Database { .. })) => {
            return Err(Failure::Other(format!(
                "{error}; check `store.url`, and that this user may read and write there"
            )));
        }
        Err(error) => return Err(error.into()),
    };
    match Store::try_write(&config.store.url).await {
        Ok(()) => Ok(((), detail)),
        Err(error @ OpenError::Exposed { .. }) => Err(error.into()),
        Err(error) => Err(Failure::Other(format!(
            "{error}; the user that serves must be able to write there, and the disk have room"
        ))),
    }
}

fn inspect_journal(config: &Config) -> Result<((), String), Failure> {
    let path = config.store.journal();
    let place = path.display();
    match Store::inspect_journal(&config.store.url, &path) {
        Ok(JournalFolder::Present) => Ok(((), format!("{place} can be written"))),
        Ok(JournalFolder::Absent) => Ok((
            (),
            format!("nothing is at {place} yet; `rolecall serve` makes it"),
        )),
        // An unusable journal is a fault only if the configuration requires one.
        Err(error) if !config.store.journal_required => Ok((
            (),
            format!("{error}; `store.journal_required` is false, so it is served without one"),
        )),
        Err(
            error @ (JournalFault::Exposed { .. }
            | JournalFault::Relative { .. }
            | JournalFault::InUse { .. }),
        ) => Err(Failure::other(error)),
        Err(error @ JournalFault::Unwritable { .. }) => Err(Failure::Other(format!(
            "{error}; check `store.journal`, and that the user that serves may write there"
        ))),
    }
}

/// Finds the system's certificate authorities, which authenticate providers.
fn find_certificates() -> Result<((), String), Failure> {
    let found = rustls_native_certs::load_native_certs();
    match found.certs.len() {
        0 => {
            let errors: Vec<_> = found.errors.iter().map(ToString::to_string).collect();
            let errors = match errors.as_slice() {
                [] => String::new(),
                errors => format!(" ({})", errors.join("; ")),
            };
            Err(Failure::Other(format!(
                "no certificates of authorities were found{errors}, so no provider can be called; \
                 install the package ca-certificates, or name a file in SSL_CERT_FILE"
            )))
        }
        count => Ok(((), format!("{count} authorities are trusted"))),
    }
}

async fn examine(config: &Config, at: &AtProvider) -> Result<(CheckResult, String), Failure> {
    let candidate = TokenToCheck {
        provider: at.provider.clone(),
        endpoint: at.endpoint(),
        token: read_token()?,
    };
    let findings = app::examine(config, Clock::system(), &Rng::system(), candidate).await?;
    let detail = in_words(&findings, at);
    Ok((findings, detail))
}

fn in_words(findings: &CheckResult, at: &AtProvider) -> String {
    let identity = &findings.identity;
    let person = match (&identity.name, &identity.email) {
        (Some(name), Some(email)) => format!("{name} <{email}>"),
        (Some(one), None) | (None, Some(one)) => one.clone(),
        (None, None) => identity.user.to_string(),
    };
    // A line end in the provider's text would look like another line of this report.
    let person = printable(&person);
    let standing = if identity.is_admin {
        "an administrator"
    } else {
        "no administrator"
    };
    let id = &identity.organization;
    let organization = match &identity.organization_name {
        Some(name) => format!("{name} ({id})"),
        None => id.to_string(),
    };
    let organization = printable(&organization);
    let place = match at.endpoint() {
        Endpoint::Region(region) => format!("in region {region}"),
        Endpoint::BaseUrl(base) => format!("at {base}"),
    };
    let users = findings
        .users
        .map(|users| format!("; it lists {users} users"));
    format!(
        "of {person}, {standing} of {organization}, {} {place}{}",
        findings.connector.name,
        users.unwrap_or_default()
    )
}

/// The fields of users that this token can read.
fn served(findings: &CheckResult) -> Vec<&'static str> {
    let fields = findings.connector.models.users.iter().copied();
    fields
        .filter(|field| findings.hidden.iter().all(|it| it.field.as_str() != *field))
        .collect()
}

fn print(
    report: &CheckReport,
    findings: Option<&CheckResult>,
    arguments: &Arguments,
) -> Result<(), Failure> {
    if arguments.json {
        let token = findings.map(|findings| {
            let identity = &findings.identity;
            let (region, base_url) = match arguments.at.endpoint() {
                Endpoint::Region(region) => (Some(region), None),
                Endpoint::BaseUrl(base) => (None, Some(base)),
            };
            json!({
                "provider": findings.connector.provider,
                "region": region,
                "base_url": base_url,
                "person": {
                    "remote_id": identity.user, "name": identity.name, "email": identity.email,
                },
                "organization": {
                    "remote_id": identity.organization, "name": identity.organization_name,
                },
                "is_admin": identity.is_admin,
                "users": findings.users,
                "served_fields": served(findings),
                "unavailable_fields": findings.hidden,
            })
        });
        return json_line(&json!({
            "ok": report.is_ok(), "checks": report.parts, "token": token,
        }));
    }
    let row = |name: &str, state: &str, detail: &str| [name, state, detail].map(str::to_owned);
    let mut rows = Vec::new();
    for part in &report.parts {
        let mut lines = part.detail.lines();
        let first = lines.next().unwrap_or_default();
        rows.push(row(part.name, part.state.as_str(), first));
        rows.extend(lines.map(|line| row("", "", line.trim_start())));
    }
    if let Some(findings) = findings {
        rows.push(row("", "serves", &served(findings).join(", ")));
        for warning in &findings.hidden {
            let missing = format!("{}: {}", warning.field.as_str(), why(warning.reason));
            rows.push(row("", "misses", &missing));
        }
    }
    table(["PART", "STATE", "WHAT"], rows)
}
