//! One connection of the generator, as a state machine without I/O of its own but its socket's.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;

use hubcast_tests::http::{Head, Request};

use super::speaks::{Speaks, counted_records};
use super::tally::Receives;
use crate::frame::{self, Frame};

/// How far a connection is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    New,
    Negotiating,
    Upgrading,
    /// It waits for the answer to this step.
    Step(usize),
    Ready,
    Closed,
}

/// One connection.
pub(crate) struct Connection {
    pub(crate) socket: Option<TcpStream>,
    speaks: Speaks,
    node: SocketAddr,
    /// Empty: it only publishes.
    pub(crate) receives: Receives,
    state: State,
    /// Input that is not complete.
    partial: Vec<u8>,
    /// Output that the socket did not take.
    unsent: Vec<u8>,
    /// It reads nothing once it is ready.
    pub(crate) stalls: bool,
    /// When it began to connect.
    pub(crate) began: u64,
    /// Messages that stateful reconnect counts, and how many of them were acknowledged.
    counted: u64,
    acknowledged: u64,
}

/// A request to the caller about the socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Progress {
    /// It is as it was.
    Same,
    /// It has just become ready.
    Ready,
    /// It has another socket.
    Reopened,
}

impl Connection {
    pub(crate) fn new(speaks: Speaks, node: SocketAddr, groups: Range<u32>) -> Self {
        Self {
            socket: None,
            speaks,
            node,
            receives: Receives::new(groups),
            state: State::New,
            partial: Vec::new(),
            unsent: Vec::new(),
            stalls: false,
            began: 0,
            counted: 0,
            acknowledged: 0,
        }
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.state == State::Ready
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Receivers have groups, the connections of the publisher have none.
    pub(crate) fn is_receiver(&self) -> bool {
        !self.receives.groups().is_empty()
    }

    pub(crate) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Opens the socket and sends the first request.
    pub(crate) fn open(&mut self) -> io::Result<Progress> {
        self.open_socket()?;
        if self.speaks.negotiates() {
            self.state = State::Negotiating;
            let stateful = if self.speaks.is_stateful() {
                "&useStatefulReconnect=true"
            } else {
                ""
            };
            let target = format!("/hubs/demo/negotiate?negotiateVersion=1{stateful}");
            self.send(&Request::post(&target, "").bytes(self.node))?;
            return Ok(Progress::Same);
        }
        self.request(None)
    }

    /// On loopback the kernel accepts at once, so this does not wait.
    fn open_socket(&mut self) -> io::Result<()> {
        let socket = TcpStream::connect(self.node)?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        self.socket = Some(socket);
        Ok(())
    }

    /// Requests a WebSocket or event stream, if the protocol has such.
    fn request(&mut self, token: Option<&str>) -> io::Result<Progress> {
        let Some(path) = self.speaks.path(self.receives.groups().start) else {
            return self.steps_from(0);
        };
        self.state = State::Upgrading;
        let request = match (self.speaks, token) {
            (Speaks::Events, _) => Request::get(&path).header("Accept", "text/event-stream"),
            (_, Some(token)) => Request::upgrade(&format!("{path}?id={token}")),
            (_, None) => Request::upgrade(&path),
        };
        self.send(&request.bytes(self.node))?;
        Ok(Progress::Same)
    }

    /// Begins a step; without one the connection is ready.
    fn steps_from(&mut self, number: usize) -> io::Result<Progress> {
        let Some((message, _)) = self.speaks.step(number, self.receives.groups()) else {
            self.state = State::Ready;
            return Ok(Progress::Ready);
        };
        self.state = State::Step(number);
        if !message.is_empty() {
            self.send(&self.speaks.on_the_wire(&message))?;
        }
        Ok(Progress::Same)
    }

    /// Sends bytes, or keeps what the socket does not take.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut written = 0;
        if self.unsent.is_empty() {
            let mut socket = self.socket.as_ref().ok_or(ErrorKind::NotConnected)?;
            written = match socket.write(bytes) {
                Ok(written) => written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
                Err(error) => return Err(error),
            };
        }
        self.unsent.extend_from_slice(&bytes[written..]);
        Ok(())
    }

    /// Sends what is left.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        let unsent = std::mem::take(&mut self.unsent);
        self.send(&unsent)
    }

    /// Reads once. `deliver` gets every part of the input that may have stamps, once the connection is ready.
    pub(crate) fn read(
        &mut self,
        buffer: &mut [u8],
        deliver: impl FnMut(&mut Receives, &[u8]) -> usize,
    ) -> io::Result<Progress> {
        let mut socket = self.socket.as_ref().ok_or(ErrorKind::NotConnected)?;
        let length = match socket.read(buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Progress::Same),
            Err(error) => return Err(error),
        };
        let fresh = &buffer[..length];
        if self.partial.is_empty() {
            let (progress, used) = self.take(fresh, deliver)?;
            if progress != Progress::Reopened {
                self.partial.extend_from_slice(&fresh[used..]);
            }
            return Ok(progress);
        }
        let mut all = std::mem::take(&mut self.partial);
        all.extend_from_slice(fresh);
        let (progress, used) = self.take(&all, deliver)?;
        if progress != Progress::Reopened && used < all.len() {
            all.drain(..used);
            self.partial = all;
        }
        Ok(progress)
    }

    /// Works off what is complete. Returns how many bytes that was.
    fn take(
        &mut self,
        bytes: &[u8],
        mut deliver: impl FnMut(&mut Receives, &[u8]) -> usize,
    ) -> io::Result<(Progress, usize)> {
        let (mut progress, mut done) = (Progress::Same, 0);
        if self.state == State::Negotiating {
            return self.negotiated(bytes);
        }
        if self.state == State::Upgrading {
            let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else {
                return Ok((progress, 0));
            };
            self.opened(&bytes[..end])?;
            done = end + 4;
            progress = self.steps_from(0)?;
        }
        if !self.speaks.has_frames() {
            let rest = &bytes[done..];
            if let State::Step(number) = self.state {
                // The last step of a stream: what follows may be messages.
                progress = self.answered(number, rest)?;
                return Ok((progress, if self.is_ready() { bytes.len() } else { done }));
            }
            return Ok((progress, done + deliver(&mut self.receives, rest)));
        }
        while let Some(frame) = Frame::read(&bytes[done..]) {
            done += frame.length;
            match (frame.opcode, self.state) {
                (frame::CLOSE, _) => {
                    return Err(io::Error::other(format!(
                        "closed: {}",
                        String::from_utf8_lossy(frame.payload)
                    )));
                }
                (frame::PING, _) => self.send(&frame::from_client(frame::PONG, frame.payload))?,
                (frame::PONG, _) => {}
                (_, State::Step(number)) => {
                    if self.answered(number, frame.payload)? == Progress::Ready {
                        progress = Progress::Ready;
                    }
                    self.count(frame.payload);
                }
                _ => {
                    deliver(&mut self.receives, frame.payload);
                    self.count(frame.payload);
                }
            }
        }
        Ok((progress, done))
    }

    /// Takes the answer of negotiate, and comes back with its token on another socket.
    fn negotiated(&mut self, bytes: &[u8]) -> io::Result<(Progress, usize)> {
        let Some((head, body)) = answer(bytes)? else {
            return Ok((Progress::Same, 0));
        };
        let told: serde_json::Value = serde_json::from_slice(body)?;
        let token = told["connectionToken"].as_str().filter(|_| head.status == 200);
        let Some(token) = token else {
            return Err(refused("negotiate", &head, body));
        };
        self.open_socket()?;
        self.request(Some(token))?;
        Ok((Progress::Reopened, bytes.len()))
    }

    fn opened(&self, head: &[u8]) -> io::Result<()> {
        let wanted = if self.speaks.has_frames() { 101 } else { 200 };
        let head = Head::parse(&String::from_utf8_lossy(head)).ok_or(ErrorKind::InvalidData)?;
        if head.status == wanted {
            Ok(())
        } else {
            Err(refused("the connection", &head, b""))
        }
    }

    /// Goes on with the next step if this is the answer to one.
    fn answered(&mut self, number: usize, payload: &[u8]) -> io::Result<Progress> {
        let answer = self
            .speaks
            .step(number, self.receives.groups())
            .map(|(_, answer)| answer);
        match answer {
            Some(answer) if memchr::memmem::find(payload, &answer).is_none() => Ok(Progress::Same),
            _ => self.steps_from(number + 1),
        }
    }

    fn count(&mut self, payload: &[u8]) {
        if self.speaks.is_stateful() {
            self.counted += counted_records(payload);
        }
    }

    /// Sends a sign of life.
    pub(crate) fn ping(&mut self) -> io::Result<()> {
        match self.speaks.ping() {
            Some(ping) if self.is_ready() => self.send(&ping),
            _ => Ok(()),
        }
    }

    /// Acknowledges what has come since the last time.
    pub(crate) fn acknowledge(&mut self) -> io::Result<()> {
        if self.counted == self.acknowledged || !self.is_ready() {
            return Ok(());
        }
        self.acknowledged = self.counted;
        self.send(&self.speaks.ack(self.counted))
    }

    /// A new one of the same kind, at the same node and in the same groups.
    pub(crate) fn another(&self) -> Self {
        Self::new(self.speaks, self.node, self.receives.groups())
    }

    pub(crate) fn close(&mut self) {
        self.state = State::Closed;
        self.socket = None;
    }
}

/// A whole answer with `Content-Length`: its head and body; `None` if it has not arrived whole.
pub(crate) fn answer(bytes: &[u8]) -> io::Result<Option<(Head, &[u8])>> {
    let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = Head::parse(&String::from_utf8_lossy(&bytes[..end])).ok_or(ErrorKind::InvalidData)?;
    let length = head.header("content-length").map_or(Ok(0), str::parse);
    let length: usize = length.map_err(io::Error::other)?;
    Ok(bytes.get(end + 4..end + 4 + length).map(|body| (head, body)))
}

pub(crate) fn refused(what: &str, head: &Head, body: &[u8]) -> io::Error {
    let body = String::from_utf8_lossy(body);
    io::Error::other(format!("{what} is answered with {}: {body}", head.status))
}
