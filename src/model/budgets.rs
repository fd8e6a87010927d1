//! What may be asked of a provider with one access token, in the words that the processes which
//! share a token's budget speak to their store in: plain types and figures.

use std::{fmt, num::NonZeroU32, time::Duration};

/// What providers count requests over.
pub const WINDOW: Duration = Duration::from_secs(60);

/// How much of the rate comes back with each minute after it was halved, and what is always
/// left of it, in percent.
const RECOVERY_PERCENT: u32 = 10;
const LEAST_PERCENT: u32 = 5;

/// Names the budget of one token at one provider: a digest of a digest of the token. It opens
/// nothing, and nobody gets from it to the token.
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

/// What a provider allows one token: so many requests within any [`WINDOW`]. Nine tenths of them
/// are spread evenly and one tenth may go at once, which together can never pass it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota(NonZeroU32);

impl Quota {
    pub const fn new(limit: NonZeroU32) -> Self {
        Self(limit)
    }

    pub const fn limit(self) -> u32 {
        self.0.get()
    }

    /// Requests a minute, while `percent` of the full rate is in force.
    pub fn steady(self, percent: u32) -> NonZeroU32 {
        part(self.full_steady(), percent)
    }

    /// Requests that may go at once, while `percent` of the full rate is in force.
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

/// What is left of a rate when the provider has refused a request without saying for how long.
pub fn halved(percent: u32) -> u32 {
    (percent / 2).max(LEAST_PERCENT)
}

/// What a rate that was cut to `percent` has come back to after `rested`.
pub fn recovered(percent: u32, rested: Duration) -> u32 {
    let regained = u32::try_from(rested.as_secs() / 60)
        .unwrap_or(u32::MAX)
        .saturating_mul(RECOVERY_PERCENT);
    percent.saturating_add(regained).min(100)
}

/// A budget that processes share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedBudget {
    pub name: BudgetName,
    pub quota: Quota,
}

/// A process asks for a slice of a shared budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SliceOrder {
    /// How many permits at most.
    pub most: u32,
    /// From before it asks until then the process gives permits of the slice out.
    pub usable_for: Duration,
    /// By then a request that was sent has arrived, or never will.
    pub longest_call: Duration,
    /// Whether nobody has used this token before, so that its whole burst is there.
    pub is_newly_linked: bool,
}

/// What it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SliceAnswer {
    Granted(Slice),
    /// Nothing now; to be asked again after this time.
    Wait(Duration),
}

/// A part of a token's budget: permits to send so many requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slice {
    /// Which of its budget's slices this is.
    pub number: u64,
    pub permits: u32,
    /// Whether this is the one request that goes first after a pause.
    pub is_probe: bool,
}

/// What became of a slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settlement {
    pub number: u64,
    pub used: u32,
    pub unused: u32,
    /// For how long one of its requests may still arrive; nothing if all were answered.
    pub arriving_for: Duration,
    /// Whether the provider answered a request of it, and did not say to wait.
    pub is_answered: bool,
}

/// The provider said to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Throttling {
    pub wait: Duration,
    /// How long ago the request was sent, if its answer halves the rate.
    pub halves_if_sent_ago: Option<Duration>,
}
