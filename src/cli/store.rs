//! `rolecall store`: copies an installation from one database to another.

use clap::Subcommand;
use serde_json::json;

use super::{ConfigFile, Failure, key_ring, output, say};
use crate::{
    clock::Clock,
    config::Config,
    store::{CopyError, Inspection, Store},
};

#[derive(Subcommand)]
pub enum Command {
    /// Copy everything stored into another database, and compare the copy with the source
    ///
    /// Stop the server first. The target must be empty; the source stays unchanged.
    Copy {
        /// The source: sqlite://PATH or postgres://USER@HOST:PORT/DATABASE
        #[arg(long, value_name = "URL")]
        from: String,
        /// The target, in one of the same forms
        #[arg(long, value_name = "URL")]
        to: String,
        #[command(flatten)]
        file: ConfigFile,
        /// Print one line of JSON
        #[arg(long)]
        json: bool,
    },
}

pub async fn run(command: Command) -> Result<(), Failure> {
    let Command::Copy {
        from,
        to,
        file,
        json,
    } = command;
    let ring = key_ring(&Config::load(file.config.as_deref())?)?;
    // Inspected first: opening a missing file would create it.
    if let Inspection::Absent = Store::inspect(&from, ring.clone()).await? {
        return Err(Failure::other(
            "there is nothing stored at the url after --from; check it",
        ));
    }
    let open = async |url: &str| Store::open(url, ring.clone(), Clock::system()).await;
    let source = open(&from).await?;
    let target = open(&to).await?;
    let copied = source.copy_to(&target).await?;
    source.close().await;
    target.close().await;
    if json {
        let tables: serde_json::Map<_, _> = copied
            .iter()
            .map(|each| (each.table.to_owned(), each.rows.into()))
            .collect();
        return output::json_line(&json!({ "copied": tables }));
    }
    let rows = copied
        .iter()
        .map(|each| [each.table.to_owned(), each.rows.to_string()]);
    output::table(["TABLE", "ROWS"], rows)?;
    say("Every row is there, and equal. Set store.url to the target and start the server.")
}

impl From<CopyError> for Failure {
    fn from(error: CopyError) -> Self {
        match error {
            CopyError::InUse(error) => error.into(),
            CopyError::Store(error) => error.into(),
            other => Self::Other(other.to_string()),
        }
    }
}
