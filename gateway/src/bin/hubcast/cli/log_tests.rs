use std::{
    io::{Read, Write},
    net::TcpListener,
    sync::Arc,
    thread,
    time::Duration,
};

use parking_lot::Mutex;
use tracing::{debug, dispatcher, info, info_span, subscriber::with_default};

use super::*;

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().clone()).unwrap()
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn log(level: &str, format: LogFormat) -> LogConfig {
    LogConfig {
        level: level.to_owned(),
        format,
    }
}

fn tracing_to(endpoint: String) -> TelemetryConfig {
    TelemetryConfig {
        otlp_endpoint: Some(endpoint),
        ..TelemetryConfig::default()
    }
}

/// Logs with these settings while `work` runs, and returns the lines.
fn lines_of(log: &LogConfig, telemetry: &TelemetryConfig, work: impl FnOnce()) -> String {
    let lines = Lines::default();
    let writer = lines.clone();
    let (subscriber, _guard) = build(log, telemetry, move || writer.clone()).unwrap();
    with_default(subscriber, work);
    lines.text()
}

/// A collector that takes one export and returns its head and body.
fn collector() -> (String, thread::JoinHandle<(String, Vec<u8>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let export = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut received = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let read = stream.read(&mut buffer).unwrap();
            received.extend_from_slice(&buffer[..read]);
            let Some(end) = received.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
                continue;
            };
            let head = String::from_utf8(received[..end].to_vec())
                .unwrap()
                .to_lowercase();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .unwrap();
            let body = &received[end + 4..];
            if body.len() >= length.parse().unwrap() {
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                    .unwrap();
                return (head, body.to_vec());
            }
        }
    });
    (endpoint, export)
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[test]
fn a_span_reaches_the_collector_with_its_remote_parent() {
    let (endpoint, export) = collector();
    let lines = Lines::default();
    let writer = lines.clone();
    let (subscriber, guard) = build(&log("debug", LogFormat::Text), &tracing_to(endpoint), move || {
        writer.clone()
    })
    .unwrap();
    let (parent, child) = with_default(subscriber, || {
        let parent = info_span!(target: trace::TARGET, "publish")
            .in_scope(|| trace::context_of(&tracing::Span::current()))
            .unwrap();
        let span = info_span!(target: trace::TARGET, "deliver", hub = "chat");
        trace::set_parent(&span, &parent.traceparent, "vendor=1");
        let child = span.in_scope(|| {
            info!(target: "hubcast::session", "a line");
            trace::context_of(&tracing::Span::current()).unwrap()
        });
        (parent, child)
    });
    drop(guard);

    let ids = |context: &trace::TraceContext| {
        let parts: Vec<_> = context.traceparent.split('-').map(str::to_owned).collect();
        (parts[1].clone(), parts[2].clone())
    };
    assert_eq!(ids(&parent).0, ids(&child).0, "one trace");
    assert_ne!(ids(&parent).1, ids(&child).1);
    assert_eq!(child.tracestate, "vendor=1");

    let (head, body) = export.join().unwrap();
    assert!(head.starts_with("post /v1/traces http/1.1"), "{head}");
    let bytes = |hex: &str| -> Vec<u8> {
        (0..hex.len())
            .step_by(2)
            .map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap())
            .collect()
    };
    // Field 4 of a protobuf span, eight bytes: parent_span_id.
    let parent_field = [&[0x22, 8], bytes(&ids(&parent).1).as_slice()].concat();
    assert!(contains(&body, &parent_field), "the child names its parent");
    assert!(contains(&body, &bytes(&ids(&child).0)));
    assert!(contains(&body, b"deliver") && contains(&body, b"chat") && contains(&body, b"vendor=1"));

    let text = lines.text();
    assert!(text.contains("a line"), "{text}");
    assert!(
        !text.contains("deliver"),
        "spans for tracing are no part of lines: {text}"
    );
}

#[test]
fn without_a_collector_spans_have_no_context() {
    let text = lines_of(
        &log("trace", LogFormat::Text),
        &TelemetryConfig::default(),
        || {
            let span = info_span!(target: trace::TARGET, "deliver");
            assert_eq!(
                span.in_scope(|| trace::context_of(&tracing::Span::current())),
                None
            );
            let logged = info_span!(target: "hubcast::session", "connection");
            assert!(!logged.is_disabled());
            assert_eq!(
                logged.in_scope(|| trace::context_of(&tracing::Span::current())),
                None
            );
        },
    );
    assert!(text.is_empty(), "{text}");
}

#[test]
fn without_a_collector_a_span_costs_one_look_at_its_call_site() {
    let span = with_default(
        Registry::default(),
        || info_span!(target: trace::TARGET, "deliver"),
    );
    let metadata = span.metadata().unwrap();
    let of = |telemetry: &TelemetryConfig| {
        let (subscriber, _guard) = build(&log("trace", LogFormat::Text), telemetry, io::stderr).unwrap();
        with_default(subscriber, || {
            dispatcher::get_default(|installed| installed.register_callsite(metadata))
        })
    };
    assert!(of(&TelemetryConfig::default()).is_never());
    assert!(!of(&tracing_to("http://127.0.0.1:9".to_owned())).is_never());
}

#[test]
fn a_trace_that_the_caller_does_not_record_is_not_recorded() {
    // No process listens there, and nothing is sent.
    let telemetry = tracing_to("http://127.0.0.1:9".to_owned());
    lines_of(&log("info", LogFormat::Text), &telemetry, || {
        let span = info_span!(target: trace::TARGET, "deliver");
        trace::set_parent(
            &span,
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
            "",
        );
        let context = span
            .in_scope(|| trace::context_of(&tracing::Span::current()))
            .unwrap();
        assert!(
            context
                .traceparent
                .starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-")
        );
        assert!(context.traceparent.ends_with("-00"), "{}", context.traceparent);
    });
}

#[test]
fn a_level_is_for_our_own_lines() {
    let work = || {
        debug!(target: "hubcast::session", "ours");
        debug!(target: "hyper::proto", "theirs");
        tracing::warn!(target: "hyper::proto", "their warning");
    };
    let text = lines_of(&log("debug", LogFormat::Text), &TelemetryConfig::default(), work);
    assert!(
        text.contains("ours") && text.contains("their warning") && !text.contains("theirs"),
        "{text}"
    );
    let text = lines_of(
        &log("warn,hyper=debug", LogFormat::Text),
        &TelemetryConfig::default(),
        work,
    );
    assert!(text.contains("theirs") && !text.contains("ours"), "{text}");
    assert_eq!(
        lines_of(&log("off", LogFormat::Text), &TelemetryConfig::default(), work),
        ""
    );
}

#[test]
fn json_lines_have_fields() {
    let text = lines_of(&log("info", LogFormat::Json), &TelemetryConfig::default(), || {
        info!(target: "hubcast::session", connection_id = "c1", "session ended");
    });
    let line: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
    assert_eq!(line["message"], "session ended");
    assert_eq!(line["connection_id"], "c1");
    assert_eq!(line["level"], "INFO");
}

#[test]
fn nobody_forges_a_line() {
    let text = lines_of(&log("info", LogFormat::Text), &TelemetryConfig::default(), || {
        let error = "x\n2026-11-28T00:00:00Z ERROR hubcast: forged \u{1b}[31m\r";
        info!(target: "hubcast::session", %error, "a call failed: {error}");
    });
    assert_eq!(text.lines().count(), 1, "{text:?}");
    assert!(
        !text.trim_end().contains(|c: char| c.is_ascii_control()),
        "{text:?}"
    );
    assert!(text.contains("x\\n2026"), "{text:?}");
}

#[test]
fn a_misspelt_level_is_an_error() {
    for level in ["infoo", "hubcast=loud"] {
        assert!(parse_level(level).is_err(), "{level:?}");
    }
    for level in ["off", "INFO", "info,hubcast::session=trace", "hubcast=debug"] {
        assert!(parse_level(level).is_ok(), "{level:?}");
    }
}

#[test]
fn a_collector_is_named_by_its_base() {
    assert_eq!(traces_url("http://c:4318"), "http://c:4318/v1/traces");
    assert_eq!(traces_url("http://c:4318/"), "http://c:4318/v1/traces");
    assert_eq!(traces_url("http://c:4318/v1/traces"), "http://c:4318/v1/traces");
}
