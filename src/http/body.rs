//! Parses request bodies strictly: one JSON object of bounded size and depth, without unknown or
//! repeated keys. The error message names the fault.

use std::{fmt, marker::PhantomData, pin::pin, time::Duration};

use actix_web::{
    HttpRequest,
    http::header,
    web::{Data, Payload},
};
use futures_util::{
    StreamExt,
    future::{Either, select},
};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, MapAccess, Visitor, value::MapAccessDeserializer},
};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, Type},
};
use zeroize::Zeroizing;

use crate::{
    error::{Error, Kind, Result, quoted},
    gateway::Gateway,
};

/// The largest request body, in bytes.
const LARGEST: usize = 1024 * 1024;

/// How long a client may take to send a body, counted from the start of reading.
const WITHIN: Duration = Duration::from_secs(10);

/// How long a client may still take to send a body once this process is stopping.
const SHUTDOWN_READ_TIMEOUT: Duration = Duration::from_secs(2);

fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(Kind::InvalidBody, message)
}

/// Reads the body of `request` as a `T`.
///
/// # Errors
/// `invalid_body`, `body_timeout`.
pub async fn read<T: DeserializeOwned>(request: &HttpRequest, payload: Payload) -> Result<T> {
    let media_type = request
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .map(|value| value.trim().to_ascii_lowercase());
    if media_type.as_deref() != Some("application/json") {
        return Err(invalid("the content-type must be application/json"));
    }
    if request.headers().contains_key(header::CONTENT_ENCODING) {
        return Err(invalid("the body must be sent without a content-encoding"));
    }
    let body = whole(request, payload, LARGEST)
        .await
        .map_err(|unread| match unread {
            BodyError::Incomplete => invalid("the body ended before its end"),
            BodyError::TooLarge => invalid("the body is larger than 1 MiB"),
            BodyError::TooSlow => Error::new(
                Kind::BodyTimeout,
                "the body was not there within 10 seconds",
            ),
        })?;
    if depth(&body) > 64 {
        return Err(invalid("the body is nested deeper than 64 levels"));
    }
    // Only an error about a key passes on serde's message. For a wrong type that message may quote
    // the value, which may be a secret, so those errors give only the line and column.
    let mut from = serde_json::Deserializer::from_slice(&body);
    let read = object(&mut from).and_then(|read| from.end().map(|()| read));
    read.map_err(|error| {
        let text = error.to_string();
        let is_about_keys = ["unknown field", "missing field", "duplicate field"]
            .iter()
            .any(|start| text.starts_with(start));
        if is_about_keys {
            invalid(format!("the body has a fault: {}", with_key_cut(&text)))
        } else {
            invalid(format!(
                "the body is not the JSON object that is expected: fault at line {} column {}",
                error.line(),
                error.column()
            ))
        }
    })
}

/// Why a body could not be read.
pub enum BodyError {
    /// The connection, or the chunked coding, ended before the body was complete.
    Incomplete,
    TooLarge,
    TooSlow,
}

/// Reads the body of `request`, of at most `largest` bytes, within 10 seconds. The body may contain
/// secrets, so its buffer is zeroed on drop.
///
/// # Errors
/// The reason why it could not be read.
pub async fn whole(
    request: &HttpRequest,
    payload: Payload,
    largest: usize,
) -> Result<Zeroizing<Vec<u8>>, BodyError> {
    let gateway = request
        .app_data::<Data<Gateway>>()
        .expect("the app was built with a gateway");
    let reading = pin!(all(request, payload, largest));
    match select(reading, pin!(deadline(gateway))).await {
        Either::Left((body, _)) => body,
        Either::Right(_) => Err(BodyError::TooSlow),
    }
}

/// Completes when the time for a body is over.
async fn deadline(gateway: &Gateway) {
    let clock = gateway.clock();
    let stopped = pin!(async {
        gateway.stopped().await;
        clock.sleep(SHUTDOWN_READ_TIMEOUT).await;
    });
    select(pin!(clock.sleep(WITHIN)), stopped).await;
}

/// Reads up to the length that the request head declares (RFC 9112, 6.3), whatever other protocol
/// the head offers. With `Upgrade: websocket`, actix would read until the connection ends, and both
/// sides would wait for each other.
async fn all(
    request: &HttpRequest,
    mut payload: Payload,
    largest: usize,
) -> Result<Zeroizing<Vec<u8>>, BodyError> {
    let length = length(request);
    let room = length.unwrap_or(largest).min(16 * 1024);
    let mut body = Zeroizing::new(Vec::with_capacity(room));
    while length.is_none_or(|length| body.len() < length) {
        let Some(chunk) = payload.next().await else {
            break;
        };
        let chunk = chunk.map_err(|_| BodyError::Incomplete)?;
        let left = length.map_or(chunk.len(), |length| length - body.len());
        let chunk = &chunk[..chunk.len().min(left)];
        if body.len() + chunk.len() > largest {
            return Err(BodyError::TooLarge);
        }
        body.extend_from_slice(chunk);
    }
    Ok(body)
}

/// The declared length of the body; None if it is chunked.
fn length(request: &HttpRequest) -> Option<usize> {
    let headers = request.headers();
    if headers.contains_key(header::TRANSFER_ENCODING) {
        return None;
    }
    let length = headers.get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok());
    // The parser has refused a length that is no number. One that does not fit into memory counts
    // as the largest.
    Some(length.map_or(0, |length| length.trim().parse().unwrap_or(usize::MAX)))
}

/// Shortens the key that an `unknown field` message of serde quotes, since the caller chose it. The
/// names that follow it are ours and stay whole.
fn with_key_cut(text: &str) -> String {
    const UNKNOWN: &str = "unknown field `";
    let parts = text.strip_prefix(UNKNOWN).and_then(|rest| {
        let end = rest
            .rfind("`, expected ")
            .or_else(|| rest.rfind("`, there are no fields"))?;
        Some((&rest[..end], &rest[end + 1..]))
    });
    match parts {
        Some((key, rest)) => format!("unknown field {}{rest}", quoted(key)),
        None => text.to_owned(),
    }
}

/// Deserializes a key that is present, so that null is a value and not the same as an absent key.
pub fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    from: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

/// Deserializes an object only. For a struct, serde would also accept an array of its fields.
pub fn object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    struct FieldsVisitor<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for FieldsVisitor<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<T, A::Error> {
            T::deserialize(MapAccessDeserializer::new(members))
        }
    }

    from.deserialize_map(FieldsVisitor(PhantomData))
}

/// Deserializes an object under a key that is present.
pub fn present_object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    from: D,
) -> Result<Option<T>, D::Error> {
    object(from).map(Some)
}

/// A text for people, such as a name. The schema states its limits; deserializing does not check
/// them.
#[derive(Deserialize)]
#[serde(transparent)]
pub struct Text(pub String);

impl PartialSchema for Text {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .min_length(Some(1))
            .max_length(Some(255))
            .pattern(Some(
                r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$",
            ))
            .description(Some(
                "1 to 255 characters, not all of them spaces, and none a control character.",
            ))
            .into()
    }
}

impl ToSchema for Text {}

/// The nesting depth of brackets, outside of JSON strings.
fn depth(body: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_text, mut is_escaped) = (0usize, 0, false, false);
    for byte in body {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if in_text => is_escaped = true,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::{depth, with_key_cut};

    #[test]
    fn a_key_of_the_callers_is_repeated_cut_and_what_was_expected_stays() {
        let said =
            |key: &str| format!("unknown field `{key}`, expected `a` or `b` at line 1 column 9");
        assert_eq!(with_key_cut(&said("labl")), said("labl"));
        assert_eq!(with_key_cut(&said(&"x".repeat(900))), said(&"x".repeat(64)));
        assert_eq!(
            with_key_cut(&said("a\n`, expected `c")),
            said("a`, expected `c")
        );
        let missing = "missing field `scopes` at line 1 column 2";
        assert_eq!(with_key_cut(missing), missing);
    }

    #[test]
    fn depth_counts_brackets_outside_of_texts() {
        assert_eq!(depth(br#"{"a":[1,{"b":2}]}"#), 3);
        assert_eq!(depth(br#"{"a":"[[[\"[[["}"#), 1);
    }
}
