//! The `EventSource` of a real browser, through a balancer, while nodes are killed.

use std::process::Stdio;
use std::time::Duration;

use hubcast_tests::cluster::{Cluster, Plan};
use hubcast_tests::eventually::{eventually, within};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::time::timeout;

use super::{send, send_all, sender, texts};
use crate::clients;

/// The bound on what the browser does in the end.
const BOUND: Duration = Duration::from_secs(120);
/// How often the node that has the browser's stream is killed.
const KILLS: usize = 2;
/// Messages before each of them, and after it.
const PART: usize = 100;

#[tokio::test]
async fn a_browser_misses_nothing_while_nodes_are_killed() {
    let program = match clients::browser_program("events.mjs") {
        Ok(program) => program,
        Err(reason) => return clients::skipped("browser", &reason),
    };
    let mut cluster = Plan::nodes(3).balanced().with_short_leases().start().await;
    let url = format!("http://{}/sse/demo?group=g", cluster.balancer().address());
    let mut browser = tokio::process::Command::new(&program[0])
        .args(&program[1..])
        .arg(url)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the browser starts");
    let mut lines = BufReader::new(browser.stdout.take().expect("it is piped")).lines();
    let line = within("the browser listens", lines.next_line()).await.unwrap();
    assert_eq!(line.as_deref(), Some("open"));

    for from in (0..KILLS).map(|kill| kill * 2 * PART) {
        let node = node_of_browser(&cluster).await;
        let mut other = sender(&cluster, (node + 1) % 3).await;
        send_all(&mut other, "g", from..from + PART).await;
        cluster.nodes[node].kill();
        send_all(&mut other, "g", from + PART..from + 2 * PART).await;
        cluster.nodes[node].restart().await;
    }
    send(&mut sender(&cluster, 0).await, "g", "end").await;
    let line = timeout(BOUND, lines.next_line())
        .await
        .expect("the end arrives")
        .unwrap();
    let line = line.expect("the browser tells what it has received");
    let told: Value = serde_json::from_str(line.strip_prefix("received ").unwrap()).unwrap();
    assert_eq!(told["failed"], false, "{told}");
    assert!(told["lost"].as_u64() >= Some(KILLS as u64), "{told}");
    assert_eq!(
        told["received"],
        Value::from(texts(0..KILLS * 2 * PART)),
        "lost {} times",
        told["lost"]
    );
}

/// The node that has the browser's stream, once one has: no other client has one.
async fn node_of_browser(cluster: &Cluster) -> usize {
    eventually("a node has the browser's stream", async || {
        for (number, node) in cluster.nodes.iter().enumerate() {
            let streams = [("transport", "ServerSentEvents")];
            let metrics = node.metrics().await;
            if metrics.sum_where("hubcast_connections", &streams) > 0.0 {
                return Some(number);
            }
        }
        None
    })
    .await
}
