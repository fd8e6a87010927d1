//! The sealed directory is the provider's own, field by field, as far as the token may see it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    expected::{self, Records, Sight, comparable, difference, hidden_fields},
    world::{Plan, World},
};

/// What only Rolecall can know of a record.
const OUR_TIMES: [&str; 2] = ["first_seen_at", "updated_at"];

/// Whose token an account is linked with.
#[derive(Clone, Copy)]
enum Persona {
    SystemAdmin,
    GroupAdmin,
    Member,
    /// A member of an organization that shows its groups to administrators alone.
    MemberWithoutGroups,
}

impl Persona {
    fn token(self, world: &World) -> String {
        let tokens = &world.simulator.announcement().tokens;
        let token = match self {
            Persona::SystemAdmin => &tokens.system_admin,
            Persona::GroupAdmin => &tokens.group_admin,
            Persona::Member | Persona::MemberWithoutGroups => &tokens.member,
        };
        token.clone()
    }

    fn sight(self) -> Sight {
        match self {
            Persona::SystemAdmin => Sight::SystemAdmin,
            Persona::GroupAdmin | Persona::Member => Sight::Others,
            Persona::MemberWithoutGroups => Sight::OthersWithoutGroups,
        }
    }
}

fn by_id(records: &[Value], taken: &[&str]) -> Records {
    let by_id: Records = records
        .iter()
        .map(|record| {
            let id = record["remote_id"].as_str().unwrap().to_owned();
            (id, comparable(record, taken))
        })
        .collect();
    assert_eq!(by_id.len(), records.len(), "a record is served twice");
    by_id
}

#[track_caller]
fn assert_same(expected: &Records, served: &Records) {
    assert_eq!(difference(expected, served), None);
}

/// The directory of a fresh world through this persona's token is the truth.
async fn is_the_truth(users: usize, groups: usize, persona: Persona) {
    let (sight, wanted) = (persona.sight(), (users, groups));
    let plan = Plan {
        users,
        groups,
        ..Plan::default()
    };
    let world = World::with(plan).await;
    let began_at = world.clock.now();
    if sight == Sight::OthersWithoutGroups {
        let closed = json!({"non_admin_reads_groups": false});
        world.switches(&closed).await;
    }
    let account = world.link(&persona.token(&world)).await;
    let users = world.all(&account, "users", "").await;
    let groups = match sight {
        Sight::OthersWithoutGroups => {
            let refusal = world.read(&account, "/iam/groups").await;
            refusal.refused(403, "groups_not_permitted");
            None
        }
        _ => Some(world.all(&account, "groups", "&expand=members").await),
    };
    let roles = world.all(&account, "roles", "").await;
    let me = world.read(&account, "/iam/me").await.expect(200);
    let expected = expected::directory(&world.truth().await, sight);

    assert!(expected.users.len() > wanted.0 / 2);
    assert_same(&expected.users, &by_id(&users, &OUR_TIMES));
    is_first_seen_since(&users, began_at);

    assert_eq!(expected.groups.is_some(), groups.is_some());
    for (expected, served) in expected.groups.iter().zip(&groups) {
        assert_eq!(expected.len(), wanted.1);
        let taken = ["first_seen_at", "updated_at", "members_read_at"];
        assert_same(expected, &by_id(served, &taken));
        is_first_seen_since(served, began_at);
    }

    let roles: BTreeMap<_, _> = roles
        .iter()
        .map(|role| {
            let word = role["remote_id"].as_str().unwrap();
            assert_eq!(role["id"], format!("rol_{word}"));
            assert!(!role["name"].as_str().unwrap().is_empty());
            let kind = role["type"]["value"].as_str().unwrap();
            let holders = role["holder_count"].as_u64();
            (word, (kind, holders.map(|count| count as usize)))
        })
        .collect();
    assert_eq!(roles, expected.roles);

    let mut unavailable = me["data"]["unavailable_fields"].as_array().unwrap().clone();
    unavailable.sort_by_key(|warning| warning["field"].as_str().unwrap().to_owned());
    assert_eq!(json!(unavailable), hidden_fields(sight));
    assert_eq!(me["data"]["is_admin"], sight == Sight::SystemAdmin);
}

/// A first walk saw everything for the first time, and so saw it change then.
fn is_first_seen_since(records: &[Value], began_at: Timestamp) {
    for record in records {
        let seen_at: Timestamp = record["first_seen_at"].as_str().unwrap().parse().unwrap();
        assert!(seen_at >= began_at, "{record}");
        assert_eq!(record["updated_at"], record["first_seen_at"]);
    }
}

#[tokio::test]
async fn a_system_admin_sees_the_truth_of_250_users() {
    is_the_truth(250, 20, Persona::SystemAdmin).await;
}

#[tokio::test]
async fn a_group_admin_sees_the_truth_of_250_users_but_for_what_is_hidden() {
    is_the_truth(250, 20, Persona::GroupAdmin).await;
}

#[tokio::test]
async fn a_member_sees_the_truth_of_250_users_but_for_what_is_hidden() {
    is_the_truth(250, 20, Persona::Member).await;
}

#[tokio::test]
async fn a_member_who_may_not_read_groups_sees_no_outsiders_among_250_users() {
    is_the_truth(250, 20, Persona::MemberWithoutGroups).await;
}

#[tokio::test]
async fn a_system_admin_sees_the_truth_of_10_000_users() {
    is_the_truth(10_000, 100, Persona::SystemAdmin).await;
}

#[tokio::test]
async fn a_group_admin_sees_the_truth_of_10_000_users_but_for_what_is_hidden() {
    is_the_truth(10_000, 100, Persona::GroupAdmin).await;
}

#[tokio::test]
async fn a_member_sees_the_truth_of_10_000_users_but_for_what_is_hidden() {
    is_the_truth(10_000, 100, Persona::Member).await;
}

#[tokio::test]
async fn a_member_who_may_not_read_groups_sees_no_outsiders_among_10_000_users() {
    is_the_truth(10_000, 100, Persona::MemberWithoutGroups).await;
}

/// As large as they come in the soak; elsewhere in between the two other sizes.
fn large() -> (usize, usize) {
    if std::env::var_os("ROLECALL_SOAK").is_some() {
        (100_000, 5_000)
    } else {
        (1_000, 50)
    }
}

#[tokio::test]
async fn every_persona_sees_the_truth_of_a_large_organization() {
    let (users, groups) = large();
    for persona in [
        Persona::SystemAdmin,
        Persona::GroupAdmin,
        Persona::Member,
        Persona::MemberWithoutGroups,
    ] {
        is_the_truth(users, groups, persona).await;
    }
}

#[tokio::test]
async fn the_traps_of_the_world_are_in_what_is_compared() {
    let truth = World::with(Plan {
        users: 250,
        groups: 20,
        ..Plan::default()
    })
    .await
    .truth()
    .await;
    let users = truth["users"].as_array().unwrap();
    let has = |field: &str, value: Value| {
        assert!(
            users.iter().any(|user| user[field] == value),
            "{field} {value}"
        );
    };
    for status in ["ACTIVE", "PENDING", "DECLINED", "DEACTIVATED"] {
        has("status", json!(status));
    }
    for seat in [
        "MEMBER",
        "PROVISIONAL_MEMBER",
        "GUEST",
        "CONTRIBUTOR",
        "VIEWER",
    ] {
        has("seatType", json!(seat));
    }
    has("isInternal", json!(false));
    has("name", Value::Null);
    has("lastLogin", Value::Null);
    let beyond_a_float = |user: &Value| user["id"].as_u64().unwrap() > 1 << 53;
    assert!(users.iter().any(beyond_a_float));
    assert!(users.iter().any(|user| user["profileImage"].is_object()));
    let groups = truth["groups"].as_array().unwrap();
    let sizes: Vec<_> = groups
        .iter()
        .map(|group| group["members"].as_array().unwrap().len())
        .collect();
    assert!(sizes.contains(&0) && sizes.iter().any(|size| *size >= 25));
}

#[tokio::test]
async fn a_token_that_may_not_read_users_is_refused_and_nothing_is_stored() {
    let world = World::new().await;
    let token = world.simulator.announcement().tokens.no_read_users.clone();
    let refusal = world.try_link(&token).await.refused(422, "scope_missing");
    assert_eq!(refusal["provider_errors"][0]["status"], 403);
    assert_eq!(world.get("/accounts").await.expect(200), json!([]));
}

#[tokio::test]
async fn a_token_that_the_provider_does_not_take_is_refused_and_nothing_is_stored() {
    let world = World::new().await;
    let revoked = world.simulator.announcement().tokens.revoked.clone();
    for token in [revoked.as_str(), "never-issued"] {
        let refusal = world
            .try_link(token)
            .await
            .refused(422, "credential_refused");
        assert_eq!(refusal["provider_errors"][0]["status"], 401);
    }
    assert_eq!(world.get("/accounts").await.expect(200), json!([]));
}

#[tokio::test]
async fn a_host_that_does_not_answer_is_the_providers_fault_and_nothing_is_stored() {
    let world = World::new().await;
    // Nobody listens on the port of a listener that is gone.
    let port = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let mut body = world.account_body("some-token");
    body["base_url"] = json!(format!("http://127.0.0.1:{port}/2.0"));
    let refusal = world.call(Method::POST, "/accounts", Some(&body)).await;
    assert!(refusal.header("retry-after").is_some());
    refusal.refused(502, "provider_unavailable");
    assert_eq!(world.get("/accounts").await.expect(200), json!([]));
}

#[tokio::test]
async fn a_provider_that_fails_is_the_providers_fault_and_nothing_is_stored() {
    let world = World::new().await;
    world.provider_answers(500).await;
    let token = world.admin_token();
    let refusal = world
        .try_link(&token)
        .await
        .refused(502, "provider_unavailable");
    assert_eq!(
        refusal["provider_errors"][0],
        json!({"status": 500, "code": 4000, "reference": refusal["provider_errors"][0]["reference"]})
    );
    let html =
        json!({"kind": "body", "status": 200, "content_type": "text/html", "body": "<html>"});
    world.faults(&json!([{"match": {}, "fault": html}])).await;
    let refusal = world.try_link(&token).await;
    refusal.refused(502, "provider_unavailable");
    world.no_faults().await;
    assert_eq!(world.get("/accounts").await.expect(200), json!([]));
}
