//! Changes of the world outside the API: the operations of `POST /__control/mutate`.

use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use jiff::Timestamp;

use crate::api::consent::SCOPES;
use crate::state::State;
use crate::tokens::{ACCESS_LIFE_S, Consented};
use crate::world::people::{Person, Profile, Seat, Standing, Status, Text};
use crate::world::{Id, Refused, World};

/// The longest lifetime of a minted access token, well within the calendar's range.
const MOST_LIFE_S: i64 = 100 * 366 * 86_400;

/// An operation.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op {
    AddUser(NewUser),
    UpdateUser(UserChange),
    RemoveUser(ById),
    AddGroup(NewGroup),
    UpdateGroup(GroupChange),
    RemoveGroup(ById),
    AddMember(Membership),
    RemoveMember(Membership),
    DemoteToken(ByToken),
    RevokeToken(ByToken),
    ExpireToken(ByToken),
    MintToken(Login),
    MintOauth(NewGrant),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ById {
    id: Id,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ByToken {
    /// The token's name.
    token: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// The person's address.
    login: String,
}

/// A new OAuth grant without the authorization flow.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewGrant {
    /// The person's address.
    login: String,
    /// The app's client id; the first app if absent.
    client_id: Option<String>,
    #[serde(default = "reading")]
    scopes: Vec<String>,
    /// The lifetime of its first access token; later ones have the usual lifetime.
    #[serde(default = "access_life_s")]
    expires_in_s: i64,
}

impl NewGrant {
    fn check(&self) -> Result<(), String> {
        if let Some(unknown) = self
            .scopes
            .iter()
            .find(|scope| !SCOPES.contains(&scope.as_str()))
        {
            return Err(format!("there is no scope {unknown:?}"));
        }
        if !(0..=MOST_LIFE_S).contains(&self.expires_in_s) {
            return Err("expires_in_s is from 0 to a hundred years".to_owned());
        }
        Ok(())
    }
}

fn reading() -> Vec<String> {
    vec!["READ_USERS".to_owned()]
}

fn access_life_s() -> i64 {
    ACCESS_LIFE_S
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Membership {
    #[serde(alias = "groupId")]
    group_id: Id,
    #[serde(alias = "userId")]
    user_id: Id,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewGroup {
    name: String,
    description: Option<String>,
    #[serde(alias = "owner_id")]
    owner_id: Option<Id>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GroupChange {
    id: Id,
    name: Option<String>,
    #[serde(default, deserialize_with = "given")]
    description: Option<Option<String>>,
    #[serde(alias = "owner_id")]
    owner_id: Option<Id>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NewUser {
    email: String,
    #[serde(alias = "is_internal")]
    is_internal: Option<bool>,
    #[serde(flatten)]
    fields: Value,
}

#[derive(Clone, Debug, Deserialize)]
pub struct UserChange {
    id: Id,
    #[serde(flatten)]
    fields: Value,
}

/// The fields of a user that can be set, in camel case as in the API or in snake case. A text that
/// is null or empty is removed.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Fields {
    email: Option<String>,
    #[serde(alias = "is_internal")]
    is_internal: Option<bool>,
    #[serde(default, deserialize_with = "given", alias = "first_name")]
    first_name: Option<Option<String>>,
    #[serde(default, deserialize_with = "given", alias = "last_name")]
    last_name: Option<Option<String>>,
    status: Option<Status>,
    admin: Option<bool>,
    #[serde(alias = "group_admin")]
    group_admin: Option<bool>,
    #[serde(alias = "licensed_sheet_creator")]
    licensed_sheet_creator: Option<bool>,
    #[serde(alias = "resource_viewer")]
    resource_viewer: Option<bool>,
    #[serde(alias = "seat_type")]
    seat_type: Option<Seat>,
    #[serde(
        default,
        deserialize_with = "given",
        alias = "provisional_expiration_date"
    )]
    provisional_expiration_date: Option<Option<Timestamp>>,
    #[serde(default, deserialize_with = "given", alias = "last_login")]
    last_login: Option<Option<Timestamp>>,
    #[serde(default, deserialize_with = "given")]
    title: Option<Option<String>>,
    #[serde(default, deserialize_with = "given")]
    department: Option<Option<String>>,
    #[serde(default, deserialize_with = "given")]
    company: Option<Option<String>>,
    #[serde(default, deserialize_with = "given")]
    role: Option<Option<String>>,
    #[serde(default, deserialize_with = "given", alias = "work_phone")]
    work_phone: Option<Option<String>>,
    #[serde(default, deserialize_with = "given", alias = "mobile_phone")]
    mobile_phone: Option<Option<String>>,
}

/// Distinguishes null from an absent field.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::<T>::deserialize(deserializer).map(Some)
}

impl Fields {
    fn of(value: &Value) -> Result<Self, String> {
        serde_json::from_value(value.clone()).map_err(|error| error.to_string())
    }

    fn apply(self, person: &mut Person, now: Timestamp) {
        let text = |to: &mut Option<Text>, from: Option<Option<String>>| {
            if let Some(from) = from {
                *to = from.filter(|text| !text.is_empty()).map(Text::from);
            }
        };
        if let Some(email) = self.email {
            person.email = email;
        }
        if let Some(is_internal) = self.is_internal {
            person.standing = if is_internal {
                Standing::Insider
            } else {
                Standing::Guest
            };
        }
        text(&mut person.first_name, self.first_name);
        text(&mut person.last_name, self.last_name);
        if let Some(status) = self.status {
            person.set_status(status);
        }
        if let Some(seat) = self.seat_type {
            person.take_seat(seat, now);
        }
        for (to, from) in [
            (&mut person.admin, self.admin),
            (&mut person.group_admin, self.group_admin),
            (
                &mut person.licensed_sheet_creator,
                self.licensed_sheet_creator,
            ),
            (&mut person.resource_viewer, self.resource_viewer),
        ] {
            *to = from.unwrap_or(*to);
        }
        person.provisional_expires_at = self
            .provisional_expiration_date
            .unwrap_or(person.provisional_expires_at);
        person.last_login_at = self.last_login.unwrap_or(person.last_login_at);
        let Profile {
            title,
            department,
            company,
            role,
            work_phone,
            mobile_phone,
            ..
        } = &mut person.profile;
        text(title, self.title);
        text(department, self.department);
        text(company, self.company);
        text(role, self.role);
        text(work_phone, self.work_phone);
        text(mobile_phone, self.mobile_phone);
        person.modified_at = now;
    }
}

impl Op {
    /// Validates the operation. All operations of a list are checked before the first is applied.
    pub fn check(&self) -> Result<(), String> {
        match self {
            Op::AddUser(user) => {
                check_email(&user.email).and_then(|()| Fields::of(&user.fields).map(|_| ()))
            }
            Op::UpdateUser(change) => {
                let fields = Fields::of(&change.fields)?;
                fields.email.as_deref().map_or(Ok(()), check_email)
            }
            Op::AddGroup(NewGroup { name, .. })
            | Op::UpdateGroup(GroupChange {
                name: Some(name), ..
            }) if name.is_empty() => Err("a group has a name".to_owned()),
            Op::MintOauth(grant) => grant.check(),
            _ => Ok(()),
        }
    }

    /// Applies the operation and returns its result.
    pub fn apply(&self, state: &mut State) -> Result<Value, String> {
        let now = state.now();
        let moves = state.switches.membership_moves_modified_at;
        let world = &mut state.world;
        let refused = |refused: Refused| refused.message().to_owned();
        match self {
            Op::AddUser(user) => add_user(world, user, now).map(|id| json!({"id": id})),
            Op::UpdateUser(change) => {
                update_user(world, change, now).map(|()| json!({"id": change.id}))
            }
            Op::RemoveUser(ById { id }) => remove_user(world, *id, now, moves)
                .map(|()| json!({"id": id}))
                .map_err(refused),
            Op::AddGroup(group) => {
                let owner = group.owner_id.unwrap_or(world.cast.system_admin);
                let id = world
                    .add_group(&group.name, group.description.clone(), owner, now)
                    .map_err(refused)?;
                Ok(json!({"id": id}))
            }
            Op::UpdateGroup(change) => update_group(world, change, now)
                .map(|()| json!({"id": change.id}))
                .map_err(refused),
            Op::RemoveGroup(ById { id }) => world
                .groups
                .remove(*id)
                .map(|_| json!({"id": id}))
                .ok_or_else(|| refused(Refused::NoSuchGroup)),
            Op::AddMember(Membership { group_id, user_id }) => world
                .add_member(*group_id, *user_id, now, moves)
                .map(|()| json!({"id": group_id}))
                .map_err(refused),
            Op::RemoveMember(Membership { group_id, user_id }) => world
                .remove_member(*group_id, *user_id, now, moves)
                .map(|()| json!({"id": group_id}))
                .map_err(refused),
            Op::DemoteToken(ByToken { token }) => {
                let person = state
                    .tokens
                    .person_of(token)
                    .ok_or_else(|| no_token(token))?;
                let demoted = world.people.change(person, |person| {
                    person.admin = false;
                    person.group_admin = false;
                    person.modified_at = now;
                });
                demoted
                    .map(|()| json!({"token": token, "id": person}))
                    .ok_or_else(|| refused(Refused::NoSuchPerson))
            }
            Op::RevokeToken(ByToken { token }) => {
                if state.tokens.revoke_named(token) {
                    Ok(json!({"token": token}))
                } else {
                    Err(no_token(token))
                }
            }
            Op::ExpireToken(ByToken { token }) => {
                if state.tokens.expire_named(token, now) {
                    Ok(json!({"token": token}))
                } else {
                    Err(no_token(token))
                }
            }
            Op::MintToken(Login { login }) => {
                let person = world.person_of(login).map_err(refused)?;
                let (token, value) = state.tokens.mint(person, now);
                Ok(json!({"token": token, "value": value, "login": login}))
            }
            Op::MintOauth(grant) => {
                let person = world.person_of(&grant.login).map_err(refused)?;
                let client = match &grant.client_id {
                    None => Some(state.clients.first()),
                    Some(id) => state.clients.find(id),
                };
                let client = client.ok_or("there is no such client_id")?;
                let consented = Consented {
                    client_id: client.client_id.clone(),
                    person,
                    scopes: grant.scopes.clone(),
                    challenge: None,
                };
                let (token, pair) = state.tokens.begin_grant(consented, grant.expires_in_s, now);
                Ok(json!({
                    "token": token,
                    "login": grant.login,
                    "client_id": client.client_id,
                    "access_token": pair.access_token,
                    "refresh_token": pair.refresh_token,
                    "expires_in": pair.expires_in,
                }))
            }
        }
    }
}

fn no_token(name: &str) -> String {
    format!("there is no live token {name:?}")
}

pub fn check_email(email: &str) -> Result<(), String> {
    let is_address = email.split_once('@').is_some_and(|(local, domain)| {
        !local.is_empty() && domain.contains('.') && !domain.contains('@')
    });
    let is_plain = !email
        .chars()
        .any(|letter| letter.is_whitespace() || letter.is_control() || letter == ',');
    if is_address && is_plain {
        Ok(())
    } else {
        Err(format!("{email:?} is no e-mail address"))
    }
}

fn add_user(world: &mut World, user: &NewUser, now: Timestamp) -> Result<Id, String> {
    let fields = Fields::of(&user.fields)?;
    let standing = match user.is_internal {
        Some(true) => Standing::Insider,
        Some(false) => Standing::Guest,
        None => World::standing_of(&user.email),
    };
    let dress = |person: &mut Person| {
        // Like most users: active, with the usual seat for an internal user or a guest.
        person.take_seat(
            if standing == Standing::Insider {
                Seat::Member
            } else {
                Seat::Guest
            },
            now,
        );
        fields.apply(person, now);
    };
    world
        .add_user(&user.email, standing, now, dress)
        .map_err(|refused| refused.message().to_owned())
}

fn update_user(world: &mut World, change: &UserChange, now: Timestamp) -> Result<(), String> {
    let fields = Fields::of(&change.fields)?;
    if !world.people.get(change.id).is_some_and(Person::is_user) {
        return Err(Refused::NoSuchPerson.message().to_owned());
    }
    if let Some(email) = &fields.email {
        world
            .check_email(email, Some(change.id))
            .map_err(|refused| refused.message().to_owned())?;
    }
    world
        .people
        .change(change.id, |person| fields.apply(person, now));
    Ok(())
}

/// Removes a user. Another active system admin becomes the owner of the user's groups, if there is
/// one.
fn remove_user(world: &mut World, id: Id, now: Timestamp, moves: bool) -> Result<(), Refused> {
    let heir = world
        .people
        .iter()
        .find(|person| person.id != id && person.is_system_admin());
    let heir = heir.map(|person| person.id);
    if let Some(heir) = heir.filter(|_| world.people.get(id).is_some_and(Person::is_user)) {
        world.transfer_groups(id, heir, now);
    }
    world.remove_user(id, now, moves)
}

fn update_group(world: &mut World, change: &GroupChange, now: Timestamp) -> Result<(), Refused> {
    if let Some(name) = &change.name {
        world.check_group_name(name, change.id)?;
    }
    if change
        .owner_id
        .is_some_and(|owner| world.people.get(owner).is_none())
    {
        return Err(Refused::NoSuchPerson);
    }
    let changed = world.groups.change(change.id, |group| {
        if let Some(name) = &change.name {
            group.name.clone_from(name);
        }
        if let Some(description) = &change.description {
            group.description.clone_from(description);
        }
        group.owner_id = change.owner_id.unwrap_or(group.owner_id);
        group.modified_at = now;
    });
    changed.ok_or(Refused::NoSuchGroup)
}
