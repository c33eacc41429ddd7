//! Requests of Web PubSub clients, and their answers.

use hubcast_tests::application::Application;
use hubcast_tests::cluster::Plan;
use hubcast_tests::entry_point::{EntryPoint, Secrets};
use hubcast_tests::eventually::eventually;
use hubcast_tests::hub_client::{HubClient, Transport};
use hubcast_tests::webpubsub::to_group;
use serde_json::{Value, json};

use super::{JSON, RELIABLE, RELIABLE_PROTOBUF, SUBPROTOCOLS, WebPubSub, at, chat, demo, texts, with_chat};

/// The roles for all groups.
const ALL: [&str; 2] = ["webpubsub.joinLeaveGroup", "webpubsub.sendToGroup"];

#[tokio::test]
async fn messages_reach_a_group_byte_for_byte() {
    let cluster = with_chat(Plan::nodes(2)).trace().start().await;
    for protocol in [JSON, RELIABLE] {
        let mut ann = chat(&cluster, 0, protocol, "ann", &ALL).await;
        let mut bob = chat(&cluster, 1, protocol, "bob", &ALL).await;
        bob.socket()
            .text(r#"{"ackId":18446744073709551615,"group":"a.b","type":"joinGroup"}"#)
            .await;
        let expected = r#"{"type":"ack","ackId":18446744073709551615,"success":true}"#;
        assert_eq!(bob.frame().await.as_deref(), Some(expected));
        for (sent, received) in [
            (
                r#""dataType":"text","data":"a\"ä\n""#,
                r#""text","data":"a\"ä\n""#,
            ),
            (
                r#""dataType":"json","data":{"b": [1.50,null,"x"],"a":1e400}"#,
                r#""json","data":{"b": [1.50,null,"x"],"a":1e400}"#,
            ),
            (r#""data":"json it is""#, r#""json","data":"json it is""#),
            (r#""dataType":"Json","data":1"#, r#""json","data":1"#), // as the .NET client writes it
            (
                r#""dataType":"BINARY","data":"AA==""#,
                r#""binary","data":"AA==""#,
            ),
            (
                r#""dataType":"binary","data":"AP/+""#,
                r#""binary","data":"AP/+""#,
            ),
            (
                r#""dataType":"protobuf","data":"CgA=""#,
                r#""protobuf","data":"CgA=""#,
            ),
        ] {
            let request = format!(r#"{{"type":"sendToGroup","group":"a.b",{sent}}}"#);
            ann.socket().text(&request).await;
            let message = bob.frame().await.expect("a message");
            let beginning =
                r#"{"type":"message","from":"group","group":"a.b","fromUserId":"ann","dataType":"#;
            let rest = message.strip_prefix(beginning).expect(&message);
            let rest = rest.strip_prefix(received).expect(&message);
            if protocol == JSON {
                assert_eq!(rest, "}");
            } else {
                let id = rest
                    .strip_prefix(",\"sequenceId\":")
                    .and_then(|rest| rest.strip_suffix('}'));
                let id = id.and_then(|id| id.parse::<u64>().ok()).expect(&message);
                assert!(id > bob.last, "numbers grow: {message}");
                bob.last = id;
            }
        }
        bob.leave("a.b").await;
        ann.send("a.b", "nobody hears").await;
        bob.join("end").await;
        ann.send("end", "end").await;
        assert_eq!(bob.message().await["data"], "end");
    }
}

#[tokio::test]
async fn who_has_no_ack_id_is_told_nothing() {
    let cluster = with_chat(Plan::nodes(2)).start().await;
    for protocol in [JSON, RELIABLE] {
        let mut client = chat(&cluster, 1, protocol, "ann", &["hubcast.join.g"]).await;
        for request in [
            json!({ "type": "joinGroup", "group": "g" }),
            json!({ "type": "leaveGroup", "group": "g" }),
            json!({ "type": "joinGroup", "group": "forbidden" }),
            to_group("forbidden", "x"),
            json!({ "type": "event", "event": "unknown", "data": 1 }),
            json!({ "type": "ping" }),
        ] {
            client.say(&request).await;
        }
        assert_eq!(client.frame().await.as_deref(), Some(r#"{"type":"pong"}"#));
        client.is_heard().await;
        assert_eq!(client.kept(), 0);
    }
}

#[tokio::test]
async fn what_roles_do_not_permit_is_forbidden() {
    let cluster = with_chat(Plan::nodes(2)).start().await;
    let roles = [
        "webpubsub.joinLeaveGroup.in",
        "webpubsub.sendToGroup.out",
        "hubcast.send.x-*",
    ];
    for protocol in SUBPROTOCOLS {
        let mut client = chat(&cluster, 0, protocol, "ann", &roles).await;
        client.join("in").await;
        client.join("in").await; // Clients repeat what they got no answer to.
        client.send("out", "needs no membership").await;
        client.send("x-1", "any that begins so").await;
        client.leave("in").await;
        client.leave("in").await;
        for (request, what, group) in [
            (json!({ "type": "joinGroup", "group": "out" }), "join", "out"),
            (json!({ "type": "leaveGroup", "group": "in.1" }), "join", "in.1"),
            (to_group("in", "x"), "send", "in"),
        ] {
            let id = client.ask(request).await;
            let text = format!("Not permitted: it takes the role hubcast.{what} or hubcast.{what}.{group}");
            let error = json!({ "name": "Forbidden", "message": text });
            let expected = json!({ "type": "ack", "ackId": id, "success": false, "error": error });
            assert_eq!(client.ack(id).await, expected);
        }
    }
}

#[tokio::test]
async fn bad_groups_and_too_many_are_bad_requests() {
    let cluster = Plan::nodes(2)
        .set("limits.groups_per_connection", 2)
        .start()
        .await;
    for protocol in SUBPROTOCOLS {
        let mut client = demo(&cluster, 1, protocol).await;
        let long = "x".repeat(2_000);
        for group in ["", long.as_str()] {
            for kind in ["joinGroup", "leaveGroup", "sendToGroup"] {
                let request = json!({ "type": kind, "group": group, "data": 1 });
                let (name, text) = client.refusal(request).await;
                assert_eq!(name, "BadRequest", "{kind} {text}");
            }
        }
        client.join("a").await;
        client.join("b").await;
        client.join("a").await;
        let (name, text) = client.refusal(json!({ "type": "joinGroup", "group": "c" })).await;
        assert_eq!(name, "BadRequest");
        assert!(text.contains('2'), "it says how many: {text}");
        client.leave("b").await;
        client.join("c").await;
        client.send("a", "still in a").await;
        assert_eq!(client.message().await["data"], "still in a");
    }
}

#[tokio::test]
async fn a_sender_hears_itself_unless_it_does_not_want_to() {
    let cluster = Plan::nodes(2).start().await;
    for protocol in SUBPROTOCOLS {
        let mut sender = demo(&cluster, 0, protocol).await;
        let mut others = [
            demo(&cluster, 0, protocol).await,
            demo(&cluster, 1, protocol).await,
        ];
        sender.join("g").await;
        for other in &mut others {
            other.join("g").await;
        }
        for (text, silent) in [("1", true), ("2", false), ("3", true), ("4", false)] {
            let mut request = to_group("g", text);
            request["noEcho"] = json!(silent);
            sender.done(request).await;
        }
        for other in &mut others {
            for text in texts(1..5) {
                assert_eq!(other.message().await["data"], text);
            }
        }
        for text in ["2", "4"] {
            assert_eq!(sender.message().await["data"], text);
        }
    }
}

/// Clients don't wait for an ack before their next request.
#[tokio::test]
async fn requests_are_done_in_their_order() {
    // However many calls of methods may run at once.
    let cluster = Plan::nodes(2).set("hubs.parallel_invocations", 8).start().await;
    for protocol in SUBPROTOCOLS {
        let mut client = demo(&cluster, 0, protocol).await;
        let mut ids = Vec::new();
        for round in 0..20 {
            for request in [
                to_group("g", "too early"),
                json!({ "type": "joinGroup", "group": "g" }),
                to_group("g", &round.to_string()),
                json!({ "type": "leaveGroup", "group": "g" }),
                to_group("g", "too late"),
            ] {
                ids.push(client.ask(request).await);
            }
        }
        for id in ids {
            assert_eq!(client.ack(id).await["success"], true);
        }
        client.join("end").await;
        client.send("end", "end").await;
        for text in texts(0..20) {
            assert_eq!(client.message().await["data"], text);
        }
        assert_eq!(client.message().await["data"], "end");
    }
}

#[tokio::test]
async fn an_ack_id_is_for_one_message() {
    let cluster = Plan::nodes(2).start().await;
    for protocol in SUBPROTOCOLS {
        let mut receiver = demo(&cluster, 1, protocol).await;
        receiver.join("g").await;
        let mut senders = [
            demo(&cluster, 0, protocol).await,
            demo(&cluster, 0, protocol).await,
        ];
        for sender in &mut senders {
            let mut request = to_group("g", "once");
            request["ackId"] = json!(7);
            sender.say(&request).await;
            assert_eq!(sender.ack(7).await["success"], true, "ids are a connection's own");
            sender.say(&request).await;
            let text = "Message with ack-id: 7 has been processed";
            let error = json!({ "name": "Duplicate", "message": text });
            assert_eq!(sender.ack(7).await["error"], error);
        }
        senders[0].send("g", "end").await;
        for text in ["once", "once", "end"] {
            assert_eq!(receiver.message().await["data"], text);
        }
    }
}

#[tokio::test]
async fn an_event_calls_a_method_of_the_hub() {
    let cluster = Plan::nodes(2).start().await;
    for protocol in [JSON, RELIABLE] {
        let mut client = demo(&cluster, 1, protocol).await;
        for (kind, data) in [
            ("text", json!("hello")),
            ("json", json!({ "a": [1, null] })),
            ("binary", json!("AP8=")),
        ] {
            let event = json!({ "type": "event", "event": "Echo", "dataType": kind, "data": data });
            client.done(event).await;
            let message = client.message().await;
            let seen = [&message["from"], &message["dataType"], &message["data"]];
            assert_eq!(seen, [&json!("server"), &json!("json"), &data]);
            assert_eq!(message.get("group").or(message.get("fromUserId")), None);
        }
        // A result of null is none.
        client
            .done(json!({ "type": "event", "event": "joingroup", "data": "g" }))
            .await;
        client.send("g", "next").await;
        assert_eq!(client.message().await["data"], "next");
        for (event, data, text) in [
            ("Throw", json!("my text"), "HubException: my text"),
            ("Nobody", json!(1), "HubException: Method does not exist."),
            (
                "SendMessage",
                json!("one of two"),
                "Failed to invoke 'SendMessage' due to an error on the server.",
            ),
        ] {
            let request = json!({ "type": "event", "event": event, "data": data });
            let (name, said) = client.refusal(request).await;
            assert_eq!(name, "InternalServerError");
            assert!(said.contains(text), "{said}");
        }
    }
}

#[tokio::test]
async fn an_invoke_is_answered() {
    let cluster = Plan::nodes(2).start().await;
    for protocol in [JSON, RELIABLE] {
        let mut client = demo(&cluster, 0, protocol).await;
        client
            .socket()
            .text(r#"{"type":"invoke","invocationId":"a \"1\"","target":"event","event":"Echo","dataType":"json","data":{"x": 1}}"#)
            .await;
        let expected = r#"{"type":"invokeResponse","invocationId":"a \"1\"","success":true,"dataType":"json","data":{"x": 1}}"#;
        assert_eq!(client.frame().await.as_deref(), Some(expected));
        let invoke = |id: &str, event: &str, data: Value| json!({ "type": "invoke", "invocationId": id, "target": "event", "event": event, "dataType": "text", "data": data });
        client.say(&invoke("2", "JoinGroup", json!("g"))).await;
        assert_eq!(client.invoked("2").await["success"], true);
        client.say(&invoke("3", "Throw", json!("why"))).await;
        let failed = client.invoked("3").await;
        assert_eq!(
            (&failed["success"], &failed["error"]["name"]),
            (&json!(false), &json!("InternalServerError"))
        );
        assert!(
            failed["error"]["message"]
                .as_str()
                .is_some_and(|text| text.ends_with("HubException: why")),
            "{failed}"
        );
        // The same id once as an event's and once as an invoke's: each is answered in its own way.
        client
            .say(&json!({ "type": "event", "event": "Echo", "ackId": 4, "data": 4 }))
            .await;
        client.say(&invoke("4", "Echo", json!("four"))).await;
        assert_eq!(client.ack(4).await["success"], true);
        assert_eq!(client.invoked("4").await["data"], "four");
        assert_eq!(
            client.message().await["data"],
            4,
            "only an event's result is a message"
        );
        client.send("g", "next").await;
        assert_eq!(client.message().await["data"], "next");
    }
}

#[tokio::test]
async fn an_invoke_can_be_cancelled() {
    let application = Application::start().await;
    let entry = EntryPoint::new(&[application.address()], &Secrets::default());
    let mut client = WebPubSub::connect(application.address(), "/client/hubs/parallelhub", JSON).await;
    let invoke =
        json!({ "type": "invoke", "invocationId": "1", "target": "event", "event": "WaitForCancel" });
    client.say(&invoke).await;
    client.is_heard().await;
    client
        .say(&json!({ "type": "cancelInvocation", "invocationId": "2" }))
        .await; // No user's.
    client
        .say(&json!({ "type": "cancelInvocation", "invocationId": "1" }))
        .await;
    let entry = std::sync::Arc::new(entry.at("/hubs/parallelhub"));
    let mut watcher = HubClient::connect(&entry, Transport::WebSockets).await;
    eventually("the method is told", async || {
        (watcher.result("GetCancelled", json!([])).await == 1).then_some(())
    })
    .await;
    client.is_heard().await;
}

#[tokio::test]
async fn a_message_has_the_life_that_its_sender_gives_it() {
    let cluster = Plan::nodes(2).start().await;
    for (protocol, of_receiver) in SUBPROTOCOLS
        .into_iter()
        .zip([RELIABLE, RELIABLE_PROTOBUF].into_iter().cycle())
    {
        let mut receiver = demo(&cluster, 1, of_receiver).await;
        receiver.join("g").await;
        receiver.lose();
        let mut sender = demo(&cluster, 0, protocol).await;
        let lives = |text: &str, seconds: u64| {
            let mut request = to_group("g", text);
            request["ttlSeconds"] = json!(seconds);
            request
        };
        sender.done(lives("for a second", 1)).await;
        let mut unacknowledged = lives("for a second", 1);
        unacknowledged["noEcho"] = json!(true);
        sender.say(&unacknowledged).await;
        sender.done(lives("long", 300)).await;
        tokio::time::sleep(std::time::Duration::from_millis(1_500)).await; // a time to live ends by time alone
        sender.done(lives("for ever", 0)).await;
        receiver.come_back(at(&cluster, 0)).await;
        assert_eq!(receiver.fresh_data(2).await, ["long", "for ever"], "{protocol}");
        let (name, text) = sender.refusal(lives("too long", 301)).await;
        assert_eq!(name, "BadRequest", "{text}");
    }
}
