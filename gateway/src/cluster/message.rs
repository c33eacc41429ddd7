//! Messages between nodes about their connections. Readers ignore unknown fields, writers only add.

use bytes::Bytes;
use hubcast_backplane::HubName;

use crate::session::{Detached, InboxEntry};

/// A request to the owner of a connection.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct NodeRequest {
    #[prost(string, tag = "1")]
    pub(super) hub: String,
    #[prost(string, tag = "2")]
    pub(super) connection: String,
    /// The client's user, as authenticated on the requesting node.
    #[prost(string, optional, tag = "3")]
    pub(super) user: Option<String>,
    #[prost(
        oneof = "Ask",
        tags = "4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19"
    )]
    pub(super) ask: Option<Ask>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Ask {
    #[prost(message, tag = "4")]
    Poll(ask::Poll),
    #[prost(message, tag = "5")]
    Receive(ask::Receive),
    #[prost(message, tag = "6")]
    Attach(ask::Attach),
    #[prost(message, tag = "7")]
    Delete(ask::Delete),
    #[prost(message, tag = "8")]
    Group(ask::Group),
    #[prost(message, tag = "9")]
    Invoke(ask::Invoke),
    #[prost(message, tag = "10")]
    YieldPoll(ask::YieldPoll),
    #[prost(message, tag = "11")]
    HandOver(ask::HandOver),
    #[prost(message, tag = "12")]
    Carry(ask::Carry),
    #[prost(message, tag = "13")]
    Drained(ask::Drained),
    #[prost(message, tag = "14")]
    Close(ask::Close),
    #[prost(message, tag = "15")]
    Refresh(ask::Refresh),
    /// A request about the hub, not about a connection.
    #[prost(message, tag = "16")]
    LetGo(ask::LetGo),
    #[prost(message, tag = "17")]
    Permit(ask::Permit),
    /// A request about the hub, as well.
    #[prost(message, tag = "18")]
    Regroup(ask::Regroup),
    #[prost(message, tag = "19")]
    Identity(ask::Identity),
}

pub(crate) mod ask {
    use bytes::Bytes;

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Poll {
        /// The deadline of the answer, in the cluster's time (milliseconds since 1970).
        #[prost(uint64, tag = "1")]
        pub(crate) until: u64,
        /// The identity of the poll's token, as JSON, where a newer one is taken.
        #[prost(bytes = "bytes", tag = "2")]
        pub(crate) identity: Bytes,
    }

    /// Give a stateful session up: its client has come back elsewhere.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct HandOver {}

    /// Messages of a client for calls that still run where it was before.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Carry {
        /// Hub messages in the connection's protocol.
        #[prost(bytes = "bytes", tag = "1")]
        pub(crate) frames: Bytes,
        /// Place in `HubProtocol::ALL`.
        #[prost(uint32, tag = "2")]
        pub(crate) protocol: u32,
    }

    /// Answer when the client has read most of the bytes sent to it.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Drained {}

    /// End the connection.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Close {
        /// The reason that the client is given.
        #[prost(string, optional, tag = "1")]
        pub(crate) reason: Option<String>,
    }

    /// The client has shown a newer token.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Refresh {
        /// The identity of the new token, as JSON.
        #[prost(bytes = "bytes", tag = "1")]
        pub(crate) identity: Bytes,
        /// It comes from a back end, which may shorten the connection's time.
        #[prost(bool, tag = "2")]
        pub(crate) by_server: bool,
    }

    /// Say who the connection's client is.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Identity {}

    /// Have connections leave for nodes that have fewer. Answered with how many will.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct LetGo {
        /// Most of them.
        #[prost(uint64, tag = "1")]
        pub(crate) most: u64,
        /// How long they must have been here, in milliseconds.
        #[prost(uint64, tag = "2")]
        pub(crate) settled: u64,
    }

    /// Give or take a permission, or say whether the connection has it: 200, or 204 where it has not.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Permit {
        /// Place in `Permission::ALL`.
        #[prost(uint32, tag = "1")]
        pub(crate) permission: u32,
        /// The group that it is for; without one all.
        #[prost(string, optional, tag = "2")]
        pub(crate) group: Option<String>,
        /// Place in `Wish::ALL`.
        #[prost(uint32, tag = "3")]
        pub(crate) wish: u32,
    }

    /// Put those of the node's connections that a filter admits into groups, take them out, or end them.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Regroup {
        #[prost(string, repeated, tag = "1")]
        pub(crate) groups: Vec<String>,
        /// In OData; empty: all connections.
        #[prost(string, tag = "2")]
        pub(crate) filter: String,
        #[prost(bool, tag = "3")]
        pub(crate) join: bool,
        /// End the connections instead.
        #[prost(bool, tag = "4")]
        pub(crate) close: bool,
        /// The reason that their clients are given.
        #[prost(string, optional, tag = "5")]
        pub(crate) reason: Option<String>,
    }

    /// Answer the waiting poll with nothing.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct YieldPoll {}

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Receive {
        #[prost(bytes = "bytes", tag = "1")]
        pub(crate) body: Bytes,
        /// Names the body, if this is one of several parts of it.
        #[prost(uint64, optional, tag = "2")]
        pub(crate) number: Option<u64>,
        /// Another part follows.
        #[prost(bool, tag = "3")]
        pub(crate) more: bool,
        /// The body broke off after the parts before.
        #[prost(bool, tag = "4")]
        pub(crate) broken: bool,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Attach {
        /// Place in `Transport::ALL`.
        #[prost(uint32, tag = "1")]
        pub(crate) transport: u32,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Delete {}

    /// Call a method of the client and answer with its result.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Invoke {
        #[prost(string, tag = "1")]
        pub(crate) target: String,
        #[prost(bytes = "bytes", repeated, tag = "2")]
        pub(crate) arguments: Vec<Bytes>,
        /// One for each argument: whether it is MessagePack instead of JSON.
        #[prost(bool, repeated, tag = "3")]
        pub(crate) packed: Vec<bool>,
        /// The same in the other encoding, where the caller wrote both.
        #[prost(bytes = "bytes", repeated, tag = "4")]
        pub(crate) translated: Vec<Bytes>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Group {
        #[prost(string, tag = "1")]
        pub(crate) group: String,
        #[prost(bool, tag = "2")]
        pub(crate) join: bool,
    }
}

/// The owner's reply.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct NodeReply {
    #[prost(uint32, tag = "1")]
    pub(super) status: u32,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) body: Bytes,
    /// For `Attach`: what came in before. An empty one says that a body broke off.
    #[prost(bytes = "bytes", repeated, tag = "3")]
    pub(super) early: Vec<Bytes>,
    /// For `Invoke`: whether the body, the result, is MessagePack instead of JSON.
    #[prost(bool, tag = "4")]
    pub(super) packed: bool,
    /// For `Poll`: the source of the body.
    #[prost(message, optional, tag = "5")]
    pub(super) source: Option<PollSource>,
    /// For `LetGo`: how many connections will leave.
    #[prost(uint64, tag = "6")]
    pub(super) leaving: u64,
    /// For `HandOver`: how often the connection came back without getting any further.
    #[prost(uint32, tag = "7")]
    pub(super) recoveries: u32,
}

/// The session that a poll's data returns to when no client gets it.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct PollSource {
    #[prost(string, tag = "1")]
    pub(super) hub: String,
    #[prost(string, tag = "2")]
    pub(super) connection: String,
    /// Number of the taking.
    #[prost(uint64, tag = "3")]
    pub(super) taking: u64,
}

/// The owner's answer, in terms of HTTP: the same whether the owner is this node or another.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct OwnerAnswer {
    /// HTTP status.
    pub(crate) status: u16,
    /// Data of a poll, or the text of a refusal.
    pub(crate) body: Bytes,
    /// The data that came in before the connection moved.
    pub(crate) early: Detached,
    /// True if a client's result is MessagePack instead of JSON.
    pub(crate) packed: bool,
    /// For data of a poll: which taking from the session it was.
    pub(crate) taking: Option<u64>,
    /// How often a connection that is handed over came back without getting any further.
    pub(crate) recoveries: u32,
}

impl OwnerAnswer {
    pub(crate) fn status(status: u16) -> Self {
        Self {
            status,
            ..Self::default()
        }
    }

    pub(crate) fn refused(status: u16, text: &'static str) -> Self {
        Self {
            status,
            body: Bytes::from_static(text.as_bytes()),
            ..Self::default()
        }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl From<NodeReply> for OwnerAnswer {
    fn from(reply: NodeReply) -> Self {
        Self {
            status: u16::try_from(reply.status).unwrap_or(500),
            body: reply.body,
            early: reply.early.into_iter().map(entry).collect(),
            packed: reply.packed,
            taking: None, // it is here
            recoveries: reply.recoveries,
        }
    }
}

impl NodeReply {
    /// The answer about a connection.
    pub(super) fn of(answer: OwnerAnswer, hub: &HubName, connection: String) -> Self {
        let source = |taking| PollSource {
            hub: hub.to_string(),
            connection,
            taking,
        };
        Self {
            status: u32::from(answer.status),
            body: answer.body,
            early: answer.early.into_iter().filter_map(bytes).collect(),
            packed: answer.packed,
            source: answer.taking.map(source),
            leaving: 0,
            recoveries: answer.recoveries,
        }
    }
}

/// An entry of an inbox, from the way in which nodes write it.
fn entry(bytes: Bytes) -> InboxEntry {
    if bytes.is_empty() {
        InboxEntry::BrokenOff
    } else {
        InboxEntry::Bytes(bytes)
    }
}

/// The way in which nodes write an entry. A connection that moves before it has begun had no other socket.
fn bytes(entry: InboxEntry) -> Option<Bytes> {
    match entry {
        InboxEntry::Bytes(bytes) => Some(bytes),
        InboxEntry::BrokenOff => Some(Bytes::new()),
        InboxEntry::NewSocket => None,
    }
}
