//! The journal: files for new token pairs that the database has not accepted yet, one file for each
//! pair. A pair is sealed as in the database, and it is synced to disk before it is used.
//!
//! The provider has invalidated the former pair by then, so a lost journal entry is a lost
//! credential. At startup a process stores the pairs that earlier runs of its node left here,
//! before it does anything else. A folder belongs to one process at a time. The file `node` in it
//! contains the node's id, and the lock on that file marks the owner.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Destination;
use crate::{
    crypto::Rng,
    model::id::{AccountId, ProjectId},
};

/// A new token pair that replaces the pair of generation `redeemed`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingPair {
    pub project: ProjectId,
    pub account: AccountId,
    /// The generation whose refresh token was redeemed. The new pair has the next generation.
    pub redeemed: u64,
    /// The number of the account's credential. Refreshes keep it; linking the account again raises
    /// it.
    pub lineage: u64,
    pub(super) sealed: Vec<u8>,
    pub expires_at: Timestamp,
    pub refresh_at: Timestamp,
    /// The destination that `sealed` is bound to. None for a pair that an earlier version of
    /// Rolecall wrote.
    pub(super) destination: Option<Destination>,
}

/// The file format, without the destination. The destination follows if there is one.
#[derive(Serialize, Deserialize)]
struct JournalEntry {
    project: String,
    account: String,
    redeemed: u64,
    lineage: u64,
    sealed: Vec<u8>,
    expires_at: i64,
    refresh_at: i64,
}

/// A journal folder that this process has locked.
#[derive(Debug, Clone)]
pub(super) struct Journal(Arc<Folder>);

#[derive(Debug)]
struct Folder {
    path: PathBuf,
    node: String,
    /// Holds the lock. The kernel releases it when the process ends.
    _held: File,
}

const NODE: &str = "node";
const SUFFIX: &str = "pair";

impl Journal {
    /// Locks the folder at `path` for this process, and creates it if it is missing. None if
    /// another process has locked it.
    pub(super) fn claim(path: &Path, rng: &Rng) -> io::Result<Option<Self>> {
        make_folder(path)?;
        let mut options = of_its_owner();
        options.read(true).write(true).create(true).truncate(false);
        let mut held = options.open(path.join(NODE))?;
        match held.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let mut node = io::read_to_string(&held)?.trim().to_owned();
        if node.is_empty() {
            node = format!("{:032x}", u128::from_be_bytes(rng.bytes()));
            held.write_all(node.as_bytes())?;
            held.sync_all()?;
            sync_folder(path)?;
        }
        Ok(Some(Self(Arc::new(Folder {
            path: path.to_owned(),
            node,
            _held: held,
        }))))
    }

    /// The id of the folder's node. It is the same in every run.
    pub(super) fn node(&self) -> &str {
        &self.0.node
    }

    /// Writes a pair. On return the file is synced to disk.
    pub(super) fn put(&self, pair: &PendingPair) -> io::Result<()> {
        let entry = JournalEntry {
            project: pair.project.to_string(),
            account: pair.account.to_string(),
            redeemed: pair.redeemed,
            lineage: pair.lineage,
            sealed: pair.sealed.clone(),
            expires_at: pair.expires_at.as_millisecond(),
            refresh_at: pair.refresh_at.as_millisecond(),
        };
        let bytes = match &pair.destination {
            Some(destination) => postcard::to_stdvec(&(&entry, destination)),
            None => postcard::to_stdvec(&entry),
        };
        let bytes = bytes.map_err(io::Error::other)?;
        let path = self.file_of(pair);
        let draft = path.with_extension("draft");
        let mut options = of_its_owner();
        options.write(true).create(true).truncate(true);
        let mut file = options.open(&draft)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        // A rename is atomic: a crash never leaves half a pair.
        fs::rename(&draft, &path)?;
        sync_folder(&self.0.path)
    }

    /// Removes a pair that the database has stored, or that no account needs any more.
    pub(super) fn remove(&self, pair: &PendingPair) -> io::Result<()> {
        match fs::remove_file(self.file_of(pair)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            outcome => outcome,
        }
    }

    /// All pairs in the journal. Logs a file that cannot be read as an error, and leaves it in
    /// place.
    pub(super) fn pairs(&self) -> io::Result<Vec<PendingPair>> {
        let mut pairs = Vec::new();
        for file in fs::read_dir(&self.0.path)? {
            let path = file?.path();
            if path.extension().is_none_or(|extension| extension != SUFFIX) {
                continue;
            }
            match decode_pair(&fs::read(&path)?) {
                Some(pair) => pairs.push(pair),
                None => tracing::error!(
                    file = path.file_name().and_then(|name| name.to_str()),
                    "a pair of tokens in the journal cannot be read; it is left there"
                ),
            }
        }
        Ok(pairs)
    }

    fn file_of(&self, pair: &PendingPair) -> PathBuf {
        let name = format!("{}-{}.{SUFFIX}", pair.account, pair.redeemed);
        self.0.path.join(name)
    }
}

fn decode_pair(bytes: &[u8]) -> Option<PendingPair> {
    let (entry, rest): (JournalEntry, _) = postcard::take_from_bytes(bytes).ok()?;
    let destination = match rest {
        [] => None,
        rest => Some(postcard::from_bytes(rest).ok()?),
    };
    Some(PendingPair {
        project: entry.project.parse().ok()?,
        account: entry.account.parse().ok()?,
        redeemed: entry.redeemed,
        lineage: entry.lineage,
        sealed: entry.sealed,
        expires_at: Timestamp::from_millisecond(entry.expires_at).ok()?,
        refresh_at: Timestamp::from_millisecond(entry.refresh_at).ok()?,
        destination,
    })
}

/// Creates a folder with mode 0700.
fn make_folder(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Options that create files with mode 0600.
fn of_its_owner() -> fs::OpenOptions {
    let mut options = File::options();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::accounts::{Endpoint, Region},
        store::Client,
    };

    fn pair(redeemed: u64) -> PendingPair {
        let moment = |millis| Timestamp::from_millisecond(millis).unwrap();
        PendingPair {
            project: "one".parse().unwrap(),
            account: "01998ad6-3f35-7c58-9d37-9d27a1b1b8f0".parse().unwrap(),
            redeemed,
            lineage: 1,
            sealed: vec![1, 2, 3],
            expires_at: moment(5),
            refresh_at: moment(4),
            destination: Some(Destination {
                provider: "smartsheet".to_owned(),
                endpoint: Endpoint::Region(Region::Eu),
                client: Client::OwnApp {
                    client_id: "the-app".to_owned(),
                },
            }),
        }
    }

    #[test]
    fn a_pair_of_the_version_before_is_read_without_a_destination() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::claim(folder.path(), &Rng::system());
        let journal = journal.unwrap().unwrap();
        let before = PendingPair {
            destination: None,
            ..pair(1)
        };
        journal.put(&before).unwrap();
        assert_eq!(journal.pairs().unwrap(), [before]);
    }

    #[test]
    fn a_pair_waits_for_the_next_run_of_the_same_node() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let first = Journal::claim(&path, &Rng::system()).unwrap().unwrap();
        let node = first.node().to_owned();
        first.put(&pair(1)).unwrap();
        first.put(&pair(2)).unwrap();
        first.put(&pair(2)).unwrap();
        first.remove(&pair(1)).unwrap();
        first.remove(&pair(1)).unwrap();
        drop(first);

        let next = Journal::claim(&path, &Rng::system()).unwrap().unwrap();
        assert_eq!(next.node(), node);
        assert_eq!(next.pairs().unwrap(), [pair(2)]);
    }

    #[test]
    fn a_folder_belongs_to_one_process() {
        let folder = tempfile::tempdir().unwrap();
        let first = Journal::claim(folder.path(), &Rng::system()).unwrap();
        assert!(first.is_some());
        assert!(
            Journal::claim(folder.path(), &Rng::system())
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn what_broke_off_is_left_there_and_hides_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::claim(folder.path(), &Rng::system())
            .unwrap()
            .unwrap();
        journal.put(&pair(1)).unwrap();
        fs::write(folder.path().join("half.pair"), b"x").unwrap();
        fs::write(folder.path().join("other.draft"), b"x").unwrap();
        assert_eq!(journal.pairs().unwrap(), [pair(1)]);
        assert!(folder.path().join("half.pair").exists());
    }
}
