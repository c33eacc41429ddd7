//! The figures of a run, and how they are measured.

use std::collections::BTreeMap;

use hubcast_tests::usage::{Usage, proportional_set_kib};

use crate::Args;
use crate::load::{Cast, Load, Pace};
use crate::plan::{Run, Subject};
use crate::stage::Stage;

/// A figure.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Figure {
    DeliveryCpu,
    DeliveriesPerSecond,
    MedianLatency,
    HighLatency,
    RedisCpu,
    GeneratorCpu,
    Lost,
    Doubled,
    Reordered,
    Memory,
    IdleCpu,
    NodeMemory,
    LoadedMemory,
    ConnectCpu,
    ConnectRedisCpu,
    ConnectsPerSecond,
    ConnectLatency,
    Failed,
}

impl Figure {
    /// Its name for programs, its title for people, and how many digits follow the point.
    pub(crate) fn describe(self) -> (&'static str, &'static str, usize) {
        match self {
            Self::DeliveryCpu => ("delivery_cpu_micros", "node CPU µs per delivery", 2),
            Self::DeliveriesPerSecond => ("deliveries_per_second", "deliveries/s", 0),
            Self::MedianLatency => ("latency_p50_ms", "p50 ms", 2),
            Self::HighLatency => ("latency_p99_ms", "p99 ms", 2),
            Self::RedisCpu => ("redis_cpu_micros", "Redis CPU µs per message", 1),
            Self::GeneratorCpu => ("generator_cpu_micros", "generator CPU µs per delivery", 2),
            Self::Lost => ("lost", "lost", 0),
            Self::Doubled => ("doubled", "doubled", 0),
            Self::Reordered => ("reordered", "out of order", 0),
            Self::Memory => ("idle_pss_kib", "KiB PSS per idle connection", 2),
            Self::IdleCpu => ("idle_cpu_micros", "idle CPU µs/s per connection", 2),
            Self::NodeMemory => ("node_pss_mib", "MiB PSS of a node without connections", 1),
            Self::LoadedMemory => ("loaded_pss_mib", "MiB PSS of a node afterwards", 1),
            Self::ConnectCpu => ("connect_cpu_micros", "node CPU µs per connect", 1),
            Self::ConnectRedisCpu => ("connect_redis_cpu_micros", "Redis CPU µs per connect", 1),
            Self::ConnectsPerSecond => ("connects_per_second", "connects/s", 0),
            Self::ConnectLatency => ("connect_p99_ms", "connect p99 ms", 1),
            Self::Failed => ("failed", "failed", 0),
        }
    }

    /// Counts of what went wrong: the worst pass counts, not the median.
    pub(crate) fn is_fault(self) -> bool {
        matches!(self, Self::Lost | Self::Doubled | Self::Reordered | Self::Failed)
    }

    /// The floor that it is compared with.
    pub(crate) fn floor(self, run: Run) -> Option<Subject> {
        match self {
            Self::DeliveryCpu | Self::DeliveriesPerSecond if run == Run::Saturated => Some(Subject::Batch),
            Self::DeliveryCpu | Self::MedianLatency | Self::Memory | Self::ConnectCpu => {
                Some(Subject::Direct)
            }
            Self::RedisCpu => Some(Subject::Publish),
            _ => None,
        }
    }

    /// The columns of a run's table.
    pub(crate) fn columns(run: Run) -> &'static [Self] {
        use Figure::{
            ConnectCpu, ConnectLatency, ConnectRedisCpu, ConnectsPerSecond, DeliveriesPerSecond, DeliveryCpu,
            Doubled, Failed, GeneratorCpu, HighLatency, IdleCpu, LoadedMemory, Lost, MedianLatency, Memory,
            NodeMemory, RedisCpu, Reordered,
        };
        match run {
            Run::Idle => &[Memory, IdleCpu, NodeMemory, Failed],
            Run::Connect => &[
                ConnectCpu,
                ConnectRedisCpu,
                ConnectsPerSecond,
                ConnectLatency,
                Failed,
            ],
            _ => &[
                DeliveryCpu,
                DeliveriesPerSecond,
                MedianLatency,
                HighLatency,
                RedisCpu,
                GeneratorCpu,
                LoadedMemory,
                Lost,
                Doubled,
                Reordered,
            ],
        }
    }
}

/// The figures of one subject in one pass.
pub(crate) type Figures = BTreeMap<Figure, f64>;

/// Measures a subject on a stage that was just started.
pub(crate) fn measure(args: &Args, run: Run, subject: Subject, stage: &Stage) -> Result<Figures, String> {
    let size = args.size(run);
    let addresses = stage.addresses();
    let cast = Cast {
        // Of Redis itself each node would be one subscriber.
        connections: if subject == Subject::Publish {
            args.nodes
        } else {
            size.connections
        },
        nodes: addresses,
        speaks: subject.speaks(),
        publishes: subject.publishes(),
        groups: size.groups,
        payload: args.payload.into(),
        window: size.window,
        stalled: args.stalled.min(size.connections),
    };
    let mut load = Load::new(cast).map_err(|error| error.to_string())?;
    let mut figures = connect(args, run, stage, &mut load)?;
    if let Some(pace) = size.pace {
        publish(args, pace, stage, &mut load, &mut figures)?;
    }
    if let Some(error) = load.first_error() {
        return Err(error.to_owned());
    }
    figures.retain(|figure, _| Figure::columns(run).contains(figure));
    Ok(figures)
}

fn connect(args: &Args, run: Run, stage: &Stage, load: &mut Load) -> Result<Figures, String> {
    let nodes = stage.nodes();
    let kib_before = proportional_set_kib(&nodes);
    let (nodes_before, redis_before) = (Usage::of(&nodes), Usage::of(&stage.redis()));
    let connected = load.connect();
    if connected.open == 0 {
        return Err(format!(
            "nobody can connect: {}",
            load.first_error().unwrap_or("no answer")
        ));
    }
    load.idle(args.settle);
    let open = f64::from(connected.open);
    let used = Usage::of(&nodes).micros_since(&nodes_before);
    let redis = Usage::of(&stage.redis()).micros_since(&redis_before);
    let mut figures = Figures::from([
        (Figure::ConnectCpu, used / open),
        (Figure::ConnectRedisCpu, redis / open),
        (Figure::ConnectsPerSecond, open / connected.seconds),
        (
            Figure::ConnectLatency,
            f64::from(quantile(&connected.latency, 0.99)) / 1e3,
        ),
        (Figure::Failed, f64::from(connected.failed)),
        (
            Figure::NodeMemory,
            kib_before / 1024.0 / nodes.len().max(1) as f64,
        ),
    ]);
    if run == Run::Idle {
        let before = Usage::of(&nodes);
        load.idle(args.idle_seconds);
        let used = Usage::of(&nodes).micros_since(&before);
        figures.insert(Figure::IdleCpu, used / args.idle_seconds / open);
    }
    // After the idle time: what connecting took for a moment goes back to the system 10 s later.
    let kib = proportional_set_kib(&nodes) - kib_before;
    figures.insert(Figure::Memory, kib / open);
    Ok(figures)
}

fn publish(
    args: &Args,
    pace: Pace,
    stage: &Stage,
    load: &mut Load,
    figures: &mut Figures,
) -> Result<(), String> {
    load.connect_publisher()?;
    if args.warmup > 0.0 {
        load.publish(pace, args.warmup);
    }
    let (nodes, redis, this) = (stage.nodes(), stage.redis(), [std::process::id()]);
    let before = [&nodes[..], &redis, &this].map(Usage::of);
    let phase = load.publish(pace, args.seconds);
    let after = [&nodes[..], &redis, &this].map(Usage::of);
    let [node_cpu, redis_cpu, generator_cpu] =
        [0, 1, 2].map(|index: usize| after[index].micros_since(&before[index]));
    let tally = &phase.tally;
    let (deliveries, messages) = (tally.deliveries.max(1) as f64, phase.messages.max(1) as f64);
    let latency = |share| f64::from(quantile(&tally.latency, share)) / 1e3;
    figures.extend([
        (
            Figure::DeliveriesPerSecond,
            tally.deliveries as f64 / phase.seconds.max(1e-9),
        ),
        (Figure::MedianLatency, latency(0.5)),
        (Figure::HighLatency, latency(0.99)),
        (Figure::GeneratorCpu, generator_cpu / deliveries),
        (Figure::Lost, phase.lost() as f64),
        (Figure::Doubled, tally.doubled as f64),
        (Figure::Reordered, (tally.reordered + tally.misrouted) as f64),
    ]);
    if !nodes.is_empty() {
        let mib = proportional_set_kib(&nodes) / 1024.0 / nodes.len() as f64;
        figures.insert(Figure::LoadedMemory, mib);
        figures.insert(Figure::DeliveryCpu, node_cpu / deliveries);
    }
    if !redis.is_empty() {
        figures.insert(Figure::RedisCpu, redis_cpu / messages);
    }
    Ok(())
}

pub(crate) fn quantile(histogram: &hdrhistogram::Histogram<u32>, share: f64) -> u32 {
    u32::try_from(histogram.value_at_quantile(share)).unwrap_or(u32::MAX)
}
