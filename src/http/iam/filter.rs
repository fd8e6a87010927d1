//! The filters of the lists, read strictly: a value that cannot be meant is refused, and never
//! taken to mean everybody, or nobody.

use jiff::Timestamp;
use utoipa::IntoParams;

use crate::{
    directory::{Filter, Resource},
    error::Result,
    http::query::{Query, invalid},
    model::schema::{SeatType, UserStatus},
};

/// The filters of every list.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListFilters {
    /// Only records whose `updated_at` is after this moment: `YYYY-MM-DDTHH:MM:SS`, a fraction if need be, and `Z` or an offset.
    #[param(rename = "filter[updated_after]", required = false)]
    pub updated_after: Option<Timestamp>,
    /// Use `filter[updated_after]`; both at once are refused.
    #[deprecated]
    #[param(rename = "updated_after", required = false)]
    pub plain_updated_after: Option<Timestamp>,
}

/// The filters of users beside those of every list. A user must pass all of them; one in whom
/// the field is null does not.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct UserFilters {
    /// Only users with this whole address; A to Z count as a to z.
    #[param(rename = "filter[email]", required = false, min_length = 1)]
    pub email: Option<String>,
    /// Only users with this status.
    #[param(rename = "filter[status]", required = false, inline)]
    pub status: Option<UserStatus>,
    /// Only users who hold the role with this id, unified or remote; nobody if there is no such role.
    #[param(rename = "filter[role]", required = false, min_length = 1)]
    pub role: Option<String>,
    /// Only users in the group with this id, unified or remote; nobody if there is no such group.
    #[param(rename = "filter[group]", required = false, min_length = 1)]
    pub group: Option<String>,
    /// Only guests and outsiders, or only others.
    #[param(rename = "filter[is_external]", required = false)]
    pub is_external: Option<bool>,
    /// Only users in a seat of this kind.
    #[param(rename = "filter[seat]", required = false, inline)]
    pub seat: Option<SeatType>,
}

const STATUSES: [(&str, UserStatus); 4] = [
    ("enabled", UserStatus::Enabled),
    ("disabled", UserStatus::Disabled),
    ("pending", UserStatus::Pending),
    ("unmapped_value", UserStatus::UnmappedValue),
];

const SEATS: [(&str, SeatType); 5] = [
    ("member", SeatType::Member),
    ("provisional_member", SeatType::ProvisionalMember),
    ("guest", SeatType::Guest),
    ("contributor", SeatType::Contributor),
    ("unmapped_value", SeatType::UnmappedValue),
];

/// Takes the filters of this list; whatever else is called one stays, and is refused by name.
pub fn take(resource: Resource, query: &mut Query<'_>) -> Result<Filter> {
    let mut filter = Filter {
        updated_after: take_moment(query, "filter[updated_after]")?,
        ..Filter::default()
    };
    if let Some(moment) = take_moment(query, "updated_after")?
        && filter.updated_after.replace(moment).is_some()
    {
        return Err(invalid(
            "filter[updated_after] and updated_after are the same filter: give one of them",
        ));
    }
    if resource == Resource::Users {
        filter.email = take_text(query, "filter[email]")?;
        filter.status = take_word(query, "filter[status]", &STATUSES)?;
        filter.role = take_text(query, "filter[role]")?;
        filter.group = take_text(query, "filter[group]")?;
        filter.is_external = query.take_bool("filter[is_external]")?;
        filter.seat = take_word(query, "filter[seat]", &SEATS)?;
    }
    Ok(filter)
}

fn take_text(query: &mut Query<'_>, name: &'static str) -> Result<Option<Box<str>>> {
    match query.take(name) {
        Some(text) if text.is_empty() => Err(invalid(format!("{name} must not be empty"))),
        text => Ok(text.map(Box::from)),
    }
}

fn take_word<T: Copy>(
    query: &mut Query<'_>,
    name: &'static str,
    words: &[(&str, T)],
) -> Result<Option<T>> {
    let Some(asked) = query.take(name) else {
        return Ok(None);
    };
    match words.iter().find(|(word, _)| *word == asked) {
        Some((_, meaning)) => Ok(Some(*meaning)),
        None => {
            let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            Err(invalid(format!(
                "{name} must be one of: {}",
                words.join(", ")
            )))
        }
    }
}

fn take_moment(query: &mut Query<'_>, name: &'static str) -> Result<Option<Timestamp>> {
    let Some(text) = query.take(name) else {
        return Ok(None);
    };
    moment(&text).map(Some).ok_or_else(|| {
        invalid(format!(
            "{name} must be a moment as YYYY-MM-DDTHH:MM:SS, with a fraction or without, and then Z or \
             an offset as +HH:MM (in a query, %2BHH:MM)"
        ))
    })
}

/// `YYYY-MM-DDTHH:MM:SS[.frac](Z|+hh:mm)`, in no other spelling: RFC 3339 less its options, as
/// the contract has it everywhere.
fn moment(text: &str) -> Option<Timestamp> {
    let (date_and_time, rest) = text.split_at_checked("YYYY-MM-DDTHH:MM:SS".len())?;
    let offset = match rest.strip_prefix('.') {
        None => rest,
        Some(fraction) => Some(fraction.trim_start_matches(|c: char| c.is_ascii_digit()))
            .filter(|offset| offset.len() < fraction.len())?,
    };
    let is_offset = offset == "Z" || has_form(offset, "+00:00") || has_form(offset, "-00:00");
    (has_form(date_and_time, "0000-00-00T00:00:00") && is_offset)
        .then(|| text.parse().ok())
        .flatten()
}

/// Whether `text` is `form` with other digits where `form` has a zero.
fn has_form(text: &str, form: &str) -> bool {
    text.len() == form.len()
        && text.bytes().zip(form.bytes()).all(|(byte, form)| {
            if form == b'0' {
                byte.is_ascii_digit()
            } else {
                byte == form
            }
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_moment_is_taken_in_the_contracts_form_alone() {
        let at = |text: &str| moment(text).map(|moment| moment.to_string());
        for (text, meant) in [
            ("2020-01-01T00:00:00Z", "2020-01-01T00:00:00Z"),
            ("2020-01-01T00:00:00.000Z", "2020-01-01T00:00:00Z"),
            (
                "2020-02-29T23:59:59.123456789Z",
                "2020-02-29T23:59:59.123456789Z",
            ),
            ("2020-01-01T02:00:00+02:00", "2020-01-01T00:00:00Z"),
            ("2019-12-31T18:30:00.5-05:30", "2020-01-01T00:00:00.5Z"),
        ] {
            assert_eq!(at(text).as_deref(), Some(meant), "{text}");
        }
        for text in [
            "",
            "2020-01-01",
            "2020-01-01T00:00:00",
            "2020-01-01 00:00:00Z",
            "2020-01-01t00:00:00Z",
            "2020-01-01T00:00:00z",
            "2020-01-01T00:00:00.Z",
            "2020-01-01T00:00:00,5Z",
            "2020-01-01T00:00:00 02:00",
            "2020-01-01T00:00:00+0200",
            "2020-01-01T00:00:00+02",
            "2020-01-01T00:00:00Z[UTC]",
            "2020-01-01T00:00Z",
            "2020-02-30T00:00:00Z",
            "2020-13-01T00:00:00Z",
            "2020-01-01T25:00:00Z",
            "20200101T000000Z",
            "+002020-01-01T00:00:00Z",
            "1577836800",
            "2020-01-01T00:00:0é",
            " 2020-01-01T00:00:00Z",
        ] {
            assert_eq!(at(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_moment_that_we_show_is_one_that_we_take(millis in -62_000_000_000_000_i64..250_000_000_000_000) {
            let shown = Timestamp::from_millisecond(millis).unwrap();
            prop_assert_eq!(moment(&shown.to_string()), Some(shown));
        }

        #[test]
        fn no_text_panics(text in ".*") {
            let _ = moment(&text);
        }
    }
}
