//! The one way for hub messages into the backplane.

use std::time::{Duration, UNIX_EPOCH};

use hubcast_backplane::{
    BackplaneError, ConnectionId, Counted, Numbered, Offset, Once, Published, Topic, wire,
};
use tokio::time::Instant;
use tracing::{Instrument, Span};

use super::clients::common_encoding;
use super::{Connection, HubRuntime};
use crate::error::Error;
use crate::protocol::{DataType, Encoding, Headers, Value};
use crate::telemetry::trace;

/// Longest time that a message of Web PubSub may take to its receivers, in seconds.
pub(crate) const LONGEST_LIFE: u64 = 300;

/// A call of a client method, on its way to its receivers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outgoing {
    pub(crate) target: String,
    pub(crate) arguments: Vec<Value>,
    /// The arguments in the other encoding, where their sender wrote both; else empty.
    pub(crate) translated: Vec<Value>,
    /// The encodings that its sender wrote, where those are whole messages.
    pub(crate) framed_in: Vec<Encoding>,
    /// Connections that do not receive it.
    pub(crate) except: Vec<String>,
    /// The user whose client sent it, for clients whose protocol shows it.
    pub(crate) from_user: Option<String>,
    pub(crate) data_type: DataType,
    /// Which of the topic's connections receive it, in OData; it was read before. Empty: all.
    pub(crate) filter: String,
    /// How long connections receive it, unless for ever.
    pub(crate) life: Option<Duration>,
    /// The part that only clients of Web PubSub read.
    pub(crate) web_pubsub: Option<Box<wire::ForWebPubSub>>,
}

impl HubRuntime {
    /// Appends a call of `target` to the log of each topic, on behalf of a call of `caller`.
    pub(crate) async fn publish(
        &self,
        caller: Option<&Connection>,
        topics: &[Topic],
        target: &str,
        arguments: Vec<Value>,
        except: Vec<String>,
    ) -> Result<(), Error> {
        let message = Outgoing {
            target: target.to_owned(),
            arguments,
            except,
            ..Outgoing::default()
        };
        self.publish_message(caller, topics, message).await
    }

    /// Appends a message to the log of each topic, on behalf of a call of `caller`.
    pub(crate) async fn publish_message(
        &self,
        caller: Option<&Connection>,
        topics: &[Topic],
        message: Outgoing,
    ) -> Result<(), Error> {
        self.check_target(&message)?;
        let span = self.publish_span(&message);
        let by_client = caller.is_some();
        let caller = caller.filter(|caller| !is_spared(caller, &message));
        let envelope = wire::Envelope {
            by_client,
            expires: self.expires(&message),
            ..envelope(message, &span)?
        };
        let backplane = self.backplane();
        let publishing = backplane.publish(topics, &envelope).instrument(span);
        let receipts = self.timed(publishing).await?;
        let appended = receipts.iter().flatten().count() as u64;
        self.shared().metrics().published.inc_by(appended);
        if let Some(caller) = caller {
            for (topic, offset) in topics.iter().zip(receipts) {
                self.note_sent(caller, topic, offset);
            }
        }
        Ok(())
    }

    /// Appends an item of a stream that a connection's client has open to its log, or the end of the stream. A connection
    /// that does not exist is ignored.
    pub(crate) async fn publish_stream_part(
        &self,
        connection: &ConnectionId,
        part: wire::StreamPart,
        item: Option<Value>,
    ) -> Result<(), Error> {
        let invalid = |source| Error::Transcode {
            target: "a stream".to_owned(),
            source,
        };
        item.iter().try_for_each(Value::check_readable).map_err(invalid)?;
        let encoding = common_encoding(item.as_slice());
        let envelope = wire::Envelope {
            arguments: item.iter().map(|item| item.bytes().clone()).collect(),
            encoding: wire_encoding(encoding).into(),
            stream: Some(Box::new(part)),
            ..wire::Envelope::default()
        };
        let topics = [Topic::Connection(connection.clone())];
        let backplane = self.backplane();
        let publishing = backplane.publish(&topics, &envelope);
        let receipts = self.timed(publishing).await?;
        let appended = receipts.iter().flatten().count() as u64;
        self.shared().metrics().published.inc_by(appended);
        Ok(())
    }

    /// Records the offset of a message that a call of `caller` has sent, if the caller receives it itself.
    fn note_sent(&self, caller: &Connection, topic: &Topic, offset: Option<Offset>) {
        let receives = match topic {
            Topic::All => true,
            Topic::Connection(id) => id == caller.id(),
            Topic::User(user) => caller.user() == Some(user),
            Topic::Group(_) => {
                let session = self.registry().find(caller.id());
                session.is_some_and(|session| session.receives_topic(topic))
            }
        };
        if let Some(offset) = offset.filter(|_| receives) {
            caller.note_sent(offset);
        }
    }

    /// Appends a message to the log of a topic, unless the same request has done so before, on whatever node.
    pub(crate) async fn publish_once(
        &self,
        caller: Option<&Connection>,
        topic: &Topic,
        message: Outgoing,
        once: &Once,
    ) -> Result<Published, Error> {
        self.check_target(&message)?;
        let span = self.publish_span(&message);
        let by_client = caller.is_some();
        let caller = caller.filter(|caller| !is_spared(caller, &message));
        let envelope = wire::Envelope {
            by_client,
            expires: self.expires(&message),
            ..envelope(message, &span)?
        };
        let backplane = self.backplane();
        let publishing = backplane.publish_once(topic, &envelope, once).instrument(span);
        let published = self.timed(publishing).await?;
        if let Published::Now(offset) = published {
            self.shared().metrics().published.inc();
            if let Some(caller) = caller {
                self.note_sent(caller, topic, offset);
            }
        }
        Ok(published)
    }

    /// Appends a message to the log of a group, if it is the next one of its stream.
    pub(crate) async fn publish_numbered(
        &self,
        caller: &Connection,
        topic: &Topic,
        message: Outgoing,
        numbered: Numbered<'_>,
    ) -> Result<Counted, Error> {
        let span = self.publish_span(&message);
        let spared = is_spared(caller, &message);
        let envelope = wire::Envelope {
            by_client: true,
            ..envelope(message, &span)?
        };
        let backplane = self.backplane();
        let publishing = backplane
            .publish_numbered(topic, &envelope, numbered)
            .instrument(span);
        let counted = self.timed(publishing).await?;
        if let Counted::Now(offset) = counted {
            self.shared().metrics().published.inc();
            if !spared {
                self.note_sent(caller, topic, Some(offset));
            }
        }
        Ok(counted)
    }

    /// Only the backplane may report joins and leaves.
    fn check_target(&self, message: &Outgoing) -> Result<(), Error> {
        if self.options().hubs.presence && message.target == hubcast_backplane::presence::TARGET {
            return Err(Error::ReservedTarget {
                target: message.target.clone(),
            });
        }
        Ok(())
    }

    /// When a message is for nobody any more, in milliseconds since 1970; 0: never.
    fn expires(&self, message: &Outgoing) -> u64 {
        let Some(life) = message.life else { return 0 };
        let until = self.shared().backplane().now() + life;
        let until = until.duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(until.as_millis()).unwrap_or(u64::MAX)
    }

    fn publish_span(&self, message: &Outgoing) -> Span {
        tracing::info_span!(target: trace::TARGET, "hub.publish", hub = %self.name(), method = message.target, otel.kind = "producer")
    }

    async fn timed<T>(
        &self,
        publishing: impl Future<Output = Result<T, BackplaneError>>,
    ) -> Result<T, BackplaneError> {
        let metrics = self.shared().metrics();
        let began = Instant::now();
        let outcome = publishing.await;
        metrics.publish_seconds.observe(began.elapsed().as_secs_f64());
        if outcome.is_err() {
            metrics.publish_errors.inc();
        }
        outcome
    }
}

fn is_spared(caller: &Connection, message: &Outgoing) -> bool {
    message.except.iter().any(|id| id == caller.id().as_str())
}

fn wire_encoding(encoding: Encoding) -> wire::Encoding {
    match encoding {
        Encoding::Json => wire::Encoding::Json,
        Encoding::MessagePack => wire::Encoding::MessagePack,
    }
}

fn envelope(message: Outgoing, span: &Span) -> Result<wire::Envelope, Error> {
    let Outgoing {
        target,
        arguments,
        translated,
        except,
        from_user,
        data_type,
        filter,
        life: _,
        framed_in: _,
        web_pubsub,
    } = message;
    let encoding = common_encoding(&arguments);
    let mut encoded = Vec::with_capacity(arguments.len());
    for value in arguments {
        match value.check_readable().and_then(|()| value.transcode(encoding)) {
            Ok(value) => encoded.push(value.bytes().clone()),
            Err(source) => return Err(Error::Transcode { target, source }),
        }
    }
    let context = trace::context_of(span).unwrap_or_default();
    Ok(wire::Envelope {
        target,
        arguments: encoded,
        encoding: wire_encoding(encoding).into(),
        translated: translated.iter().map(|value| value.bytes().clone()).collect(),
        except,
        filter,
        traceparent: context.traceparent,
        tracestate: context.tracestate,
        from_user: from_user.unwrap_or_default(),
        data_type: match data_type {
            DataType::Json => wire::DataType::Json.into(),
            DataType::Text => wire::DataType::Text.into(),
            DataType::Binary => wire::DataType::Binary.into(),
            DataType::Protobuf => wire::DataType::Protobuf.into(),
        },
        web_pubsub,
        ..wire::Envelope::default()
    })
}

/// Metadata as they go with a message.
pub(crate) fn with_metadata(metadata: Headers) -> Option<Box<wire::ForWebPubSub>> {
    if metadata.is_empty() {
        return None;
    }
    let entries = metadata.into_iter();
    Some(Box::new(wire::ForWebPubSub {
        fragment: None,
        metadata: entries
            .map(|(name, value)| wire::Metadatum { name, value })
            .collect(),
    }))
}
