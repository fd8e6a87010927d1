//! The document is what is served: committed, complete, and true of every route.

use std::{collections::BTreeSet, process::Command};

use reqwest::Method;
use rolecall::{error::Kind, http::error::status};
use serde_json::Value;

use crate::world::{Plan, World};

/// One operation of the document.
pub struct Operation {
    pub method: Method,
    /// The path's template, such as `/accounts/{id}`.
    pub path: String,
    pub said: Value,
}

/// Every operation of the document that this source tree makes.
pub fn operations() -> Vec<Operation> {
    let document = serde_json::to_value(rolecall::http::document()).unwrap();
    let paths = document["paths"].as_object().unwrap();
    paths
        .iter()
        .flat_map(|(path, item)| {
            item.as_object()
                .unwrap()
                .iter()
                .map(|(method, said)| Operation {
                    method: method.to_uppercase().parse().unwrap(),
                    path: path.clone(),
                    said: said.clone(),
                })
        })
        .collect()
}

impl Operation {
    pub fn needs_key(&self) -> bool {
        // One alternative that demands nothing: open to all.
        self.said["security"] != serde_json::json!([{}])
    }

    /// A path of this template in which no id is of anything.
    pub fn absent_path(&self) -> String {
        let absent = "0198c3f0-0000-7000-8000-000000000000";
        self.path
            .replace("{id}", absent)
            .replace("{walk}", absent)
            .replace("{record}", "1")
            .replace("{provider}", "nobody")
    }

    fn describes(&self, status: u16, code: &str) -> bool {
        let description = &self.said["responses"][status.to_string()]["description"];
        let code = format!("`{code}`");
        description
            .as_str()
            .is_some_and(|text| text.contains(&code))
    }
}

#[test]
fn the_committed_document_is_the_one_that_the_command_prints() {
    let printed = Command::new(env!("CARGO_BIN_EXE_rolecall"))
        .arg("openapi")
        .output()
        .unwrap();
    assert!(printed.status.success());
    let committed = include_str!("../../openapi/openapi.json");
    let is_same = String::from_utf8(printed.stdout).unwrap() == committed;
    assert!(is_same, "openapi/openapi.json is stale: run `make openapi`");
}

#[tokio::test]
async fn the_served_document_is_the_committed_one() {
    let world = World::new().await;
    let served = world
        .send(Method::GET, "/openapi.json", &[], None)
        .await
        .expect(200);
    let committed = include_str!("../../openapi/openapi.json");
    assert_eq!(served, serde_json::from_str::<Value>(committed).unwrap());
}

#[tokio::test]
async fn every_route_of_the_document_is_served_at_its_method_alone() {
    let world = World::new().await;
    for operation in operations() {
        let mounts: &[&str] = if operation.path.starts_with("/iam") {
            &["", "/unified"]
        } else {
            &[""]
        };
        for mount in mounts {
            let path = format!("{mount}{}", operation.absent_path());
            let reply = world.send(operation.method.clone(), &path, &[], None).await;
            if operation.needs_key() {
                reply.refused(401, "unauthorized");
            } else {
                assert_eq!(reply.status, 200, "{path}");
            }
        }
    }
}

#[test]
fn every_route_that_needs_a_key_documents_the_refusals_that_all_share() {
    for operation in operations().iter().filter(|each| each.needs_key()) {
        for kind in [
            Kind::InvalidParameter,
            Kind::Unauthorized,
            Kind::KeyScopeMissing,
            Kind::RateLimited,
            Kind::Internal,
            Kind::ProxyNotOffered,
            Kind::StoreUnavailable,
        ] {
            assert!(
                operation.describes(status(kind), kind.code()),
                "{} {} may answer {}",
                operation.method,
                operation.path,
                kind.code()
            );
        }
    }
}

#[test]
fn every_error_of_the_document_has_the_one_body() {
    for operation in operations() {
        let responses = operation.said["responses"].as_object().unwrap();
        for (status, response) in responses {
            if status.parse::<u16>().unwrap() < 400 {
                continue;
            }
            let schema = &response["content"]["application/json"]["schema"]["$ref"];
            assert_eq!(
                schema, "#/components/schemas/Error",
                "{} {status}",
                operation.path
            );
        }
    }
}

#[test]
fn every_error_code_has_its_place_in_the_document_with_its_status() {
    let document = serde_json::to_value(rolecall::http::document()).unwrap();
    let code = &document["components"]["schemas"]["Error"]["properties"]["code"];
    let table = code["description"].as_str().unwrap();
    for kind in Kind::ALL {
        let line = format!("* `{}` ({}): ", kind.code(), status(kind));
        assert!(table.contains(&line), "{line}");
    }
    // What is not about the route itself is documented where it is answered.
    let everywhere = [Kind::RouteNotFound, Kind::MethodNotAllowed];
    for kind in Kind::ALL.iter().filter(|kind| !everywhere.contains(kind)) {
        let is_answered = operations()
            .iter()
            .any(|operation| operation.describes(status(*kind), kind.code()));
        assert!(is_answered, "no route documents {}", kind.code());
    }
}

#[test]
fn every_operation_has_a_name_of_its_own_a_tag_and_words() {
    let mut names = BTreeSet::new();
    for operation in operations() {
        let name = operation.said["operationId"].as_str().unwrap().to_owned();
        assert!(names.insert(name.clone()), "{name} is there twice");
        assert!(operation.said["tags"][0].is_string(), "{name}");
        assert!(operation.said["summary"].is_string(), "{name}");
    }
}

#[tokio::test]
async fn the_pages_of_the_document_are_served() {
    let world = World::new().await;
    let page = world.send(Method::GET, "/swagger-ui/", &[], None).await;
    assert_eq!(page.status.as_u16(), 200);
    assert!(
        String::from_utf8(page.bytes)
            .unwrap()
            .contains("swagger-ui")
    );
    // The client follows the redirect.
    let page = world.send(Method::GET, "/swagger-ui", &[], None).await;
    assert_eq!(page.status.as_u16(), 200);
}

#[tokio::test]
async fn the_pages_of_the_document_keep_no_key_are_framed_by_nobody_and_may_be_absent() {
    let world = World::new().await;
    for path in [
        "/swagger-ui/",
        "/swagger-ui/index.html",
        "/swagger-ui/swagger-initializer.js",
        "/swagger-ui/swagger-ui-bundle.js",
    ] {
        let page = world.send(Method::GET, path, &[], None).await;
        assert_eq!(page.status, 200, "{path}");
        let policy = page.header("content-security-policy").unwrap();
        for part in [
            "default-src 'none'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
        ] {
            assert!(policy.contains(part), "{path}: {policy}");
        }
        for (name, value) in [
            ("x-frame-options", "DENY"),
            ("referrer-policy", "no-referrer"),
            ("x-content-type-options", "nosniff"),
        ] {
            assert_eq!(page.header(name), Some(value), "{path}");
        }
        let text = String::from_utf8_lossy(&page.bytes).into_owned();
        if path.ends_with("initializer.js") {
            assert!(!text.contains("\"persistAuthorization\": true"), "{text}");
        }
    }
    let plan = Plan {
        settings: vec![("server.swagger_ui", "false")],
        ..Plan::default()
    };
    let world = World::with(plan).await;
    for path in ["/swagger-ui", "/swagger-ui/", "/swagger-ui/index.html"] {
        let gone = world.send(Method::GET, path, &[], None).await;
        gone.refused(404, "route_not_found");
    }
    let document = world.send(Method::GET, "/openapi.json", &[], None).await;
    document.expect(200);
}
