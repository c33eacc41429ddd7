//! A session carries out the messages of its client, in their order.

use std::future::ready;

use axum::extract::ws::close_code;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::{Instant, timeout};

use super::CloseReason;
use super::completions::call_name;
use super::run::Conversation;
use super::sequence::Arrival;
use crate::protocol::webpubsub::WebPubSubProtocol;
use crate::protocol::{ClientDecoder, ClientMessage, DecodeError, HubMessage};
use crate::telemetry::labels::LimitLabel;

/// The reason why messages are no longer handled.
enum Failed {
    At(CloseReason),
    /// What the client sent can't be read. Its calls before that come to their end.
    Decoding(DecodeError),
}

impl From<CloseReason> for Failed {
    fn from(reason: CloseReason) -> Self {
        Self::At(reason)
    }
}

impl From<DecodeError> for Failed {
    fn from(error: DecodeError) -> Self {
        Self::Decoding(error)
    }
}

impl Conversation<'_> {
    /// Handles whole messages as long as there are some and a slot is free. Returns the rest of what is to be done before
    /// the next one; `None` where all was handled.
    pub(super) fn handle_decoded(&mut self) -> Option<BoxFuture<'_, Result<(), CloseReason>>> {
        let handled = self.handle_ready();
        let waits = match handled {
            Ok(None) => return None,
            Ok(Some(message)) => return Some(self.handle(*message).boxed()),
            Err(Failed::At(reason)) => return Some(ready(Err(reason)).boxed()),
            Err(Failed::Decoding(error)) => error,
        };
        let failing = async move {
            self.finish_calls().await;
            Err(CloseReason::from_decode(&waits))
        };
        Some(failing.boxed())
    }

    /// Handles messages up to one that is given back because something is to be waited for.
    fn handle_ready(&mut self) -> Result<Option<Box<HubMessage>>, Failed> {
        while self.may_read() && !self.session.closing.is_cancelled() {
            let before = self.decoder.buffered_bytes();
            match self.decoder.next_message() {
                Ok(None) if std::mem::take(&mut self.broke_off) => self.resumed(),
                Ok(None) => {
                    self.keep_tail()?;
                    return Ok(None);
                }
                Ok(Some(message)) => {
                    self.heard = Instant::now();
                    self.measure(&message, before.saturating_sub(self.decoder.buffered_bytes()));
                    if let Some(message) = self.handle_at_once(message)? {
                        return Ok(Some(Box::new(message)));
                    }
                }
                Err(error) => {
                    if matches!(error, DecodeError::TooLarge { .. }) {
                        self.count(LimitLabel::MessageBytes);
                    }
                    return Err(error.into());
                }
            }
        }
        self.tail.end();
        Ok(None)
    }

    /// Calls that came before a mistake are finished first, if that does not take long.
    async fn finish_calls(&mut self) {
        let patience = self.session.hub.options().timeouts.close;
        let finishing = async {
            while self.invocations.has_calls() {
                self.invocations.next().await;
            }
        };
        tokio::select! {
            () = self.session.closing.cancelled() => {}
            _ = timeout(patience, finishing) => {}
        }
    }

    /// Charges the client for a message that has begun.
    fn keep_tail(&mut self) -> Result<(), CloseReason> {
        match self.decoder.buffered_bytes() {
            0 => self.tail.end(),
            bytes => {
                self.tail.begin();
                self.tail.keep(bytes).map_err(|_| CloseReason::NoRoom)?;
            }
        }
        Ok(())
    }

    fn measure(&self, message: &ClientMessage, bytes: usize) {
        let counted = match message {
            ClientMessage::Hub(message) => message.is_counted(),
            ClientMessage::Request(_) => true,
        };
        self.session.measure(counted, bytes);
    }

    fn count(&self, reached: LimitLabel) {
        self.session.hub.shared().metrics().limited.get(reached).inc();
    }

    /// The client begins a message anew on its new socket; its Sequence says with which one.
    pub(super) fn resumed(&mut self) {
        let limit = self.session.hub.options().limits.message_bytes;
        self.decoder = ClientDecoder::new(self.protocol, limit);
        self.tail.end();
        self.awaits_sequence = self.protocol.numbers_messages();
        self.heard = Instant::now();
    }

    /// Handles a message, or gives back one for which something has to be waited for.
    fn handle_at_once(&mut self, message: ClientMessage) -> Result<Option<HubMessage>, CloseReason> {
        self.release();
        match message {
            ClientMessage::Request(request) => {
                self.count_received();
                self.session.gets_further();
                self.invocations.begin_request(self.session, request);
                Ok(None)
            }
            ClientMessage::Hub(message) => {
                let waits = self.session.is_stateful()
                    || self.carrier.is_some()
                    || self.session.request_name(&message).is_some();
                if waits {
                    return Ok(Some(message));
                }
                self.take(&message);
                self.apply(message, None).map(|()| None)
            }
        }
    }

    /// Handles a message that is recorded first, or is for a call on another node.
    async fn handle(&mut self, message: HubMessage) -> Result<(), CloseReason> {
        let mut call = None;
        if let Some(name) = self.session.request_name(&message) {
            match self.note_once(name).await? {
                None => return Ok(()),
                noted => call = noted,
            }
        }
        if self.session.is_stateful() && self.protocol.numbers_messages() && message.is_counted() {
            if self.awaits_sequence || self.counted.take() == Arrival::Again {
                return Ok(()); // it came before the socket was lost, or comes again
            }
            if let HubMessage::Invocation(invocation) | HubMessage::StreamInvocation(invocation) = &message {
                let number = self.counted.highest();
                let name = call_name(number, invocation.invocation_id.as_deref());
                call = self.note(number, Some(name)).await?;
            }
        }
        self.take(&message);
        if let Some(carrier) = &self.carrier
            && !self.invocations.know(self.session, &message)
        {
            carrier.take(message).await;
            return Ok(());
        }
        self.apply(message, call)
    }

    /// Notes a message that is applied next.
    fn take(&mut self, message: &HubMessage) {
        self.applied = self.counted.highest();
        self.count_received();
        if Self::shows_life(message) {
            self.session.gets_further();
        }
    }

    fn count_received(&self) {
        let metrics = self.session.hub.shared().metrics();
        metrics.messages_received.get(self.protocol).inc();
    }

    /// Returns whether a message shows that its client reads: messages that come with each new socket do not.
    fn shows_life(message: &HubMessage) -> bool {
        !matches!(
            message,
            HubMessage::Sequence { .. } | HubMessage::Ack { .. } | HubMessage::Ping
        )
    }

    fn apply(&mut self, message: HubMessage, call: Option<String>) -> Result<(), CloseReason> {
        match message {
            HubMessage::Invocation(invocation) => {
                self.invocations
                    .begin(self.session, invocation, call, self.protocol.encoding());
            }
            HubMessage::StreamInvocation(invocation) => {
                self.invocations
                    .begin_stream(self.session, invocation, call, self.protocol.encoding());
            }
            HubMessage::CancelInvocation { .. }
            | HubMessage::StreamItem { .. }
            | HubMessage::Completion { .. } => self.invocations.hear(self.session, message),
            HubMessage::Ping if !self.session.speaks_hub_protocol() => {
                self.session.answer_message(WebPubSubProtocol::pong);
            }
            HubMessage::Ping => {
                self.pings |= !self
                    .session
                    .connection
                    .transport()
                    .is_some_and(|t| t.keeps_itself_alive());
            }
            HubMessage::Close { .. } => return Err(CloseReason::ByClient),
            HubMessage::Ack { sequence_id } => self.session.acknowledge(sequence_id),
            HubMessage::Sequence { sequence_id } if self.session.is_stateful() => {
                self.awaits_sequence = false;
                self.counted
                    .continue_at(sequence_id)
                    .map_err(|error| CloseReason::Protocol {
                        detail: format!("InvalidOperationException: {error}"),
                        code: close_code::PROTOCOL,
                    })?;
            }
            HubMessage::Sequence { .. } => {} // counts only in stateful sessions
        }
        Ok(())
    }
}
