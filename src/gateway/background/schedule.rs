//! Scheduled walks: starts a walk of each account when its interval has passed, a few at a time.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::sync::Semaphore;

use super::Background;
use crate::gateway::walks::Attach;
use crate::{error::Result, model::audit_log::Actor};

/// Time between two checks for accounts that are due.
const POLL_INTERVAL: Duration = Duration::from_secs(5);

/// Maximum number of scheduled walks at once.
const MAX_CONCURRENT: usize = 16;

/// How long a due account is reserved for the process that claimed it.
const CLAIM: Duration = Duration::from_secs(30);

/// How long a scheduled walk counts toward [`MAX_CONCURRENT`]. A longer walk continues beside the
/// next ones.
const WALK_TIMEOUT: Duration = Duration::from_secs(600);

impl Background<'_> {
    /// Walks every account whose last walk began longer ago than `walk.every_seconds`, until it is
    /// aborted.
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
            self.gateway.0.link_attempts.forget_idle();
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
            // No permit is free. The account stays due and is found again by a later check.
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
            // Disconnected, moved, or its connector profile is disabled.
            if account.inactive_reason().is_some() {
                continue;
            }
            let live = self.gateway.directory().live(&account);
            // A walk that outlasts the claim makes its account due again, but it needs no second
            // walk. Nor does an account that was just walked here: another process with a wrong
            // clock may have stored a wrong time.
            let now = self.gateway.0.clock.monotonic();
            let was_just_walked = live.last_walk_began_at().is_some_and(|then| {
                now.saturating_sub(then) < self.gateway.0.settings.walk_every / 2
            });
            if live.running().is_some() || was_just_walked {
                continue;
            }
            let handle =
                self.gateway
                    .walks()
                    .request_walk(&live, Attach::Any, false, Actor::System);
            let gateway = self.gateway.clone();
            self.gateway.0.runtime.spawn(async move {
                gateway.walks().await_walk(&handle, WALK_TIMEOUT).await;
                drop(place);
            });
        }
        Ok(())
    }
}
