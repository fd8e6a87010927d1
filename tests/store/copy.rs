//! Moving everything from one database to another.

use rolecall::{
    crypto::KeyRing,
    model::audit_log::Actor,
    store::{Copied, CopyError, OpenError, Verified},
};

use crate::{
    schema::Schema,
    world::{TOKEN, World, exposed, furnish, ring},
};

async fn open(url: &str, ring: &KeyRing) -> World {
    World::open(url, ring).await.unwrap()
}

fn rows(copied: &[Copied], table: &str) -> u64 {
    copied.iter().find(|each| each.table == table).unwrap().rows
}

#[tokio::test]
async fn everything_is_found_again_in_the_other_database_and_back() {
    let Some(schema) = Schema::new().await else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| format!("sqlite://{}", folder.path().join(name).display());
    let ring = ring("a");
    let source = open(&file("one.db"), &ring).await;
    let (one, two) = (furnish(&source, "one").await, furnish(&source, "two").await);
    let (_, key) = source.new_key(&one.project);
    source
        .store
        .insert_key(&key, Actor::Operator)
        .await
        .unwrap();

    let postgres = open(&schema.url(), &ring).await;
    let copied = source.store.copy_to(&postgres.store).await.unwrap();
    assert_eq!(rows(&copied, "projects"), 2);
    assert_eq!(rows(&copied, "accounts"), 2);
    assert_eq!(rows(&copied, "directories"), 4);
    // Two projects and accounts made, and a key.
    assert_eq!(rows(&copied, "audit_log"), 5);
    let back = open(&file("two.db"), &ring).await;
    assert_eq!(postgres.store.copy_to(&back.store).await.unwrap(), copied);

    for store in [&postgres.store, &back.store] {
        assert_eq!(store.key(key.id).await.unwrap().as_ref(), Some(&key));
        assert_eq!(
            store.key_usage().await.unwrap(),
            source.store.key_usage().await.unwrap()
        );
        for account in [&one, &two] {
            let (project, id) = (&account.project, account.id);
            let verified = store.verify_audit(project, None).await.unwrap().verified;
            assert!(matches!(verified, Verified::Whole { .. }), "{verified:?}");
            assert_eq!(
                verified,
                source
                    .store
                    .verify_audit(project, None)
                    .await
                    .unwrap()
                    .verified
            );
            let found = store.account(project, id).await.unwrap();
            assert_eq!(found.as_ref(), Some(account));
            let credential = store
                .credential(project, id)
                .await
                .unwrap()
                .unwrap()
                .credential;
            assert_eq!(exposed(&credential), TOKEN);
            let expected = &source.store;
            assert_eq!(
                store.latest_directory(project, id).await.unwrap(),
                expected.latest_directory(project, id).await.unwrap()
            );
            assert_eq!(
                store.evidence(project, id).await.unwrap(),
                expected.evidence(project, id).await.unwrap()
            );
            let walks = store.walks(project, id, None, 100).await.unwrap();
            assert_eq!(walks, expected.walks(project, id, None, 100).await.unwrap());
            let held = store.held(project, id, walks[0].id).await.unwrap();
            assert!(held.is_some());
        }
    }
    // And both go on from there.
    back.seal(&one, 3, b"three").await;
    postgres.seal(&two, 3, b"three").await;
}

#[tokio::test]
async fn what_is_in_use_or_not_empty_is_not_copied() {
    let Some(schema) = Schema::new().await else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("store.db").display());
    let ring = ring("a");
    let (source, target) = (open(&url, &ring).await, open(&schema.url(), &ring).await);
    furnish(&source, "own").await;

    let server = open(&url, &ring).await;
    server.store.claim().unwrap();
    let error = source.store.copy_to(&target.store).await.unwrap_err();
    assert!(
        matches!(error, CopyError::InUse(OpenError::InUse { .. })),
        "{error}"
    );
    server.store.close().await;

    let server = target.another().await;
    server.store.join().await.unwrap();
    let error = source.store.copy_to(&target.store).await.unwrap_err();
    assert!(matches!(error, CopyError::Served("target")), "{error}");
    let error = target.store.copy_to(&source.store).await.unwrap_err();
    assert!(matches!(error, CopyError::Served("source")), "{error}");
    server.store.leave().await.unwrap();

    furnish(&target, "theirs").await;
    let before = target.store.projects().await.unwrap();
    let error = source.store.copy_to(&target.store).await.unwrap_err();
    assert!(matches!(error, CopyError::NotEmpty), "{error}");
    assert_eq!(target.store.projects().await.unwrap(), before);
}
