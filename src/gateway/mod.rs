//! The use cases of the server: read directories, run walks, link and disconnect accounts, decide
//! on held walks.
//!
//! HTTP handlers, the command line and the tests all call a [`Gateway`]. It starts no threads. Work
//! that must not stop when its caller disconnects (a walk, a load from the store, a change to an
//! account) runs as a task on the runtime on which the gateway was created; the caller only waits
//! for the result.
//!
//! The use cases are grouped into services. Each is a borrowed view of the gateway:
//! `gateway.walks()` returns a [`Walks`].
//!
//! * [`auth`]: API key authentication, access to accounts, request quotas.
//! * [`api_keys`], [`accounts`], [`connector_profiles`], `audit_log`: the resources of a project.
//! * [`linking`]: checks and stores a new credential; contains sign-ins and connect sessions.
//! * [`credentials`]: token refresh, transfer between installations, revocation.
//! * [`walks`]: runs and stores walks; release and discard of held walks.
//! * [`directory`]: serves pages, records and the summary of the current directory.
//! * [`background`]: loops that run without a request: schedule, heartbeat, key ring.
//! * `budgets`: rate limits of tokens that several processes use, kept in the store.
//! * `metrics`: the Prometheus metrics of this process.
//! * [`admin`]: the operator's use cases, across projects.
//! * [`readiness`]: whether a load balancer should send requests to this process.

use std::{
    collections::HashMap,
    net::SocketAddr,
    num::NonZeroU32,
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::runtime::Handle;

use crate::{
    clock::Clock,
    config::Config,
    connectors::Connector,
    crypto::Rng,
    error::{Error, Kind, Result},
    model::{
        connectors::ConnectorMeta,
        id::{Id, ProjectId},
    },
    outbound::Outbound,
    store::{JournalFault, OpenError, Store},
    telemetry::Metrics,
};

pub mod accounts;
pub mod admin;
pub mod api_keys;
mod audit_log;
pub mod auth;
pub mod background;
mod budgets;
pub mod connector_profiles;
pub mod credentials;
pub mod directory;
pub mod linking;
mod metrics;
pub mod readiness;
pub mod walks;

use accounts::Accounts;
use api_keys::ApiKeys;
use auth::{Auth, AuthState, rate_limit::Quotas};
use background::{Background, BackgroundState};
pub use budgets::SharedBudgets;
use connector_profiles::ConnectorProfiles;
use credentials::{Credentials, refresh::Refreshes};
use directory::{DirectoryReader, DirectoryState};
use linking::{Linking, authorizations::Authorizations, connect_sessions::ConnectSessions};
use walks::Walks;

/// Settings of the gateway; `config/default.toml` explains each of them.
#[derive(Debug, Clone)]
pub struct GatewaySettings {
    pub walk_every: Duration,
    pub fresh_for: Duration,
    pub read_wait: Duration,
    /// How long an API key is accepted after the store last confirmed it, while the store does not
    /// answer.
    pub proof_without_store: Duration,
    pub retain_for: Duration,
    pub keep_superseded: Duration,
    pub parallel_reads: usize,
    pub unlisted_departs_after: Option<u32>,
    pub held_confirmed_after: Duration,
    /// Requests per minute and token that the provider allows; None: no limit.
    pub rate_limit: Option<u32>,
    /// Requests per minute of one API key; None: no limit.
    pub key_rate_limit: Option<NonZeroU32>,
    /// Requests per minute of all keys of a project together; None: no limit.
    pub project_rate_limit: Option<NonZeroU32>,
    /// Base URL at which browsers reach this server, without a trailing slash; None: the listen
    /// address.
    pub public_url: Option<String>,
    pub base_urls: Vec<String>,
    pub is_loopback_base_url_allowed: bool,
    pub directory_bytes: u64,
    pub page_bytes: u64,
    pub shows_metrics: bool,
}

impl From<&Config> for GatewaySettings {
    fn from(config: &Config) -> Self {
        const MIB: u64 = 1024 * 1024;
        Self {
            walk_every: Duration::from_secs(config.walk.every_seconds),
            fresh_for: Duration::from_secs(config.walk.fresh_seconds),
            read_wait: config.server.read_wait(),
            proof_without_store: Duration::from_secs(config.server.proof_without_store_seconds),
            retain_for: Duration::from_secs(config.directory.retain_days * 86_400),
            keep_superseded: Duration::from_secs(config.directory.keep_superseded_seconds),
            parallel_reads: config.walk.parallel_reads,
            unlisted_departs_after: Some(config.walk.unlisted_departs_after).filter(|&n| n > 0),
            held_confirmed_after: Duration::from_secs(config.walk.held_confirmed_after_seconds),
            rate_limit: Some(config.provider.rate_limit).filter(|&limit| limit > 0),
            key_rate_limit: NonZeroU32::new(config.server.requests_per_minute_per_key),
            project_rate_limit: NonZeroU32::new(config.server.requests_per_minute_per_project),
            public_url: Some(config.server.public_url.clone()).filter(|url| !url.is_empty()),
            base_urls: config.provider.base_urls.clone(),
            is_loopback_base_url_allowed: config.provider.loopback_base_urls,
            directory_bytes: config.directory.memory_mib * MIB,
            page_bytes: config.directory.pages_mib * MIB,
            shows_metrics: config.server.metrics && config.server.metrics_listen.is_empty(),
        }
    }
}

/// The use cases over one store, one outbound HTTP client and one clock. Cheap to clone.
#[derive(Clone)]
pub struct Gateway(Arc<Inner>);

struct Inner {
    store: Store,
    outbound: Outbound,
    metrics: Metrics,
    /// When the accounts were last counted. Locked during a count.
    accounts_counted_at: tokio::sync::Mutex<Option<Duration>>,
    connectors: HashMap<&'static str, Arc<dyn Connector>>,
    clock: Clock,
    rng: Rng,
    settings: GatewaySettings,
    /// Becomes true when this process must stop.
    stop: tokio::sync::watch::Sender<bool>,
    runtime: Handle,
    listens_at: OnceLock<String>,
    auth: AuthState,
    directory: DirectoryState,
    refreshes: Refreshes,
    /// Quotas of attempts to link, by the number of the connect session.
    link_attempts: Quotas<u64>,
    background: BackgroundState,
}

impl Gateway {
    /// Creates a gateway whose tasks run on the current tokio runtime. It records its metrics in
    /// those of `outbound`.
    ///
    /// # Panics
    /// If called outside a tokio runtime.
    pub fn new(
        store: Store,
        outbound: Outbound,
        connectors: Vec<Arc<dyn Connector>>,
        clock: Clock,
        rng: Rng,
        settings: GatewaySettings,
    ) -> Self {
        let link_attempts = Quotas::new(
            Some(linking::connect_sessions::ATTEMPTS_PER_MINUTE),
            clock.clone(),
        );
        for connector in &connectors {
            outbound.metrics().provider(connector.key());
        }
        Self(Arc::new(Inner {
            store,
            metrics: outbound.metrics().clone(),
            outbound,
            accounts_counted_at: tokio::sync::Mutex::default(),
            connectors: connectors
                .into_iter()
                .map(|each| (each.key(), each))
                .collect(),
            stop: tokio::sync::watch::Sender::new(false),
            runtime: Handle::current(),
            listens_at: OnceLock::new(),
            auth: AuthState::new(&settings, &clock),
            directory: DirectoryState::new(&settings),
            refreshes: Refreshes::default(),
            link_attempts,
            background: BackgroundState::default(),
            clock,
            rng,
            settings,
        }))
    }

    pub const fn auth(&self) -> Auth<'_> {
        Auth { gateway: self }
    }

    pub const fn api_keys(&self) -> ApiKeys<'_> {
        ApiKeys { gateway: self }
    }

    pub const fn accounts(&self) -> Accounts<'_> {
        Accounts { gateway: self }
    }

    pub const fn connector_profiles(&self) -> ConnectorProfiles<'_> {
        ConnectorProfiles { gateway: self }
    }

    pub const fn linking(&self) -> Linking<'_> {
        Linking { gateway: self }
    }

    pub const fn authorizations(&self) -> Authorizations<'_> {
        Authorizations { gateway: self }
    }

    pub const fn connect_sessions(&self) -> ConnectSessions<'_> {
        ConnectSessions { gateway: self }
    }

    pub const fn credentials(&self) -> Credentials<'_> {
        Credentials { gateway: self }
    }

    pub const fn walks(&self) -> Walks<'_> {
        Walks { gateway: self }
    }

    pub const fn directory(&self) -> DirectoryReader<'_> {
        DirectoryReader { gateway: self }
    }

    pub const fn background(&self) -> Background<'_> {
        Background { gateway: self }
    }

    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// Sets the address on which the server listens. Links and callbacks use it unless `public_url`
    /// is set.
    pub fn listens_at(&self, address: SocketAddr) {
        // A second call changes nothing: a bound server keeps its address.
        let _ = self.0.listens_at.set(format!("http://{address}"));
    }

    /// The base URL at which browsers reach this server, without a trailing slash.
    pub fn public_url(&self) -> &str {
        let configured = self.0.settings.public_url.as_deref();
        let bound = || self.0.listens_at.get().map(String::as_str);
        configured.or_else(bound).unwrap_or("http://127.0.0.1:8080")
    }

    /// Fails if links would contain an unspecified address: the server listens on all interfaces
    /// and `server.public_url` is empty.
    fn must_be_reachable(&self) -> Result<()> {
        let url = url::Url::parse(self.public_url()).map_err(Error::internal)?;
        let is_none = match url.host() {
            Some(url::Host::Ipv4(address)) => address.is_unspecified(),
            Some(url::Host::Ipv6(address)) => address.is_unspecified(),
            Some(url::Host::Domain(_)) | None => false,
        };
        if is_none {
            return Err(Error::new(
                Kind::PublicUrlMissing,
                "this server does not know where browsers reach it: `server.public_url` is empty",
            ));
        }
        Ok(())
    }

    /// Generates a new id.
    pub fn new_id<T>(&self) -> Id<T> {
        self.0.rng.id(self.0.clock.now())
    }

    /// Claims the store for this process.
    ///
    /// # Errors
    /// `InUse` if another process has claimed a store that cannot be shared; errors of the file
    /// system.
    pub fn claim(&self) -> Result<(), OpenError> {
        self.0.store.claim()
    }

    /// Locks the journal of token pairs for this process.
    ///
    /// # Errors
    /// As [`Store::require_journal`].
    pub fn require_journal(&self) -> Result<(), JournalFault> {
        self.0.store.require_journal()
    }

    /// Begins the shutdown: from now on [`Gateway::ready`] fails.
    pub fn stop(&self) {
        self.0.stop.send_replace(true);
    }

    pub fn is_stopping(&self) -> bool {
        *self.0.stop.borrow()
    }

    /// Waits until this process must stop.
    pub async fn stopped(&self) {
        // The sender exists as long as the gateway, so this wait cannot fail.
        let _ = self.0.stop.subscribe().wait_for(|is_set| *is_set).await;
    }

    /// The display name of a connector.
    pub fn provider_name(&self, provider: &str) -> Option<&'static str> {
        self.0
            .connectors
            .get(provider)
            .map(|connector| connector.name())
    }

    /// All connectors, sorted by key.
    pub fn connectors(&self) -> Vec<ConnectorMeta> {
        let connectors = self.0.connectors.values();
        let mut all: Vec<_> = connectors.map(|each| meta(each.as_ref())).collect();
        all.sort_unstable_by_key(|meta| meta.provider);
        all
    }

    /// The connector with this key.
    ///
    /// # Errors
    /// `not_found`.
    pub fn connector_meta(&self, provider: &str) -> Result<ConnectorMeta> {
        let connector = self.0.connectors.get(provider).ok_or_else(|| {
            Error::new(Kind::NotFound, "there is no such connector")
                .with_hint("Check the provider; GET /connectors/meta lists the connectors.")
        })?;
        Ok(meta(connector.as_ref()))
    }

    fn connector(&self, provider: &str) -> Result<Arc<dyn Connector>> {
        self.0.connectors.get(provider).cloned().ok_or_else(|| {
            linking::verify::unknown_provider(self.0.connectors.keys().copied().collect())
        })
    }

    /// The store, scoped to the requests of this project.
    fn store_of(&self, project: &ProjectId) -> Store {
        self.0.store.for_project(project)
    }

    /// Runs `work` to completion even if the caller stops waiting.
    async fn owned<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        match self.0.runtime.spawn(work).await {
            Ok(outcome) => outcome,
            Err(failure) => Err(Error::internal(failure)),
        }
    }
}

fn meta(connector: &dyn Connector) -> ConnectorMeta {
    ConnectorMeta {
        provider: connector.key(),
        name: connector.name(),
        models: connector.models(),
    }
}
