//! Reads `INFO`: a server's description of itself.

use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, RedisError, RedisResult};

use crate::redis::server::run::{Run, field};

/// Seconds since a replica's last acknowledgement up to which it counts. A replica acknowledges once a second.
const MAX_LAG: u64 = 5;

/// The part of its memory at which a server counts as almost full: 19 of 20.
const ALMOST_FULL: (u64, u64) = (19, 20);

/// The parts of `INFO` that the watch of a master needs.
pub(in crate::redis) struct ServerInfo {
    pub(in crate::redis) run: Run,
    pub(in crate::redis) is_master: bool,
    /// Number of replicas that follow closely.
    pub(in crate::redis) replicas: usize,
    /// True if little is left of the memory that the server may use.
    pub(in crate::redis) almost_full: bool,
}

/// Asks the server at the other end; an error where it is too old. Sharded channels need a newer one.
pub(in crate::redis) async fn server_info(
    connection: &mut MultiplexedConnection,
    sharded: bool,
) -> RedisResult<ServerInfo> {
    let mut ask = redis::pipe();
    for section in ["server", "replication", "memory"] {
        ask.cmd("INFO").arg(section);
    }
    let (server, replication, memory): (String, String, String) = ask.query_async(connection).await?;
    if let Some(problem) = too_old(&server, sharded) {
        return Err((ErrorKind::InvalidClientConfig, problem).into());
    }
    let unnamed = || RedisError::from((ErrorKind::Parse, "the server does not name its run"));
    Ok(ServerInfo {
        run: Run::read(&server, &replication).ok_or_else(unnamed)?,
        is_master: field(&replication, "role") == Some("master"),
        replicas: close_replicas(&replication),
        almost_full: is_almost_full(&memory),
    })
}

/// As [`server_info`]; also an error where the server is no master.
pub(in crate::redis) async fn master_info(
    connection: &mut MultiplexedConnection,
    sharded: bool,
) -> RedisResult<ServerInfo> {
    let info = server_info(connection, sharded).await?;
    if !info.is_master {
        return Err((ErrorKind::Io, "the server is a replica").into());
    }
    Ok(info)
}

/// The server's policy for full memory; `None` where it does not return one.
pub(in crate::redis) async fn eviction_policy(
    connection: &mut MultiplexedConnection,
) -> RedisResult<Option<String>> {
    let memory: String = redis::cmd("INFO").arg("memory").query_async(connection).await?;
    Ok(field(&memory, "maxmemory_policy").map(str::to_owned))
}

/// Returns whether memory is almost full. The rest is reserved for beats, leaving and all other calls that do not
/// publish.
fn is_almost_full(memory: &str) -> bool {
    let number = |name| field(memory, name).and_then(|bytes| bytes.parse::<u64>().ok());
    match (number("used_memory"), number("maxmemory")) {
        (Some(used), Some(most)) if most > 0 => used / ALMOST_FULL.0 >= most / ALMOST_FULL.1,
        _ => false,
    }
}

fn too_old(server: &str, sharded: bool) -> Option<&'static str> {
    let version = field(server, "redis_version").unwrap_or_default();
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    match sharded {
        false if version < (6, 2) => Some("the server is older than Redis 6.2"),
        true if version < (7, 0) => Some("the server is older than Redis 7.0, which a cluster needs"),
        _ => None,
    }
}

/// Counts lines such as `slave0:ip=10.0.0.7,port=6379,state=online,offset=71,lag=0`.
fn close_replicas(replication: &str) -> usize {
    let is_close = |line: &str| {
        let replica = line.strip_prefix("slave")?;
        let (number, facts) = replica.split_once(':')?;
        number.parse::<u64>().ok()?;
        let fact = |name: &str| {
            facts
                .split(',')
                .find_map(|fact| fact.trim().strip_prefix(name)?.strip_prefix('='))
        };
        let lag: u64 = fact("lag")?.parse().ok()?;
        Some(fact("state") == Some("online") && lag <= MAX_LAG)
    };
    replication
        .lines()
        .filter(|line| is_close(line) == Some(true))
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_that_follow_closely_are_counted() {
        let replication = "role:master\r\nconnected_slaves:4\r\n\
            slave0:ip=10.0.0.7,port=6379,state=online,offset=71,lag=0\r\n\
            slave1:ip=10.0.0.8,port=6379,state=wait_bgsave,offset=0,lag=0\r\n\
            slave2:ip=10.0.0.9,port=6379,state=online,offset=7,lag=60\r\n\
            slave3:ip=10.0.0.10,port=6379,state=online,offset=70,lag=1\r\n\
            slave_repl_offset:71\r\nslave4:\r\n";
        assert_eq!(close_replicas(replication), 2);
        assert_eq!(close_replicas("role:master\r\nconnected_slaves:0\r\n"), 0);
    }

    #[test]
    fn old_servers_are_recognised() {
        for (version, sharded, old) in [
            ("6.0.9", false, true),
            ("6.2.0", false, false),
            ("6.2.0", true, true),
            ("7.0.15", true, false),
            ("", false, true),
        ] {
            let server = format!("redis_version:{version}\r\n");
            assert_eq!(too_old(&server, sharded).is_some(), old, "{version}");
        }
    }
}
