//! Stores the outcome of a walk in one transaction, and only then updates memory.

use std::sync::Arc;

use jiff::Timestamp;

use super::{
    Attach, LiveAccount, Walks,
    failure::WalkFailure,
    run::WalkRun,
    stale_after,
    state::{CurrentSnapshot, LoadedDirectory},
};
use crate::{
    clock::since,
    directory::{Directory, Evidence, ReleaseCandidate},
    error::Kind,
    model::{
        accounts::{Account, AccountStatus, StatusReason},
        observed::Identity,
        walks::{ListName, Quarantined, Walk, WalkReason, WalkState},
    },
    store::{AccountState, CommitWalkResult, Hold, NewDirectory, WalkCommit},
};

/// The outcome of a walk that was assessed.
pub(super) struct WalkOutcome {
    /// The version that it was assessed against.
    pub current: Option<Arc<LoadedDirectory>>,
    /// The reason of a held walk; None for a sealed one.
    pub reason: Option<WalkReason>,
    /// The directory to publish on release, and the encoded suspects; None for a sealed walk.
    pub candidate: Option<(Box<ReleaseCandidate>, Vec<u8>)>,
    pub hold: Option<Hold>,
    pub evidence: Evidence,
    /// The new version; None if nothing changed or the walk is held.
    pub directory: Option<Directory>,
}

impl WalkRun<'_> {
    /// Stores a sealed or held walk and all its effects in one transaction, then updates memory.
    pub(super) async fn commit(
        &self,
        account: &Account,
        identity: &Identity,
        end: WalkOutcome,
        started_at: Timestamp,
    ) -> Result<Walk, WalkFailure> {
        let inner = &self.gateway.0;
        let now = inner.clock.now();
        let is_sealed = end.reason.is_none();
        let current = end.current.as_deref().map(|held| &held.directory);
        let after = end.directory.as_ref().or(current);
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
        let degraded: Vec<_> = (end.reason == Some(WalkReason::Degraded))
            .then(|| StatusReason {
                code: "degraded".to_owned(),
                description: "The last walk read less than the directory shows: fields, guests or members of groups are missing from it. The token's owner may have lost a right at the provider. The former directory is served on.".to_owned(),
                timestamp: now,
            })
            .into_iter()
            .collect();
        let encoded = end.directory.as_ref().map(Directory::encode);
        let evidence = end.evidence.encode();
        let candidate = end
            .candidate
            .as_ref()
            .map(|(candidate, _)| candidate.encode());
        let committed = inner
            .store
            .commit_walk(WalkCommit {
                project: &self.live.project,
                lineage: self.lineage,
                walk: &walk,
                judged_against: Some(current.map_or(0, Directory::version)),
                directory: encoded.as_deref().zip(end.directory.as_ref()).map(
                    |(encoded, directory)| NewDirectory {
                        version: directory.version(),
                        encoded,
                        sealed_at: directory.sealed_at(),
                    },
                ),
                verified_at: is_sealed.then_some(started_at),
                evidence: Some(&evidence),
                candidate: candidate.as_deref(),
                suspects: end
                    .candidate
                    .as_ref()
                    .map(|(_, suspects)| suspects.as_slice()),
                hold: end.hold,
                supersedes_held: is_sealed,
                account_state: Some(AccountState {
                    status: AccountStatus::Active,
                    reasons: &degraded,
                    // A held walk updates the stored identity only when it is released.
                    identity: (is_sealed && *identity != account.identity).then_some(identity),
                }),
                decision: None,
            })
            .await?;
        // The credential or the current version was replaced during the walk.
        if committed != CommitWalkResult::Whole {
            return Err(WalkReason::Interrupted.into());
        }
        inner
            .auth
            .accounts
            .invalidate(&(account.project.clone(), account.id));
        match end.directory {
            Some(directory) => {
                self.gateway
                    .walks()
                    .publish(self.live, directory, started_at, walk.quarantined)
                    .await
            }
            None => {
                if is_sealed && let Some(version) = current.map(Directory::version) {
                    self.live.verify(version, started_at, walk.quarantined);
                }
                self.live.set_stale(stale_after(walk.state, walk.reason));
            }
        }
        self.count(&walk);
        Ok(walk)
    }

    /// Stores a failed walk, if the store accepts it. If the credential was replaced during the
    /// walk, its failure does not concern the account: the walk counts as interrupted. Another walk
    /// then starts, because the request that replaced the credential may have attached to this one.
    pub(super) async fn fail(&self, stop: WalkFailure) -> Walk {
        let inner = &self.gateway.0;
        let now = inner.clock.now();
        if let Some(source) = &stop.source {
            tracing::warn!(account = %self.live.account, walk = %self.handle.id, error = %source, "walk failed");
        }
        let current = self.current().await.ok().flatten();
        let mut walk = Walk {
            state: WalkState::Failed,
            reason: Some(stop.reason),
            directory_version: current
                .as_ref()
                .map(|held| held.directory.version().to_string()),
            counts: current.as_ref().map(|held| held.directory.counts()),
            ended_at: Some(now),
            ..self.as_running()
        };
        let (status, reasons) = match stop.reason {
            // The credential's row already has this state.
            WalkReason::CredentialRefused if !stop.was_refused => (AccountStatus::Active, None),
            reason => self.account_after(reason, now),
        };
        let failed = WalkCommit {
            project: &self.live.project,
            lineage: self.lineage,
            walk: &walk,
            judged_against: None,
            directory: None,
            verified_at: None,
            evidence: None,
            candidate: None,
            suspects: None,
            hold: None,
            supersedes_held: false,
            account_state: reasons.as_ref().map(|reasons| AccountState {
                status,
                reasons,
                identity: None,
            }),
            decision: None,
        };
        let mut committed = inner.store.commit_walk(failed).await;
        if let Ok(CommitWalkResult::CredentialReplaced) = committed {
            let interrupted = Walk {
                reason: Some(WalkReason::Interrupted),
                ..walk.clone()
            };
            committed = inner
                .store
                .commit_walk(WalkCommit {
                    lineage: None,
                    walk: &interrupted,
                    account_state: None,
                    ..failed
                })
                .await;
            walk = interrupted;
            self.gateway.walks().request_walk(
                self.live,
                Attach::BeforeFirstCall,
                false,
                self.handle.by,
            );
        }
        if let Err(error) = committed
            && error.kind() != Kind::AccountNotFound
        {
            tracing::error!(account = %self.live.account, %error, "a failed walk could not be stored");
        }
        inner
            .auth
            .accounts
            .invalidate(&(self.live.project.clone(), self.live.account));
        self.live.set_stale(stale_after(walk.state, walk.reason));
        self.count(&walk);
        walk
    }

    fn count(&self, walk: &Walk) {
        let metrics = &self.gateway.0.metrics;
        let ended_at = walk.ended_at.unwrap_or(walk.started_at);
        metrics.walk_ended(walk.state, walk.reason, since(ended_at, walk.started_at));
        metrics.rows_quarantined(ListName::Users, walk.quarantined.users);
        metrics.rows_quarantined(ListName::Groups, walk.quarantined.groups);
    }

    /// The status and reasons of the account after a failed walk. None if the walk does not change
    /// them.
    fn account_after(
        &self,
        reason: WalkReason,
        now: Timestamp,
    ) -> (AccountStatus, Option<Vec<StatusReason>>) {
        let (code, description) = match reason {
            WalkReason::CredentialRefused => (
                Account::REAUTH_REQUIRED,
                "The provider no longer takes this account's credential. Replace its token with PATCH /accounts/{id}, or have its owner do so: POST /connect_sessions with this account_id and its origin_owner_id and origin_owner_name gives the link for that.",
            ),
            WalkReason::CredentialLocked => (
                "locked",
                "What is stored of the credential does not open: the key ring is another, or the account's row was changed since. Restore the ring and the database that it was stored with.",
            ),
            WalkReason::BaseUrlNotAllowed => (
                "base_url_not_allowed",
                "The operator no longer allows the account's base URL. Add it to `provider.base_urls`, or link a new account.",
            ),
            WalkReason::AssumeUserRefused => (
                "assume_user_refused",
                "The provider no longer lets the account's token stand for the user that it is to assume. Link a new account without it, or for another user.",
            ),
            WalkReason::ScopeMissing => (
                "scope_missing",
                "The account's token may no longer read users. Replace it with one that may.",
            ),
            WalkReason::OrganizationChanged => (
                "organisation_changed",
                "The account's token belongs to another organization than before. Link a new account for it.",
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
}

impl Walks<'_> {
    /// Makes `directory` the current version in memory. A walk verified it at `verified_at` and
    /// left out `quarantined` rows.
    pub(in crate::gateway) async fn publish(
        self,
        live: &LiveAccount,
        directory: Directory,
        verified_at: Timestamp,
        quarantined: Quarantined,
    ) {
        let head = CurrentSnapshot {
            version: directory.version(),
            sealed_at: directory.sealed_at(),
            verified_at,
            quarantined,
            stale: None,
            visibility: directory.visibility(),
        };
        let held = LoadedDirectory {
            sealed_at: head.sealed_at,
            verified_at,
            directory,
        };
        // The directory first, so that a reader of the new head finds it.
        self.gateway
            .0
            .directory
            .directories
            .insert((live.account, head.version), Arc::new(held))
            .await;
        live.advance(head);
    }
}

pub(super) fn log(live: &LiveAccount, walk: &Walk) {
    let counts = walk.counts.unwrap_or_default();
    tracing::info!(
        account = %live.account,
        walk = %walk.id,
        state = walk.state.as_str(),
        reason = walk.reason.map(WalkReason::as_str),
        version = walk.directory_version.as_deref(),
        users = counts.users,
        groups = counts.groups,
        quarantined = walk.quarantined.users + walk.quarantined.groups,
        upstream_calls = walk.upstream_calls,
        "walk ended",
    );
    if walk.state == WalkState::Held {
        tracing::warn!(
            account = %live.account,
            walk = %walk.id,
            reason = walk.reason.map(WalkReason::as_str),
            "walk held: release or discard it",
        );
    }
}
