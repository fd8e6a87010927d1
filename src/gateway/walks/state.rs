//! The state of one account in this process: its current directory and its walks.

use std::{
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use jiff::Timestamp;

use super::{WalkHandle, WalkQueue};
use crate::{
    directory::{Directory, Visibility},
    model::{
        accounts::Account,
        id::{AccountId, ProjectId, WalkId},
        walks::{Quarantined, Walk, WalkState},
    },
};

/// A directory version in memory.
pub struct LoadedDirectory {
    pub directory: Directory,
    pub sealed_at: Timestamp,
    /// As of loading. For the current version, [`CurrentSnapshot`] has a newer value.
    pub verified_at: Timestamp,
}

/// The current version of an account's directory, and its quality.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CurrentSnapshot {
    pub version: u64,
    pub sealed_at: Timestamp,
    /// The start of the last walk that found the provider's data equal to this version.
    pub verified_at: Timestamp,
    /// How many users and groups that walk left out.
    pub quarantined: Quarantined,
    pub stale: Option<StaleReason>,
    /// The fields that the token of its walk could read.
    pub visibility: Visibility,
}

/// Why the current directory may be out of date.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StaleReason {
    WalkFailed,
    WalkHeld,
    Degraded,
    ReauthRequired,
    StoreUnavailable,
}

impl StaleReason {
    /// The value of the header `x-directory-stale`.
    pub const fn as_str(self) -> &'static str {
        match self {
            StaleReason::WalkFailed => "walk_failed",
            StaleReason::WalkHeld => "walk_held",
            StaleReason::Degraded => "degraded",
            StaleReason::ReauthRequired => "reauth_required",
            StaleReason::StoreUnavailable => "store_unavailable",
        }
    }
}

/// The in-memory state of one account.
pub struct LiveAccount {
    pub project: ProjectId,
    pub account: AccountId,
    head: ArcSwapOption<CurrentSnapshot>,
    /// The running walk and the next one. Never locked across an await.
    pub queue: Mutex<WalkQueue>,
    /// Locked while a walk is assessed and committed, and while a person decides on a held walk, so
    /// that each decision is made against the version that it replaces.
    pub judgement: tokio::sync::Mutex<()>,
    last_walk: Mutex<LastWalk>,
    /// When the last walk of this process ended, in milliseconds of the monotonic clock; 0 before
    /// the first.
    last_walk_ended_at: AtomicU64,
    /// When the last walk of this process began, in the same unit.
    last_walk_began_at: AtomicU64,
    /// Locked while a version that another process published is loaded.
    pub catching_up: tokio::sync::Mutex<()>,
}

/// The results of the last walk.
#[derive(Default)]
struct LastWalk {
    /// Of this process. The store may not have accepted it.
    own: Option<(WalkId, WalkState)>,
    /// Of any process, as the store last returned it.
    stored: Option<(WalkId, WalkState)>,
}

impl LiveAccount {
    pub fn new(account: &Account) -> Self {
        Self {
            project: account.project.clone(),
            account: account.id,
            head: ArcSwapOption::empty(),
            queue: Mutex::default(),
            judgement: tokio::sync::Mutex::default(),
            last_walk: Mutex::default(),
            last_walk_ended_at: AtomicU64::new(0),
            last_walk_began_at: AtomicU64::new(0),
            catching_up: tokio::sync::Mutex::default(),
        }
    }

    /// The walk that runs in this process.
    pub fn running(&self) -> Option<Arc<WalkHandle>> {
        let queue = self.queue.lock().expect("no holder of this lock panics");
        queue.running()
    }

    pub fn head(&self) -> Option<Arc<CurrentSnapshot>> {
        self.head.load_full()
    }

    /// Makes `head` current, unless a later version already is. For the same version, the later
    /// `verified_at` remains. So the version and its verification only move forward.
    pub fn advance(&self, head: CurrentSnapshot) {
        self.head.rcu(|known| {
            Some(match known {
                Some(known) if known.version > head.version => Arc::clone(known),
                Some(known) if known.version == head.version => {
                    let last = match known.verified_at > head.verified_at {
                        true => known,
                        false => &head,
                    };
                    Arc::new(CurrentSnapshot {
                        verified_at: last.verified_at,
                        quarantined: last.quarantined,
                        ..head.clone()
                    })
                }
                _ => Arc::new(head.clone()),
            })
        });
    }

    /// Records that a walk verified this version at `verified_at` and left out `quarantined` rows.
    /// Has no effect if another version is current.
    pub fn verify(&self, version: u64, verified_at: Timestamp, quarantined: Quarantined) {
        if let Some(head) = self.head()
            && head.version == version
            && head.verified_at < verified_at
        {
            self.advance(CurrentSnapshot {
                verified_at,
                quarantined,
                ..CurrentSnapshot::clone(&head)
            });
        }
    }

    /// Sets the staleness of the current directory, if there is one.
    pub fn set_stale(&self, stale: Option<StaleReason>) {
        self.head.rcu(|head| {
            head.as_ref().map(|head| {
                Arc::new(CurrentSnapshot {
                    stale,
                    ..CurrentSnapshot::clone(head)
                })
            })
        });
    }

    /// When the last walk of this process ended, on the monotonic clock.
    pub fn last_walk_ended_at(&self) -> Option<Duration> {
        load(&self.last_walk_ended_at)
    }

    /// When the last walk of this process began, on the monotonic clock.
    pub fn last_walk_began_at(&self) -> Option<Duration> {
        load(&self.last_walk_began_at)
    }

    /// Records that a walk of this process begins.
    pub fn note_walk_began(&self, at: Duration) {
        store(&self.last_walk_began_at, at);
    }

    /// Records that a walk of this process ended.
    pub fn note_walk_ended(&self, walk: &Walk, at: Duration) {
        self.last_walk().own = Some((walk.id, walk.state));
        store(&self.last_walk_ended_at, at);
    }

    /// Records the result of the last walk as the store returned it. True if it is new: neither the
    /// store nor this process had it before. A result that the store returned earlier is not new,
    /// so it does not override a later walk of this process whose end the store did not accept.
    pub fn is_news(&self, walk: WalkId, state: WalkState) -> bool {
        let mut last = self.last_walk();
        let found = Some((walk, state));
        last.stored.replace((walk, state)) != found && last.own != found
    }

    fn last_walk(&self) -> MutexGuard<'_, LastWalk> {
        self.last_walk
            .lock()
            .expect("no holder of this lock panics")
    }
}

fn load(moment: &AtomicU64) -> Option<Duration> {
    match moment.load(Ordering::Relaxed) {
        0 => None,
        millis => Some(Duration::from_millis(millis)),
    }
}

fn store(moment: &AtomicU64, at: Duration) {
    let millis = u64::try_from(at.as_millis()).unwrap_or(u64::MAX);
    // 0 means that there was none.
    moment.store(millis.max(1), Ordering::Relaxed);
}
