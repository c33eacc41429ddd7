//! The errors of commands that are refused, or can't be understood.

use std::net::SocketAddr;

use hubcast_tests::cluster::Plan;
use hubcast_tests::jwt::ACCESS_KEY;
use hubcast_tests::ports::free_port;

use super::{COMMANDS, hubcast, on};

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
                    ["status 400: Error.Hub.NotExisted: ", "check --hub"],
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
