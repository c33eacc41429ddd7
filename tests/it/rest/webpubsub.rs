//! The REST API of Azure Web PubSub, on hubs that have it: every operation, for connections on other nodes than the one
//! that is asked.

use hubcast_tests::cluster::{Cluster, Plan};
use hubcast_tests::event_source::EventSource;
use hubcast_tests::eventually::within;
use hubcast_tests::http::{Request, Response};
use hubcast_tests::jwt::{ACCESS_KEY, now, token_with};
use hubcast_tests::rest::Rest;
use hubcast_tests::webpubsub::{JSON, RELIABLE, WebPubSub};
use serde_json::{Value, json};

const CHAT: &str = "/client/hubs/chat";

/// Clients on two nodes, and a back end that calls a third.
struct Hub {
    cluster: Cluster,
    rest: Rest,
}

impl Hub {
    async fn start() -> Self {
        Self::with(|plan| plan).await
    }

    async fn with(plan: fn(Plan) -> Plan) -> Self {
        let settings = Plan::nodes(3)
            .set("hubs.names", "chat")
            .set("hubs.rest_api", "webpubsub")
            .set("auth.allow_anonymous", true);
        let cluster = plan(settings).start().await;
        let rest = Rest::on(&cluster.nodes[2]);
        Self { cluster, rest }
    }

    async fn connect(&self, node: usize, protocol: &str, user: Option<&str>) -> WebPubSub {
        let target = match user {
            Some(user) => {
                let token = token_with(&json!({ "sub": user, "exp": now() + 3_600 }), ACCESS_KEY);
                self.cluster.secrets.add(&token);
                format!("{CHAT}?access_token={token}")
            }
            None => CHAT.to_owned(),
        };
        let client = WebPubSub::connect(self.cluster.nodes[node].address(), &target, protocol).await;
        if let Some(token) = client.connected["reconnectionToken"].as_str() {
            self.cluster.secrets.add(token);
        }
        client
    }

    fn request(&self, method: &str, path: &str) -> Request {
        self.rest.request(method, &path_of(path))
    }

    async fn call(&self, method: &str, path: &str) -> Response {
        self.rest.fetch(&self.request(method, path)).await
    }

    async fn status(&self, method: &str, path: &str) -> u16 {
        self.call(method, path).await.status()
    }

    async fn send(&self, path: &str, kind: &str, body: impl Into<Vec<u8>>) -> Response {
        let body: Vec<u8> = body.into();
        let request = self.request("POST", path).header("Content-Type", kind).body(body);
        self.rest.fetch(&request).await
    }

    async fn text(&self, path: &str, text: &str) {
        let response = self.send(path, "text/plain", text).await;
        assert_eq!(response.status(), 202, "{path} {}", response.text());
    }

    async fn post(&self, path: &str, body: &Value) -> Response {
        self.send(path, "application/json", body.to_string()).await
    }

    /// The messages that each client has received up to now.
    async fn received(&self, clients: &mut [&mut WebPubSub]) -> Vec<Vec<Value>> {
        self.text("/:send", "the end").await;
        let mut all = Vec::new();
        for client in clients {
            let mut received = Vec::new();
            loop {
                let message = client.message().await;
                if message["data"] == "the end" {
                    break;
                }
                received.push(message["data"].clone());
            }
            all.push(received);
        }
        all
    }
}

fn path_of(path: &str) -> String {
    let separator = if path.contains('?') { '&' } else { '?' };
    format!("/api/hubs/chat{path}{separator}api-version=2024-12-01")
}

fn error_code(response: &Response) -> Value {
    let code = response.head.header("x-ms-error-code").unwrap_or_default();
    let body = response.json();
    assert_eq!(body["code"], code);
    assert!(
        body["message"].is_string() && body["target"].is_string(),
        "{body}"
    );
    body["code"].clone()
}

#[tokio::test]
async fn bodies_arrive_as_they_were_sent() {
    let hub = Hub::start().await;
    let mut json = hub.connect(0, JSON, Some("ann")).await;
    let mut reliable = hub.connect(1, RELIABLE, None).await;
    for (kind, body, data_type, data) in [
        ("text/plain", "hällo".as_bytes(), "text", json!("hällo")),
        (
            "application/json; charset=utf-8",
            br#"{"b":[1,2.50],"a":null}"#,
            "json",
            json!({ "b": [1, 2.50], "a": null }),
        ),
        ("application/json", b"42", "json", json!(42)),
        ("application/json", br#""a string""#, "json", json!("a string")),
        ("application/octet-stream", b"\x00\xff\n", "binary", json!("AP8K")),
    ] {
        let response = hub.send("/:send", kind, body).await;
        assert_eq!((response.status(), response.text()), (202, ""), "{kind}");
        for client in [&mut json, &mut reliable] {
            let message = client.message().await;
            assert_eq!(
                (&message["from"], &message["dataType"], &message["data"]),
                (&json!("server"), &json!(data_type), &data)
            );
        }
    }
    assert_eq!(
        hub.status("PUT", &format!("/groups/a%2Fb/connections/{}", json.id()))
            .await,
        200
    );
    hub.text("/groups/a%2Fb/:send", "to the group").await;
    let message = json.message().await;
    assert_eq!(
        (&message["from"], &message["group"]),
        (&json!("group"), &json!("a/b"))
    );
    assert!(message.get("fromUserId").is_none(), "{message}");
    hub.text("/users/ann/:send", "to the user").await;
    hub.text(
        &format!("/connections/{}/:send", reliable.id()),
        "to the connection",
    )
    .await;
    hub.text("/connections/nosuch/:send", "to nobody").await;
    assert_eq!(
        hub.received(&mut [&mut json, &mut reliable]).await,
        [vec![json!("to the user")], vec![json!("to the connection")]]
    );
    for (kind, body, status) in [
        ("application/json", "{", 400),
        ("application/json", "null", 400),
        ("application/json", "", 400),
        ("text/html", "x", 415),
        ("text/plain; charset=shift_jis", "x", 415),
    ] {
        let response = hub.send("/:send", kind, body).await;
        assert_eq!(response.status(), status, "{kind} {body}");
        error_code(&response);
    }
    assert_eq!(
        hub.received(&mut [&mut json, &mut reliable]).await,
        [[], []] as [[Value; 0]; 2]
    );
}

#[tokio::test]
async fn a_filter_is_asked_of_every_receiver_where_it_is() {
    let hub = Hub::start().await;
    let mut ann = hub.connect(0, JSON, Some("ann")).await;
    let mut bob = hub.connect(1, RELIABLE, Some("bob")).await;
    let mut nobody = hub.connect(2, JSON, None).await;
    for (group, client) in [("g1", &ann), ("g1", &bob), ("g2", &bob), ("g1", &nobody)] {
        let path = format!("/groups/{group}/connections/{}", client.id());
        assert_eq!(hub.status("PUT", &path).await, 200);
    }
    for (path, filter, expected) in [
        (
            "/:send",
            "userId ne 'bob' and 'g1' in groups",
            [true, false, true],
        ),
        ("/:send", "userId eq null", [false, false, true]),
        ("/:send", "length(groups) gt 1", [false, true, false]),
        (
            "/:send",
            "protocol eq 'json.reliable.webpubsub.azure.v1'",
            [false, true, false],
        ),
        ("/groups/g1/:send", "userId in ('ann','bob')", [true, true, false]),
        ("/users/ann/:send", "not ('g1' in groups)", [false, false, false]),
        (
            "/users/ann/:send",
            &format!("connectionId eq '{}'", ann.id()),
            [true, false, false],
        ),
    ] {
        let query = encoded(filter);
        hub.text(&format!("{path}?filter={query}"), filter).await;
        let received = hub.received(&mut [&mut ann, &mut bob, &mut nobody]).await;
        for (received, expected) in received.iter().zip(expected) {
            assert_eq!(
                received.len(),
                usize::from(expected),
                "{path} {filter} {received:?}"
            );
        }
    }
    let excluded = format!(
        "/:send?excluded={}&excluded={}&filter=true",
        ann.id(),
        nobody.id()
    );
    hub.text(&excluded, "but for two").await;
    assert_eq!(
        hub.received(&mut [&mut ann, &mut bob, &mut nobody]).await,
        [vec![], vec![json!("but for two")], vec![]]
    );

    for bad in ["length(userId)", "userId eq", "x eq 1", &"(".repeat(200)] {
        let response = hub
            .send(&format!("/:send?filter={}", encoded(bad)), "text/plain", "x")
            .await;
        assert_eq!(response.status(), 400, "{bad}");
        assert_eq!(error_code(&response), "Error.BadRequest");
        assert!(
            response.json()["message"]
                .as_str()
                .unwrap()
                .ends_with("(Parameter 'filter')")
        );
    }
    assert_eq!(
        hub.received(&mut [&mut ann, &mut bob, &mut nobody]).await,
        vec![Vec::<Value>::new(); 3]
    );
}

/// A connection receives after its return the messages that it would have received before, by its groups at that time.
#[tokio::test]
async fn a_filter_holds_for_what_is_replayed() {
    let hub = Hub::start().await;
    let mut ann = hub.connect(0, RELIABLE, Some("ann")).await;
    let member = format!("/groups/g/connections/{}", ann.id());
    assert_eq!(hub.status("PUT", &member).await, 200);
    hub.text("/:send", "before").await;
    assert_eq!(ann.fresh().await["data"], "before");
    ann.acknowledge(ann.last).await;
    ann.lose();
    hub.text(&format!("/:send?filter={}", encoded("'g' in groups")), "1")
        .await;
    hub.text(
        &format!("/:send?filter={}", encoded("userId eq 'bob'")),
        "not for her",
    )
    .await;
    assert_eq!(hub.status("DELETE", &member).await, 204);
    hub.text(&format!("/:send?filter={}", encoded("'g' in groups")), "too late")
        .await;
    hub.text(&format!("/:send?filter={}", encoded("not ('g' in groups)")), "2")
        .await;
    hub.text("/:send?messageTtlSeconds=1", "for a second").await;
    tokio::time::sleep(std::time::Duration::from_millis(1_500)).await; // a time to live ends by time alone
    hub.text("/:send?messageTtlSeconds=300", "3").await;
    ann.come_back(hub.cluster.nodes[1].address()).await;
    assert_eq!(ann.fresh_data(3).await, ["1", "2", "3"]);
    for bad in ["301", "-1", "x", "1&messageTtlSeconds=1"] {
        let response = hub
            .send(&format!("/:send?messageTtlSeconds={bad}"), "text/plain", "x")
            .await;
        assert_eq!(response.status(), 400, "{bad}");
    }
}

/// Event streams hold their own place in the log; a filter is asked of what they lack, too.
#[tokio::test]
async fn a_filter_holds_for_the_history_of_an_event_stream() {
    let hub = Hub::start().await;
    let address = hub.cluster.nodes[0].address();
    let source = EventSource::open(address, "group=g").await.begun().await;
    let last = source.last_id.clone();
    drop(source);
    let send = async |filter: &str, text: &'static str| {
        let query = format!("filter={}&api-version=2024-12-01", encoded(filter));
        let target = format!("/api/hubs/demo/groups/g/:send?{query}");
        let request = hub
            .rest
            .request("POST", &target)
            .header("Content-Type", "text/plain");
        assert_eq!(hub.rest.fetch(&request.body(text)).await.status(), 202);
    };
    send("'g' in groups", "1").await;
    send("userId ne null", "of a user").await;
    send("not ('h' in groups)", "2").await;
    send("length(groups) gt 1", "in two groups").await;
    send("protocol eq null", "3").await;
    let mut again = EventSource::resume(hub.cluster.nodes[1].address(), "group=g", &last).await;
    for expected in ["1", "2", "3"] {
        assert_eq!(
            within("an event", again.next()).await.unwrap().data,
            json!([expected])
        );
    }
}

#[tokio::test]
async fn groups_change_for_all_that_a_filter_admits() {
    let hub = Hub::start().await;
    let mut ann = hub.connect(0, JSON, Some("ann")).await;
    let mut bob = hub.connect(1, RELIABLE, Some("bob")).await;
    let mut nobody = hub.connect(2, JSON, None).await;
    let add = |filter: Value| json!({ "groups": ["x", "y/z"], "filter": filter });
    // One of them is away.
    bob.lose();
    let response = hub.post("/:addToGroups", &add(json!("userId ne null"))).await;
    assert_eq!((response.status(), response.text()), (200, ""));
    bob.come_back(hub.cluster.nodes[1].address()).await;
    for group in ["x", "y%2Fz"] {
        let members = hub
            .call("GET", &format!("/groups/{group}/connections"))
            .await
            .json();
        let mut users: Vec<_> = members["value"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["userId"].clone())
            .collect();
        users.sort_by_key(Value::to_string);
        assert_eq!(users, ["ann", "bob"], "{group}");
    }
    hub.text("/groups/x/:send", "members").await;
    let member = vec![json!("members")];
    assert_eq!(
        hub.received(&mut [&mut ann, &mut bob, &mut nobody]).await,
        [member.clone(), member, vec![]]
    );
    let remove = json!({ "filter": "'y/z' in groups and userId eq 'bob'", "groups": ["x"] });
    assert_eq!(hub.post("/:removeFromGroups", &remove).await.status(), 200);
    hub.text("/groups/x/:send", "the rest").await;
    assert_eq!(
        hub.received(&mut [&mut ann, &mut bob, &mut nobody]).await,
        [vec![json!("the rest")], vec![], vec![]]
    );
    let everybody = json!({ "filter": null, "groups": ["x", "y/z"] });
    assert_eq!(hub.post("/:removeFromGroups", &everybody).await.status(), 200);
    assert_eq!(hub.status("HEAD", "/groups/x").await, 404);
    for bad in [
        json!({ "groups": [] }),
        json!({ "groups": [""] }),
        json!({ "groups": "x" }),
        json!({ "filter": "true" }),
        json!({ "groups": ["x"], "filter": "userId" }),
        json!([]),
    ] {
        assert_eq!(hub.post("/:addToGroups", &bad).await.status(), 400, "{bad}");
    }
    assert_eq!(hub.send("/:addToGroups", "text/plain", "x").await.status(), 415);
}

#[tokio::test]
async fn users_and_connections_come_and_go() {
    let hub = Hub::start().await;
    let mut ann = hub.connect(0, JSON, Some("ann")).await;
    let mut second = hub.connect(1, RELIABLE, Some("ann")).await;
    assert_eq!(hub.status("PUT", "/users/ann/groups/g").await, 200);
    let nobody = hub.call("PUT", "/users/nobody/groups/g").await;
    assert_eq!(
        (nobody.status(), error_code(&nobody)),
        (404, json!("Warning.User.NotExisted"))
    );
    hub.text("/groups/g/:send", "both").await;
    let both = vec![json!("both")];
    assert_eq!(
        hub.received(&mut [&mut ann, &mut second]).await,
        [both.clone(), both]
    );
    let mut third = hub.connect(2, JSON, Some("ann")).await;
    hub.text("/groups/g/:send", "who was there").await;
    let present = vec![json!("who was there")];
    assert_eq!(
        hub.received(&mut [&mut ann, &mut second, &mut third]).await,
        [present.clone(), present, vec![]],
        "the third came later"
    );
    for (method, path, status) in [
        ("HEAD", "/users/ann", 200),
        ("HEAD", "/users/nobody", 404),
        ("HEAD", "/groups/g", 200),
        ("HEAD", "/groups/none", 404),
        ("HEAD", "/connections/nosuch", 404),
        ("PUT", "/groups/g/connections/nosuch", 404),
        ("DELETE", "/groups/g/connections/nosuch", 204),
        ("DELETE", "/connections/nosuch/groups", 204),
        ("DELETE", "/connections/nosuch?reason=x", 204),
        ("DELETE", "/users/ann/groups/g", 204),
        ("DELETE", "/users/ann/groups", 204),
        ("HEAD", "/groups/g", 404),
        // Of Azure SignalR alone: never a 404, which would read as "no".
        ("HEAD", "/users/ann/groups/g", 501),
        ("HEAD", "/no/such/route", 501),
        ("POST", "/connections/c/:invoke", 501),
    ] {
        assert_eq!(hub.status(method, path).await, status, "{method} {path}");
    }
    let unknown = hub.call("PUT", "/groups/g/connections/nosuch").await;
    assert_eq!(error_code(&unknown), "Error.Connection.NotExisted");
    let old = hub
        .rest
        .fetch(&hub.rest.request("POST", "/api/v1/hubs/chat"))
        .await;
    assert_eq!(old.status(), 501);

    let path = format!("/connections/{}", third.id());
    assert_eq!(hub.status("HEAD", &path).await, 200);
    assert_eq!(
        hub.status("DELETE", &format!("{path}?reason=be%20polite")).await,
        204
    );
    let (rest, _) = third.rest().await;
    assert_eq!(rest.last().unwrap()["message"], "be polite");
    let spared = format!("/users/ann/:closeConnections?excluded={}&reason=bye", second.id());
    assert_eq!(hub.status("POST", &spared).await, 204);
    assert_eq!(ann.rest().await.0.last().unwrap()["message"], "bye");
    hub.text("/:send", "alive").await;
    assert_eq!(
        hub.received(&mut [&mut second]).await[0].last(),
        Some(&json!("alive"))
    );
    assert_eq!(hub.status("POST", "/groups/none/:closeConnections").await, 204);
    assert_eq!(hub.status("POST", "/:closeConnections").await, 204);
    second.rest().await;
    let mut cluster = hub.cluster;
    cluster.is_tidy().await;
}

#[tokio::test]
async fn permissions_hold_on_every_node_and_after_a_lost_socket() {
    let mut hub = Hub::with(|plan| plan.set("drain.notice_seconds", 0)).await;
    let mut ann = hub.connect(0, RELIABLE, Some("ann")).await;
    let permission = |name: &str, id: &str| format!("/permissions/{name}/connections/{id}?targetName=g%2F1");
    let (send, join) = (
        permission("sendToGroup", ann.id()),
        permission("JoinLeaveGroup", ann.id()),
    );
    let request = json!({ "type": "joinGroup", "group": "g/1" });
    let (name, _) = ann.refusal(request.clone()).await;
    assert_eq!(name, "Forbidden");
    let has_not = hub.call("HEAD", &join).await;
    assert_eq!(
        (has_not.status(), has_not.head.header("x-ms-error-code")),
        (404, Some("Warning.Permission.NotExisted"))
    );
    for path in [&send, &join] {
        let response = hub.call("PUT", path).await;
        assert_eq!((response.status(), response.text()), (200, ""));
        assert_eq!(hub.status("HEAD", path).await, 200);
    }
    ann.join("g/1").await;
    ann.send("g/1", "mine").await;
    assert_eq!(ann.fresh().await["data"], "mine");
    // Another node goes on with the connection.
    ann.come_back(hub.cluster.nodes[1].address()).await;
    ann.send("g/1", "elsewhere").await;
    assert_eq!(ann.fresh().await["data"], "elsewhere");
    // A permission that is revoked while no node has the connection stays revoked.
    hub.cluster.nodes[1].terminate();
    hub.cluster.nodes[1].exit().await;
    ann.lose();
    let away = hub
        .rest
        .fetch(&hub.rest.request("GET", "/api/hubs/chat/:statistics"))
        .await;
    assert_eq!(away.json()["parked"], 1, "{}", away.text());
    assert_eq!(hub.status("HEAD", &send).await, 200);
    assert_eq!(hub.status("DELETE", &send).await, 204);
    assert_eq!(hub.status("HEAD", &send).await, 404);
    ann.come_back(hub.cluster.nodes[0].address()).await;
    assert_eq!(hub.status("HEAD", &send).await, 404);
    assert_eq!(hub.status("HEAD", &join).await, 200);
    let (name, _) = ann
        .refusal(json!({ "type": "sendToGroup", "group": "g/1", "dataType": "text", "data": "x" }))
        .await;
    assert_eq!(name, "Forbidden");
    // All groups, and one less.
    let all = format!("/permissions/sendToGroup/connections/{}", ann.id());
    assert_eq!(hub.status("HEAD", &all).await, 404);
    assert_eq!(hub.status("PUT", &all).await, 200);
    assert_eq!(hub.status("HEAD", &all).await, 200);
    ann.send("any", "x").await;
    assert_eq!(hub.status("DELETE", &send).await, 204);
    assert_eq!(hub.status("HEAD", &send).await, 404);
    ann.send("any", "x").await;
    for (method, status) in [("HEAD", 404), ("PUT", 404), ("DELETE", 204)] {
        assert_eq!(
            hub.status(method, &permission("sendToGroup", "nosuch")).await,
            status,
            "{method}"
        );
    }
    assert_eq!(hub.status("PUT", &permission("fly", ann.id())).await, 400);
}

#[tokio::test]
async fn a_repeated_request_is_carried_out_once() {
    let hub = Hub::start().await;
    let mut ann = hub.connect(0, JSON, None).await;
    let send = |id: &str, text: &str| {
        hub.request("POST", "/:send")
            .header("Content-Type", "text/plain")
            .header("x-ms-client-request-id", id)
            .body(text.to_owned())
    };
    for _ in 0..3 {
        assert_eq!(hub.rest.fetch(&send("one", "a")).await.status(), 202);
    }
    // An id that an application gives all of its requests is none of a repetition.
    assert_eq!(hub.rest.fetch(&send("one", "b")).await.status(), 202);
    assert_eq!(hub.rest.fetch(&send("two", "a")).await.status(), 202);
    assert_eq!(hub.received(&mut [&mut ann]).await, [["a", "b", "a"]]);
}

#[tokio::test]
async fn every_version_has_everything() {
    let hub = Hub::start().await;
    for (version, status) in [
        ("?api-version=2021-10-01", 202),
        ("?api-version=2023-07-01", 202),
        ("?api-version=2021-05-01-preview", 202),
        ("?api-version=2031-01-01", 202),
        ("", 202),
        ("?api-version=2022-06-01", 400),
        ("?api-version=1", 400),
        ("?api-version=2021-10-01&api-version=2021-10-01", 400),
    ] {
        let target = format!("/api/hubs/chat/:send{version}");
        let request = hub
            .rest
            .request("POST", &target)
            .header("Content-Type", "text/plain")
            .body("x");
        let response = hub.rest.fetch(&request).await;
        assert_eq!(response.status(), status, "{version}");
        let known = "2021-10-01, 2022-11-01, 2023-07-01, 2024-01-01, 2024-12-01";
        assert_eq!(response.head.header("api-supported-versions"), Some(known));
    }
    let other = hub
        .rest
        .fetch(&hub.rest.request("HEAD", "/api/hubs/nosuch/users/u"))
        .await;
    assert_eq!(other.status(), 400, "a hub that was not declared is not \"no\"");
}

#[tokio::test]
async fn a_generated_token_opens_the_hub() {
    let hub = Hub::start().await;
    let query =
        "userId=ann&role=webpubsub.sendToGroup.g&group=g&group=h&minutesToExpire=4&clientType=Default";
    let response = hub.call("POST", &format!("/:generateToken?{query}")).await;
    assert_eq!(response.status(), 200);
    let token = response.json()["token"].as_str().unwrap().to_owned();
    hub.cluster.secrets.add(&token);
    let target = format!("{CHAT}?access_token={token}");
    let mut ann = WebPubSub::connect(hub.cluster.nodes[1].address(), &target, JSON).await;
    assert_eq!(ann.connected["userId"], "ann");
    ann.send("g", "hello").await;
    assert_eq!(ann.message().await["data"], "hello");
    assert_eq!(hub.status("HEAD", "/groups/h").await, 200);
    for (kind, status) in [("mqtt", 501), ("socketio", 501), ("pigeon", 400)] {
        let path = format!("/:generateToken?clientType={kind}");
        assert_eq!(hub.status("POST", &path).await, status, "{kind}");
    }
}

/// Encoded for a query.
fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        encoded.push_str(&format!("%{byte:02X}"));
    }
    encoded
}
