//! Reads of users: the list, a profile, and the caller's profile.

use std::borrow::Cow;
use std::collections::BTreeSet;

use serde::{Deserialize, Serialize, de::IntoDeserializer};
use serde_json::json;

use super::page::Page;
use super::{Answer, Ask, unknown_user};
use crate::call::{Reply, bad_parameter};
use crate::refusal::{self, Refusal};
use crate::state::State;
use crate::switches::{ModifiedSince, OmittedFlag};
use crate::wire::{ContributorName, Dates, GroupRow, View};
use crate::world::Id;
use crate::world::people::{Person, Roll, Seat, Slot, Status};

/// `lastLogin` is sent only on pages of at most this many rows.
const LAST_LOGIN_ROWS: usize = 100;

/// `GET /users`
pub fn list(state: &State, ask: &Ask<'_>) -> Answer {
    ask.caller.need_read()?;
    let wanted = Wanted::of(state, ask)?;
    let slots = wanted.slots(state, ask)?;
    let page = Page::cut(&slots, ask.call, &state.switches, ask.fault)?;
    let include = ask.call.query.include(&["lastLogin"])?;
    let view = View {
        dates: ask.call.query.dates()?,
        is_admin: ask.caller.is_system_admin,
        has_seats: wanted.has_seats || state.switches.seats_without_plan_id,
        has_last_login: include.contains(&"lastLogin") && page.rows.len() <= LAST_LOGIN_ROWS,
        contributor_name: contributor_name(state, ask)?,
    };
    let people = &state.world.people;
    Ok(page.reply(&state.switches, |slot| view.row(people.at(slot))))
}

/// The users that a list call selects.
struct Wanted {
    roll: Roll,
    /// The request asks for seats; the reply then has seats and guests.
    has_seats: bool,
    emails: Option<BTreeSet<Slot>>,
}

impl Wanted {
    fn of(state: &State, ask: &Ask<'_>) -> Result<Self, Refusal> {
        let plan = ask.call.query.id("planId")?;
        if let Some(plan) = plan {
            super::plans::check_plan(state, ask, plan)?;
        }
        let seat = ask
            .call
            .query
            .get("seatType")
            .map(|text| parse_seat(text).ok_or_else(|| bad_parameter("seatType", text)));
        let seat = seat.transpose()?;
        if seat.is_some() {
            ask.caller.need_system_admin()?;
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
        let emails = ask
            .call
            .query
            .get("email")
            .map(|list| list.split(',').filter_map(slot_of).collect());
        Ok(Self {
            roll,
            has_seats,
            emails,
        })
    }

    /// The slots of the selected users, in order. Without a filter this borrows the whole list.
    fn slots<'s>(&self, state: &'s State, ask: &Ask<'_>) -> Result<Cow<'s, [Slot]>, Refusal> {
        let since = match state.switches.users_modified_since {
            ModifiedSince::Ignored => None,
            ModifiedSince::Honoured => ask.call.query.moment("modifiedSince")?,
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

pub fn parse_seat(text: &str) -> Option<Seat> {
    let text: serde::de::value::StrDeserializer<'_, serde::de::value::Error> =
        text.into_deserializer();
    Seat::deserialize(text).ok()
}

pub fn contributor_name(state: &State, ask: &Ask<'_>) -> Result<ContributorName, Refusal> {
    Ok(match ask.call.query.flag("displayContributorSeatType")? {
        Some(true) => ContributorName::Contributor,
        Some(false) => ContributorName::Viewer,
        None => match state.switches.contributor_flag_omitted {
            OmittedFlag::AsStored => ContributorName::AsStored,
            OmittedFlag::Viewer => ContributorName::Viewer,
        },
    })
}

/// The fields of a single profile that the caller sees.
fn profile_view(ask: &Ask<'_>) -> Result<View, Refusal> {
    Ok(View {
        dates: ask.call.query.dates()?,
        is_admin: ask.caller.is_system_admin,
        has_seats: false,
        has_last_login: true,
        contributor_name: ContributorName::AsStored,
    })
}

/// `GET /users/{id}`
pub fn get(state: &State, ask: &Ask<'_>, id: Id) -> Answer {
    ask.caller.need_read()?;
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
        &profile_view(ask)?.profile(person, &state.world.account),
    ))
}

/// `GET /users/me`, with any scopes
pub fn me(state: &State, ask: &Ask<'_>) -> Answer {
    let include = ask.call.query.include(&["groups"])?;
    let world = &state.world;
    let person = world
        .people
        .get(ask.caller.id)
        .ok_or(refusal::TOKEN_INVALID)?;
    let account = if person.is_insider() {
        &world.account
    } else {
        &world.foreign_plan
    };
    let view = profile_view(ask)?;
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

/// `GET /users/sheets`: the organization has none
pub fn sheets(state: &State, ask: &Ask<'_>) -> Answer {
    ask.caller.need_system_admin()?;
    ask.caller.need_read()?;
    let none: [Slot; 0] = [];
    Ok(Page::cut(&none, ask.call, &state.switches, ask.fault)?.reply(&state.switches, |slot| slot))
}

/// All users with all fields, as a system admin sees them with a plan id.
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

/// A user in the reply to a write.
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
