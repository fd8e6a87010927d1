//! `rolecall audit`: lists the audit log's entries, and verifies that none was changed. Both
//! commands only read, and work beside a running server.

use clap::Subcommand;
use serde::Serialize;
use serde_json::json;

use super::{
    ConfigFile, Failure,
    api_keys::project_id,
    key_ring, must_be_current,
    output::{json_line, table},
};
use crate::{
    clock::Clock,
    config::Config,
    error::Kind,
    http::audit_log::EntryOut,
    model::{
        audit_log::{AuditEntry, AuditFilter},
        id::ProjectId,
        timestamp::display,
    },
    store::{AuditFault, AuditHead, AuditReport, Store, Verified},
};

#[derive(Subcommand)]
pub enum Command {
    /// Verify that the entries are as they were written, and print the head of each log
    ///
    /// Keep the head (SEQ:TAG) where the database's administrator cannot write. Without --since and
    /// an earlier head, verification cannot detect that the newest entries were cut off or that an
    /// earlier database was restored.
    Verify {
        /// Only the log of this project
        #[arg(long)]
        project: Option<String>,
        /// Verify also that this head, noted earlier, is on the chain
        #[arg(long, value_name = "SEQ:TAG", requires = "project")]
        since: Option<AuditHead>,
        #[command(flatten)]
        file: ConfigFile,
        /// Print one line of JSON
        #[arg(long)]
        json: bool,
    },
    /// List entries, project by project, newest first
    List {
        /// Only the log of this project
        #[arg(long)]
        project: Option<String>,
        /// The number of entries of each project
        #[arg(long, default_value_t = 100)]
        limit: u32,
        #[command(flatten)]
        file: ConfigFile,
        /// Print one line of JSON
        #[arg(long)]
        json: bool,
    },
}

/// The result of verifying one project's log.
#[derive(Serialize)]
struct AuditFinding {
    project: ProjectId,
    is_whole: bool,
    /// The number of entries; null if it is unknown.
    entries: Option<u64>,
    /// Sequence number and tag of the last entry, in the form that `--since` takes; null if
    /// unknown.
    head: Option<String>,
    /// Sequence number of the first faulty entry.
    entry: Option<u64>,
    fault: Option<&'static str>,
    #[serde(skip)]
    in_words: String,
}

/// An entry with its project.
#[derive(Serialize)]
struct ListedEntry {
    project: ProjectId,
    #[serde(flatten)]
    entry: EntryOut,
}

pub async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Verify {
            project,
            since,
            file,
            json,
        } => verify(project.as_deref(), since, &file, json).await,
        Command::List {
            project,
            limit,
            file,
            json,
        } => list(project.as_deref(), limit, &file, json).await,
    }
}

async fn verify(
    project: Option<&str>,
    since: Option<AuditHead>,
    file: &ConfigFile,
    is_json: bool,
) -> Result<(), Failure> {
    let (store, projects) = open(project, file).await?;
    let mut findings = Vec::with_capacity(projects.len());
    for project in projects {
        findings.push(AuditFinding::of(&store, project, since).await?);
    }
    store.close().await;
    let is_whole = findings.iter().all(|finding| finding.is_whole);
    if is_json {
        json_line(&json!({ "is_whole": is_whole, "projects": findings }))?;
    } else {
        let rows = findings.iter().map(|finding| {
            let entries = finding.entries.map(|entries| entries.to_string());
            [
                finding.project.to_string(),
                entries.unwrap_or_else(|| "-".to_owned()),
                finding.in_words.clone(),
                finding.head.clone().unwrap_or_else(|| "-".to_owned()),
            ]
        });
        table(["PROJECT", "ENTRIES", "STATE", "HEAD"], rows)?;
    }
    if is_whole {
        return Ok(());
    }
    Err(Failure::Other(
        "an audit log is not as it was written; standard output says where".to_owned(),
    ))
}

impl AuditFinding {
    async fn of(
        store: &Store,
        project: ProjectId,
        since: Option<AuditHead>,
    ) -> Result<Self, Failure> {
        let finding = Self {
            project,
            is_whole: false,
            entries: None,
            head: None,
            entry: None,
            fault: None,
            in_words: String::new(),
        };
        match store.verify_audit(&finding.project, since).await {
            Ok(AuditReport { verified, head }) => Ok(match verified {
                Verified::Whole { entries } => Self {
                    is_whole: true,
                    entries: Some(entries),
                    head: head.map(|head| head.to_string()),
                    in_words: "whole".to_owned(),
                    ..finding
                },
                Verified::Broken { entry, fault } => Self {
                    entry: Some(entry),
                    fault: Some(fault.as_str()),
                    in_words: format!("BROKEN at entry {entry}: {}", in_words(fault)),
                    ..finding
                },
            }),
            // A locked project does not stop the verification of the others.
            Err(error) if error.kind() == Kind::CredentialLocked => Ok(Self {
                fault: Some(Kind::CredentialLocked.code()),
                in_words: "LOCKED: the project's data key does not open".to_owned(),
                ..finding
            }),
            Err(error) => Err(error.into()),
        }
    }
}

const fn in_words(fault: AuditFault) -> &'static str {
    match fault {
        AuditFault::Missing => "it is missing, and later ones are there",
        AuditFault::Changed => "it is not as it was written",
        AuditFault::CutOff => "it and all later ones are missing",
        AuditFault::Added => "it was added by somebody else",
        AuditFault::HeadLost => {
            "the head of the log is missing or changed; whether this one and later ones were there \
             cannot be told"
        }
        AuditFault::Continued => {
            "it was written when the head of the log was missing or changed, or when its place was \
             taken; whether any are missing before it cannot be told"
        }
        AuditFault::NotOnChain => {
            "the head that --since names is not on this chain; entries were cut off, or an earlier \
             database was restored"
        }
    }
}

async fn list(
    project: Option<&str>,
    limit: u32,
    file: &ConfigFile,
    is_json: bool,
) -> Result<(), Failure> {
    let (store, projects) = open(project, file).await?;
    let mut listed = Vec::new();
    for project in projects {
        let entries = store
            .audit_log(&project, &AuditFilter::default(), None, limit)
            .await?;
        listed.extend(entries.into_iter().map(|entry| (project.clone(), entry)));
    }
    store.close().await;
    if is_json {
        let entries = listed.into_iter().map(|(project, entry)| ListedEntry {
            project,
            entry: entry.into(),
        });
        return json_line(&json!({ "entries": entries.collect::<Vec<_>>() }));
    }
    table(
        [
            "PROJECT", "ENTRY", "TIME", "ACTOR", "ACTION", "SUBJECT", "DETAIL",
        ],
        listed.into_iter().map(|(project, entry)| {
            let AuditEntry { seq, at, event } = entry;
            let words = event.detail.served();
            let words: Vec<_> = words
                .iter()
                .map(|(name, word)| format!("{name}={word}"))
                .collect();
            [
                project.to_string(),
                seq.to_string(),
                display(at).to_string(),
                event.actor.to_string(),
                event.action.to_string(),
                format!("{}:{}", event.subject.kind.as_str(), event.subject.id),
                words.join(" "),
            ]
        }),
    )
}

/// Opens the store of an existing installation; returns it with the projects to read.
async fn open(
    project: Option<&str>,
    file: &ConfigFile,
) -> Result<(Store, Vec<ProjectId>), Failure> {
    let project = project.map(project_id).transpose()?;
    let config = Config::load(file.config.as_deref())?;
    let ring = key_ring(&config)?;
    must_be_current(&config, &ring).await?;
    let store = Store::open(&config.store.url, ring, Clock::system()).await?;
    let mut projects = store.audited_projects().await?;
    if let Some(project) = project {
        if !projects.contains(&project) {
            store.close().await;
            return Err(Failure::Other(format!(
                "there is and was no project {project}; `rolecall projects list` lists all"
            )));
        }
        projects = vec![project];
    }
    Ok((store, projects))
}
