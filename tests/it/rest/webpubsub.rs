//! The REST API of Azure Web PubSub, on hubs that have it: every operation, for connections on other nodes than the one
//! that is asked.

use hubcast_tests::cluster::{Cluster, Plan};
use hubcast_tests::http::{Request, Response};
use hubcast_tests::jwt::{ACCESS_KEY, now, token_with};
use hubcast_tests::rest::Rest;
use hubcast_tests::webpubsub::{JSON, RELIABLE, WebPubSub};
use serde_json::{Value, json};

const CHAT: &str = "/client/hubs/chat";

/// Clients on two nodes, and a back end that calls a third.
pub(super) struct Hub {
    pub(super) cluster: Cluster,
    pub(super) rest: Rest,
}

impl Hub {
    pub(super) async fn start() -> Self {
        Self::with(|plan| plan).await
    }

    pub(super) async fn with(plan: fn(Plan) -> Plan) -> Self {
        let settings = Plan::nodes(3)
            .set("hubs.names", "chat")
            .set("hubs.rest_api", "webpubsub")
            .set("auth.allow_anonymous", true);
        let cluster = plan(settings).start().await;
        let rest = Rest::on(&cluster.nodes[2]);
        Self { cluster, rest }
    }

    pub(super) async fn connect(&self, node: usize, protocol: &str, user: Option<&str>) -> WebPubSub {
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

    pub(super) fn request(&self, method: &str, path: &str) -> Request {
        self.rest.request(method, &path_of(path))
    }

    pub(super) async fn call(&self, method: &str, path: &str) -> Response {
        self.rest.fetch(&self.request(method, path)).await
    }

    pub(super) async fn status(&self, method: &str, path: &str) -> u16 {
        self.call(method, path).await.status()
    }

    pub(super) async fn send(&self, path: &str, kind: &str, body: impl Into<Vec<u8>>) -> Response {
        let body: Vec<u8> = body.into();
        let request = self.request("POST", path).header("Content-Type", kind).body(body);
        self.rest.fetch(&request).await
    }

    pub(super) async fn text(&self, path: &str, text: &str) {
        let response = self.send(path, "text/plain", text).await;
        assert_eq!(response.status(), 202, "{path} {}", response.text());
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> Response {
        self.send(path, "application/json", body.to_string()).await
    }

    /// The messages that each client has received up to now.
    pub(super) async fn received(&self, clients: &mut [&mut WebPubSub]) -> Vec<Vec<Value>> {
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

pub(super) fn path_of(path: &str) -> String {
    let separator = if path.contains('?') { '&' } else { '?' };
    format!("/api/hubs/chat{path}{separator}api-version=2024-12-01")
}

pub(super) fn error_code(response: &Response) -> Value {
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
pub(super) fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        encoded.push_str(&format!("%{byte:02X}"));
    }
    encoded
}
