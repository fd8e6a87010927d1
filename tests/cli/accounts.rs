//! `rolecall accounts`: the operator's hand on linked accounts.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{bench::timestamps, office::Office, schema::Schema};

/// Ids that nobody has.
const ABSURD: [&str; 6] = [
    "",
    "-",
    "../../etc",
    "01998AD6-3F35-7C58-9D37-9D27A1B1B8F0",
    "01998ad6-3f35-7c58-9d37-9d27a1b1b8f0",
    "💣",
];

#[tokio::test]
async fn every_time_that_is_printed_has_three_digits_of_a_fraction() {
    let office = Office::new().await;
    let id = office.link().await;
    let key = [
        "keys",
        "create",
        "--project",
        "acme",
        "--expires-in",
        "9d",
        "--json",
    ];
    let key = office.run(&key).await.expect(0).json();
    let key = key["id"].as_str().unwrap();
    for (arguments, count) in [
        (&["accounts", "list"][..], 1),
        (&["accounts", "list", "--json"], 4),
        (&["accounts", "show", &id], 4),
        (&["accounts", "show", &id, "--json"], 6),
        (&["accounts", "export", &id, "--format", "csv"], 80),
        (&["accounts", "export", &id, "--format", "ndjson"], 80),
        (&["keys", "list", "--project", "acme"], 3),
        (&["keys", "list", "--project", "acme", "--json"], 3),
        (&["keys", "expire", key, "--in", "1d"], 1),
        (&["audit", "list"], 5),
        (&["audit", "list", "--json"], 5),
    ] {
        // `expect` looks at each of them.
        let out = office.run(arguments).await.expect(0).out;
        let found = timestamps(&out).count();
        assert!(found >= count, "{arguments:?}: {found}: {out}");
    }
}

#[tokio::test]
async fn an_account_is_linked_walked_shown_and_removed() {
    let office = Office::new().await;
    let id = office.link().await;

    let listed = office.run(&["accounts", "list", "--json"]).await.expect(0);
    let listed = listed.json();
    let account = &listed["accounts"][0];
    assert_eq!(account["id"], id.as_str());
    assert_eq!(account["project"], "acme");
    assert_eq!(account["status"], "active");
    assert_eq!(account["directory"]["version"], "1");

    let shown = office.run(&["accounts", "show", &id, "--json"]).await;
    let shown = shown.expect(0).json();
    assert_eq!(shown["origin_owner_id"], "customer-1");
    assert_eq!(shown["is_admin"], true);
    let users = shown["directory"]["counts"]["users"].as_u64().unwrap();
    assert!(users >= 40, "{shown}");
    assert_eq!(shown["directory"]["stale"], json!(null));
    assert_eq!(shown["last_walk"]["state"], "sealed");
    assert_eq!(shown["unavailable_fields"], json!([]));

    office.add_user("new.hire@example.org", "New").await;
    let walked = office
        .run(&["accounts", "walk", &id, "--full", "--json"])
        .await;
    let walked = walked.expect(0).json();
    assert_eq!(walked["state"], "sealed");
    assert_eq!(walked["directory_version"], "2");
    assert_eq!(walked["counts"]["users"], users + 1);

    // For people, the same in words.
    let list = office.run(&["accounts", "list"]).await.expect(0).out;
    assert!(
        list.contains(&id) && list.contains("Customer One"),
        "{list}"
    );
    let show = office.run(&["accounts", "show", &id]).await.expect(0).out;
    assert!(show.contains("version 2"), "{show}");

    let asked = office.run(&["accounts", "remove", &id]).await.expect(1);
    asked.says(&["nothing was removed", "--yes", "customer-1"]);
    let removed = office
        .run(&["accounts", "remove", &id, "--yes", "--json"])
        .await;
    assert_eq!(removed.expect(0).json()["id"], id.as_str());
    let gone = office.run(&["accounts", "show", &id]).await.expect(1);
    gone.says(&["no such account", "rolecall accounts list"]);
}

#[tokio::test]
async fn a_token_that_was_taken_is_in_no_output_and_in_no_file() {
    let office = Office::new().await;
    let token = office.admin_token().as_bytes();
    let linked = office.link_with(token, &[]).await.expect(0);
    let files = office.bench.files().into_values();
    let said = [linked.out.into_bytes(), linked.err.into_bytes()];
    for bytes in files.chain(said) {
        assert!(!bytes.windows(token.len()).any(|window| window == token));
    }
}

#[tokio::test]
async fn where_processes_share_the_store_all_of_it_works_beside_a_server() {
    let Some(schema) = Schema::new().await else {
        return;
    };
    let office = Office::at(&schema.url()).await;
    let checked = office.run(&["check"]).await.expect(0).out;
    assert!(checked.contains("opens with these keys"), "{checked}");
    let (running, base) = office.serve().await;
    let id = office.link().await;
    let users = office.get(&base, &id, "/iam/users").await;
    assert!(users["total"].as_u64().unwrap() >= 40, "{users}");

    office.add_user("new.hire@example.org", "New").await;
    let walked = office.run(&["accounts", "walk", &id, "--json"]).await;
    let walked = walked.expect(0).json();
    assert_eq!(walked["state"], "sealed");
    let exported = office
        .run(&["accounts", "export", &id, "--format", "ndjson"])
        .await;
    assert!(exported.expect(0).out.contains("new.hire@example.org"));
    let removed = office.run(&["accounts", "remove", &id, "--yes"]).await;
    removed.expect(0);
    let listed = office.run(&["accounts", "list", "--json"]).await.expect(0);
    assert_eq!(listed.json(), json!({ "accounts": [] }));
    running.terminate().await;
}

#[tokio::test]
async fn the_account_that_was_linked_is_the_server_s_to_serve() {
    let office = Office::new().await;
    let id = office.link().await;
    let (_running, base) = office.serve().await;
    let served = office.get(&base, &id, &format!("/accounts/{id}")).await;
    let shown = office.run(&["accounts", "show", &id, "--json"]).await;
    let shown = shown.expect(0).json();
    // What the API says of it is what the command says of it.
    for (key, value) in served.as_object().unwrap() {
        assert_eq!(&shown[key], value, "{key}");
    }
    let users = office.get(&base, &id, "/iam/users").await;
    assert_eq!(users["total"], shown["directory"]["counts"]["users"]);
}

#[tokio::test]
async fn beside_a_server_reads_work_and_the_rest_names_the_call_to_make() {
    let office = Office::new().await;
    let id = office.link().await;
    let (running, base) = office.serve().await;
    let token = office.admin_token().to_owned();

    office.run(&["accounts", "list"]).await.expect(0);
    office.run(&["accounts", "show", &id]).await.expect(0);
    let linked = office.link_with(token.as_bytes(), &[]).await.expect(1);
    assert!(linked.out.is_empty());
    linked.says(&["another process serves", "POST /accounts"]);
    let walked = office.run(&["accounts", "walk", &id]).await.expect(1);
    walked.says(&[
        "another process serves",
        &format!("POST /accounts/{id}/walks"),
    ]);
    let removed = office
        .run(&["accounts", "remove", &id, "--yes"])
        .await
        .expect(1);
    removed.says(&["another process serves", &format!("DELETE /accounts/{id}")]);

    // Nothing of it reached what the server relies on.
    let accounts = office.get(&base, &id, "/accounts").await;
    assert_eq!(accounts.as_array().unwrap().len(), 1);
    running.terminate().await;
    office.run(&["accounts", "walk", &id]).await.expect(0);
}

#[tokio::test]
async fn a_member_s_account_says_what_is_missing_and_why() {
    let office = Office::new().await;
    let token = office.simulator.announcement().tokens.member.clone();
    let linked = office.link_with(token.as_bytes(), &["--json"]).await;
    let id = linked.expect(0).json()["id"].as_str().unwrap().to_owned();
    let shown = office.run(&["accounts", "show", &id]).await.expect(0).out;
    for words in [
        "status: the token may not see it",
        "roles: the token may not see it",
    ] {
        assert!(shown.contains(words), "{shown}");
    }
}

#[tokio::test]
async fn a_token_that_the_provider_refuses_links_nothing_and_is_never_shown() {
    let office = Office::new().await;
    let tokens = office.simulator.announcement().tokens.clone();
    for (token, words) in [
        (tokens.revoked.as_str(), "does not take this token"),
        (&tokens.no_read_users, "may not read users"),
        ("canary-token-of-nobody", "does not take this token"),
    ] {
        let outcome = office.link_with(token.as_bytes(), &[]).await.expect(1);
        assert!(
            !outcome.err.contains(token) && outcome.out.is_empty(),
            "{outcome:?}"
        );
        outcome.says(&[words]);
    }
    let listed = office.run(&["accounts", "list", "--json"]).await.expect(0);
    assert_eq!(listed.json(), json!({ "accounts": [] }));
}

#[tokio::test]
async fn what_is_no_token_asks_nobody() {
    let office = Office::new().await;
    let long = "x".repeat(5000);
    for (input, words) in [
        (&b""[..], "no token on standard input"),
        (b"\n", "no token on standard input"),
        (b"\0\xff\xfe\x80 garbage", "visible ASCII"),
        (b"two words", "visible ASCII"),
        (b"first\nsecond\n", "visible ASCII"),
        (long.as_bytes(), "4096"),
    ] {
        let outcome = office.link_with(input, &[]).await.expect(1);
        assert!(!outcome.err.contains("garbage") && !outcome.err.contains("second"));
        outcome.says(&[words]);
    }
    let log = office.control(Method::GET, "/log", &json!(null)).await;
    assert!(!log.to_string().contains("/2.0/"), "{log}");
}

#[tokio::test]
async fn a_link_that_is_wrong_says_what_is_wrong_with_it() {
    let office = Office::new().await;
    let token = office.admin_token().as_bytes();
    let other = office.link_with(token, &["--project", "other"]).await;
    other.expect(2);
    let base = office.simulator.announcement().api_base.clone();
    let link = |project: &'static str, name: &'static str, place: [String; 2]| {
        let mut arguments = vec!["accounts", "link", "--token-stdin", "--project", project];
        arguments.extend(["--owner-id", "c", "--owner-name", name]);
        arguments.extend(crate::office::CONFIG);
        let arguments: Vec<_> = arguments.into_iter().map(str::to_owned).collect();
        [arguments, place.to_vec()].concat()
    };
    let at = |url: &str| ["--base-url".to_owned(), url.to_owned()];
    for (arguments, words) in [
        (
            link("other", "C", at(&base)),
            "rolecall projects create other",
        ),
        (link("Acme!", "C", at(&base)), "a-z"),
        (link("acme", " ", at(&base)), "--owner-name"),
        (
            link("acme", "C", at("http://192.0.2.1/2.0")),
            "provider.base_urls",
        ),
        (
            link("acme", "C", ["--provider".to_owned(), "x".to_owned()]),
            "--base-url",
        ),
    ] {
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let outcome = office.bench.run_with(&arguments, token).await;
        assert!(matches!(outcome.code, Some(1 | 2)), "{outcome:?}");
        outcome.says(&[words]);
    }
}

#[tokio::test]
async fn absurd_ids_are_accounts_that_are_not_there() {
    let office = Office::new().await;
    for id in ABSURD {
        for command in [
            &["accounts", "show"][..],
            &["accounts", "walk"],
            &["accounts", "remove", "--yes"],
            &["accounts", "export", "--format", "csv"],
        ] {
            // What comes after `--` is no option.
            let arguments = [command, &crate::office::CONFIG, &["--", id]].concat();
            let outcome = office.bench.run(&arguments).await.expect(1);
            outcome.says(&["no such account"]);
        }
    }
    let unknown = office
        .run(&["accounts", "list", "--project", "other"])
        .await;
    unknown.expect(1).says(&["no project other"]);
}

#[tokio::test]
async fn where_no_installation_is_none_is_made() {
    let bench = crate::bench::Bench::new();
    bench.furnish().await;
    let before = bench.files();
    for command in [&["accounts", "list"][..], &["accounts", "show", "x"]] {
        let outcome = bench.run(&[command, &crate::office::CONFIG].concat()).await;
        outcome.expect(1).says(&["nothing is at", "rolecall.db"]);
    }
    assert_eq!(bench.files(), before);
}

#[tokio::test]
async fn a_walk_that_does_not_seal_exits_with_1_and_says_why() {
    let office = Office::new().await;
    let id = office.link().await;
    let revoke = json!([{ "op": "revoke_token", "token": "system_admin" }]);
    office.control(Method::POST, "/mutate", &revoke).await;
    let walked = office
        .run(&["accounts", "walk", &id, "--json"])
        .await
        .expect(1);
    assert_eq!(walked.json()["state"], "failed");
    assert_eq!(walked.json()["reason"], "credential_refused");
    walked.says(&["still is"]);
    let shown = office.run(&["accounts", "show", &id, "--json"]).await;
    let shown = shown.expect(0).json();
    assert_eq!(shown["status"], "error");
    assert_eq!(shown["credential"]["state"], "reauth_required");
    assert_eq!(shown["directory"]["stale"], "reauth_required");
    let shown = office.run(&["accounts", "show", &id]).await.expect(0);
    let credential = shown.out.lines().find(|line| line.contains("credential"));
    assert!(credential.unwrap().contains("reauth_required"));
}

#[tokio::test]
async fn rows_without_an_id_are_told_by_their_place_and_not_by_what_they_hold() {
    let office = Office::new().await;
    let id = office.link().await;
    let fault = json!({"kind": "omit_field", "field": "id"});
    let users = json!({"path_prefix": "/users", "page": 1});
    let faults = json!([{"match": users, "fault": fault}]);
    office.control(Method::POST, "/faults", &faults).await;
    let walked = office
        .run(&["accounts", "walk", &id, "--json"])
        .await
        .expect(1);
    let walk = walked.json();
    assert_eq!(walk["reason"], "too_many_invalid_records");
    let quarantined = walk["quarantined"].as_u64().unwrap();
    assert!(quarantined > 20, "{walk}");
    let lines: Vec<Value> = walked
        .err
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let (rows, more): (Vec<_>, Vec<_>) = lines.iter().partition(|line| line["more"].is_null());
    assert_eq!((rows.len(), more.len()), (20, 1), "{lines:#?}");
    for (row, line) in (0..).zip(rows) {
        let field = |name: &str| line[name].clone();
        assert_eq!(field("level"), "WARN");
        assert_eq!(field("message"), "row quarantined: it has no usable id");
        assert_eq!(
            (field("account"), field("walk")),
            (json!(id), walk["id"].clone())
        );
        assert_eq!(
            (field("list"), field("page"), field("row")),
            (json!("users"), json!(1), json!(row))
        );
        assert_eq!(
            (field("field"), field("fault")),
            (json!("id"), json!("the row has no id"))
        );
    }
    assert_eq!(more[0]["more"], quarantined - 20);
    assert!(!walked.err.contains('@'));
}
