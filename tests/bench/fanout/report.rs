//! The figures, for people and for programs.

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::Args;

/// The cost of connecting.
pub(crate) struct Connected {
    pub(crate) failed: u32,
    pub(crate) per_second: f64,
    pub(crate) cpu_micros_each: f64,
    pub(crate) p99_millis: f64,
    pub(crate) idle_kib_each: f64,
    pub(crate) base_mib_per_node: f64,
}

/// The cost of publishing.
pub(crate) struct Published {
    pub(crate) messages: u32,
    pub(crate) deliveries: u64,
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    pub(crate) reordered: u64,
    pub(crate) deliveries_per_second: f64,
    pub(crate) node_cpu_micros: f64,
    pub(crate) redis_cpu_micros: f64,
    pub(crate) latency: Histogram<u64>,
}

/// Both.
pub(crate) struct Report<'a> {
    pub(crate) args: &'a Args,
    pub(crate) connected: Connected,
    pub(crate) published: Option<Published>,
}

/// A figure: its name for programs, its name for people, its value.
type Figure = (&'static str, &'static str, f64);

impl Report<'_> {
    /// A table, and one line of JSON.
    pub(crate) fn render(&self) -> String {
        let Args {
            conns,
            groups,
            rate,
            duration,
            payload,
            nodes,
            ..
        } = self.args;
        let mut lines = vec![format!(
            "{conns} connections, {groups} groups, {rate} messages/s of {payload} bytes for {duration} s, {nodes} nodes"
        )];
        let figures = self.figures();
        lines.extend(
            figures
                .iter()
                .map(|(_, title, value)| format!("  {title:<44}{value:>14.2}")),
        );
        let mut object = json!({
            "conns": conns, "groups": groups, "rate": rate, "duration": duration, "payload": payload, "nodes": nodes
        });
        for (name, _, value) in figures {
            object[name] = Value::from((value * 1_000.0).round() / 1_000.0);
        }
        lines.push(object.to_string());
        lines.join("\n")
    }

    fn figures(&self) -> Vec<Figure> {
        let connected = &self.connected;
        let mut figures = vec![
            (
                "connects_failed",
                "connects that failed",
                f64::from(connected.failed),
            ),
            ("connects_per_second", "connects/s", connected.per_second),
            (
                "connect_cpu_micros",
                "node CPU µs per connect",
                connected.cpu_micros_each,
            ),
            ("connect_p99_ms", "connect p99, ms", connected.p99_millis),
            (
                "idle_pss_kib",
                "KiB PSS per idle connection",
                connected.idle_kib_each,
            ),
            (
                "base_pss_mib",
                "MiB PSS of a node without connections",
                connected.base_mib_per_node,
            ),
        ];
        let Some(published) = &self.published else {
            return figures;
        };
        let quantile = |quantile: f64| published.latency.value_at_quantile(quantile) as f64 / 1e3;
        figures.extend([
            ("messages", "messages", f64::from(published.messages)),
            ("deliveries", "deliveries", published.deliveries as f64),
            (
                "deliveries_per_second",
                "deliveries/s",
                published.deliveries_per_second,
            ),
            (
                "delivery_cpu_micros",
                "node CPU µs per delivery",
                published.node_cpu_micros / (published.deliveries.max(1)) as f64,
            ),
            (
                "redis_cpu_micros",
                "Redis CPU µs per message",
                published.redis_cpu_micros / f64::from(published.messages.max(1)),
            ),
            ("latency_p50_ms", "latency p50, ms", quantile(0.5)),
            ("latency_p99_ms", "latency p99, ms", quantile(0.99)),
            ("latency_p999_ms", "latency p99.9, ms", quantile(0.999)),
            ("lost", "lost", published.lost as f64),
            ("duplicated", "duplicated", published.duplicated as f64),
            ("reordered", "reordered", published.reordered as f64),
        ]);
        figures
    }
}
