//! Trace context as text, by W3C Trace Context: in HTTP headers and in the log's envelopes.
//!
//! Spans that make up traces have the target [`TARGET`], so that they are recorded only where an exporter
//! takes them and never appear in log lines. Without an OpenTelemetry layer all of this does next to
//! nothing.

use std::str::FromStr;

use opentelemetry::{
    Context,
    trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState},
};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// The target of spans that make up traces: `info_span!(target: trace::TARGET, …)`.
pub const TARGET: &str = "hubcast::trace";

/// A span's identity, as its remote children need it.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct TraceContext {
    /// Value of the header `traceparent`.
    pub traceparent: String,
    /// Value of the header `tracestate`; often empty.
    pub tracestate: String,
}

/// The context of a span; `None` where it is not recorded.
#[must_use]
pub fn context_of(span: &Span) -> Option<TraceContext> {
    if span.is_disabled() {
        return None;
    }
    let context = span.context();
    let span = context.span();
    let span = span.span_context();
    span.is_valid().then(|| TraceContext {
        traceparent: format!(
            "00-{}-{}-{:02x}",
            span.trace_id(),
            span.span_id(),
            span.trace_flags()
        ),
        tracestate: span.trace_state().header(),
    })
}

/// Makes a span, which must not have been entered yet, the child of a remote one. Text that is not a trace
/// context is passed over: it comes from a peer, and a trace is no reason to refuse a request.
pub fn set_parent(span: &Span, traceparent: &str, tracestate: &str) {
    if traceparent.is_empty() || span.is_disabled() {
        return;
    }
    if let Some(parent) = parse(traceparent, tracestate) {
        // Fails where no OpenTelemetry layer is installed, and then there is nothing to do.
        _ = span.set_parent(Context::new().with_remote_span_context(parent));
    }
}

fn parse(traceparent: &str, tracestate: &str) -> Option<SpanContext> {
    let mut parts = traceparent.trim().split('-');
    let version = hex(parts.next()?, 2)?;
    let trace_id = TraceId::from_hex(hex(parts.next()?, 32)?).ok()?;
    let span_id = SpanId::from_hex(hex(parts.next()?, 16)?).ok()?;
    let flags = u8::from_str_radix(hex(parts.next()?, 2)?, 16).ok()?;
    // Later versions may append, version 00 may not; ff is no version.
    if version == "ff" || version == "00" && parts.next().is_some() {
        return None;
    }
    // A broken state doesn't break the trace.
    let state = TraceState::from_str(tracestate).unwrap_or_default();
    let flags = TraceFlags::new(flags) & TraceFlags::SAMPLED;
    Some(SpanContext::new(trace_id, span_id, flags, true, state)).filter(SpanContext::is_valid)
}

/// The text, if it is that many lower-case hexadecimal digits.
fn hex(text: &str, digits: usize) -> Option<&str> {
    let valid = text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    valid.then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_is_read() {
        let context = parse(PARENT, "a=1,b=2").unwrap();
        assert_eq!(context.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(context.span_id().to_string(), "00f067aa0ba902b7");
        assert!(context.is_sampled() && context.is_remote());
        assert_eq!(context.trace_state().header(), "a=1,b=2");
        assert!(parse("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00-more", "").is_some());
        assert!(parse(PARENT, "=broken").is_some());
    }

    #[test]
    fn what_is_no_traceparent_is_passed_over() {
        for text in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-äbf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
        ] {
            assert!(parse(text, "").is_none(), "{text}");
        }
    }

    #[test]
    fn without_a_subscriber_there_is_no_context() {
        let span = tracing::info_span!(target: TARGET, "work");
        set_parent(&span, PARENT, "");
        assert_eq!(context_of(&span), None);
    }
}
