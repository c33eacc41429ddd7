//! Commands that were carried out, and whose answers nobody got.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use hubcast_backplane::conformance::sessions::of_connection;
use hubcast_backplane::conformance::{Member, Witness, eventually, open, owner};
use hubcast_backplane::redis::{RedisBackplane, RedisOptions};
use hubcast_backplane::{Backplane, HubOptions, NodeId, TakeOver};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::many;
use crate::support::RedisServer;

/// A proxy that passes the next command with certain bytes on, and cuts the connection instead of giving its answer.
pub(crate) struct Cutter {
    port: u16,
    cut: Arc<Mutex<Option<String>>>,
}

impl Cutter {
    pub(crate) async fn before(server: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let cut: Arc<Mutex<Option<String>>> = Arc::default();
        let wanted = Arc::clone(&cut);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let upstream = TcpStream::connect((Ipv4Addr::LOCALHOST, server)).await.unwrap();
                tokio::spawn(pass(client, upstream, Arc::clone(&wanted)));
            }
        });
        Self { port, cut }
    }

    /// What the next answer that is lost is the answer to.
    pub(crate) fn lose(&self, bytes: &str) {
        *self.cut.lock() = Some(bytes.to_owned());
    }

    pub(crate) fn has_lost(&self) -> bool {
        self.cut.lock().is_none()
    }

    pub(crate) async fn node(&self, name: &str) -> Arc<dyn Backplane> {
        let mut options = RedisOptions::parse(&format!("redis://127.0.0.1:{}", self.port)).unwrap();
        options.node = NodeId::parse(name).unwrap();
        options.heartbeat_interval = Duration::from_millis(100);
        Arc::new(RedisBackplane::connect(options).await.unwrap())
    }
}

async fn pass(mut client: TcpStream, mut upstream: TcpStream, cut: Arc<Mutex<Option<String>>>) {
    let (mut commands, mut answers) = (vec![0; 65_536], vec![0; 65_536]);
    loop {
        let mut lost = false;
        tokio::select! {
            Ok(read @ 1..) = client.read(&mut commands) => {
                lost = cut.lock().take_if(|bytes| {
                    commands[..read].windows(bytes.len()).any(|found| found == bytes.as_bytes())
                }).is_some();
                if upstream.write_all(&commands[..read]).await.is_err() { return }
            }
            Ok(read @ 1..) = upstream.read(&mut answers) => {
                if client.write_all(&answers[..read]).await.is_err() { return }
            }
            else => return,
        }
        if lost {
            let _ = upstream.read(&mut answers).await; // it was carried out
            return;
        }
    }
}

pub(crate) async fn two_nodes(server: &RedisServer, options: HubOptions) -> (Cutter, Vec<Member>) {
    let cutter = Cutter::before(server.port()).await;
    let nodes = [
        cutter.node("cut").await,
        server.node("other").await as Arc<dyn Backplane>,
    ];
    (cutter, open(&nodes, options).await)
}

/// Who gives a connection up is told that it did.
#[tokio::test]
async fn a_connection_is_given_up_without_an_answer() {
    let server = RedisServer::start().await;
    let (cutter, members) = two_nodes(&server, many()).await;
    let (connection, entered) = members[0].connect_resumable(None).await;
    let (home, id) = (&members[0], &connection.id);
    cutter.lose(":parked");
    assert!(
        home.node
            .park(&home.hub, id, entered.version, None)
            .await
            .unwrap()
    );
    assert!(cutter.has_lost());
    assert_eq!(owner(&members[1], id).await, None);
    assert!(
        !home
            .node
            .park(&home.hub, id, entered.version, None)
            .await
            .unwrap()
    );
    let taken = members[1].take_over(id).await;
    members[0].publish(of_connection(id), "end").await;
    assert_eq!(members[1].whole_until(&taken, "end").await.len(), 1);
}

/// A take-over whose answer is lost is asked for again, and told as it was carried out the first time.
#[tokio::test]
async fn a_connection_is_taken_over_without_an_answer() {
    let server = RedisServer::start().await;
    let (cutter, members) = two_nodes(&server, many()).await;
    let (connection, entered) = members[1].connect_resumable(None).await;
    let id = &connection.id;
    members[1].join(id, "g").await;
    cutter.lose(":calls:");
    let taken = members[0].take_over_of(id, entered.version).await;
    let TakeOver::Taken(taken) = taken else {
        panic!("{taken:?}")
    };
    assert!(cutter.has_lost());
    assert_eq!(
        owner(&members[1], id).await.as_ref(),
        Some(members[0].node.node())
    );
    members[1].publish(of_connection(id), "end").await;
    members[0].whole_until(&taken, "end").await;
    let taken = members[1].take_over(id).await;
    members[1].publish(of_connection(id), "end").await;
    members[1].whole_until(&taken, "end").await;
}

/// A removal by the window's end that has to be asked for again still tells whose connection it was.
#[tokio::test]
async fn an_orphan_is_told_in_full_without_an_answer() {
    let server = RedisServer::start().await;
    let options = HubOptions {
        resume_window: Duration::from_millis(50),
        ..many()
    };
    let (cutter, members) = two_nodes(&server, options).await;
    let (connection, _) = members[0].connect_resumable(Some("me")).await;
    cutter.lose(":closed:");
    let witness = Witness::of(members[0].node.as_ref());
    assert!(members[0].park(&connection.id).await);
    eventually("it is removed", async || {
        (!witness.orphans().is_empty()).then_some(())
    })
    .await;
    assert!(cutter.has_lost());
    assert_eq!(witness.orphans(), [connection]);
}
