//! The JSON of people and groups, which depends on the caller and the request.
//!
//! A row omits a field that the caller may not see or that is not set; a profile writes an unset
//! text as `""`. Only `provisionalExpirationDate` is ever sent as `null`.

use std::borrow::Cow;

use jiff::Timestamp;
use serde::Serialize;

use crate::world::groups::Group;
use crate::world::people::{AlternateEmail, Person, ProfileImage, Seat, Status};
use crate::world::{Id, Named, World};

/// A date: text in UTC, or milliseconds since 1970 if the request has `numericDates=true`.
#[derive(Serialize)]
#[serde(untagged)]
pub enum Date {
    Text(String),
    Millis(i64),
}

/// The date format of a request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Dates {
    pub is_numeric: bool,
}

impl Dates {
    /// With whole seconds, like most dates.
    pub fn whole(self, at: Timestamp) -> Date {
        self.write(at, |at| format!("{at:.0}"))
    }

    /// With six digits of a second, like the dates of seats.
    pub fn fine(self, at: Timestamp) -> Date {
        self.write(at, |at| format!("{at:.6}"))
    }

    fn write(self, at: Timestamp, text: impl FnOnce(Timestamp) -> String) -> Date {
        if self.is_numeric {
            Date::Millis(at.as_millisecond())
        } else {
            Date::Text(text(at))
        }
    }
}

/// The name under which a contributor seat is shown; it has an old and a new name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContributorName {
    AsStored,
    Contributor,
    Viewer,
}

impl ContributorName {
    pub fn show(self, seat: Seat) -> Seat {
        match (self, seat) {
            (ContributorName::Contributor, Seat::Viewer) => Seat::Contributor,
            (ContributorName::Viewer, Seat::Contributor) => Seat::Viewer,
            (_, seat) => seat,
        }
    }
}

/// The fields of people that the caller sees.
#[derive(Clone, Copy, Debug)]
pub struct View {
    pub dates: Dates,
    /// The caller is a system admin.
    pub is_admin: bool,
    /// The request asked for the seats of a plan.
    pub has_seats: bool,
    pub has_last_login: bool,
    pub contributor_name: ContributorName,
}

/// A user in a list.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UserRow<'a> {
    id: Id,
    email: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<Cow<'static, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    profile_image: Option<&'a ProfileImage>,
    #[serde(flatten)]
    for_admins: Option<AdminPart>,
    #[serde(flatten)]
    seat: Option<SeatPart>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AdminPart {
    #[serde(flatten)]
    flags: Flags,
    status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    is_internal: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sheet_count: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_login: Option<Date>,
    #[serde(skip_serializing_if = "Option::is_none")]
    custom_welcome_screen_viewed: Option<Date>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Flags {
    admin: bool,
    group_admin: bool,
    licensed_sheet_creator: bool,
    resource_viewer: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SeatPart {
    seat_type: Seat,
    seat_type_last_changed_at: Date,
    /// Omitted for seats that never end; `null` for a provisional seat without an end.
    #[serde(skip_serializing_if = "Option::is_none")]
    provisional_expiration_date: Option<Option<Date>>,
}

/// A user in the replies of `GET /users/{id}` and `GET /users/me`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UserProfile<'a> {
    id: Id,
    account: AccountRef<'a>,
    email: &'a str,
    first_name: &'a str,
    last_name: &'a str,
    company: &'a str,
    department: &'a str,
    title: &'a str,
    role: &'a str,
    mobile_phone: &'a str,
    work_phone: &'a str,
    locale: &'a str,
    time_zone: &'a str,
    jira_admin: bool,
    salesforce_admin: bool,
    salesforce_user: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    alternate_emails: Option<Vec<AlternateEmailRow<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    profile_image: Option<&'a ProfileImage>,
    #[serde(flatten)]
    for_admins: Option<AdminPart>,
    #[serde(flatten)]
    own_flags: Option<Flags>,
    /// The caller's groups, for `/users/me?include=groups`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Vec<GroupRow<'a>>>,
}

#[derive(Serialize)]
struct AccountRef<'a> {
    id: Id,
    name: &'a str,
}

#[derive(Serialize)]
pub struct AlternateEmailRow<'a> {
    id: Id,
    email: &'a str,
    confirmed: bool,
}

impl<'a> From<&'a AlternateEmail> for AlternateEmailRow<'a> {
    fn from(alternate: &'a AlternateEmail) -> Self {
        Self {
            id: alternate.id,
            email: &alternate.email,
            confirmed: alternate.confirmed,
        }
    }
}

/// A plan of a user.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlanRow<'a> {
    plan_id: Id,
    #[serde(skip_serializing_if = "Option::is_none")]
    plan_name: Option<&'a str>,
    seat_type: Seat,
    seat_type_last_changed_at: Date,
    provisional_expiration_date: Option<Date>,
    is_internal: bool,
}

impl View {
    pub fn row<'a>(&self, person: &'a Person) -> UserRow<'a> {
        UserRow {
            id: person.id,
            email: &person.email,
            first_name: person.first_name.as_deref(),
            last_name: person.last_name.as_deref(),
            name: person.name(),
            profile_image: person.image.as_ref(),
            for_admins: self
                .is_admin
                .then(|| self.admin_part(person, Some(person.is_insider()))),
            seat: (self.is_admin && self.has_seats).then(|| self.seat_part(person)),
        }
    }

    pub fn profile<'a>(&self, person: &'a Person, account: &'a Named) -> UserProfile<'a> {
        let profile = &person.profile;
        let alternates: Vec<_> = person
            .alternate_emails
            .iter()
            .map(AlternateEmailRow::from)
            .collect();
        UserProfile {
            id: person.id,
            account: AccountRef {
                id: account.id,
                name: &account.name,
            },
            email: &person.email,
            first_name: person.first_name.as_deref().unwrap_or_default(),
            last_name: person.last_name.as_deref().unwrap_or_default(),
            company: profile.company.as_deref().unwrap_or_default(),
            department: profile.department.as_deref().unwrap_or_default(),
            title: profile.title.as_deref().unwrap_or_default(),
            role: profile.role.as_deref().unwrap_or_default(),
            mobile_phone: profile.mobile_phone.as_deref().unwrap_or_default(),
            work_phone: profile.work_phone.as_deref().unwrap_or_default(),
            locale: &profile.locale,
            time_zone: &profile.time_zone,
            jira_admin: profile.jira_admin,
            salesforce_admin: profile.salesforce_admin,
            salesforce_user: profile.salesforce_user,
            alternate_emails: (!alternates.is_empty()).then_some(alternates),
            profile_image: person.image.as_ref(),
            for_admins: self.is_admin.then(|| self.admin_part(person, None)),
            own_flags: None,
            data: None,
        }
    }

    /// The caller's own profile: it always has the flags and never the status.
    pub fn own_profile<'a>(&self, person: &'a Person, account: &'a Named) -> UserProfile<'a> {
        let mut profile = self.profile(person, account);
        profile.for_admins = None;
        profile.own_flags = Some(flags(person));
        profile
    }

    fn admin_part(&self, person: &Person, is_internal: Option<bool>) -> AdminPart {
        AdminPart {
            flags: flags(person),
            status: person.status,
            is_internal,
            sheet_count: (person.status == Status::Active).then_some(-1),
            last_login: person
                .last_login_at
                .filter(|_| self.has_last_login)
                .map(|at| self.dates.whole(at)),
            custom_welcome_screen_viewed: person
                .welcome_screen_viewed_at
                .map(|at| self.dates.whole(at)),
        }
    }

    fn seat_part(&self, person: &Person) -> SeatPart {
        SeatPart {
            seat_type: self.contributor_name.show(person.seat),
            seat_type_last_changed_at: self.dates.fine(person.seat_changed_at),
            provisional_expiration_date: (person.seat == Seat::ProvisionalMember)
                .then(|| person.provisional_expires_at.map(|at| self.dates.fine(at))),
        }
    }

    pub fn plan<'a>(&self, person: &Person, plan: &'a Named, has_name: bool) -> PlanRow<'a> {
        PlanRow {
            plan_id: plan.id,
            plan_name: has_name.then_some(plan.name.as_str()),
            seat_type: self.contributor_name.show(person.seat),
            seat_type_last_changed_at: self.dates.fine(person.seat_changed_at),
            provisional_expiration_date: person
                .provisional_expires_at
                .map(|at| self.dates.fine(at)),
            is_internal: person.is_insider(),
        }
    }

    /// A plan of another organization in which the person is a guest.
    pub fn guest_plan<'a>(&self, person: &Person, plan: &'a Named, has_name: bool) -> PlanRow<'a> {
        PlanRow {
            seat_type: Seat::Guest,
            provisional_expiration_date: None,
            is_internal: false,
            ..self.plan(person, plan, has_name)
        }
    }
}

fn flags(person: &Person) -> Flags {
    Flags {
        admin: person.admin,
        group_admin: person.group_admin,
        licensed_sheet_creator: person.licensed_sheet_creator,
        resource_viewer: person.resource_viewer,
    }
}

/// A group in a list, without its members or their number.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupRow<'a> {
    id: Id,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<&'a str>,
    owner_id: Id,
    created_at: Date,
    modified_at: Date,
}

impl<'a> GroupRow<'a> {
    pub fn new(group: &'a Group, world: &'a World, dates: Dates) -> Self {
        Self {
            id: group.id,
            name: &group.name,
            description: group.description.as_deref(),
            owner: world
                .people
                .get(group.owner_id)
                .map(|owner| owner.email.as_str()),
            owner_id: group.owner_id,
            created_at: dates.whole(group.created_at),
            modified_at: dates.whole(group.modified_at),
        }
    }
}

/// A group with all its members.
#[derive(Serialize)]
pub struct GroupWithMembers<'a> {
    #[serde(flatten)]
    row: GroupRow<'a>,
    members: Vec<Member<'a>>,
}

impl<'a> GroupWithMembers<'a> {
    /// `most` is the largest number of members to send; a switch sets it.
    pub fn new(group: &'a Group, world: &'a World, dates: Dates, most: Option<usize>) -> Self {
        let members = group
            .members
            .iter()
            .filter_map(|id| world.people.get(*id))
            .map(Member::from);
        Self {
            row: GroupRow::new(group, world, dates),
            members: members.take(most.unwrap_or(usize::MAX)).collect(),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Member<'a> {
    id: Id,
    email: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<Cow<'static, str>>,
}

impl<'a> From<&'a Person> for Member<'a> {
    fn from(person: &'a Person) -> Self {
        Self {
            id: person.id,
            email: &person.email,
            first_name: person.first_name.as_deref(),
            last_name: person.last_name.as_deref(),
            name: person.name(),
        }
    }
}
