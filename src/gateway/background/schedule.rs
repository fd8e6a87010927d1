//! Walks that nobody asked for: each account's every so often, a few at a time.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::sync::Semaphore;

use super::Background;
use crate::gateway::walks::Attach;
use crate::{error::Result, model::audit_log::Actor};

/// How often it is looked whose walk is due.
const POLL_INTERVAL: Duration = Duration::from_secs(5);

/// How many scheduled walks may run at once.
const MAX_CONCURRENT: usize = 16;

/// How long an account that is due is left to the process that found it so.
const CLAIM: Duration = Duration::from_secs(30);

/// How long a scheduled walk may hold its place; it goes on after that, beside the next ones.
const WALK_TIMEOUT: Duration = Duration::from_secs(600);

impl Background<'_> {
    /// Walks every account whose last walk is longer ago than the setting, until it is aborted.
    pub async fn keep_walking(self) {
        let places = Arc::new(Semaphore::new(MAX_CONCURRENT));
        loop {
            self.gateway
                .0
                .clock
                .sleep(POLL_INTERVAL.min(self.gateway.0.settings.walk_every))
                .await;
            self.gateway.0.outbound.forget_idle();
            self.gateway.0.auth.quotas.forget_idle();
            self.gateway.0.auth.project_quotas.forget_idle();
            self.gateway.0.tries.forget_idle();
            self.gateway.0.metrics.add_up();
            if let Err(error) = self.walk_the_due(&places).await {
                tracing::warn!(%error, "the accounts that are due could not be listed");
            }
        }
    }

    async fn walk_the_due(self, places: &Arc<Semaphore>) -> Result<()> {
        let every =
            i64::try_from(self.gateway.0.settings.walk_every.as_millis()).unwrap_or(i64::MAX);
        let due_before = self
            .gateway
            .0
            .clock
            .now()
            .as_millisecond()
            .saturating_sub(every);
        let due_before = Timestamp::from_millisecond(due_before).unwrap_or(Timestamp::MIN);
        let free = u32::try_from(places.available_permits()).unwrap_or(u32::MAX);
        let claim = CLAIM.min(self.gateway.0.settings.walk_every);
        for (project, id) in self
            .gateway
            .0
            .store
            .claim_due(due_before, claim, free)
            .await?
        {
            // No place free: whoever is due still is at the next look.
            let Ok(place) = Arc::clone(places).try_acquire_owned() else {
                break;
            };
            let account = match self.gateway.0.store.account(&project, id).await {
                Ok(Some(account)) => account,
                Ok(None) => continue,
                Err(error) => {
                    tracing::warn!(account = %id, %error, "an account that is due cannot be walked");
                    continue;
                }
            };
            if account.inactive_reason().is_some() {
                continue;
            }
            let live = self.gateway.directory().live(&account);
            // Whose walk takes longer than the claim is due again, and needs no second place. Nor is
            // one due that was walked here just now, whatever another process, whose date is wrong,
            // may have stored.
            let now = self.gateway.0.clock.monotonic();
            let was_just_walked = live.last_walk_began_at().is_some_and(|then| {
                now.saturating_sub(then) < self.gateway.0.settings.walk_every / 2
            });
            if live.running().is_some() || was_just_walked {
                continue;
            }
            let ticket =
                self.gateway
                    .walks()
                    .request_walk(&live, Attach::Any, false, Actor::System);
            let gateway = self.gateway.clone();
            self.gateway.0.runtime.spawn(async move {
                gateway.walks().await_walk(&ticket, WALK_TIMEOUT).await;
                drop(place);
            });
        }
        Ok(())
    }
}
