//! The circuit breaker of one account at one provider. After enough failures it rejects calls
//! before they are sent, so that a failing provider is spared and callers fail fast.
//!
//! Closed, it counts failures. Open, it rejects every call for a while. Then it is half-open
//! (`Probing`): it admits one call, whose result closes or reopens it. Calls admitted before an
//! opening do not count after it.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::sync::Notify;

use super::BreakerSettings;
use crate::clock::Clock;

/// How long a breaker without recent calls is kept.
const FORGET_AFTER: Duration = Duration::from_secs(10 * 60);

pub(super) struct Breaker {
    clock: Clock,
    settings: BreakerSettings,
    state: Mutex<BreakerState>,
    moved: Notify,
}

struct BreakerState {
    position: Position,
    /// The number of openings. A call admitted before the last one is not counted.
    openings: u64,
    failures_in_a_row: u32,
    /// When the calls within the window ended, and whether they failed.
    recent: VecDeque<(Duration, bool)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Position {
    Closed,
    Open { until: Duration },
    Probing,
}

/// The breaker is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct IsOpen {
    /// The time until the next probe; None while a probe is in flight.
    pub(super) wait: Option<Duration>,
    /// The number of this opening; it stays the same until a probe fails.
    pub(super) opening: u64,
}

impl Breaker {
    pub(super) fn new(clock: Clock, settings: BreakerSettings) -> Self {
        Self {
            clock,
            settings,
            state: Mutex::new(BreakerState {
                position: Position::Closed,
                openings: 0,
                failures_in_a_row: 0,
                recent: VecDeque::new(),
            }),
            moved: Notify::new(),
        }
    }

    /// Whether a call would be admitted now.
    pub(super) fn check(&self) -> Result<(), IsOpen> {
        self.state()
            .refusal(self.clock.monotonic())
            .map_or(Ok(()), Err)
    }

    /// Admits one call, or rejects it.
    pub(super) fn enter(self: &Arc<Self>) -> Result<BreakerPermit, IsOpen> {
        let mut state = self.state();
        if let Some(refusal) = state.refusal(self.clock.monotonic()) {
            return Err(refusal);
        }
        let is_probe = state.position != Position::Closed;
        if is_probe {
            state.position = Position::Probing;
        }
        Ok(BreakerPermit {
            openings: state.openings,
            is_probe,
            is_settled: false,
            breaker: Arc::clone(self),
        })
    }

    /// Waits until a call may be admitted, or until the probe in flight has ended.
    pub(super) async fn next_move(&self) {
        let moved = self.moved.notified();
        let refusal = self.check();
        match refusal.map_err(|refusal| refusal.wait) {
            Err(Some(wait)) => self.clock.sleep(wait).await,
            Err(None) => moved.await,
            Ok(()) => {}
        }
    }

    /// Whether the breaker has been unused for so long that it can be dropped.
    pub(super) fn is_idle(&self) -> bool {
        let state = self.state();
        let last_heard_at = match state.position {
            Position::Closed => state.recent.back().map(|&(at, _)| at),
            Position::Open { until } => Some(until),
            Position::Probing => return false,
        };
        let now = self.clock.monotonic();
        last_heard_at.is_none_or(|at| now.saturating_sub(at) > FORGET_AFTER)
    }

    fn settle(&self, pass: &BreakerPermit, ending: Option<BreakerOutcome>) {
        let now = self.clock.monotonic();
        let mut state = self.state();
        if pass.openings != state.openings {
            return;
        }
        match ending {
            Some(BreakerOutcome::Succeeded) if pass.is_probe => {
                state.position = Position::Closed;
                state.failures_in_a_row = 0;
                state.recent.clear();
            }
            Some(BreakerOutcome::Failed) if pass.is_probe => state.open(now, &self.settings),
            // The probe has no result, so the next call probes at once.
            None if pass.is_probe => state.position = Position::Open { until: now },
            Some(ending) => {
                state.count(now, ending == BreakerOutcome::Failed, &self.settings);
                return;
            }
            None => return,
        }
        self.moved.notify_waiters();
    }

    fn state(&self) -> MutexGuard<'_, BreakerState> {
        self.state
            .lock()
            .expect("nothing panics while it holds a breaker")
    }
}

impl BreakerState {
    fn refusal(&self, now: Duration) -> Option<IsOpen> {
        let wait = match self.position {
            Position::Open { until } if now < until => Some(until - now),
            Position::Probing => None,
            Position::Closed | Position::Open { .. } => return None,
        };
        Some(IsOpen {
            wait,
            opening: self.openings,
        })
    }

    fn count(&mut self, now: Duration, is_failure: bool, settings: &BreakerSettings) {
        self.failures_in_a_row = if is_failure {
            self.failures_in_a_row.saturating_add(1)
        } else {
            0
        };
        self.recent.push_back((now, is_failure));
        while self.recent.len() > settings.sample as usize
            || self
                .recent
                .front()
                .is_some_and(|&(at, _)| at + settings.window < now)
        {
            self.recent.pop_front();
        }
        let failures = self.recent.iter().filter(|(_, failed)| *failed).count();
        let is_half_of_a_sample =
            self.recent.len() >= settings.sample as usize && failures * 2 >= self.recent.len();
        if self.failures_in_a_row >= settings.in_a_row || is_half_of_a_sample {
            self.open(now, settings);
        }
    }

    fn open(&mut self, now: Duration, settings: &BreakerSettings) {
        self.position = Position::Open {
            until: now + settings.open_for,
        };
        self.openings += 1;
        self.failures_in_a_row = 0;
        self.recent.clear();
    }
}

/// An admitted call. One that is dropped without a result is not counted.
pub(super) struct BreakerPermit {
    breaker: Arc<Breaker>,
    openings: u64,
    is_probe: bool,
    is_settled: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BreakerOutcome {
    Succeeded,
    Failed,
}

impl BreakerPermit {
    pub(super) fn succeeded(self) {
        self.settle(BreakerOutcome::Succeeded);
    }

    pub(super) fn failed(self) {
        self.settle(BreakerOutcome::Failed);
    }

    fn settle(mut self, ending: BreakerOutcome) {
        self.is_settled = true;
        self.breaker.settle(&self, Some(ending));
    }
}

impl Drop for BreakerPermit {
    fn drop(&mut self) {
        if !self.is_settled {
            self.breaker.settle(self, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker() -> (Clock, Arc<Breaker>) {
        let clock = Clock::skipping(jiff::Timestamp::UNIX_EPOCH);
        let breaker = Breaker::new(clock.clone(), BreakerSettings::default());
        (clock, Arc::new(breaker))
    }

    fn refused_for(breaker: &Arc<Breaker>) -> Option<Duration> {
        breaker.enter().err().expect("the breaker is open").wait
    }

    #[test]
    fn five_failures_in_a_row_open_it_for_thirty_seconds() {
        let (clock, breaker) = breaker();
        for _ in 0..4 {
            breaker.enter().unwrap().failed();
        }
        breaker.enter().unwrap().succeeded();
        for _ in 0..5 {
            breaker.enter().unwrap().failed();
        }
        assert_eq!(refused_for(&breaker), Some(Duration::from_secs(30)));
        clock.advance(Duration::from_secs(29));
        assert_eq!(refused_for(&breaker), Some(Duration::from_secs(1)));
    }

    #[test]
    fn half_of_twenty_in_thirty_seconds_open_it() {
        let (clock, breaker) = breaker();
        for _ in 0..9 {
            breaker.enter().unwrap().succeeded();
            breaker.enter().unwrap().failed();
        }
        // Outside the window by now.
        clock.advance(Duration::from_secs(31));
        for _ in 0..10 {
            breaker.check().unwrap();
            breaker.enter().unwrap().succeeded();
            breaker.enter().unwrap().failed();
        }
        assert!(breaker.check().is_err());
    }

    #[test]
    fn one_probe_decides() {
        let (clock, breaker) = breaker();
        for _ in 0..5 {
            breaker.enter().unwrap().failed();
        }
        clock.advance(Duration::from_secs(30));
        let probe = breaker.enter().unwrap();
        assert_eq!(refused_for(&breaker), None);
        probe.failed();
        assert_eq!(refused_for(&breaker), Some(Duration::from_secs(30)));

        clock.advance(Duration::from_secs(30));
        drop(breaker.enter().unwrap());
        breaker.enter().unwrap().succeeded();
        assert!(breaker.is_idle() && breaker.check().is_ok());
    }

    #[test]
    fn what_was_under_way_when_it_opened_is_not_heard() {
        let (_, breaker) = breaker();
        let late = breaker.enter().unwrap();
        for _ in 0..5 {
            breaker.enter().unwrap().failed();
        }
        late.succeeded();
        assert!(breaker.check().is_err());
    }

    #[tokio::test]
    async fn whoever_waits_is_told_when_the_probe_has_ended() {
        let (clock, breaker) = breaker();
        for _ in 0..5 {
            breaker.enter().unwrap().failed();
        }
        breaker.next_move().await;
        assert_eq!(clock.monotonic(), Duration::from_secs(30));
        let probe = breaker.enter().unwrap();
        let (_, ()) = tokio::join!(breaker.next_move(), async { probe.succeeded() });
        assert!(breaker.check().is_ok());
    }
}
