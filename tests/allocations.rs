//! The steady paths netcat → memory → null and syslogtcp → memory → null allocate per batch, not per event.

use std::alloc::System;
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flume_rs::agent::{Agent, resolve};
use flume_rs::config::{Globals, Lookups, load};
use flume_rs::metrics::{Metrics, SinkCounters};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tokio_util::sync::CancellationToken;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const CONFIG: &str = "
a1.sources = r1
a1.channels = c1
a1.sinks = k1
a1.sources.r1.type = @TYPE@
a1.sources.r1.@HOST@ = 127.0.0.1
a1.sources.r1.port = @PORT@
a1.sources.r1.channels = c1
a1.channels.c1.type = memory
a1.channels.c1.capacity = 10000
a1.channels.c1.transactionCapacity = 1000
a1.sinks.k1.type = null
a1.sinks.k1.batchSize = 1000
a1.sinks.k1.logEveryNEvents = 100000000
a1.sinks.k1.channel = c1
";

fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        std::thread::yield_now();
    }
}

/// Allocations an event on the way from a source of this type, which gets these lines, a thousand, over and over.
fn allocations(kind: &str, host_key: &str, lines: &str) -> f64 {
    // The kernel names a free port; it is free again when the agent binds it.
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
    let text = CONFIG.replace("@TYPE@", kind).replace("@HOST@", host_key).replace("@PORT@", &port.to_string());
    let mut configuration = load(&[("test".to_owned(), text.into_bytes())], &Lookups::new(BTreeMap::new()));
    let globals = Globals { heap_bytes: 1 << 30, ..Globals::default() };
    let resolved = resolve(&configuration.agents["a1"], &globals, &mut configuration.findings);
    assert!(configuration.findings.is_empty(), "{:?}", configuration.findings);

    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let metrics = Arc::new(Metrics::default());
    let mut agent = Agent::new("a1", Arc::clone(&metrics), Duration::from_secs(10));
    runtime.block_on(agent.apply(resolved, &CancellationToken::new()));
    // The group exists already, and reading it allocates nothing.
    let sink = metrics.register(Arc::new(SinkCounters::new("k1")));
    let delivered = || sink.drain_success.get();

    let mut stream = None;
    wait_for("a connection", || {
        stream = TcpStream::connect(("127.0.0.1", port)).ok();
        stream.is_some()
    });
    let mut stream = stream.expect("a connection");
    let mut answers = stream.try_clone().expect("a second handle");
    std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while matches!(answers.read(&mut buffer), Ok(1..)) {}
    });
    let mut send = |thousands: u64| {
        let before = delivered();
        for _ in 0..thousands {
            stream.write_all(lines.as_bytes()).expect("sent");
        }
        wait_for("delivery", || delivered() >= before + thousands * 1000);
    };
    send(100);
    let region = Region::new(ALLOCATOR);
    let events = 1_000_000;
    send(events / 1000);
    let change = region.change();
    let allocations = change.allocations + change.reallocations;
    let per_event = allocations as f64 / events as f64;
    println!("{kind}: {allocations} allocations for {events} events: {per_event:.4} an event");
    drop(stream);
    runtime.block_on(agent.stop(&CancellationToken::new()));
    per_event
}

#[test]
fn less_than_one_allocation_per_ten_events() {
    let lines = format!("{}\n", "x".repeat(100)).repeat(1000);
    let netcat = allocations("netcat", "bind", &lines);
    let message = |n: usize| format!("<30>Nov 20 22:14:15 host{} app: {}\n", n % 8, "x".repeat(70));
    let messages: String = (0..1000).map(message).collect();
    let syslog = allocations("syslogtcp", "host", &messages);
    assert!(netcat < 0.1 && syslog < 0.1, "{netcat} and {syslog} allocations an event");
}
