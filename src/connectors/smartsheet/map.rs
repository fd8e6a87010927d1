//! Maps Smartsheet's records to unified records. Pure functions: the input is a row and the token's
//! permissions, the output a record or the reason why there is none.
//!
//! The main rule: **a missing field is never read as false, empty or active.** A field that is
//! missing or unreadable becomes null with a reason. For a token that is not a system admin's the
//! reason is known (Smartsheet omits those fields), and the mapping never infers such a field from
//! others. Only a row without a readable id gives no record.
//!
//! Roles are the sum of four flags and the seat. If one of them is missing where it should be
//! present, `roles` is null: a list without a role would mean that the user does not have it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::de::DeserializeOwned;

use super::{
    roles::{self, CatalogRole},
    wire::{self, Slot, WireId, WireRow},
};
use crate::{
    connectors::QuarantinedRow,
    model::{
        id::RemoteId,
        observed::{
            Identity, ObservedGroup, ObservedMember, ObservedOwner, ObservedSeat, ObservedUser,
            Seats, Sourced,
        },
        schema::{GroupField, GroupWarning, Reason, SeatType, UserField, UserStatus, Warning},
    },
};

impl<T> Slot<T> {
    /// The value, if it is readable.
    fn given(self) -> Option<T> {
        match self {
            Slot::Given(value) => Some(value),
            Slot::Absent | Slot::Blank | Slot::Unreadable => None,
        }
    }

    const fn is_absent(&self) -> bool {
        matches!(self, Slot::Absent)
    }

    /// The reason why a field that every record should have is empty; None if it has a value.
    const fn missing(&self) -> Option<Reason> {
        match self {
            Slot::Given(_) => None,
            Slot::Absent | Slot::Blank => Some(Reason::Unknown),
            Slot::Unreadable => Some(Reason::Unreadable),
        }
    }
}

/// The reasons why fields are null: one per field, in the order of the fields.
struct Warnings<F>(BTreeMap<F, Reason>);

impl<F: Ord + Copy> Warnings<F> {
    const fn new() -> Self {
        Self(BTreeMap::new())
    }

    fn add(&mut self, field: F, reason: Reason) {
        self.0.entry(field).or_insert(reason);
    }

    /// Takes a field that a record may lack.
    fn optional<T>(&mut self, slot: Slot<T>, field: F) -> Option<T> {
        if matches!(slot, Slot::Unreadable) {
            self.add(field, Reason::Unreadable);
        }
        slot.given()
    }

    /// Takes a field that every record has, possibly as an empty text.
    fn expected<T>(&mut self, slot: Slot<T>, field: F) -> Option<T> {
        if slot.is_absent() {
            self.add(field, Reason::Unknown);
        }
        self.optional(slot, field)
    }

    fn list<W>(self, warning: impl Fn(F, Reason) -> W) -> Vec<W> {
        let warnings = self.0.into_iter();
        warnings
            .map(|(field, reason)| warning(field, reason))
            .collect()
    }
}

impl Warnings<UserField> {
    fn of_user(self) -> Vec<Warning> {
        self.list(|field, reason| Warning { field, reason })
    }
}

fn remote_id(id: WireId) -> RemoteId {
    RemoteId::from(id.0.to_string())
}

/// Parses a row and maps it. A row without a readable id is quarantined.
fn row<W: DeserializeOwned, T>(
    row: &WireRow<'_, W>,
    id: impl FnOnce(&W) -> Slot<WireId>,
    map: impl FnOnce(RemoteId, W) -> T,
) -> Result<T, QuarantinedRow> {
    let quarantined = |fault: &str| QuarantinedRow {
        remote_id: None,
        fault: fault.to_owned(),
    };
    let wire = row
        .read()
        .ok_or_else(|| quarantined("the row is no object"))?;
    match id(&wire) {
        Slot::Given(id) => Ok(map(remote_id(id), wire)),
        Slot::Absent | Slot::Blank => Err(quarantined("the row has no id")),
        Slot::Unreadable => Err(quarantined("the row's id cannot be read")),
    }
}

/// Maps a row of the user list.
pub(super) fn listed_user(
    user: &WireRow<'_, wire::WireUser>,
    identity: &Identity,
) -> Result<ObservedUser, QuarantinedRow> {
    let sight = RowVisibility {
        is_admin: identity.is_admin,
        seat: match identity.seats {
            Seats::Readable { .. } => Ok(()),
            Seats::Hidden(reason) => Err(reason),
        },
        is_internal: Ok(()),
    };
    row(
        user,
        |user| user.id,
        |id, wire| user_record(id, wire, sight),
    )
}

/// Maps the reply of `GET /users/{id}`. It shows flags and status to an admin but never the seat:
/// the roles are those of the flags, which is enough to confirm that a user has lost them.
pub(super) fn single_user(wire: wire::WireUser) -> Result<ObservedUser, String> {
    let id = wire.id.given().ok_or("the user has no readable id")?;
    let sight = RowVisibility {
        // The token's owner is not known here, but only an admin's token sees any of these fields.
        is_admin: !(wire.admin.is_absent()
            && wire.group_admin.is_absent()
            && wire.licensed_sheet_creator.is_absent()
            && wire.resource_viewer.is_absent()
            && wire.status.is_absent()),
        seat: Err(Reason::NotFetched),
        is_internal: Err(Reason::NotFetched),
    };
    Ok(user_record(remote_id(id), wire, sight))
}

/// The fields that the token and the endpoint show, or the reason why they do not.
#[derive(Clone, Copy)]
struct RowVisibility {
    is_admin: bool,
    seat: Result<(), Reason>,
    is_internal: Result<(), Reason>,
}

fn user_record(id: RemoteId, wire: wire::WireUser, sight: RowVisibility) -> ObservedUser {
    let mut warnings = Warnings::new();
    let email = warnings.expected(wire.email, UserField::PrimaryEmailAddress);
    let name = warnings.expected(wire.name, UserField::Name);
    let first_name = warnings.expected(wire.first_name, UserField::FirstName);
    let last_name = warnings.expected(wire.last_name, UserField::LastName);
    let image = warnings.optional(wire.profile_image, UserField::Avatar);
    let avatar = image.and_then(|image| warnings.optional(image.image_id, UserField::Avatar));
    let mut user = ObservedUser {
        remote_id: id,
        email,
        name,
        first_name,
        last_name,
        avatar,
        status: None,
        roles: None,
        seat: None,
        is_external: None,
        last_login_at: None,
        warnings: Vec::new(),
    };
    if !sight.is_admin {
        for field in [
            UserField::Status,
            UserField::Roles,
            UserField::Seat,
            UserField::IsExternal,
            UserField::LastLoginAt,
        ] {
            warnings.add(field, Reason::NotPermitted);
        }
        user.warnings = warnings.of_user();
        return user;
    }

    let flags = [
        (roles::SYSTEM_ADMIN, wire.admin),
        (roles::GROUP_ADMIN, wire.group_admin),
        (roles::LICENSED_USER, wire.licensed_sheet_creator),
        (roles::RESOURCE_VIEWER, wire.resource_viewer),
    ];
    let seat = SeatFields {
        word: wire.seat_type,
        since: wire.seat_type_last_changed_at,
        provisional_until: wire.provisional_expiration_date,
    };
    let seat_role = match sight.seat {
        Ok(()) => {
            let missing = seat.word.missing();
            user.seat = seat.observed(&mut warnings);
            match (&user.seat, missing) {
                (Some(seat), _) => Ok(roles::of_seat(seat.kind.value)),
                // The seat should be here, so one part of the roles is unknown.
                (None, missing) => Err(missing.unwrap_or(Reason::Unknown)),
            }
        }
        // The seat is never shown here; the roles are those of the flags.
        Err(reason) => {
            warnings.add(UserField::Seat, reason);
            Ok(None)
        }
    };
    user.roles = match sum_of_roles(flags, seat_role) {
        Ok(roles) => Some(roles),
        Err(reason) => {
            warnings.add(UserField::Roles, reason);
            None
        }
    };
    user.status = Some(user_status(wire.status, &mut warnings));
    if let (Err(reason), Slot::Absent) = (sight.is_internal, wire.is_internal) {
        warnings.add(UserField::IsExternal, reason);
    }
    let is_internal = warnings.expected(wire.is_internal, UserField::IsExternal);
    user.is_external = is_internal.map(|is_internal| !is_internal);
    // For an admin's token, a missing date means that there was no login.
    user.last_login_at = warnings.optional(wire.last_login, UserField::LastLoginAt);
    user.warnings = warnings.of_user();
    user
}

fn user_status(word: Slot<Box<str>>, warnings: &mut Warnings<UserField>) -> Sourced<UserStatus> {
    if let Some(reason) = word.missing() {
        warnings.add(UserField::Status, reason);
    }
    let word = word.given();
    let value = match word.as_deref() {
        Some("ACTIVE") => UserStatus::Enabled,
        Some("PENDING") => UserStatus::Pending,
        Some("DECLINED" | "DEACTIVATED") => UserStatus::Disabled,
        Some(_) | None => UserStatus::UnmappedValue,
    };
    Sourced {
        value,
        source: word,
    }
}

struct SeatFields {
    word: Slot<Box<str>>,
    since: Slot<Timestamp>,
    provisional_until: Slot<Timestamp>,
}

impl SeatFields {
    fn observed(self, warnings: &mut Warnings<UserField>) -> Option<ObservedSeat> {
        if let Some(reason) = self.word.missing() {
            warnings.add(UserField::Seat, reason);
        }
        let source = self.word.given()?;
        let value = match &*source {
            "MEMBER" => SeatType::Member,
            "PROVISIONAL_MEMBER" => SeatType::ProvisionalMember,
            "GUEST" => SeatType::Guest,
            // The old and the new name of one seat type; Smartsheet sends either during its
            // transition.
            "CONTRIBUTOR" | "VIEWER" => SeatType::Contributor,
            _ => SeatType::UnmappedValue,
        };
        if value == SeatType::UnmappedValue {
            warnings.add(UserField::Seat, Reason::Unknown);
        }
        Some(ObservedSeat {
            kind: Sourced {
                value,
                source: Some(source),
            },
            since: warnings.optional(self.since, UserField::Seat),
            provisional_until: warnings.optional(self.provisional_until, UserField::Seat),
        })
    }
}

/// The roles of a user, or the reason why one of their parts is unknown. A known seat may give no
/// role.
fn sum_of_roles(
    flags: [(CatalogRole, Slot<bool>); 4],
    seat: Result<Option<CatalogRole>, Reason>,
) -> Result<Vec<Box<str>>, Reason> {
    let mut roles = Vec::new();
    for (role, flag) in flags {
        match (flag.missing(), flag.given()) {
            (Some(reason), _) => return Err(reason),
            (None, Some(true)) => roles.push(role.key.into()),
            (None, _) => {}
        }
    }
    roles.extend(seat?.map(|role| role.key.into()));
    Ok(roles)
}

/// Maps a row of the group list.
pub(super) fn listed_group(
    group: &WireRow<'_, wire::WireGroup>,
) -> Result<ObservedGroup, QuarantinedRow> {
    row(group, |group| group.id, group_record)
}

/// Maps the reply of `GET /groups/{id}`, without its members.
pub(super) fn single_group(wire: wire::WireGroup) -> Result<ObservedGroup, String> {
    let id = wire.id.given().ok_or("the group has no readable id")?;
    Ok(group_record(remote_id(id), wire))
}

fn group_record(id: RemoteId, wire: wire::WireGroup) -> ObservedGroup {
    let mut warnings = Warnings::new();
    let owner = warnings
        .expected(wire.owner_id, GroupField::Owner)
        .map(|owner| ObservedOwner {
            remote_id: remote_id(owner),
            email: warnings.expected(wire.owner, GroupField::Owner),
        });
    ObservedGroup {
        remote_id: id,
        name: warnings.expected(wire.name, GroupField::Name),
        description: warnings.optional(wire.description, GroupField::Description),
        owner,
        created_at: warnings.expected(wire.created_at, GroupField::CreatedAt),
        modified_at: warnings.optional(wire.modified_at, GroupField::UpdatedAt),
        warnings: warnings.list(|field, reason| GroupWarning { field, reason }),
    }
}

/// Maps all members of a group, or fails: a list that lacks a member would mean that they have
/// left. A member without a readable id could be any user.
pub(super) fn members(members: &wire::Members<'_>) -> Result<Vec<ObservedMember>, String> {
    let members = members
        .members
        .iter()
        .map(|member| row(member, |member| member.id, member_record));
    members
        .collect::<Result<_, _>>()
        .map_err(|quarantined| format!("a member: {}", quarantined.fault))
}

fn member_record(id: RemoteId, wire: wire::WireMember) -> ObservedMember {
    let mut warnings = Warnings::new();
    ObservedMember {
        remote_id: id,
        email: warnings.expected(wire.email, UserField::PrimaryEmailAddress),
        name: warnings.expected(wire.name, UserField::Name),
        first_name: warnings.expected(wire.first_name, UserField::FirstName),
        last_name: warnings.expected(wire.last_name, UserField::LastName),
        warnings: warnings.of_user(),
    }
}

/// Maps the reply of `GET /users/me` to the token's identity. Only a system admin sees `admin`, so
/// its absence means "no" here; if an admin's token stops seeing it, the walk is held as degraded.
/// A value other than true or false is an error.
pub(super) fn identity(me: wire::WireUser, seats: Seats) -> Result<Identity, String> {
    let is_admin = is_admin(&me);
    if matches!(me.admin, Slot::Unreadable) {
        return Err("it cannot be read whether the user is an admin".to_owned());
    }
    let (Slot::Given(user), Slot::Given(account)) = (me.id, me.account) else {
        return Err("the user lacks an id or an account".to_owned());
    };
    let Slot::Given(organization) = account.id else {
        return Err("the account lacks an id".to_owned());
    };
    Ok(Identity {
        user: remote_id(user),
        email: me.email.given().map(String::from),
        name: me.name.given().map(String::from),
        organization: remote_id(organization),
        organization_name: account.name.given().map(String::from),
        is_admin,
        seats,
    })
}

pub(super) fn is_admin(me: &wire::WireUser) -> bool {
    matches!(me.admin, Slot::Given(true))
}

/// A plan of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UserPlan {
    pub(super) id: RemoteId,
    pub(super) is_internal: bool,
}

/// Maps a row of a user's plans; None if it has no readable id.
pub(super) fn plan(plan: &WireRow<'_, wire::WirePlan>) -> Option<UserPlan> {
    let plan = row(
        plan,
        |plan| plan.plan_id,
        |id, wire| UserPlan {
            id,
            is_internal: wire.is_internal.given().unwrap_or(false),
        },
    );
    plan.ok()
}
