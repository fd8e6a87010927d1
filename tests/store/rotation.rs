//! Changing the key ring under a database that is in use.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use rolecall::{
    crypto::{KeyRing, LiveRing, RingFile},
    error::Kind,
    model::audit_log::{Actor, AuditAction, AuditFilter},
    store::{FirstKey, Inspection, OpenError, ReloadError, Retirement, Store, Verified},
};
use tempfile::TempDir;

use crate::world::{TOKEN, World, credential_of, furnish, project, ring};

/// A machine with a key file of its own, and a process on it.
struct Host {
    _folder: TempDir,
    file: PathBuf,
    world: World,
}

impl Host {
    async fn new(url: &str, ring: &KeyRing) -> Self {
        Self::try_new(url, ring).await.unwrap()
    }

    async fn try_new(url: &str, ring: &KeyRing) -> Result<Self, OpenError> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("rolecall.keys");
        ring.create_file(&file).unwrap();
        let live = LiveRing::read_file(&file).unwrap();
        let world = World::open_live(url, live).await?;
        Ok(Self {
            _folder: folder,
            file,
            world,
        })
    }

    /// Gives the machine another file, which the process has not looked at yet.
    fn give(&self, ring: &KeyRing) {
        RingFile::lock(&self.file).unwrap().replace(ring).unwrap();
    }

    /// The same, and the process looks.
    async fn take(&self, ring: &KeyRing) {
        self.give(ring);
        let store = &self.world.store;
        store.reload_ring().await.unwrap();
        store.tell_ring().await.unwrap();
    }

    /// Wraps anew until nothing is left, and gives which key wraps and how many were wrapped.
    async fn rewrap(&self) -> (String, FirstKey, u64) {
        let (mut after, mut count) = (None, 0);
        loop {
            let turn = self
                .world
                .store
                .rewrap(after.as_ref(), Actor::System)
                .await
                .unwrap();
            assert_eq!(turn.locked, []);
            count += turn.count;
            after = turn.next;
            if after.is_none() {
                assert_eq!(turn.left, 0);
                return (turn.active, turn.first, count);
            }
        }
    }

    async fn usage(&self) -> Vec<(String, u64)> {
        self.world.store.key_usage().await.unwrap()
    }
}

fn usage<const N: usize>(of: [(&str, u64); N]) -> Vec<(String, u64)> {
    of.map(|(key, count)| (key.to_owned(), count)).to_vec()
}

pub async fn all_keys_can_be_wrapped_anew(world: World) {
    // With the ring unchanged there is nothing to do, and nothing is done.
    let store = &world.store;
    let own = world.project("own").await;
    let account = world.account(&own).await;
    let before = store.key_usage().await.unwrap();
    assert_eq!(before, usage([("a", 1)]));
    let turn = store.rewrap(None, Actor::Operator).await.unwrap();
    assert_eq!((turn.count, turn.left, turn.next), (0, 0, None));
    assert_eq!((&*turn.active, turn.first), ("a", FirstKey::Active));
    assert_eq!(store.key_usage().await.unwrap(), before);
    assert!(store.credential(&own, account.id).await.unwrap().is_some());
    let now = world.clock.now();
    let retirement = store.retire_key("a", now).await.unwrap();
    assert_eq!(retirement, Retirement::Active);
    assert_eq!(store.key_usage().await.unwrap(), before);
}

/// Of the database at `url`, which is new: from one key to the next without a moment when the ring
/// does not fit.
pub async fn a_key_is_changed_step_by_step(url: &str) {
    let open = async |ring| World::open(url, ring).await.unwrap();
    let refused = async |ring| {
        let error = World::open(url, ring).await.err().unwrap();
        assert!(matches!(error, OpenError::WrongKeys { .. }), "{error}");
    };
    let (old, new) = (ring("old"), ring("new"));
    let (added, both) = (old.then(&new).unwrap(), new.then(&old).unwrap());
    let world = open(&old).await;
    let account = furnish(&world, "own").await;
    world.store.close().await;

    // A new key encrypts nothing yet, so it can still be taken back.
    for ring in [&added, &both, &old] {
        open(ring).await.store.close().await;
    }
    let world = open(&added).await;
    let turn = world.store.rewrap(None, Actor::Operator).await.unwrap();
    assert_eq!((turn.count, &*turn.active), (0, "old"));
    world.store.close().await;
    open(&old).await.store.close().await;

    // First in the ring, it becomes active with the first thing that is wrapped.
    let world = open(&both).await;
    let later = furnish(&world, "later").await;
    let found = world.store.key_usage().await.unwrap();
    assert_eq!(found, usage([("old", 1), ("new", 1)]));
    let now = world.clock.now();
    let retirement = world.store.retire_key("old", now).await.unwrap();
    assert_eq!(retirement, Retirement::Wraps(1));
    refused(&old).await;
    refused(&new).await;

    // It stays so, whoever has another first.
    let behind = open(&added).await;
    let third = furnish(&behind, "third").await;
    let turn = behind.store.rewrap(None, Actor::Operator).await.unwrap();
    assert_eq!((turn.count, turn.left), (1, 0));
    assert_eq!((&*turn.active, turn.first), ("new", FirstKey::Former));
    let found = world.store.key_usage().await.unwrap();
    assert_eq!(found, usage([("old", 0), ("new", 3)]));
    refused(&new).await;

    // Retired, the old one is asked for no more and never wraps again.
    let retirement = world.store.retire_key("old", now).await.unwrap();
    assert_eq!(retirement, Retirement::Done);
    let retirement = world.store.retire_key("old", now).await.unwrap();
    assert_eq!(retirement, Retirement::Before);
    refused(&old).await;
    let fourth = furnish(&behind, "fourth").await;
    let turn = behind.store.rewrap(None, Actor::Operator).await.unwrap();
    assert_eq!((&*turn.active, turn.first), ("new", FirstKey::Retired));
    let standing = world.store.ring_standing().await.unwrap();
    assert_eq!(standing.usage, usage([("new", 4)]));
    assert_eq!(standing.retired, ["old"]);
    for each in [world, behind] {
        each.store.close().await;
    }

    let store = open(&new).await.store;
    for account in [account, later, third, fourth] {
        let (token, _) = credential_of(&store, &account.project, account.id).await;
        assert_eq!(token, TOKEN);
        let found = store.account(&account.project, account.id).await.unwrap();
        // What was logged under the old ring key verifies, and says that the data key was wrapped
        // anew where it was.
        let (project, filter) = (&account.project, AuditFilter::default());
        let verified = store.verify_audit(project, None).await.unwrap().verified;
        assert!(matches!(verified, Verified::Whole { .. }), "{verified:?}");
        let log = store.audit_log(project, &filter, None, 9).await.unwrap();
        let rewrapped = log
            .iter()
            .find(|entry| entry.event.action == AuditAction::DataKeyRewrapped);
        if project.as_str() == "own" {
            let event = &rewrapped.unwrap().event;
            let words: Vec<_> = event.detail.words().values().collect();
            assert_eq!(words, ["old", "new"]);
        } else {
            assert_eq!(rewrapped, None);
        }
        assert_eq!(found, Some(account));
    }
    store.close().await;
}

/// Of the database at `url`, which is new and which several processes may serve.
pub async fn a_key_is_not_used_before_every_process_has_it(url: &str) {
    let (old, new) = (ring("old"), ring("new"));
    let (one, two) = (Host::new(url, &old).await, Host::new(url, &old).await);
    for host in [&one, &two] {
        host.world.store.join().await.unwrap();
    }
    let own = furnish(&one.world, "own").await;
    let reads = async |host: &Host| {
        let found = host.world.store.account(&own.project, own.id).await;
        assert_eq!(found.unwrap().as_ref(), Some(&own));
    };

    // Put first on one machine too soon, it waits for the other, and what is new is wrapped as before.
    one.take(&new.then(&old).unwrap()).await;
    let awaited = FirstKey::Awaited { processes: 1 };
    let turn = one.world.store.rewrap(None, Actor::Operator).await.unwrap();
    assert_eq!((&*turn.active, turn.first), ("old", awaited));
    furnish(&one.world, "second").await;
    assert_eq!(one.usage().await, usage([("old", 2)]));
    reads(&two).await;
    let standing = one.world.store.ring_standing().await.unwrap();
    // Of the others, and not of itself.
    assert_eq!(standing.processes, [["old"]]);
    let standing = two.world.store.ring_standing().await.unwrap();
    assert_eq!(standing.processes, [["new", "old"]]);

    // Once the other has it, it is active, and whoever has another first goes with it.
    two.take(&old.then(&new).unwrap()).await;
    let moved = one.rewrap().await;
    assert_eq!(moved, ("new".to_owned(), FirstKey::Active, 2));
    assert_eq!(two.rewrap().await, ("new".to_owned(), FirstKey::Former, 0));
    furnish(&two.world, "third").await;
    assert_eq!(one.usage().await, usage([("old", 0), ("new", 3)]));
    reads(&one).await;
    reads(&two).await;

    // Who comes later without it does not begin to serve.
    let late = Host::try_new(url, &old).await.err().unwrap();
    assert!(matches!(late, OpenError::WrongKeys { .. }), "{late}");
    for host in [one, two] {
        host.world.store.leave().await.unwrap();
        host.world.store.close().await;
    }
}

/// Of the database at `url`, which is new: a process that lacks the key which another has made
/// active refuses, harms nothing, and recovers by itself.
pub async fn who_lacks_the_active_key_refuses_until_it_has_it(url: &str) {
    let (old, new) = (ring("old"), ring("new"));
    let both = new.then(&old).unwrap();
    // It gives no sign of life, so nobody waits for it.
    let (one, silent) = (Host::new(url, &old).await, Host::new(url, &old).await);
    let own = furnish(&one.world, "own").await;
    one.take(&both).await;
    assert_eq!(one.rewrap().await.2, 1);

    let store = &silent.world.store;
    let names_it = |error: &rolecall::error::Error| {
        assert_eq!(error.kind(), Kind::CredentialLocked);
        let source = std::error::Error::source(error).unwrap().to_string();
        assert!(source.contains("`new`"), "{source}");
    };
    let read = async || store.credential(&own.project, own.id).await.map(drop);
    names_it(&read().await.unwrap_err());
    let late = project("late");
    let now = silent.world.clock.now();
    names_it(&store.create_project(&late, now).await.unwrap_err());
    names_it(&store.rewrap(None, Actor::Operator).await.unwrap_err());
    names_it(
        &store
            .delete_project(&own.project, Actor::Operator, now)
            .await
            .unwrap_err(),
    );
    assert_eq!(one.usage().await, usage([("old", 0), ("new", 1)]));

    // A file that is torn, or that has the key's name on another, changes nothing.
    std::fs::write(&silent.file, "new: torn").unwrap();
    names_it(&read().await.unwrap_err());
    let error = store.reload_ring().await.unwrap_err();
    assert!(matches!(error, ReloadError::File(_)), "{error}");
    let impostor = ring("new").then(&old).unwrap();
    std::fs::write(&silent.file, impostor.to_text().as_bytes()).unwrap();
    let error = store.reload_ring().await.unwrap_err();
    let is_it = matches!(&error, ReloadError::DoesNotFit { key_id, .. } if key_id == "new");
    assert!(is_it, "{error}");
    assert_eq!(store.ring(), old);
    names_it(&read().await.unwrap_err());

    // With the right file the very next question is answered, whoever has looked at it or not.
    silent.give(&both);
    read().await.unwrap();
    assert_eq!(store.ring(), both);
    assert!(store.create_project(&late, now).await.unwrap());

    // Nor does it matter that the file was changed between reading it and opening the database.
    silent.give(&old);
    let early = LiveRing::read_file(&silent.file).unwrap();
    silent.give(&both);
    let found = Store::inspect(url, early.clone()).await.unwrap();
    assert!(matches!(found, Inspection::Current { .. }), "{found:?}");
    assert_eq!(early.current(), both);
    early.exchange(old.clone());
    World::open_live(url, early)
        .await
        .unwrap()
        .store
        .close()
        .await;

    // One that lacks what is still asked for is not taken either.
    silent.give(&new);
    let error = store.reload_ring().await.unwrap_err();
    let is_it = matches!(&error, ReloadError::DoesNotFit { key_id, .. } if key_id == "old");
    assert!(is_it, "{error}");
    one.world.store.retire_key("old", now).await.unwrap();
    store.reload_ring().await.unwrap();
    assert_eq!(store.ring(), new);
    for host in [&one, &silent] {
        let store = &host.world.store;
        let (token, _) = credential_of(store, &own.project, own.id).await;
        assert_eq!(token, TOKEN);
        store.close().await;
    }
}

/// Of the database at `url`, which is new: keys change again and again while two processes read,
/// make projects and wrap anew, and nobody ever notices.
pub async fn keys_change_under_load(url: &str) {
    const PROJECTS: usize = 120;
    const ROTATIONS: usize = 3;
    let mut current = ring("k0");
    let hosts = [
        Arc::new(Host::new(url, &current).await),
        Arc::new(Host::new(url, &current).await),
    ];
    let mut accounts = Vec::new();
    for n in 0..PROJECTS {
        let own = hosts[0].world.project(&format!("p{n}")).await;
        accounts.push(hosts[0].world.account(&own).await);
    }
    let accounts = Arc::new(accounts);
    let is_over = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..4)
        .map(|n| {
            let (host, accounts) = (Arc::clone(&hosts[n % 2]), Arc::clone(&accounts));
            let is_over = Arc::clone(&is_over);
            tokio::spawn(async move {
                let mut reads = 0;
                while !is_over.load(Ordering::Relaxed) {
                    let account = &accounts[(reads * 7 + n) % PROJECTS];
                    let store = &host.world.store;
                    let (token, _) = credential_of(store, &account.project, account.id).await;
                    assert_eq!(token, TOKEN);
                    reads += 1;
                }
                reads
            })
        })
        .collect();
    let maker = {
        let (host, is_over) = (Arc::clone(&hosts[1]), Arc::clone(&is_over));
        tokio::spawn(async move {
            let mut made: u64 = 0;
            while !is_over.load(Ordering::Relaxed) {
                host.world.project(&format!("made-{made}")).await;
                made += 1;
            }
            made
        })
    };
    for n in 1..=ROTATIONS {
        let new = ring(&format!("k{n}"));
        let former = current.encrypting_id().to_owned();
        let both = new.then(&current).unwrap();
        // As one file that both read, at whatever moment each does.
        for host in &hosts {
            host.give(&both);
        }
        hosts[n % 2].world.store.reload_ring().await.unwrap();
        tokio::join!(hosts[0].rewrap_all(&both), hosts[1].rewrap_all(&both));
        let now = hosts[0].world.clock.now();
        loop {
            let store = &hosts[0].world.store;
            match store.retire_key(&former, now).await.unwrap() {
                Retirement::Done => break,
                // Somebody was on the way with it.
                Retirement::Wraps(_) => drop(
                    hosts[0]
                        .world
                        .store
                        .rewrap(None, Actor::Operator)
                        .await
                        .unwrap(),
                ),
                other => panic!("{other:?}"),
            }
        }
        for host in &hosts {
            host.give(&new);
        }
        current = new;
    }
    is_over.store(true, Ordering::Relaxed);
    for reader in readers {
        assert!(reader.await.unwrap() > 0);
    }
    let made = maker.await.unwrap();
    hosts[0].world.store.reload_ring().await.unwrap();
    hosts[0].rewrap().await;
    let expected = usage([("k3", PROJECTS as u64 + made)]);
    assert_eq!(hosts[0].usage().await, expected);
    for host in hosts {
        host.world.store.close().await;
    }
    let store = World::open(url, &current).await.unwrap().store;
    for account in accounts.iter() {
        let (token, _) = credential_of(&store, &account.project, account.id).await;
        assert_eq!(token, TOKEN);
    }
    store.close().await;
}

impl Host {
    /// Wraps anew with this ring's first key, beside others who do.
    async fn rewrap_all(&self, ring: &KeyRing) {
        let store = &self.world.store;
        store.reload_ring().await.unwrap();
        assert_eq!(store.ring(), *ring);
        let mut after = None;
        loop {
            let turn = store.rewrap(after.as_ref(), Actor::System).await.unwrap();
            assert_eq!(turn.active, ring.encrypting_id());
            assert_eq!(turn.locked, []);
            after = turn.next;
            if after.is_none() {
                return;
            }
        }
    }
}
