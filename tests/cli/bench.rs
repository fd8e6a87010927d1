//! A test's own folder, and the binary run in it with nothing of ours in its environment.

use std::{
    collections::BTreeMap,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

/// A time-out that only a hang can reach.
pub const HANG: Duration = Duration::from_secs(60);

/// A folder to run in, gone with the test.
pub struct Bench {
    folder: TempDir,
}

/// How a run ended.
#[derive(Debug)]
pub struct Outcome {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Outcome {
    /// What was printed, if the exit code is the expected one.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        let other = timestamps(&self.out).find(|(_, is_in_form)| !is_in_form);
        assert_eq!(other, None, "{self:?}");
        self
    }

    /// The one line of JSON that was printed.
    #[track_caller]
    pub fn json(&self) -> Value {
        assert_eq!(self.out.lines().count(), 1, "{self:?}");
        serde_json::from_str(&self.out).unwrap()
    }

    /// Asserts that each of these words was said on standard error.
    #[track_caller]
    pub fn says(self, words: &[&str]) -> Self {
        for word in words {
            assert!(self.err.contains(word), "no {word}: {self:?}");
        }
        self
    }
}

/// Each timestamp in a text, and whether it has three digits of a fraction and `Z`.
pub fn timestamps(text: &str) -> impl Iterator<Item = (&str, bool)> {
    let has_form = |text: &[u8], form: &[u8]| {
        text.len() == form.len()
            && text.iter().zip(form).all(|(byte, form)| match form {
                b'0' => byte.is_ascii_digit(),
                form => byte == form,
            })
    };
    let places = 0..text.len().saturating_sub(19);
    places.filter_map(move |at| {
        let found = text.as_bytes().get(at..at + 19)?;
        has_form(found, b"0000-00-00T00:00:00").then_some(())?;
        let rest = text.as_bytes().get(at + 19..at + 24);
        let is_in_form = rest.is_some_and(|rest| has_form(rest, b".000Z"));
        Some((&text[at..at + 19], is_in_form))
    })
}

impl Bench {
    pub fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// Who may read and write a file, as in `chmod`.
    pub fn mode(&self, name: &str) -> u32 {
        let metadata = std::fs::metadata(self.path(name)).unwrap();
        metadata.permissions().mode() & 0o777
    }

    /// Sets that.
    pub fn set_mode(&self, name: &str, mode: u32) {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(self.path(name), mode).unwrap();
    }

    /// Writes a key ring, for its owner alone.
    pub fn write_ring(&self, text: &str) {
        self.write("rolecall.keys", text);
        self.set_mode("rolecall.keys", 0o600);
    }

    /// `rolecall check` as a user who is not above permissions, behind what a shell is told first.
    /// Gives the exit code, standard error and what was printed.
    pub async fn check_as_nobody(&self, before: &str) -> (Option<i32>, String, String) {
        const NOBODY: u32 = 65_534;
        let mut command = Command::new("sh");
        let script = format!("{before} exec \"$0\" check --config rolecall.toml");
        command
            .args(["-c", &script, env!("CARGO_BIN_EXE_rolecall")])
            .current_dir(self.folder.path())
            .env_clear();
        if rustix::process::geteuid().is_root() {
            for entry in std::fs::read_dir(self.folder.path()).unwrap() {
                let path = entry.unwrap().path();
                std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
            }
            std::os::unix::fs::chown(self.folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();
            command.uid(NOBODY).gid(NOBODY);
        }
        let output = timeout(HANG, command.output()).await.unwrap().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (
            output.status.code(),
            text(output.stderr),
            text(output.stdout),
        )
    }

    /// Every file and its bytes.
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        self.files_in("")
    }

    /// Those in a folder, and in the folders in it, by their paths.
    fn files_in(&self, folder: &str) -> BTreeMap<String, Vec<u8>> {
        std::fs::read_dir(self.path(folder))
            .unwrap()
            .flat_map(|entry| {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_str().unwrap();
                let name = format!("{folder}{name}");
                if path.is_dir() {
                    return self.files_in(&format!("{name}/"));
                }
                BTreeMap::from([(name, std::fs::read(path).unwrap())])
            })
            .collect()
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rolecall"));
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Runs a command to its end.
    pub async fn run(&self, arguments: &[&str]) -> Outcome {
        self.run_with(arguments, b"").await
    }

    /// Runs a command to its end, with this on its standard input.
    pub async fn run_with(&self, arguments: &[&str], input: &[u8]) -> Outcome {
        let mut command = self.command(arguments);
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // A command that wants no input may be gone before it was sent.
        let _ = stdin.write_all(input).await;
        drop(stdin);
        let output = timeout(HANG, child.wait_with_output()).await;
        let output = output.unwrap().unwrap();
        Outcome {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// A settings file, a key ring, and what it takes to serve on a free port.
    pub async fn furnish(&self) {
        self.write(
            "rolecall.toml",
            "[server]\nlisten = \"127.0.0.1:0\"\nworkers = 1\nlame_duck_seconds = 0\n\n[log]\nformat = \"json\"\n\n\
             [provider]\nrate_limit = 0\nloopback_base_urls = true\n",
        );
        self.run(&["keyring", "init"]).await.expect(0);
    }

    /// `rolecall serve` of a furnished bench, once it listens, and its address.
    pub async fn serve(&self) -> (Running, String) {
        let mut command = self.command(&["serve", "--config", "rolecall.toml"]);
        let mut running = Running::of(command.spawn().unwrap());
        let line = running.err_line_with("listening").await;
        let line: Value = serde_json::from_str(&line).unwrap();
        (running, format!("http://127.0.0.1:{}", line["port"]))
    }
}

/// A process on its way; killed when dropped.
pub struct Running {
    child: Child,
    out: BufReader<tokio::process::ChildStdout>,
    err: BufReader<tokio::process::ChildStderr>,
}

impl Running {
    pub fn of(mut child: Child) -> Self {
        Self {
            out: BufReader::new(child.stdout.take().unwrap()),
            err: BufReader::new(child.stderr.take().unwrap()),
            child,
        }
    }

    /// The next line on standard output. If there is none, what was said instead.
    pub async fn out_line(&mut self) -> String {
        let mut line = String::new();
        timeout(HANG, self.out.read_line(&mut line))
            .await
            .unwrap()
            .unwrap();
        if line.is_empty() {
            self.err.read_to_string(&mut line).await.unwrap();
            panic!("nothing was printed: {line}");
        }
        line
    }

    /// The first line on standard error that has `word` in it.
    pub async fn err_line_with(&mut self, word: &str) -> String {
        let mut said = String::new();
        loop {
            let from = said.len();
            let read = timeout(HANG, self.err.read_line(&mut said)).await.unwrap();
            assert_ne!(read.unwrap(), 0, "it ended, saying: {said}");
            if said[from..].contains(word) {
                return said[from..].to_owned();
            }
        }
    }

    /// Types this on its standard input, which stays open.
    pub async fn type_in(&mut self, text: &str) {
        let stdin = self.child.stdin.as_mut().unwrap();
        stdin.write_all(text.as_bytes()).await.unwrap();
        stdin.flush().await.unwrap();
    }

    /// Waits for its end, with nothing more on its standard input: exit code, and what else it
    /// printed and said.
    pub async fn end(mut self) -> (Option<i32>, String, String) {
        drop(self.child.stdin.take());
        let (mut out, mut err) = (String::new(), String::new());
        let reading = async {
            tokio::join!(
                self.out.read_to_string(&mut out),
                self.err.read_to_string(&mut err)
            )
        };
        let (read_out, read_err) = timeout(HANG, reading).await.unwrap();
        read_out.unwrap();
        read_err.unwrap();
        let status = timeout(HANG, self.child.wait()).await.unwrap().unwrap();
        (status.code(), out, err)
    }

    /// The process's number.
    pub fn id(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// SIGHUP.
    pub fn hang_up(&self) {
        self.signal(Signal::HUP);
    }

    fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id().unwrap()).unwrap();
        kill_process(Pid::from_raw(id).unwrap(), signal).unwrap();
    }

    /// SIGKILL.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Ctrl-C.
    pub fn interrupt(&self) {
        self.signal(Signal::INT);
    }

    /// SIGTERM.
    pub fn ask_to_end(&self) {
        self.signal(Signal::TERM);
    }

    /// Asks the process to end, as an init system does; how it ended, and what else it printed.
    pub async fn terminate(mut self) -> (ExitStatus, String) {
        self.signal(Signal::TERM);
        let status = timeout(HANG, self.child.wait()).await.unwrap().unwrap();
        let mut rest = String::new();
        self.out.read_to_string(&mut rest).await.unwrap();
        (status, rest)
    }
}

/// A client for what is served here.
pub fn client() -> reqwest::Client {
    // The first test to ask sets it for all.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().timeout(HANG).build().unwrap()
}
