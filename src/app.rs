//! Wires one running gateway together.
//!
//! [`App::build`] opens the store and binds the port before anything runs, so that port 0 works and
//! faults show at once. The command line and the tests call the same function.

use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use actix_server::Server;
use actix_web::{App as ActixApp, middleware::from_fn, web::Data};
use tokio::task::JoinHandle;

use crate::{
    clock::Clock,
    config::{Config, ConfigErrors},
    connectors,
    crypto::{LiveRing, Rng},
    error::Error,
    gateway::{Gateway, GatewaySettings, SharedBudgets, linking::verify},
    http::{
        self,
        hub::theme::Theme,
        server::{Builder, Limits},
    },
    outbound::{self, Outbound, SharedQuota},
    store::{self, JournalFault, OpenError, Store},
    telemetry::Metrics,
};

/// Pause before the second and last try to claim a store or journal that is in use.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// A gateway that is ready to run.
pub struct App {
    listener: TcpListener,
    /// For `GET /metrics`, if that has a port of its own.
    metrics: Option<TcpListener>,
    gateway: Gateway,
    limits: Limits,
    lame_duck: Duration,
    theme: Data<Theme>,
    has_swagger_ui: bool,
}

/// Why a gateway cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    #[error(transparent)]
    Store(#[from] OpenError),
    #[error(
        "the journal of token pairs cannot be used: {0}. Without one, a pair that the database does \
         not take is lost with the process; `store.journal_required = false` has it served all the same"
    )]
    Journal(#[from] JournalFault),
    #[error("cannot listen on {address}: {source}")]
    Listen {
        address: String,
        source: std::io::Error,
    },
    #[error("cannot set up calls to providers: {0}")]
    Outbound(String),
    #[error("the store was opened but does not answer: {0}")]
    Unready(Error),
}

/// The use cases over the configured store. The store is only opened: a process that serves it must
/// claim it with [`Gateway::claim`].
///
/// # Errors
/// If the store does not open, or not with these keys.
pub async fn gateway(
    config: &Config,
    ring: impl Into<LiveRing>,
    clock: Clock,
    rng: Rng,
) -> Result<Gateway, BuildError> {
    let retention = store::Retention {
        superseded_directories: Duration::from_secs(config.directory.keep_superseded_seconds),
        ..store::Retention::default()
    };
    let store = Store::open(&config.store.url, ring, clock.clone())
        .await?
        .with_retention(retention)
        .with_max_live_keys(config.server.max_keys_per_project)
        .with_journal(config.store.journal());
    let shares = store
        .is_shared()
        .then(|| Arc::new(SharedBudgets::new(store.clone())) as Arc<dyn SharedQuota>);
    let outbound = outbound(config, clock.clone(), &rng, shares)?.with_metrics(Metrics::new());
    Ok(Gateway::new(
        store,
        outbound,
        connectors::registry(),
        clock,
        rng,
        GatewaySettings::from(config),
    ))
}

/// Checks a token with the provider without a store. The few calls count against no quota that
/// replicas share.
///
/// # Errors
/// As [`verify::examine`]; `internal` if calls cannot be set up.
pub async fn examine(
    config: &Config,
    clock: Clock,
    rng: &Rng,
    candidate: verify::TokenToCheck,
) -> Result<verify::CheckResult, Error> {
    let outbound = outbound(config, clock, rng, None).map_err(Error::internal)?;
    let settings = GatewaySettings::from(config);
    verify::examine(&outbound, connectors::registry(), &settings, candidate).await
}

fn outbound(
    config: &Config,
    clock: Clock,
    rng: &Rng,
    shares: Option<Arc<dyn SharedQuota>>,
) -> Result<Outbound, BuildError> {
    let seed = u64::from_le_bytes(rng.bytes());
    Outbound::new(outbound_settings(config), clock, seed, shares)
        .map_err(|error| BuildError::Outbound(error.to_string()))
}

/// The settings of provider calls; a setting that the configuration lacks keeps its default.
fn outbound_settings(config: &Config) -> outbound::OutboundSettings {
    let provider = &config.provider;
    outbound::OutboundSettings {
        rate_limit: provider.rate_limit,
        timeouts: outbound::Timeouts {
            connect: Duration::from_secs_f64(provider.connect_timeout_seconds),
            first_byte: Duration::from_secs_f64(provider.first_byte_timeout_seconds),
            read_gap: Duration::from_secs_f64(provider.read_gap_timeout_seconds),
            whole: Duration::from_secs_f64(provider.whole_timeout_seconds),
            ..outbound::Timeouts::default()
        },
        allow_private_addresses: provider.loopback_base_urls,
        ..outbound::OutboundSettings::default()
    }
}

impl App {
    /// Opens and claims the store, binds the port, and joins the replicas that serve the store.
    /// Only one process can claim a SQLite file.
    ///
    /// # Errors
    /// If the store does not open (or not with these keys), if the store or a required journal is
    /// in use, if a port is taken, or if the logo cannot be read.
    pub async fn build(
        config: &Config,
        ring: impl Into<LiveRing>,
        clock: Clock,
        rng: Rng,
    ) -> Result<Self, BuildError> {
        let theme = Theme::new(&config.hub.brand()?);
        let gateway = gateway(config, ring, clock.clone(), rng).await?;
        if let Err(OpenError::InUse { .. }) = gateway.claim() {
            // A command that only tests whether the store is in use claims it for a moment.
            clock.sleep(RETRY_PAUSE).await;
            gateway.claim()?;
        }
        if config.store.journal_required {
            take_journal(&gateway, &clock).await?;
        }
        let listener = listen(config.server.address())?;
        let metrics = config.server.metrics_address().map(listen).transpose()?;
        if let Ok(bound) = listener.local_addr() {
            gateway.listens_at(bound);
        }
        gateway
            .background()
            .join()
            .await
            .map_err(BuildError::Unready)?;
        Ok(Self {
            listener,
            metrics,
            gateway,
            theme: Data::new(theme),
            has_swagger_ui: config.server.swagger_ui,
            limits: Limits {
                workers: config.server.workers,
                max_connections: config.server.max_connections,
                max_connections_per_address: config.server.max_connections_per_address,
                drain: Duration::from_secs(config.server.drain_seconds),
            },
            lame_duck: Duration::from_secs(config.server.lame_duck_seconds),
        })
    }

    /// The bound port.
    pub fn port(&self) -> u16 {
        self.listener
            .local_addr()
            .expect("the listener is bound")
            .port()
    }

    /// The bound port of `GET /metrics`, if that has a port of its own.
    pub fn metrics_port(&self) -> Option<u16> {
        let address = self.metrics.as_ref()?.local_addr().ok()?;
        Some(address.port())
    }

    pub fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    /// Serves until `shutdown` ends. It then reports "not ready" for a while so that load balancers
    /// stop sending requests, closes its listeners, and waits for requests in flight.
    ///
    /// # Errors
    /// If the server cannot start its threads.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> std::io::Result<()> {
        let gateway = self.gateway.clone();
        let lame_duck = self.lame_duck;
        let server = self.server()?;
        let handle = server.handle();
        let [walks, refreshes, key_ring] = [(); 3].map(|()| gateway.clone());
        let loops = [
            tokio::spawn(async move { walks.background().keep_walking().await }),
            tokio::spawn(async move { refreshes.credentials().keep_refreshing().await }),
            tokio::spawn(async move { key_ring.background().keep_watch().await }),
            tokio::spawn(gateway.background().keep_probing_store()),
        ];
        let served = tokio::spawn(server);
        shutdown.await;
        gateway.stop();
        loops.iter().for_each(JoinHandle::abort);
        // Readiness is false now, but the listeners stay open until load balancers have noticed.
        gateway.clock().sleep(lame_duck).await;
        handle.stop(true).await;
        served.await.map_err(std::io::Error::other)??;
        gateway.background().close().await;
        Ok(())
    }

    fn server(self) -> std::io::Result<Server> {
        let document = http::document();
        let metrics = self.gateway.metrics().clone();
        let clock = self.gateway.clock().clone();
        let gateway = Data::new(self.gateway);
        let (gateway_of_metrics, document_of_metrics) = (gateway.clone(), document.clone());
        let counted_in = metrics.clone();
        let has_swagger_ui = self.has_swagger_ui;
        let theme = self.theme;
        let app = move || {
            ActixApp::new()
                .app_data(gateway.clone())
                .configure(|config| {
                    if has_swagger_ui {
                        http::mount_swagger_ui(config);
                    }
                    http::mount(config, &document, &metrics, &theme);
                })
                .wrap(from_fn(http::middleware::finish))
        };
        let mut server = Builder::new(&self.limits, clock).listen("api", self.listener, app)?;
        if let Some(listener) = self.metrics {
            let (gateway, document) = (gateway_of_metrics, document_of_metrics);
            let app = move || {
                ActixApp::new()
                    .app_data(gateway.clone())
                    .configure(|config| http::mount_metrics(config, &document, &counted_in))
                    .wrap(from_fn(http::middleware::finish))
            };
            server = server.listen("metrics", listener, app)?;
        }
        Ok(server.run())
    }
}

/// Tries twice: the process that has the journal may be about to end.
async fn take_journal(gateway: &Gateway, clock: &Clock) -> Result<(), JournalFault> {
    match gateway.require_journal() {
        Err(JournalFault::InUse { .. }) => {
            clock.sleep(RETRY_PAUSE).await;
            gateway.require_journal()
        }
        taken => taken,
    }
}

fn listen(address: SocketAddr) -> Result<TcpListener, BuildError> {
    TcpListener::bind(address).map_err(|source| BuildError::Listen {
        address: address.to_string(),
        source,
    })
}
