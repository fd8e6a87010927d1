//! `raw=true`: where the records of an answer came from. Each url that is told is asked again, with
//! the account's own token, and has the records.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::world::{Plan, Reply, World, reply};

struct Told {
    records: Vec<Value>,
    reads: Vec<Value>,
}

async fn told(world: &World, account: &str, path: &str) -> Told {
    let body = world.read(account, path).await.expect(200);
    let records = match &body["data"] {
        Value::Array(records) => records.clone(),
        record => vec![record.clone()],
    };
    Told {
        records,
        reads: body["raw"].as_array().unwrap().clone(),
    }
}

impl Told {
    /// Every id that the provider gives at these urls, members of groups included.
    async fn asked_again(&self, world: &World, token: &str) -> BTreeSet<String> {
        let mut ids = BTreeSet::new();
        for read in &self.reads {
            assert_eq!(read["method"], "GET");
            assert_eq!(read.as_object().unwrap().len(), 2, "{read}");
            let url = read["url"].as_str().unwrap();
            assert!(!url.contains(token) && !url.contains('@'), "{url}");
            let answer = reply(world.client.get(url).bearer_auth(token))
                .await
                .expect(200);
            let note = |rows: &Value| {
                let rows = rows.as_array().into_iter().flatten();
                rows.map(|row| row["id"].to_string()).collect::<Vec<_>>()
            };
            ids.insert(answer["id"].to_string());
            ids.extend(note(&answer["data"]));
            ids.extend(note(&answer["members"]));
        }
        ids
    }
}

#[tokio::test]
async fn each_record_is_found_again_where_raw_says_that_it_came_from() {
    let world = World::with(Plan {
        users: 250,
        groups: 12,
        ..Plan::default()
    })
    .await;
    let account = world.link_admin().await;
    let token = world.admin_token();
    for path in [
        "/iam/users?page_size=100&raw=true",
        "/iam/users?page_size=7&raw=true&filter[is_external]=true",
        "/iam/groups?page_size=100&raw=true",
    ] {
        let told = told(&world, &account, path).await;
        let ids = told.asked_again(&world, &token).await;
        assert!(!told.records.is_empty());
        for record in &told.records {
            let id = record["remote_id"].as_str().unwrap();
            assert!(ids.contains(id), "{path}: {record}");
        }
    }
    let all = world.all(&account, "users", "").await;
    let user = format!("/iam/users/{}?raw=true", all[200]["id"].as_str().unwrap());
    let told_of_one = told(&world, &account, &user).await;
    assert_eq!(told_of_one.reads.len(), 1);
    let ids = told_of_one.asked_again(&world, &token).await;
    assert!(ids.contains(all[200]["remote_id"].as_str().unwrap()));

    // Roles are read off the users.
    let roles = told(&world, &account, "/iam/roles?raw=true").await;
    assert_eq!(roles.reads.len(), 3);
    assert!(
        roles.reads[0]["url"]
            .as_str()
            .unwrap()
            .contains("/users?page=1")
    );
}

#[tokio::test]
async fn without_raw_nothing_is_told_and_with_it_the_etag_is_another() {
    let world = World::new().await;
    let account = world.link_admin().await;
    for path in ["/iam/users", "/iam/users?raw=false"] {
        let body = world.read(&account, path).await.expect(200);
        assert_eq!(body.get("raw"), None, "{path}");
    }
    world
        .read(&account, "/iam/users?raw=perhaps")
        .await
        .refused(400, "invalid_parameter");
    let etag = |reply: Reply| reply.header("etag").unwrap().to_owned();
    let plain = etag(world.read(&account, "/iam/users").await);
    let raw = etag(world.read(&account, "/iam/users?raw=true").await);
    assert_ne!(plain, raw);
}
