//! `hubcast check`: is the configuration right, and what is in effect?

use std::io::{self, Write};

use super::{ConfigArgs, Failure, serve::NOBODY_CAN_CONNECT};

pub(super) fn run(args: ConfigArgs) -> Result<(), Failure> {
    let loaded = args.load()?;
    io::stdout().write_all(loaded.config.to_toml(&loaded.origins).as_bytes())?;
    if !loaded.config.admits_anyone() {
        eprintln!("hubcast: {NOBODY_CAN_CONNECT}");
    }
    Ok(())
}

pub(super) const EXAMPLES: &str = "\
Examples:
  hubcast check
  hubcast check --config hubcast.toml > /dev/null && systemctl restart hubcast
  HUBCAST_LIMITS__MESSAGE_BYTES=65536 hubcast check";
