//! Calls of scripts.

use bytes::Bytes;

use crate::redis::script::declaration::Script;
use crate::redis::script::declared::Declared;

/// Bytes that a key or argument takes beside its text.
const ITEM_BYTES: usize = 16;

/// A call of a script that any run of the server can carry out.
#[derive(Debug)]
pub(in crate::redis) struct Invocation {
    pub(in crate::redis) script: &'static Script,
    pub(in crate::redis) keys: Vec<String>,
    pub(in crate::redis) arguments: Vec<Bytes>,
    /// About the time that the server takes, where 1 is the time of a simple change.
    cost: usize,
}

impl Invocation {
    pub(in crate::redis) fn of<Call: Declared>(mut call: Call) -> Self {
        let mut keys = Vec::with_capacity(Call::SCRIPT.keys.count());
        let mut arguments = Vec::with_capacity(Call::SCRIPT.arguments.count());
        call.put_keys(&mut keys);
        call.put_arguments(&mut arguments);
        Self {
            script: Call::SCRIPT,
            keys,
            arguments,
            cost: 1,
        }
    }

    /// Sets the cost: about as long as this many simple changes.
    pub(in crate::redis) fn costing(mut self, cost: usize) -> Self {
        self.cost = cost;
        self
    }

    pub(in crate::redis) fn cost(&self) -> usize {
        self.cost
    }

    /// The first key of the call: all of its keys live in the same slot.
    pub(in crate::redis) fn key(&self) -> Option<&str> {
        self.keys.first().map(String::as_str)
    }

    /// The topic that the call appends a message to, if it does.
    pub(in crate::redis) fn topic(&self) -> Option<&str> {
        let place = self.script.arguments.place(self.script.topic?)?;
        std::str::from_utf8(self.arguments.get(place)?).ok()
    }

    /// About the number of bytes that the call sends.
    pub(in crate::redis) fn weight(&self) -> usize {
        let arguments = self.arguments.iter().map(|argument| argument.len() + ITEM_BYTES);
        let keys = self.keys.iter().map(|key| key.len() + ITEM_BYTES);
        arguments.sum::<usize>() + keys.sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::script::calls::connections::Remove;
    use crate::redis::script::calls::log::Read;
    use crate::redis::script::calls::messages::{Finish, Record, Reply};
    use crate::sessions::Version;
    use crate::topic::{ConnectionId, NodeId};

    fn texts(call: &Invocation) -> Vec<&str> {
        let texts = call
            .arguments
            .iter()
            .map(|argument| std::str::from_utf8(argument).unwrap());
        texts.collect()
    }

    #[test]
    fn keys_and_arguments_go_in_the_declared_order() {
        let node = NodeId::parse("n").unwrap();
        let call = Invocation::of(Record {
            request_life: None,
            call: Some("c"),
            received: Some(3),
            version: Version(2),
            node: &node,
            request: None,
            calls: "calls".to_owned(),
            connection: "connection".to_owned(),
        });
        assert_eq!(call.keys, ["connection", "calls"]);
        assert_eq!(texts(&call), ["n", "2", "3", "c", ""]);
        assert_eq!((call.key(), call.topic()), (Some("connection"), None));
        let call = Invocation::of(Read {
            log: "log".to_owned(),
            topics: vec![["t1", "s1"].map(str::to_owned), ["t2", "s2"].map(str::to_owned)],
            upto: "+".to_owned(),
            most_bytes: 10,
            tail_life: 20,
            after: vec![5, 6],
        });
        assert_eq!(call.keys, ["log", "t1", "s1", "t2", "s2"]);
        assert_eq!(texts(&call), ["+", "10", "20", "5", "6"]);
    }

    #[test]
    fn what_is_missing_takes_its_place() {
        let (id, node) = (ConnectionId::parse("id").unwrap(), NodeId::parse("n").unwrap());
        let call = Invocation::of(Remove {
            connection: String::new(),
            groups: String::new(),
            owned: String::new(),
            tombstone: String::new(),
            stream: String::new(),
            tail: String::new(),
            calls: String::new(),
            parked: String::new(),
            group_names: String::new(),
            leaving: String::new(),
            ended: String::new(),
            owner: None,
            id: &id,
            tombstone_life: 0,
            removal: "",
            group_prefix: String::new(),
            user_prefix: String::new(),
            presence: None,
            most: 8,
            early: true,
            known_in: String::new(),
            reports: false,
            reporter: None,
            report: None,
            version: None,
            events: None,
            assignee: &node,
            reason: "",
            reported: None,
        });
        assert_eq!(call.keys.len(), Remove::SCRIPT.keys.count());
        assert_eq!(call.arguments.len(), Remove::SCRIPT.arguments.count());
        let place = Remove::SCRIPT.arguments.place("early").unwrap();
        assert_eq!(texts(&call)[place - 1..=place], ["8", "1"]);
    }

    #[test]
    fn the_topic_of_a_message_is_found_by_its_name() {
        let node = NodeId::parse("n").unwrap();
        let reply = Invocation::of(Reply {
            connection: String::new(),
            calls: String::new(),
            call: "1",
            node: &node,
            last: true,
            lane_prefix: "lane:".to_owned(),
            topic: "c:id".to_owned(),
            entry: Bytes::new(),
            kept: 10,
        });
        assert_eq!(reply.topic(), Some("c:id"));
        let finish = Invocation::of(Finish {
            calls: String::new(),
            call: "1",
            node: &node,
        });
        assert_eq!(finish.topic(), None);
    }
}
