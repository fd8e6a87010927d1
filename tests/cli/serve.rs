//! `rolecall serve`, and `projects create` and `keys create` before and beside it.

use rolecall::crypto::{Chance, KeyRing};
use serde_json::{Value, json};

use crate::bench::{Bench, client};

const CONFIG: [&str; 2] = ["--config", "rolecall.toml"];

/// Makes a project and a key for it, and gives the key.
async fn key(bench: &Bench, project: &str) -> String {
    let project_made = [&["projects", "create", project, "--json"][..], &CONFIG].concat();
    let made = bench.run(&project_made).await.expect(0).json();
    assert_eq!(made, json!({ "project": project }));
    let key_made = [
        &["keys", "create", "--project", project, "--json"][..],
        &CONFIG,
    ]
    .concat();
    let made = bench.run(&key_made).await.expect(0).json();
    assert_eq!(made["project"], project);
    assert_eq!(
        made["scopes"],
        json!(["iam:read", "accounts:read", "accounts:write", "walks:write"])
    );
    made["api_key"].as_str().unwrap().to_owned()
}

async fn accounts(base: &str, key: &str) -> (u16, Value) {
    let request = client().get(format!("{base}/accounts")).bearer_auth(key);
    let reply = request.send().await.unwrap();
    (reply.status().as_u16(), reply.json().await.unwrap())
}

#[tokio::test]
async fn a_key_that_was_made_works_and_sigterm_ends_it_with_0() {
    let bench = Bench::new();
    bench.furnish().await;
    let key = key(&bench, "acme").await;
    let (running, base) = bench.serve().await;

    let ready = client().get(format!("{base}/health/ready")).send().await;
    assert_eq!(ready.unwrap().status(), 200);
    assert_eq!(accounts(&base, &key).await, (200, json!([])));
    assert_eq!(accounts(&base, &format!("{key}x")).await.0, 401);

    let (status, out) = running.terminate().await;
    assert_eq!((status.code(), out.as_str()), (Some(0), ""));
}

#[tokio::test]
async fn projects_and_keys_are_made_beside_a_running_server() {
    let bench = Bench::new();
    bench.furnish().await;
    let (_running, base) = bench.serve().await;
    let key = key(&bench, "late").await;
    assert_eq!(accounts(&base, &key).await, (200, json!([])));
}

#[tokio::test]
async fn a_database_is_served_by_one_process() {
    let bench = Bench::new();
    bench.furnish().await;
    let (_running, _) = bench.serve().await;
    let second = bench.run(&[&["serve"][..], &CONFIG].concat()).await;
    second.expect(1).says(&["another process serves"]);
}

#[tokio::test]
async fn a_project_is_made_once_and_a_key_needs_one() {
    let bench = Bench::new();
    bench.furnish().await;
    key(&bench, "acme").await;
    for (arguments, words) in [
        (
            &["projects", "create", "acme"][..],
            &["there is a project acme already"][..],
        ),
        (&["projects", "create", "Acme!"], &["a-z"]),
        (
            &["keys", "create", "--project", "other"],
            &["rolecall projects create other"],
        ),
    ] {
        let outcome = bench.run(&[arguments, &CONFIG].concat()).await;
        outcome.expect(1).says(words);
    }
}

#[tokio::test]
async fn the_files_are_for_their_owner_alone() {
    let bench = Bench::new();
    bench.furnish().await;
    let (running, _) = bench.serve().await;
    for name in bench.files().keys().filter(|name| *name != "rolecall.toml") {
        assert_eq!(bench.mode(name), 0o600, "{name}");
    }
    assert_eq!(bench.mode("rolecall.db.journal"), 0o700);
    running.terminate().await;
}

#[tokio::test]
async fn a_ring_that_does_not_fit_exits_with_78_and_changes_not_a_byte() {
    let bench = Bench::new();
    bench.furnish().await;
    key(&bench, "acme").await;
    let ours = KeyRing::read_file(&bench.path("rolecall.keys")).unwrap();
    std::fs::remove_file(bench.path("rolecall.keys")).unwrap();

    // A stranger of the same name, and one of another.
    for id in [ours.encrypting_id(), "k2"] {
        let stranger = KeyRing::generate(id, &Chance::system()).unwrap();
        bench.write_ring(&stranger.to_text());
        let before = bench.files();
        for command in [&["serve"][..], &["projects", "create", "other"]] {
            let outcome = bench.run(&[command, &CONFIG].concat()).await;
            outcome.expect(78).says(&["`k1`", "Nothing was changed"]);
        }
        assert!(bench.files() == before, "a byte was changed");
    }

    // With the ring that belongs to it, all is as it was.
    bench.write_ring(&ours.to_text());
    let (running, _) = bench.serve().await;
    running.terminate().await;
}

#[tokio::test]
async fn a_ring_that_others_can_get_at_is_refused_with_what_mends_it() {
    let bench = Bench::new();
    bench.furnish().await;
    let serve = [&["serve"][..], &CONFIG].concat();
    let before = bench.files();
    for mode in [0o644, 0o604, 0o602, 0o666, 0o620, 0o660, 0o444] {
        bench.set_mode("rolecall.keys", mode);
        let refused = bench.run(&serve).await.expect(78);
        let last = refused.err.lines().last().unwrap();
        for words in [
            "the key ring rolecall.keys can be",
            &format!("(mode {mode:04o})"),
            "`chmod 600 rolecall.keys`",
        ] {
            assert!(last.contains(words), "no {words}: {refused:?}");
        }
        assert!(bench.files() == before, "a byte was changed");
    }
    for mode in [0o440, 0o640, 0o400, 0o600] {
        bench.set_mode("rolecall.keys", mode);
        let (running, _) = bench.serve().await;
        running.terminate().await;
    }
}

#[tokio::test]
async fn without_a_ring_nothing_is_made() {
    let bench = Bench::new();
    bench
        .run(&["serve"])
        .await
        .expect(78)
        .says(&["rolecall.keys", "rolecall keyring init"]);
    bench.write("rolecall.keys", "k1: too-short\n");
    bench.run(&["serve"]).await.expect(78).says(&["line 1"]);
    assert_eq!(bench.files().len(), 1);
}

#[tokio::test]
async fn every_fault_of_the_configuration_is_named_at_once() {
    let bench = Bench::new();
    bench.write(
        "rolecall.toml",
        "[server]\nlisten = \"nowhere\"\nread_wait_seconds = 0\n\
         public_url = \"https://example.com/rolecall\"\n[walk]\nparallel_reads = 0\n",
    );
    let serve = [&["serve"][..], &CONFIG].concat();
    let faults = [
        "server.listen",
        "server.public_url",
        "server.read_wait_seconds",
        "walk.parallel_reads",
    ];
    bench.run(&serve).await.expect(78).says(&faults);

    bench.write(
        "rolecall.toml",
        "[stor]\nurl = 1\n[walk]\nevery = 3\nfresh_seconds = \"soon\"\n",
    );
    let faults = ["stor", "walk.every", "walk.fresh_seconds"];
    bench.run(&serve).await.expect(78).says(&faults);

    bench
        .run(&["serve", "--config", "absent.toml"])
        .await
        .expect(78)
        .says(&["absent.toml"]);
    assert_eq!(bench.files().len(), 1);
}

#[tokio::test]
async fn the_environment_overrides_the_file_and_is_checked_like_it() {
    let bench = Bench::new();
    bench.furnish().await;
    let mut command = bench.command(&[&["serve"][..], &CONFIG].concat());
    command.env("ROLECALL_SERVER__LISTEN", "here");
    let output = command.output().await.unwrap();
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("server.listen")
    );
}
