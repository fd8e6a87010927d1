//! Refreshing OAuth tokens whose refresh token can be redeemed only once.
//!
//! A token pair is refreshed ahead of its expiry, when the provider refuses the access token, and
//! on request. The store decides which process may redeem a refresh token, and how its result
//! changes the row: see [`Store::begin_refresh`](crate::store::Store::begin_refresh). This module
//! runs the steps of a refresh, in a task that continues when the client disconnects:
//!
//! 1. Take the lease on the credential's row. If that took longer than [`SEND_DEADLINE`], send
//!    nothing and start over: other processes could take the row over before the response arrives.
//! 2. Send the token request once, with a timeout of one minute.
//! 3. Store the new pair before using it. A pair that the database does not accept at once goes to
//!    the journal, and the database is retried until it accepts the pair.
//!
//! Callers in one process that refresh the same account share one refresh. If another process
//! refreshes the account, callers poll the row's state.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::{Semaphore, SemaphorePermit, watch};

use super::Credentials;
use crate::gateway::{Gateway, accounts::token_key, auth::OwnAccount};
use crate::{
    clock::since,
    connectors::{
        Connector, Renewal, Session,
        oauth::{IssuedTokens, TokenError, TokenErrorKind, TokenGrant, TokenRequest},
    },
    error::{Error, Kind, Result},
    model::{
        accounts::{Account, Credential, CredentialState, Endpoint, TokenPair},
        audit_log::{Actor, AuditAction, Event},
        connector_profiles::OAuthApp,
        id::{AccountId, ProjectId},
    },
    outbound::{CallError, CallErrorKind, ClientScope, Priority, TokenKey},
    store::{
        BeginRefreshResult, CommitPairResult, Destination, PendingPair, RefreshFailure,
        RefreshLease, StoredCredential, Trigger,
    },
    telemetry::metrics::RefreshOutcome,
};

/// A token request is sent only within this time after its lease was requested.
const SEND_DEADLINE: Duration = Duration::from_secs(10);

/// How long an API caller waits for a refresh before it gets `refresh_in_progress`.
const CALLER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a walk waits for a refresh: long enough to take over another process's refresh.
const WALK_TIMEOUT: Duration = Duration::from_secs(90);

/// An access token that expires within this time is refreshed before it is used.
const EXPIRY_MARGIN: Duration = Duration::from_secs(60);

/// The shortest time between a pair's issue and its next refresh, whatever lifetime it has.
const MIN_REFRESH_INTERVAL: Duration = Duration::from_secs(60);

/// How often the store is asked for due credentials.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// How often the store checks whether the database's clock was set back.
const REBASED_EVERY: Duration = Duration::from_secs(60);

/// How often ended connect sessions and sign-ins are cleaned up.
const SWEPT_EVERY: Duration = Duration::from_secs(600);

/// How long connect sessions and sign-ins are kept after they expired.
const ENDED_KEPT_FOR: Duration = Duration::from_secs(86_400);

/// How many due credentials are refreshed at once.
const MAX_CONCURRENT: usize = 32;

/// How often the store is asked whether another process's refresh has ended.
const RECHECK_INTERVAL: Duration = Duration::from_millis(200);

/// The lifetime of an access token if the response does not state it.
const ASSUMED_LIFE: Duration = Duration::from_secs(3600);

/// After a token request that took this long, the access token is not checked, since other
/// processes take over the lease soon.
const TOKEN_CHECK_DEADLINE: Duration = Duration::from_secs(40);

/// The timeout of that check.
const TOKEN_CHECK_TIMEOUT: Duration = Duration::from_secs(20);

/// How often the store is searched for credentials that have been uncertain for too long.
const DOUBTS_ENDED_EVERY: Duration = Duration::from_secs(15);

/// The backoff before the next attempt, by the kind of the last failure: the first wait, and the
/// maximum that doubling reaches.
const AFTER_UNSENT: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(300));
const AFTER_REFUSED: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(900));
const BACKOFF_UNCERTAIN: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(60));

/// The wait before the next attempt for a credential that cannot be decrypted.
const UNREADABLE_AGAIN: Duration = Duration::from_secs(300);

/// The backoff between attempts to store a refresh's result: the first and the longest wait.
const STORE_BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));

/// A pair that the database has not accepted after this time goes to the journal as well. The
/// database may need many seconds to fail, and until then the pair would be in memory only.
const JOURNALED_AFTER: Duration = Duration::from_millis(250);

/// The shutdown grace for refreshes in flight: the timeout of a token request, and time to store
/// the pair.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(70);

/// The number of permits: more than any process has refreshes in flight.
const MAX_IN_FLIGHT: u32 = 1_000_000;

/// The result of a refresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gateway) enum RefreshResult {
    /// There is a new pair, from this process or another.
    Renewed,
    /// There is no new pair. The credential is in this state.
    Not(CredentialState),
    /// There is no result: the refresh did not end in time, could not be carried out, or may not
    /// begin during a shutdown.
    Pending,
    /// The credential has no refresh token, was destroyed, or moved to another installation.
    Never,
}

type RunningRefresh = HashMap<AccountId, watch::Receiver<Option<RefreshResult>>>;

/// The refreshes in flight in this process.
pub(in crate::gateway) struct Refreshes {
    by_account: Mutex<RunningRefresh>,
    /// One permit for each refresh, from before its row is taken until its result is safe. Closed
    /// at shutdown: no refresh begins after that.
    in_flight: Semaphore,
    /// True once the refreshes of earlier runs were recovered.
    is_recovered: AtomicBool,
}

impl Default for Refreshes {
    fn default() -> Self {
        Self {
            by_account: Mutex::default(),
            in_flight: Semaphore::new(MAX_IN_FLIGHT as usize),
            is_recovered: AtomicBool::new(false),
        }
    }
}

impl Credentials<'_> {
    /// Refreshes due credentials, takes over overdue refreshes, and retries uncertain ones. Also
    /// cleans up ended connect sessions. Runs until it is aborted.
    pub async fn keep_refreshing(self) {
        let places = Arc::new(Semaphore::new(MAX_CONCURRENT));
        let (mut swept_at, mut rebased_at, mut doubts_ended_at) = (None, None, None);
        loop {
            self.gateway.0.clock.sleep(POLL_INTERVAL).await;
            let now = self.gateway.0.clock.monotonic();
            let is_due = |at: Option<Duration>, every| {
                at.is_none_or(|then| now.saturating_sub(then) > every)
            };
            if is_due(rebased_at, REBASED_EVERY) {
                match self.gateway.0.store.rebase_refreshes().await {
                    Ok(count) => {
                        rebased_at = Some(now);
                        if count > 0 {
                            tracing::warn!(count, "refreshes due again: the date was set back");
                        }
                    }
                    Err(error) => tracing::debug!(%error, "refreshes not rebased"),
                }
            }
            if is_due(doubts_ended_at, DOUBTS_ENDED_EVERY) {
                doubts_ended_at = Some(now);
                self.expire_uncertain().await;
            }
            if is_due(swept_at, SWEPT_EVERY) {
                swept_at = Some(now);
                self.forget_ended_sessions().await;
                let gateway = self.gateway.clone();
                // In a separate task, so that a provider that does not answer delays no refresh.
                self.gateway.0.runtime.spawn(async move {
                    if let Err(error) = gateway.connect_sessions().drop_ended_drafts().await {
                        tracing::warn!(%error, "what nobody saved could not be dropped");
                    }
                });
            }
            self.recover_refreshes().await;
            let free = u32::try_from(places.available_permits()).unwrap_or(u32::MAX);
            let due = match self.gateway.0.store.due_refreshes(free).await {
                Ok(due) => due,
                Err(error) => {
                    tracing::warn!(%error, "the credentials that are due could not be listed");
                    continue;
                }
            };
            for (project, account) in due {
                let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                    break;
                };
                let gateway = self.gateway.clone();
                self.gateway.0.runtime.spawn(async move {
                    let mut outcome =
                        gateway
                            .credentials()
                            .refresh(&project, account, Trigger::WhenDue);
                    // The sender is not dropped before it has sent.
                    let _ = outcome.wait_for(Option::is_some).await;
                    drop(place);
                });
            }
        }
    }

    /// Makes credentials that have been uncertain for too long usable again.
    async fn expire_uncertain(self) {
        match self.gateway.0.store.expire_uncertain().await {
            Ok(0) => {}
            Ok(ended) => tracing::warn!(
                ended,
                "credentials that were in doubt for long are taken for good again"
            ),
            Err(error) => tracing::warn!(%error, "credentials in doubt could not be looked at"),
        }
    }

    /// Deletes connect sessions and sign-ins a day after they expired. Until then, an expired
    /// `state` gets another error than an unknown one.
    async fn forget_ended_sessions(self) {
        let Ok(before) = self.gateway.0.clock.now().saturating_sub(ENDED_KEPT_FOR) else {
            return;
        };
        if let Err(error) = self.gateway.0.store.forget_ended_sessions(before).await {
            tracing::warn!(%error, "ended connect sessions could not be forgotten");
        }
    }

    /// Refreshes an account's tokens now, whether or not they are due. A refresh token that was
    /// refused before is tried once more. Returns the updated account.
    ///
    /// # Errors
    /// `nothing_to_refresh`, `account_inactive`, `account_not_found`, `refresh_in_progress`,
    /// `credential_locked`, `store_unavailable`.
    pub async fn refresh_now(self, own: &OwnAccount) -> Result<Arc<Account>> {
        let account = &own.account;
        crate::gateway::directory::check_callable(account)?;
        // Report `credential_locked` here: a refresh that fails on it only gives `Pending`.
        self.stored_credential(account).await?;
        let outcome = self
            .refreshed(account, Trigger::Now { generation: None }, CALLER_TIMEOUT)
            .await?;
        match outcome {
            RefreshResult::Pending => return Err(in_progress()),
            RefreshResult::Never => {
                return Err(Error::new(
                    Kind::NothingToRefresh,
                    "this account's credential has no refresh token",
                ));
            }
            RefreshResult::Renewed | RefreshResult::Not(_) => {}
        }
        let account = self
            .gateway
            .0
            .store
            .account(&account.project, account.id)
            .await?;
        account
            .map(Arc::new)
            .ok_or_else(|| Error::new(Kind::AccountNotFound, "there is no such account"))
    }

    /// Opens a session at the provider with the account's stored credential. An access token that
    /// is about to expire is refreshed first. Also returns the credential's lineage, which changes
    /// when the account is linked again.
    ///
    /// # Errors
    /// `account_inactive` if the account has no credential, or the provider no longer accepts its
    /// refresh token; `refresh_in_progress`.
    pub(in crate::gateway) async fn session(
        self,
        account: &Account,
        priority: Priority,
        is_newly_linked: bool,
    ) -> Result<(Session, u64)> {
        let stored = self.usable_credential(account, priority).await?;
        let endpoint = &stored.destination.endpoint;
        self.gateway.0.settings.check_endpoint(endpoint)?;
        let connector = self.gateway.connector(&stored.destination.provider)?;
        let token = stored.credential.access_token();
        let route = ClientScope {
            provider: connector.key(),
            account: account.id.to_string(),
            token: token_key(&stored.credential),
            priority,
            is_newly_linked,
        };
        let caller = self.gateway.0.outbound.caller(route);
        let session = Session::new(endpoint.clone(), token.clone(), caller)
            .assuming(account.assume_user.as_deref());
        let session = match &stored.credential {
            Credential::AccessToken(_) => session,
            Credential::OAuth(_) => session.renewed_by(Arc::new(RenewedByRefresh {
                gateway: self.gateway.clone(),
                account: account.clone(),
                priority,
            })),
        };
        Ok((session, stored.lineage))
    }

    /// The stored credential. An access token that is about to expire is refreshed first.
    async fn usable_credential(
        self,
        account: &Account,
        priority: Priority,
    ) -> Result<StoredCredential> {
        let stored = self.stored_credential(account).await?;
        // Without a refresh token, use the access token until the provider refuses it.
        if stored.credential.refresh_token().is_none() || !self.expires_soon(&stored) {
            return Ok(stored);
        }
        let wanted = Trigger::Now {
            generation: Some(stored.generation),
        };
        match self.refreshed(account, wanted, patience(priority)).await? {
            RefreshResult::Not(CredentialState::ReauthRequired) => {
                Err(crate::gateway::directory::inactive(account))
            }
            RefreshResult::Renewed => self.stored_credential(account).await,
            RefreshResult::Not(_) | RefreshResult::Pending | RefreshResult::Never => {
                let stored = self.stored_credential(account).await?;
                match self.expires_soon(&stored) {
                    // The access token has not expired yet: use it.
                    true if stored.credential.expires_at() > Some(self.gateway.0.clock.now()) => {
                        Ok(stored)
                    }
                    true => Err(in_progress()),
                    false => Ok(stored),
                }
            }
        }
    }

    async fn stored_credential(self, account: &Account) -> Result<StoredCredential> {
        let stored = self
            .gateway
            .0
            .store
            .credential(&account.project, account.id)
            .await?;
        stored.ok_or_else(|| {
            Error::new(
                Kind::AccountInactive,
                "this account was disconnected, and its credential destroyed",
            )
            .with_hint("Link the account again: make a connect session with this account_id.")
        })
    }

    fn expires_soon(self, stored: &StoredCredential) -> bool {
        let soon = self.gateway.0.clock.now().saturating_add(EXPIRY_MARGIN);
        stored
            .credential
            .expires_at()
            .is_some_and(|end| soon.is_ok_and(|soon| end <= soon))
    }

    /// Refreshes an account's tokens, or joins a refresh in flight. Waits for the result at most
    /// for `patience`.
    pub(in crate::gateway) async fn refreshed(
        self,
        account: &Account,
        wanted: Trigger,
        patience: Duration,
    ) -> Result<RefreshResult> {
        let mut outcome = self.refresh(&account.project, account.id, wanted);
        let ended = outcome.wait_for(Option::is_some);
        Ok(match tokio::time::timeout(patience, ended).await {
            Ok(Ok(ended)) => ended.unwrap_or(RefreshResult::Pending),
            Ok(Err(_)) | Err(_) => RefreshResult::Pending,
        })
    }

    /// Begins a refresh of this account, unless one is in flight here. Returns the channel of its
    /// result.
    fn refresh(
        self,
        project: &ProjectId,
        account: AccountId,
        wanted: Trigger,
    ) -> watch::Receiver<Option<RefreshResult>> {
        let refreshes = &self.gateway.0.refreshes;
        let mut running = refreshes.lock();
        if let Some(outcome) = running.get(&account) {
            return outcome.clone();
        }
        let (sender, receiver) = watch::channel(None);
        running.insert(account, receiver.clone());
        drop(running);
        let (gateway, project) = (self.gateway.clone(), project.clone());
        self.gateway.0.runtime.spawn(async move {
            // In a separate task, so that a panic gives a result too.
            let work = gateway.clone();
            let refreshing = tokio::spawn(async move {
                work.credentials()
                    .run_refresh(&project, account, wanted)
                    .await
            });
            let outcome = match refreshing.await {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(error)) => {
                    tracing::warn!(%account, %error, "a refresh could not be carried out");
                    RefreshResult::Pending
                }
                Err(failure) => {
                    tracing::error!(%account, error = %failure, "a refresh failed inside");
                    RefreshResult::Pending
                }
            };
            gateway.0.refreshes.lock().remove(&account);
            sender.send_replace(Some(outcome));
        });
        receiver
    }

    async fn run_refresh(
        self,
        project: &ProjectId,
        id: AccountId,
        wanted: Trigger,
    ) -> Result<RefreshResult> {
        let store = &self.gateway.0.store;
        let Some(account) = store.account(project, id).await? else {
            return Ok(RefreshResult::Never);
        };
        let Ok(in_flight) = self.gateway.0.refreshes.in_flight.try_acquire() else {
            return Ok(RefreshResult::Pending);
        };
        let intent = loop {
            let began_at = self.gateway.0.clock.monotonic();
            let begun = store.begin_refresh(project, id, wanted).await;
            if let Err(error) = &begun
                && error.kind() != Kind::StoreUnavailable
            {
                // Otherwise a credential that cannot be decrypted would stay first in the list of
                // due credentials.
                store
                    .postpone_refresh(project, id, UNREADABLE_AGAIN)
                    .await?;
            }
            match begun? {
                BeginRefreshResult::Never => return Ok(RefreshResult::Never),
                BeginRefreshResult::NotNow => return self.current_result(&account).await,
                BeginRefreshResult::Elsewhere => {
                    // This process redeems nothing, so its shutdown need not wait.
                    drop(in_flight);
                    return self.wait_for_other_process(&account).await;
                }
                BeginRefreshResult::Here(intent) => {
                    let passed = self.gateway.0.clock.monotonic().saturating_sub(began_at);
                    if passed <= SEND_DEADLINE {
                        break intent;
                    }
                    // Other processes take the lease over soon: give it back and start over.
                    store
                        .end_refresh(&intent, RefreshFailure::Unsent, Duration::ZERO)
                        .await?;
                }
            }
        };
        let outcome = self.redeem(&account, &intent, in_flight).await?;
        self.gateway
            .0
            .auth
            .accounts
            .invalidate(&(project.clone(), id));
        Ok(outcome)
    }

    async fn redeem(
        self,
        account: &Account,
        intent: &RefreshLease,
        in_flight: SemaphorePermit<'_>,
    ) -> Result<RefreshResult> {
        let connector = self.gateway.connector(&intent.destination.provider)?;
        let connector = connector.as_ref();
        let request = TokenRequest {
            endpoint: &intent.destination.endpoint,
            app: &intent.app,
            grant: TokenGrant::RefreshToken(&intent.refresh_token),
        };
        let began_at = self.gateway.0.clock.monotonic();
        let issued = self.issue_tokens(connector, request).await;
        let issued = issued.and_then(|issued| self.successor(intent, issued));
        let pair = match issued {
            Ok(pair) => pair,
            Err(mut error) => {
                let unusable = error.unusable.take();
                let took = self.gateway.0.clock.monotonic().saturating_sub(began_at);
                // If the provider refuses the access token too, the refresh token is invalid.
                let is_refused = intent.is_long_in_doubt()
                    && took < TOKEN_CHECK_DEADLINE
                    && self.is_token_refused(account, connector, intent).await;
                let outcome = self
                    .store_failure(account, intent, (&error, is_refused), in_flight)
                    .await;
                if let Some(token) = unusable {
                    self.revoke_issued(account, &intent.destination, token, "unusable")
                        .await;
                }
                return outcome;
            }
        };
        let refresh_at = self.due(&pair);
        let pending = intent.seal(&self.gateway.0.store, &pair, refresh_at);
        let Some(committed) = self.store_pair(&pending, in_flight).await else {
            return Ok(RefreshResult::Pending);
        };
        match committed {
            CommitPairResult::Stored => {
                tracing::info!(
                    account = %account.id,
                    generation = intent.generation + 1,
                    "tokens refreshed"
                );
                Ok(RefreshResult::Renewed)
            }
            // Do not revoke this pair: that might revoke the account's present pair too.
            CommitPairResult::Behind => self.current_result(account).await,
            CommitPairResult::Superseded => {
                tracing::info!(
                    account = %account.id,
                    "a refresh came after the account had another credential"
                );
                let destination = &intent.destination;
                self.revoke_issued(account, destination, pair.access_token, "superseded")
                    .await;
                self.current_result(account).await
            }
        }
    }

    /// The pair that the account has after a refresh. Without a new refresh token, the redeemed one
    /// stays valid (RFC 6749, 6). With a new refresh token but no access token, the former access
    /// token is stored as expired, so that the new refresh token is redeemed before the next call.
    fn successor(
        self,
        intent: &RefreshLease,
        issued: IssuedTokens,
    ) -> Result<TokenPair, TokenError> {
        let is_same =
            |token: &SecretString| token.expose_secret() == intent.refresh_token.expose_secret();
        if issued.access_token.is_none() && issued.refresh_token.as_ref().is_none_or(is_same) {
            let detail = "the reply has the token that was redeemed, and no other";
            return Err(TokenError::new(TokenErrorKind::Doubtful, detail));
        }
        let refresh_token = issued.refresh_token.clone();
        let former = &intent.pair.access_token;
        Ok(TokenPair {
            refresh_token: Some(refresh_token.unwrap_or_else(|| intent.refresh_token.clone())),
            ..self
                .pair_of(issued)
                .unwrap_or_else(|| ended(former.clone(), self.gateway.0.clock.now()))
        })
    }

    /// The pair of a token response that has just arrived; None without an access token.
    pub(in crate::gateway) fn pair_of(self, issued: IssuedTokens) -> Option<TokenPair> {
        let issued_at = self.gateway.0.clock.now();
        Some(TokenPair {
            access_token: issued.access_token?,
            refresh_token: issued.refresh_token,
            issued_at,
            expires_at: later(issued_at, issued.expires_in.unwrap_or(ASSUMED_LIFE)),
        })
    }

    /// Whether the provider refuses this pair's access token before its expiry. Since it is
    /// invalidated together with its refresh token, the refresh token is then invalid too.
    async fn is_token_refused(
        self,
        account: &Account,
        connector: &dyn Connector,
        RefreshLease {
            pair, destination, ..
        }: &RefreshLease,
    ) -> bool {
        // An expired access token is refused in any case, which proves nothing.
        if pair.expires_at <= self.gateway.0.clock.now() {
            return false;
        }
        let route = ClientScope {
            provider: connector.key(),
            account: account.id.to_string(),
            token: TokenKey::of(&pair.access_token),
            priority: Priority::Interactive,
            is_newly_linked: false,
        };
        let caller = self.gateway.0.outbound.caller(route);
        let endpoint = destination.endpoint.clone();
        let session = Session::new(endpoint, pair.access_token.clone(), caller);
        let asked = tokio::time::timeout(TOKEN_CHECK_TIMEOUT, connector.identify(&session));
        match asked.await {
            Ok(Err(error)) => {
                error.kind == CallErrorKind::Unauthorized && !connector.is_expired(&error)
            }
            Ok(Ok(_)) | Err(_) => false,
        }
    }

    /// Stores a pair, and retries until the database accepts it. The permit is released once the
    /// pair is in the journal, so that the retries do not delay a shutdown. Returns None if the
    /// gateway has closed by then: the next run stores the pair from the journal.
    async fn store_pair(
        self,
        pending: &PendingPair,
        in_flight: SemaphorePermit<'_>,
    ) -> Option<CommitPairResult> {
        let store = &self.gateway.0.store;
        let mut in_flight = Some(in_flight);
        let mut is_journaled = false;
        let mut wait = STORE_BACKOFF.0;
        loop {
            // In a separate task, so that the commit is not dropped before it completes.
            let mut commit = {
                let (store, pending) = (store.clone(), pending.clone());
                let commit = async move { store.commit_pair(&pending).await };
                self.gateway.0.runtime.spawn(commit)
            };
            let in_time = tokio::time::timeout(JOURNALED_AFTER, &mut commit).await;
            if !is_journaled && !matches!(in_time, Ok(Ok(Ok(_)))) {
                match store.journal_pair(pending) {
                    Ok(()) => {
                        is_journaled = true;
                        in_flight.take();
                    }
                    Err(error) => tracing::error!(
                        account = %pending.account, %error,
                        "a new pair of tokens is in memory alone"
                    ),
                }
            }
            let outcome = match in_time {
                Ok(outcome) => outcome,
                Err(_) => commit.await,
            };
            match outcome.map_err(Error::internal).flatten() {
                Ok(committed) => {
                    self.gateway.0.metrics.refresh(if is_journaled {
                        RefreshOutcome::Journalled
                    } else {
                        RefreshOutcome::Refreshed
                    });
                    if is_journaled {
                        store.unjournal_pair(pending);
                    }
                    return Some(committed);
                }
                Err(error) => {
                    tracing::error!(
                        account = %pending.account, %error,
                        "a new pair of tokens is not stored yet"
                    );
                }
            }
            if is_journaled && self.gateway.0.background.has_closed.load(Ordering::Relaxed) {
                return None;
            }
            self.gateway.0.clock.sleep(wait).await;
            wait = (wait * 2).min(STORE_BACKOFF.1);
        }
    }

    /// Stores the failure of a refresh, and returns the credential's state after it.
    async fn store_failure(
        self,
        account: &Account,
        intent: &RefreshLease,
        (error, is_token_refused): (&TokenError, bool),
        in_flight: SemaphorePermit<'_>,
    ) -> Result<RefreshResult> {
        let (end, bounds) = match error.kind {
            // A wrong client secret does not prove that the refresh token is invalid.
            TokenErrorKind::AppRefused | TokenErrorKind::UnknownApp => {
                (RefreshFailure::AppRefused, AFTER_REFUSED)
            }
            _ if is_token_refused => (RefreshFailure::TokenRefused, AFTER_REFUSED),
            TokenErrorKind::Unsent => (RefreshFailure::Unsent, AFTER_UNSENT),
            TokenErrorKind::Doubtful => (RefreshFailure::Doubtful, BACKOFF_UNCERTAIN),
            TokenErrorKind::InvalidGrant | TokenErrorKind::GrantExpired => {
                (RefreshFailure::InvalidGrant, BACKOFF_UNCERTAIN)
            }
            TokenErrorKind::RedirectMismatch
            | TokenErrorKind::Throttled
            | TokenErrorKind::Refused => (RefreshFailure::Refused, AFTER_REFUSED),
        };
        self.gateway.0.metrics.refresh(match end {
            RefreshFailure::InvalidGrant | RefreshFailure::TokenRefused => RefreshOutcome::Refused,
            RefreshFailure::Doubtful => RefreshOutcome::Unanswered,
            RefreshFailure::Unsent | RefreshFailure::Refused | RefreshFailure::AppRefused => {
                RefreshOutcome::Failed
            }
        });
        let again_after = doubled(bounds, intent.attempts);
        let mut wait = STORE_BACKOFF.0;
        let mut in_flight = Some(in_flight);
        // Retry until the store has the failure: otherwise other processes find the row in flight
        // and redeem the token again. Release the permit after the first attempt, since the retries
        // must not delay a shutdown.
        let state = loop {
            match self
                .gateway
                .0
                .store
                .end_refresh(intent, end, again_after)
                .await
            {
                Ok(state) => break state,
                Err(failure) if failure.kind() == Kind::StoreUnavailable => {
                    in_flight.take();
                    self.gateway.0.clock.sleep(wait).await;
                    wait = (wait * 2).min(STORE_BACKOFF.1);
                }
                Err(failure) => return Err(failure),
            }
        };
        tracing::warn!(
            account = %account.id,
            outcome = ?error.kind,
            state = state.map(CredentialState::as_str),
            status = error.status,
            code = error.code,
            fault = error.detail,
            "tokens not refreshed"
        );
        match state {
            Some(state) => Ok(RefreshResult::Not(state)),
            None => self.current_result(account).await,
        }
    }

    /// The result that the row's state shows, if this process did not refresh the tokens.
    async fn current_result(self, account: &Account) -> Result<RefreshResult> {
        let stored = self
            .gateway
            .0
            .store
            .credential(&account.project, account.id)
            .await?;
        Ok(match stored.map(|stored| stored.state) {
            None => RefreshResult::Never,
            Some(CredentialState::Healthy) => RefreshResult::Renewed,
            Some(state) => RefreshResult::Not(state),
        })
    }

    /// Waits for another process's refresh, at most for [`WALK_TIMEOUT`].
    async fn wait_for_other_process(self, account: &Account) -> Result<RefreshResult> {
        let clock = &self.gateway.0.clock;
        let began_at = clock.monotonic();
        loop {
            match self.current_result(account).await? {
                RefreshResult::Not(CredentialState::Refreshing | CredentialState::Uncertain)
                    if clock.monotonic().saturating_sub(began_at) < WALK_TIMEOUT =>
                {
                    clock.sleep(RECHECK_INTERVAL).await;
                }
                outcome => return Ok(outcome),
            }
        }
    }

    /// Redeems a grant, if the operator allows calls to this endpoint.
    pub(in crate::gateway) async fn issue_tokens(
        self,
        connector: &dyn Connector,
        request: TokenRequest<'_>,
    ) -> Result<IssuedTokens, TokenError> {
        if let Err(error) = self.gateway.0.settings.check_endpoint(request.endpoint) {
            return Err(TokenError::new(TokenErrorKind::Unsent, error.to_string()));
        }
        connector
            .issue_tokens(&self.gateway.0.outbound, request)
            .await
    }

    /// Revokes a token that is not stored (any more), and with it the other token of its pair.
    pub(in crate::gateway) async fn revoke_token(
        self,
        connector: &dyn Connector,
        (of, endpoint): (String, &Endpoint),
        token: SecretString,
    ) -> Result<(), CallError> {
        if let Err(error) = self.gateway.0.settings.check_endpoint(endpoint) {
            return Err(CallError::new(CallErrorKind::Refused, error.to_string()));
        }
        let route = ClientScope {
            provider: connector.key(),
            account: of,
            token: TokenKey::of(&token),
            priority: Priority::Interactive,
            is_newly_linked: false,
        };
        let caller = self.gateway.0.outbound.caller(route);
        let session = Session::new(endpoint.clone(), token, caller);
        connector.revoke(&session).await
    }

    /// Tries to revoke a pair that was just issued and is not stored. Returns whether the provider
    /// no longer accepts it.
    pub(in crate::gateway) async fn revoke_unstored(
        self,
        connector: &dyn Connector,
        endpoint: &Endpoint,
        token: SecretString,
    ) -> bool {
        let of = (UNKEPT.to_owned(), endpoint);
        let revoked = self.revoke_token(connector, of, token).await;
        is_gone(revoked)
    }

    /// Tries to revoke a pair that was issued some time ago. Returns whether the provider no longer
    /// accepts it. If the access token has expired, it may revoke nothing, and the refresh token
    /// would stay valid. In that case the refresh token is redeemed, and the new pair is revoked.
    pub(in crate::gateway) async fn revoke_draft_pair(
        self,
        connector: &dyn Connector,
        endpoint: &Endpoint,
        (pair, app): (&TokenPair, &OAuthApp),
    ) -> bool {
        let of = (UNKEPT.to_owned(), endpoint);
        let token = pair.access_token.clone();
        let revoked = self.revoke_token(connector, of, token).await;
        let is_over = |error: &CallError| {
            error.kind == CallErrorKind::Unauthorized && connector.is_expired(error)
        };
        let Some(refresh_token) = &pair.refresh_token else {
            return is_gone(revoked);
        };
        if !revoked.as_ref().is_err_and(is_over) {
            return is_gone(revoked);
        }
        let request = TokenRequest {
            endpoint,
            app,
            grant: TokenGrant::RefreshToken(refresh_token),
        };
        let issued = self.issue_tokens(connector, request).await;
        let token = match issued {
            Ok(issued) => issued.access_token,
            Err(error) => match error.kind {
                TokenErrorKind::InvalidGrant | TokenErrorKind::GrantExpired => return true,
                _ => error.unusable,
            },
        };
        match token {
            Some(token) => self.revoke_unstored(connector, endpoint, token).await,
            None => false,
        }
    }

    /// When a pair is due to be refreshed; None without a refresh token.
    pub(in crate::gateway) fn refresh_at(self, pair: &TokenPair) -> Option<Timestamp> {
        pair.refresh_token.as_ref().map(|_| self.due(pair))
    }

    /// After 50 to 80 % of the pair's lifetime, at random: pairs that were issued together are not
    /// refreshed together. The minimum keeps a pair with a lifetime of zero from being due at once,
    /// again and again.
    fn due(self, pair: &TokenPair) -> Timestamp {
        let life = since(pair.expires_at, pair.issued_at);
        let [a, b] = self.gateway.0.rng.bytes::<2>();
        let part = f64::from(u16::from_be_bytes([a, b])) / f64::from(u16::MAX);
        later(
            pair.issued_at,
            life.mul_f64(0.5 + 0.3 * part).max(MIN_REFRESH_INTERVAL),
        )
    }
}

impl Refreshes {
    fn lock(&self) -> MutexGuard<'_, RunningRefresh> {
        self.by_account
            .lock()
            .expect("no holder of this lock panics")
    }
}

/// Refreshes the account's tokens when the provider refuses a session's access token.
struct RenewedByRefresh {
    gateway: Gateway,
    account: Account,
    priority: Priority,
}

#[async_trait]
impl Renewal for RenewedByRefresh {
    async fn renew(&self, refused: &SecretString) -> Option<SecretString> {
        let (gateway, account) = (&self.gateway, &self.account);
        let current = async || {
            let stored = gateway.0.store.credential(&account.project, account.id);
            stored.await.ok().flatten()
        };
        let is_other = |stored: &StoredCredential| {
            stored.credential.access_token().expose_secret() != refused.expose_secret()
        };
        let stored = current().await?;
        // The tokens were refreshed since the session got its access token.
        if is_other(&stored) {
            return Some(stored.credential.access_token().clone());
        }
        let wanted = Trigger::Now {
            generation: Some(stored.generation),
        };
        let outcome = gateway
            .credentials()
            .refreshed(account, wanted, patience(self.priority))
            .await;
        if let Err(error) = outcome {
            tracing::debug!(account = %account.id, %error, "no other access token");
        }
        let stored = current().await?;
        is_other(&stored).then(|| stored.credential.access_token().clone())
    }
}

/// The label, in place of an account's id, of calls that revoke tokens of no account.
const UNKEPT: &str = "unkept";

/// Whether the provider no longer accepts a token, by the result of its revocation.
fn is_gone(revoked: Result<(), CallError>) -> bool {
    match revoked {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(%error, "a pair of tokens that nobody keeps could not be revoked");
            error.kind == CallErrorKind::Unauthorized
        }
    }
}

/// A pair without a valid access token: the former one, marked as expired.
fn ended(former: SecretString, now: Timestamp) -> TokenPair {
    TokenPair {
        access_token: former,
        refresh_token: None,
        issued_at: now,
        expires_at: now,
    }
}

const fn patience(priority: Priority) -> Duration {
    match priority {
        Priority::Interactive => CALLER_TIMEOUT,
        Priority::Background => WALK_TIMEOUT,
    }
}

fn in_progress() -> Error {
    Error::new(
        Kind::RefreshInProgress,
        "the access token of this account is being refreshed",
    )
    .with_retry_after(CALLER_TIMEOUT)
}

fn later(moment: Timestamp, by: Duration) -> Timestamp {
    moment.saturating_add(by).unwrap_or(Timestamp::MAX)
}

/// The backoff after this many failed attempts.
fn doubled((first, most): (Duration, Duration), attempts: u64) -> Duration {
    let doublings = u32::try_from(attempts).unwrap_or(u32::MAX).min(16);
    (first * 2_u32.pow(doublings)).min(most)
}

impl Credentials<'_> {
    /// Stores the journaled pairs of this node's earlier runs, and takes over their refreshes in
    /// flight. Does nothing once it has succeeded; until then each call tries again.
    pub(in crate::gateway) async fn recover_refreshes(self) {
        let is_recovered = &self.gateway.0.refreshes.is_recovered;
        if is_recovered.load(Ordering::Relaxed) {
            return;
        }
        match self.gateway.0.store.recover_refreshes().await {
            Ok(None) => {}
            Ok(Some(recovered)) => {
                is_recovered.store(true, Ordering::Relaxed);
                if recovered.stored + recovered.taken_over > 0 {
                    tracing::info!(
                        stored = recovered.stored,
                        taken_over = recovered.taken_over,
                        "refreshes of an earlier run of this process were seen to"
                    );
                }
                let gateway = self.gateway.clone();
                // In a separate task, so that the caller does not wait for a provider.
                self.gateway.0.runtime.spawn(async move {
                    for pair in recovered.superseded {
                        match gateway.credentials().revoke_journaled(&pair).await {
                            Ok(true) => gateway.0.store.unjournal_pair(&pair),
                            Ok(false) => {}
                            Err(error) => tracing::error!(
                                account = %pair.account, %error,
                                "a pair of tokens that nobody keeps is left in the journal"
                            ),
                        }
                    }
                });
            }
            Err(error) => {
                tracing::error!(%error, "refreshes of an earlier run were not seen to yet");
            }
        }
    }

    /// Revokes a pair that an earlier run left in the journal, and that its account no longer uses.
    /// Returns whether nothing is left that can be revoked. If false, the next start tries again.
    async fn revoke_journaled(self, pair: &PendingPair) -> Result<bool> {
        let store = &self.gateway.0.store;
        let account = store.account(&pair.project, pair.account).await?;
        let (Some(account), Some((opened, destination))) = (account, store.open_pair(pair).await?)
        else {
            // The account, the destination or the data key is gone: the pair cannot be revoked.
            tracing::warn!(
                account = %pair.account,
                "a pair of tokens is dropped whose account was purged; it was not revoked"
            );
            return Ok(true);
        };
        let token = opened.access_token;
        Ok(self
            .revoke_issued(&account, &destination, token, "superseded")
            .await)
    }

    /// Revokes issued tokens that the account does not keep, and writes the result to the audit log
    /// with the reason. Returns whether the provider no longer accepts them.
    async fn revoke_issued(
        self,
        account: &Account,
        destination: &Destination,
        token: SecretString,
        reason: &'static str,
    ) -> bool {
        let endpoint = &destination.endpoint;
        let is_revoked = match self.gateway.connector(&destination.provider) {
            Ok(connector) => {
                self.revoke_unstored(connector.as_ref(), endpoint, token)
                    .await
            }
            Err(_) => false,
        };
        tracing::info!(
            account = %account.id, is_revoked, reason,
            "tokens that were issued are not kept"
        );
        let action = if is_revoked {
            AuditAction::CredentialRevoked
        } else {
            AuditAction::CredentialRevokeRefused
        };
        let event = Event::new(Actor::System, action, account.id).with("reason", reason);
        if let Err(error) = self.gateway.0.store.note(&account.project, event).await {
            tracing::error!(
                account = %account.id, %error,
                "what became of a token is not in the audit log"
            );
        }
        is_revoked
    }

    /// Whether there are refreshes that [`Credentials::end_refreshes`] waits for.
    pub(in crate::gateway) fn is_refreshing(self) -> bool {
        self.gateway.0.refreshes.in_flight.available_permits() < MAX_IN_FLIGHT as usize
    }

    /// Waits until every refresh in flight has its result in the database or the journal, at most
    /// for [`SHUTDOWN_GRACE`]. No refresh begins here any more.
    pub(in crate::gateway) async fn end_refreshes(self) {
        let in_flight = &self.gateway.0.refreshes.in_flight;
        let all = in_flight.acquire_many(MAX_IN_FLIGHT);
        if tokio::time::timeout(SHUTDOWN_GRACE, all).await.is_err() {
            tracing::error!("a refresh did not end in time");
        }
        in_flight.close();
    }
}
