//! Request budgets of access tokens, as replicas share them through the store.
//!
//! A provider limits the requests of one token per [`WINDOW`]. A [`Quota`] is that limit. Replicas
//! that use the same token lease a [`Slice`] of its [`SharedBudget`] at a time and report its usage
//! in a [`Settlement`]. The rate limiter is `outbound::token_limiter`, the shared ledger is
//! `store::budgets`.

use std::{fmt, num::NonZeroU32, time::Duration};

/// The period over which providers count requests.
pub const WINDOW: Duration = Duration::from_secs(60);

/// Percentage points of the full rate that return with each minute after a halving, and the
/// percentage that always remains.
const RECOVERY_PERCENT: u32 = 10;
const LEAST_PERCENT: u32 = 5;

/// Identifies the budget of one token at one provider: a digest of the token's digest. The token
/// cannot be derived from it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct BudgetName([u8; 32]);

impl BudgetName {
    pub const fn new(digest: [u8; 32]) -> Self {
        Self(digest)
    }

    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for BudgetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BudgetName(…)")
    }
}

/// A provider's limit for one token: the number of requests within any [`WINDOW`]. Nine tenths are
/// spread evenly and one tenth is the burst, so together they never exceed the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota(NonZeroU32);

impl Quota {
    pub const fn new(limit: NonZeroU32) -> Self {
        Self(limit)
    }

    pub const fn limit(self) -> u32 {
        self.0.get()
    }

    /// Requests a minute at `percent` of the full rate.
    pub fn steady(self, percent: u32) -> NonZeroU32 {
        part(self.full_steady(), percent)
    }

    /// Requests that may be sent at once, at `percent` of the full rate.
    pub fn burst(self, percent: u32) -> NonZeroU32 {
        part(self.limit() - self.full_steady(), percent)
    }

    fn full_steady(self) -> u32 {
        let steady = (u64::from(self.limit()) * 9 / 10).max(1);
        u32::try_from(steady).expect("nine tenths of a u32 are a u32")
    }
}

fn part(requests: u32, percent: u32) -> NonZeroU32 {
    let scaled = u64::from(requests) * u64::from(percent) / 100;
    u32::try_from(scaled)
        .ok()
        .and_then(NonZeroU32::new)
        .unwrap_or(NonZeroU32::MIN)
}

/// The percentage after the provider refused a request without a `Retry-After`.
pub fn halved(percent: u32) -> u32 {
    (percent / 2).max(LEAST_PERCENT)
}

/// The percentage after a rate of `percent` has recovered for `rested`.
pub fn recovered(percent: u32, rested: Duration) -> u32 {
    let regained = u32::try_from(rested.as_secs() / 60)
        .unwrap_or(u32::MAX)
        .saturating_mul(RECOVERY_PERCENT);
    percent.saturating_add(regained).min(100)
}

/// A budget that replicas share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedBudget {
    pub name: BudgetName,
    pub quota: Quota,
}

/// A replica's request for a slice of a shared budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SliceOrder {
    /// The maximum number of permits.
    pub most: u32,
    /// How long the replica uses the slice, counted from before it sends this request.
    pub usable_for: Duration,
    /// The time after sending by which a request has arrived, or never will.
    pub longest_call: Duration,
    /// Whether the token is unused, so that its whole burst is available.
    pub is_newly_linked: bool,
}

/// The reply to a [`SliceOrder`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SliceAnswer {
    Granted(Slice),
    /// No permit is available now; retry after this time.
    Wait(Duration),
}

/// A part of a token's budget: permits to send this many requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slice {
    /// The slice's number within its budget.
    pub number: u64,
    pub permits: u32,
    /// Whether this is the probe: the one request that is sent first after a pause.
    pub is_probe: bool,
}

/// The usage of a slice, reported when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settlement {
    pub number: u64,
    pub used: u32,
    pub unused: u32,
    /// How long one of its requests may still be in flight; zero if all were answered.
    pub arriving_for: Duration,
    /// Whether the provider answered one of its requests without asking to wait.
    pub is_answered: bool,
}

/// The provider asked to wait: a rate limit, or an outage with a `Retry-After`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Throttling {
    pub wait: Duration,
    /// How long ago the refused request was sent; None if the rate is not to be halved.
    pub halves_if_sent_ago: Option<Duration>,
}
