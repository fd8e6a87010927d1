//! A start with many accounts in the store: the time until the server is ready, and until the first
//! page of an account is served.

use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt, stream};

use crate::{
    Outcome,
    house::{House, organization},
    table::{Table, Target},
};

const ACCOUNTS: usize = 1_000;
const STARTS: usize = 3;

/// The number of accounts that are linked concurrently.
const AT_ONCE: usize = 16;

const SECONDS: Target = Target::AtMost(1.0);

pub async fn measure(table: &mut Table) -> Outcome<()> {
    table.part(&format!("A start with {ACCOUNTS} accounts in the store"));
    let simulator = organization(25, 2, 0).await?;
    let house = House::new(0)?;
    let serving = house.serve().await?;
    let accounts: Vec<_> = stream::iter(0..ACCOUNTS)
        .map(|number| {
            let (house, simulator) = (&house, &simulator);
            async move {
                let account = house.link(simulator, &format!("customer-{number}")).await?;
                house.until_walked(&account).await?;
                Outcome::Ok(account)
            }
        })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    serving.terminate()?;

    let mut starts = Vec::with_capacity(STARTS);
    for account in accounts.iter().take(STARTS) {
        let began_at = Instant::now();
        let mut serving = house.start()?;
        let ready = house.request("/health/ready", account);
        house.until_answered(&mut serving, &ready).await?;
        let ready_after = began_at.elapsed();
        let page = house.request("/iam/users", account);
        house.until_answered(&mut serving, &page).await?;
        starts.push((ready_after, began_at.elapsed()));
        serving.terminate()?;
    }
    let slowest = |of: fn(&(Duration, Duration)) -> Duration| {
        let slowest = starts.iter().map(of).max();
        slowest.map_or(f64::NAN, |took| took.as_secs_f64())
    };
    let from = format!("the slowest of {STARTS}");
    table.figure("until ready, s", slowest(|start| start.0), SECONDS, &from);
    table.figure(
        "until a first page, s",
        slowest(|start| start.1),
        SECONDS,
        &from,
    );
    Ok(())
}
