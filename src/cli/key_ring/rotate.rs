//! `rolecall keyring rotate`: changes to a new key, in one step or in two.

use clap::Args;
use serde_json::json;

use super::{Installation, InstallationArguments, is_new, no_such_key, number_are, without};
use crate::{
    cli::{Failure, output::json_line, say},
    crypto::{KeyRing, Rng},
    store::RingStanding,
};

#[derive(Args)]
pub struct Arguments {
    /// The new key's id; `k` and the next number if absent
    #[arg(long, conflicts_with = "activate")]
    id: Option<String>,
    /// Only add a new key, which does not encrypt yet
    #[arg(long, conflicts_with = "activate")]
    add_only: bool,
    /// Put this key, which was added before, first
    #[arg(long, value_name = "ID")]
    activate: Option<String>,
    #[command(flatten)]
    shared: InstallationArguments,
}

pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let installation = Installation::open(&arguments.shared.file).await?;
    // Servers get time to reload the file, since `--activate` requires that all of them have the
    // key.
    let is_settled = |standing: &RingStanding| match &arguments.activate {
        Some(id) => without(id, standing) == 0 || !installation.ring.current().has(id),
        None => true,
    };
    let ask = async || Ok(installation.store.ring_standing().await?);
    let standing = installation.settled(ask, is_settled).await?;
    let mut key = String::new();
    installation.change_file(|ring| {
        let (id, changed) = arguments.change(ring, &standing)?;
        key = id;
        Ok(changed)
    })?;
    // The new key becomes active once every serving process has reloaded the file.
    let ask = async || installation.move_over().await;
    let moved = installation
        .settled(ask, |moved| moved.awaited == 0)
        .await?;
    installation.store.close().await;

    let state = match installation.ring.current().encrypting_id() == key {
        _ if moved.active == key => "active",
        true => "first",
        false => "added",
    };
    if arguments.shared.json {
        json_line(&json!({
            "file": installation.file(), "key_id": key, "state": state,
            "awaited_processes": moved.awaited,
            "rewrapped": moved.count, "left": moved.left, "locked": moved.locked,
        }))?;
        return moved.expect_unlocked();
    }
    let outcome = match state {
        "active" => format!(
            "{} `rolecall keyring retire ID` takes a former key out once it wraps none.",
            moved.in_words()
        ),
        "first" => format!(
            "`{key}` is the first of the file, and is used as soon as every process that serves has \
             it; {} without it. Give them the file. `rolecall keyring status` tells how far it is.",
            number_are(moved.awaited)
        ),
        _ => format!(
            "`{key}` is in the file and does not encrypt yet. Give the file to every host, and then \
             say `rolecall keyring rotate --activate {key}` on each."
        ),
    };
    say(format!(
        "{outcome}\nKeep a copy of the file, away from the database's backups."
    ))?;
    moved.expect_unlocked()
}

impl Arguments {
    /// The id of the affected key, and the changed ring; None if the ring needs no change.
    fn change(
        &self,
        ring: &KeyRing,
        standing: &RingStanding,
    ) -> Result<(String, Option<KeyRing>), Failure> {
        if let Some(id) = &self.activate {
            let changed = put_first(ring, id, standing)?;
            return Ok((id.clone(), (changed != *ring).then_some(changed)));
        }
        let first = ring.encrypting_id();
        let is_wanted = self.id.as_deref().is_none_or(|id| id == first);
        if !self.add_only && is_wanted && is_new(first, standing) {
            // The new key is already first: an earlier run was killed, or a process still lacks the
            // key.
            return Ok((first.to_owned(), None));
        }
        let id = match &self.id {
            Some(id) => id.clone(),
            None => next_id(ring, standing),
        };
        if !is_new(&id, standing) {
            return Err(Failure::Other(format!(
                "there was a key `{id}` before; take another id, so that a backup which needs the \
                 one is never tried with the other"
            )));
        }
        let fresh = KeyRing::generate(&id, &Rng::system()).map_err(Failure::other)?;
        let changed = match self.add_only {
            true => ring.then(&fresh),
            false => fresh.then(ring),
        };
        Ok((id, Some(changed.map_err(Failure::other)?)))
    }
}

/// Returns `k` and the lowest number above those of all present and former keys.
fn next_id(ring: &KeyRing, standing: &RingStanding) -> String {
    let used = standing.usage.iter().map(|(id, _)| id.as_str());
    let retired = standing.retired.iter().map(String::as_str);
    let numbers = ring.ids().chain(used).chain(retired);
    let numbers = numbers.filter_map(|id| id.strip_prefix('k')?.parse::<u32>().ok());
    format!("k{}", numbers.max().unwrap_or(0).saturating_add(1))
}

fn put_first(ring: &KeyRing, id: &str, standing: &RingStanding) -> Result<KeyRing, Failure> {
    let changed = ring.promote(id).ok_or_else(|| no_such_key(id))?;
    if standing.active == id {
        return Ok(changed);
    }
    let refused = if standing.retired.iter().any(|key| key == id) {
        format!(
            "the key `{id}` was retired and is never used again; `rolecall keyring retire {id}` takes \
             it out of this file"
        )
    } else if !is_new(id, standing) {
        format!(
            "the key `{id}` was followed by `{}`, and a key is only ever followed by a new one: \
             `rolecall keyring rotate` makes it",
            standing.active
        )
    } else if without(id, standing) > 0 {
        format!(
            "{} of {} processes serving without the key `{id}`, which could not read what it encrypts; \
             give them the file first. Nothing was changed",
            number_are(without(id, standing)),
            standing.processes.len()
        )
    } else {
        return Ok(changed);
    };
    Err(Failure::Other(refused))
}
