//! Frames of Web PubSub's clients; see [`hubcast::protocol::webpubsub::check_frame`]. The first byte chooses the subprotocol.
#![no_main]

use bytes::Bytes;
use hubcast::protocol::webpubsub::{WebPubSubProtocol, check_frame};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((choice, frame)) = input.split_first() else {
        return;
    };
    let protocols = WebPubSubProtocol::ALL;
    check_frame(
        protocols[usize::from(*choice) % protocols.len()],
        &Bytes::copy_from_slice(frame),
    );
});
