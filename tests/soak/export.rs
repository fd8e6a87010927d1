//! An export takes the memory of the directory and no more, however many people are in it: the
//! real binary's own high-water mark, from its first line to its last.

use std::process::Stdio;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    is_full,
    process::{House, peak_kib},
};

/// What writing out may add to the high-water mark of reading the directory.
const ADDED_KIB: u64 = 1024;

/// What one more user may cost in all: the directory at 0.3 KB, and what it is read from.
const USER_BYTES: u64 = 512;

/// By how much two runs of the same differ: threads and their heaps.
const NOISE_KIB: u64 = 8 * 1024;

struct Marks {
    users: u64,
    /// When the first lines were out, and so the directory in memory.
    first_kib: u64,
    /// When all but what fits into a pipe was out.
    last_kib: u64,
}

/// Exports as many users, to a reader that looks at the writer's memory after every piece.
async fn marks(house: &House, account: &str, format: &str) -> Marks {
    let arguments = ["accounts", "export", account, "--format", format];
    let mut command = house.command();
    command.args(arguments).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let id = child.id().unwrap();
    let mut out = child.stdout.take().unwrap();
    let mut piece = vec![0; 1 << 16];
    let mut marks = Marks {
        users: 0,
        first_kib: 0,
        last_kib: 0,
    };
    loop {
        let read = out.read(&mut piece).await.unwrap();
        if read == 0 {
            break;
        }
        marks.users += piece[..read].iter().filter(|byte| **byte == b'\n').count() as u64;
        // It ends once the last piece is in the pipe: what was seen before that counts.
        if let Some(kib) = peak_kib(id) {
            marks.last_kib = kib;
            if marks.first_kib == 0 {
                marks.first_kib = kib;
            }
        }
    }
    assert!(child.wait().await.unwrap().success());
    assert!(marks.first_kib > 0, "it was never seen alive");
    marks
}

async fn house(users: usize) -> (House, String) {
    let house = House::new(users, users / 100, 3).await;
    let announcement = house.simulator.announcement();
    let mut command = house.command();
    command
        .args(["accounts", "link", "--project", "one", "--token-stdin"])
        .args(["--base-url", &announcement.api_base])
        .args(["--owner-id", "o", "--owner-name", "O", "--json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let token = announcement.tokens.system_admin.as_bytes();
    stdin.write_all(token).await.unwrap();
    drop(stdin);
    let output = child.wait_with_output().await.unwrap();
    let linked: Value = serde_json::from_slice(&output.stdout).unwrap();
    let id = linked["id"].as_str().unwrap().to_owned();
    (house, id)
}

#[tokio::test]
async fn an_export_of_ten_times_the_users_takes_their_directory_and_no_more() {
    let (few, many) = if is_full() {
        (10_000, 100_000)
    } else {
        (2_000, 20_000)
    };
    let (small, small_account) = house(few).await;
    let (large, large_account) = house(many).await;
    for format in ["ndjson", "csv"] {
        let small = marks(&small, &small_account, format).await;
        let large = marks(&large, &large_account, format).await;
        for (marks, users) in [(&small, few), (&large, many)] {
            println!(
                "{format}: {} lines, {} KiB at the first, {} KiB at the last",
                marks.users, marks.first_kib, marks.last_kib
            );
            assert!(marks.users >= users as u64);
            let added = marks.last_kib.saturating_sub(marks.first_kib);
            assert!(added <= ADDED_KIB, "writing {users} out added {added} KiB");
        }
        let more_kib = large.last_kib.saturating_sub(small.last_kib);
        let more_users = large.users - small.users;
        println!("{format}: {more_kib} KiB for {more_users} users more");
        let allowed_kib = more_users * USER_BYTES / 1024 + NOISE_KIB;
        assert!(more_kib <= allowed_kib, "more than {allowed_kib} KiB");
    }
}
