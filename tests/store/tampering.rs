//! What a writer to the database without the key ring can do, on both databases. Rows are changed
//! behind the store's back, and then the store must neither send a secret elsewhere, nor accept a key.

use rolecall::{
    error::Kind,
    model::{
        accounts::{Account, AccountChange, Credential, Endpoint},
        api_keys::KeyChange,
        audit_log::Actor,
        connector_profiles::{ConnectorProfile, OAuthApp, ProfileChange},
        id::ProjectId,
    },
    store::{
        AccountUpdate, BeginRefreshResult, CredentialRecord, HeldElsewhere, IssuedTo,
        NewAuthorization, NewCredential, StateOwner, Trigger,
    },
};
use secrecy::{ExposeSecret, SecretString};

use crate::{
    contract::Contract,
    credentials::{app, invitation, pair, profile, some_day},
    schema::Schema,
    world::{TOKEN, World, credential, ring},
};

/// Each is run on a database of its own.
const ALL: &[(&str, Contract)] = &[
    ("a changed endpoint locks the credential", |w| {
        Box::pin(a_changed_endpoint_locks_the_credential(w))
    }),
    ("a disconnected account keeps its destination", |w| {
        Box::pin(a_disconnected_account_keeps_its_destination(w))
    }),
    ("a credential is bound to its app", |w| {
        Box::pin(a_credential_is_bound_to_its_app(w))
    }),
    ("a changed profile locks its secret", |w| {
        Box::pin(a_changed_profile_locks_its_secret(w))
    }),
    ("a permitted change of a profile seals anew", |w| {
        Box::pin(a_permitted_change_of_a_profile_seals_anew(w))
    }),
    ("an app is used at its own endpoint alone", |w| {
        Box::pin(an_app_is_used_at_its_own_endpoint_alone(w))
    }),
    ("a sign in under way is bound to its app and browser", |w| {
        Box::pin(a_sign_in_under_way_is_bound_to_its_app_and_browser(w))
    }),
    ("an unreadable credential answers for no other", |w| {
        Box::pin(an_unreadable_credential_answers_for_no_other(w))
    }),
    ("a key that was not written here is none", |w| {
        Box::pin(a_key_that_was_not_written_here_is_none(w))
    }),
    ("a row from before its revocation is no key", |w| {
        Box::pin(a_row_from_before_its_revocation_is_no_key(w))
    }),
    ("a key is revoked with all that it made", |w| {
        Box::pin(a_key_is_revoked_with_all_that_it_made(w))
    }),
];

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_refuses_rows_that_were_tampered_with() {
    for (name, contract) in ALL {
        println!("{name}");
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("store.db").display());
        let world = World::open(&url, &ring("a")).await.unwrap();
        let store = world.store.clone();
        contract(world).await;
        store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_refuses_rows_that_were_tampered_with() {
    for (name, contract) in ALL {
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

const NOW: Trigger = Trigger::Now { generation: None };
const BY: Actor = Actor::Operator;

impl World {
    async fn linked_with(
        &self,
        project: &ProjectId,
        credential: &Credential,
        issued_to: IssuedTo<'_>,
    ) -> Account {
        let account = self.new_account(project);
        let grant = CredentialRecord {
            credential,
            issued_to,
            refresh_at: Some(some_day()),
            draft: None,
        };
        let store = &self.store;
        store.insert_account(&account, &grant, BY).await.unwrap();
        account
    }

    async fn linked_by_profile(&self, project: &ProjectId) -> (Account, ConnectorProfile) {
        let profile = profile(self, project);
        let secret = "canary-app-secret".into();
        let made = self.store.insert_profile(&profile, &secret, BY);
        made.await.unwrap();
        let pair = Credential::OAuth(pair(1, self));
        let account = self
            .linked_with(project, &pair, IssuedTo::Profile(profile.id))
            .await;
        (account, profile)
    }

    /// Whatever would send the account's secret somewhere, or write another in its place, is refused.
    async fn assert_locked(&self, account: &Account, why: &str) {
        let (store, project, id) = (&self.store, &account.project, account.id);
        let now = self.clock.now();
        let brought = credential();
        let update = AccountUpdate {
            change: &AccountChange::default(),
            by: BY,
            credential: Some(NewCredential {
                grant: CredentialRecord::personal(&brought),
                identity: &account.identity,
            }),
        };
        let sealed = self.sealed_of(account).await;
        for (what, error) in [
            ("read", store.credential(project, id).await.err()),
            ("destination", store.destination(project, id).await.err()),
            ("refresh", store.begin_refresh(project, id, NOW).await.err()),
            (
                "export",
                store.export_credential(project, id, BY).await.err(),
            ),
            (
                "replace",
                store.update_account(project, id, update, now).await.err(),
            ),
            (
                "disconnect",
                store.disconnect_account(project, id, BY, now).await.err(),
            ),
            ("purge", store.delete_account(project, id, BY).await.err()),
        ] {
            // What is never refreshed or exported is not opened for it.
            let is_opened = !matches!(
                (what, account.credential.as_ref()),
                ("refresh" | "export", None)
            );
            if is_opened || error.is_some() {
                let error = error.unwrap_or_else(|| panic!("{what} goes on: {why}"));
                assert_eq!(error.kind(), Kind::CredentialLocked, "{what}: {why}");
            }
        }
        assert_eq!(self.sealed_of(account).await, sealed, "{why}");
    }

    async fn sealed_of(&self, account: &Account) -> String {
        let query = format!(
            "select hex_of(sealed) from credentials where account = '{}'",
            account.id
        );
        self.text(&query).await
    }
}

/// Every way in which an account's row can name another destination.
fn other_destinations() -> [&'static str; 5] {
    [
        r#"endpoint = '{"region":"us"}'"#,
        r#"endpoint = '{"base_url":"https://attacker.example/2.0"}'"#,
        r#"endpoint = '{"base_url":"https://api.smartsheet.eu/2.0"}'"#,
        "endpoint = 'nonsense'",
        "provider = 'other'",
    ]
}

async fn a_changed_endpoint_locks_the_credential(world: World) {
    let own = world.project("own").await;
    let personal = world.account(&own).await;
    let pair = Credential::OAuth(pair(1, &world));
    let of_own_app = world
        .linked_with(&own, &pair, IssuedTo::OwnApp(&app()))
        .await;
    let (of_profile, _) = world.linked_by_profile(&own).await;
    for account in [&personal, &of_own_app, &of_profile] {
        let stored = world.store.account(&own, account.id).await.unwrap();
        let account = stored.unwrap();
        for change in other_destinations() {
            let id = account.id;
            let keep =
                format!("select provider || ' ' || endpoint from accounts where id = '{id}'");
            let before = world.text(&keep).await;
            world
                .run(&format!("update accounts set {change} where id = '{id}'"))
                .await;
            world.assert_locked(&account, change).await;
            let (provider, endpoint) = before.split_once(' ').unwrap();
            world
                .run(&format!(
                    "update accounts set provider = '{provider}', endpoint = '{endpoint}'
                     where id = '{id}'"
                ))
                .await;
            let opened = world.store.credential(&own, id).await.unwrap().unwrap();
            assert_eq!(opened.destination.endpoint, account.endpoint, "{change}");
        }
    }
}

async fn a_disconnected_account_keeps_its_destination(world: World) {
    let own = world.project("own").await;
    let account = world.account(&own).await;
    let (store, id) = (&world.store, account.id);
    let now = world.clock.now();
    let left = store.disconnect_account(&own, id, BY, now).await;
    left.unwrap().unwrap();
    let proven = store.destination(&own, id).await.unwrap().unwrap();
    assert_eq!(proven.endpoint, account.endpoint);
    for change in other_destinations() {
        world
            .run(&format!("update accounts set {change} where id = '{id}'"))
            .await;
        let error = store.destination(&own, id).await.unwrap_err();
        assert_eq!(error.kind(), Kind::CredentialLocked, "{change}");
        let brought = credential();
        let update = AccountUpdate {
            change: &AccountChange::default(),
            by: BY,
            credential: Some(NewCredential {
                grant: CredentialRecord::personal(&brought),
                identity: &account.identity,
            }),
        };
        let error = store.update_account(&own, id, update, now).await;
        assert_eq!(
            error.unwrap_err().kind(),
            Kind::CredentialLocked,
            "{change}"
        );
        world
            .run(&format!(
                r#"update accounts set provider = 'smartsheet', endpoint = '{{"region":"eu"}}'
                   where id = '{id}'"#
            ))
            .await;
    }
    // Neither does it come back by another state, nor a live one go by one.
    world
        .run(&format!(
            "update credentials set state = 'idle' where account = '{id}'"
        ))
        .await;
    let error = store.credential(&own, id).await.unwrap_err();
    assert_eq!(error.kind(), Kind::CredentialLocked);
}

async fn a_credential_is_bound_to_its_app(world: World) {
    let own = world.project("own").await;
    let (account, profile) = world.linked_by_profile(&own).await;
    let another = crate::credentials::profile(&world, &own);
    let secret = "canary-other-secret".into();
    let made = world.store.insert_profile(&another, &secret, BY);
    made.await.unwrap();
    let stored = world.store.account(&own, account.id).await.unwrap();
    let account = stored.unwrap();
    let (id, profile) = (account.id, profile.id);
    for (change, back) in [
        (
            format!(
                "update credentials set profile = '{}' where account = '{id}'",
                another.id
            ),
            format!("update credentials set profile = '{profile}' where account = '{id}'"),
        ),
        (
            format!("update credentials set profile = null where account = '{id}'"),
            format!("update credentials set profile = '{profile}' where account = '{id}'"),
        ),
        (
            format!("update connector_profiles set client_id = 'theirs' where id = '{profile}'"),
            format!("update connector_profiles set client_id = 'the-app' where id = '{profile}'"),
        ),
    ] {
        world.run(&change).await;
        world.assert_locked(&account, &change).await;
        world.run(&back).await;
        assert!(world.store.credential(&own, id).await.unwrap().is_some());
    }
}

/// Each column that says where or how a profile's secret is sent, with its value and another.
const OF_A_SECRET: [(&str, &str, &str); 6] = [
    ("provider", "smartsheet", "other"),
    ("client_id", "the-app", "theirs"),
    ("proof", "client_secret", "hash"),
    (
        "redirect_url",
        "https://example.org/callback",
        "https://attacker.example/",
    ),
    ("endpoint", r#"{"region":"eu"}"#, r#"{"region":"us"}"#),
    (
        "endpoint",
        r#"{"region":"eu"}"#,
        r#"{"base_url":"https://attacker.example/2.0"}"#,
    ),
];

async fn a_changed_profile_locks_its_secret(world: World) {
    let own = world.project("own").await;
    let (account, profile) = world.linked_by_profile(&own).await;
    let (store, id) = (&world.store, profile.id);
    let now = world.clock.now();
    for (column, value, other) in OF_A_SECRET {
        let set = |value: &str| {
            format!("update connector_profiles set {column} = '{value}' where id = '{id}'")
        };
        world.run(&set(other)).await;
        let locked = |error: Option<rolecall::error::Error>| {
            assert_eq!(error.unwrap().kind(), Kind::CredentialLocked, "{column}");
        };
        locked(store.oauth_app(&own, id).await.err());
        locked(store.begin_refresh(&own, account.id, NOW).await.err());
        // A new secret would be sent there, too.
        for change in [
            ProfileChange {
                client_secret: Some("canary-new-secret".into()),
                ..ProfileChange::default()
            },
            ProfileChange {
                redirect_url: Some("https://example.org/other".to_owned()),
                ..ProfileChange::default()
            },
        ] {
            locked(store.update_profile(&own, id, &change, BY, now).await.err());
        }
        // That it can be disabled depends on no secret.
        let disabled = ProfileChange {
            is_enabled: Some(false),
            ..ProfileChange::default()
        };
        let changed = store.update_profile(&own, id, &disabled, BY, now).await;
        assert!(changed.unwrap().is_some(), "{column}");
        world.run(&set(value)).await;
        let found = store.oauth_app(&own, id).await.unwrap().unwrap();
        assert_eq!(found.app.client_secret.expose_secret(), "canary-app-secret");
    }
}

async fn a_permitted_change_of_a_profile_seals_anew(world: World) {
    let own = world.project("own").await;
    let (account, profile) = world.linked_by_profile(&own).await;
    let (store, id) = (&world.store, profile.id);
    let now = world.clock.now();
    let secret_of = async |expected: &str| {
        let found = store.oauth_app(&own, id).await.unwrap().unwrap();
        assert_eq!(found.app.client_secret.expose_secret(), expected);
        found.app
    };
    let change = ProfileChange {
        redirect_url: Some("https://example.org/other".to_owned()),
        ..ProfileChange::default()
    };
    store
        .update_profile(&own, id, &change, BY, now)
        .await
        .unwrap();
    let app: OAuthApp = secret_of("canary-app-secret").await;
    assert_eq!(app.redirect_url, "https://example.org/other");
    let change = ProfileChange {
        proof: Some(rolecall::model::connector_profiles::ClientProof::Hash),
        client_secret: Some("canary-new-secret".into()),
        ..ProfileChange::default()
    };
    store
        .update_profile(&own, id, &change, BY, now)
        .await
        .unwrap();
    secret_of("canary-new-secret").await;
    let begun = store.begin_refresh(&own, account.id, NOW).await.unwrap();
    let BeginRefreshResult::Here(intent) = begun else {
        panic!("{begun:?}");
    };
    assert_eq!(
        intent.app.client_secret.expose_secret(),
        "canary-new-secret"
    );
    assert_eq!(intent.destination.endpoint, account.endpoint);
}

async fn an_app_is_used_at_its_own_endpoint_alone(world: World) {
    let own = world.project("own").await;
    let (_, profile) = world.linked_by_profile(&own).await;
    let pair = Credential::OAuth(pair(2, &world));
    let mut account = world.new_account(&own);
    account.endpoint = Endpoint::Region(rolecall::model::accounts::Region::Us);
    let grant = CredentialRecord {
        credential: &pair,
        issued_to: IssuedTo::Profile(profile.id),
        refresh_at: None,
        draft: None,
    };
    let refused = world.store.insert_account(&account, &grant, BY).await;
    assert_eq!(refused.unwrap_err().kind(), Kind::CredentialLocked);
}

async fn a_sign_in_under_way_is_bound_to_its_app_and_browser(world: World) {
    let own = world.project("own").await;
    let (_, profile) = world.linked_by_profile(&own).await;
    let store = &world.store;
    let session = invitation(&world, &own, 7);
    let made = store.insert_connect_session(&session, [7; 32], BY);
    made.await.unwrap();
    let now = world.clock.now();
    for (state, change) in [
        (1, "profile = null"),
        (2, "profile = 'another'"),
        (3, "connect_session = null"),
        (4, "browser_digest = state_digest"),
    ] {
        let new = NewAuthorization {
            state_digest: [state; 32],
            project: &own,
            profile: Some(profile.id),
            own_app: None,
            connect_session: Some(7),
            browser_digest: Some([9; 32]),
            verifier: &SecretString::from("canary-verifier"),
            meta: b"meta",
            expires_at: session.expires_at,
        };
        store.insert_authorization(&new, now).await.unwrap();
        world
            .run(&format!(
                "update authorizations set {change} where used_at is null"
            ))
            .await;
        let browser = match state {
            4 => [state; 32],
            _ => [9; 32],
        };
        let taken = store
            .take_authorization([state; 32], StateOwner::Browser(browser), now)
            .await;
        assert_eq!(
            taken.unwrap_err().kind(),
            Kind::CredentialLocked,
            "{change}"
        );
    }
}

async fn an_unreadable_credential_answers_for_no_other(world: World) {
    let (own, other) = (world.project("own").await, world.project("other").await);
    let (account, elsewhere) = (world.account(&own).await, world.account(&other).await);
    let store = &world.store;
    let asked = async |token: &str| {
        let token = SecretString::from(token);
        let answer = store.held_elsewhere(&own, account.id, &token).await;
        answer.unwrap()
    };
    assert_eq!(asked(TOKEN).await, HeldElsewhere::Yes);
    assert_eq!(asked("another").await, HeldElsewhere::No);
    // Whether it opens makes no difference: the digest tells.
    let of = elsewhere.id;
    world
        .run(&format!(
            "update credentials set sealed = sealed_profile from accounts
             where accounts.id = account and account = '{of}'"
        ))
        .await;
    assert!(store.credential(&other, of).await.is_err());
    assert_eq!(asked(TOKEN).await, HeldElsewhere::Yes);
    assert_eq!(asked("another").await, HeldElsewhere::No);
    world
        .run(&format!(
            "update credentials set token_digest = null where account = '{of}'"
        ))
        .await;
    assert_eq!(asked(TOKEN).await, HeldElsewhere::No);
    // Of a project whose data key does not open, nobody can tell.
    world
        .run("update projects set data_key_id = 'none' where id = 'other'")
        .await;
    assert_eq!(asked(TOKEN).await, HeldElsewhere::Unknown);
    let twin = world.account(&own).await;
    assert_eq!(asked(TOKEN).await, HeldElsewhere::Yes, "{}", twin.id);
}

async fn a_key_that_was_not_written_here_is_none(world: World) {
    let (own, other) = (world.project("own").await, world.project("other").await);
    let store = &world.store;
    let (_, key) = world.new_key(&own);
    store.insert_key(&key, BY).await.unwrap();
    let (_, others) = world.new_key(&other);
    store.insert_key(&others, BY).await.unwrap();
    let (_, revoked) = world.new_key(&own);
    store.insert_key(&revoked, BY).await.unwrap();
    let now = world.clock.now();
    store.revoke_key(&own, revoked.id, now, BY).await.unwrap();
    let (id, gone, theirs) = (key.id, revoked.id, others.id);
    world
        .run("create table kept as select * from api_keys")
        .await;
    for forged in [
        format!("update api_keys set scopes = 'iam:read admin accounts:write' where id = '{id}'"),
        format!("update api_keys set expires_at = null where id = '{id}'"),
        format!("update api_keys set expires_at = expires_at + 1 where id = '{id}'"),
        format!("update api_keys set project = 'other' where id = '{id}'"),
        format!(
            "update api_keys set digest = (select digest from kept where id = '{theirs}')
             where id = '{id}'"
        ),
        format!("update api_keys set mac = null where id = '{id}'"),
        format!(
            "update api_keys set mac = (select mac from kept where id = '{theirs}') where id = '{id}'"
        ),
        format!("update api_keys set label = 'renamed' where id = '{id}'"),
        format!("update api_keys set created_by = '{theirs}' where id = '{id}'"),
        format!("update api_keys set created_at = created_at - 1 where id = '{id}'"),
    ] {
        world.run(&forged).await;
        assert_eq!(store.key(id).await.unwrap(), None, "{forged}");
        for project in [&own, &other] {
            let listed = store.keys(project, None, 10).await.unwrap();
            assert!(listed.iter().all(|listed| listed.id != id), "{forged}");
            // It is not signed by being changed or revoked.
            let change = KeyChange {
                label: Some(None),
                ..KeyChange::default()
            };
            let changed = store.update_key(project, id, &change, BY).await;
            assert_eq!(changed.unwrap(), None, "{forged}");
            let ended = store.revoke_key(project, id, now, BY).await;
            assert_eq!(ended.unwrap(), None, "{forged}");
        }
        assert_eq!(store.key(id).await.unwrap(), None, "{forged}");
        world
            .run(&format!(
                "delete from api_keys where id = '{id}';
                 insert into api_keys select * from kept where id = '{id}'"
            ))
            .await;
        assert_eq!(
            store.key(id).await.unwrap().as_ref(),
            Some(&key),
            "{forged}"
        );
    }
    // A new row is no key, whatever it is copied from.
    world
        .run(&format!(
            "update kept set id = '{}' where id = '{id}'",
            account_like(&world)
        ))
        .await;
    world
        .run("insert into api_keys select * from kept where id not in (select id from api_keys)")
        .await;
    let listed = store.keys(&own, None, 10).await.unwrap();
    let listed: Vec<_> = listed.iter().map(|key| key.id).collect();
    assert_eq!(listed, [gone, id]);
    // A revocation stands.
    world
        .run(&format!(
            "update api_keys set revoked_at = null where id = '{gone}'"
        ))
        .await;
    assert_eq!(store.key(gone).await.unwrap(), None);
}

fn account_like(world: &World) -> String {
    let key: rolecall::model::id::KeyId = world.rng.id(world.clock.now());
    key.to_string()
}

async fn a_row_from_before_its_revocation_is_no_key(world: World) {
    let own = world.project("own").await;
    let store = &world.store;
    let (_, key) = world.new_key(&own);
    store.insert_key(&key, BY).await.unwrap();
    world
        .run("create table kept as select * from api_keys")
        .await;
    let now = world.clock.now();
    store.revoke_key(&own, key.id, now, BY).await.unwrap();
    world
        .run("delete from api_keys; insert into api_keys select * from kept")
        .await;
    assert_eq!(store.key(key.id).await.unwrap(), None);
}

async fn a_key_is_revoked_with_all_that_it_made(world: World) {
    let (own, other) = (world.project("own").await, world.project("other").await);
    let store = &world.store;
    let now = world.clock.now();
    let made_by = async |creator: Option<rolecall::model::id::KeyId>| {
        world.tick();
        let (_, mut key) = world.new_key(&own);
        key.created_by = creator;
        let by = creator.map_or(BY, Actor::ApiKey);
        store.insert_key(&key, by).await.map(|()| key)
    };
    let first = made_by(None).await.unwrap();
    let apart = made_by(None).await.unwrap();
    let child = made_by(Some(first.id)).await.unwrap();
    let ended = made_by(Some(first.id)).await.unwrap();
    let grandchild = made_by(Some(child.id)).await.unwrap();
    assert_eq!(store.key(child.id).await.unwrap(), Some(child.clone()));
    store.revoke_key(&own, ended.id, now, BY).await.unwrap();
    let none = store
        .revoke_key_with_created(&other, first.id, now, BY)
        .await;
    assert_eq!(none.unwrap(), None);
    let revoked = store.revoke_key_with_created(&own, first.id, now, BY).await;
    let (key, created) = revoked.unwrap().unwrap();
    assert_eq!(key.id, first.id);
    let mut ids: Vec<_> = created.iter().map(|key| key.id).collect();
    ids.sort_unstable();
    assert_eq!(ids, [child.id, ended.id, grandchild.id]);
    for id in [first.id, child.id, ended.id, grandchild.id] {
        let key = store.key(id).await.unwrap().unwrap();
        assert_eq!(key.revoked_at, Some(now), "{id}");
    }
    assert_eq!(store.key(apart.id).await.unwrap().unwrap().revoked_at, None);
    // What was revoked makes no more.
    let refused = made_by(Some(first.id)).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Unauthorized);
    // Once more lists the same, and writes nothing.
    let again = store.revoke_key_with_created(&own, first.id, now, BY).await;
    assert_eq!(again.unwrap().unwrap().1.len(), 3);
}
