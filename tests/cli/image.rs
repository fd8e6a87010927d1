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

#[test]
fn the_image_runs_as_a_numbered_user_with_its_key_ring_apart() {
    let text = dockerfile();
    let line = |word: &str| text.lines().rfind(|line| line.starts_with(word)).unwrap();
    assert_eq!(line("USER"), "USER 65532:65532");
    assert!(text.contains("groupadd --gid 65532 "), "{text}");
    assert!(text.contains("useradd --uid 65532 --gid 65532 "), "{text}");
    let volumes = words(line("VOLUME"));
    let keys = text.split("ROLECALL_KEYS_FILE=").nth(1).unwrap();
    let store = text.split("ROLECALL_STORE__URL=sqlite://").nth(1).unwrap();
    let of = |path: &str| {
        volumes
            .iter()
            .position(|volume| path.starts_with(&format!("{volume}/")))
    };
    assert!(of(keys).is_some() && of(store).is_some(), "{volumes:?}");
    assert_ne!(of(keys), of(store));
    assert!(words(line("HEALTHCHECK")).contains(&"--live".to_owned()));
    assert!(text.contains("strip target/release/rolecall"), "{text}");
    let lock = text.find("COPY Cargo.toml Cargo.lock").unwrap();
    assert!(lock < text.find("COPY . .").unwrap());
}
