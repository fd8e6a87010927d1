//! The check for a field that a provider suddenly leaves out, by comparison with the previous
//! directory.
//!
//! A few records may lose a field. If many lose the same field at once, the provider or the
//! credential has changed, and the walk is held: publishing it would remove the field for all of
//! them. A first walk has nothing to compare with, so it never fails because of a field.

use std::collections::BTreeSet;

use crate::model::{id::RemoteId, walks::SuspectKind};

use super::{
    Directory, Resource,
    record::{GroupView, Millis, UserView},
    snapshot_builder::SnapshotBuilder,
};

/// This many records may always lose a field at once.
const ALWAYS_ALLOWED: usize = 3;

/// One in this many of the records that had a field may lose it at once.
const ONE_IN: usize = 20;

type UserHas = for<'a> fn(&UserView<'a>) -> bool;

type GroupHas = for<'a> fn(&GroupView<'a>) -> bool;

const USER_FIELDS: [UserHas; 11] = [
    |user| user.email.is_some(),
    |user| user.name.is_some(),
    |user| user.first_name.is_some(),
    |user| user.last_name.is_some(),
    |user| user.avatar.is_some(),
    |user| user.last_login_at != Millis::NONE,
    |user| user.seat_since != Millis::NONE,
    |user| user.profile.seat.is_some(),
    |user| user.profile.roles.is_some(),
    |user| user.profile.is_external.is_some(),
    |user| {
        let status = user.profile.status.as_ref();
        status.is_some_and(|status| status.source.is_some())
    },
];

/// Without the description, which is optional.
const GROUP_FIELDS: [GroupHas; 4] = [
    |group| group.name.is_some(),
    |group| group.owner.is_some(),
    |group| group.created_at != Millis::NONE,
    |group| group.members_unread().is_none(),
];

/// Whether `some` is more than three and more than one in twenty of `all`.
pub const fn too_many(some: usize, all: usize) -> bool {
    some > ALWAYS_ALLOWED && some * ONE_IN > all
}

/// The records of `prev` that lack a field in `after`, for each field that too many records lost.
pub(super) fn field_losses(
    prev: &Directory,
    after: &SnapshotBuilder<'_>,
) -> BTreeSet<(SuspectKind, RemoteId)> {
    let mut users = [const { LossTally::new() }; USER_FIELDS.len()];
    for place in 0..prev.len(Resource::Users) {
        let Some(now) = after.place_now(place) else {
            continue;
        };
        let (before, now) = (prev.user(place), &after.users[now].view);
        // A member list has other fields than the list of users, so the two cannot be compared.
        if before.profile.is_external_member != now.profile.is_external_member {
            continue;
        }
        for (tally, has) in users.iter_mut().zip(USER_FIELDS) {
            tally.compare(place, has(&before), has(now));
        }
    }
    let mut groups = [const { LossTally::new() }; GROUP_FIELDS.len()];
    for place in 0..prev.len(Resource::Groups) {
        let before = prev.group(place);
        let Some(now) = after.group(before.id) else {
            continue;
        };
        for (tally, has) in groups.iter_mut().zip(GROUP_FIELDS) {
            tally.compare(place, has(&before), has(now));
        }
    }
    let suspects = |kind, resource, tallies: &[LossTally]| {
        let too_many = tallies.iter().filter(|tally| tally.is_too_much());
        let lost: BTreeSet<usize> = too_many.flat_map(|tally| &tally.lost).copied().collect();
        lost.into_iter()
            .map(|place| (kind, RemoteId::from(prev.id_at(resource, place))))
            .collect::<BTreeSet<_>>()
    };
    let mut losses = suspects(SuspectKind::User, Resource::Users, &users);
    losses.extend(suspects(SuspectKind::Group, Resource::Groups, &groups));
    losses
}

/// The number of records that had one field, and the rows of those that lost it.
struct LossTally {
    had: usize,
    lost: Vec<usize>,
}

impl LossTally {
    const fn new() -> Self {
        Self {
            had: 0,
            lost: Vec::new(),
        }
    }

    fn compare(&mut self, place: usize, had: bool, has: bool) {
        if had {
            self.had += 1;
            if !has {
                self.lost.push(place);
            }
        }
    }

    fn is_too_much(&self) -> bool {
        too_many(self.lost.len(), self.had)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_may_lose_a_field_and_so_may_one_in_twenty() {
        for (lost, had, expected) in [
            (3, 3, false),
            (3, 59, false),
            (4, 4, true),
            (4, 79, true),
            (4, 80, false),
            (50, 1000, false),
            (51, 1000, true),
        ] {
            assert_eq!(too_many(lost, had), expected, "{lost} of {had}");
        }
    }
}
