//! Fan-out and outbox, by the public way: code of a hub publishes, and clients without sockets receive. The clients' own reading is in
//! the figures; it is the same in each.

use hubcast::testing::{HubTester, TestClient};
use hubcast::{Context, Hub, HubError};
use tokio::runtime::{Builder, Runtime};

use crate::{Operation, Repeat};

pub(crate) const OPERATIONS: [Operation; 4] = [
    // Nobody receives: publishing alone.
    Operation {
        name: "publish",
        elements: 1,
        run: |repeat| messages(0, 1, repeat),
    },
    Operation {
        name: "fan-out-to-1",
        elements: 1,
        run: |repeat| messages(1, 1, repeat),
    },
    Operation {
        name: "fan-out-to-100",
        elements: 100,
        run: |repeat| messages(100, 1, repeat),
    },
    // Messages that wait in one outbox before the client reads.
    Operation {
        name: "outbox-of-64",
        elements: 64,
        run: |repeat| messages(1, 64, repeat),
    },
];

async fn join(context: Context, group: String) -> Result<(), HubError> {
    Ok(context.join(group).await?)
}

/// One run: so many messages to a group of so many members, who then have all of them.
fn messages(members: usize, count: usize, repeat: Repeat<'_>) {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let (tester, mut clients) = runtime.block_on(connected(members));
    let hub = tester.hub();
    let text = "x".repeat(100);
    repeat(&mut || {
        runtime.block_on(async {
            for _ in 0..count {
                let sent = hub
                    .clients()
                    .group("room")
                    .send("GroupMessage", ("room", &text))
                    .await;
                sent.expect("the log takes it");
            }
            for client in &mut clients {
                for _ in 0..count {
                    assert!(client.receive().await.is_some(), "a message is missing");
                }
            }
        });
    });
    leave(&runtime, clients);
}

async fn connected(members: usize) -> (HubTester, Vec<TestClient>) {
    let tester = HubTester::new(Hub::new("bench").method("Join", join))
        .await
        .expect("a hub");
    let mut clients = Vec::new();
    for _ in 0..members {
        let mut client = tester.connect().await;
        client.invoke::<()>("Join", ("room",)).await.expect("it joins");
        clients.push(client);
    }
    (tester, clients)
}

fn leave(runtime: &Runtime, clients: Vec<TestClient>) {
    runtime.block_on(async {
        for client in clients {
            client.close().await;
        }
    });
}
