//! `kill -9` at any moment of walks and writes. What was acknowledged is there after the restart,
//! versions never go back, and the last sealed directory is served at once, without the provider.

use std::{collections::BTreeMap, sync::Mutex, time::Duration};

use fastrand::Rng;
use reqwest::Method;
use rolecall::clock::Clock;
use serde_json::{Value, json};

use crate::{
    is_full, only_seed,
    process::{House, Served},
    world::Run,
};

/// How many accounts are linked at a time.
const ACCOUNTS: usize = 5;

/// What the gateway has acknowledged.
#[derive(Default)]
struct Ledger {
    accounts: BTreeMap<String, Known>,
    /// Walks that ended, by account and id, with the state that was told.
    walks: Vec<(String, String, String)>,
    keys: Vec<String>,
    acknowledged: u64,
}

#[derive(Default)]
struct Known {
    /// The highest version that was served, or told of a walk; 0 before the first.
    version: u64,
    deletion: Deletion,
    /// Who was in a version, as it was first served.
    contents: BTreeMap<u64, Vec<Value>>,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Deletion {
    #[default]
    No,
    /// Asked for, and not yet acknowledged: either may hold.
    Asked(Kept),
    Done(Kept),
}

/// What a deletion leaves.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kept {
    /// The account, disconnected.
    Account,
    /// Not a byte of it.
    Nothing,
}

struct Proof {
    house: House,
    ledger: Mutex<Ledger>,
}

impl Proof {
    fn living(&self) -> Vec<String> {
        let ledger = self.ledger.lock().unwrap();
        let accounts = ledger.accounts.iter();
        accounts
            .filter(|(_, known)| known.deletion == Deletion::No)
            .map(|(id, _)| id.clone())
            .collect()
    }

    fn note<T>(&self, write: impl FnOnce(&mut Ledger) -> T) -> T {
        let mut ledger = self.ledger.lock().unwrap();
        ledger.acknowledged += 1;
        write(&mut ledger)
    }

    fn note_version(&self, account: &str, version: u64) {
        self.note(|ledger| {
            let known = ledger.accounts.get_mut(account).unwrap();
            known.version = known.version.max(version);
        });
    }

    /// Writes of every kind, one after the other, until nobody answers any more.
    async fn write_on(&self, mut rng: Rng) {
        while self.write(&mut rng).await.is_some() {}
    }

    /// One write. None if it was not acknowledged because nobody answers.
    async fn write(&self, rng: &mut Rng) -> Option<()> {
        let living = self.living();
        let Some(account) = rng.choice(&living).cloned() else {
            return self.link().await;
        };
        match rng.u8(0..16) {
            0..3 if living.len() < ACCOUNTS => self.link().await,
            3 if living.len() > 2 => self.unlink(&account, rng.bool()).await,
            4..8 => self.walk(&account, rng).await.map(|_| ()),
            8..10 => self.read(&account).await,
            10..13 => {
                let change = |number: u64| json!({"op": "add_user", "email": format!("k{number}@example.org")});
                self.mutate(vec![change(rng.u64(..))]).await;
                self.walk(&account, rng).await.map(|_| ())
            }
            13 => {
                self.disable_many(rng).await;
                self.walk(&account, rng).await.map(|_| ())
            }
            14 => self.make_key().await,
            _ => self.remove(rng, 2).await,
        }
    }

    async fn link(&self) -> Option<()> {
        let body = self.house.account_body();
        let reply = self
            .house
            .ask(Method::POST, "/accounts", None, Some(&body))
            .await?;
        let id = reply.expect(201)["id"].as_str().unwrap().to_owned();
        self.note(|ledger| ledger.accounts.insert(id, Known::default()));
        Some(())
    }

    async fn unlink(&self, account: &str, purge: bool) -> Option<()> {
        let kept = if purge { Kept::Nothing } else { Kept::Account };
        self.set_deletion(account, Deletion::Asked(kept));
        let path = format!("/accounts/{account}?purge={purge}");
        let reply = self.house.ask(Method::DELETE, &path, None, None).await?;
        reply.expect(200);
        self.set_deletion(account, Deletion::Done(kept));
        self.note(|_| ());
        Some(())
    }

    fn set_deletion(&self, account: &str, deletion: Deletion) {
        let mut ledger = self.ledger.lock().unwrap();
        ledger.accounts.get_mut(account).unwrap().deletion = deletion;
    }

    /// A walk; one that is held is then released, discarded, or left.
    async fn walk(&self, account: &str, rng: &mut Rng) -> Option<()> {
        let path = format!("/accounts/{account}/walks?wait=60&full={}", rng.bool());
        let reply = self.house.ask(Method::POST, &path, None, None).await?;
        if reply.status != 200 {
            return Some(());
        }
        let walk = reply.json();
        self.note_walk(account, &walk);
        if walk["state"] == "held" {
            let choice = ["release", "discard"][rng.usize(0..2)];
            let path = format!(
                "/accounts/{account}/walks/{}/{choice}",
                walk["id"].as_str().unwrap()
            );
            let reply = self.house.ask(Method::POST, &path, None, None).await?;
            if reply.status == 200 {
                self.note_walk(account, &reply.json());
            }
        }
        Some(())
    }

    fn note_walk(&self, account: &str, walk: &Value) {
        if let Some(version) = walk["directory_version"].as_str() {
            self.note_version(account, version.parse().unwrap());
        }
        let [id, state] = ["id", "state"].map(|field| walk[field].as_str().unwrap().to_owned());
        self.note(|ledger| {
            ledger.walks.retain(|(_, other, _)| *other != id);
            ledger.walks.push((account.to_owned(), id, state));
        });
    }

    async fn read(&self, account: &str) -> Option<()> {
        let path = "/iam/users?page_size=1";
        let reply = self
            .house
            .ask(Method::GET, path, Some(account), None)
            .await?;
        if reply.status == 200 {
            self.note_version(account, reply.version());
        }
        Some(())
    }

    async fn make_key(&self) -> Option<()> {
        let key = self
            .house
            .cli(&["keys", "create", "--project", "one", "--json"])
            .await;
        let key: Value = serde_json::from_str(&key).unwrap();
        self.note(|ledger| {
            ledger
                .keys
                .push(key["api_key"].as_str().unwrap().to_owned())
        });
        Some(())
    }

    async fn mutate(&self, ops: Vec<Value>) {
        self.house
            .control(Method::POST, "/mutate", &json!(ops))
            .await;
    }

    /// Users of the provider that may be changed.
    async fn loose(&self) -> Vec<u64> {
        let truth = self
            .house
            .control(Method::GET, "/truth", &json!(null))
            .await;
        crate::faults::loose(&truth)
    }

    async fn remove(&self, rng: &mut Rng, count: usize) -> Option<()> {
        let mut loose = self.loose().await;
        if loose.len() > 150 {
            rng.shuffle(&mut loose);
            loose.truncate(count);
            self.mutate(
                loose
                    .iter()
                    .map(|id| json!({"op": "remove_user", "id": id}))
                    .collect(),
            )
            .await;
        }
        Some(())
    }

    /// More at once than is likely.
    async fn disable_many(&self, rng: &mut Rng) {
        let mut loose = self.loose().await;
        rng.shuffle(&mut loose);
        let status = ["ACTIVE", "DEACTIVATED"][rng.usize(0..2)];
        let ops = loose.iter().take(60);
        self.mutate(
            ops.map(|id| json!({"op": "update_user", "id": id, "status": status}))
                .collect(),
        )
        .await;
    }

    /// Everything that was acknowledged holds. How long the first answer took, if there was a
    /// directory to be served.
    async fn expect_all(&self, served: &mut Served) -> Option<Duration> {
        let known: Vec<(String, u64, Deletion)> = {
            let ledger = self.ledger.lock().unwrap();
            let accounts = ledger.accounts.iter();
            accounts
                .map(|(id, known)| (id.clone(), known.version, known.deletion))
                .collect()
        };
        // The provider answers nothing until all is looked at.
        let rules = json!([{"fault": {"kind": "status", "status": 503}}]);
        self.house.control(Method::POST, "/faults", &rules).await;
        let sealed = known
            .iter()
            .find(|(_, version, deletion)| *version > 0 && *deletion == Deletion::No);
        let took = match sealed {
            Some((account, version, _)) => {
                let path = "/iam/users?page_size=100";
                let (reply, took) = self.house.first_answer(served, path, account).await;
                reply.expect(200);
                assert!(
                    reply.version() >= *version,
                    "version {} after {version}",
                    reply.version()
                );
                Some(took)
            }
            None => {
                self.house.up(served).await;
                None
            }
        };
        for (account, version, deletion) in known {
            let path = format!("/accounts/{account}");
            let reply = self.ask(&path).await;
            let status = (reply.status == 200).then(|| reply.json()["status"].clone());
            let found = match status {
                None => Deletion::Done(Kept::Nothing),
                Some(status) if status == "inactive" => Deletion::Done(Kept::Account),
                Some(_) => Deletion::No,
            };
            match deletion {
                Deletion::Asked(kept) => {
                    assert!(
                        found == Deletion::No || found == Deletion::Done(kept),
                        "{account} was deleted in part"
                    );
                    self.set_deletion(&account, found);
                }
                told => assert!(found == told, "{account} is not what was told of it"),
            }
            if found == Deletion::No && version > 0 {
                let run = self.house.run(&account, "/iam/users?page_size=100").await;
                self.expect_version(&account, version, &run.expect("it is served"));
            }
        }
        self.expect_walks_and_keys().await;
        self.house
            .control(Method::DELETE, "/faults", &json!(null))
            .await;
        took
    }

    async fn ask(&self, path: &str) -> crate::world::Reply {
        let reply = self.house.ask(Method::GET, path, None, None).await;
        reply.expect("the gateway answers")
    }

    fn expect_version(&self, account: &str, version: u64, run: &Run) {
        assert_eq!(run.faults(), Vec::<String>::new());
        let now = run.versions[0];
        assert!(now >= version, "{account}: version {now} after {version}");
        let mut ledger = self.ledger.lock().unwrap();
        let known = ledger.accounts.get_mut(account).unwrap();
        known.version = now;
        let content = known
            .contents
            .entry(now)
            .or_insert_with(|| run.records.clone());
        assert!(
            *content == run.records,
            "{account}: two contents of version {now}"
        );
    }

    async fn expect_walks_and_keys(&self) {
        let (walks, keys) = {
            let mut ledger = self.ledger.lock().unwrap();
            let old = ledger.walks.len().saturating_sub(20);
            ledger.walks.drain(..old);
            (ledger.walks.clone(), ledger.keys.clone())
        };
        let living = self.living();
        for (account, id, state) in walks
            .iter()
            .filter(|(account, ..)| living.contains(account))
        {
            let walk = self
                .ask(&format!("/accounts/{account}/walks/{id}"))
                .await
                .expect(200);
            // Somebody may have decided on a held one without hearing of it.
            assert!(
                walk["state"] == **state || state == "held",
                "was {state}: {walk}"
            );
        }
        for key in keys.iter().rev().take(3) {
            let reply = self.house.ask_with(key, "/accounts").await;
            assert_eq!(reply.expect("the gateway answers").status, 200);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_at_any_moment_loses_nothing_that_was_acknowledged() {
    let kills = if is_full() { 200 } else { 8 };
    // An unoptimised process on a busy machine takes its time.
    let bound = Duration::from_secs(if cfg!(debug_assertions) { 5 } else { 1 });
    let seed = only_seed().unwrap_or(1);
    let mut rng = Rng::with_seed(seed);
    let clock = Clock::system();
    let proof = Proof {
        house: House::new(300, 30, seed).await,
        ledger: Mutex::default(),
    };
    let mut slowest = Duration::ZERO;
    let mut restarts_served = 0;
    let mut served = proof.house.serve();
    for kill in 0..kills {
        println!("kill {kill} of seed {seed}");
        if kill % 8 == 7 {
            // Before it is up, too.
            clock.sleep(Duration::from_millis(rng.u64(0..60))).await;
            served.kill().await;
            served = proof.house.serve();
        }
        if let Some(took) = proof.expect_all(&mut served).await {
            slowest = slowest.max(took);
            restarts_served += 1;
            assert!(
                took < bound,
                "kill {kill} of seed {seed}: served after {took:?}"
            );
        }
        let moment = Duration::from_millis(rng.u64(0..700));
        let writers = [rng.fork(), rng.fork(), rng.fork()].map(|rng| proof.write_on(rng));
        let killed = async {
            clock.sleep(moment).await;
            served.kill().await;
        };
        futures_util::future::join(futures_util::future::join_all(writers), killed).await;
        served = proof.house.serve();
    }
    proof.expect_all(&mut served).await;
    // And it goes on: every account comes to the truth.
    for account in proof.living() {
        for _ in 0..3 {
            let path = format!("/accounts/{account}/walks?wait=60&full=true");
            let reply = proof.house.ask(Method::POST, &path, None, None).await;
            reply.expect("the gateway answers").expect(200);
        }
        let truth = proof.house.truth().await;
        let picture = proof.house.picture(&account).await.expect("it is served");
        assert_eq!(picture.differences(&truth), Vec::<String>::new());
    }
    served.kill().await;
    assert!(
        !proof.house.log().contains("panicked"),
        "{}",
        proof.house.log()
    );
    let acknowledged = proof.ledger.lock().unwrap().acknowledged;
    println!(
        "{kills} kills, {acknowledged} acknowledgements, {restarts_served} restarts that served a \
         sealed directory, the slowest after {slowest:?}"
    );
}
