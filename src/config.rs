//! The settings: `config/default.toml`, then a file, then the environment, checked as a whole.
//!
//! The default file is the reference. It names every key, so any other key is unknown, and each
//! value must have the type of its default. One error lists all faults.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use figment2::{
    Figment, Metadata, Profile, Provider,
    providers::{Env, Format, Toml},
    value::{Dict, Map, Value},
};
use secrecy::SecretString;
use serde::Deserialize;

use crate::model::brand::{Accent, Brand, Logo, Scheme};

const DEFAULT: &str = include_str!("../config/default.toml");
const ENV_PREFIX: &str = "ROLECALL_";
/// The settings file if neither `--config` nor `ROLECALL_CONFIG` names one.
pub const DEFAULT_FILE: &str = "/etc/rolecall/rolecall.toml";

#[derive(Debug, Clone, Deserialize)]
pub struct Config {
    pub keys_file: PathBuf,
    pub keys: SecretString,
    pub server: ServerConfig,
    pub store: StoreConfig,
    pub walk: WalkConfig,
    pub directory: DirectoryConfig,
    pub provider: ProviderConfig,
    pub hub: HubConfig,
    pub log: LogConfig,
}

#[derive(Debug, Clone, Deserialize)]
pub struct ServerConfig {
    pub listen: String,
    pub public_url: String,
    pub workers: usize,
    pub requests_per_minute_per_key: u32,
    pub requests_per_minute_per_project: u32,
    pub max_keys_per_project: u32,
    pub proof_without_store_seconds: u64,
    pub read_wait_seconds: u64,
    pub drain_seconds: u64,
    pub lame_duck_seconds: u64,
    pub max_connections: usize,
    pub max_connections_per_address: usize,
    pub metrics: bool,
    pub metrics_listen: String,
    pub swagger_ui: bool,
}

#[derive(Debug, Clone, Deserialize)]
pub struct StoreConfig {
    pub url: String,
    pub journal: PathBuf,
    pub journal_required: bool,
}

#[derive(Debug, Clone, Deserialize)]
pub struct WalkConfig {
    pub every_seconds: u64,
    pub fresh_seconds: u64,
    pub parallel_reads: usize,
    pub unlisted_departs_after: u32,
    pub held_confirmed_after_seconds: u64,
}

#[derive(Debug, Clone, Deserialize)]
pub struct DirectoryConfig {
    pub retain_days: u64,
    pub keep_superseded_seconds: u64,
    pub memory_mib: u64,
    pub pages_mib: u64,
}

#[derive(Debug, Clone, Deserialize)]
pub struct ProviderConfig {
    pub rate_limit: u32,
    pub base_urls: Vec<String>,
    pub loopback_base_urls: bool,
    pub connect_timeout_seconds: f64,
    pub first_byte_timeout_seconds: f64,
    pub read_gap_timeout_seconds: f64,
    pub whole_timeout_seconds: f64,
}

#[derive(Debug, Clone, Deserialize)]
pub struct HubConfig {
    pub name: String,
    pub logo_file: PathBuf,
    pub accent: String,
    pub accent_dark: String,
}

#[derive(Debug, Clone, Deserialize)]
pub struct LogConfig {
    pub level: String,
    pub format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Json,
}

impl ServerConfig {
    /// # Panics
    /// Never for a loaded configuration: the address was checked.
    pub fn address(&self) -> SocketAddr {
        self.listen
            .parse()
            .expect("checked when the configuration was loaded")
    }

    /// The address on which `GET /metrics` alone is served; None if it has no address of its own.
    ///
    /// # Panics
    /// Never for a loaded configuration: the address was checked.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        let address = Some(&self.metrics_listen).filter(|address| !address.is_empty())?;
        Some(
            address
                .parse()
                .expect("checked when the configuration was loaded"),
        )
    }

    pub const fn read_wait(&self) -> Duration {
        Duration::from_secs(self.read_wait_seconds)
    }
}

impl StoreConfig {
    /// The folder of the journal: the configured one, else the SQLite file's path with `.journal`
    /// appended, else `rolecall.journal`.
    pub fn journal(&self) -> PathBuf {
        match self.url.strip_prefix("sqlite://") {
            _ if !self.journal.as_os_str().is_empty() => self.journal.clone(),
            Some(file) => format!("{file}.journal").into(),
            None => "rolecall.journal".into(),
        }
    }

    pub fn is_postgres(&self) -> bool {
        matches!(
            self.url.split_once("://"),
            Some(("postgres" | "postgresql", _))
        )
    }

    /// The URL without its password, which can be in the authority or in the query.
    pub fn shown_url(&self) -> String {
        if !self.is_postgres() {
            return self.url.clone();
        }
        let Ok(mut url) = url::Url::parse(&self.url) else {
            return "the PostgreSQL database".to_owned();
        };
        url.set_query(None);
        // This fails only for a URL without a host, and such a URL has no password.
        let _ = url.set_password(None);
        url.to_string()
    }
}

impl HubConfig {
    /// Name, logo and colors of the hub's pages. Reads the logo's file.
    ///
    /// # Errors
    /// Every value that cannot be shown. For a loaded configuration, only a logo file that has
    /// changed since.
    pub fn brand(&self) -> Result<Brand, ConfigErrors> {
        let mut faults = Vec::new();
        let mut note = |key: &str, fault: &dyn fmt::Display| {
            faults.push(format!("hub.{key} {fault}"));
        };
        let name = self.name.parse().map_err(|fault| note("name", &fault)).ok();
        let accent = Accent::new(&self.accent, Scheme::Light)
            .map_err(|fault| note("accent", &fault))
            .ok();
        let accent_dark = Accent::new(&self.accent_dark, Scheme::Dark)
            .map_err(|fault| note("accent_dark", &fault))
            .ok();
        let logo = if self.logo_file.as_os_str().is_empty() {
            Some(None)
        } else {
            read_logo(&self.logo_file)
                .map(Some)
                .map_err(|fault| note("logo_file", &fault))
                .ok()
        };
        match (name, logo, accent, accent_dark) {
            (Some(name), Some(logo), Some(accent), Some(accent_dark)) => Ok(Brand {
                name,
                logo,
                accent,
                accent_dark,
            }),
            _ => Err(ConfigErrors(faults)),
        }
    }
}

fn read_logo(path: &Path) -> Result<Logo, String> {
    let bytes =
        fs::read(path).map_err(|error| format!("cannot be read: {}: {error}", path.display()))?;
    Logo::new(bytes).map_err(|fault| format!("{fault}: {}", path.display()))
}

/// All faults of the settings.
#[derive(Debug, PartialEq, Eq)]
pub struct ConfigErrors(Vec<String>);

impl std::error::Error for ConfigErrors {}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [fault] => write!(f, "the configuration has a fault: {fault}"),
            faults => {
                write!(f, "the configuration has {} faults:", faults.len())?;
                faults.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
            }
        }
    }
}

impl Config {
    /// Loads the defaults, then `file` (or [`DEFAULT_FILE`], if it exists), then the environment of
    /// this process.
    ///
    /// # Errors
    /// Every unknown key, wrong type and value out of range, in one error.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigErrors> {
        let env = Env::prefixed(ENV_PREFIX)
            // `--config` reads the first; the others belong to the test suite and share our prefix.
            .ignore(&[
                "config",
                "test_postgres_url",
                "test_store",
                "soak",
                "soak_seed",
            ])
            .filter(|name| !is_of_kubernetes(name.as_str()))
            .split("__");
        Self::layered(Self::file(file).as_deref(), env)
    }

    /// The settings file to read, given the value of `--config`.
    pub fn file(given: Option<&Path>) -> Option<PathBuf> {
        chosen_file(given, Path::new(DEFAULT_FILE))
    }

    /// The defaults with `overrides` (key path, TOML value) on top, without the environment.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn with(overrides: &[(&str, &str)]) -> Result<Self, ConfigErrors> {
        let vars: BTreeMap<_, _> = overrides.iter().copied().collect();
        Self::layered(None, Pairs(vars))
    }

    fn layered(file: Option<&Path>, last: impl Provider) -> Result<Self, ConfigErrors> {
        let defaults = || Figment::from(Toml::string(DEFAULT));
        let reference: Dict = defaults()
            .extract()
            .expect("the default configuration is a table");
        let mut faults = Vec::new();
        let mut given = reference.clone();
        // A layer that cannot be parsed is skipped, so that the other layers are still checked.
        let layers = [file.map(read_file), Some(read(&last))];
        for layer in layers.into_iter().flatten() {
            match layer {
                Ok(layer) => merge(&mut given, layer),
                Err(of_layer) => faults.extend(of_layer),
            }
        }
        check_keys("", &reference, &mut given, &mut faults);
        let config = extract(&reference, given, &mut faults);
        if let Some(config) = config {
            faults.extend(config.impossible());
            if let Err(ConfigErrors(of_hub)) = config.hub.brand() {
                faults.extend(of_hub);
            }
            if faults.is_empty() {
                return Ok(config);
            }
        }
        Err(ConfigErrors(faults))
    }

    /// Settings that are valid but probably a mistake, one sentence each.
    pub fn warnings(&self) -> Vec<String> {
        let address = self.server.address();
        let mut warnings = Vec::new();
        if !address.ip().is_loopback() && self.server.public_url.is_empty() {
            warnings.push(format!(
                "server.public_url is empty while server.listen is {address}: links for customers \
                 would lead to http://{address}; set it to the https:// URL of your proxy"
            ));
        }
        warnings
    }

    fn impossible(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut demand = |holds: bool, fault: &str| {
            if !holds {
                faults.push(fault.to_owned());
            }
        };
        demand(
            self.server.listen.parse::<SocketAddr>().is_ok(),
            "server.listen must be an address and a port, such as 127.0.0.1:8080",
        );
        demand(
            self.server.public_url.is_empty() || is_public_url(&self.server.public_url),
            "server.public_url must be https:// and a host, and a port if need be, without a path, a \
             query or a fragment; http:// for this machine's loopback alone",
        );
        demand(
            self.server.workers <= 512,
            "server.workers must be 0 to 512",
        );
        demand(
            self.server.requests_per_minute_per_key <= 1_000_000,
            "server.requests_per_minute_per_key must be 0 to 1000000",
        );
        demand(
            self.server.requests_per_minute_per_project <= 10_000_000,
            "server.requests_per_minute_per_project must be 0 to 10000000",
        );
        demand(
            (1..=100_000).contains(&self.server.max_keys_per_project),
            "server.max_keys_per_project must be 1 to 100000",
        );
        demand(
            (5..=2_592_000).contains(&self.server.proof_without_store_seconds),
            "server.proof_without_store_seconds must be 5 to 2592000 (30 days)",
        );
        demand(
            (1..=60).contains(&self.server.read_wait_seconds),
            "server.read_wait_seconds must be 1 to 60",
        );
        demand(
            self.server.drain_seconds <= 600,
            "server.drain_seconds must be 0 to 600",
        );
        demand(
            self.server.lame_duck_seconds <= 600,
            "server.lame_duck_seconds must be 0 to 600",
        );
        demand(
            self.server.metrics_listen.is_empty()
                || self.server.metrics_listen.parse::<SocketAddr>().is_ok(),
            "server.metrics_listen must be an address and a port, such as 127.0.0.1:9090, or empty",
        );
        demand(
            self.server.metrics || self.server.metrics_listen.is_empty(),
            "server.metrics_listen has no effect while server.metrics is false; set it to true",
        );
        demand(
            is_store_url(&self.store.url),
            "store.url must be sqlite:// and the path of a file, or postgres:// and \
             user@host:port/database",
        );
        demand(
            (1..=604_800).contains(&self.walk.every_seconds),
            "walk.every_seconds must be 1 to 604800 (a week)",
        );
        demand(
            (1..=604_800).contains(&self.walk.fresh_seconds),
            "walk.fresh_seconds must be 1 to 604800 (a week)",
        );
        demand(
            (1..=64).contains(&self.walk.parallel_reads),
            "walk.parallel_reads must be 1 to 64",
        );
        demand(
            self.walk.held_confirmed_after_seconds <= 604_800,
            "walk.held_confirmed_after_seconds must be 0 to 604800 (a week)",
        );
        demand(
            (1..=3650).contains(&self.directory.retain_days),
            "directory.retain_days must be 1 to 3650",
        );
        demand(
            (900..=86_400).contains(&self.directory.keep_superseded_seconds),
            "directory.keep_superseded_seconds must be 900 to 86400",
        );
        demand(
            (1..=1_048_576).contains(&self.directory.memory_mib),
            "directory.memory_mib must be 1 to 1048576",
        );
        demand(
            (1..=1_048_576).contains(&self.directory.pages_mib),
            "directory.pages_mib must be 1 to 1048576",
        );
        demand(
            self.provider.rate_limit <= 1_000_000,
            "provider.rate_limit must be 0 to 1000000",
        );
        for base in &self.provider.base_urls {
            demand(
                url::Url::parse(base).is_ok_and(|url| {
                    url.scheme() == "https" && url.has_host() && !base.ends_with('/')
                }),
                &format!(
                    "provider.base_urls: {base} must be an https URL without a trailing slash"
                ),
            );
        }
        for (name, seconds) in [
            (
                "connect_timeout_seconds",
                self.provider.connect_timeout_seconds,
            ),
            (
                "first_byte_timeout_seconds",
                self.provider.first_byte_timeout_seconds,
            ),
            (
                "read_gap_timeout_seconds",
                self.provider.read_gap_timeout_seconds,
            ),
            ("whole_timeout_seconds", self.provider.whole_timeout_seconds),
        ] {
            demand(
                (0.001..=600.0).contains(&seconds),
                &format!("provider.{name} must be 0.001 to 600"),
            );
        }
        demand(
            is_log_filter(&self.log.level),
            "log.level must be trace, debug, info, warn, error or off, or a filter with one of them for \
             everything else, such as info,rolecall::gateway=debug",
        );
        faults
    }
}

/// Whether this is an origin that browsers may be sent to: https, or http on loopback. The hub's
/// pages and cookie use paths from the root, so the URL must have no path.
fn is_public_url(text: &str) -> bool {
    let Ok(url) = url::Url::parse(text) else {
        return false;
    };
    let is_loopback = match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => return false,
    };
    // Checks the text as written: the parser drops or corrects parts that browsers would still be
    // sent.
    let is_bare = text.bytes().all(|byte| byte.is_ascii_graphic())
        && text
            .split_once("://")
            .is_some_and(|(_, authority)| !authority.contains(['/', '\\', '?', '#', '@']));
    is_bare && (url.scheme() == "https" || url.scheme() == "http" && is_loopback)
}

/// Whether Kubernetes sets a variable of this name (without our prefix) in pods beside a Service
/// named `rolecall` or `rolecall-…`.
fn is_of_kubernetes(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    let parts: Vec<_> = name.split('_').collect();
    // Names of nested settings contain two underscores in a row, and those variables never do.
    if parts.iter().any(|part| part.is_empty()) {
        return false;
    }
    let is_of_service = |at: usize| matches!(parts.get(at + 1), Some(&("HOST" | "PORT")));
    let is_of_port = |at: usize| {
        let port = parts.get(at + 1);
        port.is_none_or(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
    };
    (0..parts.len()).any(|at| match parts[at] {
        "SERVICE" => is_of_service(at),
        "PORT" => is_of_port(at),
        _ => false,
    })
}

/// The given file, else the default file if it exists.
fn chosen_file(given: Option<&Path>, default: &Path) -> Option<PathBuf> {
    match given {
        Some(given) => Some(given.to_owned()),
        None => match fs::metadata(default) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            // A file that exists but cannot be read is reported as a fault later.
            _ => Some(default.to_owned()),
        },
    }
}

fn read_file(path: &Path) -> Result<Dict, Vec<String>> {
    match fs::metadata(path) {
        Ok(found) if found.is_file() => read(Toml::file(path).search(false)),
        Ok(_) => Err(vec![format!("{} is not a file", path.display())]),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(vec![format!("there is no file {}", path.display())])
        }
        Err(error) => Err(vec![format!("{} cannot be read: {error}", path.display())]),
    }
}

fn read(layer: impl Provider) -> Result<Dict, Vec<String>> {
    Figment::from(layer)
        .extract()
        .map_err(|error| lines(&error))
}

/// Deserializes the settings. Records each value that does not fit and replaces it by its default.
fn extract(reference: &Dict, mut given: Dict, faults: &mut Vec<String>) -> Option<Config> {
    loop {
        let error = match Value::from(given.clone()).deserialize() {
            Ok(config) => return Some(config),
            Err(error) => error,
        };
        let path = error.path.join(".");
        faults.push(format!("{path}: {}", error.kind));
        if !restore(&error.path, reference, &mut given) {
            return None;
        }
    }
}

/// Replaces the value at `path` by its default; false if there is nothing to replace.
fn restore(path: &[String], reference: &Dict, given: &mut Dict) -> bool {
    let Some((key, rest)) = path.split_first() else {
        return false;
    };
    match (reference.get(key), given.get_mut(key)) {
        (Some(Value::Dict(_, reference)), Some(Value::Dict(_, given))) => {
            restore(rest, reference, given)
        }
        (Some(default), Some(value)) if value != default => {
            *value = default.clone();
            true
        }
        _ => false,
    }
}

/// Compares the given settings with the reference. Records unknown keys and removes them; records
/// values of another type and replaces them by their defaults.
fn check_keys(path: &str, reference: &Dict, given: &mut Dict, faults: &mut Vec<String>) {
    let path_of = |key: &str| match path {
        "" => key.to_owned(),
        path => format!("{path}.{key}"),
    };
    given.retain(|key, _| {
        let is_known = reference.contains_key(key);
        if !is_known {
            faults.push(format!("{} is not a setting", path_of(key)));
        }
        is_known
    });
    for (key, value) in given {
        match (&reference[key], &mut *value) {
            (Value::Dict(_, reference), Value::Dict(_, given)) => {
                check_keys(&path_of(key), reference, given, faults);
            }
            (default, given) => {
                let (wanted, found) = (kind(default), kind(given));
                let is_fitting =
                    wanted == found || (wanted, found) == ("a number", "a whole number");
                if !is_fitting {
                    faults.push(format!("{} must be {wanted}, not {found}", path_of(key)));
                    *value = default.clone();
                }
            }
        }
    }
}

/// Whether the URL has a valid form. Other faults show when the store is opened.
fn is_store_url(text: &str) -> bool {
    match text.split_once("://") {
        Some(("sqlite", path)) => !path.is_empty(),
        Some(("postgres" | "postgresql", _)) => url::Url::parse(text).is_ok(),
        _ => false,
    }
}

/// Whether this is a level, or a filter that sets a level for all other targets or for this crate.
/// `EnvFilter` takes any word for a target's name, so a misspelled level would silence the log.
fn is_log_filter(text: &str) -> bool {
    let is_level = |word: &str| {
        let levels = ["trace", "debug", "info", "warn", "error", "off"];
        levels.iter().any(|level| level.eq_ignore_ascii_case(word))
    };
    let is_target = |target: &str| {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"_:-".contains(&byte);
        !target.is_empty() && target.bytes().all(is_name)
    };
    let mut says_for_us = false;
    for directive in text.split(',').map(str::trim) {
        match directive.split_once('=') {
            None if is_level(directive) => says_for_us = true,
            Some((target, level)) if is_target(target) && is_level(level) => {
                says_for_us |= target.split("::").next() == Some("rolecall");
            }
            _ => return false,
        }
    }
    says_for_us
}

const fn kind(value: &Value) -> &'static str {
    match value {
        Value::String(..) => "a text",
        Value::Char(..) => "a character",
        Value::Bool(..) => "true or false",
        Value::Num(_, number) => match number {
            figment2::value::Num::F32(_) | figment2::value::Num::F64(_) => "a number",
            _ => "a whole number",
        },
        Value::Empty(..) => "empty",
        Value::Dict(..) => "a table",
        Value::Array(..) => "a list",
    }
}

fn lines(error: &figment2::Error) -> Vec<String> {
    error
        .clone()
        .into_iter()
        .map(|fault| fault.to_string())
        .collect()
}

/// Settings as single key paths with TOML values, like those of the environment.
struct Pairs<'a>(BTreeMap<&'a str, &'a str>);

impl Provider for Pairs<'_> {
    fn metadata(&self) -> Metadata {
        Metadata::named("given settings")
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment2::Error> {
        let mut dict = Dict::new();
        for (key, text) in &self.0 {
            let value: Value = text.parse().unwrap_or_else(|never| match never {});
            if let Some(nested) = figment2::util::nest(key, value).into_dict() {
                merge(&mut dict, nested);
            }
        }
        Ok(Profile::Default.collect(dict))
    }
}

fn merge(into: &mut Dict, from: Dict) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Dict(_, into)), Value::Dict(_, from)) => merge(into, from),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_load() {
        let config = Config::with(&[]).unwrap();
        assert_eq!(config.walk.every_seconds, 900);
        assert_eq!(config.provider.rate_limit, 300);
    }

    #[test]
    fn the_example_file_is_a_valid_configuration() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/example.toml");
        assert_eq!(
            Config::layered(Some(&path), Pairs(BTreeMap::new()))
                .unwrap()
                .log
                .format,
            LogFormat::Json
        );
    }

    #[test]
    fn the_example_file_leads_nobody_to_an_address_of_this_machine_alone() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/example.toml");
        let config = Config::layered(Some(&path), Pairs(BTreeMap::new())).unwrap();
        assert!(config.server.address().ip().is_loopback());
        assert!(config.server.public_url.starts_with("https://"));
        assert_eq!(config.warnings(), Vec::<String>::new());
    }

    #[test]
    fn a_public_address_without_a_public_url_is_warned_of() {
        let warnings = |listen: &str, public_url: &str| {
            let (listen, public_url) = (format!("{listen:?}"), format!("{public_url:?}"));
            let settings = [
                ("server.listen", listen.as_str()),
                ("server.public_url", public_url.as_str()),
            ];
            Config::with(&settings).unwrap().warnings().join("\n")
        };
        for listen in ["0.0.0.0:8080", "[::]:8080", "192.0.2.1:80"] {
            let warning = warnings(listen, "");
            assert!(warning.contains("server.public_url is empty"), "{warning}");
            assert_eq!(warnings(listen, "https://rolecall.example.com"), "");
        }
        assert_eq!(warnings("127.0.0.1:8080", ""), "");
        assert_eq!(warnings("[::1]:8080", ""), "");
    }

    #[test]
    fn variables_of_a_kubernetes_service_are_no_settings() {
        for name in [
            "PORT",
            "port",
            "PORT_8080_TCP",
            "PORT_8080_TCP_PROTO",
            "PORT_8080_TCP_PORT",
            "PORT_8080_TCP_ADDR",
            "PORT_53_UDP",
            "SERVICE_HOST",
            "SERVICE_PORT",
            "SERVICE_PORT_HTTP",
            "SERVICE_PORT_HTTP_METRICS",
            // Set for a Service named `rolecall-postgres`.
            "POSTGRES_SERVICE_HOST",
            "POSTGRES_SERVICE_PORT_5432",
            "POSTGRES_PORT",
            "POSTGRES_PORT_5432_TCP_ADDR",
        ] {
            assert!(is_of_kubernetes(name), "{name}");
        }
        for name in [
            "SERVER__LISTEN",
            "SERVICE__LISTEN",
            "SERVER__PORT",
            "PORT__X",
            "KEYS_FILE",
            "KEYS",
            "PORTS",
            "SERVICE",
            "LOG__LEVEL",
            "STORE__URL",
        ] {
            assert!(!is_of_kubernetes(name), "{name}");
        }
    }

    #[test]
    fn the_default_file_is_read_where_there_is_one_and_no_other_was_given() {
        let folder = tempfile::tempdir().unwrap();
        let default = folder.path().join("rolecall.toml");
        let other = Path::new("other.toml");
        assert_eq!(chosen_file(None, &default), None);
        assert_eq!(chosen_file(Some(other), &default).as_deref(), Some(other));
        fs::write(&default, "").unwrap();
        assert_eq!(chosen_file(None, &default), Some(default.clone()));
        assert_eq!(chosen_file(Some(other), &default).as_deref(), Some(other));
    }

    #[test]
    fn a_log_filter_of_unknown_words_is_refused() {
        let load = |level: &str| Config::with(&[("log.level", &format!("{level:?}"))]);
        for good in [
            "trace",
            "debug",
            "info",
            "warn",
            "error",
            "off",
            "INFO",
            "info,rolecall::gateway=debug",
            "warn, sqlx=debug",
            "rolecall=debug",
            "rolecall::http=trace,hyper=warn",
        ] {
            assert!(load(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "warning",
            "verbose",
            "information",
            "err",
            "none",
            "info,",
            "info,gateway",
            "rolecall",
            "rolecal=debug",
            "sqlx=debug",
            "info,rolecall=warning",
            "info,=debug",
            "3",
        ] {
            let fault = load(bad).unwrap_err().to_string();
            assert!(fault.contains("log.level must be trace"), "{bad}: {fault}");
        }
    }

    #[test]
    fn a_store_of_another_kind_is_refused_without_its_password() {
        for bad in [
            "mysql://rolecall:secret@db/rolecall",
            "rolecall.db",
            "sqlite:rolecall.db",
            "sqlite://",
            "",
            "postgres://rolecall:secret@db:port/rolecall",
        ] {
            let fault = Config::with(&[("store.url", &format!("{bad:?}"))]).unwrap_err();
            let fault = fault.to_string();
            assert!(
                fault.contains("store.url must be sqlite://"),
                "{bad}: {fault}"
            );
            assert!(!fault.contains("secret"), "{fault}");
        }
    }

    #[test]
    fn a_given_setting_overrides_the_default() {
        let config = Config::with(&[
            ("store.url", "\"sqlite://x.db\""),
            ("provider.whole_timeout_seconds", "7"),
        ])
        .unwrap();
        assert_eq!(config.store.url, "sqlite://x.db");
        assert!((config.provider.whole_timeout_seconds - 7.0).abs() < f64::EPSILON);
    }

    #[test]
    fn a_public_url_is_an_origin_and_no_more() {
        let load = |url: &str| Config::with(&[("server.public_url", &format!("{url:?}"))]);
        for good in [
            "",
            "https://rolecall.example.com",
            "https://rolecall.example.com:8443",
            "https://[2001:db8::1]",
            "http://127.0.0.1:8080",
            "http://localhost:8080",
        ] {
            assert_eq!(load(good).unwrap().server.public_url, good);
        }
        for bad in [
            "https://example.com/",
            "https://example.com/rolecall",
            "https://example.com/rolecall/",
            "https://example.com/.",
            "https://example.com\\rolecall",
            "https://example.com?",
            "https://example.com?x=1",
            "https://example.com#",
            "https://example.com#x",
            "https://user@example.com",
            "https://user:word@example.com",
            " https://example.com",
            "https://exam\tple.com",
            "https:example.com",
            "https://",
            "http://example.com",
            "ftp://example.com",
            "example.com",
        ] {
            let fault = load(bad).unwrap_err().to_string();
            assert!(fault.contains("server.public_url"), "{bad}: {fault}");
            assert!(fault.contains("without a path"), "{bad}: {fault}");
        }
    }

    #[test]
    fn the_hub_s_brand_is_checked_as_a_whole() {
        let brand = Config::with(&[]).unwrap().hub.brand().unwrap();
        assert_eq!(brand.name.as_str(), "Rolecall");
        assert_eq!(brand.logo, None);

        let faults = Config::with(&[
            ("hub.name", "\" \""),
            ("hub.logo_file", "\"no/such/logo.png\""),
            ("hub.accent", "\"navy\""),
            ("hub.accent_dark", "\"#1f5fa8\""),
            ("walk.parallel_reads", "0"),
        ])
        .unwrap_err()
        .to_string();
        for part in [
            "5 faults",
            "walk.parallel_reads",
            "hub.name must be 1 to 60 characters",
            "hub.logo_file cannot be read: no/such/logo.png",
            "hub.accent must be a color such as #1f5fa8",
            "hub.accent_dark must be read on #10151b",
        ] {
            assert!(faults.contains(part), "{part}: {faults}");
        }
    }

    #[test]
    fn a_logo_is_read_and_must_be_a_picture() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = format!("{:?}", file.path().to_str().unwrap());
        let load = || Config::with(&[("hub.logo_file", path.as_str())]);
        let faults = load().unwrap_err().to_string();
        assert!(faults.contains("must be a PNG, JPEG"), "{faults}");
        fs::write(file.path(), "<svg xmlns='http://www.w3.org/2000/svg'/>").unwrap();
        let logo = load().unwrap().hub.brand().unwrap().logo.unwrap();
        assert_eq!(logo.kind().media_type(), "image/svg+xml");
    }

    #[test]
    fn the_faults_of_a_layer_do_not_hide_those_of_another() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "[server\nlisten = 1").unwrap();
        let last = BTreeMap::from([("log.level", "\"warning\"")]);
        let faults = Config::layered(Some(file.path()), Pairs(last.clone())).unwrap_err();
        assert_eq!(faults.0.len(), 2, "{faults}");
        let faults = Config::layered(Some(Path::new("nowhere.toml")), Pairs(last)).unwrap_err();
        let faults = faults.to_string();
        assert!(faults.contains("no file nowhere.toml"), "{faults}");
        assert!(faults.contains("log.level must be"), "{faults}");
    }

    #[test]
    fn every_fault_is_told_in_one_answer() {
        let faults = Config::with(&[
            ("stor.url", "\"x\""),
            ("walk.evry_seconds", "3"),
            ("walk.fresh_seconds", "\"soon\""),
        ])
        .unwrap_err()
        .to_string();
        for part in [
            "stor is not",
            "walk.evry_seconds is not",
            "walk.fresh_seconds must be a whole number",
        ] {
            assert!(faults.contains(part), "{faults}");
        }
        let faults = Config::with(&[
            ("stor.url", "\"x\""),
            ("walk.fresh_seconds", "\"soon\""),
            ("walk.every_seconds", "-1"),
            ("walk.parallel_reads", "0"),
            ("log.format", "\"xml\""),
            ("log.level", "\"warning\""),
            ("provider.base_urls", "[1, \"x\"]"),
            ("store.url", "\"mysql://db/x\""),
            ("hub.accent", "\"navy\""),
        ])
        .unwrap_err()
        .to_string();
        for part in [
            "9 faults",
            "stor is not a setting",
            "walk.fresh_seconds must be a whole number",
            "walk.every_seconds: ",
            "walk.parallel_reads must be",
            "log.format: unknown variant",
            "log.level must be",
            "provider.base_urls.0: ",
            "store.url must be",
            "hub.accent must be",
        ] {
            assert!(faults.contains(part), "{part}: {faults}");
        }
        let faults = Config::with(&[
            ("server.listen", "\"nowhere\""),
            ("walk.parallel_reads", "0"),
        ])
        .unwrap_err()
        .to_string();
        assert!(
            faults.contains("server.listen") && faults.contains("walk.parallel_reads"),
            "{faults}"
        );
    }
}
