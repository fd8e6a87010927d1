//! `rolecall keyring rotate`, `status`, `rewrap` and `retire`: beside a server, without one, killed
//! in between, and on several hosts.

use std::fs;

use rolecall::crypto::{KeyRing, RingFile, Rng};
use serde_json::{Value, json};
use sqlx::{ConnectOptions, Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use tokio::{process::Child, time::timeout};

use crate::{
    bench::{Bench, HANG, Outcome, Running, client},
    schema::Schema,
};

const CONFIG: [&str; 2] = ["--config", "rolecall.toml"];

/// An installation with two projects, and a key of the first.
struct Place {
    bench: Bench,
    key: String,
}

impl Place {
    async fn new() -> Self {
        Self::with("").await
    }

    async fn with(settings: &str) -> Self {
        let bench = Bench::new();
        bench.furnish().await;
        let before = fs::read_to_string(bench.path("rolecall.toml")).unwrap();
        bench.write("rolecall.toml", &format!("{before}{settings}"));
        let mut place = Self {
            bench,
            key: String::new(),
        };
        for project in ["acme", "beta"] {
            place.run(&["projects", "create", project]).await.expect(0);
        }
        let made = place
            .run(&["keys", "create", "--project", "acme", "--json"])
            .await;
        place.key = made.expect(0).json()["api_key"]
            .as_str()
            .unwrap()
            .to_owned();
        place
    }

    async fn run(&self, arguments: &[&str]) -> Outcome {
        self.bench.run(&[arguments, &CONFIG].concat()).await
    }

    async fn keyring(&self, arguments: &[&str]) -> Outcome {
        self.run(&[&["keyring"], arguments].concat()).await
    }

    async fn keyring_json(&self, arguments: &[&str]) -> Value {
        let outcome = self.keyring(&[arguments, &["--json"]].concat()).await;
        outcome.expect(0).json()
    }

    fn ring(&self) -> KeyRing {
        KeyRing::read_file(&self.bench.path("rolecall.keys")).unwrap()
    }

    fn ids(&self) -> Vec<String> {
        self.ring().ids().map(str::to_owned).collect()
    }

    /// Each key's id, state and count of data keys.
    async fn standing(&self) -> Vec<(String, String, u64)> {
        let status = self.keyring_json(&["status"]).await;
        let keys = status["keys"].as_array().unwrap();
        let text = |key: &Value, field: &str| key[field].as_str().unwrap().to_owned();
        keys.iter()
            .map(|key| {
                let count = key["data_keys"].as_u64().unwrap();
                (text(key, "id"), text(key, "state"), count)
            })
            .collect()
    }

    /// Everything stored opens with what is in the file, whoever comes new to it.
    async fn expect_all_open(&self) {
        self.run(&["check"]).await.expect(0);
        let (running, base) = self.bench.serve().await;
        assert_eq!(self.status(&base).await, 200);
        assert!(running.terminate().await.0.success());
    }

    async fn status(&self, base: &str) -> u16 {
        let url = format!("{base}/accounts");
        let reply = client().get(url).bearer_auth(&self.key).send().await;
        reply.unwrap().status().as_u16()
    }

    /// A command on its way.
    fn spawn(&self, arguments: &[&str]) -> Child {
        let mut command = self.bench.command(&[arguments, &CONFIG].concat());
        command.spawn().unwrap()
    }
}

fn key(id: &str, state: &str, data_keys: u64) -> (String, String, u64) {
    (id.to_owned(), state.to_owned(), data_keys)
}

/// Waits until this process waits for the lock on a file.
async fn waits_for_a_file(child: &Child) {
    let id = child.id().unwrap().to_string();
    let waits = || {
        let locks = fs::read_to_string("/proc/locks").unwrap();
        locks.lines().any(|line| {
            let mut words = line.split_whitespace();
            words.any(|word| word == "->") && words.any(|word| word == id)
        })
    };
    until(waits).await;
}

/// Looks again and again.
async fn until(is_so: impl Fn() -> bool) {
    let looked = async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    };
    timeout(HANG, looked).await.unwrap();
}

#[tokio::test]
async fn without_a_server_one_command_does_it_all() {
    let place = Place::new().await;
    assert_eq!(place.standing().await, [key("k1", "active", 2)]);
    let rotated = place.keyring_json(&["rotate"]).await;
    assert_eq!(
        rotated,
        json!({
            "file": "rolecall.keys", "key_id": "k2", "state": "active", "awaited_processes": 0,
            "rewrapped": 2, "left": 0, "locked": [],
        })
    );
    assert_eq!(place.ids(), ["k2", "k1"]);
    assert_eq!(place.bench.mode("rolecall.keys"), 0o600);
    let expected = [key("k2", "active", 2), key("k1", "former", 0)];
    assert_eq!(place.standing().await, expected);
    place.expect_all_open().await;

    let retired = place.keyring_json(&["retire", "k1"]).await;
    let expected = json!({ "key_id": "k1", "state": "retired", "in_ring": false });
    assert_eq!(retired, expected);
    assert_eq!(place.ids(), ["k2"]);
    assert_eq!(place.bench.mode("rolecall.keys"), 0o600);
    let expected = [key("k2", "active", 2), key("k1", "retired", 0)];
    assert_eq!(place.standing().await, expected);
    place.expect_all_open().await;

    // And again, with a name of one's own; one that was used is never used again.
    place
        .keyring(&["rotate", "--id", "k1"])
        .await
        .expect(1)
        .says(&["`k1` before"]);
    let rotated = place.keyring_json(&["rotate", "--id", "y2027"]).await;
    assert_eq!(rotated["state"], "active");
    assert_eq!(place.keyring_json(&["rotate"]).await["key_id"], "k3");
    assert_eq!(place.ids(), ["k3", "y2027", "k2"]);
    place.keyring(&["retire", "k2"]).await.expect(0);
    place.keyring(&["retire", "y2027"]).await.expect(0);
    place.expect_all_open().await;
}

#[tokio::test]
async fn a_server_takes_a_new_key_up_by_itself_and_drops_a_retired_one() {
    let place = Place::new().await;
    let (mut running, base) = place.bench.serve().await;
    running.err_line_with("this ring key encrypts").await;
    let rotated = place.keyring_json(&["rotate"]).await;
    assert_eq!(rotated["state"], "active", "{rotated}");
    let line = running.err_line_with("key ring read anew").await;
    assert!(line.contains("k2 k1"), "{line}");
    assert_eq!(place.status(&base).await, 200);
    place.keyring(&["retire", "k1"]).await.expect(0);
    let line = running.err_line_with("key ring read anew").await;
    assert!(line.contains("k2") && !line.contains("k1"), "{line}");
    assert_eq!(place.status(&base).await, 200);
    let expected = [key("k2", "active", 2), key("k1", "retired", 0)];
    assert_eq!(place.standing().await, expected);
    let status = place.keyring_json(&["status"]).await;
    assert_eq!(status["processes"], 1);
    assert_eq!(status["keys"][0]["processes"], 1);
    running.terminate().await;
}

#[tokio::test]
async fn what_people_edit_is_taken_if_it_fits_and_no_sooner() {
    let place = Place::new().await;
    let (mut running, base) = place.bench.serve().await;
    let text = |ring: &KeyRing| ring.to_text().to_string();
    let old = place.ring();
    let new = KeyRing::generate("mine", &Rng::system()).unwrap();
    for (torn, says) in [
        (format!("{}k2: half", text(&old)), "line"),
        (text(&new), "`k1`"),
        (String::new(), "no key"),
    ] {
        place.bench.write("rolecall.keys", &torn);
        let line = running.err_line_with("is not taken").await;
        assert!(line.contains(says), "{line}");
        assert_eq!(place.status(&base).await, 200);
    }
    // Said again to whoever asks.
    running.hang_up();
    running.err_line_with("is not taken").await;

    place
        .bench
        .write("rolecall.keys", &text(&new.then(&old).unwrap()));
    running.err_line_with("data keys wrapped anew").await;
    let expected = [key("mine", "active", 2), key("k1", "former", 0)];
    assert_eq!(place.standing().await, expected);
    assert_eq!(place.status(&base).await, 200);
    running.terminate().await;
}

#[tokio::test]
async fn a_key_that_is_needed_is_not_retired() {
    let place = Place::new().await;
    let refused = async |id: &str, says: &[&str]| {
        let before = place.bench.files();
        place.keyring(&["retire", id]).await.expect(1).says(says);
        assert_eq!(
            place.bench.files()["rolecall.keys"],
            before["rolecall.keys"]
        );
    };
    refused("k1", &["first of the ring", "rolecall keyring rotate"]).await;
    refused("k9", &["no key `k9`", "rolecall keyring status"]).await;

    // By hand, as it was once done: the first project that is made uses the new key.
    let new = KeyRing::generate("k2", &Rng::system()).unwrap();
    let ring = new.then(&place.ring()).unwrap();
    place.bench.write("rolecall.keys", &ring.to_text());
    place.run(&["projects", "create", "gamma"]).await.expect(0);
    refused("k1", &["wraps 2 data keys", "rolecall keyring rewrap"]).await;
    // Not even by somebody whose file has another first.
    let turned = ring.promote("k1").unwrap();
    place.bench.write("rolecall.keys", &turned.to_text());
    refused("k2", &["`k2` encrypts"]).await;

    let moved = place.keyring_json(&["rewrap"]).await;
    let expected = json!({
        "key_id": "k2", "awaited_processes": 0, "rewrapped": 2, "left": 0, "locked": [],
    });
    assert_eq!(moved, expected);
    let activated = place.keyring_json(&["rotate", "--activate", "k2"]).await;
    assert_eq!(activated["state"], "active");
    assert_eq!(place.ids(), ["k2", "k1"]);
    place.keyring(&["retire", "k1"]).await.expect(0);
    place.keyring(&["retire", "k1"]).await.expect(0);
    place.expect_all_open().await;
}

#[tokio::test]
async fn in_two_steps_a_key_is_added_and_then_made_the_first() {
    let place = Place::new().await;
    let (running, base) = place.bench.serve().await;
    let added = place.keyring_json(&["rotate", "--add-only"]).await;
    assert_eq!(
        (&added["key_id"], &added["state"]),
        (&json!("k2"), &json!("added"))
    );
    assert_eq!(place.ids(), ["k1", "k2"]);
    let expected = [key("k1", "active", 2), key("k2", "added", 0)];
    assert_eq!(place.standing().await, expected);

    let activated = place.keyring_json(&["rotate", "--activate", "k2"]).await;
    assert_eq!(activated["state"], "active", "{activated}");
    assert_eq!(place.ids(), ["k2", "k1"]);
    assert_eq!(place.status(&base).await, 200);
    for (id, says) in [
        ("k7", &["no key `k7`"][..]),
        ("k1", &["followed by `k2`", "rolecall keyring rotate"]),
    ] {
        let refused = place.keyring(&["rotate", "--activate", id]).await;
        refused.expect(1).says(says);
    }
    running.terminate().await;
    // What was added and is not wanted is taken out again, for good.
    place.keyring(&["rotate", "--add-only"]).await.expect(0);
    let three = place.ring();
    place.keyring(&["retire", "k3"]).await.expect(0);
    assert_eq!(place.ids(), ["k2", "k1"]);
    place.bench.write("rolecall.keys", &three.to_text());
    let refused = place.keyring(&["rotate", "--activate", "k3"]).await;
    refused.expect(1).says(&["`k3` was retired"]);
}

#[tokio::test]
async fn a_ring_from_the_environment_is_left_to_whoever_set_it() {
    let place = Place::new().await;
    let old = place.ring();
    let new = KeyRing::generate("k2", &Rng::system()).unwrap();
    fs::remove_file(place.bench.path("rolecall.keys")).unwrap();
    let run = async |ring: &KeyRing, arguments: &[&str]| {
        let mut command = place.bench.command(&[arguments, &CONFIG].concat());
        let output = command.env("ROLECALL_KEYS", ring.to_text().as_str());
        let output = output.output().await.unwrap();
        Outcome {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    };
    run(&old, &["keyring", "rotate"])
        .await
        .expect(1)
        .says(&["ROLECALL_KEYS", "start every process again"]);
    let both = new.then(&old).unwrap();
    let moved = run(&both, &["keyring", "rewrap", "--json"]).await;
    assert_eq!(moved.expect(0).json()["rewrapped"], 2);
    let retired = run(&both, &["keyring", "retire", "k1"]).await.expect(0);
    assert!(retired.out.contains("Take it out of `keys`"), "{retired:?}");
    run(&new, &["check"]).await.expect(0);
    run(&old, &["check"]).await.expect(78);
    assert!(!place.bench.path("rolecall.keys").exists());

    // The signal that would have the file looked at ends nothing.
    let mut command = place.bench.command(&[&["serve"][..], &CONFIG].concat());
    command.env("ROLECALL_KEYS", new.to_text().as_str());
    let mut running = Running::of(command.spawn().unwrap());
    let line = running.err_line_with("listening").await;
    running.hang_up();
    running.err_line_with("start again to change it").await;
    let line: Value = serde_json::from_str(&line).unwrap();
    let base = format!("http://127.0.0.1:{}", line["port"]);
    assert_eq!(place.status(&base).await, 200);
    assert!(running.terminate().await.0.success());
}

#[tokio::test]
async fn no_key_is_ever_printed_or_logged() {
    let place = Place::new().await;
    let (mut running, _) = place.bench.serve().await;
    let mut said = String::new();
    for arguments in [
        &["keyring", "rotate"][..],
        &["keyring", "rotate", "--add-only", "--json"],
        &["keyring", "status"],
        &["keyring", "status", "--json"],
        &["keyring", "rewrap"],
        &["keyring", "retire", "k1"],
    ] {
        let outcome = place.run(arguments).await.expect(0);
        said.extend([outcome.out, outcome.err]);
    }
    said += &running.err_line_with("data keys wrapped anew").await;
    said += &running.err_line_with("key ring read anew").await;
    let text = place.ring().to_text();
    let keys: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(keys.len(), 2);
    for line in keys {
        let (_, secret) = line.split_once(": ").unwrap();
        assert!(secret.len() > 40 && !said.contains(secret));
    }
    running.terminate().await;
}

#[tokio::test]
async fn with_a_wrong_ring_every_command_exits_with_78_and_changes_not_a_byte() {
    let place = Place::new().await;
    let ours = place.ring();
    // As a kill leaves it: the newest of it only in the log.
    let (running, _) = place.bench.serve().await;
    place.run(&["projects", "create", "gamma"]).await.expect(0);
    running.kill().await;
    assert!(
        fs::metadata(place.bench.path("rolecall.db-wal"))
            .unwrap()
            .len()
            > 0
    );

    let digest = || {
        let mut files = place.bench.files();
        // Where readers find each other; nothing is stored in it.
        files.remove("rolecall.db-shm");
        files
    };
    for id in ["k1", "k2"] {
        let stranger = KeyRing::generate(id, &Rng::system()).unwrap();
        place.bench.write("rolecall.keys", &stranger.to_text());
        let before = digest();
        for arguments in [
            &["serve"][..],
            &["keyring", "rotate"],
            &["keyring", "rotate", "--add-only"],
            &["keyring", "rotate", "--activate", "k1"],
            &["keyring", "status"],
            &["keyring", "rewrap"],
            &["keyring", "retire", "k1"],
            &["projects", "create", "delta"],
            &["projects", "delete", "acme", "--yes"],
        ] {
            let outcome = place.run(arguments).await.expect(78);
            outcome.says(&["`k1`", "Nothing was changed"]);
            assert!(digest() == before, "{arguments:?} changed a byte");
        }
    }
    place.bench.write("rolecall.keys", &ours.to_text());
    assert_eq!(place.standing().await, [key("k1", "active", 3)]);
    place.expect_all_open().await;
}

#[tokio::test]
async fn a_command_that_is_killed_between_two_steps_is_simply_run_again() {
    let place = Place::new().await;
    let file = place.bench.path("rolecall.keys");

    // Before the file is read.
    let held = RingFile::lock(&file).unwrap();
    let mut killed = place.spawn(&["keyring", "rotate"]);
    waits_for_a_file(&killed).await;
    killed.kill().await.unwrap();
    drop(held);
    assert_eq!(place.ids(), ["k1"]);
    place.expect_all_open().await;

    // With half a file written beside it.
    place
        .bench
        .write("rolecall.keys.new", "# Rolecall's key ring. Who");
    place.expect_all_open().await;

    // With the file replaced, and before the database has heard of it.
    let held = RingFile::lock(&file).unwrap();
    let mut killed = place.spawn(&["keyring", "rotate"]);
    waits_for_a_file(&killed).await;
    let mut writer = connect(&place).await;
    sqlx::query("begin immediate")
        .execute(&mut writer)
        .await
        .unwrap();
    drop(held);
    until(|| place.ids() != ["k1"]).await;
    killed.kill().await.unwrap();
    writer.close().await.unwrap();
    assert!(!place.bench.path("rolecall.keys.new").exists());
    let expected = [key("k2", "added", 0), key("k1", "active", 2)];
    assert_eq!(place.standing().await, expected);
    // It goes on with that key, and makes no other.
    let rotated = place.keyring_json(&["rotate"]).await;
    assert_eq!(
        (&rotated["key_id"], &rotated["rewrapped"]),
        (&json!("k2"), &json!(2))
    );
    assert_eq!(place.ids(), ["k2", "k1"]);

    // With the key retired, and still in the file.
    let held = RingFile::lock(&file).unwrap();
    let mut killed = place.spawn(&["keyring", "retire", "k1"]);
    waits_for_a_file(&killed).await;
    killed.kill().await.unwrap();
    drop(held);
    assert_eq!(place.ids(), ["k2", "k1"]);
    let expected = [key("k2", "active", 2), key("k1", "retired", 0)];
    assert_eq!(place.standing().await, expected);
    place.expect_all_open().await;
    place.keyring(&["retire", "k1"]).await.expect(0);
    assert_eq!(place.ids(), ["k2"]);
    place.expect_all_open().await;
}

async fn connect(place: &Place) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(place.bench.path("rolecall.db"));
    options.connect().await.unwrap()
}

#[tokio::test]
async fn a_backup_needs_the_keys_of_its_time_and_goes_on_with_newer_ones() {
    let place = Place::new().await;
    let then = place.ring();
    place.run(&["backup", "backup.db"]).await.expect(0);
    place.keyring(&["rotate"]).await.expect(0);
    place.keyring(&["retire", "k1"]).await.expect(0);
    place.run(&["projects", "create", "later"]).await.expect(0);

    // As docs/OPERATIONS.md has it.
    for suffix in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(place.bench.path(&format!("rolecall.db{suffix}")));
    }
    fs::rename(
        place.bench.path("backup.db"),
        place.bench.path("rolecall.db"),
    )
    .unwrap();
    for command in ["check", "serve"] {
        let outcome = place.run(&[command]).await.expect(78);
        assert!(format!("{outcome:?}").contains("`k1`"), "{outcome:?}");
    }
    let both = place.ring().then(&then).unwrap();
    place.bench.write("rolecall.keys", &both.to_text());
    place.run(&["check"]).await.expect(0);
    let (mut running, base) = place.bench.serve().await;
    running.err_line_with("data keys wrapped anew").await;
    assert_eq!(place.status(&base).await, 200);
    place.keyring(&["retire", "k1"]).await.expect(0);
    assert_eq!(place.status(&base).await, 200);
    running.terminate().await;
    let expected = [key("k2", "active", 2), key("k1", "retired", 0)];
    assert_eq!(place.standing().await, expected);
    place.expect_all_open().await;
}

#[tokio::test]
async fn many_rotations_at_once_lose_no_key() {
    let place = Place::new().await;
    let rotate = || place.keyring_json(&["rotate", "--add-only"]);
    let all = tokio::join!(rotate(), rotate(), rotate(), rotate());
    let mut ids: Vec<_> = [all.0, all.1, all.2, all.3]
        .iter()
        .map(|each| each["key_id"].as_str().unwrap().to_owned())
        .collect();
    ids.sort_unstable();
    assert_eq!(ids, ["k2", "k3", "k4", "k5"]);
    assert_eq!(place.ids(), ["k1", "k2", "k3", "k4", "k5"]);
    place.expect_all_open().await;
}

#[tokio::test]
async fn hosts_with_files_of_their_own_never_fail_whatever_the_order() {
    let Some(schema) = Schema::new().await else {
        return;
    };
    // Each host has its journal where it is started.
    let url = schema.url();
    let settings = format!("\n[store]\nurl = {url:?}\njournal_required = false\n");
    let here = Place::with(&settings).await;
    let there = Bench::new();
    there.furnish().await;
    let text = fs::read_to_string(here.bench.path("rolecall.toml")).unwrap();
    there.write("rolecall.toml", &text);
    let give = || there.write("rolecall.keys", &here.ring().to_text());
    give();
    let (mut one, one_base) = here.bench.serve().await;
    let (mut two, two_base) = there.serve().await;
    let both_answer = async || {
        for base in [&one_base, &two_base] {
            assert_eq!(here.status(base).await, 200);
        }
    };

    // All at once on one host: the key is not used before the other has it.
    let rotated = here.keyring_json(&["rotate"]).await;
    let expected = (&json!("first"), &json!(1));
    assert_eq!((&rotated["state"], &rotated["awaited_processes"]), expected);
    let line = one.err_line_with("is not used before").await;
    assert!(line.contains("k2"), "{line}");
    let status = here.keyring_json(&["status"]).await;
    assert_eq!(status["keys"][0]["processes"], 1, "{status}");
    both_answer().await;
    give();
    // Whichever of the two comes first.
    let expected = [key("k2", "active", 2), key("k1", "former", 0)];
    let moved = async {
        while here.standing().await != expected {
            both_answer().await;
        }
    };
    timeout(HANG, moved).await.unwrap();
    here.keyring(&["retire", "k1"]).await.expect(0);
    both_answer().await;
    let retire = ["keyring", "retire", "k1", "--config", "rolecall.toml"];
    there.run(&retire).await.expect(0);
    let ring = KeyRing::read_file(&there.path("rolecall.keys")).unwrap();
    assert_eq!(ring, here.ring());

    // In two steps; the second is refused until the first is done everywhere.
    here.keyring(&["rotate", "--add-only"]).await.expect(0);
    let refused = here.keyring(&["rotate", "--activate", "k3"]).await;
    refused
        .expect(1)
        .says(&["1 is of 2", "Nothing was changed"]);
    give();
    let activated = here.keyring_json(&["rotate", "--activate", "k3"]).await;
    assert_eq!(activated["state"], "active", "{activated}");
    two.hang_up();
    two.err_line_with("was followed by another").await;
    both_answer().await;
    let activate = ["keyring", "rotate", "--activate", "k3", "--json"];
    let there_too = there.run(&[&activate[..], &CONFIG].concat()).await;
    assert_eq!(there_too.expect(0).json()["state"], "active");
    two.err_line_with("this ring key encrypts").await;
    both_answer().await;
    one.terminate().await;
    two.terminate().await;
}
