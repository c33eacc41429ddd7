//! Properties of Web PubSub's subprotocols that hold for any data and any bytes.

use bytes::Bytes;
use proptest::prelude::*;
use prost::Message as _;

use super::schema::{MessageData, SendToGroup, Upstream, UpstreamMessage};
use super::tests::{published, read};
use super::*;

proptest! {
    #[test]
    fn data_that_one_client_sends_another_reads(group in ".{0,20}", text in ".{0,40}", user in ".{0,8}", number in any::<i64>()) {
        for (kind, data) in [("text", serde_json::json!(text)), ("json", serde_json::json!({ "n": number, "t": text })), ("binary", serde_json::json!(BASE64.encode(&text)))] {
            let frame = serde_json::json!({ "type": "sendToGroup", "group": group, "dataType": kind, "data": data, "ackId": 1 });
            let Ok(ClientMessage::Request(Request { wish: RequestWish::Send(send), .. })) = read(&frame.to_string()) else {
                panic!("it is a message")
            };
            prop_assert_eq!(&send.group, &group);
            let arguments = [send.data.json];
            let reported = json::message(&published(Some(&group), &user, send.data.kind, MESSAGE, &arguments), Some(9));
            let reported: serde_json::Value = serde_json::from_slice(&reported).unwrap();
            prop_assert_eq!(reported.get("data"), Some(&data));
            prop_assert_eq!(reported.get("dataType"), Some(&serde_json::json!(kind)));
            prop_assert_eq!(reported.get("group"), Some(&serde_json::json!(group)));
            prop_assert_eq!(reported.get("fromUserId").is_some(), !user.is_empty());
        }
    }

    #[test]
    fn no_bytes_make_the_reader_panic_and_what_it_reads_can_be_written(frame in any::<Vec<u8>>()) {
        round_trip(&frame.into());
    }

    #[test]
    fn changed_bytes_make_no_trouble(
        group in ".{0,9}", data in any::<Vec<u8>>(), kind in 0..4, at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let data = match kind {
            0 => schema::Data::Text(data.into()),
            1 => schema::Data::Binary(data.into()),
            2 => schema::Data::Protobuf(schema::Any { type_url: group.clone(), value: data.into() }.encode_to_vec().into()),
            _ => schema::Data::Json(data.into()),
        };
        let data = Some(MessageData { data: Some(data) });
        let send = SendToGroup { group, ack_id: Some(1), data, no_echo: Some(true), ttl_seconds: Some(7), metadata: Vec::new(), stream: None };
        let mut frame = UpstreamMessage { message: Some(Upstream::SendToGroup(send)) }.encode_to_vec();
        round_trip(&frame.clone().into());
        round_trip(&Bytes::copy_from_slice(frame.get(..at.index(frame.len())).unwrap()));
        let at = at.index(frame.len());
        *frame.get_mut(at).unwrap() = byte;
        round_trip(&frame.into());
    }
}

/// JSON allows what no number type here has, and blanks around a value: both pass as they were written.
#[test]
fn unusual_json_is_the_same_in_every_subprotocol() {
    for json in [
        "1e999",
        "-1e-999",
        "1e999  \t\n\t",
        " \r\n[ 1E+400 , {\"a\" : 123456789012345678901234567890} ] ",
    ] {
        let data = Some(schema::Data::Json(Bytes::from_static(json.as_bytes())));
        let data = Some(MessageData { data });
        let send = SendToGroup {
            group: "tea".to_owned(),
            data,
            ..Default::default()
        };
        let frame = UpstreamMessage {
            message: Some(Upstream::SendToGroup(send)),
        };
        round_trip(&frame.encode_to_vec().into());
        let frame = format!(r#"{{"type":"sendToGroup","group":"tea","data":{json}}}"#);
        round_trip(&frame.into());
    }
}

fn round_trip(frame: &Bytes) {
    for protocol in WebPubSubProtocol::ALL {
        check_frame(protocol, frame);
    }
}
