//! `rolecall projects delete`.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::{bench::client, office::Office};

/// The second that is promised, and for an unoptimised process on a busy machine some more.
const SOON: Duration = Duration::from_secs(if cfg!(debug_assertions) { 5 } else { 1 });

async fn status(base: &str, key: &str) -> u16 {
    let request = client().get(format!("{base}/accounts")).bearer_auth(key);
    request.send().await.unwrap().status().as_u16()
}

/// How long it takes from now on until a key is refused.
async fn refused_after(base: &str, key: &str) -> Duration {
    let began_at = Instant::now();
    while status(base, key).await != 401 {
        assert!(began_at.elapsed() < SOON, "the key is served on");
    }
    began_at.elapsed()
}

#[tokio::test]
async fn without_yes_it_is_only_said_what_would_be_deleted() {
    let office = Office::new().await;
    let account = office.link().await;
    let outcome = office.run(&["projects", "delete", "acme"]).await;
    outcome
        .expect(1)
        .says(&["nothing was deleted", "1 accounts", "1 API keys", "--yes"]);
    office.run(&["accounts", "show", &account]).await.expect(0);
    for project in ["absent", "No-name"] {
        let outcome = office.run(&["projects", "delete", project, "--yes"]).await;
        outcome.expect(1);
    }
}

#[tokio::test]
async fn a_running_server_stops_serving_it_at_once_and_walks_it_no_further() {
    let office = Office::new().await;
    let account = office.link().await;
    office.run(&["projects", "create", "other"]).await.expect(0);
    let other = ["keys", "create", "--project", "other", "--json"];
    let other = office.run(&other).await.expect(0).json();
    let other = other["api_key"].as_str().unwrap();
    let (mut running, base) = office.serve().await;
    let page = office.get(&base, &account, "/iam/users?page_size=1").await;
    assert!(page["data"].is_array(), "{page}");

    // A walk that waits for the provider, for longer than anybody here has patience.
    let slow = json!([{"match": {}, "fault": {"kind": "delay", "ms": 60_000}}]);
    office.control(Method::POST, "/faults", &slow).await;
    let url = format!("{base}/accounts/{account}/walks?wait=0");
    let walk = client().post(url).bearer_auth(&office.key).send().await;
    let walk: Value = walk.unwrap().json().await.unwrap();
    let walk = walk["id"].as_str().unwrap();

    let delete = ["projects", "delete", "acme", "--yes", "--json"];
    let deleted = office.run(&delete).await.expect(0).json();
    assert_eq!(
        deleted,
        json!({ "project": "acme", "accounts": 1, "keys": 1 })
    );
    let began_at = Instant::now();
    let took = refused_after(&base, &office.key).await;
    println!("refused after {took:?}");
    assert_eq!(status(&base, other).await, 200);
    let ended = running.err_line_with(walk).await;
    assert!(began_at.elapsed() < SOON, "{ended}");

    // Its name is nobody's again.
    let again = office.run(&["projects", "create", "acme"]).await;
    again.expect(1).says(&["was deleted", "another name"]);
    let listed = office.run(&["projects", "list", "--json"]).await;
    assert_eq!(listed.expect(0).json(), json!({ "projects": ["other"] }));
    assert!(running.terminate().await.0.success());
    // Nor after a restart.
    let (running, base) = office.serve().await;
    assert_eq!(status(&base, &office.key).await, 401);
    assert_eq!(status(&base, other).await, 200);
    running.terminate().await;
}
