//! The counter groups of the three kinds of component.

use std::any::Any;
use std::fmt::Debug;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use tracing::info;

use crate::java::current_time_millis;

/// A number that only its component changes and anybody reads.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Takes `n` off, for what is counted up and down.
    pub fn sub(&self, n: u64) {
        self.0.fetch_sub(n, Ordering::Relaxed);
    }

    /// Sets a gauge.
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// The value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What all groups have in common.
pub trait CounterGroup: Debug + Send + Sync {
    /// `SOURCE`, `CHANNEL` or `SINK`.
    fn kind(&self) -> &'static str;
    /// The component's name.
    fn name(&self) -> &str;
    /// Milliseconds since 1970 of the last start; 0 before the first.
    fn start_time(&self) -> i64;
    /// Flume's attribute names with their values as text.
    fn attributes(&self) -> Vec<(&'static str, String)>;
    /// For lookups by concrete type.
    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

/// Counters that only some types of a kind have: Flume's attribute and the dotted name of the line at stop.
pub type Extras = &'static [(&'static str, &'static str)];

/// Defines a group: for each counter its field, Flume's attribute and the dotted name of the lines at stop.
macro_rules! group {
    ($(#[$doc:meta])* $group:ident, $kind:literal, $prefix:literal,
     { $($(#[$field_doc:meta])* $field:ident: $attribute:literal, $dotted:literal;)* }) => {
        $(#[$doc])*
        #[derive(Debug, Default)]
        pub struct $group {
            name: String,
            start_time: AtomicI64,
            stop_time: AtomicI64,
            extras: OnceLock<(Extras, Vec<Counter>)>,
            $($(#[$field_doc])* pub $field: Counter,)*
        }

        impl $group {
            /// A group in which everything is 0.
            pub fn new(name: impl Into<String>) -> Self {
                Self { name: name.into(), ..Self::default() }
            }

            /// Adds the counters that this type of component has beside those of its kind. The first call counts.
            pub fn extend(&self, extras: Extras) {
                self.extras.get_or_init(|| (extras, extras.iter().map(|_| Counter::default()).collect()));
            }

            /// Adds to a counter of this type of component.
            pub fn add_extra(&self, attribute: &str, n: u64) {
                if let Some((_, counter)) = self.extras().find(|((name, _), _)| *name == attribute) {
                    counter.add(n);
                }
            }

            fn extras(&self) -> impl Iterator<Item = ((&'static str, &'static str), &Counter)> {
                self.extras.get().into_iter().flat_map(|(names, counters)| names.iter().copied().zip(counters))
            }

            /// Notes that the component has started.
            pub fn started(&self) {
                let first = self.start_time.swap(current_time_millis(), Ordering::Relaxed) == 0;
                self.stop_time.store(0, Ordering::Relaxed);
                if first {
                    info!("Monitored counter group for type: {}, name: {}: Successfully registered new MBean.", $kind, self.name);
                }
                info!("Component type: {}, name: {} started", $kind, self.name);
            }

            /// Notes that the component has stopped, and logs its counters as Flume does.
            pub fn stopped(&self) {
                self.stop_time.store(current_time_millis(), Ordering::Relaxed);
                info!("Component type: {}, name: {} stopped", $kind, self.name);
                let line = |name: &str, value: i64| {
                    info!("Shutdown Metric for type: {}, name: {}. {} == {}", $kind, self.name, name, value);
                };
                line(concat!($prefix, ".start.time"), self.start_time.load(Ordering::Relaxed));
                line(concat!($prefix, ".stop.time"), self.stop_time.load(Ordering::Relaxed));
                let mut counters = vec![$(($dotted, self.$field.get())),*];
                counters.extend(self.extras().map(|((_, dotted), counter)| (dotted, counter.get())));
                counters.sort_unstable();
                for (name, value) in counters {
                    line(name, value as i64);
                }
            }

            fn common(&self) -> Vec<(&'static str, String)> {
                let mut attributes = vec![
                    ("Type", $kind.to_owned()),
                    ("StartTime", self.start_time.load(Ordering::Relaxed).to_string()),
                    ("StopTime", self.stop_time.load(Ordering::Relaxed).to_string()),
                    $(($attribute, self.$field.get().to_string()),)*
                ];
                attributes.extend(self.extras().map(|((name, _), counter)| (name, counter.get().to_string())));
                attributes
            }
        }
    };
}

macro_rules! group_trait {
    ($group:ident, $kind:literal, |$self:ident| $attributes:expr) => {
        impl CounterGroup for $group {
            fn kind(&self) -> &'static str {
                $kind
            }
            fn name(&self) -> &str {
                &self.name
            }
            fn start_time(&self) -> i64 {
                self.start_time.load(Ordering::Relaxed)
            }
            fn attributes(&self) -> Vec<(&'static str, String)> {
                let $self = self;
                $attributes
            }
            fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
                self
            }
        }
    };
}

group! {
    /// What a source counts. Received events are accepted or refused; those that wait for room are not yet received.
    SourceCounters, "SOURCE", "source", {
        /// Events that came to an end: accepted or refused.
        event_received: "EventReceivedCount", "src.events.received";
        /// Events committed to every required channel, or dropped on the way there.
        event_accepted: "EventAcceptedCount", "src.events.accepted";
        /// Single-event requests that came in.
        append_received: "AppendReceivedCount", "src.append.received";
        /// Single-event requests accepted.
        append_accepted: "AppendAcceptedCount", "src.append.accepted";
        /// Batch requests that came in.
        append_batch_received: "AppendBatchReceivedCount", "src.append-batch.received";
        /// Batch requests accepted.
        append_batch_accepted: "AppendBatchAcceptedCount", "src.append-batch.accepted";
        /// Connections that are open now.
        open_connections: "OpenConnectionCount", "src.open-connection.count";
        /// Failures to read or understand input.
        event_read_fail: "EventReadFail", "src.event.read.fail";
        /// Writes that a channel refused.
        channel_write_fail: "ChannelWriteFail", "src.channel.write.fail";
        /// Other failures.
        generic_processing_fail: "GenericProcessingFail", "src.generic.processing.fail";
        /// Events refused for whatever reason; Flume has no such counter.
        event_refused: "EventRefusedCount", "src.events.refused";
        /// Accepted events that an interceptor or the selector let go nowhere; Flume has no such counter.
        event_dropped: "EventDroppedCount", "src.events.dropped";
    }
}

group_trait!(SourceCounters, "SOURCE", |group| group.common());

group! {
    /// What a channel counts.
    ChannelCounters, "CHANNEL", "channel", {
        /// Events that the channel can hold.
        capacity: "ChannelCapacity", "channel.capacity";
        /// Events that sources tried to put.
        put_attempt: "EventPutAttemptCount", "channel.event.put.attempt";
        /// Events committed by sources.
        put_success: "EventPutSuccessCount", "channel.event.put.success";
        /// Events that sinks took, each time they did.
        take_attempt: "EventTakeAttemptCount", "channel.event.take.attempt";
        /// Events whose take was committed.
        take_success: "EventTakeSuccessCount", "channel.event.take.success";
        /// Events that went with the channel, when it ended before a sink took them; Flume has no such counter.
        lost: "EventLostCount", "channel.event.lost";
        /// Events in the channel, those included that a sink has taken but not committed.
        size: "ChannelSize", "channel.current.size";
    }
}

group_trait!(ChannelCounters, "CHANNEL", |group| {
    let mut attributes = group.common();
    attributes.push(("ChannelFillPercentage", group.fill_percentage()));
    attributes
});

impl ChannelCounters {
    /// As Java prints the double; a channel without a capacity shows Java's largest one, as Flume does.
    fn fill_percentage(&self) -> String {
        match self.capacity.get() {
            0 => "1.7976931348623157E308".to_owned(),
            capacity => format!("{:?}", self.size.get() as f64 / capacity as f64 * 100.0),
        }
    }
}

group! {
    /// What a sink counts.
    SinkCounters, "SINK", "sink", {
        /// Connections made or files opened.
        connection_created: "ConnectionCreatedCount", "sink.connection.creation.count";
        /// Connections or files closed.
        connection_closed: "ConnectionClosedCount", "sink.connection.closed.count";
        /// Connections or files that could not be opened.
        connection_failed: "ConnectionFailedCount", "sink.connection.failed.count";
        /// Takes that found nothing; a sink here waits instead, so it stays 0.
        batch_empty: "BatchEmptyCount", "sink.batch.empty";
        /// Batches smaller than the batch size.
        batch_underflow: "BatchUnderflowCount", "sink.batch.underflow";
        /// Batches of the batch size.
        batch_complete: "BatchCompleteCount", "sink.batch.complete";
        /// Events that the sink tried to deliver, each time it did.
        drain_attempt: "EventDrainAttemptCount", "sink.event.drain.attempt";
        /// Events delivered. Flume spells the dotted name this way.
        drain_success: "EventDrainSuccessCount", "sink.event.drain.sucess";
        /// Batches that could not be delivered.
        event_write_fail: "EventWriteFail", "sink.event.write.fail";
        /// Failures of the channel.
        channel_read_fail: "ChannelReadFail", "sink.channel.read.fail";
        /// Events that can never be delivered and went to the channel for dead letters; not Flume's.
        dead_letters: "EventDeadLetterCount", "sink.event.dead-letter";
        /// Events that can never be delivered and were dropped; not Flume's.
        event_refused: "EventRefusedCount", "sink.event.refused";
    }
}

group_trait!(SinkCounters, "SINK", |group| group.common());
