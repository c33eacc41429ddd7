//! Several gateways in this process, with a real redis-server.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use hubcast::backplane::NodeId;
use hubcast::backplane::redis::{RedisBackplane, RedisOptions};
use hubcast::hub::{Disconnected, HubHandle, State};
use hubcast::testing::HubTester;
use hubcast::{Context, Gateway, Hub, HubError, Options};
use hubcast_tests::eventually;
pub(crate) use hubcast_tests::eventually::BOUND;
use hubcast_tests::redis::Redis;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

/// Ends of connections: id, reason, and the node that ran the hub's hook.
pub(crate) type Ends = Mutex<Vec<(String, Disconnected, String)>>;

/// Nodes of one cluster, all of which serve the same hub.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
    ends: Arc<Ends>,
    /// The semaphore that the method `Hold` waits for.
    pub(crate) gate: Arc<Semaphore>,
    _redis: Redis,
}

pub(crate) struct Node {
    pub(crate) tester: HubTester,
    pub(crate) gateway: Gateway,
    address: SocketAddr,
}

impl Cluster {
    pub(crate) async fn start(count: usize) -> Self {
        Self::with(count, Options::default()).await
    }

    pub(crate) async fn with(count: usize, mut options: Options) -> Self {
        options.auth.allow_anonymous = Some(true);
        let redis = Redis::start().await;
        let (ends, gate) = (Arc::new(Ends::default()), Arc::new(Semaphore::new(0)));
        let mut nodes = Vec::new();
        for number in 0..count {
            let mut backplane = RedisOptions::parse(&redis.url()).unwrap();
            backplane.node = NodeId::parse(format!("node-{number}")).unwrap();
            let gateway = Gateway::builder()
                .hub(hub(&ends, &gate))
                .backplane(Arc::new(RedisBackplane::connect(backplane).await.unwrap()))
                .options(options.clone())
                .build()
                .await
                .unwrap();
            let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
                .await
                .unwrap();
            let address = listener.local_addr().unwrap();
            let router = gateway.router();
            tokio::spawn(async move { axum::serve(listener, router).await });
            nodes.push(Node {
                tester: HubTester::of(gateway.clone(), "h").unwrap(),
                gateway,
                address,
            });
        }
        Self {
            nodes,
            ends,
            gate,
            _redis: redis,
        }
    }

    pub(crate) fn hub(&self, node: usize) -> HubHandle {
        self.nodes[node].tester.hub()
    }

    /// The end of a connection, as the hub's hook got it; and the hook must have run once.
    pub(crate) async fn end_of(&self, id: &str) -> (Disconnected, String) {
        let ends = || -> Vec<_> {
            let ends = self.ends.lock();
            ends.iter()
                .filter(|(ended, ..)| ended == id)
                .map(|(_, reason, node)| (reason.clone(), node.clone()))
                .collect()
        };
        eventually("the hub is told of the end", async || !ends().is_empty()).await;
        sleep(Duration::from_millis(100)).await; // should there be another
        let mut ends = ends();
        assert_eq!(ends.len(), 1, "{ends:?}");
        ends.remove(0)
    }
}

fn hub(ends: &Arc<Ends>, gate: &Arc<Semaphore>) -> Hub {
    Hub::new("h")
        .shared_state(Arc::clone(ends))
        .shared_state(Arc::clone(gate))
        .configure(|settings| settings.hubs.parallel_invocations = 4)
        .method("Echo", async |value: Value| value)
        .method("Join", join)
        .method("Groups", groups)
        .method("AbortLater", abort_later)
        .on_disconnected(note_end)
}

async fn join(context: Context, group: String) -> Result<(), HubError> {
    Ok(context.join(group).await?)
}

async fn groups(context: Context) -> Vec<String> {
    let groups = context.groups();
    groups.iter().map(ToString::to_string).collect()
}

async fn abort_later(context: Context, gate: State<Semaphore>) {
    drop(gate.acquire().await);
    context.abort();
}

async fn note_end(context: Context, reason: Disconnected, ends: State<Ends>) {
    let id = context.connection_id().to_string();
    ends.lock().push((id, reason, context.node().to_owned()));
}

pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    eventually::eventually(what, async || holds().await.then_some(())).await;
}

/// A client with stateful reconnect on a real socket.
pub(crate) struct Resumable {
    pub(crate) id: String,
    token: String,
    socket: Option<WebSocketStream<MaybeTlsStream<TcpStream>>>,
}

impl Resumable {
    pub(crate) async fn connect(node: &Node) -> Self {
        let answer = negotiate(node.address).await;
        assert_eq!(answer["useStatefulReconnect"], true, "{answer}");
        let text = |name: &str| answer[name].as_str().unwrap().to_owned();
        let mut client = Self {
            id: text("connectionId"),
            token: text("connectionToken"),
            socket: None,
        };
        client.open(node).await.unwrap();
        client.say(&json!({ "protocol": "json", "version": 2 })).await;
        assert_eq!(client.next().await, Some(json!({})));
        client.say(&json!({ "type": 6 })).await;
        client
    }

    /// Loses its socket, if it has one, and opens another; the error is the status of the refusal.
    pub(crate) async fn open(&mut self, node: &Node) -> Result<(), u16> {
        self.socket = None;
        let url = format!("ws://{}/hubs/h?id={}", node.address, self.token);
        match connect_async(url).await {
            Ok((socket, _)) => {
                self.socket = Some(socket);
                Ok(())
            }
            Err(Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    /// Loses its socket.
    pub(crate) fn lose(&mut self) {
        self.socket = None;
    }

    pub(crate) async fn say(&mut self, message: &Value) {
        let text = format!("{message}\u{1e}");
        let socket = self.socket.as_mut().unwrap();
        socket.send(Message::text(text)).await.unwrap();
    }

    /// Calls a method and waits for its completion.
    pub(crate) async fn call(&mut self, target: &str, arguments: Value) -> Value {
        self.say(&json!({ "type": 1, "invocationId": "i", "target": target, "arguments": arguments }))
            .await;
        loop {
            let message = self.next().await.unwrap();
            if message["type"] == 3 {
                return message["result"].clone();
            }
        }
    }

    /// The next message that is no Ping and no Ack. The tests see to it that one comes in a frame.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        let socket = self.socket.as_mut().unwrap();
        loop {
            let received = timeout(BOUND, socket.next()).await.unwrap();
            let Some(Ok(Message::Text(text))) = received else {
                return None;
            };
            for part in text.split_terminator('\u{1e}') {
                let message: Value = serde_json::from_str(part).unwrap();
                if message["type"] != 6 && message["type"] != 8 {
                    return Some(message);
                }
            }
        }
    }

    /// Waits for the server's Close message.
    pub(crate) async fn closed(&mut self) -> Value {
        loop {
            let message = self.next().await.expect("a Close message");
            if message["type"] == 7 {
                return message;
            }
        }
    }
}

async fn negotiate(address: SocketAddr) -> Value {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = "POST /hubs/h/negotiate?negotiateVersion=1&useStatefulReconnect=true HTTP/1.1\r\n\
                   Host: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    let (from, to) = (response.find('{').unwrap(), response.rfind('}').unwrap());
    serde_json::from_str(&response[from..=to]).unwrap()
}
