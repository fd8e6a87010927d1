//! `rolecall credentials`: moves a credential to another installation, in a file sealed with a
//! passphrase.
//!
//! A refresh token works once, so if two installations hold it, one of them loses the account. An
//! export therefore marks an OAuth token pair as moved in the database *before* it writes a byte of
//! it to a file, so that even a draft left by a power cut is no second copy in use. The token pair
//! stays in the database, and `take-back` undoes the export. If the draft cannot be written, the
//! export takes the credential back itself; if the draft cannot be moved to its path, the message
//! names `take-back`.

use std::{
    fs::File,
    io::{Read, Write},
    path::PathBuf,
};

use clap::{Args, Subcommand};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

use super::{
    Failure,
    accounts::{AccountArguments, closing, open, open_exclusive, tell_of_link},
    api_keys::project_id,
    file::AtomicFile,
    note,
    output::json_line,
    say,
    token::read_passphrase,
};
use crate::gateway::{admin::Operator, credentials::transfer::ImportTarget};

/// Minimum length of a passphrase in characters; shorter ones can be guessed.
const SHORTEST: usize = 12;

/// Read limit for an exported file, in bytes; larger than any export.
const LONGEST: u64 = 1024 * 1024;

#[derive(Subcommand)]
pub enum Command {
    /// Write an account's credential to a file, for `credentials import` on another installation
    ///
    /// The file and its passphrase give access to the account and, with an OAuth credential,
    /// contain the app's client secret. This installation stops refreshing an exported OAuth
    /// credential.
    Export {
        /// The account's id
        account: String,
        /// The file to create
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
        #[command(flatten)]
        passphrase: Passphrase,
        #[command(flatten)]
        shared: AccountArguments,
    },
    /// Refresh an exported credential here again; use this only if it was not imported elsewhere
    TakeBack {
        /// The account's id
        account: String,
        #[command(flatten)]
        shared: AccountArguments,
    },
    /// Link an account with a credential that another installation exported
    Import {
        /// The exported file
        path: PathBuf,
        /// The project that the account is for
        #[arg(long, required_unless_present = "account")]
        project: Option<String>,
        /// The existing account, of the same organization, that receives the credential
        #[arg(long, conflicts_with = "project")]
        account: Option<String>,
        #[command(flatten)]
        passphrase: Passphrase,
        #[command(flatten)]
        shared: AccountArguments,
    },
}

#[derive(Args)]
pub struct Passphrase {
    /// Read the passphrase from standard input; without this, the terminal prompts for it
    #[arg(long)]
    passphrase_stdin: bool,
}

impl Passphrase {
    fn chosen(&self) -> Result<SecretString, Failure> {
        let chosen = if self.passphrase_stdin {
            read_passphrase()?
        } else {
            let first = ask("Passphrase for the file: ")?;
            if first.expose_secret() != ask("Once more: ")?.expose_secret() {
                return Err(Failure::other("these were two different passphrases"));
            }
            first
        };
        if chosen.expose_secret().chars().count() < SHORTEST {
            return Err(Failure::Other(format!(
                "a passphrase for a credential has {SHORTEST} characters at least"
            )));
        }
        Ok(chosen)
    }

    fn known(&self) -> Result<SecretString, Failure> {
        if self.passphrase_stdin {
            read_passphrase()
        } else {
            ask("Passphrase of the file: ")
        }
    }
}

fn ask(prompt: &str) -> Result<SecretString, Failure> {
    rpassword::prompt_password(prompt)
        .map(SecretString::from)
        .map_err(|error| {
            Failure::Other(format!(
                "there is no terminal to ask for the passphrase on ({error}); use --passphrase-stdin"
            ))
        })
}

pub async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Export {
            account,
            to,
            passphrase,
            shared,
        } => {
            // The file and the passphrase come first, since the export marks the credential as
            // moved.
            let draft = AtomicFile::new(&to)?;
            let passphrase = passphrase.chosen()?;
            let operator = open(&shared.file).await?;
            let exporting = export(&operator, &account, draft, &passphrase, shared.json);
            closing(&operator, exporting).await
        }
        Command::TakeBack { account, shared } => {
            let operator = open(&shared.file).await?;
            closing(&operator, reclaim(&operator, &account, shared.json)).await
        }
        Command::Import {
            path,
            project,
            account,
            passphrase,
            shared,
        } => {
            let mut sealed = Vec::new();
            let cannot =
                |error| Failure::Other(format!("{} cannot be read: {error}", path.display()));
            let file = File::open(&path).map_err(cannot)?;
            file.take(LONGEST)
                .read_to_end(&mut sealed)
                .map_err(cannot)?;
            let passphrase = passphrase.known()?;
            let instead = "no call does; stop it for the time of the import";
            let (operator, _log) = open_exclusive(&shared.file, instead).await?;
            let importing = async {
                let into = Into { project, account };
                import(&operator, &into, &sealed, &passphrase, shared.json).await
            };
            closing(&operator, importing).await
        }
    }
}

async fn export(
    operator: &Operator,
    id: &str,
    mut draft: AtomicFile,
    passphrase: &SecretString,
    is_json: bool,
) -> Result<(), Failure> {
    let own = operator.account(id).await?;
    let exported = operator.export(&own).await?;
    let sealed = operator.sealed(&exported, passphrase);
    if let Err(error) = draft.write_all(&sealed).and_then(|()| draft.settle()) {
        // Deletes the file before the token pair is used here again.
        drop(draft);
        if exported.is_moved {
            operator.reclaim(&own).await?;
        }
        return Err(Failure::Other(format!(
            "the file was not written, and nothing was given up: {error}"
        )));
    }
    if let Err(failure) = draft.finish() {
        let undo = if exported.is_moved {
            format!(
                "; if the file is not there, `rolecall credentials take-back {id}` undoes the export"
            )
        } else {
            String::new()
        };
        return Err(Failure::Other(format!("{}{undo}", failure.message())));
    }
    if is_json {
        return json_line(&json!({ "account": id, "moved": exported.is_moved }));
    }
    say(format!("Exported the credential of the account {id}."))?;
    if exported.is_moved {
        say(format!(
            "It is refreshed here no more. `rolecall credentials import` takes it in elsewhere; \
             before that, `rolecall credentials take-back {id}` undoes this."
        ))?;
    }
    Ok(())
}

async fn reclaim(operator: &Operator, id: &str, is_json: bool) -> Result<(), Failure> {
    let own = operator.account(id).await?;
    operator.reclaim(&own).await?;
    if is_json {
        return json_line(&json!({ "account": id, "taken_back": true }));
    }
    say(format!(
        "The credential of the account {id} is refreshed here again. Destroy the exported file: an \
         import would put an end to it here."
    ))
}

struct Into {
    project: Option<String>,
    account: Option<String>,
}

async fn import(
    operator: &Operator,
    into: &Into,
    sealed: &[u8],
    passphrase: &SecretString,
    is_json: bool,
) -> Result<(), Failure> {
    let project = into.project.as_deref().map(project_id).transpose()?;
    let existing = match &into.account {
        Some(account) => Some(operator.account(account).await?),
        None => None,
    };
    let to = match (&existing, &project) {
        (Some(own), _) => ImportTarget::Account(own),
        (None, Some(project)) => ImportTarget::Project(project),
        (None, None) => return Err(Failure::other("neither a project nor an account is named")),
    };
    let imported = operator.import(to, sealed, passphrase).await?;
    if imported.is_settled {
        note("the credential is this installation's alone now: destroy the file");
        return tell_of_link(operator, &imported.own, is_json).await;
    }
    let id = imported.own.account.id;
    Err(Failure::Other(format!(
        "the account {id} has the credential, but the provider has not given new tokens for it yet; \
         `rolecall accounts refresh {id}` tries again, and so does a server. Keep the file until then"
    )))
}
