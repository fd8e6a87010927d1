//! The only HTTP client, and what every provider call passes: budget, retry, breaker, timeouts,
//! size limits and waits, in this order and in this one place.
//!
//! A connector says what to get and reads what comes; everything that goes wrong in between is
//! dealt with here once, the same for every provider:
//!
//! * `token_limiter`: what one access token may still ask, and the pauses that its provider wants;
//! * `quota_lease`: the same, where other processes call with that token, too;
//! * `account_client`: the way of one call through the others;
//! * `classification`: what an answer comes to;
//! * `breaker` and `retry`: when to leave a provider alone, and when to try again;
//! * `address`: where a call may go at all;
//! * `exchange` and `body`: one request and its reply, bounded in time and size;
//! * `non_idempotent`: what must not be sent again.
//!
//! What passes a [`AccountClient`] may be repeated. What may not (redeeming a code or a refresh token) is
//! sent by [`Outbound::post_once`]: once, on a connection of its own, with none of the retries.
//!
//! What a provider's error codes mean is told by its connector, as a [`ErrorReply`]; what
//! follows from it is decided here. No reply's text ever leaves as part of an error: it may
//! hold names and addresses.

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

/// What a provider call came to, when not to an answer.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{kind:?}: {detail}")]
pub struct CallError {
    pub kind: CallErrorKind,
    /// For the log: never a body, a token, an e-mail address.
    pub detail: String,
    /// The provider's answer, where there was one.
    pub status: Option<u16>,
    /// The provider's own error code.
    pub code: Option<i64>,
    /// The provider's reference for its support.
    pub reference: Option<String>,
    /// How long the provider, or our own budget, wants us to wait.
    pub retry_after: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CallErrorKind {
    /// The provider does not take this credential (401 with the provider's own code).
    Unauthorized,
    /// The provider takes it, but not for this (403 with the provider's own code).
    Forbidden,
    /// The provider takes it, but not in the place of the user that it is to stand for. Only a
    /// connector can tell.
    AssumeUserRefused,
    /// The provider takes it in the place of a user alone, and it stood for none. Only a connector
    /// can tell.
    AssumeUserMissing,
    /// No such thing (404), whatever the provider's code.
    NotFound,
    /// Another refusal of the request itself (4xx).
    Refused,
    /// 429, and the retries that the budget allows are used up.
    Throttled,
    /// No answer, a 5xx, or a 401 or 403 without the provider's own code, after the retries; or
    /// the breaker is open.
    Unavailable,
    /// The token's budget is shared, and what is left of it could not be learnt: nothing was sent.
    BudgetUnknown,
    /// An answer that is no answer: not JSON, cut short, too large, too deep, off its shape.
    InvalidReply,
}

impl CallError {
    /// An error that no provider's answer stands behind.
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

    /// The provider answered, but not with what was asked for.
    pub fn invalid_reply(detail: impl Into<String>) -> Self {
        Self::new(CallErrorKind::InvalidReply, detail)
    }
}

/// Which of two calls goes first when both wait for the same token's budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Somebody waits for the answer.
    Interactive,
    Background,
}

/// Names an access token without being one.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenKey([u8; 32]);

impl TokenKey {
    pub fn of(token: &SecretString) -> Self {
        Self(Sha256::digest(token.expose_secret().as_bytes()).into())
    }

    /// What other processes know the token's budget by.
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

/// On whose behalf calls are made: what they count against.
#[derive(Debug, Clone)]
pub struct ClientScope {
    pub provider: &'static str,
    /// Whose breaker and retries these are: an account's id, or a word for one being linked.
    pub account: String,
    pub token: TokenKey,
    pub priority: Priority,
    /// Whether the token was just handed to us, so that its whole budget is still there.
    pub is_newly_linked: bool,
}

/// One read of a provider.
#[derive(Debug)]
pub struct ProviderRequest<'a> {
    pub url: Url,
    /// The path without its values, for the log: `/users/{id}`.
    pub template: &'static str,
    pub token: &'a SecretString,
    pub headers: &'a [(&'static str, &'a str)],
}

/// The way out: one client, and all lanes and breakers. Clones are the same one.
#[derive(Clone)]
pub struct Outbound(Arc<OutboundState>);

struct OutboundState {
    client: Client,
    /// Keeps no connection: one that was closed behind our back would be found out by sending.
    once_client: Client,
    settings: OutboundSettings,
    clock: Clock,
    metrics: Metrics,
    /// None if this process is alone with its tokens.
    shares: Option<Arc<dyn SharedQuota>>,
    /// Chance for the jitter alone: speed and a seed are wanted of it, not secrecy.
    rng: Mutex<fastrand::Rng>,
    began_at: Duration,
    limiters: Mutex<HashMap<(&'static str, TokenKey), Arc<TokenLimiter>>>,
    healths: Mutex<HashMap<(&'static str, String), Arc<ProviderHealth>>>,
}

/// The client could not be made: TLS or the resolver of this machine is not in order.
#[derive(Debug, thiserror::Error)]
#[error("the HTTP client could not be set up")]
pub struct SetUpError(#[source] reqwest::Error);

/// Idle connections to one host: no bound of ours.
const KEPT_CONNECTIONS: usize = usize::MAX;

/// How an account's provider has been doing.
struct ProviderHealth {
    breaker: Arc<Breaker>,
    retries: RetryBudget,
}

impl Outbound {
    /// `seed` is for the jitter of retries: chance is a value, and comes in. With `shares`, other
    /// processes may call with the same tokens.
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

    /// The same way out, whose calls are counted there.
    ///
    /// # Panics
    /// If somebody has a clone, or a caller, already.
    #[must_use]
    pub fn with_metrics(mut self, metrics: Metrics) -> Self {
        Arc::get_mut(&mut self.0).expect("nobody calls yet").metrics = metrics;
        self
    }

    /// Where its calls are counted.
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// One account's way out, counting its calls from 0.
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

    /// Drops the lanes and breakers that hold nothing, and gives back what others could use: to
    /// be called now and then.
    pub fn forget_idle(&self) {
        self.0
            .limiters
            .lock()
            .expect("nothing panics while it holds a map")
            .values()
            .for_each(|limiter| limiter.put_back_late());
        fn retain<K: Eq + Hash, V>(map: &Mutex<HashMap<K, Arc<V>>>, is_idle: fn(&V) -> bool) {
            map.lock()
                .expect("nothing panics while it holds a map")
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
    // Only the first in a process takes effect; whoever set one before wanted the same.
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
        // Well under what load balancers keep, so that a call seldom meets a closing door.
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

    /// Anything from nothing up to `bound`.
    fn jitter(&self, bound: Duration) -> Duration {
        let mut rng = self
            .rng
            .lock()
            .expect("nothing panics while it draws a number");
        bound.mul_f64(rng.f64())
    }
}
