//! `rolecall revoke-all`: after a breach, revokes every API key, and revokes every credential at
//! its provider and destroys it here. The report lists the credentials that a provider did not
//! revoke.

use clap::Args;
use serde::Serialize;

use super::{
    ConfigFile, Failure,
    accounts::{closing, open, open_exclusive, revoked},
    api_keys::project_id,
    output::{json_line, table},
    say,
};
use crate::{
    error::Error,
    gateway::{accounts::Revocation, admin::Operator, credentials::revocation::RevocationResult},
    model::id::{AccountId, ProjectId},
};

#[derive(Args)]
pub struct Arguments {
    /// Only the API keys and accounts of this project
    #[arg(long)]
    project: Option<String>,
    /// Revoke; without this, only print the consequences
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    file: ConfigFile,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct RevocationReport {
    keys_revoked: u64,
    accounts: Vec<RevokedLine>,
    /// Lists that could not be read, with their project and the error.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unread: Vec<String>,
}

impl RevocationReport {
    fn leave(&mut self, project: &ProjectId, what: &str, error: &Error) {
        self.unread.push(format!("{project}, {what}: {error}"));
    }
}

#[derive(Serialize)]
struct RevokedLine {
    account: String,
    project: String,
    /// Empty if the account could not be read.
    owner: String,
    /// Null if the revocation was not tried.
    revocation: Option<Revocation>,
    is_revoked: bool,
    note: String,
}

impl RevokedLine {
    fn unread(project: &ProjectId, id: AccountId, error: &Error) -> Self {
        Self {
            account: id.to_string(),
            project: project.to_string(),
            owner: String::new(),
            revocation: None,
            is_revoked: false,
            note: format!("Nothing was done: {error}."),
        }
    }
}

impl From<RevocationResult> for RevokedLine {
    fn from(withdrawn: RevocationResult) -> Self {
        let is_revoked = withdrawn.is_dead();
        let (revocation, note) = match withdrawn.outcome {
            Ok(revocation) => (Some(revocation), revoked(revocation).to_owned()),
            Err(error) => (None, format!("Nothing was done: {error}.")),
        };
        Self {
            account: withdrawn.account.id.to_string(),
            project: withdrawn.account.project.to_string(),
            owner: withdrawn.account.origin_owner_id.clone(),
            revocation,
            is_revoked,
            note,
        }
    }
}

pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    let project = arguments.project.as_deref().map(project_id).transpose()?;
    let project = project.as_ref();
    if !arguments.yes {
        let operator = open(&arguments.file).await?;
        return closing(&operator, tell_what_would_be(&operator, project)).await;
    }
    let instead = "no call does all of it; stop it first";
    let (operator, _log) = open_exclusive(&arguments.file, instead).await?;
    closing(&operator, revoke_all(&operator, project, arguments.json)).await
}

async fn tell_what_would_be(
    operator: &Operator,
    project: Option<&ProjectId>,
) -> Result<(), Failure> {
    let count = operator.accounts(project).await?.len();
    Err(Failure::Other(format!(
        "nothing was revoked. With --yes every API key is revoked, and the credentials of {count} \
         accounts are revoked at their providers and destroyed here: each customer has to link anew"
    )))
}

async fn revoke_all(
    operator: &Operator,
    project: Option<&ProjectId>,
    is_json: bool,
) -> Result<(), Failure> {
    let projects = operator.projects(project).await?;
    let mut report = RevocationReport {
        keys_revoked: 0,
        accounts: Vec::new(),
        unread: Vec::new(),
    };
    // API keys come first, since this calls no provider. A failure in one project does not stop the
    // others.
    for project in &projects {
        match operator.revoke_keys(project).await {
            Ok(revoked) => report.keys_revoked += revoked,
            Err(error) => report.leave(project, "API keys", &error),
        }
    }
    for of in &projects {
        let accounts = match operator.account_ids(of).await {
            Ok(accounts) => accounts,
            Err(error) => {
                report.leave(of, "accounts", &error);
                continue;
            }
        };
        for id in accounts {
            match operator.account(&id.to_string()).await {
                // With `--project`, a token that another account also has is not revoked, since
                // that account may belong to another project.
                Ok(own) => {
                    let withdrawn = operator.withdraw(&own, project.is_some()).await;
                    report.accounts.push(withdrawn.into());
                }
                Err(error) => report.accounts.push(RevokedLine::unread(of, id, &error)),
            }
        }
    }
    let unread = report.unread.clone();
    let keys_revoked = report.keys_revoked;
    let left = report.accounts.iter().filter(|line| !line.is_revoked);
    let left = left.count();
    if is_json {
        json_line(&report)?;
    } else {
        say(format!("Revoked {keys_revoked} API keys."))?;
        let rows = report
            .accounts
            .into_iter()
            .map(|line| [line.account, line.project, line.owner, line.note]);
        table(["ACCOUNT", "PROJECT", "OWNER", "WHAT BECAME OF IT"], rows)?;
    }
    if let [first, ..] = unread.as_slice() {
        return Err(Failure::Other(format!(
            "{left} credentials may still work at their providers, and perhaps others: {} lists could \
             not be read: {first}",
            unread.len()
        )));
    }
    if left == 0 {
        return Ok(());
    }
    Err(Failure::Other(format!(
        "{left} credentials may still work at their providers: have their owners revoke them there"
    )))
}
