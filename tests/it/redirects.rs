//! An application's own negotiate endpoint sends clients on to the gateway, as with Azure SignalR Service.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use hubcast_tests::cluster::{Cluster, Plan};
use hubcast_tests::eventually::eventually;
use hubcast_tests::http::{Request, fetch};
use hubcast_tests::hub_client::{HubClient, Transport};
use hubcast_tests::js::{Connect, Js};
use hubcast_tests::jwt::{ACCESS_KEY, now};
use hubcast_tests::ports::free_port;
use hubcast_tests::process::Process;
use serde_json::{Value, json};

/// The application in Node.
struct Application {
    process: Process,
    address: SocketAddr,
    _directory: tempfile::TempDir,
}

impl Application {
    async fn start(cluster: &Cluster, lifetime: i64) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let directory = tempfile::tempdir().unwrap();
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/js/application.mjs");
        let mut command = Command::new("node");
        command
            .arg(program)
            .env("PORT", address.port().to_string())
            .env(
                "HUBCAST_ENDPOINT",
                format!("http://{}", cluster.balancer().address()),
            )
            .env("HUBCAST_ACCESS_KEY", ACCESS_KEY)
            .env("LIFETIME", lifetime.to_string());
        let process = Process::start("application", &mut command, directory.path());
        eventually("the application listens", async || {
            tokio::net::TcpStream::connect(address).await.ok()
        })
        .await;
        Self {
            process,
            address,
            _directory: directory,
        }
    }

    fn url(&self) -> String {
        format!("http://{}/chat", self.address)
    }

    /// The negotiations of a user.
    fn negotiations(&self, user: &str) -> usize {
        let line = format!("/chat/negotiate {user}\n");
        self.process.output().matches(&line).count()
    }

    async fn post(&self, path: &str, user: &str, connection: &str) -> (u16, Value) {
        let request = Request::post(path, "")
            .bearer(Some(&format!("app-{user}")))
            .header("x-signalr-connection-token", connection);
        let answer = fetch(self.address, &request).await;
        (answer.status(), answer.json())
    }
}

fn plan() -> Plan {
    Plan::nodes(3)
        .balanced()
        .set("hubs.names", "chat")
        .set("auth.allow_anonymous", false)
        .set("auth.leeway_seconds", 0)
}

const TRANSPORTS: [(&str, &str); 3] = [
    ("WebSockets", "ann"),
    ("ServerSentEvents", "bob"),
    ("LongPolling", "eve"),
];

#[tokio::test]
async fn official_clients_are_sent_on_by_the_application_and_again_after_their_node_was_killed() {
    let mut cluster = plan().start().await;
    let application = Application::start(&cluster, 3_600).await;
    let js = Js::start().await;
    let refused = js.try_connect(Connect::to(&application.url())).await;
    assert!(refused.is_err(), "the application knows its users");
    for (transport, user) in TRANSPORTS {
        let connect = Connect::to(&application.url())
            .transport(transport)
            .token(&format!("app-{user}"));
        let client = js.connect(connect.reconnecting().listening(&["Said"])).await;
        assert_eq!(application.negotiations(user), 1);
        client.call("JoinGroup", json!(["tea"])).await;
        client.call("SendToGroup", json!(["tea", "Said", 1])).await;
        client.receives("Said", json!([1])).await;

        let before = client.id().await;
        let owner = eventually("its node", async || {
            for (index, node) in cluster.nodes.iter().enumerate() {
                if node.metrics().await.sum("hubcast_connections") > 0.0 {
                    return Some(index);
                }
            }
            None
        })
        .await;
        cluster.nodes[owner].kill();
        client.has_events("reconnected", 1).await;
        assert_ne!(client.id().await, before, "another connection");
        assert_eq!(
            application.negotiations(user),
            2,
            "the application was asked again"
        );
        client.call("JoinGroup", json!(["tea"])).await;
        client.call("SendToGroup", json!(["tea", "Said", 2])).await;
        client.receives("Said", json!([2])).await;
        client.stop().await;
        cluster.nodes[owner].restart().await;
        cluster.has_connections(0).await;
    }
    cluster.logs_are_clean();
}

#[tokio::test]
async fn a_client_whose_token_of_the_redirect_ends_gets_another_one_from_the_application() {
    let cluster = plan().set("auth.close_on_expiry", true).start().await;
    let application = Application::start(&cluster, 4).await;
    let js = Js::start().await;
    let mut clients = Vec::new();
    for (transport, user) in TRANSPORTS {
        let connect = Connect::to(&application.url())
            .transport(transport)
            .token(&format!("app-{user}"));
        clients.push((user, js.connect(connect.reconnecting()).await));
    }
    for (user, client) in &clients {
        client.has_events("reconnected", 1).await;
        assert!(application.negotiations(user) >= 2);
    }
    cluster.logs_are_clean();
}

#[tokio::test]
async fn a_connection_outlives_its_token_of_the_redirect_when_the_application_refreshes_it() {
    let cluster = plan().set("auth.close_on_expiry", true).start().await;
    let application = Application::start(&cluster, 5).await;
    for transport in Transport::ALL {
        let ends = now() + 5;
        let (status, sent_on) = application.post("/chat/negotiate", "ann", "").await;
        assert_eq!(status, 200);
        let first = sent_on["accessToken"].as_str().unwrap().to_owned();
        cluster.secrets.add(&first);
        let entry = Arc::new(cluster.entry().at("/hubs/chat").with_bearer(&first));
        let mut client = HubClient::connect(&entry, transport).await;
        assert_eq!(
            application
                .post("/chat/refresh", "mallory", client.token())
                .await
                .0,
            403
        );
        let (status, refreshed) = application.post("/chat/refresh", "ann", client.token()).await;
        assert_eq!(
            (status, &refreshed["tokenLifetimeSeconds"]),
            (200, &json!(600)),
            "{refreshed}"
        );
        let second = refreshed["accessToken"].as_str().unwrap().to_owned();
        cluster.secrets.add(&second);
        eventually("the first token has ended", async || {
            (now() > ends + 1).then_some(())
        })
        .await;
        // From then on its client shows the newer token.
        let newer = cluster.entry().at("/hubs/chat").with_bearer(&second);
        let call = json!({ "type": 1, "invocationId": "1", "target": "JoinGroup", "arguments": ["tea"] });
        let completed = if transport == Transport::WebSockets {
            client.say(&call).await;
            client.next().await.unwrap().to_string()
        } else {
            let posted = newer.post(client.token(), format!("{call}\u{1e}")).await;
            assert_eq!(posted.status(), 200);
            match transport {
                Transport::LongPolling => newer.poll(client.token()).await.text().to_owned(),
                _ => client.next().await.unwrap().to_string(),
            }
        };
        assert!(completed.contains("\"type\":3"), "{completed}");
        assert!(!completed.contains("error"), "{completed}");
    }
    cluster.logs_are_clean();
}
