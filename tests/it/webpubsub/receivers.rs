//! Messages between Web PubSub's clients, SignalR's, event streams, plain WebSockets and back ends.

use std::sync::Arc;

use hubcast_tests::cluster::{Cluster, Plan};
use hubcast_tests::event_source::EventSource;
use hubcast_tests::hub_client::{HubClient, Transport};
use hubcast_tests::messagepack::{self, Value as Packed};
use hubcast_tests::rest::{Rest, dated};
use serde_json::{Value, json};

use super::{
    CHAT, DEMO, PLAIN, PROTOBUF, RELIABLE, RELIABLE_PROTOBUF, SUBPROTOCOLS, WebPubSub, at, chat, connect,
    demo, token, with_chat, with_query,
};

/// One client of each kind, in the group `g` of the demo hub, spread over three nodes.
struct Everybody {
    cluster: Cluster,
    json: HubClient,
    packed: HubClient,
    events: EventSource,
    plain: WebPubSub,
    /// One of each subprotocol.
    web: Vec<WebPubSub>,
}

impl Everybody {
    async fn gather() -> Self {
        let cluster = Plan::nodes(3).start().await;
        let mut json = HubClient::connect(&cluster.entry_on(0), Transport::WebSockets).await;
        json.result("JoinGroup", json!(["g"])).await;
        let mut packed = HubClient::connect_messagepack(&cluster.entry_on(1), Transport::WebSockets).await;
        let join = messagepack::invocation("1", "JoinGroup", vec!["g".into()]);
        packed.send(messagepack::frame(&join)).await;
        packed.next_messagepack().await.expect("it has joined");
        let events = EventSource::open(at(&cluster, 2), "group=g").await.begun().await;
        let mut plain = connect(&cluster, 1, &with_query(DEMO, "group=g"), PLAIN).await;
        assert_eq!(plain.next().await.expect("a place")["type"], "place");
        let mut web = Vec::new();
        for (node, protocol) in [2, 0, 1, 0].into_iter().zip(SUBPROTOCOLS) {
            let mut client = demo(&cluster, node, protocol).await;
            client.join("g").await;
            web.push(client);
        }
        Self {
            cluster,
            json,
            packed,
            events,
            plain,
            web,
        }
    }

    /// Checks what each of them receives next: target and arguments for SignalR clients, the message for the others.
    async fn receive(&mut self, target: &str, arguments: &Value, packed: &[Packed], data: &Value) {
        let call = self.json.next().await.expect("a call");
        assert_eq!(
            call,
            json!({ "type": 1, "target": target, "arguments": arguments })
        );
        let call = self.packed.next_messagepack().await.expect("a call");
        assert_eq!((&call[0], &call[3]), (&Packed::from(1), &Packed::from(target)));
        assert_eq!(call[4], Packed::Array(packed.to_vec()));
        let event = self.events.event().await;
        assert_eq!((event.name.as_str(), &event.data), (target, arguments));
        let mut plain = self.plain.next().await.expect("a message");
        let id = plain["id"].take();
        assert_eq!(id, event.id.as_str(), "places are the same for all");
        let mut expected =
            json!({ "type": "message", "id": null, "group": "g", "target": target, "arguments": arguments });
        if let Some(user) = data.get("fromUserId") {
            expected["fromUserId"] = user.clone();
        }
        assert_eq!(plain, expected);
        let mut numbers = Vec::new();
        for (client, protocol) in self.web.iter_mut().zip(SUBPROTOCOLS) {
            let mut message = client.message().await;
            let number = message.as_object_mut().expect("fields").remove("sequenceId");
            numbers.push(number.is_some_and(|number| number.as_u64() > Some(0)));
            let mut expected = data.clone();
            if [PROTOBUF, RELIABLE_PROTOBUF].contains(&protocol) {
                expected.as_object_mut().expect("fields").remove("fromUserId"); // its schema has none
            }
            assert_eq!(message, expected, "{protocol}");
        }
        let numbered = [false, true, false, true];
        assert_eq!(numbers, numbered, "only reliable messages are numbered");
    }
}

#[tokio::test]
async fn each_kind_of_data_reaches_each_kind_of_client() {
    let mut all = Everybody::gather().await;
    let token = token(&all.cluster, "ann", &json!({ "role": "webpubsub.sendToGroup.g" }));
    let target = with_query(DEMO, &format!("access_token={token}"));
    let object = json!({ "b": [1, null, "ä"] });
    for protocol in SUBPROTOCOLS {
        let mut ann = connect(&all.cluster, 1, &target, protocol).await;
        for (kind, data, packed) in [
            ("text", json!("hi"), Packed::from("hi")),
            ("json", object.clone(), messagepack::from_json(&object)),
            ("json", json!("12"), Packed::from("12")),
            ("binary", json!("AP/+"), Packed::Binary(vec![0, 255, 254])),
            ("protobuf", json!("CgA="), Packed::Binary(vec![10, 0])),
            ("binary", json!(""), Packed::Binary(Vec::new())),
        ] {
            ann.done(json!({ "type": "sendToGroup", "group": "g", "dataType": kind, "data": data }))
                .await;
            let message = json!({
                "type": "message", "from": "group", "group": "g", "fromUserId": "ann", "dataType": kind, "data": data,
            });
            all.receive("message", &json!([data]), &[packed], &message).await;
        }
    }
}

#[tokio::test]
async fn calls_and_requests_of_others_reach_each_kind_of_client() {
    let mut all = Everybody::gather().await;
    let message = |data: Value| json!({ "type": "message", "from": "group", "group": "g", "dataType": "json", "data": data });
    let whole =
        |target: &str, arguments: &Value| message(json!({ "target": target, "arguments": arguments }));
    let mut caller = HubClient::connect(&all.cluster.entry_on(2), Transport::WebSockets).await;
    caller.result("SendToGroup", json!(["g", "x"])).await;
    let arguments = json!(["g", "x"]);
    let packed = ["g".into(), "x".into()];
    all.receive(
        "GroupMessage",
        &arguments,
        &packed,
        &whole("GroupMessage", &arguments),
    )
    .await;
    let rest = Rest::on(&all.cluster.nodes[1]);
    for (target, arguments, expected) in [
        ("message", json!([null]), None), // the official .NET client can't bear data that is null
        ("Said", json!([1, {}]), None),
        ("Said", json!(["one"]), None),
        ("message", json!([]), None),
        ("message", json!([1, 2]), None),
        (
            "message",
            json!([{ "just": "data" }]),
            Some(json!({ "just": "data" })),
        ),
    ] {
        let body = json!({ "target": target, "arguments": arguments });
        let answer = rest.send("/groups/g/:send", &body).await;
        assert_eq!(answer.status(), 202, "{}", answer.text());
        let Packed::Array(packed) = messagepack::from_json(&arguments) else {
            panic!("an array")
        };
        let expected = expected.map_or_else(|| whole(target, &arguments), &message);
        all.receive(target, &arguments, &packed, &expected).await;
    }
}

#[tokio::test]
async fn a_hub_of_the_configuration_passes_calls_of_signalr_on() {
    let cluster = with_chat(Plan::nodes(2)).start().await;
    let bearer = token(&cluster, "sig", &json!({ "role": ["hubcast.send"] }));
    let entry = Arc::new(cluster.entry_on(1).at("/hubs/chat").with_bearer(&bearer));
    let mut caller = HubClient::connect(&entry, Transport::WebSockets).await;
    for protocol in SUBPROTOCOLS {
        let mut client = chat(&cluster, 0, protocol, "ann", &["hubcast.join"]).await;
        client.join("g").await;
        caller.result("SendToGroup", json!(["g", "Said", 1, {}])).await;
        let mut message = client.message().await;
        message.as_object_mut().expect("fields").remove("sequenceId");
        let data = json!({ "target": "Said", "arguments": [1, {}] });
        assert_eq!(
            message,
            json!({ "type": "message", "from": "group", "group": "g", "dataType": "json", "data": data })
        );
        caller.result("SendToUser", json!(["ann", "message", "hi"])).await;
        let message = client.message().await;
        assert_eq!(
            (&message["from"], &message["data"]),
            (&json!("server"), &json!("hi"))
        );
    }
}

#[tokio::test]
async fn back_ends_reach_a_user_a_connection_and_all() {
    let cluster = Plan::nodes(3).start().await;
    let rest = Rest::on(&cluster.nodes[2]);
    let of_ann = format!("access_token={}", token(&cluster, "ann", &json!({})));
    let target = with_query(DEMO, &of_ann);
    for protocol in SUBPROTOCOLS {
        let mut ann = connect(&cluster, 0, &target, protocol).await;
        let mut nobody = demo(&cluster, 1, protocol).await;
        let ids = [ann.id().to_owned(), nobody.id().to_owned()];
        for (path, to_ann, to_nobody) in [
            ("/:send".to_owned(), true, true),
            ("/users/ann/:send".to_owned(), true, false),
            (format!("/connections/{}/:send", ids[0]), true, false),
            (format!("/connections/{}/:send", ids[1]), false, true),
            (format!("/:send?excluded={}", ids[0]), false, true),
        ] {
            let body = json!({ "target": "message", "arguments": [path] });
            assert_eq!(rest.send(&path, &body).await.status(), 202);
            for (client, receives) in [(&mut ann, to_ann), (&mut nobody, to_nobody)] {
                if !receives {
                    continue; // The next message shows that nothing came.
                }
                let mut message = client.message().await;
                message.as_object_mut().expect("fields").remove("sequenceId");
                assert_eq!(
                    message,
                    json!({ "type": "message", "from": "server", "dataType": "json", "data": path })
                );
            }
        }
        let put = |path: String| rest.request("PUT", &dated(&path));
        let joined = rest
            .fetch(&put(format!("/groups/g/connections/{}", ids[1])))
            .await;
        assert_eq!(joined.status(), 200);
        nobody.send("g", "a back end put it in").await;
        assert_eq!(nobody.message().await["data"], "a back end put it in");
    }
}

#[tokio::test]
async fn groups_that_the_token_names_are_joined_without_a_role() {
    let cluster = with_chat(Plan::nodes(2)).start().await;
    for protocol in SUBPROTOCOLS {
        let mut sender = chat(&cluster, 0, protocol, "bob", &["webpubsub.sendToGroup"]).await;
        for (claim, groups) in [
            (json!("a"), &["a"][..]),
            (json!(["a", "b c"]), &["a", "b c"]),
            (json!(["", 5, "b"]), &["b"]), // What can't be a group is none.
            (json!([]), &[]),
        ] {
            let token = token(&cluster, "ann", &json!({ "webpubsub.group": claim }));
            let target = with_query(CHAT, &format!("access_token={token}"));
            let mut client = connect(&cluster, 1, &target, protocol).await;
            for group in ["a", "b", "b c"] {
                sender.send(group, group).await;
            }
            let rest = Rest::on(&cluster.nodes[0]);
            let end = json!({ "target": "message", "arguments": ["end"] });
            let path = format!("/api/hubs/chat/users/ann/:send?{}", hubcast_tests::rest::VERSION);
            assert_eq!(rest.post(&path, &end).await.status(), 202);
            for group in groups {
                assert_eq!(client.message().await["group"], *group, "{claim}");
            }
            assert_eq!(client.message().await["data"], "end", "{claim}");
            let (name, _) = client
                .refusal(json!({ "type": "leaveGroup", "group": "a" }))
                .await;
            assert_eq!(name, "Forbidden");
            client
                .socket()
                .send(hubcast_tests::websocket::Message::Close(None))
                .await;
        }
    }
}

/// The official clients drop what has the number 0 or less than one before.
#[tokio::test]
async fn numbers_grow_in_a_hub_that_keeps_nothing_as_well() {
    let cluster = Plan::nodes(2).set("hubs.volatile", true).start().await;
    let mut client = demo(&cluster, 0, RELIABLE).await;
    let mut sender = demo(&cluster, 1, RELIABLE).await;
    client.join("g").await;
    super::send_all(&mut sender, "g", 0..20).await;
    assert_eq!(client.fresh_data(20).await, super::texts(0..20));
}
