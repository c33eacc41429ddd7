//! The one client that sends, on a thread of its own: a task would wait for the receivers' tasks.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::{sleep, spawn};
use std::time::Duration;

use tokio::time::Instant;

use crate::Args;
use crate::receiver::{MARK, Receiver, STAMP, frame, nanos_since};

/// Sends messages at fixed times, whether or not earlier ones have arrived.
pub(crate) struct Publisher {
    stream: TcpStream,
    base: Instant,
    groups: u32,
    interval: Duration,
    padding: String,
    sent: u32,
}

impl Publisher {
    pub(crate) async fn connect(address: SocketAddr, args: &Args, base: Instant) -> Self {
        let stream = Receiver::into_stream(address)
            .await
            .expect("the publisher connects");
        let stream = stream.into_std().expect("a socket of the system");
        stream.set_nonblocking(false).expect("a socket may block");
        let mut input = stream.try_clone().expect("a socket can be shared");
        // Messages to all come back to the publisher as well. The thread ends with the connection.
        spawn(move || {
            let mut piece = [0; 65_536];
            while input.read(&mut piece).is_ok_and(|length| length > 0) {}
        });
        let padding = "x".repeat((args.payload as usize).saturating_sub(STAMP));
        let interval = Duration::from_secs(1) / args.rate;
        Self {
            stream,
            base,
            groups: args.groups,
            interval,
            padding,
            sent: 0,
        }
    }

    /// How many messages were sent so far.
    pub(crate) fn sent(&self) -> u32 {
        self.sent
    }

    /// Sends so many messages, and returns when the last one is on its way.
    pub(crate) fn publish(mut self, messages: u32) -> Self {
        let start = Instant::now();
        for i in 0..messages {
            let intended = start + self.interval * i;
            sleep(intended.saturating_duration_since(Instant::now()));
            let late = intended.elapsed();
            let stamp = nanos_since(self.base) - u64::try_from(late.as_nanos()).unwrap();
            let message = self.message(stamp);
            self.stream
                .write_all(&frame(message.as_bytes()))
                .expect("the publisher's connection holds");
            self.sent += 1;
        }
        self
    }

    fn message(&self, stamp: u64) -> String {
        let (number, target, to) = match self.groups {
            0 => (self.sent, "SendMessage", "all".to_owned()),
            groups => (
                self.sent / groups,
                "SendToGroup",
                format!("g{}", self.sent % groups),
            ),
        };
        let text = format!("{MARK}{number:08x}{stamp:016x}{}", self.padding);
        format!("{{\"type\":1,\"target\":\"{target}\",\"arguments\":[\"{to}\",\"{text}\"]}}\u{1e}")
    }
}
