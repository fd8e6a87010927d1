//! Programs that stand beside a process in production: a Prometheus that scrapes it, an nginx before
//! it, and another project's clients. At full size only, since it needs what Debian's packages
//! `prometheus` and `nginx` have; where one is missing the test fails and says so.

use std::{
    fs::{self, File},
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use futures_util::future::join_all;
use reqwest::Method;
use rolecall::clock::Clock;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    cluster::{Cluster, Servers},
    is_full,
    process::{House, Served},
};

/// What can only be a hang.
const NEVER: Duration = Duration::from_secs(60);

/// A program of a test's own, in a folder that is gone with it; killed when dropped.
struct Program {
    child: Child,
    port: u16,
    folder: TempDir,
}

impl Program {
    /// Starts the first of these programs that there is. `settings` is given a free port and the
    /// program's folder, and is written to the file `settings` there; `arguments` are given both.
    fn start(
        package: &str,
        programs: &[&str],
        settings: impl Fn(u16, &str) -> String,
        arguments: impl Fn(u16, &str) -> Vec<String>,
    ) -> Self {
        let mut programs = programs.iter().map(Path::new);
        let program = programs.find(|path| path.is_file());
        let program = program
            .unwrap_or_else(|| panic!("this soak test needs {package}: apt-get install {package}"));
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().display().to_string();
        fs::write(folder.path().join("settings"), settings(port, &path)).unwrap();
        let log = File::create(folder.path().join("log")).unwrap();
        let child = Command::new(program)
            .args(arguments(port, &path))
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Self {
            child,
            port,
            folder,
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A Prometheus that scrapes `house` each second, with the alerts on held walks of OPERATIONS.md.
fn prometheus(house: &House) -> Program {
    let target = format!("127.0.0.1:{}", house.port());
    Program::start(
        "prometheus",
        &["/usr/bin/prometheus"],
        |_, folder| {
            let rules = json!({"groups": [{"name": "rolecall", "rules": [
                {"alert": "Held", "expr": "rolecall_walks_held != 0"},
                {
                    "alert": "HeldLately",
                    "expr": "increase(rolecall_walks_total{state=\"held\"}[1h]) > 0",
                },
            ]}]});
            let rules_file = format!("{folder}/rules.json");
            fs::write(&rules_file, rules.to_string()).unwrap();
            // YAML takes JSON.
            json!({
                "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
                "rule_files": [rules_file],
                "scrape_configs": [{
                    "job_name": "rolecall",
                    "static_configs": [{"targets": [target]}],
                }],
            })
            .to_string()
        },
        |port, folder| {
            vec![
                format!("--config.file={folder}/settings"),
                format!("--storage.tsdb.path={folder}/data"),
                format!("--web.listen-address=127.0.0.1:{port}"),
            ]
        },
    )
}

/// What a running Prometheus answers, once `is_sought` holds for it.
async fn prometheus_says(
    prometheus: &Program,
    path: &str,
    is_sought: impl Fn(&Value) -> bool,
) -> Value {
    let clock = Clock::system();
    let began_at = clock.monotonic();
    let client = reqwest::Client::new();
    let mut last = Value::Null;
    while clock.monotonic() - began_at < NEVER {
        if let Ok(reply) = client.get(prometheus.url(path)).send().await {
            last = reply.json().await.unwrap_or(Value::Null);
            if is_sought(&last["data"]) {
                return last;
            }
        }
        clock.sleep(Duration::from_millis(200)).await;
    }
    panic!("{path}: {last}\n{}", prometheus.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prometheus_sees_the_first_hold_after_a_start() {
    if !is_full() {
        return;
    }
    let house = House::new(60, 10, 1).await;
    let mut served = house.serve();
    let account = house.linked(&mut served).await;
    // Another start, so that this process has counted nothing.
    served.end().await;
    let mut served = house.serve();
    house.up(&mut served).await;
    let prometheus = prometheus(&house);
    let held = "/api/v1/query?query=rolecall_walks_total%7Bstate%3D%22held%22%7D";
    prometheus_says(&prometheus, held, |data| {
        let samples = data["result"].as_array();
        samples.is_some_and(|all| !all.is_empty() && all.iter().all(|one| one["value"][1] == "0"))
    })
    .await;

    let truth = house.control(Method::GET, "/truth", &json!(null)).await;
    let leavers = crate::faults::loose(&truth).into_iter().take(20);
    let removals: Vec<_> = leavers
        .map(|id| json!({"op": "remove_user", "id": id}))
        .collect();
    house
        .control(Method::POST, "/mutate", &json!(removals))
        .await;
    let path = format!("/accounts/{account}/walks?wait=60");
    let walk = house.ask(Method::POST, &path, None, None).await.unwrap();
    assert_eq!(walk.json()["state"], "held", "{}", walk.json());

    for alert in ["Held", "HeldLately"] {
        prometheus_says(&prometheus, "/api/v1/alerts", |data| {
            let alerts = data["alerts"].as_array();
            alerts.is_some_and(|all| {
                all.iter()
                    .any(|one| one["labels"]["alertname"] == alert && one["state"] == "firing")
            })
        })
        .await;
    }
    assert!(house.log().contains("WARN"), "{}", house.log());
    served.end().await;
}

/// An nginx before these, with the limits that OPERATIONS.md prints, but for those of an address,
/// which all clients share here.
fn nginx(houses: [&House; 2]) -> Program {
    let servers = houses.map(|house| format!("server 127.0.0.1:{};", house.port()));
    Program::start(
        "nginx",
        &["/usr/sbin/nginx", "/usr/bin/nginx"],
        |port, folder| {
            let [one, two] = &servers;
            let folders = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
                .map(|kind| format!("{kind}_temp_path {folder}/{kind};"))
                .join("\n");
            format!(
                "daemon off; master_process off; pid {folder}/pid; error_log stderr warn;
                 events {{ worker_connections 1024; }}
                 http {{
                   access_log off;
                   {folders}
                   upstream rolecall {{ {one} {two} keepalive 32; }}
                   server {{
                     listen 127.0.0.1:{port};
                     client_header_timeout 10s; client_body_timeout 10s;
                     client_max_body_size 1m; send_timeout 30s; proxy_read_timeout 65s;
                     location / {{
                       proxy_pass http://rolecall;
                       proxy_http_version 1.1;
                       proxy_set_header Connection \"\";
                       proxy_set_header Host $host;
                     }}
                   }}
                 }}"
            )
        },
        |_, folder| vec!["-c".to_owned(), format!("{folder}/settings")],
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_behind_an_nginx_loses_no_request() {
    const CALLERS: usize = 8;
    if !is_full() {
        return;
    }
    let servers = Servers::new();
    let cluster = Cluster::new(&servers, "proxied");
    let house = House::on(Some(cluster.url()), 0, 100, 10, 1).await;
    let second = house.beside();
    let environment = [("ROLECALL_SERVER__LAME_DUCK_SECONDS", "5")];
    let mut one = house.serve_with(&environment);
    let mut two = second.serve_with(&environment);
    let account = house.linked(&mut one).await;
    second.up(&mut two).await;
    let nginx = nginx([&house, &second]);
    let client = reqwest::Client::new();
    let clock = Clock::system();
    let began_at = clock.monotonic();
    let read = async || {
        let request = client
            .get(nginx.url("/iam/users"))
            .bearer_auth(&house.key)
            .header("x-account-id", &account);
        request
            .send()
            .await
            .ok()
            .map(|reply| reply.status().as_u16())
    };
    while read().await != Some(200) {
        let waited = clock.monotonic() - began_at;
        assert!(waited < NEVER, "{}", nginx.log());
        clock.sleep(Duration::from_millis(50)).await;
    }

    // What nginx must not send twice is among it: a link to be made.
    let make_link = async || {
        let body = json!({
            "provider": "smartsheet",
            "origin_owner_id": "customer-2",
            "origin_owner_name": "Customer Two",
        });
        let request = client
            .post(nginx.url("/connect_sessions"))
            .bearer_auth(&house.key)
            .json(&body);
        request
            .send()
            .await
            .ok()
            .map(|reply| reply.status().as_u16())
    };
    let (is_over, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    let callers = (0..CALLERS).map(|caller| {
        let (is_over, answered, log) = (&is_over, &answered, || nginx.log());
        let (read, make_link) = (&read, &make_link);
        async move {
            while !is_over.load(Ordering::Relaxed) {
                let (status, expected) = if caller == 0 {
                    (make_link().await, 201)
                } else {
                    (read().await, 200)
                };
                assert_eq!(status, Some(expected), "{}", log());
                answered.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let stops = async {
        clock.sleep(Duration::from_secs(2)).await;
        let (stopped_at, before) = (clock.monotonic(), answered.load(Ordering::Relaxed));
        one.end().await;
        let took = clock.monotonic() - stopped_at;
        let meanwhile = answered.load(Ordering::Relaxed) - before;
        println!("stopped in {took:?}, beside {meanwhile} requests");
        assert!(took >= Duration::from_secs(5), "{took:?}");
        // And is started again, while nginx has it among its servers.
        let mut one = house.serve_with(&environment);
        house.up(&mut one).await;
        clock.sleep(Duration::from_secs(2)).await;
        is_over.store(true, Ordering::Relaxed);
        one
    };
    let (one, _) = tokio::join!(stops, join_all(callers));
    println!("{} requests, none lost", answered.load(Ordering::Relaxed));
    one.end().await;
    two.end().await;
}

/// The 99th percentile of how long these took.
fn p99(mut all: Vec<Duration>) -> Duration {
    all.sort_unstable();
    all[all.len() * 99 / 100]
}

/// An installation with a project of many accounts, whose clients will use their whole quota.
struct Noisy {
    house: House,
    project: House,
    served: Served,
}

impl Noisy {
    const ACCOUNTS: usize = 200;

    async fn on(cluster: &Cluster<'_>, quota: u32) -> Self {
        let house = House::on(Some(cluster.url()), 0, 20, 5, 1).await;
        let project = house.with_project("noisy").await;
        let quota = quota.to_string();
        let environment = [("ROLECALL_SERVER__REQUESTS_PER_MINUTE_PER_PROJECT", &*quota)];
        let mut served = house.serve_with(&environment);
        house.up(&mut served).await;
        for number in 0..Self::ACCOUNTS {
            let mut body = house.account_body();
            body["origin_owner_id"] = json!(format!("customer-{number}"));
            let made = project.ask(Method::POST, "/accounts", None, Some(&body));
            assert_eq!(made.await.unwrap().status, 201);
        }
        Self {
            house,
            project,
            served,
        }
    }
}

/// How long a project's calls take while another project's clients use their whole quota: of the same
/// process, and of a process with a database of its own, which takes as much of the machine. All
/// clients keep their connections, so that the time to connect is no part of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_project_at_its_quota_does_not_double_the_p99_of_another() {
    const CALLS: usize = 500;
    const ROUNDS: usize = 3;
    const CALLERS: u32 = 48;
    /// What a project may send in a minute by default.
    const QUOTA: u32 = 10_000;
    if !is_full() {
        return;
    }
    let servers = Servers::new();
    let (here, there) = (
        Cluster::new(&servers, "here"),
        Cluster::new(&servers, "there"),
    );
    let mut here = Noisy::on(&here, QUOTA).await;
    let there = Noisy::on(&there, QUOTA).await;
    let account = here.house.linked(&mut here.served).await;
    let client = reqwest::Client::new();
    let get = async |project: &House, path: &str| {
        let request = client
            .get(format!("{}{path}", project.base()))
            .bearer_auth(&project.key)
            .header("x-account-id", &account);
        let reply = request.send().await.unwrap();
        let status = reply.status().as_u16();
        reply.bytes().await.unwrap();
        status
    };
    let clock = Clock::system();
    let measure = async || {
        let (mut reads, mut lists) = (Vec::new(), Vec::new());
        for _ in 0..CALLS {
            for (path, times) in [("/iam/users", &mut reads), ("/accounts", &mut lists)] {
                let began_at = clock.monotonic();
                assert_eq!(get(&here.house, path).await, 200);
                times.push(clock.monotonic() - began_at);
                // Less than its own quota.
                clock.sleep(Duration::from_millis(8)).await;
            }
        }
        (p99(reads), p99(lists))
    };
    let measure_beside = async |noisy: &House| {
        let is_over = AtomicBool::new(false);
        let every = Duration::from_secs(60) * CALLERS / QUOTA;
        let began_at = clock.monotonic();
        let callers = (0..CALLERS).map(|caller| {
            let (is_over, clock, get) = (&is_over, &clock, &get);
            async move {
                let mut next = began_at + every * caller / CALLERS;
                while !is_over.load(Ordering::Relaxed) {
                    clock.sleep(next.saturating_sub(clock.monotonic())).await;
                    let status = get(noisy, "/accounts").await;
                    assert!([200, 429].contains(&status), "{status}");
                    next += every;
                }
            }
        });
        let measured = async {
            let measured = measure().await;
            is_over.store(true, Ordering::Relaxed);
            measured
        };
        tokio::join!(measured, join_all(callers)).0
    };
    let mut ratios = Vec::new();
    for _ in 0..ROUNDS {
        let alone = measure().await;
        let elsewhere = measure_beside(&there.project).await;
        let beside = measure_beside(&here.project).await;
        println!(
            "p99 of reads and of lists: {alone:?} alone, {elsewhere:?} beside another process, \
             {beside:?} beside another project"
        );
        let ratio = |beside: Duration, alone: Duration| beside.as_secs_f64() / alone.as_secs_f64();
        ratios.push((ratio(beside.0, elsewhere.0), ratio(beside.1, elsewhere.1)));
    }
    println!("ratios: {ratios:.2?}");
    here.served.end().await;
    there.served.end().await;
    let least = |of: fn(&(f64, f64)) -> f64| ratios.iter().map(of).fold(f64::INFINITY, f64::min);
    assert!(least(|ratio| ratio.0) <= 2.0, "reads: {ratios:?}");
    assert!(least(|ratio| ratio.1) <= 2.0, "lists: {ratios:?}");
}
