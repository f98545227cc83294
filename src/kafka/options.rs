//! The options of Java's Kafka client, `kafka.producer.*` and `kafka.consumer.*`, as librdkafka understands them.
//!
//! Most have the same name there. `RULES` holds those that differ and those that have no equivalent, which are named
//! in the log. librdkafka's own options work as well.

use std::collections::BTreeMap;

use rdkafka::config::{ClientConfig, FromClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaError;
use rdkafka::producer::BaseProducer;
use rdkafka::types::RDKafkaConfRes;

use super::security;
use crate::config::{Props, nearest};

/// How an option of Java's client is given to librdkafka.
enum Rule {
    /// Under these names, with some values replaced.
    As(&'static [&'static str], &'static [(&'static str, &'static str)]),
    /// Under this name, with these values only.
    Among(&'static str, &'static [&'static str]),
    /// In kilobytes instead of bytes.
    Kilobytes(&'static str),
    /// A list of Java classes, of which these have an equivalent.
    Classes(&'static str, &'static [(&'static str, &'static str)]),
    /// These values are what happens anyway; others have no equivalent. With none, Flume has a key of its own for it.
    Always(&'static [&'static str]),
    /// Has no equivalent. What happens instead, or nothing.
    Lacking(&'static str),
    /// Not the client's business, or read by [`security`].
    Elsewhere,
}

use Rule::{Always, Among, As, Classes, Elsewhere, Kilobytes, Lacking};

const MINUS_ONE_IS_DEFAULT: &[(&str, &str)] = &[("-1", "0")];

/// Names that both clients have, for those who misspell them.
const SAME: &[&str] = &[
    "compression.type",
    "enable.idempotence",
    "fetch.max.bytes",
    "fetch.min.bytes",
    "group.instance.id",
    "heartbeat.interval.ms",
    "isolation.level",
    "linger.ms",
    "max.partition.fetch.bytes",
    "max.poll.interval.ms",
    "metadata.max.age.ms",
    "reconnect.backoff.ms",
    "retries",
    "retry.backoff.ms",
    "sasl.mechanism",
    "security.protocol",
    "session.timeout.ms",
    "transaction.timeout.ms",
    "transactional.id",
];

/// What librdkafka does not have under the same name and with the same values, or what has several names there.
const RULES: &[(&str, Rule)] = &[
    ("acks", Among("acks", &["all", "-1", "0", "1"])),
    ("auto.include.jmx.reporter", Lacking("")),
    ("auto.offset.reset", As(&["auto.offset.reset"], &[("none", "error")])),
    ("batch.size", As(&["batch.size"], &[("0", "1")])),
    ("bootstrap.servers", Always(&[])),
    ("buffer.memory", Kilobytes("queue.buffering.max.kbytes")),
    ("client.dns.lookup", As(&["client.dns.lookup"], &[("default", "use_all_dns_ips")])),
    ("connections.max.idle.ms", As(&["connections.max.idle.ms"], MINUS_ONE_IS_DEFAULT)),
    ("default.api.timeout.ms", Lacking("")),
    ("delivery.timeout.ms", As(&["message.timeout.ms"], &[])),
    ("enable.auto.commit", Always(&["false"])),
    ("exclude.internal.topics", Always(&["true"])),
    ("fetch.max.wait.ms", As(&["fetch.wait.max.ms"], &[])),
    ("group.id", Elsewhere),
    ("interceptor.classes", Lacking("")),
    ("key.deserializer", Always(&["org.apache.kafka.common.serialization.StringDeserializer"])),
    ("key.serializer", Always(&["org.apache.kafka.common.serialization.StringSerializer"])),
    ("max.block.ms", Lacking("there is no limit to the wait for brokers and room")),
    ("max.in.flight", As(&["max.in.flight.requests.per.connection"], &[])),
    ("max.poll.records", Lacking("batchSize is the limit")),
    ("max.request.size", As(&["message.max.bytes"], &[])),
    ("metadata.max.idle.ms", Lacking("")),
    ("metric.reporters", Lacking("")),
    ("metrics.num.samples", Lacking("")),
    ("metrics.recording.level", Lacking("")),
    ("metrics.sample.window.ms", Lacking("")),
    (
        "partition.assignment.strategy",
        Classes(
            "partition.assignment.strategy",
            &[
                ("org.apache.kafka.clients.consumer.RangeAssignor", "range"),
                ("org.apache.kafka.clients.consumer.RoundRobinAssignor", "roundrobin"),
                ("org.apache.kafka.clients.consumer.CooperativeStickyAssignor", "cooperative-sticky"),
                ("range", "range"),
                ("roundrobin", "roundrobin"),
                ("cooperative-sticky", "cooperative-sticky"),
            ],
        ),
    ),
    ("partitioner.adaptive.partitioning.enable", Lacking("")),
    ("partitioner.availability.timeout.ms", Lacking("")),
    (
        "partitioner.class",
        Classes(
            "partitioner",
            &[
                ("org.apache.kafka.clients.producer.internals.DefaultPartitioner", "murmur2_random"),
                ("org.apache.kafka.clients.producer.RoundRobinPartitioner", "random"),
                ("org.apache.kafka.clients.producer.UniformStickyPartitioner", "random"),
            ],
        ),
    ),
    ("partitioner.ignore.keys", Always(&["false"])),
    ("queue.buffering.max.ms", As(&["linger.ms"], &[])),
    ("receive.buffer.bytes", As(&["socket.receive.buffer.bytes"], MINUS_ONE_IS_DEFAULT)),
    ("request.required.acks", Among("acks", &["all", "-1", "0", "1"])),
    ("request.timeout.ms", As(&["socket.timeout.ms"], &[])),
    ("sasl.client.callback.handler.class", Lacking("")),
    ("sasl.jaas.config", Elsewhere),
    ("sasl.login.callback.handler.class", Lacking("")),
    ("sasl.login.class", Lacking("")),
    ("security.providers", Lacking("")),
    ("send.buffer.bytes", As(&["socket.send.buffer.bytes"], MINUS_ONE_IS_DEFAULT)),
    ("socket.connection.setup.timeout.max.ms", Lacking("")),
    ("ssl.cipher.suites", Lacking("those are used that OpenSSL recommends")),
    ("ssl.disableTLSHostnameVerification", Elsewhere),
    ("ssl.enabled.protocols", Lacking("TLS 1.2 and 1.3 are used")),
    (
        "ssl.endpoint.identification.algorithm",
        As(&["ssl.endpoint.identification.algorithm"], &[("", "none"), ("HTTPS", "https")]),
    ),
    ("ssl.engine.factory.class", Lacking("")),
    ("ssl.key.password", As(&["ssl.key.password"], &[])),
    ("ssl.keymanager.algorithm", Lacking("")),
    ("ssl.keystore.certificate.chain", As(&["ssl.certificate.pem"], &[])),
    ("ssl.keystore.key", As(&["ssl.key.pem"], &[])),
    ("ssl.keystore.location", Elsewhere),
    ("ssl.keystore.password", Elsewhere),
    ("ssl.keystore.type", Elsewhere),
    ("ssl.protocol", Lacking("TLS 1.2 and 1.3 are used")),
    ("ssl.provider", Lacking("")),
    ("ssl.secure.random.implementation", Lacking("")),
    ("ssl.trustmanager.algorithm", Lacking("")),
    ("ssl.truststore.certificates", As(&["ssl.ca.pem"], &[])),
    ("ssl.truststore.location", Elsewhere),
    ("ssl.truststore.password", Elsewhere),
    ("ssl.truststore.type", Elsewhere),
    ("value.deserializer", Always(&["org.apache.kafka.common.serialization.ByteArrayDeserializer"])),
    ("value.serializer", Always(&["org.apache.kafka.common.serialization.ByteArraySerializer"])),
];

/// What Java's client does, or what keeps an agent small and lets it recover soon.
const COMMON: &[(&str, &str)] = &[
    ("client.id", "flume-rs"),
    ("log.thread.name", "false"),
    ("reconnect.backoff.max.ms", "1000"),
    ("socket.nagle.disable", "true"),
];

/// The default of `message.max.bytes`.
const REQUEST: u64 = 1_000_000;

/// How long a message may wait to be delivered, in milliseconds, and the value for any time.
const TIMEOUT: &str = "message.timeout.ms";
const NEVER: &str = "0";
/// What Java's client has.
const JAVA_TIMEOUT: &str = "120000";

const PRODUCER: &[(&str, &str)] = &[
    // What the channel holds never grows too old.
    (TIMEOUT, NEVER),
    ("linger.ms", "0"),
    ("max.in.flight.requests.per.connection", "5"),
    ("message.max.bytes", "1048576"),
    // The same key goes to the same partition as with Java's client.
    ("partitioner", "murmur2_random"),
    ("queue.buffering.max.kbytes", "32768"),
];

const CONSUMER: &[(&str, &str)] = &[
    // Half of it is how often a consumer without a coordinator tries to connect, whatever the back-off is, and how long
    // a client waits between the broker it asks first and the one it needs, which would be long for a first event.
    ("reconnect.backoff.ms", "500"),
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("allow.auto.create.topics", "true"),
    ("isolation.level", "read_uncommitted"),
    ("check.crcs", "true"),
    ("queued.max.messages.kbytes", "8192"),
    ("queued.min.messages", "10000"),
    ("fetch.queue.backoff.ms", "10"),
    // What the client has that comes with Flume 1.11: how long the partitions of a member that was killed rest.
    ("session.timeout.ms", "10000"),
];

/// What of a client's options a client of another kind needs to reach the same brokers in the same way. It says nothing
/// to the log.
pub fn connection(options: &BTreeMap<String, String>) -> ClientConfig {
    let families = ["ssl.", "sasl.", "security.", "socket.", "reconnect.", "client.", "broker.", "enable.s", "https."];
    let is_shared = |name: &str| families.iter().any(|start| name.starts_with(start)) || name == "bootstrap.servers";
    let shared = options.iter().filter(|(name, _)| is_shared(name));
    let mut config: ClientConfig = shared.map(|(name, value)| (name.clone(), value.clone())).collect();
    config.set_log_level(RDKafkaLogLevel::Emerg);
    config
}

/// Options of one client, by librdkafka's names.
#[derive(Clone, Debug)]
pub struct Options(BTreeMap<String, String>);

impl Options {
    /// Reads `kafka.producer.*`. `own` are the defaults of the component.
    pub fn producer(props: &Props<'_>, servers: &str, own: &[(&str, &str)]) -> Self {
        let mut options = Self::read(props, "kafka.producer", servers, &[PRODUCER, own]);
        options.make_room();
        options
    }

    /// Reads `kafka.consumer.*`. `own` are the defaults of the component.
    pub fn consumer(props: &Props<'_>, servers: &str, own: &[(&str, &str)]) -> Self {
        let mut options = Self::read(props, "kafka.consumer", servers, &[CONSUMER, own]);
        options.ask_for_less();
        options
    }

    /// Has a producer look at the options together.
    pub fn try_producer(&self, props: &Props<'_>) {
        self.try_out::<BaseProducer>(props, "kafka.producer");
    }

    /// Has a consumer look at the options together.
    pub fn try_consumer(&self, props: &Props<'_>) {
        self.try_out::<BaseConsumer>(props, "kafka.consumer");
    }

    fn read(props: &Props<'_>, family: &str, servers: &str, defaults: &[&[(&str, &str)]]) -> Self {
        let defaults = COMMON.iter().chain(defaults.iter().copied().flatten());
        let mut options = Self(defaults.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect());
        for (name, property) in props.family(family) {
            options.translate(props, &format!("{family}.{name}"), name, &property.value);
        }
        options.set("bootstrap.servers", servers);
        security::read(props, family, &mut options);
        options
    }

    /// The value of an option.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Sets an option.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.0.insert(name.to_owned(), value.into());
    }

    /// Leaves an option to librdkafka.
    pub fn unset(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// Lets messages expire when Java's client does, unless there is a limit already.
    pub fn let_expire(&mut self) {
        if self.get(TIMEOUT) == Some(NEVER) {
            self.set(TIMEOUT, JAVA_TIMEOUT);
        }
    }

    /// For making clients.
    pub fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::from_iter(self.0.clone());
        config.set_log_level(RDKafkaLogLevel::Info);
        config
    }

    /// For clients of another kind that reach the same brokers in the same way.
    pub fn connection(&self) -> ClientConfig {
        connection(&self.0)
    }

    fn translate(&mut self, props: &Props<'_>, key: &str, name: &str, value: &str) {
        match RULES.iter().find(|(java, _)| *java == name).map(|(_, rule)| rule) {
            Some(As(names, pairs)) => {
                let value = pairs.iter().find(|(java, _)| *java == value).map_or(value, |(_, native)| native);
                for name in *names {
                    self.check_and_set(props, key, name, value);
                }
            }
            Some(Among(name, values)) if values.contains(&value.trim()) => self.set(name, value.trim()),
            Some(Among(_, values)) => props.error(key, &format!("one of {}", values.join(", ")), ""),
            Some(Kilobytes(name)) => match value.trim().parse::<u64>() {
                Ok(bytes) => self.check_and_set(props, key, name, &bytes.div_ceil(1024).max(1).to_string()),
                Err(_) => props.error(key, "a number of bytes", ""),
            },
            Some(Classes(name, pairs)) => {
                let native =
                    |class: &str| pairs.iter().find(|(java, _)| *java == class.trim()).map(|(_, native)| *native);
                match value.split(',').map(native).collect::<Option<Vec<_>>>() {
                    Some(natives) => self.check_and_set(props, key, name, &natives.join(",")),
                    None => lacking(props, key, "the default is used"),
                }
            }
            Some(Always(values)) if values.contains(&value) => {}
            Some(Always(values)) => match values.first() {
                Some(value) => lacking(props, key, &format!("it is always {value}")),
                None => props.warning(key, &format!("has no effect, kafka.{name} is used")),
            },
            Some(Lacking(instead)) => lacking(props, key, instead),
            Some(Elsewhere) => {}
            None => self.check_and_set(props, key, name, value),
        }
    }

    /// Makes a client that knows no brokers, as some values are right only beside others.
    fn try_out<C: FromClientConfig>(&self, props: &Props<'_>, family: &str) {
        // These would ask others for a ticket.
        let mechanism = self.get("sasl.mechanism").or_else(|| self.get("sasl.mechanisms"));
        if mechanism.is_some_and(|mechanism| ["GSSAPI", "OAUTHBEARER"].contains(&mechanism)) {
            return;
        }
        let mut config = self.config();
        config.remove("bootstrap.servers").set_log_level(RDKafkaLogLevel::Emerg);
        let Err(error) = config.create::<C>() else { return };
        let why = match &error {
            KafkaError::ClientCreation(why) => why.trim(),
            // What is wrong by itself has been named.
            _ => return,
        };
        let is_meant = |java: &str| {
            let native = RULES.iter().find(|(name, _)| *name == java).map(|(_, rule)| rule);
            why.contains(java) || matches!(native, Some(As(names, _)) if names.iter().any(|name| why.contains(name)))
        };
        let meant = props.family(family).into_iter().find(|(java, _)| is_meant(java));
        let key = meant.map_or_else(|| "kafka.bootstrap.servers".to_owned(), |(java, _)| format!("{family}.{java}"));
        props.error(&key, &format!("options that the Kafka client takes together; it says: {why}"), "");
    }

    /// Lets librdkafka look at a value before it is kept.
    fn check_and_set(&mut self, props: &Props<'_>, key: &str, name: &str, value: &str) {
        let mut config = ClientConfig::new();
        config.set(name, value);
        // It cuts numbers off at 32 bits before it looks at them.
        if let Ok(number) = value.trim().parse::<i128>()
            && ClientConfig::new().set(name, "x").create_native_config().is_err()
            && let Some(most) = most(name).filter(|most| *most < number)
        {
            props.warning(key, &format!("the Kafka client takes at most {most}, which is used"));
            return self.set(name, most.to_string());
        }
        match config.create_native_config() {
            Ok(_) => self.set(name, value),
            Err(KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, ..)) => {
                let known = RULES.iter().map(|(java, _)| *java).chain(self.0.keys().map(String::as_str));
                let known = known.chain(SAME.iter().copied());
                let hint = nearest(name, known).map_or(String::new(), |near| format!("; did you mean \"{near}\"?"));
                props.warning(key, &format!("no option of the Kafka client, ignored{hint}"));
            }
            Err(KafkaError::ClientConfig(_, why, ..)) => {
                props.error(key, &format!("a value that the Kafka client takes; it says: {}", why.trim()), "");
            }
            Err(error) => props.error(key, &format!("a value that the Kafka client takes; it says: {error}"), ""),
        }
    }

    /// Who fetches little at once must not expect large requests, says librdkafka.
    fn ask_for_less(&mut self) {
        let most = self.get("fetch.max.bytes").and_then(|value| value.parse::<u64>().ok());
        if let Some(most) = most.filter(|most| *most < REQUEST)
            && self.get("message.max.bytes").is_none()
        {
            self.set("message.max.bytes", most.max(1000).to_string());
        }
    }

    /// A message that is allowed must fit into the queue, or it would wait for room for ever.
    fn make_room(&mut self) {
        let number = |name: &str| self.get(name).and_then(|value| value.parse::<u64>().ok()).unwrap_or_default();
        let least = number("message.max.bytes").div_ceil(1024) * 2;
        if number("queue.buffering.max.kbytes") < least {
            self.set("queue.buffering.max.kbytes", least.to_string());
        }
    }
}

/// The largest number that librdkafka takes for an option, which it says when it gets a larger one.
fn most(name: &str) -> Option<i128> {
    let refused = ClientConfig::new().set(name, i32::MAX.to_string()).create_native_config();
    match refused {
        Ok(_) => Some(i32::MAX.into()),
        Err(KafkaError::ClientConfig(_, why, ..)) => {
            why.trim().rsplit_once("..").and_then(|(_, most)| most.parse().ok())
        }
        Err(_) => None,
    }
}

fn lacking(props: &Props<'_>, key: &str, instead: &str) {
    let instead = if instead.is_empty() { String::new() } else { format!("; {instead}") };
    props.warning(key, &format!("has no equivalent in librdkafka and no effect{instead}"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::tests::with_props;

    fn producer(text: &str) -> (Options, Vec<String>) {
        with_props(text, |props| Options::producer(props, "b1:9092", &[("acks", "1")]))
    }

    #[test]
    fn every_rule_names_what_librdkafka_has_and_only_once() {
        for (java, rule) in RULES {
            let names = match rule {
                As(names, _) => names,
                Kilobytes(name) | Classes(name, _) | Among(name, _) => std::slice::from_ref(name),
                Always(_) | Lacking(_) | Elsewhere => &[],
            };
            for name in names {
                let set = ClientConfig::new().set(*name, "1").create_native_config();
                let unknown = matches!(set, Err(KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, ..)));
                assert!(!unknown, "{java} becomes {name}, which is unknown");
            }
        }
        assert!(RULES.is_sorted_by(|(a, _), (b, _)| a < b), "the table is in order");
    }

    #[test]
    fn defaults_are_those_of_java_and_never_let_a_message_expire() {
        let (options, findings) = producer("");
        assert_eq!(findings, [""; 0]);
        for (name, value) in [
            ("acks", "1"),
            ("bootstrap.servers", "b1:9092"),
            ("message.timeout.ms", "0"),
            ("max.in.flight.requests.per.connection", "5"),
            ("partitioner", "murmur2_random"),
        ] {
            assert_eq!(options.get(name), Some(value), "{name}");
        }
        options.config().create_native_config().expect("librdkafka takes them");
        let (options, _) = with_props("", |props| Options::consumer(props, "b1:9092", &[]));
        options.config().create_native_config().expect("librdkafka takes them");
    }

    #[test]
    fn messages_expire_when_they_are_let_to_or_as_the_configuration_says() {
        for (text, expected) in [("", "120000"), ("delivery.timeout.ms = 5000", "5000")] {
            let (mut options, _) = producer(text);
            options.let_expire();
            assert_eq!(options.get("message.timeout.ms"), Some(expected));
        }
    }

    #[test]
    fn java_names_and_values_become_those_of_librdkafka() {
        let (options, findings) = producer(
            "acks = all\nbuffer.memory = 100000000\nmax.request.size = 2000000\ndelivery.timeout.ms = 5000\n\
             request.timeout.ms = 1500\nsend.buffer.bytes = -1\nbatch.size = 0\ncompression.type = zstd\n\
             partitioner.class = org.apache.kafka.clients.producer.RoundRobinPartitioner\nretries = 3\n\
             linger.ms = 20\nkey.serializer = org.apache.kafka.common.serialization.StringSerializer\n\
             queue.buffering.max.messages = 7\nenable.idempotence = true",
        );
        assert_eq!(findings, [""; 0]);
        for (name, value) in [
            ("acks", "all"),
            ("queue.buffering.max.kbytes", "97657"),
            ("message.max.bytes", "2000000"),
            ("message.timeout.ms", "5000"),
            ("socket.timeout.ms", "1500"),
            ("socket.send.buffer.bytes", "0"),
            ("batch.size", "1"),
            ("compression.type", "zstd"),
            ("partitioner", "random"),
            ("retries", "3"),
            ("linger.ms", "20"),
            ("queue.buffering.max.messages", "7"),
            ("bootstrap.servers", "b1:9092"),
        ] {
            assert_eq!(options.get(name), Some(value), "{name}");
        }
    }

    #[test]
    fn another_client_reaches_the_same_brokers_in_the_same_way() {
        let (options, _) = producer(
            "enable.ssl.certificate.verification = false\nbroker.address.family = v4\nssl.key.password = x\nlinger.ms = 9",
        );
        let connection = options.connection();
        for (name, value) in [
            ("bootstrap.servers", Some("b1:9092")),
            ("enable.ssl.certificate.verification", Some("false")),
            ("broker.address.family", Some("v4")),
            ("ssl.key.password", Some("x")),
            ("linger.ms", None),
        ] {
            assert_eq!(connection.get(name), value, "{name}");
        }
    }

    #[test]
    fn what_has_no_equivalent_is_named() {
        let (_, findings) = producer(
            "max.block.ms = 1\npartitioner.class = com.example.Mine\nvalue.serializer = com.example.Json\nlinger.mss = 1\nretrys = 3\nbootstrap.servers = other:1",
        );
        assert_eq!(
            findings,
            [
                "kafka.producer.bootstrap.servers: has no effect, kafka.bootstrap.servers is used",
                "kafka.producer.linger.mss: no option of the Kafka client, ignored; did you mean \"linger.ms\"?",
                "kafka.producer.max.block.ms: has no equivalent in librdkafka and no effect; there is no limit to the wait for brokers and room",
                "kafka.producer.partitioner.class: has no equivalent in librdkafka and no effect; the default is used",
                "kafka.producer.retrys: no option of the Kafka client, ignored; did you mean \"retries\"?",
                "kafka.producer.value.serializer: has no equivalent in librdkafka and no effect; it is always org.apache.kafka.common.serialization.ByteArraySerializer",
            ]
        );
    }

    #[test]
    fn a_value_that_librdkafka_refuses_is_an_error() {
        let (_, findings) = producer("compression.type = rar");
        assert!(findings[0].starts_with("kafka.producer.compression.type: expected a value that"), "{findings:?}");
        let (_, findings) = producer("buffer.memory = much");
        assert_eq!(findings, ["kafka.producer.buffer.memory: expected a number of bytes"]);
    }

    #[test]
    fn numbers_are_not_cut_off() {
        let (options, findings) = with_props(
            "max.request.size = 4294968346\nretries = 99999999999\nclient.id = 99999999999\nmax.poll.interval.ms = 2147483647",
            |props| Options::read(props, "kafka.producer", "b1:9092", &[]),
        );
        let most = |key: &str, most: &str| {
            format!("kafka.producer.{key}: the Kafka client takes at most {most}, which is used")
        };
        let expected = [
            most("max.poll.interval.ms", "86400000"),
            most("max.request.size", "1000000000"),
            most("retries", "2147483647"),
        ];
        assert_eq!(findings, expected);
        assert_eq!(options.get("message.max.bytes"), Some("1000000000"));
        assert_eq!(options.get("client.id"), Some("99999999999"));
        let (_, findings) = producer("acks = 5");
        assert_eq!(findings, ["kafka.producer.acks: expected one of all, -1, 0, 1"]);
    }

    #[test]
    fn options_that_do_not_go_together_are_an_error() {
        for (text, key) in [
            ("enable.idempotence = true", "enable.idempotence"),
            ("transactional.id = x\nacks = all\nretries = 0", "retries"),
            ("ssl.ca.location = /is/not/there.pem\nsecurity.protocol = SSL", "ssl.ca.location"),
        ] {
            let (_, findings) = with_props(text, |props| {
                Options::producer(props, "b1:9092", &[("acks", "1"), ("message.timeout.ms", "1000")])
                    .try_producer(props);
            });
            assert!(
                findings.len() == 1 && findings[0].starts_with(&format!("kafka.producer.{key}: expected options that")),
                "{findings:?}"
            );
        }
        let (_, findings) = with_props("session.timeout.ms = 400000", |props| {
            Options::consumer(props, "b1:9092", &[("group.id", "g")]).try_consumer(props);
        });
        assert!(findings.len() == 1 && findings[0].starts_with("kafka.consumer.session.timeout.ms: "), "{findings:?}");
        // What Java's client takes.
        for text in ["", "fetch.max.bytes = 500000", "max.poll.interval.ms = 30000", "session.timeout.ms = 45000"] {
            let (_, findings) = with_props(text, |props| {
                Options::consumer(props, "b1:9092", &[("group.id", "g")]).try_consumer(props);
                Options::producer(props, "b1:9092", &[("acks", "1")]).try_producer(props);
            });
            assert!(findings.iter().all(|finding| finding.ends_with("ignored")), "{text}: {findings:?}");
        }
    }

    #[test]
    fn the_largest_message_fits_into_the_queue() {
        let (options, _) = producer("max.request.size = 100000000\nbuffer.memory = 1000");
        assert_eq!(options.get("queue.buffering.max.kbytes"), Some("195314"));
    }
}
