//! What SQLite must do besides the contract: opening, keys, files, locks.

use std::{collections::BTreeMap, fs, path::Path};

use rolecall::{
    clock::Clock,
    crypto::{KeyRing, OpenFault},
    error::Kind,
    model::{accounts::AccountChange, audit_log::Actor},
    store::{
        AccountUpdate, CredentialRecord, Inspection, NewCredential, OpenError, Retirement, Store,
    },
};
use sqlx::{ConnectOptions, Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use tempfile::TempDir;

use crate::{
    contract, projects, rotation,
    world::{
        EMAIL, NAME, TOKEN, World, credential, credential_of, exposed, furnish, holds, project,
        ring, spellings,
    },
};

fn url(path: &Path) -> String {
    format!("sqlite://{}", path.display())
}

async fn try_open(path: &Path, ring: &KeyRing) -> Result<World, OpenError> {
    World::open(&url(path), ring).await
}

async fn open(path: &Path, ring: &KeyRing) -> World {
    try_open(path, ring).await.unwrap()
}

/// Every file in a folder with its bytes.
fn files(folder: &TempDir) -> BTreeMap<String, Vec<u8>> {
    fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            (name, fs::read(entry.path()).unwrap())
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_keeps_the_contract() {
    for (name, contract) in contract::ALL {
        println!("{name}");
        let folder = tempfile::tempdir().unwrap();
        let world = open(&folder.path().join("store.db"), &ring("a")).await;
        let store = world.store.clone();
        contract(world).await;
        store.close().await;
    }
}

#[tokio::test]
async fn what_was_stored_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (path, ring) = (folder.path().join("store.db"), ring("a"));
    let world = open(&path, &ring).await;
    let account = furnish(&world, "own").await;
    world.store.close().await;
    let error = world.store.ping().await.unwrap_err();
    assert_eq!(error.kind(), Kind::StoreUnavailable);
    assert!(error.retry_after().is_some());

    let store = open(&path, &ring).await.store;
    store.ping().await.unwrap();
    let project = &account.project;
    assert_eq!(
        store.account(project, account.id).await.unwrap(),
        Some(account.clone())
    );
    let latest = store.latest_directory(project, account.id).await.unwrap();
    assert_eq!(latest.unwrap().version, 2);
    let found = store.credential(project, account.id).await;
    let credential = found.unwrap().unwrap().credential;
    assert_eq!(exposed(&credential), TOKEN);
}

#[tokio::test]
async fn no_secret_and_no_person_is_readable_in_any_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let world = open(&path, &ring("a")).await;
    let account = furnish(&world, "own").await;
    let (key, row) = world.new_key(&account.project);
    world.store.insert_key(&row, Actor::Operator).await.unwrap();

    let secret = key.expose().rsplit('_').next().unwrap();
    let while_open = files(&folder);
    for name in ["store.db", "store.db-wal", "store.db-shm"] {
        assert!(while_open.contains_key(name), "{name}");
    }
    world.store.close().await;
    for (name, bytes) in while_open.into_iter().chain(files(&folder)) {
        for canary in [TOKEN, EMAIL, NAME, "Canary", secret] {
            for form in spellings(canary) {
                assert!(!holds(&bytes, &form), "{name} holds {canary} as {form}");
            }
        }
        // The search does find what is meant to lie open.
        if name == "store.db" && bytes.len() > 4096 {
            assert!(holds(&bytes, "customer-1"));
        }
    }
}

#[tokio::test]
async fn a_deleted_credential_is_wiped_even_in_its_sealed_form() {
    let folder = tempfile::tempdir().unwrap();
    let (path, ring) = (folder.path().join("store.db"), ring("a"));
    let world = open(&path, &ring).await;
    let account = furnish(&world, "own").await;
    furnish(&world, "other").await;
    world.store.close().await;
    let mut raw = connect(&path).await;
    let (sealed,): (Vec<u8>,) = sqlx::query_as("select sealed from credentials where account = $1")
        .bind(account.id.to_string())
        .fetch_one(&mut raw)
        .await
        .unwrap();
    raw.close().await.unwrap();
    let is_there = || {
        let bytes = fs::read(&path).unwrap();
        bytes.windows(sealed.len()).any(|at| at == sealed)
    };
    assert!(is_there());

    let store = open(&path, &ring).await.store;
    let deleted = store
        .delete_account(&account.project, account.id, Actor::Operator)
        .await;
    assert_eq!(deleted.unwrap().unwrap().0, account);
    store.close().await;
    assert!(!is_there());
}

/// A project's data key in its sealed form.
async fn wrapped(path: &Path, project: &str) -> Vec<u8> {
    let mut raw = connect(path).await;
    let (sealed,): (Vec<u8>,) =
        sqlx::query_as("select sealed_data_key from projects where id = $1")
            .bind(project)
            .fetch_one(&mut raw)
            .await
            .unwrap();
    raw.close().await.unwrap();
    sealed
}

#[tokio::test]
async fn what_a_retired_key_or_a_deleted_project_leaves_is_wiped_beside_a_server() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let (old, new) = (ring("old"), ring("new"));
    let both = new.then(&old).unwrap();
    let world = open(&path, &old).await;
    let (one, two) = (furnish(&world, "one").await, furnish(&world, "two").await);
    world.store.close().await;
    let formerly = wrapped(&path, "one").await;

    let server = open(&path, &both).await;
    server.store.claim().unwrap();
    let operator = open(&path, &both).await;
    let is_there = |sealed: &[u8]| {
        let mut all = files(&folder).into_values();
        all.any(|bytes| bytes.windows(sealed.len()).any(|at| at == sealed))
    };
    let turn = server.store.rewrap(None, Actor::Operator).await.unwrap();
    assert_eq!((turn.count, turn.left), (2, 0));
    let now = operator.clock.now();
    assert!(is_there(&formerly));
    let retirement = operator.store.retire_key("old", now).await.unwrap();
    assert_eq!(retirement, Retirement::Done);
    assert!(!is_there(&formerly));

    let of_two = wrapped(&path, "two").await;
    assert!(is_there(&of_two));
    let deleted = operator
        .store
        .delete_project(&two.project, Actor::Operator, now)
        .await;
    assert!(deleted.unwrap().is_some());
    assert!(!is_there(&of_two));
    // Copied back from a backup, what it sealed opens for nobody.
    let found = server.store.credential(&two.project, two.id).await;
    assert!(found.unwrap().is_none());
    let (token, _) = credential_of(&server.store, &one.project, one.id).await;
    assert_eq!(token, TOKEN);
}

#[tokio::test]
async fn nothing_but_its_log_is_left_of_a_deleted_project() {
    let folder = tempfile::tempdir().unwrap();
    let (path, ring) = (folder.path().join("store.db"), ring("a"));
    let world = open(&path, &ring).await;
    projects::furnish_everything(&world, "own").await;
    let tables = async || {
        let mut raw = connect(&path).await;
        let tables: Vec<(String,)> = sqlx::query_as(
            "select m.name from sqlite_master m, pragma_table_info(m.name) c
             where m.type = 'table' and c.name = 'project' order by m.name",
        )
        .fetch_all(&mut raw)
        .await
        .unwrap();
        let mut with_rows = Vec::new();
        for (table,) in &tables {
            let count = format!("select count(*) from {table} where project = 'own'");
            let (count,): (i64,) = sqlx::query_as(sqlx::AssertSqlSafe(count))
                .fetch_one(&mut raw)
                .await
                .unwrap();
            with_rows.extend((count > 0).then(|| table.clone()));
        }
        raw.close().await.unwrap();
        (tables.len(), with_rows)
    };
    let (all, with_rows) = tables().await;
    // Or this would not tell whether one was forgotten.
    assert_eq!(with_rows.len(), all, "{with_rows:?}");
    let now = world.clock.now();
    let own = project("own");
    let deleted = world.store.delete_project(&own, Actor::Operator, now).await;
    assert!(deleted.unwrap().is_some());
    assert_eq!(tables().await.1, ["audit_heads", "audit_log"]);
}

#[tokio::test]
async fn a_deleted_project_s_rows_open_no_more_when_they_are_copied_back() {
    let folder = tempfile::tempdir().unwrap();
    let (path, ring) = (folder.path().join("store.db"), ring("a"));
    let world = open(&path, &ring).await;
    let (gone, left) = (furnish(&world, "gone").await, furnish(&world, "left").await);
    world.store.close().await;
    let backup = folder.path().join("backup.db");
    fs::copy(&path, &backup).unwrap();
    let store = open(&path, &ring).await.store;
    let now = gone.created_at;
    store
        .delete_project(&gone.project, Actor::Operator, now)
        .await
        .unwrap();
    store.close().await;

    // Whoever does so has no data key, and so takes what there is: what is left for the log, or
    // another project's.
    let mut raw = connect(&path).await;
    for statement in [
        format!("attach '{}' as backup", backup.display()),
        "update projects set deleted_at = null,
                data_key_id = (select data_key_id from backup.projects where id = 'gone')
         where id = 'gone'"
            .to_owned(),
        "insert into accounts select * from backup.accounts where project = 'gone'".to_owned(),
        "insert into credentials select * from backup.credentials where project = 'gone'"
            .to_owned(),
    ] {
        let statement = sqlx::AssertSqlSafe(statement);
        sqlx::raw_sql(statement).execute(&mut raw).await.unwrap();
    }
    raw.close().await.unwrap();
    let store = open(&path, &ring).await.store;
    let error = store.credential(&gone.project, gone.id).await.unwrap_err();
    assert_eq!(error.kind(), Kind::CredentialLocked);
    store.close().await;
    let mut raw = connect(&path).await;
    let others = "update projects set
                      data_key_id = (select data_key_id from projects where id = 'left'),
                      sealed_data_key = (select sealed_data_key from projects where id = 'left')
                  where id = 'gone'";
    sqlx::raw_sql(others).execute(&mut raw).await.unwrap();
    raw.close().await.unwrap();
    let store = open(&path, &ring).await.store;
    let error = store.credential(&gone.project, gone.id).await.unwrap_err();
    assert_eq!(error.kind(), Kind::CredentialLocked);
    let (token, _) = credential_of(&store, &left.project, left.id).await;
    assert_eq!(token, TOKEN);
    store.close().await;
}

#[tokio::test]
async fn a_data_key_that_does_not_open_is_left_as_it_is_and_keeps_its_ring_key_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let (old, new) = (ring("old"), ring("new"));
    let world = open(&path, &old).await;
    for name in ["one", "two", "three"] {
        world.project(name).await;
    }
    world.store.close().await;
    let mut raw = connect(&path).await;
    sqlx::query(
        "update projects set sealed_data_key =
             (select sealed_data_key from projects where id = 'two') where id = 'three'",
    )
    .execute(&mut raw)
    .await
    .unwrap();
    raw.close().await.unwrap();
    let moved = wrapped(&path, "three").await;

    let world = open(&path, &new.then(&old).unwrap()).await;
    let turn = world.store.rewrap(None, Actor::Operator).await.unwrap();
    let three = project("three");
    let fault = OpenFault::Refused("old".to_owned());
    assert_eq!((turn.count, turn.left), (2, 1));
    assert_eq!(turn.locked, [(three.clone(), fault)]);
    assert_eq!(wrapped(&path, "three").await, moved);
    let now = world.clock.now();
    let retirement = world.store.retire_key("old", now).await.unwrap();
    assert_eq!(retirement, Retirement::Wraps(1));
    let error = world
        .store
        .delete_project(&three, Actor::Operator, now)
        .await;
    let error = error.unwrap_err();
    assert_eq!(error.kind(), Kind::CredentialLocked);
    world.store.close().await;

    // Nor does it help to say that another key wraps it.
    let mut raw = connect(&path).await;
    sqlx::query("update projects set wrapped_by = 'new'")
        .execute(&mut raw)
        .await
        .unwrap();
    raw.close().await.unwrap();
    let store = open(&path, &new.then(&old).unwrap()).await.store;
    let retirement = store.retire_key("old", now).await.unwrap();
    assert_eq!(retirement, Retirement::Wraps(1));
    store.close().await;
}

#[cfg(unix)]
#[tokio::test]
async fn its_files_are_their_owners_alone() {
    use std::os::unix::fs::PermissionsExt;

    let folder = tempfile::tempdir().unwrap();
    let world = open(&folder.path().join("store.db"), &ring("a")).await;
    world.store.claim().unwrap();
    let names: Vec<_> = files(&folder).into_keys().collect();
    let expected = ["store.db", "store.db-shm", "store.db-wal", "store.db.lock"];
    assert_eq!(names, expected);
    for name in names {
        let mode = fs::metadata(folder.path().join(&name)).unwrap();
        assert_eq!(mode.permissions().mode() & 0o777, 0o600, "{name}");
    }
}

#[tokio::test]
async fn a_moved_ciphertext_does_not_open_and_is_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let (path, ring) = (folder.path().join("store.db"), ring("a"));
    let world = open(&path, &ring).await;
    let one = furnish(&world, "one").await;
    let two = furnish(&world, "two").await;
    world.tick();
    let sibling = world.account(&one.project).await;
    world.store.close().await;
    let pristine = fs::read(&path).unwrap();

    let accounts = [
        one.id.to_string(),
        two.id.to_string(),
        sibling.id.to_string(),
    ];
    for theft in [
        // A credential to another account of the project, or of another project.
        "update credentials set sealed =
             (select sealed from credentials where account = $3) where account = $1",
        "update credentials set sealed =
             (select sealed from credentials where account = $2) where account = $1",
        // An old generation in the place of a new one, as from a backup.
        "update credentials set generation = generation + 1 where account = $1 and $2 <> $3",
        // With the whole data key of the other project.
        "update projects set sealed_data_key =
             (select sealed_data_key from projects where id = 'two'),
             data_key_id = (select data_key_id from projects where id = 'two')
         where id = 'one' and $1 <> $2 and $2 <> $3",
        // One bit.
        "update credentials set sealed = substr(sealed, 1, 20) || x'00' || substr(sealed, 22)
         where account = $1 and $2 <> $3",
    ] {
        let stolen = rewrite(&path, &pristine, theft, &accounts).await;
        let store = open(&path, &ring).await.store;
        let error = store.credential(&one.project, one.id).await.unwrap_err();
        assert_eq!(error.kind(), Kind::CredentialLocked, "{theft}");
        // What is locked is not overwritten either.
        let brought = credential();
        let update = AccountUpdate {
            change: &AccountChange::default(),
            by: Actor::Operator,
            credential: Some(NewCredential {
                grant: CredentialRecord::personal(&brought),
                identity: &one.identity,
            }),
        };
        let now = one.created_at;
        let outcome = store
            .update_account(&one.project, one.id, update, now)
            .await;
        assert_eq!(
            outcome.unwrap_err().kind(),
            Kind::CredentialLocked,
            "{theft}"
        );
        assert!(!format!("{error:?}").contains(TOKEN));
        store.close().await;
        assert!(fs::read(&path).unwrap() == stolen, "{theft}");
    }

    for (theft, field) in [
        (
            "update blobs set sealed = (select sealed from blobs where account = $2
                 and field = 'directory' and name = '2')
             where account = $1 and field = 'directory' and name = '2' and $1 <> $3",
            "directory",
        ),
        (
            "update blobs set sealed = (select sealed from blobs where account = $1
                 and field = 'directory' and name = '1')
             where account = $1 and field = 'directory' and name = '2' and $2 <> $3",
            "directory",
        ),
        (
            "update blobs set sealed = (select sealed from blobs where account = $1
                 and field = 'candidate')
             where account = $1 and field = 'evidence' and $2 <> $3",
            "evidence",
        ),
        (
            "update accounts set sealed_identity = sealed_profile where id = $1 and $2 <> $3",
            "account",
        ),
        (
            "update accounts set sealed_profile =
                 (select sealed_profile from accounts where id = $3)
             where id = $1 and $1 <> $2",
            "account",
        ),
    ] {
        let stolen = rewrite(&path, &pristine, theft, &accounts).await;
        let store = open(&path, &ring).await.store;
        let error = match field {
            "directory" => store.latest_directory(&one.project, one.id).await.err(),
            "evidence" => store.evidence(&one.project, one.id).await.err(),
            _ => {
                // What is locked is not deleted either.
                let error = store
                    .delete_account(&one.project, one.id, Actor::Operator)
                    .await
                    .err();
                assert_eq!(error.unwrap().kind(), Kind::CredentialLocked);
                store.account(&one.project, one.id).await.err()
            }
        };
        assert_eq!(error.unwrap().kind(), Kind::CredentialLocked, "{theft}");
        store.close().await;
        assert!(fs::read(&path).unwrap() == stolen, "{theft}");
    }
}

/// Puts `pristine` back, changes one row behind the store's back, and gives the file's bytes.
async fn rewrite(
    path: &Path,
    pristine: &[u8],
    statement: &'static str,
    accounts: &[String; 3],
) -> Vec<u8> {
    fs::write(path, pristine).unwrap();
    let mut raw = connect(path).await;
    let mut query = sqlx::query(statement);
    for account in accounts {
        query = query.bind(account);
    }
    let changed = query.execute(&mut raw).await.unwrap();
    assert_eq!(changed.rows_affected(), 1, "{statement}");
    raw.close().await.unwrap();
    fs::read(path).unwrap()
}

async fn connect(path: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(path);
    options.connect().await.unwrap()
}

#[tokio::test]
async fn with_the_wrong_keys_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let (path, right) = (folder.path().join("store.db"), ring("a"));
    let world = open(&path, &right).await;
    furnish(&world, "own").await;

    // As a kill would leave it: the newest of it only in the log.
    let killed = tempfile::tempdir().unwrap();
    for name in ["store.db", "store.db-wal"] {
        fs::copy(folder.path().join(name), killed.path().join(name)).unwrap();
    }
    world.store.close().await;

    let before = files(&folder);
    let before_killed = files(&killed);
    assert_eq!(before.keys().collect::<Vec<_>>(), ["store.db"]);
    for wrong in [ring("a"), ring("b")] {
        let error = try_open(&path, &wrong).await.err().unwrap();
        assert!(matches!(error, OpenError::WrongKeys { .. }), "{error}");
        let says = "which is sealed with key `a`: the ring";
        assert!(error.to_string().contains(says), "{error}");
        assert!(files(&folder) == before);

        let error = try_open(&killed.path().join("store.db"), &wrong).await;
        let error = error.err().unwrap();
        assert!(matches!(error, OpenError::WrongKeys { .. }), "{error}");
        for (name, bytes) in &before_killed {
            assert!(&files(&killed)[name] == bytes, "{name}");
        }
    }
    for path in [&path, &killed.path().join("store.db")] {
        let store = open(path, &right).await.store;
        assert_eq!(store.projects().await.unwrap().len(), 1);
        store.close().await;
    }
}

#[tokio::test]
async fn a_key_is_changed_step_by_step() {
    let folder = tempfile::tempdir().unwrap();
    rotation::a_key_is_changed_step_by_step(&url(&folder.path().join("store.db"))).await;
}

#[tokio::test]
async fn who_lacks_the_active_key_refuses_until_it_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let url = url(&folder.path().join("store.db"));
    rotation::who_lacks_the_active_key_refuses_until_it_has_it(&url).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_change_under_load() {
    let folder = tempfile::tempdir().unwrap();
    rotation::keys_change_under_load(&url(&folder.path().join("store.db"))).await;
}

#[tokio::test]
async fn one_process_serves_and_others_may_look_in() {
    let folder = tempfile::tempdir().unwrap();
    let (path, ring) = (folder.path().join("store.db"), ring("a"));
    let server = open(&path, &ring).await;
    server.store.claim().unwrap();
    server.store.claim().unwrap();

    let beside = open(&path, &ring).await;
    let error = beside.store.claim().unwrap_err();
    assert!(matches!(error, OpenError::InUse { .. }), "{error}");
    let project = beside.project("made-beside").await;
    assert!(server.store.project_exists(&project).await.unwrap());

    drop(server);
    beside.store.claim().unwrap();
}

#[tokio::test]
async fn a_store_that_is_closed_may_be_served_by_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let (path, ring) = (folder.path().join("store.db"), ring("a"));
    let first = open(&path, &ring).await;
    first.store.claim().unwrap();
    // Somebody still holds a clone, but nothing of it can write any more.
    first.store.close().await;
    open(&path, &ring).await.store.claim().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn many_may_open_a_new_file_at_once() {
    for _ in 0..5 {
        let folder = tempfile::tempdir().unwrap();
        contract::many_may_open_it_at_once(&url(&folder.path().join("store.db"))).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_stores_that_write_to_one_file_wait_for_each_other() {
    let folder = tempfile::tempdir().unwrap();
    contract::two_stores_write_to_it(&url(&folder.path().join("store.db"))).await;
}

#[tokio::test]
async fn what_cannot_be_opened_says_why_and_stays_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let ring = ring("a");
    let open = async |name: &str| {
        let error = try_open(&folder.path().join(name), &ring).await;
        error.err().unwrap()
    };

    fs::create_dir(folder.path().join("folder")).unwrap();
    let error = open("folder").await;
    assert!(matches!(error, OpenError::Io { .. }), "{error}");
    let error = open("absent/store.db").await;
    assert!(matches!(error, OpenError::Io { .. }), "{error}");

    let text = b"This is a letter, and not a database of anybody's. ".repeat(100);
    fs::write(folder.path().join("letter"), &text).unwrap();
    let error = open("letter").await;
    assert!(matches!(error, OpenError::Foreign { .. }), "{error}");
    assert_eq!(fs::read(folder.path().join("letter")).unwrap(), text);

    fs::write(folder.path().join("others"), "").unwrap();
    let mut raw = connect(&folder.path().join("others")).await;
    sqlx::query("create table recipes (name text)")
        .execute(&mut raw)
        .await
        .unwrap();
    raw.close().await.unwrap();
    let before = fs::read(folder.path().join("others")).unwrap();
    let error = open("others").await;
    assert!(matches!(error, OpenError::Foreign { .. }), "{error}");
    assert_eq!(fs::read(folder.path().join("others")).unwrap(), before);

    for url in [
        "mysql://localhost/rolecall",
        "/var/lib/rolecall.db",
        "sqlite://",
        "sqlite://:memory:",
        "sqlite://store.db?mode=memory",
    ] {
        let error = Store::open(url, ring.clone(), Clock::system()).await;
        let error = error.err().unwrap().to_string();
        let says = "must be sqlite:// and the path of a file";
        assert!(error.contains(says), "{url}: {error}");
    }
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (path, ring) = (folder.path().join("store.db"), ring("a"));
    open(&path, &ring).await.store.close().await;
    let mut raw = connect(&path).await;
    sqlx::query(
        "insert into _sqlx_migrations
             (version, description, success, checksum, execution_time)
         values (9999, 'from the future', true, x'00', 0)",
    )
    .execute(&mut raw)
    .await
    .unwrap();
    raw.close().await.unwrap();
    let before = fs::read(&path).unwrap();
    let error = try_open(&path, &ring).await.err().unwrap();
    assert!(matches!(error, OpenError::Newer { .. }), "{error}");
    let url = format!("sqlite://{}", path.display());
    let error = Store::inspect(&url, ring.clone()).await.err().unwrap();
    assert!(matches!(error, OpenError::Newer { .. }), "{error}");
    assert!(fs::read(&path).unwrap() == before);
}

#[tokio::test]
async fn a_database_is_looked_at_without_being_made_or_changed() {
    let folder = tempfile::tempdir().unwrap();
    let (path, ring) = (folder.path().join("store.db"), ring("a"));
    let url = format!("sqlite://{}", path.display());
    let found = Store::inspect(&url, ring.clone()).await.unwrap();
    assert_eq!(found, Inspection::Absent);
    assert!(!path.exists());

    open(&path, &ring).await.store.close().await;
    let found = Store::inspect(&url, ring.clone()).await.unwrap();
    let Inspection::Current { migration } = found else {
        panic!("{found:?}");
    };
    // As an older version left it.
    let mut raw = connect(&path).await;
    let last = sqlx::query("delete from _sqlx_migrations where version = $1").bind(migration);
    last.execute(&mut raw).await.unwrap();
    let (last_but_one,): (i64,) = sqlx::query_as("select max(version) from _sqlx_migrations")
        .fetch_one(&mut raw)
        .await
        .unwrap();
    raw.close().await.unwrap();
    let before = fs::read(&path).unwrap();
    let behind = Inspection::Behind {
        migration: last_but_one,
        newest: migration,
    };
    assert_eq!(Store::inspect(&url, ring.clone()).await.unwrap(), behind);
    assert!(fs::read(&path).unwrap() == before);

    // It can be backed up before it is brought up to date, and the copy is what it was.
    let copy = folder.path().join("copy.db");
    fs::File::create_new(&copy).unwrap();
    Store::backup(&url, &ring, &copy).await.unwrap();
    let copied = format!("sqlite://{}", copy.display());
    assert_eq!(Store::inspect(&copied, ring.clone()).await.unwrap(), behind);
    assert!(fs::read(&path).unwrap() == before);
}
