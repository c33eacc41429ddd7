//! The codec: an invocation of 100 bytes of text, as a client sends it and as receivers get it.

use std::hint::black_box;

use bytes::Bytes;
use hubcast::protocol::{
    Decoder, Encoding, HubMessage, HubProtocol, Invocation, Value, encode, encode_invocation,
};

use crate::{Operation, Repeat};

pub(crate) const OPERATIONS: [Operation; 6] = [
    operation("decode-json", |repeat| decode(HubProtocol::Json, repeat)),
    operation("decode-messagepack", |repeat| {
        decode(HubProtocol::MessagePack, repeat);
    }),
    operation("encode-json", |repeat| encode_same(HubProtocol::Json, repeat)),
    operation("encode-messagepack", |repeat| {
        encode_same(HubProtocol::MessagePack, repeat);
    }),
    operation("transcode-json-to-messagepack", |repeat| {
        transcode(Encoding::Json, HubProtocol::MessagePack, repeat);
    }),
    operation("transcode-messagepack-to-json", |repeat| {
        transcode(Encoding::MessagePack, HubProtocol::Json, repeat);
    }),
];

const fn operation(name: &'static str, run: fn(Repeat<'_>)) -> Operation {
    Operation {
        name,
        elements: 1,
        run,
    }
}

fn arguments(encoding: Encoding) -> Vec<Value> {
    ["room", &"x".repeat(100)]
        .map(|text| Value::encode_as(&text, encoding).expect("text can be encoded"))
        .to_vec()
}

fn message(protocol: HubProtocol) -> Bytes {
    let invocation = HubMessage::Invocation(Invocation {
        headers: Vec::new(),
        invocation_id: None,
        target: "SendToGroup".to_owned(),
        arguments: arguments(protocol.encoding()),
        stream_ids: Vec::new(),
        data_type: None,
    });
    encode(protocol, &invocation).expect("it can be framed")
}

fn decode(protocol: HubProtocol, repeat: Repeat<'_>) {
    let (bytes, mut decoder) = (message(protocol), Decoder::new(protocol, 32_768));
    repeat(&mut || {
        decoder.push(black_box(&bytes));
        assert!(black_box(decoder.next_message()).is_ok_and(|message| message.is_some()));
    });
}

fn encode_same(protocol: HubProtocol, repeat: Repeat<'_>) {
    transcode(protocol.encoding(), protocol, repeat);
}

fn transcode(from: Encoding, to: HubProtocol, repeat: Repeat<'_>) {
    let arguments = arguments(from);
    repeat(&mut || {
        let frame = encode_invocation(to, "GroupMessage", black_box(&arguments));
        assert!(black_box(frame).is_ok());
    });
}
