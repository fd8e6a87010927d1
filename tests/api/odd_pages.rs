//! Lists as no simulator gives them: rows that do not tell whose they are, pages of another size
//! than was asked for, totals that are wrong. Each page is the provider's own, changed on its way.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};

use crate::world::{Plan, World};

/// A world whose list of users can be asked for as a walk asks for it.
async fn world(users: usize) -> World {
    let plan = Plan {
        users,
        groups: 0,
        ..Plan::default()
    };
    let world = World::with(plan).await;
    world
        .switches(&json!({"list_guests_without_plan_id": true, "seats_without_plan_id": true}))
        .await;
    world
}

/// A page of the provider's users, of `size` rows.
async fn page(world: &World, number: u64, size: u64) -> Value {
    let base = &world.simulator.announcement().api_base;
    let bearer = format!("Bearer {}", world.admin_token());
    let path = format!("/users?page={number}&pageSize={size}&include=lastLogin");
    let headers = [("authorization", bearer.as_str())];
    let reply = world.send_to(base, Method::GET, &path, &headers, None);
    reply.await.expect(200)
}

/// From now on the provider answers with these in place of the pages of its users, by number.
async fn serve(world: &World, pages: &[(u64, Value)]) {
    let faults = pages.iter().map(|(number, page)| {
        json!({
            "match": {"path_prefix": "/users", "page": number},
            "fault": {
                "kind": "body",
                "status": 200,
                "content_type": "application/json",
                "body": page.to_string(),
            },
        })
    });
    world.faults(&faults.collect()).await;
}

async fn served(world: &World, account: &str) -> BTreeSet<String> {
    let users = world.all(account, "users", "").await;
    users
        .iter()
        .map(|user| user["remote_id"].as_str().unwrap().to_owned())
        .collect()
}

async fn all(world: &World) -> BTreeSet<String> {
    let users = world.somebody(|_| true).await;
    users.into_iter().collect()
}

async fn summary(world: &World, account: &str) -> Value {
    world.read(account, "/iam").await.expect(200)["data"].clone()
}

/// The samples of the counter of rows that were left out.
async fn counted(world: &World, list: &str) -> f64 {
    let page = world.get("/metrics").await;
    let text = String::from_utf8(page.bytes).unwrap();
    let sample = format!("rolecall_quarantined_rows_total{{list=\"{list}\"}} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&sample));
    line.map_or(0.0, |value| value.parse().unwrap())
}

fn nobody() -> Value {
    json!({"users": 0, "groups": 0})
}

#[tokio::test]
async fn a_row_without_a_usable_id_is_told_everywhere_and_costs_nobody_else() {
    let mut world = world(40).await;
    let account = world.link_admin().await;
    let before = served(&world, &account).await;
    assert_eq!(summary(&world, &account).await["quarantined"], nobody());
    let whole = page(&world, 1, 100).await;
    let hidden = whole["data"][7]["id"].to_string();

    let mut odd = whole.clone();
    for bad in [json!(null), json!("abc"), json!(1.5), json!({}), json!("")] {
        odd["data"][7]["id"] = bad;
        serve(&world, &[(1, odd.clone())]).await;
        let walk = world.walk(&account).await;
        assert_eq!(walk["state"], "sealed", "{walk}");
        assert_eq!(walk["quarantined"], 1);
        let stored = format!("/accounts/{account}/walks/{}", walk["id"].as_str().unwrap());
        assert_eq!(world.get(&stored).await.expect(200), walk);
    }
    // They are there by id. Whether the list has them nobody can say, in however many walks.
    assert_eq!(served(&world, &account).await, before);
    let user = world.read(&account, &format!("/iam/users/{hidden}")).await;
    let user = user.expect(200)["data"].clone();
    assert_eq!(
        (&user["listed"], &user["suspected"]),
        (&json!(true), &json!(false))
    );
    let left_out = json!({"users": 1, "groups": 0});
    assert_eq!(summary(&world, &account).await["quarantined"], left_out);
    assert_eq!(counted(&world, "users").await, 5.0);

    // The directory goes on saying so, also where nothing has changed since and nobody walks.
    let etag = world.read(&account, "/iam").await;
    let etag = etag.header("etag").unwrap().to_owned();
    world.restart().await;
    assert_eq!(summary(&world, &account).await["quarantined"], left_out);

    world.no_faults().await;
    let walk = world.walk(&account).await;
    assert_eq!(walk["quarantined"], 0);
    let answer = world
        .read_with(&account, "/iam", &[("if-none-match", &etag)])
        .await;
    assert_eq!(answer.expect(200)["data"]["quarantined"], nobody());
    assert_eq!(served(&world, &account).await, before);
}

#[tokio::test]
async fn whoever_is_gone_leaves_though_a_row_has_no_usable_id() {
    let world = world(40).await;
    let account = world.link_admin().await;
    let gone = world
        .somebody(|user| user["admin"] == false && user["groupAdmin"] == false)
        .await
        .split_off(6)
        .swap_remove(0);
    let remove = json!([{"op": "remove_user", "id": gone.parse::<u64>().unwrap()}]);
    world.mutate(&remove).await;
    let mut odd = page(&world, 1, 100).await;
    odd["data"][9]["id"] = json!([]);
    serve(&world, &[(1, odd)]).await;
    let walk = world.walk(&account).await;
    assert_eq!(
        (&walk["state"], &walk["quarantined"]),
        (&json!("sealed"), &json!(1))
    );
    assert_eq!(served(&world, &account).await, all(&world).await);
}

#[tokio::test]
async fn more_rows_without_an_id_than_a_few_fail_the_walk_and_a_few_do_not_hold_it() {
    let world = world(40).await;
    let account = world.link_admin().await;
    let before = served(&world, &account).await;
    let mut odd = page(&world, 1, 100).await;
    for row in 0..3 {
        odd["data"][10 + row].as_object_mut().unwrap().remove("id");
    }
    serve(&world, &[(1, odd.clone())]).await;
    let walk = world.walk(&account).await;
    assert_eq!(
        (&walk["state"], &walk["quarantined"]),
        (&json!("sealed"), &json!(3))
    );
    odd["data"][20] = json!("a row");
    serve(&world, &[(1, odd)]).await;
    let walk = world.walk(&account).await;
    assert_eq!(walk["reason"], "too_many_invalid_records");
    assert_eq!(walk["quarantined"], 4);
    assert_eq!(served(&world, &account).await, before);
    // Of the directory that is served, the last sealed walk counts.
    let left_out = json!({"users": 3, "groups": 0});
    assert_eq!(summary(&world, &account).await["quarantined"], left_out);
}

#[tokio::test]
async fn a_provider_that_gives_fewer_rows_a_page_than_asked_for_is_read_whole() {
    let world = world(600).await;
    world.switches(&json!({"page_size_cap": 25})).await;
    let account = world.link_admin().await;
    assert_eq!(served(&world, &account).await, all(&world).await);
    let walk = world.walk(&account).await;
    assert_eq!(
        (&walk["state"], &walk["reason"]),
        (&json!("sealed"), &Value::Null)
    );
}

#[tokio::test]
async fn counts_of_a_page_may_be_texts() {
    let world = world(130).await;
    let mut pages = Vec::new();
    for number in 1..=2 {
        let mut page = page(&world, number, 100).await;
        for field in ["pageNumber", "pageSize", "totalPages", "totalCount"] {
            page[field] = json!(page[field].to_string());
        }
        pages.push((number, page));
    }
    serve(&world, &pages).await;
    let account = world.link_admin().await;
    assert_eq!(served(&world, &account).await, all(&world).await);
}

#[tokio::test]
async fn a_total_that_is_only_its_pages_count_is_not_sealed() {
    let world = world(250).await;
    let mut pages = Vec::new();
    for number in 1..=3 {
        let mut page = page(&world, number, 100).await;
        page["totalCount"] = json!(page["data"].as_array().unwrap().len());
        page["totalPages"] = json!(1);
        pages.push((number, page));
    }
    serve(&world, &pages).await;
    let account = world.link_admin().await;
    assert_eq!(served(&world, &account).await, all(&world).await);
    // Nor does it make anybody seem to be gone later.
    let walk = world.walk(&account).await;
    assert_eq!(
        (&walk["state"], &walk["reason"]),
        (&json!("sealed"), &Value::Null)
    );
    assert_eq!(served(&world, &account).await, all(&world).await);
}

#[tokio::test]
async fn a_first_walk_looks_past_a_full_last_page_once_and_a_later_one_does_not() {
    for past_end in ["empty", "repeat_last"] {
        let world = world(200).await;
        world.switches(&json!({"page_past_end": past_end})).await;
        let asked = async |seq| {
            let log = world.provider_log(seq).await;
            let users = log.iter().filter(|call| call["path"] == "/2.0/users");
            users.count()
        };
        let account = world.link_admin().await;
        // One call more found out whether the token may read users.
        assert_eq!(asked(0).await, 1 + 3, "{past_end}");
        assert_eq!(served(&world, &account).await, all(&world).await);
        let seq = world.provider_calls().await;
        world.walk(&account).await;
        assert_eq!(asked(seq).await, 2, "{past_end}");
    }
}

#[tokio::test]
async fn a_provider_that_refuses_a_page_past_the_end_has_none() {
    let world = world(200).await;
    let refused = json!({"kind": "status", "status": 400, "error_code": 1018});
    let past_end = json!({"path_prefix": "/users", "page": 3});
    world
        .faults(&json!([{"match": past_end, "fault": refused}]))
        .await;
    let account = world.link_admin().await;
    assert_eq!(served(&world, &account).await, all(&world).await);
}

/// A proxy that mixes up replies.
#[tokio::test]
async fn another_user_than_was_asked_for_is_no_answer() {
    let world = world(40).await;
    let account = world.link_admin().await;
    let before = world.all(&account, "users", "").await;
    let mut list = page(&world, 1, 100).await;
    let rows = list["data"].as_array_mut().unwrap();
    let gone = rows.remove(7);
    let other = rows[7].clone();
    list["totalCount"] = json!(rows.len());
    let body = |body: &Value| {
        json!({
            "kind": "body",
            "status": 200,
            "content_type": "application/json",
            "body": body.to_string(),
        })
    };
    // Not listed, and answered for by another's record.
    world
        .faults(&json!([
            {"match": {"path_prefix": "/users", "page": 1}, "fault": body(&list)},
            {"match": {"path_prefix": format!("/users/{}", gone["id"])}, "fault": body(&other)},
        ]))
        .await;
    let walk = world.walk(&account).await;
    assert_eq!(walk["state"], "sealed", "{walk}");
    let after = world.all(&account, "users", "").await;
    assert_eq!(after.len(), before.len());
    let gone = gone["id"].to_string();
    for (after, before) in after.iter().zip(&before) {
        for field in ["remote_id", "name", "primary_email_address", "status"] {
            assert_eq!(after[field], before[field]);
        }
        let is_gone = after["remote_id"].as_str() == Some(&gone);
        assert_eq!(after["suspected"], is_gone, "{after}");
    }
}
