//! `rolecall accounts export`: everybody in a directory, whole, in constant memory.

use std::{collections::BTreeMap, process::Stdio};

use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{ConnectOptions, Connection, sqlite::SqliteConnectOptions};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

use crate::office::{CONFIG, Office};

async fn export(office: &Office, id: &str, more: &[&str]) -> crate::bench::Outcome {
    office
        .run(&[&["accounts", "export", id], more].concat())
        .await
}

/// The rows of a CSV by column.
fn rows(text: &str) -> Vec<BTreeMap<String, String>> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    reader.deserialize().map(Result::unwrap).collect()
}

#[tokio::test]
async fn a_line_is_the_record_that_the_api_serves() {
    let office = Office::of(250, 20).await;
    let id = office.link().await;
    let (_running, base) = office.serve().await;
    let mut served = Vec::new();
    let mut next = String::new();
    loop {
        let path = format!("/iam/users?page_size=100&expand=roles,groups{next}");
        let page = office.get(&base, &id, &path).await;
        served.extend(
            page["data"]
                .as_array()
                .unwrap()
                .iter()
                .map(Value::to_string),
        );
        match page["next"].as_str() {
            Some(cursor) => next = format!("&next={cursor}"),
            None => break,
        }
    }
    let exported = export(&office, &id, &["--format", "ndjson"])
        .await
        .expect(0);
    let lines: Vec<_> = exported
        .out
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap().to_string())
        .collect();
    assert!(lines.len() >= 250);
    assert_eq!(lines, served);
    exported.says(&["version 1", "sealed at", "s ago"]);
}

#[tokio::test]
async fn a_row_is_a_user_with_roles_groups_and_what_is_unknown() {
    let office = Office::new().await;
    let id = office.link().await;
    let csv = export(&office, &id, &["--format", "csv"])
        .await
        .expect(0)
        .out;
    let ndjson = export(&office, &id, &["--format", "ndjson"])
        .await
        .expect(0)
        .out;
    // RFC 4180: both ends of a line, on each of them.
    assert_eq!(csv.matches("\r\n").count(), csv.matches('\n').count());
    let rows = rows(&csv);
    assert_eq!(rows.len(), ndjson.lines().count());
    let mut in_groups = 0;
    for (row, line) in rows.iter().zip(ndjson.lines()) {
        let user: Value = serde_json::from_str(line).unwrap();
        let names = |field: &str, key: &str| {
            let entries = user[field].as_array();
            let names: Vec<_> = entries.into_iter().flatten().map(|it| &it[key]).collect();
            json!(names).to_string()
        };
        assert_eq!(row["id"], user["id"].as_str().unwrap());
        let text = |field: &str| user[field].as_str().unwrap_or_default();
        for field in [
            "name",
            "primary_email_address",
            "last_login_at",
            "updated_at",
        ] {
            assert_eq!(row[field], text(field), "{field}");
        }
        assert_eq!(
            row["status"],
            user["status"]["value"].as_str().unwrap_or_default()
        );
        assert_eq!(row["roles"], names("roles", "remote_id"));
        assert_eq!(row["groups"], names("groups", "name"));
        assert_eq!(row["group_ids"], names("groups", "id"));
        assert_eq!(row["warnings"], user["warnings"].to_string());
        assert_eq!(row["listed"], user["listed"].to_string());
        in_groups += usize::from(row["groups"] != "[]");
    }
    assert!(in_groups > 0);
}

#[tokio::test]
async fn null_is_an_empty_cell_and_nothing_is_an_empty_list() {
    let office = Office::new().await;
    let token = office.simulator.announcement().tokens.member.clone();
    office
        .control(
            Method::POST,
            "/switches",
            &json!({ "non_admin_reads_groups": false }),
        )
        .await;
    let linked = office.link_with(token.as_bytes(), &["--json"]).await;
    let id = linked.expect(0).json()["id"].as_str().unwrap().to_owned();
    let rows = rows(
        &export(&office, &id, &["--format", "csv"])
            .await
            .expect(0)
            .out,
    );
    assert!(!rows.is_empty());
    for row in rows {
        for field in ["roles", "groups", "group_ids", "status"] {
            assert_eq!(row[field], "", "{field}: {row:?}");
        }
        assert!(row["warnings"].contains(r#"{"field":"groups","reason":"not_permitted"}"#));
    }
}

#[tokio::test]
async fn a_name_that_is_a_formula_is_shown_and_not_run() {
    let office = Office::new().await;
    let names = [
        "=1+1",
        "+1",
        "-1",
        "@SUM(A1)",
        "'quoted",
        "plain, \"and\" quoted",
    ];
    for (at, name) in names.iter().enumerate() {
        office
            .add_user(&format!("new.{at}@example.org"), name)
            .await;
    }
    let group = json!([{ "op": "add_group", "name": "=cmd|' /C calc'!A0" }]);
    let made = office.control(Method::POST, "/mutate", &group).await;
    assert!(made.to_string().contains("true"), "{made}");
    let id = office.link().await;
    let csv = export(&office, &id, &["--format", "csv"])
        .await
        .expect(0)
        .out;
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    for record in reader.records() {
        for cell in &record.unwrap() {
            assert!(
                !cell.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']),
                "{cell}"
            );
        }
    }
    for (at, name) in names.iter().enumerate() {
        let email = format!("new.{at}@example.org");
        let rows = rows(&csv);
        let row = rows
            .iter()
            .find(|row| row["primary_email_address"] == email)
            .unwrap();
        let cell = &row["first_name"];
        // Whoever reads it by machine takes the first apostrophe off.
        assert_eq!(cell.strip_prefix('\'').unwrap_or(cell), *name);
    }
}

#[tokio::test]
async fn a_file_is_whole_or_not_there() {
    let office = Office::new().await;
    let id = office.link().await;
    let format = ["--format", "ndjson"];
    let to = |file: &'static str| [&format[..], &["--output", file]].concat();
    let done = export(&office, &id, &to("users.ndjson")).await.expect(0);
    assert!(done.out.is_empty());
    let piped = export(&office, &id, &format).await.expect(0).out;
    let written = std::fs::read_to_string(office.bench.path("users.ndjson")).unwrap();
    assert_eq!(written, piped);
    assert_eq!(office.bench.mode("users.ndjson"), 0o600);

    // It takes the place of the one before, and of nothing that is no file.
    office.bench.write("users.ndjson", "old");
    export(&office, &id, &to("users.ndjson")).await.expect(0);
    let again = std::fs::read_to_string(office.bench.path("users.ndjson")).unwrap();
    assert_eq!(again, piped);
    for (file, words) in [
        ("missing/users.ndjson", "missing"),
        ("/", "folder"),
        (".", "folder"),
    ] {
        export(&office, &id, &to(file))
            .await
            .expect(1)
            .says(&["cannot be written", words]);
    }

    let before: Vec<_> = office.bench.files().into_keys().collect();
    let unknown = "01998ad6-3f35-7c58-9d37-9d27a1b1b8f0";
    export(&office, unknown, &to("other.ndjson"))
        .await
        .expect(1);
    let after: Vec<_> = office.bench.files().into_keys().collect();
    assert_eq!(after, before, "something half done was left");
}

#[tokio::test]
async fn a_reader_that_goes_away_is_a_quiet_end() {
    let office = Office::of(1000, 20).await;
    let id = office.link().await;
    for format in ["csv", "ndjson"] {
        let arguments = [
            &["accounts", "export", &id, "--format", format][..],
            &CONFIG,
        ]
        .concat();
        let mut child = office
            .bench
            .command(&arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut first = String::new();
        out.read_line(&mut first).await.unwrap();
        assert!(!first.is_empty());
        drop(out);
        let mut said = String::new();
        child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut said)
            .await
            .unwrap();
        assert_eq!(child.wait().await.unwrap().code(), Some(0), "{said}");
        // What it says in any case, and no word about the pipe.
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

#[tokio::test]
async fn a_stale_directory_says_so_and_not_in_the_data() {
    let office = Office::new().await;
    let id = office.link().await;
    let revoke = json!([{ "op": "revoke_token", "token": "system_admin" }]);
    office.control(Method::POST, "/mutate", &revoke).await;
    office.run(&["accounts", "walk", &id]).await.expect(1);
    let exported = export(&office, &id, &["--format", "csv"]).await.expect(0);
    assert!(!exported.out.contains("reauth_required"));
    exported.says(&["stale: reauth_required"]);
}

#[tokio::test]
async fn what_the_api_no_longer_serves_is_not_exported_but_can_be_looked_at() {
    let office = Office::new().await;
    let id = office.link().await;
    let revoke = json!([{ "op": "revoke_token", "token": "system_admin" }]);
    office.control(Method::POST, "/mutate", &revoke).await;
    office.run(&["accounts", "walk", &id]).await.expect(1);
    // Longer ago than `directory.retain_days`.
    let path = office.bench.path("rolecall.db");
    let options = SqliteConnectOptions::new().filename(path);
    let mut raw = options.connect().await.unwrap();
    let longest_ago = sqlx::query("update directories set verified_at = 1");
    longest_ago.execute(&mut raw).await.unwrap();
    raw.close().await.unwrap();

    let exported = export(&office, &id, &["--format", "csv"]).await.expect(1);
    assert!(exported.out.is_empty());
    exported.says(&["does not take this account's credential", "PATCH"]);
    let shown = office.run(&["accounts", "show", &id, "--json"]).await;
    let shown = shown.expect(0).json();
    assert_eq!(shown["directory"]["stale"], "reauth_required");
    let (_running, base) = office.serve().await;
    let read = office.get(&base, &id, "/iam/users").await;
    assert_eq!(read["code"], "account_inactive", "{read}");
}

#[tokio::test]
async fn an_account_without_a_directory_says_how_to_get_one() {
    let office = Office::new().await;
    // The first three calls are the trial; from then on the walk fails.
    let fault = json!([{
        "match": { "path_prefix": "/groups" },
        "fault": { "kind": "status", "status": 500, "error_code": 4000 },
    }]);
    office.control(Method::POST, "/faults", &fault).await;
    let linked = office
        .link_with(office.admin_token().as_bytes(), &["--json"])
        .await;
    let linked = linked.expect(0);
    let id = linked.json()["id"].as_str().unwrap().to_owned();
    linked.says(&["rolecall accounts walk"]);
    let exported = export(&office, &id, &["--format", "csv"]).await.expect(1);
    assert!(exported.out.is_empty());
    exported.says(&["no directory yet", "rolecall accounts walk"]);
}
