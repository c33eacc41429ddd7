//! Bytes in, bytes out. Nothing in here knows hubs or protocols beyond text or binary.

mod long_polling;
mod socket;
mod sse;
mod tcp;
mod upgrade;
mod websocket;

pub(crate) use long_polling::{Poll, poll};
pub(crate) use socket::{WebSocket, with_buffer};
pub(crate) use sse::stream as sse_stream;
pub(crate) use tcp::{Accepted, Exit, HttpSocket};
pub(crate) use upgrade::{Takeover, Upgrade};
pub(crate) use websocket::{Reservation, serve as serve_websocket, serve_resumable};
