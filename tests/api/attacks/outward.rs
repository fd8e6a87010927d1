//! Where we can be made to call, and what we can be made to say there.

use reqwest::Method;
use rolecall::model::api_keys::Scope;
use serde_json::json;

use super::server::{Hostile, header};
use crate::{
    browser::Browser,
    world::{Plan, World},
};

/// In the hub a region is one of those that are offered, and nobody's own address; in a profile a
/// base URL is one that the operator allows.
#[tokio::test]
async fn nobody_names_a_server_that_the_operator_does_not() {
    let world = World::with(Plan {
        settings: vec![("provider.loopback_base_urls", "false")],
        ..Plan::default()
    })
    .await;
    let trap = Hostile::before(&world).await;
    let mut browser = world.guest().await;
    let bases = [
        trap.api_base(),
        trap.api_base().replace("http:", "https:"),
        trap.api_base().replace("127.0.0.1", "localhost"),
        trap.api_base().replace("127.0.0.1", "2130706433"),
        format!("https://api.smartsheet.com@{}", &trap.api_base()[7..]),
        format!("{}#https://api.smartsheet.com/2.0", trap.api_base()),
        "http://169.254.169.254/latest".to_owned(),
        "https://10.0.0.1/2.0".to_owned(),
        "https://[::1]/2.0".to_owned(),
        "https://[::ffff:127.0.0.1]/2.0".to_owned(),
        "https://api.smartsheet.com.evil.example/2.0".to_owned(),
        "file:///etc/passwd".to_owned(),
    ];
    for base in &bases {
        let fields = [("region", base.as_str()), ("token", "abc")];
        let page = browser
            .fill("/connect/token", "/connect/token", &fields)
            .await;
        assert!(
            !page.says(422, "No region was chosen").contains(base),
            "{base}"
        );
        let fields = [
            ("region", base.as_str()),
            ("client_id", "a"),
            ("client_secret", "b"),
        ];
        let page = browser.fill("/connect/app", "/connect/app", &fields).await;
        assert!(
            !page.says(422, "Choose the region").contains(base),
            "{base}"
        );

        let body = json!({
            "provider": "smartsheet", "client_id": "a", "client_secret": "b", "base_url": base,
        });
        let refused = world
            .call(Method::POST, "/connector_profiles", Some(&body))
            .await;
        refused.refused(400, "base_url_not_allowed");
        let mut body = world.account_body("abc");
        body["base_url"] = json!(base);
        let refused = world.call(Method::POST, "/accounts", Some(&body)).await;
        refused.refused(400, "base_url_not_allowed");
    }
    let profiles = world.get("/connector_profiles").await.expect(200);
    assert_eq!(profiles["data"], json!([]));
    assert!(trap.noted().is_empty(), "{:?}", trap.noted());
    world.has_nothing_of(&mut browser).await;
}

#[tokio::test]
async fn an_assumed_user_is_one_header_field() {
    let world = World::new().await;
    let hostile = Hostile::before(&world).await;
    let body = |user: &str| {
        let mut body = world.account_body(&world.admin_token());
        body["base_url"] = json!(hostile.api_base());
        body["assume_user"] = json!(user);
        body
    };
    // Without the scope nobody is assumed, whoever it is.
    let key = world.key_of("one", &[Scope::AccountsWrite]).await;
    let bearer = format!("Bearer {key}");
    let headers = [("authorization", bearer.as_str())];
    let asked = body("someone@example.org");
    let refused = world
        .send(Method::POST, "/accounts", &headers, Some(&asked))
        .await;
    refused.refused(403, "key_scope_missing");

    // What could end a line or a field is no address.
    for user in [
        "a@example.org\r\nx-injected: yes",
        "a@example.org\nx-injected: yes",
        "a@example.org\r\n\r\nGET / HTTP/1.1",
        "a@example.org\u{0}",
        "a@example.org\u{85}x-injected: yes",
        "a@example.org\u{2028}x",
        "a b@example.org",
        "\ta@example.org",
        "a@example.org ",
        "nobody",
        "",
    ] {
        let refused = world
            .call(Method::POST, "/accounts", Some(&body(user)))
            .await;
        refused.refused(400, "invalid_body");
        assert!(!refused.text().contains("injected"));
    }
    assert!(hostile.noted().is_empty(), "{:?}", hostile.noted());

    // The rest goes out as letters that mean nothing there, in one field.
    for user in [
        "a+b@example.org",
        "a%0d%0ax-injected:yes@example.org",
        "a,b@example.org",
        "a;x=\"y\"@example.org",
        "ä\u{202e}@exämple.org",
        "a@example.org:x-injected",
    ] {
        let before = hostile.noted().len();
        let refused = world
            .call(Method::POST, "/accounts", Some(&body(user)))
            .await;
        refused.refused(422, "assume_user_refused");
        let noted = &hostile.noted()[before..];
        assert!(!noted.is_empty());
        for each in noted {
            let sent = header(&each.head, "assume-user").unwrap();
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"%-_.~!*'()".contains(&byte);
            assert!(sent.bytes().all(is_plain), "{sent}");
            let read = percent_encoding::percent_decode_str(&sent)
                .decode_utf8()
                .unwrap();
            assert_eq!(read, user);
            assert_eq!(header(&each.head, "x-injected"), None);
            let fields = each
                .head
                .lines()
                .filter(|line| line.starts_with("assume-user"));
            assert_eq!(fields.count(), 1);
        }
    }
    assert!(world.accounts().await.is_empty());

    // Linked in somebody's place, an account is linked again in theirs, whoever does it.
    let member = world.simulator.announcement().tokens.member.clone();
    let me = format!("{}/users/me", world.simulator.announcement().api_base);
    let me: serde_json::Value = world
        .client
        .get(me)
        .bearer_auth(member)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let user = me["email"].as_str().unwrap();
    let linked = world
        .call(Method::POST, "/accounts", Some(&body(user)))
        .await;
    let linked = linked.expect(201);
    assert_eq!(linked["is_admin"], false, "{linked}");
    let before = hostile.noted().len();
    let again = world.invite(&json!({ "account_id": linked["id"] })).await;
    let mut browser = Browser::open(&world, &again).await;
    let region = hostile.api_base();
    let fields = [("region", region.as_str()), ("token", "another")];
    let tried = browser
        .fill("/connect/token", "/connect/token", &fields)
        .await;
    assert_eq!(tried.leads(), "/connect/review");
    for each in &hostile.noted()[before..] {
        let sent = header(&each.head, "assume-user").unwrap_or_default();
        assert_eq!(
            percent_encoding::percent_decode_str(&sent)
                .decode_utf8()
                .unwrap(),
            user
        );
    }
}
