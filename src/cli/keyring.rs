//! `rolecall keyring`: the keys that everything stored is sealed with.

use std::path::PathBuf;

use clap::Subcommand;

use super::{Failure, say};
use crate::crypto::{Chance, KeyRing};

#[derive(Subcommand)]
pub enum Command {
    /// Make a new key ring file with one key; an existing file is never touched
    Init {
        /// Where to make it
        #[arg(default_value = "rolecall.keys")]
        file: PathBuf,
        /// The id of its key
        #[arg(long, default_value = "k1")]
        id: String,
        /// Print one line of JSON
        #[arg(long)]
        json: bool,
    },
}

pub fn run(command: Command) -> Result<(), Failure> {
    let Command::Init { file, id, json } = command;
    let ring = KeyRing::generate(&id, &Chance::system()).map_err(Failure::other)?;
    ring.create_file(&file)
        .map_err(|error| Failure::Other(format!("cannot make {}: {error}", file.display())))?;
    if json {
        return say(serde_json::json!({ "file": file, "key_id": id }));
    }
    say(format!(
        "Made {} with the key `{id}`. Keep a copy away from the database's backups: without it\n\
         nothing stored can be read again, and with both everything can.",
        file.display()
    ))
}
