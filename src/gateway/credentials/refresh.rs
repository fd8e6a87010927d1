//! Refreshing OAuth tokens whose refresh token is good once: ahead of time, when an access token
//! was refused, and when somebody asks.
//!
//! The rows' part (who may redeem, what an outcome means) is
//! [`Store::begin_refresh`](crate::store::Store::begin_refresh) and its neighbours. Here is the
//! order in which things happen, all of it in a task that nobody's disconnect ends:
//!
//! 1. Take the row. If more than [`SEND_DEADLINE`] has passed since, send nothing and start over:
//!    others would take it over before an answer must have come.
//! 2. Send once, with a minute to be answered.
//! 3. Store what came before anything uses it. What the database does not take at once waits in the
//!    journal and is tried again for ever.
//!
//! In one process, who asks for the refresh of an account that is being refreshed waits for that
//! one; with another process it is the row that tells.

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

/// After this much of an intent's time nothing is sent any more.
const SEND_DEADLINE: Duration = Duration::from_secs(10);

/// How long a caller waits for a refresh before they are told to come back.
const CALLER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a walk waits for one: past the take-over of another process's.
const A_WALK_WAITS: Duration = Duration::from_secs(90);

/// An access token that ends within this is refreshed before it is used.
const NEAR_ITS_END: Duration = Duration::from_secs(60);

/// A pair is not due sooner after its issue than this, however short a life it is said to have.
const MIN_REFRESH_INTERVAL: Duration = Duration::from_secs(60);

/// How often it is looked what is due.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// How often it is looked whether the database's date was set back.
const REBASED_EVERY: Duration = Duration::from_secs(60);

/// How often ended invitations are looked for, and how long they are kept.
const SWEPT_EVERY: Duration = Duration::from_secs(600);
const ENDED_KEPT_FOR: Duration = Duration::from_secs(86_400);

/// How many are refreshed at once.
const MAX_CONCURRENT: usize = 32;

/// How often it is looked whether another process's refresh has ended.
const RECHECK_INTERVAL: Duration = Duration::from_millis(200);

/// How long an access token is taken to live whose provider does not say.
const ASSUMED_LIFE: Duration = Duration::from_secs(3600);

/// After so much of an intent's time nothing else is asked, since others take it over soon; and so
/// long it is waited for.
const ASKED_UNTIL: Duration = Duration::from_secs(40);
const ASKED_FOR: Duration = Duration::from_secs(20);

/// How often it is looked for what has been in doubt for too long.
const DOUBTS_ENDED_EVERY: Duration = Duration::from_secs(15);

/// The waits before another try, by why the last came to nothing: the first, and the longest that
/// doubling it comes to.
const AFTER_UNSENT: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(300));
const AFTER_REFUSED: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(900));
const BACKOFF_UNCERTAIN: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(60));

/// The wait before a credential that could not be read is looked at again.
const UNREADABLE_AGAIN: Duration = Duration::from_secs(300);

/// The waits between tries to store a pair.
const STORED_AGAIN: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));

/// After this a pair that the database has not taken yet goes to the journal as well. The database
/// may need many seconds to say no, and until then the pair would be in memory alone.
const JOURNALED_AFTER: Duration = Duration::from_millis(250);

/// How long this process waits, when it ends, for what it has in hand: for as long as an answer
/// may take, and its storing.
const ENDED_WITHIN: Duration = Duration::from_secs(70);

/// As many as any process has in hand.
const MAX_IN_FLIGHT: u32 = 1_000_000;

/// What a refresh came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gateway) enum RefreshResult {
    /// There is a new pair, of this process's or another's making.
    Renewed,
    /// There is none, and the credential is in this state.
    Not(CredentialState),
    /// It had not ended when nobody wanted to wait any longer.
    Pending,
    /// There is no refresh token, or it is another installation's.
    Never,
}

type RunningRefresh = HashMap<AccountId, watch::Receiver<Option<RefreshResult>>>;

/// The refreshes that run in this process.
pub(in crate::gateway) struct Refreshes {
    by_account: Mutex<RunningRefresh>,
    /// A permit each from before the row is taken until what came of it is safe. Closed once this
    /// process ends: from then on none begins.
    in_flight: Semaphore,
    /// Whether what earlier runs left was seen to.
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
    /// Refreshes what is due, takes over what is overdue, and tries again what is in doubt, until
    /// it is aborted.
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
                self.end_doubts().await;
            }
            if is_due(swept_at, SWEPT_EVERY) {
                swept_at = Some(now);
                self.forget_ended_sessions().await;
                let gateway = self.gateway.clone();
                // A provider that does not answer keeps no refresh waiting.
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
                    // Nobody drops the sender before it has sent.
                    let _ = outcome.wait_for(Option::is_some).await;
                    drop(place);
                });
            }
        }
    }

    /// What nobody can tell is not in doubt for ever.
    async fn end_doubts(self) {
        match self.gateway.0.store.end_doubts().await {
            Ok(0) => {}
            Ok(ended) => tracing::warn!(
                ended,
                "credentials that were in doubt for long are taken for good again"
            ),
            Err(error) => tracing::warn!(%error, "credentials in doubt could not be looked at"),
        }
    }

    /// Invitations and sign-ins that ended are told apart from what never was for a day.
    async fn forget_ended_sessions(self) {
        let Ok(before) = self.gateway.0.clock.now().saturating_sub(ENDED_KEPT_FOR) else {
            return;
        };
        if let Err(error) = self.gateway.0.store.forget_ended_sessions(before).await {
            tracing::warn!(%error, "ended connect sessions could not be forgotten");
        }
    }

    /// Refreshes an account's tokens now, whether or not they are due; a refresh token that was
    /// refused before is tried once more. Gives the account as it is then.
    ///
    /// # Errors
    /// `nothing_to_refresh`, `account_inactive`, `refresh_in_progress`, `store_unavailable`.
    pub async fn refresh_now(self, own: &OwnAccount) -> Result<Arc<Account>> {
        let account = &own.account;
        crate::gateway::directory::check_callable(account)?;
        // What is locked is told as such.
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

    /// A way to the provider with the account's stored credential, refreshed if it is near its
    /// end, and the credential's lineage.
    ///
    /// # Errors
    /// `account_inactive` if it has none, or the provider no longer takes the one that it has;
    /// `refresh_in_progress`.
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

    /// The stored credential, with an access token that has not ended.
    async fn usable_credential(
        self,
        account: &Account,
        priority: Priority,
    ) -> Result<StoredCredential> {
        let stored = self.stored_credential(account).await?;
        // What has no successor is used until the provider refuses it.
        if stored.credential.refresh_token().is_none() || !self.is_near_its_end(&stored) {
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
                match self.is_near_its_end(&stored) {
                    // What is left of it may still do.
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

    fn is_near_its_end(self, stored: &StoredCredential) -> bool {
        let soon = self.gateway.0.clock.now().saturating_add(NEAR_ITS_END);
        stored
            .credential
            .expires_at()
            .is_some_and(|end| soon.is_ok_and(|soon| end <= soon))
    }

    /// Refreshes and waits for the outcome, whoever brings it about.
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

    /// The outcome of a refresh of this account: of the one that runs, or of one that begins.
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
            // In a task of its own, so that a panic in it is an outcome too.
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
                // What does not open would else be first among the due for ever.
                store
                    .postpone_refresh(project, id, UNREADABLE_AGAIN)
                    .await?;
            }
            match begun? {
                BeginRefreshResult::Never => return Ok(RefreshResult::Never),
                BeginRefreshResult::NotNow => return self.as_it_is(&account).await,
                BeginRefreshResult::Elsewhere => {
                    drop(in_flight);
                    return self.ended_elsewhere(&account).await;
                }
                BeginRefreshResult::Here(intent) => {
                    let passed = self.gateway.0.clock.monotonic().saturating_sub(began_at);
                    if passed <= SEND_DEADLINE {
                        break intent;
                    }
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
                let is_refused = intent.is_long_in_doubt()
                    && took < ASKED_UNTIL
                    && self.is_token_refused(account, connector, intent).await;
                let outcome = self
                    .not_redeemed(account, intent, (&error, is_refused), in_flight)
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
            CommitPairResult::Behind => self.as_it_is(account).await,
            CommitPairResult::Superseded => {
                tracing::info!(
                    account = %account.id,
                    "a refresh came after the account had another credential"
                );
                let destination = &intent.destination;
                self.revoke_issued(account, destination, pair.access_token, "superseded")
                    .await;
                self.as_it_is(account).await
            }
        }
    }

    /// What the account goes on with. A refresh token stays good where no other comes (RFC 6749, 6).
    /// Where there is another and no access token, the former pair's is put in its place as one
    /// that has ended, so that the new refresh token is redeemed before anything is called.
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

    /// A pair that was just issued; None without an access token.
    pub(in crate::gateway) fn pair_of(self, issued: IssuedTokens) -> Option<TokenPair> {
        let issued_at = self.gateway.0.clock.now();
        Some(TokenPair {
            access_token: issued.access_token?,
            refresh_token: issued.refresh_token,
            issued_at,
            expires_at: later(issued_at, issued.expires_in.unwrap_or(ASSUMED_LIFE)),
        })
    }

    /// Whether the provider says that it does not take this pair's access token, which would be
    /// good for some time yet: it ends with its refresh token.
    async fn is_token_refused(
        self,
        account: &Account,
        connector: &dyn Connector,
        RefreshLease {
            pair, destination, ..
        }: &RefreshLease,
    ) -> bool {
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
        let asked = tokio::time::timeout(ASKED_FOR, connector.identify(&session));
        match asked.await {
            Ok(Err(error)) => {
                error.kind == CallErrorKind::Unauthorized && !connector.is_expired(&error)
            }
            Ok(Ok(_)) | Err(_) => false,
        }
    }

    /// Stores a pair, however long the database does not take it. It is out of hand once the
    /// journal has it, which is soon; a gateway that has closed leaves it there (None), since the
    /// next run needs the journal.
    async fn store_pair(
        self,
        pending: &PendingPair,
        in_flight: SemaphorePermit<'_>,
    ) -> Option<CommitPairResult> {
        let store = &self.gateway.0.store;
        let mut in_flight = Some(in_flight);
        let mut is_journaled = false;
        let mut wait = STORED_AGAIN.0;
        loop {
            // In a task of its own, since nobody may drop it on its way.
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
            wait = (wait * 2).min(STORED_AGAIN.1);
        }
    }

    async fn not_redeemed(
        self,
        account: &Account,
        intent: &RefreshLease,
        (error, is_token_refused): (&TokenError, bool),
        in_flight: SemaphorePermit<'_>,
    ) -> Result<RefreshResult> {
        let (end, bounds) = match error.kind {
            // A wrong secret of the app's kills no account.
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
        let mut wait = STORED_AGAIN.0;
        let mut in_flight = Some(in_flight);
        // What came of it is worth as much as a pair: without it, others find the row in flight
        // and replay. But it is not worth keeping a process from its end.
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
                    wait = (wait * 2).min(STORED_AGAIN.1);
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
            None => self.as_it_is(account).await,
        }
    }

    /// What the row says, where this process did nothing about it.
    async fn as_it_is(self, account: &Account) -> Result<RefreshResult> {
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

    /// Waits for a refresh that another process makes.
    async fn ended_elsewhere(self, account: &Account) -> Result<RefreshResult> {
        let clock = &self.gateway.0.clock;
        let began_at = clock.monotonic();
        loop {
            match self.as_it_is(account).await? {
                RefreshResult::Not(CredentialState::Refreshing | CredentialState::Uncertain)
                    if clock.monotonic().saturating_sub(began_at) < A_WALK_WAITS =>
                {
                    clock.sleep(RECHECK_INTERVAL).await;
                }
                outcome => return Ok(outcome),
            }
        }
    }

    /// Redeems a grant, where the operator lets this endpoint be called.
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

    /// Revokes a token that is stored nowhere (any more), and with it the pair that it is of.
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

    /// Revokes a pair that was issued and that nobody keeps, as far as that succeeds. Whether the
    /// provider takes it no more.
    pub(in crate::gateway) async fn revoke_unkept(
        self,
        connector: &dyn Connector,
        endpoint: &Endpoint,
        token: SecretString,
    ) -> bool {
        let of = (UNKEPT.to_owned(), endpoint);
        let revoked = self.revoke_token(connector, of, token).await;
        is_gone(revoked)
    }

    /// The same for a pair that has waited, whose access token may have ended meanwhile: that one
    /// may revoke nothing any more, and the refresh token goes on. So it is redeemed, and what it
    /// brings is revoked.
    pub(in crate::gateway) async fn revoke_waiting(
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
            Some(token) => self.revoke_unkept(connector, endpoint, token).await,
            None => false,
        }
    }

    /// When a pair is refreshed; None if it cannot be.
    pub(in crate::gateway) fn refresh_at(self, pair: &TokenPair) -> Option<Timestamp> {
        pair.refresh_token.as_ref().map(|_| self.due(pair))
    }

    /// After 50 to 80 % of its life, so that those that were issued together are not refreshed
    /// together. A pair that is said to have no life is not due at once, for ever.
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

/// A session's next access token is what a refresh brings.
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

/// Whose calls those are that revoke what no account has.
const UNKEPT: &str = "unkept";

/// Whether the provider no longer takes a token, after it was told so.
fn is_gone(revoked: Result<(), CallError>) -> bool {
    match revoked {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(%error, "a pair of tokens that nobody keeps could not be revoked");
            error.kind == CallErrorKind::Unauthorized
        }
    }
}

/// A pair of which there is no access token yet.
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
        Priority::Background => A_WALK_WAITS,
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

/// The wait after so many tries that came to nothing.
fn doubled((first, most): (Duration, Duration), attempts: u64) -> Duration {
    let doublings = u32::try_from(attempts).unwrap_or(u32::MAX).min(16);
    (first * 2_u32.pow(doublings)).min(most)
}

impl Credentials<'_> {
    /// Stores what this node's earlier runs could not, and takes over what they had in flight;
    /// once, but tried again for as long as the store does not let it.
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
                // Whoever serves does not wait for a provider.
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

    /// Revokes a pair that an earlier run left in the journal, of an account that has no use for it
    /// any more. Whether nothing is left to revoke; if something is, the next start tries again.
    async fn revoke_journaled(self, pair: &PendingPair) -> Result<bool> {
        let store = &self.gateway.0.store;
        let account = store.account(&pair.project, pair.account).await?;
        let (Some(account), Some((opened, destination))) = (account, store.open_pair(pair).await?)
        else {
            // Nothing tells any more where it was issued, or the key to it was destroyed.
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

    /// Revokes tokens that were issued and that the account does not keep, and tells so in the audit
    /// log with the reason. Whether the provider takes them no more.
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
                self.revoke_unkept(connector.as_ref(), endpoint, token)
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

    /// Whether there is anything that [`Credentials::end_refreshes`](crate::gateway::credentials::Credentials::end_refreshes) waits for.
    pub(in crate::gateway) fn is_refreshing(self) -> bool {
        self.gateway.0.refreshes.in_flight.available_permits() < MAX_IN_FLIGHT as usize
    }

    /// Waits until nothing that was redeemed is in this process alone; from now on no refresh
    /// begins here.
    pub(in crate::gateway) async fn end_refreshes(self) {
        let in_flight = &self.gateway.0.refreshes.in_flight;
        let all = in_flight.acquire_many(MAX_IN_FLIGHT);
        if tokio::time::timeout(ENDED_WITHIN, all).await.is_err() {
            tracing::error!("a refresh did not end in time");
        }
        in_flight.close();
    }
}
