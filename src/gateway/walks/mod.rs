//! Walks: who asks for one, who waits for it, and what it leaves behind.
//!
//! One walk per account at a time, in whichever process. Whoever asks joins the walk that has not yet called the
//! provider, else the next one, so that an answer never predates the question; a reader of an
//! account without a directory joins any walk. The walk itself is a task that nobody's
//! disconnect ends.
//!
//! * `run`: the reading, from credential to verdict, with `fetch` for what is read by pages.
//! * `outcome`: what is stored of a walk, and then changes in memory; `failure`: why one ended early.
//! * `review`: what a person does with a held walk.

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

/// A walk that is to end only finishes what it is writing to the store.
const A_WALK_LETS_GO: Duration = Duration::from_secs(10);

/// Which walk an asker is content with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attach {
    /// Whichever ends next.
    Any,
    /// One that calls the provider only after the question.
    NotYetCalling,
}

/// The walk that runs and the one after it.
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

    /// The walk that ended last in this process; None while another runs.
    pub fn last_unless_walking(&self) -> Option<Arc<WalkHandle>> {
        self.last.clone().filter(|_| self.running.is_none())
    }

    fn open(&self) -> impl Iterator<Item = &Arc<WalkHandle>> {
        self.next.iter().chain(self.running.iter())
    }
}

/// A walk that was asked for: how far it is, and in the end what it came to.
pub struct WalkHandle {
    pub id: WalkId,
    asked_at: Timestamp,
    /// Who asked first.
    by: Actor,
    is_full: AtomicBool,
    /// Whether somebody asked for a walk that begins after the question, so that another
    /// process's will not do.
    is_own: AtomicBool,
    /// Whether the store has it for running in this process.
    has_begun: AtomicBool,
    /// Whether it is to end without having been judged.
    is_abandoned: watch::Sender<bool>,
    /// From now on nobody may join who must not be answered with what was read before.
    is_calling: AtomicBool,
    meter: Meter,
    outcome: watch::Sender<Option<Walk>>,
}

/// How far a walk is.
#[derive(Default)]
struct Meter {
    pages: AtomicU64,
    /// 0 while it is not known.
    pages_total: AtomicU64,
    records: AtomicU64,
    /// Milliseconds until the budget will have paid for the rest.
    eta_millis: AtomicU64,
    /// Rows without a usable id.
    quarantined_users: AtomicU64,
    quarantined_groups: AtomicU64,
    /// How many of them were logged, or would have been.
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

    /// Ends the walk, unless it is being written to the store already.
    pub fn abandon(&self) {
        self.is_abandoned.send_replace(true);
    }

    /// Work, and nothing else, that is dropped as soon as the walk is abandoned.
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

/// What a walk's end says about the directory that stays in force after it.
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

/// Walks: started, awaited, canceled, listed, and decided on while held.
#[derive(Clone, Copy)]
pub struct Walks<'a> {
    pub(in crate::gateway) gateway: &'a Gateway,
}

impl Walks<'_> {
    /// Asks for a walk of this account, and waits up to `wait` for its end. Without an end by
    /// then, the walk is returned as it runs.
    ///
    /// A credential that was refused before is tried first: if it is taken again the account is
    /// active again, else this is `account_inactive`.
    ///
    /// # Errors
    /// `account_inactive`, `provider_unavailable`, `store_unavailable`.
    pub async fn walk_now(self, own: &OwnAccount, full: bool, wait: Duration) -> Result<Walk> {
        super::directory::check_callable(&own.account)?;
        if own.account.needs_reauth() {
            self.reactivate(own).await?;
        }
        let live = self.gateway.directory().live(&own.account);
        let ticket = self.request_walk(&live, Attach::NotYetCalling, full, own.by);
        let ended = self.await_walk(&ticket, wait).await;
        Ok(ended.unwrap_or_else(|| ticket.as_running(&own.account)))
    }

    /// One walk of this account.
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
        let slots = live.slots.lock().expect("no holder of this lock panics");
        let queued = slots.open().find(|ticket| ticket.id == id);
        queued
            .map(|ticket| ticket.as_running(account))
            .ok_or_else(not_found)
    }

    /// This account's walks, newest first, after `before`.
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

    /// The progress of the walk that runs now, if one does.
    pub fn walk_progress(self, account: &Account) -> Option<WalkProgress> {
        let live = self.gateway.directory().live(account);
        let slots = live.slots.lock().expect("no holder of this lock panics");
        slots.running.as_ref().map(|ticket| ticket.progress())
    }

    /// The walk that will answer: one that was asked for before, or a new one on behalf of `by`.
    pub(super) fn request_walk(
        self,
        live: &Arc<LiveAccount>,
        join: Attach,
        full: bool,
        by: Actor,
    ) -> Arc<WalkHandle> {
        let mut slots = live.slots.lock().expect("no holder of this lock panics");
        let joinable = match (&slots.running, &slots.next) {
            (Some(running), _)
                if join == Attach::Any || !running.is_calling.load(Ordering::Relaxed) =>
            {
                Some(Arc::clone(running))
            }
            (_, next) => next.clone(),
        };
        let is_own = join == Attach::NotYetCalling || full;
        if let Some(ticket) = joinable {
            ticket.is_full.fetch_or(full, Ordering::Relaxed);
            ticket.is_own.fetch_or(is_own, Ordering::Relaxed);
            return ticket;
        }
        let now = self.gateway.0.clock.now();
        let ticket = WalkHandle::new(self.gateway.0.rng.id(now), now, full, by);
        ticket.is_own.store(is_own, Ordering::Relaxed);
        if slots.running.is_some() {
            slots.next = Some(Arc::clone(&ticket));
        } else {
            slots.running = Some(Arc::clone(&ticket));
            self.gateway
                .0
                .runtime
                .spawn(run_walks(self.gateway.clone(), Arc::clone(live)));
        }
        ticket
    }

    /// The walk of `ticket` once it has ended, or None if that takes longer than `wait`.
    pub(super) async fn await_walk(self, ticket: &WalkHandle, wait: Duration) -> Option<Walk> {
        let mut outcome = ticket.outcome.subscribe();
        let ended = outcome.wait_for(Option::is_some);
        match tokio::time::timeout(wait, ended).await {
            Ok(Ok(walk)) => walk.clone(),
            Ok(Err(_)) | Err(_) => None,
        }
    }

    /// Ends the walks of an account that is no more; afterwards none calls the provider: one that
    /// would begin finds no account.
    pub(super) async fn end_walks(self, live: &LiveAccount) {
        if let Some(ticket) = live.running() {
            ticket.abandon();
            self.cancel_walk(&ticket).await;
        }
    }

    /// Waits until a walk that was abandoned has ended.
    pub(super) async fn cancel_walk(self, ticket: &WalkHandle) {
        self.await_walk(ticket, A_WALK_LETS_GO).await;
    }

    /// Tries a credential that was refused before.
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

/// Runs the walk in `running`, then the one that was asked for meanwhile, until none is left.
async fn run_walks(gateway: Gateway, live: Arc<LiveAccount>) {
    let mut ticket = live.running();
    while let Some(current) = ticket {
        live.note_walk_began(gateway.0.clock.monotonic());
        // In a task of its own, so that a panic in it is an outcome and not a walk that never ends.
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
        let mut slots = live.slots.lock().expect("no holder of this lock panics");
        slots.running = slots.next.take();
        slots.last = Some(Arc::clone(&current));
        ticket = slots.running.clone();
        drop(slots);
        current.outcome.send_replace(Some(walk));
    }
}
