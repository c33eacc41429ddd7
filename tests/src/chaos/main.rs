//! Hurts a cluster under traffic, prints what that did to its clients, and fails if anything was lost, doubled, reordered
//! or silent. Leaves no process running, however it ends.

use std::process::ExitCode;

use clap::Parser;
use hubcast_tests::chaos::{Options, run};

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    tokio::select! {
        report = run(options) => {
            println!("{}", report.render());
            ExitCode::from(u8::from(!report.is_exact()))
        }
        _ = tokio::signal::ctrl_c() => ExitCode::from(130),
    }
}
