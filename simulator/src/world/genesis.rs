//! Generates the initial world from the number of users, the number of groups and a seed.
//!
//! The first twenty people are fixed ([`parts`](super::parts)), and the first six groups have fixed
//! names; everything else is drawn. All dates are fixed, so that the same arguments give the same
//! world on any day.

use std::collections::{BTreeSet, HashMap};

use jiff::{SignedDuration, Timestamp};

use super::groups::{Group, Groups};
use super::names::{
    CITIES, DEPARTMENTS, FIRST_GROUPS, FIRST_NAMES, LAST_NAMES, PLACES, ROLES, TITLES,
};
use super::parts::{PARTS, Part, Twist};
use super::people::{AlternateEmail, People, Person, ProfileImage, Seat, Standing, Status, Text};
use super::{Cast, DOMAIN, Id, Named, World};
use crate::chance::Chance;

/// The owners of the tokens always exist.
pub const FEWEST_USERS: usize = 5;

/// 2026-06-01: no past date of a new world is later.
const TODAY_S: i64 = 1_780_272_000;
/// 2035-01-01: provisional seats of a new world end later than this, so none expires by the
/// machine's date alone.
const PROVISIONAL_END_S: i64 = 2_051_222_400;
const DAY_S: u64 = 86_400;
const TWO_POW_53: u64 = 1 << 53;

/// Draws an id. Half of the ids are below 2^53. The others are below 2^54; of these, a float holds
/// the even ones exactly and rounds the odd ones.
pub fn draw_id(chance: &mut Chance) -> Id {
    if chance.percent(50) {
        1_000_000_000_000_000 + chance.below(TWO_POW_53 - 1_000_000_000_000_000)
    } else {
        TWO_POW_53 + 1 + chance.below(TWO_POW_53 - 2)
    }
}

pub fn world(users: usize, groups: usize, seed: u64) -> World {
    let users = users.max(FEWEST_USERS);
    let mut maker = Maker {
        chance: Chance::new(seed, "world"),
        ids: Chance::new(seed, "ids"),
        taken: BTreeSet::new(),
    };
    let account = Named {
        id: maker.id(Kind::Exact),
        name: "Example Ltd".to_owned(),
    };
    let plan = Named {
        id: maker.id(Kind::Exact),
        name: "Example Ltd".to_owned(),
    };
    let foreign_plan = Named {
        id: maker.id(Kind::Odd),
        name: "Partner Inc".to_owned(),
    };

    let mut people = People::default();
    people.reserve(users + users / 50);
    let ids: Vec<Id> = (0..users)
        .map(|index| {
            let person = maker.user(index);
            let id = person.id;
            people.add(person);
            id
        })
        .collect();
    let externals: Vec<Id> = (0..(users / 50).max(3))
        .map(|index| {
            let person = maker.external(index);
            let id = person.id;
            people.add(person);
            id
        })
        .collect();
    let groups = maker.groups(groups, &ids, &externals, &people);
    World {
        people,
        groups,
        removed: HashMap::new(),
        account,
        plan,
        foreign_plan,
        cast: Cast {
            system_admin: ids[0],
            group_admin: ids[1],
            member: ids[2],
            no_read_users: ids[3],
            revoked: ids[4],
        },
        ids: maker.ids,
    }
}

/// The kind of id to draw.
enum Kind {
    Any,
    /// One that a float holds exactly.
    Exact,
    /// One that a float rounds.
    Odd,
}

struct Maker {
    chance: Chance,
    ids: Chance,
    taken: BTreeSet<Id>,
}

impl Maker {
    fn id(&mut self, kind: Kind) -> Id {
        loop {
            let id = draw_id(&mut self.ids);
            let fits = match kind {
                Kind::Any => true,
                Kind::Exact => id < TWO_POW_53,
                Kind::Odd => id > TWO_POW_53 && id % 2 == 1,
            };
            if fits && self.taken.insert(id) {
                return id;
            }
        }
    }

    /// A random time in the days before [`TODAY_S`], in whole seconds.
    fn past(&mut self, days: u64) -> Timestamp {
        let seconds_ago =
            i64::try_from(self.chance.below(days * DAY_S)).expect("a few years in seconds");
        Timestamp::from_second(TODAY_S - seconds_ago).expect("a date of this century")
    }

    /// As [`past`](Self::past), with the microseconds that seat changes have.
    fn past_fine(&mut self, days: u64) -> Timestamp {
        let micros = i64::try_from(self.chance.below(1_000_000)).expect("less than a million");
        self.past(days) + SignedDuration::from_micros(micros)
    }

    fn provisional_end(&mut self) -> Timestamp {
        let ahead = i64::try_from(self.chance.below(60 * DAY_S)).expect("sixty days in seconds");
        let micros = i64::try_from(self.chance.below(1_000_000)).expect("less than a million");
        let whole =
            Timestamp::from_second(PROVISIONAL_END_S + ahead).expect("a date of this century");
        whole + SignedDuration::from_micros(micros)
    }

    fn user(&mut self, index: usize) -> Person {
        let mut person = self.anybody(index);
        if let Some(part) = PARTS.get(index) {
            self.cast(&mut person, part);
        }
        person
    }

    /// An ordinary user.
    fn anybody(&mut self, index: usize) -> Person {
        let is_cast = index < PARTS.len();
        let kind = match index {
            0 => Kind::Exact,
            2 => Kind::Odd,
            _ => Kind::Any,
        };
        let id = self.id(kind);
        let is_guest = !is_cast && self.chance.percent(5);
        let first = self.chance.pick(FIRST_NAMES);
        let last = self.chance.pick(LAST_NAMES);
        let domain = if is_guest {
            *self.chance.pick(&["partner.example", "example.net"])
        } else {
            DOMAIN
        };
        let email = format!("{}.{}.{index}@{domain}", first.1, last.1);
        let standing = if is_guest {
            Standing::Guest
        } else {
            Standing::Insider
        };
        let modified_at = self.past(700);
        let mut person = Person::new(id, email, standing, modified_at);
        person.first_name = Some(first.0.into());
        person.last_name = Some(last.0.into());
        person.seat_changed_at = self.past_fine(700);
        self.dress_seat(&mut person);
        self.dress_status(&mut person, is_cast);
        self.dress_profile(&mut person);
        // Invited users often have no name yet; a few other users have none either.
        let nameless = if person.status == Status::Pending {
            60
        } else {
            2
        };
        if !is_cast && self.chance.percent(nameless) {
            person.first_name = None;
            person.last_name = None;
        } else if !is_cast && self.chance.percent(2) {
            person.last_name = None;
        }
        person
    }

    fn dress_seat(&mut self, person: &mut Person) {
        person.seat = match (person.is_insider(), self.chance.below(100)) {
            (false, _) => Seat::Guest,
            (true, 0..55) => Seat::Member,
            (true, 55..60) => Seat::ProvisionalMember,
            (true, 60..80) => Seat::Contributor,
            (true, _) => Seat::Viewer,
        };
        person.licensed_sheet_creator =
            matches!(person.seat, Seat::Member | Seat::ProvisionalMember);
        if person.seat == Seat::ProvisionalMember && self.chance.percent(70) {
            person.provisional_expires_at = Some(self.provisional_end());
        }
        if person.licensed_sheet_creator {
            person.group_admin = self.chance.percent(3);
            person.resource_viewer = self.chance.percent(10);
            person.admin = person.seat == Seat::Member && self.chance.percent(1);
        }
    }

    fn dress_status(&mut self, person: &mut Person, is_cast: bool) {
        person.status = match self.chance.below(100) {
            _ if is_cast => Status::Active,
            0..88 => Status::Active,
            88..93 => Status::Pending,
            93..95 => Status::Declined,
            _ => Status::Deactivated,
        };
        if person.status == Status::Deactivated {
            person.status_before_deactivation = Some(Status::Active);
        }
        let has_been_here = matches!(person.status, Status::Active | Status::Deactivated);
        if has_been_here && self.chance.percent(85) {
            person.last_login_at = Some(self.past(300));
            if self.chance.percent(30) {
                person.welcome_screen_viewed_at = Some(self.past(300));
            }
            if self.chance.percent(20) {
                let image_id = format!("u!1!{}", self.chance.text(11));
                person.image = Some(ProfileImage {
                    image_id,
                    height: 640,
                    width: 640,
                });
            }
        }
    }

    fn dress_profile(&mut self, person: &mut Person) {
        let mut some = |share: u64, of: &[&'static str]| -> Option<Text> {
            self.chance
                .percent(share)
                .then(|| (*self.chance.pick(of)).into())
        };
        let profile = &mut person.profile;
        profile.title = some(80, TITLES);
        profile.department = some(85, DEPARTMENTS);
        profile.company = if person.standing == Standing::Insider {
            Some("Example Ltd".into())
        } else {
            some(80, &["Partner Inc"])
        };
        profile.role = some(40, ROLES);
        let (locale, time_zone) = *self.chance.pick(PLACES);
        profile.locale = locale.into();
        profile.time_zone = time_zone.into();
        if self.chance.percent(40) {
            profile.work_phone = Some(format!("+1 555 {:04}", self.chance.below(10_000)).into());
        }
        if self.chance.percent(25) {
            profile.mobile_phone = Some(format!("+1 555 {:04}", self.chance.below(10_000)).into());
        }
        profile.jira_admin = self.chance.percent(1);
        profile.salesforce_admin = self.chance.percent(1);
        profile.salesforce_user = self.chance.percent(5);
    }

    /// Gives a person the fields of a fixed person.
    fn cast(&mut self, person: &mut Person, part: &Part) {
        person.first_name = (!part.first.is_empty()).then(|| part.first.into());
        person.last_name = (!part.last.is_empty()).then(|| part.last.into());
        person.email = part.email.to_owned();
        person.standing = World::standing_of(part.email);
        person.status = part.status;
        person.status_before_deactivation =
            (part.status == Status::Deactivated).then_some(Status::Active);
        person.seat = part.seat;
        person.provisional_expires_at = None;
        person.admin = part.admin;
        person.group_admin = part.group_admin;
        person.licensed_sheet_creator = matches!(part.seat, Seat::Member | Seat::ProvisionalMember);
        person.resource_viewer = false;
        if matches!(part.status, Status::Pending | Status::Declined) {
            person.last_login_at = None;
            person.welcome_screen_viewed_at = None;
            person.image = None;
        }
        match part.twist {
            Twist::None => {}
            Twist::AlternateEmails => {
                for (local, confirmed) in [("iris.tanaka.work", true), ("itanaka", false)] {
                    let id = self.id(Kind::Any);
                    let email = format!("{local}@{DOMAIN}");
                    person.alternate_emails.push(AlternateEmail {
                        id,
                        email,
                        confirmed,
                    });
                }
            }
            Twist::ProvisionalEnd => person.provisional_expires_at = Some(self.provisional_end()),
            Twist::NeverLoggedIn => person.last_login_at = None,
            Twist::EmptyProfile => person.profile = Default::default(),
        }
    }

    fn external(&mut self, index: usize) -> Person {
        let id = self.id(if index == 0 { Kind::Odd } else { Kind::Any });
        let first = self.chance.pick(FIRST_NAMES);
        let last = self.chance.pick(LAST_NAMES);
        let email = format!("{}.{}.x{index}@contractor.example", first.1, last.1);
        let modified_at = self.past(700);
        let mut person = Person::new(id, email, Standing::External, modified_at);
        if index != 1 {
            person.first_name = Some(first.0.into());
            person.last_name = Some(last.0.into());
        }
        person
    }

    fn groups(&mut self, count: usize, users: &[Id], externals: &[Id], people: &People) -> Groups {
        let owners: Vec<Id> = users
            .iter()
            .copied()
            .filter(|id| {
                people
                    .get(*id)
                    .is_some_and(|person| person.is_group_admin() || person.is_system_admin())
            })
            .take(40)
            .collect();
        let mut groups = Groups::default();
        for index in 0..count {
            let members = self.members(index, count, users, externals);
            let created_at = self.past(900);
            let modified_at = created_at.max(self.past(400));
            let name = FIRST_GROUPS.get(index).map_or_else(
                || {
                    format!(
                        "{} {} {index}",
                        self.chance.pick(DEPARTMENTS),
                        self.chance.pick(CITIES)
                    )
                },
                |name| (*name).to_owned(),
            );
            let description = self
                .chance
                .percent(60)
                .then(|| format!("Those who work on {name}"));
            let id = self.id(if index == 0 { Kind::Odd } else { Kind::Any });
            let owner_id = owners[index % owners.len()];
            groups.add(Group {
                id,
                name,
                description,
                owner_id,
                created_at,
                modified_at,
                members,
            });
        }
        groups
    }

    fn members(
        &mut self,
        index: usize,
        count: usize,
        users: &[Id],
        externals: &[Id],
    ) -> BTreeSet<Id> {
        let mut members = BTreeSet::new();
        match index {
            // A tenth of all users: every tenth.
            0 => members.extend(users.iter().skip(users.len().min(10) - 1).step_by(10)),
            1 => {}
            _ => {
                let most = if self.chance.percent(10) { 80 } else { 20 };
                for _ in 0..=self.chance.below(most) {
                    members.insert(*self.chance.pick(users));
                }
            }
        }
        // Every external member is in some group; the empty group stays empty.
        let homes = count.saturating_sub(2).max(1);
        let home = if count > 2 {
            index.checked_sub(2)
        } else {
            (index == 0).then_some(0)
        };
        if let Some(home) = home {
            members.extend(externals.iter().skip(home).step_by(homes));
        }
        members
    }
}
