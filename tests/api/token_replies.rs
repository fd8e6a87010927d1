//! Token replies as they come: whatever a token endpoint answers, the pair is kept and can be used,
//! or it is refused and revoked, or what became of it is in doubt, which ends.

use std::time::Duration;

use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, RngSeed, TestRunner},
};
use serde_json::{Map, Value, json};

use crate::{
    browser::Browser,
    refresh::{Account, NINETY_SECONDS_LATER, Signed},
    world::{Plan, Reply},
};

fn reshaped(status: u16, body: &str) -> Value {
    json!({"kind": "reshape", "status": status, "body": body})
}

fn answered(status: u16, body: &str) -> Value {
    json!({"kind": "body", "status": status, "content_type": "application/json", "body": body})
}

/// What the provider issued, with this in the place of its lifetime.
fn living(life: &str) -> Value {
    let body = format!(
        r#"{{"access_token":"{{{{access_token}}}}","token_type":"bearer"{life},
            "refresh_token":"{{{{refresh_token}}}}"}}"#
    );
    reshaped(200, &body)
}

#[tokio::test]
async fn a_pair_whose_life_cannot_be_read_is_kept_and_taken_for_an_hour() {
    let signed = Signed::new().await;
    let account = signed.link_and_walk().await;
    for (life, seconds) in [
        (r#","expires_in":"7200""#, 7200),
        (r#","expires_in":7200.9"#, 7200),
        (r#","expires_in":"7200.9""#, 7200),
        ("", 3600),
        (r#","expires_in":null"#, 3600),
        (r#","expires_in":-1"#, 3600),
        (r#","expires_in":0"#, 3600),
        (r#","expires_in":"soon""#, 3600),
        (r#","expires_in":[7200]"#, 3600),
        (r#","expires_in":1e999"#, 3600),
    ] {
        signed.next_token_call(&living(life)).await;
        let before = signed.world.clock.now();
        let seen = signed.refresh(&account).await.expect(200);
        assert_eq!(seen["credential"]["state"], "healthy", "{life}");
        let end = seen["credential"]["expires_at"].as_str().unwrap();
        let end: jiff::Timestamp = end.parse().unwrap();
        let left = end.duration_since(before).as_secs();
        assert!((seconds..seconds + 60).contains(&left), "{life}: {left}");
    }
    // It ends sooner than was assumed: that is what a 401 is for.
    let lives = signed.lives(&account).await.len();
    let expire = json!([{"op": "expire_token", "token": signed.last_grant().await}]);
    signed.world.mutate(&expire).await;
    assert_eq!(signed.world.walk(&account.id).await["state"], "sealed");
    assert_eq!(signed.lives(&account).await.len(), lives + 1);
}

#[tokio::test]
async fn an_oauth_error_is_one_in_a_200_and_any_other_status() {
    let signed = Signed::new().await;
    for (status, body) in [
        (200, r#"{"error":"invalid_grant"}"#),
        (200, r#"{"errorCode":"1071","message":"no"}"#),
        (401, r#"{"error":"invalid_grant"}"#),
        (403, r#"{"error":"invalid_grant","errorCode":null}"#),
        (500, r#"{"error":"invalid_grant"}"#),
    ] {
        let account = signed.link_and_walk().await;
        signed.faults_of_tokens(&answered(status, body)).await;
        assert_eq!(signed.refreshed(&account).await, "uncertain", "{body}");
        signed.world.rewrite(NINETY_SECONDS_LATER).await;
        assert_eq!(
            signed.refreshed(&account).await,
            "reauth_required",
            "{status} {body}"
        );
        signed.world.no_faults().await;
        let told = signed.told(&account).await;
        assert_eq!(told, ["credential.uncertain", "credential.reauth_required"]);
    }
    // Nor is a code spent in vain without a word of it.
    signed
        .next_token_call(&answered(200, r#"{"error":"invalid_grant"}"#))
        .await;
    let refused = signed.sign_in().await;
    refused.refused(422, "authorization_refused");
    // One that is not about the grant kills no account.
    let account = signed.link_and_walk().await;
    for body in [
        r#"{"error":"invalid_client"}"#,
        r#"{"error":"temporarily_unavailable"}"#,
    ] {
        signed.faults_of_tokens(&answered(200, body)).await;
        let seen = signed.refresh(&account).await.expect(200);
        assert_eq!(seen["credential"]["state"], "healthy", "{body}");
        assert_eq!(seen["status_reasons"][0]["code"], "refresh_failed");
    }
    signed.world.no_faults().await;
    assert_eq!(signed.refreshed(&account).await, "healthy");
}

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn what_is_in_doubt_ends_within_a_quarter_of_an_hour_whatever_is_answered() {
    let signed = Signed::new().await;
    let account = signed.link_and_walk().await;
    for fault in [
        answered(200, "<html>"),
        json!({"kind": "status", "status": 503}),
        json!({"kind": "reset"}),
    ] {
        signed.faults_of_tokens(&fault).await;
        assert_eq!(signed.refreshed(&account).await, "uncertain", "{fault}");
        signed.world.credentials_age(13 * MINUTE).await;
        signed
            .until("an end of the doubt", async || {
                signed.state(&account).await == "healthy"
            })
            .await;
        let seen = signed.account(&account).await;
        assert_eq!(seen["status"], "active");
        assert_eq!(seen["status_reasons"][0]["code"], "refresh_failed");
        let told = signed.told(&account).await;
        assert_eq!(told.last().unwrap(), "credential.refresh_refused");
        // And it does not begin again by more of the same.
        assert_eq!(signed.refreshed(&account).await, "healthy", "{fault}");
        assert_eq!(signed.world.walk(&account.id).await["state"], "sealed");
        signed.world.no_faults().await;
        let seen = signed.refresh(&account).await.expect(200);
        assert_eq!(seen["credential"]["state"], "healthy");
        assert_eq!(seen["status_reasons"], json!([]));
    }
}

/// Smartsheet ends the former pair with a refresh, both tokens of it. So once nothing else has told
/// for long what became of a refresh token, the access token does.
#[tokio::test]
async fn a_lost_pair_is_told_by_the_former_access_token() {
    let signed = Signed::new().await;
    let account = signed.link_and_walk().await;
    signed.next_token_call(&reshaped(200, "<html>")).await;
    assert_eq!(signed.refreshed(&account).await, "uncertain");
    assert_eq!(signed.lives(&account).await, [false, true]);
    signed.faults_of_tokens(&answered(200, "<html>")).await;
    assert_eq!(signed.refreshed(&account).await, "uncertain");
    signed.world.credentials_age(11 * MINUTE).await;
    signed
        .until("an end of the doubt", async || {
            signed.state(&account).await == "reauth_required"
        })
        .await;
    let seen = signed.account(&account).await;
    assert_eq!(seen["status"], "error");
    let reason = &seen["status_reasons"][0];
    assert_eq!(reason["code"], "reauth_required");
    let what = reason["description"].as_str().unwrap();
    assert!(what.contains("access token"), "{what}");
}

#[tokio::test]
async fn a_sign_in_without_a_refresh_token_lasts_as_long_as_its_access_token() {
    let signed = Signed::new().await;
    for body in [
        r#"{"access_token":"{{access_token}}","expires_in":{{expires_in}}}"#,
        r#"{"access_token":"{{access_token}}","refresh_token":null}"#,
    ] {
        signed.next_token_call(&reshaped(200, body)).await;
        let account = signed.link_and_walk().await;
        let refused = signed.refresh(&account).await;
        refused.refused(409, "nothing_to_refresh");
        // Longer than was assumed, if need be.
        signed.world.clock.advance(120 * MINUTE);
        assert_eq!(signed.world.walk(&account.id).await["state"], "sealed");
        let grant = signed.last_grant().await;
        let expire = json!([{"op": "expire_token", "token": grant}]);
        signed.world.mutate(&expire).await;
        let walk = signed.world.walk(&account.id).await;
        assert_eq!(walk["reason"], "credential_refused", "{walk}");
        let seen = signed.account(&account).await;
        assert_eq!(seen["status"], "error");
        assert_eq!(seen["credential"]["state"], "reauth_required");
        assert_eq!(seen["status_reasons"][0]["code"], "reauth_required");
    }
}

/// What was read of a sign-in's access token is not always what was issued: its refresh token brings
/// another, or what was issued could not even be revoked.
#[tokio::test]
async fn a_sign_in_whose_access_token_is_not_taken_goes_on_with_the_next() {
    let signed = Signed::new().await;
    let odd = reshaped(
        200,
        r#"{"access_token":"not-what-was-issued","refresh_token":"{{refresh_token}}"}"#,
    );
    signed.next_token_call(&odd).await;
    let account = signed.link_and_walk().await;
    assert_eq!(signed.lives(&account).await, [false, true]);

    let world = &signed.world;
    let profile = world.hub_profile().await;
    let link = world
        .invite(&json!({ "connector_profile_id": profile }))
        .await;
    let mut browser = Browser::open(world, &link).await;
    let authorize = browser.sign_in(&profile).await;
    signed.next_token_call(&odd).await;
    let back = browser.consent(&authorize, "allow").await;
    assert_eq!(browser.get(&back).await.leads(), "/connect/review");
    browser.save().await.leads();
    browser.await_sealed().await.says(200, "is connected");
    assert_eq!(signed.live_of(&signed.last_grant().await).await, 1);

    // And where there is no next, the one that could be read is not linked.
    let alone = reshaped(200, r#"{"access_token":"not-what-was-issued"}"#);
    signed.next_token_call(&alone).await;
    let refused = signed.sign_in().await;
    refused.refused(422, "credential_refused");
}

/// A pair that waits to be saved may wait for longer than its access token is good.
#[tokio::test]
async fn what_nobody_saves_is_revoked_also_when_its_access_token_has_ended() {
    let signed = Signed::new().await;
    let world = &signed.world;
    let profile = world.hub_profile().await;
    let link = world.invite(&json!({})).await;
    let mut browser = Browser::open(world, &link).await;
    let authorize = browser.sign_in(&profile).await;
    let back = browser.consent(&authorize, "allow").await;
    assert_eq!(browser.get(&back).await.leads(), "/connect/review");
    let grant = signed.last_grant().await;
    let over = json!({"kind": "status", "status": 401, "error_code": 1003});
    let revoking = json!({"method": "DELETE", "path_prefix": "/token"});
    world
        .faults(&json!([{"match": revoking, "times": 1, "fault": over}]))
        .await;
    browser.bring(world, &world.admin_token()).await.leads();
    assert_eq!(signed.live_of(&grant).await, 0);
}

/// What comes in the place of a pair as the provider issued it.
#[derive(Debug, Clone)]
struct Odd {
    status: u16,
    /// The field that is hit, and what stands there; None: it is left out.
    field: &'static str,
    value: Option<Value>,
    is_wrapped: bool,
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (0_u32..5000).prop_map(|number| Value::from(number.to_string())),
        "[a-zA-Z0-9]{0,12}".prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            proptest::collection::btree_map("[a-z_]{0,8}", inner, 0..3)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn any_odd() -> impl Strategy<Value = Odd> {
    let status = prop_oneof![
        5 => Just(200_u16),
        4 => prop::sample::select(vec![
            201, 202, 203, 302, 400, 401, 403, 404, 409, 418, 429, 500, 502, 503, 504,
        ]),
    ];
    let fields = [
        "access_token",
        "refresh_token",
        "expires_in",
        "token_type",
        "scope",
    ];
    (
        status,
        prop::sample::select(fields.to_vec()),
        proptest::option::weighted(0.8, any_json()),
        proptest::bool::weighted(0.1),
    )
        .prop_map(|(status, field, value, is_wrapped)| Odd {
            status,
            field,
            value,
            is_wrapped,
        })
}

impl Odd {
    fn fault(&self) -> Value {
        let mut fields: Map<String, Value> = serde_json::from_value(json!({
            "access_token": "{{access_token}}",
            "refresh_token": "{{refresh_token}}",
            "expires_in": 604_799,
            "token_type": "bearer",
            "scope": "READ_USERS",
        }))
        .unwrap();
        match &self.value {
            Some(value) => fields.insert(self.field.to_owned(), value.clone()),
            None => fields.remove(self.field),
        };
        let reply = Value::Object(fields);
        let reply = if self.is_wrapped {
            json!({ "token": reply })
        } else {
            reply
        };
        reshaped(self.status, &reply.to_string())
    }
}

/// Asks again until nothing is in doubt.
async fn settled(signed: &Signed, account: &Account) -> Value {
    for _ in 0..6 {
        let state = signed.state(account).await;
        if state != "uncertain" && state != "refreshing" {
            return state;
        }
        signed.world.rewrite(NINETY_SECONDS_LATER).await;
        signed.refresh(account).await;
    }
    panic!("it is in doubt for ever");
}

/// What a refresh that was answered so comes to. Whether the account goes on.
async fn refresh_survives(signed: &Signed, account: &Account, odd: &Odd) -> bool {
    signed.next_token_call(&odd.fault()).await;
    let told = signed.refresh(account).await.expect(200);
    let told = &told["credential"]["state"];
    assert!(told == "healthy" || told == "uncertain", "{told}");
    signed.world.no_faults().await;
    let state = settled(signed, account).await;
    let live = signed.live_of(account.grant()).await;
    match state.as_str().unwrap() {
        "healthy" => {
            let walk = signed.world.walk(&account.id).await;
            assert_eq!(walk["state"], "sealed", "{walk}");
            assert_eq!(signed.state(account).await, "healthy");
            assert_eq!(signed.live_of(account.grant()).await, 1);
            true
        }
        "reauth_required" => {
            assert_eq!(live, 0, "a pair that lives was given up, and not revoked");
            false
        }
        other => panic!("{other} is no end"),
    }
}

/// What a sign-in that was answered so comes to.
async fn sign_in_survives(signed: &Signed, odd: &Odd) -> Option<Account> {
    signed.next_token_call(&odd.fault()).await;
    let linked: Reply = signed.sign_in().await;
    signed.world.no_faults().await;
    if linked.status.as_u16() == 201 {
        let account = signed.account_of(&linked).await;
        let walk = signed.world.walk(&account.id).await;
        assert_eq!(walk["state"], "sealed", "{walk}");
        return Some(account);
    }
    let code = linked.json()["code"].clone();
    let documented = ["provider_unavailable", "credential_refused"];
    assert!(documented.contains(&code.as_str().unwrap()), "{code}");
    let live = signed.live_of(&signed.last_grant().await).await;
    assert_eq!(live, 0, "a pair that lives was refused, and not revoked");
    None
}

/// Any one field of a good reply replaced or left out, under any status: the pair is kept and can be
/// used, or nothing of it lives on.
#[tokio::test]
async fn no_field_of_a_token_reply_costs_an_account_that_could_be_kept() {
    let is_soak = std::env::var_os("ROLECALL_SOAK").is_some();
    let count = if is_soak { 1000 } else { 40 };
    let rng_seed = match std::env::var("ROLECALL_SOAK_SEED") {
        Ok(seed) => RngSeed::Fixed(seed.parse().unwrap()),
        Err(_) if is_soak => RngSeed::Random,
        Err(_) => RngSeed::Fixed(1),
    };
    let mut runner = TestRunner::new(Config {
        rng_seed,
        ..Config::default()
    });
    let plan = Plan {
        users: 3,
        groups: 1,
        ..Plan::default()
    };
    let signed = Signed::with(plan, &json!({})).await;
    let mut account = None;
    let mut kept = 0;
    for number in 0..count {
        let odd = any_odd().new_tree(&mut runner).unwrap().current();
        eprintln!("{number}: {odd:?}");
        if number % 4 == 0 {
            sign_in_survives(&signed, &odd).await;
        } else {
            let current = match account.take() {
                Some(account) => account,
                None => signed.link_and_walk().await,
            };
            if refresh_survives(&signed, &current, &odd).await {
                kept += 1;
                // Without the next refresh token it lives as long as its access token.
                account = Some(current).filter(|_| odd.field != "refresh_token");
            }
        }
    }
    // Nearly all of them are: a type of token that is not known is about all that costs one.
    assert!(kept * 10 >= count * 5, "{kept} of {count}");
}
