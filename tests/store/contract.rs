//! What every backend must do: plain functions over any store, and the list of them.

use std::{collections::HashSet, future::Future, pin::Pin, slice, time::Duration};

use rolecall::{
    error::Kind,
    model::{
        accounts::{
            Account, AccountChange, AccountStatus, Credential, CredentialState, StatusReason,
        },
        api_keys::{KeyChange, KeyLabel, KeyStatus},
        audit_log::{Actor, AuditFilter},
        walks::{Walk, WalkReason, WalkState},
    },
    store::{
        AccountState, AccountUpdate, BeginWalkResult, CommitWalkResult, CountedState,
        CredentialRecord, Hold, Latest, NewCredential, NewDirectory, ReleasableWalk, Retention,
        Verified, WalkCommit,
    },
};
use secrecy::SecretString;

use crate::{
    audit_log, budgets, credentials, projects,
    rotation::all_keys_can_be_wrapped_anew,
    world::{EMAIL, NAME, TOKEN, World, credential, credential_of, ends, identity, project, ring},
};

pub type Contract = fn(World) -> Pin<Box<dyn Future<Output = ()>>>;

/// Each is run on a database of its own.
pub const ALL: &[(&str, Contract)] = &[
    ("a project is made once", |w| {
        Box::pin(a_project_is_made_once(w))
    }),
    ("an API key reads back until and after it is revoked", |w| {
        Box::pin(an_api_key_reads_back(w))
    }),
    ("the end of a key is only ever brought forward", |w| {
        Box::pin(a_key_s_end_is_only_brought_forward(w))
    }),
    ("an account reads back whole", |w| {
        Box::pin(an_account_reads_back_whole(w))
    }),
    ("an account's state can be noted", |w| {
        Box::pin(an_accounts_state_can_be_noted(w))
    }),
    ("accounts are counted by their status", |w| {
        Box::pin(accounts_are_counted_by_their_status(w))
    }),
    ("an account's description can be changed", |w| {
        Box::pin(an_accounts_description_can_be_changed(w))
    }),
    ("a credential is replaced by its next generation", |w| {
        Box::pin(a_credential_is_replaced_by_its_next_generation(w))
    }),
    ("a walk of a former credential writes nothing", |w| {
        Box::pin(a_walk_of_a_former_credential_writes_nothing(w))
    }),
    ("a deleted account leaves nothing", |w| {
        Box::pin(a_deleted_account_leaves_nothing(w))
    }),
    ("walks are listed newest first", |w| {
        Box::pin(walks_are_listed_newest_first(w))
    }),
    ("one walk of an account runs at a time", |w| {
        Box::pin(one_walk_of_an_account_runs_at_a_time(w))
    }),
    ("a walk is ended by whoever began it", |w| {
        Box::pin(a_walk_is_ended_by_whoever_began_it(w))
    }),
    ("walks end with the replica that runs them", |w| {
        Box::pin(walks_end_with_the_replica_that_runs_them(w))
    }),
    (
        "a walk whose end could not be stored is in nobody's way",
        |w| Box::pin(a_walk_whose_end_could_not_be_stored_is_in_nobodys_way(w)),
    ),
    (
        "what was held is decided until a later walk has sealed",
        |w| {
            Box::pin(what_was_held_is_decided_only_until_a_later_walk_has_sealed(
                w,
            ))
        },
    ),
    (
        "what was judged against another version is not stored",
        |w| Box::pin(what_was_judged_against_another_version_is_not_stored(w)),
    ),
    ("who is due is claimed once", |w| {
        Box::pin(who_is_due_is_claimed_once(w))
    }),
    (
        "a walk before the date was set back does not put off the next",
        |w| Box::pin(a_walk_before_the_date_was_set_back_does_not_put_off_the_next(w)),
    ),
    ("a sealed walk puts its directory in force", |w| {
        Box::pin(a_sealed_walk_puts_its_directory_in_force(w))
    }),
    ("versions are neither skipped nor taken twice", |w| {
        Box::pin(versions_are_neither_skipped_nor_taken_twice(w))
    }),
    ("a refused commit writes nothing", |w| {
        Box::pin(a_refused_commit_writes_nothing(w))
    }),
    ("a held walk can be released until a later one seals", |w| {
        Box::pin(a_held_walk_can_be_released(w))
    }),
    ("what is past is forgotten", |w| {
        Box::pin(what_is_past_is_forgotten(w))
    }),
    ("no project sees another's rows", |w| {
        Box::pin(no_project_sees_anothers_rows(w))
    }),
    ("all keys can be wrapped anew", |w| {
        Box::pin(all_keys_can_be_wrapped_anew(w))
    }),
    ("a deleted project leaves nothing but its name", |w| {
        Box::pin(projects::a_deleted_one_leaves_nothing_but_its_name(w))
    }),
    (
        "a project is deleted whole, whoever is at work in it",
        |w| Box::pin(projects::it_is_deleted_whole_whoever_is_at_work_in_it(w)),
    ),
    ("a budget begins with its burst only if it is new", |w| {
        Box::pin(budgets::it_begins_with_its_burst_only_if_it_is_new(w))
    }),
    ("what is not used of a slice is there again", |w| {
        Box::pin(budgets::what_is_not_used_is_there_again(w))
    }),
    ("a budget is given once, however many ask", |w| {
        Box::pin(budgets::it_is_given_once_however_many_ask(w))
    }),
    ("after a pause of a budget one goes first", |w| {
        Box::pin(budgets::after_a_pause_one_goes_first(w))
    }),
    ("what is done is told", |w| {
        Box::pin(audit_log::what_is_done_is_told(w))
    }),
    ("what is not done is not told", |w| {
        Box::pin(audit_log::what_is_not_done_is_not_told(w))
    }),
    ("the audit log is read by pages and filters", |w| {
        Box::pin(audit_log::it_is_read_by_pages_and_filters(w))
    }),
    ("an audit log of many pages is verified whole", |w| {
        Box::pin(audit_log::a_log_of_many_pages_is_verified_whole(w))
    }),
    ("many may write the audit log at once", |w| {
        Box::pin(audit_log::many_may_write_it_at_once_and_verify_it_meanwhile(w))
    }),
    ("writers in a crowd all succeed", |w| {
        Box::pin(writers_in_a_crowd_all_succeed(w))
    }),
    ("callers that vanish leave nothing half done", |w| {
        Box::pin(callers_that_vanish_leave_nothing_half_done(w))
    }),
    ("one of many redeems a refresh token", |w| {
        Box::pin(credentials::one_of_many_redeems(w))
    }),
    (
        "a late pair wins, unless the account has another credential",
        |w| Box::pin(credentials::a_late_pair_wins(w)),
    ),
    (
        "a refresh that nobody ends is taken over, and told to be in doubt",
        |w| Box::pin(credentials::a_refresh_that_nobody_ends_is_taken_over(w)),
    ),
    (
        "a refresh token is dead after two refusals, 90 seconds apart",
        |w| Box::pin(credentials::a_refresh_token_is_dead_after_two_refusals(w)),
    ),
    (
        "a refresh token is not dead while the doubted process runs",
        |w| Box::pin(credentials::a_refresh_token_is_not_dead_while_the_doubted_process_runs(w)),
    ),
    ("an export does not overtake a refresh", |w| {
        Box::pin(credentials::an_export_does_not_overtake_a_refresh(w))
    }),
    (
        "what was not sent, or refused for another reason, is due again",
        |w| Box::pin(credentials::what_says_nothing_of_the_token_is_due_again(w)),
    ),
    (
        "a doubt that nobody ends is given up, and does not begin again",
        |w| Box::pin(credentials::a_doubt_is_given_up_in_the_end(w)),
    ),
    ("what is in doubt is tried again soon", |w| {
        Box::pin(credentials::what_is_in_doubt_is_tried_again_soon(w))
    }),
    ("a long doubt ends with another sign", |w| {
        Box::pin(credentials::a_long_doubt_ends_with_another_sign(w))
    }),
    ("a pair without a refresh token is never redeemed", |w| {
        Box::pin(credentials::a_pair_without_a_refresh_token_is_never_redeemed(w))
    }),
    ("a disconnected account has nothing left to redeem", |w| {
        Box::pin(credentials::a_disconnected_account_has_nothing_left(w))
    }),
    (
        "a changed secret is used by accounts that are linked",
        |w| Box::pin(credentials::a_changed_secret_is_used(w)),
    ),
    ("an exported pair is nobody's to redeem here", |w| {
        Box::pin(credentials::an_exported_pair_is_nobody_s_to_redeem(w))
    }),
    ("an invitation makes one link", |w| {
        Box::pin(credentials::an_invitation_makes_one_link(w))
    }),
    ("a draft belongs to one browser", |w| {
        Box::pin(credentials::a_draft_belongs_to_one_browser(w))
    }),
    ("a sign-in comes back once, and to who set out", |w| {
        Box::pin(credentials::a_sign_in_comes_back_once(w))
    }),
];

async fn a_project_is_made_once(World { store, clock, .. }: World) {
    let (one, two) = (project("one"), project("two"));
    assert!(!store.project_exists(&one).await.unwrap());
    assert!(store.create_project(&two, clock.now()).await.unwrap());
    assert!(store.create_project(&one, clock.now()).await.unwrap());
    assert!(!store.create_project(&one, clock.now()).await.unwrap());
    assert!(store.project_exists(&one).await.unwrap());
    assert_eq!(store.projects().await.unwrap(), [one, two]);
}

async fn an_api_key_reads_back(world: World) {
    let World { store, clock, .. } = &world;
    let own = world.project("own").await;
    let (text, key) = world.new_key(&own);
    store.insert_key(&key, Actor::Operator).await.unwrap();
    assert_eq!(store.key(text.id()).await.unwrap(), Some(key.clone()));

    world.tick();
    let (_, later) = world.new_key(&own);
    store.insert_key(&later, Actor::Operator).await.unwrap();
    assert_eq!(
        store.keys(&own, None, 9).await.unwrap(),
        [later.clone(), key.clone()]
    );
    let newest = store.keys(&own, None, 1).await.unwrap();
    assert_eq!(newest.as_slice(), std::slice::from_ref(&later));
    let before = store.keys(&own, Some(later.id), 9).await.unwrap();
    assert_eq!(before.as_slice(), std::slice::from_ref(&key));
    assert!(store.keys(&own, Some(key.id), 9).await.unwrap().is_empty());

    let revoked_at = clock.now();
    let revoked = store
        .revoke_key(&own, key.id, revoked_at, Actor::Operator)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(revoked.revoked_at, Some(revoked_at));
    assert_eq!(revoked.status_at(revoked_at), KeyStatus::Revoked);
    world.tick();
    let again = store
        .revoke_key(&own, key.id, clock.now(), Actor::Operator)
        .await
        .unwrap();
    assert_eq!(again, Some(revoked.clone()));
    assert_eq!(store.key(key.id).await.unwrap(), Some(revoked));

    let (_, nobodys) = world.new_key(&project("nobody"));
    let error = store
        .insert_key(&nobodys, Actor::Operator)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
}

async fn a_key_s_end_is_only_brought_forward(world: World) {
    let World { store, clock, .. } = &world;
    let own = world.project("own").await;
    let now = clock.now();
    let ends_in = |seconds| Some(now + Duration::from_secs(seconds));
    let (_, mut key) = world.new_key(&own);
    key.expires_at = None;
    store.insert_key(&key, Actor::Operator).await.unwrap();

    let label: KeyLabel = "former feed".parse().unwrap();
    let change = |label: Option<Option<&KeyLabel>>, end| KeyChange {
        label: label.map(|label| label.cloned()),
        expires_at: end,
    };
    for (change, label, end) in [
        (change(None, ends_in(60)), "nightly export", ends_in(60)),
        (change(Some(Some(&label)), None), "former feed", ends_in(60)),
        (change(None, ends_in(60)), "former feed", ends_in(60)),
        (change(Some(None), ends_in(30)), "", ends_in(30)),
    ] {
        let updated = store
            .update_key(&own, key.id, &change, Actor::Operator)
            .await
            .unwrap();
        (key.label, key.expires_at) = (label.to_owned(), end);
        assert_eq!(updated.as_ref(), Some(&key));
        assert_eq!(store.key(key.id).await.unwrap(), updated);
    }

    let too_late = change(Some(Some(&label)), ends_in(31));
    let error = store
        .update_key(&own, key.id, &too_late, Actor::Operator)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::InvalidBody);
    assert_eq!(store.key(key.id).await.unwrap(), Some(key));
}

async fn an_account_reads_back_whole(world: World) {
    let store = &world.store;
    let own = world.project("own").await;
    let first = world.account(&own).await;
    let second = world.account(&own).await;
    world.tick();
    let third = world.account(&own).await;

    assert_eq!(
        store.account(&own, first.id).await.unwrap(),
        Some(first.clone())
    );
    assert_eq!(
        store.accounts(&own).await.unwrap(),
        [first.clone(), second.clone(), third.clone()]
    );
    let found = credential_of(store, &own, first.id).await;
    assert_eq!(found, (TOKEN.to_owned(), 1));

    let nobodys = world.new_account(&project("nobody"));
    let error = store
        .insert_account(
            &nobodys,
            &CredentialRecord::personal(&credential()),
            Actor::Operator,
        )
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
}

async fn an_accounts_state_can_be_noted(world: World) {
    let World { store, clock, .. } = &world;
    let own = world.project("own").await;
    let before = world.account(&own).await;
    world.tick();
    let reasons = [StatusReason {
        code: "reauth_required".into(),
        description: "the provider refused the token".into(),
        timestamp: clock.now(),
    }];
    let state = AccountState {
        status: AccountStatus::Error,
        reasons: &reasons,
        identity: None,
    };
    store
        .set_account_state(&own, before.id, state, clock.now())
        .await
        .unwrap();
    let after = store.account(&own, before.id).await.unwrap().unwrap();
    assert_eq!(after.status, AccountStatus::Error);
    assert_eq!(after.status_reasons, reasons);
    assert_eq!(after.identity, before.identity);
    assert_eq!(after.updated_at, clock.now());
    let credential = after.credential.unwrap();
    assert_eq!(credential.state, CredentialState::ReauthRequired);
    assert_eq!(credential.since, clock.now());
    let dead = CountedState::Of(CredentialState::ReauthRequired);
    assert_eq!(store.count_credentials().await.unwrap(), [(dead, 1)]);

    let renamed = identity("Canary Byron");
    let walk = world.new_walk(before.id, WalkState::Failed);
    let state = AccountState {
        status: AccountStatus::Active,
        reasons: &[],
        identity: Some(&renamed),
    };
    store
        .commit_walk(WalkCommit {
            account_state: Some(state),
            ..ends(&own, &walk)
        })
        .await
        .unwrap();
    let after = store.account(&own, before.id).await.unwrap().unwrap();
    assert_eq!(after.status, AccountStatus::Active);
    assert!(after.status_reasons.is_empty());
    let credential = after.credential.unwrap();
    assert_eq!(credential.state, CredentialState::Healthy);
    assert_eq!(credential.since, clock.now());
    assert_eq!(after.identity, renamed);
    assert_eq!(after.label.as_deref(), Some(NAME));
    assert_eq!(after.origin_username.as_deref(), Some(EMAIL));

    let nobody = world.new_account(&own).id;
    let error = store
        .set_account_state(&own, nobody, state, clock.now())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::AccountNotFound);
}

async fn accounts_are_counted_by_their_status(world: World) {
    let World { store, clock, .. } = &world;
    assert_eq!(store.count_accounts().await.unwrap(), []);
    let (own, other) = (world.project("own").await, world.project("other").await);
    let failed = world.account(&own).await;
    world.account(&own).await;
    world.account(&other).await;
    let active = (AccountStatus::Active, 3);
    assert_eq!(store.count_accounts().await.unwrap(), [active]);

    let state = AccountState {
        status: AccountStatus::Error,
        reasons: &[],
        identity: None,
    };
    store
        .set_account_state(&own, failed.id, state, clock.now())
        .await
        .unwrap();
    let mut counts = store.count_accounts().await.unwrap();
    counts.sort_by_key(|(_, count)| *count);
    let expected = [(AccountStatus::Error, 1), (AccountStatus::Active, 2)];
    assert_eq!(counts, expected);
}

fn relabelled() -> AccountChange {
    AccountChange {
        label: Some(Some("Canary Lovelace II".into())),
        ..AccountChange::default()
    }
}

const NEW_TOKEN: &str = "canary-token-2-9sXk";

fn new_credential() -> Credential {
    Credential::AccessToken(SecretString::from(NEW_TOKEN))
}

async fn an_accounts_description_can_be_changed(world: World) {
    let World { store, clock, .. } = &world;
    let own = world.project("own").await;
    let before = world.account(&own).await;
    let other = world.account(&own).await;
    world.tick();
    let change = AccountChange {
        origin_owner_id: Some("customer-2".into()),
        origin_owner_name: Some("Canary Lovelace II".into()),
        origin_username: Some(None),
        label: None,
    };
    let update = AccountUpdate {
        change: &change,
        by: Actor::Operator,
        credential: None,
    };
    let after = store
        .update_account(&own, before.id, update, clock.now())
        .await
        .unwrap()
        .unwrap();
    let mut expected = before.clone();
    change.apply(&mut expected);
    expected.updated_at = clock.now();
    assert_eq!(after, expected);
    assert_eq!(after.origin_username, None);
    assert_eq!(after.label, before.label);
    let stored = store.account(&own, before.id).await.unwrap();
    assert_eq!(stored, Some(after));
    let found = credential_of(store, &own, before.id).await;
    assert_eq!(found, (TOKEN.to_owned(), 1));
    let kept = store.account(&own, other.id).await.unwrap();
    assert_eq!(kept, Some(other));

    let nobody = world.new_account(&own).id;
    let update = store.update_account(&own, nobody, update, clock.now());
    assert_eq!(update.await.unwrap(), None);
}

async fn a_credential_is_replaced_by_its_next_generation(world: World) {
    let World { store, clock, .. } = &world;
    let own = world.project("own").await;
    let account = world.account(&own).await;
    let other = world.account(&own).await;
    let reasons = [StatusReason {
        code: "reauth_required".into(),
        description: "the provider refused the token".into(),
        timestamp: clock.now(),
    }];
    let state = AccountState {
        status: AccountStatus::Error,
        reasons: &reasons,
        identity: None,
    };
    store
        .set_account_state(&own, account.id, state, clock.now())
        .await
        .unwrap();
    let (credential, identity) = (new_credential(), identity("Canary Byron"));
    for generation in [2, 3] {
        world.tick();
        let update = AccountUpdate {
            change: &relabelled(),
            by: Actor::Operator,
            credential: Some(NewCredential {
                grant: CredentialRecord::personal(&credential),
                identity: &identity,
            }),
        };
        let after = store
            .update_account(&own, account.id, update, clock.now())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(after.status, AccountStatus::Active);
        assert!(after.status_reasons.is_empty());
        assert_eq!(after.identity, identity);
        assert_eq!(after.updated_at, clock.now());
        assert_eq!(after.label.as_deref(), Some("Canary Lovelace II"));
        let stored = store.account(&own, account.id).await.unwrap();
        assert_eq!(stored, Some(after));
        let found = credential_of(store, &own, account.id).await;
        assert_eq!(found, (NEW_TOKEN.to_owned(), generation));
    }
    let found = credential_of(store, &own, other.id).await;
    assert_eq!(found, (TOKEN.to_owned(), 1));
}

async fn a_walk_of_a_former_credential_writes_nothing(world: World) {
    let World { store, clock, .. } = &world;
    let own = world.project("own").await;
    let account = world.account(&own).await;
    world.seal(&account, 1, b"one").await;
    let credential = new_credential();
    let update = AccountUpdate {
        change: &AccountChange::default(),
        by: Actor::Operator,
        credential: Some(NewCredential {
            grant: CredentialRecord::personal(&credential),
            identity: &account.identity,
        }),
    };
    let replaced = store
        .update_account(&own, account.id, update, clock.now())
        .await
        .unwrap();
    let late = world.new_walk(account.id, WalkState::Sealed);
    let refused = AccountState {
        status: AccountStatus::Error,
        reasons: &[],
        identity: None,
    };
    let commit = |lineage| WalkCommit {
        lineage: Some(lineage),
        directory: Some(NewDirectory {
            version: 2,
            encoded: b"two",
            sealed_at: clock.now(),
        }),
        evidence: Some(b"evidence"),
        account_state: Some(refused),
        ..ends(&own, &late)
    };
    let committed = store.commit_walk(commit(1)).await.unwrap();
    assert_eq!(committed, CommitWalkResult::CredentialReplaced);
    let id = account.id;
    assert_eq!(store.walk(&own, id, late.id).await.unwrap(), None);
    assert_eq!(store.evidence(&own, id).await.unwrap(), None);
    assert_eq!(store.account(&own, id).await.unwrap(), replaced);
    let latest = store.latest_directory(&own, id).await.unwrap().unwrap();
    assert_eq!(latest.encoded, b"one");

    let committed = store.commit_walk(commit(2)).await.unwrap();
    assert_eq!(committed, CommitWalkResult::Whole);
    let latest = store.latest_directory(&own, id).await.unwrap().unwrap();
    assert_eq!(latest.encoded, b"two");
}

async fn a_deleted_account_leaves_nothing(world: World) {
    let World { store, clock, .. } = &world;
    let own = world.project("own").await;
    let account = world.account(&own).await;
    let other = world.account(&own).await;
    let sealed = world.seal(&account, 1, b"one").await;
    world.seal(&other, 1, b"other").await;
    let held = world.hold(&account, b"candidate").await;

    let deleted = store
        .delete_account(&own, account.id, Actor::Operator)
        .await
        .unwrap();
    let (deleted, ended) = deleted.unwrap();
    assert_eq!(deleted.held_walk.unwrap().id, held.id);
    let deleted = Account {
        held_walk: None,
        ..deleted
    };
    assert_eq!(deleted, account);
    assert!(ended.is_some(), "what is to be revoked is given");
    let id = account.id;
    let again = store.delete_account(&own, id, Actor::Operator).await;
    assert!(again.unwrap().is_none());
    assert_eq!(store.account(&own, id).await.unwrap(), None);
    assert!(store.credential(&own, id).await.unwrap().is_none());
    assert_eq!(store.latest_directory(&own, id).await.unwrap(), None);
    assert_eq!(store.directory(&own, id, 1).await.unwrap(), None);
    assert_eq!(store.latest(&own, id).await.unwrap(), None);
    assert_eq!(store.held(&own, id, held.id).await.unwrap(), None);
    assert_eq!(store.suspects(&own, id, held.id).await.unwrap(), None);
    assert_eq!(store.walk(&own, id, sealed.id).await.unwrap(), None);
    assert!(store.walks(&own, id, None, 10).await.unwrap().is_empty());

    // A walk that was under way comes too late.
    let late = world.new_walk(id, WalkState::Sealed);
    let directory = NewDirectory {
        version: 2,
        encoded: b"two",
        sealed_at: clock.now(),
    };
    let commit = WalkCommit {
        directory: Some(directory),
        evidence: Some(b"evidence"),
        ..ends(&own, &late)
    };
    let error = store.commit_walk(commit).await.unwrap_err();
    assert_eq!(error.kind(), Kind::AccountNotFound);
    let error = store
        .begin_walk(&own, &late, Actor::System)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::AccountNotFound);
    assert_eq!(store.directory(&own, id, 2).await.unwrap(), None);
    assert_eq!(store.evidence(&own, id).await.unwrap(), None);

    let kept = store.latest_directory(&own, other.id).await.unwrap();
    assert_eq!(kept.unwrap().encoded, b"other");
}

async fn walks_are_listed_newest_first(world: World) {
    let store = &world.store;
    let own = world.project("own").await;
    let account = world.account(&own).await;
    let mut expected = Vec::new();
    for _ in 0..5 {
        let walk = world.new_walk(account.id, WalkState::Failed);
        store.commit_walk(ends(&own, &walk)).await.unwrap();
        expected.insert(0, walk);
    }
    let list = |before, limit| store.walks(&own, account.id, before, limit);
    assert_eq!(list(None, 10).await.unwrap(), expected);
    assert_eq!(list(None, 2).await.unwrap(), expected[..2]);
    assert_eq!(list(Some(expected[1].id), 2).await.unwrap(), expected[2..4]);
    assert!(list(Some(expected[4].id), 2).await.unwrap().is_empty());

    let running = world.new_walk(account.id, WalkState::Running);
    let begun = store
        .begin_walk(&own, &running, Actor::System)
        .await
        .unwrap();
    let started_at = world.clock.now();
    assert_eq!(begun, BeginWalkResult::Here { started_at });
    assert_eq!(list(None, 1).await.unwrap(), slice::from_ref(&running));
    let mut ended = running;
    ended.state = WalkState::Failed;
    ended.reason = Some(WalkReason::TooManyInvalidRecords);
    ended.counts = None;
    ended.directory_version = Some("41".into());
    ended.ended_at = Some(world.clock.now());
    store.commit_walk(ends(&own, &ended)).await.unwrap();
    assert_eq!(
        store.walk(&own, account.id, ended.id).await.unwrap(),
        Some(ended)
    );
}

async fn one_walk_of_an_account_runs_at_a_time(world: World) {
    let own = world.project("own").await;
    let (account, other) = (world.account(&own).await, world.account(&own).await);
    let mut racers = Vec::new();
    for _ in 0..8 {
        let walk = world.new_walk(account.id, WalkState::Running);
        let (replica, own) = (world.another().await, own.clone());
        racers.push(tokio::spawn(async move {
            let begun = replica
                .store
                .begin_walk(&own, &walk, Actor::System)
                .await
                .unwrap();
            (walk, begun)
        }));
    }
    let mut begun = Vec::new();
    for racer in racers {
        begun.push(racer.await.unwrap());
    }
    let is_here = |begun: &BeginWalkResult| matches!(begun, BeginWalkResult::Here { .. });
    let here: Vec<_> = begun.iter().filter(|(_, is)| is_here(is)).collect();
    let [(running, _)] = here[..] else {
        panic!("{begun:?}");
    };
    let elsewhere = BeginWalkResult::Elsewhere(running.id);
    assert_eq!(begun.iter().filter(|(_, is)| *is == elsewhere).count(), 7);
    let walks = world.store.walks(&own, account.id, None, 9).await.unwrap();
    assert_eq!((walks.len(), walks[0].id), (1, running.id));

    // Another account's is another matter.
    let walk = world.new_walk(other.id, WalkState::Running);
    let begun = world
        .store
        .begin_walk(&own, &walk, Actor::System)
        .await
        .unwrap();
    assert!(matches!(begun, BeginWalkResult::Here { .. }));
}

async fn a_walk_is_ended_by_whoever_began_it(world: World) {
    let store = &world.store;
    let own = world.project("own").await;
    let account = world.account(&own).await;
    let running = world.new_walk(account.id, WalkState::Running);
    store
        .begin_walk(&own, &running, Actor::System)
        .await
        .unwrap();

    let ended = Walk {
        state: WalkState::Sealed,
        ..running.clone()
    };
    let directory = NewDirectory {
        version: 1,
        encoded: b"one",
        sealed_at: world.clock.now(),
    };
    let commit = WalkCommit {
        directory: Some(directory),
        ..ends(&own, &ended)
    };
    let another = world.another().await;
    assert_eq!(
        another.store.commit_walk(commit).await.unwrap(),
        CommitWalkResult::Overtaken
    );
    let walk = store.walk(&own, account.id, running.id).await.unwrap();
    assert_eq!(walk, Some(running));
    assert_eq!(
        store.commit_walk(commit).await.unwrap(),
        CommitWalkResult::Whole
    );
    // And once.
    assert_eq!(
        store.commit_walk(commit).await.unwrap(),
        CommitWalkResult::Overtaken
    );
}

async fn walks_end_with_the_replica_that_runs_them(world: World) {
    let World { store, clock, .. } = &world;
    store.join().await.unwrap();
    let own = world.project("own").await;
    let account = world.account(&own).await;
    let sealed = world.seal(&account, 1, b"one").await;
    let running = world.new_walk(account.id, WalkState::Running);
    store
        .begin_walk(&own, &running, Actor::System)
        .await
        .unwrap();
    assert_eq!(store.write_heartbeat().await.unwrap(), [running.id]);

    world.tick();
    store.leave().await.unwrap();
    let walk = store.walk(&own, account.id, running.id).await.unwrap();
    let walk = walk.unwrap();
    assert_eq!(walk.state, WalkState::Failed);
    assert_eq!(walk.reason, Some(WalkReason::Interrupted));
    assert_eq!(walk.ended_at, Some(clock.now()));
    let untouched = store.walk(&own, account.id, sealed.id).await.unwrap();
    assert_eq!(untouched, Some(sealed));

    // What it would have sealed comes too late, and the next may begin elsewhere.
    let late = Walk {
        state: WalkState::Sealed,
        ..running
    };
    assert_eq!(
        store.commit_walk(ends(&own, &late)).await.unwrap(),
        CommitWalkResult::Overtaken
    );
    let another = world.another().await;
    assert_eq!(another.store.join().await.unwrap(), 0);
    let next = world.new_walk(account.id, WalkState::Running);
    let begun = another
        .store
        .begin_walk(&own, &next, Actor::System)
        .await
        .unwrap();
    assert!(matches!(begun, BeginWalkResult::Here { .. }));
}

async fn a_walk_whose_end_could_not_be_stored_is_in_nobodys_way(world: World) {
    let store = &world.store;
    store.join().await.unwrap();
    let own = world.project("own").await;
    let account = world.account(&own).await;
    let lost = world.new_walk(account.id, WalkState::Running);
    store.begin_walk(&own, &lost, Actor::System).await.unwrap();
    // The process that ran it begins the next one, and so runs that one no more.
    let next = world.new_walk(account.id, WalkState::Running);
    let begun = store.begin_walk(&own, &next, Actor::System).await.unwrap();
    assert!(matches!(begun, BeginWalkResult::Here { .. }), "{begun:?}");
    let walk = store.walk(&own, account.id, lost.id).await.unwrap();
    assert_eq!(walk.unwrap().reason, Some(WalkReason::Interrupted));

    // Or it finds that nobody in it runs it.
    assert_eq!(store.write_heartbeat().await.unwrap(), [next.id]);
    store.end_orphans(&[next.id, lost.id]).await.unwrap();
    assert_eq!(store.write_heartbeat().await.unwrap(), []);
    let walk = store.walk(&own, account.id, next.id).await.unwrap();
    assert_eq!(walk.unwrap().reason, Some(WalkReason::Interrupted));
}

async fn what_was_held_is_decided_only_until_a_later_walk_has_sealed(world: World) {
    let store = &world.store;
    let own = world.project("own").await;
    let account = world.account(&own).await;
    world.seal(&account, 1, b"one").await;
    // Asked for first, and run last: the order of ids is that of the questions.
    let later = world.new_walk(account.id, WalkState::Sealed);
    let held = world.hold(&account, b"candidate").await;
    let unchanged = WalkCommit {
        judged_against: Some(1),
        verified_at: Some(world.clock.now()),
        supersedes_held: true,
        ..ends(&own, &later)
    };
    assert_eq!(
        store.commit_walk(unchanged).await.unwrap(),
        CommitWalkResult::Whole
    );
    assert_eq!(store.held(&own, account.id, held.id).await.unwrap(), None);
    let released = Walk {
        state: WalkState::Sealed,
        ..held
    };
    let release = WalkCommit {
        judged_against: Some(1),
        directory: Some(NewDirectory {
            version: 2,
            encoded: b"candidate",
            sealed_at: world.clock.now(),
        }),
        ..ends(&own, &released)
    };
    assert_eq!(
        store.commit_walk(release).await.unwrap(),
        CommitWalkResult::Overtaken
    );
}

async fn what_was_judged_against_another_version_is_not_stored(world: World) {
    let store = &world.store;
    let own = world.project("own").await;
    let account = world.account(&own).await;
    for (judged_against, committed) in [
        (Some(1), CommitWalkResult::Overtaken),
        (Some(0), CommitWalkResult::Whole),
        (Some(0), CommitWalkResult::Overtaken),
        (Some(1), CommitWalkResult::Whole),
    ] {
        let latest = store.latest(&own, account.id).await.unwrap().unwrap();
        let version = latest.directory.map_or(0, |head| head.version) + 1;
        let walk = world.new_walk(account.id, WalkState::Sealed);
        let commit = WalkCommit {
            judged_against,
            directory: Some(NewDirectory {
                version,
                encoded: b"next",
                sealed_at: world.clock.now(),
            }),
            ..ends(&own, &walk)
        };
        assert_eq!(store.commit_walk(commit).await.unwrap(), committed);
        let stored = store.walk(&own, account.id, walk.id).await.unwrap();
        assert_eq!(stored.is_some(), committed == CommitWalkResult::Whole);
    }
}

async fn who_is_due_is_claimed_once(world: World) {
    let replicas = [world.clone(), world.another().await];
    let own = world.project("own").await;
    let mut all = HashSet::new();
    for _ in 0..12 {
        world.tick();
        all.insert(world.account(&own).await.id);
    }
    let (now, claim) = (world.clock.now(), Duration::from_secs(30));
    let racers: Vec<_> = (0..6)
        .map(|n| {
            let store = replicas[n % 2].store.clone();
            tokio::spawn(async move { store.claim_due(now, claim, 3).await.unwrap() })
        })
        .collect();
    let mut claimed = Vec::new();
    for racer in racers {
        claimed.extend(racer.await.unwrap().into_iter().map(|(_, id)| id));
    }
    // Who raced for the same rows may have gone without; nobody is claimed twice.
    claimed.extend(
        world
            .store
            .claim_due(now, claim, 100)
            .await
            .unwrap()
            .into_iter()
            .map(|(_, id)| id),
    );
    assert_eq!(claimed.len(), 12);
    assert_eq!(HashSet::from_iter(claimed), all);

    // A claim that no walk came of is over in time; a walk counts from when it began.
    world.clock.advance(2 * claim);
    let walked = *all.iter().next().unwrap();
    let walk = Walk {
        started_at: now + 2 * claim,
        ..world.new_walk(walked, WalkState::Failed)
    };
    world.store.commit_walk(ends(&own, &walk)).await.unwrap();
    let before = now + claim + Duration::from_millis(1);
    let due = world.store.claim_due(before, claim, 100).await.unwrap();
    let due: HashSet<_> = due.into_iter().map(|(_, id)| id).collect();
    all.remove(&walked);
    assert_eq!(due, all);
}

/// What was walked in the future was walked before the date was set back.
async fn a_walk_before_the_date_was_set_back_does_not_put_off_the_next(world: World) {
    let own = world.project("own").await;
    let account = world.account(&own).await;
    let claim = Duration::from_secs(30);
    let due = async |world: &World| {
        let before = world.clock.now() - Duration::from_secs(900);
        world
            .store
            .claim_due(before, claim, 10)
            .await
            .unwrap()
            .len()
    };
    let walked = async |started_at| {
        let walk = Walk {
            started_at,
            ..world.new_walk(account.id, WalkState::Failed)
        };
        world.store.commit_walk(ends(&own, &walk)).await.unwrap();
    };
    walked(world.clock.now() + Duration::from_secs(86_400)).await;
    assert_eq!(due(&world).await, 1);
    // Once it was walked by the date as it is now, it is due when that walk is old.
    walked(world.clock.now()).await;
    assert_eq!(due(&world).await, 0);
    world.clock.advance(Duration::from_secs(901));
    assert_eq!(due(&world).await, 1);
}

async fn a_sealed_walk_puts_its_directory_in_force(world: World) {
    let World { store, clock, .. } = &world;
    let own = world.project("own").await;
    let account = world.account(&own).await;
    let latest = || store.latest_directory(&own, account.id);
    assert_eq!(latest().await.unwrap(), None);
    let nothing = Latest {
        directory: None,
        walk: None,
    };
    assert_eq!(store.latest(&own, account.id).await.unwrap(), Some(nothing));

    let mut large = vec![0; 300_000];
    world.rng.fill(&mut large);
    world.seal(&account, 1, &large).await;
    let one = latest().await.unwrap().unwrap();
    assert_eq!((one.version, &one.encoded), (1, &large));
    world.seal(&account, 2, b"two").await;
    let two = latest().await.unwrap().unwrap();
    assert_eq!((two.version, two.encoded.as_slice()), (2, &b"two"[..]));

    // The one before stays for those who are still reading it.
    let before = store.directory(&own, account.id, 1).await.unwrap();
    assert_eq!(before, Some(one));
    assert_eq!(store.directory(&own, account.id, 3).await.unwrap(), None);

    // Nothing changed: only how old it is does.
    let walk = world.new_walk(account.id, WalkState::Sealed);
    store
        .commit_walk(WalkCommit {
            verified_at: Some(clock.now()),
            evidence: Some(b"evidence"),
            ..ends(&own, &walk)
        })
        .await
        .unwrap();
    let verified = latest().await.unwrap().unwrap();
    assert_eq!(verified.version, 2);
    assert_eq!(verified.sealed_at, two.sealed_at);
    assert_eq!(verified.verified_at, clock.now());
    let found = store.latest(&own, account.id).await.unwrap().unwrap();
    let head = found.directory.unwrap();
    assert_eq!(
        (head.version, head.sealed_at, head.verified_at),
        (2, two.sealed_at, clock.now())
    );
    assert_eq!(found.walk, Some((walk.id, WalkState::Sealed, None)));
    let evidence = store.evidence(&own, account.id).await.unwrap();
    assert_eq!(evidence.unwrap(), b"evidence");

    // A walk that says nothing of evidence leaves it; one that does replaces it.
    world.seal(&account, 3, b"three").await;
    let evidence = store.evidence(&own, account.id).await.unwrap();
    assert_eq!(evidence.unwrap(), b"evidence");
    let walk = world.new_walk(account.id, WalkState::Failed);
    store
        .commit_walk(WalkCommit {
            evidence: Some(b"newer"),
            ..ends(&own, &walk)
        })
        .await
        .unwrap();
    let evidence = store.evidence(&own, account.id).await.unwrap();
    assert_eq!(evidence.unwrap(), b"newer");
}

async fn versions_are_neither_skipped_nor_taken_twice(world: World) {
    let World { store, clock, .. } = &world;
    let own = world.project("own").await;
    let account = world.account(&own).await;
    for (version, expected) in [
        (0, None),
        (2, None),
        (1, Some(1)),
        (1, Some(1)),
        (3, Some(1)),
    ] {
        let walk = world.new_walk(account.id, WalkState::Sealed);
        let encoded = format!("by {}", walk.id);
        let directory = NewDirectory {
            version,
            encoded: encoded.as_bytes(),
            sealed_at: clock.now(),
        };
        let before = store.latest_directory(&own, account.id).await.unwrap();
        let outcome = store
            .commit_walk(WalkCommit {
                directory: Some(directory),
                ..ends(&own, &walk)
            })
            .await;
        let after = store.latest_directory(&own, account.id).await.unwrap();
        assert_eq!(after.as_ref().map(|latest| latest.version), expected);
        if before.is_none() && expected.is_some() {
            outcome.unwrap();
        } else {
            assert_eq!(outcome.unwrap_err().kind(), Kind::Internal);
            assert_eq!(after, before);
        }
    }

    // Of many that grew out of the same version, one is taken.
    let racers: Vec<_> = (0..8)
        .map(|_| {
            let world = world.clone();
            let account = account.clone();
            tokio::spawn(async move {
                let walk = world.new_walk(account.id, WalkState::Sealed);
                let directory = NewDirectory {
                    version: 2,
                    encoded: b"raced",
                    sealed_at: world.clock.now(),
                };
                let commit = WalkCommit {
                    directory: Some(directory),
                    ..ends(&account.project, &walk)
                };
                world.store.commit_walk(commit).await.is_ok()
            })
        })
        .collect();
    let mut taken = 0;
    for racer in racers {
        taken += u32::from(racer.await.unwrap());
    }
    assert_eq!(taken, 1);
}

async fn a_refused_commit_writes_nothing(world: World) {
    let World { store, clock, .. } = &world;
    let own = world.project("own").await;
    let account = world.account(&own).await;
    let running = world.new_walk(account.id, WalkState::Running);
    store
        .begin_walk(&own, &running, Actor::System)
        .await
        .unwrap();
    let held = world.hold(&account, b"candidate").await;
    let before = store.account(&own, account.id).await.unwrap();

    let mut ended = running.clone();
    ended.state = WalkState::Sealed;
    let reasons = [];
    let renamed = identity("Somebody Else");
    let directory = NewDirectory {
        version: 5,
        encoded: b"five",
        sealed_at: clock.now(),
    };
    let commit = WalkCommit {
        directory: Some(directory),
        evidence: Some(b"evidence"),
        supersedes_held: true,
        account_state: Some(AccountState {
            status: AccountStatus::Error,
            reasons: &reasons,
            identity: Some(&renamed),
        }),
        ..ends(&own, &ended)
    };
    let error = store.commit_walk(commit).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Internal);

    let walk = store.walk(&own, account.id, running.id).await.unwrap();
    assert_eq!(walk, Some(running));
    let now = store.account(&own, account.id).await.unwrap();
    assert_eq!(now, before);
    assert_eq!(store.evidence(&own, account.id).await.unwrap(), None);
    assert!(
        store
            .held(&own, account.id, held.id)
            .await
            .unwrap()
            .is_some()
    );

    // To verify what is not there is no less of a fault.
    let commit = WalkCommit {
        verified_at: Some(clock.now()),
        ..ends(&own, &ended)
    };
    let error = store.commit_walk(commit).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Internal);
}

async fn a_held_walk_can_be_released(world: World) {
    let World { store, clock, .. } = &world;
    let own = world.project("own").await;
    let account = world.account(&own).await;
    world.seal(&account, 1, b"one").await;
    let first = world.hold(&account, b"first").await;
    let second = world.hold(&account, b"second").await;
    let held = |walk| store.held(&own, account.id, walk);
    let suspects = b"suspects".to_vec();
    for (walk, candidate) in [(&first, &b"first"[..]), (&second, b"second")] {
        let expected = ReleasableWalk {
            candidate: candidate.to_vec(),
            suspects: suspects.clone(),
        };
        assert_eq!(held(walk.id).await.unwrap(), Some(expected));
    }

    let mut released = first.clone();
    released.state = WalkState::Sealed;
    let directory = NewDirectory {
        version: 2,
        encoded: b"first",
        sealed_at: clock.now(),
    };
    store
        .commit_walk(WalkCommit {
            directory: Some(directory),
            supersedes_held: true,
            ..ends(&own, &released)
        })
        .await
        .unwrap();
    // What the other was held against is in force no more.
    for walk in [&first, &second] {
        assert_eq!(held(walk.id).await.unwrap(), None);
    }
    // Who it was about can still be read.
    let about = store.suspects(&own, account.id, second.id).await.unwrap();
    assert_eq!(about, Some(suspects));

    let named = async || {
        let account = store.account(&own, account.id).await.unwrap();
        account.unwrap().held_walk.map(|held| (held.id, held.since))
    };
    assert_eq!(named().await, None);
    let third = world.hold(&account, b"third").await;
    let since = third.ended_at.unwrap();
    assert_eq!(named().await, Some((third.id, since)));
    // It goes on for the same reason with some of the same, and begins anew otherwise.
    for (reason, is_repeated, goes_on) in [
        (None, true, true),
        (Some(WalkReason::Degraded), true, false),
        (Some(WalkReason::Degraded), false, false),
    ] {
        let next = Walk {
            reason,
            ..world.new_walk(account.id, WalkState::Held)
        };
        let hold = Some(Hold {
            suspects: 2,
            is_repeated,
        });
        let commit = WalkCommit {
            candidate: Some(b"next"),
            hold,
            ..ends(&own, &next)
        };
        store.commit_walk(commit).await.unwrap();
        let since = if goes_on {
            since
        } else {
            next.ended_at.unwrap()
        };
        assert_eq!(named().await, Some((next.id, since)));
        let failed = world.new_walk(account.id, WalkState::Failed);
        store.commit_walk(ends(&own, &failed)).await.unwrap();
        assert_eq!(named().await, Some((next.id, since)));
    }
    let mut discarded = third.clone();
    discarded.state = WalkState::Failed;
    discarded.reason = Some(WalkReason::Discarded);
    store.commit_walk(ends(&own, &discarded)).await.unwrap();
    assert_eq!(held(third.id).await.unwrap(), None);
}

async fn what_is_past_is_forgotten(mut world: World) {
    world.store = world.store.with_retention(Retention {
        superseded_directories: Duration::from_secs(60),
        walks: 4,
        candidates: 2,
    });
    let World { store, clock, .. } = &world;
    let own = world.project("own").await;
    let account = world.account(&own).await;
    let other = world.account(&own).await;
    let others_walk = world.seal(&other, 1, b"other").await;
    let others_held = world.hold(&other, b"other").await;

    world.seal(&account, 1, b"one").await;
    let version_is_kept = async |version| {
        let found = store.directory(&own, account.id, version).await.unwrap();
        found.is_some()
    };
    // It counts from when it was superseded, not from when it was sealed.
    clock.advance(Duration::from_secs(600));
    world.seal(&account, 2, b"two").await;
    clock.advance(Duration::from_secs(59));
    world.seal(&account, 3, b"three").await;
    assert!(version_is_kept(1).await);
    clock.advance(Duration::from_secs(2));
    world.seal(&account, 4, b"four").await;
    assert!(!version_is_kept(1).await);
    assert!(version_is_kept(2).await);
    // The latest stays however old it is.
    clock.advance(Duration::from_secs(86_400));
    let walk = world.new_walk(account.id, WalkState::Failed);
    store.commit_walk(ends(&own, &walk)).await.unwrap();
    for (version, is_kept) in [(2, false), (3, false), (4, true)] {
        assert_eq!(version_is_kept(version).await, is_kept, "{version}");
    }
    let latest = store.latest_directory(&own, account.id).await.unwrap();
    assert_eq!(latest.unwrap().encoded, b"four");

    let mut held = Vec::new();
    for n in 0..6 {
        held.push(world.hold(&account, &[n]).await);
    }
    let kept = store.walks(&own, account.id, None, 100).await.unwrap();
    assert!(kept.iter().rev().eq(&held[2..]));
    for (n, walk) in held.iter().enumerate() {
        let found = store.held(&own, account.id, walk.id).await.unwrap();
        assert_eq!(found.is_some(), n >= 4, "{n}");
        let suspects = store.suspects(&own, account.id, walk.id).await.unwrap();
        assert_eq!(suspects.is_some(), n >= 2, "{n}");
    }

    // All of that was this account's.
    let untouched = store.walk(&own, other.id, others_walk.id).await.unwrap();
    assert_eq!(untouched, Some(others_walk));
    assert!(
        store
            .held(&own, other.id, others_held.id)
            .await
            .unwrap()
            .is_some()
    );
}

async fn no_project_sees_anothers_rows(world: World) {
    let World { store, clock, .. } = &world;
    let (own, foreign) = (world.project("own").await, world.project("foreign").await);
    let absent = project("absent");
    let (_, key) = world.new_key(&own);
    store.insert_key(&key, Actor::Operator).await.unwrap();
    let account = world.account(&own).await;
    let sealed = world.seal(&account, 1, b"one").await;
    let held = world.hold(&account, b"candidate").await;
    let evident = world.new_walk(account.id, WalkState::Failed);
    store
        .commit_walk(WalkCommit {
            evidence: Some(b"evidence"),
            ..ends(&own, &evident)
        })
        .await
        .unwrap();
    let id = account.id;
    let now = clock.now();
    let state = AccountState {
        status: AccountStatus::Inactive,
        reasons: &[],
        identity: None,
    };
    let (change, theirs, identity) = (relabelled(), new_credential(), identity("Foreigner"));
    let stolen_away = || AccountUpdate {
        change: &change,
        by: Actor::Operator,
        credential: Some(NewCredential {
            grant: CredentialRecord::personal(&theirs),
            identity: &identity,
        }),
    };

    for project in [&foreign, &absent] {
        assert!(store.keys(project, None, 9).await.unwrap().is_empty());
        let forward = KeyChange {
            expires_at: Some(now),
            ..KeyChange::default()
        };
        let updated = store
            .update_key(project, key.id, &forward, Actor::Operator)
            .await;
        assert_eq!(updated.unwrap(), None);
        assert_eq!(
            store
                .revoke_key(project, key.id, now, Actor::Operator)
                .await
                .unwrap(),
            None
        );
        assert!(store.accounts(project).await.unwrap().is_empty());
        assert_eq!(store.account(project, id).await.unwrap(), None);
        assert!(store.credential(project, id).await.unwrap().is_none());
        let deleted = store.delete_account(project, id, Actor::Operator).await;
        assert!(deleted.unwrap().is_none());
        let update = store.update_account(project, id, stolen_away(), now).await;
        assert_eq!(update.unwrap(), None);
        let refused = [
            store.set_account_state(project, id, state, now).await,
            store
                .begin_walk(project, &sealed, Actor::System)
                .await
                .map(drop),
            store.commit_walk(ends(project, &sealed)).await.map(drop),
            store
                .commit_walk(WalkCommit {
                    directory: Some(NewDirectory {
                        version: 2,
                        encoded: b"foreign",
                        sealed_at: now,
                    }),
                    evidence: Some(b"foreign"),
                    supersedes_held: true,
                    account_state: Some(state),
                    ..ends(project, &sealed)
                })
                .await
                .map(drop),
        ];
        for outcome in refused {
            assert_eq!(outcome.unwrap_err().kind(), Kind::AccountNotFound);
        }
        assert_eq!(store.walk(project, id, sealed.id).await.unwrap(), None);
        assert!(store.walks(project, id, None, 9).await.unwrap().is_empty());
        assert_eq!(store.held(project, id, held.id).await.unwrap(), None);
        assert_eq!(store.suspects(project, id, held.id).await.unwrap(), None);
        assert_eq!(store.latest_directory(project, id).await.unwrap(), None);
        assert_eq!(store.directory(project, id, 1).await.unwrap(), None);
        assert_eq!(store.latest(project, id).await.unwrap(), None);
        assert_eq!(store.evidence(project, id).await.unwrap(), None);
    }

    // A walk of one's own account cannot take the place of another's.
    let foreigner = world.account(&foreign).await;
    let mut stolen = sealed.clone();
    stolen.account = foreigner.id;
    let error = store
        .begin_walk(&foreign, &stolen, Actor::System)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Internal);

    // And the same within a project: a walk's id under another account finds nothing.
    let sibling = world.account(&own).await.id;
    assert_eq!(store.walk(&own, sibling, sealed.id).await.unwrap(), None);
    assert_eq!(store.held(&own, sibling, held.id).await.unwrap(), None);

    // Nothing of it has changed.
    let found = credential_of(store, &own, id).await;
    assert_eq!(found, (TOKEN.to_owned(), 1));
    assert_eq!(store.key(key.id).await.unwrap(), Some(key));
    let now = store.account(&own, id).await.unwrap().unwrap();
    assert_eq!(now.held_walk.map(|walk| walk.id), Some(held.id));
    let now = Account {
        held_walk: None,
        ..now
    };
    assert_eq!(now, account);
    let walk = store.walk(&own, id, sealed.id).await.unwrap();
    assert_eq!(walk, Some(sealed));
    assert!(store.held(&own, id, held.id).await.unwrap().is_some());
    let evidence = store.evidence(&own, id).await.unwrap();
    assert_eq!(evidence.unwrap(), b"evidence");
    let latest = store.latest_directory(&own, id).await.unwrap().unwrap();
    assert_eq!(latest.encoded, b"one");
}

async fn writers_in_a_crowd_all_succeed(world: World) {
    let own = world.project("own").await;
    let account = world.account(&own).await;
    let writers: Vec<_> = (0..32)
        .map(|_| {
            let (world, own, account) = (world.clone(), own.clone(), account.clone());
            tokio::spawn(async move {
                for _ in 0..5 {
                    let (_, key) = world.new_key(&own);
                    world.store.insert_key(&key, Actor::Operator).await.unwrap();
                    let walk = world.new_walk(account.id, WalkState::Failed);
                    world.store.commit_walk(ends(&own, &walk)).await.unwrap();
                    let new = world.account(&own).await;
                    let read = world.store.account(&own, new.id).await.unwrap();
                    assert_eq!(read, Some(new));
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(world.store.keys(&own, None, 1000).await.unwrap().len(), 160);
    assert_eq!(world.store.accounts(&own).await.unwrap().len(), 161);
    let walks = world
        .store
        .walks(&own, account.id, None, 1000)
        .await
        .unwrap();
    let ids: HashSet<_> = walks.iter().map(|walk| walk.id).collect();
    assert_eq!(ids.len(), 160);
    let entries = 1 + 161 + 160;
    let verified = world.store.verify_audit(&own, None).await.unwrap().verified;
    assert_eq!(verified, Verified::Whole { entries });
}

async fn callers_that_vanish_leave_nothing_half_done(world: World) {
    let own = world.project("own").await;
    for n in 0..200 {
        let mut account = world.new_account(&own);
        account.origin_owner_id = format!("customer-{n}");
        let attempt = {
            let (store, account) = (world.store.clone(), account.clone());
            tokio::spawn(async move {
                store
                    .insert_account(
                        &account,
                        &CredentialRecord::personal(&credential()),
                        Actor::Operator,
                    )
                    .await
            })
        };
        for _ in 0..n % 20 {
            tokio::task::yield_now().await;
        }
        attempt.abort();
        let _ = attempt.await;
        // Whatever became of it, it has ended once another writer has had a turn, and is whole.
        world.project("own").await;
        let found = world.store.account(&own, account.id).await.unwrap();
        let credential = world.store.credential(&own, account.id).await.unwrap();
        assert_eq!(found.is_some(), credential.is_some(), "{n}");
        let told = AuditFilter {
            subject_id: Some(account.id.to_string()),
            ..AuditFilter::default()
        };
        let told = world.store.audit_log(&own, &told, None, 9).await.unwrap();
        assert_eq!(told.len(), usize::from(found.is_some()), "{n}");
    }
    let verified = world.store.verify_audit(&own, None).await.unwrap().verified;
    assert!(matches!(verified, Verified::Whole { .. }), "{verified:?}");
    // And the connections still serve.
    world.account(&own).await;
}

/// Of the database at `url`, which is new.
pub async fn many_may_open_it_at_once(url: &str) {
    let ring = ring("a");
    let openers: Vec<_> = (0..8)
        .map(|_| {
            let (url, ring) = (url.to_owned(), ring.clone());
            tokio::spawn(async move { World::open(&url, &ring).await.map(drop) })
        })
        .collect();
    for opener in openers {
        opener.await.unwrap().unwrap();
    }
}

/// Of the database at `url`, which is new.
pub async fn two_stores_write_to_it(url: &str) {
    let ring = ring("a");
    let open = async || World::open(url, &ring).await.unwrap();
    let (one, two) = (open().await, open().await);
    let project = one.project("shared").await;
    let writers: Vec<_> = (0..32)
        .map(|n| {
            let world = if n % 2 == 0 { one.clone() } else { two.clone() };
            let project = project.clone();
            tokio::spawn(async move {
                for _ in 0..5 {
                    let account = world.account(&project).await;
                    world.seal(&account, 1, &[7; 50_000]).await;
                    let read = world.store.latest_directory(&project, account.id).await;
                    assert_eq!(read.unwrap().unwrap().version, 1);
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(two.store.accounts(&project).await.unwrap().len(), 160);
}
