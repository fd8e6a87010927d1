//! What PostgreSQL must do besides the contract: opening, keys, what lies in its tables.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use rolecall::{
    clock::Clock,
    error::Kind,
    model::{
        audit_log::Actor,
        availability::Availability,
        walks::{Walk, WalkState},
    },
    store::{BeginWalkResult, CommitWalkResult, Inspection, OpenError, Store},
};
use sqlx::{Connection, PgConnection};

use crate::{
    contract,
    database::Database,
    pooler::Pooler,
    projects,
    relay::{Open, Relay},
    rotation,
    schema::Schema,
    world::{EMAIL, NAME, TOKEN, World, ends, furnish, holds, project, ring, spellings},
};

/// Every row of every table, as text.
async fn rows(schema: &Schema) -> Vec<String> {
    let mut connection = schema.connect().await;
    let tables: Vec<(String,)> = sqlx::query_as(
        "select cast(table_name as text) from information_schema.tables
         where table_schema = current_schema() order by table_name",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    let mut all = Vec::new();
    for (table,) in tables {
        let query = format!("select to_jsonb(t)::text from {table} t order by 1");
        let rows: Vec<(String,)> = sqlx::query_as(sqlx::AssertSqlSafe(query))
            .fetch_all(&mut connection)
            .await
            .unwrap();
        all.extend(rows.into_iter().map(|(row,)| format!("{table}: {row}")));
    }
    connection.close().await.unwrap();
    all
}

async fn run(connection: &mut PgConnection, statement: &'static str) {
    sqlx::raw_sql(statement).execute(connection).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_keeps_the_contract() {
    for (name, contract) in contract::ALL {
        let Some(schema) = Schema::new().await else {
            return;
        };
        println!("{name}");
        let world = World::open(&schema.url(), &ring("a")).await.unwrap();
        let store = world.store.clone();
        contract(world).await;
        store.close().await;
    }
}

#[tokio::test]
async fn a_database_is_looked_at_without_being_made_or_changed() {
    let Some(schema) = Schema::new().await else {
        return;
    };
    let (url, ours) = (schema.url(), ring("a"));
    let found = Store::inspect(&url, ours.clone()).await.unwrap();
    assert_eq!(found, Inspection::Absent);
    assert!(rows(&schema).await.is_empty());
    World::open(&url, &ours).await.unwrap().store.close().await;
    let before = rows(&schema).await;
    let found = Store::inspect(&url, ours.clone()).await.unwrap();
    assert!(matches!(found, Inspection::Current { .. }), "{found:?}");
    let error = Store::inspect(&url, ring("b")).await.err().unwrap();
    assert!(matches!(error, OpenError::WrongKeys { .. }), "{error}");
    assert_eq!(rows(&schema).await, before);
}

#[tokio::test]
async fn a_key_is_changed_step_by_step() {
    let Some(schema) = Schema::new().await else {
        return;
    };
    rotation::a_key_is_changed_step_by_step(&schema.url()).await;
}

#[tokio::test]
async fn a_key_is_not_used_before_every_process_has_it() {
    let Some(schema) = Schema::new().await else {
        return;
    };
    rotation::a_key_is_not_used_before_every_process_has_it(&schema.url()).await;
}

#[tokio::test]
async fn who_lacks_the_active_key_refuses_until_it_has_it() {
    let Some(schema) = Schema::new().await else {
        return;
    };
    rotation::who_lacks_the_active_key_refuses_until_it_has_it(&schema.url()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_change_under_load() {
    let Some(schema) = Schema::new().await else {
        return;
    };
    rotation::keys_change_under_load(&schema.url()).await;
}

#[tokio::test]
async fn nothing_but_its_log_is_left_of_a_deleted_project() {
    let Some(schema) = Schema::new().await else {
        return;
    };
    let world = World::open(&schema.url(), &ring("a")).await.unwrap();
    projects::furnish_everything(&world, "own").await;
    let now = world.clock.now();
    let own = project("own");
    let deleted = world.store.delete_project(&own, Actor::Operator, now).await;
    assert!(deleted.unwrap().is_some());
    world.store.close().await;
    let of_it = rows(&schema).await;
    let of_it = of_it.iter().filter(|row| row.contains("\"own\""));
    for row in of_it {
        let tables = ["audit_heads: ", "audit_log: ", "projects: "];
        assert!(tables.iter().any(|table| row.starts_with(table)), "{row}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_may_open_a_new_database_at_once() {
    let Some(schema) = Schema::new().await else {
        return;
    };
    contract::many_may_open_it_at_once(&schema.url()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_stores_that_write_to_one_database_wait_for_each_other() {
    let Some(schema) = Schema::new().await else {
        return;
    };
    contract::two_stores_write_to_it(&schema.url()).await;
}

#[tokio::test]
async fn with_the_wrong_keys_nothing_is_written() {
    let Some(schema) = Schema::new().await else {
        return;
    };
    let world = World::open(&schema.url(), &ring("a")).await.unwrap();
    furnish(&world, "own").await;
    world.store.close().await;
    let before = rows(&schema).await;
    for wrong in [ring("a"), ring("b")] {
        let error = World::open(&schema.url(), &wrong).await.err().unwrap();
        assert!(matches!(error, OpenError::WrongKeys { .. }), "{error}");
        assert_eq!(rows(&schema).await, before);
    }
}

#[tokio::test]
async fn no_secret_and_no_person_is_readable_in_any_row() {
    let Some(schema) = Schema::new().await else {
        return;
    };
    let world = World::open(&schema.url(), &ring("a")).await.unwrap();
    let account = furnish(&world, "own").await;
    let (key, row) = world.new_key(&account.project);
    world.store.insert_key(&row, Actor::Operator).await.unwrap();
    world.store.close().await;
    let secret = key.expose().rsplit('_').next().unwrap();
    let rows = rows(&schema).await;
    for canary in [TOKEN, EMAIL, NAME, "Canary", secret] {
        for form in spellings(canary) {
            for row in &rows {
                assert!(
                    !holds(row.as_bytes(), &form),
                    "{row} holds {canary} as {form}"
                );
            }
        }
    }
    // The search does find what is meant to lie open.
    assert!(rows.iter().any(|row| row.contains("customer-1")));
}

#[tokio::test]
async fn what_is_not_ours_is_left_as_it_was() {
    let Some(schema) = Schema::new().await else {
        return;
    };
    let mut raw = schema.connect().await;
    run(&mut raw, "create table recipes (name text)").await;
    let before = rows(&schema).await;
    let error = World::open(&schema.url(), &ring("a")).await.err().unwrap();
    assert!(matches!(error, OpenError::Foreign { .. }), "{error}");
    assert_eq!(rows(&schema).await, before);
    run(&mut raw, "drop table recipes").await;

    let keys = ring("a");
    World::open(&schema.url(), &keys).await.unwrap();
    run(
        &mut raw,
        "insert into _sqlx_migrations (version, description, success, checksum, execution_time)
         values (9999, 'from the future', true, '', 0)",
    )
    .await;
    raw.close().await.unwrap();
    let before = rows(&schema).await;
    let error = World::open(&schema.url(), &keys).await.err().unwrap();
    assert!(matches!(error, OpenError::Newer { .. }), "{error}");
    assert_eq!(rows(&schema).await, before);
}

#[tokio::test]
async fn a_replica_that_is_silent_for_long_is_taken_for_dead_and_its_walks_have_failed() {
    let Some(schema) = Schema::new().await else {
        return;
    };
    let slow = World::open(&schema.url(), &ring("a")).await.unwrap();
    let other = slow.another().await;
    slow.store.join().await.unwrap();
    other.store.join().await.unwrap();
    let own = slow.project("own").await;
    let account = slow.account(&own).await;
    let running = slow.new_walk(account.id, WalkState::Running);
    slow.store
        .begin_walk(&own, &running, Actor::System)
        .await
        .unwrap();

    other.store.write_heartbeat().await.unwrap();
    assert_eq!(other.store.reap_expired().await.unwrap(), 0);
    let mut raw = schema.connect().await;
    run(&mut raw, "update replicas set seen_at = seen_at - 20000").await;
    other.store.write_heartbeat().await.unwrap();
    assert_eq!(other.store.reap_expired().await.unwrap(), 1);

    // Whoever was only slow hears of it, cannot end that walk any more, and may go on.
    assert_eq!(slow.store.write_heartbeat().await.unwrap(), []);
    let ended = Walk {
        state: WalkState::Sealed,
        ..running
    };
    assert_eq!(
        slow.store.commit_walk(ends(&own, &ended)).await.unwrap(),
        CommitWalkResult::Overtaken
    );
    let next = slow.new_walk(account.id, WalkState::Running);
    let begun = slow
        .store
        .begin_walk(&own, &next, Actor::System)
        .await
        .unwrap();
    assert!(matches!(begun, BeginWalkResult::Here { .. }));
}

#[tokio::test]
async fn one_that_hangs_in_a_commit_keeps_nobody_else_from_living() {
    let Some(schema) = Schema::new().await else {
        return;
    };
    let dead = World::open(&schema.url(), &ring("a")).await.unwrap();
    let other = dead.another().await;
    dead.store.join().await.unwrap();
    other.store.join().await.unwrap();
    let own = dead.project("own").await;
    let account = dead.account(&own).await;
    let running = dead.new_walk(account.id, WalkState::Running);
    dead.store
        .begin_walk(&own, &running, Actor::System)
        .await
        .unwrap();

    // As a process leaves it that was frozen in the middle of its commit.
    let mut frozen = schema.connect().await;
    run(&mut frozen, "begin; update walks set upstream_calls = 1").await;
    let mut raw = schema.connect().await;
    run(&mut raw, "update replicas set seen_at = seen_at - 20000").await;
    other.store.write_heartbeat().await.unwrap();
    let error = other.store.reap_expired().await.unwrap_err();
    assert_eq!(error.kind(), Kind::StoreUnavailable);
    other.store.write_heartbeat().await.unwrap();
    let newcomer = dead.another().await;
    assert_eq!(newcomer.store.join().await.unwrap(), 0);
    run(&mut frozen, "rollback").await;
    assert_eq!(other.store.reap_expired().await.unwrap(), 1);
}

#[tokio::test]
async fn connections_that_the_server_ends_are_replaced() {
    let Some(schema) = Schema::new().await else {
        return;
    };
    let world = World::open(&schema.url(), &ring("a")).await.unwrap();
    let own = world.project("own").await;
    let account = world.account(&own).await;
    let mut raw = schema.connect().await;
    for _ in 0..3 {
        run(
            &mut raw,
            "select pg_terminate_backend(pid) from pg_stat_activity
             where application_name = current_schema() and pid <> pg_backend_pid()",
        )
        .await;
        let found = world.store.account(&own, account.id).await.unwrap();
        assert_eq!(found.as_ref(), Some(&account));
        world.account(&own).await;
    }
    assert_eq!(world.store.accounts(&own).await.unwrap().len(), 4);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named_without_the_password() {
    for (url, says) in [
        (
            "postgres://ada:s3cret@127.0.0.1:1/rolecall",
            "the PostgreSQL database rolecall at 127.0.0.1:1 cannot be opened",
        ),
        (
            "postgres://ada:s3cret@127.0.0.1:port/rolecall",
            "or postgres:// and user@host:port/database",
        ),
    ] {
        let error = Store::open(url, ring("a"), Clock::system()).await;
        let error = error.err().unwrap().to_string();
        assert!(error.contains(says), "{error}");
        assert!(!error.contains("s3cret"), "{error}");
    }
}

/// Writes again and again until one is taken, and tells how long that took.
async fn writes_are_back(world: &World) -> Duration {
    let clock = Clock::system();
    let began_at = clock.monotonic();
    let written = async { while world.store.write_heartbeat().await.is_err() {} };
    tokio::time::timeout(Duration::from_secs(30), written)
        .await
        .expect("writes are back");
    clock.monotonic() - began_at
}

#[tokio::test]
async fn after_a_failover_no_connection_to_the_read_only_server_is_used_again() {
    let Some(database) = Database::new().await else {
        return;
    };
    let world = World::open(&database.url(), &ring("a")).await.unwrap();
    let own = world.project("own").await;
    assert_eq!(world.store.availability(), Availability::Writable);

    // The pool is full of connections to a server that takes no writes.
    database.set_read_only(true).await;
    database.end_sessions().await;
    let reads = || join_all((0..20).map(|_| world.store.accounts(&own)));
    let _ = reads().await;
    assert!(reads().await.iter().all(Result::is_ok));
    let error = world.store.write_heartbeat().await.unwrap_err();
    assert_eq!(error.kind(), Kind::StoreUnavailable);
    assert_eq!(world.store.availability(), Availability::ReadOnly);

    // From now on a new connection leads to the new primary; nothing ends the old ones.
    database.set_read_only(false).await;
    let took = writes_are_back(&world).await;
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(world.store.availability(), Availability::Writable);
    for _ in 0..20 {
        world.account(&own).await;
    }
    world.store.close().await;
}

#[tokio::test]
async fn a_server_that_went_away_and_is_elsewhere_then_is_found_there() {
    let Some(database) = Database::new().await else {
        return;
    };
    let relay = Relay::to(database.address());
    let url = database.url_at(relay.address());
    let world = World::open(&url, &ring("a")).await.unwrap();
    let own = world.project("own").await;
    relay.lead_to(None, Open::End);
    let error = world.store.accounts(&own).await.unwrap_err();
    assert_eq!(error.kind(), Kind::StoreUnavailable);
    assert_eq!(world.store.availability(), Availability::Unreachable);
    relay.lead_to(Some(database.address()), Open::Stay);
    let took = writes_are_back(&world).await;
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert_eq!(world.store.availability(), Availability::Writable);
    world.store.close().await;
}

/// A burst of one project delays neither its neighbor, nor look-ups, nor the process's own work.
#[tokio::test(flavor = "multi_thread")]
async fn a_project_that_asks_too_much_waits_alone() {
    const BURST: usize = 48;
    let Some(database) = Database::new().await else {
        return;
    };
    let relay = Relay::to(database.address());
    let url = database.url_at(relay.address());
    let world = World::open(&url, &ring("a")).await.unwrap();
    let noisy = world.project("noisy").await;
    let quiet = world.project("quiet").await;
    let no_key = world.new_account(&quiet).id.to_string().parse().unwrap();
    relay.delay(Duration::from_millis(100));
    let asked = Arc::new(AtomicUsize::new(0));
    let burst = (0..BURST).map(|_| {
        let (store, noisy, asked) = (world.store.clone(), noisy.clone(), Arc::clone(&asked));
        tokio::spawn(async move {
            let _ = store.for_project(&noisy).accounts(&noisy).await;
            asked.fetch_add(1, Ordering::SeqCst);
        })
    });
    let burst: Vec<_> = burst.collect();
    for _ in 0..3 {
        let neighbor = world.store.for_project(&quiet);
        neighbor.accounts(&quiet).await.unwrap();
        world.store.for_lookups().key(no_key).await.unwrap();
        world.store.for_unauthenticated().ping().await.unwrap();
        world.store.projects().await.unwrap();
    }
    assert!(asked.load(Ordering::SeqCst) < BURST);
    for each in burst {
        each.await.unwrap();
    }
    world.store.close().await;
}

#[tokio::test]
async fn an_ipv6_address_in_the_url_is_connected_to() {
    let Some(database) = Database::new().await else {
        return;
    };
    let Some(relay) = Relay::at("[::1]:0", database.address()) else {
        return;
    };
    let url = database.url_at(relay.address());
    assert!(url.contains("@[::1]:"), "{url}");
    let world = World::open(&url, &ring("a")).await.unwrap();
    world.project("own").await;
    world.store.close().await;
    Store::try_write(&url).await.unwrap();
    let found = Store::inspect(&url, ring("a")).await.unwrap_err();
    assert!(matches!(found, OpenError::WrongKeys { .. }), "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_pooler_that_pools_transactions_the_contract_is_kept() {
    // Those that look past the store need a connection that the pooler would refuse.
    const PARTS: [&str; 8] = [
        "a project is made once",
        "an account reads back whole",
        "one walk of an account runs at a time",
        "walks end with the replica that runs them",
        "versions are neither skipped nor taken twice",
        "no project sees another's rows",
        "a budget is given once, however many ask",
        "what is done is told",
    ];
    let Some(database) = Database::new().await else {
        return;
    };
    let pooler = Pooler::before(database.address());
    let url = database.url_at(pooler.address());
    let url = format!("{url}&pool_mode=transaction");
    let parts = contract::ALL
        .iter()
        .filter(|(name, _)| PARTS.contains(name));
    for (name, contract) in parts {
        println!("{name}");
        let world = World::open(&url, &ring("a")).await.unwrap();
        let store = world.store.clone();
        contract(world).await;
        store.close().await;
        database.end_sessions().await;
        let mut raw = PgConnection::connect(&database.url()).await.unwrap();
        run(
            &mut raw,
            "set client_min_messages = warning; drop schema public cascade; create schema public",
        )
        .await;
        raw.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_pooler_that_pools_transactions_is_noticed_where_the_url_does_not_name_it() {
    let Some(database) = Database::new().await else {
        return;
    };
    let ring = ring("a");
    let url = database.url_at(Pooler::before(database.address()).address());
    for name in ["one", "two", "three"] {
        let world = World::open(&url, &ring).await.unwrap();
        let own = world.project(name).await;
        for _ in 0..3 {
            world.account(&own).await;
            assert!(world.store.accounts(&own).await.is_ok());
        }
        world.store.close().await;
    }
    Store::try_write(&url).await.unwrap();
}

#[tokio::test]
async fn a_store_that_takes_no_writes_is_told_before_it_is_served() {
    let Some(database) = Database::new().await else {
        return;
    };
    let ring = ring("a");
    // Empty, and then ours.
    for _ in 0..2 {
        Store::try_write(&database.url()).await.unwrap();
        database.set_read_only(true).await;
        let error = Store::try_write(&database.url()).await.unwrap_err();
        assert!(matches!(error, OpenError::Unwritable { .. }), "{error}");
        assert!(error.to_string().contains("read-only"), "{error}");
        database.set_read_only(false).await;
        let world = World::open(&database.url(), &ring).await;
        world.unwrap().store.close().await;
    }
}

#[tokio::test]
async fn a_replica_that_died_before_the_date_was_set_back_is_taken_for_dead() {
    let Some(schema) = Schema::new().await else {
        return;
    };
    let dead = World::open(&schema.url(), &ring("a")).await.unwrap();
    let own = dead.project("own").await;
    let account = dead.account(&own).await;
    dead.store.join().await.unwrap();
    let walk = Walk {
        ended_at: None,
        ..dead.new_walk(account.id, WalkState::Running)
    };
    dead.store
        .begin_walk(&own, &walk, Actor::System)
        .await
        .unwrap();
    let other = dead.another().await;
    other.store.join().await.unwrap();
    let mut raw = schema.connect().await;
    run(&mut raw, "update replicas set seen_at = seen_at + 3600000").await;
    // One that lives would give another sign within this.
    other.store.write_heartbeat().await.unwrap();
    assert_eq!(other.store.reap_expired().await.unwrap(), 0);
    other.clock.advance(Duration::from_secs(11));
    other.store.write_heartbeat().await.unwrap();
    assert_eq!(other.store.reap_expired().await.unwrap(), 1);
}
