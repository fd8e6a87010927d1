//! `rolecall keyring init`.

use rolecall::crypto::KeyRing;

use crate::bench::Bench;

#[tokio::test]
async fn a_new_ring_is_for_its_owner_alone_and_can_be_read() {
    let bench = Bench::new();
    let outcome = bench.run(&["keyring", "init"]).await.expect(0);
    assert!(outcome.out.contains("rolecall.keys"), "{outcome:?}");
    assert_eq!(bench.mode("rolecall.keys"), 0o600);
    let ring = KeyRing::read_file(&bench.path("rolecall.keys")).unwrap();
    assert_eq!(ring.ids().collect::<Vec<_>>(), ["k1"]);
}

#[tokio::test]
async fn file_and_id_may_be_named_and_machines_get_a_line_of_json() {
    let bench = Bench::new();
    let line = bench
        .run(&["keyring", "init", "other.keys", "--id", "y2026", "--json"])
        .await
        .expect(0)
        .json();
    assert_eq!(
        line,
        serde_json::json!({ "file": "other.keys", "key_id": "y2026" })
    );
    let ring = KeyRing::read_file(&bench.path("other.keys")).unwrap();
    assert_eq!(ring.encrypting_id(), "y2026");
}

#[tokio::test]
async fn no_key_is_ever_printed() {
    let bench = Bench::new();
    let outcome = bench.run(&["keyring", "init"]).await.expect(0);
    let text = std::fs::read_to_string(bench.path("rolecall.keys")).unwrap();
    let key = text.lines().last().unwrap().split_once(": ").unwrap().1;
    assert!(key.len() > 40);
    assert!(!outcome.out.contains(key) && !outcome.err.contains(key));
}

#[tokio::test]
async fn two_rings_have_nothing_in_common() {
    let bench = Bench::new();
    bench.run(&["keyring", "init", "a"]).await.expect(0);
    bench.run(&["keyring", "init", "b"]).await.expect(0);
    let files = bench.files();
    assert_ne!(files["a"], files["b"]);
}

#[tokio::test]
async fn a_file_that_is_there_is_never_touched() {
    let bench = Bench::new();
    bench.run(&["keyring", "init"]).await.expect(0);
    bench.write("empty", "");
    let before = bench.files();
    for file in ["rolecall.keys", "empty"] {
        let again = bench.run(&["keyring", "init", file]).await.expect(1);
        again.says(&["cannot make", file]);
    }
    assert_eq!(bench.files(), before);
}

#[tokio::test]
async fn an_id_that_cannot_be_read_back_makes_no_file() {
    let bench = Bench::new();
    for id in ["", "a b", "a:b", &"x".repeat(33)] {
        bench.run(&["keyring", "init", "--id", id]).await.expect(1);
    }
    assert!(bench.files().is_empty());
}
