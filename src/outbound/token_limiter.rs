//! The rate limiter of one access token.
//!
//! Providers count requests per access token, so two accounts that were linked with one token share
//! a limiter. Calls wait in its queue, interactive before background, and only the head of the
//! queue is considered. Three limits apply:
//!
//! * **The rate**: nine tenths of the limit spread evenly, one tenth as burst (GCRA, by
//!   `governor`), which together never exceed the limit within a minute. A limiter starts as if its
//!   token had been in full use before this process began, because the last requests of an earlier
//!   process are unknown.
//! * **The window**: the rate applies when requests are sent, but the provider counts them when
//!   they arrive, and a slow network can deliver many at once. Therefore the requests in flight and
//!   those answered within the last minute together never exceed the limit. A request arrives
//!   between its sending and its answer, so this covers every arrival time.
//! * **A pause**: the provider asked to wait. No call is sent until the pause is over. Then one
//!   call is sent as a probe, and the others follow once it is answered.
//!
//! This describes a process that is the only user of the token. If processes share it, the store
//! holds the rate, the window and the probe, and the limiter leases slices of that quota
//! (`quota_lease`); the queue stays local.
//!
//! All times come from [`Clock::monotonic`], so that a step of the system clock does not shorten a
//! wait.

use std::{
    collections::{BTreeMap, VecDeque},
    num::NonZeroU32,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use governor::{
    RateLimiter, clock::Clock as Ticker, middleware::NoOpMiddleware, state::InMemoryState,
    state::NotKeyed,
};
use tokio::sync::Notify;

use super::{
    Priority,
    quota_lease::{
        LeaseSource, LeaseState, QuotaLease, SharedQuotaError, SlicePermit, SliceReply,
        SliceRequest,
    },
};
use crate::{
    clock::Clock,
    model::budgets::{Quota, WINDOW, halved, recovered},
};

/// The longest pause; a longer wait is cut to it.
const LONGEST_PAUSE: Duration = Duration::from_secs(15 * 60);

/// The shortest pause: a `Retry-After` of 0 after a refusal is useless.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);

/// The pause after a rate limit without a `Retry-After`.
const DEFAULT_PAUSE: Duration = Duration::from_secs(60);

pub(super) struct TokenLimiter {
    clock: Clock,
    state: Mutex<LimiterState>,
}

struct LimiterState {
    /// None if the operator set no limit; pauses apply even then.
    budget: Option<Budget>,
    pause: Option<Pause>,
    queue: BTreeMap<QueueKey, Arc<Notify>>,
    next_place: u64,
    /// Rejects the queue entries with a number below this one, with this error.
    rejected_before: Option<(u64, SharedQuotaError)>,
    /// When the rate was last halved. A refusal of an earlier request does not halve it again.
    halved_at: Option<Duration>,
    last_used_at: Duration,
}

/// The position in the queue: by priority, then by arrival.
type QueueKey = (Priority, u64);

struct Pause {
    until: Duration,
    /// Whether the probe is in flight.
    is_probed: bool,
}

/// The answer to a queued call.
enum Admission {
    Go {
        is_probe: bool,
        share: Option<SlicePermit>,
    },
    /// After this wait, at the earliest.
    In(Duration),
    /// After a change of the queue or a response, at the earliest.
    Behind,
    /// Like [`Admission::Behind`], and the caller must request a slice.
    Ask(SliceRequest),
    Refused(SharedQuotaError),
}

/// Why a call is not admitted.
#[derive(Debug, Clone)]
pub(super) enum Rejected {
    /// The call would have to wait this long, which exceeds its deadline.
    In(Duration),
    /// The wait is unknown.
    Unknown(SharedQuotaError),
}

/// The provider's `Retry-After`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RetryAfter {
    After(Duration),
    /// It is neither a number nor a date.
    Unreadable,
    Unsaid,
}

impl RetryAfter {
    /// How long to pause.
    pub(super) fn pause(self) -> Duration {
        match self {
            Self::After(wait) => wait.clamp(SHORTEST_PAUSE, LONGEST_PAUSE),
            Self::Unreadable => LONGEST_PAUSE,
            Self::Unsaid => DEFAULT_PAUSE,
        }
    }
}

impl TokenLimiter {
    /// A limiter for `limit` requests a minute. `rested` is how long the token has certainly been
    /// unused; None if it was never used.
    pub(super) fn new(clock: Clock, limit: Option<NonZeroU32>, rested: Option<Duration>) -> Self {
        let budget = limit.map(|limit| {
            let window = Window::new(clock.clone(), Quota::new(limit), rested);
            Budget::Own(window)
        });
        Self::with(clock, budget)
    }

    /// A limiter whose budget is shared with other processes.
    pub(super) fn sharing(clock: Clock, source: LeaseSource) -> Self {
        Self::with(clock, Some(Budget::Shared(QuotaLease::new(source))))
    }

    fn with(clock: Clock, budget: Option<Budget>) -> Self {
        Self {
            state: Mutex::new(LimiterState {
                budget,
                pause: None,
                queue: BTreeMap::new(),
                next_place: 0,
                rejected_before: None,
                halved_at: None,
                last_used_at: clock.monotonic(),
            }),
            clock,
        }
    }

    /// Waits for a permit to send. Fails as soon as it is known that none will come, or none within
    /// `patience`.
    pub(super) async fn enter(
        self: &Arc<Self>,
        priority: Priority,
        patience: Option<Duration>,
    ) -> Result<Permit, Rejected> {
        let deadline = patience.map(|patience| self.clock.monotonic() + patience);
        let ticket = QueueEntry::draw(self, priority);
        loop {
            let now = self.clock.monotonic();
            let turn = self.state().turn(ticket.place, now);
            match turn {
                Admission::Go { is_probe, share } => {
                    return Ok(Permit {
                        limiter: Arc::clone(self),
                        sent_at: now,
                        is_probe,
                        share,
                        is_settled: false,
                    });
                }
                Admission::In(wait) if deadline.is_some_and(|deadline| now + wait > deadline) => {
                    return Err(Rejected::In(wait));
                }
                Admission::Refused(error) => return Err(Rejected::Unknown(error)),
                Admission::In(wait) => tokio::select! {
                    biased;
                    () = ticket.waker.notified() => {}
                    () = self.clock.sleep(wait) => {}
                },
                Admission::Behind => ticket.waker.notified().await,
                Admission::Ask(asking) => {
                    self.ask(asking);
                    ticket.waker.notified().await;
                }
            }
        }
    }

    /// Requests a slice in a spawned task: the call that needs it may be canceled.
    fn ask(self: &Arc<Self>, asking: SliceRequest) {
        let asked = PendingSlice {
            limiter: Arc::clone(self),
            answer: None,
        };
        tokio::spawn(async move { asked.is(asking.answer().await) });
    }

    /// Returns an expired slice to the store, for other processes.
    pub(super) fn release_expired(&self) {
        let now = self.clock.monotonic();
        if let Some(Budget::Shared(hand)) = &mut self.state().budget {
            hand.release_expired(now);
        }
    }

    /// Whether the limiter has no state that a new one would lack.
    pub(super) fn is_idle(&self) -> bool {
        let now = self.clock.monotonic();
        let state = self.state();
        let is_free = match &state.budget {
            None => true,
            Some(Budget::Own(window)) => window.in_flight == 0 && window.percent_at(now) == 100,
            Some(Budget::Shared(hand)) => hand.is_empty(),
        };
        let is_paused = state.pause.as_ref().is_some_and(|pause| now < pause.until);
        state.queue.is_empty()
            && is_free
            && !is_paused
            && now.saturating_sub(state.last_used_at) > WINDOW
    }

    fn state(&self) -> MutexGuard<'_, LimiterState> {
        self.state
            .lock()
            .expect("nothing panics while it holds a limiter")
    }
}

impl LimiterState {
    fn turn(&mut self, place: QueueKey, now: Duration) -> Admission {
        if let Some((before, error)) = &self.rejected_before
            && place.1 < *before
        {
            return Admission::Refused(error.clone());
        }
        if self.queue.keys().next() != Some(&place) {
            return Admission::Behind;
        }
        if let Some(pause) = &self.pause {
            if now < pause.until {
                return Admission::In(pause.until - now);
            }
            if pause.is_probed {
                return Admission::Behind;
            }
        }
        match &mut self.budget {
            None => {}
            Some(Budget::Own(window)) => match window.take(now) {
                Admission::Go { .. } => {}
                wait => return wait,
            },
            Some(Budget::Shared(hand)) => {
                // The store chooses the probe, among all processes.
                self.pause = None;
                let share = match hand.draw(now) {
                    LeaseState::Permit(share) => Some(share),
                    LeaseState::In(wait) => return Admission::In(wait),
                    LeaseState::Ask(asking) => return Admission::Ask(asking),
                    LeaseState::Asked => return Admission::Behind,
                };
                self.last_used_at = now;
                return Admission::Go {
                    is_probe: false,
                    share,
                };
            }
        }
        self.last_used_at = now;
        let is_probe = match &mut self.pause {
            Some(pause) => {
                pause.is_probed = true;
                true
            }
            None => false,
        };
        Admission::Go {
            is_probe,
            share: None,
        }
    }

    /// Stores a requested slice. On an error, every queued call is rejected.
    fn receive(&mut self, answer: SliceReply) {
        let Some(Budget::Shared(hand)) = &mut self.budget else {
            return;
        };
        match hand.receive(answer) {
            Ok(()) => self.wake_head(),
            Err(error) => {
                self.rejected_before = Some((self.next_place, error));
                self.queue.values().for_each(|waker| waker.notify_one());
            }
        }
    }

    fn wake_head(&self) {
        if let Some(waker) = self.queue.values().next() {
            waker.notify_one();
        }
    }

    fn settle(&mut self, permit: &mut Permit, ending: RequestOutcome, now: Duration) {
        if let Some(Budget::Own(window)) = &mut self.budget {
            window.in_flight -= 1;
            if ending != RequestOutcome::Unsent {
                window.answered_at.push_back(now);
            }
        }
        self.last_used_at = now;
        match ending {
            RequestOutcome::Answered if permit.is_probe => self.pause = None,
            RequestOutcome::Unsent | RequestOutcome::Unanswered if permit.is_probe => {
                if let Some(pause) = &mut self.pause {
                    pause.is_probed = false;
                }
            }
            RequestOutcome::ToldToWait(retry_after_header) => {
                self.pause(permit, retry_after_header, now)
            }
            RequestOutcome::Answered | RequestOutcome::Unsent | RequestOutcome::Unanswered => {}
        }
        if let Some(share) = permit.share.take() {
            match ending {
                RequestOutcome::Unsent => share.unsent(),
                RequestOutcome::Answered => share.answered(),
                RequestOutcome::Unanswered => share.unanswered(),
                RequestOutcome::ToldToWait(retry_after_header) => {
                    let halves = retry_after_header == RetryAfter::Unsaid;
                    share.throttled(now + retry_after_header.pause(), halves);
                }
            }
        }
        self.wake_head();
    }

    fn pause(&mut self, permit: &Permit, retry_after_header: RetryAfter, now: Duration) {
        let until = now + retry_after_header.pause();
        let pause = self.pause.get_or_insert(Pause {
            until,
            is_probed: false,
        });
        pause.until = pause.until.max(until);
        // The probe was refused, so another one is needed after the pause.
        if permit.is_probe {
            pause.is_probed = false;
        }
        // Calls that were in flight together are refused together: they halve the rate once.
        let is_news = self.halved_at.is_none_or(|then| permit.sent_at > then);
        let resumes_at = pause.until;
        match &mut self.budget {
            Some(Budget::Own(window)) if retry_after_header == RetryAfter::Unsaid && is_news => {
                self.halved_at = Some(now);
                window.halve(now, resumes_at);
            }
            // The rest of the slice must not be used during the pause.
            Some(Budget::Shared(hand)) => hand.release(),
            _ => {}
        }
    }
}

/// The limits besides pauses.
enum Budget {
    /// No other process uses the token.
    Own(Window),
    Shared(QuotaLease),
}

/// The rate and the window of an unshared token.
struct Window {
    clock: Clock,
    quota: Quota,
    rate: GovernorRate,
    /// The percentage of the full rate that `rate` has.
    percent: u32,
    /// The percentage after the last halving, and when its recovery starts.
    halved_to: u32,
    recovers_from: Duration,
    in_flight: u32,
    answered_at: VecDeque<Duration>,
}

type GovernorRate = RateLimiter<NotKeyed, InMemoryState, LimiterClock, NoOpMiddleware<Duration>>;

impl Window {
    fn new(clock: Clock, quota: Quota, rested: Option<Duration>) -> Self {
        Self {
            rate: rate(&clock, quota, 100, rested),
            percent: 100,
            halved_to: 100,
            recovers_from: Duration::ZERO,
            in_flight: 0,
            answered_at: VecDeque::new(),
            clock,
            quota,
        }
    }

    /// Takes one request from the budget, or returns how long to wait for one.
    fn take(&mut self, now: Duration) -> Admission {
        let percent = self.percent_at(now);
        if percent != self.percent {
            self.percent = percent;
            // A new rate starts without burst; otherwise each step would grant another one.
            self.rate = rate(&self.clock, self.quota, percent, Some(Duration::ZERO));
        }
        while let Some(&oldest) = self.answered_at.front() {
            if now <= oldest + WINDOW {
                break;
            }
            self.answered_at.pop_front();
        }
        if u64::from(self.in_flight) + self.answered_at.len() as u64 >= self.quota.limit().into() {
            return match self.answered_at.front() {
                // The end of the window still counts, hence the extra millisecond.
                Some(&oldest) => Admission::In(oldest + WINDOW + Duration::from_millis(1) - now),
                // All are in flight, so only a response can make room.
                None => Admission::Behind,
            };
        }
        match self.rate.check() {
            Ok(()) => {
                self.in_flight += 1;
                Admission::Go {
                    is_probe: false,
                    share: None,
                }
            }
            // Rounded up to the next millisecond, so that a clock of that resolution needs one wait
            // only.
            Err(not_until) => {
                Admission::In(not_until.wait_time_from(now) + Duration::from_nanos(999_999))
            }
        }
    }

    fn percent_at(&self, now: Duration) -> u32 {
        recovered(self.halved_to, now.saturating_sub(self.recovers_from))
    }

    fn halve(&mut self, now: Duration, resumes_at: Duration) {
        self.halved_to = halved(self.percent_at(now));
        self.recovers_from = resumes_at;
    }
}

/// A GCRA limiter for `percent` of `quota`, in the state of a fully used token after `rested`.
fn rate(clock: &Clock, quota: Quota, percent: u32, rested: Option<Duration>) -> GovernorRate {
    let burst = quota.burst(percent);
    let quota = governor::Quota::per_minute(quota.steady(percent)).allow_burst(burst);
    let limiter = RateLimiter::direct_with_clock(quota, LimiterClock(clock.clone()));
    if let Some(rested) = rested {
        let refilled = rested.as_nanos() / quota.replenish_interval().as_nanos().max(1);
        let refilled = u32::try_from(refilled).unwrap_or(u32::MAX);
        if let Some(spent) = NonZeroU32::new(burst.get().saturating_sub(refilled)) {
            let taken = limiter.check_n(spent);
            debug_assert!(
                matches!(taken, Ok(Ok(()))),
                "a new limiter has its whole burst"
            );
        }
    }
    limiter
}

/// Adapts [`Clock`] to governor's clock trait.
#[derive(Debug, Clone)]
struct LimiterClock(Clock);

impl Ticker for LimiterClock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.monotonic()
    }
}

/// A queue entry, removed on drop: once the call is admitted, or canceled.
struct QueueEntry<'a> {
    limiter: &'a TokenLimiter,
    place: QueueKey,
    waker: Arc<Notify>,
}

impl<'a> QueueEntry<'a> {
    fn draw(limiter: &'a TokenLimiter, priority: Priority) -> Self {
        let mut state = limiter.state();
        let place = (priority, state.next_place);
        state.next_place += 1;
        let waker = Arc::new(Notify::new());
        state.queue.insert(place, Arc::clone(&waker));
        Self {
            limiter,
            place,
            waker,
        }
    }
}

impl Drop for QueueEntry<'_> {
    fn drop(&mut self) {
        let mut state = self.limiter.state();
        state.queue.remove(&self.place);
        state.wake_head();
    }
}

/// A requested slice. Its drop delivers the reply, so the limiter gets one however the task ends.
struct PendingSlice {
    limiter: Arc<TokenLimiter>,
    answer: Option<SliceReply>,
}

impl PendingSlice {
    fn is(mut self, answer: SliceReply) {
        self.answer = Some(answer);
    }
}

impl Drop for PendingSlice {
    fn drop(&mut self) {
        let answer = self.answer.take().unwrap_or_else(SliceReply::none);
        self.limiter.state().receive(answer);
    }
}

/// A permit to send one request. Its holder reports the outcome; a permit that is dropped without
/// one counts as sent and unanswered.
pub(super) struct Permit {
    limiter: Arc<TokenLimiter>,
    sent_at: Duration,
    is_probe: bool,
    /// Set if the budget is shared.
    share: Option<SlicePermit>,
    is_settled: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RequestOutcome {
    Unsent,
    Answered,
    Unanswered,
    ToldToWait(RetryAfter),
}

impl Permit {
    /// The request was not sent.
    pub(super) fn unsent(self) {
        self.settle(RequestOutcome::Unsent);
    }

    /// The provider responded, and did not ask to wait.
    pub(super) fn answered(self) {
        self.settle(RequestOutcome::Answered);
    }

    /// There was no response.
    pub(super) fn unanswered(self) {
        self.settle(RequestOutcome::Unanswered);
    }

    /// The provider asked to wait: all calls of the limiter pause.
    pub(super) fn throttled(self, retry_after_header: RetryAfter) {
        self.settle(RequestOutcome::ToldToWait(retry_after_header));
    }

    fn settle(mut self, ending: RequestOutcome) {
        self.end(ending);
    }

    fn end(&mut self, ending: RequestOutcome) {
        self.is_settled = true;
        let limiter = Arc::clone(&self.limiter);
        let now = limiter.clock.monotonic();
        limiter.state().settle(self, ending, now);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.is_settled {
            self.end(RequestOutcome::Unanswered);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;
    use proptest::prelude::*;

    use super::*;

    /// Sends requests with these times, in milliseconds, to the provider and back, `at_once` in
    /// parallel. Returns when each arrived.
    async fn arrivals(
        limit: u32,
        rested: Option<Duration>,
        at_once: usize,
        journeys: &[(u64, u64)],
    ) -> Vec<Duration> {
        let clock = Clock::system();
        let limit = NonZeroU32::new(limit);
        let limiter = Arc::new(TokenLimiter::new(clock.clone(), limit, rested));
        let arrived = Mutex::new(Vec::new());
        let (limiter, clock, noted) = (&limiter, &clock, &arrived);
        let senders = journeys.chunks(journeys.len().div_ceil(at_once));
        join_all(senders.map(|journeys| async move {
            for &(there, back) in journeys {
                let permit = limiter.enter(Priority::Background, None).await.unwrap();
                clock.sleep(Duration::from_millis(there)).await;
                noted.lock().unwrap().push(clock.monotonic());
                clock.sleep(Duration::from_millis(back)).await;
                match back % 3 {
                    0 => drop(permit),
                    _ => permit.answered(),
                }
            }
        }))
        .await;
        arrived.into_inner().unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn however_long_requests_travel_no_minute_holds_more_than_the_limit(
            limit in 1..40_u32,
            is_new: bool,
            at_once in 1..60_usize,
            journeys in prop::collection::vec((0..30_000_u64, 0..5_000_u64), 1..150),
        ) {
            let rested = (!is_new).then_some(Duration::ZERO);
            // The paused clock advances to the next timer only when no task can run, so requests
            // overlap and the test is fast.
            let arrived = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build()
                .unwrap()
                .block_on(arrivals(limit, rested, at_once, &journeys));
            prop_assert_eq!(arrived.len(), journeys.len());
            for (first, &from) in arrived.iter().enumerate() {
                let within = arrived[first..].iter().filter(|&&at| at <= from + WINDOW);
                prop_assert!(within.count() <= limit as usize);
            }
        }
    }
}
