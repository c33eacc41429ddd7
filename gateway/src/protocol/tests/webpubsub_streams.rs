//! Streams to groups and metadata of messages, by their bytes.

use bytes::Bytes;

use super::*;
use crate::protocol::Encoding;
use crate::protocol::client::Data;

const PROTOCOL: WebPubSubProtocol = WebPubSubProtocol::Json;

fn read(text: &str) -> Result<Request, DecodeError> {
    let message = PROTOCOL.decode(&Bytes::copy_from_slice(text.as_bytes()))?;
    match message {
        ClientMessage::Request(request) => Ok(request),
        other => panic!("no request: {other:?}"),
    }
}

fn stream(text: &str) -> StreamRequest {
    match read(text).unwrap().wish {
        RequestWish::Stream(request) => request,
        other => panic!("not about a stream: {other:?}"),
    }
}

fn json_value(text: &'static str) -> Value {
    Value::from_raw(Encoding::Json, Bytes::from_static(text.as_bytes()))
}

fn text(bytes: &Bytes) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn messages_about_streams_are_read() {
    let id = || "s".to_owned();
    let begin = |no_echo, idle_timeout, has_data| StreamRequest::Begin {
        id: id(),
        group: "g".to_owned(),
        no_echo,
        idle_timeout,
        has_data,
    };
    let data = |number, kind, json, packed: Option<&'static [u8]>| StreamRequest::Data {
        id: id(),
        number,
        data: Data {
            kind,
            json: json_value(json),
            packed: packed.map(|bytes| Value::from_raw(Encoding::MessagePack, Bytes::from_static(bytes))),
        },
    };
    let end = |message: Option<&str>, code: Option<&str>| StreamRequest::End {
        id: id(),
        error: Some(EndError {
            message: message.map(str::to_owned),
            code: code.map(str::to_owned),
        }),
    };
    for (text, expected) in [
        (
            r#"{"type":"sendToGroup","group":"g","noEcho":false,"stream":{"streamId":"s"}}"#,
            begin(false, None, false),
        ),
        (
            r#"{"type":"sendToGroup","group":"g","noEcho":true,"stream":{"idleTimeoutMs":5,"streamId":"s","later":1}}"#,
            begin(true, Some(5), false),
        ),
        (
            r#"{"type":"sendToGroup","group":"g","data":null,"stream":{"streamId":"s"}}"#,
            begin(false, None, true),
        ),
        (
            r#"{"type":"streamData","streamId":"s","streamSequenceId":1,"dataType":"text","data":"x"}"#,
            data(1, DataType::Text, r#""x""#, None),
        ),
        (
            r#"{"type":"streamData","streamId":"s","streamSequenceId":18446744073709551615,"dataType":"Json","data":{"a":1}}"#,
            data(u64::MAX, DataType::Json, r#"{"a":1}"#, None),
        ),
        (
            r#"{"type":"streamData","streamId":"s","streamSequenceId":2,"dataType":"json","data":null}"#,
            data(2, DataType::Json, "null", None),
        ),
        (
            r#"{"type":"streamData","streamId":"s","streamSequenceId":3,"dataType":"binary","data":"aGk="}"#,
            data(3, DataType::Binary, r#""aGk=""#, Some(b"\xc4\x02hi")),
        ),
        (
            r#"{"type":"streamData","streamId":"s"}"#,
            StreamRequest::KeepAlive { id: id() },
        ),
        (
            r#"{"type":"streamEnd","streamId":"s"}"#,
            StreamRequest::End {
                id: id(),
                error: None,
            },
        ),
        (
            r#"{"type":"streamEnd","streamId":"s","error":{"message":"no more","userErrorCode":"E1"}}"#,
            end(Some("no more"), Some("E1")),
        ),
        (
            r#"{"type":"streamEnd","streamId":"s","error":{"name":"mine"}}"#,
            end(None, None),
        ),
    ] {
        assert_eq!(stream(text), expected, "{text}");
    }
}

#[test]
fn what_is_no_message_about_a_stream_is_refused_with_what_is_wrong() {
    let beginning = "Expected 'stream' to be an object with a text as streamId and, if it has one, an integer as idleTimeoutMs.";
    let error = "Expected 'error' to be an object with texts, if it has them, as message and userErrorCode.";
    for (text, expected) in [
        (
            r#"{"type":"streamData"}"#,
            "Missing required property 'streamId'.",
        ),
        (r#"{"type":"sendToGroup","group":"g","stream":{}}"#, beginning),
        (r#"{"type":"sendToGroup","group":"g","stream":1}"#, beginning),
        (
            r#"{"type":"sendToGroup","group":"g","stream":{"streamId":"s","idleTimeoutMs":-1}}"#,
            beginning,
        ),
        (
            r#"{"type":"sendToGroup","stream":{"streamId":"s"}}"#,
            "Missing required property 'group'.",
        ),
        (
            r#"{"type":"streamData","streamId":"s","streamSequenceId":0,"dataType":"text","data":"x"}"#,
            "Expected 'streamSequenceId' to be an integer above 0.",
        ),
        (
            r#"{"type":"streamData","streamId":"s","dataType":"text","data":"x"}"#,
            "Missing required property 'streamSequenceId'.",
        ),
        (
            r#"{"type":"streamData","streamId":"s","streamSequenceId":1,"data":"x"}"#,
            "Missing required property 'dataType'.",
        ),
        (
            r#"{"type":"streamData","streamId":"s","streamSequenceId":1,"dataType":"json"}"#,
            "Missing required property 'data'.",
        ),
        (
            r#"{"type":"streamData","streamId":"s","streamSequenceId":1}"#,
            "Missing required property 'dataType'.",
        ),
        (r#"{"type":"streamEnd","streamId":"s","error":"x"}"#, error),
        (
            r#"{"type":"streamEnd","streamId":"s","error":{"userErrorCode":1}}"#,
            error,
        ),
    ] {
        assert_eq!(read(text).unwrap_err().to_string(), expected, "{text}");
    }
}

#[test]
fn messages_about_streams_are_written_as_the_official_client_reads_them() {
    let written = [
        (
            WebPubSubProtocol::stream_ack("s\"", 1),
            r#"{"type":"streamAck","streamId":"s\"","expectedSequenceId":1}"#,
        ),
        (
            WebPubSubProtocol::stream_nack("s", "no \"2\"", 2),
            r#"{"type":"streamNack","streamId":"s","name":"InvalidSequenceId","message":"no \"2\"","expectedSequenceId":2}"#,
        ),
        (
            WebPubSubProtocol::stream_closed("s", None),
            r#"{"type":"streamClosed","streamId":"s"}"#,
        ),
        (
            WebPubSubProtocol::stream_closed("s", Some(("IdleTimeout", "late"))),
            r#"{"type":"streamClosed","streamId":"s","error":{"name":"IdleTimeout","message":"late"}}"#,
        ),
    ];
    for (bytes, expected) in written {
        assert_eq!(text(&bytes), expected);
    }
}

fn published<'a>(
    arguments: &'a [Value],
    metadata: &'a [(&'a str, &'a str)],
    fragment: Option<Fragment<'a>>,
) -> Published<'a> {
    Published {
        group: Some("g"),
        from_user: "",
        data_type: DataType::Text,
        target: MESSAGE,
        arguments,
        packed: &[],
        metadata,
        fragment,
    }
}

#[test]
fn fragments_and_ends_are_messages_with_data() {
    let of = |number, ends, error| Fragment {
        stream: "s",
        number,
        ends,
        error,
    };
    let failed = FragmentError {
        name: "UserError",
        message: Some("\"no\""),
        code: Some("E1"),
    };
    let bare = FragmentError {
        name: "Cancelled",
        message: None,
        code: None,
    };
    for (data, fragment, expected) in [
        (
            r#""x""#,
            of(1, false, None),
            r#""data":"x","stream":{"streamId":"s","streamSequenceId":1}"#,
        ),
        (
            r#""""#,
            of(2, true, None),
            r#""data":"","stream":{"streamId":"s","streamSequenceId":2,"endOfStream":true}"#,
        ),
        (
            r#""""#,
            of(3, true, Some(failed)),
            r#""data":"","stream":{"streamId":"s","streamSequenceId":3,"endOfStream":true,"error":{"name":"UserError","message":"\"no\"","userErrorCode":"E1"}}"#,
        ),
        (
            r#""""#,
            of(4, true, Some(bare)),
            r#""data":"","stream":{"streamId":"s","streamSequenceId":4,"endOfStream":true,"error":{"name":"Cancelled"}}"#,
        ),
    ] {
        let arguments = [json_value(data)];
        let published = published(&arguments, &[], Some(fragment));
        assert_eq!(
            text(&WebPubSubProtocol::ReliableJson.message(&published, 7)),
            format!(
                r#"{{"type":"message","from":"group","group":"g","dataType":"text",{expected},"sequenceId":7}}"#
            )
        );
    }
}

#[test]
fn metadata_of_messages_to_groups_come_as_they_were_sent() {
    let send = |rest: &str| {
        let request = read(&format!(r#"{{"type":"sendToGroup","group":"g",{rest}}}"#));
        request.map(|request| match request.wish {
            RequestWish::Send(send) => send,
            other => panic!("no message: {other:?}"),
        })
    };
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let some = send(r#""data":1,"metadata":{"B":"1","a":"2","b":"3"}"#).unwrap();
    assert_eq!(some.metadata, [pair("a", "2"), pair("b", "3")]);
    assert_eq!(some.data.json, json_value("1"));
    let none = send(r#""data":1,"metadata":null"#).unwrap();
    assert_eq!(none.metadata, []);
    // Without data it is an empty text.
    let alone = send(r#""metadata":{"A":"1"}"#).unwrap();
    assert_eq!(
        (alone.data.kind, alone.data.json),
        (DataType::Text, json_value(r#""""#))
    );
    let error = send(r#""data":1,"metadata":{"a":"ä"}"#).unwrap_err();
    assert!(
        error.to_string().starts_with("Expected 'metadata' to be"),
        "{error}"
    );

    let arguments = [json_value(r#""x""#)];
    let published = published(&arguments, &[("A", "1\""), ("b", "")], None);
    assert_eq!(
        text(&PROTOCOL.message(&published, 7)),
        r#"{"type":"message","from":"group","group":"g","dataType":"text","data":"x","metadata":{"A":"1\"","b":""}}"#
    );
    let written = WebPubSubProtocol::Protobuf.message(&published, 7);
    let reported = schema::DownstreamMessage::decode(written).unwrap();
    let Some(schema::Downstream::Data(reported)) = reported.message else {
        panic!("no data: {reported:?}");
    };
    let entries: Vec<_> = reported
        .metadata
        .iter()
        .map(|entry| schema::Entry::decode(entry.clone()).unwrap())
        .collect();
    assert_eq!(
        entries
            .iter()
            .map(|entry| (entry.key.as_str(), entry.value.as_str()))
            .collect::<Vec<_>>(),
        [("A", "1\""), ("b", "")]
    );
}

#[test]
fn metadata_in_protobuf_are_read_and_a_stream_is_refused() {
    let read = |bytes: &'static [u8]| {
        let message = WebPubSubProtocol::Protobuf.decode(&Bytes::from_static(bytes));
        match message.unwrap() {
            ClientMessage::Request(request) => request.wish,
            other => panic!("no request: {other:?}"),
        }
    };
    let RequestWish::Send(send) = read(b"\x0a\x12\x0a\x03tea\x1a\x03\x0a\x01x\x32\x06\x0a\x01K\x12\x01v")
    else {
        panic!("no message");
    };
    assert_eq!(send.metadata, [("K".to_owned(), "v".to_owned())]);
    let RequestWish::Send(alone) = read(b"\x0a\x0d\x0a\x03tea\x32\x06\x0a\x01K\x12\x01v") else {
        panic!("no message");
    };
    assert_eq!(
        (alone.data.kind, alone.data.json),
        (DataType::Text, json_value(r#""""#))
    );
    let begun = read(b"\x0a\x0a\x0a\x03tea\x3a\x03\x0a\x01s");
    assert!(
        matches!(begun, RequestWish::Stream(StreamRequest::Begin { .. })),
        "{begun:?}"
    );
}
