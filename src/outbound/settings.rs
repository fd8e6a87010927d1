//! The limits of a provider call, with their defaults.

use std::time::Duration;

use super::address::AddressPolicy;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboundSettings {
    /// Requests a minute that a provider allows one access token; 0 if no limit is known.
    pub rate_limit: u32,
    /// How long an interactive call may wait and retry, because a person is waiting. Background
    /// calls have no limit.
    pub interactive_patience: Duration,
    pub timeouts: Timeouts,
    pub caps: Caps,
    pub retries: RetrySettings,
    pub breaker: BreakerSettings,
    /// Whether plain HTTP and non-public addresses may be called.
    pub allow_private_addresses: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    pub connect: Duration,
    /// From sending, including the connection setup, to the end of the response headers.
    pub first_byte: Duration,
    /// Between two chunks of the body.
    pub read_gap: Duration,
    pub whole: Duration,
    /// A body that stays below this rate for `slow_for` is aborted.
    pub slow_floor_bytes_per_s: u32,
    pub slow_for: Duration,
}

/// The size limits of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caps {
    /// Of the body, both compressed and decompressed.
    pub body_bytes: usize,
    /// The maximum nesting depth of JSON.
    pub depth: usize,
    /// The maximum ratio of decompressed to compressed length.
    pub ratio: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetrySettings {
    /// Attempts of a call, including the first.
    pub tries: u32,
    /// The same for a call that is rate-limited.
    pub throttled_tries: u32,
    /// Retries of an account as a percentage of its calls.
    pub percent_of_calls: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BreakerSettings {
    /// The number of consecutive failures that opens the breaker.
    pub in_a_row: u32,
    /// The breaker also opens if half of this many recent calls within the window failed.
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
