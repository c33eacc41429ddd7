//! The effect of each command, on a node that owns only some of the connections.

use std::sync::Arc;

use hubcast_tests::cluster::{Cluster, Plan};
use hubcast_tests::hub_client::{HubClient, Transport};
use hubcast_tests::jwt::token_for;
use serde_json::{Value, json};

use super::{Done, on};

/// Users `ann` and `bob`, on the first and on the last node, and commands for the last.
struct World {
    cluster: Cluster,
    ann: HubClient,
    bob: HubClient,
}

impl World {
    async fn start(plan: Plan) -> Self {
        let mut cluster = plan.start().await;
        let last = cluster.nodes.len() - 1;
        let connect = async |node: usize, user: &str| {
            let entry = Arc::new(cluster.entry_on(node).with_bearer(&token_for(user)));
            HubClient::connect(&entry, Transport::WebSockets).await
        };
        let (ann, bob) = (connect(0, "ann").await, connect(last, "bob").await);
        cluster.has_connections(2).await;
        Self { cluster, ann, bob }
    }

    async fn run(&self, args: &[&str]) -> Done {
        let last = self.cluster.nodes.last().expect("there is a node");
        on(last.address(), args).await
    }

    async fn ends(mut self) {
        drop((self.ann, self.bob));
        self.cluster.is_tidy().await;
    }
}

/// The targets of what a client receives before the end mark.
async fn until_end(client: &mut HubClient) -> Vec<String> {
    let mut targets = Vec::new();
    loop {
        let message = client.next().await.expect("the connection lives");
        match message["target"].as_str() {
            Some("End") => return targets,
            target => targets.extend(target.map(str::to_owned)),
        }
    }
}

async fn messages_are_sent(plan: Plan) {
    let mut world = World::start(plan).await;
    let (ann, bob) = (world.ann.id().to_owned(), world.bob.id().to_owned());
    world
        .run(&["groups", "--group", "g/1", "--add", "--connection", &ann])
        .await
        .ok();

    let said = world
        .run(&["send", "Say", "\"all\"", "-1.50", "{\"a\":[null,true]}"])
        .await;
    assert_eq!(said.ok(), "sent Say to all of hub demo");
    for client in [&mut world.ann, &mut world.bob] {
        assert_eq!(
            client.expect("Say").await,
            json!(["all", -1.5, { "a": [null, true] }])
        );
    }
    for (flag, name) in [("--group", "g/1"), ("--user", "ann"), ("--connection", &ann)] {
        let said = world
            .run(&["send", "Say", "1", flag, name, "--json"])
            .await
            .json();
        let kind = flag.trim_start_matches('-');
        assert_eq!(said["to"], json!({ kind: name }));
        assert_eq!((&said["hub"], &said["sent"]), (&json!("demo"), &json!(true)));
        assert_eq!(world.ann.expect("Say").await, json!([1]), "{flag}");
    }
    let said = world
        .run(&["send", "Say", "--except", &ann, "--json"])
        .await
        .json();
    assert_eq!((&said["to"], &said["excluded"]), (&json!("all"), &json!([ann])));
    assert_eq!(
        world.bob.expect("Say").await,
        json!([]),
        "what was for ann did not reach bob"
    );

    let once = [
        "send",
        "Once",
        "1",
        "--connection",
        &bob,
        "--idempotency-key",
        "k",
    ];
    world.run(&once).await.ok();
    assert_eq!(
        world.run(&[&once[..], &["--json"]].concat()).await.json()["idempotencyKey"],
        "k"
    );
    let reused = world
        .run(&[
            "send",
            "Once",
            "2",
            "--connection",
            &bob,
            "--idempotency-key",
            "k",
        ])
        .await;
    assert!(
        reused
            .fails(1)
            .contains("answered with status 422: Error.IdempotencyKey.Reused: ")
    );
    world.run(&["send", "End"]).await.ok();
    assert_eq!(until_end(&mut world.bob).await, ["Once"]);
    world.ann.expect("End").await;
    world.ends().await;
}

#[tokio::test]
async fn messages_reach_whom_they_are_for_on_any_node() {
    messages_are_sent(Plan::nodes(2)).await;
}

#[tokio::test]
async fn messages_reach_whom_they_are_for_on_a_node_in_memory() {
    messages_are_sent(Plan::one_node()).await;
}

async fn connections_are_told(plan: Plan) {
    let mut world = World::start(plan).await;
    let (ann, bob) = (world.ann.id().to_owned(), world.bob.id().to_owned());
    let ids = [ann.as_str(), &bob];
    for id in ids {
        world
            .run(&["groups", "--group", "g", "--add", "--connection", id])
            .await
            .ok();
    }
    let counted = world.run(&["connections", "--json"]).await.json();
    assert_eq!(
        (&counted["connections"], &counted["groups"]),
        (&json!(2), &json!(1))
    );
    let text = world.run(&["connections"]).await;
    assert!(
        text.ok()
            .starts_with("connections  2\nparked       0\ngroups       1\nnode node-0"),
        "{}",
        text.out
    );

    let list = ["connections", "--group", "g", "--limit", "1"];
    let first = world.run(&[&list[..], &["--json"]].concat()).await.json();
    let next = first["next"].as_str().expect("there is another page").to_owned();
    let rest = world
        .run(&[&list[..], &["--after", &next, "--json"]].concat())
        .await
        .json();
    assert_eq!(rest["next"], Value::Null);
    let mut members = [first["connections"][0].clone(), rest["connections"][0].clone()];
    members.sort_by_key(|member| member["userId"].to_string());
    let member = |id: &str, user: &str| json!({ "connectionId": id, "userId": user });
    assert_eq!(members, [member(&ann, "ann"), member(&bob, "bob")]);
    let text = world.run(&list).await;
    assert!(
        text.ok().ends_with(&format!("more: --after {next}")),
        "{}",
        text.out
    );
    assert_eq!(
        world.run(&["connections", "--group", "none"]).await.ok(),
        "no connections"
    );

    for (flag, id, there) in [
        ("--user", "ann", true),
        ("--user", "eve", false),
        ("--connection", &ann, true),
    ] {
        let answer = world.run(&["connections", flag, id, "--json"]).await.json();
        assert_eq!(answer["connected"], there, "{flag} {id}");
    }
    assert_eq!(
        world.run(&["connections", "--user", "eve"]).await.ok(),
        "user eve is not connected"
    );

    let closed = world
        .run(&["connections", "--close", &ann, "--reason", "be polite"])
        .await;
    assert_eq!(closed.ok(), format!("connection {ann} is closed"));
    let close = world.ann.rest().await.pop().expect("a Close message");
    assert_eq!(
        (&close["type"], &close["error"]),
        (&json!(7), &json!("be polite"))
    );
    world.cluster.has_connections(1).await;
    let again = world
        .run(&["connections", "--close", &ann, "--json"])
        .await
        .json();
    assert_eq!(
        (&again["existed"], &again["closed"]),
        (&json!(false), &json!(true))
    );
    world.ends().await;
}

#[tokio::test]
async fn connections_are_counted_listed_and_closed_on_any_node() {
    connections_are_told(Plan::nodes(2)).await;
}

#[tokio::test]
async fn connections_are_counted_listed_and_closed_on_a_node_in_memory() {
    connections_are_told(Plan::one_node()).await;
}

async fn groups_are_changed(plan: Plan) {
    let world = World::start(plan).await;
    let bob = world.bob.id().to_owned();
    let on = async |args: &[&str]| world.run(&[&["groups"], args].concat()).await;
    assert_eq!(on(&[]).await.ok(), "0");
    let group = ["--group", "tea time"];
    let with = |args: &[&'static str]| [&group[..], args].concat();
    assert_eq!(
        on(&with(&["--add", "--user", "ann"])).await.ok(),
        "added user ann to group tea time"
    );
    let timed = on(&with(&["--add", "--user", "ann", "--ttl", "1h", "--json"]))
        .await
        .json();
    assert_eq!(
        (&timed["added"], &timed["ttlSeconds"]),
        (&json!(true), &json!(3600))
    );
    let connection = [&group[..], &["--add", "--connection", &bob, "--json"]].concat();
    assert_eq!(on(&connection).await.json()["connection"], json!(bob));

    assert_eq!(
        on(&["--json"]).await.json(),
        json!({ "hub": "demo", "groups": 1 })
    );
    assert_eq!(on(&with(&["--count"])).await.ok(), "2");
    assert_eq!(on(&with(&["--count", "--json"])).await.json()["connections"], 2);
    assert_eq!(on(&group).await.ok().lines().count(), 2);
    assert_eq!(
        on(&with(&["--json"])).await.json()["connections"]
            .as_array()
            .map(Vec::len),
        Some(2)
    );
    assert_eq!(
        on(&with(&["--user", "ann"])).await.ok(),
        "user ann is in group tea time"
    );
    assert_eq!(
        on(&with(&["--user", "eve", "--json"])).await.json()["member"],
        false
    );

    on(&with(&["--remove", "--user", "ann"])).await.ok();
    let text = on(&["--all-groups", "--remove", "--connection", &bob]).await;
    assert_eq!(text.ok(), format!("removed connection {bob} from all groups"));
    assert_eq!(on(&with(&["--count"])).await.ok(), "0");
    let absent = on(&with(&["--add", "--connection", "nobody"])).await;
    assert!(
        absent
            .fails(1)
            .contains("answered with status 404: Error.Connection.NotExisted: ")
    );
    world.ends().await;
}

#[tokio::test]
async fn groups_are_counted_listed_and_changed_on_any_node() {
    groups_are_changed(Plan::nodes(2)).await;
}

#[tokio::test]
async fn groups_are_counted_listed_and_changed_on_a_node_in_memory() {
    groups_are_changed(Plan::one_node()).await;
}

#[tokio::test]
async fn rebalancing_tells_what_leaves() {
    let world = World::start(Plan::nodes(3)).await;
    let told = world
        .run(&["rebalance", "--settled", "1s", "--json"])
        .await
        .json();
    assert_eq!(
        (&told["hub"], &told["connections"], &told["mean"]),
        (&json!("demo"), &json!(2), &json!(1))
    );
    let nodes = told["nodes"].as_array().expect("a list");
    assert!(
        nodes.len() == 3 && nodes.iter().all(|node| node["leaving"] == 0),
        "{told}"
    );
    let done = world.run(&["rebalance"]).await;
    let text = done.ok();
    assert!(
        text.starts_with("connections  2\nmean         1\nnode ") && text.contains("no node has so many"),
        "{text}"
    );
    world.ends().await;
}
