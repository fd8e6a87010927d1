//! `rolecall demo`, as scripts use it: one line of JSON, then a gateway that serves.

use std::collections::BTreeSet;

use reqwest::Response;
use serde_json::{Value, json};

use crate::bench::{Bench, Running, client};

/// A small world and free ports; the directory is kept if it is named.
async fn demo(bench: &Bench, more: &[&str]) -> (Running, Value) {
    let small = ["--port", "0", "--users", "40", "--groups", "5", "--json"];
    let arguments = [&["demo"], &small[..], more].concat();
    let mut running = Running::of(bench.command(&arguments).spawn().unwrap());
    let line = running.out_line().await;
    (running, serde_json::from_str(&line).unwrap())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

async fn get(ready: &Value, path: &str) -> Response {
    let url = format!("{}{path}", text(&ready["base_url"]));
    client().get(url).send().await.unwrap()
}

/// A read of the account that sees everything, by the demo's key.
async fn read(ready: &Value, path: &str) -> Response {
    let url = format!("{}{path}", text(&ready["base_url"]));
    client()
        .get(url)
        .bearer_auth(text(&ready["api_key"]))
        .header("x-account-id", text(&ready["accounts"][0]["id"]))
        .send()
        .await
        .unwrap()
}

fn keys(value: &Value) -> BTreeSet<&str> {
    value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

#[tokio::test]
async fn the_line_of_json_has_the_shape_that_scripts_rely_on() {
    let bench = Bench::new();
    let (running, ready) = demo(&bench, &[]).await;
    assert_eq!(
        keys(&ready),
        BTreeSet::from([
            "base_url",
            "api_key",
            "project",
            "profile",
            "auth_link_url",
            "accounts",
            "simulator"
        ])
    );
    assert!(text(&ready["base_url"]).starts_with("http://127.0.0.1:"));
    assert!(text(&ready["api_key"]).starts_with("rc_"));
    assert_eq!(ready["project"], "demo");
    let callback = &ready["simulator"]["oauth_client"]["redirect_url"];
    let hub = format!("{}/connect/", text(&ready["base_url"]));
    assert_eq!(text(callback), format!("{hub}oauth2/smartsheet/callback"));
    let link = text(&ready["auth_link_url"]).strip_prefix(&hub).unwrap();
    assert_eq!(link.len(), 43);
    let page = client().get(text(&ready["auth_link_url"])).send().await;
    assert_eq!(page.unwrap().status(), 404, "this client keeps no cookie");
    let accounts = ready["accounts"].as_array().unwrap();
    let personas: Vec<_> = accounts
        .iter()
        .map(|account| text(&account["as"]))
        .collect();
    assert_eq!(personas, ["system_admin", "member"]);
    assert!(
        accounts
            .iter()
            .all(|account| keys(account) == BTreeSet::from(["id", "as"]))
    );
    assert_eq!(
        keys(&ready["simulator"]),
        BTreeSet::from([
            "api_base",
            "authorize_url",
            "control_url",
            "tokens",
            "oauth_client"
        ])
    );

    let (status, rest) = running.terminate().await;
    assert_eq!((status.code(), rest.as_str()), (Some(0), ""));
    assert!(bench.files().is_empty(), "it left something behind");
}

#[tokio::test]
async fn it_serves_the_directory_the_document_and_its_pages() {
    let bench = Bench::new();
    let (_running, ready) = demo(&bench, &[]).await;
    let live = get(&ready, "/health/live").await;
    assert_eq!(
        live.json::<Value>().await.unwrap(),
        json!({ "status": "ok" })
    );
    let document: Value = get(&ready, "/openapi.json").await.json().await.unwrap();
    assert!(document["paths"]["/iam/users"].is_object());
    let pages = get(&ready, "/swagger-ui/").await;
    assert_eq!(pages.status(), 200);
    assert!(pages.text().await.unwrap().contains("swagger-ui"));

    let users = read(&ready, "/iam/users?page_size=100").await;
    assert_eq!(users.status(), 200);
    let users: Value = users.json().await.unwrap();
    let served = users["data"].as_array().unwrap().len();
    assert!(served >= 40, "{served}");
    assert_eq!(users["total"], served);
}

#[tokio::test]
async fn started_again_in_its_directory_it_serves_the_same() {
    let bench = Bench::new();
    let kept = ["--data-dir", "kept"];
    let (running, first) = demo(&bench, &kept).await;
    let before = read(&first, "/iam/users").await;
    let version = before.headers()["x-directory-version"].clone();
    let before = before.bytes().await.unwrap();
    running.terminate().await;

    let (running, second) = demo(&bench, &kept).await;
    for key in ["base_url", "api_key", "profile", "accounts", "simulator"] {
        assert_eq!(second[key], first[key], "{key}");
    }
    let after = read(&second, "/iam/users").await;
    assert_eq!(after.headers()["x-directory-version"], version);
    assert_eq!(after.bytes().await.unwrap(), before);
    running.terminate().await;
}

#[tokio::test]
async fn its_directory_has_what_curl_needs_for_nobody_else_s_eyes() {
    let bench = Bench::new();
    let (running, ready) = demo(&bench, &["--data-dir", "kept"]).await;
    let curlrc = std::fs::read_to_string(bench.path("kept/curlrc")).unwrap();
    let expected = [
        format!(
            "header = \"Authorization: Bearer {}\"",
            text(&ready["api_key"])
        ),
        format!(
            "header = \"x-account-id: {}\"",
            text(&ready["accounts"][0]["id"])
        ),
    ];
    assert_eq!(curlrc.lines().collect::<Vec<_>>(), expected);
    for name in ["curlrc", "demo.json", "rolecall.keys", "rolecall.db"] {
        assert_eq!(bench.mode(&format!("kept/{name}")), 0o600, "{name}");
    }
    running.terminate().await;
}

#[tokio::test]
async fn a_directory_of_another_world_is_told_apart() {
    let bench = Bench::new();
    let (running, _) = demo(&bench, &["--data-dir", "kept"]).await;
    running.terminate().await;
    let other = ["demo", "--port", "0", "--data-dir", "kept", "--users", "41"];
    let outcome = bench.run(&other).await.expect(1);
    outcome.says(&["--users 40 --groups 5 --seed 1", "--data-dir"]);
}

#[tokio::test]
async fn a_start_that_was_cut_short_does_not_stand_in_the_way_of_the_next() {
    let bench = Bench::new();
    let (running, _) = demo(&bench, &["--data-dir", "kept"]).await;
    running.terminate().await;
    // All but the last step was done.
    std::fs::remove_file(bench.path("kept/demo.json")).unwrap();
    let (running, ready) = demo(&bench, &["--data-dir", "kept"]).await;
    assert_eq!(read(&ready, "/iam/users").await.status(), 200);
    running.terminate().await;
}

#[tokio::test]
async fn without_its_key_ring_a_demo_makes_no_other() {
    let bench = Bench::new();
    let (running, _) = demo(&bench, &["--data-dir", "kept"]).await;
    running.terminate().await;
    std::fs::remove_file(bench.path("kept/rolecall.keys")).unwrap();
    let again = bench
        .run(&["demo", "--port", "0", "--data-dir", "kept"])
        .await;
    again.expect(78).says(&["rolecall.keys"]);
    assert!(!bench.path("kept/rolecall.keys").exists());
}
