//! Sets of sequence numbers as ranges.

use std::collections::BTreeMap;

/// Ranges `from..to` that neither touch nor overlap. As events are done with nearly in order, they are few.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a range.
    pub fn insert(&mut self, mut from: u64, mut to: u64) {
        if from >= to {
            return;
        }
        if let Some((&before, &end)) = self.0.range(..=from).next_back()
            && end >= from
        {
            from = before;
            to = to.max(end);
        }
        while let Some((&next, &end)) = self.0.range(from..=to).next() {
            self.0.remove(&next);
            to = to.max(end);
        }
        self.0.insert(from, to);
    }

    /// Where the range that begins at 0 ends.
    pub fn floor(&self) -> u64 {
        self.0.get(&0).copied().unwrap_or(0)
    }

    /// All ranges in order.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        self.0.iter().map(|(from, to)| (*from, *to))
    }

    /// How many numbers of `from..to` are not in the set.
    pub fn count_missing(&self, from: u64, to: u64) -> u64 {
        self.missing(from, to).map(|(from, to)| to - from).sum()
    }

    /// The parts of `from..to` that are not in the set.
    pub fn missing(&self, from: u64, to: u64) -> impl Iterator<Item = (u64, u64)> {
        let first = self.0.range(..=from).next_back().map_or(from, |(start, _)| *start);
        let inside = self.0.range(first..to.max(first));
        let mut at = from;
        let gaps = inside.map(|(start, end)| (*start, *end)).chain([(to, to)]).map(move |(start, end)| {
            let gap = (at, start.min(to));
            at = at.max(end);
            gap
        });
        gaps.filter(|(from, to)| from < to)
    }
}

impl FromIterator<(u64, u64)> for Ranges {
    fn from_iter<I: IntoIterator<Item = (u64, u64)>>(ranges: I) -> Self {
        let mut set = Self::default();
        for (from, to) in ranges {
            set.insert(from, to);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_that_touch_are_one() {
        let set = Ranges::from_iter([(0, 3), (5, 7), (3, 5), (10, 10)]);
        assert_eq!(set.iter().collect::<Vec<_>>(), [(0, 7)]);
        assert_eq!(set.floor(), 7);
    }

    proptest! {
        #[test]
        fn as_a_set_of_numbers(
            ranges in prop::collection::vec((0u64..60, 0u64..12), 0..12),
            from in 0u64..60,
            len in 0u64..40,
        ) {
            let ranges: Vec<_> = ranges.into_iter().map(|(from, len)| (from, from + len)).collect();
            let numbers: BTreeSet<u64> = ranges.iter().flat_map(|(from, to)| *from..*to).collect();
            let set: Ranges = ranges.into_iter().collect();
            let found: Vec<u64> = set.iter().flat_map(|(from, to)| from..to).collect();
            prop_assert_eq!(&found, &numbers.iter().copied().collect::<Vec<_>>());
            let missing: Vec<u64> = set.missing(from, from + len).flat_map(|(from, to)| from..to).collect();
            let expected: Vec<u64> = (from..from + len).filter(|number| !numbers.contains(number)).collect();
            prop_assert_eq!(set.count_missing(from, from + len), expected.len() as u64);
            prop_assert_eq!(missing, expected);
        }
    }
}
