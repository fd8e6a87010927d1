//! A model of a provider that is simple enough to be correct: users, groups and lists by offset.
//! Its data changes between any two requests, and it returns wrong data on demand.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    directory::{
        Answers, Directory, Evidence, FetchedDirectory, GroupAnswer, GroupRead, ListScan,
        ListedPage, Lookups, MemberList, MergedList, UserAnswer, plan_group_reads,
        testing::{at, disabled, group, identity, member, roles, user},
    },
    model::{
        observed::{ObservedGroup, ObservedUser},
        walks::WalkReason,
    },
};

const PAGE: usize = 4;

/// A seeded random generator (SplitMix64).
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % sides.max(1) as u64) as usize
    }

    /// True with a probability of `per_mille` in a thousand.
    pub(super) fn comes(&mut self, per_mille: usize) -> bool {
        self.roll(1000) < per_mille
    }
}

/// A fault of the provider during a walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WalkFault {
    None,
    /// All lists and totals leave out one id in this many.
    Withhold(u8),
    /// The totals are too high by one.
    Overstate,
    /// The page with this number has no rows; the totals stay.
    EmptyPage(u8),
    /// The list states that it ends after its first page.
    CutShort,
    /// The user list shows one id in this many as disabled, which is wrong.
    Disable(u8),
    /// Groups have no members.
    Forget,
    /// No look-up gets an answer.
    Mute,
    /// Half of the look-ups get an answer.
    Stammer,
}

#[derive(Debug, Clone)]
pub(super) struct Person {
    pub(super) is_disabled: bool,
    pub(super) revision: u32,
    /// Found by id, but in no list.
    pub(super) is_unlisted: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Team {
    pub(super) revision: u32,
    pub(super) members: BTreeSet<String>,
}

/// The records that existed throughout a walk, and those that existed at some time in it.
#[derive(Debug, Default)]
pub(super) struct Attendance {
    pub(super) users_throughout: BTreeSet<String>,
    pub(super) groups_throughout: BTreeSet<String>,
    /// Pairs of group and member, external or not.
    pub(super) memberships_throughout: BTreeSet<(String, String)>,
    pub(super) ever_named: BTreeSet<String>,
    pub(super) ever_disabled: BTreeSet<String>,
    pub(super) memberships_ever: BTreeSet<(String, String)>,
}

pub(super) struct Provider {
    pub(super) people: BTreeMap<String, Person>,
    pub(super) teams: BTreeMap<String, Team>,
    /// The order in which lists show users; `teams_order` is that of groups.
    people_order: Vec<String>,
    teams_order: Vec<String>,
    pub(super) dice: Dice,
    pub(super) churn_per_mille: usize,
    clock: i64,
    next_name: u32,
    pub(super) span: Attendance,
}

impl Provider {
    pub(super) fn new(seed: u64, people: usize, teams: usize) -> Self {
        let mut new = Self {
            people: BTreeMap::new(),
            teams: BTreeMap::new(),
            people_order: Vec::new(),
            teams_order: Vec::new(),
            dice: Dice(seed),
            churn_per_mille: 0,
            clock: 0,
            next_name: 0,
            span: Attendance::default(),
        };
        for _ in 0..people {
            new.add_person();
        }
        for _ in 0..teams {
            new.add_team();
        }
        for _ in 0..people * 2 {
            new.change_membership();
        }
        new
    }

    pub(super) fn now(&mut self) -> jiff::Timestamp {
        self.clock += 1;
        at(self.clock)
    }

    pub(super) fn wait(&mut self, seconds: i64) {
        self.clock += seconds;
    }

    fn name(&mut self, prefix: &str) -> String {
        self.next_name += 1;
        // Scattered, so that the order of ids differs from the order of the list.
        format!("{prefix}{:03}", self.next_name * 37 % 1000)
    }

    fn add_person(&mut self) {
        let name = self.name("u");
        let place = self.dice.roll(self.people_order.len() + 1);
        self.people_order.insert(place, name.clone());
        self.people.insert(
            name,
            Person {
                is_disabled: false,
                revision: 0,
                is_unlisted: false,
            },
        );
    }

    fn add_team(&mut self) {
        let name = self.name("g");
        self.teams_order.push(name.clone());
        let members = BTreeSet::new();
        self.teams.insert(
            name,
            Team {
                revision: 0,
                members,
            },
        );
    }

    fn any(&mut self, of: &[String]) -> Option<String> {
        (!of.is_empty()).then(|| of[self.dice.roll(of.len())].clone())
    }

    fn change_membership(&mut self) {
        let (people, teams) = (self.people_order.clone(), self.teams_order.clone());
        let who = if self.dice.comes(150) {
            Some(format!("x{}", self.dice.roll(5)))
        } else {
            self.any(&people)
        };
        let (Some(who), Some(team)) = (who, self.any(&teams)) else {
            return;
        };
        let leaves = self.dice.comes(350);
        let members = &mut self.teams.get_mut(&team).unwrap().members;
        if leaves {
            members.remove(&who);
        } else {
            members.insert(who);
        }
    }

    pub(super) fn remove_person(&mut self, who: &str, also_from_teams: bool) {
        self.people.remove(who);
        self.people_order.retain(|other| other != who);
        if also_from_teams {
            for team in self.teams.values_mut() {
                team.members.remove(who);
            }
        }
    }

    /// Makes one random change.
    pub(super) fn change(&mut self) {
        let people = self.people_order.clone();
        let teams = self.teams_order.clone();
        match self.dice.roll(12) {
            0 | 1 => self.add_person(),
            2 | 3 if people.len() > 3 => {
                let who = self.any(&people).unwrap();
                let also_from_teams = self.dice.comes(700);
                self.remove_person(&who, also_from_teams);
            }
            4 => {
                let who = self.any(&people).unwrap();
                self.people.get_mut(&who).unwrap().revision += 1;
            }
            5 => {
                let who = self.any(&people).unwrap();
                let person = self.people.get_mut(&who).unwrap();
                person.is_disabled = !person.is_disabled;
            }
            6 if teams.len() < 8 => self.add_team(),
            7 if teams.len() > 1 => {
                let team = self.any(&teams).unwrap();
                self.teams.remove(&team);
                self.teams_order.retain(|other| *other != team);
            }
            8 => {
                let team = self.any(&teams).unwrap();
                self.teams.get_mut(&team).unwrap().revision += 1;
            }
            _ => self.change_membership(),
        }
    }

    /// Starts a walk: records the current state as the first that the walk may report.
    pub(super) fn begin(&mut self) {
        self.span = Attendance {
            users_throughout: self.people.keys().cloned().collect(),
            groups_throughout: self.teams.keys().cloned().collect(),
            memberships_throughout: self.memberships(),
            ..Attendance::default()
        };
        self.look();
    }

    fn look(&mut self) {
        let memberships = self.memberships();
        let span = &mut self.span;
        span.users_throughout
            .retain(|who| self.people.contains_key(who));
        span.groups_throughout
            .retain(|team| self.teams.contains_key(team));
        span.memberships_throughout
            .retain(|membership| memberships.contains(membership));
        span.ever_named.extend(self.people.keys().cloned());
        span.ever_named
            .extend(memberships.iter().map(|(_, who)| who.clone()));
        span.memberships_ever.extend(memberships);
        let disabled = self.people.iter().filter(|(_, person)| person.is_disabled);
        span.ever_disabled
            .extend(disabled.map(|(who, _)| who.clone()));
    }

    pub(super) fn memberships(&self) -> BTreeSet<(String, String)> {
        self.teams
            .iter()
            .flat_map(|(team, state)| {
                state
                    .members
                    .iter()
                    .map(move |who| (team.clone(), who.clone()))
            })
            .collect()
    }

    /// Advances the clock before a request, and makes random changes.
    fn tick(&mut self) {
        self.clock += 1;
        while self.dice.comes(self.churn_per_mille) {
            self.change();
            self.look();
        }
    }

    fn observed_user(&self, who: &str) -> ObservedUser {
        let person = &self.people[who];
        let mut seen = user(who);
        seen.name = Some(format!("Ana {who} {}", person.revision).into());
        if person.is_disabled {
            disabled(seen)
        } else {
            seen
        }
    }

    fn observed_group(&self, team: &str) -> ObservedGroup {
        let mut seen = group(team);
        seen.name = Some(format!("Team {}", self.teams[team].revision).into());
        seen
    }

    fn member_list(&mut self, team: &str, fault: WalkFault) -> GroupRead {
        let read_at = self.now();
        match self.teams.get(team) {
            Some(_) if fault == WalkFault::Forget => GroupRead::Members(MemberList {
                members: Vec::new(),
                read_at,
            }),
            Some(team) => GroupRead::Members(MemberList {
                members: team.members.iter().map(|who| member(who)).collect(),
                read_at,
            }),
            None => GroupRead::Departed,
        }
    }

    fn page<T>(
        &self,
        order: &[String],
        number: u64,
        fault: WalkFault,
        row: impl Fn(&Self, &str) -> T,
    ) -> ListedPage<T> {
        let withheld = |who: &str| match fault {
            WalkFault::Withhold(one_in) => {
                who.bytes().map(usize::from).sum::<usize>() % usize::from(one_in.max(2)) == 0
            }
            _ => false,
        };
        let is_listed = |who: &str| {
            !withheld(who)
                && self
                    .people
                    .get(who)
                    .is_none_or(|person| !person.is_unlisted)
        };
        let mut all: Vec<&String> = order.iter().filter(|who| is_listed(who)).collect();
        if fault == WalkFault::CutShort {
            all.truncate(PAGE);
        }
        let start = (number as usize - 1) * PAGE;
        let end = (start + PAGE).min(all.len());
        let mut records: Vec<T> = all
            .get(start..end)
            .unwrap_or_default()
            .iter()
            .map(|who| row(self, who))
            .collect();
        if fault == WalkFault::EmptyPage(number as u8) {
            records.clear();
        }
        let total = all.len() + usize::from(fault == WalkFault::Overstate);
        ListedPage {
            records,
            quarantined: Vec::new(),
            number: Some(number.min(all.len().div_ceil(PAGE).max(1) as u64)),
            total: Some(total as u64),
            total_pages: Some(all.len().div_ceil(PAGE) as u64),
            page_size: Some(PAGE as u64),
        }
    }

    fn pass<T: crate::directory::ListItem>(
        &mut self,
        fault: WalkFault,
        order: impl Fn(&Self) -> &Vec<String>,
        row: impl Fn(&Self, &str) -> T,
    ) -> Result<ListScan<T>, WalkReason> {
        let mut pass = ListScan::new(PAGE as u64);
        while let Some(number) = pass.wanted().first().copied() {
            self.tick();
            let page = self.page(order(self), number, fault, &row);
            pass.take(number, page)?;
        }
        Ok(pass)
    }

    fn list<T: crate::directory::ListItem>(
        &mut self,
        fault: WalkFault,
        order: impl Fn(&Self) -> &Vec<String>,
        row: impl Fn(&Self, &str) -> T,
    ) -> Result<MergedList<T>, WalkReason> {
        let listing = MergedList::of(self.pass(fault, &order, &row)?)?;
        if listing.needs_second_pass() {
            listing.join(self.pass(fault, &order, &row)?)
        } else {
            Ok(listing)
        }
    }

    /// Fetches all data of a walk, in the order of a real walk.
    pub(super) fn read(
        &mut self,
        prev: Option<&Directory>,
        evidence: &Evidence,
        fault: WalkFault,
        cap: Option<usize>,
    ) -> Result<FetchedDirectory, WalkReason> {
        let started_at = self.now();
        let row = |all: &Self, who: &str| match fault {
            WalkFault::Disable(one_in) if is_one_in(who, one_in) => {
                disabled(all.observed_user(who))
            }
            _ => all.observed_user(who),
        };
        let users = self.list(fault, |all| &all.people_order, row)?;
        let groups = self.list(fault, |all| &all.teams_order, Self::observed_group)?;
        let mut group_reads = BTreeMap::new();
        for team in plan_group_reads(prev, &groups, evidence, cap, false) {
            self.tick();
            let read = self.member_list(team.as_str(), fault);
            group_reads.insert(team, read);
        }
        Ok(FetchedDirectory {
            identity: identity(),
            roles: roles(),
            users,
            groups: Some(groups),
            group_reads,
            started_at,
        })
    }

    pub(super) fn answer(&mut self, lookups: &Lookups, fault: WalkFault) -> Answers {
        let mut answers = Answers::default();
        let is_silent = |dice: &mut Dice| match fault {
            WalkFault::Mute => true,
            WalkFault::Stammer => dice.comes(500),
            _ => false,
        };
        for who in &lookups.users {
            self.tick();
            if is_silent(&mut self.dice) {
                continue;
            }
            let answer = if self.people.contains_key(who.as_str()) {
                UserAnswer::Found(Box::new(self.observed_user(who.as_str())))
            } else {
                UserAnswer::Departed
            };
            answers.users.insert(who.clone(), answer);
        }
        for team in &lookups.groups {
            self.tick();
            if !is_silent(&mut self.dice) {
                let answer = if self.teams.contains_key(team.as_str()) {
                    GroupAnswer::Found
                } else {
                    GroupAnswer::Departed
                };
                answers.groups.insert(team.clone(), answer);
            }
        }
        answers
    }
}

/// Selects one id in this many, always the same ones.
fn is_one_in(who: &str, one_in: u8) -> bool {
    let sum: usize = who.bytes().map(usize::from).sum();
    sum.is_multiple_of(usize::from(one_in.max(2)))
}
