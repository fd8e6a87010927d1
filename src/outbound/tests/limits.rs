//! The budget of a token, and the waits that its provider asks for.

use futures_util::future::join_all;

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

/// The largest number of requests within any sixty seconds.
pub(super) fn most_in_a_minute(times: &[Duration]) -> usize {
    (0..times.len())
        .map(|first| {
            times[first..]
                .iter()
                .take_while(|&&time| time <= times[first] + MINUTE)
                .count()
        })
        .max()
        .unwrap_or(0)
}

#[tokio::test]
async fn no_sixty_seconds_hold_more_requests_than_the_limit() {
    for concurrent in [1, 7, 40] {
        let provider = ScriptedProvider::scripted(vec![]).await;
        let outbound = provider.outbound_with(|settings| settings.rate_limit = 30);
        let caller = outbound.caller(route("token"));
        join_all((0..concurrent).map(|_| async {
            for _ in 0..(200 / concurrent) {
                provider.get(&caller).await.unwrap();
            }
        }))
        .await;
        let times = provider.times();
        assert!(most_in_a_minute(&times) <= 30, "{concurrent} at once");
        if concurrent == 1 {
            // The rate is fully used: 27 a minute after a burst of 3.
            let most = MINUTE * u32::try_from(times.len()).unwrap() / 27;
            assert!(*times.last().unwrap() <= most);
        }
    }
}

#[tokio::test]
async fn requests_that_were_held_up_do_not_arrive_on_top_of_others() {
    // Three requests are in flight for two minutes. The window reserves room for them, so the
    // others stay below the limit whenever those three arrive.
    let waker = Arc::new(Notify::new());
    let held = Arc::clone(&waker);
    let provider = ScriptedProvider::start(move |number| {
        if number <= 3 {
            Act::Hold(Arc::clone(&held), reply(200, "", "{}"))
        } else {
            good()
        }
    })
    .await;
    let outbound = provider.outbound_with(|settings| settings.rate_limit = 10);
    let caller = outbound.caller(route("token"));
    let slow = join_all((0..3).map(|_| provider.get(&caller)));
    let fast = async {
        for _ in 0..30 {
            provider.get(&caller).await.unwrap();
        }
        waker.notify_waiters();
    };
    let (_, ()) = tokio::join!(slow, fast);
    let fast = &provider.times()[3..];
    assert!(most_in_a_minute(fast) <= 7);
}

#[tokio::test]
async fn the_burst_is_there_for_a_new_token_and_spent_after_a_restart() {
    let provider = ScriptedProvider::scripted(vec![]).await;
    let spent_at = |is_newly_linked, rested| {
        let provider = &provider;
        async move {
            let outbound = provider.outbound();
            provider.clock.advance(rested);
            let caller = outbound.caller(ClientScope {
                is_newly_linked,
                ..route("token")
            });
            let from = provider.clock.monotonic();
            for _ in 0..30 {
                provider.get(&caller).await.unwrap();
            }
            provider.clock.monotonic() - from
        }
    };
    assert_eq!(spent_at(true, Duration::ZERO).await, Duration::ZERO);
    let spread = spent_at(false, Duration::ZERO).await;
    assert!(spread >= MINUTE * 30 / 270, "{spread:?}");
    // A process that has run for a minute knows that the token was unused.
    assert_eq!(spent_at(false, MINUTE).await, Duration::ZERO);
}

#[tokio::test]
async fn no_limit_means_no_waiting() {
    let provider = ScriptedProvider::scripted(vec![]).await;
    let outbound = provider.outbound_with(|settings| settings.rate_limit = 0);
    let caller = outbound.caller(route("token"));
    join_all((0..100).map(|_| provider.get(&caller))).await;
    assert_eq!(*provider.times().last().unwrap(), Duration::ZERO);
    assert_eq!(caller.budget_per_minute(), None);
    assert_eq!(provider.caller().budget_per_minute(), Some(300));
}

#[tokio::test]
async fn an_interactive_call_goes_before_those_that_wait() {
    let provider = ScriptedProvider::scripted(vec![]).await;
    let outbound = provider.outbound_with(|settings| settings.rate_limit = 10);
    let background = outbound.caller(route("token"));
    provider.get(&background).await.unwrap();
    let interactive = background.with_priority(Priority::Interactive);

    let done = Mutex::new(Vec::new());
    let call = |caller: AccountClient, name: &'static str| {
        let (provider, done) = (&provider, &done);
        async move {
            provider.get(&caller).await.unwrap();
            done.lock().unwrap().push(name);
        }
    };
    tokio::join!(
        call(background.clone(), "first"),
        call(background.clone(), "second"),
        call(interactive, "interactive"),
    );
    assert_eq!(*done.lock().unwrap(), ["interactive", "first", "second"]);
}

/// The wait after a throttled response with these headers, as two clients of the token observe it.
/// A client with another token is not delayed.
async fn pause_after(headers: &str) -> Duration {
    let provider = ScriptedProvider::scripted(vec![answer(429, headers, "")]).await;
    let outbound = provider.outbound();
    let (one, two) = (
        outbound.caller(route("token")),
        outbound.caller(route("token")),
    );
    let other = outbound.caller(route("another"));
    let first = async {
        provider.get(&one).await.unwrap();
    };
    let second = async {
        // Once the pause has started.
        while one.calls() == 0 || provider.noted().is_empty() {
            tokio::task::yield_now().await;
        }
        provider.get(&two).await.unwrap();
    };
    tokio::join!(first, second);
    let times = provider.times();
    assert_eq!(times.len(), 3, "after {headers:?}");
    let paused_at = provider.clock.monotonic();
    provider.get(&other).await.unwrap();
    assert_eq!(provider.clock.monotonic(), paused_at);
    times[1].min(times[2])
}

#[tokio::test]
async fn a_wait_is_obeyed_by_every_caller_of_the_token() {
    let seconds = Duration::from_secs;
    for (headers, pause) in [
        ("retry-after: 7\r\n", seconds(7)),
        ("retry-after: Sun, 22 Nov 2026 12:00:07 GMT\r\n", seconds(7)),
        (
            "retry-after: Sun, 22 Nov 2026 10:00:07 GMT\r\ndate: Sun, 22 Nov 2026 10:00:00 GMT\r\n",
            seconds(7),
        ),
        ("retry-after: 0\r\n", seconds(1)),
        ("retry-after: 86400\r\n", seconds(900)),
        ("retry-after: 999999999999999999999\r\n", seconds(900)),
        ("retry-after: -5\r\n", seconds(900)),
        ("retry-after: in a while\r\n", seconds(900)),
        ("", seconds(60)),
    ] {
        let paused = pause_after(headers).await;
        assert!(
            (pause..pause + seconds(1)).contains(&paused),
            "{headers:?}: {paused:?}"
        );
    }
}

#[tokio::test]
async fn after_a_wait_one_call_goes_first_and_the_others_follow_its_answer() {
    let waker = Arc::new(Notify::new());
    let held = Arc::clone(&waker);
    let provider = ScriptedProvider::start(move |number| match number {
        1 => answer(429, "retry-after: soon\r\n", ""),
        2 => Act::Hold(Arc::clone(&held), reply(429, "retry-after: 5\r\n", "")),
        _ => good(),
    })
    .await;
    let caller = provider.caller();
    let impatient = caller.with_priority(Priority::Interactive);
    provider.get(&impatient).await.unwrap_err();

    let calls = join_all((0..5).map(|_| provider.get(&caller)));
    let watch = async {
        let second = async {
            while provider.noted().len() < 2 {
                tokio::task::yield_now().await;
            }
        };
        let asked = tokio::time::timeout(HANG, second).await;
        asked.expect("a second call after the wait");
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(provider.noted().len(), 2, "one goes first");
        waker.notify_one();
    };
    let (answers, ()) = tokio::join!(calls, watch);
    for answer in answers {
        answer.unwrap();
    }
    let times = provider.times();
    assert_eq!(times[1], Duration::from_secs(15 * 60));
    assert!(times[2] >= times[1] + Duration::from_secs(5));
}

#[tokio::test]
async fn throttling_without_a_time_halves_the_rate_and_it_comes_back() {
    let provider = ScriptedProvider::scripted(vec![answer(429, "", "")]).await;
    let outbound = provider.outbound_with(|settings| settings.rate_limit = 100);
    let caller = outbound.caller(route("token"));
    for _ in 0..600 {
        provider.get(&caller).await.unwrap();
    }
    let times = provider.times();
    let resumed_at = times[1];
    assert!(resumed_at >= MINUTE);
    let in_minute = |number: u32| {
        let from = resumed_at + MINUTE * number;
        times
            .iter()
            .filter(|&&time| time >= from && time < from + MINUTE)
            .count()
    };
    // The full steady rate is 90 of 100; 50 %, 60 % and so on of it.
    let counts: Vec<_> = (0..7).map(in_minute).collect();
    for (count, expected) in counts.iter().zip([45, 54, 63, 72, 81, 90, 90]) {
        assert!(count.abs_diff(expected) <= 2, "{counts:?}");
    }
}

#[tokio::test]
async fn calls_that_were_refused_together_halve_the_rate_once() {
    let provider = ScriptedProvider::start(|number| match number {
        1..=5 => answer(429, "", ""),
        _ => good(),
    })
    .await;
    let outbound = provider.outbound_with(|settings| settings.rate_limit = 100);
    let caller = outbound.caller(route("token"));
    join_all((0..5).map(|_| provider.get(&caller))).await;
    let resumed_at = provider.clock.monotonic();
    for _ in 0..40 {
        provider.get(&caller).await.unwrap();
    }
    let took = provider.clock.monotonic() - resumed_at;
    assert!(
        took <= MINUTE * 45 / 45,
        "{took:?} for 40 calls at half of 90 a minute"
    );
}

#[tokio::test]
async fn nobody_who_waits_for_a_person_waits_for_long() {
    let provider = ScriptedProvider::scripted(vec![answer(429, "retry-after: 120\r\n", "")]).await;
    let caller = provider.caller().with_priority(Priority::Interactive);
    for status in [Some(429), None] {
        let error = provider.get(&caller).await.unwrap_err();
        assert_eq!(
            (error.kind, error.status),
            (CallErrorKind::Throttled, status)
        );
        assert_eq!(error.retry_after, Some(Duration::from_secs(120)));
    }
    assert_eq!(caller.calls(), 1);
}

#[tokio::test]
async fn a_call_that_is_given_up_leaves_no_trace_in_the_queue() {
    let provider = ScriptedProvider::start(|number| match number {
        1 => Act::Hang(Vec::new()),
        _ => good(),
    })
    .await;
    let outbound = provider.outbound_with(|settings| settings.rate_limit = 1);
    let caller = outbound.caller(route("token"));
    {
        let hanging = provider.get(&caller);
        let waiting = provider.get(&caller);
        tokio::pin!(hanging, waiting);
        tokio::select! {
            biased;
            _ = &mut hanging => panic!("no answer comes"),
            _ = &mut waiting => panic!("there is no budget for a second"),
            () = async { while provider.noted().is_empty() { tokio::task::yield_now().await } } => {}
        }
    }
    let given_up_at = provider.clock.monotonic();
    provider.get(&caller).await.unwrap();
    // The canceled request counts as answered when it was canceled, so the next one waits a minute.
    assert!(provider.clock.monotonic() - given_up_at >= MINUTE);
}

#[tokio::test]
async fn idle_lanes_are_forgotten_and_busy_ones_are_not() {
    let provider = ScriptedProvider::scripted(vec![answer(429, "retry-after: 300\r\n", "")]).await;
    let outbound = provider.outbound();
    let limiters = || outbound.0.limiters.lock().unwrap().len();
    let caller = outbound
        .caller(route("token"))
        .with_priority(Priority::Interactive);
    provider.get(&caller).await.unwrap_err();
    drop(caller);
    provider.clock.advance(MINUTE * 2);
    outbound.forget_idle();
    assert_eq!(limiters(), 1, "a pause is not forgotten");
    provider.clock.advance(MINUTE * 10);
    outbound.forget_idle();
    assert_eq!(limiters(), 0);
    assert!(outbound.0.healths.lock().unwrap().is_empty());
}
