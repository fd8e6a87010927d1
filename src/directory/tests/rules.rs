//! The rules of sealing, each on a small organization.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    directory::{
        Answers, Directory, Evidence, ExpandSet, FetchedDirectory, FieldSet, GroupAnswer,
        GroupRead, ListScan, ListedPage, Lookups, MergedList, Policy, ReleaseCandidate, Resource,
        SealResult, UserAnswer, assess, plan_group_reads,
        testing::{
            at, disabled, first, group, id, identity, listed_page, listing, members,
            plain_identity, reading, reading_of, user,
        },
    },
    model::{
        observed::ObservedUser,
        schema::Reason,
        walks::{SuspectReason, WalkReason},
    },
};

/// A linked account. Each walk runs at the start time of its fetched data.
struct WalkedAccount {
    directory: Directory,
    evidence: Evidence,
    policy: Policy,
    held: Option<ReleaseCandidate>,
}

#[derive(Debug, PartialEq, Eq)]
enum RuleOutcome {
    Failed(WalkReason),
    Held(WalkReason, Vec<(String, SuspectReason)>),
    Unchanged,
    Sealed,
}

impl WalkedAccount {
    fn new(reading: FetchedDirectory) -> Self {
        let (directory, evidence) = first(reading);
        Self {
            directory,
            evidence,
            policy: Policy::default(),
            held: None,
        }
    }

    /// The look-ups of a walk with this data.
    fn lookups(&self, reading: FetchedDirectory, cap: usize) -> Lookups {
        let now = reading.started_at;
        assess(
            Some(&self.directory),
            reading,
            self.evidence.clone(),
            self.policy,
            now,
        )
        .lookups(cap)
    }

    fn walk(&mut self, reading: FetchedDirectory, answers: Answers) -> RuleOutcome {
        let now = reading.started_at;
        let assessment = assess(
            Some(&self.directory),
            reading,
            self.evidence.clone(),
            self.policy,
            now,
        );
        match assessment.seal(answers, self.directory.version() + 1, now) {
            SealResult::Failed(reason) => RuleOutcome::Failed(reason),
            SealResult::Held {
                reason,
                suspects,
                candidate,
                evidence,
                ..
            } => {
                self.evidence = evidence;
                self.held = Some(*candidate);
                let suspects = suspects
                    .into_iter()
                    .map(|suspect| (suspect.remote_id, suspect.why))
                    .collect();
                RuleOutcome::Held(reason, suspects)
            }
            SealResult::Unchanged { evidence } => {
                self.evidence = evidence;
                RuleOutcome::Unchanged
            }
            SealResult::Sealed {
                directory,
                evidence,
            } => {
                self.directory = *directory;
                self.evidence = evidence;
                RuleOutcome::Sealed
            }
        }
    }

    fn get(&self, of: Resource, id: &str) -> Option<Value> {
        let json = self
            .directory
            .record(of, id, FieldSet::default(), ExpandSet::default())?;
        Some(serde_json::from_slice(&json).unwrap())
    }

    fn user(&self, id: &str) -> Option<Value> {
        self.get(Resource::Users, id)
    }

    fn group(&self, id: &str) -> Option<Value> {
        self.get(Resource::Groups, id)
    }
}

fn departed(ids: &[&str]) -> Answers {
    Answers {
        users: ids
            .iter()
            .map(|who| (id(who), UserAnswer::Departed))
            .collect(),
        ..Answers::default()
    }
}

fn found(users: &[ObservedUser]) -> Answers {
    Answers {
        users: users
            .iter()
            .map(|user| {
                let answer = UserAnswer::Found(Box::new(user.clone()));
                (user.remote_id.clone(), answer)
            })
            .collect(),
        ..Answers::default()
    }
}

fn names(n: usize) -> Vec<String> {
    (0..n).map(|i| format!("u{i:02}")).collect()
}

fn strs(names: &[String]) -> Vec<&str> {
    names.iter().map(String::as_str).collect()
}

fn moment(value: &Value) -> Timestamp {
    value.as_str().unwrap().parse().unwrap()
}

#[test]
fn absence_is_suspicion_until_the_provider_says_gone() {
    let mut account = WalkedAccount::new(reading(&["u0", "u1"], &[], 0));
    let without = |seconds| reading(&["u0"], &[], seconds);
    assert_eq!(account.lookups(without(60), 9).users, [id("u1")]);
    assert_eq!(
        account.walk(without(60), Answers::default()),
        RuleOutcome::Sealed
    );
    assert_eq!(account.user("u1").unwrap()["suspected"], true);
    assert_eq!(
        account.walk(without(120), found(&[user("u1")])),
        RuleOutcome::Sealed
    );
    assert_eq!(account.user("u1").unwrap()["suspected"], false);
    assert_eq!(
        account.walk(without(180), departed(&["u1"])),
        RuleOutcome::Sealed
    );
    assert_eq!(account.user("u1"), None);
}

#[test]
fn the_longest_missing_are_asked_for_first_and_no_more_than_the_budget_allows() {
    let mut account = WalkedAccount::new(reading(&["u0", "u1", "u2", "u3"], &[], 0));
    account.walk(reading(&["u0", "u1", "u2"], &[], 60), Answers::default());
    let lookups = account.lookups(reading(&["u0"], &[], 120), 2);
    assert_eq!(lookups.users, [id("u3"), id("u1")]);
}

#[test]
fn a_departed_user_leaves_every_group_and_returns_through_none_that_was_read_before() {
    let both: &[&str] = &["u0", "u1"];
    let mut account = WalkedAccount::new(reading(both, &[("g1", both), ("g2", both)], 0));
    // This walk reads g1, which still contains u1; it does not read g2 again.
    let mut without = reading(&["u0"], &[("g1", both), ("g2", both)], 60);
    without.group_reads.remove(&id("g2"));
    assert_eq!(
        account.walk(without, departed(&["u1"])),
        RuleOutcome::Sealed
    );
    assert_eq!(account.user("u1"), None);
    assert_eq!(account.group("g1").unwrap()["member_count"], 1);
    assert_eq!(account.group("g2").unwrap()["member_count"], 1);

    let mut unread = reading(&["u0"], &[("g1", both), ("g2", both)], 120);
    unread.group_reads.clear();
    assert_eq!(
        account.walk(unread, Answers::default()),
        RuleOutcome::Unchanged
    );

    // A member list that was read before the proof of departure does not bring them back.
    let mut stale = reading(&["u0"], &[("g1", both), ("g2", both)], 180);
    stale.group_reads.remove(&id("g2"));
    stale.group_reads.insert(id("g1"), members(both, at(59)));
    assert_eq!(
        account.walk(stale, Answers::default()),
        RuleOutcome::Unchanged
    );

    // A list that was read after it does, as an external member.
    let mut fresh = reading(&["u0"], &[("g1", both), ("g2", both)], 240);
    fresh.group_reads.remove(&id("g2"));
    assert_eq!(account.walk(fresh, Answers::default()), RuleOutcome::Sealed);
    let back = account.user("u1").unwrap();
    assert_eq!(back["is_external"], true);
    assert_eq!(back["groups"].as_array().unwrap().len(), 1);
}

#[test]
fn an_outsider_departs_without_a_question_when_no_group_names_them() {
    let mut account = WalkedAccount::new(reading(&["u0"], &[("g1", &["x1", "u0"])], 0));
    assert!(account.user("x1").is_some());
    let without = || reading(&["u0"], &[("g1", &["u0"])], 60);
    assert_eq!(account.lookups(without(), 9), Lookups::default());
    assert_eq!(
        account.walk(without(), Answers::default()),
        RuleOutcome::Sealed
    );
    assert_eq!(account.user("x1"), None);
}

#[test]
fn many_outsiders_gone_at_once_hold_the_walk() {
    let outsiders = ["x1", "x2", "x3", "x4", "x5", "x6"];
    let mut account = WalkedAccount::new(reading(&["u0"], &[("g1", &outsiders)], 0));
    let outcome = account.walk(reading(&["u0"], &[("g1", &[])], 60), Answers::default());
    assert!(
        matches!(outcome, RuleOutcome::Held(WalkReason::MassDisappearance, ref who) if who.len() == 6),
        "{outcome:?}"
    );
}

#[test]
fn whoever_only_the_first_of_two_passes_saw_is_looked_up() {
    let before: Vec<_> = ["u0", "u1", "u2"].map(user).to_vec();
    let after: Vec<_> = ["u0", "u1"].map(user).to_vec();
    let pass = |first: &[ObservedUser], second: &[ObservedUser]| {
        let mut pass = ListScan::new(2);
        pass.take(1, listed_page(first, 2, 1)).unwrap();
        while let Some(number) = pass.wanted().first().copied() {
            pass.take(number, listed_page(second, 2, number)).unwrap();
        }
        pass
    };
    let mut overstated = listed_page(&before, 3, 1);
    overstated.total = Some(4);
    overstated.total_pages = Some(1);
    let mut unsettled = ListScan::new(3);
    unsettled.take(1, overstated).unwrap();
    let listing = MergedList::of(unsettled).unwrap();
    assert!(listing.needs_second_pass());
    let union = listing.join(pass(&after, &after)).unwrap();

    let mut account = WalkedAccount::new(reading(&["u0", "u1"], &[], 0));
    let read = FetchedDirectory {
        users: union,
        ..reading(&["u0"], &[], 60)
    };
    let now = at(60);
    let assessment = assess(
        Some(&account.directory),
        read,
        account.evidence.clone(),
        Policy::default(),
        now,
    );
    assert_eq!(assessment.lookups(9).users, [id("u2")]);
    let verdict = assessment.seal(departed(&["u2"]), 2, now);
    assert!(
        matches!(verdict, SealResult::Unchanged { .. }),
        "{verdict:?}"
    );
    assert_eq!(
        account.walk(reading(&["u0", "u1"], &[], 90), Answers::default()),
        RuleOutcome::Unchanged
    );
}

/// A list of `ids` with a wrong `total`, scanned twice because it does not add up.
fn misstated(ids: &[&str], total: u64) -> MergedList<ObservedUser> {
    let all: Vec<_> = ids.iter().map(|id| user(id)).collect();
    let pass = || {
        let mut pass = ListScan::new(100);
        let page = ListedPage {
            total: Some(total),
            ..listed_page(&all, 100, 1)
        };
        pass.take(1, page).unwrap();
        pass
    };
    MergedList::of(pass()).unwrap().join(pass()).unwrap()
}

#[test]
fn ids_that_fall_short_of_the_total_fail_the_walk_unless_departures_make_up_for_it() {
    let mut account = WalkedAccount::new(reading(&["u0", "u1", "u2"], &[], 0));
    let short = |total| FetchedDirectory {
        users: misstated(&["u0", "u1"], total),
        ..reading(&["u0"], &[], 60)
    };
    let incomplete = RuleOutcome::Failed(WalkReason::Incomplete);
    assert_eq!(account.walk(short(4), departed(&["u2"])), incomplete);
    assert_eq!(account.walk(short(3), Answers::default()), incomplete);
    assert_eq!(account.walk(short(3), found(&[user("u2")])), incomplete);
    assert_eq!(
        account.walk(short(3), departed(&["u2"])),
        RuleOutcome::Sealed
    );
}

#[test]
fn a_list_that_does_not_add_up_fails_and_is_not_held() {
    let names = names(20);
    let mut account = WalkedAccount::new(reading(&strs(&names), &[], 0));
    let cut = FetchedDirectory {
        users: misstated(&strs(&names[..10]), 20),
        ..reading(&["u00"], &[], 60)
    };
    assert_eq!(
        account.walk(cut, Answers::default()),
        RuleOutcome::Failed(WalkReason::Incomplete)
    );
}

#[test]
fn the_third_walk_that_misses_the_same_people_seals_with_a_proof_for_each() {
    let names = names(20);
    let mut account = WalkedAccount::new(reading(&strs(&names), &[], 0));
    let cut = |seconds| reading(&strs(&names[..10]), &[], seconds);
    for seconds in [60, 120] {
        assert_eq!(account.lookups(cut(seconds), 99), Lookups::default());
        let outcome = account.walk(cut(seconds), departed(&strs(&names[10..])));
        assert!(
            matches!(outcome, RuleOutcome::Held(WalkReason::MassDisappearance, ref who) if who.len() == 10)
        );
        assert_eq!(account.directory.counts().users, 20);
    }
    let lookups = account.lookups(cut(180), 99);
    assert_eq!(lookups.users.len(), 10);
    // Eight are gone, one is found, one gets no answer.
    let mut answers = departed(&strs(&names[10..18]));
    answers.users.extend(found(&[user("u18")]).users);
    assert_eq!(account.walk(cut(180), answers), RuleOutcome::Sealed);
    assert_eq!(account.directory.counts().users, 12);
    assert_eq!(account.user("u18").unwrap()["suspected"], false);
    assert_eq!(account.user("u19").unwrap()["suspected"], true);
    // The last one is known to be missing, so it does not hold the walk.
    assert_eq!(
        account.walk(cut(240), departed(&["u19"])),
        RuleOutcome::Sealed
    );
    assert_eq!(account.user("u19"), None);
}

#[test]
fn walks_that_are_not_far_enough_apart_settle_nothing_however_many() {
    let names = names(20);
    let mut account = WalkedAccount::new(reading(&strs(&names), &[], 0));
    account.policy.held_confirmed_after = Duration::from_secs(3600);
    let cut = |seconds| reading(&strs(&names[..10]), &[], seconds);
    let gone = departed(&strs(&names[10..]));
    for seconds in (60..3660).step_by(300).chain([3659]) {
        assert_eq!(account.lookups(cut(seconds), 99), Lookups::default());
        let outcome = account.walk(cut(seconds), departed(&strs(&names[10..])));
        assert!(matches!(outcome, RuleOutcome::Held(..)), "{seconds}");
        account.evidence = Evidence::decode(&account.evidence.encode()).unwrap();
    }
    assert_eq!(account.lookups(cut(3660), 99).users.len(), 10);
    assert_eq!(account.walk(cut(3660), gone), RuleOutcome::Sealed);
    assert_eq!(account.directory.counts().users, 10);
}

#[test]
fn two_walks_settle_nothing_however_far_apart() {
    let names = names(20);
    let mut account = WalkedAccount::new(reading(&strs(&names), &[], 0));
    account.policy.held_confirmed_after = Duration::from_secs(3600);
    for seconds in [60, 86_460] {
        let cut = reading(&strs(&names[..10]), &[], seconds);
        let outcome = account.walk(cut, departed(&strs(&names[10..])));
        assert!(matches!(outcome, RuleOutcome::Held(..)), "{seconds}");
    }
}

#[test]
fn whoever_is_missed_later_waits_for_their_own_time() {
    let names = names(30);
    let mut account = WalkedAccount::new(reading(&strs(&names), &[], 0));
    account.policy.held_confirmed_after = Duration::from_secs(3600);
    let cut = |rest: usize, seconds| reading(&strs(&names[..rest]), &[], seconds);
    for (rest, seconds) in [(20, 60), (10, 3000), (10, 3660)] {
        let outcome = account.walk(cut(rest, seconds), departed(&strs(&names[rest..])));
        assert!(matches!(outcome, RuleOutcome::Held(..)), "{seconds}");
    }
    let outcome = account.walk(cut(10, 6600), departed(&strs(&names[10..])));
    assert_eq!(outcome, RuleOutcome::Sealed);
    assert_eq!(account.directory.counts().users, 10);
}

#[test]
fn other_people_missing_each_time_are_held_each_time() {
    let names = names(40);
    let mut account = WalkedAccount::new(reading(&strs(&names), &[], 0));
    for round in 0..5_i64 {
        let start = round as usize * 7;
        let rest = [&names[..start], &names[start + 7..]].concat();
        let outcome = account.walk(
            reading(&strs(&rest), &[], 60 * (round + 1)),
            Answers::default(),
        );
        assert!(matches!(outcome, RuleOutcome::Held(..)), "{outcome:?}");
    }
}

#[test]
fn many_disabled_at_once_are_believed_in_the_third_walk_as_far_as_single_reads_say_so() {
    let names = names(20);
    let all = strs(&names);
    let mut account = WalkedAccount::new(reading(&all, &[("g1", &all)], 0));
    let people: Vec<_> = all
        .iter()
        .enumerate()
        .map(|(i, name)| {
            if i < 8 {
                disabled(user(name))
            } else {
                user(name)
            }
        })
        .collect();
    // A user who loses the last group only in the third walk has no confirmed loss.
    let rest = &all[..19];
    for seconds in [60, 120] {
        let outcome = account.walk(
            reading_of(&people, &[("g1", &all)], seconds),
            Answers::default(),
        );
        assert!(matches!(outcome, RuleOutcome::Held(..)), "{outcome:?}");
    }
    let third = || reading_of(&people, &[("g1", rest)], 180);
    assert_eq!(account.lookups(third(), 99).users.len(), 8);
    let mut answers = found(&people[..6]);
    answers.users.extend(found(&[user("u06")]).users);
    assert_eq!(account.walk(third(), answers), RuleOutcome::Sealed);
    let status = |account: &WalkedAccount, who: &str| {
        let user = account.user(who).unwrap();
        (
            user["status"]["value"].as_str().unwrap().to_owned(),
            user["suspected"].as_bool().unwrap(),
        )
    };
    assert_eq!(status(&account, "u05"), ("disabled".into(), false));
    assert_eq!(status(&account, "u06"), ("enabled".into(), true));
    assert_eq!(status(&account, "u07"), ("enabled".into(), true));
    assert_eq!(
        account.user("u19").unwrap()["groups"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(account.user("u19").unwrap()["suspected"], true);
    // The remaining losses are below the limit, so they apply without look-ups.
    assert_eq!(
        account.walk(
            reading_of(&people, &[("g1", rest)], 240),
            Answers::default()
        ),
        RuleOutcome::Sealed
    );
    assert_eq!(status(&account, "u06"), ("disabled".into(), false));
    assert_eq!(
        account.user("u19").unwrap()["groups"]
            .as_array()
            .unwrap()
            .len(),
        0
    );
}

#[test]
fn a_group_that_takes_the_last_group_of_many_with_it_holds_the_walk() {
    let names = names(12);
    let all = strs(&names);
    let mut account = WalkedAccount::new(reading(&all, &[("g1", &all)], 0));
    let empty = |seconds| reading(&all, &[("g1", &[])], seconds);
    for seconds in [60, 120] {
        let outcome = account.walk(empty(seconds), Answers::default());
        assert!(
            matches!(outcome, RuleOutcome::Held(_, ref who) if who.len() == 12 && who[0].1 == SuspectReason::GroupsLost),
            "{outcome:?}"
        );
        // Every walk reads the group again, though nothing in the list changed.
        let listed = listing(&[group("g1")]);
        let plan = plan_group_reads(
            Some(&account.directory),
            &listed,
            &account.evidence,
            Some(0),
            false,
        );
        assert_eq!(plan, [id("g1")]);
    }
    assert_eq!(
        account.walk(empty(180), Answers::default()),
        RuleOutcome::Sealed
    );
    assert_eq!(account.group("g1").unwrap()["member_count"], 0);
}

#[test]
fn a_missing_group_is_looked_up_and_then_read_by_every_walk_until_it_is_gone() {
    let mut account = WalkedAccount::new(reading(
        &["u0", "u1"],
        &[("g1", &["u0"]), ("g2", &["u1"])],
        0,
    ));
    let without = |seconds| reading(&["u0", "u1"], &[("g1", &["u0"])], seconds);
    let with_read = |seconds, read| {
        let mut reading = without(seconds);
        reading.group_reads.insert(id("g2"), read);
        reading
    };
    assert_eq!(account.lookups(without(60), 9).groups, [id("g2")]);
    let there = Answers {
        groups: [(id("g2"), GroupAnswer::Found)].into(),
        ..Answers::default()
    };
    assert_eq!(account.walk(without(60), there), RuleOutcome::Unchanged);

    let plan = plan_group_reads(
        Some(&account.directory),
        &listing(&[group("g1")]),
        &account.evidence,
        Some(0),
        false,
    );
    assert_eq!(plan, [id("g2")]);
    let more = with_read(120, members(&["u0", "u1"], at(121)));
    assert_eq!(account.walk(more, Answers::default()), RuleOutcome::Sealed);
    assert_eq!(account.group("g2").unwrap()["member_count"], 2);
    assert_eq!(account.group("g2").unwrap()["suspected"], false);

    assert_eq!(account.lookups(without(180), 9), Lookups::default());
    assert_eq!(
        account.walk(without(180), Answers::default()),
        RuleOutcome::Sealed
    );
    assert_eq!(account.group("g2").unwrap()["suspected"], true);

    let gone = with_read(240, GroupRead::Departed);
    assert_eq!(account.walk(gone, Answers::default()), RuleOutcome::Sealed);
    assert_eq!(account.group("g2"), None);
    assert_eq!(
        account.user("u1").unwrap()["groups"],
        Value::Array(Vec::new())
    );
}

#[test]
fn a_missing_group_that_many_have_nothing_but_is_held_once_and_then_known() {
    let names = names(12);
    let all = strs(&names);
    let mut account = WalkedAccount::new(reading(&all, &[("g1", &all)], 0));
    let without = |seconds| reading(&all, &[], seconds);
    for seconds in [60, 120] {
        let outcome = account.walk(without(seconds), Answers::default());
        assert!(matches!(outcome, RuleOutcome::Held(..)), "{outcome:?}");
    }
    assert_eq!(account.lookups(without(180), 9).groups, [id("g1")]);
    let there = Answers {
        groups: [(id("g1"), GroupAnswer::Found)].into(),
        ..Answers::default()
    };
    assert_eq!(account.walk(without(180), there), RuleOutcome::Unchanged);
    for seconds in [240, 300] {
        let mut read = without(seconds);
        read.group_reads
            .insert(id("g1"), members(&all, at(seconds)));
        let outcome = account.walk(read, Answers::default());
        assert!(
            matches!(outcome, RuleOutcome::Unchanged | RuleOutcome::Sealed),
            "{outcome:?}"
        );
    }
    assert_eq!(account.group("g1").unwrap()["listed"], false);
    assert_eq!(account.group("g1").unwrap()["member_count"], 12);
}

#[test]
fn a_missing_group_is_read_before_its_members_seem_to_have_lost_their_groups() {
    let names = names(20);
    let everyone = strs(&names);
    let mut account = WalkedAccount::new(reading(&everyone, &[("g1", &everyone), ("g2", &[])], 0));
    let without = |read: Option<GroupRead>, seconds| {
        let mut reading = reading(&everyone, &[("g2", &[])], seconds);
        reading
            .group_reads
            .extend(read.map(|read| (id("g1"), read)));
        reading
    };
    let reading = without(None, 60);
    let due = plan_group_reads(
        Some(&account.directory),
        reading.groups.as_ref().unwrap(),
        &account.evidence,
        Some(0),
        false,
    );
    assert_eq!(due, [id("g1")]);
    let found = members(&everyone, at(60));
    assert_eq!(
        account.walk(without(Some(found), 60), Answers::default()),
        RuleOutcome::Unchanged
    );
    assert_eq!(account.group("g1").unwrap()["listed"], true);

    let mut account = WalkedAccount::new(self::reading(&everyone, &[("g1", &everyone)], 0));
    let gone = without(Some(GroupRead::Departed), 60);
    assert!(matches!(
        account.walk(gone, Answers::default()),
        RuleOutcome::Held(WalkReason::MassDisappearance, _)
    ));
}

#[test]
fn a_listed_group_that_is_gone_when_its_members_are_read_is_gone() {
    let mut account = WalkedAccount::new(reading(&["u0"], &[("g1", &["u0"])], 0));
    let mut gone = reading(&["u0"], &[("g1", &["u0"])], 60);
    gone.group_reads.insert(id("g1"), GroupRead::Departed);
    assert_eq!(account.walk(gone, Answers::default()), RuleOutcome::Sealed);
    assert_eq!(account.group("g1"), None);
}

#[test]
fn a_new_group_whose_members_were_not_read_fails_the_walk() {
    let mut account = WalkedAccount::new(reading(&["u0"], &[], 0));
    let mut unread = reading(&["u0"], &[("g1", &[])], 60);
    unread.group_reads.clear();
    assert_eq!(
        account.walk(unread, Answers::default()),
        RuleOutcome::Failed(WalkReason::Incomplete)
    );
}

#[test]
fn a_token_that_sees_less_holds_the_walk_and_releasing_it_accepts_the_nulls() {
    let mut account = WalkedAccount::new(reading(&["u0", "u1"], &[("g1", &["u0", "x1"])], 0));
    let less = |seconds| {
        let mut people: Vec<_> = ["u0", "u1"].map(user).to_vec();
        for user in &mut people {
            user.roles = None;
            user.status = None;
            user.seat = None;
        }
        let mut reading = reading_of(&people, &[], seconds);
        reading.identity = plain_identity();
        reading.groups = None;
        reading
    };
    for seconds in [60, 120, 180, 240] {
        let outcome = account.walk(less(seconds), Answers::default());
        let RuleOutcome::Held(WalkReason::Degraded, suspects) = outcome else {
            panic!("{outcome:?}");
        };
        assert_eq!(
            suspects,
            ["u0", "u1", "x1"].map(|id| (id.to_owned(), SuspectReason::Degraded))
        );
    }
    let candidate = account.held.take().unwrap();
    let candidate = ReleaseCandidate::decode(&candidate.encode()).unwrap();
    (account.directory, account.evidence) = candidate.release(2, at(300));
    let user = account.user("u1").unwrap();
    assert_eq!(user["roles"], Value::Null);
    assert_eq!(user["groups"], Value::Null);
    assert_eq!(user["warnings"][0]["field"], "groups");
    assert_eq!(account.directory.counts().groups, 0);
    assert_eq!(moment(&user["first_seen_at"]), at(0));
    assert_eq!(moment(&user["updated_at"]), at(300), "nobody saw it before");
    let outsider = account.user("x1").unwrap();
    assert_eq!(
        (&outsider["listed"], &outsider["suspected"]),
        (&json!(false), &json!(false))
    );
    let unlistable = json!({"field": "listed", "reason": "not_permitted"});
    assert!(
        outsider["warnings"]
            .as_array()
            .unwrap()
            .contains(&unlistable)
    );
    assert_eq!(
        account.walk(less(360), Answers::default()),
        RuleOutcome::Unchanged
    );
    let whole = reading(&["u0", "u1"], &[("g1", &["u0", "x1"])], 420);
    assert_eq!(account.walk(whole, Answers::default()), RuleOutcome::Sealed);
    let outsider = account.user("x1").unwrap();
    assert_eq!(outsider["listed"], true);
    assert!(
        !outsider["warnings"]
            .as_array()
            .unwrap()
            .contains(&unlistable)
    );
}

#[test]
fn releasing_a_walk_without_seats_keeps_the_guests_whom_nobody_listed() {
    let mut people: Vec<_> = (0..20).map(|i| user(&format!("u{i:02}"))).collect();
    for guest in &mut people[14..] {
        guest.is_external = Some(true);
    }
    let all = people.clone();
    let mut account = WalkedAccount::new(reading_of(&all, &[], 0));
    account.policy.unlisted_departs_after = Some(2);
    // One insider left at the same time. The walk reports it, and the release removes them.
    let seen: Vec<_> = people[1..14].to_vec();
    let demoted = |seconds| {
        let mut seen = seen.clone();
        for user in &mut seen {
            (user.roles, user.status, user.seat, user.is_external) = (None, None, None, None);
        }
        let mut reading = reading_of(&seen, &[], seconds);
        reading.identity = plain_identity();
        reading
    };
    let outcome = account.walk(demoted(60), Answers::default());
    let RuleOutcome::Held(WalkReason::Degraded, suspects) = outcome else {
        panic!("{outcome:?}");
    };
    let missing: Vec<_> = suspects
        .iter()
        .filter(|(_, why)| *why == SuspectReason::Missing)
        .map(|(id, _)| id.as_str())
        .collect();
    assert_eq!(missing, ["u00"]);
    let candidate = account.held.take().unwrap();
    (account.directory, account.evidence) = candidate.release(2, at(100));
    assert_eq!(account.directory.counts().users, 19);

    let guests = &all[14..];
    for seconds in [160, 220, 280, 340] {
        let answers = found(guests);
        let outcome = account.walk(demoted(seconds), answers);
        assert_eq!(outcome, RuleOutcome::Unchanged, "{seconds}");
    }
    let guest = account.user("u14").unwrap();
    assert_eq!(
        (&guest["listed"], &guest["suspected"], &guest["is_external"]),
        (&json!(false), &json!(false), &Value::Null)
    );
    // The provider's "no such user" proves that a guest is gone, too.
    let gone = departed(&["u15"]);
    assert_eq!(account.walk(demoted(90_000), gone), RuleOutcome::Sealed);
    assert_eq!(account.user("u15"), None);

    assert_eq!(
        account.walk(reading_of(&all[1..], &[], 90_060), Answers::default()),
        RuleOutcome::Sealed
    );
    let guest = account.user("u14").unwrap();
    assert_eq!(
        (&guest["listed"], &guest["is_external"]),
        (&json!(true), &json!(true))
    );
    assert_eq!(guest["warnings"], json!([]));
}

#[test]
fn a_field_that_many_lose_at_once_holds_the_walk_and_one_that_few_lose_does_not() {
    let people: Vec<_> = (0..30).map(|i| user(&format!("u{i:02}"))).collect();
    let without = |field: fn(&mut ObservedUser), lost: usize, seconds| {
        let mut people = people.clone();
        people[..lost].iter_mut().for_each(field);
        reading_of(&people, &[], seconds)
    };
    let fields: [fn(&mut ObservedUser); 7] = [
        |user| user.email = None,
        |user| user.name = None,
        |user| user.last_name = None,
        |user| user.roles = None,
        |user| user.seat = None,
        |user| user.is_external = None,
        |user| user.status.as_mut().unwrap().source = None,
    ];
    for field in fields {
        let mut account = WalkedAccount::new(reading_of(&people, &[], 0));
        let few = without(field, 3, 60);
        assert_eq!(account.walk(few, Answers::default()), RuleOutcome::Sealed);
        let more = without(field, 6, 120);
        assert_eq!(
            account.walk(more, Answers::default()),
            RuleOutcome::Sealed,
            "three more since the last seal"
        );
        let outcome = account.walk(without(field, 10, 180), Answers::default());
        let expected: Vec<_> = (6..10)
            .map(|i| (format!("u{i:02}"), SuspectReason::Degraded))
            .collect();
        assert_eq!(outcome, RuleOutcome::Held(WalkReason::Degraded, expected));
        let candidate = account.held.take().unwrap();
        (account.directory, account.evidence) = candidate.release(9, at(200));
        assert_eq!(
            account.walk(without(field, 10, 240), Answers::default()),
            RuleOutcome::Unchanged,
            "a release accepts it"
        );
    }
    // A first walk has nothing to compare with.
    let mut bare = people.clone();
    bare.iter_mut().for_each(|user| user.email = None);
    WalkedAccount::new(reading_of(&bare, &[], 0));
}

#[test]
fn a_group_that_cannot_be_read_is_served_as_it_was_with_a_warning() {
    let everyone = reading(&["u0", "u1"], &[("g1", &["u0", "u1"]), ("g2", &["u1"])], 0);
    let mut account = WalkedAccount::new(everyone);
    let before = account.group("g1").unwrap();
    assert_eq!(before["warnings"], json!([]));
    let unread = |reason, seconds| {
        let mut unread = reading(&["u0", "u1"], &[("g1", &[]), ("g2", &["u1"])], seconds);
        unread
            .group_reads
            .insert(id("g1"), GroupRead::Unread(reason));
        unread
    };
    let walked = account.walk(unread(Reason::NotFetched, 60), Answers::default());
    assert_eq!(walked, RuleOutcome::Sealed);
    let group = account.group("g1").unwrap();
    assert_eq!(group["member_count"], 2);
    assert_eq!(group["members_read_at"], before["members_read_at"]);
    let warnings = json!([{"field": "members", "reason": "not_fetched"}]);
    assert_eq!(group["warnings"], warnings);
    assert_eq!(account.user("u0").unwrap()["groups"][0]["remote_id"], "g1");
    assert_eq!(account.user("u0").unwrap()["warnings"], json!([]));

    // Every walk reads it again, however small the cap.
    let next = unread(Reason::NotFetched, 120);
    let listed = next.groups.as_ref().unwrap();
    let due = plan_group_reads(
        Some(&account.directory),
        listed,
        &account.evidence,
        Some(0),
        false,
    );
    assert_eq!(due, [id("g1")]);
    assert_eq!(
        account.walk(next, Answers::default()),
        RuleOutcome::Unchanged
    );

    let read = reading(&["u0", "u1"], &[("g1", &["u0"]), ("g2", &["u1"])], 180);
    assert_eq!(account.walk(read, Answers::default()), RuleOutcome::Sealed);
    let group = account.group("g1").unwrap();
    assert_eq!(
        (&group["member_count"], &group["warnings"]),
        (&json!(1), &json!([]))
    );
}

#[test]
fn members_that_were_never_read_are_unknown_and_so_are_everybodys_groups() {
    let mut unread = reading(&["u0", "u1"], &[("g1", &[]), ("g2", &["u1"])], 0);
    let refused = GroupRead::Unread(Reason::NotPermitted);
    unread.group_reads.insert(id("g1"), refused);
    let mut account = WalkedAccount::new(unread);
    let bytes = account.directory.encode();
    account.directory = Directory::decode(&bytes).unwrap();
    let group = account.group("g1").unwrap();
    for field in ["member_count", "members_read_at"] {
        assert_eq!(group[field], Value::Null, "{field}");
    }
    let warnings = json!([{"field": "members", "reason": "not_permitted"}]);
    assert_eq!(group["warnings"], warnings);
    let unknown = json!([{"field": "groups", "reason": "unknown"}]);
    for (who, groups) in [("u0", 0), ("u1", 1)] {
        let user = account.user(who).unwrap();
        assert_eq!(user["warnings"], unknown);
        assert_eq!(user["groups"].as_array().unwrap().len(), groups);
    }

    // A walk that does not read the group changes nothing; one that reads it fills in the members.
    let mut without = reading(&["u0", "u1"], &[("g1", &[]), ("g2", &["u1"])], 60);
    without.group_reads.clear();
    assert_eq!(
        account.walk(without, Answers::default()),
        RuleOutcome::Unchanged
    );
    let read = reading(&["u0", "u1"], &[("g1", &[]), ("g2", &["u1"])], 120);
    assert_eq!(account.walk(read, Answers::default()), RuleOutcome::Sealed);
    assert_eq!(account.group("g1").unwrap()["member_count"], 0);
    assert_eq!(account.user("u0").unwrap()["warnings"], json!([]));
}

#[test]
fn many_groups_that_cannot_be_read_at_once_hold_the_walk() {
    let names: Vec<_> = (0..20).map(|i| format!("g{i:02}")).collect();
    let groups: Vec<(&str, &[&str])> = names.iter().map(|id| (id.as_str(), &["u0"][..])).collect();
    let mut account = WalkedAccount::new(reading(&["u0"], &groups, 0));
    let unread = |range: std::ops::Range<usize>, seconds| {
        let mut unread = reading(&["u0"], &groups, seconds);
        for name in &names[range] {
            let refused = GroupRead::Unread(Reason::NotPermitted);
            unread.group_reads.insert(id(name), refused);
        }
        unread
    };
    assert_eq!(
        account.walk(unread(0..3, 60), Answers::default()),
        RuleOutcome::Sealed
    );
    let outcome = account.walk(unread(0..7, 120), Answers::default());
    let expected: Vec<_> = (3..7)
        .map(|i| (names[i].clone(), SuspectReason::Degraded))
        .collect();
    assert_eq!(outcome, RuleOutcome::Held(WalkReason::Degraded, expected));
}

#[test]
fn releasing_a_held_walk_takes_it_at_its_word() {
    let names = names(20);
    let mut account = WalkedAccount::new(reading(&strs(&names), &[("g1", &strs(&names))], 0));
    let cut = |seconds| {
        let rest = strs(&names[..10]);
        reading(&rest, &[("g1", &rest)], seconds)
    };
    assert!(matches!(
        account.walk(cut(60), Answers::default()),
        RuleOutcome::Held(..)
    ));
    let candidate = account.held.take().unwrap();
    (account.directory, account.evidence) = candidate.release(7, at(100));
    assert_eq!(account.directory.version(), 7);
    assert_eq!(account.directory.sealed_at(), at(100));
    assert_eq!(account.directory.counts().users, 10);
    assert_eq!(moment(&account.user("u00").unwrap()["updated_at"]), at(0));
    assert_eq!(
        account.walk(cut(160), Answers::default()),
        RuleOutcome::Unchanged
    );
}

#[test]
fn a_token_of_another_organization_fails_the_walk() {
    let mut account = WalkedAccount::new(reading(&["u0"], &[], 0));
    let mut other = reading(&["u0"], &[], 60);
    other.identity.organization = id("another");
    assert_eq!(
        account.walk(other, Answers::default()),
        RuleOutcome::Failed(WalkReason::OrganizationChanged)
    );
}

#[test]
fn a_token_that_sees_more_fills_in_what_was_null() {
    let mut plain = user("u0");
    (plain.roles, plain.status, plain.seat) = (None, None, None);
    let mut less = reading_of(&[plain], &[("g1", &["x1"])], 0);
    less.identity = plain_identity();
    let mut account = WalkedAccount::new(less);
    assert_eq!(account.user("x1").unwrap()["roles"], Value::Null);
    let mut more = reading(&["u0"], &[("g1", &["x1"])], 60);
    more.identity = identity();
    more.group_reads.clear();
    assert_eq!(account.walk(more, Answers::default()), RuleOutcome::Sealed);
    assert_eq!(
        account.user("x1").unwrap()["roles"],
        Value::Array(Vec::new())
    );
    assert_eq!(account.user("u0").unwrap()["status"]["value"], "enabled");
}

#[test]
fn an_operator_may_let_the_unlisted_depart() {
    let mut account = WalkedAccount::new(reading(&["u0", "u1"], &[], 0));
    account.policy.unlisted_departs_after = Some(4);
    let without = |walk: i64| reading(&["u0"], &[], 60 * walk);
    let there = || found(&[user("u1")]);
    assert_eq!(account.walk(without(1), there()), RuleOutcome::Unchanged);
    assert_eq!(account.walk(without(2), there()), RuleOutcome::Unchanged);
    assert_eq!(account.walk(without(3), there()), RuleOutcome::Sealed);
    assert_eq!(account.user("u1").unwrap()["listed"], false);
    // They were found less than 24 hours ago, so a missing answer changes nothing, and the walk
    // does not count.
    assert_eq!(
        account.walk(without(4), Answers::default()),
        RuleOutcome::Unchanged
    );
    assert_eq!(account.walk(without(5), there()), RuleOutcome::Sealed);
    assert_eq!(account.user("u1"), None);
}

#[test]
fn those_found_of_late_are_asked_for_with_what_the_others_leave() {
    let mut account = WalkedAccount::new(reading(&["u0", "u1", "u2"], &[], 0));
    for walk in 1..=3 {
        account.walk(reading(&["u0", "u2"], &[], 60 * walk), found(&[user("u1")]));
    }
    let without_both = || reading(&["u0"], &[], 240);
    let users = |cap| account.lookups(without_both(), cap).users;
    assert_eq!(users(1), ["u2".into()]);
    assert_eq!(users(2), ["u2".into(), "u1".into()]);
}

#[test]
fn whoever_returns_to_the_list_is_listed_again_and_counts_anew() {
    let mut account = WalkedAccount::new(reading(&["u0", "u1"], &[], 0));
    for walk in 1..=3 {
        account.walk(reading(&["u0"], &[], 60 * walk), found(&[user("u1")]));
    }
    assert_eq!(account.user("u1").unwrap()["listed"], false);
    assert_eq!(
        account.walk(reading(&["u0", "u1"], &[], 240), Answers::default()),
        RuleOutcome::Sealed
    );
    assert_eq!(account.user("u1").unwrap()["listed"], true);
    assert_eq!(
        account.lookups(reading(&["u0"], &[], 300), 9).users,
        [id("u1")]
    );
}

#[test]
fn a_row_that_cannot_be_read_leaves_its_user_as_they_were() {
    let names = names(99);
    let mut all: Vec<_> = names.iter().map(|name| user(name)).collect();
    let mut account = WalkedAccount::new(reading_of(&all, &[], 0));
    let bad = all.remove(7).remote_id;
    let mut page = listed_page(&all, 100, 1);
    page.quarantined = vec![Some(bad.clone()), None];
    page.total = Some(100);
    page.records.push(user("new"));
    // More valid rows, so that the two bad rows are a small share.
    let mut pass = ListScan::new(300);
    page.records
        .extend((0..100).map(|i| user(&format!("more{i}"))));
    page.total = Some(201);
    pass.take(1, page).unwrap();
    let mut read = reading(&["u00"], &[], 60);
    read.users = MergedList::of(pass).unwrap();
    assert!(!read.users.needs_second_pass());
    assert_eq!(account.walk(read, Answers::default()), RuleOutcome::Sealed);
    let kept = account.user(bad.as_str()).unwrap();
    assert_eq!(
        (&kept["listed"], &kept["suspected"]),
        (&Value::Bool(true), &Value::Bool(false))
    );
    assert_eq!(moment(&kept["updated_at"]), at(0));
}

/// A list of `all`, and `rows` rows without a readable id.
fn with_nameless_rows(all: &[ObservedUser], rows: usize) -> MergedList<ObservedUser> {
    let size = all.len() + rows;
    let mut page = listed_page(all, size, 1);
    page.quarantined = vec![None; rows];
    page.total = Some(size as u64);
    let mut pass = ListScan::new(size as u64);
    pass.take(1, page).unwrap();
    MergedList::of(pass).unwrap()
}

#[test]
fn a_row_that_does_not_tell_whose_it_is_unlists_nobody() {
    let names = names(30);
    let all: Vec<_> = names.iter().map(|name| user(name)).collect();
    let mut account = WalkedAccount::new(reading_of(&all, &[], 0));
    account.policy.unlisted_departs_after = Some(3);
    for walk in 1..=5 {
        let read = FetchedDirectory {
            users: with_nameless_rows(&all[1..], 1),
            ..reading(&["u00"], &[], 60 * walk)
        };
        assert_eq!(account.walk(read, found(&all[..1])), RuleOutcome::Unchanged);
    }
    // The provider's "no such user" is still a proof.
    let read = FetchedDirectory {
        users: with_nameless_rows(&all[2..], 1),
        ..reading(&["u00"], &[], 400)
    };
    let mut answers = found(&all[..1]);
    answers.users.extend(departed(&["u01"]).users);
    assert_eq!(account.walk(read, answers), RuleOutcome::Sealed);
    assert_eq!(account.user("u01"), None);
    assert_eq!(account.user("u00").unwrap()["listed"], true);
}

#[test]
fn rows_that_do_not_tell_whose_they_are_hold_no_walk_by_themselves() {
    let names = names(1100);
    let all: Vec<_> = names.iter().map(|name| user(name)).collect();
    let mut account = WalkedAccount::new(reading_of(&all, &[], 0));
    let read = |seen: &[ObservedUser], rows| FetchedDirectory {
        users: with_nameless_rows(seen, rows),
        ..reading(&["u00"], &[], 60)
    };
    // More than the limit, but each of them may be one of the rows without an id.
    let outcome = account.walk(read(&all[55..], 55), found(&all[..55]));
    assert_eq!(outcome, RuleOutcome::Unchanged);
    // The others cannot be.
    let outcome = account.walk(read(&all[160..], 45), Answers::default());
    assert!(matches!(outcome, RuleOutcome::Held(..)), "{outcome:?}");
}

#[test]
fn times_tell_when_somebody_was_first_seen_and_last_changed() {
    let mut account = WalkedAccount::new(reading(&["u0", "u1"], &[("g1", &["u0"])], 0));
    let mut renamed = user("u1");
    renamed.name = Some("Bea".into());
    let people = [user("u0"), renamed.clone(), user("u2")];
    assert_eq!(
        account.walk(
            reading_of(&people, &[("g1", &["u0"])], 60),
            Answers::default()
        ),
        RuleOutcome::Sealed
    );
    let times = |account: &WalkedAccount, who: &str| {
        let user = account.user(who).unwrap();
        (moment(&user["first_seen_at"]), moment(&user["updated_at"]))
    };
    assert_eq!(times(&account, "u0"), (at(0), at(0)));
    assert_eq!(times(&account, "u1"), (at(0), at(60)));
    assert_eq!(times(&account, "u2"), (at(60), at(60)));
    // Joining a group changes both the user and the group.
    account.walk(
        reading_of(&people, &[("g1", &["u0", "u2"])], 120),
        Answers::default(),
    );
    assert_eq!(times(&account, "u0"), (at(0), at(0)));
    assert_eq!(times(&account, "u2"), (at(60), at(120)));
    assert_eq!(moment(&account.group("g1").unwrap()["updated_at"]), at(120));
}

#[test]
fn a_later_reading_of_a_group_shows_once_a_version_is_sealed_and_makes_none_by_itself() {
    let mut account = WalkedAccount::new(reading(&["u0"], &[("g1", &["u0"])], 0));
    let read_at =
        |account: &WalkedAccount| moment(&account.group("g1").unwrap()["members_read_at"]);
    assert_eq!(
        account.walk(reading(&["u0"], &[("g1", &["u0"])], 60), Answers::default()),
        RuleOutcome::Unchanged
    );
    assert_eq!(read_at(&account), at(0));
    let mut unread = reading(&["u0", "u1"], &[("g1", &["u0"])], 120);
    unread.group_reads.clear();
    assert_eq!(
        account.walk(unread, Answers::default()),
        RuleOutcome::Sealed
    );
    assert_eq!(read_at(&account), at(60));
}

#[test]
fn groups_are_read_that_are_new_or_moved_and_then_the_longest_unread() {
    let names = ["g1", "g2", "g3", "g4"];
    let groups = names.map(|name| (name, &[][..]));
    let mut account = WalkedAccount::new(reading(&["u0"], &groups, 0));
    let mut partly = reading(&["u0"], &groups, 60);
    partly.group_reads.retain(|id, _| id.as_str() == "g1");
    account.walk(partly, Answers::default());
    let mut listed: Vec<_> = names.map(group).to_vec();
    listed[2].modified_at = Some(at(30));
    listed.push(group("g5"));
    let listed = listing(&listed);
    let plan = |cap, full| {
        let (prev, evidence) = (&account.directory, &account.evidence);
        plan_group_reads(Some(prev), &listed, evidence, cap, full)
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    assert_eq!(plan(Some(0), false), ["g3", "g5"]);
    assert_eq!(plan(Some(1), false), ["g3", "g5", "g2"]);
    assert_eq!(plan(None, false), ["g3", "g5", "g2", "g4", "g1"]);
    assert_eq!(plan(Some(0), true), plan(None, false));
}

#[test]
fn all_groups_gone_at_once_are_few_enough_to_be_looked_up_or_hold_the_walk() {
    let six = ["g1", "g2", "g3", "g4", "g5", "g6"].map(|name| (name, &[][..]));
    let mut account = WalkedAccount::new(reading(&["u0"], &six, 0));
    let outcome = account.walk(reading(&["u0"], &[], 60), Answers::default());
    assert!(
        matches!(outcome, RuleOutcome::Held(WalkReason::MassDisappearance, ref who) if who.len() == 6)
    );
    let account = WalkedAccount::new(reading(&["u0"], &six[..5], 0));
    assert_eq!(
        account.lookups(reading(&["u0"], &[], 60), 9).groups.len(),
        5
    );
}
