//! The ways to publish that are compared.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hubcast_backplane::redis::{RedisBackplane, RedisOptions};
use hubcast_backplane::wire::Envelope;
use hubcast_backplane::{
    Backplane, ConnectionId, ConnectionRecord, Delivery, GroupName, HubBackplane, HubName, HubOptions,
    HubSink, NodeId, Topic,
};
use redis::aio::MultiplexedConnection;
use tokio::time::sleep;

use crate::{GROUPS, Server};

/// A way to publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// `PUBLISH` alone.
    Publish,
    /// A hub whose messages are pushed and not kept.
    Volatile,
    /// A hub with its log; a back end publishes.
    Resumable,
    /// A hub with its log; a client publishes.
    ByClient,
}

impl Kind {
    pub(crate) fn parse(name: &str) -> Option<Self> {
        [Self::Publish, Self::Volatile, Self::Resumable, Self::ByClient]
            .into_iter()
            .find(|kind| kind.to_string() == name)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Publish => "publish",
            Self::Volatile => "volatile",
            Self::Resumable => "resumable",
            Self::ByClient => "by-client",
        })
    }
}

/// A way to publish with its receivers.
#[allow(clippy::large_enum_variant, reason = "there is one at a time")]
pub(crate) enum Subject {
    Bare {
        connection: MultiplexedConnection,
        _receivers: Vec<MultiplexedConnection>,
        received: Arc<AtomicUsize>,
    },
    Hub {
        nodes: Vec<RedisBackplane>,
        /// The hub on the node that publishes.
        publisher: Arc<dyn HubBackplane>,
        topics: Vec<[Topic; 1]>,
        envelope: Envelope,
        sink: Arc<Counter>,
    },
}

/// A sink that counts messages.
#[derive(Default)]
pub(crate) struct Counter(AtomicUsize);

impl HubSink for Counter {
    fn deliver(&self, deliveries: &[Delivery]) {
        let messages = deliveries
            .iter()
            .filter(|delivery| matches!(delivery, Delivery::Message(_)));
        self.0.fetch_add(messages.count(), Ordering::Relaxed);
    }
}

impl Subject {
    pub(crate) async fn open(kind: Kind, server: &Server, interval: Duration) -> Self {
        match kind {
            Kind::Publish => Self::bare(server).await,
            _ => Self::hub(kind, server, interval).await,
        }
    }

    async fn bare(server: &Server) -> Self {
        let received = Arc::new(AtomicUsize::new(0));
        let mut receivers = Vec::new();
        for _ in 0..2 {
            let counted = Arc::clone(&received);
            let count = move |push: redis::PushInfo| {
                if push.kind == redis::PushKind::Message {
                    counted.fetch_add(1, Ordering::Relaxed);
                }
                Ok::<_, redis::RedisError>(())
            };
            let client = redis::Client::open(server.url()).unwrap();
            let config = redis::AsyncConnectionConfig::new().set_push_sender(count);
            let mut connection = client
                .get_multiplexed_async_connection_with_config(&config)
                .await
                .unwrap();
            let channels: Vec<_> = (0..GROUPS).map(channel).collect();
            connection.subscribe(&channels).await.unwrap();
            receivers.push(connection);
        }
        Self::Bare {
            connection: server.connection().await,
            _receivers: receivers,
            received,
        }
    }

    async fn hub(kind: Kind, server: &Server, interval: Duration) -> Self {
        let sink = Arc::new(Counter::default());
        let name = HubName::parse("bench").unwrap();
        let options = HubOptions {
            volatile: kind == Kind::Volatile,
            ..HubOptions::default()
        };
        let (mut nodes, mut hubs) = (Vec::new(), Vec::new());
        for number in 0..2 {
            let mut redis = RedisOptions::parse(&format!("redis://127.0.0.1:{}", server.port)).unwrap();
            redis.batch_interval = interval;
            redis.node = NodeId::parse(format!("n{number}")).unwrap();
            let node = RedisBackplane::connect(redis).await.unwrap();
            let receiver: Arc<dyn HubSink> = Arc::<Counter>::clone(&sink);
            let hub = node
                .open_hub(name.clone(), options.clone(), receiver)
                .await
                .unwrap();
            let connection = ConnectionRecord {
                id: ConnectionId::parse(format!("c{number}")).unwrap(),
                user: None,
                state: None,
                event: Default::default(),
            };
            hub.enter(&connection, true).await.unwrap();
            for group in 0..GROUPS {
                hub.join(&connection.id, &group_name(group)).await.unwrap();
            }
            nodes.push(node);
            hubs.push(hub);
        }
        Self::Hub {
            nodes,
            publisher: hubs.swap_remove(0),
            topics: (0..GROUPS)
                .map(|group| [Topic::Group(group_name(group))])
                .collect(),
            envelope: Envelope {
                target: "GroupMessage".to_owned(),
                arguments: vec![Bytes::from_static(b"\"room\""), payload(100)],
                by_client: kind == Kind::ByClient,
                ..Envelope::default()
            },
            sink,
        }
    }

    pub(crate) async fn publish(&self, group: usize) {
        match self {
            Self::Bare { connection, .. } => {
                let mut connection = connection.clone();
                // As many bytes as a push of the log has.
                let publish = redis::Cmd::publish(channel(group), payload(210).as_ref());
                publish.exec_async(&mut connection).await.unwrap();
            }
            Self::Hub {
                publisher,
                topics,
                envelope,
                ..
            } => {
                let topics = topics.get(group).unwrap();
                publisher.publish(topics, envelope).await.unwrap();
            }
        }
    }

    /// Number of messages that the receivers got.
    pub(crate) fn received(&self) -> usize {
        match self {
            Self::Bare { received, .. } => received.load(Ordering::Relaxed),
            Self::Hub { sink, .. } => sink.0.load(Ordering::Relaxed),
        }
    }

    /// Waits until the receivers got this many messages: each of them once.
    pub(crate) async fn wait_for(&self, expected: usize) {
        for _ in 0..1_000 {
            if self.received() >= expected {
                break;
            }
            sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(self.received(), expected, "lost or doubled messages");
    }

    pub(crate) async fn close(&self) {
        if let Self::Hub { nodes, .. } = self {
            for node in nodes {
                node.shutdown().await;
            }
        }
    }
}

fn channel(group: usize) -> String {
    format!("hubcast:{{bench}}:topic:g:room-{group}")
}

fn group_name(group: usize) -> GroupName {
    GroupName::parse(format!("room-{group}")).unwrap()
}

fn payload(bytes: usize) -> Bytes {
    format!("\"{}\"", "x".repeat(bytes - 2)).into()
}
