//! Which records of a list are asked for, and which those are.
//!
//! A filter costs one pass over the rows, which are some hundred bytes each: what many users share
//! (status, roles, seat) is decided once per profile, an address is compared as it lies, and of a
//! group only the members are looked at. [`Matches`] keeps the outcome, four bytes a record, so
//! that the pages of one list need the pass once.

use jiff::Timestamp;
use serde::Serialize;

use crate::model::schema::{SeatType, UserField, UserStatus, Warning};

use super::{
    Directory, Resource,
    record::{Email, Millis, SharedFields, Visibility},
    text::size,
};

/// What a record must be to be in a list: all of what is named here. The default is any record.
///
/// A record in which the field is null is not it, whatever was asked for. All but
/// `updated_after` is about users; lists of roles and groups are not asked for it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize)]
pub struct Filter {
    /// Changed later than this, and not at it.
    pub updated_after: Option<Timestamp>,
    /// With this whole address; A to Z count as a to z.
    pub email: Option<Box<str>>,
    pub status: Option<UserStatus>,
    /// Holding the role with this id, unified or remote.
    pub role: Option<Box<str>>,
    /// In the group with this id, unified or remote.
    pub group: Option<Box<str>>,
    pub is_external: Option<bool>,
    pub seat: Option<SeatType>,
}

impl Filter {
    /// Whether every record is left.
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }

    /// A field that is asked about and that nobody can see here, with the reason. To such a
    /// question "nobody" would be a false answer.
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

    /// Bytes that the texts of this filter occupy.
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

    /// Only the letters of ASCII are alike in both cases. Beyond them two letters that look the
    /// same may be those of two people.
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

    /// `role` is the word of the role that is asked for.
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

/// The records of one list in one directory that a filter leaves, as places in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matches(MatchedRows);

#[derive(Debug, Clone, PartialEq, Eq)]
enum MatchedRows {
    /// All of so many.
    All(usize),
    Some(Box<[u32]>),
}

impl Matches {
    /// How many there are.
    pub fn len(&self) -> usize {
        match &self.0 {
            MatchedRows::All(len) => *len,
            MatchedRows::Some(places) => places.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The place in the directory of the match number `at`.
    pub(super) fn place(&self, at: usize) -> usize {
        match &self.0 {
            MatchedRows::All(_) => at,
            MatchedRows::Some(places) => places[at] as usize,
        }
    }

    /// The number of the first match at `place` or behind it.
    pub(super) fn first_from(&self, place: usize) -> usize {
        match &self.0 {
            MatchedRows::All(_) => place,
            MatchedRows::Some(places) => places.partition_point(|kept| (*kept as usize) < place),
        }
    }

    /// The bytes that this occupies, for a cache that holds by weight.
    pub fn approximate_size(&self) -> usize {
        match &self.0 {
            MatchedRows::All(_) => 0,
            MatchedRows::Some(places) => size_of_val(&**places),
        }
    }
}

impl Directory {
    /// The records that `filter` leaves. A role or group that this directory does not know has
    /// nobody.
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
            // Roles carry no times.
            Resource::Roles => places.filter(|_| filter.takes_time(Millis::NONE)).collect(),
        };
        Matches(MatchedRows::Some(kept.into_boxed_slice()))
    }

    /// None if the filter names a role or a group that is not there.
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
