//! How old an answer is, and what a caller can do about it.

use std::{collections::BTreeSet, io::Read, time::Duration};

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::world::{HANG, Plan, Reply, World, reply};

fn etag(reply: &Reply) -> &str {
    reply.header("etag").unwrap()
}

fn age(reply: &Reply) -> u64 {
    reply.header("age").unwrap().parse().unwrap()
}

/// How often a walk began, by the provider's log: each begins by asking whose token it is.
async fn walks_since(world: &World, seq: u64) -> usize {
    let log = world.provider_log(seq).await;
    let begins = |call: &&Value| call["path"].as_str().unwrap().ends_with("/users/me");
    log.iter().filter(begins).count()
}

async fn somebody_new(world: &World, email: &str) {
    let op = json!([{"op": "add_user", "email": email}]);
    world.mutate(&op).await;
}

async fn total(world: &World, account: &str, headers: &[(&str, &str)]) -> u64 {
    let page = world.read_with(account, "/iam/users?page_size=1", headers);
    page.await.expect(200)["total"].as_u64().unwrap()
}

#[tokio::test]
async fn every_read_says_how_old_it_is_and_what_it_depends_on() {
    let world = World::new().await;
    let account = world.link_admin().await;
    let walk = world.walk(&account).await;
    for path in [
        "/iam/users",
        "/iam/roles",
        "/iam/groups",
        "/iam/roles/system_admin",
        "/unified/iam/users",
    ] {
        let reply = world.read(&account, path).await;
        reply.expect(200);
        assert!(etag(&reply).starts_with("W/\""), "{path}");
        assert_eq!(
            reply.header("vary"),
            Some("Authorization, x-account-id, Accept-Encoding")
        );
        assert_eq!(reply.header("cache-control"), Some("private, no-cache"));
        assert_eq!(
            reply.header("x-directory-version"),
            walk["directory_version"].as_str()
        );
        assert_eq!(reply.header("x-directory-stale"), None);
        assert!(age(&reply) < 60, "{path}");
        let modified = httpdate::parse_http_date(reply.header("last-modified").unwrap()).unwrap();
        let ago = modified.elapsed().unwrap();
        assert!(ago < HANG, "{path}");
    }
}

#[tokio::test]
async fn an_etag_that_still_holds_is_answered_with_304_however_it_is_written() {
    let world = World::new().await;
    let account = world.link_admin().await;
    for path in ["/iam/users?page_size=5", "/iam/roles/rol_system_admin"] {
        let first = world.read(&account, path).await;
        let weak = etag(&first).to_owned();
        let strong = weak.strip_prefix("W/").unwrap().to_owned();
        for known in [
            weak.clone(),
            strong,
            format!("\"other\", {weak}"),
            format!("W/\"a\",W/\"b\" ,{weak},\"c\""),
            "*".to_owned(),
        ] {
            let headers = [("if-none-match", known.as_str())];
            let reply = world.read_with(&account, path, &headers).await;
            assert_eq!(reply.status.as_u16(), 304, "{known}");
            assert!(reply.bytes.is_empty());
            for name in [
                "etag",
                "vary",
                "cache-control",
                "last-modified",
                "x-directory-version",
            ] {
                assert_eq!(reply.header(name), first.header(name), "{name}");
            }
            assert!(reply.header("age").is_some() && reply.header("x-request-id").is_some());
        }
        for unknown in ["\"other\"", "W/\"\"", "x", "", "W/*"] {
            let headers = [("if-none-match", unknown)];
            let reply = world.read_with(&account, path, &headers).await;
            assert_eq!(reply.status.as_u16(), 200, "{unknown}");
        }
    }
}

#[tokio::test]
async fn a_record_that_is_not_there_is_not_known_by_any_etag() {
    let world = World::new().await;
    let account = world.link_admin().await;
    let headers = [("if-none-match", "*")];
    let reply = world
        .read_with(&account, "/iam/users/absent", &headers)
        .await;
    reply.refused(404, "not_found");
}

#[tokio::test]
async fn each_query_has_an_etag_of_its_own() {
    let world = World::new().await;
    let account = world.link_admin().await;
    let same_organization = world.link_admin().await;
    let mut etags = BTreeSet::new();
    for path in [
        "/iam/users",
        "/iam/users?page_size=24",
        "/iam/users?fields=id",
        "/iam/users?expand=roles",
        "/iam/users?expand=groups",
        "/iam/roles",
        "/iam/groups",
        "/iam/groups?expand=members",
        "/iam/roles/system_admin",
        "/iam/roles/group_admin",
    ] {
        for account in [&account, &same_organization] {
            let reply = world.read(account, path).await;
            assert!(etags.insert(etag(&reply).to_owned()), "{path}");
        }
    }
    // What means the same has the same.
    for path in [
        "/iam/users?page_size=25&next=",
        "/iam/users?fields=&expand=",
        "/unified/iam/users?page=2",
    ] {
        let reply = world.read(&account, path).await;
        assert!(!etags.insert(etag(&reply).to_owned()), "{path}");
    }
}

#[tokio::test]
async fn a_walk_that_finds_nothing_changed_keeps_version_and_etag_and_renews_the_age() {
    let world = World::new().await;
    let account = world.link_admin().await;
    let before = world.read(&account, "/iam/users").await;
    world.clock.advance(Duration::from_secs(200));
    let old = world.read(&account, "/iam/users").await;
    assert!((200..260).contains(&age(&old)), "{}", age(&old));

    let walk = world.walk(&account).await;
    assert_eq!(walk["state"], "sealed");
    assert_eq!(
        walk["directory_version"].as_str(),
        before.header("x-directory-version")
    );
    let after = world.read(&account, "/iam/users").await;
    for name in ["etag", "last-modified", "x-directory-version"] {
        assert_eq!(after.header(name), before.header(name), "{name}");
    }
    assert!(age(&after) < 60);
    assert_eq!(after.expect(200), before.expect(200));
}

#[tokio::test]
async fn a_change_moves_version_and_etag() {
    let world = World::new().await;
    let account = world.link_admin().await;
    let before = world.read(&account, "/iam/users").await;
    somebody_new(&world, "new.one@example.org").await;
    world.walk(&account).await;
    let headers = [("if-none-match", etag(&before))];
    let after = world.read_with(&account, "/iam/users", &headers).await;
    after.expect(200);
    assert_ne!(etag(&after), etag(&before));
    assert_ne!(
        after.header("x-directory-version"),
        before.header("x-directory-version")
    );
}

#[tokio::test]
async fn no_cache_waits_for_a_walk_that_begins_after_the_question() {
    let world = World::new().await;
    let account = world.link_admin().await;
    let before = total(&world, &account, &[]).await;
    somebody_new(&world, "new.one@example.org").await;
    assert_eq!(total(&world, &account, &[]).await, before);
    for directive in ["no-cache", "no-store, No-Cache", "max-age=60, no-cache"] {
        let seq = world.provider_calls().await;
        let headers = [("cache-control", directive)];
        assert_eq!(total(&world, &account, &headers).await, before + 1);
        assert_eq!(walks_since(&world, seq).await, 1, "{directive}");
    }
}

#[tokio::test]
async fn a_walk_that_has_called_the_provider_answers_no_later_question() {
    for directive in ["no-cache", "max-age=90"] {
        let world = World::new().await;
        let account = world.link_admin().await;
        world.clock.advance(Duration::from_secs(100));
        // Long enough that the walk runs on while the read is asked.
        world.provider_takes(Duration::from_millis(300)).await;
        let seq = world.provider_calls().await;
        let running = world.post(&format!("/accounts/{account}/walks")).await;
        running.expect(202);
        world.provider_is_called_after(seq).await;
        let headers = [("cache-control", directive)];
        total(&world, &account, &headers).await;
        assert_eq!(walks_since(&world, seq).await, 2, "{directive}");
    }
}

#[tokio::test]
async fn max_age_waits_only_where_the_directory_is_older() {
    let world = World::new().await;
    let account = world.link_admin().await;
    let before = total(&world, &account, &[]).await;
    somebody_new(&world, "new.one@example.org").await;
    world.clock.advance(Duration::from_secs(100));
    let seq = world.provider_calls().await;
    for young in [
        "max-age=1000",
        "max-age=\"250\"",
        "max-stale=1, max-age=400",
    ] {
        let headers = [("cache-control", young)];
        assert_eq!(total(&world, &account, &headers).await, before, "{young}");
    }
    assert_eq!(walks_since(&world, seq).await, 0);
    let headers = [("cache-control", "max-age=90")];
    assert_eq!(total(&world, &account, &headers).await, before + 1);
    assert_eq!(walks_since(&world, seq).await, 1);
    for wrong in ["max-age=", "max-age=-1", "max-age=1.5", "max-age=soon"] {
        let headers = [("cache-control", wrong)];
        let reply = world.read_with(&account, "/iam/users", &headers).await;
        reply.refused(400, "invalid_parameter");
    }
}

#[tokio::test]
async fn a_hundred_readers_of_a_cold_account_cause_one_walk() {
    let world = World::new().await;
    // So slow that all have asked before the walk has its first answer.
    world.provider_takes(Duration::from_millis(40)).await;
    let token = world.admin_token();
    let account = world.link(&token).await;
    let readers = (0..100).map(|_| world.read(&account, "/iam/users"));
    let pages = join_all(readers).await;
    let etags: BTreeSet<_> = pages.iter().map(|page| etag(page).to_owned()).collect();
    assert_eq!(etags.len(), 1);
    assert!(pages.iter().all(|page| page.status.as_u16() == 200));
    // Whose token it is was asked for linking it, and for the one walk.
    assert_eq!(walks_since(&world, 0).await, 2);
}

#[tokio::test]
async fn a_hundred_readers_of_an_old_directory_get_it_at_once_and_cause_one_walk() {
    let world = World::new().await;
    let account = world.link_admin().await;
    world.clock.advance(Duration::from_secs(301));
    let seq = world.provider_calls().await;
    // The walk cannot end before all have been answered: nobody waits for it.
    world.provider_takes(Duration::from_millis(500)).await;
    // Key and account are proven, so that no busy database makes an answer say what it is not about.
    world.get(&format!("/accounts/{account}")).await.expect(200);
    let readers = (0..100).map(|_| world.read(&account, "/iam/users"));
    for page in join_all(readers).await {
        assert!(age(&page) >= 301);
        assert_eq!(page.header("x-directory-stale"), None);
    }
    world.no_faults().await;
    world.provider_is_called_after(seq).await;
    // Whoever asks now gets the walk after that one, so the one has ended then.
    world.walk(&account).await;
    assert_eq!(walks_since(&world, seq).await, 2);
}

#[tokio::test]
async fn a_first_read_that_waits_for_longer_than_allowed_is_told_how_far_the_walk_is() {
    let world = World::with(Plan {
        settings: vec![("server.read_wait_seconds", "1")],
        ..Plan::default()
    })
    .await;
    let slow = json!({"kind": "delay", "ms": 2500});
    let groups = json!({"path_prefix": "/groups"});
    world
        .faults(&json!([{"match": groups, "fault": slow}]))
        .await;
    let account = world.link(&world.admin_token()).await;
    let reply = world.read(&account, "/iam/users").await;
    let body = reply.refused(408, "directory_not_ready");
    let wait: u64 = reply.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait));
    let progress = &body["progress"];
    assert!(progress["pages"].as_u64().unwrap() >= 1, "{body}");
    assert!(progress["records"].as_u64().unwrap() >= 30, "{body}");
    for field in ["pages_total", "eta_seconds"] {
        assert!(
            progress[field].is_u64() || progress[field].is_null(),
            "{body}"
        );
    }
    world.no_faults().await;
    world.walk(&account).await;
    world.read(&account, "/iam/users").await.expect(200);
}

#[tokio::test]
async fn a_first_read_of_a_provider_that_is_down_says_so_and_nothing_partial_is_served() {
    let world = World::new().await;
    let broken = json!({"kind": "status", "status": 500, "error_code": 4000});
    let groups = json!({"path_prefix": "/groups"});
    world
        .faults(&json!([{"match": groups, "fault": broken}]))
        .await;
    let account = world.link(&world.admin_token()).await;
    for list in ["users", "roles", "groups"] {
        let reply = world.read(&account, &format!("/iam/{list}")).await;
        reply.refused(502, "provider_unavailable");
        assert!(reply.header("retry-after").is_some());
    }
    world.no_faults().await;
    world.walk(&account).await;
    world.read(&account, "/iam/users").await.expect(200);
}

#[tokio::test]
async fn when_the_provider_is_down_the_last_directory_is_served_with_its_true_age() {
    let world = World::new().await;
    let account = world.link_admin().await;
    let before = world.read(&account, "/iam/users").await;
    world.provider_answers(500).await;
    let walk = world.walk(&account).await;
    assert_eq!(walk["state"], "failed");
    assert_eq!(walk["reason"], "provider_unavailable");
    assert_eq!(
        walk["directory_version"].as_str(),
        before.header("x-directory-version")
    );
    world.clock.advance(Duration::from_secs(3600));
    for headers in [&[][..], &[("cache-control", "no-cache")]] {
        let reply = world.read_with(&account, "/iam/users", headers).await;
        assert_eq!(reply.header("x-directory-stale"), Some("walk_failed"));
        assert!((3600..3700).contains(&age(&reply)));
        assert_eq!(etag(&reply), etag(&before));
        assert_eq!(reply.expect(200), before.expect(200));
    }
    world.no_faults().await;
    assert_eq!(world.walk(&account).await["state"], "sealed");
    let reply = world.read(&account, "/iam/users").await;
    assert_eq!(reply.header("x-directory-stale"), None);
    assert!(age(&reply) < 60);
}

#[tokio::test]
async fn after_a_restart_the_first_read_is_served_without_a_call_to_the_provider() {
    let mut world = World::new().await;
    let account = world.link_admin().await;
    let before = world.read(&account, "/iam/users").await;
    world.provider_answers(500).await;
    world.walk(&account).await;
    world.restart().await;
    let seq = world.provider_calls().await;
    let after = world.read(&account, "/iam/users").await;
    for name in ["etag", "last-modified", "x-directory-version"] {
        assert_eq!(after.header(name), before.header(name), "{name}");
    }
    // Nor is it forgotten that the last walk failed.
    assert_eq!(after.header("x-directory-stale"), Some("walk_failed"));
    assert_eq!(after.expect(200), before.expect(200));
    assert_eq!(world.provider_calls().await, seq);
}

#[tokio::test]
async fn while_the_store_is_down_reads_go_on_from_memory_and_say_so() {
    let world = World::new().await;
    let account = world.link_admin().await;
    let before = world.read(&account, "/iam/users").await.expect(200);
    world.gateway.background().close().await;
    world.clock.advance(Duration::from_secs(2));
    let reply = world.read(&account, "/iam/users").await;
    assert_eq!(reply.header("x-directory-stale"), Some("store_unavailable"));
    assert_eq!(reply.expect(200), before);
    let reply = world.try_link(&world.admin_token()).await;
    reply.refused(503, "store_unavailable");
    assert!(reply.header("retry-after").is_some());
    let reply = world.get("/health/ready").await;
    reply.refused(503, "store_unavailable");
}

#[tokio::test]
async fn compressed_bodies_hold_the_same_json() {
    let world = World::new().await;
    let account = world.link_admin().await;
    let plain = reqwest::Client::builder()
        .no_gzip()
        .no_zstd()
        .build()
        .unwrap();
    let get = async |path: &str, coding: Option<&str>| {
        let mut request = plain
            .get(format!("{}{path}", world.base))
            .bearer_auth(&world.key)
            .header("x-account-id", &account);
        if let Some(coding) = coding {
            request = request.header("accept-encoding", coding);
        }
        reply(request).await
    };
    for path in ["/iam/users?page_size=100", "/iam/groups?expand=members"] {
        let identity = get(path, None).await;
        assert_eq!(identity.header("content-encoding"), None);
        for (accepted, wanted) in [
            ("gzip", Some("gzip")),
            ("zstd", Some("zstd")),
            ("gzip, zstd", Some("zstd")),
            ("br, GZIP;q=0.5", Some("gzip")),
            ("zstd;q=0, gzip", Some("gzip")),
            ("gzip;q=0", None),
            ("identity", None),
            ("br", None),
        ] {
            let reply = get(path, Some(accepted)).await;
            assert_eq!(reply.header("content-encoding"), wanted, "{accepted}");
            assert_eq!(etag(&reply), etag(&identity));
            let body = match wanted {
                Some("gzip") => {
                    let mut body = Vec::new();
                    let mut decoder = flate2::read::GzDecoder::new(reply.bytes.as_slice());
                    decoder.read_to_end(&mut body).unwrap();
                    body
                }
                Some(_) => zstd::stream::decode_all(reply.bytes.as_slice()).unwrap(),
                None => reply.bytes,
            };
            assert_eq!(body, identity.bytes, "{accepted}");
        }
    }
    // What is too small to gain by it is sent as it is.
    let small = get("/iam/roles/system_admin?fields=id", Some("gzip")).await;
    assert_eq!(small.header("content-encoding"), None);
    small.expect(200);
}
