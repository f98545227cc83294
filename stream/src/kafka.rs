//! What the Kafka source and the Kafka sink have in common: how their clients are set up.
//!
//! The client is librdkafka; `options` has its [options] under their own names, such as `"security.protocol"`.
//!
//! [options]: https://github.com/confluentinc/librdkafka/blob/master/CONFIGURATION.md

use std::collections::BTreeMap;

use flume_rs::kafka::{Words, is_server, is_topic_name};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use serde::{Deserialize, Deserializer};

use crate::job::{JobError, Keys};

/// The value of an option, as TOML has it.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum OptionValue {
    Text(String),
    Flag(bool),
    Whole(i64),
    Real(f64),
}

impl OptionValue {
    fn text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Flag(flag) => flag.to_string(),
            Self::Whole(number) => number.to_string(),
            Self::Real(number) => number.to_string(),
        }
    }
}

/// How a client is set up.
pub type Options = BTreeMap<String, String>;

/// All clients' defaults.
const COMMON: &[(&str, &str)] =
    &[("client.id", "flume-rs-stream"), ("log.thread.name", "false"), ("reconnect.backoff.max.ms", "1000")];

/// Takes `servers` and `options`. What librdkafka does by default is replaced by the `defaults`, these by what the user
/// says; what is `fixed` the user cannot set.
pub fn options(keys: &mut Keys<'_>, defaults: &[(&str, &str)], fixed: &[(&str, &str)]) -> Result<Options, JobError> {
    let servers: String = keys.need("servers", "host:port of one or more Kafka brokers, separated by commas")?;
    if let Some(wrong) = servers.split(',').map(str::trim).find(|server| !is_server(server)) {
        let message = format!("`servers`: `{wrong}` is no address: expected host:port, with a port from 1 to 65535");
        return Err(keys.error_at("servers", message));
    }
    let given: BTreeMap<String, OptionValue> = keys.take("options")?.unwrap_or_default();
    for (name, _) in fixed.iter().chain(&[("bootstrap.servers", "")]) {
        if given.contains_key(*name) {
            return Err(keys.error_at("options", format!("`options`: `{name}` is set by the job itself")));
        }
    }
    let own =
        |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<Vec<_>>();
    let mut options: Options = own(COMMON).into_iter().chain(own(defaults)).collect();
    options.extend(given.into_iter().map(|(name, value)| (name, value.text())));
    options.extend(own(fixed));
    options.insert("bootstrap.servers".to_owned(), servers);
    let accepted = config(&options).create_native_config();
    accepted.map_err(|error| keys.error_at("options", format!("`options`: {}", Words(&error))))?;
    Ok(options)
}

/// For making clients.
pub fn config(options: &Options) -> ClientConfig {
    let mut config: ClientConfig = options.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    config.set_log_level(RDKafkaLogLevel::Warning);
    config
}

/// Options that Java's client, which Spark has, knows by the same name.
const JAVAS: &[&str] = &[
    "acks",
    "client.dns.lookup",
    "client.id",
    "compression.type",
    "isolation.level",
    "linger.ms",
    "request.timeout.ms",
    "sasl.kerberos.service.name",
    "security.protocol",
];

/// The options of a client of Spark: those that are set otherwise than by default. The error names one that Spark's
/// client does not know.
pub fn spark(options: &Options, defaults: &[&[(&str, &str)]]) -> Result<Options, String> {
    let is_default = |name: &str, value: &str| {
        let mut known = defaults.iter().copied().chain([COMMON]).flatten();
        known.any(|(known, default)| *known == name && *default == value)
    };
    let mut found = Options::new();
    for (name, value) in options.iter().filter(|(name, value)| !is_default(name, value)) {
        match name.as_str() {
            "sasl.mechanism" | "sasl.mechanisms" => {
                found.insert("kafka.sasl.mechanism".to_owned(), value.clone());
            }
            name if JAVAS.contains(&name) || name == "bootstrap.servers" => {
                found.insert(format!("kafka.{name}"), value.clone());
            }
            // The source's own, for a client that is no member of a group.
            "group.id" if value == "flume-rs-stream" => {}
            name => return Err(format!("`options`: Spark's client, which is Java's, knows no `{name}`")),
        }
    }
    Ok(found)
}

/// Names of topics: a list, or a text with commas.
pub fn topics<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Topics {
        Text(String),
        List(Vec<String>),
    }
    let names = match Topics::deserialize(deserializer)? {
        Topics::Text(text) => text.split(',').map(|name| name.trim().to_owned()).collect(),
        Topics::List(names) => names,
    };
    names.iter().try_for_each(|name| check_topic(name).map_err(serde::de::Error::custom))?;
    Ok(names)
}

/// The name of one topic.
pub fn topic<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let name = String::deserialize(deserializer)?;
    check_topic(&name).map_err(serde::de::Error::custom)?;
    Ok(name)
}

fn check_topic(name: &str) -> Result<(), String> {
    if is_topic_name(name) {
        return Ok(());
    }
    Err(format!("`{name}` is no name of a topic: letters, digits, '.', '_' and '-', at most 249"))
}
