//! The benchmark itself, in small: that it measures. No test looks at how fast something is.

use std::path::Path;
use std::process::Command;

use hubcast_tests::built;
use serde_json::Value;

/// The results of the benchmark with these arguments, which run for a moment only.
async fn results(arguments: &[&str]) -> Vec<Value> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("results.json");
    let mut command = built::without_settings(Path::new(env!("CARGO_BIN_EXE_bench")).as_os_str());
    command
        .env("HUBCAST_BIN", built::gateway())
        .args([
            "--profile",
            "dev",
            "--passes",
            "1",
            "--connections",
            "12",
            "--rate",
            "100",
        ])
        .args([
            "--seconds",
            "0.3",
            "--warmup",
            "0.1",
            "--settle",
            "0",
            "--idle-seconds",
            "0.2",
        ])
        .args(arguments)
        .arg("--json")
        .arg(&file);
    let output = finish(command).await;
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let report: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    report["results"].as_array().unwrap().clone()
}

async fn finish(mut command: Command) -> std::process::Output {
    let finished = tokio::task::spawn_blocking(move || command.output());
    finished.await.unwrap().unwrap()
}

fn median(row: &Value, figure: &str) -> f64 {
    let median = row["figures"][figure]["median"].as_f64();
    median.unwrap_or_else(|| panic!("no {figure} in {row}"))
}

/// Every kind of client, publisher and backplane.
const SUBJECTS: [&str; 14] = [
    "batch",
    "direct",
    "hubcast",
    "in-process",
    "library",
    "memory",
    "memory-volatile",
    "messagepack",
    "publish",
    "rest",
    "sse",
    "stateful",
    "volatile",
    "websocket",
];

#[tokio::test]
async fn the_benchmark_measures_every_subject_and_loses_nothing() {
    let rows = results(&["--only", "W2", "--subjects", &SUBJECTS.join(",")]).await;
    let mut measured: Vec<_> = rows.iter().map(|row| row["subject"].as_str().unwrap()).collect();
    measured.sort_unstable();
    assert_eq!(measured, SUBJECTS);
    for row in &rows {
        for fault in ["lost", "doubled", "reordered"] {
            assert_eq!(median(row, fault), 0.0, "{row}");
        }
        assert!(median(row, "deliveries_per_second") > 0.0, "{row}");
        assert!(median(row, "latency_p50_ms") > 0.0, "{row}");
        let subject = row["subject"].as_str().unwrap();
        if subject != "publish" {
            assert!(median(row, "delivery_cpu_micros") > 0.0, "{row}");
            let ratio = row["figures"]["delivery_cpu_micros"]["ratio"].as_f64();
            assert_eq!(ratio.is_none(), subject == "direct", "{row}");
        }
        if !subject.starts_with("memory") {
            assert!(median(row, "redis_cpu_micros") > 0.0, "{row}");
        }
    }
}

#[tokio::test]
async fn the_benchmark_measures_every_kind_of_run() {
    let rows = results(&["--only", "w1s,W3,W4", "--subjects", "direct,hubcast,negotiate"]).await;
    assert_eq!(rows.len(), 9, "{rows:?}");
    for row in &rows {
        let figures: &[&str] = match row["run"].as_str().unwrap() {
            "W1s" => &["delivery_cpu_micros", "deliveries_per_second"],
            "W3" => &["node_pss_mib"],
            "W4" => &["connect_cpu_micros", "connects_per_second"],
            other => panic!("the run {other} was not asked for"),
        };
        for figure in figures {
            assert!(median(row, figure) > 0.0, "{figure} in {row}");
        }
        for fault in ["lost", "failed"] {
            if row["figures"].get(fault).is_some() {
                assert_eq!(median(row, fault), 0.0, "{row}");
            }
        }
    }
}

#[tokio::test]
async fn a_measurement_that_fails_is_said_and_ends_with_an_error() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bench"));
    command.env("HUBCAST_BIN", "/bin/false").args([
        "--profile",
        "dev",
        "--passes",
        "1",
        "--only",
        "W5",
        "--subjects",
        "memory",
    ]);
    let output = finish(command).await;
    assert!(!output.status.success());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("W5, memory"), "{errors}");
}

#[tokio::test]
async fn receivers_that_stall_do_not_count_and_nothing_is_lost_for_others() {
    let arguments = "--only W1 --subjects hubcast,sse,direct --stalled 3 --payload 16000";
    let rows = results(&arguments.split(' ').collect::<Vec<_>>()).await;
    for row in rows {
        let subject = row["subject"].as_str().unwrap();
        assert_eq!(median(&row, "lost"), 0.0, "{row}");
        let deliveries = median(&row, "deliveries_per_second");
        assert!(
            deliveries > 0.0 && median(&row, "loaded_pss_mib") > 0.0,
            "{subject}: {row}"
        );
    }
}

#[tokio::test]
async fn a_soak_prints_a_row_for_each_interval_and_one_after_everybody_has_left() {
    let mut command = built::without_settings(Path::new(env!("CARGO_BIN_EXE_bench")).as_os_str());
    command
        .env("HUBCAST_BIN", built::gateway())
        .args("soak --profile dev --rows 2 --interval-seconds 1 --rest-seconds 0".split(' '))
        .args("--connections 40 --replaced 15 --rate 50".split(' '));
    let output = finish(command).await;
    let (printed, error) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{printed}{error}");
    let rows: Vec<Vec<_>> = printed
        .lines()
        .map(|line| line.split('|').map(str::trim).collect())
        .collect();
    let names: Vec<_> = rows.iter().filter_map(|row| row.get(1..3)).collect();
    assert_eq!(
        names[2..],
        [["0", "0"], ["1", "40"], ["2", "40"], ["all left", "0"]]
    );
    assert!(
        printed.ends_with("\n0 messages lost, doubled or out of order\n"),
        "{printed}"
    );
}
