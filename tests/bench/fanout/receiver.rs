//! A client that does nothing but receive, at little cost.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use hubcast_tests::http::Request;
use memchr::memmem::Finder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::tally::Tally;

/// Stands before the stamp in every published text. The stamp: number in the group (8 hexadecimal digits), nanoseconds
/// from the common moment to when it should have been sent (16 digits).
pub(crate) const MARK: &str = "~fan";
/// Bytes of mark and stamp.
pub(crate) const STAMP: usize = MARK.len() + 24;

/// One connection.
pub(crate) struct Receiver {
    index: u32,
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Receiver {
    /// Opens a WebSocket without negotiation, says which protocol, and joins a group.
    pub(crate) async fn connect(address: SocketAddr, index: u32, group: Option<u32>) -> io::Result<Self> {
        let mut receiver = Self::open(address, index).await?;
        if let Some(group) = group {
            let join = format!(
                "{{\"type\":1,\"invocationId\":\"0\",\"target\":\"JoinGroup\",\"arguments\":[\"g{group}\"]}}\u{1e}"
            );
            receiver.stream.write_all(&frame(join.as_bytes())).await?;
            receiver.until(b"\"type\":3").await?;
        }
        Ok(receiver)
    }

    async fn open(address: SocketAddr, index: u32) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut receiver = Self {
            index,
            stream,
            buffer: Vec::new(),
        };
        let request = Request::upgrade("/hubs/demo").bytes(address);
        receiver.stream.write_all(&request).await?;
        receiver.until(b"\r\n\r\n").await?;
        receiver
            .stream
            .write_all(&frame(b"{\"protocol\":\"json\",\"version\":1}\x1e"))
            .await?;
        receiver.until(b"{}\x1e").await?;
        Ok(receiver)
    }

    /// Reads until `text` has come, and forgets everything up to there.
    async fn until(&mut self, text: &[u8]) -> io::Result<()> {
        loop {
            if let Some(at) = memchr::memmem::find(&self.buffer, text) {
                self.buffer.drain(..at + text.len());
                return Ok(());
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Gives up the stream, for publishing on it.
    pub(crate) async fn into_stream(address: SocketAddr) -> io::Result<TcpStream> {
        Ok(Self::open(address, 0).await?.stream)
    }

    /// Counts what comes, until the connection ends.
    pub(crate) async fn run(mut self, tally: Arc<Tally>, base: Instant) {
        let finder = Finder::new(MARK);
        let mut piece = [0; 4096];
        while let Ok(length @ 1..) = self.stream.read(&mut piece).await {
            self.buffer.extend_from_slice(&piece[..length]);
            let now = nanos_since(base);
            let mut done = 0;
            // Stamps never contain the mark, so frames need not be parsed: every mark is one delivery.
            while let Some(at) = finder.find(&self.buffer[done..]) {
                let start = done + at;
                let Some(stamp) = self.buffer.get(start + MARK.len()..start + STAMP) else {
                    break;
                };
                let stamp = std::str::from_utf8(stamp).expect("a stamp is text");
                let number = u32::from_str_radix(&stamp[..8], 16).expect("a number");
                let intended = u64::from_str_radix(&stamp[8..], 16).expect("a time");
                tally.record(self.index, number, now.saturating_sub(intended) / 1_000);
                done = start + STAMP;
            }
            // The remaining bytes may be the beginning of a mark or stamp.
            let keep = finder
                .find(&self.buffer[done..])
                .map_or_else(|| MARK.len() - 1, |at| self.buffer.len() - done - at);
            let keep = keep.min(self.buffer.len() - done);
            self.buffer.drain(..self.buffer.len() - keep);
        }
    }
}

/// Nanoseconds from `base` to now.
pub(crate) fn nanos_since(base: Instant) -> u64 {
    u64::try_from(base.elapsed().as_nanos()).expect("less than 500 years")
}

/// A masked Text frame.
pub(crate) fn frame(payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x3A, 0x91, 0x5C, 0xE7];
    let mut frame = vec![0x81];
    match payload.len() {
        length @ 0..=125 => frame.push(0x80 | u8::try_from(length).unwrap()),
        length => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(
                &u16::try_from(length)
                    .expect("messages are below 64 KiB")
                    .to_be_bytes(),
            );
        }
    }
    frame.extend_from_slice(&MASK);
    frame.extend(
        payload
            .iter()
            .zip(MASK.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    frame
}
