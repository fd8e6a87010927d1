//! The review of a held walk by a person: list its suspects, release it, discard it.

use super::{OwnAccount, Walks, stale_after};
use crate::{
    directory::ReleaseCandidate,
    error::{Error, Kind, Result},
    model::{
        audit_log::{AuditAction, Event},
        walks::{Suspect, Walk, WalkReason, WalkState},
    },
    store::{CommitWalkResult, NewDirectory, WalkCommit},
};

impl Walks<'_> {
    /// The users and groups because of which a walk was held: users first, sorted by id.
    ///
    /// # Errors
    /// `walk_not_found`, `walk_not_held`, `walk_superseded`.
    pub async fn suspects(self, own: &OwnAccount, walk: &str) -> Result<Vec<Suspect>> {
        let walk = self.walk(own, walk).await?;
        let account = &own.account;
        let suspects = self
            .gateway
            .store_of(&account.project)
            .suspects(&account.project, account.id, walk.id)
            .await?;
        match suspects {
            Some(bytes) => postcard::from_bytes(&bytes).map_err(Error::internal),
            None => Err(self.not_decidable(&walk)),
        }
    }

    /// Accepts the data of a held walk: its candidate becomes the current directory.
    ///
    /// # Errors
    /// `walk_not_found`, `walk_not_held`, `walk_superseded`, `store_unavailable`.
    pub async fn release(self, own: &OwnAccount, walk: &str) -> Result<Walk> {
        let walk = self.walk(own, walk).await?;
        let (gateway, own) = (self.gateway.clone(), own.clone());
        self.gateway
            .owned(async move { gateway.walks().release_held(&own, walk).await })
            .await
    }

    /// Rejects the data of a held walk: the current directory stays.
    ///
    /// # Errors
    /// As [`Walks::release`].
    pub async fn discard(self, own: &OwnAccount, walk: &str) -> Result<Walk> {
        let walk = self.walk(own, walk).await?;
        let (gateway, own) = (self.gateway.clone(), own.clone());
        self.gateway
            .owned(async move { gateway.walks().discard_held(&own, walk).await })
            .await
    }

    async fn release_held(self, own: &OwnAccount, walk: Walk) -> Result<Walk> {
        let account = &own.account;
        let live = self.gateway.directory().live(account);
        // No walk is assessed meanwhile, so the version below stays the current one.
        let _judgement = live.judgement.lock().await;
        // Another process may have published a version.
        self.gateway.directory().catch_up_now(&live).await?;
        let held = self
            .gateway
            .store_of(&account.project)
            .held(&account.project, account.id, walk.id)
            .await?;
        let held = held.ok_or_else(|| self.not_decidable(&walk))?;
        let candidate = ReleaseCandidate::decode(&held.candidate).map_err(Error::internal)?;
        let current = live.head().map_or(0, |head| head.version);
        let version = current + 1;
        let (directory, evidence) = candidate.release(version, self.gateway.0.clock.now());
        let released = Walk {
            state: WalkState::Sealed,
            reason: None,
            directory_version: Some(version.to_string()),
            counts: Some(directory.counts()),
            ..walk
        };
        let encoded = directory.encode();
        let committed = self
            .gateway
            .store_of(&account.project)
            .commit_walk(WalkCommit {
                project: &account.project,
                lineage: None,
                walk: &released,
                judged_against: Some(current),
                directory: Some(NewDirectory {
                    version,
                    encoded: &encoded,
                    sealed_at: directory.sealed_at(),
                }),
                verified_at: Some(released.started_at),
                evidence: Some(&evidence.encode()),
                candidate: None,
                suspects: None,
                hold: None,
                supersedes_held: true,
                account_state: None,
                decision: Some(&decision(own, &released, AuditAction::WalkReleased)),
            })
            .await?;
        if committed != CommitWalkResult::Whole {
            return Err(superseded());
        }
        self.publish(&live, directory, released.started_at, released.quarantined)
            .await;
        self.gateway
            .0
            .auth
            .accounts
            .invalidate(&(account.project.clone(), account.id));
        tracing::info!(account = %account.id, walk = %released.id, "held walk released");
        Ok(released)
    }

    async fn discard_held(self, own: &OwnAccount, walk: Walk) -> Result<Walk> {
        let account = &own.account;
        let live = self.gateway.directory().live(account);
        let _judgement = live.judgement.lock().await;
        self.gateway.directory().catch_up_now(&live).await?;
        let held = self
            .gateway
            .store_of(&account.project)
            .held(&account.project, account.id, walk.id)
            .await?;
        held.ok_or_else(|| self.not_decidable(&walk))?;
        let discarded = Walk {
            state: WalkState::Failed,
            reason: Some(WalkReason::Discarded),
            ..walk
        };
        let committed = self
            .gateway
            .store_of(&account.project)
            .commit_walk(WalkCommit {
                project: &account.project,
                lineage: None,
                walk: &discarded,
                judged_against: None,
                directory: None,
                verified_at: None,
                evidence: None,
                candidate: None,
                suspects: None,
                hold: None,
                supersedes_held: false,
                account_state: None,
                decision: Some(&decision(own, &discarded, AuditAction::WalkDiscarded)),
            })
            .await?;
        if committed != CommitWalkResult::Whole {
            return Err(superseded());
        }
        live.set_stale(stale_after(discarded.state, discarded.reason));
        self.gateway
            .0
            .auth
            .accounts
            .invalidate(&(account.project.clone(), account.id));
        tracing::info!(account = %account.id, walk = %discarded.id, "held walk discarded");
        Ok(discarded)
    }

    fn not_decidable(self, walk: &Walk) -> Error {
        match walk.state {
            WalkState::Held => superseded(),
            _ => Error::new(Kind::WalkNotHeld, "this walk is not held"),
        }
    }
}

fn decision(own: &OwnAccount, walk: &Walk, action: AuditAction) -> Event {
    Event::new(own.by, action, own.account.id).with("walk", walk.id)
}

fn superseded() -> Error {
    Error::new(
        Kind::WalkSuperseded,
        "the directory was sealed anew since this walk was held",
    )
}
