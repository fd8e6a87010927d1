//! A token's budget where several processes call with one token: each takes [slices](Slice) of
//! it through [`SharedQuota`], sends what they allow, and settles them.
//!
//! A slice is about a second's worth of requests, for about a second. So a pause that another
//! process was told of is kept by this one within a second, since no slice is given then; and
//! with a process that is killed, little is lost until its slices are written off. How much a
//! slice allows, and for how long it counts, is for the store to say; here it is seen to that no
//! request is sent without a permit, or with one that is too old.
//!
//! The time that a slice may be used for runs from before it was asked for, by the clock that
//! never steps back: so it ends here no later than the store believes.

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

/// How long the permits of a slice are given out: with the time that the telling takes, a pause
/// is kept by everybody within a second.
const USABLE_FOR: Duration = Duration::from_millis(900);

/// How long to wait before a pause that could not be told is told again.
const TELL_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Budgets that processes share. Whatever is asked here is asked by tasks of their own, which
/// nobody's leaving ends early.
#[async_trait]
pub trait SharedQuota: Send + Sync {
    /// Takes a slice, or learns when to ask again.
    async fn take(
        &self,
        budget: &SharedBudget,
        order: &SliceOrder,
    ) -> Result<SliceAnswer, SharedQuotaError>;

    /// Tells what became of a slice. A slice of which nothing is told counts in full, for as long
    /// as it can matter.
    async fn settle(
        &self,
        budget: &SharedBudget,
        settlement: &Settlement,
    ) -> Result<(), SharedQuotaError>;

    /// Tells that the provider said to wait.
    async fn pause(
        &self,
        budget: &SharedBudget,
        throttling: &Throttling,
    ) -> Result<(), SharedQuotaError>;
}

/// A shared budget could not be asked: nothing may be sent.
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

/// Where the slices of one lane come from.
#[derive(Clone)]
pub(super) struct LeaseSource {
    shares: Arc<dyn SharedQuota>,
    budget: SharedBudget,
    order: SliceOrder,
    clock: Clock,
}

impl LeaseSource {
    /// `longest_call` is how long after it was sent a request may still arrive.
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
            // It goes back with this, and the next one may be asked for.
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

/// A lane's part of a shared budget.
pub(super) struct QuotaLease {
    source: LeaseSource,
    slice: Option<LeasedSlice>,
    is_asking: bool,
    not_before: Duration,
}

/// A slice of which permits can be had.
struct LeasedSlice {
    in_use: Arc<SliceUsage>,
    left: u32,
    usable_until: Duration,
}

/// What a hand says to whoever wants a permit.
pub(super) enum LeaseState {
    Permit(SlicePermit),
    In(Duration),
    /// The next slice is to be asked for, and to be [taken into the hand](Hand::receive).
    Ask(SliceRequest),
    /// It has been asked for.
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
        self.put_back_late(now);
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

    /// Takes what was asked for; the error is for all who wait for it.
    pub(super) fn receive(&mut self, answer: SliceReply) -> Result<(), SharedQuotaError> {
        self.is_asking = false;
        match answer.0? {
            SliceOutcome::Slice(slice) => self.slice = Some(slice),
            SliceOutcome::NotBefore(then) => self.not_before = then,
        }
        Ok(())
    }

    /// Gives back what is left in hand.
    pub(super) fn put_back(&mut self) {
        self.slice = None;
    }

    /// Gives back what may no longer be used.
    pub(super) fn put_back_late(&mut self, now: Duration) {
        self.slice.take_if(|in_hand| now > in_hand.usable_until);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slice.is_none() && !self.is_asking
    }
}

/// The question for the next slice.
pub(super) struct SliceRequest(LeaseSource);

/// What came of it.
pub(super) struct SliceReply(Result<SliceOutcome, SharedQuotaError>);

impl SliceRequest {
    pub(super) async fn answer(self) -> SliceReply {
        SliceReply(self.0.take().await)
    }
}

impl SliceReply {
    /// Of a task that ended before there was one.
    pub(super) fn none() -> Self {
        Self(Err(SharedQuotaError::new("the question was given up")))
    }
}

/// A slice in use, by a hand and by permits. When the last of them is done with it, it is
/// settled.
struct SliceUsage {
    source: LeaseSource,
    runtime: Handle,
    slice: Slice,
    tally: Mutex<SliceCounts>,
}

#[derive(Default)]
struct SliceCounts {
    used: u32,
    /// When every request that was not answered has arrived.
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
            // If this fails the slice is written off in time, by the store itself.
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

    /// It may still arrive.
    pub(super) fn unanswered(self) {
        let arrives_by = self.sent_at + self.in_use.source.order.longest_call;
        let mut tally = self.in_use.tally();
        tally.arriving_until = tally.arriving_until.max(arrives_by);
    }

    /// Tells the others of a pause until then. The slice is not settled before that, so that
    /// nobody takes a probe's end for the end of the pause.
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
                        clock.sleep(TELL_AGAIN_AFTER).await;
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
