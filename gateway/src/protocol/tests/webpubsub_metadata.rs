//! Metadata of Web PubSub's events, in both formats.

use bytes::Bytes;

use super::protobuf_tests::bytes;
use super::*;

/// The headers of the call that an event's frame becomes.
fn headers_of(protocol: WebPubSubProtocol, frame: &Bytes) -> Result<Vec<(String, String)>, DecodeError> {
    protocol.decode(frame).map(|message| match message {
        ClientMessage::Hub(HubMessage::Invocation(call)) => call.headers,
        other => panic!("no call: {other:?}"),
    })
}

fn pair(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

#[test]
fn metadata_of_an_event_in_json_are_its_headers() {
    let headers = |metadata: &str| {
        let event = format!(r#"{{"type":"event","event":"e","data":1,"metadata":{metadata}}}"#);
        headers_of(WebPubSubProtocol::Json, &event.into())
    };
    let some = headers(r#"{"A":"1","b-c":" x~","a":"2","e":""}"#).unwrap();
    assert_eq!(some, [pair("a", "2"), pair("b-c", " x~"), pair("e", "")]);
    assert_eq!(headers("{}").unwrap(), []);
    let long = |count: usize| {
        let entries: Vec<_> = (0..count)
            .map(|number| format!(r#""{number:04}":"{}""#, "x".repeat(1_020)))
            .collect();
        format!("{{{}}}", entries.join(","))
    };
    assert_eq!(headers(&long(8)).unwrap().len(), 8);
    for bad in [
        "1".to_owned(),
        "[]".to_owned(),
        r#"{"a":1}"#.to_owned(),
        r#"{"":"x"}"#.to_owned(),
        r#"{"a b":"x"}"#.to_owned(),
        r#"{"ä":"x"}"#.to_owned(),
        r#"{"a":"ä"}"#.to_owned(),
        r#"{"a":"x\r\nb: y"}"#.to_owned(),
        format!(r#"{{"a":"{}"}}"#, "x".repeat(1_025)),
        format!(r#"{{"{}":"x"}}"#, "a".repeat(257)),
        long(9),
        format!(
            "{{{}}}",
            (0..101)
                .map(|name| format!(r#""{name}":"""#))
                .collect::<Vec<_>>()
                .join(",")
        ),
    ] {
        let error = headers(&bad).unwrap_err().to_string();
        assert!(
            error.starts_with("Expected 'metadata' to be an object of at most 8192 bytes"),
            "{bad}: {error}"
        );
    }
}

#[test]
fn metadata_of_an_event_in_protobuf_are_its_headers() {
    let headers = |hex: &str| headers_of(WebPubSubProtocol::Protobuf, &bytes(hex));
    // "K": "V", and an entry without a value
    let some = headers("2a10 0a0165 2206 0a014b120156 2203 0a016c").unwrap();
    assert_eq!(some, [pair("k", "V"), pair("l", "")]);
    for (bad, expected) in [
        ("2a05 0a0165 2200", "Expected 'metadata' to be an object"), // no name
        (
            "2a0b 0a0165 2206 0a012012010a",
            "Expected 'metadata' to be an object",
        ),
        ("2a08 0a0165 2203 0a01ff", "Error reading protobuf: "),
    ] {
        let error = headers(bad).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{bad}: {error}");
    }
}
