//! A consumer that is asked for messages without waiting, and that commits what has been delivered.
//!
//! Offsets are committed in the background, one request at a time: what is delivered while one is under way goes with
//! the next. Before a partition is given up, what was delivered from it is committed. With channels that keep notes it goes
//! on where these say (`streams`).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::BorrowedMessage;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::Notify;
use tokio::task::block_in_place;
use tokio::time::timeout;
use tracing::{info, warn};

use super::Words;
use super::context::{Voice, is_logged};
use super::streams::Streams;
use crate::channel::Note;

/// A member of a group that does not ask for so long is taken for dead after some minutes.
const ASK_AT_LEAST: Duration = Duration::from_secs(10);

/// How long a commit that failed waits for the next attempt.
const COMMIT_AGAIN: Duration = Duration::from_secs(1);

/// How far partitions have come: the next offset of each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Positions(Vec<(String, i32, i64)>);

impl Positions {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Notes that everything before `next` is done.
    pub fn advance(&mut self, topic: &str, partition: i32, next: i64) {
        match self.0.iter_mut().rev().find(|(t, p, _)| *p == partition && t == topic) {
            Some((_, _, offset)) => *offset = next,
            None => self.0.push((topic.to_owned(), partition, next)),
        }
    }

    /// Adds what others have come to.
    pub fn merge(&mut self, other: Self) {
        for (topic, partition, next) in other.0 {
            self.advance(&topic, partition, next);
        }
    }

    /// Adds what has not come further in the meantime.
    fn merge_older(&mut self, older: Self) {
        let newer = std::mem::replace(self, older);
        self.merge(newer);
    }

    /// Only those of these partitions.
    fn keep(&mut self, assigned: &TopicPartitionList) {
        self.0.retain(|(topic, partition, _)| assigned.find_partition(topic, *partition).is_some());
    }

    /// Topic, partition and next offset of each.
    pub fn iter(&self) -> impl Iterator<Item = &(String, i32, i64)> {
        self.0.iter()
    }
}

#[derive(Default)]
struct Commits {
    /// Delivered, and in no request yet.
    due: Positions,
    /// When the request that is under way was made.
    asked: Option<Instant>,
    /// How long requests have taken since somebody asked.
    spent: Duration,
    /// Partitions that have gone since somebody asked.
    revoked: Vec<(String, i32)>,
}

/// What librdkafka tells the consumer.
pub struct Context {
    owner: String,
    voice: Voice,
    commits: Mutex<Commits>,
    streams: Streams,
    /// Where a partition begins of which nothing is committed.
    reset: String,
    /// Whether something other than a message has come.
    served: AtomicBool,
}

impl Context {
    fn commits(&self) -> MutexGuard<'_, Commits> {
        self.commits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn list(&self, positions: &Positions) -> KafkaResult<TopicPartitionList> {
        let mut list = TopicPartitionList::with_capacity(positions.0.len());
        for (topic, partition, next) in positions.iter() {
            let mut one = list.add_partition(topic, *partition);
            one.set_offset(Offset::Offset(*next))?;
            if let Some(metadata) = self.streams.metadata(topic, *partition, *next) {
                one.set_metadata(metadata);
            }
        }
        Ok(list)
    }

    fn committed(&self, positions: Positions, result: KafkaResult<()>) {
        let mut commits = self.commits();
        if let Some(asked) = commits.asked.take() {
            commits.spent += asked.elapsed();
        }
        if result.is_err() {
            commits.due.merge_older(positions);
        }
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.served.store(true, Ordering::Relaxed);
        self.voice.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.served.store(true, Ordering::Relaxed);
        self.voice.error(error, reason);
    }
}

impl ConsumerContext for Context {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        self.served.store(true, Ordering::Relaxed);
        match rebalance {
            Rebalance::Assign(list) => {
                info!("{}: partitions assigned: {}", self.owner, names(list));
                blocking(|| self.streams.assigned(&self.owner, consumer, &self.reset, list));
            }
            Rebalance::Revoke(list) => {
                info!("{}: partitions revoked: {}", self.owner, names(list));
                let due = {
                    let mut commits = self.commits();
                    let gone = list.elements();
                    commits.revoked.extend(gone.iter().map(|one| (one.topic().to_owned(), one.partition())));
                    std::mem::take(&mut commits.due)
                };
                if !due.is_empty() {
                    // It is sent before the partitions go.
                    if let Err(error) = self.list(&due).and_then(|list| consumer.commit(&list, CommitMode::Async)) {
                        warn!("{}: the last offsets could not be committed: {}", self.owner, Words(&error));
                    }
                }
                self.streams.revoked(consumer, list);
                // The client remembers what is paused, and `go_on` only knows what is assigned by then.
                consumer.resume(list).ok();
            }
            Rebalance::Error(error) => warn!("{}: partitions could not be shared out: {}", self.owner, Words(error)),
        }
    }
}

/// Does what waits for brokers, which must not keep other tasks waiting.
fn blocking(work: impl FnOnce()) {
    let flavor = Handle::try_current().map(|runtime| runtime.runtime_flavor());
    match flavor {
        Ok(RuntimeFlavor::MultiThread) => block_in_place(work),
        _ => work(),
    }
}

fn names(list: &TopicPartitionList) -> String {
    let names: Vec<String> = list.elements().iter().map(|one| format!("{}-{}", one.topic(), one.partition())).collect();
    names.join(", ")
}

/// A member of a consumer group.
pub struct Consumer {
    /// Taken when it is dropped, which takes its time.
    inner: Option<Arc<BaseConsumer<Context>>>,
    readable: Arc<Notify>,
}

impl Consumer {
    /// A consumer of topics for a component, for example `Source r1`. A topic that begins with `^` is a pattern.
    pub fn new(config: &ClientConfig, owner: &str, topics: &[&str]) -> KafkaResult<Self> {
        let context = Context {
            owner: owner.to_owned(),
            voice: Voice::new(owner, config),
            commits: Mutex::default(),
            streams: Streams::default(),
            reset: config.get("auto.offset.reset").unwrap_or("largest").to_owned(),
            served: AtomicBool::new(false),
        };
        let mut inner: BaseConsumer<Context> = config.create_with_context(context)?;
        let readable = Arc::new(Notify::new());
        let signal = Arc::clone(&readable);
        inner.set_nonempty_callback(move || signal.notify_one());
        inner.subscribe(topics)?;
        Ok(Self { inner: Some(Arc::new(inner)), readable })
    }

    fn client(&self) -> &Arc<BaseConsumer<Context>> {
        self.inner.as_ref().expect("it is only taken when it is dropped")
    }

    fn commits(&self) -> MutexGuard<'_, Commits> {
        self.client().client().context().commits()
    }

    fn streams(&self) -> &Streams {
        &self.client().client().context().streams
    }

    /// Has the consumer go on where this says that the channels are, which must be open. To be called before anything
    /// else.
    pub fn recall(&self, noted: impl Fn(u128) -> Option<u64> + Send + Sync + 'static) {
        self.streams().recall(noted);
    }

    /// What the channels are to store with the messages before these positions.
    pub fn notes(&self, positions: &Positions) -> Option<Arc<[Note]>> {
        Some(self.streams().notes(positions)).filter(|notes| !notes.is_empty()).map(Arc::from)
    }

    /// Why this consumer gives no more messages, if that is so.
    pub fn failed(&self) -> Option<&str> {
        self.streams().failed()
    }

    /// The next message that is here, if any. This also serves everything else that the group asks of a member.
    pub fn next(&self) -> Option<KafkaResult<BorrowedMessage<'_>>> {
        let served = &self.client().client().context().served;
        loop {
            served.store(false, Ordering::Relaxed);
            let outcome = self.client().poll(Duration::ZERO);
            if self.failed().is_some() {
                return None;
            }
            let error = outcome.as_ref().and_then(|outcome| outcome.as_ref().err());
            if error.and_then(KafkaError::rdkafka_error_code).is_some_and(is_logged) {
                continue;
            }
            // Behind what is no message there may be one, and no signal comes before all has been taken.
            if outcome.is_some() || !served.load(Ordering::Relaxed) {
                return outcome;
            }
        }
    }

    /// Waits until there may be a message, or until it is time to ask all the same.
    pub async fn readable(&self) {
        timeout(ASK_AT_LEAST, self.readable.notified()).await.ok();
    }

    /// The partitions that are gone since this was last asked. What of them is not committed comes again, to whoever
    /// has them now.
    pub fn revoked(&self) -> Vec<(String, i32)> {
        std::mem::take(&mut self.commits().revoked)
    }

    /// Keeps the consumer a member of its group while nothing can be taken from it. Whatever is there stays there,
    /// but for messages that were on their way, which `stray` gets.
    pub fn hold(&self, mut stray: impl FnMut(BorrowedMessage<'_>)) {
        if let Ok(assigned) = self.client().assignment() {
            self.client().pause(&assigned).ok();
        }
        while let Some(outcome) = self.next() {
            outcome.ok().map(&mut stray);
        }
    }

    /// Ends what [`hold`](Self::hold) began.
    pub fn go_on(&self) {
        if let Ok(assigned) = self.client().assignment() {
            self.client().resume(&assigned).ok();
        }
    }

    /// Notes what has been delivered, and has it committed unless a request is under way. To be called from time to
    /// time, also with nothing new. Positions of partitions that are no longer this consumer's are of no use.
    pub fn commit(&self, delivered: Positions) {
        let positions = {
            let mut commits = self.commits();
            commits.due.merge(delivered);
            if commits.due.is_empty() || commits.asked.is_some() {
                return;
            }
            if let Ok(assigned) = self.client().assignment() {
                commits.due.keep(&assigned);
            }
            if commits.due.is_empty() {
                return;
            }
            commits.asked = Some(Instant::now());
            std::mem::take(&mut commits.due)
        };
        let (client, readable) = (Arc::clone(self.client()), Arc::clone(&self.readable));
        // Made now, as a partition that goes takes its stream along.
        let list = client.client().context().list(&positions);
        // The binding has no way to be told of the end but to wait for it.
        tokio::task::spawn_blocking(move || {
            let context = client.client().context();
            let result = list.and_then(|list| client.commit(&list, CommitMode::Sync));
            if let Err(error) = &result {
                // Nothing is lost: it is tried again, and otherwise the messages come again.
                warn!("{}: offsets could not be committed: {}", context.owner, Words(error));
                thread::sleep(COMMIT_AGAIN);
            }
            context.committed(positions, result);
            drop(client);
            readable.notify_one();
        });
    }

    /// Commits what is due and leaves the group, but does not wait for that for ever.
    pub async fn close(mut self, patience: Duration) {
        timeout(patience, self.commit_all()).await.ok();
        let inner = self.inner.take();
        timeout(patience, tokio::task::spawn_blocking(move || drop(inner))).await.ok();
    }

    async fn commit_all(&self) {
        loop {
            self.commit(Positions::default());
            // What comes now is not taken, and comes again to whoever is next.
            self.hold(|message| drop(message));
            let idle = {
                let commits = self.commits();
                commits.due.is_empty() && commits.asked.is_none()
            };
            if idle {
                return;
            }
            self.readable.notified().await;
        }
    }

    /// How long commits have taken since this was last asked.
    pub fn spent_on_commits(&self) -> Duration {
        std::mem::take(&mut self.commits().spent)
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        // It leaves its group, which the caller must not wait for.
        if let Some(inner) = self.inner.take() {
            thread::spawn(move || drop(inner));
        }
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::Message as _;
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer as _};

    use super::*;

    type Cluster = MockCluster<'static, DefaultProducerContext>;

    const PARTITIONS: i32 = 2;
    const DEADLINE: Duration = Duration::from_secs(60);

    /// Puts so many messages into each partition.
    fn fill(cluster: &Cluster, messages: usize) {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", cluster.bootstrap_servers());
        let producer: BaseProducer = config.create().expect("a producer");
        for partition in 0..PARTITIONS {
            for _ in 0..messages {
                producer.send(BaseRecord::<(), str>::to("t").partition(partition).payload("x")).expect("room");
            }
        }
        producer.flush(DEADLINE).expect("they are there");
    }

    fn member(cluster: &Cluster) -> Consumer {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", cluster.bootstrap_servers()).set("group.id", "g");
        config.set("auto.offset.reset", "smallest").set("enable.auto.commit", "false");
        config.set("heartbeat.interval.ms", "100").set("session.timeout.ms", "3000");
        let consumer = Consumer::new(&config, "a test", &["t"]).expect("a consumer");
        consumer.recall(|_| None);
        consumer
    }

    fn until(mut is_so: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !is_so() {
            assert!(begun.elapsed() < DEADLINE, "it does not come to that");
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn has(consumer: &Consumer, partitions: i32) -> bool {
        consumer.client().assignment().is_ok_and(|assigned| assigned.count() == partitions as usize)
    }

    /// Takes what is there.
    fn take(consumer: &Consumer, taken: &mut Vec<(i32, i64)>) {
        while let Some(message) = consumer.next() {
            if let Ok(message) = message {
                taken.push((message.partition(), message.offset()));
            }
        }
    }

    /// A member whose channel has no room has read everything; another one comes and goes.
    fn what_comes_after_another_member(held_to_the_end: bool) {
        let cluster = MockCluster::new(1).expect("a cluster");
        cluster.create_topic("t", PARTITIONS, 1).expect("a topic");
        fill(&cluster, 3);
        let (one, mut taken) = (member(&cluster), Vec::new());
        until(|| {
            take(&one, &mut taken);
            taken.len() == 3 * PARTITIONS as usize
        });
        let mut positions = Positions::default();
        (0..PARTITIONS).for_each(|partition| positions.advance("t", partition, 3));
        let notes = one.notes(&positions);
        assert_eq!(notes.as_ref().map(|notes| notes.len()), Some(PARTITIONS as usize));
        let mut strays = 0;
        let mut hold = || one.hold(|_| strays += 1);
        let other = member(&cluster);
        until(|| {
            hold();
            take(&other, &mut Vec::new());
            // Whoever has the partitions now, what was read of them can be noted.
            assert!(one.notes(&positions).is_some_and(|now| now.len() == PARTITIONS as usize));
            has(&one, 1) && has(&other, 1)
        });
        if !held_to_the_end {
            one.go_on();
        }
        drop(other);
        taken.clear();
        until(|| {
            if held_to_the_end {
                hold();
            } else {
                take(&one, &mut taken);
            }
            has(&one, PARTITIONS)
        });
        if held_to_the_end {
            one.go_on();
        }
        fill(&cluster, 1);
        until(|| {
            take(&one, &mut taken);
            taken.len() >= PARTITIONS as usize
        });
        taken.sort_unstable();
        assert_eq!((taken, strays), ((0..PARTITIONS).map(|partition| (partition, 3)).collect(), 0));
    }

    #[test]
    fn a_partition_that_went_while_it_was_held_is_read_when_it_comes_back() {
        what_comes_after_another_member(false);
    }

    #[test]
    fn what_is_on_its_way_is_not_read_again_however_often_partitions_go() {
        what_comes_after_another_member(true);
    }

    #[test]
    fn positions_advance_by_partition() {
        let mut positions = Positions::default();
        positions.advance("a", 0, 1);
        positions.advance("b", 0, 7);
        positions.advance("a", 0, 2);
        let mut other = Positions::default();
        other.advance("a", 0, 9);
        other.advance("a", 1, 4);
        positions.merge(other);
        let expected = [("a".to_owned(), 0, 9), ("b".to_owned(), 0, 7), ("a".to_owned(), 1, 4)];
        assert_eq!(positions.0, expected);
        let mut failed = Positions::default();
        failed.advance("a", 0, 3);
        failed.advance("c", 0, 5);
        failed.merge_older(positions.clone());
        let mut newer = failed.0.clone();
        newer.sort();
        let all = [("a".to_owned(), 0, 3), ("a".to_owned(), 1, 4), ("b".to_owned(), 0, 7), ("c".to_owned(), 0, 5)];
        assert_eq!(newer, all);
        let mut assigned = TopicPartitionList::new();
        assigned.add_partition("a", 1);
        positions.keep(&assigned);
        assert_eq!(positions.0, expected[2..]);
    }
}
