//! Many processes, many tasks in each, and all of them want the same accounts refreshed.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use fastrand::Rng;
use futures_util::future::join_all;
use rolecall::clock::Clock;
use serde_json::json;

use super::{
    LOOK_EVERY, SETTLED_WITHIN,
    books::{Books, Told},
    provider::Provider,
    signed::{Seat, Signed, state_in},
};
use crate::{is_full, only_seed, schema::Schema};

/// How much there is of everything.
struct Size {
    processes: usize,
    /// In each process.
    tasks: usize,
    accounts: usize,
    /// Accounts beside those, one reply of each of which is lost.
    unlucky: usize,
    refreshes: usize,
    /// How slow a reply is that is slow: until the provider redeems, and once it has. A reply has
    /// about 170 bytes, and ten seconds to come.
    slowest_ms: u64,
    bytes_per_s: u64,
}

const FULL: Size = Size {
    processes: 8,
    tasks: 32,
    accounts: 200,
    unlucky: 8,
    refreshes: 10_000,
    slowest_ms: 50_000,
    bytes_per_s: 25,
};

const SLICE: Size = Size {
    processes: 3,
    tasks: 4,
    accounts: 5,
    unlucky: 1,
    refreshes: 50,
    slowest_ms: 1_500,
    bytes_per_s: 150,
};

struct Race {
    size: Size,
    seed: u64,
    signed: Signed,
    /// Those of whom none is lost, and then the unlucky ones.
    seats: Vec<Seat>,
    is_over: AtomicBool,
    asked: AtomicU64,
    /// Told to come again.
    put_off: AtomicU64,
    reads: AtomicU64,
}

impl Race {
    fn lucky(&self) -> &[Seat] {
        &self.seats[..self.size.accounts]
    }

    fn unlucky(&self) -> &[Seat] {
        &self.seats[self.size.accounts..]
    }

    /// Has the provider answer late, before it has redeemed and after it has; and lose a reply of
    /// each that is unlucky.
    async fn slow_down(&self, provider: &Provider, rng: &mut Rng) {
        let size = &self.size;
        let rounds = (size.refreshes / size.accounts) as u64;
        let mut faults = Vec::new();
        for seat in self.lucky() {
            let ms = rng.u64(size.slowest_ms / 10..=size.slowest_ms);
            let delay = json!({"kind": "delay", "ms": ms});
            faults.push((seat.grant.as_str(), rng.u64(0..rounds), delay));
            let rate = rng.u64(size.bytes_per_s..10 * size.bytes_per_s);
            let trickle = json!({"kind": "trickle", "bytes_per_s": rate});
            faults.push((seat.grant.as_str(), rng.u64(0..rounds), trickle));
        }
        for seat in self.unlucky() {
            let cut = match rng.bool() {
                true => json!({"kind": "drop_reply"}),
                false => json!({"kind": "truncate", "bytes": rng.u64(0..100)}),
            };
            // Each is asked for more often than that.
            faults.push((seat.grant.as_str(), rng.u64(0..=rounds / 20), cut));
        }
        provider.strike(&faults).await;
    }

    async fn ask_on(&self, at: usize, mut rng: Rng) {
        while !self.is_over.load(Ordering::Relaxed) {
            let seat = &self.seats[rng.usize(0..self.seats.len())];
            if rng.u8(0..8) == 0 {
                self.signed.expect_served(at, seat).await;
                self.reads.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            let reply = self.signed.refresh(at, seat).await.expect("it is up");
            // Nobody who waits is told that the credential is bad.
            assert!([200, 408].contains(&reply.status), "{reply:?}");
            let is_put_off = u64::from(reply.status == 408);
            self.put_off.fetch_add(is_put_off, Ordering::Relaxed);
            self.asked.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Ends the race once so many refreshes came about.
    async fn count(&self, provider: &mut Provider) {
        let mut seen = 0;
        while seen < self.size.refreshes {
            seen += provider.read_on().await;
            Clock::system().sleep(LOOK_EVERY).await;
        }
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// What is slow comes yet, and of each pair that got lost the provider says so twice.
    async fn settle(&self, books: &mut Books) {
        let clock = Clock::system();
        let began_at = clock.monotonic();
        loop {
            let rows = books.rows().await;
            let are =
                |seats: &[Seat], told| seats.iter().all(|seat| rows[&seat.account].told == told);
            if are(self.lucky(), Told::Healthy) && are(self.unlucky(), Told::ReauthRequired) {
                break;
            }
            let waited = clock.monotonic() - began_at;
            assert!(waited < SETTLED_WITHIN, "seed {}: {rows:?}", self.seed);
            if !is_full() {
                books.later("-").await;
            }
            clock.sleep(LOOK_EVERY).await;
        }
    }

    /// No refresh token came twice, and every account has the pair that the provider takes. Gives
    /// how many refreshes came about.
    async fn judge(&self, provider: &Provider, books: &mut Books) -> u64 {
        let seed = self.seed;
        let counts = provider.counts().await;
        let rows = books.rows().await;
        let mut refreshes = 0;
        for (n, seat) in self.lucky().iter().enumerate() {
            let (issued, replays) = counts[&seat.grant];
            assert_eq!(replays, 0, "seed {seed}: {seat:?} was replayed");
            assert_eq!(
                rows[&seat.account].generation, issued,
                "seed {seed}: {seat:?}"
            );
            refreshes += issued - 1;
            let at = n % self.size.processes;
            let reply = self.signed.refresh(at, seat).await.unwrap().expect(200);
            assert_eq!(state_in(&reply), "healthy", "seed {seed}: {reply}");
        }
        let live = provider.live().await;
        for seat in self.lucky() {
            let next = counts[&seat.grant].0 + 1;
            assert_eq!(live[&seat.grant].generation, next, "seed {seed}: {seat:?}");
        }
        for (n, seat) in self.seats.iter().enumerate() {
            let at = n % self.size.processes;
            self.signed.expect_served(at, seat).await;
        }
        refreshes
    }
}

pub async fn run() {
    let Some(schema) = Schema::new().await else {
        return;
    };
    let size = if is_full() { FULL } else { SLICE };
    let seed = only_seed().unwrap_or(1);
    println!("race of seed {seed}");
    let mut rng = Rng::with_seed(seed);
    let (signed, served) = Signed::new(Some(&schema), size.processes, seed).await;
    let mut seats = Vec::new();
    for n in 0..size.accounts + size.unlucky {
        seats.push(signed.sign_in_and_walk(n % size.processes).await);
    }
    let mut provider = Provider::new(signed.houses[0].clone());
    let mut books = Books::open(&signed.houses[0], Some(&schema)).await;
    let race = Race {
        size,
        seed,
        signed,
        seats,
        is_over: AtomicBool::new(false),
        asked: AtomicU64::new(0),
        put_off: AtomicU64::new(0),
        reads: AtomicU64::new(0),
    };
    race.slow_down(&provider, &mut rng).await;
    let clock = Clock::system();
    let began_at = clock.monotonic();
    let processes = race.size.processes;
    let tasks = (0..processes * race.size.tasks).map(|n| (n % processes, rng.fork()));
    let tasks: Vec<_> = tasks.collect();
    tokio::join!(
        race.count(&mut provider),
        join_all(tasks.into_iter().map(|(at, rng)| race.ask_on(at, rng))),
    );
    let took = clock.monotonic() - began_at;
    race.settle(&mut books).await;
    provider.strike(&[]).await;
    let refreshes = race.judge(&provider, &mut books).await;
    drop(served);
    let log = race.signed.houses[0].log();
    assert!(!log.contains("panicked"), "{log}");
    println!(
        "seed {seed}: {refreshes} refreshes of {} accounts in {took:?}, asked for {} times by {} tasks \
         of {processes} processes ({} were told to come again): 0 replays, 0 lost; {} accounts with \
         a lost reply, each of which was told; {} reads, all served",
        race.lucky().len(),
        race.asked.load(Ordering::Relaxed),
        race.size.tasks * processes,
        race.put_off.load(Ordering::Relaxed),
        race.unlucky().len(),
        race.reads.load(Ordering::Relaxed),
    );
}
