//! Parses a URL: the addresses of the servers, and the logins.

use std::fmt;

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisError};

use crate::error::BackplaneError;
use crate::error::config;

/// Host and port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::redis) struct Address {
    /// The host name or address, without the brackets of IPv6.
    pub(in crate::redis) host: String,
    pub(in crate::redis) port: u16,
}

/// The kind of set-up that the servers form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::redis) enum Kind {
    /// One server.
    Server,
    /// A master with replicas, watched by sentinels.
    Sentinel {
        /// The name under which the sentinels know the master.
        master: String,
    },
    /// A cluster, whose masters share the slots.
    Cluster,
}

/// User and password for sentinels.
#[derive(Clone, Default)]
pub(in crate::redis) struct Login {
    pub(in crate::redis) username: Option<String>,
    pub(in crate::redis) password: Option<String>,
}

/// The content of a URL.
#[derive(Clone)]
pub(in crate::redis) struct Location {
    pub(in crate::redis) kind: Kind,
    /// The server, the sentinels, or some servers of the cluster.
    pub(in crate::redis) addresses: Vec<Address>,
    /// The settings of all connections to servers: TLS, user, password, database.
    pub(in crate::redis) server: ConnectionInfo,
}

/// A URL that names several hosts, in its parts.
struct Parts<'a> {
    /// `redis` or `rediss`.
    scheme: &'a str,
    /// User and password as in the URL, with their `@`.
    user: &'a str,
    hosts: Vec<&'a str>,
    path: Vec<&'a str>,
    parameters: Vec<(&'a str, &'a str)>,
}

const SENTINEL_PORT: u16 = 26_379;
const CLUSTER_PORT: u16 = 6_379;

impl Location {
    /// Parses a URL. Errors contain no part of it: where it is misread, any part may be a password.
    pub(in crate::redis) fn parse(url: &str) -> Result<(Self, Login), BackplaneError> {
        Self::read(url).map_err(|error| match error {
            BackplaneError::Config { what } if has_bare_login(url) => config(what + ENCODE),
            error => error,
        })
    }

    fn read(url: &str) -> Result<(Self, Login), BackplaneError> {
        let (scheme, rest) = url.split_once("://").unwrap_or_default();
        match scheme {
            "redis" | "rediss" => Ok((Self::of_server(url, rest)?, Login::default())),
            "redis+sentinel" => Self::of_sentinels(&Parts::of("redis", rest)),
            "rediss+sentinel" => Self::of_sentinels(&Parts::of("rediss", rest)),
            "redis+cluster" => Ok((Self::of_cluster(&Parts::of("redis", rest))?, Login::default())),
            "rediss+cluster" => Ok((Self::of_cluster(&Parts::of("rediss", rest))?, Login::default())),
            _ => Err(config(
                "the Redis URL must start with redis://, redis+sentinel:// or redis+cluster://, or for TLS with \
                 rediss://, rediss+sentinel:// or rediss+cluster://"
                    .to_owned(),
            )),
        }
    }

    fn of_server(url: &str, rest: &str) -> Result<Self, BackplaneError> {
        let hosts = rest.rsplit_once('@').map_or(rest, |(_, hosts)| hosts);
        if hosts.contains(',') {
            return Err(unreadable(
                "several hosts need redis+sentinel:// or redis+cluster://",
            ));
        }
        let server = url
            .into_connection_info()
            .map_err(|error| unreadable(reason(&error)))?;
        let address = address(&server).ok_or_else(|| unreadable("it must name a host"))?;
        Ok(Self {
            kind: Kind::Server,
            addresses: vec![address],
            server,
        })
    }

    fn of_sentinels(parts: &Parts<'_>) -> Result<(Self, Login), BackplaneError> {
        let (master, database) = match parts.path.as_slice() {
            [master] => (*master, "0"),
            [master, database] => (*master, *database),
            _ => ("", ""),
        };
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if master.is_empty() || !master.chars().all(allowed) {
            return Err(unreadable(
                "after the sentinels it must name the master, as in redis+sentinel://host1,host2,host3/mymaster",
            ));
        }
        if database.parse::<u16>().is_err() {
            return Err(unreadable(
                "what follows the master's name must be a database's number",
            ));
        }
        let (addresses, server) = parts.servers(SENTINEL_PORT, database)?;
        let kind = Kind::Sentinel {
            master: master.to_owned(),
        };
        let location = Self {
            kind,
            addresses,
            server,
        };
        Ok((location, parts.login()?))
    }

    fn of_cluster(parts: &Parts<'_>) -> Result<Self, BackplaneError> {
        if !matches!(parts.path.as_slice(), [] | ["" | "0"]) {
            return Err(unreadable("a cluster has no databases but 0"));
        }
        if !parts.parameters.is_empty() {
            return Err(unreadable("a cluster's URL has no parameters"));
        }
        let (addresses, server) = parts.servers(CLUSTER_PORT, "0")?;
        Ok(Self {
            kind: Kind::Cluster,
            addresses,
            server,
        })
    }

    /// Returns whether connections use TLS.
    pub(in crate::redis) fn is_tls(&self) -> bool {
        matches!(self.server.addr(), ConnectionAddr::TcpTls { .. })
    }
}

impl<'a> Parts<'a> {
    fn of(scheme: &'a str, rest: &'a str) -> Self {
        let (rest, parameters) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, hosts) = match authority.rfind('@') {
            Some(at) => authority.split_at(at + 1),
            None => ("", authority),
        };
        let parameters = parameters.split('&').filter(|parameter| !parameter.is_empty());
        Self {
            scheme,
            user,
            hosts: hosts.split(',').collect(),
            path: if path.is_empty() {
                Vec::new()
            } else {
                path.split('/').collect()
            },
            parameters: parameters
                .map(|parameter| parameter.split_once('=').unwrap_or((parameter, "")))
                .collect(),
        }
    }

    /// The addresses of the hosts, and the settings of connections to servers.
    fn servers(&self, port: u16, database: &str) -> Result<(Vec<Address>, ConnectionInfo), BackplaneError> {
        let (mut addresses, mut common) = (Vec::new(), None);
        for (number, host) in (1..).zip(&self.hosts) {
            let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
            let port = if has_port {
                String::new()
            } else {
                format!(":{port}")
            };
            let url = format!("{}://{}{host}{port}/{database}", self.scheme, self.user);
            let parsed = Some(url.as_str())
                .filter(|_| !host.is_empty())
                .and_then(|url| url.into_connection_info().ok())
                .and_then(|info| Some((address(&info)?, info)));
            let Some((address, info)) = parsed else {
                return Err(unreadable(&format!(
                    "its host number {number} is none, or user and password before the hosts are not \
                     percent-encoded"
                )));
            };
            addresses.push(address);
            common.get_or_insert(info);
        }
        common
            .map(|common| (addresses, common))
            .ok_or_else(|| unreadable("it must name hosts"))
    }

    fn login(&self) -> Result<Login, BackplaneError> {
        let (mut username, mut password) = ("", "");
        for (name, value) in &self.parameters {
            match *name {
                "sentinel_username" => username = value,
                "sentinel_password" => password = value,
                _ => {
                    return Err(unreadable(
                        "it may have the parameters sentinel_username and sentinel_password only",
                    ));
                }
            }
        }
        let info = format!("redis://{username}:{password}@localhost")
            .into_connection_info()
            .map_err(|_| unreadable("the sentinels' user and password must be percent-encoded"))?;
        let given = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(str::to_owned);
        Ok(Login {
            username: given(info.redis_settings().username()),
            password: given(info.redis_settings().password()),
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') {
            write!(f, "[{host}]:{port}")
        } else {
            write!(f, "{host}:{port}")
        }
    }
}

fn address(info: &ConnectionInfo) -> Option<Address> {
    match info.addr() {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => Some(Address {
            host: host.clone(),
            port: *port,
        }),
        _ => None,
    }
}

fn reason(error: &RedisError) -> &str {
    error.category()
}

/// Returns whether user and password hold characters that end this part of a URL.
fn has_bare_login(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.rsplit_once('@')
        .is_some_and(|(login, _)| login.contains(['/', '?', '#', '[', ']', '@', ' ', '\\']))
}

const ENCODE: &str =
    "; in user and password, characters such as / ? # [ ] @ must be percent-encoded: %2F %3F %23 %5B %5D %40";

fn unreadable(what: &str) -> BackplaneError {
    config(format!("the Redis URL can't be read: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> (Location, Login) {
        Location::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"))
    }

    fn addresses(location: &Location) -> String {
        let texts: Vec<_> = location.addresses.iter().map(ToString::to_string).collect();
        texts.join(" ")
    }

    #[test]
    fn a_password_that_is_not_encoded_gets_a_hint() {
        let reported = |url: &str| Location::parse(url).err().map(|error| error.to_string());
        for url in [
            "redis://:p@ss/wo#rd@127.0.0.1:6379",
            "rediss://u:pa/ss@127.0.0.1",
            "redis://:a?b@h:1",
            "redis+cluster://:a/b@h:1",
        ] {
            let reported = reported(url).unwrap_or_default();
            assert!(reported.contains("%2F"), "{url}: {reported}");
            assert!(
                !reported.contains("ss@") && !reported.contains("a/b"),
                "{reported}"
            );
        }
        assert!(!reported("redis://h:x").unwrap_or_default().contains("%2F"));
        assert_eq!(reported("redis://u:p%2Fss@127.0.0.1"), None);
    }

    #[test]
    fn sentinels_are_read_with_their_master() {
        let (location, login) = parse("redis+sentinel://u:p%2Fw@a,b:7000,[::1],[::2]:1/my-master/3");
        let kind = Kind::Sentinel {
            master: "my-master".to_owned(),
        };
        assert_eq!(location.kind, kind);
        assert_eq!(addresses(&location), "a:26379 b:7000 [::1]:26379 [::2]:1");
        let settings = location.server.redis_settings();
        assert_eq!(
            (settings.username(), settings.password(), settings.db()),
            (Some("u"), Some("p/w"), 3)
        );
        assert!(!location.is_tls() && login.username.is_none() && login.password.is_none());
        let url = "rediss+sentinel://:p@a/m?sentinel_username=s%40&sentinel_password=%3Fx";
        let (location, login) = parse(url);
        assert!(location.is_tls());
        assert_eq!(
            (login.username.as_deref(), login.password.as_deref()),
            (Some("s@"), Some("?x"))
        );
    }

    #[test]
    fn clusters_are_read() {
        let (location, _) = parse("rediss+cluster://u:p@a,b:7000/0");
        assert_eq!(location.kind, Kind::Cluster);
        assert_eq!(addresses(&location), "a:6379 b:7000");
        assert!(location.is_tls());
        assert_eq!(parse("redis+cluster://a").0.addresses.len(), 1);
    }

    #[test]
    fn what_can_not_be_read_is_told_without_a_password() {
        for (url, expected) in [
            ("secret", "must start with redis://"),
            ("http://secret", "must start with redis://"),
            ("redis+sentinels://u:secret@h/m", "must start with redis://"),
            ("redis://u:secret@a,b", "several hosts"),
            ("redis://u:secret@h:port", "can't be read"),
            ("redis+sentinel://u:secret@a,b", "name the master"),
            ("redis+sentinel://u:secret@a,b/", "name the master"),
            ("redis+sentinel://u:secret@a,b/m/1/2", "name the master"),
            ("redis+sentinel://u:secret@a,b/m/secret", "database's number"),
            ("redis+sentinel://u:secret@a,/m", "host number 2"),
            ("redis+sentinel://u:secret@a:secret,b/m", "host number 1"),
            ("redis+sentinel://u:secret/x@a/m", "name the master"),
            ("redis+sentinel://a/m?secret=1", "sentinel_username"),
            ("redis+cluster://u:secret@a/1", "no databases"),
            ("redis+cluster://u:secret@a?secret", "no parameters"),
            ("redis+cluster://", "host number 1"),
        ] {
            let error = Location::parse(url).err().map(|error| error.to_string());
            let error = error.unwrap_or_else(|| panic!("{url} was read"));
            assert!(
                error.contains(expected) && error.contains("Redis URL") && !error.contains("secret"),
                "{url}: {error}"
            );
        }
    }
}
