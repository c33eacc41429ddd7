//! WebSocket frames (RFC 6455, section 5.2), as far as the generator and the floors need them: whole messages up to 64 KiB.

/// Opcodes.
pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

const MASK: [u8; 4] = [0x3A, 0x91, 0x5C, 0xE7];

/// One frame at the beginning of some bytes.
pub(crate) struct Frame<'a> {
    pub(crate) opcode: u8,
    /// As it came: of a client's frame, masked.
    pub(crate) payload: &'a [u8],
    mask: Option<[u8; 4]>,
    /// Bytes of the whole frame.
    pub(crate) length: usize,
}

impl<'a> Frame<'a> {
    /// Reads one frame; `None` if it has not arrived whole.
    pub(crate) fn read(bytes: &'a [u8]) -> Option<Self> {
        let (&[first, second], rest) = bytes.split_first_chunk()?;
        let (payload_length, rest) = match second & 0x7F {
            126 => {
                let (length, rest) = rest.split_first_chunk()?;
                (usize::from(u16::from_be_bytes(*length)), rest)
            }
            127 => {
                let (length, rest) = rest.split_first_chunk()?;
                (usize::try_from(u64::from_be_bytes(*length)).ok()?, rest)
            }
            length => (usize::from(length), rest),
        };
        let (mask, rest) = if second & 0x80 == 0 {
            (None, rest)
        } else {
            let (mask, rest) = rest.split_first_chunk()?;
            (Some(*mask), rest)
        };
        let payload = rest.get(..payload_length)?;
        let header = bytes.len() - rest.len();
        Some(Self {
            opcode: first & 0x0F,
            payload,
            mask,
            length: header + payload_length,
        })
    }

    /// The payload without its mask.
    pub(crate) fn unmasked(&self) -> Vec<u8> {
        masked(self.payload, self.mask.unwrap_or_default()).collect()
    }
}

fn masked(payload: &[u8], mask: [u8; 4]) -> impl Iterator<Item = u8> {
    payload
        .iter()
        .zip(mask.into_iter().cycle())
        .map(|(byte, mask)| byte ^ mask)
}

fn header(opcode: u8, length: usize, mask_bit: u8) -> Vec<u8> {
    let mut header = vec![0x80 | opcode];
    match u8::try_from(length) {
        Ok(length @ 0..=125) => header.push(mask_bit | length),
        _ => {
            header.push(mask_bit | 126);
            let length = u16::try_from(length).expect("messages are below 64 KiB");
            header.extend_from_slice(&length.to_be_bytes());
        }
    }
    header
}

/// A client's frame.
pub(crate) fn from_client(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = header(opcode, payload.len(), 0x80);
    frame.extend_from_slice(&MASK);
    frame.extend(masked(payload, MASK));
    frame
}

/// A server's frame.
pub(crate) fn from_server(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = header(opcode, payload.len(), 0);
    frame.extend_from_slice(payload);
    frame
}
