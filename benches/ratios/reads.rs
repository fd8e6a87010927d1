//! Reads of pages and records that are already built. Each request still checks the key, finds the
//! account, chooses the version, sends the page and logs a line.
//!
//! The figure compared is a server's processor time for one request, over all its threads. If a
//! server has a core to itself and is never idle, this equals the ratio of requests per second; on
//! a busy machine it estimates that ratio.

use std::{net::SocketAddr, time::Duration};

use crate::{
    Outcome, bare,
    house::{House, organization},
    load::{self, Reply, Request, Round},
    process::Watch,
    table::{Table, Target},
};

const USERS: usize = 1_000;
const GROUPS: usize = 50;

/// Rounds of each server for each case; odd, so that the median is one of the rounds.
const ROUNDS: usize = 15;
const A_ROUND: Duration = Duration::from_millis(250);

/// The limit for Rolecall's p99, as a multiple of the bare server's.
const P99: Target = Target::AtMost(2.0);

struct Case {
    name: &'static str,
    request: Request,
    expected: Reply,
    /// Index of the case whose whole page is the baseline: a compressed page or a 304 is compared
    /// with the bare server's whole page.
    stands_for: usize,
    target: Option<Target>,
}

/// A server and its rounds of one case.
struct Side {
    address: SocketAddr,
    watch: Watch,
    rounds: Vec<Vec<Round>>,
}

impl Side {
    fn new(address: SocketAddr, watch: Watch, cases: usize) -> Self {
        Self {
            address,
            watch,
            rounds: vec![Vec::with_capacity(ROUNDS); cases],
        }
    }

    fn run(&mut self, of: usize, request: &Request, expected: &Reply) -> Outcome<()> {
        let round = load::run(self.address, self.watch, request, expected, A_ROUND)?;
        self.rounds[of].push(round);
        Ok(())
    }

    fn median(&self, of: usize, figure: impl Fn(&Round) -> f64) -> f64 {
        median(self.rounds[of].iter().map(figure))
    }

    fn requests(&self) -> u64 {
        self.rounds
            .iter()
            .flatten()
            .map(|round| round.requests)
            .sum()
    }

    /// Processor time per request, in microseconds.
    fn cpu(&self, of: usize) -> f64 {
        self.median(of, Round::cpu_micros)
    }

    /// The processor time used, as a fraction of the elapsed time.
    fn busy(&self) -> f64 {
        let rounds = || self.rounds.iter().flatten();
        let cpu: Duration = rounds().map(|round| round.cpu).sum();
        let took: Duration = rounds().map(|round| round.took).sum();
        cpu.as_secs_f64() / took.as_secs_f64()
    }
}

/// The median, over the rounds, of one side's `figure` divided by the other side's.
fn ratio(ours: &[Round], theirs: &[Round], figure: impl Fn(&Round) -> f64) -> f64 {
    median(
        ours.iter()
            .zip(theirs)
            .map(|(ours, theirs)| figure(ours) / figure(theirs)),
    )
}

fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<_> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

pub async fn measure(table: &mut Table) -> Outcome<()> {
    let simulator = organization(USERS, GROUPS, 0).await?;
    let house = House::new(0)?;
    let serving = house.serve().await?;
    let account = house.link(&simulator, "reads").await?;
    house.until_walked(&account).await?;
    let cases = cases(&house, &account).await?;
    let replies: Vec<_> = cases.iter().map(|case| case.expected.clone()).collect();
    let (bare_serving, bare_address) = bare::start(&replies, house.folder())?;
    let mut ours = Side::new(house.address(), serving.watch(), cases.len());
    let mut bare = Side::new(bare_address, bare_serving.watch(), cases.len());
    let mut logged = 0;
    for number in 0..ROUNDS {
        for (of, case) in cases.iter().enumerate() {
            let bare_request = case.request.at(&bare::path(of));
            // The first server of a round alternates, too.
            let mut turns = [true, false];
            turns.rotate_left(number % 2);
            for is_bare in turns {
                match is_bare {
                    true => bare.run(of, &bare_request, &case.expected)?,
                    false => ours.run(of, &case.request, &case.expected)?,
                }
            }
        }
        logged += house.take_logged()?;
    }
    serving.terminate()?;
    logged += house.take_logged()?;
    print(table, &cases, &ours, &bare);
    let asked = ours.requests();
    table.line(&format!(
        "{asked} requests were measured, {logged} were logged."
    ));
    Ok(())
}

async fn cases(house: &House, account: &str) -> Outcome<Vec<Case>> {
    const PAGE: &str = "/iam/users?page_size=25";
    let first = house.request(PAGE, account).once(house.address()).await?;
    let etag = first.header("etag").ok_or("a page without an ETag")?;
    let page: serde_json::Value = serde_json::from_slice(&first.body)?;
    let id = crate::house::text(&page["data"][0]["id"])?;
    let record = format!("/iam/users/{id}");
    let cached = Some(Target::AtLeast(0.85));
    let spared = Some(Target::AtLeast(1.0));
    let mut cases = Vec::new();
    for (name, path, more, status, stands_for, target) in [
        ("page of 25", PAGE, None, 200, 0, cached),
        (
            "page of 100",
            "/iam/users?page_size=100",
            None,
            200,
            1,
            cached,
        ),
        (
            "page of 25, zstd",
            PAGE,
            Some(("accept-encoding", "zstd")),
            200,
            0,
            spared,
        ),
        (
            "page of 25, 304",
            PAGE,
            Some(("if-none-match", etag)),
            304,
            0,
            spared,
        ),
        (
            "page of 25, fields=id,name,status",
            "/iam/users?page_size=25&fields=id,name,status",
            None,
            200,
            4,
            cached,
        ),
        ("one user by id", record.as_str(), None, 200, 5, None),
    ] {
        // Each case has its own key, since a key's rate limit covers all its requests.
        let bearer = format!("Bearer {}", house.new_key()?);
        let mut headers = vec![
            ("authorization", bearer.as_str()),
            ("x-account-id", account),
        ];
        headers.extend(more);
        let request = Request::get(path, &headers);
        let expected = request.once(house.address()).await?;
        if expected.status != status {
            return Err(format!("{name}: expected {status}, got {expected:?}").into());
        }
        cases.push(Case {
            name,
            request,
            expected,
            stands_for,
            target,
        });
    }
    if cases[2].expected.header("content-encoding") != Some("zstd") {
        return Err("what should be compressed is not".into());
    }
    Ok(cases)
}

fn print(table: &mut Table, cases: &[Case], ours: &Side, bare: &Side) {
    table.part(
        "Reads, built before: requests for the same processor time, over those of bare actix-web",
    );
    table.line(&format!(
        "{:<34} {:>6} {:<20} {:>6} {:>6} {:>6} {:>8} {:>8} {:>6} {:>6}  {}",
        "",
        "bytes",
        "x bare, whole page",
        "x same",
        "CPU us",
        "bare",
        "req/s",
        "bare",
        "p50 ms",
        "p99 ms",
        "p99 x bare",
    ));
    for (of, case) in cases.iter().enumerate() {
        let whole = case.stands_for;
        let figure = ratio(&bare.rounds[whole], &ours.rounds[of], Round::cpu_micros);
        let judged = match case.target {
            Some(target) => table.judge(figure, target),
            None => format!("{figure:.3}"),
        };
        let same = ratio(&bare.rounds[of], &ours.rounds[of], Round::cpu_micros);
        let p99 = |round: &Round| round.p99.as_secs_f64();
        let p99_judged = table.judge(ratio(&ours.rounds[of], &bare.rounds[whole], p99), P99);
        table.line(&format!(
            "{:<34} {:>6} {judged:<20} {same:>6.3} {:>6.1} {:>6.1} {:>8.0} {:>8.0} {:>6.2} {:>6.2}  {p99_judged}",
            case.name,
            case.expected.body.len(),
            ours.cpu(of),
            bare.cpu(of),
            ours.median(of, Round::per_second),
            bare.median(of, Round::per_second),
            ours.median(of, |round| round.p50.as_secs_f64() * 1e3),
            ours.median(of, |round| p99(round) * 1e3),
        ));
    }
    table.line(&format!(
        "Rolecall had work and the processor for {:.0} % of the time, the bare server for {:.0} %.",
        ours.busy() * 100.0,
        bare.busy() * 100.0,
    ));
}
