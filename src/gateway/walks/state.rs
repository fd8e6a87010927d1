//! One account as this process knows it: which directory is in force, and who is walking.

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
    /// As far as was known when this was loaded; the head knows better for the version in force.
    pub verified_at: Timestamp,
}

/// Which version is in force, and how good it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CurrentSnapshot {
    pub version: u64,
    pub sealed_at: Timestamp,
    /// The start of the last walk that found the provider as this version says.
    pub verified_at: Timestamp,
    /// What that walk left out.
    pub quarantined: Quarantined,
    pub stale: Option<StaleReason>,
    /// What its walk's token could see.
    pub visibility: Visibility,
}

/// Why the directory in force may no longer be what the provider would say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StaleReason {
    WalkFailed,
    WalkHeld,
    Degraded,
    ReauthRequired,
    StoreUnavailable,
}

impl StaleReason {
    /// As in the header `x-directory-stale`.
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

/// The live state of one account.
pub struct LiveAccount {
    pub project: ProjectId,
    pub account: AccountId,
    head: ArcSwapOption<CurrentSnapshot>,
    /// Who walks, and who is next. Never held over an await.
    pub slots: Mutex<WalkQueue>,
    /// Held while a walk is judged and committed, and while a person decides on a held one, so
    /// that every judgement is made against the directory that it will replace.
    pub judgement: tokio::sync::Mutex<()>,
    last_walk: Mutex<LastWalk>,
    /// When the last walk of this process ended, in milliseconds of the monotonic clock; 0 before
    /// the first.
    last_walk_ended_at: AtomicU64,
    /// When the last walk of this process began, likewise.
    last_walk_began_at: AtomicU64,
    /// Held while a version is loaded that another process put in force.
    pub catching_up: tokio::sync::Mutex<()>,
}

/// How the last walk ended.
#[derive(Default)]
struct LastWalk {
    /// Of this process. The store may not have taken it.
    own: Option<(WalkId, WalkState)>,
    /// Of whichever process, as the store said when it was last asked.
    stored: Option<(WalkId, WalkState)>,
}

impl LiveAccount {
    pub fn new(account: &Account) -> Self {
        Self {
            project: account.project.clone(),
            account: account.id,
            head: ArcSwapOption::empty(),
            slots: Mutex::default(),
            judgement: tokio::sync::Mutex::default(),
            last_walk: Mutex::default(),
            last_walk_ended_at: AtomicU64::new(0),
            last_walk_began_at: AtomicU64::new(0),
            catching_up: tokio::sync::Mutex::default(),
        }
    }

    /// The walk that runs in this process.
    pub fn running(&self) -> Option<Arc<WalkHandle>> {
        let slots = self.slots.lock().expect("no holder of this lock panics");
        slots.running()
    }

    pub fn head(&self) -> Option<Arc<CurrentSnapshot>> {
        self.head.load_full()
    }

    /// Puts a version in force, unless a later one is already: what a version is said to be goes
    /// only forward, whoever says it.
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

    /// The version in force was found true at `verified_at`, by a walk that left this much out.
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

    /// Marks the directory in force, if any.
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

    /// When the last walk of this process ended, by the monotonic clock.
    pub fn last_walk_ended_at(&self) -> Option<Duration> {
        load(&self.last_walk_ended_at)
    }

    /// When the last walk of this process began, by the monotonic clock.
    pub fn last_walk_began_at(&self) -> Option<Duration> {
        load(&self.last_walk_began_at)
    }

    /// A walk of this process begins, at this reading of the monotonic clock.
    pub fn note_walk_began(&self, at: Duration) {
        store(&self.last_walk_began_at, at);
    }

    /// A walk of this process ended, at this reading of the monotonic clock.
    pub fn note_walk_ended(&self, walk: &Walk, at: Duration) {
        self.last_walk().own = Some((walk.id, walk.state));
        store(&self.last_walk_ended_at, at);
    }

    /// Whether it was not known that the last walk is this one and ended so; from now on it is.
    /// What the store said before is no news, so that a walk whose end the store did not take is
    /// not taken for undone.
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
    moment.store(millis.max(1), Ordering::Relaxed);
}
