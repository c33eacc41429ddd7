//! The values that labels of metrics can have. Closed sets: never an id, a hub, or a group.

use crate::protocol::ClientProtocol;
use crate::protocol::Transport;

/// A label with a fixed set of values.
pub(crate) trait Label: Copy + 'static {
    /// The label's name.
    const NAME: &'static str;
    /// Every value; `ALL[label.index()]` is `label`.
    const ALL: &'static [Self];

    /// The value's place in [`ALL`](Self::ALL).
    fn index(self) -> usize;

    /// The value as it is exposed.
    fn as_str(self) -> &'static str;
}

impl Label for ClientProtocol {
    const NAME: &'static str = "protocol";
    const ALL: &'static [Self] = &ClientProtocol::ALL;

    fn index(self) -> usize {
        ClientProtocol::index(self)
    }

    fn as_str(self) -> &'static str {
        self.name()
    }
}

impl Label for Transport {
    const NAME: &'static str = "transport";
    const ALL: &'static [Self] = &Transport::ALL;

    fn index(self) -> usize {
        Transport::index(self)
    }

    fn as_str(self) -> &'static str {
        self.name()
    }
}

macro_rules! labels {
    ($($(#[$doc:meta])* $name:ident = $label:literal {
        $($(#[$value_doc:meta])* $value:ident = $text:literal,)*
    })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub(crate) enum $name {
            $($(#[$value_doc])* $value,)*
        }

        impl Label for $name {
            const NAME: &'static str = $label;
            const ALL: &'static [Self] = &[$(Self::$value,)*];

            fn index(self) -> usize {
                self as usize
            }

            fn as_str(self) -> &'static str {
                match self {
                    $(Self::$value => $text,)*
                }
            }
        }
    )*};
}

labels! {
    /// The request of one node to another.
    ForwardLabel = "kind" {
        /// Answer a poll.
        Poll = "poll",
        /// Take the bytes of a POST.
        Post = "post",
        /// Hand a connection over to the node that has its new socket.
        Attach = "attach",
        /// Give a stateful session up whose client has come back elsewhere.
        HandOver = "hand_over",
        /// Serve calls that still run where their connection was before, or wait for its client on their behalf.
        Carry = "carry",
        /// End a connection whose client sent DELETE.
        Delete = "delete",
        /// Put a connection into a group, or take it out.
        Group = "group",
        /// Ask a client for a result.
        Invoke = "invoke",
        /// Close a connection.
        Close = "close",
        /// A newer token of a client.
        Refresh = "refresh",
        /// Let connections go.
        LetGo = "let_go",
        /// Give or take a permission, or say whether a connection has it.
        Permit = "permit",
        /// Say who a connection's client is.
        Identity = "identity",
        /// Put the connections that a filter admits into groups, or take them out.
        Regroup = "regroup",
    }

    /// The reason why a request was turned away.
    RejectLabel = "reason" {
        /// No valid token.
        Unauthorized = "unauthorized",
        /// A valid token that does not allow this.
        Forbidden = "forbidden",
        /// A connection token that no node knows.
        UnknownConnection = "unknown_connection",
        /// The request was for a host that is not in `server.allowed_hosts`.
        Host = "host",
        /// A body over `limits.http_body_bytes`.
        TooLarge = "too_large",
        /// A page of an origin that is not allowed.
        Origin = "origin",
        /// The node has `limits.connections` connections, is leaving, or takes no more just now.
        Capacity = "capacity",
        /// The caller has as many connections as it may have.
        Limited = "limited",
    }

    /// The limit that was reached: the last part of its key.
    LimitLabel = "limit" {
        /// Connections of the node.
        Connections = "connections",
        /// Connections of one user.
        ConnectionsPerUser = "connections_per_user",
        /// Connections from one address.
        ConnectionsPerAddress = "connections_per_address",
        /// TCP connections of the node.
        TcpConnections = "tcp_connections",
        /// TCP connections from one address.
        TcpConnectionsPerAddress = "tcp_connections_per_address",
        /// New connections in a second.
        HandshakesPerSecond = "handshakes_per_second",
        /// Messages of one client in a second.
        MessagesPerSecond = "messages_per_second",
        /// Bytes of one client in a second.
        BytesPerSecond = "bytes_per_second",
        /// Bytes that the node holds for its clients.
        HeldBytes = "held_bytes",
        /// Headers of a request.
        Headers = "headers",
        /// Groups of one connection.
        GroupsPerConnection = "groups_per_connection",
        /// Bytes of a client's message.
        MessageBytes = "message_bytes",
        /// Bytes of a body.
        HttpBodyBytes = "http_body_bytes",
        /// Bytes that wait for a client.
        OutboxBytes = "outbox_bytes",
    }

    /// The reason why a connection ended.
    CloseLabel = "reason" {
        /// The client said so.
        Client = "client",
        /// The server said so: a REST call or another node.
        Server = "server",
        /// Hub code ended it.
        Aborted = "aborted",
        /// The client was silent for `timeouts.client_timeout_seconds`.
        ClientTimeout = "client_timeout",
        /// No handshake within `timeouts.handshake_seconds`.
        HandshakeTimeout = "handshake_timeout",
        /// The client's message breaks the protocol.
        ProtocolError = "protocol_error",
        /// The client read too slowly for `limits.outbox_bytes` or `timeouts.send_seconds`.
        SlowConsumer = "slow_consumer",
        /// The node is leaving.
        Shutdown = "shutdown",
        /// The node had more connections than others.
        Rebalanced = "rebalanced",
        /// The socket broke, or no request came, and the client did not come back.
        TransportLost = "transport_lost",
        /// Another node owns the connection.
        Fenced = "fenced",
        /// The connection goes on on another node, or with another transport.
        Moved = "moved",
        /// A stateful session could not be continued exactly.
        LogLost = "log_lost",
        /// The client's token has ended.
        Expired = "expired",
    }

    /// The node where a stateful session was before its client came back.
    ResumeKind = "kind" {
        /// On this node.
        Local = "local",
        /// On a node that gave it up.
        HandedOver = "handed_over",
        /// On no node: it was given up in a drain, or after its node died.
        Parked = "parked",
        /// On a node that does not answer.
        ShutOut = "shut_out",
    }

    /// The outcome for a session whose client came back.
    ResumeOutcome = "outcome" {
        /// The session goes on, and nothing is missing.
        Exact = "exact",
        /// The session could not be continued exactly: the client starts anew.
        Lost = "lost",
    }

    /// How an invocation ended.
    InvocationLabel = "outcome" {
        /// The call ended with a result, or as it should.
        Ok = "ok",
        /// The call ended with an error of the method.
        Error = "error",
        /// The hub has no such method.
        UnknownMethod = "unknown_method",
        /// The arguments are not what the method takes.
        BadArguments = "bad_arguments",
    }
}
