//! Messages, and calls of clients: the most frequent operations.

use bytes::Bytes;

use crate::redis::script::declaration::{BatchScript, Scope};
use crate::redis::script::declared::script;
use crate::sessions::Version;
use crate::topic::NodeId;

script! {
    /// Publishes a message to all, a group or a user.
    Publish = "publish", Scope::Operation(BatchScript::Publishing);
    topic topic;
    keys {}
    arguments { topic: String, entry: Bytes, only_wanted: bool }
}

script! {
    /// Publishes a message to one connection.
    PublishDirect = "publish_direct", Scope::Operation(BatchScript::Publishing);
    topic topic;
    keys {}
    arguments { topic: String, entry: Bytes }
}

script! {
    /// Publishes a message, unless a request with that key has done so. Its arguments begin as those of [`Publish`] and
    /// [`PublishDirect`], which it passes on.
    PublishOnce = "publish_once", Scope::Operation(BatchScript::Publishing);
    topic topic;
    keys { request }
    arguments { topic: String, entry: Bytes, only_wanted: bool, content: Bytes }
}

script! {
    /// Reads how far a sender's numbered messages are, and prolongs the life of the count.
    Count = "count", Scope::Operation(BatchScript::Messages);
    keys { counted }
    arguments { begins: bool, life: u128 }
}

script! {
    /// Publishes the next one of a sender's numbered messages. Its arguments begin as those of [`Publish`], which it passes on.
    PublishNumbered<'a> = "publish_numbered", Scope::Operation(BatchScript::Messages);
    topic topic;
    keys { counted }
    arguments {
        topic: String,
        entry: Bytes,
        only_wanted: bool,
        number: u64,
        next_number: u64,
        last: &'a str,
        life: u128,
    }
}

script! {
    /// Appends a call's answer to its connection's topic.
    Reply<'a> = "reply", Scope::Operation(BatchScript::Messages);
    topic topic;
    keys { connection, calls }
    arguments {
        call: &'a str,
        node: &'a NodeId,
        last: bool,
        lane_prefix: String,
        topic: String,
        entry: Bytes,
        kept: u128,
    }
}

script! {
    /// Finishes a call that is not answered.
    Finish<'a> = "finish", Scope::Operation(BatchScript::Messages);
    keys { calls }
    arguments { call: &'a str, node: &'a NodeId }
}

script! {
    /// Records that messages of a client were taken, and that a node runs a call.
    Record<'a> = "record", Scope::Operation(BatchScript::Messages);
    keys { connection, calls, request: Option<String> }
    arguments {
        node: &'a NodeId,
        version: Version,
        received: Option<u64>,
        call: Option<&'a str>,
        request_life: Option<u128>,
    }
}

script! {
    /// Stores a checkpoint of a client.
    StoreCheckpoint<'a> = "checkpoint", Scope::Operation(BatchScript::Messages);
    keys { connection }
    arguments { node: &'a NodeId, version: Version, epoch: &'a str, sequence: u64, offset: u64 }
}
