//! The alternate addresses of a user: reading, adding, removing, and making one primary.

use serde::Deserialize;
use serde_json::Value;

use super::page::Page;
use super::{Answer, Ask, done, user};
use crate::call::Reply;
use crate::mutate::check_email;
use crate::refusal::{self, Refusal};
use crate::state::State;
use crate::wire::AlternateEmailRow;
use crate::world::people::AlternateEmail;
use crate::world::{DOMAIN, Id};

/// `GET /users/{id}/alternateemails`
pub fn list(state: &State, ask: &Ask<'_>, id: Id) -> Answer {
    ask.caller.need_read()?;
    let person = user(state, id)?;
    let all: Vec<usize> = (0..person.alternate_emails.len()).collect();
    let page = Page::cut(&all, ask.call, &state.switches, ask.fault)?;
    Ok(page.reply(&state.switches, |index| {
        AlternateEmailRow::from(&person.alternate_emails[index])
    }))
}

/// `GET /users/{id}/alternateemails/{id}`
pub fn get(state: &State, ask: &Ask<'_>, id: Id, email: Id) -> Answer {
    ask.caller.need_read()?;
    let found = find_alternate(state, id, email)?;
    Ok(Reply::json(200, &AlternateEmailRow::from(&found)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmailIn {
    pub email: String,
}

/// One value or a list.
#[derive(Deserialize)]
#[serde(untagged)]
pub enum OneOrMany<T> {
    Many(Vec<T>),
    One(T),
}

/// `POST /users/{id}/alternateemails`: new addresses are unconfirmed
pub fn add(state: &mut State, ask: &Ask<'_>, id: Id) -> Answer {
    ask.caller.need_write()?;
    user(state, id)?;
    let emails = match ask.call.json()? {
        OneOrMany::Many(emails) => emails,
        OneOrMany::One(email) => vec![email],
    };
    let mut added: Vec<AlternateEmail> = Vec::new();
    for EmailIn { email } in emails {
        check_email(&email).map_err(|why| refusal::ATTRIBUTE_VALUE.because(why))?;
        let is_taken = state.world.people.by_email(&email).is_some()
            || state.world.people.by_alternate_email(&email).is_some()
            || added
                .iter()
                .any(|one| one.email.eq_ignore_ascii_case(&email));
        if is_taken {
            return Err(refusal::ALTERNATE_EMAIL_IN_USE.into());
        }
        added.push(AlternateEmail {
            id: state.world.fresh_id(),
            email,
            confirmed: false,
        });
    }
    let reply = done(
        added
            .iter()
            .map(AlternateEmailRow::from)
            .collect::<Vec<_>>(),
    );
    state
        .world
        .people
        .change(id, |person| person.alternate_emails.extend(added));
    Ok(reply)
}

/// `DELETE /users/{id}/alternateemails/{id}`
pub fn remove(state: &mut State, ask: &Ask<'_>, id: Id, email: Id) -> Answer {
    ask.caller.need_write()?;
    find_alternate(state, id, email)?;
    state.world.people.change(id, |person| {
        person
            .alternate_emails
            .retain(|alternate| alternate.id != email)
    });
    Ok(done(Value::Null))
}

/// `POST /users/{id}/alternateemails/{id}/makeprimary`: swaps the two addresses
pub fn make_primary(state: &mut State, ask: &Ask<'_>, id: Id, email: Id) -> Answer {
    ask.caller.need_write()?;
    let alternate = find_alternate(state, id, email)?;
    if !alternate.confirmed {
        return Err(refusal::EMAIL_NOT_CONFIRMED.into());
    }
    if !alternate
        .email
        .rsplit_once('@')
        .is_some_and(|(_, domain)| domain.eq_ignore_ascii_case(DOMAIN))
    {
        return Err(refusal::EMAIL_DOMAIN_NOT_VALIDATED.into());
    }
    let now = state.now();
    state.world.people.change(id, |person| {
        if let Some(place) = person
            .alternate_emails
            .iter_mut()
            .find(|one| one.id == email)
        {
            std::mem::swap(&mut place.email, &mut person.email);
            person.modified_at = now;
        }
    });
    Ok(done(AlternateEmailRow::from(&alternate)))
}

fn find_alternate(state: &State, id: Id, email: Id) -> Result<AlternateEmail, Refusal> {
    let person = user(state, id)?;
    let found = person
        .alternate_emails
        .iter()
        .find(|alternate| alternate.id == email);
    found.cloned().ok_or_else(|| refusal::NOT_FOUND.into())
}
