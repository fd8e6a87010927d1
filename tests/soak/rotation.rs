//! The key ring changes twenty times under load, and whatever takes part in it is killed: the
//! servers, and the commands. No read fails but for want of somebody to answer it, no data key is
//! left on a retired key, and everything opens.

use std::{
    collections::BTreeMap,
    process::Stdio,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use fastrand::Rng;
use futures_util::future::join_all;
use reqwest::Method;
use rolecall::{clock::Clock, crypto::KeyRing};
use serde_json::Value;

use crate::{
    is_full, only_seed,
    process::{House, Served},
    schema::Schema,
    world::Run,
};

/// For how long a rotation may take until nothing is left on the former key.
const NEVER: Duration = Duration::from_secs(60);

/// One server, and whether it can be asked.
struct Server {
    /// Odd while it is up; a question that saw two numbers may have been cut off.
    era: AtomicU64,
    served: Mutex<Option<Served>>,
}

impl Server {
    fn era(&self) -> u64 {
        self.era.load(Ordering::SeqCst)
    }
}

struct Proof {
    /// The house as each project sees it, one of them for each server.
    projects: Vec<Vec<House>>,
    servers: Vec<Server>,
    accounts: Vec<String>,
    is_over: AtomicBool,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    reads: u64,
    cut_off: u64,
    made: u64,
    killed_servers: u64,
    killed_commands: u64,
    contents: BTreeMap<(usize, u64), Vec<Value>>,
}

impl Proof {
    async fn new(mut houses: Vec<House>, projects: usize) -> Self {
        let first = houses[0].clone();
        let mut all = vec![houses.clone()];
        for n in 1..projects {
            let key = first.with_project(&format!("p{n}")).await.key;
            for house in &mut houses {
                house.key.clone_from(&key);
            }
            all.push(houses.clone());
        }
        let proof = Self {
            servers: houses
                .iter()
                .map(|_| Server {
                    era: AtomicU64::new(0),
                    served: Mutex::default(),
                })
                .collect(),
            projects: all,
            accounts: Vec::new(),
            is_over: AtomicBool::new(false),
            seen: Mutex::default(),
        };
        for at in 0..proof.servers.len() {
            proof.start(at).await;
        }
        proof
    }

    /// Links an account in every project, and waits for its first directory.
    async fn link(&mut self) {
        for project in &self.projects {
            let body = project[0].account_body();
            let reply = project[0].ask(Method::POST, "/accounts", None, Some(&body));
            let account = reply.await.unwrap().expect(201);
            let account = account["id"].as_str().unwrap().to_owned();
            let read = project[0].run(&account, "/iam/users?page_size=100").await;
            assert!(read.is_some_and(|run| !run.records.is_empty()));
            self.accounts.push(account);
        }
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    async fn start(&self, at: usize) {
        let house = &self.projects[0][at];
        let mut served = house.serve();
        house.up(&mut served).await;
        *self.servers[at].served.lock().unwrap() = Some(served);
        self.servers[at].era.fetch_add(1, Ordering::SeqCst);
    }

    async fn kill(&self, at: usize) {
        self.servers[at].era.fetch_add(1, Ordering::SeqCst);
        let served = self.servers[at].served.lock().unwrap().take();
        served.expect("it is up").kill().await;
        self.seen.lock().unwrap().killed_servers += 1;
    }

    /// Reads of a project's whole list, its pages from whichever server is up.
    async fn read_on(&self, project: usize, mut rng: Rng) {
        let clock = Clock::system();
        while !self.is_over() {
            let mut run = Run::default();
            let mut next = String::new();
            loop {
                let at = rng.usize(0..self.servers.len());
                let era = self.servers[at].era();
                if era.is_multiple_of(2) {
                    clock.sleep(Duration::from_millis(20)).await;
                    if self.is_over() {
                        return;
                    }
                    continue;
                }
                let path = format!("/iam/users?page_size=25{next}");
                let house = &self.projects[project][at];
                let account = Some(self.accounts[project].as_str());
                let Some(page) = house.ask(Method::GET, &path, account, None).await else {
                    let was_killed = self.servers[at].era() != era;
                    assert!(was_killed, "a read found nobody, and nobody was killed");
                    self.seen.lock().unwrap().cut_off += 1;
                    continue;
                };
                page.expect(200);
                self.seen.lock().unwrap().reads += 1;
                // The same page goes on, whatever became of the ring since the one before.
                match run.take(&page) {
                    Some(cursor) => next = format!("&next={cursor}"),
                    None => break,
                }
            }
            self.note_run(project, run);
        }
    }

    fn note_run(&self, project: usize, run: Run) {
        assert_eq!(run.faults(), Vec::<String>::new());
        let mut seen = self.seen.lock().unwrap();
        let of = (project, run.versions[0]);
        let content = seen
            .contents
            .entry(of)
            .or_insert_with(|| run.records.clone());
        assert!(*content == run.records, "two contents of {of:?}");
    }

    /// Projects are made all the while, which need a key to be wrapped with.
    async fn make_on(&self, mut rng: Rng) {
        let clock = Clock::system();
        while !self.is_over() {
            let made = {
                let mut seen = self.seen.lock().unwrap();
                seen.made += 1;
                seen.made
            };
            let name = format!("made-{made}");
            self.projects[0][0]
                .cli(&["projects", "create", &name])
                .await;
            clock.sleep(Duration::from_millis(rng.u64(0..800))).await;
        }
    }

    /// Kills servers at any moment, and starts them again.
    async fn kill_on(&self, mut rng: Rng) {
        let clock = Clock::system();
        while !self.is_over() {
            clock.sleep(Duration::from_millis(rng.u64(300..3000))).await;
            let at = rng.usize(0..self.servers.len());
            self.kill(at).await;
            clock.sleep(Duration::from_millis(rng.u64(0..500))).await;
            self.start(at).await;
        }
    }

    /// A command that is killed half of the time, at any moment: then it may have done all of its
    /// work, some or none. Else it ends with one of these codes.
    async fn command(&self, rng: &mut Rng, arguments: &[&str], codes: &[i32]) {
        let mut command = self.projects[0][0].command();
        command.args(arguments).stdout(Stdio::null());
        let mut child = command.stderr(Stdio::null()).spawn().unwrap();
        // Beside a server it takes about a second.
        let patience = match rng.bool() {
            true => Duration::from_millis(rng.u64(0..1200)),
            false => NEVER,
        };
        let clock = Clock::system();
        tokio::select! {
            ended = child.wait() => {
                let code = ended.unwrap().code().unwrap();
                assert!(codes.contains(&code), "{arguments:?} ended with {code}");
            }
            () = clock.sleep(patience) => {
                child.kill().await.unwrap();
                self.seen.lock().unwrap().killed_commands += 1;
            }
        }
    }

    async fn status(&self) -> Value {
        let text = self.projects[0][0].cli(&["keyring", "status", "--json"]);
        serde_json::from_str(&text.await).unwrap()
    }

    fn ring(&self) -> KeyRing {
        let path = self.projects[0][0].path("rolecall.keys");
        KeyRing::read_file(path.as_ref()).unwrap()
    }

    /// From the key that encrypts to the next: rotate, wait, retire.
    async fn rotate(&self, rng: &mut Rng) {
        let clock = Clock::system();
        let former = self.status().await;
        let former = active(&former).expect("some key encrypts").to_owned();
        let began_at = clock.monotonic();
        let waited = || clock.monotonic().saturating_sub(began_at);
        loop {
            // Until it has worked; in one step or, now and then, in two.
            if self.ring().encrypting_id() == former {
                if rng.u8(0..4) == 0 {
                    self.in_two_steps(rng).await;
                } else {
                    self.command(rng, &["keyring", "rotate"], &[0]).await;
                }
            }
            let status = self.status().await;
            if active(&status).is_some_and(|key| key != former) && status["left"] == 0 {
                break;
            }
            assert!(waited() < NEVER, "{status}\n{}", self.projects[0][0].log());
            clock.sleep(Duration::from_millis(50)).await;
        }
        // Somebody may be on the way with the former one; then it is wrapped anew, and tried again.
        while self.ring().has(&former) {
            self.command(rng, &["keyring", "retire", &former], &[0, 1])
                .await;
            assert!(waited() < 2 * NEVER, "{}", self.status().await);
        }
    }

    async fn in_two_steps(&self, rng: &mut Rng) {
        self.command(rng, &["keyring", "rotate", "--add-only"], &[0])
            .await;
        let status = self.status().await;
        let keys = status["keys"].as_array().unwrap();
        let added = keys.iter().find(|key| key["state"] == "added");
        if let Some(id) = added.and_then(|key| key["id"].as_str()) {
            // Refused while a server that was just killed is not known to be dead.
            let activate = ["keyring", "rotate", "--activate", id];
            self.command(rng, &activate, &[0, 1]).await;
        }
    }

    async fn rotate_on(&self, rotations: usize, mut rng: Rng) {
        for rotation in 0..rotations {
            println!("rotation {rotation}");
            self.rotate(&mut rng).await;
        }
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// What is stored opens with what is in the file, and with nothing else.
    async fn expect_all(&self) {
        // What was added and never used, by commands that were killed, goes too.
        let status = self.status().await;
        let key = active(&status).unwrap().to_owned();
        let ring = self.ring();
        let house = &self.projects[0][0];
        for other in ring.ids().filter(|id| *id != key) {
            house.cli(&["keyring", "retire", other]).await;
        }
        let status = self.status().await;
        let made = self.seen.lock().unwrap().made;
        let in_ring = status["keys"].as_array().unwrap().iter();
        let in_ring: Vec<_> = in_ring.filter(|key| key["in_ring"] == true).collect();
        assert_eq!(in_ring.len(), 1, "{status}");
        assert_eq!(in_ring[0]["id"], *key);
        assert_eq!(in_ring[0]["data_keys"], self.projects.len() as u64 + made);
        house.cli(&["check"]).await;
        for (project, account) in self.projects.iter().zip(&self.accounts) {
            // With its credential, too.
            let path = format!("/accounts/{account}/walks?wait=60&full=true");
            let walk = project[0].ask(Method::POST, &path, None, None).await;
            let walk = walk.expect("it is up").expect(200);
            assert_eq!(walk["state"], "sealed", "{walk}");
            let picture = project[0].picture(account).await.expect("it is served");
            let truth = project[0].truth().await;
            assert_eq!(picture.differences(&truth), Vec::<String>::new());
        }
        for n in 1..=made {
            let name = format!("made-{n}");
            house.cli(&["keys", "create", "--project", &name]).await;
        }
    }
}

/// The id of the key that encrypts.
fn active(status: &Value) -> Option<&str> {
    let keys = status["keys"].as_array()?;
    keys.iter().find(|key| key["encrypts"] == true)?["id"].as_str()
}

async fn keys_change_under_load(houses: Vec<House>, seed: u64) {
    // A process that was killed is waited for until it is taken for dead.
    let rotations = match (is_full(), houses.len()) {
        (true, _) => 20,
        (false, 1) => 3,
        (false, _) => 1,
    };
    // More than are wrapped anew in one transaction, at full size.
    let projects = if is_full() { 70 } else { 4 };
    let mut rng = Rng::with_seed(seed);
    let first = houses[0].clone();
    let mut proof = Proof::new(houses, projects).await;
    proof.link().await;
    let readers = (0..projects.min(6)).map(|n| (n, rng.fork()));
    let readers: Vec<_> = readers.collect();
    let (rotator, killer, maker) = (rng.fork(), rng.fork(), rng.fork());
    tokio::join!(
        proof.rotate_on(rotations, rotator),
        proof.kill_on(killer),
        proof.make_on(maker),
        join_all(readers.into_iter().map(|(n, rng)| proof.read_on(n, rng))),
    );
    proof.expect_all().await;
    let log = first.log();
    for word in ["panicked", "is locked, and left", "not at hand"] {
        assert!(!log.contains(word), "{log}");
    }
    let seen = proof.seen.lock().unwrap();
    assert!(seen.reads > 0 && seen.killed_servers > 0);
    println!(
        "seed {seed}: {rotations} rotations, {} reads of which 0 failed and {} were cut off by a kill, \
         {} projects made meanwhile, {} servers and {} commands killed",
        seen.reads, seen.cut_off, seen.made, seen.killed_servers, seen.killed_commands
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_change_under_load_whatever_is_killed() {
    let seed = only_seed().unwrap_or(1);
    let house = House::new(60, 6, seed).await;
    keys_change_under_load(vec![house], seed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_change_under_load_of_two_processes_whichever_is_killed() {
    let Some(schema) = Schema::new().await else {
        return;
    };
    let seed = only_seed().unwrap_or(1);
    let house = House::on(Some(schema.url()), 0, 60, 6, seed).await;
    let other = house.beside();
    keys_change_under_load(vec![house, other], seed).await;
}
