//! Runs one walk: credential, identity, users, groups, members, assessment, look-ups, seal.
//! `outcome` stores the outcome and updates memory.
//!
//! A walk reads users before groups
//! ([ADR 2](../../../docs/adr/0002-users-are-read-before-groups.md)). A user who joins between the
//! two reads appears in this walk as an external member of a group. The next walk corrects it,
//! because it always reads all users. In the opposite order, a user who leaves in between would
//! remain an external member until that group is read again.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use jiff::Timestamp;

use super::{
    Gateway, LiveAccount, WalkHandle,
    failure::WalkFailure,
    fetch::Reader,
    outcome::{WalkOutcome, log},
    state::LoadedDirectory,
};
use crate::gateway::Inner;
use crate::{
    clock::since,
    connectors::{Connector, Session},
    directory::{
        Directory, Evidence, FetchedDirectory, Policy, Resource, SealResult, assess,
        plan_group_reads, plausible_rows,
    },
    error::{Error, Kind},
    model::{
        accounts::{Account, Credential, CredentialState},
        id::WalkId,
        walks::{Walk, WalkReason, WalkState},
    },
    outbound::{AccountClient, Priority},
    store::{BeginWalkResult, Hold},
};

/// For this long after linking, the rate limit of the account's token counts as unused.
const NEWLY_LINKED: Duration = Duration::from_secs(60);

/// Reading unchanged groups again may use this fraction (a fifth) of the calls that the rate limit
/// allows within `walk.fresh_seconds`. Look-ups may use as many.
const PART_OF_BUDGET: u64 = 5;

/// Time between two checks whether a walk of another process has ended.
const RECHECK_INTERVAL: Duration = Duration::from_millis(250);

/// Minimum number of unchanged groups that a walk may read again, however low the rate limit.
const LEAST_GROUPS: u64 = 25;

/// A running walk.
pub(super) struct WalkRun<'a> {
    pub gateway: &'a Gateway,
    pub live: &'a Arc<LiveAccount>,
    pub handle: &'a WalkHandle,
    pub started_at: Timestamp,
    pub caller: Option<AccountClient>,
    /// The number of the credential that the walk reads with, once it is known.
    pub lineage: Option<u64>,
}

/// Runs a walk, commits it, and logs the outcome.
pub(super) async fn walk(
    gateway: Gateway,
    live: Arc<LiveAccount>,
    handle: Arc<WalkHandle>,
) -> Walk {
    let mut walker = WalkRun {
        gateway: &gateway,
        live: &live,
        handle: &handle,
        started_at: gateway.0.clock.now(),
        caller: None,
        lineage: None,
    };
    let walk = match walker.walk().await {
        Ok(walk) => walk,
        Err(stop) => walker.fail(stop).await,
    };
    log(&live, &walk);
    walk
}

/// Stores and logs the failure of a walk whose task panicked or was canceled.
pub(super) async fn after_panic(
    gateway: &Gateway,
    live: &Arc<LiveAccount>,
    handle: &WalkHandle,
    failure: &tokio::task::JoinError,
) -> Walk {
    let walker = WalkRun {
        gateway,
        live,
        handle,
        started_at: handle.asked_at,
        caller: None,
        lineage: None,
    };
    let reason = if failure.is_cancelled() {
        WalkReason::Interrupted
    } else {
        WalkReason::Internal
    };
    let walk = walker.fail(reason.into()).await;
    log(live, &walk);
    walk
}

impl WalkRun<'_> {
    async fn walk(&mut self) -> Result<Walk, WalkFailure> {
        let inner = &self.gateway.0;
        let (project, id) = (&self.live.project, self.live.account);
        let account = inner
            .store
            .account(project, id)
            .await?
            .ok_or_else(|| Error::new(Kind::AccountNotFound, "there is no such account"))?;
        if let Some(walk) = self.begin().await? {
            return Ok(walk);
        }
        self.gateway.directory().catch_up_now(self.live).await?;

        let connector = self.gateway.connector(&account.provider)?;
        let is_newly_linked = since(self.started_at, account.created_at) < NEWLY_LINKED;
        let (session, lineage) = self
            .gateway
            .credentials()
            .session(&account, Priority::Background, is_newly_linked)
            .await?;
        self.caller = Some(session.caller());
        self.lineage = Some(lineage);
        {
            // From here on, a request that needs newer data must not attach to this walk.
            let _slots = self
                .live
                .queue
                .lock()
                .expect("no holder of this lock panics");
            self.handle.is_calling.store(true, Ordering::Relaxed);
        }
        let started_at = inner.clock.now();
        let reading = match self.read(&account, connector.as_ref(), &session).await {
            Ok(reading) => reading,
            Err(stop) => {
                return Err(self
                    .refusal_confirmed(stop, connector.as_ref(), &session)
                    .await);
            }
        };

        let _judgement = self.live.judgement.lock().await;
        // Another process may have published a version meanwhile, such as a released walk.
        self.gateway.directory().catch_up_now(self.live).await?;
        let now = inner.store.credential(project, id).await?;
        // The credential was replaced during the walk.
        if now.is_none_or(|now| now.lineage != lineage) {
            return Err(WalkReason::Interrupted.into());
        }
        self.judge(&account, connector.as_ref(), &session, reading, started_at)
            .await
    }

    /// Starts once no other walk of this account runs in any process. If it had to wait for a walk
    /// of another process and no request needs a walk of its own, returns that walk.
    async fn begin(&mut self) -> Result<Option<Walk>, WalkFailure> {
        let store = &self.gateway.0.store;
        loop {
            let walk = self.as_running();
            let begun = store.begin_walk(&self.live.project, &walk, self.handle.by);
            let other = match begun.await? {
                BeginWalkResult::Elsewhere(other) => other,
                BeginWalkResult::Here { started_at } => {
                    self.started_at = started_at;
                    self.handle.has_begun.store(true, Ordering::Relaxed);
                    return Ok(None);
                }
            };
            let ended = self
                .handle
                .unless_abandoned(self.wait_for_other_process(other));
            if let Some(walk) = ended.await?
                && walk.reason != Some(WalkReason::Interrupted)
                && self.is_content_with_any()
            {
                self.gateway.directory().catch_up_now(self.live).await?;
                return Ok(Some(walk));
            }
        }
    }

    /// Waits for a walk of another process to end. None if the walk no longer exists.
    async fn wait_for_other_process(&self, walk: WalkId) -> Result<Option<Walk>, WalkFailure> {
        let Inner { store, clock, .. } = &*self.gateway.0;
        loop {
            match store
                .walk(&self.live.project, self.live.account, walk)
                .await?
            {
                Some(walk) if walk.state == WalkState::Running => {
                    clock.sleep(RECHECK_INTERVAL).await
                }
                ended => return Ok(ended),
            }
        }
    }

    /// True if another process's walk is good enough for all requests that are attached. After
    /// that, no request may attach that needs a walk of its own.
    fn is_content_with_any(&self) -> bool {
        // Locked, so that no request attaches between the check and the change.
        let _slots = self
            .live
            .queue
            .lock()
            .expect("no holder of this lock panics");
        if self.handle.is_own.load(Ordering::Relaxed) {
            return false;
        }
        self.handle.is_calling.store(true, Ordering::Relaxed);
        true
    }

    /// Fetches everything from the provider that the assessment needs.
    async fn read(
        &self,
        account: &Account,
        connector: &dyn Connector,
        session: &Session,
    ) -> Result<FetchedDirectory, WalkFailure> {
        let clock = &self.gateway.0.clock;
        let started_at = clock.now();
        let reader = self.reader(connector, session);
        let identity = reader.identify().await?;
        // Data of another organization must not be read or served for this account.
        if identity.organization != account.identity.organization {
            return Err(WalkReason::OrganizationChanged.into());
        }
        let (users, groups) = {
            let current = self.current().await?;
            let prev = current.as_deref().map(|held| &held.directory);
            [Resource::Users, Resource::Groups]
                .map(|of| plausible_rows(prev, of))
                .into()
        };
        let users = reader.list(users, |number| connector.users(session, &identity, number));
        let users = self.handle.unless_abandoned(users).await?;
        let groups = reader.list(groups, |number| connector.groups(session, number));
        let groups = match self.handle.unless_abandoned(groups).await {
            Ok(groups) => Some(groups),
            // The token may not read groups: the directory is built without them.
            Err(stop) if stop.reason == WalkReason::ScopeMissing => None,
            Err(stop) => return Err(stop),
        };
        let group_reads = match &groups {
            None => Default::default(),
            Some(groups) => {
                let current = self.current().await?;
                let due = plan_group_reads(
                    current.as_deref().map(|held| &held.directory),
                    groups,
                    &self.evidence().await?,
                    self.part_of_budget()
                        .map(|part| part.max(LEAST_GROUPS) as usize),
                    self.handle.is_full.load(Ordering::Relaxed),
                );
                let reads = reader.groups(&due, current.is_none());
                self.handle.unless_abandoned(reads).await?
            }
        };
        Ok(FetchedDirectory {
            identity,
            roles: connector.roles(),
            users,
            groups,
            group_reads,
            started_at,
        })
    }

    /// Assesses the fetched data against the current version, looks up missing records by id, and
    /// commits the outcome.
    async fn judge(
        &self,
        account: &Account,
        connector: &dyn Connector,
        session: &Session,
        reading: FetchedDirectory,
        started_at: Timestamp,
    ) -> Result<Walk, WalkFailure> {
        let inner = &self.gateway.0;
        let current = self.current().await?;
        let prev = current.as_deref().map(|held| &held.directory);
        let policy = Policy {
            unlisted_departs_after: inner.settings.unlisted_departs_after,
            held_confirmed_after: inner.settings.held_confirmed_after,
        };
        let identity = reading.identity.clone();
        let assessment = assess(
            prev,
            reading,
            self.evidence().await?,
            policy,
            inner.clock.now(),
        );
        let cap = self
            .part_of_budget()
            .map_or(usize::MAX, |part| part as usize);
        let lookups = assessment.lookups(cap);
        let reader = self.reader(connector, session);
        let answers = reader.look_up(&lookups);
        let answers = self.handle.unless_abandoned(answers).await?;
        let version = prev.map_or(0, Directory::version) + 1;
        let now = inner.clock.now();
        let sealed = |evidence, directory| WalkOutcome {
            current: current.clone(),
            reason: None,
            candidate: None,
            hold: None,
            evidence,
            directory,
        };
        let end = match assessment.seal(answers, version, now) {
            SealResult::Failed(reason) => return Err(reason.into()),
            SealResult::Held {
                reason,
                suspects,
                candidate,
                is_repeated,
                evidence,
            } => {
                let hold = Hold {
                    suspects: suspects.len() as u64,
                    is_repeated,
                };
                let suspects = postcard::to_stdvec(&suspects).map_err(Error::internal)?;
                WalkOutcome {
                    reason: Some(reason),
                    candidate: Some((candidate, suspects)),
                    hold: Some(hold),
                    ..sealed(evidence, None)
                }
            }
            SealResult::Unchanged { evidence } => sealed(evidence, None),
            SealResult::Sealed {
                directory,
                evidence,
            } => sealed(evidence, Some(*directory)),
        };
        self.commit(account, &identity, end, started_at).await
    }

    /// Checks a refusal in the middle of a walk. The credential counts as refused only if the
    /// provider also refuses to identify it; otherwise the provider counts as unavailable.
    async fn refusal_confirmed(
        &self,
        stop: WalkFailure,
        connector: &dyn Connector,
        session: &Session,
    ) -> WalkFailure {
        if !stop.was_refused {
            return stop;
        }
        match self.reader(connector, session).identify().await {
            Err(second) if second.was_refused => self.with_refresh_token(stop).await,
            Ok(_) | Err(_) => WalkFailure {
                reason: WalkReason::ProviderUnavailable,
                ..stop
            },
        }
    }

    /// Classifies a refused access token that has a refresh token. The token may only have expired,
    /// so the state of the credential's row decides. An access token that was issued during this
    /// walk and refused counts as refused.
    async fn with_refresh_token(&self, stop: WalkFailure) -> WalkFailure {
        let store = &self.gateway.0.store;
        let stored = store.credential(&self.live.project, self.live.account);
        let Ok(Some(stored)) = stored.await else {
            return stop;
        };
        let reason = match &stored.credential {
            credential if credential.refresh_token().is_none() => return stop,
            _ if stored.state == CredentialState::ReauthRequired => stop.reason,
            Credential::OAuth(pair) if pair.issued_at >= self.started_at => return stop,
            _ => WalkReason::CredentialUncertain,
        };
        WalkFailure {
            reason,
            was_refused: false,
            ..stop
        }
    }

    pub(super) fn as_running(&self) -> Walk {
        Walk {
            id: self.handle.id,
            account: self.live.account,
            state: WalkState::Running,
            reason: None,
            directory_version: None,
            counts: None,
            quarantined: self.handle.quarantined(),
            upstream_calls: self.caller.as_ref().map_or(0, AccountClient::calls),
            started_at: self.started_at,
            ended_at: None,
        }
    }

    fn reader<'r>(&'r self, connector: &'r dyn Connector, session: &'r Session) -> Reader<'r> {
        Reader {
            connector,
            session,
            account: self.live.account,
            handle: self.handle,
            clock: &self.gateway.0.clock,
            parallel: self.gateway.0.settings.parallel_reads,
        }
    }

    /// The current version; None before the first sealed walk.
    pub(super) async fn current(&self) -> Result<Option<Arc<LoadedDirectory>>, WalkFailure> {
        let Some(head) = self.live.head() else {
            return Ok(None);
        };
        let held = self
            .gateway
            .directory()
            .held(self.live.project.clone(), self.live.account, head.version)
            .await?;
        match held {
            Some(held) => Ok(Some(held)),
            None => Err(Error::internal("the version in force is not held").into()),
        }
    }

    async fn evidence(&self) -> Result<Evidence, WalkFailure> {
        let stored = self
            .gateway
            .0
            .store
            .evidence(&self.live.project, self.live.account)
            .await?;
        match stored {
            None => Ok(Evidence::default()),
            Some(bytes) => Evidence::decode(&bytes).map_err(|error| Error::internal(error).into()),
        }
    }

    /// A fifth of the calls that the rate limit allows within `walk.fresh_seconds`; None if there is
    /// no limit.
    fn part_of_budget(&self) -> Option<u64> {
        let settings = &self.gateway.0.settings;
        let per_minute = u64::from(settings.rate_limit?);
        Some(per_minute * settings.fresh_for.as_secs() / 60 / PART_OF_BUDGET)
    }
}
