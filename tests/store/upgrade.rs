//! A database of the version before, on SQLite and on PostgreSQL: brought up to date once, and never
//! again. Its rows are `fixtures/before.json`, as that version wrote them.

use std::{collections::BTreeMap, fs, path::Path};

use rolecall::{
    clock::Clock,
    crypto::{ApiKeySecret, KeyRing},
    error::Kind,
    model::{
        accounts::Credential,
        audit_log::{Actor, AuditAction, AuditFilter},
        id::{AccountId, ProjectId},
    },
    store::{BeginRefreshResult, Inspection, OpenError, Store, Trigger, Verified},
};
use secrecy::ExposeSecret;
use serde::Deserialize;
use sqlx::{ConnectOptions, Connection, PgConnection, sqlite::SqliteConnectOptions};

use crate::{
    schema::Schema,
    world::{TOKEN, World, exposed, project, start},
};

const MIGRATIONS: [&str; 7] = [
    include_str!("../../src/store/migrations/0001_init.sql"),
    include_str!("../../src/store/migrations/0002_replicas.sql"),
    include_str!("../../src/store/migrations/0003_budgets.sql"),
    include_str!("../../src/store/migrations/0004_audit.sql"),
    include_str!("../../src/store/migrations/0005_linking.sql"),
    include_str!("../../src/store/migrations/0006_retired.sql"),
    include_str!("../../src/store/migrations/0007_held_walks.sql"),
];

const OWN_MIGRATIONS: &str = "create table _sqlx_migrations (
    version bigint primary key, description text not null,
    installed_on timestamp not null default current_timestamp, success boolean not null,
    checksum bytea not null, execution_time bigint not null)";

#[derive(Deserialize)]
struct Fixture {
    ring: String,
    ids: BTreeMap<String, String>,
    journal: Journaled,
    tables: BTreeMap<String, Table>,
}

#[derive(Deserialize)]
struct Journaled {
    node: String,
    file: String,
    bytes: String,
}

#[derive(Deserialize)]
struct Table {
    columns: Vec<(String, String)>,
    rows: Vec<Vec<serde_json::Value>>,
}

impl Fixture {
    fn read() -> Self {
        serde_json::from_str(include_str!("fixtures/before.json")).unwrap()
    }

    fn keys(&self) -> KeyRing {
        KeyRing::parse(&self.ring).unwrap()
    }

    fn account(&self, name: &str) -> AccountId {
        self.ids[name].parse().unwrap()
    }

    /// The whole database as statements.
    fn statements(&self, is_sqlite: bool) -> String {
        let mut all = format!("{}; {OWN_MIGRATIONS};", MIGRATIONS.join(";"));
        let order = [
            "_sqlx_migrations",
            "key_checks",
            "projects",
            "api_keys",
            "connector_profiles",
            "accounts",
            "credentials",
            "audit_log",
            "audit_heads",
        ];
        for table in order {
            let Table { columns, rows } = &self.tables[table];
            let names: Vec<_> = columns.iter().map(|(name, _)| name.as_str()).collect();
            for row in rows {
                let values: Vec<_> = row
                    .iter()
                    .zip(columns)
                    .map(|(value, (_, of))| literal(value, of, is_sqlite))
                    .collect();
                all.push_str(&format!(
                    "insert into {table} ({}) values ({});",
                    names.join(", "),
                    values.join(", ")
                ));
            }
        }
        all
    }
}

fn literal(value: &serde_json::Value, of: &str, is_sqlite: bool) -> String {
    match (value, of) {
        (serde_json::Value::Null, _) => "null".to_owned(),
        (serde_json::Value::Number(number), "boolean") => match is_sqlite {
            true => number.to_string(),
            false => (number.as_i64() == Some(1)).to_string(),
        },
        (serde_json::Value::Number(number), _) => number.to_string(),
        (serde_json::Value::String(text), "bytea" | "blob") => match is_sqlite {
            true => format!("x'{}'", &text[1..]),
            false => format!("'\\x{}'", &text[1..]),
        },
        (serde_json::Value::String(text), _) => format!("'{}'", text.replace('\'', "''")),
        (other, _) => panic!("{other}"),
    }
}

async fn run(url: &str, statements: &str) {
    let statements = sqlx::AssertSqlSafe(statements.to_owned());
    if let Some(path) = url.strip_prefix("sqlite://") {
        let options = SqliteConnectOptions::new().filename(path);
        let options = options.create_if_missing(true).foreign_keys(false);
        let mut connection = options.connect().await.unwrap();
        let done = sqlx::raw_sql(statements).execute(&mut connection).await;
        done.unwrap();
        connection.close().await.unwrap();
    } else {
        let mut connection = PgConnection::connect(url).await.unwrap();
        let done = sqlx::raw_sql(statements).execute(&mut connection).await;
        done.unwrap();
        connection.close().await.unwrap();
    }
}

/// Runs a check on each database, filled by the version before.
async fn on_both(check: impl AsyncFn(&str, &Fixture)) {
    let fixture = Fixture::read();
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("store.db").display());
    run(&url, &fixture.statements(true)).await;
    check(&url, &fixture).await;
    if let Some(schema) = Schema::new().await {
        let url = schema.url();
        run(&url, &fixture.statements(false)).await;
        check(&url, &fixture).await;
    }
}

async fn open(url: &str, fixture: &Fixture) -> Result<Store, OpenError> {
    Store::open(url, fixture.keys(), Clock::skipping(start())).await
}

async fn upgrades(store: &Store, project: &ProjectId) -> usize {
    let filter = AuditFilter {
        action: Some(AuditAction::ProjectUpgraded),
        subject_id: None,
    };
    let found = store.audit_log(project, &filter, None, 100).await;
    found.unwrap().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_the_version_before_is_brought_up_to_date_once() {
    on_both(async |url, fixture| {
        let before = Store::inspect(url, fixture.keys()).await.unwrap();
        assert!(matches!(before, Inspection::Behind { .. }), "{before:?}");
        let store = open(url, fixture).await.unwrap();
        let (own, other) = (project("own"), project("other"));
        for (project, name) in [(&own, "personal"), (&other, "same")] {
            let id = fixture.account(name);
            let stored = store.credential(project, id).await.unwrap().unwrap();
            assert_eq!(exposed(&stored.credential), TOKEN, "{name}");
            let Credential::AccessToken(token) = &stored.credential else {
                panic!("{name} is personal");
            };
            let shared = store.held_elsewhere(project, id, token).await.unwrap();
            assert_eq!(shared, rolecall::store::HeldElsewhere::Yes, "{name}");
        }
        let id = fixture.account("of_profile");
        let stored = store.credential(&own, id).await.unwrap().unwrap();
        assert_eq!(exposed(&stored.credential), "canary-access-7");
        let now = Trigger::Now { generation: None };
        let begun = store.begin_refresh(&own, id, now).await.unwrap();
        let BeginRefreshResult::Here(intent) = begun else {
            panic!("{begun:?}");
        };
        let secret = intent.app.client_secret.expose_secret();
        assert_eq!(secret, "canary-app-secret");
        let id = fixture.account("own_app");
        let stored = store.credential(&own, id).await.unwrap().unwrap();
        assert_eq!(stored.own_app.unwrap().client_id, "the-app");
        let id = fixture.account("disconnected");
        assert!(store.credential(&own, id).await.unwrap().is_none());
        assert!(store.destination(&own, id).await.unwrap().is_some());
        let text = ApiKeySecret::parse(&fixture.ids["key"]).unwrap();
        let key = store.key(text.id()).await.unwrap().unwrap();
        assert!(text.matches(&key.digest) && key.revoked_at.is_none());
        let revoked = fixture.ids["revoked_key"].parse().unwrap();
        let revoked = store.key(revoked).await.unwrap().unwrap();
        assert!(revoked.revoked_at.is_some());
        for project in [&own, &other] {
            assert_eq!(upgrades(&store, project).await, 1);
            let whole = store.verify_audit(project, None).await.unwrap().verified;
            assert!(matches!(whole, Verified::Whole { .. }), "{whole:?}");
        }
        store.close().await;

        let after = Store::inspect(url, fixture.keys()).await.unwrap();
        assert!(matches!(after, Inspection::Current { .. }), "{after:?}");
        let store = open(url, fixture).await.unwrap();
        assert_eq!(upgrades(&store, &own).await, 1);
        store.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_upgrade_a_row_of_the_form_before_is_refused() {
    on_both(async |url, fixture| {
        let keep = "create table kept_credentials as select * from credentials;
                    create table kept_profiles as select * from connector_profiles;
                    create table kept_keys as select * from api_keys;
                    create table kept_checks as select * from key_checks;";
        run(url, keep).await;
        open(url, fixture).await.unwrap().close().await;
        run(
            url,
            "update credentials set sealed = (select sealed from kept_credentials k
                 where k.account = credentials.account);
             update connector_profiles set sealed_client_secret = (
                 select sealed_client_secret from kept_profiles k
                 where k.id = connector_profiles.id);
             update api_keys set mac = null;",
        )
        .await;
        let store = open(url, fixture).await.unwrap();
        let own = project("own");
        for name in ["personal", "own_app", "of_profile", "disconnected"] {
            let error = store.credential(&own, fixture.account(name)).await;
            assert_eq!(error.unwrap_err().kind(), Kind::CredentialLocked, "{name}");
        }
        let profile = fixture.ids["profile"].parse().unwrap();
        let error = store.oauth_app(&own, profile).await.unwrap_err();
        assert_eq!(error.kind(), Kind::CredentialLocked);
        let text = ApiKeySecret::parse(&fixture.ids["key"]).unwrap();
        assert_eq!(store.key(text.id()).await.unwrap(), None);
        assert_eq!(store.keys(&own, None, 10).await.unwrap(), []);
        store.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_format_that_was_put_back_upgrades_nothing_again() {
    on_both(async |url, fixture| {
        run(url, "create table kept as select * from key_checks").await;
        open(url, fixture).await.unwrap().close().await;
        let back = "update key_checks set sealed = (select sealed from kept
                        where kept.key_id = key_checks.key_id);";
        run(url, back).await;
        let inspected = Store::inspect(url, fixture.keys()).await.unwrap();
        assert!(matches!(inspected, Inspection::Behind { .. }));
        let refused = open(url, fixture).await.unwrap_err();
        assert!(matches!(refused, OpenError::KeyChecks { .. }), "{refused}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn emptied_known_answers_make_no_new_installation() {
    on_both(async |url, fixture| {
        open(url, fixture).await.unwrap().close().await;
        run(url, "delete from key_checks").await;
        let refused = Store::inspect(url, fixture.keys()).await.unwrap_err();
        assert!(matches!(refused, OpenError::KeyChecks { .. }), "{refused}");
        let ring = KeyRing::generate("new", &rolecall::crypto::Rng::system());
        for keys in [fixture.keys(), ring.unwrap()] {
            let refused = Store::open(url, keys, Clock::skipping(start())).await;
            let refused = refused.unwrap_err();
            assert!(matches!(refused, OpenError::KeyChecks { .. }), "{refused}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_a_process_that_serves_nothing_is_upgraded() {
    on_both(async |url, fixture| {
        let claimed = if let Some(path) = url.strip_prefix("sqlite://") {
            let lock = fs::File::create(Path::new(&format!("{path}.lock"))).unwrap();
            lock.lock().unwrap();
            Some(lock)
        } else {
            let alive = "insert into replicas (id, seen_at)
                         select 'old', cast(extract(epoch from now()) * 1000 as bigint)";
            run(url, alive).await;
            None
        };
        let refused = open(url, fixture).await.unwrap_err();
        assert!(
            matches!(refused, OpenError::InUse { .. } | OpenError::Served),
            "{refused}"
        );
        drop(claimed);
        run(url, "delete from replicas").await;
        let store = open(url, fixture).await.unwrap();
        assert_eq!(upgrades(&store, &project("own")).await, 1);
        store.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journaled_pair_of_the_version_before_is_stored_for_its_destination() {
    on_both(async |url, fixture| {
        let folder = tempfile::tempdir().unwrap();
        let journaled = &fixture.journal;
        let bytes: Vec<u8> = (0..journaled.bytes.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&journaled.bytes[at..at + 2], 16).unwrap())
            .collect();
        fs::write(folder.path().join("node"), &journaled.node).unwrap();
        fs::write(folder.path().join(&journaled.file), bytes).unwrap();
        let store = open(url, fixture).await.unwrap();
        let store = store.with_journal(folder.path().to_owned());
        store.join().await.unwrap();
        let recovered = store.recover_refreshes().await.unwrap().unwrap();
        assert_eq!((recovered.stored, recovered.superseded.len()), (1, 0));
        let id = fixture.account("own_app");
        let stored = store.credential(&project("own"), id).await.unwrap();
        assert_eq!(exposed(&stored.unwrap().credential), "canary-access-2");
        assert!(store.journaled_pairs().unwrap().is_empty());
        store.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_superseded_pair_of_the_version_before_can_still_be_revoked() {
    let fixture = Fixture::read();
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("store.db").display());
    run(&url, &fixture.statements(true)).await;
    let journal = folder.path().join("journal");
    fs::create_dir(&journal).unwrap();
    let bytes: Vec<u8> = (0..fixture.journal.bytes.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&fixture.journal.bytes[at..at + 2], 16).unwrap())
        .collect();
    fs::write(journal.join(&fixture.journal.file), bytes).unwrap();
    let world = World::open(&url, &fixture.keys()).await.unwrap();
    let store = world.store.clone().with_journal(journal);
    let (own, id) = (project("own"), fixture.account("own_app"));
    let now = world.clock.now();
    let left = store.disconnect_account(&own, id, Actor::Operator, now);
    left.await.unwrap().unwrap();
    let recovered = store.recover_refreshes().await.unwrap().unwrap();
    let [superseded] = recovered.superseded.as_slice() else {
        panic!("{recovered:?}");
    };
    let (pair, destination) = store.open_pair(superseded).await.unwrap().unwrap();
    assert_eq!(pair.access_token.expose_secret(), "canary-access-2");
    assert_eq!(destination.provider, "smartsheet");
    store.close().await;
}
