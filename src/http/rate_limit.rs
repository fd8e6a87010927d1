//! The rate limit header fields of draft-ietf-httpapi-ratelimit-headers-10: the requests that a key
//! and its project have left. Every response to an authenticated request carries them, whatever its
//! status. The fields leave out a quota that the operator has not set.

use std::fmt::Write;

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use utoipa::openapi::{
    HeaderBuilder, ObjectBuilder, OpenApi, Ref, RefOr, Type, security::SecurityRequirement,
};

use super::error::whole_seconds;
use crate::gateway::auth::rate_limit::{RemainingQuotas, WINDOW};

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// Adds the header fields to a response, with one list item for each quota (RFC 9651, 3.1).
pub fn tell(quotas: RemainingQuotas, headers: &mut HeaderMap) {
    let RemainingQuotas { key, project } = quotas;
    let (mut policy, mut limit) = (String::new(), String::new());
    for (name, standing) in [("key", key), ("project", project)] {
        let Some(standing) = standing else { continue };
        let separator = if policy.is_empty() { "" } else { ", " };
        let (quota, window) = (standing.quota, WINDOW.as_secs());
        let (remaining, more_in) = (standing.remaining, whole_seconds(standing.more_in));
        // Writing to a string cannot fail.
        let _ = write!(policy, r#"{separator}"{name}";q={quota};w={window}"#);
        let _ = write!(limit, r#"{separator}"{name}";r={remaining};t={more_in}"#);
    }
    if policy.is_empty() {
        return;
    }
    for (name, value) in [(POLICY, policy), (LIMIT, limit)] {
        let value = HeaderValue::try_from(value).expect("words and digits are plain ASCII");
        headers.insert(name, value);
    }
}

/// Name, description and example of each header field, for the document.
const FIELDS: [(&str, &str, &str); 2] = [
    (
        "RateLimit-Policy",
        "The quotas of the key and of its project: `q` requests may be made at once, and they come \
         back evenly over `w` seconds. A quota that the operator has not set is absent.",
        r#""key";q=1000;w=60, "project";q=10000;w=60"#,
    ),
    (
        "RateLimit",
        "The key, and its project, have `r` requests left, and one more within `t` seconds. A quota \
         that the operator has not set is absent, and so is the project's once the key's is spent.",
        r#""key";r=997;t=1, "project";r=9974;t=1"#,
    ),
];

/// Adds the header fields to every response in the document that an authenticated request can get.
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
        // A route without a key has one empty requirement. All others have the document's, or a
        // longer one.
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
