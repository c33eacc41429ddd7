//! The runs, and what is measured in each.

use std::fmt;

use clap::ValueEnum;

use crate::floor::Writes;
use crate::load::{Format, Pace, Publishes, Speaks};

/// A run: so many connections, and what happens on them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, ValueEnum)]
pub(crate) enum Run {
    /// Broadcast: 2,000 connections in one group, 100 messages a second
    #[value(name = "W1")]
    Broadcast,
    /// Broadcast as fast as possible: 2,000 connections in one group, 16 messages on their way
    #[value(name = "W1s")]
    Saturated,
    /// Groups: 2,000 connections in 200 groups of ten, 2,000 messages a second
    #[value(name = "W2")]
    Groups,
    /// The same at 10,000 messages a second
    #[value(name = "W2x5")]
    BusyGroups,
    /// Memory and processor time of 10,000 idle connections in groups of ten
    #[value(name = "W3")]
    Idle,
    /// 5,000 connections that come at once, join included
    #[value(name = "W4")]
    Connect,
    /// Latency at a low load: 100 connections in one group, 50 messages a second
    #[value(name = "W5")]
    LowLoad,
}

/// The size of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) connections: u32,
    pub(crate) groups: u32,
    pub(crate) window: u32,
    /// `None`: nothing is published.
    pub(crate) pace: Option<Pace>,
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            connections,
            groups,
            window,
            pace,
        } = self;
        match groups {
            1 => write!(f, "{connections} connections in one group")?,
            groups => write!(f, "{connections} connections in {groups} groups")?,
        }
        match pace {
            None => write!(f, ", {window} of which connect at the same time"),
            Some(Pace::Rate(rate)) => write!(f, ", {rate} messages/s"),
            Some(Pace::Window(window)) => write!(f, ", {window} messages on their way"),
            Some(Pace::Count(count)) => write!(f, ", {count} messages"),
        }
    }
}

impl Run {
    pub(crate) fn name(self) -> String {
        name(&self)
    }

    pub(crate) fn size(self) -> Size {
        let size = |connections, groups, pace| Size {
            connections,
            groups,
            window: 128,
            pace,
        };
        match self {
            Self::Broadcast => size(2_000, 1, Some(Pace::Rate(100.0))),
            Self::Saturated => size(2_000, 1, Some(Pace::Window(16))),
            Self::Groups => size(2_000, 200, Some(Pace::Rate(2_000.0))),
            Self::BusyGroups => size(2_000, 200, Some(Pace::Rate(10_000.0))),
            Self::Idle => size(10_000, 1_000, None),
            Self::Connect => Size {
                window: 256,
                ..size(5_000, 500, None)
            },
            Self::LowLoad => size(100, 1, Some(Pace::Rate(50.0))),
        }
    }

    /// The subjects that are measured in it, unless `--subjects` names some.
    pub(crate) fn subjects(self) -> &'static [Subject] {
        use Subject::{
            Batch, Direct, Hubcast, InProcess, Library, Memory, MemoryVolatile, MessagePack, Negotiate,
            Publish, Rest, Sse, Stateful, Volatile, WebSocket,
        };
        match self {
            Self::Broadcast => &[
                Direct,
                Batch,
                Publish,
                Hubcast,
                Volatile,
                Memory,
                MemoryVolatile,
                MessagePack,
                WebSocket,
                Sse,
                Stateful,
            ],
            Self::Saturated => &[Direct, Batch, Hubcast, Volatile, Memory, MessagePack],
            Self::Groups => &[
                Direct,
                Batch,
                Publish,
                Hubcast,
                Volatile,
                Memory,
                MemoryVolatile,
                MessagePack,
                WebSocket,
                Sse,
                Rest,
                Library,
                InProcess,
            ],
            Self::BusyGroups => &[Direct, Publish, Hubcast, Volatile],
            Self::Idle => &[Direct, Hubcast, WebSocket, Sse, Stateful],
            Self::Connect => &[Direct, Hubcast, Negotiate, WebSocket, Sse],
            Self::LowLoad => &[Direct, Publish, Hubcast, Volatile, Memory],
        }
    }

    /// Returns whether a subject can be measured in it.
    pub(crate) fn suits(self, subject: Subject) -> bool {
        match (self.size().pace, subject) {
            (None, Subject::Publish) => false,
            (Some(Pace::Window(_)), Subject::InProcess) => false, // the hub publishes at a rate
            _ => true,
        }
    }
}

/// A program, how its receivers speak, and where messages come from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, ValueEnum)]
pub(crate) enum Subject {
    /// Floor: tokio without a protocol; the reader of Redis writes to each socket itself
    Direct,
    /// Floor: tokio without a protocol; each connection's task writes all that waits
    Batch,
    /// Floor: Redis alone, PUBLISH to one subscriber for each node
    Publish,
    /// Hubcast with Redis, messages kept in the log; SignalR clients with JSON, one of which publishes
    Hubcast,
    /// The same, with hubs that keep nothing
    Volatile,
    /// One node without Redis, messages kept
    Memory,
    /// One node without Redis that keeps nothing
    MemoryVolatile,
    /// As hubcast, with MessagePack
    #[value(name = "messagepack")]
    MessagePack,
    /// As hubcast, received over plain WebSockets
    #[value(name = "websocket")]
    WebSocket,
    /// As hubcast, received as server-sent events
    Sse,
    /// As hubcast, with stateful reconnect
    Stateful,
    /// As hubcast, with a request for a connection id first
    Negotiate,
    /// As hubcast, published by REST
    Rest,
    /// A gateway that an application embeds, otherwise as hubcast
    Library,
    /// The same, published by the hub's own code
    InProcess,
}

/// The programs of a subject.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Server {
    Floor(Writes),
    Redis,
    Gateway {
        is_library: bool,
        has_redis: bool,
        is_volatile: bool,
    },
}

impl Subject {
    pub(crate) fn name(self) -> String {
        name(&self)
    }

    pub(crate) fn server(self) -> Server {
        let gateway = |has_redis, is_volatile| Server::Gateway {
            is_library: matches!(self, Self::Library | Self::InProcess),
            has_redis,
            is_volatile,
        };
        match self {
            Self::Direct => Server::Floor(Writes::Direct),
            Self::Batch => Server::Floor(Writes::Batch),
            Self::Publish => Server::Redis,
            Self::Volatile => gateway(true, true),
            Self::Memory => gateway(false, false),
            Self::MemoryVolatile => gateway(false, true),
            _ => gateway(true, false),
        }
    }

    pub(crate) fn speaks(self) -> Speaks {
        let signalr = |format, negotiate, stateful| Speaks::SignalR {
            format,
            negotiate,
            stateful,
        };
        match self {
            Self::Direct | Self::Batch => Speaks::Floor,
            Self::Publish => Speaks::Redis,
            Self::MessagePack => signalr(Format::MessagePack, false, false),
            Self::WebSocket => Speaks::WebSocket,
            Self::Sse => Speaks::Events,
            Self::Stateful => signalr(Format::Json, true, true),
            Self::Negotiate => signalr(Format::Json, true, false),
            _ => Speaks::SIGNALR,
        }
    }

    pub(crate) fn publishes(self) -> Publishes {
        match self {
            Self::Publish => Publishes::Redis,
            Self::Rest => Publishes::Rest,
            Self::InProcess => Publishes::InProcess,
            Self::Direct | Self::Batch | Self::MessagePack => Publishes::Client(self.speaks()),
            _ => Publishes::Client(Speaks::SIGNALR),
        }
    }
}

fn name(value: &impl ValueEnum) -> String {
    let value = value.to_possible_value();
    value.map(|value| value.get_name().to_owned()).unwrap_or_default()
}
