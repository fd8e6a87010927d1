//! The client of one account: sends a request, classifies the response and retries it.
//!
//! Each attempt needs a permit from the token's rate limiter and one from the account's circuit
//! breaker. A request may be sent several times; requests that must not be are in `non_idempotent`.

use std::{
    fmt,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use reqwest::Method;
use tokio::time::Instant;

use super::{
    CallError, CallErrorKind, ClientScope, ErrorReply, OutboundState, Priority, ProviderHealth,
    ProviderRequest, ProviderResponse, TokenKey,
    breaker::BreakerPermit,
    classification::{self, FailedAttempt, RetryPolicy},
    exchange::Outgoing,
    retry,
    token_limiter::{Permit, Rejected, TokenLimiter},
};
use crate::telemetry::CallOutcome;

/// The client of one account. Clones share one count of requests.
#[derive(Clone)]
pub struct AccountClient {
    pub(super) shared: Arc<OutboundState>,
    pub(super) route: Arc<ClientScope>,
    pub(super) limiter: Arc<TokenLimiter>,
    pub(super) health: Arc<ProviderHealth>,
    pub(super) calls: Arc<AtomicU64>,
}

impl fmt::Debug for AccountClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Caller").field(&self.route).finish()
    }
}

impl AccountClient {
    /// The number of requests sent through this client and its clones, retries included.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// The same client with another priority and the same count.
    #[must_use]
    pub fn with_priority(&self, priority: Priority) -> Self {
        Self {
            route: Arc::new(ClientScope {
                priority,
                ..(*self.route).clone()
            }),
            ..self.clone()
        }
    }

    /// The same client with another token of the same account and the same count. Earlier requests
    /// count against the former token's budget.
    #[must_use]
    pub fn with_token(&self, token: TokenKey) -> Self {
        let route = ClientScope {
            token,
            is_newly_linked: false,
            ..(*self.route).clone()
        };
        Self {
            limiter: self.shared.limiter(&route),
            route: Arc::new(route),
            ..self.clone()
        }
    }

    /// The limit on requests a minute of this client's token; None if there is no known limit.
    pub fn budget_per_minute(&self) -> Option<u32> {
        NonZeroU32::new(self.shared.settings.rate_limit).map(NonZeroU32::get)
    }

    /// Sends a GET and returns the successful response, or the error of the last attempt.
    ///
    /// `error_reply` reads the connector's error codes from any other response.
    ///
    /// The future may be dropped at any time; a request in flight then counts as sent.
    pub async fn get(
        &self,
        request: ProviderRequest<'_>,
        error_reply: impl Fn(&ProviderResponse) -> ErrorReply + Send,
    ) -> Result<ProviderResponse, CallError> {
        self.send(Method::GET, request, error_reply).await
    }

    /// Sends a DELETE, with retries like [`AccountClient::get`]: it is idempotent (RFC 9110,
    /// 9.2.2).
    pub async fn delete(
        &self,
        request: ProviderRequest<'_>,
        error_reply: impl Fn(&ProviderResponse) -> ErrorReply + Send,
    ) -> Result<ProviderResponse, CallError> {
        self.send(Method::DELETE, request, error_reply).await
    }

    async fn send(
        &self,
        method: Method,
        request: ProviderRequest<'_>,
        error_reply: impl Fn(&ProviderResponse) -> ErrorReply + Send,
    ) -> Result<ProviderResponse, CallError> {
        let shared = &*self.shared;
        shared
            .settings
            .reach()
            .check(&request.url)
            .map_err(|fault| CallError::new(CallErrorKind::Refused, fault.to_string()))?;
        let Some(outgoing) = Outgoing::new(method, &request) else {
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
            let verdict = classification::classify(outcome, &error_reply, shared.clock.date());
            self.log(&request, &verdict, sent_at.elapsed(), tries.made);
            shared
                .metrics
                .provider_call(self.route.provider, outcome_of(&verdict));
            let fault = match verdict {
                Ok(answer) => {
                    permit.answered();
                    pass.succeeded();
                    return Ok(answer);
                }
                Err(fault) => fault,
            };
            fault.settle(permit, pass);
            let Some(wait) = tries.wait_before_next(&fault) else {
                return Err(fault.error);
            };
            tries.last_error = Some(fault.error);
            shared.clock.sleep(wait).await;
        }
    }

    /// Waits for a permit of the rate limiter and of the breaker.
    ///
    /// On a refusal, returns the error of the last attempt; before the first attempt, that of the
    /// refusal.
    async fn admit(&self, tries: &mut Tries<'_>) -> Result<(Permit, BreakerPermit), CallError> {
        let breaker = &self.health.breaker;
        loop {
            let refusal = match breaker.check() {
                Err(refusal) => refusal,
                Ok(()) => {
                    let turn = self.limiter.enter(self.route.priority, tries.patience());
                    let permit = match turn.await {
                        Ok(permit) => permit,
                        Err(Rejected::In(wait)) => {
                            let detail = "the token's budget is spent, or it has been told to wait";
                            return Err(tries.refused(
                                CallErrorKind::Throttled,
                                detail,
                                Some(wait),
                            ));
                        }
                        Err(Rejected::Unknown(error)) => {
                            return Err(tries.refused(
                                CallErrorKind::BudgetUnknown,
                                &error.to_string(),
                                error.retry_after,
                            ));
                        }
                    };
                    // The breaker may have opened while this call was queued.
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
                let detail = "too many calls failed; the provider is left alone for a while";
                return Err(tries.refused(CallErrorKind::Unavailable, detail, refusal.wait));
            }
            breaker.next_move().await;
        }
    }

    fn log(
        &self,
        request: &ProviderRequest<'_>,
        verdict: &Result<ProviderResponse, FailedAttempt>,
        took: Duration,
        number: u32,
    ) {
        let error = verdict.as_ref().err().map(|fault| &fault.error);
        let status = match verdict {
            Ok(answer) => Some(answer.status()),
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

/// The metric label of a request that was sent.
fn outcome_of(verdict: &Result<ProviderResponse, FailedAttempt>) -> CallOutcome {
    match verdict.as_ref().map_err(|fault| fault.error.kind) {
        Ok(_) => CallOutcome::Answered,
        Err(CallErrorKind::Unauthorized) => CallOutcome::Unauthorized,
        Err(CallErrorKind::Forbidden) => CallOutcome::Forbidden,
        Err(CallErrorKind::NotFound) => CallOutcome::NotFound,
        // Only a connector reports the two `AssumeUser…` kinds, so they count as refusals here.
        Err(
            CallErrorKind::Refused
            | CallErrorKind::AssumeUserRefused
            | CallErrorKind::AssumeUserMissing,
        ) => CallOutcome::Refused,
        Err(CallErrorKind::Throttled) => CallOutcome::Throttled,
        // `BudgetUnknown` cannot occur here: a request is sent only with a permit.
        Err(CallErrorKind::Unavailable | CallErrorKind::BudgetUnknown) => CallOutcome::Unavailable,
        Err(CallErrorKind::InvalidReply) => CallOutcome::InvalidReply,
    }
}

/// The attempts of one call.
struct Tries<'a> {
    caller: &'a AccountClient,
    began_at: Duration,
    made: u32,
    last_error: Option<CallError>,
    /// The breaker opening that this call has waited for.
    waited_out: Option<u64>,
}

impl<'a> Tries<'a> {
    fn new(caller: &'a AccountClient) -> Self {
        Self {
            caller,
            began_at: caller.shared.clock.monotonic(),
            made: 0,
            last_error: None,
            waited_out: None,
        }
    }

    /// How long this call may still wait; None is without limit.
    fn patience(&self) -> Option<Duration> {
        let shared = &self.caller.shared;
        (self.caller.route.priority == Priority::Interactive).then(|| {
            let elapsed = shared.clock.monotonic().saturating_sub(self.began_at);
            shared.settings.interactive_patience.saturating_sub(elapsed)
        })
    }

    /// The wait before the next attempt; None if there is none.
    fn wait_before_next(&self, fault: &FailedAttempt) -> Option<Duration> {
        let shared = &self.caller.shared;
        let settings = &shared.settings.retries;
        let (most, wait) = match fault.retry_policy {
            RetryPolicy::None => return None,
            // The rate limiter pauses every client of this token, so no wait is added here.
            RetryPolicy::WaitOut => (settings.throttled_tries, Duration::ZERO),
            RetryPolicy::TryAgain(trouble) => {
                let bound = retry::backoff_bound(trouble, self.made + 1);
                (settings.tries, shared.jitter(bound))
            }
        };
        let until_then = fault.error.retry_after.unwrap_or_default().max(wait);
        let is_in_time = self
            .patience()
            .is_none_or(|patience| until_then <= patience);
        // A throttled attempt does not use up the retry budget: the pause already limits it.
        let is_affordable =
            || fault.retry_policy == RetryPolicy::WaitOut || self.caller.health.retries.take();
        (self.made < most && is_in_time && is_affordable()).then_some(wait)
    }

    /// Whether this call waits for the breaker to close. Only a background call does, and only for
    /// one opening, so that a walk survives an outage of half a minute.
    fn may_wait_out(&mut self, opening: u64) -> bool {
        self.caller.route.priority == Priority::Background
            && *self.waited_out.get_or_insert(opening) == opening
    }

    /// The error of a call that cannot be sent (again) now: that of the last attempt, if there was
    /// one.
    fn refused(
        &mut self,
        kind: CallErrorKind,
        detail: &str,
        retry_after: Option<Duration>,
    ) -> CallError {
        let error = self.last_error.take();
        let error = error.unwrap_or_else(|| CallError::new(kind, detail));
        CallError {
            retry_after: retry_after.or(error.retry_after),
            ..error
        }
    }
}
