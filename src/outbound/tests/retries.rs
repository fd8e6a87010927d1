//! Which failures are retried, and when the breaker opens.

use super::*;

fn smartsheet_like(answer: &ProviderResponse) -> ErrorReply {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Body {
        error_code: i64,
    }
    let code = answer.json::<Body>().ok().map(|body| body.error_code);
    ErrorReply {
        code,
        reference: None,
        nature: match code {
            Some(1003) => Classification::CredentialRefused,
            Some(1004) => Classification::NotPermitted,
            Some(4000) => Classification::Lasting,
            Some(4001) => Classification::PassingSlowly,
            Some(4002 | 4004) => Classification::Passing,
            Some(4003) => Classification::Throttled,
            _ => Classification::ByStatus,
        },
    }
}

/// The number of attempts for a provider that always gives this response, and the final error.
async fn tries(status: u16, code: i64) -> (u64, CallErrorKind) {
    let provider =
        ScriptedProvider::start(move |_| answer(status, "", format!("{{\"errorCode\":{code}}}")))
            .await;
    let caller = provider.caller();
    let error = provider
        .get_with(&caller, smartsheet_like)
        .await
        .unwrap_err();
    assert_eq!((error.status, error.code), (Some(status), Some(code)));
    (caller.calls(), error.kind)
}

#[tokio::test]
async fn each_answer_gets_the_tries_that_it_deserves() {
    use CallErrorKind::*;
    for (status, code, expected) in [
        (400, 1008, (1, Refused)),
        (401, 1002, (1, Unauthorized)),
        (401, 1003, (1, Unauthorized)),
        (403, 1003, (1, Unauthorized)),
        (403, 1004, (1, Forbidden)),
        (401, 1004, (1, Forbidden)),
        (403, 9999, (1, Forbidden)),
        // An outage of the provider is no authorization decision.
        (401, 4000, (1, Unavailable)),
        (403, 4001, (4, Unavailable)),
        (403, 4002, (4, Unavailable)),
        (401, 4003, (5, Throttled)),
        (404, 1006, (1, NotFound)),
        (404, 4002, (1, NotFound)),
        (410, 4005, (1, Refused)),
        (429, 4003, (5, Throttled)),
        (500, 4000, (1, Unavailable)),
        (500, 4003, (5, Throttled)),
        (500, 4002, (4, Unavailable)),
        (500, 4004, (4, Unavailable)),
        (500, 9999, (1, Unavailable)),
        (501, 1358, (1, Unavailable)),
        (502, 9999, (4, Unavailable)),
        (503, 4001, (4, Unavailable)),
        (503, 4000, (1, Unavailable)),
        (504, 9999, (4, Unavailable)),
        (302, 9999, (1, InvalidReply)),
    ] {
        assert_eq!(tries(status, code).await, expected, "{status} / {code}");
    }
}

#[tokio::test]
async fn a_401_or_403_without_the_providers_code_is_a_failure_on_the_way() {
    for status in [401, 403] {
        for body in ["", "<html>", r#"{"message":"Forbidden"}"#] {
            let provider = ScriptedProvider::start(move |_| answer(status, "", body)).await;
            let caller = provider.caller().with_priority(Priority::Interactive);
            let error = provider
                .get_with(&caller, smartsheet_like)
                .await
                .unwrap_err();
            assert_eq!(
                (error.kind, error.status, error.code),
                (CallErrorKind::Unavailable, Some(status), None)
            );
            assert_eq!(caller.calls(), 4);
            // The breaker counts them as well.
            provider
                .get_with(&caller, smartsheet_like)
                .await
                .unwrap_err();
            assert_eq!(caller.calls(), 5);
            provider
                .get_with(&caller, smartsheet_like)
                .await
                .unwrap_err();
            assert_eq!(caller.calls(), 5);
        }
    }
}

#[tokio::test]
async fn what_passes_is_waited_out() {
    for trouble in [
        answer(401, "", "<html>"),
        answer(403, "", r#"{"message":"Forbidden"}"#),
        answer(503, "", "<html>"),
        answer(500, "", r#"{"errorCode":4004}"#),
        Act::Reset,
        Act::Send(Vec::new()),
    ] {
        let provider = ScriptedProvider::scripted(vec![trouble]).await;
        let caller = provider.caller();
        provider.get_with(&caller, smartsheet_like).await.unwrap();
        assert_eq!(caller.calls(), 2);
        assert!(provider.times()[1] <= Duration::from_millis(500));
    }
}

#[tokio::test]
async fn maintenance_is_waited_for_in_minutes_but_not_by_a_person() {
    let maintenance = || answer(503, "", r#"{"errorCode":4001}"#);
    let provider =
        ScriptedProvider::scripted(vec![maintenance(), maintenance(), maintenance()]).await;
    provider
        .get_with(&provider.caller(), smartsheet_like)
        .await
        .unwrap();
    assert!(*provider.times().last().unwrap() > Duration::from_secs(30));

    let provider = ScriptedProvider::start(move |_| maintenance()).await;
    let caller = provider.caller().with_priority(Priority::Interactive);
    let from = provider.clock.monotonic();
    provider
        .get_with(&caller, smartsheet_like)
        .await
        .unwrap_err();
    assert!(provider.clock.monotonic() - from <= Duration::from_secs(20));
}

#[tokio::test]
async fn a_provider_that_is_busy_may_say_for_how_long() {
    let busy = |wait| answer(503, &format!("retry-after: {wait}\r\n"), "");
    let provider = ScriptedProvider::scripted(vec![busy("100")]).await;
    provider.get(&provider.caller()).await.unwrap();
    assert_eq!(provider.times()[1], Duration::from_secs(100));
    let limited = answer(403, "retry-after: 100\r\n", "<html>");
    let provider = ScriptedProvider::scripted(vec![limited]).await;
    provider.get(&provider.caller()).await.unwrap();
    assert_eq!(provider.times()[1], Duration::from_secs(100));
    // An unreadable `Retry-After` does not delay a retry beyond the backoff.
    let provider = ScriptedProvider::scripted(vec![busy("soon")]).await;
    provider.get(&provider.caller()).await.unwrap();
    assert!(provider.times()[1] <= Duration::from_millis(500));
}

#[tokio::test]
async fn a_call_that_the_breaker_cuts_off_tells_what_it_met() {
    let provider = ScriptedProvider::start(|_| answer(503, "", "")).await;
    let caller = provider.caller().with_priority(Priority::Interactive);
    for _ in 0..2 {
        let error = provider.get(&caller).await.unwrap_err();
        assert_eq!(
            (error.kind, error.status),
            (CallErrorKind::Unavailable, Some(503))
        );
    }
    assert_eq!(caller.calls(), 5);
}

#[tokio::test]
async fn a_refused_connection_is_tried_four_times() {
    let provider = ScriptedProvider::scripted(vec![]).await;
    let caller = provider.caller();
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", closed.local_addr().unwrap());
    drop(closed);
    let token = SecretString::from("secret-token");
    let request = ProviderRequest {
        url: url.parse().unwrap(),
        template: "/",
        token: &token,
        headers: &[],
    };
    let refused = caller.get(request, |_| ErrorReply::default()).await;
    let error = refused.unwrap_err();
    assert_eq!(
        (error.kind, error.status),
        (CallErrorKind::Unavailable, None)
    );
    assert!(error.detail.contains("refused"), "{}", error.detail);
    assert_eq!(caller.calls(), 4);
}

#[tokio::test]
async fn a_provider_in_trouble_is_left_alone_and_probed_once() {
    let provider = ScriptedProvider::start(|number| match number {
        1..=6 => answer(500, "", ""),
        _ => good(),
    })
    .await;
    let caller = provider.caller().with_priority(Priority::Interactive);
    for _ in 0..5 {
        provider.get(&caller).await.unwrap_err();
    }
    let error = provider.get(&caller).await.unwrap_err();
    assert_eq!(
        (error.kind, error.status),
        (CallErrorKind::Unavailable, None)
    );
    assert_eq!(error.retry_after, Some(Duration::from_secs(30)));
    assert_eq!(caller.calls(), 5);

    // The probe fails, and calls are rejected again.
    provider.clock.advance(Duration::from_secs(30));
    provider.get(&caller).await.unwrap_err();
    provider.get(&caller).await.unwrap_err();
    assert_eq!(caller.calls(), 6);

    provider.clock.advance(Duration::from_secs(30));
    provider.get(&caller).await.unwrap();
    provider.get(&caller).await.unwrap();
}

#[tokio::test]
async fn one_accounts_trouble_is_not_another_ones() {
    let provider = ScriptedProvider::start(|number| match number {
        1..=5 => answer(500, "", ""),
        _ => good(),
    })
    .await;
    let outbound = provider.outbound();
    let caller = outbound.caller(route("token"));
    for _ in 0..5 {
        provider.get(&caller).await.unwrap_err();
    }
    let other = outbound.caller(ClientScope {
        account: "another".to_owned(),
        priority: Priority::Interactive,
        ..route("token")
    });
    provider.get(&other).await.unwrap();
}

#[tokio::test]
async fn a_background_call_outlives_half_a_minute_of_trouble() {
    let provider = ScriptedProvider::start(|number| match number {
        1..=5 => answer(503, "", ""),
        _ => good(),
    })
    .await;
    let caller = provider.caller();
    let calls = futures_util::future::join_all((0..8).map(|_| provider.get(&caller)));
    for answer in calls.await {
        answer.unwrap();
    }
}

#[tokio::test]
async fn retries_are_a_part_of_the_calls() {
    // Every other request fails, so that failures in a row do not open the breaker.
    let provider = ScriptedProvider::start(|number| match number % 2 {
        1 => answer(503, "", ""),
        _ => good(),
    })
    .await;
    let outbound = provider.outbound_with(|settings| {
        settings.breaker.sample = u32::MAX;
        settings.rate_limit = 0;
    });
    let caller = outbound.caller(route("token"));
    let mut calls = 0_u64;
    while caller.calls() < 300 && provider.times().last() < Some(&Duration::from_secs(30)) {
        let _ = provider.get(&caller).await;
        calls += 1;
    }
    let retries = caller.calls() - calls;
    assert!(retries <= 10 + calls / 5, "{retries} retries of {calls}");
}
