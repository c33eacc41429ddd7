//! The floors: what tokio alone costs to do the same work, without a protocol, limits, order or a log. Two nodes subscribe to the
//! groups of their connections at one Redis and send what comes in WebSocket frames.
//!
//! A client says `J GROUP` and is answered `OK` once Redis knows of it; `P GROUP TEXT` publishes.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use bytes::{Bytes, BytesMut};
use clap::{Args, ValueEnum};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::frame::{self, Frame};
use crate::resp;

/// How a floor writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Writes {
    /// The reader of Redis writes each message to each socket itself.
    Direct,
    /// Each connection's task writes all that waits at once.
    Batch,
}

impl Writes {
    /// Its name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Batch => "batch",
        }
    }
}

/// One node of a floor.
#[derive(Args, Debug)]
pub(crate) struct FloorArgs {
    /// How it writes.
    #[arg(value_enum)]
    writes: Writes,
    /// The Redis.
    redis: SocketAddr,
}

/// Frames that may wait for one connection.
const QUEUE: usize = 256;
/// Commands that may wait for Redis.
const COMMANDS: usize = 1_024;

struct Member {
    socket: TcpStream,
    queue: mpsc::Sender<Bytes>,
    /// The bytes that the socket did not take; while it is `Some`, the connection's task writes.
    backlog: Mutex<Option<Vec<u8>>>,
}

#[derive(Default)]
struct Group {
    members: RwLock<Vec<Arc<Member>>>,
    subscribed: AtomicBool,
    confirmed: Notify,
}

struct Node {
    writes: Writes,
    groups: RwLock<HashMap<Vec<u8>, Arc<Group>>>,
    publisher: mpsc::Sender<Vec<u8>>,
    subscriber: mpsc::Sender<Vec<u8>>,
}

/// Serves until the process is ended.
pub(crate) async fn serve(args: &FloorArgs) -> io::Result<()> {
    let (publisher, commands) = mpsc::channel(COMMANDS);
    let (subscriber, subscriptions) = mpsc::channel(COMMANDS);
    let node = Arc::new(Node {
        writes: args.writes,
        groups: RwLock::default(),
        publisher,
        subscriber,
    });
    let (mut replies, writer) = redis(args.redis).await?;
    tokio::spawn(write_commands(writer, commands));
    tokio::spawn(async move {
        let mut ignored = vec![0; 4096];
        while replies.read(&mut ignored).await.is_ok_and(|length| length > 0) {}
    });
    let (pushes, writer) = redis(args.redis).await?;
    tokio::spawn(write_commands(writer, subscriptions));
    tokio::spawn(Arc::clone(&node).fan_out(pushes));

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on http://{}", listener.local_addr()?);
    loop {
        let (socket, _) = listener.accept().await?;
        tokio::spawn(Arc::clone(&node).connection(socket));
    }
}

type Halves = (tokio::net::tcp::OwnedReadHalf, tokio::net::tcp::OwnedWriteHalf);

async fn redis(address: SocketAddr) -> io::Result<Halves> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream.into_split())
}

async fn write_commands(
    mut writer: tokio::net::tcp::OwnedWriteHalf,
    mut commands: mpsc::Receiver<Vec<u8>>,
) -> io::Result<()> {
    let mut waiting = Vec::new();
    while commands.recv_many(&mut waiting, 64).await > 0 {
        writer.write_all(&waiting.concat()).await?;
        waiting.clear();
    }
    Ok(())
}

impl Node {
    /// Reads what Redis pushes, and sends it to the members of its group.
    async fn fan_out(self: Arc<Self>, mut pushes: tokio::net::tcp::OwnedReadHalf) {
        let mut buffer = BytesMut::with_capacity(65_536);
        while pushes.read_buf(&mut buffer).await.is_ok_and(|length| length > 0) {
            let (mut done, mut parts) = (0, Vec::new());
            while let Some(length) = resp::reply(&buffer[done..], &mut parts) {
                done += length;
                let group = parts
                    .get(1)
                    .and_then(|name| self.groups.read().unwrap().get(*name).cloned());
                match (group, parts.as_slice()) {
                    (Some(group), [b"message", _, text]) => {
                        self.send(&group, &frame::from_server(frame::TEXT, text).into());
                    }
                    (Some(group), [b"subscribe", ..]) => {
                        group.subscribed.store(true, Ordering::Release);
                        group.confirmed.notify_waiters();
                    }
                    _ => {}
                }
                parts.clear();
            }
            drop(buffer.split_to(done));
        }
        eprintln!("Redis is gone");
        std::process::exit(1);
    }

    fn send(&self, group: &Group, frame: &Bytes) {
        for member in group.members.read().unwrap().iter() {
            match self.writes {
                Writes::Direct => member.write_now(frame),
                Writes::Batch => drop(member.queue.try_send(frame.clone())), // a full queue loses it, and the benchmark says so
            }
        }
    }

    async fn connection(self: Arc<Self>, socket: TcpStream) {
        let (queue, queued) = mpsc::channel(QUEUE);
        let member = Arc::new(Member {
            socket,
            queue,
            backlog: Mutex::default(),
        });
        let mut joined = Vec::new();
        if let Err(error) = self.converse(&member, queued, &mut joined).await
            && error.kind() != io::ErrorKind::UnexpectedEof
            && error.kind() != io::ErrorKind::ConnectionReset
        {
            eprintln!("a connection ended: {error}");
        }
        for group in joined {
            group
                .members
                .write()
                .unwrap()
                .retain(|other| !Arc::ptr_eq(other, &member));
        }
    }

    async fn converse(
        &self,
        member: &Arc<Member>,
        mut queued: mpsc::Receiver<Bytes>,
        joined: &mut Vec<Arc<Group>>,
    ) -> io::Result<()> {
        member.socket.set_nodelay(true)?;
        let mut input = Vec::new();
        member.upgrade(&mut input).await?;
        let mut frames = Vec::new();
        loop {
            tokio::select! {
                biased;
                _ = queued.recv_many(&mut frames, 64) => {
                    // Of the direct floor an empty frame comes: its backlog is to be written.
                    member.write(&frames.concat()).await?;
                    frames.clear();
                    member.write_backlog().await?;
                }
                ready = member.socket.readable() => {
                    ready?;
                    member.read(&mut input)?;
                    let mut done = 0;
                    while let Some(frame) = Frame::read(&input[done..]) {
                        done += frame.length;
                        self.obey(member, &frame, joined).await?;
                    }
                    input.drain(..done);
                    if input.is_empty() {
                        input = Vec::new(); // an idle connection owns no buffer
                    }
                }
            }
        }
    }

    async fn obey(
        &self,
        member: &Arc<Member>,
        frame: &Frame<'_>,
        joined: &mut Vec<Arc<Group>>,
    ) -> io::Result<()> {
        let payload = frame.unmasked();
        match (frame.opcode, payload.split_at_checked(2)) {
            (frame::CLOSE, _) => return Err(io::ErrorKind::UnexpectedEof.into()),
            (frame::TEXT, Some((b"J ", name))) => {
                let group = self.group(name).await;
                group.members.write().unwrap().push(Arc::clone(member));
                joined.push(Arc::clone(&group));
                let confirmed = group.confirmed.notified();
                if !group.subscribed.load(Ordering::Acquire) {
                    confirmed.await;
                }
                member.write(&frame::from_server(frame::TEXT, b"OK")).await?;
            }
            (frame::TEXT, Some((b"P ", rest))) => {
                if let Some(space) = memchr::memchr(b' ', rest) {
                    let command = resp::command(&[b"PUBLISH", &rest[..space], &rest[space + 1..]]);
                    let _ = self.publisher.send(command).await; // the process ends without Redis
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The group of this name. The first one that asks for it subscribes.
    async fn group(&self, name: &[u8]) -> Arc<Group> {
        if let Some(group) = self.groups.read().unwrap().get(name) {
            return Arc::clone(group);
        }
        let (group, is_new) = {
            let mut groups = self.groups.write().unwrap();
            let count = groups.len();
            let group = Arc::clone(groups.entry(name.to_vec()).or_default());
            (group, groups.len() > count)
        };
        if is_new {
            let _ = self.subscriber.send(resp::command(&[b"SUBSCRIBE", name])).await; // as above
        }
        group
    }
}

impl Member {
    /// Answers the request for a WebSocket.
    async fn upgrade(&self, input: &mut Vec<u8>) -> io::Result<()> {
        let end = loop {
            if let Some(end) = memchr::memmem::find(input, b"\r\n\r\n") {
                break end;
            }
            self.socket.readable().await?;
            self.read(input)?;
        };
        let text = String::from_utf8_lossy(&input[..end]).into_owned();
        let mut headers = text.lines().filter_map(|line| line.split_once(": "));
        let key = headers.find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"));
        let (_, key) = key.ok_or(io::ErrorKind::InvalidData)?;
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n\r\n",
            derive_accept_key(key.as_bytes())
        );
        *input = Vec::new();
        self.write(answer.as_bytes()).await
    }

    /// Reads what is there through a buffer on the stack, so that an idle connection owns none.
    fn read(&self, input: &mut Vec<u8>) -> io::Result<()> {
        let mut buffer = [0; 4096];
        match self.socket.try_read(&mut buffer) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => {
                input.extend_from_slice(&buffer[..length]);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn write(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.socket.try_write(bytes) {
                Ok(length) => bytes = &bytes[length..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.socket.writable().await?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes without waiting. The connection's task goes on where the socket takes no more.
    fn write_now(&self, frame: &Bytes) {
        let mut backlog = self.backlog.lock().unwrap();
        if let Some(backlog) = backlog.as_mut() {
            backlog.extend_from_slice(frame);
            return;
        }
        let written = match self.socket.try_write(frame) {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(_) => return, // the connection's task notices
        };
        if written < frame.len() {
            *backlog = Some(frame[written..].to_vec());
            let _ = self.queue.try_send(Bytes::new()); // never full: one for each backlog
        }
    }

    async fn write_backlog(&self) -> io::Result<()> {
        loop {
            let rest = {
                let mut backlog = self.backlog.lock().unwrap();
                match backlog.as_mut() {
                    Some(rest) if !rest.is_empty() => std::mem::take(rest),
                    _ => {
                        *backlog = None;
                        return Ok(());
                    }
                }
            };
            self.write(&rest).await?;
        }
    }
}
