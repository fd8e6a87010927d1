//! The fields that a credential can read, and the reason for each one that it cannot, in a
//! customer's words.

use crate::model::schema::{Reason, UserField, Warning};

/// The fields that a credential can and cannot read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldAccess {
    pub served: Vec<&'static str>,
    pub missing: Vec<MissingField>,
}

/// A field that stays empty, and the reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MissingField {
    pub what: &'static str,
    pub why: &'static str,
}

/// The fields that depend on the credential, in the order in which a page lists them.
const FIELDS: [(UserField, &str); 6] = [
    (UserField::Status, "Who is active, invited or deactivated"),
    (
        UserField::Roles,
        "Roles, such as System Admin and Group Admin",
    ),
    (UserField::Groups, "Groups and their members"),
    (UserField::Seat, "Seats, such as Member and Guest"),
    (UserField::LastLoginAt, "When each person last signed in"),
    (
        UserField::IsExternal,
        "Who is from outside your organization",
    ),
];

impl FieldAccess {
    /// `hidden`: the fields that are null for every user. `is_admin`: whether the credential
    /// belongs to a System Admin.
    pub fn of(is_admin: bool, hidden: &[Warning]) -> Self {
        let mut sight = Self {
            served: vec!["Names and e-mail addresses"],
            missing: Vec::new(),
        };
        for (field, what) in FIELDS {
            match hidden.iter().find(|warning| warning.field == field) {
                None => sight.served.push(what),
                Some(warning) => sight.missing.push(MissingField {
                    what,
                    why: why(field, warning.reason, is_admin),
                }),
            }
        }
        sight
    }

    pub fn is_whole(&self) -> bool {
        self.missing.is_empty()
    }
}

const fn why(field: UserField, reason: Reason, is_admin: bool) -> &'static str {
    match (reason, field) {
        (Reason::NotPermitted, UserField::Groups) => "This account may not read groups.",
        (Reason::NotPermitted, _) if is_admin => "Smartsheet does not show it to this account.",
        (Reason::NotPermitted, _) => "Smartsheet shows it to System Admins only.",
        (Reason::NotSupported, UserField::Seat) => {
            "Smartsheet names no plan that seats could be read from."
        }
        (Reason::NotSupported, _) => "Your Smartsheet plan does not have it.",
        (Reason::NotFetched, _) => "It is not read.",
        (Reason::Unknown | Reason::Unreadable, _) => "Smartsheet did not say.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{directory::Visibility, model::observed::Seats};

    fn sight(is_admin: bool, seats: &Seats, sees_groups: bool) -> FieldAccess {
        let visibility = Visibility::of(is_admin, seats, sees_groups);
        FieldAccess::of(is_admin, &visibility.hidden_fields())
    }

    #[test]
    fn every_field_is_either_served_or_missing() {
        let readable = Seats::Readable { plan: "77".into() };
        for is_admin in [true, false] {
            for seats in [&readable, &Seats::Hidden(Reason::NotSupported)] {
                for sees_groups in [true, false] {
                    let sight = sight(is_admin, seats, sees_groups);
                    assert_eq!(sight.served.len() + sight.missing.len(), 1 + FIELDS.len());
                }
            }
        }
        assert!(sight(true, &readable, true).is_whole());
    }

    #[test]
    fn a_member_is_told_what_an_admin_would_see() {
        let seen = sight(false, &Seats::Hidden(Reason::NotPermitted), true);
        assert_eq!(seen.served.len(), 2, "{seen:?}");
        for missing in &seen.missing {
            assert_eq!(missing.why, "Smartsheet shows it to System Admins only.");
        }
        let seen = sight(true, &Seats::Hidden(Reason::NotSupported), false);
        let why: Vec<_> = seen.missing.iter().map(|missing| missing.why).collect();
        assert_eq!(
            why,
            [
                "This account may not read groups.",
                "Smartsheet names no plan that seats could be read from."
            ]
        );
    }
}
