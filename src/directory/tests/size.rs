//! The size of a large directory, computed and not measured.

use crate::directory::{
    Directory, GroupRead, MemberList,
    testing::{first, group, id, listing, member, reading, user},
};

const USERS: usize = 100_000;
const GROUPS: usize = 5_000;

/// Realistic users: long ids, an address each, names, some pictures; each in five groups.
fn large() -> Directory {
    let number = |i: usize| format!("{}", 1_000_000_000_000_000 + i * 7_654_321);
    let people: Vec<_> = (0..USERS)
        .map(|i| {
            let mut user = user(&number(i));
            let (first, last) = (format!("First{}", i % 900), format!("Surname{}", i % 7919));
            user.email = Some(
                format!("{first}.{last}{i}@example.org")
                    .to_lowercase()
                    .into(),
            );
            user.name = Some(format!("{first} {last}").into());
            user.first_name = Some(first.into());
            user.last_name = Some(last.into());
            user.avatar = (i % 3 == 0).then(|| format!("u!1!picture{i}").into());
            user
        })
        .collect();
    let teams: Vec<_> = (0..GROUPS).map(|i| group(&number(i))).collect();
    let mut reading = reading(&["0"], &[], 0);
    for (i, team) in teams.iter().enumerate() {
        let members = (0..USERS * 5 / GROUPS)
            .map(|k| member(&number((i * 97 + k * 1013) % USERS)))
            .collect();
        reading.group_reads.insert(
            id(team.remote_id.as_str()),
            GroupRead::Members(MemberList {
                members,
                read_at: reading.started_at,
            }),
        );
    }
    reading.users = listing(&people);
    reading.groups = Some(listing(&teams));
    first(reading).0
}

#[test]
fn a_hundred_thousand_users_with_five_thousand_groups_weigh_under_300_bytes_a_user() {
    let directory = large();
    assert_eq!(directory.counts().users, USERS as u64);
    assert_eq!(directory.counts().groups, GROUPS as u64);
    let a_user = directory.approximate_size() / USERS;
    assert!(a_user < 300, "{a_user} bytes a user");
    let stored = Directory::decode(&directory.encode()).unwrap();
    assert!(stored.approximate_size() / USERS < 300);
}
