//! Plays a rolling restart with surge on processes behind plain round robin, and prints what clients had of it. Fails
//! where a client that was promised every message lacks one. Leaves no process running, however it ends.

use std::process::ExitCode;

use clap::Parser;
use hubcast_tests::chaos::{RolloutOptions, rollout};

#[tokio::main]
async fn main() -> ExitCode {
    let options = RolloutOptions::parse();
    tokio::select! {
        rolled = rollout(options) => {
            println!("{}", rolled.render());
            ExitCode::from(u8::from(!rolled.is_exact()))
        }
        _ = tokio::signal::ctrl_c() => ExitCode::from(130),
    }
}
