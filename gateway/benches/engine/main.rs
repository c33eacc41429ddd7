//! The cost of the engine's parts, without sockets: codec, fan-out, outbox.
//!
//! `cargo bench -p hubcast --bench engine` measures time. `engine --operations` names the operations, each with its number of messages
//! or deliveries, and `engine --count NAME N`
//! runs one N times and nothing else, for programs that count instructions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod codec;
mod fanout;

use criterion::{Criterion, Throughput};
use tokio::time::Instant;

/// Something that is measured.
struct Operation {
    name: &'static str,
    /// Deliveries or messages of one run.
    elements: u64,
    /// Prepares it, and gives it to the caller.
    run: fn(Repeat<'_>),
}

/// The caller of an operation: calls what it is given as often as it likes.
type Repeat<'a> = &'a mut dyn FnMut(&mut dyn FnMut());

fn operations() -> Vec<Operation> {
    codec::OPERATIONS.into_iter().chain(fanout::OPERATIONS).collect()
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["--operations"] => {
            for operation in operations() {
                println!("{} {}", operation.name, operation.elements);
            }
        }
        ["--count", name, times] => {
            let times: u64 = times.parse().expect("a number of times");
            let operations = operations();
            let operation = operations.iter().find(|operation| operation.name == *name);
            let operation = operation.unwrap_or_else(|| panic!("no operation {name}: see --operations"));
            (operation.run)(&mut |once| (0..times).for_each(|_| once()));
        }
        _ => measure(),
    }
}

fn measure() {
    let mut criterion = Criterion::default().configure_from_args();
    for operation in operations() {
        let mut group = criterion.benchmark_group(operation.name);
        group.throughput(Throughput::Elements(operation.elements));
        group.bench_function("time", |bencher| {
            bencher.iter_custom(|times| {
                let mut took = None;
                (operation.run)(&mut |once| {
                    let started = Instant::now();
                    (0..times).for_each(|_| once());
                    took = Some(started.elapsed());
                });
                took.expect("every operation runs")
            });
        });
        group.finish();
    }
    criterion.final_summary();
}
