//! The parts of the hot path, each by itself: `cargo bench`.

use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use flume_rs::channel::Channel as _;
use flume_rs::channel::memory::{MemoryChannel, MemoryConfig};
use flume_rs::event::{Batch, NO_HEADERS};
use flume_rs::metrics::Metrics;
use flume_rs::sink::hex_dump;
use flume_rs::source::{LineSplitter, Terminator};

const LINE_BYTES: usize = 100;

fn lines(events: usize) -> Bytes {
    format!("{}\n", "x".repeat(LINE_BYTES)).repeat(events).into()
}

fn batch_of(lines: &Bytes) -> Batch {
    let mut batch = Batch::with_capacity(lines.len() / LINE_BYTES);
    let buffer = batch.push_buffer(lines.clone());
    LineSplitter::new(Terminator::Lf).split(lines, |start, end| batch.push_span(buffer, start, end, NO_HEADERS));
    batch
}

fn line_splitting(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("split lines into a batch");
    for events in [1, 100, 1000] {
        let lines = lines(events);
        group.throughput(Throughput::Elements(events as u64));
        group.bench_with_input(BenchmarkId::from_parameter(events), &lines, |b, lines| {
            b.iter(|| batch_of(black_box(lines)))
        });
    }
    group.finish();
}

fn memory_channel(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let config = MemoryConfig { capacity: 100_000, transaction_capacity: 10_000, ..MemoryConfig::default() };
    let channel = Arc::new(MemoryChannel::new("c1", config, &Metrics::default()));
    let mut group = criterion.benchmark_group("memory channel: put and take");
    for events in [1, 10, 100, 1000] {
        let batch = batch_of(&lines(events));
        group.throughput(Throughput::Elements(events as u64));
        group.bench_with_input(BenchmarkId::from_parameter(events), &batch, |b, batch| {
            let channel = Arc::clone(&channel);
            b.iter(|| {
                runtime.block_on(async {
                    let put = channel.try_reserve(batch).expect("room");
                    put.commit(batch.clone());
                    channel.take(events).await.expect("events").commit();
                });
            });
        });
    }
    group.finish();
}

fn interception(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("set one header on all events");
    let (key, value) = ("datacenter".into(), "NEW_YORK".into());
    for events in [1, 100, 1000] {
        let batch = batch_of(&lines(events));
        group.throughput(Throughput::Elements(events as u64));
        group.bench_with_input(BenchmarkId::from_parameter(events), &batch, |b, batch| {
            b.iter_batched(
                || batch.clone(),
                |mut batch| {
                    batch.set_header(&key, &value, true);
                    batch
                },
                criterion::BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn dump(criterion: &mut Criterion) {
    criterion.bench_function("hex dump of 16 bytes", |b| {
        let mut out = String::with_capacity(200);
        b.iter(|| {
            out.clear();
            hex_dump(&mut out, black_box(b"Hello world!\r\xc3\xa9!"));
            out.len()
        });
    });
}

criterion_group!(benches, line_splitting, memory_channel, interception, dump);
criterion_main!(benches);
