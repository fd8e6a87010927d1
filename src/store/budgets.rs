//! The shared rate limits of access tokens, for several processes that call with one token. Each
//! process takes *slices* from here: permits to send a number of requests.
//!
//! Two limits apply, as in the limiter of a single process. The **rate** is a GCRA. The **window**
//! counts permits and never exceeds the quota. A permit counts from the moment it was granted until
//! a minute after its request can have arrived. A settled slice therefore counts for a minute after
//! it was settled, or longer if one of its requests can still arrive. An unsettled slice, whose
//! process still uses it or was killed, counts for a minute after the last moment at which one of
//! its requests can arrive. So when the last permit used in a given minute was granted, all other
//! permits of that minute were counted.
//!
//! Each call is one short transaction. It locks the token's row first, then reads the time from the
//! database. Nothing in here is a credential or leads to one.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    Store,
    db::{Arg, Tx},
    decode_count,
};
use crate::{
    error::{Error, Result},
    model::budgets::{
        BudgetName, Quota, Settlement, SharedBudget, Slice, SliceAnswer, SliceOrder, Throttling,
        WINDOW, halved, recovered,
    },
};

/// Milliseconds after which a process asks again: another process may have returned permits, or its
/// probe may have been answered.
const LOOK_AGAIN: i64 = 1_000;

/// The longest pause. A stored pause that ends later was written before the clock was set back.
const LONGEST_PAUSE: Duration = Duration::from_secs(15 * 60);

/// How long an unused budget is kept. A budget that is created again starts with fewer permits than
/// the deleted one would have had, never with more.
const KEPT_UNUSED: Duration = Duration::from_secs(24 * 60 * 60);

impl Store {
    /// Takes a slice of a token's budget, or returns the time to wait for one.
    pub async fn take_slice(
        &self,
        budget: &SharedBudget,
        order: &SliceOrder,
    ) -> Result<SliceAnswer> {
        let SharedBudget { name, quota } = budget;
        let mut tx = self.db.begin().await?;
        let mut ledger = match Ledger::lock(&mut tx, name).await? {
            Some(ledger) => ledger,
            None => {
                let now = tx.now(&self.clock).await?;
                forget_unused(&mut tx, now).await?;
                let is_full = order.is_newly_linked;
                Ledger::create(&mut tx, name, *quota, is_full, now).await?
            }
        };
        let now = tx.now(&self.clock).await?.as_millisecond();
        // The last moment at which an unsettled slice can count: a request that is sent at the end
        // of its use takes the longest call to arrive, and counts for a window after that.
        let counts_at_most = now + millis(order.usable_for + order.longest_call + WINDOW);
        ledger.follow_date(*quota, order, now);
        let counted = WindowUsage::read(&mut tx, name, now, counts_at_most).await?;
        let answer = match ledger.grant(*quota, order, counted, now) {
            Ok(slice) => {
                write_slice(&mut tx, name, slice, counts_at_most).await?;
                SliceAnswer::Granted(slice)
            }
            Err(wait) => SliceAnswer::Wait(wait),
        };
        ledger.save(&mut tx, name, now).await?;
        tx.commit().await?;
        Ok(answer)
    }

    /// Settles a slice: its used permits count until a minute after the last of its requests can
    /// have arrived, and its unused permits are returned.
    pub async fn settle_slice(&self, budget: &SharedBudget, settlement: &Settlement) -> Result<()> {
        let SharedBudget { name, quota } = budget;
        let mut tx = self.db.begin().await?;
        let Some(mut ledger) = Ledger::lock(&mut tx, name).await? else {
            return Ok(());
        };
        let now = tx.now(&self.clock).await?.as_millisecond();
        let changed = tx
            .execute(
                "update budget_slices set permits = $3, counts_until = $4
                 where token = $1 and number = $2",
                [
                    token(name),
                    settlement.number.into(),
                    u64::from(settlement.used).into(),
                    int(now + millis(settlement.arriving_for + WINDOW)),
                ],
            )
            .await?;
        if changed > 0 {
            ledger.give_back(*quota, settlement.unused, now);
        }
        ledger.apply(settlement, now);
        ledger.save(&mut tx, name, now).await?;
        tx.commit().await
    }

    /// Pauses a budget: no slice is granted until the wait is over. Then one permit is granted as a
    /// probe, and no other until its request is answered or lost.
    pub async fn pause_budget(&self, budget: &SharedBudget, throttling: &Throttling) -> Result<()> {
        let SharedBudget { name, quota } = budget;
        let mut tx = self.db.begin().await?;
        let Some(mut ledger) = Ledger::lock(&mut tx, name).await? else {
            return Ok(());
        };
        let now = tx.now(&self.clock).await?.as_millisecond();
        ledger.pause(*quota, throttling, now);
        ledger.save(&mut tx, name, now).await?;
        tx.commit().await
    }
}

/// A token's locked row. Times are milliseconds since the epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Ledger {
    /// The number of the next slice.
    number: u64,
    /// The theoretical arrival time (TAT) of the GCRA, in microseconds.
    tat: i64,
    paused_until: Option<i64>,
    probe: Option<Probe>,
    percent: u32,
    recovers_from: i64,
    halved_at: Option<i64>,
}

/// The slice with the one request that is sent first after a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Probe {
    number: u64,
    /// The time by which its request is answered or lost.
    lost_after: i64,
}

/// The permits that count against the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct WindowUsage {
    permits: u64,
    /// The time at which the first of them stops counting.
    first_until: Option<i64>,
}

type LedgerRow = (
    i64,
    i64,
    Option<i64>,
    Option<i64>,
    Option<i64>,
    i64,
    i64,
    Option<i64>,
);

impl Ledger {
    /// Locks the row until the transaction ends, and numbers the next slice. None if the token has
    /// no row.
    async fn lock(tx: &mut Tx, name: &BudgetName) -> Result<Option<Self>> {
        let row: Option<LedgerRow> = tx
            .fetch_one(
                "update token_budgets set slices = slices + 1 where token = $1
                 returning slices, tat, paused_until, probe, probe_until, percent, recovers_from,
                           halved_at",
                [token(name)],
            )
            .await?;
        row.map(
            |(number, tat, paused_until, probe, probe_until, percent, recovers_from, halved_at)| {
                let probe = probe.zip(probe_until).map(|(number, lost_after)| {
                    Ok::<_, Error>(Probe {
                        number: decode_count(number)?,
                        lost_after,
                    })
                });
                Ok(Self {
                    number: decode_count(number)?,
                    tat,
                    paused_until,
                    probe: probe.transpose()?,
                    percent: u32::try_from(percent).map_err(Error::internal)?,
                    recovers_from,
                    halved_at,
                })
            },
        )
        .transpose()
    }

    /// Creates the row of a token, with its full burst if `is_full`, otherwise with none. If
    /// another process has created the row meanwhile, this returns that row.
    async fn create(
        tx: &mut Tx,
        name: &BudgetName,
        quota: Quota,
        is_full: bool,
        now: Timestamp,
    ) -> Result<Self> {
        let now_micros = now.as_millisecond() * 1_000;
        // A TAT of now permits the whole burst at once. One `tolerance` later, the rate permits
        // nothing.
        let tat = match is_full {
            true => now_micros,
            false => now_micros + GcraRate::of(quota, 100).tolerance,
        };
        tx.execute(
            "insert into token_budgets (token, tat, used_at) values ($1, $2, $3)
             on conflict (token) do nothing",
            [token(name), int(tat), now.into()],
        )
        .await?;
        let ledger = Self::lock(tx, name).await?;
        ledger.ok_or_else(|| Error::internal("a budget that was just made is not there"))
    }

    async fn save(&self, tx: &mut Tx, name: &BudgetName, now: i64) -> Result<()> {
        tx.execute(
            "update token_budgets set tat = $2, paused_until = $3, probe = $4, probe_until = $5,
                    percent = $6, recovers_from = $7, halved_at = $8, used_at = $9
             where token = $1",
            [
                token(name),
                int(self.tat),
                Arg::Int(self.paused_until),
                self.probe.map(|probe| probe.number).into(),
                Arg::Int(self.probe.map(|probe| probe.lost_after)),
                u64::from(self.percent).into(),
                int(self.recovers_from),
                Arg::Int(self.halved_at),
                int(now),
            ],
        )
        .await
        .map(drop)
    }

    /// Grants a slice, or returns the time after which to ask again.
    fn grant(
        &mut self,
        quota: Quota,
        order: &SliceOrder,
        counted: WindowUsage,
        now: i64,
    ) -> Result<Slice, Duration> {
        let is_probe = self.paused_until.is_some();
        if let Some(wait) = self.pause_left(now) {
            return Err(wait);
        }
        let most = if is_probe { 1 } else { order.most };
        let room = u64::from(quota.limit()).saturating_sub(counted.permits);
        let rate = GcraRate::of(quota, self.percent_at(now));
        let now_micros = now * 1_000;
        let tat = self.tat.max(now_micros);
        // The permits that the rate allows now.
        let due = (now_micros + rate.tolerance - tat).max(0) / rate.interval;
        let permits = u64::from(most).min(room).min(due.unsigned_abs());
        if permits == 0 {
            let window_wait = match counted.first_until {
                Some(until) if room == 0 => (until + 1 - now).min(LOOK_AGAIN),
                _ => 0,
            };
            // Wait until half a slice is due, so that a process does not ask for each permit of a
            // busy token. All processes wait for the same moment, so none of them always comes too
            // late.
            let batch = i64::from(most.div_ceil(2)).min(rate.burst);
            let batch_due = tat + batch * rate.interval - rate.tolerance;
            let rate_wait = (batch_due - now_micros + 999) / 1_000;
            let wait = if due > 0 {
                window_wait
            } else {
                rate_wait.max(window_wait)
            };
            return Err(Duration::from_millis(wait.max(1).unsigned_abs()));
        }
        let permits = u32::try_from(permits).expect("it is no more than was asked for");
        self.tat = tat + i64::from(permits) * rate.interval;
        if is_probe {
            self.probe = Some(Probe {
                number: self.number,
                lost_after: now + millis(order.usable_for + order.longest_call),
            });
        }
        Ok(Slice {
            number: self.number,
            permits,
            is_probe,
        })
    }

    /// Limits stored times that lie further ahead than they can: they were written before the
    /// database's clock was set back, and would block every process until the clock has caught up.
    /// Each becomes the value that it would have if it were written now.
    fn follow_date(&mut self, quota: Quota, order: &SliceOrder, now: i64) {
        let paused_until = self
            .paused_until
            .map(|until| until.min(now + millis(LONGEST_PAUSE)));
        let free_at = paused_until.map_or(now, |until| until.max(now));
        let tolerance = GcraRate::of(quota, self.percent).tolerance;
        self.paused_until = paused_until;
        self.tat = self.tat.min(free_at * 1_000 + tolerance);
        self.recovers_from = self.recovers_from.min(free_at);
        self.halved_at = self.halved_at.map(|then| then.min(now));
        if let Some(probe) = &mut self.probe {
            let lost_after = now + millis(order.usable_for + order.longest_call);
            probe.lost_after = probe.lost_after.min(lost_after);
        }
    }

    /// How long no slice may be granted; None if one may.
    fn pause_left(&self, now: i64) -> Option<Duration> {
        let paused_until = self.paused_until?;
        let left = match self.probe {
            _ if now < paused_until => paused_until - now,
            Some(probe) if now <= probe.lost_after => LOOK_AGAIN,
            _ => return None,
        };
        Some(Duration::from_millis(left.unsigned_abs()))
    }

    fn give_back(&mut self, quota: Quota, unused: u32, now: i64) {
        self.tat -= i64::from(unused) * GcraRate::of(quota, self.percent_at(now)).interval;
    }

    /// Applies the end of a slice to a pause. An answered probe ends the pause, unless the provider
    /// has asked for another wait meanwhile.
    fn apply(&mut self, settlement: &Settlement, now: i64) {
        if self
            .probe
            .is_none_or(|probe| probe.number != settlement.number)
        {
            return;
        }
        self.probe = None;
        if settlement.is_answered && self.paused_until.is_some_and(|until| until <= now) {
            self.paused_until = None;
        }
    }

    fn pause(&mut self, quota: Quota, throttling: &Throttling, now: i64) {
        let until = now + millis(throttling.wait);
        let until = self.paused_until.map_or(until, |former| former.max(until));
        self.paused_until = Some(until);
        // Requests in flight together are refused together, so the rate is halved only if this
        // request was sent after the last halving.
        let is_news = throttling
            .halves_if_sent_ago
            .is_some_and(|ago| self.halved_at.is_none_or(|then| now - millis(ago) > then));
        if is_news {
            self.percent = halved(self.percent_at(now));
            self.recovers_from = until;
            self.halved_at = Some(now);
            // Sending resumes without a burst.
            let tolerance = GcraRate::of(quota, self.percent).tolerance;
            self.tat = self.tat.max(until * 1_000 + tolerance);
        }
    }

    fn percent_at(&self, now: i64) -> u32 {
        let rested = u64::try_from(now - self.recovers_from).unwrap_or(0);
        recovered(self.percent, Duration::from_millis(rested))
    }
}

/// The parameters of the GCRA, in microseconds, rounded to the slower rate.
struct GcraRate {
    interval: i64,
    burst: i64,
    tolerance: i64,
}

impl GcraRate {
    fn of(quota: Quota, percent: u32) -> Self {
        let a_minute = u64::from(quota.steady(percent).get());
        let micros = WINDOW.as_micros() as u64;
        let interval = i64::try_from(micros.div_ceil(a_minute)).expect("it is at most a minute");
        let burst = i64::from(quota.burst(percent).get());
        Self {
            interval,
            burst,
            tolerance: interval * burst,
        }
    }
}

impl WindowUsage {
    /// Counts the permits, and deletes the slices that no longer count.
    async fn read(tx: &mut Tx, name: &BudgetName, now: i64, counts_at_most: i64) -> Result<Self> {
        tx.execute(
            "delete from budget_slices where token = $1 and counts_until < $2",
            [token(name), int(now)],
        )
        .await?;
        // A slice that counts for longer was granted before the database's clock was set back. It
        // counts as if it were granted now.
        tx.execute(
            "update budget_slices set counts_until = $2 where token = $1 and counts_until > $2",
            [token(name), int(counts_at_most)],
        )
        .await?;
        let row: Option<(i64, Option<i64>)> = tx
            .fetch_one(
                "select cast(coalesce(sum(permits), 0) as bigint), min(counts_until)
                 from budget_slices where token = $1",
                [token(name)],
            )
            .await?;
        let (permits, first_until) = row.unwrap_or_default();
        Ok(Self {
            permits: decode_count(permits)?,
            first_until,
        })
    }
}

async fn write_slice(
    tx: &mut Tx,
    name: &BudgetName,
    slice: Slice,
    counts_until: i64,
) -> Result<()> {
    tx.execute(
        "insert into budget_slices (token, number, permits, counts_until)
         values ($1, $2, $3, $4)",
        [
            token(name),
            slice.number.into(),
            u64::from(slice.permits).into(),
            int(counts_until),
        ],
    )
    .await
    .map(drop)
}

/// Deletes the budgets of tokens that are no longer used, and their slices with them.
async fn forget_unused(tx: &mut Tx, now: Timestamp) -> Result<()> {
    let before = now.as_millisecond() - millis(KEPT_UNUSED);
    tx.execute(
        "delete from token_budgets where used_at < $1",
        [int(before)],
    )
    .await
    .map(drop)
}

fn token(name: &BudgetName) -> Arg {
    name.as_bytes().to_vec().into()
}

fn int(number: i64) -> Arg {
    Arg::Int(Some(number))
}

/// Rounds up, so that a permit never counts for too short a time.
fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros().div_ceil(1_000)).unwrap_or(i64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    const NOON: i64 = 1_795_348_800_000;
    const MINUTE: i64 = 60_000;
    const NOTHING: WindowUsage = WindowUsage {
        permits: 0,
        first_until: None,
    };

    fn quota(limit: u32) -> Quota {
        Quota::new(NonZeroU32::new(limit).unwrap())
    }

    fn order(most: u32) -> SliceOrder {
        SliceOrder {
            most,
            usable_for: Duration::from_secs(1),
            longest_call: Duration::from_secs(60),
            is_newly_linked: false,
        }
    }

    /// Has its full burst, at noon.
    fn ledger() -> Ledger {
        Ledger {
            number: 1,
            tat: NOON * 1_000,
            paused_until: None,
            probe: None,
            percent: 100,
            recovers_from: 0,
            halved_at: None,
        }
    }

    fn told_to_wait(seconds: u64) -> Throttling {
        Throttling {
            wait: Duration::from_secs(seconds),
            halves_if_sent_ago: None,
        }
    }

    fn end_of(slice: Slice, is_answered: bool) -> Settlement {
        Settlement {
            number: slice.number,
            used: slice.permits,
            unused: 0,
            arriving_for: Duration::ZERO,
            is_answered,
        }
    }

    /// The permits granted from `from` until `to`, if a process takes every slice that it can get
    /// and waits as long as each refusal says.
    fn given(ledger: &mut Ledger, quota: Quota, from: i64, to: i64) -> u32 {
        let (mut now, mut given) = (from, 0);
        while now < to {
            match ledger.grant(quota, &order(5), NOTHING, now) {
                Ok(slice) => given += slice.permits,
                Err(wait) => now += millis(wait),
            }
        }
        given
    }

    #[test]
    fn nine_tenths_are_spread_evenly_and_one_tenth_is_there_at_once() {
        let mut ledger = ledger();
        assert_eq!(given(&mut ledger, quota(300), NOON, NOON + 1), 30);
        for minute in 0..10 {
            let from = NOON + MINUTE * minute;
            let given = given(&mut ledger, quota(300), from, from + MINUTE);
            assert!(given.abs_diff(270) <= 3, "{given}");
        }
        // The order is for five permits; the wait ends when half of them, rounded up, are due.
        let now = NOON + MINUTE * 10;
        let wait = ledger.grant(quota(300), &order(5), NOTHING, now);
        let wait = wait.unwrap_err().as_millis();
        assert!((1..=667).contains(&wait), "{wait}");
    }

    #[test]
    fn the_smallest_quota_gives_one_a_minute() {
        let mut ledger = ledger();
        let given = given(&mut ledger, quota(1), NOON, NOON + MINUTE * 10);
        assert_eq!(given, 10);
    }

    #[test]
    fn what_counts_leaves_no_more_than_the_rest() {
        let counted = |permits| WindowUsage {
            permits,
            first_until: Some(NOON + 400),
        };
        let mut ledger = ledger();
        let slice = ledger.grant(quota(300), &order(5), counted(298), NOON);
        assert_eq!(slice.unwrap().permits, 2);
        for permits in [300, 301] {
            let wait = ledger.grant(quota(300), &order(5), counted(permits), NOON);
            assert_eq!(wait.unwrap_err(), Duration::from_millis(401));
        }
    }

    #[test]
    fn what_was_not_used_is_there_again() {
        let mut ledger = ledger();
        assert_eq!(given(&mut ledger, quota(300), NOON, NOON + 1), 30);
        ledger.give_back(quota(300), 4, NOON);
        assert_eq!(given(&mut ledger, quota(300), NOON, NOON + 1), 4);
    }

    #[test]
    fn after_a_pause_one_goes_first_until_its_answer_or_until_it_is_lost() {
        let grant = |ledger: &mut Ledger, now| ledger.grant(quota(300), &order(5), NOTHING, now);
        let mut ledger = ledger();
        ledger.pause(quota(300), &told_to_wait(60), NOON);
        ledger.pause(quota(300), &told_to_wait(7), NOON);
        let wait = grant(&mut ledger, NOON + 1_000).unwrap_err();
        assert_eq!(wait, Duration::from_secs(59));

        let over = NOON + MINUTE;
        let probe = grant(&mut ledger, over).unwrap();
        assert_eq!((probe.permits, probe.is_probe), (1, true));
        ledger.number += 1;
        let lost_after = over + 61_000;
        assert!(grant(&mut ledger, over).is_err());
        assert!(grant(&mut ledger, lost_after).is_err());
        let second = grant(&mut ledger.clone(), lost_after + 1).unwrap();
        assert!(second.is_probe);

        // An unanswered or refused probe does not end the pause.
        let mut unanswered = ledger.clone();
        unanswered.apply(&end_of(probe, false), over);
        assert!(grant(&mut unanswered, over).unwrap().is_probe);
        // An answer that arrives during a new pause does not end that pause.
        let mut paused_again = ledger.clone();
        paused_again.pause(quota(300), &told_to_wait(5), over);
        paused_again.apply(&end_of(probe, true), over);
        assert!(grant(&mut paused_again, over + 1_000).is_err());
        assert!(grant(&mut paused_again, over + 5_000).unwrap().is_probe);
        // No other slice ends the pause.
        let mut other = ledger.clone();
        let foreign = Slice {
            number: 99,
            ..probe
        };
        other.apply(&end_of(foreign, true), over);
        assert!(grant(&mut other, over).is_err());

        ledger.apply(&end_of(probe, true), over);
        let slice = grant(&mut ledger, over).unwrap();
        assert_eq!((slice.permits, slice.is_probe), (5, false));
    }

    #[test]
    fn a_refusal_that_says_no_time_halves_the_rate_once_and_it_comes_back() {
        let mut ledger = ledger();
        let unsaid = |sent_ago| Throttling {
            wait: Duration::from_secs(60),
            halves_if_sent_ago: Some(Duration::from_millis(sent_ago)),
        };
        ledger.pause(quota(300), &unsaid(200), NOON);
        ledger.pause(quota(300), &unsaid(300), NOON + 100);
        assert_eq!(ledger.percent, 50);
        ledger.paused_until = None;
        let resumed = NOON + MINUTE;
        for (minute, expected) in (0..).zip([135, 162, 189, 216, 243, 270, 270]) {
            let from = resumed + MINUTE * minute;
            let given = given(&mut ledger, quota(300), from, from + MINUTE);
            assert!(given.abs_diff(expected) <= 4, "{minute}: {given}");
        }

        let again = resumed + MINUTE * 10;
        for time in 0..10 {
            ledger.pause(quota(300), &unsaid(10), again + time * 1_000);
        }
        assert_eq!(ledger.percent, 5);
    }
}
