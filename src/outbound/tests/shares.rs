//! How a rate limiter uses the slices of a shared budget, with a scripted store. The interaction of
//! several processes is tested in `processes`.

use async_trait::async_trait;
use futures_util::future::join_all;

use super::*;
use crate::{
    model::budgets::{Settlement, Slice, SliceAnswer, SliceOrder, Throttling},
    outbound::token_limiter::{Rejected, RetryAfter},
};

/// A store that gives these answers in turn, and records the settlements.
#[derive(Default)]
struct Scripted {
    answers: Mutex<Vec<Result<SliceAnswer, SharedQuotaError>>>,
    settled: Mutex<Vec<Settlement>>,
}

impl Scripted {
    fn new(mut answers: Vec<Result<SliceAnswer, SharedQuotaError>>) -> Arc<Self> {
        answers.reverse();
        Arc::new(Self {
            answers: Mutex::new(answers),
            settled: Mutex::default(),
        })
    }

    fn outbound(self: &Arc<Self>, clock: Clock) -> Outbound {
        let settings = OutboundSettings {
            allow_private_addresses: true,
            ..OutboundSettings::default()
        };
        let shares = Arc::clone(self) as Arc<dyn SharedQuota>;
        Outbound::new(settings, clock, 7, Some(shares)).unwrap()
    }
}

fn slice(number: u64, permits: u32) -> Result<SliceAnswer, SharedQuotaError> {
    Ok(SliceAnswer::Granted(Slice {
        number,
        permits,
        is_probe: false,
    }))
}

/// A store that is slow.
struct Slow(Arc<Scripted>);

#[async_trait]
impl SharedQuota for Slow {
    async fn take(
        &self,
        budget: &SharedBudget,
        order: &SliceOrder,
    ) -> Result<SliceAnswer, SharedQuotaError> {
        let answer = self.0.take(budget, order).await;
        Clock::system().sleep(Duration::from_secs(1)).await;
        answer
    }

    async fn settle(
        &self,
        budget: &SharedBudget,
        settlement: &Settlement,
    ) -> Result<(), SharedQuotaError> {
        self.0.settle(budget, settlement).await
    }

    async fn pause(
        &self,
        budget: &SharedBudget,
        throttling: &Throttling,
    ) -> Result<(), SharedQuotaError> {
        self.0.pause(budget, throttling).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_slice_that_comes_too_late_is_not_used() {
    let shares = Scripted::new(vec![slice(1, 5)]);
    let settings = OutboundSettings::default();
    let slow = Arc::new(Slow(Arc::clone(&shares)));
    let outbound = Outbound::new(settings, Clock::system(), 7, Some(slow)).unwrap();
    let limiter = outbound.0.limiter(&route("token"));
    let turn = limiter.enter(Priority::Background, None).await;
    assert!(matches!(turn, Err(Rejected::Unknown(_))));
    settle_down().await;
    let settled = shares.settled.lock().unwrap().clone();
    assert_eq!((settled[0].used, settled[0].unused), (0, 5));
}

fn away() -> Result<SliceAnswer, SharedQuotaError> {
    Err(SharedQuotaError {
        detail: "the store is away".to_owned(),
        retry_after: Some(Duration::from_secs(5)),
    })
}

#[async_trait]
impl SharedQuota for Scripted {
    async fn take(
        &self,
        _: &SharedBudget,
        _: &SliceOrder,
    ) -> Result<SliceAnswer, SharedQuotaError> {
        tokio::task::yield_now().await;
        let answer = self.answers.lock().unwrap().pop();
        answer.expect("somebody asked beyond the script")
    }

    async fn settle(
        &self,
        _: &SharedBudget,
        settlement: &Settlement,
    ) -> Result<(), SharedQuotaError> {
        self.settled.lock().unwrap().push(*settlement);
        Ok(())
    }

    async fn pause(&self, _: &SharedBudget, _: &Throttling) -> Result<(), SharedQuotaError> {
        Ok(())
    }
}

#[tokio::test]
async fn without_a_permit_nothing_is_sent_and_everybody_who_waits_is_told() {
    let provider = ScriptedProvider::scripted(vec![]).await;
    let shares = Scripted::new(vec![away(), slice(1, 5)]);
    let caller = shares
        .outbound(provider.clock.clone())
        .caller(route("token"));
    for error in join_all((0..3).map(|_| provider.get(&caller))).await {
        let error = error.unwrap_err();
        assert_eq!(error.kind, CallErrorKind::BudgetUnknown);
        assert_eq!(error.retry_after, Some(Duration::from_secs(5)));
        assert!(
            error.detail.contains("nothing was sent"),
            "{}",
            error.detail
        );
    }
    assert!(provider.noted().is_empty());
    assert_eq!(caller.calls(), 0);
    provider.get(&caller).await.unwrap();

    // An empty script panics in the leasing task; the waiting call fails instead of hanging.
    let caller = Scripted::new(vec![])
        .outbound(provider.clock.clone())
        .caller(route("token"));
    let error = provider.get(&caller).await.unwrap_err();
    assert_eq!(error.kind, CallErrorKind::BudgetUnknown);
    assert_eq!(provider.noted().len(), 1);
}

/// Lets spawned tasks make progress.
async fn settle_down() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_slice_is_settled_when_the_last_of_its_calls_has_ended() {
    let shares = Scripted::new(vec![slice(1, 3), slice(2, 5)]);
    let outbound = shares.outbound(Clock::system());
    let limiter = outbound.0.limiter(&route("token"));
    let enter = async || limiter.enter(Priority::Background, None).await.unwrap();
    let settled = || shares.settled.lock().unwrap().clone();

    let (first, second, third) = (enter().await, enter().await, enter().await);
    first.answered();
    tokio::time::advance(Duration::from_secs(20)).await;
    drop(second);
    settle_down().await;
    assert!(settled().is_empty(), "one is still on its way");
    third.unsent();
    settle_down().await;
    let expected = Settlement {
        number: 1,
        used: 2,
        unused: 1,
        // The canceled request may arrive until 60 seconds after its sending.
        arriving_for: Duration::from_secs(40),
        is_answered: true,
    };
    assert_eq!(settled(), [expected]);

    // An unused slice is returned after it expires.
    enter().await.answered();
    outbound.forget_idle();
    settle_down().await;
    assert_eq!(settled().len(), 1);
    tokio::time::advance(Duration::from_secs(1)).await;
    outbound.forget_idle();
    settle_down().await;
    let expected = Settlement {
        number: 2,
        used: 1,
        unused: 4,
        arriving_for: Duration::ZERO,
        is_answered: true,
    };
    assert_eq!(settled()[1..], [expected]);
}

#[tokio::test(start_paused = true)]
async fn a_slice_in_hand_goes_back_when_the_provider_says_to_wait() {
    let shares = Scripted::new(vec![slice(1, 5), slice(2, 1)]);
    let outbound = shares.outbound(Clock::system());
    let limiter = outbound.0.limiter(&route("token"));
    let from = Clock::system().monotonic();
    let permit = limiter.enter(Priority::Background, None).await.unwrap();
    permit.throttled(RetryAfter::After(Duration::from_secs(7)));
    let impatient = limiter.enter(Priority::Interactive, Some(Duration::from_secs(5)));
    assert!(matches!(impatient.await, Err(Rejected::In(wait)) if wait.as_secs() == 7));
    settle_down().await;
    let settled = shares.settled.lock().unwrap().clone();
    assert_eq!((settled[0].number, settled[0].unused), (1, 4));
    limiter.enter(Priority::Background, None).await.unwrap();
    assert_eq!((Clock::system().monotonic() - from).as_secs(), 7);
}

#[tokio::test(start_paused = true)]
async fn a_slice_that_somebody_asked_for_who_left_is_there_for_the_next() {
    let shares = Scripted::new(vec![slice(1, 2)]);
    let outbound = shares.outbound(Clock::system());
    let limiter = outbound.0.limiter(&route("token"));
    {
        let leaving = limiter.enter(Priority::Background, None);
        tokio::pin!(leaving);
        tokio::select! {
            biased;
            _ = &mut leaving => panic!("there is no slice yet"),
            () = std::future::ready(()) => {}
        }
    }
    limiter.enter(Priority::Background, None).await.unwrap();
    limiter.enter(Priority::Background, None).await.unwrap();
}
