//! A filtered list is the whole list without the records that do not match.

use std::collections::BTreeSet;

use jiff::Timestamp;
use proptest::{option, prelude::*, sample::select};
use serde_json::Value;

use super::paging::{ALL, walk};
use crate::{
    directory::{
        Directory, ExpandSet, FieldSet, Filter, PageQuery, Policy, Resource, SealResult,
        Visibility, assess,
        testing::{at, first, group, id, listing, members, reading_of, user},
    },
    model::{
        observed::{ObservedSeat, ObservedUser, Sourced},
        schema::{Reason, SeatType, UserField, UserStatus},
    },
};

const STATUSES: [(&str, UserStatus); 3] = [
    ("enabled", UserStatus::Enabled),
    ("disabled", UserStatus::Disabled),
    ("unmapped_value", UserStatus::UnmappedValue),
];
const SEATS: [(&str, SeatType); 2] = [("member", SeatType::Member), ("guest", SeatType::Guest)];

/// The time at which the second walk was sealed, which changed some users.
const LATER: i64 = 1000;

fn sourced<T>(value: T) -> Sourced<T> {
    Sourced {
        value,
        source: None,
    }
}

#[derive(Debug, Clone)]
struct FilteredPerson {
    status: Option<usize>,
    seat: Option<usize>,
    roles: Option<Vec<&'static str>>,
    is_external: Option<bool>,
    has_email: bool,
    in_groups: [bool; 2],
    is_changed_later: bool,
}

fn person() -> impl Strategy<Value = FilteredPerson> {
    (
        option::of(0..STATUSES.len()),
        option::of(0..SEATS.len()),
        option::of(proptest::sample::subsequence(
            vec!["licensed_user", "system_admin"],
            0..=2,
        )),
        any::<Option<bool>>(),
        any::<bool>(),
        any::<[bool; 2]>(),
        any::<bool>(),
    )
        .prop_map(
            |(status, seat, roles, is_external, has_email, in_groups, is_changed_later)| {
                FilteredPerson {
                    status,
                    seat,
                    roles,
                    is_external,
                    has_email,
                    in_groups,
                    is_changed_later,
                }
            },
        )
}

fn observed(number: usize, person: &FilteredPerson, is_later: bool) -> ObservedUser {
    let mut user = user(&format!("u{number}"));
    if !person.has_email {
        user.email = None;
    } else if number.is_multiple_of(2) {
        user.email = Some(format!("Ü{number}@Example.ORG").into());
    }
    user.status = person.status.map(|at| sourced(STATUSES[at].1));
    user.seat = person.seat.map(|at| ObservedSeat {
        kind: sourced(SEATS[at].1),
        since: None,
        provisional_until: None,
    });
    let words = |roles: &Vec<&str>| roles.iter().map(|word| (*word).into()).collect();
    user.roles = person.roles.as_ref().map(words);
    user.is_external = person.is_external;
    if is_later && person.is_changed_later {
        user.avatar = Some("picture".into());
    }
    user
}

/// A directory of these users after two walks.
fn directory_of(people: &[FilteredPerson]) -> Directory {
    let reading = |is_later: bool| {
        let users: Vec<_> = (0..)
            .zip(people)
            .map(|(number, person)| observed(number, person, is_later))
            .collect();
        let mut reading = reading_of(&users, &[], if is_later { LATER } else { 0 });
        let mut teams = Vec::new();
        for (team, name) in ["g0", "g1"].into_iter().enumerate() {
            let in_it: Vec<_> = (0..)
                .zip(people)
                .filter(|(_, person)| person.in_groups[team])
                .map(|(number, _): (usize, _)| format!("u{number}"))
                .collect();
            let mut in_it: Vec<_> = in_it.iter().map(String::as_str).collect();
            in_it.push("x9");
            let read = members(&in_it, reading.started_at);
            reading.group_reads.insert(id(name), read);
            teams.push(group(name));
        }
        reading.groups = Some(listing(&teams));
        reading
    };
    let (directory, evidence) = first(reading(false));
    let verdict = assess(
        Some(&directory),
        reading(true),
        evidence,
        Policy::default(),
        at(LATER),
    )
    .seal(Default::default(), 2, at(LATER));
    match verdict {
        SealResult::Sealed { directory, .. } => *directory,
        SealResult::Unchanged { .. } => directory,
        other => panic!("{other:?}"),
    }
}

fn filter() -> impl Strategy<Value = Filter> {
    (
        option::of(select(vec![-1_i64, 0, LATER - 1, LATER])),
        option::of(select(vec![
            "Ü0@EXAMPLE.org",
            "U1@EXAMPLE.org",
            "u1",
            "ü0@example.org",
            "x9@example.org",
        ])),
        option::of(0..STATUSES.len()),
        option::of(select(vec!["licensed_user", "rol_system_admin", "nothing"])),
        option::of(select(vec!["g0", "grp_g1", "usr_g0", "g7"])),
        any::<Option<bool>>(),
        option::of(0..SEATS.len()),
    )
        .prop_map(
            |(after, email, status, role, group, is_external, seat)| Filter {
                updated_after: after.map(at),
                email: email.map(Box::from),
                status: status.map(|at| STATUSES[at].1),
                role: role.map(Box::from),
                group: group.map(Box::from),
                is_external,
                seat: seat.map(|at| SEATS[at].1),
            },
        )
}

/// Applies the filter to the served record, in the simplest way.
fn is_meant(user: &Value, filter: &Filter) -> bool {
    let has_id = |list: &str, id: &str| {
        let records = user[list].as_array();
        records.is_some_and(|records| {
            let is_it = |record: &Value| record["id"] == id || record["remote_id"] == id;
            records.iter().any(is_it)
        })
    };
    let updated_at: Timestamp = user["updated_at"].as_str().unwrap().parse().unwrap();
    let email = user["primary_email_address"].as_str();
    let word = |status| STATUSES.iter().find(|(_, of)| *of == status).unwrap().0;
    let seat_word = |seat| SEATS.iter().find(|(_, of)| *of == seat).unwrap().0;
    filter
        .updated_after
        .is_none_or(|moment| updated_at > moment)
        && filter
            .email
            .as_ref()
            .is_none_or(|wanted| email.is_some_and(|email| email.eq_ignore_ascii_case(wanted)))
        && filter
            .status
            .is_none_or(|status| user["status"]["value"] == word(status))
        && filter.role.as_ref().is_none_or(|id| has_id("roles", id))
        && filter.group.as_ref().is_none_or(|id| has_id("groups", id))
        && filter
            .is_external
            .is_none_or(|is_external| user["is_external"] == is_external)
        && filter
            .seat
            .is_none_or(|seat| user["seat"]["value"] == seat_word(seat))
}

fn all_users(directory: &Directory) -> Vec<Value> {
    let query = PageQuery {
        resource: Resource::Users,
        page_size: u32::MAX,
        after: None,
        fields: FieldSet::default(),
        expand: ExpandSet::default(),
    };
    let page = directory.page(&query, &directory.matches(Resource::Users, &ALL));
    serde_json::from_slice(&page.data).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn the_pages_of_a_filtered_list_are_the_whole_list_less_those_who_are_not_meant(
        people in proptest::collection::vec(person(), 1..40),
        filters in proptest::collection::vec(filter(), 1..8),
        page_size in 1_u32..101,
    ) {
        let directory = directory_of(&people);
        let all = all_users(&directory);
        prop_assert_eq!(all.len() as u64, directory.total(Resource::Users));
        for filter in &filters {
            let meant: Vec<_> = all
                .iter()
                .filter(|user| is_meant(user, filter))
                .map(|user| user["remote_id"].as_str().unwrap().to_owned())
                .collect();
            prop_assert_eq!(
                walk(&[&directory], Resource::Users, filter, page_size),
                meant,
                "{:?}", filter
            );
        }
    }

    #[test]
    fn a_filtered_walk_that_goes_on_in_newer_versions_skips_and_repeats_nobody_who_stayed_meant(
        versions in proptest::collection::vec(
            proptest::collection::vec(person(), 30), 2..5
        ),
        filter in filter(),
        page_size in 1_u32..7,
    ) {
        let directories: Vec<_> = versions.iter().map(|people| directory_of(people)).collect();
        let meant = |directory: &Directory| -> BTreeSet<String> {
            walk(&[directory], Resource::Users, &filter, 100).into_iter().collect()
        };
        let stayed = directories.iter().map(meant).reduce(|a, b| &a & &b).unwrap();
        let all: Vec<_> = directories.iter().collect();
        let met = walk(&all, Resource::Users, &filter, page_size);
        let distinct: BTreeSet<_> = met.iter().cloned().collect();
        prop_assert_eq!(distinct.len(), met.len());
        prop_assert!(stayed.is_subset(&distinct));
    }
}

#[test]
fn roles_carry_no_times_and_groups_the_later_of_two() {
    let directory = directory_of(&[FilteredPerson {
        status: None,
        seat: None,
        roles: None,
        is_external: None,
        has_email: true,
        in_groups: [true; 2],
        is_changed_later: true,
    }]);
    let left = |resource, seconds| {
        let filter = Filter {
            updated_after: Some(at(seconds)),
            ..Filter::default()
        };
        directory.matches(resource, &filter).len()
    };
    assert_eq!(left(Resource::Roles, -1_000_000), 0);
    assert_eq!(left(Resource::Groups, -1), 2);
    assert_eq!(left(Resource::Groups, 0), 0);
}

#[test]
fn what_nobody_can_see_here_is_named_before_anybody_is_left_out() {
    let admin = Visibility {
        roles: true,
        seats_hidden: None,
        groups: true,
    };
    let plain = Visibility {
        roles: false,
        seats_hidden: Some(Reason::NotPermitted),
        groups: false,
    };
    let seatless = Visibility {
        seats_hidden: Some(Reason::NotSupported),
        ..admin
    };
    let all = Filter::default;
    let open = Filter {
        updated_after: Some(at(0)),
        email: Some("a@b.c".into()),
        ..all()
    };
    assert_eq!(open.hidden_from(plain), None);
    for (filter, field) in [
        (
            Filter {
                status: Some(UserStatus::Enabled),
                ..all()
            },
            UserField::Status,
        ),
        (
            Filter {
                role: Some("x".into()),
                ..all()
            },
            UserField::Roles,
        ),
        (
            Filter {
                group: Some("x".into()),
                ..all()
            },
            UserField::Groups,
        ),
        (
            Filter {
                is_external: Some(true),
                ..all()
            },
            UserField::IsExternal,
        ),
        (
            Filter {
                seat: Some(SeatType::Guest),
                ..all()
            },
            UserField::Seat,
        ),
    ] {
        assert_eq!(filter.hidden_from(admin), None);
        let hidden = filter.hidden_from(plain).unwrap();
        assert_eq!((hidden.field, hidden.reason), (field, Reason::NotPermitted));
        let reason = (field == UserField::Seat).then_some(Reason::NotSupported);
        assert_eq!(
            filter.hidden_from(seatless).map(|hidden| hidden.reason),
            reason
        );
    }
}
