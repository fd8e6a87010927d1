//! One odd field costs that field and nothing else: any field of any row, in any list, replaced by
//! arbitrary JSON or left out, in a first walk and in a later one.
//!
//! The walk seals, every other record is what it was, and the person or group is there unless its
//! id was hit. A group's member without an id makes that group's members unread, and that is told.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    is_full, only_seed,
    world::{Plan, World, panics},
};

/// Stands for the odd value while a page is a `Value`, which cannot hold every JSON text.
const ODD: &str = "the odd value";

/// A list as the provider sent it, and which requests get it.
struct Sent {
    matches: Value,
    body: Value,
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Users,
    Groups,
    /// One group with its members.
    Group(String),
}

/// What was hit.
#[derive(Debug)]
struct Hit {
    kind: Kind,
    /// The id of the record that the row is of, before it was hit.
    id: String,
    field: String,
    /// As JSON text; None: the field is left out.
    value: Option<String>,
    matches: Value,
    body: String,
}

impl Hit {
    fn is_of_id(&self) -> bool {
        self.field == "id"
    }

    /// The group that this is about, if it is about members: they cannot be read, or one of them
    /// is said to be another.
    fn unread_group(&self) -> Option<&str> {
        match &self.kind {
            Kind::Group(group) if self.is_of_id() || self.field == "members" => Some(group),
            _ => None,
        }
    }

    /// Whether the id that was hit is another one now.
    fn is_of_another(&self) -> bool {
        let value = self.value.as_deref().unwrap_or_default();
        let digits = value.trim_matches('"');
        self.is_of_id() && digits.parse::<u64>().is_ok() && !digits.starts_with('+')
    }
}

/// The directory of an account, less its times: records by remote id, lists in them as ids.
#[derive(Debug, PartialEq)]
struct Records {
    users: BTreeMap<String, Value>,
    groups: BTreeMap<String, Value>,
}

impl Records {
    async fn read(world: &World, account: &str) -> Self {
        let users = world.run(account, "/iam/users?page_size=100").await;
        let groups = "/iam/groups?page_size=100&expand=members";
        let groups = world.run(account, groups).await;
        let by_id = |records: Vec<Value>, list: &str| {
            let mut by_id = BTreeMap::new();
            for mut record in records {
                for time in ["updated_at", "first_seen_at", "members_read_at"] {
                    record.as_object_mut().unwrap().remove(time);
                }
                let ids = record[list].as_array().map(|entries| {
                    let ids = entries.iter().map(|entry| entry["remote_id"].clone());
                    Value::from_iter(ids)
                });
                record[list] = ids.unwrap_or(Value::Null);
                by_id.insert(record["remote_id"].as_str().unwrap().to_owned(), record);
            }
            by_id
        };
        Self {
            users: by_id(users.unwrap().records, "groups"),
            groups: by_id(groups.unwrap().records, "members"),
        }
    }

    /// What differs from `before` and should not. `is_first`: nothing was known of the account.
    fn faults(&self, before: &Self, hit: &Hit, is_first: bool) -> Vec<String> {
        let mut faults = Vec::new();
        // A group that is not known at all, or whose members are not, or are others.
        let unknown_group = match &hit.kind {
            Kind::Group(group) if hit.is_of_another() => Some(group.as_str()),
            _ if !is_first => None,
            Kind::Groups if hit.is_of_id() => Some(hit.id.as_str()),
            _ => hit.unread_group(),
        };
        let is_hit =
            |of: &[Kind], id: &str| id == hit.id && of.contains(&hit.kind.clone().without_group());
        for (id, was) in &before.users {
            let is_hit = is_hit(&[Kind::Users, Kind::Group(String::new())], id);
            let only_in_unknown = unknown_group
                .is_some_and(|group| was["groups"] == json!([group]) && is_outsider(was));
            let Some(is) = self.users.get(id) else {
                let is_unknown = is_hit && hit.is_of_id() && is_first;
                if !is_unknown && !only_in_unknown {
                    faults.push(format!("user {id} is missing"));
                }
                continue;
            };
            let is_as_before = match unknown_group {
                None => is == was,
                Some(group) => without_group(is, group) == without_group(was, group),
            };
            if !is_hit && !is_as_before {
                faults.push(format!("user {id} was {was} and is {is}"));
            }
        }
        for (id, was) in &before.groups {
            let is_hit = is_hit(&[Kind::Groups], id) || hit.unread_group() == Some(id);
            match self.groups.get(id) {
                None if is_hit && hit.is_of_id() && is_first => {}
                None => faults.push(format!("group {id} is missing")),
                // The members that an unreadable id hides may be anybody.
                Some(is) if is_hit || is == was => {
                    let is_kept = is["members"] == was["members"];
                    let is_unread = hit.unread_group() == Some(id) && !hit.is_of_another();
                    if is_unread && !is_first && !is_kept {
                        faults.push(format!("group {id} lost its members"));
                    }
                }
                Some(is) => faults.push(format!("group {id} was {was} and is {is}")),
            }
        }
        if !hit.is_of_id() {
            let new = self
                .users
                .keys()
                .filter(|id| !before.users.contains_key(*id));
            faults.extend(new.map(|id| format!("user {id} is new")));
            let new = self
                .groups
                .keys()
                .filter(|id| !before.groups.contains_key(*id));
            faults.extend(new.map(|id| format!("group {id} is new")));
        }
        faults
    }
}

impl Kind {
    fn without_group(self) -> Self {
        match self {
            Kind::Group(_) => Kind::Group(String::new()),
            other => other,
        }
    }
}

fn is_outsider(user: &Value) -> bool {
    user["is_external"] == true && user["status"].is_null()
}

/// A user as they are but for one group, which may not be known.
fn without_group(user: &Value, group: &str) -> Value {
    let mut user = user.clone();
    if let Some(groups) = user["groups"].as_array_mut() {
        groups.retain(|id| id != group);
    }
    let warnings = user["warnings"].as_array_mut().unwrap();
    warnings.retain(|warning| warning["field"] != "groups");
    user
}

/// Every list that a walk of the system admin's token reads.
async fn sent(world: &World) -> Vec<Sent> {
    let token = &world.simulator.announcement().tokens.system_admin;
    let api = &world.simulator.announcement().api_base;
    let client = reqwest::Client::new();
    let get = async |path: String| -> Value {
        let request = client.get(format!("{api}{path}")).bearer_auth(token);
        request.send().await.unwrap().json().await.unwrap()
    };
    let me = get("/users/me".to_owned()).await["id"].clone();
    let mut key = String::new();
    let plan = loop {
        let page = get(format!("/users/{me}/plans?{key}")).await;
        if let Some(plan) = page["data"].as_array().unwrap().first() {
            break plan["planId"].clone();
        }
        key = format!("lastKey={}", page["lastKey"].as_str().unwrap());
    };
    let mut sent = Vec::new();
    let mut groups = Vec::new();
    for (path, kind, query) in [
        (
            "/users",
            Kind::Users,
            format!("include=lastLogin&planId={plan}"),
        ),
        ("/groups", Kind::Groups, String::new()),
    ] {
        for page in 1.. {
            let body = get(format!("{path}?page={page}&pageSize=100&{query}")).await;
            if kind == Kind::Groups {
                let rows = body["data"].as_array().unwrap();
                groups.extend(rows.iter().map(|group| group["id"].to_string()));
            }
            let is_last = body["totalPages"].as_u64().unwrap() <= page;
            sent.push(Sent {
                matches: json!({"path_prefix": path, "page": page}),
                body,
                kind: kind.clone(),
            });
            if is_last {
                break;
            }
        }
    }
    for group in groups {
        sent.push(Sent {
            matches: json!({"path_prefix": format!("/groups/{group}")}),
            body: get(format!("/groups/{group}")).await,
            kind: Kind::Group(group),
        });
    }
    sent
}

/// One field of one row, and something else in its place.
fn hit(sent: &[Sent], rng: &mut Rng) -> Hit {
    let lists: Vec<_> = [Kind::Users, Kind::Groups, Kind::Group(String::new())]
        .into_iter()
        .filter(|kind| {
            sent.iter()
                .any(|sent| sent.kind.clone().without_group() == *kind)
        })
        .collect();
    let kind = &lists[rng.usize(..lists.len())];
    let of_kind: Vec<_> = sent
        .iter()
        .filter(|sent| sent.kind.clone().without_group() == *kind)
        .collect();
    let sent = of_kind[rng.usize(..of_kind.len())];
    let mut body = sent.body.clone();
    let row = match &sent.kind {
        Kind::Group(_) => {
            let members = body["members"].as_array().unwrap().len();
            match rng.usize(..=members) {
                0 => &mut body,
                member => &mut body["members"][member - 1],
            }
        }
        Kind::Users | Kind::Groups => {
            let rows = body["data"].as_array().unwrap().len();
            &mut body["data"][rng.usize(..rows)]
        }
    };
    let id = row["id"].to_string();
    let row = row.as_object_mut().unwrap();
    let fields: Vec<_> = row.keys().cloned().collect();
    let field = fields[rng.usize(..fields.len())].clone();
    let value = (rng.u8(..5) > 0).then(|| odd_value(rng, 3));
    match &value {
        Some(_) => row.insert(field.clone(), json!(ODD)),
        None => row.remove(&field),
    };
    let body = body.to_string();
    Hit {
        kind: sent.kind.clone(),
        id,
        field,
        body: match &value {
            Some(value) => body.replace(&json!(ODD).to_string(), value),
            None => body,
        },
        value,
        matches: sent.matches.clone(),
    }
}

/// Arbitrary JSON as text: also what a `Value` cannot hold, such as half a surrogate pair.
fn odd_value(rng: &mut Rng, depth: usize) -> String {
    const WORDS: [&str; 21] = [
        "null",
        "true",
        "false",
        "0",
        "-1",
        "1.5",
        "1e400",
        "18446744073709551616",
        r#""""#,
        r#"" ""#,
        r#""Never""#,
        r#""true""#,
        r#""ACTIVE""#,
        r#""DEACTIVATED""#,
        r#""2026-11-20T07:41:09""#,
        r#""2026-11-20""#,
        r#""1795160469000""#,
        r#""9999-12-31T23:59:59Z""#,
        r#""Ana \ud83d""#,
        r#""\u0000\u202e""#,
        r#""=cmd|' /C calc'!A0""#,
    ];
    match rng.usize(..if depth > 0 { 7 } else { 5 }) {
        0 => rng.i64(..).to_string(),
        1 => rng.u64(..).to_string(),
        2..=4 => WORDS[rng.usize(..WORDS.len())].to_owned(),
        5 => {
            let items: Vec<_> = (0..rng.usize(..3))
                .map(|_| odd_value(rng, depth - 1))
                .collect();
            format!("[{}]", items.join(","))
        }
        _ => {
            let members: Vec<_> = ["id", "imageId", "name", "id"][..rng.usize(..=4)]
                .iter()
                .map(|name| format!("\"{name}\":{}", odd_value(rng, depth - 1)))
                .collect();
            format!("{{{}}}", members.join(","))
        }
    }
}

/// Hits so many fields of a world of so many people, each in a first and in a later walk.
async fn hit_fields(users: usize, seed: u64, hits: usize) {
    let world = World::new(&Plan {
        users,
        groups: (users / 15).max(2),
        seed,
        parallel_reads: 4,
        ..Plan::default()
    })
    .await;
    let walk = async |account: &str| -> Value {
        let path = format!("/accounts/{account}/walks?wait=60&full=true");
        world.call(Method::POST, &path, None).await.expect(200)
    };
    let known = world.link_admin().await;
    assert_eq!(walk(&known).await["state"], "sealed");
    let before = Records::read(&world, &known).await;
    let sent = sent(&world).await;
    let mut rng = Rng::with_seed(seed);
    for number in 0..hits {
        let hit = hit(&sent, &mut rng);
        let about = format!(
            "{users} people, seed {seed}, hit {number}: {} of {} in {:?} is {:?}",
            hit.field, hit.id, hit.kind, hit.value
        );
        let fault = json!({
            "kind": "body", "status": 200, "content_type": "application/json", "body": hit.body,
        });
        let faults = json!([{"match": hit.matches, "fault": fault}]);
        world.control(Method::POST, "/faults", &faults).await;

        let walked = walk(&known).await;
        assert_eq!(walked["state"], "sealed", "{about}: {walked}");
        let later = Records::read(&world, &known).await;
        let faults = later.faults(&before, &hit, false);
        assert_eq!(faults, [""; 0], "a later walk, {about}");

        let new = world.link_admin().await;
        let walked = walk(&new).await;
        assert_eq!(walked["state"], "sealed", "{about}: {walked}");
        let first = Records::read(&world, &new).await;
        let faults = first.faults(&before, &hit, true);
        assert_eq!(faults, [""; 0], "a first walk, {about}");

        world.control(Method::DELETE, "/faults", &json!(null)).await;
        assert_eq!(walk(&known).await["state"], "sealed", "{about}, then whole");
        let ids: BTreeSet<_> = before.users.keys().collect();
        let after = Records::read(&world, &known).await;
        let extra = after.users.keys().filter(|id| !ids.contains(id));
        assert_eq!(extra.count(), 0, "{about}, then whole");
        assert_eq!(after, before, "{about}, then whole");
    }
    assert_eq!(panics(), [""; 0]);
}

async fn run(users: usize, slice: usize, full: usize) {
    let hits = if is_full() { full } else { slice };
    hit_fields(users, only_seed().unwrap_or(1), hits).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_odd_field_among_3_people_costs_that_field() {
    run(3, 40, 2_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_odd_field_among_30_people_costs_that_field() {
    run(30, 40, 2_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_odd_field_among_300_people_costs_that_field() {
    run(300, 10, 500).await;
}
