//! `rolecall projects` and `rolecall keys`: made, listed and ended beside a running server.

use std::time::{Duration, Instant};

use rolecall::model::api_keys::Scope;
use serde_json::{Value, json};

use crate::bench::{Bench, Outcome, client};

async fn run(bench: &Bench, arguments: &[&str]) -> Outcome {
    let arguments = [arguments, &["--config", "rolecall.toml"]].concat();
    bench.run(&arguments).await
}

async fn made(bench: &Bench, arguments: &[&str]) -> Value {
    let arguments = [&["keys", "create", "--json"], arguments].concat();
    run(bench, &arguments).await.expect(0).json()
}

async fn furnished() -> Bench {
    let bench = Bench::new();
    bench.furnish().await;
    for project in ["beta", "acme"] {
        let arguments = ["projects", "create", project];
        run(&bench, &arguments).await.expect(0);
    }
    bench
}

async fn listed(bench: &Bench, project: &str) -> Vec<Value> {
    let list = run(bench, &["keys", "list", "--project", project, "--json"]).await;
    let list = list.expect(0).json();
    assert_eq!(list["project"], project);
    list["keys"].as_array().unwrap().clone()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

/// The cells of each line that was printed.
fn rows(outcome: &Outcome) -> Vec<Vec<&str>> {
    let mut rows = Vec::new();
    for line in outcome.out.lines() {
        assert_eq!(line, line.trim_end(), "nothing trails");
        let cells = line.split("  ").map(str::trim);
        rows.push(cells.filter(|cell| !cell.is_empty()).collect());
    }
    rows
}

async fn status(base: &str, key: &str) -> u16 {
    let request = client().get(format!("{base}/accounts")).bearer_auth(key);
    request.send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn projects_are_listed_for_people_and_for_machines() {
    let bench = furnished().await;
    let list = run(&bench, &["projects", "list"]).await.expect(0);
    assert_eq!(rows(&list), [["PROJECT"], ["acme"], ["beta"]]);
    let list = run(&bench, &["projects", "list", "--json"]).await.expect(0);
    assert_eq!(list.json(), json!({"projects": ["acme", "beta"]}));
}

#[tokio::test]
async fn a_project_s_keys_are_listed_and_the_keys_themselves_never() {
    let bench = furnished().await;
    let plain = made(&bench, &["--project", "acme"]).await;
    let other = made(
        &bench,
        &[
            "--project",
            "acme",
            "--label",
            "HR feed",
            "--scopes",
            "admin,iam:read,iam:read",
            "--expires-in",
            "90d",
        ],
    )
    .await;
    assert_eq!(other["scopes"], json!(["iam:read", "admin"]));
    let moment = |field: &str| -> jiff::Timestamp { text(&other[field]).parse().unwrap() };
    let lifetime = moment("expires_at").duration_since(moment("created_at"));
    assert_eq!(lifetime.as_hours(), 90 * 24);
    made(&bench, &["--project", "beta"]).await;

    let keys = listed(&bench, "acme").await;
    let mut expected = [other.clone(), plain.clone()];
    for key in &mut expected {
        let key = key.as_object_mut().unwrap();
        key.remove("api_key");
        key.remove("project");
    }
    assert_eq!(keys, expected);

    let list = run(&bench, &["keys", "list", "--project", "acme"]).await;
    let list = list.expect(0);
    let rows = rows(&list);
    assert_eq!(
        rows[0],
        ["ID", "LABEL", "STATUS", "SCOPES", "CREATED", "EXPIRES"]
    );
    assert_eq!(
        rows[1][..4],
        [text(&other["id"]), "HR feed", "active", "iam:read,admin"]
    );
    assert_eq!(rows[2][..2], [text(&plain["id"]), "active"]);
    assert_eq!((rows[1].len(), rows[2].len(), rows.len()), (6, 4, 3));
    for key in [&plain, &other] {
        let (_, secret) = text(&key["api_key"]).rsplit_once('_').unwrap();
        assert!(!list.out.contains(secret));
    }
}

#[tokio::test]
async fn a_revocation_is_seen_by_a_running_server_within_a_second() {
    let bench = furnished().await;
    let made = made(&bench, &["--project", "acme"]).await;
    let key = text(&made["api_key"]);
    let (_running, base) = bench.serve().await;
    assert_eq!(status(&base, key).await, 200);
    let revoked = run(&bench, &["keys", "revoke", text(&made["id"]), "--json"]).await;
    let revoked_at = Instant::now();
    let revoked = revoked.expect(0).json();
    assert_eq!(revoked["status"], "revoked");
    assert_eq!(revoked["project"], "acme");
    // It is asked all the time, so that it is always remembered.
    loop {
        let asked_at = Instant::now();
        if status(&base, key).await == 401 {
            break;
        }
        let late = asked_at - revoked_at;
        assert!(late < Duration::from_secs(1), "accepted after {late:?}");
    }
    assert_eq!(status(&base, key).await, 401);
    let again = run(&bench, &["keys", "revoke", text(&made["id"]), "--json"]).await;
    assert_eq!(again.expect(0).json(), revoked);
}

#[tokio::test]
async fn a_leaked_key_is_revoked_by_its_beginning() {
    let bench = furnished().await;
    let made = made(&bench, &["--project", "acme"]).await;
    let key = text(&made["api_key"]);
    let (beginning, _) = key.rsplit_once('_').unwrap();
    let outcome = run(&bench, &["keys", "revoke", beginning]).await.expect(0);
    assert!(outcome.out.contains(text(&made["id"])), "{outcome:?}");
    assert!(outcome.out.contains("acme"), "{outcome:?}");
    assert_eq!(listed(&bench, "acme").await[0]["status"], "revoked");
}

#[tokio::test]
async fn a_key_that_is_exchanged_still_holds_for_a_while_and_no_longer() {
    let bench = furnished().await;
    let made = made(&bench, &["--project", "acme"]).await;
    let id = text(&made["id"]);
    let expire = |time: &'static str| {
        let bench = &bench;
        async move { run(bench, &["keys", "expire", id, "--in", time, "--json"]).await }
    };
    let week = expire("1w").await.expect(0).json();
    let day = expire("24h").await.expect(0).json();
    assert!(text(&day["expires_at"]) < text(&week["expires_at"]));
    assert_eq!(day["status"], "active");
    expire("2d").await.expect(1).says(&["brought forward"]);
    assert_eq!(
        listed(&bench, "acme").await[0]["expires_at"],
        day["expires_at"]
    );
    let said = run(&bench, &["keys", "expire", id, "--in", "1h"]).await;
    let said = said.expect(0).out;
    assert!(said.contains(id) && said.contains("ends at"), "{said}");

    run(&bench, &["keys", "revoke", id]).await.expect(0);
    expire("1s").await.expect(1).says(&["was revoked at"]);
}

#[tokio::test]
async fn what_is_unknown_or_not_meant_is_told_and_changes_nothing() {
    let bench = furnished().await;
    let made = made(&bench, &["--project", "acme"]).await;
    let id = text(&made["id"]);
    let absent = "0198c3f0-0000-7000-8000-000000000000";
    for (arguments, words) in [
        (
            &["keys", "list", "--project", "gamma"][..],
            "no project gamma",
        ),
        (&["keys", "revoke", absent], "no API key"),
        (&["keys", "expire", absent, "--in", "1h"], "no API key"),
        (&["keys", "expire", id, "--in", "999999w"], "too far"),
    ] {
        run(&bench, arguments).await.expect(1).says(&[words]);
    }
    for (arguments, words) in [
        (&["keys", "revoke", "acme"][..], "keys list"),
        (&["keys", "revoke", "rc_0198"], "keys list"),
        (&["keys", "expire", id], "--in"),
        (&["keys", "expire", id, "--in", "0s"], "such as 12h"),
        (&["keys", "expire", id, "--in", "1mo"], "such as 12h"),
        (&["keys", "expire", id, "--in", "90"], "such as 12h"),
        (&["keys", "expire", id, "--in", "soon"], "such as 12h"),
        (&["keys", "expire", id, "--in=-1d"], "such as 12h"),
        (
            &["keys", "create", "--project", "acme", "--label", "a\nb"],
            "control characters",
        ),
        (
            &[
                "keys",
                "create",
                "--project",
                "acme",
                "--scopes",
                "iam:write",
            ],
            "the scopes are",
        ),
    ] {
        run(&bench, arguments).await.expect(2).says(&[words]);
    }
    let keys = listed(&bench, "acme").await;
    assert_eq!((keys.len(), &keys[0]["expires_at"]), (1, &Value::Null));
    assert_eq!(keys[0]["status"], "active");
}

#[tokio::test]
async fn the_help_lists_every_scope_and_so_does_the_refusal_of_another() {
    let bench = furnished().await;
    let help = bench.run(&["keys", "create", "--help"]).await.expect(0).out;
    let (_, scopes) = help.split_once("--scopes").unwrap();
    let scopes = scopes.split("\n      --").next().unwrap();
    let (_, scopes) = scopes.split_once("of: ").unwrap();
    let (scopes, default) = scopes.split_once("[default: ").unwrap();
    let listed: Vec<_> = scopes.trim().split(", ").collect();
    assert_eq!(listed, Scope::ALL.map(Scope::as_str));
    for word in default.trim_end().trim_end_matches(']').split(',') {
        assert!(listed.contains(&word), "{word}");
    }
    let wrong = ["keys", "create", "--project", "acme", "--scopes", "all"];
    let refused = bench.run(&wrong).await.expect(2);
    for scope in Scope::ALL {
        assert!(refused.err.contains(scope.as_str()), "{refused:?}");
    }
}

#[tokio::test]
async fn a_key_is_revoked_with_those_that_it_made() {
    let bench = furnished().await;
    let admin = made(&bench, &["--project", "acme", "--scopes", "admin"]).await;
    assert_eq!(admin["created_by"], json!(null));
    let (running, base) = bench.serve().await;
    let request = client().post(format!("{base}/api_keys"));
    let request = request.bearer_auth(text(&admin["api_key"]));
    let reply = request
        .json(&json!({"scopes": ["accounts:read"]}))
        .send()
        .await;
    let child: Value = reply.unwrap().json().await.unwrap();
    assert_eq!(child["created_by"], admin["id"]);
    assert_eq!(status(&base, text(&child["key"])).await, 200);
    let arguments = ["keys", "revoke", text(&admin["id"]), "--with-created"];
    let words = run(&bench, &arguments).await.expect(0);
    assert!(words.out.contains(text(&child["id"])), "{words:?}");
    let again = [&arguments[..], &["--json"]].concat();
    let revoked = run(&bench, &again).await.expect(0).json();
    assert_eq!(revoked["status"], "revoked");
    assert_eq!(revoked["created"][0]["id"], child["id"]);
    assert_eq!(revoked["created"][0]["status"], "revoked");
    let deadline = Instant::now() + Duration::from_secs(5);
    while status(&base, text(&child["key"])).await == 200 {
        assert!(Instant::now() < deadline, "it is refused within a second");
    }
    running.terminate().await;
}

#[tokio::test]
async fn a_command_makes_as_many_keys_as_the_settings_allow() {
    let bench = furnished().await;
    bench.write(
        "few.toml",
        "[server]\nmax_keys_per_project = 2\n\n[provider]\nloopback_base_urls = true\n",
    );
    let make = || {
        bench.run(&[
            "keys",
            "create",
            "--project",
            "acme",
            "--config",
            "few.toml",
        ])
    };
    make().await.expect(0);
    make().await.expect(0);
    let refused = make().await;
    assert_eq!(refused.code, Some(1));
    assert!(refused.err.contains("2 valid API keys"), "{}", refused.err);
}
