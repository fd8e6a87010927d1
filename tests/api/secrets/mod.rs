//! No secret, and nobody's name or address, is where it should not be (G2).
//!
//! The true binary is run with its log at TRACE, is given canaries in every place that holds a
//! secret, and is treated badly. Then everything that it left behind is searched for them, in
//! every form in which they might be written: log, metrics, error replies and every byte of the
//! store.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use base64::{
    Engine,
    prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD},
};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Child,
};

use crate::world::{HANG, Reply, World, reply};

/// A text that must not be found, and what it is.
struct Canary {
    what: &'static str,
    forms: Vec<String>,
}

/// Any bytes as a text of as many characters, so that the search in texts serves for them too.
fn latin(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

impl Canary {
    fn new(what: &'static str, text: &str) -> Self {
        let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
        let escaped: String = text
            .bytes()
            .map(|byte| match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                    char::from(byte).to_string()
                }
                _ => format!("%{byte:02X}"),
            })
            .collect();
        let json = serde_json::to_string(text).unwrap();
        let ascii_json: String = text
            .encode_utf16()
            .map(|unit| match char::from_u32(u32::from(unit)) {
                Some(plain) if plain.is_ascii() => plain.to_string(),
                _ => format!("\\u{unit:04x}"),
            })
            .collect();
        let mut forms = vec![
            text.as_bytes().to_vec(),
            hex.to_uppercase().into_bytes(),
            hex.into_bytes(),
            escaped.to_lowercase().into_bytes(),
            escaped.into_bytes(),
            json.as_bytes()[1..json.len() - 1].to_vec(),
            ascii_json.into_bytes(),
            text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
            text.bytes().rev().collect(),
        ];
        forms.extend(base64_forms(text));
        let forms = forms.iter().map(|form| latin(form)).collect();
        Self { what, forms }
    }

    /// Where in a text that [`latin`] made this canary sings.
    fn heard_in(&self, place: &str, text: &str) -> Option<String> {
        self.forms.iter().find_map(|form| {
            let at = text.find(form)?;
            Some(format!("{} as {form} in {place} at {at}", self.what))
        })
    }
}

/// In base64 a text looks different by how many bytes stand before it, and at its ends by what
/// does: the part between is the same.
fn base64_forms(text: &str) -> Vec<Vec<u8>> {
    let mut forms = Vec::new();
    for before in 0..3 {
        let bytes = [vec![0; before], text.as_bytes().to_vec()].concat();
        for engine in [BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD] {
            let coded = engine.encode(&bytes).into_bytes();
            let (from, to) = ((before * 8).div_ceil(6), bytes.len() * 8 / 6);
            forms.push(coded[from..to].to_vec());
        }
    }
    forms
}

/// `rolecall serve`, at TRACE, and what it writes to its log.
struct Process {
    child: Child,
    base: String,
    log: tokio::task::JoinHandle<Vec<u8>>,
}

fn rolecall(config: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rolecall"));
    command.env_clear().current_dir(config.parent().unwrap());
    command
}

/// Runs a command of the binary to its end and gives its output.
fn run(config: &Path, arguments: &[&str]) -> String {
    let output = rolecall(config).args(arguments).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

impl Process {
    async fn start(config: &Path) -> Self {
        let mut command = tokio::process::Command::from(rolecall(config));
        let mut child = command
            .arg("serve")
            .arg("--config")
            .arg(config)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let mut log = Vec::new();
        let port = async {
            loop {
                let start = log.len();
                assert_ne!(lines.read_until(b'\n', &mut log).await.unwrap(), 0);
                let line = String::from_utf8_lossy(&log[start..]);
                if let Some((_, port)) = line.split_once("listening port=") {
                    return port.trim().to_owned();
                }
            }
        };
        let port = tokio::time::timeout(HANG, port).await.unwrap();
        let log = tokio::spawn(async move {
            while lines.read_until(b'\n', &mut log).await.unwrap() > 0 {}
            log
        });
        Self {
            child,
            base: format!("http://127.0.0.1:{port}"),
            log,
        }
    }

    /// Ends it as an operator does, and gives all that it logged.
    async fn stop(mut self) -> Vec<u8> {
        let pid = self.child.id().unwrap().to_string();
        let stopped = Command::new("kill").arg(&pid).status().unwrap();
        assert!(stopped.success());
        assert!(self.child.wait().await.unwrap().success());
        self.log.await.unwrap()
    }
}

/// Every file of a directory: its name and its bytes.
fn files(directory: &Path) -> Vec<(String, Vec<u8>)> {
    std::fs::read_dir(directory)
        .unwrap()
        .flat_map(|entry| {
            let path = entry.unwrap().path();
            if path.is_dir() {
                return files(&path);
            }
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            vec![(name, std::fs::read(&path).unwrap())]
        })
        .collect()
}

/// The person behind the token, and somebody in the directory, with names that stand out.
const OWNER_NAME: &str = "Quilla \"Owner\" Zéphyr-Canary";
const PERSON_NAME: &str = "Wändelgard <Canary> O'Person";
const PERSON_EMAIL: &str = "person.canary.7f3a@example.org";
const MEMBER_EMAIL: &str = "outsider.canary.91bc@contractor.example";

#[tokio::test]
async fn canaries_in_every_place_of_a_secret_are_found_nowhere() {
    let world = World::new().await;
    let truth = world.truth().await;
    let owner = &truth["users"][0];
    let (owner_id, owner_email) = (&owner["id"], owner["email"].as_str().unwrap());
    let added = world
        .mutate(&json!([
            {"op": "update_user", "id": owner_id, "lastName": OWNER_NAME},
            {"op": "add_user", "email": PERSON_EMAIL, "lastName": PERSON_NAME},
            {"op": "add_user", "email": MEMBER_EMAIL, "lastName": PERSON_NAME},
            {"op": "mint_token", "login": owner_email},
        ]))
        .await;
    let token = added[3]["value"].as_str().unwrap();
    let group = &truth["groups"][0]["id"];
    world
        .mutate(&json!([{"op": "add_member", "group_id": group, "user_id": added[1]["id"]}]))
        .await;

    // An installation as an operator makes it: keys here, store there.
    let place = tempfile::tempdir().unwrap();
    let store = place.path().join("store");
    std::fs::create_dir(&store).unwrap();
    let config = place.path().join("rolecall.toml");
    let text = format!(
        "keys_file = \"{keys}\"\n[server]\nlisten = \"127.0.0.1:0\"\nworkers = 1\n\
         read_wait_seconds = 10\n[store]\nurl = \"sqlite://{store}/rolecall.db\"\n\
         [provider]\nrate_limit = 0\nloopback_base_urls = true\n[log]\nlevel = \"trace\"\n",
        keys = place.path().join("rolecall.keys").display(),
        store = store.display(),
    );
    std::fs::write(&config, text).unwrap();
    let keys_file = place.path().join("rolecall.keys");
    let flag = config.to_str().unwrap();
    run(&config, &["keyring", "init", keys_file.to_str().unwrap()]);
    run(&config, &["projects", "create", "one", "--config", flag]);
    let key = run(
        &config,
        &[
            "keys",
            "create",
            "--project",
            "one",
            "--scopes",
            "iam:read,accounts:read,accounts:write,walks:write,admin",
            "--json",
            "--config",
            flag,
        ],
    );
    let key: Value = serde_json::from_str(&key).unwrap();
    let key = key["api_key"].as_str().unwrap();
    let ring = std::fs::read_to_string(&keys_file).unwrap();
    let ring_key = ring
        .lines()
        .filter(|line| !line.starts_with('#'))
        .find_map(|line| line.split_once(':'))
        .unwrap()
        .1
        .trim();

    let refused_token = "refused-token-canary-5d1e9b77c0";
    let wrong_key = format!("{}x", &key[..key.len() - 1]);
    let mut secrets = vec![
        Canary::new("the provider's token", token),
        Canary::new("a refused token", refused_token),
        Canary::new("the API key", key),
        Canary::new("a wrong API key", &wrong_key),
        Canary::new("the key ring", ring_key),
    ];
    let people = [
        Canary::new("the token's owner's name", OWNER_NAME),
        Canary::new("the token's owner's address", owner_email),
        Canary::new("a person's name", PERSON_NAME),
        Canary::new("a person's address", PERSON_EMAIL),
        Canary::new("an outsider's address", MEMBER_EMAIL),
    ];
    let whispers = [
        Canary::new("the customer's name", "Customer Canary 66ab"),
        Canary::new("the customer's user", "user.canary.d00d@customer.example"),
    ];

    let process = Process::start(&config).await;
    let ask = async |method: Method, path: &str, headers: &[(&str, &str)], body: Option<Value>| {
        let url = format!("{}{path}", process.base);
        let mut request = world.client.request(method, url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        reply(request).await
    };
    let bearer = format!("Bearer {key}");
    let auth = ("authorization", bearer.as_str());
    let body_with = |token: &str| {
        let mut body = world.account_body(token);
        body["origin_owner_name"] = json!("Customer Canary 66ab");
        body["origin_username"] = json!("user.canary.d00d@customer.example");
        body
    };
    let mut errors: Vec<Reply> = Vec::new();

    // A key made through the API, used, looked at, mistaken for an id, and revoked.
    let made = json!({"scopes": ["accounts:read"], "label": "a feed"});
    let made = ask(Method::POST, "/api_keys", &[auth], Some(made)).await;
    let made = made.expect(201);
    let (made_id, made_key) = (made["id"].as_str().unwrap(), made["key"].as_str().unwrap());
    secrets.push(Canary::new("an API key made through the API", made_key));
    let made_bearer = format!("Bearer {made_key}");
    let made_auth = ("authorization", made_bearer.as_str());
    let listed = ask(Method::GET, "/accounts", &[made_auth], None).await;
    listed.expect(200);
    errors.push(ask(Method::GET, "/api_keys", &[auth], None).await);
    errors.push(ask(Method::POST, "/api_keys", &[made_auth], None).await);
    errors.push(
        ask(
            Method::DELETE,
            &format!("/api_keys/{made_key}"),
            &[auth],
            None,
        )
        .await,
    );
    for mistaken in [
        json!({"scopes": [made_key]}),
        json!({"scopes": made_key}),
        json!({"scopes": ["iam:read"], "expires_at": made_key}),
    ] {
        errors.push(ask(Method::POST, "/api_keys", &[auth], Some(mistaken)).await);
    }
    let one = format!("/api_keys/{made_id}");
    let relabelled = json!({"label": "a former feed"});
    errors.push(ask(Method::PATCH, &one, &[auth], Some(relabelled)).await);
    errors.push(ask(Method::DELETE, &one, &[auth], None).await);
    errors.push(ask(Method::GET, "/accounts", &[made_auth], None).await);

    // Linked, and refused in every way.
    let linked = ask(Method::POST, "/accounts", &[auth], Some(body_with(token))).await;
    let account = linked.expect(201)["id"].as_str().unwrap().to_owned();
    let named = ("x-account-id", account.as_str());
    let mut misplaced = body_with(token);
    misplaced["credential"]["type"] = json!(token);
    let mut mistyped = body_with(token);
    mistyped["credential"] = json!(token);
    let mut unknown = body_with(token);
    unknown["credential"]["token"] = json!(token);
    let own = format!("/accounts/{account}");
    for body in [body_with(refused_token), misplaced, mistyped, unknown] {
        let change = json!({"credential": body["credential"], "secrets": {"token": token}});
        errors.push(ask(Method::PATCH, &own, &[auth], Some(change)).await);
        errors.push(ask(Method::POST, "/accounts", &[auth], Some(body)).await);
    }
    let change = json!({"credential": body_with(token)["credential"]});
    let replaced = ask(Method::PATCH, &own, &[auth], Some(change)).await;
    replaced.expect(200);
    for wrong in [format!("Bearer {wrong_key}"), format!("Basic {wrong_key}")] {
        let wrong = ("authorization", wrong.as_str());
        errors.push(ask(Method::GET, "/accounts", &[wrong], None).await);
    }

    // Read whole, so that the directory is in memory, in pages and in the store.
    let users = ask(
        Method::GET,
        "/iam/users?page_size=100",
        &[auth, named],
        None,
    )
    .await;
    let users = users.expect(200).to_string();
    for shown in [PERSON_EMAIL, MEMBER_EMAIL, owner_email] {
        assert!(
            users.contains(shown),
            "the canary {shown} is not in the cage"
        );
    }

    // Asked for by names and secrets, as people do by mistake.
    for path in [
        format!("/iam/users/{PERSON_EMAIL}"),
        format!("/iam/users?filter%5Bemail%5D={PERSON_EMAIL}"),
        format!("/accounts/{key}"),
        format!("/{key}"),
        format!("/iam/users?next={key}"),
        format!("/accounts/{account}/walks/{token}"),
        format!("/accounts?api_key={key}&x={PERSON_EMAIL}"),
    ] {
        errors.push(ask(Method::GET, &path, &[auth, named], None).await);
    }
    errors.push(
        ask(
            Method::GET,
            "/iam/users",
            &[auth, ("x-account-id", key)],
            None,
        )
        .await,
    );

    // And a provider that breaks in every way, and repeats what it was told.
    let echo = format!("{token} {PERSON_EMAIL} {PERSON_NAME}");
    let echoed = json!({"errorCode": 4000, "message": echo, "refId": echo}).to_string();
    let walks = format!("/accounts/{account}/walks?wait=60");
    for fault in [
        json!({"kind": "status", "status": 500, "error_code": 4000}),
        json!({"kind": "body", "status": 500, "content_type": "application/json", "body": echoed}),
        json!({"kind": "body", "status": 403, "content_type": "application/json", "body": echoed}),
        json!({"kind": "body", "status": 200, "content_type": "text/html", "body": echo}),
        json!({"kind": "body", "status": 200, "content_type": "application/json",
            "body": json!({"id": echo, "email": [echo], "account": echo}).to_string()}),
        json!({"kind": "truncate", "bytes": 300}),
        json!({"kind": "omit_field", "field": "email"}),
        json!({"kind": "unknown_enum", "field": "status"}),
        json!({"kind": "empty_page"}),
        json!({"kind": "repeat_page"}),
        json!({"kind": "reset"}),
        json!({"kind": "status", "status": 401, "error_code": 1002}),
    ] {
        let times = if fault["kind"] == "reset" {
            json!(2)
        } else {
            Value::Null
        };
        let mut rule = json!({"match": {}, "fault": fault});
        if !times.is_null() {
            rule["times"] = times;
        }
        world.faults(&json!([rule])).await;
        let walk = ask(Method::POST, &walks, &[auth], None).await;
        assert!([200, 412].contains(&walk.status.as_u16()), "{fault}");
        errors.push(walk);
        errors.push(ask(Method::POST, "/accounts", &[auth], Some(body_with(token))).await);
        world.no_faults().await;
        let shown = ask(
            Method::GET,
            &format!("/accounts/{account}/walks"),
            &[auth],
            None,
        )
        .await;
        shown.expect(200);
        errors.push(shown);
    }
    // What was told of all this holds ids and plain words.
    let audit = ask(Method::GET, "/audit?page_size=100", &[auth], None).await;
    let audited = audit.expect(200).to_string();
    for action in ["credential.used", "credential.replaced", "api_key.revoked"] {
        assert!(audited.contains(action), "{audited}");
    }
    let flags = [
        "audit", "list", "--limit", "1000", "--json", "--config", flag,
    ];
    let printed = run(&config, &flags);
    // What is counted of all this.
    let metrics = ask(Method::GET, "/metrics", &[], None).await;
    assert_eq!(metrics.status, 200);
    let counted = String::from_utf8(metrics.bytes).unwrap();
    for part in [
        "outcome=\"invalid_reply\"",
        "route=\"/iam/users/{record}\"",
        "state=\"failed\"",
        "rolecall_accounts{state=\"error\"}",
    ] {
        assert!(counted.contains(part), "{part} is not counted: {counted}");
    }
    let files_while_it_runs = files(&store);
    let names: Vec<_> = files_while_it_runs.iter().map(|(name, _)| name).collect();
    assert!(names.iter().any(|name| name.ends_with("-wal")), "{names:?}");
    let log = process.stop().await;

    // The cage was in order: the log is one of TRACE, and has a line of what was done.
    let text = String::from_utf8_lossy(&log);
    for part in [
        "TRACE",
        "API key made",
        "API key changed",
        "API key revoked",
        "account linked",
        "provider call",
        "walk failed",
    ] {
        assert!(text.contains(part), "the log has no {part}");
    }

    let mut found = Vec::new();
    let mut search = |canaries: &[Canary], place: &str, bytes: &[u8]| {
        let text = latin(bytes);
        found.extend(
            canaries
                .iter()
                .filter_map(|each| each.heard_in(place, &text)),
        );
    };
    for canaries in [&secrets[..], &people, &whispers] {
        search(canaries, "the log", &log);
        search(canaries, "the metrics", counted.as_bytes());
        for reply in errors.iter().filter(|reply| !reply.status.is_success()) {
            search(canaries, "an error", &reply.bytes);
            search(
                canaries,
                "an error's headers",
                format!("{:?}", reply.headers).as_bytes(),
            );
        }
    }
    for canaries in [&secrets[..], &people, &whispers] {
        search(canaries, "the audit log", audited.as_bytes());
        search(canaries, "the audit log as printed", printed.as_bytes());
    }
    for reply in errors.iter().filter(|reply| reply.status.is_success()) {
        search(&secrets, "an answer", &reply.bytes);
    }
    for (name, bytes) in files_while_it_runs.iter().chain(&files(&store)) {
        search(&secrets, name, bytes);
        search(&people, name, bytes);
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn a_canary_is_heard_in_every_form() {
    let canary = Canary::new("a test", "Zé-canary \"17\" secret");
    for sung in [
        "x Zé-canary \"17\" secret".as_bytes().to_vec(),
        serde_json::to_vec(&json!({"a": "Zé-canary \"17\" secret"})).unwrap(),
        b"a=Z%C3%A9-canary%20%2217%22%20secret&".to_vec(),
        BASE64_STANDARD_NO_PAD
            .encode("key:Zé-canary \"17\" secret:x")
            .into(),
        BASE64_URL_SAFE_NO_PAD
            .encode("12345Zé-canary \"17\" secret")
            .into(),
        b"5ac3a92d63616e6172792022313722207365637265740a".to_vec(),
    ] {
        assert!(
            canary.heard_in("the test", &latin(&sung)).is_some(),
            "{sung:?}"
        );
    }
    assert_eq!(canary.heard_in("the test", "Z-canary 17 secret"), None);
}
