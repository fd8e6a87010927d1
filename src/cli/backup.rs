//! `rolecall backup`: copies the SQLite database while the server runs; for PostgreSQL it names
//! `pg_dump`. The key ring is not in the copy; keep it in another place.

use std::path::PathBuf;

use clap::Args;

use super::{ConfigFile, Failure, file::AtomicFile, key_ring, output::json_line, ring_origin, say};
use crate::{
    config::Config,
    store::{Inspection, Store},
};

#[derive(Args)]
pub struct Arguments {
    /// The file to create; an existing file is never changed
    file: PathBuf,
    #[command(flatten)]
    config: ConfigFile,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    let config = Config::load(arguments.config.config.as_deref())?;
    let Arguments { file, json, .. } = arguments;
    let shown_file = file.display();
    if config.store.is_postgres() {
        return Err(Failure::Other(format!(
            "PostgreSQL is backed up by its own tool: pg_dump --format=custom --file='{shown_file}' \
             --dbname=\"$ROLECALL_STORE__URL\" (with the store's url there). The key ring is not in \
             that: back it up apart",
        )));
    }
    let ring = key_ring(&config)?;
    let url = config.store.shown_url();
    if let Inspection::Absent = Store::inspect(&config.store.url, ring.clone()).await? {
        return Err(Failure::Other(format!(
            "nothing is at {url} yet; check --config"
        )));
    }
    let ring = ring.current();
    let draft = AtomicFile::new(&file)?;
    Store::backup(&config.store.url, &ring, draft.path()).await?;
    let bytes = draft.path().metadata()?.len();
    draft.finish()?;
    let ids: Vec<_> = ring.ids().collect();
    if json {
        return json_line(&serde_json::json!({
            "file": file, "bytes": bytes, "key_ids": ids, "has_key_ring": false,
        }));
    }
    let origin = ring_origin(&config);
    say(format!(
        "Backed up {url} to {shown_file} ({bytes} bytes).\n\
         THE KEY RING IS NOT IN IT: keep a copy of {origin} apart from it.\n\
         Without the ring nothing in this file can be read; whoever has both has every credential."
    ))
}
