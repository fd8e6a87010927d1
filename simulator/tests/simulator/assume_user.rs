//! Assume-User: who may act as whom, and with what rights.

use reqwest::Method;
use reqwest::header::HeaderValue;
use serde_json::{Value, json};

use crate::house::{House, Reply, reply, start};

const CHIDI: &str = "chidi.okafor%40example.org";
const BELA: &str = "bela.kovacs%40example.org";
const REFUSED: (u16, u64) = (401, 1030);

/// A read as whoever the header names.
async fn get(house: &House, token: &str, path: &str, assumed: &str) -> Reply {
    let request = house.request(Method::GET, path, token);
    reply(request.header("Assume-User", assumed)).await
}

/// A read as the system admin who assumes somebody.
async fn get_as(house: &House, path: &str, assumed: &str) -> Reply {
    get(house, &house.is().tokens.system_admin, path, assumed).await
}

#[tokio::test]
async fn a_system_admin_answers_as_whom_they_assume() {
    let house = start().await;
    let me = get_as(&house, "/users/me?include=groups", CHIDI).await;
    let own = house
        .get_as(&house.is().tokens.member, "/users/me?include=groups")
        .await;
    assert_eq!(me.body, own.body, "to the last field, groups too");
    assert_eq!(me.body["email"], "chidi.okafor@example.org");
    assert_eq!(me.body["admin"], false);
    let myself = get_as(&house, "/users/me", "ana.ruiz%40example.org").await;
    assert_eq!(myself.body, house.get("/users/me").await.body);
    let entry = house.log().await.remove(0);
    assert_eq!(
        (&entry["token"], &entry["assume_user"]),
        (&"system_admin".into(), &CHIDI.into())
    );
}

#[tokio::test]
async fn the_rights_are_those_of_the_assumed() {
    let house = start().await;
    let token = &house.is().tokens.system_admin;
    let list = get_as(&house, "/users", CHIDI).await;
    assert_eq!(
        list.body,
        house.get_as(&house.is().tokens.member, "/users").await.body
    );
    assert!(list.rows()[0].get("status").is_none());
    let id = house.id("chidi.okafor@example.org").await;
    for path in [
        "/users/sheets".to_owned(),
        format!("/users/{id}/plans"),
        "/users?seatType=MEMBER".to_owned(),
    ] {
        assert_eq!(
            get_as(&house, &path, CHIDI).await.refusal(),
            (403, 1004),
            "{path}"
        );
        assert_ne!(house.get(&path).await.status, 403, "{path}");
    }
    let write = async |path: &str, body: Value, assumed: &str| {
        let request = house.request(Method::POST, path, token).json(&body);
        reply(request.header("Assume-User", assumed))
            .await
            .refusal()
    };
    let user = json!({"email": "new@example.org", "admin": false, "licensedSheetCreator": false});
    assert_eq!(write("/users", user.clone(), CHIDI).await, (403, 1004));
    assert_eq!(write("/users", user, BELA).await, (403, 1004));
    let group = json!({"name": "Made by a group admin"});
    assert_eq!(write("/groups", group.clone(), CHIDI).await, (403, 1104));
    assert_eq!(write("/groups", group, BELA).await.0, 200);
    let truth = house.truth().await;
    let made = truth["groups"]
        .as_array()
        .unwrap()
        .iter()
        .find(|group| group["name"] == "Made by a group admin")
        .unwrap();
    assert_eq!(made["owner"], "bela.kovacs@example.org");
}

#[tokio::test]
async fn nobody_is_another_admin_an_outsider_a_stranger_or_inactive() {
    let house = start().await;
    for email in [
        "farah.haddad%40example.org",
        "kim.gast%40partner.example",
        "nobody%40example.org",
        "hana.novakova%40example.org",
        "invited%40example.org",
        "gus.declan%40example.org",
        "",
    ] {
        for path in ["/users/me", "/users", "/groups"] {
            assert_eq!(
                get_as(&house, path, email).await.refusal(),
                REFUSED,
                "{email} {path}"
            );
        }
    }
    let chidi = house.id("chidi.okafor@example.org").await;
    let promote = json!([{"op": "update_user", "id": chidi, "admin": true}]);
    house.control("mutate", promote).await;
    assert_eq!(
        get_as(&house, "/users/me", CHIDI).await.refusal(),
        REFUSED,
        "an admin since just now"
    );
    let remove = json!([{"op": "remove_user", "id": chidi}]);
    house.control("mutate", remove).await;
    assert_eq!(get_as(&house, "/users/me", CHIDI).await.refusal(), REFUSED);
}

#[tokio::test]
async fn nobody_but_a_system_admin_assumes_anybody() {
    let house = start().await;
    let tokens = &house.is().tokens;
    for token in [&tokens.member, &tokens.group_admin, &tokens.no_read_users] {
        for email in [CHIDI, BELA, "zoe%40example.org"] {
            assert_eq!(
                get(&house, token, "/users/me", email).await.refusal(),
                REFUSED,
                "{email}"
            );
        }
    }
    assert_eq!(get_as(&house, "/users/me", CHIDI).await.status, 200);
    let demote = json!([{"op": "demote_token", "token": "system_admin"}]);
    house.control("mutate", demote).await;
    assert_eq!(get_as(&house, "/users/me", CHIDI).await.refusal(), REFUSED);
    assert_eq!(house.get("/users/me").await.status, 200);
    assert_eq!(
        get(&house, "never-issued", "/users/me", CHIDI)
            .await
            .refusal(),
        (401, 1002),
        "the token comes first"
    );
}

#[tokio::test]
async fn an_oauth_token_assumes_nobody_unless_it_may() {
    let house = start().await;
    let mint = json!([{"op": "mint_oauth", "login": "ana.ruiz@example.org"}]);
    let minted = house.control("mutate", mint).await;
    let token = minted[0]["access_token"].as_str().unwrap();
    let ask = async |email: &str| get(&house, token, "/users/me", email).await.refusal();
    assert_eq!(ask(CHIDI).await, REFUSED);
    assert_eq!(
        ask("ana.ruiz%40example.org").await,
        REFUSED,
        "not even themselves"
    );
    house.switch(json!({"oauth_may_assume_user": true})).await;
    assert_eq!(ask(CHIDI).await.0, 200);
    assert_eq!(ask("farah.haddad%40example.org").await, REFUSED);
    let list = get(&house, token, "/users", CHIDI).await;
    assert_eq!(list.status, 200);
    let narrow = json!([{"op": "mint_oauth", "login": "ana.ruiz@example.org", "scopes": []}]);
    let narrow = house.control("mutate", narrow).await;
    let token = narrow[0]["access_token"].as_str().unwrap();
    assert_eq!(
        get(&house, token, "/users", CHIDI).await.refusal(),
        (403, 1004),
        "the token's scopes bound the assumed too"
    );
}

#[tokio::test]
async fn the_header_is_url_encoded_or_refused() {
    let house = start().await;
    house
        .control(
            "mutate",
            json!([{"op": "add_user", "email": "zoe+hr@example.org"}]),
        )
        .await;
    for good in ["zoe%2Bhr%40example.org", "zoe%2bhr%40EXAMPLE.org"] {
        assert_eq!(
            get_as(&house, "/users/me", good).await.body["email"],
            "zoe+hr@example.org",
            "{good}"
        );
    }
    let bare = [
        "zoe+hr@example.org",
        "zoe%2Bhr@example.org",
        "zoe+hr%40example.org",
        "Zoe <zoe%40example.org>",
        "%zz",
        "zoe%4",
        "zo%C3%40example.org",
    ];
    for bad in bare {
        assert_eq!(
            get_as(&house, "/users/me", bad).await.refusal(),
            (400, 1011),
            "{bad}"
        );
    }
    let raw = HeaderValue::from_bytes("zoë%40example.org".as_bytes()).unwrap();
    let request = house.request(Method::GET, "/users/me", &house.is().tokens.system_admin);
    assert_eq!(
        reply(request.header("Assume-User", raw)).await.refusal(),
        (400, 1011),
        "not taken for one that was not sent"
    );
    house.switch(json!({"assume_user_unencoded": true})).await;
    for taken in ["zoe+hr@example.org", "zoe%2Bhr@example.org"] {
        assert_eq!(
            get_as(&house, "/users/me", taken).await.body["email"],
            "zoe+hr@example.org",
            "{taken}"
        );
    }
    assert_eq!(
        get_as(&house, "/users/me", "%zz").await.refusal(),
        (400, 1011)
    );
}
