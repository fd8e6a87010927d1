//! `rolecall projects` and `rolecall keys`: what the API cannot make for itself, the first of each.

use clap::Subcommand;
use serde_json::json;

use super::{
    ConfigFile, Failure, key_ring,
    output::{json_line, table},
    say,
};
use crate::{
    clock::Clock,
    config::Config,
    crypto::{ApiKeyText, Chance},
    model::{
        access::{ApiKey, Scope},
        id::ProjectId,
    },
    store::Store,
};

#[derive(Subcommand)]
pub enum ProjectsCommand {
    /// Make a project
    Create {
        /// Its id: 1 to 63 of a-z, 0-9 and -, beginning with a letter
        project: String,
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
}

#[derive(Subcommand)]
pub enum KeysCommand {
    /// Make an API key, shown this once
    Create {
        /// The project that the key is for
        #[arg(long)]
        project: String,
        /// What the key may be used for: iam:read, accounts:read, accounts:write, walks:write, admin
        #[arg(
            long,
            value_delimiter = ',',
            default_value = "iam:read,accounts:read,accounts:write,walks:write"
        )]
        scopes: Vec<Scope>,
        /// What the key is for, in your words
        #[arg(long, default_value = "")]
        label: String,
        #[command(flatten)]
        file: ConfigFile,
        /// Print one line of JSON
        #[arg(long)]
        json: bool,
    },
}

pub async fn run_projects(command: ProjectsCommand) -> Result<(), Failure> {
    match command {
        ProjectsCommand::Create {
            project,
            file,
            json,
        } => create_project(&project, &file, json).await,
        ProjectsCommand::List { file, json } => list_projects(&file, json).await,
    }
}

async fn create_project(project: &str, file: &ConfigFile, json: bool) -> Result<(), Failure> {
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
    if json {
        return json_line(&json!({ "project": project }));
    }
    say(format!(
        "Made the project {project}. `rolecall keys create --project {project}` makes a key for it."
    ))
}

async fn list_projects(file: &ConfigFile, json: bool) -> Result<(), Failure> {
    let store = open(file).await?;
    let projects = store.projects().await?;
    store.close().await;
    if json {
        return json_line(&json!({ "projects": projects }));
    }
    table(
        ["PROJECT"],
        projects.iter().map(|project| [project.to_string()]),
    )
}

pub async fn run_keys(command: KeysCommand) -> Result<(), Failure> {
    let KeysCommand::Create {
        project,
        scopes,
        label,
        file,
        json,
    } = command;
    let project = project_id(&project)?;
    let store = open(&file).await?;
    if !store.project_exists(&project).await? {
        return Err(Failure::Other(format!(
            "there is no project {project}; `rolecall projects create {project}` makes it"
        )));
    }
    let now = Clock::system().now();
    let chance = Chance::system();
    let text = ApiKeyText::generate(chance.id(now), &chance);
    let key = ApiKey {
        id: text.id(),
        project,
        label,
        scopes,
        digest: text.digest(),
        created_at: now,
        expires_at: None,
        revoked_at: None,
    };
    store.insert_key(&key).await?;
    store.close().await;
    if json {
        return json_line(&json!({
            "id": key.id, "api_key": text.expose(), "project": key.project, "scopes": key.scopes,
        }));
    }
    say(format!("{}\nThis key is shown this once.", text.expose()))
}

fn project_id(text: &str) -> Result<ProjectId, Failure> {
    text.parse().map_err(|_| {
        Failure::Other(
            "a project's id is 1 to 63 of a-z, 0-9 and -, beginning with a letter".to_owned(),
        )
    })
}

async fn open(file: &ConfigFile) -> Result<Store, Failure> {
    let config = Config::load(file.config.as_deref())?;
    let ring = key_ring(&config)?;
    Ok(Store::open(&config.store.url, ring, Clock::system()).await?)
}
