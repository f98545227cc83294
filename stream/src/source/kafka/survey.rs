//! Which partitions there are, and which offsets they hold.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use flume_rs::kafka::Words;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::metadata::MetadataTopic;
use regex::Regex;

use super::reader::Context;

/// How long brokers may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Partition {
    /// The topic.
    pub topic: Arc<str>,
    /// Its number in the topic.
    pub number: i32,
}

impl Partition {
    /// Reads what it is displayed as.
    pub fn parse(text: &str) -> Option<Self> {
        let (topic, number) = text.rsplit_once('-')?;
        Some(Self { topic: topic.into(), number: number.parse().ok()? })
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.number)
    }
}

/// Which topics are read.
#[derive(Clone, Debug)]
pub enum Topics {
    /// These.
    Named(Vec<String>),
    /// Those whose whole name matches.
    Pattern(Regex),
}

impl Topics {
    /// As members of a group subscribe to them.
    pub fn subscription(&self) -> Vec<String> {
        match self {
            Self::Named(names) => names.clone(),
            Self::Pattern(pattern) => vec![format!("^({})$", inner(pattern))],
        }
    }
}

/// A pattern without what makes it match the whole name.
pub fn inner(pattern: &Regex) -> &str {
    pattern.as_str().trim_start_matches("^(?:").trim_end_matches(")$")
}

/// The topics that are there and those that are not.
#[derive(Debug, Default)]
pub struct Found {
    /// All partitions of the topics that are there.
    pub partitions: Vec<Partition>,
    /// The names of those that are not, or the pattern that none matches.
    pub missing: Vec<String>,
}

/// Looks for the partitions of topics.
pub fn find(consumer: &BaseConsumer<Context>, topics: &Topics) -> Result<Found, String> {
    let mut found = Found::default();
    let ask = |topic: Option<&str>| {
        let failed = |error| format!("the brokers do not say which topics there are: {}", Words(&error));
        consumer.fetch_metadata(topic, PATIENCE).map_err(failed)
    };
    match topics {
        Topics::Named(names) => {
            for name in names {
                let metadata = ask(Some(name))?;
                let topic = metadata.topics().iter().find(|topic| topic.name() == name);
                match topic.map(|topic| (topic, topic.error().map(RDKafkaErrorCode::from))) {
                    Some((topic, None)) => found.partitions.extend(partitions(topic)),
                    None | Some((_, Some(RDKafkaErrorCode::UnknownTopicOrPartition))) => {
                        found.missing.push(name.clone());
                    }
                    Some((_, Some(code))) => return Err(format!("topic {name}: {code}")),
                }
            }
        }
        Topics::Pattern(pattern) => {
            let metadata = ask(None)?;
            let ours = |topic: &&MetadataTopic| !topic.name().starts_with("__") && pattern.is_match(topic.name());
            found.partitions.extend(metadata.topics().iter().filter(ours).flat_map(partitions));
            if found.partitions.is_empty() {
                found.missing.push(inner(pattern).to_owned());
            }
        }
    }
    found.partitions.sort();
    Ok(found)
}

fn partitions(topic: &MetadataTopic) -> impl Iterator<Item = Partition> {
    let name: Arc<str> = topic.name().into();
    topic.partitions().iter().map(move |one| Partition { topic: Arc::clone(&name), number: one.id() })
}

/// The first offset that a partition holds, and the one behind its last, for one who reads committed messages unless
/// told otherwise.
pub fn bounds(consumer: &BaseConsumer<Context>, partition: &Partition) -> Result<(i64, i64), String> {
    let failed = |error| format!("the brokers do not say which offsets {partition} holds: {}", Words(&error));
    consumer.fetch_watermarks(&partition.topic, partition.number, PATIENCE).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_read_as_it_is_shown() {
        let one = Partition { topic: "a-1".into(), number: 7 };
        assert_eq!(one.to_string(), "a-1-7");
        assert_eq!(Partition::parse("a-1-7"), Some(one));
        assert_eq!(Partition::parse("a"), None);
    }
}
