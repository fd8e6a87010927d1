//! Several OAuth apps: each with its own redirect URL, codes and tokens, and PKCE for all of them.

use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::header::LOCATION;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use smartsheet_simulator::OauthClient;

use crate::house::{House, Reply, reply, start};

const ANA: &str = "ana.ruiz@example.org";
const DESKTOP: &str = "http://127.0.0.1:8123/callback";
const CUSTOMER: &str = "https://customer.example/back?tenant=1";
const VERIFIER: &str = "a-verifier-of-forty-three-letters-at-least_0";

/// Sends the form of the page of consent for an app; an empty value leaves a parameter out.
async fn decide(house: &House, app: &OauthClient, more: &[(&str, &str)]) -> reqwest::Response {
    let mut form = vec![
        ("response_type", "code"),
        ("client_id", app.client_id.as_str()),
        ("login", ANA),
        ("scope", "READ_USERS"),
        ("decision", "allow"),
    ];
    form.retain(|(known, _)| more.iter().all(|(name, _)| name != known));
    form.extend(more.iter().filter(|(_, value)| !value.is_empty()));
    house
        .http
        .post(&house.is().authorize_url)
        .form(&form)
        .send()
        .await
        .unwrap()
}

/// Where a redirect leads, and with what.
fn back(response: &reqwest::Response) -> (String, HashMap<String, String>) {
    let location = response.headers()[LOCATION].to_str().unwrap();
    let parameters = reqwest::Url::parse(location).unwrap();
    let parameters = parameters.query_pairs().into_owned().collect();
    (location.to_owned(), parameters)
}

async fn code(house: &House, app: &OauthClient, more: &[(&str, &str)]) -> String {
    back(&decide(house, app, more).await).1["code"].clone()
}

async fn token(house: &House, app: &OauthClient, parameters: &[(&str, &str)]) -> Reply {
    let mut form = vec![
        ("client_id", app.client_id.as_str()),
        ("client_secret", app.client_secret.as_str()),
    ];
    form.extend(parameters);
    let url = format!("{}/token", house.is().api_base);
    reply(house.http.post(url).form(&form)).await
}

async fn redeem(house: &House, app: &OauthClient, code: &str, more: &[(&str, &str)]) -> Reply {
    let mut parameters = vec![("grant_type", "authorization_code"), ("code", code)];
    parameters.extend(more);
    token(house, app, &parameters).await
}

async fn refresh(house: &House, app: &OauthClient, pair: &Value) -> Reply {
    let refresh_token = pair["refresh_token"].as_str().unwrap();
    let parameters = [
        ("grant_type", "refresh_token"),
        ("refresh_token", refresh_token),
    ];
    token(house, app, &parameters).await
}

async fn grant(house: &House, app: &OauthClient) -> Value {
    let reply = redeem(house, app, &code(house, app, &[]).await, &[]).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    reply.body
}

async fn is_honoured(house: &House, pair: &Value) -> bool {
    let token = pair["access_token"].as_str().unwrap();
    house.get_as(token, "/users/me").await.status == 200
}

fn challenge(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes()))
}

/// The first app, and two that were registered.
fn three(house: &House) -> [OauthClient; 3] {
    [
        house.is().oauth_client.clone(),
        house.simulator.register_client(DESKTOP),
        house.simulator.register_client(CUSTOMER),
    ]
}

#[tokio::test]
async fn apps_are_registered_listed_and_forgotten_by_a_reset() {
    let house = start().await;
    let first = house.is().oauth_client.clone();
    let second = house.simulator.register_client(DESKTOP);
    let third = house
        .control(
            "clients",
            json!({"redirect_url": CUSTOMER, "name": "Theirs"}),
        )
        .await;
    let keys = |value: &Value| {
        value
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(
        keys(&third),
        ["client_id", "client_secret", "name", "redirect_url"]
    );
    assert_eq!(
        house.ask("clients").await,
        json!([first, second, third.clone()])
    );
    let bare = house
        .control("clients", json!({"redirect_url": CUSTOMER}))
        .await;
    assert_eq!(keys(&bare), ["client_id", "client_secret", "redirect_url"]);
    house.control("reset", json!({})).await;
    assert_eq!(house.ask("clients").await, json!([first]));
    let gone = decide(&house, &second, &[]).await;
    assert_eq!(gone.status(), 400);
    assert!(gone.text().await.unwrap().contains("invalid_client"));
    let again = house.simulator.register_client(DESKTOP);
    assert_eq!(again, second, "after a reset all comes as at the start");
    for bad in [
        json!({"redirect_url": "callback"}),
        json!({"redirect_url": CUSTOMER, "color": "red"}),
        json!({"name": "Nowhere"}),
    ] {
        assert_eq!(
            house.try_control("clients", bad.clone()).await.status,
            400,
            "{bad}"
        );
    }
    assert_eq!(house.ask("clients").await.as_array().unwrap().len(), 2);
}

#[tokio::test]
#[should_panic(expected = "is no redirect URL")]
async fn a_redirect_url_that_is_none_is_not_registered() {
    start().await.simulator.register_client("urn:out-of-band");
}

#[tokio::test]
async fn the_page_says_which_app_asks_and_its_form_sends_people_back_there() {
    let house = start().await;
    let named = house
        .control(
            "clients",
            json!({"redirect_url": DESKTOP, "name": "A & <B>"}),
        )
        .await;
    let unnamed = house.simulator.register_client(CUSTOMER);
    for (client_id, told) in [
        (named["client_id"].as_str().unwrap(), "A &amp; &lt;B&gt;"),
        (&unnamed.client_id, unnamed.client_id.as_str()),
    ] {
        let query = [
            ("response_type", "code"),
            ("client_id", client_id),
            ("code_challenge", &challenge(VERIFIER)),
            ("code_challenge_method", "S256"),
        ];
        let request = house.http.get(&house.is().authorize_url).query(&query);
        let page = request.send().await.unwrap().text().await.unwrap();
        assert!(page.contains(&format!("<strong>{told}</strong>")), "{page}");
        for (name, value) in &query {
            let field = format!("name=\"{name}\" value=\"{value}\"");
            assert!(page.contains(&field), "{field}");
        }
    }
}

#[tokio::test]
async fn people_are_sent_back_to_the_one_redirect_url_of_the_app_that_asked() {
    let house = start().await;
    let apps = three(&house);
    for app in &apps {
        for more in [
            [("decision", "deny")],
            [("decision", "allow")],
            [("scope", "READ_MINDS")],
            [("redirect_uri", app.redirect_url.as_str())],
        ] {
            let (location, _) = back(&decide(&house, app, &more).await);
            assert!(location.starts_with(&app.redirect_url), "{location}");
        }
        for other in apps.iter().filter(|other| *other != app) {
            let elsewhere = ("redirect_uri", other.redirect_url.as_str());
            let (location, parameters) = back(&decide(&house, app, &[elsewhere]).await);
            assert!(location.starts_with(&app.redirect_url), "{location}");
            assert_eq!(parameters["error"], "invalid_request");
            let fresh = code(&house, app, &[]).await;
            assert_eq!(
                redeem(&house, app, &fresh, &[elsewhere]).await.refusal(),
                (400, 1073)
            );
        }
    }
}

#[tokio::test]
async fn a_code_that_another_app_brings_is_refused_and_stays_good() {
    let house = start().await;
    let [first, desktop, _] = three(&house);
    let fresh = code(&house, &first, &[]).await;
    let stolen = redeem(&house, &desktop, &fresh, &[]).await;
    assert_eq!(stolen.refusal(), (400, 1071));
    assert_eq!(stolen.body["error"], "invalid_grant");
    assert_eq!(redeem(&house, &first, &fresh, &[]).await.status, 200);
    let late = code(&house, &first, &[]).await;
    house.advance(600).await;
    assert_eq!(
        redeem(&house, &desktop, &late, &[]).await.refusal(),
        (400, 1071),
        "another app does not learn that it was a code"
    );
    assert_eq!(
        redeem(&house, &first, &late, &[]).await.refusal(),
        (400, 1069)
    );
}

#[tokio::test]
async fn a_refresh_token_that_another_app_brings_is_refused_and_stays_good() {
    let house = start().await;
    let [first, desktop, _] = three(&house);
    let pair = grant(&house, &first).await;
    let refused = refresh(&house, &desktop, &pair).await;
    assert_eq!(refused.refusal(), (400, 1071));
    assert_eq!(refused.body["error"], "invalid_grant");
    assert!(is_honoured(&house, &pair).await);
    let next = refresh(&house, &first, &pair).await;
    assert_eq!(next.status, 200, "{}", next.body);
    for app in [&desktop, &first] {
        assert_eq!(refresh(&house, app, &pair).await.refusal(), (400, 1071));
    }
    let rows = house.ask("tokens").await;
    let row = rows
        .as_array()
        .unwrap()
        .iter()
        .find(|row| row["token"] == "oauth-1" && row["generation"] == 1)
        .unwrap();
    assert_eq!(
        (&row["redeemed"], &row["replays_refused"]),
        (&1.into(), &1.into()),
        "what another app tries is no replay"
    );
    let token = |pair: &Value| pair["access_token"].as_str().unwrap().to_owned();
    let revoke = house
        .http
        .delete(format!("{}/token", house.is().api_base))
        .bearer_auth(token(&next.body));
    assert_eq!(reply(revoke).await.status, 200);
    assert_eq!(
        refresh(&house, &desktop, &next.body).await.refusal(),
        (400, 1071)
    );
    assert_eq!(
        refresh(&house, &first, &next.body).await.refusal(),
        (400, 1132)
    );
}

#[tokio::test]
async fn one_app_s_secret_proves_no_other() {
    let house = start().await;
    let [first, desktop, _] = three(&house);
    let fresh = code(&house, &first, &[]).await;
    let mixed = OauthClient {
        client_secret: desktop.client_secret.clone(),
        ..first.clone()
    };
    assert_eq!(
        redeem(&house, &mixed, &fresh, &[]).await.refusal(),
        (400, 1238)
    );
    assert_eq!(redeem(&house, &first, &fresh, &[]).await.status, 200);
}

#[tokio::test]
async fn all_tokens_of_an_app_are_those_of_that_app_and_person() {
    let house = start().await;
    let [first, desktop, _] = three(&house);
    let (one, two) = (grant(&house, &first).await, grant(&house, &first).await);
    let other_app = grant(&house, &desktop).await;
    let somebody = [("login", "bela.kovacs@example.org")];
    let somebody = code(&house, &first, &somebody).await;
    let somebody = redeem(&house, &first, &somebody, &[]).await.body;
    let revoke_all = async |token: &str| {
        let url = format!("{}/token?deleteAllForApiClient=true", house.is().api_base);
        reply(house.http.delete(url).bearer_auth(token))
            .await
            .status
    };
    let minted = house
        .control("mutate", json!([{"op": "mint_token", "login": ANA}]))
        .await[0]["value"]
        .clone();
    assert_eq!(revoke_all(minted.as_str().unwrap()).await, 200);
    assert!(
        is_honoured(&house, &one).await,
        "a personal token has no app, and goes alone"
    );
    assert_eq!(revoke_all(one["access_token"].as_str().unwrap()).await, 200);
    for (pair, honoured) in [
        (&one, false),
        (&two, false),
        (&other_app, true),
        (&somebody, true),
    ] {
        assert_eq!(is_honoured(&house, pair).await, honoured);
    }
    assert_eq!(house.get("/users/me").await.status, 200);
}

#[tokio::test]
async fn every_token_says_to_which_app_it_belongs() {
    let house = start().await;
    let [first, desktop, _] = three(&house);
    let pair = grant(&house, &desktop).await;
    refresh(&house, &desktop, &pair).await;
    let rows = house.ask("tokens").await;
    let told: Vec<_> = rows
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (row["token"].as_str().unwrap(), row["client_id"].clone()))
        .collect();
    let (first, desktop) = (json!(first.client_id), json!(desktop.client_id));
    assert_eq!(
        told,
        [
            ("system_admin", Value::Null),
            ("group_admin", Value::Null),
            ("member", Value::Null),
            ("no_read_users", first),
            ("revoked", Value::Null),
            ("oauth-1", desktop.clone()),
            ("oauth-1", desktop),
        ]
    );
}

#[tokio::test]
async fn a_challenge_takes_its_verifier_and_a_wrong_one_spends_the_code() {
    let house = start().await;
    let [first, ..] = three(&house);
    let challenge = challenge(VERIFIER);
    let sent = [
        ("code_challenge", challenge.as_str()),
        ("code_challenge_method", "S256"),
    ];
    let right = [("code_verifier", VERIFIER)];
    let good = code(&house, &first, &sent).await;
    assert_eq!(redeem(&house, &first, &good, &right).await.status, 200);
    let other = "another-verifier-of-forty-three-letters-and-more";
    for wrong in [
        &[][..],
        &[("code_verifier", other)],
        &[("code_verifier", &challenge)],
    ] {
        let fresh = code(&house, &first, &sent).await;
        let refused = redeem(&house, &first, &fresh, wrong).await;
        assert_eq!(refused.refusal(), (400, 1071), "{wrong:?}");
        assert_eq!(refused.body["error"], "invalid_grant");
        assert_eq!(
            redeem(&house, &first, &fresh, &right).await.refusal(),
            (400, 1071),
            "it is spent"
        );
    }
    let unproven = code(&house, &first, &sent).await;
    let forged = OauthClient {
        client_secret: "wrong".to_owned(),
        ..first.clone()
    };
    redeem(&house, &forged, &unproven, &[]).await;
    assert_eq!(
        redeem(&house, &first, &unproven, &right).await.status,
        200,
        "who does not prove to be the app spends nothing"
    );
    let without = code(&house, &first, &[]).await;
    assert_eq!(redeem(&house, &first, &without, &[]).await.status, 200);
}

#[tokio::test]
async fn a_challenge_that_is_none_or_not_by_s256_is_refused_before_anybody_consents() {
    let house = start().await;
    let [first, ..] = three(&house);
    let challenge = challenge(VERIFIER);
    for bad in [
        &[("code_challenge", challenge.as_str())][..],
        &[("code_challenge_method", "S256")],
        &[
            ("code_challenge", VERIFIER),
            ("code_challenge_method", "plain"),
        ],
        &[
            ("code_challenge", "short"),
            ("code_challenge_method", "S256"),
        ],
    ] {
        let (_, parameters) = back(&decide(&house, &first, bad).await);
        assert_eq!(parameters["error"], "invalid_request", "{bad:?}");
    }
}

#[tokio::test]
async fn pkce_may_be_ignored_at_either_end() {
    let house = start().await;
    let [first, ..] = three(&house);
    let challenge = challenge(VERIFIER);
    let sent = [
        ("code_challenge", challenge.as_str()),
        ("code_challenge_method", "S256"),
    ];
    let given = code(&house, &first, &sent).await;
    house.switch(json!({"pkce": "ignored"})).await;
    let wrong = [("code_verifier", "wrong")];
    assert_eq!(redeem(&house, &first, &given, &wrong).await.status, 200);
    let plain = [
        ("code_challenge", "whatever"),
        ("code_challenge_method", "plain"),
    ];
    let ignored = code(&house, &first, &plain).await;
    assert_eq!(redeem(&house, &first, &ignored, &wrong).await.status, 200);
    let ignored = code(&house, &first, &sent).await;
    house.switch(json!({"pkce": "enforced"})).await;
    assert_eq!(
        redeem(&house, &first, &ignored, &[]).await.status,
        200,
        "a challenge that was ignored asks for nothing"
    );
}

#[tokio::test]
async fn grants_are_minted_for_any_app_person_scopes_and_life() {
    let house = start().await;
    let [first, desktop, _] = three(&house);
    let mint = async |op: Value| {
        let mut op = op;
        op["op"] = "mint_oauth".into();
        house.control("mutate", json!([op])).await[0].clone()
    };
    let plain = mint(json!({"login": ANA})).await;
    assert_eq!(
        (&plain["token"], &plain["login"], &plain["client_id"]),
        (&"oauth-1".into(), &ANA.into(), &json!(first.client_id))
    );
    assert_eq!(plain["expires_in"], 604_799);
    let list = house
        .get_as(plain["access_token"].as_str().unwrap(), "/users")
        .await;
    assert!(list.rows()[0]["status"].is_string());
    let short = mint(json!({
        "login": "chidi.okafor@example.org", "client_id": desktop.client_id,
        "scopes": [], "expires_in_s": 5,
    }))
    .await;
    assert_eq!(
        (&short["token"], &short["expires_in"]),
        (&"oauth-2".into(), &5.into())
    );
    let as_short = async |path: &str| {
        house
            .get_as(short["access_token"].as_str().unwrap(), path)
            .await
            .refusal()
    };
    assert_eq!(as_short("/users").await, (403, 1004));
    assert_eq!(as_short("/users/me").await.0, 200);
    house.advance(5).await;
    assert_eq!(as_short("/users/me").await, (401, 1003));
    assert_eq!(
        refresh(&house, &first, &short).await.refusal(),
        (400, 1071),
        "it belongs to its app"
    );
    let next = refresh(&house, &desktop, &short).await.body;
    assert_eq!(next["expires_in"], 604_799);
    house
        .control(
            "mutate",
            json!([{"op": "expire_token", "token": "oauth-1"}]),
        )
        .await;
    assert!(!is_honoured(&house, &plain).await);
    let next = refresh(&house, &first, &plain).await.body;
    assert!(is_honoured(&house, &next).await);
    let expired = mint(json!({"login": ANA, "expires_in_s": 0})).await;
    assert!(!is_honoured(&house, &expired).await);
}

#[tokio::test]
async fn a_grant_that_cannot_be_meant_is_not_minted() {
    let house = start().await;
    for (op, status) in [
        (json!({"login": "nobody@nowhere.example"}), 422),
        (json!({"login": ANA, "client_id": "nobody"}), 422),
        (json!({"login": ANA, "scopes": ["READ_MINDS"]}), 400),
        (json!({"login": ANA, "expires_in_s": -1}), 400),
        (json!({"login": ANA, "expires_in_s": i64::MAX}), 400),
        (json!({"login": ANA, "color": "red"}), 400),
    ] {
        let mut op = op;
        op["op"] = "mint_oauth".into();
        let refused = house.try_control("mutate", json!([op])).await;
        assert_eq!(refused.status, status, "{op}");
    }
    let rows = house.ask("tokens").await.as_array().unwrap().len();
    assert_eq!(rows, 5, "the tokens of the start");
}

#[tokio::test]
async fn ten_thousand_grants_are_minted_in_one_call() {
    let house = start().await;
    let op = json!({"op": "mint_oauth", "login": ANA, "expires_in_s": 60});
    let minted = house.control("mutate", json!(vec![op; 10_000])).await;
    let minted = minted.as_array().unwrap();
    let of = |key: &str| -> std::collections::BTreeSet<&str> {
        minted
            .iter()
            .map(|one| one[key].as_str().unwrap())
            .collect()
    };
    for key in ["token", "access_token", "refresh_token"] {
        assert_eq!(of(key).len(), 10_000, "{key}");
    }
    assert!(is_honoured(&house, &minted[9_999]).await);
}
