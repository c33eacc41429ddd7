//! The checks of the fuzz targets. Each takes any bytes and panics if the gateway does anything forbidden.

pub mod handshake;
pub mod http;
pub mod stream;
pub mod websocket;

use hubcast::protocol::{DecodeError, Decoder, HubMessage};

/// An input of the stream targets: how the peer's bytes arrive, then the bytes themselves.
///
/// The first byte chooses the size limit, the next three are the sizes of the chunks, used again and again. Spaces
/// mean no limit and chunks of 32 bytes, so that inputs can be written by hand.
struct Stream<'a> {
    limit: usize,
    sizes: [u8; 3],
    bytes: &'a [u8],
}

impl<'a> Stream<'a> {
    fn of(input: &'a [u8]) -> Option<Self> {
        let (&[limit, ref sizes @ ..], bytes) = input.split_first_chunk::<4>()?;
        let limit = match limit {
            0..=127 => usize::MAX,
            // Not below 8: where a whole length prefix is over the limit, which error it is depends on the cut.
            over => usize::from(over - 127) * 8,
        };
        Some(Self {
            limit,
            sizes: *sizes,
            bytes,
        })
    }

    /// The bytes in one piece, cut as the input says, and one by one.
    fn cuts(&self) -> [Vec<&'a [u8]>; 3] {
        [vec![self.bytes], self.chunks(), self.bytes.chunks(1).collect()]
    }

    fn chunks(&self) -> Vec<&'a [u8]> {
        if self.sizes == [0; 3] {
            return vec![self.bytes];
        }
        let mut rest = self.bytes;
        let mut chunks = Vec::new();
        for size in self.sizes.iter().cycle() {
            let (chunk, after) = rest.split_at(rest.len().min((*size).into()));
            chunks.push(chunk); // an empty one now and then
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        chunks
    }
}

/// The result of decoding a stream.
#[derive(PartialEq, Debug)]
struct Decoded {
    messages: Vec<HubMessage>,
    /// The error, or the bytes that belong to no message yet.
    end: Result<Vec<u8>, String>,
}

/// The messages that the decoder gives for these chunks, after what it holds already.
fn decode<'a>(mut decoder: Decoder, limit: usize, chunks: impl IntoIterator<Item = &'a [u8]>) -> Decoded {
    let mut messages = Vec::new();
    let mut end = drain(&mut decoder, limit, &mut messages);
    for chunk in chunks {
        decoder.push(chunk);
        if end.is_ok() {
            end = drain(&mut decoder, limit, &mut messages);
        } else {
            assert_eq!(decoder.buffered_bytes(), 0, "bytes are kept after an error");
            assert!(
                matches!(decoder.next_message(), Ok(None)),
                "a message came after an error"
            );
        }
    }
    let end = end.map(|()| decoder.into_remaining().to_vec());
    Decoded {
        messages,
        end: end.map_err(|error| format!("{error:?}: {error}")),
    }
}

fn drain(decoder: &mut Decoder, limit: usize, messages: &mut Vec<HubMessage>) -> Result<(), DecodeError> {
    while let Some(message) = decoder.next_message()? {
        messages.push(message);
    }
    assert!(
        decoder.buffered_bytes() < limit,
        "an unfinished message is over the limit"
    );
    Ok(())
}
