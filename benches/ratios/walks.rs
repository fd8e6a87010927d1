//! Walks: their calls, compared with the fewest that could read the same data, and their time under
//! a rate limit, compared with the time that the budget allows.

use serde_json::Value;

use crate::{
    Outcome,
    house::{House, organization, text},
    table::{Table, Target},
};

const USERS: usize = 10_000;
const GROUPS: usize = 500;

/// The number of records per page that the connector requests.
const PAGE_SIZE: usize = 100;

const CALLS: Target = Target::AtMost(1.02);
const TIME: Target = Target::AtMost(1.05);

/// The rate limit in calls per minute: low enough that the walk lasts longer than its burst, high
/// enough that the bench stays short.
const RATE_LIMIT: u32 = 1_800;

pub async fn measure(table: &mut Table) -> Outcome<()> {
    table.part(&format!(
        "Walks of {USERS} users and {GROUPS} groups: over the fewest calls, and over the budget"
    ));
    without_a_limit(table).await?;
    under_a_limit(table).await
}

/// The fewest calls of a walk: one for the current user, one for the plan, one for each page, one
/// for each group.
fn fewest_calls(truth: &Value) -> Outcome<u64> {
    let count = |list: &str| -> Outcome<usize> {
        let list = truth[list].as_array().ok_or("a truth without its lists")?;
        Ok(list.len())
    };
    let (users, groups) = (count("users")?, count("groups")?);
    let calls = 2 + users.div_ceil(PAGE_SIZE) + groups.div_ceil(PAGE_SIZE) + groups;
    Ok(calls as u64)
}

async fn without_a_limit(table: &mut Table) -> Outcome<()> {
    let simulator = organization(USERS, GROUPS, 0).await?;
    let house = House::new(0)?;
    let serving = house.serve().await?;
    let account = house.link(&simulator, "walks").await?;
    house.until_walked(&account).await?;
    let fewest = fewest_calls(&house.control(&simulator, "/truth").await?)?;

    let first = house.walks(&account).await?;
    let first = first
        .last()
        .ok_or("an account with a directory and no walk")?;
    let calls = upstream_calls(first)?;
    let seconds = length(first)?.as_secs_f64();
    table.figure(
        "first walk, calls as Rolecall counts them",
        calls as f64 / fewest as f64,
        CALLS,
        &format!("{calls} of {fewest}, in {seconds:.2} s without a limit"),
    );

    // A second walk, whose calls the simulator's log shows without those of linking.
    let seen = calls_seen(&house.control(&simulator, "/log").await?);
    let walk = house.walk(&account).await?;
    let calls = calls_seen(&house.control(&simulator, "/log").await?) - seen;
    if walk["state"] != "sealed" {
        return Err(format!("a walk that did not seal: {walk}").into());
    }
    table.figure(
        "whole walk, calls as the provider has them",
        calls as f64 / fewest as f64,
        CALLS,
        &format!(
            "{calls} of {fewest}, in {:.2} s",
            length(&walk)?.as_secs_f64()
        ),
    );
    serving.terminate()
}

async fn under_a_limit(table: &mut Table) -> Outcome<()> {
    let simulator = organization(USERS, GROUPS, RATE_LIMIT).await?;
    let house = House::new(RATE_LIMIT)?;
    let serving = house.serve().await?;
    let account = house.link(&simulator, "walks").await?;
    house.until_walked(&account).await?;
    let walks = house.walks(&account).await?;
    let walk = walks
        .last()
        .ok_or("an account with a directory and no walk")?;
    let log = house.control(&simulator, "/log").await?;
    let calls = calls_seen(&log);
    let is_refused = |entry: &Value| entry["status"] != 200;
    if log.as_array().is_some_and(|log| log.iter().any(is_refused)) {
        return Err("the provider refused a call: the budget was overrun".into());
    }
    // The budget allows a burst of a tenth of the limit, then nine tenths of it per minute. The
    // calls of linking used the same budget.
    let limit = f64::from(RATE_LIMIT);
    let allowed = (calls as f64 - limit / 10.0) / (limit * 0.9) * 60.0;
    let took = length(walk)?.as_secs_f64();
    table.figure(
        "first walk under a limit, time",
        took / allowed,
        TIME,
        &format!("{took:.2} s of {allowed:.2} s for {calls} calls at {RATE_LIMIT} a minute"),
    );
    serving.terminate()
}

fn calls_seen(log: &Value) -> usize {
    log.as_array().map_or(0, Vec::len)
}

fn upstream_calls(walk: &Value) -> Outcome<u64> {
    let calls = walk["upstream_calls"].as_u64();
    calls.ok_or_else(|| format!("a walk that counted no calls: {walk}").into())
}

fn length(walk: &Value) -> Outcome<std::time::Duration> {
    let moment = |name: &str| -> Outcome<jiff::Timestamp> { Ok(text(&walk[name])?.parse()?) };
    Ok(moment("ended_at")?
        .duration_since(moment("started_at")?)
        .try_into()?)
}
