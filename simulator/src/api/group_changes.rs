//! Writes of groups and their members.
//!
//! Group admins create groups and change those they own; a system admin changes any group.

use serde::Deserialize;
use serde_json::Value;

use super::alternate_emails::{EmailIn, OneOrMany};
use super::{Answer, Ask, done, unknown_group};
use crate::mutate::check_email;
use crate::refusal::{self, Refusal};
use crate::state::State;
use crate::wire::{GroupRow, GroupWithMembers, Member};
use crate::world::groups::Group;
use crate::world::{Id, Refused};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct GroupIn {
    name: String,
    description: Option<String>,
    #[serde(default)]
    members: Vec<EmailIn>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct GroupPatch {
    name: Option<String>,
    description: Option<String>,
    owner_id: Option<Id>,
}

fn need_group_admin(ask: &Ask<'_>) -> Result<(), Refusal> {
    ask.caller.need_write_scope()?;
    if ask.caller.is_group_admin || ask.caller.is_system_admin {
        Ok(())
    } else {
        Err(refusal::NOT_GROUP_ADMIN.into())
    }
}

/// The group, if the caller may change it.
fn own_group<'s>(state: &'s State, ask: &Ask<'_>, id: Id) -> Result<&'s Group, Refusal> {
    need_group_admin(ask)?;
    let group = state
        .world
        .groups
        .get(id)
        .ok_or_else(|| unknown_group(state))?;
    if group.owner_id == ask.caller.id || ask.caller.is_system_admin {
        Ok(group)
    } else {
        Err(refusal::NOT_AUTHORIZED.into())
    }
}

fn check_name(name: &str) -> Result<(), Refusal> {
    if name.trim().is_empty() {
        Err(refusal::ATTRIBUTE_VALUE.because("A group has a name."))
    } else {
        Ok(())
    }
}

/// `POST /groups`: the caller becomes the owner
pub fn add(state: &mut State, ask: &Ask<'_>) -> Answer {
    need_group_admin(ask)?;
    let dates = ask.call.query.dates()?;
    let group: GroupIn = ask.call.json()?;
    check_name(&group.name)?;
    check_new_members(state, &group.members)?;
    let now = state.now();
    let description = group.description.filter(|text| !text.is_empty());
    let id = state
        .world
        .add_group(&group.name, description, ask.caller.id, now)
        .map_err(|refused| match refused {
            Refused::NameTaken => Refusal::from(refusal::GROUP_NAME_TAKEN),
            _ => refusal::TOKEN_INVALID.into(),
        })?;
    enter(state, id, group.members)?;
    let group = state
        .world
        .groups
        .get(id)
        .ok_or_else(|| unknown_group(state))?;
    Ok(done(GroupWithMembers::new(
        group,
        &state.world,
        dates,
        None,
    )))
}

/// `PUT /groups/{id}`
pub fn update(state: &mut State, ask: &Ask<'_>, id: Id) -> Answer {
    own_group(state, ask, id)?;
    let dates = ask.call.query.dates()?;
    let patch: GroupPatch = ask.call.json()?;
    if let Some(name) = &patch.name {
        check_name(name)?;
        state
            .world
            .check_group_name(name, id)
            .map_err(|_| refusal::GROUP_NAME_TAKEN)?;
    }
    if let Some(owner) = patch.owner_id {
        let owner = state
            .world
            .people
            .get(owner)
            .ok_or(refusal::USER_NOT_FOUND)?;
        if !owner.is_group_admin() && !owner.is_system_admin() {
            return Err(refusal::OWNER_MUST_BE_ADMIN.into());
        }
    }
    let now = state.now();
    state.world.groups.change(id, |group| {
        if let Some(name) = patch.name {
            group.name = name;
        }
        if let Some(description) = patch.description {
            group.description = Some(description).filter(|text| !text.is_empty());
        }
        group.owner_id = patch.owner_id.unwrap_or(group.owner_id);
        group.modified_at = now;
    });
    let group = state
        .world
        .groups
        .get(id)
        .ok_or_else(|| unknown_group(state))?;
    Ok(done(GroupRow::new(group, &state.world, dates)))
}

/// `DELETE /groups/{id}`
pub fn remove(state: &mut State, ask: &Ask<'_>, id: Id) -> Answer {
    own_group(state, ask, id)?;
    state.world.groups.remove(id);
    Ok(done(Value::Null))
}

/// `POST /groups/{id}/members`: one new member, or a list, of which those in the group already are
/// skipped
pub fn add_members(state: &mut State, ask: &Ask<'_>, id: Id) -> Answer {
    own_group(state, ask, id)?;
    let (members, is_single) = match ask.call.json()? {
        OneOrMany::Many(members) => (members, false),
        OneOrMany::One(member) => (vec![member], true),
    };
    check_new_members(state, &members)?;
    let added = enter(state, id, members)?;
    let people = &state.world.people;
    let added: Vec<Member<'_>> = added
        .iter()
        .filter_map(|id| people.get(*id))
        .map(Member::from)
        .collect();
    match (is_single, added.first()) {
        (true, None) => {
            Err(refusal::ALREADY_EXISTS.because("The user is already a member of the group."))
        }
        (true, Some(member)) => Ok(done(member)),
        (false, _) => Ok(done(added)),
    }
}

/// Checks all new members before one is added. A member is named by primary address.
fn check_new_members(state: &State, members: &[EmailIn]) -> Result<(), Refusal> {
    for EmailIn { email } in members {
        check_email(email).map_err(|why| refusal::ATTRIBUTE_VALUE.because(why))?;
        if state.world.people.by_alternate_email(email).is_some() {
            return Err(refusal::MEMBER_CANNOT_BE_ADDED
                .because("A member is added by the primary address."));
        }
    }
    Ok(())
}

/// Adds those who are not members yet and returns their ids. An unknown address becomes an external
/// member.
fn enter(state: &mut State, group: Id, members: Vec<EmailIn>) -> Result<Vec<Id>, Refusal> {
    let now = state.now();
    let moves = state.switches.membership_moves_modified_at;
    let mut added = Vec::new();
    for EmailIn { email } in members {
        let known = state.world.people.by_email(&email).map(|person| person.id);
        let id = match known {
            Some(id) => id,
            None => state
                .world
                .add_external(&email, now)
                .map_err(|_| refusal::MEMBER_CANNOT_BE_ADDED)?,
        };
        match state.world.add_member(group, id, now, moves) {
            Ok(()) => added.push(id),
            Err(Refused::AlreadyMember) => {}
            Err(_) => return Err(unknown_group(state)),
        }
    }
    Ok(added)
}

/// `DELETE /groups/{id}/members/{user}`
pub fn remove_member(state: &mut State, ask: &Ask<'_>, id: Id, member: Id) -> Answer {
    own_group(state, ask, id)?;
    let now = state.now();
    let moves = state.switches.membership_moves_modified_at;
    match state.world.remove_member(id, member, now, moves) {
        Ok(()) => Ok(done(Value::Null)),
        Err(_) => Err(refusal::USER_NOT_FOUND.into()),
    }
}
