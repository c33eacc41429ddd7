//! Azure's SDKs for servers, unchanged, each with every operation that it has, against three nodes behind plain round
//! robin. The programs are in `tests/clients/service`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use hubcast_tests::cluster::{Cluster, Plan};
use hubcast_tests::jwt::{ACCESS_KEY, now, token_with};
use hubcast_tests::webpubsub::{JSON, RELIABLE, WebPubSub};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

use crate::clients::{self, Program, say};

/// The bound on each line of a program.
const BOUND: Duration = Duration::from_secs(120);

fn connection_string(address: SocketAddr) -> String {
    format!("Endpoint=http://{address};AccessKey={ACCESS_KEY};Version=1.0;")
}

pub(super) fn balancer(cluster: &Cluster) -> SocketAddr {
    cluster.balancer().address()
}

pub(super) async fn connect(cluster: &Cluster, node: usize, user: &str, protocol: &str) -> WebPubSub {
    let token = token_with(&json!({ "sub": user, "exp": now() + 3_600 }), ACCESS_KEY);
    cluster.secrets.add(&token);
    let target = format!("/client/hubs/chat?access_token={token}");
    WebPubSub::connect(cluster.nodes[node].address(), &target, protocol).await
}

/// Data of all messages until the end, and the reason of the end.
async fn everything(client: &mut WebPubSub) -> (Vec<Value>, Value) {
    let (rest, _) = client.rest().await;
    let of = |kind: &str| {
        rest.iter()
            .filter(move |message| message["type"] == kind)
            .cloned()
            .collect::<Vec<_>>()
    };
    let data = of("message")
        .into_iter()
        .map(|message| message["data"].clone())
        .collect();
    let ends = of("system").pop().unwrap_or_default();
    (data, ends["message"].clone())
}

/// Runs a program against a cluster, and checks what the clients get.
async fn check(
    name: &str,
    program: Program,
    arguments: fn(&str, &str, &str) -> Vec<String>,
    members_of_x: bool,
) {
    let program = match program {
        Ok(program) => program,
        Err(reason) => return clients::skipped(name, &reason),
    };
    let mut cluster = Plan::nodes(3)
        .balanced()
        .set("hubs.names", "chat")
        .set("hubs.rest_api", "webpubsub")
        .start()
        .await;
    let mut ann = connect(&cluster, 0, "ann", JSON).await;
    let mut bob = connect(&cluster, 1, "bob", RELIABLE).await;
    let mut command = Command::new(&program[0]);
    command
        .args(&program[1..])
        .args(arguments(
            &connection_string(balancer(&cluster)),
            ann.id(),
            bob.id(),
        ))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut running = command.spawn().expect("the program can be started");
    let output = running.stdout.take().expect("standard output is piped");
    let mut lines = BufReader::new(output).lines();
    let (mut steps, mut fresh) = (0, None);
    loop {
        let line = timeout(BOUND, lines.next_line())
            .await
            .expect("it goes on")
            .expect("it can be read");
        let Some(line) = line else {
            let rest = running.wait_with_output().await.expect("it ends");
            panic!("{name} ended: {}", String::from_utf8_lossy(&rest.stderr));
        };
        let Ok(line) = serde_json::from_str::<Value>(&line) else {
            continue;
        };
        assert!(
            line.get("error").is_none(),
            "{name}, {}: {}",
            line["step"],
            line["error"].as_str().unwrap_or_default()
        );
        if let Some(url) = line["url"].as_str() {
            fresh = Some(opened(&cluster, url).await);
        } else if line["done"] == true {
            break;
        } else {
            steps += 1;
        }
    }
    say(&format!("{name}: {steps} operations"));
    assert!(steps >= 35, "{name} did {steps}");
    let common = [json!("text ü"), json!({ "a": [1, 2.5] }), json!("AP8K")];
    let mut expected = common.to_vec();
    expected.extend(["only ann", "soon", "to group"].map(Value::from));
    expected.extend([json!([]), json!("to ann")]);
    if members_of_x {
        expected.push(json!("members of x"));
    }
    assert_eq!(everything(&mut ann).await, (expected, json!("bye ann")), "{name}");
    let mut expected = common.to_vec();
    expected.extend(["not ann", "soon", "bob of group", "to bob"].map(Value::from));
    assert_eq!(everything(&mut bob).await, (expected, json!("bye bob")), "{name}");
    let mut fresh = fresh.expect("it made a token");
    assert_eq!(
        everything(&mut fresh).await,
        (vec![json!("t")], json!("bye")),
        "{name}"
    );
    cluster.has_connections(0).await;
    cluster.logs_are_clean();
}

/// A client with a URL that an SDK made, which may do what the SDK said.
async fn opened(cluster: &Cluster, url: &str) -> WebPubSub {
    let path = url.find("/client/").expect("a URL of a client");
    if let Some((_, token)) = url.split_once("access_token=") {
        cluster.secrets.add(token);
    }
    let mut client = WebPubSub::connect(balancer(cluster), &url[path..], JSON).await;
    assert_eq!(client.connected["userId"], "new");
    let request = json!({ "type": "sendToGroup", "group": "t", "dataType": "text", "data": "t", "ackId": 1 });
    client.say(&request).await;
    assert_eq!(client.ack(1).await["success"], true);
    client
}

fn as_json(connection: &str, ann: &str, bob: &str) -> Vec<String> {
    let config = json!({ "connectionString": connection, "hub": "chat", "ann": ann, "bob": bob });
    vec![config.to_string()]
}

fn as_words(connection: &str, ann: &str, bob: &str) -> Vec<String> {
    [connection, "chat", ann, bob].map(str::to_owned).into()
}

#[tokio::test]
async fn javascript() {
    let program = clients::has("node", "--version").map(|()| {
        vec![
            "node".into(),
            clients::node_project("service").join("webpubsub.mjs"),
        ]
    });
    check("@azure/web-pubsub", program, as_json, true).await;
}

#[tokio::test]
async fn python() {
    let folder: PathBuf = clients::source("service");
    let program = clients::prepare_python("service-python", &folder.join("requirements.txt"))
        .map(|interpreter| vec![interpreter, "-B".into(), folder.join("webpubsub.py")]);
    check("azure-messaging-webpubsubservice", program, as_json, false).await;
}

#[tokio::test]
async fn java() {
    let program = clients::java_program("service/java", "service-java", "hubcast.tests.Service");
    check("com.azure:azure-messaging-webpubsub", program, as_words, true).await;
}
