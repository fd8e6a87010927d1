//! Writes of users and groups, and what is refused of them.

use reqwest::Method;
use serde_json::{Value, json};

use crate::house::{House, ids, reply, start};

fn new_user(email: &str) -> Value {
    json!({"email": email, "admin": false, "licensedSheetCreator": false, "firstName": "New", "lastName": "One"})
}

async fn add(house: &House, email: &str) -> u64 {
    let added = house
        .send(Method::POST, "/users?sendEmail=true", new_user(email))
        .await;
    assert_eq!(
        (
            added.status,
            &added.body["message"],
            &added.body["resultCode"]
        ),
        (200, &"SUCCESS".into(), &0.into())
    );
    added.body["result"]["id"].as_u64().unwrap()
}

async fn post(house: &House, path: &str) -> (u16, u64) {
    house.send(Method::POST, path, Value::Null).await.refusal()
}

async fn delete(house: &House, path: &str) -> (u16, u64) {
    house
        .send(Method::DELETE, path, Value::Null)
        .await
        .refusal()
}

#[tokio::test]
async fn who_is_added_is_invited_and_an_insider_by_address() {
    let house = start().await;
    let insider = add(&house, "new.one@example.org").await;
    add(&house, "new.one@elsewhere.example").await;
    let (inside, outside) = (
        house.person("new.one@example.org").await,
        house.person("new.one@elsewhere.example").await,
    );
    assert_eq!(
        (&inside["id"], &inside["status"], &inside["seatType"]),
        (&insider.into(), &"PENDING".into(), &"MEMBER".into())
    );
    assert_eq!(
        (&inside["isInternal"], &inside["licensedSheetCreator"]),
        (&true.into(), &true.into())
    );
    assert_eq!(
        (&outside["isInternal"], &outside["seatType"]),
        (&false.into(), &"GUEST".into())
    );
}

#[tokio::test]
async fn adding_is_refused_for_what_is_missing_wrong_or_taken() {
    let house = start().await;
    for (body, refusal) in [
        (
            json!({"admin": false, "licensedSheetCreator": true}),
            (400, 1012),
        ),
        (
            json!({"email": "a@example.org", "admin": false}),
            (400, 1012),
        ),
        (new_user("nonsense"), (400, 1031)),
        (new_user("ANA.ruiz@example.org"), (403, 1016)),
        (
            json!({"email": "a@example.org", "admin": false, "licensedSheetCreator": true, "king": 1}),
            (400, 1283),
        ),
    ] {
        assert_eq!(
            house
                .send(Method::POST, "/users", body.clone())
                .await
                .refusal(),
            refusal,
            "{body}"
        );
    }
    let alternate = house
        .send(Method::POST, "/users", new_user("itanaka@example.org"))
        .await;
    assert_eq!(alternate.status, 400);
    let detail = json!([{"alternateEmailAddress": "itanaka@example.org", "primaryEmailAddress": "iris.tanaka@example.org"}]);
    assert_eq!(alternate.body["detail"], detail);
    let member = &house.is().tokens.member;
    assert_eq!(
        house
            .send_as(member, Method::POST, "/users", new_user("b@example.org"))
            .await
            .refusal(),
        (403, 1004)
    );
}

#[tokio::test]
async fn an_external_member_who_is_added_keeps_the_id() {
    let house = start().await;
    let group = house.truth().await["groups"][1]["id"].clone();
    let path = format!("/groups/{group}/members");
    let external = house
        .send(Method::POST, &path, json!({"email": "x@elsewhere.example"}))
        .await
        .body["result"]["id"]
        .clone();
    assert_eq!(
        house.get(&format!("/users/{external}")).await.refusal(),
        (404, 1020)
    );
    assert_eq!(
        add(&house, "x@elsewhere.example").await,
        external.as_u64().unwrap()
    );
    assert_eq!(house.get(&format!("/users/{external}")).await.status, 200);
}

#[tokio::test]
async fn an_update_says_both_flags_and_keeps_the_rules() {
    let house = start().await;
    let path = |id: u64| format!("/users/{id}");
    let (me, chidi) = (
        house.id("ana.ruiz@example.org").await,
        house.id("chidi.okafor@example.org").await,
    );
    let put = async |id: u64, body: Value| house.send(Method::PUT, &path(id), body).await;
    let updated = put(
        chidi,
        json!({"admin": true, "licensedSheetCreator": true, "groupAdmin": true, "lastName": "O"}),
    )
    .await;
    assert_eq!(
        (
            &updated.body["result"]["admin"],
            &updated.body["result"]["name"]
        ),
        (&true.into(), &"Chidi O".into())
    );
    assert_eq!(
        put(chidi, json!({"admin": true})).await.refusal(),
        (400, 1012)
    );
    let both =
        |admin: bool, licensed: bool| json!({"admin": admin, "licensedSheetCreator": licensed});
    assert_eq!(put(chidi, both(true, false)).await.refusal(), (403, 1102));
    let viewer = json!({"admin": false, "licensedSheetCreator": false, "groupAdmin": false, "resourceViewer": true});
    assert_eq!(put(chidi, viewer).await.refusal(), (403, 1097));
    assert_eq!(put(me, both(false, true)).await.refusal(), (403, 1049));
    assert_eq!(
        put(house.id("gus.declan@example.org").await, both(false, true))
            .await
            .refusal(),
        (403, 1048)
    );
    assert_eq!(put(1, both(false, true)).await.refusal(), (404, 1020));
    let email = json!({"admin": false, "licensedSheetCreator": true, "email": "c@example.org"});
    assert_eq!(put(chidi, email).await.refusal(), (400, 1032));
}

#[tokio::test]
async fn a_removed_user_is_gone_from_lists_and_groups_and_keeps_the_id_on_return() {
    let house = start().await;
    let id = add(&house, "brief@example.org").await;
    let group = house.truth().await["groups"][1]["id"].clone();
    house
        .send(
            Method::POST,
            &format!("/groups/{group}/members"),
            json!({"email": "brief@example.org"}),
        )
        .await;
    assert_eq!(
        delete(&house, &format!("/users/{id}?transferTo=1")).await,
        (400, 1018),
        "not for the invited"
    );
    assert_eq!(delete(&house, &format!("/users/{id}")).await.0, 200);
    assert_eq!(
        house.get(&format!("/users/{id}")).await.refusal(),
        (404, 1020)
    );
    assert!(
        !house
            .truth()
            .await
            .to_string()
            .contains("brief@example.org")
    );
    assert_eq!(add(&house, "brief@example.org").await, id);
}

#[tokio::test]
async fn whoever_owns_groups_is_removed_only_when_they_have_gone_to_a_group_admin() {
    let house = start().await;
    let farah = house.id("farah.haddad@example.org").await;
    let owned = async || {
        let truth = house.truth().await;
        truth["groups"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|group| group["ownerId"] == farah)
            .count()
    };
    assert!(owned().await > 0);
    let path = format!("/users/{farah}");
    assert_eq!(delete(&house, &path).await, (400, 1108));
    assert_eq!(
        delete(&house, &format!("{path}?transferTo=1")).await,
        (400, 1019)
    );
    let to = |id: u64| format!("{path}?transferTo={id}&transferSheets=true&removeFromSharing=true");
    assert_eq!(
        delete(&house, &to(house.id("kim.gast@partner.example").await)).await,
        (403, 1021)
    );
    assert_eq!(
        delete(&house, &to(house.id("chidi.okafor@example.org").await)).await,
        (400, 1107)
    );
    assert_eq!(
        delete(&house, &to(house.id("bela.kovacs@example.org").await))
            .await
            .0,
        200
    );
    assert_eq!(owned().await, 0);
    assert_eq!(
        delete(
            &house,
            &format!("/users/{}", house.id("ana.ruiz@example.org").await)
        )
        .await,
        (403, 1047)
    );
}

#[tokio::test]
async fn deactivation_and_back_keep_status_and_roles() {
    let house = start().await;
    let id = house.id("bela.kovacs@example.org").await;
    for _ in 0..2 {
        assert_eq!(
            post(&house, &format!("/users/{id}/deactivate")).await.0,
            200,
            "twice is once"
        );
    }
    assert_eq!(
        house.person("bela.kovacs@example.org").await["status"],
        "DEACTIVATED"
    );
    assert_eq!(
        house
            .get_as(&house.is().tokens.group_admin, "/users/me")
            .await
            .refusal(),
        (401, 1002)
    );
    assert_eq!(
        post(&house, &format!("/users/{id}/reactivate")).await.0,
        200
    );
    let back = house.person("bela.kovacs@example.org").await;
    assert_eq!(
        (&back["status"], &back["groupAdmin"]),
        (&"ACTIVE".into(), &true.into())
    );
    let me = house.id("ana.ruiz@example.org").await;
    assert_eq!(
        post(&house, &format!("/users/{me}/deactivate")).await,
        (403, 1336)
    );
    assert_eq!(
        post(&house, &format!("/users/{me}/reactivate")).await,
        (403, 1355)
    );
    let guest = house.id("kim.gast@partner.example").await;
    assert_eq!(
        post(&house, &format!("/users/{guest}/deactivate")).await,
        (403, 1335)
    );
    assert_eq!(
        post(&house, &format!("/users/{guest}/reactivate")).await,
        (403, 1354)
    );
    let consumer = add(&house, "somebody@gmail.com").await;
    assert_eq!(
        post(&house, &format!("/users/{consumer}/deactivate")).await,
        (403, 1359)
    );
}

#[tokio::test]
async fn seats_go_up_and_down_as_they_fit() {
    let house = start().await;
    let plan = house.plan().await;
    let change = async |email: &str, way: &str, seat: Value| {
        let path = format!("/users/{}/plans/{plan}/{way}", house.id(email).await);
        house
            .send(
                Method::POST,
                &path,
                if seat.is_null() {
                    seat
                } else {
                    json!({"seatType": seat})
                },
            )
            .await
            .refusal()
    };
    let chidi = "chidi.okafor@example.org";
    let before = house.person(chidi).await["seatTypeLastChangedAt"].clone();
    assert_eq!(
        change(chidi, "downgrade", "CONTRIBUTOR".into()).await.0,
        200
    );
    let down = house.person(chidi).await;
    assert_eq!(
        (&down["seatType"], &down["licensedSheetCreator"]),
        (&"CONTRIBUTOR".into(), &false.into())
    );
    assert_ne!(down["seatTypeLastChangedAt"], before);
    assert_eq!(
        change(chidi, "downgrade", "CONTRIBUTOR".into()).await.0,
        200,
        "twice is once"
    );
    assert_eq!(
        house.person(chidi).await["seatTypeLastChangedAt"],
        down["seatTypeLastChangedAt"]
    );
    assert_eq!(change(chidi, "upgrade", Value::Null).await.0, 200);
    assert_eq!(house.person(chidi).await["seatType"], "MEMBER");
    for (way, seat) in [
        ("downgrade", "VIEWER"),
        ("downgrade", "GUEST"),
        ("upgrade", "GUEST"),
        ("upgrade", "CONTRIBUTOR"),
    ] {
        assert_eq!(
            change(chidi, way, seat.into()).await,
            (400, 1031),
            "{way} {seat}"
        );
    }
    assert_eq!(
        change("kim.gast@partner.example", "upgrade", "MEMBER".into())
            .await
            .0,
        200
    );
    assert_eq!(
        change("kim.gast@partner.example", "downgrade", "GUEST".into())
            .await
            .0,
        200
    );
    let chidi_id = house.id(chidi).await;
    assert_eq!(
        post(&house, &format!("/users/{chidi_id}/plans/1/upgrade")).await,
        (404, 1006)
    );
    assert_eq!(
        delete(&house, &format!("/users/{chidi_id}/plans/{plan}"))
            .await
            .0,
        200
    );
    assert_eq!(house.person(chidi).await, Value::Null);
}

#[tokio::test]
async fn alternate_addresses_are_added_removed_and_made_primary() {
    let house = start().await;
    let iris = house.id("iris.tanaka@example.org").await;
    let path = format!("/users/{iris}/alternateemails");
    let added = house
        .send(
            Method::POST,
            &path,
            json!([{"email": "iris@elsewhere.example"}]),
        )
        .await;
    let alias = added.body["result"][0]["id"].clone();
    assert_eq!(added.body["result"][0]["confirmed"], false);
    for taken in ["iris@elsewhere.example", "ana.ruiz@example.org"] {
        assert_eq!(
            house
                .send(Method::POST, &path, json!([{"email": taken}]))
                .await
                .status,
            400,
            "{taken}"
        );
    }
    assert_eq!(
        post(&house, &format!("{path}/{alias}/makeprimary")).await,
        (403, 1360)
    );
    assert_eq!(delete(&house, &format!("{path}/{alias}")).await.0, 200);
    assert_eq!(
        delete(&house, &format!("{path}/{alias}")).await,
        (404, 1006)
    );
    let confirmed = house.get(&path).await.rows()[0]["id"].clone();
    assert_eq!(
        post(&house, &format!("{path}/{confirmed}/makeprimary"))
            .await
            .0,
        200
    );
    assert_eq!(house.id("iris.tanaka.work@example.org").await, iris);
}

#[tokio::test]
async fn a_picture_is_one_s_own_or_an_admin_s_affair() {
    let house = start().await;
    let tokens = &house.is().tokens;
    let chidi = house.id("chidi.okafor@example.org").await;
    let send = async |token: &str, kind: &str, size: usize| {
        let request = house.request(Method::POST, &format!("/users/{chidi}/profileimage"), token);
        reply(request.header("content-type", kind).body(vec![0_u8; size])).await
    };
    assert!(
        send(&tokens.member, "image/png", 9).await.body["result"]["profileImage"]["imageId"]
            .is_string()
    );
    assert_eq!(send(&tokens.system_admin, "image/gif", 9).await.status, 200);
    assert_eq!(
        send(&tokens.group_admin, "image/gif", 9).await.refusal(),
        (403, 1004)
    );
    assert_eq!(
        send(&tokens.member, "image/webp", 9).await.refusal(),
        (415, 1124)
    );
    assert_eq!(
        send(&tokens.member, "image/png", 0).await.refusal(),
        (400, 1024)
    );
    assert_eq!(
        send(&tokens.member, "image/png", (1 << 20) + 1)
            .await
            .refusal(),
        (400, 1229)
    );
}

#[tokio::test]
async fn groups_are_made_by_group_admins_and_changed_by_their_owners() {
    let house = start().await;
    let tokens = &house.is().tokens;
    let body = json!({"name": "Made", "description": "By test", "members": [{"email": "chidi.okafor@example.org"}]});
    assert_eq!(
        house
            .send_as(&tokens.member, Method::POST, "/groups", body.clone())
            .await
            .refusal(),
        (403, 1104)
    );
    let made = house
        .send_as(&tokens.group_admin, Method::POST, "/groups", body.clone())
        .await
        .body["result"]
        .clone();
    assert_eq!(
        (&made["owner"], made["members"].as_array().unwrap().len()),
        (&"bela.kovacs@example.org".into(), 1)
    );
    assert_eq!(
        house.send(Method::POST, "/groups", body).await.refusal(),
        (400, 1103)
    );
    let other_case = house
        .send(Method::POST, "/groups", json!({"name": "made"}))
        .await
        .body["result"]["id"]
        .clone();
    let path = format!("/groups/{}", made["id"]);
    let renamed = house
        .send_as(
            &tokens.group_admin,
            Method::PUT,
            &path,
            json!({"name": "Remade"}),
        )
        .await;
    assert_eq!(renamed.body["result"]["name"], "Remade");
    let not_own = format!("/groups/{other_case}");
    assert_eq!(
        house
            .send_as(
                &tokens.group_admin,
                Method::PUT,
                &not_own,
                json!({"name": "x"})
            )
            .await
            .refusal(),
        (403, 1004)
    );
    assert_eq!(
        house
            .send(Method::PUT, &path, json!({"name": "Finance"}))
            .await
            .refusal(),
        (400, 1103)
    );
    let owner = |id: u64| json!({"ownerId": id});
    let chidi = house.id("chidi.okafor@example.org").await;
    assert_eq!(
        house.send(Method::PUT, &path, owner(chidi)).await.refusal(),
        (400, 1144)
    );
    let farah = house.id("farah.haddad@example.org").await;
    assert_eq!(
        house.send(Method::PUT, &path, owner(farah)).await.body["result"]["ownerId"],
        farah
    );
    assert_eq!(delete(&house, &path).await.0, 200);
    assert_eq!(delete(&house, &path).await, (404, 1106));
}

#[tokio::test]
async fn members_come_one_by_one_or_in_lists_by_primary_address() {
    let house = start().await;
    let group = house.truth().await["groups"][1]["id"].clone();
    let path = format!("/groups/{group}/members");
    let add = async |body: Value| house.send(Method::POST, &path, body).await;
    let chidi = json!({"email": "chidi.okafor@example.org"});
    let first = add(chidi.clone()).await.body["result"].clone();
    assert_eq!(first["name"], "Chidi Okafor");
    assert_eq!(add(chidi.clone()).await.refusal(), (400, 1129));
    let some = add(
        json!([chidi, {"email": "dana.levi@example.org"}, {"email": "outside@elsewhere.example"}]),
    )
    .await;
    assert_eq!(
        some.body["result"].as_array().unwrap().len(),
        2,
        "who is in is left out"
    );
    assert_eq!(
        add(json!([{"email": "itanaka@example.org"}]))
            .await
            .refusal(),
        (400, 1290)
    );
    assert_eq!(
        add(json!([{"email": "nonsense"}])).await.refusal(),
        (400, 1031)
    );
    let told = house.get(&format!("/groups/{group}")).await.body["members"].clone();
    assert_eq!(ids(told.as_array().unwrap()).len(), 3);
    assert_eq!(
        delete(&house, &format!("{path}/{}", first["id"])).await.0,
        200
    );
    assert_eq!(
        delete(&house, &format!("{path}/{}", first["id"])).await,
        (404, 1020)
    );
}
