//! `hubcast check`: is the configuration right, and what is in effect?

use std::net::SocketAddr;

use clap::Args;
use serde_json::{Map, Value, json};

use super::{ConfigArgs, Failure, output::print, serve};
use crate::config::Loaded;

/// Flags of `hubcast check`.
#[derive(Args)]
pub(super) struct CheckArgs {
    /// Print nothing but the connection string for SDKs of Azure SignalR, with the access key
    #[arg(long)]
    connection_string: bool,
    /// Print one JSON object, for scripts
    #[arg(long)]
    json: bool,
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
        return print(args.json, &json!({ "connectionString": string }), &string);
    }
    let warning = (!loaded.config.admits_anyone()).then_some(serve::NOBODY_CAN_CONNECT);
    let text = loaded.config.to_toml(&loaded.origins);
    print(args.json, &object(&loaded, &text, warning)?, &text)?;
    if let Some(warning) = warning.filter(|_| !args.json) {
        eprintln!("hubcast: {warning}");
    }
    Ok(())
}

/// The same for scripts: what is in effect, where it comes from when it is no default, and what is doubtful.
fn object(loaded: &Loaded, text: &str, warning: Option<&str>) -> Result<Value, Failure> {
    let config: toml::Table = text
        .parse()
        .map_err(|_| Failure::Runtime("the configuration can't be written down".to_owned()))?;
    let origins: Map<String, Value> = loaded
        .origins
        .iter()
        .map(|(key, origin)| ((*key).to_owned(), origin.to_string().into()))
        .collect();
    Ok(json!({ "config": config, "origins": origins, "warnings": Vec::from_iter(warning) }))
}

const NO_KEY: &str = "access_key is not set (HUBCAST_ACCESS_KEY); a demo without one makes its own and prints the \
     connection string when it starts";

pub(super) const EXAMPLES: &str = "\
Examples:
  hubcast check
  hubcast check --config hubcast.toml > /dev/null && systemctl restart hubcast
  hubcast check --config hubcast.toml --connection-string     with the access key: keep it secret
  HUBCAST_LIMITS__MESSAGE_BYTES=65536 hubcast check
  hubcast check --json | jq .config.listen";
