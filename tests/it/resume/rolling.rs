//! A rolling restart under the traffic of official clients with stateful reconnect.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use hubcast_tests::cluster::{Cluster, Plan};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

/// The bound on each line of the program, whose own waits are shorter.
const BOUND: Duration = Duration::from_secs(150);

/// A program that runs clients: it says when they talk, goes on until it is stopped, and prints the result.
struct Rolling {
    program: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Rolling {
    async fn start(cluster: &Cluster, clients: u32) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/js/rolling.mjs");
        let mut command = Command::new("node");
        command
            .arg(script)
            .arg(cluster.hub_url())
            .arg(clients.to_string());
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let mut program = command.spawn().expect("node can be started");
        let output = program.stdout.take().expect("standard output is piped");
        let mut rolling = Self {
            program,
            lines: BufReader::new(output).lines(),
        };
        assert_eq!(rolling.line().await, "ready");
        rolling
    }

    async fn line(&mut self) -> String {
        let line = timeout(BOUND, self.lines.next_line())
            .await
            .expect("node goes on");
        line.expect("node's output can be read")
            .expect("node says something")
    }

    async fn stop(mut self) -> Value {
        drop(self.program.stdin.take());
        serde_json::from_str(&self.line().await).expect("a line of JSON")
    }
}

#[tokio::test]
async fn users_of_official_clients_notice_nothing_of_a_rolling_restart() {
    let mut cluster = Plan::nodes(3)
        .balanced()
        .set("hubs.stateful_reconnect", true)
        // The balancer must know before the clients come back.
        .set("drain.notice_seconds", 0.5)
        .start()
        .await;
    let rolling = Rolling::start(&cluster, 12).await;
    for node in 0..3 {
        cluster.nodes[node].terminate();
        assert!(
            cluster.nodes[node].exit().await.success(),
            "node {node} leaves in peace"
        );
        cluster.nodes[node].restart().await;
        cluster.balances_over(&[0, 1, 2]).await;
    }
    let result = rolling.stop().await;
    println!("{result}");
    for wrong in ["duplicated", "reordered", "missing", "wrongEchoes", "closed"] {
        assert_eq!(result[wrong], 0, "{wrong}: {result}");
    }
    for noticed in ["reconnecting", "errors", "excused"] {
        assert_eq!(result[noticed], 0, "{noticed} is what users notice: {result}");
    }
    assert!(
        result["deliveries"].as_u64() > Some(1_000),
        "there was traffic: {result}"
    );
    cluster.logs_are_clean();
}
