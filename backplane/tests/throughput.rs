#![allow(clippy::panic, clippy::unwrap_used)]
mod support;
use hubcast_backplane::conformance::*;
use hubcast_backplane::*;
use std::sync::Arc;
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn throughput() {
    let server = support::RedisServer::start().await;
    for conc in [1usize, 64, 256] {
        for recv in [false, true] {
            let node: Arc<dyn Backplane> = server.node(&format!("n{conc}{recv}")).await;
            let m = open(&[node], HubOptions::default()).await.remove(0);
            if recv {
                m.connect(None).await;
            }
            let total = if conc == 1 { 5000 } else { 60000 };
            let t = std::time::Instant::now();
            let mut js = tokio::task::JoinSet::new();
            for _ in 0..conc {
                let m = m.clone();
                js.spawn(async move {
                    let e = wire::Envelope {
                        target: "ReceiveMessage".into(),
                        arguments: vec![vec![b'x'; 100].into()],
                        ..Default::default()
                    };
                    for _ in 0..total / conc {
                        m.node.publish(&m.hub, &[Topic::All], &e).await.unwrap();
                    }
                });
            }
            js.join_all().await;
            let s = t.elapsed().as_secs_f64();
            println!("conc {conc} recv {recv}: {:.0}/s", total as f64 / s);
            if recv {
                eventually("all", async || {
                    (m.sink.deliveries().len() >= total / conc * conc).then_some(())
                })
                .await;
                println!(
                    " delivered {:.0}/s gaps {}",
                    total as f64 / t.elapsed().as_secs_f64(),
                    m.sink.gaps()
                );
            }
            m.node.shutdown().await;
        }
    }
}
