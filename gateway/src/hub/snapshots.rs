//! Snapshots of the states of groups, for the clients of this node. Clients that want one of the same group at the same time,
//! such as all that come back after a node died, share one read and one frame.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use bytes::Bytes;
use hubcast_backplane::{BackplaneError, GroupName, Position, StatesSnapshot};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::HubRuntime;
use crate::protocol::ClientProtocol;
use crate::protocol::webpubsub::{StatesMessage, WebPubSubProtocol};
use crate::session::Carriage;

/// The protocol in which snapshots are written. Its reliable form writes the same.
const PROTOCOL: WebPubSubProtocol = WebPubSubProtocol::Json;

/// A snapshot of a group's states, as it is sent.
#[derive(Clone)]
pub(crate) struct Snapshot {
    /// The place in the log where the states were so.
    pub(crate) position: Position,
    /// The WebSocket frame, which all clients share.
    pub(crate) frame: Bytes,
}

type Asking = oneshot::Sender<Result<Snapshot, BackplaneError>>;

/// The callers that wait for the next read of a group's states; a group is here while a task reads it.
#[derive(Default)]
pub(crate) struct SnapshotReads(Mutex<HashMap<GroupName, Vec<Asking>>>);

impl SnapshotReads {
    /// Adds a caller; `true` where no task reads the group.
    fn ask(&self, group: &GroupName, asking: Asking) -> bool {
        match self.0.lock().entry(group.clone()) {
            Entry::Occupied(waiting) => {
                waiting.into_mut().push(asking);
                false
            }
            Entry::Vacant(place) => {
                place.insert(vec![asking]);
                true
            }
        }
    }

    /// The callers of the next read. Where there are none, the group is not read any more.
    fn next(&self, group: &GroupName) -> Option<Vec<Asking>> {
        let mut reads = self.0.lock();
        let waiting = reads.get_mut(group)?;
        waiting.retain(|asking| !asking.is_closed());
        if waiting.is_empty() {
            reads.remove(group);
            return None;
        }
        Some(std::mem::take(waiting))
    }
}

impl HubRuntime {
    /// Reads the states of a group. The read begins after the call.
    pub(crate) async fn snapshot(self: &Arc<Self>, group: &GroupName) -> Result<Snapshot, BackplaneError> {
        let (asking, answer) = oneshot::channel();
        if self.snapshot_reads().ask(group, asking) {
            let (hub, group) = (Arc::clone(self), group.clone());
            self.shared().tasks().spawn(async move {
                while let Some(waiting) = hub.snapshot_reads().next(&group) {
                    let read = hub.backplane().states(&group).await;
                    let read = read.map(|states| hub.written(&group, states));
                    for asking in waiting {
                        let _ = asking.send(read.clone()); // the caller may have stopped waiting
                    }
                }
            });
        }
        answer.await.unwrap_or(Err(BackplaneError::Closed))
    }

    fn written(&self, group: &GroupName, states: StatesSnapshot) -> Snapshot {
        let message = PROTOCOL.group_states(StatesMessage::Snapshot, group.as_str(), &states.items);
        let protocol = ClientProtocol::WebPubSub(PROTOCOL);
        let frame = Carriage::Socket.carry(message.unwrap_or_default(), Some(protocol));
        Snapshot {
            position: states.position,
            frame: self.shared().budget().charge(frame),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_share_the_next_read_and_not_the_one_under_way() {
        let reads = SnapshotReads::default();
        let group = GroupName::parse("g").unwrap();
        let mut answers = Vec::new();
        let mut ask = |name: &str| {
            let (asking, answer) = oneshot::channel();
            answers.push(answer);
            reads.ask(&GroupName::parse(name).unwrap(), asking)
        };
        assert!(ask("g") && ask("h"), "each group has a task of its own");
        assert_eq!(reads.next(&group).map(|waiting| waiting.len()), Some(1));
        assert!(!ask("g") && !ask("g"), "the task goes on with these");
        assert_eq!(reads.next(&group).map(|waiting| waiting.len()), Some(2));
        assert!(!ask("g"));
        answers.clear();
        assert!(reads.next(&group).is_none(), "the only caller has gone");
        let (asking, _answer) = oneshot::channel();
        assert!(reads.ask(&group, asking), "the task has ended");
    }
}
