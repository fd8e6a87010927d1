//! `make bench`: Rolecall's speed and memory use, as ratios that hold on any machine.
//!
//! Absolute figures say more about the machine than about the code. Each figure is therefore
//! compared with an optimum measured in the same minute: a read with a bare actix-web server that
//! has the same bytes prepared ([`bare`]), a walk with the fewest calls and the shortest time that
//! its budget allows. Servers run in their own processes on one core, and the load runs on another.
//! Rounds of the two servers alternate, and medians are compared, so other activity on the machine
//! affects both alike.
//!
//! The bench measures the `rolecall` that cargo built with it: `rolecall serve` on SQLite, as an
//! operator runs it, with the access log ([`house`]).
//!
//! It needs Linux, because it reads processes through /proc.

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

/// The allocator of `rolecall`, so that both sides of a ratio use the same one.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// An error that prevented a measurement.
type Fault = Box<dyn std::error::Error + Send + Sync>;
type Outcome<T> = Result<T, Fault>;

/// Measures Rolecall's speed and memory as ratios, and prints a table
#[derive(Parser)]
struct Arguments {
    /// The parts to measure; all if none is named
    parts: Vec<Part>,
    /// Exit with 1 if a target is missed; without this, a miss is only printed
    #[arg(long, env = "BENCH_STRICT")]
    strict: bool,
    /// Added by cargo
    #[arg(long, hide = true)]
    bench: bool,
    /// Run as the bare server with the replies in this file
    #[arg(long, hide = true)]
    bare: Option<PathBuf>,
    /// Hold the directory in this file, and print the memory that it needs
    #[arg(long, hide = true)]
    hold: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Reads of pages and records that are already built
    Reads,
    /// Walks: the number of provider calls, and the time
    Walks,
    /// Sealing a directory of 100,000 users
    Seal,
    /// A start with 1,000 accounts in the store
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

/// This program, to run in another role.
fn own_program() -> Outcome<std::process::Command> {
    Ok(std::process::Command::new(std::env::current_exe()?))
}

fn read_file(path: &Path) -> Outcome<Vec<u8>> {
    std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()).into())
}
