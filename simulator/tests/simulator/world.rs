//! The world at the start: the same for the same arguments, and full of traps.

use std::collections::BTreeSet;

use serde_json::Value;
use smartsheet_simulator::Options;

use crate::house::{ids, small, start, start_with};

const TWO_POW_53: u64 = 1 << 53;

fn users(truth: &Value) -> &Vec<Value> {
    truth["users"].as_array().unwrap()
}

fn groups(truth: &Value) -> &Vec<Value> {
    truth["groups"].as_array().unwrap()
}

#[tokio::test]
async fn the_same_arguments_give_the_same_world_and_the_same_tokens() {
    let (one, two) = (start().await, start().await);
    assert_eq!(one.truth().await, two.truth().await);
    assert_eq!(one.is().tokens.system_admin, two.is().tokens.system_admin);
    let other = start_with(Options { seed: 2, ..small() }).await;
    assert_ne!(one.truth().await, other.truth().await);
    assert_ne!(one.is().tokens.system_admin, other.is().tokens.system_admin);
}

#[tokio::test]
async fn it_has_as_many_users_and_groups_as_asked_for() {
    for (asked, made) in [(0, 5), (5, 5), (20, 20), (333, 333)] {
        let house = start_with(Options {
            users: asked,
            groups: asked / 10,
            ..small()
        })
        .await;
        let truth = house.truth().await;
        assert_eq!(
            (users(&truth).len(), groups(&truth).len()),
            (made, asked / 10)
        );
    }
}

#[tokio::test]
async fn ids_lie_on_both_sides_of_what_a_float_holds() {
    let house = start().await;
    let truth = house.truth().await;
    let ids = ids(users(&truth));
    assert!(ids.iter().any(|id| *id < TWO_POW_53));
    assert!(ids.iter().any(|id| *id > TWO_POW_53 && id % 2 == 0));
    assert!(ids.iter().any(|id| *id as f64 as u64 != *id));
    assert!(
        ids.iter().all(|id| *id < 100_000_000_000_000_000),
        "at most 17 digits"
    );
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len());
    let member = house
        .get_as(&house.is().tokens.member, "/users/me")
        .await
        .body["id"]
        .as_u64()
        .unwrap();
    assert!(member > TWO_POW_53 && member % 2 == 1, "{member}");
    let admin = house.get("/users/me").await.body["id"].as_u64().unwrap();
    assert!(admin < TWO_POW_53);
}

#[tokio::test]
async fn every_status_and_every_kind_of_seat_is_there() {
    let house = start().await;
    let truth = house.truth().await;
    let all = |field: &str| -> BTreeSet<String> {
        users(&truth)
            .iter()
            .map(|user| user[field].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(
        all("status"),
        ["ACTIVE", "DEACTIVATED", "DECLINED", "PENDING"]
            .map(str::to_owned)
            .into()
    );
    assert_eq!(
        all("seatType"),
        [
            "CONTRIBUTOR",
            "GUEST",
            "MEMBER",
            "PROVISIONAL_MEMBER",
            "VIEWER"
        ]
        .map(str::to_owned)
        .into()
    );
    let ends: Vec<&Value> = users(&truth)
        .iter()
        .filter_map(|user| user.get("provisionalExpirationDate"))
        .collect();
    assert!(ends.iter().any(|end| end.is_null()) && ends.iter().any(|end| end.is_string()));
}

#[tokio::test]
async fn null_is_sent_for_the_provisional_end_alone() {
    let house = start().await;
    for user in users(&house.truth().await) {
        for (field, value) in user.as_object().unwrap() {
            assert!(
                !value.is_null() || field == "provisionalExpirationDate",
                "{field} of {user}"
            );
        }
        if user["status"] == "ACTIVE" {
            let profile = house.get(&format!("/users/{}", user["id"])).await.body;
            assert!(
                profile
                    .as_object()
                    .unwrap()
                    .values()
                    .all(|value| !value.is_null()),
                "{profile}"
            );
        }
    }
}

#[tokio::test]
async fn some_have_no_name_and_some_a_name_that_differs_in_case_only_or_is_not_latin() {
    let house = start().await;
    let truth = house.truth().await;
    let nameless = users(&truth)
        .iter()
        .find(|user| user.get("name").is_none())
        .unwrap();
    let profile = house.get(&format!("/users/{}", nameless["id"])).await.body;
    assert_eq!(
        (profile["firstName"].as_str(), profile["lastName"].as_str()),
        (Some(""), Some(""))
    );
    let names = |rows: &Vec<Value>| -> Vec<String> {
        rows.iter()
            .filter_map(|row| row["name"].as_str())
            .map(str::to_owned)
            .collect()
    };
    for names in [names(users(&truth)), names(groups(&truth))] {
        let folded: BTreeSet<String> = names.iter().map(|name| name.to_lowercase()).collect();
        let distinct: BTreeSet<&String> = names.iter().collect();
        assert!(
            folded.len() < distinct.len(),
            "two names differ in case only"
        );
        assert!(names.iter().any(|name| !name.is_ascii()));
    }
}

#[tokio::test]
async fn guests_are_users_and_external_members_are_not() {
    let house = start().await;
    let truth = house.truth().await;
    let user_ids: BTreeSet<u64> = ids(users(&truth)).into_iter().collect();
    let guests = users(&truth)
        .iter()
        .filter(|user| user["isInternal"] == false)
        .count();
    assert!(guests > 0);
    let members = groups(&truth)
        .iter()
        .flat_map(|group| group["members"].as_array().unwrap());
    let externals: Vec<&Value> = members
        .filter(|member| !user_ids.contains(&member["id"].as_u64().unwrap()))
        .collect();
    assert!(!externals.is_empty());
    let reply = house.get(&format!("/users/{}", externals[0]["id"])).await;
    assert_eq!(reply.refusal(), (404, 1020));
}

#[tokio::test]
async fn one_group_is_empty_one_is_a_tenth_of_all_and_several_people_own_groups() {
    let house = start_with(Options {
        users: 1000,
        ..small()
    })
    .await;
    let truth = house.truth().await;
    let sizes: Vec<usize> = groups(&truth)
        .iter()
        .map(|group| group["members"].as_array().unwrap().len())
        .collect();
    assert!(sizes.contains(&0) && sizes.contains(&100), "{sizes:?}");
    let owners: BTreeSet<u64> = groups(&truth)
        .iter()
        .map(|group| group["ownerId"].as_u64().unwrap())
        .collect();
    assert!(owners.len() > 2);
}

#[tokio::test]
async fn somebody_among_the_first_thirty_has_alternate_addresses() {
    let house = start().await;
    let truth = house.truth().await;
    let mut found = 0;
    for user in users(&truth).iter().take(30) {
        let profile = house.get(&format!("/users/{}", user["id"])).await.body;
        found += profile["alternateEmails"].as_array().map_or(0, Vec::len);
    }
    assert_eq!(found, 2);
}

#[tokio::test]
async fn a_large_world_is_served_to_its_last_page() {
    let house = start_with(Options {
        users: 10_000,
        groups: 500,
        ..small()
    })
    .await;
    let first = house.get("/users").await;
    let pages = first.body["totalPages"].as_u64().unwrap();
    assert!(pages > 90);
    let mut seen = BTreeSet::new();
    for page in 1..=pages {
        seen.extend(ids(house.get(&format!("/users?page={page}")).await.rows()));
    }
    assert_eq!(
        seen.len() as u64,
        first.body["totalCount"].as_u64().unwrap()
    );
}
