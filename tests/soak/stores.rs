//! Stores, clients and dates that misbehave: a real failover of PostgreSQL, a slow one, one that refuses
//! the login, a real PgBouncer, held connections, and a real process whose date is set back. At full size only, since it needs what Debian's packages
//! `postgresql`, `pgbouncer` and `faketime` have; where one is missing the test fails and says so.

use std::{
    fs,
    net::TcpStream,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use futures_util::future::join_all;
use reqwest::Method;
use rolecall::clock::Clock;
use rustix::process::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    cluster::{Cluster, PgBouncer, Servers, url_at},
    is_full,
    process::House,
    relay::{Open, Relay},
    world::Reply,
};

/// By when writes must be back once there is a primary again.
const WRITES_BACK: Duration = Duration::from_secs(15);

/// What can only be a hang.
const NEVER: Duration = Duration::from_secs(120);

async fn link(house: &House) -> String {
    let body = house.account_body();
    let linked = house
        .ask(Method::POST, "/accounts", None, Some(&body))
        .await;
    let linked = json_of(&linked.unwrap());
    let account = linked["id"].as_str().unwrap().to_owned();
    assert_eq!(read(house, &account).await.status, 200);
    account
}

async fn read(house: &House, account: &str) -> Reply {
    let reply = house.ask(Method::GET, "/iam/users", Some(account), None);
    reply.await.expect("the process answers")
}

/// Walks; whether that sealed.
async fn walks(house: &House, account: &str) -> bool {
    let path = format!("/accounts/{account}/walks?wait=30");
    let reply = house.ask(Method::POST, &path, None, None).await.unwrap();
    reply.status == 200 && json_of(&reply)["state"] == "sealed"
}

fn json_of(reply: &Reply) -> Value {
    serde_json::from_slice(&reply.bytes).unwrap_or(Value::Null)
}

/// Asks for walks until one seals, reading all the while: every read must be answered. How long
/// that took.
async fn walks_are_back(house: &House, account: &str) -> Duration {
    let clock = Clock::system();
    let began_at = clock.monotonic();
    loop {
        let (has_sealed, reply) = tokio::join!(walks(house, account), read(house, account));
        assert_eq!(reply.status, 200, "a read was lost");
        let took = clock.monotonic() - began_at;
        if has_sealed {
            return took;
        }
        assert!(took < NEVER, "no walk seals:\n{}", house.log());
    }
}

async fn ready(house: &House) -> (u16, Value) {
    let reply = house.ask(Method::GET, "/health/ready", None, None);
    let reply = reply.await.expect("the process answers");
    (reply.status, json_of(&reply))
}

async fn is_ready_as(house: &House, expected: Value) {
    let clock = Clock::system();
    let began_at = clock.monotonic();
    loop {
        let (status, body) = ready(house).await;
        assert_eq!(status, 200, "{body}");
        if body == expected {
            return;
        }
        let waited = clock.monotonic() - began_at;
        assert!(waited < NEVER, "never {expected}, but {body}");
        clock.sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_costs_no_reads_and_writes_are_back_in_seconds() {
    if !is_full() {
        return;
    }
    let servers = Servers::new();
    let first = Cluster::new(&servers, "first");
    let second = first.standby("second");
    let relay = Relay::to(first.address());
    let house = House::on(Some(url_at(relay.address())), 0, 100, 10, 1).await;
    let mut served = house.serve();
    house.up(&mut served).await;
    let account = link(&house).await;
    assert!(walks(&house, &account).await);

    // A switch-over: the former primary stays up and takes no writes, and open connections lead
    // to it.
    first.set_read_only();
    is_ready_as(&house, json!({"status": "degraded", "store": "read_only"})).await;
    relay.lead_to(Some(second.address()), Open::Stay);
    second.promote();
    let took = walks_are_back(&house, &account).await;
    println!("switch-over: writes are back after {took:?}");
    assert!(took < WRITES_BACK, "{took:?}");
    is_ready_as(&house, json!({"status": "ok"})).await;

    // A crash: the primary is gone for a while, and then there again.
    first.stop();
    second.stop();
    is_ready_as(
        &house,
        json!({"status": "degraded", "store": "unreachable"}),
    )
    .await;
    assert_eq!(read(&house, &account).await.status, 200);
    second.start();
    let took = walks_are_back(&house, &account).await;
    println!("crash: writes are back after {took:?}");
    assert!(took < WRITES_BACK, "{took:?}");
    is_ready_as(&house, json!({"status": "ok"})).await;
    served.end().await;
}

/// A neighbor that asks for lists without end, on a database that is 400 ms away.
#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_is_refused_in_seconds_on_a_slow_store_beside_a_noisy_project() {
    const REFUSED_WITHIN: Duration = Duration::from_secs(6);
    if !is_full() {
        return;
    }
    let servers = Servers::new();
    let cluster = Cluster::new(&servers, "slow");
    let relay = Relay::to(cluster.address());
    let house = House::on(Some(url_at(relay.address())), 0, 100, 10, 1).await;
    let noisy = house.with_project("noisy").await;
    let mut served = house.serve();
    house.up(&mut served).await;
    let account = link(&house).await;
    let revoked = house.cli(&["keys", "create", "--project", "one", "--json"]);
    let revoked = serde_json::from_str::<Value>(&revoked.await).unwrap();
    let [id, key] = ["id", "api_key"].map(|field| revoked[field].as_str().unwrap().to_owned());
    let is_taken = async || {
        let reply = house.ask_with(&key, "/connectors/meta").await;
        reply.expect("the process answers").status == 200
    };
    assert!(is_taken().await);

    relay.delay(Duration::from_millis(400));
    let is_over = AtomicBool::new(false);
    let burst = async {
        while !is_over.load(Ordering::Relaxed) {
            let lists = (0..48).map(|_| noisy.ask(Method::GET, "/accounts", None, None));
            join_all(lists).await;
        }
    };
    let revocation = async {
        let clock = Clock::system();
        house.cli(&["keys", "revoke", &id]).await;
        let revoked_at = clock.monotonic();
        while is_taken().await {
            let taken_for = clock.monotonic() - revoked_at;
            assert!(
                taken_for < REFUSED_WITHIN,
                "still taken after {taken_for:?}"
            );
            assert_eq!(read(&house, &account).await.status, 200);
        }
        println!(
            "refused {:?} after it was revoked",
            clock.monotonic() - revoked_at
        );
        for _ in 0..100 {
            assert!(!is_taken().await);
        }
        is_over.store(true, Ordering::Relaxed);
    };
    tokio::join!(burst, revocation);
    served.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_database_password_costs_no_reads() {
    if !is_full() {
        return;
    }
    let servers = Servers::new();
    let cluster = Cluster::new(&servers, "locked");
    let url = cluster.role_with_password("rolecall", "first");
    let house = House::on(Some(url), 0, 100, 10, 1).await;
    let mut served = house.serve();
    house.up(&mut served).await;
    let account = link(&house).await;
    assert!(walks(&house, &account).await);

    cluster.set_password("rolecall", "second");
    cluster.end_sessions("rolecall");
    let unreachable = json!({"status": "degraded", "store": "unreachable"});
    is_ready_as(&house, unreachable).await;
    for _ in 0..100 {
        assert_eq!(read(&house, &account).await.status, 200);
    }
    cluster.set_password("rolecall", "first");
    let took = walks_are_back(&house, &account).await;
    println!("rotated password: writes are back after {took:?}");
    assert!(took < WRITES_BACK, "{took:?}");
    is_ready_as(&house, json!({"status": "ok"})).await;
    served.end().await;
}

/// More clients than the process may have files open, none of which has a key or sends its body.
#[tokio::test(flavor = "multi_thread")]
async fn held_connections_at_the_limit_of_files_cost_no_reads() {
    const FILES: u32 = 1024;
    const HELD: usize = 1118;
    if !is_full() {
        return;
    }
    // The clients are in this process, which needs more files than the server has.
    let mut own = getrlimit(Resource::Nofile);
    own.current = own.maximum;
    setrlimit(Resource::Nofile, own).unwrap();
    let house = House::new(100, 10, 1).await;
    let mut served = house.serve_with_files(FILES);
    let account = house.linked(&mut served).await;
    let hold = || async {
        let address = ("127.0.0.1", house.port());
        let mut stream = tokio::net::TcpStream::connect(address).await?;
        let request = "POST /accounts HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    let clock = Clock::system();
    let began_at = clock.monotonic();
    let is_over = AtomicBool::new(false);
    let held = async {
        let held = tokio::time::timeout(NEVER, join_all((0..HELD).map(|_| hold()))).await;
        is_over.store(true, Ordering::Relaxed);
        held.expect("each connection ends")
    };
    let reads = async {
        let mut reads = 0;
        while !is_over.load(Ordering::Relaxed) {
            assert_eq!(read(&house, &account).await.status, 200);
            reads += 1;
        }
        reads
    };
    let (held, reads) = tokio::join!(held, reads);
    let answered = held
        .iter()
        .filter(|answer| {
            answer
                .as_ref()
                .is_ok_and(|all| all.starts_with(b"HTTP/1.1 401"))
        })
        .count();
    println!(
        "{answered} of {HELD} held connections were answered and ended within {:?}, beside {reads} reads",
        clock.monotonic() - began_at
    );
    assert_eq!(answered, HELD);
    assert_eq!(read(&house, &account).await.status, 200);
    served.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_pgbouncer_that_pools_transactions_everything_works() {
    if !is_full() {
        return;
    }
    let servers = Servers::new();
    let cluster = Cluster::new(&servers, "behind");
    let pgbouncer = PgBouncer::before(&cluster);
    let clock = Clock::system();
    while TcpStream::connect(pgbouncer.address()).is_err() {
        clock.sleep(Duration::from_millis(20)).await;
    }
    let direct = House::on(Some(cluster.url()), 0, 500, 20, 1).await;
    let reads_directly = reads_a_second(&direct).await;
    drop(direct);
    // A new database for the second, in the place of the first.
    let url = url_at(pgbouncer.address());
    let cluster_url = cluster.url();
    reset(&cluster_url).await;

    let house = House::on(Some(format!("{url}&pool_mode=transaction")), 0, 500, 20, 1).await;
    let reads = reads_a_second(&house).await;
    println!("reads a second: {reads:.0} behind PgBouncer, {reads_directly:.0} without");
    assert!(reads > reads_directly / 2.0, "{reads} and {reads_directly}");

    // Two processes on the same server connections, and commands beside them.
    let second = house.beside();
    let (mut one, mut two) = (house.serve(), second.serve());
    house.up(&mut one).await;
    second.up(&mut two).await;
    let mut accounts = Vec::new();
    for _ in 0..4 {
        accounts.push(link(&house).await);
    }
    for round in 0..5 {
        for account in &accounts {
            let (a, b) = tokio::join!(walks(&house, account), walks(&second, account));
            assert!(a && b, "round {round}:\n{}", house.log());
            assert_eq!(read(&second, account).await.status, 200);
        }
        house.cli(&["check"]).await;
        let key = ["keys", "create", "--project", "one", "--json"];
        house.cli(&key).await;
    }
    house.cli(&["audit", "verify"]).await;
    one.end().await;
    two.end().await;
    // A start finds what the last one left.
    let mut again = house.serve();
    house.up(&mut again).await;
    assert!(walks(&house, &accounts[0]).await);
    again.end().await;

    let log = house.log();
    for word in [
        "prepared statement",
        "\"ERROR\"",
        " ERROR ",
        "startup parameter",
    ] {
        assert!(!log.contains(word), "{word}:\n{log}");
    }
    let log = pgbouncer.log();
    for word in ["unsupported", "prepared statement"] {
        assert!(!log.contains(word), "{word}:\n{log}");
    }
}

/// How many reads a served directory answers in a second, one after the other.
async fn reads_a_second(house: &House) -> f64 {
    const READS: u32 = 2_000;
    let mut served = house.serve();
    house.up(&mut served).await;
    let account = link(house).await;
    let clock = Clock::system();
    let began_at = clock.monotonic();
    for _ in 0..READS {
        assert_eq!(read(house, &account).await.status, 200);
    }
    let took = clock.monotonic() - began_at;
    served.end().await;
    f64::from(READS) / took.as_secs_f64()
}

/// Empties the database at `url`.
async fn reset(url: &str) {
    use sqlx::Connection;
    let mut raw = sqlx::PgConnection::connect(url).await.unwrap();
    let statement =
        "set client_min_messages = warning; drop schema public cascade; create schema public";
    sqlx::raw_sql(statement).execute(&mut raw).await.unwrap();
    raw.close().await.unwrap();
}

/// Debian's libfaketime, for programs with threads.
fn libfaketime() -> String {
    let library = "faketime/libfaketimeMT.so.1";
    let folders = fs::read_dir("/usr/lib").unwrap();
    let found = folders
        .filter_map(|entry| Some(entry.ok()?.path().join(library)))
        .find(|path| path.is_file());
    let found = found.expect("this soak test needs libfaketime: apt-get install faketime");
    found.display().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_date_that_is_set_back_stops_nothing_and_makes_no_directory_younger() {
    if !is_full() {
        return;
    }
    let house = House::new(50, 5, 1).await;
    let (library, date) = (libfaketime(), house.path("date"));
    let set_date = |offset: &str| fs::write(Path::new(&date), offset).unwrap();
    set_date("+0");
    let environment = [
        ("LD_PRELOAD", library.as_str()),
        ("FAKETIME_TIMESTAMP_FILE", date.as_str()),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ("DONT_FAKE_MONOTONIC", "1"),
        ("ROLECALL_WALK__EVERY_SECONDS", "2"),
    ];
    let mut served = house.serve_with(&environment);
    house.up(&mut served).await;
    let account = link(&house).await;
    for offset in ["-3600", "-86400"] {
        set_date(offset);
        for _ in 0..3 {
            is_walked_anew(&house, &account).await;
        }
        assert!(age(&house, &account).await < 60);
    }
    assert!(house.log().contains("date was set back"), "{}", house.log());

    // While the provider is away a directory gets older, whatever the date says.
    let away = json!([{"match": {}, "fault": {"kind": "status", "status": 503}}]);
    house.control(Method::POST, "/faults", &away).await;
    let clock = Clock::system();
    let (began_at, before) = (clock.monotonic(), age(&house, &account).await);
    for offset in ["-90000", "-176400"] {
        set_date(offset);
        clock.sleep(Duration::from_secs(5)).await;
        let passed = (clock.monotonic() - began_at).as_secs();
        let found = age(&house, &account).await;
        assert!(found >= before + passed, "{found} s after {passed} s");
    }
    // A process that starts then does not take the directory for new, and renews it.
    served.end().await;
    let mut served = house.serve_with(&environment);
    house.up(&mut served).await;
    let found = age(&house, &account).await;
    assert!(found >= 300, "{found}");
    house.control(Method::DELETE, "/faults", &json!(null)).await;
    let clock = Clock::system();
    let began_at = clock.monotonic();
    while age(&house, &account).await >= 300 {
        assert!(clock.monotonic() - began_at < NEVER, "{}", house.log());
        clock.sleep(Duration::from_millis(100)).await;
    }
    served.end().await;
}

async fn age(house: &House, account: &str) -> u64 {
    let reply = read(house, account).await;
    assert_eq!(reply.status, 200);
    reply.headers["age"].to_str().unwrap().parse().unwrap()
}

/// Waits until a walk has begun that nobody asked for.
async fn is_walked_anew(house: &House, account: &str) {
    let clock = Clock::system();
    let began_at = clock.monotonic();
    let walks = async || {
        let path = format!("/accounts/{account}/walks?page_size=1");
        let reply = house.ask(Method::GET, &path, None, None).await.unwrap();
        json_of(&reply)["data"][0]["id"].clone()
    };
    let before = walks().await;
    while walks().await == before {
        let waited = clock.monotonic() - began_at;
        assert!(waited < Duration::from_secs(30), "{}", house.log());
        clock.sleep(Duration::from_millis(100)).await;
    }
}
