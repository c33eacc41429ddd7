//! Pushes entries of the log to the outboxes of the sessions that receive them.

use std::collections::HashSet;

use hubcast_backplane::{Delivery, Gap, Message};

use super::encode::Frames;
use crate::hub::HubRuntime;
use crate::session::Session;
use crate::telemetry::trace;

/// Exclusion lists up to this length are searched one by one.
const SHORT_LIST: usize = 8;

/// Takes entries in log order. Never waits: a session whose outbox is full is closed, the others are not held up.
pub(crate) fn deliver(hub: &HubRuntime, deliveries: &[Delivery]) {
    for delivery in deliveries {
        match delivery {
            Delivery::Message(message) => deliver_message(hub, message),
            Delivery::Joined {
                connection, topics, ..
            } => {
                if let Some(session) = hub.registry().find(connection) {
                    topics
                        .iter()
                        .for_each(|topic| hub.registry().add(&session, topic));
                }
            }
            Delivery::Left {
                connection, topics, ..
            } => {
                if let Some(session) = hub.registry().find(connection) {
                    topics
                        .iter()
                        .for_each(|topic| hub.registry().leave(&session, topic));
                }
            }
            Delivery::Gap(gap) => note_gap(hub, gap),
        }
    }
}

fn deliver_message(hub: &HubRuntime, message: &Message) {
    let envelope = &*message.envelope;
    let metrics = hub.shared().metrics();
    let span = if envelope.traceparent.is_empty() {
        tracing::Span::none()
    } else {
        let span = tracing::info_span!(target: "hubcast::trace", "hub.deliver", hub = %hub.name(), method = %envelope.target, otel.kind = "consumer");
        trace::set_parent(&span, &envelope.traceparent, &envelope.tracestate);
        span
    };
    let _entered = span.enter();
    let frames = Frames::new(envelope, metrics);
    let except = Except::new(&envelope.except);
    let mut delivered = 0_u64;
    for receivers in hub.registry().receivers(&message.topic) {
        for session in receivers.iter().filter(|session| !except.holds(session)) {
            delivered += u64::from(session.deliver(&frames));
        }
    }
    metrics.fanout_messages.inc();
    metrics.deliveries.inc_by(delivered);
}

/// Ordinary clients were promised nothing about a lost backplane: they stay connected, and operators see it.
fn note_gap(hub: &HubRuntime, gap: &Gap) {
    hub.shared().metrics().log_gaps.inc();
    match gap {
        Gap::NewEpoch(epoch) => {
            tracing::warn!(hub = %hub.name(), %epoch, "the backplane began a new log; messages before it may be lost");
        }
        Gap::Trimmed(_) => {
            tracing::warn!(hub = %hub.name(), "messages were trimmed from the log before this node could read them");
        }
    }
}

/// Connections that do not receive a message.
enum Except<'a> {
    Few(&'a [String]),
    Many(HashSet<&'a str>),
}

impl<'a> Except<'a> {
    fn new(list: &'a [String]) -> Self {
        if list.len() <= SHORT_LIST {
            Self::Few(list)
        } else {
            Self::Many(list.iter().map(String::as_str).collect())
        }
    }

    fn holds(&self, session: &Session) -> bool {
        match self {
            Self::Few(list) => list.iter().any(|id| id == session.id().as_str()),
            Self::Many(set) => set.contains(session.id().as_str()),
        }
    }
}
