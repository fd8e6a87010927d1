//! Request bodies, read strictly: one JSON object, of bounded size and depth, without unknown or
//! repeated keys; anything else is told what is wrong with it.

use std::{fmt, marker::PhantomData};

use actix_web::{HttpRequest, http::header, web::Payload};
use futures_util::StreamExt;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, MapAccess, Visitor, value::MapAccessDeserializer},
};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, Type},
};

use crate::error::{Error, Kind, Result};

/// The largest body that is read.
const LARGEST: usize = 1024 * 1024;

fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(Kind::InvalidBody, message)
}

/// Reads the body of `request` as a `T`.
///
/// # Errors
/// `invalid_body`.
pub async fn read<T: DeserializeOwned>(request: &HttpRequest, mut payload: Payload) -> Result<T> {
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
    let mut body = Vec::new();
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|_| invalid("the body ended before its end"))?;
        if body.len() + chunk.len() > LARGEST {
            return Err(invalid("the body is larger than 1 MiB"));
        }
        body.extend_from_slice(&chunk);
    }
    if depth(&body) > 64 {
        return Err(invalid("the body is nested deeper than 64 levels"));
    }
    // serde's message names the key or the place, and for a wrong type may repeat the value,
    // which may be a secret: only its place is passed on then.
    let mut from = serde_json::Deserializer::from_slice(&body);
    let read = object(&mut from).and_then(|read| from.end().map(|()| read));
    read.map_err(|error| {
        let text = error.to_string();
        let is_about_keys = ["unknown field", "missing field", "duplicate field"]
            .iter()
            .any(|start| text.starts_with(start));
        if is_about_keys {
            invalid(format!("the body has a fault: {text}"))
        } else {
            invalid(format!(
                "the body is not the JSON object that is expected: fault at line {} column {}",
                error.line(),
                error.column()
            ))
        }
    })
}

/// Reads a key that is there, so that null is a value like any other and not an absent key.
pub fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    from: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

/// Reads an object, and in its place no array of what its keys would hold, which is as good to
/// serde.
pub fn object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    struct Members<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<T, A::Error> {
            T::deserialize(MapAccessDeserializer::new(members))
        }
    }

    from.deserialize_map(Members(PhantomData))
}

/// Reads an object under a key that is there.
pub fn present_object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    from: D,
) -> Result<Option<T>, D::Error> {
    object(from).map(Some)
}

/// A text for people, as it came, and what the document says of one.
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

/// How deep brackets nest, outside of texts.
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
    use super::depth;

    #[test]
    fn depth_counts_brackets_outside_of_texts() {
        assert_eq!(depth(br#"{"a":[1,{"b":2}]}"#), 3);
        assert_eq!(depth(br#"{"a":"[[[\"[[["}"#), 1);
    }
}
