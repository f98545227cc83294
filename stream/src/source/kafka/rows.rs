//! Messages on their way to a batch, and where in their partitions they stand.

use crate::format::Records;

/// Messages that follow each other in one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Which partition: its place in the reader's list.
    pub partition: usize,
    /// How many.
    pub count: usize,
    /// The offset behind the last one.
    pub next: i64,
}

impl Run {
    /// The offset of the first one.
    pub fn first(&self) -> i64 {
        self.next - self.count as i64
    }
}

/// What is kept of messages besides the value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// The key.
    pub keys: bool,
    /// The time.
    pub times: bool,
}

/// Messages.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// The values, without columns.
    pub values: Records,
    /// Where they stand, in their order.
    pub runs: Vec<Run>,
    /// The keys if they are kept, and which messages have one.
    pub keys: Records,
    /// Whether each message has a key, if they are kept.
    pub keyed: Vec<bool>,
    /// The times if they are kept.
    pub times: Vec<Option<i64>>,
}

/// What a message is made of.
#[derive(Clone, Copy, Debug, Default)]
pub struct Message<'a> {
    /// Its value, empty if it has none.
    pub value: &'a [u8],
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its time in milliseconds since 1970.
    pub time: Option<i64>,
}

impl Rows {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// How many bytes they take.
    pub fn bytes(&self) -> usize {
        let each = size_of::<usize>();
        self.values.bytes.len() + self.keys.bytes.len() + each * (self.values.len() + self.keys.len())
    }

    /// Adds a message.
    pub fn push(&mut self, partition: usize, offset: i64, kept: Kept, message: Message<'_>) {
        self.values.push(message.value);
        if kept.keys {
            self.keys.push(message.key.unwrap_or_default());
            self.keyed.push(message.key.is_some());
        }
        if kept.times {
            self.times.push(message.time);
        }
        self.push_run(Run { partition, count: 1, next: offset + 1 });
    }

    fn push_run(&mut self, run: Run) {
        match self.runs.last_mut() {
            Some(last) if last.partition == run.partition && last.next == run.first() => {
                last.count += run.count;
                last.next = run.next;
            }
            _ => self.runs.push(run),
        }
    }

    /// Moves all of others behind these. The others are empty afterwards, and keep their room.
    pub fn append(&mut self, others: &mut Self) {
        if self.is_empty() {
            std::mem::swap(self, others);
        } else {
            self.values.append(&others.values);
            self.keys.append(&others.keys);
            self.keyed.extend_from_slice(&others.keyed);
            self.times.extend_from_slice(&others.times);
            others.runs.iter().for_each(|run| self.push_run(*run));
        }
        others.clear();
    }

    /// Takes all of them, in as much memory as they need. The room that these have had is kept.
    pub fn take(&mut self) -> Self {
        let taken = self.clone();
        self.clear();
        taken
    }

    /// Removes all of them, and keeps their room.
    pub fn clear(&mut self) {
        self.values.clear();
        self.keys.clear();
        self.keyed.clear();
        self.times.clear();
        self.runs.clear();
    }

    /// Takes so many of them away from the front.
    pub fn split_to(&mut self, count: usize) -> Self {
        let count = count.min(self.len());
        let mut runs = std::mem::take(&mut self.runs).into_iter();
        let mut front = Vec::new();
        let mut left = count;
        while left > 0
            && let Some(run) = runs.next()
        {
            let taken = run.count.min(left);
            front.push(Run { count: taken, next: run.first() + taken as i64, ..run });
            if taken < run.count {
                self.runs.push(Run { count: run.count - taken, ..run });
            }
            left -= taken;
        }
        self.runs.extend(runs);
        // What is not kept is not there to be split.
        let (keys, times) = (count.min(self.keys.len()), count.min(self.times.len()));
        Self {
            values: self.values.split_to(count),
            keys: self.keys.split_to(keys),
            keyed: self.keyed.drain(..keys).collect(),
            times: self.times.drain(..times).collect(),
            runs: front,
        }
    }

    /// Some of them, which are one run and begin with this one.
    pub fn part(&self, first: usize, run: Run) -> Self {
        let range = first..first + run.count;
        // What is not kept is not there.
        let of = |count: usize| range.start.min(count)..range.end.min(count);
        Self {
            values: self.values.part(range.clone()),
            keys: self.keys.part(of(self.keys.len())),
            keyed: self.keyed[of(self.keyed.len())].to_vec(),
            times: self.times[of(self.times.len())].to_vec(),
            runs: vec![run],
        }
    }

    /// How many of them, all of one partition, are before an offset.
    pub fn count_before(&self, offset: i64) -> usize {
        let before = |run: &Run| (offset - run.first()).clamp(0, run.count as i64) as usize;
        self.runs.iter().map(before).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEPT: Kept = Kept { keys: true, times: false };

    fn rows(offsets: &[(usize, i64)]) -> Rows {
        let mut rows = Rows::default();
        for (partition, offset) in offsets {
            let value = format!("{partition}:{offset}");
            let message = Message { value: value.as_bytes(), key: (*partition == 0).then_some(b"k"), time: None };
            rows.push(*partition, *offset, KEPT, message);
        }
        rows
    }

    fn texts(rows: &Rows) -> String {
        rows.values.iter().map(String::from_utf8_lossy).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn offsets_that_are_missing_are_not_counted() {
        let rows = rows(&[(0, 5), (0, 6), (0, 9), (0, 10)]);
        for (offset, count) in [(4, 0), (5, 0), (6, 1), (7, 2), (9, 2), (10, 3), (12, 4)] {
            assert_eq!(rows.count_before(offset), count, "{offset}");
        }
    }

    #[test]
    fn where_they_stand_is_known_wherever_they_are_split() {
        let all = [(0, 5), (0, 6), (0, 9), (1, 0), (1, 1), (0, 10)];
        for count in 0..=all.len() {
            let (mut front, mut back) = (rows(&all[..2]), rows(&all[2..]));
            front.append(&mut back);
            assert!(back.is_empty() && back.runs.is_empty());
            let split = front.split_to(count);
            for (part, expected) in [(&split, &all[..count]), (&front, &all[count..])] {
                assert_eq!(texts(part), texts(&rows(expected)));
                assert_eq!(part.runs, rows(expected).runs, "{count}");
                assert_eq!(part.keyed, rows(expected).keyed);
                assert_eq!(part.keys.len(), expected.len());
            }
            let part = rows(&all).part(count.min(5), Run { partition: 7, count: 1, next: 9 });
            assert_eq!((texts(&part), part.keyed.len()), (texts(&rows(&all[count.min(5)..][..1])), 1));
        }
    }
}
