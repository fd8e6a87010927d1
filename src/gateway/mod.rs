//! The use-cases: read a directory, walk an account, link and unlink it, decide on a held walk.
//!
//! A [`Gateway`] is the one thing that http, the command line and the tests speak to. It owns no
//! thread: what must outlive a caller (a walk, a load from the store, a page being built) runs as
//! a task of its own on the runtime that it was made on, and callers wait for the outcome; a
//! caller that goes away takes nothing with it.
//!
//! * [`auth`]: whose key is this, whose account is that, how often one may ask.
//! * [`api_keys`], [`accounts`], [`connector_profiles`], `audit_log`: what a project owns.
//! * [`linking`]: a credential is tried and stored; sign-ins and connect sessions are in it.
//! * [`credentials`]: refreshed, moved between installations, revoked.
//! * [`walks`]: one walk, who waits for it, and what becomes of it.
//! * [`directory`]: a directory, its pages, its freshness.
//! * [`background`]: loops that nobody asked for. `budgets`: the budgets of tokens that other
//!   processes call with, too. `metrics`: what this process tells of its work in numbers.
//! * [`admin`]: what the operator may do, above projects. [`readiness`]: whether requests should be
//!   sent here.

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

/// How the gateway behaves; see `config/default.toml` for what each means.
#[derive(Debug, Clone)]
pub struct GatewaySettings {
    pub walk_every: Duration,
    pub fresh_for: Duration,
    pub read_wait: Duration,
    /// How long an API key is taken that was proven before, while the store does not answer.
    pub proof_without_store: Duration,
    pub retain_for: Duration,
    pub keep_superseded: Duration,
    pub parallel_reads: usize,
    pub unlisted_departs_after: Option<u32>,
    pub held_confirmed_after: Duration,
    /// Requests a minute and token that the provider allows; None is no limit.
    pub rate_limit: Option<u32>,
    /// Requests a minute that an API key may make; None is no limit.
    pub key_rate_limit: Option<NonZeroU32>,
    /// Requests a minute that the keys of a project may make together; None is no limit.
    pub project_rate_limit: Option<NonZeroU32>,
    /// Where browsers reach this server, without a trailing slash; None: where it listens.
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

/// The use-cases over one store, one way out and one clock. Cheap to clone.
#[derive(Clone)]
pub struct Gateway(Arc<Inner>);

struct Inner {
    store: Store,
    outbound: Outbound,
    metrics: Metrics,
    /// When the accounts were last counted, held while they are.
    accounts_counted_at: tokio::sync::Mutex<Option<Duration>>,
    connectors: HashMap<&'static str, Arc<dyn Connector>>,
    clock: Clock,
    rng: Rng,
    settings: GatewaySettings,
    /// Whether this process is to stop.
    stop: tokio::sync::watch::Sender<bool>,
    runtime: Handle,
    listens_at: OnceLock<String>,
    auth: AuthState,
    directory: DirectoryState,
    refreshes: Refreshes,
    /// Attempts to link, by the numbers of the connect sessions.
    tries: Quotas<u64>,
    background: BackgroundState,
}

impl Gateway {
    /// A gateway whose tasks run on the current tokio runtime. What it does is counted where its
    /// calls of providers are.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(
        store: Store,
        outbound: Outbound,
        connectors: Vec<Arc<dyn Connector>>,
        clock: Clock,
        rng: Rng,
        settings: GatewaySettings,
    ) -> Self {
        let tries = Quotas::new(Some(linking::connect_sessions::TRIES), clock.clone());
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
            tries,
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

    /// Where it listens: the address of links and callbacks, unless the settings have another.
    pub fn listens_at(&self, address: SocketAddr) {
        // Once bound, it stays there.
        let _ = self.0.listens_at.set(format!("http://{address}"));
    }

    /// Where browsers reach this server, without a trailing slash.
    pub fn public_url(&self) -> &str {
        let configured = self.0.settings.public_url.as_deref();
        let bound = || self.0.listens_at.get().map(String::as_str);
        configured.or_else(bound).unwrap_or("http://127.0.0.1:8080")
    }

    /// Refuses while links would lead to an address that is none: that of a server which listens on
    /// all of its machine's, and was not told where browsers reach it.
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

    /// A new id of ours.
    pub fn new_id<T>(&self) -> Id<T> {
        self.0.rng.id(self.0.clock.now())
    }

    /// Takes the store for this process: `InUse` if another has it that cannot share it.
    ///
    /// # Errors
    /// `InUse`, and what the file system says.
    pub fn claim(&self) -> Result<(), OpenError> {
        self.0.store.claim()
    }

    /// Takes the journal of token pairs for this process.
    ///
    /// # Errors
    /// As [`Store::require_journal`].
    pub fn require_journal(&self) -> Result<(), JournalFault> {
        self.0.store.require_journal()
    }

    /// From now on [`Gateway::ready`] says no.
    pub fn stop(&self) {
        self.0.stop.send_replace(true);
    }

    pub fn is_stopping(&self) -> bool {
        *self.0.stop.borrow()
    }

    /// Ends when this process is to stop.
    pub async fn stopped(&self) {
        // The sender lives as long as the gateway.
        let _ = self.0.stop.subscribe().wait_for(|is_set| *is_set).await;
    }

    /// The name for people of a connector.
    pub fn provider_name(&self, provider: &str) -> Option<&'static str> {
        self.0
            .connectors
            .get(provider)
            .map(|connector| connector.name())
    }

    /// Every connector, in order of its key.
    pub fn connectors(&self) -> Vec<ConnectorMeta> {
        let connectors = self.0.connectors.values();
        let mut all: Vec<_> = connectors.map(|each| meta(each.as_ref())).collect();
        all.sort_unstable_by_key(|meta| meta.provider);
        all
    }

    /// The connector of this key.
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

    /// The store, for the requests of this project.
    fn store_of(&self, project: &ProjectId) -> Store {
        self.0.store.for_project(project)
    }

    /// Runs `work` to its end whether or not the caller stays to hear of it.
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
