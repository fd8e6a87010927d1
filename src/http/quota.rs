//! What a key has left, on every answer to a request whose key was proven: the header fields of
//! draft-ietf-httpapi-ratelimit-headers-10, whatever the status.

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use utoipa::openapi::{
    HeaderBuilder, ObjectBuilder, OpenApi, Ref, RefOr, Type, security::SecurityRequirement,
};

use super::error::whole_seconds;
use crate::gateway::quota::{Standing, WINDOW};

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// Tells on an answer where its request's key stands.
pub fn tell(standing: Standing, headers: &mut HeaderMap) {
    let policy = format!(r#""key";q={};w={}"#, standing.quota, WINDOW.as_secs());
    let limit = format!(
        r#""key";r={};t={}"#,
        standing.remaining,
        whole_seconds(standing.more_in)
    );
    for (name, value) in [(POLICY, policy), (LIMIT, limit)] {
        let value = HeaderValue::try_from(value).expect("words and digits are plain ASCII");
        headers.insert(name, value);
    }
}

/// The header fields, with their words and an example for the document.
const FIELDS: [(&str, &str, &str); 2] = [
    (
        "RateLimit-Policy",
        "The key may make `q` requests at once, and gets them back evenly over `w` seconds. Absent \
         where the operator has set no limit.",
        r#""key";q=1000;w=60"#,
    ),
    (
        "RateLimit",
        "The key has `r` requests left, and one more within `t` seconds. Absent where the operator \
         has set no limit.",
        r#""key";r=997;t=1"#,
    ),
];

/// Adds the header fields to the document: to whatever answers a request with a proven key.
pub fn document(document: &mut OpenApi) {
    let components = document.components.get_or_insert_default();
    for (name, description, example) in FIELDS {
        let header = HeaderBuilder::new()
            .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
            .description(Some(description))
            .example(Some(example.into()))
            .build();
        components.headers.insert(name.to_owned(), header.into());
    }
    let operations = document.paths.paths.values_mut().flat_map(|item| {
        [
            &mut item.get,
            &mut item.post,
            &mut item.patch,
            &mut item.delete,
        ]
    });
    for operation in operations.flatten() {
        // Who needs no key says so; all others have the document's own requirement, or a longer one.
        let is_open = operation.security == Some(vec![SecurityRequirement::default()]);
        let responses = operation.responses.responses.iter_mut();
        for (_, response) in responses.filter(|(status, _)| !is_open && *status != "401") {
            if let RefOr::T(response) = response {
                response.headers.extend(FIELDS.map(|(name, ..)| {
                    let there = Ref::new(format!("#/components/headers/{name}"));
                    (name.to_owned(), RefOr::Ref(there))
                }));
            }
        }
    }
}
