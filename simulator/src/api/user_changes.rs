//! Writes of users: adding, changing, removal, deactivation and profile images.
//!
//! All but the caller's own image need a system admin and the scope ADMIN_USERS.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::users::written;
use super::{Answer, Ask, done, unknown_user, user};
use crate::call::{Reply, bad_parameter};
use crate::mutate::check_email;
use crate::refusal::{self, Refusal};
use crate::state::State;
use crate::switches::PutUserReply;
use crate::world::people::{Person, ProfileImage, Seat, Standing, Status, Text};
use crate::world::{Id, Refused, World};

/// Consumer mail domains: users with such an address cannot be deactivated.
const CONSUMER_DOMAINS: &[&str] = &[
    "aol.com",
    "gmail.com",
    "gmx.net",
    "hotmail.com",
    "icloud.com",
    "outlook.com",
    "yahoo.com",
];
const MOST_IMAGE: usize = 1 << 20;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct UserIn {
    email: Option<String>,
    admin: Option<bool>,
    licensed_sheet_creator: Option<bool>,
    first_name: Option<String>,
    last_name: Option<String>,
    group_admin: Option<bool>,
    resource_viewer: Option<bool>,
}

impl UserIn {
    /// The two flags that every write must set.
    fn flags(&self) -> Result<(bool, bool), Refusal> {
        Ok((
            need(self.admin, "admin")?,
            need(self.licensed_sheet_creator, "licensedSheetCreator")?,
        ))
    }
}

pub fn need<T>(value: Option<T>, name: &str) -> Result<T, Refusal> {
    value.ok_or_else(|| {
        refusal::ATTRIBUTE_MISSING.because(format!("The attribute {name} is required."))
    })
}

fn text(value: Option<String>) -> Option<Text> {
    value.filter(|text| !text.is_empty()).map(Text::from)
}

/// `POST /users`: the new user is invited (status `PENDING`)
pub fn add(state: &mut State, ask: &Ask<'_>) -> Answer {
    ask.caller.need_write()?;
    ask.call.query.flag("sendEmail")?;
    let user: UserIn = ask.call.json()?;
    let email = need(user.email.clone(), "email")?;
    let (admin, _) = user.flags()?;
    check_email(&email).map_err(|why| refusal::ATTRIBUTE_VALUE.because(why))?;
    let now = state.now();
    let standing = World::standing_of(&email);
    let dress = |person: &mut Person| {
        person.first_name = text(user.first_name);
        person.last_name = text(user.last_name);
        person.status = Status::Pending;
        // On plans with seats, the seat decides about the license, not `licensedSheetCreator`.
        person.take_seat(
            if standing == Standing::Insider {
                Seat::Member
            } else {
                Seat::Guest
            },
            now,
        );
        person.admin = admin;
        person.group_admin = user.group_admin.unwrap_or(false);
        person.resource_viewer = user.resource_viewer.unwrap_or(false);
    };
    let added = state.world.add_user(&email, standing, now, dress);
    let id = added.map_err(|refused| {
        email_refusal(&state.world, refused, &email, refusal::ALREADY_YOURS.into())
    })?;
    Ok(done(written(super::user(state, id)?)))
}

/// The refusal for an address in use. For an alternate address it names the owner's primary
/// address.
fn email_refusal(world: &World, refused: Refused, email: &str, taken: Refusal) -> Refusal {
    let holder = world
        .people
        .by_alternate_email(email)
        .filter(|_| refused == Refused::EmailIsAlternate);
    match holder {
        Some(holder) => {
            let detail =
                json!([{"alternateEmailAddress": email, "primaryEmailAddress": holder.email}]);
            Refusal {
                detail: Some(detail),
                ..refusal::ALTERNATE_EMAIL_USED.refuse()
            }
        }
        None => taken,
    }
}

/// `PUT /users/{id}`
pub fn update(state: &mut State, ask: &Ask<'_>, id: Id) -> Answer {
    ask.caller.need_write()?;
    let change: UserIn = ask.call.json()?;
    let (admin, licensed) = change.flags()?;
    if change.email.is_some() {
        return Err(refusal::ATTRIBUTE_NOT_ALLOWED
            .because("The attribute email is not allowed for this operation."));
    }
    let person = user(state, id)?;
    if person.status == Status::Declined {
        return Err(refusal::USER_DECLINED.into());
    }
    if id == ask.caller.id && !admin {
        return Err(refusal::CANNOT_DROP_OWN_ADMIN.into());
    }
    let group_admin = change.group_admin.unwrap_or(person.group_admin);
    let resource_viewer = change.resource_viewer.unwrap_or(person.resource_viewer);
    if group_admin && !licensed {
        return Err(refusal::GROUP_ADMIN_NEEDS_LICENSE.into());
    }
    if resource_viewer && !licensed {
        return Err(refusal::RESOURCE_VIEWER_NEEDS_LICENSE.into());
    }
    let now = state.now();
    state.world.people.change(id, |person| {
        person.admin = admin;
        person.licensed_sheet_creator = licensed;
        person.group_admin = group_admin;
        person.resource_viewer = resource_viewer;
        person.first_name = text(change.first_name).or(person.first_name.take());
        person.last_name = text(change.last_name).or(person.last_name.take());
        person.modified_at = now;
    });
    let person = user(state, id)?;
    Ok(match state.switches.put_user_reply {
        PutUserReply::Result => done(written(person)),
        PutUserReply::Data => {
            let mut row = json!({"id": person.id, "email": person.email});
            for (key, text) in [
                ("firstName", person.first_name.clone()),
                ("lastName", person.last_name.clone()),
                ("name", person.name()),
            ] {
                row[key] = text.unwrap_or_default().into();
            }
            Reply::json(
                200,
                &json!({"message": "SUCCESS", "resultCode": 0, "data": [row]}),
            )
        }
    })
}

/// `DELETE /users/{id}`: removes the user from the organization and its groups
pub fn remove(state: &mut State, ask: &Ask<'_>, id: Id) -> Answer {
    ask.caller.need_write()?;
    if id == ask.caller.id {
        return Err(refusal::CANNOT_REMOVE_YOURSELF.into());
    }
    let world = &state.world;
    let person = world.people.get(id).ok_or_else(|| unknown_user(state))?;
    if !person.is_user() {
        return Err(refusal::USER_ELSEWHERE.into());
    }
    let transfers_sheets = ask.call.query.flag("transferSheets")?.unwrap_or(false);
    ask.call.query.flag("removeFromSharing")?;
    let transfer_to = ask.call.query.id("transferTo")?;
    if person.status == Status::Pending && (transfer_to.is_some() || transfers_sheets) {
        return Err(bad_parameter(
            "transferTo",
            "for a user whose invitation is pending",
        ));
    }
    if let Some(target) = transfer_to {
        check_transfer_target(world, id, target)?;
    }
    depart(state, id, transfer_to)
}

fn check_transfer_target(world: &World, from: Id, target: Id) -> Result<(), Refusal> {
    let person = world
        .people
        .get(target)
        .filter(|_| target != from)
        .ok_or(refusal::TRANSFER_TARGET_NOT_FOUND)?;
    if !person.is_insider() {
        return Err(refusal::TRANSFER_TARGET_ELSEWHERE.into());
    }
    if world.groups.is_owner(from) && !person.is_group_admin() {
        return Err(refusal::TRANSFER_TARGET_NOT_GROUP_ADMIN.into());
    }
    Ok(())
}

pub fn depart(state: &mut State, id: Id, transfer_to: Option<Id>) -> Answer {
    let now = state.now();
    let moves = state.switches.membership_moves_modified_at;
    if let Some(target) = transfer_to {
        state.world.transfer_groups(id, target, now);
    }
    match state.world.remove_user(id, now, moves) {
        Ok(()) => Ok(done(Value::Null)),
        Err(Refused::OwnsGroups) => Err(refusal::TRANSFER_TARGET_MISSING.into()),
        Err(_) => Err(unknown_user(state)),
    }
}

/// `POST /users/{id}/deactivate`
pub fn deactivate(state: &mut State, ask: &Ask<'_>, id: Id) -> Answer {
    ask.caller.need_write()?;
    if id == ask.caller.id {
        return Err(refusal::DEACTIVATE_YOURSELF.into());
    }
    let person = state
        .world
        .people
        .get(id)
        .ok_or_else(|| unknown_user(state))?;
    let domain = person
        .email
        .rsplit_once('@')
        .map_or("", |(_, domain)| domain)
        .to_lowercase();
    if CONSUMER_DOMAINS.contains(&domain.as_str()) {
        return Err(refusal::CONSUMER_DOMAIN.into());
    }
    if !person.is_insider() {
        return Err(refusal::DEACTIVATE_ELSEWHERE.into());
    }
    let now = state.now();
    state.world.people.change(id, |person| {
        person.set_status(Status::Deactivated);
        person.modified_at = now;
    });
    Ok(done(Value::Null))
}

/// `POST /users/{id}/reactivate`: restores the status and keeps the roles
pub fn reactivate(state: &mut State, ask: &Ask<'_>, id: Id) -> Answer {
    ask.caller.need_write()?;
    if id == ask.caller.id {
        return Err(refusal::REACTIVATE_YOURSELF.into());
    }
    let person = state
        .world
        .people
        .get(id)
        .ok_or_else(|| unknown_user(state))?;
    if !person.is_insider() {
        return Err(refusal::REACTIVATE_ELSEWHERE.into());
    }
    let now = state.now();
    state.world.people.change(id, |person| {
        if let Some(former) = person.status_before_deactivation {
            person.set_status(former);
            person.modified_at = now;
        }
    });
    Ok(done(Value::Null))
}

/// `POST /users/{id}/profileimage`: the caller's own; a system admin may set any
pub fn set_image(state: &mut State, ask: &Ask<'_>, id: Id) -> Answer {
    if id != ask.caller.id {
        ask.caller.need_write()?;
    }
    user(state, id)?;
    if !["image/png", "image/jpeg", "image/gif"]
        .contains(&ask.call.content_type.as_deref().unwrap_or_default())
    {
        return Err(refusal::CONTENT_TYPE_UNSUPPORTED.into());
    }
    if ask.call.body.is_empty() {
        return Err(refusal::BODY_REQUIRED.into());
    }
    if ask.call.body.len() > MOST_IMAGE {
        return Err(refusal::OUT_OF_RANGE.because("A profile image has 1 MB at the most."));
    }
    let image = ProfileImage {
        image_id: format!("u!1!{}", state.world.fresh_id()),
        height: 1050,
        width: 1050,
    };
    state
        .world
        .people
        .change(id, |person| person.image = Some(image));

    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct WithImage<'a> {
        id: Id,
        email: &'a str,
        profile_image: Option<&'a ProfileImage>,
    }
    let person = user(state, id)?;
    Ok(done(WithImage {
        id,
        email: &person.email,
        profile_image: person.image.as_ref(),
    }))
}
