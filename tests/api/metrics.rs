//! What a process tells of its work in numbers, at `/metrics`.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use reqwest::Method;
use rolecall::telemetry::metrics::{ALL, MetricKind, NO_ROUTE, Values};
use serde_json::json;

use crate::{
    openapi::operations,
    world::{HANG, Plan, Reply, World},
};

/// A page that was read as the format has it.
struct Page {
    kinds: BTreeMap<String, String>,
    samples: Vec<Sample>,
}

struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

/// A name in the format: of a metric, or of a label.
fn is_name(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with(|c: char| c.is_ascii_digit())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

impl Page {
    /// Reads a page strictly: comments before samples, every sample of a declared metric, none of
    /// them twice.
    #[track_caller]
    fn read(text: &str) -> Self {
        assert!(text.ends_with('\n'));
        let mut page = Self {
            kinds: BTreeMap::new(),
            samples: Vec::new(),
        };
        let mut seen = BTreeSet::new();
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(comment) = line.strip_prefix("# ") {
                let mut words = comment.splitn(3, ' ');
                let (what, name) = (words.next().unwrap(), words.next().unwrap());
                assert!(is_name(name), "{line}");
                let rest = words.next().unwrap().to_owned();
                match what {
                    "HELP" => assert!(!rest.is_empty(), "{line}"),
                    "TYPE" => {
                        let before = page.kinds.insert(name.to_owned(), rest);
                        assert_eq!(before, None, "{line}");
                    }
                    _ => panic!("{line}"),
                }
                continue;
            }
            let (series, value) = line.rsplit_once(' ').unwrap();
            assert!(seen.insert(series.to_owned()), "{series} is there twice");
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let labels = labels.strip_suffix('}').unwrap();
            let mut read = BTreeMap::new();
            let mut rest = labels;
            while let Some((label, tail)) = rest.split_once("=\"") {
                let (value, tail) = tail.split_once('"').unwrap();
                assert!(is_name(label) && !value.contains('\\'), "{line}");
                read.insert(label.to_owned(), value.to_owned());
                rest = tail.strip_prefix(',').unwrap_or(tail);
            }
            assert!(rest.is_empty() && is_name(name), "{line}");
            page.samples.push(Sample {
                name: name.to_owned(),
                labels: read,
                value: value.parse().unwrap(),
            });
        }
        for sample in &page.samples {
            let family = page.family(&sample.name);
            assert!(family.is_some(), "{} has no TYPE", sample.name);
        }
        page
    }

    /// The metric that a sample is of.
    fn family(&self, name: &str) -> Option<&str> {
        let ends = ["", "_bucket", "_sum", "_count"];
        let mut families = ends.iter().filter_map(|end| name.strip_suffix(end));
        families.find_map(|family| {
            let (family, kind) = self.kinds.get_key_value(family)?;
            (family == name || kind == "histogram").then_some(family.as_str())
        })
    }

    /// All samples of this name with these labels, added up.
    fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let fits = |sample: &&Sample| {
            sample.name == name
                && labels
                    .iter()
                    .all(|(label, value)| sample.labels[*label] == *value)
        };
        self.samples
            .iter()
            .filter(fits)
            .map(|sample| sample.value)
            .sum()
    }

    fn requests(&self, route: &str, method: &str, status: &str) -> f64 {
        let labels = [("route", route), ("method", method), ("status", status)];
        self.sum("rolecall_http_requests_total", &labels)
    }

    fn accounts(&self, state: &str) -> f64 {
        self.sum("rolecall_accounts", &[("state", state)])
    }
}

async fn raw(world: &World) -> Reply {
    let reply = world.send(Method::GET, "/metrics", &[], None).await;
    assert_eq!(reply.status, 200);
    reply
}

async fn page(world: &World) -> Page {
    Page::read(std::str::from_utf8(&raw(world).await.bytes).unwrap())
}

#[tokio::test]
async fn it_takes_no_key_and_is_text_of_the_format() {
    let world = World::new().await;
    world.link_admin().await;
    let reply = raw(&world).await;
    assert_eq!(
        reply.header("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    assert!(reply.header("x-request-id").is_some());
    let page = Page::read(std::str::from_utf8(&reply.bytes).unwrap());
    for metric in ALL {
        if let Some(kind) = page.kinds.get(metric.name) {
            assert_eq!(kind, metric.kind.as_str(), "{}", metric.name);
        }
    }
    let head = world.send(Method::HEAD, "/metrics", &[], None).await;
    assert_eq!((head.status.as_u16(), head.bytes.len()), (200, 0));
    let post = world.post("/metrics").await;
    post.refused(405, "method_not_allowed");
    assert_eq!(post.header("allow"), Some("GET, HEAD"));
}

#[tokio::test]
async fn buckets_add_up() {
    let world = World::new().await;
    world.link_admin().await;
    let page = page(&world).await;
    let histograms = ALL.iter().filter_map(|metric| match metric.kind {
        MetricKind::Histogram(buckets) => Some((metric.name, buckets)),
        _ => None,
    });
    for (name, buckets) in histograms {
        let count = page.sum(&format!("{name}_count"), &[]);
        assert!(count > 0.0, "{name}");
        let bucket = format!("{name}_bucket");
        let ends = buckets.iter().map(ToString::to_string);
        let ends: Vec<_> = ends.chain(["+Inf".to_owned()]).collect();
        let counts: Vec<_> = ends
            .iter()
            .map(|end| page.sum(&bucket, &[("le", end)]))
            .collect();
        assert!(counts.is_sorted(), "{name}: {counts:?}");
        assert_eq!(counts.last(), Some(&count), "{name}");
        let of_name = |sample: &&Sample| sample.name == bucket;
        let series = page.samples.iter().filter(of_name).count();
        assert_eq!(series % ends.len(), 0, "{name}");
    }
}

#[tokio::test]
async fn every_request_is_counted_by_route_method_and_class() {
    let world = World::new().await;
    let account = world.link_admin().await;
    let users = world.read(&account, "/iam/users").await;
    let etag = users.header("etag").unwrap().to_owned();
    let id = users.json()["data"][0]["id"].as_str().unwrap().to_owned();
    let before = page(&world).await;

    let record = format!("/iam/users/{id}");
    for path in [&record, &record, &format!("/unified{record}")] {
        world.read(&account, path).await.expect(200);
    }
    let known = [("if-none-match", etag.as_str())];
    let reply = world.read_with(&account, "/iam/users", &known).await;
    assert_eq!(reply.status, 304);
    let gone = world.read(&account, "/iam/users/nobody").await;
    gone.refused(404, "not_found");
    let bare = world.send(Method::GET, &record, &[], None).await;
    bare.refused(401, "unauthorized");
    world.call(Method::HEAD, "/accounts", None).await;
    let odd = Method::from_bytes(b"SNOOP").unwrap();
    for (method, path) in [
        (odd, "/accounts"),
        (Method::GET, "/nothing/here"),
        (Method::GET, "/iam/nothing"),
        (Method::GET, "/unified/iam/nothing"),
        (Method::GET, "/swagger-ui/"),
    ] {
        world.call(method, path, None).await;
    }

    let after = page(&world).await;
    let template = "/iam/users/{record}";
    let unified = "/unified/iam/users/{record}";
    for (route, method, status, more) in [
        (template, "GET", "2xx", 2.0),
        (unified, "GET", "2xx", 1.0),
        ("/iam/users", "GET", "3xx", 1.0),
        (template, "GET", "4xx", 2.0),
        ("/accounts", "HEAD", "2xx", 1.0),
        ("/accounts", "-", "4xx", 1.0),
        (NO_ROUTE, "GET", "4xx", 3.0),
        (NO_ROUTE, "GET", "2xx", 1.0),
        // The one before, which was not yet answered when its page was made.
        ("/metrics", "GET", "2xx", 1.0),
        (template, "POST", "4xx", 0.0),
    ] {
        let counted =
            after.requests(route, method, status) - before.requests(route, method, status);
        assert_eq!(counted, more, "{method} {route} {status}");
    }
    let timed = |page: &Page| {
        let labels = [("route", template)];
        page.sum("rolecall_http_request_seconds_count", &labels)
    };
    assert_eq!(timed(&after) - timed(&before), 4.0);
}

#[tokio::test]
async fn every_call_of_a_provider_and_every_walk_is_counted() {
    let world = World::new().await;
    let account = world.link_admin().await;
    let calls = |page: &Page, outcome: &str| {
        let labels = [("provider", "smartsheet"), ("outcome", outcome)];
        page.sum("rolecall_provider_calls_total", &labels)
    };
    let walks = |page: &Page, state: &str, reason: &str| {
        let labels = [("state", state), ("reason", reason)];
        page.sum("rolecall_walks_total", &labels)
    };
    assert_eq!(world.walk(&account).await["state"], "sealed");
    let sealed = page(&world).await;
    assert_eq!(walks(&sealed, "sealed", "none"), 2.0);
    assert_eq!(
        calls(&sealed, "answered"),
        world.provider_log(0).await.len() as f64
    );
    let all = sealed.sum("rolecall_provider_calls_total", &[]);
    assert_eq!(all, calls(&sealed, "answered"));

    world.provider_answers(401).await;
    assert_eq!(world.walk(&account).await["reason"], "credential_refused");
    world.no_faults().await;
    let refused = page(&world).await;
    assert_eq!(walks(&refused, "failed", "credential_refused"), 1.0);
    assert!(calls(&refused, "unauthorized") >= 2.0);
    let sent = world.provider_log(0).await.len() as f64;
    assert_eq!(refused.sum("rolecall_provider_calls_total", &[]), sent);

    let somebody = world.somebody(|user| user["admin"] != true).await;
    let gone = somebody.iter().take(20);
    let gone = gone.map(|id| json!({"op": "remove_user", "id": id.parse::<u64>().unwrap()}));
    world.mutate(&gone.collect()).await;
    assert_eq!(world.walk(&account).await["state"], "held");
    let held = page(&world).await;
    assert_eq!(walks(&held, "held", "mass_disappearance"), 1.0);
    assert_eq!(held.sum("rolecall_walks_total", &[]), 4.0);
    assert_eq!(held.sum("rolecall_walk_seconds_count", &[]), 4.0);
}

#[tokio::test]
async fn what_happens_first_is_an_increase() {
    let mut world = World::new().await;
    let walks = |page: &Page, state: &str, reason: &str| {
        let labels = [("state", state), ("reason", reason)];
        let is_there = page.samples.iter().any(|sample| {
            sample.name == "rolecall_walks_total"
                && sample.labels["state"] == state
                && sample.labels["reason"] == reason
        });
        is_there.then(|| page.sum("rolecall_walks_total", &labels))
    };
    let before = page(&world).await;
    assert_eq!(walks(&before, "held", "mass_disappearance"), Some(0.0));
    assert_eq!(walks(&before, "failed", "interrupted"), Some(0.0));
    assert_eq!(before.requests("/accounts", "POST", "2xx"), 0.0);
    for metric in ALL {
        assert!(before.kinds.contains_key(metric.name), "{}", metric.name);
    }
    assert_eq!(before.sum("rolecall_store_up", &[]), 1.0);
    assert_eq!(before.sum("rolecall_walks_held", &[]), 0.0);
    assert_eq!(before.sum("rolecall_journal_trouble", &[]), 0.0);
    assert_eq!(before.sum("rolecall_key_ring_trouble", &[]), 0.0);
    assert!(before.sum("process_open_fds", &[]) > 0.0);

    let account = world.link_admin().await;
    world.walk(&account).await;
    let somebody = world.somebody(|user| user["admin"] != true).await;
    let gone = somebody.iter().take(20);
    let gone = gone.map(|id| json!({"op": "remove_user", "id": id.parse::<u64>().unwrap()}));
    world.mutate(&gone.collect()).await;
    assert_eq!(world.walk(&account).await["state"], "held");
    world.clock.advance(Duration::from_secs(100));
    let held = page(&world).await;
    assert_eq!(walks(&held, "held", "mass_disappearance"), Some(1.0));
    assert_eq!(held.sum("rolecall_walks_held", &[]), 1.0);
    assert!(held.sum("rolecall_oldest_directory_age_seconds", &[]) >= 100.0);

    // As a process leaves a walk that was killed on it. Those of a file are ended by the next start.
    world
        .rewrite(
            "update walks set state = 'running', ended_at = null, reason = null, replica = 'killed'
             where state = 'held'",
        )
        .await;
    if world.lock_store().await.is_some() {
        world.restart().await;
    }
    let counted =
        async { while walks(&page(&world).await, "failed", "interrupted") != Some(1.0) {} };
    tokio::time::timeout(HANG, counted).await.unwrap();
    world.gateway.background().close().await;
    world.clock.advance(Duration::from_secs(10));
    let down = page(&world).await;
    assert_eq!(down.sum("rolecall_store_up", &[]), 0.0);
    assert!(down.sum("rolecall_walks_held", &[]).is_nan());
}

#[tokio::test]
async fn accounts_are_counted_now_and_then_and_not_by_whoever_asks_often() {
    let world = World::new().await;
    let counted_at = world.clock.monotonic();
    let none = page(&world).await;
    assert_eq!(none.accounts("active"), 0.0);
    let account = world.link_admin().await;
    world.link_admin().await;
    let again = page(&world).await;
    // A machine that took ten seconds for this has counted anew.
    if world.clock.monotonic() - counted_at < Duration::from_secs(10) {
        assert_eq!(again.accounts("active"), 0.0);
    }
    world.clock.advance(Duration::from_secs(10));
    let two = page(&world).await;
    assert_eq!((two.accounts("active"), two.accounts("error")), (2.0, 0.0));

    world.provider_answers(401).await;
    world.walk(&account).await;
    world.no_faults().await;
    world.clock.advance(Duration::from_secs(10));
    let one = page(&world).await;
    assert_eq!((one.accounts("active"), one.accounts("error")), (1.0, 1.0));
    assert_eq!(one.accounts("inactive"), 0.0);
}

#[tokio::test]
async fn without_a_store_the_numbers_of_the_process_are_served_all_the_same() {
    let world = World::new().await;
    world.link_admin().await;
    assert_eq!(page(&world).await.accounts("active"), 1.0);
    world.gateway.background().close().await;
    world.clock.advance(Duration::from_secs(10));
    let page = page(&world).await;
    assert!(page.accounts("active").is_nan());
    assert!(page.requests("/accounts", "POST", "2xx") > 0.0);
}

#[tokio::test]
async fn an_operator_may_take_it_away() {
    let world = World::with(Plan {
        settings: vec![("server.metrics", "false")],
        ..Plan::default()
    })
    .await;
    let reply = world.get("/metrics").await;
    reply.refused(404, "route_not_found");
    assert!(rolecall::config::Config::with(&[]).unwrap().server.metrics);
}

#[tokio::test]
async fn two_gateways_in_one_process_count_apart() {
    let (one, two) = (World::new().await, World::new().await);
    one.link_admin().await;
    assert_eq!(page(&one).await.requests("/accounts", "POST", "2xx"), 1.0);
    assert_eq!(page(&two).await.requests("/accounts", "POST", "2xx"), 0.0);
    assert_eq!(page(&two).await.accounts("active"), 0.0);
}

/// Whoever asks for whatever makes no new series, and so leaves no word of theirs.
#[tokio::test]
async fn labels_are_of_closed_sets_whatever_is_asked() {
    let world = World::new().await;
    let account = world.link_admin().await;
    for path in [
        "/iam/users/ana.ruiz%40example.org",
        "/iam/users?filter%5Bemail%5D=ana.ruiz%40example.org",
        "/accounts/ana.ruiz@example.org",
        "/ana.ruiz@example.org",
        "/swagger-ui/ana.ruiz@example.org",
        "/connectors/meta/ana.ruiz@example.org",
    ] {
        world.read(&account, path).await;
        world.call(Method::POST, path, None).await;
        let own = Method::from_bytes(b"ANA").unwrap();
        world.call(own, path, None).await;
    }
    let mut routes: BTreeSet<_> = operations().into_iter().map(|each| each.path).collect();
    routes.extend(["/openapi.json", NO_ROUTE].map(str::to_owned));
    routes.extend(rolecall::http::hub::routes::PAGES.map(str::to_owned));
    for sample in page(&world).await.samples {
        let of_sample = |metric: &&&_| {
            let metric: &rolecall::telemetry::metrics::Metric = metric;
            sample.name.starts_with(metric.name)
        };
        let metric = ALL.iter().filter(of_sample).max_by_key(|it| it.name.len());
        let metric = metric.unwrap();
        for (name, value) in &sample.labels {
            if name == "le" {
                continue;
            }
            let label = metric.labels.iter().find(|label| label.name == name);
            let is_known = match label.unwrap().values {
                Values::Routes => routes.contains(value.trim_start_matches("/unified")),
                Values::Connectors => value == "smartsheet",
                Values::Version => value == env!("CARGO_PKG_VERSION"),
                Values::Words(words) => words().contains(&value.as_str()),
            };
            assert!(is_known, "{} {name}={value}", sample.name);
        }
    }
    let text = String::from_utf8(raw(&world).await.bytes).unwrap();
    for word in [account.as_str(), "example.org", "ANA", "ana."] {
        assert!(!text.contains(word), "{word}");
    }
}
