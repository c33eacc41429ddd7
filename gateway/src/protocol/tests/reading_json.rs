//! The rules for reading JSON, one by one.

use super::*;

#[track_caller]
fn reads(record: &str, message: HubMessage) {
    assert_eq!(read_json(record).unwrap(), Some(message));
}

/// The text of the error.
#[track_caller]
fn refuses(record: impl AsRef<[u8]>) -> String {
    read_json(record).unwrap_err().to_string()
}

fn say(arguments: Vec<Value>) -> HubMessage {
    HubMessage::Invocation(call(None, "Say", arguments))
}

#[test]
fn properties_may_come_in_any_order() {
    reads(
        r#"{"arguments":[1],"target":"Say","type":1}"#,
        say(vec![json("1")]),
    );
    reads(
        r#"{"result":[true],"invocationId":"7","type":3}"#,
        completion("7", Outcome::Result(json("[true]"))),
    );
}

#[test]
fn unknown_properties_are_skipped() {
    let deep = "[".repeat(60) + &"]".repeat(60);
    reads(
        &format!(r#"{{"new":{deep},"type":1,"Target":"x","target":"Say","":null,"arguments":[]}}"#),
        say(vec![]),
    );
}

#[test]
fn a_property_of_another_type_of_message_is_skipped() {
    reads(
        r#"{"type":6,"target":5,"arguments":"x","sequenceId":null}"#,
        HubMessage::Ping,
    );
}

#[test]
fn names_are_case_sensitive_and_may_be_escaped() {
    assert_eq!(refuses(r#"{"Type":6}"#), "Missing required property 'type'.");
    reads(r#"{"\u0074ype":6}"#, HubMessage::Ping);
}

#[test]
fn of_equal_properties_the_last_counts() {
    reads(
        r#"{"type":6,"target":"no","type":1,"arguments":3,"target":"Say","arguments":[2]}"#,
        say(vec![json("2")]),
    );
    let doubled = r#"{"type":1,"headers":{"a":"1","b":"2","a":"3"},"target":"Say","arguments":[]}"#;
    let HubMessage::Invocation(call) = read_json(doubled).unwrap().unwrap() else {
        panic!()
    };
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(call.headers, [pair("b", "2"), pair("a", "3")]);
}

#[test]
fn white_space_is_allowed_between_tokens() {
    reads(
        " {\t\"type\" : 1 ,\r\n\"target\":\"Say\" , \"arguments\" : [ 1 , { \"a\" :\n2 } ] } ",
        say(vec![json("1"), json("{ \"a\" :\n2 }")]),
    );
}

#[test]
fn the_type_has_to_be_an_integer() {
    assert_eq!(
        refuses(r#"{"target":"Say","arguments":[]}"#),
        "Missing required property 'type'."
    );
    for kind in [
        r#""6""#,
        "6.0",
        "6e0",
        "null",
        "true",
        "[6]",
        "99999999999999999999",
    ] {
        assert_eq!(
            refuses(format!(r#"{{"type":{kind}}}"#)),
            "Expected 'type' to be an integer."
        );
    }
}

#[test]
fn messages_of_unknown_type_are_skipped() {
    for kind in ["0", "-1", "10", "4711", "257"] {
        assert_eq!(
            read_json(format!(r#"{{"type":{kind},"target":5}}"#)).unwrap(),
            None
        );
    }
    let messages = decode_all(
        HubProtocol::Json,
        b"{\"type\":99,\"error\":{}}\x1e{\"type\":6}\x1e",
    )
    .unwrap();
    assert_eq!(messages, [HubMessage::Ping]);
}

#[test]
fn calls_need_a_target_that_is_a_string() {
    for kind in [1, 4] {
        let start = format!(r#"{{"type":{kind},"invocationId":"1","arguments":[]"#);
        assert_eq!(
            refuses(start.clone() + "}"),
            "Missing required property 'target'."
        );
        for target in ["null", "1", "[]", "{}"] {
            let record = format!(r#"{start},"target":{target}}}"#);
            assert_eq!(refuses(record), "Expected 'target' to be a string.");
        }
    }
}

#[test]
fn calls_need_arguments_that_are_an_array() {
    for kind in [1, 4] {
        let start = format!(r#"{{"type":{kind},"invocationId":"1","target":"Say""#);
        assert_eq!(
            refuses(start.clone() + "}"),
            "Missing required property 'arguments'."
        );
        for arguments in ["null", "1", r#""""#, "{}"] {
            let record = format!(r#"{start},"arguments":{arguments}}}"#);
            assert_eq!(refuses(record), "Expected 'arguments' to be an array.");
        }
    }
}

#[test]
fn stream_ids_are_an_array_of_strings() {
    for ids in ["null", r#""1""#, "[1]", "[null]", r#"["1",null]"#, "{}"] {
        let record = format!(r#"{{"type":1,"target":"Say","arguments":[],"streamIds":{ids}}}"#);
        assert_eq!(refuses(record), "Expected 'streamIds' to be an array of strings.");
    }
    reads(
        r#"{"type":1,"target":"Say","arguments":[],"streamIds":[]}"#,
        say(vec![]),
    );
}

#[test]
fn headers_are_an_object_of_strings() {
    for headers in ["null", "[]", r#"{"a":1}"#, r#"{"a":null}"#, r#""a""#] {
        let record = format!(r#"{{"type":5,"invocationId":"1","headers":{headers}}}"#);
        assert_eq!(refuses(record), "Expected 'headers' to be an object of strings.");
    }
}

#[test]
fn an_empty_or_null_id_makes_an_invocation_that_nobody_waits_for() {
    for id in [r#""""#, "null"] {
        reads(
            &format!(r#"{{"type":1,"invocationId":{id},"target":"Say","arguments":[]}}"#),
            say(vec![]),
        );
    }
    assert_eq!(
        refuses(r#"{"type":1,"invocationId":1,"target":"Say","arguments":[]}"#),
        "Expected 'invocationId' to be a string."
    );
}

#[test]
fn the_other_counted_messages_need_an_id() {
    for id in ["", r#","invocationId":"""#, r#","invocationId":null"#] {
        for kind in [2, 3, 4, 5] {
            let record = format!(r#"{{"type":{kind},"item":1,"target":"a","arguments":[]{id}}}"#);
            assert_eq!(refuses(record), "Missing required property 'invocationId'.");
        }
    }
}

#[test]
fn a_stream_item_needs_an_item_that_may_be_null() {
    assert_eq!(
        refuses(r#"{"type":2,"invocationId":"1"}"#),
        "Missing required property 'item'."
    );
    reads(
        r#"{"type":2,"invocationId":"1","item":null}"#,
        HubMessage::StreamItem {
            headers: vec![],
            invocation_id: "1".to_owned(),
            item: Value::null(Encoding::Json),
        },
    );
}

#[test]
fn a_completion_has_a_result_or_an_error_or_none() {
    let error = refuses(r#"{"type":3,"invocationId":"1","error":"bad","result":null}"#);
    assert_eq!(
        error,
        "The 'error' and 'result' properties are mutually exclusive."
    );
    reads(
        r#"{"type":3,"invocationId":"1","result":null}"#,
        completion("1", Outcome::Result(json("null"))),
    );
    reads(
        r#"{"type":3,"invocationId":"1","error":null,"result":1}"#,
        completion("1", Outcome::Result(json("1"))),
    );
    reads(
        r#"{"type":3,"invocationId":"1","error":null}"#,
        completion("1", Outcome::Void),
    );
    reads(
        r#"{"type":3,"invocationId":"1","error":""}"#,
        completion("1", Outcome::Error(String::new())),
    );
    assert_eq!(
        refuses(r#"{"type":3,"invocationId":"1","error":1}"#),
        "Expected 'error' to be a string."
    );
}

#[test]
fn close_ack_and_sequence_check_their_properties() {
    assert_eq!(
        refuses(r#"{"type":7,"allowReconnect":null}"#),
        "Expected 'allowReconnect' to be a boolean."
    );
    reads(
        r#"{"type":7,"error":null,"allowReconnect":false}"#,
        HubMessage::Close {
            error: None,
            allow_reconnect: false,
        },
    );
    for kind in [8, 9] {
        assert_eq!(
            refuses(format!(r#"{{"type":{kind}}}"#)),
            "Missing required property 'sequenceId'."
        );
        for id in ["-1", "1.5", r#""1""#, "null"] {
            let record = format!(r#"{{"type":{kind},"sequenceId":{id}}}"#);
            assert_eq!(
                refuses(record),
                "Expected 'sequenceId' to be an integer that is not negative."
            );
        }
    }
}

#[test]
fn what_is_not_json_is_refused() {
    for record in [
        "",
        " ",
        "[]",
        "null",
        "6",
        "{",
        r#"{"type":6"#,
        r#"{"type":6}}"#,
        r#"{"type":6}{"type":6}"#,
        r#"{"type":6} x"#,
        r#"{"type":6,}"#,
        r#"{type:6}"#,
        r#"{'type':6}"#,
        r#"{"type":06}"#,
        r#"{"type":6,"a":NaN}"#,
        r#"{"type":6,"a":01}"#,
        r#"{"type":6,"a":"\x"}"#,
        "{\"type\":6,\"a\":\"\n\"}",
        r#"{"type":6 /* no */}"#,
        r#"{"type":1,"target":"a","arguments":[1,]}"#,
        r#"{"type":1,"target":"a","arguments":[tru]}"#,
        "\u{feff}{\"type\":6}",
    ] {
        assert_eq!(refuses(record), "Error reading JSON.", "{record}");
    }
}

#[test]
fn what_is_not_utf8_is_refused() {
    for record in [
        b"{\"type\":6,\"a\":\"\xFF\"}".as_slice(),
        b"{\"type\":6,\"a\":\"\xED\xA0\x80\"}",
    ] {
        assert_eq!(refuses(record), "Error reading JSON: invalid UTF-8.");
    }
}

#[test]
fn nesting_is_limited_to_64_levels() {
    let record = |levels| {
        let argument = String::from_utf8(nested("[", "]", levels).into()).unwrap();
        format!(r#"{{"type":1,"target":"Say","arguments":[{argument}]}}"#)
    };
    assert!(read_json(record(62)).unwrap().is_some());
    assert_eq!(
        refuses(record(63)),
        "The maximum depth of 64 levels was exceeded."
    );
    assert_eq!(
        refuses(record(100_000)),
        "The maximum depth of 64 levels was exceeded."
    );
    assert_eq!(
        refuses("[".repeat(100_000)),
        "The maximum depth of 64 levels was exceeded."
    );
    assert_eq!(
        refuses("{\"a\":".repeat(100_000)),
        "The maximum depth of 64 levels was exceeded."
    );
}

#[test]
fn brackets_in_strings_and_side_by_side_are_not_nesting() {
    let text = format!(
        "{{\"type\":6,\"a\":\"\\\"{}\\\\\",\"b\":[{}[]]}}",
        "[{".repeat(500),
        "[],".repeat(500)
    );
    reads(&text, HubMessage::Ping);
}

#[test]
fn arguments_stay_as_they_were_written() {
    for text in [
        "1.0",
        "1e2",
        r#""\u0041\/""#,
        "123456789012345678901234567890",
        r#"{"a":1,"a":2}"#,
        "-0",
    ] {
        let record = format!(r#"{{"type":1,"target":"Say","arguments":[{text}]}}"#);
        let HubMessage::Invocation(call) = read_json(record).unwrap().unwrap() else {
            panic!()
        };
        assert_eq!(call.arguments[0].bytes(), text);
    }
}

#[test]
fn arguments_share_one_buffer_of_their_message() {
    let record = r#"{"type":1,"target":"Say","arguments":[1,2]}"#;
    let HubMessage::Invocation(call) = read_json(record).unwrap().unwrap() else {
        panic!()
    };
    let first = call.arguments[0].bytes().as_ptr().addr();
    assert_eq!(call.arguments[1].bytes().as_ptr().addr() - first, 2);
}
