//! A project's data is never returned to another project's key (G1).
//!
//! Two projects, with an account each. Every route of the document that takes an id is asked with
//! every kind of id, with the key of each; a route that is missing here fails the test.

use std::{collections::BTreeSet, time::Duration};

use reqwest::Method;
use rolecall::{crypto::ApiKeySecret, model::api_keys::Scope};
use serde_json::{Value, json};

use crate::{
    openapi::{Operation, operations},
    world::{Reply, World},
};

/// Whose id is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Whose {
    Own,
    Others,
    Absent,
    Malformed,
}

const ALL: [Whose; 4] = [Whose::Own, Whose::Others, Whose::Absent, Whose::Malformed];

/// A project with an account that has been walked, and a walk of it that is held.
struct Project {
    key: String,
    key_id: String,
    profile: String,
    account: String,
    held_walk: String,
    /// Somebody, and a group, whom only this project's directory has.
    user: String,
    group: String,
}

/// An id of the right form that is of nothing.
const NOTHING: &str = "0198c3f0-0000-7000-8000-000000000000";

/// What stands in for a parameter of this name.
fn id<'a>(
    name: &str,
    resource: &str,
    whose: Whose,
    own: &'a Project,
    other: &'a Project,
) -> &'a str {
    let of = |project: &'a Project| match (name, resource) {
        ("id", "api_keys") => project.key_id.as_str(),
        ("id", "connector_profiles") => project.profile.as_str(),
        ("account" | "id", _) => project.account.as_str(),
        ("walk", _) => project.held_walk.as_str(),
        ("record", "users") => project.user.as_str(),
        ("record", "groups") => project.group.as_str(),
        // The catalog of roles is the provider's, and no project's.
        ("record", _) => "rol_system_admin",
        // Nor are the connectors.
        ("provider", _) => "smartsheet",
        _ => panic!("the matrix does not know the parameter {name}"),
    };
    match whose {
        Whose::Own => of(own),
        Whose::Others => of(other),
        Whose::Absent => NOTHING,
        Whose::Malformed => "%27%20or%201%3D1--",
    }
}

impl Project {
    /// Links an account of a world of its own to the gateway of `world`.
    async fn new(world: &World, provider: &World, name: &str, key: String) -> Self {
        let mut body = world.account_body(&provider.admin_token());
        body["base_url"] = json!(provider.simulator.announcement().api_base);
        let bearer = format!("Bearer {key}");
        let auth = [("authorization", bearer.as_str())];
        let account = world
            .send(Method::POST, "/accounts", &auth, Some(&body))
            .await
            .expect(201);
        let account = account["id"].as_str().unwrap().to_owned();
        let walks = format!("/accounts/{account}/walks?wait=60");
        let sealed = world
            .send(Method::POST, &walks, &auth, None)
            .await
            .expect(200);
        assert_eq!(sealed["state"], "sealed", "{name}: {sealed}");
        let everybody = provider.somebody(|user| user["admin"] != true).await;
        let gone: Value = everybody[5..]
            .iter()
            .map(|id| json!({"op": "remove_user", "id": id.parse::<u64>().unwrap()}))
            .collect();
        provider.mutate(&gone).await;
        let held = world
            .send(Method::POST, &walks, &auth, None)
            .await
            .expect(200);
        assert_eq!(held["state"], "held", "{name}: {held}");
        let truth = provider.truth().await;
        let profile = json!({
            "provider": "smartsheet",
            "client_id": "an-app",
            "client_secret": "a-secret",
            "base_url": provider.simulator.announcement().api_base,
        });
        let profile = world
            .send(Method::POST, "/connector_profiles", &auth, Some(&profile))
            .await
            .expect(201);
        Self {
            profile: profile["id"].as_str().unwrap().to_owned(),
            key_id: ApiKeySecret::parse(&key).unwrap().id().to_string(),
            key,
            account,
            held_walk: held["id"].as_str().unwrap().to_owned(),
            user: format!("usr_{}", everybody[0]),
            group: format!("grp_{}", truth["groups"][0]["id"]),
        }
    }

    async fn ask(&self, world: &World, method: Method, path: &str, account: Option<&str>) -> Reply {
        let bearer = format!("Bearer {}", self.key);
        let mut headers = vec![("authorization", bearer.as_str())];
        headers.extend(account.map(|account| ("x-account-id", account)));
        world.send(method, path, &headers, None).await
    }
}

/// Two projects on one gateway, each with an organization of its own at the provider.
async fn two_projects() -> (World, [World; 2], Project, Project) {
    let world = World::new().await;
    let providers = [
        World::with(crate::world::Plan {
            seed: 11,
            ..Default::default()
        })
        .await,
        World::with(crate::world::Plan {
            seed: 12,
            ..Default::default()
        })
        .await,
    ];
    let key = world.key.clone();
    let one = Project::new(&world, &providers[0], "one", key).await;
    let key = world.project("two", &Scope::ALL).await;
    let two = Project::new(&world, &providers[1], "two", key).await;
    (world, providers, one, two)
}

/// The resource of a path, such as `users` of one under `/iam`, and else `accounts`.
fn resource(path: &str) -> &str {
    let path = path.strip_prefix("/iam").unwrap_or(path);
    path.split('/').nth(1).unwrap_or_default()
}

/// The names in braces of a path.
fn parameters(path: &str) -> Vec<&str> {
    path.split('/')
        .filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
        .collect()
}

/// An answer as it is compared: without what is of this very request.
fn told(reply: &Reply) -> (u16, Value) {
    let mut body = reply.json();
    for own in ["timestamp", "request_id"] {
        if let Some(body) = body.as_object_mut() {
            body.remove(own);
        }
    }
    (reply.status.as_u16(), body)
}

/// Whether what this parameter names is the same for every project: a role of the provider's
/// catalog, a connector.
fn is_everybodys(parameter: &str, resource: &str) -> bool {
    parameter == "provider" || parameter == "record" && resource == "roles"
}

/// Every choice of whose id stands for each of so many parameters.
fn choices(parameters: usize) -> Vec<Vec<Whose>> {
    (0..parameters).fold(vec![Vec::new()], |choices, _| {
        choices
            .iter()
            .flat_map(|choice| ALL.map(|whose| [choice.as_slice(), &[whose]].concat()))
            .collect()
    })
}

/// What must answer only when all ids are the caller's own. The order puts what deletes last.
fn order(operation: &Operation) -> (bool, bool) {
    let takes_away = operation.method == Method::DELETE && !operation.path.starts_with("/iam");
    let is_decision = operation.path.ends_with("/release") || operation.path.ends_with("/discard");
    (takes_away, is_decision)
}

#[tokio::test]
async fn no_route_answers_with_anything_of_another_project() {
    let (world, _providers, one, two) = two_projects().await;
    let (one, two) = (&one, &two);
    let mut operations = operations();
    operations.sort_by_key(order);
    let mut asked = BTreeSet::new();
    for operation in &operations {
        let path = operation.path.as_str();
        let names_account = path.starts_with("/iam");
        let mut parameters = parameters(path);
        if names_account {
            parameters.insert(0, "account");
        }
        if parameters.is_empty() {
            let known = [
                "/accounts",
                "/api_keys",
                "/connect_sessions",
                "/connect_sessions/authenticate",
                "/connector_profiles",
                "/oauth/authorization_url",
                "/oauth/token_exchange",
                "/audit",
                "/connectors/meta",
                "/health/live",
                "/health/ready",
                "/metrics",
            ];
            assert!(known.contains(&path), "the matrix does not know {path}");
            continue;
        }
        let mounts: &[&str] = if names_account {
            &["", "/unified"]
        } else {
            &[""]
        };
        // The account is named in the header, in the query, or in the path.
        let ways: &[bool] = if names_account {
            &[true, false]
        } else {
            &[false]
        };
        for (mount, by_header, (caller, other)) in mounts.iter().flat_map(|mount| {
            ways.iter()
                .flat_map(move |way| [(one, two), (two, one)].map(|who| (mount, *way, who)))
        }) {
            let mut refusals: BTreeSet<(usize, String)> = BTreeSet::new();
            for choice in choices(parameters.len()) {
                if choice.iter().all(|whose| *whose == Whose::Own) && is_final(operation) {
                    continue;
                }
                let mut account = None;
                let mut asked_path = format!("{mount}{path}");
                for (name, whose) in parameters.iter().zip(&choice) {
                    let id = id(name, resource(path), *whose, caller, other);
                    if *name == "account" {
                        account = Some(id);
                    } else {
                        asked_path = asked_path.replace(&format!("{{{name}}}"), id);
                    }
                }
                if let Some(account) = account.filter(|_| !by_header) {
                    asked_path = format!("{asked_path}?account_id={account}");
                }
                let header = account.filter(|_| by_header);
                let reply = caller
                    .ask(&world, operation.method.clone(), &asked_path, header)
                    .await;
                let (status, body) = told(&reply);
                let what = format!("{} {path} {choice:?}: {status} {body}", operation.method);
                asked.insert((operation.method.to_string(), path.to_owned()));

                let text = body.to_string();
                for secret in [
                    &other.key_id,
                    &other.profile,
                    &other.account,
                    &other.held_walk,
                    &other.user,
                    &other.group,
                ] {
                    assert!(!text.contains(secret.as_str()), "{what}");
                }
                match choice.iter().position(|whose| *whose != Whose::Own) {
                    None => assert_ne!(status, 404, "{what}"),
                    // Whatever comes after the first id that is not the caller's own, and
                    // whichever of the three it is, the answer is the same.
                    Some(at) if is_everybodys(parameters[at], resource(path)) => {
                        let is_there = choice[at] == Whose::Others;
                        assert_eq!(status, if is_there { 200 } else { 404 }, "{what}");
                    }
                    Some(at) => {
                        let is_offered = !(path.starts_with("/iam/policies")
                            || operation.method == Method::PATCH
                            || operation.method == Method::DELETE && names_account);
                        let wanted = match parameters[at] {
                            "record" if !is_offered => 501,
                            _ => 404,
                        };
                        assert_eq!(status, wanted, "{what}");
                        refusals.insert((at, text));
                    }
                }
            }
            let first_ids: BTreeSet<_> = refusals.iter().map(|(at, _)| at).collect();
            assert_eq!(
                refusals.len(),
                first_ids.len(),
                "{} {path} tells others' from absent ones: {refusals:?}",
                operation.method
            );
        }
    }
    let with_ids = operations
        .iter()
        .filter(|each| each.path.starts_with("/iam") || each.path.contains('{'))
        .count();
    assert_eq!(asked.len(), with_ids);

    // And after all of this each still has its own, whole.
    for (own, other) in [(one, two), (two, one)] {
        let list = own.ask(&world, Method::GET, "/accounts", None).await;
        let list = list.expect(200);
        assert_eq!(list.as_array().unwrap().len(), 1);
        assert_eq!(list[0]["id"], own.account);
        assert!(!list.to_string().contains(&other.account));
        let keys = own.ask(&world, Method::GET, "/api_keys", None).await;
        let keys = keys.expect(200);
        assert_eq!(keys["data"].as_array().unwrap().len(), 1);
        assert_eq!(keys["data"][0]["id"], own.key_id);
        assert_eq!(keys["data"][0]["status"], "active");
    }
}

/// What would take away what the matrix goes on to ask about.
fn is_final(operation: &Operation) -> bool {
    order(operation) != (false, false)
}

#[tokio::test]
async fn what_the_matrix_leaves_out_works_for_ones_own() {
    let (world, _providers, one, two) = two_projects().await;
    let walk = format!("/accounts/{}/walks/{}", one.account, one.held_walk);
    let released = one
        .ask(&world, Method::POST, &format!("{walk}/release"), None)
        .await
        .expect(200);
    assert_eq!(released["state"], "sealed");
    let walk = format!("/accounts/{}/walks/{}", two.account, two.held_walk);
    let discarded = two
        .ask(&world, Method::POST, &format!("{walk}/discard"), None)
        .await
        .expect(200);
    assert_eq!(discarded["reason"], "discarded");
    for project in [&one, &two] {
        // The key last: nothing can be asked with it then.
        for path in [
            format!("/accounts/{}", project.account),
            format!("/api_keys/{}", project.key_id),
        ] {
            let reply = project.ask(&world, Method::DELETE, &path, None).await;
            reply.expect(200);
        }
    }
}

#[tokio::test]
async fn a_page_that_one_project_had_built_is_not_another_projects() {
    let (world, _providers, one, two) = two_projects().await;
    // The same query, the same version, in one cache.
    let path = "/iam/users?page_size=2";
    let own = one.ask(&world, Method::GET, path, Some(&one.account)).await;
    let other = two.ask(&world, Method::GET, path, Some(&two.account)).await;
    assert_eq!(
        own.header("x-directory-version"),
        other.header("x-directory-version")
    );
    assert_ne!(own.header("etag"), other.header("etag"));
    assert_ne!(own.expect(200)["data"], other.expect(200)["data"]);
    // Nor does the other's ETag tell that there is such a page.
    let bearer = format!("Bearer {}", two.key);
    let headers = [
        ("authorization", bearer.as_str()),
        ("x-account-id", two.account.as_str()),
        ("if-none-match", own.header("etag").unwrap()),
    ];
    let reply = world.send(Method::GET, path, &headers, None).await;
    reply.expect(200);
}

#[tokio::test]
async fn a_walk_of_one_account_is_no_walk_of_another_of_the_same_project() {
    let world = World::new().await;
    let first = world.link_admin().await;
    let second = world.link_admin().await;
    let walk = world.walk(&first).await["id"].as_str().unwrap().to_owned();
    world
        .get(&format!("/accounts/{first}/walks/{walk}"))
        .await
        .expect(200);
    for path in ["", "/suspects"] {
        let reply = world
            .get(&format!("/accounts/{second}/walks/{walk}{path}"))
            .await;
        reply.refused(404, "walk_not_found");
    }
    for path in ["/release", "/discard"] {
        let reply = world
            .post(&format!("/accounts/{second}/walks/{walk}{path}"))
            .await;
        reply.refused(404, "walk_not_found");
    }
}

#[tokio::test]
async fn whoever_asks_for_anothers_account_disturbs_nothing_of_it() {
    let world = World::new().await;
    let account = world.link_admin().await;
    let strangers = world.project("two", &Scope::ALL).await;
    let bearer = format!("Bearer {strangers}");
    let headers = [
        ("authorization", bearer.as_str()),
        ("x-account-id", account.as_str()),
    ];

    world.provider_takes(Duration::from_millis(50)).await;
    let calls = world.provider_calls().await;
    let path = format!("/accounts/{account}/walks");
    let first = world.post(&path).await.expect(202);
    world.provider_is_called_after(calls).await;
    let asked = world.send(Method::GET, "/iam/users", &headers, None).await;
    asked.refused(404, "account_not_found");

    // The walk that was under way goes on to its end, and the next one waits for it.
    assert_eq!(world.walk(&account).await["state"], "sealed");
    let path = format!("{path}/{}", first["id"].as_str().unwrap());
    assert_eq!(world.get(&path).await.expect(200)["state"], "sealed");
}
