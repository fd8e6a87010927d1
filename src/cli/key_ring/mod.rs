//! `rolecall keyring`: creates, rotates and retires the keys that seal everything stored, while
//! servers run.
//!
//! Every command may be killed at any time and run again. It replaces the file atomically, adds a
//! key to the file before the database uses it, and removes a key from the file only after the
//! database no longer needs it.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, Subcommand};
use secrecy::ExposeSecret;
use serde_json::json;

use super::{ConfigFile, Failure, key_ring, must_be_current, output::json_line, say};
use crate::{
    clock::Clock,
    config::Config,
    crypto::{KeyRing, KeyRingError, LiveRing, RingFile, Rng},
    model::audit_log::Actor,
    store::{FirstKey, Retirement, RingStanding, Store},
};

mod rotate;
mod status;

/// How long a command waits for servers to read a changed file before it reports that they have
/// not.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(3);

const POLL_INTERVAL: Duration = Duration::from_millis(100);

#[derive(Subcommand)]
pub enum Command {
    /// Create a key ring file with one key; an existing file is never changed
    Init {
        /// The path of the new file
        #[arg(default_value = "rolecall.keys")]
        file: PathBuf,
        /// The id of the key
        #[arg(long, default_value = "k1")]
        id: String,
        /// Print one line of JSON
        #[arg(long)]
        json: bool,
    },
    /// Rotate to a new key: add it to the file, put it first, rewrap the data keys
    ///
    /// Servers reload the file by themselves, and the new key is used once all of them have it. If
    /// each host has its own key file, run `--add-only`, copy the file to the other hosts, and then
    /// run `--activate` on each.
    Rotate(rotate::Arguments),
    /// Show which key encrypts, and how many data keys each key wraps
    Status(InstallationArguments),
    /// Rewrap every data key with the key that encrypts; servers also do this by themselves
    Rewrap(InstallationArguments),
    /// Retire a key that no longer wraps data keys, and remove it from the file
    Retire {
        /// The key's id
        id: String,
        #[command(flatten)]
        shared: InstallationArguments,
    },
}

/// Options of every command on an installation.
#[derive(Args)]
pub struct InstallationArguments {
    #[command(flatten)]
    file: ConfigFile,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

pub async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Init { file, id, json } => init(&file, &id, json),
        Command::Rotate(arguments) => rotate::run(arguments).await,
        Command::Status(shared) => status::run(&shared).await,
        Command::Rewrap(shared) => rewrap(&shared).await,
        Command::Retire { id, shared } => retire(&id, &shared).await,
    }
}

fn init(file: &Path, id: &str, is_json: bool) -> Result<(), Failure> {
    let ring = KeyRing::generate(id, &Rng::system()).map_err(Failure::other)?;
    ring.create_file(file)
        .map_err(|error| Failure::Other(format!("cannot make {}: {error}", file.display())))?;
    if is_json {
        return say(json!({ "file": file, "key_id": id }));
    }
    say(format!(
        "Made {} with the key `{id}`. Keep a copy away from the database's backups: without it\n\
         nothing stored can be read again, and with both everything can.",
        file.display()
    ))
}

async fn rewrap(shared: &InstallationArguments) -> Result<(), Failure> {
    let installation = Installation::open(&shared.file).await?;
    let moved = installation.move_over().await?;
    installation.store.close().await;
    if shared.json {
        json_line(&json!({
            "key_id": moved.active, "awaited_processes": moved.awaited,
            "rewrapped": moved.count, "left": moved.left, "locked": moved.locked,
        }))?;
    } else {
        say(moved.in_words())?;
        if moved.awaited > 0 {
            say(format!(
                "The first key of the ring is used as soon as every process that serves has it; {} \
                 without it.",
                number_are(moved.awaited)
            ))?;
        }
    }
    moved.expect_unlocked()
}

async fn retire(id: &str, shared: &InstallationArguments) -> Result<(), Failure> {
    let installation = Installation::open(&shared.file).await?;
    let ring = installation.ring.current();
    let standing = installation.store.ring_standing().await?;
    let is_retired = standing.retired.iter().any(|key| key == id);
    if !ring.has(id) && is_new(id, &standing) {
        return Err(no_such_key(id));
    }
    let is_used = |how: &str| {
        Failure::Other(format!(
            "the key `{id}` {how}; change to another first: `rolecall keyring rotate`"
        ))
    };
    if ring.encrypting_id() == id && !is_retired {
        return Err(is_used("is the first of the ring"));
    }
    // The database comes first: a ring must contain every key that the database needs.
    let retirement = installation.store.retire_key(id, Clock::system().now());
    match retirement.await? {
        Retirement::Done | Retirement::Before => {}
        Retirement::Active => return Err(is_used("encrypts")),
        Retirement::Wraps(count) => {
            return Err(Failure::Other(format!(
                "the key `{id}` still wraps {count} data keys, which could not be opened without it. \
                 Servers wrap them anew by themselves, and so does `rolecall keyring rewrap`. \
                 Nothing was changed"
            )));
        }
    }
    installation.store.close().await;
    let has_file = installation.file().is_some();
    if has_file {
        installation.change_file(|ring| match ring.has(id) {
            true => ring.without(id).map(Some).map_err(Failure::other),
            false => Ok(None),
        })?;
    }
    let in_ring = installation.ring.current().has(id);
    if shared.json {
        return json_line(&json!({ "key_id": id, "state": "retired", "in_ring": in_ring }));
    }
    let what_is_left = match has_file {
        true => "It is out of the file; on hosts with files of their own, say the same there.",
        false => "Take it out of `keys` now.",
    };
    say(format!(
        "`{id}` is retired: nothing stored needs it. {what_is_left}\nBackups that were made while it \
         was in use need it still: keep a copy of it for as long as one of them."
    ))
}

/// An installation whose key ring opens its database.
struct Installation {
    config: Config,
    ring: LiveRing,
    store: Store,
}

impl Installation {
    async fn open(file: &ConfigFile) -> Result<Self, Failure> {
        let config = Config::load(file.config.as_deref())?;
        let ring = key_ring(&config)?;
        must_be_current(&config, &ring).await?;
        let store = Store::open(&config.store.url, ring.clone(), Clock::system()).await?;
        Ok(Self {
            config,
            ring,
            store,
        })
    }

    /// The key ring file; None if the ring is in the setting `keys`.
    fn file(&self) -> Option<&Path> {
        let is_given = !self.config.keys.expose_secret().is_empty();
        (!is_given).then_some(&self.config.keys_file)
    }

    /// Replaces the ring, in its file and in memory, with the result of `change`; None keeps the
    /// ring. The file is locked meanwhile.
    fn change_file(
        &self,
        change: impl FnOnce(&KeyRing) -> Result<Option<KeyRing>, Failure>,
    ) -> Result<(), Failure> {
        let path = self.file().ok_or_else(|| {
            Failure::other(
                "the key ring is in `keys` (ROLECALL_KEYS), and no file to be changed; add, order \
                 and take out keys there, and start every process again after each step",
            )
        })?;
        let cannot = |error: KeyRingError| {
            Failure::Other(format!("{} cannot be changed: {error}", path.display()))
        };
        let file = RingFile::lock(path).map_err(cannot)?;
        let found = file.read().map_err(cannot)?;
        let ring = match change(&found)? {
            Some(changed) => {
                file.replace(&changed).map_err(cannot)?;
                changed
            }
            None => found,
        };
        self.ring.exchange(ring);
        Ok(())
    }

    /// Repeats `ask` until `is_settled` accepts its result or `RELOAD_TIMEOUT` has passed, and
    /// returns the last result. Servers reload the file in this time.
    async fn settled<T>(
        &self,
        mut ask: impl AsyncFnMut() -> Result<T, Failure>,
        is_settled: impl Fn(&T) -> bool,
    ) -> Result<T, Failure> {
        let clock = Clock::system();
        let began_at = clock.monotonic();
        loop {
            let found = ask().await?;
            if is_settled(&found) || clock.monotonic().saturating_sub(began_at) > RELOAD_TIMEOUT {
                return Ok(found);
            }
            clock.sleep(POLL_INTERVAL).await;
        }
    }

    /// Rewraps all data keys that a former key wraps.
    async fn move_over(&self) -> Result<Moved, Failure> {
        let mut moved = Moved::default();
        let mut after = None;
        loop {
            let turn = self.store.rewrap(after.as_ref(), Actor::Operator).await?;
            let locked = turn.locked.iter().map(|(project, _)| project.to_string());
            moved.count += turn.count;
            moved.locked.extend(locked);
            after = turn.next;
            if after.is_none() {
                moved.active = turn.active;
                moved.left = turn.left;
                if let FirstKey::Awaited { processes } = turn.first {
                    moved.awaited = processes;
                }
                return Ok(moved);
            }
        }
    }
}

/// The result of rewrapping data keys.
#[derive(Default)]
struct Moved {
    active: String,
    /// The number of serving processes without the ring's first key. It is not used before they
    /// have it.
    awaited: usize,
    count: u64,
    left: u64,
    /// Projects whose data key cannot be decrypted.
    locked: Vec<String>,
}

impl Moved {
    fn in_words(&self) -> String {
        let Self {
            active,
            count,
            left,
            ..
        } = self;
        format!("`{active}` encrypts; {count} data keys were wrapped anew, {left} are left.")
    }

    fn expect_unlocked(&self) -> Result<(), Failure> {
        if self.locked.is_empty() {
            return Ok(());
        }
        Err(Failure::Other(format!(
            "the data keys of {} do not open and were left as they are; were they changed, or copied \
             from elsewhere?",
            self.locked.join(", ")
        )))
    }
}

/// Whether the database has never used or retired this key.
fn is_new(id: &str, standing: &RingStanding) -> bool {
    let used = standing.usage.iter().map(|(key, _)| key);
    !used.chain(&standing.retired).any(|key| key == id)
}

/// The number of serving processes that lack a key.
fn without(id: &str, standing: &RingStanding) -> usize {
    let lacks = |keys: &&Vec<String>| !keys.iter().any(|key| key == id);
    standing.processes.iter().filter(lacks).count()
}

fn number_are(count: usize) -> String {
    let verb = if count == 1 { "is" } else { "are" };
    format!("{count} {verb}")
}

fn no_such_key(id: &str) -> Failure {
    Failure::Other(format!(
        "there is no key `{id}`; `rolecall keyring status` shows those that there are"
    ))
}
