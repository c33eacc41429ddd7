//! Recorded requests of the .NET SDKs, which can't be run here, repeated byte by byte.

use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hubcast_tests::cluster::Plan;
use hubcast_tests::eventually::within;
use hubcast_tests::http::{Connection, Head};
use hubcast_tests::jwt::{ACCESS_KEY, now, token_with};
use hubcast_tests::webpubsub::{JSON, RELIABLE};
use serde_json::{Value, json};

use super::sdks::{balancer, connect};

/// The requests of `Azure.Messaging.WebPubSub` 1.6, with what its documentation says of the answer.
const WEB_PUBSUB: &str = include_str!("../../fixtures/webpubsub/rest-dotnet-1.6.jsonl");
/// The user of the recording.
const USER: &str = "ann b/ü";

/// The body of an answer.
async fn read(connection: &mut Connection) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(piece) = connection.piece().await.expect("the body comes") {
        body.extend_from_slice(&piece);
    }
    body
}

/// Sends a request as it is written.
async fn repeat(address: SocketAddr, method: &str, bytes: &[u8]) -> (Head, Vec<u8>) {
    let asking = async {
        let mut connection = Connection::open(address).await.expect("the balancer answers");
        connection.send(bytes).await.expect("the request goes out");
        let head = connection.head(method).await.expect("an answer comes");
        let body = if method == "HEAD" {
            Vec::new()
        } else {
            read(&mut connection).await
        };
        (head, body)
    };
    within("a recorded request is answered", asking).await
}

/// The recorded request with a host, a connection and a token of now.
fn rewritten(record: &Value, address: SocketAddr, connection: &str) -> Vec<u8> {
    let here = |text: &str| {
        text.replace("HOST:PORT", &address.to_string())
            .replace("original.example.com", &address.to_string())
            .replace("CONN", connection)
            .replace("/hubs/demo/", "/hubs/chat/")
    };
    let request = record["request"].as_str().expect("a request line");
    let mut text = here(request);
    for header in record["headers"].as_array().expect("headers") {
        let header = here(header.as_str().expect("a header"));
        let claims = header
            .strip_prefix("Authorization: Bearer <HS256 ")
            .and_then(|rest| rest.strip_suffix('>'));
        let header = match claims {
            Some(claims) => {
                let mut claims: Value = serde_json::from_str(claims).expect("claims");
                claims["nbf"] = json!(now());
                claims["iat"] = json!(now());
                claims["exp"] = json!(now() + 300);
                format!("Authorization: Bearer {}", token_with(&claims, ACCESS_KEY))
            }
            None => header,
        };
        text.push_str(&format!("\r\n{header}"));
    }
    text.push_str(&format!("\r\nHost: {address}\r\n\r\n"));
    let mut bytes = text.into_bytes();
    let body = record["body"].as_str().unwrap_or_default();
    bytes.extend(match body.strip_prefix("base64:") {
        Some(coded) => BASE64.decode(coded).expect("base64"),
        None => body.as_bytes().to_vec(),
    });
    bytes
}

/// The status that is documented, but where the recording stub answered for a world that is not this one.
fn expected(record: &Value) -> Option<u64> {
    let name = record["op"].as_str().expect("a name");
    match name {
        // The token is Entra's: only for gateways of Microsoft.
        "GenerateClientToken(TokenCredential)" => Some(401),
        "UserExists V2021_10_01" | "UserExists V2024_01_01" => Some(404),
        // The proxy takes its own prefix away.
        "ReverseProxyEndpoint UserExists" => None,
        // The second page of a stub.
        _ if record["request"]
            .as_str()
            .is_some_and(|line| line.contains("continuationToken=abc")) =>
        {
            None
        }
        _ => record["documented"]["status"].as_u64(),
    }
}

#[tokio::test]
async fn every_operation_of_web_pubsubs_sdk_is_answered_as_documented() {
    let cluster = Plan::nodes(3)
        .balanced()
        .set("hubs.names", "chat")
        .set("hubs.rest_api", "webpubsub")
        .start()
        .await;
    let address = balancer(&cluster);
    let mut ann = connect(&cluster, 0, USER, RELIABLE).await;
    let mut second = connect(&cluster, 1, USER, JSON).await;
    let records: Vec<Value> = WEB_PUBSUB
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let mut answered = 0;
    let mut refused = Vec::new();
    let join = "PUT /api/hubs/demo/groups/tea%2F%C3%BC%3F/connections/CONN?api-version=2024-12-01 HTTP/1.1";
    let claims = "{\"aud\":\"http://HOST:PORT/api/hubs/demo/groups/tea%2F%C3%BC%3F/connections/CONN\"}";
    let joined = json!({ "request": join, "headers": [format!("Authorization: Bearer <HS256 {claims}>"), "Content-Length: 0"] });
    let (head, _) = repeat(address, "PUT", &rewritten(&joined, address, ann.id())).await;
    assert_eq!(head.status, 200);
    for record in &records {
        let Some(expected) = expected(record) else {
            continue;
        };
        let method = record["request"]
            .as_str()
            .unwrap_or_default()
            .split(' ')
            .next()
            .unwrap_or_default();
        let (head, body) = repeat(address, method, &rewritten(record, address, ann.id())).await;
        answered += 1;
        if u64::from(head.status) != expected {
            let body = String::from_utf8_lossy(&body).into_owned();
            refused.push(format!(
                "{}: {} instead of {expected}: {body}",
                record["op"], head.status
            ));
        }
        if method != "HEAD" && head.status >= 400 {
            let body: Value = serde_json::from_slice(&body).expect("an error in JSON");
            assert!(
                body["code"].is_string() && body["message"].is_string() && body["target"].is_string(),
                "{body}"
            );
            let documented = record["documented"]["body"]
                .as_str()
                .and_then(|text| serde_json::from_str::<Value>(text).ok());
            if let Some(documented) = documented.filter(|documented| documented["code"].is_string()) {
                assert_eq!(body["code"], documented["code"], "{}", record["op"]);
            }
        }
    }
    assert_eq!(refused, Vec::<String>::new());
    assert_eq!(answered, 53, "of {} records", records.len());
    let (got, _) = ann.rest().await;
    let data: Vec<_> = got
        .iter()
        .filter(|message| message["type"] == "message")
        .map(|message| message["data"].clone())
        .collect();
    assert_eq!(
        data,
        [
            json!("hällo"),
            json!({ "Hello": "World", "n": 1 }),
            json!("AP8K"),
            json!(42),
            json!("to group"),
            json!("to user"),
            json!([]),
            json!("to conn"),
        ]
    );
    assert_eq!(got.last().expect("an end")["message"], "be polite");
    let (got, _) = second.rest().await;
    assert_eq!(got.last().expect("an end")["message"], "tidy");
}
