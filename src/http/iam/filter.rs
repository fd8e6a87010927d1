//! The filters of the lists, parsed strictly: a value that makes no sense is refused, so that it
//! never selects everyone or nobody.

use jiff::Timestamp;
use utoipa::IntoParams;

use crate::{
    directory::{Filter, Resource},
    error::Result,
    http::{
        query::{Query, invalid},
        timestamp::moment,
    },
    model::schema::{SeatType, UserStatus},
};

/// Filters of all lists.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListFilters {
    /// Only records whose `updated_at` is later than this time: `YYYY-MM-DDTHH:MM:SS`, optionally
    /// with a fraction, and `Z` or an offset.
    #[param(rename = "filter[updated_after]", required = false)]
    pub updated_after: Option<Timestamp>,
    /// The former name of `filter[updated_after]`. Both at once are refused.
    #[deprecated]
    #[param(rename = "updated_after", required = false)]
    pub plain_updated_after: Option<Timestamp>,
}

/// Filters of the list of users, in addition to those of all lists. A user must pass every filter
/// given. A user whose field is null does not pass a filter on that field.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct UserFilters {
    /// Only users with exactly this e-mail address. Only A to Z are case-insensitive.
    #[param(
        rename = "filter[email]",
        required = false,
        min_length = 1,
        pattern = r"^[^\s\x00-\x1f\x7f-\x9f]+$"
    )]
    pub email: Option<String>,
    /// Only users with this status.
    #[param(rename = "filter[status]", required = false, inline)]
    pub status: Option<UserStatus>,
    /// Only users with the role of this id, unified or remote. Nobody if there is no such role.
    #[param(
        rename = "filter[role]",
        required = false,
        min_length = 1,
        pattern = r"^[^\s\x00-\x1f\x7f-\x9f]+$"
    )]
    pub role: Option<String>,
    /// Only members of the group with this id, unified or remote. Nobody if there is no such group.
    #[param(
        rename = "filter[group]",
        required = false,
        min_length = 1,
        pattern = r"^[^\s\x00-\x1f\x7f-\x9f]+$"
    )]
    pub group: Option<String>,
    /// `true`: only guests and external members of groups. `false`: only the other users.
    #[param(rename = "filter[is_external]", required = false)]
    pub is_external: Option<bool>,
    /// Only users with a seat of this type.
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

/// Takes the filters of this list. Any other filter stays in the query, and [`Query::finish`]
/// refuses it.
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

/// Takes an e-mail address or an id. Neither contains a space: a space was most likely a plus sign
/// that the client did not encode, and the filter would match nobody.
fn take_text(query: &mut Query<'_>, name: &'static str) -> Result<Option<Box<str>>> {
    let Some(text) = query.take(name) else {
        return Ok(None);
    };
    if text.is_empty() {
        return Err(invalid(format!("{name} must not be empty")));
    }
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(invalid(format!(
            "{name} must be without spaces and control characters; in a query + means a space, and a \
             plus sign is %2B"
        )));
    }
    Ok(Some(text.into()))
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
             an offset as +HH:MM (in a query + means a space: write %2BHH:MM)"
        ))
    })
}
