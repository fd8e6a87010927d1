//! The plans of a user, and upgrades and downgrades of seats.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::user_changes::{depart, need};
use super::users::contributor_name;
use super::{Answer, Ask, done, user};
use crate::call::{Reply, bad_parameter};
use crate::refusal::{self, Refusal};
use crate::state::State;
use crate::switches::PlanPages;
use crate::wire::{PlanRow, View};
use crate::world::Id;
use crate::world::people::{Person, Seat};
/// The smallest `maxItems` that is accepted.
const FEWEST_PLANS: u64 = 100;

/// Only a system admin may read or change seats, and only those of the organization's own plan.
pub fn check_plan(state: &State, ask: &Ask<'_>, plan: Id) -> Result<(), Refusal> {
    ask.caller.need_system_admin()?;
    if plan == state.world.plan.id {
        Ok(())
    } else if plan == state.world.foreign_plan.id {
        Err(refusal::NOT_IN_PLAN.into())
    } else {
        Err(refusal::NOT_FOUND.because("Plan not found."))
    }
}

/// A page of plans. More pages follow while `lastKey` is present.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PlansPage<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    last_key: Option<String>,
    data: Vec<PlanRow<'a>>,
}

/// `GET /users/{id}/plans`
pub fn list(state: &State, ask: &Ask<'_>, id: Id) -> Answer {
    ask.caller.need_system_admin()?;
    ask.caller.need_read()?;
    let world = &state.world;
    let person = user(state, id)?;
    let has_name = ask.call.query.include(&["planName"])?.contains(&"planName");
    if let Some(most) = ask.call.query.count("maxItems")?
        && most < FEWEST_PLANS
    {
        return Err(bad_parameter("maxItems", &most.to_string()));
    }
    let view = View {
        dates: ask.call.query.dates()?,
        is_admin: true,
        has_seats: true,
        has_last_login: false,
        contributor_name: contributor_name(state, ask)?,
    };
    let mut plans = vec![view.plan(person, &world.plan, has_name)];
    if id == world.cast.system_admin {
        plans.push(view.guest_plan(person, &world.foreign_plan, has_name));
    }
    let step: usize = match ask.call.query.get("lastKey") {
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

/// `DELETE /users/{id}/plans/{plan}`
pub fn leave(state: &mut State, ask: &Ask<'_>, id: Id, plan: Id) -> Answer {
    seated(state, ask, id, plan)?;
    if id == ask.caller.id {
        return Err(refusal::CANNOT_REMOVE_YOURSELF.into());
    }
    depart(state, id, None)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SeatIn {
    seat_type: Option<Seat>,
}

/// `POST /users/{id}/plans/{plan}/upgrade`: to a member, unless the body names another seat
pub fn upgrade(state: &mut State, ask: &Ask<'_>, id: Id, plan: Id) -> Answer {
    let person = seated(state, ask, id, plan)?;
    let asked = if ask.call.body.is_empty() {
        None
    } else {
        ask.call.json::<SeatIn>()?.seat_type
    };
    let seat = asked.unwrap_or(Seat::Member);
    let fits = match seat {
        Seat::Member => true,
        Seat::Guest => !person.is_insider(),
        _ => false,
    };
    take_seat(state, id, seat, fits)
}

/// `POST /users/{id}/plans/{plan}/downgrade`: internal users to contributors, others to guests
pub fn downgrade(state: &mut State, ask: &Ask<'_>, id: Id, plan: Id) -> Answer {
    let person = seated(state, ask, id, plan)?;
    let seat = need(ask.call.json::<SeatIn>()?.seat_type, "seatType")?;
    let fits = match seat {
        Seat::Contributor => person.is_insider(),
        Seat::Guest => !person.is_insider(),
        _ => false,
    };
    take_seat(state, id, seat, fits)
}

/// The user, if the caller may change their seat.
fn seated<'s>(state: &'s State, ask: &Ask<'_>, id: Id, plan: Id) -> Result<&'s Person, Refusal> {
    ask.caller.need_write()?;
    check_plan(state, ask, plan)?;
    user(state, id)
}

fn take_seat(state: &mut State, id: Id, seat: Seat, fits: bool) -> Answer {
    if !fits {
        return Err(refusal::ATTRIBUTE_VALUE
            .because("The value of seatType does not fit the operation and the user."));
    }
    let now = state.now();
    state
        .world
        .people
        .change(id, |person| person.take_seat(seat, now));
    Ok(done(Value::Null))
}
