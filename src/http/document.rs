//! Builds the OpenAPI document.
//!
//! Operations, parameters and schemas are collected from the route list, and the errors of each
//! operation from [`super::errors`]. This module adds the parts that many operations share:
//! security, header fields and examples.

use std::collections::BTreeMap;

use serde_json::Value;
use utoipa::{
    OpenApi,
    openapi::{
        Content, Header, HeaderBuilder, ObjectBuilder, OpenApi as Document, Ref, RefOr, Schema,
        Type,
        path::{Operation, PathItem},
        schema::{ArrayItems, KnownFormat, SchemaFormat},
        security::{
            ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityRequirement, SecurityScheme,
        },
    },
};
use utoipa_actix_web::AppExt;

use super::{configure, connectors, errors, rate_limit};
use crate::directory::Resource;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Rolecall",
        description = "A self-hosted identity gateway: the users, roles and groups of linked \
            accounts, as one clean directory that never shows a partial reading.\n\n\
            Every route under `/iam` is served under `/unified/iam` too, for clients of StackOne's \
            Unified IAM API.\n\n\
            Errors have one body, `Error`, whose `code` is for programs. A path that is not here is \
            404 `route_not_found`, a method that its path does not have 405 `method_not_allowed`, with \
            the ones that it has in `Allow`. Whatever can be got answers `HEAD` too.\n\n\
            The hub, the pages below `/connect` on which customers link their accounts, is not in this \
            document: it is for people, and what its forms send may change with any version."
    ),
    servers((url = "/", description = "This server")),
    security(("api_key" = [])),
    tags(
        (name = "summary", description = "The directory as a whole"),
        (name = "users", description = "People, guests, and outsiders in groups"),
        (name = "roles", description = "What people may do"),
        (name = "groups", description = "Who belongs together"),
        (name = "policies", description = "Asked for by StackOne's clients; no provider here has them"),
        (name = "me", description = "Whose token an account works with"),
        (name = "accounts", description = "Linked accounts"),
        (name = "connect_sessions", description = "Invitations for customers to link by themselves"),
        (name = "connector_profiles", description = "OAuth apps that customers sign in under"),
        (name = "oauth", description = "Sign-ins for pages of your own"),
        (name = "connectors", description = "Providers that accounts can be linked at"),
        (name = "walks", description = "Whole reads of a provider's directory"),
        (name = "api_keys", description = "What downstream systems call with"),
        (name = "audit", description = "What was done, and by whom"),
        (name = "health", description = "The process itself"),
    )
)]
struct Base;

/// Examples from the simulator: by operation, the request body and the response bodies by status. A
/// test compares them with the answers of the server.
const EXAMPLES: &str = include_str!("examples.json");

type Examples = BTreeMap<String, BTreeMap<String, Value>>;

/// The OpenAPI document of the whole API.
pub fn document() -> Document {
    let (_, mut document) = actix_web::App::new()
        .into_utoipa_app()
        .openapi(Base::openapi())
        .configure(configure)
        .split_for_parts();
    let components = document.components.get_or_insert_default();
    components.schemas.extend(errors::error_schemas());
    for (name, header) in headers() {
        components.headers.insert(name.to_owned(), header.into());
    }
    components.add_security_scheme(
        "api_key",
        SecurityScheme::Http(
            Http::builder()
                .scheme(HttpAuthScheme::Bearer)
                .description(Some("An API key, such as `rolecall demo` prints."))
                .build(),
        ),
    );
    components.add_security_scheme(
        "linked_account",
        SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::with_description(
            "x-account-id",
            "The id of a linked account, as `GET /accounts` lists them. Routes under `/iam` need \
             it; the query parameter `account_id` does the same.",
        ))),
    );
    let mut examples: Examples = serde_json::from_str(EXAMPLES).expect("examples are by operation");
    for (path, item) in &mut document.paths.paths {
        for operation in operations(item) {
            if let Some(rest) = path.strip_prefix("/iam") {
                names_an_account(operation);
                let lists = [Resource::Users, Resource::Roles, Resource::Groups];
                let list = lists.into_iter().find(|list| {
                    rest.strip_prefix('/')
                        .is_some_and(|rest| rest.starts_with(list.as_str()))
                });
                if let Some(list) = list {
                    takes_words(operation, "fields", list.fields());
                    takes_words(operation, "expand", list.expansions());
                }
            }
            takes_words(operation, "include", &connectors::INCLUDES);
            answers_with_headers(operation);
            let name = operation.operation_id.as_deref().unwrap_or_default();
            if let Some(examples) = examples.remove(name) {
                shows(operation, examples);
            }
        }
    }
    rate_limit::document(&mut document);
    document
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [
        &mut item.get,
        &mut item.post,
        &mut item.patch,
        &mut item.delete,
    ]
    .into_iter()
    .flatten()
}

/// Requires a key and an account header, or a key alone if the account is in the query.
fn names_an_account(operation: &mut Operation) {
    let key = || SecurityRequirement::new("api_key", [""; 0]);
    operation.security = Some(vec![key().add("linked_account", [""; 0]), key()]);
}

/// Limits the list parameter `name`, if the operation has it, to `words`.
fn takes_words(operation: &mut Operation, name: &str, words: &[&str]) {
    let parameters = operation.parameters.iter_mut().flatten();
    for parameter in parameters {
        if let RefOr::T(parameter) = parameter
            && parameter.name == name
            && let Some(RefOr::T(Schema::Array(list))) = &mut parameter.schema
        {
            let word = ObjectBuilder::new()
                .schema_type(Type::String)
                .enum_values(Some(words.iter().copied()));
            list.items = ArrayItems::RefOrSchema(Box::new(word.into()));
        }
    }
}

/// Sets the examples of the operation's request and response bodies.
fn shows(operation: &mut Operation, mut examples: BTreeMap<String, Value>) {
    const JSON: &str = "application/json";
    let mut show = |part: &str, content: Option<&mut RefOr<Content>>| {
        if let Some(RefOr::T(content)) = content {
            content.example = examples.remove(part).or(content.example.take());
        }
    };
    if let Some(RefOr::T(body)) = &mut operation.request_body {
        show("request", body.content.get_mut(JSON));
    }
    for (status, response) in &mut operation.responses.responses {
        if let RefOr::T(response) = response {
            show(status, response.content.get_mut(JSON));
        }
    }
}

/// The response header fields, without those of the rate limit.
fn headers() -> [(&'static str, Header); 9] {
    let text = || ObjectBuilder::new().schema_type(Type::String);
    let number = |least: u32| {
        ObjectBuilder::new()
            .schema_type(Type::Integer)
            .minimum(Some(least))
    };
    let header = |schema: ObjectBuilder, description: &str, example: Value| {
        HeaderBuilder::new()
            .schema(Some(schema))
            .description(Some(description))
            .example(Some(example))
            .build()
    };
    [
        (
            "x-request-id",
            header(
                text().format(Some(SchemaFormat::KnownFormat(KnownFormat::Uuid))),
                "The id of this request: what to quote in a report.",
                "019ab5c2-7a3e-7000-8000-1f6f0e0b7c55".into(),
            ),
        ),
        (
            "WWW-Authenticate",
            header(
                text(),
                "How to send a key.",
                r#"Bearer realm="rolecall""#.into(),
            ),
        ),
        (
            "Retry-After",
            header(
                number(1),
                "Whole seconds until it is worth asking again.",
                5.into(),
            ),
        ),
        (
            "ETag",
            header(
                text(),
                "This answer's mark; sent back in `If-None-Match` it is answered 304 while it holds.",
                r#"W/"1-d4b551a2f43f108f24ac2cbc""#.into(),
            ),
        ),
        (
            "Cache-Control",
            header(
                text(),
                "The answer may be kept by its caller, and is asked for again with its ETag.",
                "private, no-cache".into(),
            ),
        ),
        (
            "Age",
            header(
                number(0),
                "Whole seconds since the provider was last found to agree with this directory.",
                12.into(),
            ),
        ),
        (
            "Last-Modified",
            header(
                text(),
                "When this version of the directory was sealed.",
                "Sun, 22 Nov 2026 10:00:00 GMT".into(),
            ),
        ),
        (
            "x-directory-version",
            header(
                text(),
                "Which version of the directory this is.",
                "1".into(),
            ),
        ),
        (
            "x-directory-stale",
            header(
                text(),
                "Why the last attempt to renew the directory did not succeed: `walk_failed`, \
                 `walk_held`, `degraded`, `reauth_required` or `store_unavailable`. Absent where it \
                 did.",
                "walk_failed".into(),
            ),
        ),
    ]
}

/// Adds the header fields to an operation's responses.
fn answers_with_headers(operation: &mut Operation) {
    const READ: [&str; 6] = [
        "ETag",
        "Cache-Control",
        "Age",
        "Last-Modified",
        "x-directory-version",
        "x-directory-stale",
    ];
    let responses = &mut operation.responses.responses;
    // Only reads of a directory can be answered with 304.
    let is_read = responses.contains_key("304");
    for (status, response) in responses {
        let own: &[&str] = match status.as_str() {
            "200" | "304" if is_read => &READ,
            "401" => &["WWW-Authenticate"],
            "408" | "429" | "502" | "503" => &["Retry-After"],
            _ => &[],
        };
        if let RefOr::T(response) = response {
            response
                .headers
                .extend(["x-request-id"].iter().chain(own).map(|name| {
                    let there = Ref::new(format!("#/components/headers/{name}"));
                    ((*name).to_owned(), RefOr::Ref(there))
                }));
        }
    }
}
