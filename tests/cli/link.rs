//! `rolecall link`, `profiles` and what belongs to them: sign-ins from this machine.

use std::net::TcpListener;

use serde_json::Value;
use tokio::io::AsyncWriteExt;

use crate::{
    bench::{Bench, Running, client},
    office::{Browser, CONFIG, Office, free_port},
};

/// `rolecall link` on its way, and the address that it printed.
pub async fn begun(office: &Office, profile: &str, more: &[&str]) -> (Running, String) {
    let arguments = [
        &["link", "--project", "acme", "--profile", profile, "--json"][..],
        &[
            "--owner-id",
            "customer-9",
            "--owner-name",
            "Customer <Nine>",
        ],
        more,
        &CONFIG,
    ]
    .concat();
    let mut command = office.bench.command(&arguments);
    command.stdin(std::process::Stdio::piped());
    let mut running = Running::of(command.spawn().unwrap());
    let address = running.err_line_with("http").await;
    (running, address.trim().to_owned())
}

#[tokio::test]
async fn a_browser_that_comes_back_to_the_registered_port_links_an_account() {
    let office = Office::new().await;
    let port = free_port();
    let back = format!("http://localhost:{port}/callback");
    let profile = office.profile(&back).await;
    let (running, address) = begun(&office, &profile, &["--no-browser"]).await;
    let browser = Browser::new();

    // Nobody of these ends it: a favicon, another path, another state, something that is no HTTP.
    let at = |path: &str| format!("http://127.0.0.1:{port}{path}");
    for (path, status) in [
        ("/favicon.ico", 404),
        ("/callback/?code=c&state=s", 404),
        ("/callback?code=c&state=guessed", 400),
        ("/callback?code=c", 400),
        ("//callback?code=c", 404),
    ] {
        let reply = client().get(at(path)).send().await.unwrap();
        assert_eq!(reply.status(), status, "{path}");
        let page = reply.text().await.unwrap();
        assert!(!page.contains("guessed"), "{page}");
    }
    // One that says nothing keeps nobody waiting.
    let _silent = tokio::net::TcpStream::connect(("127.0.0.1", port))
        .await
        .unwrap();
    let mut rude = tokio::net::TcpStream::connect(("127.0.0.1", port))
        .await
        .unwrap();
    rude.write_all(b"\x16\x03\x01 hello\r\n\r\n").await.unwrap();

    let returned = browser.consents(&office, &address, "allow").await;
    assert!(returned.starts_with(&back), "{returned}");
    let reply = client().get(&returned).send().await.unwrap();
    assert_eq!(reply.status(), 200);
    let policy = &reply.headers()["content-security-policy"];
    assert!(policy.to_str().unwrap().contains("default-src 'none'"));
    let page = reply.text().await.unwrap();
    assert!(page.contains("is linked"), "{page}");
    let code = returned
        .split("code=")
        .nth(1)
        .unwrap()
        .split('&')
        .next()
        .unwrap();
    assert!(!page.contains(code) && !page.contains("state"), "{page}");

    let (code, out, _) = running.end().await;
    assert_eq!(code, Some(0), "{out}");
    let account: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(account["project"], "acme");
    assert_eq!(account["origin_owner_id"], "customer-9");
    let id = account["id"].as_str().unwrap();
    let shown = office.run(&["accounts", "show", id, "--json"]).await;
    let shown = shown.expect(0).json();
    assert_eq!(shown["directory"]["version"], "1");
    assert_eq!(shown["credential"]["type"], "oauth2");

    let refreshed = office.run(&["accounts", "refresh", id, "--json"]).await;
    assert_eq!(refreshed.expect(0).json()["credential"]["state"], "healthy");
    office.run(&["accounts", "walk", id]).await.expect(0);

    // Tokens that were not renewed are not told as new.
    let change = [
        "profiles",
        "update",
        &profile,
        "--project",
        "acme",
        "--secret-stdin",
        "--config",
        "rolecall.toml",
    ];
    office.bench.run_with(&change, b"another").await.expect(0);
    let refused = office.run(&["accounts", "refresh", id]).await.expect(1);
    refused.says(&["there are no new tokens", "client id or secret"]);
}

#[tokio::test]
async fn a_denied_consent_is_told_to_the_browser_and_links_nothing() {
    let office = Office::new().await;
    let back = format!("http://127.0.0.1:{}/cb", free_port());
    let profile = office.profile(&back).await;
    let (running, address) = begun(&office, &profile, &["--no-browser"]).await;
    let returned = Browser::new().consents(&office, &address, "deny").await;
    let page = client().get(&returned).send().await.unwrap();
    assert_eq!(page.status(), 400);
    let page = page.text().await.unwrap();
    assert!(page.contains("denied"), "{page}");
    let (code, out, err) = running.end().await;
    assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
    assert!(err.contains("denied"), "{err}");
    let listed = office.run(&["accounts", "list", "--json"]).await.expect(0);
    assert_eq!(listed.json()["accounts"], serde_json::json!([]));
}

#[tokio::test]
async fn headless_takes_the_code_or_the_whole_url() {
    let office = Office::new().await;
    let profile = office.profile("https://example.org/nowhere").await;
    for is_whole in [true, false] {
        let (mut running, address) = begun(&office, &profile, &["--headless"]).await;
        let returned = Browser::new().consents(&office, &address, "allow").await;
        let url = url::Url::parse(&returned).unwrap();
        let code = url.query_pairs().find(|(name, _)| name == "code").unwrap();
        let pasted = if is_whole {
            returned.clone()
        } else {
            code.1.to_string()
        };
        let lines = format!("\nnot a code\nhttps://example.org/?code=c&state=s\n{pasted}\n");
        running.type_in(&lines).await;
        let (ended, out, err) = running.end().await;
        assert_eq!(ended, Some(0), "{err}");
        assert!(!out.contains(&*code.1) && !err.contains(&*code.1), "{err}");
        assert!(
            err.contains("another sign-in") && err.contains("no code in that"),
            "{err}"
        );
        let account: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(account["status"], "active");
    }
    let (running, _) = begun(&office, &profile, &["--headless"]).await;
    let (ended, _, err) = running.end().await;
    assert_eq!(ended, Some(1));
    assert!(err.contains("without a code"), "{err}");
}

/// What came back, as a mail, a chat or a terminal hands it on.
#[tokio::test]
async fn headless_understands_a_pasted_url_in_whatever_it_was_put() {
    let office = Office::new().await;
    let profile = office.profile("https://example.org/nowhere").await;
    let wraps: [fn(&str) -> String; 6] = [
        |url| format!("\"{url}\""),
        |url| format!("<{url}>"),
        |url| url.split_once('?').unwrap().1.to_owned(),
        |url| format!("?{}", url.split_once('?').unwrap().1),
        |url| format!("'{}\n  {}'", &url[..40], &url[40..]),
        |url| {
            let (head, rest) = url.split_at(20);
            let (middle, tail) = rest.split_at(30);
            format!("> {head}\r\n> {middle}\r\n> {tail}")
        },
    ];
    for wrap in wraps {
        let (mut running, address) = begun(&office, &profile, &["--headless"]).await;
        let returned = Browser::new().consents(&office, &address, "allow").await;
        let pasted = wrap(&returned);
        running.type_in(&format!("{pasted}\n")).await;
        let (ended, _, err) = running.end().await;
        assert_eq!(ended, Some(0), "{pasted}: {err}");
    }
}

/// Nothing of a URL is sent to the provider as a code: it would use up the sign-in.
#[tokio::test]
async fn headless_asks_again_for_what_is_only_a_piece_of_a_url() {
    let office = Office::new().await;
    let profile = office.profile("https://example.org/nowhere").await;
    let (mut running, address) = begun(&office, &profile, &["--headless"]).await;
    let returned = Browser::new().consents(&office, &address, "allow").await;
    let (_, query) = returned.split_once('?').unwrap();
    let code = query.split('&').find(|it| it.starts_with("code=")).unwrap();
    let lines = format!(
        "{code}\n\nexample.org/nowhere\n\nhttps://example.org/nowhere\n\n{}\n\n{returned}\n",
        &query[query.len() - 30..],
    );
    running.type_in(&lines).await;
    let (ended, out, err) = running.end().await;
    assert_eq!(ended, Some(0), "{err}");
    assert!(err.matches("not the whole URL").count() >= 2, "{err}");
    let account: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(account["status"], "active");
}

#[tokio::test]
async fn a_sign_in_that_is_interrupted_ends_cleanly() {
    let office = Office::new().await;
    let back = format!("http://localhost:{}/callback", free_port());
    let desktop = office.profile(&back).await;
    let headless = office.profile("https://example.org/nowhere").await;
    for (profile, how) in [(desktop, "--no-browser"), (headless, "--headless")] {
        let (running, _) = begun(&office, &profile, &[how]).await;
        let (status, out) = running.terminate().await;
        assert_eq!((status.code(), out.as_str()), (Some(1), ""));
    }
    // And what it had taken is free.
    office.link().await;
}

#[tokio::test]
async fn what_cannot_come_back_does_not_set_out() {
    let office = Office::new().await;
    let link = |profile: &str| {
        let arguments = [
            "link",
            "--project",
            "acme",
            "--no-browser",
            "--profile",
            profile,
        ];
        [&arguments[..], &["--owner-id", "c", "--owner-name", "C"]]
            .concat()
            .into_iter()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let holder = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let taken = format!(
        "http://localhost:{}/cb",
        holder.local_addr().unwrap().port()
    );
    for (back, words) in [
        ("https://example.org/cb", "--headless"),
        ("http://localhost/cb", "--headless"),
        (taken.as_str(), "cannot listen"),
    ] {
        let profile = office.profile(back).await;
        let arguments = link(&profile);
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let outcome = office.run(&arguments).await.expect(1);
        outcome.says(&[words]);
    }
    let unknown = link("01998ad6-3f35-7c58-9d37-9d27a1b1b8f0");
    let unknown: Vec<_> = unknown.iter().map(String::as_str).collect();
    let outcome = office.run(&unknown).await.expect(1);
    outcome.says(&["no such connector profile", "rolecall profiles list"]);
}

#[tokio::test]
async fn beside_a_server_on_a_file_the_hub_and_the_api_are_named() {
    let office = Office::new().await;
    let profile = office.profile("http://localhost:7/cb").await;
    let (running, _) = office.serve().await;
    let arguments = ["link", "--project", "acme", "--profile", &profile];
    let arguments = [&arguments[..], &["--owner-id", "c", "--owner-name", "C"]].concat();
    let outcome = office.run(&arguments).await.expect(1);
    outcome.says(&[
        "another process serves",
        "POST /oauth/authorization_url",
        "auth_link_url",
    ]);
    running.terminate().await;
}

#[tokio::test]
async fn profiles_are_made_listed_changed_and_disabled() {
    let office = Office::new().await;
    let id = office.profile("http://localhost:7433/callback").await;
    let list = ["profiles", "list", "--project", "acme", "--json"];
    let listed = office.run(&list).await.expect(0).json();
    assert_eq!(listed["profiles"][0]["id"], id.as_str());
    assert_eq!(listed["profiles"][0]["enabled"], true);
    let secret = office
        .simulator
        .announcement()
        .oauth_client
        .client_secret
        .clone();

    let profile = |word: &'static str| ["profiles", word, "--project", "acme", "--json"];
    let show = office
        .run(&[&profile("show")[..], &[&id]].concat())
        .await
        .expect(0);
    assert!(!show.out.contains(&secret));
    let update = [
        &profile("update")[..],
        &[&id, "--label", "Ours", "--actions", "users,groups"],
    ];
    let updated = office.run(&update.concat()).await.expect(0).json();
    assert_eq!(updated["label"], "Ours");
    assert_eq!(updated["actions"], serde_json::json!(["users", "groups"]));
    let update = [&profile("update")[..], &[&id]].concat();
    office
        .run(&update)
        .await
        .expect(1)
        .says(&["nothing is to change"]);
    let secret = [&update[..], &["--secret-stdin"], &CONFIG].concat();
    office
        .bench
        .run_with(&secret, b"another-secret\n")
        .await
        .expect(0);

    for (word, is_enabled) in [("disable", false), ("enable", true)] {
        let changed = office.run(&[&profile(word)[..], &[&id]].concat()).await;
        assert_eq!(changed.expect(0).json()["enabled"], is_enabled);
    }
    let people = office
        .run(&["profiles", "show", "--project", "acme", &id])
        .await;
    let people = people.expect(0).out;
    assert!(
        people.contains("http://localhost:7433/callback"),
        "{people}"
    );
    let bad = [
        "profiles",
        "update",
        "--project",
        "acme",
        &id,
        "--redirect-url",
        "http://x/",
    ];
    office.run(&bad).await.expect(1).says(&["redirect_url"]);
    let bad = ["profiles", "list", "--project", "other"];
    office.run(&bad).await.expect(1).says(&["no project other"]);
}

#[tokio::test]
async fn a_project_says_where_its_customers_may_be_sent() {
    let office = Office::new().await;
    let update = ["projects", "update", "acme", "--json"];
    let both = [
        "--return-url",
        "https://app.example.org/done",
        "--return-url",
        "http://localhost:3000/done",
        "--opener-origin",
        "https://app.example.org",
    ];
    office.run(&[&update[..], &both].concat()).await.expect(0);
    let shown = office.run(&["projects", "show", "acme", "--json"]).await;
    let expected = serde_json::json!({
        "project": "acme",
        "return_urls": ["https://app.example.org/done", "http://localhost:3000/done"],
        "opener_origins": ["https://app.example.org"],
    });
    assert_eq!(shown.expect(0).json(), expected);
    for (option, value) in [
        ("--return-url", "http://app.example.org/done"),
        ("--return-url", "javascript:alert(1)"),
        ("--opener-origin", "https://app.example.org/"),
        ("--opener-origin", "*"),
    ] {
        let bad = office.run(&[&update[..], &[option, value]].concat()).await;
        bad.expect(1).says(&[value]);
    }
    let cleared = office
        .run(&[&update[..], &["--no-return-url"]].concat())
        .await;
    let cleared = cleared.expect(0).json();
    assert_eq!(cleared["return_urls"], serde_json::json!([]));
    assert_eq!(cleared["opener_origins"], expected["opener_origins"]);
    let log = office.run(&["audit", "list"]).await.expect(0).out;
    assert_eq!(log.matches("project.updated").count(), 2, "one for each");
    Bench::new()
        .run(&["projects", "update", "acme"])
        .await
        .expect(2);
}

#[tokio::test]
async fn a_token_is_replaced_in_place() {
    let office = Office::new().await;
    let id = office.link().await;
    let arguments = ["accounts", "token", &id, "--token-stdin", "--json"];
    let arguments = [&arguments[..], &CONFIG].concat();
    let token = office.admin_token().to_owned();
    let replaced = office.bench.run_with(&arguments, token.as_bytes()).await;
    assert_eq!(replaced.expect(0).json()["id"], id.as_str());
    let refused = office.bench.run_with(&arguments, b"canary-of-nobody").await;
    let refused = refused.expect(1);
    assert!(!refused.err.contains("canary"), "{refused:?}");
    let nothing = office.run(&["accounts", "refresh", &id]).await.expect(1);
    nothing.says(&["no refresh token"]);
}
