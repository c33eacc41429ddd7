//! Long polling: each GET fetches the waiting frames, or waits for some.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::sleep;

use crate::hub::Chosen;
use crate::protocol::Transport;
use crate::session::{Begun, Session, Taken};

/// Most bytes in one answer, if no single message is larger.
const MAX_POLL_BYTES: usize = 256 * 1024;

/// The answer to a poll.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Poll {
    /// 200 with whole hub messages, which were taken from the session.
    Data { body: Bytes, taking: u64 },
    /// 200 with nothing: the first poll, or nothing came in time.
    Empty,
    /// 204: the connection has ended, or a newer poll took this one's place.
    Ended,
    /// 400: the connection uses another transport.
    OtherTransport,
}

/// Serves a poll on the node that owns the connection, and waits for data no longer than `patience`. Dropping it takes
/// nothing away.
pub(crate) async fn poll(session: &Arc<Session>, patience: Duration) -> Poll {
    let Some(link) = session.http() else {
        return Poll::OtherTransport;
    };
    if session.connection().set_transport(Transport::LongPolling) == Chosen::Another {
        return Poll::OtherTransport;
    }
    if link.begin() == Begun::Now {
        return Poll::Empty; // the first one only says that the transport works
    }
    let turn = link.supersede();
    let _turn = link.polling.lock().await;
    if link.is_superseded(turn) {
        return Poll::Ended;
    }
    let _attached = link.attach();
    let mut frames = Vec::new();
    tokio::select! {
        biased;
        () = link.superseded(turn) => Poll::Ended,
        taken = session.take_frames(&mut frames, MAX_POLL_BYTES) => match taken {
            Taken::Some | Taken::Pongs => Poll::Data {
                body: join(frames),
                taking: link.count_taking(),
            },
            Taken::End => {
                link.drained();
                Poll::Ended
            }
        },
        () = link.yielded() => Poll::Empty,
        () = sleep(patience) => Poll::Empty,
    }
}

fn join(mut frames: Vec<Bytes>) -> Bytes {
    match (frames.pop(), frames.is_empty()) {
        (Some(only), true) => only,
        (last, _) => {
            let last = last.unwrap_or_default();
            let mut body = BytesMut::with_capacity(frames.iter().map(Bytes::len).sum::<usize>() + last.len());
            frames.iter().for_each(|frame| body.extend_from_slice(frame));
            body.extend_from_slice(&last);
            body.freeze()
        }
    }
}
