//! The generator: one thread, one `epoll`, one read for each socket that has something; it shares the processors with those that it
//! measures, so it must cost little. It speaks every protocol that is measured, publishes, and counts.

mod connection;
mod phase;
mod publisher;
mod rota;
mod speaks;
mod tally;

use std::io;
use std::mem::MaybeUninit;
use std::num::NonZeroU64;

use hdrhistogram::Histogram;
use hubcast_tests::stamp::{Stamp, now};
use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::fd::OwnedFd;

use connection::{Connection, Progress};
use publisher::{Requests, Turn};
use rota::Rota;
use tally::{Tally, micros, scan};

pub(crate) use phase::{Cast, Connected, Pace, Phase};
pub(crate) use publisher::Publishes;
pub(crate) use speaks::{Format, Speaks};

const SECOND: u64 = 1_000_000_000;
/// After a silence of this length no more messages come.
const QUIET: u64 = 10 * SECOND;
/// The interval of a SignalR client's pings, its default.
const PING: u64 = 15 * SECOND;
/// The interval of a stateful client's acknowledgements, that of official clients.
const ACK: u64 = SECOND;
const CONNECTING: u64 = 60 * SECOND;

pub(crate) struct Load {
    cast: Cast,
    epoll: OwnedFd,
    /// The receivers, then the connections of the publisher.
    connections: Vec<Connection>,
    turns: Vec<Turn>,
    requests: Requests,
    /// Members of each group, and messages that it was sent.
    members: Vec<u32>,
    sent: Vec<u32>,
    phase: u16,
    tally: Tally,
    /// Deliveries that are still to come.
    outstanding: i64,
    buffer: Vec<u8>,
    pings: Rota,
    acks: Rota,
    open: u32,
    failed: u32,
    /// Receivers that were replaced.
    replaced: u32,
    connecting: Histogram<u32>,
    first_error: Option<String>,
}

impl Load {
    pub(crate) fn new(cast: Cast) -> io::Result<Self> {
        // As precise as the clock allows; by default sleeps are 50 µs longer.
        rustix::thread::set_current_timer_slack(NonZeroU64::new(1))?;
        let groups = cast.groups as usize;
        let requests = match cast.publishes {
            Publishes::Rest => Requests::new(cast.nodes[0], cast.groups),
            _ => Requests::new(cast.nodes[0], 0),
        };
        Ok(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            connections: Vec::new(),
            turns: Vec::new(),
            requests,
            members: vec![0; groups],
            sent: vec![0; groups],
            // Messages of another run at the same servers are not taken for this one's.
            phase: u16::try_from((now() / 1_000_000) & 0x7FFF).unwrap_or_default(),
            tally: Tally::new(0),
            outstanding: 0,
            buffer: vec![0; 256 * 1024],
            pings: Rota::new(PING),
            acks: Rota::new(ACK),
            open: 0,
            failed: 0,
            replaced: 0,
            connecting: micros(),
            first_error: None,
            cast,
        })
    }

    /// The first thing that went wrong.
    pub(crate) fn first_error(&self) -> Option<&str> {
        self.first_error.as_deref()
    }

    /// Opens the receivers.
    pub(crate) fn connect(&mut self) -> Connected {
        let started = now();
        let nodes = u32::try_from(self.cast.nodes.len()).expect("few nodes");
        let mut next = 0;
        while self.open + self.failed < self.cast.connections && now() - started < CONNECTING {
            while next < self.cast.connections && next - self.open - self.failed < self.cast.window {
                let groups = match self.cast.speaks {
                    Speaks::Redis => 0..self.cast.groups,
                    _ => {
                        let group = next / nodes % self.cast.groups;
                        group..group + 1
                    }
                };
                let node = self.cast.nodes[(next % nodes) as usize];
                let mut connection = Connection::new(self.cast.speaks, node, groups);
                connection.stalls = self.cast.stalls(next);
                self.add(connection);
                next += 1;
            }
            self.poll(SECOND / 100);
        }
        let seconds = (now() - started) as f64 / 1e9;
        for index in 0..self.connections.len() {
            if !self.connections[index].is_ready() {
                self.fail(index, &io::ErrorKind::TimedOut.into());
            }
        }
        Connected {
            open: self.open,
            failed: self.failed,
            seconds,
            latency: self.connecting.clone(),
        }
    }

    /// Opens the publisher's connections.
    pub(crate) fn connect_publisher(&mut self) -> Result<(), String> {
        let (speaks, count) = self.cast.publishes.connections();
        let first = self.connections.len();
        for _ in 0..count {
            self.turns.push(Turn::default());
            self.add(Connection::new(speaks, self.cast.nodes[0], 0..0));
        }
        let started = now();
        while !self.connections[first..].iter().all(Connection::is_ready) {
            if now() - started > QUIET {
                return Err(format!("the publisher can't connect: {:?}", self.first_error));
            }
            self.poll(SECOND / 100);
        }
        Ok(())
    }

    /// Receivers that are connected.
    pub(crate) fn open(&self) -> u32 {
        self.open
    }

    /// Closes some receivers, the oldest first, and opens as many new ones.
    pub(crate) fn replace(&mut self, count: u32) -> Result<(), String> {
        let receivers = self.cast.connections;
        for _ in 0..count.min(receivers) {
            let index = (self.replaced % receivers) as usize;
            self.replaced = self.replaced.wrapping_add(1);
            let old = &mut self.connections[index];
            old.close();
            for group in old.receives.groups() {
                self.members[group as usize] -= 1;
            }
            *old = old.another();
            self.open -= 1;
            self.open_connection(index);
            self.poll(0);
        }
        let started = now();
        while self.open < receivers {
            if now() - started > CONNECTING || self.first_error.is_some() {
                return Err(format!("new receivers can't connect: {:?}", self.first_error));
            }
            self.poll(SECOND / 100);
        }
        Ok(())
    }

    /// Closes all connections.
    pub(crate) fn leave(&mut self) {
        self.connections.iter_mut().for_each(Connection::close);
    }

    /// Answers and pings for so long, and publishes nothing.
    pub(crate) fn idle(&mut self, seconds: f64) {
        let end = now() + (seconds * 1e9) as u64;
        while let Some(left) = end.checked_sub(now()).filter(|left| *left > 0) {
            self.poll(left.min(SECOND / 20));
        }
    }

    /// Publishes, and waits until everything has arrived, or nothing does any more.
    pub(crate) fn publish(&mut self, pace: Pace, seconds: f64) -> Phase {
        self.begin_phase();
        let started = now();
        match pace {
            Pace::Rate(rate) if self.cast.publishes == Publishes::InProcess => self.order(rate, seconds),
            Pace::Rate(rate) => self.at_rate(rate, seconds),
            Pace::Window(window) => self.with_window(window, seconds),
            Pace::Count(count) => self.one_by_one(count),
        }
        let expected = self.sent.iter().zip(&self.members);
        let expected = expected
            .map(|(sent, members)| u64::from(*sent) * u64::from(*members))
            .sum();
        let (mut seen, mut changed) = (self.tally.deliveries, now());
        while self.tally.deliveries < expected && now() - changed < QUIET {
            self.poll(SECOND / 50);
            if self.tally.deliveries != seen {
                (seen, changed) = (self.tally.deliveries, now());
            }
        }
        let tally = std::mem::replace(&mut self.tally, Tally::new(0));
        Phase {
            messages: self.sent.iter().map(|sent| u64::from(*sent)).sum(),
            expected,
            seconds: tally.last.saturating_sub(started) as f64 / 1e9,
            tally,
        }
    }

    fn begin_phase(&mut self) {
        self.phase += 1;
        self.tally = Tally::new(self.phase);
        self.outstanding = 0;
        self.sent.fill(0);
        self.connections
            .iter_mut()
            .for_each(|connection| connection.receives.clear());
    }

    fn at_rate(&mut self, rate: f64, seconds: f64) {
        let started = now();
        for number in 0..(rate * seconds).round() as u64 {
            let due = started + (number as f64 * 1e9 / rate) as u64;
            while let Some(left) = due.checked_sub(now()).filter(|left| *left > 0) {
                self.poll(left);
            }
            self.send(number, due);
            // It reads on where it is behind its times.
            if number % 16 == 15 {
                self.poll(0);
            }
        }
    }

    fn with_window(&mut self, window: u32, seconds: f64) {
        let end = now() + (seconds * 1e9) as u64;
        let each = i64::from(self.members[0]).max(1);
        let (mut number, mut seen, mut changed) = (0, 0, now());
        while now() < end {
            while self.outstanding <= (i64::from(window) - 1) * each {
                self.send(number, now());
                number += 1;
            }
            self.poll(SECOND / 200);
            if self.tally.deliveries != seen {
                (seen, changed) = (self.tally.deliveries, now());
            } else if now() - changed > QUIET {
                break; // what is lost shows in the table
            }
        }
    }

    fn one_by_one(&mut self, count: u32) {
        for number in 0..u64::from(count) {
            let started = now();
            self.send(number, started);
            while self.outstanding > 0 && now() - started < QUIET {
                self.poll(SECOND / 50);
            }
        }
    }

    /// Has the hub publish by itself.
    fn order(&mut self, rate: f64, seconds: f64) {
        let count = (rate * seconds).round() as u32;
        let order = Publishes::order(self.phase, self.cast.groups, rate, count, self.cast.payload);
        let groups = self.cast.groups;
        for (group, sent) in self.sent.iter_mut().enumerate() {
            *sent = (count + groups - 1 - u32::try_from(group).expect("few groups")) / groups;
        }
        let publisher = self.connections.len() - 1;
        self.send_on(publisher, &order);
    }

    /// The message of this number goes to the next group.
    fn send(&mut self, number: u64, due: u64) {
        let group = (number % u64::from(self.cast.groups)) as usize;
        self.sent[group] += 1;
        let stamp = Stamp {
            phase: self.phase,
            group: u32::try_from(group).expect("few groups"),
            number: self.sent[group],
            due,
        };
        self.outstanding += i64::from(self.members[group]);
        let message = self
            .cast
            .publishes
            .message(stamp, self.cast.payload, &self.requests);
        let turn = group % self.turns.len();
        let publisher = self.connections.len() - self.turns.len() + turn;
        if self.cast.publishes != Publishes::Rest {
            self.send_on(publisher, &message);
        } else if let Some(message) = self.turns[turn].begin(message) {
            self.send_on(publisher, &message);
        }
    }

    fn send_on(&mut self, index: usize, bytes: &[u8]) {
        let sent = self.connections[index].send(bytes);
        self.settle(index, sent.map(|()| Progress::Same));
    }

    fn add(&mut self, connection: Connection) {
        let index = self.connections.len();
        self.connections.push(connection);
        self.open_connection(index);
    }

    fn open_connection(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        connection.began = now();
        let opened = connection.open();
        self.register(index);
        self.settle(index, opened);
    }

    fn register(&mut self, index: usize) {
        let Some(socket) = &self.connections[index].socket else {
            return;
        };
        let data = epoll::EventData::new_u64(index as u64);
        if let Err(error) = epoll::add(&self.epoll, socket, data, epoll::EventFlags::IN) {
            self.fail(index, &error.into());
        }
    }

    /// Notes how far a connection is after something was done with it.
    fn settle(&mut self, index: usize, progress: io::Result<Progress>) {
        let connection = &mut self.connections[index];
        match progress {
            Err(error) => return self.fail(index, &error),
            Ok(Progress::Reopened) => self.register(index),
            Ok(Progress::Ready) if connection.is_receiver() => {
                let micros = now().saturating_sub(connection.began) / 1_000;
                self.connecting.saturating_record(micros.max(1));
                self.open += 1;
                if connection.stalls {
                    return self.watch(index, epoll::EventFlags::empty());
                }
                for group in connection.receives.groups() {
                    self.members[group as usize] += 1;
                }
            }
            Ok(_) => {}
        }
        if self.connections[index].has_unsent() {
            self.watch(index, epoll::EventFlags::IN | epoll::EventFlags::OUT);
        }
    }

    fn watch(&mut self, index: usize, flags: epoll::EventFlags) {
        let Some(socket) = &self.connections[index].socket else {
            return;
        };
        let data = epoll::EventData::new_u64(index as u64);
        if let Err(error) = epoll::modify(&self.epoll, socket, data, flags) {
            self.fail(index, &error.into());
        }
    }

    fn fail(&mut self, index: usize, error: &io::Error) {
        let connection = &mut self.connections[index];
        if connection.is_closed() {
            return;
        }
        if connection.stalls && connection.is_ready() {
            return connection.close(); // such a client is let go
        }
        let is_receiver = connection.is_receiver();
        self.failed += u32::from(is_receiver && !connection.is_ready());
        connection.close();
        let what = if is_receiver {
            "a receiver"
        } else {
            "the publisher"
        };
        self.first_error.get_or_insert_with(|| format!("{what}: {error}"));
    }

    /// Works off what has come, and waits at most so many nanoseconds for something.
    fn poll(&mut self, nanos: u64) {
        let mut events = [const { MaybeUninit::uninit() }; 128];
        let at_once = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let (found, _) = epoll::wait(&self.epoll, &mut events, Some(&at_once)).unwrap_or_default();
        let ready: Vec<_> = found
            .iter()
            .map(|event| {
                let (flags, data) = (event.flags, event.data);
                (data.u64() as usize, flags)
            })
            .collect();
        if ready.is_empty() && nanos > 0 {
            // `epoll` itself counts in milliseconds.
            let wait = Timespec {
                tv_sec: (nanos / SECOND) as i64,
                tv_nsec: (nanos % SECOND) as i64,
            };
            let _a_signal_ends_it_early = poll(&mut [PollFd::new(&self.epoll, PollFlags::IN)], Some(&wait));
        }
        for (index, flags) in ready {
            if flags.intersects(epoll::EventFlags::OUT) {
                self.watch(index, epoll::EventFlags::IN);
                let flushed = self.connections[index].flush();
                self.settle(index, flushed.map(|()| Progress::Same));
            }
            if flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::ERR) {
                self.read(index);
            }
        }
        self.tend();
    }

    fn read(&mut self, index: usize) {
        let first_publisher = self.connections.len() - self.turns.len();
        let connection = &mut self.connections[index];
        if connection.is_closed() {
            return;
        }
        if connection.stalls && connection.is_ready() {
            return self.fail(index, &io::ErrorKind::ConnectionReset.into());
        }
        let time = now();
        let (tally, outstanding) = (&mut self.tally, &mut self.outstanding);
        if connection.is_receiver() {
            let progress = connection.read(&mut self.buffer, |receives, bytes| {
                scan(receives, bytes, tally, outstanding, time)
            });
            return self.settle(index, progress);
        }
        let turn = &mut self.turns[index - first_publisher];
        let is_back_end = self.cast.publishes == Publishes::Rest;
        let mut next = Ok(None);
        let progress = connection.read(&mut self.buffer, |_, bytes| {
            if !is_back_end {
                return bytes.len();
            }
            let answered = turn.answered(bytes);
            let done = answered.as_ref().map_or(bytes.len(), |(done, _)| *done);
            next = answered.map(|(_, next)| next);
            done
        });
        self.settle(index, progress);
        match next {
            Ok(Some(request)) => self.send_on(index, &request),
            Ok(None) => {}
            Err(error) => self.fail(index, &error),
        }
    }

    /// Pings and acknowledgements that are due.
    fn tend(&mut self) {
        let (time, count) = (now(), self.connections.len());
        for index in self.pings.due(time, count) {
            let sent = self.connections[index].ping();
            self.settle(index, sent.map(|()| Progress::Same));
        }
        if self.cast.speaks.is_stateful() {
            for index in self.acks.due(time, count) {
                let sent = self.connections[index].acknowledge();
                self.settle(index, sent.map(|()| Progress::Same));
            }
        }
    }
}
