//! Pages: every record once, whatever their size, and on one version to the end.

use std::{collections::BTreeSet, time::Duration};

use reqwest::Method;
use rolecall::model::api_keys::Scope;
use serde_json::{Value, json};

use crate::world::{Plan, World};

/// Walks a list by its cursors; gives the pages.
pub async fn pages(world: &World, account: &str, first: &str) -> Vec<Value> {
    let mut pages = vec![world.read(account, first).await.expect(200)];
    while let Some(next) = pages.last().unwrap()["next"].as_str() {
        let separator = if first.contains('?') { '&' } else { '?' };
        let path = format!("{first}{separator}next={next}");
        pages.push(world.read(account, &path).await.expect(200));
    }
    pages
}

fn ids(page: &Value) -> Vec<String> {
    let data = page["data"].as_array().unwrap();
    data.iter()
        .map(|record| record["remote_id"].as_str().unwrap().to_owned())
        .collect()
}

pub fn all_ids(pages: &[Value]) -> Vec<String> {
    pages.iter().flat_map(ids).collect()
}

pub fn next(page: &Value) -> String {
    page["next"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn pages_of_any_size_give_every_record_once_in_the_same_order() {
    let world = World::with(Plan {
        users: 60,
        groups: 30,
        ..Plan::default()
    })
    .await;
    let account = world.link_admin().await;
    for mount in ["/iam", "/unified/iam"] {
        for list in ["users", "groups", "roles"] {
            let mut orders = BTreeSet::new();
            for page_size in [1, 7, 25, 100] {
                let first = format!("{mount}/{list}?page_size={page_size}");
                let pages = pages(&world, &account, &first).await;
                let ids = all_ids(&pages);
                let unique: BTreeSet<_> = ids.iter().collect();
                assert_eq!(unique.len(), ids.len(), "{first}");
                for (at, page) in pages.iter().enumerate() {
                    let length = page["data"].as_array().unwrap().len();
                    let is_last = at + 1 == pages.len();
                    assert!(length == page_size || is_last && length <= page_size);
                    assert_eq!(page["total"], ids.len(), "{first}");
                }
                assert_eq!(pages.len(), ids.len().div_ceil(page_size), "{first}");
                orders.insert(ids);
            }
            assert_eq!(orders.len(), 1, "{list}");
        }
    }
}

#[tokio::test]
async fn a_page_holds_25_records_unless_another_size_is_asked_for() {
    let world = World::new().await;
    let account = world.link_admin().await;
    for path in ["/iam/users", "/iam/users?page=7&next=&fields=&expand="] {
        let page = world.read(&account, path).await.expect(200);
        assert_eq!(page["data"].as_array().unwrap().len(), 25, "{path}");
    }
}

#[tokio::test]
async fn a_walk_of_pages_stays_on_its_version_while_a_walk_seals_a_new_one() {
    let world = World::new().await;
    let account = world.link_admin().await;
    let before = all_ids(&pages(&world, &account, "/iam/users?page_size=100").await);

    let first = world.read(&account, "/iam/users?page_size=10").await;
    let version = first.header("x-directory-version").unwrap().to_owned();
    let mut page = first.expect(200);
    let mut seen = ids(&page);
    let gone = &before[before.len() - 1];
    world
        .mutate(&json!([
            {"op": "remove_user", "id": gone.parse::<u64>().unwrap()},
            {"op": "add_user", "email": "new.one@example.org"},
        ]))
        .await;
    assert_eq!(world.walk(&account).await["state"], "sealed");

    while let Some(next) = page["next"].as_str() {
        let path = format!("/iam/users?page_size=10&next={next}");
        let reply = world.read(&account, &path).await;
        assert_eq!(reply.header("x-directory-version"), Some(&*version));
        page = reply.expect(200);
        assert_eq!(page["total"], before.len());
        seen.extend(ids(&page));
    }
    assert_eq!(seen, before);

    let now = all_ids(&pages(&world, &account, "/iam/users?page_size=100").await);
    assert_eq!(now.len(), before.len());
    assert!(!now.contains(gone));
}

#[tokio::test]
async fn a_cursor_whose_version_is_held_no_more_goes_on_by_key_in_the_newest() {
    let mut world = World::new().await;
    let account = world.link_admin().await;
    let before = all_ids(&pages(&world, &account, "/iam/users?page_size=100").await);
    let first = world
        .read(&account, "/iam/users?page_size=10")
        .await
        .expect(200);
    let cursor = next(&first);
    // One of those who were served already, one who was not yet, and somebody new.
    let (served, unserved) = (&before[3], &before[20]);
    world
        .mutate(&json!([
            {"op": "remove_user", "id": served.parse::<u64>().unwrap()},
            {"op": "remove_user", "id": unserved.parse::<u64>().unwrap()},
            {"op": "add_user", "email": "new.one@example.org"},
        ]))
        .await;
    let walked = world.walk(&account).await;
    assert_eq!(walked["state"], "sealed");
    // Longer than superseded versions are kept; the next change clears them away.
    world.clock.advance(Duration::from_secs(1201));
    world
        .mutate(&json!([{"op": "add_user", "email": "new.two@example.org"}]))
        .await;
    let newest = world.walk(&account).await["directory_version"].clone();
    world.restart().await;

    let mut path = format!("/iam/users?page_size=10&next={cursor}");
    let mut seen = ids(&first);
    loop {
        let reply = world.read(&account, &path).await;
        assert_eq!(reply.header("x-directory-version"), newest.as_str());
        let page = reply.expect(200);
        seen.extend(ids(&page));
        match page["next"].as_str() {
            Some(next) => path = format!("/iam/users?page_size=10&next={next}"),
            None => break,
        }
    }
    let unique: BTreeSet<_> = seen.iter().collect();
    assert_eq!(unique.len(), seen.len(), "nobody twice");
    for id in before.iter().filter(|id| *id != unserved) {
        assert!(seen.contains(id), "{id} was there throughout");
    }
    assert!(!seen.contains(unserved));
}

#[tokio::test]
async fn a_cursor_survives_a_restart() {
    let mut world = World::new().await;
    let account = world.link_admin().await;
    let before = all_ids(&pages(&world, &account, "/iam/users?page_size=100").await);
    let first = world
        .read(&account, "/iam/users?page_size=10")
        .await
        .expect(200);
    world.restart().await;
    let path = format!("/iam/users?page_size=100&next={}", next(&first));
    let rest = pages(&world, &account, &path).await;
    assert_eq!([ids(&first), all_ids(&rest)].concat(), before);
}

#[tokio::test]
async fn a_cursor_that_is_not_of_this_list_is_refused() {
    let world = World::new().await;
    let account = world.link_admin().await;
    let same_project = world.link_admin().await;
    let cursor = next(
        &world
            .read(&account, "/iam/users?page_size=1")
            .await
            .expect(200),
    );
    let groups = next(
        &world
            .read(&account, "/iam/groups?page_size=1")
            .await
            .expect(200),
    );
    let of_another = next(
        &world
            .read(&same_project, "/iam/users?page_size=1")
            .await
            .expect(200),
    );
    // Another project, and in it an account of the same organization.
    let key = world.project("two", &Scope::ALL).await;
    let bearer = format!("Bearer {key}");
    let auth = ("authorization", bearer.as_str());
    let body = world.account_body(&world.admin_token());
    let theirs = world
        .send(Method::POST, "/accounts", &[auth], Some(&body))
        .await
        .expect(201);
    let their_account = ("x-account-id", theirs["id"].as_str().unwrap());
    let of_another_project = world
        .send(
            Method::GET,
            "/iam/users?page_size=1",
            &[auth, their_account],
            None,
        )
        .await
        .expect(200);
    let of_another_project = next(&of_another_project);

    let middle = cursor.len() / 2;
    let other = if &cursor[middle..=middle] == "A" {
        "B"
    } else {
        "A"
    };
    let changed = format!("{}{other}{}", &cursor[..middle], &cursor[middle + 1..]);
    let foreign = [
        groups,
        of_another,
        of_another_project,
        changed,
        format!("{cursor}A"),
        format!("{cursor}%3D%3D"),
        cursor[..cursor.len() - 4].to_owned(),
        "1".to_owned(),
        "usr_1".to_owned(),
        "null".to_owned(),
        "x".repeat(3000),
    ];
    for mount in ["/iam", "/unified/iam"] {
        for cursor in &foreign {
            let path = format!("{mount}/users?page_size=1&next={cursor}");
            let reply = world.read(&account, &path).await;
            reply.refused(400, "invalid_cursor");
        }
        // Its own list, on either mount and with any page size, takes it.
        let path = format!("{mount}/users?page_size=3&next={cursor}");
        world.read(&account, &path).await.expect(200);
    }
    let walk = world.walk(&account).await;
    let walks = format!("/accounts/{account}/walks");
    for path in [
        format!("{walks}?next=x"),
        format!("{walks}?next={cursor}"),
        format!("{walks}/{}/suspects?next=x", walk["id"].as_str().unwrap()),
    ] {
        world.get(&path).await.refused(400, "invalid_cursor");
    }
}

#[tokio::test]
async fn a_page_size_out_of_bounds_is_told_the_bounds() {
    let world = World::new().await;
    let account = world.link_admin().await;
    for path in [
        "/iam/users".to_owned(),
        "/iam/roles".to_owned(),
        "/iam/groups".to_owned(),
        "/unified/iam/users".to_owned(),
        "/accounts".to_owned(),
        format!("/accounts/{account}/walks"),
        format!("/accounts/{account}/walks/x/suspects"),
    ] {
        for size in [
            "0",
            "-1",
            "101",
            "abc",
            "",
            "1.0",
            "+5",
            "1e1",
            "99999999999999999999",
        ] {
            let size = size.replace('+', "%2B");
            let reply = world
                .read(&account, &format!("{path}?page_size={size}"))
                .await;
            let body = reply.refused(400, "invalid_parameter");
            let message = body["message"].as_str().unwrap();
            assert!(
                message.contains("page_size") && message.contains("1 to 100"),
                "{path} {size}: {message}"
            );
        }
    }
}

#[tokio::test]
async fn a_parameter_that_is_unknown_or_given_twice_is_named() {
    let world = World::new().await;
    let account = world.link_admin().await;
    let walks = format!("/accounts/{account}/walks");
    for path in [
        "/iam/users",
        "/iam/users/1",
        "/iam/roles",
        "/iam/roles/1",
        "/iam/groups",
        "/iam/groups/1",
        "/iam",
        "/iam/me",
        "/unified/iam/users",
        "/accounts",
        walks.as_str(),
    ] {
        for (query, name) in [
            ("pagesize=3", "pagesize"),
            ("page%53ize=3", "pageSize"),
            ("filter%5Bmail%5D=a", "filter[mail]"),
            ("fields=id&filed=x", "filed"),
            ("next=a&next=a", "next"),
            ("page_size=1&page_size=1", "page_size"),
            ("page_size=1&page%5Fsize=1", "page_size"),
            ("Fields=id", "Fields"),
        ] {
            let reply = world.read(&account, &format!("{path}?{query}")).await;
            let body = reply.refused(400, "invalid_parameter");
            let message = body["message"].as_str().unwrap();
            // A route that has no such parameter at all names the first that it does not know.
            let first = query.split(['=', '&']).next().unwrap();
            let is_named = message.contains(name) || message.contains(&format!("`{first}`"));
            assert!(is_named, "{path}?{query}: {message}");
        }
    }
}

/// A cursor of these lists holds a number or an id, which anybody could make, and a MAC, which nobody
/// else can.
#[tokio::test]
async fn a_cursor_of_keys_of_the_log_or_of_walks_is_good_for_its_own_list_alone() {
    let world = World::new().await;
    let account = world.link_admin().await;
    let other = world.link_admin().await;
    for account in [&account, &account, &other, &other] {
        world.walk(account).await;
        world.key_of("one", &[Scope::IamRead]).await;
    }
    let lists = [
        "/api_keys?page_size=1".to_owned(),
        "/audit?page_size=1".to_owned(),
        "/audit?page_size=1&action=api_key.created".to_owned(),
        format!("/accounts/{account}/walks?page_size=1"),
        format!("/accounts/{other}/walks?page_size=1"),
    ];
    let mut cursors = Vec::new();
    for list in &lists {
        let page = world.get(list).await.expect(200);
        cursors.push(next(&page));
        let record = &page["data"][0];
        let bare = record["id"].as_str().map(str::to_owned);
        let bare = bare.unwrap_or_else(|| record["sequence"].to_string());
        let answer = world.get(&format!("{list}&next={bare}")).await;
        answer.refused(400, "invalid_cursor");
    }
    let stranger = world
        .project("two", &[Scope::Admin, Scope::AccountsRead])
        .await;
    let bearer = format!("Bearer {stranger}");
    let strange = [("authorization", bearer.as_str())];
    for (index, list) in lists.iter().enumerate() {
        for (from, cursor) in cursors.iter().enumerate() {
            let path = format!("{list}&next={cursor}");
            let answer = world.get(&path).await;
            if index == from {
                answer.expect(200);
            } else {
                answer.refused(400, "invalid_cursor");
            }
            if index < 3 {
                let answer = world.send(Method::GET, &path, &strange, None).await;
                answer.refused(400, "invalid_cursor");
            }
        }
        for place in 0..cursors[index].len() {
            let mut forged = cursors[index].clone().into_bytes();
            forged[place] = if forged[place] == b'A' { b'B' } else { b'A' };
            let forged = String::from_utf8(forged).unwrap();
            // The last letter has bits that mean nothing.
            if place + 1 < forged.len() {
                let answer = world.get(&format!("{list}&next={forged}")).await;
                answer.refused(400, "invalid_cursor");
            }
        }
    }
}
