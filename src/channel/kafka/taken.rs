//! What sinks have taken from a topic: how far each partition is done, and what has come back.

use std::collections::{BTreeSet, HashMap, VecDeque};

use crate::event::Batch;
use crate::kafka::consumer::Positions;

/// Where each event of a batch comes from: partition and offset.
pub type Places = VecDeque<(i32, i64)>;

/// Events that are taken, and their places.
pub type Taking = (Batch, Places);

#[derive(Debug, Default)]
struct Partition {
    /// Taken, and not yet done.
    open: BTreeSet<i64>,
    /// The offset behind all that was taken.
    end: i64,
    /// What was last told.
    told: Option<i64>,
}

/// Follows events from the first take to the commit.
#[derive(Debug, Default)]
pub struct Tracker {
    partitions: HashMap<i32, Partition>,
    returned: VecDeque<Taking>,
}

impl Tracker {
    /// An event has been taken.
    pub fn took(&mut self, (partition, offset): (i32, i64)) {
        let partition = self.partitions.entry(partition).or_default();
        partition.open.insert(offset);
        partition.end = partition.end.max(offset + 1);
    }

    /// Events have been delivered.
    pub fn done(&mut self, places: impl IntoIterator<Item = (i32, i64)>) {
        for (partition, offset) in places {
            if let Some(partition) = self.partitions.get_mut(&partition) {
                partition.open.remove(&offset);
            }
        }
    }

    /// Events come back, to be the first that are taken again. Those of partitions that are gone do not.
    pub fn give_back(&mut self, batch: Batch, places: Places) {
        if let Some(kept) = self.still_open(batch, places) {
            self.returned.push_front(kept);
        }
    }

    /// Events that nobody has asked for are taken behind all that has come back.
    pub fn append(&mut self, (batch, places): Taking) {
        if let Some(kept) = self.still_open(batch, places) {
            self.returned.push_back(kept);
        }
    }

    fn still_open(&self, batch: Batch, places: Places) -> Option<Taking> {
        let open = |(partition, offset): &(i32, i64)| {
            self.partitions.get(partition).is_some_and(|partition| partition.open.contains(offset))
        };
        if places.iter().all(open) {
            return (!batch.is_empty()).then_some((batch, places));
        }
        let kept = batch.iter().zip(&places).filter(|(_, place)| open(place)).map(|(event, _)| event.to_event());
        let batch: Batch = kept.collect();
        (!batch.is_empty()).then(|| (batch, places.into_iter().filter(open).collect()))
    }

    /// What has come back first, at most `max` events.
    pub fn take_returned(&mut self, max: usize) -> Option<Taking> {
        let (mut batch, mut places) = self.returned.pop_front()?;
        if batch.len() > max {
            let front = batch.split_to(max);
            let rest = places.split_off(max);
            self.returned.push_front((batch, rest));
            return Some((front, places));
        }
        Some((batch, places))
    }

    /// These partitions are gone; what of them is not done is for others to take.
    pub fn forget(&mut self, gone: Vec<(String, i32)>) {
        if gone.is_empty() {
            return;
        }
        for (_, partition) in gone {
            self.partitions.remove(&partition);
        }
        let returned = std::mem::take(&mut self.returned);
        self.returned = returned.into_iter().filter_map(|(batch, places)| self.still_open(batch, places)).collect();
    }

    /// How far each partition has come since this was last asked: everything before is done.
    pub fn progress(&mut self, topic: &str) -> Positions {
        let mut positions = Positions::default();
        for (number, partition) in &mut self.partitions {
            let next = partition.open.first().copied().unwrap_or(partition.end);
            if partition.told.replace(next) != Some(next) {
                positions.advance(topic, *number, next);
            }
        }
        positions
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;

    fn taken(tracker: &mut Tracker, partition: i32, offsets: std::ops::Range<i64>) -> (Batch, Places) {
        let places: Places = offsets.map(|offset| (partition, offset)).collect();
        places.iter().for_each(|place| tracker.took(*place));
        (places.iter().map(|(partition, offset)| Event::new(format!("{partition}-{offset}"))).collect(), places)
    }

    fn progress(tracker: &mut Tracker) -> Positions {
        tracker.progress("t")
    }

    fn positions(expected: &[(i32, i64)]) -> Positions {
        let mut positions = Positions::default();
        expected.iter().for_each(|(partition, next)| positions.advance("t", *partition, *next));
        positions
    }

    #[test]
    fn a_partition_is_done_up_to_the_first_event_that_is_not() {
        let mut tracker = Tracker::default();
        let (_, first) = taken(&mut tracker, 0, 10..20);
        let (_, second) = taken(&mut tracker, 0, 20..30);
        tracker.done(second);
        assert_eq!(progress(&mut tracker), positions(&[(0, 10)]));
        tracker.done(first);
        assert_eq!(progress(&mut tracker), positions(&[(0, 30)]));
        assert_eq!(progress(&mut tracker), positions(&[]), "nothing new");
    }

    #[test]
    fn what_comes_back_is_taken_first_in_its_order() {
        let mut tracker = Tracker::default();
        let (first, first_places) = taken(&mut tracker, 0, 0..3);
        let (second, second_places) = taken(&mut tracker, 0, 3..5);
        tracker.give_back(second, second_places);
        tracker.give_back(first.clone(), first_places);
        let (batch, places) = tracker.take_returned(2).expect("two events");
        assert_eq!((batch, places), (first.front(2), Places::from([(0, 0), (0, 1)])));
        assert_eq!(tracker.take_returned(9).map(|(batch, _)| batch.len()), Some(1));
        assert_eq!(tracker.take_returned(9).map(|(_, places)| places), Some(Places::from([(0, 3), (0, 4)])));
        assert_eq!(tracker.take_returned(9), None);
    }

    #[test]
    fn what_nobody_has_asked_for_comes_last_and_is_not_done() {
        let mut tracker = Tracker::default();
        let (first, first_places) = taken(&mut tracker, 0, 0..3);
        let stray = taken(&mut tracker, 0, 3..5);
        tracker.append(stray.clone());
        tracker.give_back(first.clone(), first_places.clone());
        tracker.append(Taking::default());
        assert_eq!(tracker.take_returned(9), Some((first, first_places.clone())));
        assert_eq!(tracker.take_returned(9), Some(stray));
        assert_eq!(tracker.take_returned(9), None);
        tracker.done(first_places);
        assert_eq!(progress(&mut tracker), positions(&[(0, 3)]));
    }

    #[test]
    fn what_belongs_to_others_now_is_not_taken_again() {
        let mut tracker = Tracker::default();
        let (mut batch, mut places) = taken(&mut tracker, 0, 0..2);
        let (other, other_places) = taken(&mut tracker, 1, 7..8);
        batch.append(other.clone());
        places.extend(&other_places);
        let (late, late_places) = taken(&mut tracker, 0, 2..4);
        tracker.give_back(batch, places);
        tracker.forget(vec![("t".to_owned(), 0)]);
        assert_eq!(tracker.take_returned(9), Some((other, other_places)));
        tracker.give_back(late, late_places);
        assert_eq!(tracker.take_returned(9), None);
        assert_eq!(progress(&mut tracker), positions(&[(1, 7)]));
    }
}
