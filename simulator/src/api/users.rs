//! Reads of users: the list, the profile, the caller, plans and alternate addresses.

use std::borrow::Cow;
use std::collections::BTreeSet;

use serde::{Deserialize, Serialize, de::IntoDeserializer};
use serde_json::json;

use super::page::Page;
use super::{Answer, Caller, unknown_user, user};
use crate::call::{Call, Reply, bad_parameter};
use crate::faults::Fault;
use crate::refusal::{self, Refusal};
use crate::state::State;
use crate::switches::{ModifiedSince, OmittedFlag, PlanPages};
use crate::wire::{AlternateEmailRow, ContributorName, Dates, GroupRow, PlanRow, View};
use crate::world::Id;
use crate::world::people::{Person, Roll, Seat, Slot, Status};

/// `lastLogin` is only sent with pages of so many rows.
const LAST_LOGIN_ROWS: usize = 100;
/// The fewest plans that a page may be asked to hold, and the default.
const FEWEST_PLANS: u64 = 100;

/// `GET /users`
pub fn list(state: &State, call: &Call, caller: &Caller, fault: Option<&Fault>) -> Answer {
    caller.need_read()?;
    let wanted = Wanted::of(state, call, caller)?;
    let slots = wanted.slots(state, call)?;
    let page = Page::cut(&slots, call, &state.switches, fault)?;
    let include = call.query.include(&["lastLogin"])?;
    let view = View {
        dates: call.query.dates()?,
        is_admin: caller.is_system_admin,
        has_seats: wanted.has_seats || state.switches.seats_without_plan_id,
        has_last_login: include.contains(&"lastLogin") && page.rows.len() <= LAST_LOGIN_ROWS,
        contributor_name: contributor_name(state, call)?,
    };
    let people = &state.world.people;
    Ok(page.reply(&state.switches, |slot| view.row(people.at(slot))))
}

/// Which users a list call is about.
struct Wanted {
    roll: Roll,
    /// The request asked for seats, and so gets them, and the guests.
    has_seats: bool,
    emails: Option<BTreeSet<Slot>>,
}

impl Wanted {
    fn of(state: &State, call: &Call, caller: &Caller) -> Result<Self, Refusal> {
        let plan = call.query.id("planId")?;
        if let Some(plan) = plan {
            check_plan(state, caller, plan)?;
        }
        let seat = call
            .query
            .get("seatType")
            .map(|text| parse_seat(text).ok_or_else(|| bad_parameter("seatType", text)));
        let seat = seat.transpose()?;
        if seat.is_some() {
            caller.need_system_admin()?;
        }
        let has_seats = plan.is_some() || seat.is_some();
        let roll = match seat {
            Some(seat) => Roll::Seat(seat),
            None if has_seats || state.switches.list_guests_without_plan_id => Roll::Users,
            None => Roll::Insiders,
        };
        let people = &state.world.people;
        let slot_of = |email: &str| {
            people
                .by_email(email.trim())
                .and_then(|person| people.slot(person.id))
        };
        let emails = call
            .query
            .get("email")
            .map(|list| list.split(',').filter_map(slot_of).collect());
        Ok(Self {
            roll,
            has_seats,
            emails,
        })
    }

    /// The places of those users in their order: the whole roll as it is, where nothing filters.
    fn slots<'s>(&self, state: &'s State, call: &Call) -> Result<Cow<'s, [Slot]>, Refusal> {
        let since = match state.switches.users_modified_since {
            ModifiedSince::Ignored => None,
            ModifiedSince::Honoured => call.query.moment("modifiedSince")?,
        };
        let (people, switches) = (&state.world.people, &state.switches);
        let roll = people.roll(self.roll);
        let is_wanted = |slot: &Slot| {
            let person = people.at(*slot);
            let is_hidden = (person.status == Status::Deactivated && !switches.list_deactivated)
                || (person.status == Status::Declined && !switches.list_declined);
            !is_hidden && since.is_none_or(|since| person.modified_at >= since)
        };
        if let Some(emails) = &self.emails {
            let on_roll = emails
                .iter()
                .filter(|slot| roll.binary_search(slot).is_ok());
            return Ok(on_roll.copied().filter(is_wanted).collect());
        }
        if switches.list_deactivated && switches.list_declined && since.is_none() {
            return Ok(Cow::Borrowed(roll));
        }
        Ok(roll.iter().copied().filter(is_wanted).collect())
    }
}

/// Only a system admin sees into a plan, and only into the own one.
pub fn check_plan(state: &State, caller: &Caller, plan: Id) -> Result<(), Refusal> {
    caller.need_system_admin()?;
    if plan == state.world.plan.id {
        Ok(())
    } else if plan == state.world.foreign_plan.id {
        Err(refusal::NOT_IN_PLAN.into())
    } else {
        Err(refusal::NOT_FOUND.because("Plan not found."))
    }
}

pub fn parse_seat(text: &str) -> Option<Seat> {
    let text: serde::de::value::StrDeserializer<'_, serde::de::value::Error> =
        text.into_deserializer();
    Seat::deserialize(text).ok()
}

fn contributor_name(state: &State, call: &Call) -> Result<ContributorName, Refusal> {
    Ok(match call.query.flag("displayContributorSeatType")? {
        Some(true) => ContributorName::Contributor,
        Some(false) => ContributorName::Viewer,
        None => match state.switches.contributor_flag_omitted {
            OmittedFlag::AsStored => ContributorName::AsStored,
            OmittedFlag::Viewer => ContributorName::Viewer,
        },
    })
}

/// How a single profile is shown to a caller.
fn profile_view(call: &Call, caller: &Caller) -> Result<View, Refusal> {
    Ok(View {
        dates: call.query.dates()?,
        is_admin: caller.is_system_admin,
        has_seats: false,
        has_last_login: true,
        contributor_name: ContributorName::AsStored,
    })
}

/// `GET /users/{id}`
pub fn get(state: &State, call: &Call, caller: &Caller, id: Id) -> Answer {
    caller.need_read()?;
    let gone = || {
        state
            .world
            .removed
            .get(&id)
            .filter(|_| state.switches.removed_user_answers)
    };
    let person = state
        .world
        .people
        .get(id)
        .filter(|person| person.is_user())
        .or_else(gone);
    let person = person.ok_or_else(|| unknown_user(state))?;
    Ok(Reply::json(
        200,
        &profile_view(call, caller)?.profile(person, &state.world.account),
    ))
}

/// `GET /users/me`, whatever the token's scopes
pub fn me(state: &State, call: &Call, caller: &Caller) -> Answer {
    let include = call.query.include(&["groups"])?;
    let world = &state.world;
    let person = world.people.get(caller.id).ok_or(refusal::TOKEN_INVALID)?;
    let account = if person.is_insider() {
        &world.account
    } else {
        &world.foreign_plan
    };
    let view = profile_view(call, caller)?;
    let mut profile = view.own_profile(person, account);
    if include.contains(&"groups") {
        let groups = world
            .groups
            .iter()
            .filter(|group| group.members.contains(&person.id));
        profile.data = Some(
            groups
                .map(|group| GroupRow::new(group, world, view.dates))
                .collect(),
        );
    }
    Ok(Reply::json(200, &profile))
}

/// `GET /users/sheets`: the organisation has none.
pub fn sheets(state: &State, call: &Call, caller: &Caller, fault: Option<&Fault>) -> Answer {
    caller.need_system_admin()?;
    caller.need_read()?;
    let none: [Slot; 0] = [];
    Ok(Page::cut(&none, call, &state.switches, fault)?.reply(&state.switches, |slot| slot))
}

/// A page of plans, followed by `lastKey` while it is there.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PlansPage<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    last_key: Option<String>,
    data: Vec<PlanRow<'a>>,
}

/// `GET /users/{id}/plans`
pub fn plans(state: &State, call: &Call, caller: &Caller, id: Id) -> Answer {
    caller.need_system_admin()?;
    caller.need_read()?;
    let world = &state.world;
    let person = user(state, world, id)?;
    let has_name = call.query.include(&["planName"])?.contains(&"planName");
    if let Some(most) = call.query.count("maxItems")?
        && most < FEWEST_PLANS
    {
        return Err(bad_parameter("maxItems", &most.to_string()));
    }
    let view = View {
        dates: call.query.dates()?,
        is_admin: true,
        has_seats: true,
        has_last_login: false,
        contributor_name: contributor_name(state, call)?,
    };
    let mut plans = vec![view.plan(person, &world.plan, has_name)];
    if id == world.cast.system_admin {
        plans.push(view.guest_plan(person, &world.foreign_plan, has_name));
    }
    let step: usize = match call.query.get("lastKey") {
        None => 0,
        Some(key) => key
            .strip_prefix("after-")
            .and_then(|step| step.parse().ok())
            .ok_or_else(|| bad_parameter("lastKey", key))?,
    };
    let page = match state.switches.plan_pages {
        PlanPages::Dense => PlansPage {
            last_key: None,
            data: plans,
        },
        PlanPages::Sparse => PlansPage {
            last_key: (step < plans.len()).then(|| format!("after-{}", step + 1)),
            data: step
                .checked_sub(1)
                .and_then(|index| plans.into_iter().nth(index))
                .into_iter()
                .collect(),
        },
    };
    Ok(Reply::json(200, &page))
}

/// `GET /users/{id}/alternateemails`
pub fn alternate_emails(
    state: &State,
    call: &Call,
    caller: &Caller,
    id: Id,
    fault: Option<&Fault>,
) -> Answer {
    caller.need_read()?;
    let person = user(state, &state.world, id)?;
    let all: Vec<usize> = (0..person.alternate_emails.len()).collect();
    let page = Page::cut(&all, call, &state.switches, fault)?;
    Ok(page.reply(&state.switches, |index| {
        AlternateEmailRow::from(&person.alternate_emails[index])
    }))
}

/// `GET /users/{id}/alternateemails/{id}`
pub fn alternate_email(state: &State, caller: &Caller, id: Id, email: Id) -> Answer {
    caller.need_read()?;
    let person = user(state, &state.world, id)?;
    let found = person
        .alternate_emails
        .iter()
        .find(|alternate| alternate.id == email);
    let found = found.ok_or(refusal::NOT_FOUND)?;
    Ok(Reply::json(200, &AlternateEmailRow::from(found)))
}

/// The truth about users: every user as a system admin sees them with a plan id.
pub fn truth(state: &State) -> Vec<impl Serialize> {
    let view = View {
        dates: Dates::default(),
        is_admin: true,
        has_seats: true,
        has_last_login: true,
        contributor_name: ContributorName::AsStored,
    };
    let people = &state.world.people;
    let rows: Vec<_> = people
        .roll(Roll::Users)
        .iter()
        .map(|slot| view.row(people.at(*slot)))
        .collect();
    rows
}

/// What a write says about a user.
pub fn written(person: &Person) -> serde_json::Value {
    let mut user = json!({
        "id": person.id,
        "email": person.email,
        "admin": person.admin,
        "groupAdmin": person.group_admin,
        "licensedSheetCreator": person.licensed_sheet_creator,
        "resourceViewer": person.resource_viewer,
        "status": person.status,
    });
    for (key, text) in [
        ("firstName", person.first_name.clone()),
        ("lastName", person.last_name.clone()),
        ("name", person.name()),
    ] {
        if let Some(text) = text {
            user[key] = text.into();
        }
    }
    user
}
