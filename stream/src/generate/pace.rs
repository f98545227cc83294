//! How many lines are due.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Lines are written together, at most so often.
const TICK: Duration = Duration::from_millis(10);
/// What was missed for longer, as while nobody listened, is not made up for.
const MOST_BEHIND: Duration = Duration::from_secs(1);
/// At most so many lines are due at once.
const MOST: u64 = 10_000;

/// Lines a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate(Option<f64>);

impl Rate {
    /// Seconds from line to line; where the rate is as high as can be, a thousandth.
    pub fn step(self) -> f64 {
        1.0 / self.0.unwrap_or(1000.0)
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "max" {
            return Ok(Self(None));
        }
        let rate = text.parse().ok().filter(|rate| (1e-4..=1e9).contains(rate));
        rate.map(|rate| Self(Some(rate))).ok_or_else(|| "expected lines a second, as 1000 or 0.25, or `max`".to_owned())
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(rate) => rate.fmt(f),
            None => f.write_str("max"),
        }
    }
}

/// Holds a rate: lines are counted from the start, so that small delays do not add up.
#[derive(Debug)]
pub struct Pace {
    rate: Rate,
    start: Instant,
    /// The time after the start that does not count.
    missed: Duration,
    given: u64,
}

impl Pace {
    /// Begins now.
    pub fn new(rate: Rate) -> Self {
        Self { rate, start: Instant::now(), missed: Duration::ZERO, given: 0 }
    }

    /// Waits until lines are due, and says how many.
    pub async fn due(&mut self) -> u64 {
        tokio::task::yield_now().await;
        loop {
            match self.at(self.start.elapsed()) {
                Ok(due) => return due,
                Err(then) => sleep_until(self.start + then).await,
            }
        }
    }

    /// How many lines are due so long after the start; if there are none, when to ask again.
    fn at(&mut self, now: Duration) -> Result<u64, Duration> {
        let Some(rate) = self.rate.0 else { return Ok(MOST) };
        let time_of = |line: u64| Duration::from_secs_f64(line as f64 / rate);
        let next = self.missed + time_of(self.given);
        if next > now {
            return Err(next.max(now + TICK));
        }
        let behind = now - next;
        if behind > MOST_BEHIND.max(time_of(1)) {
            self.missed += behind - MOST_BEHIND;
        }
        let counted = now.saturating_sub(self.missed).as_secs_f64();
        let due = ((counted * rate) as u64 + 1).saturating_sub(self.given).clamp(1, MOST);
        self.given += due;
        Ok(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_numbers_or_the_most() {
        assert_eq!("0.25".parse(), Ok(Rate(Some(0.25))));
        assert_eq!("max".parse(), Ok(Rate(None)));
        for wrong in ["", "0", "-1", "fast", "inf", "NaN"] {
            assert!(wrong.parse::<Rate>().is_err(), "{wrong}");
        }
    }

    /// How many lines there are from one time to another.
    fn count(pace: &mut Pace, from: Duration, to: Duration) -> u64 {
        let (mut now, mut count) = (from, 0);
        while now < to {
            match pace.at(now) {
                Ok(due) => count += due,
                // Nobody wakes up in time.
                Err(then) => now = then + Duration::from_micros(1234),
            }
        }
        count
    }

    #[test]
    fn the_rate_is_held_for_long_and_not_made_up_for_after_a_pause() {
        let second = Duration::from_secs(1);
        for rate in [0.25, 3.0, 1000.0, 333_333.0] {
            let made = count(&mut Pace::new(Rate(Some(rate))), Duration::ZERO, second * 600) as f64;
            assert!((made - 600.0 * rate).abs() <= rate / 50.0 + 1.0, "{made} at {rate}");
        }
        let mut pace = Pace::new(Rate(Some(100.0)));
        count(&mut pace, Duration::ZERO, second);
        let made = count(&mut pace, second * 100, second * 101);
        assert!((190..=210).contains(&made), "{made}");
    }
}
