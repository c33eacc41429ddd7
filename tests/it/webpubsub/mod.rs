//! Plain WebSockets and Web PubSub clients: what they can do, and how they come back.

mod official;
