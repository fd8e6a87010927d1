//! Credentials that are refreshed, apps, invitations and sign-ins: part of the contract.

use std::{collections::HashSet, time::Duration};

use jiff::Timestamp;
use rolecall::{
    error::Kind,
    model::{
        accounts::{
            Account, AccountChange, AccountKind, Credential, CredentialState, Endpoint, Region,
            TokenPair,
        },
        audit_log::Actor,
        connect_sessions::{ConnectDetails, ConnectSession},
        connector_profiles::{ActionSet, ClientProof, ConnectorProfile, OAuthApp, ProfileChange},
        id::ProjectId,
    },
    store::{
        AccountUpdate, BeginRefreshResult, CommitPairResult, CredentialRecord, IssuedTo,
        MAX_UNCERTAIN, NewAuthorization, NewCredential, REFRESH_LEASE_TIMEOUT, RefreshFailure,
        RefreshLease, SECOND_REFUSAL_AFTER, StateError, StateOwner, Store, StoredDraft, Trigger,
    },
};
use secrecy::{ExposeSecret, SecretString};

use crate::world::{World, ring};

const NOW: Trigger = Trigger::Now { generation: None };
const AGAIN: Duration = Duration::from_secs(7);

/// Later than any clock of a test or of a database.
pub fn some_day() -> Timestamp {
    "2100-01-01T00:00:00Z".parse().unwrap()
}

pub fn pair(number: u32, world: &World) -> TokenPair {
    let now = world.clock.now();
    TokenPair {
        access_token: format!("canary-access-{number}").into(),
        refresh_token: Some(format!("canary-refresh-{number}").into()),
        issued_at: now,
        expires_at: now + Duration::from_secs(604_799),
    }
}

pub fn app() -> OAuthApp {
    OAuthApp {
        client_id: "the-app".to_owned(),
        client_secret: "canary-app-secret".into(),
        proof: ClientProof::Hash,
        redirect_url: "https://example.org/callback".to_owned(),
    }
}

/// An account with a pair of tokens that were issued to the customer's own app.
async fn linked(world: &World, project: &ProjectId) -> Account {
    let account = world.new_account(project);
    let credential = Credential::OAuth(pair(1, world));
    let app = app();
    let grant = CredentialRecord {
        credential: &credential,
        issued_to: IssuedTo::OwnApp(&app),
        refresh_at: Some(some_day()),
        draft: None,
    };
    let store = &world.store;
    store
        .insert_account(&account, &grant, Actor::Operator)
        .await
        .unwrap();
    store.account(project, account.id).await.unwrap().unwrap()
}

async fn begin(store: &Store, account: &Account, wanted: Trigger) -> Box<RefreshLease> {
    match store
        .begin_refresh(&account.project, account.id, wanted)
        .await
        .unwrap()
    {
        BeginRefreshResult::Here(intent) => intent,
        other => panic!("{other:?}"),
    }
}

async fn state(world: &World, account: &Account) -> CredentialState {
    let stored = world.store.account(&account.project, account.id).await;
    stored.unwrap().unwrap().credential.unwrap().state
}

async fn access_token(world: &World, account: &Account) -> String {
    let stored = world.store.credential(&account.project, account.id).await;
    let credential = stored.unwrap().unwrap().credential;
    credential.access_token().expose_secret().to_owned()
}

/// Brings a new pair about.
async fn renew(world: &World, intent: &RefreshLease, number: u32) -> CommitPairResult {
    let new = pair(number, world);
    let pending = intent.seal(&world.store, &new, some_day());
    world.store.commit_pair(&pending).await.unwrap()
}

pub async fn one_of_many_redeems(world: World) {
    let own = world.project("own").await;
    let account = linked(&world, &own).await;
    assert!(
        matches!(
            world
                .store
                .begin_refresh(&own, account.id, Trigger::WhenDue)
                .await
                .unwrap(),
            BeginRefreshResult::NotNow
        ),
        "it is not due"
    );
    let tries: Vec<_> = (0..16)
        .map(|_| {
            let (store, project, id) = (world.store.clone(), own.clone(), account.id);
            tokio::spawn(async move { store.begin_refresh(&project, id, NOW).await.unwrap() })
        })
        .collect();
    let mut here = Vec::new();
    for attempt in tries {
        match attempt.await.unwrap() {
            BeginRefreshResult::Here(intent) => here.push(intent),
            BeginRefreshResult::Elsewhere => {}
            other => panic!("{other:?}"),
        }
    }
    let [intent] = here.as_slice() else {
        panic!("{} redeem one token", here.len());
    };
    assert_eq!(intent.generation, 1);
    assert_eq!(intent.refresh_token.expose_secret(), "canary-refresh-1");
    assert_eq!(
        intent.app.client_secret.expose_secret(),
        "canary-app-secret"
    );
    assert_eq!(state(&world, &account).await, CredentialState::Refreshing);
    assert_eq!(renew(&world, intent, 2).await, CommitPairResult::Stored);
    assert_eq!(access_token(&world, &account).await, "canary-access-2");
    assert_eq!(state(&world, &account).await, CredentialState::Healthy);
    // Whoever brings another pair for the same refresh token is behind.
    assert_eq!(renew(&world, intent, 3).await, CommitPairResult::Behind);
    let seen = Trigger::Now {
        generation: Some(1),
    };
    assert!(matches!(
        world
            .store
            .begin_refresh(&own, account.id, seen)
            .await
            .unwrap(),
        BeginRefreshResult::NotNow
    ));
}

pub async fn a_late_pair_wins(world: World) {
    let own = world.project("own").await;
    let account = linked(&world, &own).await;
    let late = begin(&world.store, &account, NOW).await;
    let new = pair(2, &world);
    let pending = late.seal(&world.store, &new, some_day());
    // Somebody else says meanwhile that it is no good: it is, since it was spent for this pair.
    world.overdue(&account).await;
    let second = begin(&world.store, &account, NOW).await;
    let told = world
        .store
        .end_refresh(&second, RefreshFailure::InvalidGrant, AGAIN)
        .await
        .unwrap();
    assert_eq!(told, Some(CredentialState::Uncertain));
    assert_eq!(
        world.store.commit_pair(&pending).await.unwrap(),
        CommitPairResult::Stored
    );
    assert_eq!(state(&world, &account).await, CredentialState::Healthy);
    assert_eq!(access_token(&world, &account).await, "canary-access-2");
    assert_eq!(
        world.store.commit_pair(&pending).await.unwrap(),
        CommitPairResult::Stored,
        "the very same pair is stored"
    );
    let next = begin(&world.store, &account, NOW).await;
    assert_eq!(renew(&world, &next, 3).await, CommitPairResult::Stored);
    assert_eq!(
        world.store.commit_pair(&pending).await.unwrap(),
        CommitPairResult::Behind,
        "the account lives on what came of it, and revoking it might end that"
    );

    // But what was replaced by a person is replaced.
    let late = begin(&world.store, &account, NOW).await;
    world.replace(&account, "canary-pasted").await;
    assert_eq!(renew(&world, &late, 4).await, CommitPairResult::Superseded);
    assert_eq!(access_token(&world, &account).await, "canary-pasted");
    let end = world
        .store
        .end_refresh(&late, RefreshFailure::InvalidGrant, AGAIN)
        .await
        .unwrap();
    assert_eq!(
        end, None,
        "what was found of a former credential says nothing"
    );
    assert_eq!(state(&world, &account).await, CredentialState::Healthy);
}

pub async fn a_refresh_that_nobody_ends_is_taken_over(world: World) {
    let own = world.project("own").await;
    let account = linked(&world, &own).await;
    let first = begin(&world.store, &account, NOW).await;
    assert!(matches!(
        world
            .store
            .begin_refresh(&own, account.id, NOW)
            .await
            .unwrap(),
        BeginRefreshResult::Elsewhere
    ));
    assert!(world.store.due_refreshes(9).await.unwrap().is_empty());
    world.overdue(&account).await;
    assert_eq!(
        world.store.due_refreshes(9).await.unwrap(),
        [(own.clone(), account.id)]
    );
    let second = begin(&world.store, &account, Trigger::WhenDue).await;
    assert_eq!(second.generation, first.generation);
    assert_eq!(state(&world, &account).await, CredentialState::Uncertain);
    let end = |intent, end| world.store.end_refresh(intent, end, AGAIN);
    assert_eq!(end(&first, RefreshFailure::Unsent).await.unwrap(), None);
    assert_eq!(
        end(&second, RefreshFailure::InvalidGrant).await.unwrap(),
        Some(CredentialState::Uncertain)
    );
}

pub async fn a_refresh_token_is_dead_after_two_refusals(world: World) {
    let own = world.project("own").await;
    let account = linked(&world, &own).await;
    let refuse = async || {
        let intent = begin(&world.store, &account, NOW).await;
        let end = world
            .store
            .end_refresh(&intent, RefreshFailure::InvalidGrant, AGAIN);
        end.await.unwrap().unwrap()
    };
    assert_eq!(refuse().await, CredentialState::Uncertain);
    // At once is too early to be a second word.
    assert_eq!(refuse().await, CredentialState::Uncertain);
    world.refused_long_ago(&account).await;
    assert_eq!(refuse().await, CredentialState::ReauthRequired);
    assert!(world.store.due_refreshes(9).await.unwrap().is_empty());
    let told = world
        .store
        .account(&own, account.id)
        .await
        .unwrap()
        .unwrap();
    assert!(told.needs_reauth(), "{told:?}");

    // Somebody asks all the same, and the provider takes it.
    let intent = begin(&world.store, &account, NOW).await;
    assert_eq!(renew(&world, &intent, 2).await, CommitPairResult::Stored);
    assert_eq!(state(&world, &account).await, CredentialState::Healthy);
}

/// A refusal says nothing while another process may still come out with the successor.
pub async fn a_refresh_token_is_not_dead_while_the_doubted_process_runs(world: World) {
    let own = world.project("own").await;
    let account = linked(&world, &own).await;
    let doubted = world.another().await.store;
    doubted.join().await.unwrap();
    begin(&doubted, &account, NOW).await;
    world.overdue(&account).await;
    let refuse = async || {
        let intent = begin(&world.store, &account, NOW).await;
        let end = world
            .store
            .end_refresh(&intent, RefreshFailure::InvalidGrant, AGAIN);
        end.await.unwrap().unwrap()
    };
    assert_eq!(refuse().await, CredentialState::Uncertain);
    for _ in 0..2 {
        world.refused_long_ago(&account).await;
        doubted.write_heartbeat().await.unwrap();
        assert_eq!(refuse().await, CredentialState::Uncertain);
    }
    doubted.leave().await.unwrap();
    world.refused_long_ago(&account).await;
    assert_eq!(refuse().await, CredentialState::ReauthRequired);
    doubted.close().await;
}

/// What an export read may be in flight by the time that it is to be given out. A raw writer stands for
/// the process that begins the refresh in between, and holds the row until the export waits for it.
pub async fn an_export_does_not_overtake_a_refresh(world: World) {
    let own = world.project("own").await;
    let account = linked(&world, &own).await;
    let begin = format!(
        "update credentials set state = 'in_flight', intent = 'theirs' where account = '{}'",
        account.id
    );
    let refresh = world.begin_raw(&begin).await;
    let (store, id) = (world.store.clone(), account.id);
    let project = own.clone();
    let export =
        tokio::spawn(async move { store.export_credential(&project, id, Actor::Operator).await });
    refresh.commit_once_awaited().await;
    let refused = export.await.unwrap().unwrap_err();
    assert_eq!(refused.kind(), Kind::RefreshInProgress);
    assert_eq!(state(&world, &account).await, CredentialState::Refreshing);
}

pub async fn what_says_nothing_of_the_token_is_due_again(world: World) {
    let own = world.project("own").await;
    let account = linked(&world, &own).await;
    for (number, end) in [
        RefreshFailure::Unsent,
        RefreshFailure::Refused,
        RefreshFailure::AppRefused,
    ]
    .into_iter()
    .enumerate()
    {
        let intent = begin(&world.store, &account, NOW).await;
        assert_eq!(intent.attempts, number as u64);
        let told = world
            .store
            .end_refresh(&intent, end, Duration::ZERO)
            .await
            .unwrap();
        assert_eq!(told, Some(CredentialState::Healthy), "{end:?}");
        assert_eq!(
            world.store.due_refreshes(9).await.unwrap(),
            [(own.clone(), account.id)]
        );
    }
    let intent = begin(&world.store, &account, Trigger::WhenDue).await;
    let told = world
        .store
        .end_refresh(&intent, RefreshFailure::Doubtful, Duration::ZERO)
        .await
        .unwrap();
    assert_eq!(told, Some(CredentialState::Uncertain));
    // From there on, what says nothing leaves it in doubt.
    let intent = begin(&world.store, &account, Trigger::WhenDue).await;
    let told = world
        .store
        .end_refresh(&intent, RefreshFailure::Unsent, Duration::ZERO)
        .await
        .unwrap();
    assert_eq!(told, Some(CredentialState::Uncertain));
}

/// How a refresh ends.
async fn ends(world: &World, account: &Account, end: RefreshFailure) -> CredentialState {
    let intent = begin(&world.store, account, NOW).await;
    let told = world.store.end_refresh(&intent, end, AGAIN).await;
    told.unwrap().unwrap()
}

pub async fn a_doubt_is_given_up_in_the_end(world: World) {
    use CredentialState::{Healthy, ReauthRequired, Uncertain};
    let own = world.project("own").await;
    let account = linked(&world, &own).await;
    let store = &world.store;
    let ends = async |end| ends(&world, &account, end).await;
    assert_eq!(ends(RefreshFailure::Doubtful).await, Uncertain);
    assert_eq!(store.expire_uncertain().await.unwrap(), 0);
    assert_eq!(state(&world, &account).await, Uncertain);

    // Also while a try is overdue that nobody will tell of, but not one that goes on.
    world.in_doubt_for(&account, MAX_UNCERTAIN).await;
    let open = begin(store, &account, NOW).await;
    assert!(open.is_long_in_doubt());
    assert_eq!(state(&world, &account).await, Uncertain);
    assert_eq!(store.expire_uncertain().await.unwrap(), 0);
    world.overdue(&account).await;
    assert_eq!(store.expire_uncertain().await.unwrap(), 1);
    assert_eq!(state(&world, &account).await, Healthy);
    let late = store.end_refresh(&open, RefreshFailure::InvalidGrant, AGAIN);
    assert_eq!(late.await.unwrap(), None);
    // It goes on being due, and says why.
    assert_eq!(
        store.due_refreshes(9).await.unwrap(),
        [(own.clone(), account.id)]
    );
    let shown = store.account(&own, account.id).await.unwrap().unwrap();
    let reason = &shown.status_reasons[0];
    assert_eq!(reason.code, Account::REFRESH_FAILED);
    assert!(reason.description.contains("no answer"), "{reason:?}");

    // More of the same does not make it uncertain again; a no does.
    for end in [
        RefreshFailure::Doubtful,
        RefreshFailure::Unsent,
        RefreshFailure::Refused,
        RefreshFailure::Doubtful,
    ] {
        assert_eq!(ends(end).await, Healthy, "{end:?}");
    }
    assert_eq!(ends(RefreshFailure::InvalidGrant).await, Uncertain);
    world.in_doubt_for(&account, MAX_UNCERTAIN).await;
    assert_eq!(store.expire_uncertain().await.unwrap(), 1);
    assert_eq!(ends(RefreshFailure::InvalidGrant).await, Uncertain);
    world.refused_long_ago(&account).await;
    assert_eq!(ends(RefreshFailure::InvalidGrant).await, ReauthRequired);
    assert_eq!(store.expire_uncertain().await.unwrap(), 0);

    // Nor is what is dead any less so for a lost reply.
    for end in [
        RefreshFailure::Doubtful,
        RefreshFailure::Unsent,
        RefreshFailure::AppRefused,
        RefreshFailure::InvalidGrant,
    ] {
        assert_eq!(ends(end).await, ReauthRequired, "{end:?}");
        assert!(store.due_refreshes(9).await.unwrap().is_empty());
    }
    let intent = begin(store, &account, NOW).await;
    assert_eq!(renew(&world, &intent, 2).await, CommitPairResult::Stored);
    assert_eq!(ends(RefreshFailure::Doubtful).await, Uncertain);
}

pub async fn what_is_in_doubt_is_tried_again_soon(world: World) {
    let own = world.project("own").await;
    let account = linked(&world, &own).await;
    let hour = Duration::from_secs(3600);
    let store = &world.store;
    let intent = begin(store, &account, NOW).await;
    let told = store.end_refresh(&intent, RefreshFailure::Doubtful, Duration::ZERO);
    told.await.unwrap();
    let intent = begin(store, &account, Trigger::WhenDue).await;
    let told = store.end_refresh(&intent, RefreshFailure::Refused, hour);
    assert_eq!(told.await.unwrap(), Some(CredentialState::Uncertain));
    let due = async || world.moment(&account, "due_at").await;
    let since = async || world.moment(&account, "state_since").await;
    let wait = due().await - since().await;
    assert!(wait < 70_000, "{wait} ms");
}

pub async fn a_long_doubt_ends_with_another_sign(world: World) {
    use CredentialState::{ReauthRequired, Uncertain};
    let own = world.project("own").await;
    let other = world.another().await;
    other.store.write_heartbeat().await.unwrap();
    let account = linked(&world, &own).await;
    // The other process lives, and never tells what it knows.
    begin(&other.store, &account, NOW).await;
    world.overdue(&account).await;
    assert_eq!(
        ends(&world, &account, RefreshFailure::InvalidGrant).await,
        Uncertain
    );
    world.refused_long_ago(&account).await;
    assert_eq!(
        ends(&world, &account, RefreshFailure::InvalidGrant).await,
        Uncertain
    );
    world
        .in_doubt_for(&account, MAX_UNCERTAIN - Duration::from_secs(60))
        .await;
    assert_eq!(
        ends(&world, &account, RefreshFailure::InvalidGrant).await,
        ReauthRequired
    );

    let account = linked(&world, &own).await;
    let intent = begin(&world.store, &account, NOW).await;
    assert!(!intent.is_long_in_doubt());
    let told = world
        .store
        .end_refresh(&intent, RefreshFailure::Doubtful, AGAIN);
    told.await.unwrap();
    world.in_doubt_for(&account, MAX_UNCERTAIN).await;
    assert_eq!(
        ends(&world, &account, RefreshFailure::TokenRefused).await,
        ReauthRequired
    );
    let shown = world.store.account(&own, account.id).await;
    let shown = shown.unwrap().unwrap();
    let reason = &shown.status_reasons[0];
    assert!(reason.description.contains("access token"), "{reason:?}");
}

pub async fn a_pair_without_a_refresh_token_is_never_redeemed(world: World) {
    let own = world.project("own").await;
    let account = world.new_account(&own);
    let credential = Credential::OAuth(TokenPair {
        refresh_token: None,
        ..pair(1, &world)
    });
    let app = app();
    let grant = CredentialRecord {
        credential: &credential,
        issued_to: IssuedTo::OwnApp(&app),
        refresh_at: None,
        draft: None,
    };
    let store = &world.store;
    store
        .insert_account(&account, &grant, Actor::Operator)
        .await
        .unwrap();
    assert!(store.due_refreshes(9).await.unwrap().is_empty());
    for wanted in [
        NOW,
        Trigger::Now {
            generation: Some(1),
        },
    ] {
        let begun = store.begin_refresh(&own, account.id, wanted).await;
        assert!(matches!(begun.unwrap(), BeginRefreshResult::Never));
    }
    assert_eq!(access_token(&world, &account).await, "canary-access-1");
    // Two installations may use it side by side.
    let exported = store.export_credential(&own, account.id, Actor::Operator);
    exported.await.unwrap();
    assert_eq!(state(&world, &account).await, CredentialState::Healthy);
}

pub async fn a_disconnected_account_has_nothing_left(world: World) {
    let own = world.project("own").await;
    let account = linked(&world, &own).await;
    let intent = begin(&world.store, &account, NOW).await;
    let store = &world.store;
    let now = world.clock.now();
    let left = store
        .disconnect_account(&own, account.id, Actor::Operator, now)
        .await;
    let (left, ended) = left.unwrap().unwrap();
    let ended = ended.unwrap();
    assert_eq!(ended.generation, 1);
    assert_eq!(
        ended.credential.access_token().expose_secret(),
        "canary-access-1"
    );
    assert_eq!(left.credential, None);
    assert_eq!(left.status_reasons[0].code, Account::DISCONNECTED);
    assert!(store.credential(&own, account.id).await.unwrap().is_none());
    assert_eq!(
        renew(&world, &intent, 2).await,
        CommitPairResult::Superseded
    );
    assert!(store.credential(&own, account.id).await.unwrap().is_none());
    assert!(matches!(
        store.begin_refresh(&own, account.id, NOW).await.unwrap(),
        BeginRefreshResult::Never
    ));
    // It can be linked again, and what was before does not come back.
    world.replace(&account, "canary-again").await;
    assert_eq!(
        renew(&world, &intent, 2).await,
        CommitPairResult::Superseded
    );
    assert_eq!(access_token(&world, &account).await, "canary-again");
}

pub fn profile(world: &World, project: &ProjectId) -> ConnectorProfile {
    let now = world.clock.now();
    ConnectorProfile {
        id: world.rng.id(now),
        project: project.clone(),
        provider: "smartsheet".to_owned(),
        label: None,
        client_id: "the-app".to_owned(),
        proof: ClientProof::ClientSecret,
        endpoint: Endpoint::Region(Region::Eu),
        scopes: vec!["READ_USERS".to_owned()],
        redirect_url: "https://example.org/callback".to_owned(),
        actions: ActionSet::ALL,
        is_enabled: true,
        created_at: now,
        updated_at: now,
    }
}

pub async fn a_changed_secret_is_used(world: World) {
    let World { store, clock, .. } = &world;
    let own = world.project("own").await;
    let other = world.project("other").await;
    let profile = profile(&world, &own);
    store
        .insert_profile(&profile, &"canary-app-secret".into(), Actor::Operator)
        .await
        .unwrap();
    assert_eq!(
        store.profile(&own, profile.id).await.unwrap(),
        Some(profile.clone())
    );
    assert_eq!(store.profile(&other, profile.id).await.unwrap(), None);
    assert!(store.oauth_app(&other, profile.id).await.unwrap().is_none());

    let account = world.new_account(&own);
    let credential = Credential::OAuth(pair(1, &world));
    let grant = CredentialRecord {
        credential: &credential,
        issued_to: IssuedTo::Profile(profile.id),
        refresh_at: Some(clock.now()),
        draft: None,
    };
    store
        .insert_account(&account, &grant, Actor::Operator)
        .await
        .unwrap();
    let change = ProfileChange {
        client_secret: Some("canary-app-secret-2".into()),
        actions: "users".parse().ok(),
        ..ProfileChange::default()
    };
    let now = clock.now();
    let changed = store
        .update_profile(&own, profile.id, &change, Actor::Operator, now)
        .await;
    assert!(changed.unwrap().is_some());
    assert!(
        store
            .update_profile(&other, profile.id, &change, Actor::Operator, now)
            .await
            .unwrap()
            .is_none()
    );
    let intent = begin(store, &account, NOW).await;
    assert_eq!(
        intent.app.client_secret.expose_secret(),
        "canary-app-secret-2"
    );

    let disabled = ProfileChange {
        is_enabled: Some(false),
        ..ProfileChange::default()
    };
    store
        .update_profile(&own, profile.id, &disabled, Actor::Operator, now)
        .await
        .unwrap();
    let seen = store.account(&own, account.id).await.unwrap().unwrap();
    assert!(seen.credential.unwrap().is_profile_disabled);
    assert_eq!(seen.actions.to_string(), "users");
}

pub fn invitation(world: &World, project: &ProjectId, number: u64) -> ConnectSession {
    let now = world.clock.now();
    ConnectSession {
        number,
        project: project.clone(),
        provider: Some("smartsheet".to_owned()),
        profile: None,
        account: None,
        kind: AccountKind::Production,
        is_multiple: false,
        origin_owner_id: "customer-1".to_owned(),
        details: ConnectDetails {
            origin_owner_name: crate::world::NAME.to_owned(),
            ..ConnectDetails::default()
        },
        draft: 0,
        linked_account: None,
        created_at: now,
        expires_at: now + Duration::from_secs(1800),
        used_at: None,
    }
}

pub async fn an_invitation_makes_one_link(world: World) {
    let World { store, clock, .. } = &world;
    let own = world.project("own").await;
    let session = invitation(&world, &own, 7);
    store
        .insert_connect_session(&session, [7; 32], Actor::Operator)
        .await
        .unwrap();
    assert_eq!(
        store.connect_session([7; 32]).await.unwrap(),
        Some(session.clone())
    );
    assert_eq!(store.connect_session([8; 32]).await.unwrap(), None);

    let draft = |number: u32| StoredDraft {
        credential: Credential::OAuth(pair(number, &world)),
        profile: None,
        own_app: Some(app()),
        meta: b"what was found".to_vec(),
    };
    let browser = [1; 32];
    let put = async |what: Option<&StoredDraft>| {
        let put = store.put_draft(&session, browser, what, clock.now()).await;
        let put = put.unwrap();
        let (number, former) = put.unwrap();
        let former = former.map(|former| {
            let token = former.credential.access_token();
            token.expose_secret().to_owned()
        });
        (number, former)
    };
    let link = |number: u64| {
        let (store, account) = (store.clone(), world.new_account(&own));
        tokio::spawn(async move {
            let credential = crate::world::credential();
            let grant = CredentialRecord {
                draft: Some(number),
                ..CredentialRecord::personal(&credential)
            };
            let by = Actor::ConnectSession(7);
            store.insert_account(&account, &grant, by).await
        })
    };
    // What was put in the place of another is saved, and who replaced that has it.
    let (first, former) = put(Some(&draft(1))).await;
    assert_eq!(former, None);
    let (second, former) = put(Some(&draft(2))).await;
    assert_eq!(former.as_deref(), Some("canary-access-1"));
    let late = link(first).await.unwrap().unwrap_err();
    assert_eq!(late.kind(), Kind::ConnectSessionInvalid);
    // What was given up is not saved either.
    let (none, former) = put(None).await;
    assert_eq!(former.as_deref(), Some("canary-access-2"));
    for number in [second, none] {
        let late = link(number).await.unwrap().unwrap_err();
        assert_eq!(late.kind(), Kind::ConnectSessionInvalid);
    }
    assert!(store.accounts(&own).await.unwrap().is_empty());

    let (waiting, _) = put(Some(&draft(3))).await;
    let links: Vec<_> = (0..8).map(|_| link(waiting)).collect();
    let mut linked = 0;
    for link in links {
        match link.await.unwrap() {
            Ok(()) => linked += 1,
            Err(error) => assert_eq!(error.kind(), Kind::ConnectSessionInvalid),
        }
    }
    assert_eq!(linked, 1);
    assert_eq!(store.accounts(&own).await.unwrap().len(), 1);
    let used = store.connect_session([7; 32]).await.unwrap().unwrap();
    assert!(!used.is_open_at(clock.now()));
    assert!(used.linked_account.is_some());
    // What was saved is the account's: nobody is given it to revoke.
    let put = store.put_draft(&session, browser, None, clock.now()).await;
    assert!(put.unwrap().is_none());
    let account = used.linked_account;
    assert_eq!(store.linked_by(&session, browser).await.unwrap(), account);
    assert_eq!(store.linked_by(&session, [2; 32]).await.unwrap(), None);

    store.forget_ended_sessions(Timestamp::MAX).await.unwrap();
    assert_eq!(store.connect_session([7; 32]).await.unwrap(), None);
}

/// A draft is nobody's but the browser's that proved it, and its session's end leaves none behind.
pub async fn a_draft_belongs_to_one_browser(world: World) {
    let World { store, clock, .. } = &world;
    let own = world.project("own").await;
    let session = invitation(&world, &own, 7);
    store
        .insert_connect_session(&session, [7; 32], Actor::Operator)
        .await
        .unwrap();
    let draft = |number: u32| StoredDraft {
        credential: Credential::OAuth(pair(number, &world)),
        profile: None,
        own_app: Some(app()),
        meta: Vec::new(),
    };
    let put = async |browser: u8, what: Option<&StoredDraft>| {
        store
            .put_draft(&session, [browser; 32], what, clock.now())
            .await
    };
    let (own_number, _) = put(1, Some(&draft(1))).await.unwrap().unwrap();
    // Another browser's draft replaces nothing, and neither does its cancel.
    let (_, former) = put(2, Some(&draft(2))).await.unwrap().unwrap();
    assert!(former.is_none());
    let (_, former) = put(3, None).await.unwrap().unwrap();
    assert!(former.is_none());
    let waiting = store.draft(&session, [1; 32]).await.unwrap();
    assert_eq!(waiting.unwrap().0, own_number);
    assert!(store.draft(&session, [3; 32]).await.unwrap().is_none());
    // So many browsers and no more: those that wait go on, and the next one is refused.
    for browser in 4..=11 {
        put(browser, Some(&draft(1))).await.unwrap();
    }
    let refused = put(13, Some(&draft(1))).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::RateLimited);
    put(1, Some(&draft(3))).await.unwrap().unwrap();
    put(11, None).await.unwrap();
    put(13, Some(&draft(1))).await.unwrap();

    // Used up by one, the session leaves the drafts of the others to be revoked.
    assert!(store.ended_drafts(clock.now()).await.unwrap().is_empty());
    let (number, _) = put(2, Some(&draft(4))).await.unwrap().unwrap();
    let credential = crate::world::credential();
    let grant = CredentialRecord {
        draft: Some(number),
        ..CredentialRecord::personal(&credential)
    };
    let account = world.new_account(&own);
    let by = Actor::ConnectSession(7);
    store.insert_account(&account, &grant, by).await.unwrap();
    let ended = store.ended_drafts(clock.now()).await.unwrap();
    assert_eq!(ended.len(), 9);
    for ended in &ended {
        store.forget_ended_draft(ended).await.unwrap();
    }
    assert!(store.ended_drafts(clock.now()).await.unwrap().is_empty());
}

pub async fn a_sign_in_comes_back_once(world: World) {
    let World { store, clock, .. } = &world;
    let own = world.project("own").await;
    let other = world.project("other").await;
    let verifier = SecretString::from("canary-verifier");
    let app = app();
    let begin = async |state: u8, browser: Option<[u8; 32]>| {
        let new = NewAuthorization {
            state_digest: [state; 32],
            project: &own,
            profile: None,
            own_app: Some(&app),
            connect_session: None,
            browser_digest: browser,
            verifier: &verifier,
            meta: b"meta",
            expires_at: clock.now() + Duration::from_secs(600),
        };
        store.insert_authorization(&new, clock.now()).await.unwrap();
    };
    let take = async |state: u8, bringer: StateOwner<'_>, now: Timestamp| {
        let taken = store.take_authorization([state; 32], bringer, now).await;
        taken.unwrap()
    };
    let now = clock.now();
    begin(1, None).await;
    begin(2, Some([9; 32])).await;
    let fault = |taken: Result<_, StateError>| taken.map(drop).unwrap_err();
    assert_eq!(
        fault(take(3, StateOwner::Project(&own), now).await),
        StateError::Unknown
    );
    for (state, bringer) in [
        (1, StateOwner::Project(&other)),
        (1, StateOwner::Browser([9; 32])),
        (2, StateOwner::Project(&own)),
        (2, StateOwner::Browser([8; 32])),
    ] {
        assert_eq!(fault(take(state, bringer, now).await), StateError::Another);
    }
    let late = now + Duration::from_secs(600);
    assert_eq!(
        fault(take(1, StateOwner::Project(&own), late).await),
        StateError::Expired
    );

    let taken = take(1, StateOwner::Project(&own), now).await.unwrap();
    assert_eq!(taken.verifier.expose_secret(), "canary-verifier");
    assert_eq!(taken.own_app.unwrap().client_id, "the-app");
    assert_eq!(&**taken.meta, b"meta");
    assert_eq!(
        fault(take(1, StateOwner::Project(&own), now).await),
        StateError::Used
    );
    let tries: Vec<_> = (0..8)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                let bringer = StateOwner::Browser([9; 32]);
                let taken = store.take_authorization([2; 32], bringer, now).await;
                taken.unwrap().map(drop)
            })
        })
        .collect();
    let mut outcomes = Vec::new();
    for attempt in tries {
        outcomes.push(attempt.await.unwrap());
    }
    let faults: HashSet<_> = outcomes
        .iter()
        .filter_map(|it| it.err())
        .map(|it| format!("{it:?}"))
        .collect();
    assert_eq!(outcomes.iter().filter(|it| it.is_ok()).count(), 1);
    assert_eq!(faults, HashSet::from(["Used".to_owned()]));
}

impl World {
    /// As if the time of whoever redeems had passed.
    async fn overdue(&self, account: &Account) {
        let past = self.clock.now() - REFRESH_LEASE_TIMEOUT - REFRESH_LEASE_TIMEOUT;
        self.set(account, "due_at", past).await;
    }

    /// Puts a pasted token in the place of what an account has.
    async fn replace(&self, account: &Account, token: &str) {
        let credential = Credential::AccessToken(token.into());
        let update = AccountUpdate {
            change: &AccountChange::default(),
            credential: Some(NewCredential {
                grant: CredentialRecord::personal(&credential),
                identity: &account.identity,
            }),
            by: Actor::Operator,
        };
        let replaced = self
            .store
            .update_account(&account.project, account.id, update, self.clock.now())
            .await;
        assert!(replaced.unwrap().is_some());
    }

    /// As if the provider's first no were long ago.
    async fn refused_long_ago(&self, account: &Account) {
        let past = self.clock.now() - SECOND_REFUSAL_AFTER - SECOND_REFUSAL_AFTER;
        self.set(account, "refused_at", past).await;
    }

    /// A moment of an account's credential, in milliseconds since the epoch.
    async fn moment(&self, account: &Account, column: &str) -> i64 {
        self.number(&format!(
            "select {column} from credentials where account = '{}'",
            account.id
        ))
        .await
    }

    /// As if nobody had known any better for so long.
    async fn in_doubt_for(&self, account: &Account, time: Duration) {
        self.set(account, "state_since", self.clock.now() - time)
            .await;
    }
}

pub async fn an_exported_pair_is_nobody_s_to_redeem(world: World) {
    let own = world.project("own").await;
    let account = linked(&world, &own).await;
    let (store, id) = (&world.store, account.id);
    let by = Actor::Operator;
    // Not while somebody redeems it.
    let intent = begin(store, &account, NOW).await;
    let refused = store.export_credential(&own, id, by).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::RefreshInProgress);
    assert_eq!(renew(&world, &intent, 2).await, CommitPairResult::Stored);
    assert!(!store.reclaim(&own, id, by).await.unwrap());

    let (stored, given) = store.export_credential(&own, id, by).await.unwrap();
    let token = stored.credential.access_token();
    assert_eq!(token.expose_secret(), "canary-access-2");
    let secret = given.unwrap().client_secret;
    assert_eq!(secret.expose_secret(), "canary-app-secret");
    assert_eq!(state(&world, &account).await, CredentialState::Moved);
    let begun = store.begin_refresh(&own, id, NOW).await.unwrap();
    assert!(matches!(begun, BeginRefreshResult::Never), "{begun:?}");
    assert!(store.due_refreshes(10).await.unwrap().is_empty());
    let again = store.export_credential(&own, id, by).await.unwrap_err();
    assert_eq!(again.kind(), Kind::AccountInactive);

    let other = world.project("other").await;
    assert!(!store.reclaim(&other, id, by).await.unwrap());
    assert!(store.reclaim(&own, id, by).await.unwrap());
    assert_eq!(state(&world, &account).await, CredentialState::Healthy);
    begin(store, &account, Trigger::WhenDue).await;
}

#[tokio::test]
async fn a_refresh_that_was_stored_before_the_date_was_set_back_is_due_in_time() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("store.db").display());
    let world = World::open(&url, &ring("a")).await.unwrap();
    let own = world.project("own").await;
    let (idle, in_flight) = (linked(&world, &own).await, linked(&world, &own).await);
    let _intent = begin(&world.store, &in_flight, NOW).await;
    let ahead = |seconds: u64| world.clock.now() + Duration::from_secs(86_400 + seconds);
    world.set(&idle, "state_since", ahead(0)).await;
    world.set(&idle, "due_at", ahead(1_800)).await;
    world.set(&in_flight, "state_since", ahead(0)).await;
    world.set(&in_flight, "due_at", ahead(75)).await;
    assert_eq!(world.store.rebase_refreshes().await.unwrap(), 2);
    assert_eq!(world.store.rebase_refreshes().await.unwrap(), 0);
    let due = async || {
        let due = world.store.due_refreshes(9).await.unwrap();
        due.into_iter()
            .map(|(_, account)| account)
            .collect::<Vec<_>>()
    };
    assert!(due().await.is_empty());
    world.clock.advance(Duration::from_secs(76));
    assert_eq!(due().await, [in_flight.id]);
    world.clock.advance(Duration::from_secs(1_800));
    assert_eq!(due().await.len(), 2);

    // One that is in doubt keeps the moment since when it is, and is tried again all the same.
    world.set(&idle, "due_at", ahead(75)).await;
    world.set(&in_flight, "due_at", ahead(75)).await;
    assert_eq!(world.store.rebase_refreshes().await.unwrap(), 1);
    world.clock.advance(Duration::from_secs(91));
    assert_eq!(due().await, [in_flight.id]);
}
