//! The Dockerfile, as far as it can be tried without an engine: that its settings and commands are
//! ones that there are.

use crate::bench::Bench;

fn dockerfile() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/Dockerfile");
    let text = std::fs::read_to_string(path).unwrap();
    text.replace("\\\n", " ")
}

/// The words of a command in its exec form.
fn words(line: &str) -> Vec<String> {
    let array = &line[line.find('[').unwrap()..];
    serde_json::from_str(array).unwrap()
}

#[tokio::test]
async fn the_image_runs_commands_that_there_are() {
    let text = dockerfile();
    let line = |word: &str| text.lines().find(|line| line.starts_with(word)).unwrap();
    let entry = words(line("ENTRYPOINT"));
    let health = words(line("HEALTHCHECK"));
    let (program, health) = health.split_first().unwrap();
    assert_eq!(std::slice::from_ref(program), entry);
    for arguments in [health.to_vec(), words(line("CMD"))] {
        let mut arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        arguments.push("--help");
        Bench::new().run(&arguments).await.expect(0);
    }
}

#[tokio::test]
async fn the_image_sets_settings_that_there_are() {
    let text = dockerfile();
    let settings = text.lines().find_map(|line| line.strip_prefix("ENV "));
    let settings: Vec<_> = settings.unwrap().split_whitespace().collect();
    assert!(settings.len() > 2, "{settings:?}");
    let bench = Bench::new();
    let mut command = bench.command(&["check", "--json"]);
    command.envs(
        settings
            .iter()
            .map(|setting| setting.split_once('=').unwrap()),
    );
    let output = command.output().await.unwrap();
    let line: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    // There is no key ring where the image has it; the settings themselves are good.
    let first = &line["checks"][0];
    assert_eq!(
        (&first["name"], &first["state"]),
        (&"configuration".into(), &"ok".into())
    );
}
