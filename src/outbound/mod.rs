//! The only HTTP client. Every provider call passes the same address policy, circuit breaker, rate
//! limiter, timeouts, size limits and retries.
//!
//! A connector builds the request and parses the response; this module handles every failure in
//! between, in the same way for every provider:
//!
//! * `token_limiter`: the rate limiter of one access token, with the pauses that the provider asks
//!   for;
//! * `quota_lease`: leases parts of a rate limit that processes share from the store;
//! * `account_client`: the client of one account, which sends one call through the other parts;
//! * `classification`: whether a response is a success, and which retry policy applies;
//! * `breaker` and `retry`: when to stop calling a provider, and when to retry;
//! * `address`: which addresses may be called;
//! * `exchange` and `body`: one request and its response, bounded in time and size;
//! * `non_idempotent`: requests that must not be repeated.
//!
//! An [`AccountClient`] may send a request more than once. [`Outbound::post_once`] sends a request
//! that must not be repeated (redeeming a code or a refresh token): once, on a connection of its
//! own, without retries.
//!
//! The connector maps its provider's error codes to an [`ErrorReply`]; this module decides the
//! consequences. No error contains text from a response, because that may hold names and addresses.

use std::{
    collections::HashMap,
    fmt,
    hash::Hash,
    num::NonZeroU32,
    sync::{Arc, Mutex},
    time::Duration,
};

use reqwest::Client;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use url::Url;

use crate::{
    clock::Clock,
    model::budgets::{BudgetName, Quota, SharedBudget},
    telemetry::Metrics,
};

mod account_client;
mod address;
mod body;
mod breaker;
mod classification;
mod exchange;
mod non_idempotent;
mod quota_lease;
mod retry;
mod settings;
#[cfg(test)]
mod tests;
mod token_limiter;
mod unicode;

pub use account_client::AccountClient;
use breaker::Breaker;
pub use classification::{Classification, ErrorReply, ProviderResponse};
pub use non_idempotent::{NonIdempotent, OnceError};
use quota_lease::LeaseSource;
pub use quota_lease::{SharedQuota, SharedQuotaError};
use retry::RetryBudget;
pub use settings::{BreakerSettings, Caps, OutboundSettings, RetrySettings, Timeouts};
use token_limiter::TokenLimiter;

/// Why a provider call failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{kind:?}: {detail}")]
pub struct CallError {
    pub kind: CallErrorKind,
    /// For the log: never a body, a token or an e-mail address.
    pub detail: String,
    /// The status of the provider's response, if there was one.
    pub status: Option<u16>,
    /// The provider's own error code.
    pub code: Option<i64>,
    /// A reference to quote to the provider's support team.
    pub reference: Option<String>,
    /// How long to wait, by the provider or by Rolecall's own budget.
    pub retry_after: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CallErrorKind {
    /// The provider does not accept the credential (401 or 403 with the provider's own code).
    Unauthorized,
    /// The provider accepts the credential, but not for this request (401 or 403 with the
    /// provider's own code).
    Forbidden,
    /// The provider accepts the credential, but it may not impersonate the user. Only a connector
    /// sets this.
    AssumeUserRefused,
    /// The provider accepts the credential only with a user to impersonate, and there was none.
    /// Only a connector sets this.
    AssumeUserMissing,
    /// Not found (404), with any provider code.
    NotFound,
    /// The request itself was refused (another 4xx), or the address policy forbids it.
    Refused,
    /// A rate limit, after the retries; or the token's budget leaves no request in time.
    Throttled,
    /// No response, a 5xx, or a 401 or 403 that is no authorization decision (see
    /// `classification`), after the retries; or the breaker is open.
    Unavailable,
    /// The token's budget is shared, and the store gave no permit for it: nothing was sent.
    BudgetUnknown,
    /// The response is unusable: not JSON, incomplete, too large, nested too deeply, of another
    /// shape, or a redirect.
    InvalidReply,
}

impl CallError {
    /// An error without a response from the provider.
    pub fn new(kind: CallErrorKind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
            status: None,
            code: None,
            reference: None,
            retry_after: None,
        }
    }

    /// The provider responded, but not with the expected data.
    pub fn invalid_reply(detail: impl Into<String>) -> Self {
        Self::new(CallErrorKind::InvalidReply, detail)
    }
}

/// Order of calls that wait for the same token's budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// A person waits for the response.
    Interactive,
    Background,
}

/// Identifies an access token without revealing it: its SHA-256 digest.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenKey([u8; 32]);

impl TokenKey {
    pub fn of(token: &SecretString) -> Self {
        Self(Sha256::digest(token.expose_secret().as_bytes()).into())
    }

    /// The name of the token's budget, shared by all processes.
    fn budget_at(self, provider: &str) -> BudgetName {
        let digest = Sha256::new().chain_update(self.0).chain_update(provider);
        BudgetName::new(digest.finalize().into())
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenKey(…)")
    }
}

/// The account, token and priority of a client: which budget, breaker and retries its calls use.
#[derive(Debug, Clone)]
pub struct ClientScope {
    pub provider: &'static str,
    /// The key of the breaker and retry budget: an account's id, or a label before the account
    /// exists.
    pub account: String,
    pub token: TokenKey,
    pub priority: Priority,
    /// Whether the token was just linked, so that its whole budget is unused.
    pub is_newly_linked: bool,
}

/// One request to a provider.
#[derive(Debug)]
pub struct ProviderRequest<'a> {
    pub url: Url,
    /// The path with placeholders, for the log: `/users/{id}`.
    pub template: &'static str,
    pub token: &'a SecretString,
    pub headers: &'a [(&'static str, &'a str)],
}

/// The HTTP clients, with all rate limiters and breakers. Clones share them.
#[derive(Clone)]
pub struct Outbound(Arc<OutboundState>);

struct OutboundState {
    client: Client,
    /// For requests that must not be repeated. It keeps no idle connection: the server might just
    /// be closing it, and the request would be lost.
    once_client: Client,
    settings: OutboundSettings,
    clock: Clock,
    metrics: Metrics,
    /// None if no other process uses the same tokens.
    shares: Option<Arc<dyn SharedQuota>>,
    /// For jitter only, so fast and seeded rather than cryptographic.
    rng: Mutex<fastrand::Rng>,
    began_at: Duration,
    limiters: Mutex<HashMap<(&'static str, TokenKey), Arc<TokenLimiter>>>,
    healths: Mutex<HashMap<(&'static str, String), Arc<ProviderHealth>>>,
}

/// The HTTP client could not be created: this machine's TLS or resolver setup is broken.
#[derive(Debug, thiserror::Error)]
#[error("the HTTP client could not be set up")]
pub struct SetUpError(#[source] reqwest::Error);

/// No limit on the idle connections per host.
const KEPT_CONNECTIONS: usize = usize::MAX;

/// The breaker and retry budget of one account.
struct ProviderHealth {
    breaker: Arc<Breaker>,
    retries: RetryBudget,
}

impl Outbound {
    /// `seed` seeds the jitter of retries. With `shares`, other processes may use the same tokens.
    pub fn new(
        settings: OutboundSettings,
        clock: Clock,
        seed: u64,
        shares: Option<Arc<dyn SharedQuota>>,
    ) -> Result<Self, SetUpError> {
        Ok(Self(Arc::new(OutboundState {
            client: client(&settings, KEPT_CONNECTIONS).map_err(SetUpError)?,
            once_client: client(&settings, 0).map_err(SetUpError)?,
            rng: Mutex::new(fastrand::Rng::with_seed(seed)),
            began_at: clock.monotonic(),
            limiters: Mutex::default(),
            healths: Mutex::default(),
            settings,
            clock,
            metrics: Metrics::new(),
            shares,
        })))
    }

    /// Counts calls in `metrics`.
    ///
    /// # Panics
    /// If a clone or a client of this `Outbound` already exists.
    #[must_use]
    pub fn with_metrics(mut self, metrics: Metrics) -> Self {
        Arc::get_mut(&mut self.0).expect("no clone exists").metrics = metrics;
        self
    }

    /// The metrics that count this client's calls.
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// A client of one account, with a request count of 0.
    pub fn caller(&self, route: ClientScope) -> AccountClient {
        let shared = &self.0;
        AccountClient {
            limiter: shared.limiter(&route),
            health: shared.health(&route),
            shared: Arc::clone(shared),
            route: Arc::new(route),
            calls: Arc::default(),
        }
    }

    /// Drops idle rate limiters and breakers and returns expired slices. To be called periodically.
    pub fn forget_idle(&self) {
        self.0
            .limiters
            .lock()
            .expect("nothing panics while it holds a map")
            .values()
            .for_each(|limiter| limiter.release_expired());
        fn retain<K: Eq + Hash, V>(map: &Mutex<HashMap<K, Arc<V>>>, is_idle: fn(&V) -> bool) {
            map.lock()
                .expect("nothing panics while it holds a map")
                // More than one owner means that a client still uses the entry.
                .retain(|_, held| Arc::strong_count(held) > 1 || !is_idle(held));
        }
        retain(&self.0.limiters, TokenLimiter::is_idle);
        retain(&self.0.healths, |health: &ProviderHealth| {
            health.breaker.is_idle()
        });
    }
}

impl fmt::Debug for Outbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Outbound").field(&self.0.settings).finish()
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the place where calls to providers are made"
)]
fn client(settings: &OutboundSettings, kept_connections: usize) -> reqwest::Result<Client> {
    // Only the first call in a process has an effect; a later one fails, which is fine.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
        .user_agent(concat!("rolecall/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .no_proxy()
        .no_gzip()
        .no_zstd()
        .referer(false)
        .dns_resolver(settings.reach().resolver())
        .connect_timeout(settings.timeouts.connect)
        // Well below the idle timeout of load balancers, so that a request seldom meets a
        // connection that is just closing.
        .pool_idle_timeout(Duration::from_secs(30))
        .pool_max_idle_per_host(kept_connections)
        .build()
}

impl OutboundState {
    fn limiter(&self, route: &ClientScope) -> Arc<TokenLimiter> {
        let mut limiters = self
            .limiters
            .lock()
            .expect("nothing panics while it holds a map");
        let limiter = limiters
            .entry((route.provider, route.token))
            .or_insert_with(|| Arc::new(self.new_limiter(route)));
        Arc::clone(limiter)
    }

    fn new_limiter(&self, route: &ClientScope) -> TokenLimiter {
        let clock = self.clock.clone();
        let limit = NonZeroU32::new(self.settings.rate_limit);
        if let (Some(shares), Some(limit)) = (&self.shares, limit) {
            let budget = SharedBudget {
                name: route.token.budget_at(route.provider),
                quota: Quota::new(limit),
            };
            let source = LeaseSource::new(
                Arc::clone(shares),
                budget,
                self.settings.timeouts.whole,
                route.is_newly_linked,
                clock.clone(),
            );
            return TokenLimiter::sharing(clock, source);
        }
        let rested = clock.monotonic().saturating_sub(self.began_at);
        TokenLimiter::new(clock, limit, (!route.is_newly_linked).then_some(rested))
    }

    fn health(&self, route: &ClientScope) -> Arc<ProviderHealth> {
        let mut healths = self
            .healths
            .lock()
            .expect("nothing panics while it holds a map");
        let health = healths
            .entry((route.provider, route.account.clone()))
            .or_insert_with(|| {
                let clock = &self.clock;
                let settings = &self.settings;
                Arc::new(ProviderHealth {
                    breaker: Arc::new(Breaker::new(clock.clone(), settings.breaker.clone())),
                    retries: RetryBudget::new(clock.clone(), settings.retries.percent_of_calls),
                })
            });
        Arc::clone(health)
    }

    /// A random duration from zero up to `bound`.
    fn jitter(&self, bound: Duration) -> Duration {
        let mut rng = self
            .rng
            .lock()
            .expect("nothing panics while it draws a number");
        bound.mul_f64(rng.f64())
    }
}
