//! Reads of groups: the list without members, and one group with all members.

use std::borrow::Cow;

use serde::Serialize;

use super::page::Page;
use super::{Answer, Ask, unknown_group};
use crate::call::Reply;
use crate::refusal::{self, Refusal};
use crate::state::State;
use crate::wire::{Dates, GroupRow, GroupWithMembers};
use crate::world::Id;
use crate::world::people::Slot;

fn need_read(state: &State, ask: &Ask<'_>) -> Result<(), Refusal> {
    ask.caller.need_read()?;
    let is_admin = ask.caller.is_system_admin || ask.caller.is_group_admin;
    if is_admin || state.switches.non_admin_reads_groups {
        Ok(())
    } else {
        Err(refusal::NOT_AUTHORIZED.into())
    }
}

/// `GET /groups`
pub fn list(state: &State, ask: &Ask<'_>) -> Answer {
    need_read(state, ask)?;
    let groups = &state.world.groups;
    let slots: Cow<'_, [Slot]> = match ask.call.query.moment("modifiedSince")? {
        None => Cow::Borrowed(groups.order()),
        Some(since) => groups
            .order()
            .iter()
            .copied()
            .filter(|slot| groups.at(*slot).modified_at >= since)
            .collect(),
    };
    let dates = ask.call.query.dates()?;
    let page = Page::cut(&slots, ask.call, &state.switches, ask.fault)?;
    Ok(page.reply(&state.switches, |slot| {
        GroupRow::new(groups.at(slot), &state.world, dates)
    }))
}

/// `GET /groups/{id}`
pub fn get(state: &State, ask: &Ask<'_>, id: Id) -> Answer {
    need_read(state, ask)?;
    let group = state
        .world
        .groups
        .get(id)
        .ok_or_else(|| unknown_group(state))?;
    let most = state.switches.group_members_cap;
    Ok(Reply::json(
        200,
        &GroupWithMembers::new(group, &state.world, ask.call.query.dates()?, most),
    ))
}

/// All groups with all members.
pub fn truth(state: &State) -> Vec<impl Serialize> {
    let world = &state.world;
    let rows: Vec<_> = world
        .groups
        .iter()
        .map(|group| GroupWithMembers::new(group, world, Dates::default(), None))
        .collect();
    rows
}
