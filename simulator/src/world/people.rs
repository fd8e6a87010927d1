//! People, and the lists in which the API returns them.
//!
//! Each person has a slot that never changes; a list is a vector of slots in order of creation. A
//! page is therefore a slice at any size of the world. A removal shifts the following rows by one,
//! also for a client in the middle of paging.

use std::borrow::Cow;
use std::collections::HashMap;

use jiff::Timestamp;

use super::Id;

/// A text: mostly a constant for generated people, owned if it came by the API.
pub type Text = Cow<'static, str>;

/// The relation of a person to the organization.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// A user of the plan with an address in the organization's domain, unless a mutation says
    /// otherwise.
    Insider,
    /// A user of the plan from outside the organization, listed only if the request asks for seats.
    Guest,
    /// Not a user of the plan; only a member of groups.
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
    /// The older name of CONTRIBUTOR, for the same kind of seat.
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

/// The texts of a profile, and the flags of connectors to other products.
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
    /// The status that a reactivation restores.
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
    /// A person with an address and no other data.
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

    /// The display name: first and last name, as far as they are set.
    pub fn name(&self) -> Option<Text> {
        match (&self.first_name, &self.last_name) {
            (Some(first), Some(last)) => Some(format!("{first} {last}").into()),
            (Some(one), None) | (None, Some(one)) => Some(one.clone()),
            (None, None) => None,
        }
    }

    /// Whether this is a user of the plan, internal or guest.
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

    /// Sets the status; a deactivation remembers the previous one.
    pub fn set_status(&mut self, status: Status) {
        if self.status == status {
            return;
        }
        let is_end = status == Status::Deactivated;
        self.status_before_deactivation = is_end.then_some(self.status);
        self.status = status;
    }

    /// Sets the seat and the time of the change. The same seat again changes nothing.
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

/// The people that a list contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Roll {
    Insiders,
    Users,
    Seat(Seat),
}

/// The position of a person or group, which never changes.
pub type Slot = u32;

/// All people, indexed by id, by address and by list position.
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

    /// Finds a person by primary address, ignoring case.
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
    /// If the slot did not come from the current [`roll`](Self::roll).
    pub fn at(&self, slot: Slot) -> &Person {
        self.slots[slot as usize]
            .as_ref()
            .expect("an index never points at an empty slot")
    }

    /// The slot of a person, with which lists are kept in order.
    pub fn slot(&self, id: Id) -> Option<Slot> {
        self.by_id.get(&id).copied()
    }

    /// All people, including external members, in order of creation.
    pub fn iter(&self) -> impl Iterator<Item = &Person> {
        self.slots.iter().flatten()
    }

    pub fn is_taken(&self, id: Id) -> bool {
        self.by_id.contains_key(&id)
    }

    /// # Panics
    /// If the id or the address is taken; the caller checks that first.
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

    /// Changes a person and updates all lists.
    ///
    /// # Panics
    /// If the change alters the id, or takes the address of another person.
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

/// Inserts a slot. Slots are numbered in order of creation, so the list stays sorted.
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
