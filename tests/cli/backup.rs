//! `rolecall backup`, and that what it makes is worth having.

use reqwest::{Method, StatusCode};
use rolecall::crypto::{KeyRing, Rng};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::{
    bench::{Bench, client},
    office::{CONFIG, Office},
};

/// A place of its own with a backup as its database, and the ring of the office that made it.
async fn restored(office: &Office, backup: &str) -> Bench {
    let bench = Bench::new();
    bench.furnish().await;
    for (from, to) in [(backup, "rolecall.db"), ("rolecall.keys", "rolecall.keys")] {
        std::fs::copy(office.bench.path(from), bench.path(to)).unwrap();
    }
    bench
}

async fn users(base: &str, key: &str, account: &str) -> Vec<u8> {
    let request = client().get(format!("{base}/iam/users?page_size=100&expand=groups"));
    let request = request.bearer_auth(key).header("x-account-id", account);
    let reply = request.send().await.unwrap();
    assert_eq!(reply.status(), StatusCode::OK);
    reply.bytes().await.unwrap().to_vec()
}

#[tokio::test]
async fn a_backup_under_writes_restores_to_the_same_directory_and_key() {
    let office = Office::new().await;
    let id = office.link().await;
    let (running, base) = office.serve().await;
    let before = users(&base, &office.key, &id).await;

    // Writes all the while: each is one transaction.
    let (stop, mut stopped) = oneshot::channel::<()>();
    let url = format!("{base}/accounts/{id}");
    let key = office.key.clone();
    let writing = tokio::spawn(async move {
        let mut written = 0_u32;
        while stopped.try_recv().is_err() {
            let label = json!({ "label": format!("write {written}") });
            let request = client().request(Method::PATCH, &url).bearer_auth(&key);
            let reply = request.json(&label).send().await.unwrap();
            assert_eq!(reply.status(), StatusCode::OK);
            written += 1;
        }
        written
    });
    for at in 0..3 {
        let file = format!("backup-{at}.db");
        let made = office
            .run(&["backup", &file, "--json"])
            .await
            .expect(0)
            .json();
        assert_eq!(made["file"], file.as_str());
        assert_eq!(made["has_key_ring"], false);
        assert_eq!(office.bench.mode(&file), 0o600);
    }
    stop.send(()).unwrap();
    assert!(writing.await.unwrap() > 0);
    running.kill().await;

    // Another place, and nobody at the provider any more.
    let bench = restored(&office, "backup-2.db").await;
    office.simulator.stop().await;
    let (running, base) = bench.serve().await;
    assert_eq!(users(&base, &office.key, &id).await, before);
    let request = client().get(format!("{base}/accounts/{id}"));
    let account = request.bearer_auth(&office.key).send().await.unwrap();
    let account: Value = account.json().await.unwrap();
    assert!(
        account["label"].as_str().unwrap().starts_with("write "),
        "{account}"
    );
    running.terminate().await;
}

#[tokio::test]
async fn a_backup_says_loudly_that_the_ring_is_not_in_it() {
    let office = Office::new().await;
    let made = office.run(&["backup", "b.db"]).await.expect(0).out;
    assert!(made.contains("THE KEY RING IS NOT IN IT"), "{made}");
    assert!(made.contains("rolecall.keys"), "{made}");
    let ring = std::fs::read(office.bench.path("rolecall.keys")).unwrap();
    let key = ring.split(|byte| *byte == b' ').next_back().unwrap();
    let backup = std::fs::read(office.bench.path("b.db")).unwrap();
    let key = key.strip_suffix(b"\n").unwrap();
    assert!(key.len() > 40);
    assert!(!backup.windows(key.len()).any(|window| window == key));
}

#[tokio::test]
async fn nothing_that_is_there_is_written_over() {
    let office = Office::new().await;
    office.bench.write("taken", "mine");
    let before = office.bench.files();
    for (file, words) in [
        ("taken", "is there already"),
        ("rolecall.db", "is there already"),
        ("missing/b.db", "cannot be written"),
        (".", "is there already"),
    ] {
        let refused = office.run(&["backup", file]).await.expect(1);
        refused.says(&[words]);
    }
    let after = office.bench.files();
    assert_eq!(
        after.keys().collect::<Vec<_>>(),
        before.keys().collect::<Vec<_>>()
    );
    assert_eq!(after["taken"], b"mine");
}

#[tokio::test]
async fn with_the_wrong_ring_nothing_is_backed_up_and_nothing_restored() {
    let office = Office::new().await;
    office.run(&["backup", "b.db"]).await.expect(0);
    let bench = restored(&office, "b.db").await;
    let stranger = KeyRing::generate("k1", &Rng::system()).unwrap();
    bench.write("rolecall.keys", &stranger.to_text());
    let before = bench.files();
    for command in [&["serve"][..], &["backup", "again.db"], &["check"]] {
        let refused = bench.run(&[command, &CONFIG].concat()).await;
        assert_eq!(refused.code, Some(78), "{refused:?}");
        assert!(format!("{refused:?}").contains("`k1`"), "{refused:?}");
    }
    assert!(bench.files() == before, "a byte was changed");
}

#[tokio::test]
async fn where_there_is_no_database_there_is_no_backup() {
    let bench = Bench::new();
    bench.furnish().await;
    let before = bench.files();
    let refused = bench
        .run(&[&["backup", "b.db"][..], &CONFIG].concat())
        .await;
    refused.expect(1).says(&["nothing is at"]);
    assert_eq!(bench.files(), before);
}

#[tokio::test]
async fn postgresql_has_a_tool_of_its_own_and_a_password_is_not_repeated() {
    let bench = Bench::new();
    bench.furnish().await;
    let mut command = bench.command(&["backup", "b.dump"]);
    command.env("ROLECALL_STORE__URL", "postgres://u:canary@127.0.0.1/d");
    let output = command.output().await.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("pg_dump --format=custom --file='b.dump'"),
        "{said}"
    );
    assert!(!said.contains("canary"), "{said}");
}
