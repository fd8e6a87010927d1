//! Walks: requests for one, waiting for it, and its effects.
//!
//! An account has one walk at a time, in one process. A request attaches to the walk that has not
//! yet called the provider, otherwise to the next one, so that the result is never older than the
//! request. A read of an account without a directory attaches to any walk. A walk runs in its own
//! task, which continues when a client disconnects.
//!
//! * `run`: the steps of a walk, from the credential to the assessment.
//! * `fetch`: reads the provider's lists and records.
//! * `outcome`: stores the outcome of a walk, then updates memory. `failure`: why a walk ended
//!   early.
//! * `review`: lists the suspects of a held walk, and releases or discards it.
//! * `state`: the in-memory state of an account.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use tokio::sync::watch;

use super::{
    Gateway,
    auth::OwnAccount,
    walks::state::{LiveAccount, StaleReason},
};
use crate::{
    error::{Error, Kind, Result, WalkProgress},
    model::{
        accounts::{Account, AccountStatus},
        audit_log::{Actor, AuditAction, Event},
        id::WalkId,
        walks::{Quarantined, Walk, WalkReason, WalkState},
    },
    outbound::Priority,
    store::AccountState,
};

mod failure;
mod fetch;
mod outcome;
mod review;
mod run;
pub(super) mod state;

use failure::WalkFailure;

/// How long to wait for an abandoned walk, which only completes its current write to the store.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(10);

/// The walks that a request accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attach {
    /// Any walk: the running one, otherwise the next.
    Any,
    /// Only a walk that has not called the provider before the request.
    BeforeFirstCall,
}

/// The running walk, the next one, and the last one that ended.
#[derive(Default)]
pub struct WalkQueue {
    running: Option<Arc<WalkHandle>>,
    next: Option<Arc<WalkHandle>>,
    last: Option<Arc<WalkHandle>>,
}

impl WalkQueue {
    pub fn running(&self) -> Option<Arc<WalkHandle>> {
        self.running.clone()
    }

    /// The walk that ended last in this process; None while another one runs.
    pub fn last_unless_walking(&self) -> Option<Arc<WalkHandle>> {
        self.last.clone().filter(|_| self.running.is_none())
    }

    fn open(&self) -> impl Iterator<Item = &Arc<WalkHandle>> {
        self.next.iter().chain(self.running.iter())
    }
}

/// A requested walk: its progress, and finally its outcome.
pub struct WalkHandle {
    pub id: WalkId,
    asked_at: Timestamp,
    /// The actor of the first request.
    by: Actor,
    is_full: AtomicBool,
    /// Whether some request needs a walk that begins after it, or a full one, so that a walk of
    /// another process is no substitute.
    is_own: AtomicBool,
    /// Whether the store lists it as running in this process.
    has_begun: AtomicBool,
    /// Set to true to end the walk without an assessment.
    is_abandoned: watch::Sender<bool>,
    /// Set before the first call of the provider. From then on, a request that needs newer data
    /// must not attach.
    is_calling: AtomicBool,
    meter: Meter,
    outcome: watch::Sender<Option<Walk>>,
}

/// The progress of a walk.
#[derive(Default)]
struct Meter {
    pages: AtomicU64,
    /// 0 while unknown.
    pages_total: AtomicU64,
    records: AtomicU64,
    /// Estimated milliseconds until the remaining reads are done, at the average speed so far.
    eta_millis: AtomicU64,
    /// Rows without a usable id.
    quarantined_users: AtomicU64,
    quarantined_groups: AtomicU64,
    /// How many of these rows were logged or exceeded the limit of the log.
    rows_logged: AtomicUsize,
}

impl WalkHandle {
    fn new(id: WalkId, asked_at: Timestamp, is_full: bool, by: Actor) -> Arc<Self> {
        Arc::new(Self {
            id,
            asked_at,
            by,
            is_full: AtomicBool::new(is_full),
            is_own: AtomicBool::new(false),
            has_begun: AtomicBool::new(false),
            is_abandoned: watch::Sender::new(false),
            is_calling: AtomicBool::new(false),
            meter: Meter::default(),
            outcome: watch::Sender::new(None),
        })
    }

    pub fn has_begun(&self) -> bool {
        self.has_begun.load(Ordering::Relaxed)
    }

    /// Ends the walk, unless its outcome is being written to the store.
    pub fn abandon(&self) {
        self.is_abandoned.send_replace(true);
    }

    /// Runs `work`, and drops it unfinished when the walk is abandoned.
    async fn unless_abandoned<T>(
        &self,
        work: impl Future<Output = Result<T, WalkFailure>>,
    ) -> Result<T, WalkFailure> {
        let mut is_abandoned = self.is_abandoned.subscribe();
        tokio::select! {
            biased;
            _ = is_abandoned.wait_for(|is_abandoned| *is_abandoned) => {
                Err(WalkReason::Interrupted.into())
            }
            outcome = work => outcome,
        }
    }

    fn quarantined(&self) -> Quarantined {
        Quarantined {
            users: self.meter.quarantined_users.load(Ordering::Relaxed),
            groups: self.meter.quarantined_groups.load(Ordering::Relaxed),
        }
    }

    pub fn progress(&self) -> WalkProgress {
        let pages_total = match self.meter.pages_total.load(Ordering::Relaxed) {
            0 => None,
            total => Some(total),
        };
        WalkProgress {
            pages: self.meter.pages.load(Ordering::Relaxed),
            pages_total,
            records: self.meter.records.load(Ordering::Relaxed),
            eta_seconds: pages_total
                .map(|_| self.meter.eta_millis.load(Ordering::Relaxed).div_ceil(1000)),
        }
    }

    /// The walk as it is known before its end.
    fn as_running(&self, account: &Account) -> Walk {
        Walk {
            id: self.id,
            account: account.id,
            state: WalkState::Running,
            reason: None,
            directory_version: None,
            counts: None,
            quarantined: self.quarantined(),
            upstream_calls: 0,
            started_at: self.asked_at,
            ended_at: None,
        }
    }
}

/// The staleness of the current directory after a walk with this result.
pub fn stale_after(state: WalkState, reason: Option<WalkReason>) -> Option<StaleReason> {
    match (state, reason) {
        (WalkState::Sealed | WalkState::Running, _) => None,
        (WalkState::Held, Some(WalkReason::Degraded)) => Some(StaleReason::Degraded),
        (WalkState::Held, _) => Some(StaleReason::WalkHeld),
        (WalkState::Failed, Some(WalkReason::StoreUnavailable)) => {
            Some(StaleReason::StoreUnavailable)
        }
        (WalkState::Failed, _) => Some(StaleReason::WalkFailed),
    }
}

/// Starts, awaits, cancels and lists walks, and decides on held ones.
#[derive(Clone, Copy)]
pub struct Walks<'a> {
    pub(in crate::gateway) gateway: &'a Gateway,
}

impl Walks<'_> {
    /// Requests a walk of this account and waits up to `wait` for its end. If it has not ended by
    /// then, returns it as running.
    ///
    /// If the provider refused the account's credential before, this tries the credential first. If
    /// the provider accepts it, the account is active again; otherwise this fails with
    /// `account_inactive`.
    ///
    /// # Errors
    /// `account_inactive`, `provider_unavailable`, `store_unavailable`.
    pub async fn walk_now(self, own: &OwnAccount, full: bool, wait: Duration) -> Result<Walk> {
        super::directory::check_callable(&own.account)?;
        if own.account.needs_reauth() {
            self.reactivate(own).await?;
        }
        let live = self.gateway.directory().live(&own.account);
        let handle = self.request_walk(&live, Attach::BeforeFirstCall, full, own.by);
        let ended = self.await_walk(&handle, wait).await;
        Ok(ended.unwrap_or_else(|| handle.as_running(&own.account)))
    }

    /// The walk of this account with this id.
    ///
    /// # Errors
    /// `walk_not_found`.
    pub async fn walk(self, own: &OwnAccount, id: &str) -> Result<Walk> {
        let not_found = || Error::new(Kind::WalkNotFound, "this account has no such walk");
        let id: WalkId = id.parse().map_err(|_| not_found())?;
        let account = &own.account;
        if let Some(stored) = self
            .gateway
            .store_of(&account.project)
            .walk(&account.project, account.id, id)
            .await?
        {
            return Ok(stored);
        }
        let live = self.gateway.directory().live(account);
        let queue = live.queue.lock().expect("no holder of this lock panics");
        let queued = queue.open().find(|handle| handle.id == id);
        queued
            .map(|handle| handle.as_running(account))
            .ok_or_else(not_found)
    }

    /// The walks of this account, newest first, starting after `before`.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn list(
        self,
        own: &OwnAccount,
        before: Option<WalkId>,
        limit: u32,
    ) -> Result<Vec<Walk>> {
        let account = &own.account;
        self.gateway
            .store_of(&account.project)
            .walks(&account.project, account.id, before, limit)
            .await
    }

    /// The progress of the running walk, if there is one.
    pub fn walk_progress(self, account: &Account) -> Option<WalkProgress> {
        let live = self.gateway.directory().live(account);
        let queue = live.queue.lock().expect("no holder of this lock panics");
        queue.running.as_ref().map(|handle| handle.progress())
    }

    /// Attaches to a walk that `join` accepts, or requests a new one on behalf of `by`.
    pub(super) fn request_walk(
        self,
        live: &Arc<LiveAccount>,
        join: Attach,
        full: bool,
        by: Actor,
    ) -> Arc<WalkHandle> {
        let mut queue = live.queue.lock().expect("no holder of this lock panics");
        let joinable = match (&queue.running, &queue.next) {
            (Some(running), _)
                if join == Attach::Any || !running.is_calling.load(Ordering::Relaxed) =>
            {
                Some(Arc::clone(running))
            }
            (_, next) => next.clone(),
        };
        let is_own = join == Attach::BeforeFirstCall || full;
        if let Some(handle) = joinable {
            handle.is_full.fetch_or(full, Ordering::Relaxed);
            handle.is_own.fetch_or(is_own, Ordering::Relaxed);
            return handle;
        }
        let now = self.gateway.0.clock.now();
        let handle = WalkHandle::new(self.gateway.0.rng.id(now), now, full, by);
        handle.is_own.store(is_own, Ordering::Relaxed);
        // `run_walks` starts the next walk when the running one has ended.
        if queue.running.is_some() {
            queue.next = Some(Arc::clone(&handle));
        } else {
            queue.running = Some(Arc::clone(&handle));
            self.gateway
                .0
                .runtime
                .spawn(run_walks(self.gateway.clone(), Arc::clone(live)));
        }
        handle
    }

    /// Waits up to `wait` for the outcome of `handle`. None after a timeout.
    pub(super) async fn await_walk(self, handle: &WalkHandle, wait: Duration) -> Option<Walk> {
        let mut outcome = handle.outcome.subscribe();
        let ended = outcome.wait_for(Option::is_some);
        match tokio::time::timeout(wait, ended).await {
            Ok(Ok(walk)) => walk.clone(),
            Ok(Err(_)) | Err(_) => None,
        }
    }

    /// Abandons the running walk of a deleted account and waits for its end. Afterwards no walk
    /// calls the provider: the next one does not find the account.
    pub(super) async fn end_walks(self, live: &LiveAccount) {
        if let Some(handle) = live.running() {
            handle.abandon();
            self.cancel_walk(&handle).await;
        }
    }

    /// Waits until an abandoned walk has ended.
    pub(super) async fn cancel_walk(self, handle: &WalkHandle) {
        self.await_walk(handle, CANCEL_TIMEOUT).await;
    }

    /// Tries a credential that the provider refused before, and activates the account if it is
    /// accepted.
    async fn reactivate(self, own: &OwnAccount) -> Result<()> {
        let account = &own.account;
        let tried =
            Event::new(own.by, AuditAction::CredentialUsed, account.id).with("for", "reactivation");
        self.gateway.0.store.note(&account.project, tried).await?;
        let (session, _) = self
            .gateway
            .credentials()
            .session(account, Priority::Interactive, false)
            .await?;
        let connector = self.gateway.connector(&account.provider)?;
        connector
            .identify(&session)
            .await
            .map_err(|error| super::linking::link_error(&error, true))?;
        self.gateway
            .0
            .store
            .set_account_state(
                &account.project,
                account.id,
                AccountState {
                    status: AccountStatus::Active,
                    reasons: &[],
                    identity: None,
                },
                self.gateway.0.clock.now(),
            )
            .await?;
        self.gateway
            .0
            .auth
            .accounts
            .invalidate(&(account.project.clone(), account.id));
        Ok(())
    }
}

/// Runs the requested walks one after another until none is left.
async fn run_walks(gateway: Gateway, live: Arc<LiveAccount>) {
    let mut handle = live.running();
    while let Some(current) = handle {
        live.note_walk_began(gateway.0.clock.monotonic());
        // In its own task, so that a panic becomes the outcome of this walk.
        let walking = tokio::spawn(run::walk(
            gateway.clone(),
            Arc::clone(&live),
            Arc::clone(&current),
        ));
        let walk = match walking.await {
            Ok(walk) => walk,
            Err(failure) => run::after_panic(&gateway, &live, &current, &failure).await,
        };
        live.note_walk_ended(&walk, gateway.0.clock.monotonic());
        let mut queue = live.queue.lock().expect("no holder of this lock panics");
        queue.running = queue.next.take();
        queue.last = Some(Arc::clone(&current));
        handle = queue.running.clone();
        drop(queue);
        // Sent after the queue is updated, because a caller that wakes up reads the queue.
        current.outcome.send_replace(Some(walk));
    }
}
