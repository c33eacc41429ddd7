//! `hubcast check`: is the configuration right, and what is in effect?

use std::io::{self, Write};
use std::net::SocketAddr;

use clap::Args;

use super::{ConfigArgs, Failure, serve};

/// Flags of `hubcast check`.
#[derive(Args)]
pub(super) struct CheckArgs {
    /// Print nothing but the connection string for SDKs of Azure SignalR, with the access key
    #[arg(long)]
    connection_string: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

pub(super) fn run(args: CheckArgs) -> Result<(), Failure> {
    let loaded = args.config.load()?;
    if args.connection_string {
        let Some(key) = &loaded.config.options.auth.access_key else {
            return Err(Failure::Usage(NO_KEY.to_owned()));
        };
        let listen = &loaded.config.listen;
        let string = match listen.parse::<SocketAddr>() {
            Ok(address) => serve::connection_string(serve::reachable(address), key),
            Err(_) => serve::connection_string(listen, key), // a host's name
        };
        writeln!(io::stdout(), "{string}")?;
        return Ok(());
    }
    io::stdout().write_all(loaded.config.to_toml(&loaded.origins).as_bytes())?;
    if !loaded.config.admits_anyone() {
        eprintln!("hubcast: {}", serve::NOBODY_CAN_CONNECT);
    }
    Ok(())
}

const NO_KEY: &str = "access_key is not set (HUBCAST_ACCESS_KEY); a demo without one makes its own and prints the \
     connection string when it starts";

pub(super) const EXAMPLES: &str = "\
Examples:
  hubcast check
  hubcast check --config hubcast.toml > /dev/null && systemctl restart hubcast
  hubcast check --config hubcast.toml --connection-string     with the access key: keep it secret
  HUBCAST_LIMITS__MESSAGE_BYTES=65536 hubcast check";
