//! Smartsheet's JSON as it comes, and no more: nothing here knows what a field means.
//!
//! Lenient, since new fields and words may appear at any time. A field is a [`Slot`]: absent
//! (null counts as absent), unusable (of a type that it should never have), or given. So one
//! odd field never hides the rest of its record, and [`super::map`] decides what it costs. A
//! list keeps its rows unread for the same reason: one bad row must not take its page along.

use std::marker::PhantomData;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, value::RawValue};

/// A field of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Slot<T> {
    #[default]
    Absent,
    Unusable,
    Given(T),
}

impl<'de, T: FromJson> Deserialize<'de> for Slot<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        Ok(if value.is_null() {
            Self::Absent
        } else {
            T::from_json(value)
        })
    }
}

/// What a field of this type may look like; anything else is unusable.
pub(super) trait FromJson: Sized {
    fn from_json(value: Value) -> Slot<Self>;
}

/// A number or its digits: ids reach 17 digits and are read as integers, never as floats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Id(pub(super) u64);

impl FromJson for Id {
    fn from_json(value: Value) -> Slot<Self> {
        let id = match &value {
            Value::Number(number) => number.as_u64(),
            Value::String(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().ok()
            }
            _ => None,
        };
        id.map_or(Slot::Unusable, |id| Slot::Given(Self(id)))
    }
}

impl FromJson for bool {
    fn from_json(value: Value) -> Slot<Self> {
        value.as_bool().map_or(Slot::Unusable, Slot::Given)
    }
}

/// A text; an empty one counts as absent, as a profile spells what is not set.
impl FromJson for Box<str> {
    fn from_json(value: Value) -> Slot<Self> {
        match value {
            Value::String(text) if text.is_empty() => Slot::Absent,
            Value::String(text) => Slot::Given(text.into()),
            _ => Slot::Unusable,
        }
    }
}

/// A moment: ISO 8601 with up to nine digits of a second, or milliseconds since the epoch.
impl FromJson for Timestamp {
    fn from_json(value: Value) -> Slot<Self> {
        let moment = match &value {
            Value::String(text) if text.is_empty() => return Slot::Absent,
            Value::String(text) => text.parse().ok(),
            Value::Number(millis) => millis
                .as_i64()
                .and_then(|millis| Self::from_millisecond(millis).ok()),
            _ => None,
        };
        moment.map_or(Slot::Unusable, Slot::Given)
    }
}

impl FromJson for ProfileImage {
    fn from_json(value: Value) -> Slot<Self> {
        object(value)
    }
}

impl FromJson for Organisation {
    fn from_json(value: Value) -> Slot<Self> {
        object(value)
    }
}

/// An object within a record. (Derived readers take an array for an object, field by field;
/// Smartsheet never means that.)
fn object<T: for<'de> Deserialize<'de>>(value: Value) -> Slot<T> {
    if !value.is_object() {
        return Slot::Unusable;
    }
    serde_json::from_value(value).map_or(Slot::Unusable, Slot::Given)
}

/// One row of a list, unread; `T` is what it should hold.
#[derive(Debug)]
pub(super) struct Row<'a, T>(&'a RawValue, PhantomData<T>);

impl<'a, T: Deserialize<'a>> Row<'a, T> {
    /// None if the row is no object, or names a field twice.
    pub(super) fn read(&self) -> Option<T> {
        let text = self.0.get();
        text.starts_with('{')
            .then(|| serde_json::from_str(text).ok())
            .flatten()
    }
}

impl<'de: 'a, 'a, T> Deserialize<'de> for Row<'a, T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&RawValue>::deserialize(deserializer).map(|row| Self(row, PhantomData))
    }
}

/// A page of `GET /users` or `GET /groups`. Totals of -1 say that none are known.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListPage<'a, T> {
    pub(super) page_number: Option<u64>,
    pub(super) total_pages: i64,
    pub(super) total_count: i64,
    #[serde(borrow, bound(deserialize = "'de: 'a"))]
    pub(super) data: Vec<Row<'a, T>>,
}

/// A row of `GET /users`, or the answer of `GET /users/{id}`: the one lacks `account`, the
/// other `isInternal` and the seat.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
pub(super) struct User {
    pub(super) id: Slot<Id>,
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
    pub(super) account: Slot<Organisation>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ProfileImage {
    pub(super) image_id: Slot<Box<str>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Organisation {
    pub(super) id: Slot<Id>,
    pub(super) name: Slot<Box<str>>,
}

/// A row of `GET /groups`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Group {
    pub(super) id: Slot<Id>,
    pub(super) name: Slot<Box<str>>,
    pub(super) description: Slot<Box<str>>,
    /// The owner's e-mail address.
    pub(super) owner: Slot<Box<str>>,
    pub(super) owner_id: Slot<Id>,
    pub(super) created_at: Slot<Timestamp>,
    pub(super) modified_at: Slot<Timestamp>,
}

/// The members in the answer of `GET /groups/{id}`; the rest of it is a [`Group`].
#[derive(Debug, Deserialize)]
pub(super) struct Members<'a> {
    #[serde(borrow)]
    pub(super) members: Vec<Row<'a, Member>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Member {
    pub(super) id: Slot<Id>,
    pub(super) email: Slot<Box<str>>,
    pub(super) name: Slot<Box<str>>,
    pub(super) first_name: Slot<Box<str>>,
    pub(super) last_name: Slot<Box<str>>,
}

/// A page of `GET /users/{id}/plans`. It ends where `lastKey` does, not where rows do.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PlanPage<'a> {
    pub(super) last_key: Option<String>,
    #[serde(borrow)]
    pub(super) data: Vec<Row<'a, Plan>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Plan {
    pub(super) plan_id: Slot<Id>,
    pub(super) is_internal: Slot<bool>,
}

/// An error's body, as far as it is safe to repeat: its `message` may name people.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ErrorBody {
    pub(super) error_code: Option<i64>,
    pub(super) ref_id: Option<String>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn slot<T: FromJson>(value: Value) -> Slot<T> {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn ids_are_integers_of_any_size_or_their_digits() {
        assert_eq!(
            slot(json!(9_007_199_254_740_993_u64)),
            Slot::Given(Id(9_007_199_254_740_993))
        );
        assert_eq!(
            slot(json!("48569348493401200")),
            Slot::Given(Id(48_569_348_493_401_200))
        );
        assert_eq!(slot::<Id>(json!(null)), Slot::Absent);
        for unusable in [
            json!(1.5),
            json!(1e17),
            json!(-3),
            json!(""),
            json!("1x"),
            json!([1]),
        ] {
            assert_eq!(slot::<Id>(unusable.clone()), Slot::Unusable, "{unusable}");
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
        assert_eq!(slot(json!(1_000)), at("1970-01-01T00:00:01Z"));
        assert_eq!(slot::<Timestamp>(json!("")), Slot::Absent);
        for unusable in [json!("yesterday"), json!(true), json!(1.5), json!(i64::MAX)] {
            assert_eq!(
                slot::<Timestamp>(unusable.clone()),
                Slot::Unusable,
                "{unusable}"
            );
        }
    }

    #[test]
    fn a_text_that_is_empty_is_absent() {
        assert_eq!(slot::<Box<str>>(json!("")), Slot::Absent);
        assert_eq!(slot(json!("Ana")), Slot::Given(Box::<str>::from("Ana")));
        assert_eq!(slot::<Box<str>>(json!(7)), Slot::Unusable);
    }
}
