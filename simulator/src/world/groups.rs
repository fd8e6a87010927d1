//! Groups and their members. Groups cannot contain groups, and members have no roles.

use std::collections::{BTreeSet, HashMap};

use jiff::Timestamp;

use super::Id;
use super::people::{Slot, enter, leave};

#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    pub id: Id,
    pub name: String,
    pub description: Option<String>,
    pub owner_id: Id,
    pub created_at: Timestamp,
    pub modified_at: Timestamp,
    pub members: BTreeSet<Id>,
}

/// All groups, indexed by id, by name and by list position.
#[derive(Clone, Debug, Default)]
pub struct Groups {
    slots: Vec<Option<Group>>,
    by_id: HashMap<Id, Slot>,
    /// Names are case-sensitive: "Finance" and "finance" are two groups.
    by_name: HashMap<String, Slot>,
    order: Vec<Slot>,
}

impl Groups {
    pub fn get(&self, id: Id) -> Option<&Group> {
        self.by_id.get(&id).map(|slot| self.at(*slot))
    }

    pub fn by_name(&self, name: &str) -> Option<&Group> {
        self.by_name.get(name).map(|slot| self.at(*slot))
    }

    pub fn order(&self) -> &[Slot] {
        &self.order
    }

    /// # Panics
    /// If the slot did not come from the current [`order`](Self::order).
    pub fn at(&self, slot: Slot) -> &Group {
        self.slots[slot as usize]
            .as_ref()
            .expect("an index never points at an empty slot")
    }

    pub fn iter(&self) -> impl Iterator<Item = &Group> {
        self.order.iter().map(|slot| self.at(*slot))
    }

    pub fn is_taken(&self, id: Id) -> bool {
        self.by_id.contains_key(&id)
    }

    pub fn is_owner(&self, person: Id) -> bool {
        self.iter().any(|group| group.owner_id == person)
    }

    /// # Panics
    /// If the id or the name is taken; the caller checks that first.
    pub fn add(&mut self, group: Group) {
        let slot = Slot::try_from(self.slots.len()).expect("fewer than 2^32 groups");
        assert!(
            self.by_id.insert(group.id, slot).is_none(),
            "an id belongs to one group"
        );
        assert!(
            self.by_name.insert(group.name.clone(), slot).is_none(),
            "a name belongs to one group"
        );
        enter(&mut self.order, slot);
        self.slots.push(Some(group));
    }

    pub fn remove(&mut self, id: Id) -> Option<Group> {
        let slot = self.by_id.remove(&id)?;
        leave(&mut self.order, slot);
        let group = self.slots[slot as usize].take()?;
        self.by_name.remove(&group.name);
        Some(group)
    }

    /// Changes a group.
    ///
    /// # Panics
    /// If the change alters the id, or takes the name of another group.
    pub fn change<T>(&mut self, id: Id, change: impl FnOnce(&mut Group) -> T) -> Option<T> {
        let slot = *self.by_id.get(&id)?;
        let group = self.slots[slot as usize]
            .as_mut()
            .expect("an index never points at an empty slot");
        let name = group.name.clone();
        let answer = change(group);
        assert_eq!(group.id, id, "an id stays");
        if group.name != name {
            let renamed = group.name.clone();
            self.by_name.remove(&name);
            assert!(
                self.by_name.insert(renamed, slot).is_none(),
                "a name belongs to one group"
            );
        }
        Some(answer)
    }

    /// The ids of the groups that contain this person.
    pub fn of_member(&self, person: Id) -> Vec<Id> {
        self.iter()
            .filter(|group| group.members.contains(&person))
            .map(|group| group.id)
            .collect()
    }
}
