//! The commands that talk to a running gateway, as scripts and people run them.

use std::net::SocketAddr;
use std::process::Output;
use std::sync::Arc;

use hubcast_tests::built;
use hubcast_tests::cluster::{Cluster, Plan};
use hubcast_tests::hub_client::{HubClient, Transport};
use hubcast_tests::jwt::{ACCESS_KEY, token_for};
use hubcast_tests::ports::free_port;
use serde_json::{Value, json};
use tokio::process::Command;

/// What a command did.
struct Done {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Done {
    fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("it prints text");
        let done = Self {
            code: output.status.code(),
            out: text(&output.stdout),
            err: text(&output.stderr),
        };
        for said in [&done.out, &done.err] {
            assert!(!said.contains(ACCESS_KEY), "the key is printed: {said}");
            assert!(!said.contains("eyJ"), "a token is printed: {said}");
        }
        done
    }

    /// What it printed when all went well.
    fn ok(&self) -> &str {
        assert_eq!((self.code, self.err.as_str()), (Some(0), ""), "{}", self.out);
        self.out.trim_end()
    }

    fn json(&self) -> Value {
        let out = self.ok();
        assert_eq!(out.lines().count(), 1, "{out}");
        serde_json::from_str(out).expect("it prints JSON")
    }

    /// What it said when it was refused, or the command line was wrong.
    fn fails(&self, code: i32) -> &str {
        assert_eq!((self.code, self.out.as_str()), (Some(code), ""), "{}", self.err);
        assert!(!self.err.contains("panicked"), "{}", self.err);
        &self.err
    }
}

async fn hubcast(args: &[&str], variables: &[(&str, &str)]) -> Done {
    let mut command = Command::new(built::gateway());
    for (inherited, _) in std::env::vars().filter(|(name, _)| name.starts_with("HUBCAST_")) {
        command.env_remove(inherited);
    }
    command.args(args).envs(variables.iter().copied());
    Done::of(&command.output().await.expect("hubcast can be started"))
}

/// Runs a command against the demo hub of a node, with the key of the environment.
async fn on(address: SocketAddr, args: &[&str]) -> Done {
    let url = format!("http://{address}");
    let variables = [("HUBCAST_URL", url.as_str()), ("HUBCAST_ACCESS_KEY", ACCESS_KEY)];
    hubcast(&[args, &["--hub", "demo"]].concat(), &variables).await
}

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
            let door = Arc::new(cluster.door_on(node).with_bearer(&token_for(user)));
            HubClient::connect(&door, Transport::WebSockets).await
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
            .starts_with("connections  2\nparked       0\ngroups       1\nnode node-0  "),
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

/// One of each command that talks to a gateway.
const COMMANDS: [&[&str]; 3] = [&["send", "Say", "1"], &["connections"], &["groups"]];

#[tokio::test]
async fn who_is_refused_is_told_what_to_do() {
    let cluster = Plan::one_node().start().await;
    let url = format!("http://{}", cluster.nodes[0].address());
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let wrong = "another access key of at least 32 bytes";
    for command in COMMANDS {
        let run = async |hub: &str, url: &str, key: &str, json: bool| {
            let json: &[&str] = if json { &["--json"] } else { &[] };
            let args = [command, &["--hub", hub, "--url", url], json].concat();
            hubcast(&args, &[("HUBCAST_ACCESS_KEY", key)]).await
        };
        for json in [false, true] {
            for (hub, url, key, parts) in [
                (
                    "demo",
                    &url,
                    wrong,
                    ["status 401: Error.Request.Unauthorized: ", "HUBCAST_ACCESS_KEY"],
                ),
                (
                    "news",
                    &url,
                    ACCESS_KEY,
                    ["status 404: Error.Hub.NotExisted: ", "check --hub"],
                ),
                (
                    "demo",
                    &nobody,
                    ACCESS_KEY,
                    ["can't be reached: ", "--url (HUBCAST_URL)"],
                ),
            ] {
                let done = run(hub, url, key, json).await;
                let said = done.fails(1);
                assert!(
                    said.starts_with("hubcast: ") && said.contains(url.as_str()),
                    "{said}"
                );
                assert!(parts.iter().all(|part| said.contains(part)), "{said}");
                assert!(!said.contains(wrong), "{said}");
            }
        }
        let keyless = hubcast(&[command, &["--hub", "demo"]].concat(), &[]).await;
        assert!(
            keyless.fails(2).contains("set HUBCAST_ACCESS_KEY"),
            "{}",
            keyless.err
        );
        let dots = run("..", &url, ACCESS_KEY, false).await;
        assert!(dots.fails(2).contains("\"..\""), "{}", dots.err);
    }
}

#[tokio::test]
async fn a_wrong_command_line_is_told_before_anything_is_sent() {
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let text = on(address, &["send", "Say", "hello"]).await;
    let said = text.fails(2);
    assert!(
        said.contains("it is not JSON") && said.contains("'\"a text\"'"),
        "{said}"
    );
    for args in [
        &["send", "Say", "[1"][..],
        &["send", "Say", "1 2"],
        &["send"],
        &["send", "Say", "--group", "."],
        &["send", "Say", "--idempotency-key", ""],
        &["groups", "--group", "a", "--add"],
        &["connections", "--reason", "none"],
        &["connections", "--after", "none"],
        &["send", "Say", "--url", "http://me:secret@127.0.0.1"],
        &["send", "Say", "--connection-string", "AccessKey=secret"],
    ] {
        let done = on(address, args).await;
        assert!(!done.fails(2).contains("secret"), "{}", done.err);
    }
}

#[tokio::test]
async fn gateway_and_key_come_from_flags_variables_or_a_file() {
    let cluster = Plan::one_node().start().await;
    let address = cluster.nodes[0].address();
    let url = format!("http://{address}");
    let string = hubcast(
        &[
            "check",
            "--connection-string",
            "--json",
            "--listen",
            &address.to_string(),
        ],
        &[("HUBCAST_ACCESS_KEY", "a key that differs, of at least 32 bytes")],
    );
    let string = string.await.json()["connectionString"]
        .as_str()
        .expect("a text")
        .to_owned();
    let string = string.replace("a key that differs, of at least 32 bytes", ACCESS_KEY);
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = folder.path().join("hubcast.toml");
    std::fs::write(&file, format!("access_key = \"{ACCESS_KEY}\"\n")).expect("it can be written");
    let file = file.to_str().expect("a path in UTF-8");
    let known = "HUBCAST_CONNECTION_STRING";
    for (args, variables) in [
        (&["--connection-string", &string][..], &[][..]),
        (&["--url", &url, "--access-key", ACCESS_KEY], &[]),
        (&["--url", &url, "--config", file], &[]),
        (&["--url", &url], &[("HUBCAST_CONFIG", file)]),
        (
            &[],
            &[(known, string.as_str()), ("HUBCAST_URL", "http://127.0.0.1:1")],
        ),
        (&["--config", file], &[("HUBCAST_URL", &url)]),
    ] {
        let args = [&["connections", "--hub", "demo", "--json"], args].concat();
        assert_eq!(
            hubcast(&args, variables).await.json()["connections"],
            0,
            "{variables:?}"
        );
    }
    // Other commands know these variables, too.
    let variables = [(known, string.as_str()), ("HUBCAST_URL", &url)];
    assert_eq!(
        hubcast(&["check", "--json"], &variables).await.json()["config"]["listen"],
        "127.0.0.1:8080"
    );
}

#[tokio::test]
async fn tokens_and_configurations_are_printed_for_scripts() {
    let mut command = Command::new(built::gateway());
    command.args(["token", "--user", "ann", "--lifetime", "1m", "--json"]);
    let output = command
        .env("HUBCAST_ACCESS_KEY", ACCESS_KEY)
        .output()
        .await
        .expect("it can be started");
    let token: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(
        token["token"].as_str().map(|token| token.split('.').count()),
        Some(3)
    );
    assert!(token["expires"].is_u64());

    let variables = [
        ("HUBCAST_ACCESS_KEY", ACCESS_KEY),
        ("HUBCAST_LIMITS__CONNECTIONS", "7"),
    ];
    let checked = hubcast(&["check", "--json"], &variables).await.json();
    assert_eq!(checked["config"]["limits"]["connections"], 7);
    assert_eq!(checked["config"]["access_key"], "***");
    assert_eq!(
        checked["origins"]["limits.connections"],
        "variable HUBCAST_LIMITS__CONNECTIONS"
    );
    assert_eq!(checked["warnings"], json!([]));
    let nobody = hubcast(&["check", "--json", "--demo=false"], &[]).await.json();
    assert_eq!(nobody["warnings"].as_array().map(Vec::len), Some(1));
    assert!(
        hubcast(&["token", "--user", "ann", "--json"], &[])
            .await
            .fails(2)
            .contains("HUBCAST_ACCESS_KEY")
    );
}

#[tokio::test]
async fn every_help_teaches_by_examples() {
    for command in [
        "serve",
        "check",
        "token",
        "health",
        "send",
        "connections",
        "groups",
    ] {
        let help = hubcast(&[command, "--help"], &[]).await;
        let (_, examples) = help.ok().split_once("Examples:\n").expect("it has examples");
        assert!(
            examples
                .lines()
                .next()
                .is_some_and(|line| line.contains(&format!("hubcast {command}")))
        );
    }
    for command in COMMANDS {
        let help = hubcast(&[command[0], "--help"], &[]).await;
        assert!(help.ok().contains("keep keys in variables") && help.ok().contains("Exits with 0"));
    }
}
