//! Adds entries of the log to the outboxes of the sessions that receive them, and writes them.
//!
//! Each session that something was added for is written to once, at the end of the batch: the more a batch has, the fewer
//! writes. Order holds however the writing is shared out, because a session's frames wait in its outbox, and whoever writes
//! holds that.

use std::sync::Arc;

use hubcast_backplane::wire::Envelope;
use hubcast_backplane::{Delivery, Gap, Message};
use tokio_util::task::TaskTracker;

use super::{Audience, Sink};
use crate::protocol::ClientProtocol;
use crate::session::{Appended, CloseReason, Delivered, Frames, Sent, Session};
use crate::telemetry::trace;

/// As many sessions are written to by one task. Writing takes some microseconds for each.
const SHARE: usize = 256;

/// Takes entries in log order. Never waits: a session whose outbox is full is closed, the others are not held up.
pub(super) fn deliver(sink: &Sink, deliveries: &[Delivery]) {
    let mut dirty = Dirty::default();
    for delivery in deliveries {
        match delivery {
            Delivery::Message(message) => deliver_message(sink, message, &mut dirty),
            Delivery::Joined {
                connection, topics, ..
            } => {
                if let Some(session) = sink.registry().find(connection) {
                    topics
                        .iter()
                        .for_each(|topic| sink.registry().add(&session, topic));
                }
            }
            Delivery::Left {
                connection, topics, ..
            } => {
                if let Some(session) = sink.registry().find(connection) {
                    topics
                        .iter()
                        .for_each(|topic| sink.registry().leave(&session, topic));
                }
            }
            Delivery::Taken { connection, .. } => {
                if let Some(session) = sink.registry().find(connection) {
                    session.close(CloseReason::Moved);
                }
            }
            Delivery::Gap(gap) => note_gap(sink, gap),
        }
    }
    dirty.write(sink.shared().tasks());
}

/// Sessions whose outboxes have something that is to be written.
#[derive(Default)]
struct Dirty(Vec<Arc<Session>>);

impl Dirty {
    /// Writes to them: to few in place, to many by several tasks, so that all cores take part and the next batch need not
    /// wait. What that adds meanwhile for a session that is still to be written to goes out with the same write.
    fn write(mut self, tasks: &TaskTracker) {
        if self.0.len() <= SHARE {
            return flush(&self.0);
        }
        while !self.0.is_empty() {
            let share = self.0.split_off(self.0.len().saturating_sub(SHARE));
            tasks.spawn(async move { flush(&share) });
        }
    }
}

/// Writes to sessions of one hub. The counters, which all cores share, are changed once and not for each receiver.
fn flush(sessions: &[Arc<Session>]) {
    let mut sums = ClientProtocol::ALL.map(|protocol| (protocol, Sent::default()));
    for session in sessions {
        let sent = session.flush();
        let protocol = session.connection().protocol();
        if let Some((_, sum)) = protocol.and_then(|protocol| sums.get_mut(protocol.index())) {
            sum.add(sent);
        }
    }
    if let Some(session) = sessions.first() {
        for (protocol, sum) in sums {
            sum.count(session.hub().shared().metrics(), protocol);
        }
    }
}

fn deliver_message(sink: &Sink, message: &Message, dirty: &mut Dirty) {
    let envelope = &*message.envelope;
    if let Some(reason) = closing(envelope) {
        return close(sink, message, &reason);
    }
    let metrics = sink.shared().metrics();
    let span = if envelope.traceparent.is_empty() {
        tracing::Span::none()
    } else {
        let span = tracing::info_span!(target: trace::TARGET, "hub.deliver", hub = %sink.hub(), method = %envelope.target, otel.kind = "consumer");
        trace::set_parent(&span, &envelope.traceparent, &envelope.tracestate);
        span
    };
    let _entered = span.enter();
    let frames = Frames::new(message, sink.shared()).at(sink.hub(), sink.epoch());
    let Some(audience) = Audience::of(envelope, || sink.shared().backplane().now()) else {
        return;
    };
    let mut delivered = 0_u64;
    for receivers in sink.registry().receivers(&message.topic) {
        for session in receivers.iter().filter(|session| audience.holds(session)) {
            match session.deliver(&frames, message.offset) {
                Delivered::No => continue,
                Delivered::Yes(Appended::Offered) => {}
                Delivered::Yes(Appended::Unwritten) => dirty.0.push(Arc::clone(session)),
            }
            delivered += 1;
        }
    }
    metrics.fanout_messages.inc();
    metrics.deliveries.inc_by(delivered);
}

/// The reason why an envelope ends its receivers, if it does.
fn closing(envelope: &Envelope) -> Option<CloseReason> {
    let close = envelope.close.as_ref()?;
    Some(if close.lost {
        CloseReason::LogLost("a message of the client was lost with the node that took it")
    } else {
        CloseReason::Closed {
            reason: close.reason.clone(),
        }
    })
}

fn close(sink: &Sink, message: &Message, reason: &CloseReason) {
    let audience = Audience::of_close(&message.envelope);
    for receivers in sink.registry().receivers(&message.topic) {
        for session in receivers.iter().filter(|session| audience.holds(session)) {
            session.close(reason.clone());
        }
    }
}

/// Keeps the messages of a session, in their order, before the first that ends it. Returns how it ends.
pub(crate) fn cut_at_close(messages: &mut Vec<Message>, session: &Session) -> Option<CloseReason> {
    let ends = |message: &Message| {
        let envelope = &*message.envelope;
        closing(envelope).filter(|_| Audience::of_close(envelope).holds(session))
    };
    let (index, reason) = messages
        .iter()
        .enumerate()
        .find_map(|(index, message)| Some((index, ends(message)?)))?;
    messages.truncate(index);
    Some(reason)
}

/// Ordinary clients were promised nothing about a lost backplane: they stay connected, and operators see it. Stateful
/// sessions were promised to be exact, so they end; readers are notified.
fn note_gap(sink: &Sink, gap: &Gap) {
    let lost = CloseReason::LogLost("the backplane lost messages");
    let end = |session: &Arc<Session>| {
        if session.is_stateful() {
            session.close(lost.clone());
        }
        session.report_gap(gap);
        session.states_may_lack(gap);
    };
    if let Gap::NewEpoch(epoch) = gap {
        sink.begin_epoch(epoch);
    }
    match gap {
        Gap::NewEpoch(epoch) => {
            tracing::warn!(hub = %sink.hub(), %epoch, "the backplane began a new log; messages before it may be lost");
            sink.registry().all().iter().for_each(&end);
        }
        Gap::Trimmed(topic) => {
            let receivers: Vec<_> = sink.registry().receivers(topic).collect();
            if receivers.is_empty() {
                return; // such as a connection that went on elsewhere while this node was paused
            }
            tracing::warn!(hub = %sink.hub(), "messages were trimmed from the log before this node could read them");
            receivers
                .iter()
                .for_each(|receivers| receivers.iter().for_each(&end));
        }
    }
    sink.shared().metrics().log_gaps.inc();
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Arc;

    use bytes::Bytes;
    use hubcast_backplane::memory::MemoryBackplane;
    use hubcast_backplane::{ConnectionId, GroupName, NodeId, Topic, wire};

    use super::*;
    use crate::auth::Identity;
    use crate::cluster::Cluster;
    use crate::hub::{CheckedHub, Connection, Hub, HubRuntime, RequestInfo, Shared};
    use crate::options::Options;
    use crate::protocol::HubProtocol;
    use crate::session::Carriage;
    use crate::session::Taken;
    use crate::telemetry::metrics::Metrics;

    async fn hub(options: Options) -> Arc<HubRuntime> {
        let backplane = Arc::new(MemoryBackplane::new(NodeId::parse("n").unwrap()));
        let shared = Arc::new(Shared::new(
            options,
            backplane,
            Arc::new(Cluster),
            Arc::new(Metrics::new()),
        ));
        let checked = CheckedHub::new(Hub::new("h"), shared.options()).unwrap();
        Arc::new(HubRuntime::open(checked, shared).await.unwrap())
    }

    fn member(hub: &Arc<HubRuntime>, id: &str, protocol: HubProtocol, topic: &Topic) -> Arc<Session> {
        let connection = Connection::new(
            ConnectionId::parse(id).unwrap(),
            Identity::anonymous(),
            RequestInfo::default(),
        );
        connection.set_protocol(protocol);
        let session = Session::new(Arc::clone(hub), connection);
        hub.registry().insert(&session);
        hub.registry().add(&session, topic);
        session
    }

    fn message(topic: &Topic, offset: u64, except: &[&str]) -> Delivery {
        let envelope = wire::Envelope {
            target: "Say".to_owned(),
            arguments: vec![Bytes::from_static(b"\"hi\"")],
            except: except.iter().map(ToString::to_string).collect(),
            ..wire::Envelope::default()
        };
        Delivery::Message(Message {
            topic: topic.clone(),
            offset,
            envelope: Arc::new(envelope),
        })
    }

    /// The frames that wait for a session, after the handshake response.
    async fn received(session: &Session) -> Vec<Bytes> {
        session.open_for_test();
        let mut frames = Vec::new();
        assert_eq!(session.take_frames(&mut frames, usize::MAX).await, Taken::Some);
        frames.split_off(1)
    }

    #[tokio::test]
    async fn two_thousand_receivers_share_one_buffer_for_each_protocol() {
        let hub = hub(Options::default()).await;
        let topic = Topic::Group(GroupName::parse("g").unwrap());
        let protocol = |n: usize| {
            if n.is_multiple_of(2) {
                HubProtocol::Json
            } else {
                HubProtocol::MessagePack
            }
        };
        let members: Vec<_> = (0..2_000)
            .map(|n| member(&hub, &format!("c{n}"), protocol(n), &topic))
            .collect();
        deliver(hub.sink(), &[message(&topic, 1, &[])]);

        let mut buffers = HashSet::new();
        for session in &members {
            let frames = received(session).await;
            assert_eq!(frames.len(), 1);
            buffers.insert(frames[0].as_ptr());
        }
        assert_eq!(buffers.len(), 2, "a payload was copied for a receiver");
        let metrics = hub.shared().metrics();
        for protocol in HubProtocol::ALL {
            assert_eq!(metrics.encodes.get(protocol.into()).get(), 1, "{protocol}");
        }
        assert_eq!(metrics.deliveries.get(), 2_000);
    }

    #[tokio::test]
    async fn a_protocol_that_nobody_speaks_is_not_encoded_and_exclusions_hold() {
        let hub = hub(Options::default()).await;
        let a = member(&hub, "a", HubProtocol::Json, &Topic::All);
        let b = member(&hub, "b", HubProtocol::Json, &Topic::All);
        let many: Vec<String> = (0..20).map(|n| format!("x{n}")).chain(["a".to_owned()]).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        deliver(
            hub.sink(),
            &[message(&Topic::All, 1, &["b"]), message(&Topic::All, 2, &many)],
        );
        assert_eq!((received(&a).await.len(), received(&b).await.len()), (1, 1));
        let metrics = hub.shared().metrics();
        assert_eq!(metrics.encodes.get(HubProtocol::MessagePack.into()).get(), 0);
        assert_eq!(metrics.encodes.get(HubProtocol::Json.into()).get(), 2);
    }

    #[tokio::test]
    async fn a_full_outbox_closes_its_session_and_no_other() {
        let mut options = Options::default();
        options.limits.message_bytes = 256;
        options.limits.outbox_bytes = 256;
        let hub = hub(options).await;
        let slow = member(&hub, "slow", HubProtocol::Json, &Topic::All);
        let quick = member(&hub, "quick", HubProtocol::Json, &Topic::All);
        quick.open_for_test();
        let mut count = 0;
        for offset in 1..=40 {
            deliver(hub.sink(), &[message(&Topic::All, offset, &[])]);
            let mut frames = Vec::new();
            quick.take_frames(&mut frames, usize::MAX).await;
            count += frames.len();
        }
        assert_eq!(count, 1 + 40, "the handshake's answer and every message");
        assert!(matches!(slow.reason(), Some(CloseReason::SlowConsumer { .. })));
        assert!(quick.reason().is_none());
    }

    fn close(topic: &Topic, offset: u64, except: &[&str]) -> Message {
        let envelope = wire::Envelope {
            close: Some(Box::new(wire::Close {
                reason: Some("bye".to_owned()),
                lost: false,
            })),
            except: except.iter().map(ToString::to_string).collect(),
            ..wire::Envelope::default()
        };
        Message {
            topic: topic.clone(),
            offset,
            envelope: Arc::new(envelope),
        }
    }

    #[tokio::test]
    async fn the_end_of_connections_spares_others_and_says_nothing_to_them() {
        let hub = hub(Options::default()).await;
        let group = Topic::Group(GroupName::parse("g").unwrap());
        let ended = member(&hub, "ended", HubProtocol::Json, &group);
        let spared = member(&hub, "spared", HubProtocol::Json, &group);
        let other = member(&hub, "other", HubProtocol::Json, &Topic::All);
        let end = close(&group, 2, &["spared"]);
        deliver(hub.sink(), &[message(&group, 1, &[]), Delivery::Message(end)]);
        let closed = CloseReason::Closed {
            reason: Some("bye".to_owned()),
        };
        assert_eq!(ended.reason(), Some(&closed));
        assert_eq!((spared.reason(), other.reason()), (None, None));
        assert_eq!(received(&ended).await.len(), 1);
        assert_eq!(received(&spared).await.len(), 1);
    }

    #[tokio::test]
    async fn what_is_replayed_ends_with_the_connection() {
        let hub = hub(Options::default()).await;
        let session = member(&hub, "a", HubProtocol::Json, &Topic::All);
        let replayed = |delivery| match delivery {
            Delivery::Message(message) => message,
            other => panic!("{other:?}"),
        };
        let mut messages: Vec<_> = [1, 2]
            .map(|offset| replayed(message(&Topic::All, offset, &[])))
            .into();
        messages.insert(1, close(&Topic::All, 3, &["a"]));
        let whole = messages.len();
        assert_eq!(cut_at_close(&mut messages, &session), None);
        assert_eq!(messages.len(), whole);
        messages.push(close(&Topic::All, 4, &["b"]));
        messages.push(replayed(message(&Topic::All, 5, &[])));
        assert!(matches!(
            cut_at_close(&mut messages, &session),
            Some(CloseReason::Closed { .. })
        ));
        assert_eq!(messages.len(), whole);
        let spoken = messages.iter().filter_map(|message| {
            Frames::new(message, hub.shared()).get(HubProtocol::Json.into(), Carriage::Plain)
        });
        assert_eq!(spoken.count(), 2);
    }

    #[tokio::test]
    async fn memberships_begin_and_end_at_their_place_in_the_log() {
        let hub = hub(Options::default()).await;
        let group = Topic::Group(GroupName::parse("g").unwrap());
        let session = member(&hub, "c", HubProtocol::Json, &Topic::All);
        let (connection, topics) = (session.id().clone(), vec![group.clone()]);
        deliver(
            hub.sink(),
            &[
                message(&group, 1, &[]),
                Delivery::Joined {
                    connection: connection.clone(),
                    topics: topics.clone(),
                    offset: 2,
                },
                message(&group, 3, &[]),
                Delivery::Left {
                    connection,
                    topics,
                    offset: 4,
                },
                message(&group, 5, &[]),
            ],
        );
        assert_eq!(received(&session).await.len(), 1);
        hub.registry().remove(&session);
        assert_eq!(hub.registry().len(), 0);
        assert_eq!(
            hub.registry().receivers(&Topic::All).count(),
            0,
            "a list was left behind"
        );
    }
}
