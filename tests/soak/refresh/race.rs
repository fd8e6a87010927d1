//! Many processes, many tasks in each, and all of them want the same accounts refreshed.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use fastrand::Rng;
use futures_util::future::join_all;
use rolecall::clock::Clock;
use serde_json::{Value, json};

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
    signed: Signed,
    seats: Vec<Seat>,
    is_over: AtomicBool,
    asked: AtomicU64,
    /// Answered with a process's "come again".
    put_off: AtomicU64,
    reads: AtomicU64,
}

impl Race {
    async fn ask_on(&self, at: usize, mut rng: Rng) {
        while !self.is_over.load(Ordering::Relaxed) {
            let seat = &self.seats[rng.usize(0..self.seats.len())];
            if rng.u8(0..8) == 0 {
                self.signed.expect_served(at, seat).await;
                self.reads.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            let reply = self.signed.refresh(at, seat).await.expect("it is up");
            self.asked.fetch_add(1, Ordering::Relaxed);
            // Nobody who waits is told that the credential is bad.
            assert!([200, 408].contains(&reply.status), "{reply:?}");
            self.put_off
                .fetch_add(u64::from(reply.status == 408), Ordering::Relaxed);
        }
    }

    /// Ends the race once so many refreshes came about.
    async fn count_to(&self, provider: &mut Provider, refreshes: usize) -> usize {
        let mut seen = 0;
        while seen < refreshes {
            seen += provider.read_on().await;
            Clock::system().sleep(LOOK_EVERY).await;
        }
        self.is_over.store(true, Ordering::Relaxed);
        seen
    }
}

/// Replies that come late: held before the provider has redeemed, and after it has.
fn slow(seats: &[Seat], size: &Size, rng: &mut Rng) -> Vec<(String, u64, Value)> {
    let rounds = (size.refreshes / size.accounts) as u64;
    let mut faults = Vec::new();
    for seat in seats {
        let delay = json!({"kind": "delay", "ms": rng.u64(size.slowest_ms / 10..=size.slowest_ms)});
        faults.push((seat.grant.clone(), rng.u64(0..rounds), delay));
        let rate = rng.u64(size.bytes_per_s..10 * size.bytes_per_s);
        let trickle = json!({"kind": "trickle", "bytes_per_s": rate});
        faults.push((seat.grant.clone(), rng.u64(0..rounds), trickle));
    }
    faults
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
    let (lucky, unlucky) = seats.split_at(size.accounts);
    let (lucky, unlucky) = (lucky.to_vec(), unlucky.to_vec());
    let mut provider = Provider::new(signed.houses[0].clone());
    let mut books = Books::open(&signed.houses[0], Some(&schema)).await;
    let mut faults = slow(&lucky, &size, &mut rng);
    for seat in &unlucky {
        let cut = if rng.bool() {
            json!({"kind": "drop_reply"})
        } else {
            json!({"kind": "truncate", "bytes": rng.u64(0..100)})
        };
        faults.push((seat.grant.clone(), rng.u64(0..3), cut));
    }
    let by_grant: Vec<_> = faults
        .iter()
        .map(|(grant, after, fault)| (grant.as_str(), *after, fault.clone()))
        .collect();
    provider.strike(&by_grant).await;
    provider.read_on().await;

    let race = Race {
        signed,
        seats,
        is_over: AtomicBool::new(false),
        asked: AtomicU64::new(0),
        put_off: AtomicU64::new(0),
        reads: AtomicU64::new(0),
    };
    let clock = Clock::system();
    let began_at = clock.monotonic();
    let tasks = (0..size.processes * size.tasks).map(|n| (n % size.processes, rng.fork()));
    let tasks: Vec<_> = tasks.collect();
    let (refreshes, _) = tokio::join!(
        race.count_to(&mut provider, size.refreshes),
        join_all(tasks.into_iter().map(|(at, rng)| race.ask_on(at, rng))),
    );
    let took = clock.monotonic() - began_at;

    // What is slow comes yet, and of each pair that got lost the provider has said so twice.
    let is_settled = |told: Told, is_lucky: bool| match is_lucky {
        true => told == Told::Healthy,
        false => told == Told::ReauthRequired,
    };
    let began_at = clock.monotonic();
    loop {
        let rows = books.rows().await;
        let of = |seat: &Seat, is_lucky| is_settled(rows[&seat.account].told, is_lucky);
        if lucky.iter().all(|seat| of(seat, true)) && unlucky.iter().all(|seat| of(seat, false)) {
            break;
        }
        assert!(
            clock.monotonic() - began_at < SETTLED_WITHIN,
            "seed {seed}: {rows:?}"
        );
        if !is_full() {
            books.later("-").await;
        }
        clock.sleep(LOOK_EVERY).await;
    }
    provider.strike(&[]).await;
    let counts = provider.counts().await;
    let (live, rows) = (provider.live().await, books.rows().await);
    for (n, seat) in lucky.iter().enumerate() {
        let (issued, replays) = counts[&seat.grant];
        assert_eq!(replays, 0, "seed {seed}: {seat:?} was replayed");
        assert_eq!(live[&seat.grant].generation, issued, "{seat:?}");
        assert_eq!(rows[&seat.account].generation, issued, "{seat:?}");
        let at = n % size.processes;
        let reply = race.signed.refresh(at, seat).await.unwrap().expect(200);
        assert_eq!(state_in(&reply), "healthy", "seed {seed}: {reply}");
        race.signed.expect_served(at, seat).await;
    }
    let live: HashMap<_, _> = provider.live().await;
    for seat in &lucky {
        assert_eq!(live[&seat.grant].generation, counts[&seat.grant].0 + 1);
    }
    for (n, seat) in unlucky.iter().enumerate() {
        race.signed.expect_served(n % size.processes, seat).await;
    }
    drop(served);
    assert!(!race.signed.houses[0].log().contains("panicked"));
    println!(
        "seed {seed}: {refreshes} refreshes of {} accounts in {took:?}, asked for {} times ({} were told to \
         come again) by {} tasks of {} processes; 0 replays, 0 lost; {} with a lost reply were told of, each; \
         {} reads, all served",
        lucky.len(),
        race.asked.into_inner(),
        race.put_off.into_inner(),
        size.tasks * size.processes,
        size.processes,
        unlucky.len(),
        race.reads.into_inner(),
    );
}

const _: () = assert!(SETTLED_WITHIN.as_secs() > Duration::from_secs(300).as_secs());
