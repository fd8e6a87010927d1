//! The binary: what it prints, and how it ends.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

fn run(arguments: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_smartsheet-simulator"))
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill")
        .args([format!("-{name}"), child.id().to_string()])
        .status()
        .unwrap();
    assert!(sent.success());
}

#[test]
fn with_json_it_prints_one_line_and_ends_on_a_signal() {
    for name in ["TERM", "INT"] {
        let mut child = run(&[
            "--port",
            "0",
            "--json",
            "--users",
            "50",
            "--redirect-url",
            "http://127.0.0.1:1/back",
        ]);
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        let line: Value = serde_json::from_str(&line).unwrap();
        let keys = |value: &Value| {
            value
                .as_object()
                .unwrap()
                .keys()
                .cloned()
                .collect::<Vec<_>>()
        };
        assert_eq!(
            keys(&line),
            [
                "api_base",
                "authorize_url",
                "control_url",
                "oauth_client",
                "tokens"
            ]
        );
        assert_eq!(
            keys(&line["tokens"]),
            [
                "group_admin",
                "member",
                "no_read_users",
                "revoked",
                "system_admin"
            ]
        );
        assert_eq!(
            keys(&line["oauth_client"]),
            ["client_id", "client_secret", "redirect_url"]
        );
        assert_eq!(
            line["oauth_client"]["redirect_url"],
            "http://127.0.0.1:1/back"
        );
        signal(&child, name);
        assert!(child.wait().unwrap().success());
        let mut rest = String::new();
        out.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "");
    }
}

#[test]
fn without_json_it_says_what_to_try() {
    let mut child = run(&["--port", "0"]);
    let out = BufReader::new(child.stdout.take().unwrap());
    let last = out
        .lines()
        .map(Result::unwrap)
        .find(|line| line.starts_with("Try: "))
        .unwrap();
    assert!(last.contains("/2.0/users/me"));
    signal(&child, "TERM");
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_closed_pipe_is_a_quiet_end() {
    let mut child = run(&["--port", "0", "--json", "--users", "20000"]);
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}

#[test]
fn a_port_that_is_taken_is_said_so() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let output = run(&["--port", &port]).wait_with_output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8(output.stderr).unwrap().contains(&port));
}
