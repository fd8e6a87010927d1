//! People, and the orders in which the API lists them.
//!
//! Everybody lies in a slot that never moves; a list is a vector of slots in the order of arrival.
//! A page is therefore a slice, whatever the size of the world, and a removal shifts the rows
//! behind it by one, as it does to a client that pages while the world changes.

use std::borrow::Cow;
use std::collections::HashMap;

use jiff::Timestamp;

use super::Id;

/// Generated texts are mostly constants; those that come by API are owned.
pub type Text = Cow<'static, str>;

/// How somebody stands to the organisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// A user of the plan whose address belongs to the plan's domain.
    Insider,
    /// A user of the plan from outside; listed only where seats are asked for.
    Guest,
    /// A member of groups, and no user of the plan at all.
    External,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Status {
    Active,
    Pending,
    Declined,
    Deactivated,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Seat {
    Member,
    ProvisionalMember,
    Guest,
    Contributor,
    /// The older name of CONTRIBUTOR: one kind of seat under two names.
    Viewer,
}

impl Seat {
    const KINDS: usize = 4;

    fn kind(self) -> usize {
        match self {
            Seat::Member => 0,
            Seat::ProvisionalMember => 1,
            Seat::Guest => 2,
            Seat::Contributor | Seat::Viewer => 3,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct AlternateEmail {
    pub id: Id,
    pub email: String,
    pub confirmed: bool,
}

#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProfileImage {
    pub image_id: String,
    pub height: u32,
    pub width: u32,
}

/// The free texts of a profile, and the flags of the connectors to other products.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    pub title: Option<Text>,
    pub department: Option<Text>,
    pub company: Option<Text>,
    pub role: Option<Text>,
    pub work_phone: Option<Text>,
    pub mobile_phone: Option<Text>,
    pub locale: Text,
    pub time_zone: Text,
    pub jira_admin: bool,
    pub salesforce_admin: bool,
    pub salesforce_user: bool,
}

impl Default for Profile {
    fn default() -> Self {
        Self {
            title: None,
            department: None,
            company: None,
            role: None,
            work_phone: None,
            mobile_phone: None,
            locale: "en_US".into(),
            time_zone: "US/Pacific".into(),
            jira_admin: false,
            salesforce_admin: false,
            salesforce_user: false,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Person {
    pub id: Id,
    pub email: String,
    pub first_name: Option<Text>,
    pub last_name: Option<Text>,
    pub standing: Standing,
    pub status: Status,
    /// What a reactivation brings back.
    pub status_before_deactivation: Option<Status>,
    pub admin: bool,
    pub group_admin: bool,
    pub licensed_sheet_creator: bool,
    pub resource_viewer: bool,
    pub seat: Seat,
    pub seat_changed_at: Timestamp,
    pub provisional_expires_at: Option<Timestamp>,
    pub last_login_at: Option<Timestamp>,
    pub welcome_screen_viewed_at: Option<Timestamp>,
    pub modified_at: Timestamp,
    pub profile: Profile,
    pub image: Option<ProfileImage>,
    pub alternate_emails: Vec<AlternateEmail>,
}

impl Person {
    /// Somebody of whom nothing but the address is known yet.
    pub fn new(id: Id, email: String, standing: Standing, now: Timestamp) -> Self {
        Self {
            id,
            email,
            first_name: None,
            last_name: None,
            standing,
            status: Status::Active,
            status_before_deactivation: None,
            admin: false,
            group_admin: false,
            licensed_sheet_creator: false,
            resource_viewer: false,
            seat: if standing == Standing::Insider {
                Seat::Contributor
            } else {
                Seat::Guest
            },
            seat_changed_at: now,
            provisional_expires_at: None,
            last_login_at: None,
            welcome_screen_viewed_at: None,
            modified_at: now,
            profile: Profile::default(),
            image: None,
            alternate_emails: Vec::new(),
        }
    }

    /// The name as shown: first and last, where there are any.
    pub fn name(&self) -> Option<Text> {
        match (&self.first_name, &self.last_name) {
            (Some(first), Some(last)) => Some(format!("{first} {last}").into()),
            (Some(one), None) | (None, Some(one)) => Some(one.clone()),
            (None, None) => None,
        }
    }

    /// A user of the plan, insider or guest.
    pub fn is_user(&self) -> bool {
        self.standing != Standing::External
    }

    pub fn is_insider(&self) -> bool {
        self.standing == Standing::Insider
    }

    pub fn is_system_admin(&self) -> bool {
        self.is_insider() && self.admin && self.status == Status::Active
    }

    pub fn is_group_admin(&self) -> bool {
        self.is_insider() && self.group_admin && self.status == Status::Active
    }

    /// Gives another status; a deactivation remembers the one before.
    pub fn set_status(&mut self, status: Status) {
        if self.status == status {
            return;
        }
        let is_end = status == Status::Deactivated;
        self.status_before_deactivation = is_end.then_some(self.status);
        self.status = status;
    }

    /// Gives another kind of seat, and notes when. The same kind again changes nothing.
    pub fn take_seat(&mut self, seat: Seat, now: Timestamp) {
        if self.seat == seat {
            return;
        }
        self.seat = seat;
        self.seat_changed_at = now;
        self.modified_at = now;
        self.licensed_sheet_creator = matches!(seat, Seat::Member | Seat::ProvisionalMember);
        if seat != Seat::ProvisionalMember {
            self.provisional_expires_at = None;
        }
    }
}

/// Which people a list is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Roll {
    Insiders,
    Users,
    Seat(Seat),
}

/// A place that its holder keeps for good.
pub type Slot = u32;

/// Everybody, found by id, by address and by place in a list.
#[derive(Clone, Debug, Default)]
pub struct People {
    slots: Vec<Option<Person>>,
    by_id: HashMap<Id, Slot>,
    by_email: HashMap<String, Slot>,
    by_alternate_email: HashMap<String, Slot>,
    users: Vec<Slot>,
    insiders: Vec<Slot>,
    seats: [Vec<Slot>; Seat::KINDS],
}

impl People {
    pub fn reserve(&mut self, more: usize) {
        self.slots.reserve(more);
        self.by_id.reserve(more);
        self.by_email.reserve(more);
    }

    pub fn get(&self, id: Id) -> Option<&Person> {
        self.by_id.get(&id).map(|slot| self.at(*slot))
    }

    /// By primary address, in any case of letters.
    pub fn by_email(&self, email: &str) -> Option<&Person> {
        self.by_email
            .get(&email.to_lowercase())
            .map(|slot| self.at(*slot))
    }

    pub fn by_alternate_email(&self, email: &str) -> Option<&Person> {
        self.by_alternate_email
            .get(&email.to_lowercase())
            .map(|slot| self.at(*slot))
    }

    pub fn roll(&self, roll: Roll) -> &[Slot] {
        match roll {
            Roll::Insiders => &self.insiders,
            Roll::Users => &self.users,
            Roll::Seat(seat) => &self.seats[seat.kind()],
        }
    }

    /// # Panics
    /// If the slot is not one that a [`roll`](Self::roll) just gave.
    pub fn at(&self, slot: Slot) -> &Person {
        self.slots[slot as usize]
            .as_ref()
            .expect("an index never points at an empty slot")
    }

    /// The slot of a user, for keeping lists in their order.
    pub fn slot(&self, id: Id) -> Option<Slot> {
        self.by_id.get(&id).copied()
    }

    /// Everybody, external members too, in order of arrival.
    pub fn iter(&self) -> impl Iterator<Item = &Person> {
        self.slots.iter().flatten()
    }

    pub fn is_taken(&self, id: Id) -> bool {
        self.by_id.contains_key(&id)
    }

    /// # Panics
    /// If the id or the address is taken: the caller has asked before.
    pub fn add(&mut self, person: Person) {
        let slot = Slot::try_from(self.slots.len()).expect("fewer than 2^32 people");
        assert!(
            self.by_id.insert(person.id, slot).is_none(),
            "an id belongs to one person"
        );
        self.slots.push(Some(person));
        self.index(slot);
    }

    pub fn remove(&mut self, id: Id) -> Option<Person> {
        let slot = self.by_id.remove(&id)?;
        self.unindex(slot);
        self.slots[slot as usize].take()
    }

    /// Changes somebody and keeps every list right. The id stays.
    pub fn change<T>(&mut self, id: Id, change: impl FnOnce(&mut Person) -> T) -> Option<T> {
        let slot = *self.by_id.get(&id)?;
        self.unindex(slot);
        let person = self.slots[slot as usize]
            .as_mut()
            .expect("an index never points at an empty slot");
        let answer = change(person);
        assert_eq!(person.id, id, "an id stays");
        self.index(slot);
        Some(answer)
    }

    fn index(&mut self, slot: Slot) {
        let person = self.slots[slot as usize]
            .as_ref()
            .expect("an occupied slot is indexed");
        let email = person.email.to_lowercase();
        assert!(
            self.by_email.insert(email, slot).is_none(),
            "an address belongs to one person"
        );
        for alternate in &person.alternate_emails {
            self.by_alternate_email
                .insert(alternate.email.to_lowercase(), slot);
        }
        if person.is_user() {
            enter(&mut self.users, slot);
            enter(&mut self.seats[person.seat.kind()], slot);
        }
        if person.is_insider() {
            enter(&mut self.insiders, slot);
        }
    }

    fn unindex(&mut self, slot: Slot) {
        let person = self.slots[slot as usize]
            .as_ref()
            .expect("an occupied slot is indexed");
        self.by_email.remove(&person.email.to_lowercase());
        for alternate in &person.alternate_emails {
            self.by_alternate_email
                .remove(&alternate.email.to_lowercase());
        }
        if person.is_user() {
            leave(&mut self.users, slot);
            leave(&mut self.seats[person.seat.kind()], slot);
        }
        if person.is_insider() {
            leave(&mut self.insiders, slot);
        }
    }
}

/// Slots only grow, so that a list in order of arrival is a sorted one.
pub(super) fn enter(list: &mut Vec<Slot>, slot: Slot) {
    if list.last().is_none_or(|last| *last < slot) {
        list.push(slot);
    } else if let Err(place) = list.binary_search(&slot) {
        list.insert(place, slot);
    }
}

pub(super) fn leave(list: &mut Vec<Slot>, slot: Slot) {
    if let Ok(place) = list.binary_search(&slot) {
        list.remove(place);
    }
}
