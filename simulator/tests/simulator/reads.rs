//! Reads: lists, profiles, the caller, plans, groups, and what each caller may see.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::house::{ids, reply, start};

#[tokio::test]
async fn a_list_has_its_envelope_and_includes_all_without_a_page_size() {
    let house = start().await;
    let page = house.get("/users?page=2&pageSize=50").await;
    let insiders = page.body["totalCount"].as_u64().unwrap();
    assert_eq!(
        (&page.body["pageNumber"], &page.body["pageSize"]),
        (&Value::from(2), &Value::from(50))
    );
    assert_eq!(page.body["totalPages"], insiders.div_ceil(50));
    assert_eq!(page.rows().len(), 50);
    for all in ["true", "True", "TRUE"] {
        let all = house
            .get(&format!("/users?includeAll={all}&page=7&pageSize=3"))
            .await;
        assert_eq!(all.rows().len() as u64, insiders);
        assert!(all.body.get("pageSize").is_none());
        assert_eq!(
            (&all.body["pageNumber"], &all.body["totalPages"]),
            (&Value::from(1), &Value::from(1))
        );
    }
}

#[tokio::test]
async fn a_removal_between_pages_hides_a_row_as_offset_paging_does() {
    let house = start().await;
    let all = ids(house.get("/users?includeAll=true").await.rows());
    let first = ids(house.get("/users?pageSize=20").await.rows());
    house
        .control("mutate", json!([{"op": "remove_user", "id": first[15]}]))
        .await;
    let second = ids(house.get("/users?pageSize=20&page=2").await.rows());
    assert_eq!(
        second,
        all[21..41],
        "the row behind the first page is in neither"
    );
}

#[tokio::test]
async fn the_list_with_a_plan_is_the_truth_and_without_one_has_neither_guests_nor_seats() {
    let house = start().await;
    let (truth, plan) = (house.truth().await, house.plan().await);
    let mut rows = house
        .get(&format!(
            "/users?planId={plan}&include=lastLogin&pageSize=100"
        ))
        .await
        .rows()
        .clone();
    rows.extend(
        house
            .get(&format!("/users?planId={plan}&include=lastLogin&page=2"))
            .await
            .rows()
            .clone(),
    );
    assert_eq!(&rows, truth["users"].as_array().unwrap());
    let bare = house.get("/users?includeAll=true").await;
    assert!(
        bare.rows()
            .iter()
            .all(|user| user["isInternal"] == true && user.get("seatType").is_none())
    );
    assert!(bare.rows().len() < rows.len());
}

#[tokio::test]
async fn last_login_comes_with_a_hundred_rows_and_not_with_more() {
    let house = start().await;
    let has_login = |rows: &[Value]| rows.iter().any(|user| user.get("lastLogin").is_some());
    assert!(has_login(
        house
            .get("/users?include=lastLogin&pageSize=100")
            .await
            .rows()
    ));
    assert!(!has_login(
        house
            .get("/users?include=lastLogin&pageSize=101")
            .await
            .rows()
    ));
    assert!(has_login(
        house
            .get("/users?include=lastLogin&pageSize=101&page=2")
            .await
            .rows()
    ));
    assert!(!has_login(
        house
            .get("/users?include=lastLogin&includeAll=true")
            .await
            .rows()
    ));
    assert!(!has_login(house.get("/users").await.rows()));
}

#[tokio::test]
async fn filters_by_address_and_by_seat_hold() {
    let house = start().await;
    let path = "/users?email=BELA.kovacs@example.org,nobody@example.org,ana.ruiz@example.org,kim.gast@partner.example";
    let found = house.get(path).await;
    let emails: Vec<&str> = found
        .rows()
        .iter()
        .map(|user| user["email"].as_str().unwrap())
        .collect();
    assert_eq!(emails, ["ana.ruiz@example.org", "bela.kovacs@example.org"]);
    let truth = house.truth().await;
    for (seat, shown) in [
        ("GUEST", &["GUEST"][..]),
        ("MEMBER", &["MEMBER"]),
        ("VIEWER", &["VIEWER", "CONTRIBUTOR"]),
    ] {
        let listed = house
            .get(&format!("/users?seatType={seat}&includeAll=true"))
            .await;
        let known = truth["users"].as_array().unwrap().iter();
        let known: Vec<Value> = known
            .filter(|user| shown.contains(&user["seatType"].as_str().unwrap()))
            .cloned()
            .collect();
        assert_eq!(ids(listed.rows()), ids(&known), "{seat}");
    }
}

#[tokio::test]
async fn contributors_are_shown_under_one_name_if_the_request_says_which() {
    let house = start().await;
    let plan = house.plan().await;
    let seats = async |query: &str| -> BTreeSet<String> {
        let reply = house
            .get(&format!("/users?planId={plan}&includeAll=true{query}"))
            .await;
        reply
            .rows()
            .iter()
            .map(|user| user["seatType"].as_str().unwrap().to_owned())
            .collect()
    };
    let has = |seats: &BTreeSet<String>| (seats.contains("CONTRIBUTOR"), seats.contains("VIEWER"));
    assert_eq!(has(&seats("").await), (true, true));
    assert_eq!(
        has(&seats("&displayContributorSeatType=true").await),
        (true, false)
    );
    assert_eq!(
        has(&seats("&displayContributorSeatType=false").await),
        (false, true)
    );
}

#[tokio::test]
async fn dates_are_text_or_milliseconds() {
    let house = start().await;
    let plan = house.plan().await;
    let text = house
        .get(&format!(
            "/users?planId={plan}&pageSize=1&include=lastLogin"
        ))
        .await
        .rows()[0]
        .clone();
    let numeric = house
        .get(&format!(
            "/users?planId={plan}&pageSize=1&include=lastLogin&numericDates=true"
        ))
        .await
        .rows()[0]
        .clone();
    assert!(
        text["lastLogin"].as_str().unwrap().ends_with('Z')
            && text["lastLogin"].as_str().unwrap().len() == 20
    );
    assert_eq!(
        text["seatTypeLastChangedAt"].as_str().unwrap().len(),
        "2026-02-03T09:15:22.410233Z".len()
    );
    assert!(numeric["lastLogin"].is_i64() && numeric["seatTypeLastChangedAt"].is_i64());
    let group = house.get("/groups?numericDates=true").await.rows()[0].clone();
    assert!(group["createdAt"].is_i64() && group["modifiedAt"].is_i64());
}

#[tokio::test]
async fn only_a_system_admin_sees_flags_and_seats() {
    let house = start().await;
    let plan = house.plan().await;
    let for_admins = [
        "admin",
        "groupAdmin",
        "licensedSheetCreator",
        "resourceViewer",
        "status",
        "isInternal",
        "sheetCount",
        "lastLogin",
    ];
    for token in [&house.is().tokens.member, &house.is().tokens.group_admin] {
        let list = house
            .get_as(token, "/users?include=lastLogin&includeAll=true")
            .await;
        for user in list.rows() {
            assert!(
                for_admins.iter().all(|field| user.get(field).is_none()),
                "{user}"
            );
            assert!(user.get("seatType").is_none());
        }
        let id = list.rows()[0]["id"].as_u64().unwrap();
        let profile = house.get_as(token, &format!("/users/{id}")).await.body;
        assert!(
            for_admins.iter().all(|field| profile.get(field).is_none()),
            "{profile}"
        );
        assert_eq!(
            house
                .get_as(token, &format!("/users?planId={plan}"))
                .await
                .refusal(),
            (403, 1004)
        );
        assert_eq!(
            house
                .get_as(token, "/users?seatType=MEMBER")
                .await
                .refusal(),
            (403, 1004)
        );
        assert_eq!(
            house
                .get_as(token, &format!("/users/{id}/plans"))
                .await
                .refusal(),
            (403, 1004)
        );
    }
    let page = house.get("/users?pageSize=1&include=lastLogin").await;
    let row = &page.rows()[0];
    assert!(
        for_admins.iter().all(|field| row.get(field).is_some()),
        "{row}"
    );
    assert_eq!(row["sheetCount"], -1);
    let idle = house.person("invited@example.org").await;
    assert!(idle.get("sheetCount").is_none() && idle.get("lastLogin").is_none());
}

#[tokio::test]
async fn a_profile_has_all_its_keys() {
    let house = start().await;
    let always = [
        "id",
        "account",
        "company",
        "department",
        "email",
        "firstName",
        "jiraAdmin",
        "lastName",
        "locale",
        "mobilePhone",
        "role",
        "salesforceAdmin",
        "salesforceUser",
        "timeZone",
        "title",
        "workPhone",
    ];
    let of_admins = [
        "admin",
        "groupAdmin",
        "licensedSheetCreator",
        "resourceViewer",
        "status",
    ];
    for email in [
        "invited@example.org",
        "kim.gast@partner.example",
        "hana.novakova@example.org",
    ] {
        let profile = house
            .get(&format!("/users/{}", house.id(email).await))
            .await
            .body;
        assert!(
            always
                .iter()
                .chain(&of_admins)
                .all(|field| profile.get(field).is_some()),
            "{profile}"
        );
        assert!(profile.get("seatType").is_none());
    }
}

#[tokio::test]
async fn everybody_may_ask_who_they_are_and_is_told_their_flags_but_no_status() {
    let house = start().await;
    let tokens = &house.is().tokens;
    for (token, admin, group_admin) in [
        (&tokens.system_admin, true, true),
        (&tokens.group_admin, false, true),
        (&tokens.member, false, false),
        (&tokens.no_read_users, false, false),
    ] {
        let me = house.get_as(token, "/users/me").await.body;
        assert_eq!(
            (me["admin"].as_bool(), me["groupAdmin"].as_bool()),
            (Some(admin), Some(group_admin))
        );
        assert!(me.get("status").is_none() && me["account"]["id"].is_u64());
    }
}

#[tokio::test]
async fn the_caller_s_groups_come_along_on_demand() {
    let house = start().await;
    let truth = house.truth().await;
    let me = house.get("/users/me?include=groups").await.body;
    let is_mine = |group: &&Value| {
        ids(group["members"].as_array().unwrap()).contains(&me["id"].as_u64().unwrap())
    };
    let mine: Vec<Value> = truth["groups"]
        .as_array()
        .unwrap()
        .iter()
        .filter(is_mine)
        .cloned()
        .collect();
    assert_eq!(ids(me["data"].as_array().unwrap()), ids(&mine));
    assert!(house.get("/users/me").await.body.get("data").is_none());
}

#[tokio::test]
async fn plans_come_page_by_page_and_only_the_own_one_may_be_read() {
    let house = start().await;
    let me = house.get("/users/me").await.body["id"].as_u64().unwrap();
    let mut plans = Vec::new();
    let (mut path, mut pages) = (format!("/users/{me}/plans?maxItems=100"), 0);
    loop {
        let page = house.get(&path).await;
        plans.extend(page.rows().clone());
        pages += 1;
        let Some(key) = page.body["lastKey"].as_str() else {
            break;
        };
        path = format!("/users/{me}/plans?include=planName&lastKey={key}");
    }
    assert_eq!((plans.len(), pages), (2, 3), "the first page is empty");
    assert_eq!(
        (
            plans[0]["planName"].as_str(),
            plans[0]["isInternal"].as_bool()
        ),
        (Some("Example Ltd"), Some(true))
    );
    assert_eq!(
        (
            plans[1]["seatType"].as_str(),
            plans[1]["isInternal"].as_bool()
        ),
        (Some("GUEST"), Some(false))
    );
    assert!(
        plans
            .iter()
            .all(|plan| plan.get("provisionalExpirationDate").is_some())
    );
    let foreign = format!("/users?planId={}", plans[1]["planId"]);
    assert_eq!(house.get(&foreign).await.refusal(), (403, 1013));
    assert_eq!(
        house.get("/users?planId=12345").await.refusal(),
        (404, 1006)
    );
    assert_eq!(
        house
            .get(&format!("/users/{me}/plans?maxItems=99"))
            .await
            .refusal(),
        (400, 1018)
    );
    let other = house.id("bela.kovacs@example.org").await;
    let page = house
        .get(&format!("/users/{other}/plans?lastKey=after-1"))
        .await;
    assert!(page.rows().len() == 1 && page.body.get("lastKey").is_none());
}

#[tokio::test]
async fn groups_are_listed_without_members_and_read_with_all_of_them() {
    let house = start().await;
    let truth = house.truth().await;
    let known = truth["groups"].as_array().unwrap();
    let listed = house
        .get_as(&house.is().tokens.member, "/groups?includeAll=true")
        .await;
    assert_eq!(ids(listed.rows()), ids(known));
    assert!(
        listed
            .rows()
            .iter()
            .all(|group| group.get("members").is_none())
    );
    for group in known {
        assert_eq!(
            &house.get(&format!("/groups/{}", group["id"])).await.body,
            group
        );
    }
}

#[tokio::test]
async fn groups_modified_since_are_those() {
    let house = start().await;
    let all = house.get("/groups?includeAll=true").await;
    let newest = all
        .rows()
        .iter()
        .map(|group| group["modifiedAt"].as_str().unwrap())
        .max()
        .unwrap()
        .to_owned();
    let since = house.get(&format!("/groups?modifiedSince={newest}")).await;
    assert_eq!(since.rows().len(), 1);
    assert_eq!(since.rows()[0]["modifiedAt"], newest);
    assert_eq!(
        house.get("/groups?modifiedSince=soon").await.refusal(),
        (400, 1018)
    );
}

#[tokio::test]
async fn alternate_addresses_are_read_by_list_and_by_id() {
    let house = start().await;
    let iris = house.id("iris.tanaka@example.org").await;
    let list = house.get(&format!("/users/{iris}/alternateemails")).await;
    let confirmed: Vec<bool> = list
        .rows()
        .iter()
        .map(|row| row["confirmed"].as_bool().unwrap())
        .collect();
    assert_eq!(confirmed, [true, false]);
    let one = house
        .get(&format!(
            "/users/{iris}/alternateemails/{}",
            list.rows()[1]["id"]
        ))
        .await;
    assert_eq!(one.body, list.rows()[1]);
}

#[tokio::test]
async fn server_info_takes_no_token_and_there_are_no_sheets() {
    let house = start().await;
    let info = reply(
        house
            .http
            .get(format!("{}/serverinfo", house.is().api_base)),
    )
    .await;
    assert!(info.status == 200 && info.body["supportedLocales"].is_array());
    assert_eq!(house.get("/users/sheets").await.body["totalCount"], 0);
}
