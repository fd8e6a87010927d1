//! `rolecall credentials` and `rolecall revoke-all`: credentials that move, and their end.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    bench::{HANG, Outcome, Running},
    office::{Browser, CONFIG, Office},
};

const PASSPHRASE: &[u8] = b"correct horse battery\n";

async fn with_passphrase(office: &Office, arguments: &[&str]) -> Outcome {
    let arguments = [arguments, &["--passphrase-stdin", "--json"], &CONFIG].concat();
    office.bench.run_with(&arguments, PASSPHRASE).await
}

async fn state(office: &Office, id: &str) -> String {
    let shown = office.run(&["accounts", "show", id, "--json"]).await;
    let shown = shown.expect(0).json();
    shown["credential"]["state"].as_str().unwrap().to_owned()
}

/// An account that was linked by signing in.
async fn signed_in(office: &Office) -> String {
    let profile = office.profile("https://example.org/nowhere").await;
    let (mut running, address) = crate::link::begun(office, &profile, &["--headless"]).await;
    let returned = Browser::new().consents(office, &address, "allow").await;
    running.type_in(&format!("{returned}\n")).await;
    let (code, out, err) = running.end().await;
    assert_eq!(code, Some(0), "{err}");
    let account: serde_json::Value = serde_json::from_str(&out).unwrap();
    account["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_exported_pair_has_one_holder_at_a_time() {
    let here = Office::new().await;
    let id = signed_in(&here).await;
    let export = ["credentials", "export", &id, "--to", "moved.cred"];
    let exported = with_passphrase(&here, &export).await.expect(0);
    assert_eq!(exported.json(), json!({ "account": id, "moved": true }));
    assert_eq!(here.bench.mode("moved.cred"), 0o600);
    assert_eq!(state(&here, &id).await, "moved");
    here.run(&["accounts", "refresh", &id]).await.expect(1);
    let again = ["credentials", "export", &id, "--to", "again.cred"];
    let again = with_passphrase(&here, &again).await.expect(1);
    again.says(&["exported before"]);
    assert!(!here.bench.path("again.cred").exists());

    // Undone, it is refreshed here.
    let take_back = ["credentials", "take-back", &id];
    here.run(&take_back).await.expect(0);
    here.run(&take_back).await.expect(1).says(&["not exported"]);
    assert_eq!(state(&here, &id).await, "healthy");
    let taken = with_passphrase(&here, &export).await.expect(1);
    taken.says(&["is there already"]);
    assert_eq!(state(&here, &id).await, "healthy");

    // Imported elsewhere, it is that one's alone.
    std::fs::remove_file(here.bench.path("moved.cred")).unwrap();
    with_passphrase(&here, &export).await.expect(0);
    let path = here.bench.path("moved.cred");
    let path = path.to_str().unwrap();
    let there = Office::new().await;
    let import = ["credentials", "import", path, "--project", "acme"];
    let wrong = [&import[..], &["--passphrase-stdin"], &CONFIG].concat();
    let refused = there.bench.run_with(&wrong, b"another passphrase").await;
    refused.expect(1).says(&["the passphrase is another one"]);
    let imported = with_passphrase(&there, &import).await.expect(0).json();
    assert_eq!(imported["origin_owner_id"], "customer-9");
    let new = imported["id"].as_str().unwrap();
    assert_eq!(state(&there, new).await, "healthy");
    there.run(&["accounts", "refresh", new]).await.expect(0);
    there.run(&["accounts", "walk", new]).await.expect(0);
    // What is in the file was redeemed.
    let late = with_passphrase(&there, &import).await.expect(1);
    late.says(&[
        "no longer takes the credential in this file",
        "imported before",
    ]);
    let log = there.run(&["audit", "list", "--json"]).await.expect(0);
    assert!(log.out.contains("credential.imported"));
    there.run(&["audit", "verify"]).await.expect(0);
    let log = here.run(&["audit", "list", "--json"]).await.expect(0).out;
    assert!(log.contains("credential.exported") && log.contains("credential.taken_back"));
}

#[tokio::test]
async fn a_personal_token_is_exported_and_stays() {
    let office = Office::new().await;
    let id = office.link().await;
    let short = [
        "credentials",
        "export",
        &id,
        "--to",
        "a",
        "--passphrase-stdin",
    ];
    let short = office
        .bench
        .run_with(&[&short[..], &CONFIG].concat(), b"short")
        .await;
    short.expect(1).says(&["12 characters"]);
    let export = ["credentials", "export", &id, "--to", "token.cred"];
    let exported = with_passphrase(&office, &export).await.expect(0).json();
    assert_eq!(exported["moved"], false);
    assert_eq!(state(&office, &id).await, "healthy");
    let token = office.admin_token().as_bytes();
    let file = std::fs::read(office.bench.path("token.cred")).unwrap();
    assert!(!file.windows(token.len()).any(|window| window == token));
    let import = ["credentials", "import", "token.cred", "--account", &id];
    let imported = with_passphrase(&office, &import).await.expect(0).json();
    assert_eq!(imported["id"], id.as_str());
    office.bench.write("no.cred", "what people call a file");
    let import = ["credentials", "import", "no.cred", "--project", "acme"];
    let refused = with_passphrase(&office, &import).await.expect(1);
    refused.says(&["cannot be opened"]);
}

#[tokio::test]
async fn after_a_breach_nothing_works_any_more() {
    let office = Office::new().await;
    let personal = office.link().await;
    let twin = office.link().await;
    let oauth = signed_in(&office).await;
    let asked = office.run(&["revoke-all"]).await.expect(1);
    asked.says(&["nothing was revoked", "3 accounts", "--yes"]);
    let done = office.run(&["revoke-all", "--yes", "--json"]).await;
    let done = done.expect(0).json();
    assert_eq!(done["keys_revoked"], 1);
    let accounts = done["accounts"].as_array().unwrap();
    assert_eq!(accounts.len(), 3);
    for account in accounts {
        assert_eq!(account["revocation"], "revoked", "{account}");
    }
    for id in [&personal, &twin, &oauth] {
        let shown = office.run(&["accounts", "show", id, "--json"]).await;
        assert_eq!(shown.expect(0).json()["status"], "inactive");
    }
    let token = office.admin_token().to_owned();
    let linked = office.link_with(token.as_bytes(), &[]).await.expect(1);
    linked.says(&["does not take this token"]);
    office.run(&["revoke-all", "--yes"]).await.expect(0);
}

#[tokio::test]
async fn after_a_breach_what_cannot_be_read_keeps_nothing_from_being_revoked() {
    let office = Office::new().await;
    let locked = office.link().await;
    let oauth = signed_in(&office).await;
    office
        .tamper(
            "update accounts set sealed_profile = sealed_identity
             where id in (select account from credentials where kind = 'access_token')",
        )
        .await;
    let done = office.run(&["revoke-all", "--yes", "--json"]).await;
    let done = done.expect(1);
    let report = done.json();
    assert_eq!(report["keys_revoked"], 1);
    let of = |id: &str| {
        let mut lines = report["accounts"].as_array().unwrap().iter();
        lines.find(|line| line["account"] == id).unwrap().clone()
    };
    assert_eq!(of(&oauth)["revocation"], "revoked");
    assert_eq!(of(&locked)["revocation"], serde_json::Value::Null);
    assert_eq!(of(&locked)["is_revoked"], false);
    done.says(&["1 credentials may still work"]);
}

#[tokio::test]
async fn what_a_provider_does_not_revoke_is_reported() {
    let office = Office::new().await;
    let id = office.link().await;
    let Office {
        bench, simulator, ..
    } = office;
    // It does not answer any more.
    simulator.stop().await;
    let run = async |arguments: &[&str]| bench.run(&[arguments, &CONFIG].concat()).await;
    let done = run(&["revoke-all", "--yes", "--json"]).await;
    let done = done.expect(1);
    assert_eq!(done.json()["accounts"][0]["revocation"], "failed");
    assert_eq!(done.json()["accounts"][0]["account"], id.as_str());
    done.says(&["1 credentials may still work"]);
    let log = run(&["audit", "list", "--json"]).await.expect(0);
    assert!(log.out.contains("credential.revoke_refused"));
}

/// The next call for tokens is answered after three seconds.
async fn slow_tokens(office: &Office) {
    let rule = json!([{
        "match": {"method": "POST", "path_prefix": "/token"},
        "times": 1,
        "fault": {"kind": "delay", "ms": 3000},
    }]);
    office.control(Method::POST, "/faults", &rule).await;
}

/// The calls for tokens that have arrived at the provider.
async fn token_calls(office: &Office) -> Vec<Value> {
    let log = office.control(Method::GET, "/log?since=0", &json!(null));
    let mut calls = log.await.as_array().unwrap().clone();
    calls.retain(|call| call["method"] == "POST" && call["path"] == "/2.0/token");
    calls
}

/// Runs this until one more call for tokens waits at the provider.
async fn waits_for_tokens(office: &Office, arguments: &[&str]) -> Running {
    let before = token_calls(office).await.len();
    slow_tokens(office).await;
    let mut command = office.bench.command(&[arguments, &CONFIG].concat());
    let running = Running::of(command.spawn().unwrap());
    let arrived = async {
        while token_calls(office).await.len() == before {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(HANG, arrived).await.unwrap();
    running
}

#[tokio::test]
async fn a_command_that_is_told_to_stop_ends_the_refresh_that_it_is_on() {
    let office = Office::new().await;
    let id = signed_in(&office).await;
    let refresh = ["accounts", "refresh", &id];
    for stop in [Running::interrupt, Running::ask_to_end] {
        let running = waits_for_tokens(&office, &refresh).await;
        stop(&running);
        let (code, out, err) = running.end().await;
        assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
        assert!(err.contains("a refresh is being finished"), "{err}");
        assert!(err.contains("stopped"), "{err}");
        // The pair that it waited for is the account's, and good.
        assert_eq!(state(&office, &id).await, "healthy");
        let calls = token_calls(&office).await;
        assert_eq!(calls.last().unwrap()["status"], 200);
    }
    office.run(&refresh).await.expect(0);
}

/// Commands have the key ring and tokens in their memory.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_command_leaves_no_core_file() {
    let office = Office::new().await;
    let id = signed_in(&office).await;
    let running = waits_for_tokens(&office, &["accounts", "refresh", &id]).await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", running.id())).unwrap();
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"));
    let core: Vec<_> = core.unwrap().split_whitespace().collect();
    assert_eq!(core[4..6], ["0", "0"], "{core:?}");
    running.interrupt();
    running.end().await;
}
