//! Sign-ins, invitations, refreshes, and credentials that move: where their secrets are not.

use reqwest::Method;
use rolecall::crypto::ApiKeySecret;
use serde_json::{Value, json};

use super::{
    Search,
    bird::Bird,
    cage::{CONFIG, Cage},
};
use crate::{
    attacks::{
        server::{Answer, Hostile},
        sign_in::parameter,
    },
    browser::Browser,
    schema::Schema,
    world::{HANG, World},
};

/// A profile, and mistakes in making one.
async fn profiles(bird: &mut Bird) -> String {
    let secret = bird.canary("a profile's client secret");
    let base = bird.hostile.api_base();
    let sound = json!({
        "provider": "smartsheet", "client_id": "app", "client_secret": secret, "base_url": base,
    });
    for (key, value) in [
        ("client_id", json!([secret])),
        ("client_secret", json!([secret])),
        ("client_secret", json!(format!("{secret}\n"))),
        ("provider", json!(secret)),
        ("label", json!({ "secret": secret })),
        ("scopes", json!([secret])),
        ("redirect_url", json!(secret)),
        ("base_url", json!(format!("https://{secret}.example.org"))),
        ("type", json!(secret)),
    ] {
        let mut mistaken = sound.clone();
        mistaken[key] = value;
        bird.post("/connector_profiles", &mistaken).await;
    }
    let made = bird.post("/connector_profiles", &sound).await;
    let id = made["id"].as_str().unwrap().to_owned();
    let path = format!("/connector_profiles/{id}");
    let former = json!({ "client_secret": bird.canary("a profile's next client secret") });
    bird.hears(Method::PATCH, &path, Some(&former)).await;
    let mistaken = json!({ "enabled": former["client_secret"] });
    bird.hears(Method::PATCH, &path, Some(&mistaken)).await;
    bird.hears(Method::GET, &format!("/connector_profiles/{secret}"), None)
        .await;
    id
}

/// An invitation that is opened, misused, and not saved.
async fn drafts(bird: &mut Bird, cage: &Cage, profile: &str) {
    let mut visit = bird.invited(&json!({})).await;
    let base = bird.hostile.api_base();
    let browser = &mut visit.browser;
    let draft = bird.canary("a pasted token");
    browser.bring_to(&base, &draft).await.leads();
    browser
        .get("/connect/review")
        .await
        .says(200, "Access token");
    bird.look(cage).await;
    // Replaced, malformed, in another field, and cancelled.
    let next = bird.canary("the next pasted token");
    browser.bring_to(&base, &next).await.leads();
    browser
        .bring_to(&base, &format!("{next} {next}"))
        .await
        .says(422, "not an access token");
    browser.bring_to(&next, &next).await.says(422, "No region");
    browser
        .own_app_at(&base, "x y", &next)
        .await
        .says(422, "not a client id");
    browser
        .fill("/connect/token", "/connect/sign-in", &[("profile", &next)])
        .await;
    let unfit = browser
        .client
        .post(browser.url("/connect/token"))
        .json(&json!({ "token": next }));
    browser.send(unfit).await.says(403, "could not be checked");
    browser
        .fill(
            "/connect/token",
            "/connect/review",
            &[("decision", "cancel")],
        )
        .await
        .leads();
    bird.look(cage).await;

    // The link token and the cookie where they do not belong.
    let token = visit.token.clone();
    for path in [
        format!("/connect/{token}x"),
        format!("/connect/assets/{token}"),
        format!("/connect/oauth2/{token}/callback"),
        format!("/connect/x/{token}"),
        format!("/connect?token={token}"),
        format!("/connect/done?token={token}"),
    ] {
        browser.get(&path).await;
    }
    for path in [
        format!("/accounts/{token}"),
        format!("/{token}"),
        format!("/audit?next={token}"),
    ] {
        bird.hears(Method::GET, &path, None).await;
    }
    for body in [
        json!({ "token": [token] }),
        json!({ "tokens": token }),
        json!(token),
    ] {
        bird.post("/connect_sessions/authenticate", &body).await;
    }
    bird.post("/connect_sessions/authenticate", &json!({ "token": token }))
        .await;

    // Sign-ins that come to nothing, at a server that says again all that it is told.
    for status in [400, 401, 500, 200] {
        let code = bird.canary("a code");
        bird.hostile.issues(Answer::repeating(status));
        let way = visit.browser.sign_in(profile).await;
        let back = bird.back(&way, &code);
        bird.look(cage).await;
        assert!(!visit.browser.get(&back).await.status.is_redirection());
        visit.browser.get(&back).await.says(400, "took too long");
        Browser::at(&bird.base)
            .get(&back)
            .await
            .says(403, "another browser");
    }
    let code = bird.canary("a code that came with an error");
    for query in [
        format!("error={code}&error_description={code}"),
        format!("code={code}"),
    ] {
        let back = format!("/connect/oauth2/smartsheet/callback?{query}&state={code}");
        visit.browser.get(&back).await;
    }
    bird.leaves(visit);
}

/// Links by a sign-in under the profile, by an app of the customer's own, and through the API; gives
/// the first and the last account.
async fn links(bird: &mut Bird, cage: &Cage, profile: &str) -> (String, String) {
    let mut visit = bird.invited(&json!({})).await;
    bird.new_pair();
    let code = bird.canary("a good code");
    let way = visit.browser.sign_in(profile).await;
    let back = bird.back(&way, &code);
    assert_eq!(visit.browser.get(&back).await.leads(), "/connect/review");
    bird.look(cage).await;
    visit.browser.save().await.leads();
    visit.browser.get("/connect/progress").await;
    visit.browser.await_sealed().await;
    visit
        .browser
        .get("/connect/token")
        .await
        .says(410, "has been used");
    let late = json!({ "token": visit.token });
    bird.post("/connect_sessions/authenticate", &late).await;
    bird.leaves(visit);

    let mut visit = bird.invited(&json!({})).await;
    bird.new_pair();
    let (secret, code) = (bird.canary("an own app's secret"), bird.canary("its code"));
    let base = bird.hostile.api_base();
    let sent = visit.browser.own_app_at(&base, "own-app", &secret).await;
    let back = bird.back(sent.leads(), &code);
    bird.look(cage).await;
    assert_eq!(visit.browser.get(&back).await.leads(), "/connect/review");
    visit.browser.save().await.leads();
    visit.browser.await_sealed().await;
    bird.leaves(visit);

    let (code, callback) = (
        bird.canary("a code by the API"),
        "https://app.example.org/cb",
    );
    let body = json!({
        "provider": "smartsheet", "client_id": "app", "base_url": base, "redirect_url": callback,
        "client_secret": bird.canary("another profile's client secret"),
    });
    let made = bird.post("/connector_profiles", &body).await;
    let body = json!({
        "profile": made["id"], "callback_url": callback,
        "origin_owner_id": "c", "origin_owner_name": "C",
    });
    bird.new_pair();
    let begun = bird
        .ask(Method::POST, "/oauth/authorization_url", Some(&body))
        .await;
    let way = begun.expect(200)["url"].as_str().unwrap().to_owned();
    bird.back(&way, &code);
    let state = parameter(&way, "state");
    for body in [
        json!({ "state": code, "code": state }),
        json!({ "state": [state], "code": code }),
        json!({ "state": state, "code": [code] }),
        json!({ "state": state, "code": code, "more": code }),
    ] {
        bird.post("/oauth/token_exchange", &body).await;
    }
    let body = json!({ "state": state, "code": code });
    let linked = bird.post("/oauth/token_exchange", &body).await;
    bird.post("/oauth/token_exchange", &body).await;
    let accounts = bird.hears(Method::GET, "/accounts", None).await;
    assert_eq!(accounts.as_array().unwrap().len(), 3);
    let id = |account: &Value| account["id"].as_str().unwrap().to_owned();
    (id(&accounts[0]), id(&linked))
}

/// Refreshes that succeed, one of which waits beside the store, and one that does not.
async fn refreshes(bird: &mut Bird, cage: &Cage, account: &str) {
    let path = format!("/accounts/{account}/refresh");
    for _ in 0..3 {
        bird.new_pair();
        let refreshed = bird.hears(Method::POST, &path, None).await;
        assert_eq!(refreshed["credential"]["state"], "healthy", "{refreshed}");
        bird.look(cage).await;
    }

    bird.new_pair();
    let hostile = bird.hostile.clone();
    let held = hostile.hold().await;
    let before = hostile.redemptions().len();
    let asking = bird.ask(Method::POST, &path, None);
    let journaling = async {
        until(|| hostile.redemptions().len() > before).await;
        // Only a file is locked; beside a server the answer is given out as this ends.
        let _locked = cage.lock_store().await?;
        drop(held);
        until(|| cage.journaled() == 1).await;
        // Read while its row waits: this is what a thief of the disk would have.
        Some(cage.stored().await)
    };
    let (asked, journaled) = tokio::join!(asking, journaling);
    bird.answers.push(asked);
    if let Some(journaled) = journaled {
        assert!(
            journaled
                .iter()
                .any(|(name, bytes)| name.ends_with(".pair") && bytes.len() > 100)
        );
        bird.stored.extend(journaled);
        until(|| cage.journaled() == 0).await;
    }
    bird.look(cage).await;

    bird.hostile.issues(Answer::repeating(400));
    bird.hears(Method::POST, &path, None).await;
}

/// Waits until this holds: that is an event, but one that only asking again shows.
async fn until(holds: impl Fn() -> bool) {
    let came = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(HANG, came).await.unwrap();
}

/// A credential on its way to another installation, by the command line.
async fn moves(bird: &mut Bird, cage: &Cage, account: &str) -> Vec<(String, Vec<u8>)> {
    let passphrase = bird.canary("a passphrase");
    let wrong = bird.canary("a wrong passphrase");
    let run = async |arguments: &[&str], passphrase: &str| {
        let arguments = [arguments, &["--passphrase-stdin"], &CONFIG].concat();
        cage.tried(&arguments, format!("{passphrase}\n").as_bytes())
            .await
    };
    let export = ["credentials", "export", account, "--to", "moved.cred"];
    let import = ["credentials", "import", "moved.cred", "--project", "one"];
    let mut said = Vec::new();
    for (arguments, passphrase, is_good) in [
        (export, &passphrase, true),
        (export, &passphrase, false),
        (import, &wrong, false),
        (import, &passphrase, true),
    ] {
        bird.new_pair();
        let (was_good, printed) = run(&arguments, passphrase).await;
        assert_eq!(was_good, is_good, "{}", printed.err);
        said.push((
            arguments.join(" "),
            (printed.out + &printed.err).into_bytes(),
        ));
    }
    said.push((
        "moved.cred".to_owned(),
        std::fs::read(cage.path("moved.cred")).unwrap(),
    ));

    // A profile by the command line, and what lists show.
    let secret = bird.canary("a client secret on standard input");
    let base = bird.hostile.api_base();
    let create = [
        "profiles",
        "create",
        "--project",
        "one",
        "--client-id",
        "a",
        "--base-url",
        &base,
    ];
    let create = [
        &create[..],
        &["--secret-stdin", "--redirect-url", "https://a.example/"],
        &CONFIG,
    ];
    let printed = cage.run(&create.concat(), secret.as_bytes()).await;
    said.push((
        "profiles create".to_owned(),
        (printed.out + &printed.err).into_bytes(),
    ));
    for arguments in [
        &["profiles", "list", "--project", "one", "--json"][..],
        &["accounts", "list", "--json"],
        &["accounts", "show", account, "--json"],
        &["audit", "list", "--limit", "1000", "--json"],
        &["audit", "verify"],
        &["check"],
    ] {
        let printed = cage.told(arguments).await;
        said.push((
            arguments.join(" "),
            (printed.out + &printed.err).into_bytes(),
        ));
    }
    said
}

async fn nothing_of_a_link_is_found(cage: Cage) {
    let trap = Hostile::before(&World::new().await).await;
    // What a process is told of proxies is for others.
    let proxies = [
        "HTTP_PROXY",
        "http_proxy",
        "HTTPS_PROXY",
        "https_proxy",
        "ALL_PROXY",
        "all_proxy",
    ];
    let environment = proxies.map(|name| (name, trap.origin()));
    let mut bird = Bird::new(&cage, &environment).await;
    let profile = profiles(&mut bird).await;
    drafts(&mut bird, &cage, &profile).await;
    let (first, last) = links(&mut bird, &cage, &profile).await;
    refreshes(&mut bird, &cage, &last).await;
    let key_id = ApiKeySecret::parse(&bird.key).unwrap().id().to_string();
    let key = format!("/api_keys/{}", bird.key);
    for path in [
        "/audit?page_size=100",
        "/connector_profiles",
        "/accounts",
        "/api_keys",
        "/openapi.json",
        &format!("/accounts/{last}"),
        &format!("/accounts/{last}/walks"),
        &key,
    ] {
        bird.hears(Method::GET, path, None).await;
    }
    let gone = bird
        .hears(Method::DELETE, &format!("/accounts/{last}"), None)
        .await;
    assert!(gone["revocation"].is_string(), "{gone}");
    let audited = bird
        .hears(Method::GET, "/audit?page_size=100", None)
        .await
        .to_string();
    for action in [
        "profile.created",
        "connect_session.linked",
        "credential.refreshed",
        "account.disconnected",
    ] {
        assert!(audited.contains(action), "{action}: {audited}");
    }
    assert!(audited.contains(&key_id));
    let metrics = bird.ask(Method::GET, "/metrics", None).await;
    assert!(
        metrics.text().contains("route=\"/connect/{token}\""),
        "{}",
        metrics.text()
    );
    bird.look(&cage).await;
    for redemption in bird.hostile.redemptions() {
        if redemption.body.contains("code_verifier") {
            bird.secrets
                .push(("a verifier", redemption.field("code_verifier")));
        }
    }
    assert!(
        bird.secrets
            .iter()
            .filter(|(what, _)| *what == "a verifier")
            .count()
            >= 7
    );
    assert!(
        bird.hostile
            .noted()
            .iter()
            .any(|each| each.method == "DELETE")
    );
    assert!(
        trap.noted().is_empty(),
        "a proxy was asked: {:?}",
        trap.noted()
    );

    let log = bird.process.take().unwrap().stop().await;
    let text = String::from_utf8_lossy(&log);
    for part in [
        "TRACE",
        "connector profile made",
        "connect session made",
        "account linked",
        "token request",
        "tokens refreshed",
        "tokens not refreshed",
    ] {
        assert!(text.contains(part), "the log has no {part}");
    }
    assert!(text.contains(&first));
    let shown = |words: &str| {
        let mut pages = bird.pages.iter();
        pages.any(|page| String::from_utf8_lossy(page).contains(words))
    };
    for words in [
        "is connected",
        "Access token",
        "does not answer",
        "has been used",
    ] {
        assert!(shown(words), "no page says {words}");
    }
    let said = moves(&mut bird, &cage, &first).await;
    bird.look(&cage).await;

    let planted = bird.canary("what was planted");
    let canaries = bird
        .secrets
        .iter()
        .map(|(what, text)| (*what, text.as_str()));
    let mut search = Search::new(canaries);
    search.look("the log", &log);
    search.look("the metrics", &metrics.bytes);
    for answer in &bird.answers {
        let headers = format!("{:?}", answer.headers);
        search.look("an answer", &answer.bytes);
        search.look("an answer's headers", headers.as_bytes());
    }
    for page in &bird.pages {
        search.look("a page", page);
    }
    for (place, bytes) in bird.stored.iter().chain(&said) {
        search.look(place, bytes);
    }
    assert!(search.found.is_empty(), "{:#?}", search.found);

    // What is put there on purpose is found, in each encoding and in both kinds of column.
    cage.plant(&planted).await;
    for (place, bytes) in &cage.stored().await {
        search.look(place, bytes);
    }
    assert!(search.found.len() >= 10, "{:#?}", search.found);
    assert!(
        search
            .found
            .iter()
            .all(|it| it.starts_with("what was planted"))
    );
}

#[tokio::test]
async fn nothing_of_a_link_is_found_beside_a_file() {
    nothing_of_a_link_is_found(Cage::new(None).await).await;
}

#[tokio::test]
async fn nothing_of_a_link_is_found_beside_a_postgresql_server() {
    if let Some(schema) = Schema::new().await {
        nothing_of_a_link_is_found(Cage::new(Some(schema)).await).await;
    }
}
