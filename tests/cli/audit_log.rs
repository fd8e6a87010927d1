//! `rolecall audit`: listed and verified beside a running server, and what it says of a log that
//! was tampered with.

use serde_json::{Value, json};

use crate::{bench::Bench, office::Office};

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

#[tokio::test]
async fn what_the_command_line_and_a_server_did_is_listed_and_verified_while_it_runs() {
    let office = Office::new().await;
    let account = office.link().await;
    office.run(&["projects", "create", "beta"]).await.expect(0);
    let (running, base) = office.serve().await;
    let users = office.get(&base, &account, "/iam/users?page_size=1").await;
    assert_eq!(users["data"].as_array().unwrap().len(), 1);

    let key = office.run(&["keys", "list", "--project", "acme", "--json"]);
    let key = text(&key.await.expect(0).json()["keys"][0]["id"]).to_owned();
    let list = office.run(&["audit", "list", "--project", "acme", "--json"]);
    let list = list.await.expect(0).json();
    let entries = list["entries"].as_array().unwrap();
    let actions: Vec<_> = entries.iter().rev().map(|it| text(&it["action"])).collect();
    assert_eq!(
        actions,
        [
            "project.created",
            "api_key.created",
            "account.linked",
            "credential.used"
        ]
    );
    for (entry, sequence) in entries.iter().rev().zip(1..) {
        assert_eq!(entry["sequence"], sequence);
        assert_eq!(entry["project"], "acme");
        assert_eq!(entry["actor"], json!({"kind": "operator", "id": null}));
    }
    assert_eq!(entries[2]["subject"], json!({"kind": "api_key", "id": key}));
    let newest = office
        .run(&["audit", "list", "--limit", "1"])
        .await
        .expect(0);
    let lines: Vec<Vec<&str>> = newest
        .out
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        lines[0],
        [
            "PROJECT", "ENTRY", "TIME", "ACTOR", "ACTION", "SUBJECT", "DETAIL"
        ]
    );
    let subject = format!("account:{account}");
    assert_eq!(
        [
            lines[1][0],
            lines[1][1],
            lines[1][3],
            lines[1][4],
            lines[1][5]
        ],
        ["acme", "4", "operator", "credential.used", &subject]
    );
    assert!(lines[1][6].starts_with("walk="), "{newest:?}");
    assert_eq!(lines[2][..2], ["beta", "1"]);
    assert_eq!(lines.len(), 3);

    let whole = office.run(&["audit", "verify", "--json"]).await.expect(0);
    let whole = whole.json();
    let heads = whole["projects"].as_array().unwrap().iter();
    let heads: Vec<_> = heads.map(|it| text(&it["head"]).to_owned()).collect();
    assert!(heads[0].starts_with("4:") && heads[1].starts_with("1:"));
    let whole_one = |project: &str, entries: u64, head: &str| {
        json!({"project": project, "is_whole": true, "entries": entries, "head": head,
            "entry": null, "fault": null})
    };
    let all = json!([
        whole_one("acme", 4, &heads[0]),
        whole_one("beta", 1, &heads[1])
    ]);
    assert_eq!(whole, json!({"is_whole": true, "projects": all}));
    let one = office.run(&["audit", "verify", "--project", "beta"]);
    let one = one.await.expect(0);
    let lines: Vec<Vec<&str>> = one
        .out
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(lines[0], ["PROJECT", "ENTRIES", "STATE", "HEAD"]);
    assert_eq!(lines[1], ["beta", "1", "whole", &heads[1]]);
    assert!(running.terminate().await.0.success());
}

#[tokio::test]
async fn a_log_that_was_tampered_with_is_told_with_the_entry_and_why() {
    let office = Office::new().await;
    office.link().await;
    office.run(&["projects", "create", "beta"]).await.expect(0);
    office
        .tamper("update audit_log set actor = 'system' where project = 'acme' and seq = 3")
        .await;
    for arguments in [
        &["audit", "verify"][..],
        &["audit", "verify", "--project", "acme"],
    ] {
        let broken = office.run(arguments).await.expect(1);
        assert!(
            broken
                .out
                .contains("BROKEN at entry 3: it is not as it was written"),
            "{broken:?}"
        );
        broken.says(&["an audit log is not as it was written"]);
    }
    let broken = office.run(&["audit", "verify", "--json"]).await.expect(1);
    let json = broken.json();
    assert_eq!(json["is_whole"], false);
    assert_eq!(
        json["projects"][0],
        json!({"project": "acme", "is_whole": false, "entries": null, "head": null, "entry": 3,
            "fault": "changed"})
    );
    assert_eq!(json["projects"][1]["is_whole"], true);
    // The other project's is whole by itself.
    let beta = office.run(&["audit", "verify", "--project", "beta"]);
    beta.await.expect(0);

    office
        .tamper("delete from audit_log where project = 'beta'")
        .await;
    let beta = office.run(&["audit", "verify", "--project", "beta"]);
    let beta = beta.await.expect(1);
    assert!(beta.out.contains("BROKEN at entry 1"), "{beta:?}");

    // A data key that does not open says nothing about the others.
    office
        .tamper("update projects set sealed_data_key = x'00' where id = 'acme'")
        .await;
    let locked = office.run(&["audit", "verify", "--json"]).await.expect(1);
    let json = locked.json();
    assert_eq!(json["projects"][0]["fault"], "credential_locked");
    assert_eq!(json["projects"][1]["fault"], "cut_off");
}

#[tokio::test]
async fn nothing_is_made_where_there_is_nothing_and_no_project_is_guessed() {
    let bench = Bench::new();
    bench.furnish().await;
    let run = async |arguments: &[&str]| {
        let arguments = [arguments, &["--config", "rolecall.toml"]].concat();
        bench.run(&arguments).await
    };
    for command in ["verify", "list"] {
        let absent = run(&["audit", command]).await.expect(1);
        absent.says(&["nothing is at"]);
    }
    assert!(!bench.path("rolecall.db").exists());
    run(&["projects", "create", "acme"]).await.expect(0);
    for command in ["verify", "list"] {
        let unknown = run(&["audit", command, "--project", "gamma"]).await;
        unknown.expect(1).says(&["no project gamma"]);
        let malformed = run(&["audit", command, "--project", "A"]).await;
        malformed.expect(1).says(&["a project's id is"]);
    }
}

/// The tail of a log, cut off together with putting the head's row back, leaves a log that is whole by
/// itself.
#[tokio::test]
async fn an_earlier_head_shows_that_the_tail_was_cut_off() {
    let office = Office::new().await;
    office.link().await;
    let verify = async |since: Option<&str>| {
        let mut arguments = vec!["audit", "verify", "--project", "acme", "--json"];
        arguments.extend(since.into_iter().flat_map(|since| ["--since", since]));
        office.run(&arguments).await
    };
    let head_of = |json: &Value| text(&json["projects"][0]["head"]).to_owned();
    let early = head_of(&verify(None).await.expect(0).json());
    office
        .tamper("create table kept as select * from audit_heads")
        .await;
    let key = ["keys", "create", "--project", "acme", "--json"];
    office.run(&key).await.expect(0);
    let late = head_of(&verify(Some(&early)).await.expect(0).json());
    assert_ne!(early, late);
    verify(Some(&late)).await.expect(0);

    office
        .tamper(
            "delete from audit_log where project = 'acme' and seq >
                 (select seq from kept where project = 'acme');
             delete from audit_heads; insert into audit_heads select * from kept; drop table kept",
        )
        .await;
    // By itself it is whole, as it was then.
    assert_eq!(head_of(&verify(None).await.expect(0).json()), early);
    verify(Some(&early)).await.expect(0);
    let cut = verify(Some(&late)).await.expect(1);
    assert_eq!(cut.json()["projects"][0]["fault"], "not_on_chain");
    // Neither does it become that one by going on.
    office.run(&key).await.expect(0);
    let other = verify(Some(&late)).await.expect(1);
    assert_eq!(other.json()["projects"][0]["fault"], "not_on_chain");
    let words = office
        .run(&["audit", "verify", "--project", "acme", "--since", &late])
        .await
        .expect(1);
    assert!(words.out.contains("--since"), "{words:?}");
    for wrong in ["4", "4:", "4:zz", &late[1..late.len() - 1]] {
        verify(Some(wrong)).await.expect(2);
    }
    let all = office.run(&["audit", "verify", "--since", &early]).await;
    all.expect(2).says(&["--project"]);
}

/// A backup has the log, and it is whole there too.
#[tokio::test]
async fn a_backup_has_the_log() {
    let office = Office::new().await;
    office.link().await;
    office.run(&["backup", "copy.db"]).await.expect(0);
    let settings = std::fs::read_to_string(office.bench.path("rolecall.toml")).unwrap();
    let of_copy = format!("{settings}\n[store]\nurl = \"sqlite://copy.db\"\n");
    office.bench.write("copy.toml", &of_copy);
    let verify = ["audit", "verify", "--json", "--config", "copy.toml"];
    let whole = office.bench.run(&verify).await.expect(0).json();
    assert_eq!(whole["projects"][0]["entries"], 4);
}
