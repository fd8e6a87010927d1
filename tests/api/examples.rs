//! The examples of the document are what this source tree answers about the simulator's world of
//! seed 1. Only what differs from one run to the next is replaced: ids of ours, moments, keys and
//! tokens, and where the simulator is. `make openapi` writes them anew.

use std::{collections::BTreeMap, path::Path, time::Duration};

use jiff::Timestamp;
use reqwest::Method;
use serde_json::{Map, Value, json};

use crate::{openapi::operations, world::World};

/// By operation: the body of the request, and the bodies of its good answers by status.
#[derive(Default)]
struct Examples(BTreeMap<String, Map<String, Value>>);

impl Examples {
    /// Sends a request and keeps what was sent and answered as an example of `operation`.
    async fn ask(
        &mut self,
        world: &World,
        operation: &str,
        (method, path): (Method, &str),
        body: Option<Value>,
    ) -> Value {
        let reply = world.call(method, path, body.as_ref()).await;
        assert!(reply.status.is_success(), "{path}: {reply:?}");
        let example = self.0.entry(operation.to_owned()).or_default();
        example.extend(body.map(|body| ("request".to_owned(), body)));
        example.insert(reply.status.as_str().to_owned(), reply.json());
        reply.json()
    }

    async fn get(&mut self, world: &World, operation: &str, path: &str) -> Value {
        self.ask(world, operation, (Method::GET, path), None).await
    }

    fn settled(self) -> Value {
        let mut all = json!(self.0);
        Settling::default().settle(&mut all);
        all
    }
}

/// What stands for a text of 256 random bits.
const SECRET: &str = "Yk1mT2x4c0ZzZ0hGd0tqU3pBcVJ2VnBYd0l6bWJnaE4";

/// Replaces what is of one run; the same id is the same in all examples.
#[derive(Default)]
struct Settling {
    ids: BTreeMap<String, String>,
    entries: u64,
}

impl Settling {
    fn settle(&mut self, value: &mut Value) {
        match value {
            Value::Array(items) => items.iter_mut().for_each(|item| self.settle(item)),
            Value::Object(members) => {
                for (name, member) in &mut *members {
                    match member.as_str().and_then(|text| self.settled(name, text)) {
                        Some(settled) => *member = settled.into(),
                        None => self.settle(member),
                    }
                }
                // An account of a customer is at no simulator; who links it names one of the two.
                if members.get("base_url").is_some_and(Value::is_string) {
                    members.insert("region".to_owned(), "us".into());
                    let is_request = members.contains_key("client_secret")
                        || members
                            .get("credential")
                            .is_some_and(|credential| credential.get("access_token").is_some());
                    if is_request {
                        members.remove("base_url");
                    } else {
                        members.insert("base_url".to_owned(), Value::Null);
                    }
                }
                // It hangs on all that was done before; newest first it is always.
                if let Some(sequence) = members.get_mut("sequence") {
                    *sequence = (12 - self.entries).into();
                    self.entries += 1;
                }
                // Of a connect session: a number of chance.
                if let Some(id) = members.get_mut("id").filter(|id| id.is_number()) {
                    *id = 7_004_205_316_608_u64.into();
                }
                if let Some(age) = members.get_mut("age_seconds") {
                    *age = 12.into();
                }
            }
            _ => {}
        }
    }

    fn settled(&mut self, name: &str, text: &str) -> Option<String> {
        let is_moment = text.ends_with('Z') && text.parse::<Timestamp>().is_ok();
        let is_id = text.len() == 36 && text.bytes().filter(|byte| *byte == b'-').count() == 4;
        match name {
            "key" => Some("rc_019ab5c27a3e70008000000000000001_…".to_owned()),
            "access_token" => Some("token-of-a-system-admin".to_owned()),
            "client_id" => Some("client-id-of-the-app".to_owned()),
            "client_secret" => Some("client-secret-of-the-app".to_owned()),
            "state" if text.len() == 43 => Some(SECRET.to_owned()),
            "code" if text.len() == 17 => Some("a-code-of-the-provider".to_owned()),
            "token" => Some(SECRET.to_owned()),
            "auth_link_url" => Some(format!("https://rolecall.example.com/connect/{SECRET}")),
            "url" if text.contains("/b/authorize") => Some(format!(
                "https://app.smartsheet.com/b/authorize?response_type=code&client_id=client-id-of-the-app&scope=READ_USERS&state={SECRET}&code_challenge=…&code_challenge_method=S256"
            )),
            "next" if !is_id => Some("ARExMDA2NTMwODM2MTUxNDA1Nw".to_owned()),
            "ended_at" => Some("2026-11-22T10:00:02.000Z".to_owned()),
            "expires_at" => Some("2027-06-30T00:00:00.000Z".to_owned()),
            "since" => Some("2026-03-02T08:00:00.000Z".to_owned()),
            _ if is_moment => Some("2026-11-22T10:00:00.000Z".to_owned()),
            _ if is_id => {
                let next = self.ids.len() + 1;
                let id = self.ids.entry(text.to_owned());
                Some(
                    id.or_insert_with(|| format!("019ab5c2-7a3e-7000-8000-{next:012}"))
                        .clone(),
                )
            }
            _ => None,
        }
    }
}

/// Asks every operation that has a good answer.
async fn told(world: &World) -> Examples {
    let mut told = Examples::default();
    for (operation, path) in [
        ("health_live", "/health/live"),
        ("health_ready", "/health/ready"),
        ("list_connectors", "/connectors/meta"),
        ("get_connector", "/connectors/meta/smartsheet"),
    ] {
        told.get(world, operation, path).await;
    }

    let mut link = world.account_body(&world.admin_token());
    link["origin_owner_id"] = "customer-17".into();
    link["origin_owner_name"] = "Example Ltd".into();
    link["label"] = "Example Ltd, production".into();
    let account = told
        .ask(
            world,
            "link_account",
            (Method::POST, "/accounts"),
            Some(link),
        )
        .await;
    let id = account["id"].as_str().unwrap();
    world.read(id, "/iam").await.expect(200);
    let of_account = format!("/accounts/{id}");
    for (operation, path) in [
        ("get_summary", "/iam?"),
        (
            "list_users",
            "/iam/users?page_size=2&filter[status]=enabled&",
        ),
        ("list_roles", "/iam/roles?page_size=2&"),
        ("get_role", "/iam/roles/system_admin?"),
        ("list_groups", "/iam/groups?page_size=2&"),
        ("get_me", "/iam/me?"),
    ] {
        told.get(world, operation, &format!("{path}account_id={id}"))
            .await;
    }
    let groups = world.all(id, "groups", "&expand=members").await;
    let group = groups
        .iter()
        .filter(|group| group["member_count"].as_u64() > Some(0))
        .min_by_key(|group| group["member_count"].as_u64())
        .unwrap();
    let user = group["members"][0]["id"].as_str().unwrap();
    let group = group["id"].as_str().unwrap();
    for (operation, path) in [
        ("get_user", format!("/iam/users/{user}?expand=roles")),
        ("get_group", format!("/iam/groups/{group}?expand=members")),
    ] {
        told.get(world, operation, &format!("{path}&account_id={id}"))
            .await;
    }

    // Held, once to be discarded and once to be released.
    let somebody = world.somebody(|user| user["admin"] != true).await;
    let gone = somebody
        .iter()
        .take(8)
        .map(|id| json!({"op": "remove_user", "id": id.parse::<u64>().unwrap()}))
        .collect();
    world.mutate(&gone).await;
    for (operation, decision) in [("discard_walk", "discard"), ("release_walk", "release")] {
        let walk = world.walk(id).await;
        assert_eq!(walk["state"], "held", "{walk}");
        let path = format!("{of_account}/walks/{}", walk["id"].as_str().unwrap());
        told.get(world, "get_walk", &path).await;
        let suspects = format!("{path}/suspects?page_size=2");
        told.get(world, "list_suspects", &suspects).await;
        let decide = (Method::POST, &*format!("{path}/{decision}"));
        told.ask(world, operation, decide, None).await;
    }
    let walks = format!("{of_account}/walks");
    let now = (Method::POST, &*format!("{walks}?wait=60"));
    told.ask(world, "walk_now", now, None).await;
    told.get(world, "list_walks", &walks).await;

    told.get(world, "list_accounts", "/accounts").await;
    told.get(world, "get_account", &of_account).await;
    let meta = format!("{of_account}/meta");
    told.get(world, "get_account_meta", &meta).await;
    let change = json!({"origin_owner_name": "Example Holdings", "label": null});
    let patch = (Method::PATCH, of_account.as_str());
    told.ask(world, "update_account", patch, Some(change)).await;
    let delete = (Method::DELETE, of_account.as_str());
    told.ask(world, "delete_account", delete, None).await;

    link_by_oauth(world, &mut told).await;

    let in_days = |days: u64| (world.clock.now() + Duration::from_hours(24 * days)).to_string();
    let key = json!({
        "label": "HR feed",
        "scopes": ["iam:read", "accounts:read"],
        "expires_at": in_days(200),
    });
    let post = (Method::POST, "/api_keys");
    let key = told.ask(world, "create_api_key", post, Some(key)).await;
    let of_key = format!("/api_keys/{}", key["id"].as_str().unwrap());
    told.get(world, "list_api_keys", "/api_keys").await;
    told.get(world, "get_api_key", &of_key).await;
    let change = json!({"label": "HR feed, until June", "expires_at": in_days(100)});
    let patch = (Method::PATCH, of_key.as_str());
    told.ask(world, "update_api_key", patch, Some(change)).await;
    let delete = (Method::DELETE, of_key.as_str());
    told.ask(world, "revoke_api_key", delete, None).await;
    let told_of_key = format!(
        "/audit?page_size=2&subject_id={}",
        &of_key["/api_keys/".len()..]
    );
    told.get(world, "list_audit_entries", &told_of_key).await;
    told
}

/// A profile, a sign-in under it, and an invitation.
async fn link_by_oauth(world: &World, told: &mut Examples) {
    let callback = "https://app.example.com/oauth/callback";
    let client = world.simulator.register_client(callback);
    let new = json!({
        "provider": "smartsheet",
        "label": "Example's app for the EU",
        "client_id": client.client_id,
        "client_secret": client.client_secret,
        "base_url": world.simulator.announcement().api_base,
        "redirect_url": callback,
    });
    let post = (Method::POST, "/connector_profiles");
    let profile = told
        .ask(world, "create_connector_profile", post, Some(new))
        .await;
    let profile = profile["id"].as_str().unwrap();
    let path = format!("/connector_profiles/{profile}");
    told.get(world, "list_connector_profiles", "/connector_profiles")
        .await;
    told.get(world, "get_connector_profile", &path).await;
    let patch = (Method::PATCH, path.as_str());
    let change = json!({"label": "Example's app", "actions": ["users", "groups"]});
    told.ask(world, "update_connector_profile", patch, Some(change))
        .await;

    let begin = json!({
        "profile": profile,
        "callback_url": callback,
        "origin_owner_id": "customer-17",
        "origin_owner_name": "Example Ltd",
    });
    let post = (Method::POST, "/oauth/authorization_url");
    let begun = told
        .ask(world, "authorization_url", post, Some(begin))
        .await;
    let login = world.admin_email().await;
    let back = world.consent(begun["url"].as_str().unwrap(), &login).await;
    let of = |name: &str| {
        let pair = back.query_pairs().find(|(key, _)| key == name);
        pair.unwrap().1.into_owned()
    };
    let brought = json!({"state": of("state"), "code": of("code")});
    let post = (Method::POST, "/oauth/token_exchange");
    let linked = told.ask(world, "token_exchange", post, Some(brought)).await;
    let refresh = format!("/accounts/{}/refresh", linked["id"].as_str().unwrap());
    told.ask(world, "refresh_account", (Method::POST, &refresh), None)
        .await;

    let invite = json!({
        "origin_owner_id": "customer-17",
        "origin_owner_name": "Example Ltd",
        "provider": "smartsheet",
        "expires_in": 86_400,
        "metadata": {"seen_in": "onboarding"},
    });
    let post = (Method::POST, "/connect_sessions");
    let invited = told
        .ask(world, "create_connect_session", post, Some(invite))
        .await;
    let token = json!({"token": invited["token"]});
    let post = (Method::POST, "/connect_sessions/authenticate");
    told.ask(world, "authenticate_connect_session", post, Some(token))
        .await;
}

#[tokio::test]
async fn the_examples_of_the_document_are_what_is_answered() {
    let world = World::new().await;
    let told = told(&world).await.settled();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http/examples.json");
    if std::env::var_os("ROLECALL_WRITE_EXAMPLES").is_some() {
        let text = serde_json::to_string_pretty(&told).unwrap() + "\n";
        std::fs::write(&path, text).unwrap();
    }
    let committed: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    for (operation, parts) in told.as_object().unwrap() {
        assert_eq!(
            &committed[operation], parts,
            "src/http/examples.json is stale: run `make openapi`"
        );
    }
}

#[test]
fn every_good_answer_and_every_body_of_the_document_has_an_example() {
    for operation in operations() {
        let name = &operation.said["operationId"];
        let responses = operation.said["responses"].as_object().unwrap();
        let good = responses
            .iter()
            .filter(|(status, _)| ["200", "201"].contains(&status.as_str()))
            .map(|(_, response)| response);
        for part in good.chain(operation.said.get("requestBody")) {
            for (kind, content) in part["content"].as_object().unwrap() {
                assert!(content["example"] != Value::Null, "{name}: {kind}");
            }
        }
    }
}
