//! `make bench`: how fast Rolecall is and how much it takes, as ratios that hold on any machine.
//!
//! Absolute figures say more of the machine than of the code. So each is set beside what could be
//! had at best, measured in the same minute: a read beside a bare actix-web server that has the
//! very same bytes ready ([`bare`]), a walk beside the fewest calls and the shortest time that its
//! budget allows. Servers are processes of their own, on one core, with the load on another;
//! rounds of the two take turns, and medians are compared, so that a machine that is busy with
//! something else disturbs both alike.
//!
//! What is measured is the `rolecall` that cargo built beside this: `rolecall serve` on SQLite, as
//! an operator runs it, access log and all ([`house`]).
//!
//! It needs Linux: processes are watched through /proc.

#![expect(
    clippy::disallowed_methods,
    reason = "a bench is its own client, as a test is"
)]

mod bare;
mod house;
mod load;
mod process;
mod reads;
mod seal;
mod start;
mod table;
mod walks;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, ValueEnum};

use table::Table;

/// The one that `rolecall` has, so that both sides of a ratio have the same.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Something that kept a figure from being measured, in words.
type Fault = Box<dyn std::error::Error + Send + Sync>;
type Outcome<T> = Result<T, Fault>;

/// Measures Rolecall's speed and memory as ratios, and prints a table
#[derive(Parser)]
struct Arguments {
    /// What to measure; everything if nothing is named
    parts: Vec<Part>,
    /// Exit with 1 if a target is missed; otherwise it is only said
    #[arg(long, env = "BENCH_STRICT")]
    strict: bool,
    /// What cargo adds by itself
    #[arg(long, hide = true)]
    bench: bool,
    /// Be the bare server of the replies in this file
    #[arg(long, hide = true)]
    bare: Option<PathBuf>,
    /// Hold the directory in this file, and say what that takes
    #[arg(long, hide = true)]
    hold: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Pages and records that were built before
    Reads,
    /// Provider calls, and the time that they take
    Walks,
    /// A directory of 100,000 users
    Seal,
    /// With 1,000 accounts in the store
    Start,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match &arguments {
        Arguments {
            bare: Some(replies),
            ..
        } => bare::serve(replies).map(|()| ExitCode::SUCCESS),
        Arguments {
            hold: Some(stored), ..
        } => seal::hold(stored).map(|()| ExitCode::SUCCESS),
        _ => measure(&arguments),
    };
    outcome.unwrap_or_else(|fault| {
        eprintln!("the bench could not go on: {fault}");
        ExitCode::FAILURE
    })
}

fn measure(arguments: &Arguments) -> Outcome<ExitCode> {
    let is_wanted = |part| arguments.parts.is_empty() || arguments.parts.contains(&part);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let mut table = Table::default();
    runtime.block_on(async {
        if is_wanted(Part::Reads) {
            reads::measure(&mut table).await?;
        }
        if is_wanted(Part::Walks) {
            walks::measure(&mut table).await?;
        }
        if is_wanted(Part::Seal) {
            seal::measure(&mut table)?;
        }
        if is_wanted(Part::Start) {
            start::measure(&mut table).await?;
        }
        Ok::<_, Fault>(())
    })?;
    Ok(if table.conclude() || !arguments.strict {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// This very program, to be run in another role.
fn own_program() -> Outcome<std::process::Command> {
    Ok(std::process::Command::new(std::env::current_exe()?))
}

fn read_file(path: &Path) -> Outcome<Vec<u8>> {
    std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()).into())
}
