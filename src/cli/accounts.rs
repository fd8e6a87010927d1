//! `rolecall accounts`: the operator's commands on the linked accounts of all projects.
//!
//! Commands that only read work beside a running server. The others (`link`, `walk`, `refresh`,
//! `token`, `remove --yes`) change state that a server holds in memory, so they take the claim on
//! the store, as `serve` does. If a server has the claim, they fail and name the API call to make
//! instead.

use std::{pin::pin, time::Duration};

use clap::{Args, Subcommand};
use jiff::Timestamp;
use secrecy::SecretString;
use serde::Serialize;
use tokio::time::timeout;

use super::{
    ConfigFile, Failure,
    api_keys::project_id,
    export, key_ring, must_be_current, note,
    output::{json_line, printable, table},
    progress::{Bar, await_first_walk, watched},
    say, shutdown_signal,
    token::{AtProvider, read_token},
    why,
};
use crate::{
    app,
    clock::Clock,
    config::{Config, LogConfig},
    crypto::Rng,
    gateway::{
        accounts::{Disconnect, Revocation},
        admin::{InForce, Operator},
        auth::OwnAccount,
        linking::{AccountDetails, NewLink},
    },
    http::accounts::{AccountOut, text},
    model::{
        accounts::{Account, AccountChange, AccountKind, AccountStatus, CredentialState, Endpoint},
        id::ProjectId,
        schema::Warning,
        timestamp::{self, display},
        walks::{HeldWalk, Quarantined, Walk, WalkCounts, WalkReason, WalkState},
    },
    store::{DirectoryHead, OpenError},
    telemetry,
};

/// How long closing may take before the command explains the delay.
const CLOSE_NOTICE_DELAY: Duration = Duration::from_secs(1);

#[derive(Subcommand)]
pub enum Command {
    /// List the accounts
    List {
        /// Only the accounts of this project
        #[arg(long)]
        project: Option<String>,
        #[command(flatten)]
        shared: AccountArguments,
    },
    /// Show one account: its status, its directory and the fields that are unavailable
    Show {
        /// The account's id
        account: String,
        #[command(flatten)]
        shared: AccountArguments,
    },
    /// Link an account with a token on standard input, and make its first walk
    Link(LinkArguments),
    /// Walk an account now
    Walk {
        /// The account's id
        account: String,
        /// Read the members of every group again
        #[arg(long)]
        full: bool,
        #[command(flatten)]
        shared: AccountArguments,
    },
    /// Refresh an account's OAuth tokens now, whether or not they are due
    Refresh {
        /// The account's id
        account: String,
        #[command(flatten)]
        shared: AccountArguments,
    },
    /// Replace an account's token with one on standard input, of the same organization
    Token {
        /// The account's id
        account: String,
        /// Read the access token from standard input
        #[arg(long, required = true)]
        token_stdin: bool,
        #[command(flatten)]
        shared: AccountArguments,
    },
    /// Remove an account with its credential, directories and walks
    Remove {
        /// The account's id
        account: String,
        /// Remove it; without this, only print the consequences
        #[arg(long)]
        yes: bool,
        /// Also revoke a personal access token at the provider; OAuth tokens always are
        #[arg(long)]
        revoke: bool,
        #[command(flatten)]
        shared: AccountArguments,
    },
    /// Export all users of an account's directory, with their roles and groups
    Export(export::Arguments),
}

/// Options of every command on accounts.
#[derive(Args)]
pub struct AccountArguments {
    #[command(flatten)]
    pub file: ConfigFile,
    /// Print one line of JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct LinkArguments {
    /// The project that the account belongs to
    #[arg(long)]
    project: String,
    #[command(flatten)]
    at: AtProvider,
    /// Read the access token from standard input
    #[arg(long, required = true, requires = "EndpointArg")]
    token_stdin: bool,
    /// Your id of the customer
    #[arg(long)]
    owner_id: String,
    /// Your name of the customer
    #[arg(long)]
    owner_name: String,
    /// A label of your choice
    #[arg(long)]
    label: Option<String>,
    /// E-mail address of the user to impersonate at the provider (Assume-User)
    #[arg(long, value_name = "EMAIL")]
    assume_user: Option<String>,
    #[command(flatten)]
    shared: AccountArguments,
}

pub async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::List { project, shared } => {
            let project = project.as_deref().map(project_id).transpose()?;
            let operator = open(&shared.file).await?;
            closing(&operator, list(&operator, project.as_ref(), shared.json)).await
        }
        Command::Show { account, shared } => {
            let operator = open(&shared.file).await?;
            closing(&operator, show(&operator, &account, shared.json)).await
        }
        Command::Link(arguments) => {
            let is_json = arguments.shared.json;
            let file = arguments.shared.file.clone();
            let (project, wanted) = checked(arguments)?;
            let (operator, _log) = open_exclusive(&file, "POST /accounts").await?;
            closing(&operator, link(&operator, &project, wanted, is_json)).await
        }
        Command::Walk {
            account,
            full,
            shared,
        } => {
            let call = format!("POST /accounts/{account}/walks");
            let (operator, _log) = open_exclusive(&shared.file, &call).await?;
            closing(&operator, walk(&operator, &account, full, shared.json)).await
        }
        Command::Refresh { account, shared } => {
            let call = format!("POST /accounts/{account}/refresh");
            let (operator, _log) = open_exclusive(&shared.file, &call).await?;
            closing(&operator, refresh(&operator, &account, shared.json)).await
        }
        Command::Token {
            account, shared, ..
        } => {
            let token = read_token()?;
            let call = format!("PATCH /accounts/{account}");
            let (operator, _log) = open_exclusive(&shared.file, &call).await?;
            closing(
                &operator,
                replace_token(&operator, &account, token, shared.json),
            )
            .await
        }
        Command::Remove {
            account,
            yes: false,
            shared,
            ..
        } => {
            let operator = open(&shared.file).await?;
            closing(&operator, tell_what_would_be_removed(&operator, &account)).await
        }
        Command::Remove {
            account,
            yes: true,
            revoke,
            shared,
        } => {
            let call = format!("DELETE /accounts/{account}");
            let (operator, _log) = open_exclusive(&shared.file, &call).await?;
            closing(&operator, remove(&operator, &account, revoke, shared.json)).await
        }
        Command::Export(arguments) => export::run(arguments).await,
    }
}

/// Opens the operator's gateway on an existing installation.
pub(super) async fn open(file: &ConfigFile) -> Result<Operator, Failure> {
    let config = Config::load(file.config.as_deref())?;
    open_as(&config).await
}

async fn open_as(config: &Config) -> Result<Operator, Failure> {
    let ring = key_ring(config)?;
    must_be_current(config, &ring).await?;
    let gateway = app::gateway(config, ring, Clock::system(), Rng::system()).await?;
    // Addresses that commands print contain the server's address.
    gateway.listens_at(config.server.address());
    Ok(Operator::new(gateway))
}

/// As [`open`], and takes the claim on the store, for commands that change a running server's
/// state. `instead` names the API call to make while a server runs.
pub(super) async fn open_exclusive(
    file: &ConfigFile,
    instead: &str,
) -> Result<(Operator, impl Sized + use<>), Failure> {
    let config = Config::load(file.config.as_deref())?;
    let log = telemetry::start(&LogConfig {
        level: "warn".to_owned(),
        format: config.log.format,
    });
    let mut operator = open_as(&config).await?;
    let refused = match operator.gateway().claim() {
        Ok(()) => match operator.join().await {
            Ok(()) => return Ok((operator, log)),
            Err(error) => error.into(),
        },
        Err(error @ OpenError::InUse { .. }) => {
            Failure::Other(format!("{error}; have it done there: {instead}"))
        }
        Err(error) => error.into(),
    };
    operator.close().await;
    Err(refused)
}

/// Runs `work`, then closes the store whether or not it succeeded. A process with the claim handles
/// Ctrl-C and SIGTERM: they cancel the work and the walk that it waits for, but not a token
/// refresh, since the account's refresh token may already be spent.
pub(super) async fn closing<T>(
    operator: &Operator,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let done = if operator.has_joined() {
        tokio::select! {
            // `biased` installs the signal handlers before the work begins.
            biased;
            () = shutdown_signal() => Err(Failure::other("stopped before it was done")),
            done = work => done,
        }
    } else {
        work.await
    };
    let mut close = pin!(operator.close());
    if timeout(CLOSE_NOTICE_DELAY, &mut close).await.is_err() {
        if operator.is_refreshing() {
            note("a refresh is being finished: its tokens are lost if this is killed now");
        }
        close.await;
    }
    done
}

async fn list(
    operator: &Operator,
    project: Option<&ProjectId>,
    is_json: bool,
) -> Result<(), Failure> {
    let accounts = operator.accounts(project).await?;
    let mut listed = Vec::with_capacity(accounts.len());
    for account in &accounts {
        let head = operator.directory_head(account).await?;
        listed.push((account, head));
    }
    if is_json {
        let accounts: Vec<_> = listed
            .iter()
            .map(|(account, head)| ListedAccount::of(account, *head, operator))
            .collect();
        json_line(&serde_json::json!({ "accounts": accounts }))
    } else {
        let rows = listed.iter().map(|(account, head)| {
            [
                account.id.to_string(),
                account.project.to_string(),
                account.provider.clone(),
                account.status.as_str().to_owned(),
                account.origin_owner_id.clone(),
                account.origin_owner_name.clone(),
                head.map_or_else(|| "-".to_owned(), |head| head.version.to_string()),
                head.map_or_else(
                    || "never".to_owned(),
                    |head| display(head.verified_at).to_string(),
                ),
            ]
        });
        table(
            [
                "ACCOUNT", "PROJECT", "PROVIDER", "STATUS", "OWNER", "NAME", "VERSION", "VERIFIED",
            ],
            rows,
        )
    }
}

async fn show(operator: &Operator, id: &str, is_json: bool) -> Result<(), Failure> {
    let own = operator.account(id).await?;
    let standing = AccountReport::of(operator, &own).await?;
    if is_json {
        return json_line(&standing.out(&own.account, operator));
    }
    table(["FIELD", "VALUE"], standing.rows(&own.account))
}

/// Checks the arguments of a link, and reads the token, before the store is opened.
fn checked(arguments: LinkArguments) -> Result<(ProjectId, NewLink), Failure> {
    let project = project_id(&arguments.project)?;
    let checked = |name, value| text(name, value).map_err(Failure::other);
    let label = arguments.label.map(|label| checked("--label", label));
    let link = NewLink {
        endpoint: arguments.at.endpoint(),
        provider: arguments.at.provider,
        description: AccountDetails {
            origin_owner_id: checked("--owner-id", arguments.owner_id)?,
            origin_owner_name: checked("--owner-name", arguments.owner_name)?,
            origin_username: None,
            label: label.transpose()?,
            kind: AccountKind::Production,
        },
        assume_user: arguments.assume_user.map(assumed).transpose()?,
        token: read_token()?,
    };
    Ok((project, link))
}

async fn link(
    operator: &Operator,
    project: &ProjectId,
    link: NewLink,
    is_json: bool,
) -> Result<(), Failure> {
    let own = operator.link(project, link).await?;
    tell_of_link(operator, &own, is_json).await
}

/// Prints the linked account, and shows the progress of its first walk.
pub(super) async fn tell_of_link(
    operator: &Operator,
    own: &OwnAccount,
    is_json: bool,
) -> Result<(), Failure> {
    let account = &own.account;
    if is_json {
        json_line(&ListedAccount::of(account, None, operator))?;
    } else {
        let organization = organization(account);
        say(format!(
            "Linked the account {} to {organization}.",
            account.id
        ))?;
    }
    // The link stands even if this walk fails: the server makes the next one.
    let bar = Bar::new("first walk");
    match await_first_walk(operator.gateway(), own, Some(&bar)).await {
        Ok(counts) => bar.finish(&counted(counts)),
        Err(error) => {
            bar.finish("failed");
            let id = account.id;
            note(format!(
                "{error}; `rolecall accounts walk {id}` tries again"
            ));
        }
    }
    Ok(())
}

async fn walk(operator: &Operator, id: &str, is_full: bool, is_json: bool) -> Result<(), Failure> {
    let own = operator.account(id).await?;
    let bar = Bar::new("walk");
    let gateway = operator.gateway();
    // No timeout: the rate limit can stretch the walk of a large directory over hours.
    let walking = pin!(gateway.walks().walk_now(&own, is_full, Duration::MAX));
    let walk = watched(gateway, &own, walking, Some(&bar)).await?;
    bar.finish("ended");
    if is_json {
        json_line(&walk)?;
    } else {
        say(in_words(&walk))?;
    }
    match walk.state {
        WalkState::Sealed => Ok(()),
        WalkState::Held => Err(Failure::Other(format!(
            "the walk was held: start the server, see whom it is about with \
             GET /accounts/{id}/walks/{}/suspects, then release or discard it there",
            walk.id
        ))),
        WalkState::Failed | WalkState::Running => Err(Failure::Other(
            "the walk failed; the directory that was in force still is".to_owned(),
        )),
    }
}

async fn refresh(operator: &Operator, id: &str, is_json: bool) -> Result<(), Failure> {
    let own = operator.account(id).await?;
    let account = operator.gateway().credentials().refresh_now(&own).await?;
    if is_json {
        json_line(&ListedAccount::of(&account, None, operator))?;
    }
    let credential = account.credential.as_ref();
    let has_failed = credential.is_some_and(|credential| credential.fault.is_some());
    match credential.map(|credential| (credential.state, credential.expires_at)) {
        Some((CredentialState::Healthy, end)) if !has_failed => {
            let end = end.map_or_else(String::new, |end| format!(", good until {}", display(end)));
            if is_json {
                return Ok(());
            }
            say(format!("The account {id} has new tokens{end}."))
        }
        state => {
            let state = state.map_or("disconnected", |(state, _)| state.as_str());
            let reasons = account.status_reasons.iter();
            let reasons: Vec<_> = reasons.map(|reason| reason.description.as_str()).collect();
            Err(Failure::Other(format!(
                "there are no new tokens: the credential is {state}. {}",
                reasons.join(" ")
            )))
        }
    }
}

async fn replace_token(
    operator: &Operator,
    id: &str,
    token: SecretString,
    is_json: bool,
) -> Result<(), Failure> {
    let own = operator.account(id).await?;
    let change = AccountChange::default();
    let gateway = operator.gateway();
    let account = gateway.accounts().update(&own, change, Some(token)).await?;
    if is_json {
        return json_line(&ListedAccount::of(&account, None, operator));
    }
    say(format!(
        "The account {id} of {} has this token now.",
        organization(&account)
    ))
}

async fn remove(operator: &Operator, id: &str, revoke: bool, is_json: bool) -> Result<(), Failure> {
    let own = operator.account(id).await?;
    let how = Disconnect {
        revoke,
        purge: true,
    };
    let removed = operator.gateway().accounts().disconnect(&own, how).await?;
    if is_json {
        return json_line(&ListedAccount::of(&removed.account, None, operator));
    }
    say(format!(
        "Removed the account {id}. {}",
        revoked(removed.revocation)
    ))
}

/// Describes the revocation of a token at its provider.
pub(super) const fn revoked(revocation: Revocation) -> &'static str {
    match revocation {
        Revocation::Revoked => "Its token was revoked at the provider.",
        Revocation::NotAsked => "Its token still works at the provider: revoke it there.",
        Revocation::Shared => {
            "Another account here has the same token, so it was not revoked at the provider."
        }
        Revocation::Unknown => {
            "Whether another account here has the same token cannot be told, since a project's data \
             key does not open. The token was not revoked: revoke it at the provider."
        }
        Revocation::Failed => {
            "The provider did not revoke its token, which still works: revoke it there."
        }
        Revocation::Nothing => "It had no credential any more.",
    }
}

/// Validates the e-mail address of `--assume-user`.
fn assumed(address: String) -> Result<String, Failure> {
    crate::http::accounts::address("--assume-user", address).map_err(Failure::other)
}

async fn tell_what_would_be_removed(operator: &Operator, id: &str) -> Result<(), Failure> {
    let own = operator.account(id).await?;
    let account = &own.account;
    Err(Failure::Other(format!(
        "nothing was removed. With --yes the account {id} of {} ({}), its credential, \
         directories and walks are destroyed",
        printable(&account.origin_owner_id),
        organization(account)
    )))
}

/// An account as the API returns it, with the fields that only the operator sees.
#[derive(Serialize)]
struct ListedAccount<'a> {
    project: &'a str,
    #[serde(flatten)]
    account: AccountOut,
    directory: Option<HeadOut>,
}

#[derive(Serialize)]
struct HeadOut {
    version: String,
    #[serde(serialize_with = "timestamp::serialize")]
    sealed_at: Timestamp,
    #[serde(serialize_with = "timestamp::serialize")]
    verified_at: Timestamp,
}

impl<'a> ListedAccount<'a> {
    fn of(account: &'a Account, head: Option<DirectoryHead>, operator: &Operator) -> Self {
        Self {
            project: account.project.as_str(),
            account: AccountOut::of(account, operator.gateway()),
            directory: head.map(|head| HeadOut {
                version: head.version.to_string(),
                sealed_at: head.sealed_at,
                verified_at: head.verified_at,
            }),
        }
    }
}

/// The current state of an account.
struct AccountReport {
    directory: Option<InForce>,
    /// The fields that are null for every user, with the reasons.
    hidden: Vec<Warning>,
    last_walk: Option<Walk>,
}

#[derive(Serialize)]
struct StandingOut<'a> {
    project: &'a str,
    #[serde(flatten)]
    account: AccountOut,
    directory: Option<DirectoryOut>,
    unavailable_fields: &'a [Warning],
    last_walk: Option<&'a Walk>,
}

#[derive(Serialize)]
struct DirectoryOut {
    version: String,
    #[serde(serialize_with = "timestamp::serialize")]
    sealed_at: Timestamp,
    #[serde(serialize_with = "timestamp::serialize")]
    verified_at: Timestamp,
    age_seconds: u64,
    stale: Option<&'static str>,
    counts: WalkCounts,
    quarantined: Quarantined,
}

impl AccountReport {
    async fn of(operator: &Operator, own: &OwnAccount) -> Result<Self, Failure> {
        Ok(Self {
            directory: operator.current(own).await?,
            hidden: operator
                .gateway()
                .accounts()
                .unavailable_fields(&own.account)
                .await?,
            last_walk: operator.last_walk(own).await?,
        })
    }

    fn out<'a>(&'a self, account: &'a Account, operator: &Operator) -> StandingOut<'a> {
        StandingOut {
            project: account.project.as_str(),
            account: AccountOut::of(account, operator.gateway()),
            directory: self.directory.as_ref().map(|directory| DirectoryOut {
                version: directory.version().to_string(),
                sealed_at: directory.sealed_at(),
                verified_at: directory.verified_at(),
                age_seconds: directory.age.as_secs(),
                stale: directory.stale.map(|stale| stale.as_str()),
                counts: directory.counts(),
                quarantined: directory.quarantined(),
            }),
            unavailable_fields: &self.hidden,
            last_walk: self.last_walk.as_ref(),
        }
    }

    fn rows(&self, account: &Account) -> Vec<[String; 2]> {
        let mut rows = Vec::new();
        let mut row = |field: &str, value: String| rows.push([field.to_owned(), value]);
        let identity = &account.identity;
        row("account", account.id.to_string());
        row("project", account.project.to_string());
        row("provider", account.provider.clone());
        match &account.endpoint {
            Endpoint::Region(region) => row("region", region.to_string()),
            Endpoint::BaseUrl(base) => row("base URL", base.clone()),
        }
        row("status", account.status.as_str().to_owned());
        if let Some(credential) = &account.credential {
            row("credential", credential.state.as_str().to_owned());
        }
        if account.status != AccountStatus::Active {
            for reason in &account.status_reasons {
                row(
                    "reason",
                    format!("{}, since {}", reason.code, display(reason.timestamp)),
                );
            }
        }
        let owner = (&account.origin_owner_id, &account.origin_owner_name);
        row("owner", format!("{} ({})", owner.0, owner.1));
        row("organization", organization(account));
        let person = identity.name.as_deref().or(identity.email.as_deref());
        let standing = if identity.is_admin {
            ", an administrator"
        } else {
            ""
        };
        let person = person.unwrap_or(identity.user.as_str());
        row("token of", format!("{person}{standing}"));
        row("linked at", display(account.created_at).to_string());
        match &self.directory {
            None => row("directory", "none yet".to_owned()),
            Some(directory) => {
                row("directory", format!("version {}", directory.version()));
                row("holds", counted(directory.counts()));
                row("sealed at", display(directory.sealed_at()).to_string());
                row("verified at", display(directory.verified_at()).to_string());
                if let Some(stale) = directory.stale {
                    row("stale", stale.as_str().to_owned());
                }
                if let Some(rows) = left_out(directory.quarantined()) {
                    row("incomplete", rows);
                }
            }
        }
        if let Some(held) = &account.held_walk {
            let HeldWalk {
                id,
                suspects,
                since,
            } = held;
            row(
                "held walk",
                format!("{id}, for {suspects} users and groups, since {since}"),
            );
        }
        for warning in &self.hidden {
            let field = warning.field.as_str();
            row("missing", format!("{field}: {}", why(warning.reason)));
        }
        if let Some(walk) = &self.last_walk {
            row("last walk", in_words(walk));
            row("began at", display(walk.started_at).to_string());
        }
        rows
    }
}

fn organization(account: &Account) -> String {
    let identity = &account.identity;
    let organization = match &identity.organization_name {
        Some(name) => format!("{name} ({})", identity.organization),
        None => identity.organization.to_string(),
    };
    printable(&organization).into_owned()
}

fn counted(counts: WalkCounts) -> String {
    let WalkCounts {
        users,
        groups,
        roles,
    } = counts;
    format!("{users} users, {groups} groups, {roles} roles")
}

/// Describes a walk in one line.
fn in_words(walk: &Walk) -> String {
    let state = match walk.state {
        WalkState::Running => "running",
        WalkState::Sealed => "sealed",
        WalkState::Held => "held",
        WalkState::Failed => "failed",
    };
    let reason = walk.reason.as_ref().map(reason).unwrap_or_default();
    let version = match &walk.directory_version {
        Some(version) => format!(", version {version} in force"),
        None => ", no directory".to_owned(),
    };
    let calls = walk.upstream_calls;
    let left_out = left_out(walk.quarantined).map_or_else(String::new, |rows| format!(", {rows}"));
    format!("{state}{reason}{version}{left_out}, after {calls} calls to the provider")
}

/// Describes the rows without a usable id; None if there are none.
fn left_out(rows: Quarantined) -> Option<String> {
    let Quarantined { users, groups } = rows;
    (users + groups > 0)
        .then(|| format!("rows left out for want of a usable id: {users} users, {groups} groups"))
}

fn reason(reason: &WalkReason) -> String {
    let word = serde_json::to_value(reason).unwrap_or_default();
    format!(" ({})", word.as_str().unwrap_or_default())
}
