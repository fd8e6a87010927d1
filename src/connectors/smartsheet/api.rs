//! Smartsheet's base URLs, headers and error codes.

use serde_json::value::RawValue;
use url::Url;

use super::wire;
use crate::{
    connectors::Session,
    model::accounts::{Endpoint, Region},
    outbound::{CallError, CallErrorKind, Classification, ErrorReply, ProviderResponse},
};

/// "No such user": the specific code and the general one. It is not known which of them Smartsheet
/// sends.
pub(super) const NO_SUCH_USER: [i64; 2] = [1020, 1006];
pub(super) const NO_SUCH_GROUP: [i64; 1] = [1106];

pub(super) const TOKEN_EXPIRED: i64 = 1003;

/// The user cannot be impersonated.
const ASSUME_USER_REFUSED: [i64; 7] = [1030, 1270, 1271, 1272, 1273, 1274, 1275];

/// This token must name a user in Assume-User.
const ASSUME_USER_MISSING: i64 = 1044;

/// Identifies this client to Smartsheet as an integration, not a person.
const HEADERS: [(&str, &str); 1] = [(
    "smartsheet-integration-source",
    "APPLICATION,Rolecall,Rolecall",
)];

/// A path: its segments after the base URL, and for the log a template with placeholders.
pub(super) struct Path<'a> {
    pub(super) template: &'static str,
    pub(super) segments: &'a [&'a str],
}

pub(super) async fn get(
    session: &Session,
    path: Path<'_>,
    query: &[(&str, &str)],
) -> Result<ProviderResponse, CallError> {
    let url = url(&session.endpoint, path.segments, query).ok_or_else(uncallable)?;
    session
        .get(url, path.template, &HEADERS, error_reply)
        .await
        .map_err(|error| match error.code {
            // Sent with 401, 400 or 403. None of these codes means that the token itself is
            // refused.
            Some(code) if ASSUME_USER_REFUSED.contains(&code) => CallError {
                kind: CallErrorKind::AssumeUserRefused,
                ..error
            },
            Some(ASSUME_USER_MISSING) => CallError {
                kind: CallErrorKind::AssumeUserMissing,
                ..error
            },
            _ => error,
        })
}

pub(super) async fn delete(
    session: &Session,
    path: Path<'_>,
) -> Result<ProviderResponse, CallError> {
    let url = url(&session.endpoint, path.segments, &[]).ok_or_else(uncallable)?;
    session
        .delete(url, path.template, &HEADERS, error_reply)
        .await
}

pub(super) fn uncallable() -> CallError {
    CallError::new(
        CallErrorKind::Refused,
        "the account's base URL cannot be called",
    )
}

/// Each region has its own data, tokens and OAuth apps.
fn base(endpoint: &Endpoint) -> &str {
    match endpoint {
        Endpoint::Region(Region::Us) => "https://api.smartsheet.com/2.0",
        Endpoint::Region(Region::Eu) => "https://api.smartsheet.eu/2.0",
        Endpoint::Region(Region::Au) => "https://api.smartsheet.au/2.0",
        Endpoint::Region(Region::Gov) => "https://api.smartsheetgov.com/2.0",
        Endpoint::BaseUrl(base) => base,
    }
}

pub(super) fn url(endpoint: &Endpoint, segments: &[&str], query: &[(&str, &str)]) -> Option<Url> {
    let mut url = Url::parse(base(endpoint)).ok()?;
    url.path_segments_mut()
        .ok()?
        .pop_if_empty()
        .extend(segments);
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(query);
    }
    Some(url)
}

/// Classifies a reply by Smartsheet's error code; the status decides about all other codes.
fn error_reply(answer: &ProviderResponse) -> ErrorReply {
    let body = wire::WireError::read(answer.body());
    ErrorReply {
        nature: match body.error_code {
            Some(1001 | 1002 | TOKEN_EXPIRED | 1005) => Classification::CredentialRefused,
            Some(1004) => Classification::NotPermitted,
            Some(4000) => Classification::Lasting,
            Some(4001) => Classification::PassingSlowly,
            Some(4002 | 4004) => Classification::Passing,
            Some(4003) => Classification::Throttled,
            _ => Classification::ByStatus,
        },
        code: body.error_code,
        reference: body.ref_id,
    }
}

/// Whether this is Smartsheet's own 404 for a missing record, not that of a proxy or of a moved
/// path.
pub(super) fn is_proof_of_absence(error: &CallError, codes: &[i64]) -> bool {
    error.kind == CallErrorKind::NotFound && error.code.is_some_and(|code| codes.contains(&code))
}

/// Parses an envelope. It must be an object; a derived deserializer would also accept an array.
pub(super) fn envelope<'a, T: serde::Deserialize<'a>>(
    answer: &'a ProviderResponse,
) -> Result<T, CallError> {
    let raw: &RawValue = answer.json()?;
    if !raw.get().starts_with('{') {
        return Err(off_shape(answer, "the reply is no object"));
    }
    answer.json()
}

/// Parses a single record.
pub(super) fn record<T: serde::de::DeserializeOwned>(
    answer: &ProviderResponse,
) -> Result<T, CallError> {
    let raw: &RawValue = answer.json()?;
    wire::object(raw.get()).ok_or_else(|| off_shape(answer, "the reply is no record"))
}

pub(super) fn off_shape(answer: &ProviderResponse, detail: impl Into<String>) -> CallError {
    CallError {
        status: Some(answer.status()),
        ..CallError::invalid_reply(detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_region_has_its_host() {
        let host = |region| {
            let url = url(&Endpoint::Region(region), &["users", "me"], &[]).unwrap();
            assert_eq!((url.scheme(), url.path()), ("https", "/2.0/users/me"));
            url.host_str().unwrap().to_owned()
        };
        assert_eq!(
            Region::ALL.map(host),
            [
                "api.smartsheet.com",
                "api.smartsheet.eu",
                "api.smartsheet.au",
                "api.smartsheetgov.com"
            ]
        );
    }

    #[test]
    fn values_stay_within_their_segment_and_their_parameter() {
        let base = Endpoint::BaseUrl("http://127.0.0.1:7070/2.0/".to_owned());
        let url = url(&base, &["users", "../a?b"], &[("lastKey", "x&y=z")]).unwrap();
        assert_eq!(
            url.as_str(),
            "http://127.0.0.1:7070/2.0/users/..%2Fa%3Fb?lastKey=x%26y%3Dz"
        );
    }
}
