//! Processes that share a token's budget: each [`Process`] has an [`Outbound`] of its own, and all
//! of them use one store.
//!
//! Time is paused while a task can run, and then skips to the next timer. The database runs on a
//! runtime of its own. Time does not advance while it works, and its clock is set before each call.

use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use tokio::{
    runtime::{Builder, Handle, Runtime},
    sync::oneshot,
    task::JoinHandle,
};

use super::{limits::most_in_a_minute, *};
use crate::{
    crypto::{KeyRing, Rng},
    gateway::SharedBudgets,
    model::budgets::{Settlement, SliceAnswer, SliceOrder, Throttling},
    outbound::token_limiter::{Permit, Rejected, RetryAfter, TokenLimiter},
    store::Store,
};

const MINUTE: Duration = Duration::from_secs(60);

/// The shared database.
struct Database {
    shares: SharedBudgets,
    clock: Clock,
    told: Mutex<Duration>,
    runtime: Handle,
}

impl Database {
    /// Runs `work` after setting the database's clock to the current time.
    async fn at_work<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> T {
        {
            let now = Clock::system().monotonic();
            let mut told = self.told.lock().unwrap();
            self.clock.advance(now - *told);
            *told = now;
        }
        let runtime = self.runtime.clone();
        tokio::task::spawn_blocking(move || runtime.block_on(work))
            .await
            .unwrap()
    }
}

/// Runs `world` on a paused clock that skips every wait except for database work.
fn run<T, F: Future<Output = T>>(world: impl FnOnce(Arc<Database>) -> F) -> T {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}/store.db", folder.path().display());
    let runtime: Runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let ring = KeyRing::generate("a", &Rng::system()).unwrap();
    let clock = Clock::skipping("2026-11-22T12:00:00Z".parse().unwrap());
    let store = runtime
        .block_on(Store::open(&url, ring, clock.clone()))
        .unwrap();
    let outcome = Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(async {
            world(Arc::new(Database {
                shares: SharedBudgets::new(store.clone()),
                clock,
                told: Mutex::new(Clock::system().monotonic()),
                runtime: runtime.handle().clone(),
            }))
            .await
        });
    runtime.block_on(store.close());
    outcome
}

/// A process's connection to the database: it has latency, loses replies, and fails once the
/// process is killed.
struct DatabaseLink {
    database: Arc<Database>,
    rng: Mutex<fastrand::Rng>,
    slowest_ms: u64,
    lost_percent: u64,
    is_dead: AtomicBool,
}

impl DatabaseLink {
    fn draw(&self, below: u64) -> u64 {
        self.rng.lock().unwrap().u64(0..below)
    }

    async fn over<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, SharedQuotaError>> + Send + 'static,
    ) -> Result<T, SharedQuotaError> {
        let lost = || SharedQuotaError {
            detail: "the connection broke".to_owned(),
            retry_after: None,
        };
        self.travel().await;
        if self.is_dead.load(Ordering::Relaxed) {
            return Err(lost());
        }
        let outcome = self.database.at_work(work).await;
        self.travel().await;
        match self.draw(100) < self.lost_percent || self.is_dead.load(Ordering::Relaxed) {
            true => Err(lost()),
            false => outcome,
        }
    }

    async fn travel(&self) {
        let millis = self.draw(self.slowest_ms + 1);
        Clock::system().sleep(Duration::from_millis(millis)).await;
    }
}

#[async_trait]
impl SharedQuota for DatabaseLink {
    async fn take(
        &self,
        budget: &SharedBudget,
        order: &SliceOrder,
    ) -> Result<SliceAnswer, SharedQuotaError> {
        let (shares, budget, order) = (self.database.shares.clone(), *budget, *order);
        self.over(async move { shares.take(&budget, &order).await })
            .await
    }

    async fn settle(
        &self,
        budget: &SharedBudget,
        settlement: &Settlement,
    ) -> Result<(), SharedQuotaError> {
        let (shares, budget, settlement) = (self.database.shares.clone(), *budget, *settlement);
        self.over(async move { shares.settle(&budget, &settlement).await })
            .await
    }

    async fn pause(
        &self,
        budget: &SharedBudget,
        throttling: &Throttling,
    ) -> Result<(), SharedQuotaError> {
        let (shares, budget, throttling) = (self.database.shares.clone(), *budget, *throttling);
        self.over(async move { shares.pause(&budget, &throttling).await })
            .await
    }
}

/// The load and the network conditions of a process.
#[derive(Clone, Copy)]
struct Weather {
    limit: u32,
    workers: usize,
    /// The maximum latency to the provider, and back.
    slowest_ms: u64,
    /// The percentage of calls that take up to a minute to arrive; half of them are canceled.
    stragglers: u64,
    link_slowest_ms: u64,
    link_lost_percent: u64,
}

const FAIR: Weather = Weather {
    limit: 300,
    workers: 8,
    slowest_ms: 400,
    stragglers: 0,
    link_slowest_ms: 10,
    link_lost_percent: 0,
};

const FOUL: Weather = Weather {
    limit: 40,
    workers: 12,
    slowest_ms: 3_000,
    stragglers: 10,
    link_slowest_ms: 700,
    link_lost_percent: 3,
};

const DAWDLING: Weather = Weather {
    limit: 20,
    workers: 20,
    slowest_ms: 300,
    stragglers: 70,
    link_slowest_ms: 10,
    link_lost_percent: 0,
};

/// A provider that records its requests.
#[derive(Default)]
struct NotingProvider {
    /// When requests were sent, arrived and were answered.
    sent: Mutex<Vec<Duration>>,
    arrived: Mutex<Vec<Duration>>,
    answered: Mutex<Vec<Duration>>,
    /// The response to the first request that arrives after this time.
    refusal: Mutex<Option<(Duration, RetryAfter)>>,
    refused: Mutex<Option<Duration>>,
}

impl NotingProvider {
    fn refuse_after(&self, from: Duration, retry_after_header: RetryAfter) {
        *self.refusal.lock().unwrap() = Some((from, retry_after_header));
    }

    /// Records the arrival of a request; returns the wait if it is refused.
    fn classify(&self) -> Option<RetryAfter> {
        let now = Clock::system().monotonic();
        self.arrived.lock().unwrap().push(now);
        let mut refusal = self.refusal.lock().unwrap();
        refusal
            .take_if(|&mut (from, _)| now > from)
            .map(|(_, retry_after_header)| retry_after_header)
    }

    fn refused_at(&self) -> Duration {
        self.refused.lock().unwrap().unwrap()
    }
}

fn sorted(noted: &Mutex<Vec<Duration>>) -> Vec<Duration> {
    let mut noted = noted.lock().unwrap().clone();
    noted.sort_unstable();
    noted
}

fn note(noted: &Mutex<Vec<Duration>>) {
    noted.lock().unwrap().push(Clock::system().monotonic());
}

fn count_within(noted: &[Duration], from: Duration, to: Duration) -> usize {
    noted.iter().filter(|&&at| at >= from && at < to).count()
}

/// A process that uses the token.
struct Process {
    link: Arc<DatabaseLink>,
    limiter: Arc<TokenLimiter>,
    outbound: Outbound,
    workers: Vec<JoinHandle<()>>,
}

impl Process {
    fn start(database: &Arc<Database>, weather: Weather, seed: u64) -> Self {
        let link = Arc::new(DatabaseLink {
            database: Arc::clone(database),
            rng: Mutex::new(fastrand::Rng::with_seed(seed)),
            slowest_ms: weather.link_slowest_ms,
            lost_percent: weather.link_lost_percent,
            is_dead: AtomicBool::new(false),
        });
        let settings = OutboundSettings {
            rate_limit: weather.limit,
            ..OutboundSettings::default()
        };
        let shares = Arc::clone(&link) as Arc<dyn SharedQuota>;
        let outbound = Outbound::new(settings, Clock::system(), seed, Some(shares)).unwrap();
        let route = ClientScope {
            is_newly_linked: false,
            ..route("token")
        };
        Self {
            limiter: outbound.0.limiter(&route),
            link,
            outbound,
            workers: Vec::new(),
        }
    }

    fn work(&mut self, provider: &Arc<NotingProvider>, weather: Weather) {
        for _ in 0..weather.workers {
            let seed = self.link.draw(u64::MAX);
            let worker = work(
                Arc::clone(&self.limiter),
                Arc::clone(provider),
                weather,
                seed,
            );
            self.workers.push(tokio::spawn(worker));
        }
    }

    /// Like `kill -9`: nothing is returned or reported.
    fn kill(self) {
        self.link.is_dead.store(true, Ordering::Relaxed);
        for worker in &self.workers {
            worker.abort();
        }
    }

    async fn enter(&self) -> Permit {
        self.limiter
            .enter(Priority::Background, None)
            .await
            .unwrap()
    }
}

/// Sends calls one after the other.
async fn work(
    limiter: Arc<TokenLimiter>,
    provider: Arc<NotingProvider>,
    weather: Weather,
    seed: u64,
) {
    let clock = Clock::system();
    let mut rng = fastrand::Rng::with_seed(seed);
    loop {
        let permit = match limiter.enter(Priority::Background, None).await {
            Ok(permit) => permit,
            Err(Rejected::Unknown(_)) => {
                clock.sleep(Duration::from_secs(1)).await;
                continue;
            }
            Err(Rejected::In(wait)) => panic!("a patient call is told to wait {wait:?}"),
        };
        let is_straggler = rng.u64(0..100) < weather.stragglers;
        let slowest = if is_straggler {
            60_000
        } else {
            weather.slowest_ms
        };
        let there = Duration::from_millis(rng.u64(0..=slowest));
        let back = Duration::from_millis(rng.u64(0..=weather.slowest_ms));
        let patience = match is_straggler && rng.bool() {
            true => Duration::from_millis(rng.u64(0..=slowest)),
            false => MINUTE,
        };
        note(&provider.sent);
        // A request that was sent arrives even if its sender was canceled.
        let (answer, answered) = oneshot::channel();
        let noting = Arc::clone(&provider);
        tokio::spawn(async move {
            let clock = Clock::system();
            clock.sleep(there).await;
            let refusal = noting.classify();
            clock.sleep(back).await;
            let _ = answer.send(refusal);
        });
        tokio::select! {
            refusal = answered => match refusal.unwrap() {
                None => {
                    note(&provider.answered);
                    permit.answered();
                }
                Some(retry_after_header) => {
                    *provider.refused.lock().unwrap() = Some(clock.monotonic());
                    permit.throttled(retry_after_header);
                }
            },
            () = clock.sleep(patience) => drop(permit),
        }
    }
}

/// The arrival times of requests of three processes in six minutes, while the processes are killed
/// and replaced in turn.
fn arrivals_among_kills(weather: Weather, seed: u64) -> Vec<Duration> {
    run(|database| async move {
        let provider = Arc::new(NotingProvider::default());
        let mut rng = fastrand::Rng::with_seed(seed);
        let clock = Clock::system();
        let mut start = || {
            let mut process = Process::start(&database, weather, rng.u64(..));
            process.work(&provider, weather);
            let lives_for = Duration::from_millis(rng.u64(1..60_000));
            (clock.monotonic() + lives_for, process)
        };
        let from = clock.monotonic();
        let mut processes = [start(), start(), start()];
        while clock.monotonic() - from < MINUTE * 6 {
            processes.sort_unstable_by_key(|&(dies_at, _)| dies_at);
            let wait = processes[0].0.saturating_sub(clock.monotonic());
            clock.sleep(wait).await;
            let (_, dead) = std::mem::replace(&mut processes[0], start());
            dead.kill();
        }
        for (_, process) in processes {
            process.kill();
        }
        clock.sleep(MINUTE).await;
        sorted(&provider.arrived)
    })
}

#[test]
fn whatever_happens_no_minute_holds_more_than_the_limit() {
    for (weather, seed) in [(FOUL, 1), (FOUL, 2), (DAWDLING, 3), (DAWDLING, 4)] {
        let arrived = arrivals_among_kills(weather, seed);
        let most = most_in_a_minute(&arrived);
        println!(
            "seed {seed}: {} requests, {most} in a minute",
            arrived.len()
        );
        assert!(most <= weather.limit as usize, "seed {seed}: {most}");
        assert!(arrived.len() > 50, "seed {seed}: {}", arrived.len());
    }
}

/// Runs two processes, one of which is refused with this `Retry-After` after a minute, and then for
/// this many minutes more.
fn after_a_refusal(retry_after_header: RetryAfter, minutes: u32) -> Arc<NotingProvider> {
    run(|database| async move {
        let provider = Arc::new(NotingProvider::default());
        let clock = Clock::system();
        provider.refuse_after(clock.monotonic() + MINUTE, retry_after_header);
        let processes = [1, 2].map(|seed| {
            let mut process = Process::start(&database, FAIR, seed);
            process.work(&provider, FAIR);
            process
        });
        clock.sleep(MINUTE * (1 + minutes)).await;
        processes.into_iter().for_each(Process::kill);
        provider
    })
}

#[test]
fn sharing_costs_next_to_nothing_of_the_rate() {
    for processes in 1..=2 {
        let per_minute = run(|database| async move {
            let provider = Arc::new(NotingProvider::default());
            let processes: Vec<_> = (0..processes)
                .map(|seed| {
                    let mut process = Process::start(&database, FAIR, seed);
                    process.work(&provider, FAIR);
                    process
                })
                .collect();
            let clock = Clock::system();
            let from = clock.monotonic();
            clock.sleep(MINUTE * 3).await;
            processes.into_iter().for_each(Process::kill);
            let arrived = sorted(&provider.arrived);
            assert!(most_in_a_minute(&arrived) <= 300);
            count_within(&arrived, from + MINUTE, from + MINUTE * 3) / 2
        });
        assert!(
            (257..=271).contains(&per_minute),
            "{processes} processes: {per_minute} of 270 a minute"
        );
    }
}

#[test]
fn a_wait_is_kept_by_every_process_within_a_second_and_then_one_call_goes_first() {
    let wait = Duration::from_secs(30);
    let provider = after_a_refusal(RetryAfter::After(wait), 2);
    let (sent, answered) = (sorted(&provider.sent), sorted(&provider.answered));
    let (from, to) = (provider.refused_at(), provider.refused_at() + wait);
    assert!(count_within(&sent, from - MINUTE, from) > 200);
    assert_eq!(count_within(&sent, from + Duration::from_secs(1), to), 0);
    let mut after = sent.iter().filter(|&&at| at >= to);
    let (first, second) = (*after.next().unwrap(), *after.next().unwrap());
    assert!(first < to + Duration::from_secs(2), "{:?}", first - to);
    let first_answered = answered.iter().find(|&&at| at >= first).unwrap();
    assert!(second >= *first_answered);
    assert!(count_within(&sent, second, second + MINUTE) >= 257);
}

#[test]
fn throttling_without_a_time_halves_the_rate_of_all_processes_together() {
    let provider = after_a_refusal(RetryAfter::Unsaid, 5);
    let sent = sorted(&provider.sent);
    let resumed_at = provider.refused_at() + MINUTE;
    let counts: Vec<_> = (0..3)
        .map(|number| {
            let from = resumed_at + MINUTE * number;
            count_within(&sent, from, from + MINUTE)
        })
        .collect();
    for (count, expected) in counts.iter().zip([135, 162, 189]) {
        assert!(count.abs_diff(expected) <= 12, "{counts:?}");
    }
}

#[test]
fn a_new_token_has_its_burst_once_whoever_takes_it() {
    for (is_newly_linked, burst) in [(true, 30), (false, 0)] {
        let at_once = run(|database| async move {
            let processes = [1, 2].map(|seed| {
                let mut process = Process::start(&database, FAIR, seed);
                let route = ClientScope {
                    is_newly_linked,
                    ..route("another")
                };
                process.limiter = process.outbound.0.limiter(&route);
                process
            });
            let clock = Clock::system();
            let from = clock.monotonic();
            let mut permits = Vec::new();
            while clock.monotonic() - from < Duration::from_secs(1) {
                for process in &processes {
                    permits.push((process.enter().await, clock.monotonic() - from));
                }
            }
            permits.retain(|&(_, at)| at < Duration::from_millis(500));
            permits.len()
        });
        // The rate allows two more in the meantime.
        assert!((burst..=burst + 2).contains(&at_once), "{at_once}");
    }
}

#[test]
fn an_interactive_call_goes_first_within_its_process() {
    run(|database| async move {
        let weather = Weather { limit: 10, ..FAIR };
        let process = Process::start(&database, weather, 1);
        let done = Mutex::new(Vec::new());
        let call = |priority, name: &'static str| {
            let (limiter, done) = (&process.limiter, &done);
            async move {
                limiter.enter(priority, None).await.unwrap().answered();
                done.lock().unwrap().push(name);
            }
        };
        tokio::join!(
            call(Priority::Background, "first"),
            call(Priority::Background, "second"),
            call(Priority::Interactive, "interactive"),
        );
        assert_eq!(*done.lock().unwrap(), ["interactive", "first", "second"]);
    });
}
