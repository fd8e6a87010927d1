//! The simulated organization: its people, groups and plan.
//!
//! This module keeps the rules that hold for every caller: an address belongs to one person, and a
//! removed user leaves all groups. The API checks permissions and selects the error. [`genesis`]
//! generates the initial world; [`people`] and [`groups`] store it.

pub mod genesis;
pub mod groups;
mod names;
mod parts;
pub mod people;

use std::collections::{BTreeSet, HashMap};

use jiff::Timestamp;

use crate::chance::Chance;
use groups::{Group, Groups};
use people::{People, Person, Seat, Standing, Status};

/// An id. Ids have up to 17 digits and exceed 2^53, so a float cannot hold every id.
pub type Id = u64;

/// The organization's domain. Users with an address in it are internal by default.
pub const DOMAIN: &str = "example.org";

/// A plan or an organization.
#[derive(Clone, Debug)]
pub struct Named {
    pub id: Id,
    pub name: String,
}

/// The reason why a change of the world is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    NoSuchPerson,
    NoSuchGroup,
    EmailTaken,
    EmailIsAlternate,
    NameTaken,
    AlreadyMember,
    NotMember,
    OwnsGroups,
}

impl Refused {
    pub fn message(self) -> &'static str {
        match self {
            Refused::NoSuchPerson => "no such person",
            Refused::NoSuchGroup => "no such group",
            Refused::EmailTaken => "the address is taken",
            Refused::EmailIsAlternate => "the address is somebody's alternate address",
            Refused::NameTaken => "the name is taken",
            Refused::AlreadyMember => "already a member",
            Refused::NotMember => "not a member",
            Refused::OwnsGroups => "owns groups",
        }
    }
}

/// The owners of the tokens that exist at the start.
#[derive(Clone, Copy, Debug)]
pub struct Cast {
    pub system_admin: Id,
    pub group_admin: Id,
    pub member: Id,
    pub no_read_users: Id,
    pub revoked: Id,
}

#[derive(Clone, Debug)]
pub struct World {
    pub people: People,
    pub groups: Groups,
    /// Removed users. By a switch, `GET /users/{id}` still returns them.
    pub removed: HashMap<Id, Person>,
    pub account: Named,
    pub plan: Named,
    /// A plan of another organization in which the system admin is a guest.
    pub foreign_plan: Named,
    pub cast: Cast,
    ids: Chance,
}

impl World {
    /// An unused id. Half of the ids are below 2^53; of the others, half are odd, and a float
    /// rounds those to a neighbor.
    pub fn fresh_id(&mut self) -> Id {
        loop {
            let id = genesis::draw_id(&mut self.ids);
            if !self.people.is_taken(id)
                && !self.groups.is_taken(id)
                && !self.removed.contains_key(&id)
            {
                return id;
            }
        }
    }

    /// The person with this primary address.
    pub fn person_of(&self, email: &str) -> Result<Id, Refused> {
        let person = self.people.by_email(email);
        person.map(|person| person.id).ok_or(Refused::NoSuchPerson)
    }

    pub fn standing_of(email: &str) -> Standing {
        let is_ours = email
            .rsplit_once('@')
            .is_some_and(|(_, domain)| domain.eq_ignore_ascii_case(DOMAIN));
        if is_ours {
            Standing::Insider
        } else {
            Standing::Guest
        }
    }

    /// Checks that nobody else has this address, as primary or alternate address.
    pub fn check_email(&self, email: &str, whose: Option<Id>) -> Result<(), Refused> {
        let other = |person: Option<&Person>| person.is_some_and(|person| Some(person.id) != whose);
        if other(self.people.by_email(email)) {
            return Err(Refused::EmailTaken);
        }
        if other(self.people.by_alternate_email(email)) {
            return Err(Refused::EmailIsAlternate);
        }
        Ok(())
    }

    /// Adds a user of the plan. An external member with that address becomes the user and keeps the
    /// id.
    pub fn add_user(
        &mut self,
        email: &str,
        standing: Standing,
        now: Timestamp,
        dress: impl FnOnce(&mut Person),
    ) -> Result<Id, Refused> {
        let known = self
            .people
            .by_email(email)
            .map(|person| (person.id, person.standing));
        if let Some((id, Standing::External)) = known {
            self.people.change(id, |person| {
                person.standing = standing;
                person.modified_at = now;
                dress(person);
            });
            return Ok(id);
        }
        self.check_email(email, None)?;
        let id = self.former_id(email).unwrap_or_else(|| self.fresh_id());
        let mut person = Person::new(id, email.to_owned(), standing, now);
        dress(&mut person);
        self.people.add(person);
        Ok(id)
    }

    /// Takes back the id of a removed user with this address: a returning user keeps the old id.
    fn former_id(&mut self, email: &str) -> Option<Id> {
        let former = self
            .removed
            .values()
            .find(|person| person.email.eq_ignore_ascii_case(email))?
            .id;
        self.removed.remove(&former);
        Some(former)
    }

    /// Adds an external member, for groups only.
    pub fn add_external(&mut self, email: &str, now: Timestamp) -> Result<Id, Refused> {
        self.add_user(email, Standing::External, now, |_| ())
    }

    /// Removes a user from the organization and from all groups.
    pub fn remove_user(
        &mut self,
        id: Id,
        now: Timestamp,
        moves_modified_at: bool,
    ) -> Result<(), Refused> {
        if !self.people.get(id).is_some_and(Person::is_user) {
            return Err(Refused::NoSuchPerson);
        }
        if self.groups.is_owner(id) {
            return Err(Refused::OwnsGroups);
        }
        for group in self.groups.of_member(id) {
            self.remove_member(group, id, now, moves_modified_at)?;
        }
        let person = self.people.remove(id).expect("looked up above");
        self.removed.insert(id, person);
        Ok(())
    }

    /// Transfers all groups of one owner to another.
    pub fn transfer_groups(&mut self, from: Id, to: Id, now: Timestamp) {
        let owned: Vec<Id> = self
            .groups
            .iter()
            .filter(|group| group.owner_id == from)
            .map(|group| group.id)
            .collect();
        for id in owned {
            self.groups.change(id, |group| {
                group.owner_id = to;
                group.modified_at = now;
            });
        }
    }

    pub fn add_group(
        &mut self,
        name: &str,
        description: Option<String>,
        owner_id: Id,
        now: Timestamp,
    ) -> Result<Id, Refused> {
        if self.groups.by_name(name).is_some() {
            return Err(Refused::NameTaken);
        }
        if self.people.get(owner_id).is_none() {
            return Err(Refused::NoSuchPerson);
        }
        let id = self.fresh_id();
        self.groups.add(Group {
            id,
            name: name.to_owned(),
            description,
            owner_id,
            created_at: now,
            modified_at: now,
            members: BTreeSet::new(),
        });
        Ok(id)
    }

    pub fn check_group_name(&self, name: &str, whose: Id) -> Result<(), Refused> {
        match self.groups.by_name(name) {
            Some(group) if group.id != whose => Err(Refused::NameTaken),
            _ => Ok(()),
        }
    }

    pub fn add_member(
        &mut self,
        group: Id,
        person: Id,
        now: Timestamp,
        moves_modified_at: bool,
    ) -> Result<(), Refused> {
        if self.people.get(person).is_none() {
            return Err(Refused::NoSuchPerson);
        }
        let is_new = self.groups.change(group, |group| {
            let is_new = group.members.insert(person);
            if is_new && moves_modified_at {
                group.modified_at = now;
            }
            is_new
        });
        match is_new {
            Some(true) => Ok(()),
            Some(false) => Err(Refused::AlreadyMember),
            None => Err(Refused::NoSuchGroup),
        }
    }

    pub fn remove_member(
        &mut self,
        group: Id,
        person: Id,
        now: Timestamp,
        moves_modified_at: bool,
    ) -> Result<(), Refused> {
        let was_there = self.groups.change(group, |group| {
            let was_there = group.members.remove(&person);
            if was_there && moves_modified_at {
                group.modified_at = now;
            }
            was_there
        });
        match was_there {
            Some(true) => Ok(()),
            Some(false) => Err(Refused::NotMember),
            None => Err(Refused::NoSuchGroup),
        }
    }

    /// Turns expired provisional seats into contributor seats, or guest seats for users who are not
    /// internal.
    pub fn end_provisional_seats(&mut self, now: Timestamp) {
        let over: Vec<Id> = self
            .people
            .roll(people::Roll::Seat(Seat::ProvisionalMember))
            .iter()
            .map(|slot| self.people.at(*slot))
            .filter(|person| person.provisional_expires_at.is_some_and(|end| end <= now))
            .map(|person| person.id)
            .collect();
        for id in over {
            self.people.change(id, |person| {
                let end = person.provisional_expires_at.unwrap_or(now);
                let seat = if person.is_insider() {
                    Seat::Contributor
                } else {
                    Seat::Guest
                };
                person.take_seat(seat, end);
            });
        }
    }

    /// Whether tokens of this person are valid: the person exists and is not deactivated.
    pub fn may_call(&self, id: Id) -> bool {
        self.people
            .get(id)
            .is_some_and(|person| person.status != Status::Deactivated)
    }
}
