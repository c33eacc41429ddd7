//! Every key and channel name, in this file only.
//!
//! `{hub}` is a hash tag: all keys and channels of a hub share a slot of a Redis Cluster, so its scripts stay legal
//! there. The cluster's own keys have the tag `{*}`, which is no hub's name. Channels of nodes have no tag: requests
//! between nodes spread over a cluster's servers.

use crate::topic::{ConnectionId, GroupName, HubName, NodeId};

/// Names of keys and channels that belong to no hub.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    prefix: String,
}

/// Names of keys and channels of one hub.
#[derive(Clone, Debug)]
pub(super) struct HubKeys {
    base: String,
}

/// The receiver of a push.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route<'a> {
    /// The lane of a hub.
    Hub(&'a str),
    /// The node itself.
    Node,
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
        }
    }

    pub(super) fn hub(&self, hub: &HubName) -> HubKeys {
        HubKeys {
            base: format!("{}:{{{hub}}}", self.prefix),
        }
    }

    /// Hash: run of the server, epoch of the cluster.
    pub(super) fn cluster(&self) -> String {
        format!("{}:{{*}}:cluster", self.prefix)
    }

    /// Hash: node → count of its beats, which starts at the time of the first one (milliseconds).
    pub(super) fn beats(&self) -> String {
        format!("{}:{{*}}:beats", self.prefix)
    }

    /// Hash: dead node whose connections are being removed → epoch of the cluster and node that removes them.
    pub(super) fn dying(&self) -> String {
        format!("{}:{{*}}:dying", self.prefix)
    }

    /// String: the cluster's secret, which all nodes share.
    pub(super) fn secret(&self) -> String {
        format!("{}:{{*}}:secret", self.prefix)
    }

    /// Set: the hubs that any node has ever opened.
    pub(super) fn hubs(&self) -> String {
        format!("{}:{{*}}:hubs", self.prefix)
    }

    /// Hash with an expiry: the time of the next free turn to let a connection go, and the turns per second that nodes
    /// need.
    pub(super) fn turns(&self) -> String {
        format!("{}:{{*}}:turns", self.prefix)
    }

    /// Channel: requests of other nodes to this one, replies, and this node's own probes.
    pub(super) fn node_channel(&self, node: &NodeId) -> String {
        format!("{}:node:{node}", self.prefix)
    }

    /// Channel: a node's probes of one server of a cluster; the number is chosen so that the channel lives on that
    /// server.
    pub(super) fn probe_channel(&self, node: &NodeId, number: u32) -> String {
        format!("{}:node:{node}:probe:{number}", self.prefix)
    }

    /// The receiver of a push on `channel`; `None` for a channel that this file did not name.
    pub(super) fn route<'a>(&self, channel: &'a [u8]) -> Option<Route<'a>> {
        let rest = channel.strip_prefix(self.prefix.as_bytes())?;
        if rest.starts_with(b":node:") {
            return Some(Route::Node);
        }
        let rest = rest.strip_prefix(b":{")?;
        let end = rest.iter().position(|byte| *byte == b'}')?;
        std::str::from_utf8(rest.get(..end)?).ok().map(Route::Hub)
    }
}

impl HubKeys {
    /// Put together without formatting: every call of a script needs several names.
    fn name(&self, kind: &str, name: &str) -> String {
        [self.base.as_str(), kind, name].concat()
    }

    /// Hash: run, epoch, start and other state of the hub's log; `batch:` and a node's id → number, time and answers of
    /// the node's last batch.
    pub(super) fn log(&self) -> String {
        self.name(":log", "")
    }

    /// Stream: a topic's entries, with the offset as id.
    pub(super) fn stream(&self, topic: &str) -> String {
        self.name(":stream:", topic)
    }

    /// String with an expiry: the content of a request that is published once.
    pub(super) fn once(&self, request: &str) -> String {
        self.name(":once:", request)
    }

    /// String with an expiry: the number of the next one of a sender's numbered messages; where the last one was published,
    /// its number and its text.
    pub(super) fn counted(&self, key: &str) -> String {
        format!("{}:counted:{key}", self.base)
    }

    /// String: a topic's newest offset.
    pub(super) fn tail(&self, topic: &str) -> String {
        self.name(":tail:", topic)
    }

    /// Hash: node → epoch in which it has registered its connections.
    pub(super) fn registered(&self) -> String {
        self.name(":registered", "")
    }

    /// Hash: owner, user and version of a connection.
    pub(super) fn connection(&self, id: &ConnectionId) -> String {
        self.name(":connection:", id.as_str())
    }

    /// Key of a connection, when followed by its id.
    pub(super) fn connection_prefix(&self) -> String {
        self.name(":connection:", "")
    }

    /// Set: the groups of a connection.
    pub(super) fn groups(&self, id: &ConnectionId) -> String {
        self.name(":groups:", id.as_str())
    }

    /// String with an expiry, the tombstone: the connection was closed.
    pub(super) fn closed(&self, id: &ConnectionId) -> String {
        self.name(":closed:", id.as_str())
    }

    /// Hash: call of a connection that was not answered → node that runs it.
    pub(super) fn calls(&self, id: &ConnectionId) -> String {
        self.name(":calls:", id.as_str())
    }

    /// Hash: connection that has ended → its end record: the node that reports it, and the report.
    pub(super) fn ended(&self) -> String {
        self.name(":ended", "")
    }

    /// Stream: the hub's connection events.
    pub(super) fn events(&self) -> String {
        self.name(":events", "")
    }

    /// Sorted set: connection that was removed and is still listed in groups → time from which any node may finish
    /// that.
    pub(super) fn leaving(&self) -> String {
        self.name(":leaving", "")
    }

    /// Sorted set: parked connection → time until which it may be taken over.
    pub(super) fn parked(&self) -> String {
        self.name(":parked", "")
    }

    /// Set: the groups that have connections, without reserved ones.
    pub(super) fn group_names(&self) -> String {
        self.name(":group-names", "")
    }

    /// Sorted set with an expiry: group that a user's connections join when they enter → time until which they do.
    pub(super) fn user_groups(&self, user: &str) -> String {
        self.name(":user-groups:", user)
    }

    /// Sorted set without scores, when followed by a group's name: the connections of the group.
    pub(super) fn group_prefix(&self) -> String {
        self.name(":group:", "")
    }

    /// Hash: member of a group that has a state there → the state's item; a field without a name → the bytes of all.
    pub(super) fn states(&self, group: &GroupName) -> String {
        format!("{}:states:{}", self.base, group.stored())
    }

    /// Sorted set without scores, when followed by a user's id: the connections of the user.
    pub(super) fn user_prefix(&self) -> String {
        self.name(":user:", "")
    }

    /// Sorted set without scores: the connections of a user.
    pub(super) fn user(&self, user: &str) -> String {
        self.name(":user:", user)
    }

    /// Set, when followed by a node's id: the connections that the node owns.
    pub(super) fn node_prefix(&self) -> String {
        self.name(":node:", "")
    }

    /// Set: the connections that a node owns.
    pub(super) fn node(&self, node: &NodeId) -> String {
        self.name(":node:", node.as_str())
    }

    /// Channel: messages to a topic.
    pub(super) fn topic_channel(&self, topic: &str) -> String {
        self.name(":topic:", topic)
    }

    /// Channel, when followed by a node's id: entries for single connections of the node.
    pub(super) fn lane_prefix(&self) -> String {
        self.name(":lane:", "")
    }

    /// Channel: entries for single connections of a node.
    pub(super) fn lane_channel(&self, node: &NodeId) -> String {
        self.name(":lane:", node.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_lead_to_their_hub_or_node() {
        let keys = Keys::new("hubcast");
        let hub = keys.hub(&HubName::parse("chat.v1").unwrap());
        let node = NodeId::parse("n-1").unwrap();
        assert_eq!(
            keys.route(hub.topic_channel("g:a}b{").as_bytes()),
            Some(Route::Hub("chat.v1"))
        );
        assert_eq!(
            keys.route(hub.lane_channel(&node).as_bytes()),
            Some(Route::Hub("chat.v1"))
        );
        assert_eq!(keys.route(keys.node_channel(&node).as_bytes()), Some(Route::Node));
        assert_eq!(
            keys.route(keys.probe_channel(&node, 7).as_bytes()),
            Some(Route::Node)
        );
        for other in ["", "hubcast", "hubcast:{chat", "other:{chat}:topic:a"] {
            assert_eq!(keys.route(other.as_bytes()), None, "{other}");
        }
    }
}
