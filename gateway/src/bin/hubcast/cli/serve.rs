//! `hubcast serve`: a node, from its configuration to the end of its drain.

use std::{
    fmt,
    io::{self, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use anyhow::Context;
use secrecy::{ExposeSecret, SecretString};
use tracing::{info, warn};

use super::{ConfigArgs, Failure, keys_help, log};
use crate::{
    config::Config,
    node::{self, News},
};

pub(super) fn run(args: ConfigArgs) -> Result<(), Failure> {
    let config = args.clone().load()?.config;
    let again = move || args.clone().load().map(|loaded| loaded.config);
    // Before the runtime and dropped after it: the exporter has its own thread, and the last spans count.
    let _telemetry = log::init(&config.log, &config.telemetry)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the runtime can't be started")?;
    let hints = Hints::new(&config);
    let outcome = runtime.block_on(node::run(config, again, move |news| {
        announce(&news);
        if let News::Serving { address, .. } = news {
            hints.log(address);
        }
    }));
    outcome.map_err(|error| match error.downcast::<node::Unusable>() {
        Ok(unusable) => Failure::Usage(unusable.to_string()),
        Err(other) => other.into(),
    })
}

/// Prints the node's address for scripts and tests, which may have requested any free port, and, for the demo, the
/// connection string for an SDK. A key that was configured is never printed.
fn announce(news: &News) {
    let text = match news {
        News::Listening { address, admin } => {
            let admin = admin.map(|admin| format!("admin: http://{admin}\n"));
            format!("listening on http://{address}\n{}", admin.unwrap_or_default())
        }
        News::Serving {
            address,
            demo_key: Some(key),
        } => {
            format!(
                "connection string: {}\n",
                connection_string(reachable(*address), key)
            )
        }
        News::Serving { demo_key: None, .. } => return,
    };
    let mut stdout = io::stdout().lock();
    // The output is optional: a closed standard output is no reason to stop serving.
    _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

/// The connection string with which the SDKs of Azure SignalR find a gateway and sign tokens for it.
pub(super) fn connection_string(endpoint: impl fmt::Display, key: &SecretString) -> String {
    let key = key.expose_secret();
    format!("Endpoint=http://{endpoint};AccessKey={key};Version=1.0;")
}

/// The hints for a person who has just started a node.
struct Hints {
    demo: bool,
    alone: bool,
    warnings: Vec<String>,
}

impl Hints {
    fn new(config: &Config) -> Self {
        Self {
            demo: config.demo,
            alone: config.redis.is_none(),
            warnings: config.warnings(),
        }
    }

    fn log(&self, bound: SocketAddr) {
        info!(address = %bound, version = env!("CARGO_PKG_VERSION"), "serving");
        if self.demo {
            info!("the demo is on: open http://{}/", reachable(bound));
        }
        if self.alone {
            info!(
                "no Redis is set, so this node serves alone; give every node the same --redis to make a cluster"
            );
        }
        for warning in &self.warnings {
            warn!("{warning}");
        }
    }
}

/// The address by which this machine reaches a node that listens on that address.
pub(super) fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

/// The examples and keys at the end of `hubcast help serve`.
pub(super) fn help() -> String {
    format!(
        "{EXAMPLES}\n\nKeys and their defaults, for the file, for variables and for --set:\n{}",
        keys_help()
    )
}

pub(super) const EXAMPLES: &str = "\
Examples:
  hubcast serve
  hubcast serve --listen 0.0.0.0:8080 --config hubcast.toml
  HUBCAST_ACCESS_KEY=$(openssl rand -base64 48) hubcast serve --redis redis://10.0.0.5:6379
  hubcast serve --demo --set limits.message_bytes=65536 --set cors.allowed_origins=https://app.example.org";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_on_all_addresses_is_reached_on_loopback() {
        let reachable = |address: &str| reachable(address.parse().unwrap()).to_string();
        assert_eq!(reachable("0.0.0.0:80"), "127.0.0.1:80");
        assert_eq!(reachable("[::]:80"), "[::1]:80");
        assert_eq!(reachable("10.1.2.3:80"), "10.1.2.3:80");
    }
}
