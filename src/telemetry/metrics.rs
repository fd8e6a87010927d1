//! Every metric of this process. [`ALL`] lists each one once, with the values that its labels may
//! have.
//!
//! A label names a kind of event, never a person or an account: its values come from our enums,
//! route templates, connector keys or the version. Labels therefore contain no personal data, and
//! the number of series is bounded.
//!
//! [`Metrics`] is a value that is passed on, not a global recorder: two gateways in one process
//! count separately. Each request is counted through a [`RouteMeter`], which caches its series.

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use metrics::{Counter, Gauge, Histogram, Key, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusRecorder};

use crate::model::{
    accounts::AccountStatus,
    walks::{ListName, WalkReason, WalkState},
};

/// The label `route` of a request that matched no route.
pub const NO_ROUTE: &str = "-";

/// The label `reason` of a walk that ended without a special reason.
pub const NO_REASON: &str = "none";

/// The definition of a metric.
#[derive(Debug)]
pub struct Metric {
    pub name: &'static str,
    pub kind: MetricKind,
    pub labels: &'static [MetricLabel],
    /// One sentence, without its period.
    pub help: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MetricKind {
    Counter,
    Gauge,
    /// With the upper bounds of its buckets, in seconds.
    Histogram(&'static [f64]),
}

impl MetricKind {
    /// The name of this type in the Prometheus text format.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

/// A label, and the set of its values.
#[derive(Debug)]
pub struct MetricLabel {
    pub name: &'static str,
    pub values: Values,
}

#[derive(Debug, Clone, Copy)]
pub enum Values {
    /// A route template, such as `/iam/users/{record}`, or [`NO_ROUTE`].
    Routes,
    /// The key of a connector.
    Connectors,
    /// The running version of Rolecall.
    Version,
    Words(fn() -> Vec<&'static str>),
}

const REQUESTS: Metric = Metric {
    name: "rolecall_http_requests_total",
    kind: MetricKind::Counter,
    labels: &[
        label("route", Values::Routes),
        label("method", Values::Words(words::<HttpMethod>)),
        label("status", Values::Words(words::<StatusClass>)),
    ],
    help: "Requests that were answered, by route template, method and class of status",
};

const REQUEST_SECONDS: Metric = Metric {
    name: "rolecall_http_request_seconds",
    kind: MetricKind::Histogram(&[
        0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0,
    ]),
    labels: &[label("route", Values::Routes)],
    help: "How long requests took until their answer was ready, waits for walks included",
};

const PROVIDER_CALLS: Metric = Metric {
    name: "rolecall_provider_calls_total",
    kind: MetricKind::Counter,
    labels: &[
        label("provider", Values::Connectors),
        label("outcome", Values::Words(words::<CallOutcome>)),
    ],
    help: "Requests sent to a provider, each retry by itself, by what they came to",
};

const WALKS: Metric = Metric {
    name: "rolecall_walks_total",
    kind: MetricKind::Counter,
    labels: &[
        label("state", Values::Words(words::<WalkState>)),
        label("reason", Values::Words(reasons)),
    ],
    help: "Walks that this process ended, by what they ended as and why",
};

const WALK_SECONDS: Metric = Metric {
    name: "rolecall_walk_seconds",
    kind: MetricKind::Histogram(&[
        0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0,
    ]),
    labels: &[],
    help: "How long the walks took that this process ended, sealed or not",
};

const QUARANTINED_ROWS: Metric = Metric {
    name: "rolecall_quarantined_rows_total",
    kind: MetricKind::Counter,
    labels: &[label("list", Values::Words(words::<ListName>))],
    help: "Rows that walks of this process left out because they had no usable id, walk by walk",
};

const ACCOUNTS: Metric = Metric {
    name: "rolecall_accounts",
    kind: MetricKind::Gauge,
    labels: &[label("state", Values::Words(words::<AccountStatus>))],
    help: "Linked accounts in the store by their status; NaN while the store does not answer",
};

const REFRESHES: Metric = Metric {
    name: "rolecall_refreshes_total",
    kind: MetricKind::Counter,
    labels: &[label("outcome", Values::Words(words::<RefreshOutcome>))],
    help: "Refreshes of rotating credentials that this process sent, by what they came to",
};

const CREDENTIALS: Metric = Metric {
    name: "rolecall_credentials",
    kind: MetricKind::Gauge,
    labels: &[label("state", Values::Words(words::<CredentialStateLabel>))],
    help: "Credentials in the store by their state; NaN while the store does not answer",
};

const STORE_WRITABLE: Metric = Metric {
    name: "rolecall_store_writable",
    kind: MetricKind::Gauge,
    labels: &[],
    help: "1 while the store takes writes, 0 while it does not or does not answer",
};

const STORE_UP: Metric = gauge(
    "rolecall_store_up",
    "1 while the store answers, 0 while it does not",
);

const WALKS_HELD: Metric = gauge(
    "rolecall_walks_held",
    "Accounts whose last walk is held and waits for a decision; NaN while the store does not answer",
);

const OLDEST_DIRECTORY: Metric = gauge(
    "rolecall_oldest_directory_age_seconds",
    "Age of the oldest directory that is served, by when the provider was last found to agree with it; 0 if there is none, NaN while the store does not answer",
);

const KEY_RING_TROUBLE: Metric = gauge(
    "rolecall_key_ring_trouble",
    "1 while the key file is not taken or others can get at it, or a data key does not open; its log says which",
);

const JOURNAL_TROUBLE: Metric = gauge(
    "rolecall_journal_trouble",
    "1 while this process has no journal of token pairs, or a pair waits in it",
);

const BUILD_INFO: Metric = Metric {
    name: "rolecall_build_info",
    kind: MetricKind::Gauge,
    labels: &[label("version", Values::Version)],
    help: "1, with the version of Rolecall",
};

/// Metrics of the crate `metrics-process`, under the names that all Prometheus clients use.
const PROCESS: [Metric; 8] = [
    Metric {
        name: "process_cpu_seconds_total",
        kind: MetricKind::Counter,
        labels: &[],
        help: "CPU time of this process, in whole seconds",
    },
    gauge("process_open_fds", "Open files of this process"),
    gauge(
        "process_max_fds",
        "How many files this process may have open",
    ),
    gauge(
        "process_virtual_memory_bytes",
        "Virtual memory of this process",
    ),
    gauge(
        "process_virtual_memory_max_bytes",
        "How much virtual memory this process may have",
    ),
    gauge(
        "process_resident_memory_bytes",
        "Resident memory of this process",
    ),
    gauge(
        "process_start_time_seconds",
        "When this process was started, in seconds since 1970",
    ),
    gauge("process_threads", "Threads of this process"),
];

const fn gauge(name: &'static str, help: &'static str) -> Metric {
    Metric {
        name,
        kind: MetricKind::Gauge,
        labels: &[],
        help,
    }
}

pub const ALL: [&Metric; 24] = [
    &REQUESTS,
    &REQUEST_SECONDS,
    &PROVIDER_CALLS,
    &WALKS,
    &WALK_SECONDS,
    &QUARANTINED_ROWS,
    &ACCOUNTS,
    &REFRESHES,
    &CREDENTIALS,
    &STORE_UP,
    &STORE_WRITABLE,
    &WALKS_HELD,
    &OLDEST_DIRECTORY,
    &KEY_RING_TROUBLE,
    &JOURNAL_TROUBLE,
    &BUILD_INFO,
    &PROCESS[0],
    &PROCESS[1],
    &PROCESS[2],
    &PROCESS[3],
    &PROCESS[4],
    &PROCESS[5],
    &PROCESS[6],
    &PROCESS[7],
];

const fn label(name: &'static str, values: Values) -> MetricLabel {
    MetricLabel { name, values }
}

/// A closed set of label values, each with its text.
pub trait LabelValue: Copy + 'static {
    const ALL: &'static [Self];

    fn word(self) -> &'static str;
}

fn words<W: LabelValue>() -> Vec<&'static str> {
    W::ALL.iter().map(|word| word.word()).collect()
}

fn reasons() -> Vec<&'static str> {
    [words::<WalkReason>(), vec![NO_REASON]].concat()
}

/// An HTTP method. A method without its own variant is `Other`, so that clients cannot create label
/// values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpMethod {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
    Options,
    Other,
}

impl LabelValue for HttpMethod {
    const ALL: &'static [Self] = &[
        Self::Get,
        Self::Head,
        Self::Post,
        Self::Put,
        Self::Patch,
        Self::Delete,
        Self::Options,
        Self::Other,
    ];

    fn word(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Options => "OPTIONS",
            Self::Other => "-",
        }
    }
}

/// The class of an HTTP status: its first digit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusClass {
    Informational,
    Success,
    Redirection,
    ClientError,
    ServerError,
}

impl StatusClass {
    /// The class of a status from 100 to 599. Any other number counts as a server error.
    pub const fn of(status: u16) -> Self {
        match status {
            100..=199 => Self::Informational,
            200..=299 => Self::Success,
            300..=399 => Self::Redirection,
            400..=499 => Self::ClientError,
            _ => Self::ServerError,
        }
    }
}

impl LabelValue for StatusClass {
    const ALL: &'static [Self] = &[
        Self::Informational,
        Self::Success,
        Self::Redirection,
        Self::ClientError,
        Self::ServerError,
    ];

    fn word(self) -> &'static str {
        match self {
            Self::Informational => "1xx",
            Self::Success => "2xx",
            Self::Redirection => "3xx",
            Self::ClientError => "4xx",
            Self::ServerError => "5xx",
        }
    }
}

/// The result of one request to a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallOutcome {
    Answered,
    Unauthorized,
    Forbidden,
    NotFound,
    Refused,
    Throttled,
    Unavailable,
    InvalidReply,
}

impl LabelValue for CallOutcome {
    const ALL: &'static [Self] = &[
        Self::Answered,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::Refused,
        Self::Throttled,
        Self::Unavailable,
        Self::InvalidReply,
    ];

    fn word(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::Refused => "refused",
            Self::Throttled => "throttled",
            Self::Unavailable => "unavailable",
            Self::InvalidReply => "invalid_reply",
        }
    }
}

/// The result of refreshing a rotating credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefreshOutcome {
    /// The new token pair is stored.
    Refreshed,
    /// The new token pair is stored. It went to the journal first, because the store did not take
    /// it at once.
    Journalled,
    /// The provider refused the refresh token (`invalid_grant`), or it refused the access token of
    /// a credential that was long in an uncertain state.
    Refused,
    /// The request was not sent, or the provider answered with another error.
    Failed,
    /// No usable answer came, so it is unknown whether the refresh token was used.
    Unanswered,
}

impl LabelValue for RefreshOutcome {
    const ALL: &'static [Self] = &[
        Self::Refreshed,
        Self::Journalled,
        Self::Refused,
        Self::Failed,
        Self::Unanswered,
    ];

    fn word(self) -> &'static str {
        match self {
            Self::Refreshed => "refreshed",
            Self::Journalled => "journalled",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Unanswered => "unanswered",
        }
    }
}

/// The state of a credential, as the metric `rolecall_credentials` counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialStateLabel {
    Healthy,
    Refreshing,
    Uncertain,
    Degraded,
    ReauthRequired,
    Locked,
    Disconnected,
    Moved,
}

impl LabelValue for CredentialStateLabel {
    const ALL: &'static [Self] = &[
        Self::Healthy,
        Self::Refreshing,
        Self::Uncertain,
        Self::Degraded,
        Self::ReauthRequired,
        Self::Locked,
        Self::Disconnected,
        Self::Moved,
    ];

    fn word(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Refreshing => "refreshing",
            Self::Uncertain => "uncertain",
            Self::Degraded => "degraded",
            Self::ReauthRequired => "reauth_required",
            Self::Locked => "locked",
            Self::Disconnected => "disconnected",
            Self::Moved => "moved",
        }
    }
}

impl LabelValue for WalkState {
    const ALL: &'static [Self] = &WalkState::ALL;

    fn word(self) -> &'static str {
        self.as_str()
    }
}

impl LabelValue for WalkReason {
    const ALL: &'static [Self] = &WalkReason::ALL;

    fn word(self) -> &'static str {
        self.as_str()
    }
}

impl LabelValue for ListName {
    const ALL: &'static [Self] = &ListName::ALL;

    fn word(self) -> &'static str {
        self.as_str()
    }
}

impl LabelValue for AccountStatus {
    const ALL: &'static [Self] = &AccountStatus::ALL;

    fn word(self) -> &'static str {
        self.as_str()
    }
}

/// The metrics of one gateway. Clones share them.
#[derive(Clone)]
pub struct Metrics(Arc<PrometheusRecorder>);

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics(…)")
    }
}

impl Metrics {
    /// Creates each series whose labels are known in advance, at 0. A series that first appears at
    /// 1 would hide its first event from `increase()`.
    pub fn new() -> Self {
        let buckets = |builder: PrometheusBuilder, metric: &Metric| match metric.kind {
            MetricKind::Histogram(buckets) => builder
                .set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), buckets)
                .expect("a histogram has buckets"),
            MetricKind::Counter | MetricKind::Gauge => builder,
        };
        let recorder = ALL
            .into_iter()
            .fold(PrometheusBuilder::new(), buckets)
            .build_recorder();
        for Metric {
            name, kind, help, ..
        } in ALL
        {
            let (name, help) = ((*name).into(), (*help).into());
            match kind {
                MetricKind::Counter => recorder.describe_counter(name, None, help),
                MetricKind::Gauge => recorder.describe_gauge(name, None, help),
                MetricKind::Histogram(_) => recorder.describe_histogram(name, None, help),
            }
        }
        let metrics = Self(Arc::new(recorder));
        let reasons = reasons();
        let ends = WalkState::ALL
            .iter()
            .filter(|state| **state != WalkState::Running);
        for (state, reason) in ends.flat_map(|state| reasons.iter().map(move |of| (state, of))) {
            metrics
                .counter(&key(&WALKS, [state.word(), reason]))
                .increment(0);
        }
        for list in words::<ListName>() {
            metrics
                .counter(&key(&QUARANTINED_ROWS, [list]))
                .increment(0);
        }
        for outcome in words::<RefreshOutcome>() {
            metrics.counter(&key(&REFRESHES, [outcome])).increment(0);
        }
        // Looking up a histogram creates it with a count of 0.
        drop(metrics.histogram(&key(&WALK_SECONDS, [])));
        metrics.key_ring_trouble(false);
        metrics.journal_trouble(false);
        let version = env!("CARGO_PKG_VERSION");
        metrics.gauge(&key(&BUILD_INFO, [version])).set(1.0);
        metrics
    }

    /// Creates the series of a provider, at 0.
    pub fn provider(&self, provider: &'static str) {
        for outcome in words::<CallOutcome>() {
            self.counter(&key(&PROVIDER_CALLS, [provider, outcome]))
                .increment(0);
        }
    }

    /// The meter of one route that serves these methods.
    pub fn route(&self, template: &str, methods: &[HttpMethod]) -> RouteMeter {
        let meter = RouteMeter {
            metrics: self.clone(),
            template: template.into(),
            seconds: OnceLock::new(),
            requests: Default::default(),
        };
        meter.seconds();
        for method in methods {
            for status in StatusClass::ALL {
                meter.requests(*method, *status).increment(0);
            }
        }
        meter
    }

    /// Counts one request to a provider. Each retry counts by itself.
    pub fn provider_call(&self, provider: &'static str, outcome: CallOutcome) {
        let key = key(&PROVIDER_CALLS, [provider, outcome.word()]);
        self.counter(&key).increment(1);
    }

    /// Counts and times a walk that ended in this process.
    pub fn walk_ended(&self, state: WalkState, reason: Option<WalkReason>, took: Duration) {
        let reason = reason.map_or(NO_REASON, LabelValue::word);
        self.counter(&key(&WALKS, [state.word(), reason]))
            .increment(1);
        self.histogram(&key(&WALK_SECONDS, []))
            .record(took.as_secs_f64());
    }

    /// Counts walks that were marked as failed because their process was gone.
    pub fn walks_interrupted(&self, walks: u64) {
        let values = [WalkState::Failed.word(), WalkReason::Interrupted.word()];
        self.counter(&key(&WALKS, values)).increment(walks);
    }

    /// Counts the rows of a list that a walk left out.
    pub fn rows_quarantined(&self, list: ListName, rows: u64) {
        self.counter(&key(&QUARANTINED_ROWS, [list.word()]))
            .increment(rows);
    }

    /// Counts a refresh of a rotating credential.
    pub fn refresh(&self, outcome: RefreshOutcome) {
        self.counter(&key(&REFRESHES, [outcome.word()]))
            .increment(1);
    }

    /// Sets the number of accounts by status. A status that is missing in `counts` is 0. If
    /// `counts` is None, every status is NaN.
    pub fn accounts(&self, counts: Option<&[(AccountStatus, u64)]>) {
        self.count(&ACCOUNTS, counts);
    }

    /// Sets the number of credentials by state, as [`Metrics::accounts`] does.
    pub fn credentials(&self, counts: Option<&[(CredentialStateLabel, u64)]>) {
        self.count(&CREDENTIALS, counts);
    }

    /// Whether the store takes writes.
    pub fn store_writable(&self, is_writable: bool) {
        self.says(&STORE_WRITABLE, is_writable);
    }

    /// Whether the store answers.
    pub fn store_up(&self, is_up: bool) {
        self.says(&STORE_UP, is_up);
    }

    /// Sets the number of accounts with a held walk, and the age of the oldest directory. An
    /// unknown value is NaN.
    pub fn directories(&self, held: Option<u64>, oldest: Option<Duration>) {
        let held = held.map_or(f64::NAN, |held| held as f64);
        self.gauge(&key(&WALKS_HELD, [])).set(held);
        let oldest = oldest.map_or(f64::NAN, |oldest| oldest.as_secs_f64());
        self.gauge(&key(&OLDEST_DIRECTORY, [])).set(oldest);
    }

    /// Whether the key ring has a fault.
    pub fn key_ring_trouble(&self, is_wrong: bool) {
        self.says(&KEY_RING_TROUBLE, is_wrong);
    }

    /// Whether the journal of token pairs has a fault.
    pub fn journal_trouble(&self, is_wrong: bool) {
        self.says(&JOURNAL_TROUBLE, is_wrong);
    }

    fn says(&self, metric: &'static Metric, holds: bool) {
        self.gauge(&key(metric, [])).set(f64::from(u8::from(holds)));
    }

    fn count<W: LabelValue + PartialEq>(
        &self,
        metric: &'static Metric,
        counts: Option<&[(W, u64)]>,
    ) {
        for state in W::ALL {
            let of_state = |counts: &[(W, u64)]| {
                let counts = counts.iter().filter(|(counted, _)| counted == state);
                counts.map(|(_, count)| count).sum::<u64>() as f64
            };
            self.gauge(&key(metric, [state.word()]))
                .set(counts.map_or(f64::NAN, of_state));
        }
    }

    /// All metrics in the text format of Prometheus.
    pub fn render(&self) -> String {
        let process = metrics_process::Collector::default();
        metrics::with_local_recorder(&*self.0, || process.collect());
        self.0.handle().render()
    }

    /// Moves recorded times into the histograms. Call it every few seconds: between two reads of
    /// the metrics, the times would otherwise pile up in memory.
    pub fn add_up(&self) {
        self.0.handle().run_upkeep();
    }

    fn counter(&self, key: &Key) -> Counter {
        self.0.register_counter(key, &OF_OURS)
    }

    fn gauge(&self, key: &Key) -> Gauge {
        self.0.register_gauge(key, &OF_OURS)
    }

    fn histogram(&self, key: &Key) -> Histogram {
        self.0.register_histogram(key, &OF_OURS)
    }
}

static OF_OURS: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, None);

/// The key of a series: one value for each label of the metric, in their order.
fn key<const LABELS: usize>(metric: &'static Metric, values: [&str; LABELS]) -> Key {
    assert_eq!(
        metric.labels.len(),
        LABELS,
        "{} has other labels",
        metric.name
    );
    let labels: Vec<_> = metric
        .labels
        .iter()
        .zip(values)
        .map(|(label, value)| metrics::Label::new(label.name, value.to_owned()))
        .collect();
    Key::from_parts(metric.name, labels)
}

/// Counts and times the requests to one route. Each series is looked up once, on first use.
pub struct RouteMeter {
    metrics: Metrics,
    template: Box<str>,
    seconds: OnceLock<Histogram>,
    requests: [[OnceLock<Counter>; StatusClass::ALL.len()]; HttpMethod::ALL.len()],
}

impl RouteMeter {
    /// Counts and times one request that was answered with this status.
    pub fn answered(&self, method: HttpMethod, status: u16, took: Duration) {
        self.requests(method, StatusClass::of(status)).increment(1);
        self.seconds().record(took.as_secs_f64());
    }

    fn requests(&self, method: HttpMethod, status: StatusClass) -> &Counter {
        self.requests[method as usize][status as usize].get_or_init(|| {
            let values = [&*self.template, method.word(), status.word()];
            self.metrics.counter(&key(&REQUESTS, values))
        })
    }

    fn seconds(&self) -> &Histogram {
        self.seconds.get_or_init(|| {
            let key = key(&REQUEST_SECONDS, [&*self.template]);
            self.metrics.histogram(&key)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    const ROUTE: &str = "/iam/users/{record}";
    const CONNECTOR: &str = "smartsheet";

    /// Metrics on which each kind of event happened.
    fn everything() -> Metrics {
        let metrics = Metrics::new();
        let took = Duration::from_millis(20);
        for route in [ROUTE, NO_ROUTE] {
            let meter = metrics.route(route, &[]);
            for method in HttpMethod::ALL {
                for status in [101, 200, 304, 404, 503] {
                    meter.answered(*method, status, took);
                }
            }
        }
        metrics.provider(CONNECTOR);
        metrics.directories(Some(1), Some(took));
        metrics.store_up(true);
        for outcome in CallOutcome::ALL {
            metrics.provider_call(CONNECTOR, *outcome);
        }
        for state in WalkState::ALL {
            metrics.walk_ended(state, None, took);
            for reason in WalkReason::ALL {
                metrics.walk_ended(state, Some(reason), took);
            }
        }
        for list in ListName::ALL {
            metrics.rows_quarantined(list, 1);
        }
        for outcome in RefreshOutcome::ALL {
            metrics.refresh(*outcome);
        }
        metrics.accounts(Some(&[(AccountStatus::Active, 3)]));
        metrics.credentials(Some(&[(CredentialStateLabel::Healthy, 3)]));
        metrics.store_writable(true);
        metrics
    }

    /// The samples of a rendered page: name, labels and value.
    fn samples(page: &str) -> Vec<(String, BTreeMap<String, String>, f64)> {
        let lines = page.lines();
        lines
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(|line| {
                let (series, value) = line.rsplit_once(' ').unwrap();
                let (name, labels) = match series.split_once('{') {
                    Some((name, labels)) => (name, labels.strip_suffix('}').unwrap()),
                    None => (series, ""),
                };
                let labels = labels.split(',').filter(|label| !label.is_empty());
                let labels = labels.map(|label| {
                    let (name, value) = label.split_once('=').unwrap();
                    (name.to_owned(), value.trim_matches('"').to_owned())
                });
                (name.to_owned(), labels.collect(), value.parse().unwrap())
            })
            .collect()
    }

    fn value(page: &str, series: &str) -> Option<f64> {
        let line = page
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map(|value| value.parse().unwrap())
    }

    /// `increase()` counts the first event of a series only if the series existed before.
    #[test]
    fn every_counter_is_there_before_anything_happens() {
        let metrics = Metrics::new();
        metrics.provider(CONNECTOR);
        metrics.route(ROUTE, &[HttpMethod::Get]);
        let page = metrics.render();
        for series in [
            "rolecall_walks_total{state=\"held\",reason=\"mass_disappearance\"}",
            "rolecall_walks_total{state=\"sealed\",reason=\"none\"}",
            "rolecall_walks_total{state=\"failed\",reason=\"interrupted\"}",
            "rolecall_provider_calls_total{provider=\"smartsheet\",outcome=\"throttled\"}",
            "rolecall_refreshes_total{outcome=\"refused\"}",
            "rolecall_quarantined_rows_total{list=\"users\"}",
            "rolecall_walk_seconds_count",
            "rolecall_http_request_seconds_count{route=\"/iam/users/{record}\"}",
            "rolecall_key_ring_trouble",
            "rolecall_journal_trouble",
        ] {
            assert_eq!(value(&page, series), Some(0.0), "{series}: {page}");
        }
        for metric in ALL
            .iter()
            .filter(|metric| metric.kind == MetricKind::Counter)
        {
            let samples = samples(&page);
            let of_metric: Vec<_> = samples
                .iter()
                .filter(|(name, ..)| name == metric.name)
                .collect();
            assert!(!of_metric.is_empty(), "{}", metric.name);
            for label in metric.labels {
                if let (Values::Words(words), true) = (label.values, metric.name != REQUESTS.name) {
                    let missing: Vec<_> = words()
                        .into_iter()
                        .filter(|word| !["running", "-"].contains(word))
                        .filter(|word| {
                            of_metric
                                .iter()
                                .all(|(_, labels, _)| labels[label.name] != *word)
                        })
                        .collect();
                    assert!(missing.is_empty(), "{} {missing:?}", metric.name);
                }
            }
        }
        assert!(value(&page, "process_resident_memory_bytes").unwrap() > 0.0);
    }

    #[test]
    fn every_metric_is_explained_and_has_its_kind() {
        let page = everything().render();
        for metric in ALL {
            let help = format!("# HELP {} {}\n", metric.name, metric.help);
            assert!(page.contains(&help), "{help}");
            let kind = format!("# TYPE {} {}\n", metric.name, metric.kind.as_str());
            assert!(page.contains(&kind), "{kind}");
        }
        let names: BTreeSet<_> = ALL.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), ALL.len());
    }

    /// Every label value comes from a set in the table, so none is a name, an address or an id.
    #[test]
    fn every_value_of_a_label_is_one_of_those_that_the_table_names() {
        let page = everything().render();
        let mut seen: BTreeMap<(&str, &str), BTreeSet<String>> = BTreeMap::new();
        for (name, labels, _) in samples(&page) {
            let metric = ALL
                .into_iter()
                .find(|metric| {
                    let rest = name.strip_prefix(metric.name);
                    rest.is_some_and(|rest| match metric.kind {
                        MetricKind::Histogram(_) => ["_bucket", "_sum", "_count"].contains(&rest),
                        _ => rest.is_empty(),
                    })
                })
                .unwrap_or_else(|| panic!("{name} is not in the table"));
            for (label, value) in labels {
                if label == "le" && matches!(metric.kind, MetricKind::Histogram(_)) {
                    continue;
                }
                let known = metric.labels.iter().find(|known| known.name == label);
                let known = known.unwrap_or_else(|| panic!("{name} has a label {label}"));
                seen.entry((metric.name, known.name))
                    .or_default()
                    .insert(value);
            }
        }
        for metric in ALL {
            for label in metric.labels {
                let allowed: BTreeSet<String> = match label.values {
                    Values::Routes => [ROUTE, NO_ROUTE].map(str::to_owned).into(),
                    Values::Connectors => [CONNECTOR.to_owned()].into(),
                    Values::Version => [env!("CARGO_PKG_VERSION").to_owned()].into(),
                    Values::Words(words) => words().into_iter().map(str::to_owned).collect(),
                };
                assert_eq!(
                    seen.get(&(metric.name, label.name)),
                    Some(&allowed),
                    "{} of {}",
                    label.name,
                    metric.name
                );
            }
        }
    }

    #[test]
    fn words_are_plain_and_each_of_a_label_s_is_another() {
        for label in ALL.iter().flat_map(|metric| metric.labels) {
            let Values::Words(words) = label.values else {
                continue;
            };
            let words = words();
            let different: BTreeSet<_> = words.iter().collect();
            assert_eq!(different.len(), words.len(), "{}", label.name);
            for word in words {
                let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
                assert!(word.chars().all(is_plain), "{word}");
            }
        }
    }

    #[test]
    fn an_enum_s_place_is_where_its_word_stands() {
        for (at, method) in HttpMethod::ALL.iter().enumerate() {
            assert_eq!(*method as usize, at);
        }
        for (at, class) in StatusClass::ALL.iter().enumerate() {
            assert_eq!(*class as usize, at);
        }
    }

    #[test]
    fn two_of_them_count_apart_and_clones_together() {
        let (one, two) = (Metrics::new(), Metrics::new());
        one.refresh(RefreshOutcome::Refreshed);
        one.clone().refresh(RefreshOutcome::Refreshed);
        two.refresh(RefreshOutcome::Refused);
        let refreshed = "rolecall_refreshes_total{outcome=\"refreshed\"}";
        assert_eq!(value(&one.render(), refreshed), Some(2.0));
        assert_eq!(value(&two.render(), refreshed), Some(0.0));
    }

    #[test]
    fn what_was_added_up_is_still_there_and_in_its_bucket() {
        let metrics = Metrics::new();
        let meter = metrics.route(ROUTE, &[]);
        for millis in [2, 20, 70_000] {
            meter.answered(HttpMethod::Get, 200, Duration::from_millis(millis));
            metrics.add_up();
        }
        let page = metrics.render();
        let seconds = format!("rolecall_http_request_seconds_bucket{{route=\"{ROUTE}\",le=");
        for (end, count) in [("0.001", 0.0), ("0.005", 1.0), ("60", 2.0), ("+Inf", 3.0)] {
            let series = format!("{seconds}\"{end}\"}}");
            assert_eq!(value(&page, &series), Some(count), "{page}");
        }
        let sum = format!("rolecall_http_request_seconds_sum{{route=\"{ROUTE}\"}}");
        assert!((value(&page, &sum).unwrap() - 70.022).abs() < 1e-9);
        let same = metrics.render();
        assert_eq!(value(&same, &sum), value(&page, &sum));
    }

    #[test]
    fn what_is_not_counted_is_none_and_what_is_not_known_is_no_number() {
        let metrics = Metrics::new();
        let series = |state: &str| format!("rolecall_accounts{{state=\"{state}\"}}");
        metrics.accounts(Some(&[
            (AccountStatus::Active, 7),
            (AccountStatus::Error, 2),
        ]));
        let page = metrics.render();
        assert_eq!(value(&page, &series("active")), Some(7.0));
        assert_eq!(value(&page, &series("error")), Some(2.0));
        assert!(
            page.contains(&format!("{} 0\n", series("inactive"))),
            "{page}"
        );
        metrics.accounts(None);
        let page = metrics.render();
        for state in words::<AccountStatus>() {
            assert!(value(&page, &series(state)).unwrap().is_nan(), "{page}");
        }
    }
}
