//! The control plane: the API with which tests change and inspect the simulator.
//!
//! An invalid request gets 400 with a reason and changes nothing: a test whose fault was silently
//! ignored would prove nothing.

use std::time::Duration;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::api;
use crate::call::{Call, Query, Reply};
use crate::churn::{Churn, Order};
use crate::faults::{Faults, Rule};
use crate::mutate::Op;
use crate::state::State;

/// The path prefix of the control plane.
pub const BASE: &str = "/__control";

/// Answers a control request.
pub fn serve(state: &mut State, control: &str, call: &Call) -> Reply {
    let body = &call.body;
    let answer = match (call.method.as_str(), control) {
        ("GET", "truth") => Ok(truth(state)),
        ("GET", "log") => log(state, &call.query),
        ("GET", "tokens") => tokens(state, &call.query),
        ("GET", "clients") => Ok(Reply::json(200, state.clients.all())),
        ("POST", "clients") => parse(body).and_then(|client| register(state, &client)),
        ("POST", "mutate") => parse(body).and_then(|ops| mutate(state, ops)),
        ("POST", "churn") => parse(body).and_then(|order| churn(state, order)),
        ("POST", "faults") => parse(body).and_then(|rules| faults(state, rules)),
        ("DELETE", "faults") => faults(state, Vec::new()),
        ("POST", "switches") => parse(body).and_then(|named: Value| switches(state, &named)),
        ("POST", "clock") => parse(body).and_then(|by| clock(state, &by)),
        ("POST", "reset") => {
            state.reset();
            Ok(Reply::json(200, &json!({"ok": true})))
        }
        (
            _,
            "truth" | "log" | "tokens" | "clients" | "mutate" | "churn" | "faults" | "switches"
            | "clock" | "reset",
        ) => {
            return Reply::json(405, &json!({"error": "method not allowed"}));
        }
        _ => return Reply::json(404, &json!({"error": "no such control"})),
    };
    answer.unwrap_or_else(|why| Reply::json(400, &json!({"error": why})))
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|error| error.to_string())
}

fn truth(state: &State) -> Reply {
    #[derive(Serialize)]
    struct Truth<U, G> {
        users: U,
        groups: G,
    }
    Reply::json(
        200,
        &Truth {
            users: api::users::truth(state),
            groups: api::groups::truth(state),
        },
    )
}

fn log(state: &State, query: &Query) -> Result<Reply, String> {
    let since = query
        .get("since")
        .map_or(Ok(0), str::parse)
        .map_err(|_| "since is a number".to_owned())?;
    let entries: Vec<_> = state.log.since(since).collect();
    Ok(Reply::json(200, &entries))
}

fn tokens(state: &State, query: &Query) -> Result<Reply, String> {
    let is_live_only = match query.get("live") {
        None => false,
        Some("true") => true,
        Some(_) => return Err("live is true, or absent".to_owned()),
    };
    let people = &state.world.people;
    let login = |id| {
        let person = people.get(id).or_else(|| state.world.removed.get(&id));
        person
            .map(|person| person.email.clone())
            .unwrap_or_default()
    };
    let rows = state.tokens.rows(state.now(), login);
    let rows: Vec<_> = rows.filter(|row| row.live || !is_live_only).collect();
    Ok(Reply::json(200, &rows))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewClient {
    redirect_url: String,
    name: Option<String>,
}

fn register(state: &mut State, client: &NewClient) -> Result<Reply, String> {
    let NewClient { redirect_url, name } = client;
    let client = state.clients.register(redirect_url, name.as_deref())?;
    Ok(Reply::json(200, client))
}

/// 200 if all operations succeed; 422, with a result for each, if one fails.
fn mutate(state: &mut State, ops: Vec<Op>) -> Result<Reply, String> {
    for (index, op) in ops.iter().enumerate() {
        op.check()
            .map_err(|why| format!("operation {index}: {why}"))?;
    }
    let mut status = 200;
    let results: Vec<Value> = ops
        .iter()
        .map(|op| match op.apply(state) {
            Ok(mut result) => {
                result["ok"] = true.into();
                result
            }
            Err(why) => {
                status = 422;
                json!({"ok": false, "error": why})
            }
        })
        .collect();
    Ok(Reply::json(status, &results))
}

fn churn(state: &mut State, order: Order) -> Result<Reply, String> {
    state.churn = Churn::new(order)?;
    Ok(Reply::json(
        200,
        &json!({"churning": state.churn.is_some()}),
    ))
}

fn faults(state: &mut State, rules: Vec<Rule>) -> Result<Reply, String> {
    state.faults = Faults::new(rules)?;
    Ok(Reply::json(200, &json!({"faults": state.faults.len()})))
}

fn switches(state: &mut State, named: &Value) -> Result<Reply, String> {
    state.switches.turn(named)?;
    Ok(Reply::json(200, &state.switches))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Advance {
    advance_s: u64,
}

fn clock(state: &mut State, by: &Advance) -> Result<Reply, String> {
    if !state.clock.advance(Duration::from_secs(by.advance_s)) {
        return Err("the world does not go on for so long".to_owned());
    }
    let now = state.now();
    state.world.end_provisional_seats(now);
    Ok(Reply::json(200, &json!({"now_ms": now.as_millisecond()})))
}
