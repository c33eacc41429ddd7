//! The command line of `hubcast`.

mod api;
mod check;
mod connections;
mod events;
#[cfg(test)]
mod examples;
mod gateway;
mod groups;
mod health;
mod log;
mod output;
mod rebalance;
mod send;
mod serve;
mod token;

use std::{ffi::OsString, fmt, path::PathBuf, process::ExitCode};

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::config::{self, ConfigError, Flag, KEYS, Loaded, Sources};

/// Runs the command that the process was started with.
pub(crate) fn main() -> ExitCode {
    let command = Cli::command()
        .mut_subcommand("serve", |serve| serve.after_long_help(serve::help()))
        .mut_subcommand("check", |check| check.after_long_help(check::EXAMPLES));
    let parsed = command
        .try_get_matches()
        .and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(message) => {
            // Help and version arrive here as well; they were requested, not an error.
            let code = if message.use_stderr() { EXIT_USAGE } else { 0 };
            _ = message.print();
            return ExitCode::from(code);
        }
    };
    let outcome = match cli.command {
        Command::Serve(args) => serve::run(args),
        Command::Check(args) => check::run(args),
        Command::Token(args) => token::run(args),
        Command::Health(args) => health::run(args),
        Command::Send(args) => send::run(&args),
        Command::Connections(args) => connections::run(&args),
        Command::Groups(args) => groups::run(&args),
        Command::Events(args) => events::run(&args),
        Command::Rebalance(args) => rebalance::run(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("hubcast: {failure}");
            ExitCode::from(failure.code())
        }
    }
}

/// Self-hosted realtime gateway: the SignalR protocol over WebSockets, SSE and long polling, on any node.
#[derive(Parser)]
#[command(name = "hubcast", version, about, after_help = EXAMPLES, subcommand_required = true)]
#[command(arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve clients
    ///
    /// Without Redis the node is alone and keeps everything in memory; without any configuration it also
    /// serves a demo hub and its page.
    Serve(ConfigArgs),
    /// Check the configuration and print what is in effect
    ///
    /// The output is TOML: every key with its value, and where the value comes from when it is not the
    /// default. Secrets are printed as ***.
    Check(check::CheckArgs),
    /// Make a token that a client connects with
    Token(token::TokenArgs),
    /// Ask a running node whether it is ready
    Health(health::HealthArgs),
    /// Send a message to clients of a running gateway
    Send(send::SendArgs),
    /// Count, list and close connections of a running gateway
    Connections(connections::ConnectionsArgs),
    /// Count groups of a running gateway, list and change their members
    Groups(groups::GroupsArgs),
    /// Print the events of connections that entered and ended, of a running gateway
    Events(events::EventsArgs),
    /// Have nodes of a running gateway that have many connections let some go to those that have few
    Rebalance(rebalance::RebalanceArgs),
}

const EXAMPLES: &str = r#"Examples:
  hubcast serve                                        one node with a demo: open http://127.0.0.1:8080
  hubcast serve --redis redis://10.0.0.5 --demo        a node of a cluster; start as many as you like
  hubcast check --config hubcast.toml                  what would be in effect, and why
  hubcast token --user ana --lifetime 8h               a token, signed with HUBCAST_ACCESS_KEY
  hubcast send --hub chat Announce '"closing at six"'  a message to all clients of a running gateway
  hubcast connections --hub chat                       how many are connected to it, on which nodes

Every key of the configuration is also a variable (limits.message_bytes is HUBCAST_LIMITS__MESSAGE_BYTES) and
a flag (--set limits.message_bytes=65536). Flags win over variables, variables over the file.
`hubcast help serve` lists the keys."#;

/// The flags that set configuration keys.
#[derive(Clone, Args, Default)]
struct ConfigArgs {
    /// TOML file with configuration keys
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Host and port to serve on; port 0 takes a free one [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Redis that makes this node part of a cluster: redis://host:6379, redis+sentinel://host1,host2/master or
    /// redis+cluster://host1,host2; rediss… for TLS
    #[arg(long, value_name = "URL")]
    redis: Option<String>,
    /// This node's name in the cluster [default: random]
    #[arg(long, value_name = "ID")]
    node_id: Option<String>,
    /// Serve the demo hub and its page [default: only when nothing else is configured]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    demo: Option<String>,
    /// How much is logged: off, error, warn, info, debug, trace, or directives [default: info]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// How it is logged: text or json [default: text]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// Any key of the configuration, such as limits.message_bytes=65536; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_setting)]
    set: Vec<(String, String)>,
}

fn parse_setting(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write it as key=value")?;
    Ok((key.trim().to_owned(), value.to_owned()))
}

impl ConfigArgs {
    /// Puts flags, environment and file together.
    fn load(self) -> Result<Loaded, ConfigError> {
        let named = [
            ("--listen", "listen", self.listen),
            ("--redis", "redis", self.redis),
            ("--node-id", "node_id", self.node_id),
            ("--demo", "demo", self.demo),
            ("--log-level", "log.level", self.log_level),
            ("--log-format", "log.format", self.log_format),
        ];
        let named = named.into_iter().filter_map(|(name, key, value)| {
            Some(Flag {
                name: name.to_owned(),
                key: key.to_owned(),
                value: value?,
            })
        });
        let set = self.set.into_iter().map(|(key, value)| Flag {
            name: "--set".to_owned(),
            key,
            value,
        });
        let sources = Sources {
            file: self.config,
            flags: named.chain(set).collect(),
        };
        let of_commands = |name: &OsString| gateway::VARIABLES.iter().any(|known| name == known);
        let variables = std::env::vars_os().filter(|(name, _)| !of_commands(name));
        config::load(&sources, variables)
    }
}

/// All configuration keys with their defaults, as lines of help.
fn keys_help() -> String {
    let defaults = config::Config::default();
    let line = |key: &config::Key| {
        let default = (key.value)(&defaults)
            .map(|value| format!("={value}"))
            .unwrap_or_default();
        format!("  {:<44} {}\n", format!("{}{default}", key.name), key.about)
    };
    KEYS.iter().map(line).collect()
}

/// The reason why a command failed.
#[derive(Debug)]
enum Failure {
    /// The command line or the configuration is wrong.
    Usage(String),
    /// The command line was right, and something went wrong.
    Runtime(String),
}

impl Failure {
    fn code(&self) -> u8 {
        match self {
            Failure::Usage(_) => EXIT_USAGE,
            Failure::Runtime(_) => EXIT_RUNTIME,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Usage(text) | Failure::Runtime(text) => f.write_str(text),
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Failure::Usage(error.to_string())
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Failure::Runtime(format!("{error:#}"))
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Failure::Runtime(error.to_string())
    }
}

/// Starting again will not help.
const EXIT_USAGE: u8 = 2;
const EXIT_RUNTIME: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from([&["hubcast"], args].concat())
    }

    #[test]
    fn the_commands_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_become_settings() {
        let cli = parse(&[
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--demo",
            "--set",
            "limits.connections=5",
        ])
        .unwrap();
        let Command::Serve(args) = cli.command else {
            panic!("not serve")
        };
        let loaded = args.load().unwrap();
        assert_eq!(loaded.config.listen, "127.0.0.1:0");
        assert!(loaded.config.demo);
        assert_eq!(loaded.config.options.limits.connections, 5);
        assert_eq!(loaded.origins["limits.connections"].to_string(), "flag --set");
    }

    #[test]
    fn demo_takes_a_value_only_with_an_equals_sign() {
        let demo = |args: &[&str]| match parse(args).unwrap().command {
            Command::Serve(args) => args.demo,
            _ => None,
        };
        assert_eq!(demo(&["serve"]), None);
        assert_eq!(demo(&["serve", "--demo"]).as_deref(), Some("true"));
        assert_eq!(
            demo(&["serve", "--demo=false", "--redis", "redis://a"]).as_deref(),
            Some("false")
        );
        assert!(parse(&["serve", "--demo", "false"]).is_err());
    }

    #[test]
    fn a_setting_needs_a_key_and_a_value() {
        assert!(parse(&["check", "--set", "limits.connections"]).is_err());
    }

    #[test]
    fn the_help_lists_every_key() {
        let help = serve::help();
        assert!(KEYS.iter().all(|key| help.contains(key.name)));
        assert!(help.contains("limits.message_bytes=32768 "));
    }
}
