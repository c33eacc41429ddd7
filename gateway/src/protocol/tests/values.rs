//! Values: typed, transcoded, taken apart.

use std::{collections::BTreeMap, f64::consts::PI};

use serde::{Deserialize, Serialize};

use super::*;
use crate::protocol::{Binary, DecodeValueError, EncodeValueError, TranscodeError};

#[track_caller]
fn to_json(bytes: &'static [u8], text: &str) {
    let value = pack(bytes).transcode(Encoding::Json).unwrap();
    assert_eq!(value.bytes(), text);
    assert_eq!(value, Value::from_json_text(text.to_owned()).unwrap());
}

#[track_caller]
fn to_messagepack(text: &'static str, bytes: &[u8]) {
    let value = json(text).transcode(Encoding::MessagePack).unwrap();
    assert_eq!(value.bytes(), bytes);
    assert_eq!(value, Value::from_messagepack(bytes.to_vec()).unwrap());
}

/// Packs bytes that are not checked, unlike those of the parent module.
fn pack(bytes: &'static [u8]) -> Value {
    Value::from_raw(Encoding::MessagePack, Bytes::from_static(bytes))
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct Move {
    piece: String,
    to: (u8, i64),
    capture: Option<Piece>,
    weight: f64,
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
enum Piece {
    Pawn,
    King { checked: bool },
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct Picture {
    name: String,
    data: Binary,
}

fn a_move(capture: Option<Piece>) -> Move {
    Move {
        piece: "e".to_owned(),
        to: (200, -7),
        capture,
        weight: 1.0,
    }
}

#[test]
fn typed_values_are_json() {
    let value = Value::encode(&a_move(Some(Piece::King { checked: true }))).unwrap();
    assert_eq!(value.encoding(), Encoding::Json);
    assert_eq!(
        value.bytes(),
        r#"{"piece":"e","to":[200,-7],"capture":{"King":{"checked":true}},"weight":1.0}"#
    );
    assert_eq!(Value::encode("é\u{1e}").unwrap().bytes(), "\"é\\u001e\"");
    assert!(Value::encode(&()).unwrap().is_null());
}

#[test]
fn typed_values_are_maps_in_messagepack() {
    let value = Value::encode_as(&a_move(None), Encoding::MessagePack).unwrap();
    assert_eq!(
        value.bytes(),
        b"\x84\xA5piece\xA1e\xA2to\x92\xCC\xC8\xF9\xA7capture\xC0\xA6weight\xCB\x3F\xF0\0\0\0\0\0\0"
            .as_slice()
    );
}

#[test]
fn typed_values_are_read_from_both_encodings() {
    for capture in [None, Some(Piece::Pawn), Some(Piece::King { checked: false })] {
        let expected = a_move(capture);
        for encoding in [Encoding::Json, Encoding::MessagePack] {
            let value = Value::encode_as(&expected, encoding).unwrap();
            assert_eq!(value.decode::<Move>().unwrap(), expected);
            let other = if encoding == Encoding::Json {
                Encoding::MessagePack
            } else {
                Encoding::Json
            };
            assert_eq!(
                value.transcode(other).unwrap().decode::<Move>().unwrap(),
                expected
            );
        }
    }
}

#[test]
fn a_value_with_byte_strings_becomes_messagepack() {
    let picture = Picture {
        name: "a".to_owned(),
        data: Binary(vec![0, 255, 62]),
    };
    let value = Value::encode(&picture).unwrap();
    assert_eq!(value.encoding(), Encoding::MessagePack);
    assert_eq!(
        value.bytes(),
        b"\x82\xA4name\xA1a\xA4data\xC4\x03\x00\xFF\x3E".as_slice()
    );
    let text = Value::encode_as(&picture, Encoding::Json).unwrap();
    assert_eq!(text.bytes(), r#"{"name":"a","data":"AP8+"}"#);
    assert_eq!(value.transcode(Encoding::Json).unwrap(), text);
    for value in [value, text.transcode(Encoding::MessagePack).unwrap(), text] {
        assert_eq!(value.decode::<Picture>().unwrap(), picture);
    }
    let bytes = serde_bytes::ByteBuf::from([1, 2]);
    assert_eq!(
        Value::encode(&bytes).unwrap().bytes(),
        b"\xC4\x02\x01\x02".as_slice()
    );
}

#[test]
fn byte_strings_are_read_from_bytes_base64_and_numbers() {
    for value in [
        json(r#""AP8+""#),
        json("[0, 255, 62]"),
        pack(b"\xC4\x03\x00\xFF\x3E"),
        pack(b"\xA4AP8+"),
        pack(b"\x93\x00\xCC\xFF\x3E"),
    ] {
        assert_eq!(value.decode::<Binary>().unwrap(), Binary(vec![0, 255, 62]));
    }
    for value in [
        json(r#""AP8""#),
        json("[256]"),
        json("null"),
        json("1"),
        pack(b"\xA1!"),
        pack(b"\xDD\xFF\xFF\xFF\xFF"),
    ] {
        assert!(value.decode::<Binary>().is_err());
    }
}

#[test]
fn decoding_refuses_other_types_and_bytes_behind_the_value() {
    assert!(matches!(
        json("1").decode::<String>(),
        Err(DecodeValueError::Json(_))
    ));
    assert!(matches!(
        pack(b"\x01").decode::<String>(),
        Err(DecodeValueError::MessagePack(_))
    ));
    assert!(matches!(
        pack(b"\x01\x02").decode::<u8>(),
        Err(DecodeValueError::Malformed(_))
    ));
    assert!(pack(b"").decode::<u8>().is_err());
    let two = Value::from_raw(Encoding::Json, Bytes::from_static(b"1 2"));
    assert!(matches!(two.decode::<u8>(), Err(DecodeValueError::Json(_))));
    assert!(pack(b"\xA1\xFF").decode::<String>().is_err());
}

#[test]
fn json_becomes_messagepack() {
    to_messagepack("null", b"\xC0");
    to_messagepack("true", b"\xC3");
    to_messagepack("false", b"\xC2");
    to_messagepack("[]", b"\x90");
    to_messagepack(" { } ", b"\x80");
    to_messagepack("[ 1 , [ ] , \"\" ]", b"\x93\x01\x90\xA0");
    to_messagepack(
        r#"{"a":{"b":[null]},"":2}"#,
        b"\x82\xA1a\x81\xA1b\x91\xC0\xA0\x02",
    );
}

#[test]
fn json_integers_take_the_shortest_form() {
    to_messagepack("0", b"\x00");
    to_messagepack("127", b"\x7F");
    to_messagepack("128", b"\xCC\x80");
    to_messagepack("255", b"\xCC\xFF");
    to_messagepack("256", b"\xCD\x01\x00");
    to_messagepack("65536", b"\xCE\0\x01\0\0");
    to_messagepack("4294967296", b"\xCF\0\0\0\x01\0\0\0\0");
    to_messagepack("18446744073709551615", b"\xCF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF");
    to_messagepack("-1", b"\xFF");
    to_messagepack("-32", b"\xE0");
    to_messagepack("-33", b"\xD0\xDF");
    to_messagepack("-128", b"\xD0\x80");
    to_messagepack("-129", b"\xD1\xFF\x7F");
    to_messagepack("-32769", b"\xD2\xFF\xFF\x7F\xFF");
    to_messagepack("-2147483649", b"\xD3\xFF\xFF\xFF\xFF\x7F\xFF\xFF\xFF");
    to_messagepack("-9223372036854775808", b"\xD3\x80\0\0\0\0\0\0\0");
}

#[test]
fn other_json_numbers_become_floats() {
    to_messagepack("1.0", b"\xCB\x3F\xF0\0\0\0\0\0\0");
    to_messagepack("1e0", b"\xCB\x3F\xF0\0\0\0\0\0\0");
    to_messagepack("-0", b"\xCB\x80\0\0\0\0\0\0\0");
    to_messagepack("18446744073709551616", b"\xCB\x43\xF0\0\0\0\0\0\0");
    to_messagepack("-9223372036854775809", b"\xCB\xC3\xE0\0\0\0\0\0\0");
    to_messagepack("1e999", b"\xCB\x7F\xF0\0\0\0\0\0\0");
}

#[test]
fn json_escapes_become_text() {
    to_messagepack(r#""\"\\\/\b\f\n\r\tx""#, b"\xA9\"\\/\x08\x0C\n\r\tx");
    to_messagepack(r#""\u0041\u00e9\u20AC\ud83d\ude00""#, &packed("Aé€😀"));
}

fn packed(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    crate::protocol::pack::write_str(&mut out, text);
    out
}

#[test]
fn lone_surrogates_become_replacement_characters() {
    for (text, expected) in [
        (r#""\ud83d""#, "\u{FFFD}"),
        (r#""\ude00x""#, "\u{FFFD}x"),
        (r#""\ud83dx""#, "\u{FFFD}x"),
        (r#""\ud83d\n""#, "\u{FFFD}\n"),
        (r#""\ud83d\u0041""#, "\u{FFFD}A"),
        (r#""\ud83d\ud83d\ude00""#, "\u{FFFD}😀"),
    ] {
        to_messagepack(text, &packed(expected));
    }
}

#[test]
fn long_containers_and_texts_get_their_headers() {
    for length in [15, 16, 31, 32, 255, 256, 65_535, 65_536] {
        let array = Value::encode(&vec![1; length]).unwrap();
        let map = Value::encode(
            &(0..length)
                .map(|n| (n.to_string(), n))
                .collect::<BTreeMap<_, _>>(),
        )
        .unwrap();
        let text = Value::encode(&"x".repeat(length)).unwrap();
        for value in [array, map, text] {
            let packed = value.transcode(Encoding::MessagePack).unwrap();
            assert!(Value::from_messagepack(packed.bytes().clone()).is_ok());
            assert_eq!(packed.transcode(Encoding::Json).unwrap(), value);
            let tree: serde_json::Value = value.decode().unwrap();
            assert_eq!(Value::encode_as(&tree, Encoding::MessagePack).unwrap(), packed);
        }
    }
}

#[test]
fn messagepack_becomes_json() {
    to_json(b"\xC0", "null");
    to_json(b"\x93\xC2\xC3\xA0", r#"[false,true,""]"#);
    to_json(b"\x82\xA1a\x90\xA1b\x80", r#"{"a":[],"b":{}}"#);
    to_json(
        b"\x93\xFF\xCF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xD3\x80\0\0\0\0\0\0\0",
        "[-1,18446744073709551615,-9223372036854775808]",
    );
    to_json(b"\xA3\x1E\"\n", r#""\u001e\"\n""#);
}

#[test]
fn messagepack_floats_stay_floats() {
    to_json(b"\xCB\x3F\xF0\0\0\0\0\0\0", "1.0");
    to_json(b"\xCA\x3D\xCC\xCC\xCD", "0.1");
    to_json(b"\xCB\x80\0\0\0\0\0\0\0", "-0.0");
    to_json(b"\xCB\x7F\xEF\xFF\xFF\xFF\xFF\xFF\xFF", "1.7976931348623157e308");
    to_json(b"\xCB\0\0\0\0\0\0\0\x01", "5e-324");
    for bytes in [
        b"\xCB\x7F\xF8\0\0\0\0\0\0".as_slice(),
        b"\xCB\x7F\xF0\0\0\0\0\0\0",
        b"\xCA\xFF\x80\0\0",
    ] {
        to_json(bytes, "null");
    }
    let pi = Value::encode_as(&PI, Encoding::MessagePack).unwrap();
    assert_eq!(
        pi.transcode(Encoding::Json)
            .unwrap()
            .transcode(Encoding::MessagePack)
            .unwrap(),
        pi
    );
}

#[test]
fn byte_strings_and_extensions_become_base64() {
    to_json(b"\xC4\x03\x00\xFF\x3E", r#""AP8+""#);
    to_json(b"\xC7\x03\x07\x00\xFF\x3E", r#""AP8+""#);
    to_json(b"\xC7\x03\xFF\x00\xFF\x3E", r#""AP8+""#); // no timestamp has three bytes
    to_json(b"\xD6\x05\0\0\0\0", r#""AAAAAA==""#);
}

#[test]
fn timestamps_become_rfc3339() {
    to_json(b"\xD6\xFF\0\0\0\0", r#""1970-01-01T00:00:00Z""#);
    to_json(b"\xD6\xFF\x65\xE0\x4E\xDF", r#""2024-02-29T09:31:11Z""#);
    to_json(b"\xD6\xFF\xFF\xFF\xFF\xFF", r#""2106-02-07T06:28:15Z""#);
    // 500,000,000 ns << 34 | 1
    to_json(
        b"\xD7\xFF\x77\x35\x94\x00\0\0\0\x01",
        r#""1970-01-01T00:00:01.5Z""#,
    );
    to_json(
        b"\xC7\x0C\xFF\0\0\0\x01\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF",
        r#""1969-12-31T23:59:59.000000001Z""#,
    );
    to_json(
        b"\xC7\x0C\xFF\0\0\0\0\xFF\xFF\xFF\xF1\x88\x6E\x09\x00",
        r#""0001-01-01T00:00:00Z""#,
    );
    to_json(
        b"\xC7\x0C\xFF\0\0\0\0\0\0\0\x3A\xFF\xF4\x41\x7F",
        r#""9999-12-31T23:59:59Z""#,
    );
    // A year later, and too many nanoseconds.
    to_json(
        b"\xC7\x0C\xFF\0\0\0\0\0\0\0\x3A\xFF\xF4\x41\x80",
        r#""AAAAAAAAADr/9EGA""#,
    );
    to_json(b"\xD7\xFF\xFF\xFF\xFF\xFF\0\0\0\x01", r#""/////wAAAAE=""#);
    to_json(b"\xC7\x0C\xFF\0\0\0\0\x80\0\0\0\0\0\0\0", r#""AAAAAIAAAAAAAAAA""#);
}

#[test]
fn map_keys_become_strings() {
    for (key, name) in [
        (b"\x01".as_slice(), "1"),
        (b"\xFF", "-1"),
        (b"\xC3", "true"),
        (b"\xC0", "null"),
        (b"\xCB\x3F\xF8\0\0\0\0\0\0", "1.5"),
        (b"\xC4\x01a", "YQ=="),
        (b"\xA1\"", "\\\""),
        (b"\xD6\xFF\0\0\0\0", "1970-01-01T00:00:00Z"),
    ] {
        let map = Value::from_messagepack([b"\x81", key, b"\x07"].concat()).unwrap();
        assert_eq!(
            map.transcode(Encoding::Json).unwrap().bytes(),
            &format!("{{\"{name}\":7}}")
        );
    }
    for key in [b"\x81\x90\xC0", b"\x81\x80\xC0"] {
        assert_eq!(
            pack(key).transcode(Encoding::Json),
            Err(TranscodeError::UnsupportedKey)
        );
    }
}

#[test]
fn text_that_is_not_utf8_gets_replacement_characters() {
    to_json(b"\xA3a\xFFb", "\"a\u{FFFD}b\"");
}

#[test]
fn transcoding_to_the_same_encoding_shares_the_bytes() {
    for value in [json("[1]"), pack(b"\x91\x01")] {
        let same = value.transcode(value.encoding()).unwrap();
        assert_eq!(same.bytes().as_ptr(), value.bytes().as_ptr());
    }
}

#[test]
fn sixty_four_levels_work_everywhere_and_one_more_nowhere() {
    let array = |levels| nested("[", "]", levels);
    let object = |levels: usize| Bytes::from("{\"a\":".repeat(levels) + "null" + &"}".repeat(levels));
    for text in [array(64), object(64)] {
        let value = Value::from_json_text(text).unwrap();
        let packed = value.transcode(Encoding::MessagePack).unwrap();
        assert_eq!(packed.transcode(Encoding::Json).unwrap(), value);
        let tree: serde_json::Value = value.decode().unwrap();
        assert_eq!(packed.decode::<serde_json::Value>().unwrap(), tree);
        assert_eq!(Value::encode(&tree).unwrap(), value);
        assert_eq!(Value::encode_as(&tree, Encoding::MessagePack).unwrap(), packed);
    }
    for text in [array(65), array(100_000), object(65), object(100_000)] {
        assert!(matches!(
            Value::from_json_text(text.clone()),
            Err(DecodeValueError::TooDeep)
        ));
        let raw = Value::from_raw(Encoding::Json, text);
        assert_eq!(raw.transcode(Encoding::MessagePack), Err(TranscodeError::TooDeep));
    }
    for levels in [65, 100_000] {
        let raw = Value::from_raw(
            Encoding::MessagePack,
            (b"\x91".repeat(levels - 1)).into_iter().chain(*b"\x90").collect(),
        );
        assert_eq!(raw.transcode(Encoding::Json), Err(TranscodeError::TooDeep));
        assert!(matches!(
            raw.decode::<serde_json::Value>(),
            Err(DecodeValueError::TooDeep)
        ));
        assert!(matches!(
            Value::from_messagepack(raw.bytes().clone()),
            Err(DecodeValueError::TooDeep)
        ));
    }
    let mut tree = serde_json::Value::Null;
    for _ in 0..65 {
        tree = serde_json::Value::Array(vec![tree]);
    }
    for encoding in [Encoding::Json, Encoding::MessagePack] {
        assert!(matches!(
            Value::encode_as(&tree, encoding),
            Err(EncodeValueError::TooDeep)
        ));
    }
}

#[test]
fn raw_bytes_that_are_not_json_are_an_error() {
    for text in [
        "",
        "[",
        "[1",
        "[1,",
        "[,]",
        "[1,]",
        "{",
        "{\"a\"",
        "{\"a\":",
        "{\"a\":1",
        "{1:2}",
        "{\"a\":1,}",
        "[1}",
        "{\"a\":1]",
        "tru",
        "truex",
        "\"",
        "\"a",
        "\"\\",
        "\"\\u",
        "\"\\u12\"",
        "\"\\u+123\"",
        "\"\\x\"",
        "-",
        "1 2",
        "]",
        "nul",
        "--1",
        "e",
    ] {
        let raw = Value::from_raw(Encoding::Json, Bytes::from_static(text.as_bytes()));
        assert_eq!(
            raw.transcode(Encoding::MessagePack),
            Err(TranscodeError::InvalidJson),
            "{text}"
        );
        assert!(Value::from_json_text(text).is_err());
    }
    let not_utf8 = Value::from_raw(Encoding::Json, Bytes::from_static(b"\"\xFF\""));
    assert_eq!(
        not_utf8.transcode(Encoding::MessagePack),
        Err(TranscodeError::InvalidJson)
    );
    assert!(Value::from_json_text(not_utf8.bytes().clone()).is_err());
}

#[test]
fn text_from_outside_is_checked_and_trimmed() {
    assert_eq!(Value::from_json_text(" \n[1, 2]\t").unwrap().bytes(), "[1, 2]");
    assert!(Value::from_json_text("1 2").is_err());
    assert!(Value::from_messagepack(b"\x01\x02".as_slice()).is_err());
    assert!(Value::from_messagepack(b"\xC1".as_slice()).is_err());
}

#[test]
fn values_are_put_into_an_array_and_taken_out_again() {
    let values = [json("{ \"a\": 1 }"), pack(b"\xC4\x01a"), json("\"x,]\"")];
    let array = Value::array(&values, Encoding::Json).unwrap();
    assert_eq!(array.bytes(), r#"[{ "a": 1 },"YQ==","x,]"]"#);
    assert_eq!(
        array.elements().unwrap(),
        [json("{ \"a\": 1 }"), json(r#""YQ==""#), json("\"x,]\"")]
    );
    let array = Value::array(&values, Encoding::MessagePack).unwrap();
    assert_eq!(array.bytes(), b"\x93\x81\xA1a\x01\xC4\x01a\xA3x,]".as_slice());
    assert_eq!(
        array.elements().unwrap(),
        [pack(b"\x81\xA1a\x01"), pack(b"\xC4\x01a"), pack(b"\xA3x,]")]
    );
    for encoding in [Encoding::Json, Encoding::MessagePack] {
        assert_eq!(Value::array(&[], encoding).unwrap().elements().unwrap(), []);
        assert!(Value::null(encoding).elements().is_err());
        assert!(Value::null(encoding).is_null());
    }
}
