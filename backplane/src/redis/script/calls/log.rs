//! The log of a hub: batches of its changes, what is read of it, and what it forgets.

use crate::redis::script::declaration::{BatchScript, Part, Scope};
use crate::redis::script::declared::script;
use crate::topic::NodeId;

script! {
    /// The head of a batch: the arguments beside its operations.
    Batch<'a> = "batch", Scope::Batch;
    keys { log }
    each operations as [operation_key]
    arguments {
        node: &'a NodeId,
        number: u64,
        epoch: &'a str,
        topic_bytes: u64,
        hub_bytes: u64,
        messages: u128,
        life: u128,
        tail_life: u128,
    }
    each operations as [operation]
}

script! {
    /// Forgets slices and events that are too old or too much.
    Sweep = "sweep", Scope::Operation(BatchScript::All);
    keys {}
    arguments {
        most: u128,
        events: Option<String>,
        events_life: Option<u128>,
    }
}

script! {
    /// Begins a new epoch of a log that was last used in another run of the server, or stored in an earlier form.
    Renew<'a> = "renew", Scope::Alone(&[Part::Log]);
    keys { log }
    arguments { run: &'a str }
}

script! {
    /// Reads the epoch and the bounds of a hub's log.
    ReadExtent = "extent", Scope::Alone(&[Part::Log, Part::Reading]);
    keys { log }
    arguments { tail_life: u128 }
}

script! {
    /// Reads several topics: each of them after an offset of its own, all of them up to one offset.
    Read = "read", Scope::Alone(&[Part::Log, Part::Reading]);
    keys { log }
    each topics: [String; 2] as [tail, stream]
    arguments { upto: String, most_bytes: usize, tail_life: u128 }
    each after: u64 as [after]
}

script! {
    /// Looks for the last entries of a topic, the newest ones first.
    Newest = "newest", Scope::Alone(&[Part::Log]);
    keys { log, stream }
    arguments { upto: u64, most: usize, most_bytes: usize }
}

script! {
    /// Reads the newest offsets of topics.
    ReadTails = "tails", Scope::Alone(&[Part::Log, Part::Reading]);
    keys { log }
    each tails: String as [tail]
    arguments { tail_life: u128 }
}
