//! `rolecall projects`: manages projects, their return URLs and their opener origins. Only the
//! operator can create a project. All commands work beside a running server.

use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::json;

use super::{
    ConfigFile, Failure,
    accounts::{closing, open as open_operator},
    api_keys::{no_such_project, open, open_with, project_id},
    key_ring, must_be_current,
    output::{json_line, table},
    say,
};
use crate::{
    clock::Clock,
    config::Config,
    model::{audit_log::Actor, id::ProjectId},
    store::HubTargets,
};

#[derive(Subcommand)]
pub enum Command {
    /// Create a project
    Create {
        /// The project's id: 1 to 63 of a-z, 0-9 and -, beginning with a letter
        project: String,
        #[command(flatten)]
        file: ConfigFile,
        /// Print one line of JSON
        #[arg(long)]
        json: bool,
    },
    /// Delete a project with its data key, API keys, accounts and directories
    ///
    /// Running servers stop serving it within a second. Its id can never be used again.
    Delete {
        /// The project's id
        project: String,
        /// Delete it; without this, only print the consequences
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        file: ConfigFile,
        /// Print one line of JSON
        #[arg(long)]
        json: bool,
    },
    /// List the projects
    List {
        #[command(flatten)]
        file: ConfigFile,
        /// Print one line of JSON
        #[arg(long)]
        json: bool,
    },
    /// Show a project's registered return URLs and opener origins
    Show {
        /// The project's id
        project: String,
        #[command(flatten)]
        file: ConfigFile,
        /// Print one line of JSON
        #[arg(long)]
        json: bool,
    },
    /// Register the URLs that the hub may send customers back to, and the pages that it may notify
    Update(UpdateProjectArguments),
}

#[derive(Args)]
pub struct UpdateProjectArguments {
    /// The project's id
    project: String,
    /// A URL that a connect session may use as its `return_url`, letter for letter; may be
    /// repeated. Replaces the registered ones
    #[arg(long, value_name = "URL", required_unless_present_any = [
        "no_return_url", "opener_origin", "no_opener_origin"
    ])]
    return_url: Vec<String>,
    /// Remove all registered return URLs
    #[arg(long, conflicts_with = "return_url")]
    no_return_url: bool,
    /// The origin of a page that opens the hub and is notified of a link, such as
    /// https://app.example.org; may be repeated. Replaces the registered ones
    #[arg(long, value_name = "ORIGIN")]
    opener_origin: Vec<String>,
    /// Remove all registered opener origins
    #[arg(long, conflicts_with = "opener_origin")]
    no_opener_origin: bool,
    #[command(flatten)]
    file: ConfigFile,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct ProjectOut<'a> {
    project: &'a ProjectId,
    return_urls: &'a [String],
    opener_origins: &'a [String],
}

pub async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Create {
            project,
            file,
            json,
        } => create(&project, &file, json).await,
        Command::Delete {
            project,
            yes,
            file,
            json,
        } => delete(&project_id(&project)?, yes, &file, json).await,
        Command::List { file, json } => list(&file, json).await,
        Command::Show {
            project,
            file,
            json,
        } => show(&project, &file, json).await,
        Command::Update(arguments) => update(arguments).await,
    }
}

async fn create(project: &str, file: &ConfigFile, is_json: bool) -> Result<(), Failure> {
    let project = project_id(project)?;
    let store = open(file).await?;
    let is_new = store
        .create_project(&project, Clock::system().now())
        .await?;
    store.close().await;
    if !is_new {
        return Err(Failure::Other(format!(
            "there is a project {project} already"
        )));
    }
    if is_json {
        return json_line(&json!({ "project": project }));
    }
    say(format!(
        "Made the project {project}. `rolecall keys create --project {project}` makes a key for it."
    ))
}

async fn list(file: &ConfigFile, is_json: bool) -> Result<(), Failure> {
    let store = open(file).await?;
    let projects = store.projects().await?;
    store.close().await;
    if is_json {
        return json_line(&json!({ "projects": projects }));
    }
    table(
        ["PROJECT"],
        projects.iter().map(|project| [project.to_string()]),
    )
}

async fn delete(
    project: &ProjectId,
    is_meant: bool,
    file: &ConfigFile,
    json: bool,
) -> Result<(), Failure> {
    let config = Config::load(file.config.as_deref())?;
    // `open_with` alone would create or migrate the database.
    must_be_current(&config, &key_ring(&config)?).await?;
    let store = open_with(file, project).await?;
    if !is_meant {
        let accounts = store.accounts(project).await?.len();
        let keys = store.keys(project, None, u32::MAX).await?.len();
        store.close().await;
        return Err(Failure::Other(format!(
            "nothing was deleted. With --yes the project {project} is destroyed, with its data key, \
             {accounts} accounts with their credentials, directories and walks, and {keys} API keys. \
             Its name is never given again"
        )));
    }
    let deleted = store
        .delete_project(project, Actor::Operator, Clock::system().now())
        .await?;
    store.close().await;
    let deleted = deleted.ok_or_else(|| no_such_project(project))?;
    if json {
        return json_line(&json!({
            "project": project, "accounts": deleted.accounts, "keys": deleted.keys,
        }));
    }
    say(format!(
        "The project {project} is deleted, with {} accounts and {} API keys; running servers stop \
         serving it within a second. What its customers' tokens may do at the provider they may still \
         do: have them revoked there. Backups made before still hold it.",
        deleted.accounts, deleted.keys
    ))
}

async fn show(project: &str, file: &ConfigFile, is_json: bool) -> Result<(), Failure> {
    let project = project_id(project)?;
    let operator = open_operator(file).await?;
    let targets = closing(&operator, async {
        Ok(operator.hub_targets(&project).await?)
    });
    tell(&project, &targets.await?, is_json)
}

async fn update(arguments: UpdateProjectArguments) -> Result<(), Failure> {
    let project = project_id(&arguments.project)?;
    let operator = open_operator(&arguments.file).await?;
    let is_json = arguments.json;
    let updating = async {
        let mut targets = operator.hub_targets(&project).await?;
        if arguments.no_return_url || !arguments.return_url.is_empty() {
            targets.return_urls = arguments.return_url;
        }
        if arguments.no_opener_origin || !arguments.opener_origin.is_empty() {
            targets.opener_origins = arguments.opener_origin;
        }
        operator.set_hub_targets(&project, &targets).await?;
        Ok(targets)
    };
    let targets = closing(&operator, updating).await?;
    tell(&project, &targets, is_json)
}

fn tell(project: &ProjectId, targets: &HubTargets, is_json: bool) -> Result<(), Failure> {
    if is_json {
        return json_line(&ProjectOut {
            project,
            return_urls: &targets.return_urls,
            opener_origins: &targets.opener_origins,
        });
    }
    let row = |field: &str, value: &str| [field.to_owned(), value.to_owned()];
    let mut rows = vec![row("project", project.as_str())];
    rows.extend(targets.return_urls.iter().map(|url| row("return URL", url)));
    let origins = targets.opener_origins.iter();
    rows.extend(origins.map(|origin| row("opener origin", origin)));
    table(["FIELD", "VALUE"], rows)
}
