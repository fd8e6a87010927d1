//! One user or group as a borrowed view, for sealing and serving. A view borrows from a directory's
//! columns or from the fetched data. Equal records give equal views from both sources, so one
//! comparison detects a change.

use std::borrow::Cow;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::model::{
    observed::{ObservedGroup, ObservedMember, ObservedUser, Seats, Sourced},
    schema::{GroupField, GroupWarning, Reason, SeatType, UserField, UserStatus, Warning},
    timestamp::cut,
};

/// A time in whole milliseconds, or none. Finer fractions from the provider are truncated here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) struct Millis(i64);

impl Millis {
    /// No time. It is below every time, so `max` of a time and none is the time.
    pub(super) const NONE: Millis = Millis(i64::MIN);

    pub(super) fn at(moment: Timestamp) -> Self {
        Millis(cut(moment).as_millisecond())
    }

    pub(super) fn maybe(moment: Option<Timestamp>) -> Self {
        moment.map_or(Millis::NONE, Millis::at)
    }

    pub(super) fn timestamp(self) -> Option<Timestamp> {
        Timestamp::from_millisecond(self.0).ok()
    }

    /// Whether this is none or can be converted to a timestamp.
    pub(super) fn is_sound(self) -> bool {
        self == Millis::NONE || self.timestamp().is_some()
    }

    /// Milliseconds from `earlier` to `self`.
    pub(super) fn since(self, earlier: Millis) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// The fields that a credential may see, and that a directory can therefore contain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Visibility {
    /// Whether status, roles, `is_external` and the last sign-in are visible. Only an
    /// administrator's token sees them.
    pub roles: bool,
    /// The reason why seats are not visible; None if they are.
    pub seats_hidden: Option<Reason>,
    pub groups: bool,
}

impl Visibility {
    pub fn of(is_admin: bool, seats: &Seats, groups: bool) -> Self {
        Self {
            roles: is_admin,
            seats_hidden: match seats {
                Seats::Readable { .. } => None,
                Seats::Hidden(reason) => Some(*reason),
            },
            groups,
        }
    }

    /// The fields that are null for every user, with the reason, in the order of fields.
    pub fn hidden_fields(self) -> Vec<Warning> {
        let mut hidden = Vec::new();
        if !self.roles {
            for field in [
                UserField::Status,
                UserField::Roles,
                UserField::IsExternal,
                UserField::LastLoginAt,
            ] {
                hidden.push(warning(field, Reason::NotPermitted));
            }
        }
        if let Some(reason) = self.seats_hidden {
            hidden.push(warning(UserField::Seat, reason));
        }
        if !self.groups {
            hidden.push(warning(UserField::Groups, Reason::NotPermitted));
        }
        hidden.sort_unstable();
        hidden
    }

    /// Whether `self` lacks any permission that `former` had.
    pub(super) fn is_less_than(self, former: Visibility) -> bool {
        (former.roles && !self.roles)
            || (former.seats_hidden.is_none() && self.seats_hidden.is_some())
            || (former.groups && !self.groups)
    }
}

/// The fields of a user that many users have in common. Each combination is stored once.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct SharedFields {
    pub(super) status: Option<Sourced<UserStatus>>,
    pub(super) roles: Option<Vec<Box<str>>>,
    pub(super) seat: Option<Sourced<SeatType>>,
    pub(super) is_external: Option<bool>,
    pub(super) warnings: Vec<Warning>,
    /// Known only from member lists of groups. Such a user is in no list of users, and so never
    /// missing from it.
    pub(super) is_external_member: bool,
    pub(super) listed: bool,
    pub(super) suspected: bool,
}

/// An e-mail address in two parts. The directory shares the domain between users.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Email<'a> {
    pub(super) local: &'a str,
    /// Includes the `@`; None if the address has none.
    pub(super) domain: Option<&'a str>,
}

impl<'a> Email<'a> {
    fn split(text: &'a str) -> Self {
        match text.rfind('@') {
            Some(at) => Self {
                local: &text[..at],
                domain: Some(&text[at..]),
            },
            None => Self {
                local: text,
                domain: None,
            },
        }
    }

    pub(super) fn whole(self) -> String {
        [self.local, self.domain.unwrap_or_default()].concat()
    }
}

/// One user, without the times that sealing maintains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UserView<'a> {
    pub(super) id: &'a str,
    pub(super) email: Option<Email<'a>>,
    pub(super) name: Option<&'a str>,
    pub(super) first_name: Option<&'a str>,
    pub(super) last_name: Option<&'a str>,
    pub(super) avatar: Option<&'a str>,
    pub(super) seat_since: Millis,
    pub(super) seat_until: Millis,
    pub(super) last_login_at: Millis,
    pub(super) profile: Cow<'a, SharedFields>,
}

impl<'a> UserView<'a> {
    /// A user from the provider's list.
    pub(super) fn listed(user: &'a ObservedUser) -> Self {
        let seat = user.seat.as_ref();
        Self {
            id: user.remote_id.as_str(),
            email: user.email.as_deref().map(Email::split),
            name: user.name.as_deref(),
            first_name: user.first_name.as_deref(),
            last_name: user.last_name.as_deref(),
            avatar: user.avatar.as_deref(),
            seat_since: Millis::maybe(seat.and_then(|seat| seat.since)),
            seat_until: Millis::maybe(seat.and_then(|seat| seat.provisional_until)),
            last_login_at: Millis::maybe(user.last_login_at),
            profile: Cow::Owned(SharedFields {
                status: user.status.clone(),
                roles: user.roles.clone(),
                seat: seat.map(|seat| seat.kind.clone()),
                is_external: user.is_external,
                warnings: user.warnings.clone(),
                is_external_member: false,
                listed: true,
                suspected: false,
            }),
        }
    }

    /// A member of a group that is in no list of users.
    pub(super) fn external_member(member: &'a ObservedMember, sees: Visibility) -> Self {
        Self {
            id: member.remote_id.as_str(),
            email: member.email.as_deref().map(Email::split),
            name: member.name.as_deref(),
            first_name: member.first_name.as_deref(),
            last_name: member.last_name.as_deref(),
            avatar: None,
            seat_since: Millis::NONE,
            seat_until: Millis::NONE,
            last_login_at: Millis::NONE,
            profile: Cow::Owned(external_profile(sees, &member.warnings)),
        }
    }

    /// Removes the fields of a previous record that the credential cannot see now.
    pub(super) fn within(mut self, sees: Visibility) -> Self {
        let profile = &self.profile;
        let shows_too_much = (!sees.roles
            && (profile.status.is_some()
                || profile.roles.is_some()
                || profile.is_external.is_some()
                || self.last_login_at != Millis::NONE))
            || (sees.seats_hidden.is_some() && profile.seat.is_some());
        if !shows_too_much {
            return self;
        }
        let profile = self.profile.to_mut();
        if profile.is_external_member {
            *profile = external_profile(sees, &profile.warnings);
            return self;
        }
        let mut hidden = Vec::new();
        if !sees.roles {
            profile.status = None;
            profile.roles = None;
            profile.is_external = None;
            self.last_login_at = Millis::NONE;
            for field in [
                UserField::Status,
                UserField::Roles,
                UserField::IsExternal,
                UserField::LastLoginAt,
            ] {
                hidden.push(warning(field, Reason::NotPermitted));
            }
        }
        if let Some(reason) = sees.seats_hidden {
            profile.seat = None;
            self.seat_since = Millis::NONE;
            self.seat_until = Millis::NONE;
            hidden.push(warning(UserField::Seat, reason));
        }
        for hidden in hidden {
            set_warning(&mut profile.warnings, hidden.field, Some(hidden.reason));
        }
        self
    }

    /// Sets the warning on `field`, or removes it if there is no reason.
    pub(super) fn with_warning(mut self, field: UserField, reason: Option<Reason>) -> Self {
        let has = |known: &&Warning| known.field == field;
        let known = self.profile.warnings.iter().find(has);
        if known.map(|known| known.reason) != reason {
            set_warning(&mut self.profile.to_mut().warnings, field, reason);
        }
        self
    }

    /// Sets `listed` and `suspected`.
    pub(super) fn with_certainty(mut self, standing: Certainty) -> Self {
        let profile = &self.profile;
        if (profile.listed, profile.suspected) != (standing.listed, standing.suspected) {
            let profile = self.profile.to_mut();
            profile.listed = standing.listed;
            profile.suspected = standing.suspected;
        }
        self
    }

    pub(super) fn is_disabled(&self) -> bool {
        self.profile
            .status
            .as_ref()
            .is_some_and(|status| status.value == UserStatus::Disabled)
    }

    pub(super) fn holds_a_role(&self) -> bool {
        self.profile
            .roles
            .as_ref()
            .is_some_and(|roles| !roles.is_empty())
    }

    /// Whether the user is known to hold no role. False if the roles are not visible.
    pub(super) fn is_without_roles(&self) -> bool {
        self.profile.roles.as_ref().is_some_and(Vec::is_empty)
    }
}

const fn warning(field: UserField, reason: Reason) -> Warning {
    Warning { field, reason }
}

fn set_warning(warnings: &mut Vec<Warning>, field: UserField, reason: Option<Reason>) {
    warnings.retain(|known| known.field != field);
    warnings.extend(reason.map(|reason| warning(field, reason)));
    warnings.sort_unstable();
}

/// The fields that a member list contains.
const MEMBER_FIELDS: [UserField; 4] = [
    UserField::PrimaryEmailAddress,
    UserField::Name,
    UserField::FirstName,
    UserField::LastName,
];

/// The shared fields of an external member. Name and address come from the member list, with its
/// warnings in `told`. All other fields are null with a reason, except the roles: where roles are
/// visible, an external member has none.
pub(super) fn external_profile(sees: Visibility, told: &[Warning]) -> SharedFields {
    let unseen = if sees.roles {
        Reason::Unknown
    } else {
        Reason::NotPermitted
    };
    let mut warnings = vec![
        warning(UserField::Status, unseen),
        warning(
            UserField::Seat,
            sees.seats_hidden.unwrap_or(Reason::Unknown),
        ),
        warning(UserField::LastLoginAt, unseen),
    ];
    if !sees.roles {
        warnings.push(warning(UserField::Roles, Reason::NotPermitted));
    }
    let is_told = |warning: &&Warning| MEMBER_FIELDS.contains(&warning.field);
    warnings.extend(told.iter().filter(is_told));
    warnings.sort_unstable();
    SharedFields {
        status: None,
        roles: sees.roles.then(Vec::new),
        seat: None,
        is_external: Some(true),
        warnings,
        is_external_member: true,
        listed: true,
        suspected: false,
    }
}

/// How certain a walk is of a user or group that it keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Certainty {
    pub(super) listed: bool,
    pub(super) suspected: bool,
}

impl Certainty {
    pub(super) const SEEN: Certainty = Certainty {
        listed: true,
        suspected: false,
    };

    /// In the list, but with a loss that is not confirmed yet.
    pub(super) const DISPUTED: Certainty = Certainty {
        listed: true,
        suspected: true,
    };

    /// Not in the list, because the credential cannot list them.
    pub(super) const UNLISTABLE: Certainty = Certainty {
        listed: false,
        suspected: false,
    };
}

/// One group, without its members and the times that sealing maintains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GroupView<'a> {
    pub(super) id: &'a str,
    pub(super) name: Option<&'a str>,
    pub(super) description: Option<&'a str>,
    pub(super) owner: Option<OwnerView<'a>>,
    pub(super) created_at: Millis,
    pub(super) modified_at: Millis,
    pub(super) listed: bool,
    pub(super) suspected: bool,
    /// Sorted by field, one per field.
    pub(super) warnings: Cow<'a, [GroupWarning]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OwnerView<'a> {
    pub(super) id: &'a str,
    pub(super) email: Option<Email<'a>>,
}

impl<'a> GroupView<'a> {
    pub(super) fn listed(group: &'a ObservedGroup) -> Self {
        Self {
            id: group.remote_id.as_str(),
            name: group.name.as_deref(),
            description: group.description.as_deref(),
            owner: group.owner.as_ref().map(|owner| OwnerView {
                id: owner.remote_id.as_str(),
                email: owner.email.as_deref().map(Email::split),
            }),
            created_at: Millis::maybe(group.created_at),
            modified_at: Millis::maybe(group.modified_at),
            listed: true,
            suspected: false,
            warnings: Cow::Borrowed(&group.warnings),
        }
    }

    /// The reason why the last read of the members failed; None if it succeeded.
    pub(super) fn members_unread(&self) -> Option<Reason> {
        let is_of_members = |known: &&GroupWarning| known.field == GroupField::Members;
        self.warnings
            .iter()
            .find(is_of_members)
            .map(|known| known.reason)
    }

    pub(super) fn with_members_unread(mut self, reason: Option<Reason>) -> Self {
        if self.members_unread() != reason {
            let warnings = self.warnings.to_mut();
            warnings.retain(|known| known.field != GroupField::Members);
            warnings.extend(reason.map(|reason| GroupWarning {
                field: GroupField::Members,
                reason,
            }));
            warnings.sort_unstable();
        }
        self
    }

    pub(super) fn with_certainty(mut self, standing: Certainty) -> Self {
        self.listed = standing.listed;
        self.suspected = standing.suspected;
        self
    }
}
