//! What the hub's pages may be made to show, and where they may be made to lead.

use reqwest::Method;
use rolecall::{gateway::admin::Operator, store::HubTargets};
use serde_json::json;

use super::{server::Hostile, sign_in::parameter};
use crate::{
    browser::Browser,
    world::{Plan, World},
};

/// What nobody may be made to read as markup, nor to run.
const MARKUP: &str = "\"'><script>owned()</script><img src=x onerror=owned()>";

fn registered(of: &[&str]) -> Vec<String> {
    of.iter().map(|url| (*url).to_owned()).collect()
}

impl World {
    async fn registers(&self, return_urls: &[&str], opener_origins: &[&str]) {
        let targets = HubTargets {
            return_urls: registered(return_urls),
            opener_origins: registered(opener_origins),
        };
        let operator = Operator::new(self.gateway.clone());
        let project = "one".parse().unwrap();
        operator.set_hub_targets(&project, &targets).await.unwrap();
    }

    /// The last page of an invitation with this beside it.
    async fn done_with(&self, more: &serde_json::Value) -> (Browser, crate::world::Reply) {
        let link = self.invite(more).await;
        let mut browser = Browser::open(self, &link).await;
        browser.bring(self, &self.admin_token()).await.leads();
        browser.save().await.leads();
        let done = browser.await_sealed().await;
        (browser, done)
    }
}

#[tokio::test]
async fn a_customer_returns_to_what_is_registered_letter_for_letter() {
    let world = World::new().await;
    world.hub_profile().await;
    let urls = [
        "https://app.example.org/done",
        "https://app.example.org/?to=done",
    ];
    let origins = ["https://app.example.org", "http://localhost:3000"];
    // Nothing is registered yet, so nothing will do.
    for (name, value) in [("return_url", urls[0]), ("opener_origin", origins[0])] {
        let body = json!({ "origin_owner_id": "c", "origin_owner_name": "C", name: value });
        let refused = world
            .call(Method::POST, "/connect_sessions", Some(&body))
            .await;
        refused.refused(400, "invalid_body");
    }
    world.registers(&urls, &origins).await;
    for (name, value) in [
        ("return_url", "https://evil.example/done"),
        ("return_url", "https://app.example.org/done/"),
        ("return_url", "https://app.example.org/done?x"),
        ("return_url", "https://app.example.org/done#x"),
        ("return_url", "https://app.example.org/Done"),
        ("return_url", "https://APP.example.org/done"),
        ("return_url", "https://app.example.org:443/done"),
        ("return_url", "https://app.example.org/./done"),
        ("return_url", "https://app.example.org/done/../../evil"),
        ("return_url", "https://app.example.org@evil.example/done"),
        ("return_url", "https://app.example.org.evil.example/done"),
        (
            "return_url",
            "https://evil.example/https://app.example.org/done",
        ),
        ("return_url", "http://app.example.org/done"),
        ("return_url", "//app.example.org/done"),
        ("return_url", "/done"),
        ("return_url", " https://app.example.org/done"),
        (
            "return_url",
            "javascript:alert(1)//https://app.example.org/done",
        ),
        ("return_url", ""),
        ("opener_origin", "https://evil.example"),
        ("opener_origin", "https://app.example.org/"),
        ("opener_origin", "https://app.example.org:8443"),
        ("opener_origin", "https://app.example.org.evil.example"),
        ("opener_origin", "*"),
        ("opener_origin", "null"),
        ("opener_origin", ""),
    ] {
        let body = json!({ "origin_owner_id": "c", "origin_owner_name": "C", name: value });
        let refused = world
            .call(Method::POST, "/connect_sessions", Some(&body))
            .await;
        refused.refused(400, "invalid_body");
        assert!(
            value.is_empty() || !refused.text().contains(value),
            "{value}"
        );
    }

    let chosen = json!({ "return_url": urls[1], "opener_origin": origins[1] });
    let (mut browser, done) = world.done_with(&chosen).await;
    let led = |page: &str| -> Vec<String> {
        let parts = page.split("href=\"").skip(1);
        let links = parts.map(|rest| rest.split('"').next().unwrap().to_owned());
        links.filter(|link| link.contains("//")).collect()
    };
    assert_eq!(led(done.says(200, "is connected")), [urls[1]]);
    done.says(200, "data-opener=\"http://localhost:3000\"");
    // What opened the page may talk to it, since it is to be told.
    assert_eq!(done.header("cross-origin-opener-policy"), None);
    // Nothing that a browser brings changes that.
    for asked in [
        "return_url",
        "opener_origin",
        "return",
        "next",
        "redirect_uri",
    ] {
        let path = format!("/connect/done?{asked}=https://evil.example/");
        assert_eq!(browser.get(&path).await.text(), done.text(), "{asked}");
    }

    // Of two that are registered none is chosen for anybody; the only one is.
    let (_, done) = world.done_with(&json!({})).await;
    assert!(led(done.text()).is_empty() && !done.text().contains("data-opener"));
    assert_eq!(
        done.header("cross-origin-opener-policy"),
        Some("same-origin")
    );
    world.registers(&urls[..1], &origins[..1]).await;
    let (_, done) = world.done_with(&json!({})).await;
    assert_eq!(led(done.text()), [urls[0]]);
    done.says(200, "data-opener=\"https://app.example.org\"");
}

#[tokio::test]
async fn a_link_token_is_used_up_by_a_link_alone() {
    let world = World::new().await;
    let profile = world.hub_profile().await;
    let link = world.invite(&json!({})).await;
    let token = link.rsplit('/').next().unwrap();
    let authenticate = async || {
        let body = json!({ "token": token });
        let path = "/connect_sessions/authenticate";
        world.call(Method::POST, path, Some(&body)).await
    };
    // Looked at, opened, tried in vain: it is as good as before.
    let mut browser = Browser::open(&world, &link).await;
    for _ in 0..3 {
        authenticate().await.expect(201);
        Browser::open(&world, &link).await;
        let head = browser.client.head(&link);
        browser.send(head).await.leads();
        browser
            .bring(&world, "never-issued")
            .await
            .says(422, "does not know");
        let way = browser.sign_in(&profile).await;
        let back = browser.consent(&way, "deny").await;
        browser.get(&back).await.says(403, "did not allow");
        browser.bring(&world, &world.admin_token()).await.leads();
    }
    let mut other = Browser::open(&world, &link).await;
    let page = browser.get("/connect/review").await;
    let fields = ["form_token", "draft"].map(|name| (name, page.input(name)));
    let mut fields: Vec<_> = fields
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    fields.push(("decision", "save"));
    browser.post("/connect/review", &fields).await.leads();

    // And by then it is good for nothing: not for the form once more, nor in another browser that
    // had opened it before, nor where a sign-in of it comes back.
    authenticate().await.refused(403, "connect_session_invalid");
    browser
        .post("/connect/review", &fields)
        .await
        .says(410, "has been used");
    Browser::new(&world)
        .get(&link)
        .await
        .says(410, "has been used");
    for path in ["/connect/token", "/connect/app", "/connect/review"] {
        other.get(path).await.says(410, "has been used");
    }
    let late = format!("{}?code=c&state=s", world.callback("smartsheet"));
    other.get(&late).await.says(410, "has been used");
    assert_eq!(world.accounts().await.len(), 1);

    // One that may make several makes them.
    let link = world.invite(&json!({ "multiple": true })).await;
    let mut browser = Browser::open(&world, &link).await;
    for links in 2..4 {
        browser.bring(&world, &world.admin_token()).await.leads();
        browser.save().await.leads();
        assert_eq!(world.accounts().await.len(), links);
    }
}

/// Names of customers, apps, people and organizations are whatever somebody else chose.
#[tokio::test]
async fn what_others_call_something_is_only_ever_text() {
    let world = World::new().await;
    let hostile = Hostile::before(&world).await;
    hostile.says_of_who(json!({
        "firstName": MARKUP, "lastName": MARKUP, "email": format!("{MARKUP}@example.org"),
        "account": { "id": 17, "name": MARKUP },
    }));
    let mut profiles = Vec::new();
    for _ in 0..2 {
        let body = json!({
            "provider": "smartsheet", "label": MARKUP, "client_id": MARKUP,
            "client_secret": "x", "base_url": hostile.api_base(),
        });
        let made = world.call(Method::POST, "/connector_profiles", Some(&body));
        profiles.push(made.await.expect(201)["id"].as_str().unwrap().to_owned());
    }
    let invited =
        json!({ "origin_owner_name": MARKUP, "origin_username": MARKUP, "label": MARKUP });
    let mut browser = Browser::open(&world, &world.invite(&invited).await).await;
    let mut shown = Vec::new();
    for path in ["/connect", "/connect/token", "/connect/app"] {
        shown.push(browser.get(path).await);
    }
    let way = browser.sign_in(&profiles[0]).await;
    let state = parameter(&way, "state");
    let callback = world.callback("smartsheet");
    for query in [
        format!("error={MARKUP}&error_description={MARKUP}&state={MARKUP}"),
        format!("code={MARKUP}&state={MARKUP}"),
    ] {
        shown.push(browser.get(&format!("{callback}?{query}")).await);
    }
    let back = format!("{callback}?code=c&state={state}");
    assert_eq!(browser.get(&back).await.leads(), "/connect/review");
    shown.push(browser.get("/connect/review").await);
    assert!(shown.last().unwrap().text().matches("owned()").count() >= 3);
    browser.save().await.leads();
    shown.push(browser.get("/connect/progress").await);
    let json = browser.get("/connect/progress.json").await;
    assert_eq!(json.header("x-content-type-options"), Some("nosniff"));
    shown.push(browser.await_sealed().await);
    assert!(shown.last().unwrap().text().contains("owned()"));

    // Linked again, by somebody of an organization of another such name.
    let account = world.accounts().await[0]["id"].clone();
    let again = world.invite(&json!({ "account_id": account })).await;
    let mut browser = Browser::open(&world, &again).await;
    shown.push(browser.get("/connect").await);
    hostile.says_of_who(json!({ "account": { "id": 18, "name": MARKUP } }));
    let way = browser.sign_in(&profiles[1]).await;
    let back = format!("{callback}?code=c&state={}", parameter(&way, "state"));
    let page = browser.get(&back).await;
    page.says(422, "owned()");
    shown.push(page);
    for page in &shown {
        let text = page.text();
        for raw in ["<script>", "<img src", "\"'>", MARKUP] {
            assert!(!text.contains(raw), "{raw}: {text}");
        }
        let policy = page.header("content-security-policy");
        assert!(page.status.is_redirection() || policy.unwrap().contains("script-src 'self'"));
    }
}

/// Where this server is, its settings say, and nobody who asks.
#[tokio::test]
async fn a_host_that_a_browser_names_is_nowhere_in_a_page() {
    let world = World::with(Plan {
        settings: vec![("server.public_url", "\"https://link.example.com\"")],
        ..Plan::default()
    })
    .await;
    world.hub_profile().await;
    let link = world.invite(&json!({})).await;
    let path = link.strip_prefix("https://link.example.com").unwrap();
    let mut browser = Browser::new(&world);
    for path in [path, "/connect", "/connect/app", "/connect/nowhere"] {
        let mut request = browser.client.get(format!("{}{path}", world.base));
        for name in [
            "host",
            "x-forwarded-host",
            "x-original-url",
            "x-forwarded-prefix",
        ] {
            request = request.header(name, "evil.example");
        }
        let request = request.header("forwarded", "host=evil.example;proto=http");
        let page = browser.send(request).await;
        let said = format!("{:?} {}", page.headers, page.text());
        assert!(!said.contains("evil.example"), "{path}: {said}");
    }
    let page = browser.get("/connect/app").await;
    page.says(
        200,
        "https://link.example.com/connect/oauth2/smartsheet_iam/callback",
    );
}
