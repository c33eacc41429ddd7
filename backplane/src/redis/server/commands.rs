//! Sends commands to the master that serves their keys, waits for a bounded time, and repeats those that may be
//! repeated.
//!
//! A connection carries the commands of many callers at a time, so that they share system calls and no caller waits
//! for another's answer. Several of them spread the load over cores and outlive the loss of one.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use redis::{Arg, Cmd, Pipeline, RedisResult, Value};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

use crate::error::BackplaneError;
use crate::error::config;
use crate::redis::keys::Keys;
use crate::redis::node::clock::Clock;
use crate::redis::options::RedisOptions;
use crate::redis::script::catalog::Scripts;
use crate::redis::script::invocation::Invocation;
use crate::redis::server::link::{Link, SharedLink};
use crate::redis::server::pool::{LinkError, Own, Pool};
use crate::redis::server::replies::Trouble;
use crate::redis::server::topology::{Map, Shard, Topology};

/// Whether a command may be repeated when it is not known whether it was carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::redis) enum Repeat {
    /// Carrying the command out twice has the same result as once.
    Safe,
    /// Carrying the command out twice would be wrong.
    Never,
}

/// Time between two tries.
const PAUSE: Duration = Duration::from_millis(10);

/// The time limits of changes.
#[derive(Clone, Copy)]
pub(in crate::redis) struct Bounds {
    /// The time for an answer.
    pub(in crate::redis) command: Duration,
    /// The time for a lost connection to come back, within `command`.
    pub(in crate::redis) reconnect: Duration,
    /// The time for both, of a change with [`Patience::Long`].
    pub(in crate::redis) outage: Duration,
    /// The least time from one batch to the next, see [`RedisOptions`](crate::redis::RedisOptions::batch_interval).
    pub(in crate::redis) batches: Duration,
}

/// Sends commands to the servers.
pub(in crate::redis) struct Commands {
    topology: Arc<Topology>,
    /// A key that belongs to no hub: its server's clock is the cluster's.
    home: String,
    bounds: Bounds,
    clock: Arc<Clock>,
    tasks: TaskTracker,
    closing: CancellationToken,
}

/// A try that brought no answer, with the reason.
pub(in crate::redis) struct Failed {
    pub(in crate::redis) sent: Sent,
    /// The connection's error as text, where trying again may help.
    pub(in crate::redis) why: Result<String, BackplaneError>,
}

impl Failed {
    /// A failure for which trying again does not help.
    pub(in crate::redis) fn for_good(error: BackplaneError) -> Self {
        Self {
            sent: Sent::No,
            why: Err(error),
        }
    }
}

/// Whether a server may have carried out the commands of a failed try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::redis) enum Sent {
    Perhaps,
    No,
}

impl Commands {
    /// Finds the masters and opens a first connection, so that settings that can't work show at once, then keeps
    /// `pool_size` of them to each.
    pub(in crate::redis) async fn open(
        options: &RedisOptions,
        tasks: &TaskTracker,
        closing: CancellationToken,
    ) -> Result<Arc<Self>, BackplaneError> {
        let home = Keys::new(&options.prefix).cluster();
        Ok(Arc::new(Self {
            topology: Topology::open(options, &home, tasks, closing.clone()).await?,
            home,
            bounds: Bounds {
                command: options.command_timeout,
                reconnect: options.reconnect_wait.min(options.command_timeout),
                outage: options.outage_wait,
                batches: options.batch_interval,
            },
            clock: Arc::new(Clock::new()),
            tasks: tasks.clone(),
            closing,
        }))
    }

    pub(in crate::redis) fn topology(&self) -> &Topology {
        &self.topology
    }

    /// The time limit of a call.
    pub(in crate::redis) fn bound(&self) -> Duration {
        self.bounds.command
    }

    /// The time limits of changes.
    pub(in crate::redis) fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// The estimate of the server's time.
    pub(in crate::redis) fn clock(&self) -> Arc<Clock> {
        Arc::clone(&self.clock)
    }

    pub(in crate::redis) fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    pub(in crate::redis) fn closing(&self) -> CancellationToken {
        self.closing.clone()
    }

    /// Refuses messages to the server that has the key while it has too few replicas or too little memory.
    pub(in crate::redis) fn check_publishing(&self, key: &str) -> Result<(), BackplaneError> {
        match self.topology.current().shard(key) {
            Some(shard) => shard.pool.master.check_publishing(),
            None => Ok(()), // there is no server: the call itself fails for that
        }
    }

    /// The command that publishes.
    pub(in crate::redis) fn publish(&self) -> &'static str {
        let map = self.topology.current();
        map.shards
            .first()
            .map_or("PUBLISH", |shard| shard.endpoint.publish())
    }

    /// Calls one script.
    pub(in crate::redis) async fn script(
        &self,
        script: &Invocation,
        repeat: Repeat,
    ) -> Result<Value, BackplaneError> {
        let mut answers = self.scripts(std::slice::from_ref(script), repeat).await?;
        Ok(answers.pop().unwrap_or(Value::Nil))
    }

    /// Calls several scripts of one hub, in order, in one round trip.
    pub(in crate::redis) async fn scripts(
        &self,
        scripts: &[Invocation],
        repeat: Repeat,
    ) -> Result<Vec<Value>, BackplaneError> {
        self.call(repeat, RoundTrip::Scripts(scripts), Through::Shared)
            .await
    }

    /// Sends one command, whose first argument is its key, or the first of its keys. One without arguments goes to
    /// the server that has the cluster's own keys.
    pub(in crate::redis) async fn command(
        &self,
        command: &Cmd,
        repeat: Repeat,
    ) -> Result<Value, BackplaneError> {
        let mut answers = self
            .call(repeat, RoundTrip::Command(command), Through::Shared)
            .await?;
        Ok(answers.pop().unwrap_or(Value::Nil))
    }

    /// Calls a script that only reads and whose answer may be large, on a connection for this call alone. When the
    /// returned future is dropped, that connection is closed.
    pub(in crate::redis) async fn read(&self, script: &Invocation) -> Result<Value, BackplaneError> {
        let scripts = RoundTrip::Scripts(std::slice::from_ref(script));
        let mut answers = self.call(Repeat::Safe, scripts, Through::Own).await?;
        Ok(answers.pop().unwrap_or(Value::Nil))
    }

    async fn call(
        &self,
        repeat: Repeat,
        call: RoundTrip<'_>,
        through: Through,
    ) -> Result<Vec<Value>, BackplaneError> {
        let begun = Instant::now();
        let deadline = begun + self.bounds.command;
        let key = call.key().unwrap_or(Cow::Borrowed(&self.home));
        let mut answers = vec![None; call.len()];
        let mut refused = None;
        loop {
            let (shard, mut link) = self.link(&key, begun, deadline).await?;
            let own = match through {
                Through::Shared => None,
                Through::Own => match self.own(&shard, begun, deadline).await? {
                    Ok(own) => Some(own),
                    Err(error) => {
                        shard.pool.note_error(error.to_string());
                        sleep(PAUSE).await;
                        continue;
                    }
                },
            };
            if let Some(own) = own.as_ref().and_then(Own::link) {
                link = own;
            }
            let outcome = tokio::select! {
                outcome = timeout_at(deadline, link.unless_broken(call.attempt(&link, &mut answers))) => outcome,
                () = self.closing.cancelled() => return Err(BackplaneError::Closed),
            };
            let trouble = match outcome {
                Ok(Ok(())) => {
                    if let Some(own) = own {
                        own.give_back();
                    }
                    return Ok(answers.into_iter().flatten().collect());
                }
                Ok(Err(error)) => Trouble::of(&error),
                Err(_) => {
                    link.broken.cancel(); // the connection swallows commands
                    return Err(BackplaneError::Timeout {
                        waited: begun.elapsed(),
                    });
                }
            };
            let reason = match trouble {
                Trouble::Final(error) => return Err(error),
                Trouble::Moved(_) if !self.topology.is_cluster() => {
                    return Err(not_a_cluster());
                }
                Trouble::Moved(reason) | Trouble::Wait(reason) => {
                    let since = *refused.get_or_insert_with(Instant::now);
                    self.wait(begun, since, reason).await?
                }
                trouble => {
                    link.broken.cancel();
                    if repeat == Repeat::Never && matches!(trouble, Trouble::Lost(_)) {
                        return Err(BackplaneError::Timeout {
                            waited: begun.elapsed(),
                        });
                    }
                    sleep(PAUSE).await;
                    trouble.reason()
                }
            };
            debug!(%reason, "backplane command failed");
            shard.pool.note_error(reason);
        }
    }

    /// Tries once to have a batch carried out on the server that has `key`, until a time at most. `batch` is the call
    /// as it is on the run of that server.
    pub(in crate::redis) async fn try_batch(
        &self,
        key: &str,
        batch: impl Fn(&Scripts) -> Cmd,
        until: Instant,
    ) -> Result<Value, Failed> {
        let unsent = |why| Failed { sent: Sent::No, why };
        let found = match pick(&self.topology.current(), key, Pool::pick_for_batch) {
            Some(found) => Some(found),
            None => timeout_at(until, self.next_link(key)).await.ok().flatten(),
        };
        let Some((shard, link)) = found else {
            return Err(unsent(Ok(self.why_not(key))));
        };
        let attempt = link.unless_broken(link.call(&batch, key));
        let until = until.min(Instant::now() + self.bounds.command);
        let Ok(outcome) = timeout_at(until, attempt).await else {
            link.broken.cancel(); // the connection swallows commands
            let why = Ok("no answer came".to_owned());
            return Err(Failed {
                sent: Sent::Perhaps,
                why,
            });
        };
        let trouble = match outcome {
            Ok(answer) => return Ok(answer),
            Err(error) => Trouble::of(&error),
        };
        let failed = match trouble {
            Trouble::Final(error) => return Err(unsent(Err(error))),
            Trouble::Moved(_) if !self.topology.is_cluster() => return Err(unsent(Err(not_a_cluster()))),
            Trouble::Moved(reason) | Trouble::Wait(reason) => {
                self.pause().await;
                unsent(Ok(reason))
            }
            trouble => {
                link.broken.cancel();
                let sent = match trouble {
                    Trouble::Lost(_) => Sent::Perhaps,
                    _ => Sent::No,
                };
                sleep(PAUSE).await;
                let why = Ok(trouble.reason());
                Failed { sent, why }
            }
        };
        if let Ok(reason) = &failed.why {
            debug!(%reason, "a batch of changes has to be sent again");
            shard.pool.note_error(reason.clone());
        }
        Err(failed)
    }

    /// A connection for one caller alone; the reason where it can't be opened now.
    async fn own(
        &self,
        shard: &Shard,
        begun: Instant,
        deadline: Instant,
    ) -> Result<Result<Own, LinkError>, BackplaneError> {
        tokio::select! {
            () = self.closing.cancelled() => Err(BackplaneError::Closed),
            own = timeout_at(deadline, Box::pin(shard.pool.own())) => own.map_err(|_| BackplaneError::Unavailable {
                waited: begun.elapsed(),
                reason: "all connections for history are in use (backplane.history_connections)".to_owned(),
            }),
        }
    }

    /// Waits a little for a server that refuses now, or for news of which server has the key. A server that has
    /// refused since long goes on refusing.
    async fn wait(&self, begun: Instant, since: Instant, reason: String) -> Result<String, BackplaneError> {
        if since.elapsed() > self.bounds.reconnect {
            return Err(BackplaneError::Unavailable {
                waited: begun.elapsed(),
                reason,
            });
        }
        self.pause().await;
        Ok(reason)
    }

    /// Waits a moment for a server that refuses now, or has the cluster asked which server has the key.
    async fn pause(&self) {
        if self.topology.is_cluster() {
            self.topology.ask_again().await;
        } else {
            sleep(PAUSE).await;
        }
    }

    /// A connection to the server that has the key; waits a bounded time where there is none.
    async fn link(
        &self,
        key: &str,
        begun: Instant,
        deadline: Instant,
    ) -> Result<(Arc<Shard>, SharedLink), BackplaneError> {
        if let Some(found) = pick(&self.topology.current(), key, Pool::pick) {
            return Ok(found);
        }
        let until = deadline.min(Instant::now() + self.bounds.reconnect);
        tokio::select! {
            () = self.closing.cancelled() => Err(BackplaneError::Closed),
            found = timeout_at(until, self.next_link(key)) => {
                found.ok().flatten().ok_or_else(|| BackplaneError::Unavailable {
                    waited: begun.elapsed(),
                    reason: self.why_not(key),
                })
            }
        }
    }

    /// Waits for a connection to the server that has the key.
    async fn next_link(&self, key: &str) -> Option<(Arc<Shard>, SharedLink)> {
        let mut maps = self.topology.changes();
        loop {
            let map = Arc::clone(&maps.borrow_and_update());
            let Some(shard) = map.shard(key) else {
                self.topology.doubt();
                maps.changed().await.ok()?;
                continue;
            };
            let mut links = shard.pool.changes();
            if let Some(found) = pick(&map, key, Pool::pick) {
                return Some(found);
            }
            tokio::select! {
                changed = maps.changed() => changed.ok()?,
                changed = links.changed() => changed.ok()?,
            }
        }
    }

    fn why_not(&self, key: &str) -> String {
        match self.topology.current().shard(key) {
            Some(shard) => shard.pool.last_error(),
            None => "the cluster has no master for this hub".to_owned(),
        }
    }
}

pub(in crate::redis) fn not_a_cluster() -> BackplaneError {
    config("the server is one of several of a Redis Cluster; use redis+cluster://…".to_owned())
}

fn pick(
    map: &Map,
    key: &str,
    link: impl Fn(&Pool) -> Option<SharedLink>,
) -> Option<(Arc<Shard>, SharedLink)> {
    let shard = map.shard(key)?;
    Some((Arc::clone(shard), link(&shard.pool)?))
}

/// The kind of connection that a call uses.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Through {
    /// A connection that all calls share, for small answers.
    Shared,
    /// A connection for this call alone: no other call waits behind its answer.
    Own,
}

/// The commands of one round trip.
#[derive(Clone, Copy)]
enum RoundTrip<'a> {
    Command(&'a Cmd),
    Scripts(&'a [Invocation]),
}

impl<'a> RoundTrip<'a> {
    fn len(&self) -> usize {
        match self {
            Self::Command(_) => 1,
            Self::Scripts(scripts) => scripts.len(),
        }
    }

    /// The key that decides which server the call goes to.
    fn key(&self) -> Option<Cow<'a, str>> {
        match self {
            Self::Scripts(scripts) => scripts.first()?.key().map(Cow::Borrowed),
            Self::Command(command) => match command.args_iter().nth(1)? {
                Arg::Simple(key) => Some(String::from_utf8_lossy(key).into_owned().into()),
                _ => None,
            },
        }
    }

    /// Fills in the answers that are missing: only scripts without an answer are sent.
    async fn attempt(self, link: &Link, answers: &mut [Option<Value>]) -> RedisResult<()> {
        let mut connection = link.connection.clone();
        let scripts = match self {
            Self::Command(command) => {
                let answer = command.query_async(&mut connection).await?;
                answers.fill(Some(answer));
                return Ok(());
            }
            Self::Scripts(scripts) => scripts,
        };
        let mut missing: Vec<_> = scripts
            .iter()
            .zip(answers)
            .filter(|(_, answer)| answer.is_none())
            .collect();
        let outcomes: Vec<RedisResult<Value>> = if let [(script, _)] = missing.as_slice() {
            vec![script.command(&link.scripts).query_async(&mut connection).await]
        } else {
            let mut pipeline = Pipeline::with_capacity(missing.len());
            for (script, _) in &missing {
                pipeline.add_command(script.command(&link.scripts));
            }
            pipeline.ignore_errors().query_async(&mut connection).await?
        };
        let mut failed = None;
        for ((script, answer), outcome) in missing.iter_mut().zip(outcomes) {
            let outcome = match outcome {
                Err(error) => {
                    link.again(error, &|scripts: &Scripts| script.command(scripts), script.key())
                        .await
                }
                outcome => outcome,
            };
            match outcome {
                Ok(value) => **answer = Some(value),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(()), Err)
    }
}
