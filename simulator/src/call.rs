//! Requests and replies, independent of the web framework.

use std::borrow::Cow;

use bytes::Bytes;
use jiff::Timestamp;
use serde::Serialize;

use crate::refusal::{self, Refusal};
use crate::wire::Dates;
use crate::world::Id;

/// The version prefix of all paths.
pub const BASE: &str = "/2.0";

#[derive(Clone, Debug, Default)]
pub struct Call {
    pub method: String,
    /// The path as received, with the version.
    pub path: String,
    pub raw_query: String,
    pub query: Query,
    pub authorization: Option<String>,
    pub assume_user: Option<String>,
    pub accept: Option<String>,
    pub content_type: Option<String>,
    pub body: Bytes,
}

impl Call {
    /// The bearer token, if there is one.
    pub fn bearer(&self) -> Option<&str> {
        let (scheme, token) = self.authorization.as_deref()?.split_once(' ')?;
        let token = token.trim();
        (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
    }

    /// The path after the version.
    pub fn resource(&self) -> Option<&str> {
        self.path
            .strip_prefix(BASE)
            .filter(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    pub fn segments(&self) -> Vec<&str> {
        self.resource()
            .unwrap_or_default()
            .split('/')
            .filter(|part| !part.is_empty())
            .collect()
    }

    /// Whether the reply is paged.
    pub fn is_list(&self) -> bool {
        self.method == "GET"
            && matches!(
                self.segments()[..],
                ["users"] | ["groups"] | ["users", "sheets"] | ["users", _, "alternateemails"]
            )
    }

    /// The requested page of a list call; the first, if the request names none.
    pub fn page(&self) -> Option<u64> {
        if !self.is_list() {
            return None;
        }
        self.query
            .get("page")
            .map_or(Some(1), |page| page.parse().ok())
    }

    pub fn is_token_call(&self) -> bool {
        self.resource() == Some("/token")
    }

    /// Parses the JSON body.
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T, Refusal> {
        let content_type = self.content_type.as_deref().unwrap_or_default();
        if !content_type
            .trim_start()
            .to_ascii_lowercase()
            .starts_with("application/json")
        {
            return Err(refusal::CONTENT_TYPE_UNSUPPORTED.into());
        }
        if self.body.is_empty() {
            return Err(refusal::BODY_REQUIRED.into());
        }
        serde_json::from_slice(&self.body).map_err(|error| {
            let text = error.to_string();
            if error.is_syntax() || error.is_eof() {
                refusal::JSON_INVALID.because(text)
            } else if text.starts_with("unknown field") {
                refusal::PROPERTY_UNKNOWN.because(text)
            } else if text.starts_with("missing field") {
                refusal::ATTRIBUTE_MISSING.because(text)
            } else {
                refusal::ATTRIBUTE_VALUE.because(text)
            }
        })
    }
}

/// Decoded parameters, in the order of the request. Names are case-sensitive.
#[derive(Clone, Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Parses the query of a URL, or a form.
    pub fn parse(encoded: &[u8]) -> Self {
        Self(form_urlencoded::parse(encoded).into_owned().collect())
    }

    /// Appends the parameters of another query.
    pub fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// The first value of a name; an empty value counts as absent.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    }

    /// A boolean in any letter case, since clients send `True`.
    pub fn flag(&self, name: &str) -> Result<Option<bool>, Refusal> {
        match self.get(name) {
            None => Ok(None),
            Some(value) if value.eq_ignore_ascii_case("true") => Ok(Some(true)),
            Some(value) if value.eq_ignore_ascii_case("false") => Ok(Some(false)),
            Some(value) => Err(bad_parameter(name, value)),
        }
    }

    /// A number of at least 1.
    pub fn count(&self, name: &str) -> Result<Option<u64>, Refusal> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        match value.parse() {
            Ok(number) if number > 0 => Ok(Some(number)),
            _ => Err(bad_parameter(name, value)),
        }
    }

    pub fn id(&self, name: &str) -> Result<Option<Id>, Refusal> {
        self.count(name)
    }

    /// A time, as text or in milliseconds since the epoch.
    pub fn moment(&self, name: &str) -> Result<Option<Timestamp>, Refusal> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        let moment = match value.parse::<i64>() {
            Ok(millis) => Timestamp::from_millisecond(millis).ok(),
            Err(_) => value.parse().ok(),
        };
        moment.map(Some).ok_or_else(|| bad_parameter(name, value))
    }

    /// The values of `include`, a comma-separated list; any value that is not known is refused.
    pub fn include(&self, known: &[&str]) -> Result<Vec<&str>, Refusal> {
        let asked: Vec<&str> = self
            .get("include")
            .map(|value| value.split(',').map(str::trim).collect())
            .unwrap_or_default();
        match asked.iter().find(|one| !known.contains(one)) {
            Some(unknown) => Err(bad_parameter("include", unknown)),
            None => Ok(asked),
        }
    }

    pub fn dates(&self) -> Result<Dates, Refusal> {
        Ok(Dates {
            is_numeric: self.flag("numericDates")?.unwrap_or(false),
        })
    }
}

pub fn bad_parameter(name: &str, value: &str) -> Refusal {
    refusal::PARAMETER_VALUE.because(format!(
        "The value '{value}' was not valid for the parameter {name}."
    ))
}

/// A reply, before a fault changes it.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub content_type: Cow<'static, str>,
    pub headers: Vec<(&'static str, String)>,
    pub body: Bytes,
    pub error_code: Option<u32>,
}

impl Reply {
    pub fn json<T: Serialize + ?Sized>(status: u16, body: &T) -> Self {
        let body = serde_json::to_vec(body).expect("what we write is always JSON");
        Self {
            status,
            content_type: Cow::Borrowed("application/json;charset=UTF-8"),
            headers: Vec::new(),
            body: body.into(),
            error_code: None,
        }
    }

    pub fn html(status: u16, body: String) -> Self {
        Self {
            status,
            content_type: Cow::Borrowed("text/html; charset=utf-8"),
            headers: Vec::new(),
            body: body.into(),
            error_code: None,
        }
    }

    pub fn empty(status: u16) -> Self {
        Self {
            body: Bytes::new(),
            ..Self::html(status, String::new())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(encoded: &str) -> Query {
        Query::parse(encoded.as_bytes())
    }

    #[test]
    fn booleans_are_taken_as_python_writes_them() {
        assert_eq!(
            query("includeAll=True").flag("includeAll").unwrap(),
            Some(true)
        );
        assert_eq!(query("includeall=true").flag("includeAll").unwrap(), None);
        assert!(query("includeAll=yes").flag("includeAll").is_err());
    }

    #[test]
    fn moments_are_text_or_milliseconds() {
        let text = query("modifiedSince=2026-01-01T00:00:00Z")
            .moment("modifiedSince")
            .unwrap();
        let millis = query("modifiedSince=1767225600000")
            .moment("modifiedSince")
            .unwrap();
        assert_eq!(text, millis);
        assert!(
            query("modifiedSince=yesterday")
                .moment("modifiedSince")
                .is_err()
        );
    }

    #[test]
    fn a_bearer_token_needs_its_scheme() {
        let call = |header: &str| Call {
            authorization: Some(header.to_owned()),
            ..Call::default()
        };
        assert_eq!(call("Bearer abc").bearer(), Some("abc"));
        assert_eq!(call("bearer abc").bearer(), Some("abc"));
        assert_eq!(call("abc").bearer(), None);
        assert_eq!(call("Basic abc").bearer(), None);
    }
}
