//! Churn: random changes of the world between requests.
//!
//! Churn never changes owners of groups or users with a token, so that clients can go on reading.
//! The same seed and the same requests give the same changes.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::json;

use crate::chance::Chance;
use crate::mutate::Op;
use crate::state::State;
use crate::world::people::{Roll, Slot};
use crate::world::{DOMAIN, Id};

/// The operations that churn can generate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    AddUser,
    UpdateUser,
    RemoveUser,
    AddGroup,
    UpdateGroup,
    RemoveGroup,
    AddMember,
    RemoveMember,
}

/// The body of `POST /__control/churn`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    per_request: f64,
    #[serde(default = "all_kinds")]
    ops: Vec<Kind>,
    #[serde(default)]
    seed: u64,
}

fn all_kinds() -> Vec<Kind> {
    use Kind::*;
    vec![
        AddUser,
        UpdateUser,
        RemoveUser,
        AddGroup,
        UpdateGroup,
        RemoveGroup,
        AddMember,
        RemoveMember,
    ]
}

/// Active churn.
#[derive(Clone, Debug)]
pub struct Churn {
    order: Order,
    chance: Chance,
    made: u64,
}

impl Churn {
    /// Validates the settings; None for a probability of 0.
    pub fn new(order: Order) -> Result<Option<Self>, String> {
        if !(0.0..=1.0).contains(&order.per_request) {
            return Err("per_request is a probability, from 0 to 1".to_owned());
        }
        if order.ops.is_empty() {
            return Err("ops names at least one operation".to_owned());
        }
        let chance = Chance::new(order.seed, "churn");
        Ok((order.per_request > 0.0).then_some(Self {
            order,
            chance,
            made: 0,
        }))
    }

    /// Draws the next change; None if there is none this time, or if the world has nothing to
    /// change.
    fn next(&mut self, state: &State) -> Option<Op> {
        if !self.chance.hits(self.order.per_request) {
            return None;
        }
        let kind = *self.chance.pick(&self.order.ops);
        self.made += 1;
        let number = self.made;
        let seed = self.order.seed;
        let op = match kind {
            Kind::AddUser => json!({
                "op": "add_user", "email": format!("churn.{seed}.{number}@{DOMAIN}"),
                "firstName": "Churn", "lastName": format!("Number {number}"),
            }),
            Kind::UpdateUser => json!({
                "op": "update_user", "id": self.user(state)?,
                "title": format!("Title {number}"), "lastName": format!("Changed {number}"),
            }),
            Kind::RemoveUser => json!({"op": "remove_user", "id": self.user(state)?}),
            Kind::AddGroup => json!({"op": "add_group", "name": format!("Churn {seed} {number}")}),
            Kind::UpdateGroup => json!({
                "op": "update_group", "id": self.group(state)?,
                "name": format!("Renamed {seed} {number}"),
            }),
            Kind::RemoveGroup => json!({"op": "remove_group", "id": self.group(state)?}),
            Kind::AddMember => {
                let group = self.group(state)?;
                let is_in = &state.world.groups.get(group)?.members;
                let user = self.user_where(state, |id| !is_in.contains(&id))?;
                json!({"op": "add_member", "group_id": group, "user_id": user})
            }
            Kind::RemoveMember => {
                let group = self.group(state)?;
                let owners = owners(state);
                let members = &state.world.groups.get(group)?.members;
                let loose: Vec<Id> = members
                    .iter()
                    .copied()
                    .filter(|id| is_loose(state, &owners, *id))
                    .collect();
                let member = *loose.get(self.chance.index(loose.len()))?;
                json!({"op": "remove_member", "group_id": group, "user_id": member})
            }
        };
        Some(serde_json::from_value(op).expect("churn makes up operations that there are"))
    }

    fn user(&mut self, state: &State) -> Option<Id> {
        self.user_where(state, |_| true)
    }

    /// Draws a user that churn may change: a random position, then the next user that fits.
    fn user_where(&mut self, state: &State, fits: impl Fn(Id) -> bool) -> Option<Id> {
        let people = &state.world.people;
        let roll: &[Slot] = people.roll(Roll::Users);
        let owners = owners(state);
        let start = self.chance.index(roll.len());
        let (before, behind) = roll.split_at(start.min(roll.len()));
        behind
            .iter()
            .chain(before)
            .map(|slot| people.at(*slot).id)
            .find(|id| is_loose(state, &owners, *id) && fits(*id))
    }

    fn group(&mut self, state: &State) -> Option<Id> {
        let groups = &state.world.groups;
        let slot = groups
            .order()
            .get(self.chance.index(groups.order().len()))?;
        Some(groups.at(*slot).id)
    }
}

fn owners(state: &State) -> BTreeSet<Id> {
    state
        .world
        .groups
        .iter()
        .map(|group| group.owner_id)
        .collect()
}

/// Whether churn may change a user: no token was ever issued for them, and they own no group.
fn is_loose(state: &State, owners: &BTreeSet<Id>, id: Id) -> bool {
    !owners.contains(&id) && !state.tokens.is_behind_one(id)
}

impl State {
    /// Applies churn before a request is served.
    pub fn churn(&mut self) {
        let Some(mut churn) = self.churn.take() else {
            return;
        };
        if let Some(op) = churn.next(self) {
            // The change was generated for this world. If it did not fit, nothing would change.
            let _ = op.apply(self);
        }
        self.churn = Some(churn);
    }
}
