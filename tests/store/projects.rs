//! Deleting a project.

use std::time::Duration;

use rolecall::{
    error::Kind,
    model::{
        accounts::Account,
        audit_log::{Actor, AuditAction, AuditFilter},
        walks::WalkState,
    },
    store::{
        BeginWalkResult, CredentialRecord, DeletedProject, NewAuthorization, StoredDraft, Verified,
    },
};

use secrecy::SecretString;

use crate::{
    credentials,
    world::{World, credential, ends, furnish, project},
};

/// A project of which there is a row in every table.
pub async fn furnish_everything(world: &World, project: &str) -> Account {
    let account = furnish(world, project).await;
    let store = &world.store;
    let own = &account.project;
    let (_, key) = world.new_key(own);
    store.insert_key(&key, Actor::Operator).await.unwrap();
    let profile = credentials::profile(world, own);
    let secret = "canary-app-secret".into();
    let made = store.insert_profile(&profile, &secret, Actor::Operator);
    made.await.unwrap();
    let session = credentials::invitation(world, own, 7);
    let made = store.insert_connect_session(&session, [7; 32], Actor::Operator);
    made.await.unwrap();
    let draft = StoredDraft {
        credential: credential(),
        profile: None,
        own_app: None,
        meta: Vec::new(),
    };
    let put = store.put_draft(&session, [1; 32], Some(&draft), world.clock.now());
    assert!(put.await.unwrap().is_some());
    let authorization = NewAuthorization {
        state_digest: [7; 32],
        project: own,
        profile: Some(profile.id),
        own_app: None,
        connect_session: Some(7),
        browser_digest: None,
        verifier: &SecretString::from("canary-verifier"),
        meta: b"meta",
        expires_at: session.expires_at,
    };
    let now = world.clock.now();
    let made = store.insert_authorization(&authorization, now);
    made.await.unwrap();
    account
}

pub async fn a_deleted_one_leaves_nothing_but_its_name(world: World) {
    let World { store, clock, .. } = &world;
    let account = furnish_everything(&world, "own").await;
    world.tick();
    let second = world.account(&account.project).await;
    let other = furnish(&world, "other").await;
    let (_, key) = world.new_key(&account.project);
    let (_, others_key) = world.new_key(&other.project);
    store.insert_key(&key, Actor::Operator).await.unwrap();
    store
        .insert_key(&others_key, Actor::Operator)
        .await
        .unwrap();
    let running = world.new_walk(second.id, WalkState::Running);
    store
        .begin_walk(&account.project, &running, Actor::System)
        .await
        .unwrap();
    let own = &account.project;
    assert_eq!(store.deleted_project_count().await.unwrap(), 0);

    let absent = store
        .delete_project(&project("absent"), Actor::Operator, clock.now())
        .await;
    assert_eq!(absent.unwrap(), None);
    let deleted = store
        .delete_project(own, Actor::Operator, clock.now())
        .await
        .unwrap();
    let expected = DeletedProject {
        accounts: 2,
        keys: 2,
    };
    assert_eq!(deleted, Some(expected));
    let again = store
        .delete_project(own, Actor::Operator, clock.now())
        .await;
    assert_eq!(again.unwrap(), None);

    assert!(!store.project_exists(own).await.unwrap());
    assert_eq!(
        store.projects().await.unwrap(),
        std::slice::from_ref(&other.project)
    );
    assert_eq!(store.key(key.id).await.unwrap(), None);
    assert_eq!(store.connect_session([7; 32]).await.unwrap(), None);
    assert!(store.profiles(own).await.unwrap().is_empty());
    for id in [account.id, second.id] {
        assert_eq!(store.account(own, id).await.unwrap(), None);
        assert_eq!(store.project_of(id).await.unwrap(), None);
        assert!(store.credential(own, id).await.unwrap().is_none());
        assert_eq!(store.latest_directory(own, id).await.unwrap(), None);
        assert!(store.walks(own, id, None, 9).await.unwrap().is_empty());
    }
    assert_eq!(store.deleted_project_count().await.unwrap(), 1);
    assert_eq!(
        store.deleted_projects().await.unwrap(),
        [own.clone()].as_slice()
    );
    // Nobody who was slow, and nobody who does not know, brings anything back.
    let error = store.commit_walk(ends(own, &running)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::AccountNotFound);
    let error = store
        .insert_account(
            &account,
            &CredentialRecord::personal(&credential()),
            Actor::Operator,
        )
        .await;
    assert_eq!(error.unwrap_err().kind(), Kind::NotFound);
    let error = store.insert_key(&key, Actor::Operator).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    let error = store.create_project(own, clock.now()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::InvalidParameter);
    assert!(!store.project_exists(own).await.unwrap());

    // Its log goes on being what it was, with what became of it as its last word.
    let log = store
        .audit_log(own, &AuditFilter::default(), None, 99)
        .await;
    let log = log.unwrap();
    assert_eq!(log[0].event.action, AuditAction::ProjectDeleted);
    assert_eq!(log[0].event.detail.words()["accounts"], "2");
    let entries = log.len() as u64;
    let verified = store.verify_audit(own, None).await.unwrap().verified;
    assert_eq!(verified, Verified::Whole { entries });
    let all = store.audited_projects().await.unwrap();
    assert_eq!(all, [other.project.clone(), own.clone()]);

    // And another project has not noticed.
    let found = store.account(&other.project, other.id).await.unwrap();
    assert_eq!(found.as_ref(), Some(&other));
    assert_eq!(store.key(others_key.id).await.unwrap(), Some(others_key));
    let latest = store.latest_directory(&other.project, other.id).await;
    assert!(latest.unwrap().is_some());
}

pub async fn it_is_deleted_whole_whoever_is_at_work_in_it(world: World) {
    for round in 0..5 {
        let own = world.project(&format!("own-{round}")).await;
        let first = world.account(&own).await;
        let writers: Vec<_> = (0..6)
            .map(|n| {
                let (world, own, first) = (world.clone(), own.clone(), first.clone());
                tokio::spawn(async move {
                    for _ in 0..50 {
                        let done = match n % 3 {
                            0 => {
                                let account = world.new_account(&own);
                                let store = &world.store;
                                let credential = credential();
                                let grant = CredentialRecord::personal(&credential);
                                store
                                    .insert_account(&account, &grant, Actor::Operator)
                                    .await
                            }
                            1 => {
                                world
                                    .store
                                    .insert_key(&world.new_key(&own).1, Actor::Operator)
                                    .await
                            }
                            _ => {
                                let walk = world.new_walk(first.id, WalkState::Running);
                                let begun =
                                    world.store.begin_walk(&own, &walk, Actor::System).await;
                                match begun {
                                    Ok(BeginWalkResult::Here { .. }) => {
                                        let ended = world.new_walk(first.id, WalkState::Failed);
                                        let commit = ends(&own, &ended);
                                        world.store.commit_walk(commit).await.map(drop)
                                    }
                                    other => other.map(drop),
                                }
                            }
                        };
                        if let Err(error) = done {
                            let gone = [Kind::NotFound, Kind::AccountNotFound];
                            assert!(gone.contains(&error.kind()), "{error:?}");
                            return;
                        }
                    }
                })
            })
            .collect();
        for _ in 0..round * 20 {
            tokio::task::yield_now().await;
        }
        let now = world.clock.now();
        let deleted = world.store.delete_project(&own, Actor::Operator, now);
        let deleted = tokio::time::timeout(Duration::from_secs(60), deleted).await;
        assert!(deleted.unwrap().unwrap().is_some());
        for writer in writers {
            writer.await.unwrap();
        }
        assert!(world.store.accounts(&own).await.unwrap().is_empty());
        assert!(world.store.keys(&own, None, 9).await.unwrap().is_empty());
        assert_eq!(world.store.project_of(first.id).await.unwrap(), None);
    }
}
