//! `rolecall serve`, and `projects create` and `keys create` before and beside it.

use rolecall::crypto::{KeyRing, Rng};
use serde_json::{Value, json};

use crate::{
    bench::{Bench, Running, client},
    office::Office,
    schema::Schema,
};

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
        let stranger = KeyRing::generate(id, &Rng::system()).unwrap();
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

/// Runs `rolecall serve`, which must end by itself, with these variables: its exit code and what it said.
async fn serve_with(bench: &Bench, variables: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = bench.command(&[&["serve"][..], &CONFIG].concat());
    let output = command
        .envs(variables.iter().copied())
        .output()
        .await
        .unwrap();
    (
        output.status.code(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

#[tokio::test]
async fn settings_that_would_silence_the_log_or_name_another_store_are_refused() {
    let bench = Bench::new();
    bench.furnish().await;
    let before = bench.files();
    for (name, value, said) in [
        ("ROLECALL_LOG__LEVEL", "warning", "log.level must be"),
        ("ROLECALL_LOG__FORMAT", "xml", "log.format"),
        (
            "ROLECALL_STORE__URL",
            "mysql://u:canary@h/d",
            "store.url must be",
        ),
        (
            "ROLECALL_STORE__URL",
            "postgres://u:canary@h/d?pool_mode=none",
            "pool_mode",
        ),
    ] {
        let (code, err) = serve_with(&bench, &[(name, value)]).await;
        assert_eq!(code, Some(78), "{name}={value}: {err}");
        assert!(err.contains(said), "{name}={value}: {err}");
        assert!(!err.contains("canary"), "{err}");
    }
    let faults = [
        ("ROLECALL_LOG__LEVEL", "warning"),
        ("ROLECALL_LOG__FORMAT", "xml"),
        ("ROLECALL_SERVER__WORKERS", "many"),
        ("ROLECALL_SERVER__LISTN", "x"),
    ];
    let (code, err) = serve_with(&bench, &faults).await;
    assert_eq!(code, Some(78));
    for said in [
        "4 faults",
        "log.level",
        "log.format",
        "server.workers",
        "server.listn",
    ] {
        assert!(err.contains(said), "{said}: {err}");
    }
    assert!(bench.files() == before, "a byte was changed");
}

#[tokio::test]
async fn variables_of_a_kubernetes_service_of_its_name_do_not_matter() {
    let bench = Bench::new();
    bench.furnish().await;
    let mut command = bench.command(&[&["projects", "list"][..], &CONFIG].concat());
    command.envs([
        ("ROLECALL_PORT", "tcp://10.0.0.1:8080"),
        ("ROLECALL_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
        ("ROLECALL_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ("ROLECALL_PORT_8080_TCP_PORT", "8080"),
        ("ROLECALL_PORT_8080_TCP_PROTO", "tcp"),
        ("ROLECALL_SERVICE_HOST", "10.0.0.1"),
        ("ROLECALL_SERVICE_PORT", "8080"),
        ("ROLECALL_SERVICE_PORT_HTTP", "8080"),
    ]);
    let output = command.output().await.unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(!err.contains("is not a setting"), "{err}");
    assert_ne!(output.status.code(), Some(78), "{err}");
}

#[tokio::test]
async fn a_settings_file_may_be_named_once_in_the_environment() {
    let bench = Bench::new();
    bench.furnish().await;
    for (file, code, said) in [
        ("rolecall.toml", 0, ""),
        ("absent.toml", 78, "there is no file absent.toml"),
    ] {
        let mut command = bench.command(&["check"]);
        command.env("ROLECALL_CONFIG", file);
        let output = command.output().await.unwrap();
        let out = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(code), "{out}");
        assert!(out.contains(file) && out.contains(said), "{out}");
    }
    // What is said on the command line goes before.
    let mut command = bench.command(&[&["check"][..], &CONFIG].concat());
    let output = command.env("ROLECALL_CONFIG", "absent.toml").output().await;
    assert_eq!(output.unwrap().status.code(), Some(0));
    // Whoever forgets it is not led to make a second ring.
    std::fs::rename(bench.path("rolecall.keys"), bench.path("other.keys")).unwrap();
    let refused = bench.run(&["serve"]).await.expect(78);
    assert!(refused.err.contains("ROLECALL_CONFIG"), "{refused:?}");
}

#[tokio::test]
async fn metrics_may_be_served_apart_from_everything_else() {
    let bench = Bench::new();
    bench.furnish().await;
    let mut command = bench.command(&[&["serve"][..], &CONFIG].concat());
    command.env("ROLECALL_SERVER__METRICS_LISTEN", "127.0.0.1:0");
    let mut running = Running::of(command.spawn().unwrap());
    let apart = running.err_line_with("metrics served apart").await;
    let apart: Value = serde_json::from_str(&apart).unwrap();
    let line = running.err_line_with("listening").await;
    let line: Value = serde_json::from_str(&line).unwrap();
    let get = async |port: &Value, path: &str| {
        let url = format!("http://127.0.0.1:{port}{path}");
        let reply = client().get(url).send().await.unwrap();
        (reply.status().as_u16(), reply.text().await.unwrap())
    };
    let (api, apart) = (&line["port"], &apart["port"]);
    assert_eq!(get(api, "/metrics").await.0, 404);
    assert_eq!(get(api, "/health/live").await.0, 200);
    let (status, page) = get(apart, "/metrics").await;
    assert_eq!(status, 200);
    assert!(
        page.contains("# TYPE rolecall_http_requests_total"),
        "{page}"
    );
    for path in ["/accounts", "/health/live", "/openapi.json", "/"] {
        let (status, body) = get(apart, path).await;
        assert_eq!(status, 404, "{path}");
        assert!(
            body.contains("\"code\":\"route_not_found\""),
            "{path}: {body}"
        );
    }
    running.terminate().await;
}

#[tokio::test]
async fn a_public_address_without_a_public_url_is_warned_of_and_links_nobody() {
    let bench = Bench::new();
    bench.furnish().await;
    let key_made = key(&bench, "acme").await;
    let variables = [("ROLECALL_SERVER__LISTEN", "0.0.0.0:0")];
    let mut command = bench.command(&[&["check"][..], &CONFIG].concat());
    let output = command.envs(variables).output().await.unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{out}");
    assert!(
        out.contains("WARNING") && out.contains("server.public_url"),
        "{out}"
    );

    for public_url in ["", "https://rolecall.example.com"] {
        let mut command = bench.command(&[&["serve"][..], &CONFIG].concat());
        command.envs(variables);
        if !public_url.is_empty() {
            command.env("ROLECALL_SERVER__PUBLIC_URL", public_url);
        }
        let mut running = Running::of(command.spawn().unwrap());
        if public_url.is_empty() {
            running.err_line_with("server.public_url is empty").await;
        }
        let line = running.err_line_with("listening").await;
        let line: Value = serde_json::from_str(&line).unwrap();
        let reply = client()
            .post(format!(
                "http://127.0.0.1:{}/connect_sessions",
                line["port"]
            ))
            .bearer_auth(&key_made)
            .json(&json!({"origin_owner_id": "c", "origin_owner_name": "C"}))
            .send()
            .await
            .unwrap();
        let status = reply.status().as_u16();
        let body: Value = reply.json().await.unwrap();
        if public_url.is_empty() {
            assert_eq!((status, &body["code"]), (409, &json!("public_url_missing")));
        } else {
            assert_eq!(status, 201, "{body}");
            let link = body["auth_link_url"].as_str().unwrap();
            assert!(link.starts_with(public_url), "{link}");
        }
        running.terminate().await;
    }
}

#[tokio::test]
async fn the_limit_of_open_files_is_raised_and_connections_stay_below_it() {
    let bench = Bench::new();
    bench.furnish().await;
    for (limits, files, is_few) in [
        ("ulimit -Sn 700 && ulimit -Hn 2000", 2000, true),
        ("ulimit -Sn 1024 && ulimit -Hn 8192", 8192, false),
    ] {
        let script = format!("{limits} && exec \"$0\" serve --config rolecall.toml");
        let mut command = tokio::process::Command::new("sh");
        command
            .args(["-c", &script, env!("CARGO_BIN_EXE_rolecall")])
            .current_dir(bench.path("."))
            .env_clear()
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .kill_on_drop(true);
        let mut running = Running::of(command.spawn().unwrap());
        if is_few {
            running.err_line_with("few open files allowed").await;
        }
        let line = running.err_line_with("connections limited").await;
        let line: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["max_connections"], files - 512);
        running.err_line_with("listening").await;
        running.terminate().await;
    }
}

/// With PostgreSQL, where the working directory says nothing of which process this is.
#[tokio::test]
async fn a_journal_that_cannot_be_relied_on_is_refused_unless_it_is_told_otherwise() {
    let Some(schema) = Schema::new().await else {
        return;
    };
    let office = Office::at(&schema.url()).await;
    let bench = &office.bench;
    let serve = |variables: &[(&str, &str)]| {
        let mut command = bench.command(&[&["serve"][..], &CONFIG].concat());
        command.envs(variables.iter().copied());
        command
    };
    let relative = ("ROLECALL_STORE__JOURNAL", "journal");
    let refused = serve(&[relative]).output().await.unwrap();
    let err = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(78), "{err}");
    assert!(err.contains("no absolute path"), "{err}");
    assert!(err.contains("store.journal_required"), "{err}");
    let mut check = bench.command(&[&["check"][..], &CONFIG].concat());
    let checked = check.env(relative.0, relative.1).output().await.unwrap();
    let out = String::from_utf8(checked.stdout).unwrap();
    assert_eq!(checked.status.code(), Some(1), "{out}");
    assert!(out.contains("no absolute path"), "{out}");

    // One folder for two processes, and one that cannot be made.
    let (first, _) = office.serve().await;
    bench.write("a file", "");
    let below_a_file = bench.path("a file").join("journal");
    let below_a_file = ("ROLECALL_STORE__JOURNAL", below_a_file.to_str().unwrap());
    for (variables, said) in [
        (&[][..], "another process that serves"),
        (&[below_a_file], "cannot be written"),
    ] {
        let refused = serve(variables).output().await.unwrap();
        let err = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(78), "{err}");
        assert!(err.contains(said), "{err}");
        let told = [variables, &[("ROLECALL_STORE__JOURNAL_REQUIRED", "false")]].concat();
        let mut running = Running::of(serve(&told).spawn().unwrap());
        running.err_line_with("listening").await;
        running.terminate().await;
    }
    first.terminate().await;
}

#[tokio::test]
async fn a_line_names_key_and_account_probes_are_quiet_and_floods_are_one_line() {
    let office = Office::new().await;
    let account = office.link().await;
    let bench = &office.bench;
    let mut command = bench.command(&[&["serve"][..], &CONFIG].concat());
    command.env("ROLECALL_SERVER__REQUESTS_PER_MINUTE_PER_KEY", "5");
    let mut running = Running::of(command.spawn().unwrap());
    let line = running.err_line_with("listening").await;
    let line: Value = serde_json::from_str(&line).unwrap();
    let base = format!("http://127.0.0.1:{}", line["port"]);
    let get = async |path: &str| {
        let request = client()
            .get(format!("{base}{path}"))
            .bearer_auth(&office.key);
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(get(&format!("/accounts/{account}")).await, 200);
    for path in ["/health/live", "/health/ready", "/metrics"] {
        assert_eq!(get(path).await, 200);
    }
    let mut refused = 0;
    for _ in 0..60 {
        refused += usize::from(get("/accounts").await == 429);
    }
    assert!(refused > 40, "{refused}");
    running.ask_to_end();
    let (_, _, err) = running.end().await;
    let lines: Vec<Value> = err
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let requests = |route: &str, status: u16| {
        let of_route = lines.iter().filter(|line| line["message"] == "request");
        of_route
            .filter(|line| line["route"] == route && line["status"] == status)
            .collect::<Vec<_>>()
    };
    let key = office.key.split('_').nth(1).unwrap();
    let read = requests("/accounts/{id}", 200);
    assert_eq!(read.len(), 1, "{err}");
    assert_eq!(read[0]["account"], account.as_str());
    let named = read[0]["key"].as_str().unwrap();
    assert!(
        !named.is_empty() && !err.contains(&office.key),
        "{named} {key}"
    );
    for path in ["/health/live", "/health/ready", "/metrics"] {
        assert_eq!(requests(path, 200).len(), 0, "{path}");
    }
    let floods = requests("/accounts", 429);
    assert!((1..=10).contains(&floods.len()), "{}", floods.len());
    assert_eq!(floods[0]["key"], named);
}

#[tokio::test]
async fn emptied_known_answers_stop_every_command_and_change_nothing() {
    let office = Office::new().await;
    office.tamper("delete from key_checks").await;
    let before = office.bench.files();
    for arguments in [
        &["serve"][..],
        &["projects", "create", "beta"],
        &["keys", "list", "--project", "acme"],
        &["audit", "verify"],
        &["backup", "copy.db"],
    ] {
        let refused = office.run(arguments).await.expect(78);
        refused.says(&["key_checks", "Nothing was changed"]);
    }
    assert!(office.bench.files() == before);
}
