//! The errors that each route can answer with, for the API document.
//!
//! Each type stands for a route or a group of routes and lists the error kinds of its own; the
//! kinds that all routes share are added. Status and hint of a kind come from the tables in
//! [`super::error`] and [`crate::error`].

use std::collections::BTreeMap;

use jiff::Timestamp;
use utoipa::{
    IntoResponses, PartialSchema, ToSchema,
    openapi::{
        ContentBuilder, Ref, RefOr, Response, ResponseBuilder, Schema, example::ExampleBuilder,
    },
};

use super::error::{ErrorBody, ProgressBody, ProviderErrorBody, status};
use crate::error::Kind;

/// Kinds that any route with a key can answer.
const ANY: [Kind; 7] = [
    Kind::InvalidParameter,
    Kind::Unauthorized,
    Kind::KeyScopeMissing,
    Kind::RateLimited,
    Kind::Internal,
    Kind::ProxyNotOffered,
    Kind::StoreUnavailable,
];

/// Kinds that any route about one account can answer. Sealed fields of it may fail to decrypt.
const ACCOUNT: [Kind; 2] = [Kind::AccountNotFound, Kind::CredentialLocked];

/// Kinds that any route under `/iam` can answer.
const NAMED: [Kind; 3] = [
    Kind::AccountRequired,
    Kind::AccountNotFound,
    Kind::CredentialLocked,
];

/// Kinds that any read of a directory can answer.
const READ: [Kind; 8] = [
    Kind::AccountRequired,
    Kind::AccountNotFound,
    Kind::DirectoryNotReady,
    Kind::AccountInactive,
    Kind::ActionNotEnabled,
    Kind::ProviderThrottled,
    Kind::CredentialLocked,
    Kind::ProviderUnavailable,
];

/// Kinds that any route about a held walk can answer.
const HELD: [Kind; 3] = [Kind::WalkNotFound, Kind::WalkSuperseded, Kind::WalkNotHeld];

/// `GET /iam`.
pub struct SummaryErrors;
/// `GET /iam/users`, whose filters may be on hidden fields.
pub struct UserListErrors;
/// `GET /iam/roles`.
pub struct RoleListErrors;
/// `GET /iam/groups`.
pub struct GroupListErrors;
/// One user or one role.
pub struct RecordErrors;
/// One group.
pub struct GroupErrors;
/// `GET /iam/me`, which waits for no walk.
pub struct MeErrors;
/// `/iam/policies`, which always answers with an error.
pub struct PolicyErrors;
/// Changing or deleting a user, which always answers with an error.
pub struct WriteErrors;
/// `GET /connectors/meta`.
pub struct ConnectorsErrors;
/// `GET /connectors/meta/{provider}`.
pub struct ConnectorErrors;
/// `GET /accounts`.
pub struct AccountsErrors;
/// `POST /accounts`.
pub struct LinkErrors;
/// One account: reading it or its meta information, and disconnecting it.
pub struct AccountErrors;
/// `PATCH /accounts/{id}`.
pub struct UpdateErrors;
/// `POST /accounts/{id}/refresh`.
pub struct RefreshErrors;
/// `POST /accounts/{id}/walks`. A credential that the provider refused before is verified first.
pub struct WalkNowErrors;
/// `GET /accounts/{id}/walks`.
pub struct WalksErrors;
/// `GET /accounts/{id}/walks/{walk}`.
pub struct WalkErrors;
/// The suspects of a held walk.
pub struct SuspectsErrors;
/// Releasing or discarding a held walk.
pub struct DecisionErrors;
/// `POST /api_keys`.
pub struct IssueKeyErrors;
/// `GET /api_keys`.
pub struct KeysErrors;
/// One API key: reading and revoking it.
pub struct KeyErrors;
/// `PATCH /api_keys/{id}`.
pub struct UpdateKeyErrors;
/// `POST /connector_profiles`.
pub struct NewProfileErrors;
/// `GET /connector_profiles`.
pub struct ProfilesErrors;
/// `GET /connector_profiles/{id}`.
pub struct ProfileErrors;
/// `PATCH /connector_profiles/{id}`.
pub struct UpdateProfileErrors;
/// `POST /oauth/authorization_url`.
pub struct AuthorizationUrlErrors;
/// `POST /oauth/token_exchange`.
pub struct TokenExchangeErrors;
/// `POST /connect_sessions`.
pub struct NewSessionErrors;
/// `POST /connect_sessions/authenticate`.
pub struct AuthenticateSessionErrors;
/// `GET /audit`.
pub struct AuditErrors;
/// `GET /health/ready`, which needs no key.
pub struct HealthErrors;

impl IntoResponses for SummaryErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        of(&READ)
    }
}

impl IntoResponses for UserListErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        of(&[
            READ.as_slice(),
            &[Kind::InvalidCursor, Kind::FieldNotPermitted],
        ]
        .concat())
    }
}

impl IntoResponses for RoleListErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        of(&[READ.as_slice(), &[Kind::InvalidCursor]].concat())
    }
}

impl IntoResponses for GroupListErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        of(&[
            READ.as_slice(),
            &[Kind::InvalidCursor, Kind::GroupsNotPermitted],
        ]
        .concat())
    }
}

impl IntoResponses for RecordErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        of(&[READ.as_slice(), &[Kind::NotFound]].concat())
    }
}

impl IntoResponses for GroupErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        of(&[READ.as_slice(), &[Kind::NotFound, Kind::GroupsNotPermitted]].concat())
    }
}

impl IntoResponses for MeErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        of(&NAMED)
    }
}

impl IntoResponses for PolicyErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        of(&[NAMED.as_slice(), &[Kind::PoliciesNotOffered]].concat())
    }
}

impl IntoResponses for WriteErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        of(&[NAMED.as_slice(), &[Kind::WritesNotOffered]].concat())
    }
}

impl IntoResponses for ConnectorsErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        of(&[])
    }
}

impl IntoResponses for ConnectorErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        of(&[Kind::NotFound])
    }
}

impl IntoResponses for AccountsErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        of(&[Kind::CredentialLocked])
    }
}

impl IntoResponses for LinkErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        of(&[
            Kind::InvalidBody,
            Kind::BaseUrlNotAllowed,
            Kind::CredentialRefused,
            Kind::ScopeMissing,
            Kind::AssumeUserRefused,
            Kind::ProviderThrottled,
            Kind::CredentialLocked,
            Kind::ProviderUnavailable,
        ])
    }
}

impl IntoResponses for AccountErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        of(&ACCOUNT)
    }
}

impl IntoResponses for UpdateErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        of(&[
            ACCOUNT.as_slice(),
            &[
                Kind::InvalidBody,
                Kind::CredentialRefused,
                Kind::ScopeMissing,
                Kind::OrganizationMismatch,
                Kind::AssumeUserRefused,
                Kind::ProviderThrottled,
                Kind::ProviderUnavailable,
            ],
        ]
        .concat())
    }
}

impl IntoResponses for RefreshErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        of(&[
            ACCOUNT.as_slice(),
            &[
                Kind::AccountInactive,
                Kind::NothingToRefresh,
                Kind::RefreshInProgress,
            ],
        ]
        .concat())
    }
}

impl IntoResponses for WalkNowErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        of(&[
            ACCOUNT.as_slice(),
            &[
                Kind::AccountInactive,
                Kind::RefreshInProgress,
                Kind::ScopeMissing,
                Kind::AssumeUserRefused,
                Kind::ProviderThrottled,
                Kind::ProviderUnavailable,
            ],
        ]
        .concat())
    }
}

impl IntoResponses for WalksErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        of(&[ACCOUNT.as_slice(), &[Kind::InvalidCursor]].concat())
    }
}

impl IntoResponses for WalkErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        of(&[ACCOUNT.as_slice(), &[Kind::WalkNotFound]].concat())
    }
}

impl IntoResponses for SuspectsErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        of(&[ACCOUNT.as_slice(), &HELD, &[Kind::InvalidCursor]].concat())
    }
}

impl IntoResponses for DecisionErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        of(&[ACCOUNT.as_slice(), &HELD].concat())
    }
}

impl IntoResponses for IssueKeyErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        of(&[
            Kind::InvalidBody,
            Kind::AdminNotPermitted,
            Kind::TooManyKeys,
        ])
    }
}

impl IntoResponses for KeysErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        of(&[Kind::InvalidCursor])
    }
}

impl IntoResponses for KeyErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        of(&[Kind::NotFound])
    }
}

impl IntoResponses for UpdateKeyErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        of(&[Kind::InvalidBody, Kind::NotFound])
    }
}

impl IntoResponses for NewProfileErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        of(&[
            Kind::InvalidBody,
            Kind::BaseUrlNotAllowed,
            Kind::PublicUrlMissing,
            Kind::CredentialLocked,
        ])
    }
}

impl IntoResponses for ProfilesErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        of(&[])
    }
}

impl IntoResponses for ProfileErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        of(&[Kind::NotFound])
    }
}

impl IntoResponses for UpdateProfileErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        of(&[Kind::InvalidBody, Kind::NotFound, Kind::CredentialLocked])
    }
}

impl IntoResponses for AuthorizationUrlErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        of(&[
            Kind::InvalidBody,
            Kind::NotFound,
            Kind::AccountInactive,
            Kind::CredentialLocked,
        ])
    }
}

impl IntoResponses for TokenExchangeErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        of(&[
            Kind::InvalidBody,
            Kind::AuthorizationInvalid,
            Kind::AuthorizationRefused,
            Kind::AppRefused,
            Kind::AccountInactive,
            Kind::CredentialRefused,
            Kind::ScopeMissing,
            Kind::ProviderThrottled,
            Kind::CredentialLocked,
            Kind::ProviderUnavailable,
        ])
    }
}

impl IntoResponses for NewSessionErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        of(&[
            Kind::InvalidBody,
            Kind::NotFound,
            Kind::AccountNotFound,
            Kind::PublicUrlMissing,
            Kind::AccountInactive,
            Kind::CredentialLocked,
        ])
    }
}

impl IntoResponses for AuthenticateSessionErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        of(&[
            Kind::InvalidBody,
            Kind::ConnectSessionInvalid,
            Kind::CredentialLocked,
        ])
    }
}

impl IntoResponses for AuditErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        of(&[Kind::InvalidCursor])
    }
}

impl IntoResponses for HealthErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        described(&[Kind::StoreUnavailable])
    }
}

fn of(own: &[Kind]) -> BTreeMap<String, RefOr<Response>> {
    // A route that reads a body can also time out while it waits for the body.
    let late: &[Kind] = match own.contains(&Kind::InvalidBody) {
        true => &[Kind::BodyTimeout],
        false => &[],
    };
    described(&[own, late, &ANY].concat())
}

fn described(kinds: &[Kind]) -> BTreeMap<String, RefOr<Response>> {
    let mut by_status: BTreeMap<u16, Vec<Kind>> = BTreeMap::new();
    for kind in kinds {
        by_status.entry(status(*kind)).or_default().push(*kind);
    }
    by_status
        .into_iter()
        .map(|(status, kinds)| {
            let codes: Vec<_> = kinds.iter().map(|kind| kind.code()).collect();
            let examples = kinds.iter().map(|kind| {
                let body = serde_json::to_value(example(*kind)).expect("a body is plain data");
                let example = ExampleBuilder::new().value(Some(body)).build();
                (kind.code(), example)
            });
            let content = ContentBuilder::new()
                .schema(Some(Ref::from_schema_name(ErrorBody::name())))
                .examples_from_iter(examples)
                .build();
            let response = ResponseBuilder::new()
                .description(format!("`{}`", codes.join("`, `")))
                .content("application/json", content)
                .build();
            (status.to_string(), RefOr::T(response))
        })
        .collect()
}

/// An example of an error of this kind.
fn example(kind: Kind) -> ErrorBody {
    let provider = match kind {
        Kind::CredentialRefused => Some((401, 1002)),
        Kind::ProviderThrottled => Some((429, 4003)),
        Kind::ProviderUnavailable => Some((503, 4001)),
        _ => None,
    };
    ErrorBody {
        status_code: status(kind),
        message: "What is wrong with this very request.".to_owned(),
        timestamp: Timestamp::constant(1_790_000_000, 0),
        code: kind.code(),
        hint: kind.hint().to_owned(),
        request_id: "019ab5c2-7a3e-7000-8000-1f6f0e0b7c55".to_owned(),
        provider_errors: provider
            .map(|(status, code)| ProviderErrorBody {
                status: Some(status),
                code: Some(code),
                reference: Some("1a2b3c4d".to_owned()),
            })
            .into_iter()
            .collect(),
        progress: (kind == Kind::DirectoryNotReady).then_some(ProgressBody {
            pages: 12,
            pages_total: Some(48),
            records: 1200,
            eta_seconds: Some(9),
        }),
    }
}

/// The schemas of the error body, by name. The description of `code` is the whole table of kinds,
/// so that it covers those that no single route answers with. `code` is not an `enum`, because a
/// client must accept codes that are newer than itself.
pub fn error_schemas() -> Vec<(String, RefOr<Schema>)> {
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
    let mut schemas = vec![(ErrorBody::name().into_owned(), schema)];
    ErrorBody::schemas(&mut schemas);
    schemas
}
