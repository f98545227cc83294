//! Which batch is being worked on.

/// One batch of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchInfo {
    /// Its number; the first is 1. A batch that is worked on again after a crash has the number that it had.
    pub number: u64,
    /// Its time in milliseconds since 1970: always later than that of the batch before it.
    pub time: i64,
    /// Whether it was begun before a crash, and holds the same rows again. A sink that has stored this number has
    /// the rows already.
    pub again: bool,
}

impl BatchInfo {
    /// The first batch.
    pub fn first(time: i64) -> Self {
        Self { number: 1, time, again: false }
    }

    /// The one that comes next, at this time by the clock. Clocks jump; a batch's time only grows.
    #[must_use]
    pub fn next(self, clock: i64) -> Self {
        Self { number: self.number + 1, time: clock.max(self.time + 1), again: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_only_grows() {
        let first = BatchInfo::first(1000);
        assert_eq!(first.next(2000), BatchInfo { number: 2, time: 2000, again: false });
        assert_eq!(first.next(500).time, 1001, "the clock went back");
    }
}
