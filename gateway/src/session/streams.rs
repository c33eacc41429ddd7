//! Streams that a Web PubSub client sends to groups: see section 3.6 of the client protocol's specification.

use std::time::Duration;

use hubcast_backplane::{Counted, wire};
use tokio::time::Instant;

use super::requests::{Refusal, lacking, parse};
use super::{CloseReason, Ownership, Session};
use crate::error::Error;
use crate::hub::{CANCELLED, ENDED, Stream, end_error};
use crate::protocol::webpubsub::{EndError, RefusedAs, StreamRequest, WebPubSubProtocol};
use crate::protocol::{ClientProtocol, Data};

/// Most bytes of a stream's id.
const ID_BYTES: usize = 256;
/// How long a stream may be silent that names no time. The service's default.
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);
/// The longest time that a stream can name.
const LONGEST_IDLE_TIMEOUT: Duration = Duration::from_secs(86_400);

// Names of errors, as the specification has them.
const IDLE: &str = "IdleTimeout";
const NOT_FOUND: &str = "StreamNotFound";
const USER: &str = "UserError";

const NULL: &str = "A fragment needs data that is not null.";

impl Session {
    /// Serves a client's message about a stream. The client is told of the stream in messages of its own; an error is for
    /// its ack besides, if it wants one.
    pub(super) async fn serve_stream(&self, request: StreamRequest) -> Result<(), Refusal> {
        let protocol = self.connection.protocol().and_then(ClientProtocol::web_pubsub);
        if !protocol.is_some_and(WebPubSubProtocol::has_streams) {
            let text =
                "Streams need a subprotocol with JSON: the schema of protobuf has no messages about them.";
            return Err((RefusedAs::BadRequest, text.to_owned()));
        }
        if let StreamRequest::Begin { .. } = request {
            return self.answer_beginning(request).await;
        }
        let known = self
            .connection
            .streams()
            .and_then(|streams| streams.find(request.id()));
        let Some(stream) = known else {
            self.report_closed(request.id(), Some((NOT_FOUND, "There is no such stream.")));
            return Ok(());
        };
        if let Some(last) = &stream.over {
            self.report_over(&stream, last, &request);
            return Ok(());
        }
        self.connection.streams_or_new().touch(&stream.id);
        match request {
            StreamRequest::Data { number, data, .. } => self.take_fragment(&stream, number, data).await,
            StreamRequest::KeepAlive { .. } if stream.is_to_be_renewed() => self.renew_stream(&stream).await,
            StreamRequest::KeepAlive { .. } | StreamRequest::Begin { .. } => Ok(()),
            StreamRequest::End { error, .. } => {
                let error = error.map(|EndError { message, code }| wire::FragmentError {
                    name: USER.to_owned(),
                    message,
                    code,
                });
                self.finish_stream(&stream, ENDED, error, None).await
            }
        }
    }

    async fn answer_beginning(&self, request: StreamRequest) -> Result<(), Refusal> {
        let id = request.id().to_owned();
        let begun = match self.checked_stream(request) {
            Ok(stream) => self.open_stream(stream).await,
            Err(refusal) => Err(refusal),
        };
        match &begun {
            Ok(Ownership::Kept) => self.push_bare(WebPubSubProtocol::stream_ack(&id, 1)),
            Ok(Ownership::Lost) => {} // its client is on another node by now
            Err((name, text)) => self.report_closed(&id, Some((name.name(), text))),
        }
        begun.map(drop)
    }

    /// The stream that a client wants to begin, if it may.
    fn checked_stream(&self, request: StreamRequest) -> Result<Stream, Refusal> {
        let bad = |text: String| Err((RefusedAs::BadRequest, text));
        let StreamRequest::Begin {
            id,
            group,
            no_echo,
            idle_timeout,
            has_data,
        } = request
        else {
            return bad("It begins no stream.".to_owned());
        };
        if id.is_empty() || id.len() > ID_BYTES {
            return bad(format!("streamId is a text of 1 to {ID_BYTES} bytes."));
        }
        let idle_timeout = idle_timeout.map_or(IDLE_TIMEOUT, Duration::from_millis);
        if idle_timeout.is_zero() || idle_timeout > LONGEST_IDLE_TIMEOUT {
            let most = LONGEST_IDLE_TIMEOUT.as_millis();
            return bad(format!("idleTimeoutMs is a number from 1 to {most}."));
        }
        if has_data {
            return bad("A message that begins a stream has no data: send it as streamData.".to_owned());
        }
        if !self.connection.identity().permissions().may_send_to_group(&group) {
            return Err(lacking("send", &group));
        }
        Ok(Stream::new(id, parse(&group)?, no_echo, idle_timeout))
    }

    async fn open_stream(&self, stream: Stream) -> Result<Ownership, Refusal> {
        let streams = self.connection.streams_or_new();
        let in_use = || {
            let text = format!("The connection has a stream with the id {:?}.", stream.id);
            Err((RefusedAs::BadRequest, text))
        };
        if let Some(known) = streams.find(&stream.id).filter(|known| known.over.is_none()) {
            // A client that got no answer may begin it again.
            let same = known.group == stream.group
                && known.no_echo == stream.no_echo
                && known.idle_timeout == stream.idle_timeout;
            return if same && known.next == 1 {
                streams.touch(&stream.id);
                Ok(Ownership::Kept)
            } else {
                in_use()
            };
        }
        let most = self.hub.options().limits.streams_per_connection;
        if streams.is_full(most) {
            let text =
                format!("The connection may have {most} streams open (limits.streams_per_connection).");
            return Err((RefusedAs::BadRequest, text));
        }
        let counting = self.hub.count_stream(&self.connection, &stream, true);
        if counting.await.map_err(|error| self.refusal(&error))? != Counted::Expects(1) {
            return in_use();
        }
        let id = stream.id.clone();
        streams.add(stream, most);
        // Before its client sends more, another node must be able to go on with it.
        let written = self.write_state().await;
        written.map_err(|error| {
            streams.forget(&id);
            self.refusal(&error.into())
        })
    }

    async fn take_fragment(&self, stream: &Stream, number: u64, data: Data) -> Result<(), Refusal> {
        let group = stream.group.as_str();
        if !self.connection.identity().permissions().may_send_to_group(group) {
            let (name, text) = lacking("send", group);
            return self.break_stream(stream, name.name(), name, &text).await;
        }
        if data.json.is_null() {
            // The official .NET client drops its socket at each message without data.
            return self
                .break_stream(stream, CANCELLED, RefusedAs::BadRequest, NULL)
                .await;
        }
        let streams = self.connection.streams_or_new();
        let report_place = |next: u64| {
            let id = &stream.id;
            self.push_bare(if number < next {
                WebPubSubProtocol::stream_ack(id, next)
            } else {
                let text = format!("The fragment {next} is missing: send it and those behind it again.");
                WebPubSubProtocol::stream_nack(id, &text, next)
            });
        };
        if number < stream.next {
            report_place(stream.next);
            return Ok(());
        }
        let publishing = self.hub.publish_fragment(&self.connection, stream, number, data);
        match publishing.await {
            Ok(Counted::Now(_)) => {
                let next = number.saturating_add(1);
                streams.advance(&stream.id, next);
                report_place(next);
                Ok(())
            }
            // Another node of this connection was ahead, or fragments are missing.
            Ok(Counted::Expects(next)) => {
                streams.advance(&stream.id, next);
                report_place(next);
                Ok(())
            }
            Ok(Counted::Over { number: end, last }) => {
                streams.end(&stream.id, end, &last);
                let fragment = (last == ENDED).then_some(number);
                self.report_end(&stream.id, &last, fragment.is_none_or(|number| number < end));
                Ok(())
            }
            Ok(Counted::Unknown) => self.lose_stream(stream).await,
            Err(error @ Error::Transcode { .. }) => {
                let text = error.to_string();
                self.break_stream(stream, CANCELLED, RefusedAs::BadRequest, &text)
                    .await
            }
            Err(error) => Err(self.refusal(&error)),
        }
    }

    /// Has the backplane keep the count of a stream.
    async fn renew_stream(&self, stream: &Stream) -> Result<(), Refusal> {
        let counting = self.hub.count_stream(&self.connection, stream, false);
        let streams = self.connection.streams_or_new();
        match counting.await.map_err(|error| self.refusal(&error))? {
            Counted::Expects(next) => streams.advance(&stream.id, next),
            Counted::Over { number, last } => streams.end(&stream.id, number, &last),
            Counted::Now(_) | Counted::Unknown => return self.lose_stream(stream).await,
        }
        Ok(())
    }

    /// The server has forgotten a stream.
    async fn lose_stream(&self, stream: &Stream) -> Result<(), Refusal> {
        let name = RefusedAs::InternalServerError;
        let text = "The server has forgotten the stream.";
        self.break_stream(stream, name.name(), name, text).await
    }

    /// Ends a stream with an error: `last` is its name for the receivers, `name` for the sender.
    async fn break_stream(
        &self,
        stream: &Stream,
        last: &str,
        name: RefusedAs,
        text: &str,
    ) -> Result<(), Refusal> {
        let error = end_error(last, Some(text.to_owned()));
        self.finish_stream(stream, last, Some(error), Some((name.name(), text)))
            .await
    }

    /// Ends a stream: `error` is for its receivers, `reported` for its sender.
    async fn finish_stream(
        &self,
        stream: &Stream,
        last: &str,
        error: Option<wire::FragmentError>,
        reported: Option<(&str, &str)>,
    ) -> Result<(), Refusal> {
        let ending = self.hub.end_stream(&self.connection, stream, last, error);
        let (number, ended_with) = ending.await.map_err(|error| self.refusal(&error))?;
        let streams = self.connection.streams_or_new();
        if self.is_stateful() {
            streams.end(&stream.id, number, &ended_with);
        } else {
            streams.forget(&stream.id); // a client that can't come back repeats nothing
        }
        self.follow().await;
        if ended_with == last {
            self.report_closed(&stream.id, reported);
        } else {
            self.report_end(&stream.id, &ended_with, true);
        }
        Ok(())
    }

    fn report_closed(&self, id: &str, error: Option<(&str, &str)>) {
        self.push_bare(WebPubSubProtocol::stream_closed(id, error));
    }

    /// Answers a message about a stream that is over: a client that has lost its socket repeats what it got no answer to.
    fn report_over(&self, stream: &Stream, last: &str, request: &StreamRequest) {
        let taken = match request {
            StreamRequest::Data { number, .. } => *number < stream.next,
            _ => true,
        };
        self.report_end(&stream.id, last, taken);
    }

    /// `taken`: all that its sender has sent before was published.
    fn report_end(&self, id: &str, last: &str, taken: bool) {
        match last {
            ENDED if taken => self.report_closed(id, None),
            ENDED => self.report_closed(id, Some((NOT_FOUND, "The stream was ended before."))),
            IDLE => self.report_closed(id, Some((IDLE, "The stream was silent for too long."))),
            CANCELLED => {
                let name = RefusedAs::BadRequest.name();
                self.report_closed(id, Some((name, "The stream was ended for a mistake.")));
            }
            name => self.report_closed(id, Some((name, "The stream was ended with an error."))),
        }
    }

    /// The time when the first of its client's streams has been silent for too long.
    pub(super) fn streams_due(&self) -> Option<Instant> {
        self.connection.streams()?.due()
    }

    /// Ends the streams that have been silent for too long.
    pub(super) async fn expire_streams(&self) {
        let streams = self.connection.streams_or_new();
        for stream in streams.overdue().iter().filter_map(|id| streams.find(id)) {
            let text = format!(
                "The stream was silent for {} ms (idleTimeoutMs).",
                stream.idle_timeout.as_millis()
            );
            let error = end_error(IDLE, Some(text.clone()));
            let finishing = self.finish_stream(&stream, IDLE, Some(error), Some((IDLE, &text)));
            if finishing.await.is_err() {
                self.close(CloseReason::LogLost("a stream could not be ended"));
                return;
            }
        }
    }

    /// Goes on with the streams of another node, where their count stands.
    pub(super) async fn renew_streams(&self) {
        for stream in self.connection.streams_or_new().all() {
            if self.renew_stream(&stream).await.is_err() {
                self.close(CloseReason::LogLost("a stream could not be gone on with"));
                return;
            }
        }
    }
}
