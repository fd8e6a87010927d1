//! Walks that nobody asked for: each account's every so often, a few at a time.

use std::{sync::Arc, time::Duration};

use tokio::sync::Semaphore;

use super::{
    Gateway,
    walk::{Join, Ticket},
};
use crate::{
    clock::since,
    error::Result,
    model::id::{AccountId, ProjectId},
};

/// How often it is looked whose walk is due.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// How many scheduled walks may run at once.
const AT_ONCE: usize = 16;

/// How long a scheduled walk may hold its place; it goes on after that, beside the next ones.
const PATIENCE: Duration = Duration::from_secs(600);

impl Gateway {
    /// Walks every account whose last walk is longer ago than the setting, until it is aborted.
    pub async fn keep_walking(self) {
        let places = Arc::new(Semaphore::new(AT_ONCE));
        loop {
            self.0
                .clock
                .sleep(LOOK_EVERY.min(self.0.settings.walk_every))
                .await;
            self.0.outbound.forget_idle();
            if let Err(error) = self.walk_the_due(&places).await {
                tracing::warn!(%error, "the accounts that are due could not be listed");
            }
        }
    }

    async fn walk_the_due(&self, places: &Arc<Semaphore>) -> Result<()> {
        for (project, id) in self.0.store.all_account_ids().await? {
            // No place free: whoever is due still is at the next look.
            let Ok(place) = Arc::clone(places).try_acquire_owned() else {
                break;
            };
            let Some(ticket) = self.walk_if_due(&project, id).await? else {
                continue;
            };
            let gateway = self.clone();
            self.0.runtime.spawn(async move {
                gateway.await_walk(&ticket, PATIENCE).await;
                drop(place);
            });
        }
        Ok(())
    }

    async fn walk_if_due(&self, project: &ProjectId, id: AccountId) -> Result<Option<Arc<Ticket>>> {
        let store = &self.0.store;
        let now = self.0.clock.now();
        let known = self
            .0
            .lives
            .read()
            .expect("no holder of this lock panics")
            .get(&id)
            .cloned();
        let last = match known.as_ref().and_then(|live| live.last_walk_ended_at()) {
            Some(at) => Some(at),
            None => store
                .walks(project, id, None, 1)
                .await?
                .first()
                .map(|walk| walk.started_at),
        };
        if last.is_some_and(|at| since(now, at) < self.0.settings.walk_every) {
            return Ok(None);
        }
        let Some(account) = store.account(project, id).await? else {
            return Ok(None);
        };
        Ok(Some(self.request_walk(
            &self.live(&account),
            Join::Any,
            false,
        )))
    }
}
