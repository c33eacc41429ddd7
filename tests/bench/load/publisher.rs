//! Where messages come from.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use hubcast_tests::http::Request;
use hubcast_tests::rest::{Rest, dated};
use hubcast_tests::stamp::Stamp;
use serde_json::json;

use super::connection::{answer, refused};
use super::speaks::{Format, Speaks};
use crate::resp;

/// Where messages come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Publishes {
    /// One more client, that speaks so.
    Client(Speaks),
    /// A back end with several connections for its requests. The messages of a group take the same one, in order.
    Rest,
    /// The hub's own code, at its own pace. A client asks it to.
    InProcess,
    /// `PUBLISH`, without a gateway.
    Redis,
}

/// Connections of a back end.
const BACK_END: usize = 8;

impl Publishes {
    /// How its connections speak, and how many there are.
    pub(crate) fn connections(self) -> (Speaks, usize) {
        match self {
            Self::Client(speaks) => (speaks, 1),
            Self::InProcess => (Speaks::SIGNALR, 1),
            Self::Rest => (Speaks::Requests, BACK_END),
            Self::Redis => (Speaks::Redis, 1),
        }
    }

    /// One message as it goes onto the wire.
    pub(crate) fn message(self, stamp: Stamp, bytes: usize, requests: &Requests) -> Vec<u8> {
        let (group, text) = (format!("g{}", stamp.group), stamp.text(bytes));
        match self {
            Self::Client(Speaks::Floor) => Speaks::Floor.on_the_wire(format!("P {group} {text}").as_bytes()),
            Self::Client(speaks) => {
                let format = match speaks {
                    Speaks::SignalR { format, .. } => format,
                    _ => Format::Json,
                };
                speaks.on_the_wire(&format.call(None, "SendToGroup", &[group.into(), text.into()]))
            }
            Self::Rest => requests.message(stamp.group, &group, &text),
            Self::Redis => resp::command(&[b"PUBLISH", group.as_bytes(), text.as_bytes()]),
            Self::InProcess => Vec::new(), // it makes its own
        }
    }

    /// The call that makes the hub publish by itself; its arguments are those of the hub's method.
    pub(crate) fn order(phase: u16, groups: u32, rate: f64, count: u32, bytes: usize) -> Vec<u8> {
        let arguments = [
            phase.into(),
            groups.into(),
            rate.into(),
            count.into(),
            bytes.into(),
        ];
        Speaks::SIGNALR.on_the_wire(&Format::Json.call(None, "PublishAtRate", &arguments))
    }
}

/// The requests of a back end: one for each group, with its token.
pub(crate) struct Requests {
    node: SocketAddr,
    groups: Vec<Request>,
}

impl Requests {
    pub(crate) fn new(node: SocketAddr, groups: u32) -> Self {
        let request = |group| {
            let target = dated(&format!("/groups/g{group}/:send"));
            Rest::at(node)
                .request("POST", &target)
                .header("Content-Type", "application/json")
        };
        Self {
            node,
            groups: (0..groups).map(request).collect(),
        }
    }

    fn message(&self, index: u32, group: &str, text: &str) -> Vec<u8> {
        let body = json!({ "target": "GroupMessage", "arguments": [group, text] });
        self.groups[index as usize]
            .clone()
            .body(body.to_string())
            .bytes(self.node)
    }
}

/// The requests that wait for their turn on one connection, which answers one at a time.
#[derive(Default)]
pub(crate) struct Turn {
    is_taken: bool,
    waiting: VecDeque<Vec<u8>>,
}

impl Turn {
    /// A new request. Returns it if it may be sent now.
    pub(crate) fn begin(&mut self, request: Vec<u8>) -> Option<Vec<u8>> {
        if self.is_taken {
            self.waiting.push_back(request);
            return None;
        }
        self.is_taken = true;
        Some(request)
    }

    /// Input of the connection. Returns how much of it is done with, and the next request.
    pub(crate) fn answered(&mut self, bytes: &[u8]) -> io::Result<(usize, Option<Vec<u8>>)> {
        let Some((head, body)) = answer(bytes)? else {
            return Ok((0, None));
        };
        if !(200..300).contains(&head.status) {
            return Err(refused("a message", &head, body));
        }
        if !self.is_taken {
            return Err(ErrorKind::InvalidData.into());
        }
        let next = self.waiting.pop_front();
        self.is_taken = next.is_some();
        Ok((bytes.len(), next))
    }
}
