//! Request quotas of an API key, a project and a connect session. A quota allows a burst of `n`
//! requests and refills at `n` per minute.
//!
//! Quotas keep one project from slowing down the others. Each process counts for itself: a shared
//! count would need the store for every request. A full quota is forgotten, so memory holds only
//! the keys of the last minute.

use std::{hash::Hash, num::NonZeroU32, time::Duration};

use governor::{
    Quota, RateLimiter, clock::Clock as Ticker, middleware::StateInformationMiddleware,
    state::keyed::DashMapStateStore,
};

use crate::{
    clock::Clock,
    error::{Error, Kind, Result},
};

/// The time over which a quota refills completely.
pub const WINDOW: Duration = Duration::from_secs(60);

type Limiter<K> = RateLimiter<K, DashMapStateStore<K>, QuotaClock, StateInformationMiddleware>;

/// The quotas of all keys `K`.
pub struct Quotas<K: Hash + Eq + Clone> {
    /// None if there is no limit.
    limited: Option<Limited<K>>,
}

struct Limited<K: Hash + Eq + Clone> {
    per_minute: NonZeroU32,
    limiter: Limiter<K>,
}

/// The rest of a quota after a request was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RemainingQuota {
    /// Requests in a [`WINDOW`].
    pub quota: NonZeroU32,
    /// Requests that would be accepted now.
    pub remaining: u32,
    /// The time until one more request is accepted.
    pub more_in: Duration,
    pub(in crate::gateway) is_over: bool,
}

impl<K: Hash + Eq + Clone> Quotas<K> {
    pub fn new(per_minute: Option<NonZeroU32>, clock: Clock) -> Self {
        let limited = per_minute.map(|per_minute| Limited {
            per_minute,
            limiter: Limiter::new(
                Quota::per_minute(per_minute),
                DashMapStateStore::default(),
                QuotaClock(clock),
            ),
        });
        Self { limited }
    }

    /// Counts one request of `who`. None if there is no limit.
    pub fn spend(&self, who: &K) -> Option<RemainingQuota> {
        let Limited {
            per_minute,
            limiter,
        } = self.limited.as_ref()?;
        let (remaining, more_in, is_over) = match limiter.check_key(who) {
            Ok(left) => (
                left.remaining_burst_capacity(),
                WINDOW / per_minute.get(),
                false,
            ),
            Err(refused) => (0, refused.wait_time_from(limiter.clock().now()), true),
        };
        Some(RemainingQuota {
            quota: *per_minute,
            remaining,
            more_in,
            is_over,
        })
    }

    /// Forgets quotas that have refilled completely.
    pub fn forget_idle(&self) {
        if let Some(limited) = &self.limited {
            limited.limiter.retain_recent();
        }
    }
}

/// The rest of the quotas of the caller's key and of its project. A request that the key's quota
/// rejects does not count against the project. None if there is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RemainingQuotas {
    pub key: Option<RemainingQuota>,
    pub project: Option<RemainingQuota>,
}

impl RemainingQuotas {
    /// # Errors
    /// `rate_limited`, with the time until the next request is accepted.
    pub fn check(&self) -> Result<()> {
        self.key.map_or(Ok(()), |key| key.check("API key"))?;
        self.project
            .map_or(Ok(()), |project| project.check("project"))
    }
}

impl RemainingQuota {
    /// Fails if the quota is used up. `whose` names its owner in the error message.
    ///
    /// # Errors
    /// `rate_limited`, with the time until the next request is accepted.
    pub fn check(&self, whose: &str) -> Result<()> {
        if !self.is_over {
            return Ok(());
        }
        Err(Error::new(
            Kind::RateLimited,
            format!(
                "the quota of this {whose} is spent: {} a minute",
                self.quota
            ),
        )
        .with_retry_after(self.more_in))
    }
}

/// The gateway's clock as a clock of [`governor`].
#[derive(Clone)]
struct QuotaClock(Clock);

impl Ticker for QuotaClock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.monotonic()
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::{crypto::Rng, model::id::KeyId};

    fn world(per_minute: u32) -> (Quotas<KeyId>, Clock, impl FnMut() -> KeyId) {
        let clock = Clock::skipping(Timestamp::UNIX_EPOCH);
        let quotas = Quotas::new(NonZeroU32::new(per_minute), clock.clone());
        let rng = Rng::seeded(1);
        (quotas, clock, move || rng.id(Timestamp::UNIX_EPOCH))
    }

    #[test]
    fn a_key_has_its_quota_at_once_and_gets_it_back_evenly() {
        let (quotas, clock, mut new_id) = world(10);
        let key = new_id();
        for left in (0..10).rev() {
            let standing = quotas.spend(&key).unwrap();
            assert!(standing.check("API key").is_ok());
            assert_eq!((standing.quota.get(), standing.remaining), (10, left));
        }
        let standing = quotas.spend(&key).unwrap();
        assert_eq!((standing.remaining, standing.more_in.as_secs()), (0, 6));
        let error = standing.check("API key").unwrap_err();
        assert_eq!(error.kind(), Kind::RateLimited);
        assert_eq!(error.retry_after(), Some(standing.more_in));

        clock.advance(standing.more_in);
        assert!(quotas.spend(&key).unwrap().check("API key").is_ok());
        assert!(quotas.spend(&key).unwrap().check("API key").is_err());
        clock.advance(WINDOW);
        assert_eq!(quotas.spend(&key).unwrap().remaining, 9);
    }

    #[test]
    fn what_one_key_spends_no_other_lacks() {
        let (quotas, _, mut new_id) = world(2);
        let (one, other) = (new_id(), new_id());
        for _ in 0..5 {
            quotas.spend(&one);
        }
        assert!(quotas.spend(&one).unwrap().check("API key").is_err());
        assert_eq!(quotas.spend(&other).unwrap().remaining, 1);
    }

    #[test]
    fn a_key_is_remembered_for_as_long_as_it_lacks_something() {
        let (quotas, clock, mut new_id) = world(60);
        let held = |quotas: &Quotas<KeyId>| quotas.limited.as_ref().unwrap().limiter.len();
        for _ in 0..100 {
            quotas.spend(&new_id());
        }
        quotas.forget_idle();
        assert_eq!(held(&quotas), 100);
        clock.advance(WINDOW);
        quotas.forget_idle();
        assert_eq!(held(&quotas), 0);
    }

    #[test]
    fn without_a_limit_nothing_is_counted() {
        let (quotas, _, mut new_id) = world(0);
        assert_eq!(quotas.spend(&new_id()), None);
    }
}
