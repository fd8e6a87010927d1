//! Reads single fields of a reply that may be anything: an error's body, a token reply. Other
//! fields cannot make the read fail, whatever they contain.

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor},
};
use serde_json::{Value, value::RawValue};

/// The raw values of the named fields; None if the body is not a JSON object. If a name occurs
/// twice, the last value that is not null counts.
pub(super) fn pick<'a, const N: usize>(
    body: &'a [u8],
    names: [&str; N],
) -> Option<[Option<&'a RawValue>; N]> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let picked = Pick(names).deserialize(&mut deserializer).ok()?;
    deserializer.end().ok()?;
    Some(picked)
}

struct Pick<'n, const N: usize>([&'n str; N]);

impl<'de, const N: usize> DeserializeSeed<'de> for Pick<'_, N> {
    type Value = [Option<&'de RawValue>; N];

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, const N: usize> Visitor<'de> for Pick<'_, N> {
    type Value = [Option<&'de RawValue>; N];

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut picked = [None; N];
        // Names are parsed one by one, so that an invalid name does not hide the other fields.
        while let Some(name) = map.next_key::<&RawValue>()? {
            let name: Option<String> = serde_json::from_str(name.get()).ok();
            let index = self
                .0
                .iter()
                .position(|known| Some(*known) == name.as_deref());
            let Some(index) = index else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let raw: &RawValue = map.next_value()?;
            if picked[index].is_none() || raw.get() != "null" {
                picked[index] = Some(raw);
            }
        }
        Ok(picked)
    }
}

/// The field as JSON; None if it holds a text or number that JSON values cannot represent (a lone
/// surrogate, a number of a thousand digits).
pub(super) fn value(raw: &RawValue) -> Option<Value> {
    Value::deserialize(raw).ok()
}

/// A Smartsheet error code, as a number or as text. Smartsheet's codes begin at 1001; a smaller
/// number is ignored, since it only repeats the HTTP status or is not Smartsheet's.
pub(super) fn error_code(raw: &RawValue) -> Option<i64> {
    let code: i64 = match value(raw)? {
        Value::Number(number) => match number.as_i64() {
            Some(code) => code,
            None => number.to_string().strip_suffix(".0")?.parse().ok()?,
        },
        Value::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    (code > 1000).then_some(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code_of(body: &str) -> Option<i64> {
        let [code] = pick(body.as_bytes(), ["errorCode"])?;
        code.and_then(error_code)
    }

    #[test]
    fn an_error_code_is_a_number_or_the_text_of_one() {
        for (body, code) in [
            (r#"{"errorCode":1003}"#, Some(1003)),
            (r#"{"errorCode":"1003"}"#, Some(1003)),
            (r#"{"errorCode":1003.0}"#, Some(1003)),
            (r#"{"errorCode":1003.5}"#, None),
            (r#"{"errorCode":" 1003 ","errorCode":null}"#, Some(1003)),
            (
                r#"{"error\u0043ode":1003,"\ud800":"\udfff","x":1e999}"#,
                Some(1003),
            ),
            (r#"{"errorCode":1002,"errorCode":1003}"#, Some(1003)),
            (r#"{"errorCode":403}"#, None),
            (r#"{"errorCode":0}"#, None),
            (r#"{"errorCode":-1003}"#, None),
            (r#"{"errorCode":"forbidden"}"#, None),
            (r#"{"errorCode":"\ud800"}"#, None),
            (r#"{"errorCode":null}"#, None),
            (r#"{"errorCode":[1003]}"#, None),
            (r#"{"errorCode":true}"#, None),
            (r#"{"message":"Forbidden"}"#, None),
            (r#"{"errorCode":1003"#, None),
            (r#"{"errorCode":1003} trailing"#, None),
            ("[1003]", None),
            ("<html>1003</html>", None),
            ("", None),
        ] {
            assert_eq!(code_of(body), code, "{body}");
        }
    }
}
