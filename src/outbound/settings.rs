//! The figures that a call is bound by. Their defaults are the ones that are promised.

use std::time::Duration;

use super::address::AddressPolicy;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboundSettings {
    /// Requests a minute that a provider takes from one access token; 0: no limit is known.
    pub rate_limit: u32,
    /// How long an interactive call waits for its turn, or goes on trying: a person is waiting.
    /// Background calls wait for as long as it takes.
    pub interactive_patience: Duration,
    pub timeouts: Timeouts,
    pub caps: Caps,
    pub retries: RetrySettings,
    pub breaker: BreakerSettings,
    /// Whether plain http and addresses that are not public may be called.
    pub allow_private_addresses: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    pub connect: Duration,
    /// From sending, connecting included, to the whole head of the reply.
    pub first_byte: Duration,
    /// Between two pieces of the body.
    pub read_gap: Duration,
    pub whole: Duration,
    /// A body that stays under this rate for `slow_for` is cut.
    pub slow_floor_bytes_per_s: u32,
    pub slow_for: Duration,
}

/// What a reply may come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caps {
    /// Of the body, packed and unpacked.
    pub body_bytes: usize,
    /// How deep JSON may nest.
    pub depth: usize,
    /// How many times its packed length a body may unpack to.
    pub ratio: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetrySettings {
    /// Tries of a call in all, the first included.
    pub tries: u32,
    /// The same, where what stands in the way is the provider's rate limit.
    pub throttled_tries: u32,
    /// Retries of an account, as a part of its calls.
    pub percent_of_calls: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BreakerSettings {
    /// So many failures in a row open it.
    pub in_a_row: u32,
    /// Or half of so many calls within the window.
    pub sample: u32,
    pub window: Duration,
    pub open_for: Duration,
}

impl OutboundSettings {
    pub(super) fn reach(&self) -> AddressPolicy {
        if self.allow_private_addresses {
            AddressPolicy::Any
        } else {
            AddressPolicy::Public
        }
    }
}

impl Default for OutboundSettings {
    fn default() -> Self {
        Self {
            rate_limit: 300,
            interactive_patience: Duration::from_secs(20),
            timeouts: Timeouts::default(),
            caps: Caps::default(),
            retries: RetrySettings::default(),
            breaker: BreakerSettings::default(),
            allow_private_addresses: false,
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(3),
            first_byte: Duration::from_secs(15),
            read_gap: Duration::from_secs(10),
            whole: Duration::from_secs(60),
            slow_floor_bytes_per_s: 1024,
            slow_for: Duration::from_secs(10),
        }
    }
}

impl Default for Caps {
    fn default() -> Self {
        Self {
            body_bytes: 16 * 1024 * 1024,
            depth: 64,
            ratio: 200,
        }
    }
}

impl Default for RetrySettings {
    fn default() -> Self {
        Self {
            tries: 4,
            throttled_tries: 5,
            percent_of_calls: 20,
        }
    }
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self {
            in_a_row: 5,
            sample: 20,
            window: Duration::from_secs(30),
            open_for: Duration::from_secs(30),
        }
    }
}
