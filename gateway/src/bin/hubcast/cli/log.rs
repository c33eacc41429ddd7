//! The outputs of the binary's log lines and spans.
//!
//! Lines go to standard error, filtered by `log.level`. Spans of [`trace::TARGET`] go to the collector, when
//! there is one; they are no part of log lines, and without a collector their call sites are switched off.

use std::io;

use anyhow::Context;
use hubcast::telemetry::trace;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::{
    Resource,
    trace::{Sampler, SdkTracerProvider},
};
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::{
    Layer, Registry,
    filter::{FilterExt, Targets, filter_fn},
    fmt::MakeWriter,
    layer::SubscriberExt,
};

use crate::config::{LogConfig, LogFormat, TelemetryConfig, parse_level, without_credentials};

/// Sends the remaining spans when it is dropped.
pub(crate) struct Guard {
    spans: Option<SdkTracerProvider>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.spans.take().map(|provider| provider.shutdown()) {
            // Not logged: the log may be down already.
            eprintln!("hubcast: the last spans were not exported: {error}");
        }
    }
}

/// Installs logs and traces for the whole process.
///
/// Must not be called from within an async runtime: the exporter brings a blocking client.
///
/// # Errors
/// Fails when the exporter can't be made, or something is installed already.
pub(crate) fn init(log: &LogConfig, telemetry: &TelemetryConfig) -> anyhow::Result<Guard> {
    let (subscriber, guard) = build(log, telemetry, io::stderr)?;
    tracing::subscriber::set_global_default(subscriber).context("logging is set up already")?;
    Ok(guard)
}

fn build<W>(
    log: &LogConfig,
    telemetry: &TelemetryConfig,
    writer: W,
) -> anyhow::Result<(impl Subscriber + Send + Sync, Guard)>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let level = parse_level(&log.level)?;
    let colored = log.format == LogFormat::Text && io::IsTerminal::is_terminal(&io::stderr());
    let lines = tracing_subscriber::fmt::layer().with_writer(OneLine { writer, colored });
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match log.format {
        LogFormat::Text => lines.with_ansi(colored).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let no_traces = filter_fn(|metadata: &Metadata<'_>| metadata.target() != trace::TARGET);
    // Every layer has a filter, and none is an `Option`: an absent layer counts as one that wants everything,
    // and then no call site is ever switched off.
    let mut layers: Vec<Box<dyn Layer<Registry> + Send + Sync>> =
        vec![lines.with_filter(no_traces.and(level)).boxed()];

    let spans = telemetry
        .otlp_endpoint
        .as_deref()
        .map(|endpoint| exporter(endpoint, telemetry))
        .transpose()?;
    if let Some(provider) = &spans {
        let spans = tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("hubcast"))
            .with_location(false)
            .with_threads(false)
            .with_filter(Targets::new().with_target(trace::TARGET, Level::INFO));
        layers.push(spans.boxed());
    }
    Ok((Registry::default().with(layers), Guard { spans }))
}

/// Writes each event as one line, whatever texts of clients are in it: a client can't forge a line.
struct OneLine<W> {
    writer: W,
    /// The escape character is the subscriber's own; in texts it escapes that itself.
    colored: bool,
}

impl<'w, W: MakeWriter<'w>> MakeWriter<'w> for OneLine<W> {
    type Writer = Line<W::Writer>;

    fn make_writer(&'w self) -> Self::Writer {
        Line {
            writer: self.writer.make_writer(),
            colored: self.colored,
        }
    }
}

struct Line<W> {
    writer: W,
    colored: bool,
}

impl<W: io::Write> io::Write for Line<W> {
    /// Gets a whole event at once, with the line feed at its end.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let (line, end) = match event.split_last() {
            Some((b'\n', line)) => (line, "\n"),
            _ => (event, ""),
        };
        let forged =
            |byte: &u8| byte.is_ascii_control() && !(self.colored && *byte == 0x1b) && *byte != b'\t';
        if !line.iter().any(forged) {
            self.writer.write_all(event)?;
            return Ok(event.len());
        }
        let mut clean = Vec::with_capacity(event.len().saturating_add(16));
        for byte in line {
            if forged(byte) {
                clean.extend(byte.escape_ascii());
            } else {
                clean.push(*byte);
            }
        }
        clean.extend_from_slice(end.as_bytes());
        self.writer.write_all(&clean)?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

fn exporter(endpoint: &str, telemetry: &TelemetryConfig) -> anyhow::Result<SdkTracerProvider> {
    let exporter = SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(traces_url(endpoint))
        .build()
        .with_context(|| {
            format!(
                "telemetry.otlp_endpoint {:?} can't be used",
                without_credentials(endpoint)
            )
        })?;
    let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(telemetry.sample_ratio)));
    let resource = Resource::builder()
        .with_service_name(telemetry.service_name.clone())
        .build();
    Ok(SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_sampler(sampler)
        .with_resource(resource)
        .build())
}

/// The URL that spans are posted to: collectors are named by their base, as in `OTEL_EXPORTER_OTLP_ENDPOINT`.
fn traces_url(endpoint: &str) -> String {
    let base = endpoint.trim_end_matches('/');
    if base.ends_with(TRACES_PATH) {
        base.to_owned()
    } else {
        format!("{base}{TRACES_PATH}")
    }
}

const TRACES_PATH: &str = "/v1/traces";

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
