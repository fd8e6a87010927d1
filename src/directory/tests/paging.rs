//! Paging over random directories.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::Value;

use crate::directory::{
    Directory, ExpandSet, FieldSet, Filter, PageQuery, Resource,
    testing::{first, group, id, listing, members, reading, user},
};

fn directory_of(users: &BTreeSet<u16>, groups: &BTreeSet<u16>) -> Directory {
    let ids: Vec<String> = users.iter().map(|n| n.to_string()).collect();
    let mut reading = reading(&["0"], &[], 0);
    let people: Vec<_> = ids.iter().map(|id| user(id)).collect();
    reading.users = listing(&people);
    let teams: Vec<_> = groups.iter().map(|n| group(&n.to_string())).collect();
    let some: Vec<&str> = ids.iter().step_by(3).map(String::as_str).collect();
    for team in &teams {
        reading.group_reads.insert(
            id(team.remote_id.as_str()),
            members(&some, reading.started_at),
        );
    }
    reading.groups = Some(listing(&teams));
    first(reading).0
}

pub(super) const ALL: Filter = Filter {
    updated_after: None,
    email: None,
    status: None,
    role: None,
    group: None,
    is_external: None,
    seat: None,
};

/// Reads all pages, and switches to the next directory before each request while there is one.
pub(super) fn walk(
    directories: &[&Directory],
    resource: Resource,
    filter: &Filter,
    page_size: u32,
) -> Vec<String> {
    let mut query = PageQuery {
        resource,
        page_size,
        after: None,
        fields: FieldSet::parse(resource, "remote_id").unwrap(),
        expand: ExpandSet::default(),
    };
    let mut met = Vec::new();
    let mut requests = 0;
    loop {
        let directory = directories[requests.min(directories.len() - 1)];
        let matches = directory.matches(resource, filter);
        let page = directory.page(&query, &matches);
        assert_eq!(page.total, matches.len() as u64);
        let rows: Vec<Value> = serde_json::from_slice(&page.data).unwrap();
        assert!(rows.len() <= page_size as usize);
        met.extend(
            rows.iter()
                .map(|row| row["remote_id"].as_str().unwrap().to_owned()),
        );
        requests += 1;
        match page.last {
            Some(last) => {
                assert_eq!(Some(last.as_str()), met.last().map(String::as_str));
                query.after = Some(last);
            }
            None => return met,
        }
    }
}

fn ids() -> impl Strategy<Value = BTreeSet<u16>> {
    proptest::collection::btree_set(0_u16..300, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn pages_of_any_size_give_every_record_once_in_order(
        users in ids(), groups in ids(), page_size in 1_u32..101,
    ) {
        let directory = directory_of(&users, &groups);
        for (resource, expected) in [(Resource::Users, &users), (Resource::Groups, &groups)] {
            let mut expected: Vec<String> = expected.iter().map(u16::to_string).collect();
            expected.sort();
            prop_assert_eq!(walk(&[&directory], resource, &ALL, page_size), expected);
        }
    }

    #[test]
    fn a_walk_that_goes_on_by_key_in_newer_versions_skips_and_repeats_nobody_who_stayed(
        versions in proptest::collection::vec(ids(), 2..6),
        stayed in ids(),
        page_size in 1_u32..20,
    ) {
        let directories: Vec<Directory> = versions
            .iter()
            .map(|version| directory_of(&(version | &stayed), &BTreeSet::new()))
            .collect();
        let directories: Vec<_> = directories.iter().collect();
        let met = walk(&directories, Resource::Users, &ALL, page_size);
        let distinct: BTreeSet<&String> = met.iter().collect();
        prop_assert_eq!(distinct.len(), met.len());
        for id in &stayed {
            prop_assert!(distinct.contains(&id.to_string()), "{} was skipped", id);
        }
    }

    #[test]
    fn what_is_written_is_read_back_the_same_and_garbage_is_an_error(
        users in ids(), groups in ids(), garbage: Vec<u8>,
    ) {
        let directory = directory_of(&users, &groups);
        let bytes = directory.encode();
        prop_assert_eq!(Directory::decode(&bytes).unwrap(), directory);
        prop_assert!(Directory::decode(&garbage).is_err());
        let mut behind = bytes.clone();
        behind.extend(&garbage);
        prop_assert!(garbage.is_empty() || Directory::decode(&behind).is_err());
        let mut within = bytes;
        for (place, byte) in garbage.iter().enumerate() {
            let len = within.len();
            within[(place * 31) % len] ^= byte;
        }
        // Altered bytes may happen to decode. The directory must then be consistent.
        if let Ok(directory) = Directory::decode(&within) {
            walk(&[&directory], Resource::Users, &ALL, 10);
        }
    }
}
