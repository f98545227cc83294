//! Kafka clients as Flume's users configure them, for the Kafka sink, source and channel.
//!
//! The client is librdkafka. [`options`] gives it the options of Java's client under its own names, `security` what
//! Java reads from key stores and JAAS, [`context`] brings its words into the log, [`producer`] sends batches and counts
//! their delivery reports, [`consumer`] gives messages and commits their offsets, and [`pattern`] translates patterns of
//! topics' names.

pub mod consumer;
pub mod context;
pub mod options;
pub mod pattern;
pub mod producer;
mod security;
mod streams;
#[cfg(test)]
pub(crate) mod tests;

use std::fmt;

use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;

use crate::config::Props;

/// The header that is a message's key.
pub const KEY_HEADER: &str = "key";

/// Reads `kafka.bootstrap.servers`, or the key that it had in old versions of Flume.
pub fn bootstrap_servers(props: &Props<'_>, old: &'static str) -> String {
    let key = deprecated(props, "kafka.bootstrap.servers", old);
    let expected = "host:port of one or more Kafka brokers, separated by commas";
    let servers: String = props.required(key, expected, "Bootstrap Servers must be specified");
    if props.text(key).is_some_and(|text| text.trim().is_empty()) {
        props.error(key, expected, "Bootstrap Servers must be specified");
    } else {
        check_servers(props, key, &servers);
    }
    servers
}

/// Notes brokers that are none.
pub fn check_servers(props: &Props<'_>, key: &str, servers: &str) {
    let mut servers = servers.split(',').map(str::trim).filter(|server| !server.is_empty());
    if let Some(wrong) = servers.find(|server| !is_server(server)) {
        let expected = "host:port of one or more Kafka brokers, separated by commas, with ports of 1 to 65535";
        props.error(key, expected, &format!("Invalid url in bootstrap.servers: {wrong}"));
    }
}

/// Whether this is a broker, perhaps with a protocol before it or without a port: librdkafka takes any text for a host,
/// and cuts ports off at 16 bits.
pub fn is_server(text: &str) -> bool {
    let place = text.split_once("://").map_or(text, |(_, place)| place);
    let (host, port) = match place.rsplit_once(':') {
        // An IPv6 address without a port.
        _ if place.ends_with(']') => (place, None),
        Some((host, port)) => (host, Some(port)),
        None => (place, None),
    };
    let is_port = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    is_port && !host.is_empty() && !host.contains([';', ' ', '/'])
}

/// The key to read where one has been renamed: the new one, or the old one when only that is there.
pub fn deprecated(props: &Props<'_>, new: &'static str, old: &'static str) -> &'static str {
    let old_value = props.text(old).filter(|value| !value.is_empty());
    if props.text(new).is_some() || old_value.is_none() {
        return new;
    }
    props.warning(old, &format!("{old} is deprecated. Please use the parameter {new}"));
    old
}

/// What Kafka takes as the name of a topic, for the user.
pub const TOPIC_NAME: &str = "the name of a topic: letters, digits, '.', '_' and '-', at most 249";

/// Whether Kafka takes this as the name of a topic.
pub fn is_topic_name(name: &str) -> bool {
    !name.is_empty() && is_in_topic_name(name) && name != "." && name != ".."
}

/// Whether the name of a topic may have this in it.
pub fn is_in_topic_name(text: &str) -> bool {
    let legal = |c: u8| c.is_ascii_alphanumeric() || b"._-".contains(&c);
    text.len() <= 249 && text.bytes().all(legal)
}

/// Whether a message that fails so will never be taken, however often it is sent.
pub fn is_hopeless(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode::{
        InvalidMessage, InvalidMessageSize, InvalidRecord, InvalidTimestamp, InvalidTopic, MessageSizeTooLarge,
    };
    matches!(
        code,
        MessageSizeTooLarge | InvalidMessageSize | InvalidRecord | InvalidMessage | InvalidTimestamp | InvalidTopic
    )
}

/// Why an event for such a partition has no place: the topic has fewer.
pub fn no_such_partition(topic: &str, partition: i32, count: usize) -> String {
    let partitions = if count == 1 { "partition" } else { "partitions" };
    format!("there is no partition {partition} in topic {topic}, which has {count} {partitions}, numbered from 0")
}

/// A Kafka error in words: what librdkafka says of it, without the name of the type.
pub struct Words<'a>(pub &'a KafkaError);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0, self.0.rdkafka_error_code()) {
            (KafkaError::Transaction(error), _) => f.write_str(&error.string()),
            (_, Some(code)) => write!(f, "{code}"),
            (error, None) => write!(f, "{error}"),
        }
    }
}
