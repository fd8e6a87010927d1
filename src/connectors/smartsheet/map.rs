//! From Smartsheet's words to ours. Pure: a row and what the token may see go in, a record or
//! what was wrong with it comes out.
//!
//! One rule is above all others: **a missing field is never read as false, empty or active.**
//! What is missing becomes null with a reason. For a token that is no system admin's the reason
//! is known (Smartsheet leaves those fields out), and nothing it might show is pieced together;
//! for an admin's token the answer did not say what it should have, and the row is counted.
//!
//! Roles are the sum of four flags and the seat. If one of them is missing where it should have
//! been, the sum is unknown, so `roles` is null: a list that lacks a role says that it is not
//! held.

use jiff::Timestamp;
use serde::Deserialize;

use super::{
    roles::{self, Role},
    wire::{self, Id, Row, Slot},
};
use crate::{
    connectors::QuarantinedRow,
    model::{
        id::RemoteId,
        observed::{
            Identity, ObservedGroup, ObservedMember, ObservedOwner, ObservedSeat, ObservedUser,
            Seats, Sourced,
        },
        schema::{Reason, SeatType, UserField, UserStatus, Warning},
    },
};

/// What became of one row.
#[derive(Debug)]
pub(super) struct Mapped<T> {
    pub(super) record: Result<T, QuarantinedRow>,
    /// Whether a field was missing that every such record must have.
    pub(super) lacks_required: bool,
}

/// A known field has a type that it must not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Unusable(&'static str);

impl<T> Slot<T> {
    fn optional(self, field: &'static str) -> Result<Option<T>, Unusable> {
        match self {
            Slot::Given(value) => Ok(Some(value)),
            Slot::Absent => Ok(None),
            Slot::Unusable => Err(Unusable(field)),
        }
    }

    const fn is_absent(&self) -> bool {
        matches!(self, Slot::Absent)
    }
}

fn remote_id(id: Id) -> RemoteId {
    RemoteId::from(id.0.to_string())
}

/// Reads a row and maps it; what cannot be mapped is quarantined under its id, if that is
/// readable.
fn row<'a, W: Deserialize<'a>, T>(
    row: &Row<'a, W>,
    id: impl FnOnce(&W) -> Slot<Id>,
    lacks_required: impl FnOnce(&W) -> bool,
    map: impl FnOnce(RemoteId, W) -> Result<T, Unusable>,
) -> Mapped<T> {
    let quarantined = |remote_id, fault: &str| QuarantinedRow {
        remote_id,
        fault: fault.to_owned(),
    };
    let Some(wire) = row.read() else {
        return Mapped {
            record: Err(quarantined(None, "the row is no object")),
            lacks_required: true,
        };
    };
    let lacks_required = lacks_required(&wire);
    let record = match id(&wire) {
        Slot::Given(id) => {
            let id = remote_id(id);
            map(id.clone(), wire).map_err(|Unusable(field)| {
                let fault = format!("field {field} has a type that cannot be read");
                quarantined(Some(id), &fault)
            })
        }
        Slot::Absent => Err(quarantined(None, "the row has no id")),
        Slot::Unusable => Err(quarantined(None, "the row's id cannot be read")),
    };
    Mapped {
        record,
        lacks_required,
    }
}

/// A row of the user list.
pub(super) fn listed_user(user: &Row<'_, wire::User>, identity: &Identity) -> Mapped<ObservedUser> {
    row(
        user,
        |user| user.id,
        |user| {
            let lacks_admins_fields = user.admin.is_absent()
                || user.group_admin.is_absent()
                || user.licensed_sheet_creator.is_absent()
                || user.resource_viewer.is_absent()
                || user.status.is_absent();
            user.id.is_absent()
                || user.email.is_absent()
                || (identity.is_admin && lacks_admins_fields)
        },
        |id, wire| {
            let sight = Sight {
                is_admin: identity.is_admin,
                seat: match identity.seats {
                    Seats::Readable { .. } => Ok(()),
                    Seats::Hidden(reason) => Err(reason),
                },
                is_internal: Ok(()),
            };
            user_record(id, wire, sight)
        },
    )
}

/// The answer of `GET /users/{id}`, which shows flags and status to an admin but never the
/// seat: roles are those of the flags alone, enough to confirm that somebody has lost them.
pub(super) fn single_user(wire: wire::User) -> Result<ObservedUser, String> {
    let id = match wire.id {
        Slot::Given(id) => remote_id(id),
        Slot::Absent | Slot::Unusable => return Err("the user has no readable id".to_owned()),
    };
    let sight = Sight {
        // Here it is not known whose token asked; but only an admin's is shown any of these.
        is_admin: !(wire.admin.is_absent()
            && wire.group_admin.is_absent()
            && wire.licensed_sheet_creator.is_absent()
            && wire.resource_viewer.is_absent()
            && wire.status.is_absent()),
        seat: Err(Reason::NotFetched),
        is_internal: Err(Reason::NotFetched),
    };
    user_record(id, wire, sight).map_err(field_fault)
}

fn field_fault(Unusable(field): Unusable) -> String {
    format!("field {field} has a type that cannot be read")
}

/// What can be seen of a user where this row was read, or why it cannot.
#[derive(Clone, Copy)]
struct Sight {
    is_admin: bool,
    seat: Result<(), Reason>,
    is_internal: Result<(), Reason>,
}

/// Collects why fields are null.
struct Warnings {
    is_admin: bool,
    list: Vec<Warning>,
}

impl Warnings {
    fn add(&mut self, field: UserField, reason: Reason) {
        self.list.push(Warning { field, reason });
    }

    /// What only an admin sees: nothing, with the reason, for anybody else.
    fn admins<T>(
        &mut self,
        field: UserField,
        read: impl FnOnce(&mut Self) -> Option<T>,
    ) -> Option<T> {
        if self.is_admin {
            read(self)
        } else {
            self.add(field, Reason::NotPermitted);
            None
        }
    }
}

fn user_record(id: RemoteId, wire: wire::User, sight: Sight) -> Result<ObservedUser, Unusable> {
    let flags = [
        (roles::SYSTEM_ADMIN, wire.admin.optional("admin")?),
        (roles::GROUP_ADMIN, wire.group_admin.optional("groupAdmin")?),
        (
            roles::LICENSED_USER,
            wire.licensed_sheet_creator
                .optional("licensedSheetCreator")?,
        ),
        (
            roles::RESOURCE_VIEWER,
            wire.resource_viewer.optional("resourceViewer")?,
        ),
    ];
    let status = wire.status.optional("status")?;
    let is_internal = wire.is_internal.optional("isInternal")?;
    let seat = SeatFields {
        word: wire.seat_type.optional("seatType")?,
        since: wire
            .seat_type_last_changed_at
            .optional("seatTypeLastChangedAt")?,
        provisional_until: wire
            .provisional_expiration_date
            .optional("provisionalExpirationDate")?,
    };
    let last_login = wire.last_login.optional("lastLogin")?;
    let avatar = match wire.profile_image.optional("profileImage")? {
        Some(image) => image.image_id.optional("profileImage.imageId")?,
        None => None,
    };

    let mut warnings = Warnings {
        is_admin: sight.is_admin,
        list: Vec::new(),
    };
    let status = warnings.admins(UserField::Status, |warnings| {
        Some(user_status(status, warnings))
    });
    let observed_seat = warnings.admins(UserField::Seat, |warnings| match sight.seat {
        Ok(()) => seat.observed(warnings),
        Err(reason) => {
            warnings.add(UserField::Seat, reason);
            None
        }
    });
    let seat_role = match (&observed_seat, sight.seat) {
        (Some(seat), _) => Some(roles::of_seat(seat.kind.value)),
        (None, Ok(())) => None,
        (None, Err(_)) => Some(None),
    };
    let roles = warnings.admins(UserField::Roles, |warnings| {
        let roles = sum_of_roles(flags, seat_role);
        if roles.is_none() {
            warnings.add(UserField::Roles, Reason::Unknown);
        }
        roles
    });
    let is_external = warnings.admins(UserField::IsExternal, |warnings| {
        if is_internal.is_none() {
            let reason = sight.is_internal.err().unwrap_or(Reason::Unknown);
            warnings.add(UserField::IsExternal, reason);
        }
        is_internal.map(|is_internal| !is_internal)
    });
    // To an admin, no date says that there was no login.
    let last_login_at = warnings.admins(UserField::LastLoginAt, |_| last_login);
    warnings.list.sort_unstable();

    Ok(ObservedUser {
        remote_id: id,
        email: wire.email.optional("email")?,
        name: wire.name.optional("name")?,
        first_name: wire.first_name.optional("firstName")?,
        last_name: wire.last_name.optional("lastName")?,
        status,
        roles,
        seat: observed_seat,
        is_external,
        avatar,
        last_login_at,
        warnings: warnings.list,
    })
}

fn user_status(word: Option<Box<str>>, warnings: &mut Warnings) -> Sourced<UserStatus> {
    let value = match word.as_deref() {
        Some("ACTIVE") => UserStatus::Enabled,
        Some("PENDING") => UserStatus::Pending,
        Some("DECLINED" | "DEACTIVATED") => UserStatus::Disabled,
        Some(_) => UserStatus::UnmappedValue,
        None => {
            warnings.add(UserField::Status, Reason::Unknown);
            UserStatus::UnmappedValue
        }
    };
    Sourced {
        value,
        source: word,
    }
}

struct SeatFields {
    word: Option<Box<str>>,
    since: Option<Timestamp>,
    provisional_until: Option<Timestamp>,
}

impl SeatFields {
    fn observed(self, warnings: &mut Warnings) -> Option<ObservedSeat> {
        let value = match self.word.as_deref() {
            Some("MEMBER") => SeatType::Member,
            Some("PROVISIONAL_MEMBER") => SeatType::ProvisionalMember,
            Some("GUEST") => SeatType::Guest,
            // One seat under its old name and its new one; which is sent is in transition.
            Some("CONTRIBUTOR" | "VIEWER") => SeatType::Contributor,
            Some(_) | None => SeatType::UnmappedValue,
        };
        if value == SeatType::UnmappedValue {
            warnings.add(UserField::Seat, Reason::Unknown);
        }
        let source = self.word?;
        Some(ObservedSeat {
            kind: Sourced {
                value,
                source: Some(source),
            },
            since: self.since,
            provisional_until: self.provisional_until,
        })
    }
}

/// The roles of a user, if every part that they are made of is known. `seat` is None where it
/// is not, and `Some(None)` where it gives no role.
fn sum_of_roles(
    flags: [(Role, Option<bool>); 4],
    seat: Option<Option<Role>>,
) -> Option<Vec<Box<str>>> {
    let mut roles = Vec::new();
    for (role, is_set) in flags {
        if is_set? {
            roles.push(role.key.into());
        }
    }
    roles.extend(seat?.map(|role| role.key.into()));
    Some(roles)
}

/// A row of the group list.
pub(super) fn listed_group(group: &Row<'_, wire::Group>) -> Mapped<ObservedGroup> {
    row(
        group,
        |group| group.id,
        |group| group.id.is_absent() || group.name.is_absent(),
        group_record,
    )
}

/// The answer of `GET /groups/{id}` without its members.
pub(super) fn single_group(wire: wire::Group) -> Result<ObservedGroup, String> {
    match wire.id {
        Slot::Given(id) => group_record(remote_id(id), wire).map_err(field_fault),
        Slot::Absent | Slot::Unusable => Err("the group has no readable id".to_owned()),
    }
}

fn group_record(id: RemoteId, wire: wire::Group) -> Result<ObservedGroup, Unusable> {
    let owner_email = wire.owner.optional("owner")?;
    let owner_id = wire.owner_id.optional("ownerId")?;
    Ok(ObservedGroup {
        remote_id: id,
        name: wire.name.optional("name")?,
        description: wire.description.optional("description")?,
        owner: owner_id.map(|owner| ObservedOwner {
            remote_id: remote_id(owner),
            email: owner_email,
        }),
        created_at: wire.created_at.optional("createdAt")?,
        modified_at: wire.modified_at.optional("modifiedAt")?,
    })
}

/// Every member of a group, or none: a list that lacks one says that they have left.
pub(super) fn members(members: &wire::Members<'_>) -> Result<Vec<ObservedMember>, String> {
    members
        .members
        .iter()
        .map(|member| {
            row(member, |member| member.id, |_| false, member_record)
                .record
                .map_err(|quarantined| format!("a member: {}", quarantined.fault))
        })
        .collect()
}

fn member_record(id: RemoteId, wire: wire::Member) -> Result<ObservedMember, Unusable> {
    Ok(ObservedMember {
        remote_id: id,
        email: wire.email.optional("email")?,
        name: wire.name.optional("name")?,
        first_name: wire.first_name.optional("firstName")?,
        last_name: wire.last_name.optional("lastName")?,
    })
}

/// The answer of `GET /users/me`, as far as it says who the token is. Only a system admin is
/// shown `admin`, so its absence says no here; should it be lost, the walk is held as degraded.
pub(super) fn identity(me: wire::User, seats: Seats) -> Result<Identity, String> {
    let is_admin = is_admin(&me);
    let (Slot::Given(user), Slot::Given(account)) = (me.id, me.account) else {
        return Err("the user lacks an id or an account".to_owned());
    };
    let Slot::Given(organisation) = account.id else {
        return Err("the account lacks an id".to_owned());
    };
    Ok(Identity {
        user: remote_id(user),
        email: me
            .email
            .optional("email")
            .map_err(field_fault)?
            .map(String::from),
        name: me
            .name
            .optional("name")
            .map_err(field_fault)?
            .map(String::from),
        organisation: remote_id(organisation),
        organisation_name: account
            .name
            .optional("account.name")
            .map_err(field_fault)?
            .map(String::from),
        is_admin,
        seats,
    })
}

pub(super) fn is_admin(me: &wire::User) -> bool {
    matches!(me.admin, Slot::Given(true))
}

/// One of a user's plans.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) id: RemoteId,
    pub(super) is_internal: bool,
}

pub(super) fn plan(plan: &Row<'_, wire::Plan>) -> Result<Plan, String> {
    row(
        plan,
        |plan| plan.plan_id,
        |_| false,
        |id, wire| {
            Ok(Plan {
                id,
                is_internal: wire.is_internal.optional("isInternal")?.unwrap_or(false),
            })
        },
    )
    .record
    .map_err(|quarantined| format!("a plan: {}", quarantined.fault))
}
