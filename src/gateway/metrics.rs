//! The metrics of this process: counters that were updated as things happened, and gauges that a
//! scrape reads from the store.

use std::time::Duration;

use super::Gateway;
use crate::{
    clock::since,
    error::{Error, Kind, Result},
    model::{accounts as model, availability::Availability},
    store::CountedState,
    telemetry::{Metrics, metrics::CredentialStateLabel},
};

/// Minimum time between two counts of the accounts, because the metrics endpoint needs no API key.
const COUNTED_FOR: Duration = Duration::from_secs(10);

/// How long a scrape waits for the counts from the database.
const STORE_TIMEOUT: Duration = Duration::from_secs(2);

impl Gateway {
    /// The metrics in which this gateway counts.
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// Checks that the API address may serve metrics.
    ///
    /// # Errors
    /// `route_not_found` if it may not: metrics are disabled or have a listener of their own.
    pub fn require_metrics_enabled(&self) -> Result<()> {
        if !self.0.settings.shows_metrics {
            return Err(Error::new(
                Kind::RouteNotFound,
                "nothing is served at this path",
            ));
        }
        Ok(())
    }

    /// All metrics in the Prometheus text format.
    pub async fn metrics_page(&self) -> String {
        let counting = self.0.runtime.spawn(self.clone().count_accounts());
        // After a timeout the gauges keep their previous values.
        let _ = tokio::time::timeout(STORE_TIMEOUT, counting).await;
        let availability = self.0.store.availability();
        self.0
            .metrics
            .store_up(availability != Availability::Unreachable);
        self.0
            .metrics
            .store_writable(availability == Availability::Writable);
        self.0.metrics.render()
    }

    async fn count_accounts(self) {
        // While another scrape counts, this one returns the previous values.
        let Ok(mut counted_at) = self.0.accounts_counted_at.try_lock() else {
            return;
        };
        let now = self.0.clock.monotonic();
        if counted_at.is_some_and(|then| now.saturating_sub(then) < COUNTED_FOR) {
            return;
        }
        let counts = self.0.store.count_accounts().await;
        if let Err(error) = &counts {
            tracing::debug!(%error, "the accounts could not be counted");
        }
        self.0.metrics.accounts(counts.ok().as_deref());
        let counts = self.0.store.count_credentials().await;
        let counts = counts.map(|counts| {
            let states = counts
                .into_iter()
                .map(|(state, count)| (state_of(state), count));
            states.collect::<Vec<_>>()
        });
        if let Err(error) = &counts {
            tracing::debug!(%error, "the credentials could not be counted");
        }
        self.0.metrics.credentials(counts.ok().as_deref());
        let standing = self.0.store.directories_standing().await;
        if let Err(error) = &standing {
            tracing::debug!(%error, "the held walks could not be counted");
        }
        let now_at = self.0.clock.now();
        let (held, oldest) = standing.ok().map_or((None, None), |standing| {
            let age = |verified_at| since(now_at, verified_at);
            let oldest = standing.oldest_verified_at.map_or(Duration::ZERO, age);
            (Some(standing.held_walks), Some(oldest))
        });
        self.0.metrics.directories(held, oldest);
        self.0
            .metrics
            .journal_trouble(!self.0.store.is_journal_in_order());
        *counted_at = Some(now);
    }
}

/// Converts the state of a credential into the label of the metric.
const fn state_of(state: CountedState) -> CredentialStateLabel {
    match state {
        CountedState::Of(model::CredentialState::Healthy) => CredentialStateLabel::Healthy,
        CountedState::Of(model::CredentialState::Refreshing) => CredentialStateLabel::Refreshing,
        CountedState::Of(model::CredentialState::Uncertain) => CredentialStateLabel::Uncertain,
        CountedState::Of(model::CredentialState::ReauthRequired) => {
            CredentialStateLabel::ReauthRequired
        }
        CountedState::Of(model::CredentialState::Moved) => CredentialStateLabel::Moved,
        CountedState::Degraded => CredentialStateLabel::Degraded,
        CountedState::Locked => CredentialStateLabel::Locked,
        CountedState::Disconnected => CredentialStateLabel::Disconnected,
    }
}
