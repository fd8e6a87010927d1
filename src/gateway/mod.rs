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
    sync::{Arc, OnceLock, RwLock, atomic::AtomicBool},
    time::Duration,
};

use moka::future::Cache;
use tokio::runtime::Handle;

use crate::{
    clock::Clock,
    config::Config,
    connectors::Connector,
    crypto::Rng,
    directory::Matches,
    error::{Error, Kind, Result},
    model::{
        api_keys::ApiKey,
        connectors::ConnectorMeta,
        id::{AccountId, Id, KeyId, ProjectId},
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

use auth::AccountRecord;
use auth::rate_limit::Quotas;
use auth::ttl_cache::{StoreSilence, TtlCache};
pub use budgets::SharedBudgets;
use credentials::refresh::Refreshes;
use directory::page_cache::{CachedPage, ListKey, PageKey};
use walks::state::{LiveAccount, LoadedDirectory};

/// One part in so many of the memory for pages is for what filters left: four bytes a record, so
/// that by default forty lists of a hundred thousand stay.
const SHARE_OF_MATCHES: u64 = 8;

/// API keys, and accounts, that are cached.
const CACHED: u64 = 100_000;

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
    has_joined: AtomicBool,
    /// Whether this process is to stop.
    stop: tokio::sync::watch::Sender<bool>,
    has_closed: AtomicBool,
    /// Held while the store is told that this process lives, or that it ends.
    signing: tokio::sync::Mutex<()>,
    /// Told when what changes beside this process is to be looked at before its time.
    reload_now: tokio::sync::Notify,
    runtime: Handle,
    quotas: Quotas<KeyId>,
    project_quotas: Quotas<ProjectId>,
    /// By the numbers of the connect sessions.
    tries: Quotas<u64>,
    refreshes: Refreshes,
    listens_at: OnceLock<String>,
    keys: TtlCache<KeyId, ApiKey>,
    accounts: TtlCache<(ProjectId, AccountId), AccountRecord>,
    live_accounts: RwLock<HashMap<AccountId, Arc<LiveAccount>>>,
    directories: Cache<(AccountId, u64), Arc<LoadedDirectory>>,
    pages: moka::sync::Cache<PageKey, Arc<CachedPage>>,
    /// What filters left, so that the pages of one list are looked for once.
    matches: moka::sync::Cache<ListKey, Arc<Matches>>,
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
        let weight = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        let directories = Cache::builder()
            .max_capacity(settings.directory_bytes)
            .weigher(move |_, held: &Arc<LoadedDirectory>| {
                weight(held.directory.approximate_size())
            })
            .support_invalidation_closures()
            .build();
        let match_bytes = settings.page_bytes / SHARE_OF_MATCHES;
        let pages = moka::sync::Cache::builder()
            .max_capacity(settings.page_bytes - match_bytes)
            .weigher(move |key: &PageKey, page: &Arc<CachedPage>| {
                weight(key.list.approximate_size() + page.approximate_size())
            })
            .support_invalidation_closures()
            .build();
        let matches = moka::sync::Cache::builder()
            .max_capacity(match_bytes)
            .weigher(move |key: &ListKey, matches: &Arc<Matches>| {
                weight(key.approximate_size() + matches.approximate_size())
            })
            .support_invalidation_closures()
            .build();
        let quotas = Quotas::new(settings.key_rate_limit, clock.clone());
        let project_quotas = Quotas::new(settings.project_rate_limit, clock.clone());
        let tries = Quotas::new(Some(linking::connect_sessions::TRIES), clock.clone());
        let proof_without_store = settings.proof_without_store;
        let silence = StoreSilence::default();
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
            clock,
            rng,
            settings,
            has_joined: AtomicBool::new(false),
            stop: tokio::sync::watch::Sender::new(false),
            has_closed: AtomicBool::new(false),
            signing: tokio::sync::Mutex::default(),
            reload_now: tokio::sync::Notify::new(),
            runtime: Handle::current(),
            quotas,
            project_quotas,
            tries,
            refreshes: Refreshes::default(),
            listens_at: OnceLock::new(),
            keys: TtlCache::new(CACHED, proof_without_store, silence.clone()),
            accounts: TtlCache::new(CACHED, Duration::MAX, silence),
            live_accounts: RwLock::default(),
            directories,
            pages,
            matches,
        }))
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
