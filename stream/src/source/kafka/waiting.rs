//! What waits for the next batch, and how much of each partition that batch has.
//!
//! A batch takes the same part of what is left of every partition, so that all get on evenly and windows by time see
//! rows about in the order in which they came to the topic. What is left is known from the end that a partition had
//! when it was found, or else from what waits. A partition that has more than has come holds the others back, so that
//! they do not run ahead; but not for long, as it may be away, and not when there is no room for more to come.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use super::rows::Rows;
use super::survey::Partition;

/// So many messages, or bytes, are one part at most.
pub const CHUNK: usize = 8192;
pub const CHUNK_BYTES: usize = 1 << 20;

/// A partition of which nothing comes for so long does not hold others back.
const PATIENCE: Duration = Duration::from_secs(2);

/// What waits of a partition.
#[derive(Debug)]
struct Queue {
    /// Messages in their order.
    parts: VecDeque<Rows>,
    /// The offset behind the last one that came.
    next: i64,
    /// The offset up to which there are more; not more than `next` when that is not known.
    end: i64,
    /// When something came, or could have begun to.
    came: Instant,
}

impl Queue {
    /// The first offset that waits.
    fn first(&self) -> i64 {
        self.parts.front().and_then(|part| part.runs.first()).map_or(self.next, |run| run.first())
    }

    /// How many offsets wait.
    fn held(&self) -> i64 {
        self.next - self.first()
    }

    /// How many offsets are left, as far as is known.
    fn left(&self) -> i64 {
        self.next.max(self.end) - self.first()
    }

    fn push(&mut self, rows: &mut Rows) {
        match self.parts.back_mut() {
            Some(back) if fit(back, rows) => back.append(rows),
            _ => self.parts.push_back(rows.take()),
        }
    }

    /// Takes messages with so many offsets.
    fn take(&mut self, offsets: i64, taken: &mut Vec<Rows>) -> usize {
        let until = self.first() + offsets;
        let mut bytes = 0;
        while let Some(mut front) = self.parts.pop_front() {
            let count = front.count_before(until);
            if count < front.len() {
                let part = front.split_to(count);
                self.parts.push_front(std::mem::replace(&mut front, part));
            }
            if front.is_empty() {
                break;
            }
            bytes += front.bytes();
            match taken.last_mut() {
                Some(last) if fit(last, &front) => last.append(&mut front),
                _ => taken.push(front),
            }
        }
        bytes
    }
}

fn fit(part: &Rows, more: &Rows) -> bool {
    part.len() + more.len() <= CHUNK && part.bytes() + more.bytes() <= CHUNK_BYTES
}

/// What waits for the next batch.
#[derive(Debug, Default)]
pub struct Waiting {
    queues: Vec<Queue>,
    bytes: usize,
    /// So many bytes may wait.
    most: usize,
    /// The partition that is asked first: the one with little room left would be the same otherwise.
    turn: usize,
    /// All partitions that were ever read, and the offsets where that began.
    pub partitions: Vec<(Partition, i64)>,
    /// Places of partitions that others of the group have got since this was last looked at.
    pub revoked: BTreeSet<usize>,
    /// Whether nothing comes any more.
    pub ended: bool,
    /// Why not.
    pub failure: Option<String>,
}

impl Waiting {
    /// Nothing yet; so many bytes may wait.
    pub fn new(most: usize) -> Self {
        Self { most, ..Self::default() }
    }

    /// A further partition, from this offset on.
    pub fn add(&mut self, partition: Partition, next: i64) {
        self.partitions.push((partition, next));
        self.queues.push(Queue { parts: VecDeque::new(), next, end: 0, came: Instant::now() });
    }

    /// A partition is read now, and has messages up to this offset.
    pub fn begin(&mut self, partition: usize, end: i64) {
        let queue = &mut self.queues[partition];
        (queue.end, queue.came) = (end, Instant::now());
    }

    /// A partition has no more messages for now than have come.
    pub fn at_end(&mut self, partition: usize) {
        self.queues[partition].end = 0;
    }

    /// Messages could not come for a while.
    pub fn rested(&mut self) {
        let now = Instant::now();
        self.queues.iter_mut().for_each(|queue| queue.came = now);
    }

    /// Takes in messages, which are empty afterwards.
    pub fn push(&mut self, rows: &mut Rows) {
        self.bytes += rows.bytes();
        let now = Instant::now();
        let runs = std::mem::take(&mut rows.runs);
        for run in &runs {
            let queue = &mut self.queues[run.partition];
            (queue.next, queue.came) = (run.next, now);
        }
        match runs.as_slice() {
            [] => {}
            [run] => {
                rows.runs.push(*run);
                self.queues[run.partition].push(rows);
            }
            several => {
                let mut first = 0;
                for run in several {
                    self.queues[run.partition].push(&mut rows.part(first, *run));
                    first += run.count;
                }
                rows.clear();
            }
        }
    }

    /// Forgets what waits of partitions that others have got.
    pub fn revoke(&mut self, partitions: &BTreeSet<usize>) {
        for partition in partitions {
            let queue = &mut self.queues[*partition];
            self.bytes -= queue.parts.drain(..).map(|part| part.bytes()).sum::<usize>();
            queue.end = 0;
        }
        self.revoked.extend(partitions);
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.queues.iter().all(|queue| queue.parts.is_empty())
    }

    /// Whether nothing more may come for now.
    pub fn is_full(&self) -> bool {
        self.bytes >= self.most
    }

    /// Whether a batch would be given something.
    pub fn has_some(&self) -> bool {
        !self.is_empty() && self.share(1.0) > 0.0
    }

    /// Which part of what is left the next batch has, if it has room for so many messages.
    fn share(&self, room: f64) -> f64 {
        let share = self.share_if(!self.ended, room);
        // What is waited for cannot come while there is no room.
        if share == 0.0 && self.is_full() { self.share_if(false, room) } else { share }
    }

    /// The same, if partitions may hold others back or not.
    fn share_if(&self, may_hold: bool, room: f64) -> f64 {
        let (mut left, mut share) = (0.0, 1.0f64);
        for queue in &self.queues {
            let (held, all) = (queue.held() as f64, queue.left() as f64);
            let holds = may_hold && queue.next < queue.end && queue.came.elapsed() < PATIENCE;
            if holds {
                share = share.min(held / all);
            }
            if holds || held > 0.0 {
                left += all;
            }
        }
        if left > room { share.min(room / left) } else { share }
    }

    /// Takes at most so many messages.
    pub fn take(&mut self, mut room: usize) -> Vec<Rows> {
        let share = self.share(room as f64);
        self.turn += 1;
        let (mut taken, count) = (Vec::new(), self.queues.len());
        for partition in (0..count).map(|number| (self.turn + number) % count) {
            let queue = &mut self.queues[partition];
            let most = i64::try_from(room).unwrap_or(i64::MAX).min(queue.held());
            let offsets = ((queue.left() as f64 * share).ceil() as i64).min(most);
            if offsets > 0 {
                self.bytes -= queue.take(offsets, &mut taken);
                room -= offsets as usize;
            }
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::rows::{Kept, Message, Run};
    use super::*;

    const KEPT: Kept = Kept { keys: true, times: false };

    fn waiting(ends: &[i64]) -> Waiting {
        let mut waiting = Waiting::new(1 << 20);
        for (number, end) in ends.iter().enumerate() {
            waiting.add(Partition { topic: "t".into(), number: number as i32 }, 0);
            waiting.begin(number, *end);
        }
        waiting
    }

    fn push(waiting: &mut Waiting, messages: impl IntoIterator<Item = (usize, i64)>) {
        let mut rows = Rows::default();
        for (partition, offset) in messages {
            let value = format!("{partition}:{offset}");
            rows.push(partition, offset, KEPT, Message { value: value.as_bytes(), key: None, time: None });
        }
        waiting.push(&mut rows);
        assert!(rows.is_empty() && rows.runs.is_empty());
    }

    fn all(partition: usize, offsets: std::ops::Range<i64>) -> impl Iterator<Item = (usize, i64)> {
        offsets.map(move |offset| (partition, offset))
    }

    /// How many messages of each partition a batch has, which has at most so many.
    fn counts(waiting: &mut Waiting, room: usize) -> Vec<usize> {
        let mut counts = vec![0; waiting.queues.len()];
        for Run { partition, count, .. } in waiting.take(room).iter().flat_map(|rows| &rows.runs) {
            counts[*partition] += count;
        }
        counts
    }

    #[test]
    fn each_batch_has_the_same_part_of_every_partition() {
        let mut waiting = waiting(&[768, 256, 0]);
        push(&mut waiting, all(0, 0..768).chain(all(1, 0..256)));
        assert_eq!(counts(&mut waiting, 128), [96, 32, 0]);
        // Those that have come since were not known.
        push(&mut waiting, all(2, 0..128));
        assert_eq!(counts(&mut waiting, 128), [84, 28, 16]);
    }

    #[test]
    fn one_that_is_behind_holds_the_others_back_unless_it_is_away_or_there_is_no_room() {
        let mut behind = waiting(&[128, 64]);
        push(&mut behind, all(0, 0..128));
        assert!(!behind.has_some());
        assert_eq!(counts(&mut behind, usize::MAX), [0, 0]);
        push(&mut behind, all(1, 0..16));
        assert!(behind.has_some());
        assert_eq!(counts(&mut behind, usize::MAX), [32, 16]);
        assert!(!behind.has_some());
        behind.queues[1].came = Instant::now().checked_sub(PATIENCE).expect("the clock has run for longer");
        assert_eq!(counts(&mut behind, 30), [30, 0]);
        // It is back.
        push(&mut behind, all(1, 16..28));
        assert_eq!(counts(&mut behind, usize::MAX), [17, 12]);
        behind.at_end(1);
        assert_eq!(counts(&mut behind, usize::MAX), [49, 0]);
        let mut full = waiting(&[128, 64]);
        full.most = 1;
        push(&mut full, all(0, 0..96).chain(all(1, 0..8)));
        assert_eq!(counts(&mut full, usize::MAX), [16, 8]);
        assert_eq!(counts(&mut full, usize::MAX), [80, 0]);
        assert_eq!(full.bytes, 0);
    }

    #[test]
    fn batches_with_less_room_than_there_are_partitions_forget_none() {
        let mut waiting = waiting(&[0, 0, 0]);
        push(&mut waiting, (0..3).flat_map(|partition| all(partition, 0..4)));
        let mut found = vec![0; 3];
        for _ in 0..6 {
            counts(&mut waiting, 1).into_iter().zip(&mut found).for_each(|(count, found)| *found += count);
        }
        assert_eq!(found, [2, 2, 2]);
    }

    #[test]
    fn partitions_that_are_gone_take_theirs_along() {
        let mut waiting = waiting(&[0, 9, 0]);
        push(&mut waiting, [(0, 5), (1, 0), (0, 6), (2, 3)]);
        waiting.revoke(&BTreeSet::from([1, 2]));
        assert_eq!(counts(&mut waiting, usize::MAX), [2, 0, 0]);
        assert!(waiting.is_empty());
        assert_eq!((waiting.bytes, waiting.revoked), (0, BTreeSet::from([1, 2])));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever comes is given once and in its order, and all of it in the end.
        #[test]
        fn nothing_is_lost_or_given_twice(
            pushes in prop::collection::vec(prop::collection::vec((0usize..4, 1i64..4), 0..60), 1..12),
            ends in prop::collection::vec(0i64..90, 4),
            room in prop_oneof![1usize..40, Just(usize::MAX)],
        ) {
            let (mut waiting, mut sent, mut given) = (waiting(&ends), vec![Vec::new(); 4], vec![Vec::new(); 4]);
            let mut give = |waiting: &mut Waiting| {
                let taken = waiting.take(room);
                let count: usize = taken.iter().map(Rows::len).sum();
                assert!(count <= room);
                for rows in &taken {
                    let mut values = rows.values.iter();
                    for run in &rows.runs {
                        for offset in run.first()..run.next {
                            let value = format!("{}:{offset}", run.partition);
                            assert_eq!(values.next(), Some(value.as_bytes()));
                            given[run.partition].push(offset);
                        }
                    }
                    assert_eq!((values.next(), rows.keyed.len()), (None, rows.len()));
                }
                count
            };
            for messages in pushes {
                let messages: Vec<_> = messages.into_iter().map(|(partition, gap)| {
                    let offset = sent[partition].last().map_or(gap - 1, |last| last + gap);
                    sent[partition].push(offset);
                    (partition, offset)
                }).collect();
                push(&mut waiting, messages);
                give(&mut waiting);
            }
            waiting.ended = true;
            while give(&mut waiting) > 0 {}
            prop_assert!(waiting.is_empty());
            prop_assert_eq!(waiting.bytes, 0);
            prop_assert_eq!(given, sent);
        }
    }
}
