//! Parses replies of the token endpoint, leniently: a refresh token works once, so rejecting a
//! reply for one odd field would lose the account's credential.
//!
//! * A reply with tokens and without an error has issued them, whatever its status. A reply with an
//!   access token and a 2xx status has issued it even beside an error. An old Smartsheet sample
//!   wraps the tokens in `token`.
//! * A lifetime may be an integer, a fraction, or the text of either. Any other value counts as
//!   absent.
//! * An error is in JSON with `error` (RFC 6749, 5.2) or Smartsheet's `errorCode`, at any status,
//!   200 included. If both are present, the code decides: for a wrong hash Smartsheet sends
//!   `invalid_grant`, although the grant is valid. For an unknown code, `error` decides.
//! * A proxy's error page says nothing about the grant.

use std::time::Duration;

use secrecy::SecretString;
use serde_json::{Value, value::RawValue};
use zeroize::Zeroizing;

use super::fields;
use crate::connectors::oauth::{IssuedTokens, TokenError, TokenErrorKind};

/// An upper limit: no access token lives as long.
const LONGEST_LIFE: Duration = Duration::from_secs(10 * 365 * 86_400);

pub(super) fn read(status: u16, body: &[u8]) -> Result<IssuedTokens, TokenError> {
    let reply = Reply::read(body).unwrap_or_default();
    let is_success = (200..=299).contains(&status);
    let is_error = reply.error.is_some() || reply.code.is_some();
    let has_issued = match (&reply.access_token, &reply.refresh_token) {
        (Some(_), _) => is_success || !is_error,
        (None, Some(_)) => !is_error,
        (None, None) => false,
    };
    if !has_issued {
        return Err(refusal(status, &reply));
    }
    // A client must not use a token of a type that it does not know (RFC 6749, 7.1).
    if reply.token_type.is_some_and(|word| word != "bearer") {
        return Err(TokenError {
            status: Some(status),
            unusable: reply.access_token,
            ..TokenError::new(
                TokenErrorKind::Doubtful,
                "the tokens are of a type that is not known",
            )
        });
    }
    Ok(IssuedTokens {
        access_token: reply.access_token,
        refresh_token: reply.refresh_token,
        expires_in: reply.expires_in,
    })
}

fn refusal(status: u16, reply: &Reply) -> TokenError {
    let detail = match (reply.code, &reply.error) {
        (Some(code), _) => format!("the provider answered {status} with code {code}"),
        (None, Some(_)) => format!("the provider answered {status} with an OAuth error"),
        (None, None) => format!("the provider answered {status} with neither tokens nor an error"),
    };
    let kind = kind(status, reply.code, reply.error.as_deref());
    TokenError {
        status: Some(status),
        code: reply.code,
        ..TokenError::new(kind, detail)
    }
}

/// The readable fields of a reply.
#[derive(Default)]
struct Reply {
    access_token: Option<SecretString>,
    refresh_token: Option<SecretString>,
    expires_in: Option<Duration>,
    /// In lower case.
    token_type: Option<String>,
    /// In lower case.
    error: Option<String>,
    code: Option<i64>,
}

impl Reply {
    /// None if the body is not a JSON object.
    fn read(body: &[u8]) -> Option<Self> {
        let [wrapped] = fields::pick(body, ["token"])?;
        let outer = Self::read_flat(body)?;
        let inner = wrapped.and_then(|inner| Self::read_flat(inner.get().as_bytes()));
        let inner = inner.unwrap_or_default();
        Some(Self {
            access_token: outer.access_token.or(inner.access_token),
            refresh_token: outer.refresh_token.or(inner.refresh_token),
            expires_in: outer.expires_in.or(inner.expires_in),
            token_type: outer.token_type.or(inner.token_type),
            error: outer.error.or(inner.error),
            code: outer.code.or(inner.code),
        })
    }

    fn read_flat(body: &[u8]) -> Option<Self> {
        let names = [
            "access_token",
            "refresh_token",
            "expires_in",
            "token_type",
            "error",
            "errorCode",
        ];
        let [access, refresh, expires_in, token_type, error, code] = fields::pick(body, names)?;
        Some(Self {
            access_token: access.and_then(token),
            refresh_token: refresh.and_then(token),
            expires_in: expires_in.and_then(lifetime),
            token_type: token_type.and_then(word),
            error: error.and_then(word),
            code: code.and_then(fields::error_code),
        })
    }
}

/// A token that fits into a header, without surrounding space.
fn token(raw: &RawValue) -> Option<SecretString> {
    let Some(Value::String(text)) = fields::value(raw) else {
        return None;
    };
    let text = Zeroizing::new(text);
    let text = text.trim();
    let is_sendable = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    is_sendable.then(|| text.into())
}

fn word(raw: &RawValue) -> Option<String> {
    match fields::value(raw)? {
        Value::String(text) => {
            Some(text.trim().to_ascii_lowercase()).filter(|text| !text.is_empty())
        }
        _ => None,
    }
}

/// A lifetime of at least one second.
fn lifetime(raw: &RawValue) -> Option<Duration> {
    let seconds: f64 = match fields::value(raw)? {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    // NaN, too, fails this comparison.
    if seconds >= 1.0 {
        let seconds = seconds.min(LONGEST_LIFE.as_secs_f64());
        Duration::try_from_secs_f64(seconds.floor()).ok()
    } else {
        None
    }
}

fn kind(status: u16, code: Option<i64>, error: Option<&str>) -> TokenErrorKind {
    match code {
        _ if status == 429 => TokenErrorKind::Throttled,
        Some(4003) => TokenErrorKind::Throttled,
        // The provider failed at an unknown step and may have spent the grant.
        Some(4000..=4999) => TokenErrorKind::Doubtful,
        Some(1067) => TokenErrorKind::UnknownApp,
        Some(1072 | 1238) => TokenErrorKind::AppRefused,
        Some(1069) => TokenErrorKind::GrantExpired,
        Some(1073) => TokenErrorKind::RedirectMismatch,
        Some(1071 | 1132) => TokenErrorKind::InvalidGrant,
        Some(1068 | 1070 | 1236 | 1237 | 1292) => TokenErrorKind::Refused,
        _ => match error {
            Some("invalid_grant") => TokenErrorKind::InvalidGrant,
            Some("invalid_client") => TokenErrorKind::AppRefused,
            Some(
                "invalid_request"
                | "invalid_scope"
                | "unauthorized_client"
                | "unsupported_grant_type",
            ) => TokenErrorKind::Refused,
            // An `error` that RFC 6749, 5.2 does not define, a code without a meaning here, or
            // neither.
            _ => match status {
                400..=499 => TokenErrorKind::Refused,
                200..=299 if code.is_some() || error.is_some() => TokenErrorKind::Refused,
                _ => TokenErrorKind::Doubtful,
            },
        },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use secrecy::ExposeSecret;
    use serde_json::json;

    use super::*;

    type Tokens<'a> = (Option<&'a str>, Option<&'a str>, Option<u64>);

    #[track_caller]
    fn issues(status: u16, body: &str, expected: Tokens<'_>) {
        let issued =
            read(status, body.as_bytes()).unwrap_or_else(|error| panic!("{error}: {body}"));
        let text = |token: &Option<SecretString>| {
            token.as_ref().map(|token| token.expose_secret().to_owned())
        };
        let got = (
            text(&issued.access_token),
            text(&issued.refresh_token),
            issued.expires_in.map(|life| life.as_secs()),
        );
        let (access, refresh, life) = expected;
        let expected = (access.map(str::to_owned), refresh.map(str::to_owned), life);
        assert_eq!(got, expected, "{status} {body}");
    }

    fn kind_of(status: u16, body: &str) -> TokenErrorKind {
        read(status, body.as_bytes()).unwrap_err().kind
    }

    fn good() -> Value {
        json!({"access_token": "a", "token_type": "bearer", "expires_in": 604_799,
            "refresh_token": "r", "scope": "READ_USERS"})
    }

    fn with(field: &str, value: &str) -> String {
        let mut reply = good();
        reply[field] = json!("HERE");
        reply.to_string().replace("\"HERE\"", value)
    }

    const BOTH: Tokens<'_> = (Some("a"), Some("r"), Some(604_799));

    #[test]
    fn a_lifetime_that_cannot_be_read_costs_the_lifetime_alone() {
        for (value, life) in [
            ("3600", Some(3600)),
            ("\"3600\"", Some(3600)),
            ("\" 3600 \"", Some(3600)),
            ("3600.9", Some(3600)),
            ("\"3600.9\"", Some(3600)),
            ("3.6e3", Some(3600)),
            ("1e300", Some(LONGEST_LIFE.as_secs())),
            ("\"inf\"", Some(LONGEST_LIFE.as_secs())),
            ("99999999999999999999", Some(LONGEST_LIFE.as_secs())),
            ("1e999", None),
            ("\"NaN\"", None),
            ("0", None),
            ("0.5", None),
            ("-1", None),
            ("\"-3600\"", None),
            ("null", None),
            ("true", None),
            ("[3600]", None),
            ("{}", None),
            ("\"\"", None),
            ("\"1 hour\"", None),
            ("\"\\ud800\"", None),
        ] {
            issues(
                200,
                &with("expires_in", value),
                (Some("a"), Some("r"), life),
            );
        }
        issues(
            200,
            r#"{"access_token":"a","refresh_token":"r"}"#,
            (Some("a"), Some("r"), None),
        );
    }

    #[test]
    fn a_token_that_cannot_be_read_costs_that_token_alone() {
        for value in [
            "null",
            "\"\"",
            "5",
            "[\"r\"]",
            "{}",
            "\"a b\"",
            "\"\\ud800\"",
            "\"\\n\"",
        ] {
            let (access, refresh) = (with("access_token", value), with("refresh_token", value));
            issues(200, &access, (None, Some("r"), Some(604_799)));
            issues(200, &refresh, (Some("a"), None, Some(604_799)));
        }
    }

    #[test]
    fn a_type_is_bearer_in_any_case_or_left_out() {
        for value in [
            "\"Bearer\"",
            "\"BEARER \"",
            "null",
            "\"\"",
            "7",
            "[]",
            "\"\\ud800\"",
        ] {
            issues(200, &with("token_type", value), BOTH);
        }
        let refused = read(200, with("token_type", "\"mac\"").as_bytes()).unwrap_err();
        assert_eq!(refused.kind, TokenErrorKind::Doubtful);
        assert_eq!(refused.unusable.unwrap().expose_secret(), "a");
    }

    #[test]
    fn tokens_are_taken_in_whatever_they_come() {
        for status in [200, 201, 299, 302, 400, 403, 429, 500, 503] {
            issues(status, &good().to_string(), BOTH);
            issues(status, &json!({"token": good()}).to_string(), BOTH);
        }
        for body in [
            &with("scope", "{\"a\": [1, null]}"),
            &with("scope", "1e999"),
            &with("access_token", "\" a\\n\""),
            &with("error", "null"),
            &with("errorCode", "0"),
            &with("error", "\"invalid_grant\""),
            r#"{"token":"x","access_token":"b","access_token":"a","refresh_token":"r",
                "expires_in":604799,"expires_in":null}"#,
        ] {
            issues(200, body, BOTH);
        }
    }

    #[test]
    fn an_error_is_one_whatever_its_status() {
        use TokenErrorKind::*;
        for status in [200, 400, 401, 403, 500, 503] {
            for (body, means) in [
                (r#"{"error":"invalid_grant"}"#, InvalidGrant),
                (
                    r#"{"error":"Invalid_Grant ","refresh_token":"r"}"#,
                    InvalidGrant,
                ),
                (r#"{"errorCode":1071}"#, InvalidGrant),
                (r#"{"errorCode":"1132","error":7}"#, InvalidGrant),
                (r#"{"errorCode":"x","error":"invalid_grant"}"#, InvalidGrant),
                (
                    r#"{"errorCode":9999,"error":"invalid_grant"}"#,
                    InvalidGrant,
                ),
                (r#"{"token":{"error":"invalid_grant"}}"#, InvalidGrant),
                (
                    r#"{"errorCode":1069,"error":"invalid_grant"}"#,
                    GrantExpired,
                ),
                // For a wrong hash, too, the secret is wrong and not the grant.
                (r#"{"errorCode":1072,"error":"invalid_grant"}"#, AppRefused),
                (r#"{"errorCode":1238}"#, AppRefused),
                (r#"{"error":"invalid_client"}"#, AppRefused),
                (r#"{"errorCode":1067}"#, UnknownApp),
                (r#"{"errorCode":1073}"#, RedirectMismatch),
                (r#"{"errorCode":1070,"error":"invalid_grant"}"#, Refused),
                (r#"{"error":"unsupported_grant_type"}"#, Refused),
                (r#"{"errorCode":4003}"#, Throttled),
                (r#"{"error":"unauthorized_client"}"#, Refused),
                (r#"{"errorCode":4000,"error":"invalid_grant"}"#, Doubtful),
            ] {
                assert_eq!(kind_of(status, body), means, "{status} {body}");
            }
        }
        assert_eq!(kind_of(200, r#"{"error":"no_such_word"}"#), Refused);
        assert_eq!(kind_of(500, r#"{"error":"no_such_word"}"#), Doubtful);
        // An access token in an error reply with a failure status was not issued for this grant.
        let both = with("error", "\"invalid_grant\"");
        assert_eq!(kind_of(400, &both), InvalidGrant);
    }

    #[test]
    fn what_says_nothing_is_judged_by_its_status() {
        use TokenErrorKind::*;
        for body in [
            "",
            "<html>invalid_grant</html>",
            "null",
            "[]",
            "\"invalid_grant\"",
            "[\"invalid_grant\"]",
            "{}",
            r#"{"error":{"code":"invalid_grant"}}"#,
            r#"{"errorCode":400}"#,
            r#"{"error":"invalid_grant""#,
        ] {
            for (status, means) in [
                (200, Doubtful),
                (302, Doubtful),
                (400, Refused),
                (401, Refused),
                (403, Refused),
                (404, Refused),
                (429, Throttled),
                (500, Doubtful),
                (503, Doubtful),
            ] {
                assert_eq!(kind_of(status, body), means, "{status} {body}");
            }
        }
    }

    proptest! {
        #[test]
        fn nothing_that_is_answered_is_too_odd_to_be_read(
            status in 100_u16..600,
            body in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            prop_assert!(read(status, &body).is_err());
        }

        #[test]
        fn a_field_that_does_not_count_costs_nothing(
            status in 200_u16..600,
            name in "[a-zA-Z_]{0,12}",
            value in "[ -~]{0,40}",
        ) {
            let counts = ["access_token", "refresh_token", "expires_in", "token_type", "error",
                "errorCode", "token"];
            prop_assume!(!counts.contains(&name.as_str()));
            let mut reply = good();
            reply[name] = serde_json::from_str(&value).unwrap_or(Value::String(value));
            issues(status, &reply.to_string(), BOTH);
        }
    }
}
