//! The smallest producer and consumer that librdkafka allows, as the ceiling for sink and source:
//!
//! ```text
//! cargo bench --bench kafka -- produce SERVERS TOPIC EVENTS ACKS
//! cargo bench --bench kafka -- consume SERVERS TOPIC EVENTS
//! ```
//!
//! Prints the seconds that EVENTS messages of 100 bytes took. Without arguments it does nothing.

use std::env;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

const MINUTE: Duration = Duration::from_secs(60);

fn produce(servers: &str, topic: &str, events: usize, acks: &str) {
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", servers).set("acks", acks).create().expect("a producer");
    let body = [b'x'; 100];
    for _ in 0..events {
        let mut record: BaseRecord<'_, (), [u8]> = BaseRecord::to(topic).payload(&body);
        while let Err((error, returned)) = producer.send(record) {
            assert_eq!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::QueueFull), "{error}");
            record = returned;
            producer.poll(Duration::from_millis(1));
        }
    }
    producer.flush(MINUTE).expect("the broker takes them");
}

fn consume(servers: &str, topic: &str, events: usize) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", servers).set("group.id", "ceiling").set("enable.auto.commit", "false");
    let consumer: BaseConsumer = config.create().expect("a consumer");
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(topic, 0, Offset::Beginning).expect("an offset");
    consumer.assign(&assignment).expect("an assignment");
    for _ in 0..events {
        consumer.poll(MINUTE).expect("a message in time").expect("a message");
    }
}

fn main() {
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let begin = Instant::now();
    match arguments.as_slice() {
        ["produce", servers, topic, events, acks] => produce(servers, topic, events.parse().expect("a number"), acks),
        ["consume", servers, topic, events, ..] => consume(servers, topic, events.parse().expect("a number")),
        _ => return,
    }
    println!("{:.3}", begin.elapsed().as_secs_f64());
}
