//! `rolecall store copy`, and serving what was copied.

use serde_json::Value;

use crate::{
    bench::{Bench, client},
    schema::Schema,
};

#[tokio::test]
async fn an_installation_moves_to_postgresql_and_its_keys_go_on() {
    let Some(schema) = Schema::new().await else {
        return;
    };
    let bench = Bench::new();
    bench.furnish().await;
    let config = ["--config", "rolecall.toml"];
    let run = async |arguments: &[&str]| bench.run(&[arguments, &config].concat()).await;
    run(&["projects", "create", "acme"]).await.expect(0);
    let made = run(&["keys", "create", "--project", "acme", "--json"]).await;
    let key = made.expect(0).json()["api_key"]
        .as_str()
        .unwrap()
        .to_owned();

    let url = schema.url();
    let copy = [
        "store",
        "copy",
        "--from",
        "sqlite://rolecall.db",
        "--to",
        &url,
    ];
    let copied = run(&[&copy[..], &["--json"]].concat()).await.expect(0);
    assert_eq!(copied.json()["copied"]["api_keys"], 1);
    run(&copy).await.expect(1).says(&["must be empty"]);

    let text = std::fs::read_to_string(bench.path("rolecall.toml")).unwrap();
    let journal = bench.path("journal");
    bench.write(
        "rolecall.toml",
        &format!("{text}\n[store]\nurl = {url:?}\njournal = {journal:?}\n"),
    );
    let (served, base) = bench.serve().await;
    let reply = client()
        .get(format!("{base}/accounts"))
        .bearer_auth(key)
        .send()
        .await
        .unwrap();
    assert_eq!(reply.status(), 200);
    let page: Value = reply.json().await.unwrap();
    assert_eq!(page, Value::Array(Vec::new()));
    let wrong = [
        "store",
        "copy",
        "--from",
        "sqlite://rollcall.db",
        "--to",
        &url,
    ];
    run(&wrong)
        .await
        .expect(1)
        .says(&["there is nothing stored"]);
    assert!(!bench.path("rollcall.db").exists());
    let back = ["store", "copy", "--from", &url, "--to", "sqlite://back.db"];
    run(&back)
        .await
        .expect(1)
        .says(&["a process serves the source database"]);
    assert!(served.terminate().await.0.success());
    let copied = run(&back).await.expect(0);
    assert!(copied.out.contains("Every row is there"), "{copied:?}");
}
