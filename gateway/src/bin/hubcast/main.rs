//! `hubcast`: command line in, exit code out. It is a user of the library `hubcast` like any other.

mod builtin;
mod cli;
mod config;
mod demo;
mod node;

use std::process::ExitCode;

/// Connections come and go for weeks: memory that they free must be usable again.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    cli::main()
}
