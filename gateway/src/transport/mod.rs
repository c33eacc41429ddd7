//! Bytes in, bytes out. Nothing in here knows hubs or protocols beyond text or binary.

mod frames;
mod long_polling;
mod sse;
mod upgrade;
mod websocket;

pub(crate) use frames::Messages;
pub(crate) use long_polling::{Poll, poll};
pub(crate) use sse::stream as sse_stream;
pub(crate) use upgrade::{Upgrade, WebSocket};
pub(crate) use websocket::{Reservation, serve as serve_websocket, serve_resumable};
