//! One account as this process knows it: which directory is in force, and who is walking.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicI64, Ordering},
};

use arc_swap::ArcSwapOption;
use jiff::Timestamp;
use tokio::sync::{OnceCell, watch};

use super::walk::Slots;
use crate::{
    directory::{Directory, Visibility},
    model::{
        account::Account,
        id::{AccountId, ProjectId},
    },
};

/// A directory version in memory.
pub struct Held {
    pub directory: Directory,
    pub sealed_at: Timestamp,
    /// As far as was known when this was loaded; the head knows better for the version in force.
    pub verified_at: Timestamp,
}

/// Which version is in force, and how good it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    pub version: u64,
    pub sealed_at: Timestamp,
    /// The start of the last walk that found the provider as this version says.
    pub verified_at: Timestamp,
    pub stale: Option<Stale>,
    /// What its walk's token could see.
    pub visibility: Visibility,
}

/// Why the directory in force may no longer be what the provider would say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stale {
    WalkFailed,
    WalkHeld,
    Degraded,
    ReauthRequired,
    StoreUnavailable,
}

impl Stale {
    /// As in the header `x-directory-stale`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Stale::WalkFailed => "walk_failed",
            Stale::WalkHeld => "walk_held",
            Stale::Degraded => "degraded",
            Stale::ReauthRequired => "reauth_required",
            Stale::StoreUnavailable => "store_unavailable",
        }
    }
}

/// The live state of one account.
pub struct Live {
    pub project: ProjectId,
    pub account: AccountId,
    head: ArcSwapOption<Head>,
    /// Done once the store was asked for the version in force.
    pub loaded: OnceCell<()>,
    /// Who walks, and who is next. Never held over an await.
    pub slots: Mutex<Slots>,
    /// Held while a walk is judged and committed, and while a person decides on a held one, so
    /// that every judgement is made against the directory that it will replace.
    pub judgement: tokio::sync::Mutex<()>,
    /// True once the account is unlinked: from then on no walk calls the provider.
    pub is_unlinked: watch::Sender<bool>,
    /// When the last walk ended, in ms since the epoch; 0 before the first.
    last_walk_ended_at: AtomicI64,
}

impl Live {
    pub fn new(account: &Account) -> Self {
        Self {
            project: account.project.clone(),
            account: account.id,
            head: ArcSwapOption::empty(),
            loaded: OnceCell::new(),
            slots: Mutex::default(),
            judgement: tokio::sync::Mutex::default(),
            is_unlinked: watch::Sender::new(false),
            last_walk_ended_at: AtomicI64::new(0),
        }
    }

    pub fn head(&self) -> Option<Arc<Head>> {
        self.head.load_full()
    }

    pub fn set_head(&self, head: Head) {
        self.head.store(Some(Arc::new(head)));
    }

    /// Marks the directory in force, if any.
    pub fn set_stale(&self, stale: Option<Stale>) {
        self.head.rcu(|head| {
            head.as_ref().map(|head| {
                Arc::new(Head {
                    stale,
                    ..Head::clone(head)
                })
            })
        });
    }

    pub fn last_walk_ended_at(&self) -> Option<Timestamp> {
        match self.last_walk_ended_at.load(Ordering::Relaxed) {
            0 => None,
            millis => Timestamp::from_millisecond(millis).ok(),
        }
    }

    pub fn note_walk_ended(&self, at: Timestamp) {
        self.last_walk_ended_at
            .store(at.as_millisecond(), Ordering::Relaxed);
    }
}
