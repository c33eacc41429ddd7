//! A proxy between a node and its server, which can lead to another server and lose answers.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use hubcast_backplane::redis::{RedisBackplane, RedisOptions};
use hubcast_backplane::{Backplane, NodeId};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// A proxy before one node's server: a name whose address may change.
pub struct Way {
    port: u16,
    road: Arc<Road>,
}

struct Road {
    server: AtomicU16,
    /// Changed to end all connections.
    cut: watch::Sender<()>,
    loss: Mutex<Option<Loss>>,
}

/// The answer that is lost: its command is carried out, and the connection is cut in place of the answer.
enum Loss {
    /// The answer to the next command that has these bytes.
    To(String),
    /// The answer to the script that is called after so many others.
    After(usize),
}

impl Way {
    pub async fn to(server: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let road = Arc::new(Road {
            server: AtomicU16::new(server),
            cut: watch::Sender::new(()),
            loss: Mutex::default(),
        });
        let leads = Arc::clone(&road);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (road, cut) = (Arc::clone(&leads), leads.cut.subscribe());
                tokio::spawn(async move { road.pass(client, cut).await });
            }
        });
        Self { port, road }
    }

    /// Leads new connections to another server. Open ones go on, each until it ends.
    pub fn lead_new_to(&self, server: u16) {
        self.road.server.store(server, Ordering::Release);
    }

    /// Leads all connections to another server: open ones end.
    pub fn lead_to(&self, server: u16) {
        self.lead_new_to(server);
        self.road.cut.send_replace(());
    }

    /// Loses the answer to the next command that has these bytes.
    pub fn lose(&self, bytes: &str) {
        *self.road.loss.lock() = Some(Loss::To(bytes.to_owned()));
    }

    /// Loses the answer to a script, after so many others that are called.
    pub fn lose_after(&self, calls: usize) {
        *self.road.loss.lock() = Some(Loss::After(calls));
    }

    /// Returns whether the answer was lost.
    pub fn has_lost(&self) -> bool {
        self.road.loss.lock().is_none()
    }

    /// Options whose times suit tests.
    pub fn options(&self, name: &str) -> RedisOptions {
        let mut options = RedisOptions::parse(&format!("redis://127.0.0.1:{}", self.port)).unwrap();
        options.node = NodeId::parse(name).unwrap();
        options.heartbeat_interval = Duration::from_millis(100);
        options
    }

    pub async fn node(&self, name: &str) -> Arc<dyn Backplane> {
        Arc::new(RedisBackplane::connect(self.options(name)).await.unwrap())
    }
}

impl Road {
    async fn pass(&self, mut client: TcpStream, mut cut: watch::Receiver<()>) {
        let server = self.server.load(Ordering::Acquire);
        let Ok(mut upstream) = TcpStream::connect((Ipv4Addr::LOCALHOST, server)).await else {
            return;
        };
        let (mut commands, mut answers) = (vec![0; 65_536], vec![0; 65_536]);
        loop {
            tokio::select! {
                _ = cut.changed() => return,
                Ok(read @ 1..) = client.read(&mut commands) => {
                    let lost = self.loses(&commands[..read]);
                    if upstream.write_all(&commands[..read]).await.is_err() { return }
                    if lost {
                        let _ = upstream.read(&mut answers).await; // it was carried out
                        return;
                    }
                }
                Ok(read @ 1..) = upstream.read(&mut answers) => {
                    if client.write_all(&answers[..read]).await.is_err() { return }
                }
                else => return,
            }
        }
    }

    /// Returns whether the answer to these commands is lost.
    fn loses(&self, commands: &[u8]) -> bool {
        let has = |bytes: &str| {
            commands
                .windows(bytes.len())
                .any(|found| found == bytes.as_bytes())
        };
        let mut loss = self.loss.lock();
        let met = match loss.as_mut() {
            None => false,
            Some(Loss::To(bytes)) => has(bytes),
            Some(Loss::After(calls)) if has("EVALSHA") => match calls.checked_sub(1) {
                Some(left) => {
                    *calls = left;
                    false
                }
                None => true,
            },
            Some(Loss::After(_)) => false,
        };
        met && loss.take().is_some()
    }
}
