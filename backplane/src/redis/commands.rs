//! Commands: a few shared connections that come back by themselves, bounded waiting, and repetition of what may be
//! repeated.
//!
//! A connection carries the commands of many callers at a time, so that they share system calls and no caller waits
//! for another's answer. Several of them spread the load over cores and outlive the loss of one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use redis::{Client, Cmd, Pipeline, RedisError, RedisResult, Value};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::backoff::Backoff;
use super::link::{Link, SharedLink, Trouble};
use super::options::RedisOptions;
use super::script::Invocation;
use crate::error::BackplaneError;

/// Whether a command may be sent again when it is not known whether it was carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    /// Twice is as good as once.
    Safe,
    /// Twice would be wrong.
    Never,
}

/// Sends commands to the server.
pub(super) struct Commands {
    client: Client,
    timeout: Duration,
    reconnect_wait: Duration,
    links: watch::Sender<Vec<SharedLink>>,
    next: AtomicUsize,
    last_error: Mutex<String>,
    closing: CancellationToken,
}

impl Commands {
    /// Opens the first connection, so that settings that can't work show at once, then keeps `pool_size` of them.
    pub(super) async fn open(
        options: &RedisOptions,
        tasks: &TaskTracker,
        closing: CancellationToken,
    ) -> Result<Arc<Self>, BackplaneError> {
        let commands = Arc::new(Self {
            client: options.client()?,
            timeout: options.command_timeout,
            reconnect_wait: options.reconnect_wait.min(options.command_timeout),
            links: watch::Sender::new(Vec::new()),
            next: AtomicUsize::new(0),
            last_error: Mutex::new("not connected yet".to_owned()),
            closing,
        });
        let first = commands.first_link().await?;
        commands.links.send_modify(|links| links.push(Arc::clone(&first)));
        tasks.spawn(Arc::clone(&commands).keep_link(Some(first)));
        for _ in 1..options.pool_size {
            tasks.spawn(Arc::clone(&commands).keep_link(None));
        }
        Ok(commands)
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// How long a call may take.
    pub(super) fn bound(&self) -> Duration {
        self.timeout
    }

    /// Calls one script.
    pub(super) async fn script(&self, script: &Invocation, repeat: Repeat) -> Result<Value, BackplaneError> {
        let mut answers = self.scripts(std::slice::from_ref(script), repeat).await?;
        Ok(answers.pop().unwrap_or(Value::Nil))
    }

    /// Calls several scripts, in order, in one round trip.
    pub(super) async fn scripts(
        &self,
        scripts: &[Invocation],
        repeat: Repeat,
    ) -> Result<Vec<Value>, BackplaneError> {
        self.call(repeat, Call::Scripts(scripts)).await
    }

    /// Sends one command.
    pub(super) async fn command(&self, command: &Cmd, repeat: Repeat) -> Result<Value, BackplaneError> {
        let mut answers = self.call(repeat, Call::Command(command)).await?;
        Ok(answers.pop().unwrap_or(Value::Nil))
    }

    async fn call(&self, repeat: Repeat, call: Call<'_>) -> Result<Vec<Value>, BackplaneError> {
        let begun = Instant::now();
        let deadline = begun + self.timeout;
        loop {
            let link = self.link(begun, deadline).await?;
            let outcome = tokio::select! {
                outcome = timeout_at(deadline, call.attempt(&link)) => outcome,
                () = self.closing.cancelled() => return Err(BackplaneError::Closed),
            };
            let Ok(outcome) = outcome else {
                link.broken.cancel(); // it swallows commands
                return Err(BackplaneError::Timeout {
                    waited: begun.elapsed(),
                });
            };
            let error = match outcome {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let (reason, carried_out) = match Trouble::of(&error) {
                Trouble::Final(error) => return Err(error),
                Trouble::NoScript => ("the server forgot the scripts".to_owned(), false),
                Trouble::NotNow(reason) => (reason, false),
                Trouble::Lost(reason) => (reason, true),
            };
            debug!(%reason, "backplane command failed");
            link.broken.cancel();
            if carried_out && repeat == Repeat::Never {
                return Err(BackplaneError::Timeout {
                    waited: begun.elapsed(),
                });
            }
            *self.last_error.lock() = reason;
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// One of the connections; waits a bounded time where there is none.
    async fn link(&self, begun: Instant, deadline: Instant) -> Result<SharedLink, BackplaneError> {
        if let Some(link) = self.pick(&self.links.borrow()) {
            return Ok(link);
        }
        let mut links = self.links.subscribe();
        let until = deadline.min(Instant::now() + self.reconnect_wait);
        let found = async {
            loop {
                let link = self.pick(&links.borrow_and_update());
                match link {
                    Some(link) => return Some(link),
                    None => links.changed().await.ok()?,
                }
            }
        };
        tokio::select! {
            () = self.closing.cancelled() => Err(BackplaneError::Closed),
            found = timeout_at(until, found) => found.ok().flatten().ok_or_else(|| BackplaneError::Unavailable {
                waited: begun.elapsed(),
                reason: self.last_error.lock().clone(),
            }),
        }
    }

    /// The next connection in turn that works.
    fn pick(&self, links: &[SharedLink]) -> Option<SharedLink> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % links.len().max(1);
        let (before, after) = links.split_at(turn);
        after
            .iter()
            .chain(before)
            .find(|link| !link.broken.is_cancelled())
            .cloned()
    }

    async fn first_link(&self) -> Result<SharedLink, BackplaneError> {
        let begun = Instant::now();
        let mut backoff = Backoff::new();
        loop {
            let trouble = match self.connect().await {
                Ok(link) => return Ok(link),
                Err(error) => Trouble::of(&error),
            };
            let reason = match trouble {
                Trouble::Final(error) => return Err(error),
                Trouble::Lost(reason) | Trouble::NotNow(reason) => reason,
                Trouble::NoScript => "the server forgot the scripts".to_owned(),
            };
            if begun.elapsed() > self.timeout {
                return Err(BackplaneError::Unavailable {
                    waited: begun.elapsed(),
                    reason,
                });
            }
            backoff.wait().await;
        }
    }

    async fn connect(&self) -> RedisResult<SharedLink> {
        let opened = timeout(self.timeout, Link::open(&self.client, self.timeout)).await;
        opened
            .unwrap_or_else(|_| {
                Err(RedisError::from(std::io::Error::from(
                    std::io::ErrorKind::TimedOut,
                )))
            })
            .map(Arc::new)
    }

    /// Keeps one connection open until closing.
    async fn keep_link(self: Arc<Self>, mut link: Option<SharedLink>) {
        let mut backoff = Backoff::new();
        loop {
            if let Some(open) = link.take() {
                tokio::select! {
                    () = self.closing.cancelled() => return self.forget(&open),
                    () = open.broken.cancelled() => self.forget(&open),
                }
                debug!("backplane command connection lost");
            }
            tokio::select! {
                () = self.closing.cancelled() => return,
                () = backoff.wait() => {}
            }
            let opened = tokio::select! {
                () = self.closing.cancelled() => return,
                opened = self.connect() => opened,
            };
            match opened {
                Ok(open) => {
                    backoff = Backoff::new();
                    self.links.send_modify(|links| links.push(Arc::clone(&open)));
                    link = Some(open);
                }
                Err(error) => {
                    if let Trouble::Final(error) = Trouble::of(&error) {
                        warn!(%error, "backplane server refuses this node");
                    }
                    *self.last_error.lock() = error.to_string();
                }
            }
        }
    }

    fn forget(&self, gone: &SharedLink) {
        self.links
            .send_modify(|links| links.retain(|link| !Arc::ptr_eq(link, gone)));
    }
}

/// What is sent to the server in one round trip.
#[derive(Clone, Copy)]
enum Call<'a> {
    Command(&'a Cmd),
    Scripts(&'a [Invocation]),
}

impl Call<'_> {
    async fn attempt(self, link: &Link) -> RedisResult<Vec<Value>> {
        let mut connection = link.connection.clone();
        let scripts = match self {
            Self::Command(command) => return Ok(vec![command.query_async(&mut connection).await?]),
            Self::Scripts(scripts) => scripts,
        };
        let outcomes: Vec<RedisResult<Value>> = if let [script] = scripts {
            vec![script.command(&link.scripts).query_async(&mut connection).await]
        } else {
            let mut pipeline = Pipeline::with_capacity(scripts.len());
            scripts.iter().for_each(|script| {
                pipeline.add_command(script.command(&link.scripts));
            });
            pipeline.ignore_errors().query_async(&mut connection).await?
        };
        let mut answers = Vec::with_capacity(scripts.len());
        for (script, outcome) in scripts.iter().zip(outcomes) {
            answers.push(match outcome {
                // The server forgot its scripts, not its run: the texts name that.
                Err(error) if matches!(Trouble::of(&error), Trouble::NoScript) => {
                    link.scripts.load(&mut connection).await?;
                    script.command(&link.scripts).query_async(&mut connection).await?
                }
                outcome => outcome?,
            });
        }
        Ok(answers)
    }
}
