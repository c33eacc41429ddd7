//! A gateway whose hub writes down in a file whose connection began and ended: `+ id (node)` and `- id reason (node)`, one line
//! each.
//! The file is no part of the cluster, so it knows what really happened. Settings are the variables of `hubcast serve`,
//! as far as the chaos run sets them.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::serve::ListenerExt;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use hubcast::backplane::NodeId;
use hubcast::backplane::redis::{RedisBackplane, RedisOptions};
use hubcast::drain::Drained;
use hubcast::hub::{Disconnected, State};
use hubcast::protocol::Value;
use hubcast::{Context, Gateway, Hub, HubError, Options};
use hubcast_tests::stamp::{Stamp, now};
use serde_json::{Map, json};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{sleep, timeout};

/// The sections that a gateway's options have.
const SECTIONS: [&str; 6] = ["auth", "cors", "hubs", "limits", "server", "timeouts"];

/// The file. Lines of several processes don't mix: each is one write to its end.
struct Record(File);

impl Record {
    fn note(&self, line: &str) {
        if let Err(error) = (&self.0).write_all(line.as_bytes()) {
            eprintln!("panicked: the record can't be written: {error}");
        }
    }
}

async fn came(context: Context, record: State<Record>) {
    record.note(&format!("+ {} ({})\n", context.connection_id(), context.node()));
}

async fn left(context: Context, reason: Disconnected, record: State<Record>) {
    record.note(&format!(
        "- {} {reason} ({})\n",
        context.connection_id(),
        context.node()
    ));
}

async fn echo(value: Value) -> Value {
    value
}

async fn join_group(context: Context, group: String) -> Result<(), HubError> {
    Ok(context.join(group).await?)
}

async fn send_to_group(context: Context, group: String, text: String) -> Result<(), HubError> {
    let group_members = context.clients().group(&group);
    Ok(group_members.send("GroupMessage", (&group, text)).await?)
}

/// Publishes `count` messages to the groups in turn, at a rate, for benchmarks. Their stamps have the times when they should
/// have been sent.
async fn publish_at_rate(
    context: Context,
    phase: u16,
    groups: u32,
    rate: f64,
    count: u32,
    bytes: usize,
) -> Result<(), HubError> {
    if groups == 0 || !(1.0..=1e6).contains(&rate) {
        return Err(HubError::new("no groups, or a rate outside 1 to 1,000,000"));
    }
    let started = now();
    let stamps = stream::iter(0..count).then(move |number| async move {
        let due = started + (f64::from(number) * 1e9 / rate) as u64;
        sleep(Duration::from_nanos(due.saturating_sub(now()))).await;
        Stamp {
            phase,
            group: number % groups,
            number: number / groups + 1,
            due,
        }
    });
    let sent = stamps.map(|stamp| {
        let (context, group) = (context.clone(), format!("g{}", stamp.group));
        async move { send_to_group(context, group, stamp.text(bytes)).await }
    });
    // They are begun in order, and several wait for the backplane at the same time.
    sent.buffered(64).try_collect::<Vec<_>>().await?;
    Ok(())
}

fn hub(record: Record) -> Hub {
    Hub::new("demo")
        .state(record)
        .on_connected(came)
        .on_disconnected(left)
        .method("Echo", echo)
        .method("JoinGroup", join_group)
        .method("SendToGroup", send_to_group)
        .method("PublishAtRate", publish_at_rate)
}

/// Variables by their names without `HUBCAST_`, in lower case.
struct Settings(BTreeMap<String, String>);

impl Settings {
    fn read() -> Self {
        let named = |(name, value): (String, String)| {
            let name = name.strip_prefix("HUBCAST_")?;
            Some((name.to_lowercase(), value))
        };
        Self(std::env::vars().filter_map(named).collect())
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn required(&self, name: &str) -> Result<&str, String> {
        self.text(name).ok_or_else(|| format!("no HUBCAST_{name}"))
    }

    fn seconds(&self, name: &str) -> Result<Option<Duration>, Box<dyn Error>> {
        let seconds = self.text(name).map(str::parse::<f64>).transpose()?;
        Ok(seconds.map(Duration::try_from_secs_f64).transpose()?)
    }

    /// Options of the library, read as the binary reads them.
    fn options(&self) -> Result<Options, Box<dyn Error>> {
        let mut sections = Map::new();
        for (name, value) in &self.0 {
            if let Some((section, key)) = name.split_once("__")
                && SECTIONS.contains(&section)
            {
                let value = serde_json::from_str(value).unwrap_or_else(|_| json!(value));
                sections.entry(section).or_insert_with(|| json!({}))[key] = value;
            }
        }
        let mut options: Options = serde_json::from_value(sections.into())?;
        options.auth.access_key = self.text("access_key").map(Into::into);
        options.auth.allow_anonymous = Some(true);
        options.auth.anonymous_roles = ["join", "send", "watch"]
            .map(|role| format!("hubcast.{role}"))
            .to_vec();
        Ok(options)
    }

    async fn backplane(&self) -> Result<RedisBackplane, Box<dyn Error>> {
        let mut options = RedisOptions::parse(self.required("redis")?)?;
        let life = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
        options.node = NodeId::parse(format!("{}-{life:x}", self.required("node_id")?))?;
        options.pool_size = 4;
        for (name, value) in [
            ("backplane__lease_seconds", &mut options.lease),
            ("backplane__heartbeat_seconds", &mut options.heartbeat_interval),
            ("backplane__command_timeout_seconds", &mut options.command_timeout),
        ] {
            *value = self.seconds(name)?.unwrap_or(*value);
        }
        Ok(RedisBackplane::connect(options).await?)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let settings = Settings::read();
    tracing_subscriber::fmt()
        .with_env_filter(settings.text("log__level").unwrap_or("info"))
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .init();
    let mut stopped = signal(SignalKind::terminate())?;
    let file = File::options()
        .create(true)
        .append(true)
        .open(settings.required("record")?)?;
    let gateway = Gateway::builder()
        .hub(hub(Record(file)))
        .options(settings.options()?)
        .backplane(Arc::new(settings.backplane().await?))
        .build()
        .await?;
    let listener = TcpListener::bind(settings.required("listen")?).await?;
    println!("listening on http://{}", listener.local_addr()?);
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            eprintln!("no TCP_NODELAY: {error}");
        }
    });

    let (stop, stopping) = tokio::sync::oneshot::channel::<()>();
    let serving = axum::serve(listener, gateway.router()).with_graceful_shutdown(async {
        let _stopped_or_gone = stopping.await;
    });
    let serving = tokio::spawn(serving.into_future());
    stopped.recv().await;
    gateway.begin_drain();
    sleep(settings.seconds("drain__notice_seconds")?.unwrap_or_default()).await;
    let _it_ended_before = stop.send(());
    let deadline = settings.seconds("drain__deadline_seconds")?;
    if let Drained::Abandoned { tasks } = gateway
        .shutdown(deadline.unwrap_or(Duration::from_secs(25)))
        .await
    {
        tracing::warn!(tasks, "the drain's deadline came before every client had left");
    }
    let _what_is_left_ends_with_us = timeout(Duration::from_secs(2), serving).await;
    Ok(())
}
