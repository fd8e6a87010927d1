//! Sealing compared with the truth, with data that changes between any two requests, wrong
//! responses and look-ups without an answer. In every case, no record that existed throughout is
//! reported gone, and no record comes back that did not. Once the data stops changing, the
//! directory is correct.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use crate::{
    directory::{Directory, Evidence, Policy, Resource, SealResult, assess},
    model::walks::WalkReason,
};

use super::provider::{Provider, WalkFault};

/// One walk of a history.
#[derive(Debug, Clone)]
struct HistoryStep {
    fault: WalkFault,
    changes_before: u8,
    removals_before: u8,
    churn_per_mille: u16,
    reads_cap: Option<usize>,
    lookups_cap: usize,
    pause: i64,
}

fn fault() -> impl Strategy<Value = WalkFault> {
    prop_oneof![
        4 => Just(WalkFault::None),
        2 => (2_u8..12).prop_map(WalkFault::Withhold),
        1 => Just(WalkFault::Overstate),
        1 => (1_u8..5).prop_map(WalkFault::EmptyPage),
        1 => Just(WalkFault::CutShort),
        2 => (2_u8..12).prop_map(WalkFault::Disable),
        1 => Just(WalkFault::Forget),
        1 => Just(WalkFault::Mute),
        2 => Just(WalkFault::Stammer),
    ]
}

fn step() -> impl Strategy<Value = HistoryStep> {
    prop_oneof![any_step(), one_change()]
}

/// A step that differs from [`CLEAN`] in one part, so that each fault also occurs alone.
fn one_change() -> impl Strategy<Value = HistoryStep> {
    prop_oneof![
        fault().prop_map(|fault| HistoryStep { fault, ..CLEAN }),
        (0_u8..8).prop_map(|changes_before| HistoryStep {
            changes_before,
            ..CLEAN
        }),
        (0_u8..15).prop_map(|removals_before| HistoryStep {
            removals_before,
            ..CLEAN
        }),
        (0_u16..150).prop_map(|churn_per_mille| HistoryStep {
            churn_per_mille,
            ..CLEAN
        }),
        (0_usize..4).prop_map(|reads| HistoryStep {
            reads_cap: Some(reads),
            ..CLEAN
        }),
        (0_usize..4).prop_map(|lookups_cap| HistoryStep {
            lookups_cap,
            ..CLEAN
        }),
        Just(HistoryStep {
            pause: 30 * 3600,
            ..CLEAN
        }),
    ]
}

fn any_step() -> impl Strategy<Value = HistoryStep> {
    (
        fault(),
        0_u8..8,
        prop_oneof![4 => 0_u8..3, 1 => 5_u8..15],
        prop_oneof![Just(0_u16), 0_u16..150],
        prop_oneof![Just(None), (0_usize..4).prop_map(Some)],
        prop_oneof![Just(100_usize), 0_usize..4],
        prop_oneof![Just(0_i64), Just(30 * 3600)],
    )
        .prop_map(
            |(fault, changes_before, removals_before, churn, reads_cap, lookups_cap, pause)| {
                HistoryStep {
                    fault,
                    changes_before,
                    removals_before,
                    churn_per_mille: churn,
                    reads_cap,
                    lookups_cap,
                    pause,
                }
            },
        )
}

const CLEAN: HistoryStep = HistoryStep {
    fault: WalkFault::None,
    changes_before: 0,
    removals_before: 0,
    churn_per_mille: 0,
    reads_cap: None,
    lookups_cap: 1000,
    pause: 0,
};

/// The content of a directory, in a simple form.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Said {
    /// By id: whether external, whether disabled, and the name.
    users: BTreeMap<String, (bool, bool, String)>,
    groups: BTreeSet<String>,
    memberships: BTreeSet<(String, String)>,
    suspected: BTreeSet<String>,
    unlisted: BTreeSet<String>,
}

impl Said {
    fn by(directory: &Directory) -> Self {
        let mut said = Self::default();
        for place in 0..directory.len(Resource::Users) {
            let user = directory.user(place);
            let id = user.id.to_owned();
            if user.profile.suspected {
                said.suspected.insert(id.clone());
            }
            if !user.profile.listed {
                said.unlisted.insert(id.clone());
            }
            for group in directory.groups_of(place) {
                let group = directory.group(*group as usize).id.to_owned();
                said.memberships.insert((group, id.clone()));
            }
            let name = user.name.unwrap_or_default().to_owned();
            said.users.insert(
                id,
                (user.profile.is_external_member, user.is_disabled(), name),
            );
        }
        for place in 0..directory.len(Resource::Groups) {
            said.groups.insert(directory.group(place).id.to_owned());
        }
        let counted: BTreeSet<_> = (0..directory.len(Resource::Groups))
            .flat_map(|place| {
                let group = directory.group(place).id.to_owned();
                directory
                    .members(place)
                    .iter()
                    .map(move |user| (group.clone(), directory.user(*user as usize).id.to_owned()))
            })
            .collect();
        assert_eq!(said.memberships, counted, "both ways round the same");
        said
    }
}

/// A linked account, with the checks that a reader of its directory could make.
struct SealedAccount {
    provider: Provider,
    directory: Option<Directory>,
    evidence: Evidence,
    /// The number of consecutive held walks. An unchanged walk resets it; of sealed walks, only the
    /// second one does, because a loss without proof keeps its series.
    holds_in_a_row: u32,
    has_sealed_since: bool,
    last_listed: BTreeSet<String>,
}

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum HistoryOutcome {
    Failed(WalkReason),
    Held,
    Unchanged,
    Sealed,
}

impl SealedAccount {
    fn walk(&mut self, step: &HistoryStep) -> HistoryOutcome {
        let provider = &mut self.provider;
        provider.wait(step.pause);
        provider.churn_per_mille = 0;
        for _ in 0..step.changes_before {
            provider.change();
        }
        for _ in 0..step.removals_before {
            let who = provider.people.keys().next().cloned();
            if let Some(who) = who.filter(|_| provider.people.len() > 3) {
                provider.remove_person(&who, true);
            }
        }
        provider.begin();
        provider.churn_per_mille = usize::from(step.churn_per_mille);

        let prev = self.directory.as_ref();
        let reading = match provider.read(prev, &self.evidence, step.fault, step.reads_cap) {
            Ok(reading) => reading,
            Err(reason) => return HistoryOutcome::Failed(reason),
        };
        let listed: BTreeSet<String> = reading
            .users
            .records()
            .filter(|(_, in_last_pass)| *in_last_pass)
            .map(|(user, _)| user.remote_id.to_string())
            .collect();
        let now = provider.now();
        let assessment = assess(prev, reading, self.evidence.clone(), Policy::default(), now);
        let lookups = assessment.lookups(step.lookups_cap);
        assert!(lookups.users.len() + lookups.groups.len() <= step.lookups_cap);
        let answers = provider.answer(&lookups, step.fault);
        let version = prev.map_or(1, |prev| prev.version() + 1);
        match assessment.seal(answers, version, provider.now()) {
            SealResult::Failed(reason) => HistoryOutcome::Failed(reason),
            SealResult::Held {
                suspects, evidence, ..
            } => {
                assert!(lookups.users.is_empty() && lookups.groups.is_empty());
                assert!(suspects.len() > 5);
                self.evidence = Evidence::decode(&evidence.encode()).unwrap();
                self.holds_in_a_row += 1;
                self.has_sealed_since = false;
                HistoryOutcome::Held
            }
            SealResult::Unchanged { evidence } => {
                self.evidence = evidence;
                self.holds_in_a_row = 0;
                self.last_listed = listed;
                HistoryOutcome::Unchanged
            }
            SealResult::Sealed {
                directory,
                evidence,
            } => {
                self.check(&directory, &listed, step.fault);
                let stored = Directory::decode(&directory.encode()).unwrap();
                assert_eq!(stored, *directory);
                self.directory = Some(stored);
                self.evidence = Evidence::decode(&evidence.encode()).unwrap();
                if self.has_sealed_since {
                    self.holds_in_a_row = 0;
                }
                self.has_sealed_since = true;
                self.last_listed = listed;
                HistoryOutcome::Sealed
            }
        }
    }

    /// Checks the properties of every sealed directory, under any fault.
    fn check(&self, directory: &Directory, listed: &BTreeSet<String>, fault: WalkFault) {
        let span = &self.provider.span;
        let after = Said::by(directory);
        let before = self.directory.as_ref().map(Said::by).unwrap_or_default();

        let limit = (before.users.len() / 10).clamp(5, 50);
        let has_been_held = self.holds_in_a_row >= 2;
        for (who, (was_outsider, ..)) in &before.users {
            if let Some((is_external_member, ..)) = after.users.get(who) {
                assert!(
                    *was_outsider || !is_external_member,
                    "{who} departed, and is back through a list from before"
                );
            }
            let was_there = if *was_outsider && fault == WalkFault::Forget {
                false
            } else if *was_outsider {
                span.memberships_throughout.iter().any(|(team, member)| {
                    member == who && before.memberships.contains(&(team.clone(), who.clone()))
                })
            } else {
                span.users_throughout.contains(who)
            };
            assert!(
                !was_there || after.users.contains_key(who),
                "{who} was there throughout and is reported gone"
            );
        }
        for team in before.groups.intersection(&span.groups_throughout) {
            assert!(after.groups.contains(team), "{team} was there throughout");
        }
        let steady = before
            .memberships
            .intersection(&span.memberships_throughout)
            .filter(|_| fault != WalkFault::Forget);
        for membership in steady {
            let (team, who) = membership;
            let was_outsider = before.users[who].0;
            if was_outsider || span.users_throughout.contains(who) {
                assert!(
                    after.memberships.contains(membership),
                    "{who} was in {team} throughout"
                );
            }
        }
        for who in after.users.keys() {
            assert!(
                before.users.contains_key(who) || span.ever_named.contains(who),
                "{who} came back, and was nowhere"
            );
        }
        for membership in &after.memberships {
            assert!(
                before.memberships.contains(membership)
                    || span.memberships_ever.contains(membership),
                "{membership:?} was never so"
            );
        }
        let newly_gone = before
            .users
            .iter()
            .filter(|(who, (was_outsider, ..))| {
                !was_outsider && self.last_listed.contains(*who) && !listed.contains(*who)
            })
            .count();
        assert!(
            newly_gone <= limit || has_been_held,
            "{newly_gone} of {} were missing at once, and the walk was not held",
            before.users.len()
        );
        let falsely_disabled = after
            .users
            .iter()
            .filter(|(who, (_, is_disabled, _))| {
                let was_disabled = before.users.get(*who).is_some_and(|before| before.1);
                before.users.contains_key(*who)
                    && *is_disabled
                    && !was_disabled
                    && !span.ever_disabled.contains(*who)
            })
            .count();
        assert!(
            falsely_disabled <= limit,
            "{falsely_disabled} are reported disabled, and never were"
        );
        let is_in_a_group =
            |said: &Said, who: &String| said.memberships.iter().any(|(_, member)| member == who);
        let without_groups = before
            .users
            .keys()
            .filter(|who| {
                span.users_throughout.contains(*who)
                    && is_in_a_group(&before, who)
                    && !is_in_a_group(&after, who)
            })
            .count();
        assert!(
            without_groups <= limit || has_been_held,
            "{without_groups} lost all groups at once, and the walk was not held"
        );
    }

    /// Checks that the directory equals the provider's data.
    fn check_is_true(&self) {
        let said = Said::by(self.directory.as_ref().unwrap());
        let provider = &self.provider;
        let mut users: BTreeMap<String, (bool, bool)> = provider
            .people
            .iter()
            .map(|(who, person)| (who.clone(), (false, person.is_disabled)))
            .collect();
        for (_, who) in provider.memberships() {
            users.entry(who).or_insert((true, false));
        }
        let said_users: BTreeMap<String, (bool, bool)> = said
            .users
            .iter()
            .map(|(who, (is_external_member, is_disabled, _))| {
                (who.clone(), (*is_external_member, *is_disabled))
            })
            .collect();
        assert_eq!(said_users, users);
        assert_eq!(said.memberships, provider.memberships());
        assert_eq!(said.groups, provider.teams.keys().cloned().collect());
        assert_eq!(said.suspected, BTreeSet::new());
        for (who, person) in &provider.people {
            let name = format!("Ana {who} {}", person.revision);
            assert_eq!(said.users[who].2, name);
        }
    }
}

fn account(seed: u64, people: usize, teams: usize) -> SealedAccount {
    let mut account = SealedAccount {
        provider: Provider::new(seed, people, teams),
        directory: None,
        evidence: Evidence::default(),
        holds_in_a_row: 0,
        has_sealed_since: false,
        last_listed: BTreeSet::new(),
    };
    assert_eq!(account.walk(&CLEAN), HistoryOutcome::Sealed);
    account.check_is_true();
    account
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn nobody_is_reported_gone_who_is_there_and_a_world_that_stands_still_is_told_truly(
        seed: u64,
        people in 4_usize..70,
        teams in 1_usize..7,
        history in proptest::collection::vec((step(), 1..5_usize), 1..7),
    ) {
        let mut account = account(seed, people, teams);
        for (step, times) in &history {
            for _ in 0..*times {
                account.walk(step);
            }
        }
        for walk in 1..=3 {
            let outcome = account.walk(&CLEAN);
            prop_assert!(!matches!(outcome, HistoryOutcome::Failed(_)), "{outcome:?}");
            prop_assert!(walk < 3 || outcome != HistoryOutcome::Held);
        }
        let said = Said::by(account.directory.as_ref().unwrap());
        for (who, (is_external_member, ..)) in &said.users {
            prop_assert!(
                *is_external_member || account.provider.people.contains_key(who),
                "{} left, and is still reported after three clean walks", who
            );
        }
        // A user who left the organization but not their groups is an external member from the next
        // walk on.
        account.walk(&CLEAN);
        account.check_is_true();
        let version = account.directory.as_ref().unwrap().version();
        prop_assert_eq!(account.walk(&CLEAN), HistoryOutcome::Unchanged);
        prop_assert_eq!(account.directory.as_ref().unwrap().version(), version);
    }

    #[test]
    fn whoever_is_found_but_in_no_list_stays_and_is_said_to_be_unlisted_after_three_walks(
        seed: u64,
        people in 8_usize..40,
        hidden in 1_usize..4,
        pauses in proptest::collection::vec(prop_oneof![Just(0_i64), Just(30 * 3600)], 4..8),
    ) {
        let mut account = account(seed, people, 2);
        let who: Vec<String> = account.provider.people.keys().take(hidden).cloned().collect();
        for who in &who {
            account.provider.people.get_mut(who).unwrap().is_unlisted = true;
        }
        for (walks, pause) in (1..).zip(&pauses) {
            let outcome = account.walk(&HistoryStep { pause: *pause, ..CLEAN });
            let expected = if walks == 3 { HistoryOutcome::Sealed } else { HistoryOutcome::Unchanged };
            prop_assert_eq!(outcome, expected, "walk {}", walks);
        }
        let said = Said::by(account.directory.as_ref().unwrap());
        prop_assert_eq!(said.unlisted, who.iter().cloned().collect());
        prop_assert_eq!(said.suspected, BTreeSet::new());
        // Once they are really gone, the next walk removes them.
        for who in &who {
            account.provider.remove_person(who, true);
        }
        account.walk(&CLEAN);
        account.check_is_true();
    }
}
