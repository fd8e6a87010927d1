//! The binary: parses the arguments and runs the command. Everything else is in the library.

use std::process::ExitCode;

use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    rolecall::cli::run(rolecall::cli::Arguments::parse())
}
