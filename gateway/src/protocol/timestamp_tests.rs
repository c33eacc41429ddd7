//! Timestamps in both encodings.

use serde_json::json;

use super::super::Value;
use super::*;

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

#[test]
fn text_is_read_and_written_as_rfc_3339_says() {
    for (text, seconds, nanoseconds, written) in [
        ("1970-01-01T00:00:00Z", 0, 0, "1970-01-01T00:00:00Z"),
        (
            "2024-02-29T23:59:59.250Z",
            1_709_251_199,
            250_000_000,
            "2024-02-29T23:59:59.25Z",
        ),
        (
            "2024-05-01t14:00:00+02:00",
            1_714_564_800,
            0,
            "2024-05-01T12:00:00Z",
        ),
        (
            "1969-12-31T22:29:59.999999999-01:30",
            -1,
            999_999_999,
            "1969-12-31T23:59:59.999999999Z",
        ),
        ("0001-01-01T00:00:00Z", FIRST_SECOND, 0, "0001-01-01T00:00:00Z"),
        (
            "9999-12-31T23:59:59.9999999999Z",
            LAST_SECOND,
            999_999_999,
            "9999-12-31T23:59:59.999999999Z",
        ),
    ] {
        let read = time(text);
        assert_eq!(
            (read.seconds(), read.nanoseconds()),
            (seconds, nanoseconds),
            "{text}"
        );
        assert_eq!(read.to_string(), written);
    }
    for wrong in [
        "",
        "now",
        "2024-05-01",
        "2024-05-01T12:00:00",
        "2024-13-01T00:00:00Z",
        "2023-02-29T00:00:00Z",
        "2024-05-01T24:00:00Z",
        "2024-05-01T12:00:60Z",
        "2024-05-01T12:00:00.Z",
        "2024-05-01T12:00:00+2:00",
        "2024-05-01T12:00:00Zx",
        "+024-05-01T12:00:00Z",
        "2024-05-01T12:00:00ü",
        "2024-05-0üT12:00:00Z",
    ] {
        assert_eq!(
            wrong.parse::<Timestamp>(),
            Err(TimestampError::Malformed),
            "{wrong}"
        );
    }
    for far in ["0000-12-31T23:59:59Z", "9999-12-31T23:59:59-00:01"] {
        assert_eq!(far.parse::<Timestamp>(), Err(TimestampError::OutOfRange), "{far}");
    }
}

#[test]
fn every_form_of_messagepack_comes_back() {
    for (text, length) in [
        ("2024-05-01T12:00:00Z", 6),            // 32 bits
        ("2024-05-01T12:00:00.000000001Z", 10), // 64 bits
        ("2200-01-01T00:00:00Z", 10),
        ("1969-12-31T23:59:59Z", 15), // 96 bits
        ("9999-12-31T23:59:59.999999999Z", 15),
    ] {
        let packed = Value::encode_as(&time(text), Encoding::MessagePack).unwrap();
        assert_eq!(packed.bytes().len(), length, "{text}");
        assert_eq!(packed.decode::<Timestamp>().unwrap(), time(text));
        let reported = packed.transcode(Encoding::Json).unwrap();
        assert_eq!(reported.decode::<String>().unwrap(), text);
        assert_eq!(reported.decode::<Timestamp>().unwrap(), time(text));
    }
}

#[test]
fn a_value_with_a_timestamp_is_messagepack_and_other_text_stays_text() {
    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct Meeting {
        at: Vec<Option<Timestamp>>,
        room: String,
    }
    let meeting = Meeting {
        at: vec![None, Some(time("2024-05-01T12:00:00Z"))],
        room: "2024-05-01T12:00:00Z".to_owned(),
    };
    let value = Value::encode(&meeting).unwrap();
    assert_eq!(value.encoding(), Encoding::MessagePack);
    assert_eq!(value.decode::<Meeting>().unwrap(), meeting);
    let text = Value::encode_as(&meeting, Encoding::Json).unwrap();
    let expected = json!({ "at": [null, "2024-05-01T12:00:00Z"], "room": "2024-05-01T12:00:00Z" });
    assert_eq!(text.decode::<serde_json::Value>().unwrap(), expected);
    assert_eq!(serde_json::to_value(&meeting).unwrap(), expected); // not Value's
    assert_eq!(Value::encode(&"text").unwrap().encoding(), Encoding::Json);
}

#[test]
fn nothing_else_is_a_timestamp() {
    for bytes in [
        &[0xd6, 5, 0, 0, 0, 0][..],
        &[0xd5, 0xff, 0, 0],
        &[0xc4, 1, 0],
        &[0x07],
    ] {
        let value = Value::from_messagepack(bytes.to_vec()).unwrap();
        assert!(value.decode::<Timestamp>().is_err(), "{bytes:?}");
    }
    assert_eq!(Timestamp::new(0, 1_000_000_000), Err(TimestampError::OutOfRange));
}

#[test]
fn system_times_come_back() {
    for text in [
        "2024-05-01T12:00:00.5Z",
        "1969-12-31T23:59:58.25Z",
        "1969-12-31T23:59:58Z",
    ] {
        let system: SystemTime = time(text).try_into().unwrap();
        assert_eq!(Timestamp::try_from(system), Ok(time(text)));
    }
}
