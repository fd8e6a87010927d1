//! Tests of the connector over real HTTP against the simulator, which shares no code with it.

use std::collections::{BTreeMap, BTreeSet};

use secrecy::SecretString;
use serde_json::{Value, json};
use smartsheet_simulator::{Options, Simulator};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    clock::Clock,
    connectors::{
        Connector, Presence, Session,
        contract::{self, Truth},
        smartsheet::Smartsheet,
    },
    model::{
        accounts::Endpoint,
        id::RemoteId,
        observed::Seats,
        schema::{Reason, UserField, Warning},
    },
    outbound::{
        CallError, CallErrorKind, ClientScope, Outbound, OutboundSettings, Priority, TokenKey,
    },
};

const ADMIN: fn(&SimulatedProvider) -> &str =
    |world| &world.simulator.announcement().tokens.system_admin;
const MEMBER: fn(&SimulatedProvider) -> &str =
    |world| &world.simulator.announcement().tokens.member;

struct SimulatedProvider {
    simulator: Simulator,
}

impl SimulatedProvider {
    async fn start() -> Self {
        let options = Options {
            port: 0,
            users: 250,
            groups: 20,
            rate_limit: 0,
            ..Options::default()
        };
        let simulator = Simulator::start(options).await.unwrap();
        Self { simulator }
    }

    fn session(&self, token: fn(&Self) -> &str) -> Session {
        self.session_with(token(self))
    }

    fn session_with(&self, token: &str) -> Session {
        let settings = OutboundSettings {
            rate_limit: 0,
            allow_private_addresses: true,
            ..OutboundSettings::default()
        };
        let clock = Clock::skipping("2026-11-22T12:00:00Z".parse().unwrap());
        let outbound = Outbound::new(settings, clock, 7, None).unwrap();
        let token = SecretString::from(token);
        let caller = outbound.caller(ClientScope {
            provider: "smartsheet",
            account: "account".to_owned(),
            token: TokenKey::of(&token),
            priority: Priority::Background,
            is_newly_linked: true,
        });
        let endpoint = Endpoint::BaseUrl(self.simulator.announcement().api_base.clone());
        Session::new(endpoint, token, caller)
    }

    /// Sends one request to the control plane.
    async fn control(&self, method: &str, path: &str, body: Value) -> Value {
        let url: url::Url = self.simulator.announcement().control_url.parse().unwrap();
        let address = url.socket_addrs(|| None).unwrap()[0];
        let mut stream = TcpStream::connect(address).await.unwrap();
        let body = body.to_string();
        let request = format!(
            "{method} {}{path} HTTP/1.0\r\nhost: {address}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            url.path(),
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await.unwrap();
        let (head, body) = reply.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.0 20"), "{head}\n{body}");
        serde_json::from_str(body).unwrap_or(Value::Null)
    }

    async fn faults(&self, faults: Value) {
        self.control("POST", "/faults", faults).await;
    }

    /// Sets a permanent fault for the paths with this prefix.
    async fn fault(&self, path_prefix: &str, fault: Value) {
        self.faults(json!([{"match": {"path_prefix": path_prefix}, "fault": fault}]))
            .await;
    }

    async fn truth(&self, is_listed: impl Fn(&Value) -> bool) -> Truth {
        let truth = self.control("GET", "/truth", Value::Null).await;
        let rows = |list: &Value| list.as_array().unwrap().clone();
        Truth {
            users: rows(&truth["users"])
                .iter()
                .filter(|user| is_listed(user))
                .map(id)
                .collect(),
            groups: rows(&truth["groups"])
                .iter()
                .map(|group| (id(group), rows(&group["members"]).iter().map(id).collect()))
                .collect::<BTreeMap<_, BTreeSet<_>>>(),
            absent_user: "1".into(),
            absent_group: "1".into(),
        }
    }
}

fn id(row: &Value) -> RemoteId {
    row["id"].as_u64().unwrap().to_string().into()
}

fn is_insider(user: &Value) -> bool {
    user["isInternal"] == json!(true)
}

#[tokio::test]
async fn the_contract_holds_for_a_system_admin() {
    let world = SimulatedProvider::start().await;
    let truth = world.truth(|_| true).await;
    contract::keeps_the_contract(&Smartsheet, &world.session(ADMIN), &truth).await;
}

#[tokio::test]
async fn the_contract_holds_for_a_plain_member() {
    let world = SimulatedProvider::start().await;
    let truth = world.truth(is_insider).await;
    contract::keeps_the_contract(&Smartsheet, &world.session(MEMBER), &truth).await;
}

#[tokio::test]
async fn a_dead_credential_is_refused() {
    let world = SimulatedProvider::start().await;
    for token in [
        &world.simulator.announcement().tokens.revoked,
        "never-a-token",
    ] {
        contract::refuses_a_dead_credential(&Smartsheet, &world.session_with(token)).await;
    }
}

#[tokio::test]
async fn every_user_is_as_the_provider_has_them() {
    let world = SimulatedProvider::start().await;
    let truth = world.control("GET", "/truth", Value::Null).await;
    let truth: BTreeMap<_, _> = truth["users"]
        .as_array()
        .unwrap()
        .iter()
        .map(|user| (id(user), user))
        .collect();
    let session = world.session(ADMIN);
    let identity = Smartsheet.identify(&session).await.unwrap();
    for number in 1..=3 {
        let page = Smartsheet.users(&session, &identity, number).await.unwrap();
        for user in page.records {
            let truth = truth[&user.remote_id];
            let text = |field: &str| truth[field].as_str();
            assert_eq!(user.email.as_deref(), text("email"));
            assert_eq!(user.name.as_deref(), text("name"));
            assert_eq!(user.status.unwrap().source.as_deref(), text("status"));
            let seat = user.seat.unwrap();
            assert_eq!(seat.kind.source.as_deref(), text("seatType"));
            assert_eq!(
                seat.since,
                text("seatTypeLastChangedAt").map(|at| at.parse().unwrap())
            );
            assert_eq!(user.is_external, Some(!is_insider(truth)));
            let has_role = |role: &str| user.roles.iter().flatten().any(|held| &**held == role);
            for (role, flag) in [
                ("system_admin", "admin"),
                ("group_admin", "groupAdmin"),
                ("licensed_user", "licensedSheetCreator"),
                ("resource_viewer", "resourceViewer"),
            ] {
                assert_eq!(has_role(role), truth[flag] == json!(true), "{role}");
            }
        }
    }
}

#[tokio::test]
async fn who_the_token_is_and_what_it_sees() {
    let world = SimulatedProvider::start().await;
    let admin = Smartsheet.identify(&world.session(ADMIN)).await.unwrap();
    assert!(admin.is_admin && matches!(admin.seats, Seats::Readable { .. }));
    let session = world.session(MEMBER);
    let member = Smartsheet.identify(&session).await.unwrap();
    assert!(!member.is_admin);
    assert_eq!(member.seats, Seats::Hidden(Reason::NotPermitted));
    assert_eq!(
        session.caller().calls(),
        1,
        "a member's plans are not asked for"
    );
    assert_eq!(member.organization, admin.organization);
    assert_ne!(member.user, admin.user);
}

#[tokio::test]
async fn a_plan_that_cannot_be_read_hides_the_seats_and_a_failure_does_not() {
    let world = SimulatedProvider::start().await;
    let session = world.session(ADMIN);
    let me = Smartsheet.identify(&session).await.unwrap().user;
    let plans = format!("/2.0/users/{me}/plans");
    let hidden = Seats::Hidden(Reason::NotSupported);
    for (status, code) in [(403, 1004), (404, 1006)] {
        let fault = json!({"kind": "status", "status": status, "error_code": code});
        world.fault(&plans, fault).await;
        let identity = Smartsheet.identify(&session).await.unwrap();
        assert_eq!(identity.seats, hidden, "{status}");
    }
    let empty = json!({"kind": "body", "status": 200, "content_type": "application/json",
        "body": r#"{"data":[]}"#});
    world.fault(&plans, empty).await;
    assert_eq!(Smartsheet.identify(&session).await.unwrap().seats, hidden);

    // A plan to which the user is internal comes before a guest's plan; a guest's plan is better
    // than none.
    for (body, chosen) in [
        (
            r#"{"data":[{"planId":4,"isInternal":false},{"planId":5,"isInternal":true}]}"#,
            "5",
        ),
        (
            r#"{"data":[{"planId":4,"isInternal":false},{"planId":5}],"lastKey":null}"#,
            "4",
        ),
    ] {
        let fault = json!({"kind": "body", "status": 200, "content_type": "application/json",
            "body": body});
        world.fault(&plans, fault).await;
        let seats = Smartsheet.identify(&session).await.unwrap().seats;
        let plan = chosen.into();
        assert_eq!(seats, Seats::Readable { plan });
    }

    for fault in [
        json!({"kind": "body", "status": 403, "content_type": "text/html", "body": "<html>"}),
        json!({"kind": "status", "status": 500, "error_code": 4000}),
        json!({"kind": "body", "status": 200, "content_type": "text/html", "body": "<html>"}),
        // A list whose key repeats never ends.
        json!({"kind": "body", "status": 200, "content_type": "application/json",
            "body": r#"{"lastKey":"again","data":[]}"#}),
    ] {
        world.fault(&plans, fault.clone()).await;
        let session = world.session(ADMIN);
        assert!(Smartsheet.identify(&session).await.is_err(), "{fault}");
    }
}

#[tokio::test]
async fn a_404_is_a_proof_only_with_the_providers_own_code() {
    let world = SimulatedProvider::start().await;
    let session = world.session(ADMIN);
    let not_found = |code: i64| json!({"kind": "status", "status": 404, "error_code": code});
    let proxy =
        json!({"kind": "body", "status": 404, "content_type": "text/html", "body": "<html>"});
    let id = RemoteId::from("1");
    for (fault, is_user_proof, is_group_proof) in [
        (not_found(1020), true, false),
        (not_found(1006), true, false),
        (not_found(1106), false, true),
        (not_found(1007), false, false),
        (proxy, false, false),
    ] {
        world.fault("/2.0/", fault.clone()).await;
        let user = Smartsheet.user(&session, &id).await;
        assert_eq!(
            matches!(user, Ok(Presence::Departed)),
            is_user_proof,
            "{fault}"
        );
        let group = Smartsheet.group(&session, &id).await;
        assert_eq!(
            matches!(group, Ok(Presence::Departed)),
            is_group_proof,
            "{fault}"
        );
        for error in [user.err(), group.err()].into_iter().flatten() {
            assert_eq!(error.kind, CallErrorKind::NotFound);
        }
    }
}

/// The error for the first page of users under a fault.
async fn users_under(fault: Value) -> CallError {
    let world = SimulatedProvider::start().await;
    let session = world.session(ADMIN);
    let identity = Smartsheet.identify(&session).await.unwrap();
    world.fault("/2.0/users", fault).await;
    Smartsheet.users(&session, &identity, 1).await.unwrap_err()
}

#[tokio::test]
async fn a_reply_off_its_shape_is_no_answer() {
    let body = |body: &str| json!({"kind": "body", "status": 200, "content_type": "application/json", "body": body});
    for fault in [
        json!({"kind": "body", "status": 200, "content_type": "text/html", "body": "<html>"}),
        body(""),
        body("null"),
        body("[]"),
        body("{}"),
        body(r#"{"pageNumber":1,"totalPages":1,"data":[]}"#),
        body(r#"{"pageNumber":1,"totalCount":0,"data":[]}"#),
        body(r#"{"pageNumber":1,"totalPages":1,"totalCount":1}"#),
        body(r#"{"pageNumber":1,"totalPages":1,"totalCount":-2,"data":[]}"#),
        body(r#"{"pageNumber":1,"totalPages":1,"totalCount":1,"data":{}}"#),
        json!({"kind": "truncate", "bytes": 200}),
    ] {
        let error = users_under(fault.clone()).await;
        assert_eq!(error.kind, CallErrorKind::InvalidReply, "{fault}");
    }
}

#[tokio::test]
async fn a_refusal_keeps_the_providers_code_and_reference_but_no_words() {
    let fault = json!({"kind": "status", "status": 403, "error_code": 1004});
    let error = users_under(fault).await;
    assert_eq!(error.kind, CallErrorKind::Forbidden);
    assert_eq!((error.status, error.code), (Some(403), Some(1004)));
    assert!(error.reference.is_some());
}

#[tokio::test]
async fn only_smartsheets_own_code_says_that_a_token_is_refused_or_may_not() {
    use CallErrorKind::{Forbidden, Unauthorized, Unavailable};
    let world = SimulatedProvider::start().await;
    for (status, body, expected) in [
        (401, r#"{"errorCode":1002}"#, (Unauthorized, Some(1002))),
        (401, r#"{"errorCode":"1003"}"#, (Unauthorized, Some(1003))),
        (403, r#"{"errorCode":"1003"}"#, (Unauthorized, Some(1003))),
        (
            403,
            r#"{"errorCode":"1004","refId":7}"#,
            (Forbidden, Some(1004)),
        ),
        (401, r#"{"errorCode":1004}"#, (Forbidden, Some(1004))),
        (403, r#"{"errorCode":1013}"#, (Forbidden, Some(1013))),
        (401, r#"{"errorCode":403}"#, (Unavailable, None)),
        (403, r#"{"errorCode":"denied"}"#, (Unavailable, None)),
        (
            403,
            r#"{"errorCode":null,"message":"no"}"#,
            (Unavailable, None),
        ),
        (403, r#"{"errorCode":[1004]}"#, (Unavailable, None)),
        (403, r#"{"message":"Forbidden"}"#, (Unavailable, None)),
        (401, r#"[1002]"#, (Unavailable, None)),
        (401, r#"{"errorCode":1002"#, (Unavailable, None)),
        (403, "<html>1004</html>", (Unavailable, None)),
        (401, "", (Unavailable, None)),
        (403, r#"{"errorCode":4000}"#, (Unavailable, Some(4000))),
    ] {
        let fault = json!({"kind": "body", "status": status, "content_type": "text/html",
            "body": body});
        world.fault("/2.0/", fault).await;
        let error = Smartsheet
            .identify(&world.session(ADMIN))
            .await
            .unwrap_err();
        assert_eq!((error.kind, error.code), expected, "{status} {body}");
    }
}

#[tokio::test]
async fn totals_that_are_not_known_are_none() {
    let world = SimulatedProvider::start().await;
    let session = world.session(ADMIN);
    let body = r#"{"pageNumber":1,"totalPages":-1,"totalCount":-1,"data":[{"id":7,"name":"a"}]}"#;
    let fault =
        json!({"kind": "body", "status": 200, "content_type": "application/json", "body": body});
    world.fault("/2.0/groups", fault).await;
    let page = Smartsheet.groups(&session, 1).await.unwrap();
    assert_eq!((page.total, page.total_pages), (None, None));
    assert_eq!(page.records.len(), 1);
}

#[tokio::test]
async fn a_field_that_is_gone_costs_nobody_their_record_and_a_new_word_is_kept() {
    let world = SimulatedProvider::start().await;
    let session = world.session(ADMIN);
    let identity = Smartsheet.identify(&session).await.unwrap();
    for (field, lost) in [
        ("email", UserField::PrimaryEmailAddress),
        ("status", UserField::Status),
        ("admin", UserField::Roles),
        ("resourceViewer", UserField::Roles),
    ] {
        world
            .fault("/2.0/users", json!({"kind": "omit_field", "field": field}))
            .await;
        let page = Smartsheet.users(&session, &identity, 1).await.unwrap();
        assert_eq!(page.records.len(), 100, "{field}");
        let unknown = Warning {
            field: lost,
            reason: Reason::Unknown,
        };
        for user in &page.records {
            assert!(user.warnings.contains(&unknown), "{field}: {user:?}");
        }
    }
    world
        .fault("/2.0/users", json!({"kind": "omit_field", "field": "id"}))
        .await;
    let page = Smartsheet.users(&session, &identity, 1).await.unwrap();
    assert_eq!((page.records.len(), page.quarantined.len()), (0, 100));

    world
        .fault(
            "/2.0/users",
            json!({"kind": "unknown_enum", "field": "seatType"}),
        )
        .await;
    let page = Smartsheet.users(&session, &identity, 1).await.unwrap();
    assert_eq!(page.records.len(), 100);
}

#[tokio::test]
async fn a_group_without_members_is_a_failed_read() {
    let world = SimulatedProvider::start().await;
    let session = world.session(ADMIN);
    let truth = world.truth(|_| true).await;
    let group = truth.groups.keys().next().unwrap();
    world
        .fault(
            "/2.0/groups/",
            json!({"kind": "omit_field", "field": "members"}),
        )
        .await;
    let error = Smartsheet.group(&session, group).await.unwrap_err();
    assert_eq!(error.kind, CallErrorKind::InvalidReply);
}

#[tokio::test]
async fn a_token_without_the_scope_is_forbidden_the_lists() {
    let world = SimulatedProvider::start().await;
    let token = &world.simulator.announcement().tokens.no_read_users;
    let session = world.session_with(token);
    let identity = Smartsheet.identify(&session).await.unwrap();
    let error = Smartsheet.users(&session, &identity, 1).await.unwrap_err();
    assert_eq!(
        (error.kind, error.code),
        (CallErrorKind::Forbidden, Some(1004))
    );
}

#[tokio::test]
async fn trouble_that_passes_is_not_seen() {
    for fault in [
        json!({"kind": "status", "status": 429, "error_code": 4003, "retry_after": "7"}),
        json!({"kind": "status", "status": 429, "error_code": 4003}),
        json!({"kind": "status", "status": 503, "error_code": 4001}),
        json!({"kind": "status", "status": 500, "error_code": 4002}),
        json!({"kind": "status", "status": 500, "error_code": 4004}),
        json!({"kind": "body", "status": 502, "content_type": "text/html", "body": "<html>"}),
        json!({"kind": "reset"}),
        json!({"kind": "drop_reply"}),
        json!({"kind": "truncate", "bytes": 100}),
    ] {
        let world = SimulatedProvider::start().await;
        let session = world.session(ADMIN);
        world
            .faults(json!([{"match": {}, "times": 2, "fault": fault}]))
            .await;
        Smartsheet.identify(&session).await.unwrap();
        // Two failed calls, the identity, and two pages of plans (the first is empty).
        assert_eq!(session.caller().calls(), 2 + 1 + 2, "{fault}");
    }
}

#[tokio::test]
async fn a_walk_asks_for_no_more_than_it_must() {
    let world = SimulatedProvider::start().await;
    let session = world.session(ADMIN);
    let truth = world.truth(|_| true).await;
    let identity = Smartsheet.identify(&session).await.unwrap();
    for number in 1..=3 {
        Smartsheet.users(&session, &identity, number).await.unwrap();
    }
    Smartsheet.groups(&session, 1).await.unwrap();
    for group in truth.groups.keys() {
        Smartsheet.group(&session, group).await.unwrap();
    }
    // The identity, two pages of plans (the first is empty), three pages of users, one of groups,
    // and each group.
    assert_eq!(session.caller().calls(), 1 + 2 + 3 + 1 + 20);
    let log = world.control("GET", "/log?since=0", Value::Null).await;
    for call in log.as_array().unwrap() {
        let query = call["query"].as_str().unwrap_or_default();
        assert!(!query.contains("includeAll"), "{query}");
    }
}
