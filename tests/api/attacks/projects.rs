//! What a body names is looked for in the caller's own project (G1): the matrix of
//! [`crate::isolation`], for ids and secrets that are in no path.

use std::collections::BTreeSet;

use reqwest::Method;
use rolecall::model::api_keys::Scope;
use serde_json::{Value, json};

use super::sign_in::parameter;
use crate::{
    browser::Browser,
    openapi::operations,
    world::{Reply, World},
};

/// Every key of a body that names something which belongs to a project.
const NAMES: [(&str, &str); 5] = [
    ("/connect_sessions", "connector_profile_id"),
    ("/connect_sessions", "account_id"),
    ("/connect_sessions/authenticate", "token"),
    ("/oauth/authorization_url", "profile"),
    ("/oauth/token_exchange", "state"),
];

/// Every other key of a body: what it holds is the caller's own words, or the same for everybody.
const WORDS: [&str; 34] = [
    "access_token",
    "actions",
    "assume_user",
    "authentication_config_key",
    "base_url",
    "callback_url",
    "categories",
    "client_id",
    "client_secret",
    "code",
    "credential",
    "credentials",
    "enabled",
    "environment",
    "expires_at",
    "expires_in",
    "integration_id",
    "label",
    "metadata",
    "multiple",
    "opener_origin",
    "origin_owner_id",
    "origin_owner_name",
    "origin_username",
    "client_auth",
    "provider",
    "provider_version",
    "redirect_url",
    "region",
    "return_url",
    "scopes",
    "secrets",
    "setup_information",
    "type",
];

/// A project, and one of each thing that a body may name.
struct Project {
    key: String,
    callback: String,
    things: [String; NAMES.len()],
}

impl Project {
    async fn new(world: &World, key: String) -> Self {
        let callback = "https://app.example.org/callback".to_owned();
        let client = world.simulator.register_client(&callback);
        let mut project = Self {
            key,
            callback,
            things: Default::default(),
        };
        let profile = json!({
            "provider": "smartsheet",
            "client_id": client.client_id,
            "client_secret": client.client_secret,
            "base_url": world.simulator.announcement().api_base,
            "redirect_url": project.callback,
        });
        let profile = project.ask(world, "/connector_profiles", &profile).await;
        let profile = profile.expect(201)["id"].as_str().unwrap().to_owned();
        let account = world.account_body(&world.admin_token());
        let account = project.ask(world, "/accounts", &account).await.expect(201);
        project.things = [
            profile.clone(),
            account["id"].as_str().unwrap().to_owned(),
            String::new(),
            profile,
            String::new(),
        ];
        let invited = project.body("/connect_sessions");
        let invited = project.ask(world, "/connect_sessions", &invited).await;
        project.things[2] = invited.expect(201)["token"].as_str().unwrap().to_owned();
        let begun = project.body("/oauth/authorization_url");
        let begun = project.ask(world, "/oauth/authorization_url", &begun);
        project.things[4] = parameter(begun.await.expect(200)["url"].as_str().unwrap(), "state");
        project
    }

    /// A body that names what is this project's own, where it has to name anything.
    fn body(&self, path: &str) -> Value {
        let owner = json!({ "origin_owner_id": "customer-1", "origin_owner_name": "Customer One" });
        let mut body = match path {
            "/connect_sessions" | "/oauth/authorization_url" => owner,
            _ => json!({}),
        };
        match path {
            "/connect_sessions/authenticate" => body["token"] = json!(self.things[2]),
            "/oauth/authorization_url" => {
                body["profile"] = json!(self.things[3]);
                body["callback_url"] = json!(self.callback);
            }
            "/oauth/token_exchange" => {
                body["state"] = json!(self.things[4]);
                body["code"] = json!("a-code-of-nobody");
            }
            _ => {}
        }
        body
    }

    async fn ask(&self, world: &World, path: &str, body: &Value) -> Reply {
        let bearer = format!("Bearer {}", self.key);
        let headers = [("authorization", bearer.as_str())];
        world.send(Method::POST, path, &headers, Some(body)).await
    }
}

/// An answer without what is of this very request.
fn told(reply: &Reply) -> (u16, Value) {
    let mut body = reply.json();
    for own in ["timestamp", "request_id"] {
        body.as_object_mut().unwrap().remove(own);
    }
    (reply.status.as_u16(), body)
}

/// The keys of an object that this schema allows, and of those in it.
fn keys(document: &Value, schema: &Value, found: &mut BTreeSet<String>) {
    if let Some(name) = schema["$ref"].as_str() {
        let at = document.pointer(name.strip_prefix('#').unwrap()).unwrap();
        keys(document, at, found);
    }
    for one_of in ["oneOf", "anyOf", "allOf"] {
        for each in schema[one_of].as_array().into_iter().flatten() {
            keys(document, each, found);
        }
    }
    for (key, schema) in schema["properties"].as_object().into_iter().flatten() {
        found.insert(key.clone());
        keys(document, schema, found);
    }
}

#[test]
fn the_matrix_knows_every_key_of_every_body() {
    let document = serde_json::to_value(rolecall::http::document()).unwrap();
    let mut bodies = 0;
    for operation in operations() {
        let content = &operation.said["requestBody"]["content"];
        if content.is_null() {
            continue;
        }
        bodies += 1;
        let mut found = BTreeSet::new();
        keys(
            &document,
            &content["application/json"]["schema"],
            &mut found,
        );
        assert!(!found.is_empty(), "{}", operation.path);
        for key in found {
            let is_known = NAMES.contains(&(operation.path.as_str(), key.as_str()))
                || WORDS.contains(&key.as_str());
            assert!(is_known, "{} {key}", operation.path);
        }
    }
    assert_eq!(bodies, 10);
}

#[tokio::test]
async fn no_body_reaches_into_another_project() {
    let world = World::new().await;
    let one = Project::new(&world, world.key.clone()).await;
    let key = world.project("two", &Scope::ALL).await;
    let two = Project::new(&world, key).await;
    for (at, (path, name)) in NAMES.into_iter().enumerate() {
        for (caller, other) in [(&one, &two), (&two, &one)] {
            let nothing = "0198c3f0-0000-7000-8000-000000000000".to_owned();
            let like_a_secret = "A".repeat(43);
            let mut refusals = BTreeSet::new();
            for named in [
                &other.things[at],
                &nothing,
                &like_a_secret,
                &"' or 1=1--".to_owned(),
            ] {
                let mut body = caller.body(path);
                body[name] = json!(named);
                let (status, said) = told(&caller.ask(&world, path, &body).await);
                assert!(
                    [403, 404, 400, 422].contains(&status),
                    "{path} {name}: {said}"
                );
                assert!(!said.to_string().contains(named.as_str()), "{said}");
                refusals.insert((status, said.to_string()));
            }
            assert_eq!(refusals.len(), 1, "{path} {name}: {refusals:?}");
        }
    }
    // In the hub, too: another project's app is as good as none.
    let mut browser = Browser::open(&world, &world.invite(&json!({})).await).await;
    let mut pages = BTreeSet::new();
    for profile in [
        two.things[0].as_str(),
        "0198c3f0-0000-7000-8000-000000000000",
        "x",
    ] {
        let page = browser
            .fill(
                "/connect/token",
                "/connect/sign-in",
                &[("profile", profile)],
            )
            .await;
        assert_eq!(page.status.as_u16(), 403);
        let id = page.header("x-request-id").unwrap().to_owned();
        pages.insert(page.text().replace(&id, ""));
    }
    assert_eq!(pages.len(), 1, "{pages:?}");

    // None of this has used up what it named, and each is its own project's.
    for (caller, other) in [(&one, &two), (&two, &one)] {
        for (at, (path, name)) in NAMES.into_iter().enumerate() {
            let mut body = caller.body(path);
            body[name] = json!(caller.things[at]);
            let reply = caller.ask(&world, path, &body).await;
            // This code is nobody's, and so it is the provider that refuses it.
            let expected = if name == "state" { 422 } else { 200 };
            let status = reply.status.as_u16();
            assert!(
                status / 100 == expected / 100,
                "{path} {name}: {}",
                reply.text()
            );
            if expected != 200 {
                assert_eq!(reply.json()["code"], "authorization_refused");
            }
        }
        let bearer = format!("Bearer {}", caller.key);
        let headers = [("authorization", bearer.as_str())];
        for list in ["/connector_profiles", "/accounts", "/audit?page_size=100"] {
            let listed = world
                .send(Method::GET, list, &headers, None)
                .await
                .expect(200);
            let listed = listed.to_string();
            assert!(listed.contains(&caller.things[usize::from(list == "/accounts")]));
            for thing in &other.things {
                assert!(!listed.contains(thing.as_str()), "{list}");
            }
        }
    }
}
