//! Smartsheet's JSON, unmapped: this module does not know the meaning of a field.
//!
//! Parsing is lenient, since Smartsheet may add fields and values at any time, and any field may
//! hold anything. A field is a [`Slot`]: absent (or null), blank (an empty text), unreadable (a
//! type that it should never have), or given. One odd field therefore never hides the rest of its
//! record; [`super::map`] decides its effect. A list keeps its rows unparsed, so that one bad row
//! does not lose the page.

use std::{fmt, marker::PhantomData};

use jiff::Timestamp;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::fields;

/// A field of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Slot<T> {
    #[default]
    Absent,
    /// An empty text, which is how a profile writes an unset field.
    Blank,
    Unreadable,
    Given(T),
}

impl<'de, T: FromJson> Deserialize<'de> for Slot<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Parsed from its text: a number that fits no type would fail the whole record.
        let value = <&RawValue>::deserialize(deserializer)?.get();
        Ok(match value {
            "null" => Self::Absent,
            r#""""# => T::from_empty_text(),
            value => T::from_json(value).map_or(Self::Unreadable, Self::Given),
        })
    }
}

/// A type that a field can be parsed to.
pub(super) trait FromJson: Sized {
    /// None if the value does not fit this type.
    fn from_json(value: &str) -> Option<Self>;

    fn from_empty_text() -> Slot<Self> {
        Slot::Unreadable
    }
}

fn text(value: &str) -> Option<String> {
    value
        .starts_with('"')
        .then(|| serde_json::from_str(value).ok())
        .flatten()
}

/// An id: a number or its digits as text. Ids have up to 17 digits, so they are parsed as integers,
/// never as floats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WireId(pub(super) u64);

impl FromJson for WireId {
    fn from_json(value: &str) -> Option<Self> {
        let quoted = text(value);
        let digits = quoted.as_deref().unwrap_or(value);
        // `parse` alone would accept a plus sign.
        digits
            .bytes()
            .all(|byte| byte.is_ascii_digit())
            .then(|| digits.parse().ok().map(Self))
            .flatten()
    }
}

impl FromJson for bool {
    fn from_json(value: &str) -> Option<Self> {
        value.parse().ok()
    }
}

impl FromJson for Box<str> {
    fn from_json(value: &str) -> Option<Self> {
        text(value).map(Self::from)
    }

    fn from_empty_text() -> Slot<Self> {
        Slot::Blank
    }
}

/// A time: ISO 8601 in UTC or with an offset, with up to nine digits of a second, or milliseconds
/// since the epoch.
impl FromJson for Timestamp {
    fn from_json(value: &str) -> Option<Self> {
        match text(value) {
            Some(text) => text.parse().ok(),
            None => Self::from_millisecond(value.parse().ok()?).ok(),
        }
    }

    fn from_empty_text() -> Slot<Self> {
        Slot::Blank
    }
}

impl FromJson for ProfileImage {
    fn from_json(value: &str) -> Option<Self> {
        object(value)
    }
}

impl FromJson for WireOrganization {
    fn from_json(value: &str) -> Option<Self> {
        object(value)
    }
}

/// Parses an object; None for any other value. (A derived deserializer would also accept an array
/// of the fields; Smartsheet never means that.)
///
/// A name that occurs twice with two values makes the field unreadable.
pub(super) fn object<T: DeserializeOwned>(value: &str) -> Option<T> {
    if !value.starts_with('{') {
        return None;
    }
    serde_json::from_str(value)
        .or_else(|_| serde_json::from_str(&with_unique_names(value)?))
        .ok()
}

/// The same object with each name once. A name with several values gets `[]`, which every field
/// type refuses.
fn with_unique_names(object: &str) -> serde_json::Result<String> {
    struct NamedFields<'a>(Vec<(String, &'a str)>);

    impl<'de: 'a, 'a> Deserialize<'de> for NamedFields<'a> {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct EachOnce<'a>(PhantomData<&'a str>);

            impl<'de: 'a, 'a> Visitor<'de> for EachOnce<'a> {
                type Value = NamedFields<'a>;

                fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str("an object")
                }

                fn visit_map<A: MapAccess<'de>>(
                    self,
                    mut map: A,
                ) -> Result<NamedFields<'a>, A::Error> {
                    let mut members: Vec<(String, &'a str)> = Vec::new();
                    while let Some((name, value)) = map.next_entry::<String, &'a RawValue>()? {
                        match members.iter_mut().find(|(known, _)| *known == name) {
                            Some((_, known)) if *known == value.get() => {}
                            Some((_, known)) => *known = "[]",
                            None => members.push((name, value.get())),
                        }
                    }
                    Ok(NamedFields(members))
                }
            }

            deserializer.deserialize_map(EachOnce(PhantomData))
        }
    }

    let NamedFields(members) = serde_json::from_str(object)?;
    let members = members
        .into_iter()
        .map(|(name, value)| Ok(format!("{}:{value}", serde_json::to_string(&name)?)));
    let members: Vec<_> = members.collect::<serde_json::Result<_>>()?;
    Ok(format!("{{{}}}", members.join(",")))
}

/// An unparsed row of a list; `T` is its record type.
#[derive(Debug)]
pub(super) struct WireRow<'a, T>(&'a RawValue, PhantomData<T>);

impl<T: DeserializeOwned> WireRow<'_, T> {
    /// None if the row is not an object.
    pub(super) fn read(&self) -> Option<T> {
        object(self.0.get())
    }
}

impl<'de: 'a, 'a, T> Deserialize<'de> for WireRow<'a, T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&RawValue>::deserialize(deserializer).map(|row| Self(row, PhantomData))
    }
}

/// A page of `GET /users` or `GET /groups`. A total of -1 means that it is unknown.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct WireListPage<'a, T> {
    #[serde(default, deserialize_with = "count")]
    pub(super) page_number: Option<i64>,
    #[serde(default, deserialize_with = "count")]
    pub(super) page_size: Option<i64>,
    #[serde(default, deserialize_with = "count")]
    pub(super) total_pages: Option<i64>,
    #[serde(default, deserialize_with = "count")]
    pub(super) total_count: Option<i64>,
    #[serde(borrow, bound(deserialize = "'de: 'a"))]
    pub(super) data: Vec<WireRow<'a, T>>,
}

/// A whole number, or its text; None for anything else.
fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    let value = <&RawValue>::deserialize(deserializer)?.get();
    let digits = match serde_json::from_str::<String>(value) {
        Ok(text) => text.trim().to_owned(),
        Err(_) => value.to_owned(),
    };
    // Some senders write whole numbers as floats.
    let whole = digits.strip_suffix(".0").unwrap_or(&digits);
    Ok(whole.parse().ok())
}

/// A row of `GET /users`, or the reply of `GET /users/{id}`. The row lacks `account`; the reply
/// lacks `isInternal` and the seat.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
pub(super) struct WireUser {
    pub(super) id: Slot<WireId>,
    pub(super) email: Slot<Box<str>>,
    pub(super) name: Slot<Box<str>>,
    pub(super) first_name: Slot<Box<str>>,
    pub(super) last_name: Slot<Box<str>>,
    pub(super) profile_image: Slot<ProfileImage>,
    pub(super) admin: Slot<bool>,
    pub(super) group_admin: Slot<bool>,
    pub(super) licensed_sheet_creator: Slot<bool>,
    pub(super) resource_viewer: Slot<bool>,
    pub(super) status: Slot<Box<str>>,
    pub(super) is_internal: Slot<bool>,
    pub(super) seat_type: Slot<Box<str>>,
    pub(super) seat_type_last_changed_at: Slot<Timestamp>,
    pub(super) provisional_expiration_date: Slot<Timestamp>,
    pub(super) last_login: Slot<Timestamp>,
    pub(super) account: Slot<WireOrganization>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ProfileImage {
    pub(super) image_id: Slot<Box<str>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct WireOrganization {
    pub(super) id: Slot<WireId>,
    pub(super) name: Slot<Box<str>>,
}

/// A row of `GET /groups`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct WireGroup {
    pub(super) id: Slot<WireId>,
    pub(super) name: Slot<Box<str>>,
    pub(super) description: Slot<Box<str>>,
    /// The owner's e-mail address.
    pub(super) owner: Slot<Box<str>>,
    pub(super) owner_id: Slot<WireId>,
    pub(super) created_at: Slot<Timestamp>,
    pub(super) modified_at: Slot<Timestamp>,
}

/// The members in the reply of `GET /groups/{id}`; its other fields are a [`WireGroup`].
#[derive(Debug, Deserialize)]
pub(super) struct Members<'a> {
    #[serde(borrow)]
    pub(super) members: Vec<WireRow<'a, WireMember>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct WireMember {
    pub(super) id: Slot<WireId>,
    pub(super) email: Slot<Box<str>>,
    pub(super) name: Slot<Box<str>>,
    pub(super) first_name: Slot<Box<str>>,
    pub(super) last_name: Slot<Box<str>>,
}

/// A page of `GET /users/{id}/plans`. The list ends where `lastKey` is absent, not where rows end.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PlanPage<'a> {
    pub(super) last_key: Option<String>,
    #[serde(borrow)]
    pub(super) data: Vec<WireRow<'a, WirePlan>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct WirePlan {
    pub(super) plan_id: Slot<WireId>,
    pub(super) is_internal: Slot<bool>,
}

/// The fields of an error's body that are safe to repeat. Its `message` may name people.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct WireError {
    pub(super) error_code: Option<i64>,
    pub(super) ref_id: Option<String>,
}

impl WireError {
    /// Empty if the body is not an error of Smartsheet's.
    pub(super) fn read(body: &[u8]) -> Self {
        let [code, reference] = fields::pick(body, ["errorCode", "refId"]).unwrap_or_default();
        Self {
            error_code: code.and_then(fields::error_code),
            ref_id: reference.and_then(|raw| serde_json::from_str(raw.get()).ok()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn slot<T: FromJson>(value: Value) -> Slot<T> {
        serde_json::from_str(&value.to_string()).unwrap()
    }

    #[test]
    fn ids_are_integers_of_any_size_or_their_digits() {
        assert_eq!(
            slot(json!(9_007_199_254_740_993_u64)),
            Slot::Given(WireId(9_007_199_254_740_993))
        );
        assert_eq!(
            slot(json!("48569348493401200")),
            Slot::Given(WireId(48_569_348_493_401_200))
        );
        assert_eq!(slot::<WireId>(json!(null)), Slot::Absent);
        for unreadable in [
            json!(1.5),
            json!(1e17),
            json!(-3),
            json!(""),
            json!("1x"),
            json!("+1"),
            json!([1]),
        ] {
            let read = slot::<WireId>(unreadable.clone());
            assert_eq!(read, Slot::Unreadable, "{unreadable}");
        }
    }

    #[test]
    fn counts_come_in_digits_and_in_text() {
        let total = |value: &str| {
            let page = format!(r#"{{"totalCount":{value},"data":[]}}"#);
            let page: WireListPage<'_, WireUser> = serde_json::from_str(&page).unwrap();
            page.total_count
        };
        for count in ["250", r#""250""#, r#"" 250 ""#, "250.0", r#""250.0""#] {
            assert_eq!(total(count), Some(250), "{count}");
        }
        assert_eq!(total(r#""-1""#), Some(-1));
        for none in [
            "null",
            r#""many""#,
            r#""""#,
            "2.5",
            "1e999",
            "[1]",
            "{}",
            "true",
        ] {
            assert_eq!(total(none), None, "{none}");
        }
    }

    #[test]
    fn moments_come_in_text_and_in_milliseconds() {
        let at = |text: &str| Slot::Given(text.parse::<Timestamp>().unwrap());
        assert_eq!(
            slot(json!("2026-11-20T07:41:09Z")),
            at("2026-11-20T07:41:09Z")
        );
        assert_eq!(
            slot(json!("2026-02-03T09:15:22.410233123Z")),
            at("2026-02-03T09:15:22.410233123Z")
        );
        assert_eq!(
            slot(json!("2026-02-03T09:15:22+02:00")),
            at("2026-02-03T07:15:22Z")
        );
        assert_eq!(slot(json!(1_000)), at("1970-01-01T00:00:01Z"));
        assert_eq!(slot::<Timestamp>(json!("")), Slot::Blank);
        for unreadable in [
            json!("Never"),
            json!("2026-11-20T07:41:09"),
            json!("2026-11-20"),
            json!("1790000000000"),
            json!("9999-12-31T23:59:59Z"),
            json!(true),
            json!(1.5),
            json!(i64::MAX),
        ] {
            let read = slot::<Timestamp>(unreadable.clone());
            assert_eq!(read, Slot::Unreadable, "{unreadable}");
        }
    }

    #[test]
    fn an_empty_text_is_blank_and_a_number_is_no_text() {
        assert_eq!(slot::<Box<str>>(json!("")), Slot::Blank);
        assert_eq!(slot(json!("Ana")), Slot::Given(Box::<str>::from("Ana")));
        assert_eq!(slot::<Box<str>>(json!(7)), Slot::Unreadable);
    }

    #[test]
    fn a_number_that_no_type_holds_costs_only_its_field() {
        let user: WireUser =
            object(r#"{"id":1,"lastLogin":1e400,"sheetCount":-1e999,"name":"Ana"}"#).unwrap();
        assert_eq!(user.id, Slot::Given(WireId(1)));
        assert_eq!(user.last_login, Slot::Unreadable);
        assert_eq!(user.name, Slot::Given("Ana".into()));
    }

    #[test]
    fn a_field_given_twice_is_read_only_if_both_agree() {
        let user: WireUser =
            object(r#"{"id":1,"name":"Ana","name":"Bo","status":"ACTIVE","status":"ACTIVE"}"#)
                .unwrap();
        assert_eq!(user.id, Slot::Given(WireId(1)));
        assert_eq!(user.name, Slot::Unreadable);
        assert_eq!(user.status, Slot::Given("ACTIVE".into()));
        let user: WireUser = object(r#"{"id":1,"id":2,"x\"y":1,"x\"y":2}"#).unwrap();
        assert_eq!(user.id, Slot::Unreadable);
    }
}
