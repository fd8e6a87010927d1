//! `rolecall accounts export`: everybody in the directory in force, to a file or a pipe.
//!
//! A user is made, written and forgotten, so that beside the directory itself the largest export
//! takes no more memory than the smallest. Which version it is, how old, and why it may be stale
//! is said on standard error and never in the data. `docs/OPERATIONS.md` has the columns.

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
    /// How a user is written
    #[arg(long, value_enum)]
    format: ExportFormat,
    /// The file to write, whole or not at all; standard output if absent
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    file: ConfigFile,
}

#[derive(Clone, Copy, ValueEnum)]
enum ExportFormat {
    /// A row a user, for spreadsheets
    Csv,
    /// A line a user: the record of GET /iam/users?expand=roles,groups
    Ndjson,
}

pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    // Before the directory is read, which takes longer than to see that there is no such folder.
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
        // On a terminal, names are shown and not obeyed.
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
    // RFC 4180 ends lines with both.
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

/// What went wrong with the writing, since a closed pipe must be told from a fault.
fn io_fault(error: csv::Error) -> Failure {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error.into(),
        other => Failure::Other(format!("{other:?}")),
    }
}

/// A user as cells: null is an empty one, lists are JSON, as no separator is safe from the names
/// that it would part. A remote id stands only behind the prefix of ours, since a spreadsheet
/// takes it for a number and rounds it.
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

/// A word or a truth value as in JSON, without quotes.
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

/// What a spreadsheet would take for a formula, with an apostrophe before it, as it is then shown
/// and not run. So is a text that begins with an apostrophe itself: then taking off the first one
/// is always right.
fn guarded(cell: &str) -> Cow<'_, str> {
    const BEGINS: [char; 12] = [
        '=', '+', '-', '@', '\t', '\r', '\n', '\'', '＝', '＋', '－', '＠',
    ];
    if cell.starts_with(BEGINS) {
        return format!("'{cell}").into();
    }
    cell.into()
}
