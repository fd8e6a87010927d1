//! Filters: the list less those who are not meant, and never "nobody" where the answer is "that
//! cannot be seen".

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    expected::{self, Sight},
    paging::{all_ids, next, pages},
    world::{Plan, World},
};

const MOUNTS: [&str; 2] = ["/iam", "/unified/iam"];

/// Every filter with a good value.
const GOOD: [&str; 8] = [
    "filter[updated_after]=2020-01-01T00:00:00Z",
    "updated_after=2020-01-01T00:00:00Z",
    "filter[email]=a@b.c",
    "filter[status]=enabled",
    "filter[role]=system_admin",
    "filter[group]=1",
    "filter[is_external]=true",
    "filter[seat]=guest",
];

async fn world_of(users: usize, groups: usize) -> World {
    World::with(Plan {
        users,
        groups,
        ..Plan::default()
    })
    .await
}

/// As the published SDK sends a name or a value.
fn escaped(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'=' | b'&' => char::from(byte).to_string(),
            _ if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

/// The remote ids of a filtered list, which must be the same and as many as told at every size.
async fn left(world: &World, account: &str, list: &str, filter: &str) -> Vec<String> {
    let mut answers = BTreeSet::new();
    for (mount, page_size) in [("/iam", 1), ("/unified/iam", 7), ("/iam", 100)] {
        let path = format!("{mount}/{list}?page_size={page_size}&{}", escaped(filter));
        let pages = pages(world, account, &path).await;
        let ids = all_ids(&pages);
        for page in &pages {
            assert_eq!(page["total"], ids.len(), "{path}");
        }
        assert_eq!(pages.len(), ids.len().div_ceil(page_size).max(1), "{path}");
        answers.insert(ids);
    }
    assert_eq!(answers.len(), 1, "{filter}");
    answers.pop_first().unwrap()
}

#[tokio::test]
async fn each_filter_and_all_together_leave_whom_the_provider_says() {
    let world = world_of(60, 8).await;
    let account = world.link_admin().await;
    let truth = expected::directory(&world.truth().await, Sight::SystemAdmin);
    let holds = |user: &Value, list: &str, id: &str| {
        let records = user[list].as_array().unwrap();
        records.iter().any(|record| record["remote_id"] == id)
    };
    let has = |user: &Value, name: &str, value: &str| match name {
        "email" => user["primary_email_address"]
            .as_str()
            .is_some_and(|email| email.eq_ignore_ascii_case(value)),
        "status" | "seat" => user[name]["value"] == value,
        "is_external" => user[name] == (value == "true"),
        "role" => holds(user, "roles", value.strip_prefix("rol_").unwrap_or(value)),
        "group" => holds(user, "groups", value.strip_prefix("grp_").unwrap_or(value)),
        other => panic!("{other}"),
    };

    let mut asked: Vec<(&str, String)> = Vec::new();
    for (name, values) in [
        ("status", "enabled disabled pending unmapped_value"),
        (
            "seat",
            "member provisional_member guest contributor unmapped_value",
        ),
        ("is_external", "true false"),
        (
            "role",
            "system_admin rol_group_admin licensed_user rol_seat_guest rol_ nothing",
        ),
        ("group", "grp_ 1 grp_1"),
        ("email", "nobody@example.org @ x"),
    ] {
        asked.extend(values.split(' ').map(|value| (name, value.to_owned())));
    }
    for id in truth.groups.iter().flatten().map(|(id, _)| id) {
        asked.push(("group", id.clone()));
        asked.push(("group", format!("grp_{id}")));
    }
    for user in truth.users.values().step_by(20) {
        let email = user["primary_email_address"].as_str().unwrap();
        asked.extend([email.to_owned(), email.to_uppercase()].map(|email| ("email", email)));
    }
    let mut met = BTreeSet::new();
    for (name, value) in &asked {
        let meant: Vec<_> = truth
            .users
            .iter()
            .filter(|(_, user)| has(user, name, value))
            .map(|(id, _)| id.clone())
            .collect();
        let filter = format!("filter[{name}]={value}");
        assert_eq!(
            left(&world, &account, "users", &filter).await,
            meant,
            "{filter}"
        );
        if !meant.is_empty() {
            met.insert(*name);
        }
    }
    assert_eq!(met.len(), 6, "a filter that leaves nobody proves little");

    let all_of = [
        ("status", "enabled"),
        ("seat", "member"),
        ("is_external", "false"),
        ("role", "licensed_user"),
    ];
    for length in 2..=all_of.len() {
        let filter: Vec<_> = all_of[..length]
            .iter()
            .map(|(name, value)| format!("filter[{name}]={value}"))
            .collect();
        let meant: Vec<_> = truth
            .users
            .iter()
            .filter(|(_, user)| {
                all_of[..length]
                    .iter()
                    .all(|(name, value)| has(user, name, value))
            })
            .map(|(id, _)| id.clone())
            .collect();
        assert!(!meant.is_empty() && meant.len() < truth.users.len());
        assert_eq!(
            left(&world, &account, "users", &filter.join("&")).await,
            meant
        );
    }
}

#[tokio::test]
async fn updated_after_leaves_what_changed_later_and_not_at_the_moment() {
    let world = world_of(30, 4).await;
    let account = world.link_admin().await;
    let truth = world.truth().await;
    let (group, joined) = (&truth["groups"][0], &truth["users"][3]);
    let is_member = |user: &Value| {
        let members = group["members"].as_array().unwrap();
        members.iter().any(|member| member["id"] == user["id"])
    };
    assert!(!is_member(joined), "the test wants somebody to join");
    let renamed = &truth["users"][4];
    world.clock.advance(std::time::Duration::from_secs(60));
    world
        .mutate(&json!([
            {"op": "update_user", "id": renamed["id"], "lastName": "Renamed"},
            {"op": "add_member", "group_id": group["id"], "user_id": joined["id"]},
        ]))
        .await;
    let before = world.clock.now();
    world.clock.advance(std::time::Duration::from_secs(60));
    assert_eq!(world.walk(&account).await["state"], "sealed");

    let mut changed = [joined["id"].to_string(), renamed["id"].to_string()];
    changed.sort();
    for name in ["filter[updated_after]", "updated_after"] {
        let filter = format!("{name}={before}");
        assert_eq!(left(&world, &account, "users", &filter).await, changed);
        let groups = left(&world, &account, "groups", &filter).await;
        assert_eq!(groups, [group["id"].to_string()]);
        // The catalog of roles has no times.
        let roles = left(
            &world,
            &account,
            "roles",
            &format!("{name}=1970-01-01T00:00:00Z"),
        )
        .await;
        assert!(roles.is_empty());
    }

    let path = format!("/iam/users/{}", changed[0]);
    let user = world.read(&account, &path).await.expect(200);
    let at: Timestamp = user["data"]["updated_at"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    let tick = SignedDuration::from_nanos(1);
    let offset = jiff::tz::Offset::constant(-5);
    for (moment, is_left) in [
        (at.to_string(), false),
        ((at + tick).to_string(), false),
        ((at - tick).to_string(), true),
        (at.display_with_offset(offset).to_string(), false),
        ((at - tick).display_with_offset(offset).to_string(), true),
    ] {
        let filter = format!("filter[updated_after]={moment}");
        let left = left(&world, &account, "users", &filter).await;
        assert_eq!(left.contains(&changed[0]), is_left, "{moment}");
    }
}

#[tokio::test]
async fn a_cursor_is_of_its_own_filter_alone() {
    let world = World::new().await;
    let account = world.link_admin().await;
    let cursor_of = async |filter: &str| {
        let path = format!("/iam/users?page_size=1&{filter}");
        next(&world.read(&account, &path).await.expect(200))
    };
    let filters = [
        "",
        "filter%5Bstatus%5D=enabled",
        "filter%5Bseat%5D=member",
        "filter%5Bis_external%5D=false",
        "filter%5Bstatus%5D=enabled&filter%5Bseat%5D=member",
        "filter%5Bupdated_after%5D=2020-01-01T00%3A00%3A00Z",
        "filter%5Bupdated_after%5D=2020-01-01T00%3A00%3A01Z",
    ];
    for from in filters {
        let cursor = cursor_of(from).await;
        for to in filters {
            let path = format!("/iam/users?page_size=2&{to}&next={cursor}");
            let reply = world.read(&account, &path).await;
            if from == to {
                reply.expect(200);
            } else {
                reply.refused(400, "invalid_cursor");
            }
        }
    }
    // One filter in other words is the same.
    let cursor = cursor_of(filters[4]).await;
    let path = format!("/iam/users?filter[seat]=member&filter[status]=enabled&next={cursor}");
    world.read(&account, &path).await.expect(200);
    let cursor = cursor_of(filters[5]).await;
    let path = format!("/iam/users?updated_after=2020-01-01T01:00:00%2B01:00&next={cursor}");
    world.read(&account, &path).await.expect(200);
}

#[tokio::test]
async fn a_filtered_walk_of_pages_stays_on_its_version() {
    let world = world_of(40, 4).await;
    let account = world.link_admin().await;
    let path = "/iam/users?page_size=5&filter[status]=enabled";
    let before = all_ids(&pages(&world, &account, path).await);
    let first = world.read(&account, path).await.expect(200);
    let gone = before.last().unwrap().parse::<u64>().unwrap();
    let renamed = json!({"op": "update_user", "id": gone, "status": "DEACTIVATED"});
    world.mutate(&json!([renamed])).await;
    assert_eq!(world.walk(&account).await["state"], "sealed");
    let path_on = format!("{path}&next={}", next(&first));
    let rest = world.read(&account, &path_on).await.expect(200);
    assert_eq!(rest["total"], before.len());
    let now = all_ids(&pages(&world, &account, path).await);
    assert_eq!(now, before[..before.len() - 1]);
}

#[tokio::test]
async fn the_etag_is_of_the_filter() {
    let world = World::new().await;
    let account = world.link_admin().await;
    let mut etags = BTreeSet::new();
    for filter in GOOD.iter().chain(&["", "filter[status]=disabled"]) {
        let reply = world.read(&account, &format!("/iam/users?{filter}")).await;
        reply.expect(200);
        etags.insert(reply.header("etag").unwrap().to_owned());
    }
    // The two names of updated_after are one filter.
    assert_eq!(etags.len(), GOOD.len() + 1);
    let path = "/iam/users?filter[status]=enabled";
    let etag = world.read(&account, path).await;
    let known = [("if-none-match", etag.header("etag").unwrap())];
    let reply = world.read_with(&account, path, &known).await;
    assert_eq!(reply.status.as_u16(), 304);
}

#[tokio::test]
async fn a_filter_that_cannot_be_meant_is_refused_and_named() {
    let world = World::new().await;
    let account = world.link_admin().await;
    let long = format!("filter[email]={}", "x".repeat(9000));
    for mount in MOUNTS {
        for (query, told) in [
            (
                "filter[status]=active",
                "filter[status] must be one of: enabled, disabled",
            ),
            ("filter[status]=Enabled", "filter[status]"),
            ("filter[status]=enabled,disabled", "filter[status]"),
            ("filter[status]=", "filter[status]"),
            ("filter[seat]=viewer", "filter[seat] must be one of: member"),
            ("filter[seat]=", "filter[seat]"),
            (
                "filter[is_external]=yes",
                "filter[is_external] must be true or false",
            ),
            ("filter[is_external]=", "filter[is_external]"),
            ("filter[email]=", "filter[email] must not be empty"),
            ("filter[role]=", "filter[role]"),
            ("filter[group]", "filter[group]"),
            ("filter[updated_after]=", "YYYY-MM-DDTHH:MM:SS"),
            (
                "filter[updated_after]=2020-01-01",
                "filter[updated_after] must be a moment",
            ),
            (
                "filter[updated_after]=2020-01-01T00:00:00",
                "YYYY-MM-DDTHH:MM:SS",
            ),
            (
                "filter[updated_after]=2020-01-01T00:00:00+02:00",
                "%2BHH:MM",
            ),
            ("updated_after=1577836800", "updated_after must be a moment"),
            (
                "updated_after=2020-01-01T00:00:00Z&filter[updated_after]=2020-01-01T00:00:00Z",
                "the same filter",
            ),
            (
                "filter[status]=enabled&filter[status]=enabled",
                "filter[status]",
            ),
            (
                "filter%5Bstatus%5D=enabled&filter[status]=pending",
                "filter[status]",
            ),
            ("filter[mail]=x", "`filter[mail]`"),
            ("filter[Email]=x", "`filter[Email]`"),
            ("filter=x", "`filter`"),
            ("filter[]=x", "`filter[]`"),
            ("filter[email][]=x", "`filter[email][]`"),
            ("filter[email]=%FF", "UTF-8"),
            (long.as_str(), "8192"),
        ] {
            let path = format!("{mount}/users?{query}");
            let body = world
                .read(&account, &path)
                .await
                .refused(400, "invalid_parameter");
            let message = body["message"].as_str().unwrap();
            assert!(message.contains(told), "{query}: {message}");
        }
    }
}

#[tokio::test]
async fn a_filter_is_of_the_lists_that_have_it() {
    let world = World::new().await;
    let account = world.link_admin().await;
    for filter in GOOD {
        let name = filter.split('=').next().unwrap();
        let is_of_all = name.ends_with("updated_after") || name.ends_with("updated_after]");
        for (path, has_it) in [
            ("/iam/users", true),
            ("/iam/roles", is_of_all),
            ("/iam/groups", is_of_all),
            ("/iam/users/1", false),
            ("/iam/roles/1", false),
            ("/iam/me", false),
        ] {
            let path = format!("{path}?{filter}");
            let reply = world.read(&account, &path).await;
            if has_it {
                reply.expect(200);
            } else {
                let body = reply.refused(400, "invalid_parameter");
                let message = body["message"].as_str().unwrap();
                assert!(message.contains(&format!("`{name}`")), "{path}: {message}");
            }
        }
    }
}

#[tokio::test]
async fn a_filter_on_what_the_token_may_not_see_is_refused_and_does_not_answer_nobody() {
    let world = World::new().await;
    let member = world.simulator.announcement().tokens.member.clone();
    let plain = world.link(&member).await;
    assert_eq!(world.walk(&plain).await["state"], "sealed");
    let closed = json!({"non_admin_reads_groups": false});
    world.switches(&closed).await;
    let without_groups = world.link(&member).await;
    let email = world.truth().await["users"][0]["email"].clone();
    let email = email.as_str().unwrap();
    for account in [&plain, &without_groups] {
        for mount in MOUNTS {
            for (filter, field) in [
                ("status]=enabled", "status"),
                ("role]=system_admin", "roles"),
                ("seat]=guest", "seat"),
                ("is_external]=true", "is_external"),
                ("status]=enabled&filter[email]=a", "status"),
            ] {
                let path = format!("{mount}/users?filter[{filter}");
                let body = world
                    .read(account, &path)
                    .await
                    .refused(403, "field_not_permitted");
                let message = body["message"].as_str().unwrap();
                assert!(message.contains(&format!("`{field}`")), "{message}");
                assert!(body["hint"].as_str().unwrap().contains("/iam/me"));
            }
            let path = format!("{mount}/users?filter[email]={}", escaped(email));
            let page = world.read(account, &path).await.expect(200);
            assert_eq!(
                (&page["total"], &page["data"][0]["primary_email_address"]),
                (&json!(1), &json!(email))
            );
            let path = format!("{mount}/users?filter[updated_after]=2020-01-01T00:00:00Z");
            assert_ne!(world.read(account, &path).await.expect(200)["total"], 0);
        }
    }
    let group = world.truth().await["groups"]
        .as_array()
        .unwrap()
        .iter()
        .find(|group| group["members"][0].is_object())
        .unwrap()["id"]
        .to_string();
    let path = format!("/iam/users?filter[group]={group}");
    let page = world.read(&plain, &path).await.expect(200);
    assert_ne!(page["total"], 0);
    let refusal = world.read(&without_groups, &path).await;
    refusal.refused(403, "field_not_permitted");
    // Whether or not the question was answered for another token before.
    let admin = world.link_admin().await;
    let path = "/iam/users?filter[status]=enabled";
    let etag = world.read(&admin, path).await;
    etag.expect(200);
    let known = [("if-none-match", etag.header("etag").unwrap())];
    let refusal = world.read_with(&plain, path, &known).await;
    refusal.refused(403, "field_not_permitted");
    let any = [("if-none-match", "*")];
    let refusal = world.read_with(&plain, path, &any).await;
    refusal.refused(403, "field_not_permitted");
}

#[tokio::test]
async fn a_list_that_is_filtered_has_a_head_as_any_other() {
    let world = World::new().await;
    let account = world.link_admin().await;
    let path = format!("/iam/users?account_id={account}&filter[seat]=member");
    let reply = world.call(Method::HEAD, &path, None).await;
    assert_eq!(reply.status.as_u16(), 200);
    assert!(reply.header("etag").is_some() && reply.bytes.is_empty());
}
