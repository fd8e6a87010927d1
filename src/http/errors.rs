//! Which errors a route can answer with, for the API document: read off the one table, so the
//! document names every code and no other.

use std::collections::BTreeMap;

use utoipa::{
    IntoResponses, PartialSchema, ToSchema,
    openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder, Schema},
};

use super::error::{ErrorBody, status};
use crate::error::Kind;

/// Refusals that any route with a key can answer.
const ANY: [Kind; 7] = [
    Kind::InvalidParameter,
    Kind::Unauthorized,
    Kind::KeyScopeMissing,
    Kind::RouteNotFound,
    Kind::RateLimited,
    Kind::Internal,
    Kind::StoreUnavailable,
];

/// Errors of a read under `/iam`.
pub struct ReadErrors;
/// Errors of `/iam/policies`, which answers with nothing else.
pub struct PolicyErrors;
/// Errors of changing a user, which answers with nothing else.
pub struct WriteErrors;
/// Errors of the routes of the accounts as a whole.
pub struct AccountsErrors;
/// Errors of linking an account.
pub struct LinkErrors;
/// Errors of one account's routes.
pub struct AccountErrors;
/// Errors of asking for a walk.
pub struct WalkNowErrors;
/// Errors of one walk's routes.
pub struct WalkErrors;
/// Errors of a route without a key.
pub struct HealthErrors;

impl IntoResponses for ReadErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        of(&[
            Kind::InvalidCursor,
            Kind::AccountRequired,
            Kind::GroupsNotPermitted,
            Kind::AccountNotFound,
            Kind::NotFound,
            Kind::DirectoryNotReady,
            Kind::AccountInactive,
            Kind::ProviderThrottled,
            Kind::CredentialLocked,
            Kind::ProxyNotOffered,
            Kind::ProviderUnavailable,
        ])
    }
}

impl IntoResponses for PolicyErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        of(&[
            Kind::AccountRequired,
            Kind::AccountNotFound,
            Kind::ProxyNotOffered,
            Kind::PoliciesNotOffered,
        ])
    }
}

impl IntoResponses for WriteErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        of(&[
            Kind::AccountRequired,
            Kind::AccountNotFound,
            Kind::ProxyNotOffered,
            Kind::WritesNotOffered,
        ])
    }
}

impl IntoResponses for AccountsErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        of(&[])
    }
}

impl IntoResponses for LinkErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        of(&[
            Kind::InvalidBody,
            Kind::BaseUrlNotAllowed,
            Kind::CredentialRefused,
            Kind::ScopeMissing,
            Kind::ProviderThrottled,
            Kind::ProviderUnavailable,
        ])
    }
}

impl IntoResponses for AccountErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        of(&[Kind::AccountNotFound])
    }
}

impl IntoResponses for WalkNowErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        of(&[
            Kind::AccountNotFound,
            Kind::AccountInactive,
            Kind::ProviderThrottled,
            Kind::CredentialLocked,
            Kind::ProviderUnavailable,
        ])
    }
}

impl IntoResponses for WalkErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        of(&[
            Kind::InvalidCursor,
            Kind::AccountNotFound,
            Kind::WalkNotFound,
            Kind::WalkSuperseded,
            Kind::WalkNotHeld,
        ])
    }
}

impl IntoResponses for HealthErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        described(&[Kind::StoreUnavailable])
    }
}

fn of(own: &[Kind]) -> BTreeMap<String, RefOr<Response>> {
    described(&[own, &ANY].concat())
}

fn described(kinds: &[Kind]) -> BTreeMap<String, RefOr<Response>> {
    let mut codes: BTreeMap<u16, Vec<&'static str>> = BTreeMap::new();
    for kind in kinds {
        codes.entry(status(*kind)).or_default().push(kind.code());
    }
    let content = || {
        ContentBuilder::new()
            .schema(Some(Ref::from_schema_name(ErrorBody::name())))
            .build()
    };
    codes
        .into_iter()
        .map(|(status, codes)| {
            let response = ResponseBuilder::new()
                .description(format!("`{}`", codes.join("`, `")))
                .content("application/json", content())
                .build();
            (status.to_string(), RefOr::T(response))
        })
        .collect()
}

/// The schema that every error refers to, by name. Its `code` is described by the whole table, so
/// that each has its place in the document, also those that no single route answers with. The
/// list is no `enum`: a client must live with a code that is newer than itself.
pub fn error_schema() -> (String, RefOr<Schema>) {
    let mut schema = ErrorBody::schema();
    if let RefOr::T(Schema::Object(body)) = &mut schema
        && let Some(RefOr::T(Schema::Object(code))) = body.properties.get_mut("code")
    {
        let table: String = Kind::ALL
            .iter()
            .map(|kind| format!("\n* `{}` ({}): {}", kind.code(), status(*kind), kind.hint()))
            .collect();
        code.description = Some(format!("A stable word for programs. One of:\n{table}"));
    }
    (ErrorBody::name().into_owned(), schema)
}
