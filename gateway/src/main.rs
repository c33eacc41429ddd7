//! `hubcast`: command line in, exit code out.

use std::process::ExitCode;

/// Connections come and go for weeks: memory that they free must be usable again.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    hubcast::cli::main()
}
