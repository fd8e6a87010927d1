//! Java's own HTTP client, as it is by default: it offers HTTP/2 with every request (`Upgrade: h2c`),
//! and loses none.

use std::{path::Path, process::Stdio, time::Duration};

use tokio::{process::Command, time::timeout};

use crate::{is_full, process::House};

/// Calls of each of four kinds, once one by one and once side by side.
const CALLS: usize = 150;

/// By when they must be done, at the very latest.
const NEVER: Duration = Duration::from_secs(300);

/// It takes a JDK, and half a minute: at full size only.
#[tokio::test(flavor = "multi_thread")]
async fn the_default_client_of_a_jdk_loses_no_call() {
    if !is_full() {
        return;
    }
    let house = House::new(250, 10, 1).await;
    let mut served = house.serve();
    let account = house.linked(&mut served).await;
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/soak/java/Calls.java");
    let calls = Command::new("java")
        .arg(source)
        .args([&house.base(), &house.key, &account, &CALLS.to_string()])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = timeout(NEVER, calls).await.expect("it ends in time");
    let output =
        output.expect("a JDK of version 11 or later is installed, with `java` on the path");
    let out = String::from_utf8_lossy(&output.stdout);
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{out}\n{err}");
    let expected = format!("answered={} lost=0", 8 * CALLS);
    assert_eq!(out.trim(), expected, "{err}");
    served.kill().await;
}
