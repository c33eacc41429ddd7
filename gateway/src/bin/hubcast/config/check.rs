//! Rules that one value alone can't show.

use std::time::Duration;

use hubcast::auth;
use hubcast::options::OptionError;
use hubcast_backplane::BackplaneError;
use hubcast_backplane::redis::RedisOptions;
use secrecy::{ExposeSecret, SecretString};

use super::Config;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// Defaults of the official clients: how long they wait for a message of the server, and how often they ping.
const CLIENTS_WAIT: Duration = Duration::from_secs(30);
const CLIENTS_PING: Duration = Duration::from_secs(15);

impl Config {
    /// Warnings about settings that work and are hardly meant. Each says what to do.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if !self.admits_anyone() {
            warnings.push(NOBODY_CAN_CONNECT.to_owned());
        }
        let times = &self.options.timeouts;
        if times.keep_alive * 2 > CLIENTS_WAIT {
            warnings.push(format!(
                "timeouts.keep_alive_seconds is {}: clients with default settings give up after {} s without a message; set their \
                 server timeout to at least {} s (serverTimeoutInMilliseconds, WithServerTimeout), or the key to at most {}",
                times.keep_alive.as_secs_f64(),
                CLIENTS_WAIT.as_secs(),
                (times.keep_alive * 2).as_secs_f64(),
                (CLIENTS_WAIT / 2).as_secs(),
            ));
        }
        if times.client_timeout < CLIENTS_PING * 2 {
            warnings.push(format!(
                "timeouts.client_timeout_seconds is {}: clients with default settings send a Ping every {} s and may be closed as \
                 silent; set their keep-alive interval to at most {} s (keepAliveIntervalInMilliseconds, WithKeepAliveInterval), or \
                 the key to at least {}",
                times.client_timeout.as_secs_f64(),
                CLIENTS_PING.as_secs(),
                (times.client_timeout / 2).as_secs_f64(),
                (CLIENTS_PING * 2).as_secs(),
            ));
        }
        warnings
    }

    /// Checks the configuration as a whole.
    ///
    /// # Errors
    /// The first setting that can't work, by its key, with what to do.
    pub(super) fn check(&self) -> Result<(), OptionError> {
        self.check_listen()?;
        self.check_node_id()?;
        self.options
            .check()
            .map_err(|error| with_configuration_key(&error))?;
        auth::check_keys(&self.options.auth)?;
        self.check_hubs()?;
        self.check_redis()?;
        self.check_backplane()?;
        self.check_telemetry()
    }

    fn check_listen(&self) -> Result<(), OptionError> {
        let admin = self.options.server.admin_listen.as_deref();
        let admin = admin.map(|address| ("server.admin_listen", address));
        for (key, address) in [Some(("listen", self.listen.as_str())), admin]
            .into_iter()
            .flatten()
        {
            let valid = address.rsplit_once(':').is_some_and(|(host, port)| {
                let host_is_clear = !host.contains(':') || host.starts_with('[') && host.ends_with(']');
                !host.is_empty() && host_is_clear && port.parse::<u16>().is_ok()
            });
            if !valid {
                let problem =
                    format!("{address:?} is not a host and a port, such as 0.0.0.0:8080 or [::]:8080");
                return fail(key, problem);
            }
        }
        Ok(())
    }

    fn check_node_id(&self) -> Result<(), OptionError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        match &self.node_id {
            Some(id) if id.len() > 64 || !id.chars().all(allowed) => fail(
                "node_id",
                format!("{id:?} may have ASCII letters, digits, '_' and '-', at most 64"),
            ),
            _ => Ok(()),
        }
    }

    fn check_redis(&self) -> Result<(), OptionError> {
        let parse = |url: &SecretString| RedisOptions::parse(url.expose_secret());
        let tls = match self.redis.as_ref().map(parse).transpose() {
            Ok(options) => options.is_some_and(|options| options.is_tls()),
            Err(BackplaneError::Config { what }) => return fail("redis", what),
            Err(error) => return fail("redis", error.to_string()),
        };
        if let Some(file) = &self.backplane.ca_file {
            if !tls {
                return fail(
                    "backplane.ca_file",
                    "has no use without TLS; give redis as rediss…://",
                );
            }
            if !file.is_file() {
                return fail(
                    "backplane.ca_file",
                    format!("there is no file {}", file.display()),
                );
            }
        }
        Ok(())
    }

    fn check_backplane(&self) -> Result<(), OptionError> {
        let backplane = &self.backplane;
        if backplane
            .key_prefix
            .contains(|c: char| matches!(c, '{' | '}') || c.is_whitespace())
        {
            return fail(
                "backplane.key_prefix",
                "may not have braces (Redis Cluster reads them) or spaces",
            );
        }
        if backplane.pool_size == 0 {
            return fail("backplane.pool_size", "must be at least 1");
        }
        if backplane.batch_interval_micros > 10_000 {
            return fail(
                "backplane.batch_interval_micros",
                "must be at most 10000 (10 ms): each message may take that much longer",
            );
        }
        if backplane.history_connections == 0 {
            return fail("backplane.history_connections", "must be at least 1");
        }
        let times = [
            ("backplane.command_timeout_seconds", backplane.command_timeout),
            ("backplane.heartbeat_seconds", backplane.heartbeat),
        ];
        if let Some((key, _)) = times.into_iter().find(|(_, time)| time.is_zero()) {
            return fail(key, "must be more than 0");
        }
        if backplane.lease < backplane.heartbeat * 2 {
            let problem = format!(
                "is {:?}, must be at least twice backplane.heartbeat_seconds ({:?}), one may be late",
                backplane.lease, backplane.heartbeat
            );
            return fail("backplane.lease_seconds", problem);
        }
        Ok(())
    }

    fn check_telemetry(&self) -> Result<(), OptionError> {
        parse_level(&self.log.level).map_err(|error| OptionError {
            key: "log.level",
            problem: error.to_string(),
        })?;
        match self.telemetry.otlp_endpoint.as_deref() {
            Some(endpoint) if !endpoint.starts_with("http://") => {
                let problem =
                    "must begin with http:// (OTLP over HTTP, without TLS: send to a collector nearby)";
                fail("telemetry.otlp_endpoint", problem)
            }
            _ => Ok(()),
        }
    }
}

const NOBODY_CAN_CONNECT: &str = "no client can connect: set access_key (HUBCAST_ACCESS_KEY, \
     such as from `openssl rand -base64 48`), or auth.allow_anonymous = true";

/// The access keys have no section in the configuration.
fn with_configuration_key(error: &OptionError) -> OptionError {
    let key = match error.key {
        "auth.access_key" => "access_key",
        "auth.access_key_secondary" => "access_key_secondary",
        key => key,
    };
    OptionError {
        key,
        problem: error.problem.replace("auth.access_key", "access_key"),
    }
}

fn fail(key: &'static str, problem: impl Into<String>) -> Result<(), OptionError> {
    Err(OptionError {
        key,
        problem: problem.into(),
    })
}

/// The reason why a `log.level` can't work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LevelError {
    #[error("{0:?} is not off, error, warn, info, debug or trace, nor directives")]
    Unknown(String),
    #[error("{level:?}: {error}")]
    Directives { level: String, error: ParseError },
}

/// Reads `log.level`: one level for Hubcast's own lines, with other crates from `warn` on, or directives.
///
/// # Errors
/// A level that does not exist, or directives that can't be read.
pub(crate) fn parse_level(level: &str) -> Result<EnvFilter, LevelError> {
    let directives = match level.parse::<LevelFilter>() {
        Ok(own) => format!(
            "{},hubcast={own},hubcast_backplane={own}",
            own.min(LevelFilter::WARN)
        ),
        // A lone word that is no level would be taken for a target's name, and silence everything else.
        Err(_) if !level.contains(['=', ',']) => {
            return Err(LevelError::Unknown(level.to_owned()));
        }
        Err(_) => level.to_owned(),
    };
    EnvFilter::try_new(directives).map_err(|error| LevelError::Directives {
        level: level.to_owned(),
        error,
    })
}
