//! `hubcast check`: checks the configuration and prints the values in effect.

use std::io::{self, IsTerminal};
use std::net::SocketAddr;

use anyhow::Context;
use clap::Args;
use hubcast::upstream::Form;
use hubcast_backplane::redis::RedisBackplane;
use serde_json::{Map, Value, json};

use super::{ConfigArgs, Failure, output::print, serve};
use crate::config::{Config, Loaded};
use crate::node;

/// Flags of `hubcast check`.
#[derive(Args)]
pub(super) struct CheckArgs {
    /// Print nothing but the connection string for SDKs of Azure SignalR, with the access key
    #[arg(long)]
    connection_string: bool,
    /// Print one JSON object, for scripts
    #[arg(long)]
    json: bool,
    /// Connect to Redis too, and fail where it can't be reached or is set up to lose messages
    #[arg(long, conflicts_with = "connection_string")]
    connect: bool,
    /// Ask the CloudEvents handlers of [[upstream]] too whether they want requests of this gateway, and say what is wrong
    #[arg(long, conflicts_with = "connection_string")]
    upstream: bool,
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
    let warnings = loaded.config.warnings();
    let mut text = loaded.config.to_toml(&loaded.origins);
    if args.connect {
        inspect(&loaded.config)?;
        text.push_str("# Redis can be reached, and there is nothing to say against how it is set up.\n");
    }
    if args.upstream {
        text.push_str(&ask_handlers(&loaded.config)?);
    }
    let object = object(&loaded, &text, &warnings)?;
    for warning in &warnings {
        text.push_str(&format!("# warning: {warning}\n"));
    }
    print(args.json, &object, &text)?;
    if !args.json && !io::stdout().is_terminal() {
        // The text went to a file, or nowhere.
        warnings
            .iter()
            .for_each(|warning| eprintln!("hubcast: warning: {warning}"));
    }
    Ok(())
}

/// Connects to Redis without becoming a node. Fails with a text that says what to change there.
fn inspect(config: &Config) -> Result<(), Failure> {
    let Some(options) = node::redis_options(config)? else {
        return Err(Failure::Usage(NO_REDIS.to_owned()));
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the runtime can't be started")?;
    let warnings = runtime.block_on(RedisBackplane::inspect(options));
    let warnings = warnings.context("redis")?;
    if warnings.is_empty() {
        Ok(())
    } else {
        Err(Failure::Runtime(warnings.join("\n")))
    }
}

/// Has abuse protection's request sent to each handler that knows it. Fails with a text that says what to change.
fn ask_handlers(config: &Config) -> Result<String, Failure> {
    if config.upstream.is_empty() {
        return Err(Failure::Usage(NO_HANDLERS.to_owned()));
    }
    let upstream = config
        .upstream()
        .map_err(|error| Failure::Usage(error.to_string()))?;
    let hubs = config
        .builtin_hubs()
        .map_err(|error| Failure::Usage(error.to_string()))?;
    let hubs: Vec<_> = hubs.into_iter().map(|(name, _)| name).collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the runtime can't be started")?;
    let asked = runtime.block_on(upstream.ask(&hubs));
    let problems: Vec<_> = asked
        .iter()
        .filter_map(|asked| {
            let problem = asked.problem.as_ref()?;
            Some(format!(
                "the handler {} of hub {:?}: {problem}",
                asked.handler, asked.hub
            ))
        })
        .collect();
    if !problems.is_empty() {
        return Err(Failure::Runtime(problems.join("\n")));
    }
    let mut text = format!("# Handlers that want requests of this gateway: {}\n", asked.len());
    for handler in config
        .upstream
        .iter()
        .filter(|handler| handler.form == Some(Form::SignalR))
    {
        let name = handler.label();
        text.push_str(&format!(
            "# The handler {name} was not asked: its form has no request for that.\n"
        ));
    }
    Ok(text)
}

/// The same for scripts: the values in effect, the origin of each that is no default, and the warnings.
fn object(loaded: &Loaded, text: &str, warnings: &[String]) -> Result<Value, Failure> {
    let config: toml::Table = text
        .parse()
        .map_err(|_| Failure::Runtime("the configuration can't be written down".to_owned()))?;
    let origins: Map<String, Value> = loaded
        .origins
        .iter()
        .map(|(key, origin)| ((*key).to_owned(), origin.to_string().into()))
        .collect();
    Ok(json!({ "config": config, "origins": origins, "warnings": warnings }))
}

const NO_KEY: &str = "access_key is not set (HUBCAST_ACCESS_KEY); a demo without one makes its own and prints the \
     connection string when it starts";

const NO_REDIS: &str = "--connect has nothing to connect to: redis is not set (HUBCAST_REDIS)";

const NO_HANDLERS: &str = "--upstream has nobody to ask: there is no [[upstream]]";

pub(super) const EXAMPLES: &str = "\
Examples:
  hubcast check
  hubcast check --config hubcast.toml > /dev/null && systemctl restart hubcast
  hubcast check --config hubcast.toml --connection-string     with the access key: keep it secret
  HUBCAST_LIMITS__MESSAGE_BYTES=65536 hubcast check
  hubcast check --connect --redis redis://10.0.0.5     is Redis there, and set up to keep what it is given?
  hubcast check --upstream --config hubcast.toml     do the handlers want requests of this gateway?
  hubcast check --json | jq .config.listen";
