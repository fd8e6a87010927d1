//! The walk itself: credential, who-am-I, users, groups, members, judgement, look-ups, seal,
//! commit, and only then the swap in memory.
//!
//! Users are read before groups on purpose. Somebody who joins in between appears for one walk
//! as a group's outsider and is put right by the next, which always reads the whole user list;
//! the other way round, somebody who leaves in between would stay an outsider until that group
//! is read again.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use jiff::Timestamp;
use serde::Serialize;

use super::{
    super::live::{Head, Held},
    Gateway, Join, Live, Ticket,
    lists::Reader,
    stale_after,
};
use crate::{
    clock::since,
    connectors::{Connector, Session},
    directory::{
        Candidate, Directory, Evidence, Policy, Reading, Verdict, assess, plan_group_reads,
    },
    error::{Error, Kind},
    model::{
        account::{Account, AccountStatus, StatusReason},
        observed::Identity,
        walk::{Walk, WalkReason, WalkState},
    },
    outbound::{CallError, CallErrorKind, Caller, Priority},
    store::{AccountState, Committed, NewDirectory, WalkCommit},
};

/// A newly linked token's budget is still whole for this long.
const NEWLY_LINKED: Duration = Duration::from_secs(60);

/// Of the budget of one freshness interval, this part pays for reading unchanged groups again,
/// and as much for look-ups.
const PART_OF_BUDGET: u64 = 5;

/// So many unchanged groups are read again however small the budget.
const LEAST_GROUPS: u64 = 25;

/// Why a walk ended early.
#[derive(Debug)]
pub(super) struct Stop {
    reason: WalkReason,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
    was_refused: bool,
}

impl From<WalkReason> for Stop {
    fn from(reason: WalkReason) -> Self {
        Self {
            reason,
            source: None,
            was_refused: false,
        }
    }
}

impl From<CallError> for Stop {
    fn from(error: CallError) -> Self {
        let reason = match error.kind {
            CallErrorKind::Unauthorized => WalkReason::CredentialRefused,
            CallErrorKind::Forbidden => WalkReason::ScopeMissing,
            CallErrorKind::Throttled => WalkReason::ProviderThrottled,
            CallErrorKind::Unavailable => WalkReason::ProviderUnavailable,
            CallErrorKind::NotFound | CallErrorKind::Refused | CallErrorKind::InvalidReply => {
                WalkReason::InvalidReply
            }
        };
        let was_refused = error.kind == CallErrorKind::Unauthorized;
        Self {
            reason,
            source: Some(error.into()),
            was_refused,
        }
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        let reason = match error.kind() {
            Kind::StoreUnavailable => WalkReason::StoreUnavailable,
            // Unlinked while it was walked.
            Kind::AccountNotFound => WalkReason::Interrupted,
            _ => WalkReason::Internal,
        };
        Self {
            reason,
            source: Some(error.into()),
            was_refused: false,
        }
    }
}

/// One walk on its way.
struct Walker<'a> {
    gateway: &'a Gateway,
    live: &'a Arc<Live>,
    ticket: &'a Ticket,
    started_at: Timestamp,
    caller: Option<Caller>,
    /// Of the credential that it reads with, once that is known.
    generation: Option<u64>,
}

/// Walks, commits, and tells what came of it.
pub(super) async fn walk(gateway: Gateway, live: Arc<Live>, ticket: Arc<Ticket>) -> Walk {
    let mut walker = Walker {
        gateway: &gateway,
        live: &live,
        ticket: &ticket,
        started_at: gateway.0.clock.now(),
        caller: None,
        generation: None,
    };
    let walk = match walker.walk().await {
        Ok(walk) => walk,
        Err(stop) => walker.fail(stop).await,
    };
    log(&live, &walk);
    walk
}

/// What is left to say after a walk's task has ended without an answer of its own.
pub(super) async fn after_panic(
    gateway: &Gateway,
    live: &Arc<Live>,
    ticket: &Ticket,
    failure: &tokio::task::JoinError,
) -> Walk {
    let walker = Walker {
        gateway,
        live,
        ticket,
        started_at: ticket.asked_at,
        caller: None,
        generation: None,
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

impl Walker<'_> {
    async fn walk(&mut self) -> Result<Walk, Stop> {
        let inner = &self.gateway.0;
        let (project, id) = (&self.live.project, self.live.account);
        let account = inner
            .store
            .account(project, id)
            .await?
            .ok_or_else(|| Error::new(Kind::AccountNotFound, "there is no such account"))?;
        inner.store.insert_walk(project, &self.as_running()).await?;
        self.gateway.load(self.live).await?;

        let connector = self.gateway.connector(&account.provider)?;
        let is_newly_linked = since(self.started_at, account.created_at) < NEWLY_LINKED;
        let (session, generation) = self
            .gateway
            .session(&account, Priority::Background, is_newly_linked)
            .await?;
        self.caller = Some(session.caller.clone());
        self.generation = Some(generation);
        {
            // From here on nobody joins who asks for what is true after their question.
            let _slots = self
                .live
                .slots
                .lock()
                .expect("no holder of this lock panics");
            self.ticket.is_calling.store(true, Ordering::Relaxed);
        }
        let started_at = inner.clock.now();
        let reading = match self.read(connector.as_ref(), &session).await {
            Ok(reading) => reading,
            Err(stop) => {
                return Err(self
                    .refusal_confirmed(stop, connector.as_ref(), &session)
                    .await);
            }
        };

        let _judgement = self.live.judgement.lock().await;
        let (_, generation_now) = self
            .gateway
            .session(&account, Priority::Background, false)
            .await?;
        if generation_now != generation {
            return Err(WalkReason::Interrupted.into());
        }
        self.judge(&account, connector.as_ref(), &session, reading, started_at)
            .await
    }

    /// Everything that is read before anything is judged.
    async fn read(&self, connector: &dyn Connector, session: &Session) -> Result<Reading, Stop> {
        let clock = &self.gateway.0.clock;
        let started_at = clock.now();
        let reader = self.reader(connector, session);
        let identity = reader.identify().await?;
        let users = reader
            .unless_unlinked(reader.list(|number| connector.users(session, &identity, number)))
            .await?;
        let groups = match reader
            .unless_unlinked(reader.list(|number| connector.groups(session, number)))
            .await
        {
            Ok(groups) => Some(groups),
            Err(stop) if stop.reason == WalkReason::ScopeMissing => None,
            Err(stop) => return Err(stop),
        };
        let group_reads = match &groups {
            None => Default::default(),
            Some(groups) => {
                let due = {
                    let in_force = self.in_force().await?;
                    plan_group_reads(
                        in_force.as_deref().map(|held| &held.directory),
                        groups,
                        &self.evidence().await?,
                        self.part_of_budget()
                            .map(|part| part.max(LEAST_GROUPS) as usize),
                        self.ticket.is_full.load(Ordering::Relaxed),
                    )
                };
                reader.unless_unlinked(reader.groups(&due)).await?
            }
        };
        Ok(Reading {
            identity,
            roles: connector.roles(),
            users,
            groups,
            group_reads,
            started_at,
        })
    }

    async fn judge(
        &self,
        account: &Account,
        connector: &dyn Connector,
        session: &Session,
        reading: Reading,
        started_at: Timestamp,
    ) -> Result<Walk, Stop> {
        let inner = &self.gateway.0;
        let in_force = self.in_force().await?;
        let prev = in_force.as_deref().map(|held| &held.directory);
        let policy = Policy {
            unlisted_departs_after: inner.settings.unlisted_departs_after,
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
        let answers = reader.unless_unlinked(reader.look_up(&lookups)).await?;
        let version = prev.map_or(0, Directory::version) + 1;
        let now = inner.clock.now();
        let end = match assessment.seal(answers, version, now) {
            Verdict::Failed(reason) => return Err(reason.into()),
            Verdict::Held {
                reason,
                suspects,
                candidate,
                evidence,
            } => {
                let suspects = postcard::to_stdvec(&suspects).map_err(Error::internal)?;
                End {
                    reason: Some(reason),
                    candidate: Some((candidate, suspects)),
                    evidence: Some(evidence),
                    directory: None,
                }
            }
            Verdict::Unchanged { evidence } => End {
                reason: None,
                candidate: None,
                evidence: Some(evidence),
                directory: None,
            },
            Verdict::Sealed {
                directory,
                evidence,
            } => End {
                reason: None,
                candidate: None,
                evidence: Some(evidence),
                directory: Some(*directory),
            },
        };
        self.commit(account, &identity, end, started_at).await
    }

    /// Stores a sealed or held walk and all that comes of it in one transaction; then swaps.
    async fn commit(
        &self,
        account: &Account,
        identity: &Identity,
        end: End,
        started_at: Timestamp,
    ) -> Result<Walk, Stop> {
        let inner = &self.gateway.0;
        let now = inner.clock.now();
        let is_sealed = end.reason.is_none();
        let in_force = self.in_force().await?;
        let after = end
            .directory
            .as_ref()
            .or(in_force.as_deref().map(|held| &held.directory));
        let walk = Walk {
            state: if is_sealed {
                WalkState::Sealed
            } else {
                WalkState::Held
            },
            reason: end.reason,
            directory_version: after.map(|directory| directory.version().to_string()),
            counts: after.map(Directory::counts),
            ended_at: Some(now),
            ..self.as_running()
        };
        let encoded = end.directory.as_ref().map(Directory::encode);
        let evidence = end.evidence.as_ref().map(Evidence::encode);
        let candidate = end
            .candidate
            .as_ref()
            .map(|(candidate, _)| candidate.encode());
        let committed = inner
            .store
            .commit_walk(WalkCommit {
                project: &self.live.project,
                generation: self.generation,
                walk: &walk,
                directory: encoded.as_deref().zip(end.directory.as_ref()).map(
                    |(encoded, directory)| NewDirectory {
                        version: directory.version(),
                        encoded,
                        sealed_at: directory.sealed_at(),
                    },
                ),
                verified_at: is_sealed.then_some(started_at),
                evidence: evidence.as_deref(),
                candidate: candidate.as_deref(),
                suspects: end
                    .candidate
                    .as_ref()
                    .map(|(_, suspects)| suspects.as_slice()),
                supersedes_held: is_sealed,
                account_state: Some(AccountState {
                    status: AccountStatus::Active,
                    reasons: &[],
                    // What a held walk says of the token is in force once it is released.
                    identity: is_sealed.then_some(identity),
                }),
            })
            .await?;
        if committed == Committed::CredentialReplaced {
            return Err(WalkReason::Interrupted.into());
        }
        inner
            .accounts
            .forget(&(account.project.clone(), account.id));
        match end.directory {
            Some(directory) => {
                self.gateway
                    .put_in_force(self.live, directory, started_at)
                    .await
            }
            None if is_sealed => self.gateway.verify(self.live, started_at),
            None => self.live.set_stale(stale_after(&walk)),
        }
        Ok(walk)
    }

    /// Stores a walk that failed, as far as the store takes it. What failed with a credential that
    /// was replaced meanwhile says nothing about the account: the walk was interrupted, and since
    /// whoever replaced it may have been content with this very walk, another one follows.
    async fn fail(&self, stop: Stop) -> Walk {
        let inner = &self.gateway.0;
        let now = inner.clock.now();
        if let Some(source) = &stop.source {
            tracing::warn!(account = %self.live.account, walk = %self.ticket.id, error = %source, "walk failed");
        }
        let in_force = self.in_force().await.ok().flatten();
        let mut walk = Walk {
            state: WalkState::Failed,
            reason: Some(stop.reason),
            directory_version: in_force
                .as_ref()
                .map(|held| held.directory.version().to_string()),
            counts: in_force.as_ref().map(|held| held.directory.counts()),
            ended_at: Some(now),
            ..self.as_running()
        };
        let (status, reasons) = self.account_after(stop.reason, now);
        let failed = WalkCommit {
            project: &self.live.project,
            generation: self.generation,
            walk: &walk,
            directory: None,
            verified_at: None,
            evidence: None,
            candidate: None,
            suspects: None,
            supersedes_held: false,
            account_state: reasons.as_ref().map(|reasons| AccountState {
                status,
                reasons,
                identity: None,
            }),
        };
        let mut committed = inner.store.commit_walk(failed).await;
        if let Ok(Committed::CredentialReplaced) = committed {
            let interrupted = Walk {
                reason: Some(WalkReason::Interrupted),
                ..walk.clone()
            };
            committed = inner
                .store
                .commit_walk(WalkCommit {
                    generation: None,
                    walk: &interrupted,
                    account_state: None,
                    ..failed
                })
                .await;
            walk = interrupted;
            self.gateway
                .request_walk(self.live, Join::NotYetCalling, false);
        }
        if let Err(error) = committed
            && error.kind() != Kind::AccountNotFound
        {
            tracing::error!(account = %self.live.account, %error, "a failed walk could not be stored");
        }
        inner
            .accounts
            .forget(&(self.live.project.clone(), self.live.account));
        self.live.set_stale(stale_after(&walk));
        walk
    }

    /// What a failed walk says about its account; None where it says nothing.
    fn account_after(
        &self,
        reason: WalkReason,
        now: Timestamp,
    ) -> (AccountStatus, Option<Vec<StatusReason>>) {
        let (code, description) = match reason {
            WalkReason::CredentialRefused => (
                Account::REAUTH_REQUIRED,
                "The provider no longer takes this account's credential. Replace its token.",
            ),
            WalkReason::ScopeMissing => (
                "scope_missing",
                "The account's token may no longer read users. Replace it with one that may.",
            ),
            WalkReason::OrganisationChanged => (
                "organisation_changed",
                "The account's token belongs to another organisation than before. Link a new account for it.",
            ),
            _ => return (AccountStatus::Active, None),
        };
        let reason = StatusReason {
            code: code.to_owned(),
            description: description.to_owned(),
            timestamp: now,
        };
        (AccountStatus::Error, Some(vec![reason]))
    }

    /// A credential that was refused in the middle of a walk is dead only if it is refused when
    /// the provider is asked who it is.
    async fn refusal_confirmed(
        &self,
        stop: Stop,
        connector: &dyn Connector,
        session: &Session,
    ) -> Stop {
        if !stop.was_refused {
            return stop;
        }
        match self.reader(connector, session).identify().await {
            Err(second) if second.was_refused => stop,
            Ok(_) | Err(_) => Stop {
                reason: WalkReason::ProviderUnavailable,
                ..stop
            },
        }
    }

    fn as_running(&self) -> Walk {
        Walk {
            id: self.ticket.id,
            account: self.live.account,
            state: WalkState::Running,
            reason: None,
            directory_version: None,
            counts: None,
            upstream_calls: self.caller.as_ref().map_or(0, Caller::calls),
            started_at: self.started_at,
            ended_at: None,
        }
    }

    fn reader<'r>(&'r self, connector: &'r dyn Connector, session: &'r Session) -> Reader<'r> {
        Reader {
            connector,
            session,
            live: self.live,
            ticket: self.ticket,
            clock: &self.gateway.0.clock,
            parallel: self.gateway.0.settings.parallel_reads,
        }
    }

    async fn in_force(&self) -> Result<Option<Arc<Held>>, Stop> {
        let Some(head) = self.live.head() else {
            return Ok(None);
        };
        let held = self
            .gateway
            .held(self.live.project.clone(), self.live.account, head.version)
            .await?;
        match held {
            Some(held) => Ok(Some(held)),
            None => Err(Error::internal("the version in force is not held").into()),
        }
    }

    async fn evidence(&self) -> Result<Evidence, Stop> {
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

    /// How many calls a fifth of the budget of one freshness interval pays for; None: no limit.
    fn part_of_budget(&self) -> Option<u64> {
        let settings = &self.gateway.0.settings;
        let per_minute = u64::from(settings.rate_limit?);
        Some(per_minute * settings.fresh_for.as_secs() / 60 / PART_OF_BUDGET)
    }
}

/// What a whole walk leaves behind.
struct End {
    /// Why it was held; None if it was sealed.
    reason: Option<WalkReason>,
    candidate: Option<(Box<Candidate>, Vec<u8>)>,
    evidence: Option<Evidence>,
    /// A new version, if anything changed.
    directory: Option<Directory>,
}

impl Gateway {
    /// Makes `directory` the version in force, as verified at `verified_at`.
    pub(super) async fn put_in_force(
        &self,
        live: &Live,
        directory: Directory,
        verified_at: Timestamp,
    ) {
        let head = Head {
            version: directory.version(),
            sealed_at: directory.sealed_at(),
            verified_at,
            stale: None,
            visibility: directory.visibility(),
        };
        let held = Held {
            sealed_at: head.sealed_at,
            verified_at,
            directory,
        };
        // First the directory, then the head that points at it.
        self.0
            .directories
            .insert((live.account, head.version), Arc::new(held))
            .await;
        live.set_head(head);
    }

    /// The version in force was found true once more.
    fn verify(&self, live: &Live, verified_at: Timestamp) {
        if let Some(head) = live.head() {
            live.set_head(Head {
                verified_at,
                stale: None,
                ..Head::clone(&head)
            });
        }
    }
}

/// A state or reason as the API spells it.
fn word(value: &impl Serialize) -> Option<String> {
    let word = serde_json::to_value(value).ok()?;
    word.as_str().map(str::to_owned)
}

fn log(live: &Live, walk: &Walk) {
    let counts = walk.counts.unwrap_or_default();
    tracing::info!(
        account = %live.account,
        walk = %walk.id,
        state = word(&walk.state).as_deref(),
        reason = walk.reason.as_ref().and_then(word).as_deref(),
        version = walk.directory_version.as_deref(),
        users = counts.users,
        groups = counts.groups,
        upstream_calls = walk.upstream_calls,
        "walk ended",
    );
}
