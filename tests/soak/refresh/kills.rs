//! `kill -9` at named points of a refresh, and at random moments of many.
//!
//! One kill meets several refreshes, each at a point of its own. So there is what a kill waited for
//! (its [`Point`]) and what it met ([`Met`]), which is read from what the dead process left: the
//! rows that it had in flight, the pairs in its journal, and the provider's truth.
//!
//! Between the provider's spending of a refresh token and the new pair on our disk an account is
//! lost with the process. That is the window, and only who was met in it may have to sign in anew.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use fastrand::Rng;
use futures_util::future::{join, join_all};
use reqwest::Method;
use rolecall::clock::Clock;
use serde_json::json;

use super::{
    LOOK_EVERY, SETTLED_WITHIN,
    books::{Books, Row, Told, journaled, node},
    points::{Lookout, NAMED, Plan, Point},
    provider::{Live, Provider},
    signed::{Seat, Signed, state_in},
};
use crate::{is_full, only_seed, process::Served, schema::Schema, world::Reply};

/// Where a refresh was when its process was killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Met {
    /// Nothing had arrived at the provider.
    Unsent,
    /// The provider had not redeemed.
    Arrived,
    /// It had, and a fault held its reply back or cut it off.
    Replying,
    /// It had, and the reply was on its way, or the pair in memory alone.
    InHand,
    /// The pair was in the journal.
    Journaled,
}

/// An account that was met by a kill.
struct Struck {
    seat: Seat,
    met: Met,
    /// The generation that was redeemed, or was to be.
    generation: u64,
}

/// Why an account may have lost its pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Excuse {
    /// The provider redeemed what a process had sent, which was killed before the pair was on disk.
    /// What came later than the kill, in the provider's time, is no excuse.
    Killed { met: Met, before_ms: i64 },
    /// The reply was lost on the way.
    ReplyLost,
}

/// An account in doubt, which nobody asks for any more.
struct Doubted {
    seat: Seat,
    generation: u64,
    excuse: Option<Excuse>,
}

#[derive(Default)]
struct Seen {
    kills: BTreeMap<Point, u64>,
    met: BTreeMap<Met, u64>,
    kept: BTreeMap<Met, u64>,
    /// Of which the customer must sign in anew. None: the reply was lost, and nobody killed.
    lost: BTreeMap<Option<Met>, u64>,
    /// The longest that a pair which was lost with a kill had been in memory alone.
    longest_in_hand_ms: i64,
    /// The longest from the provider's reply to the beginning of the pair's commit.
    longest_window_ms: i64,
    refreshes: u64,
}

struct Proof {
    signed: Signed,
    served: Vec<Option<Served>>,
    books: Books,
    provider: Provider,
    rng: Rng,
    seed: u64,
    /// The accounts that are played with.
    seats: Vec<Seat>,
    doubted: Vec<Doubted>,
    /// Whose pair no kill may take: the generation that was seen on disk, by account.
    on_disk: HashMap<String, u64>,
    /// Grants whose replies a fault holds or cuts, and of these the latter.
    held: HashSet<String>,
    cut: HashSet<String>,
    seen: Seen,
}

pub async fn run(schema: Option<&Schema>, processes: usize) {
    let (kills, random) = if is_full() { (500, 250) } else { (9, 2) };
    let seed = only_seed().unwrap_or(1);
    let mut proof = Proof::new(schema, processes, seed).await;
    let (mut done, mut done_at_random, mut named) = (0, 0, NAMED.iter().cycle());
    while done < kills {
        // Evenly among the others, and the last one.
        let is_random = (done_at_random + 1) * kills <= random * (done + 1);
        let point = match is_random {
            true => Point::Random,
            false => *named.next().expect("there is always another"),
        };
        println!("kill {done} of seed {seed}: {point:?}");
        done += proof.kill(point, done + 1 == kills).await;
        done_at_random += usize::from(is_random);
    }
    proof.settle().await;
    proof.tell();
}

impl Proof {
    async fn new(schema: Option<&Schema>, processes: usize, seed: u64) -> Self {
        let (signed, served) = Signed::new(schema, processes, seed).await;
        let mut seats = Vec::new();
        for n in 0..accounts() {
            seats.push(signed.sign_in_and_walk(n % processes).await);
        }
        let mut provider = Provider::new(signed.houses[0].clone());
        provider.read_on().await;
        Self {
            books: Books::open(&signed.houses[0], schema).await,
            provider,
            signed,
            served,
            rng: Rng::with_seed(seed),
            seed,
            seats,
            doubted: Vec::new(),
            on_disk: HashMap::new(),
            held: HashSet::new(),
            cut: HashSet::new(),
            seen: Seen::default(),
        }
    }

    /// Kills a process at this point, and sees to what it left. Gives how many kills that took.
    /// The last one that is killed stays so, if there are others.
    async fn kill(&mut self, point: Point, is_last: bool) -> usize {
        let plan = self.prepare(point).await;
        let is_target = |seat: &&Seat| {
            let mut targets = plan.targets.iter();
            targets.any(|(target, _)| target.account == seat.account)
        };
        let others: Vec<_> = self.seats.iter().filter(|seat| !is_target(seat)).collect();
        let tasks = if is_full() { 4 } else { 3 };
        let tasks: Vec<_> = (0..tasks).map(|_| self.rng.fork()).collect();
        let signed = &self.signed;
        let asking = async {
            let targets = plan.targets.iter().map(|(seat, _)| async {
                loop {
                    let told = signed.refresh(plan.at, seat).await;
                    // Those are held at once; these pass, and are looked for again.
                    let passes = matches!(point, Point::Unsent | Point::Committed);
                    if told.is_some_and(|told| has_begun(&told, plan.began_ms)) && !passes {
                        break;
                    }
                    Clock::system().sleep(LOOK_EVERY).await;
                }
            });
            let others = tasks.into_iter().map(|rng| play(signed, &others, rng));
            join(join_all(targets), join_all(others)).await;
        };
        let process = self.served[plan.at].take().expect("it is up");
        let mut lookout = Lookout {
            plan: &plan,
            houses: &signed.houses,
            seats: &self.seats,
            process: &process,
            books: &mut self.books,
            provider: &mut self.provider,
        };
        // Whoever asks hangs up then, which ends no refresh.
        tokio::select! {
            () = asking => panic!("somebody always asks"),
            () = lookout.wait() => {}
        }
        let killed_ms = Clock::system().now().as_millisecond();
        process.kill().await;
        *self.seen.kills.entry(point).or_default() += 1;
        // What is asked from now on is not struck.
        self.provider.strike(&[]).await;
        let struck = self.look(Some((&plan, killed_ms))).await;
        if point == Point::Journaled {
            self.books.release().await;
        }
        let mut kills = 1;
        if point == Point::Journaled && self.recovers_in_part(plan.at).await {
            *self.seen.kills.entry(Point::Recovering).or_default() += 1;
            kills += 1;
        }
        let before_ms = Clock::system().now().as_millisecond();
        // Now and then others have to see to what it left.
        let is_other_up = self.served.iter().any(Option::is_some);
        let is_left = is_other_up && (is_last || self.rng.u8(0..8) == 0);
        if is_left && journaled(&self.signed.houses[plan.at]).is_empty() {
            self.see_to(struck, None, before_ms).await;
        } else {
            self.start_all().await;
            self.see_to(struck, Some(plan.at), before_ms).await;
        }
        self.fill_up().await;
        kills
    }

    /// Starts whatever is down.
    async fn start_all(&mut self) {
        for at in 0..self.served.len() {
            if self.served[at].is_none() {
                self.start(at).await;
            }
        }
    }

    /// Starts a process. Once it is up, what waited in its journal is in the database.
    async fn start(&mut self, at: usize) {
        let house = &self.signed.houses[at];
        let waiting = journaled(house);
        let mut served = house.serve();
        house.up(&mut served).await;
        self.served[at] = Some(served);
        let left = &waiting & &journaled(house);
        assert!(left.is_empty(), "seed {}: {left:?} still waits", self.seed);
        let rows = self.books.rows().await;
        for (account, redeemed) in waiting {
            let row = &rows[&account];
            assert!(
                row.generation > redeemed,
                "seed {}: {account} is lost from the journal: {row:?}",
                self.seed
            );
        }
    }

    /// Chooses whom to kill, and has the provider hold what it must.
    async fn prepare(&mut self, point: Point) -> Plan {
        let began_ms = Clock::system().now().as_millisecond();
        let rows = self.books.rows().await;
        let seats = self.seats.iter().cloned();
        let (mut idle, busy): (Vec<_>, Vec<_>) =
            seats.partition(|seat| rows[&seat.account].told == Told::Healthy);
        let is_busy = |grant: &String| busy.iter().any(|seat| seat.grant == *grant);
        self.held.retain(is_busy);
        self.cut.retain(is_busy);
        self.rng.shuffle(&mut idle);
        let up = (0..self.served.len()).filter(|at| self.served[*at].is_some());
        let up: Vec<_> = up.collect();
        let mut plan = Plan {
            point,
            at: up[self.rng.usize(0..up.len())],
            targets: Vec::new(),
            began_ms,
            moment: Duration::from_millis(self.rng.u64(0..700)),
        };
        let ms = self.rng.u64(1_000..if is_full() { 50_000 } else { 3_000 });
        let fault = match point {
            Point::Unsent | Point::Committed | Point::Random => None,
            Point::Arrived => Some(json!({"kind": "delay", "ms": ms})),
            // A reply has about 170 bytes: eight seconds.
            Point::Replying => Some(json!({"kind": "trickle", "bytes_per_s": 20})),
            Point::ReplyLost if self.rng.bool() => Some(json!({"kind": "truncate", "bytes": 50})),
            Point::ReplyLost => Some(json!({"kind": "drop_reply"})),
            Point::Journaled | Point::Recovering => {
                Some(json!({"kind": "trickle", "bytes_per_s": 200}))
            }
        };
        let targets = match point {
            Point::Random => 0,
            Point::Journaled => 4,
            _ => 2,
        };
        let mut faults = Vec::new();
        for seat in idle.split_off(idle.len().saturating_sub(targets)) {
            if let Some(fault) = &fault {
                faults.push((seat.grant.clone(), 0, fault.clone()));
                self.held.insert(seat.grant.clone());
            }
            if point == Point::ReplyLost {
                self.cut.insert(seat.grant.clone());
            }
            plan.targets
                .push((seat.clone(), rows[&seat.account].generation));
        }
        // And of the others, one reply that is slow, and now and then one that is lost.
        if let Some(seat) = idle.pop() {
            let ms = self.rng.u64(100..if is_full() { 50_000 } else { 2_000 });
            faults.push((seat.grant.clone(), 0, json!({"kind": "delay", "ms": ms})));
            self.held.insert(seat.grant);
        }
        if let Some(seat) = idle.pop().filter(|_| self.rng.u8(0..4) == 0) {
            faults.push((seat.grant.clone(), 0, json!({"kind": "drop_reply"})));
            self.held.insert(seat.grant.clone());
            self.cut.insert(seat.grant);
        }
        let faults: Vec<_> = faults
            .iter()
            .map(|(grant, after, fault)| (grant.as_str(), *after, fault.clone()))
            .collect();
        self.provider.strike(&faults).await;
        plan
    }

    /// Starts the process that was killed, and kills it once it has stored some of the pairs in its
    /// journal. False if it had done so with all of them before it could be killed.
    async fn recovers_in_part(&mut self, at: usize) -> bool {
        let house = self.signed.houses[at].clone();
        let waiting = journaled(&house).len();
        if waiting == 0 {
            return false;
        }
        let served = house.serve();
        let clock = Clock::system();
        let began_at = clock.monotonic();
        while journaled(&house).len() == waiting {
            assert!(
                clock.monotonic() - began_at < SETTLED_WITHIN,
                "{}",
                house.log()
            );
            tokio::task::yield_now().await;
        }
        served.kill().await;
        true
    }

    /// Looks at every account as it is just now, and gives those that a kill has met.
    async fn look(&mut self, killed: Option<(&Plan, i64)>) -> Vec<Struck> {
        // In this order: what the rows have came later than what the provider says.
        let live = self.provider.live().await;
        let rows = self.books.rows().await;
        self.provider.read_on().await;
        let now_ms = Clock::system().now().as_millisecond();
        let mut struck = Vec::new();
        let doubted = self.doubted.iter().map(|each| (&each.seat, Some(each)));
        for (seat, doubted) in self.seats.iter().map(|seat| (seat, None)).chain(doubted) {
            let (row, live) = (&rows[&seat.account], live[&seat.grant]);
            self.expect_told(seat, row, live);
            let on_disk = self.on_disk.entry(seat.account.clone()).or_default();
            assert!(row.generation >= *on_disk, "{seat:?} went back to {row:?}");
            *on_disk = row.generation;
            let Some((plan, killed_ms)) = killed else {
                continue;
            };
            let is_held = self.held.contains(&seat.grant);
            if row.told == Told::Healthy && row.generation == live.generation && !is_held {
                let window = row.since_ms - live.issued_at_ms;
                if row.generation > 1 {
                    self.seen.longest_window_ms = self.seen.longest_window_ms.max(window);
                }
            }
            let house = &self.signed.houses[plan.at];
            let is_of_the_dead = row.node.as_deref() == Some(node(house, &self.books).as_str());
            let is_lost = doubted.is_some_and(|each| self.is_excused(each, live));
            if !is_of_the_dead || is_lost {
                continue;
            }
            let pair = (seat.account.clone(), row.generation);
            let last_call = self.provider.last_call(&seat.grant, now_ms);
            let met = if journaled(house).contains(&pair) {
                Met::Journaled
            } else if live.generation > row.generation && is_held {
                Met::Replying
            } else if live.generation > row.generation {
                let in_hand = killed_ms - live.issued_at_ms;
                self.seen.longest_in_hand_ms = self.seen.longest_in_hand_ms.max(in_hand);
                Met::InHand
            } else if last_call.is_some_and(|call| call.at_ms >= row.since_ms) {
                Met::Arrived
            } else {
                Met::Unsent
            };
            *self.seen.met.entry(met).or_default() += 1;
            struck.push(Struck {
                seat: seat.clone(),
                met,
                generation: row.generation,
            });
        }
        // Those whose reply was lost, and their process knows.
        let (doubted, seats): (Vec<_>, Vec<_>) = std::mem::take(&mut self.seats)
            .into_iter()
            .partition(|seat| {
                let told = rows[&seat.account].told;
                matches!(told, Told::Uncertain | Told::ReauthRequired)
            });
        self.seats = seats;
        self.doubted.extend(doubted.into_iter().map(|seat| Doubted {
            generation: rows[&seat.account].generation,
            excuse: self.cut.contains(&seat.grant).then_some(Excuse::ReplyLost),
            seat,
        }));
        struck
    }

    /// Nobody is told that all is well while the provider takes another pair than the one that is
    /// stored, nor that it is dead while it is not.
    #[track_caller]
    fn expect_told(&self, seat: &Seat, row: &Row, live: Live) {
        assert!(
            row.told != Told::Healthy || row.generation >= live.generation,
            "seed {}: {seat:?} is lost silently: {row:?}, {live:?}",
            self.seed
        );
        assert!(
            row.told != Told::ReauthRequired || row.generation < live.generation,
            "seed {}: {seat:?} is told dead and is not: {row:?}, {live:?}",
            self.seed
        );
    }

    /// Asks the process that was killed, if it is up again, for a refresh of everybody whom the kill
    /// met, which is a replay of what was in flight; and sets those apart who are in doubt then.
    async fn see_to(&mut self, struck: Vec<Struck>, at: Option<usize>, before_ms: i64) {
        for each in struck {
            let met = each.met;
            let excuse = Some(Excuse::Killed { met, before_ms });
            let mut doubted = self.doubted.iter_mut();
            if let Some(doubted) = doubted.find(|doubted| doubted.seat.account == each.seat.account)
            {
                doubted.excuse = excuse;
                doubted.generation = each.generation;
                continue;
            }
            let told = match at {
                Some(at) => self.signed.refresh(at, &each.seat).await,
                None => None,
            };
            let told = told.filter(|reply| reply.status == 200);
            let is_healthy = told.is_some_and(|reply| state_in(&reply.json()) == "healthy");
            if is_healthy {
                *self.seen.kept.entry(each.met).or_default() += 1;
                continue;
            }
            self.seats.retain(|seat| seat.account != each.seat.account);
            self.doubted.push(Doubted {
                excuse,
                generation: each.generation,
                seat: each.seat,
            });
        }
    }

    /// Somebody signs in for every account that is in doubt.
    async fn fill_up(&mut self) {
        let at = self.served.iter().position(Option::is_some);
        let at = at.expect("one is up");
        while self.seats.len() < accounts() {
            let seat = self.signed.sign_in(at).await;
            self.seats.push(seat);
        }
    }

    /// Waits until every account is either well or told to be lost, and judges.
    async fn settle(&mut self) {
        self.provider.strike(&[]).await;
        let mut dead = None;
        for at in 0..self.served.len() {
            match (&self.served[at], dead) {
                (Some(_), _) => {}
                (None, None) => dead = Some(at),
                (None, Some(_)) => self.start(at).await,
            }
        }
        let dead = dead.map(|at| node(&self.signed.houses[at], &self.books));
        let clock = Clock::system();
        let began_at = clock.monotonic();
        let rows = loop {
            let rows = self.books.rows().await;
            let in_doubt =
                |account: &String| matches!(rows[account].told, Told::Refreshing | Told::Uncertain);
            let doubted = self.doubted.iter().map(|each| &each.seat);
            let mut all = doubted.chain(&self.seats).map(|seat| &seat.account);
            if !all.any(in_doubt) {
                break rows;
            }
            assert!(clock.monotonic() - began_at < SETTLED_WITHIN, "{rows:?}");
            if !is_full() {
                self.books.later(dead.as_deref().unwrap_or("-")).await;
            }
            clock.sleep(LOOK_EVERY).await;
        };
        self.look(None).await;
        // From its beginning: what was being served when it was read has an answer by now.
        self.provider = Provider::new(self.signed.houses[0].clone());
        self.provider.read_on().await;
        let live = self.provider.live().await;
        let at = self.served.iter().position(Option::is_some).unwrap();
        let counts = self.provider.counts().await;
        self.seen.refreshes = counts.values().map(|(issued, _)| issued - 1).sum();
        let mut lost: BTreeMap<Option<Met>, u64> = BTreeMap::new();
        for each in std::mem::take(&mut self.doubted) {
            let (row, live) = (&rows[&each.seat.account], live[&each.seat.grant]);
            self.expect_told(&each.seat, row, live);
            if row.told == Told::ReauthRequired {
                assert!(
                    self.is_excused(&each, live),
                    "seed {}: {:?} is lost outside the window: {:?}, {row:?}, {live:?}",
                    self.seed,
                    each.seat,
                    each.excuse
                );
                let why = match each.excuse {
                    Some(Excuse::Killed { met, .. }) => Some(met),
                    Some(Excuse::ReplyLost) | None => None,
                };
                *lost.entry(why).or_default() += 1;
                self.expect_told_to_sign_in(at, &each.seat).await;
            } else {
                self.seats.push(each.seat);
            }
        }
        for seat in &self.seats {
            let reply = self.signed.refresh(at, seat).await.unwrap().expect(200);
            assert_eq!(
                state_in(&reply),
                "healthy",
                "seed {}: {seat:?} {reply}",
                self.seed
            );
            self.signed.expect_served(at, seat).await;
        }
        let served = self.served.iter_mut().filter_map(Option::take);
        for each in served {
            each.kill().await;
        }
        self.seen.lost = lost;
    }

    /// Whether an account may have lost this pair, which the provider takes.
    fn is_excused(&self, each: &Doubted, live: Live) -> bool {
        let call = self.provider.redeemer(&each.seat.grant, live.issued_at_ms);
        live.generation == each.generation + 1
            && match each.excuse {
                None => false,
                Some(Excuse::ReplyLost) => true,
                Some(Excuse::Killed { met, before_ms }) => {
                    met != Met::Journaled && call.is_some_and(|call| call.at_ms <= before_ms)
                }
            }
    }

    /// An account that is lost says so, and what to do.
    async fn expect_told_to_sign_in(&self, at: usize, seat: &Seat) {
        let path = format!("/accounts/{}", seat.account);
        let account = self.signed.houses[at].ask(Method::GET, &path, None, None);
        let account = account.await.unwrap().expect(200);
        assert_eq!(state_in(&account), "reauth_required");
        assert_eq!(account["status"], "error");
        assert_eq!(account["status_reasons"][0]["code"], "reauth_required");
        self.signed.expect_served(at, seat).await;
    }

    fn tell(&self) {
        let seen = &self.seen;
        let log = self.signed.houses[0].log();
        assert!(!log.contains("panicked"), "{log}");
        println!(
            "seed {}: {} kills, at {:?}; {} refreshes; the kills met {:?}, of which the next run kept \
             {:?} at once; signed in anew must be {:?} (None: a reply was lost, and nobody killed); \
             0 lost outside the window, 0 silent; the longest that a lost pair was in memory alone \
             {} ms, and the longest from a pair's issue to its commit {} ms",
            self.seed,
            seen.kills.values().sum::<u64>(),
            seen.kills,
            seen.refreshes,
            seen.met,
            seen.kept,
            seen.lost,
            seen.longest_in_hand_ms,
            seen.longest_window_ms,
        );
    }
}

/// Whether a refresh has begun since then. One that was at its end just then is told to whoever asks
/// before it has ended.
fn has_begun(told: &Reply, since_ms: i64) -> bool {
    match told.status {
        408 => true,
        200 => {
            let account = told.json();
            let since: jiff::Timestamp = account["credential"]["since"]
                .as_str()
                .unwrap()
                .parse()
                .unwrap();
            state_in(&account) != "healthy" || since.as_millisecond() >= since_ms
        }
        _ => false,
    }
}

/// How many accounts are played with.
fn accounts() -> usize {
    if is_full() { 60 } else { 6 }
}

/// Refresh after refresh of accounts by chance, through processes by chance.
async fn play(signed: &Signed, seats: &[&Seat], mut rng: Rng) {
    loop {
        let seat = seats[rng.usize(0..seats.len())];
        let at = rng.usize(0..signed.houses.len());
        if rng.u8(0..16) == 0 {
            signed.expect_served(at, seat).await;
        }
        if signed.refresh(at, seat).await.is_none() {
            Clock::system().sleep(LOOK_EVERY).await;
        }
    }
}
