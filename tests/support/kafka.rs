//! Real Kafka brokers, and a client that looks at what is in them.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{Header, Headers as _, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tempfile::TempDir;

use super::{DEADLINE, directory, interop, java_peers};

/// How long brokers may take to answer before they are asked again: the one that was asked may be the wrong one.
const ATTEMPT: Duration = Duration::from_secs(10);
/// The version of the brokers.
const JARS: &str = "kafka-3.9.1";

/// The only user of the listener that asks for one, and the password.
pub const KAFKA_USER: (&str, &str) = ("flume", "secret");

/// Brokers that run. Those that live as long as the tests end with the process, whose end they notice.
pub struct Kafka {
    servers: String,
    port: u16,
    home: TempDir,
    /// Its standard input keeps the brokers running.
    serving: Child,
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The number of its partition.
    pub partition: i32,
    /// The key.
    pub key: Option<String>,
    /// The value.
    pub value: Vec<u8>,
    /// The headers.
    pub headers: BTreeMap<String, String>,
    /// When it was made, in milliseconds since 1970.
    pub timestamp: Option<i64>,
}

impl Message {
    /// The value as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.value).into_owned()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Kafka {
    /// One broker for all tests; nothing where it cannot be had, and the test is skipped.
    pub fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Option<Kafka>> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(1)).as_ref()
    }

    /// One broker for all tests that kill it, of which one has it at a time. It makes no topics by itself.
    pub fn mortal() -> Option<MutexGuard<'static, Self>> {
        static MORTAL: OnceLock<Option<Mutex<Kafka>>> = OnceLock::new();
        // It comes back only when the controller has missed it for long enough.
        let options =
            "auto.create.topics.enable=false\nbroker.session.timeout.ms=3000\nbroker.heartbeat.interval.ms=500";
        let mortal = MORTAL.get_or_init(|| Self::start_with(1, &[("KAFKA_OPTIONS", options)]).map(Mutex::new));
        let kafka = mortal.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
        // A test that failed may have left it dead.
        if TcpStream::connect(("127.0.0.1", kafka.port)).is_err() {
            kafka.revive(1);
        }
        Some(kafka)
    }

    /// One broker whose messages are on a disk of this size, for example `32m`; nothing where no disk can be mounted,
    /// too.
    pub fn with_disk(size: &str) -> Option<Self> {
        can_mount().then(|| Self::start_with(1, &[("KAFKA_DISK", size)])).flatten()
    }

    /// Brokers of their own for one test.
    pub fn start(brokers: usize) -> Option<Self> {
        Self::start_with(brokers, &[])
    }

    fn start_with(brokers: usize, environment: &[(&str, &str)]) -> Option<Self> {
        let _turn = java_peers(&[JARS])?;
        // Another process may have taken the ports that were free.
        let started = (0..3).find_map(|_| Self::serve(brokers, environment));
        Some(started.expect("the brokers start"))
    }

    fn serve(brokers: usize, environment: &[(&str, &str)]) -> Option<Self> {
        let (port, home) = (free_ports(), directory());
        let mut command = Command::new(interop("kafka.sh"));
        command.args(["serve", &brokers.to_string()]).env("KAFKA_PORT", port.to_string());
        command
            .env("KAFKA_DIR", home.path())
            .env("KAFKA_HEAP", "256m")
            .env("KAFKA_SASL", format!("{}:{}", KAFKA_USER.0, KAFKA_USER.1))
            .env("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1")
            .envs(environment.iter().copied());
        let mut serving = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the script starts");
        let output = BufReader::new(serving.stdout.take().expect("the output is piped"));
        let ready =
            output.lines().map_while(Result::ok).find_map(|line| Some(line.strip_prefix("kafka ready: ")?.to_owned()));
        let kafka = Self { servers: ready.unwrap_or_default(), port, home, serving };
        (!kafka.servers.is_empty()).then_some(kafka)
    }

    /// `host:port` of all brokers.
    pub fn servers(&self) -> &str {
        &self.servers
    }

    /// Where the first broker asks for user and password.
    pub fn guarded_server(&self) -> String {
        format!("127.0.0.1:{}", self.port + 50)
    }

    fn run(&self, arguments: &[&str]) {
        let mut command = Command::new(interop("kafka.sh"));
        command.args(arguments).env("KAFKA_PORT", self.port.to_string()).env("KAFKA_DIR", self.home.path());
        command.env("KAFKA_HEAP", "256m").env("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1").stdin(Stdio::null());
        let status = command.stdout(Stdio::null()).status().expect("the script starts");
        assert!(status.success(), "kafka.sh {arguments:?}");
    }

    /// Kills a broker as `kill -9` does. They count from 1.
    pub fn kill(&self, broker: i32) {
        self.run(&["kill-broker", &broker.to_string()]);
    }

    /// Starts one that was killed.
    pub fn revive(&self, broker: i32) {
        self.run(&["start-broker", &broker.to_string()]);
    }

    /// Gives the disk of the only broker another size.
    pub fn resize_disk(&self, size: &str) {
        self.run(&["disk", "1", size]);
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.servers).set("reconnect.backoff.max.ms", "500");
        config.set_log_level(RDKafkaLogLevel::Emerg);
        config
    }

    /// A new topic that no other test has.
    pub fn topic(&self, partitions: i32, options: &[(&str, &str)]) -> String {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let name = format!("topic-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        self.make_topic(&name, partitions, options);
        name
    }

    /// Makes a topic of this name.
    pub fn make_topic(&self, name: &str, partitions: i32, options: &[(&str, &str)]) {
        let mut topic =
            NewTopic::new(name, partitions, TopicReplication::Fixed(self.servers.split(',').count().min(3) as i32));
        for (key, value) in options {
            topic = topic.set(key, value);
        }
        let admin: AdminClient<DefaultClientContext> = self.config().create().expect("a client");
        let options = AdminOptions::new().operation_timeout(Some(ATTEMPT)).request_timeout(Some(ATTEMPT));
        // A client that has just heard which brokers there are may leave the one that it has asked.
        let made = super::eventually(|| futures_block_on(admin.create_topics([&topic], &options)).ok());
        let made = made.expect("the broker answers");
        let again = [Err((name.to_owned(), RDKafkaErrorCode::TopicAlreadyExists))];
        assert!(made == [Ok(name.to_owned())] || made == again, "{made:?}");
    }

    /// The broker that leads partition 0 of a topic.
    pub fn leader(&self, topic: &str) -> i32 {
        let consumer: BaseConsumer = self.config().create().expect("a client");
        let leader = super::eventually(|| {
            let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(5)).ok()?;
            Some(metadata.topics()[0].partitions().first()?.leader()).filter(|leader| *leader > 0)
        });
        leader.expect("the topic has a leader")
    }

    /// Sends messages with these values, to the partition if one is named, and waits until they are there.
    pub fn produce(&self, topic: &str, partition: Option<i32>, values: impl IntoIterator<Item = impl AsRef<[u8]>>) {
        let mut config = self.config();
        // A broker that is killed meanwhile must not make a message two.
        config.set("enable.idempotence", "true");
        let producer: BaseProducer = config.create().expect("a client");
        for value in values {
            let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic).payload(value.as_ref());
            record.partition = partition;
            producer.send(record).map_err(|(error, _)| error).expect("room for a message");
        }
        producer.flush(DEADLINE).expect("the broker takes the messages");
    }

    /// Stores an offset for partition 0 of a topic with a group that has no members.
    pub fn store(&self, group: &str, topic: &str, metadata: &str) {
        self.store_at(group, topic, 1, metadata);
    }

    fn member(&self, group: &str) -> BaseConsumer {
        let mut config = self.config();
        config.set("group.id", group);
        config.create().expect("a client")
    }

    /// The offset that a group has stored for partition 0 of a topic, and its metadata.
    pub fn stored(&self, group: &str, topic: &str) -> (i64, String) {
        let consumer = self.member(group);
        let stored = super::eventually(|| {
            let mut list = TopicPartitionList::new();
            list.add_partition(topic, 0);
            let stored = consumer.committed_offsets(list, Duration::from_secs(5)).ok()?;
            let one = stored.find_partition(topic, 0)?;
            Some((one.offset().to_raw()?, one.metadata().to_owned()))
        });
        stored.expect("the broker answers")
    }

    /// Stores this offset for partition 0 of a topic with a group that has no members.
    pub fn store_at(&self, group: &str, topic: &str, offset: i64, metadata: &str) {
        let consumer = self.member(group);
        let mut list = TopicPartitionList::new();
        let mut one = list.add_partition(topic, 0);
        one.set_offset(Offset::Offset(offset)).expect("an offset");
        one.set_metadata(metadata);
        let stored = super::eventually(|| consumer.commit(&list, CommitMode::Sync).ok());
        stored.expect("the broker stores it");
    }

    /// Sends a message with a key and headers.
    pub fn produce_headed(&self, topic: &str, partition: i32, key: &str, value: &str, headers: &[(&str, &str)]) {
        let producer: BaseProducer = self.config().create().expect("a client");
        let headers = headers
            .iter()
            .fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value: Some(*value) }));
        let record = BaseRecord::to(topic).partition(partition).key(key).payload(value).headers(headers);
        producer.send(record).map_err(|(error, _)| error).expect("room for a message");
        producer.flush(DEADLINE).expect("the broker takes the message");
    }

    /// All messages of a topic, once there are so many or the deadline is over; in the order of their partitions.
    pub fn read(&self, topic: &str, count: usize) -> Vec<Message> {
        self.read_until(topic, |messages| messages.len() >= count)
    }

    /// The same, of those that a reader of committed transactions sees, until they are enough.
    pub fn read_until(&self, topic: &str, enough: impl Fn(&[Message]) -> bool) -> Vec<Message> {
        let mut config = self.config();
        config.set("group.id", "tests").set("isolation.level", "read_committed").set("enable.auto.commit", "false");
        config.set("topic.metadata.refresh.interval.ms", "500");
        let consumer: BaseConsumer = config.create().expect("a client");
        let partitions = super::eventually(|| {
            let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(5)).ok()?;
            Some(metadata.topics()[0].partitions().len()).filter(|count| *count > 0)
        });
        let mut assignment = TopicPartitionList::new();
        for partition in 0..partitions.expect("the topic is there") as i32 {
            assignment.add_partition_offset(topic, partition, Offset::Beginning).expect("an offset");
        }
        consumer.assign(&assignment).expect("an assignment");
        let mut messages = Vec::new();
        let end = Instant::now() + DEADLINE;
        // Once there are enough, whatever else is there comes at once.
        let mut quiet = 0;
        while Instant::now() < end && quiet < 3 {
            match consumer.poll(Duration::from_millis(200)) {
                Some(Ok(message)) => {
                    let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
                    let headers = headers.map(|one| (one.key.to_owned(), text(one.value.unwrap_or_default())));
                    messages.push(Message {
                        partition: message.partition(),
                        key: message.key().map(text),
                        value: message.payload().unwrap_or_default().to_vec(),
                        headers: headers.collect(),
                        timestamp: message.timestamp().to_millis(),
                    });
                    quiet = 0;
                }
                _ => quiet = if enough(&messages) { quiet + 1 } else { 0 },
            }
        }
        messages.sort_by_key(|message| message.partition);
        messages
    }
}

/// Whether this user may mount what is in memory. Without that a test is skipped with a word.
fn can_mount() -> bool {
    let at = directory();
    let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "probe"]).arg(at.path()).output();
    let why = match mount {
        Ok(output) if output.status.success() => {
            let gone = Command::new("umount").arg(at.path()).status();
            assert!(gone.expect("umount is where mount is").success(), "the probe can be unmounted");
            return true;
        }
        Ok(output) => text(&output.stderr),
        Err(error) => error.to_string(),
    };
    // Not by `eprintln!`, which the test harness would keep to itself.
    let _nobody_listens = writeln!(std::io::stderr(), "SKIPPED: no small disk can be mounted: {}", why.trim());
    false
}

/// The first of some free ports, with others 50 and 100 above them, that no other call gives.
fn free_ports() -> u16 {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    const BLOCKS: usize = 35;
    (0..BLOCKS)
        .map(|_| std::process::id() as usize + NEXT.fetch_add(1, Ordering::Relaxed))
        .map(|number| 13_000 + (number % BLOCKS * 200) as u16)
        .find(|port| {
            (0..3).all(|n| {
                [port + n, port + 50 + n, port + 100 + n]
                    .iter()
                    .all(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
            })
        })
        .expect("some ports below 20000 are free")
}

/// Admin operations are finished by a thread of their own.
fn futures_block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = Box::pin(future);
    super::eventually(|| future.as_mut().now_or_never()).expect("the broker answers in time")
}

impl Drop for Kafka {
    fn drop(&mut self) {
        drop(self.serving.stdin.take());
        let _gone = self.serving.wait();
    }
}
