//! The budget of a token that several processes use. Each process leases [slices](Slice) of it
//! through [`SharedQuota`], sends the requests that a slice permits, and settles the slice.
//!
//! A slice holds about a second's worth of requests and is valid for about a second. A pause that
//! one process reports therefore reaches every other within a second, since the store grants no
//! slice during a pause. A killed process wastes little of the budget until its slices are written
//! off.
//!
//! The store decides the size of a slice and how long it counts. This module guarantees that no
//! request is sent without a permit or with an expired one. The validity starts before the slice is
//! requested, by the monotonic clock, so it ends here no later than the store assumes.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use tokio::runtime::Handle;

use crate::{
    clock::Clock,
    model::budgets::{Settlement, SharedBudget, Slice, SliceAnswer, SliceOrder, Throttling},
};

/// How long the permits of a slice are used. With the time of the request to the store, every
/// process obeys a pause within a second.
const USABLE_FOR: Duration = Duration::from_millis(900);

/// The wait before a pause is reported again after a failure.
const REPORT_RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// A store of budgets that processes share. Its methods run in spawned tasks, which no caller's
/// cancellation ends.
#[async_trait]
pub trait SharedQuota: Send + Sync {
    /// Leases a slice, or returns when to ask again.
    async fn take(
        &self,
        budget: &SharedBudget,
        order: &SliceOrder,
    ) -> Result<SliceAnswer, SharedQuotaError>;

    /// Reports the usage of a slice. An unsettled slice counts in full until its last request can
    /// have arrived.
    async fn settle(
        &self,
        budget: &SharedBudget,
        settlement: &Settlement,
    ) -> Result<(), SharedQuotaError>;

    /// Reports that the provider asked to wait.
    async fn pause(
        &self,
        budget: &SharedBudget,
        throttling: &Throttling,
    ) -> Result<(), SharedQuotaError>;
}

/// The store gave no answer about a shared budget: nothing may be sent.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the token's budget could not be asked for, so nothing was sent: {detail}")]
pub struct SharedQuotaError {
    pub detail: String,
    pub retry_after: Option<Duration>,
}

impl SharedQuotaError {
    fn new(detail: &str) -> Self {
        Self {
            detail: detail.to_owned(),
            retry_after: None,
        }
    }
}

/// The source of one rate limiter's slices.
#[derive(Clone)]
pub(super) struct LeaseSource {
    shares: Arc<dyn SharedQuota>,
    budget: SharedBudget,
    order: SliceOrder,
    clock: Clock,
}

impl LeaseSource {
    /// `longest_call` is how long after sending a request may still arrive.
    pub(super) fn new(
        shares: Arc<dyn SharedQuota>,
        budget: SharedBudget,
        longest_call: Duration,
        is_newly_linked: bool,
        clock: Clock,
    ) -> Self {
        Self {
            order: SliceOrder {
                most: budget.quota.steady(100).get().div_ceil(60),
                usable_for: USABLE_FOR,
                longest_call,
                is_newly_linked,
            },
            shares,
            budget,
            clock,
        }
    }

    async fn take(&self) -> Result<SliceOutcome, SharedQuotaError> {
        let asked_at = self.clock.monotonic();
        let answer = self.shares.take(&self.budget, &self.order).await?;
        let now = self.clock.monotonic();
        let slice = match answer {
            SliceAnswer::Wait(wait) => return Ok(SliceOutcome::NotBefore(now + wait)),
            SliceAnswer::Granted(slice) => slice,
        };
        let in_use = Arc::new(SliceUsage {
            source: self.clone(),
            runtime: Handle::current(),
            slice,
            tally: Mutex::default(),
        });
        let usable_until = asked_at + USABLE_FOR;
        if now > usable_until {
            // The slice arrived too late. Dropping `in_use` returns it, and the next may be
            // requested.
            return Ok(SliceOutcome::NotBefore(now));
        }
        Ok(SliceOutcome::Slice(LeasedSlice {
            in_use,
            left: slice.permits,
            usable_until,
        }))
    }
}

enum SliceOutcome {
    Slice(LeasedSlice),
    NotBefore(Duration),
}

/// A rate limiter's lease of a shared budget.
pub(super) struct QuotaLease {
    source: LeaseSource,
    slice: Option<LeasedSlice>,
    is_asking: bool,
    not_before: Duration,
}

/// The slice in use.
struct LeasedSlice {
    in_use: Arc<SliceUsage>,
    left: u32,
    usable_until: Duration,
}

/// The reply to a request for a permit.
pub(super) enum LeaseState {
    Permit(SlicePermit),
    In(Duration),
    /// The caller must request the next slice and pass the reply to [`QuotaLease::receive`].
    Ask(SliceRequest),
    /// The next slice has been requested.
    Asked,
}

impl QuotaLease {
    pub(super) fn new(source: LeaseSource) -> Self {
        Self {
            source,
            slice: None,
            is_asking: false,
            not_before: Duration::ZERO,
        }
    }

    pub(super) fn draw(&mut self, now: Duration) -> LeaseState {
        self.release_expired(now);
        if let Some(in_hand) = &mut self.slice {
            in_hand.left -= 1;
            in_hand.in_use.tally().used += 1;
            let share = SlicePermit {
                in_use: Arc::clone(&in_hand.in_use),
                sent_at: now,
            };
            if in_hand.left == 0 {
                self.slice = None;
            }
            return LeaseState::Permit(share);
        }
        if now < self.not_before {
            return LeaseState::In(self.not_before - now);
        }
        if self.is_asking {
            return LeaseState::Asked;
        }
        self.is_asking = true;
        LeaseState::Ask(SliceRequest(self.source.clone()))
    }

    /// Stores the requested slice. An error applies to every waiting call.
    pub(super) fn receive(&mut self, answer: SliceReply) -> Result<(), SharedQuotaError> {
        self.is_asking = false;
        match answer.0? {
            SliceOutcome::Slice(slice) => self.slice = Some(slice),
            SliceOutcome::NotBefore(then) => self.not_before = then,
        }
        Ok(())
    }

    /// Returns the rest of the slice.
    pub(super) fn release(&mut self) {
        self.slice = None;
    }

    /// Returns the slice if it has expired.
    pub(super) fn release_expired(&mut self, now: Duration) {
        self.slice.take_if(|in_hand| now > in_hand.usable_until);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slice.is_none() && !self.is_asking
    }
}

/// A request for the next slice.
pub(super) struct SliceRequest(LeaseSource);

/// The reply to a [`SliceRequest`].
pub(super) struct SliceReply(Result<SliceOutcome, SharedQuotaError>);

impl SliceRequest {
    pub(super) async fn answer(self) -> SliceReply {
        SliceReply(self.0.take().await)
    }
}

impl SliceReply {
    /// The reply of a task that ended early.
    pub(super) fn none() -> Self {
        Self(Err(SharedQuotaError::new("the question was given up")))
    }
}

/// A slice in use, owned by the lease and by its permits. Dropping the last owner settles it.
struct SliceUsage {
    source: LeaseSource,
    runtime: Handle,
    slice: Slice,
    tally: Mutex<SliceCounts>,
}

#[derive(Default)]
struct SliceCounts {
    used: u32,
    /// The time by which every unanswered request has arrived.
    arriving_until: Duration,
    is_answered: bool,
}

impl SliceUsage {
    fn tally(&self) -> MutexGuard<'_, SliceCounts> {
        self.tally
            .lock()
            .expect("nothing panics while it holds a tally")
    }
}

impl Drop for SliceUsage {
    fn drop(&mut self) {
        let source = self.source.clone();
        let settlement = {
            let tally = self.tally();
            Settlement {
                number: self.slice.number,
                used: tally.used,
                unused: self.slice.permits - tally.used,
                arriving_for: tally
                    .arriving_until
                    .saturating_sub(source.clock.monotonic()),
                is_answered: tally.is_answered,
            }
        };
        self.runtime.spawn(async move {
            // After a failure, the store itself writes the slice off later.
            if let Err(error) = source.shares.settle(&source.budget, &settlement).await {
                tracing::debug!(%error, "a slice of a budget could not be settled");
            }
        });
    }
}

/// One permit of a slice.
pub(super) struct SlicePermit {
    in_use: Arc<SliceUsage>,
    sent_at: Duration,
}

impl SlicePermit {
    pub(super) fn unsent(self) {
        self.in_use.tally().used -= 1;
    }

    pub(super) fn answered(self) {
        self.in_use.tally().is_answered = true;
    }

    /// The request may still arrive.
    pub(super) fn unanswered(self) {
        let arrives_by = self.sent_at + self.in_use.source.order.longest_call;
        let mut tally = self.in_use.tally();
        tally.arriving_until = tally.arriving_until.max(arrives_by);
    }

    /// Reports a pause until `until` to the store, with retries until it ends.
    ///
    /// The permit lives until then, so the slice is not settled before: otherwise the end of a
    /// probe would be taken for the end of the pause.
    pub(super) fn throttled(self, until: Duration, halves: bool) {
        let runtime = self.in_use.runtime.clone();
        runtime.spawn(async move {
            let LeaseSource {
                shares,
                budget,
                clock,
                ..
            } = &self.in_use.source;
            loop {
                let now = clock.monotonic();
                let throttling = Throttling {
                    wait: until.saturating_sub(now),
                    halves_if_sent_ago: halves.then(|| now.saturating_sub(self.sent_at)),
                };
                match shares.pause(budget, &throttling).await {
                    Ok(()) => break,
                    Err(_) if now >= until => break,
                    Err(error) => {
                        tracing::debug!(%error, "a pause could not be told");
                        clock.sleep(REPORT_RETRY_INTERVAL).await;
                    }
                }
            }
        });
    }
}

impl fmt::Debug for SlicePermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Share").field(&self.in_use.slice).finish()
    }
}
