//! Bad input over every route and parameter of the document: each answer has the contract's shape,
//! and nothing is changed, nor is the provider asked.
//!
//! What each route does with what it alone knows is told beside it; here is what holds for all, so
//! that a new route need not be remembered.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    errors::is_an_error,
    openapi::{Operation, operations},
    world::{Reply, World, reply},
};

/// A world with an account, a walk of it and a key, to be asked about in all ways but good ones.
struct Target {
    world: World,
    account: String,
    walk: String,
    key: String,
    profile: String,
}

impl Target {
    async fn new() -> Self {
        let world = World::new().await;
        let account = world.link_admin().await;
        let walk = world.walk(&account).await["id"]
            .as_str()
            .unwrap()
            .to_owned();
        let body = json!({"scopes": ["iam:read"], "label": "as it was"});
        let key = world.call(Method::POST, "/api_keys", Some(&body)).await;
        let key = key.expect(201)["id"].as_str().unwrap().to_owned();
        let (profile, _) = world.profile().await;
        Self {
            world,
            account,
            walk,
            key,
            profile,
        }
    }

    /// A path of this operation in which every id is of something.
    fn path(&self, operation: &Operation) -> String {
        let id = if operation.path.starts_with("/api_keys") {
            &self.key
        } else if operation.path.starts_with("/connector_profiles") {
            &self.profile
        } else {
            &self.account
        };
        operation
            .path
            .replace("{id}", id)
            .replace("{walk}", &self.walk)
            .replace("{record}", "system_admin")
            .replace("{provider}", "smartsheet")
    }

    /// A request with the world's key, of the world's account.
    fn request(&self, method: &Method, path: &str) -> reqwest::RequestBuilder {
        let url = format!("{}{path}", self.world.base);
        let request = self.world.client.request(method.clone(), url);
        request
            .bearer_auth(&self.world.key)
            .header("x-account-id", &self.account)
    }

    async fn ask(&self, method: &Method, path: &str) -> Reply {
        reply(self.request(method, path)).await
    }

    /// All that could have been changed, and what the provider was asked.
    async fn state(&self) -> Vec<Value> {
        let walks = format!("/accounts/{}/walks", self.account);
        let mut state = vec![self.world.provider_calls().await.into()];
        for path in [
            "/accounts",
            "/api_keys",
            "/connector_profiles",
            "/audit",
            &walks,
        ] {
            state.push(self.world.get(path).await.expect(200));
        }
        state
    }
}

/// The code of a refusal in the contract's shape, which is no fault of ours.
#[track_caller]
fn code(reply: &Reply, what: &str) -> String {
    let status = reply.status.as_u16();
    assert!(
        reply.status.is_client_error() || status == 501,
        "{status} {what}"
    );
    let code = reply.json()["code"].as_str().unwrap().to_owned();
    is_an_error(reply, status, &code);
    code
}

/// Those that need a key, with whether they answer with nothing but that they are not offered.
fn keyed() -> impl Iterator<Item = (Operation, bool)> {
    let keyed = operations().into_iter().filter(Operation::needs_key);
    keyed.map(|operation| {
        let is_offered = operation.said["responses"]
            .as_object()
            .unwrap()
            .keys()
            .any(|status| status.starts_with('2'));
        (operation, is_offered)
    })
}

#[tokio::test]
async fn a_parameter_that_cannot_be_meant_is_refused_on_every_route_and_nothing_is_done() {
    let target = Target::new().await;
    let before = target.state().await;
    for (operation, is_offered) in keyed() {
        let path = target.path(&operation);
        for (query, expected) in [
            ("surprise=1".to_owned(), "invalid_parameter"),
            ("%00=1".to_owned(), "invalid_parameter"),
            ("%0d%0ax: y=1".to_owned(), "invalid_parameter"),
            ("=1".to_owned(), "invalid_parameter"),
            ("__proto__[x]=1".to_owned(), "invalid_parameter"),
            ("%ff=1".to_owned(), "invalid_parameter"),
            ("x=%ED%A0%80".to_owned(), "invalid_parameter"),
            (format!("x={}", "y".repeat(9000)), "invalid_parameter"),
            ("proxy[x]=1".to_owned(), "proxy_not_offered"),
        ] {
            let what = format!("{} {path}?{query}", operation.method);
            let answer = target
                .ask(&operation.method, &format!("{path}?{query}"))
                .await;
            let got = code(&answer, &what);
            let is_meant = got == expected || (!is_offered && answer.status.as_u16() == 501);
            assert!(is_meant, "{got}: {what}");
        }
        let parameters = operation.said["parameters"].as_array();
        for parameter in parameters.into_iter().flatten() {
            if parameter["in"] != "query" || !is_offered {
                continue;
            }
            let (name, schema) = (parameter["name"].as_str().unwrap(), &parameter["schema"]);
            let is_exact = schema["type"] == "integer"
                || schema["type"] == "boolean"
                || schema["format"] == "date-time"
                || !schema["enum"].is_null()
                || !schema["items"]["enum"].is_null();
            for value in [
                "%00",
                "-1",
                "0x10",
                "1e3",
                "1.5",
                "+1",
                "%D9%A3",
                "NaN",
                "TRUE",
                "99999999999999999999999",
                "%20",
                "a%00b",
                "%F0%9F%92%A9",
                "'%20or%201=1--",
                "$%7Bjndi:ldap://x%7D",
            ] {
                let what = format!("{} {path}?{name}={value}", operation.method);
                let answer = target
                    .ask(&operation.method, &format!("{path}?{name}={value}"))
                    .await;
                if is_exact {
                    assert_eq!(code(&answer, &what), "invalid_parameter", "{what}");
                } else if !answer.status.is_success() {
                    code(&answer, &what);
                }
            }
            let answer = target
                .ask(&operation.method, &format!("{path}?{name}=%ff"))
                .await;
            assert_eq!(code(&answer, name), "invalid_parameter");
            if schema["type"] != "array" || parameter["explode"] == false {
                let twice = format!("{path}?{name}=1&{name}=1");
                let answer = target.ask(&operation.method, &twice).await;
                assert_eq!(code(&answer, &twice), "invalid_parameter", "{twice}");
            }
        }
    }
    assert_eq!(target.state().await, before);
}

#[tokio::test]
async fn an_id_that_is_of_nothing_is_refused_on_every_route_whatever_it_holds() {
    let target = Target::new().await;
    let before = target.state().await;
    let long = "9".repeat(5000);
    for (operation, is_offered) in keyed() {
        let names: Vec<_> = operation
            .path
            .split('/')
            .filter(|segment| segment.starts_with('{'))
            .collect();
        for (name, id) in names.iter().flat_map(|name| {
            let ids = [
                "%00",
                "a%00b",
                "%ff",
                "%ED%A0%80",
                "%zz",
                "%0d%0a",
                "..%2f..",
                "%27%20or%201=1--",
                "%E2%80%AE",
                "-1",
                "NaN",
                long.as_str(),
            ];
            ids.map(|id| (*name, id))
        }) {
            let path = operation.path.replace(name, id);
            let path = target.path(&Operation {
                method: operation.method.clone(),
                path,
                said: Value::Null,
            });
            let what = format!("{} {path}", operation.method);
            let answer = target.ask(&operation.method, &path).await;
            let code = code(&answer, &what);
            let is_meant = answer.status.as_u16() == 404
                || code == "invalid_parameter"
                || (!is_offered && answer.status.as_u16() == 501);
            assert!(is_meant, "{code}: {what}");
        }
    }
    assert_eq!(target.state().await, before);
}

#[tokio::test]
async fn a_method_that_a_path_does_not_have_is_refused_on_every_path_with_those_it_has() {
    let target = Target::new().await;
    let before = target.state().await;
    let all = operations();
    for operation in &all {
        let mut allowed: Vec<_> = all
            .iter()
            .filter(|other| other.path == operation.path)
            .map(|other| other.method.as_str())
            .collect();
        if allowed.contains(&"GET") {
            allowed.push("HEAD");
        }
        allowed.sort_unstable();
        for method in [
            "DELETE", "GET", "OPTIONS", "PATCH", "POST", "PUT", "TRACE", "QUERY", "BREW",
        ] {
            if allowed.contains(&method) {
                continue;
            }
            let path = target.path(operation);
            let answer = target.ask(&method.parse().unwrap(), &path).await;
            let what = format!("{method} {path}");
            assert_eq!(code(&answer, &what), "method_not_allowed", "{what}");
            assert_eq!(answer.header("allow"), Some(&*allowed.join(", ")), "{what}");
        }
        for path in [
            format!("{}/", target.path(operation)),
            format!("{}/x/y/z", target.path(operation)),
            format!("/{}", target.path(operation)),
        ] {
            let answer = target.ask(&operation.method, &path).await;
            assert_eq!(code(&answer, &path), "route_not_found", "{path}");
        }
    }
    assert_eq!(target.state().await, before);
}

#[tokio::test]
async fn a_header_field_that_cannot_be_meant_is_refused_or_ignored_on_every_route() {
    let target = Target::new().await;
    let before = target.state().await;
    let long = "x".repeat(20_000);
    for (operation, _) in keyed().filter(|(operation, _)| operation.method == Method::GET) {
        let path = target.path(&operation);
        for (name, value) in [
            ("if-none-match", b"\xff\xfe".as_slice()),
            ("if-none-match", b"W/, \"\"\", ,,"),
            ("if-none-match", long.as_bytes()),
            ("cache-control", b"max-age=-1"),
            ("cache-control", b"max-age=+1"),
            ("cache-control", b"max-age="),
            ("cache-control", b"max-age=99999999999999999999999"),
            ("cache-control", b"\xff, ,=,max-stale"),
            ("accept-encoding", b"gzip;q=x, zstd;q=-1, \xff"),
            ("accept", b"image/png"),
            ("range", b"bytes=9-1"),
            ("x-request-id", b"mine"),
            ("x-account-id", b"\xff"),
            ("x-account-id", b""),
        ] {
            let what = format!("{path} {name}: {}", String::from_utf8_lossy(value));
            let request = target.request(&operation.method, &path).header(name, value);
            let answer = reply(request).await;
            if answer.status.is_success() {
                assert!(!answer.json().is_null());
            } else {
                code(&answer, &what);
            }
            assert_ne!(answer.header("x-request-id"), Some("mine"));
        }
    }
    assert_eq!(target.state().await, before);
}

#[tokio::test]
async fn a_body_that_cannot_be_meant_is_refused_on_every_route_that_reads_one() {
    let target = Target::new().await;
    let before = target.state().await;
    let document = serde_json::to_value(rolecall::http::document()).unwrap();
    let mut asked = Vec::new();
    for (operation, _) in keyed().filter(|(operation, _)| !operation.said["requestBody"].is_null())
    {
        let path = target.path(&operation);
        let content = &operation.said["requestBody"]["content"]["application/json"];
        let mut sound = content["example"].clone();
        if operation.path == "/accounts" {
            sound = target.world.account_body(&target.world.admin_token());
        }
        let send = async |body: Vec<u8>, headers: &[(&str, &str)]| {
            let mut request = target.request(&operation.method, &path).body(body);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            reply(request).await
        };
        let json = ("content-type", "application/json");

        // The whole body.
        let text = sound.to_string();
        let with = |inserted: &str| text.replacen('{', &format!("{{{inserted},"), 1);
        let (open, close) = ("[".repeat(65), "]".repeat(65));
        let mut not_utf8 = text.clone().into_bytes();
        not_utf8.insert(2, 0xff);
        for body in [
            "",
            "\0",
            "null",
            "[]",
            &format!("[{text}]"),
            r#"["smartsheet","a","b",null,null,null,["access_token","x"],"us",null]"#,
            r#"["a",["iam:read"],null]"#,
            "1e400",
            "{",
            "{]",
            "\u{feff}{}",
            r#"{"a":1,}"#,
            &text[..text.len() - 1],
            &format!("{text}{text}"),
            &with(r#""surprise":1"#),
            &with(r#""":1"#),
            &with(r#""__proto__":{}"#),
            &with(r#""\u0000":1"#),
            &with(&format!(r#""deep":{open}{close}"#)),
            &with(&format!(r#""label":"{}""#, "x".repeat(1 << 20))),
            &with(&text[1..text.len() - 1]),
        ] {
            let start: String = body.chars().take(60).collect();
            let answer = send(body.to_owned().into_bytes(), &[json]).await;
            assert_eq!(code(&answer, &start), "invalid_body", "{path} {start}");
        }
        let answer = send(not_utf8, &[json]).await;
        assert_eq!(code(&answer, "not UTF-8"), "invalid_body");
        for headers in [
            [("content-type", "text/plain"), ("accept", "*/*")],
            [("content-type", "application/problem+json"), ("a", "b")],
            [json, ("content-encoding", "gzip")],
            [json, ("content-encoding", "identity")],
        ] {
            let answer = send(text.clone().into_bytes(), &headers).await;
            assert_eq!(code(&answer, &path), "invalid_body", "{headers:?}");
        }

        // Each of its keys.
        let schema = content["schema"]["$ref"].as_str().unwrap();
        let schema = document.pointer(schema.strip_prefix('#').unwrap()).unwrap();
        for (name, said) in schema["properties"].as_object().unwrap() {
            // A key that may be anything is one that is ignored.
            let is_ignored = said
                .as_object()
                .unwrap()
                .keys()
                .all(|key| key == "description");
            let long = format!("\"{}\"", "x".repeat(5000));
            for value in [
                r#""\u0000""#,
                r#""a\u0000b""#,
                r#""\ud800""#,
                r#""a\udc00b""#,
                r#""\u0085""#,
                "\"\u{0}\"",
                "1e400",
                "-1",
                "0.1",
                "true",
                "[]",
                "[[]]",
                r#"["access_token","x"]"#,
                r#"{"\u0000":"\u0000"}"#,
                &long,
            ] {
                // Some values are sound: a switch, no categories, whatever metadata is.
                let is_sound = matches!(
                    (name.as_str(), value),
                    ("multiple" | "enabled", "true")
                        | ("categories", "[]" | r#"["access_token","x"]"#)
                ) || name == "metadata" && value.starts_with('{');
                if is_sound {
                    continue;
                }
                let mut changed = if is_ignored { json!({}) } else { sound.clone() };
                changed[name] = json!("here");
                if name == "region" {
                    changed.as_object_mut().unwrap().remove("base_url");
                }
                let body = changed.to_string().replacen("\"here\"", value, 1);
                let what = format!("{path} {name}: {value:.40}");
                let answer = send(body.into_bytes(), &[json]).await;
                if is_ignored {
                    assert!(answer.status.is_success() || code(&answer, &what) == "invalid_body");
                    continue;
                }
                let code = code(&answer, &what);
                let is_meant = code == "invalid_body"
                    || matches!(
                        (name.as_str(), code.as_str()),
                        ("base_url", "base_url_not_allowed")
                            // What names something that is not there.
                            | ("profile" | "connector_profile_id", "not_found")
                            | ("account_id", "account_not_found")
                            | ("state" | "code", "authorization_invalid")
                            | ("token", "connect_session_invalid")
                    );
                assert!(is_meant, "{code}: {what}");
            }
        }
        asked.push(operation.said["operationId"].clone());
    }
    assert_eq!(asked.len(), 10, "{asked:?}");
    assert_eq!(target.state().await, before);
}
