//! The sources of the commands' gateway and key, their output for scripts, and their help.

use hubcast_tests::cluster::Plan;
use hubcast_tests::event_source::{EventSource, events};
use hubcast_tests::eventually::eventually;
use hubcast_tests::http::Request;
use hubcast_tests::jwt::ACCESS_KEY;
use serde_json::{Value, json};

use super::{COMMANDS, hubcast, output};

#[tokio::test]
async fn gateway_and_key_come_from_flags_variables_or_a_file() {
    let cluster = Plan::one_node().start().await;
    let address = cluster.nodes[0].address();
    let url = format!("http://{address}");
    let listen = format!("--listen={address}");
    let other = "a key that differs, of at least 32 bytes";
    let check = ["check", "--connection-string", "--json", &listen];
    let string = hubcast(&check, &[("HUBCAST_ACCESS_KEY", other)]).await.json();
    let string = string["connectionString"].as_str().expect("a text").to_owned();
    let string = string.replace(other, ACCESS_KEY);
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
    let key = [("HUBCAST_ACCESS_KEY", ACCESS_KEY)];
    let args = ["token", "--user", "ann", "--lifetime", "1m"];
    let output = output(&[&args[..], &["--json"]].concat(), &key).await;
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

/// The hub and the roles of a token that the command line signed decide, on every node.
#[tokio::test]
async fn nodes_read_the_hub_and_the_roles_of_a_token() {
    let cluster = Plan::one_node().set("auth.allow_anonymous", false).start().await;
    let node = cluster.nodes[0].address();
    let key = [("HUBCAST_ACCESS_KEY", ACCESS_KEY)];
    let sign = async |hub: &'static str| {
        let args = ["token", "--user", "ann", "--hub", hub, "--role", "hubcast.join.a"];
        let args = [&args[..], &["--role", "hubcast.join.b"]].concat();
        let printed = output(&args, &key).await.stdout;
        String::from_utf8(printed).expect("text").trim_end().to_owned()
    };
    let token = sign("demo").await;
    let request = |groups, token: &str| events(groups, "").bearer(Some(token));
    let (head, _source) = EventSource::start(node, &request("group=a&group=b", &token)).await;
    assert_eq!(head.status, 200);
    let (status, text) = EventSource::refusal(node, &request("group=c", &token)).await;
    assert_eq!((status, text.contains("\"c\"")), (403, true), "{text}");
    let foreign = request("group=a", &sign("news").await);
    assert_eq!(EventSource::refusal(node, &foreign).await.0, 401);
}

/// Secrets that were made with `--from-file` or `echo` end in a line feed, files of some editors begin with a mark, and
/// times that would end clients with default settings are reported.
#[tokio::test]
async fn what_operators_overlook_is_borne_or_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("marked.toml");
    std::fs::write(&file, "\u{feff}[hubs.chat]\r\nvolatile = true\r\n").expect("a file");
    let config = ["check", "--json", "--config", file.to_str().expect("a path")];
    let (key, redis) = (format!("{ACCESS_KEY}\r\n"), "redis://127.0.0.1:6379\n");
    let variables = [("HUBCAST_ACCESS_KEY", key.as_str()), ("HUBCAST_REDIS", redis)];
    let checked = hubcast(&config, &variables).await.json();
    assert_eq!(checked["warnings"], json!([]));
    let printed = output(&["check", "--connection-string"], &variables).await;
    let printed = String::from_utf8(printed.stdout).expect("text");
    assert!(printed.contains(&format!("AccessKey={ACCESS_KEY};")), "{printed}");

    let times = [
        "--set=timeouts.keep_alive_seconds=60",
        "--set=timeouts.client_timeout_seconds=10",
    ];
    let args = [&["check", "--json"], &times[..]].concat();
    let checked = hubcast(&args, &variables).await.json();
    let warnings = checked["warnings"].as_array().expect("a list");
    for (warning, names) in warnings.iter().zip([
        ["timeouts.keep_alive_seconds is 60", "at least 120 s"],
        ["timeouts.client_timeout_seconds is 10", "at most 5 s"],
    ]) {
        let text = warning.as_str().expect("a text");
        assert!(names.iter().all(|name| text.contains(name)), "{text}");
    }
    assert_eq!(warnings.len(), 2);
    let mut node = Plan::one_node()
        .set("timeouts.keep_alive_seconds", 60)
        .start()
        .await;
    let log = node.nodes.remove(0).log();
    assert!(
        log.contains("set their server timeout to at least 120 s"),
        "{log}"
    );
}

#[tokio::test]
async fn a_redis_that_deletes_what_is_needed_is_told_everywhere() {
    let mut cluster = Plan::nodes(1)
        .set("backplane.heartbeat_seconds", 0.2)
        .start()
        .await;
    let url = cluster.redis().url();
    let mut redis = cluster.redis().connection().await;
    let check = ["check", "--connect", "--redis", url.as_str()];
    let key = [("HUBCAST_ACCESS_KEY", ACCESS_KEY)];
    let checked = hubcast(&check, &key).await;
    assert!(checked.ok().contains("# Redis can be reached"));
    let nothing = hubcast(&["check", "--connect"], &[]).await;
    assert!(nothing.fails(2).contains("redis is not set"));
    let mut set_policy = async |policy: &str| {
        redis::cmd("CONFIG")
            .arg(&["SET", "maxmemory-policy", policy])
            .exec_async(&mut redis)
            .await
            .expect("the policy is set");
    };
    set_policy("allkeys-lru").await;
    let told = hubcast(&check, &[]).await;
    assert!(told.fails(1).contains("maxmemory-policy allkeys-lru"));
    let readiness = async || cluster.nodes[0].fetch(&Request::get("/readyz")).await;
    eventually("the node warns", async || {
        let ready = readiness().await;
        assert_eq!(ready.status(), 200, "a warning makes no node unready");
        let warning = "warning: the Redis server has maxmemory-policy allkeys-lru";
        ready.text().contains(warning).then_some(())
    })
    .await;
    let metrics = cluster.nodes[0].metrics().await;
    assert!(metrics.sum("hubcast_backplane_warnings") > 0.5);
    set_policy("noeviction").await;
    eventually("the warning ends", async || {
        (readiness().await.text() == "ready\n").then_some(())
    })
    .await;
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
