//! `rolecall check`: everything that is wrong, at once, and nothing changed by looking.

use rolecall::crypto::{KeyRing, Rng};
use serde_json::{Value, json};

use crate::{
    bench::{Bench, Outcome, client},
    office::{CONFIG, Office},
    schema::Schema,
};

async fn check(bench: &Bench, more: &[&str]) -> Outcome {
    bench.run(&[&["check"][..], more, &CONFIG].concat()).await
}

async fn check_token(office: &Office, token: &str, more: &[&str]) -> Outcome {
    let base = office.simulator.announcement().api_base.as_str();
    let arguments = [
        &["check", "--token-stdin", "--base-url", base][..],
        more,
        &CONFIG,
    ];
    office
        .bench
        .run_with(&arguments.concat(), token.as_bytes())
        .await
}

fn states(outcome: &Outcome) -> Value {
    let line = outcome.json();
    let parts = line["checks"].as_array().unwrap();
    parts
        .iter()
        .map(|part| {
            (
                part["name"].as_str().unwrap().to_owned(),
                part["state"].clone(),
            )
        })
        .collect::<serde_json::Map<_, _>>()
        .into()
}

#[tokio::test]
async fn an_installation_is_in_order_before_during_and_after_a_server() {
    let office = Office::new().await;
    let before = office.bench.files();
    let fine = check(&office.bench, &["--json"]).await.expect(0);
    assert_eq!(fine.json()["ok"], true);
    assert_eq!(fine.json()["token"], json!(null));
    assert_eq!(
        states(&fine),
        json!({
            "configuration": "ok", "key ring": "ok", "store": "ok", "journal": "ok",
            "certificates": "ok",
        })
    );
    assert!(office.bench.files() == before, "looking changed a byte");
    let (running, _) = office.serve().await;
    check(&office.bench, &[]).await.expect(0);
    running.terminate().await;
    check(&office.bench, &[]).await.expect(0);
}

#[tokio::test]
async fn a_new_installation_is_in_order_and_is_not_made_by_looking() {
    let bench = Bench::new();
    bench.furnish().await;
    let before = bench.files();
    let fine = check(&bench, &[]).await.expect(0);
    assert!(fine.out.contains("nothing is at"), "{fine:?}");
    assert_eq!(bench.files(), before);
}

#[tokio::test]
async fn each_fault_says_what_to_do() {
    let office = Office::new().await;
    let bench = &office.bench;
    let settings = std::fs::read_to_string(bench.path("rolecall.toml")).unwrap();
    let ring = std::fs::read_to_string(bench.path("rolecall.keys")).unwrap();

    bench.write(
        "rolecall.toml",
        "[server]\nlisten = \"nowhere\"\n[walk]\nparallel_reads = 0\n",
    );
    let wrong = check(bench, &["--json"]).await.expect(78);
    assert_eq!(
        states(&wrong),
        json!({
            "configuration": "fault", "key ring": "not_checked", "store": "not_checked",
            "journal": "not_checked", "certificates": "ok",
        })
    );
    let wrong = check(bench, &[]).await.expect(78).out;
    assert!(
        wrong.contains("server.listen") && wrong.contains("walk.parallel_reads"),
        "{wrong}"
    );

    bench.write("rolecall.toml", &settings);
    std::fs::remove_file(bench.path("rolecall.keys")).unwrap();
    let wrong = check(bench, &[]).await.expect(78).out;
    assert!(wrong.contains("rolecall keyring init"), "{wrong}");

    let stranger = KeyRing::generate("k2", &Rng::system()).unwrap();
    bench.write_ring(&stranger.to_text());
    let wrong = check(bench, &[]).await.expect(78).out;
    assert!(wrong.contains("`k1`") && wrong.contains("FAULT"), "{wrong}");

    bench.write_ring(&ring);
    let folder = format!("{settings}\n[store]\nurl = \"sqlite://missing/rolecall.db\"\n");
    bench.write("rolecall.toml", &folder);
    let wrong = check(bench, &[]).await.expect(1).out;
    assert!(
        wrong.contains("no such folder") && wrong.contains("store.url"),
        "{wrong}"
    );

    bench.write(
        "other.db",
        "this is no database, but long enough that SQLite has a look at it",
    );
    let foreign = format!("{settings}\n[store]\nurl = \"sqlite://other.db\"\n");
    bench.write("rolecall.toml", &foreign);
    let wrong = check(bench, &[]).await.expect(1).out;
    assert!(wrong.contains("is not a database of Rolecall's"), "{wrong}");
}

/// The state and the detail of one part.
fn part(outcome: &Outcome, name: &str) -> (String, String) {
    let line = outcome.json();
    let parts = line["checks"].as_array().unwrap();
    let part = parts.iter().find(|part| part["name"] == name).unwrap();
    let text = |field: &str| part[field].as_str().unwrap().to_owned();
    (text("state"), text("detail"))
}

#[tokio::test]
async fn what_others_can_get_at_is_a_fault() {
    let office = Office::new().await;
    let bench = &office.bench;
    let (running, _) = office.serve().await;
    for (file, name, mode, code, words) in [
        ("rolecall.keys", "key ring", 0o644, 78, "chmod 600"),
        (
            "rolecall.keys",
            "key ring",
            0o660,
            78,
            "written by its group",
        ),
        ("rolecall.keys", "key ring", 0o602, 78, "written by others"),
        ("rolecall.db.journal", "journal", 0o755, 1, "chmod 700"),
        (
            "rolecall.db.journal",
            "journal",
            0o777,
            1,
            "read and written",
        ),
        ("rolecall.db", "store", 0o666, 1, "chmod 600"),
        ("rolecall.db", "store", 0o644, 1, "read by others"),
    ] {
        let before = bench.mode(file);
        bench.set_mode(file, mode);
        let found = check(bench, &["--json"]).await.expect(code);
        let (state, detail) = part(&found, name);
        assert_eq!(state, "fault", "{file} {mode:o}");
        assert!(detail.contains(words), "{detail}");
        assert!(detail.contains(&format!("{mode:04o}")), "{detail}");
        bench.set_mode(file, before);
        check(bench, &[]).await.expect(0);
    }
    bench.set_mode("rolecall.keys", 0o440);
    check(bench, &[]).await.expect(0);
    running.terminate().await;
}

#[tokio::test]
async fn a_store_that_cannot_be_written_is_a_fault() {
    // Before there is a database, and after.
    for is_new in [true, false] {
        let bench = Bench::new();
        bench.furnish().await;
        if !is_new {
            let (running, base) = bench.serve().await;
            let ready = client().get(format!("{base}/health/ready")).send().await;
            assert_eq!(ready.unwrap().status(), 200);
            running.terminate().await;
            bench.set_mode("rolecall.db", 0o400);
            let (code, _, out) = bench.check_as_nobody("").await;
            assert_eq!(code, Some(1), "{out}");
            assert!(out.contains("rolecall.db cannot be written"), "{out}");
            bench.set_mode("rolecall.db", 0o600);
        }
        let before = bench.files();
        let (code, _, out) = bench.check_as_nobody("").await;
        assert_eq!(code, Some(0), "{out}");
        // No room: a file may have 4 KiB here.
        let (code, _, out) = bench.check_as_nobody("ulimit -f 8;").await;
        assert_eq!(code, Some(1), "{out}");
        assert!(out.contains("cannot be written"), "{out}");
        let after = bench.files();
        let changed: Vec<_> = after
            .iter()
            .filter(|(name, bytes)| before.get(*name) != Some(bytes))
            .map(|(name, _)| name)
            .collect();
        assert!(changed.is_empty(), "looking changed {changed:?}");
        assert_eq!(after.len(), before.len());
        // No right to make files.
        bench.set_mode(".", 0o500);
        let (code, _, out) = bench.check_as_nobody("").await;
        assert_eq!(code, Some(1), "{out}");
        assert!(out.contains("cannot be written"), "{out}");
        bench.set_mode(".", 0o700);
    }
}

#[tokio::test]
async fn missing_certificates_are_a_fault() {
    let bench = Bench::new();
    bench.furnish().await;
    bench.write("none.pem", "");
    for file in ["none.pem", "absent.pem"] {
        let mut command = bench.command(&[&["check", "--json"][..], &CONFIG].concat());
        command.env("SSL_CERT_FILE", bench.path(file));
        let output = command.output().await.unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let line: Value = serde_json::from_slice(&output.stdout).unwrap();
        let certificates = &line["checks"][4];
        assert_eq!(certificates["name"], "certificates");
        assert_eq!(certificates["state"], "fault");
        let detail = certificates["detail"].as_str().unwrap();
        assert!(detail.contains("ca-certificates"), "{detail}");
    }
}

#[tokio::test]
async fn a_token_is_known_by_whose_it_is_and_what_it_would_show() {
    // There need be no database yet, and none is made.
    let mut office = Office::new().await;
    let bench = Bench::new();
    bench.furnish().await;
    office.bench = bench;
    let before = office.bench.files();
    let tokens = office.simulator.announcement().tokens.clone();

    let admin = check_token(&office, &tokens.system_admin, &["--json"]).await;
    let admin = admin.expect(0).json()["token"].clone();
    assert_eq!(admin["is_admin"], true);
    assert_eq!(admin["provider"], "smartsheet");
    assert!(admin["organization"]["remote_id"].is_string(), "{admin}");
    assert!(admin["users"].as_u64().unwrap() >= 40, "{admin}");
    assert_eq!(admin["unavailable_fields"], json!([]));
    assert!(
        admin["served_fields"]
            .as_array()
            .unwrap()
            .contains(&json!("roles"))
    );

    let member = check_token(&office, &tokens.member, &["--json"]).await;
    let member = member.expect(0).json()["token"].clone();
    assert_eq!(member["is_admin"], false);
    let missing = member["unavailable_fields"].as_array().unwrap();
    assert!(missing.contains(&json!({ "field": "roles", "reason": "not_permitted" })));
    assert!(
        !member["served_fields"]
            .as_array()
            .unwrap()
            .contains(&json!("roles"))
    );
    let words = check_token(&office, &tokens.member, &[])
        .await
        .expect(0)
        .out;
    assert!(words.contains("no administrator"), "{words}");
    assert!(words.contains("roles: the token may not see it"), "{words}");

    for (token, words) in [
        (tokens.revoked.as_str(), "does not take this token"),
        (&tokens.no_read_users, "may not read users"),
        ("", "no token on standard input"),
        ("can\u{0}ary", "visible ASCII"),
    ] {
        let refused = check_token(&office, token, &[]).await.expect(1);
        assert!(refused.out.contains(words), "{refused:?}");
        let said = format!("{}{}", refused.out, refused.err);
        assert!(token.is_empty() || !said.contains(token), "{said}");
    }
    assert_eq!(office.bench.files(), before);
}

#[tokio::test]
async fn what_is_checked_of_a_token_is_what_is_served_of_it() {
    let office = Office::new().await;
    let token = office.simulator.announcement().tokens.member.clone();
    let found = check_token(&office, &token, &["--json"])
        .await
        .expect(0)
        .json();
    let linked = office.link_with(token.as_bytes(), &["--json"]).await;
    let id = linked.expect(0).json()["id"].as_str().unwrap().to_owned();
    let shown = office.run(&["accounts", "show", &id, "--json"]).await;
    assert_eq!(
        found["token"]["unavailable_fields"],
        shown.expect(0).json()["unavailable_fields"]
    );
}

#[tokio::test]
async fn a_database_that_refuses_the_login_is_told_with_its_reason() {
    let Some(schema) = Schema::new().await else {
        return;
    };
    let bench = Bench::new();
    bench.furnish().await;
    let url: url::Url = schema.url().parse().unwrap();
    let mut stranger = url.clone();
    stranger.set_username("nobody_of_a_test").unwrap();
    let mut elsewhere = url.clone();
    elsewhere.set_path("no_database_of_a_test");
    for (url, reason) in [
        (stranger, "nobody_of_a_test"),
        (elsewhere, "no_database_of_a_test\" does not exist"),
    ] {
        for command in ["check", "serve"] {
            let mut command = bench.command(&[&[command][..], &CONFIG].concat());
            command
                .env("ROLECALL_STORE__URL", url.as_str())
                .env("ROLECALL_STORE__JOURNAL", bench.path("journal"));
            let output = command.output().await.unwrap();
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8(said).unwrap();
            assert_eq!(output.status.code(), Some(1), "{said}");
            assert!(said.contains(reason), "{said}");
        }
    }
}

/// The provider says what people and organizations are called, and a terminal must not obey it.
#[tokio::test]
async fn what_the_provider_says_neither_steers_a_terminal_nor_adds_a_line() {
    const HOSTILE: &str = "Eve\u{1b}]0;owned\u{7}\u{9b}2J\r\nstore  ok\u{202e}";
    let office = Office::new().await;
    let provider = provider_of(HOSTILE).await;
    let arguments = |json: bool| {
        let mut all = vec!["check", "--token-stdin", "--base-url", provider.as_str()];
        all.extend(json.then_some("--json"));
        [&all[..], &CONFIG]
            .concat()
            .into_iter()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    for json in [false, true] {
        let arguments = arguments(json);
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let shown = office.bench.run_with(&arguments, b"token-of-eve\n").await;
        let shown = shown.expect(0);
        let steers = |c: char| c != '\n' && (c.is_control() || c == '\u{202e}');
        assert!(!shown.out.contains(steers), "{shown:?}");
        match json {
            true => assert_eq!(shown.json()["token"]["person"]["name"], HOSTILE),
            false => {
                let lines = shown.out.lines().filter(|line| line.starts_with("store"));
                assert_eq!(lines.count(), 1, "{shown:?}");
            }
        }
    }
}

/// A provider whose every person has this name.
async fn provider_of(name: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}/2.0", listener.local_addr().unwrap());
    let me = json!({
        "id": 1, "email": "eve@example.com", "name": name, "firstName": name, "lastName": "x", "admin": false,
        "account": {"id": 2, "name": name},
    });
    let list = json!({
        "pageNumber": 1, "pageSize": 100, "totalPages": 1, "totalCount": 0, "data": [],
    });
    tokio::spawn(async move {
        loop {
            let (mut connection, _) = listener.accept().await.unwrap();
            let (me, list) = (me.to_string(), list.to_string());
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    match connection.read_u8().await {
                        Ok(byte) => head.push(byte),
                        Err(_) => return,
                    }
                }
                let head = String::from_utf8_lossy(&head).into_owned();
                let body = match head.starts_with("GET /2.0/users/me") {
                    true => me,
                    false => list,
                };
                let answer = format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\
                     content-length: {}\r\n\r\n{body}",
                    body.len()
                );
                let _ = connection.write_all(answer.as_bytes()).await;
            });
        }
    });
    base
}
