//! The budgets that processes share: parts of the contract, and how long a slice counts, where
//! time can be moved.

use std::{num::NonZeroU32, time::Duration};

use rolecall::{
    clock::Clock,
    model::budgets::{
        BudgetName, Quota, Settlement, SharedBudget, Slice, SliceAnswer, SliceOrder, Throttling,
    },
    store::Store,
};

use crate::world::{World, ring};

/// A budget of 300 a minute: a burst of 30, and then one every 222 ms.
fn budget(name: u8) -> SharedBudget {
    SharedBudget {
        name: BudgetName::new([name; 32]),
        quota: Quota::new(NonZeroU32::new(300).unwrap()),
    }
}

const ORDER: SliceOrder = SliceOrder {
    most: 5,
    usable_for: Duration::from_secs(1),
    longest_call: Duration::from_secs(60),
    is_newly_linked: true,
};

async fn take(store: &Store, budget: SharedBudget) -> Result<Slice, Duration> {
    match store.take_slice(&budget, &ORDER).await.unwrap() {
        SliceAnswer::Granted(slice) => Ok(slice),
        SliceAnswer::Wait(wait) => Err(wait),
    }
}

/// Takes what there is.
async fn drain(store: &Store, budget: SharedBudget) -> Vec<Slice> {
    let mut slices = Vec::new();
    while let Ok(slice) = take(store, budget).await {
        slices.push(slice);
    }
    slices
}

fn permits(slices: &[Slice]) -> u32 {
    slices.iter().map(|slice| slice.permits).sum()
}

fn used(slice: Slice, used: u32) -> Settlement {
    Settlement {
        number: slice.number,
        used,
        unused: slice.permits - used,
        arriving_for: Duration::ZERO,
        is_answered: used > 0,
    }
}

// A database that has a clock of its own gives what falls due while a test runs: up to 5, unless
// it takes longer than a second.

pub async fn it_begins_with_its_burst_only_if_it_is_new(World { store, .. }: World) {
    let slices = drain(&store, budget(1)).await;
    assert!((30..=35).contains(&permits(&slices)), "{slices:?}");
    assert!(slices.iter().all(|slice| slice.permits <= 5));
    assert!(slices.is_sorted_by(|one, next| one.number < next.number));

    let order = SliceOrder {
        is_newly_linked: false,
        ..ORDER
    };
    let answer = store.take_slice(&budget(2), &order).await.unwrap();
    assert!(matches!(answer, SliceAnswer::Wait(wait) if wait <= Duration::from_millis(667)));
    // Who comes later and says that it is new does not make it so.
    assert!(permits(&drain(&store, budget(2)).await) <= 5);
}

pub async fn what_is_not_used_is_there_again(World { store, .. }: World) {
    let slices = drain(&store, budget(1)).await;
    for &slice in &slices[..4] {
        store
            .settle_slice(&budget(1), &used(slice, 1))
            .await
            .unwrap();
    }
    let again = permits(&drain(&store, budget(1)).await);
    assert!((16..=21).contains(&again), "{again}");
    // Of a slice that nobody knows nothing is given back.
    let unknown = Slice {
        number: 9_999,
        permits: 500,
        is_probe: false,
    };
    store
        .settle_slice(&budget(1), &used(unknown, 0))
        .await
        .unwrap();
    store
        .settle_slice(&budget(7), &used(unknown, 0))
        .await
        .unwrap();
    assert!(permits(&drain(&store, budget(1)).await) <= 5);
}

pub async fn it_is_given_once_however_many_ask(World { store, .. }: World) {
    let askers: Vec<_> = (0..16)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { drain(&store, budget(1)).await })
        })
        .collect();
    let mut slices = Vec::new();
    for asker in askers {
        slices.extend(asker.await.unwrap());
    }
    let given = permits(&slices);
    assert!((30..=35).contains(&given), "{given}");
    let mut numbers: Vec<_> = slices.iter().map(|slice| slice.number).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), slices.len(), "each slice is one process's");
}

pub async fn after_a_pause_one_goes_first(World { store, .. }: World) {
    let pause = async |wait| {
        let throttling = Throttling {
            wait,
            halves_if_sent_ago: None,
        };
        store.pause_budget(&budget(1), &throttling).await.unwrap();
    };
    take(&store, budget(1)).await.unwrap();
    // A pause that is over as it begins.
    pause(Duration::ZERO).await;
    let probe = take(&store, budget(1)).await.unwrap();
    assert_eq!((probe.permits, probe.is_probe), (1, true));
    assert!(take(&store, budget(1)).await.is_err());
    store
        .settle_slice(&budget(1), &used(probe, 0))
        .await
        .unwrap();
    let probe = take(&store, budget(1)).await.unwrap();
    assert!(probe.is_probe, "the first was not answered");
    store
        .settle_slice(&budget(1), &used(probe, 1))
        .await
        .unwrap();
    let slice = take(&store, budget(1)).await.unwrap();
    assert_eq!((slice.permits, slice.is_probe), (5, false));

    pause(Duration::from_secs(900)).await;
    pause(Duration::from_secs(60)).await;
    let wait = take(&store, budget(1)).await.unwrap_err();
    assert!(wait > Duration::from_secs(890), "{wait:?}");
    assert!(wait <= Duration::from_secs(900), "{wait:?}");
    assert!(take(&store, budget(2)).await.is_ok(), "another token's");
}

#[tokio::test]
async fn a_slice_counts_until_a_minute_after_its_requests_can_have_arrived() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("store.db").display());
    let World { store, clock, .. } = World::open(&url, &ring("a")).await.unwrap();
    let secs = Duration::from_secs;
    let answered = Settlement {
        arriving_for: Duration::ZERO,
        ..used_up()
    };
    let arriving = Settlement {
        arriving_for: secs(30),
        ..used_up()
    };
    for (name, after, settlement, counts_for) in [
        (1, secs(5), Some(answered), secs(65)),
        (2, secs(5), Some(arriving), secs(95)),
        // Its process was killed.
        (3, secs(5), None, secs(121)),
    ] {
        // One a minute, so that nothing but the window stands in the way after a minute.
        let one = SharedBudget {
            quota: Quota::new(NonZeroU32::MIN),
            ..budget(name)
        };
        let slice = take(&store, one).await.unwrap();
        assert_eq!(slice.permits, 1);
        clock.advance(after);
        if let Some(settlement) = settlement {
            let number = slice.number;
            let settlement = Settlement {
                number,
                ..settlement
            };
            store.settle_slice(&one, &settlement).await.unwrap();
        }
        clock.advance(counts_for - after);
        let wait = take(&store, one).await.unwrap_err();
        assert_eq!(wait, Duration::from_millis(1), "{name}");
        clock.advance(wait);
        take(&store, one).await.unwrap();
    }
}

fn used_up() -> Settlement {
    Settlement {
        number: 0,
        used: 1,
        unused: 0,
        arriving_for: Duration::ZERO,
        is_answered: true,
    }
}

#[tokio::test]
async fn a_budget_that_nobody_used_for_a_day_is_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("store.db").display());
    let World { store, clock, .. } = World::open(&url, &ring("a")).await.unwrap();
    let first = take(&store, budget(1)).await.unwrap();
    let later = take(&store, budget(1)).await.unwrap();
    assert!(later.number > first.number);
    let day = Duration::from_secs(24 * 60 * 60);
    clock.advance(day);
    take(&store, budget(2)).await.unwrap();
    assert!(take(&store, budget(1)).await.unwrap().number > later.number);
    clock.advance(day + Duration::from_millis(1));
    take(&store, budget(3)).await.unwrap();
    let anew = take(&store, budget(1)).await.unwrap();
    assert_eq!(anew.number, first.number);
}

#[tokio::test]
async fn a_date_that_was_set_back_makes_nobody_wait_until_it_is_that_late_again() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("store.db").display());
    let ring = ring("a");
    let World { store, clock, .. } = World::open(&url, &ring).await.unwrap();
    let hour = Duration::from_secs(3600);
    let throttling = Throttling {
        wait: Duration::from_secs(30),
        halves_if_sent_ago: Some(Duration::ZERO),
    };
    for name in [1, 2] {
        assert!(permits(&drain(&store, budget(name)).await) >= 30);
    }
    store.pause_budget(&budget(2), &throttling).await.unwrap();

    let back = Clock::skipping(clock.now() - hour);
    let store = Store::open(&url, ring, back.clone()).await.unwrap();
    for (name, at_most) in [(1, 200), (2, 15 * 60 + 200)] {
        let began_at = back.now();
        // The sum of the waits that it asks for, each of which is short.
        while let Err(wait) = take(&store, budget(name)).await {
            back.advance(wait);
        }
        let waited = back.now().duration_since(began_at).as_secs();
        assert!(waited <= at_most, "{waited} s");
    }
}
