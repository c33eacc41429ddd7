//! A node that can be frozen: all of its tasks stand still, as in a process that gets no CPU.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use hubcast_backplane::Backplane;
use hubcast_backplane::redis::{RedisBackplane, RedisOptions};

/// A node whose tasks run in a thread of their own, which can be made to wait. Calls of the node may be made from
/// elsewhere.
pub struct Freezer {
    freeze: Option<tokio::sync::mpsc::Sender<Receiver<()>>>,
    thread: Option<JoinHandle<()>>,
}

impl Freezer {
    /// Connects a node that can be frozen.
    pub async fn node(options: RedisOptions) -> (Arc<dyn Backplane>, Self) {
        let (freeze, mut freezes) = tokio::sync::mpsc::channel::<Receiver<()>>(1);
        let (connected, node) = tokio::sync::oneshot::channel();
        let life = async move {
            let node = Arc::new(RedisBackplane::connect(options).await.unwrap());
            assert!(connected.send(node as Arc<dyn Backplane>).is_ok());
            while let Some(thaw) = freezes.recv().await {
                let _ = thaw.recv(); // nothing of this runtime moves
            }
        };
        let thread = std::thread::spawn(|| {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap()
                .block_on(life);
        });
        let freezer = Self {
            freeze: Some(freeze),
            thread: Some(thread),
        };
        (node.await.unwrap(), freezer)
    }

    /// Makes the node stand still until the returned value is dropped.
    pub async fn freeze(&self) -> Sender<()> {
        let (thaw, thawed) = channel();
        self.freeze.as_ref().unwrap().send(thawed).await.unwrap();
        thaw
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        self.freeze = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
