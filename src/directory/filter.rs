//! Filters of lists, and the rows that match them.
//!
//! A filter makes one pass over the rows, of some hundred bytes each. Status, roles and seat are
//! checked once per shared profile, an address is compared without building it, and a filter by
//! group checks only its members. [`Matches`] keeps the result at four bytes a record, so that all
//! pages of a list share one pass.

use jiff::Timestamp;
use serde::Serialize;

use crate::model::schema::{SeatType, UserField, UserStatus, Warning};

use super::{
    Directory, Resource,
    record::{Email, Millis, SharedFields, Visibility},
    text::size,
};

/// The conditions that a record must meet to be in a list, all of them. The default matches every
/// record.
///
/// A null field matches no condition. Only `updated_after` applies to roles and groups; the other
/// conditions are for users.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize)]
pub struct Filter {
    /// Strictly later than this.
    pub updated_after: Option<Timestamp>,
    /// The whole address, compared without case for A to Z only.
    pub email: Option<Box<str>>,
    pub status: Option<UserStatus>,
    /// A role that the user holds, by unified or remote id.
    pub role: Option<Box<str>>,
    /// A group that the user is in, by unified or remote id.
    pub group: Option<Box<str>>,
    pub is_external: Option<bool>,
    pub seat: Option<SeatType>,
}

impl Filter {
    /// Whether the filter has no condition.
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }

    /// The first filtered field that the credential cannot see, with the reason. An empty list
    /// would be a wrong response to such a filter.
    pub fn hidden_from(&self, sees: Visibility) -> Option<Warning> {
        let is_asked_for = |field| match field {
            UserField::Status => self.status.is_some(),
            UserField::Roles => self.role.is_some(),
            UserField::Groups => self.group.is_some(),
            UserField::Seat => self.seat.is_some(),
            UserField::IsExternal => self.is_external.is_some(),
            UserField::LastLoginAt
            | UserField::PrimaryEmailAddress
            | UserField::Name
            | UserField::FirstName
            | UserField::LastName
            | UserField::Avatar
            | UserField::Listed => false,
        };
        sees.hidden_fields()
            .into_iter()
            .find(|hidden| is_asked_for(hidden.field))
    }

    /// The bytes of this filter's strings.
    pub fn text_size(&self) -> usize {
        [&self.email, &self.role, &self.group]
            .into_iter()
            .flatten()
            .map(|text| text.len())
            .sum()
    }

    fn takes_time(&self, updated_at: Millis) -> bool {
        self.updated_after
            .is_none_or(|moment| updated_at.timestamp() > Some(moment))
    }

    /// Compares without case for ASCII only. Other letters that look alike may belong to two
    /// different users.
    fn takes_email(&self, email: Option<Email<'_>>) -> bool {
        let Some(wanted) = &self.email else {
            return true;
        };
        email.is_some_and(|Email { local, domain }| {
            let domain = domain.unwrap_or_default();
            wanted.as_bytes().split_at_checked(local.len()).is_some_and(
                |(wanted_local, wanted_domain)| {
                    wanted_domain.eq_ignore_ascii_case(domain.as_bytes())
                        && wanted_local.eq_ignore_ascii_case(local.as_bytes())
                },
            )
        })
    }

    /// Checks status, seat, `is_external` and role; `role` is a remote id.
    fn takes_profile(&self, profile: &SharedFields, role: Option<&str>) -> bool {
        let status = profile.status.as_ref().map(|status| status.value);
        let seat = profile.seat.as_ref().map(|seat| seat.value);
        let roles = profile.roles.as_deref().unwrap_or_default();
        (self.status.is_none() || self.status == status)
            && (self.seat.is_none() || self.seat == seat)
            && (self.is_external.is_none() || self.is_external == profile.is_external)
            && role.is_none_or(|role| roles.iter().any(|word| **word == *role))
    }
}

/// The records of one list that match a filter, as rows in ascending order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matches(MatchedRows);

#[derive(Debug, Clone, PartialEq, Eq)]
enum MatchedRows {
    /// All records, this many.
    All(usize),
    Some(Box<[u32]>),
}

impl Matches {
    pub fn len(&self) -> usize {
        match &self.0 {
            MatchedRows::All(len) => *len,
            MatchedRows::Some(places) => places.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The row of match number `at`.
    pub(super) fn place(&self, at: usize) -> usize {
        match &self.0 {
            MatchedRows::All(_) => at,
            MatchedRows::Some(places) => places[at] as usize,
        }
    }

    /// The number of the first match at row `place` or after it.
    pub(super) fn first_from(&self, place: usize) -> usize {
        match &self.0 {
            MatchedRows::All(_) => place,
            MatchedRows::Some(places) => places.partition_point(|kept| (*kept as usize) < place),
        }
    }

    /// The bytes that this occupies, for a cache that is bounded by size.
    pub fn approximate_size(&self) -> usize {
        match &self.0 {
            MatchedRows::All(_) => 0,
            MatchedRows::Some(places) => size_of_val(&**places),
        }
    }
}

impl Directory {
    /// The records that match `filter`. A role or group that this directory does not know matches
    /// no user.
    pub fn matches(&self, resource: Resource, filter: &Filter) -> Matches {
        if filter.is_all() {
            return Matches(MatchedRows::All(self.len(resource)));
        }
        let places = 0..size(self.len(resource));
        let kept = match resource {
            Resource::Users => self.users_left_by(filter).unwrap_or_default(),
            Resource::Groups => places
                .filter(|place| filter.takes_time(self.group_updated_at(*place as usize)))
                .collect(),
            // Roles have no times, so `updated_after` matches none of them.
            Resource::Roles => places.filter(|_| filter.takes_time(Millis::NONE)).collect(),
        };
        Matches(MatchedRows::Some(kept.into_boxed_slice()))
    }

    /// None if the filter names a role or group that does not exist.
    fn users_left_by(&self, filter: &Filter) -> Option<Vec<u32>> {
        let columns = &self.columns;
        let place_of = |resource, id: &Option<Box<str>>| match id {
            None => Some(None),
            Some(id) => self.place(resource, id).map(Some),
        };
        let role = place_of(Resource::Roles, &filter.role)?;
        let role = role.map(|place| self.id_at(Resource::Roles, place));
        let group = place_of(Resource::Groups, &filter.group)?;
        let taken: Vec<bool> = columns
            .profiles
            .iter()
            .map(|profile| filter.takes_profile(profile, role))
            .collect();
        let is_left = |place: &u32| {
            let row = &columns.users[*place as usize];
            taken[row.profile as usize]
                && filter.takes_time(row.updated_at)
                && filter.takes_email(columns.email_of(row))
        };
        Some(match group {
            Some(group) => self
                .members(group)
                .iter()
                .copied()
                .filter(is_left)
                .collect(),
            None => (0..size(columns.users.len())).filter(is_left).collect(),
        })
    }
}
