//! The points of a refresh at which a process is killed, and how each is seen from outside: by an
//! event, and never by waiting for so long. Those that pass too fast to be seen, and leave no mark,
//! are reached by a fault that holds the provider's reply.

use std::{collections::HashSet, time::Duration};

use rolecall::clock::Clock;
use rustix::process::{Pid, Signal, kill_process};

use super::{
    LOOK_EVERY,
    books::{Books, Told, journaled, node},
    provider::Provider,
    signed::Seat,
};
use crate::process::{House, Served};

/// By when a point has come, at the very latest.
const COMES_WITHIN: Duration = Duration::from_secs(90);

/// What a kill waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Point {
    /// An intent is committed and nothing has arrived at the provider: seen in the rows, and looked
    /// for in the provider's log while the process is stopped.
    Unsent,
    /// The call has arrived at the provider, which has not redeemed: held there by a fault.
    Arrived,
    /// The provider has redeemed and its reply is on the way: held there by a fault.
    Replying,
    /// The provider has redeemed, and the connection was cut: by a fault.
    ReplyLost,
    /// The database takes nothing, and the pair is in the journal: seen in the folder.
    Journaled,
    /// After that, a process starts and has stored a part of what is in its journal: seen in the
    /// folder.
    Recovering,
    /// The pair has just been committed: seen in the rows.
    Committed,
    /// Whatever moment it is.
    Random,
}

/// Each of them but those that follow from another, and chance.
pub const NAMED: [Point; 6] = [
    Point::Unsent,
    Point::Arrived,
    Point::Replying,
    Point::ReplyLost,
    Point::Journaled,
    Point::Committed,
];

/// One kill as it is prepared.
pub struct Plan {
    pub point: Point,
    /// The process that is killed.
    pub at: usize,
    /// Who is refreshed for its sake, and the generation of each then.
    pub targets: Vec<(Seat, u64)>,
    /// From when on they are, in milliseconds.
    pub began_ms: i64,
    /// The moment, where that is left to chance.
    pub moment: Duration,
}

/// What is looked at until the point of a plan has come.
pub struct Lookout<'a> {
    pub plan: &'a Plan,
    /// The house as each process serves it.
    pub houses: &'a [House],
    pub seats: &'a [Seat],
    pub process: &'a Served,
    pub books: &'a mut Books,
    pub provider: &'a mut Provider,
}

impl Lookout<'_> {
    /// Waits until the process is to be killed.
    pub async fn wait(&mut self) {
        let clock = Clock::system();
        let began_at = clock.monotonic();
        let mut looked_at = HashSet::new();
        while !self.has_come(&mut looked_at).await {
            let waited = clock.monotonic() - began_at;
            if waited >= COMES_WITHIN {
                let rows = self.books.rows().await;
                let live = self.provider.live().await;
                for (seat, generation) in &self.plan.targets {
                    println!(
                        "{seat:?} of {generation}: {:?}, {:?}",
                        rows.get(&seat.account),
                        live.get(&seat.grant)
                    );
                }
                let log = self.houses[self.plan.at].log();
                let tail: Vec<_> = log.lines().rev().take(60).collect();
                println!("{tail:#?}");
                panic!("{:?} at {} did not come", self.plan.point, self.plan.at);
            }
            // What it waits for may run on this very thread.
            tokio::task::yield_now().await;
        }
        if self.plan.point == Point::Journaled {
            self.wait_for_journal().await;
        }
    }

    async fn has_come(&mut self, looked_at: &mut HashSet<(String, i64)>) -> bool {
        let mut targets = self.plan.targets.iter();
        match self.plan.point {
            Point::Random => {
                Clock::system().sleep(self.plan.moment).await;
                true
            }
            Point::Unsent => self.is_unsent(looked_at).await,
            Point::Arrived => {
                self.provider.read_on().await;
                targets.all(|(seat, _)| {
                    let last = self.provider.last_call(&seat.grant, i64::MAX);
                    last.is_some_and(|call| call.at_ms >= self.plan.began_ms)
                })
            }
            Point::Replying | Point::ReplyLost | Point::Journaled | Point::Recovering => {
                let live = self.provider.live().await;
                targets.all(|(seat, generation)| live[&seat.grant].generation > *generation)
            }
            Point::Committed => {
                let rows = self.books.rows().await;
                targets.any(|(seat, generation)| rows[&seat.account].generation > *generation)
            }
        }
    }

    /// Whether an intent of this process is committed of which nothing has arrived at the provider.
    /// The process is stopped then, so that it stays so.
    async fn is_unsent(&mut self, looked_at: &mut HashSet<(String, i64)>) -> bool {
        let node = node(&self.houses[self.plan.at], self.books);
        let rows = self.books.rows().await;
        let begun = self.seats.iter().find(|seat| {
            let row = &rows[&seat.account];
            row.told == Told::Refreshing
                && row.node.as_deref() == Some(node.as_str())
                && looked_at.insert((seat.account.clone(), row.since_ms))
        });
        let Some(seat) = begun else {
            return false;
        };
        let process = Pid::from_raw(self.process.id().try_into().unwrap()).unwrap();
        kill_process(process, Signal::STOP).unwrap();
        self.provider.read_on().await;
        let last = self.provider.last_call(&seat.grant, i64::MAX);
        let is_unsent = last.is_none_or(|call| call.at_ms < rows[&seat.account].since_ms);
        if !is_unsent {
            kill_process(process, Signal::CONT).unwrap();
        }
        is_unsent
    }

    /// Takes the database away, and waits until every pair that it does not have is in the journal.
    async fn wait_for_journal(&mut self) {
        self.books.lock().await;
        let rows = self.books.rows().await;
        let is_stored =
            |(seat, generation): &&(Seat, u64)| rows[&seat.account].generation > *generation;
        let targets = self.plan.targets.iter().filter(|target| !is_stored(target));
        let waiting: HashSet<_> = targets
            .map(|(seat, generation)| (seat.account.clone(), *generation))
            .collect();
        let clock = Clock::system();
        let began_at = clock.monotonic();
        // In whose journal ever: a walk of another process may have come first.
        let are_there = || {
            let mut pairs = HashSet::new();
            pairs.extend(self.houses.iter().flat_map(journaled));
            waiting.is_subset(&pairs)
        };
        while !are_there() {
            assert!(clock.monotonic() - began_at < COMES_WITHIN, "{waiting:?}");
            clock.sleep(LOOK_EVERY).await;
        }
        // Before the database has said no: until then it would be in memory alone.
        let log = self.houses[0].log();
        assert!(!log.contains("is not stored yet"), "{log}");
    }
}
