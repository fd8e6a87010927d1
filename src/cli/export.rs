//! `rolecall accounts export`: writes all users of the current directory to a file or a pipe.
//!
//! Users are written one at a time, so memory use does not grow with the export beyond the
//! directory itself. The version, its age and the reason why it may be stale go to standard error,
//! never into the data. `docs/OPERATIONS.md` lists the columns.

use std::{
    borrow::Cow,
    io::{self, BufWriter, IsTerminal, Write},
    path::PathBuf,
};

use clap::{Args, ValueEnum};
use csv::{Terminator, WriterBuilder};
use jiff::Timestamp;
use serde::Serialize;

use super::{
    ConfigFile, Failure,
    accounts::{closing, open},
    file::AtomicFile,
    note, say,
};
use crate::{
    gateway::admin::{InForce, Operator},
    model::{
        schema::{GroupEntry, RoleEntry, User},
        timestamp::display,
    },
};

#[derive(Args)]
pub struct Arguments {
    /// The account's id
    account: String,
    /// The output format
    #[arg(long, value_enum)]
    format: ExportFormat,
    /// The file to write atomically; standard output if absent
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    file: ConfigFile,
}

#[derive(Clone, Copy, ValueEnum)]
enum ExportFormat {
    /// One row per user, for spreadsheets
    Csv,
    /// One line per user: the record of GET /iam/users?expand=roles,groups
    Ndjson,
}

pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    // Opened first, so that a missing folder is reported before the directory is loaded.
    let draft = arguments.output.as_deref().map(AtomicFile::replacing);
    let draft = draft.transpose()?;
    let operator = open(&arguments.file).await?;
    closing(&operator, export(&operator, &arguments, draft)).await
}

async fn export(
    operator: &Operator,
    arguments: &Arguments,
    draft: Option<AtomicFile>,
) -> Result<(), Failure> {
    let own = operator.account(&arguments.account).await?;
    let Some(directory) = operator.served(&own).await? else {
        return Err(Failure::Other(format!(
            "this account has no directory yet: `rolecall serve` or `rolecall accounts walk {}` \
             makes its first walk",
            arguments.account
        )));
    };
    tell(&directory);
    match draft {
        Some(draft) => write(arguments.format, &directory, draft)?.finish(),
        // On a terminal, control characters in names are replaced.
        None if io::stdout().is_terminal() => {
            let display = write(arguments.format, &directory, Vec::new())?;
            let display = String::from_utf8_lossy(&display).replace("\r\n", "\n");
            say(display.trim_end())
        }
        None => write(arguments.format, &directory, io::stdout().lock()).map(drop),
    }
}

fn tell(directory: &InForce) {
    let stale = match directory.stale {
        Some(stale) => format!("; stale: {}", stale.as_str()),
        None => String::new(),
    };
    note(format!(
        "{} users of version {}, sealed at {}, verified at {} ({} s ago){stale}",
        directory.counts().users,
        directory.version(),
        display(directory.sealed_at()),
        display(directory.verified_at()),
        directory.age.as_secs(),
    ));
}

fn write<W: Write>(format: ExportFormat, directory: &InForce, out: W) -> Result<W, Failure> {
    let mut out = BufWriter::with_capacity(1 << 16, out);
    match format {
        ExportFormat::Csv => write_csv(directory.users(), &mut out).map_err(io_fault)?,
        ExportFormat::Ndjson => write_ndjson(directory.users(), &mut out)?,
    }
    out.into_inner().map_err(|error| error.into_error().into())
}

fn write_ndjson(users: impl Iterator<Item = User>, mut out: impl Write) -> io::Result<()> {
    for user in users {
        serde_json::to_writer(&mut out, &user)?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

const COLUMNS: [&str; 17] = [
    "id",
    "name",
    "first_name",
    "last_name",
    "primary_email_address",
    "status",
    "is_external",
    "seat",
    "roles",
    "groups",
    "group_ids",
    "last_login_at",
    "first_seen_at",
    "updated_at",
    "listed",
    "suspected",
    "warnings",
];

fn write_csv(users: impl Iterator<Item = User>, out: impl Write) -> csv::Result<()> {
    // RFC 4180 requires CRLF.
    let mut out = WriterBuilder::new()
        .terminator(Terminator::CRLF)
        .from_writer(out);
    out.write_record(COLUMNS)?;
    for user in users {
        for cell in row(&user) {
            out.write_field(guarded(&cell).as_bytes())?;
        }
        out.write_record(None::<&[u8]>)?;
    }
    Ok(out.flush()?)
}

/// Keeps an I/O error's kind, because a closed pipe is not a failure.
fn io_fault(error: csv::Error) -> Failure {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error.into(),
        other => Failure::Other(format!("{other:?}")),
    }
}

/// A user as cells. Null becomes an empty cell. Lists become JSON, because a name may contain any
/// separator. Provider ids of users and groups appear only inside our prefixed ids: a spreadsheet
/// would read a bare id as a number and round it.
fn row(user: &User) -> [Cow<'_, str>; COLUMNS.len()] {
    let roles = user.roles.as_deref();
    let groups = user.groups.as_deref();
    let group = |entry: &'_ GroupEntry| match entry {
        GroupEntry::Whole(group) => (group.id.clone(), group.name.clone()),
        GroupEntry::Reference(group) => (group.id.clone(), group.name.clone()),
    };
    let role = |entry: &'_ RoleEntry| match entry {
        RoleEntry::Whole(role) => role.remote_id.clone(),
        RoleEntry::Reference(role) => role.remote_id.clone(),
    };
    [
        user.id.as_str().into(),
        text(&user.name),
        text(&user.first_name),
        text(&user.last_name),
        text(&user.primary_email_address),
        word(user.status.as_ref().map(|status| &status.value)),
        word(user.is_external.as_ref()),
        word(user.seat.as_ref().map(|seat| &seat.value)),
        list(roles.map(|roles| roles.iter().map(role))),
        list(groups.map(|groups| groups.iter().map(|it| group(it).1))),
        list(groups.map(|groups| groups.iter().map(|it| group(it).0))),
        moment(user.last_login_at),
        moment(user.first_seen_at),
        moment(user.updated_at),
        word(Some(&user.listed)),
        word(Some(&user.suspected)),
        list(Some(user.warnings.iter())),
    ]
}

fn text(text: &Option<String>) -> Cow<'_, str> {
    text.as_deref().unwrap_or_default().into()
}

/// A word or a boolean as in JSON, without quotes.
fn word<T: Serialize>(word: Option<&T>) -> Cow<'static, str> {
    match word.map(serde_json::to_value) {
        Some(Ok(serde_json::Value::String(word))) => word.into(),
        Some(Ok(value)) => value.to_string().into(),
        Some(Err(_)) | None => "".into(),
    }
}

fn moment(moment: Option<Timestamp>) -> Cow<'static, str> {
    moment
        .map(|moment| display(moment).to_string())
        .unwrap_or_default()
        .into()
}

fn list<T: Serialize>(items: Option<impl Iterator<Item = T>>) -> Cow<'static, str> {
    let items = items.map(Iterator::collect::<Vec<_>>);
    let text = items.map(|items| serde_json::to_string(&items).expect("plain data"));
    text.unwrap_or_default().into()
}

/// Puts an apostrophe before text that a spreadsheet would run as a formula, so that it is shown.
/// Text that begins with an apostrophe gets one too, so removing the first one always restores the
/// text.
fn guarded(cell: &str) -> Cow<'_, str> {
    const BEGINS: [char; 12] = [
        '=', '+', '-', '@', '\t', '\r', '\n', '\'', '＝', '＋', '－', '＠',
    ];
    if cell.starts_with(BEGINS) {
        return format!("'{cell}").into();
    }
    cell.into()
}
