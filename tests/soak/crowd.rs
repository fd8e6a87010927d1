//! A provider's limit and its wishes: never more than the limit in any sliding minute, whoever
//! asks and however often we are started anew; and not one call inside a wait.
//!
//! The gateway's clock runs many times as fast as the simulator's, so its minute is a second of
//! the simulator's log, or a tenth of one.

use std::{collections::BTreeMap, time::Duration};

use reqwest::Method;
use rolecall::clock::Clock;
use serde_json::{Value, json};

use crate::{
    is_full,
    world::{Pace, Plan, World, panics},
};

/// The simulator notes whole milliseconds.
const GRAIN_MS: i64 = 1;

async fn log(world: &World) -> Vec<Value> {
    let log = world.control(Method::GET, "/log", &json!(null)).await;
    log.as_array().unwrap().clone()
}

/// The most calls of one token in any window of the log, and how many it made in all.
pub fn most_in_a_window(log: &[Value], window_ms: i64) -> BTreeMap<String, (usize, usize)> {
    let mut times: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for entry in log {
        let token = entry["token"].as_str().unwrap().to_owned();
        times
            .entry(token)
            .or_default()
            .push(entry["at_ms"].as_i64().unwrap());
    }
    times
        .into_iter()
        .map(|(token, mut times)| {
            times.sort_unstable();
            let mut first = 0;
            let mut most = 0;
            for (last, at) in times.iter().enumerate() {
                while at - times[first] >= window_ms - GRAIN_MS {
                    first += 1;
                }
                most = most.max(last + 1 - first);
            }
            (token, (most, times.len()))
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_limit_is_never_passed_in_any_minute() {
    const LIMIT: u32 = 300;
    const TIMES: u32 = 60;
    let minutes = if is_full() { 60 } else { 6 };
    let mut world = World::new(&Plan {
        users: 250,
        groups: 60,
        rate_limit: LIMIT,
        parallel_reads: 8,
        pace: Pace::Racing(TIMES),
        ..Plan::default()
    })
    .await;
    let tokens = world.simulator.announcement().tokens.clone();
    let mut accounts = Vec::new();
    // Three accounts share a token, two have their own.
    for token in [
        &tokens.system_admin,
        &tokens.system_admin,
        &tokens.system_admin,
        &tokens.group_admin,
        &tokens.member,
    ] {
        accounts.push(world.link(token).await);
    }
    for half in 0..2 {
        // Walk after walk of each account, and readers that want it newer still.
        let until = Clock::system().monotonic() + Duration::from_secs(minutes / 2);
        let crowd = accounts.iter().map(|account| {
            let world = &world;
            async move {
                while Clock::system().monotonic() < until {
                    let path = format!("/accounts/{account}/walks?full=true&wait=60");
                    world.call(Method::POST, &path, None).await;
                }
            }
        });
        futures_util::future::join_all(crowd).await;
        if half == 0 {
            world.restart().await;
        }
    }
    let window_ms = i64::from(60_000 / TIMES);
    let most = most_in_a_window(&log(&world).await, window_ms);
    println!("most calls in a minute, and in {minutes} minutes: {most:?}");
    for (token, (most, _)) in &most {
        assert!(*most <= LIMIT as usize, "{token}: {most} calls in a minute");
    }
    // The limit was there to be met, or this proves nothing.
    assert!(most["system_admin"].0 > LIMIT as usize * 3 / 4, "{most:?}");
    assert_eq!(panics(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_is_made_inside_a_wait() {
    const TIMES: u32 = 600;
    let world = World::new(&Plan {
        users: 250,
        groups: 20,
        rate_limit: 0,
        pace: Pace::Racing(TIMES),
        ..Plan::default()
    })
    .await;
    let account = world.link_admin().await;
    let path = format!("/accounts/{account}/walks?wait=60");
    world.call(Method::POST, &path, None).await.expect(200);
    // What the provider says, and how many seconds of waiting it comes to.
    let waits = [
        (Some("7"), 7),
        (Some("60"), 60),
        (Some("120"), 120),
        (None, 60),
        (Some("soon"), 900),
        (Some("86400"), 900),
    ];
    let rounds = if is_full() { 10 } else { 1 };
    let mut waited = 0;
    for _ in 0..rounds {
        for (retry_after, seconds) in waits {
            let since = log(&world).await.len();
            let fault = json!({"kind": "status", "status": 429, "error_code": 4003, "retry_after": retry_after});
            let rules = json!([
                {"after": 3, "times": 1, "fault": fault},
                {"after": 9, "times": 2, "fault": fault},
            ]);
            world.control(Method::POST, "/faults", &rules).await;
            let walk = world.call(Method::POST, &path, None).await.expect(200);
            assert_eq!(walk["state"], "sealed", "{walk}");
            let calls = log(&world).await.split_off(since);
            for pair in calls.windows(2).filter(|pair| pair[0]["status"] == 429) {
                let apart_ms =
                    pair[1]["at_ms"].as_i64().unwrap() - pair[0]["at_ms"].as_i64().unwrap();
                let wait_ms = seconds * 1000 / i64::from(TIMES);
                assert!(
                    apart_ms + GRAIN_MS >= wait_ms,
                    "a call {apart_ms} ms into a wait of {wait_ms} ms after {retry_after:?}"
                );
                waited += 1;
            }
        }
    }
    assert_eq!(waited, 3 * waits.len() * rounds);
    println!("{waited} waits obeyed");
    assert_eq!(panics(), Vec::<String>::new());
}
