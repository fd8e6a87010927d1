//! What was served against what was true.
//!
//! A [`Picture`] is a directory cut down to what others act on: who is in it, their address,
//! status, roles, seat and groups. It is drawn from the simulator's truth and from what the gateway
//! serves, by code of its own for each, so that a mistake of the connector is not repeated here.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::world::Run;

type Set = BTreeSet<String>;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Picture {
    pub version: u64,
    pub people: BTreeMap<String, Person>,
    pub groups: BTreeMap<String, Group>,
    /// What is wrong with the pages themselves.
    pub faults: Vec<String>,
}

/// What is unknown is None, and has a reason in `reasons`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Person {
    pub email: Option<String>,
    pub status: Option<String>,
    pub roles: Option<Set>,
    pub seat: Option<String>,
    pub is_external: Option<bool>,
    pub groups: Option<Set>,
    /// In a list of users, and not only in groups.
    pub is_user: bool,
    /// Listed and not suspected: as sure as can be.
    pub is_sure: bool,
    /// Why fields are null, by field.
    reasons: BTreeMap<String, String>,
    /// The provider's own words for status and seat.
    words: [Option<String>; 2],
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Group {
    pub name: Option<String>,
    pub owner: Option<String>,
    pub members: Set,
    pub members_read_at: Option<String>,
    pub is_sure: bool,
}

/// Whom the provider itself said not to have, by id.
#[derive(Debug, Clone, Default)]
pub struct Told {
    pub users: Set,
    pub groups: Set,
}

impl Told {
    pub fn of_log(log: &[Value]) -> Self {
        let mut told = Self::default();
        for entry in log.iter().filter(|entry| entry["status"] == 404) {
            let path = entry["path"].as_str().unwrap();
            let code = entry["error_code"].as_u64();
            let id = |prefix| path.strip_prefix(prefix).map(str::to_owned);
            match code {
                Some(1020 | 1006) => told.users.extend(id("/2.0/users/")),
                Some(1106) => told.groups.extend(id("/2.0/groups/")),
                _ => {}
            }
        }
        told
    }

    pub fn add(&mut self, other: &Self) {
        self.users.extend(other.users.iter().cloned());
        self.groups.extend(other.groups.iter().cloned());
    }
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

impl Picture {
    pub fn of_truth(truth: &Value) -> Self {
        let mut picture = Self::default();
        for user in truth["users"].as_array().unwrap() {
            let status = match user["status"].as_str().unwrap() {
                "ACTIVE" => "enabled",
                "PENDING" => "pending",
                "DECLINED" | "DEACTIVATED" => "disabled",
                other => panic!("the truth knows a status {other}"),
            };
            let seat = match user["seatType"].as_str().unwrap() {
                "MEMBER" => "member",
                "PROVISIONAL_MEMBER" => "provisional_member",
                "GUEST" => "guest",
                "CONTRIBUTOR" | "VIEWER" => "contributor",
                other => panic!("the truth knows a seat {other}"),
            };
            let flags = [
                ("admin", "system_admin"),
                ("groupAdmin", "group_admin"),
                ("licensedSheetCreator", "licensed_user"),
                ("resourceViewer", "resource_viewer"),
            ];
            let mut roles: Set = flags
                .into_iter()
                .filter(|(flag, _)| user[flag].as_bool().unwrap())
                .map(|(_, role)| role.to_owned())
                .collect();
            roles.insert(format!("seat_{seat}"));
            let person = Person {
                email: text(&user["email"]),
                status: Some(status.to_owned()),
                roles: Some(roles),
                seat: Some(seat.to_owned()),
                is_external: Some(!user["isInternal"].as_bool().unwrap()),
                groups: Some(Set::new()),
                is_user: true,
                is_sure: true,
                ..Person::default()
            };
            picture.people.insert(user["id"].to_string(), person);
        }
        for group in truth["groups"].as_array().unwrap() {
            let id = group["id"].to_string();
            let mut members = Set::new();
            for member in group["members"].as_array().unwrap() {
                let member_id = member["id"].to_string();
                let person = picture.people.entry(member_id.clone());
                let person = person.or_insert_with(|| Person {
                    email: text(&member["email"]),
                    roles: Some(Set::new()),
                    is_external: Some(true),
                    groups: Some(Set::new()),
                    is_sure: true,
                    ..Person::default()
                });
                person.groups.as_mut().unwrap().insert(id.clone());
                members.insert(member_id);
            }
            let group = Group {
                name: text(&group["name"]),
                owner: Some(group["ownerId"].to_string()),
                members,
                members_read_at: None,
                is_sure: true,
            };
            picture.groups.insert(id, group);
        }
        picture
    }

    /// From all pages of users, and of groups with members where the token may see any.
    pub fn served(users: &Run, groups: Option<&Run>) -> Self {
        let mut picture = Self {
            version: users.versions[0],
            ..Self::default()
        };
        for run in [Some(users), groups].into_iter().flatten() {
            picture.faults.extend(run.faults());
            if run.versions[0] != picture.version {
                picture
                    .faults
                    .push("users and groups differ in version with no walk between".into());
            }
        }
        for user in &users.records {
            let ids = |list: &Value| -> Option<Set> {
                let list = list.as_array()?;
                Some(
                    list.iter()
                        .filter_map(|one| text(&one["remote_id"]))
                        .collect(),
                )
            };
            let reasons = user["warnings"].as_array().unwrap().iter();
            let person = Person {
                email: text(&user["primary_email_address"]),
                status: text(&user["status"]["value"]),
                roles: ids(&user["roles"]),
                seat: text(&user["seat"]["value"]),
                is_external: user["is_external"].as_bool(),
                groups: ids(&user["groups"]),
                is_user: !(user["is_external"] == true && user["status"].is_null()),
                is_sure: user["listed"] == true && user["suspected"] == false,
                reasons: reasons
                    .filter_map(|one| Some((text(&one["field"])?, text(&one["reason"])?)))
                    .collect(),
                words: [&user["status"], &user["seat"]].map(|field| text(&field["source_value"])),
            };
            picture
                .people
                .insert(text(&user["remote_id"]).unwrap(), person);
        }
        for group in groups.iter().flat_map(|run| &run.records) {
            let known = group["members"].as_array();
            let members: Set = known
                .into_iter()
                .flatten()
                .filter_map(|member| text(&member["remote_id"]))
                .collect();
            let id = text(&group["remote_id"]).unwrap();
            let warnings = group["warnings"].as_array().unwrap();
            let is_warned = warnings.iter().any(|one| one["field"] == "members");
            if group["member_count"].as_u64() != known.map(|known| known.len() as u64) {
                picture
                    .faults
                    .push(format!("group {id} miscounts its members"));
            }
            if known.is_none() && !is_warned {
                picture
                    .faults
                    .push(format!("the members of group {id} are null for no reason"));
            }
            let group = Group {
                name: text(&group["name"]),
                owner: text(&group["owner"]["remote_id"]),
                members,
                members_read_at: text(&group["members_read_at"]),
                is_sure: group["listed"] == true && group["suspected"] == false,
            };
            picture.groups.insert(id, group);
        }
        picture.check_itself();
        picture
    }

    /// A person's groups and a group's members are two views of one thing.
    fn check_itself(&mut self) {
        for (id, group) in &self.groups {
            for member in &group.members {
                let is_told = self.people.get(member).is_some_and(|person| {
                    person
                        .groups
                        .as_ref()
                        .is_some_and(|groups| groups.contains(id))
                });
                if !is_told {
                    self.faults
                        .push(format!("{member} does not know of being in {id}"));
                }
            }
        }
        for (id, person) in &self.people {
            for group in person.groups.iter().flatten() {
                let is_told = self
                    .groups
                    .get(group)
                    .is_some_and(|group| group.members.contains(id));
                if !is_told {
                    self.faults
                        .push(format!("group {group} does not know of {id}"));
                }
            }
        }
    }

    /// Every difference of what is served to the truth. Records must be sure of themselves too:
    /// listed, not suspected, nothing null that could be known.
    pub fn differences(&self, truth: &Self) -> Vec<String> {
        let mut found = self.faults.clone();
        let mut differ =
            |what: String, served: &dyn std::fmt::Debug, truth: &dyn std::fmt::Debug| {
                found.push(format!("{what}: served {served:?}, true {truth:?}"));
            };
        for (id, person) in &self.people {
            let Some(truth) = truth.people.get(id) else {
                differ(format!("person {id}"), person, &"nobody");
                continue;
            };
            let fields: [(&str, bool); 7] = [
                ("email", person.email == truth.email),
                ("status", person.status == truth.status),
                ("roles", person.roles == truth.roles),
                ("seat", person.seat == truth.seat),
                ("is_external", person.is_external == truth.is_external),
                ("groups", person.groups == truth.groups),
                ("being sure", person.is_sure == truth.is_sure),
            ];
            for (field, is_same) in fields {
                if !is_same {
                    differ(format!("{field} of {id}"), person, truth);
                }
            }
        }
        for (id, person) in &truth.people {
            if !self.people.contains_key(id) {
                differ(format!("person {id}"), &"nobody", person);
            }
        }
        for (id, group) in &self.groups {
            let Some(truth) = truth.groups.get(id) else {
                differ(format!("group {id}"), group, &"none");
                continue;
            };
            let is_same = group.name == truth.name
                && group.owner == truth.owner
                && group.members == truth.members
                && group.is_sure;
            if !is_same {
                differ(format!("group {id}"), group, truth);
            }
        }
        for (id, group) in &truth.groups {
            if !self.groups.contains_key(id) {
                differ(format!("group {id}"), &"none", group);
            }
        }
        found
    }
}

impl Run {
    /// Whether the pages belong together.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self
            .versions
            .iter()
            .any(|version| *version != self.versions[0])
        {
            faults.push(format!("pages mix versions {:?}", self.versions));
        }
        if self
            .totals
            .iter()
            .any(|total| *total != self.records.len() as u64)
        {
            faults.push(format!(
                "{} records, and totals {:?}",
                self.records.len(),
                self.totals
            ));
        }
        let ids: Vec<_> = self
            .records
            .iter()
            .map(|one| one["remote_id"].as_str())
            .collect();
        if !ids.is_sorted_by(|a, b| a < b) {
            faults.push("records are not in order, or twice".to_owned());
        }
        faults
    }
}

/// One walk, and what was true around it.
pub struct Case<'a> {
    /// The truth before the walk, and after it.
    pub before: &'a Picture,
    pub after: &'a Picture,
    /// What was served before the walk; None if nothing was.
    pub former: Option<&'a Picture>,
    pub served: &'a Picture,
    pub is_sealed: bool,
    /// Whom the provider denied in this walk, and within the last day.
    pub told: &'a Told,
    pub told_lately: &'a Told,
    /// Whether no fault of this walk makes lists or records say what is not so, in a way that
    /// nobody could see.
    pub is_honest: bool,
}

impl Case<'_> {
    /// Everything that was promised and not kept.
    pub fn violations(&self) -> Vec<String> {
        let mut found = self.served.faults.clone();
        if let Some(former) = self.former {
            if self.served.version < former.version {
                found.push(format!(
                    "the version went back from {} to {}",
                    former.version, self.served.version
                ));
            }
            let is_same = self.served == former;
            if self.served.version == former.version && !is_same {
                found.push("two contents of one version".to_owned());
            }
            if self.served.version != former.version && !self.is_sealed {
                found.push("a new version by a walk that did not seal".to_owned());
            }
        }
        self.leavers(&mut found);
        for (id, person) in &self.served.people {
            self.person(id, person, &mut found);
        }
        if self.is_sealed && self.is_honest {
            self.newcomers(&mut found);
        }
        found
    }

    /// Whether nothing changed during the walk.
    fn is_still(&self) -> bool {
        self.before == self.after
    }

    /// Who was there throughout and was served is served.
    fn leavers(&self, found: &mut Vec<String>) {
        let Some(former) = self.former else { return };
        for id in former.people.keys() {
            let is_gone = !self.served.people.contains_key(id);
            if is_gone && self.is_there(id) && !self.told.users.contains(id) {
                found.push(format!("false leaver {id}: was {:?}", former.people[id]));
            }
        }
        for id in former.groups.keys() {
            let is_gone = !self.served.groups.contains_key(id);
            let is_there =
                self.before.groups.contains_key(id) && self.after.groups.contains_key(id);
            if is_gone && is_there && !self.told.groups.contains(id) {
                found.push(format!("false end of group {id}"));
            }
        }
    }

    /// Whether somebody was in the truth throughout: among the users; or, for an outsider, in a
    /// group that was not denied.
    fn is_there(&self, id: &str) -> bool {
        let (Some(before), Some(after)) = (self.before.people.get(id), self.after.people.get(id))
        else {
            return false;
        };
        if before.is_user && after.is_user {
            return true;
        }
        self.lasting_groups(before, after).next().is_some()
    }

    /// The groups that somebody was in throughout, but for those that were denied.
    fn lasting_groups<'p>(
        &self,
        before: &'p Person,
        after: &'p Person,
    ) -> impl Iterator<Item = &'p String> {
        let after = after.groups.as_ref().unwrap();
        let denied = &self.told.groups;
        before
            .groups
            .iter()
            .flatten()
            .filter(|group| after.contains(*group) && !denied.contains(*group))
    }

    /// What is said of somebody is or was so, or is null for a reason.
    fn person(&self, id: &str, person: &Person, found: &mut Vec<String>) {
        let former = self.former.and_then(|former| former.people.get(id));
        let known: Vec<&Person> = [
            self.before.people.get(id),
            self.after.people.get(id),
            former,
        ]
        .into_iter()
        .flatten()
        .collect();
        if known.is_empty() {
            // Or came and left while it was walked.
            if self.is_still() {
                found.push(format!("{id} never was, and is served: {person:?}"));
            }
            return;
        }
        if self.told.users.contains(id) {
            return;
        }
        // A list that ends early, with totals to match, can hide a person whom no walk has seen. A
        // group that names them is then all that is known, and it makes them an external member.
        if former.is_none() && !self.is_honest && !person.is_user {
            return;
        }
        let is_explained = |field: &str| {
            let reason = person.reasons.get(field).map(String::as_str);
            // What could be seen before may be unknown now, but not forbidden: that is a walk to
            // be held.
            reason == Some("unknown")
                || (reason.is_some()
                    && former.is_none_or(|former| former.reasons.contains_key(field)))
        };
        let [status_word, seat_word] = &person.words;
        let is_new_word = |word: &Option<String>| word.as_deref() == Some("SOMETHING_NEW");

        let is_status_so = known.iter().any(|one| one.status == person.status)
            || is_explained("status")
            || is_new_word(status_word);
        if !is_status_so {
            found.push(format!(
                "status of {id}: served {person:?}, known {known:?}"
            ));
        }
        let without_seat = |roles: &Set| -> Set {
            let keep = |role: &&String| !role.starts_with("seat_");
            roles.iter().filter(keep).cloned().collect()
        };
        let are_roles_so = match &person.roles {
            None => is_explained("roles"),
            Some(roles) => known.iter().any(|one| match &one.roles {
                Some(known) if is_new_word(seat_word) => without_seat(known) == *roles,
                // No plan could be read, so there are no seats to make roles of.
                Some(known) if is_explained("seat") => without_seat(known) == without_seat(roles),
                known => known.as_ref() == Some(roles),
            }),
        };
        if !are_roles_so {
            found.push(format!("roles of {id}: served {person:?}, known {known:?}"));
        }
        let Some(groups) = &person.groups else {
            if !is_explained("groups") {
                found.push(format!("groups of {id} are null for no reason: {person:?}"));
            }
            return;
        };
        for group in groups {
            let was_in = known.iter().any(|one| {
                one.groups
                    .as_ref()
                    .is_some_and(|groups| groups.contains(group))
            });
            if !was_in && self.is_still() {
                found.push(format!("{id} was never in group {group}"));
            }
        }
        let (Some(before), Some(after)) = (self.before.people.get(id), self.after.people.get(id))
        else {
            return;
        };
        let had = |group: &String| {
            let former = former.and_then(|former| former.groups.as_ref());
            former.is_some_and(|former| former.contains(group))
        };
        for group in self.lasting_groups(before, after) {
            if had(group) && !groups.contains(group) {
                found.push(format!("{id} wrongly lost group {group}"));
            }
        }
    }

    /// Who was there throughout a walk that was sealed is in the directory, served before or not.
    fn newcomers(&self, found: &mut Vec<String>) {
        let there = self.before.people.iter().filter(|(id, before)| {
            before.is_user
                && self
                    .after
                    .people
                    .get(*id)
                    .is_some_and(|after| after.is_user)
        });
        for (id, _) in there {
            if !self.served.people.contains_key(id) && !self.told_lately.users.contains(id) {
                found.push(format!("partial directory: {id} is not in it"));
            }
        }
        if self
            .served
            .people
            .values()
            .all(|person| person.groups.is_none())
        {
            return;
        }
        let there = self
            .before
            .groups
            .keys()
            .filter(|id| self.after.groups.contains_key(*id));
        for id in there {
            if !self.served.groups.contains_key(id) && !self.told_lately.groups.contains(id) {
                found.push(format!("partial directory: group {id} is not in it"));
            }
        }
    }
}
