//! The provider's pages that records came from.
//!
//! A version keeps the pages of the walk that sealed it. A record that moves to another page does
//! not make a new version, since the record itself did not change.

use std::{collections::BTreeSet, mem::size_of};

use serde::{Deserialize, Serialize};

use crate::model::{id::RemoteId, observed::Origin};

use super::{Directory, Matches, PageQuery, Resource};

/// The page of the provider's list that each record was on, in the order of the records. 0 or no
/// entry: none.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Pages {
    pub(super) users: Vec<u32>,
    pub(super) groups: Vec<u32>,
}

impl Pages {
    pub(super) fn of_user(&self, place: usize) -> u32 {
        self.users.get(place).copied().unwrap_or(0)
    }

    pub(super) fn of_group(&self, place: usize) -> u32 {
        self.groups.get(place).copied().unwrap_or(0)
    }

    pub(super) fn bytes(&self) -> usize {
        (self.users.capacity() + self.groups.capacity()) * size_of::<u32>()
    }
}

impl Directory {
    /// The provider reads that a page's records came from, in order, each once.
    pub fn origins_of_page(&self, query: &PageQuery, matches: &Matches) -> Vec<Origin> {
        let places = self.span(query, matches).map(|at| matches.place(at));
        self.origins(query.resource, places)
    }

    /// The provider reads that a record came from; None if there is no such record.
    pub fn origins_of_record(&self, resource: Resource, id: &str) -> Option<Vec<Origin>> {
        let place = self.place(resource, id)?;
        Some(self.origins(resource, std::iter::once(place)))
    }

    fn origins(&self, resource: Resource, places: impl Iterator<Item = usize>) -> Vec<Origin> {
        let mut origins = BTreeSet::new();
        match resource {
            Resource::Users => origins.extend(places.filter_map(|place| self.user_origin(place))),
            Resource::Groups => {
                for place in places {
                    let page = self.pages.of_group(place);
                    if page > 0 {
                        origins.insert(Origin::Groups { page });
                    }
                    origins.insert(self.group_origin(place));
                }
            }
            // The holders of a role are counted over all users, so it comes from every page of
            // users.
            Resource::Roles => {
                let pages = self.pages.users.iter().filter(|page| **page > 0);
                origins.extend(pages.map(|page| Origin::Users { page: *page }));
            }
        }
        origins.into_iter().collect()
    }

    /// The page in the list of users; for an external member, the first of their groups.
    fn user_origin(&self, place: usize) -> Option<Origin> {
        match self.pages.of_user(place) {
            0 => {
                let group = self.groups_of(place).first()?;
                Some(self.group_origin(*group as usize))
            }
            page => Some(Origin::Users { page }),
        }
    }

    fn group_origin(&self, place: usize) -> Origin {
        Origin::Group(RemoteId::from(self.group(place).id))
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::directory::{
        Answers, Evidence, FetchedDirectory, Policy, SealResult, assess,
        testing::{at, first, reading},
    };

    fn ids(range: std::ops::Range<usize>) -> Vec<String> {
        range.map(|n| format!("u{n:03}")).collect()
    }

    /// Lists these users in this order, a hundred to a page.
    fn listed(ids: &[String], seconds: i64) -> FetchedDirectory {
        let ids: Vec<_> = ids.iter().map(String::as_str).collect();
        reading(&ids, &[("g1", &["u000", "x9"])], seconds)
    }

    fn walk(prev: &(Directory, Evidence), reading: FetchedDirectory, now: Timestamp) -> SealResult {
        let policy = Policy::default();
        assess(Some(&prev.0), reading, prev.1.clone(), policy, now).seal(Answers::default(), 2, now)
    }

    fn origins(directory: &Directory, id: &str) -> Vec<Origin> {
        let origins = directory.origins_of_record(Resource::Users, id);
        origins.unwrap()
    }

    #[test]
    fn a_record_comes_from_its_page_and_an_outsider_from_a_group() {
        let (directory, _) = first(listed(&ids(0..150), 0));
        assert_eq!(origins(&directory, "u099"), [Origin::Users { page: 1 }]);
        assert_eq!(origins(&directory, "u100"), [Origin::Users { page: 2 }]);
        assert_eq!(origins(&directory, "x9"), [Origin::Group("g1".into())]);
        assert_eq!(
            directory.origins_of_record(Resource::Groups, "g1"),
            Some(vec![Origin::Groups { page: 1 }, Origin::Group("g1".into())])
        );
        let pages = [1, 2].map(|page| Origin::Users { page });
        assert_eq!(
            directory.origins_of_record(Resource::Roles, "licensed_user"),
            Some(pages.to_vec())
        );
        assert_eq!(directory.origins_of_record(Resource::Users, "nobody"), None);
    }

    #[test]
    fn pages_that_moved_make_no_new_version_and_are_those_of_the_next_one() {
        let before = first(listed(&ids(0..150), 0));
        let mut moved = ids(0..150);
        moved.reverse();
        let verdict = walk(&before, listed(&moved, 60), at(60));
        assert!(
            matches!(verdict, SealResult::Unchanged { .. }),
            "{verdict:?}"
        );

        moved.push("u150".to_owned());
        let verdict = walk(&before, listed(&moved, 60), at(60));
        let SealResult::Sealed { directory, .. } = verdict else {
            panic!("{verdict:?}");
        };
        assert_eq!(origins(&directory, "u149"), [Origin::Users { page: 1 }]);
        assert_eq!(origins(&directory, "u000"), [Origin::Users { page: 2 }]);
    }
}
