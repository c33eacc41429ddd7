//! The handshake and its answers.

use super::*;
use crate::protocol::{
    HandshakeError, HandshakeReader, HandshakeRequest, handshake_response_error, handshake_response_ok,
    select,
};

fn parse(bytes: &[u8]) -> Result<Option<HandshakeRequest>, HandshakeError> {
    let mut reader = HandshakeReader::new(1_000);
    reader.push(bytes);
    reader.next_request()
}

fn request(protocol: &str, version: i32) -> HandshakeRequest {
    HandshakeRequest {
        protocol: protocol.to_owned(),
        version,
    }
}

#[test]
fn a_handshake_is_read_whatever_the_order_of_its_properties() {
    for text in [
        "{\"protocol\":\"json\",\"version\":1}\x1e",
        "{\"version\":1,\"protocol\":\"json\"}\x1e",
        " { \"x\":[{}] , \"version\" : 1,\"protocol\":\"json\" } \x1e",
        "{\"protocol\":\"no\",\"version\":9,\"version\":1,\"protocol\":\"json\"}\x1e",
    ] {
        assert_eq!(parse(text.as_bytes()).unwrap(), Some(request("json", 1)));
    }
}

#[test]
fn an_unfinished_handshake_waits_for_more() {
    let whole = b"{\"protocol\":\"json\",\"version\":1}\x1e";
    let mut reader = HandshakeReader::new(whole.len());
    for byte in &whole[..whole.len() - 1] {
        reader.push(&[*byte]);
        assert_eq!(reader.next_request().unwrap(), None);
    }
    reader.push(b"\x1e");
    assert_eq!(reader.next_request().unwrap(), Some(request("json", 1)));
}

#[test]
fn messages_behind_the_handshake_go_to_the_decoder() {
    let mut reader = HandshakeReader::new(1_000);
    reader.push(b"{\"protocol\":\"messagepack\",\"version\":1}\x1e\x02\x91\x06\x02");
    assert_eq!(reader.next_request().unwrap(), Some(request("messagepack", 1)));
    assert_eq!(reader.buffered_bytes(), 4);
    let mut decoder = reader.into_decoder(HubProtocol::MessagePack);
    assert_eq!(decoder.next_message().unwrap(), Some(HubMessage::Ping));
    assert_eq!(decoder.next_message().unwrap(), None);
    decoder.push(b"\x91\x06");
    assert_eq!(decoder.next_message().unwrap(), Some(HubMessage::Ping));
    assert_eq!(decoder.buffered_bytes(), 0);
}

#[test]
fn a_handshake_over_the_limit_is_refused_before_it_is_whole() {
    let whole = b"{\"protocol\":\"json\",\"version\":1}\x1e";
    for pushed in [whole.as_slice(), &whole[..whole.len() - 1]] {
        let mut reader = HandshakeReader::new(whole.len() - 1);
        reader.push(pushed);
        let error = reader.next_request().unwrap_err();
        assert!(matches!(error, HandshakeError::TooLarge { limit } if limit == whole.len() - 1));
        assert_eq!(error.to_string(), "Handshake was canceled.");
    }
}

#[test]
fn what_is_no_handshake_is_refused() {
    for text in [
        "\x1e",
        "{}\x1e",
        "[]\x1e",
        "null\x1e",
        "{\"protocol\":\"json\"}\x1e",
        "{\"version\":1}\x1e",
        "{\"protocol\":null,\"version\":1}\x1e",
        "{\"protocol\":1,\"version\":1}\x1e",
        "{\"protocol\":\"json\",\"version\":\"1\"}\x1e",
        "{\"protocol\":\"json\",\"version\":1.0}\x1e",
        "{\"protocol\":\"json\",\"version\":null}\x1e",
        "{\"protocol\":\"json\",\"version\":3000000000}\x1e",
        "{\"protocol\":\"json\",\"version\":1}}\x1e",
        "GET / HTTP/1.1\r\n\x1e",
    ] {
        let error = parse(text.as_bytes()).unwrap_err();
        assert!(matches!(error, HandshakeError::Malformed(_)), "{text}");
        assert_eq!(
            error.to_string(),
            "An unexpected error occurred during connection handshake."
        );
    }
    let error = parse(b"{\"protocol\":\"json\"}\x1e").unwrap_err();
    let detail = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(detail, "Missing required property 'version'.");
    let mut bomb = b"{\"a\":".repeat(100);
    bomb.push(0x1E);
    assert!(parse(&bomb).is_err());
}

#[test]
fn protocols_and_versions_are_selected() {
    for (name, version, protocol) in [
        ("json", 1, HubProtocol::Json),
        ("JSON", 2, HubProtocol::Json),
        ("MessagePack", 1, HubProtocol::MessagePack),
        ("messagepack", 0, HubProtocol::MessagePack),
        ("messagepack", -1, HubProtocol::MessagePack),
    ] {
        assert_eq!(
            select(&request(name, version), true).unwrap(),
            (protocol, version)
        );
    }
    assert_eq!(
        select(&request("json", 1), false).unwrap(),
        (HubProtocol::Json, 1)
    );
}

#[test]
fn refusals_have_the_texts_of_the_reference_server() {
    for (name, version, text) in [
        ("BSON", 1, "The protocol 'BSON' is not supported."),
        ("", 1, "The protocol '' is not supported."),
        (
            "Json",
            3,
            "The server does not support version 3 of the 'Json' protocol.",
        ),
        (
            "messagepack",
            3,
            "The server does not support version 3 of the 'messagepack' protocol.",
        ),
        (
            "MessagePack",
            1,
            "Cannot use the 'messagepack' protocol on the current transport. The transport does not support \
             'Binary' transfer format.",
        ),
    ] {
        assert_eq!(
            select(&request(name, version), false).unwrap_err().to_string(),
            text
        );
    }
    assert_eq!(HandshakeError::TimedOut.to_string(), "Handshake was canceled.");
}

#[test]
fn answers_are_records() {
    assert_eq!(handshake_response_ok(), b"\x7B\x7D\x1E".as_slice());
    assert_eq!(
        handshake_response_error("The protocol '\"\u{1e}' is not supported."),
        "{\"error\":\"The protocol '\\\"\\u001e' is not supported.\"}\x1e"
    );
}
