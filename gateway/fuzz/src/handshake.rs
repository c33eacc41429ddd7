//! Any bytes as a new connection: the handshake does not depend on how they were cut, and the bytes after it reach
//! the decoder whole.

use std::error::Error as _;

use hubcast::protocol::{
    Decoder, HandshakeError, HandshakeReader, HandshakeRequest, HubProtocol, RECORD_SEPARATOR, Value,
    handshake_response_error, select,
};

use crate::{Decoded, Stream, decode};

/// Checks one input; see [`Stream`].
pub fn check(input: &[u8]) {
    let Some(stream) = Stream::of(input) else {
        return;
    };
    let [whole, cut, bytewise] = stream.cuts().map(|chunks| connect(stream.limit, &chunks));
    assert_eq!(whole, cut, "the cut matters");
    assert_eq!(whole, bytewise, "the cut matters");

    if let Ok(Connected { request, then }) = &whole {
        let end = stream.bytes.iter().position(|byte| *byte == RECORD_SEPARATOR);
        let behind = &stream.bytes[end.expect("a handshake has an end") + 1..];
        let decoder = Decoder::new(protocol_of(request), stream.limit);
        assert_eq!(decode(decoder, stream.limit, [behind]), *then);
        for transport_supports_binary in [true, false] {
            if let Err(error) = select(request, transport_supports_binary) {
                check_refusal(&error);
            }
        }
    }
}

#[derive(PartialEq, Debug)]
struct Connected {
    request: HandshakeRequest,
    then: Decoded,
}

/// `Err` with the text of the error, or without if the handshake is not whole.
fn connect(limit: usize, chunks: &[&[u8]]) -> Result<Connected, Option<String>> {
    let mut reader = HandshakeReader::new(limit);
    for (index, chunk) in chunks.iter().enumerate() {
        reader.push(chunk);
        match reader.next_request() {
            Ok(None) => assert!(
                reader.buffered_bytes() < limit,
                "an unfinished handshake is over the limit"
            ),
            Ok(Some(request)) => {
                let decoder = reader.into_decoder(protocol_of(&request));
                let then = decode(decoder, limit, chunks.iter().skip(index + 1).copied());
                return Ok(Connected { request, then });
            }
            Err(error) => {
                check_refusal(&error);
                return Err(Some(format!("{error:?}")));
            }
        }
    }
    Err(None)
}

fn protocol_of(request: &HandshakeRequest) -> HubProtocol {
    select(request, true).map_or(HubProtocol::Json, |(protocol, _)| protocol)
}

/// The answer is one record of JSON, whatever the client made the error say.
fn check_refusal(error: &HandshakeError) {
    let detail = error.source().map(ToString::to_string).unwrap_or_default();
    let response = handshake_response_error(&format!("{error} {detail}"));
    let (separator, text) = response.split_last().expect("a response");
    assert_eq!(*separator, RECORD_SEPARATOR);
    assert!(!text.contains(&RECORD_SEPARATOR), "more than one record");
    Value::from_json_text(text.to_vec()).expect("a response is JSON");
}
