//! The program `webhooks`, in small: its proof of connection events under faults, and that its measurements measure.

use std::path::Path;

use hubcast_tests::built;

/// The output of a part of the program, which must succeed.
async fn output(arguments: &[&str]) -> String {
    let mut command = built::without_settings(Path::new(env!("CARGO_BIN_EXE_webhooks")).as_os_str());
    command.env("HUBCAST_BIN", built::gateway()).args(arguments);
    let finished = tokio::task::spawn_blocking(move || command.output());
    let output = finished.await.unwrap().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

#[tokio::test]
async fn each_connection_is_told_once_of_both_while_nodes_die_and_the_application_fails() {
    let text = output(&[
        "events",
        "--clients",
        "60",
        "--away-seconds",
        "2",
        "--failing-percent",
        "15",
    ])
    .await;
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name} in {text}"))
            .trim()
            .to_owned()
    };
    assert_eq!(value("resumed on another node"), "30");
    assert_eq!(value("event ids"), "120");
    assert_eq!(value("told as connected"), "60");
    assert_eq!(value("told as disconnected"), "60");
    assert_ne!(value("events answered with 500"), "0");
}

#[tokio::test]
async fn a_hanging_handler_and_the_price_of_a_call_are_measured() {
    let text = output(&[
        "isolation",
        "--callers",
        "10",
        "--others",
        "2",
        "--seconds",
        "2",
        "--passes",
        "1",
        "--timeout-seconds",
        "1",
    ])
    .await;
    assert!(text.contains("x error: Invocation failed"), "{text}");
    assert!(text.contains("p99 of the other hub"), "{text}");
    let text = output(&[
        "calls",
        "--calls",
        "20",
        "--clients",
        "4",
        "--seconds",
        "1",
        "--passes",
        "1",
    ])
    .await;
    assert!(text.contains("calls/s for each core"), "{text}");
}
