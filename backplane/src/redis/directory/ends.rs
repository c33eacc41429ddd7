//! Decides which node reports a connection's end. The removal writes an end record that names the node; that node
//! reports the end and then deletes the record. Records of nodes that died, or that name no node, are adopted by
//! another one.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use redis::Value;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, info};

use crate::backplane::ConnectionRecord;
use crate::error::BackplaneError;
use crate::events::EventRecord;
use crate::redis::feed::hub::Hub;
use crate::redis::inner::Inner;
use crate::redis::node::nodes::ABSENCES;
use crate::redis::script::calls::connections::Adopt;
use crate::redis::script::invocation::Invocation;
use crate::redis::script::writer::Patience;
use crate::redis::server::commands::Repeat;
use crate::redis::server::replies::{decode, items, malformed};
use crate::sessions::SessionState;
use crate::topic::{ConnectionId, NodeId, UserId};

/// End records that are looked at in one round trip.
const PAGE: usize = 100;

/// The ends that this node reports.
#[derive(Default)]
pub(in crate::redis) struct Ends {
    /// Connections with the number of their removals: one that was too late must not end the report of another.
    reporting: HashMap<ConnectionId, usize>,
    reported: Vec<ConnectionId>,
}

impl Ends {
    /// This node reports the end, or may be about to.
    pub(in crate::redis) fn begin(&mut self, id: ConnectionId) {
        *self.reporting.entry(id).or_default() += 1;
    }

    /// This node does not report the end.
    pub(in crate::redis) fn abandon(&mut self, id: &ConnectionId) {
        if let Some(count) = self.reporting.get_mut(id) {
            *count -= 1;
            if *count == 0 {
                self.reporting.remove(id);
            }
        }
    }

    pub(in crate::redis) fn is_empty(&self) -> bool {
        self.reporting.is_empty()
    }
}

/// An end record, as the server has it.
struct Note {
    reporter: Option<NodeId>,
    user: Option<UserId>,
    report: Bytes,
    state: Option<SessionState>,
    /// The whole record without the reporting node.
    rest: Bytes,
}

impl Note {
    /// Reads an end record that `remove.lua` wrote.
    fn read(text: &Bytes) -> Option<Self> {
        let line = |from: usize| {
            let end = from + text.get(from..)?.iter().position(|byte| *byte == b'\n')?;
            Some((std::str::from_utf8(text.get(from..end)?).ok()?, end + 1))
        };
        let (reporter, user_at) = line(0)?;
        let (user, length_at) = line(user_at)?;
        let (length, report_at) = line(length_at)?;
        let state_at = report_at.checked_add(length.parse().ok()?)?;
        let state = text.get(state_at..)?;
        Some(Self {
            reporter: NodeId::parse(reporter).ok(),
            user: UserId::from_stored(user).ok(),
            report: text.slice(report_at..state_at),
            state: state.strip_prefix(b"s").map(SessionState::copy_from_slice),
            rest: text.slice(user_at..),
        })
    }

    fn reported_by(&self, reporter: &NodeId) -> Bytes {
        [reporter.as_str().as_bytes(), b"\n", self.rest.as_ref()]
            .concat()
            .into()
    }
}

/// Nodes that are to report ends or deliver events and that this node has not seen alive, with the number of this node's own beats by then.
pub(in crate::redis) type Missing = HashMap<Option<NodeId>, u64>;

impl Inner {
    /// Finishes other nodes' work until closing: expired connections, unfinished removals and ends that no node
    /// reports.
    pub(in crate::redis) async fn run_housekeeping(self: Arc<Self>, hub: Arc<Hub>) {
        let mut ticks = interval(self.options.heartbeat_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut missing, mut cursor) = (Missing::new(), 0);
        loop {
            let round = async {
                ticks.tick().await;
                // A node that has no service yet to notify of removed connections must not remove any.
                if self.service().is_none() || self.nodes.is_barred() {
                    return Ok(());
                }
                self.remove_expired(&hub).await?;
                self.unlist_overdue(&hub).await?;
                if hub.scripts.options.reports_ends {
                    cursor = self.adopt_some(&hub, cursor, &mut missing).await?;
                }
                if hub
                    .scripts
                    .options
                    .events
                    .as_ref()
                    .is_some_and(|events| events.deliver)
                {
                    self.tend_events(&hub, &mut missing).await?;
                }
                Ok::<_, BackplaneError>(())
            };
            tokio::select! {
                () = self.closing.cancelled() => return,
                outcome = round => if let Err(error) = outcome {
                    debug!(hub = %hub.name, %error, "a hub can't be tidied up yet");
                },
            }
        }
    }

    /// Adopts end records of one page. Returns the cursor of the next one.
    async fn adopt_some(&self, hub: &Hub, cursor: u64, missing: &mut Missing) -> Result<u64, BackplaneError> {
        let mut command = redis::cmd("HSCAN");
        command
            .arg(hub.scripts.keys.ended())
            .arg(cursor)
            .arg("COUNT")
            .arg(PAGE);
        let answer = items(self.commands.command(&command, Repeat::Safe).await?)?;
        let Ok([next, found]) = <[Value; 2]>::try_from(answer) else {
            return Err(malformed("a page of ends of another length"));
        };
        let found: Vec<(String, Bytes)> = decode(found)?;
        for (id, text) in found {
            let (Ok(id), Some(note)) = (ConnectionId::parse(id), Note::read(&text)) else {
                continue;
            };
            if self.is_forsaken(hub, &id, note.reporter.as_ref(), missing) {
                self.adopt(hub, &id, &text, note).await?;
            }
        }
        if missing.len() > PAGE {
            missing.clear(); // they are found again
        }
        decode(next)
    }

    /// Returns whether no node is going to report an end.
    fn is_forsaken(
        &self,
        hub: &Hub,
        id: &ConnectionId,
        reporter: Option<&NodeId>,
        missing: &mut Missing,
    ) -> bool {
        match reporter {
            Some(reporter) if *reporter == self.options.node => {
                // Else the answer to its removal was lost for good. An end is reported before its departure is
                // finished.
                let departs = hub.local.lock().departures.contains(id);
                !departs && !hub.ends.lock().reporting.contains_key(id)
            }
            reporter => self.is_gone(reporter, missing),
        }
    }

    /// Returns whether a node is not alive, as several beats of this one have shown; `None` for a node without a
    /// name.
    pub(in crate::redis) fn is_gone(&self, node: Option<&NodeId>, missing: &mut Missing) -> bool {
        if node.is_some_and(|node| self.nodes.living().borrow().contains(node)) {
            missing.remove(&node.cloned());
            return false;
        }
        let beats = *self.nodes.beats().borrow();
        beats >= *missing.entry(node.cloned()).or_insert(beats) + ABSENCES
    }

    async fn adopt(
        &self,
        hub: &Hub,
        id: &ConnectionId,
        found: &Bytes,
        note: Note,
    ) -> Result<(), BackplaneError> {
        let Some(service) = self.service() else {
            return Ok(());
        };
        hub.ends.lock().begin(id.clone());
        let call = adopt_call(hub, id, found.clone(), note.reported_by(&self.options.node));
        let adopted = match hub.scripts.writer.carry_out(call, Patience::Short).await {
            Ok(answer) => decode::<bool>(answer),
            Err(error) => Err(error),
        };
        if !matches!(adopted, Ok(true)) {
            hub.ends.lock().abandon(id);
            return adopted.map(drop);
        }
        info!(hub = %hub.name, connection_id = %id, "running the disconnect hook of a connection whose node died before it could");
        let connection = ConnectionRecord {
            id: id.clone(),
            user: note.user,
            state: note.state,
            event: EventRecord::default(),
        };
        service.orphan_removed(&hub.name, connection, note.report);
        Ok(())
    }

    /// Returns whether this node still has to report an end: while it was paused, another node may have adopted the
    /// record.
    pub(in crate::redis) async fn is_reporter(&self, hub: &Hub, id: &ConnectionId) -> bool {
        if !hub.scripts.options.reports_ends || self.nodes.is_fresh(self.options.lease / 2) {
            return true;
        }
        let mut command = redis::cmd("HGET");
        command.arg(hub.scripts.keys.ended()).arg(id.as_str());
        let noted = match self.commands.command(&command, Repeat::Safe).await {
            Ok(noted) => decode::<Option<Bytes>>(noted).ok().flatten(),
            Err(error) => {
                // The record stays: this node, or another one, finds it.
                debug!(hub = %hub.name, connection_id = %id, %error, "it is not known which node reports an end");
                None
            }
        };
        let reporter = noted.and_then(|noted| Note::read(&noted)?.reporter);
        let is_reporter = reporter.as_ref() == Some(&self.options.node);
        if !is_reporter {
            hub.ends.lock().abandon(id);
        }
        is_reporter
    }

    /// Queues the deletion of a record whose end was reported.
    pub(in crate::redis) fn end_reported(&self, hub: &Hub, id: &ConnectionId) {
        if hub.scripts.options.reports_ends {
            hub.ends.lock().reported.push(id.clone());
            hub.reports.notify_one();
        }
    }

    pub(in crate::redis) async fn run_reports(self: Arc<Self>, hub: Arc<Hub>) {
        self.whenever(&hub.reports, "notes of ends can't be taken away yet", || {
            self.forget_reported(&hub).boxed()
        })
        .await;
    }

    pub(in crate::redis) async fn forget_reported(&self, hub: &Hub) -> Result<(), BackplaneError> {
        loop {
            let reported: Vec<_> = hub.ends.lock().reported.iter().take(PAGE).cloned().collect();
            if reported.is_empty() {
                return Ok(());
            }
            let mut command = redis::cmd("HDEL");
            command.arg(hub.scripts.keys.ended());
            for id in &reported {
                command.arg(id.as_str());
            }
            self.commands.command(&command, Repeat::Safe).await?;
            let mut ends = hub.ends.lock();
            let reported: HashSet<_> = reported.into_iter().collect();
            ends.reported.retain(|id| !reported.contains(id));
            ends.reporting.retain(|id, _| !reported.contains(id));
        }
    }
}

fn adopt_call(hub: &Hub, id: &ConnectionId, found: Bytes, mine: Bytes) -> Invocation {
    Invocation::of(Adopt {
        ended: hub.scripts.keys.ended(),
        id,
        found,
        mine,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_as_the_script_writes_it() {
        let text = Bytes::from_static(b"n1\nann\n4\nl\n\nxs\nstate");
        let note = Note::read(&text).unwrap();
        assert_eq!(note.reporter, NodeId::parse("n1").ok());
        assert_eq!(note.user, UserId::parse("ann").ok());
        assert_eq!(note.report, "l\n\nx");
        assert_eq!(note.state, Some(SessionState::from_static(b"\nstate")));
        let other = NodeId::parse("n22").unwrap();
        assert_eq!(note.reported_by(&other), "n22\nann\n4\nl\n\nxs\nstate");
        let nobody = Note::read(&Bytes::from_static(b"\n\n0\n")).unwrap();
        assert!(nobody.reporter.is_none() && nobody.user.is_none() && nobody.state.is_none());
        assert!(Note::read(&Bytes::from_static(b"n1\nann\n9\nshort")).is_none());
    }
}
