//! The audit log: what is told in it, that it is told with what was done or not at all, and that
//! nobody who can only write to the database changes it unseen.

use std::time::Duration;

use rolecall::{
    crypto::KeyRing,
    error::Kind,
    model::{
        accounts::{Account, AccountChange, AccountStatus, StatusReason},
        api_keys::KeyChange,
        audit_log::{Actor, AuditAction, AuditEntry, AuditFilter, Event, Subject, SubjectKind},
        id::ProjectId,
        walks::{Walk, WalkState},
    },
    store::{
        AccountState, AccountUpdate, AuditFault, CommitWalkResult, CredentialRecord, NewCredential,
        Store, Verified,
    },
};
use sqlx::{AssertSqlSafe, Connection, PgConnection, SqliteConnection};

use crate::{
    schema::Schema,
    world::{EMAIL, NAME, TOKEN, World, credential, ends, identity, project, ring},
};

const WHOLE: fn(u64) -> Verified = |entries| Verified::Whole { entries };

fn broken(entry: usize, fault: AuditFault) -> Verified {
    let entry = entry as u64;
    Verified::Broken { entry, fault }
}

async fn entries(store: &Store, project: &ProjectId) -> Vec<AuditEntry> {
    let filter = AuditFilter::default();
    let mut entries = store.audit_log(project, &filter, None, 10_000).await;
    let entries = entries.as_mut().unwrap();
    entries.reverse();
    std::mem::take(entries)
}

/// Actor, action, subject and detail of each entry, oldest first.
async fn told(store: &Store, project: &ProjectId) -> Vec<String> {
    let entries = entries(store, project).await;
    for (entry, seq) in entries.iter().zip(1..) {
        assert_eq!(entry.seq, seq);
    }
    let in_words = |entry: AuditEntry| {
        let Event {
            actor,
            action,
            subject,
            detail,
        } = entry.event;
        let words = detail.words().iter();
        let words: Vec<_> = words
            .map(|(name, word)| format!(" {name}={word}"))
            .collect();
        let subject = format!("{}:{}", subject.kind.as_str(), subject.id);
        format!("{actor} {action} {subject}{}", words.concat())
    };
    entries.into_iter().map(in_words).collect()
}

fn refused() -> StatusReason {
    StatusReason {
        code: Account::REAUTH_REQUIRED.to_owned(),
        description: "refused".to_owned(),
        timestamp: crate::world::start(),
    }
}

pub async fn what_is_done_is_told(world: World) {
    let World { store, clock, .. } = &world;
    let own = world.project("own").await;
    let (_, key) = world.new_key(&own);
    let by = Actor::ApiKey(key.id);
    store.insert_key(&key, Actor::Operator).await.unwrap();
    let change = KeyChange {
        label: Some(None),
        expires_at: Some(clock.now() + Duration::from_secs(9)),
    };
    store.update_key(&own, key.id, &change, by).await.unwrap();
    for _ in 0..2 {
        let revoked = store.revoke_key(&own, key.id, clock.now(), by).await;
        assert!(revoked.unwrap().is_some());
    }

    let account = world.new_account(&own);
    let id = account.id;
    store
        .insert_account(&account, &CredentialRecord::personal(&credential()), by)
        .await
        .unwrap();
    let change = AccountChange {
        origin_owner_name: Some(NAME.into()),
        label: Some(Some(EMAIL.into())),
        ..AccountChange::default()
    };
    let (token, anothers) = (credential(), identity("Another Canary"));
    let replaced = NewCredential {
        grant: CredentialRecord::personal(&token),
        identity: &anothers,
    };
    for (change, credential) in [
        (&change, None),
        (&AccountChange::default(), Some(replaced)),
        (&change, Some(replaced)),
    ] {
        let update = AccountUpdate {
            change,
            credential,
            by,
        };
        let updated = store.update_account(&own, id, update, clock.now()).await;
        updated.unwrap().unwrap();
    }
    let walk = world.new_walk(id, WalkState::Running);
    store.begin_walk(&own, &walk, Actor::System).await.unwrap();
    let tried = Event::new(Actor::ConnectSession(7), AuditAction::CredentialUsed, id);
    store.note(&own, tried).await.unwrap();
    // The last change of a state that is no news, or none at all, is not told.
    let (dead, active) = (AccountStatus::Error, AccountStatus::Active);
    let scope = StatusReason {
        code: "scope_missing".to_owned(),
        ..refused()
    };
    let later = StatusReason {
        timestamp: clock.now() + Duration::from_secs(1),
        ..refused()
    };
    let other = identity("Somebody Else");
    for (status, reasons, identity) in [
        (dead, vec![refused()], None),
        (dead, vec![later], None),
        (dead, vec![scope], None),
        (active, vec![], None),
        (active, vec![], None),
        (active, vec![], Some(&other)),
    ] {
        let state = AccountState {
            status,
            reasons: &reasons,
            identity,
        };
        let ended = Walk {
            state: WalkState::Failed,
            ..world.new_walk(id, WalkState::Failed)
        };
        let mut commit = ends(&own, &ended);
        commit.account_state = Some(state);
        store.commit_walk(commit).await.unwrap();
    }
    store.delete_account(&own, id, by).await.unwrap().unwrap();

    let expected = [
        "operator project.created project:own".to_owned(),
        format!(
            "operator api_key.created api_key:{} expires_at={} scopes=iam:read,admin",
            key.id,
            key.expires_at.unwrap()
        ),
        format!(
            "{by} api_key.updated api_key:{} changed=label expires_at={}",
            key.id,
            crate::world::start() + Duration::from_secs(9)
        ),
        format!("{by} api_key.revoked api_key:{}", key.id),
        format!("{by} account.linked account:{id} provider=smartsheet"),
        format!("{by} account.updated account:{id} changed=origin_owner_name,label"),
        format!("{by} credential.replaced account:{id}"),
        format!("{by} account.updated account:{id} changed=origin_owner_name,label"),
        format!("{by} credential.replaced account:{id}"),
        format!("system credential.used account:{id} walk={}", walk.id),
        format!("connect_session:7 credential.used account:{id}"),
        format!("system credential.reauth_required account:{id}"),
        format!("system account.updated account:{id} reason=scope_missing status=error"),
        format!("system account.updated account:{id} status=active"),
        format!("system account.updated account:{id} changed=identity"),
        format!("{by} account.purged account:{id}"),
    ];
    assert_eq!(told(store, &own).await, expected);
    for entry in entries(store, &own).await {
        assert!(entry.at <= clock.now());
    }
    let whole = WHOLE(expected.len() as u64);
    assert_eq!(
        store.verify_audit(&own, None).await.unwrap().verified,
        whole
    );
}

pub async fn what_is_not_done_is_not_told(world: World) {
    let World { store, clock, .. } = &world;
    let own = world.project("own").await;
    let other = world.project("other").await;
    let account = world.account(&own).await;
    let (_, key) = world.new_key(&own);
    let by = Actor::Operator;
    store.insert_key(&key, by).await.unwrap();
    let running = world.new_walk(account.id, WalkState::Running);
    store.begin_walk(&own, &running, by).await.unwrap();
    let before = (told(store, &own).await, told(store, &other).await);

    assert!(!store.create_project(&own, clock.now()).await.unwrap());
    let insert = store.insert_key(&key, by).await;
    assert_eq!(insert.unwrap_err().kind(), Kind::Internal);
    let insert = store
        .insert_account(&account, &CredentialRecord::personal(&credential()), by)
        .await;
    assert_eq!(insert.unwrap_err().kind(), Kind::Internal);
    let too_late = KeyChange {
        label: None,
        expires_at: Some(clock.now() + Duration::from_secs(999)),
    };
    let update = store.update_key(&own, key.id, &too_late, by).await;
    assert_eq!(update.unwrap_err().kind(), Kind::InvalidBody);
    let another = world.another().await;
    let next = world.new_walk(account.id, WalkState::Running);
    another.store.begin_walk(&own, &next, by).await.unwrap();
    let state = AccountState {
        status: AccountStatus::Error,
        reasons: &[refused()],
        identity: None,
    };
    let mut commit = ends(&own, &running);
    commit.account_state = Some(state);
    let committed = another.store.commit_walk(commit).await.unwrap();
    assert_eq!(committed, CommitWalkResult::Overtaken);
    commit.lineage = Some(9);
    let committed = store.commit_walk(commit).await.unwrap();
    assert_eq!(committed, CommitWalkResult::CredentialReplaced);

    // Nor what is asked of another project, in neither's log.
    let (id, now) = (account.id, clock.now());
    let change = KeyChange {
        label: Some(None),
        expires_at: None,
    };
    let update = AccountUpdate {
        change: &AccountChange {
            label: Some(None),
            ..AccountChange::default()
        },
        credential: None,
        by,
    };
    let foreign = store.update_key(&other, key.id, &change, by).await;
    assert!(foreign.unwrap().is_none());
    let foreign = store.revoke_key(&other, key.id, now, by).await;
    assert!(foreign.unwrap().is_none());
    let foreign = store.update_account(&other, id, update, now).await;
    assert!(foreign.unwrap().is_none());
    let foreign = store.delete_account(&other, id, by).await;
    assert!(foreign.unwrap().is_none());
    let foreign = store.begin_walk(&other, &next, by).await.map(drop);
    assert_eq!(foreign.unwrap_err().kind(), Kind::AccountNotFound);
    let foreign = store.set_account_state(&other, id, state, now).await;
    assert_eq!(foreign.unwrap_err().kind(), Kind::AccountNotFound);
    let event = Event::new(by, AuditAction::CredentialUsed, id);
    let nobody = store.note(&project("nobody"), event).await;
    assert_eq!(nobody.unwrap_err().kind(), Kind::NotFound);

    let after = (told(store, &own).await, told(store, &other).await);
    assert_eq!(after, before);
}

pub async fn it_is_read_by_pages_and_filters(world: World) {
    let store = &world.store;
    let own = world.project("own").await;
    let (one, two) = (world.account(&own).await.id, world.account(&own).await.id);
    world.account(&world.project("other").await).await;
    for id in [one, two, one] {
        let used = Event::new(Actor::System, AuditAction::CredentialUsed, id);
        store.note(&own, used).await.unwrap();
    }
    let list = async |action, subject: Option<&dyn ToString>, before, limit| -> Vec<u64> {
        let filter = AuditFilter {
            action,
            subject_id: subject.map(ToString::to_string),
        };
        let entries = store.audit_log(&own, &filter, before, limit).await;
        entries.unwrap().iter().map(|entry| entry.seq).collect()
    };
    assert_eq!(list(None, None, None, 9).await, [6, 5, 4, 3, 2, 1]);
    assert_eq!(list(None, None, None, 2).await, [6, 5]);
    assert_eq!(list(None, None, Some(5), 2).await, [4, 3]);
    assert!(list(None, None, Some(1), 2).await.is_empty());
    let used = Some(AuditAction::CredentialUsed);
    assert_eq!(list(used, None, None, 9).await, [6, 5, 4]);
    assert_eq!(list(used, None, Some(6), 1).await, [5]);
    assert_eq!(list(None, Some(&one), None, 9).await, [6, 4, 2]);
    assert_eq!(list(None, Some(&one), Some(6), 1).await, [4]);
    assert_eq!(list(used, Some(&two), None, 9).await, [5]);
    assert_eq!(list(used, Some(&own), None, 9).await, [] as [u64; 0]);
    assert_eq!(list(None, Some(&own), None, 9).await, [1]);
    assert!(store.verify_audit(&project("nobody"), None).await.is_err());
}

pub async fn many_may_write_it_at_once_and_verify_it_meanwhile(world: World) {
    let own = world.project("own").await;
    let replicas = [&world.another().await, &world.another().await, &world].map(Clone::clone);
    let writers: Vec<_> = (0..12)
        .map(|n: usize| {
            let (world, own) = (replicas[n % 3].clone(), own.clone());
            tokio::spawn(async move {
                for _ in 0..5 {
                    let account = world.account(&own).await;
                    let walk = world.new_walk(account.id, WalkState::Running);
                    let by = Actor::ConnectSession(n as u64);
                    world.store.begin_walk(&own, &walk, by).await.unwrap();
                    let (_, key) = world.new_key(&own);
                    world.store.insert_key(&key, by).await.unwrap();
                    let found = world.store.verify_audit(&own, None).await.unwrap().verified;
                    assert!(matches!(found, Verified::Whole { .. }), "{found:?}");
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let whole = WHOLE(1 + 12 * 5 * 3);
    assert_eq!(
        world.store.verify_audit(&own, None).await.unwrap().verified,
        whole
    );
    assert_eq!(told(&world.store, &own).await.len(), 181);
}

pub async fn a_log_of_many_pages_is_verified_whole(world: World) {
    let store = &world.store;
    let own = world.project("own").await;
    for n in 2..=502 {
        let subject = Subject::new(SubjectKind::Profile, n);
        let event = Event::new(Actor::System, AuditAction::ProfileUpdated, subject);
        store.note(&own, event).await.unwrap();
        if [499, 500, 501].contains(&n) {
            assert_eq!(
                store.verify_audit(&own, None).await.unwrap().verified,
                WHOLE(n)
            );
        }
    }
    assert_eq!(
        store.verify_audit(&own, None).await.unwrap().verified,
        WHOLE(502)
    );
}

/// Whoever can write to the database and has no key.
pub enum Intruder {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl Intruder {
    async fn run(&mut self, statements: &str) {
        let sql = sqlx::raw_sql(AssertSqlSafe(statements.to_owned()));
        let done = match self {
            Self::Sqlite(connection) => sql.execute(connection).await.map(drop),
            Self::Postgres(connection) => sql.execute(connection).await.map(drop),
        };
        if let Err(error) = done {
            panic!("{statements}: {error}");
        }
    }

    /// Remembers the log as it is.
    async fn remember(&mut self) {
        self.run(
            "create table log_before as select * from audit_log;
             create table heads_before as select * from audit_heads",
        )
        .await;
    }

    async fn restore(&mut self) {
        self.run(
            "delete from audit_log; insert into audit_log select * from log_before;
             delete from audit_heads; insert into audit_heads select * from heads_before",
        )
        .await;
    }

    /// Leaves of everything only the projects, in the tables of the version before the log.
    async fn go_back_to_migration_3(&mut self) {
        const KEPT: [&str; 3] = ["_sqlx_migrations", "kept_checks", "kept_projects"];
        self.run(
            "create table kept_checks as select key_id, sealed, created_at from key_checks;
             create table kept_projects as
                 select id, data_key_id, sealed_data_key, wrapped_by, created_at from projects;
             delete from _sqlx_migrations where version > 3",
        )
        .await;
        let (tables, cascade): (Vec<(String,)>, _) = match self {
            Self::Sqlite(connection) => {
                let sql = "pragma foreign_keys = off";
                sqlx::query(sql).execute(&mut *connection).await.unwrap();
                let sql = "select name from sqlite_master where type = 'table'";
                let tables = sqlx::query_as(sql).fetch_all(connection).await;
                (tables.unwrap(), "")
            }
            Self::Postgres(connection) => {
                let sql = "select cast(table_name as text) from information_schema.tables
                           where table_schema = current_schema()";
                let tables = sqlx::query_as(sql).fetch_all(connection).await;
                (tables.unwrap(), "cascade")
            }
        };
        for (table,) in tables {
            if !KEPT.contains(&table.as_str()) {
                self.run(&format!("drop table {table} {cascade}")).await;
            }
        }
        for migration in [
            include_str!("../../src/store/migrations/0001_init.sql"),
            include_str!("../../src/store/migrations/0002_replicas.sql"),
            include_str!("../../src/store/migrations/0003_budgets.sql"),
            "insert into key_checks select * from kept_checks; drop table kept_checks;
             insert into projects select * from kept_projects; drop table kept_projects",
        ] {
            self.run(migration).await;
        }
    }

    /// Bytes as this database spells them.
    fn bytes(&self, hex: &str) -> String {
        match self {
            Self::Sqlite(_) => format!("x'{hex}'"),
            Self::Postgres(_) => format!("'\\x{hex}'"),
        }
    }
}

/// Entries in the log that is tampered with.
const N: usize = 6;

/// A project `own` with [`N`] entries, and one `other` with 2.
async fn victims(world: &World) -> [ProjectId; 2] {
    let projects = [world.project("own").await, world.project("other").await];
    for _ in 2..=N {
        world.tick();
        world.account(&projects[0]).await;
    }
    world.account(&projects[1]).await;
    projects
}

async fn every_kind_of_tampering_is_found(world: World, mut intruder: Intruder) {
    use AuditFault::{Added, Changed, CutOff, HeadLost, Missing};

    let store = &world.store;
    let [own, other] = victims(&world).await;
    let is_whole = async || {
        assert_eq!(
            store.verify_audit(&own, None).await.unwrap().verified,
            WHOLE(N as u64)
        );
        assert_eq!(
            store.verify_audit(&other, None).await.unwrap().verified,
            WHOLE(2)
        );
    };
    is_whole().await;
    intruder.remember().await;
    let mut tampered = Vec::new();

    // Any column of any row.
    let zeros = intruder.bytes(&"00".repeat(32));
    for n in 1..=N {
        let next = n % N + 1;
        for change in [
            "at = at + 1".to_owned(),
            "at = -at".to_owned(),
            "actor = 'system'".to_owned(),
            "actor_id = '7'".to_owned(),
            "action = 'account.updated'".to_owned(),
            "subject = 'profile'".to_owned(),
            "subject_id = 'x' || subject_id".to_owned(),
            r#"detail = '{"provider":"smartsheet2"}'"#.to_owned(),
            // The same to whoever reads it, and yet not as it was written.
            "detail = detail || ' '".to_owned(),
            // Parts that are read together.
            "action = '', subject = action || subject".to_owned(),
            format!("tag = {zeros}"),
            format!("tag = {}", intruder.bytes("")),
            format!("tag = (select tag from log_before where project = 'own' and seq = {next})"),
        ] {
            let change =
                format!("update audit_log set {change} where project = 'own' and seq = {n}");
            tampered.push((change, broken(n, Changed)));
        }
        let moved =
            format!("update audit_log set seq = seq + 100 where project = 'own' and seq = {n}");
        let fault = if n == N { CutOff } else { Missing };
        tampered.push((moved, broken(n, fault)));
    }

    // Rows taken away, one in the middle or all from one on; with the head as it was, or set back
    // as well as one can.
    for n in 1..=N {
        let gone = format!("delete from audit_log where project = 'own' and seq = {n}");
        let fault = if n == N { CutOff } else { Missing };
        tampered.push((gone, broken(n, fault)));
        let tail = format!("delete from audit_log where project = 'own' and seq >= {n}");
        tampered.push((tail.clone(), broken(n, CutOff)));
        let before = n - 1;
        let set_back = format!(
            "{tail};
             update audit_heads set seq = {before}, tag = coalesce(
                 (select tag from audit_log where project = 'own' and seq = {before}), {zeros})
             where project = 'own'"
        );
        tampered.push((set_back, broken(n, HeadLost)));
        let headless = format!("{tail}; delete from audit_heads where project = 'own'");
        tampered.push((headless, broken(n, HeadLost)));
    }
    let from_other = "update audit_heads set (seq, tag, seal) =
             (select seq, tag, seal from heads_before where project = 'other')
         where project = 'own'";
    let all_is_other_s = format!(
        "delete from audit_log where project = 'own';
         insert into audit_log
             select 'own', seq, at, actor, actor_id, action, subject, subject_id, detail, tag
             from log_before where project = 'other';
         {from_other}"
    );
    tampered.push((all_is_other_s, broken(1, Changed)));

    // The head alone.
    for change in [
        "delete from audit_heads where project = 'own'".to_owned(),
        "update audit_heads set seq = seq + 1 where project = 'own'".to_owned(),
        "update audit_heads set seq = seq - 1 where project = 'own'".to_owned(),
        format!("update audit_heads set tag = {zeros} where project = 'own'"),
        format!("update audit_heads set seal = {zeros} where project = 'own'"),
        from_other.to_owned(),
    ] {
        tampered.push((change, broken(N + 1, HeadLost)));
    }

    // Two rows that trade places.
    for (one, two) in [(1, 2), (2, 5), (N - 1, N)] {
        let swap = format!(
            "update audit_log set seq = -1 where project = 'own' and seq = {one};
             update audit_log set seq = {one} where project = 'own' and seq = {two};
             update audit_log set seq = {two} where project = 'own' and seq = -1"
        );
        tampered.push((swap, broken(one, Changed)));
    }

    // Rows that were added: behind the last, before the first, in the place of another; copied,
    // made up, or of another project.
    let copied = |from: &str, row: usize, seq: i64| {
        format!(
            "insert into audit_log
                 select 'own', {seq}, at, actor, actor_id, action, subject, subject_id, detail, tag
                 from log_before where project = '{from}' and seq = {row}"
        )
    };
    let last = N as i64;
    for (from, row) in [("own", 2), ("own", N), ("other", 2)] {
        for (seq, entry) in [(last + 1, N + 1), (last + 7, N + 7), (0, 0), (-5, 0)] {
            tampered.push((copied(from, row, seq), broken(entry, Added)));
        }
    }
    for seq in [2, last] {
        let replaced = format!(
            "delete from audit_log where project = 'own' and seq = {seq}; {}",
            copied("other", 2, seq)
        );
        tampered.push((replaced, broken(seq as usize, Changed)));
    }
    let made_up = format!(
        "insert into audit_log values ('own', {}, 1, 'operator', '', 'api_key.created', 'api_key',
             'k', '{{}}', {zeros})",
        N + 1
    );
    tampered.push((made_up.clone(), broken(N + 1, Added)));
    let with_head = format!(
        "{made_up}; update audit_heads set seq = seq + 1, tag = {zeros} where project = 'own'"
    );
    // The head is lost, so the row is looked at as if it were ours.
    tampered.push((with_head, broken(N + 1, Changed)));

    assert_eq!(tampered.len(), N * 18 + 1 + 6 + 3 + 12 + 2 + 2);
    for (statements, expected) in &tampered {
        intruder.run(statements).await;
        let found = store.verify_audit(&own, None).await.unwrap().verified;
        assert_eq!(found, *expected, "{statements}");
        assert_eq!(
            store.verify_audit(&other, None).await.unwrap().verified,
            WHOLE(2)
        );
        intruder.restore().await;
    }
    is_whole().await;

    // A row that moves to another project is missing here and foreign there.
    for (row, here, there) in [
        (3, broken(3, Missing), broken(3, Added)),
        (N, broken(N, CutOff), broken(N, Added)),
    ] {
        let moved =
            format!("update audit_log set project = 'other' where project = 'own' and seq = {row}");
        intruder.run(&moved).await;
        assert_eq!(store.verify_audit(&own, None).await.unwrap().verified, here);
        assert_eq!(
            store.verify_audit(&other, None).await.unwrap().verified,
            there
        );
        intruder.restore().await;
    }
    is_whole().await;
}

/// Two logs that were once one, as after a backup was restored: the entries of either are true, and
/// those of one do not pass in the other.
async fn entries_of_another_past_are_found(world: World, mut intruder: Intruder) {
    let store = &world.store;
    let [own, _] = victims(&world).await;
    let go_on = async || {
        for _ in 0..2 {
            world.tick();
            world.account(&own).await;
        }
    };
    intruder.remember().await;
    go_on().await;
    intruder
        .run("create table other_past as select * from audit_log")
        .await;
    intruder.restore().await;
    go_on().await;
    intruder
        .run(
            "drop table log_before; create table log_before as select * from audit_log;
             drop table heads_before; create table heads_before as select * from audit_heads",
        )
        .await;
    let end = N + 2;
    assert_eq!(
        store.verify_audit(&own, None).await.unwrap().verified,
        WHOLE(end as u64)
    );
    for from_there in ["= 7", "= 8", ">= 7"] {
        let exchange = format!(
            "delete from audit_log where project = 'own' and seq {from_there};
             insert into audit_log
                 select * from other_past where project = 'own' and seq {from_there}"
        );
        intruder.run(&exchange).await;
        let found = store.verify_audit(&own, None).await.unwrap().verified;
        assert_eq!(found, broken(end, AuditFault::Changed), "{from_there}");
        intruder.restore().await;
    }
}

/// Work goes on whatever became of the log, and what was done to it is not covered up by that.
async fn a_break_stays_to_be_seen(world: World, mut intruder: Intruder) {
    use AuditFault::{Changed, Continued, Missing};

    let store = &world.store;
    let [own, other] = victims(&world).await;
    intruder.remember().await;
    let zeros = intruder.bytes(&"00".repeat(32));
    let cut = |n: usize| {
        format!(
            "delete from audit_log where project = 'own' and seq > {n};
             update audit_heads set seq = {n},
                 tag = (select tag from audit_log where project = 'own' and seq = {n})
             where project = 'own'"
        )
    };
    let made_up = format!(
        "insert into audit_log values ('own', {}, 1, 'operator', '', 'api_key.created', 'api_key',
             'k', '{{}}', {zeros})",
        N + 1
    );
    for (statements, first, after) in [
        (
            "delete from audit_heads".to_owned(),
            N + 1,
            broken(N + 1, Continued),
        ),
        (cut(3), 4, broken(4, Continued)),
        (cut(3).replace("= 3,", "= 5,"), 4, broken(4, Continued)),
        (
            "delete from audit_log where project = 'own'; delete from audit_heads".to_owned(),
            1,
            broken(1, Continued),
        ),
        (
            "update audit_heads set seal = tag".to_owned(),
            N + 1,
            broken(N + 1, Continued),
        ),
        (made_up, N + 2, broken(N + 1, Changed)),
        // With a head that is as it was, the next entry follows on what it names.
        (
            "delete from audit_log where project = 'own' and seq = 4".to_owned(),
            N + 1,
            broken(4, Missing),
        ),
    ] {
        intruder.run(&statements).await;
        for n in 0..3 {
            let (_, key) = world.new_key(&own);
            store.insert_key(&key, Actor::Operator).await.unwrap();
            let newest = entries(store, &own).await.pop().unwrap();
            assert_eq!(newest.seq, (first + n) as u64, "{statements}");
            assert_eq!(newest.event.subject.id, key.id.to_string());
            assert_eq!(
                store.verify_audit(&own, None).await.unwrap().verified,
                after,
                "{statements}"
            );
        }
        // Two in one transaction, too.
        let account = world.account(&own).await;
        let token = credential();
        let update = AccountUpdate {
            change: &AccountChange {
                label: Some(None),
                ..AccountChange::default()
            },
            credential: Some(NewCredential {
                grant: CredentialRecord::personal(&token),
                identity: &account.identity,
            }),
            by: Actor::Operator,
        };
        let (id, now) = (account.id, world.clock.now());
        store.update_account(&own, id, update, now).await.unwrap();
        assert_eq!(
            store.verify_audit(&own, None).await.unwrap().verified,
            after,
            "{statements}"
        );
        intruder.restore().await;
    }
    assert_eq!(
        store.verify_audit(&own, None).await.unwrap().verified,
        WHOLE(N as u64)
    );
    assert_eq!(
        store.verify_audit(&other, None).await.unwrap().verified,
        WHOLE(2)
    );
}

/// What an older version left behind has an empty log, and one that is taken away later is missed.
async fn projects_that_are_older_than_the_log_get_one(
    url: &str,
    ring: &KeyRing,
    mut intruder: Intruder,
) {
    let world = World::open(url, ring).await.unwrap();
    let own = crate::world::furnish(&world, "own").await.project;
    world.project("other").await;
    world.store.close().await;
    intruder.go_back_to_migration_3().await;

    let world = World::open(url, ring).await.unwrap();
    assert_eq!(
        world.store.verify_audit(&own, None).await.unwrap().verified,
        WHOLE(0)
    );
    let account = world.account(&own).await;
    let expected = format!(
        "operator account.linked account:{} provider=smartsheet",
        account.id
    );
    assert_eq!(told(&world.store, &own).await, [expected]);
    assert_eq!(
        world.store.verify_audit(&own, None).await.unwrap().verified,
        WHOLE(1)
    );
    world.store.close().await;

    intruder
        .run("delete from audit_log; delete from audit_heads")
        .await;
    let world = World::open(url, ring).await.unwrap();
    let lost = broken(1, AuditFault::HeadLost);
    assert_eq!(
        world.store.verify_audit(&own, None).await.unwrap().verified,
        lost
    );
    world.store.close().await;
}

async fn sqlite() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("store.db").display());
    (folder, url)
}

async fn in_file(url: &str) -> Intruder {
    Intruder::Sqlite(SqliteConnection::connect(url).await.unwrap())
}

#[tokio::test]
async fn in_sqlite_every_kind_of_tampering_is_found() {
    let (_folder, url) = sqlite().await;
    let world = World::open(&url, &ring("a")).await.unwrap();
    every_kind_of_tampering_is_found(world, in_file(&url).await).await;
}

#[tokio::test]
async fn in_postgresql_every_kind_of_tampering_is_found() {
    let Some(schema) = Schema::new().await else {
        return;
    };
    let world = World::open(&schema.url(), &ring("a")).await.unwrap();
    let intruder = Intruder::Postgres(schema.connect().await);
    every_kind_of_tampering_is_found(world, intruder).await;
}

#[tokio::test]
async fn in_sqlite_entries_of_another_past_are_found() {
    let (_folder, url) = sqlite().await;
    let world = World::open(&url, &ring("a")).await.unwrap();
    entries_of_another_past_are_found(world, in_file(&url).await).await;
}

#[tokio::test]
async fn in_postgresql_entries_of_another_past_are_found() {
    let Some(schema) = Schema::new().await else {
        return;
    };
    let world = World::open(&schema.url(), &ring("a")).await.unwrap();
    let intruder = Intruder::Postgres(schema.connect().await);
    entries_of_another_past_are_found(world, intruder).await;
}

#[tokio::test]
async fn in_sqlite_a_break_stays_to_be_seen() {
    let (_folder, url) = sqlite().await;
    let world = World::open(&url, &ring("a")).await.unwrap();
    a_break_stays_to_be_seen(world, in_file(&url).await).await;
}

#[tokio::test]
async fn in_postgresql_a_break_stays_to_be_seen() {
    let Some(schema) = Schema::new().await else {
        return;
    };
    let world = World::open(&schema.url(), &ring("a")).await.unwrap();
    let intruder = Intruder::Postgres(schema.connect().await);
    a_break_stays_to_be_seen(world, intruder).await;
}

#[tokio::test]
async fn in_sqlite_projects_that_are_older_than_the_log_get_one() {
    let (_folder, url) = sqlite().await;
    let ring = ring("a");
    World::open(&url, &ring).await.unwrap().store.close().await;
    let intruder = in_file(&url).await;
    projects_that_are_older_than_the_log_get_one(&url, &ring, intruder).await;
}

#[tokio::test]
async fn in_postgresql_projects_that_are_older_than_the_log_get_one() {
    let Some(schema) = Schema::new().await else {
        return;
    };
    let intruder = Intruder::Postgres(schema.connect().await);
    projects_that_are_older_than_the_log_get_one(&schema.url(), &ring("a"), intruder).await;
}

#[tokio::test]
async fn a_row_of_other_types_than_ours_is_found_and_read_by_nobody() {
    let (_folder, url) = sqlite().await;
    let world = World::open(&url, &ring("a")).await.unwrap();
    let store = &world.store;
    let [own, _] = victims(&world).await;
    let mut intruder = in_file(&url).await;
    intruder.remember().await;
    for change in [
        "at = 'yesterday'",
        "at = 1.5",
        "actor = x'ff00'",
        "detail = x'ff'",
        "tag = 'text'",
        "action = 7",
    ] {
        let change = format!("update audit_log set {change} where project = 'own' and seq = 3");
        intruder.run(&change).await;
        let found = store.verify_audit(&own, None).await.unwrap().verified;
        assert_eq!(found, broken(3, AuditFault::Changed), "{change}");
        intruder.restore().await;
    }
    for change in [
        "action = 'account.linked '",
        "actor = 'nobody'",
        "detail = '['",
        "at = 'x'",
    ] {
        let change = format!("update audit_log set {change} where project = 'own' and seq = 3");
        intruder.run(&change).await;
        let error = store
            .audit_log(&own, &AuditFilter::default(), None, 9)
            .await;
        let error = error.unwrap_err();
        assert_eq!(error.kind(), Kind::Internal);
        assert!(error.message().contains("audit log"), "{change}: {error}");
        intruder.restore().await;
    }
    for (change, expected) in [
        (
            "update audit_log set seq = 'x' where project = 'own' and seq = 3",
            broken(3, AuditFault::Missing),
        ),
        (
            "insert into audit_log values ('own', 'x', 1, '', '', '', '', '', '', '')",
            broken(N + 1, AuditFault::Added),
        ),
        (
            "update audit_heads set seq = 'x'",
            broken(N + 1, AuditFault::HeadLost),
        ),
        (
            "update audit_heads set seal = 'x'",
            broken(N + 1, AuditFault::HeadLost),
        ),
    ] {
        intruder.run(change).await;
        assert_eq!(
            store.verify_audit(&own, None).await.unwrap().verified,
            expected,
            "{change}"
        );
        intruder.restore().await;
    }
    // A head of another type stops nobody's work either.
    intruder.run("update audit_heads set seq = 'x'").await;
    world.account(&own).await;
    let continued = broken(N + 1, AuditFault::Continued);
    assert_eq!(
        store.verify_audit(&own, None).await.unwrap().verified,
        continued
    );
}

#[tokio::test]
async fn a_log_of_another_key_is_not_this_one_s() {
    // The same rows in a database of other keys: as if somebody had made up a whole log.
    let (_one, one) = sqlite().await;
    let (_two, two) = sqlite().await;
    let (mine, theirs) = (
        World::open(&one, &ring("a")).await.unwrap(),
        World::open(&two, &ring("a")).await.unwrap(),
    );
    victims(&mine).await;
    let [own, _] = victims(&theirs).await;
    theirs.store.close().await;
    let mut intruder = in_file(&one).await;
    let path = two.strip_prefix("sqlite://").unwrap();
    intruder
        .run(&format!(
            "attach database '{path}' as theirs;
             delete from audit_log; insert into audit_log select * from theirs.audit_log;
             delete from audit_heads; insert into audit_heads select * from theirs.audit_heads"
        ))
        .await;
    let found = mine.store.verify_audit(&own, None).await.unwrap().verified;
    assert_eq!(found, broken(1, AuditFault::Changed));
}

#[tokio::test]
async fn nothing_secret_and_nobody_s_name_is_told() {
    let (_folder, url) = sqlite().await;
    let world = World::open(&url, &ring("a")).await.unwrap();
    what_is_done_is_told(world.clone()).await;
    // A provider's word, too, is told only if it is one.
    let own = project("own");
    for word in [TOKEN, EMAIL, NAME, "Another Canary"].map(|word| format!("<{word}>")) {
        let subject = Subject::new(SubjectKind::Profile, 1);
        let event = Event::new(
            Actor::System,
            AuditAction::CredentialRefreshRefused,
            subject,
        );
        world
            .store
            .note(&own, event.with("reason", word))
            .await
            .unwrap();
    }
    let told = told(&world.store, &own).await.join("\n").to_lowercase();
    assert_eq!(told.matches("reason=other").count(), 4);
    for canary in [TOKEN, EMAIL, NAME, "canary", "example.com"] {
        assert!(!told.contains(&canary.to_lowercase()), "{canary}: {told}");
    }
}
