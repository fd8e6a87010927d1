//! `rolecall keys`: manages API keys. Only this command can create a project's first key and keys
//! with the scope `admin`, and it can expire and revoke keys without the API.

use std::{collections::BTreeSet, str::FromStr};

use clap::Subcommand;
use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp};
use serde::Serialize;
use serde_json::json;

use super::{
    ConfigFile, Failure, key_ring,
    output::{json_line, table},
    say,
};
use crate::{
    clock::Clock,
    config::Config,
    crypto::{ApiKeySecret, Rng},
    http::api_keys::{ApiKeyOut, RevokedKeyOut},
    model::{
        api_keys::{KeyChange, KeyLabel, NewKey, Scope},
        audit_log::Actor,
        id::{KeyId, ProjectId},
        timestamp::{cut, display},
    },
    store::Store,
};

#[derive(Subcommand)]
pub enum Command {
    /// Create an API key, and print it this once
    Create {
        /// The project that the key belongs to
        #[arg(long)]
        project: String,
        #[arg(
            long,
            value_delimiter = ',',
            default_value = "iam:read,accounts:read,accounts:write,walks:write",
            help = format!("What the key may be used for, of: {}", Scope::ALL.map(Scope::as_str).join(", "))
        )]
        scopes: Vec<Scope>,
        /// A label of your choice
        #[arg(long)]
        label: Option<KeyLabel>,
        /// Lifetime of the key, such as 12h, 90d or 52w; until it is revoked if absent
        #[arg(long, value_name = "TIME")]
        expires_in: Option<Lifetime>,
        #[command(flatten)]
        file: ConfigFile,
        /// Print one line of JSON
        #[arg(long)]
        json: bool,
    },
    /// List a project's API keys, newest first, including expired and revoked ones
    List {
        /// The project
        #[arg(long)]
        project: String,
        #[command(flatten)]
        file: ConfigFile,
        /// Print one line of JSON
        #[arg(long)]
        json: bool,
    },
    /// Let an API key expire after a time; an existing expiry can only be brought forward
    Expire {
        /// The key's id, or the beginning of the key up to its second underscore
        key: KeyName,
        /// Remaining lifetime, such as 24h or 7d
        #[arg(long = "in", value_name = "TIME")]
        expires_in: Lifetime,
        #[command(flatten)]
        file: ConfigFile,
        /// Print one line of JSON
        #[arg(long)]
        json: bool,
    },
    /// Revoke an API key: running servers refuse it within a second
    Revoke {
        /// The key's id, or the beginning of the key up to its second underscore
        key: KeyName,
        /// Also revoke the keys that this key created, and those that they created
        #[arg(long)]
        with_created: bool,
        #[command(flatten)]
        file: ConfigFile,
        /// Print one line of JSON
        #[arg(long)]
        json: bool,
    },
}

/// The lifetime of a key.
#[derive(Clone, Copy)]
pub struct Lifetime(SignedDuration);

#[derive(Debug, thiserror::Error)]
#[error("a time is a number with a unit, such as 12h, 90d or 52w, and a second at least")]
pub struct InvalidLifetime;

impl FromStr for Lifetime {
    type Err = InvalidLifetime;

    fn from_str(text: &str) -> Result<Self, InvalidLifetime> {
        // Months and years have no fixed length, so they are refused.
        text.parse::<Span>()
            .and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()))
            .ok()
            .filter(|time| *time >= SignedDuration::from_secs(1))
            .map(Self)
            .ok_or(InvalidLifetime)
    }
}

impl Lifetime {
    /// Adds this lifetime to `now`, cut to the milliseconds that are stored.
    fn end(self, now: Timestamp) -> Result<Timestamp, Failure> {
        now.checked_add(self.0)
            .map(cut)
            .map_err(|_| Failure::other("that is too far ahead"))
    }
}

/// A key named by its id, or by the beginning of its text, such as from a log.
#[derive(Clone, Copy)]
pub struct KeyName(KeyId);

#[derive(Debug, thiserror::Error)]
#[error(
    "neither an id, as `rolecall keys list` shows it, nor the beginning of a key, up to its second \
     underscore"
)]
pub struct InvalidKeyName;

impl FromStr for KeyName {
    type Err = InvalidKeyName;

    fn from_str(text: &str) -> Result<Self, InvalidKeyName> {
        let id = text.parse().ok().or_else(|| ApiKeySecret::id_in(text));
        id.map(Self).ok_or(InvalidKeyName)
    }
}

/// An API key in JSON output, with its project.
#[derive(Serialize)]
struct ApiKeyLine<'a, K> {
    project: &'a ProjectId,
    #[serde(flatten)]
    key: K,
    /// The key itself, if it was just created.
    #[serde(skip_serializing_if = "Option::is_none")]
    api_key: Option<&'a str>,
}

pub async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Create {
            project,
            scopes,
            label,
            expires_in,
            file,
            json,
        } => {
            let now = Clock::system().now();
            // Repeated scopes count once.
            let scopes = BTreeSet::from_iter(scopes).into_iter().collect();
            let expires_at = expires_in.map(|time| time.end(now)).transpose()?;
            let new = NewKey {
                label,
                scopes,
                expires_at,
            };
            create_key(&project_id(&project)?, &new, now, &file, json).await
        }
        Command::List {
            project,
            file,
            json,
        } => list_keys(&project_id(&project)?, &file, json).await,
        Command::Expire {
            key,
            expires_in,
            file,
            json,
        } => expire_key(key, expires_in, &file, json).await,
        Command::Revoke {
            key,
            with_created,
            file,
            json,
        } => revoke_key(key, with_created, &file, json).await,
    }
}

async fn create_key(
    project: &ProjectId,
    new: &NewKey,
    now: Timestamp,
    file: &ConfigFile,
    json: bool,
) -> Result<(), Failure> {
    let store = open_with(file, project).await?;
    let (text, key) = ApiKeySecret::issue(project, new, now, &Rng::system());
    store.insert_key(&key, Actor::Operator).await?;
    store.close().await;
    if json {
        return json_line(&ApiKeyLine {
            project,
            key: ApiKeyOut::at(now, key),
            api_key: Some(text.expose()),
        });
    }
    say(format!("{}\nThis key is shown this once.", text.expose()))
}

async fn list_keys(project: &ProjectId, file: &ConfigFile, json: bool) -> Result<(), Failure> {
    let store = open_with(file, project).await?;
    let keys = store.keys(project, None, u32::MAX).await?;
    store.close().await;
    let now = Clock::system().now();
    let keys = keys.into_iter().map(|key| ApiKeyOut::at(now, key));
    if json {
        return json_line(&json!({ "project": project, "keys": keys.collect::<Vec<_>>() }));
    }
    table(
        ["ID", "LABEL", "STATUS", "SCOPES", "CREATED", "EXPIRES"],
        keys.map(|key| {
            let scopes: Vec<_> = key.scopes.iter().map(|scope| scope.as_str()).collect();
            [
                key.id,
                key.label.unwrap_or_default(),
                key.status.as_str().to_owned(),
                scopes.join(","),
                display(key.created_at).to_string(),
                key.expires_at
                    .map_or_else(String::new, |end| display(end).to_string()),
            ]
        }),
    )
}

async fn expire_key(
    KeyName(id): KeyName,
    expires_in: Lifetime,
    file: &ConfigFile,
    json: bool,
) -> Result<(), Failure> {
    let now = Clock::system().now();
    let end = expires_in.end(now)?;
    let store = open(file).await?;
    let known = store.key(id).await?.ok_or_else(|| no_such_key(id))?;
    if let Some(revoked_at) = known.revoked_at {
        return Err(Failure::Other(format!(
            "the API key {id} was revoked at {}",
            display(revoked_at)
        )));
    }
    let change = KeyChange {
        expires_at: Some(end),
        ..KeyChange::default()
    };
    let changed = store
        .update_key(&known.project, id, &change, Actor::Operator)
        .await?;
    store.close().await;
    let key = changed.ok_or_else(|| no_such_key(id))?;
    let project = &known.project;
    if json {
        return json_line(&ApiKeyLine {
            project,
            key: ApiKeyOut::at(now, key),
            api_key: None,
        });
    }
    say(format!(
        "The API key {id} of the project {project} ends at {}.",
        display(end)
    ))
}

async fn revoke_key(
    KeyName(id): KeyName,
    with_created: bool,
    file: &ConfigFile,
    json: bool,
) -> Result<(), Failure> {
    let now = Clock::system().now();
    let store = open(file).await?;
    let known = store.key(id).await?.ok_or_else(|| no_such_key(id))?;
    let project = &known.project;
    let (key, created) = if with_created {
        let revoked = store.revoke_key_with_created(project, id, now, Actor::Operator);
        let (key, created) = revoked.await?.ok_or_else(|| no_such_key(id))?;
        (key, Some(created))
    } else {
        let revoked = store.revoke_key(project, id, now, Actor::Operator).await?;
        (revoked.ok_or_else(|| no_such_key(id))?, None)
    };
    store.close().await;
    if json {
        return json_line(&ApiKeyLine {
            project,
            key: RevokedKeyOut::at(now, key, created),
            api_key: None,
        });
    }
    say(format!(
        "The API key {id} of the project {project} is revoked; running servers refuse it within a second."
    ))?;
    for key in created.into_iter().flatten() {
        say(format!(
            "The API key {} that it made is revoked, too.",
            key.id
        ))?;
    }
    Ok(())
}

fn no_such_key(id: KeyId) -> Failure {
    Failure::Other(format!(
        "there is no API key {id}; `rolecall keys list --project PROJECT` lists a project's"
    ))
}

pub(super) fn project_id(text: &str) -> Result<ProjectId, Failure> {
    text.parse().map_err(|_| {
        Failure::Other(
            "a project's id is 1 to 63 of a-z, 0-9 and -, beginning with a letter".to_owned(),
        )
    })
}

/// Opens the store, and checks that it has this project.
pub async fn open_with(file: &ConfigFile, project: &ProjectId) -> Result<Store, Failure> {
    let store = open(file).await?;
    if store.project_exists(project).await? {
        return Ok(store);
    }
    Err(no_such_project(project))
}

pub fn no_such_project(project: &ProjectId) -> Failure {
    Failure::Other(format!(
        "there is no project {project}; `rolecall projects create {project}` makes it"
    ))
}

pub(super) async fn open(file: &ConfigFile) -> Result<Store, Failure> {
    let config = Config::load(file.config.as_deref())?;
    let ring = key_ring(&config)?;
    let store = Store::open(&config.store.url, ring, Clock::system()).await?;
    Ok(store.with_max_live_keys(config.server.max_keys_per_project))
}
