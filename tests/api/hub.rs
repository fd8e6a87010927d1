//! The hub as a browser meets it: from the link of an invitation to a sealed directory, and all that
//! stands in the way.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::json;
use url::Url;

use crate::{
    browser::Browser,
    world::{HANG, Plan, Reply, World, reply},
};

#[tokio::test]
async fn a_token_links_an_account() {
    let world = World::new().await;
    world.hub_profile().await;
    let link = world.invite(&json!({})).await;
    let mut browser = Browser::open(&world, &link).await;
    let start = browser.get("/connect").await;
    start.says(200, "Customer One");
    let tried = browser.bring(&world, &world.admin_token()).await;
    assert_eq!(tried.leads(), "/connect/review");
    browser
        .get("/connect/review")
        .await
        .says(200, "Access token");
    assert!(world.accounts().await.is_empty(), "saved before consent");
    assert_eq!(browser.save().await.leads(), "/connect/progress");
    let done = browser.await_sealed().await;
    let accounts = world.accounts().await;
    assert_eq!(accounts.len(), 1);
    assert_eq!(accounts[0]["origin_owner_name"], "Customer One");
    // Nobody is registered to hear of it.
    assert!(!done.says(200, "is connected").contains("data-opener"));
    // The invitation is used up, and who used it may look on.
    assert_eq!(browser.get("/connect").await.leads(), "/connect/progress");
    let mut late = Browser::new(&world);
    late.get(&link).await.says(410, "has been used");
    assert_eq!(late.cookie, None);
}

#[tokio::test]
async fn a_sign_in_under_a_profile_links_an_account() {
    let world = World::new().await;
    let profile = world.hub_profile().await;
    let link = world
        .invite(&json!({ "connector_profile_id": profile }))
        .await;
    let mut browser = Browser::open(&world, &link).await;
    // No other way is offered, or taken.
    let start = browser.get("/connect").await;
    assert!(!start.says(200, "Sign in").contains("/connect/token"));
    assert_eq!(browser.get("/connect/token").await.leads(), "/connect");
    assert_eq!(browser.get("/connect/app").await.leads(), "/connect");

    let authorize = browser.sign_in(&profile).await;
    let back = browser.consent(&authorize, "allow").await;
    assert_eq!(browser.get(&back).await.leads(), "/connect/review");
    browser
        .get("/connect/review")
        .await
        .says(200, "Sign-in with Smartsheet");
    browser.save().await.leads();
    browser.await_sealed().await.says(200, "is connected");
    assert_eq!(world.accounts().await.len(), 1);
}

#[tokio::test]
async fn an_app_of_the_customer_s_own_links_an_account() {
    let world = World::new().await;
    world.hub_profile().await;
    let app = world
        .simulator
        .register_client(&world.callback("smartsheet_iam"));
    let link = world.invite(&json!({})).await;
    let mut browser = Browser::open(&world, &link).await;
    let page = browser.get("/connect/app").await;
    page.says(200, &world.callback("smartsheet_iam"));
    let sent = browser
        .own_app(&world, &app.client_id, &app.client_secret)
        .await;
    let authorize = sent.leads().to_owned();
    assert!(!authorize.contains(&app.client_secret));
    let back = browser.consent(&authorize, "allow").await;
    assert_eq!(browser.get(&back).await.leads(), "/connect/review");
    let review = browser.get("/connect/review").await;
    review.says(200, "Your own Smartsheet app");
    assert!(!review.text().contains(&app.client_secret));
    browser.save().await.leads();
    browser.await_sealed().await.says(200, "is connected");
}

#[tokio::test]
async fn an_account_is_linked_again_with_one_of_its_organization() {
    let world = World::new().await;
    world.hub_profile().await;
    let account = world.link_admin().await;
    let link = world.invite(&json!({ "account_id": account })).await;
    let mut browser = Browser::open(&world, &link).await;
    browser.get("/connect").await.says(200, "Reconnect");
    let member = world.simulator.announcement().tokens.member.clone();
    browser.bring(&world, &member).await.leads();
    browser.save().await.leads();
    browser.await_sealed().await.says(200, "is connected");
    assert_eq!(world.accounts().await.len(), 1);
}

#[tokio::test]
async fn who_says_no_is_told_that_nothing_was_saved() {
    let world = World::new().await;
    let profile = world.hub_profile().await;
    let link = world.invite(&json!({})).await;
    let mut browser = Browser::open(&world, &link).await;
    let authorize = browser.sign_in(&profile).await;
    let back = browser.consent(&authorize, "deny").await;
    browser
        .get(&back)
        .await
        .says(403, "You did not allow access");
    // Nothing of what a provider says is said again.
    let hostile =
        "/connect/oauth2/smartsheet/callback?error=%3Cscript%3Ex&error_description=%3Cb%3E";
    let page = browser.get(hostile).await;
    assert_eq!(page.status.as_u16(), 403);
    assert!(!page.text().contains("script>x") && !page.text().contains("<b>"));

    // What was looked at, and not wanted.
    browser.bring(&world, &world.admin_token()).await.leads();
    let page = browser.get("/connect/review").await;
    let token = page.input("form_token");
    let canceled = browser
        .post(
            "/connect/review",
            &[("form_token", &token), ("decision", "cancel")],
        )
        .await;
    let next = canceled.leads().to_owned();
    browser.get(&next).await.says(200, "You canceled");
    assert_eq!(browser.get("/connect/review").await.leads(), "/connect");
    assert!(world.accounts().await.is_empty());
}

#[tokio::test]
async fn an_error_at_the_callback_needs_a_state_that_is_known_and_is_never_a_fault_of_ours() {
    let world = World::new().await;
    let profile = world.hub_profile().await;
    let link = world.invite(&json!({})).await;
    let mut browser = Browser::open(&world, &link).await;
    let callback = "/connect/oauth2/smartsheet/callback";
    let words = [
        ("access_denied", 403),
        ("invalid_scope", 422),
        ("unauthorized_client", 502),
        ("invalid_request", 502),
        ("server_error", 502),
        ("temporarily_unavailable", 502),
        ("interaction_required", 502),
        ("%3Cscript%3Ex", 502),
        ("", 502),
    ];
    for (word, status) in words {
        for state in ["", "&state=", "&state=made-up"] {
            let page = browser
                .get(&format!("{callback}?error={word}{state}"))
                .await;
            page.says(403, "This was started in another browser");
        }
        let authorize = browser.sign_in(&profile).await;
        let state = url::Url::parse(&authorize).unwrap();
        let state = state
            .query_pairs()
            .find(|(name, _)| name == "state")
            .unwrap()
            .1;
        let back = format!("{callback}?error={word}&state={state}");
        let page = browser.get(&back).await;
        assert_eq!(page.status.as_u16(), status, "{word}");
        assert!(!page.text().contains("script>x"), "{word}");
        // A state is good once.
        browser.get(&back).await.says(400, "That took too long");
    }
    assert!(world.accounts().await.is_empty());
}

#[tokio::test]
async fn what_a_sign_in_brought_and_nobody_saved_is_revoked_when_the_invitation_ends() {
    let world = World::new().await;
    let profile = world.hub_profile().await;
    let link = world.invite(&json!({})).await;
    let mut browser = Browser::open(&world, &link).await;
    let authorize = browser.sign_in(&profile).await;
    let back = browser.consent(&authorize, "allow").await;
    assert_eq!(browser.get(&back).await.leads(), "/connect/review");
    let is_live = async || {
        let tokens = world.control(Method::GET, "/tokens", &json!(null)).await;
        let mut tokens = tokens.as_array().unwrap().iter();
        tokens.any(|token| token["token"] == "oauth-1" && token["live"] == true)
    };
    assert!(is_live().await);
    // A provider that does not do it is asked again.
    let revocation = json!({"method": "DELETE", "path_prefix": "/token"});
    let refusal = json!({"kind": "status", "status": 400, "error_code": 1001});
    let rule = json!({"match": revocation, "fault": refusal});
    world.faults(&json!([rule])).await;
    let seq = world.provider_calls().await;
    world.clock.advance(Duration::from_secs(1801));
    world.provider_is_called_after(seq).await;
    assert!(is_live().await);
    world.no_faults().await;
    world.clock.advance(Duration::from_secs(601));
    let revoked = async {
        while is_live().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(HANG, revoked).await.unwrap();
    assert!(world.accounts().await.is_empty());
}

#[tokio::test]
async fn a_state_is_good_once_in_its_browser_and_for_its_invitation() {
    let world = World::new().await;
    let profile = world.hub_profile().await;
    let link = world.invite(&json!({})).await;
    let mut browser = Browser::open(&world, &link).await;
    let authorize = browser.sign_in(&profile).await;
    let back = browser.consent(&authorize, "allow").await;

    // In a browser that never opened an invitation, and in one that opened the same.
    let elsewhere = "started in another browser";
    Browser::new(&world).get(&back).await.says(403, elsewhere);
    let mut second = Browser::open(&world, &link).await;
    second.get(&back).await.says(403, elsewhere);
    // In its own, once.
    browser.get(&back).await.leads();
    browser.get(&back).await.says(400, "took too long");
    // A state that nobody made.
    let forged = world.callback("smartsheet") + "?code=x&state=y";
    browser.get(&forged).await.says(403, elsewhere);
    let bare = world.callback("smartsheet");
    browser.get(&bare).await.says(403, elsewhere);

    // The same browser, by now with another invitation.
    let authorize = browser.sign_in(&profile).await;
    let back = browser.consent(&authorize, "allow").await;
    let other = world.invite(&json!({})).await;
    assert_eq!(browser.get(&other).await.leads(), "/connect");
    browser.get(&back).await.says(403, elsewhere);

    // Too late.
    let authorize = browser.sign_in(&profile).await;
    let back = browser.consent(&authorize, "allow").await;
    world.clock.advance(Duration::from_secs(601));
    browser.get(&back).await.says(400, "took too long");
    world.clock.advance(Duration::from_secs(1800));
    browser.get("/connect").await.says(404, "is not open");
    assert!(world.accounts().await.is_empty());
}

#[tokio::test]
async fn an_invitation_that_two_open_at_once_makes_one_link() {
    let world = World::new().await;
    world.hub_profile().await;
    let link = world.invite(&json!({})).await;
    let mut first = Browser::open(&world, &link).await;
    let mut second = Browser::open(&world, &link).await;
    assert_ne!(first.cookie, second.cookie);
    first.bring(&world, &world.admin_token()).await.leads();
    let looked_at = first.get("/connect/review").await;
    let (draft, token) = (looked_at.input("draft"), looked_at.input("form_token"));
    let old = [
        ("form_token", token.as_str()),
        ("draft", draft.as_str()),
        ("decision", "save"),
    ];
    let member = world.simulator.announcement().tokens.member.clone();
    second.bring(&world, &member).await.leads();
    first.bring(&world, &member).await.leads();
    // Another draft than the one that was looked at waits now: look again.
    let again = first.post("/connect/review", &old).await;
    assert_eq!(again.leads(), "/connect/review");
    assert!(world.accounts().await.is_empty());

    let page = second.get("/connect/review").await;
    let (draft, token) = (page.input("draft"), page.input("form_token"));
    let theirs = [
        ("form_token", token.as_str()),
        ("draft", draft.as_str()),
        ("decision", "save"),
    ];
    let page = first.get("/connect/review").await;
    let (draft, token) = (page.input("draft"), page.input("form_token"));
    let own = [
        ("form_token", token.as_str()),
        ("draft", draft.as_str()),
        ("decision", "save"),
    ];
    let (one, other) = tokio::join!(
        first.post("/connect/review", &own),
        second.post("/connect/review", &theirs)
    );
    // Who comes later finds the invitation used, or nothing left to save.
    let is_late = |reply: &Reply| {
        reply.status.as_u16() == 410 || reply.header("location") == Some("/connect/review")
    };
    let won = |reply: &Reply| reply.header("location") == Some("/connect/progress");
    assert!(
        won(&one) && is_late(&other) || won(&other) && is_late(&one),
        "{one:?} {other:?}"
    );
    assert_eq!(world.accounts().await.len(), 1);
}

#[tokio::test]
async fn what_cannot_be_used_comes_back_with_what_to_do() {
    let world = World::new().await;
    let profile = world.hub_profile().await;
    let link = world.invite(&json!({})).await;
    let mut browser = Browser::open(&world, &link).await;
    let unknown = browser.bring(&world, "never-issued-to-anybody").await;
    let page = unknown.says(422, "does not know this token");
    assert!(page.contains("Tried") && !page.contains("never-issued"));
    let tokens = world.simulator.announcement().tokens.clone();
    browser
        .bring(&world, &tokens.no_read_users)
        .await
        .says(422, "may not list people");
    for (region, token, status, words) in [
        ("mars", "abc", 422, "No region was chosen"),
        ("eu", "", 422, "The token is missing"),
        ("eu", "two words", 422, "This is not an access token"),
    ] {
        let fields = [("region", region), ("token", token)];
        let page = browser
            .fill("/connect/token", "/connect/token", &fields)
            .await;
        page.says(status, words);
        assert!(token.is_empty() || !page.text().contains(&format!("\"{token}\"")));
    }
    world.provider_answers(503).await;
    browser
        .bring(&world, &world.admin_token())
        .await
        .says(502, "does not answer");
    world.no_faults().await;
    browser
        .fill("/connect", "/connect/sign-in", &[("profile", "none")])
        .await
        .says(403, "switched off");
    let path = format!("/connector_profiles/{profile}");
    let authorize = browser.sign_in(&profile).await;
    let back = browser.consent(&authorize, "allow").await;
    world
        .call(Method::PATCH, &path, Some(&json!({ "enabled": false })))
        .await
        .expect(200);
    browser.get(&back).await.says(403, "switched off");
    assert!(world.accounts().await.is_empty());
}

#[tokio::test]
async fn an_account_that_stands_for_another_user_is_renewed_by_a_token_alone() {
    let world = World::new().await;
    let profile = world.hub_profile().await;
    let mut body = world.account_body(&world.admin_token());
    body["assume_user"] = json!("chidi.okafor@example.org");
    let account = world.call(Method::POST, "/accounts", Some(&body)).await;
    let account = account.expect(201)["id"].clone();
    let link = world.invite(&json!({"account_id": account})).await;
    let mut browser = Browser::open(&world, &link).await;
    let start = browser.get("/connect").await;
    let start = start.says(200, "/connect/token");
    assert!(!start.contains("/connect/sign-in") && !start.contains("/connect/app"));
    assert_eq!(browser.get("/connect/app").await.leads(), "/connect");
    let fields = [("profile", profile.as_str())];
    browser
        .fill("/connect/token", "/connect/sign-in", &fields)
        .await
        .says(422, "stands for another person");
    let own = [
        ("region", world.simulator.announcement().api_base.as_str()),
        ("client_id", "app"),
        ("client_secret", "secret"),
    ];
    browser
        .fill("/connect/token", "/connect/app", &own)
        .await
        .says(403, "switched off");
    // There is no other way to be chosen.
    let form = browser.get("/connect/token").await;
    assert!(
        !form
            .says(200, "Check the token")
            .contains("Connect another way")
    );
    let member = world.simulator.announcement().tokens.member.clone();
    browser
        .bring(&world, &member)
        .await
        .says(422, "stands for another person");
    let tried = browser.bring(&world, &world.admin_token()).await;
    assert_eq!(tried.leads(), "/connect/review");
}

#[tokio::test]
async fn an_invitation_is_good_for_so_many_tries_in_a_minute() {
    let world = World::new().await;
    let profile = world.hub_profile().await;
    let mut browser = Browser::open(&world, &world.invite(&json!({})).await).await;
    // Some of them come back while they are spent.
    let mut tries = 0;
    loop {
        let seq = world.provider_calls().await;
        let reply = browser.bring(&world, "never-issued").await;
        if reply.status != StatusCode::TOO_MANY_REQUESTS {
            reply.says(422, "does not know this token");
            tries += 1;
            assert!(tries < 300, "there is no end of it");
            continue;
        }
        reply.says(429, "Too many tries");
        assert_eq!(world.provider_calls().await, seq, "somebody was asked");
        break;
    }
    assert!(tries >= 30, "refused after {tries}");
    let chosen = [("profile", profile.as_str())];
    let own = [
        ("region", world.simulator.announcement().api_base.as_str()),
        ("client_id", "app"),
        ("client_secret", "secret"),
    ];
    for (page, action, fields) in [
        ("/connect", "/connect/sign-in", &chosen[..]),
        ("/connect/app", "/connect/app", &own[..]),
    ] {
        let mut tries = 0;
        while browser.fill(page, action, fields).await.status != StatusCode::TOO_MANY_REQUESTS {
            tries += 1;
            assert!(tries < 300, "there is no end of it");
        }
    }
    // What one has spent no other lacks, and it comes back.
    let mut other = Browser::open(&world, &world.invite(&json!({})).await).await;
    other.sign_in(&profile).await;
    world.clock.advance(Duration::from_secs(2));
    browser.sign_in(&profile).await;
}

#[tokio::test]
async fn an_app_that_is_set_up_wrongly_is_told_by_what_is_wrong() {
    let world = World::new().await;
    world.hub_profile().await;
    let link = world.invite(&json!({})).await;
    let mut browser = Browser::open(&world, &link).await;
    let callback = world.callback("smartsheet_iam");
    let app = world.simulator.register_client(&callback);

    let sent = browser.own_app(&world, &app.client_id, "wrong").await;
    let back = browser.consent(sent.leads(), "allow").await;
    let page = browser.get(&back).await;
    page.says(422, "does not take the app secret");

    // Registered with the other callback: the provider comes back there, with an error.
    let other = world
        .simulator
        .register_client(&world.callback("smartsheet"));
    let sent = browser
        .own_app(&world, &other.client_id, &other.client_secret)
        .await;
    let answer = reply(browser.client.get(sent.leads())).await;
    let back = answer.header("location").unwrap();
    let page = browser.get(back).await;
    page.says(422, &callback);

    let wrong = world
        .hub_profile_with(&other.client_id, "not-the-secret")
        .await;
    let authorize = browser.sign_in(&wrong).await;
    let back = browser.consent(&authorize, "allow").await;
    browser.get(&back).await.says(502, "set up wrongly");
    for (id, secret, words) in [
        ("", "x", "client id is missing"),
        ("a b", "x", "not a client id"),
        ("x", "", "secret is missing"),
        ("x", "a b", "not an app secret"),
    ] {
        let page = browser.own_app(&world, id, secret).await;
        page.says(422, words);
    }
    assert!(world.accounts().await.is_empty());
}

#[tokio::test]
async fn a_form_of_somebody_else_s_is_not_taken() {
    let world = World::new().await;
    world.hub_profile().await;
    let link = world.invite(&json!({})).await;
    let mut browser = Browser::open(&world, &link).await;
    browser.bring(&world, &world.admin_token()).await.leads();
    let page = browser.get("/connect/review").await;
    let (draft, token) = (page.input("draft"), page.input("form_token"));
    let good = [
        ("form_token", token.as_str()),
        ("draft", draft.as_str()),
        ("decision", "save"),
    ];
    let refused = "could not be checked";
    for (name, value) in [
        ("origin", "https://evil.example"),
        ("origin", "null"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
        ("content-type", "text/plain"),
        ("content-encoding", "gzip"),
    ] {
        let request = browser.client.post(browser.url("/connect/review"));
        let request = request.form(&good).header(name, value);
        let request = match name {
            "content-type" => browser
                .client
                .post(browser.url("/connect/review"))
                .header(name, value)
                .body("decision=save"),
            _ => request,
        };
        browser.send(request).await.says(403, refused);
    }
    let other = world.invite(&json!({})).await;
    let foreign = Browser::open(&world, &other).await.get("/connect").await;
    for form_token in ["", "x", &foreign.input("form_token")] {
        let mut fields = good;
        fields[0].1 = form_token;
        browser
            .post("/connect/review", &fields)
            .await
            .says(403, refused);
    }
    let large = "x".repeat(16 * 1024);
    let mut fields = good.to_vec();
    fields.push(("more", &large));
    browser
        .post("/connect/review", &fields)
        .await
        .says(403, refused);
    assert!(world.accounts().await.is_empty());
    // What no form has is ignored.
    fields[3].1 = "x";
    browser.post("/connect/review", &fields).await.leads();
}

#[tokio::test]
async fn every_answer_says_what_it_may_do_and_nobody_keeps_it() {
    let world = World::new().await;
    world.hub_profile().await;
    let link = world.invite(&json!({})).await;
    let mut browser = Browser::new(&world);
    let opened = browser.get(&link).await;
    for (name, value) in [
        ("cache-control", "no-store"),
        ("referrer-policy", "no-referrer"),
    ] {
        assert_eq!(opened.header(name), Some(value));
    }
    let set = opened.header("set-cookie").unwrap();
    for part in ["; HttpOnly", "; SameSite=Lax", "; Path=/;"] {
        assert!(set.contains(part), "{set}");
    }
    assert!(!set.contains("Secure"), "this world has no TLS: {set}");
    let (_, age) = set.split_once("; Max-Age=").unwrap();
    assert!((1..=1800).contains(&age.parse::<u32>().unwrap()), "{set}");
    let token = link.rsplit('/').next().unwrap();
    assert!(set.contains(token));
    // A prefetch or a HEAD changes nothing of it, and the browser stays the same one.
    let head = browser.client.head(&link);
    browser.send(head).await.leads();
    assert!(
        browser
            .cookie
            .as_ref()
            .is_some_and(|it| set.starts_with(it))
    );

    let simulator = Url::parse(&world.simulator.announcement().api_base).unwrap();
    let simulator = simulator.origin().ascii_serialization();
    browser.bring(&world, &world.admin_token()).await.leads();
    let unknown = format!("/connect/{}", "x".repeat(43));
    let paths = [
        ("/connect", 200),
        ("/connect/token", 200),
        ("/connect/app", 200),
        ("/connect/review", 200),
        ("/connect/progress", 404),
        ("/connect/done", 404),
        ("/connect/progress.json", 404),
        (unknown.as_str(), 404),
        ("/connect/short", 404),
        ("/connect/", 404),
        ("/connect/a/b/c", 404),
        ("/connect/assets/none.css", 404),
        ("/connect/oauth2/nobody/callback", 404),
        (
            "/connect/oauth2/smartsheet/callback?error=access_denied",
            403,
        ),
    ];
    for (path, status) in paths {
        let page = browser.get(path).await;
        assert_eq!(page.status.as_u16(), status, "{path}");
        let policy = page.header("content-security-policy").unwrap();
        for part in [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
        ] {
            assert!(policy.contains(part), "{path}: {policy}");
        }
        let leads_away = path == "/connect" || path == "/connect/app";
        assert_eq!(policy.contains(&simulator), leads_away, "{path}: {policy}");
        for (name, value) in [
            ("content-type", "text/html; charset=utf-8"),
            ("cache-control", "no-store"),
            ("referrer-policy", "no-referrer"),
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
        ] {
            assert_eq!(page.header(name), Some(value), "{path}");
        }
        let isolated = page.header("cross-origin-opener-policy");
        assert_eq!(isolated.is_some(), status == 200, "{path}");
        let id = page.header("x-request-id").unwrap();
        assert_eq!(page.text().contains(id), status != 200, "{path}");
        assert!(!page.text().contains(token), "{path}");
        assert!(!page.text().contains(&world.admin_token()), "{path}");
    }
    let refused = browser.client.delete(browser.url("/connect"));
    browser.send(refused).await.says(404, "is not open");

    // What pages ask for may be kept for ever.
    let page = browser.get("/connect").await;
    let mut assets = 0;
    for rest in page.text().split("\"/connect/assets/").skip(1) {
        let name = rest.split('"').next().unwrap();
        let asset = browser.get(&format!("/connect/assets/{name}")).await;
        assert_eq!(asset.status.as_u16(), 200);
        let control = asset.header("cache-control").unwrap();
        assert!(control.contains("immutable"), "{control}");
        assets += 1;
    }
    assert_eq!(assets, 3);
}

#[tokio::test]
async fn a_draft_belongs_to_the_browser_that_proved_it() {
    let world = World::new().await;
    world.hub_profile().await;
    let link = world.invite(&json!({})).await;
    let mut owner = Browser::open(&world, &link).await;
    owner.bring(&world, &world.admin_token()).await.leads();
    let review = owner.get("/connect/review").await;
    let draft = review.input("draft");

    // Another browser with the same link sees nothing of it, and can neither save nor cancel it.
    let mut other = Browser::open(&world, &link).await;
    assert_eq!(other.get("/connect/review").await.leads(), "/connect");
    let decide = async |browser: &mut Browser, decision: &str| {
        let fields = [("draft", draft.as_str()), ("decision", decision)];
        let reply = browser.fill("/connect/token", "/connect/review", &fields);
        reply.await.leads().to_owned()
    };
    assert_eq!(decide(&mut other, "save").await, "/connect/review");
    decide(&mut other, "cancel").await;
    assert!(world.accounts().await.is_empty());
    // Nor does it leave a row: with the link alone, any number of them could be made.
    let rows = "select count(*) from connect_browsers";
    assert_eq!(world.number(rows).await, 1);
    assert_eq!(owner.get("/connect/review").await.input("draft"), draft);

    // What it brings itself is its own.
    other.bring(&world, &world.admin_token()).await.leads();
    assert_ne!(other.get("/connect/review").await.input("draft"), draft);
    assert_eq!(owner.get("/connect/review").await.input("draft"), draft);

    // The used link shows its account to the browser that linked it, and to no other.
    assert_eq!(decide(&mut owner, "save").await, "/connect/progress");
    assert_eq!(world.accounts().await.len(), 1);
    let account = world.accounts().await[0]["id"].as_str().unwrap().to_owned();
    world.walk(&account).await;
    owner.get("/connect/done").await.says(200, "is connected");
    let mut made_up = Browser::new(&world);
    let token = link.rsplit('/').next().unwrap();
    made_up.cookie = Some(format!("rolecall-connect={token}.{}", "x".repeat(43)));
    for browser in [&mut other, &mut made_up] {
        for path in [
            "/connect",
            "/connect/review",
            "/connect/progress",
            "/connect/progress.json",
            "/connect/done",
        ] {
            let shown = browser.get(path).await;
            if shown.status == 303 {
                assert_eq!(shown.leads(), "/connect/progress");
                continue;
            }
            shown.says(410, "used");
        }
    }
}

#[tokio::test]
async fn behind_tls_the_cookie_is_for_tls_alone() {
    let world = World::with(Plan {
        settings: vec![("server.public_url", "\"https://link.example.com\"")],
        ..Plan::default()
    })
    .await;
    let link = world.invite(&json!({})).await;
    let token = link.strip_prefix("https://link.example.com").unwrap();
    let mut browser = Browser::new(&world);
    let opened = browser.get(token).await;
    let set = opened.header("set-cookie").unwrap();
    assert!(set.starts_with("__Host-rolecall-connect="), "{set}");
    assert!(set.contains("; Secure"), "{set}");
    // Ours is the origin that browsers see, not the one that is listened at.
    let page = browser.get("/connect/token").await;
    let fields = [("form_token", page.input("form_token"))];
    for (origin, status) in [
        (world.base.as_str(), 403),
        ("https://link.example.com", 422),
    ] {
        let request = browser.client.post(browser.url("/connect/token"));
        let request = request.form(&fields).header("origin", origin);
        assert_eq!(browser.send(request).await.status.as_u16(), status);
    }
}

#[tokio::test]
async fn a_name_is_only_ever_text() {
    let world = World::new().await;
    let hostile = "\"><script>alert(1)</script>";
    let link = world.invite(&json!({ "origin_owner_name": hostile })).await;
    let mut browser = Browser::open(&world, &link).await;
    let page = browser.get("/connect").await;
    assert!(!page.says(200, "alert(1)").contains("<script>alert"));
    let fields = [
        ("region", "eu"),
        ("client_id", hostile),
        ("client_secret", ""),
    ];
    let page = browser.fill("/connect/app", "/connect/app", &fields).await;
    assert!(!page.says(422, "alert(1)").contains("<script>alert"));
}
