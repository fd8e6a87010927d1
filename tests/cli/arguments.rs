//! What every command has in common: help, exit codes, and output that nobody reads.

use crate::bench::Bench;

#[tokio::test]
async fn the_help_names_every_command() {
    let help = Bench::new().run(&["--help"]).await.expect(0).out;
    for command in [
        "demo", "serve", "projects", "keys", "accounts", "backup", "check", "health", "keyring",
        "openapi",
    ] {
        assert!(
            help.contains(&format!("\n  {command}")),
            "{command}: {help}"
        );
    }
}

#[tokio::test]
async fn a_command_line_that_is_wrong_exits_with_2() {
    let bench = Bench::new();
    for wrong in [
        &[][..],
        &["frobnicate"],
        &["serve", "--prot", "80"],
        &["demo", "--users", "many"],
        &["keyring"],
        &["keys", "create"],
        &["backup"],
        &["check", "--token-stdin"],
        &["check", "--region", "eu"],
        &["check", "--token-stdin", "--region", "moon"],
        &["health", "--url", "nowhere"],
        &["accounts", "show"],
        &["accounts", "export", "x"],
        &["accounts", "export", "x", "--format", "xlsx"],
        &[
            "keys",
            "create",
            "--project",
            "p",
            "--scopes",
            "iam:read,all",
        ],
        &["openapi", "surplus"],
    ] {
        let outcome = bench.run(wrong).await.expect(2);
        assert!(outcome.out.is_empty(), "{wrong:?}: {outcome:?}");
        assert!(!outcome.err.is_empty(), "{wrong:?}");
    }
    assert!(bench.files().is_empty());
}

#[tokio::test]
async fn the_version_is_the_package_s() {
    let version = Bench::new().run(&["--version"]).await.expect(0).out;
    assert_eq!(
        version.trim(),
        concat!("rolecall ", env!("CARGO_PKG_VERSION"))
    );
}

#[tokio::test]
async fn a_fault_that_nobody_reads_keeps_its_exit_code() {
    let bench = Bench::new();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = bench.command(&["accounts", "list", "--config", "absent.toml"]);
    let output = command.stderr(writer).output().await.unwrap();
    assert_eq!(output.status.code(), Some(78), "{output:?}");
}

#[tokio::test]
async fn output_that_nobody_reads_is_a_quiet_end() {
    let bench = Bench::new();
    for arguments in [&["openapi"][..], &["keyring", "init", "--json"]] {
        // As after `| head`: the reader is gone before the first byte.
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = bench.command(arguments).stdout(writer).output();
        let output = output.await.unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert!(output.stderr.is_empty(), "{output:?}");
    }
}
