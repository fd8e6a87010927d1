//! Faults on the token endpoint: what a client that refreshes has to live with.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use socket2::SockRef;

use crate::house::{House, reply, start};

/// A refresh as it is sent, and an account to try it on.
struct Refresh {
    house: House,
    pair: Value,
}

impl Refresh {
    /// A fresh grant, and a fault that strikes its refresh.
    async fn under(fault: Value) -> Self {
        let refresh = Self::new().await;
        refresh.rule(json!({"times": 1, "fault": fault})).await;
        refresh
    }

    async fn new() -> Self {
        let house = start().await;
        let mint = json!([{"op": "mint_oauth", "login": "ana.ruiz@example.org"}]);
        let pair = house.control("mutate", mint).await[0].clone();
        Self { house, pair }
    }

    /// Puts a rule in force that matches the token endpoint alone.
    async fn rule(&self, mut rule: Value) {
        rule["match"] = json!({"method": "POST", "path_prefix": "/2.0/token"});
        self.house.control("faults", json!([rule])).await;
    }

    fn request(&self, pair: &Value) -> reqwest::RequestBuilder {
        let client = &self.house.is().oauth_client;
        let form = [
            ("grant_type", "refresh_token"),
            ("refresh_token", pair["refresh_token"].as_str().unwrap()),
            ("client_id", client.client_id.as_str()),
            ("client_secret", client.client_secret.as_str()),
        ];
        let url = format!("{}/token", self.house.is().api_base);
        self.house.http.post(url).form(&form)
    }

    /// Sends it, without a wait for more than it takes.
    async fn send(&self) -> Result<reqwest::Response, reqwest::Error> {
        self.request(&self.pair).send().await
    }

    /// The row of the first generation: redeemed so often, live or not.
    async fn first(&self) -> (u64, bool) {
        let rows = self.house.ask("tokens").await;
        let row = rows
            .as_array()
            .unwrap()
            .iter()
            .find(|row| row["token"] == "oauth-1" && row["generation"] == 1)
            .unwrap()
            .clone();
        (
            row["redeemed"].as_u64().unwrap(),
            row["live"].as_bool().unwrap(),
        )
    }

    /// What the log has of the last request.
    async fn logged(&self) -> (Value, Value, Value) {
        let entry = self.house.log().await.pop().unwrap();
        (
            entry["path"].clone(),
            entry["token"].clone(),
            entry["status"].clone(),
        )
    }
}

const SPENT: (u64, bool) = (1, false);
const GOOD: (u64, bool) = (0, true);

#[tokio::test]
async fn a_delayed_refresh_comes_late_and_is_good() {
    let refresh = Refresh::under(json!({"kind": "delay", "ms": 150})).await;
    let began = Instant::now();
    let next = reply(refresh.request(&refresh.pair)).await;
    assert!(began.elapsed() >= Duration::from_millis(150));
    assert_eq!(next.status, 200);
    assert_eq!(refresh.first().await, SPENT);
    assert_eq!(
        reply(refresh.request(&next.body)).await.status,
        200,
        "once: the next one is not delayed"
    );
}

/// Whoever gives up, in good order or not, has asked all the same.
#[tokio::test]
async fn who_gives_up_on_a_delayed_refresh_has_spent_the_token() {
    for lingers in [None, Some(Duration::ZERO)] {
        let refresh = Refresh::under(json!({"kind": "delay", "ms": 100})).await;
        let request = refresh.request(&refresh.pair).build().unwrap();
        let body = request.body().unwrap().as_bytes().unwrap();
        let host = request.url().authority();
        let head = format!(
            "POST /2.0/token HTTP/1.1\r\nhost: {host}\r\ncontent-length: {}\r\n\
             content-type: application/x-www-form-urlencoded\r\n\r\n",
            body.len()
        );
        let mut connection = TcpStream::connect(host).unwrap();
        connection
            .write_all(&[head.as_bytes(), body].concat())
            .unwrap();
        while refresh.house.log().await.is_empty() {
            tokio::task::yield_now().await;
        }
        // With no time to linger, the end of a connection is a reset.
        SockRef::from(&connection).set_linger(lingers).unwrap();
        drop(connection);
        let spent = async {
            while refresh.first().await != SPENT {
                tokio::task::yield_now().await;
            }
        };
        let spent = tokio::time::timeout(Duration::from_secs(5), spent).await;
        assert!(spent.is_ok(), "it is done for nobody: {lingers:?}");
        let again = reply(refresh.request(&refresh.pair)).await;
        assert_eq!(again.refusal(), (400, 1071));
    }
}

#[tokio::test]
async fn a_dropped_reply_has_spent_the_refresh_token() {
    let refresh = Refresh::under(json!({"kind": "drop_reply"})).await;
    let error = refresh.send().await.unwrap_err();
    assert!(error.status().is_none(), "{error:?}");
    assert_eq!(refresh.first().await, SPENT);
    assert_eq!(
        refresh.logged().await,
        ("/2.0/token".into(), "oauth-1".into(), Value::Null)
    );
    let again = reply(refresh.request(&refresh.pair)).await;
    assert_eq!(again.refusal(), (400, 1071));
}

#[tokio::test]
async fn a_reset_leaves_the_refresh_token_good() {
    let refresh = Refresh::under(json!({"kind": "reset"})).await;
    let error = refresh.send().await.unwrap_err();
    assert!(
        format!("{error:?}").contains("ConnectionReset"),
        "{error:?}"
    );
    assert_eq!(refresh.first().await, GOOD);
    assert_eq!(reply(refresh.request(&refresh.pair)).await.status, 200);
}

#[tokio::test]
async fn a_status_or_a_body_in_place_of_the_reply_leaves_it_good_too() {
    for (fault, status, body) in [
        (
            json!({"kind": "status", "status": 503, "error_code": 4001}),
            503,
            "\"errorCode\":4001",
        ),
        (
            json!({"kind": "status", "status": 429, "error_code": 4003, "retry_after": "7"}),
            429,
            "\"errorCode\":4003",
        ),
        (
            json!({"kind": "status", "status": 400, "error_code": 1071}),
            400,
            "\"errorCode\":1071",
        ),
        (
            json!({"kind": "body", "status": 200, "content_type": "text/html", "body": "<p>"}),
            200,
            "<p>",
        ),
    ] {
        let refresh = Refresh::under(fault.clone()).await;
        let response = refresh.send().await.unwrap();
        assert_eq!(response.status().as_u16(), status);
        let text = response.text().await.unwrap();
        assert!(text.contains(body), "{fault}: {text}");
        assert_eq!(refresh.first().await, GOOD, "{fault}");
        assert_eq!(reply(refresh.request(&refresh.pair)).await.status, 200);
    }
}

#[tokio::test]
async fn a_truncated_reply_has_spent_it_and_does_not_parse() {
    let refresh = Refresh::under(json!({"kind": "truncate", "bytes": 30})).await;
    let response = refresh.send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(response.json::<Value>().await.is_err());
    assert_eq!(refresh.first().await, SPENT);
}

#[tokio::test]
async fn a_trickling_reply_has_spent_it_and_comes_in_the_end() {
    let refresh = Refresh::under(json!({"kind": "trickle", "bytes_per_s": 1000})).await;
    let began = Instant::now();
    let response = refresh.send().await.unwrap();
    assert_eq!(refresh.first().await, SPENT, "before the reply is there");
    let next: Value = response.json().await.unwrap();
    assert!(
        began.elapsed() >= Duration::from_millis(120),
        "some 160 bytes at 1000 a second"
    );
    assert_eq!(reply(refresh.request(&next)).await.status, 200);
}

#[tokio::test]
async fn rules_count_the_token_calls_that_they_match() {
    let refresh = Refresh::new().await;
    refresh
        .rule(json!({"after": 1, "times": 2, "fault": {"kind": "status", "status": 500}}))
        .await;
    let mut pair = refresh.pair.clone();
    let mut statuses = Vec::new();
    for _ in 0..5 {
        assert_ne!(refresh.house.get("/users/me").await.status, 500);
        let next = reply(refresh.request(&pair)).await;
        statuses.push(next.status);
        if next.status == 200 {
            pair = next.body;
        }
    }
    assert_eq!(statuses, [200, 500, 500, 200, 200]);
    let revoke = refresh
        .house
        .http
        .delete(format!("{}/token", refresh.house.is().api_base))
        .bearer_auth(pair["access_token"].as_str().unwrap());
    refresh
        .rule(json!({"fault": {"kind": "status", "status": 500}}))
        .await;
    assert_eq!(
        reply(revoke).await.status,
        200,
        "another method is not matched"
    );
}
