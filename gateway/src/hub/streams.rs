//! The streams that clients send to groups: the record that a connection has of its own, and how their messages are published.
//!
//! The backplane counts the fragments of each stream in the step that publishes them. So any node can go on with a stream, and
//! end it, and no fragment is published twice.

use std::time::Duration;

use hubcast_backplane::{Counted, GroupName, Numbered, Topic, wire};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use super::{Connection, HubRuntime, Outgoing};
use crate::error::Error;
use crate::protocol::{Data, DataType, Encoding, MESSAGE, Value};

/// How often, and how long apart, a message is tried to be published to a backplane that can't be reached. A stream that lacks
/// one could not go on.
const ATTEMPTS: (usize, Duration) = (10, Duration::from_secs(1));
/// How much longer a count is kept than its stream may be silent, and its connection away.
const SPARE: Duration = Duration::from_secs(60);
/// How old a count may be before the backplane is asked to keep it longer.
const RENEW: Duration = Duration::from_secs(30);

/// Streams that were ended are remembered under this word, where their senders ended them; else under the name of the error.
pub(crate) const ENDED: &str = "ended";

/// A stream of a client to a group.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    pub(crate) id: String,
    pub(crate) group: GroupName,
    /// The sender does not receive it.
    pub(crate) no_echo: bool,
    /// How long it may be silent.
    pub(crate) idle_timeout: Duration,
    /// The number of the next fragment, as far as this node knows.
    pub(crate) next: u64,
    /// Set once it is over: [`ENDED`] or the name of an error.
    pub(crate) over: Option<String>,
    /// The time when it has been silent for too long.
    due: Instant,
    /// The time when the backplane was asked last to keep the count.
    renewed: Instant,
}

impl Stream {
    pub(crate) fn new(id: String, group: GroupName, no_echo: bool, idle_timeout: Duration) -> Self {
        let now = Instant::now();
        Self {
            id,
            group,
            no_echo,
            idle_timeout,
            next: 1,
            over: None,
            due: now + idle_timeout,
            renewed: now,
        }
    }

    /// Returns whether the count has to be kept longer.
    pub(crate) fn is_to_be_renewed(&self) -> bool {
        self.renewed.elapsed() >= RENEW
    }
}

/// The streams of one connection: those that are open, and those that ended lately.
#[derive(Default, Debug)]
pub(crate) struct Streams(Mutex<Vec<Stream>>);

impl Streams {
    pub(crate) fn restored(streams: Vec<Stream>) -> Self {
        Self(Mutex::new(streams))
    }

    pub(crate) fn find(&self, id: &str) -> Option<Stream> {
        self.0.lock().iter().find(|stream| stream.id == id).cloned()
    }

    /// Returns whether `most` are open.
    pub(crate) fn is_full(&self, most: usize) -> bool {
        let streams = self.0.lock();
        streams.iter().filter(|stream| stream.over.is_none()).count() >= most
    }

    /// Adds one. Of more than `most` those that ended first are forgotten.
    pub(crate) fn add(&self, stream: Stream, most: usize) {
        let mut streams = self.0.lock();
        streams.retain(|known| known.id != stream.id);
        if streams.len() >= most
            && let Some(place) = streams.iter().position(|known| known.over.is_some())
        {
            streams.remove(place);
        }
        streams.push(stream);
    }

    pub(crate) fn forget(&self, id: &str) {
        self.0.lock().retain(|stream| stream.id != id);
    }

    fn change(&self, id: &str, change: impl FnOnce(&mut Stream)) {
        if let Some(stream) = self.0.lock().iter_mut().find(|stream| stream.id == id) {
            change(stream);
        }
    }

    /// Its sender has shown that it goes on.
    pub(crate) fn touch(&self, id: &str) {
        self.change(id, |stream| stream.due = Instant::now() + stream.idle_timeout);
    }

    /// The backplane expects this number next, and keeps the count.
    pub(crate) fn advance(&self, id: &str, next: u64) {
        self.change(id, |stream| {
            stream.next = next;
            stream.renewed = Instant::now();
        });
    }

    /// It is over, and has ended with this number.
    pub(crate) fn end(&self, id: &str, number: u64, last: &str) {
        self.change(id, |stream| {
            stream.next = number;
            stream.over = Some(last.to_owned());
        });
    }

    pub(crate) fn all(&self) -> Vec<Stream> {
        self.0.lock().clone()
    }

    /// The ids of the open streams that have been silent for too long.
    pub(crate) fn overdue(&self) -> Vec<String> {
        let (streams, now) = (self.0.lock(), Instant::now());
        let overdue = streams
            .iter()
            .filter(|stream| stream.over.is_none() && stream.due <= now);
        overdue.map(|stream| stream.id.clone()).collect()
    }

    /// The time when the first of them has been silent for too long.
    pub(crate) fn due(&self) -> Option<Instant> {
        let streams = self.0.lock();
        let open = streams.iter().filter(|stream| stream.over.is_none());
        open.map(|stream| stream.due).min()
    }
}

/// An error that a stream ends with, for its receivers.
pub(crate) fn end_error(name: &str, message: Option<String>) -> wire::FragmentError {
    wire::FragmentError {
        name: name.to_owned(),
        message,
        code: None,
    }
}

/// A message of a stream.
struct Part<'a> {
    number: u64,
    data: Data,
    /// It is the last one.
    last: Option<&'a str>,
    error: Option<wire::FragmentError>,
}

impl HubRuntime {
    /// Begins the count of a stream, or reads it.
    pub(crate) async fn count_stream(
        &self,
        connection: &Connection,
        stream: &Stream,
        begins: bool,
    ) -> Result<Counted, Error> {
        let (key, life) = (key_of(connection, stream), self.life_of(stream));
        let backplane = self.backplane();
        let mut attempts = Attempts::default();
        loop {
            match backplane.counted(&key, life, begins).await {
                Ok(counted) => return Ok(counted),
                Err(error) => attempts.after(error.into()).await?,
            }
        }
    }

    /// Publishes a fragment of a stream, if it is the next one.
    pub(crate) async fn publish_fragment(
        &self,
        connection: &Connection,
        stream: &Stream,
        number: u64,
        data: Data,
    ) -> Result<Counted, Error> {
        let part = Part {
            number,
            data,
            last: None,
            error: None,
        };
        self.publish_part(connection, stream, part).await
    }

    /// Ends a stream, unless that was done before. Returns its number and what it ended with.
    pub(crate) async fn end_stream(
        &self,
        connection: &Connection,
        stream: &Stream,
        last: &str,
        error: Option<wire::FragmentError>,
    ) -> Result<(u64, String), Error> {
        let mut number = stream.next;
        loop {
            let part = Part {
                number,
                data: no_data(),
                last: Some(last),
                error: error.clone(),
            };
            match self.publish_part(connection, stream, part).await? {
                Counted::Now(_) => return Ok((number, last.to_owned())),
                Counted::Expects(next) => number = next,
                Counted::Over { number, last } => return Ok((number, last)),
                Counted::Unknown => {
                    // The server has forgotten the stream: its receivers must not wait for more.
                    let message = of_stream(connection, stream, number, no_data(), true, error);
                    let topic = [Topic::Group(stream.group.clone())];
                    self.publish_message(Some(connection), &topic, message).await?;
                    return Ok((number, last.to_owned()));
                }
            }
        }
    }

    /// Ends the open streams of a connection that has ended.
    pub(crate) async fn end_streams(&self, connection: &Connection) {
        let Some(streams) = connection.streams() else {
            return;
        };
        for stream in streams.all().iter().filter(|stream| stream.over.is_none()) {
            let text = "The connection of the stream's sender has ended.".to_owned();
            let error = Some(end_error(CANCELLED, Some(text)));
            match self.end_stream(connection, stream, CANCELLED, error).await {
                Ok((number, last)) => streams.end(&stream.id, number, &last),
                Err(error) => {
                    tracing::warn!(connection_id = %connection.id(), %error, "a stream could not be ended");
                }
            }
        }
    }

    async fn publish_part(
        &self,
        connection: &Connection,
        stream: &Stream,
        part: Part<'_>,
    ) -> Result<Counted, Error> {
        let key = key_of(connection, stream);
        let numbered = Numbered {
            key: &key,
            number: part.number,
            last: part.last,
            life: self.life_of(stream),
        };
        let ends = part.last.is_some();
        let message = of_stream(connection, stream, part.number, part.data, ends, part.error);
        let topic = Topic::Group(stream.group.clone());
        let mut attempts = Attempts::default();
        loop {
            let publishing = self.publish_numbered(connection, &topic, message.clone(), numbered);
            match publishing.await {
                Ok(counted) => return Ok(counted),
                Err(error) => attempts.after(error).await?,
            }
        }
    }

    /// How long the count of a stream is kept: longer than it may be silent, also where its connection is away before it goes
    /// on, which is when the count is renewed.
    fn life_of(&self, stream: &Stream) -> Duration {
        stream
            .idle_timeout
            .saturating_add(self.options().hubs.resume_window)
            .saturating_add(SPARE)
    }
}

/// Attempts to reach a backplane that is away.
#[derive(Default)]
struct Attempts(usize);

impl Attempts {
    /// Waits before the next attempt, unless there is to be none.
    async fn after(&mut self, error: Error) -> Result<(), Error> {
        self.0 = self.0.saturating_add(1);
        match error {
            Error::Backplane(error) if error.is_transient() && self.0 < ATTEMPTS.0 => {
                tracing::debug!(%error, "a message of a stream has to wait");
                sleep(ATTEMPTS.1).await;
                Ok(())
            }
            error => Err(error),
        }
    }
}

/// The name of the error of a stream whose sender is gone, or made a mistake.
pub(crate) const CANCELLED: &str = "Cancelled";

fn key_of(connection: &Connection, stream: &Stream) -> String {
    format!("stream:{}:{}", connection.id(), stream.id)
}

/// The data of an end. The official .NET client drops its socket at each message without data.
fn no_data() -> Data {
    Data {
        kind: DataType::Text,
        json: Value::from_raw(Encoding::Json, (&br#""""#[..]).into()),
        packed: None,
    }
}

fn of_stream(
    connection: &Connection,
    stream: &Stream,
    number: u64,
    data: Data,
    ends: bool,
    error: Option<wire::FragmentError>,
) -> Outgoing {
    Outgoing {
        target: MESSAGE.to_owned(),
        arguments: vec![data.json],
        translated: data.packed.into_iter().collect(),
        except: stream
            .no_echo
            .then(|| connection.id().to_string())
            .into_iter()
            .collect(),
        from_user: connection.user().map(ToString::to_string),
        data_type: data.kind,
        web_pubsub: Some(Box::new(wire::ForWebPubSub {
            fragment: Some(wire::Fragment {
                stream: stream.id.clone(),
                number,
                ends,
                error,
            }),
            metadata: Vec::new(),
        })),
        ..Outgoing::default()
    }
}
