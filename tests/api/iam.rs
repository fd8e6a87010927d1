//! `/iam`: records by either id, cut down by `fields`, made whole by `expand`; `/iam/me`, and
//! `/iam` itself.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::world::World;

const MOUNTS: [&str; 2] = ["/iam", "/unified/iam"];

fn keys(record: &Value) -> Vec<&str> {
    let record = record.as_object().unwrap();
    record.keys().map(String::as_str).collect()
}

/// A word of a text as a strict client sends it: every byte that is not plain, escaped.
fn escaped(text: &str) -> String {
    text.bytes().fold(String::new(), |escaped, byte| {
        if byte.is_ascii_digit() {
            format!("{escaped}{}", char::from(byte))
        } else {
            format!("{escaped}%{byte:02X}")
        }
    })
}

#[tokio::test]
async fn a_record_is_had_by_either_id_however_it_is_escaped() {
    let world = World::new().await;
    let account = world.link_admin().await;
    for mount in MOUNTS {
        for list in ["users", "roles", "groups"] {
            let page = world
                .read(&account, &format!("{mount}/{list}?page_size=3"))
                .await
                .expect(200);
            for record in page["data"].as_array().unwrap() {
                for id in [&record["id"], &record["remote_id"]] {
                    let id = id.as_str().unwrap();
                    for id in [id.to_owned(), escaped(id)] {
                        let path = format!("{mount}/{list}/{id}");
                        let got = world.read(&account, &path).await.expect(200);
                        assert_eq!(got, json!({"data": record}), "{path}");
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn an_id_of_nobody_is_not_found_and_not_repeated() {
    let world = World::new().await;
    let account = world.link_admin().await;
    let group = world.truth().await["groups"][0]["id"].to_string();
    for mount in MOUNTS {
        for (list, id) in [
            ("users", "usr_12345".to_owned()),
            ("users", "12345".to_owned()),
            ("users", "a%2Fb%20c".to_owned()),
            ("users", format!("grp_{group}")),
            ("users", group.clone()),
            ("users", "usr_usr_1".to_owned()),
            ("groups", format!("usr_{group}")),
            ("roles", "rol_nothing".to_owned()),
            ("roles", "SYSTEM_ADMIN".to_owned()),
        ] {
            let path = format!("{mount}/{list}/{id}");
            let body = world.read(&account, &path).await.refused(404, "not_found");
            assert!(!body["message"].as_str().unwrap().contains(&id), "{path}");
        }
    }
}

#[tokio::test]
async fn fields_keep_the_named_fields_alone_and_an_empty_list_keeps_all() {
    let world = World::new().await;
    let account = world.link_admin().await;
    for mount in MOUNTS {
        for (list, fields, kept) in [
            ("users", "name,id", vec!["id", "name"]),
            (
                "users",
                "id%2Cstatus%2Cseat%2Cwarnings",
                vec!["id", "seat", "status", "warnings"],
            ),
            ("roles", "holder_count,type", vec!["holder_count", "type"]),
            (
                "groups",
                "id,owner,member_count",
                vec!["id", "member_count", "owner"],
            ),
            // Fields that the contract names and we do not have are no misspelling.
            ("groups", "id,unified_custom_fields", vec!["id"]),
        ] {
            let path = format!("{mount}/{list}?page_size=2&fields={fields}");
            let page = world.read(&account, &path).await.expect(200);
            for record in page["data"].as_array().unwrap() {
                let mut got = keys(record);
                got.sort_unstable();
                assert_eq!(got, kept, "{path}");
                if let Some(id) = record["id"].as_str() {
                    let path = format!("{mount}/{list}/{id}?fields={fields}");
                    let one = world.read(&account, &path).await.expect(200);
                    assert_eq!(one["data"], *record);
                }
            }
        }
        let whole = world
            .read(&account, &format!("{mount}/users"))
            .await
            .expect(200);
        let empty = world
            .read(&account, &format!("{mount}/users?fields="))
            .await
            .expect(200);
        assert_eq!(whole["data"], empty["data"]);
    }
}

#[tokio::test]
async fn every_field_that_the_contract_lists_is_taken_and_any_other_is_named() {
    let world = World::new().await;
    let account = world.link_admin().await;
    for (list, fields, expansions) in [
        (
            "users",
            "id,remote_id,first_name,last_name,name,primary_email_address,username,roles,groups,\
             status,avatar,is_bot_user,last_active_at,last_login_at,created_at,updated_at,\
             multi_factor_enabled,unified_custom_fields,seat,is_external,warnings,first_seen_at",
            "roles,groups",
        ),
        (
            "roles",
            "id,remote_id,name,type,policies,description,created_at,updated_at,\
             unified_custom_fields,holder_count",
            "policies",
        ),
        (
            "groups",
            "id,remote_id,parent_id,remote_parent_id,name,description,roles,type,created_at,\
             updated_at,unified_custom_fields,member_count,owner,members,members_read_at",
            "roles,members",
        ),
    ] {
        let path = format!("/iam/{list}?fields={fields}&expand={expansions}");
        world.read(&account, &path).await.expect(200);
        for (parameter, wrong) in [
            ("fields", "id,nmae"),
            ("fields", "id,"),
            ("fields", "ID"),
            ("fields", "id%20"),
            ("expand", "permissions"),
            ("expand", "everything"),
        ] {
            for path in [
                format!("/iam/{list}?{parameter}={wrong}"),
                format!("/iam/{list}/1?{parameter}={wrong}"),
            ] {
                let reply = world.read(&account, &path).await;
                let body = reply.refused(400, "invalid_parameter");
                let message = body["message"].as_str().unwrap();
                assert!(message.contains(parameter), "{path}: {message}");
            }
        }
    }
}

#[tokio::test]
async fn without_expand_roles_and_groups_are_references_and_with_it_whole() {
    let world = World::new().await;
    let account = world.link_admin().await;
    let roles = world.all(&account, "roles", "").await;
    let groups = world.all(&account, "groups", "").await;
    let whole = |all: &[Value], reference: &Value| {
        let found = all.iter().find(|each| each["id"] == reference["id"]);
        found.unwrap().clone()
    };
    let plain = world.all(&account, "users", "").await;
    let expanded = world.all(&account, "users", "&expand=roles%2Cgroups").await;
    let mut nested = 0;
    for (plain, expanded) in plain.iter().zip(&expanded) {
        for (list, all) in [("roles", &roles), ("groups", &groups)] {
            let references = plain[list].as_array().unwrap();
            for reference in references {
                assert_eq!(keys(reference), ["id", "name", "remote_id"]);
            }
            let wanted: Vec<_> = references.iter().map(|each| whole(all, each)).collect();
            nested += wanted.len();
            assert_eq!(expanded[list], json!(wanted));
        }
        let same = |user: &Value| {
            let mut user = user.clone();
            user["roles"] = Value::Null;
            user["groups"] = Value::Null;
            user
        };
        assert_eq!(same(plain), same(expanded));
    }
    assert!(nested > plain.len());
    let one = world.all(&account, "users", "&expand=groups").await;
    let in_a_group = one.iter().find(|user| user["groups"][0].is_object());
    let user = in_a_group.unwrap();
    assert!(user["groups"][0].get("member_count").is_some());
    assert!(user["roles"][0].get("holder_count").is_none());
}

#[tokio::test]
async fn members_of_a_group_are_shown_on_demand_and_their_number_always() {
    let world = World::new().await;
    let account = world.link_admin().await;
    let plain = world.all(&account, "groups", "").await;
    let whole = world.all(&account, "groups", "&expand=members").await;
    for (plain, whole) in plain.iter().zip(&whole) {
        assert_eq!(plain.get("members"), None);
        let members = whole["members"].as_array().unwrap();
        assert_eq!(plain["member_count"], members.len());
        // And each member's own record names the group.
        for member in members {
            let path = format!("/iam/users/{}", member["id"].as_str().unwrap());
            let user = world.read(&account, &path).await.expect(200);
            let groups = user["data"]["groups"].as_array().unwrap();
            assert!(groups.iter().any(|group| group["id"] == plain["id"]));
        }
    }
}

#[tokio::test]
async fn me_tells_whose_token_it_is_and_in_which_organization() {
    let world = World::new().await;
    let tokens = world.simulator.announcement().tokens.clone();
    for (token, is_admin) in [(&tokens.system_admin, true), (&tokens.member, false)] {
        let account = world.link(token).await;
        for mount in MOUNTS {
            let me = world
                .read(&account, &format!("{mount}/me"))
                .await
                .expect(200);
            let me = &me["data"];
            assert_eq!(me["is_admin"], is_admin);
            assert_eq!(me["scopes"], Value::Null);
            assert_eq!(
                me["auth_type"],
                json!({"value": "api_key", "source_value": "access_token"})
            );
            assert_eq!(me["organization"]["name"], "Example Ltd");
            let user = world
                .read(
                    &account,
                    &format!("{mount}/users/{}", me["user_id"].as_str().unwrap()),
                )
                .await
                .expect(200);
            assert_eq!(user["data"]["remote_id"], me["remote_user_id"]);
            assert_eq!(
                user["data"]["primary_email_address"],
                me["primary_email_address"]
            );
        }
    }
}

#[tokio::test]
async fn the_summary_counts_and_dates_the_directory() {
    let world = World::new().await;
    let account = world.link_admin().await;
    let users = world.read(&account, "/iam/users").await;
    world.clock.advance(Duration::from_secs(30));
    let mut etags = Vec::new();
    for mount in MOUNTS {
        let reply = world.read(&account, mount).await;
        let summary = reply.expect(200)["data"].clone();
        for list in ["users", "roles", "groups"] {
            let page = world.read(&account, &format!("{mount}/{list}")).await;
            assert_eq!(summary["counts"][list], page.expect(200)["total"], "{list}");
        }
        let header = |name| reply.header(name).unwrap();
        assert_eq!(summary["directory_version"], header("x-directory-version"));
        assert_eq!(summary["age_seconds"].to_string(), header("age"));
        assert!(summary["age_seconds"].as_u64().unwrap() >= 30);
        // As moments: of two texts the one that ends in fewer digits may be the greater.
        let moment = |name| {
            summary[name]
                .as_str()
                .unwrap()
                .parse::<Timestamp>()
                .unwrap()
        };
        assert!(moment("verified_at") <= moment("sealed_at"));
        assert_eq!(summary["stale"], Value::Null);
        assert_eq!(summary["warnings"], json!([]));
        for name in ["vary", "cache-control", "last-modified"] {
            assert_eq!(reply.header(name), users.header(name), "{name}");
        }
        etags.push(header("etag").to_owned());
    }
    assert_eq!(etags[0], etags[1]);
    assert_ne!(Some(etags[0].as_str()), users.header("etag"));

    // It holds while nothing but the age changes, and no longer than the provider agrees.
    let known = [("if-none-match", etags[0].as_str())];
    world.clock.advance(Duration::from_secs(30));
    let reply = world.read_with(&account, "/iam", &known).await;
    assert_eq!(reply.status.as_u16(), 304);
    assert!(reply.header("age").unwrap().parse::<u64>().unwrap() >= 60);
    let walk = world.walk(&account).await;
    let summary = world.read_with(&account, "/iam", &known).await.expect(200);
    assert_eq!(
        summary["data"]["directory_version"],
        walk["directory_version"]
    );
    assert_eq!(summary["data"]["counts"], walk["counts"]);

    world.provider_answers(503).await;
    assert_eq!(world.walk(&account).await["state"], "failed");
    let reply = world.read(&account, "/iam").await;
    assert_eq!(reply.header("x-directory-stale"), Some("walk_failed"));
    assert_eq!(reply.expect(200)["data"]["stale"], "walk_failed");
}

#[tokio::test]
async fn the_summary_tells_what_the_token_cannot_see() {
    let world = World::new().await;
    let closed = json!({"non_admin_reads_groups": false});
    world.switches(&closed).await;
    let member = world.simulator.announcement().tokens.member.clone();
    let account = world.link(&member).await;
    let summary = world.read(&account, "/iam").await.expect(200)["data"].clone();
    assert_eq!(summary["counts"]["groups"], Value::Null);
    let me = world.read(&account, "/iam/me").await.expect(200);
    assert_eq!(summary["warnings"], me["data"]["unavailable_fields"]);
    assert_eq!(summary["warnings"].as_array().unwrap().len(), 6);
    for query in [
        "?fields=id",
        "?page_size=1",
        "?filter[status]=enabled",
        "?next=x",
    ] {
        let reply = world.read(&account, &format!("/iam{query}")).await;
        reply.refused(400, "invalid_parameter");
    }
}

#[tokio::test]
async fn the_unified_mount_answers_as_our_own() {
    let world = World::new().await;
    let account = world.link_admin().await;
    for path in [
        "users?page_size=5&expand=roles",
        "roles",
        "groups?expand=members",
        "users?filter%5Bseat%5D=member",
        "me",
        "users/absent",
        "policies",
    ] {
        let own = world.read(&account, &format!("/iam/{path}")).await;
        let unified = world.read(&account, &format!("/unified/iam/{path}")).await;
        assert_eq!(own.status, unified.status, "{path}");
        assert_eq!(own.header("etag"), unified.header("etag"), "{path}");
        if own.status.is_success() {
            assert_eq!(own.json(), unified.json(), "{path}");
        }
    }
}
