//! The `EventSource` of a real browser, through a balancer, while nodes are killed.

use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use hubcast_tests::cluster::Plan;
use hubcast_tests::eventually::within;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::time::{sleep, timeout};

use super::{send, sender, texts};
use crate::clients;

/// The bound on what the browser does in the end.
const BOUND: Duration = Duration::from_secs(120);

#[tokio::test]
async fn a_browser_misses_nothing_while_nodes_are_killed() {
    let program = match clients::browser_program("events.mjs") {
        Ok(program) => program,
        Err(reason) => {
            let _nobody_reads_it = writeln!(std::io::stderr(), "browser skipped: {reason}");
            return;
        }
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

    let mut other = sender(&cluster, 2).await;
    for number in 0..400 {
        send(&mut other, "g", number.to_string()).await;
        sleep(Duration::from_millis(10)).await;
        // One of the two has the browser's stream at first, or has it after the other one was killed.
        match number {
            50 => cluster.nodes[0].kill(),
            150 => cluster.nodes[0].restart().await,
            200 => cluster.nodes[1].kill(),
            _ => {}
        }
    }
    send(&mut other, "g", "end").await;
    let line = timeout(BOUND, lines.next_line())
        .await
        .expect("the end arrives")
        .unwrap();
    let line = line.expect("the browser tells what it has received");
    let told: Value = serde_json::from_str(line.strip_prefix("received ").unwrap()).unwrap();
    assert_eq!(told["failed"], false, "{told}");
    assert_eq!(
        told["received"],
        Value::from(texts(0..400)),
        "lost {} times",
        told["lost"]
    );
}
