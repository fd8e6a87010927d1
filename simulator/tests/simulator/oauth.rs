//! OAuth: the page of consent, the token endpoint, and every error of both.

use std::collections::HashMap;

use reqwest::header::LOCATION;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use smartsheet_simulator::Options;

use crate::house::{House, Reply, reply, small, start, start_with};

fn hash(house: &House, grant: &str) -> String {
    let secret = &house.is().oauth_client.client_secret;
    let digest = Sha256::digest(format!("{secret}|{grant}").as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The parameters of a redirect; none if it was none.
fn back(house: &House, response: &reqwest::Response) -> HashMap<String, String> {
    let Some(location) = response.headers().get(LOCATION) else {
        return HashMap::new();
    };
    let location = location.to_str().unwrap();
    assert!(
        location.starts_with(&house.is().oauth_client.redirect_url),
        "{location}"
    );
    reqwest::Url::parse(location)
        .unwrap()
        .query_pairs()
        .into_owned()
        .collect()
}

fn query<'a>(house: &'a House, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut query = vec![
        ("response_type", "code"),
        ("client_id", house.is().oauth_client.client_id.as_str()),
    ];
    for (name, value) in more {
        query.retain(|(known, _)| known != name);
        query.push((*name, *value));
    }
    query
}

/// Opens the page of consent.
async fn open(house: &House, more: &[(&str, &str)]) -> reqwest::Response {
    house
        .http
        .get(&house.is().authorize_url)
        .query(&query(house, more))
        .send()
        .await
        .unwrap()
}

/// Sends its form.
async fn decide(house: &House, more: &[(&str, &str)]) -> reqwest::Response {
    house
        .http
        .post(&house.is().authorize_url)
        .form(&query(house, more))
        .send()
        .await
        .unwrap()
}

async fn code(house: &House, login: &str, scope: &str) -> String {
    let decided = decide(
        house,
        &[("login", login), ("scope", scope), ("decision", "allow")],
    )
    .await;
    back(house, &decided)["code"].clone()
}

/// A call to the token endpoint; an empty value leaves a parameter out.
async fn token(house: &House, parameters: &[(&str, &str)]) -> Reply {
    let client = &house.is().oauth_client;
    let mut form = vec![
        ("client_id", client.client_id.as_str()),
        ("client_secret", client.client_secret.as_str()),
    ];
    for (name, value) in parameters {
        form.retain(|(known, _)| known != name);
        form.push((*name, *value));
    }
    form.retain(|(_, value)| !value.is_empty());
    reply(
        house
            .http
            .post(format!("{}/token", house.is().api_base))
            .form(&form),
    )
    .await
}

async fn redeem(house: &House, code: &str) -> Reply {
    token(
        house,
        &[("grant_type", "authorization_code"), ("code", code)],
    )
    .await
}

async fn refresh(house: &House, refresh_token: &Value) -> Reply {
    token(
        house,
        &[
            ("grant_type", "refresh_token"),
            ("refresh_token", refresh_token.as_str().unwrap()),
        ],
    )
    .await
}

/// A grant from beginning to end: the first pair of tokens.
pub async fn grant(house: &House, login: &str, scope: &str) -> Value {
    let reply = redeem(house, &code(house, login, scope).await).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    reply.body
}

async fn me(house: &House, pair: &Value) -> (u16, u64) {
    house
        .get_as(pair["access_token"].as_str().unwrap(), "/users/me")
        .await
        .refusal()
}

#[tokio::test]
async fn the_page_is_one_form_with_everybody_to_choose_from() {
    let house = start().await;
    let page = open(&house, &[("scope", "READ_USERS"), ("state", "a\"b")]).await;
    assert_eq!(page.status(), 200);
    let page = page.text().await.unwrap();
    assert_eq!(page.matches("<form").count(), 1);
    for part in [
        "READ_USERS",
        "ana.ruiz@example.org",
        "value=\"allow\"",
        "value=\"deny\"",
        "a&quot;b",
    ] {
        assert!(page.contains(part), "{part}");
    }
}

#[tokio::test]
async fn allow_and_deny_lead_back_with_the_state() {
    let house = start().await;
    let allowed = decide(
        &house,
        &[
            ("login", "kim.gast@partner.example"),
            ("state", "s&1 ü"),
            ("decision", "allow"),
        ],
    )
    .await;
    assert_eq!(allowed.status(), 302);
    let parameters = back(&house, &allowed);
    assert_eq!(
        (
            parameters["state"].as_str(),
            parameters["expires_in"].as_str()
        ),
        ("s&1 ü", "599135")
    );
    assert!(!parameters["code"].is_empty());
    let denied = decide(&house, &[("state", "s"), ("decision", "deny")]).await;
    assert_eq!(
        back(&house, &denied),
        [("error", "access_denied"), ("state", "s")]
            .map(|(a, b)| (a.into(), b.into()))
            .into()
    );
    for login in ["", "nobody@nowhere.example"] {
        let asked_again = decide(&house, &[("login", login), ("decision", "allow")]).await;
        assert_eq!(
            asked_again.status(),
            400,
            "the page again, with a complaint"
        );
        assert!(asked_again.text().await.unwrap().contains("role=\"alert\""));
    }
}

#[tokio::test]
async fn errors_of_the_request_lead_back_too_but_an_unknown_app_has_no_back() {
    let house = start().await;
    for (name, value, error) in [
        ("scope", "READ_USERS READ_MINDS", "invalid_scope"),
        ("response_type", "token", "unsupported_response_type"),
        ("response_type", "", "invalid_request"),
        ("redirect_uri", "http://evil.example/", "invalid_request"),
    ] {
        let response = open(&house, &[(name, value), ("state", "s")]).await;
        let parameters = back(&house, &response);
        assert_eq!(
            (parameters["error"].as_str(), parameters["state"].as_str()),
            (error, "s"),
            "{name}={value}"
        );
    }
    let stranger = open(&house, &[("client_id", "nobody")]).await;
    assert_eq!(stranger.status(), 400);
    assert!(stranger.headers().get(LOCATION).is_none());
    house.switch(json!({"authorize_errors": "page"})).await;
    let page = open(&house, &[("scope", "READ_MINDS")]).await;
    assert_eq!(page.status(), 400);
    assert!(page.text().await.unwrap().contains("invalid_scope"));
}

#[tokio::test]
async fn the_redirect_goes_where_it_is_registered() {
    let redirect_url = Some("http://127.0.0.1:1/back?tenant=1".to_owned());
    let house = start_with(Options {
        redirect_url: redirect_url.clone(),
        ..small()
    })
    .await;
    assert_eq!(
        Some(&house.is().oauth_client.redirect_url),
        redirect_url.as_ref()
    );
    let response = decide(&house, &[("decision", "deny")]).await;
    let parameters = back(&house, &response);
    assert_eq!(
        (parameters["tenant"].as_str(), parameters["error"].as_str()),
        ("1", "access_denied")
    );
    let house = start().await;
    let landed = reply(house.http.get(format!(
        "{}?code=c&state=s",
        house.is().oauth_client.redirect_url
    )))
    .await;
    assert_eq!(
        landed.body,
        json!({"code": "c", "error": null, "state": "s"})
    );
}

#[tokio::test]
async fn a_code_is_good_for_one_pair_by_secret_or_hash_in_form_or_query() {
    let house = start().await;
    let login = "farah.haddad@example.org";
    let by_secret = grant(&house, login, "READ_USERS").await;
    assert_eq!(
        (&by_secret["token_type"], &by_secret["expires_in"]),
        (&"bearer".into(), &604_799.into())
    );
    let fresh = code(&house, login, "READ_USERS").await;
    let proof = hash(&house, &fresh);
    let query = [
        ("grant_type", "authorization_code"),
        ("client_id", &house.is().oauth_client.client_id),
        ("code", &fresh),
        ("hash", &proof),
    ];
    let by_hash = reply(
        house
            .http
            .post(format!("{}/token", house.is().api_base))
            .query(&query),
    )
    .await;
    assert_eq!(by_hash.status, 200, "{}", by_hash.body);
    for pair in [&by_secret, &by_hash.body] {
        assert_eq!(me(&house, pair).await.0, 200);
    }
    assert_eq!(redeem(&house, &fresh).await.refusal(), (400, 1071));
    assert_eq!(
        me(&house, &by_hash.body).await.0,
        200,
        "a replay harms nobody"
    );
}

#[tokio::test]
async fn scopes_bound_the_token_and_the_person_bounds_the_scopes() {
    let house = start().await;
    let ask = async |pair: &Value, path: &str| {
        house
            .get_as(pair["access_token"].as_str().unwrap(), path)
            .await
    };
    let none = grant(&house, "ana.ruiz@example.org", "").await;
    assert_eq!(ask(&none, "/users").await.refusal(), (403, 1004));
    assert_eq!(me(&house, &none).await.0, 200);
    let reader = grant(&house, "chidi.okafor@example.org", "READ_USERS ADMIN_USERS").await;
    assert!(
        ask(&reader, "/users").await.rows()[0]
            .get("status")
            .is_none()
    );
    let admin = grant(&house, "ana.ruiz@example.org", "READ_USERS").await;
    let token = admin["access_token"].as_str().unwrap();
    let write = house
        .send_as(
            token,
            reqwest::Method::POST,
            "/groups",
            json!({"name": "x"}),
        )
        .await;
    assert_eq!(write.refusal(), (403, 1004));
}

#[tokio::test]
async fn a_refresh_ends_both_old_tokens_at_once() {
    let house = start().await;
    let first = grant(&house, "ana.ruiz@example.org", "READ_USERS").await;
    let second = refresh(&house, &first["refresh_token"]).await.body;
    assert_ne!(second["refresh_token"], first["refresh_token"]);
    assert_eq!(me(&house, &first).await, (401, 1002));
    assert_eq!(me(&house, &second).await.0, 200);
    assert_eq!(
        refresh(&house, &first["refresh_token"]).await.refusal(),
        (400, 1071)
    );
    assert_eq!(me(&house, &second).await.0, 200);
    let rows = house.ask("tokens").await;
    let rows: Vec<&Value> = rows
        .as_array()
        .unwrap()
        .iter()
        .filter(|row| row["token"] == "oauth-1")
        .collect();
    let told = |row: &Value| {
        (
            row["generation"].as_u64(),
            row["live"].as_bool(),
            row["redeemed"].as_u64(),
            row["replays_refused"].as_u64(),
        )
    };
    assert_eq!(told(rows[0]), (Some(1), Some(false), Some(1), Some(1)));
    assert_eq!(told(rows[1]), (Some(2), Some(true), Some(0), Some(0)));
    assert_eq!(
        (&rows[0]["kind"], &rows[0]["login"]),
        (&"oauth".into(), &"ana.ruiz@example.org".into())
    );
}

#[tokio::test]
async fn of_two_refreshes_at_once_one_wins() {
    let house = start().await;
    let pair = grant(&house, "ana.ruiz@example.org", "READ_USERS").await;
    let (one, two) = tokio::join!(
        refresh(&house, &pair["refresh_token"]),
        refresh(&house, &pair["refresh_token"])
    );
    let mut statuses = [one.status, two.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 400]);
}

#[tokio::test]
async fn a_refresh_whose_reply_is_lost_has_happened() {
    let house = start().await;
    let pair = grant(&house, "ana.ruiz@example.org", "READ_USERS").await;
    let rule = json!({"match": {"method": "POST", "path_prefix": "/token", "token": "oauth-1"}, "times": 1, "fault": {"kind": "drop_reply"}});
    house.control("faults", json!([rule])).await;
    let client = &house.is().oauth_client;
    let form = [
        ("grant_type", "refresh_token"),
        ("refresh_token", pair["refresh_token"].as_str().unwrap()),
        ("client_id", &client.client_id),
        ("client_secret", &client.client_secret),
    ];
    let request = house
        .http
        .post(format!("{}/token", house.is().api_base))
        .form(&form);
    assert!(request.send().await.is_err());
    assert_eq!(me(&house, &pair).await, (401, 1002));
    assert_eq!(
        refresh(&house, &pair["refresh_token"]).await.refusal(),
        (400, 1071)
    );
}

#[tokio::test]
async fn a_refresh_may_have_a_grace_and_a_refresh_token_an_end() {
    let house = start().await;
    house.switch(json!({"refresh_grace_s": 30})).await;
    let pair = grant(&house, "ana.ruiz@example.org", "READ_USERS").await;
    let once = refresh(&house, &pair["refresh_token"]).await.body;
    let again = refresh(&house, &pair["refresh_token"]).await.body;
    assert_eq!(once["access_token"], again["access_token"]);
    house.advance(31).await;
    assert_eq!(
        refresh(&house, &pair["refresh_token"]).await.refusal(),
        (400, 1071)
    );
    house.switch(json!({"refresh_life_s": 100})).await;
    house.advance(100).await;
    assert_eq!(
        refresh(&house, &once["refresh_token"]).await.refusal(),
        (400, 1071)
    );
}

#[tokio::test]
async fn an_access_token_ends_after_seven_days_and_is_refreshed_even_with_the_old_bearer() {
    let house = start().await;
    let pair = grant(&house, "ana.ruiz@example.org", "READ_USERS").await;
    house.advance(604_700).await;
    assert_eq!(me(&house, &pair).await.0, 200);
    house.advance(100).await;
    assert_eq!(me(&house, &pair).await, (401, 1003));
    let client = &house.is().oauth_client;
    let refresh_token = pair["refresh_token"].as_str().unwrap();
    let form = [
        ("grant_type", "refresh_token"),
        ("refresh_token", refresh_token),
        ("client_id", &client.client_id),
        ("hash", &hash(&house, refresh_token)),
    ];
    let request = house
        .http
        .post(format!("{}/token", house.is().api_base))
        .bearer_auth(pair["access_token"].as_str().unwrap())
        .form(&form);
    let second = reply(request).await;
    assert_eq!(me(&house, &second.body).await.0, 200);
    let entry = house
        .log()
        .await
        .into_iter()
        .find(|entry| entry["path"] == "/2.0/token" && entry["token"] == "oauth-1");
    assert!(entry.is_some(), "the grant is named");
}

/// Parameters, and the status, code and OAuth type that they are refused with.
type Case<'a> = (&'a [(&'a str, &'a str)], u16, u64, &'a str);

#[tokio::test]
async fn every_error_of_the_token_endpoint_has_its_code_and_five_keys() {
    let house = start().await;
    let pair = grant(&house, "ana.ruiz@example.org", "READ_USERS").await;
    let fresh = code(&house, "ana.ruiz@example.org", "READ_USERS").await;
    let refresh_token = pair["refresh_token"].as_str().unwrap();
    let by_code = ("grant_type", "authorization_code");
    let cases: &[Case<'_>] = &[
        (
            &[by_code, ("code", &fresh), ("client_id", "nobody")],
            401,
            1067,
            "invalid_client",
        ),
        (
            &[("grant_type", "password"), ("code", &fresh)],
            400,
            1068,
            "unsupported_grant_type",
        ),
        (&[by_code], 400, 1070, "invalid_request"),
        (&[("code", &fresh)], 400, 1070, "invalid_request"),
        (
            &[by_code, ("code", &fresh), ("client_id", "")],
            400,
            1070,
            "invalid_request",
        ),
        (&[by_code, ("code", "never")], 400, 1071, "invalid_grant"),
        (
            &[("grant_type", "refresh_token"), ("refresh_token", "never")],
            400,
            1071,
            "invalid_grant",
        ),
        (
            &[
                by_code,
                ("code", &fresh),
                ("client_secret", ""),
                ("hash", "0"),
            ],
            400,
            1072,
            "invalid_grant",
        ),
        (
            &[
                by_code,
                ("code", &fresh),
                ("redirect_uri", "http://evil.example/"),
            ],
            400,
            1073,
            "invalid_request",
        ),
        (
            &[by_code, ("code", &fresh), ("client_secret", "")],
            400,
            1236,
            "invalid_request",
        ),
        (
            &[by_code, ("code", &fresh), ("hash", "0")],
            400,
            1237,
            "invalid_request",
        ),
        (
            &[by_code, ("code", &fresh), ("client_secret", "wrong")],
            400,
            1238,
            "invalid_client",
        ),
        (
            &[by_code, ("refresh_token", refresh_token)],
            400,
            1292,
            "invalid_request",
        ),
        (
            &[("grant_type", "refresh_token"), ("code", &fresh)],
            400,
            1292,
            "invalid_request",
        ),
    ];
    for (parameters, status, number, error) in cases {
        let refused = token(&house, parameters).await;
        assert_eq!(refused.refusal(), (*status, *number), "{parameters:?}");
        assert_eq!(refused.body["error"], *error);
        assert!(
            ["refId", "message", "error_description"]
                .iter()
                .all(|key| refused.body[key].is_string())
        );
        assert_eq!(refused.body.as_object().unwrap().len(), 5);
    }
    house.advance(600).await;
    assert_eq!(redeem(&house, &fresh).await.refusal(), (400, 1069));
    house
        .control(
            "mutate",
            json!([{"op": "revoke_token", "token": "oauth-1"}]),
        )
        .await;
    assert_eq!(
        refresh(&house, &pair["refresh_token"]).await.refusal(),
        (400, 1132)
    );
}

#[tokio::test]
async fn the_error_body_has_the_keys_that_are_set() {
    let house = start().await;
    for (kind, keys) in [
        ("oauth", &["error", "errorCode", "error_description"][..]),
        ("plain", &["errorCode", "message", "refId"]),
    ] {
        house.switch(json!({"token_error_body": kind})).await;
        let refused = redeem(&house, "never").await;
        assert_eq!(
            refused.body.as_object().unwrap().keys().collect::<Vec<_>>(),
            keys
        );
    }
}

#[tokio::test]
async fn a_token_is_revoked_by_itself_alone_or_with_all_of_its_person() {
    let house = start().await;
    let (one, two) = (
        grant(&house, "ana.ruiz@example.org", "").await,
        grant(&house, "ana.ruiz@example.org", "").await,
    );
    let (three, other) = (
        grant(&house, "ana.ruiz@example.org", "").await,
        grant(&house, "bela.kovacs@example.org", "").await,
    );
    let revoke = async |pair: &Value, query: &str| {
        let url = format!("{}/token{query}", house.is().api_base);
        reply(
            house
                .http
                .delete(url)
                .bearer_auth(pair["access_token"].as_str().unwrap()),
        )
        .await
    };
    assert_eq!(
        revoke(&one, "").await.body,
        json!({"message": "SUCCESS", "resultCode": 0})
    );
    assert_eq!(revoke(&one, "").await.refusal(), (401, 1002));
    assert_eq!(
        refresh(&house, &one["refresh_token"]).await.refusal(),
        (400, 1132)
    );
    assert_eq!(me(&house, &two).await.0, 200);
    assert_eq!(
        revoke(&two, "?deleteAllForApiClient=true").await.status,
        200
    );
    assert_eq!(me(&house, &three).await, (401, 1002));
    assert_eq!(me(&house, &other).await.0, 200);
    assert_eq!(
        house.get("/users/me").await.status,
        200,
        "personal tokens stay"
    );
}
