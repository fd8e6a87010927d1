//! The only HTTP client, and what every provider call passes: budget, retry, breaker, timeouts,
//! size limits and waits, in this order and in this one place.
//!
//! A connector says what to get and reads what comes; everything that goes wrong in between is
//! dealt with here once, the same for every provider:
//!
//! * [`lane`]: what one access token may still ask, and the pauses that its provider wants;
//! * [`breaker`] and [`retry`]: when to leave a provider alone, and when to try again;
//! * [`address`]: where a call may go at all;
//! * [`exchange`] and [`body`]: one request and its reply, bounded in time and size.
//!
//! Only reads pass here, and a read may be repeated. What is not repeatable (redeeming a
//! refresh token) must not be sent through [`Caller::get`].
//!
//! What a provider's error codes mean is told by its connector, as a [`Complaint`]; what
//! follows from it is decided here. No reply's text ever leaves as part of an error: it may
//! hold names and addresses.

use std::{
    collections::HashMap,
    fmt,
    hash::Hash,
    num::NonZeroU32,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use reqwest::Client;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use url::Url;

use crate::clock::Clock;

mod address;
mod body;
mod breaker;
mod exchange;
mod lane;
mod retry;
mod settings;

use breaker::{Breaker, Pass};
use exchange::{Broken, Outgoing};
use lane::{ComeBack, Lane, Permit};
use retry::{RetryBudget, Trouble};
#[cfg(test)]
mod tests;

pub use settings::{BreakerSettings, Caps, RetrySettings, Settings, Timeouts};

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
    /// The provider does not take this credential (401).
    Unauthorized,
    /// The provider takes it, but not for this (403).
    Forbidden,
    /// No such thing (404), whatever the provider's code.
    NotFound,
    /// Another refusal of the request itself (4xx).
    Refused,
    /// 429, and the retries that the budget allows are used up.
    Throttled,
    /// No answer, or a 5xx, after the retries; or the breaker is open.
    Unavailable,
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
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenKey(…)")
    }
}

/// On whose behalf calls are made: what they count against.
#[derive(Debug, Clone)]
pub struct Route {
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
pub struct Request<'a> {
    pub url: Url,
    /// The path without its values, for the log: `/users/{id}`.
    pub template: &'static str,
    pub token: &'a SecretString,
    pub headers: &'a [(&'static str, &'static str)],
}

/// A provider's reply, read whole.
#[derive(Debug)]
pub struct Answer {
    status: u16,
    body: Bytes,
    retry_after: Option<Vec<u8>>,
    date: Option<Vec<u8>>,
}

impl Answer {
    pub fn status(&self) -> u16 {
        self.status
    }

    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The body as what it should be. The error names the place in the body, not what is there.
    pub fn json<'a, T: Deserialize<'a>>(&'a self) -> Result<T, CallError> {
        serde_json::from_slice(&self.body).map_err(|error| CallError {
            status: Some(self.status),
            ..CallError::invalid_reply(format!(
                "the reply is not what was asked for ({:?}, line {}, column {})",
                error.classify(),
                error.line(),
                error.column()
            ))
        })
    }
}

/// What a connector can tell about an answer that is not a success.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Complaint {
    /// The provider's own error code.
    pub code: Option<i64>,
    /// The provider's reference for its support.
    pub reference: Option<String>,
    pub nature: Nature,
}

/// What a provider's error code says about trying again. A 4xx is never tried again whatever
/// its code, but for 429.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Nature {
    /// Nothing that the status does not say: 502, 503 and 504 pass, 500 does not.
    #[default]
    ByStatus,
    /// Too many requests, even if the status is not 429.
    Throttled,
    /// Gone in seconds.
    Passing,
    /// Gone in minutes: maintenance.
    PassingSlowly,
    /// Asking again will not help.
    Lasting,
}

/// The way out: one client, and all lanes and breakers. Clones are the same one.
#[derive(Clone)]
pub struct Outbound(Arc<Shared>);

struct Shared {
    client: Client,
    settings: Settings,
    clock: Clock,
    /// Chance for the jitter alone: speed and a seed are wanted of it, not secrecy.
    chance: Mutex<fastrand::Rng>,
    began_at: Duration,
    lanes: Mutex<HashMap<(&'static str, TokenKey), Arc<Lane>>>,
    patients: Mutex<HashMap<(&'static str, String), Arc<Health>>>,
}

/// The client could not be made: TLS or the resolver of this machine is not in order.
#[derive(Debug, thiserror::Error)]
#[error("the HTTP client could not be set up")]
pub struct SetUpError(#[source] reqwest::Error);

/// How an account's provider has been doing.
struct Health {
    breaker: Arc<Breaker>,
    retries: RetryBudget,
}

impl Outbound {
    /// `seed` is for the jitter of retries: chance is a value, and comes in.
    pub fn new(settings: Settings, clock: Clock, seed: u64) -> Result<Self, SetUpError> {
        Ok(Self(Arc::new(Shared {
            client: client(&settings).map_err(SetUpError)?,
            chance: Mutex::new(fastrand::Rng::with_seed(seed)),
            began_at: clock.monotonic(),
            lanes: Mutex::default(),
            patients: Mutex::default(),
            settings,
            clock,
        })))
    }

    /// One account's way out, counting its calls from 0.
    pub fn caller(&self, route: Route) -> Caller {
        let shared = &self.0;
        Caller {
            lane: shared.lane(&route),
            health: shared.health(&route),
            shared: Arc::clone(shared),
            route: Arc::new(route),
            calls: Arc::default(),
        }
    }

    /// Drops the lanes and breakers that hold nothing: to be called now and then.
    pub fn forget_idle(&self) {
        fn retain<K: Eq + Hash, V>(map: &Mutex<HashMap<K, Arc<V>>>, is_idle: fn(&V) -> bool) {
            map.lock()
                .expect("nothing panics while it holds a map")
                .retain(|_, held| Arc::strong_count(held) > 1 || !is_idle(held));
        }
        retain(&self.0.lanes, Lane::is_idle);
        retain(&self.0.patients, |health: &Health| health.breaker.is_idle());
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
fn client(settings: &Settings) -> reqwest::Result<Client> {
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
        .build()
}

impl Shared {
    fn lane(&self, route: &Route) -> Arc<Lane> {
        let mut lanes = self
            .lanes
            .lock()
            .expect("nothing panics while it holds a map");
        let lane = lanes
            .entry((route.provider, route.token))
            .or_insert_with(|| {
                let rested = self.clock.monotonic().saturating_sub(self.began_at);
                Arc::new(Lane::new(
                    self.clock.clone(),
                    NonZeroU32::new(self.settings.rate_limit),
                    (!route.is_newly_linked).then_some(rested),
                ))
            });
        Arc::clone(lane)
    }

    fn health(&self, route: &Route) -> Arc<Health> {
        let mut patients = self
            .patients
            .lock()
            .expect("nothing panics while it holds a map");
        let health = patients
            .entry((route.provider, route.account.clone()))
            .or_insert_with(|| {
                let clock = &self.clock;
                let settings = &self.settings;
                Arc::new(Health {
                    breaker: Arc::new(Breaker::new(clock.clone(), settings.breaker.clone())),
                    retries: RetryBudget::new(clock.clone(), settings.retries.percent_of_calls),
                })
            });
        Arc::clone(health)
    }

    /// Anything from nothing up to `bound`.
    fn jitter(&self, bound: Duration) -> Duration {
        let mut chance = self
            .chance
            .lock()
            .expect("nothing panics while it draws a number");
        bound.mul_f64(chance.f64())
    }
}

/// One account's way out. Clones count together.
#[derive(Clone)]
pub struct Caller {
    shared: Arc<Shared>,
    route: Arc<Route>,
    lane: Arc<Lane>,
    health: Arc<Health>,
    calls: Arc<AtomicU64>,
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Caller").field(&self.route).finish()
    }
}

impl Caller {
    /// Every request sent through this caller and its clones, retries included.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// The same caller with another priority, counting on.
    #[must_use]
    pub fn with_priority(&self, priority: Priority) -> Self {
        Self {
            route: Arc::new(Route {
                priority,
                ..(*self.route).clone()
            }),
            ..self.clone()
        }
    }

    /// Requests a minute that this caller's token may make; None: no limit is known.
    pub fn budget_per_minute(&self) -> Option<u32> {
        NonZeroU32::new(self.shared.settings.rate_limit).map(NonZeroU32::get)
    }

    /// Gets a success, or the error that is left when every try has been made. `complaint`
    /// reads any other answer, as far as the connector knows its codes.
    ///
    /// The future may be dropped at any time; what was under way then counts as sent.
    pub async fn get(
        &self,
        request: Request<'_>,
        complaint: impl Fn(&Answer) -> Complaint + Send,
    ) -> Result<Answer, CallError> {
        let shared = &*self.shared;
        shared
            .settings
            .reach()
            .check(&request.url)
            .map_err(|fault| CallError::new(CallErrorKind::Refused, fault.to_string()))?;
        let Some(outgoing) = Outgoing::new(&request) else {
            let detail = "this credential cannot be sent in a header";
            return Err(CallError::new(CallErrorKind::Unauthorized, detail));
        };
        self.health.retries.count_call();
        let mut tries = Tries::new(self);
        loop {
            let (permit, pass) = self.admit(&mut tries).await?;
            self.calls.fetch_add(1, Ordering::Relaxed);
            tries.made += 1;
            let sent_at = Instant::now();
            let outcome = outgoing
                .send(
                    &shared.client,
                    &shared.settings.caps,
                    &shared.settings.timeouts,
                )
                .await;
            let verdict = self.judge(outcome, &complaint);
            self.log(&request, &verdict, sent_at.elapsed(), tries.made);
            match verdict {
                Ok(answer) => {
                    permit.answered();
                    pass.succeeded();
                    return Ok(answer);
                }
                Err(fault) => {
                    fault.settle(permit, pass);
                    let wait = tries.wait_before_next(&fault).ok_or(fault.error)?;
                    shared.clock.sleep(wait).await;
                }
            }
        }
    }

    /// Waits until a request may be sent: for the lane's turn, and for the breaker.
    async fn admit(&self, tries: &mut Tries<'_>) -> Result<(Permit, Pass), CallError> {
        let breaker = &self.health.breaker;
        loop {
            let refusal = match breaker.check() {
                Err(refusal) => refusal,
                Ok(()) => {
                    let permit = self
                        .lane
                        .enter(self.route.priority, tries.patience())
                        .await
                        .map_err(|wait| CallError {
                            retry_after: Some(wait),
                            ..CallError::new(
                                CallErrorKind::Throttled,
                                "the budget of this token is spent for longer than anybody waits",
                            )
                        })?;
                    // The queue may have been long: ask again.
                    match breaker.enter() {
                        Ok(pass) => return Ok((permit, pass)),
                        Err(refusal) => {
                            permit.unsent();
                            refusal
                        }
                    }
                }
            };
            if !tries.may_wait_out(refusal.opening) {
                return Err(CallError {
                    retry_after: refusal.wait,
                    ..CallError::new(
                        CallErrorKind::Unavailable,
                        "too many calls failed; the provider is left alone for a while",
                    )
                });
            }
            breaker.next_move().await;
        }
    }

    fn judge(
        &self,
        outcome: Result<Answer, Broken>,
        complaint: impl Fn(&Answer) -> Complaint,
    ) -> Result<Answer, Fault> {
        let answer = outcome.map_err(Fault::broken)?;
        match answer.status {
            200..=299 => Ok(answer),
            _ => {
                let complaint = complaint(&answer);
                Err(Fault::refusal(&answer, complaint, self.shared.clock.now()))
            }
        }
    }

    fn log(
        &self,
        request: &Request<'_>,
        verdict: &Result<Answer, Fault>,
        took: Duration,
        number: u32,
    ) {
        let error = verdict.as_ref().err().map(|fault| &fault.error);
        let status = match verdict {
            Ok(answer) => Some(answer.status),
            Err(fault) => fault.error.status,
        };
        tracing::info!(
            provider = self.route.provider,
            account = self.route.account,
            path = request.template,
            status,
            code = error.and_then(|error| error.code),
            ref_id = error.and_then(|error| error.reference.as_deref()),
            ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            r#try = number,
            fault = error.map(|error| error.detail.as_str()),
            "provider call"
        );
    }
}

/// A try that came to nothing, and what may be done about it.
struct Fault {
    error: CallError,
    remedy: Remedy,
    /// Whether an answer came at all.
    is_answer: bool,
}

enum Remedy {
    None,
    TryAgain {
        trouble: Trouble,
        not_before: Duration,
    },
    ComeBack(ComeBack),
}

impl Fault {
    fn broken(broken: Broken) -> Self {
        Self {
            error: CallError {
                status: broken.status,
                ..CallError::new(broken.kind, broken.detail)
            },
            remedy: if broken.is_passing {
                Remedy::TryAgain {
                    trouble: Trouble::Seconds,
                    not_before: Duration::ZERO,
                }
            } else {
                Remedy::None
            },
            is_answer: false,
        }
    }

    fn refusal(answer: &Answer, complaint: Complaint, now: jiff::Timestamp) -> Self {
        let come_back =
            retry::come_back(answer.retry_after.as_deref(), answer.date.as_deref(), now);
        let is_throttled = answer.status == 429 || complaint.nature == Nature::Throttled;
        let wait = (is_throttled || come_back != ComeBack::Unsaid).then(|| come_back.pause());
        let try_again = |trouble| Remedy::TryAgain {
            trouble,
            not_before: wait.unwrap_or_default(),
        };
        let (kind, remedy) = match (answer.status, complaint.nature) {
            _ if is_throttled => (CallErrorKind::Throttled, Remedy::ComeBack(come_back)),
            (401, _) => (CallErrorKind::Unauthorized, Remedy::None),
            (403, _) => (CallErrorKind::Forbidden, Remedy::None),
            (404, _) => (CallErrorKind::NotFound, Remedy::None),
            (400..=499, _) => (CallErrorKind::Refused, Remedy::None),
            (500..=599, Nature::PassingSlowly) => {
                (CallErrorKind::Unavailable, try_again(Trouble::Minutes))
            }
            (500..=599, Nature::Passing) | (502..=504, Nature::ByStatus) => {
                (CallErrorKind::Unavailable, try_again(Trouble::Seconds))
            }
            (500..=599, _) => (CallErrorKind::Unavailable, Remedy::None),
            // A redirect among them: none is followed.
            _ => (CallErrorKind::InvalidReply, Remedy::None),
        };
        let detail = match complaint.code {
            Some(code) => format!("the provider answered {} with code {code}", answer.status),
            None => format!("the provider answered {}", answer.status),
        };
        Self {
            error: CallError {
                kind,
                detail,
                status: Some(answer.status),
                code: complaint.code,
                reference: complaint.reference.filter(|text| is_reference(text)),
                retry_after: wait,
            },
            remedy,
            is_answer: true,
        }
    }

    /// Tells lane and breaker how the request ended.
    fn settle(&self, permit: Permit, pass: Pass) {
        match &self.remedy {
            Remedy::ComeBack(come_back) => permit.throttled(*come_back),
            _ if self.is_answer => permit.answered(),
            _ => permit.unanswered(),
        }
        match self.error.kind {
            CallErrorKind::Unavailable | CallErrorKind::InvalidReply => pass.failed(),
            _ => pass.succeeded(),
        }
    }
}

/// A provider's reference is a short plain word. Anything else could be anything.
fn is_reference(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// The tries of one call.
struct Tries<'a> {
    caller: &'a Caller,
    began_at: Duration,
    made: u32,
    /// The opening of the breaker that this call has waited for.
    waited_out: Option<u64>,
}

impl<'a> Tries<'a> {
    fn new(caller: &'a Caller) -> Self {
        Self {
            caller,
            began_at: caller.shared.clock.monotonic(),
            made: 0,
            waited_out: None,
        }
    }

    /// How long this call may still wait; None: as long as it takes.
    fn patience(&self) -> Option<Duration> {
        let shared = &self.caller.shared;
        (self.caller.route.priority == Priority::Interactive).then(|| {
            let elapsed = shared.clock.monotonic().saturating_sub(self.began_at);
            shared.settings.interactive_patience.saturating_sub(elapsed)
        })
    }

    /// The wait before another try; None if there is to be none.
    fn wait_before_next(&self, fault: &Fault) -> Option<Duration> {
        let shared = &self.caller.shared;
        let settings = &shared.settings.retries;
        let (most, wait) = match fault.remedy {
            Remedy::None => return None,
            // The lane waits, for every caller of this token.
            Remedy::ComeBack(_) => (settings.throttled_tries, Duration::ZERO),
            Remedy::TryAgain {
                trouble,
                not_before,
            } => {
                let bound = retry::backoff_bound(trouble, self.made + 1);
                (settings.tries, shared.jitter(bound).max(not_before))
            }
        };
        let is_in_time = self.patience().is_none_or(|patience| wait <= patience);
        let is_allowed = || {
            // A throttled call is not a burden: it waits for as long as it is told to.
            matches!(fault.remedy, Remedy::ComeBack(_)) || self.caller.health.retries.take()
        };
        (self.made < most && is_in_time && is_allowed()).then_some(wait)
    }

    /// A background call waits for an open breaker to move, and gives up if it opens again: a
    /// walk should outlive trouble of half a minute. Nobody else waits for that.
    fn may_wait_out(&mut self, opening: u64) -> bool {
        self.caller.route.priority == Priority::Background
            && *self.waited_out.get_or_insert(opening) == opening
    }
}
