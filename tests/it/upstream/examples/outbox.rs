//! The example of an outbox in Redis, whose publisher is killed at any time.

use hubcast_tests::eventually::{eventually, eventually_equals};
use hubcast_tests::redis::Redis;

use super::*;

/// An entry of the outbox.
fn paid(number: u64) -> String {
    json!({ "to": { "user": "ann" }, "target": "Paid", "arguments": [number] }).to_string()
}

/// Takes the entries before this one, each of them the one behind the last.
async fn take_all(ann: &mut HubClient, taken: &mut u64, end: u64) {
    while *taken < end {
        let arguments = ann.expect("Paid").await;
        assert_eq!(arguments, json!([*taken]), "none is lost or doubled");
        *taken += 1;
    }
}

async fn empty(outbox: &Redis) {
    eventually_equals("what is left in the outbox", &0, async || {
        outbox
            .command::<u64>(&["XLEN", "outbox"])
            .await
            .expect("it answers")
    })
    .await;
}

#[tokio::test]
async fn an_outbox_that_is_killed_at_any_time_neither_loses_nor_doubles_an_entry() {
    let folder = example("outbox");
    let interpreter = match prepare_python("outbox", &folder.join("requirements.txt")) {
        Ok(interpreter) => interpreter,
        Err(reason) => return say(&format!("the outbox skipped: {reason}")),
    };
    let outbox = Redis::start_durable().await;
    let nobody = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let cluster = plan("outbox", nobody).balanced().start().await;
    let gateway = format!("http://{}", cluster.balancer().address());
    let directory = tempfile::tempdir().expect("a temporary directory");
    let start = || {
        let mut command = Command::new(&interpreter);
        command
            .args(["-B", "-u", "publish.py"])
            .current_dir(&folder)
            .env("OUTBOX_REDIS", outbox.url())
            .env("HUBCAST_ENDPOINT", &gateway)
            .env("HUBCAST_ACCESS_KEY", format!("{ACCESS_KEY},another-key"));
        Process::start("outbox", &mut command, directory.path())
    };
    let add = async |message: String| outbox.does(&["XADD", "outbox", "*", "message", &message]).await;
    let mut ann = signalr(&cluster.nodes[0], "ann").await;

    let (mut added, mut taken) = (0, 0);
    for kill in 0..10 {
        for _ in 0..30 {
            add(paid(added)).await;
            added += 1;
        }
        if kill == 5 {
            add(json!({ "to": "everybody", "target": "Paid", "arguments": [] }).to_string()).await;
        }
        let mut publisher = start();
        // Another place of the work each time.
        let place = taken + 1 + kill * 7 % 23;
        take_all(&mut ann, &mut taken, place).await;
        if kill % 3 == 1 {
            // The worst moment: the message is sent, and its entry not yet acknowledged.
            take_all(&mut ann, &mut taken, added).await;
            empty(&outbox).await;
            outbox.does(&["ACL", "SETUSER", "default", "-xack"]).await;
            add(paid(added)).await;
            added += 1;
            take_all(&mut ann, &mut taken, added).await;
            let refusals = || publisher.output().matches("permission").count();
            let before = refusals();
            eventually("acknowledgements are refused", async || {
                (refusals() > before).then_some(())
            })
            .await;
        }
        publisher.kill();
        outbox.does(&["ACL", "SETUSER", "default", "+xack"]).await;
    }
    let publisher = start();
    take_all(&mut ann, &mut taken, added).await;
    empty(&outbox).await;
    assert!(
        cluster.balancer().requests_with(":batch").len() as u64 > added + 1,
        "entries have been sent again"
    );
    let refused: String = outbox
        .command(&[
            "EVAL",
            "return cjson.encode(redis.call('XRANGE', 'outbox:refused', '-', '+'))",
            "0",
        ])
        .await
        .expect("it answers");
    assert!(
        refused.contains("everybody") && refused.contains("400"),
        "{refused}"
    );
    assert_eq!(publisher.output().matches("is refused").count(), 1);
    add(json!({ "to": { "connection": ann.id() }, "target": "Last", "arguments": [] }).to_string()).await;
    let next = ann.next().await.expect("it is connected");
    assert_eq!(next["target"], "Last", "nothing came twice: {next}");
}
